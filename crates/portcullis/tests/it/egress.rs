//! Every connection of the real binary, as the kernel saw it: it goes to the configured source and nowhere else.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::secrets::empty_prometheus;
use crate::server::{BINARY, Home, modern, modern_headers, post};

/// `address:port` of every line that names where something goes.
fn destinations(trace: &str) -> BTreeSet<String> {
    let between = |line: &str, from: &str, to: &str| {
        let rest = line.split_once(from)?.1;
        Some(rest.split_once(to)?.0.to_owned())
    };
    let read = |line: &str| {
        let port = between(line, "htons(", ")")?;
        let address = between(line, "inet_addr(\"", "\"").or_else(|| between(line, "inet_pton(AF_INET6, \"", "\""))?;
        Some(format!("{address}:{port}"))
    };
    trace.lines().filter(|l| l.contains("AF_INET")).map(|l| read(l).unwrap_or_else(|| l.to_owned())).collect()
}

#[test]
fn every_connection_of_the_server_goes_to_the_configured_source() {
    if Command::new("strace").arg("-V").output().is_err() {
        crate::server::skipped("strace is not installed");
        return;
    }
    let (url, seen) = empty_prometheus();
    let home = Home::new(&format!("sources: [{{name: prom, kind: prometheus, url: '{url}', allow_addresses: [loopback]}}]\n"));
    let key = home.key(&["--role", "admin"]);
    // Before the server runs: two processes cannot open the store together.
    let tools = home.run_ok(&["tools", "--json"]);
    let tools: Value = serde_json::from_str(&tools).unwrap();
    let names: Vec<String> = tools
        .as_array()
        .or_else(|| tools["tools"].as_array())
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap().to_owned())
        .collect();
    let trace = home.directory.path().join("trace");
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o"])
        .arg(&trace)
        .arg(BINARY)
        .arg("--config")
        .arg(&home.config)
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while TcpStream::connect(home.mcp).is_err() && began.elapsed() < Duration::from_mins(1) {
        assert!(tracer.try_wait().unwrap().is_none(), "this process may not trace");
        std::thread::sleep(Duration::from_millis(50));
    }
    let traced = format!("/proc/{0}/task/{0}/children", tracer.id());
    let traced = std::fs::read_to_string(traced).unwrap().trim().to_owned();
    let outcome = std::panic::catch_unwind(|| {
        for name in &names {
            // Arguments that tempt: addresses and names where one could be followed.
            for arguments in [
                json!({}),
                json!({"query": "up", "source": "prom"}),
                json!({"service": "http://169.254.169.254/latest"}),
                json!({"query": "select * from 'http://192.0.2.1/x.parquet'"}),
            ] {
                let headers = [modern_headers(name), vec![("Authorization".to_owned(), format!("Bearer {key}"))]].concat();
                post(home.mcp, "/mcp", &headers, modern(name, &arguments).to_string().as_bytes());
            }
        }
        names.len()
    });
    // The traced process first: a tracer that is killed lets go of it and leaves it running.
    let stopped = Command::new("kill").args(["-TERM", &traced]).status().unwrap().success();
    let ended = tracer.wait().unwrap();
    let tools = outcome.unwrap();
    assert!(stopped, "{ended}");
    assert!(tools > 5, "only {tools} tools were called");
    assert!(!seen.lock().unwrap().is_empty(), "the source was never asked");
    let text = std::fs::read_to_string(&trace).unwrap();
    let expected = BTreeSet::from([url.strip_prefix("http://").unwrap().to_owned()]);
    assert_eq!(destinations(&text), expected);
    println!("{tools} tools called, {} connections, all to the source", text.lines().filter(|l| l.contains("AF_INET")).count());
}
