//! Tools that ask the client's user, model or roots before they can answer. The same tools serve both eras: the face
//! decides whether the questions travel as a result or as requests within a session.

use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{Fault, InvalidName, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{Answers, Arguments, Exchange, InputRequest, Outcome, Output, Tool};
use serde_json::{Value, json};

use crate::tools::{nothing, spec, text_argument};

type Ask = fn(&Arguments, &dyn Exchange) -> Outcome;

struct Questions {
    spec: Arc<ToolSpec>,
    ask: Ask,
}

/// Every tool of this page.
pub(crate) fn all() -> Result<Vec<Arc<dyn Tool>>, InvalidName> {
    let table: [(&str, Value, Ask); 14] = [
        ("test_sampling", text_argument("prompt"), sampling),
        ("test_elicitation", text_argument("message"), elicitation),
        ("test_elicitation_sep1034_defaults", nothing(), defaults),
        ("test_elicitation_sep1330_enums", nothing(), enums),
        ("test_missing_capability", nothing(), sample_capital),
        ("test_streaming_elicitation", nothing(), ask_name),
        ("test_input_required_result_elicitation", nothing(), ask_name),
        ("test_input_required_result_sampling", nothing(), sample_capital),
        ("test_input_required_result_list_roots", nothing(), list_roots),
        ("test_input_required_result_request_state", nothing(), with_state),
        ("test_input_required_result_multiple_inputs", nothing(), several),
        ("test_input_required_result_multi_round", nothing(), two_rounds),
        ("test_input_required_result_tampered_state", nothing(), with_state),
        ("test_input_required_result_capabilities", nothing(), what_the_client_can),
    ];
    table
        .into_iter()
        .map(|(name, schema, ask)| {
            let spec = spec(name, "Asks the client before it answers", schema)?;
            Ok(Arc::new(Questions { spec, ask }) as Arc<dyn Tool>)
        })
        .collect()
}

#[async_trait]
impl Tool for Questions {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, _permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        Ok((self.ask)(&arguments, exchange))
    }
}

/// A form.
#[expect(clippy::needless_pass_by_value, reason = "the JSON is built where it is passed")]
pub(crate) fn form(message: &str, properties: Value, required: &[&str]) -> InputRequest {
    let schema = json!({"type": "object", "properties": properties, "required": required});
    InputRequest { method: "elicitation/create".into(), params: json!({"message": message, "requestedSchema": schema}) }
}

fn sample(prompt: &str) -> InputRequest {
    let message = json!({"role": "user", "content": {"type": "text", "text": prompt}});
    InputRequest { method: "sampling/createMessage".into(), params: json!({"messages": [message], "maxTokens": 100}) }
}

fn roots() -> InputRequest {
    InputRequest { method: "roots/list".into(), params: json!({}) }
}

fn ask(requests: impl IntoIterator<Item = (&'static str, InputRequest)>, state: Option<Value>) -> Outcome {
    Outcome::NeedsInput { requests: requests.into_iter().map(|(key, request)| (key.to_owned(), request)).collect(), state }
}

/// The answer to a question, when it is an object; anything else is no answer.
pub(crate) fn answer<'a>(exchange: &'a dyn Exchange, key: &str) -> Option<&'a Value> {
    exchange.answers()?.responses.get(key).filter(|answer| answer.is_object())
}

/// What was filled into a form.
pub(crate) fn filled<'a>(exchange: &'a dyn Exchange, key: &str, field: &str) -> Option<&'a str> {
    answer(exchange, key)?.get("content")?.get(field)?.as_str()
}

fn sampling(arguments: &Arguments, exchange: &dyn Exchange) -> Outcome {
    let Some(reply) = answer(exchange, "reply") else {
        return ask([("reply", sample(arguments.0.get("prompt").and_then(Value::as_str).unwrap_or_default()))], None);
    };
    let text = reply.pointer("/content/text").and_then(Value::as_str).unwrap_or("(no text)");
    Output::text(format!("LLM response: {text}")).into()
}

fn elicitation(arguments: &Arguments, exchange: &dyn Exchange) -> Outcome {
    if let Some(given) = answer(exchange, "form") {
        return Output::text(format!("User response: {given}")).into();
    }
    let message = arguments.0.get("message").and_then(Value::as_str).unwrap_or_default();
    let properties = json!({
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"}
    });
    ask([("form", form(message, properties, &["username", "email"]))], None)
}

fn completed(exchange: &dyn Exchange) -> Option<Outcome> {
    let given = answer(exchange, "form")?;
    let action = given.get("action").and_then(Value::as_str).unwrap_or("(none)");
    let content = given.get("content").unwrap_or(&Value::Null);
    Some(Output::text(format!("Elicitation completed: action={action}, content={content}")).into())
}

fn defaults(_: &Arguments, exchange: &dyn Exchange) -> Outcome {
    let properties = json!({
        "name": {"type": "string", "description": "Name", "default": "John Doe"},
        "age": {"type": "integer", "description": "Age", "default": 30},
        "score": {"type": "number", "description": "Score", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "description": "Verified", "default": true}
    });
    completed(exchange).unwrap_or_else(|| ask([("form", form("Please check the values", properties, &[]))], None))
}

fn enums(_: &Arguments, exchange: &dyn Exchange) -> Outcome {
    let titled = json!([
        {"const": "value1", "title": "First Option"},
        {"const": "value2", "title": "Second Option"},
        {"const": "value3", "title": "Third Option"}
    ]);
    let properties = json!({
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"]
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}}
    });
    completed(exchange).unwrap_or_else(|| ask([("form", form("Please choose", properties, &[]))], None))
}

fn name_form() -> InputRequest {
    form("What is your name?", json!({"name": {"type": "string"}}), &["name"])
}

fn ask_name(_: &Arguments, exchange: &dyn Exchange) -> Outcome {
    match filled(exchange, "user_name", "name") {
        Some(name) => Output::text(format!("Hello, {name}!")).into(),
        None => ask([("user_name", name_form())], None),
    }
}

fn sample_capital(_: &Arguments, exchange: &dyn Exchange) -> Outcome {
    match answer(exchange, "capital_question") {
        Some(reply) => Output::text(reply.pointer("/content/text").and_then(Value::as_str).unwrap_or("(no text)")).into(),
        None => ask([("capital_question", sample("What is the capital of France?"))], None),
    }
}

fn list_roots(_: &Arguments, exchange: &dyn Exchange) -> Outcome {
    match answer(exchange, "client_roots").and_then(|given| given.get("roots")) {
        Some(roots) => Output::text(format!("roots: {roots}")).into(),
        None => ask([("client_roots", roots())], None),
    }
}

fn confirmation() -> InputRequest {
    form("Please confirm", json!({"ok": {"type": "boolean"}}), &["ok"])
}

fn with_state(_: &Arguments, exchange: &dyn Exchange) -> Outcome {
    let expected = json!({"asked": "confirm"});
    match exchange.answers() {
        Some(Answers { responses, state: Some(state) }) if *state == expected && responses.contains_key("confirm") => {
            Output::text("state-ok").into()
        }
        _ => ask([("confirm", confirmation())], Some(expected)),
    }
}

fn several(_: &Arguments, exchange: &dyn Exchange) -> Outcome {
    let greeting = answer(exchange, "greeting").and_then(|g| g.pointer("/content/text")).and_then(Value::as_str);
    let given = (filled(exchange, "user_name", "name"), greeting, answer(exchange, "client_roots"));
    match given {
        (Some(name), Some(greeting), Some(_)) => Output::text(format!("{greeting} {name}")).into(),
        _ => ask(
            [("user_name", name_form()), ("greeting", sample("Generate a greeting")), ("client_roots", roots())],
            Some(json!("several")),
        ),
    }
}

fn two_rounds(_: &Arguments, exchange: &dyn Exchange) -> Outcome {
    let state = exchange.answers().and_then(|answers| answers.state.as_ref());
    let name = state.and_then(|s| s.get("name")).and_then(Value::as_str);
    if let (Some(name), Some(color)) = (name, filled(exchange, "step2", "color")) {
        return Output::text(format!("{name} likes {color}")).into();
    }
    if let Some(name) = filled(exchange, "step1", "name") {
        let question = form("Step 2: What is your favorite color?", json!({"color": {"type": "string"}}), &["color"]);
        return ask([("step2", question)], Some(json!({"name": name})));
    }
    let question = form("Step 1: What is your name?", json!({"name": {"type": "string"}}), &["name"]);
    ask([("step1", question)], Some(json!({})))
}

/// Asks only what the client declared; with nothing declared it asks all the same, so that the face must refuse.
fn what_the_client_can(_: &Arguments, exchange: &dyn Exchange) -> Outcome {
    if exchange.answers().is_some_and(|answers| !answers.responses.is_empty()) {
        return Output::text("answered").into();
    }
    let can = exchange.abilities();
    let mut requests = Vec::new();
    if can.elicitation {
        requests.push(("user_name", name_form()));
    }
    if can.sampling || requests.is_empty() {
        requests.push(("capital_question", sample("What is the capital of France?")));
    }
    ask(requests, None)
}
