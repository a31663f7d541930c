//! Who a request is counted for when proxies stand in between, or when somebody says so: at every listener, in the limits,
//! the waits, the networks of keys and the records. The trusted proxy of these tests is at 127.0.0.2.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::refusals::{field, frame};
use crate::server::{Home, Reply, Server, intact, modern, modern_headers, post_over};

const STRANGER: [u8; 4] = [127, 0, 0, 1];
const PROXY: [u8; 4] = [127, 0, 0, 2];

/// A connection from an address of this machine.
fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

fn with(mut headers: Vec<(String, String)>, more: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    headers
}

/// A call at the MCP listener.
fn call(server: &Server, from: [u8; 4], more: &[(&str, &str)]) -> Reply {
    let body = modern("list_sources", &json!({})).to_string();
    post_over(connect(from, server.mcp), "/mcp", &with(modern_headers("list_sources"), more), body.as_bytes())
}

/// An empty export at the OTLP listener.
fn export(server: &Server, from: [u8; 4], more: &[(&str, &str)]) -> Reply {
    let headers = with(vec![("Content-Type".into(), "application/json".into())], more);
    post_over(connect(from, server.otlp), "/v1/logs", &headers, br#"{"resourceLogs":[]}"#)
}

/// A change at the admin listener, of nothing that is there.
fn administer(server: &Server, from: [u8; 4], more: &[(&str, &str)]) -> Reply {
    let headers = with(vec![("Content-Type".into(), "application/json".into())], more);
    post_over(connect(from, server.admin), "/api/v1/keys/nobody/revoke", &headers, b"{}")
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// The proxy is trusted at every listener.
fn home(more: &str) -> Home {
    let home = Home::new(&format!("listen: {{mcp: 'MCP_ADDRESS', trusted_proxies: ['127.0.0.2']}}\n{more}"));
    let text = std::fs::read_to_string(&home.config).unwrap();
    let text = text.replace("ingest: {", "ingest: {trusted_proxies: ['127.0.0.2/32'], ");
    std::fs::write(&home.config, text.replace("admin: {", "admin: {trusted_proxies: ['127.0.0.2'], ")).unwrap();
    home
}

fn grpc_of(home: &Home) -> SocketAddr {
    let config = std::fs::read_to_string(&home.config).unwrap();
    let address = config.lines().find_map(|line| line.split_once("grpc: '")).and_then(|(_, rest)| rest.split('\'').next());
    address.unwrap().parse().unwrap()
}

/// Exports over one connection of gRPC, without reading what comes back.
fn export_grpc(address: SocketAddr, from: [u8; 4], times: u32, more: &[(&str, &str)]) -> TcpStream {
    let mut stream = connect(from, address);
    stream.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()).unwrap();
    for number in 0..times {
        let mut head = [
            field(":method", "POST"),
            field(":scheme", "http"),
            field(":path", "/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
            field(":authority", &address.to_string()),
            field("content-type", "application/grpc"),
            field("te", "trailers"),
        ]
        .concat();
        for (name, value) in more {
            head.extend(field(&name.to_lowercase(), value));
        }
        stream.write_all(&frame(1, 5, number * 2 + 1, &head)).unwrap();
    }
    stream
}

/// Waits for a record.
fn recorded(home: &Home, fits: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let found = home.audit().into_iter().rev().find(&fits);
        match found {
            Some(record) => return record,
            None if began.elapsed() > Duration::from_secs(10) => panic!("no such record in {:#?}", home.audit()),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[test]
fn what_a_stranger_says_about_itself_changes_no_limit_no_wait_and_no_network() {
    let home = home("limits: {address: {per_second: 1, burst: 60}}\n");
    let key = home.key(&["--role", "reader"]);
    let away = home.key(&["--role", "reader", "--from", "198.51.100.0/24"]);
    let server = Server::start_in(home);
    // A key of another network stays there, whatever is said.
    for header in [("X-Forwarded-For", "198.51.100.7"), ("Forwarded", "for=198.51.100.7"), ("X-Real-IP", "198.51.100.7")] {
        let refused = call(&server, STRANGER, &[("Authorization", &bearer(&away)), header]);
        assert_eq!(refused.status, 403, "{header:?}: {}", refused.body);
        let record = server.home.audited(|r| r["rule"] == "key_from_wrong_address");
        assert!(record["client"].as_str().unwrap().starts_with("127.0.0.1:") && record["via"].is_null(), "{record}");
        assert_eq!(record["claimed"], format!("{}: {}", header.0.to_lowercase(), header.1), "{record}");
    }
    // A wait cannot be walked away from with another address for every guess.
    let statuses: Vec<u16> = (0..25)
        .map(|n| {
            let claimed = format!("203.0.113.{n}");
            call(&server, STRANGER, &[("Authorization", "Bearer wrong"), ("X-Forwarded-For", &claimed)]).status
        })
        .collect();
    assert!(statuses[..21].iter().all(|status| *status == 401) && statuses[24] == 429, "{statuses:?}");
    let record = server.home.audited(|r| r["kind"] == "lockout");
    assert!(record["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
    assert_eq!(record["claimed"], "x-forwarded-for: 203.0.113.20", "{record}");
    assert_eq!(server.home.audit().iter().filter(|r| r["kind"] == "lockout").count(), 1);
    // Who has a good key is let in, and recorded where it is; saying that it was forwarded gives it nothing.
    let good = call(&server, STRANGER, &[("Authorization", &bearer(&key)), ("X-Forwarded-For", "198.51.100.7")]);
    assert_eq!(good.status, 200, "{}", good.body);
    let record = server.home.audited(|r| r["kind"] == "call");
    assert!(record["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
    // Nor can the rate of the address.
    let claimed = |n: u32| call(&server, STRANGER, &[("X-Forwarded-For", format!("203.0.113.{n}").as_str())]);
    let mut replies: Vec<Reply> = (0..60).map(claimed).collect();
    let last = replies.pop().unwrap();
    assert!(last.status == 429 && last.header("retry-after").is_some(), "{} {}", last.status, last.head);
    let record = server.home.audited(|r| r["rule"] == "address-rate");
    assert!(record["client"].as_str().unwrap().starts_with("127.0.0.1:") && record["decision"] == "deny", "{record}");
    assert!(intact(&server.kill()));
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_rate_its_own_wait_and_its_own_record() {
    let home = home("limits: {address: {per_second: 1, burst: 30}}\n");
    let (key, chosen) = (home.key(&["--role", "reader"]), home.chosen_key());
    let away = home.key(&["--role", "reader", "--from", "198.51.100.0/24"]);
    let server = Server::start_in(home);
    let from = |client: &str, authorization: &str| {
        call(&server, PROXY, &[("Authorization", authorization), ("X-Forwarded-For", client)])
    };
    for _ in 0..21 {
        assert_eq!(from("203.0.113.9", "Bearer wrong").status, 401);
    }
    assert_eq!(from("203.0.113.9", &bearer(&chosen)).status, 429, "the guesser waits");
    let record = server.home.audited(|r| r["kind"] == "lockout");
    assert_eq!((&record["client"], &record["via"]), (&json!("203.0.113.9"), &json!("127.0.0.2")), "{record}");
    let other = from("198.51.100.7", &bearer(&chosen));
    assert_eq!(other.status, 200, "its neighbour behind the proxy does not: {}", other.body);
    let statuses: Vec<u16> = (0..40).map(|_| from("203.0.113.9", "Bearer wrong").status).collect();
    assert_eq!(statuses.last(), Some(&429));
    let record = server.home.audited(|r| r["rule"] == "address-rate");
    assert_eq!((&record["client"], &record["via"]), (&json!("203.0.113.9"), &json!("127.0.0.2")), "{record}");
    // What the client itself put before what its proxy added is nothing.
    let chained = from("10.0.0.1, 127.0.0.1, 198.51.100.7", &bearer(&key));
    assert_eq!(chained.status, 200, "{}", chained.body);
    let record = server.home.audited(|r| r["kind"] == "call");
    assert_eq!(
        (&record["client"], &record["via"], &record["claimed"]),
        (&json!("198.51.100.7"), &json!("127.0.0.2"), &Value::Null)
    );
    // The networks of a key are those of the client.
    assert_eq!(from("198.51.100.7", &bearer(&away)).status, 200);
    for client in ["203.0.113.10", "198.51.100.7, 203.0.113.11"] {
        assert_eq!(from(client, &bearer(&away)).status, 403, "{client}");
    }
    // A chain that cannot be read, or two that contradict each other, leave the proxy, for whom nothing is granted.
    for broken in [
        vec![("X-Forwarded-For", "198.51.100.7, unknown")],
        vec![("X-Forwarded-For", "198.51.100.7"), ("Forwarded", "for=198.51.100.8")],
        vec![("Forwarded", "for=\"198.51.100.7")],
        vec![],
    ] {
        let authorization = bearer(&away);
        let all: Vec<(&str, &str)> = [("Authorization", authorization.as_str())].into_iter().chain(broken.clone()).collect();
        assert_eq!(call(&server, PROXY, &all).status, 403, "{broken:?}");
        let record = server.home.audited(|r| r["rule"] == "key_from_wrong_address");
        assert!(record["client"].as_str().unwrap().starts_with("127.0.0.2:") && record["via"].is_null(), "{record}");
        assert_eq!(record["claimed"].is_null(), broken.is_empty(), "{record}");
    }
    let probe = post_over(
        connect(PROXY, server.mcp),
        "/mcp",
        &with(Vec::new(), &[("Host", "evil.example"), ("X-Forwarded-For", "203.0.113.77")]),
        b"",
    );
    assert_eq!(probe.status, 403);
    let record = server.home.audited(|r| r["rule"] == "host");
    assert_eq!((&record["client"], &record["via"]), (&json!("203.0.113.77"), &json!("127.0.0.2")), "{record}");
    assert!(intact(&server.kill()));
}

#[test]
fn every_listener_counts_and_records_the_same_client() {
    let home = home("");
    let grpc = grpc_of(&home);
    let sending = home.key(&["--scope", "ingest", "--from", "198.51.100.0/24"]);
    let administering = home.key(&["--scope", "admin", "--role", "admin", "--from", "198.51.100.0/24"]);
    let server = Server::start_in(home);
    let client = ("X-Forwarded-For", "198.51.100.7");
    let (sender, administrator) = (bearer(&sending), bearer(&administering));
    for (from, is_let_in) in [(PROXY, true), (STRANGER, false)] {
        let sent = export(&server, from, &[("Authorization", &sender), client]);
        assert_eq!(sent.status, if is_let_in { 200 } else { 403 }, "{}", sent.body);
        let asked = administer(&server, from, &[("Authorization", &administrator), client]);
        assert_eq!(asked.status != 403, is_let_in, "{} {}", asked.status, asked.body);
        assert_ne!(asked.status, 401, "{}", asked.body);
    }
    // Nobody is near through a proxy: this machine may send without a key, its proxy's clients may not.
    assert_eq!(export(&server, STRANGER, &[]).status, 200);
    for (from, header) in
        [(PROXY, Some("127.0.0.1")), (PROXY, Some("198.51.100.9")), (PROXY, None), (STRANGER, Some("127.0.0.1"))]
    {
        let headers: Vec<(&str, &str)> = header.map(|value| ("X-Forwarded-For", value)).into_iter().collect();
        assert_eq!(export(&server, from, &headers).status, 401, "{from:?} {header:?}");
    }
    // A guesser waits at each door by its own address, and the record says which door it was.
    let _open = export_grpc(grpc, PROXY, 22, &[("Authorization", "Bearer wrong"), ("X-Forwarded-For", "203.0.113.50")]);
    for n in 0..21 {
        assert_eq!(
            export(&server, PROXY, &[("Authorization", "Bearer wrong"), ("X-Forwarded-For", "203.0.113.51")]).status,
            401,
            "{n}"
        );
        let guess = [("Authorization", "Bearer wrong"), ("X-Forwarded-For", "203.0.113.52")];
        assert_eq!(administer(&server, PROXY, &guess).status, 401, "{n}");
    }
    for (transport, client) in [("otlp-grpc", "203.0.113.50"), ("otlp-http", "203.0.113.51"), ("admin", "203.0.113.52")] {
        let record = recorded(&server.home, |r| r["kind"] == "lockout" && r["transport"] == transport);
        assert_eq!((&record["client"], &record["via"]), (&json!(client), &json!("127.0.0.2")), "{record}");
        assert_eq!((&record["decision"], &record["rule"]), (&json!("deny"), &json!("lockout")), "{record}");
    }
    assert_eq!(server.home.audit().iter().filter(|r| r["kind"] == "lockout").count(), 3);
    let beside = export(&server, PROXY, &[("Authorization", &sender), client]);
    assert_eq!(beside.status, 200, "a sender beside them goes on: {}", beside.body);
    assert!(intact(&server.kill()));
}

#[test]
fn a_wait_that_begins_while_the_address_is_over_its_rate_is_recorded() {
    let home = home("limits: {address: {per_second: 1, burst: 4}}\nidentity: {lockout: {failures_per_address: 4}}\n");
    let grpc = grpc_of(&home);
    let server = Server::start_in(home);
    let guess = |client| [("Authorization", "Bearer wrong"), ("X-Forwarded-For", client)];
    let statuses: Vec<u16> = (0..5).map(|_| export(&server, PROXY, &guess("203.0.113.60")).status).collect();
    assert!(statuses.iter().all(|status| matches!(status, 401 | 429)), "{statuses:?}");
    let _open = export_grpc(grpc, PROXY, 5, &guess("203.0.113.61"));
    for (transport, client) in [("otlp-http", "203.0.113.60"), ("otlp-grpc", "203.0.113.61")] {
        let record = recorded(&server.home, |r| r["kind"] == "lockout" && r["transport"] == transport);
        assert_eq!(record["client"], client, "{record}");
    }
}

#[test]
fn the_doctor_says_who_is_believed_and_a_network_of_everybody_is_refused() {
    let line = |home: &Home, name: &str| {
        let lines: Value = serde_json::from_slice(&home.run(&["doctor", "--json"]).stdout).unwrap();
        lines.as_array().unwrap().iter().find(|line| line["name"] == name).unwrap().clone()
    };
    let report = |home: &Home| line(home, "trusted proxies");
    let plain = report(&Home::new(""));
    assert!(plain["state"] == "on" && plain["detail"].as_str().unwrap().contains("of nobody"), "{plain}");
    let named = report(&home(""));
    let detail = named["detail"].as_str().unwrap();
    assert!(
        named["state"] == "on" && detail.contains("listen: 127.0.0.2/32") && detail.contains("ingest: 127.0.0.2/32"),
        "{named}"
    );
    // A trusted proxy that says it was spoken to in TLS is promised HSTS, without TLS here.
    let promises = |home: &Home| line(home, "security headers")["detail"].as_str().unwrap().to_owned();
    assert!(promises(&Home::new("")).contains("HSTS is not sent"));
    let promised = promises(&home("store: {enabled: false}\n"));
    assert!(promised.contains("HSTS at mcp, admin (where TLS ends here or a trusted proxy says so)"), "{promised}");
    let forgotten = report(&Home::new("listen: {mcp: 'MCP_ADDRESS', plaintext: i-terminate-tls-elsewhere}\n"));
    assert!(
        forgotten["state"] == "attention" && forgotten["detail"].as_str().unwrap().contains("listen.trusted_proxies"),
        "{forgotten}"
    );
    for (wrong, says) in [
        ("['0.0.0.0/0']", "everybody would be believed"),
        ("['::/0']", "everybody would be believed"),
        ("['10.1.2.3/8']", "did you mean 10.0.0.0/8"),
        ("['proxy.example']", "not a network"),
    ] {
        let home = Home::new(&format!("listen: {{mcp: 'MCP_ADDRESS', trusted_proxies: {wrong}}}\n"));
        let output = home.run(&["config", "check"]);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        assert!(!output.status.success() && said.contains(says), "{wrong}: {said}");
    }
}
