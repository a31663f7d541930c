//! The attack table: every forgery is refused with its reason, and no change to a good token leaves it good.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{
    Bench, ISSUER, KEYS, NOW, OTHER_KEYS, RESOURCE, b64, changed, claims, good_token, header, jwks, sign, token,
};
use crate::token::TokenReason::{
    self, AlgorithmRefused, AmbiguousKey, AudienceRefused, ClaimMissing, Expired, GrantsNothing, HeaderRefused, LifetimeRefused,
    Malformed, NotAnAccessToken, NotYetValid, SenderConstrained, SignatureInvalid, TooLarge, TypeRefused, UnknownIssuer,
    UnknownKey,
};

type Attack = (&'static str, String, TokenReason);

fn with_header(changes: &Value) -> String {
    let header = changed(header(), changes).to_string();
    sign(&KEYS, Algorithm::ES256, &header, &claims().to_string())
}

fn with_claims(changes: &Value) -> String {
    token(&json!({}), changes)
}

/// The three parts of the good token.
fn parts() -> [String; 3] {
    let token = good_token();
    let mut parts = token.split('.').map(str::to_owned);
    std::array::from_fn(|_| parts.next().unwrap())
}

/// Signed with a shared secret: the public key itself in the forms an attacker can have it.
fn confused(algorithm: Algorithm, name: &str, secret: &[u8]) -> String {
    let header = json!({"typ": "at+jwt", "alg": name, "kid": "rsa"}).to_string();
    let signed = format!("{}.{}", b64(header), b64(claims().to_string()));
    let signature = crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(secret), algorithm).unwrap();
    format!("{signed}.{signature}")
}

fn forged_algorithms() -> Vec<Attack> {
    let [_, payload, signature] = parts();
    let mut table = Vec::new();
    for none in ["none", "None", "NONE", "nOnE", "", "null"] {
        let head = b64(json!({"typ": "at+jwt", "alg": none, "kid": "p256"}).to_string());
        table.push(("alg none, signed", format!("{head}.{payload}.{signature}"), AlgorithmRefused));
        table.push(("alg none, unsigned", format!("{head}.{payload}."), AlgorithmRefused));
    }
    for alg in [json!(null), json!(["ES256"]), json!({"a": 1}), json!(0), json!("es256"), json!("ES256 "), json!("RSA-OAEP")] {
        table.push(("alg of a wrong shape", with_header(&json!({"alg": alg})), AlgorithmRefused));
    }
    let pem = KEYS.rsa.public_key_pem();
    let jwk = jwks(&KEYS)["keys"][0].to_string();
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), KEYS.rsa.public_key_raw(), jwk.as_bytes(), b""] {
        table.push(("HS256 with the public key", confused(Algorithm::HS256, "HS256", secret), AlgorithmRefused));
        table.push(("HS256 called RS256", confused(Algorithm::HS256, "RS256", secret), SignatureInvalid));
        table.push(("HS512 with the public key", confused(Algorithm::HS512, "HS512", secret), AlgorithmRefused));
    }
    // A key serves one algorithm family, and the header cannot talk it into another.
    for (alg, kid) in
        [("RS256", "p256"), ("ES256", "rsa"), ("ES384", "p256"), ("ES256", "p384"), ("EdDSA", "p256"), ("PS256", "ed")]
    {
        table.push(("key of another type", token(&json!({"alg": alg, "kid": kid}), &json!({})), UnknownKey));
    }
    let body = claims().to_string();
    let as_pss = json!({"typ": "at+jwt", "alg": "PS256", "kid": "rsa"}).to_string();
    table.push(("RS256 signature called PS256", sign(&KEYS, Algorithm::RS256, &as_pss, &body), SignatureInvalid));
    table
}

fn forged_headers() -> Vec<Attack> {
    let other = &jwks(&OTHER_KEYS)["keys"];
    let mut table = Vec::new();
    for kid in [
        "../../../../dev/null".to_owned(),
        "p256' OR '1'='1".to_owned(),
        "p256\u{0}".to_owned(),
        "P256".to_owned(),
        "p256 ".to_owned(),
        "https://evil.example/jwks".to_owned(),
        "k".repeat(256),
    ] {
        table.push(("kid injection", with_header(&json!({"kid": kid})), UnknownKey));
    }
    for kid in [json!("k".repeat(257)), json!(""), json!(["p256"]), json!({"$ne": ""}), json!(1)] {
        table.push(("kid of a wrong shape", with_header(&json!({"kid": kid})), Malformed));
    }
    for (what, extra) in [
        ("jku", json!({"jku": "https://evil.example/jwks"})),
        ("x5u", json!({"x5u": "https://evil.example/cert"})),
        ("embedded jwk", json!({"jwk": other[1]})),
        ("embedded certificate", json!({"x5c": ["MIIB"]})),
        ("critical extension", json!({"crit": ["b64"], "b64": false})),
        ("empty crit", json!({"crit": []})),
        ("unencoded payload", json!({"b64": false})),
        ("compressed", json!({"zip": "DEF"})),
    ] {
        let stolen = sign(&OTHER_KEYS, Algorithm::ES256, &changed(header(), &extra).to_string(), &claims().to_string());
        table.push((what, stolen, HeaderRefused));
        table.push((what, with_header(&extra), HeaderRefused));
    }
    for typ in [json!("JWT"), json!("logout+jwt"), json!("dpop+jwt"), json!(null), json!("at+jwt ")] {
        table.push(("another type", with_header(&json!({"typ": typ})), TypeRefused));
    }
    table.push(("type of a wrong shape", with_header(&json!({"typ": ["at+jwt"]})), Malformed));
    table
}

fn forged_claims() -> Vec<Attack> {
    [
        ("expired", json!({"exp": NOW - 30}), Expired),
        ("long expired", json!({"exp": 0, "iat": 0, "nbf": 0}), Expired),
        ("exp negative", json!({"exp": i64::MIN}), Expired),
        ("nbf in the future", json!({"nbf": NOW + 31}), NotYetValid),
        ("iat in the future", json!({"iat": NOW + 31}), NotYetValid),
        ("no exp", json!({"exp": null}), ClaimMissing),
        ("exp as text", json!({"exp": format!("{}", NOW + 600)}), ClaimMissing),
        ("exp too large", json!({"exp": 1e30}), ClaimMissing),
        ("nbf as text", json!({"nbf": "0"}), ClaimMissing),
        ("lives for ever", json!({"exp": i64::MAX}), LifetimeRefused),
        ("lives a day and a minute", json!({"exp": NOW + 86_400 + 60}), LifetimeRefused),
        ("lives long, iat hidden", json!({"exp": NOW + 86_400 + 60, "iat": null}), LifetimeRefused),
        ("no aud", json!({"aud": null}), ClaimMissing),
        ("empty aud", json!({"aud": ""}), AudienceRefused),
        ("empty list of audiences", json!({"aud": []}), AudienceRefused),
        ("aud of another server", json!({"aud": "https://other.example.com/mcp"}), AudienceRefused),
        ("audiences of others", json!({"aud": ["https://other.example.com", "account"]}), AudienceRefused),
        ("aud as a prefix", json!({"aud": "https://mcp.example.com"}), AudienceRefused),
        ("aud with a slash", json!({"aud": format!("{RESOURCE}/")}), AudienceRefused),
        ("aud in other case", json!({"aud": RESOURCE.to_uppercase()}), AudienceRefused),
        ("aud of a wrong shape", json!({"aud": [[RESOURCE]]}), ClaimMissing),
        ("aud as an object", json!({"aud": {RESOURCE: true}}), ClaimMissing),
        ("no sub", json!({"sub": null}), ClaimMissing),
        ("empty sub", json!({"sub": ""}), ClaimMissing),
        ("sub as a list", json!({"sub": ["ada"]}), ClaimMissing),
        ("sub with control characters", json!({"sub": "ada\nadmin"}), ClaimMissing),
        ("endless sub", json!({"sub": "a".repeat(256)}), ClaimMissing),
        ("no iss", json!({"iss": null}), UnknownIssuer),
        ("iss of a stranger", json!({"iss": "https://evil.example"}), UnknownIssuer),
        ("iss with a slash", json!({"iss": format!("{ISSUER}/")}), UnknownIssuer),
        ("iss in other case", json!({"iss": ISSUER.to_uppercase()}), UnknownIssuer),
        ("iss as a list", json!({"iss": [ISSUER]}), UnknownIssuer),
        ("bound to a key", json!({"cnf": {"jkt": "x"}}), SenderConstrained),
        ("scope of nothing", json!({"scope": "LOOK lookup admin"}), GrantsNothing),
        ("scope as an object", json!({"scope": {"look": true}}), ClaimMissing),
    ]
    .map(|(what, change, reason)| (what, with_claims(&change), reason))
    .to_vec()
}

fn forged_texts() -> Vec<Attack> {
    let [head, payload, signature] = parts();
    let good = good_token();
    let better = b64(changed(claims(), &json!({"sub": "root"})).to_string());
    let twice = claims().to_string().replacen('{', "{\"sub\":\"root\",", 1);
    let cased = claims().to_string().replacen('{', "{\"Sub\":\"root\",", 1);
    let head_twice = header().to_string().replacen('{', "{\"alg\":\"none\",", 1);
    let deep = format!("{{\"iss\":\"{ISSUER}\",\"a\":{}{}}}", "[".repeat(2_000), "]".repeat(2_000));
    let head_text = header().to_string();
    let signed = |header: &str, claims: &str| sign(&KEYS, Algorithm::ES256, header, claims);
    let swapped = |signature: &str| format!("{head}.{payload}.{signature}");
    vec![
        ("signature stripped", format!("{head}.{payload}."), SignatureInvalid),
        ("signature part dropped", format!("{head}.{payload}"), Malformed),
        ("signature of zeros", swapped(&b64([0_u8; 64])), SignatureInvalid),
        ("signature cut", swapped(&signature[..signature.len() - 2]), SignatureInvalid),
        ("DER signature", swapped(&b64([0x30, 6, 2, 1, 1, 2, 1, 1])), SignatureInvalid),
        ("payload swapped", format!("{head}.{better}.{signature}"), SignatureInvalid),
        ("signed by a stranger", sign(&OTHER_KEYS, Algorithm::ES256, &head_text, &claims().to_string()), SignatureInvalid),
        ("claims twice", signed(&head_text, &twice), Malformed),
        ("claims twice in other case", signed(&head_text, &cased), Malformed),
        ("alg twice", signed(&head_twice, &claims().to_string()), Malformed),
        ("deep claims", signed(&head_text, &deep), Malformed),
        ("claims that are a list", signed(&head_text, "[1]"), Malformed),
        ("claims that are no JSON", signed(&head_text, "sub=ada"), Malformed),
        ("header that is a text", signed("\"ES256\"", &claims().to_string()), Malformed),
        ("header with a byte order mark", signed(&format!("\u{feff}{head_text}"), &claims().to_string()), Malformed),
        ("giant token", with_claims(&json!({"padding": "x".repeat(20_000)})), TooLarge),
        ("giant header", with_header(&json!({"padding": "x".repeat(4_000)})), TooLarge),
        ("space before", format!(" {good}"), Malformed),
        ("line break after", format!("{good}\n"), Malformed),
        ("line break inside", good.replacen('.', "\n.", 1), Malformed),
        ("padded signature", format!("{good}=="), Malformed),
        ("padded header", format!("{head}=.{payload}.{signature}"), Malformed),
        ("standard alphabet", format!("{head}.{payload}.{}", signature.replace('-', "+").replace('_', "/") + "+/"), Malformed),
        ("percent escapes", good.replacen('.', "%2e", 1), Malformed),
        ("five parts", format!("{head}.{payload}.{signature}.a.b"), Malformed),
        ("an encrypted token", "eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn".to_owned(), Malformed),
        ("other padding of the same bytes", format!("{head}.{payload}.{}", URL_SAFE.encode([1_u8; 64])), Malformed),
        ("nothing", String::new(), Malformed),
        ("dots", "..".to_owned(), Malformed),
    ]
}

#[tokio::test]
async fn every_attack_is_refused_with_its_reason() {
    let bench = Bench::new();
    bench.verify(&good_token()).await.expect("the good token the attacks are made from");
    let table = [forged_algorithms(), forged_headers(), forged_claims(), forged_texts()].concat();
    let mut wrong = Vec::new();
    for (what, token, reason) in &table {
        match bench.verify(token).await {
            Err(found) if found == *reason => {}
            outcome => wrong.push(format!("{what}: {:?} instead of {reason:?}", outcome.map(|v| v.principal.id.clone()))),
        }
    }
    assert!(wrong.is_empty(), "{} of {} attacks: {wrong:#?}", wrong.len(), table.len());
    assert!(table.len() > 120, "{} attacks", table.len());
}

#[tokio::test]
async fn id_tokens_logout_tokens_and_refresh_tokens_are_no_access_tokens() {
    let bench = Bench::with(&json!({"types": ["JWT", "at+jwt"]}));
    for claims in [
        json!({"nonce": "n-0S6"}),
        json!({"at_hash": "77Qm"}),
        json!({"c_hash": "LDkt"}),
        json!({"events": {}}),
        json!({"typ": "ID"}),
        json!({"typ": "Refresh"}),
        json!({"typ": 1}),
        json!({"token_use": "id"}),
    ] {
        assert_eq!(bench.refused(&token(&json!({"typ": "JWT"}), &claims)).await, NotAnAccessToken, "{claims}");
    }
}

#[tokio::test]
async fn a_key_of_one_issuer_never_speaks_for_another() {
    let bench = Bench::new();
    // The claims say this issuer, the key is another's; and the other way round.
    let foreign = sign(&OTHER_KEYS, Algorithm::ES256, &header().to_string(), &claims().to_string());
    assert_eq!(bench.refused(&foreign).await, SignatureInvalid);
    assert_eq!(bench.refused(&with_claims(&json!({"iss": "https://other.example.com"}))).await, UnknownIssuer);
}

#[tokio::test]
async fn a_token_without_the_name_of_its_key_never_chooses_among_several() {
    let bench = Bench::new();
    let mut keys = jwks(&KEYS);
    let mut second = jwks(&OTHER_KEYS)["keys"][1].clone();
    second["kid"] = json!("other");
    keys["keys"].as_array_mut().unwrap().push(second);
    bench.fetch.tell(Some(&keys), None);
    assert_eq!(bench.refused(&with_header(&json!({"kid": null}))).await, AmbiguousKey);
    bench.verify(&good_token()).await.expect("with its name it is found");
}

#[tokio::test]
async fn an_age_limit_wants_to_know_the_age() {
    let bench = Bench::with(&json!({"max_age": "5m"}));
    bench.verify(&good_token()).await.unwrap();
    assert_eq!(bench.refused(&with_claims(&json!({"iat": NOW - 331}))).await, LifetimeRefused);
    assert_eq!(bench.refused(&with_claims(&json!({"iat": null}))).await, ClaimMissing);
}

/// Outside the property tests: one verifier for all cases.
fn refuses(runtime: &tokio::runtime::Runtime, bench: &Bench, token: &str) -> bool {
    runtime.block_on(bench.verifier.verify_token(token)).is_err()
}

#[test]
fn no_changed_byte_leaves_a_token_good() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bench = Bench::new();
    let good = good_token();
    assert!(!refuses(&runtime, &bench, &good));
    // Every place with every bit flipped that leaves it text, and with every character of the alphabet's ends.
    for place in 0..good.len() {
        for other in (0..7).map(|bit| good.as_bytes()[place] ^ (1 << bit)).chain(*b"A_-=. 9") {
            if other == good.as_bytes()[place] {
                continue;
            }
            let mut bytes = good.clone().into_bytes();
            bytes[place] = other;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(refuses(&runtime, &bench, &changed), "place {place}, byte {other:#x}");
        }
    }
    let mut runner = proptest::test_runner::TestRunner::default();
    let strategy = (0..good.len(), 0..good.len(), "[A-Za-z0-9._=-]{0,6}");
    runner
        .run(&strategy, |(from, to, inserted)| {
            let (from, to) = (from.min(to), from.max(to));
            let changed = format!("{}{inserted}{}", &good[..from], &good[to..]);
            prop_assume!(changed != good);
            prop_assert!(refuses(&runtime, &bench, &changed), "{from}..{to} {inserted:?}");
            Ok(())
        })
        .unwrap();
}
