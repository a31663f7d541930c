//! The client: permit, breaker, retries, redirects, caps. Guards the order of the checks: nothing is sent before the
//! permit, the deadline, the circuit and the URL have been checked. Must not log or interpret bodies.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use portcullis_policy::Permit;
use reqwest::Url;
use tokio::sync::Semaphore;

use crate::body::CappedBody;
use crate::breaker::{Breaker, Pass};
use crate::error::chain;
use crate::meter::{Meter, meter};
use crate::resolver::{Lookup, SystemLookup};
use crate::retry::{MAX_RETRIES, is_out_of_service, pause, retry_after};
use crate::{Authentication, EgressConfig, EgressConfigError, EgressError, EgressErrorKind, EgressRequest, origin};

pub(crate) const MAX_REDIRECTS: u32 = 3;

/// An HTTP client bound to one origin. Cheap to clone; clones share connections, circuit and limits.
#[derive(Clone)]
pub struct EgressClient {
    pub(crate) inner: Arc<Inner>,
}

#[expect(clippy::disallowed_types, reason = "this crate is the one that owns HTTP clients")]
pub(crate) struct Inner {
    pub(crate) name: Arc<str>,
    pub(crate) base: Url,
    pub(crate) origin: String,
    authentication: Authentication,
    headers: HeaderMap,
    pub(crate) http: reqwest::Client,
    limit: u64,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) meter: Arc<Meter>,
}

impl fmt::Debug for EgressClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressClient").field("name", &self.inner.name).field("origin", &self.inner.origin).finish_non_exhaustive()
    }
}

/// A complete response, whatever its status.
#[derive(Debug, Clone)]
pub struct EgressResponse {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, decompressed, within the cap.
    pub body: Bytes,
}

impl EgressResponse {
    /// Seconds after which the backend wants to be asked again, if it says.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        retry_after(&self.headers, SystemTime::now()).map(|pause| pause.as_secs().max(1))
    }
}

/// A request as it would be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeseenRequest {
    /// Method.
    pub method: Method,
    /// The whole address. It holds no credential; those travel in headers.
    pub url: String,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// A request made ready: the same for every try.
struct Prepared {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
    idempotent: bool,
    limit: u64,
    hands_back_redirects: bool,
}

impl EgressClient {
    /// Builds the client.
    ///
    /// # Errors
    /// When the configuration is not usable; nothing is sent to find out.
    pub fn new(config: EgressConfig) -> Result<Self, EgressConfigError> {
        Self::with_lookup(config, Arc::new(SystemLookup))
    }

    #[expect(clippy::needless_pass_by_value, reason = "the configuration holds secrets that should not outlive the client")]
    pub(crate) fn with_lookup(config: EgressConfig, lookup: Arc<dyn Lookup>) -> Result<Self, EgressConfigError> {
        let built = config.build(lookup)?;
        let name: Arc<str> = Arc::from(config.name.as_str());
        let breaker = Breaker::new(config.breaker_failures, config.breaker_rest);
        Ok(Self {
            inner: Arc::new(Inner {
                meter: meter(&name, &breaker),
                name,
                origin: origin::origin(&built.base),
                base: built.base,
                authentication: config.authentication.clone(),
                headers: built.headers,
                http: built.http,
                limit: config.max_response_bytes,
                slots: Arc::new(Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS))),
                breaker,
            }),
        })
    }

    /// Name of the source.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether the backend is asked in each caller's own name: what it answers one caller is then no answer for another.
    pub fn asks_as_caller(&self) -> bool {
        matches!(self.inner.authentication, Authentication::Exchanged(_))
    }

    /// `scheme://host:port`, as charters name their destinations.
    pub fn origin(&self) -> &str {
        &self.inner.origin
    }

    /// Sends a request and reads the whole response. Dropping the future cancels the request and closes its connection.
    ///
    /// A response of any status is a response; only what kept a response from arriving is an error.
    pub async fn send(&self, permit: &Permit, request: EgressRequest) -> Result<EgressResponse, EgressError> {
        let mut contacted = false;
        let result = self.checked(permit, &request, &mut contacted).await;
        self.inner.meter.ended(result.as_ref().map(|response| response.status));
        result.map_err(|kind| EgressError::new(&self.inner.name, kind).after_contact(contacted))
    }

    /// The request as [`EgressClient::send`] would put it on the wire, made by the same steps, without the headers: those hold
    /// the credentials. Sends nothing.
    ///
    /// # Errors
    /// What sending would refuse before anything is sent.
    pub fn foresee(&self, permit: &Permit, request: &EgressRequest) -> Result<ForeseenRequest, EgressError> {
        let made = || {
            self.admits(permit)?;
            let url = request.url(&self.inner.base)?;
            let (headers, body) = request.encode()?;
            let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok(ForeseenRequest { method: request.method.clone(), url: url.into(), content_type, body })
        };
        made().map_err(|kind| EgressError::new(&self.inner.name, kind))
    }

    /// Whether work under `permit` may go on with this client.
    pub(crate) fn admits(&self, permit: &Permit) -> Result<(), EgressErrorKind> {
        if !permit.may_reach(&self.inner.origin) {
            return Err(EgressErrorKind::NotPermitted { origin: self.inner.origin.clone() });
        }
        if permit.time_left().is_zero() {
            return Err(EgressErrorKind::DeadlineExceeded);
        }
        Ok(())
    }

    /// `contacted` becomes true when a try gets as far as a connection.
    async fn checked(
        &self,
        permit: &Permit,
        request: &EgressRequest,
        contacted: &mut bool,
    ) -> Result<EgressResponse, EgressErrorKind> {
        let inner = &*self.inner;
        self.admits(permit)?;
        let url = request.url(&inner.base)?;
        let (own, body) = request.encode()?;
        let limits = [Some(inner.limit), request.max_response_bytes, Some(permit.budget().backend_bytes)];
        let mut prepared = Prepared {
            method: request.method.clone(),
            headers: inner.all_headers(own, permit),
            body,
            idempotent: request.idempotent,
            limit: limits.into_iter().flatten().min().unwrap_or(inner.limit),
            hands_back_redirects: request.hands_back_redirects,
        };
        let deadline = tokio::time::Instant::from_std(permit.deadline());
        let work = async {
            // Looked up for this request: what expired a moment ago does not go out.
            if let Some((name, value)) = inner.proof(request, permit).await? {
                prepared.headers.insert(name, value);
            }
            for credential in &request.credentials {
                credential.check().map_err(EgressErrorKind::InvalidRequest)?;
                if let Some((name, value)) = credential.header(permit).await? {
                    prepared.headers.insert(name, value);
                }
            }
            inner.tries(permit, &url, &prepared, contacted).await
        };
        tokio::time::timeout_at(deadline, work).await.unwrap_or(Err(EgressErrorKind::DeadlineExceeded))
    }
}

impl Inner {
    /// The header that proves who asks: of the request where it has one of its own, else of the client.
    pub(crate) async fn proof(
        &self,
        request: &EgressRequest,
        permit: &Permit,
    ) -> Result<Option<(HeaderName, HeaderValue)>, EgressErrorKind> {
        request.authentication.as_ref().unwrap_or(&self.authentication).header(permit).await
    }

    /// The request's own headers, then those of the configuration, which cannot be replaced by a request.
    pub(crate) fn all_headers(&self, mut headers: HeaderMap, permit: &Permit) -> HeaderMap {
        for name in self.headers.keys() {
            headers.remove(name);
        }
        headers.extend(self.headers.clone());
        let trace = permit.trace().traceparent.as_deref().and_then(|t| HeaderValue::from_str(t).ok());
        if let Some(trace) = trace {
            headers.insert("traceparent", trace);
        }
        headers
    }

    async fn tries(
        &self,
        permit: &Permit,
        url: &Url,
        request: &Prepared,
        contacted: &mut bool,
    ) -> Result<EgressResponse, EgressErrorKind> {
        let _slot = self.slots.acquire().await.map_err(|_| EgressErrorKind::DeadlineExceeded)?;
        let mut retry = 0;
        loop {
            let pass = self.breaker.enter().await.map_err(|retry_in| EgressErrorKind::CircuitOpen { retry_in })?;
            let outcome = self.follow(url, request, contacted).await;
            let again = settle(pass, &outcome);
            if !again || !request.idempotent || retry >= MAX_RETRIES {
                return outcome;
            }
            retry += 1;
            let asked = outcome.as_ref().ok().and_then(|response| retry_after(&response.headers, SystemTime::now()));
            let wait = pause(retry, asked, rand::random::<f64>());
            if wait >= permit.time_left() {
                return outcome;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// One try, following redirects within the origin.
    async fn follow(&self, url: &Url, request: &Prepared, contacted: &mut bool) -> Result<EgressResponse, EgressErrorKind> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(&url, request).await;
            if response.as_ref().map_or_else(EgressErrorKind::came_from_beyond, |_| true) {
                *contacted = true;
            }
            let response = response?;
            let hands_back = request.hands_back_redirects;
            match redirect_to(&url, &request.method, response.status, &response.headers, &self.origin, hands_back)? {
                None => return Ok(response),
                Some(next) => url = next,
            }
        }
        Err(EgressErrorKind::RedirectRefused(format!("more than {MAX_REDIRECTS} in a row")))
    }

    async fn once(&self, url: &Url, request: &Prepared) -> Result<EgressResponse, EgressErrorKind> {
        let sending = made(request.method.clone(), url.clone(), request.headers.clone(), request.body.clone());
        let mut response = self.http.execute(sending).await.map_err(before_response)?;
        let status = response.status();
        let mut body = CappedBody::announced(response.headers(), request.limit)?;
        while let Some(chunk) = response.chunk().await.map_err(during_response)? {
            body.push(&chunk)?;
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(EgressResponse { status, headers, body: body.finish()? })
    }
}

/// A request to be sent, with these headers and no other.
pub(crate) fn made(method: Method, url: Url, headers: HeaderMap, body: Bytes) -> reqwest::Request {
    let mut request = reqwest::Request::new(method, url);
    *request.headers_mut() = headers;
    *request.body_mut() = Some(body.into());
    request
}

/// Tells the breaker how a try ended; says whether another try could help.
fn settle(pass: Pass, outcome: &Result<EgressResponse, EgressErrorKind>) -> bool {
    let now = Instant::now();
    match outcome {
        Ok(response) if is_out_of_service(response.status, &response.headers) => {
            pass.failed(now);
            true
        }
        Ok(_) => {
            pass.alive();
            false
        }
        Err(kind) if kind.counts_against_backend() => {
            pass.failed(now);
            matches!(kind, EgressErrorKind::Connect { .. } | EgressErrorKind::BrokenOff { half_way: false, .. })
        }
        // The rest says nothing about the backend's health.
        Err(_) => false,
    }
}

/// The same for a response of which only the head has arrived.
pub(crate) fn settle_head(pass: Pass, head: Result<(StatusCode, &HeaderMap), &EgressErrorKind>) {
    let now = Instant::now();
    match head {
        Ok((status, headers)) if is_out_of_service(status, headers) => pass.failed(now),
        Ok(_) => pass.alive(),
        Err(kind) if kind.counts_against_backend() => pass.failed(now),
        Err(_) => {}
    }
}

/// Where a response redirects to, within the origin. Another origin is refused, or with `hands_back` left to the caller.
pub(crate) fn redirect_to(
    url: &Url,
    method: &Method,
    status: StatusCode,
    headers: &HeaderMap,
    allowed_origin: &str,
    hands_back: bool,
) -> Result<Option<Url>, EgressErrorKind> {
    let keeps_method = matches!(status.as_u16(), 307 | 308);
    let is_redirect = keeps_method || matches!(status.as_u16(), 301..=303);
    let refuse = |why: &str| Err(EgressErrorKind::RedirectRefused(why.to_owned()));
    let Some(location) = headers.get(header::LOCATION).filter(|_| is_redirect) else { return Ok(None) };
    if !keeps_method && !matches!(*method, Method::GET | Method::HEAD) {
        return refuse("it would turn a request with a body into one without");
    }
    let Some(next) = location.to_str().ok().and_then(|l| url.join(l).ok()) else { return refuse("its location is not a URL") };
    if origin::origin(&next) != allowed_origin {
        return if hands_back { Ok(None) } else { refuse("it leads to another origin") };
    }
    if !next.username().is_empty() || next.password().is_some() {
        return refuse("its location holds credentials");
    }
    Ok(Some(next))
}

/// The cause inside an error chain, by type.
fn cause<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<T>() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

pub(crate) fn before_response(error: reqwest::Error) -> EgressErrorKind {
    let error = error.without_url();
    if let Some(refused) = cause::<EgressErrorKind>(&error) {
        return refused.clone();
    }
    let text = chain(&error);
    if error.is_timeout() {
        EgressErrorKind::TimedOut(text)
    } else if error.is_connect() {
        let nobody = cause::<std::io::Error>(&error).is_some_and(|error| {
            matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable)
        });
        EgressErrorKind::Connect { cause: text, reached: !nobody }
    } else if is_cut(&error) {
        EgressErrorKind::BrokenOff { half_way: false, cause: text }
    } else if error.is_builder() {
        EgressErrorKind::InvalidRequest(text)
    } else {
        EgressErrorKind::Garbage(text)
    }
}

pub(crate) fn during_response(error: reqwest::Error) -> EgressErrorKind {
    let error = error.without_url();
    let text = chain(&error);
    if error.is_timeout() {
        EgressErrorKind::TimedOut(text)
    } else if is_cut(&error) {
        EgressErrorKind::BrokenOff { half_way: true, cause: text }
    } else {
        EgressErrorKind::Garbage(text)
    }
}

/// Whether the connection ended early.
fn is_cut(error: &reqwest::Error) -> bool {
    cause::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message) || cause::<std::io::Error>(error).is_some()
}
