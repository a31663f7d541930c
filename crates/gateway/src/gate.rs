//! The gate. Every call passes here, in this order and nowhere else:
//!
//! 1. identify the principal ([`Gateway::identify`], once per request; its address is admitted first)
//! 2. find the target in *this principal's* catalogue
//! 3. admit (rates, token budget, concurrency)
//! 4. validate the arguments
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
use std::time::Instant;

use arc_swap::ArcSwap;
use portcullis_guard::{ClientFault, Released, Releaser};
use portcullis_identity::{Identity, Presented};
use portcullis_model::{Clock, CompletionKind, Fault, FaultCode, PromptSpec, RiskClass, SystemClock, ToolSpec, TraceContext};
use portcullis_policy::{
    Asked, Budget, Decision, EXTERNAL_RULE, ExternalDecision, ExternalInput, ExternalPolicy, Permit, Policies, Products, Refusal,
};
use portcullis_ports::{Answers, Arguments, ClientAbilities, Outcome, PromptOutput, ResourceOutput};
use serde_json::Value;
use tokio::sync::watch;

use crate::admission::{Admitted, Turned};
use crate::approvals::{self, Standing, Subject, Yes};
use crate::caller::Acquaintances;
use crate::catalogue::ToolEntry;
use crate::exchange::{Releasing, Voice};
use crate::profiles::{self, Judgement};
use crate::record::{Journey, RoadEnd};
use crate::{Admission, Approvals, CallRequest, Caller, Catalogue, GetPrompt, LookupRequest, Profiles, Recorder};

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
    identity: Arc<Identity>,
    pub(crate) admission: Admission,
    approvals: Approvals,
    profiles: Arc<Profiles>,
    external: Option<Arc<dyn ExternalPolicy>>,
    acquaintances: Acquaintances,
    pub(crate) releaser: Releaser,
    recorder: Arc<dyn Recorder>,
    budget: Budget,
    changed: watch::Sender<u64>,
}

/// Catalogue, policies and products change together, so that a rule never meets a catalogue it was not checked against.
pub(crate) struct House {
    pub catalogue: Catalogue,
    pub policies: Policies,
    products: Products,
}

impl House {
    /// Whether the caller could call this tool with some arguments: the question of listing and calling alike.
    pub(crate) fn visible(&self, caller: &Caller, tool: &ToolSpec) -> bool {
        self.decide(caller, tool).allowed
    }

    fn decide(&self, caller: &Caller, tool: &ToolSpec) -> Decision {
        self.policies.decide_call_within(caller.product.as_deref(), &caller.principal, tool)
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
    fn refused(rule: &str, fault: Fault) -> Self {
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
            changed,
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
        let principal = match self.identity.identify(presented).await {
            Ok(principal) => principal,
            Err(refusal) => return Err(self.stranger(presented, refusal.rule(), &refusal.fault())),
        };
        let caller = Caller::new(principal, presented.transport, presented.peer);
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

    /// Calls a tool.
    ///
    /// # Errors
    /// Whatever the gate refused or the tool failed with, as the client may know it.
    pub async fn call(&self, caller: &Caller, request: CallRequest, voice: Arc<dyn Voice>) -> Answer<Outcome> {
        let mut journey = self.begin(caller, "tools/call", &request.tool, &request.trace);
        let arguments = Value::Object(request.arguments.0.clone());
        journey.note(|end| end.arguments = Some(arguments.clone()));
        let walked = self.walk(caller, request, &arguments, &voice, &mut journey).await;
        self.end(caller, journey, walked)
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
        let found = house.catalogue.tool(&request.tool);
        let decision = found.map(|entry| house.decide(caller, entry.tool.spec()));
        // 3. Admit, also those who ask for what does not exist.
        let _place = Self::note_rate(caller, self.admission.admit(&principal.id).await)?;
        let unknown = || unknown("tool", &request.tool);
        let (Some(entry), Some(decision)) = (found, decision) else {
            return Err(Stop::refused("catalogue", unknown()));
        };
        if !decision.allowed {
            return Err(Stop::Refused(decision.rule, unknown()));
        }
        let spec = entry.tool.spec();
        journey.note(|end| end.risk = Some(spec.risk));
        self.admission.admit_tool(&principal.id, spec.name.as_str(), spec.risk)?;
        // 4. Validate.
        let checked = entry.schema.accept(arguments).map_err(|fault| Stop::refused("argument-schema", fault))?;
        if let Cow::Owned(Value::Object(cleaned)) = checked {
            request.arguments = Arguments(cleaned);
        }
        // 5. Authorize.
        let deadline = Instant::now() + self.admission.settings().deadline;
        let product = caller.product.as_deref();
        let asked = Asked { principal, tool: spec, arguments: &request.arguments.0, product };
        let permit =
            house.policies.authorize_call(asked, deadline, self.budget, request.trace.clone()).map_err(|Refusal { rule }| {
                let fault = not_like_this(&rule);
                Stop::Refused(rule, fault)
            })?;
        let permit = self.fits_profile(permit, spec.name.as_str(), &request.arguments, journey)?;
        self.ask_outside(&permit, spec, &request.arguments).await?;
        let bare = Self::wants_unredacted(&permit, &request, journey)?;
        self.recorder.may_begin(spec.risk).map_err(|reason| {
            let fault = Fault::new(FaultCode::Unavailable, "the audit log cannot be written, so no call is made");
            Stop::refused("audit", fault.with_internal(reason).with_retry_after(5))
        })?;
        // 6. Run.
        let ran = match self.approve(&permit, entry, &request, journey).await? {
            Approval::Ask(outcome) => Ok(outcome),
            Approval::Go(answers) => {
                let exchange = self.exchange(&permit, voice, answers, request.abilities);
                self.within(&permit, journey, entry.tool.run(&permit, request.arguments.clone(), &exchange)).await
            }
            Approval::Approved(answers) => {
                let binding = approvals::binding(&principal.id, spec.name.as_str(), &request.arguments.0);
                let exchange = self.exchange(&permit, voice, answers, request.abilities);
                let ran = self.within(&permit, journey, entry.tool.run(&permit, request.arguments.clone(), &exchange)).await;
                ran.map(|outcome| approvals::carried(&binding, outcome))
            }
        };
        // 7. Release.
        if let Ok(Outcome::Complete(output)) = &ran {
            let (sources, failed) = (output.sources.clone(), output.failed);
            let touched = sources.iter().map(|source| &**source);
            self.profiles.learn(&principal.id, spec.name.as_str(), &request.arguments.0, touched);
            journey.note(|end| {
                end.sources = sources;
                end.code = failed.then_some(FaultCode::BackendFailed);
            });
        }
        let released = if bare {
            ran.and_then(|outcome| self.releaser.outcome_unredacted(&permit, outcome))
        } else {
            ran.and_then(|outcome| self.releaser.outcome(&permit, outcome))
        };
        released.map_err(Stop::Failed)
    }

    /// Asks the external policy, where there is one: it can only refuse, and so does everything but a clear answer of it.
    async fn ask_outside(&self, permit: &Permit, spec: &ToolSpec, arguments: &Arguments) -> Result<(), Stop> {
        let Some(external) = &self.external else { return Ok(()) };
        let input = ExternalInput::of_call(permit, spec, &arguments.0, SystemClock.now());
        let decision = tokio::time::timeout_at(permit.deadline().into(), external.decide(permit, &input)).await;
        let refused = |code, message: &str, internal: String| {
            Err(Stop::refused(EXTERNAL_RULE, Fault::new(code, message).with_internal(format!("{}: {internal}", external.name()))))
        };
        match decision {
            Ok(ExternalDecision::Allow) => Ok(()),
            Ok(ExternalDecision::Deny { reason }) => refused(FaultCode::Forbidden, "a policy forbids this call", reason),
            Ok(ExternalDecision::Unavailable { reason }) => {
                refused(FaultCode::Unavailable, "the policy service gave no answer, so this call is refused", reason)
            }
            Err(_elapsed) => refused(
                FaultCode::Unavailable,
                "the policy service gave no answer in time, so this call is refused",
                "deadline".into(),
            ),
        }
    }

    /// Whether this call asks for its answer without redaction. The wish is recorded on its own before anything runs, the
    /// release again with the call; without the grant it is refused.
    fn wants_unredacted(permit: &Permit, request: &CallRequest, journey: &mut Journey) -> Result<bool, Stop> {
        if !request.unredacted {
            return Ok(false);
        }
        if !permit.may_see_unredacted() {
            let fault = Fault::new(FaultCode::Forbidden, "you may not see unredacted answers")
                .with_hint("leave the wish for an unredacted answer out; values show as [redacted:kind]");
            return Err(Stop::refused("unredacted", fault));
        }
        let wish = journey.beside("bypass", |end| {
            end.allowed = true;
            end.rule = permit.rule().clone();
            end.note = Some("an unredacted answer was asked for".into());
        });
        if let Err(reason) = wish {
            let fault = Fault::new(FaultCode::Unavailable, "the audit log cannot be written, so nothing is shown unredacted");
            return Err(Stop::refused("unredacted", fault.with_internal(reason).with_retry_after(5)));
        }
        journey.note(|end| end.note = Some("released without redaction".into()));
        Ok(true)
    }

    /// Whether the call is like what its principal usually does; the permit is confined to what that is.
    fn fits_profile(&self, permit: Permit, tool: &str, arguments: &Arguments, journey: &mut Journey) -> Result<Permit, Stop> {
        match self.profiles.judge(permit.principal_id(), tool, &arguments.0) {
            Judgement::Fits => Ok(self.profiles.confine(permit, tool)),
            Judgement::Reported(deviations) => {
                let described = profiles::described(&deviations);
                tracing::warn!(target: "portcullis::gate", principal = %permit.principal_id(), tool, "{described}");
                journey.note(|end| end.note = Some(described));
                Ok(permit)
            }
            Judgement::Refused(deviations) => Err(Stop::refused("behaviour-profile", profiles::refused(&deviations))),
        }
    }

    /// A person's yes, where the call needs one. Everything but a yes ends the call or asks for one.
    async fn approve(
        &self,
        permit: &Permit,
        entry: &ToolEntry,
        request: &CallRequest,
        journey: &mut Journey,
    ) -> Result<Approval, Stop> {
        let spec = entry.tool.spec();
        if spec.risk != RiskClass::Destructive && !permit.needs_approval() {
            return Ok(Approval::Go(request.answers.clone()));
        }
        let rendered = Value::Object(request.arguments.0.clone()).to_string();
        let summary = self.releaser.values(permit, vec![rendered]).map_err(Stop::Failed)?.into_inner().pop().unwrap_or_default();
        let subject = Subject {
            principal: permit.principal_id(),
            tool: spec.name.as_str(),
            risk: spec.risk,
            arguments: &request.arguments.0,
            summary: &summary,
        };
        let standing = self.approvals.stand(subject, request.answers.as_ref(), request.abilities.elicitation).await;
        let note = |journey: &mut Journey, text: String| journey.note(|end| end.note = Some(text));
        match standing {
            Ok(Standing::Approved(yes)) => {
                note(
                    journey,
                    match yes {
                        Yes::Client => "approved by the user of the client".to_owned(),
                        Yes::Operator { id, by } => format!("approved by {by} in request {id}"),
                    },
                );
                Ok(Approval::Approved(approvals::unwrap_state(request.answers.clone())))
            }
            Ok(Standing::Ask { requests, state }) => {
                journey.note(|end| {
                    end.rule = Arc::from("approval");
                    end.note = Some("the user of the client is asked for approval".into());
                });
                Ok(Approval::Ask(Outcome::NeedsInput { requests, state: Some(state) }))
            }
            Ok(Standing::Pending { id }) => {
                Err(Stop::refused("approval", approvals::pending(&id, self.approvals.settings().lifetime)))
            }
            Ok(Standing::Refused { by }) => Err(Stop::refused("approval", approvals::refused(&by))),
            Err(error) => {
                let fault = Fault::new(FaultCode::Unavailable, "approvals cannot be looked up, so this call is refused");
                Err(Stop::refused("approval", fault.with_internal(error.to_string()).with_retry_after(5)))
            }
        }
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// As [`Gateway::call`].
    pub async fn read(&self, caller: &Caller, request: LookupRequest, voice: Arc<dyn Voice>) -> Answer<ResourceOutput> {
        let mut journey = self.begin(caller, "resources/read", &request.uri, &request.trace);
        let house = self.house.load_full();
        let _place = match Self::note_rate(caller, self.admission.admit(&caller.principal.id).await) {
            Ok(place) => place,
            Err(stop) => return self.end(caller, journey, Err(stop)),
        };
        let Some(reader) = house.catalogue.reader(&request.uri) else {
            return self.end(caller, journey, Err(Stop::refused("catalogue", unknown("resource", &request.uri))));
        };
        let deadline = Instant::now() + self.admission.settings().deadline;
        let issued = house.policies.authorize_read(&caller.principal, &request.uri, deadline, self.budget, request.trace);
        let permit = match issued {
            Ok(permit) => permit,
            Err(Refusal { rule }) => {
                return self.end(caller, journey, Err(Stop::Refused(rule, unknown("resource", &request.uri))));
            }
        };
        let permit = caller.confine(permit);
        let exchange = self.exchange(&permit, &voice, request.answers, request.abilities);
        let ran = self.within(&permit, &mut journey, reader.read(&permit, &request.uri, &exchange)).await;
        let released = ran.and_then(|output| self.releaser.resource(&permit, output));
        self.end(caller, journey, released.map_err(Stop::Failed))
    }

    /// Renders a prompt.
    ///
    /// # Errors
    /// As [`Gateway::call`].
    pub async fn prompt(&self, caller: &Caller, request: GetPrompt, voice: Arc<dyn Voice>) -> Answer<PromptOutput> {
        let mut journey = self.begin(caller, "prompts/get", &request.name, &request.trace);
        let arguments = Value::Object(request.arguments.0.clone());
        journey.note(|end| end.arguments = Some(arguments));
        let house = self.house.load_full();
        let _place = match Self::note_rate(caller, self.admission.admit(&caller.principal.id).await) {
            Ok(place) => place,
            Err(stop) => return self.end(caller, journey, Err(stop)),
        };
        let Some(prompt) = house.catalogue.prompt(&request.name) else {
            return self.end(caller, journey, Err(Stop::refused("catalogue", unknown("prompt", &request.name))));
        };
        if let Err(fault) = check_prompt_arguments(prompt.spec(), &request.arguments.0) {
            return self.end(caller, journey, Err(Stop::refused("argument-schema", fault)));
        }
        let deadline = Instant::now() + self.admission.settings().deadline;
        let issued = house.policies.authorize_prompt(&caller.principal, &request.name, deadline, self.budget, request.trace);
        let permit = match issued {
            Ok(permit) => permit,
            Err(Refusal { rule }) => {
                return self.end(caller, journey, Err(Stop::Refused(rule, unknown("prompt", &request.name))));
            }
        };
        let permit = caller.confine(permit);
        let exchange = self.exchange(&permit, &voice, request.answers, request.abilities);
        let ran = self.within(&permit, &mut journey, prompt.render(&permit, request.arguments, &exchange)).await;
        let released = ran.and_then(|output| self.releaser.prompt(&permit, output));
        self.end(caller, journey, released.map_err(Stop::Failed))
    }

    /// Completes an argument of a prompt (`prompt` is its name) or a variable of a resource template.
    ///
    /// # Errors
    /// As [`Gateway::call`].
    pub async fn complete(
        &self,
        caller: &Caller,
        reference: CompletionReference<'_>,
        argument: &str,
        prefix: &str,
    ) -> Answer<Vec<String>> {
        let (kind_word, name) = match reference {
            CompletionReference::Prompt(name) => ("prompt", name),
            CompletionReference::Template(uri) => ("resource", uri),
        };
        let mut journey = self.begin(caller, "completion/complete", name, &TraceContext::default());
        let house = self.house.load_full();
        let _place = match Self::note_rate(caller, self.admission.admit(&caller.principal.id).await) {
            Ok(place) => place,
            Err(stop) => return self.end(caller, journey, Err(stop)),
        };
        let Ok(kind) = completion_kind(&house.catalogue, reference, argument) else {
            return self.end(caller, journey, Err(Stop::refused("catalogue", unknown(kind_word, name))));
        };
        let deadline = Instant::now() + self.admission.settings().deadline;
        let trace = TraceContext::default();
        let issued = match reference {
            CompletionReference::Prompt(name) => {
                house.policies.authorize_prompt(&caller.principal, name, deadline, self.budget, trace)
            }
            CompletionReference::Template(uri) => {
                house.policies.authorize_family(&caller.principal, uri, deadline, self.budget, trace)
            }
        };
        let permit = match issued {
            Ok(permit) => permit,
            Err(Refusal { rule }) => return self.end(caller, journey, Err(Stop::Refused(rule, unknown(kind_word, name)))),
        };
        let permit = caller.confine(permit);
        let ran = match (&kind, house.catalogue.completer()) {
            (None, _) | (_, None) => Ok(Vec::new()),
            (Some(CompletionKind::Fixed(values)), _) => {
                let fits = |v: &&Arc<str>| v.starts_with(prefix);
                Ok(values.iter().filter(fits).map(ToString::to_string).collect())
            }
            (Some(kind), Some(completer)) => self.within(&permit, &mut journey, completer.complete(&permit, kind, prefix)).await,
        };
        let released = ran.and_then(|values| self.releaser.values(&permit, values));
        self.end(caller, journey, released.map_err(Stop::Failed))
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

    pub(crate) fn begin(&self, caller: &Caller, method: &'static str, target: &str, trace: &TraceContext) -> Journey {
        let mut journey = Journey::begin(&self.recorder, caller, method, target);
        journey.note(|end| end.trace_id = trace.trace_id().map(str::to_owned));
        journey
    }

    fn exchange<'a>(
        &'a self,
        permit: &'a Permit,
        voice: &'a Arc<dyn Voice>,
        answers: Option<Answers>,
        abilities: ClientAbilities,
    ) -> Releasing<'a> {
        Releasing { permit, releaser: &self.releaser, voice, answers, abilities }
    }

    /// Runs authorized work until it ends or the permit's deadline passes.
    async fn within<T>(
        &self,
        permit: &Permit,
        journey: &mut Journey,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        journey.note(|end| {
            end.allowed = true;
            end.rule = permit.rule().clone();
        });
        match tokio::time::timeout_at(permit.deadline().into(), work).await {
            Ok(done) => done,
            Err(_elapsed) => Err(Fault::new(
                FaultCode::DeadlineExceeded,
                format!("no answer within {}s", self.admission.settings().deadline.as_secs()),
            )
            .with_hint("narrow the question: a shorter window, one service or one source")),
        }
    }

    /// What is left of the principal's rate goes to the face with the answer, whatever the answer is.
    pub(crate) fn note_rate(caller: &Caller, admitted: Result<Admitted, Turned>) -> Result<Admitted, Stop> {
        let admitted = admitted?;
        caller.meter.set_rate(admitted.rate);
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

    fn refuse(&self, caller: &Caller, journey: Journey, rule: Arc<str>, fault: &Fault) -> Released<ClientFault> {
        caller.meter.set_retry_after(fault.retry_after_seconds());
        let recorded = journey.finish(|end| {
            end.allowed = false;
            end.rule = rule;
            end.code = Some(fault.code());
            end.note = fault.internal().map(str::to_owned);
        });
        if let Err(reason) = recorded {
            tracing::error!(%reason, "the audit record of a refusal could not be written");
        }
        self.releaser.fault(fault)
    }

    fn settle<T>(&self, caller: &Caller, journey: Journey, released: Result<Released<T>, Fault>) -> Answer<T> {
        let recorded = journey.finish(|end| match &released {
            Ok(released) => {
                end.bytes_out = released.bytes();
                end.redactions = released.redactions().counts().collect();
            }
            Err(fault) => {
                end.code = Some(fault.code());
                end.note = fault.internal().map(str::to_owned).or(end.note.take());
                if let Some(internal) = fault.internal() {
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
            self.admission.ledger().spend(&caller.principal.id, released.bytes() / BYTES_PER_TOKEN);
        }
        released.map_err(|fault| {
            caller.meter.set_retry_after(fault.retry_after_seconds());
            self.releaser.fault(&fault)
        })
    }
}

/// Bytes of answer text that make one token, roughly: what the daily budget counts with.
const BYTES_PER_TOKEN: u64 = 4;

/// Where a call stands with the approval it may need.
enum Approval {
    /// It needs none.
    Go(Option<Answers>),
    /// A person said yes; the answers left are the tool's.
    Approved(Option<Answers>),
    /// A person is to be asked first.
    Ask(Outcome),
}

/// What a completion is for.
#[derive(Debug, Clone, Copy)]
pub enum CompletionReference<'a> {
    /// A prompt by name.
    Prompt(&'a str),
    /// A resource template by its URI template.
    Template(&'a str),
}

/// No prompt or template of that name exists.
struct NoSuchReference;

/// Where completions of an argument come from; `None` when it has none.
fn completion_kind(
    catalogue: &Catalogue,
    reference: CompletionReference<'_>,
    argument: &str,
) -> Result<Option<CompletionKind>, NoSuchReference> {
    match reference {
        CompletionReference::Prompt(name) => {
            let spec = catalogue.prompt(name).ok_or(NoSuchReference)?.spec().clone();
            Ok(spec.arguments.iter().find(|a| &*a.name == argument).and_then(|a| a.completion.clone()))
        }
        CompletionReference::Template(uri) => {
            let spec = catalogue.templates().into_iter().find(|t| &*t.uri_template == uri).ok_or(NoSuchReference)?;
            Ok(spec.completions.iter().find(|(a, _)| &**a == argument).map(|(_, kind)| kind.clone()))
        }
    }
}

fn check_prompt_arguments(spec: &PromptSpec, arguments: &serde_json::Map<String, Value>) -> Result<(), Fault> {
    let names = || spec.arguments.iter().map(|a| &*a.name).collect::<Vec<_>>().join(", ");
    for (name, value) in arguments {
        if !spec.arguments.iter().any(|a| &*a.name == name) {
            return Err(Fault::invalid(format!("prompt '{}' has no argument '{name}'", spec.name))
                .with_hint(format!("arguments are: {}", names())));
        }
        if value.as_str().is_none_or(|text| text.len() > 4_096) {
            return Err(Fault::invalid(format!("argument '{name}' must be text of at most 4096 bytes")));
        }
    }
    match spec.arguments.iter().find(|a| a.required && !arguments.contains_key(&*a.name)) {
        Some(missing) => {
            Err(Fault::invalid(format!("argument '{}' is required", missing.name))
                .with_hint(format!("arguments are: {}", names())))
        }
        None => Ok(()),
    }
}

/// The caller may use the tool, and a rule refuses these arguments, or this time. It may know which, so that it can ask
/// something else or its operator.
fn not_like_this(rule: &str) -> Fault {
    Fault::new(FaultCode::Forbidden, format!("rule '{rule}' refuses this call as it was made"))
        .with_hint("other arguments may be allowed; the operator can explain the rule with: portcullis policy explain")
}

fn unknown(kind: &str, name: &str) -> Fault {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
    Fault::new(FaultCode::NotFound, format!("unknown {kind}: {shown}"))
}
