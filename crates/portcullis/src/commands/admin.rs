//! The admin listener of `portcullis serve`: whether somebody could come in, and what it is made of.
//!
//! Guards that it is not opened to other machines while nobody could prove who they are there.

use std::sync::Arc;

use anyhow::bail;
use portcullis_config::{AdminSettings, HealthFor};
use portcullis_console::{ConsoleParts, ConsoleSettings};
use portcullis_identity::{Door, KeyStatus};
use portcullis_mcp::SessionCount;
use portcullis_model::{Clock, SystemClock};
use portcullis_wire::HostPolicy;
use tokio_util::sync::CancellationToken;

use crate::house::House;
use crate::settings::Config;
use crate::steward::HouseSteward;
use crate::wire::Doors;

/// The kinds of credentials that open the admin listener today, in words; empty when nobody could come in.
pub async fn ways_in(config: &Config, house: &House) -> anyhow::Result<Vec<String>> {
    let identity = &config.identity;
    let accepted = identity.admin;
    let opens = |doors: &std::collections::BTreeSet<Door>| doors.contains(&Door::Admin) || doors.contains(&Door::Metrics);
    let mut ways = Vec::new();
    let now = SystemClock.now();
    let keys = house.foundations.keys.list().await?;
    let keys = keys.iter().filter(|key| key.status(now) == KeyStatus::Active && opens(&key.doors)).count();
    let users = identity.users.iter().filter(|user| opens(&user.doors)).count();
    let rules = identity.certificates.iter().filter(|rule| opens(&rule.doors)).count();
    let asks = config.admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let scopes = identity.tokens.issuers.iter().flat_map(|issuer| issuer.scopes.values());
    let scopes = scopes.filter(|grant| opens(&grant.doors)).count();
    for (way, count, on) in [
        ("keys", keys, accepted.key),
        ("users with a password", users, accepted.basic),
        ("scopes of tokens", scopes, accepted.token),
        ("rules for client certificates", rules, accepted.certificate && asks),
    ] {
        if on && count > 0 {
            ways.push(format!("{count} {way}"));
        }
    }
    Ok(ways)
}

/// An admin listener other machines can reach is refused while nobody could authenticate at it.
pub async fn refuse_public_without_ways_in(config: &Config, house: &House) -> anyhow::Result<()> {
    let AdminSettings { enabled, listen, .. } = config.admin;
    if !enabled || listen.ip().to_canonical().is_loopback() || !ways_in(config, house).await?.is_empty() {
        return Ok(());
    }
    bail!(
        "admin.listen is {listen}, which other machines can reach, and nobody could authenticate there: make a key with \
         `portcullis key create --label NAME --scope admin --role admin` (or --scope metrics for a scraper), or listen on 127.0.0.1"
    );
}

/// What the admin listener serves.
pub fn parts(
    config: &Config,
    house: &Arc<House>,
    doors: &Doors,
    sessions: &SessionCount,
    closing: &CancellationToken,
) -> anyhow::Result<ConsoleParts> {
    let hosts = HostPolicy::loopback().with_allowed(&config.admin.allowed_hosts, [] as [&str; 0])?;
    Ok(ConsoleParts {
        gateway: house.gateway.clone(),
        steward: Arc::new(HouseSteward::new(house.clone(), doors.clone(), sessions.clone())),
        metrics: house.metrics.clone(),
        refusals: house.tally.at("admin"),
        settings: ConsoleSettings {
            hosts,
            body_limit: usize::try_from(config.admin.max_body.0)?,
            health: match config.admin.health {
                HealthFor::Anyone => portcullis_console::HealthFor::Anyone,
                HealthFor::ThisMachine => portcullis_console::HealthFor::ThisMachine,
            },
            closing: closing.clone(),
            ..ConsoleSettings::default()
        },
    })
}
