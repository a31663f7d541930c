//! Whom plugins are trusted from, over the real binary: a name stays with the key that had it, what cannot be recorded is not
//! installed, and whatever trust loses (a digest, a key's time, the whole file) stops a running plugin. Each refusal is in
//! the audit log.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::parcels::{Author, installed, recorded_refusal, text};
use crate::plugins::{MANIFEST, Stranger, doctor, eventually, tools};
use crate::server::{BINARY, Home, Server, intact, skipped};
use crate::visitor::Visitor;

/// A running house with the probe of an author in it.
struct Stage {
    server: Server,
    visitor: Visitor,
    author: Author,
    component: PathBuf,
    package: String,
}

impl Stage {
    fn set(config: &str) -> Option<Self> {
        let stranger = Stranger::with(config, |_| MANIFEST.to_owned())?;
        let (author, component, package) = (stranger.author.clone(), stranger.component.clone(), stranger.package.clone());
        let (server, visitor) = stranger.started();
        assert!(tools(&visitor).contains(&"probe_do".to_owned()));
        Some(Self { server, visitor, author, component, package })
    }

    fn home(&self) -> &Home {
        &self.server.home
    }

    fn offered(&self) -> bool {
        tools(&self.visitor).contains(&"probe_do".to_owned())
    }

    /// The plugin stops being offered, a call of its tool is refused, and the record of the server says why.
    fn stopped(&self, method: &str, why: &str) {
        eventually("the end of the tool", || !self.offered());
        let refused = self.visitor.call("probe_do", &json!({"what": "echo"}));
        assert!(refused.body.contains("unknown tool") || refused.body.contains("not_found"), "{}", refused.body);
        self.home().audited(|r| r["tool"] == "probe_do" && r["decision"] == "deny");
        self.home().audited(|r| r["method"] == method && r["decision"] == "deny" && r["note"].to_string().contains(why));
    }

    fn goes_on(&self) {
        // The list may still be the one from before: then a call of what was taken out of use says so.
        let answers = || {
            let echoed = self.visitor.call("probe_do", &json!({"what": "echo", "text": "still here"}));
            assert!(echoed.body.contains("still here") || echoed.body.contains("not in use any more"), "{}", echoed.body);
            echoed.body.contains("still here")
        };
        eventually("the return of the tool", || self.offered() && answers());
    }

    fn trust_root(&self) -> PathBuf {
        self.home().data().join("plugins/trust.json")
    }

    /// Changes the first key of the trust root, as an editor would.
    fn change_key(&self, change: impl FnOnce(&mut Value)) {
        let mut root: Value = serde_json::from_slice(&std::fs::read(self.trust_root()).unwrap()).unwrap();
        change(&mut root["keys"][0]);
        std::fs::write(self.trust_root(), root.to_string()).unwrap();
    }
}

fn released(author: &Author, home: &Home, component: &Path, version: &str) -> String {
    author.pack(home, component, &MANIFEST.replace("version: 1.0.0", &format!("version: {version}")))
}

#[test]
fn a_name_stays_with_the_key_that_had_it_until_the_operator_hands_it_over_and_that_is_recorded() {
    let Some(stage) = Stage::set("plugins: {grants: [{name: probe, settings: {site: eu}}]}\n") else { return };
    let home = stage.home();
    let other = Author::new(home, "other");
    let added = home.run_ok(&["plugin", "keys", "add", &other.public, "--owner", "Somebody else"]);
    assert!(added.contains("any name"), "{added}");
    let newer = released(&other, home, &stage.component, "9.0.0");
    let both = format!("signed by key {}, and what had this name before was signed by key {}", other.id, stage.author.id);
    for more in [&[][..], &["--insecure"], &["--allow-downgrade"]] {
        let install = [&["plugin", "install", &newer], more].concat();
        assert!(recorded_refusal(home, &install, "plugin.install", &both).contains("--allow-new-key"));
    }
    // Nor does taking it out first help, or leaving the signature away.
    let bare = other.folder.join("bare.plugin");
    std::fs::copy(&newer, &bare).unwrap();
    recorded_refusal(home, &["plugin", "install", &text(&bare), "--insecure"], "plugin.install", "is not installed: not signed");
    stage.goes_on();
    assert_eq!(installed(home), ["probe 1.0.0"]);
    home.run_ok(&["plugin", "remove", "probe"]);
    recorded_refusal(home, &["plugin", "install", &newer, "--enable"], "plugin.install", &both);

    home.run_ok(&["plugin", "install", &newer, "--enable", "--allow-new-key"]);
    let handed = format!("signed by key {}, before it was signed by key {}", other.id, stage.author.id);
    home.audited(|r| r["method"] == "plugin.install" && r["decision"] == "allow" && r["note"].to_string().contains(&handed));
    let loaded = |r: &Value| r["method"] == "plugin.loaded" && r["note"].to_string().contains("9.0.0");
    eventually("the newer one is loaded", || home.audit().iter().any(loaded));
    stage.goes_on();
    let back = released(&stage.author, home, &stage.component, "9.0.1");
    recorded_refusal(home, &["plugin", "install", &back], "plugin.install", "--allow-new-key");
    assert!(intact(home));
}

#[test]
fn an_older_version_let_in_once_opens_the_way_for_none_in_between() {
    let Some(stage) = Stage::set("") else { return };
    let home = stage.home();
    let [between, newest] = ["2.0.0", "3.0.0"].map(|version| released(&stage.author, home, &stage.component, version));
    home.run_ok(&["plugin", "install", &newest]);
    let why = "3.0.0 was installed before";
    recorded_refusal(
        home,
        &["plugin", "install", &stage.package],
        "plugin.install",
        &format!("probe 1.0.0 is not installed: {why}"),
    );
    home.run_ok(&["plugin", "install", &stage.package, "--allow-downgrade"]);
    let install = ["plugin", "install", &between];
    let refused = recorded_refusal(home, &install, "plugin.install", &format!("probe 2.0.0 is not installed: {why}"));
    assert!(refused.contains("--allow-downgrade"), "{refused}");
    assert_eq!(installed(home), ["probe 1.0.0"]);
    stage.goes_on();
    home.run_ok(&["plugin", "install", &between, "--allow-downgrade"]);
    home.run_ok(&["plugin", "install", &newest]);
    assert!(intact(home));
}

/// Runs the binary on a disk that has no room for more than one more record of the audit log.
fn on_a_full_disk(home: &Home, arguments: &[&str]) -> Option<Output> {
    let full = ["-f", "-q", "-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:error=ENOSPC:when=2+"];
    let mut tracer = Command::new("strace");
    tracer.args(full);
    for entry in std::fs::read_dir(home.data().join("audit")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "jsonl") {
            tracer.arg("-P").arg(path);
        }
    }
    tracer.arg("--").arg(BINARY).arg("--config").arg(&home.config).args(arguments);
    match tracer.stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(_) => {
            skipped("strace is not installed");
            None
        }
    }
}

#[test]
fn an_update_that_cannot_be_recorded_is_not_installed_and_the_version_before_goes_on() {
    let Some(stage) = Stage::set("") else { return };
    let home = stage.home();
    let next = released(&stage.author, home, &stage.component, "2.0.0");
    // Commands write into a chain of their own beside that of the server, which is there by now.
    home.run_ok(&["plugin", "enable", "probe"]);
    stage.goes_on();
    let unloaded = || home.audit().iter().filter(|r| r["method"] == "plugin.unloaded").count();
    let ended = unloaded();
    let Some(output) = on_a_full_disk(home, &["plugin", "install", &next]) else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("could not be recorded"), "{said}");
    assert_eq!(installed(home), ["probe 1.0.0"]);
    assert!(!home.audit().iter().any(|r| r["note"].to_string().contains("2.0.0")));
    // The server had every chance to look.
    home.run_ok(&["plugin", "keys", "add", &Author::new(home, "other").public, "--owner", "Other", "--plugin", "other"]);
    stage.goes_on();
    assert_eq!(unloaded(), ended, "nothing of it was ever taken away");
    home.run_ok(&["plugin", "install", &next]);
    home.audited(|r| r["method"] == "plugin.install" && r["decision"] == "allow" && r["note"].to_string().contains("2.0.0"));
    eventually("the new version", || {
        home.audit().iter().any(|r| r["method"] == "plugin.loaded" && r["note"].to_string().contains("2.0.0"))
    });
    assert!(intact(home));
}

#[test]
fn revoking_one_package_stops_it_in_a_running_server_and_leaves_its_author_in_trust() {
    let Some(stage) = Stage::set("") else { return };
    let home = stage.home();
    let listed: Value = serde_json::from_str(&home.run_ok(&["plugin", "list", "--json"])).unwrap();
    let digest = listed[0]["digest"].as_str().unwrap();
    home.run_ok(&["plugin", "keys", "revoke", digest, "--reason", "it leaks"]);
    home.audited(|r| r["method"] == "plugin.revoke" && r["decision"] == "allow" && r["tool"] == digest);
    stage.stopped("plugin.revoked", &format!("package {digest} was revoked: it leaks"));
    for more in [&[][..], &["--insecure", "--allow-downgrade"]] {
        let install = [&["plugin", "install", &stage.package], more].concat();
        recorded_refusal(home, &install, "plugin.install", "was revoked: it leaks");
    }
    home.run_ok(&["plugin", "install", &released(&stage.author, home, &stage.component, "1.0.1")]);
    stage.goes_on();
    assert!(intact(home));
}

#[test]
fn a_trust_root_that_is_lost_or_that_others_may_write_stops_a_running_plugin_until_it_is_back() {
    let Some(stage) = Stage::set("") else { return };
    let (home, root) = (stage.home(), stage.trust_root());
    let away = root.with_extension("away");
    std::fs::rename(&root, &away).unwrap();
    stage.stopped("plugin.refused", "there is no trust root");
    assert_eq!(doctor(home, "plugin signatures")["state"], "broken");
    recorded_refusal(home, &["plugin", "install", &stage.package], "plugin.install", "there is no trust root");
    std::fs::rename(&away, &root).unwrap();
    stage.goes_on();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o666)).unwrap();
    stage.stopped("plugin.refused", "others may change it");
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o600)).unwrap();
    stage.goes_on();
    std::fs::write(&root, "{").unwrap();
    stage.stopped("plugin.refused", "is not used, so no plugin is trusted");
    assert!(intact(home));
}

#[test]
fn a_key_vouches_in_its_time_only() {
    let Some(stage) = Stage::set("") else { return };
    let home = stage.home();
    let early = Author::new(home, "early");
    home.run_ok(&["plugin", "keys", "add", &early.public, "--owner", "Early", "--not-before", "2099-01-01T00:00:00Z"]);
    let package = early.pack(home, &stage.component, &MANIFEST.replace("name: probe\n", "name: early\n"));
    recorded_refusal(home, &["plugin", "install", &package], "plugin.install", "and its time is 2099-01-01T00:00:00Z to");
    // Over since: what it signed in its time goes on, and nothing is installed by it any more.
    let signed: Value = serde_json::from_slice(&std::fs::read(format!("{}.sig", stage.package)).unwrap()).unwrap();
    let at = signed["signed_at"].as_str().unwrap().to_owned();
    stage.change_key(|key| key["not_after"] = json!(at));
    eventually("the end of the key", || !home.run(&["plugin", "verify", &stage.package]).status.success());
    recorded_refusal(home, &["plugin", "install", &stage.package], "plugin.install", "a signature by a key that is in its time");
    stage.goes_on();
    // It never was in its time when it signed.
    stage.change_key(|key| {
        key["not_before"] = json!("2020-01-01T00:00:00Z");
        key["not_after"] = json!("2021-01-01T00:00:00Z");
    });
    stage.stopped("plugin.refused", "and its time is 2020-01-01T00:00:00Z to 2021-01-01T00:00:00Z");
    recorded_refusal(home, &["plugin", "install", &stage.package], "plugin.install", "its time is 2020-01-01T00:00:00Z to");
    assert!(intact(home));
}
