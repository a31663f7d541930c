//! OTLP over gRPC: the three collector services. Who sends is decided before a message is read.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{MetricsService, MetricsServiceServer};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use portcullis_model::TenantId;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};
use tonic::{Code, Request, Response, Status};

use super::gate::{OtlpDoor, Shared, refused};
use super::{IngestRefusal, Refused, rpc_status};
use crate::convert::OtlpRequest;
use crate::store::{IngestError, Receipt};

/// Streams of one connection at once.
const STREAMS: u32 = 64;

/// The services of the door.
#[derive(Clone)]
struct Services {
    shared: Arc<Shared>,
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
        let caller = caller(&shared, address, &request);
        Box::pin(async move {
            let admitted = match caller {
                Ok((authorization, peer)) => admit(&shared, authorization, peer).await,
                Err(refused) => Err(refused),
            };
            match admitted {
                Ok((tenant, place)) => {
                    request.extensions_mut().insert(Admitted(tenant));
                    let response = inner.call(request).await;
                    drop(place);
                    response
                }
                Err(refused) => Ok(status(&refused).into_http()),
            }
        })
    }
}

/// Credential and peer of a request whose names are in order.
fn caller(shared: &Shared, address: SocketAddr, request: &http::Request<Body>) -> Result<(Option<String>, SocketAddr), Refused> {
    let text = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap_or("?"));
    let host = request.uri().authority().map(http::uri::Authority::as_str).or_else(|| text("host"));
    shared.check_names(address, host, text("origin"))?;
    let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let peer = peer.ok_or_else(|| Refused::Unavailable("the peer's address is not known".into()))?;
    Ok((text("authorization").map(str::to_owned), peer))
}

async fn admit(
    shared: &Shared,
    authorization: Option<String>,
    peer: SocketAddr,
) -> Result<(TenantId, OwnedSemaphorePermit), Refused> {
    let tenant = shared.admit(authorization.as_deref(), peer).await?;
    Ok((tenant, shared.place()?))
}

impl OtlpDoor {
    /// Serves OTLP over gRPC until `stop` resolves; requests in work are finished.
    pub async fn serve_grpc(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), tonic::transport::Error> {
        let limit = self.shared.limits.body_bytes;
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let services = Services { shared: Arc::clone(&self.shared) };
        let shared = self.shared;
        let admission = tower::layer::layer_fn(move |inner| Admission { inner, shared: Arc::clone(&shared), address });
        let logs = LogsServiceServer::new(services.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(limit);
        let traces = TraceServiceServer::new(services.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(limit);
        let metrics =
            MetricsServiceServer::new(services).accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(limit);
        tonic::transport::Server::builder()
            .max_concurrent_streams(Some(STREAMS))
            .http2_keepalive_interval(Some(Duration::from_mins(1)))
            .layer(admission)
            .add_service(logs)
            .add_service(traces)
            .add_service(metrics)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop)
            .await
    }
}

impl Services {
    async fn take<T>(&self, request: Request<T>, wrap: fn(T) -> OtlpRequest) -> Result<Receipt, Status>
    where
        T: prost::Message,
    {
        let shared = &self.shared;
        let admitted = request.extensions().get::<Admitted>().cloned();
        let Admitted(tenant) = admitted.ok_or_else(|| Status::unauthenticated("the request was not let in"))?;
        let message = request.into_inner();
        shared.pace(&tenant, message.encoded_len()).map_err(|r| status(&r))?;
        let receipt = shared.store.ingest_request(tenant, wrap(message)).await;
        receipt.map_err(|e| status(&refused(IngestError::Store(e))))
    }
}

fn status(refused: &Refused) -> Status {
    let (code, retry_after) = match refused {
        Refused::Credential(IngestRefusal::Unauthenticated(_)) => (Code::Unauthenticated, None),
        Refused::Credential(IngestRefusal::Forbidden(_)) | Refused::Origin(_) => (Code::PermissionDenied, None),
        Refused::TooLarge(_) | Refused::Malformed(_) | Refused::Unsupported(_) => (Code::InvalidArgument, None),
        Refused::Busy { retry_after, .. } => (Code::ResourceExhausted, Some(*retry_after)),
        Refused::Unavailable(_) => (Code::Unavailable, Some(5)),
        Refused::Slow => (Code::DeadlineExceeded, None),
    };
    let message = refused.message();
    let details = rpc_status::status(code, &message, retry_after).encode_to_vec();
    Status::with_details(code, message, details.into())
}

#[tonic::async_trait]
impl LogsService for Services {
    async fn export(&self, request: Request<ExportLogsServiceRequest>) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let receipt = self.take(request, OtlpRequest::Logs).await?;
        let partial_success = (receipt.rejected > 0).then(|| ExportLogsPartialSuccess {
            rejected_log_records: receipt.rejected as i64,
            error_message: receipt.reason.unwrap_or_default(),
        });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl TraceService for Services {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let receipt = self.take(request, OtlpRequest::Traces).await?;
        let partial_success = (receipt.rejected > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: receipt.rejected as i64,
            error_message: receipt.reason.unwrap_or_default(),
        });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Services {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let receipt = self.take(request, OtlpRequest::Metrics).await?;
        let partial_success = (receipt.rejected > 0).then(|| ExportMetricsPartialSuccess {
            rejected_data_points: receipt.rejected as i64,
            error_message: receipt.reason.unwrap_or_default(),
        });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}
