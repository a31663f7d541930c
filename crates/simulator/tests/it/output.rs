//! Determinism, the two wire forms, and the speed.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use portcullis_simulator::{Batch, Scenario, Simulation, SimulationConfig, bulk_logs, bulk_spans, encode_json, encode_protobuf};
use prost::Message;

use crate::observed::{config, run, short};

fn bytes(batches: &[Batch]) -> Vec<u8> {
    batches
        .iter()
        .flat_map(|batch| [encode_protobuf(&batch.logs), encode_protobuf(&batch.traces), encode_protobuf(&batch.metrics)])
        .flatten()
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    for scenario in [Scenario::ConnectionPoolLeak, Scenario::QueryPerRow, Scenario::MemoryLeak, Scenario::Quiet] {
        let one = bytes(&run(&short(11, scenario)));
        assert!(one == bytes(&run(&short(11, scenario))), "{scenario:?} is not deterministic");
        assert!(one != bytes(&run(&short(12, scenario))), "the seed has no effect on {scenario:?}");
    }
}

#[test]
fn batches_cover_the_window_in_order() {
    let mut config = config(1, Scenario::Quiet);
    config.end = config.end.minus(Duration::from_secs(3));
    let mut simulation = Simulation::new(config.clone()).unwrap();
    assert_eq!(simulation.size_hint(), (180, Some(180)));
    let ends: Vec<_> = simulation.by_ref().map(|batch| batch.at).collect();
    assert_eq!((ends.len(), ends[0].since(config.start).as_secs(), ends[179]), (180, 10, config.end));
    assert!(ends.is_sorted());
    assert!(simulation.next().is_none());
}

#[test]
fn both_wire_forms_decode_to_what_was_sent() {
    let mut compared = 0;
    for batch in Simulation::new(short(5, Scenario::ConnectionPoolLeak)).unwrap().step_by(20) {
        assert_eq!(ExportLogsServiceRequest::decode(&*encode_protobuf(&batch.logs)).unwrap(), batch.logs);
        let logs: ExportLogsServiceRequest = serde_json::from_slice(&encode_json(&batch.logs).unwrap()).unwrap();
        assert_eq!(logs, batch.logs);
        let traces: ExportTraceServiceRequest = serde_json::from_slice(&encode_json(&batch.traces).unwrap()).unwrap();
        assert_eq!(traces, batch.traces);
        let metrics: ExportMetricsServiceRequest = serde_json::from_slice(&encode_json(&batch.metrics).unwrap()).unwrap();
        assert_eq!(metrics, batch.metrics);
        compared += batch.log_count() + batch.span_count() + batch.data_point_count();
    }
    assert!(compared > 1_000, "{compared}");
}

/// Prints records per second; run with `cargo test --release -p portcullis-simulator -- speed --nocapture`. Debug builds
/// only check that something comes out.
#[test]
fn speed() {
    let minutes = if cfg!(debug_assertions) { 1 } else { 20 };
    let window = config(3, Scenario::Quiet);
    let busy =
        SimulationConfig { requests_per_second: 200.0, end: window.start.plus(Duration::from_mins(minutes)), ..window.clone() };
    let started = Instant::now();
    let (mut spans, mut logs, mut points) = (0, 0, 0);
    for batch in Simulation::new(busy).unwrap() {
        spans += batch.span_count();
        logs += batch.log_count();
        points += batch.data_point_count();
    }
    let story = spans as f64 / started.elapsed().as_secs_f64();
    println!("simulation: {spans} spans, {logs} logs, {points} points; {story:.0} spans/s");

    let records = 50_000 * minutes;
    let window = portcullis_model::TimeWindow::new(window.start, window.end).unwrap();
    let started = Instant::now();
    let requests = bulk_logs(1, records, 20, window).count();
    let logs_rate = records as f64 / started.elapsed().as_secs_f64();
    let started = Instant::now();
    assert!(requests > 0 && bulk_spans(1, records, 20, window).count() > 0);
    let spans_rate = records as f64 / started.elapsed().as_secs_f64();
    println!("bulk: {logs_rate:.0} logs/s, {spans_rate:.0} spans/s");

    assert!(spans > 0 && logs > 0 && points > 0);
    if !cfg!(debug_assertions) {
        assert!(story > 100_000.0, "only {story:.0} spans/s");
    }
}
