//! The plugins of this repository over the real binary: packed, signed with a key of the moment, trusted, granted and called.
//! What is outside of them is a double written from its documentation: Datadog from <https://docs.datadoghq.com/api/latest/>
//! (logs search and aggregation version 2, metrics query version 1, authentication, rate limits), the registry from RFC 9083,
//! the resolver from RFC 8484. A path, key or query that the documentation does not know fails.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Home, Reply, Server, intact, skipped};
use crate::visitor::Visitor;

const API_KEY: &str = "dd-api-key-0123456789abcdef";
/// How long is waited for a plugin to be compiled.
const LONGEST: Duration = Duration::from_mins(5);
const APPLICATION_KEY: &str = "dd-application-key-fedcba98";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The built component of a plugin. `None` on a machine without the tools of its language.
fn component(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join(format!("plugins/{name}.wasm"));
    if path.exists() {
        return Some(path);
    }
    let tool = match name {
        "cron-schedule" => root().join(".venv/bin/componentize-py"),
        "error-budget" => root().join("tests/clients/node/node_modules/.bin/componentize-js"),
        _ => PathBuf::from("/usr/bin/wasm-ld-19"),
    };
    assert!(!tool.exists(), "{} is missing; build it with: cargo xtask plugins", path.display());
    skipped(&format!("no {}, and nothing to build it with (see .ci/install)", path.display()));
    None
}

/// Packs and signs the plugin of this name, and installs it with its key trusted for it alone. `edit` makes its manifest
/// declare what only tests have. Gives the digest.
fn install(home: &Home, name: &str, component: &Path, edit: impl Fn(String) -> String) -> String {
    let (source, folder) = (root().join("plugins").join(name), home.directory.path().join(name));
    std::fs::create_dir(&folder).unwrap();
    for file in ["README.md", "Cargo.lock", "requirements.txt"] {
        if source.join(file).exists() {
            std::fs::copy(source.join(file), folder.join(file)).unwrap();
        }
    }
    std::fs::write(folder.join("plugin.yaml"), edit(std::fs::read_to_string(source.join("plugin.yaml")).unwrap())).unwrap();
    let read = |text: String| -> Value { serde_json::from_str(&text).unwrap() };
    let text = |path: &Path| path.display().to_string();
    let packed = read(home.run_ok(&["plugin", "pack", &text(&folder), "--component", &text(component), "--json"]));
    let package = packed["package"].as_str().unwrap();
    let key = text(&folder.join("signing.pem"));
    let made = read(home.run_ok(&["plugin", "keys", "new", &key, "--json"]));
    let public = made["public_key"].as_str().unwrap();
    home.run_ok(&["plugin", "keys", "add", public, "--owner", "Tests", "--plugin", name]);
    home.run_ok(&["plugin", "sign", package, "--key", &key]);
    let installed = read(home.run_ok(&["plugin", "install", package, "--enable", "--json"]));
    installed["digest"].as_str().unwrap().to_owned()
}

/// Calls until the server has an answer: on a machine under load, compiling a plugin that brings its language along takes
/// minutes in a debug build, and looking at a key can take too long meanwhile.
fn patient(call: impl Fn() -> Reply) -> Reply {
    let began = Instant::now();
    loop {
        let reply = call();
        if reply.status != 503 && reply.status != 0 {
            return reply;
        }
        assert!(began.elapsed() < LONGEST, "no answer: {}", reply.body);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until the tool is there.
fn loaded(visitor: &Visitor, tool: &str) {
    let began = Instant::now();
    let named = format!("\"name\":\"{tool}\"");
    loop {
        let listed = patient(|| visitor.ask("tools/list", &json!({}))).body;
        if listed.contains(&named) {
            return;
        }
        assert!(began.elapsed() < LONGEST, "{tool} is not listed: {listed}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A request as a stand-in sees it.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    path: String,
    /// Lower-case names.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Status, headers and body.
type Given = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn given(status: u16, body: &Value) -> Given {
    (status, vec![("Content-Type", "application/json".to_owned())], body.to_string().into_bytes())
}

/// A server on loopback that remembers what it was asked.
struct StandIn {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl StandIn {
    fn start(answer: impl Fn(&Seen) -> Given + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (remembered, answer) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (remembered, answer) = (remembered.clone(), answer.clone());
                std::thread::spawn(move || {
                    let Some(request) = read_request(&mut stream) else { return };
                    let (status, headers, body) = answer(&request);
                    remembered.lock().unwrap().push(request);
                    let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
                    for (name, value) in headers {
                        write!(head, "{name}: {value}\r\n").unwrap();
                    }
                    head.push_str("\r\n");
                    // Who hung up does not want the answer.
                    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
                });
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn read_request(stream: &mut std::net::TcpStream) -> Option<Seen> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 8192]);
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let (method, path) = (first.next()?, first.next()?);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length.unwrap_or(0) {
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        body.extend_from_slice(&chunk[..read]);
    }
    Some(Seen { method, path, headers, body })
}

/// A time some seconds ago as Datadog writes it, and in milliseconds since 1970.
fn ago(seconds: u64) -> (String, u64) {
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - seconds;
    let output = Command::new("date").args(["-u", "-d", &format!("@{at}"), "+%Y-%m-%dT%H:%M:%S.000Z"]).output().unwrap();
    (String::from_utf8(output.stdout).unwrap().trim().to_owned(), at * 1_000)
}

fn event(seconds_ago: u64, service: &str, message: &str) -> Value {
    json!({"id": "AAAAAWgN8Xwgr1vKDQAAAABBV2dOOFh3ZzZobm1mWXJFYTR0OA", "type": "log", "attributes": {
        "timestamp": ago(seconds_ago).0, "status": "error", "service": service, "host": "i-0123", "message": message,
        "tags": ["env:prod", "kube_namespace:shop"], "attributes": {"http": {"status_code": 500}}}})
}

/// What Datadog answers before it looks at the question: keys, paths, media types.
fn admitted(request: &Seen) -> Result<(), Given> {
    if request.header("dd-api-key") != API_KEY || request.header("dd-application-key") != APPLICATION_KEY {
        return Err(given(403, &json!({"errors": ["Forbidden"]})));
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let known = [
        ("GET", "/api/v1/validate"),
        ("GET", "/api/v1/query"),
        ("GET", "/api/v1/metrics"),
        ("POST", "/api/v2/logs/events/search"),
        ("POST", "/api/v2/logs/analytics/aggregate"),
    ];
    if !known.contains(&(request.method.as_str(), path)) {
        return Err(given(404, &json!({"errors": ["Not found"]})));
    }
    if request.method == "POST" && request.header("content-type") != "application/json" {
        return Err(given(400, &json!({"errors": ["Bad content type"]})));
    }
    Ok(())
}

/// A house with the Datadog plugin that reaches `double`.
fn with_datadog(component: &Path, double: &StandIn, settings: &str) -> (Home, String) {
    let home = Home::new(&format!(
        "plugins:\n  grants:\n    - name: datadog\n      http: ['{url}']\n      allow_addresses: [loopback]\n      secrets: {{api_key: {{value: {API_KEY}}}, application_key: {{value: {APPLICATION_KEY}}}}}\n      settings: {{endpoint: '{url}'{settings}}}\n",
        url = double.url
    ));
    let digest = install(&home, "datadog", component, |manifest| {
        manifest.replace("- https://api.datadoghq.com\n", &format!("- {}\n", double.url))
    });
    (home, digest)
}

#[test]
fn datadog_answers_beside_the_embedded_store_within_the_scope_and_is_recorded() {
    let Some(component) = component("datadog") else { return };
    let double = StandIn::start(|request| {
        if let Err(refused) = admitted(request) {
            return refused;
        }
        match request.path.split('?').next().unwrap() {
            "/api/v1/validate" => given(200, &json!({"valid": true})),
            // Whatever the query says: what it should not have found is dropped by the house.
            "/api/v2/logs/events/search" => given(
                200,
                &json!({"data": [event(60, "cart", "payment refused by Datadog"), event(61, "foreign", "line of a foreign service"),
                    event(90_000, "cart", "line from before the window")], "meta": {"elapsed": 1, "status": "done"}}),
            ),
            "/api/v2/logs/analytics/aggregate" => given(
                200,
                &json!({"data": {"buckets": [{"by": {"service": "cart"}, "computes": {"c0": 41}}, {"by": {"service": "pay"}, "computes": {"c0": 7}}]},
                    "meta": {"elapsed": 1, "status": "done"}}),
            ),
            _ => given(404, &json!({"errors": ["Not found"]})),
        }
    });
    let (home, digest) = with_datadog(&component, &double, ", tags: ['env:prod']");
    let all = home.key(&["--role", "reader"]);
    let narrow = home.key(&["--role", "reader", "--service", "cart"]);
    let server = Server::start_in(home);
    server.send_log("cart", 17, "payment refused by the embedded store");
    crate::plugins::eventually("the record", || {
        server.call(Some(&all), "query_logs", &json!({"window": "1h"})).body.contains("by the embedded store")
    });
    let both = patient(|| server.call(Some(&all), "query_logs", &json!({"window": "1h"}))).body;
    assert!(both.contains("refused by Datadog") && both.contains("by the embedded store"), "{both}");
    assert!(both.contains("foreign service") && !both.contains("before the window"), "{both}");
    let mine = patient(|| server.call(Some(&narrow), "query_logs", &json!({"window": "1h", "text": "\" OR *"}))).body;
    assert!(mine.contains("refused by Datadog") && !mine.contains("foreign service"), "{mine}");
    let asked = double.seen().into_iter().rfind(|seen| seen.path.ends_with("/search")).unwrap().json();
    assert_eq!(asked["filter"]["query"], r#"service:"cart" AND env:"prod" AND "\" OR *""#);

    let counted =
        patient(|| server.call(Some(&all), "query_logs", &json!({"window": "1h", "count_by": ["service"], "source": "datadog"})))
            .body;
    assert!(counted.contains("41") && counted.contains("pay"), "{counted}");
    assert!(double.seen().iter().any(|seen| seen.path == "/api/v2/logs/analytics/aggregate"));

    let record = server.home.audited(|r| r["tool"] == "query_logs" && r["sources"].to_string().contains("plugin:datadog@"));
    let sources = record["sources"].to_string();
    assert!(sources.contains(&digest) && sources.contains(&format!("host:{}", double.url)), "{record}");
    let audit = server.home.run_ok(&["audit", "tail", "-n", "1000", "--json"]);
    for secret in [API_KEY, APPLICATION_KEY] {
        assert!(!audit.contains(secret) && !server.log().contains(secret) && !both.contains(secret));
    }
    assert!(intact(&server.home));
}

#[test]
fn datadog_pages_are_followed_and_partial_answers_and_limits_are_said() {
    let Some(component) = component("datadog") else { return };
    let double = StandIn::start(|request| {
        if let Err(refused) = admitted(request) {
            return refused;
        }
        let body = request.json();
        let query = body["filter"]["query"].as_str().unwrap_or_default();
        if query.contains("limited") {
            let (_, mut headers, body) = given(429, &json!({"errors": ["Rate limit of 300 requests in 3600 seconds reached."]}));
            headers.extend([("X-RateLimit-Limit", "300".to_owned()), ("X-RateLimit-Period", "3600".to_owned())]);
            headers.extend([("X-RateLimit-Remaining", "0".to_owned()), ("X-RateLimit-Reset", "17".to_owned())]);
            return (429, headers, body);
        }
        if query.contains("slowly") {
            return given(200, &json!({"data": [], "meta": {"status": "timeout"}}));
        }
        match body["page"]["cursor"].as_str() {
            None => given(
                200,
                &json!({"data": [event(60, "cart", "first line"), event(70, "cart", "second line")],
                    "meta": {"status": "done", "page": {"after": "c1"}}, "links": {"next": "https://example.org"}}),
            ),
            Some("c1") => given(200, &json!({"data": [event(80, "cart", "third line")], "meta": {"status": "done"}})),
            Some(_) => given(400, &json!({"errors": ["Invalid cursor"]})),
        }
    });
    let (home, _) = with_datadog(&component, &double, "");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let ask = |arguments: Value| {
        let mut arguments = arguments;
        arguments["source"] = json!("datadog");
        patient(|| server.call(Some(&key), "query_logs", &arguments)).body
    };
    let whole = ask(json!({"window": "1h"}));
    assert!(["first line", "second line", "third line"].iter().all(|line| whole.contains(line)), "{whole}");
    assert_eq!(double.seen().iter().filter(|seen| seen.json()["page"]["cursor"] == "c1").count(), 1);
    let limited = ask(json!({"window": "1h", "text": "limited"}));
    assert!(limited.contains("300 requests in 3600 seconds") && limited.contains("in 17 seconds"), "{limited}");
    let partial = ask(json!({"window": "1h", "text": "slowly"}));
    assert!(partial.contains("ran out of time"), "{partial}");
    let regex = ask(json!({"window": "1h", "regex": "time(d)? out"}));
    assert!(regex.contains("no regular expressions"), "{regex}");
    server.home.audited(|r| r["tool"] == "query_logs" && r["note"].to_string().contains("question logs: fault rate_limited"));
}

#[test]
fn datadog_metrics_keep_missing_points_missing_and_wrong_keys_are_said() {
    let Some(component) = component("datadog") else { return };
    let refusing = Arc::new(AtomicUsize::new(0));
    let switch = refusing.clone();
    let double = StandIn::start(move |request| {
        if switch.load(Ordering::SeqCst) == 1 {
            return given(403, &json!({"errors": ["Forbidden"]}));
        }
        if let Err(refused) = admitted(request) {
            return refused;
        }
        match request.path.split('?').next().unwrap() {
            "/api/v1/metrics" => given(200, &json!({"from": "1", "metrics": ["container.cpu.usage", "shop.orders"]})),
            "/api/v1/query" => {
                let point = |ago_seconds: u64, value: Value| json!([ago(ago_seconds).1, value]);
                let points: Vec<Value> = (1..=14)
                    .rev()
                    .map(|minute| point(minute * 60, if minute % 2 == 0 { json!(500_000_000.0) } else { Value::Null }))
                    .collect();
                given(
                    200,
                    &json!({"status": "ok", "res_type": "time_series", "error": "", "message": "", "group_by": ["service"], "query": "q",
                        "series": [{"metric": "container.cpu.usage", "interval": 60, "length": 14, "scope": "service:cart", "aggr": "avg",
                            "tag_set": ["service:cart"], "unit": [{"name": "nanocore", "short_name": "ncores"}, null], "pointlist": points}]}),
                )
            }
            _ => given(404, &json!({"errors": ["Not found"]})),
        }
    });
    let (home, _) = with_datadog(&component, &double, "");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let arguments = json!({"metric": "cpu", "source": "datadog", "window": "15m", "points": true, "group_by": ["service"], "aggregation": "average", "compare": "none"});
    let cpu = patient(|| server.call(Some(&key), "query_metrics", &arguments)).body;
    assert!(cpu.contains("cart") && cpu.contains("0.5") && cpu.contains("container.cpu.usage"), "{cpu}");
    let query = double.seen().into_iter().rfind(|seen| seen.path.starts_with("/api/v1/query?")).unwrap().path;
    assert!(query.contains("container.cpu.usage"), "{query}");
    let found = patient(|| server.call(Some(&key), "find_metrics", &json!({"source": "datadog", "contains": "orders"}))).body;
    assert!(found.contains("shop.orders"), "{found}");
    let odd = server
        .call(Some(&key), "query_metrics", &json!({"metric": "shop.orders", "service": "a} by {x", "source": "datadog"}))
        .body;
    assert!(odd.contains("no value a tag in Datadog can have"), "{odd}");
    refusing.store(1, Ordering::SeqCst);
    let refused = patient(|| server.call(Some(&key), "query_metrics", &arguments)).body;
    assert!(refused.contains("refuses these keys") && !refused.contains(API_KEY), "{refused}");
}

/// A DNS answer to the question in `asked`: one record of this type.
fn dns_answer(asked: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let mut message = asked.to_vec();
    message[2..4].copy_from_slice(&[0x81, 0x80]);
    message[7] = 1;
    message.extend_from_slice(&[0xc0, 12]);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 1, 0, 0, 1, 0]);
    message.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    message.extend_from_slice(data);
    message
}

#[test]
fn addresses_are_told_apart_here_and_only_public_ones_are_asked_about_once() {
    let Some(component) = component("ip-enrichment") else { return };
    let double = StandIn::start(|request| {
        if request.path == "/rdap/ip/8.8.8.8" && request.header("accept") == "application/rdap+json" {
            return given(
                200,
                &json!({"objectClassName": "ip network", "handle": "NET-8-8-8-0-2", "name": "GOGL", "country": "US",
                    "entities": [{"objectClassName": "entity", "roles": ["registrant"], "vcardArray": ["vcard", [
                        ["fn", {}, "text", "Joe User"], ["kind", {}, "text", "individual"], ["email", {}, "text", "joe@example.com"]]]}]}),
            );
        }
        if request.path == "/dns-query" && request.header("content-type") == "application/dns-message" {
            let name = String::from_utf8_lossy(&request.body).into_owned();
            let media = vec![("Content-Type", "application/dns-message".to_owned())];
            let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            let body = if name.contains("origin") {
                dns_answer(&request.body, 16, &text("15169 | 8.8.8.0/24 | US | arin | 2023-12-28"))
            } else if name.contains("AS15169") {
                dns_answer(&request.body, 16, &text("15169 | US | arin | 2000-03-30 | GOOGLE, US"))
            } else {
                dns_answer(&request.body, 12, b"\x03dns\x06google\x00")
            };
            return (200, media, body);
        }
        given(404, &json!({}))
    });
    let home = Home::new(&format!(
        "plugins:\n  grants:\n    - name: ip-enrichment\n      http: ['{url}']\n      allow_addresses: [loopback]\n      settings: {{dns: '{url}/dns-query', rdap: '{url}/rdap'}}\n",
        url = double.url
    ));
    install(&home, "ip-enrichment", &component, |manifest| {
        manifest.replace("- https://dns.google\n", &format!("- {}\n", double.url))
    });
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    loaded(&visitor, "enrich_ips");
    let ask = |addresses: &[&str]| patient(|| visitor.call("enrich_ips", &json!({"addresses": addresses}))).json();
    let local = ask(&["10.1.2.3", "::ffff:192.168.1.1", "fe80::1", "169.254.169.254"]);
    let classes: Vec<&Value> = local["result"]["structuredContent"]["results"]
        .as_array()
        .unwrap_or_else(|| panic!("{local}"))
        .iter()
        .map(|one| &one["class"])
        .collect();
    assert_eq!(classes, ["private", "mapped", "link-local", "link-local"]);
    assert!(double.seen().is_empty(), "nothing of the operator's own network is told to anybody");

    let public = ask(&["8.8.8.8"]);
    let one = &public["result"]["structuredContent"]["results"][0];
    assert_eq!(
        (&one["position"], &one["class"], &one["origin"]["asn"]),
        (&json!(0), &json!("public"), &json!([15169])),
        "{public}"
    );
    assert_eq!(
        (&one["network"]["name"], &one["origin"]["as_name"], &one["reverse"]),
        (&json!("GOGL"), &json!("GOOGLE, US"), &json!(["dns.google"]))
    );
    // Addresses of the internet are redacted by default, also here: the position says which is meant.
    assert!(one["address"].as_str().unwrap().starts_with("[ip:"), "{one}");
    assert!(!public.to_string().contains("Joe"), "{public}");
    let requests = double.seen().len();
    assert_eq!(requests, 4);
    assert_eq!(ask(&["8.8.8.8"])["result"]["structuredContent"], public["result"]["structuredContent"]);
    assert_eq!(double.seen().len(), requests, "what is known is not asked again");

    let network = ask(&["10.0.0.0/8"]).to_string();
    assert!(network.contains("no networks"), "{network}");
    let many: Vec<String> = (0..11).map(|at| format!("10.0.0.{at}")).collect();
    let many = patient(|| visitor.call("enrich_ips", &json!({"addresses": many}))).body;
    assert!(many.contains("addresses") && !many.contains("private"), "{many}");
    let record = server.home.audited(|r| r["tool"] == "enrich_ips" && r["sources"].to_string().contains("host:"));
    assert!(record["note"].to_string().contains("tool enrich_ips: ok"), "{record}");
}

#[test]
fn addresses_are_told_apart_without_any_grant() {
    let Some(component) = component("ip-enrichment") else { return };
    let home = Home::new("plugins:\n  grants:\n    - {name: ip-enrichment, settings: {rdap: bootstrap}}\n");
    install(&home, "ip-enrichment", &component, |manifest| manifest);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let said = patient(|| Visitor::new(&server, &key).call("enrich_ips", &json!({"addresses": ["192.0.2.1", "9.9.9.9"]}))).json();
    let results = &said["result"]["structuredContent"]["results"];
    assert_eq!(results[0]["class"], "documentation", "{said}");
    // Configured and not granted is a failure that is said, not an absence.
    assert!(results[1]["failed"].to_string().contains("does not grant") && results[1].get("not_found").is_none(), "{said}");
}

#[test]
fn a_plugin_in_python_says_when_a_schedule_runs() {
    let Some(component) = component("cron-schedule") else { return };
    let home = Home::new("");
    install(&home, "cron-schedule", &component, |manifest| manifest);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    loaded(&visitor, "cron_next");
    let ask = |arguments: &Value| patient(|| visitor.call("cron_next", arguments));
    let spring = json!({"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "after": "2026-03-28T12:00:00Z", "count": 2});
    let said = ask(&spring).json();
    let content = &said["result"]["structuredContent"];
    assert_eq!(content["runs"][0]["utc"], "2026-03-30T00:30:00Z", "{said}");
    assert!(content["notes"].to_string().contains("skips 02:30"), "{said}");
    let now = ask(&json!({"schedule": "* * * * *"})).json();
    let next = now["result"]["structuredContent"]["runs"][0]["in_seconds"].as_i64();
    assert!(next.is_some_and(|seconds| (0..=60).contains(&seconds)), "{now}");
    assert_eq!(ask(&json!({"schedule": "0 0 30 2 *"})).json()["result"]["structuredContent"]["never"], true);
    let wrong = ask(&json!({"schedule": "61 * * * *"})).body;
    assert!(wrong.contains("is no minute; there are 0-59"), "{wrong}");
    let zone = ask(&json!({"schedule": "0 3 * * *", "timezone": "Berlin"})).body;
    assert!(zone.contains("did you mean Europe/Berlin"), "{zone}");
    server.home.audited(|r| r["tool"] == "cron_next" && r["note"].to_string().contains("tool cron_next: ok"));
}

#[test]
fn a_plugin_in_javascript_reckons_with_an_error_budget() {
    let Some(component) = component("error-budget") else { return };
    let home = Home::new("");
    install(&home, "error-budget", &component, |manifest| manifest);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    loaded(&visitor, "error_budget");
    let counted = json!({"objective_percent": 99.9, "elapsed_days": 10, "total_events": 1_000_000, "bad_events": 2_000});
    let said = patient(|| visitor.call("error_budget", &counted)).json();
    let content = &said["result"]["structuredContent"];
    assert_eq!((&content["measured"]["burn_rate"], &content["measured"]["days_to_exhaustion"]), (&json!(2), &json!(5)), "{said}");
    assert_eq!(content["alerts"][0]["burn_rate"], 14.4);
    let none =
        patient(|| visitor.call("error_budget", &json!({"objective_percent": 99.9, "total_events": 0, "bad_events": 0}))).json();
    assert!(
        none["result"]["structuredContent"].get("measured").is_none() && none.to_string().contains("no events were counted"),
        "{none}"
    );
    let wrong =
        patient(|| visitor.call("error_budget", &json!({"objective_percent": 99.9, "total_events": 1, "bad_events": 2}))).body;
    assert!(wrong.contains("bad_events is more than total_events"), "{wrong}");
    server.home.audited(|r| r["tool"] == "error_budget" && r["note"].to_string().contains("tool error_budget: ok"));
}

/// Packing and loading are seen above; here that none is forgotten.
#[test]
fn every_plugin_of_the_repository_is_built_and_tested_here() {
    let folders = std::fs::read_dir(root().join("plugins")).unwrap().map(|entry| entry.unwrap().path());
    let names: Vec<String> = folders
        .filter(|folder| folder.join("plugin.yaml").is_file())
        .map(|folder| folder.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let asked_for = format!("component(\"{name}\")");
        assert!(include_str!("plugin_samples.rs").contains(&asked_for), "no test here runs the plugin '{name}'");
        let Some(component) = component(&name) else { continue };
        assert!(std::fs::metadata(&component).unwrap().len() < 24 << 20, "{} is large", component.display());
        assert!(root().join("plugins").join(&name).join("README.md").is_file(), "{name} has no README.md");
    }
}
