//! The road of an administrator's operation: the same steps in the same order as in [`gate`](crate::gate). Admitted, authorized
//! by the policies, run with a deadline, released, recorded whatever the end.
//!
//! Must not know what an operation does.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use portcullis_guard::{ClientFault, Released};
use portcullis_model::{Fault, FaultCode, Scope, TenantId, TraceContext};
use portcullis_policy::{Budget, Operation, Permit, Refusal};
use serde_json::Value;

use crate::gate::{Answer, Gateway, Stop};
use crate::record::Journey;
use crate::{Caller, GateLoad};

/// Largest answer to an operation, bytes: a page of audit records.
const ANSWER_BYTES: u64 = 4 << 20;

/// An operation somebody asks for.
#[derive(Debug, Clone)]
pub struct OperationRequest {
    /// Which.
    pub operation: Operation,
    /// The id of what it is about, where it is about one thing.
    pub target: String,
    /// What was asked, for the fingerprint in the record.
    pub arguments: Option<Value>,
    /// Trace context of the request.
    pub trace: TraceContext,
    /// Whether it was counted and found allowed already, before what belongs to it was read.
    asked: bool,
}

impl OperationRequest {
    /// An operation about everything.
    pub fn new(operation: Operation) -> Self {
        Self { operation, target: String::new(), arguments: None, trace: TraceContext::default(), asked: false }
    }

    /// The operation about one thing.
    pub fn about(operation: Operation, target: impl Into<String>) -> Self {
        Self { target: target.into(), ..Self::new(operation) }
    }
}

impl Gateway {
    /// Asks whether the caller may do an operation, before anything that belongs to it is read: who may not is refused and
    /// recorded at once. What it gives goes to [`Gateway::administer`], which decides once more.
    ///
    /// # Errors
    /// Whatever the gate refused, as the caller may know it.
    pub fn may_operate(&self, caller: &Caller, request: OperationRequest) -> Result<OperationRequest, Released<ClientFault>> {
        let refused = match self.may_administer(caller, &request) {
            Ok(_permit) => return Ok(OperationRequest { asked: true, ..request }),
            Err(stop) => stop,
        };
        let journey = self.operation(caller, &request);
        match self.end::<Value>(caller, journey, Err(refused)) {
            Err(fault) => Err(fault),
            // A refusal is never an answer.
            Ok(_) => Ok(request),
        }
    }

    fn operation(&self, caller: &Caller, request: &OperationRequest) -> Journey {
        let mut journey = self.begin(caller, request.operation.method(), &request.target, &request.trace);
        journey.note(|end| {
            end.arguments.clone_from(&request.arguments);
            end.risk = Some(request.operation.risk());
        });
        journey
    }

    /// Does an operation, which is `work`, for a caller whom the policies allow it.
    ///
    /// # Errors
    /// Whatever the gate refused or the work failed with, as the caller may know it.
    pub async fn administer<W, F>(&self, caller: &Caller, request: OperationRequest, work: W) -> Answer<Value>
    where
        W: FnOnce() -> F,
        F: Future<Output = Result<Value, Fault>>,
    {
        let mut journey = self.operation(caller, &request);
        let walked = match self.may_administer(caller, &request) {
            Ok(permit) => self.operate(&permit, &mut journey, work()).await,
            Err(stop) => Err(stop),
        };
        // What became of a revocation is said also where nothing can be recorded: it was done all the same.
        let told = match &walked {
            Err(Stop::Failed(fault)) if request.operation == Operation::RevokeKey => Some(fault.clone()),
            _ => None,
        };
        let ended = self.end(caller, journey, walked);
        ended.map_err(|withheld| told.map_or(withheld, |fault| self.releaser.fault(&fault)))
    }

    fn may_administer(&self, caller: &Caller, request: &OperationRequest) -> Result<Permit, Stop> {
        if !request.asked {
            caller.meter.set_rate(self.admission.admit_operation(&caller.principal.id)?);
        }
        let deadline = Instant::now() + self.admission.settings().deadline;
        let budget = Budget { answer_bytes: ANSWER_BYTES, ..self.budget };
        let house = self.house.load_full();
        let trace = request.trace.clone();
        let issued = house.policies.authorize_operation(&caller.principal, request.operation, deadline, budget, trace);
        let permit = issued.map_err(|Refusal { rule }| {
            let fault = Fault::new(FaultCode::Forbidden, format!("you may not do this: {}", request.operation.as_str()))
                .with_hint("it takes a credential with the role admin, or a rule of the operator that allows it");
            Stop::Refused(rule, fault)
        })?;
        // Keys, approvals and the audit log are those of everybody.
        if caller.principal.scope != Scope::tenant_wide(TenantId::default_tenant()) {
            let fault =
                Fault::new(FaultCode::Forbidden, "this credential is confined to a part, and administration concerns all")
                    .with_hint(
                        "use a credential of the tenant 'default' that is not confined to sources, services, namespaces or time",
                    );
            return Err(Stop::refused("installation-wide", fault));
        }
        if permit.needs_approval() {
            let fault = Fault::new(FaultCode::Forbidden, "a rule wants a person's approval of this, and operations have none");
            return Err(Stop::refused("operation-approval", fault));
        }
        match self.recorder.may_begin(request.operation.risk()) {
            Ok(()) => Ok(permit),
            // A key in wrong hands does not wait for the log.
            Err(reason) if request.operation == Operation::RevokeKey => {
                tracing::error!(%reason, key = %request.target, by = %caller.principal.id, "a revocation goes on without a record");
                Ok(permit)
            }
            Err(reason) => {
                let fault = Fault::new(FaultCode::Unavailable, "the audit log cannot be written, so nothing is done");
                Err(Stop::refused("audit", fault.with_internal(reason).with_retry_after(5)))
            }
        }
    }

    async fn operate(
        &self,
        permit: &Permit,
        journey: &mut Journey,
        work: impl Future<Output = Result<Value, Fault>>,
    ) -> Result<Released<Value>, Stop> {
        let ran = self.within(permit, journey, work).await;
        ran.and_then(|value| self.releaser.administration(permit, value)).map_err(Stop::Failed)
    }

    /// How full the house is.
    pub fn load(&self) -> GateLoad {
        self.admission.load()
    }

    /// Names of the rules in force that let somebody see answers as they are.
    pub fn unredacted_rules(&self) -> Vec<Arc<str>> {
        self.house.load().policies.unredacted_rules()
    }

    /// How many tools there are.
    pub fn tool_count(&self) -> usize {
        self.house.load().catalogue.tool_names().len()
    }
}
