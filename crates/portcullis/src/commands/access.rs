//! `portcullis access review`: every key and every role with what it may call, by which rule, and when it last did. For the
//! regular look at who has access to what. Changes nothing.

use std::collections::BTreeMap;

use portcullis_audit::{AuditFilter, EventKind, neutralised, query};
use portcullis_model::{Principal, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::policy::People;
use crate::cli::AccessAction;
use crate::house::{Rulebook, audit_directory};
use crate::settings::Config;
use crate::terminal::{say, say_json, table};

/// One line of the review.
#[derive(Debug, Serialize)]
struct Line {
    /// `key` or `role`.
    kind: &'static str,
    principal: String,
    roles: String,
    tenant: String,
    tool: String,
    risk: &'static str,
    allowed: bool,
    rule: String,
    /// Rules ask for the arguments too.
    depends_on_arguments: bool,
    /// When this principal last called this tool, as far as the audit log reaches.
    last_used: Option<String>,
}

/// Runs `portcullis access …`.
pub async fn run(config: &Config, action: AccessAction) -> anyhow::Result<()> {
    let AccessAction::Review { all, json, csv } = action;
    let book = Rulebook::open(config, &config.policies)?;
    let people = People::open(config).await?;
    let (used, unreadable) = last_calls(config)?;
    let mut lines = Vec::new();
    for key in people.keys() {
        review(&book, "key", key, &used, &mut lines);
    }
    for role in people.roles() {
        let mut principal = people.with_role(role)?;
        principal.roles = [role.as_str().into()].into();
        review(&book, "role", &principal, &used, &mut lines);
    }
    lines.retain(|line| all || line.allowed);
    if json {
        say_json(&json!({"lines": lines, "unreadable_audit_records": unreadable}));
    } else if csv {
        print_csv(&lines)?;
    } else {
        let rows = lines.iter().map(|l| {
            let decision = if l.allowed { "allow" } else { "deny" };
            let depends = if l.depends_on_arguments { "by argument" } else { "" };
            let last = l.last_used.clone().unwrap_or_else(|| if l.kind == "key" { "never".into() } else { String::new() });
            let who = if l.kind == "role" { format!("role {}", l.roles) } else { format!("{} ({})", l.principal, l.roles) };
            [who, l.tool.clone(), l.risk.to_owned(), format!("{decision} {}", l.rule), depends.to_owned(), last]
        });
        say(table(["who", "tool", "risk", "rule", "", "last used"], rows));
        if unreadable > 0 {
            say(format!("{unreadable} audit records could not be read: a time of last use may be missing"));
        }
    }
    Ok(())
}

type LastCalls = BTreeMap<(String, String), Timestamp>;

fn review(book: &Rulebook, kind: &'static str, principal: &Principal, used: &LastCalls, lines: &mut Vec<Line>) {
    let roles = principal.roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    for tool in &book.tools {
        let decision = book.policies.decide_call(principal, tool);
        let last = (kind == "key").then(|| used.get(&(principal.id.to_string(), tool.name.to_string()))).flatten();
        lines.push(Line {
            kind,
            principal: if kind == "key" { principal.id.to_string() } else { String::new() },
            roles: roles.clone(),
            tenant: principal.tenant.to_string(),
            tool: tool.name.to_string(),
            risk: tool.risk.as_str(),
            allowed: decision.allowed,
            rule: decision.rule.to_string(),
            depends_on_arguments: book.policies.depends_on_arguments(tool.name.as_str()),
            last_used: last.map(ToString::to_string),
        });
    }
}

/// When each principal last called each tool, and how many records could not be read.
fn last_calls(config: &Config) -> anyhow::Result<(LastCalls, u64)> {
    let mut used = LastCalls::new();
    let mut unreadable = 0;
    let directory = audit_directory(config);
    if !directory.is_dir() {
        return Ok((used, unreadable));
    }
    let filter = AuditFilter { kinds: [EventKind::Call].into(), ..AuditFilter::default() };
    for record in query(&directory, filter)? {
        match record {
            Ok(record) => {
                if let (Some(principal), Some(tool)) = (&record.event.principal, &record.event.tool) {
                    let last = used.entry((principal.to_string(), tool.to_string())).or_insert(record.time);
                    *last = (*last).max(record.time);
                }
            }
            Err(_) => unreadable += 1,
        }
    }
    Ok((used, unreadable))
}

fn print_csv(lines: &[Line]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "kind",
        "principal",
        "roles",
        "tenant",
        "tool",
        "risk",
        "allowed",
        "rule",
        "depends_on_arguments",
        "last_used",
    ])?;
    for line in lines {
        let cells = [
            line.kind.to_owned(),
            line.principal.clone(),
            line.roles.clone(),
            line.tenant.clone(),
            line.tool.clone(),
            line.risk.to_owned(),
            line.allowed.to_string(),
            line.rule.clone(),
            line.depends_on_arguments.to_string(),
            line.last_used.clone().unwrap_or_default(),
        ];
        writer.write_record(cells.iter().map(|cell| neutralised(cell)))?;
    }
    let bytes = writer.into_inner()?;
    say(String::from_utf8(bytes)?.trim_end());
    Ok(())
}
