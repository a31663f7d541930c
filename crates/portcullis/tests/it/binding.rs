//! Credentials that count only together with a client certificate, and senders of telemetry that are not ours, inside TLS.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::server::{Home, Server, free_port, intact, modern, modern_headers};
use crate::wire::{Authority, BOTH, Paper, ask, authority, connect, eventually, lay, private};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/bin/python");
const SENDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients/python/otlp_sender.py");

/// TLS on every listener; clients are asked for a certificate, and `agent.example` has a rule.
struct Bench {
    own: Authority,
    clients: Authority,
    home: Home,
    grpc: u16,
}

impl Bench {
    fn new(how: &str, identity: &str) -> Self {
        let (own, clients) = (authority("own"), authority("clients"));
        let home = Home::new(&format!(
            "listen: {{mcp: 'MCP_ADDRESS', tls: TLS}}\nidentity:\n  {identity}\n  certificates:\n  - {{name: agent, san: {{dns: \
             agent.example}}, roles: [reader], doors: [mcp, ingest]}}\n"
        ));
        let directory = home.directory.path();
        lay(directory, &own.server());
        private(&directory.join("ca.pem"), &own.pem);
        private(&directory.join("clients.pem"), &clients.pem);
        let shown = directory.display();
        let asking = format!("client_ca: '{shown}/clients.pem', client_certificates: {how}");
        let tls = format!("{{certificate: '{shown}/server.pem', key: '{shown}/server.key', {asking}}}");
        let grpc = free_port().port();
        let ingest = format!(
            "ingest: {{tls: {{same_as_listen: true, {asking}}}, http: '{}', grpc: '127.0.0.1:{grpc}', loopback_without_key: false}}\n",
            home.otlp
        );
        let text = std::fs::read_to_string(&home.config).unwrap().replace("tls: TLS", &format!("tls: {tls}"));
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("ingest: ")).collect();
        std::fs::write(&home.config, format!("{}\n{ingest}", kept.join("\n"))).unwrap();
        Self { own, clients, home, grpc }
    }
}

/// The SDK of others, ready to send.
fn sender(server: &Server, grpc: u16, key: &str, marker: &str) -> Command {
    let mut command = Command::new(PYTHON);
    // These would win over the authority the sender is given.
    command.env_remove("REQUESTS_CA_BUNDLE").env_remove("CURL_CA_BUNDLE");
    let (http, rpc) = (format!("https://localhost:{}", server.otlp.port()), format!("localhost:{grpc}"));
    command.arg(SENDER).args([http, rpc]).args(["--token", key, "--marker", marker, "--logs", "3"]);
    command
}

fn show(command: &mut Command, directory: &Path, name: &str) {
    command.arg("--client-certificate").arg(directory.join(format!("{name}.pem")));
    command.arg("--client-key").arg(directory.join(format!("{name}.key")));
}

fn lay_client(directory: &Path, name: &str, paper: &Paper) {
    private(&directory.join(format!("{name}.pem")), &paper.certificate);
    private(&directory.join(format!("{name}.key")), &paper.key);
}

fn with_key(mut headers: Vec<(String, String)>, key: &str) -> Vec<(String, String)> {
    headers.push(("Authorization".into(), format!("Bearer {key}")));
    headers
}

#[test]
fn a_key_counts_only_together_with_a_certificate_a_rule_accepts() {
    let bench = Bench::new("optional", "require_certificate_binding: true");
    let key = bench.home.key(&["--role", "reader"]);
    let sending = bench.home.key(&["--scope", "ingest"]);
    let (agent, stranger) = (bench.clients.client("agent.example"), bench.clients.client("stranger.example"));
    let (own, server) = (bench.own, Server::start_in(bench.home));
    let call = |shows: Option<&Paper>, key: &str| {
        let mut stream = connect(server.mcp, &own, shows, BOTH).unwrap();
        let body = modern("list_sources", &json!({})).to_string();
        ask(&mut stream, "POST /mcp", &with_key(modern_headers("list_sources"), key), &body).unwrap()
    };
    let send = |shows: Option<&Paper>, key: &str| {
        let mut stream = connect(server.otlp, &own, shows, BOTH).unwrap();
        let headers = with_key(vec![("Content-Type".into(), "application/json".into())], key);
        ask(&mut stream, "POST /v1/logs", &headers, r#"{"resourceLogs":[]}"#).unwrap()
    };
    let good = call(Some(&agent), &key);
    assert_eq!(good.status, 200, "{}", good.body);
    let record = server.home.audited(|r| r["kind"] == "call");
    assert!(record["principal"].as_str().unwrap().starts_with("key:") && record["decision"] == "allow", "{record}");
    assert_eq!(send(Some(&agent), &sending).status, 200);
    for (shows, rule) in [(None, "certificate_required"), (Some(&stranger), "no_certificate_rule")] {
        let denied = |kind: &str| {
            let fits = |r: &&Value| r["kind"] == kind && r["decision"] == "deny" && r["rule"] == rule;
            server.home.audit().iter().filter(fits).count()
        };
        let refused = call(shows, &key);
        assert!(matches!(refused.status, 401 | 403), "{rule}: {} {}", refused.status, refused.body);
        assert_eq!(denied("authentication"), 1, "{rule}: {:#?}", server.home.audit());
        let refused = send(shows, &sending);
        assert!(matches!(refused.status, 401 | 403), "{rule}: {} {}", refused.status, refused.body);
        assert_eq!(denied("ingest"), 1, "{rule}: {:#?}", server.home.audit());
    }
    assert_eq!(server.home.audit().iter().filter(|r| r["kind"] == "call").count(), 1, "no refused key reached a tool");
    assert!(intact(&server.kill()));
}

#[test]
fn a_certificate_of_another_listener_binds_nothing() {
    let bench = Bench::new("optional", "require_certificate_binding: true");
    let text = std::fs::read_to_string(&bench.home.config).unwrap();
    assert!(text.contains("doors: [mcp, ingest]"), "{text}");
    std::fs::write(&bench.home.config, text.replace("doors: [mcp, ingest]", "doors: [mcp]")).unwrap();
    let sending = bench.home.key(&["--scope", "ingest"]);
    let agent = bench.clients.client("agent.example");
    let (own, server) = (bench.own, Server::start_in(bench.home));
    let mut stream = connect(server.otlp, &own, Some(&agent), BOTH).unwrap();
    let headers = with_key(vec![("Content-Type".into(), "application/json".into())], &sending);
    let refused = ask(&mut stream, "POST /v1/logs", &headers, r#"{"resourceLogs":[]}"#).unwrap();
    assert!(matches!(refused.status, 401 | 403), "{} {}", refused.status, refused.body);
    let record = server.home.audited(|r| r["kind"] == "ingest" && r["decision"] == "deny");
    assert_eq!(record["rule"], "wrong_door", "{record}");
    assert!(intact(&server.kill()));
}

#[test]
fn a_sender_of_others_speaks_tls_over_grpc_and_http_and_is_refused_without_its_certificate() {
    if !Path::new(PYTHON).exists() {
        crate::server::skipped(&format!("{PYTHON} is not there; .ci/install makes it"));
        return;
    }
    let bench = Bench::new("required", "require_certificate_binding: true");
    let sending = bench.home.key(&["--scope", "ingest"]);
    let reading = bench.home.key(&["--role", "reader"]);
    let (own, clients, grpc) = (bench.own, bench.clients, bench.grpc);
    let agent = clients.client("agent.example");
    let directory = bench.home.directory.path().to_owned();
    lay_client(&directory, "agent", &agent);
    private(&directory.join("other.pem"), &authority("other").pem);
    let server = Server::start_in(bench.home);
    let send = |marker: &str, ca: &str, certificate: bool, seconds: &str| -> Output {
        let mut command = sender(&server, grpc, &sending, marker);
        command.args(["--seconds", seconds, "--ca"]).arg(directory.join(ca));
        if certificate {
            show(&mut command, &directory, "agent");
        }
        command.output().unwrap()
    };
    let sent = send("found-inside-tls", "ca.pem", true, "10");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let report: Value = serde_json::from_slice(&sent.stdout).unwrap();
    for transport in ["http", "grpc"] {
        assert_eq!(report[transport]["logs"], 3, "{report}");
        let mut stream = connect(server.mcp, &own, Some(&agent), BOTH).unwrap();
        let body = modern("query_logs", &json!({"service": format!("otlp-sender-{transport}"), "window": "15m"})).to_string();
        let found = ask(&mut stream, "POST /mcp", &with_key(modern_headers("query_logs"), &reading), &body).unwrap();
        assert!(found.status == 200 && found.body.contains("found-inside-tls"), "{transport}: {}", found.body);
    }
    // What is refused before it can be sent is tried again for as long as the sender may.
    let refused = |marker: &str, ca: &str, certificate: bool| send(marker, ca, certificate, "2");
    assert!(!refused("of-another-authority", "other.pem", true).status.success(), "a sender checks the certificate");
    let refused = refused("without-a-certificate", "ca.pem", false);
    assert!(!refused.status.success(), "{}", String::from_utf8_lossy(&refused.stdout));
    let none = |r: &Value| {
        r["method"] == "handshake"
            && r["transport"].as_str().is_some_and(|way| way.starts_with("otlp-"))
            && r["note"].as_str().is_some_and(|n| n.contains("none was shown"))
    };
    eventually("the refusal is recorded", || server.home.audit().iter().any(none));
    assert!(intact(&server.kill()));
}

/// What became of telemetry over gRPC alone, with the certificate of that name.
fn over_grpc(server: &Server, grpc: u16, key: &str, certificate: Option<&str>) -> Output {
    let directory = server.home.directory.path();
    let mut command = sender(server, grpc, key, "where-certificates-are-optional");
    command.args(["--only", "grpc", "--ca"]).arg(directory.join("ca.pem"));
    if let Some(name) = certificate {
        show(&mut command, directory, name);
    }
    command.output().unwrap()
}

#[test]
fn over_grpc_with_optional_certificates_a_bound_key_counts_only_with_its_certificate() {
    if !Path::new(PYTHON).exists() {
        crate::server::skipped(&format!("{PYTHON} is not there; .ci/install makes it"));
        return;
    }
    for bound in [true, false] {
        let bench = Bench::new("optional", &format!("require_certificate_binding: {bound}"));
        let sending = bench.home.key(&["--scope", "ingest"]);
        for name in ["agent", "stranger"] {
            lay_client(bench.home.directory.path(), name, &bench.clients.client(&format!("{name}.example")));
        }
        let (grpc, server) = (bench.grpc, Server::start_in(bench.home));
        let taken = over_grpc(&server, grpc, &sending, Some("agent"));
        assert!(taken.status.success(), "bound: {bound}: {}", String::from_utf8_lossy(&taken.stderr));
        for (shows, rule) in [(None, "certificate_required"), (Some("stranger"), "no_certificate_rule")] {
            let sent = over_grpc(&server, grpc, &sending, shows);
            let said = String::from_utf8_lossy(&sent.stderr);
            // A key that needs no certificate goes on by itself, whatever was shown with it.
            assert_eq!(sent.status.success(), !bound, "bound: {bound}, {rule}: {said}");
            assert_eq!(said.contains("UNAUTHENTICATED") || said.contains("PERMISSION_DENIED"), bound, "{rule}: {said}");
            let refused = server.home.audit().into_iter().filter(|r| r["kind"] == "ingest" && r["decision"] == "deny");
            let rules: Vec<Value> = refused.filter(|r| r["transport"] == "otlp-grpc").map(|r| r["rule"].clone()).collect();
            assert_eq!(rules.contains(&json!(rule)), bound, "bound: {bound}, {rule}: {rules:?}");
        }
        assert!(intact(&server.kill()));
    }
}
