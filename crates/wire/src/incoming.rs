//! Connections as they come: bounded in number, greeted side by side so that a slow one holds up nobody, and known by
//! where they come from and what certificate they showed.
//!
//! Must not serve: what is said on a connection is for the door that takes it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use http::{Extensions, HeaderMap};
use portcullis_config::TrustedProxies;
use portcullis_model::Whence;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::server::TlsStream;

use crate::certificates::Certificates;
use crate::handshake::HandshakeFailure;
use crate::proxies;
use crate::refusals::Refusals;

/// Receives connections: what a certificate says, and who was turned away.
pub trait Reception: Send + Sync {
    /// A client showed this certificate (DER), and it verified. What is put into `known` is there with every request of the
    /// connection.
    ///
    /// # Errors
    /// Why the connection is not taken.
    fn certificate(&self, der: &[u8], known: &mut Extensions) -> Result<(), String>;

    /// Somebody was turned away at the handshake.
    fn turned_away(&self, peer: SocketAddr, failure: &HandshakeFailure);
}

/// A listener that asks nobody for a certificate: it has nothing to receive, and takes no connection that shows one.
#[derive(Debug, Clone, Copy)]
pub struct Unattended;

impl Reception for Unattended {
    fn certificate(&self, _: &[u8], _: &mut Extensions) -> Result<(), String> {
        Err("nobody here reads certificates".into())
    }

    fn turned_away(&self, peer: SocketAddr, failure: &HandshakeFailure) {
        tracing::debug!(%peer, %failure, "a connection was not taken");
    }
}

/// How a listener is protected.
#[derive(Clone)]
pub struct Wire {
    /// TLS; clear text without.
    pub tls: Option<Arc<Certificates>>,
    /// Who receives connections.
    pub reception: Arc<dyn Reception>,
    /// Who keeps the records of requests that were refused before anybody knew who asks.
    pub refusals: Arc<dyn Refusals>,
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// Who is believed when it says whom it speaks for; nobody by default.
    pub proxies: TrustedProxies,
}

impl Wire {
    /// Connections at once, unless said otherwise.
    pub const CONNECTIONS: usize = 4_096;

    /// Clear text.
    pub fn plain() -> Self {
        Self::new(None, Arc::new(Unattended))
    }

    /// TLS with these certificates, or clear text without any.
    pub fn new(tls: Option<Arc<Certificates>>, reception: Arc<dyn Reception>) -> Self {
        let (refusals, proxies) = (Arc::new(()), TrustedProxies::default());
        Self { tls, reception, refusals, connections: Self::CONNECTIONS, proxies }
    }

    /// The same, with the refused requests told to `refusals`.
    #[must_use]
    pub fn recording(self, refusals: Arc<dyn Refusals>) -> Self {
        Self { refusals, ..self }
    }

    /// The same behind these proxies.
    #[must_use]
    pub fn behind(self, proxies: TrustedProxies) -> Self {
        Self { proxies, ..self }
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("tls", &self.tls)
            .field("connections", &self.connections)
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

/// Who is at the other end of a connection. In the extensions of every request.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// The other end.
    pub peer: SocketAddr,
    /// Whether the connection is inside TLS.
    pub secured: bool,
    /// What [`Reception::certificate`] made known.
    pub known: Extensions,
    /// Who is believed at this listener when it says whom it speaks for.
    pub proxies: TrustedProxies,
}

impl Visitor {
    /// Where a request with these headers comes from.
    pub fn whence(&self, headers: &HeaderMap) -> Whence {
        proxies::judge(&self.proxies, self.peer, headers)
    }

    /// Whether a request with these headers came inside TLS, to here or to a trusted proxy.
    pub fn is_secured(&self, headers: &HeaderMap) -> bool {
        self.secured || proxies::is_secured(&self.proxies, self.peer, headers)
    }
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that was taken. Its place is free again when it is dropped.
pub struct Connection {
    io: Io,
    visitor: Visitor,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Who is at the other end.
    pub fn visitor(&self) -> &Visitor {
        &self.visitor
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("visitor", &self.visitor).finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

/// The connections of a listener. Dropping it closes the listener and ends handshakes under way; connections that were
/// given out go on.
#[derive(Debug)]
pub struct Incoming {
    taken: mpsc::Receiver<io::Result<Connection>>,
    task: JoinHandle<()>,
}

impl Incoming {
    /// Starts to accept. Needs a runtime.
    pub fn new(listener: TcpListener, wire: Wire) -> Self {
        let (give, taken) = mpsc::channel(1);
        Self { taken, task: tokio::spawn(accept(listener, wire, give)) }
    }

    /// The next connection; nothing when the listener has failed and said so.
    pub async fn next(&mut self) -> Option<io::Result<Connection>> {
        self.taken.recv().await
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.taken.poll_recv(context)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, wire: Wire, give: mpsc::Sender<io::Result<Connection>>) {
    let places = Arc::new(Semaphore::new(wire.connections));
    let mut handshakes = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(_ended) = handshakes.join_next(), if !handshakes.is_empty() => {}
            }
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if passing(&error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            Err(error) => {
                // Nobody listens any more when this fails.
                let _ = give.send(Err(error)).await;
                return;
            }
        };
        // Small answers would wait for the peer's delayed acknowledgement otherwise.
        let Ok(()) = stream.set_nodelay(true) else { continue };
        let Some(tls) = wire.tls.clone() else {
            let visitor = Visitor { peer, secured: false, known: Extensions::new(), proxies: wire.proxies.clone() };
            if give.send(Ok(Connection { io: Io::Plain(stream), visitor, _place: place })).await.is_err() {
                return;
            }
            continue;
        };
        let (reception, proxies, give) = (wire.reception.clone(), wire.proxies.clone(), give.clone());
        handshakes.spawn(async move {
            match greet(&tls, reception.as_ref(), stream, peer, proxies).await {
                Ok((stream, visitor)) => {
                    let connection = Connection { io: Io::Tls(Box::new(stream)), visitor, _place: place };
                    let _ = give.send(Ok(connection)).await;
                }
                Err(failure) => reception.turned_away(peer, &failure),
            }
        });
    }
}

async fn greet(
    tls: &Certificates,
    reception: &dyn Reception,
    stream: TcpStream,
    peer: SocketAddr,
    proxies: TrustedProxies,
) -> Result<(TlsStream<TcpStream>, Visitor), HandshakeFailure> {
    let shaken = tls.accept(stream).await?;
    let mut known = Extensions::new();
    if let Some(der) = &shaken.certificate {
        reception.certificate(der, &mut known).map_err(HandshakeFailure::ClientCertificate)?;
    }
    Ok((shaken.stream, Visitor { peer, secured: true, known, proxies }))
}

/// Whether accepting may go on after this error: the connection was gone, or we are short of something for a moment.
fn passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, OutOfMemory, WouldBlock};
    /// Too many open files, in the process or in the system (errno 24 and 23 on every Unix).
    const TOO_MANY_FILES: [i32; 2] = [23, 24];
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | OutOfMemory | WouldBlock)
        || error.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code))
}
