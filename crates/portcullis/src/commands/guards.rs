//! The lines of `portcullis doctor` about what passes the gate, who is let in, and what is remembered: read from the
//! settings in force and from the running house, never assumed.

use portcullis_audit::Reaction;
use portcullis_config::{Plaintext, RateSettings, Sessions, TrustedProxies};
use portcullis_guard::{AddressMode, SanitizeMode, StrictLimits, Switch};
use portcullis_identity::AcceptedCredentials;
use portcullis_model::{Clock, SystemClock, format_duration};

use super::doctor::{Line, State};
use crate::house::House;
use crate::settings::Config;

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
    vec![
        hosts(config),
        pages(config),
        headers(config),
        credentials("credentials for mcp", config, config.identity.mcp, config.listen.anonymous_role.is_some()),
        credentials("credentials for otlp", config, config.identity.ingest, config.ingest.loopback_without_key),
        credentials("credentials for admin", config, config.identity.admin, false),
        lockout(config),
        proxies(config),
        aging(house).await,
        secrets(config),
        people(config),
        frame(config),
        sanitising(config),
        approvals(config),
        profiles(config, house),
        products(config),
        rates(config),
        budget(config),
        sessions(config),
        bounds(config),
        retention(config),
        on_failure(config),
        egress(),
    ]
}

/// Whether a listener is there to speak of.
fn is_opened(config: &Config, at: &str) -> bool {
    match at {
        "admin" => config.admin.enabled,
        "otlp" => crate::wire::takes_telemetry(config),
        _ => true,
    }
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

/// Who is believed about whom it speaks for, listener by listener.
fn proxies(config: &Config) -> Line {
    let mut listeners = vec![("listen", &config.listen.trusted_proxies, config.listen.plaintext)];
    if config.admin.enabled {
        listeners.push(("admin", &config.admin.trusted_proxies, config.admin.plaintext));
    }
    if crate::wire::takes_telemetry(config) {
        listeners.push(("ingest", &config.ingest.trusted_proxies, config.ingest.plaintext));
    }
    let unnamed = |(_, proxies, plaintext): &&(_, &TrustedProxies, Option<Plaintext>)| plaintext.is_some() && proxies.is_empty();
    if let Some((section, ..)) = listeners.iter().find(unnamed) {
        let detail = format!(
            "{section}.plaintext says that a proxy stands in front, and {section}.trusted_proxies names none: everybody behind it \
             counts as one address"
        );
        return line("trusted proxies", State::Attention, detail);
    }
    let named: Vec<String> = listeners
        .iter()
        .filter(|(_, proxies, _)| !proxies.is_empty())
        .map(|(section, proxies, _)| format!("{section}: {proxies}"))
        .collect();
    let detail = if named.is_empty() {
        "none: what a request says about where it comes from is believed of nobody".to_owned()
    } else {
        format!("believed about their clients: {}; nobody else is", named.join("; "))
    };
    line("trusted proxies", State::On, detail)
}

async fn aging(house: &House) -> Line {
    match house.foundations.keys.aging(SystemClock.now()).await {
        Ok(old) if old.is_empty() => {
            line("key aging", State::On, "no secret in use is older than 90 days, and no key ends within 14")
        }
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
            let detail = format!(
                "{accepted} enforced; callers without one are refused; calls a minute count at whichever replica of the store they \
                 are made"
            );
            line("behaviour profiles", State::On, detail)
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
    let told = |tokens: u64, setting: &str, whom: &str| match tokens {
        0 => format!("none for {whom}: {setting} is 0"),
        tokens => format!("{tokens} a day for {whom}"),
    };
    let (caller, tenant) = (config.limits.tokens_per_day, config.limits.tenant.tokens_per_day);
    let caller_says = told(caller, "limits.tokens_per_day", "each caller");
    let tenant_says = told(tenant, "limits.tenant.tokens_per_day", "each tenant");
    line("token budget", state(caller > 0 && tenant > 0), format!("{caller_says}; {tenant_says}"))
}

fn on_failure(config: &Config) -> Line {
    let policy = &config.audit.on_failure;
    let classes = [("read", policy.read), ("write", policy.write)];
    let going_on: Vec<&str> =
        classes.iter().filter(|(_, reaction)| *reaction == Reaction::Continue).map(|(class, _)| *class).collect();
    match going_on.as_slice() {
        [] => line("no record, no answer", State::On, "calls stop while their record cannot be written"),
        classes => line(
            "no record, no answer",
            State::Attention,
            format!("calls go on without a record: audit.on_failure of {}", classes.join(", ")),
        ),
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

fn rates(config: &Config) -> Line {
    let limits = &config.limits;
    let rate = |settings: &RateSettings| format!("{}/s, burst {}", settings.per_second, settings.burst);
    let tenant = &limits.tenant;
    line(
        "rates",
        State::On,
        format!(
            "an address before it is known {}; a tool {}; one that writes {}; a tenant {}/s, burst {}, {} at once; all together {}",
            rate(&limits.address),
            rate(&limits.tool),
            rate(&limits.write),
            tenant.calls_per_second,
            tenant.burst,
            tenant.concurrent,
            rate(&limits.global)
        ),
    )
}

fn sessions(config: &Config) -> Line {
    let listen = &config.listen;
    let who = match listen.sessions {
        Sessions::Needed => "for clients that need one",
        Sessions::All => "for every client of an older era",
        Sessions::None => "for nobody",
    };
    let bounds = format!(
        "{} per principal, {} in all, ended after {} of silence",
        listen.max_sessions_per_principal,
        listen.max_sessions,
        format_duration(listen.session_ttl.0)
    );
    line("sessions", State::On, format!("{who}; {bounds}"))
}

fn bounds(config: &Config) -> Line {
    let (listen, json) = (&config.listen, StrictLimits::default());
    let bodies = [("mcp", listen.max_body), ("admin", config.admin.max_body), ("otlp", config.ingest.max_body)];
    let bodies: Vec<String> =
        bodies.iter().filter(|(at, _)| is_opened(config, at)).map(|(at, most)| format!("{} ({at})", most.0)).collect();
    line(
        "request bounds",
        State::On,
        format!(
            "bodies {} bytes; JSON {} deep with {} members; heads within {}; {} connections",
            bodies.join(", "),
            json.depth,
            json.members,
            format_duration(listen.header_time.0),
            listen.max_connections
        ),
    )
}

fn hosts(config: &Config) -> Line {
    let all =
        [("mcp", &config.listen.allowed_hosts), ("admin", &config.admin.allowed_hosts), ("otlp", &config.ingest.allowed_hosts)];
    let more: Vec<String> = all
        .into_iter()
        .filter(|(at, names)| is_opened(config, at) && !names.is_empty())
        .map(|(at, names)| format!("{at} also {}", names.join(", ")))
        .collect();
    let detail = if more.is_empty() { String::new() } else { format!("; {}", more.join("; ")) };
    line("host and origin check", state(more.is_empty()), format!("loopback names{detail}"))
}

fn pages(config: &Config) -> Line {
    match config.listen.allowed_origins.as_slice() {
        [] => line("pages of others (CORS)", State::On, "refused, whatever their origin"),
        origins => line("pages of others (CORS)", State::Attention, format!("let in: {}", origins.join(", "))),
    }
}

fn headers(config: &Config) -> Line {
    let (listen, admin, ingest) = (&config.listen, &config.admin, &config.ingest);
    let all = [
        ("mcp", listen.tls.is_some() || !listen.trusted_proxies.is_empty()),
        ("admin", admin.tls.is_some() || !admin.trusted_proxies.is_empty()),
        ("otlp", ingest.tls.is_some() || !ingest.trusted_proxies.is_empty()),
    ];
    let inside: Vec<&str> = all.into_iter().filter(|(at, tls)| *tls && is_opened(config, at)).map(|(at, _)| at).collect();
    let hsts = if inside.is_empty() {
        "no listener speaks TLS or trusts a proxy that could, so HSTS is not sent".to_owned()
    } else {
        format!("HSTS at {} (where TLS ends here or a trusted proxy says so)", inside.join(", "))
    };
    line("security headers", State::On, format!("on every answer; {hsts}"))
}

fn egress() -> Line {
    let how = "one client; only configured origins; metadata services never; no proxies from the environment";
    line("egress", State::On, format!("{how}; inner networks only as allow_addresses says"))
}
