//! What every test needs: a store in a temporary directory, permits, a small HTTP sender.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use portcullis_model::{ManualClock, NameSet, Scope, SourceName, TenantId, TimeWindow, Timestamp};
use portcullis_policy::{Budget, CharterGrant, Permit, Policies, PolicyText, Vocabulary};
use portcullis_telemetry::{EmbeddedSource, IngestLimits, LoopbackOnly, OtlpDoor, Store, StoreSettings};
use portcullis_wire::Wire;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

/// A moment all test data is near: 2026-03-01T10:00:00Z.
pub(crate) const NOW: i64 = 1_772_359_200_000_000_000;
pub(crate) const SECOND: i64 = 1_000_000_000;

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn open(directory: &Path) -> Store {
    open_with(settings(directory))
}

/// Defaults, with a process for each statement.
pub(crate) fn settings(directory: &Path) -> StoreSettings {
    StoreSettings { statements: Some(crate::statements::host()), ..StoreSettings::new(directory) }
}

pub(crate) fn open_with(settings: StoreSettings) -> Store {
    Store::open(settings, Arc::new(ManualClock::new(Timestamp::from_nanos(NOW)))).unwrap()
}

pub(crate) fn source(store: &Store) -> EmbeddedSource {
    EmbeddedSource::new(SourceName::new("store").unwrap(), store.clone())
}

pub(crate) fn everything() -> Scope {
    Scope::tenant_wide(TenantId::default_tenant())
}

pub(crate) fn only_services(names: &[&str]) -> Scope {
    Scope { services: NameSet::only(names.iter().copied()), ..everything() }
}

pub(crate) fn permit(scope: Scope) -> Permit {
    permit_for(scope, Duration::from_mins(1))
}

pub(crate) fn permit_for(scope: Scope, time_limit: Duration) -> Permit {
    permit_of("test", scope, time_limit)
}

/// A permit of a principal of its own for each name.
pub(crate) fn permit_of(name: &str, scope: Scope, time_limit: Duration) -> Permit {
    // Loading rules takes far longer than what is tried under a permit.
    static POLICIES: LazyLock<Policies> = LazyLock::new(|| {
        let texts: [PolicyText; 0] = [];
        Policies::load(&texts, &Vocabulary::default(), 1).unwrap()
    });
    let grant = CharterGrant { name: name.into(), destinations: BTreeSet::new(), scope, time_limit, budget: Budget::default() };
    POLICIES.charter(grant).unwrap().permit()
}

/// The two hours around [`NOW`].
pub(crate) fn window() -> TimeWindow {
    TimeWindow { start: Timestamp::from_nanos(NOW - 3600 * SECOND), end: Timestamp::from_nanos(NOW + 3600 * SECOND) }
}

/// A door on a loopback port of its own; it closes with the test.
pub(crate) async fn http_door(store: &Store, limits: IngestLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = OtlpDoor::new(store.clone(), Arc::new(LoopbackOnly::new(TenantId::default_tenant())), limits, Vec::new());
    tokio::spawn(door.serve_http(listener, Wire::plain(), std::future::pending()));
    address
}

/// An HTTP answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

/// Sends one request by hand: method and path, headers, body.
pub(crate) async fn send(address: SocketAddr, start: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpSocket::new_v4().unwrap().connect(address).await.unwrap();
    let mut head = format!("{start} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        let _ = write!(head, "Host: {address}\r\n");
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A door that refuses early closes before it read everything.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole HTTP head");
    let headers = String::from_utf8_lossy(&answer[..split]).to_lowercase();
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers, body: answer[split + 4..].to_vec() }
}
