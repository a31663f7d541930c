//! What a running tool says to the client passes through here: released first, then spoken.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_guard::{Notice, Progress, Released, Releaser};
use portcullis_identity::Identity;
use portcullis_model::Secret;
use portcullis_policy::Permit;
use portcullis_ports::{Answers, ClientAbilities, Exchange, NoticeLevel, StillAdmitted};
use serde_json::Value;

use crate::Caller;
use crate::cursors::Bound;

/// Headers of a request that the operator lets through to other servers, by name in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHeaders(BTreeMap<String, Secret>);

impl ClientHeaders {
    /// These; names in lower case.
    pub fn of(headers: impl IntoIterator<Item = (String, Secret)>) -> Self {
        Self(headers.into_iter().collect())
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }
}

/// The face's ear for one call. Must not block: it queues or drops.
pub trait Voice: Send + Sync {
    /// A progress report.
    fn progress(&self, progress: Released<Progress>);
    /// A log message.
    fn notice(&self, notice: Released<Notice>);
    /// What a person was asked to do on a page is done, by the `elicitationId` of the question.
    fn page_done(&self, elicitation: Released<String>) {
        drop(elicitation);
    }
}

/// A face that is not listening.
impl Voice for () {
    fn progress(&self, _progress: Released<Progress>) {}
    fn notice(&self, _notice: Released<Notice>) {}
}

pub(crate) struct Releasing<'a> {
    pub permit: &'a Permit,
    pub releaser: &'a Releaser,
    pub voice: &'a Arc<dyn Voice>,
    pub answers: Option<Answers>,
    pub abilities: ClientAbilities,
    pub caller: &'a Caller,
    pub identity: &'a Arc<Identity>,
    /// What cursors that go out are bound to.
    pub cursors: Option<Bound>,
}

impl Releasing<'_> {
    /// The same, with cursors that are good for a question.
    pub(crate) fn sealing(self, cursors: Option<Bound>) -> Self {
        Self { cursors, ..self }
    }
}

impl Exchange for Releasing<'_> {
    fn progress(&self, done: f64, total: Option<f64>, message: &str) {
        self.voice.progress(self.releaser.progress(self.permit, done, total, message));
    }

    fn notice(&self, level: NoticeLevel, logger: &str, data: Value) {
        self.voice.notice(self.releaser.notice(self.permit, level, logger, data));
    }

    fn page_done(&self, elicitation: &str) {
        self.voice.page_done(self.releaser.page_done(self.permit, elicitation));
    }

    fn answers(&self) -> Option<&Answers> {
        self.answers.as_ref()
    }

    fn abilities(&self) -> ClientAbilities {
        self.abilities
    }

    fn outgoing(&self, value: Value) -> Value {
        self.releaser.outgoing(self.permit, value)
    }

    fn header(&self, name: &str) -> Option<&Secret> {
        self.caller.headers.get(name)
    }

    fn seal_cursor(&self, position: String) -> String {
        match &self.cursors {
            Some(bound) => bound.seal(&position),
            None => position,
        }
    }

    fn still_admitted(&self) -> StillAdmitted {
        let (identity, principal, term) = (self.identity.clone(), self.caller.principal.clone(), self.caller.term);
        Arc::new(move || identity.still_accepts(&principal, term))
    }
}
