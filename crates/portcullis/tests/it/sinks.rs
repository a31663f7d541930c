//! The sinks of the audit log from outside: a webhook that checks signatures, lines on standard error, and the product's
//! own OTLP door; killed, down, and required.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admin::{ask, get};
use crate::server::{Home, Server, free_port, intact};

#[path = "../../../audit/tests/it/receiver.rs"]
#[allow(dead_code, reason = "the tests of the audit room look at more of it")]
mod receiver;
use receiver::{Receiver, SECRET, ok};

/// A home whose configuration goes on with `audit:`; the receiver's and the own OTLP address are put in.
fn home_with(audit: &str, receiver: SocketAddr) -> Home {
    let home = Home::new("");
    let mut text = std::fs::read_to_string(&home.config).unwrap();
    text.push_str(
        &audit.replace("RECEIVER", &receiver.to_string()).replace("OTLP", &home.otlp.to_string()).replace("SECRET", SECRET),
    );
    std::fs::write(&home.config, text).unwrap();
    home
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} did not come true");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn place(record: &Value) -> (String, u64) {
    (record["log"].as_str().unwrap().to_owned(), record["seq"].as_u64().unwrap())
}

fn written(home: &Home) -> BTreeSet<(String, u64)> {
    home.audit().iter().map(place).collect()
}

/// The line of the doctor about a sink.
fn diagnosis(home: &Home, sink: &str) -> Value {
    let output = home.run(&["doctor", "--json"]);
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let name = format!("audit sink {sink}");
    lines.into_iter().find(|line| line["name"] == name.as_str()).unwrap_or_else(|| panic!("no line {name}"))
}

const WEBHOOK_AND_STDERR: &str = "audit:
  sinks:
    - name: siem
      to: {webhook: {url: 'http://RECEIVER/in', secret: 'SECRET', batch: 10}}
    - {name: err, to: stderr}
";

#[test]
fn a_webhook_and_standard_error_get_every_record_also_when_the_server_is_killed() {
    let receiver = Receiver::new(|_, _| (200, "", Duration::from_millis(5)));
    let home = home_with(WEBHOOK_AND_STDERR, receiver.address);
    let key = home.key(&[]);
    let mut server = Server::start_in(home);
    for _ in 0..3 {
        for _ in 0..20 {
            server.call(Some(&key), "list_sources", &json!({}));
        }
        server.call(None, "list_sources", &json!({}));
        // In the middle of the deliveries.
        server = Server::start_in(server.kill());
    }
    until("every record arrives", || {
        let taken: BTreeSet<_> = receiver.taken().into_iter().collect();
        written(&server.home).is_subset(&taken)
    });
    let requests = receiver.requests();
    assert!(requests.iter().all(|r| r.is_signed(SECRET) && r.records().len() <= 10));
    let bodies: String = requests.iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
    assert!(bodies.contains("\"kind\":\"call\"") && bodies.contains("\"code\":\"unauthenticated\""));
    assert!(!bodies.contains(&key), "no secret leaves");

    // The log of the last server only: what the ones before wrote to standard error went with them.
    until("the lines are there", || server.log().lines().any(|line| line.starts_with('{') && line.contains("\"seq\":")));
    let lines = server.log();
    let records = lines.lines().filter(|line| line.starts_with('{') && line.contains("\"seq\":"));
    let places: BTreeSet<_> = records.map(|line| place(&serde_json::from_str(line).unwrap())).collect();
    assert!(!places.is_empty() && places.is_subset(&written(&server.home)), "{places:?}");

    until("the doctor sees it", || diagnosis(&server.home, "siem")["state"] == "on");
    let line = diagnosis(&server.home, "siem");
    assert!(
        line["detail"].as_str().unwrap().contains("webhook") && line["detail"].as_str().unwrap().contains("delivered"),
        "{line}"
    );
    assert_eq!(diagnosis(&server.home, "err")["state"], "on");
    let home = server.kill();
    assert!(intact(&home), "files of sinks are nothing the chain minds");
}

#[test]
fn a_secret_of_a_sink_may_be_a_file() {
    let receiver = Receiver::new(|_, _| ok());
    let home = home_with(
        "audit: {sinks: [{name: siem, to: {webhook: {url: 'http://RECEIVER/in', secret: 'file:PATH_OF_IT'}}}]}\n",
        receiver.address,
    );
    let file = home.directory.path().join("siem.secret");
    std::fs::write(&file, SECRET).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap().replace("PATH_OF_IT", file.to_str().unwrap());
    std::fs::write(&home.config, text).unwrap();
    let server = Server::start_in(home);
    until("the file is refused", || {
        let line = diagnosis(&server.home, "siem");
        line["detail"].as_str().is_some_and(|detail| detail.contains("is refused: every user"))
    });
    assert!(receiver.requests().is_empty(), "nothing is sent without the secret");
    server.home.audited(|r| r["kind"] == "sink" && r["method"] == "sink.failing");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    until("it arrives", || !receiver.requests().is_empty());
    assert!(receiver.requests().iter().all(|request| request.is_signed(SECRET)), "signed with what the file holds");
}

const OWN_DOOR: &str = "audit:
  sinks:
    - {name: otel, to: {otlp: {url: 'http://OTLP/v1/logs'}}}
";

#[test]
fn the_own_otlp_door_takes_the_records_and_query_logs_finds_them() {
    let home = home_with(OWN_DOOR, free_port());
    let key = home.key(&[]);
    let server = Server::start_in(home);
    server.call(Some(&key), "list_sources", &json!({}));
    server.call(None, "list_sources", &json!({}));
    let mut answer = String::new();
    until("the records are found", || {
        let arguments = json!({"service": "portcullis", "window": "15m", "limit": 200});
        answer = server.call(Some(&key), "query_logs", &arguments).body;
        answer.contains("audit call list_sources") && answer.contains("unauthenticated")
    });
    // What comes in leaves no record of its own, so the sink does not feed itself.
    until("it comes to rest", || diagnosis(&server.home, "otel")["state"] == "on");
    let before = server.home.audit().iter().filter(|r| r["kind"] == "ingest" || r["kind"] == "sink").count();
    std::thread::sleep(Duration::from_secs(2));
    let after = server.home.audit().iter().filter(|r| r["kind"] == "ingest" || r["kind"] == "sink").count();
    assert_eq!((before, after), (0, 0));
}

const REQUIRED: &str = "audit:
  sinks:
    - name: siem
      to: {webhook: {url: 'http://RECEIVER/in', secret: 'SECRET'}}
      required: true
      max_lag: {records: 8}
";

#[test]
fn calls_stop_visibly_while_a_required_sink_is_behind() {
    let address = free_port();
    let home = home_with(REQUIRED, address);
    let key = home.key(&[]);
    let server = Server::start_in(home);
    let mut refused = Value::Null;
    until("calls stop", || {
        refused = server.call(Some(&key), "list_sources", &json!({})).json();
        refused.to_string().contains("the audit log cannot be written")
    });
    server.home.audited(|r| r["rule"] == "audit" && r["code"] == "unavailable" && r["decision"] == "deny");
    server.home.audited(|r| r["kind"] == "sink" && r["method"] == "sink.blocking" && r["target"] == "siem");
    let line = diagnosis(&server.home, "siem");
    assert_eq!(line["state"], "broken", "{line}");
    assert!(line["detail"].as_str().unwrap().contains("calls are refused"), "{line}");
    assert!(server.log().contains("calls are refused"), "{}", server.log());
    let receiver = Receiver::on(address, |_, _| ok());
    until("calls go on", || {
        server.call(Some(&key), "list_sources", &json!({})).json()["result"]["structuredContent"].is_object()
    });
    assert!(!receiver.taken().is_empty());
}

#[test]
fn a_server_is_not_ready_while_a_required_sink_is_behind() {
    let address = free_port();
    let home = home_with(REQUIRED, address);
    let (caller, scraper) = (home.key(&[]), home.key(&["--scope", "metrics"]));
    let server = Server::start_in(home);
    let ready = || ask(server.admin, "GET", "/readyz", &[], b"");
    until("it is not ready", || {
        server.call(Some(&caller), "list_sources", &json!({}));
        ready().status == 503
    });
    assert_eq!(ready().body, "", "why is not for strangers");
    assert_eq!(ask(server.admin, "GET", "/livez", &[], b"").status, 200, "it is alive all the same");
    let metrics = get(&server, &scraper, "/metrics");
    for line in ["portcullis_ready{check=\"sinks\"} 0", "portcullis_audit_sink_blocking{sink=\"siem\"} 1"] {
        assert!(metrics.body.lines().any(|found| found.starts_with(line)), "{line}: {} {}", metrics.status, metrics.body);
    }
    let receiver = Receiver::on(address, |_, _| ok());
    until("it is ready again", || ready().status == 200);
    assert!(!receiver.taken().is_empty());
}

#[test]
fn a_sink_that_would_send_in_clear_text_or_is_misspelt_stops_the_start() {
    for (audit, says) in [
        ("audit: {sinks: [{name: a, to: {webhook: {url: 'http://siem.example.com/', secret: 'SECRET'}}}]}", "use https"),
        ("audit: {sinks: [{name: a, to: {webhook: {url: 'https://siem.example.com/', secret: short}}}]}", "at least 16"),
        ("audit: {sinks: [{name: a, to: {otlp: {url: 'https://169.254.169.254/v1/logs'}}}]}", "never reached"),
        ("audit: {sinks: [{name: a, to: {syslog: {transport: tcp}}}]}", "tcp"),
        ("audit: {sinks: [{name: a, too: stderr}]}", "too"),
    ] {
        let home = home_with(audit, free_port());
        let output = home.run(&["config", "check"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says), "{audit}: {said}");
    }
}

#[test]
fn the_key_file_of_the_settings_is_used_by_every_audit_command() {
    let home = home_with("audit: {key_file: 'KEYFILE'}", free_port());
    let key_file = home.directory.path().join("elsewhere.key");
    let text = std::fs::read_to_string(&home.config).unwrap().replace("KEYFILE", key_file.to_str().unwrap());
    std::fs::write(&home.config, text).unwrap();
    let key = home.key(&[]);
    let id = key.split('_').nth(1).unwrap().to_owned();
    assert!(key_file.is_file() && !home.data().join("audit/audit.key").exists());
    assert!(intact(&home));
    let public = home.run_ok(&["audit", "public-key"]);
    home.run_ok(&["audit", "verify", "--public-key", public.trim()]);
    let server = Server::start_in(home);
    server.call(Some(&key), "list_sources", &json!({}));
    let home = server.kill();
    // The next process writes down what the killed one left.
    home.key(&[]);
    let report = home.run_ok(&["audit", "erase", "--subject", &format!("key:{id}"), "--json"]);
    assert!(serde_json::from_str::<Value>(&report).unwrap()["records"].as_u64().unwrap() > 0, "{report}");
    assert!(intact(&home), "the erasure is signed with the same key");
    assert!(!home.data().join("audit/audit.key").exists(), "no second key was made");
}

/// The record in a message of RFC 5424, which has the facility, the version and the name of this program.
fn of_syslog(message: &str) -> Value {
    let (head, rest) = message.split_once(" portcullis ").unwrap_or_else(|| panic!("{message}"));
    let (priority, stamp) = head.strip_prefix('<').and_then(|head| head.split_once(">1 ")).unwrap_or_else(|| panic!("{head}"));
    let priority: u8 = priority.parse().unwrap();
    assert!(priority / 8 == 13 && matches!(priority % 8, 3 | 4 | 6), "{head}");
    assert!(stamp.contains('T') && !message.contains('\n'), "{message}");
    serde_json::from_str(&rest[rest.find('{').unwrap()..]).unwrap_or_else(|e| panic!("{e}: {message}"))
}

#[test]
fn the_local_syslog_gets_every_record_and_so_does_standard_error_in_its_form() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("log");
    let daemon = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    daemon.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let receiver = Receiver::new(|_, _| ok());
    let audit = format!(
        "audit:\n  sinks:\n  - {{name: local, to: {{syslog: {{socket: '{}'}}}}}}\n  - {{name: err, to: {{syslog: {{transport: stderr}}}}}}\n",
        socket.display()
    );
    let home = home_with(&audit, receiver.address);
    let key = home.key(&[]);
    let server = Server::start_in(home);
    for _ in 0..3 {
        server.call(Some(&key), "list_sources", &json!({}));
    }
    // Nobody, and a name that would break a line where it could.
    server.call(None, "list_sources", &json!({}));
    server.call(Some(&key), "no\n<13>1 forged", &json!({}));
    let (mut taken, mut part) = (BTreeSet::new(), vec![0; 64 << 10]);
    let mut kinds = BTreeSet::new();
    until("every record arrives at the daemon", || {
        while let Ok(read) = daemon.recv(&mut part) {
            let record = of_syslog(std::str::from_utf8(&part[..read]).unwrap());
            kinds.insert(record["kind"].as_str().unwrap().to_owned());
            taken.insert(place(&record));
        }
        written(&server.home).is_subset(&taken)
    });
    assert!(["call", "authentication", "start"].iter().all(|kind| kinds.contains(*kind)), "{kinds:?}");
    until("every record is on standard error", || {
        let log = server.log();
        let lines = log.lines().filter(|line| line.starts_with('<') && line.contains(" portcullis "));
        let told: BTreeSet<_> = lines.map(|line| place(&of_syslog(line))).collect();
        written(&server.home).is_subset(&told)
    });
    // A daemon that is gone is told of, and nothing is lost for good: it gets the rest when it is back.
    drop(daemon);
    std::fs::remove_file(&socket).unwrap();
    server.call(Some(&key), "list_services", &json!({}));
    until("the doctor sees it", || diagnosis(&server.home, "local")["state"] == "attention");
    let daemon = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    daemon.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    until("what waited arrives", || {
        while let Ok(read) = daemon.recv(&mut part) {
            taken.insert(place(&of_syslog(std::str::from_utf8(&part[..read]).unwrap())));
        }
        written(&server.home).is_subset(&taken)
    });
    assert!(intact(&server.home));
}
