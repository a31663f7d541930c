//! `kill -9` while telemetry comes in and while calls are answered: what was acknowledged is there afterwards, once, every call
//! that was answered has its record, and so has every change that was begun.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{Home, Server, intact, modern, modern_headers, post};
use crate::visitor::Backend;

#[test]
fn nothing_acknowledged_is_lost_in_twenty_crashes() {
    let acknowledged = AtomicU64::new(0);
    let mut home = Home::new("");
    for round in 0..20 {
        let server = Server::start_in(home);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for sender in 0..2 {
                let (server, stop, acknowledged) = (&server, &stop, &acknowledged);
                scope.spawn(move || {
                    let mut n = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let body = format!("crash-test round {round} sender {sender} number {n}");
                        let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.send_log("crash", 9, &body)));
                        if sent.is_ok_and(|reply| reply.status == 200) {
                            acknowledged.fetch_add(1, Ordering::SeqCst);
                        }
                        n += 1;
                    }
                });
            }
            // The first answer of a process may take longer than all others together.
            let (before, began) = (acknowledged.load(Ordering::SeqCst), std::time::Instant::now());
            while acknowledged.load(Ordering::SeqCst) == before && began.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(20 + round * 10));
            server.signal("-KILL");
            std::thread::sleep(Duration::from_millis(20));
            stop.store(true, Ordering::SeqCst);
        });
        home = server.kill();
    }
    let sent = acknowledged.load(Ordering::SeqCst);
    assert!(sent > 40, "only {sent} records were acknowledged: the test proves nothing");
    assert!(intact(&home), "the audit log survives too");
    let server = Server::start_in(home);
    let key = server.home.key(&["--role", "reader"]);
    std::thread::sleep(Duration::from_millis(900));
    let statement = "SELECT count(*) AS n, count(DISTINCT Body) AS d FROM otel_logs WHERE ServiceName = 'crash'";
    let reply = server.call(Some(&key), "sql", &json!({"query": statement})).json();
    let text = reply["result"].to_string();
    let rows = &reply["result"]["structuredContent"]["rows"];
    let cell = |i: usize| rows[0].get(i).and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("{text}"));
    // A record that was written and not yet acknowledged may be there; one that was acknowledged must be.
    assert!(cell(0) >= sent, "{} of {sent} acknowledged records are there", cell(0));
    assert_eq!(cell(0), cell(1), "no record is there twice");
}

#[test]
fn no_answered_call_is_without_its_record_when_the_server_is_killed_in_the_middle() {
    let mut home = Home::new("limits: {calls_per_second: 10000, burst: 10000, tool: {per_second: 10000, burst: 10000}}\n");
    let key = home.key(&["--role", "reader"]);
    let answered = Mutex::new(BTreeSet::new());
    for round in 0..4_u64 {
        let server = Server::start_in(home);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for caller in 0..6_u64 {
                let (server, stop, answered, key) = (&server, &stop, &answered, &key);
                scope.spawn(move || {
                    for number in 0_u64.. {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        // The trace of a call names it, in the answer's record as here.
                        let trace = format!("{:08x}{caller:08x}{number:016x}", round + 1);
                        let mut headers = modern_headers("list_sources");
                        headers.push(("Authorization".into(), format!("Bearer {key}")));
                        headers.push(("traceparent".into(), format!("00-{trace}-00000000000000aa-01")));
                        let body = modern("list_sources", &json!({})).to_string();
                        let asked = std::panic::catch_unwind(|| post(server.mcp, "/mcp", &headers, body.as_bytes()));
                        // Whole, with its end, before the kill: what is cut off was not answered.
                        let whole = asked.is_ok_and(|reply| {
                            let answer: Value = serde_json::from_str(&reply.body).unwrap_or_default();
                            reply.status == 200 && answer["result"]["structuredContent"].is_object()
                        });
                        if whole {
                            answered.lock().unwrap().insert(trace);
                        }
                    }
                });
            }
            let began = std::time::Instant::now();
            let wanted = (usize::try_from(round).unwrap() + 1) * 40;
            while answered.lock().unwrap().len() < wanted && began.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(5));
            }
            server.signal("-KILL");
            stop.store(true, Ordering::SeqCst);
        });
        home = server.kill();
    }
    let answered = answered.into_inner().unwrap();
    assert!(answered.len() >= 160, "only {} calls were answered: the test proves nothing", answered.len());
    assert!(intact(&home), "{:?}", home.run(&["audit", "verify"]));
    let text = home.run_ok(&["audit", "query", "--kind", "call", "--limit", "1000000", "--json"]);
    let mut recorded = BTreeSet::new();
    for record in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let trace = record["trace_id"].as_str().unwrap().to_owned();
        assert!(recorded.insert(trace), "a call is recorded twice: {record}");
    }
    let lost: Vec<&String> = answered.difference(&recorded).collect();
    assert!(lost.is_empty(), "{} of {} answered calls have no record: {lost:?}", lost.len(), answered.len());
    println!("{} calls answered, {} recorded", answered.len(), recorded.len());
}

/// Records about one tool, oldest first.
fn records_of(home: &Home, tool: &str) -> Vec<Value> {
    home.audit().into_iter().filter(|record| record["tool"] == tool).collect()
}

fn statistics(home: &Home) -> Value {
    serde_json::from_str(&home.run_ok(&["audit", "stats", "--json"])).unwrap()
}

#[test]
fn a_change_that_was_begun_is_on_record_when_the_server_is_killed_before_its_end() {
    const TOOL: &str = "shop_create_order";
    let holds = Arc::new(AtomicBool::new(true));
    let (arrived, arrivals) = mpsc::channel();
    let holding = holds.clone();
    let backend = Backend::start(move |_, _| {
        arrived.send(()).unwrap();
        if holding.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_mins(1));
        }
        (200, "[]".to_owned())
    });
    let home = crate::limits::home(&backend, "deadline: 50s");
    let key = home.key(&["--role", "admin"]);
    let server = Server::start_in(home);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // What comes of it does not matter: it is cut off.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                server.call(Some(&key), TOOL, &json!({"item": "x"}));
            }));
        });
        arrivals.recv_timeout(Duration::from_secs(30)).expect("the order reaches the API");
        server.signal("-KILL");
    });
    let home = server.kill();
    assert!(intact(&home), "{:?}", home.run(&["audit", "verify"]));
    let records = records_of(&home, TOOL);
    let [begun] = &records[..] else { panic!("one record, of what was about to be done: {records:#?}") };
    assert_eq!(
        (&begun["kind"], &begun["method"], &begun["decision"]),
        (&json!("intent"), &json!("call.intent"), &json!("allow")),
        "{begun}"
    );
    let principal = format!("key:{}", key.split('_').nth(1).unwrap());
    assert_eq!((&begun["principal"], begun["parameters"].as_str().map(str::len)), (&json!(principal), Some(64)), "{begun}");
    assert!(begun["latency_us"].is_null() && begun["bytes_out"].is_null(), "what is not known yet is absent: {begun}");
    let place = |record: &Value| format!("{}/{}", record["log"].as_str().unwrap(), record["seq"]);
    assert_eq!(statistics(&home)["unended"], json!([place(begun)]));
    let told = home.run_ok(&["audit", "stats"]);
    assert!(told.contains("have no end here") && told.contains(&place(begun)), "{told}");

    // One that ends is named by its end, and counts once.
    holds.store(false, Ordering::SeqCst);
    let server = Server::start_in(home);
    let reply = server.call(Some(&key), TOOL, &json!({"item": "y"})).json();
    assert!(reply["result"]["structuredContent"].is_object(), "{reply}");
    let records = records_of(&server.home, TOOL);
    let [_, second, end] = &records[..] else { panic!("{records:#?}") };
    assert_eq!((&second["kind"], &end["kind"]), (&json!("intent"), &json!("call")), "{records:#?}");
    assert_eq!(end["intent"], json!(place(second)), "{end}");
    let counted = statistics(&server.home);
    assert_eq!((&counted["tools"][TOOL]["records"], &counted["kinds"]["call"]), (&json!(1), &json!(1)), "{counted}");
    assert_eq!(counted["unended"], json!([place(begun)]));
    let export = server.home.run_ok(&["audit", "export", "--format", "ocsf", "--tool", TOOL]);
    let statuses: Vec<Value> =
        export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["status_id"].clone()).collect();
    assert_eq!(statuses, [json!(0), json!(0), json!(1)], "{export}");
}

#[test]
fn a_change_that_cannot_be_put_on_record_is_not_made() {
    const TOOL: &str = "shop_create_order";
    let backend = Backend::start(|_, _| (200, "[]".to_owned()));
    let home = crate::limits::home(
        &backend,
        "write: {per_second: 1000, burst: 1000}, tool: {per_second: 1000, burst: 1000}, calls_per_second: 10000, burst: 10000",
    );
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}audit: {{rotate: 64KiB}}\n")).unwrap();
    let key = home.key(&["--role", "admin"]);
    let server = Server::start_in(home);
    let change = || server.call(Some(&key), TOOL, &json!({"item": "x"})).json();
    assert!(change()["result"]["structuredContent"].is_object());
    // Something lies where the next file would go, for every chain there is.
    let directory = server.home.data().join("audit");
    let chains: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    for chain in chains.iter().filter(|path| path.extension().is_some_and(|ending| ending == "jsonl")) {
        std::fs::write(format!("{}.1", chain.display()), "not a record").unwrap();
    }
    let began = std::time::Instant::now();
    loop {
        let reply = change();
        if reply.to_string().contains("audit log cannot be written") {
            break;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "the log is never full: {reply}");
    }
    for _ in 0..5 {
        assert!(change().to_string().contains("audit log cannot be written"));
    }
    let begun: Vec<Value> = server
        .home
        .run_ok(&["audit", "query", "--kind", "intent", "--limit", "100000", "--json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(begun.len() > 10, "{}", begun.len());
    assert_eq!(backend.seen().len(), begun.len(), "every change that was made was on record before, and no other was made");
}
