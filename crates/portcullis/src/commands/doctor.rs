//! `portcullis doctor` and the start-up report: every control and every source, with its state and the mend.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::bail;
use portcullis_audit::{SinkState, VerifyOptions, VerifyReport, sink_states, verify_with};
use portcullis_config::{ClientCertificates, HealthFor};
use portcullis_gateway::SharedRates;
use portcullis_guard::Redactions;
use portcullis_identity::KeyStatus;
use portcullis_model::{Clock, SystemClock, format_duration, format_timestamp};
use portcullis_ports::Standing;
use portcullis_wire::Certificates;
use serde::Serialize;

use super::{guards, opt_outs};
use crate::cli::OutputArgs;
use crate::house::{House, audit_directory, redactor, refuse_open_doors, source_warnings};
use crate::operations::SourceReport;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json};

/// State of one control or source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In force, or up.
    On,
    /// Not in force, on purpose.
    Off,
    /// In force, and something should be looked at.
    Attention,
    /// Not working.
    Broken,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// `control`, `opt-out`, `extension` or `source`.
    pub kind: &'static str,
    /// What.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// In words, with the mend where there is one.
    pub detail: String,
}

/// How long other servers may take to be reached before the report says that they were not.
const FIRST_LOOK: std::time::Duration = std::time::Duration::from_secs(10);

/// Runs `portcullis doctor`.
pub async fn run(config: &Config, output: &OutputArgs) -> anyhow::Result<()> {
    refuse_open_doors(config)?;
    crate::look::refuse_other_schema(config).await?;
    let house = House::open(config).await?;
    for upstream in house.extensions.upstreams() {
        let _ = tokio::time::timeout(FIRST_LOOK, upstream.first_look()).await;
    }
    let lines = self::lines(config, &house).await;
    house.close().await;
    let broken = lines.iter().filter(|l| l.state == State::Broken).count();
    if output.json {
        say_json(&serde_json::to_value(&lines)?);
    } else {
        for line in &lines {
            let mark = match line.state {
                State::On => paint::good("on       "),
                State::Off => paint::faint("off      "),
                State::Attention => paint::warn("attention"),
                State::Broken => paint::bad("broken   "),
            };
            say(format!("{mark} {:<9} {:<22} {}", line.kind, line.name, line.detail));
        }
    }
    if broken > 0 {
        bail!("{broken} of {} are broken", lines.len());
    }
    Ok(())
}

/// The report as text lines, for the log at start-up.
pub async fn report(config: &Config, house: &House) -> String {
    let mut text = String::new();
    for line in lines(config, house).await {
        let state = serde_json::to_value(line.state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {}: {state}: {}", line.kind, line.name, line.detail);
    }
    text
}

/// Every line of the report.
pub async fn lines(config: &Config, house: &House) -> Vec<Line> {
    let mut lines = controls(config, house).await;
    lines.extend(guards::lines(config, house).await);
    lines.extend(opt_outs::lines(config, &house.gateway));
    let outside = crate::outside::report(house).await;
    let outside = crate::acme::line(config).into_iter().chain(outside).chain(super::plugin::hub::report(config));
    lines.extend(outside.map(|(name, state, detail)| Line { kind: "control", name, state, detail }));
    lines.extend(house.extensions.report().into_iter().map(|report| Line {
        kind: "extension",
        name: report.name,
        state: match report.standing {
            Standing::On => State::On,
            Standing::Off => State::Off,
            Standing::Attention => State::Attention,
            Standing::Broken => State::Broken,
        },
        detail: report.detail,
    }));
    lines.extend(sources(house).await);
    lines.extend(source_warnings(config).into_iter().map(|detail| Line {
        kind: "source",
        name: "settings".into(),
        state: State::Attention,
        detail,
    }));
    // Backends put what they like into versions and messages.
    if let Ok(redactor) = redactor(config, &[]) {
        for line in &mut lines {
            line.detail = redactor.text(&line.detail, &mut Redactions::default()).into_owned();
        }
    }
    lines
}

async fn controls(config: &Config, house: &House) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |name: &str, state: State, detail: String| {
        lines.push(Line { kind: "control", name: name.to_owned(), state, detail });
    };
    let loopback = config.listen.mcp.ip().is_loopback();
    let where_to = if loopback { "this machine only" } else { "other machines can reach it" };
    for (name, state, detail) in tls_lines(config) {
        add(name, state, detail);
    }
    if config.admin.enabled {
        let (state, detail) = admin_line(config, house).await;
        add("admin listener", state, detail);
    } else {
        add("admin listener", State::Off, "admin.enabled is false: no metrics, no health, no administration over HTTP".into());
    }
    add("mcp listener", if loopback { State::On } else { State::Attention }, format!("{} ({where_to})", config.listen.mcp));
    let now = SystemClock.now();
    match house.foundations.keys.list().await {
        Ok(keys) => {
            let active = keys.iter().filter(|k| k.status(now) == KeyStatus::Active).count();
            let state = if active > 0 || loopback { State::On } else { State::Broken };
            let hint = if active == 0 { "; make one: portcullis key create --label NAME" } else { "" };
            add("api keys", state, format!("{active} active of {}{hint}", keys.len()));
        }
        Err(error) => add("api keys", State::Broken, error.to_string()),
    }
    match &config.listen.anonymous_role {
        Some(role) => add("anonymous callers", State::Attention, format!("let in from this machine as '{role}'")),
        None => add("anonymous callers", State::On, "refused".into()),
    }
    add("roles and policies", State::On, format!("built-in roles, {} own files", config.policies.len()));
    match config.write.enable.as_slice() {
        [] => add("write gate", State::On, "closed: no writing tool exists".into()),
        open => add("write gate", State::Attention, format!("open for {}", open.join(", "))),
    }
    let limits = &config.limits;
    add(
        "limits",
        State::On,
        format!(
            "{}/s, burst {}, {} at once per caller, {} in all, {} deadline",
            limits.calls_per_second,
            limits.burst,
            limits.concurrent_per_principal,
            limits.concurrent,
            format_duration(limits.deadline.0)
        ),
    );
    let others = SharedRates::replicas(&*house.foundations.store()).await;
    add(
        "shared limits",
        State::On,
        match others {
            Ok(0) => "no replica uses this store at the moment; as soon as there are two, rates hold over all".to_owned(),
            Ok(some) => format!("{some} replicas use this store; rates hold over all of them together"),
            Err(error) => format!("the store cannot be read: {error}"),
        },
    );
    add("argument schemas", State::On, "unknown and malformed arguments are refused".into());
    match house.foundations.audit.health() {
        Ok(()) => match verified(config).await {
            Ok(report) if report.is_intact() => add("audit", State::On, format!("{} records, chain intact", report.records())),
            Ok(report) => add("audit", State::Broken, format!("{} findings; see portcullis audit verify", report.findings.len())),
            Err(error) => add("audit", State::Broken, format!("{error:#}")),
        },
        Err(reason) => add("audit", State::Broken, format!("calls are refused: {reason}")),
    }
    for sink in sink_states(&audit_directory(config), &config.audit.sinks, now) {
        let (state, detail) = sink_line(&sink);
        add(&format!("audit sink {}", sink.name), state, detail);
    }
    if config.ingest.enabled && config.store.enabled {
        let public = !config.ingest.http.ip().is_loopback() || !config.ingest.grpc.ip().is_loopback();
        let keys = if config.ingest.loopback_without_key {
            "other machines need a key of scope ingest"
        } else {
            "every sender needs a key of scope ingest"
        };
        add(
            "otlp door",
            if public { State::Attention } else { State::On },
            format!("{} and {}; {keys}", config.ingest.http, config.ingest.grpc),
        );
    } else {
        add("otlp door", State::Off, "no telemetry is accepted".into());
    }
    if let Some(store) = &house.store {
        let stats = store.stats();
        let (state, note) = match (&stats.last_error, stats.damage.as_slice()) {
            (Some(error), _) => (State::Broken, format!("; {error}")),
            (None, [first, ..]) => (State::Attention, format!("; {first}")),
            (None, []) => (State::On, String::new()),
        };
        add("embedded store", state, format!("{} rows, {} bytes on disk{note}", stats.rows(), stats.segment_bytes()));
    } else if !config.store.enabled {
        add("embedded store", State::Off, "store.enabled is false".into());
    }
    lines
}

/// The admin listener: who reaches it, and who could come in.
async fn admin_line(config: &Config, house: &House) -> (State, String) {
    let near = config.admin.listen.ip().to_canonical().is_loopback();
    let where_to = if near { "this machine only" } else { "other machines can reach it" };
    let health = match config.admin.health {
        HealthFor::Anyone => "a bare alive and ready without a credential",
        HealthFor::ThisMachine => "a bare alive and ready without a credential on this machine",
    };
    let place = format!("{} ({where_to}); {health}", config.admin.listen);
    match super::admin::ways_in(config, house).await {
        Ok(ways) if ways.is_empty() => {
            let mend = "portcullis key create --label NAME --scope admin --role admin, or --scope metrics";
            (if near { State::On } else { State::Broken }, format!("{place}; nobody can come in yet: {mend}"))
        }
        Ok(ways) => (if near { State::On } else { State::Attention }, format!("{place}; opened by {}", ways.join(", "))),
        Err(error) => (State::Broken, format!("{place}; {error:#}")),
    }
}

/// Checks the audit log, on a thread that may wait for a disk.
async fn verified(config: &Config) -> anyhow::Result<VerifyReport> {
    let (directory, options) = (audit_directory(config), with_key(config));
    Ok(tokio::task::spawn_blocking(move || verify_with(&directory, &options)).await??)
}

/// The key the audit log is checked with.
fn with_key(config: &Config) -> VerifyOptions {
    VerifyOptions { key_file: config.audit.key_file.clone(), ..VerifyOptions::default() }
}

/// How an audit sink stands, in words.
fn sink_line(sink: &SinkState) -> (State, String) {
    let mut detail = format!("{}, {} records delivered", sink.kind, sink.delivered);
    if sink.lag_records > 0 {
        let _ = write!(detail, ", {} waiting for {} s", sink.lag_records, sink.lag_seconds);
    }
    for (count, what) in [(sink.set_aside, "refused by it for good"), (sink.lost, "gone before it got them")] {
        if count > 0 {
            let _ = write!(detail, ", {count} {what}");
        }
    }
    if let Some(error) = &sink.last_error {
        let _ = write!(detail, "; {error}");
    }
    if let Some(reason) = &sink.blocking {
        return (State::Broken, format!("{detail}; calls are refused: {reason}"));
    }
    let fine = sink.last_error.is_none() && sink.set_aside == 0 && sink.lost == 0;
    (if fine { State::On } else { State::Attention }, detail)
}

/// How what is said to the listeners is protected.
fn tls_lines(config: &Config) -> Vec<(&'static str, State, String)> {
    let doors = match crate::wire::Doors::load(config) {
        Ok(doors) => doors,
        Err(error) => return vec![("tls", State::Broken, format!("{error:#}"))],
    };
    let mut lines = Vec::new();
    let mut add = |name, certificates: Option<&Arc<Certificates>>, near: bool| {
        let Some(certificates) = certificates else {
            let (state, detail) = if near {
                (State::Off, "clear text, which does not leave this machine")
            } else {
                (State::Attention, "clear text: somebody else must encrypt it, as plaintext: i-terminate-tls-elsewhere says")
            };
            lines.push((name, state, detail.to_owned()));
            return;
        };
        let settings = certificates.settings();
        let clients = match settings.client_certificates {
            ClientCertificates::None => "clients are not asked for a certificate",
            ClientCertificates::Optional => "clients may show a certificate",
            ClientCertificates::Required => "clients must show a certificate",
        };
        let Some(until) = certificates.expires_at() else {
            let detail = "there is no certificate yet, and every handshake is refused; see the line acme";
            lines.push((name, State::Broken, detail.to_owned()));
            return;
        };
        let (state, hint) = match certificates.ends_soon() {
            // What is ordered here has a line of its own.
            Some(_) if settings.acme.is_none() => {
                (State::Attention, "; renew it, the new files are taken over without a restart")
            }
            _ => (State::On, ""),
        };
        let until = format_timestamp(until);
        lines.push((name, state, format!("{}, valid until {until}{hint}; {clients}", certificates.file().display())));
    };
    add("mcp tls", doors.mcp.as_ref(), config.listen.mcp.ip().to_canonical().is_loopback());
    if config.admin.enabled {
        add("admin tls", doors.admin.as_ref(), config.admin.listen.ip().to_canonical().is_loopback());
    }
    if crate::wire::takes_telemetry(config) {
        let near = [config.ingest.http, config.ingest.grpc].iter().all(|address| address.ip().to_canonical().is_loopback());
        add("otlp tls", doors.otlp_http.as_ref(), near);
    }
    lines
}

async fn sources(house: &House) -> Vec<Line> {
    let line = |source: SourceReport| {
        let mut detail = format!("{} ({})", source.kind, source.signals.join(", "));
        for part in [source.version, source.message].into_iter().flatten() {
            let _ = write!(detail, "; {part}");
        }
        let state = if source.up { State::On } else { State::Attention };
        Line { kind: "source", name: source.name, state, detail }
    };
    crate::operations::sources(house).await.into_iter().map(line).collect()
}
