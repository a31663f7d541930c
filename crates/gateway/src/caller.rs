//! Who calls, and what they ask: the face's side of the gate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_identity::{Term, Transport};
use portcullis_model::{CallerToken, Principal, PrincipalId, TraceContext, Whence};
use portcullis_policy::Product;
use portcullis_ports::{Answers, Arguments, ClientAbilities};

use crate::{ClientHeaders, RateState};

/// An identified caller. Made by [`Gateway::identify`](crate::Gateway::identify) only from a credential that
/// verified; identified anew for every request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(crate) principal: Arc<Principal>,
    pub(crate) transport: Transport,
    pub(crate) whence: Option<Whence>,
    pub(crate) session: Option<Arc<str>>,
    pub(crate) product: Option<Arc<Product>>,
    /// The token it came with, closed; for sources that are asked in its own name.
    pub(crate) token: Option<CallerToken>,
    /// How long its credential is good.
    pub(crate) term: Term,
    /// Headers of its request that may be handed on to other servers.
    pub(crate) headers: Arc<ClientHeaders>,
    pub(crate) meter: Arc<Meter>,
}

/// What the gate tells the face beside an answer: how much of its rate the caller has left, and when to come back.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<(Option<RateState>, Option<u64>)>);

impl Meter {
    pub(crate) fn set_rate(&self, rate: RateState) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(rate);
    }

    pub(crate) fn set_retry_after(&self, seconds: Option<u64>) {
        if seconds.is_some() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = seconds;
        }
    }

    fn read(&self) -> (Option<RateState>, Option<u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    pub(crate) fn new(principal: Arc<Principal>, transport: Transport, whence: Option<Whence>) -> Self {
        Self {
            principal,
            transport,
            whence,
            session: None,
            product: None,
            token: None,
            term: Term::default(),
            headers: Arc::default(),
            meter: Arc::default(),
        }
    }

    /// What is left of the caller's rate after the last admission of this request; `None` before one.
    pub fn rate(&self) -> Option<RateState> {
        self.meter.read().0
    }

    /// Seconds after which the last refusal of this request may be tried again.
    pub fn retry_after(&self) -> Option<u64> {
        self.meter.read().1
    }

    /// The verified principal.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// The product the caller came through.
    pub fn product(&self) -> Option<&Arc<str>> {
        self.product.as_ref().map(|product| product.name())
    }

    /// The same caller with headers of its request that may be handed on.
    #[must_use]
    pub fn with_headers(mut self, headers: ClientHeaders) -> Self {
        self.headers = Arc::new(headers);
        self
    }

    /// The same caller within a session of the older protocol eras (for audit only; it authenticates nothing).
    #[must_use]
    pub fn in_session(mut self, session: Option<Arc<str>>) -> Self {
        self.session = session;
        self
    }
}

/// Who authenticated from where lately, so that a success is recorded once in a while and not for every request.
#[derive(Debug, Default)]
pub(crate) struct Acquaintances(Mutex<HashMap<Acquaintance, Instant>>);

/// Who, from where, at which listener.
type Acquaintance = (PrincipalId, Option<IpAddr>, Transport);

impl Acquaintances {
    /// How long a success is not recorded again.
    const WHILE: Duration = Duration::from_mins(10);
    /// Entries at most; beyond it old ones are forgotten, and everything if that is not enough.
    const MOST: usize = 50_000;

    pub(crate) fn first_in_a_while(&self, caller: &Caller) -> bool {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MOST {
            known.retain(|_, seen| now.duration_since(*seen) < Self::WHILE);
            if known.len() >= Self::MOST {
                known.clear();
            }
        }
        let key = Self::key(caller);
        match known.get(&key) {
            Some(seen) if now.duration_since(*seen) < Self::WHILE => false,
            _ => {
                known.insert(key, now);
                true
            }
        }
    }

    fn key(caller: &Caller) -> Acquaintance {
        (caller.principal.id.clone(), caller.whence.as_ref().map(Whence::address), caller.transport)
    }

    pub(crate) fn forget(&self, caller: &Caller) {
        let key = Self::key(caller);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

/// One tool call.
#[derive(Debug, Clone, Default)]
pub struct CallRequest {
    /// Tool name as the client sent it.
    pub tool: String,
    /// Arguments as the client sent them.
    pub arguments: Arguments,
    /// Trace context of the request.
    pub trace: TraceContext,
    /// Answers of an earlier round, already verified to belong to this caller and these arguments.
    pub answers: Option<Answers>,
    /// What the client can do.
    pub abilities: ClientAbilities,
    /// Whether the answer is wanted without redaction; refused without the grant for it.
    pub unredacted: bool,
}

/// Reading a resource or completing a value.
#[derive(Debug, Clone, Default)]
pub struct LookupRequest {
    /// URI of the resource.
    pub uri: String,
    /// Trace context of the request.
    pub trace: TraceContext,
    /// Answers of an earlier round.
    pub answers: Option<Answers>,
    /// What the client can do.
    pub abilities: ClientAbilities,
}

/// Getting a prompt.
#[derive(Debug, Clone, Default)]
pub struct GetPrompt {
    /// Prompt name.
    pub name: String,
    /// Its arguments.
    pub arguments: Arguments,
    /// Trace context of the request.
    pub trace: TraceContext,
    /// Answers of an earlier round.
    pub answers: Option<Answers>,
    /// What the client can do.
    pub abilities: ClientAbilities,
}
