//! Fingerprints of arguments: the same arguments give the same one, and without the key nobody can guess arguments
//! from it. Must never keep what it was given.

use std::io::{self, Write};

use hmac::{Hmac, KeyInit, Mac};
use portcullis_state::KeyFile;
use serde_json::{Number, Value};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::seal::hex_of;

/// Domain of the fingerprint key; changing it makes old and new fingerprints incomparable.
const CONTEXT: &str = "portcullis 2026-11-20 audit parameter fingerprint v2";

/// HMAC-SHA-256 under a key of the directory, ready to be cloned: the key itself is not kept.
pub(crate) struct Fingerprinter(Hmac<Sha256>);

impl Fingerprinter {
    pub(crate) fn new(key: &KeyFile) -> Self {
        let derived = Zeroizing::new(blake3::derive_key(CONTEXT, key.expose()));
        // A key shorter than the block of the hash is filled up with zeros (RFC 2104).
        let mut block = Zeroizing::new([0; 64]);
        block[..derived.len()].copy_from_slice(&*derived);
        Self(Hmac::new((&*block).into()))
    }

    /// 64 hexadecimal digits over the canonical form of `value`.
    pub(crate) fn of(&self, value: &Value) -> String {
        let mut sink = Sink(self.0.clone());
        // A hash takes everything: writing to it cannot fail.
        let _infallible = canonical(value, &mut sink);
        hex_of(&sink.0.finalize().into_bytes())
    }
}

struct Sink(Hmac<Sha256>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The canonical form of RFC 8785: no spaces, members in the order of the UTF-16 units of their names, numbers as
/// ECMAScript prints them. Integers beyond 2^53 keep all their digits, where the RFC would round them.
fn canonical(value: &Value, out: &mut impl Write) -> io::Result<()> {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
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
        Value::Number(number) => out.write_all(number_text(number).as_bytes()),
        scalar => Ok(serde_json::to_writer(out, scalar)?),
    }
}

/// A number as ECMAScript prints it (ECMA-262, Number::toString).
fn number_text(number: &Number) -> String {
    if number.is_i64() || number.is_u64() {
        return number.to_string();
    }
    let Some(float) = number.as_f64() else { return number.to_string() };
    if float == 0.0 {
        return "0".to_owned();
    }
    let size = float.abs();
    if (1e-6..1e21).contains(&size) {
        return float.to_string();
    }
    // Rust prints the shortest digits that read back, as ECMAScript does; only the sign of the exponent differs.
    let text = format!("{float:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => text,
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

    #[test]
    fn the_fingerprint_is_hmac_sha_256_of_the_canonical_form() {
        let key = KeyFile::in_memory().unwrap();
        let derived = blake3::derive_key(CONTEXT, key.expose());
        let mut mac = Hmac::<Sha256>::new_from_slice(&derived).unwrap();
        mac.update(br#"{"a":1,"b":[true]}"#);
        let expected = hex_of(&mac.finalize().into_bytes());
        assert_eq!(Fingerprinter::new(&key).of(&json!({"b": [true], "a": 1.0})), expected);
    }

    #[test]
    fn numbers_and_order_are_those_of_rfc_8785() {
        for (value, expected) in [
            (json!(1.0), "1"),
            (json!(-0.0), "0"),
            (json!(1e21), "1e+21"),
            (json!(1e-7), "1e-7"),
            (json!(0.000_001), "0.000001"),
            (json!(333_333_333.333_333_3), "333333333.3333333"),
            (json!(1e30), "1e+30"),
            (json!(4.5), "4.5"),
            (json!(9_007_199_254_740_993_u64), "9007199254740993"),
        ] {
            assert_eq!(text(&value), expected);
        }
        // The order of the RFC's own example: by UTF-16 units, so that a surrogate pair comes before U+FB33.
        let value = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
        let order: Vec<i64> = text(&value)
            .split(',')
            .map(|member| member.trim_end_matches('}').rsplit(':').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(order, [2, 4, 6, 7, 1, 5, 3]);
    }

    proptest::proptest! {
        #[test]
        fn the_canonical_form_is_the_same_json(pairs in proptest::collection::btree_map("\\PC{0,8}", "\\PC{0,8}", 0..6)) {
            let value = json!({"outer": pairs, "list": [true, 1.5, -3]});
            proptest::prop_assert_eq!(serde_json::from_str::<Value>(&text(&value)).unwrap(), value);
        }
    }
}
