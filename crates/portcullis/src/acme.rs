//! Certificates from an authority, put together from the configuration: who orders, where challenges are answered, what
//! the audit log and the doctor are told.
//!
//! Must not let an order that fails pass in silence, and must not put anything in force: the listeners do, from the file.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use portcullis_acme::{Answers, Happening, Keeper, challenge_router, report};
use portcullis_audit::{AuditEvent, AuditLog, EventKind};
use portcullis_config::{AcmeSettings, CertificateOrigin, TrustedProxies};
use portcullis_model::{Clock, SystemClock, format_timestamp};
use portcullis_policy::Policies;
use portcullis_secrets::SecretManager;
use portcullis_wire::{ConnectionSettings, Refusals};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::commands::doctor::State;
use crate::house::House;
use crate::settings::Config;

/// The setting certificates are ordered by.
const SETTING: &str = "listen.tls.acme";
/// The name of the listener of challenges in records.
const TRANSPORT: &str = "acme";
/// The clear-text listener of challenges serves strangers with a few words each.
const CONNECTIONS: ConnectionSettings = ConnectionSettings { header_time: Duration::from_secs(5), connections: 128 };

/// What is ordered, where a certificate is.
pub fn settings(config: &Config) -> Option<&AcmeSettings> {
    match config.listen.tls.as_ref()?.origin() {
        Ok(CertificateOrigin::Acme(settings)) => Some(settings),
        _ => None,
    }
}

/// The keeper of the certificate, where one is ordered. Asks nobody yet.
pub fn keeper(config: &Config, policies: &Policies, secrets: &SecretManager) -> anyhow::Result<Option<Arc<Keeper>>> {
    let Some(settings) = settings(config) else { return Ok(None) };
    let keeper = Keeper::new(settings, &config.data, secrets, Arc::new(SystemClock), |grant| policies.charter(grant));
    let keeper = keeper.context(SETTING)?;
    router(settings, &Answers::new(settings), Arc::new(()))?;
    Ok(Some(Arc::new(keeper)))
}

/// What the clear-text listener of HTTP-01 serves, where there is one.
fn router(settings: &AcmeSettings, answers: &Answers, refusals: Arc<dyn Refusals>) -> anyhow::Result<Option<Router>> {
    let (Answers::Http(tokens), Some(http)) = (answers, &settings.http) else { return Ok(None) };
    challenge_router(tokens.clone(), &settings.domains, http, refusals).context(SETTING).map(Some)
}

/// Orders and renews among `tasks` until `stop`, and answers HTTP-01 challenges on `listener`.
pub fn start(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    keeper: &Arc<Keeper>,
    answers: Answers,
    listener: Option<TcpListener>,
    house: &House,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if let (Some(listener), Some(router)) = (listener, router(keeper.settings(), &answers, house.tally.at(TRANSPORT))?) {
        let (closing, wire) = (stop.clone(), crate::wire::wire(None, &TrustedProxies::default(), &house.tally, TRANSPORT));
        tasks.spawn(async move {
            let served = portcullis_wire::serve(listener, router, closing, CONNECTIONS, wire).await;
            served.context("serving HTTP-01 challenges")
        });
    }
    let (keeper, audit, stop) = (keeper.clone(), house.foundations.audit.clone(), stop.clone());
    tasks.spawn(async move {
        keeper.run(&answers, |happening| tell(&audit, &happening), &stop).await;
        Ok(())
    });
    Ok(())
}

fn tell(audit: &AuditLog, happening: &Happening) {
    let (operation, note) = match happening {
        Happening::Obtained { domains, until } => {
            let note = format!("for {}, valid until {}", domains.join(", "), format_timestamp(*until));
            tracing::info!("{SETTING}: a certificate was issued {note}");
            ("certificate.issued", note)
        }
        Happening::Failed { error, next } => {
            let note = format!("{error}; tried again {}", format_timestamp(*next));
            tracing::error!("{SETTING}: no certificate was issued: {note}");
            ("certificate.order-failed", note)
        }
        Happening::Elsewhere => {
            tracing::info!("{SETTING}: another process orders certificates for this data directory; its are used");
            return;
        }
    };
    let event = AuditEvent::operation(EventKind::Charter, operation, SETTING).note(note);
    if let Err(error) = audit.append(event) {
        tracing::error!(%error, "the audit log could not be written");
    }
}

/// The doctor's line about the certificate that is ordered.
pub fn line(config: &Config) -> Option<(String, State, String)> {
    let settings = settings(config)?;
    let now = SystemClock.now();
    let report = report(settings, &config.data, now);
    let ordered = format!("{} from {} by {}", settings.domains.join(", "), settings.directory, settings.challenge.as_str());
    let (mut state, held) = match (report.valid_until, report.unusable) {
        (Some(until), _) => (State::On, format!("valid until {}", format_timestamp(until))),
        (None, None) => (State::Broken, "there is no certificate yet, and handshakes are refused".to_owned()),
        (None, Some(why)) => (State::Broken, format!("the certificate that is kept cannot be used: {why}")),
    };
    let failure = report.failure.map(|failure| {
        if state == State::On {
            state = State::Attention;
        }
        format!("; the last order failed {}: {}", format_timestamp(failure.at), failure.reason)
    });
    let unheard = unheard(config, settings).map(|names| {
        if state == State::On {
            state = State::Attention;
        }
        format!("; listen.allowed_hosts does not name {names}, so requests to that name are refused")
    });
    let next = if report.next <= now {
        "next order: at once".to_owned()
    } else {
        format!("next order: {}", format_timestamp(report.next))
    };
    let more = [failure, unheard].into_iter().flatten().collect::<String>();
    Some(("acme".to_owned(), state, format!("{ordered}: {held}; {next}{more}")))
}

/// Names of the certificate that the Host rule does not take.
fn unheard(config: &Config, settings: &AcmeSettings) -> Option<String> {
    let heard = |domain: &&String| {
        let names = config.listen.allowed_hosts.iter().map(|host| host.split(':').next().unwrap_or_default());
        domain.as_str() == "localhost" || names.into_iter().any(|name| name.eq_ignore_ascii_case(domain))
    };
    let names: Vec<&str> = settings.domains.iter().filter(|domain| !heard(domain)).map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
