//! Tests of approvals: what a yes is bound to, who is asked and what they see.

use super::*;
use portcullis_model::ManualClock;
use portcullis_state::MemoryStore;

fn who(name: &str) -> PrincipalId {
    PrincipalId::new(name).unwrap()
}

fn book() -> (Approvals, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_000)));
    let store = Arc::new(MemoryStore::new(clock.clone()));
    (Approvals::new(store, clock.clone(), ApprovalSettings::default()), clock)
}

fn arguments(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap()
}

fn subject<'a>(principal: &'a PrincipalId, arguments: &'a Map<String, Value>) -> Subject<'a> {
    static HOME: std::sync::LazyLock<TenantId> = std::sync::LazyLock::new(TenantId::default_tenant);
    Subject {
        principal,
        tenant: &HOME,
        product: None,
        tool: "wipe",
        risk: RiskClass::Destructive,
        origin: "upstream:a",
        definition: "0123456789abcdef",
        unredacted: false,
        arguments,
        summary: "{…}",
        preview: None,
    }
}

/// Both steps one after the other.
async fn stand(
    book: &Approvals,
    subject: Subject<'_>,
    answers: Option<&Answers>,
    can_ask: bool,
) -> Result<Standing, ApprovalError> {
    match book.settled(&subject, answers, can_ask).await? {
        Some(standing) => Ok(standing),
        None => book.ask(subject, can_ask).await,
    }
}

#[tokio::test]
async fn a_yes_is_for_the_tenant_the_product_the_redaction_and_the_definition_that_were_shown() {
    let (book, _) = book();
    let (asker, boss) = (who("key:a"), who("local:boss"));
    let args = arguments(r#"{"a": 1}"#);
    let asked = subject(&asker, &args);
    let id = pending_id(&book, &asker, &args).await;
    book.grant(&id, &boss).await.unwrap();
    let elsewhere = TenantId::new("other").unwrap();
    for other in [
        Subject { tenant: &elsewhere, ..asked },
        Subject { product: Some("oncall"), ..asked },
        Subject { unredacted: true, ..asked },
        Subject { definition: "another", ..asked },
    ] {
        let stands = stand(&book, other, None, false).await.unwrap();
        assert!(matches!(&stands, Standing::Pending { id: another } if *another != id), "{stands:?}");
    }
    assert!(matches!(stand(&book, asked, None, false).await.unwrap(), Standing::Approved(_)));
    let listed = book.list().await.unwrap();
    assert!(listed.iter().any(|r| r.unredacted) && listed.iter().any(|r| r.product.as_deref() == Some("oncall")));
    let Standing::Ask { requests, .. } =
        stand(&book, Subject { product: Some("oncall"), unredacted: true, ..asked }, None, true).await.unwrap()
    else {
        panic!("the user is asked")
    };
    let message = requests[0].1.params["message"].as_str().unwrap();
    for part in ["tenant default", "product oncall", "of upstream:a", "definition 0123456789ab", "without redaction"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn nobody_is_asked_about_what_is_not_shown() {
    let (book, _) = book();
    let asker = who("key:a");
    let args = arguments("{}");
    let fits = "x".repeat(ASKED);
    let stands = stand(&book, Subject { summary: &fits, ..subject(&asker, &args) }, None, true).await.unwrap();
    let Standing::Ask { requests, .. } = stands else { panic!("{stands:?}") };
    assert!(requests[0].1.params["message"].as_str().unwrap().contains(&fits));
    let longer = format!("{fits}y");
    let stands = stand(&book, Subject { summary: &longer, ..subject(&asker, &args) }, None, true).await.unwrap();
    assert!(matches!(stands, Standing::Pending { .. }), "{stands:?}");
    assert_eq!(book.list().await.unwrap()[0].summary, longer, "an operator sees all of it");
}

#[tokio::test]
async fn nobody_is_asked_in_a_form_about_a_change_that_is_not_shown_whole() {
    let (book, _) = book();
    let asker = who("key:a");
    let args = arguments("{}");
    let fits = "+".repeat(PREVIEW_ASKED);
    let about = |text, whole| Subject { preview: Some(Shown { text, whole }), ..subject(&asker, &args) };
    let stands = stand(&book, about(&fits, true), None, true).await.unwrap();
    let Standing::Ask { requests, .. } = stands else { panic!("{stands:?}") };
    assert!(requests[0].1.params["message"].as_str().unwrap().ends_with(&fits));
    let longer = format!("{fits}-");
    for (text, whole) in [(longer.as_str(), true), ("change: 60 of 500", false)] {
        let stands = stand(&book, about(text, whole), None, true).await.unwrap();
        let Standing::Pending { id } = stands else { panic!("{stands:?}") };
        assert_eq!(book.get(&id).await.unwrap().preview.as_deref(), Some(text), "an operator sees all of it");
        book.deny(&id, &who("local:boss")).await.unwrap();
        assert!(matches!(stand(&book, about(text, whole), None, true).await.unwrap(), Standing::Refused { .. }));
        book.store.delete(NAMESPACE, &id).await.unwrap();
    }
    // As much as there can be fits a record.
    let (most, quoted) = ("\u{1}".repeat(SUMMARY + 1), "\u{1}".repeat(PREVIEW + 1));
    let largest = Subject { summary: &most, ..about(&quoted, true) };
    let stands = stand(&book, largest, None, true).await.unwrap();
    let Standing::Pending { id } = stands else { panic!("{stands:?}") };
    assert!(book.get(&id).await.unwrap().preview.unwrap().contains("[… 1 more characters …]"));
}

#[test]
fn what_is_left_out_is_counted_and_the_end_is_shown() {
    let text = format!("{}{}", "ä".repeat(100), "the end");
    assert_eq!(abridged(&text, 107), text);
    let short = abridged(&text, 40);
    assert_eq!(short, format!("{} [… 67 more characters …] {}the end", "ä".repeat(30), "ä".repeat(3)));
}

async fn pending_id(book: &Approvals, principal: &PrincipalId, arguments: &Map<String, Value>) -> String {
    match stand(book, subject(principal, arguments), None, false).await.unwrap() {
        Standing::Pending { id } => id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_operators_yes_is_good_for_one_call_with_these_arguments() {
    let (book, _) = book();
    let (asker, boss) = (who("key:a"), who("local:boss"));
    let args = arguments(r#"{"a": 1, "b": [true]}"#);
    let id = pending_id(&book, &asker, &args).await;
    assert_eq!(pending_id(&book, &asker, &args).await, id, "asking again changes nothing");
    assert!(matches!(book.grant(&id, &asker).await, Err(ApprovalError::OwnRequest(_))));
    book.grant(&id, &boss).await.unwrap();
    assert!(matches!(book.grant(&id, &boss).await, Err(ApprovalError::Decided { .. })));
    let other = arguments(r#"{"a": 2, "b": [true]}"#);
    assert_ne!(pending_id(&book, &asker, &other).await, id);
    assert_ne!(pending_id(&book, &who("key:b"), &args).await, id);
    let reordered = arguments(r#"{"b": [true], "a": 1}"#);
    let stands = stand(&book, subject(&asker, &reordered), None, false).await.unwrap();
    assert!(matches!(stands, Standing::Approved(Yes::Operator { .. })), "{stands:?}");
    assert_eq!(pending_id(&book, &asker, &args).await, id, "used up: the next call asks anew");
}

#[tokio::test]
async fn a_no_is_a_no_and_both_end() {
    let (book, clock) = book();
    let (asker, boss) = (who("key:a"), who("local:boss"));
    let args = arguments("{}");
    let id = pending_id(&book, &asker, &args).await;
    book.deny(&id, &boss).await.unwrap();
    assert!(matches!(stand(&book, subject(&asker, &args), None, true).await.unwrap(), Standing::Refused { .. }));
    clock.advance(Duration::from_mins(16));
    assert_eq!(pending_id(&book, &asker, &args).await, id, "the no has ended");
    book.grant(&id, &boss).await.unwrap();
    clock.advance(Duration::from_mins(16));
    assert!(matches!(stand(&book, subject(&asker, &args), None, false).await.unwrap(), Standing::Pending { .. }));
    assert!(matches!(book.grant("nothing-here", &boss).await, Err(ApprovalError::NotFound(_))));
}

#[tokio::test]
async fn one_yes_lets_one_of_many_racing_calls_through() {
    let (book, _) = book();
    let (asker, boss) = (who("key:a"), who("local:boss"));
    let args = arguments("{}");
    let id = pending_id(&book, &asker, &args).await;
    book.grant(&id, &boss).await.unwrap();
    let mut racing = Vec::new();
    for _ in 0..16 {
        let (book, asker, args) = (book.clone(), asker.clone(), args.clone());
        racing.push(tokio::spawn(async move {
            matches!(stand(&book, subject(&asker, &args), None, false).await, Ok(Standing::Approved(_)))
        }));
    }
    let mut through = 0;
    for call in racing {
        through += usize::from(call.await.unwrap());
    }
    assert_eq!(through, 1);
}

#[tokio::test]
async fn the_users_answer_counts_only_for_the_question_that_was_asked() {
    let (book, clock) = book();
    let asker = who("key:a");
    let args = arguments(r#"{"x": 1}"#);
    let Standing::Ask { state, .. } = stand(&book, subject(&asker, &args), None, true).await.unwrap() else { panic!() };
    let answer = |action: &str, content: Value, state: &Value| Answers {
        responses: [(QUESTION.to_owned(), json!({"action": action, "content": content}))].into(),
        state: Some(state.clone()),
    };
    let stands = |answers: Answers| {
        let (book, asker, args) = (book.clone(), asker.clone(), args.clone());
        async move { stand(&book, subject(&asker, &args), Some(&answers), true).await.unwrap() }
    };
    assert!(matches!(stands(answer("accept", json!({"approve": true}), &state)).await, Standing::Approved(Yes::Client)));
    for (action, content) in [
        ("accept", json!({"approve": false})),
        ("accept", json!({})),
        ("accept", json!({"approve": "true"})),
        ("decline", json!({"approve": true})),
        ("cancel", Value::Null),
    ] {
        assert!(matches!(stands(answer(action, content, &state)).await, Standing::Refused { .. }));
    }
    let other = arguments(r#"{"x": 2}"#);
    let foreign = json!({APPROVED: {"asked": binding(&subject(&asker, &other))}});
    assert!(matches!(stands(answer("accept", json!({"approve": true}), &foreign)).await, Standing::Ask { .. }));
    let forged = json!({"approve": true});
    assert!(matches!(stands(answer("accept", json!({"approve": true}), &forged)).await, Standing::Ask { .. }));
    // A yes that comes too late is none.
    clock.advance(ApprovalSettings::default().lifetime);
    assert!(matches!(stands(answer("accept", json!({"approve": true}), &state)).await, Standing::Ask { .. }));
}

#[test]
fn the_tools_own_state_survives_our_wrapping() {
    let wrapped = wrap_state("abc", Some(json!({"step": 2})));
    let answers = Answers { responses: [("q".to_owned(), json!(1))].into(), state: Some(wrapped) };
    let inner = unwrap_state(Some(answers)).unwrap();
    assert_eq!(inner.state, Some(json!({"step": 2})));
    assert_eq!(unwrap_state(Some(Answers { responses: [(QUESTION.to_owned(), json!(1))].into(), state: None })), None);
    let plain = Answers { responses: [("q".to_owned(), json!(1))].into(), state: Some(json!({"a": 1})) };
    assert_eq!(unwrap_state(Some(plain.clone())), Some(plain));
}
