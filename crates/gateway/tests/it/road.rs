//! Walks the road with every kind of end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_gateway::{CallRequest, LimitSettings, Rate, Voice};
use portcullis_guard::{Notice, Progress, Released};
use portcullis_identity::Presented;
use portcullis_model::FaultCode;
use portcullis_ports::{Arguments, Content, Outcome};
use serde_json::json;

use crate::house::{House, house};

fn request(tool: &str, arguments: serde_json::Value) -> CallRequest {
    let serde_json::Value::Object(map) = arguments else { panic!("arguments are an object") };
    CallRequest { tool: tool.into(), arguments: Arguments(map), ..CallRequest::default() }
}

async fn refused(house: &House, key: &str, tool: &str, arguments: serde_json::Value) -> (FaultCode, String, String) {
    let fault = house.gateway.call(&house.caller(key).await, request(tool, arguments), Arc::new(())).await.expect_err("refused");
    let end = house.last();
    assert_eq!(end.code, Some(fault.get().code), "the record carries the same code");
    (fault.get().code, fault.get().message.clone(), end.rule.to_string())
}

#[tokio::test]
async fn an_answer_is_redacted_and_recorded() {
    let house = house(LimitSettings::default(), &[]).await;
    let answer = house
        .gateway
        .call(&house.caller(&house.reader).await, request("look", json!({"text": "hunter22"})), Arc::new(()))
        .await
        .unwrap();
    let Outcome::Complete(output) = answer.get() else { panic!("complete") };
    assert_eq!(output.content, [Content::Text("password=[redacted:secret-value]".into())]);
    assert_eq!(output.structured.as_ref().unwrap()["password"], "[redacted:secret-field]");
    let end = house.last();
    assert!(end.allowed && end.code.is_none() && end.bytes_out > 0);
    assert_eq!((&*end.rule, end.redactions.len()), ("reader-may-look", 2));
    assert!(end.principal.unwrap().id.as_str().starts_with("key:"));
}

#[tokio::test]
async fn refusals_and_their_records() {
    let house = house(LimitSettings::default(), &[]).await;
    let reader = house.reader.clone();
    assert_eq!(
        refused(&house, &reader, "nothing", json!({})).await,
        (FaultCode::NotFound, "unknown tool: nothing".into(), "catalogue".into())
    );
    // What may not be called looks like what does not exist; the record knows the rule.
    assert_eq!(
        refused(&house, &reader, "restart", json!({"text": "x"})).await,
        (FaultCode::NotFound, "unknown tool: restart".into(), "write-gate".into())
    );
    let (code, message, rule) = refused(&house, &reader, "look", json!({"text": "x", "extra": 1})).await;
    assert_eq!((code, rule.as_str()), (FaultCode::InvalidArgument, "argument-schema"));
    assert!(message.contains("extra"), "{message}");
    let (code, message, _) = refused(&house, &reader, "look", json!({"text": "fail"})).await;
    assert_eq!(code, FaultCode::BackendFailed);
    assert!(!message.contains("hunter2") && !message.contains("10.0.0.1"), "internal text leaked: {message}");
    assert!(house.last().note.unwrap().contains("10.0.0.1"));
    let (code, ..) = refused(&house, &reader, "look", json!({"text": "huge"})).await;
    assert_eq!(code, FaultCode::TooLarge);
}

#[tokio::test]
async fn a_bad_key_is_refused_and_recorded() {
    let house = house(LimitSettings::default(), &[]).await;
    for authorization in [None, Some("Bearer nonsense"), Some("Basic dTpw"), Some("")] {
        let presented = Presented::http(authorization, Some("127.0.0.1:5000".parse().unwrap()));
        let fault = house.gateway.identify(&presented).await.expect_err("refused");
        assert_eq!(fault.get().code, FaultCode::Unauthenticated);
        assert_eq!((house.last().method, house.last().allowed), ("authenticate", false));
    }
}

#[tokio::test]
async fn listed_is_callable_for_every_principal() {
    for enabled in [&[][..], &["workloads"][..]] {
        let house = house(LimitSettings::default(), enabled).await;
        for key in [&house.reader, &house.operator] {
            let caller = house.caller(key).await;
            let listed: Vec<String> =
                house.gateway.tools(&caller).await.unwrap().get().iter().map(|t| t.name.to_string()).collect();
            for tool in ["look", "restart", "wipe"] {
                let called = house.gateway.call(&caller, request(tool, json!({"text": "x"})), Arc::new(())).await;
                let callable = !called.is_err_and(|f| f.get().code == FaultCode::NotFound);
                assert_eq!(listed.iter().any(|t| t == tool), callable, "{tool} with {enabled:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_listing_is_admitted_and_recorded() {
    let house = house(LimitSettings { principal: Rate::new(1, 1), ..LimitSettings::default() }, &[]).await;
    let caller = house.caller(&house.reader).await;
    house.gateway.tools(&caller).await.unwrap();
    let end = house.last();
    assert_eq!((end.method, end.allowed, &*end.rule), ("tools/list", true, "own-catalogue"));
    assert_eq!(house.gateway.tools(&caller).await.unwrap_err().get().code, FaultCode::RateLimited);
    assert_eq!(&*house.last().rule, "rate-limit");
    house.memory.broken.store(true, Ordering::SeqCst);
    assert!(house.gateway.prompts(&caller).await.is_err(), "no record, no listing");
}

#[tokio::test]
async fn limits_refuse_with_a_time_to_retry() {
    let house = house(LimitSettings { principal: Rate::new(1, 1), ..LimitSettings::default() }, &[]).await;
    let caller = house.caller(&house.reader).await;
    house.gateway.call(&caller, request("look", json!({"text": "x"})), Arc::new(())).await.unwrap();
    let fault = house.gateway.call(&caller, request("look", json!({"text": "x"})), Arc::new(())).await.unwrap_err();
    assert_eq!((fault.get().code, fault.get().retry_after_seconds), (FaultCode::RateLimited, Some(1)));
    assert_eq!(&*house.last().rule, "rate-limit");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_work() {
    let house = house(LimitSettings { deadline: Duration::from_secs(2), ..LimitSettings::default() }, &[]).await;
    let (code, message, _) = refused(&house, &house.reader.clone(), "look", json!({"text": "sleep"})).await;
    assert_eq!(code, FaultCode::DeadlineExceeded, "{message}");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_a_record_and_its_place() {
    let house = house(LimitSettings { concurrent_per_principal: 1, queue: 0, ..LimitSettings::default() }, &[]).await;
    let caller = house.caller(&house.reader).await;
    let call = house.gateway.call(&caller, request("look", json!({"text": "sleep"})), Arc::new(()));
    assert!(tokio::time::timeout(Duration::from_millis(20), call).await.is_err());
    assert_eq!(house.last().code, Some(FaultCode::Cancelled));
    house.gateway.call(&caller, request("look", json!({"text": "x"})), Arc::new(())).await.expect("the place is free again");
}

#[tokio::test]
async fn without_a_record_there_is_no_answer() {
    let house = house(LimitSettings::default(), &[]).await;
    let caller = house.caller(&house.reader).await;
    house.memory.broken.store(true, Ordering::SeqCst);
    let fault = house.gateway.call(&caller, request("look", json!({"text": "x"})), Arc::new(())).await.unwrap_err();
    assert_eq!(fault.get().code, FaultCode::Unavailable);
}

#[tokio::test]
async fn what_may_change_something_is_on_record_before_it_is_done_and_else_not_done() {
    let house = house(LimitSettings::default(), &["workloads"]).await;
    let caller = house.caller(&house.admin).await;
    let call = |tool| house.gateway.call(&caller, request(tool, json!({"text": "x"})), Arc::new(()));
    call("restart").await.unwrap();
    call("look").await.unwrap();
    let records = house.memory.records.lock().unwrap().clone();
    let place = records.iter().position(|record| record.method == portcullis_gateway::INTENT).unwrap();
    let (intent, end) = (&records[place], &records[place + 1]);
    assert_eq!((intent.target.as_str(), intent.allowed, &intent.rule), ("restart", true, &end.rule));
    assert_eq!((intent.arguments.is_some(), &intent.arguments), (true, &end.arguments));
    assert_eq!((end.method, end.intent.as_deref()), ("tools/call", Some(format!("memory/{}", place + 1).as_str())));
    assert_eq!((house.last().target.as_str(), house.last().intent), ("look", None));
    assert_eq!(records.iter().filter(|record| record.method == portcullis_gateway::INTENT).count(), 1, "looking is not meant");

    // Nothing said before that it would not be written.
    house.memory.broken.store(true, Ordering::SeqCst);
    let fault = call("restart").await.unwrap_err();
    assert_eq!(fault.get().code, FaultCode::Unavailable);
    assert!(fault.get().message.contains("so no call is made"), "{}", fault.get().message);
    let fault = call("look").await.unwrap_err();
    assert!(fault.get().message.contains("so no answer is given"), "{}", fault.get().message);
}

#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl Voice for Ear {
    fn progress(&self, progress: Released<Progress>) {
        self.0.lock().unwrap().push(progress.into_inner().message);
    }
    fn notice(&self, _notice: Released<Notice>) {}
}

#[tokio::test]
async fn progress_is_redacted_too() {
    let house = house(LimitSettings::default(), &[]).await;
    let ear = Arc::new(Ear::default());
    house
        .gateway
        .call(&house.caller(&house.reader).await, request("look", json!({"text": "progress"})), ear.clone())
        .await
        .unwrap();
    assert_eq!(*ear.0.lock().unwrap(), ["using token=[redacted:secret-value]"]);
}
