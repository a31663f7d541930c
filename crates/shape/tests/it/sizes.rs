//! The sizes promised: instant vector at most 45 %, range at most 8 %, trace at most 7 % of the compact JSON.

use portcullis_model::{TimeWindow, Timestamp, TraceSummary};
use portcullis_shape::{RangeOptions, TraceOptions, Unit, instant_table, render_range, render_trace};

use crate::inputs;

fn tokens(text: &str) -> usize {
    tiktoken_rs::o200k_base_singleton().encode_ordinary(text).len()
}

fn share(what: &str, text: &str, json: &str) -> f64 {
    let (ours, theirs) = (tokens(text), tokens(json));
    let share = ours as f64 / theirs as f64 * 100.0;
    println!("{what}: {ours} of {theirs} tokens = {share:.1} %");
    share
}

#[test]
fn instant_vector() {
    let rows = inputs::instant_vector();
    let json = inputs::prometheus_vector(&rows).to_string();
    let borrowed: Vec<_> = rows.iter().map(|(labels, value)| (labels, *value)).collect();
    let (table, options) = instant_table(&borrowed, Some("http_server_requests_in_flight"), Unit::None);
    let shown = table.render(&options);
    assert!(share("instant vector, all labels", &shown.text, &json) <= 45.0, "{}", shown.text);
    let pods = rows.iter().filter(|(labels, _)| shown.text.contains(&labels["pod"])).count();
    assert_eq!((shown.shown, pods, shown.truncated), (40, 40, false));
    let peak = rows.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let first = shown.text.lines().nth(2).and_then(|l| l.rsplit('|').next()).and_then(|v| v.parse::<f64>().ok()).unwrap();
    assert!((first - peak).abs() / peak < 1e-3, "the first row is the peak: {first} {peak}");
    let brief = table.render(&portcullis_shape::TableOptions { identify_only: true, ..options });
    assert!(share("instant vector, identifying labels", &brief.text, &json) <= 30.0, "{}", brief.text);
}

#[test]
fn range_query() {
    let series = inputs::range();
    let json = inputs::prometheus_matrix(&series).to_string();
    let window = TimeWindow::new(Timestamp::from_seconds(inputs::START), Timestamp::from_seconds(inputs::START + 3600)).unwrap();
    let shown = render_range(&series, window, &RangeOptions { unit: Unit::Seconds, ..RangeOptions::default() });
    assert!(share("range query", &shown.text, &json) <= 8.0, "{}", shown.text);
    let peak = series[3].samples[137];
    let peak_line = shown.text.lines().find(|l| l.contains(&series[3].labels["pod"])).unwrap();
    assert!(peak_line.contains(&format!("max {:.3}s@10:34:15", peak.value)), "{peak_line}");
    for values in shown.text.lines().filter(|l| l.starts_with('[')) {
        assert!(values.split(' ').count() <= 61, "{values}");
    }
}

#[test]
fn trace() {
    let trace = inputs::trace();
    assert_eq!(trace.spans.len(), 150);
    let json = inputs::otlp(&trace).to_string();
    let shown = render_trace(&trace, &TraceOptions::default());
    println!("{}", shown.text);
    assert!(share("trace", &shown.text, &json) <= 7.0, "{}", shown.text);
    assert!(shown.text.contains("! payment POST /v1/charges: upstream timed out after 390ms"));
    assert_eq!((shown.shown, shown.hidden), (150, 0));
    // The same with every span on its own line.
    let unfolded = render_trace(&trace, &TraceOptions { fold_from: usize::MAX, max_lines: 200, ..TraceOptions::default() });
    assert!(share("trace, nothing folded", &unfolded.text, &json) <= 7.0, "{}", unfolded.text);
    assert_eq!((unfolded.shown, unfolded.hidden), (150, 0));
    for span in &trace.spans {
        // Right to within a twentieth.
        let right = |word: &str| word.parse::<f64>().is_ok_and(|ms| (ms * 1e6 / span.duration_nanos as f64 - 1.0).abs() <= 0.051);
        let line = |line: &str| line.contains(&span.name) && line.split(' ').any(right);
        assert!(unfolded.text.lines().any(line), "{} {}ns is not in {}", span.name, span.duration_nanos, unfolded.text);
    }
}

/// Every operation once per parent: a trace with nothing to fold, under the options that tools use.
#[test]
fn a_trace_with_nothing_to_fold() {
    let trace = inputs::varied_trace();
    let json = inputs::otlp(&trace).to_string();
    let shown = render_trace(&trace, &TraceOptions { max_lines: 200, ..TraceOptions::default() });
    println!("{}", shown.text);
    assert_eq!((shown.shown, shown.hidden, shown.unit), (trace.spans.len(), 0, "ms"));
    let tree = shown.text.split_once("tree (").unwrap().1;
    assert!(!tree.contains('×'), "something was folded: {tree}");
    assert_eq!(tree.lines().count(), trace.spans.len() + 1, "a heading and a line per span");
    assert!(share("trace, nothing to fold", &shown.text, &json) <= 7.0, "{}", shown.text);
    let services = inputs::SERVICES.iter().filter(|name| shown.text.contains(**name)).count();
    assert_eq!(services, inputs::SERVICES.len());
    assert!(shown.text.contains("! ledger ") && shown.text.contains("critical path"), "{}", shown.text);
}

#[test]
fn a_trace_summary_is_cheap_enough_to_list() {
    let summary = TraceSummary {
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        root_service: "frontend".into(),
        root_name: "GET /checkout".into(),
        start: Timestamp::from_seconds(inputs::START),
        duration_nanos: 1_240_000_000,
        spans: 150,
        error_spans: 2,
        services: vec!["cart".into(), "checkout".into()],
    };
    let json = serde_json::to_string(&summary).unwrap();
    let mut table = portcullis_shape::Table::new(
        ["trace", "root", "start", "duration"].into_iter().map(portcullis_shape::Column::new).collect(),
    );
    let row = || vec![summary.trace_id.clone().into(), "frontend GET /checkout".into(), summary.start.into(), "1.24s".into()];
    for _ in 0..20 {
        table.push(row()).unwrap();
    }
    let shown = table.render(&portcullis_shape::TableOptions::default());
    assert!(tokens(&shown.text) < tokens(&json) * 20 / 2);
}
