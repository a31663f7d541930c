//! The routes and the way in. A request passes, in this order: Host and Origin, identification by a credential that opens the
//! door, a place among the requests in work, size, and for what changes something the rules against requests that a page made
//! and the gate's decision; only then a body is read, and the gate's road is walked.
//!
//! Cookies are never read. Without a credential there is nothing but a bare status at `/livez` and `/readyz`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use portcullis_gateway::{Caller, Gateway, OperationRequest};
use portcullis_guard::{StrictLimits, check_strict};
use portcullis_identity::{ClientCertificate, Door, Presented};
use portcullis_model::{Fault, FaultCode, Principal, PrincipalId, Whence};
use portcullis_policy::Operation;
use portcullis_wire::{HostPolicy, Refusals, RequestRefusal, guarded, rules};
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::answer;
use crate::exposition::Format;
use crate::metrics::Metrics;
use crate::steward::{AuditQuestion, Steward};

/// A header no page of another origin can send without being asked for it first.
const OWN_HEADER: HeaderName = HeaderName::from_static("x-portcullis-request");
/// Most characters of the id in an address.
const MOST_ID: usize = 128;

/// Who may ask for `/livez` and `/readyz` without a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HealthFor {
    /// Everybody who reaches the listener; the answer is a bare status.
    #[default]
    Anyone,
    /// Peers on this machine that come straight; everybody else needs a credential.
    ThisMachine,
}

/// How the admin face behaves.
#[derive(Debug, Clone)]
pub struct ConsoleSettings {
    /// Which `Host` and `Origin` headers are accepted.
    pub hosts: HostPolicy,
    /// Largest request body, bytes.
    pub body_limit: usize,
    /// How long a client may take to send a body.
    pub body_time: Duration,
    /// Requests in work at once; more wait [`ConsoleSettings::admission_time`], then get 503.
    pub in_flight: usize,
    /// Of them, those of one principal; more get 503 at once.
    pub in_flight_each: usize,
    /// How long a request waits for a place.
    pub admission_time: Duration,
    /// Who is told without a credential whether the server is alive and ready.
    pub health: HealthFor,
    /// Cancelled when the server is about to stop: from then on it is not ready.
    pub closing: CancellationToken,
}

impl Default for ConsoleSettings {
    fn default() -> Self {
        Self {
            hosts: HostPolicy::loopback(),
            body_limit: 64 << 10,
            body_time: Duration::from_secs(10),
            in_flight: 32,
            in_flight_each: 8,
            admission_time: Duration::from_secs(2),
            health: HealthFor::Anyone,
            closing: CancellationToken::new(),
        }
    }
}

/// What the face is made of.
pub struct ConsoleParts {
    /// The gate.
    pub gateway: Arc<Gateway>,
    /// The house.
    pub steward: Arc<dyn Steward>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Who keeps the records of what is refused before anybody is known.
    pub refusals: Arc<dyn Refusals>,
    /// How it behaves.
    pub settings: ConsoleSettings,
}

/// An answer instead of being let in.
type Refusal = Box<Response>;

struct Desk {
    gateway: Arc<Gateway>,
    steward: Arc<dyn Steward>,
    metrics: Arc<Metrics>,
    refusals: Arc<dyn Refusals>,
    places: Arc<Semaphore>,
    crowd: Arc<Crowd>,
    settings: ConsoleSettings,
}

/// How many requests of each principal are in work, so that one cannot take every place.
#[derive(Default)]
struct Crowd(Mutex<HashMap<PrincipalId, usize>>);

impl Crowd {
    fn join(self: &Arc<Self>, id: PrincipalId, most: usize) -> Option<Share> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(id.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Share { crowd: self.clone(), id })
    }
}

/// One of a principal's requests, for as long as it is in work.
struct Share {
    crowd: Arc<Crowd>,
    id: PrincipalId,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.id);
            }
        }
    }
}

/// Somebody who was let in, with a place while the request is in work.
struct Admitted {
    caller: Caller,
    _share: Share,
    _place: OwnedSemaphorePermit,
}

/// The admin face: `/livez`, `/readyz`, `/metrics` and `/api/v1/…`. Needs what `portcullis_wire::serve`
/// makes known of a connection.
pub fn router(parts: ConsoleParts) -> Router {
    let ConsoleParts { gateway, steward, metrics, refusals, settings } = parts;
    let places = Arc::new(Semaphore::new(settings.in_flight));
    let hosts = settings.hosts.clone();
    let desk = Arc::new(Desk { gateway, steward, metrics, refusals: refusals.clone(), places, crowd: Arc::default(), settings });
    let api = Router::new()
        .route(
            "/status",
            get(|State(desk): Shared, request: Request| async move {
                desk.read(request, Operation::ReadStatus, |s| async move { s.status().await }).await
            }),
        )
        .route(
            "/sources",
            get(|State(desk): Shared, request: Request| async move {
                desk.read(request, Operation::ReadSources, |s| async move { s.sources().await }).await
            }),
        )
        .route(
            "/approvals",
            get(|State(desk): Shared, request: Request| async move {
                desk.read(request, Operation::ReadApprovals, |s| async move { s.approvals().await }).await
            }),
        )
        .route("/approvals/{id}/approve", post(|desk: Shared, id: Id, request: Request| decide(desk, id, request, true)))
        .route("/approvals/{id}/deny", post(|desk: Shared, id: Id, request: Request| decide(desk, id, request, false)))
        .route("/audit", get(audit))
        .route(
            "/keys",
            get(|State(desk): Shared, request: Request| async move {
                desk.read(request, Operation::ReadKeys, |s| async move { s.keys().await }).await
            }),
        )
        .route("/keys/{id}/revoke", post(revoke));
    let routes = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .nest("/api/v1", api)
        .fallback(|| async {
            answer::plain(StatusCode::NOT_FOUND, FaultCode::NotFound, "there is nothing here; see the guide to the admin API")
        })
        .method_not_allowed_fallback(|| async {
            answer::plain(
                StatusCode::METHOD_NOT_ALLOWED,
                FaultCode::InvalidArgument,
                "another method is needed here: GET reads, POST changes",
            )
        })
        .with_state(desk);
    guarded(routes, hosts, None, answer::turned_away, refusals)
}

type Shared = State<Arc<Desk>>;
/// The id in an address. One that cannot be read is nobody's, which is said only after it is known who asks.
type Id = Result<Path<String>, PathRejection>;

fn named(id: Id) -> String {
    id.map(|Path(id)| id).unwrap_or_default()
}

fn whence_of(request: &Request) -> Option<Whence> {
    portcullis_wire::whence(request.extensions(), request.headers())
}

impl Desk {
    /// Who asks, by a credential that opens one of `doors`.
    async fn identify(&self, request: &mut Request, doors: &[Door]) -> Result<Caller, Refusal> {
        let headers = request.headers();
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let first = given.next();
        if given.next().is_some() {
            let (sentence, code) = ("the request has more than one Authorization header", FaultCode::InvalidArgument);
            let (whence, rule) = (whence_of(request), rules::TWO_CREDENTIALS);
            self.refusals.refused(RequestRefusal { whence: whence.as_ref(), rule, code, detail: sentence });
            return Err(Box::new(answer::plain(StatusCode::BAD_REQUEST, code, sentence)));
        }
        // A header that is no text is no credential, but it was presented: it must not count as absent.
        let authorization = first.map(|value| value.to_str().unwrap_or(""));
        let presented = Presented {
            certificate: request.extensions().get::<Arc<ClientCertificate>>().map(AsRef::as_ref),
            query: request.uri().query(),
            whence: whence_of(request),
            ..Presented::admin(authorization, None)
        };
        let identified = self.gateway.identify_admin(&presented, doors).await;
        let caller = identified.map_err(|fault| Box::new(answer::fault(fault, authorization.is_some())))?;
        request.headers_mut().remove(AUTHORIZATION);
        Ok(caller)
    }

    /// Lets somebody in: identified, with a place, and with a body that is not announced as too large.
    async fn enter(&self, request: &mut Request, doors: &[Door]) -> Result<Admitted, Refusal> {
        let caller = self.identify(request, doors).await?;
        let Some(share) = self.crowd.join(caller.principal().id.clone(), self.settings.in_flight_each) else {
            let said = format!("this credential has {} requests in work already", self.settings.in_flight_each);
            let fault = Fault::new(FaultCode::Unavailable, said).with_retry_after(1);
            return Err(self.refuse(&caller, "admin/enter", "in-flight", fault));
        };
        let waiting = self.places.clone().acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(self.settings.admission_time, waiting).await else {
            let fault = Fault::new(FaultCode::Unavailable, "the admin listener is at its limit of requests").with_retry_after(1);
            return Err(self.refuse(&caller, "admin/enter", "in-flight", fault));
        };
        let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > self.settings.body_limit as u64) {
            return Err(self.too_large(&caller));
        }
        Ok(Admitted { caller, _share: share, _place: place })
    }

    #[expect(clippy::unnecessary_box_returns, reason = "it is an error of others, and large")]
    fn refuse(&self, caller: &Caller, method: &'static str, rule: &str, fault: Fault) -> Refusal {
        Box::new(answer::fault(self.gateway.refuse_request(caller, method, rule, fault), true))
    }

    #[expect(clippy::unnecessary_box_returns, reason = "it is an error of others, and large")]
    fn too_large(&self, caller: &Caller) -> Refusal {
        let limit = self.settings.body_limit;
        let fault = Fault::new(FaultCode::TooLarge, format!("the body is larger than the limit of {limit} bytes"));
        self.refuse(caller, "admin/enter", rules::BODY_SIZE, fault)
    }

    /// The body, within its limit and time, as the object it must be.
    async fn object(&self, caller: &Caller, body: Body) -> Result<Map<String, Value>, Refusal> {
        let reading = Limited::new(body, self.settings.body_limit).collect();
        let bytes: Bytes = match tokio::time::timeout(self.settings.body_time, reading).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(self.too_large(caller)),
            Ok(Err(_)) => {
                let fault = Fault::invalid("the body could not be read to its end");
                return Err(self.refuse(caller, "admin/enter", rules::BODY_BROKEN, fault));
            }
            Err(_elapsed) => {
                let seconds = self.settings.body_time.as_secs();
                let fault = Fault::new(FaultCode::DeadlineExceeded, format!("the body did not arrive within {seconds}s"));
                return Err(self.refuse(caller, "admin/enter", rules::BODY_TIME, fault));
            }
        };
        let wrong = |sentence: String| self.refuse(caller, "admin/enter", "strict-json", Fault::invalid(sentence));
        check_strict(&bytes, StrictLimits::default()).map_err(|fault| wrong(fault.to_string()))?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(members)) => Ok(members),
            _ => Err(wrong("the body must be a JSON object; send {} when there is nothing to say".to_owned())),
        }
    }

    /// Refuses what a page of another origin could make a browser send: anything but JSON, and JSON without a header that
    /// such a page cannot send. A client certificate comes along by itself, so it counts for nothing here.
    fn check_intent(&self, caller: &Caller, headers: &HeaderMap, credential_in_header: bool) -> Result<(), Refusal> {
        if !is_json(headers) {
            let fault = Fault::invalid("the Content-Type must be application/json");
            return Err(self.refuse(caller, "admin/enter", "cross-site", fault));
        }
        if !credential_in_header && !headers.contains_key(&OWN_HEADER) {
            let fault =
                Fault::new(FaultCode::Forbidden, "a change needs an Authorization header, or the header X-Portcullis-Request")
                    .with_hint("send 'X-Portcullis-Request: 1' with requests that are authenticated by a client certificate");
            return Err(self.refuse(caller, "admin/enter", "cross-site", fault));
        }
        Ok(())
    }

    /// The gate's road.
    async fn operate<W, F>(&self, caller: &Caller, request: OperationRequest, work: W) -> Response
    where
        W: FnOnce(Arc<dyn Steward>) -> F,
        F: Future<Output = Result<Value, Fault>>,
    {
        let steward = self.steward.clone();
        match self.gateway.administer(caller, request, || work(steward)).await {
            Ok(released) => answer::released(released),
            Err(fault) => answer::fault(fault, true),
        }
    }

    /// An operation that only looks.
    async fn read<W, F>(&self, mut request: Request, operation: Operation, work: W) -> Response
    where
        W: FnOnce(Arc<dyn Steward>) -> F,
        F: Future<Output = Result<Value, Fault>>,
    {
        let admitted = match self.enter(&mut request, &[Door::Admin]).await {
            Ok(admitted) => admitted,
            Err(refusal) => return *refusal,
        };
        if request.uri().query().is_some_and(|query| !query.is_empty()) {
            let fault = Fault::invalid("there are no parameters here; leave the part after '?' out");
            return *self.refuse(&admitted.caller, operation.method(), "request", fault);
        }
        self.operate(&admitted.caller, OperationRequest::new(operation), work).await
    }

    /// An operation that changes the thing `id`.
    async fn change<W, F>(&self, mut request: Request, operation: Operation, id: String, work: W) -> Response
    where
        W: FnOnce(Arc<dyn Steward>, Arc<Principal>, String) -> F,
        F: Future<Output = Result<Value, Fault>>,
    {
        let in_header = request.headers().contains_key(AUTHORIZATION);
        let admitted = match self.enter(&mut request, &[Door::Admin]).await {
            Ok(admitted) => admitted,
            Err(refusal) => return *refusal,
        };
        let caller = &admitted.caller;
        let (parts, body) = request.into_parts();
        if let Err(refusal) = self.check_intent(caller, &parts.headers, in_header) {
            return *refusal;
        }
        // Asked before a byte of the body is waited for: who may not do this holds no place with a body that never comes.
        let asked = match self.gateway.may_operate(caller, OperationRequest::about(operation, id.clone())) {
            Ok(asked) => asked,
            Err(fault) => return answer::fault(fault, true),
        };
        match self.object(caller, body).await {
            Err(refusal) => return *refusal,
            Ok(members) => {
                if let Some(name) = members.keys().next() {
                    let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
                    let fault = Fault::invalid(format!("'{shown}' is not known here; send {{}}"));
                    return *self.refuse(caller, operation.method(), "request", fault);
                }
            }
        }
        if id.is_empty() || id.len() > MOST_ID || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-:.".contains(&b)) {
            let fault = Fault::new(FaultCode::NotFound, "there is nothing of that id");
            return *self.refuse(caller, operation.method(), "unknown-name", fault);
        }
        let who = caller.principal().clone();
        self.operate(caller, asked, |steward| work(steward, who, id)).await
    }

    /// Lets somebody without a credential ask whether the server is well, where the settings do.
    async fn may_ask_health(&self, request: &mut Request) -> Result<(), Refusal> {
        let near = whence_of(request).is_some_and(|whence| whence.is_near());
        if self.settings.health == HealthFor::Anyone || near {
            return Ok(());
        }
        self.identify(request, &[Door::Admin, Door::Metrics]).await.map(|_| ())
    }

    /// The conditions of being ready.
    fn checks(&self) -> Vec<crate::Check> {
        let mut checks = self.steward.readiness();
        let draining = self.settings.closing.is_cancelled();
        checks.push(crate::Check::new("drain", if draining { Err("the server is stopping".to_owned()) } else { Ok(()) }));
        checks
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split_once(';').map_or(value, |(essence, _)| essence);
        essence.trim().eq_ignore_ascii_case("application/json")
    })
}

/// Whether the process answers.
async fn live(State(desk): Shared, mut request: Request) -> Response {
    match desk.may_ask_health(&mut request).await {
        Ok(()) => answer::bare(StatusCode::OK),
        Err(refusal) => *refusal,
    }
}

/// Whether calls would be served now: a bare status, and with a credential the conditions.
async fn ready(State(desk): Shared, mut request: Request) -> Response {
    let checks = desk.checks();
    let well = checks.iter().all(crate::Check::holds);
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !request.headers().contains_key(AUTHORIZATION) {
        return match desk.may_ask_health(&mut request).await {
            Ok(()) => answer::bare(status),
            Err(refusal) => *refusal,
        };
    }
    let details = json!({"ready": well, "checks": checks});
    let mut response = desk.read(request, Operation::ReadStatus, |_| async move { Ok(details) }).await;
    if response.status() == StatusCode::OK {
        *response.status_mut() = status;
    }
    response
}

/// The metrics, for a scraper whose credential opens the door `metrics` (or `admin`). Its success is recorded once in a
/// while and its refusal always; it takes no place of a call, so that a full house can still be seen to be full.
async fn metrics_text(State(desk): Shared, mut request: Request) -> Response {
    let admitted = match desk.enter(&mut request, &[Door::Metrics, Door::Admin]).await {
        Ok(admitted) => admitted,
        Err(refusal) => return *refusal,
    };
    let format = Format::wanted(request.headers());
    let sample = crate::Sample { checks: desk.checks(), ..desk.steward.sample().await };
    drop(admitted);
    if let Ok(text) = desk.metrics.expose(sample, format) {
        return ([(CONTENT_TYPE, HeaderValue::from_static(format.media_type()))], text).into_response();
    }
    tracing::error!("the metrics could not be written");
    answer::plain(StatusCode::INTERNAL_SERVER_ERROR, FaultCode::Internal, "the metrics could not be written")
}

/// A page of audit records.
async fn audit(State(desk): Shared, mut request: Request) -> Response {
    let admitted = match desk.enter(&mut request, &[Door::Admin]).await {
        Ok(admitted) => admitted,
        Err(refusal) => return *refusal,
    };
    let question = match question(request.uri()) {
        Ok(question) => question,
        Err(sentence) => {
            let fault = Fault::invalid(sentence);
            return *desk.refuse(&admitted.caller, Operation::ReadAudit.method(), "request", fault);
        }
    };
    let mut asked = OperationRequest::new(Operation::ReadAudit);
    asked.arguments = serde_json::to_value(&question).ok();
    desk.operate(&admitted.caller, asked, |steward| async move { steward.audit(question).await }).await
}

/// Reads the parameters of a question about the audit log.
fn question(uri: &Uri) -> Result<AuditQuestion, String> {
    axum::extract::Query::<AuditQuestion>::try_from_uri(uri).map(|axum::extract::Query(question)| question).map_err(|error| {
        let text = error.to_string();
        let why = text.rsplit(": ").next().unwrap_or_default();
        format!(
            "the parameters cannot be read: {why}; there are since, until, principal, tool, decision, outcome, code, kind, tenant, \
             session, text, limit and cursor"
        )
    })
}

/// A yes or a no to a request for approval.
async fn decide(State(desk): Shared, id: Id, request: Request, granted: bool) -> Response {
    desk.change(request, Operation::DecideApproval, named(id), |steward, who, id| async move {
        steward.decide(&who, &id, granted).await
    })
    .await
}

/// Takes a key back.
async fn revoke(State(desk): Shared, id: Id, request: Request) -> Response {
    desk.change(request, Operation::RevokeKey, named(id), |steward, who, id| async move { steward.revoke_key(&who, &id).await })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_wrong_ones_are_named() {
        let read = |query: &str| question(&format!("/api/v1/audit?{query}").parse::<Uri>().unwrap());
        let asked = read("since=1h&kind=call,refused&limit=5").unwrap();
        assert_eq!((asked.since.as_deref(), asked.kind.as_deref(), asked.limit), (Some("1h"), Some("call,refused"), Some(5)));
        assert_eq!(read("").unwrap(), AuditQuestion::default());
        for wrong in ["sinc=1h", "limit=many", "limit=-1"] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains("there are since, until"), "{error}");
        }
    }
}
