//! The tool `enrich_ips`: what addresses are, by IANA's registries, and whose, if the operator grants asking. Guards that few
//! addresses are taken at once and that the answer can be followed by position where addresses are redacted.

use serde_json::{Value, json};

wit_bindgen::generate!({ path: "../../crates/plugins/wit", world: "plugin" });

mod dns;
mod enrich;
mod rdap;
mod registry;
mod settings;

use enrich::{Door, MOST_ADDRESSES};
use exports::portcullis::plugin::guest::Guest;
use portcullis::plugin::telemetry::{Answer, Question};
use portcullis::plugin::types::{Content, Context, Description, Fault, FaultCode, Risk, Tool, ToolResult};
use portcullis::plugin::{cache, call, http};
use settings::Settings;

struct Enrichment;
// Names of exports hold characters that only WebAssembly takes.
#[cfg(target_family = "wasm")]
export!(Enrichment);

/// The host.
struct Host;

impl Door for Host {
    fn send(&self, request: &http::Request) -> Result<http::Response, http::Failure> {
        http::send(request)
    }
    fn kept(&self, key: &str) -> Option<Vec<u8>> {
        cache::get(key)
    }
    fn keep(&self, key: &str, value: &[u8], seconds: u32) {
        // What is too large is asked for again.
        let _ = cache::set(key, value, seconds);
    }
    fn time_left(&self) -> u32 {
        call::time_left()
    }
}

impl Guest for Enrichment {
    fn describe() -> Description {
        let input = json!({
            "type": "object",
            "properties": {
                "addresses": {
                    "type": "array", "items": {"type": "string", "maxLength": 64}, "minItems": 1, "maxItems": MOST_ADDRESSES,
                    "description": "IPv4 or IPv6 addresses, without port or prefix length."
                },
                "look_up": {
                    "type": "boolean", "default": true,
                    "description": "Also ask who a public address belongs to, where the operator grants it."
                }
            },
            "required": ["addresses"],
            "additionalProperties": false
        });
        let output = json!({
            "type": "object",
            "properties": {
                "results": {"type": "array", "items": {
                    "type": "object",
                    "properties": {
                        "position": {"type": "integer", "description": "Of the address in the question; addresses may be redacted."},
                        "address": {"type": "string"},
                        "same_as": {"type": "integer"},
                        "version": {"type": "integer"},
                        "class": {"type": "string"},
                        "name": {"type": "string"},
                        "block": {"type": "string"},
                        "reference": {"type": "string"},
                        "globally_reachable": {"type": "boolean"},
                        "embedded": {"type": "object"},
                        "origin": {"type": "object"},
                        "reverse": {"type": "array", "items": {"type": "string"}},
                        "network": {"type": "object"},
                        "not_found": {"type": "array", "items": {"type": "string"}},
                        "failed": {"type": "array", "items": {"type": "object"}}
                    },
                    "required": ["position", "address"]
                }},
                "asked": {"type": "array", "items": {"type": "string"}},
                "note": {"type": "string"}
            },
            "required": ["results", "asked", "note"]
        });
        let tool = Tool {
            name: "enrich_ips".into(),
            title: "What IP addresses are".into(),
            description: "Says whether IP addresses are private, reserved or public, and for public ones the autonomous system, \
                the registered network and the reverse name where the operator granted asking."
                .into(),
            risk: Risk::Read,
            idempotent: true,
            open_world: true,
            input_schema: input.to_string(),
            output_schema: Some(output.to_string()),
        };
        Description { tools: vec![tool], signals: Vec::new() }
    }

    fn call_tool(_name: String, arguments: String, _context: Context) -> Result<ToolResult, Fault> {
        let arguments: Value =
            serde_json::from_str(&arguments).map_err(|error| fault(FaultCode::InvalidArgument, error.to_string()))?;
        let texts: Vec<&str> = arguments["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if texts.is_empty() || texts.len() > MOST_ADDRESSES {
            let message = format!("{} addresses were given; give 1 to {MOST_ADDRESSES}", texts.len());
            return Err(fault(FaultCode::InvalidArgument, message));
        }
        let mut addresses = Vec::new();
        for text in texts {
            addresses.push(enrich::address(text).map_err(|why| fault(FaultCode::InvalidArgument, why))?);
        }
        let settings = Settings::read(&call::settings())
            .map_err(|why| fault(FaultCode::Internal, format!("the operator's settings of this plugin cannot be used: {why}")))?;
        let said = enrich::enrich(&Host, &settings, &addresses, arguments["look_up"] != json!(false)).to_string();
        Ok(ToolResult { structured: Some(said.clone()), content: vec![Content::Text(said)], failed: false })
    }

    fn answer_question(_question: Question, _context: Context) -> Result<Answer, Fault> {
        Err(fault(FaultCode::Unsupported, "this plugin is no source".into()))
    }
}

fn fault(code: FaultCode, message: String) -> Fault {
    Fault { code, message, hint: None, detail: None, retry_after_seconds: None }
}
