//! Questions that get no answer: the gate does not let them out, or the client does not answer them. Guards that whoever
//! asked hears so at once, instead of waiting until it is over. Must not decide what is refused.

use portcullis_guard::Released;
use serde_json::Value;

use crate::gate::{Answer, Gateway, Stop};
use crate::steps::MayAsk;
use crate::{Caller, approvals};

impl Gateway {
    /// What was asked of this caller with `state` is not answered any more.
    pub fn give_up(&self, caller: &Caller, state: &Value) {
        let Some(state) = approvals::inner_state(state).filter(|state| !state.is_null()) else { return };
        let (house, principal) = (self.house.load(), &caller.principal.id);
        house.catalogue.entries().for_each(|entry| entry.tool.given_up(principal, state));
        house.catalogue.readers().for_each(|reader| reader.given_up(principal, state));
        house.catalogue.prompts().for_each(|prompt| prompt.given_up(principal, state));
    }

    /// What work asked is given up where its release failed.
    pub(crate) fn released<T: MayAsk>(
        &self,
        caller: &Caller,
        outcome: T,
        release: impl FnOnce(T) -> Result<Released<T>, portcullis_model::Fault>,
    ) -> Result<Released<T>, Stop> {
        let waits = outcome.waits_with().cloned();
        release(outcome).map_err(|fault| {
            if let Some(state) = &waits {
                self.give_up(caller, state);
            }
            Stop::Failed(fault)
        })
    }

    /// The same where the answer could not be given, as when it could not be recorded.
    pub(crate) fn or_given_up<T: MayAsk>(
        &self,
        caller: &Caller,
        walked: Result<Released<T>, Stop>,
        end: impl FnOnce(Result<Released<T>, Stop>) -> Answer<T>,
    ) -> Answer<T> {
        let waits = walked.as_ref().ok().and_then(|released| released.get().waits_with().cloned());
        let answer = end(walked);
        if let (Err(_), Some(state)) = (&answer, &waits) {
            self.give_up(caller, state);
        }
        answer
    }
}
