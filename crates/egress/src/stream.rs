//! Responses that arrive bit by bit: event streams. Guards memory and time: a total of bytes, a longest silence, and the
//! deadline of the permit hold while it is read. Must not interpret what arrives.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use portcullis_policy::Permit;
use reqwest::Url;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::client::{before_response, during_response, made, redirect_to};
use crate::{EgressClient, EgressError, EgressErrorKind, EgressRequest};

/// What one stream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Bytes in all.
    pub bytes: u64,
    /// Longest silence, also before the response begins.
    pub idle: Duration,
}

/// A response that is being read. Dropping it closes its connection, which is how the other side learns of a cancellation.
pub struct EgressStream {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    response: reqwest::Response,
    client: EgressClient,
    limits: StreamLimits,
    received: u64,
    deadline: Instant,
    _slot: OwnedSemaphorePermit,
}

impl fmt::Debug for EgressStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressStream").field("status", &self.status).field("received", &self.received).finish_non_exhaustive()
    }
}

impl EgressClient {
    /// Sends a request and gives the response as it arrives, whatever its status. It is not compressed, and never repeated.
    pub async fn open(&self, permit: &Permit, request: EgressRequest, limits: StreamLimits) -> Result<EgressStream, EgressError> {
        let mut contacted = false;
        let opened = self.opened(permit, &request, limits, &mut contacted).await;
        self.inner.meter.ended(opened.as_ref().map(|stream| stream.status));
        opened.map_err(|kind| EgressError::new(&self.inner.name, kind).after_contact(contacted))
    }

    async fn opened(
        &self,
        permit: &Permit,
        request: &EgressRequest,
        limits: StreamLimits,
        contacted: &mut bool,
    ) -> Result<EgressStream, EgressErrorKind> {
        let inner = &*self.inner;
        self.admits(permit)?;
        let mut url = request.url(&inner.base)?;
        let (own, body) = request.encode()?;
        let mut headers = inner.all_headers(own, permit);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let deadline = Instant::from_std(permit.deadline());
        let work = async {
            if let Some((name, value)) = inner.proof(request, permit).await? {
                headers.insert(name, value);
            }
            let slots = Arc::clone(&inner.slots);
            let slot = slots.acquire_owned().await.map_err(|_| EgressErrorKind::DeadlineExceeded)?;
            for _ in 0..=crate::client::MAX_REDIRECTS {
                let pass = inner.breaker.enter().await.map_err(|retry_in| EgressErrorKind::CircuitOpen { retry_in })?;
                let sending = made(request.method.clone(), url.clone(), headers.clone(), body.clone());
                let sent = tokio::time::timeout(limits.idle, inner.http.execute(sending)).await;
                let sent = match sent {
                    Ok(sent) => sent.map_err(before_response),
                    Err(_elapsed) => Err(EgressErrorKind::TimedOut("silence before the response".into())),
                };
                crate::client::settle_head(pass, sent.as_ref().map(|r| (r.status(), r.headers())));
                if sent.as_ref().map_or_else(EgressErrorKind::came_from_beyond, |_| true) {
                    *contacted = true;
                }
                let response = sent?;
                let next: Option<Url> = redirect_to(
                    &url,
                    &request.method,
                    response.status(),
                    response.headers(),
                    &inner.origin,
                    request.hands_back_redirects,
                )?;
                match next {
                    Some(next) => url = next,
                    None => return Ok((response, slot)),
                }
            }
            Err(EgressErrorKind::RedirectRefused("too many in a row".into()))
        };
        let (mut response, slot) =
            tokio::time::timeout_at(deadline, work).await.unwrap_or(Err(EgressErrorKind::DeadlineExceeded))?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        Ok(EgressStream { status, headers, response, client: self.clone(), limits, received: 0, deadline, _slot: slot })
    }
}

impl EgressStream {
    /// The next bytes, as they came from the wire; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EgressError> {
        let kind = match self.read().await {
            Ok(chunk) => return Ok(chunk),
            Err(kind) => kind,
        };
        Err(EgressError::new(&self.client.inner.name, kind))
    }

    async fn read(&mut self) -> Result<Option<Bytes>, EgressErrorKind> {
        let silent = Instant::now() + self.limits.idle;
        let until = silent.min(self.deadline);
        let chunk = match tokio::time::timeout_at(until, self.response.chunk()).await {
            Ok(read) => read.map_err(during_response)?,
            Err(_elapsed) if until == self.deadline => return Err(EgressErrorKind::DeadlineExceeded),
            Err(_elapsed) => return Err(EgressErrorKind::TimedOut("silence within the response".into())),
        };
        if let Some(chunk) = &chunk {
            self.received = self.received.saturating_add(chunk.len() as u64);
            if self.received > self.limits.bytes {
                return Err(EgressErrorKind::ResponseTooLarge { limit: self.limits.bytes });
            }
        }
        Ok(chunk)
    }

    /// Goes on under another permit of the same work, with its deadline: a call that waited for a person's answer.
    pub fn renew(&mut self, permit: &Permit) -> Result<(), EgressError> {
        self.client.admits(permit).map_err(|kind| EgressError::new(&self.client.inner.name, kind))?;
        self.deadline = Instant::from_std(permit.deadline());
        Ok(())
    }
}
