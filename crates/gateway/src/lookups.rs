//! The road of what is no tool call: reading a resource, getting a prompt, completing an argument. The same steps in the
//! same order as in [`gate`](crate::gate), taken by the same code from the permit on.

use std::sync::Arc;
use std::time::Instant;

use portcullis_guard::Released;
use portcullis_model::{CompletionKind, Fault, PromptSpec, RiskClass, TraceContext};
use portcullis_policy::{Action, Permit, Refusal};
use portcullis_ports::{Arguments, PromptOutput, ResourceOutput};
use serde_json::{Map, Value};

use crate::gate::{Answer, Gateway, Stop, unknown};
use crate::record::Journey;
use crate::steps::{Approval, Cleared, Deed, MayAsk};
use crate::{Caller, Catalogue, GetPrompt, LookupRequest, Voice, approvals};

impl Gateway {
    /// Reads a resource.
    ///
    /// # Errors
    /// As [`Gateway::call`].
    pub async fn read(&self, caller: &Caller, request: LookupRequest, voice: Arc<dyn Voice>) -> Answer<ResourceOutput> {
        let mut journey = self.begin(caller, "resources/read", &request.uri, &request.trace);
        let walked = self.walk_read(caller, request, &voice, &mut journey).await;
        self.end(caller, journey, walked)
    }

    async fn walk_read(
        &self,
        caller: &Caller,
        request: LookupRequest,
        voice: &Arc<dyn Voice>,
        journey: &mut Journey,
    ) -> Result<Released<ResourceOutput>, Stop> {
        let LookupRequest { uri, trace, answers, abilities } = request;
        let principal = &caller.principal;
        let house = self.house.load_full();
        let _place = Self::note_rate(caller, self.admission.admit(&principal.id, &principal.tenant).await)?;
        let none = || unknown("resource", &uri);
        let reader = house.catalogue.reader(&uri).ok_or_else(|| Stop::refused("catalogue", none()))?;
        let decided = house.policies.decide_read(principal, &uri);
        if !decided.allowed {
            return Err(Stop::Refused(decided.rule, none()));
        }
        let habit = format!("resources/read:{}", house.catalogue.family(&uri));
        self.admission.admit_tool(&principal.id, &habit, RiskClass::Read)?;
        let issued = house.policies.authorize_read(principal, &uri, self.deadline(), self.budget, trace);
        let permit = caller.confine(issued.map_err(|Refusal { rule }| Stop::Refused(rule, none()))?);
        let nothing = Arguments::default();
        let deed = Deed { answers: answers.as_ref(), abilities, ..Deed::lookup(Action::Read, &uri, &habit, &nothing) };
        let Cleared { permit, approval, .. } = self.clear(permit, &deed, journey).await?;
        let ran = match approval {
            Approval::Ask { requests, state } => Ok(ResourceOutput::asking(requests, Some(state))),
            Approval::Go { answers, binding } => {
                let exchange = self.exchange(caller, &permit, voice, answers, abilities);
                let read = self.within(&permit, journey, reader.read(&permit, &uri, &exchange)).await;
                read.map(|output| self.did(&permit, &deed, output, binding.as_deref()))
            }
        };
        ran.and_then(|output| self.releaser.resource(&permit, output)).map_err(Stop::Failed)
    }

    /// Renders a prompt.
    ///
    /// # Errors
    /// As [`Gateway::call`].
    pub async fn prompt(&self, caller: &Caller, request: GetPrompt, voice: Arc<dyn Voice>) -> Answer<PromptOutput> {
        let mut journey = self.begin(caller, "prompts/get", &request.name, &request.trace);
        let arguments = Value::Object(request.arguments.0.clone());
        journey.note(|end| end.arguments = Some(arguments));
        let walked = self.walk_prompt(caller, request, &voice, &mut journey).await;
        self.end(caller, journey, walked)
    }

    async fn walk_prompt(
        &self,
        caller: &Caller,
        request: GetPrompt,
        voice: &Arc<dyn Voice>,
        journey: &mut Journey,
    ) -> Result<Released<PromptOutput>, Stop> {
        let GetPrompt { name, arguments, trace, answers, abilities } = request;
        let principal = &caller.principal;
        let house = self.house.load_full();
        let _place = Self::note_rate(caller, self.admission.admit(&principal.id, &principal.tenant).await)?;
        let none = || unknown("prompt", &name);
        let prompt = house.catalogue.prompt(&name).ok_or_else(|| Stop::refused("catalogue", none()))?;
        let decided = house.policies.decide_prompt(principal, &name);
        if !decided.allowed {
            return Err(Stop::Refused(decided.rule, none()));
        }
        let habit = format!("prompts/get:{name}");
        self.admission.admit_tool(&principal.id, &habit, RiskClass::Read)?;
        check_prompt_arguments(prompt.spec(), &arguments.0).map_err(|fault| Stop::refused("argument-schema", fault))?;
        let issued = house.policies.authorize_prompt(principal, &name, self.deadline(), self.budget, trace);
        let permit = caller.confine(issued.map_err(|Refusal { rule }| Stop::Refused(rule, none()))?);
        let deed = Deed { answers: answers.as_ref(), abilities, ..Deed::lookup(Action::Prompt, &name, &habit, &arguments) };
        let Cleared { permit, approval, .. } = self.clear(permit, &deed, journey).await?;
        let ran = match approval {
            Approval::Ask { requests, state } => Ok(PromptOutput::asking(requests, Some(state))),
            Approval::Go { answers, binding } => {
                let exchange = self.exchange(caller, &permit, voice, answers, abilities);
                let rendered = self.within(&permit, journey, prompt.render(&permit, arguments.clone(), &exchange)).await;
                rendered.map(|output| self.did(&permit, &deed, output, binding.as_deref()))
            }
        };
        ran.and_then(|output| self.releaser.prompt(&permit, output)).map_err(Stop::Failed)
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
        let mut journey = self.begin(caller, "completion/complete", reference.name(), &TraceContext::default());
        let walked = self.walk_completion(caller, reference, argument, prefix, &mut journey).await;
        self.end(caller, journey, walked)
    }

    async fn walk_completion(
        &self,
        caller: &Caller,
        reference: CompletionReference<'_>,
        argument: &str,
        prefix: &str,
        journey: &mut Journey,
    ) -> Result<Released<Vec<String>>, Stop> {
        let (principal, name) = (&caller.principal, reference.name());
        let house = self.house.load_full();
        let _place = Self::note_rate(caller, self.admission.admit(&principal.id, &principal.tenant).await)?;
        let none = || unknown(reference.kind(), name);
        let Ok(kind) = completion_kind(&house.catalogue, reference, argument) else {
            return Err(Stop::refused("catalogue", none()));
        };
        let (policies, trace) = (&house.policies, TraceContext::default());
        let decided = match reference {
            CompletionReference::Prompt(name) => policies.decide_prompt(principal, name),
            CompletionReference::Template(uri) => policies.decide_family(principal, uri),
        };
        if !decided.allowed {
            return Err(Stop::Refused(decided.rule, none()));
        }
        let habit = format!("completion/complete:{name}");
        self.admission.admit_tool(&principal.id, &habit, RiskClass::Read)?;
        let issued = match reference {
            CompletionReference::Prompt(name) => policies.authorize_prompt(principal, name, self.deadline(), self.budget, trace),
            CompletionReference::Template(uri) => policies.authorize_family(principal, uri, self.deadline(), self.budget, trace),
        };
        let permit = caller.confine(issued.map_err(|Refusal { rule }| Stop::Refused(rule, none()))?);
        let mut asked = Map::new();
        asked.insert("argument".to_owned(), argument.into());
        asked.insert("value".to_owned(), prefix.into());
        let asked = Arguments(asked);
        let deed = Deed::lookup(Action::Complete, name, &habit, &asked);
        let Cleared { permit, approval, .. } = self.clear(permit, &deed, journey).await?;
        // Nobody is asked in the middle of typing: without abilities an approval is refused as pending.
        let Approval::Go { .. } = approval else {
            return Err(Stop::refused("approval", none()));
        };
        let ran = match (&kind, house.catalogue.completer()) {
            (Some(CompletionKind::Own), _) => {
                let work = own_values(&house.catalogue, reference, &permit, argument, prefix);
                self.within(&permit, journey, work).await
            }
            (None, _) | (_, None) => self.within(&permit, journey, async { Ok(Vec::new()) }).await,
            (Some(CompletionKind::Fixed(values)), _) => {
                let fits = |v: &&Arc<str>| v.starts_with(prefix);
                let fitting = values.iter().filter(fits).map(ToString::to_string).collect();
                self.within(&permit, journey, async { Ok(fitting) }).await
            }
            (Some(kind), Some(completer)) => self.within(&permit, journey, completer.complete(&permit, kind, prefix)).await,
        };
        if ran.is_ok() {
            self.profiles.learn(permit.principal_id(), deed.habit, &deed.arguments.0, std::iter::empty());
        }
        ran.and_then(|values| self.releaser.values(&permit, values)).map_err(Stop::Failed)
    }

    /// Learns from a lookup that was answered; an approval travels on with what is still to be asked.
    fn did<T: MayAsk>(&self, permit: &Permit, deed: &Deed<'_>, output: T, binding: Option<&str>) -> T {
        self.profiles.learn(permit.principal_id(), deed.habit, &deed.arguments.0, std::iter::empty());
        match binding {
            Some(binding) => approvals::carried(binding, output),
            None => output,
        }
    }

    /// When what begins now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.admission.settings().deadline
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

impl CompletionReference<'_> {
    fn name(&self) -> &str {
        let (Self::Prompt(name) | Self::Template(name)) = self;
        name
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Prompt(_) => "prompt",
            Self::Template(_) => "resource",
        }
    }
}

/// Asks whoever offers the prompt or the template.
async fn own_values(
    catalogue: &Catalogue,
    reference: CompletionReference<'_>,
    permit: &Permit,
    argument: &str,
    prefix: &str,
) -> Result<Vec<String>, Fault> {
    match reference {
        CompletionReference::Prompt(name) => match catalogue.prompt(name) {
            Some(prompt) => prompt.complete(permit, argument, prefix).await,
            None => Ok(Vec::new()),
        },
        CompletionReference::Template(uri) => match catalogue.reader_of_template(uri) {
            Some(reader) => reader.complete(permit, uri, argument, prefix).await,
            None => Ok(Vec::new()),
        },
    }
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
