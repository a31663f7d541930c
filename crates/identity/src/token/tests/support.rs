//! An issuer made by hand, so that tokens can be wrong in every way: keys, key sets, raw tokens, a fetch that is told what
//! to bring.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use portcullis_model::{ManualClock, Timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use crate::token::jwks::{Fetched, KeyFetch};
use crate::token::keys::KeySet;
use crate::token::{TokenReason, TokenSettings, Verified, Verifier};

pub(super) const ISSUER: &str = "https://id.example.com";
pub(super) const RESOURCE: &str = "https://mcp.example.com/mcp";
/// When the tests happen.
pub(super) const NOW: i64 = 1_800_000_000;

pub(super) struct Keys {
    pub(super) rsa: KeyPair,
    pub(super) p256: KeyPair,
    pub(super) p384: KeyPair,
    pub(super) ed: KeyPair,
}

/// Making an RSA key takes a moment; one set serves all tests.
pub(super) static KEYS: LazyLock<Keys> = LazyLock::new(new_keys);
/// The keys of somebody else.
pub(super) static OTHER_KEYS: LazyLock<Keys> = LazyLock::new(new_keys);

fn new_keys() -> Keys {
    Keys {
        rsa: KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
        p256: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        p384: KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        ed: KeyPair::generate_for(&PKCS_ED25519).unwrap(),
    }
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The two numbers of a DER RSAPublicKey.
fn rsa_numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, from) = match der[1] {
            short if short < 0x80 => (usize::from(short), 2),
            0x81 => (usize::from(der[2]), 3),
            _ => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        };
        (&der[from..from + length], &der[from + length..])
    }
    let (n, rest) = element(element(der).0);
    let strip = |n: &[u8]| n.strip_prefix(&[0]).unwrap_or(n).to_vec();
    (strip(n), strip(element(rest).0))
}

/// The four public keys, by the names `rsa`, `p256`, `p384` and `ed`.
pub(super) fn jwks(keys: &Keys) -> Value {
    let (n, e) = rsa_numbers(keys.rsa.public_key_raw());
    let point = |key: &KeyPair, length: usize| {
        let raw = key.public_key_raw().to_vec();
        (b64(&raw[1..=length]), b64(&raw[1 + length..]))
    };
    let ((x256, y256), (x384, y384)) = (point(&keys.p256, 32), point(&keys.p384, 48));
    json!({"keys": [
        {"kty": "RSA", "kid": "rsa", "use": "sig", "n": b64(n), "e": b64(e)},
        {"kty": "EC", "kid": "p256", "crv": "P-256", "alg": "ES256", "x": x256, "y": y256},
        {"kty": "EC", "kid": "p384", "crv": "P-384", "key_ops": ["verify"], "x": x384, "y": y384},
        {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": b64(keys.ed.public_key_raw())},
    ]})
}

/// Signs any two texts with one of the keys.
pub(super) fn sign(keys: &Keys, algorithm: Algorithm, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let key = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_der(keys.p256.serialized_der()),
        Algorithm::ES384 => EncodingKey::from_ec_der(keys.p384.serialized_der()),
        Algorithm::EdDSA => EncodingKey::from_ed_der(keys.ed.serialized_der()),
        _ => EncodingKey::from_rsa_pem(keys.rsa.serialize_pem().as_bytes()).unwrap(),
    };
    let signature = crypto::sign(signed.as_bytes(), &key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

pub(super) fn header() -> Value {
    json!({"typ": "at+jwt", "alg": "ES256", "kid": "p256"})
}

pub(super) fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "ada", "aud": RESOURCE, "exp": NOW + 600, "iat": NOW - 10, "nbf": NOW - 10, "scope": "look openid"})
}

/// The good token with members of header and claims replaced; `null` removes one.
pub(super) fn token(header_changes: &Value, claim_changes: &Value) -> String {
    let algorithm = header_changes["alg"].as_str().and_then(|name| name.parse().ok()).unwrap_or(Algorithm::ES256);
    sign(&KEYS, algorithm, &changed(header(), header_changes).to_string(), &changed(claims(), claim_changes).to_string())
}

pub(super) fn changed(mut base: Value, changes: &Value) -> Value {
    let members = base.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    base
}

pub(super) fn good_token() -> String {
    token(&json!({}), &json!({}))
}

/// A fetch that brings what it is told, and counts.
#[derive(Debug, Default)]
pub(super) struct ToldFetch {
    pub(super) answer: Mutex<Option<(String, Option<Duration>)>>,
    pub(super) fetches: AtomicUsize,
}

impl ToldFetch {
    pub(super) fn bringing(keys: &Value) -> Arc<Self> {
        let told = Self::default();
        told.tell(Some(keys), None);
        Arc::new(told)
    }

    /// From now on: these keys with this `max-age`, or a failure.
    pub(super) fn tell(&self, keys: Option<&Value>, max_age: Option<Duration>) {
        *self.answer.lock().unwrap() = keys.map(|keys| (keys.to_string(), max_age));
    }

    pub(super) fn count(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl KeyFetch for ToldFetch {
    async fn fetch(&self) -> Result<Fetched, String> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        // Others get their turn while this is in the air.
        tokio::task::yield_now().await;
        let answer = self.answer.lock().unwrap().clone();
        let (keys, max_age) = answer.ok_or_else(|| "the issuer is down".to_owned())?;
        Ok(Fetched { keys: KeySet::read(keys.as_bytes())?, max_age })
    }
}

/// A verifier, its clock, and the hand on its keys.
pub(super) struct Bench {
    pub(super) verifier: Arc<Verifier>,
    pub(super) clock: ManualClock,
    pub(super) fetch: Arc<ToldFetch>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(&json!({}))
    }

    /// With changed settings of the issuer.
    pub(super) fn with(changes: &Value) -> Self {
        let issuer = json!({"name": "corp", "issuer": ISSUER, "scopes": {"look": {"roles": ["reader"]}}});
        let settings: TokenSettings =
            serde_json::from_value(json!({"resource": RESOURCE, "issuers": [changed(issuer, changes)]})).unwrap();
        settings.check(&["reader", "operator"].map(str::to_owned).into()).unwrap();
        let clock = ManualClock::new(Timestamp::from_seconds(NOW));
        let fetch = ToldFetch::bringing(&jwks(&KEYS));
        let verifier = Verifier::with_fetches(&settings, RESOURCE, Arc::new(clock.clone()), vec![fetch.clone()]).unwrap();
        Self { verifier: Arc::new(verifier), clock, fetch }
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Verified, TokenReason> {
        self.verifier.verify_token(token).await.map_err(|refusal| {
            assert!(token.len() < 20 || !refusal.to_string().contains(token), "the refusal holds the token");
            refusal.reason
        })
    }

    pub(super) async fn refused(&self, token: &str) -> TokenReason {
        self.verify(token).await.expect_err(token)
    }
}
