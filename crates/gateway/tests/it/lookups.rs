//! Resources, prompts and completions take the very steps of tool calls: each step refuses them, and the record says so.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use portcullis_gateway::{CompletionReference, GetPrompt, LimitSettings, LookupRequest, ProfileMode, Rate};
use portcullis_model::{FaultCode, PrincipalId};
use portcullis_policy::{ExternalDecision, ExternalInput, ExternalPolicy, Permit};
use portcullis_ports::{Answers, Arguments, ClientAbilities, ResourceOutput};
use serde_json::{Value, json};

use crate::house::{House, house, house_with, watched_house};

/// The lookups there are.
const KINDS: [&str; 4] = ["resources/read", "prompts/get", "completion/complete", "template"];

/// Does one lookup; nothing, or the refusal.
async fn look(house: &House, key: &str, kind: &str) -> Result<(), (FaultCode, String)> {
    let caller = house.caller(key).await;
    let refusal = match kind {
        "resources/read" => {
            let request = LookupRequest { uri: "shop://services/cart".into(), ..LookupRequest::default() };
            house.gateway.read(&caller, request, Arc::new(())).await.err()
        }
        "prompts/get" => {
            let Value::Object(arguments) = json!({"service": "cart"}) else { panic!("arguments are an object") };
            let request = GetPrompt { name: "triage".into(), arguments: Arguments(arguments), ..GetPrompt::default() };
            house.gateway.prompt(&caller, request, Arc::new(())).await.err()
        }
        "template" => {
            let reference = CompletionReference::Template("shop://services/{name}");
            house.gateway.complete(&caller, reference, ("name", "c"), Arguments::default()).await.err()
        }
        _ => house
            .gateway
            .complete(&caller, CompletionReference::Prompt("triage"), ("service", "c"), Arguments::default())
            .await
            .err(),
    };
    refusal.map_or(Ok(()), |fault| Err((fault.get().code, fault.get().message.clone())))
}

/// Remembers what it was asked, and says what it was told to.
#[derive(Default)]
struct Outside {
    asked: Mutex<Vec<ExternalInput>>,
    answer: Mutex<Option<ExternalDecision>>,
}

#[async_trait]
impl ExternalPolicy for Outside {
    fn name(&self) -> &'static str {
        "outside"
    }

    async fn decide(&self, _: &Permit, input: &ExternalInput) -> ExternalDecision {
        self.asked.lock().unwrap().push(input.clone());
        self.answer.lock().unwrap().clone().unwrap_or(ExternalDecision::Allow)
    }
}

#[tokio::test]
async fn the_external_policy_is_asked_about_every_lookup_and_its_no_and_its_silence_refuse() {
    let outside = Arc::new(Outside::default());
    let house = house_with(LimitSettings::default(), &[], ProfileMode::Off, Some(outside.clone()), "").await;
    let reader = house.reader.clone();
    for kind in KINDS {
        look(&house, &reader, kind).await.unwrap();
        assert!(house.last().allowed, "{kind}");
    }
    let asked: Vec<Value> = outside.asked.lock().unwrap().iter().map(|input| serde_json::to_value(input).unwrap()).collect();
    let said: Vec<(&Value, &Value, &Value)> = asked.iter().map(|i| (&i["action"], &i["tool"]["name"], &i["arguments"])).collect();
    assert_eq!(
        said,
        [
            (&json!("read"), &json!("shop://services/cart"), &json!({})),
            (&json!("prompt"), &json!("triage"), &json!({"service": "cart"})),
            (&json!("complete"), &json!("triage"), &json!({"argument": "service", "value": "c"})),
            (&json!("complete"), &json!("shop://services/{name}"), &json!({"argument": "name", "value": "c"})),
        ]
    );
    assert!(asked.iter().all(|input| input["tool"]["risk"] == "read"));
    for (answer, code) in [
        (ExternalDecision::Deny { reason: "not today".into() }, FaultCode::Forbidden),
        (ExternalDecision::Unavailable { reason: "down".into() }, FaultCode::Unavailable),
    ] {
        *outside.answer.lock().unwrap() = Some(answer);
        for kind in KINDS {
            assert_eq!(look(&house, &reader, kind).await.unwrap_err().0, code, "{kind}");
            let end = house.last();
            assert_eq!((&*end.rule, end.allowed, end.code), ("external-policy", false, Some(code)), "{kind}");
        }
    }
}

#[tokio::test]
async fn nothing_is_looked_up_that_cannot_be_recorded() {
    let house = house(LimitSettings::default(), &[]).await;
    let reader = house.reader.clone();
    house.memory.held.store(true, Ordering::SeqCst);
    for kind in KINDS {
        let (code, message) = look(&house, &reader, kind).await.unwrap_err();
        assert_eq!(code, FaultCode::Unavailable, "{kind}");
        assert!(message.contains("audit log"), "{message}");
        assert_eq!((&*house.last().rule, house.last().allowed), ("audit", false), "{kind}");
    }
    house.memory.held.store(false, Ordering::SeqCst);
    for kind in KINDS {
        look(&house, &reader, kind).await.unwrap();
    }
}

#[tokio::test]
async fn lookups_are_learned_by_family_and_an_enforced_profile_refuses_what_was_never_seen() {
    let observing = watched_house(LimitSettings::default(), &[], ProfileMode::Observe).await;
    let reader = observing.reader.clone();
    for kind in KINDS {
        look(&observing, &reader, kind).await.unwrap();
    }
    observing.profiles.settle().await.unwrap();
    let learned = observing.profiles.learned().await.unwrap();
    let habits: Vec<&String> = learned[0].tools.keys().collect();
    assert_eq!(
        habits,
        [
            "completion/complete:shop://services/{name}",
            "completion/complete:triage",
            "prompts/get:triage",
            "resources/read:shop://services/{name}"
        ]
    );
    assert!(!serde_json::to_string(&learned).unwrap().contains("cart"), "shapes, never values");
    let read = learned[0].sources("resources/read:shop://services/{name}").unwrap();
    assert_eq!(read.iter().collect::<Vec<_>>(), ["shelf"], "the sources that were asked, and nothing else of the trail");
    assert!(!learned[0].suggested_policy().contains("shop://"), "a rule about tools names tools");

    let enforcing = watched_house(LimitSettings::default(), &[], ProfileMode::Enforce).await;
    let reader = enforcing.reader.clone();
    for kind in KINDS {
        assert_eq!(look(&enforcing, &reader, kind).await.unwrap_err().0, FaultCode::Forbidden, "{kind}");
        let end = enforcing.last();
        assert_eq!((&*end.rule, end.allowed), ("behaviour-profile", false), "{kind}");
    }
}

async fn completed(house: &House, key: &str, prefix: &str) -> Vec<String> {
    let caller = house.caller(key).await;
    let reference = CompletionReference::Template("shop://services/{name}");
    house.gateway.complete(&caller, reference, ("name", prefix), Arguments::default()).await.unwrap().into_inner().values
}

#[tokio::test]
async fn what_may_not_be_read_is_not_offered() {
    let rules = r#"@id("not-cart") forbid(principal, action == Portcullis::Action::"read",
        resource == Portcullis::Resource::"shop://services/cart");"#;
    let house = house_with(LimitSettings::default(), &[], ProfileMode::Off, None, rules).await;
    let reader = house.reader.clone();
    assert_eq!(completed(&house, &reader, "c").await, ["checkout"]);
    look(&house, &reader, "resources/read").await.unwrap_err();
    assert_eq!(&*house.last().rule, "not-cart");

    // A family that is there for one member offers this one, under the rule of this one.
    let rules = r#"@id("nothing") forbid(principal, action == Portcullis::Action::"read", resource)
            unless { resource.name == "shop://services/cart" || resource.name == "shop://services/{name}" };"#;
    let house = house_with(LimitSettings::default(), &[], ProfileMode::Off, None, rules).await;
    assert_eq!(completed(&house, &house.reader.clone(), "c").await, ["cart"]);
}

#[tokio::test]
async fn what_callers_write_into_lookups_goes_by_the_rules_for_text() {
    let house = house(LimitSettings::default(), &[]).await;
    let caller = house.caller(&house.reader.clone()).await;
    let hidden = "ca\u{202e}rt";
    let Value::Object(arguments) = json!({"service": hidden}) else { panic!("arguments are an object") };
    let prompt = GetPrompt { name: "triage".into(), arguments: Arguments(arguments), ..GetPrompt::default() };
    let read = LookupRequest { uri: format!("shop://services/{hidden}"), ..LookupRequest::default() };
    let reference = CompletionReference::Prompt("triage");
    for (what, refusal) in [
        ("service", house.gateway.prompt(&caller, prompt, Arc::new(())).await.unwrap_err()),
        ("uri", house.gateway.read(&caller, read, Arc::new(())).await.unwrap_err()),
        ("value", house.gateway.complete(&caller, reference, ("service", hidden), Arguments::default()).await.unwrap_err()),
        ("argument", house.gateway.complete(&caller, reference, (hidden, "c"), Arguments::default()).await.unwrap_err()),
        ("service", house.gateway.complete(&caller, reference, ("service", "c"), chosen("service", hidden)).await.unwrap_err()),
    ] {
        let fault = refusal.get();
        assert_eq!(fault.code, FaultCode::InvalidArgument, "{what}");
        assert!(fault.message.starts_with(&format!("{what}: ")) && fault.message.contains("U+202E"), "{}", fault.message);
        assert_eq!((&*house.last().rule, house.last().allowed), ("argument-schema", false), "{what}");
    }
}

fn chosen(name: &str, value: &str) -> Arguments {
    let Value::Object(chosen) = json!({ name: value }) else { panic!("arguments are an object") };
    Arguments(chosen)
}

#[tokio::test]
async fn what_was_chosen_before_is_an_argument_that_exists_and_a_text_of_a_size() {
    let house = house(LimitSettings::default(), &[]).await;
    let caller = house.caller(&house.reader.clone()).await;
    let (prompt, template) = (CompletionReference::Prompt("triage"), CompletionReference::Template("shop://services/{name}"));
    for (reference, context, says) in [
        (prompt, chosen("nobody", "x"), "no argument 'nobody'"),
        (prompt, chosen("service", &"x".repeat(4_097)), "at most 4096 bytes"),
        (template, chosen("nobody", "x"), "does not have"),
        (template, chosen("name", &"x".repeat(4_097)), "at most 4096 bytes"),
    ] {
        let refusal = house.gateway.complete(&caller, reference, ("service", "c"), context).await.unwrap_err();
        let fault = refusal.get();
        assert!(fault.code == FaultCode::InvalidArgument && fault.message.contains(says), "{}", fault.message);
        assert_eq!((&*house.last().rule, house.last().allowed), ("argument-schema", false), "{says}");
    }
    house.gateway.complete(&caller, template, ("name", "c"), chosen("name", "cart")).await.unwrap();
}

#[tokio::test]
async fn a_rule_may_want_a_persons_yes_for_a_lookup() {
    let rules = r#"@id("ask") @only_limits("true") @approval("required")
        permit(principal, action in [Portcullis::Action::"read", Portcullis::Action::"prompt"], resource);"#;
    let house = house_with(LimitSettings::default(), &[], ProfileMode::Off, None, rules).await;
    let reader = house.reader.clone();
    for kind in KINDS {
        let (code, message) = look(&house, &reader, kind).await.unwrap_err();
        assert_eq!(code, FaultCode::Forbidden, "{kind}");
        assert!(message.starts_with("pending approval"), "{kind}: {message}");
        assert_eq!((&*house.last().rule, house.last().allowed), ("approval", false), "{kind}");
    }
    let waiting = house.approvals.list().await.unwrap();
    let record = waiting.iter().find(|r| r.tool == "read:shop://services/cart").expect("a request for the resource");
    house.approvals.grant(&record.id, &PrincipalId::new("local:boss").unwrap()).await.unwrap();
    look(&house, &reader, "resources/read").await.unwrap();
    assert!(house.last().note.unwrap().contains("approved by local:boss"));
    look(&house, &reader, "resources/read").await.expect_err("good for one lookup");

    // The user of the client is asked where it can show forms.
    let abilities = ClientAbilities { elicitation: true, ..ClientAbilities::default() };
    let request = LookupRequest { uri: "shop://about".into(), abilities, ..LookupRequest::default() };
    let caller = house.caller(&reader).await;
    let asked = house.gateway.read(&caller, request.clone(), Arc::new(())).await.unwrap().into_inner();
    let ResourceOutput::NeedsInput { requests, state } = asked else { panic!("{asked:?}") };
    assert!(!house.last().allowed, "asked is not allowed");
    let responses = [(requests[0].0.clone(), json!({"action": "accept", "content": {"approve": true}}))].into();
    let agreed = LookupRequest { answers: Some(Answers { responses, state }), ..request };
    let read = house.gateway.read(&caller, agreed, Arc::new(())).await.unwrap().into_inner();
    assert!(matches!(read, ResourceOutput::Contents(_)), "{read:?}");
}

#[tokio::test]
async fn rates_and_hidden_things_are_the_same_for_lookups() {
    let house = house(LimitSettings { tool: Rate::new(1, 1), ..LimitSettings::default() }, &[]).await;
    let reader = house.reader.clone();
    for kind in KINDS {
        look(&house, &reader, kind).await.unwrap();
        assert_eq!(look(&house, &reader, kind).await.unwrap_err().0, FaultCode::RateLimited, "{kind}");
        assert_eq!(&*house.last().rule, "tool-rate", "{kind}");
    }
    // Whoever may not use a prompt does not learn what its arguments would be.
    let rules = r#"@id("hidden") forbid(principal, action == Portcullis::Action::"prompt", resource);"#;
    let house = house_with(LimitSettings::default(), &[], ProfileMode::Off, None, rules).await;
    let caller = house.caller(&house.reader).await;
    let request = GetPrompt { name: "triage".into(), ..GetPrompt::default() };
    let fault = house.gateway.prompt(&caller, request, Arc::new(())).await.unwrap_err();
    assert_eq!((fault.get().code, fault.get().message.as_str()), (FaultCode::NotFound, "unknown prompt: triage"));
    assert_eq!(&*house.last().rule, "hidden");
}

#[tokio::test]
async fn a_tenant_that_took_its_tokens_is_refused_whoever_of_it_asks() {
    let house = house(LimitSettings { tenant_tokens_per_day: Some(1), ..LimitSettings::default() }, &[]).await;
    look(&house, &house.reader.clone(), "resources/read").await.unwrap();
    let (code, message) = look(&house, &house.operator.clone(), "resources/read").await.unwrap_err();
    assert_eq!(code, FaultCode::RateLimited);
    assert!(message.contains("your tenant may take per day"), "{message}");
    assert_eq!(&*house.last().rule, "tenant-token-budget");
}
