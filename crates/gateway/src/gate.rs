//! The gate. Every call passes here, in this order and nowhere else:
//!
//! 1. identify the principal ([`Gateway::identify`], once per request)
//! 2. find the target in *this principal's* catalogue
//! 3. admit (rate, concurrency)
//! 4. validate the arguments
//! 5. authorize: the policies issue a [`Permit`], which carries the scope the work is confined to
//! 6. run with a deadline
//! 7. release (redact, budget)
//! 8. audit, whatever the end
//!
//! An answer whose record cannot be written is not given.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use portcullis_guard::{ClientFault, Released, Releaser};
use portcullis_identity::{Identity, Presented};
use portcullis_model::{
    CompletionKind, Fault, FaultCode, PromptSpec, ResourceSpec, ResourceTemplateSpec, ToolSpec, TraceContext,
};
use portcullis_policy::{Asked, Budget, Permit, Policies, Refusal};
use portcullis_ports::{Answers, ClientAbilities, Outcome, PromptOutput, ResourceOutput};
use serde_json::Value;
use tokio::sync::watch;

use crate::exchange::{Releasing, Voice};
use crate::record::{Journey, RoadEnd};
use crate::{Admission, CallRequest, Caller, Catalogue, GetPrompt, LookupRequest, Recorder};

/// What the gate is made of.
pub struct GatewayParts {
    /// What exists.
    pub catalogue: Catalogue,
    /// Who may do what.
    pub policies: Policies,
    /// Who is who.
    pub identity: Arc<Identity>,
    /// How much.
    pub admission: Admission,
    /// What goes out.
    pub releaser: Releaser,
    /// What is remembered.
    pub recorder: Arc<dyn Recorder>,
    /// What one call may spend.
    pub budget: Budget,
}

/// The gate and what it guards.
pub struct Gateway {
    house: ArcSwap<House>,
    identity: Arc<Identity>,
    admission: Admission,
    releaser: Releaser,
    recorder: Arc<dyn Recorder>,
    budget: Budget,
    changed: watch::Sender<u64>,
}

/// Catalogue and policies change together, so that a rule never meets a catalogue it was not checked against.
struct House {
    catalogue: Catalogue,
    policies: Policies,
}

/// What the face gets: something released, or a released fault.
pub type Answer<T> = Result<Released<T>, Released<ClientFault>>;

impl Gateway {
    /// Puts the gate together.
    pub fn new(parts: GatewayParts) -> Self {
        let GatewayParts { catalogue, policies, identity, admission, releaser, recorder, budget } = parts;
        let (changed, _) = watch::channel(policies.version());
        let house = ArcSwap::from_pointee(House { catalogue, policies });
        Self { house, identity, admission, releaser, recorder, budget, changed }
    }

    /// Installs a new catalogue and the policies checked against it, and tells listeners.
    pub fn install(&self, catalogue: Catalogue, policies: Policies) {
        let version = policies.version();
        self.house.store(Arc::new(House { catalogue, policies }));
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

    /// Step 1: who is calling. A failure is audited here and the face answers 401 or refuses the start.
    ///
    /// # Errors
    /// The refusal, without saying more than the caller may know.
    pub async fn identify(&self, presented: &Presented<'_>) -> Result<Caller, Released<ClientFault>> {
        match self.identity.identify(presented).await {
            Ok(principal) => Ok(Caller { principal, transport: presented.transport, peer: presented.peer, session: None }),
            Err(refusal) => {
                let fault = refusal.fault();
                let end = RoadEnd {
                    principal: None,
                    transport: presented.transport,
                    peer: presented.peer,
                    session: None,
                    method: "authenticate",
                    target: String::new(),
                    arguments: None,
                    allowed: false,
                    rule: Arc::from(refusal.rule()),
                    code: Some(fault.code()),
                    note: fault.internal().map(str::to_owned),
                    latency_micros: 0,
                    bytes_out: 0,
                    sources: Vec::new(),
                    redactions: Vec::new(),
                    trace_id: None,
                };
                if let Err(reason) = self.recorder.record(&end) {
                    tracing::error!(%reason, "the audit record of a failed authentication could not be written");
                }
                Err(self.releaser.fault(&fault))
            }
        }
    }

    /// The tools this caller may call: exactly those, for listing and calling ask the same question.
    ///
    /// # Errors
    /// When the caller asks too often, or the record of it cannot be written.
    pub fn tools(&self, caller: &Caller) -> Answer<Vec<Arc<ToolSpec>>> {
        self.list(caller, "tools/list", |house| {
            let allowed = |spec: &&Arc<ToolSpec>| house.policies.decide_call(&caller.principal, spec).allowed;
            house.catalogue.tool_specs().filter(allowed).cloned().collect()
        })
    }

    /// The resources this caller may read.
    ///
    /// # Errors
    /// As [`Gateway::tools`].
    pub fn resources(&self, caller: &Caller) -> Answer<Vec<Arc<ResourceSpec>>> {
        self.list(caller, "resources/list", |house| {
            let mut all = house.catalogue.resources();
            all.retain(|r| house.policies.decide_read(&caller.principal, &r.uri).allowed);
            all
        })
    }

    /// The families of resources this caller may read.
    ///
    /// # Errors
    /// As [`Gateway::tools`].
    pub fn templates(&self, caller: &Caller) -> Answer<Vec<Arc<ResourceTemplateSpec>>> {
        self.list(caller, "resources/templates/list", |house| {
            let mut all = house.catalogue.templates();
            all.retain(|t| house.policies.decide_family(&caller.principal, &t.uri_template).allowed);
            all
        })
    }

    /// The prompts this caller may use.
    ///
    /// # Errors
    /// As [`Gateway::tools`].
    pub fn prompts(&self, caller: &Caller) -> Answer<Vec<Arc<PromptSpec>>> {
        self.list(caller, "prompts/list", |house| {
            let allowed = |spec: &&Arc<PromptSpec>| house.policies.decide_prompt(&caller.principal, &spec.name).allowed;
            house.catalogue.prompt_specs().filter(allowed).cloned().collect()
        })
    }

    /// A listing walks the road too: admitted, confined to what the principal may use, released, recorded.
    fn list<T>(&self, caller: &Caller, method: &'static str, entries: impl FnOnce(&House) -> Vec<T>) -> Answer<Vec<T>> {
        let mut journey = self.begin(caller, method, "", &TraceContext::default());
        let _place = match self.admission.admit(&caller.principal.id) {
            Ok(place) => place,
            Err(fault) => return self.refuse(journey, "rate-limit", &fault),
        };
        journey.note(|end| {
            end.allowed = true;
            end.rule = Arc::from("own-catalogue");
        });
        let released = self.releaser.listing(entries(&self.house.load()));
        self.settle(journey, Ok(released))
    }

    /// Whether this caller may call `name` (for matching mirrored headers, which call nothing themselves).
    pub fn may_call(&self, caller: &Caller, name: &str) -> bool {
        let house = self.house.load();
        house.catalogue.tool(name).is_some_and(|t| house.policies.decide_call(&caller.principal, t.tool.spec()).allowed)
    }

    /// Whether this caller may read `uri` (for subscriptions, which read nothing themselves).
    pub fn may_read(&self, caller: &Caller, uri: &str) -> bool {
        let house = self.house.load();
        house.catalogue.reader(uri).is_some() && house.policies.decide_read(&caller.principal, uri).allowed
    }

    /// A tool's own description, whoever asks: only for checking mirrored headers against its schema.
    pub fn tool_spec(&self, name: &str) -> Option<Arc<ToolSpec>> {
        self.house.load().catalogue.tool(name).map(|entry| entry.tool.spec().clone())
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// Whatever the gate refused or the tool failed with, as the client may know it.
    pub async fn call(&self, caller: &Caller, request: CallRequest, voice: Arc<dyn Voice>) -> Answer<Outcome> {
        let mut journey = self.begin(caller, "tools/call", &request.tool, &request.trace);
        let arguments = Value::Object(request.arguments.0.clone());
        journey.note(|end| end.arguments = Some(arguments.clone()));
        let house = self.house.load_full();

        // 2. Find. What the principal may not call does not exist for it.
        let found = house.catalogue.tool(&request.tool);
        let decision = found.map(|entry| house.policies.decide_call(&caller.principal, entry.tool.spec()));
        // 3. Admit, also those who ask for what does not exist.
        let admitted = self.admission.admit(&caller.principal.id);
        let _place = match admitted {
            Ok(place) => place,
            Err(fault) => return self.refuse(journey, "rate-limit", &fault),
        };
        let (Some(entry), Some(decision)) = (found, decision) else {
            return self.refuse(journey, "catalogue", &unknown("tool", &request.tool));
        };
        if !decision.allowed {
            return self.refuse(journey, &decision.rule, &unknown("tool", &request.tool));
        }
        // 4. Validate.
        if let Err(fault) = entry.schema.check(&arguments) {
            return self.refuse(journey, "argument-schema", &fault);
        }
        // 5. Authorize.
        let deadline = Instant::now() + self.admission.settings().deadline;
        let asked = Asked {
            principal: &caller.principal,
            tool: entry.tool.spec(),
            arguments: &request.arguments.0,
            product: None,
        };
        let permit = match house.policies.authorize_call(asked, deadline, self.budget, request.trace) {
            Ok(permit) => permit,
            Err(Refusal { rule }) => return self.refuse(journey, &rule, &not_like_this(&rule)),
        };
        // 6. Run.
        let exchange = self.exchange(&permit, &voice, request.answers, request.abilities);
        let ran = self.within(&permit, &mut journey, entry.tool.run(&permit, request.arguments, &exchange)).await;
        // 7. Release.
        if let Ok(Outcome::Complete(output)) = &ran {
            let (sources, failed) = (output.sources.clone(), output.failed);
            journey.note(|end| {
                end.sources = sources;
                end.code = failed.then_some(FaultCode::BackendFailed);
            });
        }
        let released = ran.and_then(|outcome| self.releaser.outcome(&permit, outcome));
        // 8. Audit.
        self.settle(journey, released)
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// As [`Gateway::call`].
    pub async fn read(&self, caller: &Caller, request: LookupRequest, voice: Arc<dyn Voice>) -> Answer<ResourceOutput> {
        let mut journey = self.begin(caller, "resources/read", &request.uri, &request.trace);
        let house = self.house.load_full();
        let _place = match self.admission.admit(&caller.principal.id) {
            Ok(place) => place,
            Err(fault) => return self.refuse(journey, "rate-limit", &fault),
        };
        let Some(reader) = house.catalogue.reader(&request.uri) else {
            return self.refuse(journey, "catalogue", &unknown("resource", &request.uri));
        };
        let deadline = Instant::now() + self.admission.settings().deadline;
        let issued = house.policies.authorize_read(&caller.principal, &request.uri, deadline, self.budget, request.trace);
        let permit = match issued {
            Ok(permit) => permit,
            Err(Refusal { rule }) => return self.refuse(journey, &rule, &unknown("resource", &request.uri)),
        };
        let exchange = self.exchange(&permit, &voice, request.answers, request.abilities);
        let ran = self.within(&permit, &mut journey, reader.read(&permit, &request.uri, &exchange)).await;
        let released = ran.and_then(|output| self.releaser.resource(&permit, output));
        self.settle(journey, released)
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
        let _place = match self.admission.admit(&caller.principal.id) {
            Ok(place) => place,
            Err(fault) => return self.refuse(journey, "rate-limit", &fault),
        };
        let Some(prompt) = house.catalogue.prompt(&request.name) else {
            return self.refuse(journey, "catalogue", &unknown("prompt", &request.name));
        };
        if let Err(fault) = check_prompt_arguments(prompt.spec(), &request.arguments.0) {
            return self.refuse(journey, "argument-schema", &fault);
        }
        let deadline = Instant::now() + self.admission.settings().deadline;
        let issued = house.policies.authorize_prompt(&caller.principal, &request.name, deadline, self.budget, request.trace);
        let permit = match issued {
            Ok(permit) => permit,
            Err(Refusal { rule }) => return self.refuse(journey, &rule, &unknown("prompt", &request.name)),
        };
        let exchange = self.exchange(&permit, &voice, request.answers, request.abilities);
        let ran = self.within(&permit, &mut journey, prompt.render(&permit, request.arguments, &exchange)).await;
        let released = ran.and_then(|output| self.releaser.prompt(&permit, output));
        self.settle(journey, released)
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
        let _place = match self.admission.admit(&caller.principal.id) {
            Ok(place) => place,
            Err(fault) => return self.refuse(journey, "rate-limit", &fault),
        };
        let Ok(kind) = completion_kind(&house.catalogue, reference, argument) else {
            return self.refuse(journey, "catalogue", &unknown(kind_word, name));
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
            Err(Refusal { rule }) => return self.refuse(journey, &rule, &unknown(kind_word, name)),
        };
        let ran = match (&kind, house.catalogue.completer()) {
            (None, _) | (_, None) => Ok(Vec::new()),
            (Some(CompletionKind::Fixed(values)), _) => {
                let fits = |v: &&Arc<str>| v.starts_with(prefix);
                Ok(values.iter().filter(fits).map(ToString::to_string).collect())
            }
            (Some(kind), Some(completer)) => self.within(&permit, &mut journey, completer.complete(&permit, kind, prefix)).await,
        };
        let released = ran.and_then(|values| self.releaser.values(&permit, values));
        self.settle(journey, released)
    }

    #[expect(clippy::needless_pass_by_value, reason = "the fault ends here; a caller has no further use for it")]
    /// Releases a fault of the face itself (malformed message, unknown session) and records it.
    pub fn refuse_request(&self, caller: &Caller, method: &'static str, rule: &str, fault: Fault) -> Released<ClientFault> {
        let journey = self.begin(caller, method, "", &TraceContext::default());
        match self.refuse::<()>(journey, rule, &fault) {
            Err(released) => released,
            // `refuse` never succeeds; were it to, say that something is wrong rather than nothing.
            Ok(_) => self.releaser.fault(&Fault::new(FaultCode::Internal, "refused")),
        }
    }

    /// Releases a fault for a request that never had a caller.
    pub fn release_fault(&self, fault: &Fault) -> Released<ClientFault> {
        self.releaser.fault(fault)
    }

    fn begin(&self, caller: &Caller, method: &'static str, target: &str, trace: &TraceContext) -> Journey {
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

    fn refuse<T>(&self, journey: Journey, rule: &str, fault: &Fault) -> Answer<T> {
        let recorded = journey.finish(|end| {
            end.rule = Arc::from(rule);
            end.code = Some(fault.code());
            end.note = fault.internal().map(str::to_owned);
        });
        if let Err(reason) = recorded {
            tracing::error!(%reason, "the audit record of a refusal could not be written");
        }
        Err(self.releaser.fault(fault))
    }

    fn settle<T>(&self, journey: Journey, released: Result<Released<T>, Fault>) -> Answer<T> {
        let recorded = journey.finish(|end| match &released {
            Ok(released) => {
                end.bytes_out = released.bytes();
                end.redactions = released.redactions().counts().collect();
            }
            Err(fault) => {
                end.code = Some(fault.code());
                end.note = fault.internal().map(str::to_owned);
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
        released.map_err(|fault| self.releaser.fault(&fault))
    }
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
