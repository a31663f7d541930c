//! Secrets over the real binary: looked up late, refused when expired, never printed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::server::{Home, Server};

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
    let path = server.home.directory.path().join("token");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = std::fs::read_to_string(&server.home.config).unwrap();
    std::fs::write(&server.home.config, text.replace(", expires_at: '2020-01-01T00:00:00Z'", "")).unwrap();
    let listed = server.home.run_ok(&["secret", "list", "--json"]);
    assert!(listed.contains("refused") && listed.contains("chmod"), "{listed}");
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
