//! A plugin of the revision before previews. Its one tool changes something, and takes whatever arguments it is given.

wit_bindgen::generate!({ path: "wit", world: "plugin" });

use exports::portcullis::plugin::guest::Guest;
use portcullis::plugin::{call, http};
use portcullis::plugin::telemetry::{Answer, Question};
use portcullis::plugin::types::{Content, Context, Description, Fault, FaultCode, Risk, Tool, ToolResult};

struct Elder;
export!(Elder);

impl Guest for Elder {
    fn describe() -> Description {
        let tool = Tool {
            name: "elder_set".into(),
            title: "Set".into(),
            description: "Sets something.".into(),
            risk: Risk::Write,
            idempotent: true,
            open_world: false,
            input_schema: r#"{"type":"object","additionalProperties":true}"#.into(),
            output_schema: None,
        };
        Description { tools: vec![tool], signals: Vec::new() }
    }

    fn call_tool(_name: String, arguments: String, _context: Context) -> Result<ToolResult, Fault> {
        let request = http::Request {
            method: "PUT".into(),
            url: format!("{}/flags/elder", call::settings().split('"').nth(3).unwrap_or("")),
            headers: Vec::new(),
            body: Some(arguments.into_bytes()),
            credentials: Vec::new(),
            idempotent: false,
            timeout_ms: None,
        };
        match http::send(&request) {
            Ok(response) => {
                let text = format!("set: {}", response.status);
                Ok(ToolResult { structured: None, content: vec![Content::Text(text)], failed: false })
            }
            Err(failure) => Err(fault(&format!("{failure:?}"))),
        }
    }

    fn answer_question(_question: Question, _context: Context) -> Result<Answer, Fault> {
        Err(fault("it is no source"))
    }
}

fn fault(message: &str) -> Fault {
    Fault { code: FaultCode::BackendFailed, message: message.into(), hint: None, detail: None, retry_after_seconds: None }
}
