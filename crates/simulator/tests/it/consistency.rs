//! Spans, logs and metrics agree with one another.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use portcullis_simulator::Scenario;

use crate::observed::{attribute, config, logs, metrics, run, short, spans, tally};

const SCENARIOS: [Scenario; 4] = [Scenario::ConnectionPoolLeak, Scenario::QueryPerRow, Scenario::MemoryLeak, Scenario::Quiet];

/// Calls nobody waits for: they start inside their parent and may outlive it.
const LEFT_ALONE: &str = "DELETE /carts/{user}";

#[test]
fn traces_hang_together() {
    for scenario in SCENARIOS {
        let batches = run(&short(21, scenario));
        let spans = spans(&batches);
        let by_id: BTreeMap<_, _> = spans.iter().map(|seen| (seen.span.span_id.clone(), seen)).collect();
        assert_eq!(by_id.len(), spans.len(), "span ids repeat");
        let mut children = 0;
        for seen in &spans {
            let span = &seen.span;
            assert!(span.start_time_unix_nano < span.end_time_unix_nano, "{span:?}");
            if span.parent_span_id.is_empty() {
                assert!(["frontend", "email"].contains(&seen.service.as_str()), "{} has a root span", seen.service);
                continue;
            }
            children += 1;
            let parent = &by_id.get(&span.parent_span_id).expect("a parent is missing").span;
            assert_eq!(parent.trace_id, span.trace_id);
            assert!(parent.start_time_unix_nano <= span.start_time_unix_nano, "{span:?} starts before {parent:?}");
            let alone = span.name == LEFT_ALONE && span.kind == 3;
            assert!(alone || span.end_time_unix_nano <= parent.end_time_unix_nano, "{span:?} outlives {parent:?}");
            if span.kind == 2 {
                assert_eq!((parent.kind, &parent.name), (3, &span.name), "a server span is called by a client span");
            }
        }
        assert!(children > 10_000, "{children}");
        let links = spans.iter().flat_map(|seen| &seen.span.links);
        let mut linked = 0;
        for link in links {
            linked += 1;
            assert_eq!(by_id[&link.span_id].span.trace_id, link.trace_id);
        }
        assert!(linked > 100, "{linked}");
    }
}

#[test]
fn logs_lie_inside_the_spans_they_name() {
    for scenario in SCENARIOS {
        let batches = run(&short(22, scenario));
        let all = spans(&batches);
        let by_id: BTreeMap<_, _> = all.iter().map(|seen| (&seen.span.span_id, seen)).collect();
        let (mut inside, mut alone) = (0, 0);
        for log in logs(&batches) {
            if log.record.span_id.is_empty() {
                alone += 1;
                continue;
            }
            inside += 1;
            let seen = by_id[&log.record.span_id];
            assert_eq!((&seen.span.trace_id, &seen.service), (&log.record.trace_id, &log.service));
            let interval = seen.span.start_time_unix_nano..=seen.span.end_time_unix_nano;
            assert!(interval.contains(&log.record.time_unix_nano), "{} outside {:?}", log.body(), seen.span);
        }
        assert!(inside > 3_000 && alone > 500, "{inside} {alone}");
    }
}

#[test]
fn every_record_is_exported_once_in_the_batch_of_its_time() {
    let config = short(23, Scenario::ConnectionPoolLeak);
    let batches = run(&config);
    let interval = config.batch_interval;
    let check = |time: u64, exported: portcullis_model::Timestamp| {
        let end = exported.as_nanos();
        let start = exported.minus(interval).as_nanos();
        assert!((start..end).contains(&(time as i64)), "{time} in the batch of {exported}");
    };
    for seen in spans(&batches) {
        check(seen.span.end_time_unix_nano, seen.exported);
    }
    for seen in logs(&batches) {
        check(seen.record.time_unix_nano, seen.exported);
    }
}

#[test]
fn histograms_count_exactly_the_spans_exported_so_far() {
    for scenario in SCENARIOS {
        let batches = run(&short(24, scenario));
        // (metric, service, operation) -> spans exported up to the last batch.
        let mut expected: BTreeMap<(&str, String), u64> = BTreeMap::new();
        for seen in spans(&batches) {
            let http = attribute(&seen.span.attributes, "http.request.method").is_some();
            let rpc = attribute(&seen.span.attributes, "rpc.method").is_some();
            let database = attribute(&seen.span.attributes, "db.system.name").is_some();
            let name = match seen.span.kind {
                2 if http => "http.server.request.duration",
                2 if rpc => "rpc.server.call.duration",
                3 if http => "http.client.request.duration",
                3 if rpc => "rpc.client.call.duration",
                3 if database => "db.client.operation.duration",
                4 => "messaging.client.operation.duration",
                5 => "messaging.process.duration",
                1 if seen.span.name == "pool.acquire" => "db.client.connection.wait_time",
                1 => continue,
                _ => panic!("no metric for {:?}", seen.span),
            };
            *expected.entry((name, seen.service)).or_default() += 1;
        }
        // The last point of every series, summed over the pods of a service.
        let mut last: BTreeMap<(String, String, String), u64> = BTreeMap::new();
        let mut services = BTreeMap::new();
        for seen in metrics(&batches) {
            let counts: Vec<(String, u64)> = match &seen.metric.data {
                Some(Data::Histogram(data)) => {
                    data.data_points.iter().map(|point| (format!("{:?}", point.attributes), point.count)).collect()
                }
                Some(Data::ExponentialHistogram(data)) => {
                    data.data_points.iter().map(|point| (format!("{:?}", point.attributes), point.count)).collect()
                }
                _ => continue,
            };
            services.insert(seen.instance.clone(), seen.service.clone());
            for (attributes, count) in counts {
                let before = last.insert((seen.metric.name.clone(), seen.instance.clone(), attributes), count);
                assert!(before.unwrap_or(0) <= count, "{} fell", seen.metric.name);
            }
        }
        let mut counted: BTreeMap<(&str, String), u64> = BTreeMap::new();
        for ((name, instance, _), count) in &last {
            *counted.entry((name, services[instance].clone())).or_default() += count;
        }
        assert_eq!(counted, expected, "{scenario:?}");
    }
}

#[test]
fn all_kinds_of_metrics_appear_with_exemplars_that_exist() {
    let batches = run(&short(25, Scenario::ConnectionPoolLeak));
    let known: BTreeSet<_> = spans(&batches).into_iter().map(|seen| (seen.span.trace_id, seen.span.span_id)).collect();
    let mut exemplars = 0;
    let kinds = tally(metrics(&batches).into_iter().map(|seen| match seen.metric.data.expect("no data") {
        Data::Gauge(_) => "gauge",
        Data::Sum(_) => "sum",
        Data::Summary(_) => "summary",
        Data::Histogram(data) => {
            for exemplar in data.data_points.iter().flat_map(|point| &point.exemplars) {
                exemplars += 1;
                assert!(known.contains(&(exemplar.trace_id.clone(), exemplar.span_id.clone())));
            }
            for point in &data.data_points {
                assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
            }
            "histogram"
        }
        Data::ExponentialHistogram(data) => {
            for point in &data.data_points {
                let buckets = point.positive.as_ref().expect("no buckets");
                assert_eq!(buckets.bucket_counts.iter().sum::<u64>() + point.zero_count, point.count);
            }
            "exponential"
        }
    }));
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), ["exponential", "gauge", "histogram", "sum", "summary"]);
    assert!(exemplars > 1_000, "{exemplars}");
}

#[test]
fn logs_have_many_templates_and_ordinary_noise() {
    let batches = run(&config(26, Scenario::Quiet));
    let template = |body: &str| -> String {
        body.split_whitespace().filter(|word| !word.bytes().any(|byte| byte.is_ascii_digit())).collect::<Vec<_>>().join(" ")
    };
    let templates = tally(logs(&batches).iter().map(|log| template(log.body())));
    assert!(templates.len() > 40, "{templates:?}");
    let roots: Vec<_> = spans(&batches).into_iter().filter(|s| s.span.parent_span_id.is_empty() && s.span.kind == 2).collect();
    let failed = roots.iter().filter(|seen| seen.failed()).count() as f64 / roots.len() as f64;
    assert!((0.001..=0.005).contains(&failed), "{failed} of the requests fail in a quiet shop");
}
