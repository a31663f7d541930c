//! Which members a search and its queries may have. Guards by lists of what is known to stay within the documents found:
//! whatever is not listed is refused, so that a member of a later version is not let through unread.
//!
//! Left out on purpose, among others: scripts anywhere, `runtime_mappings` (could redefine the fields of the scope), `knn`,
//! `retriever`, `rescore`, `suggest` and `explain` (read other documents or their statistics), `pit`, `indices_boost`,
//! lookups in other indices (`terms` with an index, `percolate`, `more_like_this`, `geo_shape`), joins (`has_child`,
//! `has_parent`, `parent_id`, `inner_hits`), `wrapper`, which hides a query, and the numbers of expansions of a prefix
//! (`max_expansions`, `rewrite`), which are taken from the words of the whole index.
//!
//! Source: the query DSL and search API references of Elasticsearch 9 and OpenSearch 3.

use serde_json::{Map, Value};

use super::aggregations::aggregations;
use crate::QueryError;
use crate::error::{Language, shown};

/// Most queries and aggregations in one search.
const MAX_CLAUSES: usize = 256;

/// Queries about one field: `{kind: {field: value}}` or `{kind: {field: {parameters}}}`.
const ON_A_FIELD: [&str; 10] = [
    "match",
    "match_phrase",
    "match_phrase_prefix",
    "match_bool_prefix",
    "term",
    "prefix",
    "wildcard",
    "regexp",
    "fuzzy",
    "range",
];
/// Parameters of those.
const OF_A_FIELD: [&str; 28] = [
    "query",
    "value",
    "boost",
    "_name",
    "operator",
    "minimum_should_match",
    "fuzziness",
    "prefix_length",
    "fuzzy_transpositions",
    "transpositions",
    "lenient",
    "zero_terms_query",
    "analyzer",
    "auto_generate_synonyms_phrase_query",
    "slop",
    "case_insensitive",
    "flags",
    "max_determinized_states",
    "wildcard",
    "gt",
    "gte",
    "lt",
    "lte",
    "from",
    "to",
    "format",
    "time_zone",
    "relation",
];
/// Queries about several fields, in a language of their own; they choose among the documents they are given.
const ON_TEXT: [&str; 4] = ["multi_match", "query_string", "simple_query_string", "combined_fields"];
/// Parameters of those.
const OF_TEXT: [&str; 28] = [
    "query",
    "default_field",
    "default_operator",
    "operator",
    "type",
    "tie_breaker",
    "boost",
    "_name",
    "analyzer",
    "quote_analyzer",
    "allow_leading_wildcard",
    "analyze_wildcard",
    "auto_generate_synonyms_phrase_query",
    "enable_position_increments",
    "fuzziness",
    "fuzzy_prefix_length",
    "fuzzy_transpositions",
    "lenient",
    "max_determinized_states",
    "minimum_should_match",
    "phrase_slop",
    "quote_field_suffix",
    "time_zone",
    "slop",
    "prefix_length",
    "zero_terms_query",
    "flags",
    "escape",
];

/// A walk through a search that says where it is.
pub(crate) struct Walk {
    path: Vec<String>,
    clauses: usize,
}

impl Walk {
    pub(crate) fn new() -> Self {
        Self { path: Vec::new(), clauses: 0 }
    }

    pub(crate) fn wrong(&self, message: impl std::fmt::Display) -> QueryError {
        let place = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path.join(".")) };
        QueryError::Syntax { language: Language::Elasticsearch, message: format!("{place}{message}"), position: None }
    }

    /// A member that is not on its list.
    pub(crate) fn unknown(&self, kind: &str, name: &str, known: &[&str]) -> QueryError {
        let place = if self.path.is_empty() { String::new() } else { format!(" in {}", self.path.join(".")) };
        let reason =
            format!("the {kind} '{}'{place} is not known to stay within what is found; known: {}", shown(name), known.join(", "));
        QueryError::NotConfinable { reason, position: None }
    }

    pub(crate) fn at<T>(
        &mut self,
        place: impl Into<String>,
        look: impl FnOnce(&mut Self) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        self.path.push(shown(&place.into()));
        let seen = look(self)?;
        self.path.pop();
        Ok(seen)
    }

    pub(crate) fn count(&mut self) -> Result<(), QueryError> {
        self.clauses += 1;
        if self.clauses > MAX_CLAUSES {
            return Err(self.wrong(format!("more than {MAX_CLAUSES} queries and aggregations; split the question")));
        }
        Ok(())
    }

    pub(crate) fn object<'v>(&self, value: &'v Value) -> Result<&'v Map<String, Value>, QueryError> {
        value.as_object().ok_or_else(|| self.wrong("must be an object"))
    }

    /// A text, a number, true, false or null.
    pub(crate) fn scalar(&self, value: &Value) -> Result<(), QueryError> {
        if value.is_array() || value.is_object() { Err(self.wrong("must be a text, a number, true or false")) } else { Ok(()) }
    }

    pub(crate) fn scalars(&self, value: &Value) -> Result<(), QueryError> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.scalar(item)),
            other => self.scalar(other),
        }
    }

    pub(crate) fn text(&self, value: &Value) -> Result<(), QueryError> {
        if value.is_string() { Ok(()) } else { Err(self.wrong("must be a text")) }
    }

    pub(crate) fn texts(&self, value: &Value) -> Result<(), QueryError> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.text(item)),
            other => self.text(other),
        }
    }

    /// An object all of whose members are scalars and on the list.
    pub(crate) fn flat(&mut self, value: &Value, known: &[&str]) -> Result<(), QueryError> {
        for (name, member) in self.object(value)? {
            if !known.contains(&name.as_str()) {
                return Err(self.unknown("member", name, known));
            }
            self.at(name.as_str(), |walk| walk.scalar(member))?;
        }
        Ok(())
    }

    /// The only member of an object.
    pub(crate) fn only<'v>(&self, value: &'v Value, what: &str) -> Result<(&'v str, &'v Value), QueryError> {
        let members = self.object(value)?;
        match (members.len(), members.iter().next()) {
            (1, Some((name, member))) => Ok((name, member)),
            _ => Err(self.wrong(format!("must have exactly one member, {what}"))),
        }
    }
}

/// Members of a search.
const OF_A_SEARCH: [&str; 19] = [
    "query",
    "post_filter",
    "aggs",
    "aggregations",
    "sort",
    "size",
    "from",
    "terminate_after",
    "timeout",
    "track_total_hits",
    "track_scores",
    "_source",
    "fields",
    "docvalue_fields",
    "stored_fields",
    "search_after",
    "version",
    "seq_no_primary_term",
    "allow_partial_search_results",
];

/// Checks a whole search.
pub(crate) fn search(members: &Map<String, Value>) -> Result<(), QueryError> {
    let mut walk = Walk::new();
    for (name, value) in members {
        if !OF_A_SEARCH.contains(&name.as_str()) {
            return Err(walk.unknown("member", name, &OF_A_SEARCH));
        }
        walk.at(name.as_str(), |walk| match name.as_str() {
            "query" | "post_filter" => query(walk, value),
            "aggs" | "aggregations" => aggregations(walk, value),
            "search_after" => walk.scalars(value),
            "sort" | "_source" | "fields" | "docvalue_fields" | "stored_fields" => shown_of_hits(walk, name, value),
            _ => walk.scalar(value),
        })?;
    }
    Ok(())
}

/// Members that say which hits come first and what is shown of them.
pub(crate) fn shown_of_hits(walk: &mut Walk, name: &str, value: &Value) -> Result<(), QueryError> {
    match name {
        "sort" => sort(walk, value),
        "_source" => match value {
            Value::Object(members) => {
                const KNOWN: [&str; 4] = ["includes", "excludes", "include", "exclude"];
                for (name, member) in members {
                    if !KNOWN.contains(&name.as_str()) {
                        return Err(walk.unknown("member", name, &KNOWN));
                    }
                    walk.texts(member)?;
                }
                Ok(())
            }
            Value::Bool(_) => Ok(()),
            other => walk.texts(other),
        },
        "fields" | "docvalue_fields" => {
            let items = value.as_array().ok_or_else(|| walk.wrong("must be a list"))?;
            items.iter().try_for_each(|item| match item {
                Value::Object(_) => walk.flat(item, &["field", "format", "include_unmapped"]),
                other => walk.text(other),
            })
        }
        _ => walk.texts(value),
    }
}

fn sort(walk: &mut Walk, value: &Value) -> Result<(), QueryError> {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    for item in items {
        let members: Vec<(&str, Option<&Value>)> = match item {
            Value::String(field) => vec![(field, None)],
            other => walk.object(other)?.iter().map(|(field, how)| (field.as_str(), Some(how))).collect(),
        };
        for (field, how) in members {
            if field.starts_with('_') && !matches!(field, "_score" | "_doc") {
                return Err(walk.unknown("order", field, &["_score", "_doc", "names of fields"]));
            }
            match how {
                Some(how @ Value::Object(_)) => walk
                    .at(field, |walk| walk.flat(how, &["order", "missing", "mode", "unmapped_type", "format", "numeric_type"]))?,
                Some(how) => walk.text(how)?,
                None => {}
            }
        }
    }
    Ok(())
}

/// Checks one query and those inside it.
pub(crate) fn query(walk: &mut Walk, value: &Value) -> Result<(), QueryError> {
    walk.count()?;
    let (kind, inside) = walk.only(value, "the kind of the query, such as match")?;
    walk.at(kind, |walk| match kind {
        "match_all" | "match_none" => walk.flat(inside, &["boost", "_name"]),
        "bool" => boolean(walk, inside),
        "constant_score" => parts(walk, inside, &["filter"], &["boost", "_name"]),
        "dis_max" => parts(walk, inside, &["queries"], &["tie_breaker", "boost", "_name"]),
        "boosting" => parts(walk, inside, &["positive", "negative"], &["negative_boost", "boost", "_name"]),
        "nested" => parts(walk, inside, &["query"], &["path", "score_mode", "ignore_unmapped", "boost", "_name"]),
        "exists" => walk.flat(inside, &["field", "boost", "_name"]),
        "ids" => {
            let values = walk.object(inside)?;
            if let Some(other) = values.keys().find(|name| *name != "values") {
                return Err(walk.unknown("member", other, &["values"]));
            }
            values.values().try_for_each(|values| walk.scalars(values))
        }
        "terms" => terms(walk, inside),
        kind if ON_A_FIELD.contains(&kind) => {
            let (field, how) = walk.only(inside, "the field")?;
            walk.at(field, |walk| if how.is_object() { walk.flat(how, &OF_A_FIELD) } else { walk.scalar(how) })
        }
        kind if ON_TEXT.contains(&kind) => on_text(walk, inside),
        other => {
            let more =
                ["bool", "constant_score", "dis_max", "boosting", "nested", "exists", "ids", "terms", "match_all", "match_none"];
            walk.path.pop();
            Err(walk.unknown("query", other, &[&ON_A_FIELD[..], &ON_TEXT, &more].concat()))
        }
    })
}

fn boolean(walk: &mut Walk, inside: &Value) -> Result<(), QueryError> {
    parts(
        walk,
        inside,
        &["must", "should", "filter", "must_not"],
        &["minimum_should_match", "boost", "_name", "adjust_pure_negative"],
    )
}

/// A query made of queries, each one or a list.
fn parts(walk: &mut Walk, inside: &Value, queries: &[&str], plain: &[&str]) -> Result<(), QueryError> {
    for (name, member) in walk.object(inside)? {
        walk.at(name.as_str(), |walk| {
            if queries.contains(&name.as_str()) {
                let items = member.as_array().map_or(std::slice::from_ref(member), Vec::as_slice);
                items.iter().try_for_each(|item| query(walk, item))
            } else if plain.contains(&name.as_str()) {
                walk.scalar(member)
            } else {
                walk.path.pop();
                Err(walk.unknown("member", name, &[queries, plain].concat()))
            }
        })?;
    }
    Ok(())
}

/// Values spelt out: an object in their place would look them up in another index.
fn terms(walk: &mut Walk, inside: &Value) -> Result<(), QueryError> {
    let mut fields = 0;
    for (name, member) in walk.object(inside)? {
        walk.at(name.as_str(), |walk| {
            if matches!(name.as_str(), "boost" | "_name") {
                return walk.scalar(member);
            }
            fields += 1;
            if !member.is_array() {
                let reason = format!("terms on '{}' must list its values; lookups in other documents are not taken", shown(name));
                return Err(QueryError::NotConfinable { reason, position: None });
            }
            walk.scalars(member)
        })?;
    }
    if fields == 1 { Ok(()) } else { Err(walk.wrong("must name exactly one field")) }
}

fn on_text(walk: &mut Walk, inside: &Value) -> Result<(), QueryError> {
    for (name, member) in walk.object(inside)? {
        walk.at(name.as_str(), |walk| match name.as_str() {
            "fields" => walk.texts(member),
            known if OF_TEXT.contains(&known) => walk.scalar(member),
            other => {
                walk.path.pop();
                Err(walk.unknown("member", other, &[&OF_TEXT[..], &["fields"]].concat()))
            }
        })?;
    }
    Ok(())
}
