//! Replays a real incident day: logs, spans and metrics of the Train Ticket shop with 17 injected faults, over OTLP.
//!
//! Guards against a store and tools that only agree with data we made up: every figure is compared with the files.
//! Skips with a message where the data is not there. Must not tune what is asked for to a single fault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portcullis_model::{Timestamp, parse_instant};
use serde_json::{Value, json};

use crate::server::{Home, Server, post};

const ARCHIVE: &str = "trainticket-2023-01-30.tar.xz";
const FOLDER: &str = "rca_data/2023-01-30";
const FAULTS: &str = "2023-01-30-fault_list.json";
/// Records per request; the largest come to a few MiB, the door takes 16.
const BATCH: usize = 2_000;
const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// What every fault is asked about, before and after its injection: its files end about two minutes after. What comes before
/// the window holds earlier faults, some of them on the same service.
const WINDOWS: [(Duration, Duration); 3] = [
    (Duration::from_secs(30), Duration::from_mins(2)),
    (Duration::from_mins(1), Duration::from_secs(90)),
    (Duration::from_mins(3), Duration::from_mins(2)),
];

/// Metric columns, as a collector's kubelet receiver names and scales them. The rates are shares of the pod's limits.
const METRICS: [(&str, &str, &str, f64); 7] = [
    ("CpuUsage(m)", "k8s.pod.cpu.usage", "{cpu}", 1e-3),
    ("CpuUsageRate(%)", "k8s.pod.cpu_limit_utilization", "1", 0.01),
    ("MemoryUsage(Mi)", "k8s.pod.memory.working_set", "By", 1_048_576.0),
    ("MemoryUsageRate(%)", "k8s.pod.memory_limit_utilization", "1", 0.01),
    ("NetworkReceiveBytes", "trainticket.pod.network.receive", "By/s", 1.0),
    ("NetworkTransmitBytes", "trainticket.pod.network.transmit", "By/s", 1.0),
    ("PodWorkload(Ops)", "trainticket.pod.workload", "{request}/s", 1.0),
];

struct Log {
    pod: String,
    at: i64,
    level: String,
    body: String,
    trace_id: String,
    span_id: String,
}

struct Span {
    pod: String,
    trace_id: String,
    id: String,
    parent: String,
    name: String,
    start: i64,
    end: i64,
}

struct Point {
    pod: String,
    metric: usize,
    at: i64,
    value: f64,
}

struct Fault {
    at: i64,
    pod: String,
    kind: String,
}

/// The day as the files have it, all times later by the same number of whole days.
struct Day {
    logs: Vec<Log>,
    spans: Vec<Span>,
    points: Vec<Point>,
    faults: Vec<Fault>,
    /// First and last moment of a log or span.
    first: i64,
    last: i64,
}

#[derive(Default)]
struct Sent {
    requests: usize,
    bytes: usize,
    put_off: usize,
}

/// A CSV file with a header; fields may be quoted.
struct Csv {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Csv {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut rows = Vec::new();
        let mut row = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
                unquote(quoted)
            } else {
                let end = rest.find([',', '\n']).unwrap_or(rest.len());
                (rest[..end].trim_end_matches('\r').to_owned(), &rest[end..])
            };
            row.push(field);
            rest = after.strip_prefix(',').unwrap_or_else(|| {
                rows.push(std::mem::take(&mut row));
                after.strip_prefix('\r').unwrap_or(after).strip_prefix('\n').unwrap_or_default()
            });
        }
        let columns = rows.remove(0);
        assert!(rows.iter().all(|row| row.len() == columns.len()), "{} has rows of another length", path.display());
        Self { columns, rows }
    }

    fn column(&self, name: &str) -> usize {
        self.columns.iter().position(|c| c == name).unwrap_or_else(|| panic!("no column {name} in {:?}", self.columns))
    }
}

/// A field up to its closing quote, and what follows.
fn unquote(text: &str) -> (String, &str) {
    let mut from = 0;
    while let Some(quote) = text[from..].find('"').map(|at| from + at) {
        if !text[quote + 1..].starts_with('"') {
            return (text[..quote].replace("\"\"", "\""), &text[quote + 1..]);
        }
        from = quote + 2;
    }
    panic!("a quote is not closed: {}", text.chars().take(80).collect::<String>());
}

/// `ts-food-service` of `ts-food-service-f5756978c-6sb8t`: the deployment of a pod.
fn service(pod: &str) -> &str {
    let parts = pod.rsplitn(3, '-').collect::<Vec<_>>();
    assert_eq!(parts.len(), 3, "{pod} is not the name of a pod");
    parts[2]
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn read_logs(folder: &Path) -> Vec<Log> {
    let mut logs = Vec::new();
    for file in files(&folder.join("log")) {
        let csv = Csv::read(&file);
        let [stamp, nanos, pod, trace, span, log] =
            ["Timestamp", "TimeUnixNano", "PodName", "TraceID", "SpanID", "Log"].map(|name| csv.column(name));
        for mut row in csv.rows {
            // Some rows have the overflow of Go's zero time as nanoseconds; their time stamp is right, in UTC without a Z.
            let at = row[nanos].parse::<i64>().unwrap();
            let written = || parse_instant(&format!("{}Z", row[stamp].trim_end_matches('Z')), Timestamp::default());
            let at = if at > 0 { at } else { written().unwrap().as_nanos() };
            let line: Value = serde_json::from_str(&row[log]).unwrap();
            let body = line["log"].as_str().unwrap().trim_end().to_owned();
            let level = body.split_whitespace().nth(1).unwrap().to_owned();
            let [pod, trace_id, span_id] = [pod, trace, span].map(|column| std::mem::take(&mut row[column]));
            logs.push(Log { pod, at, level, body, trace_id, span_id });
        }
    }
    logs
}

fn read_spans(folder: &Path) -> Vec<Span> {
    let mut spans = Vec::new();
    for file in files(&folder.join("trace")) {
        let csv = Csv::read(&file);
        let [trace, span, parent, pod, name, start, end] =
            ["TraceID", "SpanID", "ParentID", "PodName", "OperationName", "StartTimeUnixNano", "EndTimeUnixNano"]
                .map(|name| csv.column(name));
        for mut row in csv.rows {
            let (start, end) = (row[start].parse().unwrap(), row[end].parse().unwrap());
            let [pod, trace_id, id, parent, name] =
                [pod, trace, span, parent, name].map(|column| std::mem::take(&mut row[column]));
            let parent = if parent == "root" { String::new() } else { parent };
            spans.push(Span { pod, trace_id, id, parent, name, start, end });
        }
    }
    spans
}

/// The points up to `last`; the files run on to midnight.
fn read_points(folder: &Path, last: i64) -> Vec<Point> {
    let mut points = Vec::new();
    for file in files(&folder.join("metric")).into_iter().filter(|file| !file.ends_with("front_service.csv")) {
        let csv = Csv::read(&file);
        let (time, pod) = (csv.column("TimeStamp"), csv.column("PodName"));
        let columns = METRICS.map(|(column, ..)| csv.column(column));
        for row in &csv.rows {
            let at = row[time].parse::<i64>().unwrap() * SECOND;
            for (metric, column) in columns.iter().enumerate().filter(|_| at <= last) {
                let value = row[*column].parse::<f64>().unwrap() * METRICS[metric].3;
                // Not a number is how the files say that nothing was measured.
                if value.is_finite() {
                    points.push(Point { pod: row[pod].clone(), metric, at, value });
                }
            }
        }
    }
    points
}

/// When each fault began. In four of them text and stamp differ by a minute; the spans side with the stamp.
fn read_faults(folder: &Path) -> Vec<Fault> {
    let list: Value = serde_json::from_str(&std::fs::read_to_string(folder.join(FAULTS)).unwrap()).unwrap();
    let fault = |fault: &Value| Fault {
        at: fault["inject_timestamp"].as_str().unwrap().parse::<i64>().unwrap() * SECOND,
        pod: fault["inject_pod"].as_str().unwrap().to_owned(),
        kind: fault["inject_type"].as_str().unwrap().to_owned(),
    };
    let mut faults: Vec<Fault> =
        list.as_object().unwrap().values().flat_map(|hour| hour.as_array().unwrap().iter().map(fault)).collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

impl Day {
    /// Moves the day by whole days until it ended at least an hour ago: the store's retention is shorter than its age, and
    /// the hours written inside the log lines stay right.
    fn read(folder: &Path) -> Self {
        let (mut logs, mut spans, mut faults) = (read_logs(folder), read_spans(folder), read_faults(folder));
        let times = || logs.iter().map(|log| log.at).chain(spans.iter().map(|span| span.start));
        let (first, last) = (times().min().unwrap(), times().max().unwrap());
        let mut points = read_points(folder, last);
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        let shift = (now - 3_600 * SECOND - last) / DAY * DAY;
        for log in &mut logs {
            log.at += shift;
        }
        for point in &mut points {
            point.at += shift;
        }
        for fault in &mut faults {
            fault.at += shift;
        }
        for span in &mut spans {
            span.start += shift;
            span.end += shift;
        }
        Self { logs, spans, points, faults, first: first + shift, last: last + shift }
    }

    /// A window that holds everything.
    fn window(&self) -> Value {
        window(self.first - 3 * 3_600 * SECOND, self.last + 600 * SECOND)
    }
}

fn window(start: i64, end: i64) -> Value {
    json!({"start": start.to_string(), "end": end.to_string()})
}

/// `base` with the members of `more`.
fn with(base: &Value, more: &Value) -> Value {
    let mut all = base.as_object().unwrap().clone();
    all.extend(more.as_object().unwrap().clone());
    Value::Object(all)
}

fn resource(pod: &str) -> Value {
    json!({"attributes": [
        {"key": "service.name", "value": {"stringValue": service(pod)}},
        {"key": "k8s.pod.name", "value": {"stringValue": pod}},
    ]})
}

fn log_record(log: &Log) -> Value {
    let severity = match log.level.as_str() {
        "INFO" => 9,
        "WARN" => 13,
        "ERROR" => 17,
        other => panic!("a level that was not there before: {other}"),
    };
    json!({"timeUnixNano": log.at.to_string(), "severityNumber": severity, "severityText": log.level,
        "body": {"stringValue": log.body}, "traceId": log.trace_id, "spanId": log.span_id})
}

/// The files have no span kinds; the names are those of the OpenTelemetry agent for Java, which gives them these.
fn span_record(span: &Span) -> Value {
    let kind = match span.name.as_str() {
        name if name.starts_with('/') => 2,
        name if name.starts_with("HTTP ") || name.contains(" ts.") => 3,
        _ => 1,
    };
    json!({"traceId": span.trace_id, "spanId": span.id, "parentSpanId": span.parent, "name": span.name, "kind": kind,
        "startTimeUnixNano": span.start.to_string(), "endTimeUnixNano": span.end.to_string()})
}

fn metric_records(points: &[&Point]) -> Value {
    let mut metrics: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for point in points {
        let value = json!({"timeUnixNano": point.at.to_string(), "asDouble": point.value});
        metrics.entry(point.metric).or_default().push(value);
    }
    let metric = |(metric, points): (usize, Vec<Value>)| {
        let (_, name, unit, _) = METRICS[metric];
        json!({"name": name, "unit": unit, "gauge": {"dataPoints": points}})
    };
    metrics.into_iter().map(metric).collect()
}

/// Sends records grouped by pod, and sees every request acknowledged with nothing rejected.
fn send<T>(server: &Server, signal: &str, names: [&str; 3], all: &[T], pod: fn(&T) -> &str, records: fn(&[&T]) -> Value) -> Sent {
    let mut sent = Sent::default();
    for batch in all.chunks(BATCH) {
        let mut pods: BTreeMap<&str, Vec<&T>> = BTreeMap::new();
        for record in batch {
            pods.entry(pod(record)).or_default().push(record);
        }
        let of_pod =
            |(pod, of_pod): (&&str, &Vec<&T>)| json!({"resource": resource(pod), names[1]: [{names[2]: records(of_pod)}]});
        let body = json!({names[0]: pods.iter().map(of_pod).collect::<Vec<_>>()}).to_string();
        sent.bytes += body.len();
        sent.requests += 1;
        let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
        let began = Instant::now();
        let reply = loop {
            let reply = post(server.otlp, &format!("/v1/{signal}"), &headers, body.as_bytes());
            if reply.status != 429 || began.elapsed() > Duration::from_secs(20) {
                break reply;
            }
            sent.put_off += 1;
            std::thread::sleep(Duration::from_millis(500));
        };
        assert_eq!((reply.status, reply.json()), (200, json!({})), "{signal}: {}", reply.body);
    }
    sent
}

fn replay(server: &Server, day: &Day) {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let logs = scope.spawn(|| {
            send(
                server,
                "logs",
                ["resourceLogs", "scopeLogs", "logRecords"],
                &day.logs,
                |log| &log.pod,
                |of_pod| of_pod.iter().map(|log| log_record(log)).collect(),
            )
        });
        let spans = scope.spawn(|| {
            send(
                server,
                "traces",
                ["resourceSpans", "scopeSpans", "spans"],
                &day.spans,
                |span| &span.pod,
                |of_pod| of_pod.iter().map(|span| span_record(span)).collect(),
            )
        });
        let points = scope.spawn(|| {
            send(
                server,
                "metrics",
                ["resourceMetrics", "scopeMetrics", "metrics"],
                &day.points,
                |point| &point.pod,
                metric_records,
            )
        });
        for (what, count, sender) in
            [("log records", day.logs.len(), logs), ("spans", day.spans.len(), spans), ("points", day.points.len(), points)]
        {
            let sent = sender.join().unwrap();
            println!("{count} {what} in {} requests, {} KiB, {} put off", sent.requests, sent.bytes >> 10, sent.put_off);
        }
    });
    println!("replayed in {:.1?}", began.elapsed());
}

/// The structured answer of a tool.
fn ask(server: &Server, key: &str, tool: &str, arguments: &Value) -> Value {
    let reply = server.call(Some(key), tool, arguments);
    assert_eq!(reply.status, 200, "{tool} {arguments}: {}", reply.body);
    let mut answer = reply.json();
    assert_ne!(answer["result"]["isError"], json!(true), "{tool} {arguments}: {answer:#}");
    let structured = answer["result"]["structuredContent"].take();
    assert!(structured.is_object(), "{tool} {arguments}: {answer:#}");
    structured
}

fn tally<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

/// `query_logs` by service.
fn logs_by_service(server: &Server, key: &str, window: &Value) -> BTreeMap<String, u64> {
    let answer = ask(server, key, "query_logs", &with(window, &json!({"count_by": ["service"], "limit": 100})));
    assert_eq!(answer["truncated"], json!(false), "{answer:#}");
    let group = |group: &Value| (group["key"]["service"].as_str().unwrap().to_owned(), group["count"].as_u64().unwrap());
    answer["groups"].as_array().unwrap().iter().map(group).collect()
}

fn rows(server: &Server, key: &str, query: &str) -> Vec<Value> {
    let answer = ask(server, key, "sql", &json!({"query": query, "limit": 1000}));
    assert_eq!(answer["truncated"], json!(false), "{answer:#}");
    answer["rows"].as_array().unwrap().clone()
}

fn totals_are_those_of_the_files(server: &Server, key: &str, day: &Day) {
    let all = day.window();
    let answer = ask(server, key, "query_logs", &with(&all, &json!({"limit": 1})));
    assert_eq!(answer["total"], json!(day.logs.len()), "{answer:#}");
    let errors = day.logs.iter().filter(|log| log.level == "ERROR").count();
    let answer = ask(server, key, "query_logs", &with(&all, &json!({"limit": 1, "level": "error"})));
    assert_eq!(answer["total"], json!(errors), "{answer:#}");
    for (table, count) in
        [("otel_logs", day.logs.len()), ("otel_traces", day.spans.len()), ("otel_metrics_gauge", day.points.len())]
    {
        assert_eq!(rows(server, key, &format!("SELECT count(*) FROM {table}")), [json!([count])], "{table}");
    }
    assert_eq!(logs_by_service(server, key, &all), tally(day.logs.iter().map(|log| service(&log.pod))));
    for fault in &day.faults {
        let (start, end) = (fault.at, fault.at + 60 * SECOND);
        let inside = day.logs.iter().filter(|log| (start..end).contains(&log.at));
        assert_eq!(logs_by_service(server, key, &window(start, end)), tally(inside.map(|log| service(&log.pod))));
    }
    let spans = rows(server, key, "SELECT ServiceName, count(*) FROM otel_traces GROUP BY ServiceName");
    let spans: BTreeMap<String, u64> =
        spans.iter().map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_u64().unwrap())).collect();
    assert_eq!(spans, tally(day.spans.iter().map(|span| service(&span.pod))));
}

/// Short, middling and long traces come back whole, each with its own log records.
fn traces_are_whole(server: &Server, key: &str, day: &Day) {
    let sizes = tally(day.spans.iter().map(|span| span.trace_id.as_str()));
    let mut by_size: Vec<(u64, &String)> = sizes.iter().map(|(id, size)| (*size, id)).collect();
    by_size.sort();
    let longest = by_size[by_size.len() - 1].0;
    println!("{} traces of {} to {longest} spans", by_size.len(), by_size[0].0);
    for (size, id) in [by_size[0], by_size[by_size.len() / 2], by_size[by_size.len() - 1]] {
        let answer = ask(server, key, "get_trace", &json!({"trace_id": id, "limit": 400}));
        assert_eq!(answer["total"], json!(size), "{answer:#}");
        let tree = answer["tree"].as_str().unwrap();
        let services: BTreeSet<&str> = day.spans.iter().filter(|s| s.trace_id == *id).map(|s| service(&s.pod)).collect();
        assert!(services.iter().all(|name| tree.contains(name)), "{services:?} are not all in {tree}");
        let stored = rows(server, key, &format!("SELECT SpanId FROM otel_traces WHERE TraceId = '{id}'"));
        let stored: BTreeSet<&str> = stored.iter().map(|row| row[0].as_str().unwrap()).collect();
        let sent: BTreeSet<&str> = day.spans.iter().filter(|s| s.trace_id == *id).map(|s| s.id.as_str()).collect();
        assert_eq!(stored, sent);
        let logs = day.logs.iter().filter(|log| log.trace_id == *id).count();
        let answer = ask(server, key, "query_logs", &with(&day.window(), &json!({"trace_id": id, "limit": 1})));
        assert_eq!(answer["total"], json!(logs), "{answer:#}");
    }
}

/// The metrics of a service with a fault are found by name and by meaning, with the figures of the file.
fn metrics_are_found(server: &Server, key: &str, day: &Day) {
    let fault = day.faults.iter().find(|fault| fault.kind == "cpu_contention").unwrap();
    let name = service(&fault.pod);
    let found = ask(server, key, "find_metrics", &json!({"service": name, "window": "2d"}));
    let names: BTreeSet<&str> = found["metrics"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, METRICS.iter().map(|(_, name, ..)| *name).collect(), "{found:#}");
    let (start, end) = (fault.at - 600 * SECOND, fault.at + 600 * SECOND);
    for (metric, named) in [(METRICS[1].1, 1), ("cpu", 0)] {
        let inside = |point: &&Point| point.pod == fault.pod && point.metric == named && (start..end).contains(&point.at);
        let values: Vec<f64> = day.points.iter().filter(inside).map(|point| point.value).collect();
        let most = values.iter().copied().fold(f64::MIN, f64::max);
        let answer = ask(server, key, "query_metrics", &with(&window(start, end), &json!({"metric": metric, "service": name})));
        println!("{name} {metric}: {}", answer["series"][0]);
        let series = answer["series"].as_array().unwrap();
        assert_eq!(series.len(), 1, "one pod has one series: {answer:#}");
        let shown = series[0]["max"].as_f64().unwrap();
        assert!((shown - most).abs() <= most * 1e-3, "{metric}: the file says {most}: {answer:#}");
    }
}

/// Where the injected service of every fault stands among the suspects of one window, by kind of fault.
type Ranks<'d> = BTreeMap<&'d str, Vec<Option<usize>>>;

fn within(ranks: &[Option<usize>], most: usize) -> usize {
    ranks.iter().flatten().filter(|rank| **rank <= most).count()
}

/// Asks about every fault without naming a service, and prints where the injected one stands among the suspects.
fn ranks<'d>(server: &Server, key: &str, day: &'d Day, (before, after): (Duration, Duration)) -> Ranks<'d> {
    println!("from {before:?} before the injection to {after:?} after it");
    println!("{:<8} {:<15} {:<29} {:>4}  {:>2} suspects, first", "fault", "type", "injected service", "rank", "of");
    let mut ranks: Ranks<'d> = BTreeMap::new();
    for fault in &day.faults {
        let moment = Timestamp::from_nanos(fault.at);
        let asked = window(moment.minus(before).as_nanos(), moment.plus(after).as_nanos());
        let answer = ask(server, key, "get_service_health", &asked);
        let suspects: Vec<&str> =
            answer["suspects"].as_array().into_iter().flatten().map(|suspect| suspect["service"].as_str().unwrap()).collect();
        let rank = suspects.iter().position(|suspect| *suspect == service(&fault.pod)).map(|at| at + 1);
        let words = rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
        let (time, first) = (moment.to_string(), suspects.first().unwrap_or(&"-"));
        println!("{:<8} {:<15} {:<29} {words:>4}  {:>2} {first}", &time[11..19], fault.kind, service(&fault.pod), suspects.len());
        ranks.entry(&fault.kind).or_default().push(rank);
    }
    for (kind, ranks) in &ranks {
        let [first, third, any] = [1, 3, 99].map(|most| within(ranks, most));
        println!("{kind}: {} faults, rank 1: {first}, up to 3: {third}, shown at all: {any}", ranks.len());
    }
    ranks
}

/// A starved processor shows in the spans of the service itself, a delay on its network only between the caller's span and
/// its own. Measured when this was written: delays first in 13, 9 and 12 of 14 (the misses have a handful of calls, or
/// nobody in trouble by its figures), starved services first in 3, 2 and 2 of 3. The bounds lie below that.
fn faults_are_ranked(server: &Server, key: &str, day: &Day) {
    let all: Vec<Ranks<'_>> = WINDOWS.iter().map(|window| ranks(server, key, day, *window)).collect();
    for (ranks, (before, _)) in all.iter().zip(WINDOWS) {
        let (starved, delayed) = (&ranks["cpu_contention"], &ranks["network_delay"]);
        assert!(starved.len() == 3 && within(starved, 3) >= 2, "{before:?}: {starved:?}");
        assert!(delayed.len() == 14 && within(delayed, 1) >= 7 && within(delayed, 3) >= 8, "{before:?}: {delayed:?}");
    }
    let first: usize = all.iter().map(|ranks| within(&ranks["network_delay"], 1)).sum();
    assert!(first >= 28 && within(&all[0]["network_delay"], 1) >= 10, "{first} of 42 delays come first: {all:?}");
}

fn available(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// The archive unpacked, or why it cannot be.
fn unpack() -> Result<tempfile::TempDir, String> {
    let data = std::env::var_os("PORTCULLIS_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let archive = data.join(ARCHIVE);
    if !archive.is_file() {
        return Err(format!("{ARCHIVE} is not in {}; PORTCULLIS_DATA names the folder it is in", data.display()));
    }
    if let Some(missing) = ["tar", "xz"].into_iter().find(|program| !available(program)) {
        return Err(format!("{missing} is not installed"));
    }
    let directory = tempfile::tempdir().unwrap();
    let members = ["log", "trace", "metric", FAULTS].map(|member| format!("./{FOLDER}/{member}"));
    let status = Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(directory.path()).args(&members).status().unwrap();
    assert!(status.success(), "tar could not unpack {}", archive.display());
    Ok(directory)
}

#[test]
fn a_real_day_with_17_faults_is_stored_found_and_explained() {
    let directory = match unpack() {
        Ok(directory) => directory,
        Err(why) => return println!("skipped: {why}"),
    };
    let began = Instant::now();
    let day = Day::read(&directory.path().join(FOLDER));
    assert_eq!(day.faults.len(), 17);
    println!("read in {:.1?}", began.elapsed());
    let home = Home::new("");
    let key = home.key(&[]);
    let server = Server::start_in(home);
    replay(&server, &day);
    totals_are_those_of_the_files(&server, &key, &day);
    traces_are_whole(&server, &key, &day);
    metrics_are_found(&server, &key, &day);
    faults_are_ranked(&server, &key, &day);
    println!("in all {:.1?}", began.elapsed());
}
