//! Tables of `portcullis policy test` and `dry-run`: expectations that are tried, and calls that are decided by other rules.
//!
//! Guards that a row is decided as the gate decides, through its product and as its tenant. Changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use portcullis_audit::{AuditFilter, EventKind, query};
use portcullis_gateway::{Prospect, Wish};
use portcullis_model::{Clock, SystemClock, parse_instant};
use portcullis_policy::Confinement;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::people::People;
use super::policy::{check_arguments, reason, rulebook, say_notes, ways_in_words};
use crate::cli::{DryRunArgs, TestArgs, WhoArgs};
use crate::house::audit_directory;
use crate::rulebook::Rulebook;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Largest table of expectations or calls that is read.
const LARGEST_TABLE: u64 = 16 << 20;

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
    #[serde(default)]
    product: Option<String>,
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

impl Expected {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Listed => "listed",
            Self::Hidden => "hidden",
        }
    }
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
        if text.is_empty() {
            text.push_str("local user");
        }
        for (how, what) in [("of tenant", &self.tenant), ("through", &self.product)] {
            if let Some(what) = what {
                let _ = write!(text, " {how} {what}");
            }
        }
        text
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

/// A row with what became of it.
type Tried<'r> = (&'r Row, Expected, Prospect, bool);

/// Runs `portcullis policy test`.
pub(super) async fn test(config: &Config, args: &TestArgs) -> anyhow::Result<()> {
    let book = rulebook(config, &args.files).await?;
    let product = book.product(args.through.product.as_deref())?;
    let rows = through(read_table(&args.table)?, product);
    let people = People::named(config, rows.iter().filter_map(|r| r.principal.as_deref())).await?;
    let people = people.in_tenant(args.through.tenant.as_deref())?;
    let mut results: Vec<Tried<'_>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let expected =
            row.expect.with_context(|| format!("row {}: expect is missing; write allow, deny, listed or hidden", index + 1))?;
        let prospect = decide(&book, &people, row, matches!(expected, Expected::Listed | Expected::Hidden))
            .with_context(|| format!("row {}", index + 1))?;
        let allowed = matches!(expected, Expected::Allow | Expected::Listed);
        let met = prospect.allowed == allowed && row.rule.as_ref().is_none_or(|r| **r == *prospect.rule);
        results.push((row, expected, prospect, met));
    }
    let failed = results.iter().filter(|(.., met)| !met).count();
    say_results(&results, failed, &book, args.json);
    if failed > 0 {
        bail!("{failed} expectations are not met");
    }
    Ok(())
}

fn say_results(results: &[Tried<'_>], failed: usize, book: &Rulebook, as_json: bool) {
    if as_json {
        let all: Vec<Value> = results
            .iter()
            .enumerate()
            .map(|(index, (row, expected, prospect, met))| {
                json!({"row": index + 1, "who": row.describe(), "product": row.product, "tool": row.tool, "args": row.args,
                       "expect": expected, "expect_rule": row.rule, "allowed": prospect.allowed, "rule": &*prospect.rule,
                       "why": reason(prospect, row.product.as_deref()), "confined_to": prospect.confinements, "met": met})
            })
            .collect();
        say_json(&json!({"ok": failed == 0, "failed": failed, "results": all, "notes": book.notes}));
        return;
    }
    for (index, (row, expected, prospect, _)) in results.iter().enumerate().filter(|(_, (.., met))| !met) {
        let found = if prospect.allowed { "allowed" } else { "refused" };
        let wanted = row.rule.as_ref().map(|r| format!(" by rule {r}")).unwrap_or_default();
        let why = reason(prospect, row.product.as_deref()).map(|why| format!(" ({why})")).unwrap_or_default();
        say(format!(
            "{} row {}: {} calls {}: expected {}{wanted}, is {found} by rule {}{why}",
            paint::bad("not met"),
            index + 1,
            row.describe(),
            row.tool,
            expected.as_str(),
            prospect.rule
        ));
    }
    say(format!("{} of {} expectations are met", results.len() - failed, results.len()));
    say_notes(&book.notes);
}

/// The rows, where those that name no product go through this one.
fn through(rows: Vec<Row>, product: Option<&str>) -> Vec<Row> {
    let named = |row: Row| Row { product: row.product.or_else(|| product.map(str::to_owned)), ..row };
    rows.into_iter().map(named).collect()
}

fn decide(book: &Rulebook, people: &People, row: &Row, listing: bool) -> anyhow::Result<Prospect> {
    let tool = book.tool(&row.tool)?;
    let principal = people.find(&row.who())?;
    let product = book.product(row.product.as_deref())?;
    let wish = Wish { principal: &principal, product, tool: &row.tool, arguments: None };
    if listing {
        return Ok(book.ask(&wish));
    }
    let arguments = row.args.clone().unwrap_or_default();
    check_arguments(tool, &arguments)?;
    Ok(book.ask(&Wish { arguments: Some(&arguments), ..wish }))
}

/// What one call would become.
#[derive(Debug, Serialize)]
struct Change {
    who: String,
    product: Option<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    confined_to: Vec<Confinement>,
}

impl Side {
    fn of(prospect: Prospect, product: Option<&str>) -> Self {
        let (why, rule) = (reason(&prospect, product), prospect.rule.to_string());
        Self { allowed: prospect.allowed, rule, why, confined_to: prospect.confinements }
    }
}

/// Runs `portcullis policy dry-run`.
pub(super) async fn dry_run(config: &Config, args: DryRunArgs) -> anyhow::Result<()> {
    let before = rulebook(config, &[]).await?;
    let after = rulebook(config, &args.files).await?;
    let product = after.product(args.through.product.as_deref())?;
    let (rows, counts, skipped) = match &args.calls {
        Some(path) => (read_table(path)?, Vec::new(), 0),
        None => recorded_calls(config, &args.since)?,
    };
    let rows: Vec<(Row, u64)> = through(rows, product).into_iter().zip(counts.into_iter().chain(std::iter::repeat(1))).collect();
    let people = People::named(config, rows.iter().filter_map(|(r, _)| r.principal.as_deref())).await?;
    let people = people.in_tenant(args.through.tenant.as_deref())?;
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
        let depends = args.audit && [&before, &after].iter().any(|b| b.policies().depends_on_arguments(&row.tool));
        let through = row.product.as_deref();
        let (was, would) = (Side::of(was, through), Side::of(would, through));
        let differs = was != would;
        changes.push(Change {
            who: row.describe(),
            product: row.product.clone(),
            tool: row.tool.clone(),
            args: row.args.clone(),
            count: *count,
            before: was,
            after: would,
            changes: differs,
            depends_on_arguments: depends,
        });
    }
    say_changes(&changes, unknown, &args, &after.notes);
    Ok(())
}

fn say_changes(changes: &[Change], unknown: u64, args: &DryRunArgs, notes: &[String]) {
    let differing = changes.iter().filter(|c| c.changes).count();
    let lost = changes.iter().filter(|c| c.before.allowed && !c.after.allowed).count();
    let gained = changes.iter().filter(|c| !c.before.allowed && c.after.allowed).count();
    let confined = |c: &Change| c.before.allowed && c.after.allowed && c.before.confined_to != c.after.confined_to;
    let otherwise = changes.iter().filter(|c| confined(c)).count();
    let shown: Vec<&Change> = changes.iter().filter(|c| args.all || c.changes).collect();
    if args.json {
        say_json(&json!({"decided": changes.len(), "differing": differing, "would_be_refused": lost, "would_be_allowed": gained,
                         "would_be_confined_otherwise": otherwise, "not_decided": unknown, "calls": shown, "notes": notes}));
        return;
    }
    let side = |side: &Side, c: &Change| {
        let word = if side.allowed { paint::good("allow") } else { paint::bad("deny") };
        let within = if confined(c) { format!(", {}", ways_in_words(&side.confined_to)) } else { String::new() };
        format!("{word} {}{within}", side.rule)
    };
    let rows = shown.iter().map(|c| {
        let arguments = c.args.as_ref().map(|a| Value::Object(a.clone()).to_string()).unwrap_or_default();
        let depends = if c.depends_on_arguments { "depends on the arguments".to_owned() } else { arguments };
        [c.who.clone(), c.tool.clone(), depends, side(&c.before, c), side(&c.after, c), c.count.to_string()]
    });
    if !shown.is_empty() {
        say(table(["who", "tool", "arguments", "now", "then", "calls"], rows));
    }
    say(format!(
        "{} of {} differ: {lost} would be refused, {gained} would be allowed, {otherwise} confined otherwise, {} decided by \
         another rule",
        differing,
        changes.len(),
        differing - lost - gained - otherwise
    ));
    if unknown > 0 {
        say(format!(
            "{unknown} records were not decided: their principal or tool is no longer known, or its tenant was in a token"
        ));
    }
    if args.audit {
        say_notes([
            &"records do not say through which product a call came; --product decides all as if through that one".to_owned()
        ]);
    }
    say_notes(notes);
}

/// The calls of the audit log, each kind once; how often each was made; and how many could not be read.
fn recorded_calls(config: &Config, since: &str) -> anyhow::Result<(Vec<Row>, Vec<u64>, u64)> {
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
    let row = |(principal, tool)| Row { principal: Some(principal), tool, ..Row::default() };
    let (rows, counts) = seen.into_iter().map(|(call, count)| (row(call), count)).unzip();
    Ok((rows, counts, unreadable))
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
        let rows = read_csv("role,tenant,product,tool\nreader,acme,oncall,sql\nreader,,,sql\n").unwrap();
        let described = |product| through(rows.clone(), product).iter().map(Row::describe).collect::<Vec<_>>();
        assert_eq!(described(None), ["reader of tenant acme through oncall", "reader"]);
        assert_eq!(described(Some("open")), ["reader of tenant acme through oncall", "reader through open"]);
    }
}
