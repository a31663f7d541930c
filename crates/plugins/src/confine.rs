//! What of a plugin's answer a caller may see. Guards the window of the question and the scope of the permit: a record that
//! lies outside, or that does not say where it belongs while the scope is restricted, is dropped and counted.

use std::collections::BTreeMap;

use portcullis_model::{Alert, Exemplar, LogRecord, NameSet, Scope, Series, Service, Span, TimeWindow, Timestamp, TraceSummary};
use portcullis_policy::Permit;

/// Labels and attributes that hold the service and the namespace, in this order.
const SERVICE_LABELS: [&str; 3] = ["service", "service_name", "service.name"];
const NAMESPACE_LABELS: [&str; 3] = ["namespace", "k8s.namespace.name", "k8s_namespace_name"];

/// The label that tells services apart in answers to restricted callers.
pub(crate) const SERVICE: &str = SERVICE_LABELS[0];
/// The same for namespaces.
pub(crate) const NAMESPACE: &str = NAMESPACE_LABELS[0];

/// The bounds of one question, and how much lay outside of them.
pub(crate) struct Confinement<'a> {
    scope: &'a Scope,
    window: Option<TimeWindow>,
    service: Option<&'a str>,
    pub(crate) dropped: u64,
}

fn first<'m>(labels: &'m BTreeMap<String, String>, names: &[&str]) -> Option<&'m str> {
    names.iter().find_map(|name| labels.get(*name)).map(String::as_str).filter(|value| !value.is_empty())
}

impl<'a> Confinement<'a> {
    pub(crate) fn new(permit: &'a Permit, window: Option<TimeWindow>, service: Option<&'a str>) -> Self {
        Self { scope: permit.scope(), window, service, dropped: 0 }
    }

    fn contains(&self, at: Timestamp) -> bool {
        self.window.is_none_or(|window| window.start <= at && at <= window.end)
    }

    /// Whether something of this service and namespace may be seen.
    fn sees(&self, service: Option<&str>, namespace: Option<&str>) -> bool {
        let within = |set: &NameSet, name: Option<&str>| set.is_all() || name.is_some_and(|name| set.contains(name));
        let asked = self.service.is_none_or(|asked| service.is_none_or(|service| service == asked));
        within(&self.scope.services, service) && within(&self.scope.namespaces, namespace) && asked
    }

    /// Keeps what `keep` says and counts the rest.
    fn keep<T>(&mut self, items: &mut Vec<T>, mut keep: impl FnMut(&Self, &mut T) -> bool) {
        let before = items.len();
        let view = Self { dropped: 0, ..*self };
        items.retain_mut(|item| keep(&view, item));
        self.dropped += (before - items.len()) as u64;
    }

    pub(crate) fn logs(&mut self, records: &mut Vec<LogRecord>) {
        self.keep(records, |view, record| {
            let service = Some(&*record.service).filter(|service| !service.is_empty());
            view.contains(record.at) && view.sees(service, first(&record.attributes, &NAMESPACE_LABELS))
        });
    }

    pub(crate) fn series(&mut self, series: &mut Vec<Series>) {
        let mut samples = 0;
        self.keep(series, |view, series| {
            let before = series.samples.len();
            series.samples.retain(|sample| view.contains(sample.at));
            samples += (before - series.samples.len()) as u64;
            let seen = view.sees(first(&series.labels, &SERVICE_LABELS), first(&series.labels, &NAMESPACE_LABELS));
            seen && (before == 0 || !series.samples.is_empty())
        });
        self.dropped += samples;
    }

    pub(crate) fn exemplars(&mut self, exemplars: &mut Vec<Exemplar>) {
        self.keep(exemplars, |view, exemplar| {
            view.contains(exemplar.at)
                && view.sees(first(&exemplar.labels, &SERVICE_LABELS), first(&exemplar.labels, &NAMESPACE_LABELS))
        });
    }

    /// A service does not say its namespace: where namespaces are restricted only services that are named in the scope pass.
    pub(crate) fn services(&mut self, services: &mut Vec<Service>) {
        self.keep(services, |view, service| {
            let named = !view.scope.services.is_all();
            view.scope.services.contains(&service.name) && (named || view.scope.namespaces.is_all())
        });
    }

    pub(crate) fn names(&mut self, names: &mut Vec<String>, of_services: bool) {
        self.keep(names, |view, name| {
            let set = if of_services { &view.scope.services } else { &view.scope.namespaces };
            set.contains(name)
        });
    }

    /// What a summary says of services outside of the scope is taken out; one that is left with none is dropped.
    pub(crate) fn summaries(&mut self, summaries: &mut Vec<TraceSummary>) {
        self.keep(summaries, |view, summary| {
            let ends = summary.start.plus(std::time::Duration::from_nanos(summary.duration_nanos));
            let overlaps = view.window.is_none_or(|window| summary.start <= window.end && window.start <= ends);
            if view.scope.services.is_all() {
                return overlaps && !summary.trace_id.is_empty();
            }
            summary.services.retain(|service| view.scope.services.contains(service));
            if !view.scope.services.contains(&summary.root_service) {
                summary.root_service.clear();
                summary.root_name.clear();
            }
            overlaps && !summary.trace_id.is_empty() && !(summary.services.is_empty() && summary.root_service.is_empty())
        });
    }

    pub(crate) fn spans(&mut self, spans: &mut Vec<Span>, trace_id: &str) {
        self.keep(spans, |view, span| {
            let service = Some(&*span.service).filter(|service| !service.is_empty());
            span.trace_id == trace_id && view.sees(service, first(&span.attributes, &NAMESPACE_LABELS))
        });
    }

    pub(crate) fn alerts(&mut self, alerts: &mut Vec<Alert>) {
        self.keep(alerts, |view, alert| {
            view.sees(first(&alert.labels, &SERVICE_LABELS), first(&alert.labels, &NAMESPACE_LABELS))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::TenantId;

    fn scope(services: NameSet, namespaces: NameSet) -> Scope {
        Scope { services, namespaces, ..Scope::tenant_wide(TenantId::default_tenant()) }
    }

    fn confinement(scope: &Scope) -> Confinement<'_> {
        let window = TimeWindow::new(Timestamp::from_seconds(100), Timestamp::from_seconds(200)).unwrap();
        Confinement { scope, window: Some(window), service: None, dropped: 0 }
    }

    fn record(second: i64, service: &str, namespace: Option<&str>) -> LogRecord {
        LogRecord {
            at: Timestamp::from_seconds(second),
            severity: None,
            service: service.into(),
            body: "b".into(),
            attributes: namespace.map(|n| ("k8s.namespace.name".to_owned(), n.to_owned())).into_iter().collect(),
            trace_id: String::new(),
            span_id: String::new(),
        }
    }

    #[test]
    fn what_lies_outside_or_does_not_say_where_it_belongs_is_dropped_and_counted() {
        let all = scope(NameSet::All, NameSet::All);
        let mut records = vec![record(99, "cart", None), record(100, "cart", None), record(200, "", None), record(201, "", None)];
        let mut within = confinement(&all);
        within.logs(&mut records);
        assert_eq!((records.len(), within.dropped), (2, 2));

        let one = scope(NameSet::only(["cart"]), NameSet::only(["shop"]));
        let mut records = vec![
            record(150, "cart", Some("shop")),
            record(150, "cart", None),
            record(150, "cart", Some("other")),
            record(150, "payment", Some("shop")),
            record(150, "", Some("shop")),
        ];
        let mut within = confinement(&one);
        within.logs(&mut records);
        assert_eq!((records.len(), within.dropped), (1, 4));
    }

    #[test]
    fn series_without_the_label_of_a_restricted_scope_are_dropped() {
        let one = scope(NameSet::only(["cart"]), NameSet::All);
        let series = |labels: &[(&str, &str)], at: &[i64]| Series {
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            samples: at.iter().map(|s| portcullis_model::Sample { at: Timestamp::from_seconds(*s), value: 1.0 }).collect(),
        };
        let mut all = vec![
            series(&[("service", "cart")], &[90, 100, 150, 300]),
            series(&[("service", "payment")], &[150]),
            series(&[], &[150]),
            series(&[("service.name", "cart")], &[300]),
        ];
        let mut within = confinement(&one);
        within.series(&mut all);
        assert_eq!((all.len(), all[0].samples.len()), (1, 2));
        assert_eq!(within.dropped, 3 + 2 + 1);
    }

    #[test]
    fn names_of_other_services_do_not_pass_in_summaries_spans_and_lists() {
        let one = scope(NameSet::only(["cart"]), NameSet::All);
        let summary = |root: &str, services: &[&str]| TraceSummary {
            trace_id: "ab".into(),
            root_service: root.into(),
            root_name: "GET /".into(),
            start: Timestamp::from_seconds(150),
            duration_nanos: 1,
            spans: 2,
            error_spans: 0,
            services: services.iter().map(|s| (*s).to_owned()).collect(),
        };
        let mut found = vec![summary("front", &["front", "cart"]), summary("front", &["front"])];
        let mut within = confinement(&one);
        within.summaries(&mut found);
        assert_eq!((found.len(), found[0].root_service.as_str(), found[0].services.len()), (1, "", 1));
        let mut services = ["cart", "front"].map(|n| Service { name: n.into(), signals: vec![], last_seen: None }).to_vec();
        within.services(&mut services);
        assert_eq!((services.len(), within.dropped), (1, 2));
        let unnamed = scope(NameSet::All, NameSet::only(["shop"]));
        let mut services = vec![Service { name: "cart".into(), signals: vec![], last_seen: None }];
        confinement(&unnamed).services(&mut services);
        assert!(services.is_empty());
    }
}
