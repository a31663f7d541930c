//! Inner addresses in every form they can be written, for everything that is asked over the network: in the configuration they
//! stop the start and are no reload, in a redirect they are not followed. Each refusal has its record, and nothing there is
//! reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::server::{Home, Server, free_port, intact};
use crate::upstreams::until;
use crate::visitor::{Backend, Visitor};

/// Hosts that are 127.0.0.1 for somebody: decimal, hexadecimal, octal, short, IPv4-mapped and -compatible, 6to4, NAT64.
const LOOPBACK: [&str; 13] = [
    "127.0.0.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "127.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[2002:7f00:1::]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
];

/// Hosts that are a metadata service (169.254.169.254) for somebody, or another place that is never asked.
const NEVER: [&str; 9] = [
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[2002:a9fe:a9fe::]",
    "[64:ff9b::a9fe:a9fe]",
    "[fd00:ec2::254]",
    "0.0.0.0",
];

/// The sections that hold a URL to be asked.
fn section(kind: &str, host: &str, allowed: &str) -> String {
    let allow = format!("allow_addresses: [{allowed}]");
    match kind {
        "source" => format!("sources: [{{name: odd, kind: prometheus, url: 'http://{host}:9', {allow}}}]\n"),
        "policy service" => format!("external_policy: {{url: 'http://{host}:9', path: portcullis/allow, {allow}}}\n"),
        "secret store" => {
            format!("secret_stores: [{{name: odd, url: 'https://{host}:9', {allow}, auth: {{token: 'env:PATH'}}}}]\n")
        }
        "upstream" => format!("upstreams: [{{name: odd, http: {{url: 'http://{host}:9/mcp', {allow}}}}}]\n"),
        "sink" => {
            format!(
                "audit: {{sinks: [{{name: odd, to: {{webhook: {{url: 'https://{host}:9/in', secret: a-made-up-signing-secret, {allow}}}}}}}]}}\n"
            )
        }
        other => panic!("{other}"),
    }
}

/// A configuration is refused, and because of the address alone.
fn refused(what: &str, settings: &str) {
    let output = Home::new(settings).run(&["config", "check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{what} is accepted: {settings}");
    let reason = ["is a loopback address; ", " address; such addresses are never reached"];
    assert!(reason.iter().any(|reason| said.contains(reason)), "{what} is refused for another reason: {said}");
    assert!(said.contains("odd") || said.contains("external_policy"), "{what} is not named: {said}");
}

#[test]
fn an_inner_address_in_any_form_is_no_destination_of_anything() {
    // With an address that is nobody's inner one, each of these is fine.
    for kind in ["source", "policy service", "secret store", "upstream", "sink"] {
        Home::new(&section(kind, "93.184.216.34", "")).run_ok(&["config", "check"]);
    }
    for host in LOOPBACK {
        refused(host, &section("source", host, ""));
    }
    // Whatever is allowed: these never are.
    for host in NEVER {
        refused(host, &section("source", host, "loopback, private, shared"));
    }
    for (kind, host) in [
        ("policy service", "2130706433"),
        ("policy service", "[::ffff:a9fe:a9fe]"),
        ("secret store", "0177.0.0.1"),
        ("secret store", "[64:ff9b::a9fe:a9fe]"),
        ("upstream", "0x7f000001"),
        ("upstream", "[2002:7f00:1::]"),
        ("sink", "127.1"),
        ("sink", "2852039166"),
    ] {
        refused(kind, &section(kind, host, ""));
    }
    // A running server does not take such a place over, goes on as before, and says so in a record.
    let server = Server::start_in(Home::new(""));
    let key = server.home.key(&["--role", "admin"]);
    let good = std::fs::read_to_string(&server.home.config).unwrap();
    for (kind, host) in [("source", "2130706433"), ("source", "[::ffff:7f00:1]"), ("secret store", "[64:ff9b::a9fe:a9fe]")] {
        let before = config_refusals(&server).len();
        std::fs::write(&server.home.config, format!("{good}{}", section(kind, host, ""))).unwrap();
        until(&format!("{kind} at {host} is refused"), || match config_refusals(&server).as_slice() {
            all if all.len() > before => {
                assert!(all[all.len() - 1].contains("odd"), "{all:?}");
                Ok(())
            }
            all => Err(format!("{all:?}")),
        });
        let sources = server.call(Some(&key), "list_sources", &json!({}));
        assert!(sources.status == 200 && !sources.body.contains("\"odd\""), "{}", sources.body);
    }
    assert!(intact(&server.home));
}

fn config_refusals(server: &Server) -> Vec<String> {
    let records = server.home.audit().into_iter().filter(|r| r["kind"] == "config");
    records.filter_map(|r| r["note"].as_str().filter(|note| note.starts_with("refused: ")).map(str::to_owned)).collect()
}

#[test]
fn a_redirect_to_an_inner_address_in_any_form_is_not_followed_and_recorded() {
    // What must not be reached. The addresses are this machine's, so following one would be seen.
    let inner = Backend::start(|_, _| (200, json!({"status": "success", "data": []}).to_string()));
    let port = inner.url.rsplit(':').next().unwrap().to_owned();
    let turn = Arc::new(AtomicUsize::new(0));
    let places: Vec<String> = LOOPBACK
        .iter()
        .map(|host| format!("http://{host}:{port}/api/v1/query"))
        .chain(NEVER.iter().map(|host| format!("http://{host}/latest/meta-data/")))
        .chain([
            format!("//2130706433:{port}/"),
            format!("http://user@127.0.0.1:{port}/"),
            format!("http:\\\\127.0.0.1:{port}/"),
            "file:///etc/passwd".into(),
        ])
        .collect();
    let leads = |own: &Arc<AtomicUsize>| {
        let (own, places) = (own.clone(), places.clone());
        move || (302, places[own.load(Ordering::SeqCst) % places.len()].clone())
    };
    let (astray, store, policy) = (leads(&turn), leads(&turn), leads(&turn));
    let prometheus = Backend::start(move |_, _| astray());
    let vault = Backend::start(move |_, _| store());
    let opa = Backend::start(move |_, body| {
        let question: Value = serde_json::from_str(body).unwrap_or_default();
        if question["input"]["arguments"]["metric"] == "policy" { policy() } else { (200, json!({"result": true}).to_string()) }
    });
    let home = Home::new("");
    let token = home.directory.path().join("token");
    std::fs::write(&token, "a-token-for-the-store").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    let more = format!(
        "limits: {{tool: {{per_second: 1000, burst: 1000}}, calls_per_second: 1000, burst: 1000}}\n\
         external_policy: {{url: '{}', path: portcullis/allow, allow_addresses: [loopback], cache: {{entries: 0}}}}\n\
         secret_stores: [{{name: main, url: '{}', allow_addresses: [loopback], auth: {{token: 'file:{}'}}}}]\n\
         sources:\n- {{name: astray, kind: prometheus, url: '{}', allow_addresses: [loopback]}}\n\
         - {{name: kept, kind: prometheus, url: 'http://127.0.0.1:{}', allow_addresses: [loopback], auth: {{bearer: 'vault:main/a#b'}}}}\n",
        opa.url,
        vault.url,
        token.display(),
        prometheus.url,
        free_port().port()
    );
    std::fs::write(&home.config, text + &more).unwrap();
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    for (at, place) in places.iter().enumerate() {
        turn.store(at, Ordering::SeqCst);
        for (metric, source) in [("up", "astray"), ("up", "kept"), ("policy", "astray")] {
            let reply = visitor.call("query_metrics", &json!({"metric": metric, "source": source}));
            let body = reply.json();
            assert!(body["error"].is_object() || body["result"]["isError"] == true, "{place} of {source}: {}", reply.body);
        }
    }
    assert!(inner.seen().is_empty(), "an inner address was reached: {:?}", inner.seen());
    assert!(!prometheus.seen().is_empty() && !vault.seen().is_empty() && !opa.seen().is_empty());
    let records: Vec<Value> = server.home.audit().into_iter().filter(|r| r["tool"] == "query_metrics").collect();
    let of = |kind: &str| records.iter().filter(|r| r["kind"] == kind).count();
    assert_eq!((of("failed"), of("refused")), (2 * places.len(), places.len()), "{records:#?}");
    assert!(intact(&server.home));
}
