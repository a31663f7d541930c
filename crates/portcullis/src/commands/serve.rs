//! `portcullis serve`: the listeners, standing work, hot reload, and a clean end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use http::HeaderName;
use portcullis_acme::Answers;
use portcullis_audit::{AuditEvent, Decision, EventKind};
use portcullis_config::{FileStamp, Sessions};
use portcullis_console::{ConsoleParts, Metrics};
use portcullis_gateway::{Gateway, RefusedSender};
use portcullis_identity::{ClientCertificate, KeyStatus, Presented, Transport};
use portcullis_mcp::{HostPolicy, HttpSettings, SessionCount, SessionLimits, SessionsFor};
use portcullis_model::{Clock, FaultCode, SystemClock, TenantId};
use portcullis_telemetry::{IngestAuthorizer, IngestLimits, IngestRefusal, OtlpDoor, Sender, Way};
use portcullis_wire::{ConnectionSettings, Refusals as _, RequestRefusal, Wire};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cli::ServeArgs;
use crate::commands::{admin, doctor};
use crate::house::{House, refuse_open_doors};
use crate::refusals::{self, Kind, Tally};
use crate::refused_start;
use crate::settings::{self, Config, LoadedConfig};
use crate::shutdown;
use crate::wire::Doors;

/// How often keys are compared with the store: a revocation is effective within a second.
const KEY_REFRESH: Duration = Duration::from_millis(500);
/// How often the configuration file is looked at.
const RELOAD_CHECK: Duration = Duration::from_secs(1);
/// How often the store looks after compaction and retention.
const MAINTENANCE: Duration = Duration::from_secs(30);
/// How often token accounts and profiles are brought together with other processes.
const SETTLE: Duration = Duration::from_secs(2);
/// How long calls in flight may take once we are told to stop.
const DRAIN: Duration = Duration::from_secs(4);
/// How long requests at the admin listener may take after everything else has ended.
const ADMIN_DRAIN: Duration = Duration::from_millis(500);
/// Connections of the admin listener at once.
const ADMIN_CONNECTIONS: usize = 256;

/// The bound listeners of a server.
pub struct Listeners {
    /// MCP.
    pub mcp: TcpListener,
    /// OTLP over HTTP and gRPC, unless ingest is off.
    pub otlp: Option<(TcpListener, TcpListener)>,
    /// HTTP-01 challenges in clear text, where they are answered so.
    pub challenges: Option<TcpListener>,
    /// Administration, unless it is off.
    pub admin: Option<TcpListener>,
}

impl Listeners {
    /// Binds every address, or says which one is taken.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let admin = if config.admin.enabled { Some(listen(config.admin.listen, "admin.listen").await?) } else { None };
        let mcp = listen(config.listen.mcp, "listen.mcp").await?;
        let otlp = if config.ingest.enabled && config.store.enabled {
            Some((listen(config.ingest.http, "ingest.http").await?, listen(config.ingest.grpc, "ingest.grpc").await?))
        } else {
            None
        };
        let http = crate::acme::settings(config).and_then(|acme| acme.http.as_ref());
        let challenges = match http {
            Some(http) => Some(listen(http.address, "listen.tls.acme.http.address").await?),
            None => None,
        };
        Ok(Self { mcp, otlp, challenges, admin })
    }
}

async fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("{address} is in use by another process; stop it, or set {setting} to another address")
        }
        Err(error) => Err(error).with_context(|| format!("listening on {address} ({setting})")),
    }
}

/// Runs `portcullis serve`.
pub async fn run(mut loaded: LoadedConfig, args: &ServeArgs, data: Option<PathBuf>) -> anyhow::Result<()> {
    if let Some(address) = args.listen {
        loaded.settings.listen.mcp = address;
    }
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone());
    let config = &loaded.settings;
    // Before they are read: what changes later has another stamp.
    let rules = stamps(&config.policies);
    let (listeners, house) = match Box::pin(open(config)).await {
        Ok(opened) => opened,
        Err(error) => {
            refused_start::record(config, &error);
            return Err(error);
        }
    };
    let of_upstreams = house.extensions.upstreams().iter().flat_map(|upstream| upstream.warnings());
    for warning in crate::house::source_warnings(config).into_iter().chain(of_upstreams) {
        tracing::warn!(target: "portcullis", "{warning}");
    }
    house.audit_life(EventKind::Start, format!("serve on {}", config.listen.mcp));
    house.look_at_secrets().await?;
    for line in doctor::report(config, &house).await.lines() {
        tracing::info!(target: "portcullis", "{line}");
    }
    let sinks = house.feed_sinks().await;
    let watched = loaded.path.clone().map(|path| Watched {
        path,
        seen: loaded.stamp,
        rules,
        in_force: loaded.settings.clone(),
        data,
        listen: args.listen,
    });
    let outcome = run_house(house.clone(), config, listeners, stop, watched).await;
    house.audit_life(EventKind::Stop, "serve");
    sinks.stop().await;
    if let Some(house) = Arc::into_inner(house) {
        house.close().await;
    }
    outcome
}

/// Opens the listeners and the house, or says why this configuration is not served.
async fn open(config: &Config) -> anyhow::Result<(Listeners, Arc<House>)> {
    refuse_open_doors(config)?;
    Doors::load(config)?;
    let listeners = Listeners::bind(config).await?;
    let house = Arc::new(House::open(config).await?);
    refuse_public_without_keys(config, &house).await?;
    admin::refuse_public_without_ways_in(config, &house).await?;
    if listeners.otlp.is_some() && house.store.is_none() {
        bail!("the embedded store is open in another Portcullis process; stop it, or set `data` to another directory");
    }
    Ok((listeners, house))
}

/// Serves until `stop` is cancelled or a listener fails.
pub async fn run_house(
    house: Arc<House>,
    config: &Config,
    listeners: Listeners,
    stop: CancellationToken,
    watched: Option<Watched>,
) -> anyhow::Result<()> {
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let sessions = SessionCount::default();
    let settings = HttpSettings { session_count: sessions.clone(), ..http_settings(config, &house, &stop)? };
    let router = portcullis_mcp::router(house.gateway.clone(), settings);
    let (mcp, closing) = (listeners.mcp, stop.clone());
    let connections =
        ConnectionSettings { header_time: config.listen.header_time.0, connections: config.listen.max_connections.max(1) };
    let answers = crate::acme::settings(config).map(Answers::new);
    let (doors, audit) = (Doors::answering(config, answers.as_ref())?, house.foundations.audit.clone());
    let mut administration = Administration::start(
        listeners.admin,
        admin::parts(config, &house, &doors, &sessions, &stop)?,
        crate::wire::wire(doors.admin.as_ref(), &config.admin.trusted_proxies, &house.tally, Transport::Admin.as_str()),
    );
    let wire = crate::wire::wire(doors.mcp.as_ref(), &config.listen.trusted_proxies, &house.tally, Transport::Http.as_str());
    tasks.spawn({
        let keeping = house.tally.clone().keep(stop.clone());
        async move {
            keeping.await;
            Ok(())
        }
    });
    let rates = house.rates.clone();
    tasks.spawn(async move {
        // Nobody is let in before it is known what other replicas let in; telemetry comes in meanwhile.
        rates.join().await;
        portcullis_wire::serve(mcp, router, closing, connections, wire).await.context("serving MCP over HTTP")
    });
    if let (Some(keeper), Some(answers)) = (&house.acme, answers) {
        crate::acme::start(&mut tasks, keeper, answers, listeners.challenges, &house, &stop)?;
    }
    let (fresh, ending) = (doors.clone(), stop.clone());
    let recorded = audit.clone();
    tasks.spawn(async move {
        fresh.keep_fresh(recorded, ending).await;
        Ok(())
    });
    if let (Some((http, grpc)), Some(store)) = (listeners.otlp, &house.store) {
        let limits = IngestLimits { body_bytes: usize::try_from(config.ingest.max_body.0)?, ..IngestLimits::default() };
        let authorizer = Arc::new(IngestDoor {
            gateway: house.gateway.clone(),
            tally: house.tally.clone(),
            refusals: [Way::Http, Way::Grpc].map(|way| house.tally.at(transport(way).as_str())),
            metrics: house.metrics.clone(),
        });
        let door = OtlpDoor::new(store.clone(), authorizer, limits, config.ingest.allowed_hosts.clone());
        let (grpc_door, http_stop, grpc_stop) = (door.clone(), stop.clone(), stop.clone());
        let proxies = &config.ingest.trusted_proxies;
        let http_wire = crate::wire::wire(doors.otlp_http.as_ref(), proxies, &house.tally, Transport::OtlpHttp.as_str());
        let grpc_wire = crate::wire::wire(doors.otlp_grpc.as_ref(), proxies, &house.tally, Transport::OtlpGrpc.as_str());
        tasks.spawn(async move {
            door.serve_http(http, http_wire, http_stop.cancelled_owned()).await.context("serving OTLP over HTTP")
        });
        tasks.spawn(async move {
            grpc_door.serve_grpc(grpc, grpc_wire, grpc_stop.cancelled_owned()).await.context("serving OTLP over gRPC")
        });
        let (store, ending) = (store.clone(), stop.clone());
        tasks.spawn(async move {
            while ending.run_until_cancelled(tokio::time::sleep(MAINTENANCE)).await.is_some() {
                if let Err(error) = store.maintain().await {
                    tracing::warn!(%error, "the store could not be maintained");
                }
            }
            Ok(())
        });
    }
    let (keys, ending) = (house.foundations.keys.clone(), stop.clone());
    tasks.spawn(async move {
        let report = |refreshed: Result<_, _>| {
            if let Err(error) = refreshed {
                tracing::error!(%error, "keys cannot be read; they are refused when this lasts");
            }
        };
        ending.run_until_cancelled(keys.keep_fresh(KEY_REFRESH, report)).await;
        Ok(())
    });
    let (tending, ending) = (house.clone(), stop.clone());
    tasks.spawn(async move {
        ending.run_until_cancelled(tending.follow_secrets()).await;
        Ok(())
    });
    let (settling, ending) = (house.clone(), stop.clone());
    tasks.spawn(async move {
        while ending.run_until_cancelled(tokio::time::sleep(SETTLE)).await.is_some() {
            settling.settle().await;
        }
        Ok(())
    });
    let (furnished, ending) = (house.clone(), stop.clone());
    tasks.spawn(async move {
        ending.run_until_cancelled(furnished.follow_extensions()).await;
        Ok(())
    });
    let (shared, ending) = (house.clone(), stop.clone());
    tasks.spawn(async move {
        ending.run_until_cancelled(shared.follow_rates()).await;
        Ok(())
    });
    let (announcing, ending) = (house.clone(), stop.clone());
    tasks.spawn(async move {
        ending.run_until_cancelled(announcing.follow_resources()).await;
        Ok(())
    });
    if let Some(watched) = watched {
        let (house, ending) = (house.clone(), stop.clone());
        tasks.spawn(async move {
            ending.run_until_cancelled(Box::pin(watch(house, watched))).await;
            Ok(())
        });
    }
    drop(house);
    let failed = tokio::select! {
        () = stop.cancelled() => None,
        ended = tasks.join_next() => ended,
        ended = administration.ended() => Some(ended),
    };
    stop.cancel();
    let drained = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("calls still running were cancelled");
        tasks.shutdown().await;
    }
    administration.stop().await;
    match failed {
        Some(Ok(result)) => result,
        Some(Err(panicked)) => Err(panicked).context("a listener ended"),
        None => Ok(()),
    }
}

/// The admin listener at work. It outlives the others, so that whoever asks while they end is told that this server is not
/// ready any more.
struct Administration {
    task: Option<JoinHandle<anyhow::Result<()>>>,
    stop: CancellationToken,
}

impl Administration {
    fn start(listener: Option<TcpListener>, parts: ConsoleParts, wire: Wire) -> Self {
        let stop = CancellationToken::new();
        let ending = stop.clone();
        let task = listener.map(|listener| {
            tokio::spawn(async move {
                let settings = ConnectionSettings { connections: ADMIN_CONNECTIONS, ..ConnectionSettings::default() };
                let router = portcullis_console::router(parts);
                portcullis_wire::serve(listener, router, ending, settings, wire).await.context("serving the admin listener")
            })
        });
        Self { task, stop }
    }

    /// How it ended; never, while it works or where there is none.
    async fn ended(&mut self) -> Result<anyhow::Result<()>, JoinError> {
        match &mut self.task {
            Some(task) => {
                let ended = task.await;
                self.task = None;
                ended
            }
            None => std::future::pending().await,
        }
    }

    /// Ends it, within a second.
    async fn stop(self) {
        self.stop.cancel();
        if let Some(mut task) = self.task
            && tokio::time::timeout(ADMIN_DRAIN, &mut task).await.is_err()
        {
            task.abort();
            // So that nothing of it is left when the house is closed.
            let _ended = task.await;
        }
    }
}

/// The settings of the HTTP face.
fn http_settings(config: &Config, house: &House, stop: &CancellationToken) -> anyhow::Result<HttpSettings> {
    let hosts = HostPolicy::loopback().with_allowed(&config.listen.allowed_hosts, &config.listen.allowed_origins)?;
    Ok(HttpSettings {
        hosts,
        body_limit: usize::try_from(config.listen.max_body.0)?,
        sessions: match config.listen.sessions {
            Sessions::Needed => SessionsFor::Needed,
            Sessions::All => SessionsFor::All,
            Sessions::None => SessionsFor::Nobody,
        },
        session_limits: SessionLimits {
            per_principal: config.listen.max_sessions_per_principal,
            in_all: config.listen.max_sessions,
            idle: config.listen.session_ttl.0,
            ..SessionLimits::default()
        },
        refusals: house.tally.at("http"),
        protected_resource: house.tokens.as_ref().map(|tokens| tokens.resource().clone()),
        handed_on: handed_on(house)?,
        closing: stop.clone(),
        ..HttpSettings::default()
    })
}

/// Headers clients may send for other servers.
fn handed_on(house: &House) -> anyhow::Result<Vec<HeaderName>> {
    let names = house.extensions.upstreams().iter().flat_map(|upstream| upstream.client_headers());
    names.map(|name| HeaderName::from_bytes(name.as_bytes()).context("client_headers")).collect()
}

/// A listener other machines can reach is refused while nobody could authenticate at it.
async fn refuse_public_without_keys(config: &Config, house: &House) -> anyhow::Result<()> {
    if config.listen.mcp.ip().is_loopback() || house.tokens.is_some() {
        return Ok(());
    }
    let now = SystemClock.now();
    let usable = house.foundations.keys.list().await?.iter().any(|k| k.status(now) == KeyStatus::Active);
    if !usable {
        bail!(
            "listen.mcp is {}, which other machines can reach, and there is no API key: make one with \
             `portcullis key create --label NAME`, or listen on 127.0.0.1",
            config.listen.mcp
        );
    }
    Ok(())
}

/// The OTLP door asks the same identity behind the same admission of addresses, and refusals are audited.
struct IngestDoor {
    gateway: Arc<Gateway>,
    tally: Arc<Tally>,
    /// Over HTTP and over gRPC.
    refusals: [Arc<refusals::Listener>; 2],
    metrics: Arc<Metrics>,
}

/// What records call the way telemetry came.
fn transport(way: Way) -> Transport {
    match way {
        Way::Http => Transport::OtlpHttp,
        Way::Grpc => Transport::OtlpGrpc,
    }
}

#[async_trait]
impl IngestAuthorizer for IngestDoor {
    async fn authorize(&self, sender: &Sender<'_>) -> Result<TenantId, IngestRefusal> {
        let whence = Some(sender.whence);
        let transport = transport(sender.way);
        let presented = Presented {
            transport,
            certificate: sender.known.get::<Arc<ClientCertificate>>().map(AsRef::as_ref),
            whence: whence.cloned(),
            ..Presented::http(sender.authorization, None)
        };
        let transport = transport.as_str();
        self.gateway.identify_sender(&presented).await.map_err(|RefusedSender { rule, fault, lockout }| {
            self.metrics.refused_sender(transport, rule);
            let event = AuditEvent::new(EventKind::Ingest)
                .transport(transport)
                .method("authenticate")
                .decided(Decision::Deny, rule)
                .code(Some(fault.code()));
            let kind = Kind { transport, method: "authenticate", rule: rule.to_owned(), who: None };
            let noted = self.tally.note(kind, whence, event);
            let wait = lockout.map_or(Ok(()), |wait| self.tally.lockout(transport, whence, wait));
            if let Err(error) = noted.and(wait) {
                tracing::error!(%error, "the audit record of a refused sender could not be written");
            }
            let sentence = fault.message().to_owned();
            match fault.code() {
                FaultCode::Forbidden => IngestRefusal::Forbidden(sentence),
                code @ (FaultCode::RateLimited | FaultCode::Unavailable) => IngestRefusal::NotNow {
                    sentence,
                    retry_after: fault.retry_after_seconds().unwrap_or(1),
                    too_often: code == FaultCode::RateLimited,
                },
                _ => IngestRefusal::Unauthenticated(sentence),
            }
        })
    }

    fn refused(&self, way: Way, refusal: RequestRefusal<'_>) {
        let [http, grpc] = &self.refusals;
        match way {
            Way::Http => http.refused(refusal),
            Way::Grpc => grpc.refused(refusal),
        }
    }
}

/// The files that are watched, and what the command line put above them.
pub struct Watched {
    path: PathBuf,
    seen: Option<FileStamp>,
    /// The files with rules it names.
    rules: Stamps,
    in_force: Config,
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
}

/// Files, each with its stamp; none where there is no such file.
type Stamps = Vec<(PathBuf, Option<FileStamp>)>;

fn stamps<P: AsRef<Path>>(files: &[P]) -> Stamps {
    files.iter().map(|file| (file.as_ref().to_owned(), FileStamp::of(file.as_ref()))).collect()
}

/// Looks at the time and size of the file, and of the files with rules it names, every second; what does not load leaves
/// the last good configuration in force.
async fn watch(house: Arc<House>, watched: Watched) {
    let (mut seen, mut rules) = (watched.seen, watched.rules.clone());
    loop {
        tokio::time::sleep(RELOAD_CHECK).await;
        let now = FileStamp::of(&watched.path);
        if now == seen && rules.iter().all(|(file, stamp)| FileStamp::of(file) == *stamp) {
            continue;
        }
        seen = now;
        // Before they are read, and also when they cannot be used: then mending one of them is seen.
        match settings::read(Some(&watched.path), watched.data.clone()) {
            Ok(next) => rules = stamps(&next.settings.policies),
            Err(_) => rules = rules.into_iter().map(|(file, _)| (file.clone(), FileStamp::of(&file))).collect(),
        }
        match reload(&house, &watched).await {
            Ok(next) => {
                tracing::info!(file = %watched.path.display(), "configuration reloaded");
                house.note_configuration(true);
                house.audit_life(EventKind::Config, "reloaded");
                if let Err(error) = house.look_at_secrets().await {
                    tracing::error!("the secrets could not be looked at; it is tried again: {error:#}");
                }
                let waiting = needs_restart(&watched.in_force, &next);
                if !waiting.is_empty() {
                    tracing::warn!("changes to {} take effect after a restart", waiting.join(", "));
                }
            }
            Err(error) => {
                tracing::error!("configuration not reloaded, the last good one stays in force: {error:#}");
                house.note_configuration(false);
                house.audit_refused_reload(&error);
            }
        }
    }
}

async fn reload(house: &House, watched: &Watched) -> anyhow::Result<Config> {
    let mut next = settings::read(Some(&watched.path), watched.data.clone())?.settings;
    if let Some(address) = watched.listen {
        next.listen.mcp = address;
    }
    refuse_open_doors(&next)?;
    house.reload(&next).await?;
    Ok(next)
}

/// Sections whose changes are not taken over while running.
fn needs_restart(in_force: &Config, next: &Config) -> Vec<&'static str> {
    const SECTIONS: [&str; 18] = [
        "admin",
        "redaction",
        "release",
        "upstreams",
        "apis",
        "plugins",
        "external_policy",
        "data",
        "listen",
        "stdio",
        "identity",
        "ingest",
        "store",
        "approvals",
        "profiles",
        "limits",
        "audit",
        "log",
    ];
    let (Ok(old), Ok(new)) = (serde_json::to_value(in_force), serde_json::to_value(next)) else { return Vec::new() };
    SECTIONS.into_iter().filter(|section| old.get(section) != new.get(section)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let in_force = Config::default();
        let mut next = Config::default();
        next.roles.push("auditor".into());
        assert!(needs_restart(&in_force, &next).is_empty());
        next.limits.burst += 1;
        next.ingest.enabled = false;
        assert_eq!(needs_restart(&in_force, &next), ["ingest", "limits"]);
    }
}
