//! The gate. Every call passes here, in this order and nowhere else:
//!
//! 1. identify the principal ([`Gateway::identify`], once per request; its address is admitted first)
//! 2. find the target in *this principal's* catalogue
//! 3. admit (rates, token budget, concurrency); what the answer may take of the budget is set aside until the end
//! 4. validate the arguments, and open a cursor among them
//! 5. authorize: the policies issue a [`Permit`], which carries the scope the work is confined to; then the behaviour
//!    profile and, where it is needed, a person's approval
//! 6. run with a deadline
//! 7. release (redact, budget)
//! 8. audit, whatever the end
//!
//! An answer whose record cannot be written is not given.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_guard::{ClientFault, Released, Releaser};
use portcullis_identity::Identity;
use portcullis_model::cut::{self, CutRule};
use portcullis_model::{Fault, FaultCode, TraceContext};
use portcullis_policy::{Budget, ExternalPolicy, Permit, Policies, Products};
use portcullis_ports::{Answers, Arguments, ClientAbilities, Outcome, wants_dry_run};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use crate::admission::{Admitted, BYTES_PER_TOKEN, Turned};
use crate::approvals;
use crate::caller::Acquaintances;
use crate::catalogue::ToolEntry;
use crate::cursors::Cursors;
use crate::exchange::{Releasing, Voice};
use crate::foresight::{Foresight, can_be_dry};
use crate::guide::CALL_TOOL;
use crate::profiles;
use crate::reach::Function;
use crate::record::Journey;
use crate::steps::{Approval, Deed, MayAsk};
use crate::{Admission, Approvals, CallRequest, Caller, Catalogue, Profiles, Recorder};

/// What the gate is made of.
pub struct GatewayParts {
    /// What exists.
    pub catalogue: Catalogue,
    /// Who may do what.
    pub policies: Policies,
    /// Named bundles.
    pub products: Products,
    /// Who is who.
    pub identity: Arc<Identity>,
    /// How much.
    pub admission: Admission,
    /// What a person said yes to.
    pub approvals: Approvals,
    /// What each principal usually does.
    pub profiles: Arc<Profiles>,
    /// Who else is asked before a call runs.
    pub external: Option<Arc<dyn ExternalPolicy>>,
    /// What goes out.
    pub releaser: Releaser,
    /// What is remembered.
    pub recorder: Arc<dyn Recorder>,
    /// What one call may spend.
    pub budget: Budget,
}

/// The gate and what it guards.
pub struct Gateway {
    pub(crate) house: ArcSwap<House>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) admission: Admission,
    pub(crate) approvals: Approvals,
    pub(crate) profiles: Arc<Profiles>,
    pub(crate) external: Option<Arc<dyn ExternalPolicy>>,
    pub(crate) acquaintances: Acquaintances,
    pub(crate) releaser: Releaser,
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) budget: Budget,
    pub(crate) cursors: Cursors,
    changed: watch::Sender<u64>,
    updated: broadcast::Sender<Arc<str>>,
}

/// Catalogue, policies and products change together, so that a rule never meets a catalogue it was not checked against.
pub(crate) struct House {
    pub catalogue: Catalogue,
    pub policies: Policies,
    pub products: Products,
}

impl House {
    /// Finds a tool in this caller's catalogue. What it may not call does not exist for it.
    pub(crate) fn find(&self, caller: &Caller, name: &str) -> Result<&ToolEntry, Stop> {
        let unknown = || unknown("tool", name);
        let entry = self.catalogue.tool(name).ok_or_else(|| Stop::refused("catalogue", unknown()))?;
        self.may_use(caller, Function::Tool(entry)).map_err(|closed| closed.stop(unknown()))?;
        Ok(entry)
    }
}

/// Why a journey ends early.
pub(crate) enum Stop {
    /// The gate refuses, by a rule.
    Refused(Arc<str>, Fault),
    /// The work was let through and failed.
    Failed(Fault),
}

impl From<Turned> for Stop {
    fn from(turned: Turned) -> Self {
        Self::Refused(Arc::from(turned.rule), turned.fault)
    }
}

impl Stop {
    pub(crate) fn refused(rule: &str, fault: Fault) -> Self {
        Self::Refused(Arc::from(rule), fault)
    }
}

/// What the face gets: something released, or a released fault.
pub type Answer<T> = Result<Released<T>, Released<ClientFault>>;

impl Gateway {
    /// Puts the gate together.
    pub fn new(parts: GatewayParts) -> Self {
        let (changed, _) = watch::channel(parts.policies.version());
        Self {
            house: ArcSwap::from_pointee(House {
                catalogue: parts.catalogue,
                policies: parts.policies,
                products: parts.products,
            }),
            identity: parts.identity,
            admission: parts.admission,
            approvals: parts.approvals,
            profiles: parts.profiles,
            external: parts.external,
            acquaintances: Acquaintances::default(),
            releaser: parts.releaser,
            recorder: parts.recorder,
            budget: parts.budget,
            cursors: Cursors::of_this_process(),
            changed,
            updated: broadcast::Sender::new(UPDATES),
        }
    }

    /// Installs a new catalogue with the policies and products checked against it, and tells listeners.
    pub fn install(&self, catalogue: Catalogue, policies: Policies, products: Products) {
        let version = policies.version();
        self.house.store(Arc::new(House { catalogue, policies, products }));
        self.changed.send_replace(version);
    }

    /// Wakes whenever the catalogue changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Says that a resource changed, to those who watch it.
    pub fn resource_updated(&self, uri: &str) {
        // Nobody may be listening.
        let _ = self.updated.send(Arc::from(uri));
    }

    /// Addresses of resources that changed. Whoever falls behind is told so, and takes it that all did.
    pub fn updates(&self) -> broadcast::Receiver<Arc<str>> {
        self.updated.subscribe()
    }

    /// Instructions for a model.
    pub fn instructions(&self) -> Arc<str> {
        self.house.load().catalogue.instructions().clone()
    }

    /// Whether there is anything to offer of each kind: tools, resources, prompts, completions.
    pub fn offers(&self) -> (bool, bool, bool, bool) {
        let house = self.house.load();
        let catalogue = &house.catalogue;
        (true, catalogue.has_resources(), catalogue.has_prompts(), catalogue.completer().is_some())
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// Whatever the gate refused or the tool failed with, as the client may know it.
    pub async fn call(&self, caller: &Caller, request: CallRequest, voice: Arc<dyn Voice>) -> Answer<Outcome> {
        let mut journey = self.begin(caller, "tools/call", &request.tool, &request.trace);
        let arguments = Value::Object(request.arguments.0.clone());
        journey.note(|end| end.arguments = Some(arguments.clone()));
        let walked = self.walk(caller, request, &arguments, &voice, &mut journey).await;
        self.or_given_up(caller, walked, |walked| self.end(caller, journey, walked))
    }

    async fn walk(
        &self,
        caller: &Caller,
        mut request: CallRequest,
        arguments: &Value,
        voice: &Arc<dyn Voice>,
        journey: &mut Journey,
    ) -> Result<Released<Outcome>, Stop> {
        let principal = &caller.principal;
        let house = self.house.load_full();
        // 2. Find. What the principal may not call does not exist for it.
        let found = house.find(caller, &request.tool);
        journey.note(|end| end.known = house.catalogue.tool(&request.tool).is_some());
        // 3. Admit, also those who ask for what does not exist.
        let _place = Self::note_admitted(caller, journey, self.admission.admit(&principal.id, &principal.tenant).await)?;
        let mut entry = found?;
        let deadline = self.deadline();
        // A call that stands for another tool's is that tool's from here on.
        let mut arguments = Cow::Borrowed(arguments);
        let outer = if entry.tool.spec().name.as_str() == CALL_TOOL && house.is_guide(entry.tool.spec()) {
            let outer = self.stand_in(&house, caller, entry, &mut request, deadline)?;
            arguments = Cow::Owned(Value::Object(request.arguments.0.clone()));
            journey.turn_to(&request.tool, arguments.clone().into_owned(), CALL_TOOL);
            journey.note(|end| end.known = house.catalogue.tool(&request.tool).is_some());
            entry = house.find(caller, &request.tool)?;
            Some(outer)
        } else {
            None
        };
        let spec = entry.tool.spec();
        journey.note(|end| end.risk = Some(spec.risk));
        self.admission.admit_tool(&principal.id, spec.name.as_str(), spec.risk).await?;
        // 4. Validate.
        if let Some(cleaned) = validated(entry, &request.arguments, &arguments)? {
            request.arguments = cleaned;
        }
        let cursors = self.opened(caller, &*entry.tool, &mut request.arguments)?;
        // 5. Authorize.
        let permit = house.authorized(caller, entry, &request.arguments, (deadline, self.budget), request.trace.clone())?;
        let permit = outer.as_ref().map_or_else(|| permit.clone(), |outer| permit.within(outer));
        // What would be, instead of what shall be: the same rules, without a person's yes.
        let dry = entry.tool.previews() && wants_dry_run(&request.arguments);
        let foresight = Foresight { house: &house, caller, tool: &*entry.tool, outer: outer.as_ref() };
        let deed = Deed {
            answers: request.answers.as_ref(),
            abilities: request.abilities,
            unredacted: request.unredacted,
            foresight: entry.tool.previews().then_some(&foresight),
            dry,
            ..Deed::call(&*entry.tool, &request.arguments)
        };
        let cleared = self.clear(permit.carrying(caller.token.as_ref()), &deed, journey).await?;
        let (permit, bare) = (cleared.permit, cleared.bare);
        // 6. Run.
        let ran = match cleared.approval {
            Approval::Go { .. } if dry => self.dry_run(&foresight, &permit, &request.arguments, journey).await,
            Approval::Ask { requests, state } => Ok(Outcome::asking(requests, Some(state))),
            Approval::Go { answers, binding } => {
                let exchange = self.exchange(caller, &permit, voice, answers, request.abilities).sealing(cursors);
                let work = house.perform(caller, entry, &permit, &request.arguments, &exchange);
                let ran = self.within_cutting(self.releaser.cut_rule(&permit, !bare), &permit, journey, work).await;
                ran.map(|outcome| binding.iter().fold(outcome, |outcome, binding| approvals::carried(binding, outcome)))
            }
        };
        // 7. Release.
        if let Ok(Outcome::Complete(output)) = &ran {
            let (sources, failed) = (output.sources.clone(), output.failed);
            let asked = profiles::asked(&permit);
            let touched = sources.iter().chain(&asked).map(|source| &**source);
            self.profiles.learn(&principal.id, spec.name.as_str(), &request.arguments.0, touched);
            journey.note(|end| {
                end.sources = sources;
                end.code = failed.then_some(FaultCode::BackendFailed);
            });
        }
        let release = if bare { Releaser::outcome_unredacted } else { Releaser::outcome };
        let outcome = ran.map_err(Stop::Failed)?;
        self.released(caller, outcome, |outcome| release(&self.releaser, &permit, outcome))
    }

    pub(crate) fn begin(&self, caller: &Caller, method: &'static str, target: &str, trace: &TraceContext) -> Journey {
        let mut journey = Journey::begin(&self.recorder, caller, method, target);
        journey.note(|end| end.trace_id = trace.trace_id().map(str::to_owned));
        journey
    }

    pub(crate) fn exchange<'a>(
        &'a self,
        caller: &'a Caller,
        permit: &'a Permit,
        voice: &'a Arc<dyn Voice>,
        answers: Option<Answers>,
        abilities: ClientAbilities,
    ) -> Releasing<'a> {
        Releasing { permit, releaser: &self.releaser, voice, answers, abilities, caller, identity: &self.identity, cursors: None }
    }

    /// Runs authorized work until it ends or the permit's deadline passes. Whatever it cuts is redacted first.
    pub(crate) fn within<T>(
        &self,
        permit: &Permit,
        journey: &mut Journey,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> impl Future<Output = Result<T, Fault>> {
        self.within_cutting(self.releaser.cut_rule(permit, true), permit, journey, work)
    }

    /// The same, where texts are cut by this rule.
    async fn within_cutting<T>(
        &self,
        rule: CutRule,
        permit: &Permit,
        journey: &mut Journey,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        journey.note(|end| {
            end.allowed = true;
            end.rule = permit.rule().clone();
        });
        journey.follow(permit.trail());
        let work = cut::guarding(rule, work);
        match tokio::time::timeout_at(permit.deadline().into(), work).await {
            Ok(done) => done,
            Err(_elapsed) => Err(Fault::new(
                FaultCode::DeadlineExceeded,
                format!("no answer within {}s", self.admission.settings().deadline.as_secs()),
            )
            .with_hint("narrow the question: a shorter window, one service or one source")),
        }
    }

    /// What is left of the principal's rate goes to the face with the answer, whatever the answer is; what is set aside of its
    /// day stays with the journey until that has ended.
    pub(crate) fn note_admitted(
        caller: &Caller,
        journey: &mut Journey,
        admitted: Result<Admitted, Turned>,
    ) -> Result<Admitted, Stop> {
        let mut admitted = admitted?;
        caller.meter.set_rate(admitted.rate);
        journey.hold(admitted.reserved.take());
        Ok(admitted)
    }

    /// 8. Audit.
    pub(crate) fn end<T>(&self, caller: &Caller, journey: Journey, walked: Result<Released<T>, Stop>) -> Answer<T> {
        match walked {
            Ok(released) => self.settle(caller, journey, Ok(released)),
            Err(Stop::Failed(fault)) => self.settle(caller, journey, Err(fault)),
            Err(Stop::Refused(rule, fault)) => Err(self.refuse(caller, journey, rule, &fault)),
        }
    }

    pub(crate) fn refuse(&self, caller: &Caller, journey: Journey, rule: Arc<str>, fault: &Fault) -> Released<ClientFault> {
        caller.meter.set_retry_after(fault.retry_after_seconds());
        let recorded = journey.finish(|end| {
            end.allowed = false;
            end.rule = rule;
            end.code = Some(fault.code());
            if let Some(internal) = fault.internal() {
                end.add_note(internal);
            }
        });
        if let Err(reason) = recorded {
            tracing::error!(%reason, "the audit record of a refusal could not be written");
        }
        self.releaser.fault(fault)
    }

    fn settle<T>(&self, caller: &Caller, mut journey: Journey, released: Result<Released<T>, Fault>) -> Answer<T> {
        // Given back when this is over: after what was taken is booked.
        let _reserved = journey.let_go();
        let recorded = journey.finish(|end| match &released {
            Ok(released) => {
                end.bytes_out = released.bytes();
                end.redactions = released.redactions().counts().collect();
                end.signs = released.signs().counts().into();
            }
            Err(fault) => {
                end.code = Some(fault.code());
                if let Some(internal) = fault.internal() {
                    end.add_note(internal);
                    tracing::warn!(target: "portcullis::gate", code = fault.code().as_str(), internal, "a call failed");
                }
            }
        });
        if let Err(reason) = recorded {
            tracing::error!(%reason, "the audit record could not be written: the answer is withheld");
            let fault = Fault::new(FaultCode::Unavailable, "the audit log cannot be written, so no answer is given");
            return Err(self.releaser.fault(&fault.with_retry_after(5)));
        }
        if let Ok(released) = &released {
            self.admission.spend(&caller.principal, released.bytes() / BYTES_PER_TOKEN);
        }
        released.map_err(|fault| {
            caller.meter.set_retry_after(fault.retry_after_seconds());
            self.releaser.fault(&fault)
        })
    }
}

/// Checks the arguments of a call, and gives them as the tool may have them, where they are not as they were given.
pub(crate) fn validated(entry: &ToolEntry, given: &Arguments, value: &Value) -> Result<Option<Arguments>, Stop> {
    let refused = |fault: Fault| Stop::refused("argument-schema", fault);
    can_be_dry(&*entry.tool, given).map_err(refused)?;
    let accepted = entry.schema.accept(value).map_err(refused)?;
    Ok(if let Cow::Owned(Value::Object(cleaned)) = accepted { Some(Arguments(cleaned)) } else { None })
}

/// Announced changes a listener may be behind.
const UPDATES: usize = 256;

/// The caller may use the tool, and a rule refuses these arguments, or this time. It may know which, so that it can ask
/// something else or its operator.
pub(crate) fn not_like_this(rule: &str) -> Fault {
    Fault::new(FaultCode::Forbidden, format!("rule '{rule}' refuses this call as it was made"))
        .with_hint("other arguments may be allowed; the operator can explain the rule with: portcullis policy explain")
}

pub(crate) fn unknown(kind: &str, name: &str) -> Fault {
    Fault::new(FaultCode::NotFound, format!("unknown {kind}: {}", cut::quoted(name, 128)))
}
