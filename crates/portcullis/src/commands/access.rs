//! `portcullis access review`: every key, user, certificate and role with what it may call, by which rule, confined to what,
//! and when it last did. For the regular look at who has access to what. Decides by the same code as the gate; changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_audit::{AuditFilter, EventKind, neutralised, query};
use portcullis_gateway::Wish;
use portcullis_model::{CredentialKind, Principal, Timestamp, ToolSpec};
use portcullis_policy::Confinement;
use serde::Serialize;
use serde_json::json;

use super::people::People;
use super::policy::{reason, rulebook, say_notes, ways_in_words};
use crate::cli::AccessAction;
use crate::house::audit_directory;
use crate::rulebook::Rulebook;
use crate::settings::Config;
use crate::terminal::{say, say_json, table};

/// One line of the review.
#[derive(Debug, Serialize)]
struct Line {
    /// `key`, `user`, `certificate`, `anonymous` or `role`.
    kind: &'static str,
    principal: String,
    roles: String,
    tenant: String,
    /// The product it comes through.
    product: Option<String>,
    tool: String,
    risk: &'static str,
    allowed: bool,
    rule: String,
    /// Rules ask for the arguments too.
    depends_on_arguments: bool,
    /// When this principal last called this tool, as far as the audit log reaches.
    last_used: Option<String>,
    /// `expired` or `revoked`, for a key that is let in nowhere any more.
    ended: Option<&'static str>,
    /// Why it is refused, where the rule does not say it.
    why: Option<String>,
    /// What calls are confined to: each of these is what some are.
    confined_to: Vec<Confinement>,
}

/// Runs `portcullis access …`.
pub async fn run(config: &Config, action: AccessAction) -> anyhow::Result<()> {
    let AccessAction::Review(args) = action;
    let book = rulebook(config, &[]).await?;
    let product = book.product(args.through.product.as_deref())?;
    let people = People::open(config).await?.in_tenant(args.through.tenant.as_deref())?;
    let (used, unreadable) = last_calls(config)?;
    let reviewer = Reviewer { book: &book, people: &people, product, used: &used };
    let mut lines = Vec::new();
    for principal in people.known() {
        lines.extend(reviewer.review(kind_of(principal), principal));
    }
    for role in people.roles() {
        lines.extend(reviewer.review(ROLE, &people.with_role(role)?));
    }
    lines.retain(|line| args.all || line.allowed);
    if args.json {
        say_json(&json!({"lines": lines, "unreadable_audit_records": unreadable, "notes": book.notes}));
    } else if args.csv {
        print_csv(&lines)?;
    } else {
        let rows = lines.iter().map(|l| {
            let decision = if l.allowed { "allow" } else { "deny" };
            let depends = if l.depends_on_arguments { "by argument" } else { "" };
            let last = l.last_used.clone().unwrap_or_else(|| if l.kind == ROLE { String::new() } else { "never".into() });
            let ended = l.ended.map(|how| format!(" {how}")).unwrap_or_default();
            let who = if l.kind == ROLE { format!("role {}", l.roles) } else { format!("{} ({}){ended}", l.principal, l.roles) };
            let about = if l.allowed { ways_in_words(&l.confined_to) } else { l.why.clone().unwrap_or_default() };
            [who, l.tool.clone(), l.risk.to_owned(), format!("{decision} {}", l.rule), depends.to_owned(), last, about]
        });
        say(table(["who", "tool", "risk", "rule", "", "last used", "confined to"], rows));
        if unreadable > 0 {
            say(format!("{unreadable} audit records could not be read: a time of last use may be missing"));
        }
        say_notes(&book.notes);
    }
    Ok(())
}

/// Somebody with a role and nothing else.
const ROLE: &str = "role";

fn kind_of(principal: &Principal) -> &'static str {
    match principal.credential {
        CredentialKind::ApiKey { .. } => "key",
        CredentialKind::Password { .. } => "user",
        CredentialKind::Certificate { .. } => "certificate",
        CredentialKind::Anonymous => "anonymous",
        CredentialKind::Token { .. } => "token",
        CredentialKind::Local => "local",
    }
}

type LastCalls = BTreeMap<(String, String), Timestamp>;

/// What a review is made from.
struct Reviewer<'r> {
    book: &'r Rulebook,
    people: &'r People,
    product: Option<&'r str>,
    used: &'r LastCalls,
}

impl Reviewer<'_> {
    /// Every tool, for one principal.
    fn review(&self, kind: &'static str, principal: &Principal) -> Vec<Line> {
        let roles = principal.roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let line = |tool: &Arc<ToolSpec>| {
            let name = tool.name.as_str();
            let prospect = self.book.ask(&Wish { principal, product: self.product, tool: name, arguments: None });
            let called = (kind != ROLE).then(|| self.used.get(&(principal.id.to_string(), name.to_owned()))).flatten();
            Line {
                kind,
                principal: if kind == ROLE { String::new() } else { principal.id.to_string() },
                roles: roles.clone(),
                tenant: principal.tenant.to_string(),
                product: self.product.map(str::to_owned),
                tool: name.to_owned(),
                risk: tool.risk.as_str(),
                allowed: prospect.allowed,
                rule: prospect.rule.to_string(),
                depends_on_arguments: self.book.policies().depends_on_arguments(name),
                last_used: called.map(ToString::to_string),
                ended: self.people.ended(principal),
                why: reason(&prospect, self.product),
                confined_to: prospect.confinements,
            }
        };
        self.book.tools.iter().map(line).collect()
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
        "product",
        "ended",
        "confined_to",
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
            line.product.clone().unwrap_or_default(),
            line.ended.unwrap_or_default().to_owned(),
            ways_in_words(&line.confined_to),
        ];
        writer.write_record(cells.iter().map(|cell| neutralised(cell)))?;
    }
    let bytes = writer.into_inner()?;
    say(String::from_utf8(bytes)?.trim_end());
    Ok(())
}
