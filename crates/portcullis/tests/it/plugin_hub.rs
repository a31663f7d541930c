//! Hubs, over the real binary: made from a folder, installed from by name, and refused when the list is old, held back,
//! foreign or wrong. A list never stands in for the signature of a package.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::parcels::{Author, Page, Web, installed, json_of, recorded_refusal, refusal, text};
use crate::server::{Home, intact};
use crate::wire::{authority, private};

/// Whoever runs a hub, with a key of its own.
struct Publisher {
    author: Author,
    hub: String,
}

impl Publisher {
    fn new(home: &Home, hub: &str) -> Self {
        let author = Author::new(home, hub);
        std::fs::create_dir(author.folder.join("entries")).unwrap();
        std::fs::write(author.folder.join("hub.yaml"), format!("hub: {hub}\ndescription: Of {hub}\n")).unwrap();
        Self { author, hub: hub.to_owned() }
    }

    fn entry(&self, name: &str, versions: &Value) {
        let entry = json!({"name": name, "versions": versions});
        std::fs::write(self.author.folder.join(format!("entries/{name}.yaml")), entry.to_string()).unwrap();
    }

    fn build(&self, home: &Home, more: &[&str]) -> Value {
        let (folder, key) = (text(&self.author.folder), text(&self.author.key));
        json_of(home, &[&["plugin", "hub", "build", &folder, "--key", &key, "--json"], more].concat())
    }

    fn trusted(&self, home: &Home) {
        self.author.trusted(home, &["--role", "hub", "--hub", &self.hub]);
    }

    fn public(&self) -> PathBuf {
        self.author.folder.join("public")
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in ["index.json", "index.json.sig"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// A hub with three versions of `sample`, one of them withdrawn, known to an operator who trusts the author too.
fn scene() -> (Home, Author, Publisher) {
    let home = Home::new("");
    let author = Author::new(&home, "stranger");
    let publisher = Publisher::new(&home, "acme");
    let versions: Vec<Value> = ["1.0.0", "1.1.0", "1.2.0"]
        .map(|version| {
            let (package, _) = author.release(&home, "sample", version);
            let mut entry = json!({"version": version, "package": package});
            if version == "1.2.0" {
                entry["yanked"] = json!("it leaks");
            }
            entry
        })
        .into();
    publisher.entry("sample", &Value::from(versions));
    publisher.build(&home, &[]);
    publisher.trusted(&home);
    home.run_ok(&["plugin", "hub", "add", &text(&publisher.public())]);
    (home, author, publisher)
}

#[test]
fn a_plugin_is_found_in_a_hub_on_disk_and_installed_by_name() {
    let (home, author, _) = scene();
    let record = home.audited(|r| r["method"] == "plugin.hub-add" && r["decision"] == "allow");
    assert!(record["tool"] == "acme" && record["note"].to_string().contains("index 1 sha256:"), "{record}");
    assert!(home.run_ok(&["plugin", "hub", "list"]).contains("acme"));
    let found = json_of(&home, &["plugin", "hub", "search", "SAMPLE_do", "--json"]);
    assert_eq!((&found[0]["hub"], &found[0]["name"]), (&json!("acme"), &json!("sample")));
    assert_eq!(found[0]["versions"].as_array().unwrap().len(), 3);
    assert!(home.run_ok(&["plugin", "hub", "search"]).contains("1.1.0"));
    assert!(home.run_ok(&["plugin", "hub", "search", "nonsense"]).contains("No plugin fits in acme"));
    // The list says it is there; who made it is another question.
    let unknown = format!("key {} is not in the trust root", author.id);
    recorded_refusal(&home, &["plugin", "install", "sample"], "plugin.install", &unknown);
    author.trusted(&home, &[]);
    assert!(home.run_ok(&["plugin", "info", "acme/sample@1.0.0"]).contains("1.0.0"));
    assert!(home.run_ok(&["plugin", "verify", "sample"]).contains("A stranger"));
    let got = json_of(&home, &["plugin", "install", "sample", "--json"]);
    assert_eq!((&got["version"], &got["key"]), (&json!("1.1.0"), &json!(author.id)));
    let record = home.audited(|r| r["method"] == "plugin.install" && r["decision"] == "allow");
    assert!(record["note"].to_string().contains("from hub acme index 1 sha256:"), "{record}");
    recorded_refusal(&home, &["plugin", "install", "acme/sample@1.0.0"], "plugin.install", "--allow-downgrade");
    recorded_refusal(&home, &["plugin", "install", "sample@1.2.0"], "plugin.install", "was withdrawn: it leaks");
    recorded_refusal(&home, &["plugin", "install", "sample@9.0.0"], "plugin.install", "there are 1.2.0, 1.1.0, 1.0.0");
    recorded_refusal(&home, &["plugin", "install", "other"], "plugin.install", "there is no plugin 'other' in acme");
    recorded_refusal(&home, &["plugin", "install", "nobody/sample"], "plugin.install", "there is no hub 'nobody'");
    let digest = format!("sha256:{}", "0".repeat(64));
    recorded_refusal(&home, &["plugin", "install", "sample", "--digest", &digest], "plugin.install", "--digest");
    home.run_ok(&["plugin", "install", "sample@1.2.0", "--allow-yanked"]);
    home.audited(|r| r["method"] == "plugin.install" && r["note"].to_string().contains("withdrawn: it leaks"));
    assert_eq!(installed(&home), ["sample 1.2.0"]);
    home.run_ok(&["plugin", "hub", "remove", "acme"]);
    home.audited(|r| r["method"] == "plugin.hub-remove" && r["tool"] == "acme");
    assert!(refusal(&home, &["plugin", "install", "sample"]).contains("no hub is known"));
    assert!(intact(&home));
}

#[test]
fn an_old_a_held_back_and_a_second_index_are_refused() {
    let (home, author, publisher) = scene();
    author.trusted(&home, &[]);
    let public = publisher.public();
    let kept = home.directory.path().join("kept");
    copy(&public, &kept);
    publisher.build(&home, &[]);
    home.run_ok(&["plugin", "hub", "search"]);
    let newer = home.directory.path().join("newer");
    copy(&public, &newer);
    copy(&kept, &public);
    let words = "its number is 1, and 2 was seen";
    recorded_refusal(&home, &["plugin", "install", "sample"], "plugin.install", words);
    recorded_refusal(&home, &["plugin", "hub", "search"], "plugin.hub", words);
    home.run_ok(&["plugin", "hub", "remove", "acme"]);
    let place = text(&public);
    recorded_refusal(&home, &["plugin", "hub", "add", &place], "plugin.hub-add", words);
    copy(&newer, &public);
    home.run_ok(&["plugin", "hub", "add", &place]);
    // An index that ended: nobody can hold back what was withdrawn since for longer than that.
    publisher.build(&home, &["--valid-for", "1s"]);
    let began = Instant::now();
    while home.run(&["plugin", "hub", "search"]).status.success() {
        assert!(began.elapsed() < Duration::from_secs(30), "the index does not end");
    }
    recorded_refusal(&home, &["plugin", "install", "sample"], "plugin.install", "ended at");
    home.audited(|r| r["method"] == "plugin.hub" && r["decision"] == "deny" && r["note"].to_string().contains("ended at"));
    assert!(installed(&home).is_empty());
    let lines: Value = serde_json::from_slice(&home.run(&["doctor", "--json"]).stdout).unwrap();
    let line = lines.as_array().unwrap().iter().find(|line| line["name"] == "plugin hub acme").unwrap();
    assert!(line["state"] == "attention" && line["detail"].to_string().contains("ended at"), "{line}");
}

#[test]
fn a_list_by_a_key_without_that_role_an_altered_list_and_a_wrong_list_are_refused() {
    let (home, author, publisher) = scene();
    author.trusted(&home, &[]);
    // The author's key vouches for packages and for no list.
    let mine = Publisher::new(&home, "mine");
    let (package, _) = author.release(&home, "other", "1.0.0");
    mine.entry("other", &json!([{"version": "1.0.0", "package": package}]));
    let (folder, place) = (text(&mine.author.folder), text(&mine.public()));
    home.run_ok(&["plugin", "hub", "build", &folder, "--key", &text(&author.key)]);
    recorded_refusal(&home, &["plugin", "hub", "add", &place], "plugin.hub-add", "no indexes of hubs");
    // The key of another hub.
    home.run_ok(&["plugin", "hub", "build", &folder, "--key", &text(&publisher.author.key)]);
    recorded_refusal(&home, &["plugin", "hub", "add", &place], "plugin.hub-add", "for the hubs acme only");
    recorded_refusal(&home, &["plugin", "hub", "add", &text(home.directory.path())], "plugin.hub-add", "has no index.json");
    // A hub's key vouches for no package.
    let (package, _) = publisher.author.release(&home, "sample", "1.3.0");
    recorded_refusal(&home, &["plugin", "install", &text(&package)], "plugin.install", "and no packages");

    let index = publisher.public().join("index.json");
    let good = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, good.replace("it leaks", "it shines")).unwrap();
    recorded_refusal(&home, &["plugin", "install", "sample"], "plugin.install", "do not belong together");
    std::fs::write(&index, &good).unwrap();
    // The package beside a right list is another one.
    let copied = publisher.public().join("packages/sample-1.1.0.plugin");
    let bytes = std::fs::read(&copied).unwrap();
    std::fs::copy(publisher.public().join("packages/sample-1.0.0.plugin"), &copied).unwrap();
    recorded_refusal(&home, &["plugin", "install", "sample"], "plugin.install", "is not what was named");
    std::fs::write(&copied, bytes).unwrap();
    // Its signature is gone.
    std::fs::remove_file(publisher.public().join("packages/sample-1.1.0.plugin.sig")).unwrap();
    recorded_refusal(&home, &["plugin", "install", "sample"], "plugin.install", "not signed");
    assert!(installed(&home).is_empty());
}

#[test]
fn one_name_in_two_hubs_has_to_be_said_in_full() {
    let (home, author, _) = scene();
    author.trusted(&home, &[]);
    let eve = Publisher::new(&home, "eve");
    let (package, _) = eve.author.release(&home, "sample", "9.0.0");
    eve.entry("sample", &json!([{"version": "9.0.0", "package": package}]));
    eve.build(&home, &[]);
    eve.trusted(&home);
    home.run_ok(&["plugin", "hub", "add", &text(&eve.public())]);
    recorded_refusal(&home, &["plugin", "install", "sample"], "plugin.install", "acme/sample, eve/sample");
    home.run_ok(&["plugin", "install", "acme/sample"]);
    assert_eq!(installed(&home), ["sample 1.1.0"]);
}

/// The sources in `hub/`, with packages of the names and versions they list.
#[test]
fn the_hub_of_this_repository_lists_its_plugins() {
    let home = Home::new("");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let author = Author::new(&home, "author");
    let publisher = Publisher::new(&home, "portcullis");
    std::fs::copy(root.join("hub/hub.yaml"), publisher.author.folder.join("hub.yaml")).unwrap();
    let (mut names, shelf) = (Vec::new(), root.join("plugins"));
    for entry in std::fs::read_dir(root.join("hub/entries")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut text = std::fs::read_to_string(&path).unwrap();
        for version in text.clone().lines().filter_map(|line| line.trim().strip_prefix("- version: ")) {
            let (package, _) = author.release(&home, &name, version);
            let listed = format!("../target/plugins/{name}-{version}.plugin");
            assert!(text.contains(&listed), "{name} {version} is packed as {listed}");
            text = text.replace(&listed, &crate::parcels::text(&package));
            let own = root.join(format!("plugins/{name}/plugin.yaml"));
            if shelf.is_dir() {
                let manifest = std::fs::read_to_string(&own).unwrap_or_else(|error| panic!("{}: {error}", own.display()));
                assert!(manifest.contains(&format!("name: {name}\nversion: {version}\n")), "{name} {version}: {manifest}");
            }
        }
        std::fs::write(publisher.author.folder.join(format!("entries/{name}.yaml")), text).unwrap();
        names.push(name);
    }
    for folder in std::fs::read_dir(&shelf).into_iter().flatten() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        let is_plugin = root.join(format!("plugins/{name}/plugin.yaml")).is_file();
        assert!(!is_plugin || names.contains(&name), "hub/entries has no {name}.yaml");
    }
    let built = publisher.build(&home, &[]);
    assert_eq!((&built["hub"], &built["plugins"]), (&json!("portcullis"), &json!(names.len())));
}

#[test]
fn a_hub_on_a_web_server_is_reached_as_the_settings_say() {
    let home = Home::new("");
    let author = Author::new(&home, "stranger");
    let publisher = Publisher::new(&home, "acme");
    let own = authority("hub");
    let (web, releases) = (Web::encrypted(&own), Web::encrypted(&own));
    let (near, _) = author.release(&home, "near", "1.0.0");
    let (far, far_digest) = author.release(&home, "far", "1.0.0");
    let location = releases.publish("/far-1.0.0.plugin", &far);
    publisher.entry("near", &json!([{"version": "1.0.0", "package": near}]));
    publisher.entry("far", &json!([{"version": "1.0.0", "package": far, "location": location}]));
    let built = publisher.build(&home, &[]);
    assert_eq!(built["copied"].as_array().unwrap().len(), 1);
    for name in ["index.json", "index.json.sig", "packages/near-1.0.0.plugin", "packages/near-1.0.0.plugin.sig"] {
        web.put(&format!("/hub/{name}"), Page::new(std::fs::read(publisher.public().join(name)).unwrap()));
    }
    author.trusted(&home, &[]);
    publisher.trusted(&home);
    let place = format!("{}/hub", web.url);
    recorded_refusal(&home, &["plugin", "hub", "add", &place], "plugin.hub-add", "loopback address");
    private(&home.directory.path().join("ca.pem"), &own.pem);
    let config = std::fs::read_to_string(&home.config).unwrap();
    let source = |origin: &str| {
        format!(
            "    - {{origin: '{origin}', allow_addresses: [loopback], ca_file: '{}/ca.pem'}}\n",
            home.directory.path().display()
        )
    };
    std::fs::write(&home.config, format!("{config}plugins:\n  sources:\n{}", source(&web.url))).unwrap();
    home.run_ok(&["plugin", "hub", "add", &place]);
    home.run_ok(&["plugin", "install", "near"]);
    // A list leads nowhere the operator did not open.
    recorded_refusal(&home, &["plugin", "install", "far"], "plugin.install", "loopback address");
    assert!(releases.seen().is_empty());
    std::fs::write(&home.config, format!("{config}plugins:\n  sources:\n{}{}", source(&web.url), source(&releases.url))).unwrap();
    assert_eq!(json_of(&home, &["plugin", "install", "far", "--json"])["digest"], far_digest.as_str());
    // The package at that address is replaced by another one that is signed as well.
    let (other, _) = author.release(&home, "far", "1.0.1");
    releases.publish("/far-1.0.0.plugin", &other);
    recorded_refusal(&home, &["plugin", "install", "far"], "plugin.install", "is not what was named");
    // A web server that does not answer is no empty hub.
    web.put("/hub/index.json", Page { status: 500, ..Page::new("") });
    recorded_refusal(&home, &["plugin", "hub", "search"], "plugin.hub", "answers 500");
    assert_eq!(installed(&home), ["far 1.0.0", "near 1.0.0"]);
}
