//! Who calls, and what they ask: the face's side of the gate.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_identity::Transport;
use portcullis_model::{Principal, TraceContext};
use portcullis_ports::{Answers, Arguments, ClientAbilities};

/// An identified caller. Made by [`Gateway::identify`](crate::Gateway::identify) only from a credential that
/// verified; identified anew for every request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(crate) principal: Arc<Principal>,
    pub(crate) transport: Transport,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) session: Option<Arc<str>>,
}

impl Caller {
    /// The verified principal.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// The same caller within a session of the older protocol eras (for audit only; it authenticates nothing).
    #[must_use]
    pub fn in_session(mut self, session: Option<Arc<str>>) -> Self {
        self.session = session;
        self
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
