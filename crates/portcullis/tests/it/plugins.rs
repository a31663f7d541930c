//! Plugins over the real binary: a stranger's signed component answers beside the embedded store, what is not signed, altered
//! or revoked does not start, nothing a caller can reach installs or widens anything, and all of it is in the audit log.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{BINARY, Home, Server, intact};
use crate::visitor::{Backend, Visitor};

pub(crate) const MANIFEST: &str = include_str!("../../../plugins/tests/probe/plugin.yaml");

/// The component of the tests' plugin. `None` on a machine that has no compiler for it.
pub(crate) fn component() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("plugins/probe.wasm");
    if path.exists() {
        return Some(path);
    }
    assert!(!Path::new("/usr/bin/wasm-ld-19").exists(), "{} is missing; build it with: cargo xtask plugins", path.display());
    crate::server::skipped(&format!("no {}, and no compiler to build it with (see .ci/install)", path.display()));
    None
}

/// An author with a key, who packs the probe under a manifest and signs it.
pub(crate) struct Author {
    pub folder: PathBuf,
    pub key: PathBuf,
    pub public: String,
    pub id: String,
}

impl Author {
    pub(crate) fn new(home: &Home, name: &str) -> Self {
        let folder = home.directory.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let key = folder.join("signing.pem");
        let made = home.run_ok(&["plugin", "keys", "new", &text(&key), "--json"]);
        let made: Value = serde_json::from_str(&made).unwrap();
        let field = |name: &str| made[name].as_str().unwrap().to_owned();
        Self { folder, key, public: field("public_key"), id: field("key") }
    }

    /// Packs and signs; gives the package.
    pub(crate) fn release(&self, home: &Home, component: &Path, manifest: &str) -> String {
        std::fs::write(self.folder.join("plugin.yaml"), manifest).unwrap();
        std::fs::write(self.folder.join("README.md"), "# Probe\n").unwrap();
        let packed = home.run_ok(&["plugin", "pack", &text(&self.folder), "--component", &text(component), "--json"]);
        let packed: Value = serde_json::from_str(&packed).unwrap();
        let package = packed["package"].as_str().unwrap().to_owned();
        home.run_ok(&["plugin", "sign", &package, "--key", &text(&self.key)]);
        package
    }

    pub(crate) fn trusted(&self, home: &Home) {
        home.run_ok(&["plugin", "keys", "add", &self.public, "--owner", "A stranger", "--plugin", "probe"]);
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn refusal(home: &Home, arguments: &[&str]) -> String {
    let output = home.run(arguments);
    assert!(!output.status.success(), "{arguments:?} went well: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn doctor(home: &Home, name: &str) -> Value {
    let lines: Value = serde_json::from_slice(&home.run(&["doctor", "--json"]).stdout).unwrap();
    lines.as_array().unwrap().iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{lines:#}")).clone()
}

/// Waits until `fits`, for as long as a server may take to notice a change.
pub(crate) fn eventually(what: &str, fits: impl Fn() -> bool) {
    let began = Instant::now();
    while !fits() {
        assert!(began.elapsed() < Duration::from_mins(1), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn tools(visitor: &Visitor) -> Vec<String> {
    let listed = visitor.ask("tools/list", &json!({})).json();
    let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_strangers_signed_plugin_answers_beside_the_embedded_store_and_is_recorded() {
    let Some(component) = component() else { return };
    let home = Home::new("");
    let author = Author::new(&home, "stranger");
    let package = author.release(&home, &component, MANIFEST);
    author.trusted(&home);
    assert!(home.run_ok(&["plugin", "verify", &package]).contains("A stranger"));
    let installed: Value = serde_json::from_str(&home.run_ok(&["plugin", "install", &package, "--json"])).unwrap();
    let digest = installed["digest"].as_str().unwrap().to_owned();
    assert_eq!(installed["enabled"], false);
    home.run_ok(&["plugin", "enable", "probe"]);
    assert!(home.run_ok(&["plugin", "info", "probe"]).contains("not granted"));

    let all = home.key(&["--role", "reader"]);
    let narrow = home.key(&["--role", "reader", "--service", "cart"]);
    let server = Server::start_in(home);
    server.send_log("cart", 17, "payment refused by the embedded store");
    eventually("the record", || {
        server.call(Some(&all), "query_logs", &json!({"window": "1h"})).body.contains("by the embedded store")
    });
    let both = server.call(Some(&all), "query_logs", &json!({"window": "1h"}));
    assert!(both.body.contains("payment refused by the probe"), "{}", both.body);
    assert!(both.body.contains("by the embedded store") && both.body.contains("foreign service"), "{}", both.body);
    assert!(!both.body.contains("from before the window"), "{}", both.body);
    // The plugin gives everybody everything; a caller sees only what its key may.
    let mine = server.call(Some(&narrow), "query_logs", &json!({"window": "1h"}));
    assert!(mine.body.contains("by the probe") && !mine.body.contains("foreign service"), "{}", mine.body);

    let visitor = Visitor::new(&server, &all);
    let echoed = visitor.call("probe_do", &json!({"what": "echo", "text": "mail bob@example.com"}));
    assert!(
        echoed.body.contains("[email:") && !echoed.body.contains("bob@"),
        "what a plugin says is redacted like everything else: {}",
        echoed.body
    );
    let failed = visitor.call("probe_do", &json!({"what": "panic"}));
    assert!(failed.body.contains("crashed"), "{}", failed.body);
    let record = server.home.audited(|r| r["tool"] == "probe_do" && r["code"] == "backend_failed");
    let sources = record["sources"].to_string();
    assert!(sources.contains(&format!("plugin:probe@{digest}")), "{record}");
    assert!(record["note"].to_string().contains("tool probe_do: crashed"), "{record}");
    let record = server.home.audited(|r| r["tool"] == "query_logs" && r["sources"].to_string().contains("plugin:probe@"));
    assert!(record["note"].to_string().contains("question logs: ok"), "{record}");
    // A writing tool is not there until its category is enabled.
    let change = visitor.call("probe_change", &json!({}));
    assert!(change.body.contains("unknown tool") || change.body.contains("not_found"), "{}", change.body);
    for what in ["plugin.install", "plugin.enable", "plugin.trust", "plugin.loaded"] {
        server.home.audited(|r| r["method"] == what && r["decision"] == "allow");
    }
    assert!(intact(&server.home));
}

#[test]
fn what_is_unsigned_altered_or_by_a_stranger_is_not_installed_and_that_is_recorded() {
    let Some(component) = component() else { return };
    let home = Home::new("");
    let author = Author::new(&home, "stranger");
    let package = author.release(&home, &component, MANIFEST);
    // No trust root at all.
    assert!(refusal(&home, &["plugin", "install", &package]).contains("there is no trust root"));
    let other = Author::new(&home, "other");
    other.trusted(&home);
    assert!(refusal(&home, &["plugin", "install", &package]).contains(&format!("key {} is not in the trust root", author.id)));
    author.trusted(&home);
    // Every byte counts.
    let mut bytes = std::fs::read(&package).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let altered = author.folder.join("altered.plugin");
    std::fs::write(&altered, &bytes).unwrap();
    std::fs::copy(format!("{package}.sig"), author.folder.join("altered.plugin.sig")).unwrap();
    refusal(&home, &["plugin", "install", &text(&altered)]);
    let unsigned = author.folder.join("unsigned.plugin");
    std::fs::copy(&package, &unsigned).unwrap();
    assert!(refusal(&home, &["plugin", "install", &text(&unsigned)]).contains("not signed"));
    // The signature of another package.
    let later = author.release(&home, &component, &MANIFEST.replace("version: 1.0.0", "version: 1.0.1"));
    let mixed = refusal(&home, &["plugin", "install", &package, "--signature", &format!("{later}.sig")]);
    assert!(mixed.contains("signature is over probe 1.0.1"), "{mixed}");
    let listed: Value = serde_json::from_str(&home.run_ok(&["plugin", "list", "--json"])).unwrap();
    assert_eq!(listed, json!([]));
    let refused = home.audit().iter().filter(|r| r["method"] == "plugin.install" && r["decision"] == "deny").count();
    assert_eq!(refused, 5);

    home.run_ok(&["plugin", "install", &later, "--enable"]);
    assert!(refusal(&home, &["plugin", "install", &package]).contains("--allow-downgrade"));
    home.run_ok(&["plugin", "install", &package, "--allow-downgrade"]);
    // Changed on disk after it was verified.
    let listed: Value = serde_json::from_str(&home.run_ok(&["plugin", "list", "--json"])).unwrap();
    let hex = listed[0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    std::fs::copy(&later, home.data().join(format!("plugins/packages/{hex}.plugin"))).unwrap();
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    assert!(!tools(&Visitor::new(&server, &key)).contains(&"probe_do".to_owned()));
    server.home.audited(|r| r["method"] == "plugin.refused" && r["decision"] == "deny");
    let line = doctor(&server.home, "plugin probe");
    assert!(line["state"] == "broken" && line["detail"].to_string().contains("somebody changed it"), "{line}");
}

#[test]
fn revoking_a_key_stops_a_running_plugin_and_it_does_not_start_again() {
    let Some(component) = component() else { return };
    let home = Home::new("");
    let author = Author::new(&home, "stranger");
    let package = author.release(&home, &component, MANIFEST);
    author.trusted(&home);
    home.run_ok(&["plugin", "install", &package, "--enable"]);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    assert!(tools(&visitor).contains(&"probe_do".to_owned()));
    server.home.run_ok(&["plugin", "keys", "revoke", &author.id, "--reason", "the laptop was stolen"]);
    eventually("the end of the tool", || !tools(&visitor).contains(&"probe_do".to_owned()));
    server.home.audited(|r| r["method"] == "plugin.revoked" && r["note"].to_string().contains("the laptop was stolen"));
    server.home.audited(|r| r["method"] == "plugin.revoke" && r["decision"] == "allow");
    assert!(refusal(&server.home, &["plugin", "keys", "add", &author.public, "--owner", "Again"]).contains("was revoked"));
    let home = server.kill();
    let server = Server::start_in(home);
    assert!(!tools(&Visitor::new(&server, &key)).contains(&"probe_do".to_owned()));
    assert!(refusal(&server.home, &["plugin", "install", &package, "--insecure"]).contains("the laptop was stolen"));
}

#[test]
fn a_plugin_nobody_signed_needs_two_words_of_the_operator_and_is_loud() {
    let Some(component) = component() else { return };
    let home = Home::new("");
    let author = Author::new(&home, "stranger");
    let package = author.release(&home, &component, MANIFEST);
    let output = home.run(&["plugin", "install", &package, "--insecure", "--enable"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("NOT SIGNED"));
    home.audited(|r| r["method"] == "plugin.install-insecure");
    let line = doctor(&home, "plugin probe");
    assert!(line["state"] == "broken" && line["detail"].to_string().contains("allow_unsigned"), "{line}");
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, text + "plugins: {allow_unsigned: true}\n").unwrap();
    let line = doctor(&home, "plugin probe");
    assert!(line["state"] == "attention" && line["detail"].to_string().contains("NOT SIGNED"), "{line}");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    assert!(tools(&Visitor::new(&server, &key)).contains(&"probe_do".to_owned()));
    server.home.audited(|r| r["method"] == "plugin.unsigned" && r["note"].to_string().contains("NOT SIGNED"));
}

#[test]
fn a_plugin_reaches_what_the_operator_grants_with_a_secret_it_never_sees() {
    let Some(component) = component() else { return };
    let backend = Backend::start(|_, _| (200, r#"{"fine": true}"#.to_owned()));
    let port = backend.url.rsplit(':').next().unwrap().to_owned();
    let home = Home::new(&format!(
        "plugins:\n  grants:\n    - name: probe\n      http: ['{url}', 'http://MCP_ADDRESS']\n      allow_addresses: [loopback]\n      secrets: {{token: {{value: hunter2-in-clear}}}}\n",
        url = backend.url
    ));
    let author = Author::new(&home, "stranger");
    let manifest =
        MANIFEST.replace("18080", &port).replace("http://localhost:", &format!("http://{}', 'http://localhost:", home.mcp));
    let package = author.release(&home, &component, &manifest);
    author.trusted(&home);
    home.run_ok(&["plugin", "install", &package, "--enable"]);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    let fetched =
        visitor.call("probe_do", &json!({"what": "http", "url": format!("{}/x", backend.url), "credentials": ["token"]}));
    assert!(fetched.body.contains("fine"), "{}", fetched.body);
    assert!(backend.seen()[0].contains("Bearer hunter2-in-clear"));
    let record = server.home.audited(|r| r["tool"] == "probe_do" && r["sources"].to_string().contains("host:"));
    assert!(record["sources"].to_string().contains(&format!("host:{}", backend.url)), "{record}");
    let refused = visitor.call("probe_do", &json!({"what": "http", "url": "https://api.example.com/"}));
    assert!(refused.body.contains("Refused"), "{}", refused.body);
    // Into its own house it comes as anybody else: with no credential, through the door, and not further.
    let home_again = visitor
        .call("probe_do", &json!({"what": "http", "method": "POST", "url": format!("http://{}/mcp", server.mcp), "text": "{}"}));
    assert!(home_again.body.contains("401"), "{}", home_again.body);
    let audit = server.home.run_ok(&["audit", "tail", "-n", "1000", "--json"]);
    assert!(!audit.contains("hunter2") && !server.log().contains("hunter2"));
}

#[test]
fn a_plugin_that_keeps_crashing_is_put_into_quarantine_until_an_operator_opens_it() {
    let Some(component) = component() else { return };
    let home = Home::new("");
    let author = Author::new(&home, "stranger");
    let package = author.release(&home, &component, MANIFEST);
    author.trusted(&home);
    home.run_ok(&["plugin", "install", &package, "--enable"]);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    for _ in 0..5 {
        assert!(visitor.call("probe_do", &json!({"what": "panic"})).body.contains("crashed"));
    }
    eventually("the quarantine", || !tools(&visitor).contains(&"probe_do".to_owned()));
    server.home.audited(|r| r["method"] == "plugin.quarantined" && r["decision"] == "deny");
    assert_eq!(doctor(&server.home, "plugin probe")["state"], "attention");
    assert!(server.home.run_ok(&["plugin", "list"]).contains("quarantine"));
    server.home.run_ok(&["plugin", "enable", "probe"]);
    eventually("the return", || tools(&visitor).contains(&"probe_do".to_owned()));
    server.home.audited(|r| r["method"] == "plugin.enable" && r["decision"] == "allow");
}

#[test]
fn no_tool_installs_enables_or_widens_anything() {
    let home = Home::new("");
    let key = home.key(&["--role", "admin"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    let listed = tools(&visitor);
    assert!(!listed.is_empty());
    for name in &listed {
        let reaches = ["plugin", "install", "enable", "grant", "trust", "key", "config"].iter().any(|word| name.contains(word));
        assert!(!reaches, "'{name}' sounds as if an agent could change what runs here");
    }
    for tool in ["plugin_install", "plugin_enable", "install_plugin", "plugin"] {
        let reply = visitor.call(tool, &json!({"name": "probe"}));
        assert!(reply.body.contains("unknown tool") || reply.body.contains("not_found"), "{tool}: {}", reply.body);
        server.home.audited(|r| r["tool"] == tool && r["decision"] == "deny");
    }
    assert!(!server.home.data().join("plugins/installed.json").exists());
}

#[test]
fn a_new_plugin_builds_packs_and_runs() {
    let Some(_) = component() else { return };
    let home = Home::new("");
    let folder = home.directory.path().join("greeter");
    home.run_ok(&["plugin", "new", "greeter", "--directory", &text(&folder)]);
    assert!(refusal(&home, &["plugin", "new", "greeter", "--directory", &text(&folder)]).contains("is there already"));
    // The standard library is compiled already, for the plugins of this repository.
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("plugins/build");
    let mut build = Command::new(BINARY);
    build.arg("--config").arg(&home.config).args(["plugin", "build"]).arg(&folder).env("CARGO_TARGET_DIR", built);
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packed: Value = serde_json::from_str(&home.run_ok(&["plugin", "pack", &text(&folder), "--json"])).unwrap();
    assert_eq!(packed["tools"], json!(["greeter_greet"]));
    let package = packed["package"].as_str().unwrap();
    let key = folder.join("signing.pem");
    let made: Value = serde_json::from_str(&home.run_ok(&["plugin", "keys", "new", &text(&key), "--json"])).unwrap();
    home.run_ok(&["plugin", "sign", package, "--key", &text(&key)]);
    home.run_ok(&["plugin", "keys", "add", made["public_key"].as_str().unwrap(), "--owner", "Me"]);
    home.run_ok(&["plugin", "install", package, "--enable"]);
    let said = home.run_ok(&["call", "greeter_greet", "name=World", "--json"]);
    assert!(said.contains("Hello, World!"), "{said}");
}
