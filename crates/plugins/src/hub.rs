//! The index of a hub: a signed list of what there is to install. Guards that a list is complete or refused, that a version
//! means one digest, and that a signature over a list can be taken for nothing else. A list vouches for no package: that
//! is done by the package's own signature.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use portcullis_model::{Signal, Timestamp, format_timestamp, parse_instant};
use semver::{Version, VersionReq};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::package::MOST_PACKED;
use crate::place::{OciReference, WebAddress, plain_path};
use crate::signature::MOST_SIGNATURE;
use crate::{Digest, HOST_API, Manifest, ManifestTool, Permissions, PluginName, PrivateKey, PublicKey};

const FORMAT: &str = "portcullis-plugin-hub/1";
const SIGNATURE_FORMAT: &str = "portcullis-plugin-hub-signature/1";
/// Largest index.
pub const MOST_INDEX: u64 = 8 << 20;
/// Most plugins of one hub.
const MOST_PLUGINS: usize = 4_096;
/// Most versions of one plugin.
const MOST_VERSIONS: usize = 512;
/// Longest time an index may be valid: what is older may hide what was withdrawn since.
const LONGEST_VALIDITY: std::time::Duration = std::time::Duration::from_hours(366 * 24);

/// What a hub may be called.
const HUB_NAME_RULE: &str = "2 to 40 lower-case letters, digits and single hyphens, beginning with a letter";

/// An index that is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// Not an index or signature.
    #[error("this is no index of a hub: {0}")]
    Form(String),
    /// It cannot be vouched for any more.
    #[error("the index of hub {hub} ended at {at}: its publisher makes a new one before that, so this one is old or held back")]
    Expired {
        /// The hub.
        hub: HubName,
        /// When.
        at: String,
    },
    /// An older index than was seen, or another one with the same number.
    #[error("the index of hub {hub} is refused: {reason}; somebody shows an old or another list")]
    Rollback {
        /// The hub.
        hub: HubName,
        /// What does not fit.
        reason: String,
    },
    /// Not there.
    #[error("{0}")]
    NoSuch(String),
    /// Withdrawn.
    #[error("{name} {version} of hub {hub} was withdrawn: {reason}; to install it all the same, add --allow-yanked")]
    Yanked {
        /// The hub.
        hub: HubName,
        /// The plugin.
        name: PluginName,
        /// The version.
        version: Version,
        /// Why.
        reason: String,
    },
}

fn form(reason: impl Into<String>) -> HubError {
    HubError::Form(reason.into())
}

/// Words from outside, short enough for an error.
fn shown(text: &str) -> String {
    text.chars().filter(|c| portcullis_guard::is_seen(*c)).take(200).collect()
}

/// The name of a hub.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HubName(PluginName);

impl HubName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(name: &str) -> Result<Self, HubError> {
        let shown: String = name.chars().filter(|c| portcullis_guard::is_seen(*c)).take(60).collect();
        let refuse = |_| form(format!("'{shown}' is no name of a hub; use {HUB_NAME_RULE}"));
        PluginName::new(name).map(Self).map_err(refuse)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubName({:?})", self.as_str())
    }
}

impl<'de> Deserialize<'de> for HubName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for HubName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// `index.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubIndex {
    format: String,
    /// Name of the hub.
    pub hub: HubName,
    /// One line: whose it is and what is in it.
    pub description: String,
    /// Higher with every index that is published.
    pub serial: u64,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// Until when it may be used.
    pub expires_at: String,
    /// What there is.
    pub plugins: BTreeMap<PluginName, HubPlugin>,
}

/// What every index begins with.
#[derive(Deserialize)]
struct Outer {
    format: String,
}

/// A plugin in an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubPlugin {
    /// Its versions; the order means nothing.
    pub versions: Vec<HubVersion>,
}

/// A version in an index. What it says of the plugin comes from the manifest; what holds is the manifest in the package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubVersion {
    /// The version.
    pub version: Version,
    /// Digest of the package.
    pub digest: Digest,
    /// Size of the package in bytes.
    pub size: u64,
    /// Where the package is, its signature beside it: a path below the hub, `https://…` or `oci://…`.
    pub location: String,
    /// Range of host API versions it works with.
    pub host: VersionReq,
    /// One line: what it is for.
    pub summary: String,
    /// SPDX expression.
    pub licence: String,
    /// Where it comes from.
    pub homepage: String,
    /// Its tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ManifestTool>,
    /// Signals it answers.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub signals: BTreeSet<Signal>,
    /// What it wants to reach.
    #[serde(default)]
    pub permissions: Permissions,
    /// Why it was withdrawn; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yanked: Option<String>,
}

/// Where the package of a version is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubLocation {
    /// Below the hub.
    Below(String),
    /// Somewhere else.
    Web(WebAddress),
    /// In a registry.
    Registry(OciReference),
}

impl HubVersion {
    /// The entry of a package.
    pub fn of(manifest: &Manifest, package: &[u8], location: String) -> Self {
        Self {
            version: manifest.version.clone(),
            digest: Digest::of(package),
            size: package.len() as u64,
            location,
            host: manifest.host.clone(),
            summary: manifest.summary.clone(),
            licence: manifest.licence.clone(),
            homepage: manifest.homepage.clone(),
            // Readers of lists from before previews know no such member.
            tools: manifest.tools.iter().map(|tool| ManifestTool { preview: None, ..tool.clone() }).collect(),
            signals: manifest.signals.clone(),
            permissions: manifest.permissions.clone(),
            yanked: None,
        }
    }

    /// Where its package is.
    ///
    /// # Errors
    /// When the location is none, or not encrypted.
    pub fn place(&self) -> Result<HubLocation, HubError> {
        let location = &self.location;
        let bad = |reason: String| form(format!("the location of version {}: {reason}", self.version));
        if location.starts_with("oci://") {
            return OciReference::parse(location).map(HubLocation::Registry).map_err(|error| bad(error.to_string()));
        }
        if location.contains("://") {
            let address = WebAddress::parse(location).map_err(|error| bad(error.to_string()))?;
            return if address.is_encrypted() {
                Ok(HubLocation::Web(address))
            } else {
                Err(bad(format!("{} is not encrypted; write https://", address.origin())))
            };
        }
        plain_path(location).map_err(|reason| bad(reason.to_owned()))?;
        Ok(HubLocation::Below(location.clone()))
    }

    /// Whether it works with this host.
    pub fn fits_host(&self) -> bool {
        Version::parse(HOST_API).is_ok_and(|host| self.host.matches(&host))
    }

    fn check(&self, name: &PluginName) -> Result<(), HubError> {
        self.place()?;
        if self.size == 0 || self.size > MOST_PACKED {
            return Err(form(format!("{name} {} has {} bytes, {MOST_PACKED} are the most", self.version, self.size)));
        }
        let one_line = |text: &str| text.len() <= 512 && !text.chars().any(char::is_control);
        let texts = [&self.summary, &self.licence, &self.homepage].into_iter().chain(&self.yanked);
        if !texts.into_iter().all(|text| one_line(text)) {
            return Err(form(format!("a text about {name} {} is no line of 512 bytes", self.version)));
        }
        Ok(())
    }
}

impl HubIndex {
    /// An index of what there is, for its publisher.
    ///
    /// # Errors
    /// When it could not be read back.
    pub fn new(
        hub: HubName,
        description: String,
        serial: u64,
        validity: (Timestamp, Timestamp),
        plugins: BTreeMap<PluginName, HubPlugin>,
    ) -> Result<Self, HubError> {
        let (created_at, expires_at) = (format_timestamp(validity.0), format_timestamp(validity.1));
        let index = Self { format: FORMAT.to_owned(), hub, description, serial, created_at, expires_at, plugins };
        index.check()?;
        Ok(index)
    }

    /// Reads an index. Nothing is said about whether it may be used.
    ///
    /// # Errors
    /// When it is none, or anything in it is not clear.
    pub fn read(bytes: &[u8]) -> Result<Self, HubError> {
        if bytes.len() as u64 > MOST_INDEX {
            return Err(form(format!("it has more than {MOST_INDEX} bytes")));
        }
        // First the format, so that a later one is told by its name and not by its strange members.
        let unreadable = |error: serde_json::Error| form(shown(&error.to_string()));
        let outer: Outer = serde_json::from_slice(bytes).map_err(unreadable)?;
        if outer.format != FORMAT {
            return Err(form(format!("its format is '{}', and this program knows {FORMAT}", shown(&outer.format))));
        }
        let index: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        index.check()?;
        Ok(index)
    }

    /// The file.
    ///
    /// # Errors
    /// When it is too large.
    pub fn to_json(&self) -> Result<Vec<u8>, HubError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| form(error.to_string()))?;
        bytes.push(b'\n');
        if Self::read(&bytes)? == *self { Ok(bytes) } else { Err(form("it would not be read back as it was meant")) }
    }

    fn check(&self) -> Result<(), HubError> {
        let (Some(created), Some(expires)) = (instant(&self.created_at), instant(&self.expires_at)) else {
            return Err(form("its times are not readable"));
        };
        if expires <= created || expires > created.plus(LONGEST_VALIDITY) {
            return Err(form(format!("it is valid from {} to {}; a year is the most", self.created_at, self.expires_at)));
        }
        if self.serial == 0 {
            return Err(form("its serial is 0; the first index has 1"));
        }
        if self.description.len() > 512 || self.description.chars().any(char::is_control) {
            return Err(form("its description is no line of 512 bytes"));
        }
        if self.plugins.len() > MOST_PLUGINS {
            return Err(form(format!("it has more than {MOST_PLUGINS} plugins")));
        }
        for (name, plugin) in &self.plugins {
            if plugin.versions.is_empty() || plugin.versions.len() > MOST_VERSIONS {
                return Err(form(format!("{name} has no versions, or more than {MOST_VERSIONS}")));
            }
            let mut seen = BTreeSet::new();
            for version in &plugin.versions {
                version.check(name)?;
                if !seen.insert(&version.version) {
                    return Err(form(format!("{name} {} stands there twice", version.version)));
                }
            }
        }
        Ok(())
    }

    /// When its time is over.
    pub fn expires(&self) -> Timestamp {
        // Checked when it was read.
        instant(&self.expires_at).unwrap_or_default()
    }

    /// Whether its time is not over.
    ///
    /// # Errors
    /// When it is.
    pub fn in_time(&self, now: Timestamp) -> Result<(), HubError> {
        if now < self.expires() { Ok(()) } else { Err(HubError::Expired { hub: self.hub.clone(), at: self.expires_at.clone() }) }
    }

    /// The version asked for; without one the newest that works with this host, is not withdrawn and no pre-release.
    ///
    /// # Errors
    /// When there is none, or it was withdrawn and `allow_yanked` is off.
    pub fn choose(&self, name: &PluginName, version: Option<&Version>, allow_yanked: bool) -> Result<&HubVersion, HubError> {
        let hub = &self.hub;
        let versions =
            &self.plugins.get(name).ok_or_else(|| HubError::NoSuch(format!("hub {hub} has no plugin '{name}'")))?.versions;
        let listed = || {
            let mut all: Vec<&Version> = versions.iter().map(|version| &version.version).collect();
            all.sort_unstable();
            all.iter().rev().take(20).map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let none = |reason: &str| HubError::NoSuch(format!("hub {hub} has no {name} {reason}; there are {}", listed()));
        let chosen = if let Some(version) = version {
            let found = versions.iter().find(|found| found.version == *version);
            found.ok_or_else(|| none(&version.to_string()))?
        } else {
            let fits = |found: &&HubVersion| {
                found.fits_host() && (allow_yanked || found.yanked.is_none()) && found.version.pre.is_empty()
            };
            let newest = versions.iter().filter(fits).max_by(|a, b| a.version.cmp(&b.version));
            newest.ok_or_else(|| none(&format!("that works with host API {HOST_API}, is not withdrawn and no pre-release")))?
        };
        match &chosen.yanked {
            Some(reason) if !allow_yanked => Err(HubError::Yanked {
                hub: hub.clone(),
                name: name.clone(),
                version: chosen.version.clone(),
                reason: reason.clone(),
            }),
            _ => Ok(chosen),
        }
    }
}

fn instant(text: &str) -> Option<Timestamp> {
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| parse_instant(text, Timestamp::default()).ok()).flatten()
}

/// `index.json.sig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSignature {
    format: String,
    /// What is signed: the hub,
    pub hub: HubName,
    /// the number of its index,
    pub serial: u64,
    /// and the digest of every byte of it.
    pub digest: Digest,
    signed_at: String,
    /// Id of the key.
    pub key: String,
    signature: String,
}

impl IndexSignature {
    /// Signs an index.
    pub fn make(key: &PrivateKey, index: &HubIndex, digest: Digest, now: Timestamp) -> Self {
        let mut signature = Self {
            format: SIGNATURE_FORMAT.to_owned(),
            hub: index.hub.clone(),
            serial: index.serial,
            digest,
            signed_at: format_timestamp(now),
            key: key.public().id(),
            signature: String::new(),
        };
        signature.signature = key.sign_text(&signature.message());
        signature
    }

    /// Reads a signature file.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(bytes: &[u8]) -> Result<Self, HubError> {
        if bytes.len() as u64 > MOST_SIGNATURE {
            return Err(form("its signature is too large"));
        }
        let read: Self =
            serde_json::from_slice(bytes).map_err(|error| form(format!("its signature: {}", shown(&error.to_string()))))?;
        if read.format != SIGNATURE_FORMAT || read.signed_at().is_none() {
            return Err(form(format!("its signature has not the format {SIGNATURE_FORMAT}, or no readable time")));
        }
        Ok(read)
    }

    /// The file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).map(|text| text + "\n").unwrap_or_default()
    }

    /// When it says it was made.
    pub fn signed_at(&self) -> Option<Timestamp> {
        instant(&self.signed_at)
    }

    fn message(&self) -> String {
        let Self { hub, serial, digest, signed_at, .. } = self;
        format!("portcullis plugin hub index v1\n{hub}\n{serial}\n{digest}\n{signed_at}\n")
    }

    /// Whether `key` made it.
    pub(crate) fn made_by(&self, key: &PublicKey) -> bool {
        self.key == key.id() && key.verifies_text(&self.message(), &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyRole, PackageSignature, TrustRoot, TrustedKey};

    pub(crate) fn at(text: &str) -> Timestamp {
        parse_instant(text, Timestamp::default()).unwrap()
    }

    fn version(text: &str) -> HubVersion {
        let manifest = format!(
            "{{schema: 1, name: sample, version: {text}, host: ^1.0, summary: s, licence: MIT, homepage: 'https://e.org', tools: [{{name: t, risk: read}}]}}"
        );
        let manifest = Manifest::from_yaml(&manifest).unwrap();
        HubVersion::of(&manifest, text.as_bytes(), format!("packages/sample-{text}.plugin"))
    }

    fn index(versions: Vec<HubVersion>) -> HubIndex {
        let plugins = [(PluginName::new("sample").unwrap(), HubPlugin { versions })].into_iter().collect();
        let validity = (at("2026-06-01T00:00:00Z"), at("2026-07-01T00:00:00Z"));
        HubIndex::new(HubName::new("acme").unwrap(), "Of Acme".into(), 3, validity, plugins).unwrap()
    }

    #[test]
    fn the_newest_that_fits_is_chosen_and_what_was_withdrawn_is_not() {
        let mut versions: Vec<HubVersion> = ["1.2.0", "1.10.0", "2.0.0", "2.1.0-rc.1", "1.9.0", "3.0.0"].map(version).into();
        versions[2].yanked = Some("leaks".into());
        versions[5].host = VersionReq::parse("^2.0").unwrap();
        let index = index(versions);
        assert_eq!(HubIndex::read(&index.to_json().unwrap()).unwrap(), index);
        let name = PluginName::new("sample").unwrap();
        let chosen = |version: Option<&str>, yanked| {
            let version = version.map(|text| Version::parse(text).unwrap());
            index.choose(&name, version.as_ref(), yanked).map(|found| found.version.to_string()).map_err(|e| e.to_string())
        };
        assert_eq!(chosen(None, false).unwrap(), "1.10.0");
        assert_eq!(chosen(None, true).unwrap(), "2.0.0");
        assert_eq!(chosen(Some("2.1.0-rc.1"), false).unwrap(), "2.1.0-rc.1");
        let yanked = chosen(Some("2.0.0"), false).unwrap_err();
        assert!(yanked.contains("leaks") && yanked.contains("--allow-yanked"), "{yanked}");
        assert!(chosen(Some("9.0.0"), true).unwrap_err().contains("there are 3.0.0, 2.1.0-rc.1, 2.0.0"));
        let other = index.choose(&PluginName::new("other").unwrap(), None, false).unwrap_err().to_string();
        assert!(other.contains("hub acme has no plugin 'other'"), "{other}");
    }

    #[test]
    fn what_is_not_clear_is_no_index() {
        let text = String::from_utf8(index(vec![version("1.0.0"), version("1.1.0")]).to_json().unwrap()).unwrap();
        for (from, to, says) in [
            ("portcullis-plugin-hub/1", "portcullis-plugin-hub/2", "this program knows"),
            ("\"serial\": 3", "\"serial\": 0", "serial is 0"),
            ("\"serial\": 3", "\"serial\": -3", "invalid value"),
            ("\"serial\": 3", "\"serial\": 3, \"serial\": 4", "duplicate field"),
            ("\"description\"", "\"descriptions\"", "unknown field"),
            ("2026-07-01T00:00:00Z", "2028-07-01T00:00:00Z", "a year is the most"),
            ("2026-07-01T00:00:00Z", "2026-05-01T00:00:00Z", "it is valid from"),
            ("2026-07-01T00:00:00Z", "now+1h", "not readable"),
            ("\"version\": \"1.1.0\"", "\"version\": \"1.0.0\"", "twice"),
            ("packages/sample-1.0.0.plugin", "../sample-1.0.0.plugin", "location"),
            ("packages/sample-1.0.0.plugin", "/etc/passwd", "location"),
            ("packages/sample-1.0.0.plugin", "http://host/x", "not encrypted"),
            ("packages/sample-1.0.0.plugin", "file:///etc/passwd", "location"),
            ("packages/sample-1.0.0.plugin", "oci://host/x", "neither a tag nor a digest"),
            ("\"size\": 5", "\"size\": 99999999999", "are the most"),
            ("\"Of Acme\"", "\"Of\\u001b[31m Acme\"", "description"),
            ("\"acme\"", "\"../acme\"", "no name of a hub"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = HubIndex::read(text.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{from} -> {to}: {error}");
        }
        assert!(HubIndex::read(b"{}").is_err() && HubIndex::read(b"").is_err());
        assert!(HubIndex::read("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn a_hub_key_vouches_for_lists_and_a_package_key_does_not() {
        let key = PrivateKey::generate().unwrap();
        let now = at("2026-06-02T00:00:00Z");
        let index = index(vec![version("1.0.0")]);
        let digest = Digest::of(&index.to_json().unwrap());
        let signature = IndexSignature::make(&key, &index, digest, now);
        assert_eq!(IndexSignature::read(signature.to_json().as_bytes()).unwrap(), signature);
        let root = |roles: Vec<KeyRole>, hubs: &[&str]| TrustRoot {
            keys: vec![TrustedKey {
                id: key.public().id(),
                public: key.public(),
                owner: "Acme".into(),
                roles,
                plugins: Vec::new(),
                hubs: hubs.iter().map(|name| (*name).to_owned()).collect(),
                not_before: "2026-01-01T00:00:00Z".into(),
                not_after: "2027-01-01T00:00:00Z".into(),
                revoked: None,
            }],
            ..TrustRoot::default()
        };
        let says = |root: &TrustRoot, signature: &IndexSignature, serial, now| match root
            .verify_index(&index.hub, serial, digest, signature, now)
        {
            Ok(_) => "yes".to_owned(),
            Err(error) => error.to_string(),
        };
        let hub = root(vec![KeyRole::Hub], &[]);
        assert_eq!(says(&hub, &signature, 3, now), "yes");
        assert_eq!(says(&root(vec![KeyRole::Package, KeyRole::Hub], &["acme"]), &signature, 3, now), "yes");
        assert!(says(&root(vec![KeyRole::Package], &[]), &signature, 3, now).contains("no indexes of hubs"));
        assert!(says(&root(vec![KeyRole::Hub], &["other"]), &signature, 3, now).contains("hubs other only"));
        assert!(says(&hub, &signature, 4, now).contains("do not belong together"));
        assert!(says(&hub, &signature, 3, at("2028-01-01T00:00:00Z")).contains("in its time"));
        assert!(says(&hub, &signature, 3, at("2026-06-01T00:00:00Z")).contains("yet to come"));
        let mut forged = signature.clone();
        forged.signed_at = "2026-06-01T00:00:00Z".into();
        assert!(says(&hub, &forged, 3, now).contains("not made by key"));
        assert!(says(&TrustRoot::default(), &signature, 3, now).contains("not in the trust root"));
        // The same key without that role vouches for no package, whatever the list says.
        let manifest = "{schema: 1, name: sample, version: 1.0.0, host: ^1.0, summary: s, licence: MIT, homepage: 'https://e.org', tools: [{name: t, risk: read}]}";
        let manifest = Manifest::from_yaml(manifest).unwrap();
        let package: PackageSignature = key.sign(&manifest, digest, now);
        let refused = hub.verify(&manifest, digest, Some(&package), crate::Occasion::Install, now).unwrap_err().to_string();
        assert!(refused.contains("no packages"), "{refused}");
    }
}
