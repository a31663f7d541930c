//! Rules about how far back a call reads, over the real doors: no cursor and no query steps over them, and every refusal is on
//! record.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::server::{Home, Reply, Server, post};
use crate::visitor::Visitor;

const RULES: &str = r#"
@id("an-hour")
forbid (principal in Portcullis::Role::"reader", action == Portcullis::Action::"call", resource)
when { context.look_back_seconds > 3700 };

@id("anything")
permit (principal in Portcullis::Role::"archivist", action == Portcullis::Action::"call", resource) when { resource.risk == "read" };

@id("short")
@max_look_back("1h")
permit (principal in Portcullis::Role::"short", action == Portcullis::Action::"call", resource) when { resource.risk == "read" };
"#;

/// The body of a record five hours old.
const OLD: &str = "line-of-five-hours-ago";
/// Characters of what proves that a cursor was given out.
const MARK: usize = 22;
const HOUR: Duration = Duration::from_hours(1);

fn home() -> Home {
    let home = Home::new("roles: [archivist, short]\nproducts:\n- {name: oncall, tools: ['query_logs', 'list_*']}\n");
    let path = home.directory.path().join("own.cedar");
    std::fs::write(&path, RULES).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", path.display())).unwrap();
    home
}

/// Sends one log record of some time ago.
fn send(server: &Server, body: &str, ago: Duration) {
    let at = (SystemTime::now() - ago).duration_since(UNIX_EPOCH).unwrap().as_nanos().to_string();
    let request = json!({"resourceLogs": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]},
        "scopeLogs": [{"logRecords": [{"timeUnixNano": at, "severityNumber": 9, "body": {"stringValue": body}}]}]}]});
    let json = [("Content-Type".to_owned(), "application/json".to_owned())];
    let reply = post(server.otlp, "/v1/logs", &json, request.to_string().as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.body);
}

fn filled(home: Home) -> Server {
    let server = Server::start_in(home);
    send(&server, OLD, 5 * HOUR);
    for body in ["recent-one", "recent-two", "recent-three"] {
        send(&server, body, Duration::from_mins(1));
    }
    server
}

/// The first page of a caller's logs of an hour, and the cursor that came with it.
fn page(visitor: &Visitor) -> String {
    let first = visitor.call("query_logs", &json!({"window": "1h", "limit": 1})).json();
    let next = first["result"]["structuredContent"]["next"].as_str();
    next.unwrap_or_else(|| panic!("no cursor: {first}")).to_owned()
}

/// Goes on with a cursor.
fn go_on(visitor: &Visitor, cursor: &str) -> Reply {
    visitor.call("query_logs", &json!({"window": "1h", "limit": 1, "cursor": cursor}))
}

/// What a cursor holds besides its mark: the version and the fingerprint of its question, the position, a checksum.
fn opened(cursor: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(&cursor[..cursor.len() - MARK]).unwrap()
}

/// What anybody can make of an honest cursor without the key: another position of the same question, with its checksum right.
fn forged(honest: &str, position: &[u8]) -> String {
    let mut bytes = opened(honest)[..5].to_vec();
    bytes.extend_from_slice(position);
    let mut checksum = flate2::Crc::new();
    checksum.update(&bytes);
    bytes.extend_from_slice(&checksum.sum().to_be_bytes());
    URL_SAFE_NO_PAD.encode(&bytes)
}

fn refusals(server: &Server) -> Vec<Value> {
    server.home.audit().into_iter().filter(|r| r["rule"] == "cursor" && r["decision"] == "deny").collect()
}

/// A call that is refused for its cursor: nothing is told, no source is asked, and there is one record of it.
fn refused(server: &Server, what: &str, tool: &str, call: impl FnOnce() -> Reply) {
    let before = refusals(server).len();
    let reply = call();
    assert!(reply.body.contains("invalid_argument") && reply.body.contains("cursor"), "{what}: {}", reply.body);
    assert!(!reply.body.contains(OLD) && !reply.body.contains("recent-"), "{what}: {}", reply.body);
    let records = refusals(server);
    assert_eq!(records.len(), before + 1, "{what}");
    let record = records.last().unwrap();
    assert_eq!((&record["tool"], &record["code"]), (&json!(tool), &json!("invalid_argument")), "{what}: {record}");
    assert!(record["sources"].as_array().is_none_or(Vec::is_empty), "{what}: a source was asked: {record}");
}

#[test]
fn a_cursor_that_was_not_given_out_is_refused_and_recorded() {
    let home = home();
    let [reader, other, short] = ["reader", "reader", "short"].map(|role| home.key(&["--role", role]));
    let server = filled(home);
    let [reader, other, short] = [reader, other, short].map(|key| Visitor::new(&server, &key));
    let plain = reader.call("query_logs", &json!({"window": "7h"})).body;
    assert!(plain.contains("an-hour") && !plain.contains(OLD), "asked plainly, the rule refuses: {plain}");

    let honest = page(&reader);
    let inner = opened(&honest);
    let same = forged(&honest, &inner[5..inner.len() - 4]);
    assert_eq!(same, honest[..honest.len() - MARK], "the forger knows how a cursor is made");
    let start = (SystemTime::now() - 7 * HOUR).duration_since(UNIX_EPOCH).unwrap();
    let position = format!(r#"{{"w":[{},{}],"p":{{}}}}"#, start.as_millis(), (3 * HOUR).as_millis());
    let made_up = forged(&honest, position.as_bytes());
    refused(&server, "without a mark", "query_logs", || go_on(&reader, &made_up));
    let with_mark = format!("{made_up}{}", &honest[honest.len() - MARK..]);
    refused(&server, "with the mark of another", "query_logs", || go_on(&reader, &with_mark));
    for at in [0, honest.len() / 2, honest.len() - 2] {
        let mut altered = honest.clone();
        let with = if altered.as_bytes()[at] == b'A' { "B" } else { "A" };
        altered.replace_range(at..=at, with);
        refused(&server, &format!("altered at {at}"), "query_logs", || go_on(&reader, &altered));
    }
    refused(&server, "of another principal", "query_logs", || go_on(&other, &honest));
    refused(&server, "through a product", "query_logs", || go_on(&reader.at("/mcp/oncall"), &honest));
    refused(&server, "of another question", "query_logs", || {
        reader.call("query_logs", &json!({"window": "59m", "limit": 1, "cursor": honest}))
    });
    for tool in ["query_traces", "find_metrics", "list_services"] {
        let arguments = json!({"window": "1h", "limit": 1, "cursor": honest});
        refused(&server, "of another tool", tool, || reader.call(tool, &arguments));
    }
    // A limit on the look-back instead of a rule.
    let forged_short = forged(&page(&short), position.as_bytes());
    refused(&server, "within a limit", "query_logs", || go_on(&short, &forged_short));

    // The honest ones go on, also with another limit and after a restart.
    let next = reader.call("query_logs", &json!({"limit": 2, "cursor": honest, "window": "1h"})).body;
    assert!(next.contains("recent-") && !next.contains(OLD), "{next}");
    let inside = reader.at("/mcp/oncall");
    assert!(go_on(&inside, &page(&inside)).body.contains("recent-"), "a product's own cursor is good there");
    let server = Server::start_in(server.kill());
    let next = go_on(&Visitor::new(&server, &reader.key), &honest).body;
    assert!(next.contains("recent-"), "after a restart: {next}");
}

#[test]
fn a_cursor_of_a_list_that_was_not_given_out_is_refused_and_recorded() {
    let home = home();
    let reader = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let reader = Visitor::new(&server, &reader);
    for (n, method) in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"].into_iter().enumerate() {
        let made_up = URL_SAFE_NO_PAD.encode("tquery_logs");
        let reply = reader.ask(method, &json!({"cursor": made_up})).json();
        assert_eq!(reply["error"]["code"], -32602, "{method}: {reply}");
        let records = refusals(&server);
        assert_eq!(records.len(), n + 1, "{method}");
        assert_eq!(records[n]["method"], method);
    }
}

#[test]
fn what_reads_further_back_than_a_rule_allows_is_refused_and_so_is_what_cannot_be_told() {
    let home = home();
    let [reader, archivist] = ["reader", "archivist"].map(|role| home.key(&["--role", role]));
    let server = filled(home);
    let [reader, archivist] = [reader, archivist].map(|key| Visitor::new(&server, &key));
    let query = |query: &str| reader.call("query_metrics", &json!({"window": "15m", "query": query}));
    let last = |tool: &str| server.home.audited(|r| r["tool"] == tool);
    for raw in ["up offset 10d", "max_over_time(up[30d])", "up @ 1000000000", "max_over_time(up[2h:1m])", "rate(up["] {
        let reply = query(raw).body;
        assert!(reply.contains("an-hour"), "{raw}: {reply}");
        let record = last("query_metrics");
        let decided = (&record["rule"], &record["decision"], &record["code"]);
        assert_eq!(decided, (&json!("an-hour"), &json!("deny"), &json!("forbidden")), "{raw}: {record}");
        assert!(record["sources"].as_array().is_none_or(Vec::is_empty), "{raw}: a source was asked: {record}");
    }
    for raw in ["up", "rate(up[5m])", "up offset 20m"] {
        let reply = query(raw).body;
        let record = last("query_metrics");
        assert_eq!(
            (&record["rule"], &record["decision"]),
            (&json!("reader-may-look"), &json!("allow")),
            "{raw}: {reply} {record}"
        );
    }

    // What takes no window reads whatever is kept: for this reader it does not exist.
    let sql = json!({"query": "SELECT Body FROM otel_logs"});
    let trace = json!({"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"});
    for (tool, arguments) in [("sql", &sql), ("get_trace", &trace)] {
        let reply = reader.call(tool, arguments);
        assert!(!reply.body.contains(OLD), "{tool}: {}", reply.body);
        assert_eq!(reply.json()["error"]["code"], -32602, "{tool}: {}", reply.body);
        let record = last(tool);
        assert_eq!((&record["rule"], &record["decision"]), (&json!("an-hour"), &json!("deny")), "{tool}: {record}");
    }
    assert!(archivist.call("sql", &sql).body.contains(OLD), "the record is there for whoever no rule confines");

    // Lists say the same, and so does whoever explains.
    let listed = |visitor: &Visitor| -> Vec<String> {
        let reply = visitor.ask("tools/list", &json!({})).json();
        let tools = reply["result"]["tools"].as_array().unwrap_or_else(|| panic!("{reply}"));
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    let (of_reader, of_archivist) = (listed(&reader), listed(&archivist));
    for (tool, shown) in
        [("query_metrics", true), ("query_logs", true), ("list_services", true), ("sql", false), ("get_trace", false)]
    {
        assert_eq!(of_reader.iter().any(|name| name == tool), shown, "{tool}: {of_reader:?}");
        assert!(of_archivist.iter().any(|name| name == tool), "{tool}: {of_archivist:?}");
    }
    for (raw, rule) in [("up", "reader-may-look"), ("up offset 10d", "an-hour")] {
        let argument = format!("query={raw}");
        let said = server.home.run_ok(&[
            "policy",
            "explain",
            "--json",
            "--role",
            "reader",
            "--tool",
            "query_metrics",
            "--arg",
            &argument,
        ]);
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&said["rule"], &said["allowed"]), (&json!(rule), &json!(rule != "an-hour")), "{said}");
    }
}
