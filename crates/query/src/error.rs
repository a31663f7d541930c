//! Why a query was not built or not let through. Guards the wording: each sentence says what was wrong and what
//! would be right. Must not carry backend data.

use std::fmt;

use portcullis_model::{Timestamp, cut};

/// The languages of raw queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Prometheus.
    Promql,
    /// Loki.
    Logql,
    /// Tempo.
    Traceql,
    /// Elasticsearch and OpenSearch: the body of a search.
    Elasticsearch,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promql => "PromQL",
            Self::Logql => "LogQL",
            Self::Traceql => "TraceQL",
            Self::Elasticsearch => "Elasticsearch query",
        })
    }
}

/// A query that is refused. Every variant is for the caller to fix, except [`QueryError::NoLabel`], which the
/// operator fixes in the source's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The text is longer than a query may be.
    #[error("the query has {bytes} bytes, the limit is {limit}; ask a smaller question")]
    TooLong {
        /// Length of the text.
        bytes: usize,
        /// Largest length accepted.
        limit: usize,
    },
    /// The text would need more nesting, operators or regular expressions than are accepted.
    #[error("the query has more than {limit} {what} (at character {position}); split it into several queries")]
    TooComplex {
        /// What there is too much of, in the plural.
        what: &'static str,
        /// Largest number accepted.
        limit: usize,
        /// Where the limit was passed, in characters from 1.
        position: usize,
    },
    /// The text is not a valid query.
    #[error("not valid {language}{}: {message}", at(*position))]
    Syntax {
        /// In which language it was read.
        language: Language,
        /// What is wrong and, where known, what was expected.
        message: String,
        /// Where, in characters from 1, when it is known.
        position: Option<usize>,
    },
    /// The text is valid somewhere, but cannot be confined without changing its meaning.
    #[error("this query cannot be confined{}: {reason}", at(*position))]
    NotConfinable {
        /// What stands in the way and what to write instead.
        reason: String,
        /// Where, in characters from 1, when it is known.
        position: Option<usize>,
    },
    /// The query would use a label whose name says that its value is a secret.
    #[error(
        "{using} the label '{label}' is refused: its name says it is a secret, and its values are not shown; \
         leave the label out, or ask only whether it is there ({label}!=\"\")"
    )]
    SecretLabel {
        /// The label, without control characters.
        label: String,
        /// What it was to be used for, such as `grouping by`.
        using: &'static str,
    },
    /// The caller's scope holds no name at all, so that nothing can be seen.
    #[error("this credential has no {kind} in its scope, so that nothing can be seen")]
    NothingInScope {
        /// `tenant`, `service` or `namespace`.
        kind: &'static str,
    },
    /// The scope restricts something for which the source has no label.
    #[error("the scope restricts {kind}s but this source has no {kind} label; name the label in the source's configuration")]
    NoLabel {
        /// `tenant`, `service` or `namespace`.
        kind: &'static str,
    },
    /// The query would read samples older than the caller may see.
    #[error(
        "the query reads back to {reached} but this credential may look back to {earliest} only; \
         shorten the range or the offset, or start later"
    )]
    LooksTooFarBack {
        /// Oldest instant the query reads.
        reached: Timestamp,
        /// Oldest instant allowed.
        earliest: Timestamp,
    },
    /// The query would read beyond the end of what may be asked.
    #[error("the query reads up to {reached}, after {latest}; use no negative offset and no later '@' time")]
    LooksAhead {
        /// Latest instant the query reads.
        reached: Timestamp,
        /// Latest instant allowed.
        latest: Timestamp,
    },
    /// A metric, label or column name that cannot be one.
    #[error("'{shown}' is not a {kind}: {rule}")]
    Name {
        /// `metric name`, `label name` or `SQL identifier`.
        kind: &'static str,
        /// The beginning of the name, without control characters.
        shown: String,
        /// What a name must look like.
        rule: &'static str,
    },
    /// A regular expression that cannot be used.
    #[error("the regular expression '{shown}' is not usable: {reason}")]
    Regex {
        /// The beginning of the pattern, without control characters.
        shown: String,
        /// Why.
        reason: String,
    },
    /// A list of alternatives without any.
    #[error("an empty list of values matches nothing; give at least one")]
    NoValues,
    /// A number outside its bounds.
    #[error("{what} must be {rule}, not {given}")]
    Number {
        /// What the number is.
        what: &'static str,
        /// The bounds.
        rule: &'static str,
        /// What was given.
        given: String,
    },
}

fn at(position: Option<usize>) -> String {
    position.map_or_else(String::new, |position| format!(" at character {position}"))
}

/// The beginning of a text for an error message: at most 60 characters that can be seen.
pub(crate) fn shown(text: &str) -> String {
    cut::quoted(text, 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_only_named_when_known() {
        let language = Language::Promql;
        let known = QueryError::Syntax { language, message: "x".into(), position: Some(3) };
        let unknown = QueryError::Syntax { language, message: "x".into(), position: None };
        assert_eq!(known.to_string(), "not valid PromQL at character 3: x");
        assert_eq!(unknown.to_string(), "not valid PromQL: x");
    }
}
