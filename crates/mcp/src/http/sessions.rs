//! Sessions of the older protocol versions: random names, bound to the principal that opened them, bounded in number
//! and in idle time. A session proves nothing: every request in it is identified like any other.
//!
//! To any other principal a session does not exist.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
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

/// Who has which session, and whose are being opened.
#[derive(Default)]
struct Book {
    open: HashMap<SessionId, Entry>,
    /// Sessions that were promised and have no name yet.
    opening: HashMap<PrincipalId, usize>,
}

/// All sessions and who they belong to.
pub(crate) struct Sessions {
    inner: LocalSessionManager,
    book: Arc<Mutex<Book>>,
    limits: SessionLimits,
}

/// Room for one session, held until it is entered into the book or given up.
struct Room {
    book: Arc<Mutex<Book>>,
    owner: PrincipalId,
    /// A session of the owner's that was taken out of the book for it, to be ended.
    instead: Option<SessionId>,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        match book.opening.get_mut(&self.owner) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                book.opening.remove(&self.owner);
            }
        }
    }
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
        Self { inner, book: Arc::default(), limits }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session exists for this principal through this product. Notes that it was used.
    pub(crate) fn admits(&self, id: &str, principal: &PrincipalId, product: Option<&Arc<str>>) -> bool {
        match self.book().open.get_mut(id) {
            Some(entry) if entry.owner == *principal && entry.product.as_ref() == product => {
                entry.seen = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Sessions that are open now.
    fn open(&self) -> usize {
        self.book().open.values().filter(|entry| entry.seen.elapsed() <= self.limits.idle).count()
    }

    /// Whether batches were agreed upon in the session.
    pub(crate) fn takes_batches(&self, id: &str) -> bool {
        self.book().open.get(id).is_some_and(|entry| entry.batches)
    }

    /// Reserves room for one more session of `owner`: at the limit in the place of one of its idle sessions, which is taken
    /// out of the book. Reserved is counted like open, or sessions opened at the same time would all find the last place.
    fn room(&self, owner: &PrincipalId) -> Result<Room, Fault> {
        let mut book = self.book();
        // rmcp ends a session that was idle for this long by itself and tells nobody; it must not keep its place.
        book.open.retain(|_, entry| entry.seen.elapsed() <= self.limits.idle);
        let own = book.open.values().filter(|entry| entry.owner == *owner).count();
        let own = own + book.opening.get(owner).copied().unwrap_or(0);
        let all = book.open.len() + book.opening.values().sum::<usize>();
        let mut instead = None;
        if own >= self.limits.per_principal || all >= self.limits.in_all {
            instead = book
                .open
                .iter()
                .filter(|(_, entry)| entry.owner == *owner && entry.seen.elapsed() >= self.limits.replaceable_after)
                .min_by_key(|(_, entry)| entry.seen)
                .map(|(id, _)| id.clone());
            let Some(idle) = &instead else {
                let sentence = format!("no room for another session: {own} of yours are open, {all} in all; end one with DELETE");
                let fault = Fault::new(FaultCode::RateLimited, sentence);
                return Err(fault.with_retry_after(self.limits.replaceable_after.as_secs().max(1)));
            };
            book.open.remove(idle);
        }
        *book.opening.entry(owner.clone()).or_default() += 1;
        Ok(Room { book: self.book.clone(), owner: owner.clone(), instead })
    }

    fn ids(&self, id: &str) -> Option<InFlight> {
        self.book().open.get(id).map(|entry| entry.ids.clone())
    }

    #[cfg(test)]
    fn enter(&self, id: &str, owner: &PrincipalId, product: Option<&str>) {
        let entry = Entry::of(owner.clone(), product.map(Arc::from));
        self.book().open.insert(id.into(), entry);
    }
}

impl SessionManager for Sessions {
    type Error = SessionFault;
    type Transport = Noted<WorkerTransport<LocalSessionWorker>>;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), SessionFault> {
        // Only the door opens sessions, and it always says for whom.
        let serving = SERVING.try_with(Arc::clone).map_err(|_| SessionFault::Full)?;
        let owner = &serving.caller.principal().id;
        let room = match self.room(owner) {
            Ok(room) => room,
            Err(fault) => {
                // Set once per request: a request opens at most one session.
                let _ = serving.refused.set(NotTaken::NoRoom(fault));
                return Err(SessionFault::Full);
            }
        };
        if let Some(idle) = &room.instead {
            self.close_session(idle).await?;
        }
        let (id, transport) = self.inner.create_session().await?;
        let entry = Entry::of(owner.clone(), serving.caller.product().cloned());
        let transport = Noted::new(transport, entry.ids.clone());
        // First entered, then the reservation goes: in between it counts twice, never not at all.
        self.book().open.insert(id.clone(), entry);
        drop(room);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, SessionFault> {
        let answer = self.inner.initialize_session(id, message).await?;
        if speaks_batches(&answer)
            && let Some(entry) = self.book().open.get_mut(id)
        {
            entry.batches = true;
        }
        Ok(answer)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, SessionFault> {
        Ok(self.inner.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), SessionFault> {
        self.book().open.remove(id);
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
        assert!(sessions.room(&who("key:a")).ok().unwrap().instead.is_none());
        sessions.enter("a2", &who("key:a"), None);
        assert_eq!(sessions.room(&who("key:a")).err().unwrap().code(), FaultCode::RateLimited);
        sessions.enter("b1", &who("key:b"), None);
        assert!(sessions.room(&who("key:c")).is_err(), "full in all, and nothing of another principal is ended");
        let short = Sessions::new(SessionLimits { idle: Duration::ZERO, ..limits });
        for id in ["b1", "b2", "c1"] {
            short.enter(id, &who("key:b"), None);
        }
        std::thread::yield_now();
        assert!(short.room(&who("key:a")).ok().unwrap().instead.is_none(), "sessions that have ended keep no place from others");
        let eager = Sessions::new(SessionLimits { replaceable_after: Duration::ZERO, ..limits });
        eager.enter("a1", &who("key:a"), None);
        eager.enter("a2", &who("key:a"), None);
        let first = eager.room(&who("key:a")).ok().unwrap();
        let second = eager.room(&who("key:a")).ok().unwrap();
        assert!(first.instead.is_some() && second.instead.is_some() && first.instead != second.instead);
        assert!(eager.room(&who("key:a")).is_err(), "no session is given up twice");
    }

    #[test]
    fn room_that_was_promised_is_counted_until_it_is_given_up() {
        let sessions = Sessions::new(SessionLimits { per_principal: 2, in_all: 3, ..SessionLimits::default() });
        let promised = [sessions.room(&who("key:a")).ok().unwrap(), sessions.room(&who("key:a")).ok().unwrap()];
        assert!(sessions.room(&who("key:a")).is_err(), "of one principal");
        let of_b = sessions.room(&who("key:b")).ok().unwrap();
        assert!(sessions.room(&who("key:b")).is_err(), "in all");
        drop((promised, of_b));
        assert!(sessions.room(&who("key:a")).is_ok() && sessions.book().opening.is_empty());
    }
}
