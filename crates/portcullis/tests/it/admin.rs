//! The admin listener: who comes in, what each may do there, and that every refusal and every change is remembered.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::approvals;
use crate::server::{Home, Reply, Server, intact, read_reply};
use crate::upstreams::until;

type Header<'a> = (&'a str, &'a str);

/// One request on its own connection, exactly as it is written here.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str, headers: &[Header<'_>], body: &[u8]) -> Reply {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    let given = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    if !given("host") {
        let _ = write!(head, "Host: {address}\r\n");
    }
    if !given("content-length") && method != "GET" {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    // The server may refuse before it has read everything.
    let _ = stream.write_all(body);
    read_reply(stream)
}

pub(crate) fn get(server: &Server, key: &str, path: &str) -> Reply {
    ask(server.admin, "GET", path, &[("Authorization", &format!("Bearer {key}"))], b"")
}

pub(crate) fn change(server: &Server, key: &str, path: &str) -> Reply {
    let headers = [("Authorization", &*format!("Bearer {key}")), ("Content-Type", "application/json")];
    ask(server.admin, "POST", path, &headers, b"{}")
}

fn id_of(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

/// A server with an administrator, somebody who only reads, a scraper, and a caller of tools.
struct Bench {
    server: Server,
    admin: String,
    reader: String,
    scraper: String,
    caller: String,
}

fn bench(extra: &str) -> Bench {
    let home = Home::new(extra);
    let admin = home.key(&["--scope", "admin", "--role", "admin"]);
    let reader = home.key(&["--scope", "admin", "--role", "reader"]);
    let scraper = home.key(&["--scope", "metrics"]);
    let caller = home.key(&["--role", "admin"]);
    Bench { server: Server::start_in(home), admin, reader, scraper, caller }
}

fn refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{} {}", reply.head, reply.body);
    assert_eq!(reply.json()["error"]["code"], code, "{}", reply.body);
}

const READS: [&str; 5] = ["status", "sources", "approvals", "audit", "keys"];

#[test]
fn without_a_credential_there_is_a_bare_status_and_nothing_else() {
    let Bench { server, .. } = bench("");
    for path in ["/livez", "/readyz"] {
        let reply = ask(server.admin, "GET", path, &[], b"");
        assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{path}");
    }
    for path in READS.map(|name| format!("/api/v1/{name}")).iter().map(String::as_str).chain(["/metrics"]) {
        let reply = ask(server.admin, "GET", path, &[], b"");
        refused(&reply, 401, "unauthenticated");
        let head = reply.head.to_ascii_lowercase();
        for header in [
            "www-authenticate: bearer",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "x-frame-options: deny",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
        ] {
            assert!(head.contains(header), "{path}: {header}: {head}");
        }
    }
    refused(
        &ask(server.admin, "POST", "/api/v1/keys/aaaaaaaaaa/revoke", &[("Content-Type", "application/json")], b"{}"),
        401,
        "unauthenticated",
    );
    let record = server.home.audited(|r| r["transport"] == "admin" && r["rule"] == "no_credential");
    assert_eq!((&record["kind"], &record["decision"]), (&json!("authentication"), &json!("deny")), "{record}");
    assert!(record["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
    // On the MCP listener nothing changed.
    assert_eq!(ask(server.mcp, "GET", "/healthz", &[], b"").body, "ok");
    assert_eq!(ask(server.mcp, "GET", "/metrics", &[], b"").status, 404);
    assert!(intact(&server.home));
}

#[test]
fn each_credential_opens_its_own_door_only() {
    let Bench { server, admin, reader, scraper, caller } = bench("");
    for name in READS {
        let path = format!("/api/v1/{name}");
        assert_eq!(get(&server, &admin, &path).status, 200, "{path}");
        for (key, rule) in [(&reader, "no-rule-allows"), (&scraper, "wrong_door"), (&caller, "wrong_door")] {
            refused(&get(&server, key, &path), 403, "forbidden");
            server.home.audited(|r| r["transport"] == "admin" && r["rule"] == rule && r["decision"] == "deny");
        }
        server.home.audited(|r| r["method"] == format!("admin/{name}.read") && r["decision"] == "allow" && r["kind"] == "admin");
    }
    let denied = server.home.audited(|r| r["method"] == "admin/keys.read" && r["decision"] == "deny");
    assert_eq!(
        (&denied["principal"], &denied["kind"]),
        (&json!(format!("key:{}", id_of(&reader))), &json!("refused")),
        "{denied}"
    );
    assert_eq!(get(&server, &scraper, "/metrics").status, 200);
    assert_eq!(get(&server, &admin, "/metrics").status, 200);
    refused(&get(&server, &caller, "/metrics"), 403, "forbidden");
    // Neither opens the other listeners.
    for key in [&admin, &scraper] {
        assert_eq!(server.call(Some(key), "list_sources", &json!({})).status, 403);
    }
    assert!(intact(&server.home));
}

#[test]
fn a_key_taken_back_over_http_is_refused_within_a_second() {
    let Bench { server, admin, reader, caller, .. } = bench("");
    assert_eq!(server.call(Some(&caller), "list_sources", &json!({})).status, 200);
    let (path, about) = (format!("/api/v1/keys/{}/revoke", id_of(&caller)), format!("key:{}", id_of(&caller)));
    refused(&change(&server, &reader, &path), 403, "forbidden");
    server.home.audited(|r| r["method"] == "admin/keys.revoke" && r["decision"] == "deny" && r["about"] == about.as_str());
    assert_eq!(server.call(Some(&caller), "list_sources", &json!({})).status, 200, "who may not revoke did not");

    let reply = change(&server, &admin, &path);
    assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("revoked")), "{}", reply.body);
    let began = Instant::now();
    while server.call(Some(&caller), "list_sources", &json!({})).status != 401 {
        assert!(began.elapsed() < Duration::from_secs(1), "the revoked key is still good");
    }
    let by = json!(format!("key:{}", id_of(&admin)));
    let record = server.home.audited(|r| r["kind"] == "key" && r["method"] == "key.revoke" && r["key"] == id_of(&caller));
    assert_eq!(record["principal"], by, "the record says who: {record}");
    let record = server.home.audited(|r| r["kind"] == "admin" && r["method"] == "admin/keys.revoke");
    assert_eq!((&record["principal"], &record["about"]), (&by, &json!(about)), "{record}");
    server.home.audited(|r| r["rule"] == "revoked_key");

    refused(&change(&server, &admin, "/api/v1/keys/nosuchkey0/revoke"), 404, "not_found");
    refused(&change(&server, &admin, "/api/v1/keys/..%2f..%2fstate/revoke"), 404, "not_found");
    let keys = get(&server, &admin, "/api/v1/keys");
    let listed = keys.json()["keys"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 4);
    assert!(listed.iter().any(|key| key["id"] == id_of(&caller) && key["status"] == "revoked"), "{}", keys.body);
    for key in [&admin, &reader, &caller] {
        assert!(!keys.body.contains(key.split('_').nth(2).unwrap()), "a secret is in the list");
    }
    assert!(intact(&server.home));
}

#[test]
fn an_administrator_whose_own_key_is_lost_or_over_is_replaced_on_the_machine_while_the_server_runs() {
    let home = Home::new("");
    let lost = home.key(&["--scope", "admin", "--role", "admin"]);
    let server = Server::start_in(home);
    let status = |key: &str| get(&server, key, "/api/v1/status").status;
    let opens = |key: &str| until("it opens", || if status(key) == 200 { Ok(()) } else { Err(server.log()) });
    assert_eq!(status(&lost), 200, "the only administrator, and somebody else has the key");
    // Nobody is let in to take it back: that is done where the state is.
    server.home.run_ok(&["key", "revoke", id_of(&lost)]);
    let began = Instant::now();
    while status(&lost) != 401 {
        assert!(began.elapsed() < Duration::from_secs(1), "the revoked key is still good");
    }
    let record = server.home.audited(|r| r["kind"] == "key" && r["method"] == "key.revoke" && r["key"] == id_of(&lost));
    assert!(record["principal"].as_str().is_some_and(|who| who.starts_with("local:")), "{record}");
    server.home.audited(|r| r["rule"] == "revoked_key" && r["transport"] == "admin" && r["decision"] == "deny");

    // A new one is good without a restart, and when that one is over it gets a new secret in the same way.
    let brief = server.home.key(&["--scope", "admin", "--role", "admin", "--expires", "10s"]);
    opens(&brief);
    until("it ends", || if status(&brief) == 401 { Ok(()) } else { Err("it is still good".to_owned()) });
    server.home.audited(|r| r["rule"] == "expired_key" && r["transport"] == "admin" && r["decision"] == "deny");
    let rotated = server.home.run_ok(&["key", "rotate", id_of(&brief), "--overlap", "0s", "--expires", "90d", "--json"]);
    let rotated: Value = serde_json::from_str(&rotated).unwrap();
    opens(rotated["key"].as_str().unwrap());
    assert_eq!(status(&brief), 401, "the old secret stays over");
    assert!(intact(&server.home));
}

#[test]
fn an_approval_is_decided_over_http_by_somebody_else() {
    let (server, one, _) = approvals::bench("");
    let home = &server.home;
    let admin = home.key(&["--scope", "admin", "--scope", "mcp", "--role", "admin"]);
    let began = Instant::now();
    while get(&server, &admin, "/api/v1/approvals").status != 200 {
        assert!(began.elapsed() < Duration::from_secs(5), "the new key is not known");
        std::thread::sleep(Duration::from_millis(100));
    }
    let query = json!({"query": "SELECT 1 AS x"});
    let id = approvals::pending(&one.call("sql", &query).json());
    let listed = get(&server, &admin, "/api/v1/approvals").json();
    let request = listed["approvals"].as_array().unwrap().iter().find(|r| r["id"] == id.as_str()).unwrap().clone();
    assert_eq!((&request["tool"], &request["state"]["is"]), (&json!("sql"), &json!("pending")), "{request}");

    let reply = change(&server, &admin, &format!("/api/v1/approvals/{id}/approve"));
    assert_eq!((reply.status, &reply.json()["state"]["is"]), (200, &json!("granted")), "{}", reply.body);
    let by = json!(format!("key:{}", id_of(&admin)));
    let record = home.audited(|r| r["kind"] == "approval" && r["method"] == "approval.grant");
    assert_eq!(record["principal"], by, "{record}");
    home.audited(|r| r["kind"] == "admin" && r["method"] == "admin/approvals.decide" && r["target"] == id.as_str());
    assert!(one.call("sql", &query).json()["result"]["structuredContent"]["rows"].is_array());
    refused(&change(&server, &admin, &format!("/api/v1/approvals/{id}/deny")), 400, "invalid_argument");

    // Nobody approves their own call, whichever door they come through.
    let own = approvals::pending(&server.call(Some(&admin), "sql", &query).json());
    refused(&change(&server, &admin, &format!("/api/v1/approvals/{own}/approve")), 403, "forbidden");
    let failed = home.audited(|r| r["method"] == "admin/approvals.decide" && r["code"] == "forbidden");
    assert_eq!((&failed["principal"], &failed["target"]), (&by, &json!(own)), "{failed}");
    let of_own = |records: Vec<Value>| -> Vec<Value> {
        records
            .into_iter()
            .filter(|r| r["kind"] == "approval" && r["method"] == "approval.grant" && r.to_string().contains(&own))
            .collect()
    };
    let grants = of_own(home.audit());
    assert_eq!(grants.len(), 1, "{grants:?}");
    assert_eq!(
        (&grants[0]["decision"], &grants[0]["rule"]),
        (&json!("deny"), &json!("four-eyes")),
        "no yes is recorded: {grants:?}"
    );
    assert!(server.call(Some(&admin), "sql", &query).json().to_string().contains("pending approval"));

    let reply =
        change(&server, &admin, &format!("/api/v1/approvals/{}/deny", approvals::pending(&one.call("sql", &query).json())));
    assert_eq!(reply.json()["state"]["is"], "denied", "{}", reply.body);
    refused(&change(&server, &admin, "/api/v1/approvals/aaaaaaaaaaaa/approve"), 404, "not_found");
    let unknown = home.audited(|r| r["method"] == "approval.grant" && r["rule"] == "approval-unknown");
    assert_eq!(unknown["decision"], "deny", "{unknown}");
    let yes = |r: &Value| r["kind"] == "approval" && r["method"] == "approval.grant" && r["decision"] == "allow";
    assert_eq!(home.audit().iter().filter(|r| yes(r)).count(), 1, "only the one that was said");
    assert!(intact(home));
}

#[test]
fn what_a_page_in_a_browser_could_send_is_refused() {
    let Bench { server, admin, caller, .. } = bench("");
    let bearer = format!("Bearer {admin}");
    let path = format!("/api/v1/keys/{}/revoke", id_of(&caller));
    let json_headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
    let with = |more: Header<'_>, body: &[u8]| ask(server.admin, "POST", &path, &[&json_headers[..], &[more]].concat(), body);
    refused(&with(("Host", "evil.example"), b"{}"), 403, "forbidden");
    refused(&with(("Origin", "https://evil.example"), b"{}"), 403, "forbidden");
    refused(&with(("Origin", "null"), b"{}"), 403, "forbidden");
    let rebound = ask(server.admin, "GET", "/livez", &[("Host", "evil.example")], b"");
    assert_eq!(rebound.status, 403, "health too: {}", rebound.body);
    for rule in ["host", "origin"] {
        let away = server.home.audited(|r| r["transport"] == "admin" && r["rule"] == rule);
        assert_eq!(away["decision"], "deny", "{away}");
    }
    // A form, and JSON that says it is something else.
    for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"] {
        let reply = ask(server.admin, "POST", &path, &[("Authorization", &bearer), ("Content-Type", kind)], b"{}");
        refused(&reply, 400, "invalid_argument");
    }
    server.home.audited(|r| r["rule"] == "cross-site" && r["decision"] == "deny" && r["transport"] == "admin");
    // A cookie is nothing.
    let cookie = ask(server.admin, "GET", "/api/v1/keys", &[("Cookie", &format!("authorization={bearer}"))], b"");
    refused(&cookie, 401, "unauthenticated");
    let preflight = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")];
    let preflight = ask(server.admin, "OPTIONS", &path, &preflight, b"");
    assert!(preflight.status == 403 && !preflight.head.to_ascii_lowercase().contains("access-control"), "{}", preflight.head);
    assert_eq!(ask(server.admin, "GET", &path, &[("Authorization", &bearer)], b"").status, 405, "a link changes nothing");
    assert_eq!(server.call(Some(&caller), "list_sources", &json!({})).status, 200, "none of it revoked the key");
}

#[test]
fn malformed_and_oversized_requests_are_refused_and_recorded() {
    let Bench { server, admin, caller, .. } = bench("admin: {listen: 'ADMIN_ADDRESS', max_body: 1KiB}\n");
    let bearer = format!("Bearer {admin}");
    let path = format!("/api/v1/keys/{}/revoke", id_of(&caller));
    let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
    let send = |body: &[u8]| ask(server.admin, "POST", &path, &headers, body);
    refused(&send(&[b' '; 4096]), 413, "too_large");
    let announced = [("Content-Length", "99999999999"), ("Authorization", &*bearer)];
    refused(&ask(server.admin, "GET", "/metrics", &announced, b""), 413, "too_large");
    let chunked = [&headers[..], &[("Transfer-Encoding", "chunked"), ("Content-Length", "")]].concat();
    let chunked: Vec<Header<'_>> = chunked.into_iter().filter(|(name, _)| *name != "Content-Length").collect();
    let mut body = Vec::new();
    for _ in 0..8 {
        body.extend_from_slice(b"200\r\n");
        body.extend_from_slice(&[b' '; 0x200]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let raw = |body: &[u8]| {
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", server.admin);
        for (name, value) in &chunked {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(server.admin).unwrap();
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        let _ = stream.write_all(body);
        read_reply(stream)
    };
    refused(&raw(&body), 413, "too_large");
    server.home.audited(|r| r["rule"] == "body-size" && r["code"] == "too_large" && r["transport"] == "admin");
    for wrong in [&b"[]"[..], b"{", b"", b"null", b"{\"a\":1,\"a\":2}", b"{\"also\":\"this\"}", b"\xff\xfe"] {
        refused(&send(wrong), 400, "invalid_argument");
    }
    server.home.audited(|r| r["rule"] == "strict-json" && r["transport"] == "admin");
    for path in ["/api/v1/audit?sinc=1h", "/api/v1/audit?kind=nonsense", "/api/v1/audit?limit=0", "/api/v1/keys?all=true"] {
        refused(&get(&server, &admin, path), 400, "invalid_argument");
    }
    let twice = [("Authorization", &*bearer), ("Authorization", &*bearer)];
    refused(&ask(server.admin, "GET", "/api/v1/keys", &twice, b""), 400, "invalid_argument");
    refused(&ask(server.admin, "GET", &format!("/metrics?api_key={admin}"), &[], b""), 400, "invalid_argument");
    server.home.audited(|r| r["rule"] == "credential_in_url" && r["transport"] == "admin");
    assert_eq!(get(&server, &admin, "/nothing/here").status, 404);
    let audit = server.home.run_ok(&["audit", "tail", "-n", "1000", "--json"]);
    let secret = admin.split('_').nth(2).unwrap();
    assert!(!audit.contains(secret) && !server.log().contains(secret), "the secret was written down");
    assert_eq!(server.call(Some(&caller), "list_sources", &json!({})).status, 200, "none of it revoked the key");
}

#[test]
fn who_keeps_guessing_at_the_admin_listener_has_to_wait() {
    let Bench { server, admin, .. } = bench("");
    let guess = format!("pcli_{}_Kq7#vLp2xWm9zR!x", id_of(&admin));
    let mut last = get(&server, &guess, "/api/v1/keys");
    for _ in 0..8 {
        last = get(&server, &guess, "/api/v1/keys");
    }
    refused(&last, 429, "rate_limited");
    assert!(last.head.to_ascii_lowercase().contains("retry-after: "), "{}", last.head);
    let record = server.home.audited(|r| r["rule"] == "locked_out" && r["transport"] == "admin");
    assert_eq!(record["code"], "rate_limited", "{record}");
}

#[test]
fn a_confined_administrator_is_refused_and_so_is_a_rule_that_says_no() {
    let home = Home::new("");
    let confined = home.key(&["--scope", "admin", "--role", "admin", "--service", "cart"]);
    let elsewhere = home.key(&["--scope", "admin", "--role", "admin", "--tenant", "acme"]);
    let admin = home.key(&["--scope", "admin", "--role", "admin"]);
    let path = home.directory.path().join("own.cedar");
    let rule = "@id(\"nobody-revokes\")\nforbid (principal, action == Portcullis::Action::\"administer\", resource == \
                Portcullis::Operation::\"keys.revoke\");\n";
    std::fs::write(&path, rule).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", path.display())).unwrap();
    let server = Server::start_in(home);
    for key in [&confined, &elsewhere] {
        refused(&get(&server, key, "/api/v1/audit"), 403, "forbidden");
    }
    server.home.audited(|r| r["rule"] == "installation-wide" && r["method"] == "admin/audit.read" && r["decision"] == "deny");
    assert_eq!(get(&server, &admin, "/api/v1/keys").status, 200);
    refused(&change(&server, &admin, &format!("/api/v1/keys/{}/revoke", id_of(&confined))), 403, "forbidden");
    server.home.audited(|r| r["rule"] == "nobody-revokes" && r["method"] == "admin/keys.revoke" && r["decision"] == "deny");
    // A misspelt operation stops the start.
    std::fs::write(&path, rule.replace("keys.revoke", "keys.revok")).unwrap();
    let checked = server.home.run(&["config", "check"]);
    let text = String::from_utf8_lossy(&checked.stderr);
    assert!(!checked.status.success() && text.contains("keys.revoke"), "{text}");
}

#[test]
fn the_audit_log_is_searched_page_by_page() {
    let Bench { server, admin, caller, .. } = bench("");
    for _ in 0..5 {
        server.call(Some(&caller), "list_sources", &json!({}));
    }
    let page = get(&server, &admin, "/api/v1/audit?kind=call&limit=2").json();
    assert_eq!((page["records"].as_array().unwrap().len(), &page["more"]), (2, &json!(true)), "{page}");
    assert_eq!(page["records"][0]["tool"], "list_sources");
    assert!(page["records"][0]["client"].as_str().unwrap().starts_with("127.0.0.1:"), "addresses are shown: {page}");
    let mut seen = 2;
    let mut cursor = page["cursor"].as_str().map(str::to_owned);
    while let Some(at) = cursor {
        let next = get(&server, &admin, &format!("/api/v1/audit?kind=call&limit=2&cursor={at}")).json();
        seen += next["records"].as_array().unwrap().len();
        cursor = next["cursor"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, 5);
    let denied = get(&server, &admin, "/api/v1/audit?outcome=refused&since=1h").json();
    assert!(denied["records"].as_array().unwrap().iter().all(|r| r["decision"] == "deny"), "{denied}");
    refused(&get(&server, &admin, "/api/v1/audit?cursor=nowhere/1"), 400, "invalid_argument");
}

#[test]
fn the_status_is_what_doctor_prints() {
    let Bench { server, admin, .. } = bench("");
    let status = get(&server, &admin, "/api/v1/status").json();
    let lines = status["lines"].as_array().unwrap();
    let state = |name: &str| lines.iter().find(|line| line["name"] == name).map_or(Value::Null, |line| line["state"].clone());
    for control in ["admin listener", "credentials for admin", "audit", "api keys", "lockout"] {
        assert_eq!(state(control), "on", "{control}: {status:#}");
    }
    let printed: Value = serde_json::from_slice(&server.home.run(&["doctor", "--json"]).stdout).unwrap();
    let names = |lines: &Value| lines.as_array().unwrap().iter().map(|line| line["name"].clone()).collect::<Vec<_>>();
    let said = names(&json!(lines));
    // The embedded store is the server's, so the other process has no line about it.
    assert!(names(&printed).iter().all(|name| said.contains(name)), "{said:?} {printed:#}");
    let sources = get(&server, &admin, "/api/v1/sources").json();
    assert_eq!((&sources["sources"][0]["name"], &sources["sources"][0]["up"]), (&json!("embedded"), &json!(true)), "{sources}");
    let details = get(&server, &admin, "/readyz");
    assert_eq!((details.status, &details.json()["ready"]), (200, &json!(true)), "{}", details.body);
    assert!(details.json()["checks"].as_array().unwrap().iter().any(|check| check["name"] == "audit"));
}

#[test]
fn a_server_that_is_stopping_is_alive_and_not_ready() {
    let Bench { server, .. } = bench("");
    // A request whose body does not come holds the other listeners open for a while.
    let mut held = TcpStream::connect(server.mcp).unwrap();
    let head = format!("POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 10\r\n", server.mcp);
    let key = server.home.key(&[]);
    let began = Instant::now();
    while server.call(Some(&key), "list_sources", &json!({})).status != 200 {
        assert!(began.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(100));
    }
    held.write_all(format!("{head}Authorization: Bearer {key}\r\n\r\n").as_bytes()).unwrap();
    held.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(held.read(&mut [0; 1]).is_err(), "the request is being read");
    server.signal("-TERM");
    let began = Instant::now();
    loop {
        let reply = ask(server.admin, "GET", "/readyz", &[], b"");
        if reply.status == 503 {
            assert_eq!(reply.body, "", "no details");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(3), "still ready: {}", reply.status);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ask(server.admin, "GET", "/livez", &[], b"").status, 200);
    drop(held);
    let mut server = server;
    assert!(server.child.wait().unwrap().success());
    assert!(intact(&server.home));
}

#[test]
fn an_admin_listener_nobody_could_use_or_everybody_could_read_is_refused() {
    for (extra, words) in [
        ("admin: {listen: '0.0.0.0:0'}\n", "admin.plaintext to i-terminate-tls-elsewhere"),
        ("admin: {listen: '0.0.0.0:0', plaintext: i-terminate-tls-elsewhere}\n", "--scope admin --role admin"),
        ("admin: {listn: '127.0.0.1:0'}\n", "did you mean 'listen'"),
    ] {
        let home = Home::new(extra);
        let output = home.run(&["serve"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(words), "{extra}: {text}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = Home::new(&format!("admin: {{listen: '{address}'}}\n")).run(&["serve"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains(&address.to_string()) && text.contains("admin.listen"), "{text}");
}

#[test]
fn it_can_be_switched_off_and_doctor_says_so() {
    let server = Server::start("admin: {enabled: false, listen: 'ADMIN_ADDRESS'}\n");
    assert!(TcpStream::connect(server.admin).is_err(), "nobody listens");
    assert!(server.home.run_ok(&["doctor"]).contains("admin.enabled is false"));
}

#[test]
fn stdio_opens_no_admin_listener() {
    let home = Home::new("");
    let mut child = std::process::Command::new(crate::server::BINARY)
        .arg("--config")
        .arg(&home.config)
        .arg("stdio")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let open = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
        "capabilities": {}, "clientInfo": {"name": "it", "version": "1"}}});
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{open}").unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert!(TcpStream::connect(home.admin).is_err(), "it answers over stdio, and nobody listens");
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn who_may_everything_by_a_broad_rule_administers_nothing() {
    let home = Home::new("roles: [chief]\npolicies: ['POLICY']\n");
    let policy = home.directory.path().join("broad.cedar");
    std::fs::write(&policy, r#"@id("chief-may-everything") permit(principal in Portcullis::Role::"chief", action, resource);"#)
        .unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, text.replace("POLICY", &policy.display().to_string())).unwrap();
    let chief = home.key(&["--scope", "admin", "--scope", "mcp", "--role", "chief"]);
    let server = Server::start_in(home);
    assert!(server.call(Some(&chief), "list_sources", &json!({})).json()["result"].is_object(), "tools are allowed");
    for name in READS {
        refused(&get(&server, &chief, &format!("/api/v1/{name}")), 403, "forbidden");
        let record = server.home.audited(|r| r["method"] == format!("admin/{name}.read"));
        assert_eq!((&record["decision"], &record["rule"]), (&json!("deny"), &json!("no-rule-allows")), "{record}");
    }
    refused(&change(&server, &chief, &format!("/api/v1/keys/{}/revoke", id_of(&chief))), 403, "forbidden");
    assert_eq!(server.call(Some(&chief), "list_sources", &json!({})).status, 200, "nothing was revoked");
}

#[test]
fn what_administrators_are_told_is_redacted_as_every_answer() {
    let Bench { server, admin, caller, .. } = bench("");
    server.call(Some(&caller), "token=abcdef0123456789abcdef0123456789 of anna@example.org", &json!({}));
    for path in READS.map(|name| format!("/api/v1/{name}")) {
        let reply = get(&server, &admin, &path);
        assert_eq!(reply.status, 200, "{path}");
        for gone in ["abcdef0123456789", "anna@example.org"] {
            assert!(!reply.body.contains(gone), "{path}: {gone}: {}", reply.body);
        }
    }
    // What an administrator works with is still there.
    let keys = get(&server, &admin, "/api/v1/keys").json();
    assert!(keys["keys"].as_array().unwrap().iter().any(|key| key["id"] == id_of(&caller)), "{keys:#}");
    let page = get(&server, &admin, "/api/v1/audit?limit=3").json();
    let hidden = |record: &Value| {
        let members = record.as_object().unwrap().iter().filter(|(_, value)| value.to_string().contains("[redacted"));
        members.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    for record in page["records"].as_array().unwrap() {
        // Their names are those of secrets, whatever is in them.
        assert!(hidden(record).iter().all(|name| name == "credential" || name == "chain"), "{record:#}");
    }
    let (first, second) = (page["cursor"].as_str().unwrap(), page["records"][2].clone());
    let next = get(&server, &admin, &format!("/api/v1/audit?limit=3&cursor={first}"));
    assert!(next.status == 200 && next.json()["records"][0]["seq"] != second["seq"], "a cursor can be used: {}", next.body);
}

#[test]
fn who_may_not_change_anything_holds_no_place_with_a_body_that_never_comes() {
    let Bench { server, admin, reader, caller, .. } = bench("");
    let path = format!("/api/v1/keys/{}/revoke", id_of(&caller));
    let open = |key: &str| {
        let mut stream = TcpStream::connect(server.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n",
            server.admin
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let began = Instant::now();
    refused(&read_reply(open(&reader)), 403, "forbidden");
    assert!(began.elapsed() < Duration::from_secs(5), "the body was waited for: {:?}", began.elapsed());
    let record = server.home.audited(|r| r["transport"] == "admin" && r["method"] == "admin/keys.revoke");
    assert_eq!(record["decision"], "deny", "{record}");

    // Who may, may wait for a while, and not in every place.
    let waiting: Vec<TcpStream> = (0..12).map(|_| open(&admin)).collect();
    let began = Instant::now();
    while server.home.audit().iter().filter(|r| r["rule"] == "in-flight" && r["transport"] == "admin").count() < 4 {
        assert!(began.elapsed() < Duration::from_secs(8), "one credential has every place");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(get(&server, &reader, "/metrics").status, 200, "others are answered");
    drop(waiting);
    assert_eq!(server.call(Some(&caller), "list_sources", &json!({})).status, 200, "nothing was revoked");
}

#[test]
fn what_the_door_says_is_not_taken_for_a_secret() {
    let server = Server::start("");
    let reply = ask(server.admin, "GET", "/api/v1/status", &[], b"");
    assert!(reply.status == 401 && reply.body.contains("send 'Authorization: Bearer"), "{}", reply.body);
    assert!(!reply.body.contains("[redacted"), "{}", reply.body);
}
