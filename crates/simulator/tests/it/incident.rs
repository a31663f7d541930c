//! The incident is in the data, its cause can be found there, and the rest of the shop shows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use portcullis_model::Timestamp;
use portcullis_simulator::{Batch, HazardKind, IncidentKind, Scenario, Simulation};

use crate::observed::{SeenMetric, SeenSpan, attribute, config, logs, metrics, quantile, run, short, spans, tally};

/// Ground truth, the batches, and the instant from which the symptoms are in full swing.
fn incident(seed: u64, scenario: Scenario) -> (portcullis_simulator::Incident, Vec<Batch>, i64) {
    let config = config(seed, scenario);
    let incident = Simulation::new(config.clone()).unwrap().incident().unwrap();
    assert_eq!(incident.onset, config.incident_at);
    let grown = incident.onset.plus(Duration::from_mins(5)).as_nanos();
    (incident, run(&config), grown)
}

fn server_spans<'a>(spans: &'a [SeenSpan], service: &'a str) -> impl Iterator<Item = &'a SeenSpan> + Clone {
    spans.iter().filter(move |seen| seen.service == service && seen.span.kind == 2)
}

fn error_ratio<'a>(spans: impl Iterator<Item = &'a SeenSpan> + Clone) -> f64 {
    spans.clone().filter(|seen| seen.failed()).count() as f64 / spans.count().max(1) as f64
}

fn p95<'a>(spans: impl Iterator<Item = &'a SeenSpan>) -> f64 {
    quantile(spans.map(SeenSpan::milliseconds).collect(), 0.95)
}

/// Services that must look the same before and after.
fn assert_unchanged(spans: &[SeenSpan], services: &[&str], onset: i64, grown: i64) {
    for service in services.iter().filter(|service| **service != "email") {
        let before = || server_spans(spans, service).filter(|seen| seen.start() < onset);
        let after = || server_spans(spans, service).filter(|seen| seen.start() >= grown);
        assert!(error_ratio(after()) < 0.01, "{service} fails: {}", error_ratio(after()));
        let (slow_before, slow_after) = (p95(before()), p95(after()));
        assert!(slow_after < slow_before * 1.25, "{service} got slow: {slow_before} -> {slow_after} ms");
    }
}

fn number(seen: &SeenMetric, filter: (&str, &str)) -> Option<f64> {
    let points = match &seen.metric.data {
        Some(Data::Gauge(data)) => &data.data_points,
        Some(Data::Sum(data)) => &data.data_points,
        _ => return None,
    };
    let point = points.iter().find(|p| attribute(&p.attributes, filter.0).as_deref() == Some(filter.1))?;
    match point.value? {
        Value::AsInt(value) => Some(value as f64),
        Value::AsDouble(value) => Some(value),
    }
}

#[test]
fn a_pool_leak_in_inventory_shows_as_errors_of_checkout_and_frontend() {
    for seed in [1, 2, 3] {
        let (truth, batches, grown) = incident(seed, Scenario::ConnectionPoolLeak);
        assert_eq!((truth.kind, truth.cause_service), (IncidentKind::ConnectionPoolLeak, "inventory"));
        let onset = truth.onset.as_nanos();
        let spans = spans(&batches);
        let at = |service, from: i64, until: i64| {
            server_spans(&spans, service).filter(move |seen| (from..until).contains(&seen.start()))
        };

        let (before, after) = (p95(at("inventory", 0, onset)), p95(at("inventory", grown, i64::MAX)));
        assert!(before < 50.0 && after > 1_500.0, "inventory p95 {before} -> {after} ms");
        let (before, after) = (error_ratio(at("checkout", 0, onset)), error_ratio(at("checkout", grown, i64::MAX)));
        assert!(before < 0.02 && after > 0.25, "checkout errors {before} -> {after}");
        let (before, after) = (p95(at("checkout", 0, onset)), p95(at("checkout", grown, i64::MAX)));
        assert!(before < 400.0 && after > 3_500.0, "checkout p95 {before} -> {after} ms");

        for (name, low, high) in [("POST /checkout", 0.25, 1.0), ("GET /", 0.0, 0.02), ("GET /product/{id}", 0.0, 0.02)] {
            let ratio = error_ratio(at("frontend", grown, i64::MAX).filter(|seen| seen.span.name == name));
            assert!((low..=high).contains(&ratio), "frontend {name} fails with {ratio}");
        }
        let status = |seen: &SeenSpan| attribute(&seen.span.attributes, "http.response.status_code");
        let failed = at("checkout", grown, i64::MAX).filter(|seen| seen.failed());
        let gateway_timeouts = failed.clone().filter(|seen| status(seen).as_deref() == Some("504")).count();
        assert!(gateway_timeouts * 10 > failed.count() * 9, "checkout answers 504");

        assert_unchanged(&spans, &truth.unaffected_services, onset, grown);
        assert_unchanged(&spans, &["payment"], onset, grown);
    }
}

#[test]
fn the_latency_of_inventory_grows_before_it_times_out() {
    let (truth, batches, _) = incident(4, Scenario::ConnectionPoolLeak);
    let spans = spans(&batches);
    let p95_in = |from: u64, until: u64| {
        let (from, until) = (truth.onset.plus(Duration::from_secs(from)), truth.onset.plus(Duration::from_secs(until)));
        let leaking = server_spans(&spans, "inventory").filter(|seen| seen.version == "1.8.0");
        p95(leaking.filter(|seen| (from.as_nanos()..until.as_nanos()).contains(&seen.start())))
    };
    let (early, middle, late) = (p95_in(0, 60), p95_in(100, 150), p95_in(300, 600));
    assert!(early < middle && middle < late && late > 1_900.0, "{early} {middle} {late}");
}

#[test]
fn the_cause_can_be_found_and_the_loudest_service_is_not_the_cause() {
    let (truth, batches, grown) = incident(5, Scenario::ConnectionPoolLeak);
    let onset = truth.onset.as_nanos();
    let logs = logs(&batches);

    // A naive answer: who writes the most errors?
    let errors = logs.iter().filter(|log| log.record.severity_number >= 17 && log.record.time_unix_nano as i64 >= onset);
    let loudest = tally(errors.map(|log| log.service.clone())).into_iter().max_by_key(|(_, count)| *count).unwrap().0;
    assert!(truth.symptom_services.contains(&loudest.as_str()), "{loudest} is loudest");

    // A new template, only in the new version, only after the rollout that was logged.
    let timeouts: Vec<_> = logs.iter().filter(|log| log.body().contains("timed out acquiring connection")).collect();
    assert!(timeouts.len() > 50, "{}", timeouts.len());
    assert!(timeouts.iter().all(|log| log.service == "inventory" && log.version == "1.8.0"));
    assert!(timeouts.iter().all(|log| log.record.time_unix_nano as i64 > onset));
    let rollout = logs.iter().find(|log| log.body().contains("rollout of inventory started")).unwrap();
    assert_eq!((rollout.record.time_unix_nano as i64, rollout.service.as_str()), (onset, "deploy-controller"));
    let innocent = logs.iter().find(|log| log.body().contains("rollout of shipping started")).unwrap();
    assert!((innocent.record.time_unix_nano as i64) < onset);
    assert!(logs.iter().any(|log| log.service == "inventory" && log.body().contains("not returned")));

    // Where the time goes: exclusive time of spans in slow checkout traces.
    let spans = spans(&batches);
    let slow: BTreeSet<_> = server_spans(&spans, "checkout")
        .filter(|seen| seen.start() >= grown && seen.milliseconds() > 2_000.0)
        .map(|seen| seen.span.trace_id.clone())
        .collect();
    let in_slow: Vec<_> = spans.iter().filter(|seen| slow.contains(&seen.span.trace_id)).collect();
    let mut inside: BTreeMap<&[u8], f64> = BTreeMap::new();
    for seen in &in_slow {
        *inside.entry(&seen.span.parent_span_id).or_default() += seen.milliseconds();
    }
    let mut exclusive: BTreeMap<String, f64> = BTreeMap::new();
    for seen in &in_slow {
        let children = inside.get(seen.span.span_id.as_slice()).copied().unwrap_or(0.0);
        *exclusive.entry(format!("{} {}", seen.service, seen.span.name)).or_default() += seen.milliseconds() - children;
    }
    let (top, top_time) = exclusive.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    assert_eq!(top, "inventory pool.acquire");
    assert!(*top_time > exclusive.values().sum::<f64>() * 0.8, "{exclusive:?}");
}

#[test]
fn the_pools_of_the_new_version_are_full_and_the_others_are_not() {
    let (truth, batches, grown) = incident(6, Scenario::ConnectionPoolLeak);
    let mut highest: BTreeMap<(String, String), f64> = BTreeMap::new();
    let mut lowest_late: BTreeMap<String, f64> = BTreeMap::new();
    for seen in metrics(&batches).iter().filter(|seen| seen.metric.name == "db.client.connection.count") {
        let used = number(seen, ("db.client.connection.state", "used")).unwrap();
        let entry = highest.entry((seen.service.clone(), seen.version.clone())).or_default();
        *entry = entry.max(used);
        let window = grown..truth.onset.plus(Duration::from_mins(9)).as_nanos();
        if seen.version == "1.8.0" && window.contains(&seen.exported.as_nanos()) {
            let entry = lowest_late.entry(seen.instance.clone()).or_insert(f64::INFINITY);
            *entry = entry.min(used);
        }
    }
    assert_eq!(lowest_late.len(), 3);
    assert!(lowest_late.values().all(|used| *used >= 19.0), "{lowest_late:?}");
    for ((service, version), used) in &highest {
        assert!((version == "1.8.0") == (*used >= 19.0), "{service} {version} used {used}");
    }
    let maximum =
        metrics(&batches).into_iter().find(|seen| seen.service == "inventory" && seen.metric.name == "db.client.connection.max");
    assert_eq!(number(&maximum.unwrap(), ("db.client.connection.pool.name", "stock")), Some(20.0));
    let timeouts: f64 = metrics(&batches)
        .iter()
        .filter(|seen| seen.exported == batches[batches.len() - 1].at && seen.metric.name == "db.client.connection.timeouts")
        .filter_map(|seen| number(seen, ("db.client.connection.pool.name", "stock")))
        .sum();
    let seen = spans(&batches).iter().filter(|seen| seen.span.name == "pool.acquire" && seen.failed()).count();
    assert_eq!(timeouts as usize, seen);
}

#[test]
fn retries_amplify_and_the_email_queue_drains() {
    let (truth, batches, grown) = incident(7, Scenario::ConnectionPoolLeak);
    let onset = truth.onset.as_nanos();
    let spans = spans(&batches);
    let count = |service, from: i64, until: i64| {
        server_spans(&spans, service).filter(|seen| (from..until).contains(&seen.start())).count() as f64
    };
    let attempts_per_order = |from, until| count("inventory", from, until) / count("checkout", from, until);
    let (before, after) = (attempts_per_order(0, onset), attempts_per_order(grown, i64::MAX));
    assert!(before < 1.05 && after > 1.5, "{before} -> {after}");

    let depth = |from: i64, until: i64| {
        let points: Vec<f64> = metrics(&batches)
            .iter()
            .filter(|seen| seen.metric.name == "messaging.queue.depth" && (from..until).contains(&seen.exported.as_nanos()))
            .filter_map(|seen| number(seen, ("messaging.destination.name", "order-confirmations")))
            .collect();
        points.iter().sum::<f64>() / points.len() as f64
    };
    let warm = truth.onset.minus(Duration::from_mins(15)).as_nanos();
    let (before, after) = (depth(warm, onset), depth(grown, i64::MAX));
    assert!(before > 10.0 && after < before * 0.75, "{before} -> {after}");
}

#[test]
fn one_query_per_row_makes_lists_slow_without_an_error() {
    let (truth, batches, grown) = incident(8, Scenario::QueryPerRow);
    let onset = truth.onset.as_nanos();
    let spans = spans(&batches);
    let lists = |from: i64, until: i64| {
        server_spans(&spans, "catalog")
            .filter(move |seen| seen.span.name == "GET /products" && (from..until).contains(&seen.start()))
    };
    let (before, after) = (p95(lists(0, onset)), p95(lists(grown, i64::MAX)));
    assert!(after > before * 4.0, "{before} -> {after} ms");
    let home = |from: i64, until: i64| {
        server_spans(&spans, "frontend").filter(move |s| s.span.name == "GET /" && (from..until).contains(&s.start()))
    };
    assert!(p95(home(grown, i64::MAX)) > p95(home(0, onset)) * 2.0);
    let queries = |from: i64, until: i64| {
        let found = spans.iter().filter(|s| s.span.name == "SELECT prices" && (from..until).contains(&s.start()));
        found.count()
    };
    assert!(queries(0, onset) == 0 && queries(grown, i64::MAX) > 1_000);
    assert!(error_ratio(spans.iter().filter(|seen| seen.start() >= grown)) < 0.005);
    assert_unchanged(&spans, &truth.unaffected_services, onset, grown);
}

#[test]
fn a_memory_leak_ends_in_kills_and_pages_without_recommendations() {
    let (truth, batches, grown) = incident(9, Scenario::MemoryLeak);
    let onset = truth.onset.as_nanos();
    let spans = spans(&batches);
    let memory = |version: &str| {
        let values = metrics(&batches).into_iter().filter(|seen| {
            seen.service == "recommendation" && seen.version == version && seen.metric.name == "process.memory.usage"
        });
        values
            .map(|seen| match &seen.metric.data {
                Some(Data::Sum(sum)) => match sum.data_points[0].value {
                    Some(Value::AsInt(bytes)) => bytes as f64,
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            })
            .fold(0.0, f64::max)
    };
    assert!(memory("2.4.0") > memory("2.3.8") * 3.0);
    let logs = logs(&batches);
    assert!(logs.iter().any(|log| log.service == "deploy-controller" && log.body().contains("OOMKilled")));
    let without = |from: i64, until: i64| {
        let lines = logs.iter().filter(|log| log.body().starts_with("rendering without recommendations"));
        lines.filter(|log| (from..until).contains(&(log.record.time_unix_nano as i64))).count()
    };
    let (before, after) = (without(0, onset), without(grown, i64::MAX));
    assert!(after > before * 3 && after > 50, "{before} -> {after}");
    let pages = |from: i64| server_spans(&spans, "frontend").filter(move |seen| seen.start() >= from);
    assert!(error_ratio(pages(grown)) < 0.01, "pages still come");
    assert_unchanged(&spans, &truth.unaffected_services, onset, grown);
}

#[test]
fn a_quiet_shop_has_no_incident() {
    let config = config(10, Scenario::Quiet);
    assert!(Simulation::new(config.clone()).unwrap().incident().is_none());
    let middle = Timestamp::from_seconds(crate::observed::START + 900).as_nanos();
    let spans = spans(&run(&config));
    let all = ["frontend", "checkout", "cart", "catalog", "payment", "shipping", "inventory", "recommendation"];
    assert_unchanged(&spans, &all, middle, middle);
}

#[test]
fn planted_lines_are_in_the_logs_exactly_once() {
    let config = short(31, Scenario::ConnectionPoolLeak);
    let planted = Simulation::new(config.clone()).unwrap().planted();
    let logs = logs(&run(&config));
    for line in &planted {
        let found: Vec<_> = logs.iter().filter(|log| log.body().contains(&line.value)).collect();
        assert_eq!(found.len(), 1, "{line:?}");
        assert_eq!((found[0].service.as_str(), found[0].body()), (line.service, line.body.as_str()));
        assert_eq!(found[0].record.time_unix_nano as i64, line.at.as_nanos());
    }
    assert!(planted.iter().any(|line| line.kind == HazardKind::PromptInjection));
}
