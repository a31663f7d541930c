//! `portcullis policy`: check, explain and try the policies without a server. Decides by the same rules and the same code
//! as the gate; changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_audit::{AuditFilter, EventKind, query};
use portcullis_identity::{local_principal, local_user};
use portcullis_model::{Clock, Principal, PrincipalId, SystemClock, TenantId, ToolSpec, format_duration, parse_instant};
use portcullis_policy::{Decision, Explanation, RuleOutcome};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::call::read_arguments;
use crate::cli::{DryRunArgs, ExplainArgs, PolicyAction, WhoArgs};
use crate::house::{Foundations, Rulebook, audit_directory, known_roles};
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Largest table of expectations or calls that is read.
const LARGEST_TABLE: u64 = 16 << 20;

/// Runs `portcullis policy …`.
pub async fn run(config: &Config, action: PolicyAction) -> anyhow::Result<()> {
    match action {
        PolicyAction::Check { files, json } => check(config, &files, json),
        PolicyAction::Explain(args) => explain(config, args).await,
        PolicyAction::Test { table, files, json } => test(config, &table, &files, json).await,
        PolicyAction::DryRun(args) => dry_run(config, args).await,
    }
}

fn rulebook(config: &Config, files: &[PathBuf]) -> anyhow::Result<Rulebook> {
    Rulebook::open(config, if files.is_empty() { &config.policies } else { files })
}

fn check(config: &Config, files: &[PathBuf], as_json: bool) -> anyhow::Result<()> {
    let book = match rulebook(config, files) {
        Ok(book) => book,
        Err(error) if as_json => {
            say_json(&json!({"ok": false, "error": format!("{error:#}")}));
            bail!("the policies cannot be used");
        }
        Err(error) => return Err(error),
    };
    let rules: Vec<_> = book.policies.rules().collect();
    if as_json {
        say_json(&json!({"ok": true, "rules": rules, "tools": book.tools.len()}));
        return Ok(());
    }
    let rows = rules.iter().map(|r| {
        let place = if r.line == 0 { r.origin.clone() } else { format!("{}:{}", r.origin, r.line) };
        [r.id.clone(), r.effect.to_owned(), place]
    });
    say(table(["rule", "effect", "where"], rows));
    say(format!("{}: {} rules fit the {} tools that exist", paint::good("good"), rules.len(), book.tools.len()));
    Ok(())
}

/// The principals that tables and options speak of: keys, local users, roles.
pub struct People {
    known: BTreeMap<String, Principal>,
    roles: Vec<String>,
    local_role: String,
}

impl People {
    /// Reads the keys.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let foundations = Foundations::open(config).await?;
        let keys = foundations.keys.list().await;
        foundations.close().await;
        let mut known = BTreeMap::new();
        for record in keys? {
            let id = PrincipalId::new(format!("key:{}", record.id))?;
            let principal = Principal {
                id: id.clone(),
                credential: portcullis_model::CredentialKind::ApiKey { id: record.id.clone() },
                tenant: record.tenant.clone(),
                roles: record.roles.clone(),
                doors: record.doors.iter().map(|d| Arc::from(d.as_str())).collect(),
                scope: record.scope(),
            };
            known.insert(id.to_string(), principal);
        }
        Ok(Self::of(config, known))
    }

    /// Roles and local users only.
    pub fn without_keys(config: &Config) -> Self {
        Self::of(config, BTreeMap::new())
    }

    fn of(config: &Config, known: BTreeMap<String, Principal>) -> Self {
        let roles = known_roles(config).into_iter().chain(["anonymous".to_owned()]).collect();
        Self { known, roles, local_role: config.stdio.role.clone() }
    }

    /// Every key's principal.
    pub fn keys(&self) -> impl Iterator<Item = &Principal> {
        self.known.values()
    }

    /// Every role there is.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// Somebody with this role and nothing else.
    pub fn with_role(&self, role: &str) -> anyhow::Result<Principal> {
        self.find(&WhoArgs { role: vec![role.to_owned()], principal: None, tenant: None })
    }

    /// The principal that was asked for.
    pub fn find(&self, who: &WhoArgs) -> anyhow::Result<Principal> {
        if let Some(unknown) = who.role.iter().find(|r| !self.roles.contains(r)) {
            bail!("there is no role '{unknown}'; roles are {}", self.roles.join(", "));
        }
        let mut principal = match &who.principal {
            Some(id) => self.by_id(id, !who.role.is_empty())?,
            None if who.role.is_empty() => local_principal(&local_user(), &self.local_role)?,
            None => Principal { id: PrincipalId::new("role")?, ..local_principal("role", &self.local_role)? },
        };
        if !who.role.is_empty() {
            principal.roles = who.role.iter().map(|r| Arc::from(r.as_str())).collect();
        }
        if let Some(tenant) = &who.tenant {
            principal.tenant = TenantId::new(tenant)?;
            principal.scope.tenant = principal.tenant.clone();
        }
        Ok(principal)
    }

    fn by_id(&self, id: &str, roles_given: bool) -> anyhow::Result<Principal> {
        if let Some(known) = self.known.get(id) {
            return Ok(known.clone());
        }
        if let Some(user) = id.strip_prefix("local:") {
            return Ok(local_principal(user, &self.local_role)?);
        }
        if !roles_given {
            bail!(
                "nothing is known about '{id}'; name its roles with --role, or a key as key:ID (`portcullis key list` shows them)"
            );
        }
        Ok(Principal { id: PrincipalId::new(id)?, ..local_principal("somebody", &self.local_role)? })
    }
}

/// Keys are read only when one is spoken of: explaining a role needs no data directory.
async fn people<'a>(config: &Config, mut named: impl Iterator<Item = &'a str>) -> anyhow::Result<People> {
    if named.any(|id| id.starts_with("key:")) { People::open(config).await } else { Ok(People::without_keys(config)) }
}

async fn explain(config: &Config, args: ExplainArgs) -> anyhow::Result<()> {
    let book = rulebook(config, &args.files)?;
    let principal = people(config, args.who.principal.as_deref().into_iter()).await?.find(&args.who)?;
    let Some(name) = &args.tool else {
        explain_all(&book, &principal, args.json);
        return Ok(());
    };
    let tool = book.tool(name)?;
    let arguments = read_arguments(&args.arguments)?;
    check_arguments(tool, &arguments)?;
    let given = (args.no_args || !arguments.is_empty()).then_some(&arguments);
    let explanation = book.policies.explain(&principal, tool, given);
    if args.json {
        let mut value = serde_json::to_value(&explanation)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("tool".into(), json!(name));
            object.insert("principal".into(), json!(principal.id.as_str()));
            object.insert("roles".into(), json!(principal.roles));
            object.insert("with_arguments".into(), json!(given.is_some()));
        }
        say_json(&value);
        return Ok(());
    }
    say_explanation(&explanation, name, given.is_some());
    Ok(())
}

/// A misspelt argument would be explained as absent, which is another question.
fn check_arguments(tool: &ToolSpec, arguments: &Map<String, Value>) -> anyhow::Result<()> {
    let known = tool.input_schema.get("properties").and_then(Value::as_object);
    match arguments.keys().find(|name| known.is_none_or(|k| !k.contains_key(*name))) {
        Some(unknown) => {
            let names: Vec<&str> = known.into_iter().flat_map(|k| k.keys().map(String::as_str)).collect();
            bail!("{} has no argument '{unknown}'; its arguments are {}", tool.name, names.join(", "))
        }
        None => Ok(()),
    }
}

fn say_explanation(explanation: &Explanation, tool: &str, with_arguments: bool) {
    let verdict = match (explanation.allowed, with_arguments) {
        (true, true) => paint::good("allowed"),
        (true, false) => paint::good("listed"),
        (false, true) => paint::bad("refused"),
        (false, false) => paint::bad("not listed"),
    };
    say(format!("{tool}: {verdict} by rule {}", paint::strong(&explanation.rule)));
    let limits = limits_in_words(explanation);
    if !limits.is_empty() {
        say(format!("confined to: {limits}"));
    }
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

fn limits_in_words(explanation: &Explanation) -> String {
    let limits = &explanation.limits;
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
    let sets = [
        ("sources", &limits.sources),
        ("services", &limits.services),
        ("namespaces", &limits.namespaces),
        ("projects", &limits.projects),
    ];
    for (kind, set) in sets {
        if let Some(names) = set.names() {
            parts.push(format!("{kind} {}", names.iter().map(String::as_str).collect::<Vec<_>>().join(" ")));
        }
    }
    if limits.approval {
        parts.push("with approval".into());
    }
    if limits.unredacted == Some(true) {
        parts.push("unredacted when asked for".into());
    }
    parts.join(", ")
}

fn explain_all(book: &Rulebook, principal: &Principal, as_json: bool) {
    let decided: Vec<(&Arc<ToolSpec>, Decision)> =
        book.tools.iter().map(|tool| (tool, book.policies.decide_call(principal, tool))).collect();
    if as_json {
        let tools: Vec<Value> = decided
            .iter()
            .map(|(tool, decision)| {
                json!({"tool": tool.name.as_str(), "listed": decision.allowed, "rule": &*decision.rule,
                       "depends_on_arguments": book.policies.depends_on_arguments(tool.name.as_str())})
            })
            .collect();
        say_json(&json!({"principal": principal.id.as_str(), "roles": principal.roles, "tools": tools}));
        return;
    }
    let rows = decided.iter().map(|(tool, decision)| {
        let listed = if decision.allowed { paint::good("listed") } else { paint::bad("not listed") };
        let depends = book.policies.depends_on_arguments(tool.name.as_str());
        [
            tool.name.to_string(),
            listed,
            decision.rule.to_string(),
            if depends { "depends on the arguments".into() } else { String::new() },
        ]
    });
    say(table(["tool", "", "rule", ""], rows));
}

/// One row of a table of expectations or calls.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    principal: Option<String>,
    #[serde(default)]
    tenant: Option<String>,
    tool: String,
    #[serde(default)]
    args: Option<Map<String, Value>>,
    #[serde(default)]
    expect: Option<Expected>,
    #[serde(default)]
    rule: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Allow,
    Deny,
    /// Some arguments could be allowed.
    Listed,
    /// None could.
    Hidden,
}

impl Row {
    fn who(&self) -> WhoArgs {
        let role = self.role.iter().flat_map(|r| r.split([',', ' '])).filter(|r| !r.is_empty()).map(str::to_owned).collect();
        WhoArgs { role, principal: self.principal.clone(), tenant: self.tenant.clone() }
    }

    fn describe(&self) -> String {
        let mut text = self.principal.clone().unwrap_or_default();
        if let Some(role) = &self.role {
            let _ = write!(text, "{}{role}", if text.is_empty() { "" } else { " as " });
        }
        if text.is_empty() { "local user".into() } else { text }
    }
}

fn read_table(path: &Path) -> anyhow::Result<Vec<Row>> {
    let place = || path.display().to_string();
    let size = std::fs::metadata(path).with_context(|| format!("reading {}", place()))?.len();
    if size > LARGEST_TABLE {
        bail!("{} has {size} bytes; at most {LARGEST_TABLE} are read", place());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", place()))?;
    let is_csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    let rows = if is_csv { read_csv(&text) } else { serde_saphyr::from_str::<Vec<Row>>(&text).map_err(anyhow::Error::from) };
    let rows = rows.with_context(place)?;
    if rows.is_empty() {
        bail!("{}: the table is empty", place());
    }
    Ok(rows)
}

fn read_csv(text: &str) -> anyhow::Result<Vec<Row>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for (number, record) in reader.records().enumerate() {
        let record = record?;
        let mut object = Map::new();
        for (name, cell) in header.iter().zip(record.iter()).filter(|(_, cell)| !cell.is_empty()) {
            let value = if name == "args" {
                serde_json::from_str(cell).with_context(|| format!("row {}: args is not JSON", number + 1))?
            } else {
                Value::String(cell.to_owned())
            };
            object.insert(name.clone(), value);
        }
        rows.push(serde_json::from_value(Value::Object(object)).with_context(|| format!("row {}", number + 1))?);
    }
    Ok(rows)
}

async fn test(config: &Config, path: &Path, files: &[PathBuf], as_json: bool) -> anyhow::Result<()> {
    let book = rulebook(config, files)?;
    let rows = read_table(path)?;
    let people = people(config, rows.iter().filter_map(|r| r.principal.as_deref())).await?;
    let mut results = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let expected =
            row.expect.with_context(|| format!("row {}: expect is missing; write allow, deny, listed or hidden", index + 1))?;
        let decision = decide(&book, &people, row, matches!(expected, Expected::Listed | Expected::Hidden))
            .with_context(|| format!("row {}", index + 1))?;
        let allowed = matches!(expected, Expected::Allow | Expected::Listed);
        let met = decision.allowed == allowed && row.rule.as_ref().is_none_or(|r| **r == *decision.rule);
        results.push((row, expected, decision, met));
    }
    let failed = results.iter().filter(|(.., met)| !met).count();
    if as_json {
        let all: Vec<Value> = results
            .iter()
            .enumerate()
            .map(|(index, (row, expected, decision, met))| {
                json!({"row": index + 1, "who": row.describe(), "tool": row.tool, "args": row.args, "expect": expected, "expect_rule": row.rule,
                       "allowed": decision.allowed, "rule": &*decision.rule, "met": met})
            })
            .collect();
        say_json(&json!({"ok": failed == 0, "failed": failed, "results": all}));
    } else {
        for (index, (row, expected, decision, _)) in results.iter().enumerate().filter(|(_, (.., met))| !met) {
            let found = if decision.allowed { "allowed" } else { "refused" };
            let wanted = row.rule.as_ref().map(|r| format!(" by rule {r}")).unwrap_or_default();
            let expected = serde_json::to_value(expected)?.as_str().unwrap_or_default().to_owned();
            say(format!(
                "{} row {}: {} calls {}: expected {expected}{wanted}, is {found} by rule {}",
                paint::bad("not met"),
                index + 1,
                row.describe(),
                row.tool,
                decision.rule
            ));
        }
        say(format!("{} of {} expectations are met", results.len() - failed, results.len()));
    }
    if failed > 0 {
        bail!("{failed} expectations are not met");
    }
    Ok(())
}

fn decide(book: &Rulebook, people: &People, row: &Row, listing: bool) -> anyhow::Result<Decision> {
    let tool = book.tool(&row.tool)?;
    let principal = people.find(&row.who())?;
    if listing {
        return Ok(book.policies.decide_call(&principal, tool));
    }
    let arguments = row.args.clone().unwrap_or_default();
    check_arguments(tool, &arguments)?;
    Ok(book.policies.decide_arguments(&principal, tool, &arguments))
}

/// What one call would become.
#[derive(Debug, Serialize)]
struct Change {
    who: String,
    tool: String,
    args: Option<Map<String, Value>>,
    /// How often it is in the audit log.
    count: u64,
    before: Side,
    after: Side,
    changes: bool,
    /// Rules ask for arguments that are not known.
    depends_on_arguments: bool,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
struct Side {
    allowed: bool,
    rule: String,
}

impl From<Decision> for Side {
    fn from(decision: Decision) -> Self {
        Self { allowed: decision.allowed, rule: decision.rule.to_string() }
    }
}

async fn dry_run(config: &Config, args: DryRunArgs) -> anyhow::Result<()> {
    let before = rulebook(config, &[])?;
    let after = rulebook(config, &args.files)?;
    let (rows, skipped) = match &args.calls {
        Some(path) => (read_table(path)?.into_iter().map(|row| (row, 1)).collect(), 0),
        None => recorded_calls(config, &args.since)?,
    };
    let people = people(config, rows.iter().filter_map(|(r, _)| r.principal.as_deref())).await?;
    let mut changes = Vec::new();
    let mut unknown = skipped;
    for (index, (row, count)) in rows.iter().enumerate() {
        // A principal or tool of the log that is no longer there is counted; one in a table is a mistake of the table.
        if args.audit && (people.find(&row.who()).is_err() || before.tool(&row.tool).is_err()) {
            unknown += count;
            continue;
        }
        let place = || format!("row {}", index + 1);
        let (was, would) = (
            decide(&before, &people, row, args.audit).with_context(place)?,
            decide(&after, &people, row, args.audit).with_context(place)?,
        );
        let depends = args.audit && [&before, &after].iter().any(|b| b.policies.depends_on_arguments(&row.tool));
        let differs = was != would;
        changes.push(Change {
            who: row.describe(),
            tool: row.tool.clone(),
            args: row.args.clone(),
            count: *count,
            before: was.into(),
            after: would.into(),
            changes: differs,
            depends_on_arguments: depends,
        });
    }
    say_changes(&changes, unknown, &args);
    Ok(())
}

fn say_changes(changes: &[Change], unknown: u64, args: &DryRunArgs) {
    let differing = changes.iter().filter(|c| c.changes).count();
    let lost = changes.iter().filter(|c| c.before.allowed && !c.after.allowed).count();
    let gained = changes.iter().filter(|c| !c.before.allowed && c.after.allowed).count();
    let shown: Vec<&Change> = changes.iter().filter(|c| args.all || c.changes).collect();
    if args.json {
        say_json(&json!({"decided": changes.len(), "differing": differing, "would_be_refused": lost, "would_be_allowed": gained,
                         "not_decided": unknown, "calls": shown}));
        return;
    }
    let side = |side: &Side| {
        let word = if side.allowed { paint::good("allow") } else { paint::bad("deny") };
        format!("{word} {}", side.rule)
    };
    let rows = shown.iter().map(|c| {
        let arguments = c.args.as_ref().map(|a| Value::Object(a.clone()).to_string()).unwrap_or_default();
        let depends = if c.depends_on_arguments { "depends on the arguments".to_owned() } else { arguments };
        [c.who.clone(), c.tool.clone(), depends, side(&c.before), side(&c.after), c.count.to_string()]
    });
    if !shown.is_empty() {
        say(table(["who", "tool", "arguments", "now", "then", "calls"], rows));
    }
    say(format!(
        "{} of {} differ: {lost} would be refused, {gained} would be allowed, {} decided by another rule",
        differing,
        changes.len(),
        differing - lost - gained
    ));
    if unknown > 0 {
        say(format!("{unknown} records were not decided: their principal or tool is no longer known"));
    }
}

/// The calls of the audit log, each kind once with how often it was made; and how many could not be read.
fn recorded_calls(config: &Config, since: &str) -> anyhow::Result<(Vec<(Row, u64)>, u64)> {
    let since = parse_instant(since, SystemClock.now()).context("--since")?;
    let directory = audit_directory(config);
    if !directory.is_dir() {
        bail!("there is no audit log yet in {}", directory.display());
    }
    let filter = AuditFilter {
        since: Some(since),
        kinds: [EventKind::Call, EventKind::Refused, EventKind::Failed].into(),
        ..AuditFilter::default()
    };
    let mut seen: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut unreadable = 0;
    for record in query(&directory, filter)? {
        let Ok(record) = record else {
            unreadable += 1;
            continue;
        };
        let event = &record.event;
        if event.method.as_deref() != Some("tools/call") {
            continue;
        }
        match (&event.principal, &event.tool) {
            (Some(principal), Some(tool)) => *seen.entry((principal.to_string(), tool.to_string())).or_default() += 1,
            _ => unreadable += 1,
        }
    }
    let rows =
        seen.into_iter().map(|((principal, tool), count)| (Row { principal: Some(principal), tool, ..Row::default() }, count));
    Ok((rows.collect(), unreadable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_and_mistakes_name_their_row() {
        let rows =
            read_csv("role,tool,args,expect,rule\nreader,sql,\"{\"\"query\"\": \"\"x\"\"}\",deny,no-sql\noperator,sql,,allow,\n")
                .unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].args.as_ref().unwrap()["query"], "x");
        assert_eq!((rows[0].expect, rows[1].rule.clone()), (Some(Expected::Deny), None));
        for (text, expected) in [
            ("role,tool,args\nreader,sql,{x", "row 1: args is not JSON"),
            ("role,tol\nreader,sql", "row 1"),
            ("role,tool,expect\nreader,sql,perhaps", "row 1"),
        ] {
            let error = format!("{:#}", read_csv(text).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn whom_a_row_is_about() {
        let row = Row { role: Some("reader, intern".into()), tool: "sql".into(), ..Row::default() };
        assert_eq!(row.who().role, ["reader", "intern"]);
        assert_eq!(row.describe(), "reader, intern");
    }
}
