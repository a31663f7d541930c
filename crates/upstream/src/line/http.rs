//! Streamable HTTP, in both eras, over an egress client. Guards that a session belongs to the credential it was opened
//! with, that a response ends within its bounds, and that nothing but the upstream's own origin is ever asked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use portcullis_egress::{EgressClient, EgressRequest, EgressStream, StreamLimits};
use portcullis_model::{Fault, FaultCode};
use portcullis_policy::{Charter, Permit};
use serde_json::json;

use super::mux::{Mux, MuxCall};
use super::{Ask, Bounds, Proof};
use crate::ear::Ear;
use crate::events::{Event, EventReader};
use crate::wire::{self, Incoming, Refusal, Trouble};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const SESSION: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";
/// Characters of an unreadable answer that are repeated in the log.
const SHOWN: usize = 200;
/// How often one answer's stream may be taken up again.
const MOST_RESUMED: u32 = 20;
/// Longest time a server may ask to be left alone before its stream is taken up again.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// Bytes of all messages of one call.
const MESSAGES: u64 = 4;

/// What a line is made of.
#[derive(Clone)]
pub(crate) struct HttpParts {
    /// Bound to the upstream's origin.
    pub client: EgressClient,
    /// For what is said when no caller waits for it: cancellations, the end of a session.
    pub charter: Charter,
    /// Bounds of messages.
    pub bounds: Bounds,
    /// Hears what belongs to no call.
    pub ear: Arc<Ear>,
}

/// One conversation over HTTP.
pub(crate) struct HttpLine {
    parts: HttpParts,
    /// Calls under way, for what is said on the stream they share.
    mux: Arc<Mux>,
    agreed: RwLock<Agreed>,
    over: AtomicBool,
}

#[derive(Debug, Clone, Default)]
struct Agreed {
    session: Option<String>,
    version: Option<&'static str>,
    /// What the session was opened with.
    proof: Arc<Proof>,
}

impl HttpLine {
    pub(crate) fn new(parts: HttpParts, private: bool) -> Arc<Self> {
        let mux = Mux::new(private, parts.ear.clone(), parts.bounds.message);
        Arc::new(Self { parts, mux, agreed: RwLock::default(), over: AtomicBool::new(false) })
    }

    fn agreed(&self) -> Agreed {
        self.agreed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on every request says that it speaks `version`.
    pub(crate) fn agree(&self, version: &'static str) {
        self.agreed.write().unwrap_or_else(PoisonError::into_inner).version = Some(version);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn request(&self, method: Method, proof: &Proof, body: Option<Vec<u8>>, accept: &str) -> EgressRequest {
        let mut request = EgressRequest::new(method, Vec::<String>::new()).header(header::ACCEPT.as_str(), accept);
        let Agreed { session, version, .. } = self.agreed();
        if let Some(session) = session {
            request = request.header(SESSION, session);
        }
        if let Some(version) = version {
            request = request.header(VERSION, version);
        }
        if let Some(body) = body {
            request = request.bytes(JSON, Bytes::from(body));
        }
        present(request, proof)
    }

    fn limits(&self) -> StreamLimits {
        let Bounds { message, idle } = self.parts.bounds;
        StreamLimits { bytes: message.saturating_mul(MESSAGES), idle }
    }

    pub(crate) async fn say(&self, permit: &Permit, proof: &Proof, message: Vec<u8>) -> Result<(), Trouble> {
        let request = self.request(Method::POST, proof, Some(message), &format!("{JSON}, {EVENTS}"));
        let mut stream = self.parts.client.open(permit, request, self.limits()).await?;
        if stream.status.is_success() {
            return Ok(());
        }
        // Whatever this belongs to was taken before.
        Err(self.refused(&mut stream, proof).await.after_taken())
    }

    /// What a status that is no success means. Nothing of what was presented is in it.
    async fn refused(&self, stream: &mut EgressStream, proof: &Proof) -> Trouble {
        let status = stream.status;
        if status == StatusCode::NOT_FOUND && self.agreed().session.is_some() {
            self.over.store(true, Ordering::SeqCst);
            return Trouble::SessionOver;
        }
        let body = whole(stream, self.parts.bounds.message.min(64 << 10)).await.unwrap_or_default();
        if let Ok(Incoming::Answer { result: Err(refusal), .. }) = wire::read(&body) {
            return Trouble::Refused(refusal).without(&proof.echoes);
        }
        // Taken out of the whole before it is cut: half a credential is no longer known as one.
        let text: String = String::from_utf8_lossy(&body).chars().filter(|c| portcullis_guard::is_seen(*c)).collect();
        refused_status(status, &proof.echoes.text(&text))
    }

    /// Listens for what the server says outside of any call, until that stream ends. Session era only.
    pub(crate) async fn listen(&self, permit: &Permit, proof: &Proof) -> Result<(), Trouble> {
        let request = self.request(Method::GET, proof, None, EVENTS);
        let mut stream = self.parts.client.open(permit, request, self.limits()).await?;
        if !stream.status.is_success() {
            return Err(self.refused(&mut stream, proof).await);
        }
        let (mut reader, mut events) = (EventReader::new(self.parts.bounds.message as usize), Vec::new());
        while let Some(chunk) = stream.next().await? {
            let read = reader.push(&chunk, &mut events);
            read.map_err(|_| Trouble::TooLarge(format!("{} bytes in one event", self.parts.bounds.message)))?;
            for event in events.drain(..).filter(|event| !event.data.is_empty()) {
                match wire::read(&event.data)? {
                    Incoming::Notification { method, params } => self.mux.overhear(method, params),
                    Incoming::Request { id, method, .. } => {
                        let nobody =
                            || wire::answer(&id, Err((-32_600, "it cannot be told which call this question belongs to")));
                        let reply = self.parts.ear.answer(&id, &method).unwrap_or_else(nobody);
                        self.say(permit, proof, reply).await?;
                    }
                    Incoming::Answer { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// Ends the session, where there is one.
    pub(crate) async fn close(&self) {
        let Agreed { session, proof, .. } = self.agreed();
        if self.over.swap(true, Ordering::SeqCst) || session.is_none() {
            return;
        }
        let request = self.request(Method::DELETE, &proof, None, JSON);
        let limits = StreamLimits { bytes: 64 << 10, idle: Duration::from_secs(1) };
        let permit = self.parts.charter.permit();
        let ending = self.parts.client.open(&permit, request, limits);
        // Servers need not know of it: the session ends by itself.
        let _ = tokio::time::timeout(Duration::from_secs(1), ending).await;
    }
}

fn refused_status(status: StatusCode, text: &str) -> Trouble {
    let text = portcullis_model::cut::beginning(text, SHOWN).text;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Trouble::House(
            Fault::new(FaultCode::BackendFailed, "the upstream does not accept the credential it was given")
                .with_internal(format!("HTTP {status}: {text}")),
        ),
        StatusCode::TOO_MANY_REQUESTS => {
            Trouble::House(Fault::new(FaultCode::RateLimited, "the upstream wants to be asked less often").with_retry_after(5))
        }
        status if status.is_server_error() => Trouble::Gone(format!("HTTP {status}: {text}")),
        status => {
            Trouble::Refused(Refusal { code: i64::from(status.as_u16()), message: format!("HTTP {status}"), data: json!(text) })
        }
    }
}

/// Adds what proves who asks.
pub(super) fn present(mut request: EgressRequest, proof: &Proof) -> EgressRequest {
    if let Some(authentication) = &proof.authentication {
        request = request.authenticated(authentication.clone());
    }
    for (name, value) in &proof.headers {
        request = request.secret_header(name.clone(), value.clone());
    }
    request
}

/// The rest of a response, at most `most` bytes.
async fn whole(stream: &mut EgressStream, most: u64) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    while let Some(chunk) = stream.next().await? {
        if (body.len() + chunk.len()) as u64 > most {
            return Err(Trouble::TooLarge(format!("{most} bytes in one message")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn content_type(stream: &EgressStream) -> String {
    let value = stream.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// One request with its response.
pub(crate) struct HttpCall {
    line: Arc<HttpLine>,
    proof: Arc<Proof>,
    permit: Permit,
    id: u64,
    stateless: bool,
    /// What is said of it beside its own stream.
    aside: Option<MuxCall>,
    stream: EgressStream,
    reader: EventReader,
    events: Vec<Event>,
    ready: VecDeque<Incoming>,
    last_event: Option<String>,
    retry: Duration,
    resumed: u32,
    answered: bool,
}

/// Makes a request.
pub(crate) async fn open(line: &Arc<HttpLine>, permit: &Permit, proof: &Arc<Proof>, ask: Ask<'_>) -> Result<HttpCall, Trouble> {
    if line.is_over() {
        return Err(Trouble::SessionOver);
    }
    let body = wire::request(ask.id, ask.method, ask.params);
    let stateless = !ask.headers.is_empty();
    // Cancelling is told by the call itself.
    let beside = ask.listens() && !stateless;
    let aside = beside.then(|| line.mux.expect(&ask, line.parts.bounds.idle, Box::new(|_message: Vec<u8>| {}))).transpose()?;
    let mut request = line.request(Method::POST, proof, Some(body), &format!("{JSON}, {EVENTS}"));
    for (name, value) in &ask.headers {
        request = request.header(name.clone(), value.clone());
    }
    let mut stream = line.parts.client.open(permit, request, line.limits()).await?;
    if !stream.status.is_success() {
        return Err(line.refused(&mut stream, proof).await);
    }
    if ask.method == "initialize" {
        let session = stream.headers.get(SESSION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut agreed = line.agreed.write().unwrap_or_else(PoisonError::into_inner);
        agreed.session = session;
        agreed.proof = proof.clone();
    }
    let mut call = HttpCall {
        line: line.clone(),
        proof: proof.clone(),
        permit: permit.clone(),
        id: ask.id,
        stateless,
        aside,
        reader: EventReader::new(line.parts.bounds.message as usize),
        stream,
        events: Vec::new(),
        ready: VecDeque::new(),
        last_event: None,
        retry: Duration::from_millis(200),
        resumed: 0,
        answered: false,
    };
    match content_type(&call.stream).as_str() {
        EVENTS => {}
        JSON => {
            let body = whole(&mut call.stream, line.parts.bounds.message).await?;
            call.ready.push_back(wire::read(&body)?);
        }
        other => {
            let other: String = proof.echoes.text(other).chars().take(60).collect();
            return Err(Trouble::Garbage(format!("a response of type '{other}'")));
        }
    }
    Ok(call)
}

impl HttpCall {
    pub(crate) async fn next(&mut self) -> Result<Incoming, Trouble> {
        self.read_on().await.map_err(|trouble| trouble.without(&self.proof.echoes))
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Says whether nobody reads for now. Nothing is read from its own connection then.
    pub(crate) fn rest(&self, rests: bool) {
        self.aside.iter().for_each(|aside| aside.rest(rests));
    }

    async fn read_on(&mut self) -> Result<Incoming, Trouble> {
        loop {
            // What was said before the answer belongs before it.
            if let Some(said) = self.aside.as_mut().and_then(MuxCall::overheard_so_far) {
                return Ok(said);
            }
            if let Some(message) = self.ready.pop_front() {
                match &message {
                    Incoming::Answer { id, .. } if id.as_u64() == Some(self.id) || id.is_null() => {
                        self.answered = true;
                        return Ok(message);
                    }
                    Incoming::Answer { .. } => {
                        return Err(Trouble::Garbage("an answer to a question nobody asked".into()));
                    }
                    Incoming::Request { id, method, .. } => match self.line.parts.ear.answer(id, method) {
                        Some(reply) => self.line.say(&self.permit, &self.proof, reply).await?,
                        None => return Ok(message),
                    },
                    Incoming::Notification { method, params } if self.line.parts.ear.hear(method, params) => {}
                    Incoming::Notification { .. } => return Ok(message),
                }
                continue;
            }
            let Self { aside, stream, .. } = self;
            let overheard = async {
                match aside {
                    Some(aside) => aside.overheard().await,
                    None => std::future::pending().await,
                }
            };
            let read = tokio::select! {
                biased;
                said = overheard => return Ok(said),
                read = stream.next() => read,
            };
            match read {
                Ok(Some(chunk)) => self.take(&chunk)?,
                Ok(None) => self.resume("the stream ended before the answer").await?,
                Err(error) => {
                    let trouble = Trouble::from(error);
                    if !matches!(trouble, Trouble::Gone(_)) {
                        return Err(trouble);
                    }
                    self.resume("the stream broke off before the answer").await?;
                }
            }
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), Trouble> {
        let most = self.line.parts.bounds.message;
        let read = self.reader.push(chunk, &mut self.events);
        read.map_err(|_| Trouble::TooLarge(format!("{most} bytes in one message")))?;
        for event in self.events.drain(..) {
            if event.id.is_some() {
                self.last_event = event.id;
            }
            if let Some(retry) = event.retry {
                self.retry = Duration::from_millis(retry).min(LONGEST_RETRY);
            }
            if !event.data.is_empty() {
                self.ready.push_back(wire::read(&event.data)?);
            }
        }
        Ok(())
    }

    /// Takes the stream up where it ended, where the server knows how (2025-11-25, resumability).
    async fn resume(&mut self, why: &str) -> Result<(), Trouble> {
        let Some(last) = self.last_event.clone().filter(|_| self.resumed < MOST_RESUMED) else {
            self.answered = true;
            return Err(Trouble::Gone(why.to_owned()));
        };
        self.resumed += 1;
        tokio::time::sleep(self.retry).await;
        let request = self.line.request(Method::GET, &self.proof, None, EVENTS).header("last-event-id", last);
        let mut stream = self.line.parts.client.open(&self.permit, request, self.line.limits()).await?;
        if !stream.status.is_success() {
            return Err(self.line.refused(&mut stream, &self.proof).await.after_taken());
        }
        self.stream = stream;
        self.reader = EventReader::new(self.line.parts.bounds.message as usize);
        Ok(())
    }

    pub(crate) fn renew(&mut self, permit: &Permit) -> Result<(), Trouble> {
        self.permit = permit.clone();
        self.rest(false);
        Ok(self.stream.renew(permit)?)
    }
}

impl Drop for HttpCall {
    fn drop(&mut self) {
        // In the stateless revision the closed stream says it; in a session a message does.
        if self.answered || self.stateless {
            return;
        }
        let (line, proof, id) = (self.line.clone(), self.proof.clone(), self.id);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let params = json!({"requestId": id, "reason": "the caller went away"});
            let permit = line.parts.charter.permit();
            let _ = line.say(&permit, &proof, wire::notification("notifications/cancelled", &params)).await;
        });
    }
}
