//! A token taken apart: three base64url parts, a strict header, strict claims (RFC 7515 section 7.1, RFC 8725). Nothing is
//! believed here; what two readers could understand differently is refused.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_guard::{StrictLimits, check_strict};
use portcullis_model::Secret;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::reason::{TokenReason, TokenRefusal, shown};
use super::settings::TokenAlgorithm;

/// Header members that are never honoured. `jku`, `x5u`, `jwk` and `x5c` bring or name a key (RFC 7515 section 4.1);
/// `crit` and `b64` change what is signed (RFC 7797); `enc` and `zip` belong to encryption.
const REFUSED_MEMBERS: [&str; 8] = ["jku", "x5u", "jwk", "x5c", "crit", "b64", "enc", "zip"];
/// Bytes of a decoded header.
const MAX_HEADER: usize = 2_048;
/// Characters of a key's name.
const MAX_KID: usize = 256;
const HEADER_LIMITS: StrictLimits = StrictLimits { depth: 3, members: 32 };
const CLAIM_LIMITS: StrictLimits = StrictLimits { depth: 12, members: 512 };

/// The caller's own token, kept only to be exchanged. Nobody outside this module can read it, so it cannot be passed on.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectToken {
    pub(super) text: Secret,
    /// When it expires, seconds since the epoch.
    pub(super) expires: i64,
    /// Name of the issuer it came from: nobody else is shown it.
    pub(super) issuer: Arc<str>,
}

impl std::fmt::Debug for SubjectToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SubjectToken(***)")
    }
}

/// What the header says, as far as it is listened to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) algorithm: TokenAlgorithm,
    /// `typ` in lower case, without `application/` (RFC 7515 section 4.1.9).
    pub(super) kind: Option<String>,
    pub(super) key: Option<String>,
}

/// A token whose parts can be read.
pub(super) struct Compact<'a> {
    pub(super) header: Header,
    pub(super) claims: Map<String, Value>,
    /// What was signed: header and claims as sent.
    pub(super) signed: &'a str,
    /// The signature as sent.
    pub(super) signature: &'a str,
}

/// Whether a text can be a token rather than another kind of credential: three parts of base64url.
pub(super) fn looks_like(text: &str) -> bool {
    let mut parts = text.split('.');
    let good = |part: Option<&str>| part.is_some_and(|p| !p.is_empty() && p.bytes().all(is_base64url));
    // An unsigned token has an empty third part; it shall be refused as a token.
    good(parts.next())
        && good(parts.next())
        && parts.next().is_some_and(|p| p.bytes().all(is_base64url))
        && parts.next().is_none()
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn malformed(detail: impl Into<String>) -> TokenRefusal {
    TokenRefusal::new(TokenReason::Malformed, detail)
}

impl<'a> Compact<'a> {
    pub(super) fn read(token: &'a str, max_bytes: usize) -> Result<Self, TokenRefusal> {
        if token.len() > max_bytes {
            return Err(TokenRefusal::new(TokenReason::TooLarge, format!("{} bytes, and {max_bytes} are accepted", token.len())));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(|| malformed("it has no parts"))?;
        let (header, claims) = signed.split_once('.').ok_or_else(|| malformed("it has two parts instead of three"))?;
        if claims.contains('.') {
            return Err(malformed("it has more than three parts; encrypted tokens are not accepted"));
        }
        let header = read_header(header)?;
        if signature.is_empty() {
            return Err(TokenRefusal::new(TokenReason::SignatureInvalid, "it has no signature"));
        }
        // Decoded once here so that only the canonical form of a signature exists.
        decoded(signature, "signature")?;
        Ok(Self { header, claims: read_object(claims, "claims", CLAIM_LIMITS)?, signed, signature })
    }
}

fn decoded(part: &str, what: &str) -> Result<Zeroizing<Vec<u8>>, TokenRefusal> {
    // This engine takes no padding, no whitespace and no bits behind the end.
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed(format!("the {what} is not base64url without padding")))?;
    Ok(Zeroizing::new(bytes))
}

fn read_object(part: &str, what: &str, limits: StrictLimits) -> Result<Map<String, Value>, TokenRefusal> {
    let bytes = decoded(part, what)?;
    check_strict(&bytes, limits).map_err(|e| malformed(format!("the {what}: {}", shown(&e.to_string()))))?;
    serde_json::from_slice(&bytes).map_err(|_| malformed(format!("the {what} is not a JSON object")))
}

fn read_header(part: &str) -> Result<Header, TokenRefusal> {
    // Four characters carry three bytes.
    if part.len() > MAX_HEADER.div_ceil(3) * 4 {
        return Err(TokenRefusal::new(TokenReason::TooLarge, format!("the header has more than {MAX_HEADER} bytes")));
    }
    let members = read_object(part, "header", HEADER_LIMITS)?;
    if let Some(member) = REFUSED_MEMBERS.iter().find(|name| members.contains_key(**name)) {
        return Err(TokenRefusal::new(TokenReason::HeaderRefused, format!("the header has '{member}'")));
    }
    let algorithm = match members.get("alg") {
        Some(Value::String(name)) => TokenAlgorithm::named(name)
            .ok_or_else(|| TokenRefusal::new(TokenReason::AlgorithmRefused, format!("'{}' is never accepted", shown(name))))?,
        _ => return Err(TokenRefusal::new(TokenReason::AlgorithmRefused, "the header names no algorithm")),
    };
    let kind = text(&members, "typ")?.map(|kind| {
        let kind = kind.to_ascii_lowercase();
        kind.strip_prefix("application/").map_or_else(|| kind.clone(), str::to_owned)
    });
    let key = text(&members, "kid")?;
    if key.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KID) {
        return Err(malformed(format!("the name of the key is empty or longer than {MAX_KID} bytes")));
    }
    Ok(Header { algorithm, kind, key: key.map(str::to_owned) })
}

fn text<'m>(members: &'m Map<String, Value>, name: &str) -> Result<Option<&'m str>, TokenRefusal> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(malformed(format!("'{name}' in the header is not text"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_are_told_from_keys() {
        assert!(looks_like("eyJ.eyJ.c2ln"));
        assert!(looks_like("eyJ.eyJ."), "unsigned, to be refused as a token");
        for other in
            ["", "a", "a.b", "..", ".a.b", "a..b", "a.b.c.d", "pcl_aaaaaaaaaa_bbbb_cccccc", "a.b.c=", "a.b .c", "a.b.c\n"]
        {
            assert!(!looks_like(other), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_from_outside_breaks_the_reader(text in "\\PC{0,200}") {
            prop_assert!(Compact::read(&text, 16 << 10).is_err());
        }

        #[test]
        fn neither_do_parts_in_the_right_alphabet(
            header in proptest::collection::vec(any::<u8>(), 0..80),
            claims in proptest::collection::vec(any::<u8>(), 0..80),
            signature in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let _ = Compact::read(&format!("{}.{}.{}", part(&header), part(&claims), part(&signature)), 16 << 10);
        }
    }
}
