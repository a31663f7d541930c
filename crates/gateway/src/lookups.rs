//! The road of what is no tool call: reading a resource, getting a prompt, completing an argument. The same steps in the
//! same order as in [`gate`](crate::gate).

use std::sync::Arc;
use std::time::Instant;

use portcullis_model::{CompletionKind, Fault, PromptSpec, TraceContext};
use portcullis_policy::Refusal;
use portcullis_ports::{PromptOutput, ResourceOutput};
use serde_json::Value;

use crate::gate::{Answer, Gateway, Stop, unknown};
use crate::{Caller, Catalogue, GetPrompt, LookupRequest, Voice};

impl Gateway {
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
