//! `portcullis profile`: look at what principals usually do, which changes nothing, and accept it as their profile.

use anyhow::Context;
use portcullis_audit::{AuditEvent, EventKind};
use portcullis_gateway::{Behaviour, Profiles};
use portcullis_identity::{local_principal, local_user};
use portcullis_model::PrincipalId;
use serde_json::json;

use crate::cli::{OutputArgs, ProfileAction};
use crate::house::Foundations;
use crate::look;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis profile …`.
pub async fn run(config: &Config, action: ProfileAction) -> anyhow::Result<()> {
    let (principal, accepted) = match action {
        ProfileAction::List(output) => return list(&book(config).await?, &output).await,
        ProfileAction::Show { principal } => {
            let profiles = book(config).await?;
            let learned = learned(&profiles, &principal).await?;
            let accepted = profiles.accepted(&learned.principal);
            say_json(&json!({"learned": learned, "accepted": accepted.as_deref()}));
            return Ok(());
        }
        ProfileAction::Suggest { principal } => {
            say(learned(&book(config).await?, &principal).await?.suggested_policy());
            return Ok(());
        }
        ProfileAction::Accept { principal } => (principal, true),
        ProfileAction::Forget { principal } => (principal, false),
    };
    let foundations = Foundations::open(config).await?;
    let outcome = match foundations.profiles(config).await {
        Ok(profiles) if accepted => accept(&foundations, &profiles, &principal).await,
        Ok(profiles) => forget(&foundations, &profiles, &principal).await,
        Err(error) => Err(error),
    };
    foundations.close().await;
    outcome
}

/// The book, to be read.
async fn book(config: &Config) -> anyhow::Result<Profiles> {
    look::profiles(config, look::state(config).await?).await
}

async fn accept(foundations: &Foundations, profiles: &Profiles, principal: &str) -> anyhow::Result<()> {
    let learned = learned(profiles, principal).await?;
    record(foundations, "profile.accept", &learned.principal)?;
    profiles.accept(&learned.principal).await?;
    say(format!("The profile of {principal} is what was seen of it: {} tools in {} calls.", learned.tools.len(), learned.calls));
    Ok(())
}

async fn forget(foundations: &Foundations, profiles: &Profiles, principal: &str) -> anyhow::Result<()> {
    let id = PrincipalId::new(principal)?;
    record(foundations, "profile.forget", &id)?;
    let there = profiles.forget(&id).await?;
    say(if there { format!("Nothing is known of {principal} any more.") } else { format!("Nothing was known of {principal}.") });
    Ok(())
}

/// The change is recorded before it takes effect.
fn record(foundations: &Foundations, method: &'static str, principal: &PrincipalId) -> anyhow::Result<()> {
    let who = local_principal(&local_user(), "admin")?;
    let event = AuditEvent::new(EventKind::Policy).principal(&who).method(method).note(principal.to_string());
    foundations.audit.append(event).context("the change cannot be recorded, so it is not made")?;
    Ok(())
}

async fn learned(profiles: &Profiles, principal: &str) -> anyhow::Result<Behaviour> {
    let found = profiles.learned().await?.into_iter().find(|b| b.principal.as_str() == principal);
    found.with_context(|| {
        format!("nothing was learned of '{principal}'; set profiles.mode to observe, and see `portcullis profile list`")
    })
}

async fn list(profiles: &Profiles, output: &OutputArgs) -> anyhow::Result<()> {
    let all = profiles.learned().await?;
    if output.json {
        let rows: Vec<_> =
            all.iter().map(|b| json!({"learned": b, "accepted": profiles.accepted(&b.principal).is_some()})).collect();
        say_json(&json!(rows));
        return Ok(());
    }
    if all.is_empty() {
        say("Nothing was learned yet. Set profiles.mode to observe and let clients work.");
        return Ok(());
    }
    let rows = all.iter().map(|b| {
        let accepted = match profiles.accepted(&b.principal) {
            Some(profile) if *profile == *b => paint::good("accepted"),
            Some(_) => paint::warn("accepted, more was seen since"),
            None => paint::faint("not accepted"),
        };
        let tools: Vec<&str> = b.tools.keys().map(String::as_str).collect();
        [b.principal.to_string(), b.calls.to_string(), tools.join(", "), format!("{}/min", b.most_per_minute), accepted]
    });
    say(table(["principal", "calls", "tools", "most", "profile"], rows));
    Ok(())
}
