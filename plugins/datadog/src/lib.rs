//! Datadog as a source of metrics and logs. Guards that every question is asked within the caller's scope and answered as far
//! as Datadog answered; must not hold a key: the host puts both into the requests.

use serde_json::Value;

wit_bindgen::generate!({ path: "../../crates/plugins/wit", world: "plugin" });

mod api;
mod logs;
mod metrics;
mod search;
mod settings;
mod tags;
mod time;

use api::{Api, Door};
use exports::portcullis::plugin::guest::Guest;
use portcullis::plugin::telemetry::{Answer, Health, Question};
use portcullis::plugin::types::{Context, Description, Fault, Signal, ToolResult};
use portcullis::plugin::{call, http, log};
use settings::Settings;

struct Datadog;
// Names of exports hold characters that only WebAssembly takes.
#[cfg(target_family = "wasm")]
export!(Datadog);

/// The host.
struct Host;

impl Door for Host {
    fn send(&self, request: &http::Request) -> Result<http::Response, http::Failure> {
        http::send(request)
    }

    fn warn(&self, message: &str) {
        log::write(log::Level::Warn, message);
    }
}

impl Guest for Datadog {
    fn describe() -> Description {
        Description { tools: Vec::new(), signals: vec![Signal::Metrics, Signal::Logs] }
    }

    fn call_tool(name: String, _arguments: String, _context: Context) -> Result<ToolResult, Fault> {
        Err(tags::unsupported(&format!("there is no tool '{}'", tags::shown(&name)), "this plugin is a source"))
    }

    fn answer_question(question: Question, context: Context) -> Result<Answer, Fault> {
        let settings = Settings::read(&call::settings())?;
        answer(&Api { door: &Host, settings: &settings }, question, &context)
    }
}

fn answer(api: &Api, question: Question, context: &Context) -> Result<Answer, Fault> {
    Ok(match question {
        Question::Health => Answer::Health(health(api)),
        Question::Services(window) => Answer::Services(logs::services(api, window, context)?),
        Question::Logs(question) => Answer::Logs(logs::logs(api, &question, context)?),
        Question::LogCounts(question) => Answer::LogCounts(logs::log_counts(api, &question, context)?),
        Question::Metrics(question) => Answer::Metrics(metrics::metrics(api, &question, context)?),
        Question::MetricCatalogue(question) => Answer::MetricCatalogue(metrics::catalogue(api, &question, context)?),
        Question::LabelValues(question) => {
            let of_services = tags::tag_of(&question.label, api.settings) == "service" && question.metric.is_none();
            Answer::LabelValues(if question.signal == Signal::Logs || of_services {
                logs::values(api, question.window, &question.label, question.service.as_deref(), question.limit, context)?
            } else {
                metrics::values(api, &question)?
            })
        }
        Question::Traces(_) | Question::Trace(_) | Question::Alerts(_) => {
            return Err(tags::unsupported("this source has metrics and logs", "ask another source"));
        }
    })
}

/// <https://docs.datadoghq.com/api/latest/authentication/>: whether the API key is taken.
fn health(api: &Api) -> Health {
    match api.get("/api/v1/validate", &[]) {
        Ok(answer) if answer.get("valid") == Some(&Value::Bool(true)) => Health { up: true, version: None, message: None },
        Ok(_) => Health { up: false, version: None, message: Some("Datadog does not take the API key".to_owned()) },
        Err(fault) => Health { up: false, version: None, message: Some(fault.message) },
    }
}
