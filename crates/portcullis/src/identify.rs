//! Who may come in, put together from the configuration: API keys, users, certificates, access tokens, the local user.
//! Guards that a role nobody knows, or an issuer that cannot be trusted, stops the start instead of letting in nobody or
//! anybody.

use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_identity::token::Verifier;
use portcullis_identity::{Identity, KeyRing, local_principal, local_user};
use portcullis_model::Clock;
use portcullis_policy::Policies;

use crate::house::known_roles;
use crate::settings::Config;

/// Who may come in, and the verifier of access tokens where issuers are configured.
pub fn identity(
    config: &Config,
    keys: KeyRing,
    policies: &Policies,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(Identity, Option<Arc<Verifier>>)> {
    let local = local_principal(&local_user(), &config.stdio.role).context("stdio.role")?;
    let mut identity = Identity::new(Some(keys), local, clock.clone())
        .with_settings(&config.identity)
        .context("identity")?
        .with_open_ingest_on_loopback(config.ingest.loopback_without_key);
    if let Some(role) = &config.listen.anonymous_role {
        identity = identity.with_anonymous_loopback(role).context("listen.anonymous_role")?;
    }
    let tokens = verifier(config, policies, clock)?;
    if let Some(verifier) = &tokens {
        identity = identity.with_token_verifier(verifier.clone());
    }
    Ok((identity, tokens))
}

/// The verifier of access tokens; nothing where no issuer is configured. Asks nobody.
pub fn verifier(config: &Config, policies: &Policies, clock: &Arc<dyn Clock>) -> anyhow::Result<Option<Arc<Verifier>>> {
    let settings = &config.identity.tokens;
    let roles = known_roles(config);
    if let Some(role) = config.identity.roles().into_iter().find(|role| !roles.contains(*role)) {
        bail!("identity: there is no role '{role}'; name it under roles first");
    }
    settings.check(&roles).context("identity.tokens")?;
    if settings.issuers.is_empty() {
        return Ok(None);
    }
    let listen = config.listen.mcp;
    if settings.resource.is_none() && listen.ip().is_unspecified() {
        bail!(
            "identity.tokens.resource: write the URL clients use, such as https://mcp.example.com/mcp; {listen} is every address \
             of this machine, and none that a token could be made for"
        );
    }
    let scheme = if config.listen.tls.is_some() { "https" } else { "http" };
    let own = format!("{scheme}://{listen}/mcp");
    let verifier = Verifier::new(settings, &own, clock.clone(), |grant| policies.charter(grant)).context("identity.tokens")?;
    Ok(Some(Arc::new(verifier)))
}
