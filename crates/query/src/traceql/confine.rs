//! Confines a raw TraceQL query. Guards the boundary between services: every filter gets the scope's conditions beside the
//! caller's own, a pipeline that begins with all spans begins with those of the scope, and nothing is asked that other
//! spans of the trace answer. Must refuse whatever it cannot prove.

use portcullis_model::Scope;

use super::ast::{Field, FieldExpr, Metrics, Operand, Pipeline, Query, Stage, Term, Value};
use super::build::AttributeName;
use super::parse::{parse, parse_rendered};
use crate::QueryError;
use crate::confine::restrictions;

/// Longest confined query, in bytes; every filter grows by the scope's names.
const MAX_CONFINED_BYTES: usize = 64 * 1024;

/// Intrinsics whose value comes from other spans of the trace: its root, its length, parents and children.
const OF_OTHER_SPANS: [&str; 12] = [
    "childCount",
    "span:childCount",
    "parent",
    "rootName",
    "rootServiceName",
    "traceDuration",
    "nestedSetLeft",
    "nestedSetRight",
    "nestedSetParent",
    "trace:duration",
    "trace:rootName",
    "trace:rootService",
];

/// The attributes of resources under which one source keeps what scopes restrict. Attributes of spans cannot be named: who
/// writes a span can write any of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceScope {
    /// Attribute of the tenant, where one backend holds several and tells them apart by it. Always required then.
    pub tenant: Option<AttributeName>,
    /// Attribute of the service name, `service.name` by convention.
    pub service: Option<AttributeName>,
    /// Attribute of the Kubernetes namespace, `k8s.namespace.name` by convention.
    pub namespace: Option<AttributeName>,
}

/// What every filter of a query must carry.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TraceConfinement {
    conditions: Vec<(AttributeName, Vec<String>)>,
}

impl TraceConfinement {
    /// No restriction.
    pub fn none() -> Self {
        Self::default()
    }

    /// The restriction of `scope` on a source that keeps services and namespaces under `attributes`.
    ///
    /// Fails when the scope restricts something the source has no attribute for, or holds no name at all.
    pub fn of_scope(scope: &Scope, attributes: &TraceScope) -> Result<Self, QueryError> {
        let fields = [&attributes.tenant, &attributes.service, &attributes.namespace].map(Option::as_ref);
        let conditions = restrictions(scope, fields)?
            .into_iter()
            .map(|(name, values)| (name.clone(), values.into_iter().map(str::to_owned).collect()))
            .collect();
        Ok(Self { conditions })
    }

    /// Whether there is nothing to add.
    pub fn is_none(&self) -> bool {
        self.conditions.is_empty()
    }

    /// The conditions as terms, each in parentheses: alternatives are spelt out, for versions of Tempo differ in whether a
    /// regular expression must match the whole value.
    pub(crate) fn terms(&self) -> Vec<Term> {
        let equals = |name: &AttributeName, value: &str| {
            let field = Value::Field(Field::Attribute { scope: "resource.", name: name.as_str().to_owned() });
            let plain = |value| Term { signs: Vec::new(), value };
            (plain(field), plain(Value::Text(value.to_owned())))
        };
        let condition = |(name, values): &(AttributeName, Vec<String>)| {
            let mut alternatives = values.iter().map(|value| equals(name, value));
            let (field, text) = alternatives.next()?;
            let mut expr = FieldExpr { first: Box::new(field), rest: vec![("=", text)] };
            for (field, text) in alternatives {
                expr.rest.extend([("||", field), ("=", text)]);
            }
            Some(Term { signs: Vec::new(), value: Value::Group(expr) })
        };
        self.conditions.iter().filter_map(condition).collect()
    }
}

/// What a query gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceqlKind {
    /// Traces with the spans that were found.
    Search,
    /// Numbers per group and instant.
    Metrics,
}

/// What a raw query gives; the error says where it is wrong.
pub fn traceql_kind(raw: &str) -> Result<TraceqlKind, QueryError> {
    Ok(if parse(raw)?.metrics.is_some() { TraceqlKind::Metrics } else { TraceqlKind::Search })
}

/// Rewrites `raw` so that every filter of spans in it also carries the conditions of `confinement`.
///
/// A pipeline that begins with a computation instead of a filter (`count() > 2`) gets a filter in front. The result is read
/// again and must be the same query with nothing but these additions. Under a restriction, values that come from other
/// spans of the trace are refused.
///
/// # Errors
/// What is not TraceQL, what would not read back the same, what is too large or too deep, and what looks at other spans.
pub fn confine_traceql(raw: &str, confinement: &TraceConfinement) -> Result<String, QueryError> {
    let mut query = parse(raw)?;
    let scope = confinement.terms();
    let refuse = |reason: String| QueryError::NotConfinable { reason, position: None };
    if !scope.is_empty() {
        if let Some(field) = foreign(&query) {
            return Err(refuse(format!(
                "'{field}' comes from other spans of the trace, which this credential may not see; ask for what a span says of \
                 itself, such as duration or span:name"
            )));
        }
        confine(&mut query, &scope);
    }
    let text = query.to_string();
    if text.len() > MAX_CONFINED_BYTES {
        return Err(QueryError::TooLong { bytes: text.len(), limit: MAX_CONFINED_BYTES });
    }
    let again = parse_rendered(&text).map_err(|error| refuse(error.to_string()))?;
    if again != query || (!scope.is_empty() && !is_confined(&again, &scope)) {
        return Err(refuse("it does not read back the same after confinement; write it more simply".to_owned()));
    }
    Ok(text)
}

fn is_own(field: &Field) -> bool {
    match field {
        Field::Intrinsic(name) => !OF_OTHER_SPANS.contains(name),
        Field::Attribute { scope, .. } => !scope.starts_with("parent."),
    }
}

/// The first field that other spans of the trace answer.
fn foreign(query: &Query) -> Option<String> {
    let mut found = None;
    let mut accept = |field: &Field| {
        if !is_own(field) && found.is_none() {
            found = Some(field.to_string());
        }
        is_own(field)
    };
    let clean = fields_of(&query.pipeline, &mut accept)
        && match &query.metrics {
            None => true,
            Some(Metrics::Compare { selected, .. }) => selected.as_ref().is_none_or(|expr| expr.all_fields(&mut accept)),
            Some(Metrics::Over { of, by, .. }) => of.iter().chain(by).all(&mut accept),
        };
    if clean { None } else { found.or(Some("a field".to_owned())) }
}

fn fields_of(pipeline: &Pipeline, accept: &mut impl FnMut(&Field) -> bool) -> bool {
    pipeline.stages.iter().flat_map(Stage::operands).all(|operand| match operand {
        Operand::Filter(expr) => expr.as_ref().is_none_or(|expr| expr.all_fields(accept)),
        Operand::Group(inner) => fields_of(inner, accept),
        Operand::Aggregate { of, .. } => of.as_ref().is_none_or(|expr| expr.all_fields(accept)),
        Operand::By(expr) => expr.all_fields(accept),
        Operand::Select(fields) => fields.iter().all(&mut *accept),
        Operand::Number(_) | Operand::Coalesce => true,
    })
}

fn confine(query: &mut Query, scope: &[Term]) {
    confine_pipeline(&mut query.pipeline, scope, true);
    if let Some(Metrics::Compare { selected, .. }) = &mut query.metrics {
        *selected = Some(scoped(selected.take(), scope));
    }
}

/// A filter with the scope behind what the caller wrote.
fn scoped(written: Option<FieldExpr>, scope: &[Term]) -> FieldExpr {
    let mut terms = scope.iter().cloned();
    let first = match written {
        Some(expr) => Term { signs: Vec::new(), value: Value::Group(expr) },
        // The caller of this function has at least one term.
        None => terms.next().unwrap_or(Term { signs: Vec::new(), value: Value::Word("false") }),
    };
    FieldExpr { first: Box::new(first), rest: terms.map(|term| ("&&", term)).collect() }
}

/// `first` when nothing has found spans before, so that the pipeline begins with every span of the trace.
fn confine_pipeline(pipeline: &mut Pipeline, scope: &[Term], first: bool) {
    let begins_with_all = first && pipeline.stages.first().is_some_and(|stage| !stage.operands().any(Operand::is_source));
    for (index, stage) in pipeline.stages.iter_mut().enumerate() {
        for operand in stage.operands_mut() {
            let source = operand.is_source();
            match operand {
                Operand::Filter(expr) => *expr = Some(scoped(expr.take(), scope)),
                Operand::Group(inner) if source => confine_pipeline(inner, scope, first && index == 0),
                _ => {}
            }
        }
    }
    if begins_with_all {
        pipeline.stages.insert(0, Stage::of(Operand::Filter(Some(scoped(None, scope)))));
    }
}

/// Whether a filter ends with exactly the scope, joined by `&&` to at most one term in parentheses before it.
fn is_scoped(expr: Option<&FieldExpr>, scope: &[Term]) -> bool {
    let Some(expr) = expr else { return false };
    let all: Vec<&Term> = std::iter::once(&*expr.first).chain(expr.rest.iter().map(|(_, term)| term)).collect();
    let before = all.len().checked_sub(scope.len());
    let joined = expr.rest.iter().all(|(operator, _)| *operator == "&&");
    let grouped = |term: &&Term| term.signs.is_empty() && matches!(term.value, Value::Group(_));
    before.is_some_and(|before| {
        before <= 1 && joined && all[..before].iter().all(grouped) && all[before..].iter().copied().eq(scope.iter())
    })
}

/// Looks again, at what will be sent: every filter is scoped, and every pipeline begins with one.
fn is_confined(query: &Query, scope: &[Term]) -> bool {
    let compared = match &query.metrics {
        Some(Metrics::Compare { selected, .. }) => is_scoped(selected.as_ref(), scope),
        _ => true,
    };
    compared && is_confined_pipeline(&query.pipeline, scope, true)
}

fn is_confined_pipeline(pipeline: &Pipeline, scope: &[Term], first: bool) -> bool {
    let begins = !first || pipeline.stages.first().is_some_and(|stage| stage.operands().any(Operand::is_source));
    let holds = |operand: &Operand, first: bool| match operand {
        Operand::Filter(expr) => is_scoped(expr.as_ref(), scope),
        Operand::Group(inner) if operand.is_source() => is_confined_pipeline(inner, scope, first),
        // Beside a pipeline of its own, a number of all spans would be unconfined.
        Operand::Aggregate { .. } | Operand::By(_) | Operand::Select(_) | Operand::Group(_) => !first,
        Operand::Number(_) | Operand::Coalesce => true,
    };
    begins
        && pipeline
            .stages
            .iter()
            .enumerate()
            .all(|(index, stage)| stage.operands().all(|operand| holds(operand, first && index == 0)))
}
