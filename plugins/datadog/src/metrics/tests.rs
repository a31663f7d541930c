//! Metrics against answers as Datadog's API reference shows them: <https://docs.datadoghq.com/api/latest/metrics/>.

use serde_json::json;

use super::*;
use crate::api::tests::Double;
use crate::portcullis::plugin::types::{NameSet, Signal, Window};
use crate::search::tests::scope;

const WINDOW: Window = Window { start: 1_700_000_000_000_000_000, end: 1_700_003_600_000_000_000 };

fn question(metric: MetricSelector) -> MetricQuestion {
    MetricQuestion {
        window: WINDOW,
        step: Some(60_000_000_000),
        metric,
        service: None,
        matchers: Vec::new(),
        group_by: vec!["service".into()],
        aggregation: Some(Aggregation::Average),
        max_series: 10,
    }
}

fn named(name: &str) -> MetricQuestion {
    question(MetricSelector::Named(name.into()))
}

fn everything() -> Scope {
    scope(NameSet::Everything, NameSet::Everything)
}

fn text(question: &MetricQuestion, scope: &Scope, settings: &str) -> Result<Option<String>, Fault> {
    Ok(query(question, scope, &Settings::read(settings)?)?.map(|query| query.text))
}

#[test]
fn a_question_becomes_a_query() {
    assert_eq!(
        text(&named("system.cpu.user"), &everything(), "{}").unwrap().unwrap(),
        "avg:system.cpu.user{*} by {service}.rollup(avg, 60)"
    );
    let mut full = named("http.hits");
    full.service = Some("cart".into());
    full.aggregation = Some(Aggregation::Maximum);
    full.group_by = vec!["k8s.namespace.name".into(), "host".into()];
    full.matchers = vec![
        LabelMatch { name: "region".into(), operator: MatchOperator::Regex, value: "eu|us".into() },
        LabelMatch { name: "canary".into(), operator: MatchOperator::NotEqual, value: "true".into() },
    ];
    assert_eq!(
        text(&full, &everything(), r#"{"tags": ["env:prod"]}"#).unwrap().unwrap(),
        "max:http.hits{service:cart AND env:prod AND region IN (eu,us) AND NOT canary:true} by {kube_namespace,host}.rollup(max, 60)"
    );
}

#[test]
fn the_scope_is_in_every_query() {
    let two = scope(NameSet::Only(vec!["cart".into(), "pay".into()]), NameSet::Only(vec!["shop".into()]));
    let asked = text(&named("a.b"), &two, "{}").unwrap().unwrap();
    assert!(asked.contains("{service IN (cart,pay) AND kube_namespace:shop}"), "{asked}");
    let other = MetricQuestion { service: Some("other".into()), ..named("a.b") };
    assert_eq!(text(&other, &two, "{}").unwrap(), None);
    assert_eq!(text(&named("a.b"), &scope(NameSet::Everything, NameSet::Only(vec![])), "{}").unwrap(), None);
    for (semantic, times) in [(SemanticMetric::ErrorRate, 2), (SemanticMetric::LatencyP99, 1), (SemanticMetric::Cpu, 1)] {
        let asked =
            text(&question(MetricSelector::Semantic(semantic)), &two, r#"{"apm_operation": "http.request"}"#).unwrap().unwrap();
        assert_eq!(asked.matches("service IN (cart,pay)").count(), times, "{asked}");
    }
}

#[test]
fn no_text_from_outside_becomes_syntax() {
    for nasty in ["*", "a} by {x", "a,b", "a OR b", "a)", "x\"", "", "or", "a\n"] {
        let questions = [
            named(nasty),
            MetricQuestion { service: Some(nasty.into()), ..named("a.b") },
            MetricQuestion { group_by: vec![nasty.into()], ..named("a.b") },
            MetricQuestion {
                matchers: vec![LabelMatch { name: nasty.into(), operator: MatchOperator::Equal, value: "v".into() }],
                ..named("a.b")
            },
            MetricQuestion {
                matchers: vec![LabelMatch { name: "k".into(), operator: MatchOperator::Equal, value: nasty.into() }],
                ..named("a.b")
            },
        ];
        for (at, question) in questions.iter().enumerate() {
            // "or" is a fine name of a metric: it stands before the braces.
            if (at, nasty) == (0, "or") {
                continue;
            }
            assert_eq!(text(question, &everything(), "{}").unwrap_err().code, FaultCode::InvalidArgument, "{nasty:?} at {at}");
        }
    }
}

#[test]
fn what_cannot_be_asked_is_said() {
    let narrowed = r#"{"tags": ["env:prod"]}"#;
    let raw = question(MetricSelector::Raw("avg:x{*}".into()));
    assert_eq!(text(&raw, &everything(), narrowed).unwrap_err().code, FaultCode::Unsupported);
    assert_eq!(text(&raw, &everything(), "{}").unwrap().unwrap(), "avg:x{*}");
    let rate = question(MetricSelector::Semantic(SemanticMetric::RequestRate));
    assert!(text(&rate, &everything(), "{}").unwrap_err().hint.unwrap().contains("apm_operation"));
    let odd = MetricQuestion { aggregation: Some(Aggregation::Quantile(0.42)), ..named("a.b") };
    assert_eq!(text(&odd, &everything(), "{}").unwrap_err().code, FaultCode::InvalidArgument);
}

fn ask(answer: &Value, question: &MetricQuestion, scope: Scope) -> (Result<MetricAnswer, Fault>, Double) {
    let double = Double::answering(std::slice::from_ref(answer));
    let settings = Settings::read("{}").unwrap();
    let context = Context { scope, traceparent: None, result_bytes: 1 << 20 };
    let answer = metrics(&Api { door: &double, settings: &settings }, question, &context);
    (answer, double)
}

fn body(series: &Value) -> Value {
    json!({"status": "ok", "res_type": "time_series", "error": "", "message": "", "series": series,
        "from_date": 1_700_000_000_000_i64, "to_date": 1_700_003_600_000_i64, "query": "q", "group_by": ["service"]})
}

#[test]
fn missing_points_stay_missing_and_points_before_the_window_are_left_out() {
    let series = json!([{"metric": "container.cpu.usage", "interval": 60, "scope": "service:cart", "tag_set": ["service:cart", "kube_namespace:shop"],
        "unit": [{"name": "nanocore", "short_name": "ncores"}, null],
        "pointlist": [[1_699_999_980_000.0, 9e9], [1_700_000_040_000.0, 5e8], [1_700_000_100_000.0, null], [1_700_000_160_000.0, 0.0]]}]);
    let (answer, double) = ask(&body(&series), &question(MetricSelector::Semantic(SemanticMetric::Cpu)), everything());
    let answer = answer.unwrap();
    let values: Vec<f64> = answer.series[0].samples.iter().map(|sample| sample.value).collect();
    assert_eq!(values, [0.5, 0.0]);
    let labels: Vec<String> = answer.series[0].labels.iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect();
    assert_eq!(labels, ["service=cart", "namespace=shop"]);
    assert_eq!((answer.unit.as_str(), answer.step), ("1", 60_000_000_000));
    let url = &double.asked.borrow()[0].1;
    assert!(
        url.starts_with(
            "https://api.datadoghq.com/api/v1/query?from=1700000000&to=1700003600&query=avg%3Acontainer.cpu.usage%7B"
        ),
        "{url}"
    );
}

#[test]
fn series_of_one_service_say_so_even_when_not_grouped() {
    let series =
        json!([{"metric": "a.b", "interval": 60, "tag_set": [], "unit": null, "pointlist": [[1_700_000_040_000.0, 1.0]]}]);
    let mut one = named("a.b");
    one.group_by.clear();
    let (answer, _) = ask(&body(&series), &one, scope(NameSet::Only(vec!["cart".into()]), NameSet::Everything));
    let answer = answer.unwrap();
    assert_eq!((answer.series[0].labels[0].name.as_str(), answer.series[0].labels[0].value.as_str()), ("service", "cart"));
    assert_eq!(answer.unit, "");
}

#[test]
fn an_error_in_a_success_is_an_error() {
    let (answer, _) = ask(&json!({"status": "error", "error": "Error parsing query"}), &named("a.b"), everything());
    assert!(answer.unwrap_err().message.contains("Error parsing query"));
    let (answer, _) = ask(&json!({"status": "ok"}), &named("a.b"), everything());
    assert_eq!(answer.unwrap_err().code, FaultCode::BackendFailed);
    let (empty, _) = ask(&body(&json!([])), &named("a.b"), everything());
    assert!(matches!(empty.unwrap().total_series, Total::Exact(0)));
}

#[test]
fn tags_and_names_are_listed() {
    let settings = Settings::read("{}").unwrap();
    let double = Double::answering(&[
        json!({"data": {"type": "metrics", "id": "a.b", "attributes": {"tags": ["env:prod", "env:dev", "service:cart"]}}}),
    ]);
    let asked = LabelValuesQuestion {
        window: WINDOW,
        signal: Signal::Metrics,
        label: "env".into(),
        metric: Some("a.b".into()),
        service: None,
        prefix: "p".into(),
        limit: 10,
    };
    assert_eq!(values(&Api { door: &double, settings: &settings }, &asked).unwrap(), ["prod"]);
    assert_eq!(double.asked.borrow()[0].1, "https://api.datadoghq.com/api/v2/metrics/a.b/all-tags");

    let double = Double::answering(&[json!({"from": "1700000000", "metrics": ["system.load.1", "system.CPU.user", "x"]})]);
    let asked = MetricCatalogueQuestion {
        window: WINDOW,
        service: Some("cart".into()),
        name_contains: Some("cpu".into()),
        limit: 10,
        with_labels: false,
    };
    let context = Context { scope: everything(), traceparent: None, result_bytes: 1 << 20 };
    let found = catalogue(&Api { door: &double, settings: &settings }, &asked, &context).unwrap();
    assert_eq!((found.metrics.len(), found.metrics[0].name.as_str()), (1, "system.CPU.user"));
    assert!(double.asked.borrow()[0].1.ends_with("tag_filter=service%3Acart"));
}
