//! `portcullis upstream`: what other MCP servers offer, and a person's yes or no to it. A decision is recorded before it takes
//! effect, and only what was shown can be accepted.

use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_audit::{AuditEvent, Decision, EventKind};
use portcullis_identity::{local_principal, local_user};
use portcullis_model::{Clock, SystemClock};
use portcullis_upstream::review::{Line, difference, visible};
use portcullis_upstream::{Kind, Pin, PinBook, PinState, UpstreamSettings};
use serde_json::json;

use crate::cli::{OutputArgs, UpstreamAction, UpstreamChoice};
use crate::house::Foundations;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis upstream …`.
pub async fn run(config: &Config, action: UpstreamAction) -> anyhow::Result<()> {
    let foundations = Foundations::open(config).await?;
    let outcome = act(&foundations, config, action).await;
    foundations.close().await;
    outcome
}

async fn act(foundations: &Foundations, config: &Config, action: UpstreamAction) -> anyhow::Result<()> {
    match action {
        UpstreamAction::List(output) => list(foundations, config, &output).await,
        UpstreamAction::Review { upstream, names, json } => review(foundations, config, &upstream, &names, json).await,
        UpstreamAction::Accept { choice, despite_findings } => decide(foundations, config, &choice, Some(despite_findings)).await,
        UpstreamAction::Reject { choice } => decide(foundations, config, &choice, None).await,
    }
}

/// The pins of an upstream, read.
async fn pins(foundations: &Foundations, upstream: &str) -> anyhow::Result<PinBook> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let book = PinBook::new(foundations.store(), clock, upstream);
    book.refresh().await?;
    Ok(book)
}

fn configured<'c>(config: &'c Config, name: &str) -> anyhow::Result<&'c UpstreamSettings> {
    let names = || config.upstreams.iter().map(|u| u.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = config.upstreams.iter().find(|upstream| upstream.name == name);
    found.with_context(|| match names() {
        none if none.is_empty() => format!("there is no upstream '{name}'; the configuration has none"),
        some => format!("there is no upstream '{name}'; upstreams are {some}"),
    })
}

async fn list(foundations: &Foundations, config: &Config, output: &OutputArgs) -> anyhow::Result<()> {
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for upstream in &config.upstreams {
        let pins = pins(foundations, &upstream.name).await?.all();
        for pin in &pins {
            let findings = pin.seen.as_ref().map_or(0, |seen| seen.findings.len());
            let state = match pin.state() {
                PinState::Accepted => paint::good("accepted"),
                PinState::Rejected => paint::bad("rejected"),
                waiting => paint::warn(waiting.as_str()),
            };
            let by = pin.accepted.as_ref().map(|accepted| accepted.by.clone()).unwrap_or_default();
            let found = if findings > 0 { findings.to_string() } else { String::new() };
            rows.push([upstream.name.clone(), pin.kind.to_string(), visible(&pin.name), state, found, by]);
            all.push(summary(pin));
        }
    }
    if output.json {
        say_json(&json!(all));
    } else if rows.is_empty() {
        say("No upstream has shown anything yet.");
    } else {
        say(table(["upstream", "kind", "name", "state", "findings", "accepted by"], rows));
    }
    Ok(())
}

fn summary(pin: &Pin) -> serde_json::Value {
    json!({"upstream": pin.upstream, "kind": pin.kind, "name": pin.name, "state": pin.state(),
        "digest": pin.seen.as_ref().map(|seen| &seen.digest).or(pin.accepted.as_ref().map(|a| &a.digest)),
        "accepted_by": pin.accepted.as_ref().map(|a| &a.by),
        "findings": pin.seen.as_ref().map(|seen| &seen.findings)})
}

fn waits(pin: &Pin) -> bool {
    matches!(pin.state(), PinState::New | PinState::Changed)
}

async fn review(foundations: &Foundations, config: &Config, upstream: &str, names: &[String], json: bool) -> anyhow::Result<()> {
    configured(config, upstream)?;
    let book = pins(foundations, upstream).await?;
    let wanted = |pin: &Pin| if names.is_empty() { waits(pin) } else { names.contains(&pin.name) };
    let shown: Vec<Pin> = book.all().into_iter().filter(wanted).collect();
    if let Some(missing) = names.iter().find(|name| !shown.iter().any(|pin| pin.name == **name)) {
        bail!("upstream '{upstream}' has shown nothing named '{}'", visible(missing));
    }
    if json {
        let lines = |pin: &Pin| {
            let line = |line: &Line| match line {
                Line::Same(text) => json!({"same": text}),
                Line::Gone(text) => json!({"gone": text}),
                Line::New(text) => json!({"new": text}),
            };
            difference(pin).iter().map(line).collect::<Vec<_>>()
        };
        let all = shown.iter().map(|pin| {
            let mut about = summary(pin);
            about["difference"] = json!(lines(pin));
            about
        });
        say_json(&json!(all.collect::<Vec<_>>()));
    } else {
        for pin in &shown {
            print(pin);
        }
        if shown.is_empty() {
            say(format!("Nothing of upstream '{upstream}' waits."));
        } else {
            say(format!(
                "To accept: portcullis upstream accept {upstream} NAME…, or --all. To reject: portcullis upstream reject {upstream} NAME…"
            ));
        }
    }
    for pin in &shown {
        if let Some(seen) = &pin.seen {
            book.reviewed(pin.kind, &pin.name, &seen.digest).await?;
        }
    }
    Ok(())
}

fn print(pin: &Pin) {
    say(paint::strong(&format!("{} {} ({})", pin.kind, visible(&pin.name), pin.state().as_str())));
    if let Some(seen) = &pin.seen {
        say(format!("  sha256 {}", seen.digest));
        for finding in &seen.findings {
            let text = format!("  {} in {}: {}", finding.what, visible(&finding.place), visible(&finding.detail));
            say(paint::bad(&text));
        }
    }
    for line in difference(pin) {
        match line {
            Line::Same(text) => say(format!("    {text}")),
            Line::Gone(text) => say(paint::bad(&format!("  - {text}"))),
            Line::New(text) => say(paint::good(&format!("  + {text}"))),
        }
    }
    say("");
}

/// Accepts (with whether findings are no obstacle) or rejects.
async fn decide(foundations: &Foundations, config: &Config, choice: &UpstreamChoice, accept: Option<bool>) -> anyhow::Result<()> {
    configured(config, &choice.upstream)?;
    let book = pins(foundations, &choice.upstream).await?;
    let of_kind = |pin: &Pin| choice.kind.as_deref().is_none_or(|kind| kind == pin.kind.as_str());
    let chosen: Vec<Pin> = book
        .all()
        .into_iter()
        .filter(|pin| of_kind(pin) && if choice.all { waits(pin) } else { choice.names.contains(&pin.name) })
        .collect();
    if let Some(missing) = choice.names.iter().find(|name| !chosen.iter().any(|pin| pin.name == **name)) {
        bail!("upstream '{}' has shown nothing named '{}'; look at: portcullis upstream list", choice.upstream, visible(missing));
    }
    if chosen.is_empty() {
        say(format!("Nothing of upstream '{}' waits.", choice.upstream));
        return Ok(());
    }
    let mut held = Vec::new();
    for pin in &chosen {
        if let Some(despite) = accept {
            match obstacle(pin, despite) {
                Some(reason) => held.push(format!("{} '{}': {reason}", pin.kind, visible(&pin.name))),
                None => settle(foundations, &book, pin, true).await?,
            }
        } else {
            settle(foundations, &book, pin, false).await?;
        }
    }
    if !held.is_empty() {
        bail!("not accepted: {}", held.join("; "));
    }
    Ok(())
}

/// Why a definition cannot be accepted now.
fn obstacle(pin: &Pin, despite_findings: bool) -> Option<String> {
    let Some(seen) = &pin.seen else { return Some("it is accepted already".into()) };
    if pin.reviewed.as_deref() != Some(seen.digest.as_str()) {
        return Some(format!("it was not shown yet; look at: portcullis upstream review {}", pin.upstream));
    }
    let found = !seen.findings.is_empty() && pin.kind != Kind::Protocol;
    (found && !despite_findings)
        .then(|| format!("the scanner found {} things; accept it by itself with --despite-findings", seen.findings.len()))
}

async fn settle(foundations: &Foundations, book: &PinBook, pin: &Pin, accept: bool) -> anyhow::Result<()> {
    let digest = match (&pin.seen, &pin.accepted) {
        (Some(seen), _) => seen.digest.clone(),
        (None, Some(accepted)) => accepted.digest.clone(),
        (None, None) => return Ok(()),
    };
    let who = local_principal(&local_user(), "admin")?;
    let (decision, method) = if accept { (Decision::Allow, "upstream.accept") } else { (Decision::Deny, "upstream.reject") };
    let subject = format!("{}/{}/{}", pin.upstream, pin.kind, visible(&pin.name));
    let event = AuditEvent::new(EventKind::Upstream)
        .principal(&who)
        .method(method)
        .tool(subject.clone())
        .decided(decision, "operator")
        .note(format!("sha256 {digest}"));
    foundations.audit.append(event).context("the decision cannot be recorded, so it is not made")?;
    if accept {
        book.accept(pin.kind, &pin.name, &digest, who.id.as_str()).await?;
    } else {
        book.reject(pin.kind, &pin.name, &digest).await?;
    }
    let word = if accept { paint::good("accepted") } else { paint::bad("rejected") };
    say(format!("{subject} is {word}."));
    Ok(())
}
