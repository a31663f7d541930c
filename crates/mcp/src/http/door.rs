//! The way into `/mcp`: see the module above for the order.

use std::sync::{Arc, OnceLock};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use portcullis_gateway::{Caller, ClientHeaders, Gateway};
use portcullis_guard::{StrictLimits, check_strict};
use portcullis_identity::token::ProtectedResource;
use portcullis_identity::{ClientCertificate, Presented, Transport};
use portcullis_model::{Fault, FaultCode, Secret, Whence, cut};
use portcullis_wire::{RequestRefusal, rules, whence};
use rmcp::model::{ErrorCode, ErrorData};
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde::Deserialize;
use serde_json::Value;

use super::answer::{NO_SESSION, challenge, fault_refusal, mended, plain_refusal, request_id, rpc_refusal, with_rate};
use super::batch::Batch;
use super::oauth::Beyond;
use super::opening::stands_alone;
use super::places::{NoPlace, Place, Places};
use super::sessions::{NotTaken, SERVING, Serving, Sessions};
use super::{HttpSettings, oauth, quick};
use crate::batch::{self, NO_BATCHES};
use crate::face::{Face, OpenStream, StreamLimits};
use crate::handler::Handler;
use crate::in_flight;
use crate::turn::SESSION_HEADER;
use crate::watch::{self, STREAM_LIFETIME};

/// Header by which a client says which revision it speaks.
pub(super) const VERSION_HEADER: &str = "mcp-protocol-version";
/// The one revision with batches.
pub(super) const BATCH_VERSION: &str = "2025-03-26";
/// Headers that MCP over HTTP reads; rmcp wants a `Host` as well. Nothing else is handed to rmcp: no credential, no cookie, nothing a proxy added.
const PROTOCOL_HEADERS: [HeaderName; 9] = [
    ACCEPT,
    CONTENT_TYPE,
    HOST,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static(SESSION_HEADER),
    HeaderName::from_static(VERSION_HEADER),
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
    HeaderName::from_static("traceparent"),
];
/// Headers that mirror arguments (SEP-2243) begin like this.
pub(super) const MIRRORED: &str = "mcp-param-";

/// Characters of the revision a caller asked for that are repeated.
const REPEATED: usize = 64;

/// What stands before the name of a product in its address.
const PRODUCTS: &str = "/mcp/";

/// An answer instead of being let in.
type Refusal = Box<Response>;

/// What every request to `/mcp` passes.
pub(super) struct Door {
    face: Arc<Face>,
    service: StreamableHttpService<Handler, Sessions>,
    /// The same for messages of the older eras that need no session.
    alone: StreamableHttpService<Handler, Sessions>,
    sessions: Arc<Sessions>,
    places: Places,
    settings: HttpSettings,
}

impl Door {
    pub(super) fn new(gateway: Arc<Gateway>, settings: HttpSettings) -> Self {
        let limits = StreamLimits { per_principal: settings.streams_per_principal, in_all: settings.streams };
        let face = Arc::new(Face::new(gateway, limits, settings.closing.clone()));
        let sessions = Arc::new(Sessions::new(settings.session_limits));
        settings.session_count.count(&sessions);
        // Host and Origin were checked in front of every route.
        let config = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .with_json_response(true)
            .with_max_request_body_bytes(settings.body_limit);
        let serving = |legacy: bool| {
            let made_by = face.clone();
            let make = move || {
                let owner = SERVING.try_with(|serving| serving.caller.clone()).ok();
                let handler = Handler::new(made_by.clone(), owner);
                Ok(if legacy { handler } else { handler.alone() })
            };
            StreamableHttpService::new(make, sessions.clone(), config.clone().with_legacy_session_mode(legacy))
        };
        let (service, alone) = (serving(true), serving(false));
        let places = Places::new(settings.in_flight, settings.in_flight_per_principal);
        Self { face, service, alone, sessions, places, settings }
    }

    pub(super) fn gateway(&self) -> &Gateway {
        &self.face.gateway
    }

    /// This server as a protected resource, where tokens are taken.
    pub(super) fn resource(&self) -> Option<&Arc<ProtectedResource>> {
        self.settings.protected_resource.as_ref()
    }

    /// Who asks.
    async fn identify(&self, request: &mut Request) -> Result<Caller, Refusal> {
        let headers = request.headers();
        let whence = whence(request.extensions(), headers);
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let first = given.next();
        if given.next().is_some() {
            let sentence = "the request has more than one Authorization header";
            self.tell(whence.as_ref(), rules::TWO_CREDENTIALS, FaultCode::InvalidArgument, sentence);
            return Err(Box::new(plain_refusal(StatusCode::BAD_REQUEST, sentence)));
        }
        // A header that is no text is no credential, but it was presented: it must not count as absent.
        let authorization = first.map(|value| value.to_str().unwrap_or(""));
        let presented = Presented {
            transport: Transport::Http,
            authorization,
            certificate: request.extensions().get::<Arc<ClientCertificate>>().map(AsRef::as_ref),
            query: request.uri().query(),
            whence,
        };
        let identified = self.gateway().identify(&presented).await;
        let caller = identified.map_err(|fault| Box::new(challenge(fault, authorization.is_some())))?;
        request.headers_mut().remove(AUTHORIZATION);
        let caller = caller.with_headers(self.handed_on(request.headers_mut()));
        match request.uri().path().strip_prefix(PRODUCTS) {
            None => Ok(caller),
            Some(product) => {
                let within = self.gateway().within_product(caller, product);
                within.map_err(|fault| Box::new(fault_refusal(fault, None)))
            }
        }
    }

    /// Takes the headers that may be handed on to other servers out of the request.
    fn handed_on(&self, headers: &mut HeaderMap) -> ClientHeaders {
        let taken = self.settings.handed_on.iter().filter_map(|name| {
            let value = headers.remove(name)?;
            Some((name.as_str().to_owned(), Secret::new(value.to_str().ok()?)))
        });
        ClientHeaders::of(taken.collect::<Vec<_>>())
    }

    /// A place among the requests in the house, at once or after a short wait.
    async fn place(&self, caller: &Caller) -> Result<Place, Refusal> {
        let taken = self.places.take(&caller.principal().id, self.settings.admission_time).await;
        taken.map_err(|none| {
            let (rule, fault) = match none {
                NoPlace::Own(limit) => {
                    let sentence = format!("{limit} of your requests are being served already; wait for one to end");
                    ("in-flight-share", Fault::new(FaultCode::RateLimited, sentence))
                }
                NoPlace::All => ("in-flight", Fault::new(FaultCode::Unavailable, "the server is at its limit of requests")),
            };
            let released = self.gateway().refuse_request(caller, "admission", rule, fault.with_retry_after(1));
            Box::new(fault_refusal(released, None))
        })
    }

    /// The session a request names, when it exists for its caller.
    fn session(&self, headers: &HeaderMap, caller: &Caller) -> Result<Option<Arc<str>>, Refusal> {
        let mut given = headers.get_all(SESSION_HEADER).iter();
        let Some(first) = given.next() else { return Ok(None) };
        let id = first.to_str().ok().filter(|_| given.next().is_none());
        if let Some(id) = id.filter(|id| self.sessions.admits(id, &caller.principal().id, caller.product())) {
            return Ok(Some(Arc::from(id)));
        }
        let fault = Fault::new(FaultCode::NotFound, NO_SESSION);
        Err(Box::new(fault_refusal(self.gateway().refuse_request(caller, "session", "foreign-session", fault), None)))
    }

    /// Tells of a refusal before anybody is known.
    fn tell(&self, whence: Option<&Whence>, rule: &'static str, code: FaultCode, detail: &str) {
        self.settings.refusals.refused(RequestRefusal { whence, rule, code, detail });
    }

    /// The body, within its limit and time.
    async fn read(&self, caller: &Caller, body: Body) -> Result<Bytes, Refusal> {
        let limit = self.settings.body_limit;
        let reading = Limited::new(body, limit).collect();
        match tokio::time::timeout(self.settings.body_time, reading).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let released = self.gateway().refuse_request(caller, "unreadable", rules::BODY_SIZE, self.too_large());
                Err(Box::new(fault_refusal(released, None)))
            }
            Ok(Err(error)) => {
                let sentence = "the body could not be read to its end";
                let fault = Fault::invalid(sentence).with_internal(error.to_string());
                self.gateway().refuse_request(caller, "unreadable", rules::BODY_BROKEN, fault);
                Err(Box::new(plain_refusal(StatusCode::BAD_REQUEST, sentence)))
            }
            Err(_elapsed) => {
                let seconds = self.settings.body_time.as_secs();
                let fault = Fault::new(FaultCode::DeadlineExceeded, format!("the body did not arrive within {seconds}s"));
                let released = self.gateway().refuse_request(caller, "unreadable", rules::BODY_TIME, fault);
                Err(Box::new(fault_refusal(released, None)))
            }
        }
    }

    fn too_large(&self) -> Fault {
        Fault::new(FaultCode::TooLarge, format!("the body is larger than the limit of {} bytes", self.settings.body_limit))
    }

    /// Refuses what two readers could understand differently.
    fn check(&self, caller: &Caller, body: &[u8]) -> Result<(), Refusal> {
        if let Err(fault) = check_strict(body, StrictLimits::default()) {
            let (syntax, sentence) = (fault.is_syntax(), fault.to_string());
            let released = self.gateway().refuse_request(caller, "unreadable", "strict-json", Fault::invalid(sentence));
            let message = released.into_inner().message;
            let error = if syntax { ErrorData::parse_error(message, None) } else { ErrorData::invalid_request(message, None) };
            return Err(Box::new(rpc_refusal(StatusCode::BAD_REQUEST, error, request_id(body))));
        }
        Ok(())
    }

    /// The messages of a batch, where one may be sent: in a session of the one revision that knows batches.
    fn batch(&self, caller: &Caller, headers: &HeaderMap, body: &Bytes) -> Result<Vec<Bytes>, Refusal> {
        let refuse = |reason: String| {
            let released = self.gateway().refuse_request(caller, "unreadable", "batch", Fault::invalid(reason));
            let error = ErrorData::invalid_request(released.into_inner().message, None);
            Box::new(rpc_refusal(StatusCode::BAD_REQUEST, error, None))
        };
        let agreed = headers.get(VERSION_HEADER).is_none_or(|version| version == BATCH_VERSION);
        let session = headers.get(SESSION_HEADER).and_then(|id| id.to_str().ok());
        if !agreed || !session.is_some_and(|id| self.sessions.takes_batches(id)) {
            return Err(refuse(NO_BATCHES.to_owned()));
        }
        let messages = batch::messages(body).map_err(|fault| refuse(fault.to_string()))?;
        Ok(messages.into_iter().map(|message| body.slice_ref(message.get().as_bytes())).collect())
    }

    /// A message of a batch, with what it wants beyond the caller's token. Only requests are answered, so only they are refused.
    fn looked_at(&self, caller: &Caller, message: Bytes) -> (Bytes, Option<Beyond>) {
        let beyond = request_id(&message).and_then(|_id| oauth::beyond(self.resource(), self.gateway(), caller, &message));
        (message, beyond)
    }

    async fn serve(self: &Arc<Self>, mut request: Request) -> Result<Response, Refusal> {
        if let Some(length) = declared_length(request.headers()).filter(|length| *length > self.settings.body_limit as u64) {
            let fault = self.too_large();
            let detail = format!("{length} bytes were announced");
            let whence = whence(request.extensions(), request.headers());
            self.tell(whence.as_ref(), rules::BODY_SIZE, fault.code(), &detail);
            return Err(Box::new(fault_refusal(self.gateway().release_fault(&fault), None)));
        }
        let caller = self.identify(&mut request).await?;
        let told = caller.clone();
        match self.serve_known(request, caller).await {
            Ok(response) => Ok(with_rate(response, &told)),
            Err(refusal) => Err(Box::new(with_rate(*refusal, &told))),
        }
    }

    async fn serve_known(self: &Arc<Self>, request: Request, caller: Caller) -> Result<Response, Refusal> {
        let place = self.place(&caller).await?;
        let session = self.session(request.headers(), &caller)?;
        let caller = Arc::new(caller.in_session(session));
        let stream = match *request.method() {
            Method::GET => Some(self.face.streams.open(&caller.principal().id).map_err(|fault| {
                Box::new(fault_refusal(self.gateway().refuse_request(&caller, "session", "stream-budget", fault), None))
            })?),
            _ => None,
        };
        let (parts, body) = request.into_parts();
        let body = if parts.method == Method::POST {
            if !is_json(&parts.headers) {
                let sentence = "the Content-Type must be application/json";
                self.gateway().refuse_request(&caller, "unreadable", rules::MEDIA_TYPE, Fault::invalid(sentence));
                return Err(Box::new(plain_refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence)));
            }
            let body = self.read(&caller, body).await?;
            self.check(&caller, &body)?;
            if let Some(step) = oauth::step_up(self.resource(), self.gateway(), &caller, &body).await {
                return Err(Box::new(step));
            }
            body
        } else {
            Bytes::new()
        };
        if batch::is_array(&body) {
            let messages = self.batch(&caller, &parts.headers, &body)?;
            let messages = messages.into_iter().map(|message| self.looked_at(&caller, message)).collect();
            return Ok(Batch { door: self.clone(), parts, messages, caller, place }.serve().await);
        }
        if let Some(quick) = quick::read(&self.face, &parts.headers, &body, &caller) {
            return Ok(quick.run(&self.face).await);
        }
        let response = self.hand_over(parts, body, caller.clone()).await;
        drop(place);
        Ok(match stream {
            Some(stream) if response.status().is_success() => self.bounded(response, stream, caller),
            _ => response,
        })
    }

    /// Gives one message to rmcp, with the headers of the protocol and no other.
    pub(super) async fn hand_over(&self, mut parts: Parts, body: Bytes, caller: Arc<Caller>) -> Response {
        let service = if stands_alone(self.settings.sessions, &parts, &body) { &self.alone } else { &self.service };
        parts.headers = protocol_headers(&parts.headers);
        parts.extensions.insert(caller.clone());
        let serving = Arc::new(Serving { caller, refused: OnceLock::new() });
        let request = axum::http::Request::from_parts(parts, Full::new(body.clone()));
        let response = SERVING.scope(serving.clone(), service.handle(request)).await.map(Body::new);
        match serving.refused.get() {
            None => self.noted(&serving.caller, mended(response, &body)).await,
            Some(NotTaken::NoRoom(fault)) => {
                let released = self.gateway().refuse_request(&serving.caller, "initialize", "session-limit", fault.clone());
                fault_refusal(released, request_id(&body))
            }
            Some(NotTaken::IdInUse(id)) => {
                let fault = Fault::invalid(in_flight::sentence(id));
                let released = self.gateway().refuse_request(&serving.caller, "unreadable", in_flight::RULE, fault);
                // Without the id: with it, this would be taken for the answer to the request that is under way.
                rpc_refusal(StatusCode::BAD_REQUEST, ErrorData::invalid_request(released.into_inner().message, None), None)
            }
        }
    }

    /// Records what the protocol layer refused: headers that contradict the body, a message of no known shape, a method that
    /// does not exist. It repeats what the caller sent, so its words are released. What reached the gate is recorded there.
    async fn noted(&self, caller: &Caller, response: Response) -> Response {
        if !response.status().is_client_error() {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        // Refusals are short and whole; anything else is an answer, and goes on as it came.
        let Ok(collected) = body.collect().await else {
            return Response::from_parts(parts, Body::empty());
        };
        let mut body = collected.to_bytes();
        if let Some((rule, fault)) = protocol_refusal(&body) {
            let released = self.gateway().refuse_request(caller, "unreadable", rule, fault);
            if let Some(said) = self.saying(&body, &released.get().message) {
                body = said;
                parts.headers.remove(CONTENT_LENGTH);
            }
        }
        Response::from_parts(parts, Body::from(body))
    }

    /// An error of the protocol layer in released words; the revision that was asked for is the caller's text as well.
    fn saying(&self, body: &[u8], words: &str) -> Option<Bytes> {
        let mut whole: Value = serde_json::from_slice(body).ok()?;
        *whole.pointer_mut("/error/message")? = Value::from(words);
        if let Some(Value::String(requested)) = whole.pointer_mut("/error/data/requested") {
            let beginning = cut::quoted(requested, REPEATED);
            *requested = self.gateway().release_fault(&Fault::invalid(beginning)).into_inner().message;
        }
        serde_json::to_vec(&whole).ok().map(Bytes::from)
    }

    /// Ends a listening stream when the server stops, its time is over, or its holder would not be let in any more, and
    /// gives its place back.
    fn bounded(&self, response: Response, stream: OpenStream, caller: Arc<Caller>) -> Response {
        let (face, closing) = (self.face.clone(), self.settings.closing.clone());
        let end = async move {
            tokio::select! {
                () = closing.cancelled_owned() => {}
                () = tokio::time::sleep(STREAM_LIFETIME) => {}
                () = face.gateway.until_refused(&caller) => watch::ended(&face, &caller),
            }
        };
        response.map(|body| {
            let held = body.into_data_stream().take_until(Box::pin(end)).map(move |chunk| {
                let _held = &stream;
                chunk
            });
            Body::from_stream(held)
        })
    }
}

/// The rule and the fault of an error of the protocol layer; nothing when the error came from the gate, which recorded it.
fn protocol_refusal(body: &[u8]) -> Option<(&'static str, Fault)> {
    #[derive(Deserialize)]
    struct Envelope {
        error: ErrorData,
    }
    let Envelope { error } = serde_json::from_slice(body).ok()?;
    let rule = match error.code {
        ErrorCode::HEADER_MISMATCH => "header-mismatch",
        ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY => return None,
        _ if error.data.as_ref().is_some_and(|data| data.get("code").is_some()) => return None,
        _ => "protocol",
    };
    Some((rule, Fault::invalid(error.message.to_string())))
}

/// The headers of the protocol, each as often as it was sent.
fn protocol_headers(headers: &HeaderMap) -> HeaderMap {
    let read = |name: &HeaderName| PROTOCOL_HEADERS.contains(name) || name.as_str().starts_with(MIRRORED);
    headers.iter().filter(|(name, _)| read(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split_once(';').map_or(value, |(essence, _)| essence);
        essence.trim().eq_ignore_ascii_case("application/json")
    })
}

/// Whether the server lives: one word that depends on nothing, for whoever asks as often as an address may.
pub(super) async fn alive(State(door): State<Arc<Door>>, request: Request) -> Response {
    let whence = whence(request.extensions(), request.headers());
    let presented = Presented { whence, ..Presented::http(None, None) };
    match door.gateway().admit_probe(&presented) {
        Ok(()) => Response::new(Body::from("ok")),
        Err(fault) => fault_refusal(fault, None),
    }
}

/// The handler of the route.
pub(super) async fn enter(State(door): State<Arc<Door>>, request: Request) -> Response {
    match door.serve(request).await {
        Ok(response) => response,
        Err(refusal) => oauth::challenged(*refusal, door.resource()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_headers_of_the_protocol_are_handed_on() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "cookie", "proxy-authorization", "x-api-key", "x-forwarded-for", "mcp-token", "origin"] {
            headers.insert(name, HeaderValue::from_static("secret"));
        }
        assert!(protocol_headers(&headers).is_empty());
        for name in PROTOCOL_HEADERS.into_iter().chain([HeaderName::from_static("mcp-param-region")]) {
            headers.append(&name, HeaderValue::from_static("a"));
            headers.append(&name, HeaderValue::from_static("b"));
        }
        let kept = protocol_headers(&headers);
        assert_eq!(kept.len(), 2 * (PROTOCOL_HEADERS.len() + 1));
        assert!(kept.values().all(|value| value != "secret"), "a header sent twice stays twice, for rmcp to refuse");
    }
}
