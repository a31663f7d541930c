//! Approvals, behaviour profiles, products, token budgets and rates, each as a caller meets them and as the record says it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_gateway::{CallRequest, LimitSettings, ProfileMode, Rate};
use portcullis_identity::{Presented, Transport};
use portcullis_model::{FaultCode, PrincipalId, Whence};
use portcullis_ports::{Answers, Arguments, ClientAbilities, Outcome};
use serde_json::{Value, json};

use crate::house::{House, house, house_with, watched_house};

fn request(tool: &str, text: &str) -> CallRequest {
    let Value::Object(map) = json!({"text": text}) else { panic!("arguments are an object") };
    CallRequest { tool: tool.into(), arguments: Arguments(map), ..CallRequest::default() }
}

fn boss() -> PrincipalId {
    PrincipalId::new("local:boss").unwrap()
}

async fn call(house: &House, key: &str, request: CallRequest) -> Result<Outcome, (FaultCode, String)> {
    let caller = house.caller(key).await;
    let answer = house.gateway.call(&caller, request, Arc::new(())).await;
    answer.map(portcullis_guard::Released::into_inner).map_err(|f| (f.get().code, f.get().message.clone()))
}

#[tokio::test]
async fn a_destructive_call_waits_for_an_operator_and_runs_once() {
    let house = house(LimitSettings::default(), &["workloads"]).await;
    let admin = house.admin.clone();
    let (code, message) = call(&house, &admin, request("wipe", "x")).await.unwrap_err();
    assert_eq!(code, FaultCode::Forbidden);
    assert!(message.starts_with("pending approval"), "{message}");
    assert_eq!((&*house.last().rule, house.last().allowed), ("approval", false));
    let waiting = house.approvals.list().await.unwrap();
    let [record] = &waiting[..] else { panic!("{waiting:?}") };
    house.approvals.grant(&record.id, &boss()).await.unwrap();
    call(&house, &admin, request("wipe", "y")).await.expect_err("other arguments need another yes");
    call(&house, &admin, request("wipe", "x")).await.unwrap();
    assert!(house.last().note.unwrap().contains("approved by local:boss"));
    call(&house, &admin, request("wipe", "x")).await.expect_err("good for one call");
}

#[tokio::test]
async fn the_user_of_a_client_may_say_yes_and_a_forged_answer_may_not() {
    let house = house(LimitSettings::default(), &["workloads"]).await;
    let admin = house.admin.clone();
    let able = ClientAbilities { elicitation: true, ..ClientAbilities::default() };
    let asking = CallRequest { abilities: able, ..request("wipe", "x") };
    let Outcome::NeedsInput { requests, state } = call(&house, &admin, asking.clone()).await.unwrap() else { panic!() };
    assert_eq!(requests[0].1.method, "elicitation/create");
    let yes = json!({"action": "accept", "content": {"approve": true}});
    let responses = || [(requests[0].0.clone(), yes.clone())].into();
    let forged = CallRequest { answers: Some(Answers { responses: responses(), state: None }), ..asking.clone() };
    assert!(matches!(call(&house, &admin, forged).await, Ok(Outcome::NeedsInput { .. })), "an answer nobody asked for");
    let elsewhere = CallRequest {
        answers: Some(Answers { responses: responses(), state: state.clone() }),
        abilities: able,
        ..request("wipe", "other")
    };
    assert!(matches!(call(&house, &admin, elsewhere).await, Ok(Outcome::NeedsInput { .. })), "the yes was for other arguments");
    let agreed = CallRequest { answers: Some(Answers { responses: responses(), state }), ..asking };
    assert!(matches!(call(&house, &admin, agreed).await, Ok(Outcome::Complete(_))));
    assert_eq!(house.last().note.as_deref(), Some("approved by the user of the client"));
}

#[tokio::test]
async fn a_reader_is_not_even_told_that_approval_exists() {
    let house = house(LimitSettings::default(), &["workloads"]).await;
    let reader = house.reader.clone();
    let (code, message) = call(&house, &reader, request("wipe", "x")).await.unwrap_err();
    assert_eq!((code, message.as_str()), (FaultCode::NotFound, "unknown tool: wipe"));
    assert!(house.approvals.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_enforced_profile_refuses_what_was_never_seen() {
    let house = watched_house(LimitSettings::default(), &[], ProfileMode::Enforce).await;
    let reader = house.reader.clone();
    let (code, _) = call(&house, &reader, request("look", "x")).await.unwrap_err();
    assert_eq!((code, &*house.last().rule), (FaultCode::Forbidden, "behaviour-profile"));
    assert!(house.last().note.unwrap().contains("no profile was accepted"));

    let house = watched_house(LimitSettings::default(), &[], ProfileMode::Observe).await;
    let reader = house.reader.clone();
    call(&house, &reader, request("look", "x")).await.unwrap();
    house.profiles.settle().await.unwrap();
    let learned = house.profiles.learned().await.unwrap();
    assert_eq!(learned[0].tools.keys().collect::<Vec<_>>(), ["look"]);
    let stored = serde_json::to_string(&learned).unwrap();
    assert!(stored.contains("text:text") && !stored.contains("\"x\""), "{stored}");
}

#[tokio::test]
async fn nothing_noted_on_the_way_is_lost() {
    let rules = r#"@id("bare") @unredacted("true") permit(principal in Portcullis::Role::"admin",
        action == Portcullis::Action::"call", resource == Portcullis::Tool::"wipe");"#;
    let house = house_with(LimitSettings::default(), &["workloads"], ProfileMode::DryRun, None, rules).await;
    let admin = house.admin.clone();
    let wish = CallRequest { unredacted: true, ..request("wipe", "x") };
    call(&house, &admin, wish.clone()).await.unwrap_err();
    let waiting = house.approvals.list().await.unwrap();
    assert!(waiting[0].unredacted);
    house.approvals.grant(&waiting[0].id, &boss()).await.unwrap();
    call(&house, &admin, request("wipe", "x")).await.expect_err("the yes was to a call whose answer is not redacted");
    call(&house, &admin, wish).await.unwrap();
    let note = house.last().note.unwrap();
    for part in ["unlike its profile", "released without redaction", "approved by local:boss"] {
        assert!(note.contains(part), "{part}: {note}");
    }
}

#[tokio::test]
async fn a_dry_run_lets_through_and_tells() {
    let house = watched_house(LimitSettings::default(), &[], ProfileMode::DryRun).await;
    let reader = house.reader.clone();
    call(&house, &reader, request("look", "x")).await.unwrap();
    let end = house.last();
    assert!(end.allowed && end.note.unwrap().contains("unlike its profile"));
}

#[tokio::test]
async fn rates_by_address_and_tool_and_a_spent_day() {
    let house = house(LimitSettings { tool: Rate::new(1, 1), ..LimitSettings::default() }, &[]).await;
    let reader = house.reader.clone();
    call(&house, &reader, request("look", "x")).await.unwrap();
    assert_eq!(call(&house, &reader, request("look", "x")).await.unwrap_err().0, FaultCode::RateLimited);
    assert_eq!(&*house.last().rule, "tool-rate");

    let house = crate::house::house(LimitSettings { address: Rate::new(1, 2), ..LimitSettings::default() }, &[]).await;
    let peer = Some("192.0.2.7:1".parse().unwrap());
    let presented = Presented::http(None, peer);
    for _ in 0..2 {
        assert_eq!(house.gateway.identify(&presented).await.unwrap_err().get().code, FaultCode::Unauthenticated);
    }
    assert_eq!(house.gateway.identify(&presented).await.unwrap_err().get().code, FaultCode::RateLimited);
    assert_eq!((&*house.last().rule, house.last().transport), ("address-rate", Transport::Http));

    let house = crate::house::house(LimitSettings { tokens_per_day: Some(1), ..LimitSettings::default() }, &[]).await;
    let reader = house.reader.clone();
    call(&house, &reader, request("look", "x")).await.unwrap();
    let (code, message) = call(&house, &reader, request("look", "x")).await.unwrap_err();
    assert_eq!((code, &*house.last().rule), (FaultCode::RateLimited, "token-budget"));
    assert!(message.contains("per day"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn what_is_set_aside_of_a_day_is_given_back_however_a_call_ends() {
    let limits = LimitSettings { tokens_per_day: Some(1_000), ..LimitSettings::default() };
    let house = house(limits, &[]).await;
    let reader = house.reader.clone();
    // The first call sets all of the day aside, for it could have a longer answer than that.
    let slow = call(&house, &reader, request("look", "sleep"));
    let (mut slow, other) = (Box::pin(slow), request("look", "x"));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut slow).await.is_err(), "it runs");
    let (code, message) = call(&house, &reader, other.clone()).await.unwrap_err();
    assert_eq!((code, &*house.last().rule, house.last().allowed), (FaultCode::RateLimited, "token-budget", false));
    assert!(message.contains("set aside for calls that run"), "{message}");
    // Who goes away, who fails, and whose answer is too long took nothing.
    drop(slow);
    for text in ["x", "fail", "x", "huge", "x"] {
        let answered = call(&house, &reader, request("look", text)).await;
        assert_eq!(answered.is_ok(), text == "x", "{text}");
        assert_ne!(&*house.last().rule, "token-budget", "{text}");
    }
}

#[tokio::test]
async fn a_success_is_recorded_once_in_a_while() {
    let house = house(LimitSettings::default(), &[]).await;
    for _ in 0..3 {
        house.caller(&house.reader).await;
    }
    let records = house.memory.records.lock().unwrap();
    let successes = records.iter().filter(|end| end.method == "authenticate" && end.allowed).count();
    assert_eq!(successes, 1);
}

#[tokio::test]
async fn a_caller_learns_what_is_left_of_its_rate() {
    let house = house(LimitSettings { principal: Rate::new(1, 3), ..LimitSettings::default() }, &[]).await;
    let caller = house.caller(&house.reader).await;
    assert_eq!(caller.rate(), None);
    house.gateway.tools(&caller).await.unwrap();
    assert_eq!(caller.rate().map(|r| (r.burst, r.remaining)), Some((3, 2)));
}

#[tokio::test]
async fn an_unknown_product_and_a_bypass_without_the_grant_are_refused() {
    let house = house(LimitSettings::default(), &[]).await;
    let caller = house.caller(&house.reader).await;
    let fault = house.gateway.within_product(caller, "oncall").unwrap_err();
    assert_eq!(fault.get().code, FaultCode::NotFound);
    assert_eq!(house.last().method, "product");
    let reader = house.reader.clone();
    let wish = CallRequest { unredacted: true, ..request("look", "hunter22") };
    assert_eq!(call(&house, &reader, wish).await.unwrap_err().0, FaultCode::Forbidden);
    assert_eq!((&*house.last().rule, house.last().allowed), ("unredacted", false));
}

#[tokio::test]
async fn a_flood_through_a_proxy_keeps_nobody_out_and_probes_count_apart() {
    let house = house(LimitSettings { address: Rate::new(1, 3), ..LimitSettings::default() }, &[]).await;
    let proxy: SocketAddr = "192.0.2.7:1".parse().unwrap();
    let key = format!("Bearer {}", house.reader);
    let through = |client: &str, authorization| {
        let whence = Whence::relayed(client.parse().unwrap(), "192.0.2.7");
        Presented { whence: Some(whence), ..Presented::http(authorization, None) }
    };
    for expected in [FaultCode::Unauthenticated, FaultCode::Unauthenticated, FaultCode::Unauthenticated, FaultCode::RateLimited] {
        assert_eq!(house.gateway.identify(&through("198.51.100.7", None)).await.unwrap_err().get().code, expected);
    }
    assert_eq!(&*house.last().rule, "address-rate");
    let from = house.last().whence.unwrap();
    assert_eq!((from.client().to_string().as_str(), from.via()), ("198.51.100.7", Some("192.0.2.7")));
    house.gateway.identify(&through("198.51.100.8", Some(&key))).await.expect("another client of the proxy");
    house.gateway.identify(&Presented::http(Some(&key), Some(proxy))).await.expect("the proxy itself");
    // Who claims to be somebody else, and is not believed, is counted where it is.
    let claimed = |said: &str| {
        let whence = Whence::unplaced("203.0.113.1:1".parse().unwrap(), Some(said));
        Presented { whence: Some(whence), ..Presented::http(None, None) }
    };
    for (said, expected) in [
        ("x-forwarded-for: 1.1.1.1", FaultCode::Unauthenticated),
        ("x-forwarded-for: 1.1.1.2", FaultCode::Unauthenticated),
        ("x-forwarded-for: 1.1.1.3", FaultCode::Unauthenticated),
        ("x-forwarded-for: 1.1.1.4", FaultCode::RateLimited),
    ] {
        assert_eq!(house.gateway.identify(&claimed(said)).await.unwrap_err().get().code, expected, "{said}");
    }
    // Asking whether the server lives, and sending, are counted apart.
    let plain = Presented::http(None, Some("203.0.113.1:1".parse().unwrap()));
    for _ in 0..3 {
        house.gateway.admit_probe(&plain).expect("a probe");
    }
    let refused = house.gateway.admit_probe(&plain).unwrap_err();
    assert_eq!((refused.get().code, &*house.last().rule), (FaultCode::RateLimited, "address-rate"));
    for expected in ["no_credential", "no_credential", "no_credential", "address-rate"] {
        assert_eq!(house.gateway.identify_sender(&plain).await.unwrap_err().rule, expected);
    }
}

#[tokio::test]
async fn a_wait_that_begins_is_told_although_the_address_is_over_its_rate() {
    let limits = LimitSettings { address: Rate::new(1, 20), ..LimitSettings::default() };
    let house = house(limits, &[]).await;
    let sender = Presented::http(Some("Bearer wrong"), Some("192.0.2.7:1".parse().unwrap()));
    let mut told = Vec::new();
    for _ in 0..21 {
        let refused = house.gateway.identify_sender(&sender).await.unwrap_err();
        told.push((refused.rule, refused.lockout.is_some()));
    }
    assert!(told[..20].iter().all(|told| *told == ("malformed_credential", false)), "{told:?}");
    assert_eq!(told[20], ("address-rate", true), "the twenty-first failure is one too many for both");
}
