//! A description as it was read: bounded, of a version that is known, with references that stay inside. Must not follow a
//! reference to anywhere else, whatever the description says.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Most references followed in a row.
const MOST_HOPS: usize = 16;

/// A description that cannot be used. For the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Too many bytes.
    #[error("it has {found} bytes, at most {most} are read (max_spec)")]
    TooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        most: u64,
    },
    /// Another one than was looked at.
    #[error("its SHA-256 is {found}, and the configuration wants {wanted}: look at what changed, then change spec.sha256")]
    OtherDigest {
        /// Its digest.
        found: String,
        /// The configured one.
        wanted: String,
    },
    /// Neither JSON nor YAML.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Not a description this reads.
    #[error("{0}")]
    Version(String),
}

/// Why a reference leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReferenceError {
    #[error("it refers to '{0}', and nothing outside of the description is read")]
    Remote(String),
    #[error("it refers to '{0}', which is not in the description")]
    Missing(String),
    #[error("its references lead in a circle")]
    Circle,
}

/// A description.
#[derive(Debug)]
pub(crate) struct Document {
    root: Value,
    /// `3.0.3`, `3.1.0`.
    pub(crate) version: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub(crate) digest: String,
}

/// The digest of a description, hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Document {
    /// Reads JSON or YAML.
    ///
    /// # Errors
    /// See [`DocumentError`].
    pub(crate) fn read(bytes: &[u8], most: u64, pin: Option<&str>) -> Result<Self, DocumentError> {
        if bytes.len() as u64 > most {
            return Err(DocumentError::TooLarge { found: bytes.len(), most });
        }
        let digest = digest(bytes);
        if let Some(wanted) = pin.filter(|wanted| !wanted.eq_ignore_ascii_case(&digest)) {
            return Err(DocumentError::OtherDigest { found: digest, wanted: wanted.to_owned() });
        }
        let root = value(bytes)?;
        let version = version(&root)?;
        Ok(Self { root, version, digest })
    }

    /// Whether its schemas are JSON Schema 2020-12 already.
    pub(crate) fn is_modern(&self) -> bool {
        !self.version.starts_with("3.0")
    }

    pub(crate) fn root(&self) -> &Value {
        &self.root
    }

    /// `operations` by path.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.root.get("paths").and_then(Value::as_object).into_iter().flatten()
    }

    /// The value a local reference points to.
    pub(crate) fn target(&self, reference: &str) -> Result<&Value, ReferenceError> {
        let pointer = reference.strip_prefix('#').ok_or_else(|| ReferenceError::Remote(shown(reference)))?;
        let pointer = percent_decoded(pointer);
        let missing = || ReferenceError::Missing(shown(reference));
        self.root.pointer(&pointer).ok_or_else(missing)
    }

    /// The value itself, or what its `$ref` leads to.
    pub(crate) fn resolve<'d>(&'d self, value: &'d Value) -> Result<&'d Value, ReferenceError> {
        let mut value = value;
        for _ in 0..MOST_HOPS {
            match value.get("$ref").and_then(Value::as_str) {
                None => return Ok(value),
                Some(reference) => value = self.target(reference)?,
            }
        }
        Err(ReferenceError::Circle)
    }

    /// As [`Document::resolve`], as an object.
    pub(crate) fn object<'d>(&'d self, value: &'d Value) -> Result<&'d Map<String, Value>, ReferenceError> {
        self.resolve(value)?.as_object().ok_or_else(|| ReferenceError::Missing("an object".into()))
    }
}

fn value(bytes: &[u8]) -> Result<Value, DocumentError> {
    let unreadable = |reason: String| DocumentError::Unreadable(reason.chars().filter(|c| !c.is_control()).take(300).collect());
    let text = std::str::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8".into()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|e| unreadable(format!("not valid JSON: {e}")));
    }
    let mut options = serde_saphyr::Options::default();
    // The size was checked; what remains bounded here is what aliases could make of it.
    if let Some(budget) = &mut options.budget {
        budget.max_reader_input_bytes = None;
        budget.max_events = 8_000_000;
        budget.max_nodes = 4_000_000;
        budget.max_total_scalar_bytes = bytes.len().max(1 << 20);
    }
    serde_saphyr::from_str_with_options(text, options).map_err(|e| unreadable(format!("not valid YAML: {e}")))
}

fn version(root: &Value) -> Result<String, DocumentError> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(old) = root.get("swagger") {
        let old = shown(&text(old));
        return Err(DocumentError::Version(format!("it is Swagger {old}; OpenAPI 3.0 and 3.1 are read: convert it first")));
    }
    let Some(version) = root.get("openapi").map(text) else {
        return Err(DocumentError::Version("it has no 'openapi' member, so it is no OpenAPI description".into()));
    };
    if !["3.0", "3.1"].iter().any(|known| version == *known || version.starts_with(&format!("{known}."))) {
        return Err(DocumentError::Version(format!("it is OpenAPI {}; 3.0 and 3.1 are read", shown(&version))));
    }
    Ok(shown(&version))
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

/// Fragments of URIs are percent-encoded.
fn percent_decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Document, DocumentError> {
        Document::read(text.as_bytes(), 1 << 20, None)
    }

    #[test]
    fn json_and_yaml_are_read_and_their_version_is_known() {
        assert_eq!(read(r#"{"openapi": "3.0.3", "paths": {}}"#).unwrap().version, "3.0.3");
        assert!(read("openapi: 3.1.0\npaths: {}\n").unwrap().is_modern());
        assert!(!read("\u{feff}openapi: '3.0'\n").unwrap().is_modern());
        for (text, word) in [
            ("swagger: '2.0'\n", "Swagger 2.0"),
            ("openapi: 4.0.0\n", "OpenAPI 4.0.0"),
            ("{}", "no 'openapi'"),
            ("{", "not valid JSON"),
            ("a: [", "not valid YAML"),
            ("- 3.0\n", "no 'openapi'"),
        ] {
            assert!(read(text).unwrap_err().to_string().contains(word), "{text}");
        }
        assert!(read(&format!("{{\"openapi\":\"3.0.0\",\"x\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000))).is_err());
        assert!(matches!(Document::read(b"{}", 1, None), Err(DocumentError::TooLarge { found: 2, most: 1 })));
        let mut bomb = String::from("openapi: 3.0.0\na: &a [x,x,x,x,x,x,x,x,x]\n");
        for (from, to) in ('a'..='h').zip('b'..='i') {
            bomb = format!("{bomb}{to}: &{to} [{}]\n", vec![format!("*{from}"); 9].join(","));
        }
        assert!(read(&bomb).is_err(), "an alias bomb");
    }

    #[test]
    fn another_description_than_was_looked_at_is_refused() {
        let text = "openapi: 3.0.0\n";
        let right = digest(text.as_bytes());
        assert!(Document::read(text.as_bytes(), 1 << 20, Some(&right.to_uppercase())).is_ok());
        let error = Document::read(b"openapi: 3.0.1\n", 1 << 20, Some(&right)).unwrap_err().to_string();
        assert!(error.contains(&right) && error.contains("spec.sha256"), "{error}");
    }

    #[test]
    fn references_stay_inside() {
        let document = read(
            r##"{"openapi":"3.0.0","a":{"$ref":"#/b"},"b":{"$ref":"#/c~1d"},"c/d":{"x":1},"e f":{"y":2},
            "loop":{"$ref":"#/pool"},"pool":{"$ref":"#/loop"},"far":{"$ref":"http://127.0.0.1:1/x.json#/a"},"file":{"$ref":"other.yaml"},
            "gone":{"$ref":"#/nothing"},"encoded":{"$ref":"#/e%20f"}}"##,
        )
        .unwrap();
        let resolve = |name: &str| document.resolve(&document.root()[name]);
        assert_eq!(resolve("a").unwrap()["x"], 1);
        assert_eq!(resolve("encoded").unwrap()["y"], 2);
        assert_eq!(resolve("loop"), Err(ReferenceError::Circle));
        assert!(matches!(resolve("far"), Err(ReferenceError::Remote(_))));
        assert!(matches!(resolve("file"), Err(ReferenceError::Remote(_))));
        assert!(matches!(resolve("gone"), Err(ReferenceError::Missing(_))));
    }
}
