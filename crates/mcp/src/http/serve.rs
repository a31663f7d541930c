//! Connections: small writes leave at once (TCP_NODELAY), headers must arrive in time, connections are bounded, and a
//! stop ends within five seconds.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

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
        Self { header_time: Duration::from_secs(10), connections: 4_096 }
    }
}

/// Serves `router` on `listener` until `shutdown` is cancelled; then takes no new connection, lets requests in flight
/// end, and cuts what is left after 4.5 s.
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
    let places = Arc::new(Semaphore::new(settings.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place.map_err(io::Error::other)?,
            () = shutdown.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !passing(&error) {
                    return Err(error);
                }
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(()) = stream.set_nodelay(true) else { continue };
        let connection = graceful.watch(connection(stream, peer, router.clone(), settings.header_time));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests still in flight were cut");
    }
    connections.shutdown().await;
    Ok(())
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    header_time: Duration,
) -> impl GracefulConnection<Error = hyper::Error> + 'static {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_time)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
}

/// Whether accepting may go on after this error: the connection was gone, or we are short of something for a moment.
fn passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, OutOfMemory, WouldBlock};
    /// Too many open files, in the process or in the system (errno 24 and 23 on every Unix).
    const TOO_MANY_FILES: [i32; 2] = [23, 24];
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | OutOfMemory | WouldBlock)
        || error.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code))
}
