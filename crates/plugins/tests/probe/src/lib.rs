//! A plugin that does what its argument says: an honest source of a few records, and everything a hostile one would try.

use serde_json::{Value, json};

wit_bindgen::generate!({ path: "../../wit", world: "plugin" });

use exports::portcullis::plugin::guest::Guest;
use portcullis::plugin::telemetry::{
    Alert, AlertAnswer, AlertState, Answer, Health, LogAnswer, LogRecord, MetricAnswer, Question, Sample, Series, Service, Span,
    SpanKind, SpanStatus, Trace, TraceAnswer, TraceSummary,
};
use portcullis::plugin::types::{
    Content, Context, Description, Fault, FaultCode, Pair, Risk, Severity, Signal, Tool, ToolResult, Total, Window,
};
use portcullis::plugin::{cache, call, http, log, secrets};

struct Probe;
export!(Probe);

const DO_SCHEMA: &str = r#"{"type":"object","properties":{"what":{"type":"string"},"url":{"type":"string"},"method":{"type":"string"},
"headers":{"type":"array","items":{"type":"array","items":{"type":"string"}}},"credentials":{"type":"array","items":{"type":"string"}},
"text":{"type":"string"},"count":{"type":"integer"}},"required":["what"],"additionalProperties":false}"#;
const CHANGE_SCHEMA: &str = r#"{"type":"object","properties":{},"additionalProperties":false}"#;

impl Guest for Probe {
    fn describe() -> Description {
        let tool = |name: &str, risk, input_schema: &str| Tool {
            name: name.into(),
            title: "Probe".into(),
            description: "Does what it is told.".into(),
            risk,
            idempotent: true,
            open_world: false,
            input_schema: input_schema.into(),
            output_schema: None,
        };
        // Written as an escape, so that the text of the schema holds nothing to see.
        let hiding = r#""what":{"type":"string","description":"What to do.\u200b\u2060"}"#;
        let schema = if setting("hiding") == true {
            DO_SCHEMA.replace(r#""what":{"type":"string"}"#, hiding)
        } else {
            DO_SCHEMA.to_owned()
        };
        Description {
            tools: vec![tool("probe_do", Risk::Read, &schema), tool("probe_change", Risk::Write, CHANGE_SCHEMA)],
            signals: vec![Signal::Metrics, Signal::Logs, Signal::Traces, Signal::Alerts],
        }
    }

    fn call_tool(name: String, arguments: String, context: Context) -> Result<ToolResult, Fault> {
        if name == "probe_change" {
            return Ok(said(json!({"changed": true})));
        }
        let arguments: Value = serde_json::from_str(&arguments).map_err(|_| fault(FaultCode::InvalidArgument, "no JSON"))?;
        let count = arguments["count"].as_u64().unwrap_or(0);
        let text = arguments["text"].as_str().unwrap_or("").to_owned();
        match arguments["what"].as_str().unwrap_or("") {
            "echo" => Ok(said(json!({"text": text}))),
            "context" => {
                Ok(said(json!({"tenant": context.scope.tenant, "time_left": call::time_left(), "settings": call::settings()})))
            }
            "fault" => Err(fault(FaultCode::NotFound, &text)),
            "loop" => loop {
                std::hint::black_box(0);
            },
            "memory" => {
                let mut held: Vec<Vec<u8>> = Vec::new();
                loop {
                    held.push(vec![1; 1 << 20]);
                }
            }
            "giant" => Ok(said(json!({"text": "x".repeat(count as usize)}))),
            // Many texts that are all the same place in memory: small here, huge wherever they are copied to.
            "alias" => {
                let text: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
                let content = (0..count).map(|_| Content::Text(shared(text))).collect();
                Ok(ToolResult { structured: None, content, failed: false })
            }
            "panic" => panic!("as told"),
            "deep" => Ok(said(json!({"depth": deeper(std::hint::black_box(1))}))),
            "exit" => {
                wasip2::cli::exit::exit(Err(()));
                Ok(said(json!({})))
            }
            "sleep" => {
                wasip2::clocks::monotonic_clock::subscribe_duration(count * 1_000_000).block();
                Ok(said(json!({"slept": count})))
            }
            "log" => {
                for at in 0..count {
                    log::write(log::Level::Info, &format!("{text} {at}"));
                }
                Ok(said(json!({})))
            }
            "print" => {
                let out = wasip2::cli::stdout::get_stdout();
                for _ in 0..count {
                    let _ = out.blocking_write_and_flush(format!("{text}\n").as_bytes());
                }
                Ok(said(json!({})))
            }
            "progress" => {
                for at in 0..count {
                    call::progress(at as f64, Some(count as f64), &text);
                }
                Ok(said(json!({})))
            }
            "http" => Ok(said(fetch(&arguments, count))),
            "secret" => Ok(said(match secrets::read(&text) {
                Ok(value) => json!({"value": value}),
                Err(failure) => json!({"failure": format!("{failure:?}")}),
            })),
            "remember" => Ok(said(json!({"kept": cache::set("k", text.as_bytes(), 60)}))),
            "recall" => {
                let kept = cache::get("k").map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                // A place in memory that would survive if instances did.
                static SEEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
                let before = SEEN.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Ok(said(json!({"kept": kept, "calls_before": before})))
            }
            "surroundings" => Ok(said(surroundings())),
            other => Err(fault(FaultCode::InvalidArgument, &format!("cannot {other}"))),
        }
    }

    fn answer_question(question: Question, context: Context) -> Result<Answer, Fault> {
        match question {
            Question::Health => Ok(Answer::Health(health())),
            Question::Services(window) => Ok(Answer::Services(
                ["cart", "foreign"]
                    .map(|name| Service { name: name.into(), signals: vec![Signal::Logs], last_seen: Some(window.start) })
                    .to_vec(),
            )),
            Question::Logs(asked) => Ok(Answer::Logs(logs(asked.filter.window))),
            Question::Metrics(asked) => Ok(Answer::Metrics(metrics(asked.window))),
            Question::LabelValues(_) => Ok(Answer::LabelValues(vec!["cart".into(), "foreign".into()])),
            Question::Traces(asked) => {
                Ok(Answer::Traces(TraceAnswer { traces: vec![summary(asked.window)], total: Total::Exact(1) }))
            }
            Question::Trace(id) => Ok(Answer::Trace(Some(trace(id)))),
            // Another kind of answer than was asked for, when it is asked under this tenant.
            Question::Alerts(_) if context.scope.tenant == "confused" => Ok(Answer::LabelValues(Vec::new())),
            Question::Alerts(_) => Ok(Answer::Alerts(AlertAnswer { alerts: alerts(), rules: Some(2) })),
            _ => Err(fault(FaultCode::Unsupported, "not this")),
        }
    }
}

fn said(value: Value) -> ToolResult {
    let text = value.to_string();
    ToolResult { structured: Some(text.clone()), content: vec![Content::Text(text)], failed: false }
}

fn fault(code: FaultCode, message: &str) -> Fault {
    Fault { code, message: message.into(), hint: None, detail: Some("for the operator".into()), retry_after_seconds: None }
}

fn setting(name: &str) -> Value {
    let mut settings: Value = serde_json::from_str(&call::settings()).unwrap_or_default();
    settings[name].take()
}

/// As well as the server it is told to look at; well by itself when there is none.
fn health() -> Health {
    let url = setting("health");
    let failure = url.as_str().and_then(|url| fetch(&json!({"url": url}), 1)["failure"].as_str().map(str::to_owned));
    Health { up: failure.is_none(), version: Some("1.0".into()), message: failure }
}

/// Calls itself for ever.
#[allow(unconditional_recursion)]
fn deeper(depth: u64) -> u64 {
    std::hint::black_box(deeper(std::hint::black_box(depth) + 1)) + depth
}

/// A text over memory that others share. It is never dropped: lowering hands it over and forgets it.
fn shared(text: &'static str) -> String {
    unsafe { String::from_raw_parts(text.as_ptr().cast_mut(), text.len(), text.len()) }
}

fn fetch(arguments: &Value, count: u64) -> Value {
    let list = |name: &str| arguments[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let headers = list("headers").iter().map(|pair| Pair { name: text(&pair[0]), value: text(&pair[1]) }).collect::<Vec<_>>();
    let request = http::Request {
        method: arguments["method"].as_str().unwrap_or("GET").to_owned(),
        url: text(&arguments["url"]),
        headers,
        body: arguments["text"].as_str().map(|body| body.as_bytes().to_vec()),
        credentials: list("credentials").iter().map(text).collect(),
        idempotent: false,
        timeout_ms: None,
    };
    let mut last = json!(null);
    for _ in 0..count.max(1) {
        last = match http::send(&request) {
            Ok(response) => {
                let headers: Vec<String> = response.headers.iter().map(|pair| format!("{}: {}", pair.name, pair.value)).collect();
                json!({"status": response.status, "body": String::from_utf8_lossy(&response.body), "headers": headers})
            }
            Err(failure) => json!({"failure": format!("{failure:?}")}),
        };
    }
    last
}

fn surroundings() -> Value {
    use wasip2::{cli, clocks, filesystem, random, sockets};
    let network = sockets::instance_network::instance_network();
    let socket = sockets::tcp_create_socket::create_tcp_socket(sockets::network::IpAddressFamily::Ipv4);
    let connect = socket.map(|socket| {
        let address = sockets::network::Ipv4SocketAddress { port: 18080, address: (127, 0, 0, 1) };
        socket.start_connect(&network, sockets::network::IpSocketAddress::Ipv4(address)).is_ok()
    });
    let lookup = sockets::ip_name_lookup::resolve_addresses(&network, "localhost").is_ok();
    json!({
        "environment": cli::environment::get_environment().len(),
        "arguments": cli::environment::get_arguments().len(),
        "directories": filesystem::preopens::get_directories().len(),
        "connects": connect.unwrap_or(false),
        "looks_up": lookup,
        "clock": clocks::monotonic_clock::now() % 1_000_000,
        "wall": clocks::wall_clock::now().nanoseconds % 1_000_000,
        "random": random::random::get_random_bytes(8).len(),
    })
}

fn record(at: i64, service: &str, body: &str) -> LogRecord {
    LogRecord {
        at,
        severity: Some(Severity::Error),
        service: service.into(),
        body: body.into(),
        attributes: vec![Pair { name: "k8s.namespace.name".into(), value: "shop".into() }],
        trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
        span_id: String::new(),
    }
}

/// Two records that belong there, one of another service, and one from before the window.
fn logs(window: Window) -> LogAnswer {
    let middle = window.start + (window.end - window.start) / 2;
    LogAnswer {
        records: vec![
            record(middle + 1, "cart", "payment refused by the probe"),
            record(middle, "cart", "second line of the probe"),
            record(middle, "foreign", "line of a foreign service"),
            record(window.start - 1, "cart", "line from before the window"),
        ],
        total: Total::Exact(4),
        next: None,
    }
}

fn metrics(window: Window) -> MetricAnswer {
    let series = |service: &str| Series {
        labels: vec![Pair { name: "service".into(), value: service.into() }],
        samples: vec![Sample { at: window.start - 1, value: 7.0 }, Sample { at: window.start + 1, value: 0.5 }],
    };
    MetricAnswer {
        series: vec![series("cart"), series("foreign")],
        total_series: Total::Exact(2),
        metric: "probe_ratio".into(),
        unit: "1".into(),
        query: "probe".into(),
        step: 60_000_000_000,
        warnings: Vec::new(),
        exemplars: Vec::new(),
    }
}

fn summary(window: Window) -> TraceSummary {
    TraceSummary {
        trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
        root_service: "foreign".into(),
        root_name: "GET /".into(),
        start: window.start + 1,
        duration: 1_000,
        spans: 2,
        error_spans: 1,
        services: vec!["cart".into(), "foreign".into()],
    }
}

fn trace(trace_id: String) -> Trace {
    let span = |service: &str, id: &str| Span {
        trace_id: trace_id.clone(),
        span_id: id.into(),
        parent_span_id: String::new(),
        service: service.into(),
        name: "work".into(),
        kind: SpanKind::Server,
        start: 1,
        duration: 1_000,
        status: SpanStatus::Error,
        status_message: String::new(),
        attributes: Vec::new(),
        events: Vec::new(),
    };
    let spans = vec![span("cart", "b7ad6b7169203331"), span("foreign", "b7ad6b7169203332")];
    Trace { trace_id: trace_id.clone(), spans, truncated: false }
}

fn alerts() -> Vec<Alert> {
    let alert = |service: &str| Alert {
        name: "ProbeFires".into(),
        state: AlertState::Firing,
        severity: Some("critical".into()),
        labels: vec![Pair { name: "service".into(), value: service.into() }],
        annotations: Vec::new(),
        active_since: None,
        value: None,
    };
    vec![alert("cart"), alert("foreign")]
}
