//! Tools that answer at once, report while they run, fail, or change the lists. Names, arguments and texts are the
//! suite's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Fault, FaultCode, InvalidName, RiskClass, ToolName, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Content, EmbeddedResource, Exchange, NoticeLevel, Outcome, Output, Tool};
use serde_json::{Value, json};

use crate::house::Changer;

/// A red pixel.
pub(crate) const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// No sample at all, in a valid container.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=";

/// What a fixture tool says of itself.
pub(crate) fn spec(name: &str, description: &str, schema: Value) -> Result<Arc<ToolSpec>, InvalidName> {
    Ok(Arc::new(ToolSpec {
        name: ToolName::new(name)?,
        title: name.into(),
        description: description.into(),
        risk: RiskClass::Read,
        idempotent: true,
        open_world: false,
        category: None,
        input_schema: Arc::new(schema),
        output_schema: None,
        completions: Vec::new(),
        shown: None,
    }))
}

/// No arguments.
pub(crate) fn nothing() -> Value {
    json!({"type": "object", "properties": {}})
}

/// One required text.
pub(crate) fn text_argument(name: &str) -> Value {
    json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name]})
}

#[derive(Clone, Copy)]
enum Act {
    Text(&'static str),
    Image,
    Audio,
    Embedded,
    Mixed,
    Fails,
    Logs,
    Progress,
    Echo(&'static str),
    Change,
}

struct Fixture {
    spec: Arc<ToolSpec>,
    act: Act,
    changer: Arc<Changer>,
}

/// Every tool of this page; `extra` adds the one that comes and goes.
pub(crate) fn all(changer: &Arc<Changer>, extra: bool) -> Result<Vec<Arc<dyn Tool>>, InvalidName> {
    let pause = "Reports three times, 50 ms apart";
    let mut table = vec![
        ("test_simple_text", "Answers with text", nothing(), Act::Text("This is a simple text response for testing.")),
        ("test_image_content", "Answers with a picture", nothing(), Act::Image),
        ("test_audio_content", "Answers with sound", nothing(), Act::Audio),
        ("test_embedded_resource", "Answers with a resource", nothing(), Act::Embedded),
        ("test_multiple_content_types", "Answers with text, a picture and a resource", nothing(), Act::Mixed),
        ("test_error_handling", "Fails", nothing(), Act::Fails),
        ("test_tool_with_logging", pause, nothing(), Act::Logs),
        ("test_logging_tool", pause, nothing(), Act::Logs),
        ("test_tool_with_progress", pause, nothing(), Act::Progress),
        ("test_custom_header", "Mirrors its argument into a header", mirrored(), Act::Echo("value")),
        ("json_schema_2020_12_tool", "Tool with JSON Schema 2020-12 features", vocabulary(), Act::Echo("name")),
        ("test_trigger_tool_change", "Changes the list of tools", nothing(), Act::Change),
        ("test_trigger_prompt_change", "Changes the list of prompts", nothing(), Act::Change),
    ];
    if extra {
        table.push(("test_extra", "Comes and goes", nothing(), Act::Text("here")));
    }
    table
        .into_iter()
        .map(|(name, description, schema, act)| {
            let spec = spec(name, description, schema)?;
            Ok(Arc::new(Fixture { spec, act, changer: changer.clone() }) as Arc<dyn Tool>)
        })
        .collect()
}

fn mirrored() -> Value {
    json!({
        "type": "object",
        "properties": {"value": {"type": "string", "x-mcp-header": "Value"}},
        "required": ["value"]
    })
}

fn vocabulary() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}}
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"}
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": false
    })
}

fn image() -> Content {
    Content::Image { data: PNG.into(), mime_type: "image/png".into() }
}

fn resource(uri: &str, mime_type: &str, text: &str) -> Content {
    let mime_type = Some(mime_type.to_owned());
    Content::Resource(EmbeddedResource { uri: uri.into(), mime_type, data: text.into(), binary: false, meta: None })
}

fn contents(content: Vec<Content>) -> Outcome {
    Output { content, ..Output::default() }.into()
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[async_trait]
impl Tool for Fixture {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, _permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        Ok(match self.act {
            Act::Text(text) => Output::text(text).into(),
            Act::Image => contents(vec![image()]),
            Act::Audio => contents(vec![Content::Audio { data: WAV.into(), mime_type: "audio/wav".into() }]),
            Act::Embedded => {
                contents(vec![resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")])
            }
            Act::Mixed => contents(vec![
                Content::Text("Multiple content types test:".into()),
                image(),
                resource("test://mixed-content-resource", "application/json", r#"{"test":"data","value":123}"#),
            ]),
            Act::Fails => {
                let text = Content::Text("This tool intentionally returns an error for testing".into());
                Output { content: vec![text], failed: true, ..Output::default() }.into()
            }
            Act::Logs => {
                exchange.notice(NoticeLevel::Info, "fixture", json!("Tool execution started"));
                pause().await;
                exchange.notice(NoticeLevel::Info, "fixture", json!("Tool processing data"));
                pause().await;
                exchange.notice(NoticeLevel::Info, "fixture", json!("Tool execution completed"));
                Output::text("logged").into()
            }
            Act::Progress => {
                for done in [0.0, 50.0, 100.0] {
                    exchange.progress(done, Some(100.0), "");
                    pause().await;
                }
                Output::text("reported").into()
            }
            Act::Echo(argument) => {
                let given = arguments.0.get(argument).and_then(Value::as_str).unwrap_or("(absent)");
                Output::text(format!("{argument} is {given}")).into()
            }
            Act::Change => {
                self.changer.change().map_err(|reason| Fault::new(FaultCode::Internal, "not changed").with_internal(reason))?;
                Output::text("changed").into()
            }
        })
    }
}
