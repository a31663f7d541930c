//! Asking the policies. The only place where permits are issued.
//!
//! A decision depends on the principal (id, roles, tenant, kind), the action and the thing acted upon, and where rules ask
//! for them, on the arguments and the time. Listing asks the same rules with the arguments unknown, so what is not listed
//! is never callable. Anything that cannot be decided is refused.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression,
};
use portcullis_model::{
    Clock, Principal, PrincipalId, RiskClass, Scope, SystemClock, TenantId, ToolSpec, TraceContext, WriteCategory,
};
use portcullis_model::{CredentialKind, Timestamp};
use serde_json::{Map, Value};

use crate::address::readings;
use crate::arguments::{Given, sources_asked};
use crate::check::WEEKDAYS;
use crate::compile::{Compiled, Ruleset, compile};
use crate::error::{PolicyError, Refusal};
use crate::external::credential_word;
use crate::limits::Limits;
use crate::lookup::{Lookup, LookupKind};
use crate::operations::Operation;
use crate::permit::{Budget, Charter, CharterGrant, Permit, Purpose};
use crate::products::{NOT_IN_PRODUCT, Product, UNKNOWN_PRODUCT};
use crate::vocabulary::{PolicyText, Vocabulary};

/// Decisions remembered at most; beyond it the memory starts afresh.
const REMEMBERED: usize = 20_000;
/// The rule name when a rule failed while it was evaluated: it could have been the one that forbids.
const POLICY_ERROR: &str = "policy-error";
/// The rule name when nothing permits.
const NO_RULE: &str = "no-rule-allows";
/// The rule name when an address can be read as another one.
pub const ADDRESS_FORM: &str = "address-form";

/// A decision and the rule that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The deciding rule's id.
    pub rule: Arc<str>,
}

impl Decision {
    fn refused(rule: &str) -> Self {
        Self { allowed: false, rule: Arc::from(rule) }
    }
}

/// A decision with what it confines the call to.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) decision: Decision,
    pub(crate) limits: Arc<Limits>,
    /// Where several calls are judged as one: what each that is allowed would be confined to, as far as it is known. Nothing
    /// where that is `limits`.
    pub(crate) ways: Option<Arc<Vec<Limits>>>,
}

impl Verdict {
    fn refused(rule: &str) -> Self {
        Self { decision: Decision::refused(rule), limits: Arc::default(), ways: None }
    }
}

/// Something a principal may want to use.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// A tool, with some arguments.
    Tool(&'a ToolSpec),
    /// A resource, a family of them or a prompt.
    Lookup(Lookup<'a>),
}

/// What the rules say to who somebody is, before it asks for anything in particular.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Whether it could be allowed, and by which rule.
    pub decision: Decision,
    /// What it could be confined to: each of these is what some use would see. One at least where it is allowed.
    pub scopes: Vec<Scope>,
}

/// A call that asks for a permit.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// Which tool.
    pub tool: &'a ToolSpec,
    /// With what, already checked against the tool's schema.
    pub arguments: &'a Map<String, Value>,
    /// Through which product, where it came through one.
    pub product: Option<&'a Product>,
    /// How far back from now whoever runs it says that these arguments read. Needed where an argument is marked with
    /// `x-portcullis-reaches`: without it such a call reaches back for ever. It never makes the reach of the times shorter.
    pub reach: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    Call,
    Listing,
    Read,
    Family,
    Prompt,
    Administer,
}

#[derive(PartialEq, Eq, Hash)]
struct Remembered {
    principal: PrincipalId,
    tenant: TenantId,
    kind: &'static str,
    roles: Vec<Arc<str>>,
    act: Act,
    name: String,
    risk: &'static str,
    category: String,
}

/// A checked policy set.
pub struct Policies {
    pub(crate) compiled: Compiled,
    pub(crate) authorizer: Authorizer,
    limits: HashMap<Arc<str>, Limits>,
    named_resources: BTreeSet<String>,
    types: Types,
    enabled_writes: BTreeSet<WriteCategory>,
    sources: BTreeSet<String>,
    remembered: RwLock<HashMap<Remembered, Verdict>>,
    clock: Arc<dyn Clock>,
    utc_offset_seconds: i64,
    version: u64,
}

struct Types {
    role: EntityTypeName,
    product: EntityTypeName,
    principal: EntityTypeName,
    tool: EntityTypeName,
    resource: EntityTypeName,
    prompt: EntityTypeName,
    operation: EntityTypeName,
    call: EntityUid,
    read: EntityUid,
    prompt_action: EntityUid,
    administer: EntityUid,
}

impl Types {
    fn new() -> Result<Self, PolicyError> {
        let name =
            |n: &str| format!("Portcullis::{n}").parse::<EntityTypeName>().map_err(|e| PolicyError::BuiltIn(e.to_string()));
        let action = |n: &str| {
            format!("Portcullis::Action::\"{n}\"").parse::<EntityUid>().map_err(|e| PolicyError::BuiltIn(e.to_string()))
        };
        Ok(Self {
            role: name("Role")?,
            product: name("Product")?,
            principal: name("Principal")?,
            tool: name("Tool")?,
            resource: name("Resource")?,
            prompt: name("Prompt")?,
            operation: name("Operation")?,
            call: action("call")?,
            read: action("read")?,
            prompt_action: action("prompt")?,
            administer: action("administer")?,
        })
    }
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies")
            .field("rules", &self.compiled.rules.len())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What is acted upon, as rules see it.
pub(crate) struct Thing<'a> {
    pub(crate) name: &'a str,
    pub(crate) risk: &'static str,
    pub(crate) category: &'a str,
}

impl<'a> Thing<'a> {
    pub(crate) fn tool(tool: &'a ToolSpec) -> Self {
        let category = tool.category.as_ref().map_or("", |c| &c.0);
        Self { name: tool.name.as_str(), risk: tool.risk.as_str(), category }
    }

    fn operation(operation: Operation) -> Self {
        Self { name: operation.as_str(), risk: operation.risk().as_str(), category: "" }
    }

    fn readable(name: &'a str) -> Self {
        Self { name, risk: "read", category: "" }
    }
}

impl Policies {
    /// Loads the built-in roles and the operator's `texts`, and checks every rule against `vocabulary`.
    ///
    /// `version` must differ between loads: cache keys contain it.
    ///
    /// # Errors
    /// Everything that is wrong, each with what would be right.
    pub fn load(texts: &[PolicyText], vocabulary: &Vocabulary, version: u64) -> Result<Self, PolicyError> {
        let compiled = compile(texts, vocabulary)?;
        let limited = compiled.rules.iter().filter(|r| !r.limits.is_none());
        let limits = limited.map(|r| (r.id.clone(), r.limits.of_rule(&r.id))).collect();
        let named_resources = compiled
            .rules
            .iter()
            .flat_map(|r| r.original.entity_literals())
            .filter(|uid| uid.type_name().to_string() == "Portcullis::Resource")
            .map(|uid| uid.id().unescaped().to_owned())
            .collect();
        Ok(Self {
            compiled,
            authorizer: Authorizer::new(),
            limits,
            named_resources,
            types: Types::new()?,
            enabled_writes: vocabulary.enabled_writes.clone(),
            sources: vocabulary.sources.clone().unwrap_or_default(),
            remembered: RwLock::new(HashMap::new()),
            clock: Arc::new(SystemClock),
            utc_offset_seconds: 0,
            version,
        })
    }

    /// The same policies with another clock, and `hour` and `weekday` at an offset from UTC in seconds (east positive).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>, utc_offset_seconds: i32) -> Self {
        self.clock = clock;
        self.utc_offset_seconds = utc_offset_seconds.into();
        self
    }

    /// The load this set came from; belongs into every cache key.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Names of the rules that grant answers as they are (`@unredacted("true")`), sorted.
    pub fn unredacted_rules(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> =
            self.limits.iter().filter(|(_, l)| l.unredacted == Some(true)).map(|(id, _)| id.clone()).collect();
        names.sort();
        names
    }

    /// Whether `principal` could call `tool` with some arguments, and which rule says so. Listings ask this; it is also
    /// the first question of every call.
    pub fn decide_call(&self, principal: &Principal, tool: &ToolSpec) -> Decision {
        self.judge_listing(None, principal, tool).decision
    }

    /// Whether this call would be authorized now.
    pub fn decide_asked(&self, asked: &Asked<'_>) -> Decision {
        self.judge(asked).decision
    }

    /// Whether `principal` may call `tool` with these arguments, now.
    pub fn decide_arguments(&self, principal: &Principal, tool: &ToolSpec, arguments: &Map<String, Value>) -> Decision {
        self.judge(&Asked { principal, tool, arguments, product: None, reach: None }).decision
    }

    /// Whether `principal` may look this up, through a product where it came through one.
    pub fn decide_lookup(&self, product: Option<&Product>, principal: &Principal, lookup: &Lookup<'_>) -> Decision {
        self.judge_lookup(product, principal, lookup).decision
    }

    /// Whether `principal` could use something at all, and what it would be confined to then: for who it is, and through
    /// which product, whatever the arguments of a call.
    pub fn reach(&self, product: Option<&Product>, principal: &Principal, wanted: Wanted<'_>) -> Reach {
        let verdict = match wanted {
            Wanted::Tool(tool) => self.judge_listing(product, principal, tool),
            Wanted::Lookup(lookup) => self.judge_lookup(product, principal, &lookup),
        };
        let confined = |limits: &Limits| {
            let scope = limits.confine(&principal.scope);
            product.map_or_else(|| scope.clone(), |product| product.limits().confine(&scope))
        };
        let scopes = match &verdict.ways {
            Some(ways) => ways.iter().map(confined).collect(),
            None => vec![confined(&verdict.limits)],
        };
        Reach { decision: verdict.decision, scopes }
    }

    pub(crate) fn judge_listing(&self, product: Option<&Product>, principal: &Principal, tool: &ToolSpec) -> Verdict {
        match product {
            Some(product) if !product.is_for(principal) => return Verdict::refused(UNKNOWN_PRODUCT),
            Some(product) if !product.offers(tool.name.as_str()) => return Verdict::refused(NOT_IN_PRODUCT),
            _ => {}
        }
        match self.write_gate(tool) {
            Some(closed) => Verdict { decision: closed, limits: Arc::default(), ways: None },
            None => self.decide(principal, Act::Listing, &Thing::tool(tool), None),
        }
    }

    fn judge_lookup(&self, product: Option<&Product>, principal: &Principal, lookup: &Lookup<'_>) -> Verdict {
        match product {
            Some(product) if !product.is_for(principal) => return Verdict::refused(UNKNOWN_PRODUCT),
            Some(product) if !product.offers_lookup(lookup) => return Verdict::refused(NOT_IN_PRODUCT),
            _ => {}
        }
        match lookup.kind {
            LookupKind::Resource => self.judge_read(principal, lookup.name),
            LookupKind::Family => self.judge_family(principal, lookup.name),
            LookupKind::Prompt => self.decide(principal, Act::Prompt, &Thing::readable(lookup.name), None),
        }
    }

    /// The verdict on one address: on every way to read it. It must be allowed as it is written; a rule that refuses what
    /// comes out when it is decoded refuses it, and the limits of all that allow it hold.
    fn judge_read(&self, principal: &Principal, uri: &str) -> Verdict {
        let Ok(readings) = readings(uri) else { return Verdict::refused(ADDRESS_FORM) };
        let mut all: Option<Verdict> = None;
        for reading in &readings {
            let verdict = self.decide(principal, Act::Read, &Thing::readable(reading), None);
            let no_grant = !verdict.decision.allowed && *verdict.decision.rule == *NO_RULE;
            all = Some(match all {
                // A grant of an address that has to be encoded says nothing about it decoded.
                Some(first) if no_grant => first,
                _ if !verdict.decision.allowed => return verdict,
                None => verdict,
                Some(first) => Verdict { limits: Arc::new(first.limits.and(&verdict.limits)), ..first },
            });
        }
        all.unwrap_or_else(|| Verdict::refused(ADDRESS_FORM))
    }

    /// The verdict on a family: its own, or that on the first of its named members that may be read, with the limits that
    /// come with it. What may be read of one member is no more than the rule of that member gives.
    fn judge_family(&self, principal: &Principal, uri_template: &str) -> Verdict {
        let family = self.decide(principal, Act::Family, &Thing::readable(uri_template), None);
        if family.decision.allowed {
            return family;
        }
        let members = self.named_resources.iter().filter(|uri| is_member(uri_template, uri));
        let mut allowed = members.map(|uri| self.judge_read(principal, uri)).filter(|verdict| verdict.decision.allowed);
        let Some(first) = allowed.next() else { return family };
        let others = allowed.map(|verdict| Limits::clone(&verdict.limits));
        let ways = std::iter::once(Limits::clone(&first.limits)).chain(others).collect();
        Verdict { ways: Some(Arc::new(ways)), ..first }
    }

    /// Authorizes one call of one tool with its arguments.
    ///
    /// # Errors
    /// The rule that refused.
    pub fn authorize_call(
        &self,
        asked: Asked<'_>,
        deadline: Instant,
        budget: Budget,
        trace: TraceContext,
    ) -> Result<Permit, Refusal> {
        let purpose = Purpose::Call { tool: asked.tool.name.clone(), risk: asked.tool.risk };
        let permit = Self::issue(self.judge(&asked), purpose, asked.principal, deadline, budget, trace)?;
        Ok(asked.product.map_or(permit.clone(), |product| product.narrow(&permit)))
    }

    /// Authorizes a lookup, through a product where it came through one.
    ///
    /// # Errors
    /// The rule that refused.
    pub fn authorize_lookup(
        &self,
        product: Option<&Product>,
        (principal, lookup): (&Principal, &Lookup<'_>),
        deadline: Instant,
        budget: Budget,
        trace: TraceContext,
    ) -> Result<Permit, Refusal> {
        let purpose = Purpose::Lookup { what: Arc::from(lookup.purpose()) };
        let verdict = self.judge_lookup(product, principal, lookup);
        let permit = Self::issue(verdict, purpose, principal, deadline, budget, trace)?;
        Ok(product.map_or(permit.clone(), |product| product.narrow(&permit)))
    }

    /// Whether `principal` may do `operation`.
    pub fn decide_operation(&self, principal: &Principal, operation: Operation) -> Decision {
        self.decide(principal, Act::Administer, &Thing::operation(operation), None).decision
    }

    /// Authorizes one operation of an administrator.
    ///
    /// # Errors
    /// The rule that refused.
    pub fn authorize_operation(
        &self,
        principal: &Principal,
        operation: Operation,
        deadline: Instant,
        budget: Budget,
        trace: TraceContext,
    ) -> Result<Permit, Refusal> {
        let verdict = self.decide(principal, Act::Administer, &Thing::operation(operation), None);
        Self::issue(verdict, Purpose::Operation(operation), principal, deadline, budget, trace)
    }

    fn issue(
        verdict: Verdict,
        purpose: Purpose,
        principal: &Principal,
        deadline: Instant,
        budget: Budget,
        trace: TraceContext,
    ) -> Result<Permit, Refusal> {
        let Verdict { decision, limits, .. } = verdict;
        if decision.allowed {
            Ok(Permit::issue(purpose, principal.clone(), decision.rule, &limits, deadline, budget, trace))
        } else {
            Err(Refusal { rule: decision.rule })
        }
    }

    /// Makes the charter of one piece of standing work from the operator's configuration.
    ///
    /// # Errors
    /// When the name is not a valid purpose.
    pub fn charter(&self, grant: CharterGrant) -> Result<Charter, PolicyError> {
        let id = PrincipalId::new(format!("charter:{}", grant.name)).map_err(|_| PolicyError::Charter(grant.name.to_string()))?;
        let principal = Principal {
            id,
            credential: CredentialKind::Local,
            tenant: grant.scope.tenant.clone(),
            roles: BTreeSet::new(),
            doors: BTreeSet::new(),
            scope: grant.scope.clone(),
        };
        Ok(Charter::new(grant, principal))
    }

    /// What writes exists only where its category was enabled; what writes without a category cannot be enabled.
    pub(crate) fn write_gate(&self, tool: &ToolSpec) -> Option<Decision> {
        let open = match &tool.category {
            Some(category) => self.enabled_writes.contains(category),
            None => tool.risk == RiskClass::Read,
        };
        (!open).then(|| Decision::refused("write-gate"))
    }

    /// The whole judgement of one call.
    pub(crate) fn judge(&self, asked: &Asked<'_>) -> Verdict {
        let listed = self.judge_listing(asked.product, asked.principal, asked.tool);
        if !listed.decision.allowed {
            return Verdict { limits: Arc::default(), ways: None, ..listed };
        }
        let thing = Thing::tool(asked.tool);
        let given = Given { arguments: asked.arguments, reach: asked.reach };
        let verdict = self.decide(asked.principal, Act::Call, &thing, Some(given));
        if verdict.decision.allowed && !verdict.limits.projects.is_all() && !self.within_projects(asked, &verdict.limits) {
            return Verdict::refused("project-limit");
        }
        verdict
    }

    /// A call that could name a project must name one inside the limit; naming none would ask for all.
    fn within_projects(&self, asked: &Asked<'_>, limits: &Limits) -> bool {
        let takes_one = self
            .compiled
            .tools
            .get(asked.tool.name.as_str())
            .and_then(|set| set.shape.as_ref())
            .is_some_and(|shape| shape.arguments.contains_key("project"));
        match asked.arguments.get("project").and_then(Value::as_str) {
            Some(project) => limits.projects.contains(project),
            None => !takes_one,
        }
    }

    pub(crate) fn ruleset(&self, act: Act, name: &str) -> Option<&Ruleset> {
        match act {
            Act::Call | Act::Listing => self.compiled.tools.get(name),
            Act::Read | Act::Family => Some(&self.compiled.read),
            Act::Prompt => Some(&self.compiled.prompt),
            Act::Administer => Some(&self.compiled.operation),
        }
    }

    fn decide(&self, principal: &Principal, act: Act, thing: &Thing<'_>, arguments: Option<Given<'_>>) -> Verdict {
        let Some(rules) = self.ruleset(act, thing.name) else {
            return Verdict::refused("unchecked-tool");
        };
        // Where arguments do not matter, calling and listing are one question with one answer.
        let act = if act == Act::Call && !rules.needs_arguments { Act::Listing } else { act };
        if rules.needs_clock || act == Act::Call {
            return self.evaluate(principal, rules, act, thing, arguments);
        }
        let asked = Remembered {
            principal: principal.id.clone(),
            tenant: principal.tenant.clone(),
            kind: credential_word(&principal.credential),
            roles: principal.roles.iter().cloned().collect(),
            act,
            name: thing.name.to_owned(),
            risk: thing.risk,
            category: thing.category.to_owned(),
        };
        if let Some(known) = self.remembered.read().unwrap_or_else(PoisonError::into_inner).get(&asked) {
            return known.clone();
        }
        let verdict = self.evaluate(principal, rules, act, thing, None);
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(asked, verdict.clone());
        verdict
    }

    fn evaluate(
        &self,
        principal: &Principal,
        rules: &Ruleset,
        act: Act,
        thing: &Thing<'_>,
        arguments: Option<Given<'_>>,
    ) -> Verdict {
        let Some((request, entities)) = self.question(principal, rules, act, thing, arguments) else {
            return Verdict::refused("argument-type");
        };
        let set = match act {
            Act::Listing => rules.listing.as_ref().unwrap_or(&rules.call),
            Act::Family => rules.family.as_ref().unwrap_or(&rules.call),
            Act::Call | Act::Read | Act::Prompt | Act::Administer => &rules.call,
        };
        let (decision, mut applying) = self.ask(set, &request, &entities);
        if act == Act::Listing && rules.needs_arguments && &*decision.rule == POLICY_ERROR {
            // The call itself is decided with its arguments, and refused if the rule fails then too.
            let ways = Some(Arc::new(vec![Limits::default()]));
            return Verdict { decision: Decision { allowed: true, ..decision }, limits: Arc::default(), ways };
        }
        let mut ways = (act == Act::Listing && rules.needs_arguments).then(|| vec![Limits::default()]);
        if let (Act::Listing, true, Some(trials)) = (act, decision.allowed, &rules.trials) {
            match self.tried(trials, principal, rules, thing) {
                Ok(found) => ways = Some(found),
                Err(refusal) => return refusal,
            }
        }
        if let (true, Some(limiting)) = (decision.allowed, &rules.limiting) {
            let unknown_arguments = act == Act::Listing && rules.needs_arguments;
            if !unknown_arguments {
                let (limited, ids) = self.ask(limiting, &request, &entities);
                if &*limited.rule == POLICY_ERROR {
                    return Verdict::refused(POLICY_ERROR);
                }
                applying.extend(ids);
            }
        }
        let limits = applying.iter().filter_map(|id| self.limits.get(id)).fold(Limits::default(), |all, one| all.and(one));
        Verdict { decision, limits: Arc::new(limits), ways: ways.map(Arc::new) }
    }

    /// What the trials that are allowed would be confined to.
    ///
    /// # Errors
    /// The refusal of all of them.
    fn tried(
        &self,
        trials: &[Map<String, Value>],
        principal: &Principal,
        rules: &Ruleset,
        thing: &Thing<'_>,
    ) -> Result<Vec<Limits>, Verdict> {
        let (mut ways, mut refusal) = (Vec::new(), None);
        // A raw query may read no more than its window; what takes no window reads what it reads.
        let reach = rules.shape.as_ref().is_some_and(|shape| shape.takes_time).then_some(Duration::ZERO);
        for arguments in trials {
            let verdict = self.evaluate(principal, rules, Act::Call, thing, Some(Given { arguments, reach }));
            if verdict.decision.allowed {
                let limits = Limits::clone(&verdict.limits);
                let widest = limits.is_none();
                if !ways.contains(&limits) {
                    ways.push(limits);
                }
                if widest {
                    return Ok(ways);
                }
            } else {
                refusal.get_or_insert(verdict);
            }
        }
        match refusal {
            Some(refusal) if ways.is_empty() => Err(refusal),
            _ => Ok(ways),
        }
    }

    /// Asks one set; the second value is the rules that decided.
    pub(crate) fn ask(&self, set: &PolicySet, request: &Request, entities: &Entities) -> (Decision, Vec<Arc<str>>) {
        let response = self.authorizer.is_authorized(request, set, entities);
        let allowed = response.decision() == CedarDecision::Allow;
        // A rule that fails could have been the one that forbids: refuse.
        if response.diagnostics().errors().next().is_some() {
            return (Decision::refused(POLICY_ERROR), Vec::new());
        }
        let mut reasons: Vec<Arc<str>> = response
            .diagnostics()
            .reason()
            .filter_map(|id| self.compiled.by_id.get_key_value(AsRef::<str>::as_ref(id)).map(|(id, _)| id.clone()))
            .collect();
        reasons.sort();
        let rule = reasons.first().cloned().unwrap_or_else(|| Arc::from(NO_RULE));
        (Decision { allowed, rule }, reasons)
    }

    /// The question in Cedar's terms; `None` when an argument is not of the type the rules were checked against.
    pub(crate) fn question(
        &self,
        principal: &Principal,
        rules: &Ruleset,
        act: Act,
        thing: &Thing<'_>,
        arguments: Option<Given<'_>>,
    ) -> Option<(Request, Entities)> {
        let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
        let text = |s: &str| RestrictedExpression::new_string(s.to_owned());
        let (kind, action) = match act {
            Act::Call | Act::Listing => (&self.types.tool, &self.types.call),
            Act::Read | Act::Family => (&self.types.resource, &self.types.read),
            Act::Prompt => (&self.types.prompt, &self.types.prompt_action),
            Act::Administer => (&self.types.operation, &self.types.administer),
        };
        let who = uid(&self.types.principal, principal.id.as_str());
        let what = uid(kind, thing.name);
        let roles = principal.roles.iter().map(|r| uid(&self.types.role, r)).collect();
        let products = rules.products.iter().map(|p| uid(&self.types.product, p)).collect();
        let who_attributes =
            [("kind".into(), text(credential_word(&principal.credential))), ("tenant".into(), text(principal.tenant.as_str()))];
        let what_attributes =
            [("risk".into(), text(thing.risk)), ("category".into(), text(thing.category)), ("name".into(), text(thing.name))];
        let entities = Entities::from_entities(
            [
                Entity::new(who.clone(), who_attributes.into(), roles).ok()?,
                Entity::new(what.clone(), what_attributes.into(), products).ok()?,
            ],
            None,
        )
        .ok()?;
        let context = self.context(principal, rules, arguments)?;
        let request = Request::new(who, action.clone(), what, context, None).ok()?;
        Some((request, entities))
    }

    fn context(&self, principal: &Principal, rules: &Ruleset, arguments: Option<Given<'_>>) -> Option<Context> {
        let mut pairs = Vec::with_capacity(6);
        let now = self.clock.now();
        if rules.needs_clock {
            let (hour, weekday) = wall_clock(now, self.utc_offset_seconds);
            pairs.push(("now".to_owned(), RestrictedExpression::new_datetime(now.to_string())));
            pairs.push(("hour".to_owned(), RestrictedExpression::new_long(hour)));
            pairs.push(("weekday".to_owned(), RestrictedExpression::new_string(weekday.to_owned())));
        }
        if let (Some(given), Some(shape), true) = (arguments, &rules.shape, rules.needs_arguments) {
            let arguments = given.arguments;
            pairs.push(("arguments".to_owned(), shape.record(arguments).ok()?));
            if shape.looks_back {
                let seconds = shape.look_back(given, now);
                pairs.push(("look_back_seconds".to_owned(), RestrictedExpression::new_long(seconds)));
            }
            if shape.asks_sources {
                let reachable: BTreeSet<String> =
                    self.sources.iter().filter(|s| principal.scope.sources.contains(s)).cloned().collect();
                let asked = sources_asked(arguments, &reachable).into_iter().map(RestrictedExpression::new_string);
                pairs.push(("sources".to_owned(), RestrictedExpression::new_set(asked)));
            }
        }
        Context::from_pairs(pairs).ok()
    }
}

/// Hour of the day and day of the week at an offset from UTC.
fn wall_clock(now: Timestamp, offset_seconds: i64) -> (i64, &'static str) {
    let local = now.as_nanos().div_euclid(1_000_000_000).saturating_add(offset_seconds);
    let hour = local.rem_euclid(86_400) / 3_600;
    // The first day of the epoch was a Thursday, the fourth of the list.
    let day = (local.div_euclid(86_400) + 3).rem_euclid(7);
    let weekday = usize::try_from(day).ok().and_then(|d| WEEKDAYS.get(d)).copied().unwrap_or("monday");
    (hour, weekday)
}

/// Whether `uri` is a member of the family `template`, in which `{…}` stands for some text.
pub fn is_member(template: &str, uri: &str) -> bool {
    crate::limits::matches_pattern(&member_pattern(template), uri)
}

/// The pattern every member of a family fits.
pub(crate) fn member_pattern(template: &str) -> String {
    let mut pattern = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        pattern.push_str(before);
        pattern.push('*');
        rest = after.split_once('}').map_or("", |(_, tail)| tail);
    }
    pattern.push_str(rest);
    pattern
}
