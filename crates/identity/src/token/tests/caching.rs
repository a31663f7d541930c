//! The issuer's keys over time: fetched seldom, never twice at once, replaced when the issuer changes them, and not trusted
//! for ever when it is gone.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::support::{Bench, KEYS, OTHER_KEYS, changed, claims, header, jwks, sign, token};
use crate::token::TokenReason::{KeysUnavailable, UnknownKey};
use crate::token::jwks::{BETWEEN_FAILURES, BETWEEN_UNKNOWN, FRESH_AT_LEAST, FRESH_AT_MOST, STALE_AT_MOST};

/// A token that outlives the test's clock.
fn lasting() -> String {
    token(&json!({}), &json!({"exp": super::support::NOW + 10 * 86_400, "iat": null}))
}

fn patient() -> Bench {
    Bench::with(&json!({"max_lifetime": "30d"}))
}

/// Lets a fetch that nobody waits for land.
async fn landed() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn renamed(name: &str) -> Value {
    let mut keys = jwks(&OTHER_KEYS);
    keys["keys"][1]["kid"] = json!(name);
    keys
}

fn signed_by_other(name: &str) -> String {
    let header = changed(header(), &json!({"kid": name})).to_string();
    sign(&OTHER_KEYS, Algorithm::ES256, &header, &claims().to_string())
}

#[tokio::test]
async fn many_callers_at_once_cause_one_fetch() {
    let bench = Arc::new(Bench::new());
    let token = super::support::good_token();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (bench, token) = (bench.clone(), token.clone());
            tokio::spawn(async move { bench.verify(&token).await.is_ok() })
        })
        .collect();
    for caller in callers {
        assert!(caller.await.unwrap());
    }
    assert_eq!(bench.fetch.count(), 1);
}

#[tokio::test]
async fn an_unknown_key_name_is_asked_for_once_in_a_while() {
    let bench = Bench::new();
    bench.verify(&super::support::good_token()).await.unwrap();
    for name in ["a", "b", "c", "d"] {
        assert_eq!(bench.refused(&signed_by_other(name)).await, UnknownKey);
    }
    assert_eq!(bench.fetch.count(), 2, "strangers' key names cause one fetch");
    bench.fetch.tell(Some(&renamed("new")), None);
    assert_eq!(bench.refused(&signed_by_other("new")).await, UnknownKey, "too early to ask again");
    bench.clock.advance(BETWEEN_UNKNOWN);
    bench.verify(&signed_by_other("new")).await.expect("the issuer's new key is found");
    assert_eq!(bench.fetch.count(), 3);
    assert_eq!(bench.refused(&super::support::good_token()).await, UnknownKey, "a key the issuer took back is gone");
}

#[tokio::test]
async fn the_issuers_word_on_freshness_is_bounded() {
    for (said, kept) in [
        (Some(Duration::ZERO), FRESH_AT_LEAST),
        (Some(Duration::from_mins(20)), Duration::from_mins(20)),
        (Some(Duration::from_hours(1_000)), FRESH_AT_MOST),
    ] {
        let bench = patient();
        bench.fetch.tell(Some(&jwks(&KEYS)), said);
        bench.verify(&lasting()).await.unwrap();
        bench.clock.advance(kept.saturating_sub(Duration::from_secs(1)));
        bench.verify(&lasting()).await.unwrap();
        landed().await;
        assert_eq!(bench.fetch.count(), 1, "{said:?}");
        bench.clock.advance(Duration::from_secs(2));
        bench.verify(&lasting()).await.unwrap();
        landed().await;
        assert_eq!(bench.fetch.count(), 2, "{said:?}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_gone_is_trusted_for_a_bounded_time() {
    let bench = patient();
    bench.fetch.tell(Some(&jwks(&KEYS)), Some(FRESH_AT_LEAST));
    bench.verify(&lasting()).await.unwrap();
    bench.fetch.tell(None, None);
    bench.clock.advance(FRESH_AT_LEAST + STALE_AT_MOST);
    bench.verify(&lasting()).await.expect("still within the bound");
    landed().await;
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.refused(&lasting()).await, KeysUnavailable);
    let asked = bench.fetch.count();
    assert_eq!(bench.refused(&lasting()).await, KeysUnavailable);
    assert_eq!(bench.fetch.count(), asked, "a failed issuer is left alone for a moment");
    bench.fetch.tell(Some(&jwks(&KEYS)), None);
    bench.clock.advance(BETWEEN_FAILURES);
    bench.verify(&lasting()).await.expect("the issuer is back");
}

#[tokio::test]
async fn without_keys_nobody_is_verified() {
    let bench = Bench::new();
    bench.fetch.tell(None, None);
    assert_eq!(bench.refused(&super::support::good_token()).await, KeysUnavailable);
    assert!(!KeysUnavailable.counts_as_failure(), "the caller is not to blame");
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_end_the_fetch() {
    let bench = Arc::new(Bench::new());
    let waiting = tokio::spawn({
        let bench = bench.clone();
        async move { drop(bench.verify(&super::support::good_token()).await) }
    });
    while bench.fetch.count() == 0 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    landed().await;
    bench.verify(&super::support::good_token()).await.unwrap();
    assert_eq!(bench.fetch.count(), 1);
}
