//! Secrets over the real binary: looked up late, refused when expired, never printed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Home, Server, intact};

/// A source that answers every question with nothing and remembers the credentials it saw.
pub(crate) fn empty_prometheus() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let kept = kept.clone();
            std::thread::spawn(move || {
                let mut part = vec![0; 65_536];
                let Ok(read) = stream.read(&mut part) else { return };
                let text = String::from_utf8_lossy(&part[..read]).into_owned();
                let credential = text.lines().find(|l| l.to_ascii_lowercase().starts_with("authorization:"));
                kept.lock().unwrap().push(credential.unwrap_or("none").to_owned());
                let data = if text.contains("/query") { r#"{"resultType":"vector","result":[]}"# } else { "[]" };
                let body = format!(r#"{{"status":"success","data":{data}}}"#);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
                let _ = stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes());
            });
        }
    });
    (url, seen)
}

fn home(url: &str, extra: &str) -> Home {
    let home = Home::new("");
    let path = home.directory.path().join("token");
    std::fs::write(&path, "hunter2-in-a-file\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    let file = path.display();
    let more = format!(
        "secrets: [{{name: prom, reference: 'file:{file}', type: token{extra}}}]\n\
         sources: [{{name: prom, kind: prometheus, url: '{url}', allow_addresses: [loopback], auth: {{bearer: 'secret:prom'}}}}]\n"
    );
    std::fs::write(&home.config, text + &more).unwrap();
    home
}

#[test]
fn a_secret_is_read_for_each_request_and_never_printed() {
    let (url, seen) = empty_prometheus();
    let home = home(&url, "");
    let key = home.key(&["--role", "admin"]);
    let server = Server::start_in(home);
    server.call(Some(&key), "query_metrics", &json!({"query": "up", "source": "prom"}));
    let path = server.home.directory.path().join("token");
    std::fs::write(&path, "hunter3-rotated\n").unwrap();
    server.call(Some(&key), "query_metrics", &json!({"query": "down", "source": "prom"}));
    let seen = seen.lock().unwrap().join("\n");
    assert!(seen.contains("Bearer hunter2-in-a-file") && seen.ends_with("Bearer hunter3-rotated"), "{seen}");
    let mut printed = server.log();
    for arguments in [
        &["config", "show"][..],
        &["secret", "list"],
        &["secret", "list", "--json"],
        &["secret", "check"],
        &["doctor", "--json"],
        &["audit", "tail", "-n", "1000", "--json"],
    ] {
        let output = server.home.run(arguments);
        printed.push_str(&String::from_utf8_lossy(&output.stdout));
        printed.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    assert!(printed.contains("secret:prom") && !printed.contains("hunter"), "{printed}");
    let kept = std::fs::read_to_string(&server.home.config).unwrap();
    assert!(!kept.contains("hunter"), "written back: {kept}");
}

#[test]
fn an_expired_or_open_secret_is_refused_and_said_everywhere() {
    let (url, seen) = empty_prometheus();
    let home = home(&url, ", expires_at: '2020-01-01T00:00:00Z'");
    let key = home.key(&["--role", "admin"]);
    let listed = home.run_ok(&["secret", "list", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()[0]["state"], "expired", "{listed}");
    assert!(!home.run(&["secret", "check"]).status.success());
    let doctor = String::from_utf8(home.run(&["doctor", "--json"]).stdout).unwrap();
    assert!(doctor.contains("secret prom") && doctor.contains("expired at 2020-01-01"), "{doctor}");
    let server = Server::start_in(home);
    let reply = server.call(Some(&key), "query_metrics", &json!({"query": "up", "source": "prom"}));
    assert!(reply.body.contains("has expired"), "{}", reply.body);
    assert!(seen.lock().unwrap().is_empty(), "the source was asked");
    server.home.audited(|r| r["method"] == "secret.expired" && r["target"] == "prom");
    let call = server.home.audited(|r| r["tool"] == "query_metrics");
    assert_eq!((&call["kind"], &call["code"]), (&json!("failed"), &json!("backend_failed")), "{call}");
    // Good again by the configuration, but readable by everybody.
    let path = server.home.directory.path().join("token");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    change(&server.home, ", expires_at: '2020-01-01T00:00:00Z'", "");
    recorded(&server, "secret.refused", "prom");
    let listed = server.home.run_ok(&["secret", "list", "--json"]);
    assert!(listed.contains("refused") && listed.contains("chmod"), "{listed}");
    let reply = server.call(Some(&key), "query_metrics", &json!({"query": "up", "source": "prom"}));
    assert!(reply.body.contains("may not be used"), "{}", reply.body);
    assert!(seen.lock().unwrap().is_empty(), "the source was asked");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    recorded(&server, "secret.usable", "prom");
    server.call(Some(&key), "query_metrics", &json!({"query": "up", "source": "prom"}));
    assert!(!seen.lock().unwrap().is_empty(), "a secret that is good again is used");
}

/// Replaces a part of the configuration.
fn change(home: &Home, from: &str, to: &str) {
    let text = std::fs::read_to_string(&home.config).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&home.config, text.replace(from, to)).unwrap();
}

/// Waits for the record of an operation about a secret.
fn recorded(server: &Server, operation: &str, secret: &str) {
    let began = Instant::now();
    while !server.home.audit().iter().any(|r| r["kind"] == "secret" && r["method"] == operation && r["target"] == secret) {
        assert!(began.elapsed() < Duration::from_secs(20), "no record {operation} of {secret}: {:#?}", server.home.audit());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn private_file(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn what_happens_to_secrets_while_a_server_runs_is_recorded() {
    let (url, seen) = empty_prometheus();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let end = portcullis_model::Timestamp::from_seconds(i64::try_from(now).unwrap() + 4).to_string();
    let home = home(&url, &format!(", expires_at: '{end}'"));
    let named = home.directory.path().join("token");
    let direct = home.directory.path().join("direct");
    private_file(&direct, "hunter6-direct");
    let text = std::fs::read_to_string(&home.config).unwrap();
    let more = format!(
        "- {{name: by-file, kind: prometheus, url: '{url}', allow_addresses: [loopback], auth: {{bearer: 'file:{}'}}}}\n",
        direct.display()
    );
    let text = text.replace("sources: [{", "sources:\n- {").replace("'secret:prom'}}]\n", &format!("'secret:prom'}}}}\n{more}"));
    std::fs::write(&home.config, text).unwrap();
    let key = home.key(&["--role", "admin"]);
    let reference = format!("file:{}", direct.display());
    // What is written down without an entry is told as well.
    let listed: Vec<Value> = serde_json::from_str(&home.run_ok(&["secret", "list", "--json"])).unwrap();
    let entry = listed.iter().find(|one| one["name"] == reference.as_str()).unwrap_or_else(|| panic!("{listed:#?}"));
    assert_eq!((&entry["state"], &entry["type"]), (&json!("ok"), &Value::Null), "{entry}");
    let lines: Vec<Value> = serde_json::from_slice(&home.run(&["doctor", "--json"]).stdout).unwrap();
    assert!(lines.iter().any(|line| line["name"] == format!("secret {reference}").as_str()), "{lines:#?}");

    let server = Server::start_in(home);
    let ask = |source: &str| server.call(Some(&key), "query_metrics", &json!({"query": "up", "source": source}));
    // It ends while the server runs.
    recorded(&server, "secret.expired", "prom");
    seen.lock().unwrap().clear();
    assert!(ask("prom").body.contains("has expired"), "an ended secret is used");
    assert!(seen.lock().unwrap().is_empty(), "the source was asked");
    // Replaced, and the configuration says so.
    private_file(&named, "hunter7-renewed");
    change(&server.home, &format!(", expires_at: '{end}'"), ", expires_at: '2099-01-01T00:00:00Z'");
    recorded(&server, "secret.usable", "prom");
    recorded(&server, "secret.rotated", "prom");
    ask("prom");
    assert!(seen.lock().unwrap().last().is_some_and(|c| c.ends_with("hunter7-renewed")), "{seen:?}");
    // It is something else than its entry says.
    private_file(&named, "hunter8 and a line of a log");
    recorded(&server, "secret.refused", "prom");
    seen.lock().unwrap().clear();
    assert!(ask("prom").body.contains("may not be used") && seen.lock().unwrap().is_empty(), "{seen:?}");
    // The one without an entry goes away, and comes back as another one after a restart.
    std::fs::remove_file(&direct).unwrap();
    recorded(&server, "secret.missing", &reference);
    assert!(ask("by-file").body.contains("is missing") && seen.lock().unwrap().is_empty(), "{seen:?}");
    let home = server.kill();
    private_file(&direct, "hunter9-another");
    let server = Server::start_in(home);
    recorded(&server, "secret.rotated", &reference);
    let home = server.kill();
    let records: Vec<Value> = home.audit().into_iter().filter(|r| r["kind"] == "secret").collect();
    let count = |operation: &str| records.iter().filter(|r| r["method"] == operation).count();
    assert_eq!((count("secret.expired"), count("secret.missing"), count("secret.usable")), (1, 1, 1), "{records:#?}");
    assert!(!json!(records).to_string().contains("hunter"), "{records:#?}");
    // Under stdio as well.
    change(&home, "'2099-01-01T00:00:00Z'", "'2020-01-01T00:00:00Z'");
    assert!(home.run(&["stdio"]).status.success());
    let expired = home.audit().iter().filter(|r| r["method"] == "secret.expired").count();
    assert_eq!(expired, 2, "{:#?}", home.audit());
    assert!(intact(&home));
}

#[test]
fn made_secrets_are_long_and_never_the_same() {
    let home = Home::new("");
    for (kind, length) in [("token", 32), ("password", 24), ("key", 64)] {
        let make = || home.run_ok(&["secret", "generate", "--type", kind, "--length", &length.to_string()]).trim().to_owned();
        let (one, other) = (make(), make());
        assert_eq!((one.len(), other.len()), (length, length), "{kind}");
        assert_ne!(one, other);
    }
    assert!(!home.run(&["secret", "generate", "--length", "8"]).status.success());
}
