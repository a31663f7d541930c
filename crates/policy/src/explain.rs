//! Why a call is allowed or refused: every rule about the tool, and whether it applies. For people who write rules.
//!
//! Slow on purpose, each rule alone. Must not be on the road of a call, and must never decide differently from it.

use std::time::Duration;

use cedar_policy::pst::{Effect, Policy as PstPolicy, StaticPolicy};
use cedar_policy::{Entities, Policy, PolicySet, Request};
use portcullis_model::{Principal, ToolSpec};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::Given;
use crate::engine::{Act, Asked, Policies, Thing};
use crate::limits::Limits;
use crate::rule::Rule;

/// One rule as it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleInfo {
    /// Its `@id`.
    pub id: String,
    /// File, or `built-in`.
    pub origin: String,
    /// Line of its `@id`, from 1; 0 when unknown.
    pub line: usize,
    /// `permit`, `forbid` or `limit`.
    pub effect: &'static str,
}

/// Whether a rule applies to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleOutcome {
    /// It does.
    Applies,
    /// It is about this tool, and not about this principal, these arguments or this time.
    DoesNotApply,
    /// It failed, so the call is refused.
    Failed,
    /// It depends on arguments that were not given.
    DependsOnArguments,
}

/// One rule and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleTrace {
    /// The rule.
    #[serde(flatten)]
    pub rule: RuleInfo,
    /// Whether it applies.
    pub outcome: RuleOutcome,
}

/// The whole answer.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Whether the call is allowed (with the arguments), or could be with some arguments (without).
    pub allowed: bool,
    /// The deciding rule.
    pub rule: String,
    /// What the call is confined to, when it is allowed.
    pub limits: Limits,
    /// Every rule that is about this tool, those that apply first.
    pub rules: Vec<RuleTrace>,
}

impl Policies {
    /// Every rule, the built-in ones first.
    pub fn rules(&self) -> impl Iterator<Item = RuleInfo> {
        self.compiled.rules.iter().map(info)
    }

    /// Whether `principal` may call `tool` with `arguments` (or could with any, without them), and what every rule says.
    /// `reach` is how far back whoever runs it says that they read; see [`Asked::reach`].
    pub fn explain(
        &self,
        principal: &Principal,
        tool: &ToolSpec,
        arguments: Option<&Map<String, Value>>,
        reach: Option<Duration>,
    ) -> Explanation {
        let given = arguments.map(|arguments| Given { arguments, reach });
        let (decision, limits) = match arguments {
            Some(arguments) => {
                let verdict = self.judge(&Asked { principal, tool, arguments, product: None, reach });
                (verdict.decision, Limits::clone(&verdict.limits))
            }
            None => (self.decide_call(principal, tool), Limits::default()),
        };
        let mut rules = self.traces(principal, tool, given);
        rules.sort_by_key(|trace| match trace.outcome {
            RuleOutcome::Failed => 0,
            RuleOutcome::Applies => 1,
            RuleOutcome::DependsOnArguments => 2,
            RuleOutcome::DoesNotApply => 3,
        });
        Explanation { allowed: decision.allowed, rule: decision.rule.to_string(), limits, rules }
    }

    fn traces(&self, principal: &Principal, tool: &ToolSpec, arguments: Option<Given<'_>>) -> Vec<RuleTrace> {
        let thing = Thing::tool(tool);
        let act = if arguments.is_some() { Act::Call } else { Act::Listing };
        let Some(set) = self.ruleset(act, thing.name) else { return Vec::new() };
        let Some((request, entities)) = self.question(principal, set, act, &thing, arguments) else { return Vec::new() };
        let here = set.call.policies().chain(set.limiting.iter().flat_map(PolicySet::policies));
        here.filter_map(|policy| {
            let index = self.compiled.by_id.get(AsRef::<str>::as_ref(policy.id()))?;
            let rule = self.compiled.rules.get(*index)?;
            let outcome = if arguments.is_none() && rule.uses.needs_arguments() {
                RuleOutcome::DependsOnArguments
            } else {
                self.alone(policy, &request, &entities)
            };
            Some(RuleTrace { rule: info(rule), outcome })
        })
        .collect()
    }

    /// Whether one rule applies, asked as if it were a grant and the only rule.
    fn alone(&self, policy: &Policy, request: &Request, entities: &Entities) -> RuleOutcome {
        let as_grant = || -> Option<PolicySet> {
            let Ok(PstPolicy::Static(fixed)) = policy.to_pst() else { return None };
            let mut body = fixed.body().clone();
            body.effect = Effect::Permit;
            let grant = Policy::from_pst(PstPolicy::Static(StaticPolicy::try_from(body).ok()?)).ok()?;
            let mut set = PolicySet::new();
            set.add(grant).ok()?;
            Some(set)
        };
        let Some(set) = as_grant() else { return RuleOutcome::Failed };
        let (decision, _) = self.ask(&set, request, entities);
        match (decision.allowed, &*decision.rule) {
            (true, _) => RuleOutcome::Applies,
            (false, "policy-error") => RuleOutcome::Failed,
            (false, _) => RuleOutcome::DoesNotApply,
        }
    }
}

fn info(rule: &Rule) -> RuleInfo {
    let effect = match (rule.only_limits, rule.effect) {
        (true, _) => "limit",
        (false, Effect::Permit) => "permit",
        (false, Effect::Forbid) => "forbid",
    };
    RuleInfo { id: rule.id.to_string(), origin: rule.origin.to_string(), line: rule.line, effect }
}

impl Policies {
    /// Whether decisions about calls of this tool depend on its arguments.
    pub fn depends_on_arguments(&self, tool: &str) -> bool {
        self.ruleset(Act::Call, tool).is_some_and(|set| set.needs_arguments)
    }
}
