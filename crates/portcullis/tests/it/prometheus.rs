//! The road from a question over MCP to a real Prometheus and back: the real binary, the distribution's Prometheus with its
//! node exporter, and two instances of a made-up service, one healthy and one in trouble.
//!
//! Guards that tools say of metrics what the instances served, with the coverage of the source that said it. Skips with a
//! message where Prometheus is not installed. Must not look into the source: only answers count.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Home, Server, skipped};

pub(crate) const PROMETHEUS: &str = "/usr/bin/prometheus";
const NODE_EXPORTER: &str = "/usr/bin/prometheus-node-exporter";
/// Requests per second of each instance.
const RATE: f64 = 10.0;
/// Failed requests per second of the instance in trouble.
const FAILING: f64 = 3.0;

/// What a label whose name says it is a secret holds.
const CREDENTIAL: &str = "Tiger4711x";

/// A child process that ends with the test.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One instance of the made-up service; its thread ends with it.
struct Instance {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread, which waits for the next connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What an instance has done after `elapsed` seconds, in the text format: requests, of which `failing` per second fail and
/// are slow, and how full its table of open files is.
fn exposition(failing: f64, open_files: u32, elapsed: f64) -> String {
    let name = "http_server_request_duration_seconds";
    let mut text = format!("# HELP {name} Duration of HTTP server requests.\n# TYPE {name} histogram\n");
    for (status, per_second, fast) in [("200", RATE - failing, 1.0), ("500", failing, 0.0)] {
        let all = (per_second * elapsed).floor();
        let labels = format!("http_request_method=\"GET\",http_response_status_code=\"{status}\"");
        for (limit, share) in [("0.1", fast), ("1", 1.0), ("+Inf", 1.0)] {
            writeln!(text, "{name}_bucket{{{labels},le=\"{limit}\"}} {}", all * share).unwrap();
        }
        writeln!(text, "{name}_count{{{labels}}} {all}\n{name}_sum{{{labels}}} {}", all * 0.2).unwrap();
    }
    writeln!(text, "# TYPE process_open_fds gauge\nprocess_open_fds {open_files}").unwrap();
    text.push_str("# TYPE process_max_fds gauge\nprocess_max_fds 100\n");
    // A mistake that happens: a credential in a label.
    writeln!(text, "# TYPE shop_session gauge\nshop_session{{region=\"eu\",api_key=\"{CREDENTIAL}\"}} 1").unwrap();
    text
}

fn instance(failing: f64, open_files: u32) -> Instance {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let (end, began) = (ended.clone(), Instant::now());
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming() {
            if end.load(Ordering::SeqCst) {
                return;
            }
            let Ok(mut stream) = stream else { continue };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            // A scrape is one small request.
            let _ = stream.read(&mut [0; 4096]);
            let body = exposition(failing, open_files, began.elapsed().as_secs_f64());
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
            let _ = stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        }
    });
    Instance { address, ended, thread: Some(thread) }
}

fn free_port() -> u16 {
    crate::server::free_port().port()
}

pub(crate) fn start(program: &str, folder: &Path, arguments: &[String]) -> Process {
    let child = Command::new(program).args(arguments).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Process(child.unwrap())
}

/// A Prometheus that scrapes nothing but itself, and its address; `None` where there is no Prometheus.
pub(crate) fn prometheus_of_itself(folder: &Path) -> Option<(Process, String)> {
    if !Path::new(PROMETHEUS).exists() {
        skipped(&format!("{PROMETHEUS} is not installed (package prometheus)"));
        return None;
    }
    let port = free_port();
    let file = folder.join("prometheus.yml");
    let targets = format!("static_configs: [{{targets: ['127.0.0.1:{port}']}}]");
    let config = format!("global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: prometheus\n  {targets}\n");
    std::fs::write(&file, config).unwrap();
    let options = [
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", folder.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    Some((start(PROMETHEUS, folder, &options), format!("http://127.0.0.1:{port}")))
}

/// Everything that runs during the test, and the server that is asked.
struct Stage {
    server: Server,
    key: String,
    /// A key whose owner may see values unredacted.
    granted: String,
    healthy: Instance,
    troubled: Instance,
    _processes: [Process; 2],
    _folder: tempfile::TempDir,
}

fn stage() -> Option<Stage> {
    if let Some(missing) = [PROMETHEUS, NODE_EXPORTER].into_iter().find(|binary| !Path::new(binary).exists()) {
        crate::server::skipped(&format!("{missing} is not installed (packages prometheus and prometheus-node-exporter)"));
        return None;
    }
    let (healthy, troubled) = (instance(0.0, 10), instance(FAILING, 92));
    let (node, port) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    let rules = "groups:\n- name: shop\n  interval: 1s\n  rules:\n  - alert: FilesRunOut\n    expr: process_open_fds / process_max_fds > 0.9\n    labels: {severity: warning}\n    annotations: {summary: 'open files run out'}\n  - alert: InstanceDown\n    expr: up == 0\n";
    std::fs::write(folder.path().join("rules.yml"), rules).unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs:\n- job_name: web\n  static_configs: [{{targets: ['{}', '{}']}}]\n- job_name: node\n  static_configs: [{{targets: ['127.0.0.1:{node}']}}]\n- job_name: prometheus\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n",
        healthy.address, troubled.address
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let exporter = start(NODE_EXPORTER, folder.path(), &[format!("--web.listen-address=127.0.0.1:{node}")]);
    let prometheus = start(
        PROMETHEUS,
        folder.path(),
        &[
            format!("--config.file={}", folder.path().join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ],
    );
    let source = format!("{{name: real, kind: prometheus, url: 'http://127.0.0.1:{port}', allow_addresses: [loopback]}}");
    let home = Home::new(&format!("sources: [{source}]\n"));
    let grant = folder.path().join("grant.cedar");
    let rule = r#"@id("may-see") @unredacted("true") permit(principal in Portcullis::Role::"admin", action == Portcullis::Action::"call", resource);"#;
    std::fs::write(&grant, rule).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", grant.display())).unwrap();
    let key = home.key(&["--role", "reader"]);
    let granted = home.key(&["--role", "admin"]);
    let server = Server::start_in(home);
    Some(Stage { server, key, granted, healthy, troubled, _processes: [exporter, prometheus], _folder: folder })
}

impl Stage {
    /// The structured answer and the text of a tool, or what was refused.
    fn try_ask(&self, tool: &str, arguments: &Value) -> Result<(Value, String), Value> {
        let reply = self.server.call(Some(&self.key), tool, arguments);
        assert_eq!(reply.status, 200, "{tool} {arguments}: {}", reply.body);
        let mut answer = reply.json();
        if answer["result"]["isError"] == json!(true) || !answer["result"]["structuredContent"].is_object() {
            return Err(answer);
        }
        let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned();
        Ok((answer["result"]["structuredContent"].take(), text))
    }

    /// Asks until the answer fits: the first scrapes and rates take a few seconds to come.
    fn ask(&self, tool: &str, arguments: &Value, fits: impl Fn(&Value) -> bool) -> (Value, String) {
        let began = Instant::now();
        loop {
            let answer = self.try_ask(tool, arguments);
            match answer {
                Ok((data, text)) if fits(&data) => {
                    println!("--- {tool} {arguments}\n{text}");
                    assert_eq!(state_of(&data, "real"), "answered", "{tool}: {data:#}");
                    return (data, text);
                }
                answer if began.elapsed() > Duration::from_secs(40) => panic!("{tool} {arguments}: {answer:#?}"),
                _ => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }
}

/// What the coverage says of a source.
fn state_of<'a>(data: &'a Value, source: &str) -> &'a str {
    let entries = data["coverage"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().find(|entry| entry["source"] == source).and_then(|entry| entry["state"].as_str()).unwrap_or("absent")
}

fn rows<'a>(data: &'a Value, name: &str) -> &'a [Value] {
    data[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The figure of the series of one instance.
fn of_instance(data: &Value, instance: &Instance, figure: &str) -> f64 {
    let address = json!(instance.address.to_string());
    let row = rows(data, "series").iter().find(|row| row["labels"]["instance"] == address);
    row.and_then(|row| row[figure].as_f64()).unwrap_or_else(|| panic!("no {figure} of {address} in {data:#}"))
}

#[test]
fn questions_over_mcp_are_answered_from_a_real_prometheus() {
    let Some(stage) = stage() else { return };
    services_and_names(&stage);
    values_are_those_served(&stage);
    alerts_and_health(&stage);
    // The embedded store has nothing, and that is said apart from what Prometheus said.
    let (data, _) = stage.ask("query_metrics", &json!({"metric": "up", "window": "5m"}), |d| !rows(d, "series").is_empty());
    assert_eq!(state_of(&data, "embedded"), "empty", "{data:#}");
}

fn services_and_names(stage: &Stage) {
    let (data, _) = stage.ask("list_services", &json!({"window": "5m"}), |d| rows(d, "services").len() >= 3);
    let names: Vec<&str> = rows(&data, "services").iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["node", "prometheus", "web"], "{data:#}");
    assert!(rows(&data, "services").iter().all(|row| row["sources"] == json!(["real"])), "{data:#}");

    let asked = json!({"service": "web", "contains": "duration", "window": "5m"});
    let (data, text) = stage.ask("find_metrics", &asked, |d| !rows(d, "metrics").is_empty());
    let metric = &rows(&data, "metrics")[0];
    assert_eq!((&metric["name"], &metric["kind"]), (&json!("http_server_request_duration_seconds"), &json!("histogram")));
    assert!(text.contains("Duration of HTTP server requests"), "{text}");
    let values = json!({"values_of": "http_response_status_code", "service": "web", "window": "5m"});
    let (data, _) = stage.ask("find_metrics", &values, |d| rows(d, "values").len() >= 2);
    assert_eq!(data["values"], json!(["200", "500"]), "{data:#}");
}

fn values_are_those_served(stage: &Stage) {
    let (healthy, troubled) = (&stage.healthy, &stage.troubled);
    let both = |d: &Value| rows(d, "series").len() == 2 && rows(d, "series").iter().all(|row| row["max"].as_f64().is_some());
    let ask = |metric: &str| {
        stage.ask("query_metrics", &json!({"metric": metric, "service": "web", "window": "5m", "compare": "none"}), both).0
    };
    let files = ask("process_open_fds");
    assert!((of_instance(&files, troubled, "current") - 92.0).abs() < 1e-9 && files["total"] == json!(2), "{files:#}");
    assert!((of_instance(&files, healthy, "current") - 10.0).abs() < 1e-9, "{files:#}");
    assert_eq!(rows(&files, "series")[0]["labels"]["instance"], json!(troubled.address.to_string()), "the worst comes first");

    // A few seconds after the start a rate stands on one or two scrapes; it settles as more come in.
    let settled = |metric: &str, seen: &dyn Fn(&Value) -> bool| {
        let settled = |d: &Value| both(d) && seen(d);
        stage.ask("query_metrics", &json!({"metric": metric, "service": "web", "window": "5m", "compare": "none"}), settled).0
    };
    settled("request_rate", &|rate| {
        [healthy, troubled].iter().all(|one| (RATE * 0.6..=RATE * 1.4).contains(&of_instance(rate, one, "max")))
    });
    let share = FAILING / RATE;
    let errors = settled("error_rate", &|errors| (share * 0.6..=share * 1.4).contains(&of_instance(errors, troubled, "max")));
    assert!(of_instance(&errors, healthy, "max").abs() < 1e-9, "no error is a true zero: {errors:#}");
    let latency = ask("latency_p95");
    assert!(of_instance(&latency, troubled, "max") > 0.5 && of_instance(&latency, healthy, "max") <= 0.1, "{latency:#}");

    let raw = json!({"query": "sum by (job) (up)", "window": "5m", "compare": "none"});
    let (data, _) = stage.ask("query_metrics", &raw, |d| rows(d, "series").iter().any(|row| row["max"] == json!(2)));
    assert_eq!(rows(&data, "series")[0]["labels"], json!({"job": "web"}), "{data:#}");
    let nowhere = json!({"metric": "process_open_fds", "service": "nowhere", "window": "5m"});
    let (data, text) = stage.try_ask("query_metrics", &nowhere).unwrap();
    assert_eq!((state_of(&data, "real"), rows(&data, "series").len()), ("empty", 0), "absent is not zero: {text}");
}

fn alerts_and_health(stage: &Stage) {
    let (data, text) = stage.ask("list_alerts", &json!({}), |d| !rows(d, "alerts").is_empty());
    assert_eq!((data["rules"].as_u64(), rows(&data, "alerts").len()), (Some(2), 1), "{data:#}");
    let alert = &rows(&data, "alerts")[0];
    assert_eq!((&alert["name"], &alert["state"], &alert["source"]), (&json!("FilesRunOut"), &json!("firing"), &json!("real")));
    assert_eq!(alert["labels"]["instance"], json!(stage.troubled.address.to_string()));
    assert!(text.contains("open files run out"), "{text}");

    let asked = json!({"window": "5m", "compare": "none"});
    let seen =
        |d: &Value| rows(d, "services").iter().any(|row| row["service"] == "web" && row["error_ratio"].as_f64() > Some(0.05));
    let (data, text) = stage.ask("get_service_health", &asked, seen);
    let web = rows(&data, "services").iter().find(|row| row["service"] == "web").unwrap();
    // How bad it is called depends on how many requests were counted by now; well it is not.
    assert!(["degraded", "critical"].contains(&web["status"].as_str().unwrap()), "{data:#}");
    let saturation = web["saturation"].as_f64().unwrap();
    assert!((saturation - 0.92).abs() < 0.01, "the fuller of the two instances: {data:#}");
    assert!(text.contains("FilesRunOut"), "{text}");
}

#[test]
fn labels_that_are_secrets_by_name_are_not_asked_about() {
    let Some(stage) = stage() else { return };
    let seen = |d: &Value| rows(d, "series").len() == 2;
    let ask = |query: &str| json!({"query": query, "window": "5m", "compare": "none", "source": "real"});
    // The series themselves are shown, and whether they have the label may be asked.
    let (data, text) = stage.ask("query_metrics", &ask("shop_session{api_key!=\"\"}"), seen);
    assert!(!format!("{data}{text}").contains(CREDENTIAL) && text.contains("eu"), "{text}");

    let refused = |tool: &str, arguments: &Value, words: &str| {
        let before = stage.server.home.audit().len();
        let reply = stage.server.call(Some(&stage.key), tool, arguments);
        let body = reply.json();
        let code = body.pointer("/result/_meta/portcullis~1code").or_else(|| body.pointer("/error/data/code"));
        assert_eq!(code, Some(&json!("forbidden")), "{tool} {arguments}: {body:#}");
        assert!(reply.body.contains(words) && reply.body.contains("secret"), "{tool} {arguments}: {body:#}");
        let records = stage.server.home.audit();
        let record = records.iter().skip(before).find(|r| r["tool"] == tool).unwrap_or_else(|| panic!("no record: {records:#?}"));
        assert_eq!(record["code"], json!("forbidden"), "{record:#}");
    };
    for query in [
        r#"shop_session{api_key="Tiger4711x"}"#,
        r#"count(shop_session{api_key=~"T.*"})"#,
        r#"shop_session and label_replace(shop_session, "api_key", "Tiger4711x", "", "")"#,
        r#"label_replace(shop_session, "harmless", "$1", "api_key", "(.).*")"#,
        r#"label_join(shop_session, "harmless", "", "region", "api_key")"#,
        "count by (api_key) (shop_session)",
        "shop_session * on (api_key) group_left () shop_session",
    ] {
        refused("query_metrics", &ask(query), "the label 'api_key' is refused");
    }
    let typed = json!({"metric": "shop_session", "labels": {"api_key": "=~T.*"}, "window": "5m", "source": "real"});
    refused("query_metrics", &typed, "a condition on the label 'api_key'");
    let grouped =
        json!({"metric": "shop_session", "group_by": ["api_key"], "aggregation": "count", "window": "5m", "source": "real"});
    refused("query_metrics", &grouped, "grouping by the label 'api_key'");
    refused("find_metrics", &json!({"values_of": "api_key", "window": "5m", "source": "real"}), "values of the label 'api_key'");

    // Beside a source that answers, the refusal is that source's and is said.
    let (data, text) = stage.try_ask("find_metrics", &json!({"values_of": "api_key", "window": "5m"})).unwrap();
    assert_eq!((state_of(&data, "real"), rows(&data, "values").len()), ("failed", 0), "{data:#}");
    assert!(format!("{data}{text}").contains("its name says it is a secret"), "{data:#} {text}");

    // Who may see values unredacted may also ask about them.
    let reply = stage.server.call(Some(&stage.granted), "query_metrics", &ask("count by (api_key) (shop_session)")).json();
    assert_eq!(reply["result"]["structuredContent"]["total"], json!(1), "{reply:#}");
}
