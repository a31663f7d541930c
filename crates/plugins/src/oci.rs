//! What registries say: manifests (OCI image specification 1.1, "Guidelines for Artifact Usage") and challenges (RFC 9110,
//! and the distribution project's token authentication). Guards that a manifest is a plugin's, of one package and at most
//! one signature, each named by a SHA-256 and a size. Must not follow the addresses a descriptor may bring.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::package::MOST_PACKED;
use crate::signature::MOST_SIGNATURE;
use crate::{Digest, Manifest};

/// Media type of an image manifest.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a list of manifests.
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// What a plugin's manifest says it is.
pub(crate) const ARTIFACT_TYPE: &str = "application/vnd.portcullis.plugin.v1";
/// Media type of the package.
pub(crate) const PACKAGE_TYPE: &str = "application/vnd.portcullis.plugin.package.v1.tar+zstd";
/// Media type of its signature.
pub(crate) const SIGNATURE_TYPE: &str = "application/vnd.portcullis.plugin.signature.v1+json";
/// Media type of the configuration an artifact does not have.
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// Its content.
pub(crate) const EMPTY: &[u8] = b"{}";
/// Largest manifest.
pub(crate) const MOST_MANIFEST: u64 = 256 << 10;
/// Most layers that are looked at.
const MOST_LAYERS: usize = 16;

/// A manifest that is no plugin's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OciError(String);

fn wrong(reason: impl Into<String>) -> OciError {
    OciError(reason.into())
}

/// A blob a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Blob {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }
}

/// What the manifest of a plugin names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginManifest {
    /// The package.
    pub package: Blob,
    /// Its signature.
    pub signature: Option<Blob>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn new(media_type: &str, blob: Blob, title: Option<String>) -> Self {
        let annotations = title.map(|title| ("org.opencontainers.image.title".to_owned(), title)).into_iter().collect();
        Self { media_type: media_type.to_owned(), digest: blob.digest.to_string(), size: blob.size, annotations }
    }

    fn blob(&self, what: &str, most: u64) -> Result<Blob, OciError> {
        let digest = Digest::parse(&self.digest).map_err(|error| wrong(format!("the digest of the {what}: {error}")))?;
        if self.size == 0 || self.size > most {
            return Err(wrong(format!("the {what} has {} bytes, {most} are the most", self.size)));
        }
        Ok(Blob { digest, size: self.size })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageManifest {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    /// What it is about, of a manifest that is attached to another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl PluginManifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is none, is too large, or names anything but one package and at most one signature.
    pub fn read(bytes: &[u8]) -> Result<Self, OciError> {
        if bytes.len() as u64 > MOST_MANIFEST {
            return Err(wrong(format!("the manifest has more than {MOST_MANIFEST} bytes")));
        }
        let read: ImageManifest = serde_json::from_slice(bytes)
            .map_err(|error| wrong(format!("the manifest cannot be read: {}", shown(&error.to_string()))))?;
        if read.schema_version != 2 || read.media_type.as_deref().is_some_and(|media_type| media_type != MANIFEST_TYPE) {
            return Err(wrong(format!("it is no {MANIFEST_TYPE}")));
        }
        if read.artifact_type.as_deref() != Some(ARTIFACT_TYPE) {
            let found = shown(read.artifact_type.as_deref().unwrap_or("nothing"));
            return Err(wrong(format!("its artifactType is {found}, and that of a plugin is {ARTIFACT_TYPE}")));
        }
        if read.layers.len() > MOST_LAYERS {
            return Err(wrong("it has more layers than a plugin"));
        }
        let (mut package, mut signature) = (None, None);
        for layer in &read.layers {
            let (place, what, most) = match layer.media_type.as_str() {
                PACKAGE_TYPE => (&mut package, "package", MOST_PACKED),
                SIGNATURE_TYPE => (&mut signature, "signature", MOST_SIGNATURE),
                other => return Err(wrong(format!("it has a layer of type {}, which no plugin has", shown(other)))),
            };
            if place.replace(layer.blob(what, most)?).is_some() {
                return Err(wrong(format!("it names more than one {what}")));
            }
        }
        Ok(Self { package: package.ok_or_else(|| wrong("it names no package"))?, signature })
    }

    /// The manifest of a package; the same content gives the same bytes.
    ///
    /// # Errors
    /// When it could not be read back.
    pub fn write(&self, manifest: &Manifest) -> Result<Vec<u8>, OciError> {
        let file = format!("{}-{}.plugin", manifest.name, manifest.version);
        let mut layers = vec![Descriptor::new(PACKAGE_TYPE, self.package, Some(file.clone()))];
        layers.extend(self.signature.map(|blob| Descriptor::new(SIGNATURE_TYPE, blob, Some(format!("{file}.sig")))));
        let annotation = |name: &str, value: &str| (format!("org.opencontainers.image.{name}"), value.to_owned());
        let written = ImageManifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.to_owned()),
            artifact_type: Some(ARTIFACT_TYPE.to_owned()),
            config: Descriptor::new(EMPTY_TYPE, Blob::of(EMPTY), None),
            layers,
            subject: None,
            annotations: [
                annotation("title", manifest.name.as_str()),
                annotation("version", &manifest.version.to_string()),
                annotation("description", &manifest.summary),
                annotation("licenses", &manifest.licence),
                annotation("url", &manifest.homepage),
            ]
            .into_iter()
            .collect(),
        };
        let bytes = serde_json::to_vec(&written).map_err(|error| wrong(error.to_string()))?;
        if Self::read(&bytes)? == *self { Ok(bytes) } else { Err(wrong("the manifest would not be read back as it was meant")) }
    }
}

/// A signature that is attached to the manifest of a plugin (image specification 1.1, `subject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttachedSignature {
    /// The manifest it is attached to.
    pub(crate) subject: Blob,
    /// The signature.
    pub(crate) signature: Blob,
}

impl AttachedSignature {
    /// Reads the manifest of one.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, OciError> {
        let read: ImageManifest = serde_json::from_slice(bytes)
            .map_err(|error| wrong(format!("the manifest of a signature cannot be read: {}", shown(&error.to_string()))))?;
        if read.artifact_type.as_deref() != Some(SIGNATURE_TYPE) {
            return Err(wrong("it is no signature of a plugin"));
        }
        let subject = read.subject.ok_or_else(|| wrong("the signature is attached to nothing"))?;
        let [layer] = read.layers.as_slice() else { return Err(wrong("the signature has more than one part, or none")) };
        if layer.media_type != SIGNATURE_TYPE {
            return Err(wrong(format!("it has a layer of type {}, which no signature has", shown(&layer.media_type))));
        }
        Ok(Self {
            subject: subject.blob("manifest it is attached to", MOST_MANIFEST)?,
            signature: layer.blob("signature", MOST_SIGNATURE)?,
        })
    }

    /// Its manifest; the same content gives the same bytes.
    pub(crate) fn write(self) -> Result<Vec<u8>, OciError> {
        let written = ImageManifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.to_owned()),
            artifact_type: Some(SIGNATURE_TYPE.to_owned()),
            config: Descriptor::new(EMPTY_TYPE, Blob::of(EMPTY), None),
            layers: vec![Descriptor::new(SIGNATURE_TYPE, self.signature, None)],
            subject: Some(Descriptor::new(MANIFEST_TYPE, self.subject, None)),
            annotations: BTreeMap::new(),
        };
        serde_json::to_vec(&written).map_err(|error| wrong(error.to_string()))
    }
}

/// What is attached to a manifest, as a registry lists it or a tag of that name holds it (distribution specification 1.1,
/// "Listing Referrers" and "Referrers Tag Schema"). What others attached is kept as it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Referrers(serde_json::Map<String, serde_json::Value>);

impl Default for Referrers {
    fn default() -> Self {
        let empty = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []});
        Self(empty.as_object().cloned().unwrap_or_default())
    }
}

impl Referrers {
    /// Reads a list.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, OciError> {
        let read = serde_json::from_slice::<serde_json::Value>(bytes);
        match read {
            Ok(serde_json::Value::Object(index)) if index.get("manifests").is_some_and(serde_json::Value::is_array) => {
                Ok(Self(index))
            }
            Ok(_) => Err(wrong("what is attached is no list of manifests")),
            Err(error) => Err(wrong(format!("what is attached cannot be read: {}", shown(&error.to_string())))),
        }
    }

    /// Adds what stands on another page of the same list.
    pub(crate) fn extend(&mut self, page: Self) {
        let more = page.0.into_iter().find(|(name, _)| name == "manifests").map(|(_, more)| more);
        if let (Some(serde_json::Value::Array(entries)), Some(serde_json::Value::Array(more))) =
            (self.0.get_mut("manifests"), more)
        {
            entries.extend(more);
        }
    }

    fn entries(&self) -> impl Iterator<Item = &serde_json::Value> {
        self.0.get("manifests").and_then(serde_json::Value::as_array).into_iter().flatten()
    }

    /// Digests of the manifests of signatures among it. An entry without a type may be one, and comes last.
    pub(crate) fn signatures(&self) -> Vec<Digest> {
        let digest = |entry: &serde_json::Value| Digest::parse(entry.get("digest")?.as_str()?).ok();
        let named = self.entries().filter(|entry| entry.get("artifactType").is_some_and(|of| of == SIGNATURE_TYPE));
        let nameless = self.entries().filter(|entry| entry.get("artifactType").is_none());
        named.chain(nameless).filter_map(digest).collect()
    }

    /// Adds the manifest of a signature. Whether it was not there.
    pub(crate) fn add(&mut self, manifest: &[u8]) -> bool {
        let blob = Blob::of(manifest);
        if self.signatures().contains(&blob.digest) {
            return false;
        }
        let entry = serde_json::json!({"mediaType": MANIFEST_TYPE, "digest": blob.digest.to_string(), "size": blob.size,
            "artifactType": SIGNATURE_TYPE});
        if let Some(serde_json::Value::Array(entries)) = self.0.get_mut("manifests") {
            entries.push(entry);
        }
        true
    }

    pub(crate) fn write(&self) -> Result<Vec<u8>, OciError> {
        serde_json::to_vec(&self.0).map_err(|error| wrong(error.to_string()))
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| portcullis_guard::is_seen(*c)).take(200).collect()
}

/// What a server wants to be shown, of `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password.
    Basic,
    /// A token of another place.
    Bearer {
        /// Where to ask for it.
        realm: String,
        /// For whom.
        service: Option<String>,
    },
}

impl Challenge {
    /// The challenges in one header. Schemes that are not known are left out.
    pub fn read(header: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut rest = header.get(..8_192.min(header.len())).unwrap_or_default();
        while let Some((scheme, parameters, after)) = challenge(rest) {
            match scheme.to_ascii_lowercase().as_str() {
                "basic" => found.push(Self::Basic),
                "bearer" => {
                    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
                    if let Some(realm) = get("realm") {
                        found.push(Self::Bearer { realm, service: get("service") });
                    }
                }
                _ => {}
            }
            rest = after;
        }
        found
    }
}

type Parameters = Vec<(String, String)>;

/// One scheme with its parameters, and what follows.
fn challenge(text: &str) -> Option<(&str, Parameters, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let end = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
    let (scheme, mut rest) = text.split_at_checked(end).filter(|(scheme, _)| !scheme.is_empty())?;
    let mut parameters = Vec::new();
    while let Some((name, value, after)) = parameter(rest) {
        parameters.push((name.to_ascii_lowercase(), value));
        rest = after;
    }
    // What is neither a parameter nor another scheme ends the reading.
    let next = rest.trim_start_matches([' ', '\t', ',']);
    let goes_on = next.chars().next().is_some_and(is_token) && next.len() < text.len();
    Some((scheme, parameters, if goes_on { next } else { "" }))
}

/// `name=value` or `name="value"`, and what follows.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_end_matches([' ', '\t']);
    if name.is_empty() || !name.chars().all(is_token) {
        return None;
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        return Some((name, rest[..end].to_owned(), &rest[end..])).filter(|(_, value, _)| !value.is_empty());
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((name, value, &quoted[at + 1..])),
            c => value.push(c),
        }
    }
    None
}

/// A character of a token (RFC 9110 section 5.6.2).
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = "{schema: 1, name: sample, version: 1.0.0, host: ^1.0, summary: s, licence: MIT, homepage: 'https://e.org', tools: [{name: t, risk: read}]}";
        Manifest::from_yaml(text).unwrap()
    }

    fn written() -> (PluginManifest, String) {
        let plugin = PluginManifest { package: Blob::of(b"package"), signature: Some(Blob::of(b"signature")) };
        let bytes = plugin.write(&manifest()).unwrap();
        assert_eq!(bytes, plugin.write(&manifest()).unwrap());
        (plugin, String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_manifest_is_read_back_also_with_members_of_others() {
        let (plugin, text) = written();
        assert_eq!(PluginManifest::read(text.as_bytes()).unwrap(), plugin);
        let more = text.replacen('{', r#"{"subject":null,"x":{"urls":["http://169.254.169.254/"]},"#, 1);
        assert_eq!(PluginManifest::read(more.as_bytes()).unwrap(), plugin);
        let unsigned = PluginManifest { signature: None, ..plugin };
        assert_eq!(PluginManifest::read(&unsigned.write(&manifest()).unwrap()).unwrap(), unsigned);
    }

    #[test]
    fn what_is_no_plugin_is_refused_and_said() {
        let (plugin, text) = written();
        let package = plugin.package.digest.to_string();
        for (from, to, says) in [
            ("\"schemaVersion\":2", "\"schemaVersion\":1", "no application/vnd.oci.image.manifest"),
            ("image.manifest.v1+json", "image.index.v1+json", "no application/vnd.oci.image.manifest"),
            (ARTIFACT_TYPE, "application/vnd.acme.helm\\u001b[31m", "artifactType is application/vnd.acme.helm[31m"),
            (PACKAGE_TYPE, "application/x-sh", "layer of type application/x-sh"),
            (SIGNATURE_TYPE, PACKAGE_TYPE, "more than one package"),
            (PACKAGE_TYPE, SIGNATURE_TYPE, "more than one signature"),
            (package.as_str(), "sha512:00", "digest of the package"),
            (package.as_str(), "sha256:../../../etc/passwd", "digest of the package"),
            ("\"size\":7", "\"size\":67108865", "are the most"),
            ("\"size\":7", "\"size\":0", "are the most"),
            ("\"size\":7", "\"size\":-1", "cannot be read"),
            ("\"size\":7", "\"size\":7,\"size\":8", "duplicate"),
            ("\"layers\":[", "\"layers\":[[", "cannot be read"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = PluginManifest::read(text.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains('\u{1b}'), "{from} -> {to}: {error}");
        }
        let none = serde_json::json!({"schemaVersion": 2, "artifactType": ARTIFACT_TYPE, "layers": [],
            "config": {"mediaType": "x", "digest": "y", "size": 2}});
        assert!(PluginManifest::read(none.to_string().as_bytes()).unwrap_err().to_string().contains("no package"));
        assert!(PluginManifest::read(&vec![b' '; 1 << 20]).unwrap_err().to_string().contains("more than"));
        assert!(PluginManifest::read("[".repeat(200_000).as_bytes()).is_err());
    }

    #[test]
    fn a_signature_is_attached_to_one_manifest_and_what_others_attached_is_kept() {
        let attached = AttachedSignature { subject: Blob::of(b"manifest"), signature: Blob::of(b"signature") };
        let bytes = attached.write().unwrap();
        assert_eq!(AttachedSignature::read(&bytes).unwrap(), attached);
        let text = String::from_utf8(bytes.clone()).unwrap();
        for (from, to, says) in [
            ("\"subject\"", "\"object\"", "attached to nothing"),
            (SIGNATURE_TYPE, "application/x-sh", "no signature of a plugin"),
            ("\"layers\":[", "\"layers\":[{\"mediaType\":\"x\",\"digest\":\"y\",\"size\":1},", "more than one part"),
        ] {
            let error = AttachedSignature::read(text.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{from}: {error}");
        }
        let foreign = serde_json::json!({"mediaType": MANIFEST_TYPE, "digest": Blob::of(b"x").digest.to_string(), "size": 1,
            "artifactType": "application/vnd.acme.sbom", "annotations": {"a": "b"}});
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [foreign]});
        let mut list = Referrers::read(index.to_string().as_bytes()).unwrap();
        assert!(list.signatures().is_empty() && list.add(&bytes) && !list.add(&bytes));
        let again = Referrers::read(&list.write().unwrap()).unwrap();
        assert_eq!((again.signatures(), again.entries().next()), (vec![Digest::of(&bytes)], Some(&foreign)));
        // One without a type may be one too, after those that are.
        let nameless = serde_json::json!({"mediaType": MANIFEST_TYPE, "digest": Digest::of(b"y").to_string(), "size": 1});
        let index = serde_json::json!({"manifests": [nameless]});
        let mut list = Referrers::read(index.to_string().as_bytes()).unwrap();
        assert!(list.add(&bytes));
        assert_eq!(list.signatures(), [Digest::of(&bytes), Digest::of(b"y")]);
        for bad in ["", "[]", "{}", r#"{"manifests": {}}"#] {
            assert!(Referrers::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#,
                vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"))],
            ),
            (r#"bearer service = x , realm="https://a/\"b""#, vec![bearer("https://a/\"b", Some("x"))]),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("Basic", vec![Challenge::Basic]),
            (
                r#"Negotiate, Basic realm="x", Bearer realm="https://a/", error="x""#,
                vec![Challenge::Basic, bearer("https://a/", None)],
            ),
            (r#"Digest realm="x, Bearer realm=\"https://evil/\"", nonce="y""#, vec![]),
            (r#"Bearer realm="https://unfinished"#, vec![]),
            ("", vec![]),
            ("\"\"", vec![]),
            (",,,", vec![]),
        ] {
            assert_eq!(Challenge::read(header), expected, "{header}");
        }
    }
}
