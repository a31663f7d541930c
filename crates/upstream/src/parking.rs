//! Calls that wait for a person's answer. Guards that a waiting call is taken up only by the caller it belongs to, once, and
//! only for a while. Must not run anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_model::{Fault, FaultCode, PrincipalId};
use serde_json::Value;

use crate::conversation::Conversation;
use crate::health::Fitness;
use crate::line::{Call, Proof};
use crate::questions::May;
use crate::tasks::Task;

/// How long a call may wait.
const LIFETIME: Duration = Duration::from_mins(5);
/// Calls of one principal that may wait at once.
const OF_ONE: usize = 4;
/// Calls that may wait at once.
const IN_ALL: usize = 64;

/// A call with an open question.
pub(crate) struct Parked {
    /// Whose it is.
    pub principal: PrincipalId,
    /// What is called: kind and name.
    pub target: String,
    /// The call.
    pub call: Call,
    /// Where it runs.
    pub conversation: Arc<Conversation>,
    /// What was presented.
    pub proof: Arc<Proof>,
    /// How whoever is asked is doing.
    pub fitness: Arc<Fitness>,
    /// What it waits for.
    pub question: Question,
    /// Words it has said so far.
    pub notices: u32,
    /// Questions it has asked so far.
    pub asked: u32,
    /// What it may ask.
    pub may: May,
    /// The task it runs as.
    pub task: Option<Task>,
}

/// A question of an upstream in a session.
pub(crate) struct Question {
    /// Under which it wants the answer.
    pub id: Value,
    /// What kind of question.
    pub method: &'static str,
    /// Whether it wants a page opened.
    pub link: bool,
}

/// The waiting calls of one upstream.
#[derive(Default)]
pub(crate) struct Parking(Mutex<HashMap<String, (Instant, Parked)>>);

impl Parking {
    /// Lets a call wait. Gives the handle it is taken up by.
    pub(crate) fn park(&self, parked: Parked) -> Result<String, Fault> {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (until, _)| *until > now);
        let own = all.values().filter(|(_, other)| other.principal == parked.principal).count();
        if own >= OF_ONE || all.len() >= IN_ALL {
            let fault = Fault::new(FaultCode::RateLimited, "too many calls wait for answers; answer or cancel one first");
            return Err(fault.with_retry_after(30));
        }
        let handle = format!("{:032x}", rand::random::<u128>());
        all.insert(handle.clone(), (now + LIFETIME, parked));
        Ok(handle)
    }

    /// Takes a call up again. What is not there, is over, or belongs to somebody else looks the same.
    pub(crate) fn take(&self, handle: &str, principal: &PrincipalId, target: &str) -> Result<Parked, Fault> {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (until, _)| *until > now);
        let fits = all.get(handle).is_some_and(|(_, parked)| parked.principal == *principal && parked.target == target);
        // Somebody else's call stays where it is.
        let taken = if fits { all.remove(handle) } else { None };
        match taken {
            Some((_, parked)) => Ok(parked),
            None => Err(Fault::invalid("the call that asked this is over").with_hint("call the tool again")),
        }
    }

    /// Drops what has waited too long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (until, _)| *until > now);
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
