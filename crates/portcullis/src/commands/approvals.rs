//! `portcullis approvals`: the operator's yes or no to one call. The decision is recorded before it takes effect.

use portcullis_gateway::{ApprovalRecord, ApprovalState};
use portcullis_identity::{local_principal, local_user};
use portcullis_model::{Clock, SystemClock};

use crate::cli::{ApprovalAction, OutputArgs};
use crate::house::Foundations;
use crate::operations::decide_approval;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis approvals …`.
pub async fn run(config: &Config, action: ApprovalAction) -> anyhow::Result<()> {
    let foundations = Foundations::open(config).await?;
    let outcome = act(&foundations, config, action).await;
    foundations.close().await;
    outcome
}

async fn act(foundations: &Foundations, config: &Config, action: ApprovalAction) -> anyhow::Result<()> {
    let book = foundations.approvals(config);
    let (id, granted) = match action {
        ApprovalAction::List(output) => return list(&book.list().await?, &output),
        ApprovalAction::Grant { id } => (id, true),
        ApprovalAction::Deny { id } => (id, false),
    };
    let who = local_principal(&local_user(), "admin")?;
    let record = decide_approval(foundations, &book, &who, &id, granted).await?;
    let (word, after) = if granted {
        ("granted", "The same call with the same arguments may now be made once.")
    } else {
        ("denied", "The call stays refused.")
    };
    say(format!("Request {id} of {} for {} is {word}. {after}", record.principal, record.tool));
    Ok(())
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
        let state = match &r.state {
            ApprovalState::Pending => paint::warn("pending"),
            ApprovalState::Granted { by, .. } => paint::good(&format!("granted by {by}")),
            ApprovalState::Denied { by, .. } => paint::bad(&format!("denied by {by}")),
            ApprovalState::Used { by, .. } => paint::faint(&format!("used (yes of {by})")),
        };
        let left = r.expires_at.as_nanos().saturating_sub(now.as_nanos()) / 1_000_000_000;
        [
            r.id.clone(),
            state,
            r.principal.to_string(),
            format!("{} ({})", r.tool, r.risk.as_str()),
            r.summary.clone(),
            format!("{left}s"),
        ]
    });
    say(table(["id", "state", "who", "tool", "arguments", "ends in"], rows));
    Ok(())
}
