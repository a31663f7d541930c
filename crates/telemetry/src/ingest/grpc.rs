//! OTLP over gRPC: the three collector services. Who sends is decided before a message is read.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http;
use bytes::{Buf as _, BufMut as _, Bytes};
use futures::TryStreamExt as _;
use portcullis_model::{TenantId, Whence};
use portcullis_wire::{Connection, Incoming, Visitor, Wire};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EnabledCompressionEncodings, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status};

use super::frames::{Outgoing, Refusal};
use super::gate::{Caller, OtlpDoor, Shared, refused};
use super::{IngestRefusal, Refused, Way, partial, rpc_status};
use crate::convert::OtlpSignal;
use crate::store::Encoding;

/// Streams of one connection at once.
const STREAMS: u32 = 64;

/// Headers of one request, bytes as RFC 9113 counts them.
const HEADERS: u32 = 16 << 10;

/// One of the collector services.
trait CollectorService: Clone + Send + Sync + 'static {
    /// Its name in the protocol; the only method is `Export`.
    const NAME: &'static str;
    /// What it takes.
    const SIGNAL: OtlpSignal;
}

#[derive(Clone)]
struct Logs;

impl CollectorService for Logs {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
    const SIGNAL: OtlpSignal = OtlpSignal::Logs;
}

#[derive(Clone)]
struct Traces;

impl CollectorService for Traces {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
    const SIGNAL: OtlpSignal = OtlpSignal::Traces;
}

#[derive(Clone)]
struct Metrics;

impl CollectorService for Metrics {
    const NAME: &'static str = "opentelemetry.proto.collector.metrics.v1.MetricsService";
    const SIGNAL: OtlpSignal = OtlpSignal::Metrics;
}

/// Messages as bytes: the store weighs them before it decodes them, and writes them to its log as they came.
#[derive(Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A collector service of the door.
#[derive(Clone)]
struct Collector<S> {
    shared: Arc<Shared>,
    _service: PhantomData<S>,
}

impl<S: CollectorService> NamedService for Collector<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: CollectorService> Service<http::Request<Body>> for Collector<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().strip_prefix('/').and_then(|path| path.strip_prefix(S::NAME));
        if method != Some("/Export") {
            let sentence = format!("{} has no such method; call Export", S::NAME);
            return Box::pin(std::future::ready(Ok(Status::unimplemented(sentence).into_http())));
        }
        let mut accepted = EnabledCompressionEncodings::default();
        accepted.enable(CompressionEncoding::Gzip);
        let limit = self.shared.limits.body_bytes;
        let mut grpc = Grpc::new(Plain)
            .apply_compression_config(accepted, EnabledCompressionEncodings::default())
            .apply_max_message_size_config(Some(limit), None);
        let export = self.clone();
        Box::pin(async move { Ok(grpc.unary(export, request).await) })
    }
}

impl<S: CollectorService> UnaryService<Bytes> for Collector<S> {
    type Response = Vec<u8>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let admitted = request.extensions().get::<Admitted>().cloned();
            let Admitted(tenant) = admitted.ok_or_else(|| Status::unauthenticated("the request was not let in"))?;
            let message = request.into_inner();
            shared.pace(&tenant, message.len()).map_err(|r| status(&r))?;
            let receipt = shared.store.ingest(tenant, S::SIGNAL, Encoding::Protobuf, message).await;
            let receipt = receipt.map_err(|e| status(&refused(e)))?;
            Ok(Response::new(partial::protobuf(S::SIGNAL, &receipt)))
        })
    }
}

/// The tenant of a request that was let in.
#[derive(Debug, Clone)]
struct Admitted(TenantId);

/// Lets requests in, or answers for the services behind it.
#[derive(Clone)]
struct Admission<S> {
    inner: S,
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl<S> Service<http::Request<Body>> for Admission<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The clone takes the place of the service that is ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let (shared, address) = (Arc::clone(&self.shared), self.address);
        let whence = request.extensions().get::<Visitor>().map(|visitor| visitor.whence(request.headers()));
        let caller = caller(&shared, address, &request, whence.as_ref());
        Box::pin(async move {
            let admitted = match caller {
                Ok(caller) => admit(&shared, &caller).await,
                Err(refused) => Err(refused),
            };
            match admitted {
                Ok((tenant, place)) => {
                    request.extensions_mut().insert(Admitted(tenant));
                    let response = inner.call(request).await;
                    drop(place);
                    if let Ok(response) = &response
                        && let Some(refused) = later_refusal(response.headers())
                    {
                        shared.tell(Way::Grpc, whence.as_ref(), &refused);
                    }
                    response
                }
                Err(refused) => {
                    shared.tell(Way::Grpc, whence.as_ref(), &refused);
                    Ok(status(&refused).into_http())
                }
            }
        })
    }
}

/// What the services refused after the sender was let in, by the status of their answer. Without one it went well.
fn later_refusal(headers: &http::HeaderMap) -> Option<Refused> {
    let status = Status::from_header_map(headers)?;
    let sentence = status.message().to_owned();
    match status.code() {
        Code::Ok | Code::Cancelled => None,
        Code::OutOfRange => Some(Refused::TooLarge(sentence)),
        Code::ResourceExhausted => Some(Refused::Busy { retry_after: 1, reason: sentence }),
        Code::Unavailable => Some(Refused::Unavailable(sentence)),
        Code::Unimplemented => Some(Refused::Unsupported(sentence)),
        Code::DeadlineExceeded => Some(Refused::Slow),
        _ => Some(Refused::Malformed(sentence)),
    }
}

/// The caller of a request whose names are in order.
fn caller(
    shared: &Shared,
    address: SocketAddr,
    request: &http::Request<Body>,
    whence: Option<&Whence>,
) -> Result<Caller, Refused> {
    let text = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap_or("?"));
    let line = request.uri().authority().map(http::uri::Authority::as_str);
    shared.check_names(address, (line, text("host")), text("origin"))?;
    Caller::read(request.headers(), request.extensions(), whence)
}

async fn admit(shared: &Shared, caller: &Caller) -> Result<(TenantId, OwnedSemaphorePermit), Refused> {
    let tenant = shared.admit(Way::Grpc, caller).await?;
    Ok((tenant, shared.place()?))
}

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection as tonic wants it: its requests carry the [`Visitor`]. Tells of one that does not speak HTTP/2, and of heads
/// that were refused before they became requests.
struct Taken {
    connection: Connection,
    /// How much of the preface was seen; nothing once that is settled.
    preface: Option<usize>,
    outgoing: Outgoing,
    shared: Arc<Shared>,
}

impl Taken {
    fn look(&mut self, read: &[u8]) {
        let Some(seen) = self.preface else { return };
        let wanted = &PREFACE[seen..];
        let length = wanted.len().min(read.len());
        if read[..length] == wanted[..length] {
            self.preface = (length < wanted.len()).then_some(seen + length);
        } else {
            self.preface = None;
            self.shared.tell_garbage(self.connection.visitor().peer, "the connection does not begin as HTTP/2");
        }
    }
}

impl Taken {
    /// Looks at the first `count` bytes of what was written.
    fn look_out<'b>(&mut self, parts: impl Iterator<Item = &'b [u8]>, mut count: usize) {
        let (shared, peer) = (&self.shared, self.connection.visitor().peer);
        for part in parts {
            let written = &part[..part.len().min(count)];
            count -= written.len();
            self.outgoing.look(written, |refusal| match refusal {
                Refusal::Head => shared.tell_head(peer, "the headers of a request are larger than 16384 bytes"),
                Refusal::Connection => shared.tell_head(peer, "the connection sent more headers than are taken"),
            });
        }
    }
}

impl Connected for Taken {
    type ConnectInfo = Visitor;

    fn connect_info(&self) -> Visitor {
        self.connection.visitor().clone()
    }
}

impl AsyncRead for Taken {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.connection).poll_read(context, buffer);
        let filled = buffer.filled();
        if this.preface.is_some() && filled.len() > before {
            this.look(&filled[before..]);
        }
        polled
    }
}

impl AsyncWrite for Taken {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.connection).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = polled {
            this.look_out(std::iter::once(bytes), count);
        }
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.connection).poll_write_vectored(context, bytes);
        if let Poll::Ready(Ok(count)) = polled {
            this.look_out(bytes.iter().map(|part| &**part), count);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(context)
    }
}

impl OtlpDoor {
    /// Serves OTLP over gRPC until `stop` resolves; requests in work are finished.
    pub async fn serve_grpc(
        self,
        listener: TcpListener,
        wire: Wire,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), tonic::transport::Error> {
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let shared = self.shared;
        let logs = Collector { shared: Arc::clone(&shared), _service: PhantomData::<Logs> };
        let traces = Collector { shared: Arc::clone(&shared), _service: PhantomData::<Traces> };
        let metrics = Collector { shared: Arc::clone(&shared), _service: PhantomData::<Metrics> };
        let taking = Arc::clone(&shared);
        let taken =
            move |connection| Taken { connection, preface: Some(0), outgoing: Outgoing::default(), shared: Arc::clone(&taking) };
        let admission = tower::layer::layer_fn(move |inner| Admission { inner, shared: Arc::clone(&shared), address });
        tonic::transport::Server::builder()
            .max_concurrent_streams(Some(STREAMS))
            .http2_max_header_list_size(HEADERS)
            .http2_keepalive_interval(Some(Duration::from_mins(1)))
            .layer(admission)
            .add_service(logs)
            .add_service(traces)
            .add_service(metrics)
            .serve_with_incoming_shutdown(Incoming::new(listener, wire).map_ok(taken), stop)
            .await
    }
}

fn status(refused: &Refused) -> Status {
    let (code, retry_after) = match refused {
        Refused::Credential(IngestRefusal::Unauthenticated(_)) => (Code::Unauthenticated, None),
        Refused::Credential(IngestRefusal::Forbidden(_)) | Refused::Origin(_) => (Code::PermissionDenied, None),
        Refused::Credential(IngestRefusal::NotNow { retry_after, too_often: true, .. }) => {
            (Code::ResourceExhausted, Some(*retry_after))
        }
        Refused::Credential(IngestRefusal::NotNow { retry_after, .. }) => (Code::Unavailable, Some(*retry_after)),
        Refused::TooLarge(_) | Refused::TwoCredentials | Refused::Malformed(_) | Refused::Unsupported(_) => {
            (Code::InvalidArgument, None)
        }
        Refused::Busy { retry_after, .. } => (Code::ResourceExhausted, Some(*retry_after)),
        Refused::Unavailable(_) => (Code::Unavailable, Some(5)),
        Refused::Slow => (Code::DeadlineExceeded, None),
    };
    let message = refused.message();
    let details = rpc_status::status(code, &message, retry_after).encode_to_vec();
    Status::with_details(code, message, details.into())
}
