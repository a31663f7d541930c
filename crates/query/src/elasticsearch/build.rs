//! Searches from types. Guards that texts stay values: nothing from outside becomes a member, a wildcard or an operator.
//! Must not read raw queries.

use portcullis_model::Timestamp;
use serde_json::{Map, Value, json};

use super::confine::SearchConfinement;
use crate::QueryError;
use crate::error::shown;

/// The name of a field, such as `service.name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldName(String);

impl FieldName {
    /// Checks and wraps a name: 1 to 512 bytes without control characters, white space and wildcards, beginning neither with
    /// a point nor with an underscore.
    pub fn new(name: impl Into<String>) -> Result<Self, QueryError> {
        let name = name.into();
        let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '?' | ',' | '"' | '\\');
        if name.is_empty() || name.len() > 512 || name.contains(odd) || name.starts_with(['.', '_']) || name.ends_with('.') {
            let rule = "use 1 to 512 bytes without white space and wildcards, beginning neither with '.' nor with '_'";
            return Err(QueryError::Name { kind: "field name of Elasticsearch", shown: shown(&name), rule });
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for FieldName {
    type Err = QueryError;
    fn from_str(name: &str) -> Result<Self, QueryError> {
        Self::new(name)
    }
}

/// A condition on a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter(Value);

/// An object with one member, whose name comes from outside.
fn under(name: &FieldName, value: Value) -> Value {
    Value::Object(Map::from_iter([(name.0.clone(), value)]))
}

impl Filter {
    /// The field has exactly this value.
    pub fn equal(field: &FieldName, value: impl Into<String>) -> Self {
        Self(json!({"term": under(field, json!({"value": value.into()}))}))
    }

    /// The field has one of these values; none is an error.
    pub fn any_of(field: &FieldName, values: impl IntoIterator<Item = String>) -> Result<Self, QueryError> {
        let values: Vec<String> = values.into_iter().collect();
        if values.is_empty() {
            return Err(QueryError::NoValues);
        }
        Ok(Self(json!({"terms": under(field, json!(values))})))
    }

    /// The words of a text are in the field, in their order.
    pub fn phrase(field: &FieldName, text: impl Into<String>) -> Self {
        Self(json!({"match_phrase": under(field, json!({"query": text.into()}))}))
    }

    /// The text is somewhere in the value of a field that is not analysed.
    pub fn containing(field: &FieldName, text: &str, any_case: bool) -> Self {
        let mut pattern = String::from("*");
        for c in text.chars() {
            if matches!(c, '*' | '?' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('*');
        Self(json!({"wildcard": under(field, json!({"value": pattern, "case_insensitive": any_case}))}))
    }

    /// The document has the field.
    pub fn present(field: &FieldName) -> Self {
        Self(json!({"exists": {"field": field.as_str()}}))
    }

    /// The time in the field is at `start` or later, and at `end` or earlier.
    pub fn between(field: &FieldName, start: Timestamp, end: Timestamp) -> Self {
        let bounds = json!({"gte": start.to_string(), "lte": end.to_string(), "format": "strict_date_optional_time_nanos"});
        Self(json!({"range": under(field, bounds)}))
    }

    /// All of these hold.
    pub fn all(filters: Vec<Self>) -> Self {
        Self(json!({"bool": {"filter": values(filters)}}))
    }

    /// At least one of these holds; none is an error.
    pub fn any(filters: Vec<Self>) -> Result<Self, QueryError> {
        if filters.is_empty() {
            return Err(QueryError::NoValues);
        }
        Ok(Self(json!({"bool": {"should": values(filters), "minimum_should_match": 1}})))
    }

    /// This does not hold.
    #[must_use]
    pub fn negated(self) -> Self {
        Self(json!({"bool": {"must_not": [self.0]}}))
    }

    /// The condition as a query.
    pub fn to_json(&self) -> Value {
        self.0.clone()
    }
}

fn values(filters: Vec<Filter>) -> Vec<Value> {
    filters.into_iter().map(|filter| filter.0).collect()
}

/// A search of documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    body: Map<String, Value>,
}

impl Search {
    /// Documents for which `filters` and the confinement hold; `size` of them are shown.
    pub fn new(filters: Vec<Filter>, confinement: &SearchConfinement, size: u32) -> Self {
        let all = filters.into_iter().chain(confinement.filters().iter().cloned()).collect();
        let query = Filter::all(all).0;
        Self { body: Map::from_iter([("query".to_owned(), query), ("size".to_owned(), json!(size))]) }
    }

    /// Ordered by a field, newest or largest first when `descending`; after fields named before.
    #[must_use]
    pub fn ordered_by(mut self, field: &FieldName, descending: bool) -> Self {
        let order = under(field, json!({"order": if descending { "desc" } else { "asc" }, "unmapped_type": "keyword"}));
        if let Value::Array(orders) = self.body.entry("sort").or_insert_with(|| json!([])) {
            orders.push(order);
        }
        self
    }

    /// Shows these fields of the documents only.
    #[must_use]
    pub fn showing(mut self, fields: &[FieldName]) -> Self {
        let names: Vec<&str> = fields.iter().map(FieldName::as_str).collect();
        self.body.insert("_source".to_owned(), json!(names));
        self
    }

    /// Counts all documents found, not only up to a bound.
    #[must_use]
    pub fn counting_all(mut self) -> Self {
        self.body.insert("track_total_hits".to_owned(), json!(true));
        self
    }

    /// The most frequent values of a field with their counts, under the name `values`.
    #[must_use]
    pub fn values_of(mut self, field: &FieldName, size: u32) -> Self {
        let terms = json!({"terms": {"field": field.as_str(), "size": size.max(1)}});
        self.body.insert("aggs".to_owned(), json!({"values": terms}));
        self
    }

    /// The body to send.
    pub fn to_json(&self) -> Value {
        Value::Object(self.body.clone())
    }
}
