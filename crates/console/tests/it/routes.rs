//! What each route lets in and refuses.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use portcullis_console::{ConsoleSettings, HealthFor};
use portcullis_gateway::{LimitSettings, Rate};
use serde_json::Value;

use crate::house::{FAR, NEAR, house};

fn code(body: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn health_is_a_bare_status_and_may_be_for_this_machine_only() {
    let open = house(ConsoleSettings::default(), LimitSettings::default()).await;
    assert_eq!(open.get("/livez", None).await, (200, String::new()));
    assert_eq!(open.get("/readyz", None).await, (200, String::new()));
    open.steward.unwell.store(true, Ordering::SeqCst);
    assert_eq!(open.get("/readyz", None).await, (503, String::new()), "why is not for strangers");
    assert_eq!(open.get("/livez", None).await.0, 200);
    let (status, body) = open.get("/readyz", Some(&open.admin)).await;
    assert!(status == 503 && body.contains("the disk is full"), "{status} {body}");
    assert_eq!(open.get("/readyz", Some(&open.reader)).await.0, 403);
    assert_eq!(open.get("/readyz", Some("pcl_wrong")).await.0, 401);

    let settings = ConsoleSettings { health: HealthFor::ThisMachine, ..ConsoleSettings::default() };
    let closed = house(settings, LimitSettings::default()).await;
    for (peer, forwarded, expected) in [(NEAR, None, 200), (FAR, None, 401), (NEAR, Some("203.0.113.7"), 401)] {
        let mut request = Request::get("/livez");
        if let Some(by) = forwarded {
            request = request.header("X-Forwarded-For", by);
        }
        assert_eq!(closed.send(request, peer, Body::empty()).await.0, expected, "{peer} {forwarded:?}");
    }
    let known = Request::get("/livez").header("Authorization", format!("Bearer {}", closed.scraper));
    assert_eq!(closed.send(known, FAR, Body::empty()).await.0, 200);
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_is_not_ready() {
    let settings = ConsoleSettings::default();
    let closing = settings.closing.clone();
    let house = house(settings, LimitSettings::default()).await;
    closing.cancel();
    assert_eq!(house.get("/readyz", None).await.0, 503);
    assert_eq!(house.get("/livez", None).await.0, 200);
}

#[tokio::test]
async fn only_the_right_door_and_role_pass_and_every_end_is_recorded() {
    let house = house(ConsoleSettings::default(), LimitSettings::default()).await;
    assert_eq!(house.get("/api/v1/status", Some(&house.admin)).await.0, 200);
    assert_eq!(house.get("/api/v1/status", Some(&house.reader)).await.0, 403);
    assert_eq!(house.get("/api/v1/status", Some(&house.scraper)).await.0, 403);
    assert_eq!(house.get("/api/v1/status", None).await.0, 401);
    assert_eq!(house.refusals(), ["no-rule-allows", "wrong_door", "no_credential"]);
    let records = house.memory.records.lock().unwrap().clone();
    let allowed = records.iter().find(|end| end.method == "admin/status.read" && end.allowed).unwrap();
    assert_eq!((&*allowed.rule, allowed.transport.as_str()), ("admin-may-administer", "admin"));
}

#[tokio::test]
async fn what_an_operation_fails_with_is_told_without_its_inside() {
    let house = house(ConsoleSettings::default(), LimitSettings::default()).await;
    let (status, body) = house.get("/api/v1/sources", Some(&house.admin)).await;
    assert_eq!(status, 503);
    assert!(body.contains("not now") && !body.contains("postgres"), "{body}");
    let (status, body) = house.get("/api/v1/keys", Some(&house.admin)).await;
    assert_eq!((status, code(&body)), (413, "too_large".to_owned()), "nothing is cut silently");
}

#[tokio::test]
async fn answers_are_cleaned_and_redacted_like_every_other() {
    let house = house(ConsoleSettings::default(), LimitSettings::default()).await;
    let (status, body) = house.get("/api/v1/audit?principal=key:abc", Some(&house.admin)).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("abcdefghij") && body.contains("a10.0.0.7b"), "ids and addresses of machines are there: {body}");
    for gone in ["203.0.113.9", "hunter2hunter2", "anna@example.org"] {
        assert!(!body.contains(gone), "{gone}: {body}");
    }
    let records = house.memory.records.lock().unwrap();
    let counted = records.iter().find(|end| end.method == "admin/audit.read").unwrap();
    assert!(!counted.redactions.is_empty(), "the record says what was taken out: {counted:?}");
}

#[tokio::test]
async fn a_change_needs_json_and_intent() {
    let house = house(ConsoleSettings::default(), LimitSettings::default()).await;
    let post = |path: &str| {
        Request::post(path).header("Authorization", format!("Bearer {}", house.admin)).header("Content-Type", "application/json")
    };
    let path = "/api/v1/keys/abcdefghij/revoke";
    assert_eq!(house.send(post(path), NEAR, "{}").await.0, 200);
    assert_eq!(house.send(post("/api/v1/approvals/abc/deny"), NEAR, "{}").await.0, 200);
    for wrong in ["", "[]", "null", "{\"force\": true}", "{} {}", "{\"a\":1,\"a\":1}"] {
        assert_eq!(house.send(post(path), NEAR, wrong).await.0, 400, "{wrong}");
    }
    let form =
        Request::post(path).header("Authorization", format!("Bearer {}", house.admin)).header("Content-Type", "text/plain");
    assert_eq!(house.send(form, NEAR, "{}").await.0, 400);
    for id in ["a%2Fb", "%00", "a%20b", "%ff%fe", &"x".repeat(200)] {
        assert_eq!(house.send(post(&format!("/api/v1/keys/{id}/revoke")), NEAR, "{}").await.0, 404, "{id}");
    }
    let stranger = Request::post("/api/v1/keys/%ff/revoke");
    assert_eq!(house.send(stranger, NEAR, "{}").await.0, 401, "who asks comes first");
    let huge = vec![b' '; 100 << 10];
    let (status, body, _) = house.send(post(path), NEAR, huge).await;
    assert_eq!((status, code(&body)), (413, "too_large".to_owned()));
    let changed = house.steward.changed.lock().unwrap().clone();
    let who = format!("key:{}", house.admin.split('_').nth(1).unwrap());
    assert_eq!(changed, [(who.clone(), "abcdefghij".to_owned()), (who, "abc:false".to_owned())], "only what was right was done");
    assert!(house.refusals().iter().any(|rule| rule == "cross-site") && house.refusals().iter().any(|rule| rule == "body-size"));
}

#[tokio::test]
async fn without_an_audit_log_nothing_is_done_but_taking_back_a_key() {
    let house = house(ConsoleSettings::default(), LimitSettings::default()).await;
    assert_eq!(house.get("/api/v1/status", Some(&house.admin)).await.0, 200);
    house.memory.broken.store(true, Ordering::SeqCst);
    let post = |to: &str| {
        let post = Request::post(to).header("Content-Type", "application/json");
        post.header("Authorization", format!("Bearer {}", house.admin))
    };
    assert_eq!(house.send(post("/api/v1/approvals/abcdef012345/approve"), NEAR, "{}").await.0, 503);
    assert!(house.steward.changed.lock().unwrap().is_empty());
    assert_eq!(house.send(post("/api/v1/keys/abcdefghij/revoke"), NEAR, "{}").await.0, 503, "it cannot be recorded");
    assert_eq!(house.steward.changed.lock().unwrap().len(), 1, "and is done all the same");
    assert_eq!(house.get("/api/v1/status", Some(&house.admin)).await.0, 503);
}

#[tokio::test]
async fn rates_hold_and_a_body_that_does_not_come_is_not_waited_for() {
    let limits = LimitSettings { principal: Rate::new(1, 3), ..LimitSettings::default() };
    let settings = ConsoleSettings { body_time: Duration::from_millis(50), ..ConsoleSettings::default() };
    let house = house(settings, limits).await;
    let never = Body::from_stream(futures_pending());
    let post = Request::post("/api/v1/keys/a/revoke").header("Content-Type", "application/json");
    let post = post.header("Authorization", format!("Bearer {}", house.admin));
    assert_eq!(house.send(post, NEAR, never).await.0, 504);
    assert_eq!(house.get("/api/v1/status", Some(&house.admin)).await.0, 200);
    assert_eq!(house.get("/api/v1/status", Some(&house.admin)).await.0, 200);
    let request = Request::get("/api/v1/status").header("Authorization", format!("Bearer {}", house.admin));
    let (status, _, response) = house.send(request, NEAR, Body::empty()).await;
    assert_eq!(status, 429);
    assert!(response.headers().contains_key("retry-after"));
}

/// Who may not do what is asked is told so without a byte of the body, and nobody takes every place.
#[tokio::test]
async fn a_body_is_read_of_those_only_who_may_and_no_principal_takes_every_place() {
    let settings = ConsoleSettings { in_flight: 8, in_flight_each: 2, ..ConsoleSettings::default() };
    let house = std::sync::Arc::new(house(settings, LimitSettings::default()).await);
    let post = |key: &str| {
        let post = Request::post("/api/v1/keys/a/revoke").header("Content-Type", "application/json");
        post.header("Authorization", format!("Bearer {key}"))
    };
    let began = std::time::Instant::now();
    let (status, body, _) = house.send(post(&house.reader), NEAR, Body::from_stream(futures_pending())).await;
    assert_eq!(status, 403, "{body}");
    assert!(began.elapsed() < Duration::from_secs(5), "the body was waited for");
    assert_eq!(house.refusals().len(), 1, "{:?}", house.refusals());
    let holding: Vec<_> = (0..2)
        .map(|_| {
            let (house, post) = (house.clone(), post(&house.admin));
            tokio::spawn(async move { house.send(post, NEAR, Body::from_stream(futures_pending())).await.0 })
        })
        .collect();
    let mut status = 200;
    while status == 200 {
        status = house.get("/api/v1/status", Some(&house.admin)).await.0;
        tokio::task::yield_now().await;
    }
    assert_eq!(status, 503, "the places of this principal are taken");
    assert_eq!(house.get("/metrics", Some(&house.scraper)).await.0, 200, "those of others are not");
    assert!(house.refusals().contains(&"in-flight".to_owned()), "{:?}", house.refusals());
    for held in holding {
        held.abort();
        let _aborted = held.await;
    }
    assert_eq!(house.get("/api/v1/status", Some(&house.admin)).await.0, 200, "and are given back");
    assert!(house.steward.changed.lock().unwrap().is_empty());
}

/// A body that never says anything.
fn futures_pending() -> impl futures::Stream<Item = Result<Vec<u8>, std::io::Error>> + Send + 'static {
    futures::stream::pending()
}

#[tokio::test]
async fn places_are_bounded_and_given_back() {
    let settings = ConsoleSettings { in_flight: 1, admission_time: Duration::from_millis(50), ..ConsoleSettings::default() };
    let house = std::sync::Arc::new(house(settings, LimitSettings::default()).await);
    let post = |house: &crate::house::House| {
        let post = Request::post("/api/v1/keys/a/revoke").header("Content-Type", "application/json");
        post.header("Authorization", format!("Bearer {}", house.admin))
    };
    let holding = tokio::spawn({
        let house = house.clone();
        async move { house.send(post(&house), NEAR, Body::from_stream(futures_pending())).await.0 }
    });
    let mut status = 200;
    for _ in 0..100 {
        status = house.get("/metrics", Some(&house.scraper)).await.0;
        if status == 503 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(status, 503, "the one place is taken");
    assert_eq!(house.get("/livez", None).await.0, 200, "whether it is alive needs no place");
    holding.abort();
    let _aborted = holding.await;
    assert_eq!(house.get("/metrics", Some(&house.scraper)).await.0, 200);
}

#[tokio::test]
async fn other_hosts_origins_methods_and_paths_are_refused() {
    let house = house(ConsoleSettings::default(), LimitSettings::default()).await;
    for (name, value) in [("Origin", "https://evil.example"), ("Origin", "null")] {
        let request = Request::get("/livez").header(name, value);
        assert_eq!(house.send(request, NEAR, Body::empty()).await.0, 403, "{name}: {value}");
    }
    let host = Request::get("/livez").header("Host", "evil.example");
    assert_eq!(house.send(host, NEAR, Body::empty()).await.0, 400, "two hosts");
    let twice = Request::get("/api/v1/keys").header("Authorization", "Bearer a").header("Authorization", "Bearer b");
    assert_eq!(house.send(twice, NEAR, Body::empty()).await.0, 400);
    assert_eq!(*house.turned_away.0.lock().unwrap(), ["origin", "origin", "host", "authorization-twice"]);
    assert_eq!(house.get("/", None).await.0, 404);
    assert_eq!(house.get("/api/v1/keys/a/revoke", Some(&house.admin)).await.0, 405);
    assert_eq!(house.send(Request::delete("/api/v1/keys"), NEAR, Body::empty()).await.0, 405);
}
