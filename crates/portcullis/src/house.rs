//! Where the rooms are wired together: the only place that knows all of them.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use portcullis_acme::Keeper;
use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind, Shippers, SinkState, SinkView, Sinks};
use portcullis_config::RateSettings;
use portcullis_connectors::prometheus::PrometheusSource;
use portcullis_console::{MeasuredRecorder, Metrics};
use portcullis_gateway::{
    Admission, Approvals, BYTES_PER_TOKEN, Catalogue, Gateway, GatewayParts, LimitSettings, Profiles, Rate, Recorder,
    SharedRates, TokenLedger,
};
use portcullis_guard::{AddressMode, Redactions, Redactor, Releaser};
use portcullis_identity::token::Verifier;
use portcullis_identity::{KeyRing, Pepper, local_principal, local_user};
use portcullis_model::{Clock, KeyId, Principal, Scope, SourceName, SystemClock, TenantId, WriteCategory};
use portcullis_opa::OpaPolicy;
use portcullis_policy::{
    BUILT_IN_ROLES, Budget, Charter, CharterGrant, ExternalPolicy, Policies, PolicyText, Products, Vocabulary,
};
use portcullis_ports::{Source, Standing};
use portcullis_secrets::SecretManager;
use portcullis_state::SqliteStore;
use portcullis_telemetry::{EmbeddedSource, StatementProgram, Store, StoreError};
use portcullis_tools::Sources;
use zeroize::Zeroizing;

use crate::callers::Callers;
use crate::extensions::Extensions;
use crate::furnish::NameWriter;
use crate::look;
use crate::names::NameBook;
use crate::record::AuditRecorder;
use crate::refusals::Tally;
use crate::rules::{self, Rules};
use crate::scrub::AnswerScrubber;
use crate::secret_watch::SecretWatch;
use crate::settings::{Config, SourceKind};
use crate::unavailable::Unavailable;

/// Every so many seconds secret stores are asked, this server's tokens there are kept alive, and values that are over are
/// forgotten.
const TEND: u64 = 5;

/// The name of the embedded store among the sources.
pub const EMBEDDED: &str = "embedded";

/// Until what could not be taken over is tried again.
const ANOTHER_TRY: Duration = Duration::from_secs(2);

/// Keys and audit: what every command that changes something needs.
pub struct Foundations {
    /// API keys.
    pub keys: KeyRing,
    /// The audit log.
    pub audit: Arc<AuditLog>,
    state: Arc<SqliteStore>,
    /// Key of the pseudonyms in answers.
    pseudonyms: Zeroizing<[u8; 32]>,
}

impl Foundations {
    /// Opens what is kept in the data directory, creating it when absent.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (keys, state, pseudonyms) = Self::keys_alone(config).await?;
        let directory = audit_directory(config);
        private_directory(&directory)?;
        let options = config.audit.options().context("audit")?;
        let audit = AuditLog::open_with(&directory, clock, options)
            .with_context(|| format!("opening the audit log in {}", directory.display()))?;
        Ok(Self { keys, audit: Arc::new(audit), state, pseudonyms })
    }

    /// The keys, with the state they are in and the key of the pseudonyms: all a revocation needs, which goes through where
    /// nothing can be recorded.
    pub async fn keys_alone(config: &Config) -> anyhow::Result<(KeyRing, Arc<SqliteStore>, Zeroizing<[u8; 32]>)> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        private_directory(&config.data)?;
        let state = SqliteStore::open(&look::state_file(config), clock.clone())
            .await
            .with_context(|| format!("opening the state in {}", config.data.display()))?;
        let state = Arc::new(state);
        let pepper = Pepper::load_or_create(&config.data.join("pepper"))?;
        let pseudonyms = Zeroizing::new(*pepper.expose());
        let keys = KeyRing::open(state.clone(), clock, pepper).await?;
        keys.refresh().await?;
        Ok((keys, state, pseudonyms))
    }

    /// The small durable state.
    pub fn store(&self) -> Arc<dyn portcullis_state::Store> {
        self.state.clone()
    }

    /// Records something done to a key.
    pub fn audit_key_by(&self, who: &Principal, method: &'static str, key: &KeyId) -> anyhow::Result<()> {
        self.audit.append(AuditEvent::new(EventKind::Key).principal(who).method(method).key(key.clone()))?;
        Ok(())
    }

    /// Records something the local user does to plugins or to what is trusted.
    pub fn audit_plugin(&self, method: &'static str, subject: &str, decision: Decision, note: &str) -> anyhow::Result<()> {
        let who = local_principal(&local_user(), "admin")?;
        let event = AuditEvent::new(EventKind::Plugin).principal(&who).method(method).tool(subject.to_owned());
        self.audit.append(event.decided(decision, method).note(note.to_owned()))?;
        Ok(())
    }

    /// The book of approvals.
    pub fn approvals(&self, config: &Config) -> Approvals {
        look::approvals(config, self.state.clone())
    }

    /// The book of behaviour profiles.
    pub async fn profiles(&self, config: &Config) -> anyhow::Result<Profiles> {
        look::profiles(config, self.state.clone()).await
    }

    /// Closes in good order.
    pub async fn close(self) {
        if let Err(error) = self.audit.close() {
            tracing::error!(%error, "the audit log could not be closed");
        }
        self.state.close().await;
    }
}

/// Where the audit log is.
pub fn audit_directory(config: &Config) -> PathBuf {
    config.audit.directory_in(&config.data)
}

/// Role names keys may carry.
pub fn known_roles(config: &Config) -> BTreeSet<String> {
    let built_in = BUILT_IN_ROLES.into_iter().filter(|role| *role != "anonymous").map(str::to_owned);
    built_in.chain(config.roles.iter().cloned()).collect()
}

/// The running house.
pub struct House {
    /// Keys and audit.
    pub foundations: Foundations,
    /// The gate and what it guards.
    pub gateway: Arc<Gateway>,
    /// The daily token accounts.
    pub ledger: Arc<TokenLedger>,
    /// The rates this replica shares with the others of its store.
    pub rates: Arc<SharedRates>,
    /// Behaviour profiles.
    pub profiles: Arc<Profiles>,
    /// The verifier of access tokens, where issuers are configured.
    pub tokens: Option<Arc<Verifier>>,
    /// The embedded store, when it is on and ours.
    pub store: Option<Store>,
    /// The sources in use.
    pub sources: Arc<Sources>,
    secrets: RwLock<SecretManager>,
    secret_watch: SecretWatch,
    /// Whoever exchanges the tokens of callers, where an issuer is set up for it.
    callers: Option<Arc<Callers>>,
    /// Standing work: checking sources.
    pub health: Charter,
    /// The outside policy, where one is configured.
    pub external: Option<Arc<OpaPolicy>>,
    /// Who orders the certificate, where an authority makes it.
    pub acme: Option<Arc<Keeper>>,
    /// The records of refusals that anybody can cause.
    pub tally: Arc<Tally>,
    /// The other places that get the audit records, fed by whoever serves.
    pub sinks: Sinks,
    /// Plugins, other servers, and whatever else brings tools from outside.
    pub extensions: Extensions,
    /// Whose each name is.
    names: NameBook,
    redactor: Redactor,
    /// Revisions of the extensions when the first catalogue was made.
    offered: Vec<u64>,
    /// What happened here, in numbers.
    pub metrics: Arc<Metrics>,
    sink_view: OnceLock<SinkView>,
    in_force: ArcSwap<Config>,
    file_in_force: AtomicBool,
    /// Held while the catalogue and the rules are replaced.
    furnishing: tokio::sync::Mutex<()>,
    /// Digest of the rules in force.
    digest: Mutex<String>,
    clock: Arc<dyn Clock>,
    version: AtomicU64,
}

impl House {
    /// Opens everything and puts the gate in front of it.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let foundations = Foundations::open(config).await?;
        let scrubber = Arc::new(AnswerScrubber(redactor(config, &foundations.pseudonyms[..])?));
        let (store, embedded) = open_store(config, &clock, scrubber.clone())?;
        let callers = crate::callers::expected(config);
        let secrets = crate::outside::secrets(config, callers.as_ref())?;
        let extensions = Extensions::open(config, &secrets)?;
        extensions.recall(foundations.store(), &clock).await?;
        let offered = extensions.revisions();
        let sources = Arc::new(Sources::new(all_sources(config, embedded, &secrets, &extensions)?)?);
        let names = NameBook::new(foundations.store(), clock.clone());
        let writer = NameWriter { names: &names, audit: &foundations.audit, redactor: &scrubber.0 };
        let (catalogue, held) = writer.catalogue(config, &sources, &extensions, &clock).await?;
        names.settled();
        let Rules { policies, products, digest } = load_policies(config, &catalogue, &extensions, &held, 1)?;
        secrets.allow(&mut |grant| policies.charter(grant)).context("secret_stores")?;
        if let Some(callers) = &callers {
            callers.introduce(config, &secrets, &policies, &clock, &foundations.audit)?;
        }
        extensions.start(&policies, &foundations.audit, &scrubber.0)?;
        let (identity, tokens) = crate::identify::identity(config, foundations.keys.clone(), &policies, &clock)?;
        let health = health_charter(config, &policies)?;
        let external = crate::outside::policy(config, &policies, &secrets)?;
        let acme = crate::acme::keeper(config, &policies, &secrets)?;
        let sinks = Sinks::new(&config.audit.sinks, &mut |grant| policies.charter(grant), &secrets).context("audit")?;
        let metrics = Arc::new(Metrics::new());
        let claims = claim_redactor(config, &foundations.pseudonyms[..])?;
        let tally = Arc::new(Tally::new(foundations.audit.clone(), scrubber.0.clone(), claims, metrics.clone()));
        let ledger = Arc::new(TokenLedger::shared(foundations.state.clone(), clock.clone()));
        let rates = crate::replicas::rates(config, foundations.store(), clock.clone(), &foundations.pseudonyms[..]);
        let profiles = Arc::new(foundations.profiles(config).await?);
        let recorder: Arc<dyn Recorder> =
            Arc::new(AuditRecorder { audit: foundations.audit.clone(), redactor: scrubber.0.clone(), tally: tally.clone() });
        let gateway = Gateway::new(GatewayParts {
            catalogue,
            policies,
            products,
            identity: Arc::new(identity),
            admission: Admission::new(limits(config)?, ledger.clone()).sharing(rates.clone()),
            approvals: foundations.approvals(config),
            profiles: profiles.clone(),
            external: external.clone().map(|policy| -> Arc<dyn ExternalPolicy> { policy }),
            releaser: releaser(config, &foundations.pseudonyms[..])?,
            recorder: Arc::new(MeasuredRecorder::new(recorder, metrics.clone())),
            budget: budget(config),
        });
        // Under a secret all replicas of the store have.
        let gateway = Arc::new(gateway.with_cursors_under(&foundations.pseudonyms[..]));
        let secret_watch = SecretWatch::new(&foundations.pseudonyms[..]);
        Ok(Self {
            foundations,
            gateway,
            tokens,
            ledger,
            rates,
            profiles,
            store,
            sources,
            secrets: RwLock::new(secrets),
            secret_watch,
            callers,
            health,
            external,
            acme,
            tally,
            sinks,
            extensions,
            names,
            redactor: scrubber.0.clone(),
            offered,
            metrics,
            sink_view: OnceLock::new(),
            in_force: ArcSwap::from_pointee(config.clone()),
            file_in_force: AtomicBool::new(true),
            furnishing: tokio::sync::Mutex::default(),
            digest: Mutex::new(digest),
            clock,
            version: AtomicU64::new(1),
        })
    }

    /// Takes over what can change while running: sources, policies, roles, enabled writes. All or nothing.
    pub async fn reload(&self, config: &Config) -> anyhow::Result<()> {
        if let Err(error) = self.furnish(config).await {
            // An operator's word about a name that was read on the way is not in force: it is followed at the next look.
            let _turn = self.furnishing.lock().await;
            self.names.forget();
            return Err(error);
        }
        self.in_force.store(Arc::new(taken_over(&self.in_force.load(), config)));
        Ok(())
    }

    /// Takes over what extensions offer, each time it changes, for as long as this is awaited.
    pub async fn follow_extensions(&self) -> Infallible {
        let (mut seen, mut again) = (self.offered.clone(), false);
        loop {
            tokio::select! {
                () = self.extensions.changed(&seen) => {}
                () = self.names.changed() => {}
                () = tokio::time::sleep(ANOTHER_TRY), if again => {}
            }
            seen = self.extensions.revisions();
            let furnished = self.furnish(&self.in_force.load_full()).await;
            again = furnished.is_err();
            if let Err(error) = furnished {
                tracing::error!("what extensions offer was not taken over, the last catalogue stays: {error:#}");
            }
        }
    }

    /// Tells those who watch resources of extensions when they change, for as long as this is awaited. However often a
    /// resource changes, it is told a few times a second.
    pub async fn follow_resources(&self) -> Infallible {
        loop {
            for uri in self.extensions.updated().await {
                self.gateway.resource_updated(&uri);
            }
            tokio::time::sleep(crate::replicas::BETWEEN_UPDATES).await;
        }
    }

    /// Puts catalogue, policies and sources in place, together.
    async fn furnish(&self, config: &Config) -> anyhow::Result<()> {
        let _turn = self.furnishing.lock().await;
        let embedded: Option<Arc<dyn Source>> = self.sources.all().iter().find(|s| s.name().as_str() == EMBEDDED).cloned();
        let secrets = crate::outside::secrets(config, self.callers.as_ref())?.after(&self.secrets());
        let replacement = all_sources(config, embedded, &secrets, &self.extensions)?;
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        let writer = NameWriter { names: &self.names, audit: &self.foundations.audit, redactor: &self.redactor };
        let (catalogue, held) = writer.catalogue(config, &self.sources, &self.extensions, &self.clock).await?;
        let Rules { policies, products, digest } = load_policies(config, &catalogue, &self.extensions, &held, version)?;
        secrets.allow(&mut |grant| policies.charter(grant)).context("secret_stores")?;
        let before = self.digest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if before != digest {
            // What follows cannot fail any more once the names are known to be sound.
            Sources::new(replacement.clone())?;
            let record = rules::changed(config, &before, &digest);
            self.foundations.audit.append(record).context("the change of the rules cannot be recorded, so it is not made")?;
        }
        self.sources.replace(replacement)?;
        self.gateway.install(catalogue, policies, products);
        self.names.settled();
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = digest;
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = secrets;
        if let Some(external) = &self.external {
            external.rules_changed();
        }
        Ok(())
    }

    /// The secrets the configuration in force names.
    pub fn secrets(&self) -> SecretManager {
        self.secrets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at every secret, and records what changed since the last look.
    pub async fn look_at_secrets(&self) -> anyhow::Result<()> {
        self.secret_watch.look(&self.secrets(), &*self.foundations.store(), &self.foundations.audit, true).await
    }

    /// Looks at the secrets of this machine every second, and looks after the stores of others every few, for as long as
    /// this is awaited.
    pub async fn follow_secrets(&self) -> Infallible {
        loop {
            for turn in 1..=TEND {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                let whole = turn == TEND;
                if whole {
                    self.secrets().tend().await;
                }
                let (store, audit) = (self.foundations.store(), &self.foundations.audit);
                if let Err(error) = self.secret_watch.look(&self.secrets(), &*store, audit, whole).await {
                    tracing::error!("the secrets could not be looked at; it is tried again: {error:#}");
                }
            }
        }
    }

    /// The settings in force.
    pub fn in_force(&self) -> Arc<Config> {
        self.in_force.load_full()
    }

    /// Whether the configuration file as it is now is in force.
    pub fn configuration_in_force(&self) -> bool {
        self.file_in_force.load(Ordering::Relaxed)
    }

    /// Notes whether the configuration file as it is now was taken over.
    pub fn note_configuration(&self, taken_over: bool) {
        self.file_in_force.store(taken_over, Ordering::Relaxed);
    }

    /// How the audit sinks stood a moment ago; none before they are fed.
    pub fn sink_states(&self) -> Vec<SinkState> {
        self.sink_view.get().map(SinkView::states).unwrap_or_default()
    }

    /// Writes a record of the server's own life.
    pub fn audit_life(&self, kind: EventKind, note: impl Into<String>) {
        let rules = || rules::loaded(&self.in_force(), &self.digest.lock().unwrap_or_else(PoisonError::into_inner));
        let more = (kind == EventKind::Start).then(rules);
        for event in [AuditEvent::new(kind).note(note.into())].into_iter().chain(more) {
            if let Err(error) = self.foundations.audit.append(event) {
                tracing::error!(%error, "the audit log could not be written");
            }
        }
    }

    /// Records that a changed configuration was not taken over, and why.
    pub fn audit_refused_reload(&self, error: &anyhow::Error) {
        let reason = self.redactor.text(&format!("{error:#}"), &mut Redactions::default()).into_owned();
        if let Err(error) = self.foundations.audit.append(crate::refused_start::event("reload", "reload-refused", &reason)) {
            tracing::error!(%error, "the audit log could not be written");
        }
    }

    /// Begins to feed the audit sinks. Calls are stopped at once when a required one is too far behind.
    pub async fn feed_sinks(&self) -> Shippers {
        let shippers = self.sinks.start(&self.foundations.audit, &self.clock).await;
        self.sink_view.get_or_init(|| shippers.view());
        shippers
    }

    /// Brings what is counted in memory together with the other processes that share the state.
    pub async fn settle(&self) {
        if let Err(error) = self.ledger.settle().await {
            tracing::error!(%error, "the token accounts could not be written; they are kept and tried again");
        }
        let profiles = async {
            let exchanged = self.profiles.exchange(self.rates.state()).await;
            self.profiles.settle().await?;
            self.profiles.refresh().await?;
            exchanged
        };
        if let Err(error) = profiles.await {
            tracing::error!(%error, "the behaviour profiles could not be brought up to date; what is known stays in force");
        }
    }

    /// Closes in good order: what was counted is written, the store is flushed, the audit chain closed.
    pub async fn close(self) {
        self.extensions.stop().await;
        if let Err(error) = self.rates.leave().await {
            tracing::warn!(%error, "this replica could not say that it leaves; the others find out in half a minute");
        }
        self.settle().await;
        self.tally.flush(true);
        if let Some(store) = &self.store
            && let Err(error) = store.close().await
        {
            tracing::error!(%error, "the store could not be closed in good order");
        }
        self.foundations.close().await;
    }
}

/// The settings in force after a reload: what is taken over while running is new, everything else waits for a restart.
fn taken_over(old: &Config, new: &Config) -> Config {
    let Config {
        data,
        listen,
        admin,
        stdio,
        identity,
        ingest,
        store,
        external_policy,
        upstreams,
        apis,
        plugins,
        redaction,
        release,
        approvals,
        profiles,
        limits,
        audit,
        log,
        ..
    } = old.clone();
    Config {
        data,
        listen,
        admin,
        stdio,
        identity,
        ingest,
        store,
        upstreams,
        apis,
        external_policy,
        plugins,
        redaction,
        release,
        approvals,
        profiles,
        limits,
        audit,
        log,
        ..new.clone()
    }
}

/// Checks everything that can be checked without opening a socket or a store of telemetry, as a start would: rules may name
/// what people accepted of upstreams. Gives what there is, and what is not known here.
pub async fn check(config: &Config) -> anyhow::Result<(String, Vec<String>)> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let secrets = crate::outside::secrets(config, crate::callers::expected(config).as_ref())?;
    let extensions = Extensions::open(config, &secrets)?;
    let sources = Arc::new(Sources::new(all_sources(config, None, &secrets, &extensions)?)?);
    let known = crate::rulebook::known(config, &sources, &extensions, &clock).await?;
    let Rules { policies, .. } = load_policies(config, &known.catalogue, &extensions, &known.held(), 1)?;
    releaser(config, &[])?;
    config.audit.options().context("audit")?;
    Sinks::new(&config.audit.sinks, &mut |grant| policies.charter(grant), &secrets).context("audit")?;
    config.identity.check().context("identity")?;
    crate::identify::verifier(config, &policies, &clock)?;
    limits(config)?;
    secrets.allow(&mut |grant| policies.charter(grant)).context("secret_stores")?;
    crate::callers::exchanges(config, &secrets, &policies, &clock)?;
    crate::outside::policy(config, &policies, &secrets)?;
    refuse_open_doors(config)?;
    crate::wire::Doors::load(config)?;
    crate::acme::keeper(config, &policies, &secrets)?;
    tracing_subscriber::EnvFilter::try_new(&config.log.level).context("log.level")?;
    let tools = known.catalogue.tool_names().len();
    let found = format!("{} sources, {} policy files, {tools} tools", config.sources.len(), config.policies.len());
    Ok((found, known.notes))
}

/// Refuses settings that would open a door without a lock.
pub fn refuse_open_doors(config: &Config) -> anyhow::Result<()> {
    crate::wire::refuse_clear_text(config)?;
    let roles = known_roles(config);
    if let Some(role) = &config.listen.anonymous_role {
        if !config.listen.mcp.ip().is_loopback() {
            bail!("listen.anonymous_role is only accepted on a loopback address, and listen.mcp is {}", config.listen.mcp);
        }
        if !roles.contains(role) && role != "anonymous" {
            bail!("listen.anonymous_role: there is no role '{role}'");
        }
    }
    if !roles.contains(&config.stdio.role) {
        bail!("stdio.role: there is no role '{}'", config.stdio.role);
    }
    Ok(())
}

/// What one call may spend.
pub(crate) fn budget(config: &Config) -> Budget {
    Budget { backend_bytes: config.limits.backend_answer.0, answer_bytes: config.limits.answer.0, ..Budget::default() }
}

fn limits(config: &Config) -> anyhow::Result<LimitSettings> {
    let limits = &config.limits;
    let positive = |value: u32, name: &str| {
        if value == 0 { Err(anyhow::anyhow!("limits.{name} must be at least 1")) } else { Ok(value) }
    };
    let rate = |settings: RateSettings, name: &str| -> anyhow::Result<Rate> {
        let per_second = positive(settings.per_second, &format!("{name}.per_second"))?;
        Ok(Rate::new(per_second, positive(settings.burst, &format!("{name}.burst"))?))
    };
    Ok(LimitSettings {
        address: rate(limits.address, "address")?,
        principal: Rate::new(positive(limits.calls_per_second, "calls_per_second")?, positive(limits.burst, "burst")?),
        tool: rate(limits.tool, "tool")?,
        write: rate(limits.write, "write")?,
        tenant: Rate::new(
            positive(limits.tenant.calls_per_second, "tenant.calls_per_second")?,
            positive(limits.tenant.burst, "tenant.burst")?,
        ),
        global: rate(limits.global, "global")?,
        concurrent_per_principal: positive(limits.concurrent_per_principal, "concurrent_per_principal")?,
        concurrent_per_tenant: positive(limits.tenant.concurrent, "tenant.concurrent")?,
        concurrent: positive(limits.concurrent, "concurrent")?,
        queue: limits.queue,
        queue_time: limits.queue_time.0,
        deadline: limits.deadline.0,
        tokens_per_day: (limits.tokens_per_day > 0).then_some(limits.tokens_per_day),
        tenant_tokens_per_day: (limits.tenant.tokens_per_day > 0).then_some(limits.tenant.tokens_per_day),
        answer_tokens: limits.answer.0 / BYTES_PER_TOKEN,
    })
}

/// What is taken out, by the operator's settings.
pub fn redactor(config: &Config, key: &[u8]) -> anyhow::Result<Redactor> {
    Redactor::with_settings(&config.redaction, key).map_err(anyhow::Error::msg).context("redaction")
}

/// The same for what requests claim about where they come from: addresses stay, as those of clients do.
fn claim_redactor(config: &Config, key: &[u8]) -> anyhow::Result<Redactor> {
    let mut settings = config.redaction.clone();
    settings.pii.ip = AddressMode::Off;
    Redactor::with_settings(&settings, key).map_err(anyhow::Error::msg).context("redaction")
}

/// What goes out, by the operator's settings. `key` makes the pseudonyms of this installation.
fn releaser(config: &Config, key: &[u8]) -> anyhow::Result<Releaser> {
    Releaser::with_settings(redactor(config, key)?, config.release).map_err(anyhow::Error::msg).context("release")
}

/// The store, when it is ours, and the source that answers for it.
type OpenedStore = (Option<Store>, Option<Arc<dyn Source>>);

fn open_store(config: &Config, clock: &Arc<dyn Clock>, scrubber: Arc<AnswerScrubber>) -> anyhow::Result<OpenedStore> {
    if !config.store.enabled {
        return Ok((None, None));
    }
    let name = SourceName::new(EMBEDDED)?;
    let mut settings = portcullis_telemetry::StoreSettings::new(config.data.join("store"));
    settings.retention_age = Some(config.store.retention.age.0);
    settings.retention_bytes = Some(config.store.retention.size.0);
    let statements = StatementProgram::this_binary().context("finding this program, which answers SQL statements")?;
    settings.statements = Some(Arc::new(statements));
    match Store::open(settings, clock.clone()) {
        Ok(store) => {
            let source = EmbeddedSource::new(name, store.clone()).scrubbed(scrubber);
            Ok((Some(store), Some(Arc::new(source))))
        }
        // Another process of ours serves this store; everything else still works here, and answers say so.
        Err(StoreError::Locked { .. }) => {
            let reason = "the embedded store is open in another Portcullis process; ask that one over HTTP";
            Ok((None, Some(Arc::new(Unavailable::new(name, reason)))))
        }
        Err(error) => Err(error).context("opening the embedded store"),
    }
}

/// What is allowed in the sources' settings and should be looked at.
pub fn source_warnings(config: &Config) -> Vec<String> {
    config
        .sources
        .iter()
        .flat_map(|s| match &s.kind {
            SourceKind::Prometheus(p) => p.warnings(&s.name),
        })
        .collect()
}

pub(crate) fn all_sources(
    config: &Config,
    embedded: Option<Arc<dyn Source>>,
    secrets: &SecretManager,
    extensions: &Extensions,
) -> anyhow::Result<Vec<Arc<dyn Source>>> {
    let mut sources: Vec<Arc<dyn Source>> = embedded.into_iter().collect();
    for (index, settings) in config.sources.iter().enumerate() {
        let SourceKind::Prometheus(prometheus) = &settings.kind;
        let source = PrometheusSource::with_secrets(settings.name.clone(), prometheus.clone(), secrets)
            .with_context(|| format!("sources.{index}"))?;
        sources.push(Arc::new(source));
    }
    for source in extensions.sources() {
        if sources.iter().any(|own| own.name() == source.name()) {
            tracing::warn!(target: "portcullis", name = %source.name(), "a source of an extension is left out: its name is taken");
        } else {
            sources.push(source);
        }
    }
    Ok(sources)
}

/// The rules. They may also speak of tools whose names are `held` and that are not there at the moment.
pub(crate) fn load_policies(
    config: &Config,
    catalogue: &Catalogue,
    extensions: &Extensions,
    held: &BTreeSet<String>,
    version: u64,
) -> anyhow::Result<Rules> {
    let mut texts = Vec::new();
    for path in &config.policies {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading the policy file {}", path.display()))?;
        texts.push(PolicyText { origin: path.display().to_string(), text });
    }
    let mut vocabulary = vocabulary(config, catalogue, extensions);
    vocabulary.expected.extend(held.difference(&catalogue.tool_names()).cloned());
    let products = Products::load(&config.products, &vocabulary).context("products")?;
    vocabulary.products = products.tools();
    let offset = config.policy_utc_offset.as_deref().map_or(Ok(0), utc_offset).context("policy_utc_offset")?;
    let digest = rules::digest(&texts, config)?;
    let policies = Policies::load(&texts, &vocabulary, version)?.with_clock(Arc::new(SystemClock), offset);
    Ok(Rules { policies, products, digest })
}

/// Seconds east of UTC of an offset such as `+02:00` (RFC 3339, `time-numoffset`).
fn utc_offset(text: &str) -> anyhow::Result<i32> {
    let read = || {
        let (sign, rest) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) = rest.split_once(':')?;
        let two = |t: &str| if t.len() == 2 { t.parse::<i32>().ok() } else { None };
        let (hours, minutes) = (two(hours)?, two(minutes)?);
        ((0..=14).contains(&hours) && (0..60).contains(&minutes)).then_some(sign * (hours * 3_600 + minutes * 60))
    };
    read().with_context(|| format!("'{text}' is no offset; use one such as +02:00"))
}

/// What rules may speak of: the tools with their arguments, the sources, the roles.
fn vocabulary(config: &Config, catalogue: &Catalogue, extensions: &Extensions) -> Vocabulary {
    let embedded = config.store.enabled.then(|| EMBEDDED.to_owned());
    let brought = extensions.sources().map(|source| source.name().to_string());
    let upstreams = || extensions.upstreams().iter();
    let asked = upstreams().flat_map(|upstream| upstream.sources()).map(str::to_owned);
    let apis = config.apis.iter().map(|api| api.name.clone());
    let own = config.sources.iter().map(|s| s.name.to_string());
    let sources = own.chain(embedded).chain(brought).chain(asked).chain(apis);
    Vocabulary {
        roles: config.roles.iter().cloned().collect(),
        enabled_writes: config.write.enable.iter().map(|c| WriteCategory(Arc::from(c.as_str()))).collect(),
        sources: Some(sources.collect()),
        expected: upstreams().flat_map(|upstream| upstream.expected_tools()).collect(),
        expected_categories: upstreams().filter_map(|u| u.category()).map(|c| WriteCategory(Arc::from(c))).collect(),
        // Whoever brings prompts may bring others tomorrow.
        prompts: extensions.report().iter().all(|one| one.standing == Standing::Off).then(|| catalogue.prompt_names()),
        addresses: Some(catalogue.own_addresses()),
        ..Vocabulary::of_tools(catalogue.tool_specs())
    }
}

fn health_charter(config: &Config, policies: &Policies) -> anyhow::Result<Charter> {
    let mut destinations = BTreeSet::new();
    for settings in &config.sources {
        let SourceKind::Prometheus(prometheus) = &settings.kind;
        destinations.insert(portcullis_egress::origin_of(&prometheus.url)?);
    }
    Ok(policies.charter(CharterGrant {
        name: Arc::from("source-health"),
        destinations,
        scope: Scope::tenant_wide(TenantId::default_tenant()),
        time_limit: std::time::Duration::from_secs(5),
        budget: Budget::default(),
    })?)
}

/// Creates a directory only its owner can enter.
fn private_directory(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("creating the directory {}", path.display()))
}
