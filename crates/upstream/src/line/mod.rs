//! The ways to an upstream. Guards that a call is opened under a permit, ends when it is dropped, and never holds more than
//! its limits allow. Must not know what methods mean.

mod files;
mod http;
mod keeper;
mod mux;
mod program;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use portcullis_egress::{Authentication, Echoes};
use portcullis_model::{PrincipalId, Secret};
use portcullis_policy::Permit;
use serde_json::Value;

pub use keeper::{Keeping, keep_program};

pub(crate) use http::{HttpLine, HttpParts};
pub(crate) use mux::PAGE_DONE;
pub(crate) use program::{Program, ProgramLine};
pub(crate) use sse::SseLine;

use crate::wire::{Incoming, Trouble};

/// What a request presents to its upstream, and what must not come back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proof {
    /// The credential; the one of the connection when absent.
    pub authentication: Option<Authentication>,
    /// Headers of the client that are handed on.
    pub headers: Vec<(String, Secret)>,
    /// Everything that must not come back in what is said to the caller: what the house presented and this caller did, and,
    /// where it looks random, what other clients did.
    pub echoes: Echoes,
    /// Of that, what the house presented. Nothing else may touch what callers share.
    pub of_house: Echoes,
    /// Of that, what this caller's client sent with the call.
    pub of_client: Echoes,
}

/// Bounds of one message and one silence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of one message.
    pub message: u64,
    /// Longest silence.
    pub idle: Duration,
}

/// A request to be made.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    /// Unique within the conversation; also the progress token.
    pub id: u64,
    /// Method.
    pub method: &'a str,
    /// Parameters.
    pub params: &'a Value,
    /// Headers of the protocol, for HTTP.
    pub headers: Vec<(String, String)>,
    /// Whose it is.
    pub principal: &'a PrincipalId,
    /// The request whose progress is also that of this one: the one that began a task.
    pub follows: Option<u64>,
}

impl Ask<'_> {
    /// Whether somebody waits for what is said and asked on the way.
    pub(crate) fn listens(&self) -> bool {
        matches!(self.method, "tools/call" | "prompts/get" | "resources/read" | "tasks/result")
    }
}

/// One way to an upstream.
#[derive(Clone)]
pub(crate) enum Line {
    /// A program of ours.
    Program(Arc<ProgramLine>),
    /// Streamable HTTP.
    Http(Arc<HttpLine>),
    /// HTTP+SSE of 2024-11-05.
    Sse(Arc<SseLine>),
}

/// A request under way. Dropped before its answer, it is cancelled.
pub(crate) enum Call {
    /// Over a line all requests share.
    Mux(mux::MuxCall),
    /// With a response of its own.
    Http(Box<http::HttpCall>),
}

impl Line {
    /// Makes a request.
    pub(crate) async fn open(&self, permit: &Permit, proof: &Arc<Proof>, ask: Ask<'_>) -> Result<Call, Trouble> {
        let opened = match self {
            Self::Program(line) => line.open(permit, ask).await.map(Call::Mux),
            Self::Http(line) => http::open(line, permit, proof, ask).await.map(|call| Call::Http(Box::new(call))),
            Self::Sse(line) => sse::open(line, permit, proof, ask).await.map(Call::Mux),
        };
        opened.map_err(|trouble| trouble.without(&proof.echoes))
    }

    /// Sends what has no answer: a notification, or our answer to a request of the upstream.
    pub(crate) async fn say(&self, permit: &Permit, proof: &Arc<Proof>, message: Vec<u8>) -> Result<(), Trouble> {
        let said = match self {
            Self::Program(line) => line.say(permit, message).await,
            Self::Http(line) => line.say(permit, proof, message).await,
            Self::Sse(line) => line.say(permit, proof, message).await,
        };
        said.map_err(|trouble| trouble.without(&proof.echoes))
    }

    /// Whether it can still be used.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Program(line) => line.mux().end().is_none(),
            Self::Http(line) => !line.is_over(),
            Self::Sse(line) => line.mux().end().is_none(),
        }
    }

    /// Whether a call is under way on it that others could be waiting behind.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Self::Program(line) => line.mux().is_busy(),
            Self::Http(_) | Self::Sse(_) => false,
        }
    }

    /// Whether words and questions outside of an answer's own stream can be told to belong to a call.
    pub(crate) fn shares_one_stream(&self) -> bool {
        !matches!(self, Self::Http(_))
    }

    /// Ends it in good order.
    pub(crate) async fn close(&self) {
        match self {
            Self::Program(line) => line.stop().await,
            Self::Http(line) => line.close().await,
            Self::Sse(line) => line.stop(),
        }
    }
}

impl Call {
    /// Its number, which is also the token of its progress.
    pub(crate) fn id(&self) -> u64 {
        match self {
            Self::Mux(call) => call.id(),
            Self::Http(call) => call.id(),
        }
    }

    /// The next message that belongs to it, until and including its answer.
    pub(crate) async fn next(&mut self) -> Result<Incoming, Trouble> {
        match self {
            Self::Mux(call) => call.next().await,
            Self::Http(call) => call.next().await,
        }
    }

    /// Nobody reads it until it is renewed: what it says meanwhile is not kept.
    pub(crate) fn rest(&mut self) {
        match self {
            Self::Mux(call) => call.rest(true),
            Self::Http(call) => call.rest(true),
        }
    }

    /// Goes on under another permit: after a person answered a question.
    pub(crate) fn renew(&mut self, permit: &Permit) -> Result<(), Trouble> {
        match self {
            Self::Mux(call) => {
                call.rest(false);
                Ok(())
            }
            Self::Http(call) => call.renew(permit),
        }
    }
}
