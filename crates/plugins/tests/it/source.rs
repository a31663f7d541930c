//! A plugin as a source: its answers are confined after the fact.

use portcullis_model::{FaultCode, NameSet, Scope, Signal, TenantId, TimeWindow, Timestamp};
use portcullis_ports::{
    AlertRequest, LabelValuesRequest, LogCountRequest, LogFilter, LogRequest, MetricRequest, MetricSelector, NoExchange,
    SpanFilter, Total, TraceOrder, TraceRequest,
};

use serde_json::json;

use crate::shop::{Shop, only};

fn window() -> TimeWindow {
    TimeWindow::new(Timestamp::from_seconds(1_000), Timestamp::from_seconds(2_000)).unwrap()
}

fn filter() -> LogFilter {
    LogFilter { window: window(), service: None, minimum_severity: None, text: None, attributes: vec![], trace_id: None }
}

fn logs(limit: usize) -> LogRequest {
    LogRequest { filter: filter(), limit, newest_first: true, after: None }
}

#[tokio::test]
async fn records_outside_of_window_and_scope_are_dropped_counted_and_noted() {
    let Some(shop) = Shop::open("source: probe-logs") else { return };
    let source = shop.source();
    assert_eq!((source.name().as_str(), source.kind()), ("probe-logs", "plugin"));
    assert!(source.capabilities().contains(&Signal::Logs));
    let all = source.logs(&shop.permit(), &logs(10)).await.unwrap();
    assert_eq!(all.records.len(), 3);
    assert!(all.records.windows(2).all(|pair| pair[0].at >= pair[1].at), "newest first");
    let permit = shop.permit_of("key:carol", only("cart"));
    let mine = source.logs(&permit, &logs(10)).await.unwrap();
    assert!(mine.records.len() == 2 && mine.records.iter().all(|record| &*record.service == "cart"));
    assert_eq!(mine.total, Total::AtLeast(2), "its own total counts what may not be seen");
    assert!(permit.trail().words().unwrap().contains("2 records outside of the scope or the window were dropped"));
    let elsewhere = shop.permit_of("key:dan", |scope| scope.namespaces = NameSet::only(["other"]));
    assert!(source.logs(&elsewhere, &logs(10)).await.unwrap().records.is_empty());
    let shop_only = shop.permit_of("key:eve", |scope| scope.namespaces = NameSet::only(["shop"]));
    assert_eq!(source.logs(&shop_only, &logs(10)).await.unwrap().records.len(), 3);
    let line = shop.line();
    assert!(line.detail.contains("records outside of scope or window dropped"), "{line:?}");
    let cut = source.logs(&shop.permit(), &logs(1)).await.unwrap();
    assert!(cut.records.len() == 1 && cut.next.is_some());
}

#[tokio::test]
async fn counts_are_made_here_when_the_plugin_cannot_or_may_not_be_believed() {
    let Some(shop) = Shop::open("") else { return };
    let source = shop.source();
    let request = LogCountRequest { filter: filter(), by: vec!["service".into()], step: None, top: 10 };
    let all = source.log_counts(&shop.permit(), &request).await.unwrap();
    assert_eq!((all.total, all.groups.len(), all.groups[0].count), (Total::Exact(3), 2, 2));
    let mine = source.log_counts(&shop.permit_of("key:carol", only("cart")), &request).await.unwrap();
    assert_eq!((mine.total, mine.groups.len()), (Total::Exact(2), 1));
    let mut lines = Vec::new();
    let end = source.scan_logs(&shop.permit(), &filter(), &mut |line| lines.push(line.body.to_owned())).await.unwrap();
    assert!(end.complete && end.scanned == 3 && lines.len() == 3);
}

#[tokio::test]
async fn series_alerts_traces_and_names_are_confined() {
    let Some(shop) = Shop::open("") else { return };
    let source = shop.source();
    let carol = shop.permit_of("key:carol", only("cart"));
    let request = |metric| MetricRequest {
        window: window(),
        step: None,
        metric,
        service: None,
        matchers: vec![],
        group_by: vec![],
        aggregation: None,
        max_series: 10,
    };
    let answer = source.metrics(&carol, &request(MetricSelector::Named("probe_ratio".into()))).await.unwrap();
    assert_eq!((answer.series.len(), answer.series[0].samples.len()), (1, 1));
    assert!(answer.warnings[0].contains("dropped"), "{answer:?}");
    let raw = source.metrics(&carol, &request(MetricSelector::Raw("anything".into()))).await.unwrap_err();
    assert_eq!(raw.code(), FaultCode::Forbidden);
    assert!(source.metrics(&shop.permit(), &request(MetricSelector::Raw("anything".into()))).await.is_ok());

    assert_eq!(source.alerts(&carol, &AlertRequest::default()).await.unwrap().alerts.len(), 1);
    assert_eq!(source.alerts(&shop.permit(), &AlertRequest::default()).await.unwrap().alerts.len(), 2);

    let traces = TraceRequest {
        window: window(),
        service: None,
        operation: None,
        minimum_duration: None,
        errors_only: false,
        attributes: vec![],
        order: TraceOrder::Newest,
        limit: 10,
    };
    let found = source.traces(&carol, &traces).await.unwrap();
    assert_eq!((found.traces[0].root_service.as_str(), found.traces[0].services.len()), ("", 1));
    let id = found.traces[0].trace_id.clone();
    let trace = source.trace(&carol, &id).await.unwrap().unwrap();
    assert!(trace.spans.len() == 1 && &*trace.spans[0].service == "cart");
    let stranger = shop.permit_of("key:dan", only("payment"));
    assert_eq!(source.trace(&stranger, &id).await.unwrap(), None);
    let end = source.scan_spans(&shop.permit(), window(), &SpanFilter::default(), 10, &mut |_| {}).await.unwrap();
    assert_eq!(end.scanned, 0, "its spans begin before the window");

    let services = source.services(&carol, window()).await.unwrap().services;
    assert_eq!(services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["cart"]);
    let values = |label: &str| LabelValuesRequest {
        window: window(),
        signal: Signal::Logs,
        label: label.into(),
        metric: None,
        service: None,
        prefix: String::new(),
        limit: 10,
    };
    assert_eq!(source.label_values(&carol, &values("service")).await.unwrap(), ["cart"]);
    assert_eq!(source.label_values(&carol, &values("pod")).await.unwrap_err().code(), FaultCode::Forbidden);
    assert_eq!(source.label_values(&shop.permit(), &values("pod")).await.unwrap().len(), 2);
    assert!(source.health(&shop.permit()).await.up);
    // Names of the one say nothing of the other: whoever is confined to namespaces is not told the services of all.
    let erin = shop.permit_of("key:erin", |scope| scope.namespaces = NameSet::only(["shop"]));
    assert_eq!(source.label_values(&erin, &values("service")).await.unwrap_err().code(), FaultCode::Forbidden);
    assert!(source.label_values(&erin, &values("namespace")).await.is_ok());
    assert_eq!(source.label_values(&carol, &values("namespace")).await.unwrap_err().code(), FaultCode::Forbidden);
}

/// What a tool answers nobody can confine.
#[tokio::test]
async fn tools_are_for_the_tenant_and_the_sources_of_the_grant_and_refuse_who_is_confined() {
    type Confine = Box<dyn FnOnce(&mut Scope)>;
    let Some(shop) = Shop::open("") else { return };
    let echo = || json!({"what": "echo", "text": "x"});
    let confined: [(&str, Confine); 5] = [
        ("another tenant", Box::new(|scope| scope.tenant = TenantId::new("other").unwrap())),
        ("other sources", Box::new(|scope| scope.sources = NameSet::only(["prometheus"]))),
        ("one service", Box::new(|scope| scope.services = NameSet::only(["cart"]))),
        ("one namespace", Box::new(|scope| scope.namespaces = NameSet::only(["shop"]))),
        ("a look-back", Box::new(|scope| scope.look_back = Some(std::time::Duration::from_hours(1)))),
    ];
    for (who, confine) in confined {
        let refused = shop.probe_with(&shop.permit_of("key:carol", confine), &NoExchange, echo()).await.unwrap_err();
        assert_eq!(refused.code(), FaultCode::Forbidden, "{who}: {refused:?}");
    }
    assert!(shop.probe(echo()).await.is_ok());
    let named = shop.permit_of("key:carol", |scope| scope.sources = NameSet::only(["probe"]));
    assert!(shop.probe_with(&named, &NoExchange, echo()).await.is_ok());

    let Some(open) = Shop::open("open_to_confined: true") else { return };
    assert!(open.probe_with(&open.permit_of("key:carol", only("cart")), &NoExchange, echo()).await.is_ok());
}
