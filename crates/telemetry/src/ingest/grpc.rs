//! OTLP over gRPC: the three collector services.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>.

use std::net::SocketAddr;
use std::time::Duration;

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
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::gate::{OtlpDoor, refused};
use super::{IngestRefusal, Refused, rpc_status};
use crate::convert::OtlpRequest;
use crate::store::{IngestError, Receipt};

/// Streams of one connection at once.
const STREAMS: u32 = 64;

/// The services for one listener.
#[derive(Clone)]
struct Services {
    door: OtlpDoor,
    address: SocketAddr,
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
        let services = Services { door: self, address };
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
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
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
        let metadata = request.metadata();
        let text = |name| metadata.get(name).map(|v| v.to_str().unwrap_or("?"));
        if let Some(origin) = text("origin") {
            let none = Some("localhost");
            self.door.shared.check_names(self.address, none, Some(origin)).map_err(|r| status(&r))?;
        }
        let unknown = || Status::internal("the peer's address is not known");
        let peer = request.remote_addr().ok_or_else(unknown)?;
        let shared = &self.door.shared;
        let tenant = shared.admit(text("authorization"), peer).await.map_err(|r| status(&r))?;
        let _place = shared.place().map_err(|r| status(&r))?;
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
