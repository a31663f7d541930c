//! From files to something that can be asked: every rule checked against every target it is about, and one small set of
//! rules for each tool, for resources, for prompts and for operations.
//!
//! A set per tool lets the type checker see the tool's own arguments, and keeps a decision from walking rules about other
//! tools. Guards that a rule which can never match is an error. Must not decide anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::pst::{Clause, Effect, ResourceConstraint};
use cedar_policy::{EntityUid, Policy, PolicySet, ValidationMode, ValidationWarning, Validator};
use portcullis_model::PrincipalId;
use serde_json::{Map, Value};

use crate::BUILT_IN_POLICIES;
use crate::address::usual_address;
use crate::arguments::{ArgumentKind, ToolShape};
use crate::check::{Ground, contradiction, foreign_words};
use crate::engine::is_member;
use crate::error::PolicyError;
use crate::expression::{Purpose, Rewriter};
use crate::facts::never;
use crate::rule::{Rule, Target, read};
use crate::schema;
use crate::vocabulary::{PolicyText, Vocabulary, did_you_mean};
use crate::witness::trials;

/// Attributes of the context there are.
const CONTEXT: [&str; 6] = ["now", "hour", "weekday", "look_back_seconds", "sources", "arguments"];

/// The rules of one target.
#[derive(Default)]
pub(crate) struct Ruleset {
    /// Decides a call with its arguments.
    pub(crate) call: PolicySet,
    /// Decides whether any arguments could be allowed; absent when arguments do not matter.
    pub(crate) listing: Option<PolicySet>,
    /// Decides whether any member of a family of resources could be allowed.
    pub(crate) family: Option<PolicySet>,
    /// Rules that only limit.
    pub(crate) limiting: Option<PolicySet>,
    /// Calls to try, such that if any call could be allowed, one of them is; absent when there is no such set.
    pub(crate) trials: Option<Vec<Map<String, Value>>>,
    pub(crate) shape: Option<ToolShape>,
    /// Products the tool is in.
    pub(crate) products: BTreeSet<String>,
    pub(crate) needs_clock: bool,
    pub(crate) needs_arguments: bool,
}

/// Everything that was loaded.
pub(crate) struct Compiled {
    pub(crate) rules: Vec<Rule>,
    pub(crate) by_id: HashMap<Arc<str>, usize>,
    pub(crate) tools: HashMap<String, Ruleset>,
    pub(crate) read: Ruleset,
    pub(crate) prompt: Ruleset,
    pub(crate) operation: Ruleset,
}

/// Reads and checks everything.
pub(crate) fn compile(texts: &[PolicyText], vocabulary: &Vocabulary) -> Result<Compiled, PolicyError> {
    let mut errors = Vec::new();
    let own = PolicyText { origin: "built-in".into(), text: BUILT_IN_POLICIES.into() };
    let mut rules = read(&own, true, vocabulary, &mut errors);
    for text in texts {
        rules.extend(read(text, false, vocabulary, &mut errors));
    }
    let mut by_id = HashMap::new();
    for (index, rule) in rules.iter().enumerate() {
        if by_id.insert(rule.id.clone(), index).is_some() {
            errors.push(PolicyError::DuplicateId(rule.id.to_string()));
        }
    }
    if !errors.is_empty() {
        return Err(PolicyError::of(errors));
    }
    let mut workshop = Workshop::new(vocabulary)?;
    for rule in &rules {
        if let Err(error) = workshop.add(rule) {
            errors.push(error);
        }
    }
    workshop.dead_grants(&rules, &mut errors);
    if !errors.is_empty() {
        return Err(PolicyError::of(errors));
    }
    let Finished { tools, read, prompt, operation } = workshop.finish()?;
    Ok(Compiled { rules, by_id, tools, read, prompt, operation })
}

/// An address of the house is asked for in its usual spelling only: a rule about another one never applies.
fn check_addresses(rule: &Rule, vocabulary: &Vocabulary) -> Result<(), PolicyError> {
    for uid in rule.original.entity_literals() {
        let uri = uid.id().unescaped();
        check_lookup(rule, &uid, vocabulary)?;
        let of_house = uri.starts_with("portcullis:") && uid.type_name().to_string() == "Portcullis::Resource";
        if !of_house || uri.contains('{') {
            continue;
        }
        match usual_address(uri) {
            Ok(usual) if usual == uri => {}
            Ok(usual) => {
                return Err(rule.invalid(format!("resource '{uri}' is never asked for in this spelling; write it as '{usual}'")));
            }
            Err(fault) => return Err(rule.invalid(format!("resource '{uri}' is never asked for: {fault}"))),
        }
    }
    Ok(())
}

/// A prompt, or a resource of the house, must be there, where nobody else can bring it.
fn check_lookup(rule: &Rule, uid: &EntityUid, vocabulary: &Vocabulary) -> Result<(), PolicyError> {
    let name = uid.id().unescaped();
    let (kind, known) = match uid.type_name().to_string().as_str() {
        "Portcullis::Prompt" => ("prompt", vocabulary.prompts.as_ref()),
        "Portcullis::Resource" if name.starts_with("portcullis:") => ("resource", vocabulary.addresses.as_ref()),
        _ => return Ok(()),
    };
    let Some(known) = known else { return Ok(()) };
    let member = |template: &String| kind == "resource" && is_member(template, name);
    if known.contains(name) || known.iter().any(member) {
        return Ok(());
    }
    let suggestion = did_you_mean(name, known.iter().map(String::as_str));
    let list = if known.is_empty() { "none".to_owned() } else { known.iter().cloned().collect::<Vec<_>>().join(", ") };
    Err(rule.invalid(format!("it can never match: there is no {kind} '{}'{suggestion} ({kind}s: {list})", name.escape_debug())))
}

/// How the id of whoever can come in begins: by what it was proven with.
const PRINCIPALS: [&str; 5] = ["key:", "user:", "cert:", "token:", "local:"];

/// Whom a rule names must be somebody's id: with a wrong beginning, a refusal would be nobody's.
fn check_principals(rule: &Rule) -> Result<(), PolicyError> {
    for uid in rule.original.entity_literals() {
        let id = uid.id().unescaped();
        let begins = PRINCIPALS.iter().any(|kind| id.strip_prefix(kind).is_some_and(|name| !name.is_empty()));
        let possible = id == "anonymous" || (begins && PrincipalId::new(id).is_ok());
        if uid.type_name().to_string() == "Portcullis::Principal" && !possible {
            return Err(rule.invalid(format!(
                "it can never match: '{}' is nobody's id; ids are key:ID, user:NAME, cert:RULE, token:ISSUER/SUBJECT, local:USER \
                 and anonymous",
                id.escape_debug()
            )));
        }
    }
    Ok(())
}

/// One target while its rules are gathered.
struct Bench {
    target: Target,
    set: Ruleset,
    listing: PolicySet,
    family: PolicySet,
    limiting: PolicySet,
    /// Conditions of the rules that decide.
    clauses: Vec<Clause>,
    validator: Option<Validator>,
    /// Rules that can match here, by id.
    live: BTreeSet<Arc<str>>,
}

/// The sets of all targets.
struct Finished {
    tools: HashMap<String, Ruleset>,
    read: Ruleset,
    prompt: Ruleset,
    operation: Ruleset,
}

struct Workshop<'a> {
    vocabulary: &'a Vocabulary,
    benches: Vec<Bench>,
    general: Validator,
}

impl<'a> Workshop<'a> {
    fn new(vocabulary: &'a Vocabulary) -> Result<Self, PolicyError> {
        let tools = vocabulary.all_tools().into_iter().map(|name| {
            let shape = vocabulary.spec(name).map(|s| ToolShape::of(s, vocabulary.sources.is_some())).unwrap_or_default();
            let products = vocabulary.products.iter().filter(|(_, t)| t.contains(name)).map(|(p, _)| p.clone()).collect();
            (Target::Tool(name.to_owned()), Ruleset { shape: Some(shape), products, ..Ruleset::default() })
        });
        let others = [Target::Read, Target::Prompt, Target::Operation].map(|t| (t, Ruleset::default()));
        let benches = tools.chain(others).map(|(target, set)| Bench {
            target,
            set,
            listing: PolicySet::new(),
            family: PolicySet::new(),
            limiting: PolicySet::new(),
            clauses: Vec::new(),
            validator: None,
            live: BTreeSet::new(),
        });
        let general = Validator::new(schema::general().map_err(PolicyError::BuiltIn)?);
        Ok(Self { vocabulary, benches: benches.collect(), general })
    }

    fn add(&mut self, rule: &Rule) -> Result<(), PolicyError> {
        check_addresses(rule, self.vocabulary)?;
        check_principals(rule)?;
        let about: Vec<usize> =
            (0..self.benches.len()).filter(|i| rule.is_about(&self.benches[*i].target, self.vocabulary)).collect();
        if about.is_empty() {
            let nothing_known = self.vocabulary.all_tools().is_empty();
            let waits = rule.waits(self.vocabulary);
            return if nothing_known || waits { Ok(()) } else { Err(rule.invalid(Self::about_nothing(rule))) };
        }
        if !rule.uses.any_context() {
            validate(&self.general, rule, rule.original.clone(), None)?
                .map_or(Ok(()), |never| Err(rule.invalid(format!("it can never match: {never}"))))?;
        }
        self.check_names_of_arguments(rule, &about)?;
        self.check_words(rule, &about)?;
        let mut reasons = BTreeSet::new();
        for index in &about {
            let bench = &mut self.benches[*index];
            // Asked beside, and not instead: what a tool does today says whether a rule makes sense, and nothing more.
            let today = if rule.built_in { None } else { never(rule, &bench.target, self.vocabulary) };
            match (today, bench.add(rule, self.vocabulary)?) {
                (None, None) => {
                    bench.live.insert(rule.id.clone());
                }
                (Some(never), _) => {
                    reasons.insert((never.elsewhere, never.reason));
                }
                (None, Some(reason)) => {
                    reasons.insert((false, reason));
                }
            }
        }
        let alive = about.iter().any(|i| self.benches[*i].live.contains(&rule.id));
        match reasons.into_iter().next() {
            Some(_) if alive || self.names_what_may_come(rule) => Ok(()),
            Some((true, _)) => Err(rule.invalid(
                "it can never match: nothing is what its scope and all its conditions name; name one thing, or several with \
                 [..].contains(resource)",
            )),
            Some((false, reason)) => Err(rule.invalid(format!("it can never match: {reason}"))),
            None => Ok(()),
        }
    }

    /// Whether a rule speaks of a tool that is not there yet.
    fn names_what_may_come(&self, rule: &Rule) -> bool {
        let tool = |uid: &EntityUid| uid.type_name().to_string() == "Portcullis::Tool";
        rule.original.entity_literals().iter().any(|uid| tool(uid) && self.vocabulary.expects(uid.id().unescaped()))
    }

    fn about_nothing(rule: &Rule) -> String {
        let scope = format!("action {} and resource {}", rule.template.action, rule.template.resource);
        format!(
            "it can never match: no tool, resource, prompt or operation fits its scope ({scope}); tools are called, resources read, prompts fetched by \"prompt\", operations done by \"administer\""
        )
    }

    /// Arguments and attributes of the context must exist somewhere the rule is about.
    fn check_names_of_arguments(&self, rule: &Rule, about: &[usize]) -> Result<(), PolicyError> {
        let shapes: Vec<&ToolShape> = about.iter().filter_map(|i| self.benches[*i].set.shape.as_ref()).collect();
        for name in &rule.uses.context {
            if !CONTEXT.contains(&name.as_str()) {
                return Err(rule.invalid(format!(
                    "context has no attribute '{name}'{} (it has {}); arguments are under context.arguments",
                    did_you_mean(name, CONTEXT),
                    CONTEXT.join(", ")
                )));
            }
            let absent = match name.as_str() {
                "look_back_seconds" => !shapes.iter().any(|s| s.looks_back),
                "sources" => !shapes.iter().any(|s| s.asks_sources),
                _ => false,
            };
            if absent {
                let lacking = if name == "sources" { "a source" } else { "a window of time" };
                return Err(rule.invalid(format!("context.{name} is never there: nothing this rule is about takes {lacking}")));
            }
        }
        for name in rule.uses.arguments.iter().chain(&rule.uses.guarded) {
            let having: Vec<&ToolShape> = shapes.iter().copied().filter(|s| s.arguments.contains_key(name)).collect();
            if having.is_empty() {
                let known: BTreeSet<&str> = shapes.iter().flat_map(|s| s.arguments.keys().map(String::as_str)).collect();
                let who =
                    rule.pinned().map_or_else(|| "no tool this rule is about".to_owned(), |t| format!("tool '{t}' does not"));
                let has = if rule.pinned().is_some() { "have" } else { "has" };
                let suggestion = did_you_mean(name, known.iter().copied());
                let list = if known.is_empty() { "none".to_owned() } else { known.into_iter().collect::<Vec<_>>().join(", ") };
                return Err(rule.invalid(format!("{who} {has} an argument '{name}'{suggestion} (arguments: {list})")));
            }
            let opaque = having.iter().all(|s| s.arguments[name].kind == ArgumentKind::Opaque);
            if opaque && rule.uses.arguments.contains(name) {
                return Err(rule.invalid(format!(
                    "argument '{name}' is {}; a rule can only ask whether it is there: context.arguments has {name}",
                    ArgumentKind::Opaque.describe()
                )));
            }
        }
        Ok(())
    }

    /// A word must be possible somewhere the rule is about.
    fn check_words(&self, rule: &Rule, about: &[usize]) -> Result<(), PolicyError> {
        if rule.built_in {
            // They speak of categories that a catalogue may or may not have.
            return Ok(());
        }
        let mut foreign: BTreeMap<(String, String), (usize, String)> = BTreeMap::new();
        for index in about {
            let bench = &self.benches[*index];
            let ground = Ground { vocabulary: self.vocabulary, shape: bench.set.shape.as_ref() };
            for (key, message) in foreign_words(rule.template.clauses(), ground) {
                foreign.entry(key).or_insert((0, message)).0 += 1;
            }
        }
        for ((path, _), (count, message)) in foreign {
            let having = about.iter().filter(|i| self.benches[**i].has(&path)).count();
            if count >= having {
                return Err(rule.invalid(message));
            }
        }
        Ok(())
    }

    /// A grant that an unconditional refusal covers wherever it could match.
    fn dead_grants(&self, rules: &[Rule], errors: &mut Vec<PolicyError>) {
        let absolute: Vec<&Rule> =
            rules.iter().filter(|r| r.effect == Effect::Forbid && r.template.clauses().is_empty()).collect();
        if absolute.is_empty() {
            return;
        }
        for rule in rules.iter().filter(|r| r.effect == Effect::Permit && !r.built_in) {
            let live: Vec<&Bench> = self.benches.iter().filter(|b| b.live.contains(&rule.id)).collect();
            let killer = |bench: &&Bench| {
                absolute
                    .iter()
                    .find(|f| bench.live.contains(&f.id) && rule.principals_within(f) && covers(f, rule, &bench.target))
            };
            if let Some(first) = live.first().and_then(killer)
                && live.iter().all(|b| killer(b).is_some())
            {
                errors.push(rule.invalid(format!(
                    "it can never match: rule '{}' forbids the same without any condition, and a forbid wins",
                    first.id
                )));
            }
        }
    }

    fn finish(self) -> Result<Finished, PolicyError> {
        let (mut tools, mut read, mut prompt, mut operation) = (HashMap::new(), None, None, None);
        for bench in self.benches {
            let Bench { target, mut set, listing, family, limiting, clauses, .. } = bench;
            set.listing = set.needs_arguments.then_some(listing);
            if let (true, Some(shape)) = (set.needs_arguments, &set.shape) {
                let nothing = BTreeSet::new();
                set.trials = trials(&clauses, shape, self.vocabulary.sources.as_ref().unwrap_or(&nothing));
            }
            set.limiting = (!limiting.is_empty()).then_some(limiting);
            match target {
                Target::Tool(name) => drop(tools.insert(name, set)),
                Target::Read => {
                    set.family = Some(family);
                    read = Some(set);
                }
                Target::Prompt => prompt = Some(set),
                Target::Operation => operation = Some(set),
            }
        }
        match (read, prompt, operation) {
            (Some(read), Some(prompt), Some(operation)) => Ok(Finished { tools, read, prompt, operation }),
            _ => Err(PolicyError::BuiltIn("resources, prompts or operations have no rules".into())),
        }
    }
}

/// Whether the refusal is about every resource the grant is about, within one target.
fn covers(refusal: &Rule, grant: &Rule, target: &Target) -> bool {
    match (target, &refusal.template.resource) {
        // Both are about this tool.
        (Target::Tool(_), _) | (_, ResourceConstraint::Any | ResourceConstraint::Is(_)) => true,
        (_, resource) => *resource == grant.template.resource,
    }
}

impl Bench {
    /// Whether the attribute at `path` exists here.
    fn has(&self, path: &str) -> bool {
        let shape = self.set.shape.as_ref();
        match path.strip_prefix("context.arguments.") {
            Some(name) => shape.is_some_and(|s| s.arguments.contains_key(name)),
            None if path == "context.sources" => shape.is_some_and(|s| s.asks_sources),
            None => true,
        }
    }

    /// Adds a rule. `Some(reason)` when it can never match here.
    fn add(&mut self, rule: &Rule, vocabulary: &Vocabulary) -> Result<Option<String>, PolicyError> {
        let ground = Ground { vocabulary, shape: self.set.shape.as_ref() };
        if let Some(reason) = contradiction(rule, ground) {
            return Ok(Some(reason));
        }
        let rewritten = |purpose| {
            let rewriter =
                Rewriter { shape: self.set.shape.as_ref(), guarded: &rule.uses.guarded, tightens: rule.tightens(), purpose };
            rule.instance(&self.target, rewriter.clauses(rule.template.clauses()), rule.effect)
        };
        let call = rewritten(Purpose::Call)?;
        let listing = rewritten(Purpose::Listing)?;
        let family = if self.target == Target::Read { Some(rewritten(Purpose::Family)?) } else { None };
        if rule.uses.any_context() {
            if self.validator.is_none() {
                let made = schema::schema(self.target.action(), self.set.shape.as_ref()).map_err(PolicyError::BuiltIn)?;
                self.validator = Some(Validator::new(made));
            }
            if let Some(validator) = &self.validator
                && let Some(never) = validate(validator, rule, call.clone(), Some(&self.target))?
            {
                return Ok(Some(never));
            }
        }
        let clauses = rule.template.clauses();
        let broken = |e: cedar_policy::PolicySetError| rule.invalid(e.to_string());
        self.set.needs_clock |= rule.uses.needs_clock();
        self.set.needs_arguments |= rule.uses.needs_arguments() && !clauses.is_empty() && self.set.shape.is_some();
        if rule.only_limits {
            self.limiting.add(call).map_err(broken)?;
            return Ok(None);
        }
        self.clauses.extend_from_slice(clauses);
        self.set.call.add(call).map_err(broken)?;
        self.listing.add(listing).map_err(broken)?;
        if let Some(family) = family.and_then(|f| as_family(f, rule)) {
            self.family.add(family).map_err(broken)?;
        }
        Ok(None)
    }
}

/// The rule as it stands for a family of resources: one that refuses a single resource does not refuse the family, and
/// one that grants a single resource grants it where the resource is a member (see `Policies::judge_family`).
fn as_family(policy: Policy, rule: &Rule) -> Option<Policy> {
    let single =
        matches!(rule.template.resource, ResourceConstraint::Eq(_) | ResourceConstraint::In(_) | ResourceConstraint::IsIn(..));
    (!single).then_some(policy)
}

/// Checks types. `Some(reason)` when the rule can never match.
fn validate(validator: &Validator, rule: &Rule, policy: Policy, target: Option<&Target>) -> Result<Option<String>, PolicyError> {
    let mut set = PolicySet::new();
    set.add(policy).map_err(|e| rule.invalid(e.to_string()))?;
    let checked = validator.validate(&set, ValidationMode::Strict);
    let place = target.map(|t| format!("for {t}: ")).unwrap_or_default();
    let own_words = |text: String| {
        let prefix = format!("for policy `{}`, ", rule.id);
        text.strip_prefix(&prefix).map_or(text.clone(), str::to_owned)
    };
    let errors: Vec<String> = checked.validation_errors().map(|e| own_words(e.to_string())).collect();
    if !errors.is_empty() {
        return Err(rule.invalid(format!("{place}{}", errors.join("; "))));
    }
    let mut never = None;
    for warning in checked.validation_warnings() {
        match warning {
            ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_) => {
                never = Some(format!("{place}its conditions are false whatever the call"));
            }
            // Look-alike letters and hidden direction marks: what a reader sees is not what is compared.
            other => return Err(rule.invalid(own_words(other.to_string()))),
        }
    }
    Ok(never)
}
