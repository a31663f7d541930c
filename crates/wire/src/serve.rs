//! HTTP/1.1 on connections: headers must arrive in time and size, and a stop ends within five seconds.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use futures::FutureExt as _;
use portcullis_model::{FaultCode, Whence};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attend::attend;
use crate::incoming::{Incoming, Wire};
use crate::refusals::{Refusals, RequestRefusal, rules};

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
/// end, and cuts what is left after 4.5 s. Requests carry a [`crate::Visitor`] and what is
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
        let refusals = refusals.clone();
        let attended = attend(taken, router.clone(), settings.header_time, shutdown.clone());
        // Mapped, and not awaited in a block of its own, which would hold the connection twice: there can be very many.
        connections.spawn(attended.map(move |ended| {
            if let Err(error) = ended {
                tracing::debug!(%error, %peer, "a connection ended early");
                tell(refusals.as_ref(), peer, &error);
            }
        }));
    }
    drop(incoming);
    if tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await.is_err() {
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
    let whence = Some(&Whence::direct(peer));
    refusals.refused(RequestRefusal { whence, rule, code, detail: &error.to_string() });
}
