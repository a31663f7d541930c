//! The lines of `portcullis doctor` about what passes the gate, who is let in, and what is remembered: read from the
//! settings in force and from the running house, never assumed.

use portcullis_guard::{AddressMode, SanitizeMode, Switch};
use portcullis_identity::AcceptedCredentials;
use portcullis_model::{Clock, SystemClock, format_duration};

use super::doctor::{Line, State};
use crate::house::House;
use crate::settings::{Config, SourceKind};

/// A line about a control.
fn line(name: &str, state: State, detail: impl Into<String>) -> Line {
    Line { kind: "control", name: name.to_owned(), state, detail: detail.into() }
}

/// On when `on`, else something to look at.
fn state(on: bool) -> State {
    if on { State::On } else { State::Attention }
}

/// Every control the other lines do not speak of.
pub async fn lines(config: &Config, house: &House) -> Vec<Line> {
    let mut lines = vec![
        credentials("credentials for mcp", config, config.identity.mcp, config.listen.anonymous_role.is_some()),
        credentials("credentials for otlp", config, config.identity.ingest, config.ingest.loopback_without_key),
        credentials("credentials for admin", config, config.identity.admin, false),
        lockout(config),
        aging(house).await,
        secrets(config),
        people(config),
        frame(config),
        sanitising(config),
        approvals(config),
        profiles(config, house),
        products(config),
        budget(config),
        retention(config),
    ];
    lines.extend(egress(config));
    lines
}

fn credentials(name: &str, config: &Config, accepted: AcceptedCredentials, anonymous: bool) -> Line {
    let identity = &config.identity;
    let kinds = [
        (accepted.key, "keys".to_owned()),
        (accepted.basic && !identity.users.is_empty(), format!("passwords of {} users", identity.users.len())),
        (accepted.token && !identity.tokens.issuers.is_empty(), format!("tokens of {} issuers", identity.tokens.issuers.len())),
        (
            accepted.certificate && !identity.certificates.is_empty(),
            format!("client certificates by {} rules", identity.certificates.len()),
        ),
        (anonymous, "this machine without any".to_owned()),
    ];
    let kinds: Vec<String> = kinds.into_iter().filter(|(on, _)| *on).map(|(_, kind)| kind).collect();
    if kinds.is_empty() {
        return line(name, State::Attention, "none is accepted, so nobody is let in");
    }
    let bound = if identity.require_certificate_binding { "; a header counts only with a certificate" } else { "" };
    line(name, State::On, format!("{}{bound}", kinds.join(", ")))
}

fn lockout(config: &Config) -> Line {
    let lockout = &config.identity.lockout;
    line(
        "lockout",
        State::On,
        format!(
            "after {} failures of an address or {} of a name; waits grow to {}",
            lockout.failures_per_address,
            lockout.failures_per_claim,
            format_duration(lockout.longest_wait.0)
        ),
    )
}

async fn aging(house: &House) -> Line {
    match house.foundations.keys.aging(SystemClock.now()).await {
        Ok(old) if old.is_empty() => line("key aging", State::On, "no secret in use is older than 90 days"),
        Ok(old) => {
            let ids: Vec<String> = old.iter().take(5).map(|key| key.id.to_string()).collect();
            line("key aging", State::Attention, format!("{} to rotate: {}", old.len(), ids.join(", ")))
        }
        Err(error) => line("key aging", State::Broken, error.to_string()),
    }
}

fn secrets(config: &Config) -> Line {
    let extra = config.redaction.extra_patterns.len();
    match config.redaction.secrets {
        Switch::On => line(
            "redaction of secrets",
            State::On,
            format!("every answer, error, notice, record and log line; {extra} own patterns"),
        ),
        Switch::Off => {
            line("redaction of secrets", State::Attention, "off: redaction.secrets; every credential in telemetry is shown")
        }
    }
}

fn people(config: &Config) -> Line {
    let pii = &config.redaction.pii;
    let all = [("email", pii.email), ("card", pii.card), ("iban", pii.iban), ("phone", pii.phone)];
    let shown: Vec<&str> = all.iter().filter(|(_, switch)| *switch == Switch::Off).map(|(name, _)| *name).collect();
    let addresses = match pii.ip {
        AddressMode::Off => "addresses are shown",
        AddressMode::Public => "public addresses become pseudonyms",
        AddressMode::All => "all addresses become pseudonyms",
    };
    let others =
        if shown.is_empty() { "mail, cards, accounts and phones too".to_owned() } else { format!("shown: {}", shown.join(", ")) };
    line("redaction of people", state(shown.is_empty() && pii.ip != AddressMode::Off), format!("{addresses}; {others}"))
}

fn frame(config: &Config) -> Line {
    match config.release.frame {
        Switch::On => line("untrusted text", State::On, "framed, hidden characters taken out, instructions flagged"),
        Switch::Off => {
            line("untrusted text", State::Attention, "not framed: release.frame is off; hidden characters are still taken out")
        }
    }
}

fn sanitising(config: &Config) -> Line {
    let rules = &config.sanitize;
    let all = [
        ("free_text", &rules.free_text),
        ("query", &rules.query),
        ("filter_value", &rules.filter_value),
        ("label_selector", &rules.label_selector),
        ("name", &rules.name),
        ("url", &rules.url),
    ];
    let off: Vec<&str> = all.iter().filter(|(_, rule)| rule.mode == SanitizeMode::Off).map(|(name, _)| *name).collect();
    if off.is_empty() {
        line(
            "text in arguments",
            State::On,
            "hidden characters and wrong schemes are refused or taken out, for every kind of field",
        )
    } else {
        line("text in arguments", State::Attention, format!("unchecked (sanitize): {}", off.join(", ")))
    }
}

fn approvals(config: &Config) -> Line {
    let settings = &config.approvals;
    let who = if settings.elicitation { "the client's user or an operator" } else { "an operator" };
    let eyes = if settings.four_eyes { "another one than who asks" } else { "also the one who asks" };
    line(
        "approvals",
        state(settings.four_eyes),
        format!("{who}, {eyes}; good once, for {}", format_duration(settings.lifetime.0)),
    )
}

fn profiles(config: &Config, house: &House) -> Line {
    use portcullis_config::ProfileMode;
    let accepted = house.profiles.accepted_count();
    match config.profiles.mode {
        ProfileMode::Off => line("behaviour profiles", State::Off, "profiles.mode is off"),
        ProfileMode::Observe => line("behaviour profiles", State::On, format!("observing; {accepted} accepted, none enforced")),
        ProfileMode::DryRun => {
            line("behaviour profiles", State::On, format!("deviations from {accepted} profiles are reported, none refused"))
        }
        ProfileMode::Enforce => {
            line("behaviour profiles", State::On, format!("{accepted} enforced; callers without one are refused"))
        }
    }
}

fn products(config: &Config) -> Line {
    let names: Vec<&str> = config.products.iter().map(|product| product.name.as_str()).collect();
    match names.as_slice() {
        [] => line("products", State::Off, "none is configured"),
        names => line("products", State::On, names.join(", ")),
    }
}

fn budget(config: &Config) -> Line {
    match config.limits.tokens_per_day {
        0 => line("token budget", State::Attention, "none: limits.tokens_per_day is 0"),
        tokens => line("token budget", State::On, format!("{tokens} a day for each caller")),
    }
}

fn retention(config: &Config) -> Line {
    let audit = &config.audit;
    let kept = match (&audit.retention.max_age, &audit.retention.max_size) {
        (None, None) => "kept for ever".to_owned(),
        (age, size) => {
            let parts = [age.map(|a| format!("for {}", format_duration(a.0))), size.map(|s| format!("up to {} bytes", s.0))];
            format!("kept {}", parts.into_iter().flatten().collect::<Vec<_>>().join(" and "))
        }
    };
    let every = format!("signed every {} records or {}", audit.checkpoints.records, format_duration(audit.checkpoints.every.0));
    let elsewhere = if audit.sinks.is_empty() { "; no copy leaves this machine (audit.sinks)" } else { "" };
    line("audit keeping", state(!audit.sinks.is_empty()), format!("{every}; {kept}{elsewhere}"))
}

/// Which inner networks each source may be asked in.
fn egress(config: &Config) -> Vec<Line> {
    let mut lines = vec![line(
        "egress",
        State::On,
        "one client; only configured origins; metadata services never; no proxies from the environment",
    )];
    for source in &config.sources {
        let SourceKind::Prometheus(settings) = &source.kind;
        if !settings.allow_addresses.is_empty() {
            let ranges = serde_json::to_value(&settings.allow_addresses).map(|v| v.to_string()).unwrap_or_default();
            lines.push(line("egress", State::Attention, format!("source {} may be at inner addresses: {ranges}", source.name)));
        }
    }
    lines
}
