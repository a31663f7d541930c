//! Confines a raw LogQL query. Guards the boundary between services: streams are selected by `{…}` and by nothing else,
//! so every `{…}` gets the scope's matchers beside the caller's own. Must refuse whatever it cannot prove.
//!
//! What comes behind a selector (`label_format`, `label_replace`, `drop`) can rename and lose labels of lines that were
//! selected already; it brings no other line in.

use portcullis_model::Timestamp;

use super::ast::{Matcher, Query};
use super::parse::{is_label, nanos, parse};
use crate::confine::check_reach;
use crate::reach::Reach;
use crate::{Confinement, QueryError};

/// Longest confined query, in bytes; every selector grows by the scope's matchers.
const MAX_CONFINED_BYTES: usize = 64 * 1024;

/// What a query gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogqlKind {
    /// Lines of logs.
    Logs,
    /// Numbers per group and instant.
    Metric,
}

/// What a raw query gives; the error says where it is wrong.
pub fn logql_kind(raw: &str) -> Result<LogqlKind, QueryError> {
    Ok(match parse(raw)? {
        Query::Logs(_) => LogqlKind::Logs,
        Query::Metric(_) | Query::Variants { .. } => LogqlKind::Metric,
    })
}

/// How far a raw query reads when it is evaluated from `start` to `end`; `None` when it reads no stream.
pub fn logql_reach(raw: &str, start: Timestamp, end: Timestamp) -> Result<Option<Reach>, QueryError> {
    Ok(reach(&parse(raw)?, start, end))
}

fn reach(query: &Query, start: Timestamp, end: Timestamp) -> Option<Reach> {
    let mut found: Option<(i128, i128)> = None;
    query.each(&mut |_, over| {
        let back = over.map_or(0, |over| over.offset.as_deref().map_or(0, nanos));
        let range = over.map_or(0, |over| nanos(&over.range));
        let low = i128::from(start.as_nanos()) - back - range;
        let high = i128::from(end.as_nanos()) - back;
        found = Some(found.map_or((low, high), |(lowest, highest)| (lowest.min(low), highest.max(high))));
    });
    let clamped = |nanos: i128| {
        let within = nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        Timestamp::from_nanos(i64::try_from(within).unwrap_or(i64::MAX))
    };
    found.map(|(low, high)| Reach { earliest: clamped(low), latest: clamped(high) })
}

/// Rewrites `raw` so that every stream selector in it also carries the matchers of `confinement`.
///
/// The caller's own matchers stay, so that both must hold. The result is read again and must be the same query with
/// nothing but the matchers added. The time it reads is checked against the limits.
///
/// # Errors
/// What is not LogQL, what would not read back the same, what is too large or too deep, and what looks too far back.
pub fn confine_logql(raw: &str, confinement: &Confinement) -> Result<String, QueryError> {
    let mut query = parse(raw)?;
    if let Some(limits) = confinement.time()
        && let Some(reach) = reach(&query, limits.start, limits.end)
    {
        check_reach(reach, limits)?;
    }
    let added = added(confinement)?;
    query.change(&|logs| logs.matchers.extend(added.iter().cloned()));

    let refuse = |reason: String| QueryError::NotConfinable { reason, position: None };
    let text = query.to_string();
    if text.len() > MAX_CONFINED_BYTES {
        return Err(QueryError::TooLong { bytes: text.len(), limit: MAX_CONFINED_BYTES });
    }
    let again = super::parse::parse_rendered(&text).map_err(|error| refuse(error.to_string()))?;
    let mut confined = true;
    again.each(&mut |logs, _| confined &= added.iter().all(|matcher| logs.matchers.contains(matcher)));
    if again != query || !confined {
        return Err(refuse("it does not read back the same after confinement; write it more simply".to_owned()));
    }
    Ok(text)
}

fn added(confinement: &Confinement) -> Result<Vec<Matcher>, QueryError> {
    confinement.matchers().iter().map(Matcher::try_from).collect()
}

impl TryFrom<&crate::promql::Matcher> for Matcher {
    type Error = QueryError;

    fn try_from(matcher: &crate::promql::Matcher) -> Result<Self, QueryError> {
        let name = matcher.label().as_str();
        if !is_label(name) {
            let rule = "use letters, digits and underscores, and no word of LogQL; Loki has no other label names";
            return Err(QueryError::Name { kind: "label name of LogQL", shown: crate::error::shown(name), rule });
        }
        Ok(Self { name: name.to_owned(), operator: matcher.operator(), value: matcher.value().to_owned() })
    }
}
