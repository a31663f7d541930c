//! Recorded answers of Prometheus 3.12, served to the source. A path that was not recorded is answered with the 404 that
//! Prometheus gives, so that a wrong path fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_connectors::PrometheusSource;
use portcullis_model::{AlertState, FaultCode, MetricKind, NameSet, SourceName, TimeWindow, Timestamp};
use portcullis_ports::{AlertRequest, MetricCatalogueRequest, Source, Total};
use serde_json::Value;

use crate::support::{Server, config, everything, named, permit, raw, response, serve, source};

fn folder() -> Option<PathBuf> {
    let data = std::env::var_os("PORTCULLIS_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let folder = data.join("recordings/prometheus-3.12.0");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no recorded exchanges; set PORTCULLIS_DATA to the folder that holds 'recordings'");
    None
}

/// Whole responses by path, of the recordings with the given numbers.
fn recordings(folder: &Path, numbers: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let mut answers: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !numbers.iter().any(|number| name.starts_with(&format!("{number}-"))) {
            continue;
        }
        let exchange: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let recorded = &exchange["response"];
        let body = match &recorded["body"] {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        let status = format!("{} Recorded", recorded["status"]);
        let path = exchange["request"]["path"].as_str().unwrap().to_owned();
        answers.insert(path, response(&status, "content-type: application/json\r\n", &body));
    }
    assert_eq!(answers.len(), numbers.len(), "every number is one path");
    answers
}

/// A server that answers each recorded path.
async fn replay(folder: PathBuf, numbers: &[&str]) -> Server {
    let answers = recordings(&folder, numbers);
    serve(move |request| {
        let unknown = || response("404 Not Found", "content-type: text/plain\r\n", "404 page not found\n");
        answers.get(&request.path).cloned().unwrap_or_else(unknown)
    })
    .await
}

fn recorded_window() -> TimeWindow {
    TimeWindow::new(Timestamp::from_seconds(1_795_187_170), Timestamp::from_seconds(1_795_187_291)).unwrap()
}

#[tokio::test]
async fn build_info_targets_and_health() {
    let Some(folder) = folder() else { return };
    let server = replay(folder, &["001"]).await;
    let source = source(&server.url);
    let health = source.health(&permit(&source, everything())).await;
    assert!(health.up);
    assert_eq!(health.version.as_deref(), Some("3.12.0"));
}

#[tokio::test]
async fn a_recorded_range_is_read_and_sent_as_a_form() {
    let Some(folder) = folder() else { return };
    let server = replay(folder, &["044"]).await;
    let source = source(&server.url);
    let answer = source.metrics(&permit(&source, everything()), &raw("up{job=\"cart\"}", recorded_window())).await.unwrap();
    assert_eq!(answer.series.len(), 1);
    assert_eq!(answer.series[0].samples.len(), 9);
    assert_eq!(answer.series[0].labels["job"], "cart");
    let arrived = server.arrived.lock().unwrap().clone();
    let range = arrived.iter().find(|r| r.path == "/api/v1/query_range").unwrap();
    assert_eq!(range.method, "POST");
    assert_eq!(range.all("query"), ["up{job=\"cart\"}"]);
    assert_eq!(range.all("step"), ["1.000"]);
    assert_eq!(range.all("start"), ["1795187170.000"]);
}

#[tokio::test]
async fn recorded_native_histograms_are_not_mistaken_for_nothing() {
    let Some(folder) = folder() else { return };
    let server = replay(folder, &["034"]).await;
    let source = source(&server.url);
    let answer = source.metrics(&permit(&source, everything()), &raw("order_value_EUR", recorded_window())).await.unwrap();
    assert!(answer.series.is_empty());
    assert!(answer.warnings.iter().any(|w| w.contains("native histograms")), "{:?}", answer.warnings);
}

#[tokio::test]
async fn recorded_alerts_and_rules() {
    let Some(folder) = folder() else { return };
    let server = replay(folder, &["091", "097"]).await;
    let source = source(&server.url);
    let answer = source.alerts(&permit(&source, everything()), &AlertRequest::default()).await.unwrap();
    assert_eq!(answer.alerts.len(), 3);
    assert!(answer.alerts.iter().all(|a| a.state == AlertState::Firing && a.active_since.is_some() && !a.name.is_empty()));
    assert_eq!(answer.rules, Some(3));
    let payments = AlertRequest { service: Some("payments".into()), state: None };
    let only = source.alerts(&permit(&source, everything()), &payments).await.unwrap();
    assert_eq!(only.alerts.len(), 1);
    let mut scope = everything();
    scope.services = NameSet::only(["payments"]);
    let confined = source.alerts(&permit(&source, scope), &AlertRequest::default()).await.unwrap();
    assert_eq!(confined.alerts.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["InstanceDown"]);
    assert_eq!(confined.rules, None);
}

#[tokio::test]
async fn the_recorded_catalogue_has_kinds_and_help() {
    let Some(folder) = folder() else { return };
    let server = replay(folder, &["079", "083"]).await;
    let source = source(&server.url);
    let request = MetricCatalogueRequest {
        window: recorded_window(),
        service: None,
        name_contains: Some("HTTP_request".into()),
        limit: 50,
        with_labels: false,
    };
    let answer = source.metric_catalogue(&permit(&source, everything()), &request).await.unwrap();
    let duration = answer.metrics.iter().find(|m| m.name == "http_request_duration_seconds").unwrap();
    assert_eq!((duration.kind, duration.unit.as_str()), (MetricKind::Histogram, "s"));
    assert!(!duration.description.is_empty());
    let requests = answer.metrics.iter().find(|m| m.name == "http_requests_total").unwrap();
    assert_eq!(requests.kind, MetricKind::Counter);
    assert!(!answer.metrics.iter().any(|m| m.name.ends_with("_bucket")));
    assert_eq!(answer.total, Total::Exact(answer.metrics.len() as u64));
}

#[tokio::test]
async fn recorded_refusals_belong_to_the_right_person() {
    for (number, code, words) in [
        ("045", FaultCode::TooLarge, "too large"),
        ("052", FaultCode::InvalidArgument, "parse error"),
        ("060", FaultCode::InvalidArgument, "many-to-many"),
        ("063", FaultCode::TooLarge, "too large"),
        ("064", FaultCode::BackendFailed, "took too long"),
        ("065", FaultCode::BackendFailed, "does not have this part"),
    ] {
        let Some(folder) = folder() else { return };
        let (_, recorded) = recordings(&folder, &[number]).pop_first().unwrap();
        // Some of these were recorded on another path; what matters is how the answer is read.
        let server = serve(move |_| recorded.clone()).await;
        let source = source(&server.url);
        let fault = source.metrics(&permit(&source, everything()), &raw("up", recorded_window())).await.unwrap_err();
        assert_eq!(fault.code(), code, "{number}: {fault:?}");
        assert!(fault.message().contains(words), "{number}: {fault}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_a_failure_and_not_an_empty_answer() {
    let Some(folder) = folder() else { return };
    let server = replay(folder, &["065"]).await;
    let settings = config(&format!("{}/wrong/prefix", server.url));
    let source = PrometheusSource::new(SourceName::new("prom").unwrap(), settings).unwrap();
    let permit = permit(&source, everything());
    let fault = source.metrics(&permit, &named("up", recorded_window())).await.unwrap_err();
    assert_eq!(fault.code(), FaultCode::BackendFailed);
    assert!(fault.message().contains("does not have this part of the API"), "{fault}");
    assert!(!source.health(&permit).await.up);
}
