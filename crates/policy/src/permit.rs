//! The permit: proof that a call was authorized. Reaching a backend takes one; only this crate makes one.
//!
//! Fields are private and there is no public constructor. What holders may do is narrow it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_model::{CallerToken, NameSet, Principal, PrincipalId, RiskClass, Scope, ToolName, TraceContext};

use crate::Trail;
use crate::limits::Limits;
use crate::operations::Operation;

/// What may be spent on one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes a single backend response may have.
    pub backend_bytes: u64,
    /// Rows or records a tool may read from one source.
    pub rows: u64,
    /// Bytes of the released answer.
    pub answer_bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { backend_bytes: 32 << 20, rows: 2_000_000, answer_bytes: 96 << 10 }
    }
}

/// Why the permit exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// One call of one tool by one principal.
    Call {
        /// The tool.
        tool: ToolName,
        /// Its risk class.
        risk: RiskClass,
    },
    /// Reading a resource, getting a prompt or completing an argument.
    Lookup {
        /// What was asked for (`resource:<uri>`, `prompt:<name>`, `completion:<argument>`).
        what: Arc<str>,
    },
    /// One operation of an administrator.
    Operation(Operation),
    /// Standing work of the server itself; see [`Charter`].
    Charter {
        /// The purpose, as it appears in audit records.
        name: Arc<str>,
    },
}

#[derive(Debug, Clone)]
struct Inner {
    purpose: Purpose,
    principal: Principal,
    rule: Arc<str>,
    scope: Scope,
    deadline: Instant,
    budget: Budget,
    trace: TraceContext,
    destinations: Option<BTreeSet<String>>,
    projects: NameSet,
    /// The rule that grants answers without redaction.
    unredacted: Option<Arc<str>>,
    needs_approval: bool,
    product: Option<Arc<str>>,
    caller_token: Option<CallerToken>,
    trail: Trail,
}

/// Proof of authorization: principal, rule that allowed, scope, deadline, budget, trace context.
///
/// Cheap to clone; a clone is the same permit.
#[derive(Debug, Clone)]
pub struct Permit {
    inner: Arc<Inner>,
}

impl Permit {
    pub(crate) fn issue(
        purpose: Purpose,
        principal: Principal,
        rule: Arc<str>,
        limits: &Limits,
        deadline: Instant,
        budget: Budget,
        trace: TraceContext,
    ) -> Self {
        let scope = limits.confine(&principal.scope);
        let granting = || limits.unredacted_by.clone().unwrap_or_else(|| rule.clone());
        let unredacted = (limits.unredacted == Some(true)).then(granting);
        let inner = Inner {
            purpose,
            principal,
            rule,
            scope,
            deadline,
            budget: limits.spend(budget),
            trace,
            destinations: None,
            projects: limits.projects.clone(),
            unredacted,
            needs_approval: limits.approval,
            product: None,
            caller_token: None,
            trail: Trail::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Why it exists.
    pub fn purpose(&self) -> &Purpose {
        &self.inner.purpose
    }

    /// Who acts.
    pub fn principal(&self) -> &Principal {
        &self.inner.principal
    }

    /// Who acts, by id.
    pub fn principal_id(&self) -> &PrincipalId {
        &self.inner.principal.id
    }

    /// The rule that allowed it.
    pub fn rule(&self) -> &Arc<str> {
        &self.inner.rule
    }

    /// What data may be seen.
    pub fn scope(&self) -> &Scope {
        &self.inner.scope
    }

    /// When the work must be over.
    pub fn deadline(&self) -> Instant {
        self.inner.deadline
    }

    /// Time left until the deadline; zero when it has passed.
    pub fn time_left(&self) -> Duration {
        self.inner.deadline.saturating_duration_since(Instant::now())
    }

    /// What may be spent.
    pub fn budget(&self) -> Budget {
        self.inner.budget
    }

    /// Trace context to pass on.
    pub fn trace(&self) -> &TraceContext {
        &self.inner.trace
    }

    /// Projects that may be named in arguments. A call that names another one was refused before this permit was made.
    pub fn projects(&self) -> &NameSet {
        &self.inner.projects
    }

    /// Whether a rule lets this principal see results without redaction. It must still ask for it, call by call.
    pub fn may_see_unredacted(&self) -> bool {
        self.inner.unredacted.is_some()
    }

    /// The rule that lets it: often another one than the rule that allowed the call.
    pub fn unredacted_rule(&self) -> Option<&Arc<str>> {
        self.inner.unredacted.as_ref()
    }

    /// Whether a rule wants a human to approve this call before it runs.
    pub fn needs_approval(&self) -> bool {
        self.inner.needs_approval
    }

    /// The product the call came through.
    pub fn product(&self) -> Option<&Arc<str>> {
        self.inner.product.as_ref()
    }

    /// The token the caller proved itself with, closed; only who verified it can exchange it. Absent where none can be
    /// exchanged.
    pub fn caller_token(&self) -> Option<&CallerToken> {
        self.inner.caller_token.as_ref()
    }

    /// The same permit with the token of its caller. It opens nothing by itself.
    #[must_use]
    pub fn carrying(&self, token: Option<&CallerToken>) -> Self {
        match token {
            Some(token) => self.changed(|inner| inner.caller_token = Some(token.clone())),
            None => self.clone(),
        }
    }

    /// What the work reached so far, for the record; shared with every permit narrowed from this one.
    pub fn trail(&self) -> &Trail {
        &self.inner.trail
    }

    /// Whether this permit may reach `origin` (`scheme://host:port`). Calls may reach the origins of the
    /// sources they are allowed to ask (each client is bound to one); a charter only what it names, one by one or with `*`
    /// for the whole first label.
    pub fn may_reach(&self, origin: &str) -> bool {
        let Some(destinations) = &self.inner.destinations else { return true };
        destinations.contains(origin) || any_first_label(origin).is_some_and(|wide| destinations.contains(&wide))
    }

    /// The same permit with a narrower scope. Never wider: the result is the intersection.
    #[must_use]
    pub fn narrowed(&self, scope: &Scope) -> Self {
        self.changed(|inner| inner.scope = inner.scope.narrow(scope))
    }

    /// The same permit with an earlier deadline; a later one is ignored.
    #[must_use]
    pub fn with_deadline_at_most(&self, deadline: Instant) -> Self {
        self.changed(|inner| inner.deadline = inner.deadline.min(deadline))
    }

    /// The same permit within what another one of the same principal allows, as where a call came through another tool.
    /// Never wider: both hold.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        let other = &other.inner;
        self.changed(|inner| {
            inner.scope = inner.scope.narrow(&other.scope);
            inner.deadline = inner.deadline.min(other.deadline);
            inner.budget = Budget {
                backend_bytes: inner.budget.backend_bytes.min(other.budget.backend_bytes),
                rows: inner.budget.rows.min(other.budget.rows),
                answer_bytes: inner.budget.answer_bytes.min(other.budget.answer_bytes),
            };
            inner.projects = inner.projects.intersect(&other.projects);
            if other.unredacted.is_none() {
                inner.unredacted = None;
            }
            inner.needs_approval |= other.needs_approval;
            if let Some(others) = &other.destinations {
                let own = inner.destinations.take();
                let both = |own: BTreeSet<String>| own.intersection(others).cloned().collect();
                inner.destinations = Some(own.map_or_else(|| others.clone(), both));
            }
        })
    }

    /// The same permit within a product's limits.
    pub(crate) fn within_product(&self, product: &Arc<str>, limits: &Limits) -> Self {
        self.changed(|inner| {
            inner.scope = limits.confine(&inner.scope);
            inner.budget = limits.spend(inner.budget);
            inner.projects = inner.projects.intersect(&limits.projects);
            inner.product = Some(product.clone());
        })
    }

    fn changed(&self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Inner::clone(&self.inner);
        change(&mut inner);
        Self { inner: Arc::new(inner) }
    }
}

/// `https://eu.example.com:443` as `https://*.example.com:443`; `None` where the host is an address or a single label.
fn any_first_label(origin: &str) -> Option<String> {
    let (scheme, host) = origin.split_once("://")?;
    let (label, rest) = host.split_once('.')?;
    let name = rest.rsplit_once(':').map_or(rest, |(name, _)| name);
    let is_address = name.rsplit('.').next().is_none_or(|last| last.bytes().all(|b| b.is_ascii_digit()));
    (!is_address && !label.is_empty() && !label.contains(['*', '['])).then(|| format!("{scheme}://*.{rest}"))
}

/// What the operator's configuration grants to one piece of standing work.
#[derive(Debug, Clone)]
pub struct CharterGrant {
    /// Purpose, such as `source-health`; becomes the principal `charter:<name>`.
    pub name: Arc<str>,
    /// Origins (`scheme://host:port`) it may reach; `scheme://*.host:port` stands for one label before the host.
    pub destinations: BTreeSet<String>,
    /// Data it may see.
    pub scope: Scope,
    /// Time allowed for one piece of the work.
    pub time_limit: Duration,
    /// What one piece of the work may spend.
    pub budget: Budget,
}

/// Standing work that serves no caller: one purpose, its destinations and budgets. Made by
/// [`Policies::charter`](crate::Policies::charter) at start-up; it cannot call tools.
#[derive(Debug, Clone)]
pub struct Charter {
    grant: Arc<CharterGrant>,
    principal: Principal,
}

impl Charter {
    pub(crate) fn new(grant: CharterGrant, principal: Principal) -> Self {
        Self { grant: Arc::new(grant), principal }
    }

    /// The purpose.
    pub fn name(&self) -> &str {
        &self.grant.name
    }

    /// A permit for one piece of this work, starting now.
    pub fn permit(&self) -> Permit {
        Permit {
            inner: Arc::new(Inner {
                purpose: Purpose::Charter { name: self.grant.name.clone() },
                principal: self.principal.clone(),
                rule: Arc::from("charter"),
                scope: self.grant.scope.clone(),
                deadline: Instant::now() + self.grant.time_limit,
                budget: self.grant.budget,
                trace: TraceContext::default(),
                destinations: Some(self.grant.destinations.clone()),
                projects: NameSet::All,
                unredacted: None,
                needs_approval: false,
                product: None,
                caller_token: None,
                trail: Trail::default(),
            }),
        }
    }
}
