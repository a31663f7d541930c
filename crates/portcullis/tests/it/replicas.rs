//! Two servers on one store: what one of them let in counts at the other, also when the store is gone.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::profiles::{OUTSIDE, enforced, restarted};
use crate::server::{Home, Server};
use crate::upstreams::until;
use crate::visitor::Visitor;

/// A second server on the data of another one.
fn second(first: &Server, more: &str) -> Home {
    let home = Home::new(more);
    let text = std::fs::read_to_string(&home.config).unwrap();
    let own = format!("data: '{}'", home.data().display());
    let (_, rest) = text.split_once("ingest:").unwrap();
    let rest = rest.split_once('\n').unwrap().1;
    let head = text.split_once("ingest:").unwrap().0.replace(&own, &format!("data: '{}'", first.home.data().display()));
    std::fs::write(&home.config, format!("{head}ingest: {{enabled: false}}\nstore: {{enabled: false}}\n{rest}")).unwrap();
    home
}

fn start_second(home: Home) -> Server {
    let log = std::fs::File::create(home.directory.path().join("log")).unwrap();
    let child = std::process::Command::new(crate::server::BINARY)
        .arg("--config")
        .arg(&home.config)
        .arg("serve")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let server = Server { child, mcp: home.mcp, otlp: home.otlp, admin: home.admin, home };
    until("it listens", || std::net::TcpStream::connect(server.mcp).map(drop).map_err(|e| format!("{e}: {}", server.log())));
    server
}

fn call(visitor: &Visitor) -> Value {
    visitor.call("list_sources", &json!({})).json()
}

fn refused(reply: &Value) -> bool {
    reply.to_string().contains("more than 1 calls per second")
}

/// Two servers on one store that know of each other, and somebody whom both know.
fn both(limits: &str) -> (Server, Server, Visitor, Visitor) {
    let first = Server::start(limits);
    let key = first.home.key(&["--role", "reader"]);
    let second = start_second(second(&first, limits));
    let (a, b) = (Visitor::new(&first, &key), Visitor { mcp: second.mcp, ..Visitor::new(&first, &key) });
    until("they know of each other", || {
        let report = String::from_utf8_lossy(&first.home.run(&["doctor"]).stdout).into_owned();
        if report.contains("2 replicas use this store") { Ok(()) } else { Err(report) }
    });
    until("the first one noticed", || {
        let there = first.home.audit().iter().any(|r| r["method"] == "limits.shared" && r["decision"] == "allow");
        if there { Ok(()) } else { Err(String::new()) }
    });
    // Both know the key.
    until("the key opens", || {
        if call(&a)["result"].is_object() && call(&b)["result"].is_object() { Ok(()) } else { Err(String::new()) }
    });
    (first, second, a, b)
}

#[test]
fn a_rate_holds_over_two_servers_together_and_both_record_the_refusal() {
    let (first, _second, a, b) = both("limits: {calls_per_second: 1, burst: 40}\n");
    let (mut admitted, began) = (0_u64, std::time::Instant::now());
    while !refused(&call(&a)) {
        admitted += 1;
        assert!(admitted <= 40 + began.elapsed().as_secs() + 1, "the burst of one of them");
    }
    // The other one lets in what became due meanwhile, and a credit of ten at most.
    let mut at_the_other = 0;
    while !refused(&call(&b)) {
        at_the_other += 1;
        assert!(at_the_other <= 10 + began.elapsed().as_secs() + 1, "{at_the_other} more at the other one");
    }
    println!("{admitted} at the first, {at_the_other} at the second");
    // One audit log with a chain for each process: both wrote down what they refused.
    let records = first.home.audit();
    let denied: Vec<&Value> = records.iter().filter(|r| r["rule"] == "rate-limit" && r["decision"] == "deny").collect();
    assert!(denied.len() >= 2 && denied.iter().all(|r| r["principal"] == denied[0]["principal"]), "{denied:#?}");
    let chains: BTreeSet<&str> = denied.iter().filter_map(|record| record["log"].as_str()).collect();
    assert_eq!(chains.len(), 2, "{denied:#?}");
}

#[test]
fn a_key_taken_back_is_refused_by_both_servers_within_a_second() {
    let (first, second, a, b) = both("limits: {calls_per_second: 100}\n");
    let id = a.key.split('_').nth(1).unwrap();
    first.home.run_ok(&["key", "revoke", id]);
    // What is called after a second is refused, however long the call itself takes on a busy machine.
    std::thread::sleep(std::time::Duration::from_secs(1));
    for visitor in [&a, &b] {
        assert_eq!(visitor.call("list_sources", &json!({})).status, 401, "{}{}", first.log(), second.log());
    }
    let records = first.home.audit();
    let refused = records.iter().filter(|r| r["rule"] == "revoked_key" && r["decision"] == "deny");
    let chains: BTreeSet<&str> = refused.filter_map(|record| record["log"].as_str()).collect();
    assert_eq!(chains.len(), 2, "both wrote it down: {records:#?}");
}

#[test]
fn an_enforced_profile_counts_the_calls_of_a_minute_at_both_servers() {
    let calls: Vec<(&str, Value)> = (0..10).map(|_| ("list_sources", json!({}))).collect();
    let (home, one) = enforced("", &calls);
    let principal = format!("key:{}", one.key.split('_').nth(1).unwrap());
    let shown: Value = serde_json::from_str(&home.run_ok(&["profile", "show", &principal])).unwrap();
    // Twice what it was seen with in a minute.
    let accepted = 2 * shown["accepted"]["most_per_minute"].as_u64().unwrap();
    let first = restarted(home, "observe", "enforce");
    let second = start_second(second(&first, "profiles: {mode: enforce}\n"));
    let (a, b) = (Visitor { mcp: first.mcp, ..one.clone() }, Visitor { mcp: second.mcp, ..one });
    until("they know of each other", || {
        let records = first.home.audit();
        let shared = records.iter().filter(|r| r["method"] == "limits.shared" && r["decision"] == "allow");
        let chains: BTreeSet<&str> = shared.filter_map(|record| record["log"].as_str()).collect();
        if chains.len() == 2 { Ok(()) } else { Err(format!("{records:#?}")) }
    });
    let second_of_minute = || crate::visitor::now_nanos() / 1_000_000_000 % 60;
    until("a minute with room for all of it", || if second_of_minute() < 35 { Ok(()) } else { Err(String::new()) });
    for _ in 0..accepted {
        let reply = call(&a);
        assert!(reply["result"].is_object() && !reply.to_string().contains(OUTSIDE), "{accepted} are in its profile: {reply}");
    }
    // Fewer than the other one would let through by itself, over a time in which it hears of the first.
    let pause = std::time::Duration::from_secs(12) / u32::try_from(accepted).unwrap();
    let refused = (1..accepted).any(|_| {
        std::thread::sleep(pause);
        call(&b).to_string().contains(OUTSIDE)
    });
    assert!(refused, "{}", second.log());
    let record = first.home.audited(|r| r["rule"] == "behaviour-profile");
    assert!(record["note"].as_str().is_some_and(|note| note.contains("calls in this minute")), "{record}");
    assert_eq!((&record["principal"], &record["decision"]), (&json!(principal), &json!("deny")), "{record}");
}

/// One of the metrics of shared rates.
fn measured(text: &str, name: &str) -> Option<f64> {
    let series = format!("portcullis_shared_rate_{name} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).and_then(|value| value.parse().ok())
}

/// Holds the store so that nobody can write into it, until it is dropped.
struct Held(std::process::Child);

impl Held {
    fn of(server: &Server) -> Self {
        let hold = "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\nc.execute('BEGIN IMMEDIATE')\n\
                    print('held', flush=True)\ntime.sleep(120)";
        let mut child = std::process::Command::new("python3")
            .args(["-c", hold])
            .arg(server.home.data().join("state.sqlite"))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 4];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_store_that_cannot_be_written_divides_the_rate_and_is_recorded() {
    let limits = "limits: {calls_per_second: 1, burst: 40}\n";
    let (first, second, a, b) = both(limits);
    let scraper = first.home.key(&["--scope", "metrics"]);
    until("what is exchanged is measured", || {
        let text = crate::admin::get(&first, &scraper, "/metrics").body;
        let shares = measured(&text, "replicas") == Some(1.0) && measured(&text, "divided") == Some(0.0);
        let exchanged = measured(&text, "boards_written_total") > Some(0.0) && measured(&text, "boards_read_total") > Some(0.0);
        if shares && exchanged && measured(&text, "age_seconds") < Some(5.0) { Ok(()) } else { Err(text) }
    });
    let held = Held::of(&first);
    let began = std::time::Instant::now();
    let mut admitted = 0_u64;
    let mut divided = || {
        for visitor in [&a, &b] {
            admitted += u64::from(!refused(&call(visitor)));
        }
        let records = first.home.audit();
        let of = |r: &&Value| r["method"] == "limits.shared" && r["decision"] == "deny" && r["kind"] == "error";
        records.iter().filter(of).filter_map(|r| r["log"].as_str().map(str::to_owned)).collect::<BTreeSet<_>>().len() == 2
    };
    while !divided() {
        assert!(began.elapsed().as_secs() < 60, "{}{}", first.log(), second.log());
    }
    // Each lets in its half from now on; nobody waits for the store.
    for visitor in [&a, &b] {
        while !refused(&call(visitor)) {
            admitted += 1;
        }
    }
    let text = crate::admin::get(&first, &scraper, "/metrics").body;
    assert_eq!((measured(&text, "divided"), measured(&text, "replicas")), (Some(1.0), Some(1.0)), "{text}");
    assert!(measured(&text, "exchange_failures_total") > Some(0.0) && measured(&text, "age_seconds") > Some(0.0), "{text}");
    let most = 40 + 2 * 10 + began.elapsed().as_secs() + 1;
    assert!(admitted <= most, "{admitted} of at most {most}");
    drop(held);
    until("they share again", || {
        let shared = first.home.audit().iter().filter(|r| r["method"] == "limits.shared" && r["decision"] == "allow").count();
        if shared >= 4 { Ok(()) } else { Err(shared.to_string()) }
    });
}
