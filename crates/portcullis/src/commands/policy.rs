//! `portcullis policy`: check and explain the policies without a server. Decides by the same code as the gate, products,
//! tenants and confinement included; changes nothing. Tables are tried in `tables`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use portcullis_gateway::{Prospect, Wish};
use portcullis_model::{NameSet, Principal, ToolSpec, format_duration};
use portcullis_policy::{Confinement, Explanation, Limits, NOT_IN_PRODUCT, Product, RuleOutcome, UNKNOWN_PRODUCT};
use serde_json::{Map, Value, json};

use super::arguments;
use super::people::People;
use super::tables;
use crate::cli::{CheckArgs, ExplainArgs, PolicyAction};
use crate::rulebook::Rulebook;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis policy …`.
pub async fn run(config: &Config, action: PolicyAction) -> anyhow::Result<()> {
    match action {
        PolicyAction::Check(args) => check(config, &args).await,
        PolicyAction::Explain(args) => explain(config, args).await,
        PolicyAction::Test(args) => tables::test(config, &args).await,
        PolicyAction::DryRun(args) => tables::dry_run(config, args).await,
    }
}

/// The rules of these files, or of the configuration.
pub(super) async fn rulebook(config: &Config, files: &[PathBuf]) -> anyhow::Result<Rulebook> {
    Rulebook::open(config, if files.is_empty() { &config.policies } else { files }).await
}

async fn check(config: &Config, args: &CheckArgs) -> anyhow::Result<()> {
    let book = match rulebook(config, &args.files).await {
        Ok(book) => book,
        Err(error) if args.json => {
            say_json(&json!({"ok": false, "error": format!("{error:#}")}));
            bail!("the policies cannot be used");
        }
        Err(error) => return Err(error),
    };
    let product = book.product(args.product.as_deref())?;
    let rules: Vec<_> = book.policies().rules().collect();
    let products: Vec<&Arc<Product>> = book.products().all().collect();
    if args.json {
        let shown = products.iter().filter(|one| product.is_none_or(|name| **one.name() == *name));
        let shown: Vec<Value> = shown
            .map(|one| {
                json!({"name": &**one.name(), "tools": one.tools(), "roles": one.roles(), "tenants": one.tenants(),
                       "limits": one.limits()})
            })
            .collect();
        say_json(&json!({"ok": true, "rules": rules, "tools": book.tools.len(), "products": shown, "notes": book.notes}));
        return Ok(());
    }
    let rows = rules.iter().map(|r| {
        let place = if r.line == 0 { r.origin.clone() } else { format!("{}:{}", r.origin, r.line) };
        [r.id.clone(), r.effect.to_owned(), place]
    });
    say(table(["rule", "effect", "where"], rows));
    for one in products.iter().filter(|one| product.is_some_and(|name| **one.name() == *name)) {
        say_product(one);
    }
    say(format!("{}: {} rules fit the {} tools that exist", paint::good("good"), rules.len(), book.tools.len()));
    say_notes(&book.notes);
    Ok(())
}

fn say_product(product: &Product) {
    let tools: Vec<&str> = product.tools().iter().map(String::as_str).collect();
    say(format!("product {}: {}", paint::strong(product.name()), tools.join(" ")));
    let tenants: Vec<&str> = product.tenants().iter().map(portcullis_model::TenantId::as_str).collect();
    for (what, names) in [("roles", product.roles().join(" ")), ("tenants", tenants.join(" "))] {
        if !names.is_empty() {
            say(format!("  for {what} {names}"));
        }
    }
    let limits = limits_in_words(product.limits());
    if !limits.is_empty() {
        say(format!("  confines to: {limits}"));
    }
}

fn limits_in_words(limits: &Limits) -> String {
    let mut parts = Vec::new();
    if let Some(look_back) = limits.look_back {
        parts.push(format!("the last {}", format_duration(look_back)));
    }
    if let Some(rows) = limits.rows {
        parts.push(format!("{rows} rows per source"));
    }
    if let Some(bytes) = limits.bytes {
        parts.push(format!("{bytes} bytes per answer"));
    }
    let sets = [("sources", &limits.sources), ("services", &limits.services), ("namespaces", &limits.namespaces)];
    parts.extend(sets.into_iter().filter_map(|(kind, set)| names_in_words(kind, set)));
    parts.join(", ")
}

fn names_in_words(kind: &str, set: &NameSet) -> Option<String> {
    let names: Vec<&str> = set.names()?.iter().map(String::as_str).collect();
    Some(if names.is_empty() { format!("no {kind}") } else { format!("{kind} {}", names.join(" ")) })
}

/// What a call is confined to, as a person reads it.
pub(super) fn in_words(confinement: &Confinement) -> String {
    let Confinement { scope, projects, rows, answer_bytes, approval, unredacted_by, .. } = confinement;
    let mut parts = vec![format!("tenant {}", scope.tenant)];
    let sets =
        [("sources", &scope.sources), ("services", &scope.services), ("namespaces", &scope.namespaces), ("projects", projects)];
    parts.extend(sets.into_iter().filter_map(|(kind, set)| names_in_words(kind, set)));
    if let Some(look_back) = scope.look_back {
        parts.push(format!("the last {}", format_duration(look_back)));
    }
    parts.push(format!("{rows} rows per source"));
    parts.push(format!("{answer_bytes} bytes per answer"));
    if *approval {
        parts.push("with approval".into());
    }
    if let Some(rule) = unredacted_by {
        parts.push(format!("unredacted when asked for (rule {rule})"));
    }
    parts.join(", ")
}

/// All that calls may be confined to, as one text.
pub(super) fn ways_in_words(confinements: &[Confinement]) -> String {
    confinements.iter().map(in_words).collect::<Vec<_>>().join("; or ")
}

/// Why it is refused, where the name of the rule does not say it.
pub(super) fn reason(prospect: &Prospect, product: Option<&str>) -> Option<String> {
    match (&*prospect.rule, product) {
        (NOT_IN_PRODUCT, Some(product)) if !prospect.allowed => Some(format!("the product '{product}' leaves it out")),
        (UNKNOWN_PRODUCT, Some(product)) => {
            Some(format!("the product '{product}' is not for this principal, by its role or tenant: to it, it does not exist"))
        }
        ("write-gate", _) => Some("nothing that writes exists unless its category is under write.enable".to_owned()),
        _ => prospect.why.clone(),
    }
}

/// A misspelt argument would be explained as absent, which is another question. Where the schema may take others than it names,
/// the gate says whether it does.
pub(super) fn check_arguments(tool: &ToolSpec, arguments: &Map<String, Value>) -> anyhow::Result<()> {
    let named = |keyword: &str| tool.input_schema.get(keyword);
    let open = ["additionalProperties", "unevaluatedProperties"].iter().any(|k| named(k).is_some_and(|v| *v != false));
    if open || MORE_ARGUMENTS.iter().any(|keyword| named(keyword).is_some()) {
        return Ok(());
    }
    let known = named("properties").and_then(Value::as_object);
    match arguments.keys().find(|name| known.is_none_or(|k| !k.contains_key(*name))) {
        Some(unknown) => {
            let names: Vec<&str> = known.into_iter().flat_map(|k| k.keys().map(String::as_str)).collect();
            bail!("{} has no argument '{unknown}'; its arguments are {}", tool.name, names.join(", "))
        }
        None => Ok(()),
    }
}

/// Keywords of a schema under which there can be arguments that `properties` does not name.
const MORE_ARGUMENTS: [&str; 7] = ["patternProperties", "allOf", "anyOf", "oneOf", "if", "$ref", "dependentSchemas"];

/// Prints what the answer does not know.
pub(super) fn say_notes<'n>(notes: impl IntoIterator<Item = &'n String>) {
    for note in notes {
        say(paint::faint(&format!("note: {note}")));
    }
}

async fn explain(config: &Config, args: ExplainArgs) -> anyhow::Result<()> {
    let book = rulebook(config, &args.files).await?;
    let people = People::named(config, args.who.principal.as_deref().into_iter()).await?;
    let principal = people.find(&args.who)?;
    let product = book.product(args.product.as_deref())?;
    let notes = [people.notes(&principal), book.notes.clone()].concat();
    let Some(name) = &args.tool else {
        explain_all(&book, (&principal, product), &notes, args.json);
        return Ok(());
    };
    let tool = book.tool(name)?;
    let arguments = arguments::typed(&arguments::pairs(&args.arguments)?, Some(tool));
    check_arguments(tool, &arguments)?;
    let given = (args.no_args || !arguments.is_empty()).then_some(&arguments);
    let prospect = book.ask(&Wish { principal: &principal, product, tool: name, arguments: given });
    let reach = given.and_then(|given| book.reach_back(name, given));
    let alone = book.policies().explain(&principal, tool, given, reach);
    let why = reason(&prospect, product);
    let rules_alone = json!({"allowed": alone.allowed, "rule": alone.rule});
    let narrowed = alone.allowed && !prospect.allowed;
    let hint = narrowed.then(|| format!("the rules alone allow it, by rule {}", alone.rule));
    let limits = if prospect.allowed { alone.limits } else { Limits::default() };
    let explanation = Explanation { allowed: prospect.allowed, rule: prospect.rule.to_string(), limits, rules: alone.rules };
    if args.json {
        let mut value = serde_json::to_value(&explanation)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("tool".into(), json!(name));
            object.insert("principal".into(), json!(principal.id.as_str()));
            object.insert("roles".into(), json!(principal.roles));
            object.insert("tenant".into(), json!(principal.tenant));
            object.insert("product".into(), json!(product));
            object.insert("with_arguments".into(), json!(given.is_some()));
            object.insert("why".into(), json!(why));
            object.insert("rules_alone".into(), rules_alone);
            object.insert("confined_to".into(), json!(prospect.confinements));
            object.insert("notes".into(), json!(notes));
        }
        say_json(&value);
        return Ok(());
    }
    let depends = given.is_none() && book.policies().depends_on_arguments(name);
    say_explanation(&explanation, (name.as_str(), given.is_some()), [why, hint].into_iter().flatten());
    say_confinements(&prospect.confinements, depends);
    say_rules(&explanation);
    say_notes(&notes);
    Ok(())
}

fn say_explanation(explanation: &Explanation, (tool, with_arguments): (&str, bool), why: impl Iterator<Item = String>) {
    let verdict = match (explanation.allowed, with_arguments) {
        (true, true) => paint::good("allowed"),
        (true, false) => paint::good("listed"),
        (false, true) => paint::bad("refused"),
        (false, false) => paint::bad("not listed"),
    };
    let why: Vec<String> = why.collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
    say(format!("{tool}: {verdict} by rule {}{why}", paint::strong(&explanation.rule)));
}

fn say_confinements(confinements: &[Confinement], depends: bool) {
    match confinements {
        [] => {}
        [one] if depends => say(format!("confined to: {}, and by its arguments to less", in_words(one))),
        [one] => say(format!("confined to: {}", in_words(one))),
        several => {
            say("confined, by its arguments, to one of:");
            for one in several {
                say(format!("  {}", in_words(one)));
            }
        }
    }
}

fn say_rules(explanation: &Explanation) {
    let rows = explanation.rules.iter().map(|trace| {
        let outcome = match trace.outcome {
            RuleOutcome::Applies => paint::strong("applies"),
            RuleOutcome::DoesNotApply => paint::faint("does not apply"),
            RuleOutcome::Failed => paint::bad("failed"),
            RuleOutcome::DependsOnArguments => paint::warn("depends on the arguments"),
        };
        [trace.rule.id.clone(), trace.rule.effect.to_owned(), outcome, format!("{}:{}", trace.rule.origin, trace.rule.line)]
    });
    say(table(["rule", "effect", "", "where"], rows));
}

fn explain_all(book: &Rulebook, (principal, product): (&Principal, Option<&str>), notes: &[String], as_json: bool) {
    let ask = |tool: &Arc<ToolSpec>| book.ask(&Wish { principal, product, tool: tool.name.as_str(), arguments: None });
    let decided: Vec<(&Arc<ToolSpec>, Prospect)> = book.tools.iter().map(|tool| (tool, ask(tool))).collect();
    if as_json {
        let tools: Vec<Value> = decided
            .iter()
            .map(|(tool, prospect)| {
                json!({"tool": tool.name.as_str(), "listed": prospect.allowed, "rule": &*prospect.rule,
                       "why": reason(prospect, product), "confined_to": prospect.confinements,
                       "depends_on_arguments": book.policies().depends_on_arguments(tool.name.as_str())})
            })
            .collect();
        say_json(&json!({"principal": principal.id.as_str(), "roles": principal.roles, "tenant": principal.tenant,
                         "product": product, "tools": tools, "notes": notes}));
        return;
    }
    let rows = decided.iter().map(|(tool, prospect)| {
        let listed = if prospect.allowed { paint::good("listed") } else { paint::bad("not listed") };
        let depends = book.policies().depends_on_arguments(tool.name.as_str());
        let depends = if depends { "depends on the arguments" } else { "" };
        let about =
            if prospect.allowed { ways_in_words(&prospect.confinements) } else { reason(prospect, product).unwrap_or_default() };
        [tool.name.to_string(), listed, prospect.rule.to_string(), depends.to_owned(), about]
    });
    say(table(["tool", "", "rule", "", "confined to"], rows));
    say_notes(notes);
}
