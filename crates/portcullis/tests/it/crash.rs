//! `kill -9` while telemetry comes in, twenty times: what was acknowledged is there afterwards, once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::server::{Home, Server, intact};

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
            std::thread::sleep(Duration::from_millis(100 + round * 10));
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
