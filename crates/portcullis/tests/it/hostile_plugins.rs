//! Hostile plugins over the real binary: whatever one tries, its caller gets a refusal with a name, the record says what
//! happened, and the server goes on. What they try is done by the probe of `crates/plugins/tests`.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use portcullis_plugins::{Manifest, Package};
use serde_json::{Value, json};

use crate::parcels::{Author, refusal, text};
use crate::plugins::{MANIFEST, Stranger, component_of, doctor, eventually, tools};
use crate::prometheus::prometheus_of_itself;
use crate::server::{BINARY, Home, Server, intact, skipped};
use crate::visitor::{Backend, Visitor};

/// A house with the probe in it, under `manifest`, and somebody who reads.
fn house(config: &str, manifest: impl FnOnce(&Home) -> String) -> Option<(Server, Visitor)> {
    Some(Stranger::with(config, manifest)?.started())
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
fn caps_of_one_plugin_leave_the_caps_of_all_in_force_and_both_are_named() {
    let caps = "plugins:\n  limits: {memory: 16MiB, http_calls: 2, fuel_millions: 200, wall_ms: 1000}\n  grants:\n    \
                - {name: probe, limits: {cpu_ms: 20000, wall_ms: 20000}}\n";
    let asked = "limits: {memory: 1GiB, cpu_ms: 60000, fuel_millions: 20000, wall_ms: 60000, http_calls: 64, concurrent: 2}";
    let Some((server, visitor)) =
        house(caps, |_| MANIFEST.lines().filter(|l| !l.starts_with("limits:")).chain([asked]).collect::<Vec<_>>().join("\n"))
    else {
        return;
    };
    for (arguments, code, says) in [
        (json!({"what": "memory"}), "backend_failed", "limit memory (16 MiB)"),
        (json!({"what": "http", "url": "http://127.0.0.1:1/", "count": 3}), "backend_failed", "limit http_calls (2 requests)"),
        (json!({"what": "loop"}), "deadline_exceeded", "limit fuel_millions (200 million instructions)"),
    ] {
        refused(&server, &visitor, &arguments, code, says);
    }
    // The time all others have would be over.
    let slept = visitor.call("probe_do", &json!({"what": "sleep", "count": 1_200}));
    assert!(slept.body.contains("slept"), "{}", slept.body);
    let info: Value = serde_json::from_str(&server.home.run_ok(&["plugin", "info", "probe", "--json"])).unwrap();
    let limits = &info["limits"];
    assert_eq!(
        (&limits["memory"], &limits["http_calls"], &limits["cpu_ms"]),
        (&json!(16 << 20), &json!(2), &json!(20_000)),
        "{info}"
    );
    assert!(intact(&server.home));
}

#[test]
fn what_a_plugin_may_not_reach_is_not_reached_and_the_record_names_what_it_was_kept_from() {
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
    let with_credential = json!({"what": "http", "url": url("/"), "credentials": ["signing"]});
    let asked = |url: String| json!({"what": "http", "url": url});
    let declared_host = format!("host:{}", declared.url);
    let reached = |record: &Value| record["sources"].to_string().contains(&declared_host);
    // What is tried, what the plugin learns, what the record says, and whether the declared host was spoken to at all.
    for (arguments, says, noted, spoken_to) in [
        (
            asked(format!("{}/", stranger.url)),
            "Undeclared",
            format!("host:{} (the manifest does not declare", stranger.url),
            false,
        ),
        (
            asked(format!("http://localhost:{port}/")),
            "Refused",
            format!("host:http://localhost:{port} (the operator does not"),
            false,
        ),
        (asked("http://169.254.169.254/latest/meta-data/".into()), "Refused", "host:http://169.254.169.254:80 (".into(), false),
        (asked(url("/away")), "Redirect", format!("{declared_host} (it leads to another origin"), true),
        (smuggled, "Invalid", format!("{declared_host} ("), false),
        (owned, "Invalid", format!("{declared_host} ("), false),
        (asked("http://user@localhost/".into()), "Invalid", "a request (the URL holds a user".into(), false),
        (with_credential, "Undeclared", format!("secret 'signing' for {declared_host} (the manifest does not"), false),
        (json!({"what": "secret", "text": "token"}), "Undeclared", "secret 'token' (the manifest does not ask".into(), false),
        (json!({"what": "secret", "text": "signing"}), "Refused", "secret 'signing' (the operator does not let".into(), false),
    ] {
        let reply = visitor.call("probe_do", &arguments);
        assert!(reply.body.contains(says) && !reply.body.contains("somebody else"), "{arguments}: {}", reply.body);
        let record = server.home.audited(|r| r["tool"] == "probe_do");
        let note = record["note"].as_str().unwrap();
        assert!(
            note.contains("tool probe_do: ok") && note.contains(&format!("; refused probe {noted}")),
            "{arguments}: {record}"
        );
        assert_eq!(reached(&record), spoken_to, "{arguments}: {record}");
        assert!(!record["sources"].to_string().contains("secret:"), "{arguments}: {record}");
    }
    // The same again and again is one refusal, and what was reached beside it is in the record as well.
    let fine = visitor.call("probe_do", &json!({"what": "http", "url": url("/"), "count": 2}));
    assert!(fine.body.contains("fine"), "{}", fine.body);
    let record = server.home.audited(|r| r["tool"] == "probe_do");
    assert!(reached(&record) && !record["note"].as_str().unwrap().contains("refused"), "{record}");
    visitor.call("probe_do", &json!({"what": "http", "url": format!("{}/", stranger.url), "count": 3}));
    let record = server.home.audited(|r| r["tool"] == "probe_do");
    assert_eq!(record["note"].as_str().unwrap().matches(&stranger.url).count(), 1, "{record}");
    assert!(stranger.seen().is_empty());
    assert!(declared.seen().iter().all(|head| !head.contains("stolen") && !head.contains("evil.example")));
    assert!(server.log().contains("kept from host:http://169.254.169.254:80"), "{}", server.log());
    assert!(intact(&server.home));
}

/// A command that runs the server where `hosts` is the table of names, which a test may change while it runs; `None` on a
/// machine that gives nobody a view of its own.
fn with_names_of(hosts: &Path) -> Option<Command> {
    let mut own_view = Command::new("unshare");
    own_view.args(["-rm", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
    let mut try_it = Command::new("unshare");
    let tried = try_it.args(["-rm", "mount", "--bind"]).arg(hosts).arg("/etc/hosts").status();
    if !tried.is_ok_and(|status| status.success()) {
        skipped("this machine does not allow mounts in a name space of one's own (unshare -rm)");
        return None;
    }
    own_view.arg(BINARY);
    Some(own_view)
}

#[test]
fn a_granted_name_that_begins_to_stand_for_another_address_is_not_followed() {
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
    let config =
        format!("plugins:\n  grants:\n    - name: probe\n      http: ['{origin}']\n      allow_addresses: ['127.0.0.1/32']\n");
    let manifest = MANIFEST.replace("http://localhost:18080", &origin);
    let Some(stranger) = Stranger::with(&config, |_| manifest) else { return };
    stranger.install();
    let key = stranger.home.key(&["--role", "reader"]);
    let server = Server::start_by(command, stranger.home);
    let visitor = Visitor::new(&server, &key);
    let fetched = || visitor.call("probe_do", &json!({"what": "http", "url": format!("{origin}/")})).body;
    assert!(fetched().contains("fine"), "{}", fetched());
    let before = declared.seen().len();
    for (elsewhere, class) in [("127.0.0.2", "loopback"), ("169.254.169.254", "cloud metadata"), ("10.0.0.1", "private")] {
        stands_for(elsewhere);
        let refused = fetched();
        assert!(refused.contains("Refused") && refused.contains("not open for this plugin"), "{elsewhere}: {refused}");
        let record = server.home.audited(|r| r["tool"] == "probe_do");
        assert!(!record["sources"].to_string().contains("host:"), "it was not reached at {elsewhere}: {record}");
        let noted = format!("refused probe host:{origin} (the name stands for a {class} address");
        assert!(record["note"].as_str().unwrap().contains(&noted), "{elsewhere}: {record}");
    }
    assert!(inside.accept().is_err() && declared.seen().len() == before);
    stands_for("127.0.0.1");
    assert!(fetched().contains("fine"), "{}", fetched());
    let record = server.home.audited(|r| r["tool"] == "probe_do");
    assert!(record["sources"].to_string().contains(&format!("host:{origin}")), "{record}");
}

#[test]
fn a_wildcard_stands_for_one_label_in_calls_and_where_the_house_looks_after_the_source() {
    let Some(component) = component_of("probe") else { return };
    let declared = Backend::start(|_, _| (200, "fine".to_owned()));
    let port = declared.url.rsplit(':').next().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 eu.wild.example.org deep.eu.wild.example.org wild.example.org\n").unwrap();
    let Some(command) = with_names_of(&hosts) else { return };
    let pattern = format!("http://*.wild.example.org:{port}");
    let home = Home::new(&format!(
        "plugins:\n  grants:\n    - name: probe\n      http: ['{pattern}']\n      allow_addresses: [loopback]\n      \
         settings: {{health: 'http://eu.wild.example.org:{port}/health'}}\n"
    ));
    let author = Author::new(&home, "stranger");
    let package = author.pack(&home, &component, &MANIFEST.replace("https://*.example.com", &pattern));
    author.trusted(&home, &["--plugin", "probe"]);
    home.run_ok(&["plugin", "install", &package, "--enable"]);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_by(command, home);
    let visitor = Visitor::new(&server, &key);
    let eu = format!("http://eu.wild.example.org:{port}");
    let fetched = visitor.call("probe_do", &json!({"what": "http", "url": format!("{eu}/")}));
    assert!(fetched.body.contains("fine"), "{}", fetched.body);
    let record = server.home.audited(|r| r["tool"] == "probe_do");
    assert!(record["sources"].to_string().contains(&format!("host:{eu}")), "{record}");
    for other in ["deep.eu.wild.example.org", "wild.example.org"] {
        let refused = visitor.call("probe_do", &json!({"what": "http", "url": format!("http://{other}:{port}/")}));
        assert!(refused.body.contains("Undeclared"), "{other}: {}", refused.body);
        let record = server.home.audited(|r| r["tool"] == "probe_do");
        assert!(record["note"].to_string().contains(&format!("refused probe host:http://{other}:{port} (")), "{record}");
    }
    // What the house asks under a charter of its own reaches the same places, and no others.
    let source = || {
        let mut doctor = with_names_of(&hosts).unwrap();
        let output = doctor.arg("--config").arg(&server.home.config).args(["doctor", "--json"]).output().unwrap();
        let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = lines.as_array().unwrap().iter().find(|line| line["kind"] == "source" && line["name"] == "probe");
        found.unwrap_or_else(|| panic!("{lines:#}")).clone()
    };
    assert_eq!(source()["state"], "on", "{}", source());
    assert!(declared.seen().iter().any(|head| head.starts_with("GET /health ")));
    let config = std::fs::read_to_string(&server.home.config).unwrap();
    std::fs::write(&server.home.config, config.replace("eu.wild.example.org", "deep.eu.wild.example.org")).unwrap();
    assert!(source()["state"] == "attention" && source()["detail"].to_string().contains("Undeclared"), "{}", source());
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
    let manifest = |home: &Home| {
        MANIFEST.replace("18080", &home.mcp.port().to_string()).replace("wall_ms: 2000", "wall_ms: 20000, concurrent: 3")
    };
    let Some(stranger) = Stranger::with("", manifest) else { return };
    stranger.install();
    let home = stranger.home;
    let mcp = home.mcp.to_string();
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
    let Some(Stranger { home, author, component, package: honest }) = Stranger::probe() else { return };
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
fn a_plugin_whose_description_hides_something_is_not_loaded_and_that_is_recorded() {
    let Some((server, visitor)) =
        house("plugins: {grants: [{name: probe, settings: {hiding: true}}]}\n", |_| MANIFEST.to_owned())
    else {
        return;
    };
    assert!(!tools(&visitor).contains(&"probe_do".to_owned()));
    let refused = visitor.call("probe_do", &json!({"what": "echo"}));
    assert!(refused.body.contains("unknown tool") || refused.body.contains("not_found"), "{}", refused.body);
    let says = "the input schema of tool 'probe_do' holds the hidden character U+200B";
    server.home.audited(|r| r["method"] == "plugin.refused" && r["decision"] == "deny" && r["note"].to_string().contains(says));
    let line = doctor(&server.home, "plugin probe");
    assert!(line["state"] == "broken" && line["detail"].to_string().contains(says), "{line}");
    let home = server.kill();
    let shown = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, shown.replace("hiding: true", "hiding: false")).unwrap();
    let server = Server::start_in(home);
    assert!(tools(&Visitor { mcp: server.mcp, ..visitor }).contains(&"probe_do".to_owned()), "by what it hides and nothing else");
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
