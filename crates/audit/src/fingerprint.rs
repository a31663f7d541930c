//! Fingerprints of arguments: the same arguments give the same one, and without the key nobody can guess arguments
//! from it. Must never keep what it was given.

use std::io::{self, Write};

use portcullis_state::KeyFile;
use serde_json::Value;
use zeroize::Zeroizing;

/// Domain of the fingerprint key; changing it makes old and new fingerprints incomparable.
const CONTEXT: &str = "portcullis 2026-11-20 audit parameter fingerprint v1";

pub(crate) struct Fingerprinter(Zeroizing<[u8; 32]>);

impl Fingerprinter {
    pub(crate) fn new(key: &KeyFile) -> Self {
        Self(Zeroizing::new(blake3::derive_key(CONTEXT, key.expose())))
    }

    /// 64 hexadecimal digits over the canonical form of `value`.
    pub(crate) fn of(&self, value: &Value) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // A hasher takes everything: writing to it cannot fail.
        let _infallible = canonical(value, &mut hasher);
        hasher.finalize().to_hex().to_string()
    }
}

/// JSON without spaces, keys of every object in byte order.
fn canonical(value: &Value, out: &mut impl Write) -> io::Result<()> {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
            for (index, (key, value)) in entries.into_iter().enumerate() {
                out.write_all(if index == 0 { b"{" } else { b"," })?;
                serde_json::to_writer(&mut *out, key)?;
                out.write_all(b":")?;
                canonical(value, out)?;
            }
            out.write_all(if map.is_empty() { b"{}" } else { b"}" })
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                out.write_all(if index == 0 { b"[" } else { b"," })?;
                canonical(item, out)?;
            }
            out.write_all(if items.is_empty() { b"[]" } else { b"]" })
        }
        scalar => Ok(serde_json::to_writer(out, scalar)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(value: &Value) -> String {
        let mut out = Vec::new();
        canonical(value, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn order_of_keys_does_not_matter_and_everything_else_does() {
        let a: Value = serde_json::from_str(r#"{"b":[1,{"y":null,"x":"\n"}],"a":{}, "c":[]}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"c":[],"a":{},"b":[1,{"x":"\n","y":null}]}"#).unwrap();
        assert_eq!(text(&a), r#"{"a":{},"b":[1,{"x":"\n","y":null}],"c":[]}"#);
        let one = Fingerprinter::new(&KeyFile::in_memory().unwrap());
        assert_eq!(one.of(&a), one.of(&b));
        assert_eq!(one.of(&a).len(), 64);
        let different = [json!({"a": 1}), json!({"a": "1"}), json!({"a": [1]}), json!([1]), json!(null), json!({})];
        let prints: std::collections::BTreeSet<_> = different.iter().map(|v| one.of(v)).collect();
        assert_eq!(prints.len(), different.len());
        let other = Fingerprinter::new(&KeyFile::in_memory().unwrap());
        assert_ne!(one.of(&a), other.of(&a), "without the key nothing can be guessed");
    }

    proptest::proptest! {
        #[test]
        fn the_canonical_form_is_the_same_json(pairs in proptest::collection::btree_map("\\PC{0,8}", "\\PC{0,8}", 0..6)) {
            let value = json!({"outer": pairs, "list": [true, 1.5, -3]});
            proptest::prop_assert_eq!(serde_json::from_str::<Value>(&text(&value)).unwrap(), value);
        }
    }
}
