//! Streamable HTTP at `/mcp`, and for each product at `/mcp/<product>`. A request passes, in this order: Host and Origin, declared size, identification,
//! admission, body within its limit and time, strict JSON, session ownership; only then it is served, by rmcp or the
//! short way of `quick`.
//!
//! The `Authorization` header ends at the identification, and rmcp gets only the headers of the protocol: nothing behind
//! the door sees a credential or a cookie.

mod answer;
mod batch;
mod door;
mod oauth;
mod opening;
mod places;
mod quick;
mod sessions;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, Method};
use axum::routing::{any, get};
use portcullis_gateway::Gateway;
use portcullis_identity::token::ProtectedResource;
use portcullis_wire::{Pages, Refusals, Wire, guarded};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use opening::SessionsFor;
pub use portcullis_wire::{ConnectionSettings, HostPolicy};
pub use sessions::{SessionCount, SessionLimits};

pub(crate) use answer::{NOT_RPC, request_id};
pub(crate) use sessions::speaks_batches;

/// How the HTTP face behaves. The defaults are those of a server on loopback.
#[derive(Clone)]
pub struct HttpSettings {
    /// Which `Host` and `Origin` headers are accepted.
    pub hosts: HostPolicy,
    /// Largest request body, bytes; more is answered with 413.
    pub body_limit: usize,
    /// How long a client may take to send a body.
    pub body_time: Duration,
    /// Requests in the house at once; more wait [`HttpSettings::admission_time`], then get 503.
    pub in_flight: usize,
    /// Requests of one principal in the house at once, also while their bodies arrive; more wait as long, then get 429.
    pub in_flight_per_principal: usize,
    /// How long a request waits for a place.
    pub admission_time: Duration,
    /// Which clients of the session revisions get sessions. Without, they are served request by request, and what needs an
    /// answer from the client is refused.
    pub sessions: SessionsFor,
    /// Bounds of sessions.
    pub session_limits: SessionLimits,
    /// Where the number of open sessions can be asked.
    pub session_count: SessionCount,
    /// Streams one principal may hold open.
    pub streams_per_principal: usize,
    /// Streams open in all.
    pub streams: usize,
    /// Who keeps the records of requests that are refused before anybody knows who asks.
    pub refusals: Arc<dyn Refusals>,
    /// This server as a protected resource: with it, challenges lead clients to their authorization server.
    pub protected_resource: Option<Arc<ProtectedResource>>,
    /// Headers that clients may send for other servers behind this one. Taken out at the door and given to nobody but the
    /// server that lists them.
    pub handed_on: Vec<HeaderName>,
    /// Cancelled when the server is about to stop: long streams end, calls in flight go on. Give the same token to
    /// [`serve`].
    pub closing: CancellationToken,
}

impl std::fmt::Debug for HttpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSettings")
            .field("hosts", &self.hosts)
            .field("body_limit", &self.body_limit)
            .field("in_flight", &self.in_flight)
            .field("sessions", &self.sessions)
            .field("session_limits", &self.session_limits)
            .finish_non_exhaustive()
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            hosts: HostPolicy::loopback(),
            body_limit: 1 << 20,
            body_time: Duration::from_secs(30),
            in_flight: (64 * workers).max(128),
            in_flight_per_principal: (16 * workers).max(32),
            admission_time: Duration::from_secs(2),
            sessions: SessionsFor::All,
            session_limits: SessionLimits::default(),
            session_count: SessionCount::default(),
            streams_per_principal: 32,
            streams: 512,
            refusals: Arc::new(()),
            protected_resource: None,
            handed_on: Vec::new(),
            closing: CancellationToken::new(),
        }
    }
}

/// The HTTP face: `/mcp` and `/healthz`, and the metadata of a protected resource where there is one.
pub fn router(gateway: Arc<Gateway>, settings: HttpSettings) -> Router {
    let (hosts, refusals) = (settings.hosts.clone(), settings.refusals.clone());
    let resource = settings.protected_resource.clone();
    let door = Arc::new(door::Door::new(gateway, settings));
    let routes = Router::new()
        .route("/mcp", any(door::enter))
        .route("/mcp/{product}", any(door::enter))
        .route("/healthz", get(door::alive))
        .with_state(door);
    host_checked(oauth::with_metadata(routes, resource.as_ref()), hosts, refusals)
}

/// What pages of allowed origins may do: what a client of MCP in a browser does, and nothing else.
const PAGES: Pages = Pages {
    methods: &[Method::POST, Method::GET, Method::DELETE],
    headers: &[
        "accept",
        "authorization",
        "content-type",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "traceparent",
    ],
    header_prefix: Some(door::MIRRORED),
    exposed: "Mcp-Session-Id, WWW-Authenticate, Retry-After",
};

/// Puts the Host and Origin check, the answers to allowed pages and the security headers before every route of `routes`,
/// unknown ones included. `refusals` is told of every request that does not pass.
pub fn host_checked(routes: Router, hosts: HostPolicy, refusals: Arc<dyn Refusals>) -> Router {
    guarded(routes, hosts, Some(PAGES), answer::plain_refusal, refusals)
}

/// Serves `router` in clear text until `shutdown` is cancelled; see [`portcullis_wire::serve`].
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    serve_with(listener, router, shutdown, ConnectionSettings::default()).await
}

/// The same with other bounds than the default ones.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    settings: ConnectionSettings,
) -> io::Result<()> {
    portcullis_wire::serve(listener, router, shutdown, settings, Wire::plain()).await
}
