//! The admin listener inside TLS: administration by a client certificate, and certificates that are renewed while it serves.

use serde_json::json;

use crate::server::{Home, Reply, Server, intact};
use crate::wire::{Authority, BOTH, Paper, ask, authority, connect, eventually, lay, private};

/// A server whose admin listener speaks TLS and asks for a certificate: `keeper.example` administers, `watch.example`
/// scrapes, `agent.example` calls tools.
fn start(own: &Authority, clients: &Authority) -> Server {
    let home = Home::new(
        "admin: {listen: 'ADMIN_ADDRESS', tls: {certificate: 'HERE/server.pem', key: 'HERE/server.key', \
         client_ca: 'HERE/clients.pem', client_certificates: optional}}\nidentity:\n  certificates:\n  \
         - {name: keeper, san: {dns: keeper.example}, roles: [admin], doors: [admin]}\n  \
         - {name: watch, san: {dns: watch.example}, doors: [metrics]}\n  \
         - {name: agent, san: {dns: agent.example}, roles: [admin], doors: [mcp]}\n",
    );
    let directory = home.directory.path();
    lay(directory, &own.server());
    private(&directory.join("clients.pem"), &clients.pem);
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, text.replace("HERE", &directory.display().to_string())).unwrap();
    Server::start_in(home)
}

fn say(server: &Server, own: &Authority, shows: Option<&Paper>, head: &str, headers: &[(&str, &str)]) -> Reply {
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut stream = connect(server.admin, own, shows, BOTH).unwrap();
    ask(&mut stream, head, &headers, "{}").unwrap()
}

#[test]
fn a_client_certificate_administers_where_a_rule_says_so() {
    let (own, clients) = (authority("own"), authority("clients"));
    let server = start(&own, &clients);
    let [keeper, watch, agent] = ["keeper", "watch", "agent"].map(|name| clients.client(&format!("{name}.example")));
    let (status, metrics) = ("GET /api/v1/status", "GET /metrics");

    let reply = say(&server, &own, Some(&keeper), status, &[]);
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.head.contains("strict-transport-security: max-age="), "{}", reply.head);
    let record = server.home.audited(|r| r["method"] == "admin/status.read" && r["decision"] == "allow");
    assert_eq!((&record["principal"], &record["transport"]), (&json!("cert:keeper"), &json!("admin")), "{record}");
    assert_eq!(say(&server, &own, Some(&watch), metrics, &[]).status, 200);

    for (shown, head, expected) in [
        (None, status, 401),
        (None, metrics, 401),
        (Some(&watch), status, 403),
        (Some(&agent), status, 403),
        (Some(&agent), metrics, 403),
    ] {
        let reply = say(&server, &own, shown, head, &[]);
        assert_eq!(reply.status, expected, "{head}: {}", reply.body);
    }
    server.home.audited(|r| r["rule"] == "wrong_door" && r["transport"] == "admin" && r["decision"] == "deny");
    let foreign = authority("foreign").client("keeper.example");
    let turned_away = connect(server.admin, &own, Some(&foreign), BOTH).and_then(|mut stream| ask(&mut stream, status, &[], ""));
    assert!(turned_away.is_err(), "another authority: there is not even a connection");
    let handshake = |r: &serde_json::Value| r["method"] == "handshake" && r["transport"] == "admin";
    eventually("the refused handshake is recorded", || server.home.audit().iter().any(handshake));
    let plain = crate::admin::ask(server.admin, "GET", "/metrics", &[], b"");
    assert!(plain.status == 400 && plain.body.contains("use https"), "{} {}", plain.status, plain.body);
    let home = server.kill();
    assert!(intact(&home));
}

#[test]
fn a_browser_with_a_certificate_cannot_be_made_to_change_anything() {
    let (own, clients) = (authority("own"), authority("clients"));
    let server = start(&own, &clients);
    let keeper = clients.client("keeper.example");
    let key = server.home.key(&[]);
    let id = key.split('_').nth(1).unwrap();
    let head = format!("POST /api/v1/keys/{id}/revoke");
    let json_header = ("Content-Type", "application/json");
    // The browser shows the certificate by itself, so a page needs nothing but an address.
    for headers in [&[("Content-Type", "text/plain")][..], &[json_header]] {
        let reply = say(&server, &own, Some(&keeper), &head, headers);
        assert!(matches!(reply.status, 400 | 403), "{} {}", reply.status, reply.body);
    }
    server.home.audited(|r| r["rule"] == "cross-site" && r["principal"] == "cert:keeper" && r["decision"] == "deny");
    let wanted = [json_header, ("X-Portcullis-Request", "1")];
    let sent_by_a_page = [&wanted[..], &[("Origin", "https://evil.example")]].concat();
    assert_eq!(say(&server, &own, Some(&keeper), &head, &sent_by_a_page).status, 403);
    let listed = say(&server, &own, Some(&keeper), "GET /api/v1/keys", &[]).body;
    assert!(listed.contains("\"status\":\"active\""), "nothing was revoked: {listed}");
    let reply = say(&server, &own, Some(&keeper), &head, &wanted);
    assert!(reply.status == 200 && reply.body.contains("\"status\":\"revoked\""), "{} {}", reply.status, reply.body);
}

#[test]
fn a_renewed_certificate_of_the_admin_listener_is_taken_over_and_a_bad_one_is_not() {
    let (own, next, clients) = (authority("own"), authority("next"), authority("clients"));
    let server = start(&own, &clients);
    let keeper = clients.client("keeper.example");
    let status = "GET /api/v1/status";
    let mut standing = connect(server.admin, &own, Some(&keeper), BOTH).unwrap();
    assert_eq!(ask(&mut standing, status, &[], "").unwrap().status, 200);
    let directory = server.home.directory.path();
    private(&directory.join("server.pem"), "not a certificate");
    eventually("the bad file is named", || server.log().contains("admin.tls: the new files are not in force"));
    assert_eq!(say(&server, &own, Some(&keeper), status, &[]).status, 200, "the last good one stays in force");
    server.home.audited(|r| r["method"] == "certificate.refused" && r["target"] == "admin.tls");
    assert_eq!(ask(&mut standing, status, &[], "").unwrap().status, 200);
    lay(directory, &next.server());
    eventually("the good file is in force", || server.log().contains("admin.tls: the new certificate is in force"));
    assert!(connect(server.admin, &own, Some(&keeper), BOTH).is_err(), "the old authority no longer vouches for it");
    assert_eq!(say(&server, &next, Some(&keeper), status, &[]).status, 200);
    assert_eq!(ask(&mut standing, status, &[], "").unwrap().status, 200, "the old connection goes on");
    server.home.audited(|r| r["method"] == "certificate.replaced" && r["target"] == "admin.tls");
    let metrics = say(&server, &next, Some(&clients.client("watch.example")), "GET /metrics", &[]).body;
    let end = "portcullis_certificate_expiry_timestamp_seconds{listener=\"admin.tls\"} ";
    let end = metrics.lines().find_map(|line| line.strip_prefix(end)?.parse::<f64>().ok());
    assert!(end.is_some_and(|end| end > 1.7e9), "{metrics}");
}
