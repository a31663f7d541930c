//! Typed questions. Every one of them is confined here, by the scope it is asked under, before it touches a row.

pub(crate) mod counts;
pub(crate) mod labels;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod points;
pub(crate) mod quantile;
pub(crate) mod rank;
pub(crate) mod semantic;
pub(crate) mod services;
pub(crate) mod spans;
pub(crate) mod traces;

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::buffer::BooleanBuffer;
use portcullis_model::{NameSet, Scope, TenantId, TimeWindow, Timestamp, cut};
use portcullis_ports::{LabelMatch, MatchOperator};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::error::{Result, StoreError};
use crate::scan::{Filter, Stage};
use crate::schema::Table;
use crate::scrub::Scrub;
use crate::text::{lookup, pairs};

/// Resource attribute that carries the Kubernetes namespace.
pub(crate) const NAMESPACE: &str = "k8s.namespace.name";
/// Bytes of compiled program a pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// What a question may see.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Confinement {
    /// Whose rows.
    pub(crate) tenant: TenantId,
    services: NameSet,
    namespaces: NameSet,
    earliest: i64,
    /// What conditions and functions must not see.
    #[serde(skip)]
    pub(crate) scrub: Option<Scrub>,
}

impl Confinement {
    /// From a scope, at a moment.
    pub(crate) fn new(scope: &Scope, now: Timestamp) -> Self {
        Self {
            tenant: scope.tenant.clone(),
            services: scope.services.clone(),
            namespaces: scope.namespaces.clone(),
            earliest: scope.look_back.map_or(i64::MIN, |back| now.minus(back).as_nanos()),
            scrub: None,
        }
    }

    /// The same, with conditions and functions that see scrubbed text only.
    pub(crate) fn scrubbed(self, scrub: Option<Scrub>) -> Self {
        Self { scrub, ..self }
    }

    /// Compiles conditions on labels or attributes.
    pub(crate) fn matchers(&self, wanted: &[LabelMatch]) -> Result<Vec<Matcher>> {
        wanted.iter().map(|one| Ok(Matcher { scrub: self.scrub.clone(), ..Matcher::new(one)? })).collect()
    }

    /// Services of the scope.
    pub(crate) fn services(&self) -> &NameSet {
        &self.services
    }

    /// The earliest moment of the scope, when it is limited.
    pub(crate) fn earliest(&self) -> Option<i64> {
        (self.earliest != i64::MIN).then_some(self.earliest)
    }

    /// Rows of a window within the scope, and of one service if it is named.
    pub(crate) fn filter(&self, table: Table, window: TimeWindow, service: Option<&str>) -> Filter {
        let mut filter = Filter::window(window.start.as_nanos(), window.end.as_nanos());
        self.confine(table, &mut filter);
        if let Some(service) = service {
            filter.services = filter.services.intersect(&NameSet::only([service]));
        }
        filter
    }

    /// Keeps a start that was moved back within the scope.
    pub(crate) fn confine_start(&self, filter: &mut Filter) {
        filter.start = filter.start.max(self.earliest);
    }

    /// Narrows a filter to the scope.
    pub(crate) fn confine(&self, table: Table, filter: &mut Filter) {
        filter.start = filter.start.max(self.earliest);
        filter.services = filter.services.intersect(&self.services);
        if let Some(names) = self.namespaces.names() {
            let names = names.clone();
            let allowed = move |text: &str| lookup(text, NAMESPACE).is_some_and(|n| names.contains(n.as_ref()));
            filter.stages.insert(0, Stage::on_words(table.resource_column(), allowed));
        }
    }
}

/// A compiled condition on a label or attribute.
#[derive(Debug, Clone)]
pub(crate) struct Matcher {
    /// Label or attribute name.
    pub(crate) name: String,
    test: Test,
    scrub: Option<Scrub>,
}

#[derive(Debug, Clone)]
enum Test {
    Equal(String),
    NotEqual(String),
    Regex(Regex),
    NotRegex(Regex),
}

impl Matcher {
    /// Compiles a condition.
    fn new(wanted: &LabelMatch) -> Result<Self> {
        let whole = || pattern(&format!("^(?:{})$", wanted.value), &wanted.value);
        let test = match wanted.operator {
            MatchOperator::Equal => Test::Equal(wanted.value.clone()),
            MatchOperator::NotEqual => Test::NotEqual(wanted.value.clone()),
            MatchOperator::Regex => Test::Regex(whole()?),
            MatchOperator::NotRegex => Test::NotRegex(whole()?),
        };
        Ok(Self { name: wanted.name.clone(), test, scrub: None })
    }

    /// Whether a value, or its absence, fits. As in PromQL an absent label equals the empty text.
    pub(crate) fn fits(&self, value: Option<&str>) -> bool {
        let value = value.unwrap_or("");
        // A secret equals nothing, and a pattern sees the mark in its place.
        let secret = || self.scrub.as_ref().and_then(|scrub| scrub.field(&self.name, value));
        let matches = |pattern: &Regex| pattern.is_match(secret().as_deref().unwrap_or(value));
        match &self.test {
            Test::Equal(wanted) => value == wanted && secret().is_none(),
            Test::NotEqual(wanted) => value != wanted || secret().is_some(),
            Test::Regex(pattern) => matches(pattern),
            Test::NotRegex(pattern) => !matches(pattern),
        }
    }
}

/// Compiles a pattern within bounds; `shown` is what the caller wrote.
pub(crate) fn pattern(text: &str, shown: &str) -> Result<Regex> {
    RegexBuilder::new(text).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build().map_err(|error| {
        let shown = cut::quoted(shown, 80);
        let why = match error {
            regex::Error::CompiledTooBig(_) => "it is too large; repeat less".to_owned(),
            other => other.to_string(),
        };
        StoreError::Invalid(format!("'{shown}' is not a usable regular expression: {why}"))
    })
}

/// A condition on attributes of a row: the row's own first, then the resource's.
pub(crate) fn attribute_stage(table: Table, own: usize, matchers: Vec<Matcher>) -> Stage {
    let resource = table.resource_column();
    let service = table.service_column();
    let mut columns = vec![own, resource, service];
    columns.sort_unstable();
    let place = |column: usize| columns.iter().position(|c| *c == column).unwrap_or_default();
    let (own, resource, service) = (place(own), place(resource), place(service));
    let test = move |batch: &arrow::record_batch::RecordBatch| {
        let (own, resource) = (batch.column(own).as_string_view(), batch.column(resource).as_string_view());
        let service = batch.column(service).as_string_view();
        let fits = |row: usize| {
            matchers.iter().all(|m| match m.name.as_str() {
                "service" | "service.name" => m.fits(Some(service.value(row))),
                name => m.fits(attribute(own.value(row), resource.value(row), name).as_deref()),
            })
        };
        Ok(arrow::array::BooleanArray::new(BooleanBuffer::collect_bool(batch.num_rows(), fits), None))
    };
    Stage { columns, test: std::sync::Arc::new(test) }
}

/// An attribute of a row: its own, or its resource's.
pub(crate) fn attribute<'a>(own: &'a str, resource: &'a str, name: &str) -> Option<Cow<'a, str>> {
    lookup(own, name).or_else(|| lookup(resource, name))
}

/// All attributes of a row; its own win over its resource's. The service's name is a field of its own and left out.
pub(crate) fn merged(own: &str, resource: &str) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = pairs(resource)
        .filter(|(name, _)| name != "service.name" && !name.starts_with("telemetry.sdk."))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    all.extend(pairs(own).map(|(name, value)| (name.into_owned(), value.into_owned())));
    all
}

/// Lower-case hex of an id; empty when absent.
pub(crate) fn hex(array: &arrow::array::FixedSizeBinaryArray, row: usize) -> String {
    let mut out = String::new();
    if arrow::array::Array::is_valid(array, row) {
        crate::text::push_hex(&mut out, array.value(row));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(operator: MatchOperator, value: &str) -> Matcher {
        Matcher::new(&LabelMatch { name: "x".into(), operator, value: value.into() }).unwrap()
    }

    #[test]
    fn matching_follows_promql() {
        assert!(matcher(MatchOperator::Equal, "a").fits(Some("a")));
        assert!(!matcher(MatchOperator::Equal, "a").fits(None));
        assert!(matcher(MatchOperator::Equal, "").fits(None));
        assert!(matcher(MatchOperator::NotEqual, "a").fits(None));
        assert!(matcher(MatchOperator::Regex, "a|b").fits(Some("b")));
        assert!(!matcher(MatchOperator::Regex, "a|b").fits(Some("ab")));
        assert!(matcher(MatchOperator::NotRegex, "a.*").fits(Some("ba")));
    }

    #[test]
    fn huge_patterns_are_refused_with_a_sentence() {
        let error = pattern("(a{1000}){1000}", "(a{1000}){1000}").unwrap_err().to_string();
        assert!(error.contains("too large"), "{error}");
        assert!(pattern("(", "(").unwrap_err().to_string().contains("not a usable"));
    }

    #[test]
    fn own_attributes_win() {
        let (own, resource) = (r#"{"a":"1"}"#, r#"{"a":"2","b":"3","service.name":"cart"}"#);
        assert_eq!(attribute(own, resource, "a").as_deref(), Some("1"));
        assert_eq!(attribute(own, resource, "b").as_deref(), Some("3"));
        assert_eq!(merged(own, resource), BTreeMap::from([("a".into(), "1".into()), ("b".into(), "3".into())]));
    }
}
