//! `kill -9` while telemetry comes in and while calls are answered: what was acknowledged is there afterwards, once, and every
//! call that was answered has its record.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{Home, Server, intact, modern, modern_headers, post};

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
