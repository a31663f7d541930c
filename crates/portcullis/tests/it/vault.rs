//! Secrets from a store over HTTP, through the real binary: used, rotated, refused when the store is down, never printed. No
//! real Vault or OpenBao runs here: the stand-in speaks the HTTP API as the vendor documents it
//! (<https://developer.hashicorp.com/vault/api-docs>) and answers every request that is not in the API with 405.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::secrets::empty_prometheus;
use crate::server::{Home, Server, intact};

struct Vault {
    url: String,
    value: Arc<Mutex<Option<&'static str>>>,
}

fn answer(request: &str, value: Option<&str>) -> (u16, Value) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap_or((request, ""));
    let has = |name: &str, wanted: &str| {
        head.lines().filter_map(|l| l.split_once(": ")).any(|(n, v)| n.eq_ignore_ascii_case(name) && v == wanted)
    };
    let Some(value) = value else { return (503, json!({"errors": ["Vault is sealed"]})) };
    let line = head.lines().next().unwrap_or_default();
    match line.strip_suffix(" HTTP/1.1").unwrap_or(line) {
        "POST /v1/auth/approle/login" => {
            let sent: Value = serde_json::from_str(body).unwrap_or_default();
            if sent["role_id"] == "portcullis" && sent["secret_id"] == "hunter0-secret-id" {
                (200, json!({"auth": {"client_token": "hunter9-token", "lease_duration": 3600, "renewable": true}}))
            } else {
                (400, json!({"errors": ["invalid role or secret ID"]}))
            }
        }
        _ if !has("x-vault-token", "hunter9-token") || !has("x-vault-request", "true") => {
            (403, json!({"errors": ["permission denied"]}))
        }
        "GET /v1/auth/token/lookup-self" => (200, json!({"data": {"ttl": 3600, "renewable": true}})),
        "GET /v1/secret/data/apps/prom" => {
            let metadata = json!({"created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": false, "version": 1});
            (200, json!({"data": {"data": {"token": value}, "metadata": metadata}, "lease_duration": 0}))
        }
        "GET /v1/secret/data/apps/none" => (404, json!({"errors": []})),
        _ => (405, json!({"errors": ["unsupported operation"]})),
    }
}

fn vault() -> Vault {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let value = Arc::new(Mutex::new(Some("hunter1-first")));
    let held = value.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let held = held.clone();
            std::thread::spawn(move || {
                let (mut text, mut part) = (String::new(), [0; 8_192]);
                while let Ok(read @ 1..) = stream.read(&mut part) {
                    text.push_str(&String::from_utf8_lossy(&part[..read]));
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() >= length.unwrap_or(0) {
                        break;
                    }
                }
                let (status, body) = answer(&text, *held.lock().unwrap());
                let body = body.to_string();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
                let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes());
            });
        }
    });
    Vault { url, value }
}

/// Two sources: one by an entry that is kept in the store, one by the store directly.
fn home(vault: &str, prometheus: &str) -> Home {
    let home = Home::new("");
    let path = home.directory.path().join("secret-id");
    std::fs::write(&path, "hunter0-secret-id\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    let file = path.display();
    let source = |name: &str, token: &str| {
        format!(
            "  - {{name: {name}, kind: prometheus, url: '{prometheus}', allow_addresses: [loopback], auth: {{bearer: '{token}'}}}}\n"
        )
    };
    let more = format!(
        "secret_stores:\n  - {{name: main, url: '{vault}', allow_addresses: [loopback], cache: 1s, \
         auth: {{app_role: {{role_id: portcullis, secret_id: 'file:{file}'}}}}}}\n\
         secrets: [{{name: prom, reference: 'vault:main/apps/prom#token'}}, {{name: none, reference: 'vault:main/apps/none#token'}}]\n\
         sources:\n{}{}",
        source("named", "secret:prom"),
        source("direct", "vault:main/apps/prom#token"),
    );
    std::fs::write(&home.config, text + &more).unwrap();
    home
}

fn doctor(home: &Home) -> Value {
    serde_json::from_slice(&home.run(&["doctor", "--json"]).stdout).unwrap()
}

fn line(lines: &Value, name: &str) -> Value {
    lines.as_array().unwrap().iter().find(|l| l["name"] == name).unwrap_or_else(|| panic!("no line {name} in {lines:#}")).clone()
}

#[test]
fn a_backend_is_asked_with_what_the_store_holds_and_refused_when_it_is_down() {
    let (url, seen) = empty_prometheus();
    let vault = vault();
    let home = home(&vault.url, &url);
    let key = home.key(&["--role", "admin"]);
    let lines = doctor(&home);
    assert_eq!(line(&lines, "secret store main")["state"], "on", "{lines:#}");
    assert_eq!(line(&lines, "secret prom")["state"], "on", "{lines:#}");
    assert!(line(&lines, "secret none")["detail"].as_str().unwrap().contains("nothing at this path"), "{lines:#}");
    let server = Server::start_in(home);
    seen.lock().unwrap().clear();
    let ask = |source: &str| server.call(Some(&key), "query_metrics", &json!({"query": "up", "source": source}));
    for source in ["named", "direct"] {
        ask(source);
        assert!(seen.lock().unwrap().iter().any(|c| c.ends_with("Bearer hunter1-first")), "{source}: {:?}", seen.lock().unwrap());
        seen.lock().unwrap().clear();
    }
    // Rotated in the store: used within the time values are kept.
    *vault.value.lock().unwrap() = Some("hunter2-rotated");
    let began = Instant::now();
    for source in ["named", "direct"] {
        while !seen.lock().unwrap().last().is_some_and(|c| c.ends_with("Bearer hunter2-rotated")) {
            assert!(began.elapsed() < Duration::from_secs(20), "{source}: {:?}", seen.lock().unwrap());
            ask(source);
            std::thread::sleep(Duration::from_millis(100));
        }
        seen.lock().unwrap().clear();
    }
    // Down: what was kept is used to its end and no longer, and then nothing goes out.
    *vault.value.lock().unwrap() = None;
    let began = Instant::now();
    let refused = loop {
        let reply = ask("direct");
        if reply.body.contains("cannot be had") {
            break reply;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "never refused: {}", reply.body);
        std::thread::sleep(Duration::from_millis(100));
    };
    seen.lock().unwrap().clear();
    let again = ask("named");
    assert!(again.body.contains("cannot be had") && seen.lock().unwrap().is_empty(), "{}", again.body);
    let record = server.home.audited(|r| r["tool"] == "query_metrics" && r["code"] == "backend_failed");
    assert_eq!(record["kind"], "failed", "{record}");
    let log = server.log();
    assert!(log.contains("the store 'main' is sealed") && log.contains("vault:main/apps/prom#token"), "{log}");
    let lines = doctor(&server.home);
    assert_eq!(line(&lines, "secret store main")["state"], "broken", "{lines:#}");
    assert!(!server.home.run(&["secret", "check"]).status.success());
    let mut printed = server.log() + &refused.body + &again.body + &lines.to_string();
    for arguments in [&["config", "show"][..], &["secret", "list", "--json"], &["audit", "tail", "-n", "1000", "--json"]] {
        let output = server.home.run(arguments);
        printed.push_str(&String::from_utf8_lossy(&output.stdout));
        printed.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    assert!(printed.contains("vault:main/apps/prom#token") && !printed.contains("hunter"), "{printed}");
    assert!(intact(&server.home));
}

#[test]
fn a_store_that_cannot_be_safe_stops_the_start() {
    for (store, word) in [
        ("{name: main, url: 'http://10.1.2.3:8200', auth: {token: 'env:T'}}", "use https"),
        ("{name: main, url: 'https://vault.example', auth: {token: 'hunter2'}}", "does not belong"),
        ("{name: main, url: 'https://vault.example', auth: {token: 'secret:x'}}", "outside of it"),
        ("{name: main, url: 'https://vault.example', auth: {token: 'env:T'}, cache: 2h}", "1h"),
    ] {
        let home = Home::new(&format!("secret_stores: [{store}]\n"));
        let output = home.run(&["config", "check"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(word) && !said.contains("hunter2"), "{said}");
    }
    let home = Home::new("secrets: [{name: a, reference: 'vault:none/x#y'}]\n");
    let output = home.run(&["config", "check"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no store of that name"));
}
