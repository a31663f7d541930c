//! Calls that wait for a person's answer. Guards that a waiting call is taken up only by the caller it belongs to, once, only
//! for a while, and only as long as that caller would be let in. Must not run anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_model::{Fault, FaultCode, PrincipalId};
use portcullis_ports::StillAdmitted;
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
    /// Whether they would still be let in.
    pub admitted: StillAdmitted,
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
    /// Pages it wanted opened, by the names of those questions.
    pub pages: Vec<String>,
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
    /// Lets a call wait. Gives the handle it is taken up by; where there is no room, the call is given back.
    pub(crate) fn park(&self, parked: Parked) -> Result<String, (Fault, Box<Parked>)> {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.values().filter(|(until, other)| *until > now && other.principal == parked.principal).count();
        if own >= OF_ONE || all.len() >= IN_ALL {
            let fault = Fault::new(FaultCode::RateLimited, "too many calls wait for answers; answer or cancel one first");
            return Err((fault.with_retry_after(30), Box::new(parked)));
        }
        let handle = format!("{:032x}", rand::random::<u128>());
        all.insert(handle.clone(), (now + LIFETIME, parked));
        Ok(handle)
    }

    /// Takes a call up again. What is not there, is over, or belongs to somebody else looks the same.
    pub(crate) fn take(&self, handle: &str, principal: &PrincipalId, target: &str) -> Result<Parked, Fault> {
        let fits =
            |until: Instant, parked: &Parked| until > Instant::now() && parked.principal == *principal && parked.target == target;
        let taken = self.take_if(handle, fits);
        taken.ok_or_else(|| Fault::invalid("the call that asked this is over").with_hint("call the tool again"))
    }

    /// Takes out a call nobody will answer, whatever was called.
    pub(crate) fn give_up(&self, handle: &str, principal: &PrincipalId) -> Option<Parked> {
        self.take_if(handle, |_until, parked| parked.principal == *principal)
    }

    /// Somebody else's call stays where it is.
    fn take_if(&self, handle: &str, fits: impl FnOnce(Instant, &Parked) -> bool) -> Option<Parked> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.get(handle).is_some_and(|(until, parked)| fits(*until, parked));
        if taken { all.remove(handle).map(|(_, parked)| parked) } else { None }
    }

    /// Takes out what has waited too long.
    pub(crate) fn sweep(&self) -> Vec<Parked> {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = all.extract_if(|_, (until, _)| *until <= now);
        over.map(|(_, (_, parked))| parked).collect()
    }

    /// Takes out what belongs to callers who would not be let in any more.
    pub(crate) fn refused(&self) -> Vec<Parked> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = all.extract_if(|_, (_, parked)| !(parked.admitted)());
        refused.map(|(_, (_, parked))| parked).collect()
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
