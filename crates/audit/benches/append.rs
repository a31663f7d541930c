//! What one audit record costs, as the gate writes it: alone, and from two threads at once.

use std::net::SocketAddr;
use std::sync::Arc;

use divan::Bencher;
use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind};
use portcullis_model::{PrincipalId, SystemClock, Whence};

fn main() {
    divan::main();
}

fn event() -> AuditEvent {
    let event = AuditEvent::new(EventKind::Call);
    // Somebody known from somewhere: the part that is sealed.
    let event = PrincipalId::new("key:7f3a9c21").map(|who| event.clone().principal_id(who)).unwrap_or(event);
    event
        .whence(Some(&Whence::direct(SocketAddr::from(([192, 0, 2, 7], 50_000)))))
        .transport("http")
        .method("tools/call")
        .tool("query_logs")
        .parameters("5f16c5f4a2b1e0d95f16c5f4a2b1e0d95f16c5f4a2b1e0d95f16c5f4a2b1e0d9")
        .decided(Decision::Allow, "reader-may-look")
        .latency_us(1_234)
        .bytes_out(4_096)
        .tokens_out(1_024)
        .sources(["store", "prometheus"])
        .redactions([("email", 2)])
        .trace_id("4bf92f3577b34da6a3ce929d0e0e4736")
}

fn bench(bencher: Bencher<'_, '_>) {
    let opened = tempfile::tempdir().map_err(|e| e.to_string()).and_then(|directory| {
        AuditLog::open(directory.path(), Arc::new(SystemClock)).map(|log| (directory, log)).map_err(|e| e.to_string())
    });
    if let Ok((_directory, log)) = opened {
        bencher.with_inputs(event).bench_refs(|event| log.append(&*event).is_ok());
    }
}

#[divan::bench(sample_count = 200, sample_size = 100)]
fn append(bencher: Bencher<'_, '_>) {
    bench(bencher);
}

#[divan::bench(sample_count = 200, sample_size = 100, threads = 2)]
fn append_from_two_threads(bencher: Bencher<'_, '_>) {
    bench(bencher);
}
