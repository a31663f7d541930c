//! `portcullis approvals`: the operator's yes or no to one call. The decision is recorded before it takes effect; looking
//! changes nothing.

use portcullis_gateway::{ApprovalRecord, ApprovalState, Approvals};
use portcullis_identity::{local_principal, local_user};
use portcullis_model::{Clock, SystemClock, Timestamp};

use crate::cli::{ApprovalAction, OutputArgs};
use crate::house::Foundations;
use crate::look;
use crate::operations::decide_approval;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis approvals …`.
pub async fn run(config: &Config, action: ApprovalAction) -> anyhow::Result<()> {
    let (id, granted) = match action {
        ApprovalAction::List(output) => return list(&book(config).await?.list().await?, &output),
        ApprovalAction::Show { id, output } => return show(&book(config).await?.get(&id).await?, &output),
        ApprovalAction::Grant { id } => (id, true),
        ApprovalAction::Deny { id } => (id, false),
    };
    let foundations = Foundations::open(config).await?;
    let outcome = decide(&foundations, config, &id, granted).await;
    foundations.close().await;
    outcome
}

/// The book, to be read.
async fn book(config: &Config) -> anyhow::Result<Approvals> {
    Ok(look::approvals(config, look::state(config).await?))
}

async fn decide(foundations: &Foundations, config: &Config, id: &str, granted: bool) -> anyhow::Result<()> {
    let book = foundations.approvals(config);
    let who = local_principal(&local_user(), "admin")?;
    let record = decide_approval(foundations, &book, &who, id, granted).await?;
    let (word, after) = if granted {
        ("granted", "The same call with the same arguments may now be made once.")
    } else {
        ("denied", "The call stays refused.")
    };
    say(format!("Request {id} of {} for {} is {word}. {after}", record.principal, record.tool));
    Ok(())
}

fn show(record: &ApprovalRecord, output: &OutputArgs) -> anyhow::Result<()> {
    if output.json {
        say_json(&serde_json::to_value(record)?);
        return Ok(());
    }
    let now = SystemClock.now();
    say(format!("Request {}: {}, ends in {}s", record.id, state(record), left(record, now)));
    say(format!("{} wants to call {} ({})", asker(record), record.tool, record.risk.as_str()));
    say(format!("the tool is that of {}, definition {}", record.origin, record.definition));
    if record.unredacted {
        say(paint::warn("the answer is wanted without redaction"));
    }
    say(format!("arguments: {}", record.summary));
    match &record.preview {
        Some(preview) => say(format!("what would change, as it was when it was asked:\n{preview}")),
        None => say("what would change: the tool cannot tell before it is called"),
    }
    Ok(())
}

/// Who asks, for whose data, and through what.
fn asker(record: &ApprovalRecord) -> String {
    let through = record.product.as_deref().map(|product| format!(", product {product}")).unwrap_or_default();
    format!("{} (tenant {}{through})", record.principal, record.tenant)
}

fn state(record: &ApprovalRecord) -> String {
    match &record.state {
        ApprovalState::Pending => paint::warn("pending"),
        ApprovalState::Granted { by, .. } => paint::good(&format!("granted by {by}")),
        ApprovalState::Denied { by, .. } => paint::bad(&format!("denied by {by}")),
        ApprovalState::Used { by, .. } => paint::faint(&format!("used (yes of {by})")),
    }
}

/// Seconds that are left.
fn left(record: &ApprovalRecord, now: Timestamp) -> i64 {
    record.expires_at.as_nanos().saturating_sub(now.as_nanos()) / 1_000_000_000
}

fn list(records: &[ApprovalRecord], output: &OutputArgs) -> anyhow::Result<()> {
    if output.json {
        say_json(&serde_json::to_value(records)?);
        return Ok(());
    }
    if records.is_empty() {
        say("Nothing waits for approval.");
        return Ok(());
    }
    let now = SystemClock.now();
    let rows = records.iter().map(|r| {
        [
            r.id.clone(),
            state(r),
            asker(r),
            format!("{} ({}){}", r.tool, r.risk.as_str(), if r.unredacted { ", unredacted" } else { "" }),
            r.summary.clone(),
            format!("{}s", left(r, now)),
        ]
    });
    say(table(["id", "state", "who", "tool", "arguments", "ends in"], rows));
    Ok(())
}
