//! An upstream, or several of a kind, as an extension of the house. Guards that offering never waits for the other side, and
//! that standing work has one charter which reaches these upstreams and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use portcullis_egress::SecretResolver;
use portcullis_model::{Clock, Scope, ToolName};
use portcullis_policy::{Budget, Charter, CharterGrant};
use portcullis_ports::{Extension, Offer, Prefixes, Report, Standing, Taken, Witness};
use portcullis_state::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::definition::Kind;
use crate::examiner::Examiner;
use crate::health::Condition;
use crate::line::Keeping;
use crate::neighbours::{Neighbourhood, owner_of};
use crate::pins::{PinBook, PinState};
use crate::server::Server;
use crate::settings::Trust;
use crate::{PinError, UpstreamError, UpstreamSettings, watch as standing};

/// Longest piece of standing work: a stream of announcements.
const PIECE: Duration = Duration::from_mins(10);

/// Upstreams that offer their tools together.
pub struct Upstream {
    name: String,
    kind: Option<String>,
    servers: Vec<Arc<Server>>,
    neighbourhood: Arc<Neighbourhood>,
    revision: watch::Sender<u64>,
    left_out: Mutex<Vec<String>>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The upstreams of a configuration, those of one kind together. Nothing is started and no connection is opened.
///
/// # Errors
/// See [`UpstreamError`].
pub fn open(
    settings: &[UpstreamSettings],
    secrets: &dyn SecretResolver,
    keeping: Keeping,
) -> Result<Vec<Arc<Upstream>>, UpstreamError> {
    let examiner = Arc::new(Examiner::new().map_err(UpstreamError::Scanner)?);
    let neighbourhood = Arc::new(Neighbourhood::default());
    let mut names = BTreeSet::new();
    let mut units: Vec<(Option<String>, Vec<Arc<Server>>)> = Vec::new();
    for one in settings {
        let kind = one.kind.clone();
        for name in std::iter::once(&one.name).chain(&kind) {
            let of_kind = kind.as_ref() == Some(name) && units.iter().any(|(known, _)| *known == kind);
            if !of_kind && !names.insert(name.clone()) {
                return Err(one.wrong(format!("'{name}' names an upstream or a kind twice")).into());
            }
        }
        let server = Arc::new(Server::new(one.clone(), secrets, examiner.clone(), neighbourhood.clone(), keeping)?);
        match units.iter_mut().find(|(known, _)| kind.is_some() && *known == kind) {
            Some((_, servers)) => servers.push(server),
            None => units.push((kind, vec![server])),
        }
    }
    let unit = |(kind, servers): (Option<String>, Vec<Arc<Server>>)| {
        let own = kind.clone().or_else(|| servers.first().map(|s| s.name.to_string())).unwrap_or_default();
        let (revision, _) = watch::channel(0);
        Arc::new(Upstream {
            name: owner_of(&own),
            kind,
            servers,
            neighbourhood: neighbourhood.clone(),
            revision,
            left_out: Mutex::default(),
            stop: CancellationToken::new(),
        })
    };
    Ok(units.into_iter().map(unit).collect())
}

impl Upstream {
    /// Reads what was accepted. Until then nothing is offered.
    ///
    /// # Errors
    /// When the store cannot be read: nothing is offered then, rather than everything.
    pub async fn recall(&self, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<(), PinError> {
        for server in &self.servers {
            let pins = server.pins.get_or_init(|| PinBook::new(store.clone(), clock.clone(), &server.name));
            pins.refresh().await?;
            server.tell_neighbours();
        }
        Ok(())
    }

    /// Names of its upstreams, which rules and keys know as sources.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|server| &*server.name)
    }

    /// Names that tools of it may have one day, for rules: `*` stands for any text.
    pub fn expected_tools(&self) -> BTreeSet<String> {
        let prefixes = self.sources().map(str::to_owned).chain(self.kind.clone()).map(|name| format!("{name}_*"));
        let configured = self.servers.iter().flat_map(|server| server.settings.tools.clone()).filter(|name| name != "*");
        let known = self.servers.iter().filter_map(|server| server.pins.get()).flat_map(PinBook::all);
        let known = known.filter(|pin| pin.kind == Kind::Tool && ToolName::new(&pin.name).is_ok()).map(|pin| pin.name);
        prefixes.chain(configured).chain(known).collect()
    }

    /// The category under which its writing tools are enabled.
    pub fn category(&self) -> Option<String> {
        self.servers.first().map(|server| server.settings.category())
    }

    /// Headers that clients may send for it.
    pub fn client_headers(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().flat_map(|server| server.credentials.client_headers()).map(String::as_str)
    }

    /// Waits until every upstream has been reached, or could not be.
    pub async fn first_look(&self) {
        for server in &self.servers {
            while server.health.fitness.condition() == Condition::Unknown {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
    }

    /// What works and should be looked at all the same.
    pub fn warnings(&self) -> Vec<String> {
        self.servers.iter().flat_map(|server| server.warnings()).collect()
    }
}

#[async_trait]
impl Extension for Upstream {
    fn name(&self) -> &str {
        &self.name
    }

    /// Those of one kind hold names together, and what one of them held before it was of that kind.
    fn owners(&self) -> Vec<String> {
        let servers = self.servers.iter().map(|server| owner_of(&server.name)).filter(|owner| *owner != self.name);
        std::iter::once(self.name.clone()).chain(servers).collect()
    }

    fn charter(&self) -> CharterGrant {
        let destinations = self.servers.iter().filter_map(|server| server.origin()).map(str::to_owned).collect();
        let tenant = self.servers.first().map(|server| server.settings.tenant.clone());
        let message = self.servers.iter().map(|server| server.settings.limits.message.0).max().unwrap_or_default();
        CharterGrant {
            name: Arc::from(self.name.replace(' ', ".")),
            destinations,
            scope: Scope::tenant_wide(tenant.unwrap_or_else(portcullis_model::TenantId::default_tenant)),
            time_limit: PIECE,
            budget: Budget { backend_bytes: message, ..Budget::default() },
        }
    }

    fn start(&self, charter: Charter, witness: Arc<dyn Witness>) {
        for server in &self.servers {
            let _ = server.standing.set((charter.clone(), witness.clone()));
            if server.settings.trust == Trust::AcceptFirstSight {
                let note = "trust: accept_first_sight lets definitions in that no person saw".to_owned();
                server.record("upstream.unreviewed", server.name.to_string(), true, note);
            }
            tokio::spawn(standing::look_after(server.clone(), charter.clone(), self.stop.clone()));
            tokio::spawn(standing::follow_decisions(server.clone(), self.stop.clone()));
            let (mut revisions, own, stop) = (server.revision.subscribe(), self.revision.clone(), self.stop.clone());
            tokio::spawn(async move {
                while let Some(Ok(())) = stop.run_until_cancelled(revisions.changed()).await {
                    own.send_modify(|revision| *revision += 1);
                }
            });
        }
    }

    fn offer(&self, taken: &Taken) -> Offer {
        if taken.tools.is_empty() {
            // Asked for sources, of which it has none; tools are offered beside those of the house.
            return Offer::default();
        }
        self.neighbourhood.hold(&taken.held);
        let mut left_out = Vec::new();
        let offer = crate::offer::offer(&self.servers, self.kind.as_deref(), &self.owners(), taken, &mut left_out);
        *self.left_out.lock().unwrap_or_else(PoisonError::into_inner) = left_out;
        offer
    }

    fn learn(&self, names: &BTreeMap<String, String>, prefixes: &Prefixes) {
        self.neighbourhood.learn(names, prefixes);
    }

    fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    async fn changed(&self, seen: u64) -> u64 {
        let mut revisions = self.revision.subscribe();
        match revisions.wait_for(|now| *now != seen).await {
            Ok(now) => *now,
            Err(_) => seen,
        }
    }

    async fn updated(&self) -> BTreeSet<String> {
        futures::future::select_all(self.servers.iter().map(|server| Box::pin(server.ear.updated()))).await.0
    }

    fn report(&self) -> Vec<Report> {
        let mut lines: Vec<Report> = self.servers.iter().map(|server| report(server)).collect();
        let left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lines.extend(left_out.into_iter().map(|detail| Report {
            name: self.name.clone(),
            standing: Standing::Attention,
            detail,
        }));
        lines
    }

    async fn stop(&self) {
        self.stop.cancel();
        futures::future::join_all(self.servers.iter().map(|server| server.close())).await;
    }
}

/// How one upstream stands.
fn report(server: &Server) -> Report {
    let pins = server.pins.get().map(PinBook::all).unwrap_or_default();
    let count = |state: PinState| pins.iter().filter(|pin| pin.kind != Kind::Protocol && pin.state() == state).count();
    let (accepted, waiting, rejected) =
        (count(PinState::Accepted), count(PinState::New) + count(PinState::Changed), count(PinState::Rejected));
    let mut parts = vec![format!("{accepted} definitions accepted")];
    if rejected > 0 {
        parts.push(format!("{rejected} rejected"));
    }
    let mut standing = Standing::On;
    let older = pins.iter().any(|pin| pin.kind == Kind::Protocol && pin.state() != PinState::Accepted);
    if waiting > 0 || older {
        standing = Standing::Attention;
        let what = if older { "and its protocol revision wait" } else { "wait" };
        parts.push(format!("{waiting} {what} for a person: portcullis upstream review {}", server.name));
    }
    if server.settings.trust == Trust::AcceptFirstSight {
        standing = Standing::Attention;
        parts.push("trust: accept_first_sight lets definitions in that no person saw".to_owned());
    }
    let oddities = server.oddities.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !oddities.is_empty() {
        standing = Standing::Attention;
        parts.extend(oddities);
    }
    let missed = server.ear.missed();
    if missed > 0 {
        parts.push(format!(
            "{missed} log messages of it reached nobody: nobody called, or it could not be told which of several \
             callers they are for"
        ));
    }
    match server.health.fitness.condition() {
        Condition::Unknown => parts.push("not reached yet".to_owned()),
        Condition::Well => {}
        Condition::Failing(why) => {
            standing = Standing::Broken;
            parts.insert(0, why);
        }
    }
    Report { name: format!("upstream {}", server.name), standing, detail: parts.join("; ") }
}
