//! Sessions of the older protocol versions: random names, bound to the principal that opened them, bounded in number
//! and in idle time. A session proves nothing: every request in it is identified like any other.
//!
//! To any other principal a session does not exist.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::Stream;
use portcullis_gateway::Caller;
use portcullis_model::{Fault, FaultCode, PrincipalId};
use rmcp::model::{ClientJsonRpcMessage, ProtocolVersion, RequestId, ServerJsonRpcMessage, ServerResult};
use rmcp::transport::WorkerTransport;
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError, LocalSessionWorker,
};
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId, SessionManager};

use crate::in_flight::{InFlight, Noted};

/// Bounds of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions of one principal.
    pub per_principal: usize,
    /// Sessions in all; one costs about 60 KiB.
    pub in_all: usize,
    /// A session without a message for this long ends.
    pub idle: Duration,
    /// At the limit, a principal's own session that has been idle for this long makes room for a new one.
    pub replaceable_after: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { per_principal: 32, in_all: 512, idle: Duration::from_mins(30), replaceable_after: Duration::from_mins(1) }
    }
}

/// The request being served by the current task, for what rmcp calls without a request.
pub(crate) struct Serving {
    pub(crate) caller: Arc<Caller>,
    /// Why a session was not opened, or a message not taken.
    pub(crate) refused: OnceLock<NotTaken>,
}

/// Why the sessions did not take something.
#[derive(Debug, Clone)]
pub(crate) enum NotTaken {
    /// There is no room for another session.
    NoRoom(Fault),
    /// The request has the id of one that is under way.
    IdInUse(RequestId),
}

tokio::task_local! {
    pub(crate) static SERVING: Arc<Serving>;
}

struct Entry {
    owner: PrincipalId,
    /// The product it was opened through; through another door it does not exist.
    product: Option<Arc<str>>,
    seen: Instant,
    /// Whether it was agreed to speak 2025-03-26, the one revision with batches.
    batches: bool,
    ids: InFlight,
}

impl Entry {
    fn of(owner: PrincipalId, product: Option<Arc<str>>) -> Self {
        Self { owner, product, seen: Instant::now(), batches: false, ids: InFlight::default() }
    }
}

/// All sessions and who they belong to.
pub(crate) struct Sessions {
    inner: LocalSessionManager,
    book: Mutex<HashMap<SessionId, Entry>>,
    limits: SessionLimits,
}

/// How many sessions a face has open. Made before the face and given to it with its settings.
#[derive(Clone, Default)]
pub struct SessionCount(Arc<OnceLock<Weak<Sessions>>>);

impl SessionCount {
    /// Sessions open now; none before there is a face.
    pub fn open(&self) -> usize {
        self.0.get().and_then(Weak::upgrade).map_or(0, |sessions| sessions.open())
    }

    /// Counts these; only the first face is counted.
    pub(crate) fn count(&self, sessions: &Arc<Sessions>) {
        self.0.get_or_init(|| Arc::downgrade(sessions));
    }
}

impl std::fmt::Debug for SessionCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SessionCount").field(&self.open()).finish()
    }
}

/// Why a session operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionFault {
    /// No room; the sentence is in [`Serving::refused`].
    #[error("no room for another session")]
    Full,
    /// The sentence is in [`Serving::refused`].
    #[error("a request of that id is under way")]
    IdInUse,
    /// rmcp's own reasons.
    #[error(transparent)]
    Inner(#[from] LocalSessionManagerError),
}

impl Sessions {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        let mut inner = LocalSessionManager::default();
        inner.session_config.keep_alive = Some(limits.idle);
        Self { inner, book: Mutex::default(), limits }
    }

    /// Whether the session exists for this principal through this product. Notes that it was used.
    pub(crate) fn admits(&self, id: &str, principal: &PrincipalId, product: Option<&Arc<str>>) -> bool {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        match book.get_mut(id) {
            Some(entry) if entry.owner == *principal && entry.product.as_ref() == product => {
                entry.seen = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Sessions that are open now.
    fn open(&self) -> usize {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.values().filter(|entry| entry.seen.elapsed() <= self.limits.idle).count()
    }

    /// Whether batches were agreed upon in the session.
    pub(crate) fn takes_batches(&self, id: &str) -> bool {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).get(id).is_some_and(|entry| entry.batches)
    }

    /// Makes sure there is room for one more session of `owner`; may name one of its idle sessions to end instead.
    fn room(&self, owner: &PrincipalId) -> Result<Option<SessionId>, Fault> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        // rmcp ends a session that was idle for this long by itself and tells nobody; it must not keep its place.
        book.retain(|_, entry| entry.seen.elapsed() <= self.limits.idle);
        let own = book.values().filter(|entry| entry.owner == *owner).count();
        if own < self.limits.per_principal && book.len() < self.limits.in_all {
            return Ok(None);
        }
        let idle = book
            .iter()
            .filter(|(_, entry)| entry.owner == *owner && entry.seen.elapsed() >= self.limits.replaceable_after)
            .min_by_key(|(_, entry)| entry.seen)
            .map(|(id, _)| id.clone());
        match idle {
            Some(id) => Ok(Some(id)),
            None => Err(Fault::new(
                FaultCode::RateLimited,
                format!("no room for another session: {} of yours are open, {} in all; end one with DELETE", own, book.len()),
            )
            .with_retry_after(self.limits.replaceable_after.as_secs().max(1))),
        }
    }

    fn ids(&self, id: &str) -> Option<InFlight> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).get(id).map(|entry| entry.ids.clone())
    }

    #[cfg(test)]
    fn enter(&self, id: &str, owner: &PrincipalId, product: Option<&str>) {
        let entry = Entry::of(owner.clone(), product.map(Arc::from));
        self.book.lock().unwrap_or_else(PoisonError::into_inner).insert(id.into(), entry);
    }
}

impl SessionManager for Sessions {
    type Error = SessionFault;
    type Transport = Noted<WorkerTransport<LocalSessionWorker>>;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), SessionFault> {
        // Only the door opens sessions, and it always says for whom.
        let serving = SERVING.try_with(Arc::clone).map_err(|_| SessionFault::Full)?;
        let owner = &serving.caller.principal().id;
        match self.room(owner) {
            Ok(None) => {}
            Ok(Some(idle)) => self.close_session(&idle).await?,
            Err(fault) => {
                // Set once per request: a request opens at most one session.
                let _ = serving.refused.set(NotTaken::NoRoom(fault));
                return Err(SessionFault::Full);
            }
        }
        let (id, transport) = self.inner.create_session().await?;
        let entry = Entry::of(owner.clone(), serving.caller.product().cloned());
        let transport = Noted::new(transport, entry.ids.clone());
        self.book.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), entry);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, SessionFault> {
        let answer = self.inner.initialize_session(id, message).await?;
        if speaks_batches(&answer)
            && let Some(entry) = self.book.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id)
        {
            entry.batches = true;
        }
        Ok(answer)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, SessionFault> {
        Ok(self.inner.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), SessionFault> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(self.inner.close_session(id).await?)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionFault> {
        let asked = match &message {
            ClientJsonRpcMessage::Request(request) => self.ids(id).map(|ids| (ids, request.id.clone())),
            _ => None,
        };
        let Some((ids, asked)) = asked else { return Ok(self.inner.create_stream(id, message).await?) };
        if !ids.begin(&asked) {
            // Set once per request; the door says it to the client.
            let _ = SERVING.try_with(|serving| serving.refused.set(NotTaken::IdInUse(asked)));
            return Err(SessionFault::IdInUse);
        }
        Ok(self.inner.create_stream(id, message).await.inspect_err(|_| ids.end(&asked))?)
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), SessionFault> {
        if let Some(ids) = self.ids(id) {
            ids.heard(&message);
        }
        Ok(self.inner.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionFault> {
        Ok(self.inner.create_standalone_stream(id).await?)
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionFault> {
        Ok(self.inner.resume(id, last_event_id).await?)
    }
}

/// Whether this is the end of a handshake that agreed on the one revision with batches.
pub(crate) fn speaks_batches(message: &ServerJsonRpcMessage) -> bool {
    let ServerJsonRpcMessage::Response(response) = message else { return false };
    matches!(&response.result, ServerResult::InitializeResult(agreed) if agreed.protocol_version == ProtocolVersion::V_2025_03_26)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> PrincipalId {
        PrincipalId::new(name).unwrap()
    }

    #[test]
    fn a_session_exists_for_its_owner_only() {
        let sessions = Sessions::new(SessionLimits::default());
        sessions.enter("s", &who("key:a"), None);
        let product: Arc<str> = Arc::from("oncall");
        assert!(sessions.admits("s", &who("key:a"), None));
        assert!(!sessions.admits("s", &who("key:b"), None));
        assert!(!sessions.admits("t", &who("key:a"), None));
        assert!(!sessions.admits("s", &who("key:a"), Some(&product)));
        sessions.enter("p", &who("key:a"), Some("oncall"));
        assert!(sessions.admits("p", &who("key:a"), Some(&product)));
        assert!(!sessions.admits("p", &who("key:a"), None));
    }

    #[test]
    fn a_full_principal_gives_up_its_own_idle_session_or_is_refused() {
        let limits = SessionLimits { per_principal: 2, in_all: 3, ..SessionLimits::default() };
        let sessions = Sessions::new(limits);
        sessions.enter("a1", &who("key:a"), None);
        assert!(matches!(sessions.room(&who("key:a")), Ok(None)));
        sessions.enter("a2", &who("key:a"), None);
        assert_eq!(sessions.room(&who("key:a")).unwrap_err().code(), FaultCode::RateLimited);
        sessions.enter("b1", &who("key:b"), None);
        assert!(sessions.room(&who("key:c")).is_err(), "full in all, and nothing of another principal is ended");
        let short = Sessions::new(SessionLimits { idle: Duration::ZERO, ..limits });
        for id in ["b1", "b2", "c1"] {
            short.enter(id, &who("key:b"), None);
        }
        std::thread::yield_now();
        assert!(matches!(short.room(&who("key:a")), Ok(None)), "sessions that have ended keep no place from others");
        let eager = Sessions::new(SessionLimits { replaceable_after: Duration::ZERO, ..limits });
        eager.enter("a1", &who("key:a"), None);
        eager.enter("a2", &who("key:a"), None);
        assert!(eager.room(&who("key:a")).unwrap().is_some());
    }
}
