//! An issuer with a key of an algorithm, a verifier that trusts it and a token of it, for whatever measures verifying.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use portcullis_identity::token::{TokenSettings, Verifier};
use portcullis_model::{Clock, SystemClock};
use portcullis_policy::{Policies, Vocabulary};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

const RESOURCE: &str = "https://mcp.example.com/mcp";
const ISSUER: &str = "https://id.example.com";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key, as a member of a key set.
fn public(algorithm: Algorithm, key: &KeyPair) -> Value {
    let raw = key.public_key_raw();
    let point = |length: usize| (b64(&raw[1..=length]), b64(&raw[1 + length..]));
    match algorithm {
        Algorithm::ES256 => {
            let (x, y) = point(32);
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
        }
        Algorithm::ES384 => {
            let (x, y) = point(48);
            json!({"kty": "EC", "crv": "P-384", "x": x, "y": y})
        }
        Algorithm::EdDSA => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}),
        // DER of 2048 bits: two headers of 4 bytes, a zero, 256 bytes of modulus, 2 bytes of header, the exponent.
        _ => json!({"kty": "RSA", "n": b64(&raw[9..265]), "e": b64(&raw[267..])}),
    }
}

/// Serves one document to everybody.
fn serve(document: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", document.len());
            let _ = stream.write_all((head + &document).as_bytes());
        }
    });
    url
}

/// A verifier and a token it accepts.
pub(crate) fn prepared(algorithm: Algorithm) -> (Verifier, String) {
    let key = match algorithm {
        Algorithm::ES256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        Algorithm::ES384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        Algorithm::EdDSA => KeyPair::generate_for(&PKCS_ED25519),
        _ => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
    }
    .unwrap();
    let url = serve(json!({"keys": [public(algorithm, &key)]}).to_string());
    let settings: TokenSettings = serde_json::from_value(json!({"resource": RESOURCE, "issuers": [{
        "name": "corp", "issuer": ISSUER, "jwks_uri": url, "scopes": {"look": {"roles": ["reader"]}}}]}))
    .unwrap();
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let now = clock.now().as_nanos() / 1_000_000_000;
    let verifier = Verifier::new(&settings, RESOURCE, clock, |grant| policies.charter(grant)).unwrap();
    let header = json!({"alg": format!("{algorithm:?}"), "typ": "at+jwt"});
    let claims = json!({"iss": ISSUER, "sub": "ada", "aud": RESOURCE, "iat": now, "exp": now + 3_600, "scope": "openid look",
        "client_id": "agent", "jti": "0123456789abcdef"});
    let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let secret = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_der(key.serialized_der()),
        Algorithm::EdDSA => EncodingKey::from_ed_der(key.serialized_der()),
        _ => EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap(),
    };
    let signature = crypto::sign(signed.as_bytes(), &secret, algorithm).unwrap();
    (verifier, format!("{signed}.{signature}"))
}
