//! Hubs on disk: made, read, withdrawn from, and shown old, foreign and altered lists.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use portcullis_egress::LiteralSecrets;
use portcullis_model::parse_instant;
use portcullis_policy::{Policies, Vocabulary};

use super::*;
use crate::{HubBuild, KeyRole, Package, PluginName, PrivateKey, TrustedKey, build_hub};

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0and so on";
const NOW: &str = "2026-06-01T00:00:00Z";

fn at(text: &str) -> Timestamp {
    parse_instant(text, Timestamp::default()).unwrap()
}

fn fetcher() -> Fetcher {
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    Fetcher::new(Vec::new(), Arc::new(LiteralSecrets), Box::new(move |grant| policies.charter(grant)))
}

struct Publisher {
    directory: tempfile::TempDir,
    key: PrivateKey,
}

impl Publisher {
    fn new() -> Self {
        let this = Self { directory: tempfile::tempdir().unwrap(), key: PrivateKey::generate().unwrap() };
        fs::create_dir(this.path("entries")).unwrap();
        fs::write(this.path("hub.yaml"), "{hub: acme, description: Of Acme}").unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Packs and signs a version of `sample`; gives the file's name.
    fn release(&self, version: &str, readme: &str) -> String {
        let manifest = format!(
            "{{schema: 1, name: sample, version: {version}, host: ^1.0, summary: s, licence: MIT, homepage: 'https://e.org', tools: [{{name: t, risk: read}}]}}"
        );
        let manifest = Manifest::from_yaml(&manifest).unwrap();
        let bytes = Package::write(&manifest, COMPONENT, readme, b"{}").unwrap();
        let name = format!("sample-{version}.plugin");
        fs::write(self.path(&name), &bytes).unwrap();
        let signature = self.key.sign(&manifest, Digest::of(&bytes), at(NOW));
        fs::write(self.path(&format!("{name}.sig")), signature.to_json()).unwrap();
        name
    }

    fn entries(&self, versions: &str) {
        fs::write(self.path("entries/sample.yaml"), format!("{{name: sample, versions: [{versions}]}}")).unwrap();
    }

    fn build(&self, serial: Option<u64>) -> Result<crate::BuiltHub, String> {
        let build = HubBuild {
            folder: self.directory.path().to_owned(),
            output: self.path("public"),
            serial,
            valid_for: Duration::from_hours(30 * 24),
        };
        build_hub(&build, &self.key, at(NOW)).map_err(|error| error.to_string())
    }

    fn trust(&self, roles: Vec<KeyRole>) -> TrustRoot {
        let key = TrustedKey {
            id: self.key.public().id(),
            public: self.key.public(),
            owner: "Acme".into(),
            roles,
            plugins: Vec::new(),
            hubs: Vec::new(),
            not_before: "2026-01-01T00:00:00Z".into(),
            not_after: "2027-01-01T00:00:00Z".into(),
            revoked: None,
        };
        TrustRoot { keys: vec![key], ..TrustRoot::default() }
    }
}

struct Operator {
    directory: tempfile::TempDir,
    fetcher: Fetcher,
}

impl Operator {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), fetcher: fetcher() }
    }

    fn hubs(&self) -> Hubs {
        Hubs::at(self.directory.path().join("plugins"))
    }

    async fn add(&self, publisher: &Publisher) -> Result<KnownHub, String> {
        let place = publisher.path("public").display().to_string();
        let trust = Ok(publisher.trust(vec![KeyRole::Hub]));
        let opened = self.hubs().look(&self.fetcher, &place, trust, at(NOW)).await.map_err(|error| error.to_string())?;
        self.hubs().add(&opened, at(NOW)).map_err(|error| error.to_string())
    }

    async fn open(&self, publisher: &Publisher, now: &str) -> Result<OpenHub, String> {
        let trust = Ok(publisher.trust(vec![KeyRole::Hub]));
        let name = HubName::new("acme").unwrap();
        self.hubs().open(&self.fetcher, &name, trust, at(now)).await.map_err(|error| error.to_string())
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn a_hub_on_disk_gives_what_its_publisher_put_in_without_any_network() {
    let publisher = Publisher::new();
    let file = publisher.release("1.0.0", "one");
    publisher.entries(&format!("{{version: 1.0.0, package: {file}}}"));
    let built = publisher.build(None).unwrap();
    assert_eq!((built.index.serial, built.copied.len()), (1, 1));
    let operator = Operator::new();
    assert_eq!(operator.add(&publisher).await.unwrap().name.as_str(), "acme");
    assert!(operator.add(&publisher).await.unwrap_err().contains("known already"));
    let hub = operator.open(&publisher, NOW).await.unwrap();
    let name = PluginName::new("sample").unwrap();
    let version = hub.index.choose(&name, None, false).unwrap();
    let got = hub.package(&operator.fetcher, version).await.unwrap();
    assert_eq!(got.package, fs::read(publisher.path(&file)).unwrap());
    assert!(got.signature.is_some());
    hub.names((&name, version), &Package::read(&got.package).unwrap().manifest).unwrap();
    // Another package of the same size at the same place.
    let copied = &built.copied[0];
    let mut bytes = fs::read(copied).unwrap();
    bytes[20] ^= 1;
    fs::write(copied, &bytes).unwrap();
    assert!(hub.package(&operator.fetcher, version).await.unwrap_err().to_string().contains("is not what was named: its digest"));
    fs::write(copied, b"short").unwrap();
    assert!(hub.package(&operator.fetcher, version).await.unwrap_err().to_string().contains("5 bytes"));
    fs::remove_file(copied).unwrap();
    assert!(hub.package(&operator.fetcher, version).await.unwrap_err().to_string().contains("is not there"));
}

#[tokio::test]
async fn an_index_never_goes_back_and_never_lasts_for_ever() {
    let publisher = Publisher::new();
    let file = publisher.release("1.0.0", "one");
    publisher.entries(&format!("{{version: 1.0.0, package: {file}}}"));
    publisher.build(None).unwrap();
    let operator = Operator::new();
    operator.add(&publisher).await.unwrap();
    copy_all(&publisher.path("public"), &publisher.path("first"));
    publisher.entries(&format!("{{version: 1.0.0, package: {file}, yanked: it leaks}}"));
    assert_eq!(publisher.build(None).unwrap().index.serial, 2);
    assert_eq!(operator.open(&publisher, NOW).await.unwrap().index.serial, 2);
    // The index of before, from which the withdrawn version could be installed.
    copy_all(&publisher.path("public"), &publisher.path("second"));
    copy_all(&publisher.path("first"), &publisher.path("public"));
    let old = operator.open(&publisher, NOW).await.unwrap_err();
    assert!(old.contains("its number is 1, and 2 was seen"), "{old}");
    // Not even by removing the hub and adding it anew.
    operator.hubs().remove("acme").unwrap();
    assert!(operator.add(&publisher).await.unwrap_err().contains("its number is 1"));
    copy_all(&publisher.path("second"), &publisher.path("public"));
    operator.add(&publisher).await.unwrap();
    // Two lists with one number.
    fs::remove_file(publisher.path("public/index.json")).unwrap();
    publisher.entries(&format!("{{version: 1.0.0, package: {file}}}"));
    publisher.build(Some(2)).unwrap();
    let other = operator.open(&publisher, NOW).await.unwrap_err();
    assert!(other.contains("with other content"), "{other}");
    copy_all(&publisher.path("second"), &publisher.path("public"));
    assert!(operator.open(&publisher, "2026-06-30T23:00:00Z").await.is_ok());
    let held_back = operator.open(&publisher, "2026-07-02T00:00:00Z").await.unwrap_err();
    assert!(held_back.contains("ended at 2026-07-01"), "{held_back}");
}

#[tokio::test]
async fn an_index_nobody_trusted_signed_is_not_used() {
    let publisher = Publisher::new();
    let file = publisher.release("1.0.0", "one");
    publisher.entries(&format!("{{version: 1.0.0, package: {file}}}"));
    publisher.build(None).unwrap();
    let operator = Operator::new();
    let place = publisher.path("public").display().to_string();
    let look = async |trust: Result<TrustRoot, TrustError>| {
        operator.hubs().look(&operator.fetcher, &place, trust, at(NOW)).await.map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(look(Err(TrustError::Absent { path: "x".into() })).await.unwrap_err().contains("no trust root"));
    assert!(look(Ok(TrustRoot::default())).await.unwrap_err().contains("not in the trust root"));
    assert!(look(Ok(publisher.trust(vec![KeyRole::Package]))).await.unwrap_err().contains("no indexes of hubs"));
    assert!(look(Ok(publisher.trust(vec![KeyRole::Hub]))).await.is_ok());
    let index = publisher.path("public/index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("Of Acme", "Of Eve!")).unwrap();
    assert!(look(Ok(publisher.trust(vec![KeyRole::Hub]))).await.unwrap_err().contains("do not belong together"));
    fs::write(&index, &text).unwrap();
    fs::remove_file(publisher.path("public/index.json.sig")).unwrap();
    assert!(look(Ok(publisher.trust(vec![KeyRole::Hub]))).await.unwrap_err().contains("nobody vouches"));
    assert!(!operator.directory.path().join("plugins/hubs.json").exists(), "looking keeps nothing");
}

#[test]
fn what_was_published_stays_what_it_was() {
    let publisher = Publisher::new();
    let file = publisher.release("1.0.0", "one");
    publisher.entries(&format!("{{version: 1.0.0, package: {file}}}"));
    let first = publisher.build(None).unwrap();
    // Without the package it is carried over, and can be withdrawn.
    publisher.entries("{version: 1.0.0, yanked: it leaks}");
    let second = publisher.build(None).unwrap();
    let only = |built: &crate::BuiltHub| built.index.plugins.values().next().unwrap().versions[0].clone();
    assert_eq!((only(&second).digest, only(&second).yanked.as_deref()), (only(&first).digest, Some("it leaks")));
    for (entries, prepare, says) in [
        ("{version: 2.0.0}", None, "has no package"),
        ("", None, "was published and is not named any more"),
        ("{version: 1.0.0, package: sample-1.0.0.plugin}", Some("other content"), "needs a new version"),
        ("{version: 1.1.0, package: sample-1.0.0.plugin}, {version: 1.0.0}", None, "and not sample 1.1.0"),
        ("{version: 1.0.0, location: '../x'}", None, "location"),
        ("{version: 1.0.0, location: 'http://host/x'}", None, "not encrypted"),
        ("{version: 1.0.0, licence: MIT}", None, "licence"),
    ] {
        if let Some(readme) = prepare {
            publisher.release("1.0.0", readme);
        }
        publisher.entries(entries);
        let error = publisher.build(None).unwrap_err();
        assert!(error.contains(says), "{entries}: {error}");
        if prepare.is_some() {
            publisher.release("1.0.0", "one");
        }
    }
    publisher.entries("{version: 1.0.0}");
    assert!(publisher.build(Some(2)).unwrap_err().contains("must be 3 or more"));
    fs::write(publisher.path("hub.yaml"), "{hub: other, description: x}").unwrap();
    assert!(publisher.build(None).unwrap_err().contains("holds the index of hub acme"));
    // An unsigned package is not listed.
    fs::write(publisher.path("hub.yaml"), "{hub: acme, description: x}").unwrap();
    let unsigned = publisher.release("3.0.0", "three");
    fs::remove_file(publisher.path(&format!("{unsigned}.sig"))).unwrap();
    publisher.entries(&format!("{{version: 1.0.0}}, {{version: 3.0.0, package: {unsigned}}}"));
    assert!(publisher.build(None).unwrap_err().contains(".sig"));
    assert!(publisher.build(None).is_err(), "and the index before stays");
    let kept = HubIndex::read(&fs::read(publisher.path("public/index.json")).unwrap()).unwrap();
    assert_eq!(kept.serial, 2);
}

#[tokio::test]
async fn places_of_hubs_are_folders() {
    let operator = Operator::new();
    let publisher = Publisher::new();
    for (place, says) in [
        ("https://hub.example/?token=hunter2", "query"),
        ("https://u:hunter2@hub.example/", "credentials"),
        ("http://hub.example/", "not encrypted"),
        ("ftp://hub.example/", "https"),
        ("/nonexistent/hub", "has no index.json"),
    ] {
        let looked = operator.hubs().look(&operator.fetcher, place, Ok(publisher.trust(vec![KeyRole::Hub])), at(NOW)).await;
        let error = looked.unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("hunter2"), "{place}: {error}");
    }
}
