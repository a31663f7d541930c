//! Servers that are not ours, behind the gate and beside it: what passes through is the same on both ways, but for what the
//! gate adds and takes out by design.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{accept_all_despite, home, listed, program, sees, text, tools, unframed, until};
use crate::server::{Server, free_port};
use crate::visitor::Visitor;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A file the installation brings; without it a test says so and passes.
fn brought(path: &str) -> Option<String> {
    let file = repository().join(path);
    if file.is_file() {
        return Some(file.to_str().unwrap().to_owned());
    }
    crate::server::skipped(&format!("{path} is not there; run .ci/install"));
    None
}

fn node() -> String {
    let pinned = repository().join("tests/clients/node/node_modules/.bin/node");
    pinned.canonicalize().map_or_else(|_| program("node"), |path| path.to_str().unwrap().to_owned())
}

const EVERYTHING: &str = "tests/clients/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js";

/// A session with a program, without anything between.
struct Direct {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    next: u64,
    heard: Vec<Value>,
    /// Questions it was asked.
    asked: Vec<Value>,
}

impl Direct {
    fn start(command: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(command)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut this = Self { child, input, output, next: 1, heard: Vec::new(), asked: Vec::new() };
        let able = json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}});
        let client =
            json!({"protocolVersion": "2025-11-25", "capabilities": able, "clientInfo": {"name": "direct", "version": "1"}});
        this.ask("initialize", &client);
        this.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        this
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.input, "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        let id = self.next;
        self.next += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the server ended");
            let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
            match (message["method"].as_str(), &message["id"]) {
                (None, given) if *given == json!(id) => return message,
                (Some(method @ ("elicitation/create" | "sampling/createMessage" | "roots/list")), given) => {
                    let answer = json!({"jsonrpc": "2.0", "id": given, "result": answer_to(method)});
                    self.send(&answer);
                    self.asked.push(message);
                }
                (Some(_), given) if !given.is_null() => {
                    let refusal = json!({"jsonrpc": "2.0", "id": given, "error": {"code": -32601, "message": "no"}});
                    self.send(&refusal);
                }
                _ => self.heard.push(message),
            }
        }
    }
}

/// What a client answers on both ways.
fn answer_to(method: &str) -> Value {
    match method {
        "sampling/createMessage" => {
            json!({"role": "assistant", "content": {"type": "text", "text": "Four."}, "model": "m", "stopReason": "endTurn"})
        }
        "roots/list" => json!({"roots": [{"uri": "file:///srv/project", "name": "project"}]}),
        _ => json!({"action": "decline"}),
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without what the gate adds to every text, and without what each side says of itself.
fn plain(value: &Value) -> Value {
    match value {
        Value::String(given) => {
            let inside = given.split_once("<untrusted-data ").and_then(|(_, rest)| rest.split_once(">\n"));
            let inside = inside.and_then(|(_, rest)| rest.rsplit_once("\n</untrusted-data"));
            json!(inside.map_or(given.as_str(), |(inside, _)| inside))
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(members) => {
            let own = ["resultType", "ttlMs", "cacheScope", "execution"];
            let mut kept: serde_json::Map<String, Value> =
                members.iter().filter(|(name, _)| !own.contains(&name.as_str())).map(|(n, v)| (n.clone(), plain(v))).collect();
            if let Some(Value::Object(meta)) = kept.get_mut("_meta") {
                meta.retain(|name, _| !name.starts_with("io.modelcontextprotocol/") && !name.starts_with("portcullis/"));
                if meta.is_empty() {
                    kept.shift_remove("_meta");
                }
            }
            // `isError: false` and its absence are the same.
            if kept.get("isError") == Some(&json!(false)) {
                kept.shift_remove("isError");
            }
            Value::Object(kept)
        }
        // 1 and 1.0 are one number.
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), |number| json!(number)),
        other => other.clone(),
    }
}

fn by(member: &str, listed: &Value) -> BTreeMap<String, Value> {
    listed.as_array().unwrap().iter().map(|entry| (entry[member].as_str().unwrap().to_owned(), plain(entry))).collect()
}

/// Waits until these are there and nothing is added any more.
fn looked_at(server: &Server, names: &[&str]) {
    until("everything was looked at", || {
        let all = listed(&server.home);
        std::thread::sleep(Duration::from_millis(500));
        let settled = all.len() == listed(&server.home).len();
        let there = |name: &&str| all.iter().any(|(listed, _)| listed == name);
        if settled && names.iter().all(there) { Ok(()) } else { Err(format!("{all:?} {}", server.log())) }
    });
}

/// A server with the everything server behind it, everything accepted and writing enabled.
fn gate(entry: &str, waits_for: &str) -> (Server, Visitor) {
    let settings = "write: {enable: ['upstream:everything']}\nlimits: {answer: 4MiB}\n";
    let server = Server::start_in(home(&[entry.to_owned()], settings));
    looked_at(&server, &[waits_for]);
    accept_all_despite(&server.home, "everything");
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, waits_for, true);
    (server, visitor)
}

#[test]
fn everything_passes_through_unchanged() {
    let Some(script) = brought(EVERYTHING) else { return };
    let node = node();
    let (server, visitor) = gate(&asking(&node, &script), "get-tiny-image");
    let mut direct = Direct::start(&node, &[&script, "stdio"], &[]);
    // Lists.
    let beside = by("name", &direct.ask("tools/list", &json!({}))["result"]["tools"]);
    assert!(beside.contains_key("trigger-sampling-request") && beside.contains_key("simulate-research-query"), "{beside:?}");
    let behind = by("name", &visitor.ask("tools/list", &json!({})).json()["result"]["tools"]);
    for (name, definition) in &beside {
        assert_eq!(behind.get(name), Some(definition), "{name}");
    }
    let prompts = by("name", &direct.ask("prompts/list", &json!({}))["result"]["prompts"]);
    let behind = by("name", &visitor.ask("prompts/list", &json!({})).json()["result"]["prompts"]);
    for (name, definition) in &prompts {
        assert_eq!(behind.get(name), Some(definition), "{name}");
    }
    let resources = by("uri", &direct.ask("resources/list", &json!({}))["result"]["resources"]);
    let behind = by("uri", &visitor.ask("resources/list", &json!({})).json()["result"]["resources"]);
    for (uri, definition) in &resources {
        assert_eq!(behind.get(uri), Some(definition), "{uri}");
    }
    // Calls.
    for (name, arguments) in [
        ("echo", json!({"message": "hello"})),
        ("get-sum", json!({"a": 2, "b": 3})),
        ("get-annotated-message", json!({"messageType": "error", "includeImage": true})),
        ("get-structured-content", json!({"location": "Chicago"})),
        ("get-tiny-image", json!({})),
        ("get-resource-links", json!({"count": 3})),
        ("get-resource-reference", json!({"resourceType": "Blob", "resourceId": 2})),
        ("get-env", json!({})),
    ] {
        let call = json!({"name": name, "arguments": arguments});
        let beside = timeless(&plain(&direct.ask("tools/call", &call)["result"]));
        let behind = timeless(&plain(&visitor.ask("tools/call", &call).json()["result"]));
        assert_eq!(behind, beside, "{name}");
    }
    // Prompts, resources, completions.
    for (name, arguments) in [
        ("simple-prompt", json!({})),
        ("args-prompt", json!({"city": "Oslo"})),
        ("resource-prompt", json!({"resourceType": "Text", "resourceId": "1"})),
    ] {
        let get = json!({"name": name, "arguments": arguments});
        let beside = timeless(&plain(&direct.ask("prompts/get", &get)["result"]));
        let behind = timeless(&plain(&visitor.ask("prompts/get", &get).json()["result"]));
        assert_eq!(behind, beside, "{name}");
    }
    for uri in ["demo://resource/dynamic/text/1", "demo://resource/dynamic/blob/2"] {
        let beside = timeless(&plain(&direct.ask("resources/read", &json!({ "uri": uri }))["result"]));
        let behind = timeless(&plain(&visitor.ask("resources/read", &json!({ "uri": uri })).json()["result"]));
        assert_eq!(behind, beside, "{uri}");
    }
    let complete =
        json!({"ref": {"type": "ref/prompt", "name": "completable-prompt"}, "argument": {"name": "department", "value": "S"}});
    let beside = direct.ask("completion/complete", &complete)["result"]["completion"].clone();
    let behind = visitor.ask("completion/complete", &complete).json()["result"]["completion"].clone();
    assert_eq!(behind, beside);
    let departments = beside["values"].as_array().cloned().unwrap_or_default();
    assert!(!departments.is_empty(), "{beside}");
    // What fits the second argument depends on the first.
    let mut of_departments = Vec::new();
    for department in departments {
        let complete = json!({"ref": {"type": "ref/prompt", "name": "completable-prompt"},
            "argument": {"name": "name", "value": ""}, "context": {"arguments": {"department": department}}});
        let beside = direct.ask("completion/complete", &complete)["result"]["completion"].clone();
        let behind = visitor.ask("completion/complete", &complete).json()["result"]["completion"].clone();
        assert_eq!(behind, beside, "{department}");
        of_departments.push(behind["values"].clone());
    }
    assert!(of_departments.iter().any(|names| names.as_array().is_some_and(|names| !names.is_empty())), "{of_departments:?}");
    // Progress, and a question to the user.
    let slow = json!({"name": "trigger-long-running-operation", "arguments": {"duration": 1, "steps": 3}, "_meta": {"progressToken": "p"}});
    let streamed = visitor.ask("tools/call", &slow).body;
    assert!(streamed.matches("notifications/progress").count() >= 2, "{streamed}");
    assert!(streamed.contains("Long running operation completed"), "{streamed}");
    if behind_has(&visitor, "trigger-elicitation-request") {
        let able = json!({"elicitation": {"form": {}}});
        let call = json!({"name": "trigger-elicitation-request", "arguments": {}});
        let asked = visitor.ask_able("tools/call", &call, &able).json();
        assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
        let responses = json!({"question": {"action": "decline"}});
        let again = json!({"name": "trigger-elicitation-request", "arguments": {},
            "requestState": asked["result"]["requestState"], "inputResponses": responses});
        let behind = plain(&visitor.ask_able("tools/call", &again, &able).json()["result"]);
        assert_eq!(behind, plain(&direct.ask("tools/call", &call)["result"]));
    }
    server.home.audited(|r| r["tool"] == "echo" && r["kind"] == "call" && r["sources"] == json!(["everything"]));
}

/// The everything server with all it may ask, a process for each caller.
fn asking(node: &str, script: &str) -> String {
    format!(
        "- {{name: everything, stdio: {{command: {node}, args: [{script}, stdio], per_principal: true}}, \
         questions: {{sampling: allow, links: ['https://modelcontextprotocol.io', 'https://example.com'], \
         roots: [{{uri: 'file:///srv/project', name: project}}]}}}}\n"
    )
}

#[test]
fn questions_and_tasks_of_everything_pass_through_as_beside() {
    let Some(script) = brought(EVERYTHING) else { return };
    let node = node();
    let (server, visitor) = gate(&asking(&node, &script), "trigger-sampling-request");
    let mut direct = Direct::start(&node, &[&script, "stdio"], &[]);
    let able = json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}});
    // The caller's model, and a page.
    for (name, arguments) in [
        ("trigger-sampling-request", json!({"prompt": "two and two?", "maxTokens": 50})),
        ("trigger-url-elicitation", json!({"url": "https://example.com/x", "message": "Please", "elicitationId": "e"})),
        // A page that has to be opened before the call.
        ("trigger-url-elicitation", json!({"url": "https://example.com/y", "errorPath": true})),
    ] {
        let call = json!({"name": name, "arguments": arguments});
        let beside = direct.ask("tools/call", &call);
        let mut asked = visitor.ask_able("tools/call", &call, &able).json();
        let (key, question) =
            asked["result"]["inputRequests"].as_object().and_then(|all| all.iter().next()).unwrap_or_else(|| panic!("{asked}"));
        if beside["error"]["code"] == -32042 {
            assert_eq!(question["params"]["url"], "https://modelcontextprotocol.io/", "{asked}");
            let declined = json!({(key.clone()): {"action": "decline"}});
            asked = again(&visitor, &call, &asked, &declined, &able);
            assert!(asked.to_string().contains("did not agree"), "{asked}");
            continue;
        }
        let direct_question = direct.asked.last().unwrap();
        assert_eq!(question["method"], direct_question["method"]);
        for member in ["messages", "maxTokens", "url", "elicitationId"] {
            assert_eq!(question["params"].get(member), direct_question["params"].get(member), "{name}: {member}");
        }
        // Behind who asks.
        if let Some(own_words) = direct_question["params"]["systemPrompt"].as_str() {
            let shown = question["params"]["systemPrompt"].as_str().unwrap_or_default();
            assert!(shown.starts_with("Server 'everything' asks for this text") && shown.ends_with(own_words), "{shown}");
        }
        let responses = json!({(key.clone()): answer_to(question["method"].as_str().unwrap())});
        let behind = again(&visitor, &call, &asked, &responses, &able);
        assert_eq!(plain(&behind["result"]), plain(&beside["result"]), "{name}");
    }
    // Roots are the operator's.
    let call = json!({"name": "get-roots-list", "arguments": {}});
    let beside = plain(&direct.ask("tools/call", &call)["result"]);
    assert!(beside.to_string().contains("file:///srv/project"), "{beside}");
    assert_eq!(plain(&visitor.ask_able("tools/call", &call, &able).json()["result"]), beside);
    // A tool that only runs as a task.
    let arguments = json!({"topic": "bridges", "ambiguous": false});
    let created =
        direct.ask("tools/call", &json!({"name": "simulate-research-query", "arguments": arguments, "task": {"ttl": 60_000}}));
    let task = created["result"]["task"]["taskId"].clone();
    let behind = visitor.ask("tools/call", &json!({"name": "simulate-research-query", "arguments": arguments})).json();
    let beside = direct.ask("tasks/result", &json!({ "taskId": task }));
    let report = |reply: &Value| text(&json!({"result": reply["result"]}));
    assert_eq!(report(&behind), report(&beside));
    server.home.audited(|r| r["method"] == "upstream.question" && r["tool"] == "everything/tool/trigger-sampling-request");
}

/// Goes on with a call that asked something.
fn again(visitor: &Visitor, call: &Value, asked: &Value, responses: &Value, able: &Value) -> Value {
    let mut again = call.clone();
    again["requestState"] = asked["result"]["requestState"].clone();
    again["inputResponses"] = responses.clone();
    visitor.ask_able("tools/call", &again, able).json()
}

#[test]
fn resources_of_everything_announce_their_changes() {
    let Some(script) = brought(EVERYTHING) else { return };
    let node = node();
    let entry = format!("- {{name: everything, stdio: {{command: {node}, args: [{script}, stdio]}}}}\n");
    let (server, visitor) = gate(&entry, "toggle-subscriber-updates");
    let uri = "demo://resource/dynamic/text/1";
    let said = super::watching::watch(&server, &visitor, uri);
    super::watching::wait_for(&said, "notifications/subscriptions/acknowledged");
    until("it is watched", || {
        let watched = server.home.audit().iter().any(|r| r["method"] == "resources/subscribe" && r["decision"] == "allow");
        if watched { Ok(()) } else { Err(server.log()) }
    });
    visitor.call("toggle-subscriber-updates", &json!({}));
    let told = super::watching::wait_for(&said, "notifications/resources/updated");
    assert_eq!(told["params"]["uri"], uri);
}

fn behind_has(visitor: &Visitor, name: &str) -> bool {
    tools(visitor).iter().any(|tool| tool == name)
}

/// Without the time of day some results tell.
fn timeless(value: &Value) -> Value {
    match value {
        Value::String(given) if given.contains("created at") => json!(given.split("created at").next().unwrap()),
        Value::Array(items) => items.iter().map(timeless).collect(),
        Value::Object(members) => {
            let times = |(name, member): (&String, &Value)| match name.as_str() {
                "lastModified" => (name.clone(), Value::Null),
                // Base64 of a text with the time in it: its beginning is compared.
                "blob" => (name.clone(), json!(member.as_str().unwrap_or_default().get(..40))),
                _ => (name.clone(), timeless(member)),
            };
            Value::Object(members.iter().map(times).collect())
        }
        other => other.clone(),
    }
}

/// A program that listens; ended with the test.
struct Listening(Child);

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listen(command: &str, arguments: &[&str], port: u16) -> Listening {
    let child = Command::new(command)
        .args(arguments)
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let child = Listening(child);
    until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|e| e.to_string()));
    child
}

#[test]
fn everything_over_http_in_sessions_and_over_the_old_events() {
    let Some(script) = brought(EVERYTHING) else { return };
    let preload = format!("{}/tests/it/upstreams/loopback.cjs", env!("CARGO_MANIFEST_DIR"));
    for (mode, way, path) in [("streamableHttp", "http", "mcp"), ("sse", "sse", "sse")] {
        let port = free_port().port();
        let listening = listen(&node(), &["--require", &preload, &script, mode], port);
        let entry = format!(
            "- {{name: everything, {way}: {{url: 'http://127.0.0.1:{port}/{path}', allow_addresses: [loopback]}}, refresh: 2s}}\n"
        );
        let (server, visitor) = gate(&entry, "get-tiny-image");
        let reply = visitor.call("echo", &json!({"message": mode})).json();
        assert_eq!(text(&reply), format!("Echo: {mode}"), "{reply}");
        let slow = json!({"name": "trigger-long-running-operation", "arguments": {"duration": 1, "steps": 2}, "_meta": {"progressToken": 7}});
        let streamed = visitor.ask("tools/call", &slow).body;
        assert!(streamed.contains("notifications/progress") && streamed.contains("completed"), "{mode}: {streamed}");
        let read = visitor.ask("resources/read", &json!({"uri": "demo://resource/dynamic/text/1"})).json();
        assert!(read["result"]["contents"][0]["text"].is_string(), "{read}");
        // The upstream restarts: what it kept of the session is gone, and nobody notices.
        drop(listening);
        let _again = listen(&node(), &["--require", &preload, &script, mode], port);
        until("it answers again", || {
            let reply = visitor.call("echo", &json!({"message": "again"})).json();
            if reply["result"]["isError"] == false { Ok(()) } else { Err(format!("{mode}: {reply}")) }
        });
        drop(server);
    }
}

#[test]
fn a_python_server_in_the_stateless_revision_over_both_ways() {
    let Some(_) = brought(".venv/bin/python") else { return };
    let python = repository().join(".venv/bin/python").to_str().unwrap().to_owned();
    let script = format!("{}/tests/it/upstreams/tools_server.py", env!("CARGO_MANIFEST_DIR"));
    let port = free_port().port();
    let _server = listen(&python, &[&script, &port.to_string()], port);
    for way in [
        format!("stdio: {{command: {python}, args: [{script}]}}, protocol: '2026-07-28'"),
        format!("http: {{url: 'http://127.0.0.1:{port}/mcp', allow_addresses: [loopback]}}, protocol: '2026-07-28'"),
        format!("http: {{url: 'http://127.0.0.1:{port}/mcp', allow_addresses: [loopback]}}, protocol: session"),
    ] {
        let (server, visitor) = gate(&format!("- {{name: everything, {way}}}\n"), "add");
        sees(&visitor, "shout", true);
        for (list, what) in
            [("prompts/list", "greeting"), ("resources/list", "memo://today"), ("resources/templates/list", "by-name")]
        {
            until(what, || {
                let offered = visitor.ask(list, &json!({})).body;
                if offered.contains(what) { Ok(()) } else { Err(offered) }
            });
        }
        let reply = visitor.call("add", &json!({"a": 20, "b": 22})).json();
        assert_eq!(reply["result"]["structuredContent"], json!({"total": 42}), "{way}: {reply}");
        let reply = visitor.call("shout", &json!({"text": "grüß"})).json();
        assert!(reply["result"]["content"].is_array(), "{way}: {reply}");
        assert_eq!(text(&reply), "GRÜSS");
        let prompt = visitor.ask("prompts/get", &json!({"name": "greeting", "arguments": {"name": "Ada"}})).json();
        assert_eq!(unframed(&prompt["result"]["messages"][0]["content"]["text"]), "Say hello to Ada.", "{prompt}");
        for (uri, said) in [("memo://today", "nothing"), ("memo://by-name/x", "memo x")] {
            let read = visitor.ask("resources/read", &json!({ "uri": uri })).json();
            assert!(read["result"]["contents"][0]["text"].as_str().unwrap().contains(said), "{way}: {read}");
        }
        let refused = visitor.call("add", &json!({"a": "x", "b": 1}));
        assert!(refused.body.contains("a: "), "{}", refused.body);
        server.home.audited(|r| r["tool"] == "add" && r["kind"] == "refused" && r["rule"] == "argument-schema");
    }
}

#[test]
fn published_servers_for_grafana_and_kubernetes_are_classed_and_held_like_any_other() {
    let platform = if cfg!(target_arch = "aarch64") { "linux-arm64" } else { "linux-amd64" };
    let packaged =
        format!("tests/clients/node/node_modules/kubernetes-mcp-server-{platform}/bin/kubernetes-mcp-server-{platform}");
    let Some(kubernetes) = brought(&packaged) else { return };
    let packaged = std::fs::read_dir(repository().join(".venv/lib")).into_iter().flatten().filter_map(Result::ok);
    let grafana = packaged.map(|lib| lib.path().join("site-packages/mcp_grafana/bin/mcp-grafana")).find(|path| path.is_file());
    let Some(grafana) = grafana else {
        crate::server::skipped("mcp-grafana is not there; run .ci/install");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\n\
         contexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c\nusers: [{name: u, user: {token: abc-secret-token}}]\n",
    )
    .unwrap();
    let entries = [
        format!(
            "- {{name: kube, stdio: {{command: {kubernetes}, args: [--kubeconfig, {}], env: {{HOME: /tmp}}}}}}\n",
            kubeconfig.display()
        ),
        format!(
            "- {{name: grafana, stdio: {{command: {}, env: {{GRAFANA_URL: 'http://127.0.0.1:9', GRAFANA_SERVICE_ACCOUNT_TOKEN: glsa-not-a-real-token, HOME: /tmp}}}}}}\n",
            grafana.display()
        ),
    ];
    let server = Server::start_in(home(&entries, "write: {enable: ['upstream:kube']}\n"));
    let visitor = super::visitor(&server, &["--role", "admin"]);
    looked_at(&server, &["pods_list", "query_prometheus"]);
    for upstream in ["kube", "grafana"] {
        accept_all_despite(&server.home, upstream);
    }
    sees(&visitor, "pods_list", true);
    sees(&visitor, "query_prometheus", true);
    let visible = tools(&visitor);
    assert!(visible.contains(&"pods_delete".to_owned()), "its category is enabled");
    assert!(!visible.contains(&"update_dashboard".to_owned()), "writes, and its category is not enabled: {visible:?}");
    assert!(visible.contains(&"search_dashboards".to_owned()));
    let refused = visitor.call("update_dashboard", &json!({}));
    assert_eq!(refused.json()["error"]["code"], -32602);
    server.home.audited(|r| r["tool"] == "update_dashboard" && r["decision"] == "deny");
    // Both are there and cannot reach what is behind them: a failure the model is told of, without what was presented.
    let pods = visitor.call("pods_list", &json!({}));
    assert_eq!(pods.json()["result"]["isError"], true, "{}", pods.body);
    let view = visitor.call("configuration_view", &json!({"minified": false}));
    assert!(!view.body.contains("abc-secret-token"), "{}", view.body);
    let dashboards = visitor.call("search_dashboards", &json!({"query": "x"}));
    assert!(!dashboards.body.contains("glsa-not-a-real-token"), "{}", dashboards.body);
    let approval = visitor.call("pods_delete", &json!({"name": "x", "namespace": "y"}));
    assert!(approval.body.contains("approval"), "{}", approval.body);
}
