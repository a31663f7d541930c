//! Sinks against a receiver that is down, slow, or refuses: nothing is lost, nothing comes twice but at a seam, calls stop
//! where the operator wants that.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_audit::{
    AuditFilter, AuditLog, AuditOptions, EventKind, Retention, Shippers, SinkPace, SinkSettings, SinkState, Sinks, erase, query,
    sink_states,
};
use portcullis_egress::{Credential, LiteralSecrets, SecretFault, SecretProvider, SecretResolver};
use portcullis_model::{Clock, PrincipalId, RiskClass, Secret, SecretReference, SystemClock};
use portcullis_policy::{Policies, Vocabulary};

use crate::receiver::{Receiver, Request, SECRET, ok};
use crate::{call, clock, files, open, open_rotating};

const QUICK: SinkPace = SinkPace {
    poll: Duration::from_millis(5),
    watch: Duration::from_millis(10),
    lock: Duration::from_millis(20),
    first_pause: Duration::from_millis(5),
    longest_pause: Duration::from_millis(40),
};

fn webhook(address: SocketAddr, more: &str) -> SinkSettings {
    let text = format!(
        r#"{{"name":"siem","to":{{"webhook":{{"url":"http://{address}/in","secret":"{SECRET}","batch":20,"timeout":"1s"}}}}{more}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

async fn feed(log: &Arc<AuditLog>, sink: &SinkSettings) -> Shippers {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    feed_by(log, sink, &clock).await
}

async fn feed_by(log: &Arc<AuditLog>, sink: &SinkSettings, clock: &Arc<dyn Clock>) -> Shippers {
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    let sinks = Sinks::new(std::slice::from_ref(sink), &mut |grant| policies.charter(grant), &LiteralSecrets).unwrap();
    sinks.start_with(log, clock, QUICK).await
}

fn state(directory: &Path, sink: &SinkSettings) -> SinkState {
    sink_states(directory, std::slice::from_ref(sink), SystemClock.now()).remove(0)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn append(log: &AuditLog, records: usize) {
    for index in 0..records {
        log.append(call(format!("t{index}"))).unwrap();
    }
}

/// Every record of the directory, by chain and number.
fn written(directory: &Path) -> BTreeSet<(String, u64)> {
    let records = query(directory, AuditFilter::default()).unwrap().map(Result::unwrap);
    records.map(|r| (r.chain, r.sequence)).collect()
}

fn methods(directory: &Path) -> Vec<String> {
    let filter = AuditFilter { kinds: [EventKind::Sink].into(), ..AuditFilter::default() };
    query(directory, filter).unwrap().map(|r| r.unwrap().event.method.unwrap().into_owned()).collect()
}

/// Everything that was written has come, and nothing twice.
async fn all_came_once(directory: &Path, receiver: &Receiver) {
    until("everything arrives", || receiver.taken().iter().cloned().collect::<BTreeSet<_>>() == written(directory)).await;
    let taken = receiver.taken();
    assert_eq!(taken.len(), taken.iter().collect::<BTreeSet<_>>().len(), "nothing comes twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_comes_once_in_order_and_signed() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(|_, _| ok());
    // Rotation at every few records, while the sink reads.
    let log = Arc::new(open_rotating(directory.path(), 3_000));
    let sink = webhook(receiver.address, "");
    log.append(call("before")).unwrap();
    let shippers = feed(&log, &sink).await;
    let writer = {
        let log = Arc::clone(&log);
        std::thread::spawn(move || {
            for index in 0..500 {
                log.append(call(format!("t{index}"))).unwrap();
                if index % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        })
    };
    writer.join().unwrap();
    all_came_once(directory.path(), &receiver).await;
    let sequences: Vec<u64> = receiver.taken().into_iter().map(|(_, sequence)| sequence).collect();
    assert!(sequences.is_sorted() && sequences.len() > 520, "headers of files are records too: {}", sequences.len());
    for request in receiver.requests() {
        assert!(request.is_signed(SECRET) && !request.is_signed("another secret, as long"));
        assert!(request.records().len() <= 20, "no batch is larger than configured");
    }
    until("the state is known", || shippers.states().first().is_some_and(|s| s.lag_records == 0)).await;
    shippers.stop().await;
    let state = state(directory.path(), &sink);
    assert_eq!((state.lag_records, state.lag_seconds, state.delivered), (0, 0, sequences.len() as u64));
    assert_eq!((state.set_aside, state.lost, state.last_error), (0, 0, None));
    for file in files(directory.path(), "") {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_slow_or_failing_loses_nothing_and_is_told_of_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(open(directory.path()));
    append(&log, 50);
    // A port where nobody listens.
    let address = Receiver::new(|_, _| ok()).address;
    let sink = webhook(address, "");
    let shippers = feed(&log, &sink).await;
    until("the failure is known", || methods(directory.path()) == ["sink.failing"]).await;
    until("the lag is known", || shippers.states().first().is_some_and(|s| s.lag_records > 50)).await;
    assert!(state(directory.path(), &sink).last_error.unwrap().contains("connect"), "{:?}", shippers.states());
    assert!(log.may_begin(RiskClass::Destructive).is_ok(), "a sink that is not required stops nobody");
    let receiver = Receiver::on(address, |number, _| match number {
        1..=3 => (500, "", Duration::ZERO),
        4 => (503, "", Duration::ZERO),
        5 => (408, "", Duration::ZERO),
        // Longer than the sink waits for an answer.
        6 => (500, "", Duration::from_millis(1_500)),
        7 => (429, "Retry-After: 1\r\n", Duration::ZERO),
        _ => ok(),
    });
    all_came_once(directory.path(), &receiver).await;
    let requests = receiver.requests();
    let asked = requests.iter().position(|r| r.status == 429).unwrap();
    let waited = requests[asked + 1].at - requests[asked].at;
    assert!(waited >= Duration::from_millis(990), "Retry-After is honoured: {waited:?}");
    assert_eq!(methods(directory.path()), ["sink.failing", "sink.recovered"], "one record at each end of the streak");
    shippers.stop().await;
    assert_eq!(state(directory.path(), &sink).last_error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_set_aside_visibly_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(open(directory.path()));
    append(&log, 100);
    let receiver = Receiver::new(|number, body| match number {
        2 => (400, "", Duration::ZERO),
        // Until the batch is a fourth of what it was.
        _ if body.len() > 2_000 => (413, "", Duration::ZERO),
        _ => ok(),
    });
    let sink = webhook(receiver.address, "");
    let shippers = feed(&log, &sink).await;
    until("the rest arrives", || {
        let state = state(directory.path(), &sink);
        state.lag_records == 0 && state.delivered > 0
    })
    .await;
    shippers.stop().await;
    let refused: BTreeSet<_> = receiver.requests().iter().filter(|r| r.status == 400).flat_map(Request::records).collect();
    let taken: BTreeSet<_> = receiver.taken().into_iter().collect();
    let state = state(directory.path(), &sink);
    assert!(!refused.is_empty() && taken.is_disjoint(&refused), "it is not tried for ever");
    assert_eq!(&taken | &refused, written(directory.path()));
    assert_eq!((state.set_aside, state.delivered), (refused.len() as u64, taken.len() as u64));
    assert!(methods(directory.path()).contains(&"sink.set_aside".to_owned()));
    let cursor = std::fs::read_to_string(directory.path().join("sink-siem.cursor")).unwrap();
    let first = refused.iter().next().unwrap().1;
    assert!(cursor.contains(&format!("\"first\":{first}")), "which ones is written down: {cursor}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was_and_repeats_at_most_one_batch() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(|_, _| (200, "", Duration::from_millis(3)));
    let sink = webhook(receiver.address, "");
    for _ in 0..4 {
        let log = Arc::new(open(directory.path()));
        append(&log, 150);
        let before = receiver.taken().len();
        let shippers = feed(&log, &sink).await;
        until("some arrive", || receiver.taken().len() > before + 40).await;
        // Not stopped in good order: in the middle of a delivery.
        drop(shippers);
    }
    let log = Arc::new(open(directory.path()));
    let shippers = feed(&log, &sink).await;
    until("everything arrives", || receiver.taken().into_iter().collect::<BTreeSet<_>>() == written(directory.path())).await;
    shippers.stop().await;
    let taken = receiver.taken();
    let twice = taken.len() - taken.iter().collect::<BTreeSet<_>>().len();
    assert!(twice <= 4 * 20, "{twice} records came twice at four seams");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_hands_over_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(|_, _| ok());
    let log = Arc::new(open(directory.path()));
    let shippers = feed(&log, &webhook(receiver.address, "")).await;
    append(&log, 200);
    shippers.stop().await;
    assert_eq!(receiver.taken().into_iter().collect::<BTreeSet<_>>(), written(directory.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_stop_while_a_required_sink_is_behind_and_go_on_when_it_is_not() {
    for (limit, by_age) in [(r#"{"records":30}"#, false), (r#"{"age":"1m"}"#, true)] {
        let directory = tempfile::tempdir().unwrap();
        let address = Receiver::new(|_, _| ok()).address;
        let sink = webhook(address, &format!(r#","required":true,"max_lag":{limit}"#));
        let time = clock();
        let log = AuditLog::open_with(directory.path(), Arc::new(time.clone()), AuditOptions::default()).unwrap();
        let (log, clock): (_, Arc<dyn Clock>) = (Arc::new(log), Arc::new(time.clone()));
        log.append(call("one")).unwrap();
        let shippers = feed_by(&log, &sink, &clock).await;
        assert!(log.may_begin(RiskClass::Read).is_ok());
        if by_age {
            time.advance(Duration::from_secs(62));
        } else {
            append(&log, 30);
        }
        until("calls stop", || log.may_begin(RiskClass::Read).is_err()).await;
        let reason = log.may_begin(RiskClass::Destructive).unwrap_err();
        assert!(reason.contains("siem") && reason.contains("behind"), "{reason}");
        let known = log.append(call("refused")).is_ok();
        assert!(known, "what is refused is recorded all the same");
        until("it is recorded", || methods(directory.path()).contains(&"sink.blocking".to_owned())).await;

        // A restart does not open the gate.
        shippers.stop().await;
        let shippers = feed_by(&log, &sink, &clock).await;
        assert!(log.may_begin(RiskClass::Read).is_err());
        let receiver = Receiver::on(address, |_, _| ok());
        until("calls go on", || log.may_begin(RiskClass::Read).is_ok()).await;
        until("it is recorded", || methods(directory.path()).contains(&"sink.unblocked".to_owned())).await;
        until("all is there", || !receiver.taken().is_empty()).await;
        shippers.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_sink_that_refuses_is_not_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let refusing = Receiver::new(|_, _| (401, "", Duration::ZERO));
    let sink = webhook(refusing.address, r#","required":true,"max_lag":{"records":10}"#);
    let log = Arc::new(open(directory.path()));
    let shippers = feed(&log, &sink).await;
    append(&log, 20);
    until("calls stop", || log.may_begin(RiskClass::Read).is_err()).await;
    until("it was tried again", || refusing.requests().len() > 3).await;
    assert!(state(directory.path(), &sink).last_error.unwrap().contains("401"));
    let address = refusing.address;
    drop(refusing);
    let receiver = Receiver::on(address, |_, _| ok());
    until("calls go on", || log.may_begin(RiskClass::Read).is_ok()).await;
    all_came_once(directory.path(), &receiver).await;
    shippers.stop().await;
    assert_eq!((state(directory.path(), &sink).set_aside, state(directory.path(), &sink).lost), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_drops_is_not_passed_over_where_the_sink_is_required() {
    let partial = r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too long"}}"#;
    for required in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let dropping = Receiver::new(move |_, _| (200, partial, Duration::ZERO));
        let text = format!(
            r#"{{"name":"siem","to":{{"otlp":{{"url":"http://{}/v1/logs","batch":20,"timeout":"1s"}}}},"required":{required},"max_lag":{{"records":10}}}}"#,
            dropping.address
        );
        let sink: SinkSettings = serde_json::from_str(&text).unwrap();
        let log = Arc::new(open(directory.path()));
        let shippers = feed(&log, &sink).await;
        append(&log, 20);
        if required {
            until("calls stop", || log.may_begin(RiskClass::Read).is_err()).await;
            until("it is tried again", || state(directory.path(), &sink).last_error.is_some()).await;
            assert_eq!((state(directory.path(), &sink).set_aside, state(directory.path(), &sink).delivered), (0, 0));
            let address = dropping.address;
            drop(dropping);
            let receiver = Receiver::on(address, |_, _| ok());
            until("calls go on", || log.may_begin(RiskClass::Read).is_ok()).await;
            until("all is there", || state(directory.path(), &sink).lag_records == 0).await;
            drop(receiver);
        } else {
            until("it is passed over", || state(directory.path(), &sink).set_aside > 0).await;
            assert!(log.may_begin(RiskClass::Read).is_ok());
        }
        shippers.stop().await;
    }
}

/// What the secret is changed to.
const NEXT: &str = "another secret, as long";

/// A secret that changes, and is missing in between.
#[derive(Debug, Default)]
struct Changing(std::sync::Mutex<Option<&'static str>>);

#[async_trait::async_trait]
impl SecretProvider for Changing {
    async fn current(&self) -> Result<Secret, SecretFault> {
        let value = *self.0.lock().unwrap();
        value.map(Secret::new).ok_or_else(|| SecretFault::Missing { reference: "file:/siem".into(), reason: "gone".into() })
    }
}

struct Manager(Arc<Changing>);

impl SecretResolver for Manager {
    fn credential(&self, reference: &SecretReference) -> Result<Credential, SecretFault> {
        match reference {
            SecretReference::File(_) => Ok(Credential::Late(self.0.clone())),
            other => LiteralSecrets.credential(other),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_looked_up_for_every_delivery_and_without_it_nothing_goes_out() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(|_, _| ok());
    let text =
        format!(r#"{{"name":"siem","to":{{"webhook":{{"url":"http://{}/in","secret":"file:/siem"}}}}}}"#, receiver.address);
    let sink: SinkSettings = serde_json::from_str(&text).unwrap();
    let log = Arc::new(open(directory.path()));
    let secret = Arc::new(Changing::default());
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    let manager = Manager(secret.clone());
    let sinks = Sinks::new(std::slice::from_ref(&sink), &mut |grant| policies.charter(grant), &manager).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let shippers = sinks.start_with(&log, &clock, QUICK).await;
    for (value, says) in [(None, "is missing"), (Some("short"), "at least 16")] {
        *secret.0.lock().unwrap() = value;
        let told = || state(directory.path(), &sink).last_error.is_some_and(|error| error.contains(says));
        until(says, told).await;
    }
    assert!(receiver.requests().is_empty(), "nothing is sent without a secret to sign with");
    *secret.0.lock().unwrap() = Some(SECRET);
    until("it arrives", || !receiver.requests().is_empty()).await;
    assert!(receiver.requests().iter().all(|request| request.is_signed(SECRET)));
    *secret.0.lock().unwrap() = Some(NEXT);
    append(&log, 3);
    until("the new one signs", || receiver.requests().iter().any(|request| request.is_signed(NEXT))).await;
    shippers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_may_let_reads_go_on_without_a_required_sink() {
    let directory = tempfile::tempdir().unwrap();
    let on_failure = serde_json::from_str(r#"{"read":"continue"}"#).unwrap();
    let options = AuditOptions { on_failure, ..AuditOptions::default() };
    let log = Arc::new(AuditLog::open_with(directory.path(), Arc::new(SystemClock), options).unwrap());
    let address = Receiver::new(|_, _| ok()).address;
    let sink = webhook(address, r#","required":true,"max_lag":{"records":1}"#);
    log.append(call("one")).unwrap();
    let shippers = feed(&log, &sink).await;
    assert!(log.may_begin(RiskClass::Write).is_err(), "known before the first call");
    assert!(log.may_begin(RiskClass::Read).is_ok());
    shippers.stop().await;

    // A process that makes one call feeds nothing and is held all the same.
    let other = open(directory.path());
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    let sinks = Sinks::new(&[sink], &mut |grant| policies.charter(grant), &LiteralSecrets).unwrap();
    assert!(other.may_begin(RiskClass::Write).is_ok());
    sinks.hold(&other, SystemClock.now());
    assert!(other.may_begin(RiskClass::Write).is_err());
}

fn rotated_away(directory: &Path, sink: &SinkSettings) -> Arc<AuditLog> {
    let options = AuditOptions {
        rotate_at_bytes: 3_000,
        retention: Retention { max_bytes: Some(6_000), ..Retention::default() },
        required_sinks: sink.required.then(|| sink.name.clone()).into_iter().collect(),
        ..AuditOptions::default()
    };
    Arc::new(AuditLog::open_with(directory, Arc::new(SystemClock), options).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_waits_for_a_required_sink_and_what_another_misses_is_counted() {
    for required in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let address = Receiver::new(|_, _| ok()).address;
        let sink = webhook(address, if required { r#","required":true"# } else { "" });
        let log = rotated_away(directory.path(), &sink);
        let shippers = feed(&log, &sink).await;
        until("the sink has begun", || directory.path().join("sink-siem.cursor").exists()).await;
        append(&log, 200);
        let removed = log.retain().unwrap();
        let first = removed.first().map_or(1, |mark| mark.first_sequence);
        assert_eq!(removed.is_empty(), required, "{removed:?}");
        let receiver = Receiver::on(address, |_, _| ok());
        until("what is left arrives", || state(directory.path(), &sink).lag_records == 0).await;
        if required {
            assert_eq!(receiver.taken().first().unwrap().1, 1, "not one is missing");
            until("it is known on disk", || !log.retain().unwrap().is_empty()).await;
            assert_eq!(state(directory.path(), &sink).lost, 0);
        } else {
            assert_eq!(receiver.taken().first().unwrap().1, first);
            assert_eq!(state(directory.path(), &sink).lost, first - 1);
            assert!(methods(directory.path()).contains(&"sink.lost".to_owned()), "and recorded");
        }
        shippers.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_moves_lines_and_the_sink_still_knows_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(|_, _| ok());
    let sink = webhook(receiver.address, "");
    let anna = PrincipalId::new("user:anna").unwrap();
    let log = Arc::new(open(directory.path()));
    for _ in 0..30 {
        log.append(call("t").principal_id(anna.clone())).unwrap();
    }
    let shippers = feed(&log, &sink).await;
    shippers.stop().await;
    log.close().unwrap();
    let admin = PrincipalId::new("local:admin").unwrap();
    let report = erase(directory.path(), &anna, &admin, Arc::new(SystemClock), &AuditOptions::default()).unwrap();
    assert_eq!(report.records, 30);
    let log = Arc::new(open(directory.path()));
    log.append(call("after")).unwrap();
    let shippers = feed(&log, &sink).await;
    all_came_once(directory.path(), &receiver).await;
    shippers.stop().await;
    for file in files(directory.path(), "") {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains("anna"), "{} still names the subject", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_was_cut_back_is_read_again_rather_than_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(|_, _| ok());
    let sink = webhook(receiver.address, "");
    let log = Arc::new(open(directory.path()));
    log.append(call("kept")).unwrap();
    log.sync().unwrap();
    let early: Vec<_> = files(directory.path(), "").into_iter().map(|f| (f.clone(), std::fs::read(&f).unwrap())).collect();
    append(&log, 20);
    let shippers = feed(&log, &sink).await;
    all_came_once(directory.path(), &receiver).await;
    shippers.stop().await;
    log.close().unwrap();
    drop(log);
    // As after a power cut that took what was not yet on disk.
    for (file, bytes) in early {
        // In its place, so that it keeps its mode.
        std::fs::OpenOptions::new().write(true).truncate(true).open(file).unwrap().write_all(&bytes).unwrap();
    }
    let log = Arc::new(open(directory.path()));
    log.append(call("new")).unwrap();
    let shippers = feed(&log, &sink).await;
    until("the new record arrives", || receiver.requests().iter().any(|r| String::from_utf8_lossy(&r.body).contains("\"new\"")))
        .await;
    shippers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sink_may_begin_now_and_one_process_feeds_it() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(|_, _| ok());
    let sink = webhook(receiver.address, r#","begin":"now""#);
    let (one, two) = (Arc::new(open(directory.path())), Arc::new(open(directory.path())));
    one.append(call("old")).unwrap();
    let before = written(directory.path());
    let (first, second) = (feed(&one, &sink).await, feed(&two, &sink).await);
    until("it has begun", || directory.path().join("sink-siem.cursor").exists()).await;
    for log in [&one, &two] {
        append(log, 30);
    }
    let rest = || &written(directory.path()) - &before;
    until("both chains arrive", || receiver.taken().into_iter().collect::<BTreeSet<_>>() == rest()).await;
    assert_eq!(receiver.taken().len(), rest().len(), "nothing comes twice");
    until("both know how it stands", || [&first, &second].iter().all(|s| s.states()[0].lag_records == 0)).await;
    first.stop().await;
    two.append(call("later")).unwrap();
    until("the other takes over", || receiver.taken().into_iter().collect::<BTreeSet<_>>() == rest()).await;
    second.stop().await;
}

const CHILD: &str = "PORTCULLIS_AUDIT_TEST_SINK_CHILD";

/// Not a test of its own: the process that `a_killed_process_delivers_everything_after_its_restart` starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_feeds_a_sink_until_killed() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (address, directory) = told.split_once(' ').unwrap();
    let log = Arc::new(AuditLog::open(Path::new(directory), Arc::new(SystemClock)).unwrap());
    let _shippers = feed(&log, &webhook(address.parse().unwrap(), "")).await;
    let mut out = std::io::stdout();
    for index in 0..1_000_000 {
        let sequence = log.append(call(format!("t{index}"))).unwrap().sequence;
        writeln!(out, "appended {sequence}").unwrap();
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_delivers_everything_after_its_restart() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(|_, _| (200, "", Duration::from_millis(2)));
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sinks::child_that_feeds_a_sink_until_killed", "--nocapture"])
            .env(CHILD, format!("{} {}", receiver.address, directory.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let appended = lines.filter(|line| line.contains("appended ")).take(300 + round * 70).count();
        assert_eq!(appended, 300 + round * 70);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let log = Arc::new(AuditLog::open(directory.path(), Arc::new(SystemClock)).unwrap());
    let sink = webhook(receiver.address, "");
    let shippers = feed(&log, &sink).await;
    until("everything arrives", || receiver.taken().into_iter().collect::<BTreeSet<_>>() == written(directory.path())).await;
    shippers.stop().await;
    let taken = receiver.taken();
    let twice = taken.len() - taken.iter().collect::<BTreeSet<_>>().len();
    assert!(twice <= 3 * 20, "{twice} records came twice at three seams");
    assert!(taken.len() > 1_000 && receiver.requests().iter().all(|r| r.is_signed(SECRET)));
    assert_eq!(state(directory.path(), &sink).lost, 0);
}
