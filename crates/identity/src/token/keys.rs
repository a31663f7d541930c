//! An issuer's keys (JWK Set, RFC 7517), each bound to the algorithms it is made for. Guards against algorithm confusion:
//! a key that does not fit by type, curve, `alg`, `use` and `key_ops` is no key for that token. Shared secrets and
//! private keys in a published set are never used.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use portcullis_guard::{StrictLimits, check_strict};
use serde::Deserialize;
use serde_json::Value;

use super::reason::shown;
use super::settings::TokenAlgorithm;

/// Keys in one set.
const MAX_KEYS: usize = 64;
const LIMITS: StrictLimits = StrictLimits { depth: 8, members: 256 };
/// RSA moduli in bits: what the cryptographic library verifies with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// The keys of one issuer that can verify something.
pub(super) struct KeySet {
    keys: Vec<PublicKey>,
    /// Keys that were left out, with the reason, for the operator's log.
    pub(super) skipped: Vec<String>,
}

struct PublicKey {
    name: Option<String>,
    algorithms: Vec<TokenAlgorithm>,
    key: DecodingKey,
}

/// What a look-up found.
pub(super) enum Selected {
    /// The one key that fits.
    One(DecodingKey),
    /// None fits.
    None,
    /// Several fit; guessing would let one key speak for another.
    Several,
}

#[derive(Deserialize)]
struct WireSet {
    keys: Vec<Value>,
}

/// Members of a JWK that matter here (RFC 7517 section 4, RFC 7518 section 6, RFC 8037 section 2).
#[derive(Deserialize)]
struct WireKey {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// Private part.
    d: Option<Value>,
    /// Shared secret.
    k: Option<Value>,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.keys.len()).field("skipped", &self.skipped).finish()
    }
}

impl KeySet {
    /// Reads a set. Keys that cannot verify anything here are left out; a set without any other is an error.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        check_strict(bytes, LIMITS).map_err(|e| format!("the key set is refused: {}", shown(&e.to_string())))?;
        let set: WireSet = serde_json::from_slice(bytes).map_err(|_| "the answer is not a JWK Set".to_owned())?;
        if set.keys.len() > MAX_KEYS {
            return Err(format!("the key set has {} keys, and {MAX_KEYS} are accepted", set.keys.len()));
        }
        let mut keys = Vec::new();
        let mut skipped = Vec::new();
        for (index, value) in set.keys.into_iter().enumerate() {
            let wire = serde_json::from_value::<WireKey>(value).map_err(|_| "it is not a JWK".to_owned());
            match wire.and_then(WireKey::public) {
                Ok(key) => keys.push(key),
                Err(reason) => skipped.push(format!("key {index}: {reason}")),
            }
        }
        if keys.is_empty() {
            return Err(format!("the key set has no key that can be used ({})", skipped.join("; ")));
        }
        Ok(Self { keys, skipped })
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key for a token. A name is compared as it is and looked up nowhere else; without one, the set must hold exactly
    /// one key that fits.
    pub(super) fn select(&self, name: Option<&str>, algorithm: TokenAlgorithm) -> Selected {
        let named = |key: &&PublicKey| name.is_none() || key.name.as_deref() == name;
        let mut fitting = self.keys.iter().filter(named).filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Selected::One(key.key.clone()),
            (None, _) => Selected::None,
            (Some(_), Some(_)) => Selected::Several,
        }
    }
}

impl WireKey {
    fn public(self) -> Result<PublicKey, String> {
        if self.d.is_some() || self.k.is_some() {
            return Err("it is published with its secret part and can be anybody's".to_owned());
        }
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err("it is not for signatures ('use')".to_owned());
        }
        if self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err("it is not for verifying ('key_ops')".to_owned());
        }
        let (possible, key) = self.material()?;
        let algorithms: Vec<_> = match &self.alg {
            None => possible.to_vec(),
            Some(name) => possible.iter().copied().filter(|a| a.as_str() == name).collect(),
        };
        if algorithms.is_empty() {
            return Err(format!(
                "its 'alg' {} does not fit its type, or is not supported",
                shown(self.alg.as_deref().unwrap_or(""))
            ));
        }
        Ok(PublicKey { name: self.kid, algorithms, key })
    }

    /// The algorithms a key of this type and curve can have, and the key.
    fn material(&self) -> Result<(&'static [TokenAlgorithm], DecodingKey), String> {
        use TokenAlgorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => Ok((&[RS256, RS384, RS512, PS256, PS384, PS512], self.rsa()?)),
            ("EC", Some("P-256")) => Ok((&[ES256], self.point(32)?)),
            ("EC", Some("P-384")) => Ok((&[ES384], self.point(48)?)),
            ("OKP", Some("Ed25519")) => {
                let x = member(self.x.as_deref(), "x")?;
                if x.len() != 32 {
                    return Err("'x' has the wrong length".to_owned());
                }
                Ok((&[EdDSA], DecodingKey::from_ed_der(&x)))
            }
            (kind, curve) => Err(format!("type {} {} is not supported", shown(kind), shown(curve.unwrap_or("")))),
        }
    }

    fn rsa(&self) -> Result<DecodingKey, String> {
        let (n, e) = (member(self.n.as_deref(), "n")?, member(self.e.as_deref(), "e")?);
        let n = without_zeros(&n);
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(format!("an RSA key of {bits} bits is not accepted; {} to {} are", RSA_BITS.start(), RSA_BITS.end()));
        }
        let e = without_zeros(&e);
        if e.len() > 8 || e.last().is_none_or(|last| last % 2 == 0) || e == [1] {
            return Err("its RSA exponent is not usable".to_owned());
        }
        Ok(DecodingKey::from_rsa_raw_components(n, e))
    }

    fn point(&self, length: usize) -> Result<DecodingKey, String> {
        let (x, y) = (member(self.x.as_deref(), "x")?, member(self.y.as_deref(), "y")?);
        if x.len() != length || y.len() != length {
            return Err("its coordinates have the wrong length".to_owned());
        }
        // Uncompressed point, SEC 1 section 2.3.3. The library refuses points that are not on the curve.
        Ok(DecodingKey::from_ec_der(&[&[4], x.as_slice(), y.as_slice()].concat()))
    }
}

fn member(value: Option<&str>, name: &str) -> Result<Vec<u8>, String> {
    let value = value.ok_or_else(|| format!("'{name}' is missing"))?;
    URL_SAFE_NO_PAD.decode(value).map_err(|_| format!("'{name}' is not base64url"))
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use TokenAlgorithm::{ES256, ES384, EdDSA, RS256};
    use serde_json::json;

    fn b64(length: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0x81; length])
    }

    fn read(keys: &Value) -> Result<KeySet, String> {
        KeySet::read(json!({"keys": keys}).to_string().as_bytes())
    }

    #[test]
    fn a_key_serves_only_what_it_is_made_for() {
        let rsa = json!({"kty": "RSA", "kid": "a", "n": b64(256), "e": "AQAB", "alg": "RS256", "use": "sig"});
        let set = read(&json!([rsa, {"kty": "EC", "crv": "P-256", "kid": "b", "x": b64(32), "y": b64(32)}])).unwrap();
        assert!(matches!(set.select(Some("a"), RS256), Selected::One(_)));
        for (name, algorithm) in [
            ("a", TokenAlgorithm::PS256),
            ("a", TokenAlgorithm::RS512),
            ("a", ES256),
            ("b", RS256),
            ("b", ES384),
            ("b", EdDSA),
            ("c", RS256),
            ("A", RS256),
        ] {
            assert!(matches!(set.select(Some(name), algorithm), Selected::None), "{name} {algorithm:?}");
        }
        assert!(matches!(set.select(None, ES256), Selected::One(_)));
        let two = read(&json!([{"kty": "OKP", "crv": "Ed25519", "x": b64(32)}, {"kty": "OKP", "crv": "Ed25519", "x": b64(32)}]))
            .unwrap();
        assert!(matches!(two.select(None, EdDSA), Selected::Several));
    }

    #[test]
    fn keys_that_must_not_be_used_are_left_out() {
        for (key, word) in [
            (json!({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}), "secret part"),
            (json!({"kty": "RSA", "n": b64(256), "e": "AQAB", "d": "AQAB"}), "secret part"),
            (json!({"kty": "RSA", "n": b64(128), "e": "AQAB"}), "1024 bits"),
            (json!({"kty": "RSA", "n": b64(2_000), "e": "AQAB"}), "bits"),
            (json!({"kty": "RSA", "n": b64(256), "e": "AQ"}), "exponent"),
            (json!({"kty": "RSA", "n": b64(256), "e": "AAAA"}), "exponent"),
            (json!({"kty": "RSA", "n": b64(256), "e": "AQAB", "use": "enc"}), "not for signatures"),
            (json!({"kty": "RSA", "n": b64(256), "e": "AQAB", "key_ops": ["encrypt"]}), "not for verifying"),
            (json!({"kty": "RSA", "n": b64(256), "e": "AQAB", "alg": "HS256"}), "does not fit"),
            (json!({"kty": "RSA", "n": b64(256), "e": "AQAB", "alg": "none"}), "does not fit"),
            (json!({"kty": "EC", "crv": "P-256", "x": b64(48), "y": b64(48)}), "wrong length"),
            (json!({"kty": "EC", "crv": "P-521", "x": b64(66), "y": b64(66)}), "not supported"),
            (json!({"kty": "EC", "crv": "P-256", "x": b64(32), "y": b64(32), "alg": "ES384"}), "does not fit"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": b64(31)}), "wrong length"),
            (json!({"kty": "OKP", "crv": "X25519", "x": b64(32)}), "not supported"),
            (json!({"kid": "a"}), "not a JWK"),
        ] {
            let error = read(&json!([key.clone()])).expect_err(&key.to_string());
            assert!(error.contains(word), "{key}: {error}");
        }
    }

    #[test]
    fn sets_are_bounded_and_strict() {
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(32)});
        assert!(read(&json!(vec![key.clone(); 65])).unwrap_err().contains("65 keys"));
        assert_eq!(read(&json!(vec![key; 64])).unwrap().len(), 64);
        assert!(read(&json!([])).unwrap_err().contains("no key"));
        for text in ["", "[]", "{}", "<html>", r#"{"keys":1}"#, r#"{"keys":[],"keys":[]}"#] {
            assert!(KeySet::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
