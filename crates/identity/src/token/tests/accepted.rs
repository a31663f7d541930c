//! What is accepted, and whom it makes.

use jsonwebtoken::Algorithm;
use portcullis_model::{CredentialKind, NameSet};
use serde_json::json;

use super::support::{Bench, ISSUER, KEYS, NOW, changed, claims, good_token, header, sign, token};
use crate::token::TokenReason;

#[tokio::test]
async fn a_good_token_makes_a_principal() {
    let bench = Bench::new();
    let verified = bench.verify(&good_token()).await.unwrap();
    let principal = &verified.principal;
    assert_eq!(principal.id.as_str(), "token:corp/ada");
    assert_eq!(principal.credential, CredentialKind::Token { issuer: ISSUER.into(), subject: "ada".into() });
    assert!(principal.opens("mcp") && !principal.opens("ingest"));
    assert_eq!(principal.roles.iter().map(|r| &**r).collect::<Vec<_>>(), ["reader"]);
    assert_eq!(format!("{:?}", verified.subject_token), "SubjectToken(***)");
    assert!(!format!("{verified:?}{:?}", bench.verifier).contains("eyJ"));
}

#[tokio::test]
async fn every_listed_algorithm_works_with_its_own_key() {
    let all = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
    let bench = Bench::with(&json!({"algorithms": all}));
    let usual = Bench::new();
    for name in all {
        let kid = match name {
            "ES256" => "p256",
            "ES384" => "p384",
            "EdDSA" => "ed",
            _ => "rsa",
        };
        let token = token(&json!({"alg": name, "kid": kid}), &json!({}));
        bench.verify(&token).await.unwrap_or_else(|reason| panic!("{name}: {reason:?}"));
        if ["RS384", "RS512", "PS384", "PS512"].contains(&name) {
            assert_eq!(usual.refused(&token).await, TokenReason::AlgorithmRefused, "{name} is not on the usual list");
        }
    }
    // Without the name of a key: only where one key alone fits.
    bench.verify(&token(&json!({"alg": "EdDSA", "kid": null}), &json!({}))).await.unwrap();
}

#[tokio::test]
async fn harmless_variety_is_accepted() {
    let bench = Bench::new();
    for (header, claims) in [
        (json!({"typ": "application/AT+JWT"}), json!({})),
        (json!({"x5t": "abc"}), json!({"aud": ["https://other.example.com", super::support::RESOURCE]})),
        (json!({}), json!({"exp": NOW - 29, "iat": NOW + 29, "nbf": NOW + 29})),
        (json!({}), json!({"exp": NOW as f64 + 5.5, "nbf": null, "iat": null})),
        (json!({}), json!({"scope": ["openid", "look"]})),
    ] {
        bench.verify(&token(&header, &claims)).await.unwrap_or_else(|reason| panic!("{header} {claims}: {reason:?}"));
    }
    let tolerant = Bench::with(&json!({"types": ["JWT"]}));
    for typ in [json!("JWT"), json!(null)] {
        tolerant.verify(&token(&json!({"typ": typ}), &json!({"typ": "Bearer", "token_use": "access"}))).await.unwrap();
    }
}

#[tokio::test]
async fn claims_map_to_roles_tenant_services_and_namespaces() {
    let bench = Bench::with(&json!({
        "principal_claim": ["user", "mail"],
        "roles": {"claim": ["realm_access", "roles"], "map": {"sre": "operator", "dev": "reader"}},
        "tenant": {"by": {"claim": "https://example.com/org", "map": {"o-1": "acme"}}},
        "scopes": {"look": {}, "send": {"doors": ["ingest"]}},
        "services_claim": "services",
        "namespaces_claim": "namespaces",
    }));
    let rich = json!({
        "user": {"mail": "ada@example.com"}, "realm_access": {"roles": ["sre", "king"]}, "https://example.com/org": "o-1",
        "scope": "look send", "services": ["cart", "checkout"],
    });
    let principal = bench.verify(&token(&json!({}), &rich)).await.unwrap().principal;
    assert_eq!(principal.id.as_str(), "token:corp/ada@example.com");
    assert_eq!(principal.roles.iter().map(|r| &**r).collect::<Vec<_>>(), ["operator"], "what is not listed gives nothing");
    assert_eq!((principal.tenant.as_str(), principal.scope.tenant.as_str()), ("acme", "acme"));
    assert!(principal.opens("mcp") && principal.opens("ingest"));
    assert_eq!(principal.scope.services, NameSet::only(["cart", "checkout"]));
    assert_eq!(principal.scope.namespaces, NameSet::only(Vec::<String>::new()), "absent is nothing, not everything");
    for (change, reason) in [
        (json!({"https://example.com/org": null}), TokenReason::TenantUnmapped),
        (json!({"https://example.com/org": "o-2"}), TokenReason::TenantUnmapped),
        (json!({"user": null}), TokenReason::ClaimMissing),
        (json!({"realm_access": {"roles": ["king"]}, "scope": "look"}), TokenReason::GrantsNothing),
        (json!({"scope": "openid"}), TokenReason::GrantsNothing),
        (json!({"scope": null}), TokenReason::GrantsNothing),
        (json!({"services": ["a\u{0}b"]}), TokenReason::ClaimMissing),
        (json!({"realm_access": {"roles": [1]}}), TokenReason::ClaimMissing),
    ] {
        let claims = changed(changed(claims(), &rich), &change);
        let token = sign(&KEYS, Algorithm::ES256, &header().to_string(), &claims.to_string());
        assert_eq!(bench.refused(&token).await, reason, "{change}");
    }
}
