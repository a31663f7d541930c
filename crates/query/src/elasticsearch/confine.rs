//! Confines a raw search. Guards the boundary between services: what the caller asks for only chooses among the documents
//! of the scope. Must refuse whatever it does not know.
//!
//! The caller's query becomes a filter beside those of the scope. The same documents are found as by the query alone, but
//! they have no score: scores count in how many documents of the whole index a word is, and so tell of others.

use portcullis_model::Scope;
use serde_json::{Map, Value, json};

use super::build::{FieldName, Filter};
use super::json::{MAX_SEARCH_BYTES, read};
use super::members::search;
use crate::confine::restrictions;
use crate::{QueryError, TimeLimits};

/// Longest confined search, in bytes.
const MAX_CONFINED_BYTES: usize = 128 * 1024;

/// The fields under which one source keeps what scopes restrict. They must be of type `keyword`: an analysed text
/// matches by its words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchScope {
    /// Field of the tenant, where one index holds several and tells them apart by it. Always required then.
    pub tenant: Option<FieldName>,
    /// Field of the service name, such as `service.name`.
    pub service: Option<FieldName>,
    /// Field of the Kubernetes namespace, such as `kubernetes.namespace`.
    pub namespace: Option<FieldName>,
}

/// What every search must be restricted to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchConfinement {
    filters: Vec<Filter>,
}

impl SearchConfinement {
    /// No restriction.
    pub fn none() -> Self {
        Self::default()
    }

    /// The restriction of `scope` on a source that keeps services and namespaces under `fields`.
    ///
    /// Fails when the scope restricts something the source has no field for, or holds no name at all.
    pub fn of_scope(scope: &Scope, fields: &SearchScope) -> Result<Self, QueryError> {
        let restricted = restrictions(scope, [&fields.tenant, &fields.service, &fields.namespace].map(Option::as_ref))?;
        let filters = restricted
            .into_iter()
            .map(|(field, names)| Filter::any_of(field, names.into_iter().map(str::to_owned)))
            .collect::<Result<_, _>>()?;
        Ok(Self { filters })
    }

    /// The same for documents between the start (or the oldest instant that may be read, if it is later) and the end of
    /// `limits` only, by the time in `field`.
    #[must_use]
    pub fn within(mut self, field: &FieldName, limits: TimeLimits) -> Self {
        let start = limits.earliest.map_or(limits.start, |earliest| earliest.max(limits.start));
        self.filters.push(Filter::between(field, start, limits.end.min(limits.latest)));
        self
    }

    /// Whether there is nothing to add.
    pub fn is_none(&self) -> bool {
        self.filters.is_empty()
    }

    /// The conditions, for searches built from types.
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }
}

/// Rewrites a raw search body so that it finds documents of the confinement only.
///
/// Only members known to stay within the documents found are taken, restricted or not.
///
/// # Errors
/// What is not JSON or has a member twice, what is too large or too deep, and every member that is not known.
pub fn confine_elasticsearch(raw: &str, confinement: &SearchConfinement) -> Result<String, QueryError> {
    if raw.len() > MAX_SEARCH_BYTES {
        return Err(QueryError::TooLong { bytes: raw.len(), limit: MAX_SEARCH_BYTES });
    }
    let mut body = read(raw)?;
    search(&body)?;
    if !confinement.is_none() {
        let asked = body.remove("query");
        let filters: Vec<Value> = asked.into_iter().chain(confinement.filters.iter().map(Filter::to_json)).collect();
        body.insert("query".to_owned(), json!({"bool": {"filter": filters}}));
    }
    let body = Value::Object(body);
    let text = body.to_string();
    if text.len() > MAX_CONFINED_BYTES {
        return Err(QueryError::TooLong { bytes: text.len(), limit: MAX_CONFINED_BYTES });
    }
    let refuse = || {
        let reason = "it does not read back the same after confinement; write it more simply".to_owned();
        QueryError::NotConfinable { reason, position: None }
    };
    let again = read(&text).map_err(|_| refuse())?;
    if !is_confined(&again, confinement) || Value::Object(again) != body {
        return Err(refuse());
    }
    Ok(text)
}

/// Whether the query is a list of filters that ends with those of the confinement, and nothing beside.
fn is_confined(body: &Map<String, Value>, confinement: &SearchConfinement) -> bool {
    if confinement.is_none() {
        return true;
    }
    let only = |value: &Value, name: &str| value.as_object().filter(|members| members.len() == 1)?.get(name).cloned();
    let filters = body.get("query").and_then(|query| only(query, "bool")).and_then(|inside| only(&inside, "filter"));
    let Some(Value::Array(filters)) = filters else { return false };
    let added: Vec<Value> = confinement.filters.iter().map(Filter::to_json).collect();
    filters.len() <= added.len() + 1 && filters.ends_with(&added)
}
