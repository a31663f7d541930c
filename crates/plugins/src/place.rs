//! Where packages come from, as an operator writes it: a file, an address, a registry, a name in a hub. Guards that what is
//! written means one thing and that nothing in it is a credential. Must not reach for anything.

use std::fmt;
use std::path::{Path, PathBuf};

use semver::Version;
use url::Url;

use crate::{Digest, HubName, ManifestError, PluginName};

/// Longest address.
const LONGEST: usize = 4_000;

/// A text that names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{shown}' is no place of a package: {reason}; write {example}")]
pub struct InvalidPlace {
    shown: String,
    reason: String,
    example: &'static str,
}

fn invalid(text: &str, reason: impl Into<String>, example: &'static str) -> InvalidPlace {
    // What stands before an '@' in an authority may be a password.
    let shown = match text.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}/{}", path.split(['?', '#']).next().unwrap_or_default())
        }
        None => text.to_owned(),
    };
    let shown = shown.chars().filter(|c| portcullis_guard::is_seen(*c)).take(200).collect();
    InvalidPlace { shown, reason: reason.into(), example }
}

const WEB_EXAMPLE: &str = "https://host/path/NAME-VERSION.plugin";
const OCI_EXAMPLE: &str = "oci://registry.example.com/team/plugin:1.0.0, or …/plugin@sha256:…";
const HUB_EXAMPLE: &str = "NAME, NAME@1.2.3 or HUB/NAME@1.2.3";

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackagePlace {
    /// A file, with its signature beside it.
    File(PathBuf),
    /// `https://…`, with the signature at the same path and `.sig`.
    Web(WebAddress),
    /// `oci://…`: an OCI registry.
    Registry(OciReference),
    /// A name in a hub.
    Hub(HubEntryName),
}

impl PackagePlace {
    /// Reads what an operator wrote. A file of that name goes before a name in a hub.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Self, InvalidPlace> {
        match text.split_once("://") {
            Some(("http" | "https", _)) => WebAddress::parse(text).map(Self::Web),
            Some(("oci", _)) => OciReference::parse(text).map(Self::Registry),
            Some((scheme, _)) => {
                let reason = format!("packages are not fetched over {scheme}://");
                Err(invalid(text, reason, "a file, https://…, oci://…, or a name in a hub"))
            }
            None if Path::new(text).is_file() => Ok(Self::File(PathBuf::from(text))),
            None => Ok(HubEntryName::parse(text).map_or_else(|_| Self::File(PathBuf::from(text)), Self::Hub)),
        }
    }
}

impl fmt::Display for PackagePlace {
    /// For persons and records: without the query of an address, which may hold a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Web(address) => address.fmt(f),
            Self::Registry(reference) => reference.fmt(f),
            Self::Hub(name) => name.fmt(f),
        }
    }
}

/// An `https://` address, or an `http://` one, which only goes further where the operator says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebAddress {
    url: Url,
}

impl WebAddress {
    /// Reads an address.
    ///
    /// # Errors
    /// When it has another scheme, credentials, or a fragment.
    pub fn parse(text: &str) -> Result<Self, InvalidPlace> {
        let bad = |reason: &str| Err(invalid(text, reason, WEB_EXAMPLE));
        if text.len() > LONGEST || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return bad("it is too long, or holds blanks, backslashes or control characters");
        }
        // A URL parser takes the first part of the path for a host that is not there.
        if text.split_once("://").is_none_or(|(_, rest)| rest.starts_with('/')) {
            return bad("it has no host");
        }
        let Ok(url) = Url::parse(text) else { return bad("it is no address") };
        if url.as_str().len() > LONGEST {
            return bad("it is too long");
        }
        if !matches!(url.scheme(), "http" | "https") {
            return bad("only https is spoken");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return bad("it holds credentials, which belong into plugins.sources or --username and --password");
        }
        if url.fragment().is_some() {
            return bad("it has a fragment");
        }
        if url.host_str().is_none_or(str::is_empty) || url.port() == Some(0) {
            return bad("it has no host, or port 0");
        }
        Ok(Self { url })
    }

    /// `scheme://host:port`.
    pub fn origin(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        format!("{}://{host}:{}", self.url.scheme(), self.url.port_or_known_default().unwrap_or_default())
    }

    /// Whether it is encrypted on the way.
    pub fn is_encrypted(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The path alone.
    pub(crate) fn path(&self) -> &str {
        self.url.path()
    }

    /// Path and query, as they are asked for.
    pub(crate) fn reference(&self) -> String {
        let query = self.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{query}", self.url.path())
    }

    /// The same with a query in place of its own.
    pub(crate) fn with_query(&self, pairs: &[(&str, &str)]) -> Self {
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(pairs);
        Self { url }
    }

    /// The file of that ending beside it, such as `.sig`.
    #[must_use]
    pub fn beside(&self, ending: &str) -> Self {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{ending}", self.url.path()));
        Self { url }
    }

    /// A file below the folder this is.
    ///
    /// # Errors
    /// When `path` is not made of plain names, so that it could lead anywhere else.
    pub fn below(&self, path: &str) -> Result<Self, InvalidPlace> {
        plain_path(path).map_err(|reason| invalid(path, reason, "a path of plain names such as packages/NAME-1.0.0.plugin"))?;
        let mut url = self.url.clone();
        {
            let parts = url.path_segments_mut();
            let mut parts = parts.map_err(|()| invalid(path, "there is nothing below this address", WEB_EXAMPLE))?;
            parts.pop_if_empty().extend(path.split('/'));
        }
        Ok(Self { url })
    }

    /// Where a server says to look instead, from here.
    pub(crate) fn join(&self, location: &str) -> Result<Self, InvalidPlace> {
        let joined = self.url.join(location).map_err(|_| invalid(location, "it is no address", WEB_EXAMPLE))?;
        let mut without_fragment = joined;
        without_fragment.set_fragment(None);
        Self::parse(without_fragment.as_str())
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        shown.set_query(None);
        f.write_str(shown.as_str())
    }
}

/// A path of plain names below a folder, in words what is wrong with it.
pub(crate) fn plain_path(path: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    if path.is_empty() || path.len() > 512 {
        return Err("it is empty or too long");
    }
    for part in path.split('/') {
        if part.is_empty() || part.starts_with('.') || !part.chars().all(plain) {
            return Err("its parts must be letters, digits, '-', '_', '+' and '.', and none may begin with '.'");
        }
    }
    Ok(())
}

/// `oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:…]` (OCI distribution specification 1.1, "Pulling manifests").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciReference {
    authority: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl OciReference {
    /// Reads a reference. It must have a tag, a digest or both: there is no `latest` unless it is written.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidPlace> {
        let bad = |reason: &str| invalid(text, reason, OCI_EXAMPLE);
        let rest = text.strip_prefix("oci://").ok_or_else(|| bad("it does not begin with oci://"))?;
        if text.len() > LONGEST || !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad("it is too long, or holds blanks or letters beyond ASCII"));
        }
        let (authority, rest) = rest.split_once('/').ok_or_else(|| bad("it has no repository"))?;
        if authority.contains(['@', '?', '#', '%', '\\']) {
            return Err(bad("what stands before the first '/' is a host and a port, without credentials"));
        }
        let origin = portcullis_egress::origin_of(&format!("https://{authority}")).map_err(|_| bad("it has no host"))?;
        let authority = origin.trim_start_matches("https://").to_owned();
        let (rest, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(|error| bad(&format!("behind '@': {error}")))?)),
        };
        let (repository, tag) = match rest.split_once(':') {
            None => (rest, None),
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
        };
        if !is_repository(repository) {
            return Err(bad("a repository is lower-case letters and digits, parted by '/', '.', '_' and '-'"));
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag is at most 128 letters, digits, '_', '.' and '-'"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(bad("it has neither a tag nor a digest"));
        }
        Ok(Self { authority, repository: repository.to_owned(), tag, digest })
    }

    /// `host:port`, the port always written; that of the registry behind the name `docker.io`.
    pub fn authority(&self) -> &str {
        match self.authority.as_str() {
            "docker.io:443" | "index.docker.io:443" => "registry-1.docker.io:443",
            other => other,
        }
    }

    /// The repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest of the manifest.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same, pinned to a manifest.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.authority.strip_suffix(":443").unwrap_or(&self.authority);
        write!(f, "oci://{authority}/{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/…)*`
fn is_repository(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |part: &str| {
        let separators = part.split(|c: char| u8::try_from(c).is_ok_and(word)).filter(|between| !between.is_empty());
        let fits = |between: &str| matches!(between, "." | "_" | "__") || between.bytes().all(|b| b == b'-');
        part.bytes().next().is_some_and(word) && part.bytes().last().is_some_and(word) && separators.into_iter().all(fits)
    };
    text.len() <= 255 && text.split('/').all(part)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128 && text.bytes().next().is_some_and(word) && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// `[HUB/]NAME[@VERSION]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubEntryName {
    /// The hub; any that has the plugin when absent.
    pub hub: Option<HubName>,
    /// The plugin.
    pub name: PluginName,
    /// The version; the newest that fits when absent.
    pub version: Option<Version>,
}

impl HubEntryName {
    /// Reads a name.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidPlace> {
        let (rest, version) = match text.split_once('@') {
            None => (text, None),
            Some((rest, version)) => {
                let version = Version::parse(version);
                (rest, Some(version.map_err(|error| invalid(text, format!("behind '@': {error}"), HUB_EXAMPLE))?))
            }
        };
        let (hub, name) = rest.split_once('/').map_or((None, rest), |(hub, name)| (Some(hub), name));
        let bad = |error: ManifestError| invalid(text, error.to_string(), HUB_EXAMPLE);
        Ok(Self {
            hub: hub.map(HubName::new).transpose().map_err(|error| invalid(text, error.to_string(), HUB_EXAMPLE))?,
            name: PluginName::new(name).map_err(bad)?,
            version,
        })
    }
}

impl fmt::Display for HubEntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(hub) = &self.hub {
            write!(f, "{hub}/")?;
        }
        f.write_str(self.name.as_str())?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn registry_references_are_read_and_written() {
        for (text, authority, repository, tag, digest) in [
            ("oci://ghcr.io/acme/datadog:1.0.0", "ghcr.io:443", "acme/datadog", Some("1.0.0"), false),
            ("oci://localhost:5000/a", "localhost:5000", "a", None, true),
            ("oci://127.0.0.1:5000/a__b/c-d.e--f:v_1", "127.0.0.1:5000", "a__b/c-d.e--f", Some("v_1"), true),
            ("oci://[::1]:5000/a:latest", "[::1]:5000", "a", Some("latest"), false),
        ] {
            let text = if digest { format!("{text}@{DIGEST}") } else { text.to_owned() };
            let read = OciReference::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((read.authority(), read.repository(), read.tag()), (authority, repository, tag));
            assert_eq!(read.digest().is_some(), digest);
            assert_eq!(read.to_string(), text);
        }
        assert_eq!(OciReference::parse("oci://docker.io/library/a:1").unwrap().authority(), "registry-1.docker.io:443");
    }

    #[test]
    fn what_is_no_registry_reference_is_refused_with_an_example() {
        for text in [
            "oci://",
            "oci:///a:1",
            "oci://host",
            "oci://host/",
            "oci://host/a",
            "oci://host/A:1",
            "oci://host/a/../b:1",
            "oci://host/a//b:1",
            "oci://host/.a:1",
            "oci://host/a_:1",
            "oci://host/a___b:1",
            "oci://host/a._b:1",
            "oci://host/a:",
            "oci://host/a:.x",
            "oci://host/a:x/y",
            "oci://host/a@sha256:12",
            "oci://host/a@sha512:12",
            "oci://user:hunter2@host/a:1",
            "oci://ho st/a:1",
            "oci://host/a:1?x=y",
            "oci://host/a%2fb:1",
            "oci://host\\evil/a:1",
            "https://host/a:1",
            "oci://host:0/a:1",
            "oci://höst/a:1",
        ] {
            let error = OciReference::parse(text).expect_err(text).to_string();
            assert!(error.contains("oci://registry.example.com") && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_hold_no_credentials_and_lead_nowhere_else() {
        let address = WebAddress::parse("https://Host.example/a/x.plugin?token=hunter2").unwrap();
        assert_eq!(address.origin(), "https://host.example:443");
        assert_eq!(address.reference(), "/a/x.plugin?token=hunter2");
        assert_eq!(address.to_string(), "https://host.example/a/x.plugin", "the query may be a credential");
        assert_eq!(address.beside(".sig").reference(), "/a/x.plugin.sig?token=hunter2");
        for text in [
            "https://u:hunter2@host/x",
            "https://u@host/x",
            "https://host/x#y",
            "ftp://host/x",
            "https://",
            "https:///x",
            "https:x",
            "https://ho st/",
        ] {
            let error = WebAddress::parse(text).expect_err(text).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let folder = WebAddress::parse("https://host/hub/").unwrap();
        assert_eq!(folder.below("packages/a-1.0.0+b.plugin").unwrap().reference(), "/hub/packages/a-1.0.0+b.plugin");
        for path in
            ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/.b", "a b", "a%2e", "https://evil/x", "a\\b", "a?b", "a\0"]
        {
            assert!(folder.below(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn what_an_operator_writes_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("probe");
        std::fs::write(&file, "x").unwrap();
        let kinds = |text: &str| match PackagePlace::parse(text) {
            Ok(PackagePlace::File(_)) => "file",
            Ok(PackagePlace::Web(_)) => "web",
            Ok(PackagePlace::Registry(_)) => "registry",
            Ok(PackagePlace::Hub(_)) => "hub",
            Err(_) => "none",
        };
        for (text, kind) in [
            (file.to_str().unwrap(), "file"),
            ("probe", "hub"),
            ("acme/probe@1.2.3", "hub"),
            ("probe@one", "file"),
            ("./probe-1.0.0.plugin", "file"),
            ("probe-1.0.0.plugin", "file"),
            ("https://host/x", "web"),
            ("http://host/x", "web"),
            ("oci://host/x:1", "registry"),
            ("ftp://host/x", "none"),
            ("file:///x", "none"),
        ] {
            assert_eq!(kinds(text), kind, "{text}");
        }
    }
}
