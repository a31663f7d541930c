//! The metrics as others see them: the distribution's Prometheus scrapes the real binary with a credential, `promtool` reads
//! both formats, and the numbers are those of what was done.
//!
//! Skips with a message where Prometheus is not installed.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admin::{ask, get};
use crate::prometheus::{PROMETHEUS, start};
use crate::server::{Home, Server, free_port};

const PROMTOOL: &str = "/usr/bin/promtool";

fn installed() -> bool {
    let missing = [PROMETHEUS, PROMTOOL].into_iter().find(|binary| !Path::new(binary).exists());
    if let Some(missing) = missing {
        crate::server::skipped(&format!("{missing} is not installed (package prometheus)"));
    }
    missing.is_none()
}

/// The value of the series whose line begins like this.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in {text}"))
}

/// A server where something of each kind has happened.
fn stage() -> (Server, String) {
    let home = Home::new("");
    let (scraper, caller) = (home.key(&["--scope", "metrics"]), home.key(&[]));
    let server = Server::start_in(home);
    server.send_log("cart", 9, "hello, the token=abcdef0123456789abcdef0123456789 is secret");
    for _ in 0..3 {
        assert_eq!(server.call(Some(&caller), "list_sources", &json!({})).status, 200);
    }
    server.call(Some(&caller), "query_logs", &json!({"window": "15m"}));
    server.call(Some(&caller), "query_logs", &json!({"windw": "15m"}));
    server.call(Some(&caller), "no_such_tool_anna", &json!({}));
    server.call(None, "list_sources", &json!({}));
    (server, scraper)
}

#[test]
fn the_numbers_are_those_of_what_was_done_and_name_nobody() {
    let (server, scraper) = stage();
    let reply = get(&server, &scraper, "/metrics");
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
    let text = &reply.body;
    let sum = |name: &str, holds: &[&str]| -> f64 {
        let fits = |line: &&str| line.starts_with(name) && holds.iter().all(|part| line.contains(part));
        text.lines().filter(fits).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let near = |found: f64, expected: f64, what: &str| assert!((found - expected).abs() < 1e-9, "{what}: {found} {text}");
    near(sum("portcullis_calls_total", &["tool=\"list_sources\"", "outcome=\"ok\"", "risk=\"read\""]), 3.0, "calls");
    near(sum("portcullis_calls_total", &["tool=\"query_logs\"", "outcome=\"refused\""]), 1.0, "a refused call");
    near(sum("portcullis_calls_total", &["tool=\"unknown\"", "outcome=\"refused\""]), 1.0, "an unknown tool has no name");
    near(sum("portcullis_refusals_total", &["reason=\"request\"", "code=\"invalid_argument\""]), 1.0, "a refusal");
    near(sum("portcullis_authentication_failures_total", &["reason=\"no_credential\"", "listener=\"http\""]), 1.0, "a stranger");
    near(sum("portcullis_call_duration_seconds_count", &["tool=\"list_sources\""]), 3.0, "durations");
    near(sum("portcullis_ingest_records_total", &["signal=\"logs\"", "result=\"accepted\""]), 1.0, "a log record");
    assert!(sum("portcullis_redactions_total", &[]) >= 1.0, "{text}");
    assert!(sum("portcullis_store_queries_total", &[]) >= 1.0, "{text}");
    assert!(value(text, "portcullis_audit_records_total") >= 7.0, "{text}");
    assert!(value(text, "portcullis_answer_bytes_total") > 100.0, "{text}");
    near(value(text, "portcullis_calls_in_flight"), 0.0, "nothing runs");
    near(value(text, "portcullis_config_last_reload_successful"), 1.0, "the file is in force");
    for check in ["store", "audit", "keys", "sinks", "drain"] {
        near(value(text, &format!("portcullis_ready{{check=\"{check}\"}}")), 1.0, check);
    }
    assert!(value(text, "process_resident_memory_bytes") > 1e6 && value(text, "process_open_fds") > 3.0, "{text}");
    assert!(text.contains("portcullis_build_info{version="), "{text}");
    for secret in ["key:", "anna", "127.0.0.1", "windw", "abcdef01"] {
        assert!(!text.contains(secret), "'{secret}' is in a metric: {text}");
    }
}

#[test]
fn promtool_finds_nothing_to_mend() {
    if !installed() {
        return;
    }
    let (server, scraper) = stage();
    let text = get(&server, &scraper, "/metrics").body;
    let mut tool = Command::new(PROMTOOL)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
}

/// What Prometheus answers to a path of its API.
fn prometheus_says(port: u16, path: &str) -> Option<Value> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

#[test]
fn a_real_prometheus_scrapes_with_a_key_and_not_without() {
    if !installed() {
        return;
    }
    let (server, scraper) = stage();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), &scraper).unwrap();
    let job =
        |name: &str, auth: &str| format!("- job_name: {name}\n  {auth}\n  static_configs: [{{targets: ['{}']}}]\n", server.admin);
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n{}{}",
        job("with_key", "authorization: {credentials_file: key}"),
        job("without", "honor_labels: false"),
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let port = free_port().port();
    let _prometheus = start(
        PROMETHEUS,
        folder.path(),
        &[
            format!("--config.file={}", folder.path().join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ],
    );
    let began = Instant::now();
    let up = loop {
        let answer = prometheus_says(port, "/api/v1/query?query=up").unwrap_or_default();
        let of = |job: &str| {
            let series = answer["data"]["result"].as_array()?.iter().find(|one| one["metric"]["job"] == job)?;
            series["value"][1].as_str().map(str::to_owned)
        };
        if let (Some(with), Some(without)) = (of("with_key"), of("without")) {
            break (with, without);
        }
        assert!(began.elapsed() < Duration::from_secs(40), "not scraped: {answer}");
        std::thread::sleep(Duration::from_millis(300));
    };
    assert_eq!(up, ("1".to_owned(), "0".to_owned()));
    let query = "/api/v1/query?query=portcullis_calls_total%7Btool%3D%22list_sources%22%7D";
    let calls = prometheus_says(port, query).unwrap();
    assert_eq!(calls["data"]["result"][0]["value"][1], "3", "{calls}");
    // OpenMetrics was spoken: only there a unit can be known.
    let metadata = prometheus_says(port, "/api/v1/metadata?metric=portcullis_call_duration_seconds").unwrap();
    let known = &metadata["data"]["portcullis_call_duration_seconds"][0];
    assert_eq!((&known["type"], &known["unit"]), (&json!("histogram"), &json!("seconds")), "{metadata}");
    server.home.audited(|r| r["transport"] == "admin" && r["kind"] == "authentication" && r["decision"] == "deny");
    server.home.audited(|r| r["transport"] == "admin" && r["kind"] == "authentication" && r["decision"] == "allow");
}

#[test]
fn what_a_scraper_understands_it_gets() {
    let (server, scraper) = stage();
    let bearer = format!("Bearer {scraper}");
    let open = [("Authorization", &*bearer), ("Accept", "application/openmetrics-text;version=1.0.0;q=0.7,*/*;q=0.1")];
    let reply = ask(server.admin, "GET", "/metrics", &open, b"");
    assert!(
        reply.head.to_ascii_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        reply.head
    );
    assert!(reply.body.ends_with("# EOF\n") && reply.body.contains("# TYPE portcullis_calls counter\n"), "{}", reply.body);
}

#[test]
fn a_configuration_that_is_refused_while_running_shows_and_the_server_stays_ready() {
    let (server, scraper) = stage();
    let good = std::fs::read_to_string(&server.home.config).unwrap();
    let in_force = || value(&get(&server, &scraper, "/metrics").body, "portcullis_config_last_reload_successful");
    for (text, expected) in [(format!("{good}sorces: []\n"), 0.0), (format!("{good}# mended\n"), 1.0)] {
        std::fs::write(&server.home.config, &text).unwrap();
        let began = Instant::now();
        while (in_force() - expected).abs() > 0.5 {
            assert!(began.elapsed() < Duration::from_secs(20), "not {expected} after: {text}");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(ask(server.admin, "GET", "/readyz", &[], b"").status, 200, "the last good one is in force");
    }
    server.home.audited(|r| r["kind"] == "config" && r["note"].as_str().is_some_and(|note| note.starts_with("refused")));
}

#[test]
fn a_scraper_comes_with_a_password_too() {
    use base64::Engine as _;
    let home = Home::new("");
    let mut hash = Command::new(crate::server::BINARY)
        .args(["key", "hash-password"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    hash.stdin.take().unwrap().write_all(b"the Kettle is 4 tall Giraffe\n").unwrap();
    let hash = String::from_utf8(hash.wait_with_output().unwrap().stdout).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    let users = format!("identity: {{users: [{{name: scraper, password_hash: '{}', doors: [metrics]}}]}}\n", hash.trim());
    std::fs::write(&home.config, format!("{text}{users}")).unwrap();
    let server = Server::start_in(home);
    let basic = |password: &str| {
        let given = base64::engine::general_purpose::STANDARD.encode(format!("scraper:{password}"));
        ask(server.admin, "GET", "/metrics", &[("Authorization", &format!("Basic {given}"))], b"").status
    };
    assert_eq!((basic("the Kettle is 4 tall Giraffe"), basic("the Kettle is 5 tall Giraffes")), (200, 401));
    server.home.audited(|r| r["transport"] == "admin" && r["rule"] == "wrong_password");
}
