//! The entrance: who is calling, through which product, and the refusal of those who are nobody.

use std::sync::Arc;

use portcullis_guard::{ClientFault, Released};
use portcullis_identity::{Accepted, Door, IdentityRefusal, Presented};
use portcullis_model::{Fault, FaultCode, TraceContext};
use portcullis_policy::Refusal;

use crate::Caller;
use crate::gate::{Gateway, unknown};
use crate::record::RoadEnd;

impl Gateway {
    /// Step 1: who is calling. Failures are audited here, and successes once in a while; the face answers 401 or
    /// refuses the start.
    ///
    /// # Errors
    /// The refusal, without saying more than the caller may know.
    pub async fn identify(&self, presented: &Presented<'_>) -> Result<Caller, Released<ClientFault>> {
        if let Some(peer) = presented.peer
            && let Err(turned) = self.admission.admit_address(peer.ip())
        {
            return Err(self.stranger(presented, turned.rule, &turned.fault));
        }
        let identified = self.identity.accept(presented).await;
        self.receive(presented, identified)
    }

    /// The same at the admin listener: who wants to administer or to scrape, by a credential that opens one of `doors`.
    ///
    /// # Errors
    /// As [`Gateway::identify`].
    pub async fn identify_admin(&self, presented: &Presented<'_>, doors: &[Door]) -> Result<Caller, Released<ClientFault>> {
        if let Some(peer) = presented.peer
            && let Err(turned) = self.admission.admit_address(peer.ip())
        {
            return Err(self.stranger(presented, turned.rule, &turned.fault));
        }
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
        let Accepted { principal, token } = match identified {
            Ok(accepted) => accepted,
            Err(refusal) => return Err(self.stranger(presented, refusal.rule(), &refusal.fault())),
        };
        let caller = Caller { token, ..Caller::new(principal, presented.transport, presented.peer) };
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
        let end = RoadEnd::of_stranger(presented.transport, presented.peer, rule, fault);
        if let Err(reason) = self.recorder.record(&end) {
            tracing::error!(%reason, "the audit record of a failed authentication could not be written");
        }
        self.releaser.fault(fault)
    }

    /// Releases a fault of the face itself (malformed message, unknown session) and records it.
    #[expect(clippy::needless_pass_by_value, reason = "the fault ends here; a caller has no further use for it")]
    pub fn refuse_request(&self, caller: &Caller, method: &'static str, rule: &str, fault: Fault) -> Released<ClientFault> {
        let journey = self.begin(caller, method, "", &TraceContext::default());
        self.refuse(caller, journey, Arc::from(rule), &fault)
    }

    /// Releases a fault for a request that never had a caller.
    pub fn release_fault(&self, fault: &Fault) -> Released<ClientFault> {
        self.releaser.fault(fault)
    }
}
