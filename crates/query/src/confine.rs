//! Confines a raw PromQL query to a scope. Guards the boundary between services: every selector of the query that
//! leaves here carries the scope's matchers, beside the caller's own. Must refuse whatever it cannot prove.

use portcullis_model::{NameSet, Scope, Timestamp};
use promql_parser::label::Matcher as ParsedMatcher;
use promql_parser::parser::Expr;

use crate::QueryError;
use crate::parse::{Node, change_selectors, parse, parse_rendered, visit};
use crate::promql::{LabelName, Matcher, Selector};
use crate::reach::{Reach, reach};
use crate::render::render;
use crate::scan::{Token, TokenKind, position};

/// Longest confined query, in bytes; every selector grows by the scope's matchers.
const MAX_CONFINED_BYTES: usize = 64 * 1024;

/// The labels under which one source keeps what scopes restrict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScopeLabels {
    /// Label of the tenant, where one backend holds several and tells them apart by a label. Always required then.
    pub tenant: Option<LabelName>,
    /// Label of the service name, such as `service_name` or `job`.
    pub service: Option<LabelName>,
    /// Label of the Kubernetes namespace, such as `namespace`.
    pub namespace: Option<LabelName>,
}

/// When a query is evaluated and which samples it may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// First evaluation.
    pub start: Timestamp,
    /// Last evaluation; the same as `start` for an instant query.
    pub end: Timestamp,
    /// Oldest instant that may be read; `None` for no limit.
    pub earliest: Option<Timestamp>,
    /// Latest instant that may be read, usually now.
    pub latest: Timestamp,
}

impl TimeLimits {
    /// The limits of `scope` at `now` for a query evaluated from `start` to `end`.
    pub fn of_scope(scope: &Scope, start: Timestamp, end: Timestamp, now: Timestamp) -> Self {
        Self { start, end, earliest: scope.look_back.map(|back| now.minus(back)), latest: now.max(end) }
    }
}

/// What `scope` restricts, by the fields of a source for the tenant, the service and the namespace: each field with the
/// names it may have.
///
/// Fails when the scope restricts something the source has no field for, or holds no name at all.
pub(crate) fn restrictions<'a, F>(
    scope: &'a Scope,
    [tenant, service, namespace]: [Option<&'a F>; 3],
) -> Result<Vec<(&'a F, Vec<&'a str>)>, QueryError> {
    let mut found = Vec::new();
    if let Some(tenant) = tenant {
        found.push((tenant, vec![scope.tenant.as_str()]));
    }
    for (kind, allowed, field) in [("service", &scope.services, service), ("namespace", &scope.namespaces, namespace)] {
        if let NameSet::Only(names) = allowed {
            let field = field.ok_or(QueryError::NoLabel { kind })?;
            // An empty value would match everything without the field.
            let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
            if names.is_empty() {
                return Err(QueryError::NothingInScope { kind });
            }
            found.push((field, names));
        }
    }
    Ok(found)
}

/// What every selector of a query must carry, and which time it may read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Confinement {
    matchers: Vec<Matcher>,
    time: Option<TimeLimits>,
}

impl Confinement {
    /// No restriction.
    pub fn none() -> Self {
        Self::default()
    }

    /// The restriction of `scope` on a source that keeps services and namespaces under `labels`.
    ///
    /// Fails when the scope restricts something the source has no label for, or holds no name at all.
    pub fn of_scope(scope: &Scope, labels: &ScopeLabels) -> Result<Self, QueryError> {
        let fields = [&labels.tenant, &labels.service, &labels.namespace].map(Option::as_ref);
        let matchers = restrictions(scope, fields)?
            .into_iter()
            .map(|(label, names)| Matcher::any_of(label.clone(), names))
            .collect::<Result<_, _>>()?;
        Ok(Self { matchers, time: None })
    }

    /// The same with limits on the time that may be read.
    #[must_use]
    pub fn within(mut self, limits: TimeLimits) -> Self {
        self.time = Some(limits);
        self
    }

    /// The same with further conditions that every selector must carry, such as those of the question itself.
    #[must_use]
    pub fn also<'a>(mut self, matchers: impl IntoIterator<Item = &'a Matcher>) -> Self {
        self.matchers.extend(matchers.into_iter().cloned());
        self
    }

    /// The matchers, for queries built from types ([`Selector::matching_all`]).
    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    /// The limits on time.
    pub(crate) fn time(&self) -> Option<TimeLimits> {
        self.time
    }

    /// Whether there is nothing to add and nothing to check.
    pub fn is_none(&self) -> bool {
        self.matchers.is_empty() && self.time.is_none()
    }
}

/// Rewrites `raw` so that every selector in it, at any depth, also carries the matchers of `confinement`.
///
/// The caller's own matchers stay, so that both must hold. The result is read again and must be the same tree with
/// nothing but the matchers added; otherwise, and for everything that cannot be confined (`or` between matchers,
/// `info()`, unknown functions), the query is refused. The time it reads is checked against the limits.
pub fn confine_promql(raw: &str, confinement: &Confinement) -> Result<String, QueryError> {
    let (expr, scanned) = parse(raw)?;
    refuse_unconfinable(raw, &expr, &scanned.tokens, !confinement.matchers.is_empty())?;
    if let Some(limits) = confinement.time {
        check_time(&expr, limits)?;
    }
    let added = parsed_matchers(&confinement.matchers)?;
    let mut confined = expr;
    change_selectors(&mut confined, &|selector| selector.matchers.matchers.extend(added.iter().cloned()));

    let refuse = |reason: String| QueryError::NotConfinable { reason, position: None };
    let text = render(&confined).map_err(refuse)?;
    if text.len() > MAX_CONFINED_BYTES {
        return Err(QueryError::TooLong { bytes: text.len(), limit: MAX_CONFINED_BYTES });
    }
    let again = parse_rendered(&text).map_err(refuse)?;
    if again != confined || !is_confined(&again, &added) {
        return Err(refuse("it does not read back the same after confinement; write it more simply".to_owned()));
    }
    Ok(text)
}

/// Whether every selector carries all of `added` and offers no alternative to them.
fn is_confined(expr: &Expr, added: &[ParsedMatcher]) -> bool {
    let mut all = true;
    visit(expr, &mut |node| {
        if let Node::Selector(selector) = node {
            let has = |matcher: &ParsedMatcher| selector.matchers.matchers.contains(matcher);
            all &= selector.matchers.or_matchers.is_empty() && added.iter().all(has);
        }
    });
    all
}

/// The typed matchers as the parser reads them, so that the comparison is made in the parser's own terms.
fn parsed_matchers(matchers: &[Matcher]) -> Result<Vec<ParsedMatcher>, QueryError> {
    if matchers.is_empty() {
        return Ok(Vec::new());
    }
    let carrier = Selector::any().matching_all(matchers).to_string();
    match parse_rendered(&carrier) {
        Ok(Expr::VectorSelector(selector))
            if selector.matchers.matchers.len() == matchers.len() && selector.matchers.or_matchers.is_empty() =>
        {
            Ok(selector.matchers.matchers)
        }
        _ => Err(QueryError::NotConfinable { reason: "the scope's names cannot be written as matchers".into(), position: None }),
    }
}

fn refuse_unconfinable(raw: &str, expr: &Expr, tokens: &[Token<'_>], restricted: bool) -> Result<(), QueryError> {
    let find = |wanted: &dyn Fn(usize, &Token<'_>) -> bool| {
        let found = tokens.iter().enumerate().find(|(index, token)| wanted(*index, token));
        found.map(|(_, token)| position(raw, token.offset))
    };
    let mut refused = None;
    visit(expr, &mut |node| match node {
        Node::Selector(selector) if !selector.matchers.or_matchers.is_empty() => {
            let is_or = |index: usize, token: &Token<'_>| {
                token.kind == TokenKind::Word
                    && token.text.eq_ignore_ascii_case("or")
                    && index > 0
                    && tokens[index - 1].kind == TokenKind::String
            };
            refused =
                Some(("'or' between matchers is not PromQL; use =~ with alternatives, or 'or' between selectors", find(&is_or)));
        }
        Node::Call(call) if restricted && call.func.name == "info" => {
            let is_info = |_: usize, token: &Token<'_>| token.text == "info";
            refused = Some((
                "info() reads a metric the query does not name; join the info metric with '* on (…) group_left (…)'",
                find(&is_info),
            ));
        }
        _ => {}
    });
    match refused {
        Some((reason, position)) => Err(QueryError::NotConfinable { reason: reason.to_owned(), position }),
        None => Ok(()),
    }
}

fn check_time(expr: &Expr, limits: TimeLimits) -> Result<(), QueryError> {
    reach(expr, limits.start, limits.end).map_or(Ok(()), |reach| check_reach(reach, limits))
}

/// Whether what a query reads is within the limits.
pub(crate) fn check_reach(reach: Reach, limits: TimeLimits) -> Result<(), QueryError> {
    if let Some(earliest) = limits.earliest
        && reach.earliest < earliest
    {
        return Err(QueryError::LooksTooFarBack { reached: reach.earliest, earliest });
    }
    if reach.latest > limits.latest {
        return Err(QueryError::LooksAhead { reached: reach.latest, latest: limits.latest });
    }
    Ok(())
}
