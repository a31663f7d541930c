//! Typed questions: the same answers from memory, from segments and from merged segments.

use std::collections::BTreeSet;
use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, NumberDataPoint, Sum, Summary,
    SummaryDataPoint, exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value,
    summary_data_point::ValueAtQuantile,
};
use portcullis_model::{FaultCode, MetricKind, NameSet, Scope, Severity, Signal, TimeWindow, Timestamp};
use portcullis_ports::{
    Aggregation, LabelMatch, LabelValuesRequest, LogCountRequest, LogFilter, LogRequest, MatchOperator, MetricAnswer,
    MetricCatalogueRequest, MetricRequest, MetricSelector, SemanticMetric, Source, SpanFilter, TextFilter, Total, TraceOrder,
    TraceRequest,
};
use portcullis_telemetry::Store;

use crate::data::{ingest_logs, ingest_metrics, ingest_spans, log, logs, logs_in, metric, span, spans, text, trace_hex};
use crate::support::{NOW, SECOND, everything, only_services, open, permit, permit_for, source, window};

/// Runs a check on rows in memory, in one segment each, and after a merge.
async fn in_every_state(fill: impl AsyncFn(&Store), check: impl AsyncFn(&Store, &str)) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    fill(&store).await;
    check(&store, "memory").await;
    store.flush().await.unwrap();
    check(&store, "segments").await;
    store.maintain().await.unwrap();
    check(&store, "merged").await;
    store.close().await.unwrap();
    let store = open(directory.path());
    check(&store, "reopened").await;
}

fn filter() -> LogFilter {
    LogFilter { window: window(), service: None, minimum_severity: None, text: None, attributes: Vec::new(), trace_id: None }
}

fn newest(filter: LogFilter, limit: usize) -> LogRequest {
    LogRequest { filter, limit, newest_first: true, after: None }
}

fn label(name: &str, operator: MatchOperator, value: &str) -> LabelMatch {
    LabelMatch { name: name.into(), operator, value: value.into() }
}

async fn fill_logs(store: &Store) {
    for batch in 0..5 {
        let records =
            (0..20).map(|n| log(batch * 20 + n, 9 + ((n % 2) * 8) as i32, &format!("Line {} of cart", batch * 20 + n))).collect();
        ingest_logs(store, &logs("cart", records)).await;
        ingest_logs(store, &logs_in("payment", "bank", vec![log(batch * 20 + 5, 13, "Connection REFUSED by peer")])).await;
        store.flush().await.unwrap();
    }
    ingest_logs(store, &logs("cart", vec![log(200, 9, "the newest")])).await;
}

#[tokio::test]
async fn log_questions() {
    in_every_state(fill_logs, async |store, state| {
        let source = source(store);
        let permit = permit(everything());
        let page = source.logs(&permit, &newest(filter(), 3)).await.unwrap();
        assert_eq!(page.total, Total::Exact(106), "{state}");
        assert_eq!(page.records[0].body, "the newest", "{state}");
        assert_eq!(page.records[1].body, "Line 99 of cart", "{state}");
        assert_eq!(page.records[1].severity, Some(Severity::Error), "{state}");
        assert_eq!(page.records[1].attributes["k8s.namespace.name"], "shop", "{state}");
        assert_eq!(page.records[1].trace_id, trace_hex(99), "{state}");

        let refused = LogFilter { text: Some(TextFilter::Contains("refused connection".into())), ..filter() };
        let page = source.logs(&permit, &newest(refused.clone(), 2)).await.unwrap();
        assert_eq!((page.total, page.records.len()), (Total::Exact(5), 2), "{state}");
        assert!(page.next.is_some());
        let pattern = LogFilter { text: Some(TextFilter::Regex("Line [0-4] of".into())), ..filter() };
        assert_eq!(source.logs(&permit, &newest(pattern, 10)).await.unwrap().total, Total::Exact(5), "{state}");
        let errors = LogFilter { minimum_severity: Some(Severity::Error), service: Some("cart".into()), ..filter() };
        assert_eq!(source.logs(&permit, &newest(errors, 10)).await.unwrap().total, Total::Exact(50), "{state}");
        let of_trace = LogFilter { trace_id: Some(trace_hex(42)), ..filter() };
        assert_eq!(source.logs(&permit, &newest(of_trace, 10)).await.unwrap().records[0].body, "Line 42 of cart", "{state}");
        let matched = LogFilter {
            attributes: vec![
                label("user", MatchOperator::Regex, "u[12]"),
                label("k8s.namespace.name", MatchOperator::Equal, "bank"),
            ],
            ..filter()
        };
        assert_eq!(source.logs(&permit, &newest(matched, 10)).await.unwrap().total, Total::Exact(4), "{state}");

        let by_service = LogCountRequest {
            filter: filter(),
            by: vec!["service".into(), "user".into()],
            step: Some(Duration::from_mins(1)),
            top: 2,
        };
        let counts = source.log_counts(&permit, &by_service).await.unwrap();
        assert_eq!((counts.total, counts.total_groups, counts.groups.len()), (Total::Exact(106), Total::Exact(6), 2), "{state}");
        assert_eq!(counts.groups[0].count, 34, "{state}");
        assert_eq!(counts.groups[0].over_time.iter().map(|(_, n)| n).sum::<u64>(), 34, "{state}");
        let all = LogCountRequest { filter: filter(), by: Vec::new(), step: None, top: 5 };
        assert_eq!(source.log_counts(&permit, &all).await.unwrap().groups[0].count, 106, "{state}");
    })
    .await;
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps_or_repeats() {
    let fill = async |store: &Store| {
        for n in 0..30 {
            // Three records share every time stamp.
            ingest_logs(store, &logs("cart", vec![log(n / 3, 9, &format!("line {n}"))])).await;
            if n == 15 {
                store.flush().await.unwrap();
            }
        }
    };
    in_every_state(fill, async |store, state| {
        for newest_first in [true, false] {
            let mut seen = Vec::new();
            let mut after = None;
            loop {
                let request = LogRequest { filter: filter(), limit: 4, newest_first, after };
                let page = source(store).logs(&permit(everything()), &request).await.unwrap();
                assert_eq!(page.total, Total::Exact(30), "{state}");
                seen.extend(page.records.iter().map(|r| (r.at, r.body.clone())));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let distinct: BTreeSet<_> = seen.iter().cloned().collect();
            assert_eq!((seen.len(), distinct.len()), (30, 30), "{state}");
            let sorted = if newest_first { seen.is_sorted_by(|a, b| a.0 >= b.0) } else { seen.is_sorted_by(|a, b| a.0 <= b.0) };
            assert!(sorted, "{state}");
        }
    })
    .await;
}

#[tokio::test]
async fn scans_hand_over_everything_in_order() {
    in_every_state(fill_logs, async |store, state| {
        let mut lines = Vec::new();
        let end = source(store)
            .scan_logs(&permit(everything()), &filter(), &mut |line| {
                lines.push((line.at, line.service.to_owned(), line.body.to_owned()));
            })
            .await
            .unwrap();
        assert_eq!((end.scanned, end.complete, lines.len()), (106, true, 106), "{state}");
        assert!(lines.is_sorted_by(|a, b| a.0 >= b.0), "{state}");
        assert_eq!(lines[0].2, "the newest", "{state}");
    })
    .await;
}

#[tokio::test]
async fn a_scope_hides_services_namespaces_and_the_past() {
    in_every_state(fill_logs, async |store, state| {
        let source = source(store);
        let total = async |scope: Scope| source.logs(&permit(scope), &newest(filter(), 200)).await.unwrap().total;
        assert_eq!(total(only_services(&["payment"])).await, Total::Exact(5), "{state}");
        assert_eq!(total(only_services(&[])).await, Total::Exact(0), "{state}");
        let namespaces = Scope { namespaces: NameSet::only(["bank"]), ..everything() };
        assert_eq!(total(namespaces.clone()).await, Total::Exact(5), "{state}");
        let services = source.services(&permit(namespaces), window()).await.unwrap().services;
        assert_eq!(services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["payment"], "{state}");
        // Everything was written after NOW, so a look-back of a second shows all and an empty future shows none.
        let recent = Scope { look_back: Some(Duration::from_secs(1)), ..everything() };
        assert_eq!(total(recent).await, Total::Exact(106), "{state}");
        let foreign = Scope { sources: NameSet::only(["another"]), ..everything() };
        let refused = source.logs(&permit(foreign), &newest(filter(), 1)).await.unwrap_err();
        assert_eq!(refused.code(), FaultCode::Forbidden);
    })
    .await;
}

#[tokio::test]
async fn trace_questions() {
    let fill = async |store: &Store| {
        for trace in 1..=20 {
            let failed = trace % 5 == 0;
            ingest_spans(store, &spans("frontend", vec![span(trace, 1, 0, "GET /checkout", trace * 10, 100 * trace, failed)]))
                .await;
            ingest_spans(store, &spans("payment", vec![span(trace, 2, 1, "Charge", trace * 10 + 1, 50 * trace, failed)])).await;
            if trace % 6 == 0 {
                store.flush().await.unwrap();
            }
        }
    };
    in_every_state(fill, async |store, state| {
        let source = source(store);
        let trace = source.trace(&permit(everything()), &trace_hex(5)).await.unwrap().unwrap();
        assert_eq!(trace.spans.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["GET /checkout", "Charge"], "{state}");
        assert_eq!(trace.spans[1].parent_span_id, "0101010101010101", "{state}");
        assert_eq!(trace.spans[1].events[0].attributes["exception.message"], "card \"declined\"", "{state}");
        assert_eq!(trace.spans[1].status_message, "declined", "{state}");
        assert!(source.trace(&permit(everything()), &trace_hex(99)).await.unwrap().is_none(), "{state}");
        assert_eq!(source.trace(&permit(everything()), "xyz").await.unwrap_err().code(), FaultCode::InvalidArgument);
        let part = source.trace(&permit(only_services(&["payment"])), &trace_hex(5)).await.unwrap().unwrap();
        assert_eq!(part.spans.len(), 1, "{state}");
        assert!(source.trace(&permit(only_services(&["cart"])), &trace_hex(5)).await.unwrap().is_none(), "{state}");

        let request = TraceRequest {
            window: window(),
            service: Some("payment".into()),
            operation: Some("Charge".into()),
            minimum_duration: Some(Duration::from_millis(300)),
            errors_only: false,
            attributes: vec![label("http.request.method", MatchOperator::Equal, "GET")],
            order: TraceOrder::Slowest,
            limit: 3,
        };
        let found = source.traces(&permit(everything()), &request).await.unwrap();
        assert_eq!(found.total, Total::Exact(15), "{state}");
        let first = &found.traces[0];
        assert_eq!((first.trace_id.clone(), first.spans, first.error_spans), (trace_hex(20), 2, 2), "{state}");
        assert_eq!((first.root_service.as_str(), first.root_name.as_str()), ("frontend", "GET /checkout"), "{state}");
        assert_eq!(first.duration_nanos, 2_000_000_000, "{state}");
        assert_eq!(first.services, ["frontend", "payment"], "{state}");
        let errors = TraceRequest { errors_only: true, order: TraceOrder::Newest, minimum_duration: None, ..request };
        let found = source.traces(&permit(everything()), &errors).await.unwrap();
        assert_eq!((found.total, found.traces[0].trace_id.clone()), (Total::Exact(4), trace_hex(20)), "{state}");

        let mut ids = Vec::new();
        let end = source
            .scan_spans(&permit(everything()), window(), &SpanFilter::default(), 1_000, &mut |s| ids.push(s.trace_id))
            .await
            .unwrap();
        assert_eq!((end.scanned, end.complete, ids.len()), (40, true, 40), "{state}");
        assert!(ids.chunk_by(|a, b| a == b).all(|whole| whole.len() == 2), "{state}");
        let end = source.scan_spans(&permit(everything()), window(), &SpanFilter::default(), 7, &mut |_| ()).await.unwrap();
        assert_eq!((end.scanned, end.complete), (7, false), "{state}");
    })
    .await;
}

fn at(second: i64) -> u64 {
    (NOW + second * SECOND) as u64
}

fn number(second: i64, value: f64, queue: &str) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![text("queue", queue)],
        start_time_unix_nano: at(-600),
        time_unix_nano: at(second),
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn histogram(second: i64, counts: [u64; 3], status: &str) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: vec![text("http.response.status_code", status)],
        start_time_unix_nano: at(-600),
        time_unix_nano: at(second),
        count: counts.iter().sum(),
        sum: Some(counts.iter().sum::<u64>() as f64 * 0.2),
        bucket_counts: counts.to_vec(),
        explicit_bounds: vec![0.1, 0.5],
        ..HistogramDataPoint::default()
    }
}

async fn fill_metrics(store: &Store) {
    for step in 0..=40_i64 {
        let second = step * 15;
        for service in ["cart", "payment"] {
            let gauge = Gauge { data_points: vec![number(second, step as f64, "a"), number(second, 100.0, "b")] };
            ingest_metrics(store, &metric(service, "queue.depth", "{item}", Data::Gauge(gauge))).await;
            let sum = Sum {
                data_points: vec![number(second, step as f64 * 30.0, "a")],
                aggregation_temporality: 2,
                is_monotonic: true,
            };
            ingest_metrics(store, &metric(service, "items.processed", "{item}", Data::Sum(sum))).await;
            let n = step as u64;
            let points = vec![histogram(second, [n * 9, n * 6, 0], "200"), histogram(second, [0, n * 5, 0], "500")];
            let data = Data::Histogram(Histogram { data_points: points, aggregation_temporality: 2 });
            ingest_metrics(store, &metric(service, "http.server.request.duration", "s", data)).await;
        }
        if step % 10 == 9 {
            store.flush().await.unwrap();
        }
    }
    let exponential = ExponentialHistogramDataPoint {
        time_unix_nano: at(30),
        start_time_unix_nano: at(0),
        count: 8,
        sum: Some(12.0),
        scale: 0,
        positive: Some(Buckets { offset: 0, bucket_counts: vec![8] }),
        ..ExponentialHistogramDataPoint::default()
    };
    let data = Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![exponential], aggregation_temporality: 1 });
    ingest_metrics(store, &metric("cart", "payload.size", "By", data)).await;
    let quantile_values = vec![ValueAtQuantile { quantile: 0.5, value: 1.0 }, ValueAtQuantile { quantile: 0.99, value: 9.0 }];
    let summary = SummaryDataPoint { time_unix_nano: at(30), count: 3, sum: 4.0, quantile_values, ..SummaryDataPoint::default() };
    ingest_metrics(store, &metric("cart", "gc.pause", "s", Data::Summary(Summary { data_points: vec![summary] }))).await;
}

fn range(metric: MetricSelector) -> MetricRequest {
    MetricRequest {
        window: TimeWindow { start: Timestamp::from_nanos(NOW), end: Timestamp::from_nanos(NOW + 600 * SECOND) },
        step: Some(Duration::from_mins(1)),
        metric,
        service: None,
        matchers: Vec::new(),
        group_by: Vec::new(),
        aggregation: None,
        max_series: 100,
    }
}

fn named(name: &str) -> MetricRequest {
    range(MetricSelector::Named(name.into()))
}

fn all_near(answer: &MetricAnswer, expected: f64) -> bool {
    let mut samples = answer.series.iter().flat_map(|s| &s.samples).peekable();
    samples.peek().is_some() && samples.all(|s| (s.value - expected).abs() < 1e-6)
}

#[tokio::test]
async fn metric_questions() {
    in_every_state(fill_metrics, async |store, state| {
        let source = source(store);
        let ask = async |request: MetricRequest| source.metrics(&permit(everything()), &request).await.unwrap();

        let depth = ask(named("queue.depth")).await;
        assert_eq!((depth.total_series, depth.series.len(), depth.unit.as_str()), (Total::Exact(4), 4, "{item}"), "{state}");
        assert_eq!(depth.series[0].labels["queue"], "b", "{state}");
        let growing = &depth.series[2];
        assert_eq!((growing.samples.len(), growing.samples[0].value), (10, 1.5), "{state}");
        let peak = ask(MetricRequest {
            aggregation: Some(Aggregation::Maximum),
            group_by: vec!["queue".into()],
            ..named("queue.depth")
        })
        .await;
        assert_eq!(peak.series.iter().map(|s| s.samples.last().unwrap().value).collect::<Vec<_>>(), [100.0, 39.0], "{state}");
        let sum = ask(MetricRequest {
            aggregation: Some(Aggregation::Sum),
            matchers: vec![label("queue", MatchOperator::Equal, "b")],
            ..named("queue.depth")
        })
        .await;
        assert!(all_near(&sum, 200.0), "{state}: {sum:?}");

        let rate = ask(named("items.processed")).await;
        assert_eq!(rate.unit, "{item}/s", "{state}");
        assert!(all_near(&rate, 2.0), "{state}: {rate:?}");
        let one = ask(MetricRequest { service: Some("cart".into()), ..named("items.processed") }).await;
        assert_eq!((one.series.len(), one.series[0].labels["service"].as_str()), (1, "cart"), "{state}");

        let p50 =
            ask(MetricRequest { aggregation: Some(Aggregation::Quantile(0.5)), ..named("http.server.request.duration") }).await;
        // 9 + 6 + 5 of 20: the median is the 10th, the first of eleven between 0.1 and 0.5.
        assert!(all_near(&p50, 0.1 + 0.4 / 11.0), "{state}: {p50:?}");
        let requests = ask(MetricRequest { aggregation: Some(Aggregation::Sum), ..named("http.server.request.duration") }).await;
        assert_eq!(requests.unit, "1/s", "{state}");
        assert!(all_near(&requests, 2.0 * 20.0 / 15.0), "{state}: {requests:?}");

        let error_rate = ask(range(MetricSelector::Semantic(SemanticMetric::ErrorRate))).await;
        assert_eq!(error_rate.series.len(), 2, "{state}");
        assert!(all_near(&error_rate, 0.25), "{state}: {error_rate:?}");
        let rate = ask(range(MetricSelector::Semantic(SemanticMetric::RequestRate))).await;
        assert!(all_near(&rate, 20.0 / 15.0), "{state}: {rate:?}");

        let exponential = ask(MetricRequest { aggregation: Some(Aggregation::Quantile(0.5)), ..named("payload.size") }).await;
        assert!(all_near(&exponential, 1.5), "{state}: {exponential:?}");
        let summary = ask(named("gc.pause")).await;
        assert!(all_near(&summary, 9.0), "{state}: {summary:?}");
        let nothing = ask(named("no.such.metric")).await;
        assert_eq!((nothing.series.len(), nothing.total_series), (0, Total::Exact(0)), "{state}");

        let catalogue =
            MetricCatalogueRequest { window: window(), service: None, name_contains: None, limit: 3, with_labels: true };
        let found = source.metric_catalogue(&permit(everything()), &catalogue).await.unwrap();
        assert_eq!((found.total, found.metrics.len()), (Total::Exact(5), 3), "{state}");
        let duration = found.metrics.iter().find(|m| m.name == "http.server.request.duration").unwrap();
        assert_eq!((duration.kind, duration.series, duration.unit.as_str()), (MetricKind::Histogram, Some(4), "s"), "{state}");
        assert_eq!(duration.labels, ["http.response.status_code"], "{state}");
        let values = LabelValuesRequest {
            window: window(),
            signal: Signal::Metrics,
            label: "queue".into(),
            metric: Some("queue.depth".into()),
            service: None,
            prefix: String::new(),
            limit: 10,
        };
        assert_eq!(source.label_values(&permit(everything()), &values).await.unwrap(), ["a", "b"], "{state}");
        let services = source.services(&permit(everything()), window()).await.unwrap().services;
        assert_eq!(services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["cart", "payment"], "{state}");
        assert_eq!(services[0].last_seen, Some(Timestamp::from_nanos(NOW + 600 * SECOND)), "{state}");
    })
    .await;
}

#[tokio::test]
async fn requests_are_seen_in_spans_when_no_metric_says_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let list = (0..60).map(|n| span(n, 1, 0, "GET /", n * 10, 100, n % 4 == 0)).collect();
    ingest_spans(&store, &spans("cart", list)).await;
    let ask =
        async |meaning| source(&store).metrics(&permit(everything()), &range(MetricSelector::Semantic(meaning))).await.unwrap();
    let latency = ask(SemanticMetric::LatencyP95).await;
    assert!(latency.series[0].samples.iter().all(|s| (s.value - 0.1).abs() < 0.02), "{latency:?}");
    let rate = ask(SemanticMetric::RequestRate).await;
    assert!(all_near(&rate, 0.1), "{rate:?}");
    assert!(ask(SemanticMetric::Cpu).await.series.is_empty());
}

#[tokio::test]
async fn a_dropped_or_late_question_stops() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    fill_logs(&store).await;
    let late = source(&store).logs(&permit_for(everything(), Duration::ZERO), &newest(filter(), 1)).await.unwrap_err();
    assert_eq!(late.code(), FaultCode::DeadlineExceeded);
    // Dropping more questions than may read at once must not use up the places.
    for _ in 0..50 {
        let (source, permit, request) = (source(&store), permit(everything()), newest(filter(), 10));
        let _ = tokio::time::timeout(Duration::from_micros(50), source.logs(&permit, &request)).await;
    }
    let answer = source(&store).logs(&permit(everything()), &newest(filter(), 1)).await.unwrap();
    assert_eq!(answer.total, Total::Exact(106));
}
