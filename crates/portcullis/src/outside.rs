//! What the house asks of others before a call goes on: secrets from where they are kept, and a decision of an outside
//! policy. Guards that both are checked at the start. Must not print a value.

use std::any::Any;
use std::sync::Arc;

use anyhow::Context;
use portcullis_audit::Sinks;
use portcullis_egress::CallerCredentials;
use portcullis_model::{Clock, SystemClock};
use portcullis_opa::OpaPolicy;
use portcullis_policy::Policies;
use portcullis_secrets::{SecretManager, SecretState};
use portcullis_tools::Sources;

use crate::callers::Callers;
use crate::commands::doctor::State;
use crate::extensions::Extensions;
use crate::house::{self, House};
use crate::rules::Rules;
use crate::settings::Config;

/// The manager of the secrets the configuration names, and of credentials in the names of callers. Reads none.
pub fn secrets(config: &Config, callers: Option<&Arc<Callers>>) -> anyhow::Result<SecretManager> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let manager = SecretManager::new(&config.secrets, &config.secret_stores, &clock)?;
    Ok(manager.with_callers(callers.cloned().map(|callers| -> Arc<dyn CallerCredentials> { callers })))
}

/// The secrets of the configuration, and everything that refers to one: what is given up with it is told no more.
pub struct SecretUsers {
    /// The manager.
    pub secrets: SecretManager,
    _users: Box<dyn Any + Send>,
}

impl SecretUsers {
    /// Introduces everybody who looks up a secret, without opening or asking anything.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let secrets = secrets(config, crate::callers::expected(config).as_ref())?;
        let extensions = Extensions::open(config, &secrets)?;
        let sources = Arc::new(Sources::new(house::all_sources(config, None, &secrets, &extensions)?)?);
        let known = crate::rulebook::known(config, &sources, &extensions, &clock).await?;
        let Rules { policies, .. } = house::load_policies(config, &known.catalogue, &extensions, &known.held(), 1)?;
        secrets.allow(&mut |grant| policies.charter(grant)).context("secret_stores")?;
        let sinks = Sinks::new(&config.audit.sinks, &mut |grant| policies.charter(grant), &secrets).context("audit")?;
        let exchanges = crate::callers::exchanges(config, &secrets, &policies, &clock)?;
        let external = policy(config, &policies, &secrets)?;
        let acme = crate::acme::keeper(config, &policies, &secrets)?;
        Ok(Self { secrets, _users: Box::new((extensions, sources, sinks, exchanges, external, acme)) })
    }
}

/// The outside policy, where one is configured. Asks nothing yet.
pub fn policy(config: &Config, policies: &Policies, secrets: &SecretManager) -> anyhow::Result<Option<Arc<OpaPolicy>>> {
    let Some(settings) = &config.external_policy else { return Ok(None) };
    let policy = OpaPolicy::new(settings, secrets, Arc::new(SystemClock), |grant| policies.charter(grant))?;
    Ok(Some(Arc::new(policy)))
}

/// Lines of the doctor: name, state and detail of each control.
pub async fn report(house: &House) -> Vec<(String, State, String)> {
    let mut lines = Vec::new();
    match &house.external {
        None => lines.push(("external policy".to_owned(), State::Off, "the rules of the configuration decide alone".to_owned())),
        Some(policy) => lines.push(match policy.check().await {
            Ok(()) => ("external policy".to_owned(), State::On, "answers; it can refuse what the rules allow".to_owned()),
            Err(reason) => ("external policy".to_owned(), State::Broken, format!("calls are refused: {reason}")),
        }),
    }
    let secrets = house.secrets();
    lines.extend(secrets.stores().await.into_iter().map(|store| {
        let name = format!("secret store {}", store.name);
        match store.state {
            Ok(detail) => (name, State::On, detail),
            Err(reason) => (name, State::Broken, format!("what needs it is refused: {reason}")),
        }
    }));
    lines.extend(secrets.report().await.into_iter().map(|r| {
        let state = match r.state {
            SecretState::Ok => State::On,
            SecretState::Expiring | SecretState::Overdue => State::Attention,
            SecretState::Expired | SecretState::Missing | SecretState::Refused | SecretState::Unavailable => State::Broken,
        };
        (format!("secret {}", r.name), state, format!("{}: {}", r.state.as_str(), r.detail))
    }));
    lines
}
