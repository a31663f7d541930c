//! The trust root: which keys may sign which plugins and when, and what was revoked. Guards that everything that is not
//! clearly trusted is refused. Must not reach for a network or be written by anything but an operator's command.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use portcullis_model::{Timestamp, format_timestamp, parse_instant};
use serde::{Deserialize, Serialize};

use crate::{Digest, HubName, IndexSignature, Manifest, PackageSignature, PluginName, PublicKey};

const FORMAT: &str = "portcullis-plugin-trust/1";
const MOST_BYTES: u64 = 1 << 20;
/// How far a signer's clock may be ahead of ours.
const CLOCK_SKEW: std::time::Duration = std::time::Duration::from_mins(5);

/// Why something is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no trust root.
    #[error("there is no trust root at {path}, so no plugin is trusted; make one with: portcullis plugin keys add")]
    Absent {
        /// Where it should be.
        path: PathBuf,
    },
    /// It cannot be used as it is.
    #[error("the trust root {path} is not used, so no plugin is trusted: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// There is no signature.
    #[error("the package is not signed; ask its author for the .sig file that belongs to it")]
    Unsigned,
    /// The signature of a hub does not fit its index.
    #[error("the index of the hub and its signature do not belong together: signed is {signed}, and this is {found}")]
    OtherIndex {
        /// What was signed.
        signed: String,
        /// What is there.
        found: String,
    },
    /// The signature is over another package.
    #[error("the signature is over {signed}, and this package is {found}")]
    OtherPackage {
        /// What was signed.
        signed: String,
        /// What is there.
        found: String,
    },
    /// The key is not in the trust root.
    #[error("key {key} is not in the trust root; if you trust its owner, add it with: portcullis plugin keys add")]
    UnknownKey {
        /// Its id.
        key: String,
    },
    /// The signature does not fit the key.
    #[error("the signature was not made by key {key}, or what was signed or the signature was changed since")]
    Forged {
        /// The id of the key.
        key: String,
    },
    /// The key may not sign this, or not at that time.
    #[error("key {key} of {owner} does not vouch for this: {reason}")]
    NotEntitled {
        /// Its id.
        key: String,
        /// Whose it is.
        owner: String,
        /// Why not.
        reason: String,
    },
    /// The key or the package was revoked.
    #[error("{what} was revoked: {reason}")]
    Revoked {
        /// The key or digest.
        what: String,
        /// Why, as the operator wrote it.
        reason: String,
    },
}

/// The text of a trust root that says something unclear.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no trust root: {0}")]
pub struct InvalidTrustRoot(String);

impl TrustError {
    /// Whether trust was taken back, as against never given.
    pub fn is_revocation(&self) -> bool {
        matches!(self, Self::Revoked { .. })
    }

    /// Whether not even an operator's `--insecure` helps: trust was taken back, or what says so cannot be read.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Revoked { .. } | Self::Unusable { .. })
    }
}

/// Taken back, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// When.
    pub at: String,
    /// Why.
    pub reason: String,
}

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// Packages: it says who made a plugin.
    Package,
    /// Indexes of hubs: it says what there is to install, and vouches for no package.
    Hub,
}

fn packages_only() -> Vec<KeyRole> {
    vec![KeyRole::Package]
}

fn is_packages_only(roles: &[KeyRole]) -> bool {
    roles == packages_only()
}

/// A key in the trust root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedKey {
    /// Its id; must be that of the public key.
    pub id: String,
    /// The key.
    pub public: PublicKey,
    /// Whose it is.
    pub owner: String,
    /// What it may sign; packages when absent.
    #[serde(default = "packages_only", skip_serializing_if = "is_packages_only")]
    pub roles: Vec<KeyRole>,
    /// Plugins it may sign: names, or a beginning and `*`. Empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
    /// Hubs it may sign for, by name. Empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hubs: Vec<String>,
    /// Signs from then on (RFC 3339).
    pub not_before: String,
    /// Signs until then.
    pub not_after: String,
    /// Taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}

/// A package nobody may load, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedPackage {
    /// Its digest.
    pub digest: Digest,
    /// When.
    pub at: String,
    /// Why.
    pub reason: String,
}

/// What is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRoot {
    pub(crate) format: String,
    /// Keys.
    pub keys: Vec<TrustedKey>,
    /// Packages that are refused.
    #[serde(default)]
    pub revoked_packages: Vec<RevokedPackage>,
}

impl Default for TrustRoot {
    fn default() -> Self {
        Self { format: FORMAT.to_owned(), keys: Vec::new(), revoked_packages: Vec::new() }
    }
}

/// What the verification is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The package comes in: the key must be in its time now.
    Install,
    /// It was let in before: the key must have been in its time when it signed.
    Start,
}

fn instant(text: &str) -> Option<Timestamp> {
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| parse_instant(text, Timestamp::default()).ok()).flatten()
}

impl TrustRoot {
    /// Reads the file.
    ///
    /// # Errors
    /// When there is none, when others may write it, or when anything in it is not clear.
    pub fn load(path: &Path) -> Result<Self, TrustError> {
        let unusable = |reason: String| TrustError::Unusable { path: path.to_owned(), reason };
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(TrustError::Absent { path: path.to_owned() });
            }
            Err(error) => return Err(unusable(error.to_string())),
        };
        let mode = file.metadata().map_err(|error| unusable(error.to_string()))?.permissions().mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(unusable(format!("it has mode {mode:04o}, so others may change it; make it 0644 or 0600")));
        }
        let mut bytes = Vec::new();
        let read = std::io::Read::by_ref(&mut file).take(MOST_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| unusable(error.to_string()))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(unusable(format!("it is larger than {MOST_BYTES} bytes")));
        }
        Self::from_json(&bytes).map_err(|error| unusable(error.0))
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// When anything in it is not clear.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidTrustRoot> {
        let root: Self = serde_json::from_slice(bytes).map_err(|error| InvalidTrustRoot(error.to_string()))?;
        root.check().map_err(InvalidTrustRoot)?;
        Ok(root)
    }

    /// Whether and why the package of this digest was revoked.
    ///
    /// # Errors
    /// [`TrustError::Revoked`] when it was.
    pub(crate) fn not_revoked(&self, digest: Digest) -> Result<(), TrustError> {
        let revoked = self.revoked_packages.iter().find(|revoked| revoked.digest == digest);
        let taken = |by: &RevokedPackage| TrustError::Revoked { what: format!("package {digest}"), reason: by.reason.clone() };
        revoked.map_or(Ok(()), |by| Err(taken(by)))
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("its format is not {FORMAT}"));
        }
        for key in &self.keys {
            if key.id != key.public.id() {
                return Err(format!("the key called {} has the id {}", key.id, key.public.id()));
            }
            if key.roles.is_empty() {
                return Err(format!("key {} has no role; write \"package\", \"hub\" or both", key.id));
            }
            match (instant(&key.not_before), instant(&key.not_after)) {
                (Some(from), Some(until)) if from < until => {}
                _ => return Err(format!("the time of key {} is not readable, or ends before it begins", key.id)),
            }
        }
        let mut ids: Vec<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("it holds a key twice".to_owned());
        }
        Ok(())
    }

    /// Waits until no other command changes the trust root at `path`, and keeps others from it while the file is held: two
    /// at once could undo each other's revocations.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn lock(path: &Path) -> Result<fs::File, TrustError> {
        let unusable = |error: std::io::Error| TrustError::Unusable { path: path.to_owned(), reason: error.to_string() };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(unusable)?;
        }
        let lock = path.with_extension("lock");
        let open = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock);
        let file = open.map_err(unusable)?;
        file.lock().map_err(unusable)?;
        Ok(file)
    }

    /// Writes it in place of the old one, at once or not at all.
    ///
    /// # Errors
    /// When it would not be readable afterwards, or the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), TrustError> {
        let unusable = |reason: String| TrustError::Unusable { path: path.to_owned(), reason };
        self.check().map_err(unusable)?;
        let text = serde_json::to_vec_pretty(self).map_err(|error| unusable(error.to_string()))?;
        crate::store::write_whole(path, &text, 0o644).map_err(|error| unusable(error.to_string()))
    }

    /// Whether this root vouches for the package; says which key did.
    ///
    /// # Errors
    /// Why not. Everything that is not clearly a yes is one.
    pub fn verify(
        &self,
        manifest: &Manifest,
        digest: Digest,
        signature: Option<&PackageSignature>,
        occasion: Occasion,
        now: Timestamp,
    ) -> Result<&TrustedKey, TrustError> {
        self.not_revoked(digest)?;
        let signature = signature.ok_or(TrustError::Unsigned)?;
        let name = |plugin: &PluginName, version: &semver::Version, digest: Digest| format!("{plugin} {version} {digest}");
        let signed = name(&signature.plugin, &signature.version, signature.digest);
        let found = name(&manifest.name, &manifest.version, digest);
        if signed != found {
            return Err(TrustError::OtherPackage { signed, found });
        }
        let key = self.vouching(&signature.key, |public| signature.made_by(public), signature.signed_at(), occasion, now)?;
        if !key.roles.contains(&KeyRole::Package) {
            return Err(key.refuses("it signs indexes of hubs, and no packages".to_owned()));
        }
        if !key.may_sign(&manifest.name) {
            return Err(key.refuses(format!("it may sign {} only", key.plugins.join(", "))));
        }
        Ok(key)
    }

    /// Whether this root vouches for the index of a hub; says which key did. What such a key vouches for is the list, never
    /// a package on it.
    ///
    /// # Errors
    /// Why not.
    pub fn verify_index(
        &self,
        hub: &HubName,
        serial: u64,
        digest: Digest,
        signature: &IndexSignature,
        now: Timestamp,
    ) -> Result<&TrustedKey, TrustError> {
        let name = |hub: &HubName, serial: u64, digest: Digest| format!("{hub} {serial} {digest}");
        let signed = name(&signature.hub, signature.serial, signature.digest);
        let found = name(hub, serial, digest);
        if signed != found {
            return Err(TrustError::OtherIndex { signed, found });
        }
        let made_by = |public: &PublicKey| signature.made_by(public);
        let key = self.vouching(&signature.key, made_by, signature.signed_at(), Occasion::Install, now)?;
        if !key.roles.contains(&KeyRole::Hub) {
            return Err(key.refuses("it signs packages, and no indexes of hubs".to_owned()));
        }
        if !key.hubs.is_empty() && !key.hubs.iter().any(|name| name == hub.as_str()) {
            return Err(key.refuses(format!("it may sign for the hubs {} only", key.hubs.join(", "))));
        }
        Ok(key)
    }

    /// The key of that id, if it made the signature in its time and was not revoked.
    fn vouching(
        &self,
        id: &str,
        made_by: impl Fn(&PublicKey) -> bool,
        signed_at: Option<Timestamp>,
        occasion: Occasion,
        now: Timestamp,
    ) -> Result<&TrustedKey, TrustError> {
        let key = self.keys.iter().find(|key| key.id == *id).ok_or_else(|| TrustError::UnknownKey { key: id.to_owned() })?;
        if !made_by(&key.public) {
            return Err(TrustError::Forged { key: id.to_owned() });
        }
        if let Some(revocation) = &key.revoked {
            return Err(TrustError::Revoked { what: format!("key {id} of {}", key.owner), reason: revocation.reason.clone() });
        }
        let (Some(from), Some(until), Some(signed_at)) = (instant(&key.not_before), instant(&key.not_after), signed_at) else {
            return Err(key.refuses("its time or that of the signature is not readable".into()));
        };
        if signed_at > now.plus(CLOCK_SKEW) {
            return Err(key.refuses(format!("it signed at {}, which is yet to come", format_timestamp(signed_at))));
        }
        if signed_at < from || signed_at > until {
            let time = format_timestamp(signed_at);
            return Err(key.refuses(format!("it signed at {time}, and its time is {} to {}", key.not_before, key.not_after)));
        }
        if occasion == Occasion::Install && (now < from || now > until) {
            return Err(key.refuses(format!(
                "its time is {} to {}; ask for a signature by a key that is in its time",
                key.not_before, key.not_after
            )));
        }
        Ok(key)
    }
}

impl TrustedKey {
    fn refuses(&self, reason: String) -> TrustError {
        TrustError::NotEntitled { key: self.id.clone(), owner: self.owner.clone(), reason }
    }

    fn may_sign(&self, plugin: &PluginName) -> bool {
        self.plugins.is_empty()
            || self.plugins.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => plugin.as_str().starts_with(beginning),
                None => plugin.as_str() == pattern,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PrivateKey;

    const NOW: &str = "2026-06-01T00:00:00Z";

    fn at(text: &str) -> Timestamp {
        parse_instant(text, Timestamp::default()).unwrap()
    }

    fn manifest(name: &str, version: &str) -> Manifest {
        Manifest::from_yaml(&format!("{{schema: 1, name: {name}, version: {version}, host: ^1.0, summary: s, licence: MIT, homepage: 'https://e.org', tools: [{{name: t, risk: read}}]}}")).unwrap()
    }

    fn trusted(key: &PrivateKey) -> TrustedKey {
        TrustedKey {
            id: key.public().id(),
            public: key.public(),
            owner: "Acme".into(),
            roles: packages_only(),
            plugins: Vec::new(),
            hubs: Vec::new(),
            not_before: "2026-01-01T00:00:00Z".into(),
            not_after: "2027-01-01T00:00:00Z".into(),
            revoked: None,
        }
    }

    struct Case {
        root: TrustRoot,
        manifest: Manifest,
        digest: Digest,
        signature: Option<PackageSignature>,
        occasion: Occasion,
        now: Timestamp,
    }

    impl Case {
        fn new() -> (Self, PrivateKey) {
            let key = PrivateKey::generate().unwrap();
            let manifest = manifest("sample", "1.0.0");
            let digest = Digest::of(b"package");
            let signature = Some(key.sign(&manifest, digest, at(NOW)));
            let root = TrustRoot { keys: vec![trusted(&key)], ..TrustRoot::default() };
            (Self { root, manifest, digest, signature, occasion: Occasion::Install, now: at(NOW) }, key)
        }

        fn refused(&self) -> String {
            let Self { root, manifest, digest, signature, occasion, now } = self;
            root.verify(manifest, *digest, signature.as_ref(), *occasion, *now).unwrap_err().to_string()
        }
    }

    #[test]
    fn a_signature_by_a_key_in_its_time_is_trusted() {
        let (case, key) = Case::new();
        let by = case.root.verify(&case.manifest, case.digest, case.signature.as_ref(), case.occasion, case.now).unwrap();
        assert_eq!(by.id, key.public().id());
        let text = case.signature.as_ref().unwrap().to_json();
        assert_eq!(Some(PackageSignature::read(text.as_bytes()).unwrap()), case.signature);
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        let (good, key) = Case::new();
        let with = |change: &dyn Fn(&mut Case)| {
            let mut case =
                Case { root: good.root.clone(), manifest: good.manifest.clone(), signature: good.signature.clone(), ..good };
            change(&mut case);
            case.refused()
        };
        let says = |change: &dyn Fn(&mut Case), words: &str| {
            let text = with(change);
            assert!(text.contains(words), "{words}: {text}");
        };
        says(&|case| case.signature = None, "not signed");
        says(&|case| case.digest = Digest::of(b"altered"), "signature is over");
        says(&|case| case.manifest.version = semver::Version::new(9, 0, 0), "signature is over");
        says(&|case| case.root.keys.clear(), "not in the trust root");
        says(&|case| case.root.keys[0].not_after = "2026-02-01T00:00:00Z".into(), "its time is");
        says(&|case| case.now = at("2028-01-01T00:00:00Z"), "in its time");
        says(&|case| case.now = at("2026-05-01T00:00:00Z"), "yet to come");
        says(&|case| case.root.keys[0].plugins = vec!["other-*".into()], "may sign other-* only");
        let why = Revocation { at: NOW.into(), reason: "stolen".into() };
        says(&|case| case.root.keys[0].revoked = Some(why.clone()), "was revoked: stolen");
        let other = PrivateKey::generate().unwrap();
        says(
            &|case| {
                // The right id over another key's signature.
                let mut forged = other.sign(&case.manifest, case.digest, at(NOW));
                forged.key = key.public().id();
                case.signature = Some(forged);
            },
            "not made by key",
        );
        says(&|case| case.signature.as_mut().unwrap().signed_at = "2026-05-31T00:00:00Z".into(), "not made by key");
        let revoked = RevokedPackage { digest: good.digest, at: NOW.into(), reason: "leaks".into() };
        says(&|case| case.root.revoked_packages.push(revoked.clone()), "leaks");
    }

    #[test]
    fn a_key_that_ended_still_vouches_for_what_it_signed_in_its_time() {
        let (mut case, _) = Case::new();
        case.now = at("2028-01-01T00:00:00Z");
        case.occasion = Occasion::Start;
        assert!(case.root.verify(&case.manifest, case.digest, case.signature.as_ref(), case.occasion, case.now).is_ok());
    }

    #[test]
    fn an_absent_loose_or_unclear_file_trusts_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trust.json");
        assert!(matches!(TrustRoot::load(&path), Err(TrustError::Absent { .. })));
        let (case, _) = Case::new();
        case.root.save(&path).unwrap();
        assert_eq!(TrustRoot::load(&path).unwrap(), case.root);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(TrustRoot::load(&path).unwrap_err().to_string().contains("0666"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("portcullis-plugin-trust/1", "portcullis-plugin-trust/2"),
            ("\"owner\"", "\"owned\""),
            ("2027-01-01T00:00:00Z", "now+1h"),
            ("2027-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
            (case.root.keys[0].id.as_str(), "0000000000000000"),
            ("}", ""),
        ] {
            assert!(good.contains(from));
            fs::write(&path, good.replacen(from, to, 1)).unwrap();
            assert!(matches!(TrustRoot::load(&path), Err(TrustError::Unusable { .. })), "{from} -> {to}");
        }
    }
}
