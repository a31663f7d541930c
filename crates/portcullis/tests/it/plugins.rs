//! Plugins over the real binary: a stranger's signed component answers beside the embedded store, what is not signed, altered
//! or revoked does not start, nothing a caller can reach installs or widens anything, and all of it is in the audit log.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::parcels::{Author, refusal, text};
use crate::server::{Home, Server, intact};
use crate::visitor::{Backend, Visitor};

pub(crate) const MANIFEST: &str = include_str!("../../../plugins/tests/probe/plugin.yaml");

/// The component of a plugin of the tests. `None` on a machine that has no compiler for it.
pub(crate) fn component_of(plugin: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join(format!("plugins/{plugin}.wasm"));
    if path.exists() {
        return Some(path);
    }
    assert!(!Path::new("/usr/bin/wasm-ld-19").exists(), "{} is missing; build it with: cargo xtask plugins", path.display());
    crate::server::skipped(&format!("no {}, and no compiler to build it with (see .ci/install)", path.display()));
    None
}

/// A house, and a stranger whose package of a plugin is trusted there, and not installed yet.
pub(crate) struct Stranger {
    pub home: Home,
    pub author: Author,
    pub component: PathBuf,
    pub package: String,
}

impl Stranger {
    /// With the probe under its own manifest.
    pub(crate) fn probe() -> Option<Self> {
        Self::with("", |_| MANIFEST.to_owned())
    }

    /// With the probe under this manifest, in a house with this configuration. `None` where it could not be built.
    pub(crate) fn with(config: &str, manifest: impl FnOnce(&Home) -> String) -> Option<Self> {
        Self::of("probe", config, manifest)
    }

    /// With another plugin of the tests.
    pub(crate) fn of(plugin: &str, config: &str, manifest: impl FnOnce(&Home) -> String) -> Option<Self> {
        let stranger = Self::unknown(plugin, config, manifest)?;
        stranger.author.trusted(&stranger.home, &["--plugin", plugin]);
        Some(stranger)
    }

    /// With the probe, and nobody trusts it.
    pub(crate) fn untrusted() -> Option<Self> {
        Self::unknown("probe", "", |_| MANIFEST.to_owned())
    }

    fn unknown(plugin: &str, config: &str, manifest: impl FnOnce(&Home) -> String) -> Option<Self> {
        let component = component_of(plugin)?;
        let home = Home::new(config);
        let author = Author::new(&home, "stranger");
        let package = author.pack(&home, &component, &manifest(&home));
        Some(Self { home, author, component, package })
    }

    pub(crate) fn install(&self) {
        self.home.run_ok(&["plugin", "install", &self.package, "--enable"]);
    }

    /// Installs it, and starts the house for somebody who reads.
    pub(crate) fn started(self) -> (Server, Visitor) {
        self.install();
        let key = self.home.key(&["--role", "reader"]);
        let server = Server::start_in(self.home);
        let visitor = Visitor::new(&server, &key);
        (server, visitor)
    }
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
    let Some(Stranger { home, package, .. }) = Stranger::probe() else { return };
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
    let Some(component) = component_of("probe") else { return };
    let home = Home::new("");
    let author = Author::new(&home, "stranger");
    let package = author.pack(&home, &component, MANIFEST);
    // No trust root at all.
    assert!(refusal(&home, &["plugin", "install", &package]).contains("there is no trust root"));
    let other = Author::new(&home, "other");
    other.trusted(&home, &["--plugin", "probe"]);
    assert!(refusal(&home, &["plugin", "install", &package]).contains(&format!("key {} is not in the trust root", author.id)));
    author.trusted(&home, &["--plugin", "probe"]);
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
    let later = author.pack(&home, &component, &MANIFEST.replace("version: 1.0.0", "version: 1.0.1"));
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
    let Some(stranger) = Stranger::probe() else { return };
    let (author, package) = (stranger.author.clone(), stranger.package.clone());
    let (server, visitor) = stranger.started();
    assert!(tools(&visitor).contains(&"probe_do".to_owned()));
    server.home.run_ok(&["plugin", "keys", "revoke", &author.id, "--reason", "the laptop was stolen"]);
    eventually("the end of the tool", || !tools(&visitor).contains(&"probe_do".to_owned()));
    server.home.audited(|r| r["method"] == "plugin.revoked" && r["note"].to_string().contains("the laptop was stolen"));
    server.home.audited(|r| r["method"] == "plugin.revoke" && r["decision"] == "allow");
    assert!(refusal(&server.home, &["plugin", "keys", "add", &author.public, "--owner", "Again"]).contains("was revoked"));
    let server = Server::start_in(server.kill());
    assert!(!tools(&Visitor { mcp: server.mcp, ..visitor }).contains(&"probe_do".to_owned()));
    assert!(refusal(&server.home, &["plugin", "install", &package, "--insecure"]).contains("the laptop was stolen"));
}

#[test]
fn a_key_is_revoked_in_a_running_server_also_when_its_list_of_plugins_cannot_be_read() {
    let Some(stranger) = Stranger::probe() else { return };
    let author = stranger.author.clone();
    let (server, visitor) = stranger.started();
    let list = server.home.data().join("plugins/installed.json");
    let good = std::fs::read(&list).unwrap();
    let listed = || tools(&visitor).contains(&"probe_do".to_owned());
    let recorded =
        || server.home.audit().iter().filter(|r| r["method"] == "plugin.unreadable" && r["decision"] == "deny").count();
    let damage = || std::fs::write(&list, &good[..good.len() / 2]).unwrap();
    eventually("the tool", listed);
    damage();
    eventually("the record of the trouble", || recorded() == 1);
    assert!(listed(), "what was installed goes on");
    // Mended, the list is followed again.
    std::fs::write(&list, &good).unwrap();
    server.home.run_ok(&["plugin", "disable", "probe"]);
    eventually("the end of what was disabled", || !listed());
    server.home.run_ok(&["plugin", "enable", "probe"]);
    eventually("the return", listed);
    damage();
    eventually("the record of the next trouble", || recorded() == 2);
    server.home.run_ok(&["plugin", "keys", "revoke", &author.id, "--reason", "the laptop was stolen"]);
    eventually("the end of the tool", || !listed());
    server.home.audited(|r| r["method"] == "plugin.revoked" && r["note"].to_string().contains("the laptop was stolen"));
    let refused = visitor.call("probe_do", &json!({"what": "echo"}));
    assert!(refused.body.contains("unknown tool") || refused.body.contains("not_found"), "{}", refused.body);
    server.home.audited(|r| r["tool"] == "probe_do" && r["decision"] == "deny");
}

#[test]
fn a_plugin_nobody_signed_needs_two_words_of_the_operator_and_is_loud() {
    let Some(Stranger { home, package, .. }) = Stranger::untrusted() else { return };
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
    let backend = Backend::start(|_, _| (200, r#"{"fine": true}"#.to_owned()));
    let port = backend.url.rsplit(':').next().unwrap().to_owned();
    let config = format!(
        "plugins:\n  grants:\n    - name: probe\n      http: ['{url}', 'http://MCP_ADDRESS']\n      allow_addresses: [loopback]\n      secrets: {{token: {{value: hunter2-in-clear}}}}\n",
        url = backend.url
    );
    let manifest = |home: &Home| {
        MANIFEST.replace("18080", &port).replace("http://localhost:", &format!("http://{}', 'http://localhost:", home.mcp))
    };
    let Some(stranger) = Stranger::with(&config, manifest) else { return };
    let (server, visitor) = stranger.started();
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
    let Some(stranger) = Stranger::probe() else { return };
    let (server, visitor) = stranger.started();
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
