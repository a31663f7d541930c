//! Hostile plugins over the real binary: whatever one tries, its caller gets a refusal with a name, the record says what
//! happened, and the server goes on. What they try is done by the probe of `crates/plugins/tests`.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use portcullis_plugins::{Manifest, Package};
use serde_json::{Value, json};

use crate::plugins::{Author, MANIFEST, component, doctor, eventually, refusal, text, tools};
use crate::prometheus::prometheus_of_itself;
use crate::server::{BINARY, Home, Server, intact};
use crate::visitor::{Backend, Visitor};

/// A house with the probe in it, under `manifest`, and somebody who reads.
fn house(config: &str, manifest: impl FnOnce(&Home) -> String) -> Option<(Server, Visitor)> {
    let component = component()?;
    let home = Home::new(config);
    let author = Author::new(&home, "stranger");
    let package = author.release(&home, &component, &manifest(&home));
    author.trusted(&home);
    home.run_ok(&["plugin", "install", &package, "--enable"]);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    Some((server, visitor))
}

/// The probe is told to do something, which must be refused with `says`; then it still answers.
fn refused(server: &Server, visitor: &Visitor, arguments: &Value, code: &str, says: &str) {
    let reply = visitor.call("probe_do", arguments);
    assert!(reply.body.contains(says), "{arguments}: {}", reply.body);
    let record = server.home.audited(|r| r["tool"] == "probe_do" && r["code"] == code && r["note"].to_string().contains(says));
    assert!(record["sources"].to_string().contains("plugin:probe@sha256:"), "{record}");
    let next = visitor.call("probe_do", &json!({"what": "echo", "text": "still here"}));
    assert!(next.body.contains("still here"), "after {arguments}: {}", next.body);
}

#[test]
fn every_limit_a_plugin_runs_into_is_named_to_the_caller_and_in_the_record() {
    let manifest = MANIFEST.replace("cpu_ms: 300, wall_ms: 2000", "cpu_ms: 300, fuel_millions: 20000, wall_ms: 8000");
    let Some((server, visitor)) = house("", |_| manifest) else { return };
    for (arguments, code, says) in [
        (json!({"what": "loop"}), "deadline_exceeded", "limit cpu_ms"),
        (json!({"what": "memory"}), "backend_failed", "limit memory (32 MiB)"),
        (json!({"what": "giant", "count": 400_000}), "too_large", "limit result"),
        (json!({"what": "alias", "count": 1_000}), "too_large", "limit result"),
        (json!({"what": "sleep", "count": 60_000}), "deadline_exceeded", "limit wall_ms (8000 ms)"),
        (json!({"what": "log", "text": "x", "count": 1_000}), "backend_failed", "limit log_lines"),
        (json!({"what": "http", "url": "http://127.0.0.1:1/", "count": 4}), "backend_failed", "limit http_calls"),
        (json!({"what": "panic"}), "backend_failed", "crashed"),
        (json!({"what": "deep"}), "backend_failed", "crashed"),
    ] {
        refused(&server, &visitor, &arguments, code, says);
    }
    assert!(intact(&server.home));
}

#[test]
fn what_a_plugin_may_not_reach_is_not_reached_and_the_record_names_what_it_did() {
    let stranger = Backend::start(|_, _| (200, "secret of somebody else".to_owned()));
    let at = stranger.url.clone();
    let declared = Backend::start(move |path, _| match path {
        "/away" => (302, at.clone()),
        _ => (200, "fine".to_owned()),
    });
    let grant = format!(
        "plugins:\n  grants:\n    - name: probe\n      http: ['{}', 'http://169.254.169.254:80']\n      allow_addresses: [loopback]\n",
        declared.url
    );
    let port = declared.url.rsplit(':').next().unwrap().to_owned();
    let Some((server, visitor)) = house(&grant, |_| MANIFEST.replace("18080", &port)) else { return };
    let url = |path: &str| format!("{}{path}", declared.url);
    let smuggled = json!({"what": "http", "url": url("/"), "headers": [["X-Fine", "a\r\nAuthorization: Bearer stolen"]]});
    let owned = json!({"what": "http", "url": url("/"), "headers": [["Host", "evil.example"]]});
    for (arguments, says) in [
        (json!({"what": "http", "url": format!("{}/", stranger.url)}), "Undeclared"),
        (json!({"what": "http", "url": format!("http://localhost:{port}/")}), "Refused"),
        (json!({"what": "http", "url": "http://169.254.169.254/latest/meta-data/"}), "Refused"),
        (json!({"what": "http", "url": url("/away")}), "Redirect"),
        (smuggled, "Invalid"),
        (owned, "Invalid"),
    ] {
        let reply = visitor.call("probe_do", &arguments);
        assert!(reply.body.contains(says) && !reply.body.contains("somebody else"), "{arguments}: {}", reply.body);
    }
    assert!(stranger.seen().is_empty());
    assert!(declared.seen().iter().all(|head| !head.contains("stolen") && !head.contains("evil.example")));
    // What never left is not among the hosts of the record, what did is.
    let records: Vec<Value> = server.home.audit().into_iter().filter(|r| r["tool"] == "probe_do").collect();
    assert_eq!(records.len(), 6);
    let sources = records.iter().map(|record| record["sources"].to_string()).collect::<String>();
    assert!(sources.contains(&format!("host:{}", declared.url)) && !sources.contains(&stranger.url), "{sources}");
    assert!(records.iter().all(|record| record["note"].to_string().contains("tool probe_do: ok")), "{records:#?}");
}

/// A command that runs the server where `hosts` is the table of names, which a test may change while it runs; `None` on a
/// machine that gives nobody a view of its own.
fn with_names_of(hosts: &Path) -> Option<Command> {
    let mut own_view = Command::new("unshare");
    own_view.args(["-rm", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
    let mut try_it = Command::new("unshare");
    let tried = try_it.args(["-rm", "mount", "--bind"]).arg(hosts).arg("/etc/hosts").status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("skipped: this machine does not allow mounts in a name space of one's own (unshare -rm)");
        return None;
    }
    own_view.arg(BINARY);
    Some(own_view)
}

#[test]
fn a_granted_name_that_begins_to_stand_for_another_address_is_not_followed() {
    let Some(component) = component() else { return };
    let declared = Backend::start(|_, _| (200, "fine".to_owned()));
    let port: u16 = declared.url.rsplit(':').next().unwrap().parse().unwrap();
    let inside = TcpListener::bind(("127.0.0.2", port)).unwrap();
    inside.set_nonblocking(true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    let stands_for = |address: &str| std::fs::write(&hosts, format!("{address} rebind.example.org\n")).unwrap();
    stands_for("127.0.0.1");
    let Some(command) = with_names_of(&hosts) else { return };
    let origin = format!("http://rebind.example.org:{port}");
    // One address is open, as the address of a backend in the operator's own network would be.
    let home = Home::new(&format!(
        "plugins:\n  grants:\n    - name: probe\n      http: ['{origin}']\n      allow_addresses: ['127.0.0.1/32']\n"
    ));
    let author = Author::new(&home, "stranger");
    let package = author.release(&home, &component, &MANIFEST.replace("http://localhost:18080", &origin));
    author.trusted(&home);
    home.run_ok(&["plugin", "install", &package, "--enable"]);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_by(command, home);
    let visitor = Visitor::new(&server, &key);
    let fetched = || visitor.call("probe_do", &json!({"what": "http", "url": format!("{origin}/")})).body;
    assert!(fetched().contains("fine"), "{}", fetched());
    let before = declared.seen().len();
    for elsewhere in ["127.0.0.2", "169.254.169.254", "10.0.0.1"] {
        stands_for(elsewhere);
        let refused = fetched();
        assert!(refused.contains("Refused") && refused.contains("not open for this plugin"), "{elsewhere}: {refused}");
    }
    assert!(inside.accept().is_err() && declared.seen().len() == before);
    let record = server.home.audited(|r| r["tool"] == "probe_do");
    assert!(record["sources"].to_string().contains(&format!("host:{origin}")), "{record}");
    stands_for("127.0.0.1");
    assert!(fetched().contains("fine"), "{}", fetched());
}

/// A call of the probe that has it call the house it runs in, `depth` times one within the other.
fn within(mcp: &str, depth: u32) -> Value {
    if depth == 0 {
        return json!({"what": "echo", "text": "at the bottom"});
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "probe_do", "arguments": within(mcp, depth - 1),
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}});
    let headers = [
        ["Content-Type", "application/json"],
        ["Accept", "application/json, text/event-stream"],
        ["MCP-Protocol-Version", "2026-07-28"],
        ["Mcp-Method", "tools/call"],
        ["Mcp-Name", "probe_do"],
    ];
    json!({"what": "http", "method": "POST", "url": format!("http://{mcp}/mcp"), "headers": headers, "credentials": ["token"],
        "text": body.to_string()})
}

#[test]
fn a_plugin_that_calls_itself_through_its_own_house_ends_at_its_limit() {
    let Some(component) = component() else { return };
    let home = Home::new("");
    let author = Author::new(&home, "stranger");
    let mcp = home.mcp.to_string();
    let manifest =
        MANIFEST.replace("18080", &home.mcp.port().to_string()).replace("wall_ms: 2000", "wall_ms: 20000, concurrent: 3");
    let package = author.release(&home, &component, &manifest);
    author.trusted(&home);
    home.run_ok(&["plugin", "install", &package, "--enable"]);
    let key = home.key(&["--role", "reader"]);
    // Nobody does this by accident: the operator hands the plugin a key of the house itself.
    let grant = format!(
        "plugins:\n  grants:\n    - name: probe\n      http: ['http://{mcp}']\n      allow_addresses: [loopback]\n      secrets: {{token: {{value: '{key}'}}}}\n"
    );
    let config = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, config + &grant).unwrap();
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    let two = visitor.call("probe_do", &within(&mcp, 2));
    assert!(two.body.contains("at the bottom"), "each call within is one of its own: {}", two.body);
    let five = visitor.call("probe_do", &within(&mcp, 5));
    assert!(five.body.contains("concurrent (3 calls") && !five.body.contains("at the bottom"), "{}", five.body);
    let record = server.home.audited(|r| r["tool"] == "probe_do" && r["code"] == "rate_limited");
    assert!(record["note"].to_string().contains("refused, limit concurrent"), "{record}");
    let next = visitor.call("probe_do", &json!({"what": "echo", "text": "still here"}));
    assert!(next.body.contains("still here"), "{}", next.body);
}

#[test]
fn a_forged_manifest_a_bomb_and_a_foreign_signature_do_not_come_in_and_that_is_recorded() {
    let Some(component) = component() else { return };
    let home = Home::new("");
    let author = Author::new(&home, "stranger");
    let honest = author.release(&home, &component, MANIFEST);
    author.trusted(&home);
    // Packing tries a plugin out; a forger has tools of its own.
    let forged = MANIFEST.replace("{name: probe_change, risk: write}", "{name: probe_change, risk: read}");
    let manifest = Manifest::from_yaml(&forged).unwrap();
    let bytes = Package::write(&manifest, &std::fs::read(&component).unwrap(), "", b"{}").unwrap();
    let package = author.folder.join("forged.plugin");
    std::fs::write(&package, &bytes).unwrap();
    home.run_ok(&["plugin", "sign", &text(&package), "--key", &text(&author.key)]);
    home.run_ok(&["plugin", "install", &text(&package), "--enable"]);
    let line = doctor(&home, "plugin probe");
    assert!(line["state"] == "broken" && line["detail"].to_string().contains("another risk class"), "{line}");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    assert!(!tools(&Visitor::new(&server, &key)).contains(&"probe_do".to_owned()));
    server.home.audited(|r| r["method"] == "plugin.refused" && r["note"].to_string().contains("another risk class"));

    let home = server.kill();
    let bomb = author.folder.join("bomb.plugin");
    // Half a gigabyte of zeros in some kilobytes.
    std::fs::write(&bomb, zstd::bulk::compress(&vec![0; 512 << 20], 1).unwrap()).unwrap();
    std::fs::copy(format!("{honest}.sig"), author.folder.join("bomb.plugin.sig")).unwrap();
    assert!(refusal(&home, &["plugin", "install", &text(&bomb)]).contains("unpacks to more than"));
    home.audited(|r| r["method"] == "plugin.install" && r["decision"] == "deny" && r["note"].to_string().contains("unpacks"));
    let foreign = refusal(&home, &["plugin", "install", &honest, "--signature", &text(&author.folder.join("forged.plugin.sig"))]);
    assert!(foreign.contains("signature is over probe 1.0.0 sha256:"), "{foreign}");
    home.audited(|r| {
        r["method"] == "plugin.install" && r["decision"] == "deny" && r["note"].to_string().contains("signature is over")
    });
}

#[test]
fn a_strangers_plugin_answers_beside_a_real_prometheus_and_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_prometheus, url)) = prometheus_of_itself(folder.path()) else { return };
    let source = format!("sources: [{{name: real, kind: prometheus, url: '{url}', allow_addresses: [loopback]}}]\n");
    let Some((server, visitor)) = house(&source, |_| MANIFEST.to_owned()) else { return };
    server.send_log("cart", 17, "payment refused by the embedded store");
    let ask = |tool: &str, arguments: Value| visitor.call(tool, &arguments).json()["result"]["structuredContent"].take();
    let states = |answer: &Value| {
        let coverage = answer["coverage"].as_array().cloned().unwrap_or_default();
        let state = |entry: &Value| format!("{} {}", entry["source"].as_str().unwrap(), entry["state"].as_str().unwrap());
        coverage.iter().map(state).collect::<Vec<_>>()
    };
    eventually("answers of the store and the plugin", || {
        let answer = ask("query_logs", json!({"window": "1h"}));
        let text = answer.to_string();
        let both = text.contains("by the embedded store") && text.contains("payment refused by the probe");
        both && ["embedded answered", "probe answered"].iter().all(|state| states(&answer).contains(&(*state).to_owned()))
    });
    eventually("a metric of Prometheus", || {
        let answer = ask("query_metrics", json!({"metric": "up", "window": "5m"}));
        states(&answer).contains(&"real answered".to_owned()) && states(&answer).contains(&"probe answered".to_owned())
    });
    let record = server.home.audited(|r| r["tool"] == "query_metrics");
    let sources = record["sources"].to_string();
    assert!(sources.contains("real") && sources.contains("plugin:probe@sha256:"), "{record}");
    assert!(record["note"].to_string().contains("question metrics: ok"), "{record}");
    let record = server.home.audited(|r| r["tool"] == "query_logs");
    let sources = record["sources"].to_string();
    assert!(sources.contains("embedded") && sources.contains("plugin:probe@sha256:"), "{record}");
}

#[test]
fn signatures_of_the_other_system_are_verified_by_command() {
    let home = Home::new("");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/tests/omcp");
    let (plugin, root) = (text(&folder.join("demo")), text(&folder.join("plugin-signing.pub.pem")));
    let verify = ["plugin", "verify", "--format", "omcp", "--trust-root", &root];
    let said = home.run_ok(&[verify.as_slice(), &[&plugin]].concat());
    assert!(said.contains("demo") && said.contains("helper.mjs"), "{said}");
    let copy = home.directory.path().join("demo");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(folder.join("demo")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(copy.join("index.mjs"), "export default () => 'evil';\n").unwrap();
    assert!(refusal(&home, &[verify.as_slice(), &[&text(&copy)]].concat()).contains("integrity"));
    let unnamed = refusal(&home, &["plugin", "verify", "--format", "omcp", &plugin]);
    assert!(unnamed.contains("--trust-root"), "{unnamed}");
}
