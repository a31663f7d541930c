//! Rules as they are read from files: whom and what each is about, what it asks for, what it limits.
//!
//! Guards that every name in a rule exists. Must not decide anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use cedar_policy::pst::{
    ActionConstraint, Effect, EntityOrSlot, EntityType, EntityUID, Policy as PstPolicy, PrincipalConstraint, ResourceConstraint,
    StaticPolicy, Template,
};
use cedar_policy::{EntityUid, Policy, PolicyId, PolicySet};

use crate::error::PolicyError;
use crate::expression::Uses;
use crate::limits::Limits;
use crate::operations::Operation;
use crate::schema::ACTIONS;
use crate::vocabulary::{PolicyText, Vocabulary, did_you_mean};

/// Rule names the gate uses for itself; a policy of the same name would make audit records ambiguous.
const RESERVED: [&str; 20] = [
    "admission",
    "approval",
    "argument-schema",
    "argument-type",
    "catalogue",
    "charter",
    "default",
    "external-policy",
    "installation-wide",
    "no-rule-allows",
    "operation-approval",
    "own-catalogue",
    "policy-error",
    "product",
    "project-limit",
    "rate-limit",
    "unchecked-tool",
    "unlisted",
    "unknown-product",
    "write-gate",
];

/// What is acted upon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    Tool(String),
    Read,
    Prompt,
    Operation,
}

impl Target {
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Tool(_) => "call",
            Self::Read => "read",
            Self::Prompt => "prompt",
            Self::Operation => "administer",
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Tool(_) => "Tool",
            Self::Read => "Resource",
            Self::Prompt => "Prompt",
            Self::Operation => "Operation",
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tool(name) => write!(f, "tool '{name}'"),
            Self::Read => f.write_str("resources"),
            Self::Prompt => f.write_str("prompts"),
            Self::Operation => f.write_str("operations"),
        }
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) id: Arc<str>,
    pub(crate) origin: Arc<str>,
    /// Line of its `@id`, from 1; 0 when it was not found.
    pub(crate) line: usize,
    pub(crate) built_in: bool,
    pub(crate) effect: Effect,
    pub(crate) only_limits: bool,
    pub(crate) limits: Limits,
    pub(crate) uses: Uses,
    pub(crate) template: Template,
    pub(crate) original: Policy,
}

impl Rule {
    /// An error about this rule.
    pub(crate) fn invalid(&self, reason: impl Into<String>) -> PolicyError {
        PolicyError::Invalid {
            policy: self.id.to_string(),
            origin: self.origin.to_string(),
            line: self.line,
            reason: reason.into(),
        }
    }

    /// Whether it takes something away rather than granting it.
    pub(crate) fn tightens(&self) -> bool {
        self.effect == Effect::Forbid || self.only_limits
    }

    /// The one tool it is about, when its scope names one.
    pub(crate) fn pinned(&self) -> Option<&str> {
        match &self.template.resource {
            ResourceConstraint::Eq(EntityOrSlot::Entity(uid)) | ResourceConstraint::In(EntityOrSlot::Entity(uid))
                if uid.ty.0.id.as_str() == "Tool" =>
            {
                Some(uid.eid.as_str())
            }
            _ => None,
        }
    }

    /// Whether what it is about is not there yet and may come: a tool that is expected, or a product of such tools.
    pub(crate) fn waits(&self, vocabulary: &Vocabulary) -> bool {
        let empty_product = match &self.template.resource {
            ResourceConstraint::Eq(EntityOrSlot::Entity(uid))
            | ResourceConstraint::In(EntityOrSlot::Entity(uid))
            | ResourceConstraint::IsIn(_, EntityOrSlot::Entity(uid)) => {
                uid.ty.0.id.as_str() == "Product" && vocabulary.products.get(uid.eid.as_str()).is_some_and(BTreeSet::is_empty)
            }
            _ => false,
        };
        empty_product || self.pinned().is_some_and(|tool| vocabulary.expects(tool))
    }

    /// Whether its scope fits the target.
    pub(crate) fn is_about(&self, target: &Target, vocabulary: &Vocabulary) -> bool {
        let acts = match &self.template.action {
            // Whoever allows everything thinks of tools: administration is granted by its name or not at all. It is
            // forbidden with everything else, though.
            ActionConstraint::Any => self.template.effect == Effect::Forbid || *target != Target::Operation,
            ActionConstraint::Eq(action) => action.eid == target.action(),
            ActionConstraint::In(actions) => actions.iter().any(|a| a.eid == target.action()),
        };
        let of_type = |entity: &EntityType| entity.0.id.as_str() == target.kind();
        let is = |entity: &EntityOrSlot, target: &Target| match (entity, target) {
            (EntityOrSlot::Entity(uid), Target::Tool(name)) => match uid.ty.0.id.as_str() {
                "Tool" => uid.eid == name.as_str(),
                "Product" => vocabulary.products.get(uid.eid.as_str()).is_some_and(|tools| tools.contains(name)),
                _ => false,
            },
            (EntityOrSlot::Entity(uid), other) => uid.ty.0.id.as_str() == other.kind(),
            (EntityOrSlot::Slot(_), _) => false,
        };
        acts && match &self.template.resource {
            ResourceConstraint::Any => true,
            ResourceConstraint::Eq(entity) | ResourceConstraint::In(entity) => is(entity, target),
            ResourceConstraint::Is(kind) => of_type(kind),
            ResourceConstraint::IsIn(kind, entity) => of_type(kind) && is(entity, target),
        }
    }

    /// Whether everybody this rule speaks of is also spoken of by `other`.
    pub(crate) fn principals_within(&self, other: &Self) -> bool {
        match (&self.template.principal, &other.template.principal) {
            (_, PrincipalConstraint::Any | PrincipalConstraint::Is(_)) => true,
            (mine, theirs) => mine == theirs,
        }
    }

    /// The rule with other clauses, for one target: its scope no longer names action and tool, which are given.
    pub(crate) fn instance(
        &self,
        target: &Target,
        clauses: Vec<cedar_policy::pst::Clause>,
        effect: Effect,
    ) -> Result<Policy, PolicyError> {
        let resource = match target {
            Target::Tool(_) => ResourceConstraint::Any,
            Target::Read | Target::Prompt | Target::Operation => self.template.resource.clone(),
        };
        let action = ActionConstraint::Eq(action_uid(&self.template, target)?);
        let template = Template::new(self.template.id.clone(), effect, self.template.principal.clone(), action, resource);
        let made = template.try_with_clauses(clauses).map_err(|e| self.invalid(e.to_string()))?;
        let fixed = StaticPolicy::try_from(made).map_err(|e| self.invalid(e.to_string()))?;
        Policy::from_pst(PstPolicy::Static(fixed)).map_err(|e| self.invalid(e.to_string()))
    }
}

fn action_uid(template: &Template, target: &Target) -> Result<EntityUID, PolicyError> {
    use cedar_policy::pst::Name;
    let broken = |e: &dyn std::fmt::Display| PolicyError::BuiltIn(format!("{}: {e}", template.id));
    let name = Name::qualified(["Portcullis"], "Action").map_err(|e| broken(&e))?;
    Ok(EntityUID { ty: EntityType(name), eid: target.action().into() })
}

/// Reads one file. Errors are collected: an operator wants to see all of them.
pub(crate) fn read(text: &PolicyText, built_in: bool, vocabulary: &Vocabulary, errors: &mut Vec<PolicyError>) -> Vec<Rule> {
    let syntax = |reason: String| PolicyError::Syntax { origin: text.origin.clone(), reason };
    let parsed: PolicySet = match text.text.parse::<PolicySet>() {
        Ok(parsed) => parsed,
        Err(e) => {
            errors.push(syntax(e.to_string()));
            return Vec::new();
        }
    };
    if parsed.templates().next().is_some() {
        errors.push(syntax("templates are not supported; write the policy out".into()));
    }
    let origin: Arc<str> = Arc::from(text.origin.as_str());
    let mut rules = Vec::new();
    for policy in parsed.policies() {
        match read_rule(policy, &text.text, &origin, built_in, vocabulary) {
            Ok(rule) => rules.push(rule),
            Err(found) => errors.extend(found),
        }
    }
    rules
}

fn read_rule(
    policy: &Policy,
    source: &str,
    origin: &Arc<str>,
    built_in: bool,
    vocabulary: &Vocabulary,
) -> Result<Rule, Vec<PolicyError>> {
    let syntax = |reason: String| vec![PolicyError::Syntax { origin: origin.to_string(), reason }];
    let id = match policy.annotation("id").map(str::trim) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => return Err(syntax("a policy has no @id(\"…\") annotation; ids appear in audit records".into())),
    };
    let line = line_of(source, &id);
    let policy = policy.new_id(PolicyId::new(&id));
    let invalid = |reason: String| PolicyError::Invalid { policy: id.clone(), origin: origin.to_string(), line, reason };
    if RESERVED.contains(&id.as_str()) {
        return Err(vec![invalid(format!("'{id}' is a rule of the gate itself; choose another @id"))]);
    }
    let mut errors = Vec::new();
    for literal in policy.entity_literals() {
        if let Err(e) = check_name(&id, &literal, vocabulary) {
            errors.push(e);
        }
    }
    let template = match policy.to_pst() {
        Ok(PstPolicy::Static(fixed)) => fixed.body().clone(),
        Ok(_) => return Err(syntax("templates are not supported; write the policy out".into())),
        Err(e) => return Err(vec![invalid(e.to_string())]),
    };
    let limits = Limits::read(policy.annotations(), template.effect == Effect::Permit, vocabulary);
    let (limits, only_limits) = match limits {
        Ok(read) => read,
        Err(reason) => {
            errors.push(invalid(reason));
            (Limits::default(), false)
        }
    };
    let uses = Uses::of_clauses(template.clauses());
    if uses.whole {
        errors.push(invalid(
            "context cannot be compared as a whole; ask for one argument, such as context.arguments.service".into(),
        ));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let effect = template.effect;
    Ok(Rule {
        id: Arc::from(id.as_str()),
        origin: origin.clone(),
        line,
        built_in,
        effect,
        only_limits,
        limits,
        uses,
        template,
        original: policy,
    })
}

fn line_of(source: &str, id: &str) -> usize {
    let quoted = format!("\"{id}\"");
    let found = source.lines().position(|line| line.contains("@id") && line.contains(&quoted));
    found.map_or(0, |index| index + 1)
}

fn check_name(policy: &str, literal: &EntityUid, vocabulary: &Vocabulary) -> Result<(), PolicyError> {
    let name: &str = literal.id().unescaped();
    let (kind, known): (_, BTreeSet<&str>) = match literal.type_name().to_string().as_str() {
        "Portcullis::Tool" => ("tool", vocabulary.all_tools()),
        "Portcullis::Role" => ("role", vocabulary.all_roles()),
        "Portcullis::Product" => ("product", vocabulary.products.keys().map(String::as_str).collect()),
        "Portcullis::Action" => ("action", ACTIONS.into()),
        "Portcullis::Operation" => ("operation", Operation::ALL.map(Operation::as_str).into()),
        // Principals, resources and prompts come and go; other types are the schema's to refuse.
        _ => return Ok(()),
    };
    if known.contains(name) || (kind == "tool" && vocabulary.expects(name)) {
        return Ok(());
    }
    let suggestion = did_you_mean(name, known.iter().copied());
    Err(PolicyError::UnknownName { policy: policy.to_owned(), kind, name: name.to_owned(), suggestion })
}
