//! What questions become: the PromQL of every convention, and every recorded answer read back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Fault, MetricKind, NameSet, Scope, TenantId};
use portcullis_ports::{Aggregation, SemanticMetric};
use portcullis_query::promql::{LabelName, Matcher, Selector};
use portcullis_query::promql_info;
use serde_json::Value;

use super::config::Labels;
use super::plan::{Plan, Question, Survey};
use super::views::{View, all_views};
use super::wire::{Alerts, BuildInfo, Envelope, Failure, LabelSet, Metadata, QueryData, Rules, SeriesExemplars, Targets};

/// A source that has some names, whatever the selectors say.
#[derive(Default)]
struct Has {
    names: &'static [&'static str],
    labels: &'static [&'static str],
    kinds: BTreeMap<&'static str, MetricKind>,
    native: bool,
}

#[async_trait]
impl Survey for Has {
    async fn names(&self, selectors: Vec<Selector>) -> Result<BTreeSet<String>, Fault> {
        let asked: String = selectors.iter().map(ToString::to_string).collect();
        let plain = asked.replace('\\', "");
        Ok(self.names.iter().filter(|name| plain.contains(*name)).map(|name| (*name).to_owned()).collect())
    }
    async fn labels(&self, _: Vec<Selector>) -> Result<BTreeSet<String>, Fault> {
        Ok(self.labels.iter().map(|l| (*l).to_owned()).collect())
    }
    async fn interval(&self, _: Vec<Selector>) -> Result<Duration, Fault> {
        Ok(Duration::from_secs(15))
    }
    async fn described(&self, name: &str) -> Result<Option<(MetricKind, String)>, Fault> {
        Ok(self.kinds.get(name).map(|kind| (*kind, String::new())))
    }
    async fn has_native_histograms(&self, _: Vec<Selector>) -> Result<bool, Fault> {
        Ok(self.native)
    }
}

fn names(list: &[&str]) -> Vec<LabelName> {
    list.iter().map(|n| LabelName::new(*n).unwrap()).collect()
}

fn labels() -> Labels {
    Labels { service: names(&["service_name", "job"]), namespace: names(&["namespace"]), instance: names(&["instance"]) }
}

enum Ask<'a> {
    Semantic(SemanticMetric),
    Named(&'a str),
}

struct Case {
    service: Option<&'static str>,
    scope: Scope,
    aggregation: Option<Aggregation>,
    group_by: &'static [&'static str],
    step: Duration,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            service: Some("cart"),
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            aggregation: None,
            group_by: &[],
            step: Duration::from_secs(15),
        }
    }
}

async fn plan(case: &Case, has: &Has, ask: Ask<'_>) -> Plan {
    let labels = labels();
    let mut views: Vec<View> = all_views(&labels, &case.scope, case.service).unwrap();
    views.truncate(1);
    let open = Scope { services: NameSet::All, ..case.scope.clone() };
    let namespaces: Vec<Vec<Matcher>> = all_views(&labels, &open, None).unwrap().into_iter().map(|v| v.namespace).collect();
    let question = Question {
        labels: &labels,
        views: &views,
        namespaces,
        service: case.service,
        confined: !case.scope.services.is_all(),
        conditions: Vec::new(),
        group_by: names(case.group_by),
        aggregation: case.aggregation,
        step: case.step,
    };
    let plan = match ask {
        Ask::Semantic(metric) => question.semantic(has, metric).await.unwrap(),
        Ask::Named(name) => question.named(has, name).await.unwrap(),
    };
    if let Some(expr) = &plan.expr {
        let text = expr.to_string();
        promql_info(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
    plan
}

fn text(plan: &Plan) -> String {
    plan.expr.as_ref().map(ToString::to_string).unwrap_or_default()
}

const PER_INSTANCE: &str = "service_name, job, namespace, instance";

#[tokio::test]
async fn rates_keep_every_instance_and_look_back_four_intervals() {
    let has = Has {
        names: &["http_server_request_duration_seconds_count", "http_server_request_duration_seconds_bucket"],
        ..Has::default()
    };
    let plan = plan(&Case::default(), &has, Ask::Semantic(SemanticMetric::RequestRate)).await;
    assert_eq!(
        text(&plan),
        format!(r#"sum by ({PER_INSTANCE}) (rate(http_server_request_duration_seconds_count{{service_name="cart"}}[1m]))"#)
    );
    assert_eq!((plan.unit.as_str(), plan.metric.as_str()), ("1/s", "http_server_request_duration_seconds"));
}

#[tokio::test]
async fn dotted_names_and_native_histograms() {
    let has = Has { names: &["http.server.request.duration"], ..Has::default() };
    let p95 = plan(&Case::default(), &has, Ask::Semantic(SemanticMetric::LatencyP95)).await;
    assert_eq!(
        text(&p95),
        format!(
            r#"histogram_quantile(0.95, sum by ({PER_INSTANCE}) (rate({{"http.server.request.duration",service_name="cart"}}[1m])))"#
        )
    );
    let rate = plan(&Case::default(), &has, Ask::Semantic(SemanticMetric::RequestRate)).await;
    assert!(text(&rate).contains("histogram_count(rate("), "{}", text(&rate));
}

#[tokio::test]
async fn failures_need_a_status_and_no_failure_is_zero() {
    let names: &[&str] = &["http_requests_total"];
    let none =
        plan(&Case::default(), &Has { names, labels: &["instance"], ..Has::default() }, Ask::Semantic(SemanticMetric::ErrorRate))
            .await;
    assert_eq!(none.expr, None, "without a status label nothing is known about failures");
    let has = Has { names, labels: &["code", "instance"], ..Has::default() };
    let some = plan(&Case::default(), &has, Ask::Semantic(SemanticMetric::ErrorRate)).await;
    let all = format!(r#"sum by ({PER_INSTANCE}) (rate(http_requests_total{{service_name="cart"}}[1m]))"#);
    let bad = format!(r#"sum by ({PER_INSTANCE}) (rate(http_requests_total{{code=~"5..|5xx",service_name="cart"}}[1m]))"#);
    assert_eq!(text(&some), format!("({bad} or ({all} * 0)) / ({all} > 0)"));
}

#[tokio::test]
async fn http_and_rpc_are_different_requests() {
    let has = Has { names: &["http_requests_total", "grpc_server_handled_total"], ..Has::default() };
    let plan = plan(&Case::default(), &has, Ask::Semantic(SemanticMetric::RequestRate)).await;
    let text = text(&plan);
    assert!(text.contains(r#""protocol", "http""#) && text.contains(r#""protocol", "rpc""#), "{text}");
}

#[tokio::test]
async fn containers_answer_only_where_no_process_does_and_no_service_scope_is_set() {
    let has = Has { names: &["container_cpu_usage_seconds_total"], ..Has::default() };
    let open = plan(&Case::default(), &has, Ask::Semantic(SemanticMetric::Cpu)).await;
    let written = text(&open);
    assert!(written.contains(r#"container="cart""#) && written.contains(r#"pod=~"cart-("#), "{written}");
    assert!(written.starts_with("sum by (namespace, pod, container) ("), "{written}");

    let mut confined = Case::default();
    confined.scope.services = NameSet::only(["cart"]);
    let closed = plan(&confined, &has, Ask::Semantic(SemanticMetric::Cpu)).await;
    assert_eq!(closed.expr, None);
    assert!(closed.notes.iter().any(|n| n.contains("confined to services")), "{:?}", closed.notes);

    let mut namespaced = Case::default();
    namespaced.scope.namespaces = NameSet::only(["shop"]);
    let written = text(&plan(&namespaced, &has, Ask::Semantic(SemanticMetric::Cpu)).await);
    assert_eq!(written.matches("container_cpu_usage_seconds_total").count(), written.matches(r#"namespace="shop""#).count());

    let both = Has { names: &["container_cpu_usage_seconds_total", "process_cpu_seconds_total"], ..Has::default() };
    let process = plan(&Case::default(), &both, Ask::Semantic(SemanticMetric::Cpu)).await;
    assert_eq!(process.metric, "process_cpu_seconds_total");
    let everyone = Case { service: None, ..Case::default() };
    let written = text(&plan(&everyone, &both, Ask::Semantic(SemanticMetric::Cpu)).await);
    assert!(
        written.contains(r#""measured_by", "container""#) && written.contains(r#""measured_by", "application""#),
        "{written}"
    );
    let merged = Case { service: None, aggregation: Some(Aggregation::Sum), ..Case::default() };
    let plan = plan(&merged, &both, Ask::Semantic(SemanticMetric::Cpu)).await;
    assert!(!text(&plan).contains("container_cpu") && plan.notes[0].contains("container"), "{plan:?}");
}

#[tokio::test]
async fn mesh_and_span_metrics_are_found() {
    let has = Has { names: &["istio_requests_total"], labels: &["response_code"], ..Has::default() };
    let mesh = plan(&Case::default(), &has, Ask::Semantic(SemanticMetric::ErrorRate)).await;
    let written = text(&mesh);
    assert!(written.contains(r#"destination_service_name="cart""#) && written.contains(r#"reporter="destination""#), "{written}");
    let has = Has { names: &["traces_spanmetrics_latency_bucket"], ..Has::default() };
    let spans = text(&plan(&Case::default(), &has, Ask::Semantic(SemanticMetric::LatencyP99)).await);
    assert!(spans.contains("histogram_quantile(0.99") && spans.contains("SPAN_KIND_SERVER"), "{spans}");
}

#[tokio::test]
async fn saturation_names_what_is_full_and_levels_keep_their_extremes() {
    let has = Has {
        names: &["process_open_fds", "process_max_fds", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"],
        ..Has::default()
    };
    let case = Case { step: Duration::from_mins(10), ..Case::default() };
    let written = text(&plan(&case, &has, Ask::Semantic(SemanticMetric::Saturation)).await);
    assert!(written.contains(r#""resource", "file_descriptors""#) && written.contains(r#""resource", "memory""#), "{written}");
    assert!(written.contains("max_over_time(process_open_fds"), "{written}");
    assert!(written.contains("min_over_time(node_memory_MemAvailable_bytes"), "{written}");
    assert!(written.contains("1 - ("), "{written}");
}

#[tokio::test]
async fn kubernetes_limits_come_from_kube_state_metrics() {
    let has = Has { names: &["container_memory_working_set_bytes", "kube_pod_container_resource_limits"], ..Has::default() };
    let written = text(&plan(&Case::default(), &has, Ask::Semantic(SemanticMetric::Saturation)).await);
    assert!(written.contains(r#"kube_pod_container_resource_limits{resource="memory""#), "{written}");
    assert!(written.contains(r#""resource", "memory_limit""#), "{written}");
}

#[tokio::test]
async fn merging_is_explicit_and_merges_before_the_ratio() {
    let has =
        Has { names: &["http_server_request_duration_seconds_bucket"], labels: &["http_response_status_code"], ..Has::default() };
    let merged = Case { aggregation: Some(Aggregation::Average), group_by: &["http_route"], ..Case::default() };
    let latency = text(&plan(&merged, &has, Ask::Semantic(SemanticMetric::LatencyP50)).await);
    assert!(latency.starts_with("histogram_quantile(0.5, sum by (http_route, le) (rate("), "{latency}");
    let errors = text(&plan(&merged, &has, Ask::Semantic(SemanticMetric::ErrorRate)).await);
    assert!(errors.contains(") / (sum by (http_route) ("), "{errors}");
    let worst = Case { aggregation: Some(Aggregation::Maximum), ..Case::default() };
    let latency = text(&plan(&worst, &has, Ask::Semantic(SemanticMetric::LatencyP50)).await);
    assert!(latency.starts_with("max(histogram_quantile("), "{latency}");
}

#[tokio::test]
async fn named_metrics_are_read_by_their_kind() {
    let has = Has {
        names: &["jobs_total", "queue_depth", "latency_seconds_bucket", "latency_seconds_count", "size_bytes", "odd_sum"],
        kinds: BTreeMap::from([
            ("jobs_total", MetricKind::Counter),
            ("queue_depth", MetricKind::Gauge),
            ("latency_seconds_count", MetricKind::Histogram),
        ]),
        ..Has::default()
    };
    let case = Case::default();
    let asked = |name: &'static str| plan(&case, &has, Ask::Named(name));
    assert_eq!(text(&asked("jobs_total").await), r#"rate(jobs_total{service_name="cart"}[1m])"#);
    assert_eq!(text(&asked("jobs").await), r#"rate(jobs_total{service_name="cart"}[1m])"#);
    assert_eq!(text(&asked("queue_depth").await), r#"queue_depth{service_name="cart"}"#);
    let quantile = r#"histogram_quantile(0.95, rate(latency_seconds_bucket{service_name="cart"}[1m]))"#;
    assert_eq!(text(&asked("latency_seconds").await), quantile);
    assert_eq!(text(&asked("latency_seconds_bucket").await), quantile);
    assert_eq!(text(&asked("latency_seconds_count").await), r#"rate(latency_seconds_count{service_name="cart"}[1m])"#);
    let odd = asked("odd_sum").await;
    assert!(text(&odd).starts_with("rate(") && odd.notes[0].contains("does not say"), "{odd:?}");
    assert_eq!((asked("size_bytes").await.unit.as_str(), asked("latency_seconds").await.unit.as_str()), ("By", "s"));
    assert_eq!(asked("missing").await, Plan::default());

    let native = Has { names: &["size_bytes"], native: true, ..Has::default() };
    let p50 = Case { aggregation: Some(Aggregation::Quantile(0.5)), ..Case::default() };
    let written = text(&plan(&p50, &native, Ask::Named("size_bytes")).await);
    assert_eq!(written, r#"histogram_quantile(0.5, sum(rate(size_bytes{service_name="cart"}[1m])))"#);
}

/// Where recorded exchanges are kept, if they are.
fn recordings() -> Option<PathBuf> {
    let data = std::env::var_os("PORTCULLIS_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let folder = data.join("recordings");
    folder.is_dir().then_some(folder)
}

/// Samples of a recorded result that are numbers.
fn finite_samples(result: &Value) -> usize {
    let finite = |point: &Value| point[1].as_str().and_then(|v| v.parse::<f64>().ok()).is_some_and(f64::is_finite);
    let of_series = |series: &Value| {
        let many = series["values"].as_array().map_or(0, |values| values.iter().filter(|p| finite(p)).count());
        many + usize::from(finite(&series["value"]))
    };
    result.as_array().map_or(0, |all| all.iter().map(of_series).sum())
}

fn read<T: serde::de::DeserializeOwned>(what: &str, body: &[u8]) -> T {
    let envelope: Envelope<T> = serde_json::from_slice(body).unwrap_or_else(|e| panic!("{what}: {e}"));
    envelope.data.unwrap_or_else(|| panic!("{what}: no data"))
}

#[test]
fn every_recorded_answer_is_read() {
    let Some(folder) = recordings() else {
        println!("skipped: no recorded exchanges; set PORTCULLIS_DATA to the folder that holds 'recordings'");
        return;
    };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for version in ["prometheus-2.42.0", "prometheus-3.12.0"] {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder.join(version)).unwrap().map(|f| f.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == "json"));
        for path in files {
            let exchange: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let what = path.display().to_string();
            let (response, asked) = (&exchange["response"], exchange["request"]["path"].as_str().unwrap());
            let body = serde_json::to_vec(&response["body"]).unwrap();
            if response["status"] != 200 {
                if response["body"].is_object() {
                    let failure: Failure = serde_json::from_slice(&body).unwrap();
                    assert!(!failure.kind.is_empty() && !failure.error.is_empty(), "{what}");
                    *seen.entry("errors").or_default() += 1;
                }
                continue;
            }
            let part = asked.strip_prefix("/api/v1/").unwrap_or_default();
            let known = match part {
                "query" | "query_range" => {
                    let shown = read::<QueryData>(&what, &body).into_series();
                    let samples: usize = shown.series.iter().map(|s| s.samples.len()).sum();
                    let result = &response["body"]["data"]["result"];
                    if response["body"]["data"]["resultType"] == "vector" || response["body"]["data"]["resultType"] == "matrix" {
                        assert_eq!(samples, finite_samples(result), "{what}");
                    }
                    "queries"
                }
                "series" => {
                    read::<Vec<LabelSet>>(&what, &body);
                    "series"
                }
                "metadata" => {
                    read::<BTreeMap<String, Vec<Metadata>>>(&what, &body);
                    "metadata"
                }
                "targets" => {
                    let targets = read::<Targets>(&what, &body);
                    assert!(targets.active.iter().all(|t| super::window::parse_interval(&t.scrape_interval).is_some()), "{what}");
                    "targets"
                }
                "rules" => {
                    read::<Rules>(&what, &body);
                    "rules"
                }
                "alerts" => {
                    let alerts = read::<Alerts>(&what, &body);
                    assert!(alerts.alerts.iter().all(|a| a.active_at.is_some() && a.value.is_some()), "{what}");
                    "alerts"
                }
                "query_exemplars" => {
                    read::<Vec<SeriesExemplars>>(&what, &body);
                    "exemplars"
                }
                "status/buildinfo" => {
                    assert!(!read::<BuildInfo>(&what, &body).version.is_empty(), "{what}");
                    "build info"
                }
                "labels" => {
                    read::<Vec<String>>(&what, &body);
                    "labels"
                }
                values if values.starts_with("label/") => {
                    read::<Vec<String>>(&what, &body);
                    "label values"
                }
                _ => continue,
            };
            *seen.entry(known).or_default() += 1;
        }
    }
    for kind in [
        "queries",
        "series",
        "metadata",
        "targets",
        "rules",
        "alerts",
        "exemplars",
        "build info",
        "labels",
        "label values",
        "errors",
    ] {
        assert!(seen.get(kind).is_some_and(|n| *n >= 2), "{kind}: {seen:?}");
    }
}
