//! The rules of the store: what is verified, what goes back, whose a name is, and what stays when something fails.

use super::*;
use crate::{KeyRole, PrivateKey, TrustedKey};
use portcullis_model::parse_instant;

struct Shop {
    store: PluginStore,
    key: PrivateKey,
    root: TrustRoot,
    now: Timestamp,
    _directory: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate().unwrap();
        let trusted = TrustedKey {
            id: key.public().id(),
            public: key.public(),
            owner: "Acme".into(),
            roles: vec![KeyRole::Package],
            plugins: Vec::new(),
            hubs: Vec::new(),
            not_before: "2026-01-01T00:00:00Z".into(),
            not_after: "2027-01-01T00:00:00Z".into(),
            revoked: None,
        };
        Self {
            store: PluginStore::at(directory.path().join("plugins")),
            key,
            root: TrustRoot { keys: vec![trusted], ..TrustRoot::default() },
            now: parse_instant("2026-06-01T00:00:00Z", Timestamp::default()).unwrap(),
            _directory: directory,
        }
    }

    fn package(&self, version: &str, body: &str) -> (Vec<u8>, Vec<u8>) {
        let manifest = Manifest::from_yaml(&format!("{{schema: 1, name: sample, version: {version}, host: ^1.0, summary: s, licence: MIT, homepage: 'https://e.org', tools: [{{name: t, risk: read}}]}}")).unwrap();
        let component = [b"\0asm\x0d\0\x01\0".as_slice(), body.as_bytes()].concat();
        let bytes = Package::write(&manifest, &component, "", b"{}").unwrap();
        let signature = self.key.sign(&manifest, Digest::of(&bytes), self.now).to_json().into_bytes();
        (bytes, signature)
    }

    fn install(&self, version: &str, body: &str, options: InstallOptions) -> Result<Installed, StoreError> {
        let (bytes, signature) = self.package(version, body);
        self.store.install(&bytes, Some(&signature), Ok(self.root.clone()), options, self.now)
    }

    fn load(&self) -> Result<Verified, StoreError> {
        self.store.load(&self.store.find("sample").unwrap(), Ok(self.root.clone()), false, self.now)
    }
}

#[test]
fn what_was_installed_is_what_is_loaded() {
    let shop = Shop::new();
    let installed = shop.install("1.0.0", "a", InstallOptions::default()).unwrap();
    assert!(!installed.enabled && !installed.insecure);
    let loaded = shop.load().unwrap();
    assert!(loaded.package.component.ends_with(b"a"));
    assert_eq!(loaded.by.unwrap().1, "Acme");
    assert!(shop.store.enable("sample", true).unwrap().enabled);
    let again = shop.install("1.1.0", "b", InstallOptions::default()).unwrap();
    assert!(again.enabled, "an update stays in use");
    assert!(!shop.store.package_path(installed.digest).exists());
}

#[test]
fn a_package_that_was_changed_on_disk_is_not_loaded() {
    let shop = Shop::new();
    let installed = shop.install("1.0.0", "a", InstallOptions::default()).unwrap();
    let path = shop.store.package_path(installed.digest);
    let (other, signature) = shop.package("1.0.0", "b");
    fs::write(&path, &other).unwrap();
    fs::write(shop.store.signature_path(installed.digest), &signature).unwrap();
    assert!(matches!(shop.load(), Err(StoreError::Altered { .. })), "not even when the other one is signed too");
}

#[test]
fn revoking_and_losing_the_trust_root_stop_what_is_installed() {
    let mut shop = Shop::new();
    shop.install("1.0.0", "a", InstallOptions::default()).unwrap();
    let installed = shop.store.find("sample").unwrap();
    let absent = || Err(TrustError::Absent { path: "gone".into() });
    assert!(matches!(shop.store.load(&installed, absent(), true, shop.now), Err(StoreError::Trust(_))));
    shop.root.keys[0].revoked = Some(crate::Revocation { at: "2026-06-01T00:00:00Z".into(), reason: "stolen".into() });
    assert!(shop.load().unwrap_err().to_string().contains("stolen"));
}

#[test]
fn versions_do_not_go_back_unless_asked_not_even_by_removing() {
    let shop = Shop::new();
    shop.install("2.0.0", "a", InstallOptions::default()).unwrap();
    let refused = shop.install("1.9.0", "b", InstallOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("2.0.0 was installed before") && refused.contains("--allow-downgrade"), "{refused}");
    assert!(shop.install("2.0.0", "other bytes", InstallOptions::default()).unwrap_err().to_string().contains("same version"));
    shop.store.remove("sample").unwrap();
    assert!(matches!(shop.install("1.9.0", "b", InstallOptions::default()), Err(StoreError::Downgrade { .. })));
    shop.install("2.0.0", "a", InstallOptions::default()).unwrap();
    let asked = InstallOptions { allow_downgrade: true, ..InstallOptions::default() };
    assert_eq!(shop.install("1.9.0", "b", asked).unwrap().version, Version::new(1, 9, 0));
    // That an older one was let in once opens the way for none in between.
    let refused = shop.install("1.9.5", "c", InstallOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("2.0.0 was installed before"), "{refused}");
    assert_eq!(shop.store.find("sample").unwrap().version, Version::new(1, 9, 0));
    shop.install("2.0.0", "a", InstallOptions::default()).unwrap();
    shop.install("2.0.1", "d", InstallOptions::default()).unwrap();
}

#[test]
fn unsigned_takes_two_operators_words_and_revoked_none() {
    let mut shop = Shop::new();
    let (bytes, signature) = shop.package("1.0.0", "a");
    let root = || Ok(shop.root.clone());
    let plain = InstallOptions::default();
    assert!(matches!(shop.store.install(&bytes, None, root(), plain, shop.now), Err(StoreError::Trust(TrustError::Unsigned))));
    assert!(shop.store.list().unwrap().is_empty());
    let insecure = InstallOptions { insecure: true, ..plain };
    let installed = shop.store.install(&bytes, None, root(), insecure, shop.now).unwrap();
    assert!(installed.insecure && installed.key.is_none());
    assert!(matches!(shop.load(), Err(StoreError::UnsignedNotAllowed { .. })));
    assert!(shop.store.load(&installed, root(), true, shop.now).unwrap().by.is_none());
    // Signed and installed so: insecure or not makes no difference, besides that somebody vouches for it who did not.
    let other = shop.store.install(&bytes, Some(&signature), root(), insecure, shop.now).unwrap_err().to_string();
    assert!(other.contains("before was not signed"), "{other}");
    let new_key = InstallOptions { new_key: true, ..insecure };
    assert!(!shop.store.install(&bytes, Some(&signature), root(), new_key, shop.now).unwrap().insecure);
    shop.root.keys[0].revoked = Some(crate::Revocation { at: "2026-06-01T00:00:00Z".into(), reason: "stolen".into() });
    let root = || Ok(shop.root.clone());
    assert!(shop.store.install(&bytes, Some(&signature), root(), insecure, shop.now).is_err());
    // A revoked package stays revoked when what lies beside it is no signature at all.
    let reason = "it lies".to_owned();
    let revoked = crate::RevokedPackage { digest: Digest::of(&bytes), at: "2026-06-01T00:00:00Z".into(), reason };
    let root = || Ok(TrustRoot { revoked_packages: vec![revoked.clone()], ..TrustRoot::default() });
    for signature in [None, Some(signature.as_slice()), Some(b"{".as_slice())] {
        let refused = shop.store.install(&bytes, signature, root(), insecure, shop.now).unwrap_err().to_string();
        assert!(refused.contains("it lies"), "{refused}");
    }
    // And where nobody can say what was revoked, nothing is let in.
    let unusable = Err(TrustError::Unusable { path: "trust.json".into(), reason: "it is damaged".into() });
    assert!(shop.store.install(&bytes, None, unusable, insecure, shop.now).unwrap_err().to_string().contains("damaged"));
}

#[test]
fn a_name_stays_with_the_key_that_had_it_unless_an_operator_says_otherwise() {
    let mut shop = Shop::new();
    let enabled = InstallOptions { enable: true, ..InstallOptions::default() };
    let first = shop.install("1.0.0", "a", enabled).unwrap();
    let own = shop.key.public().id();
    let other = PrivateKey::generate().unwrap();
    let id = other.public().id();
    shop.root.keys.push(TrustedKey {
        id: id.clone(),
        public: other.public(),
        owner: "Other".into(),
        ..shop.root.keys[0].clone()
    });
    shop.key = other;
    for (version, body) in [("9.0.0", "b"), ("1.0.0", "a")] {
        let refused = shop.install(version, body, enabled).unwrap_err().to_string();
        for says in [&id, &own, "--allow-new-key"] {
            assert!(refused.contains(says), "{says}: {refused}");
        }
    }
    let (bytes, _) = shop.package("9.0.0", "b");
    let insecure = InstallOptions { insecure: true, ..enabled };
    let unsigned = shop.store.install(&bytes, None, Ok(shop.root.clone()), insecure, shop.now).unwrap_err().to_string();
    assert!(unsigned.contains("not signed, and what had this name before was signed by key"), "{unsigned}");
    assert_eq!(shop.store.find("sample").unwrap(), first);
    assert!(shop.load().is_ok());
    // Removing is no way around it.
    shop.store.remove("sample").unwrap();
    assert!(matches!(shop.install("9.0.0", "b", enabled), Err(StoreError::OtherSigner { .. })));
    let asked = shop.install("9.0.0", "b", InstallOptions { new_key: true, ..enabled }).unwrap();
    assert_eq!(asked.key, Some(id));
    assert!(shop.install("9.0.1", "c", enabled).is_ok(), "from now on it is theirs");
}

#[test]
fn what_cannot_be_recorded_is_not_installed_and_what_was_there_stays() {
    let shop = Shop::new();
    let enabled = InstallOptions { enable: true, ..InstallOptions::default() };
    let first = shop.install("1.0.0", "a", enabled).unwrap();
    let (bytes, signature) = shop.package("2.0.0", "b");
    let before = fs::read(shop.store.list_path()).unwrap();
    let packages = || fs::read_dir(shop.store.directory().join("packages")).unwrap().count();
    let kept = packages();
    let install = |record: &dyn Fn(&Installation) -> Result<(), String>| {
        shop.store.install_recorded(&bytes, Some(&signature), Ok(shop.root.clone()), enabled, shop.now, record)
    };
    let refused = install(&|done| {
        assert_eq!((done.installed.version.to_string().as_str(), done.installed.enabled), ("2.0.0", true));
        assert_eq!(fs::read(shop.store.list_path()).unwrap(), before, "the record comes first");
        Err("the disk is full".into())
    });
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("could not be recorded: the disk is full"), "{refused}");
    assert_eq!((fs::read(shop.store.list_path()).unwrap(), packages()), (before.clone(), kept));
    assert!(shop.store.find("sample").unwrap() == first && shop.load().is_ok());
    // Nor does a list that cannot be written cost the version that is listed.
    let fresh = shop.store.directory().join(format!("installed.json.{}.new", std::process::id()));
    fs::create_dir_all(fresh.join("in the way")).unwrap();
    assert!(install(&|_| Ok(())).is_err());
    assert!(shop.store.find("sample").unwrap() == first && shop.load().is_ok());
    assert!(shop.store.remove("sample").is_err() && shop.load().is_ok());
    fs::remove_dir_all(&fresh).unwrap();
    assert_eq!(install(&|_| Ok(())).unwrap().installed.version, Version::new(2, 0, 0));
    assert!(!shop.store.package_path(first.digest).exists());
}

#[test]
fn quarantine_ends_with_enabling_and_concurrent_changes_are_all_kept() {
    let shop = Shop::new();
    let installed = shop.install("1.0.0", "a", InstallOptions { enable: true, ..InstallOptions::default() }).unwrap();
    let other = Digest::of(b"another package");
    assert!(shop.store.quarantine("sample", other, "crashes", shop.now).unwrap().quarantine.is_none());
    let held = shop.store.quarantine("sample", installed.digest, "crashes", shop.now).unwrap();
    assert_eq!(held.quarantine.unwrap().reason, "crashes");
    assert!(shop.store.enable("sample", true).unwrap().quarantine.is_none());
    std::thread::scope(|scope| {
        for on in [true, false, true, false] {
            let store = shop.store.clone();
            scope.spawn(move || (0..20).for_each(|_| drop(store.enable("sample", on).unwrap())));
        }
    });
    assert_eq!(shop.store.list().unwrap().len(), 1);
    let unknown = shop.store.enable("simple", true).unwrap_err().to_string();
    assert!(unknown.contains("'simple'") && unknown.contains("sample"), "{unknown}");
}
