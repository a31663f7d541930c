//! The records of refusals that anybody can cause without being anybody: at the wire, at the entrance, for a message that
//! cannot be read. Guards that a flood of them neither fills the audit log nor disappears: of each kind, from each network,
//! the first of a minute are recorded one by one, and the rest in one record that says how many there were.
//!
//! Must not lose a refusal: what could not be written stays counted and is written with the next summary.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_audit::{AuditError, AuditEvent, AuditLog, Decision, EventKind};
use portcullis_console::Metrics;
use portcullis_guard::{Redactions, Redactor};
use portcullis_model::Whence;
use portcullis_wire::{Refusals, RequestRefusal};
use tokio_util::sync::CancellationToken;

/// What one summary covers.
const WINDOW: Duration = Duration::from_mins(1);
/// Refusals of one kind from one network that are recorded one by one in a window.
const SINGLY: u32 = 20;
/// Refusals of all kinds that are recorded one by one in a window.
const SINGLY_IN_ALL: u32 = 1_000;
/// Networks and kinds counted apart; what comes beyond is counted by kind alone.
const APART: usize = 1_000;
/// Kinds counted at all. They come from the program, not from outside.
const KINDS: usize = 2 * APART;
/// How often finished windows are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The listener: `http`, `admin`, `otlp-http`, `otlp-grpc`, `stdio`.
    pub transport: &'static str,
    /// What was refused: `request`, `authenticate`, `handshake`, …
    pub method: &'static str,
    /// The rule that refused.
    pub rule: String,
    /// Who, where somebody was known.
    pub who: Option<String>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    /// Not recorded yet, and the latest of them.
    left_out: u64,
    latest: Option<AuditEvent>,
}

#[derive(Debug, Default)]
struct Windows {
    open: HashMap<(Kind, Option<IpAddr>), Window>,
    /// Recorded one by one since when.
    singly: (Option<Instant>, u32),
}

/// Counts refusals and writes their records.
pub struct Tally {
    audit: Arc<AuditLog>,
    redactor: Redactor,
    /// For what requests say about where they come from: takes secrets out and leaves addresses.
    claims: Redactor,
    metrics: Arc<Metrics>,
    windows: Mutex<Windows>,
}

impl Tally {
    /// Nothing counted yet. `redactor` is for sentences, `claims` for addresses that were claimed and not believed.
    pub fn new(audit: Arc<AuditLog>, redactor: Redactor, claims: Redactor, metrics: Arc<Metrics>) -> Self {
        Self { audit, redactor, claims, metrics, windows: Mutex::default() }
    }

    /// The event with where it came from.
    pub fn located(&self, event: AuditEvent, whence: Option<&Whence>) -> AuditEvent {
        let mut event = event.whence(whence);
        if let Some(claimed) = &event.claimed {
            event.claimed = Some(self.claims.text(claimed, &mut Redactions::default()).into_owned().into());
        }
        event
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a refusal, or counts it.
    ///
    /// # Errors
    /// When it should have been recorded by itself and the log cannot be written; it is counted then.
    pub fn note(&self, kind: Kind, whence: Option<&Whence>, event: AuditEvent) -> Result<(), AuditError> {
        self.note_at(kind, whence, event, Instant::now())
    }

    /// Records that whoever failed to prove who it is has to wait from now on.
    ///
    /// # Errors
    /// As [`Tally::note`].
    pub fn lockout(&self, transport: &'static str, whence: Option<&Whence>, wait: Duration) -> Result<(), AuditError> {
        let kind = Kind { transport, method: "lockout", rule: "lockout".to_owned(), who: None };
        self.note(kind, whence, AuditEvent::lockout(None, wait).transport(transport))
    }

    fn note_at(&self, kind: Kind, whence: Option<&Whence>, event: AuditEvent, now: Instant) -> Result<(), AuditError> {
        let event = self.located(event, whence);
        let key = {
            let mut windows = self.windows();
            let key = windows.key(kind, whence.map(|whence| network(whence.address())));
            let alone = windows.room_in_all(now);
            let window = windows.open.entry(key.clone()).or_insert_with(|| Window::new(now));
            // A window that is over, but still holds what is not recorded, goes on until it is.
            if window.left_out == 0 && now.duration_since(window.began) >= WINDOW {
                *window = Window::new(now);
            }
            if !alone || window.written >= SINGLY {
                window.left_out += 1;
                window.latest = Some(event);
                return Ok(());
            }
            window.written += 1;
            windows.singly.1 += 1;
            key
        };
        self.audit.append(&event).map(drop).inspect_err(|_| self.windows().put_back(key, 1, event.clone(), now))
    }

    /// Writes the summaries of the windows that are over; of all of them at the end.
    pub fn flush(&self, all: bool) {
        self.flush_at(all, Instant::now());
    }

    fn flush_at(&self, all: bool, now: Instant) {
        let finished: Vec<_> = {
            let mut windows = self.windows();
            windows.open.extract_if(|_, window| all || now.duration_since(window.began) >= WINDOW).collect()
        };
        for (key, window) in finished {
            let Some(latest) = window.latest.filter(|_| window.left_out > 0) else { continue };
            let whence = match key.1 {
                Some(IpAddr::V4(v4)) => format!("from {v4}/24"),
                Some(IpAddr::V6(v6)) => format!("from {v6}/64"),
                None => "from anywhere".to_owned(),
            };
            let seconds = now.duration_since(window.began).as_secs().max(1);
            let said = latest.note.as_deref().map(|note| format!("; the last: {note}")).unwrap_or_default();
            let summary =
                latest.clone().count(window.left_out).note(format!("{} within {seconds} s {whence}{said}", window.left_out));
            if let Err(error) = self.audit.append(summary) {
                tracing::error!(%error, "the audit record of many refusals could not be written; it is tried again");
                self.windows().put_back(key, window.left_out, latest, now);
            }
        }
    }

    /// Writes summaries until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            self.flush(false);
        }
    }

    /// The refusals of one listener.
    pub fn at(self: &Arc<Self>, transport: &'static str) -> Arc<Listener> {
        Arc::new(Listener { tally: self.clone(), transport })
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { began: now, written: 0, left_out: 0, latest: None }
    }
}

impl Windows {
    /// Where a refusal is counted: apart by network while there is room.
    fn key(&self, kind: Kind, network: Option<IpAddr>) -> (Kind, Option<IpAddr>) {
        let key = (kind, network);
        if self.open.len() < APART || self.open.contains_key(&key) {
            return key;
        }
        let (kind, _) = key;
        if self.open.len() < KINDS {
            return (kind, None);
        }
        // A principal among very many: counted with the others.
        (Kind { who: None, ..kind }, None)
    }

    fn room_in_all(&mut self, now: Instant) -> bool {
        let (since, written) = &mut self.singly;
        if since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            (*since, *written) = (Some(now), 0);
        }
        *written < SINGLY_IN_ALL
    }

    /// Counts again what could not be written.
    fn put_back(&mut self, key: (Kind, Option<IpAddr>), events: u64, latest: AuditEvent, now: Instant) {
        let window = self.open.entry(key).or_insert_with(|| Window::new(now));
        window.left_out += events;
        window.latest.get_or_insert(latest);
    }
}

/// The network an address is counted with: /24 of IPv4, /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The tally, as one listener tells it.
pub struct Listener {
    tally: Arc<Tally>,
    transport: &'static str,
}

impl Refusals for Listener {
    fn refused(&self, refusal: RequestRefusal<'_>) {
        self.tally.metrics.refused_request(&refusal);
        let kind = Kind { transport: self.transport, method: "request", rule: refusal.rule.to_owned(), who: None };
        let detail = self.tally.redactor.text(refusal.detail, &mut Redactions::default()).into_owned();
        let event = AuditEvent::new(EventKind::Refused)
            .transport(self.transport)
            .method("request")
            .decided(Decision::Deny, refusal.rule)
            .code(Some(refusal.code))
            .note(detail);
        if let Err(error) = self.tally.note(kind, refusal.whence, event) {
            tracing::error!(%error, "the audit record of a refused request could not be written; it stays counted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_audit::{AuditFilter, tail};
    use portcullis_model::{FaultCode, SystemClock};

    fn tally(directory: &std::path::Path) -> Arc<Tally> {
        let audit = Arc::new(AuditLog::open(directory, Arc::new(SystemClock)).unwrap());
        let redactor = Redactor::new().unwrap();
        Arc::new(Tally::new(audit, redactor.clone(), redactor, Arc::default()))
    }

    fn kind(rule: &str) -> Kind {
        Kind { transport: "http", method: "request", rule: rule.to_owned(), who: None }
    }

    fn event(rule: &str) -> AuditEvent {
        AuditEvent::new(EventKind::Refused).decided(Decision::Deny, rule.to_owned()).code(Some(FaultCode::Forbidden))
    }

    fn from(text: &str) -> Whence {
        Whence::direct(text.parse().unwrap())
    }

    /// Records of refusals, and the events they stand for.
    fn counted(directory: &std::path::Path) -> (usize, u64) {
        let records = tail(directory, 100_000, &AuditFilter::default()).unwrap().records;
        let refused = records.iter().filter(|record| record.event.kind == EventKind::Refused);
        let counts: Vec<u64> = refused.map(|record| record.event.count.unwrap_or(1)).collect();
        (counts.len(), counts.iter().sum())
    }

    #[test]
    fn a_flood_is_bounded_and_counted_to_the_last() {
        let home = tempfile::tempdir().unwrap();
        let tally = tally(home.path());
        let start = Instant::now();
        for n in 0..10_000_u32 {
            let whence = from(&format!("192.0.2.{}:1", n % 250));
            tally.note_at(kind("host"), Some(&whence), event("host"), start).unwrap();
        }
        assert_eq!(counted(home.path()), (20, 20));
        tally.flush_at(false, start + Duration::from_secs(59));
        assert_eq!(counted(home.path()), (20, 20), "the minute is not over");
        tally.flush_at(false, start + WINDOW);
        assert_eq!(counted(home.path()), (21, 10_000));
        tally.flush_at(true, start + WINDOW);
        assert_eq!(counted(home.path()), (21, 10_000), "nothing twice");
        tally.note_at(kind("host"), Some(&from("192.0.2.1:1")), event("host"), start + WINDOW).unwrap();
        assert_eq!(counted(home.path()), (22, 10_001), "a new minute");
    }

    #[test]
    fn very_many_networks_stay_bounded_and_nothing_is_lost() {
        let home = tempfile::tempdir().unwrap();
        let tally = tally(home.path());
        let start = Instant::now();
        for n in 0..30_000_u32 {
            let [_, b, c, d] = n.to_be_bytes();
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, u16::from(b), u16::from(c) << 8 | u16::from(d), 0, 0, 0, 1);
            let rule = ["host", "origin"][n as usize % 2];
            tally.note_at(kind(rule), Some(&Whence::direct((v6, 1).into())), event(rule), start).unwrap();
        }
        assert!(tally.windows().open.len() <= APART + 2);
        tally.flush_at(true, start + WINDOW);
        let (records, events) = counted(home.path());
        assert_eq!(events, 30_000);
        assert!(records <= SINGLY_IN_ALL as usize + APART + 2, "{records}");
    }

    #[test]
    fn networks_and_kinds_are_counted_apart() {
        let home = tempfile::tempdir().unwrap();
        let tally = tally(home.path());
        let start = Instant::now();
        for _ in 0..30 {
            for (rule, place) in [("host", "192.0.2.1:1"), ("host", "198.51.100.1:1"), ("origin", "192.0.2.1:1")] {
                tally.note_at(kind(rule), Some(&from(place)), event(rule), start).unwrap();
            }
        }
        tally.flush_at(true, start + WINDOW);
        assert_eq!(counted(home.path()), (63, 90));
        assert_eq!(network("::ffff:192.0.2.9".parse().unwrap()), network("192.0.2.1".parse().unwrap()));
    }
}
