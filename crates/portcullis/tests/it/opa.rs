//! An outside policy over the real doors: its no is recorded, and so is its silence.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::server::{Home, Server};

/// A service that speaks the Data API: denies what is about the service `payment`, and can be told to answer nothing clear.
struct Opa {
    url: String,
    asked: Arc<AtomicUsize>,
    undefined: Arc<AtomicBool>,
}

fn opa() -> Opa {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, undefined) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, silent) = (asked.clone(), undefined.clone());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut text = String::new();
            let mut part = [0; 16_384];
            // One request for each connection; its body is JSON that ends with the input.
            while let Ok(read @ 1..) = stream.read(&mut part) {
                text.push_str(&String::from_utf8_lossy(&part[..read]));
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                let Ok(question) = serde_json::from_str::<Value>(body) else { continue };
                assert!(text.starts_with("POST /v1/data/portcullis/allow "), "{text}");
                let input = &question["input"];
                if input.get("tool").is_some() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                let answer = match (silent.load(Ordering::SeqCst), input["arguments"]["service"] == "payment") {
                    (true, _) => json!({}),
                    (false, denied) => json!({"result": !denied}),
                };
                let body = answer.to_string();
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
                let _ = stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes());
                break;
            }
        }
    });
    Opa { url, asked, undefined }
}

fn home(url: &str) -> Home {
    Home::new(&format!(
        "external_policy: {{url: '{url}', path: portcullis/allow, allow_addresses: [loopback], cache: {{entries: 0}}}}\n"
    ))
}

fn doctor(home: &Home) -> (bool, Value) {
    let output = home.run(&["doctor", "--json"]);
    let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
    let line = lines.as_array().unwrap().iter().find(|l| l["name"] == "external policy").unwrap().clone();
    (output.status.success(), line)
}

#[test]
fn its_no_and_its_silence_refuse_and_are_recorded() {
    let opa = opa();
    let home = home(&opa.url);
    let key = home.key(&["--role", "reader"]);
    assert_eq!(doctor(&home).1["state"], "on");
    let server = Server::start_in(home);
    let allowed = server.call(Some(&key), "query_logs", &json!({"service": "cart"}));
    assert!(!allowed.body.contains("policy"), "{}", allowed.body);
    server.home.audited(|r| r["tool"] == "query_logs" && r["decision"] == "allow");
    let denied = server.call(Some(&key), "query_logs", &json!({"service": "payment"}));
    assert!(denied.body.contains("a policy forbids this call"), "{}", denied.body);
    let record = server.home.audited(|r| r["tool"] == "query_logs" && r["rule"] == "external-policy");
    assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("forbidden")), "{record}");
    assert_eq!(opa.asked.load(Ordering::SeqCst), 2);
    opa.undefined.store(true, Ordering::SeqCst);
    let unclear = server.call(Some(&key), "query_logs", &json!({"service": "cart"}));
    assert!(unclear.body.contains("gave no answer"), "{}", unclear.body);
    let record = server.home.audited(|r| r["rule"] == "external-policy" && r["code"] == "unavailable");
    assert_eq!(record["decision"], "deny", "{record}");
}

#[test]
fn resources_prompts_and_completions_are_asked_about_as_well() {
    let opa = opa();
    let home = home(&opa.url);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = crate::visitor::Visitor::new(&server, &key);
    let listed = visitor.ask("resources/list", &json!({})).json();
    let uri = listed["result"]["resources"][0]["uri"].as_str().expect("a resource").to_owned();
    let prompts = visitor.ask("prompts/list", &json!({})).json();
    let prompt = prompts["result"]["prompts"][0].clone();
    let name = prompt["name"].as_str().expect("a prompt").to_owned();
    let wanted = prompt["arguments"].as_array().cloned().unwrap_or_default();
    let argument = wanted.first().map_or("service", |a| a["name"].as_str().unwrap()).to_owned();
    let needed: serde_json::Map<String, Value> = wanted
        .iter()
        .filter(|a| a["required"] == true)
        .map(|a| (a["name"].as_str().unwrap().to_owned(), json!("cart")))
        .collect();
    let lookups = [
        ("resources/read", json!({"uri": uri})),
        ("prompts/get", json!({"name": name, "arguments": needed})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": argument, "value": "c"}}),
        ),
    ];
    let mut before = 0;
    // Values are what a tool lists, so it is asked about that too, as it is for a resource with a tool behind it.
    let behind = ("resources/read", json!({"uri": "portcullis://service/cart"}));
    for ((method, params), asked) in lookups.iter().chain([&behind]).zip([1, 1, 2, 2]) {
        let answer = visitor.ask(method, params).json();
        assert!(answer["result"].is_object(), "{method}: {answer}");
        before += asked;
        assert_eq!(opa.asked.load(Ordering::SeqCst), before, "{method} was not asked about");
    }
    opa.undefined.store(true, Ordering::SeqCst);
    for (method, params) in &lookups {
        let refused = visitor.ask(method, params);
        assert!(refused.body.contains("gave no answer"), "{method}: {}", refused.body);
        let record = server.home.audited(|r| r["method"] == *method && r["rule"] == "external-policy");
        assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("unavailable")), "{record}");
    }
}

#[test]
fn a_service_that_is_down_refuses_every_call_and_the_doctor_says_so() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = home(&format!("http://{nobody}"));
    let key = home.key(&["--role", "admin"]);
    let (well, line) = doctor(&home);
    assert!(!well && line["state"] == "broken", "{line}");
    assert!(line["detail"].as_str().unwrap().contains("calls are refused"), "{line}");
    let server = Server::start_in(home);
    let refused = server.call(Some(&key), "list_services", &json!({}));
    assert!(refused.body.contains("gave no answer") || refused.body.contains("unavailable"), "{}", refused.body);
    let record = server.home.audited(|r| r["rule"] == "external-policy" && r["code"] == "unavailable");
    assert_eq!(record["decision"], "deny", "{record}");
    assert!(record["sources"].as_array().is_none_or(Vec::is_empty), "a source was asked: {record}");
}
