//! HTTP/1.1 on connections: headers must arrive in time and size, and a stop ends within five seconds.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use portcullis_model::FaultCode;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::incoming::{Connection, Incoming, Wire};
use crate::refusals::{Refusals, RequestRefusal, rules};

/// Largest head of a request, and what is read of a body at a time, bytes.
const BUFFER: usize = 64 * 1024;
/// How long requests in flight may take to end after a stop was asked for.
const DRAIN: Duration = Duration::from_millis(4_500);

/// What a connection may cost before a request has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// How long a client may take to send the head of a request, counted from the connection or from the last answer. A
    /// connection over this time is closed.
    pub header_time: Duration,
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self { header_time: Duration::from_secs(10), connections: Wire::CONNECTIONS }
    }
}

/// Serves `router` on `listener` until `shutdown` is cancelled; then takes no new connection, lets requests in flight
/// end, and cuts what is left after 4.5 s. Requests carry `ConnectInfo<SocketAddr>`, a [`crate::Visitor`], and what is
/// known from the client's certificate.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    settings: ConnectionSettings,
    wire: Wire,
) -> io::Result<()> {
    let refusals = wire.refusals.clone();
    let mut incoming = Incoming::new(listener, Wire { connections: settings.connections, ..wire });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let taken = tokio::select! {
            taken = incoming.next() => taken,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
            () = shutdown.cancelled() => break,
        };
        let Some(taken) = taken else { break };
        let taken = taken?;
        let peer = taken.visitor().peer;
        let connection = graceful.watch(connection(taken, router.clone(), settings.header_time));
        let refusals = refusals.clone();
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "a connection ended early");
                tell(refusals.as_ref(), peer, &error);
            }
        });
    }
    drop(incoming);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests still in flight were cut");
    }
    connections.shutdown().await;
    Ok(())
}

/// Tells of what was refused before there was a request: a head beyond its bound, or bytes that are no HTTP. A connection
/// that merely ended is no refusal.
fn tell(refusals: &dyn Refusals, peer: SocketAddr, error: &hyper::Error) {
    let (rule, code) = if error.is_parse_too_large() {
        (rules::HEAD_SIZE, FaultCode::TooLarge)
    } else if error.is_parse() {
        (rules::MALFORMED_HTTP, FaultCode::InvalidArgument)
    } else {
        return;
    };
    refusals.refused(RequestRefusal { peer: Some(peer), rule, code, detail: &error.to_string() });
}

fn connection(
    taken: Connection,
    router: Router,
    header_time: Duration,
) -> impl GracefulConnection<Error = hyper::Error> + 'static {
    let visitor = taken.visitor().clone();
    let service = service_fn(move |mut request: hyper::Request<Body>| {
        let extensions = request.extensions_mut();
        extensions.extend(visitor.known.clone());
        extensions.insert(ConnectInfo(visitor.peer));
        extensions.insert(visitor.clone());
        router.clone().call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_time)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(taken), service)
}
