//! OTLP over HTTP: `/v1/logs`, `/v1/traces`, `/v1/metrics`, protobuf or JSON, plain or gzip.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#otlphttp>.

use std::io::Read;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use futures::StreamExt as _;
use portcullis_model::{TenantId, Whence};
use portcullis_wire::{ConnectionSettings, Visitor, Wire, with_security_headers};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::gate::{Caller, OtlpDoor, Shared, refused};
use super::{IngestRefusal, Refused, Way, partial, rpc_status};
use crate::convert::OtlpSignal;
use crate::store::{Encoding, Receipt};

#[derive(Clone)]
struct Local {
    door: OtlpDoor,
    address: SocketAddr,
}

impl OtlpDoor {
    /// Serves OTLP over HTTP until `stop` resolves; requests in work are finished.
    pub async fn serve_http(
        self,
        listener: TcpListener,
        wire: Wire,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let router = with_security_headers(self.http_router(listener.local_addr()?));
        let closing = CancellationToken::new();
        let serving = portcullis_wire::serve(listener, router, closing.clone(), ConnectionSettings::default(), wire);
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            ended = &mut serving => ended,
            () = stop => {
                closing.cancel();
                serving.await
            }
        }
    }

    /// The routes for a listener bound to `address`; requests need a [`portcullis_wire::Visitor`].
    pub fn http_router(self, address: SocketAddr) -> Router {
        Router::new()
            .route("/v1/logs", post(|state, request| answer(state, request, OtlpSignal::Logs)))
            .route("/v1/traces", post(|state, request| answer(state, request, OtlpSignal::Traces)))
            .route("/v1/metrics", post(|state, request| answer(state, request, OtlpSignal::Metrics)))
            .with_state(Local { door: self, address })
    }
}

async fn answer(State(local): State<Local>, request: Request<Body>, signal: OtlpSignal) -> Response<Body> {
    let encoding = encoding_of(request.headers());
    let reply_as = encoding.as_ref().copied().unwrap_or(Encoding::Json);
    let whence = request.extensions().get::<Visitor>().map(|visitor| visitor.whence(request.headers()));
    let result = match encoding {
        Ok(encoding) => take(&local, request, whence.as_ref(), signal, encoding).await,
        Err(refused) => Err(refused),
    };
    match result {
        Ok(receipt) => success(signal, reply_as, &receipt),
        Err(refused) => {
            local.door.shared.tell(Way::Http, whence.as_ref(), &refused);
            failure(reply_as, &refused)
        }
    }
}

async fn take(
    local: &Local,
    request: Request<Body>,
    whence: Option<&Whence>,
    signal: OtlpSignal,
    encoding: Encoding,
) -> Result<Receipt, Refused> {
    let shared = &local.door.shared;
    let headers = request.headers();
    let text = |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap_or("?"));
    let line = request.uri().authority().map(axum::http::uri::Authority::as_str);
    shared.check_names(local.address, (line, text(header::HOST)), text(header::ORIGIN))?;
    let tenant = shared.admit(Way::Http, &Caller::read(headers, request.extensions(), whence)?).await?;
    let _place = shared.place()?;
    let gzip = match text(header::CONTENT_ENCODING).map(str::to_ascii_lowercase).as_deref() {
        None | Some("identity" | "") => false,
        Some("gzip") => true,
        Some(_) => return Err(Refused::Unsupported("send the body plain or with Content-Encoding: gzip".into())),
    };
    let sent = read_body(shared, request).await?;
    let payload = if gzip { unpack(shared, sent).await? } else { sent };
    store(shared, tenant, signal, encoding, payload).await
}

async fn store(
    shared: &Shared,
    tenant: TenantId,
    signal: OtlpSignal,
    encoding: Encoding,
    payload: Bytes,
) -> Result<Receipt, Refused> {
    shared.pace(&tenant, payload.len())?;
    shared.store.ingest(tenant, signal, encoding, payload).await.map_err(refused)
}

fn encoding_of(headers: &HeaderMap) -> Result<Encoding, Refused> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
        "application/x-protobuf" => Ok(Encoding::Protobuf),
        "application/json" => Ok(Encoding::Json),
        _ => Err(Refused::Unsupported("send Content-Type: application/x-protobuf or application/json".into())),
    }
}

fn too_large(limit: usize) -> Refused {
    Refused::TooLarge(format!("the request is larger than {limit} bytes; send smaller batches"))
}

/// Reads at most the limit; what says beforehand that it is larger is not read at all.
async fn read_body(shared: &Shared, request: Request<Body>) -> Result<Bytes, Refused> {
    let limit = shared.limits.body_bytes;
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let mut stream = request.into_body().into_data_stream();
    let reading = async {
        let mut body = BytesMut::with_capacity(announced.unwrap_or(0).min(1 << 20) as usize);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| Refused::Malformed("the body ended early".into()))?;
            if body.len() + chunk.len() > limit {
                return Err(too_large(limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    tokio::time::timeout(shared.limits.body_timeout, reading).await.map_err(|_| Refused::Slow)?
}

/// Unpacks at most the limit, whatever the packed size promises.
async fn unpack(shared: &Shared, packed: Bytes) -> Result<Bytes, Refused> {
    let limit = shared.limits.body_bytes;
    let work = move || {
        let mut plain = Vec::new();
        let mut reader = MultiGzDecoder::new(&packed[..]).take(limit as u64 + 1);
        reader.read_to_end(&mut plain).map_err(|e| Refused::Malformed(format!("the body is not gzip: {e}")))?;
        if plain.len() > limit { Err(too_large(limit)) } else { Ok(Bytes::from(plain)) }
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| Refused::Unavailable("the store is shutting down".into()))?
}

fn success(signal: OtlpSignal, encoding: Encoding, receipt: &Receipt) -> Response<Body> {
    let body = match encoding {
        Encoding::Protobuf => partial::protobuf(signal, receipt),
        Encoding::Json => partial::json(signal, receipt),
    };
    reply(StatusCode::OK, encoding, body, None)
}

fn failure(encoding: Encoding, refused: &Refused) -> Response<Body> {
    let (status, code, retry_after) = match refused {
        Refused::Credential(IngestRefusal::Unauthenticated(_)) => (StatusCode::UNAUTHORIZED, tonic::Code::Unauthenticated, None),
        Refused::Credential(IngestRefusal::Forbidden(_)) | Refused::Origin(_) => {
            (StatusCode::FORBIDDEN, tonic::Code::PermissionDenied, None)
        }
        Refused::Credential(IngestRefusal::NotNow { retry_after, too_often: true, .. }) => {
            (StatusCode::TOO_MANY_REQUESTS, tonic::Code::ResourceExhausted, Some(*retry_after))
        }
        Refused::Credential(IngestRefusal::NotNow { retry_after, .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, tonic::Code::Unavailable, Some(*retry_after))
        }
        Refused::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, tonic::Code::InvalidArgument, None),
        Refused::Malformed(_) | Refused::TwoCredentials => (StatusCode::BAD_REQUEST, tonic::Code::InvalidArgument, None),
        Refused::Unsupported(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, tonic::Code::InvalidArgument, None),
        Refused::Busy { retry_after, .. } => (StatusCode::TOO_MANY_REQUESTS, tonic::Code::ResourceExhausted, Some(*retry_after)),
        Refused::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, tonic::Code::Unavailable, Some(5)),
        Refused::Slow => (StatusCode::REQUEST_TIMEOUT, tonic::Code::DeadlineExceeded, None),
    };
    let message = refused.message();
    let body = match encoding {
        Encoding::Protobuf => rpc_status::status(code, &message, retry_after).encode_to_vec(),
        Encoding::Json => serde_json::json!({ "code": code as i32, "message": message }).to_string().into_bytes(),
    };
    reply(status, encoding, body, retry_after)
}

fn reply(status: StatusCode, encoding: Encoding, body: Vec<u8>, retry_after: Option<u64>) -> Response<Body> {
    let kind = match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT) {
        // The rest of the body is not read, so the connection cannot carry another request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
