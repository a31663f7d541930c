//! Secrets of every class in every place a backend can hold one, then every answer the binary can give: none comes out.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::plants::{DIGITS, Dice, LETTERS, Plant, plants};
use crate::server::{BINARY, Home, Server, intact, modern_headers, post};
use crate::visitor::{Backend, Visitor, now_nanos};

/// Everything that was planted, by place.
pub(crate) struct Garden {
    pub(crate) dice: Dice,
    pub(crate) planted: Vec<(String, Plant)>,
}

impl Garden {
    pub(crate) fn new() -> Self {
        Self { dice: Dice(0x5eed_1234), planted: Vec::new() }
    }

    /// One of every class for this place.
    pub(crate) fn sow(&mut self, place: &str) -> Vec<Plant> {
        let plants = plants(&mut self.dice);
        self.planted.extend(plants.iter().map(|p| (place.to_owned(), p.clone())));
        plants
    }

    /// A value that looks like nothing; only the name of its field tells.
    pub(crate) fn plain(&mut self, place: &str) -> String {
        let value = format!("Tiger{}", self.dice.of(DIGITS, 9));
        let plant = Plant { class: "named field", text: value.clone(), hidden: vec![value.clone()] };
        self.planted.push((place.to_owned(), plant));
        value
    }
}

fn text_attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn resource(service: &str, more: Vec<Value>) -> Value {
    let mut attributes = vec![text_attribute("service.name", service)];
    attributes.extend(more);
    json!({"attributes": attributes})
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn logs(garden: &mut Garden) -> Value {
    let now = now_nanos();
    let mut resources = Vec::new();
    let record = |body: Value, attributes: Vec<Value>, at: usize| {
        json!({"timeUnixNano": (now - 1_000_000_000 * (1 + at as u128 % 600)).to_string(), "severityNumber": 9 + 4 * (at % 4),
               "body": body, "attributes": attributes, "traceId": TRACE})
    };
    let mut records = Vec::new();
    for plant in garden.sow("log body") {
        records.push(record(json!({"stringValue": plant.text}), vec![], records.len()));
    }
    for plant in garden.sow("structured log body") {
        let list = json!({"kvlistValue": {"values": [text_attribute("message", &plant.text), {"key": "deep", "value": {"arrayValue": {"values": [{"stringValue": plant.text}]}}}]}});
        records.push(record(list, vec![], records.len()));
    }
    for plant in garden.sow("log attribute") {
        records.push(record(json!({"stringValue": "see note"}), vec![text_attribute("note", &plant.text)], records.len()));
    }
    for plant in garden.sow("name of a log attribute") {
        records.push(record(json!({"stringValue": "see names"}), vec![text_attribute(&plant.text, "x")], records.len()));
    }
    let (first, second) = (garden.plain("password in a log attribute"), garden.plain("password in a structured body"));
    records.push(record(json!({"stringValue": "log-in"}), vec![text_attribute("db.password", &first)], 1));
    records.push(record(json!({"kvlistValue": {"values": [text_attribute("client_secret", &second)]}}), vec![], 2));
    let mut scopes = vec![json!({"logRecords": records})];
    for plant in garden.sow("scope of logs") {
        scopes
            .push(json!({"scope": {"name": plant.text, "version": plant.text, "attributes": [text_attribute("s", &plant.text)]},
            "logRecords": [record(json!({"stringValue": "scoped"}), vec![], 3)]}));
    }
    resources.push(json!({"resource": resource("checkout", vec![]), "scopeLogs": scopes}));
    for plant in garden.sow("resource attribute of logs") {
        let more = vec![text_attribute("deploy.note", &plant.text)];
        resources.push(json!({"resource": resource("cart", more), "scopeLogs": [{"logRecords": [record(json!({"stringValue": "deployed"}), vec![], 4)]}]}));
    }
    for plant in garden.sow("service name of logs") {
        resources.push(json!({"resource": resource(&plant.text, vec![]), "scopeLogs": [{"logRecords": [record(json!({"stringValue": "named"}), vec![], 5)]}]}));
    }
    json!({"resourceLogs": resources})
}

fn span(number: usize, name: &str, more: &Value) -> Value {
    let end = now_nanos() - 30_000_000_000;
    let mut span = json!({"traceId": TRACE, "spanId": format!("{:016x}", number + 1), "name": name, "kind": 2,
        "startTimeUnixNano": (end - 50_000_000).to_string(), "endTimeUnixNano": end.to_string()});
    if number > 0 {
        span["parentSpanId"] = json!(format!("{:016x}", 1));
    }
    span.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    span
}

fn traces(garden: &mut Garden) -> Value {
    let mut spans = vec![span(0, "GET /", &json!({}))];
    let push = |name: &str, more: Value, spans: &mut Vec<Value>| spans.push(span(spans.len(), name, &more));
    for plant in garden.sow("span name") {
        push(&plant.text, json!({}), &mut spans);
    }
    for plant in garden.sow("span attribute") {
        push("a", json!({"attributes": [text_attribute("note", &plant.text)]}), &mut spans);
    }
    for plant in garden.sow("span event") {
        let event = json!({"timeUnixNano": now_nanos().to_string(), "name": plant.text, "attributes": [text_attribute("exception.message", &plant.text)]});
        push("b", json!({"events": [event]}), &mut spans);
    }
    for plant in garden.sow("span status") {
        push("c", json!({"status": {"code": 2, "message": plant.text}}), &mut spans);
    }
    for plant in garden.sow("span link and state") {
        let link = json!({"traceId": TRACE, "spanId": "00000000000000aa", "traceState": plant.text, "attributes": [text_attribute("why", &plant.text)]});
        push("d", json!({"links": [link], "traceState": plant.text}), &mut spans);
    }
    let password = garden.plain("password in a span attribute");
    push("e", json!({"attributes": [text_attribute("db.password", &password)]}), &mut spans);
    let mut resources = vec![json!({"resource": resource("checkout", vec![]), "scopeSpans": [{"spans": spans}]})];
    for (at, plant) in garden.sow("service name of spans").iter().enumerate() {
        let spans = vec![span(1_000 + at, "POST /pay", &json!({"status": {"code": 2}}))];
        resources.push(json!({"resource": resource(&plant.text, vec![]), "scopeSpans": [{"spans": spans}]}));
    }
    json!({"resourceSpans": resources})
}

fn metrics(garden: &mut Garden) -> Value {
    let now = now_nanos();
    let point = |attributes: Vec<Value>, exemplars: Vec<Value>| {
        json!({"timeUnixNano": (now - 20_000_000_000).to_string(), "startTimeUnixNano": (now - 600_000_000_000).to_string(),
               "asDouble": 4.5, "attributes": attributes, "exemplars": exemplars})
    };
    let mut points = Vec::new();
    for plant in garden.sow("metric label") {
        points.push(point(vec![text_attribute("note", &plant.text)], vec![]));
    }
    for plant in garden.sow("exemplar") {
        let exemplar = json!({"timeUnixNano": now.to_string(), "asDouble": 9.0, "filteredAttributes": [text_attribute("note", &plant.text)]});
        points.push(point(vec![text_attribute("n", &format!("{}", points.len()))], vec![exemplar]));
    }
    let password = garden.plain("password in a metric label");
    points.push(point(vec![text_attribute("password", &password)], vec![]));
    let mut all = vec![json!({"name": "canary_level", "gauge": {"dataPoints": points}})];
    for (at, plant) in garden.sow("metric description and unit").iter().enumerate() {
        all.push(json!({"name": format!("described_{at}"), "description": plant.text, "unit": plant.text, "gauge": {"dataPoints": [point(vec![], vec![])]}}));
    }
    for plant in garden.sow("metric name") {
        all.push(json!({"name": plant.text, "gauge": {"dataPoints": [point(vec![], vec![])]}}));
    }
    let mut resources = vec![json!({"resource": resource("checkout", vec![]), "scopeMetrics": [{"metrics": all}]})];
    for plant in garden.sow("resource attribute of metrics") {
        let more = vec![text_attribute("host.note", &plant.text)];
        resources.push(json!({"resource": resource("cart", more), "scopeMetrics": [{"metrics": [{"name": "up", "gauge": {"dataPoints": [point(vec![], vec![])]}}]}]}));
    }
    json!({"resourceMetrics": resources})
}

/// A value of a form or query.
fn form(body: &str, name: &str) -> Option<f64> {
    body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// A Prometheus that has secrets wherever it can have them, and tells them in its errors as well.
fn prometheus(garden: &mut Garden) -> Backend {
    let series: Vec<Value> = garden
        .sow("Prometheus label")
        .into_iter()
        .map(|p| json!({"__name__": "canary_series", "job": "shop", "instance": "a:1", "note": p.text}))
        .collect();
    let password = garden.plain("password in a Prometheus label");
    let mut series = series;
    series.push(json!({"__name__": "canary_series", "job": "shop", "instance": "b:1", "password": password}));
    for plant in garden.sow("Prometheus job") {
        series.push(json!({"__name__": "up", "job": plant.text, "instance": "c:1"}));
    }
    let values: Vec<String> = garden.sow("Prometheus label value").into_iter().map(|p| p.text).collect();
    let helps: Map<String, Value> = garden
        .sow("Prometheus metadata")
        .into_iter()
        .enumerate()
        .map(|(at, p)| (format!("helped_{at}"), json!([{"type": "gauge", "help": p.text, "unit": p.text}])))
        .collect();
    let annotation = garden.plain("password in an annotation");
    let mut alerts: Vec<Value> = garden
        .sow("alert name")
        .into_iter()
        .map(|p| json!({"labels": {"alertname": p.text, "job": "shop"}, "annotations": {"summary": "x"}, "state": "firing", "activeAt": "2026-01-01T00:00:00Z", "value": "1"}))
        .collect();
    for plant in garden.sow("alert annotation and label") {
        alerts.push(json!({"labels": {"alertname": "High", "job": "shop", "note": plant.text}, "annotations": {"summary": plant.text, "description": plant.text}, "state": "firing", "activeAt": "2026-01-01T00:00:00Z", "value": "1"}));
    }
    alerts.push(json!({"labels": {"alertname": "Low", "job": "shop"}, "annotations": {"password": annotation}, "state": "pending", "activeAt": "2026-01-01T00:00:00Z"}));
    let targets: Vec<Value> = garden
        .sow("target")
        .into_iter()
        .map(|p| json!({"labels": {"job": p.text, "instance": p.text}, "scrapeInterval": "15s", "lastError": p.text, "health": "down"}))
        .collect();
    let rules: Vec<Value> = garden
        .sow("rule")
        .into_iter()
        .map(|p| json!({"type": "alerting", "name": p.text, "query": p.text, "labels": {"a": p.text}, "annotations": {"b": p.text}}))
        .collect();
    let warnings: Vec<String> = garden.sow("warning of a backend").into_iter().map(|p| p.text).collect();
    let errors: Vec<String> = garden.sow("error of a backend").into_iter().map(|p| p.text).collect();
    let version: String = garden.sow("version of a backend").into_iter().take(3).map(|p| p.text).collect::<Vec<_>>().join(" ");
    Backend::start(move |path, body| {
        let good =
            |data: Value| (200, json!({"status": "success", "data": data, "warnings": warnings, "infos": warnings}).to_string());
        if body.contains("boom") {
            return (400, json!({"status": "error", "errorType": "bad_data", "error": errors.join(" ; ")}).to_string());
        }
        if body.contains("crash") {
            return (500, format!("<html>{}</html>", errors.join("\n")));
        }
        let (start, end) = (form(body, "start").unwrap_or(0.0), form(body, "end").unwrap_or(0.0));
        let step = form(body, "step").unwrap_or(60.0).max(1.0);
        let times = || (0..200).map(move |n| start + f64::from(n) * step).take_while(move |at| *at <= end);
        match path.split('?').next().unwrap_or_default().trim_start_matches("/api/v1/") {
            "query" => good(
                json!({"resultType": "vector", "result": series.iter().map(|s| json!({"metric": s, "value": [end.max(form(body, "time").unwrap_or(1.0)), "3"]})).collect::<Vec<_>>()}),
            ),
            "query_range" => good(
                json!({"resultType": "matrix", "result": series.iter().map(|s| json!({"metric": s, "values": times().map(|at| json!([at, "3"])).collect::<Vec<_>>()})).collect::<Vec<_>>()}),
            ),
            "series" => good(json!(series)),
            "labels" => good(json!(["__name__", "instance", "job", "note", "password"])),
            "metadata" => good(json!(helps)),
            "query_exemplars" => good(
                json!([{"seriesLabels": series[0], "exemplars": series.iter().map(|s| json!({"labels": s, "value": "1", "timestamp": end})).collect::<Vec<_>>()}]),
            ),
            "rules" => good(json!({"groups": [{"name": values[0], "file": values[1], "rules": rules}]})),
            "alerts" => good(json!({"alerts": alerts})),
            "targets" => good(json!({"activeTargets": targets})),
            "status/buildinfo" => good(json!({"version": version})),
            "label/__name__/values" => good(json!(["canary_series", "up"])),
            "label/password/values" => good(json!([password])),
            other if other.starts_with("label/") => good(json!(values)),
            _ => (404, json!({"status": "error", "errorType": "not_found", "error": errors.join(" ; ")}).to_string()),
        }
    })
}

/// Everything the binary said, by who said it.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Vec<(String, String)>);

impl Heard {
    pub(crate) fn add(&mut self, who: impl Into<String>, said: impl Into<String>) {
        self.0.push((who.into(), said.into()));
    }

    /// What was said, and what it means once escapes, percent signs and base64 are undone.
    fn readings(text: &str) -> String {
        let mut all = text.to_owned();
        for line in text.lines() {
            let line = line.strip_prefix("data: ").unwrap_or(line);
            if let Ok(value) = serde_json::from_str::<Value>(line) {
                strings(&value, &mut all);
            }
        }
        let runs: Vec<String> = all
            .split(|c: char| !(c.is_ascii_alphanumeric() || "+/-_=".contains(c)))
            .filter(|run| run.len() >= 16)
            .map(str::to_owned)
            .collect();
        for run in runs {
            let bare = run.trim_end_matches('=');
            for decoded in [URL_SAFE_NO_PAD.decode(bare), STANDARD_NO_PAD.decode(bare)].into_iter().flatten() {
                all.push('\n');
                all.push_str(&String::from_utf8_lossy(&decoded));
            }
        }
        let unescaped = percent_decoded(&all);
        all.push_str(&unescaped);
        all
    }

    /// What of the garden can be read in what was said.
    pub(crate) fn leaks(&self, garden: &Garden) -> BTreeSet<String> {
        let mut leaks = BTreeSet::new();
        for (who, said) in &self.0 {
            let all = Self::readings(said);
            // What a client wrote into the frame of the protocol comes back to that client alone, in the error about it.
            let own_frame = ["the OTLP door on", "header that does not agree", "resources/read", "malformed request"];
            let echo = own_frame.iter().any(|frame| who.starts_with(frame)) || who.contains("upload {}") || who.ends_with(" {}");
            for (place, plant) in &garden.planted {
                // Addresses are what an operator looks for in a log.
                if plant.class == "ip" && who == "the server's log" {
                    continue;
                }
                if echo && matches!(place.as_str(), "argument of a caller" | "request to the OTLP door") {
                    continue;
                }
                for hidden in &plant.hidden {
                    // Many megabytes are searched for hundreds of words.
                    if let Some(at) = memchr::memmem::find(all.as_bytes(), hidden.as_bytes()) {
                        let around: String = all[..at].chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect();
                        leaks.insert(format!("{} of '{place}' in {who}: …{around}»{hidden}«", plant.class));
                    }
                }
            }
        }
        leaks
    }
}

fn strings(value: &Value, into: &mut String) {
    match value {
        Value::String(text) => {
            into.push('\n');
            into.push_str(text);
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, into)),
        Value::Object(members) => {
            for (name, member) in members {
                into.push('\n');
                into.push_str(name);
                strings(member, into);
            }
        }
        _ => {}
    }
}

pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 16).ok());
        match (first, digits) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (plain, _) => bytes.push(*plain),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const TABLES: [&str; 5] = ["otel_logs", "otel_traces", "otel_metrics_gauge", "otel_metrics_sum", "otel_metrics_histogram"];

/// Every tool, with arguments that make it show as much as it can.
fn questions(names: &[String]) -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("list_sources", json!({})),
        ("list_sources", json!({"source": "prom"})),
        ("get_service_health", json!({"window": "1h", "limit": 100})),
        ("get_service_health", json!({"service": "checkout", "window": "1h"})),
        ("get_service_health", json!({"source": "prom"})),
        ("list_services", json!({"window": "1h", "limit": 500})),
        ("list_services", json!({"limit": 5})),
        ("list_services", json!({"source": "prom", "limit": 500})),
        ("query_logs", json!({"window": "1h", "limit": 200, "attributes": true})),
        ("query_logs", json!({"window": "1h", "limit": 10})),
        ("query_logs", json!({"window": "1h", "limit": 200, "service": "checkout"})),
        ("query_logs", json!({"window": "1h", "count_by": ["service"]})),
        ("query_logs", json!({"window": "1h", "count_by": ["note"], "limit": 200})),
        ("query_logs", json!({"window": "1h", "count_by": ["db.password", "deploy.note"], "limit": 200})),
        ("query_logs", json!({"window": "1h", "count_by": ["service"], "step": "5m"})),
        ("query_logs", json!({"window": "1h", "labels": {"note": "=~.+"}, "attributes": true, "limit": 200})),
        ("query_logs", json!({"window": "1h", "regex": "(?i)(key|token|password).*", "limit": 200})),
        ("query_logs", json!({"trace_id": TRACE, "window": "1h", "limit": 200})),
        ("log_patterns", json!({"window": "1h", "limit": 100})),
        ("log_patterns", json!({"window": "1h", "limit": 100, "compare": "none", "service": "checkout"})),
        ("query_traces", json!({"window": "1h", "limit": 100})),
        ("query_traces", json!({"window": "1h", "limit": 100, "errors_only": true, "order": "newest"})),
        ("query_traces", json!({"window": "1h", "labels": {"note": "=~.+"}, "limit": 100})),
        ("get_trace", json!({"trace_id": TRACE, "limit": 400})),
        ("get_trace", json!({"trace_id": TRACE, "limit": 3})),
        ("find_metrics", json!({"limit": 200})),
        ("find_metrics", json!({"limit": 200, "source": "prom"})),
        ("find_metrics", json!({"limit": 7})),
        ("find_metrics", json!({"contains": "canary", "service": "checkout"})),
        ("list_alerts", json!({"limit": 200})),
        ("list_alerts", json!({"state": "pending"})),
        ("list_alerts", json!({"service": "shop", "limit": 200})),
        ("query_metrics", json!({"metric": "canary_level", "window": "1h", "limit": 100, "points": true})),
        ("query_metrics", json!({"metric": "canary_level", "group_by": ["note", "password"], "limit": 100})),
        ("query_metrics", json!({"metric": "canary_series", "source": "prom", "limit": 100, "points": true})),
        ("query_metrics", json!({"metric": "canary_series", "source": "prom", "group_by": ["note", "password"], "limit": 100})),
        ("query_metrics", json!({"query": "canary_series", "source": "prom", "limit": 100})),
        ("query_metrics", json!({"query": "label_replace(canary_series, 'x', '$1', 'password', '(.*)')", "source": "prom"})),
        ("query_metrics", json!({"query": "count by (password) (canary_series)", "source": "prom"})),
        ("query_metrics", json!({"query": "boom", "source": "prom"})),
        ("query_metrics", json!({"query": "crash", "source": "prom"})),
        ("query_metrics", json!({"metric": "latency_p95", "source": "prom", "limit": 100})),
        ("query_metrics", json!({"metric": "described_3"})),
        ("find_tools", json!({"query": "what is wrong with the checkout"})),
        ("call_tool", json!({"name": "query_logs", "arguments": {"window": "1h", "limit": 200, "attributes": true}})),
    ];
    for label in ["note", "password", "service", "job", "host.note"] {
        all.push(("find_metrics", json!({"values_of": label, "limit": 200})));
        all.push(("find_metrics", json!({"values_of": label, "limit": 200, "metric": "canary_series", "source": "prom"})));
    }
    for table in TABLES {
        all.push(("sql", json!({"query": format!("SELECT * FROM {table}"), "limit": 1_000})));
    }
    all.extend(statements().into_iter().map(|s| ("sql", json!({"query": s, "limit": 1_000}))));
    // Names that are secrets, where names are asked for.
    for name in names {
        all.push(("get_service_health", json!({"service": name})));
        all.push(("query_logs", json!({"service": name, "window": "1h"})));
        all.push(("query_metrics", json!({"metric": name})));
        all.push(("query_traces", json!({"operation": name})));
        all.push(("sql", json!({"query": format!("SELECT '{name}' FROM nowhere")})));
        all.push(("sql", json!({"query": format!("SELECT \"{name}\" FROM otel_logs")})));
        all.push(("query_logs", json!({"window": name})));
        all.push(("query_logs", json!({"regex": format!("({name}")})));
        all.push(("query_metrics", json!({"query": format!("sum({name}{{"), "source": "prom"})));
        all.push(("query_logs", json!({name: "x"})));
        all.push(("list_sources", json!({"source": name})));
        all.push(("get_trace", json!({"trace_id": name})));
        all.push(("query_logs", json!({"cursor": name})));
    }
    all
}

/// SQL that takes text apart, gives it other names, or has the engine say it in an error.
fn statements() -> Vec<&'static str> {
    vec![
        "SELECT LogAttributes['db.password'] AS x, LogAttributes['note'] AS y FROM otel_logs",
        "SELECT SpanAttributes['db.password'] AS x FROM otel_traces",
        "SELECT Attributes['password'] AS x FROM otel_metrics_gauge",
        "SELECT map_values(LogAttributes) AS x FROM otel_logs",
        "SELECT reverse(reverse(Body)) AS x FROM otel_logs",
        "SELECT substr(Body, 5) AS x FROM otel_logs",
        "SELECT concat(substr(Body, 1, 9), substr(Body, 10)) AS x FROM otel_logs",
        "SELECT replace(replace(Body, '_', '~'), '~', '_') AS x FROM otel_logs",
        "SELECT upper(Body) AS x, initcap(Body) AS y FROM otel_logs",
        "SELECT split_part(Body, ' ', 3) AS x FROM otel_logs",
        "SELECT regexp_match(Body, '[A-Za-z0-9]{16,}') AS x FROM otel_logs",
        "SELECT max(Body) AS x, min(Body) AS y FROM otel_logs",
        "SELECT make_array(min(Body), max(Body)) AS x FROM otel_logs",
        "SELECT concat(first_value(SpanName), '|', last_value(SpanName)) AS x FROM otel_traces",
        "SELECT Events.Name AS x, Events.Attributes AS y FROM otel_traces",
        "SELECT Links.TraceState AS x, Links.Attributes AS y FROM otel_traces",
        "SELECT Exemplars.FilteredAttributes AS x FROM otel_metrics_gauge",
        "SELECT ServiceName, count(*) AS n FROM otel_logs GROUP BY ServiceName",
        "SELECT CAST(Body AS BIGINT) AS x FROM otel_logs",
        "SELECT arrow_cast(Body, 'Int64') AS x FROM otel_logs",
        "SELECT to_timestamp(Body) AS x FROM otel_logs",
        "SELECT CAST(ServiceName AS DOUBLE) AS x FROM otel_logs",
        "SELECT regexp_like('x', Body) AS x FROM otel_logs WHERE Body LIKE '%(%'",
        "SELECT date_part(Body, now()) AS x FROM otel_logs",
    ]
}

fn settings(prometheus: &str, dead: &str, home_secret: &str) -> String {
    format!(
        "limits: {{address: {{per_second: 100000, burst: 100000}}, tool: {{per_second: 100000, burst: 100000}}, calls_per_second: 100000, burst: 100000, tokens_per_day: 0, answer: 4MiB}}\n\
         log: {{level: 'debug'}}\n\
         sources:\n- {{name: prom, kind: prometheus, url: '{prometheus}', allow_addresses: [loopback], auth: {{bearer: '{home_secret}'}}}}\n\
         - {{name: gone, kind: prometheus, url: '{dead}', allow_addresses: [loopback], auth: {{basic: {{user: ana, password: '{home_secret}'}}}}}}\n"
    )
}

fn send(server: &Server, path: &str, body: &Value) {
    let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
    let reply = post(server.otlp, path, &headers, body.to_string().as_bytes());
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
}

/// Asks every tool everything, and goes on with the cursors it is given.
fn tools(visitor: &Visitor, names: &[String], heard: &mut Heard) -> usize {
    let mut answered = 0;
    for (tool, arguments) in questions(names) {
        let mut arguments = arguments;
        for page in 0..4 {
            let reply = visitor.call(tool, &arguments);
            answered += usize::from(reply.status == 200 && reply.json()["result"].is_object());
            let next = reply.json().pointer("/result/structuredContent/next").and_then(Value::as_str).map(str::to_owned);
            heard.add(format!("{tool} {arguments} page {page}"), format!("{}\n{}", reply.head, reply.body));
            let Some(next) = next else { break };
            arguments["cursor"] = json!(next);
        }
    }
    answered
}

/// A tool that is in the catalogue and in no question was not looked at; one in a question that is not there, in vain.
fn every_tool_was_asked(visitor: &Visitor) {
    let listed = visitor.ask("tools/list", &json!({})).json();
    let listed = listed["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned());
    // These two are there while others are hidden from the list; they are asked in any case.
    let listed: BTreeSet<String> = listed.chain(["find_tools", "call_tool"].map(str::to_owned)).collect();
    let asked: BTreeSet<String> = questions(&[]).into_iter().map(|(tool, _)| tool.to_owned()).collect();
    assert_eq!(asked, listed, "the questions of this test and the catalogue differ");
}

/// Everything but tools: lists, resources, prompts, completions, refusals.
fn others(visitor: &Visitor, names: &[String], heard: &mut Heard) {
    let mut ask = |method: &str, params: Value| {
        let reply = visitor.ask(method, &params);
        heard.add(format!("{method} {params}"), format!("{}\n{}", reply.head, reply.body));
    };
    for method in ["tools/list", "resources/list", "resources/templates/list", "prompts/list", "server/discover"] {
        ask(method, json!({}));
    }
    for uri in ["portcullis://guide", "portcullis://sources", "portcullis://schema/sql", "portcullis://service/checkout"] {
        ask("resources/read", json!({"uri": uri}));
    }
    for prefix in ["", "c", "u", "g", "-"] {
        let argument = json!({"name": "service", "value": prefix});
        ask("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "write_postmortem"}, "argument": argument}));
        let argument = json!({"name": "name", "value": prefix});
        ask(
            "completion/complete",
            json!({"ref": {"type": "ref/resource", "uri": "portcullis://service/{name}"}, "argument": argument}),
        );
    }
    for name in names {
        let encoded: String = name.bytes().fold(String::new(), |mut text, b| {
            write!(text, "%{b:02X}").unwrap();
            text
        });
        ask("resources/read", json!({"uri": format!("portcullis://service/{encoded}")}));
        ask("resources/read", json!({"uri": format!("portcullis://{encoded}")}));
        for prompt in ["write_postmortem", "investigate_incident", "explain_slow_request", name] {
            ask("prompts/get", json!({"name": prompt, "arguments": {"service": name}}));
            ask("prompts/get", json!({"name": prompt, "arguments": {"symptom": name}}));
        }
        ask("tools/call", json!({"name": name, "arguments": {}}));
        ask(name, json!({}));
        ask(
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": name, "value": name}}),
        );
    }
}

/// The same in a session, with progress and log messages asked for.
fn in_a_session(visitor: &Visitor, heard: &mut Heard) {
    let session = visitor.session(&json!({}));
    session.ask("logging/setLevel", &json!({"level": "debug"}));
    for (tool, arguments) in questions(&[]) {
        let reply = session.ask("tools/call", &json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": "p"}}));
        heard.add(format!("session {tool} {arguments}"), reply.body);
    }
}

/// What the OTLP door says of requests it does not take.
fn door(server: &Server, plants: &[Plant], heard: &mut Heard) {
    for plant in plants {
        let quoted = json!(plant.text).to_string();
        let bodies = [
            format!("{{\"resourceLogs\": {quoted}}}"),
            format!("{{\"resourceLogs\": [{{{quoted}: 1}}]}}"),
            format!("{{\"resourceLogs\": [{{\"scopeLogs\": [{{\"logRecords\": [{{\"timeUnixNano\": {quoted}}}]}}]}}]}}"),
            format!(
                "{{\"resourceLogs\": [{{\"scopeLogs\": [{{\"logRecords\": [{{\"traceId\": {quoted}, \"severityNumber\": {quoted}}}]}}]}}]}}"
            ),
            format!("{quoted} {quoted}"),
        ];
        for body in bodies {
            for kind in ["application/json", "application/x-protobuf"] {
                let headers = [("Content-Type".to_owned(), kind.to_owned())];
                let reply = post(server.otlp, "/v1/logs", &headers, body.as_bytes());
                heard.add(format!("the OTLP door on {body}"), format!("{}\n{}", reply.head, reply.body));
            }
        }
    }
}

/// What the command line says to its operator.
fn commands(home: &Home, when: &str, heard: &mut Heard) {
    let lines: Vec<Vec<&str>> = vec![
        vec!["tools"],
        vec!["tools", "--json"],
        vec!["config", "show"],
        vec!["config", "check"],
        vec!["doctor"],
        vec!["doctor", "--json"],
        vec!["call", "list_sources"],
        vec!["call", "list_sources", "--json"],
        vec!["call", "list_alerts", "--json"],
        vec!["call", "query_logs", "window=1h", "limit=200", "attributes=true"],
        vec!["call", "query_logs", "window=1h", "limit=200", "attributes=true", "--json"],
        vec!["call", "list_services", "window=1h", "limit=500"],
        vec!["call", "query_metrics", "query=boom", "source=prom"],
        vec!["call", "sql", "query=SELECT LogAttributes['db.password'] AS x, Body FROM otel_logs", "--json"],
        vec!["audit", "query", "--json", "--limit", "100000"],
        vec!["audit", "export", "--format", "ocsf"],
        vec!["audit", "export", "--format", "csv"],
        vec!["audit", "stats"],
        vec!["access", "review", "--all"],
        vec!["key", "list"],
    ];
    for line in lines {
        let output = home.run(&line);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        heard.add(format!("portcullis {} ({when})", line.join(" ")), text);
    }
}

#[test]
fn no_secret_of_a_backend_comes_out_anywhere() {
    let mut garden = Garden::new();
    let prometheus = prometheus(&mut garden);
    let home_secret = garden.plain("credential in the configuration");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = Home::new(&settings(&prometheus.url, &format!("http://{gone}"), &home_secret));
    let key = home.key(&[]);
    let hidden = Plant { class: "API key", text: key.clone(), hidden: vec![key.split('_').nth(2).unwrap().to_owned()] };
    let server = Server::start_in(home);
    for (path, body) in
        [("/v1/logs", logs(&mut garden)), ("/v1/traces", traces(&mut garden)), ("/v1/metrics", metrics(&mut garden))]
    {
        send(&server, path, &body);
    }
    garden.planted.push(("Authorization header".into(), hidden));
    // What a caller writes himself: it must not be repeated to him or kept either.
    let written = garden.sow("argument of a caller");
    let names: Vec<String> = written.iter().filter(|p| !p.text.contains('\n')).map(|p| p.text.clone()).collect();

    let mut heard = Heard::default();
    let visitor = Visitor::new(&server, &key);
    let answered = tools(&visitor, &names, &mut heard);
    others(&visitor, &names, &mut heard);
    in_a_session(&visitor, &mut heard);
    door(&server, &garden.sow("request to the OTLP door"), &mut heard);
    for plant in &written {
        let body = format!("{{\"jsonrpc\": \"2.0\", {}", json!(plant.text));
        let reply = visitor.send(modern_headers("list_sources"), body.as_bytes());
        heard.add("malformed request", format!("{}\n{}", reply.head, reply.body));
        let header = plant.text.replace('\n', " ");
        let reply =
            visitor.send(modern_headers(&header), crate::server::modern("list_sources", &json!({})).to_string().as_bytes());
        heard.add("header that does not agree", format!("{}\n{}", reply.head, reply.body));
    }
    commands(&server.home, "beside a server", &mut heard);
    heard.add("the server's log", server.log());
    every_tool_was_asked(&visitor);
    let home = server.kill();
    commands(&home, "alone", &mut heard);
    for entry in std::fs::read_dir(home.data().join("audit")).unwrap() {
        let path = entry.unwrap().path();
        heard.add(format!("{}", path.display()), String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned());
    }

    let everything: String = heard.0.iter().map(|(_, said)| said.as_str()).collect();
    println!("{} planted, {answered} tool answers, {} outputs, {} bytes", garden.planted.len(), heard.0.len(), everything.len());
    assert!(answered > 100, "the tools did not answer: {answered}");
    for mark in
        ["[redacted:github-token]", "[redacted:private-key]", "[redacted:jwt]", "[email:", "[ip:", "[card:", "[iban:", "[phone:"]
    {
        assert!(everything.contains(mark), "{mark} is nowhere: was anything shown at all?");
    }
    let leaks = heard.leaks(&garden);
    let shown: Vec<&String> = leaks.iter().take(500).collect();
    assert!(leaks.is_empty(), "{} leaks: {shown:#?}", leaks.len());
    assert!(intact(&home));
}

#[test]
fn no_condition_tells_what_a_secret_is() {
    let server = Server::start_in(Home::new(&settings("http://127.0.0.1:9", "http://127.0.0.1:9", "unused")));
    let key = server.home.key(&[]);
    std::thread::sleep(std::time::Duration::from_millis(900));
    let visitor = Visitor::new(&server, &key);
    let mut dice = Dice(77);
    let token = format!("{}{}{}", "gh", "p_", dice.of(LETTERS, 36));
    assert_eq!(server.send_log("checkout", 17, &format!("needle one {token} end")).status, 200);
    let body = json!({"resourceLogs": [{"resource": resource("checkout", vec![]), "scopeLogs": [{"logRecords": [{
        "timeUnixNano": now_nanos().to_string(), "body": {"stringValue": "needle two"}, "attributes": [text_attribute("db.password", "Tiger4711x")]}]}]}]});
    send(&server, "/v1/logs", &body);
    let total = |arguments: Value| -> u64 {
        let mut arguments = arguments;
        arguments["window"] = json!("1h");
        let reply = visitor.call("query_logs", &arguments).json();
        let result = &reply["result"]["structuredContent"];
        result.pointer("/total").and_then(Value::as_u64).unwrap_or_else(|| panic!("{reply:#}"))
    };
    let rows = |condition: &str| -> String {
        let reply =
            visitor.call("sql", &json!({"query": format!("SELECT count(*) AS n FROM otel_logs WHERE {condition}")})).json();
        reply.pointer("/result/structuredContent/rows/0/0").map_or_else(|| panic!("{reply:#}"), Value::to_string)
    };
    let other = json!({"resourceLogs": [{"resource": resource("checkout", vec![]), "scopeLogs": [{"logRecords": [{
        "timeUnixNano": now_nanos().to_string(), "body": {"stringValue": "another one"}, "attributes": [text_attribute("db.password", "Aardvark12y")]}]}]}]});
    send(&server, "/v1/logs", &other);
    for (by, step) in [
        (json!(["db.password"]), None),
        (json!(["service", "db.password"]), None),
        (json!(["db.password"]), Some("10m")),
        (json!(["db.password", "severity"]), Some("10m")),
    ] {
        let mut arguments = json!({"window": "1h", "count_by": by, "limit": 50});
        if let Some(step) = step {
            arguments["step"] = json!(step);
        }
        let reply = visitor.call("query_logs", &arguments);
        assert!(reply.body.contains("[redacted:"), "{}", reply.body);
        assert!(!reply.body.contains("Tiger4711x") && !reply.body.contains("Aardvark12y"), "{}", reply.body);
        // Two secrets are one group: neither order nor number tells them apart.
        let groups = reply.json().pointer("/result/structuredContent/groups").and_then(Value::as_array).cloned().unwrap();
        let marked: Vec<&Value> =
            groups.iter().filter(|g| g["key"]["db.password"].as_str().is_some_and(|v| v.starts_with("[redacted:"))).collect();
        assert_eq!((marked.len(), &marked[0]["count"]), (1, &json!(2)), "{}", reply.body);
    }
    server.home.audited(|r| r["tool"] == "query_logs" && r["decision"] == "allow");
    let start = &token[..12];
    assert_eq!(total(json!({"text": "needle"})), 2, "what is no secret is found");
    assert_eq!(rows("Body LIKE '%needle%'"), "2");
    assert_eq!(total(json!({"text": start})), 0);
    assert_eq!(total(json!({"regex": start})), 0);
    assert_eq!(total(json!({"regex": format!("{start}|needle two")})), 1, "an alternative does not tell");
    assert_eq!(total(json!({"text": "redacted"})), 0, "nor does a mark");
    for value in ["Tiger4711x", "=~Tiger.*", "=~.{10}"] {
        assert_eq!(total(json!({"labels": {"db.password": value}})), 0, "{value}");
    }
    assert_eq!(total(json!({"text": "two", "labels": {"db.password": "!=Tiger4711x"}})), 1);
    assert_eq!(total(json!({"text": "two", "labels": {"db.password": "!~T.*"}})), 1);
    for condition in [
        format!("Body LIKE '%{start}%'"),
        format!("contains(Body, '{start}')"),
        format!("strpos(Body, '{start}') > 0"),
        format!("regexp_like(Body, '{start}')"),
        format!("substr(Body, 12, 4) = '{}'", &token[..4]),
        format!("reverse(Body) LIKE '%{}%'", start.chars().rev().collect::<String>()),
        "LogAttributes['db.password'] = 'Tiger4711x'".to_owned(),
        "LogAttributes['db.password'] LIKE 'T%'".to_owned(),
        "character_length(LogAttributes['db.password']) = 10".to_owned(),
        "ascii(LogAttributes['db.password']) = 84".to_owned(),
    ] {
        assert_eq!(rows(&condition), "0", "{condition}");
    }
}

#[test]
fn the_environment_of_the_server_is_not_shown() {
    let home = Home::new("");
    let secret = "Tiger8812734";
    let output = Command::new(BINARY)
        .args(["--config", &home.config.display().to_string(), "doctor"])
        .env("SHOP_PASSWORD", secret)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !said.contains(secret), "{said}");
}
