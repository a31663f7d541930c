//! Sessions of the older revisions.

use std::time::{Duration, Instant};

use portcullis_mcp::{HttpSettings, SessionCount, SessionLimits, SessionsFor};
use portcullis_model::FaultCode;
use portcullis_policy::Products;
use serde_json::{Value, json};

use crate::house::{ACCEPT, Served, Sleepers, furnish, furnish_with, initialize, request, served};
use crate::http::Connection;

async fn list(served: &Served, key: &str, session: &str) -> u16 {
    served.legacy(key, Some(session), &request(5, "tools/list", json!({}))).await.status()
}

async fn bare(served: &Served, method: &str, key: &str, session: &str) -> Connection {
    let authorization = format!("Bearer {key}");
    let mut connection = served.connect().await;
    let headers = [ACCEPT, ("Mcp-Session-Id", session), ("Authorization", authorization.as_str())];
    connection.send(method, "/mcp", &headers, "").await;
    connection
}

#[tokio::test]
async fn a_session_exists_for_its_principal_only() {
    let served = served(HttpSettings::default()).await;
    let (one, two) = (served.house.one.clone(), served.house.two.clone());
    let session = served.session(&one, json!({})).await;
    assert_eq!(list(&served, &one, &session).await, 200);
    assert_eq!(list(&served, &one, "00000000-0000-4000-8000-000000000000").await, 404);
    for method in ["GET", "DELETE"] {
        assert_eq!(bare(&served, method, &two, &session).await.reply().await.status(), 404, "{method}");
    }
    assert_eq!(list(&served, &two, &session).await, 404);
    assert_eq!(served.house.memory.last().rule.as_ref(), "foreign-session");
    assert_eq!(list(&served, &one, &session).await, 200, "a stranger's DELETE ended nothing");
    assert_eq!(served.house.memory.all().iter().filter(|end| end.rule.as_ref() == "foreign-session").count(), 4);
    assert!(bare(&served, "DELETE", &one, &session).await.reply().await.status() < 300);
    assert_eq!(list(&served, &one, &session).await, 404);
}

#[tokio::test]
async fn a_session_is_no_credential() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    let session = served.session(&one, json!({})).await;
    assert_eq!(list(&served, "pcl_nobody", &session).await, 401);
    served.call("echo", json!({})).await;
    let id = served.house.memory.all().iter().find_map(|end| end.principal.clone()).map(|p| p.id.as_str().to_owned());
    let id = id.unwrap().strip_prefix("key:").unwrap().to_owned();
    served.house.keys.revoke(&id).await.unwrap();
    served.house.keys.refresh().await.unwrap();
    assert_eq!(list(&served, &one, &session).await, 401, "revoked within the session");
}

#[tokio::test]
async fn sessions_are_bounded_and_end_when_idle() {
    let limits = SessionLimits { per_principal: 2, idle: Duration::from_millis(800), ..SessionLimits::default() };
    let served = served(HttpSettings { session_limits: limits, ..HttpSettings::default() }).await;
    let one = served.house.one.clone();
    let first = served.session(&one, json!({})).await;
    served.session(&one, json!({})).await;
    let reply = served.legacy(&one, None, &initialize(json!({}))).await;
    assert_eq!((reply.status(), reply.head.header("retry-after")), (429, Some("60")));
    assert_eq!((&reply.json()["id"], &reply.json()["error"]["code"]), (&json!(0), &json!(429)));
    served.session(&served.house.two.clone(), json!({})).await;
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    assert_eq!(list(&served, &one, &first).await, 404);
    served.session(&one, json!({})).await;
}

#[tokio::test]
async fn small_answers_leave_at_once() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    let session = served.session(&one, json!({})).await;
    let mut connection = served.connect().await;
    let mut times = Vec::new();
    for id in 0..21 {
        let started = Instant::now();
        let call = request(id, "tools/call", json!({"name": "echo", "arguments": {"text": "x"}}));
        served.send_legacy(&mut connection, &one, Some(&session), &call).await;
        assert_eq!(connection.reply().await.messages()[0]["result"]["isError"], false);
        times.push(started.elapsed());
    }
    times.sort();
    // With Nagle's algorithm the median is the peer's delayed acknowledgement: above 40 ms.
    assert!(times[10] < Duration::from_millis(25), "median {:?}", times[10]);
}

#[tokio::test]
async fn changes_reach_the_listening_stream() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    let session = served.session(&one, json!({})).await;
    let watch = request(2, "resources/subscribe", json!({"uri": "house://book"}));
    assert!(served.legacy(&one, Some(&session), &watch).await.messages()[0]["result"].is_object());
    let hidden = request(3, "resources/subscribe", json!({"uri": "other://x"}));
    assert_eq!(served.legacy(&one, Some(&session), &hidden).await.messages()[0]["error"]["code"], -32002);
    let mut stream = bare(&served, "GET", &one, &session).await;
    assert_eq!(stream.head().await.status, 200);
    let (catalogue, policies) = furnish(&served.house.sleepers, 1, 2);
    served.house.gateway.install(catalogue, policies, Products::default());
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(stream.event().await.unwrap()["method"].as_str().unwrap().to_owned());
    }
    let wanted = ["notifications/tools/list_changed", "notifications/resources/list_changed", "notifications/resources/updated"];
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn only_what_is_announced_can_be_watched() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    let offered =
        async || served.legacy(&one, None, &initialize(json!({}))).await.messages()[0]["result"]["capabilities"].clone();
    assert_eq!(offered().await["resources"], json!({"subscribe": true, "listChanged": true}));
    let session = served.session(&one, json!({})).await;
    let live = request(2, "resources/subscribe", json!({"uri": "house://live"}));
    let error = served.legacy(&one, Some(&session), &live).await.messages()[0]["error"].clone();
    assert_eq!(error["code"], -32602, "{error}");
    assert!(error["message"].as_str().unwrap().contains("not announced"), "{error}");
    // Where nothing is announced, subscriptions are neither offered nor served.
    let (catalogue, policies) = furnish_with(&served.house.sleepers, 0, 2, false);
    served.house.gateway.install(catalogue, policies, Products::default());
    assert_eq!(offered().await["resources"], json!({"listChanged": true}));
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        let asked = request(3, method, json!({"uri": "house://book"}));
        assert_eq!(served.legacy(&one, Some(&session), &asked).await.messages()[0]["error"]["code"], -32601, "{method}");
    }
    let mut stream = served.connect().await;
    let filter = json!({"notifications": {"resourceSubscriptions": ["house://book"]}});
    served.send_modern(&mut stream, &one, "subscriptions/listen", filter).await;
    stream.head().await;
    let first = stream.event().await.unwrap();
    let granted = &first["params"]["notifications"]["resourceSubscriptions"];
    assert!(granted.is_null() || *granted == json!([]), "{first}");
}

#[tokio::test]
async fn cancelling_drops_the_call() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    let session = served.session(&one, json!({})).await;
    let mut stream = served.connect().await;
    served.send_legacy(&mut stream, &one, Some(&session), &request(9, "tools/call", json!({"name": "sleep"}))).await;
    stream.head().await;
    Sleepers::until(&served.house.sleepers.running, 1).await;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}});
    assert_eq!(served.legacy(&one, Some(&session), &cancel).await.status(), 202);
    Sleepers::until(&served.house.sleepers.dropped, 1).await;
    let record = served.house.memory.last();
    assert_eq!((record.code, record.session.as_deref()), (Some(FaultCode::Cancelled), Some(session.as_str())));
}

#[tokio::test]
async fn older_revisions_are_negotiated_and_keep_their_shape() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    for (asked, given) in [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ] {
        let mut hello = initialize(json!({}));
        hello["params"]["protocolVersion"] = json!(asked);
        let result = served.legacy(&one, None, &hello).await.messages()[0]["result"].clone();
        assert_eq!((&result["protocolVersion"], &result["serverInfo"]["name"]), (&json!(given), &json!("portcullis")), "{asked}");
    }
    let session = served.session(&one, json!({})).await;
    let call = request(4, "tools/call", json!({"name": "echo", "arguments": {}}));
    let result: Value = served.legacy(&one, Some(&session), &call).await.messages()[0]["result"].clone();
    assert!(result.get("resultType").is_none() && result.get("_meta").is_none(), "{result}");
    let missing = request(5, "resources/read", json!({"uri": "house://none"}));
    assert_eq!(served.legacy(&one, Some(&session), &missing).await.messages()[0]["error"]["code"], -32002);
    let reply = served.legacy(&one, None, &request(6, "tools/list", json!({}))).await;
    assert_eq!((reply.status(), &reply.json()["id"]), (400, &json!(6)));
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("initialize"));
}

#[tokio::test]
async fn the_log_level_is_each_sessions_own() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    let session = served.session(&one, json!({})).await;
    let mut stream = bare(&served, "GET", &one, &session).await;
    stream.head().await;
    for (level, expected) in [("debug", 2), ("error", 0), ("warning", 1)] {
        let set = request(1, "logging/setLevel", json!({"level": level}));
        assert_eq!(served.legacy(&one, Some(&session), &set).await.messages()[0]["result"], json!({}));
        let call = request(2, "tools/call", json!({"name": "report", "arguments": {}}));
        served.legacy(&one, Some(&session), &call).await;
        for _ in 0..expected {
            assert_eq!(stream.event().await.unwrap()["method"], "notifications/message");
        }
    }
    let wrong = request(3, "logging/setLevel", json!({"level": "loud"}));
    assert_eq!(served.legacy(&one, Some(&session), &wrong).await.messages()[0]["error"]["code"], -32602);
}

#[tokio::test]
async fn an_id_under_way_is_refused_at_once_and_the_first_request_is_unharmed() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    let session = served.session(&one, json!({})).await;
    let call = request(7, "tools/call", json!({"name": "sleep"}));
    let mut first = served.connect().await;
    served.send_legacy(&mut first, &one, Some(&session), &call).await;
    Sleepers::until(&served.house.sleepers.running, 1).await;
    let began = Instant::now();
    let refused = served.legacy(&one, Some(&session), &call).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(refused.status(), 400);
    let answer = refused.json();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32600)), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("id 7 is already in use"), "{answer}");
    let end = served.house.memory.last();
    assert_eq!((&*end.rule, end.allowed, end.code), ("request-id-in-use", false, Some(FaultCode::InvalidArgument)));
    assert_eq!(end.principal.unwrap().id.as_str(), served.house.memory.all()[0].principal.as_ref().unwrap().id.as_str());
    // Other ids, other spellings and other sessions are not concerned.
    let spelt = json!({"jsonrpc": "2.0", "id": "7", "method": "ping"});
    assert_eq!(served.legacy(&one, Some(&session), &spelt).await.messages()[0]["id"], "7");
    let other = served.session(&one, json!({})).await;
    assert_eq!(served.legacy(&one, Some(&other), &request(7, "ping", json!({}))).await.messages()[0]["id"], 7);
    assert_eq!(served.house.sleepers.dropped.load(std::sync::atomic::Ordering::SeqCst), 0, "the first request goes on");
    served.house.sleepers.awake.notify_one();
    let answered = first.reply().await;
    assert_eq!((answered.status(), &answered.messages()[0]["id"]), (200, &json!(7)), "{}", answered.body);
    assert_eq!(answered.messages()[0]["result"]["isError"], false);
    // Answered, the id is free again.
    assert_eq!(served.legacy(&one, Some(&session), &request(7, "ping", json!({}))).await.messages()[0]["id"], 7);
}

#[tokio::test]
async fn an_id_whose_client_left_is_under_way_until_it_is_answered() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    let session = served.session(&one, json!({})).await;
    let call = request(7, "tools/call", json!({"name": "sleep"}));
    let mut first = served.connect().await;
    served.send_legacy(&mut first, &one, Some(&session), &call).await;
    Sleepers::until(&served.house.sleepers.running, 1).await;
    drop(first);
    assert_eq!(served.legacy(&one, Some(&session), &call).await.status(), 400);
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    assert_eq!(served.legacy(&one, Some(&session), &cancel).await.status(), 202);
    Sleepers::until(&served.house.sleepers.dropped, 1).await;
    // What the cancelled call leaves must not pass for the answer of another one.
    assert_eq!(served.legacy(&one, Some(&session), &request(7, "ping", json!({}))).await.status(), 400);
    assert_eq!(served.legacy(&one, Some(&session), &request(8, "ping", json!({}))).await.messages()[0]["id"], 8);
}

#[tokio::test]
async fn sessions_opened_at_the_same_time_stay_within_the_bounds() {
    let limits = SessionLimits { per_principal: 3, in_all: 512, ..SessionLimits::default() };
    let count = SessionCount::default();
    let settings = HttpSettings { session_limits: limits, session_count: count.clone(), ..HttpSettings::default() };
    let served = served(settings).await;
    let one = served.house.one.clone();
    let hello = initialize(json!({}));
    let opened = futures::future::join_all((0..24).map(|_| served.legacy(&one, None, &hello))).await;
    let with = |status: u16| opened.iter().filter(|reply| reply.status() == status).count();
    assert_eq!((with(200), with(429), count.open()), (3, 21, 3));
}

#[tokio::test]
async fn a_session_is_opened_for_who_needs_one_and_all_others_are_served_without() {
    let count = SessionCount::default();
    let settings = HttpSettings { sessions: SessionsFor::Needed, session_count: count.clone(), ..HttpSettings::default() };
    let served = served(settings).await;
    let one = served.house.one.clone();
    let reply = served.legacy(&one, None, &initialize(json!({}))).await;
    assert_eq!((reply.status(), reply.head.header("mcp-session-id")), (200, None));
    let result = reply.messages()[0]["result"].clone();
    assert_eq!(result["protocolVersion"], "2025-11-25");
    // What only a session could keep is not promised.
    let offered = &result["capabilities"];
    assert!(offered["tools"].is_object() && offered["tools"].get("listChanged").is_none(), "{offered}");
    assert!(offered.get("logging").is_none() && offered["resources"].get("subscribe").is_none(), "{offered}");
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(served.legacy(&one, None, &ready).await.status(), 202);
    let listed = served.legacy(&one, None, &request(2, "tools/list", json!({}))).await;
    assert!(listed.messages()[0]["result"]["tools"].as_array().is_some_and(|tools| !tools.is_empty()));
    let call = request(3, "tools/call", json!({"name": "echo", "arguments": {"text": "x"}}));
    assert_eq!(served.legacy(&one, None, &call).await.messages()[0]["result"]["isError"], false);
    let asking = request(4, "tools/call", json!({"name": "ask", "arguments": {}}));
    assert_eq!(served.legacy(&one, None, &asking).await.messages()[0]["result"]["isError"], true, "nobody to ask");
    let authorization = format!("Bearer {one}");
    let mut stream = served.connect().await;
    stream.send("GET", "/mcp", &[ACCEPT, ("Authorization", authorization.as_str())], "").await;
    assert_eq!(stream.reply().await.status(), 405, "there is nothing to listen to");
    assert_eq!(count.open(), 0);
    let session = served.session(&one, json!({"elicitation": {}})).await;
    assert_eq!((list(&served, &one, &session).await, count.open()), (200, 1));
    assert_eq!(served.call("echo", json!({})).await.status(), 200, "the stateless revision is what it was");
}

#[tokio::test]
async fn a_listening_stream_ends_within_a_second_of_its_key() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    let session = served.session(&one, json!({})).await;
    let mut stream = bare(&served, "GET", &one, &session).await;
    assert_eq!(stream.head().await.status, 200);
    let id = one.split('_').nth(1).unwrap();
    served.house.keys.revoke(id).await.unwrap();
    served.house.keys.refresh().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(2), stream.event()).await;
    assert_eq!(ended.expect("it is still open"), None);
    let end = served.house.memory.last();
    assert_eq!((end.rule.as_ref(), end.allowed), ("credential-ended", false));
}
