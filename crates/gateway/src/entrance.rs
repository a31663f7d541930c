//! The entrance: who is calling, through which product, and the refusal of those who are nobody.

use std::sync::Arc;
use std::time::Duration;

use portcullis_guard::{ClientFault, Released};
use portcullis_identity::{Accepted, Door, IdentityRefusal, Presented};
use portcullis_model::{Fault, FaultCode, TenantId, TraceContext};
use portcullis_policy::Refusal;

use crate::Caller;
use crate::admission::{Knock, Turned};
use crate::gate::{Gateway, unknown};
use crate::record::RoadEnd;

/// How often it is looked whether who holds a stream open would still be let in.
const LOOK: Duration = Duration::from_millis(400);

/// A sender of telemetry that is not let in.
#[derive(Debug)]
pub struct RefusedSender {
    /// The rule, for the record.
    pub rule: &'static str,
    /// What the sender is told.
    pub fault: Fault,
    /// How long it has to wait from now on, where it did not have to before; for a record of its own.
    pub lockout: Option<Duration>,
}

impl Gateway {
    /// Step 1: who is calling. Failures are audited here, and successes once in a while; the face answers 401 or
    /// refuses the start.
    ///
    /// # Errors
    /// The refusal, without saying more than the caller may know.
    pub async fn identify(&self, presented: &Presented<'_>) -> Result<Caller, Released<ClientFault>> {
        self.knock_or_turn(presented)?;
        let identified = self.identity.accept(presented).await;
        self.receive(presented, identified)
    }

    /// Counts a request for its address before anybody looks at its credential.
    fn knock_or_turn(&self, presented: &Presented<'_>) -> Result<(), Released<ClientFault>> {
        let knocked = self.knock(presented, Knock::Caller);
        knocked.map_err(|turned| self.stranger(presented, turned.rule, &turned.fault))
    }

    fn knock(&self, presented: &Presented<'_>, knock: Knock) -> Result<(), Turned> {
        presented.address().map_or(Ok(()), |address| self.admission.admit_address(address, knock))
    }

    /// Who sends telemetry. Only what is refused counts for the address, and what is slow to look at: collectors send often.
    ///
    /// # Errors
    /// The rule for the record and the fault for the sender. Nothing is recorded here: the listener of senders does.
    pub async fn identify_sender(&self, presented: &Presented<'_>) -> Result<TenantId, RefusedSender> {
        let knocked = |lockout| move |turned: Turned| RefusedSender { rule: turned.rule, fault: turned.fault, lockout };
        let first = presented.holds_chosen_secret();
        if first {
            self.knock(presented, Knock::Sender).map_err(knocked(None))?;
        }
        match self.identity.identify_ingest(presented).await {
            Ok(tenant) => Ok(tenant),
            Err(refusal) => {
                if !first {
                    // A wait that begins with this failure is recorded whatever the sender is told.
                    self.knock(presented, Knock::Sender).map_err(knocked(refusal.lockout))?;
                }
                Err(RefusedSender { rule: refusal.rule(), fault: refusal.fault(), lockout: refusal.lockout })
            }
        }
    }

    /// Whether somebody without a credential may be told that the server lives: as often as its address may knock.
    ///
    /// # Errors
    /// The refusal, recorded.
    pub fn admit_probe(&self, presented: &Presented<'_>) -> Result<(), Released<ClientFault>> {
        self.knock(presented, Knock::Probe).map_err(|turned| self.stranger(presented, turned.rule, &turned.fault))
    }

    /// Whether the caller would still be let in with the credential it came with; for what stays open longer than a request.
    pub fn still_admits(&self, caller: &Caller) -> bool {
        self.identity.still_accepts(&caller.principal, caller.term)
    }

    /// Ends when the caller would not be let in any more: within a second of it, beside the half second keys are looked at.
    pub async fn until_refused(&self, caller: &Caller) {
        while self.still_admits(caller) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The same at the admin listener: who wants to administer or to scrape, by a credential that opens one of `doors`.
    ///
    /// # Errors
    /// As [`Gateway::identify`].
    pub async fn identify_admin(&self, presented: &Presented<'_>, doors: &[Door]) -> Result<Caller, Released<ClientFault>> {
        self.knock_or_turn(presented)?;
        // A token that could be exchanged for sources is of no use to an administrator.
        let identified = self.identity.identify_admin(presented, doors).await.map(Accepted::from);
        self.receive(presented, identified)
    }

    /// From a principal to a caller, with the record of how it went.
    fn receive(
        &self,
        presented: &Presented<'_>,
        identified: Result<Accepted, IdentityRefusal>,
    ) -> Result<Caller, Released<ClientFault>> {
        let Accepted { principal, token, term } = match identified {
            Ok(accepted) => accepted,
            Err(refusal) => {
                let told = self.stranger(presented, refusal.rule(), &refusal.fault());
                if let Some(wait) = refusal.lockout {
                    self.record_stranger(&RoadEnd::of_lockout(presented.transport, presented.whence.as_ref(), wait));
                }
                return Err(told);
            }
        };
        let caller = Caller { token, term, ..Caller::new(principal, presented.transport, presented.whence.clone()) };
        if self.acquaintances.first_in_a_while(&caller) {
            let mut journey = self.begin(&caller, "authenticate", "", &TraceContext::default());
            journey.note(|end| {
                end.allowed = true;
                end.rule = Arc::from("credential");
            });
            if let Err(reason) = journey.finish(|_| ()) {
                self.acquaintances.forget(&caller);
                tracing::error!(%reason, "the audit record of an authentication could not be written: nobody is let in");
                let fault = Fault::new(FaultCode::Unavailable, "the audit log cannot be written, so nobody is let in");
                return Err(self.releaser.fault(&fault.with_retry_after(5)));
            }
        }
        Ok(caller)
    }

    /// The caller within a product: its tools, its data, its limits.
    ///
    /// # Errors
    /// One refusal, whether there is no such product or it is not for this caller.
    pub fn within_product(&self, caller: Caller, name: &str) -> Result<Caller, Released<ClientFault>> {
        match self.house.load().products.open(name, &caller.principal) {
            Ok(product) => Ok(Caller { product: Some(product), ..caller }),
            Err(Refusal { rule }) => Err(self.refuse_request(&caller, "product", &rule, unknown("product", name))),
        }
    }

    /// Records that somebody unknown was refused.
    fn stranger(&self, presented: &Presented<'_>, rule: &str, fault: &Fault) -> Released<ClientFault> {
        self.record_stranger(&RoadEnd::of_stranger(presented.transport, presented.whence.as_ref(), rule, fault));
        self.releaser.fault(fault)
    }

    fn record_stranger(&self, end: &RoadEnd) {
        if let Err(reason) = self.recorder.record(end) {
            tracing::error!(%reason, "the audit record of a failed authentication could not be written");
        }
    }

    /// Releases a fault of the face itself (malformed message, unknown session) and records it.
    #[expect(clippy::needless_pass_by_value, reason = "the fault ends here; a caller has no further use for it")]
    pub fn refuse_request(&self, caller: &Caller, method: &'static str, rule: &str, fault: Fault) -> Released<ClientFault> {
        let journey = self.begin(caller, method, "", &TraceContext::default());
        self.refuse(caller, journey, Arc::from(rule), &fault)
    }

    /// The same for a refusal that stands in the place of a call: it counts against the caller's rate like the call would,
    /// and beyond the rate that is what the caller is told, with `false`.
    pub async fn refuse_call(
        &self,
        caller: &Caller,
        method: &'static str,
        rule: &str,
        fault: Fault,
    ) -> (Released<ClientFault>, bool) {
        let admitted = self.admission.admit_now(&caller.principal.id, &caller.principal.tenant).await;
        match admitted {
            Ok(place) => {
                caller.meter.set_rate(place.rate);
                (self.refuse_request(caller, method, rule, fault), true)
            }
            Err(Turned { rule, fault }) => (self.refuse_request(caller, method, rule, fault), false),
        }
    }

    /// Releases a fault for a request that never had a caller.
    pub fn release_fault(&self, fault: &Fault) -> Released<ClientFault> {
        self.releaser.fault(fault)
    }
}
