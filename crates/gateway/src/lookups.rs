//! The road of what is no tool call: reading a resource, getting a prompt, completing an argument. The same steps in the
//! same order as in [`gate`](crate::gate), taken by the same code from the permit on.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use portcullis_guard::{ClientFault, Released, TextKind};
use portcullis_model::{CompletionKind, Fault, FaultCode, PromptSpec, RiskClass, TraceContext};
use portcullis_policy::{Action, Permit};
use portcullis_ports::{
    Arguments, Behind, ClientAbilities, Exchange, HOUSE, PromptOutput, Reading, ResourceOutput, ResourceReader, Suggestions,
    Typing, Watch,
};
use serde_json::{Map, Value, json};

use crate::cursors::Bound;
use crate::definition::Definition;
use crate::gate::{Answer, Gateway, House, Stop, unknown};
use crate::profiles;
use crate::reach::Function;
use crate::record::Journey;
use crate::steps::{Approval, Cleared, Deed, MayAsk};
use crate::{Caller, Catalogue, GetPrompt, LookupRequest, Voice, approvals};

/// An address somebody may read, and all that was found out about it.
struct Address<'h> {
    reader: &'h Arc<dyn ResourceReader>,
    /// The call it stands for.
    behind: Option<Behind>,
    habit: String,
    permit: Permit,
}

impl Gateway {
    /// Reads a resource.
    ///
    /// # Errors
    /// As [`Gateway::call`].
    pub async fn read(&self, caller: &Caller, request: LookupRequest, voice: Arc<dyn Voice>) -> Answer<ResourceOutput> {
        let mut journey = self.begin(caller, "resources/read", &request.uri, &request.trace);
        let walked = self.walk_read(caller, request, &voice, &mut journey).await;
        self.or_given_up(caller, walked, |walked| self.end(caller, journey, walked))
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
        let _place = Self::note_admitted(caller, journey, self.admission.admit(&principal.id, &principal.tenant).await)?;
        let uri = clean(&house.catalogue, "uri", TextKind::Name, &uri)?.into_owned();
        let Address { reader, behind, habit, permit } = self.address(&house, caller, &uri, trace).await?;
        let nothing = Arguments::default();
        let deed = Deed {
            answers: answers.as_ref(),
            abilities,
            ..Deed::lookup(Action::Read, &uri, &habit, &nothing, Definition::Reader(&**reader))
        };
        self.ask_outside_behind(&house, caller, behind.as_ref(), &permit).await?;
        let Cleared { permit, approval, .. } = self.clear(permit, &deed, journey).await?;
        let ran = match approval {
            Approval::Ask { requests, state } => Ok(ResourceOutput::asking(requests, Some(state))),
            Approval::Go { answers, binding } => {
                let cursors = self.cursors_behind(&house, caller, behind.as_ref());
                let exchange = self.exchange(caller, &permit, voice, answers, abilities).sealing(cursors);
                let read = self.within(&permit, journey, reader.read(&permit, &uri, &exchange)).await;
                read.map(|output| self.did(&permit, &deed, output, binding.as_deref()))
            }
        };
        let output = ran.map_err(Stop::Failed)?;
        self.released(caller, output, |output| self.releaser.resource(&permit, output))
    }

    /// Begins to watch a resource, for a caller who may read it and as if it read it. Its changes are among
    /// [`Gateway::updates`] for as long as what is returned is held.
    ///
    /// # Errors
    /// As [`Gateway::call`].
    pub async fn watch(&self, caller: &Caller, uri: &str) -> Result<Watch, Released<ClientFault>> {
        let mut journey = self.begin(caller, "resources/subscribe", uri, &TraceContext::default());
        let walked = self.walk_watch(caller, uri, &mut journey).await;
        // Nothing of the resource goes out with it.
        let walked = walked.map(|watch| self.releaser.listing(vec![watch]));
        self.end(caller, journey, walked).map(|watches| watches.into_inner().pop().unwrap_or_default())
    }

    async fn walk_watch(&self, caller: &Caller, uri: &str, journey: &mut Journey) -> Result<Watch, Stop> {
        let principal = &caller.principal;
        let house = self.house.load_full();
        let _place = Self::note_admitted(caller, journey, self.admission.admit(&principal.id, &principal.tenant).await)?;
        let uri = &*clean(&house.catalogue, "uri", TextKind::Name, uri)?;
        let Address { reader, behind, habit, permit } = self.address(&house, caller, uri, TraceContext::default()).await?;
        let nothing = Arguments::default();
        let deed = Deed::lookup(Action::Read, uri, &habit, &nothing, Definition::Reader(&**reader));
        self.ask_outside_behind(&house, caller, behind.as_ref(), &permit).await?;
        let Cleared { permit, approval, .. } = self.clear(permit, &deed, journey).await?;
        if !matches!(approval, Approval::Go { .. }) {
            let fault = Fault::new(FaultCode::Forbidden, "each reading of this resource needs approval, so it cannot be watched");
            return Err(Stop::refused("approval", fault));
        }
        self.within(&permit, journey, reader.watch(&permit, uri)).await.map_err(Stop::Failed)
    }

    /// Finds whoever reads an address for this caller, admits it and authorizes it. Where it stands for a call of a tool it
    /// counts as one of that tool too, and its permit is within that of the call.
    async fn address<'h>(&self, house: &'h House, caller: &Caller, uri: &str, trace: TraceContext) -> Result<Address<'h>, Stop> {
        let (none, principal) = (|| unknown("resource", uri), &caller.principal);
        let reader = house.reader_of(uri)?;
        let function = Function::Resource(&**reader, uri);
        house.may_use(caller, function).map_err(|closed| closed.stop(none()))?;
        let habit = format!("resources/read:{}", house.catalogue.family(uri));
        self.admission.admit_tool(&principal.id, &habit, RiskClass::Read).await?;
        let behind = reader.behind(uri);
        if let Some(Behind::Call(reading)) = &behind {
            self.count_behind(house, caller, reading).await?;
        }
        let permit =
            self.permit_lookup(house, caller, (function, behind.as_ref()), trace).map_err(|rule| Stop::Refused(rule, none()))?;
        Ok(Address { reader, behind, habit, permit })
    }

    /// What shows a page of a tool goes on with a call of it.
    fn cursors_behind(&self, house: &House, caller: &Caller, behind: Option<&Behind>) -> Option<Bound> {
        let Some(Behind::Call(reading)) = behind else { return None };
        self.cursors_of(caller, &*house.catalogue.tool(&reading.tool)?.tool, &reading.arguments)
    }

    /// Counts what stands for a call as one of that tool, which was found for this caller already.
    async fn count_behind(&self, house: &House, caller: &Caller, reading: &Reading) -> Result<(), Stop> {
        let risk = house.catalogue.tool(&reading.tool).map_or(RiskClass::Read, |entry| entry.tool.spec().risk);
        Ok(self.admission.admit_tool(&caller.principal.id, &reading.tool, risk).await?)
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
        self.or_given_up(caller, walked, |walked| self.end(caller, journey, walked))
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
        let _place = Self::note_admitted(caller, journey, self.admission.admit(&principal.id, &principal.tenant).await)?;
        let none = || unknown("prompt", &name);
        let prompt = house.catalogue.prompt(&name).ok_or_else(|| Stop::refused("catalogue", none()))?;
        let function = Function::Prompt(&**prompt);
        house.may_use(caller, function).map_err(|closed| closed.stop(none()))?;
        let habit = format!("prompts/get:{name}");
        self.admission.admit_tool(&principal.id, &habit, RiskClass::Read).await?;
        check_prompt_arguments(prompt.spec(), &arguments.0).map_err(|fault| Stop::refused(ARGUMENTS, fault))?;
        let arguments = clean_prompt_arguments(&house.catalogue, prompt.spec(), arguments)?;
        check_prompt_arguments(prompt.spec(), &arguments.0).map_err(|fault| Stop::refused(ARGUMENTS, fault))?;
        let permit = self.permit_lookup(&house, caller, (function, None), trace).map_err(|rule| Stop::Refused(rule, none()))?;
        let deed = Deed {
            answers: answers.as_ref(),
            abilities,
            ..Deed::lookup(Action::Prompt, &name, &habit, &arguments, Definition::Prompt(&**prompt))
        };
        let Cleared { permit, approval, .. } = self.clear(permit, &deed, journey).await?;
        let ran = match approval {
            Approval::Ask { requests, state } => Ok(PromptOutput::asking(requests, Some(state))),
            Approval::Go { answers, binding } => {
                let exchange = self.exchange(caller, &permit, voice, answers, abilities);
                let rendered = self.within(&permit, journey, prompt.render(&permit, arguments.clone(), &exchange)).await;
                rendered.map(|output| self.did(&permit, &deed, output, binding.as_deref()))
            }
        };
        let output = ran.map_err(Stop::Failed)?;
        let own = prompt.origin() == HOUSE;
        self.released(caller, output, |output| {
            if own { self.releaser.prompt(&permit, output) } else { self.releaser.foreign_prompt(&permit, output) }
        })
    }

    /// Completes an argument of a prompt or a variable of a resource template: `typed` is its name and what of its value is
    /// there, `context` what was chosen for others before.
    ///
    /// # Errors
    /// As [`Gateway::call`].
    pub async fn complete(
        &self,
        caller: &Caller,
        reference: CompletionReference<'_>,
        typed: (&str, &str),
        context: Arguments,
    ) -> Answer<Suggestions> {
        let mut journey = self.begin(caller, "completion/complete", reference.name(), &TraceContext::default());
        if !context.0.is_empty() {
            // What was chosen travels on, so it is recorded as it came, like the arguments of a call.
            let asked = json!({"argument": typed.0, "value": typed.1, "context": context.0});
            journey.note(|end| end.arguments = Some(asked));
        }
        let walked = self.walk_completion(caller, reference, typed, context, &mut journey).await;
        self.end(caller, journey, walked)
    }

    async fn walk_completion(
        &self,
        caller: &Caller,
        reference: CompletionReference<'_>,
        (argument, prefix): (&str, &str),
        context: Arguments,
        journey: &mut Journey,
    ) -> Result<Released<Suggestions>, Stop> {
        let (principal, name) = (&caller.principal, reference.name());
        let house = self.house.load_full();
        let _place = Self::note_admitted(caller, journey, self.admission.admit(&principal.id, &principal.tenant).await)?;
        let none = || unknown(reference.kind(), name);
        let Ok(kind) = completion_kind(&house.catalogue, reference, argument) else {
            return Err(Stop::refused("catalogue", none()));
        };
        let function = match reference {
            CompletionReference::Prompt(name) => house.catalogue.prompt(name).map(|prompt| Function::Prompt(&**prompt)),
            CompletionReference::Template(uri) => {
                house.catalogue.reader_of_template(uri).map(|reader| Function::Family(&**reader, uri))
            }
        };
        let function = function.ok_or_else(|| Stop::refused("catalogue", none()))?;
        house.may_use(caller, function).map_err(|closed| closed.stop(none()))?;
        // Values are what a tool lists: who may not call that does not see them here.
        let behind = kind.as_ref().and_then(|kind| house.catalogue.completer()?.behind(kind));
        house.may_show(caller, behind.as_ref()).map_err(|closed| closed.stop(none()))?;
        let habit = format!("completion/complete:{name}");
        self.admission.admit_tool(&principal.id, &habit, RiskClass::Read).await?;
        if let Some(Behind::Call(reading)) = &behind {
            self.count_behind(&house, caller, reading).await?;
        }
        let permit = self.permit_lookup(&house, caller, (function, behind.as_ref()), TraceContext::default());
        let permit = permit.map_err(|rule| Stop::Refused(rule, none()))?;
        let argument = &*clean(&house.catalogue, "argument", TextKind::Name, argument)?;
        let prefix = &*clean(&house.catalogue, "value", TextKind::FreeText, prefix)?;
        let context = clean_context(&house.catalogue, reference, context)?;
        let mut asked = Map::new();
        asked.insert("argument".to_owned(), argument.into());
        asked.insert("value".to_owned(), prefix.into());
        if !context.is_empty() {
            asked.insert("context".to_owned(), Value::Object(context.clone()));
        }
        let asked = Arguments(asked);
        let deed = Deed::lookup(Action::Complete, name, &habit, &asked, Definition::House);
        self.ask_outside_behind(&house, caller, behind.as_ref(), &permit).await?;
        let Cleared { permit, approval, .. } = self.clear(permit, &deed, journey).await?;
        // Nobody is asked in the middle of typing: without abilities an approval is refused as pending.
        let Approval::Go { .. } = approval else {
            return Err(Stop::refused("approval", none()));
        };
        let typing = Typing { argument, prefix, context: &context };
        let ran = match (&kind, house.catalogue.completer()) {
            (Some(CompletionKind::Own), _) => {
                let silent: Arc<dyn Voice> = Arc::new(());
                let exchange = self.exchange(caller, &permit, &silent, None, ClientAbilities::default());
                let work = own_values(&house.catalogue, reference, &permit, &typing, &exchange);
                self.within(&permit, journey, work).await
            }
            (Some(CompletionKind::Fixed(values)), _) => {
                let fits = |v: &&Arc<str>| v.starts_with(prefix);
                let fitting: Vec<String> = values.iter().filter(fits).map(ToString::to_string).collect();
                self.within(&permit, journey, async { Ok(fitting.into()) }).await
            }
            (None, _) | (_, None) => self.within(&permit, journey, async { Ok(Vec::new().into()) }).await,
            (Some(kind), Some(completer)) => {
                let completed = self.within(&permit, journey, completer.complete(&permit, kind, prefix)).await;
                completed.map(Suggestions::from)
            }
        };
        // What may not be read is not offered either.
        let ran = ran.map(|mut suggestions| {
            if let Function::Family(reader, template) = function {
                let before = suggestions.values.len();
                suggestions.values.retain(|value| may_read(&house, caller, (reader, template), &context, (argument, value)));
                if suggestions.values.len() < before {
                    // How many others there are would say something about those.
                    suggestions.total = suggestions.total.and(u32::try_from(suggestions.values.len()).ok());
                }
            }
            suggestions
        });
        if ran.is_ok() {
            self.learn(&permit, &deed);
        }
        ran.and_then(|suggestions| self.releaser.suggestions(&permit, suggestions)).map_err(Stop::Failed)
    }

    /// Learns from a lookup that was answered; an approval travels on with what is still to be asked.
    fn did<T: MayAsk>(&self, permit: &Permit, deed: &Deed<'_>, output: T, binding: Option<&str>) -> T {
        self.learn(permit, deed);
        match binding {
            Some(binding) => approvals::carried(binding, output),
            None => output,
        }
    }

    /// Learns from a lookup, with the sources that were asked for it.
    fn learn(&self, permit: &Permit, deed: &Deed<'_>) {
        let asked = profiles::asked(permit);
        let touched = asked.iter().map(|source| &**source);
        self.profiles.learn(permit.principal_id(), deed.habit, &deed.arguments.0, touched);
    }

    /// When what begins now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.admission.settings().deadline
    }
}

impl House {
    /// Whether the caller may complete this argument, by the question completing it asks.
    pub(crate) fn may_complete(&self, caller: &Caller, reference: CompletionReference<'_>, argument: &str) -> bool {
        let Ok(kind) = completion_kind(&self.catalogue, reference, argument) else { return false };
        let behind = kind.as_ref().and_then(|kind| self.catalogue.completer()?.behind(kind));
        let function = match reference {
            CompletionReference::Prompt(name) => self.catalogue.prompt(name).map(|prompt| Function::Prompt(&**prompt)),
            CompletionReference::Template(uri) => {
                self.catalogue.reader_of_template(uri).map(|reader| Function::Family(&**reader, uri))
            }
        };
        function.is_some_and(|function| self.may_use(caller, function).is_ok()) && self.may_show(caller, behind.as_ref()).is_ok()
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
    typing: &Typing<'_>,
    exchange: &dyn Exchange,
) -> Result<Suggestions, Fault> {
    match reference {
        CompletionReference::Prompt(name) => match catalogue.prompt(name) {
            Some(prompt) => prompt.complete(permit, typing, exchange).await,
            None => Ok(Suggestions::default()),
        },
        CompletionReference::Template(uri) => match catalogue.reader_of_template(uri) {
            Some(reader) => reader.complete(permit, uri, typing, exchange).await,
            None => Ok(Suggestions::default()),
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

/// The rule that refuses what a caller wrote.
const ARGUMENTS: &str = "argument-schema";

/// A text of a caller by the rules of its kind, stripped where they say so.
fn clean<'t>(catalogue: &Catalogue, name: &str, kind: TextKind, text: &'t str) -> Result<Cow<'t, str>, Stop> {
    catalogue.sanitizer().check(kind, text).map_err(|fault| {
        let named = Fault::invalid(format!("{name}: {}", fault.message()));
        Stop::refused(ARGUMENTS, fault.hint().into_iter().fold(named, Fault::with_hint))
    })
}

/// The arguments of a prompt by the same rules: names of things are names, everything else is free text. What is empty when
/// it was stripped is not there.
fn clean_prompt_arguments(catalogue: &Catalogue, spec: &PromptSpec, arguments: Arguments) -> Result<Arguments, Stop> {
    let mut cleaned = Map::new();
    for (name, value) in arguments.0 {
        let Some(text) = value.as_str() else { continue };
        let completion = spec.arguments.iter().find(|a| *a.name == *name).and_then(|a| a.completion.as_ref());
        let kind = match completion {
            Some(CompletionKind::Service | CompletionKind::Source | CompletionKind::Metric) => TextKind::Name,
            _ => TextKind::FreeText,
        };
        let kept = clean(catalogue, &name, kind, text)?;
        if kept.is_empty() && !text.is_empty() {
            continue;
        }
        let kept = Value::String(kept.into_owned());
        cleaned.insert(name, kept);
    }
    Ok(Arguments(cleaned))
}

/// What was chosen for other arguments before, by the rules for text. A name that is none is refused.
fn clean_context(
    catalogue: &Catalogue,
    reference: CompletionReference<'_>,
    context: Arguments,
) -> Result<Map<String, Value>, Stop> {
    let refused = |fault| Stop::refused(ARGUMENTS, fault);
    match reference {
        CompletionReference::Prompt(name) => {
            let prompt = catalogue.prompt(name).ok_or_else(|| refused(unknown("prompt", name)))?;
            check_known_arguments(prompt.spec(), &context.0).map_err(refused)?;
            clean_prompt_arguments(catalogue, prompt.spec(), context).map(|cleaned| cleaned.0)
        }
        CompletionReference::Template(uri) => {
            let variables = variables_of(uri);
            let mut cleaned = Map::new();
            for (name, value) in context.0 {
                if !variables.contains(&name.as_str()) {
                    let known = variables.join(", ");
                    let fault = Fault::invalid("the context names a variable that this template does not have");
                    return Err(refused(fault.with_hint(format!("variables are: {known}"))));
                }
                let Some(text) = value.as_str().filter(|text| text.len() <= LONGEST) else {
                    return Err(refused(Fault::invalid(format!("variable '{name}' must be text of at most {LONGEST} bytes"))));
                };
                let kept = Value::String(clean(catalogue, &name, TextKind::FreeText, text)?.into_owned());
                cleaned.insert(name, kept);
            }
            Ok(cleaned)
        }
    }
}

/// The variables of a URI template (RFC 6570).
fn variables_of(template: &str) -> Vec<&str> {
    let inside = template.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(inside, _)| inside);
    let names = inside.flat_map(|inside| inside.trim_start_matches(['+', '#', '.', '/', ';', '?', '&']).split(','));
    names.map(|name| name.trim_end_matches('*').split(':').next().unwrap_or_default()).filter(|name| !name.is_empty()).collect()
}

/// Whether the caller may read the member of a family that `value` makes of it beside what was chosen before, or where other
/// variables stay open, one of its members.
fn may_read(
    house: &House,
    caller: &Caller,
    (reader, template): (&dyn ResourceReader, &str),
    context: &Map<String, Value>,
    (argument, value): (&str, &str),
) -> bool {
    let mut uri = expanded(template, argument, value);
    for (name, chosen) in context.iter().filter(|(name, _)| *name != argument) {
        if let Some(chosen) = chosen.as_str() {
            uri = expanded(&uri, name, chosen);
        }
    }
    if uri.contains('{') {
        // With other variables open it is a family of its own, which shows what the whole family shows.
        let shows = reader.behind(template);
        house.may_look_up(caller, Function::Family(reader, &uri), |scope| reader.serves(scope)).is_ok()
            && house.may_show(caller, shows.as_ref()).is_ok()
    } else {
        house.may_use(caller, Function::Resource(reader, &uri)).is_ok()
    }
}

/// A URI template with one variable given (RFC 6570, level 1 and `+`).
fn expanded(template: &str, argument: &str, value: &str) -> String {
    let mut uri = String::with_capacity(template.len() + value.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        uri.push_str(before);
        let (inside, after) = after.split_once('}').unwrap_or((after, ""));
        if inside == argument {
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    uri.push(char::from(byte));
                } else {
                    // Writing to a string cannot fail.
                    let _ = write!(uri, "%{byte:02X}");
                }
            }
        } else if inside.strip_prefix('+') == Some(argument) {
            uri.push_str(value);
        } else {
            uri.push('{');
            uri.push_str(inside);
            uri.push('}');
        }
        rest = after;
    }
    uri.push_str(rest);
    uri
}

/// Longest value of an argument of a prompt, or of a variable, in bytes.
const LONGEST: usize = 4_096;

/// Arguments of a prompt that are there: known by name, and texts.
fn check_known_arguments(spec: &PromptSpec, arguments: &Map<String, Value>) -> Result<(), Fault> {
    let names = || spec.arguments.iter().map(|a| &*a.name).collect::<Vec<_>>().join(", ");
    for (name, value) in arguments {
        if !spec.arguments.iter().any(|a| &*a.name == name) {
            return Err(Fault::invalid(format!("prompt '{}' has no argument '{name}'", spec.name))
                .with_hint(format!("arguments are: {}", names())));
        }
        if value.as_str().is_none_or(|text| text.len() > LONGEST) {
            return Err(Fault::invalid(format!("argument '{name}' must be text of at most {LONGEST} bytes")));
        }
    }
    Ok(())
}

fn check_prompt_arguments(spec: &PromptSpec, arguments: &Map<String, Value>) -> Result<(), Fault> {
    check_known_arguments(spec, arguments)?;
    let names = || spec.arguments.iter().map(|a| &*a.name).collect::<Vec<_>>().join(", ");
    match spec.arguments.iter().find(|a| a.required && !arguments.contains_key(&*a.name)) {
        Some(missing) => {
            Err(Fault::invalid(format!("argument '{}' is required", missing.name))
                .with_hint(format!("arguments are: {}", names())))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_guard::{SanitizeMode, SanitizeSettings, Sanitizer, TextRule};
    use portcullis_model::PromptArgument;
    use serde_json::json;

    use super::*;

    #[test]
    fn stripped_arguments_of_a_prompt_are_clean_and_an_empty_one_is_not_there() {
        let strip = || TextRule { mode: SanitizeMode::Strip, ..TextRule::default() };
        let settings = SanitizeSettings { free_text: strip(), name: strip(), ..SanitizeSettings::default() };
        let catalogue = crate::CatalogueBuilder::new().sanitizer(Sanitizer::new(settings).unwrap()).build();
        let argument =
            |name: &str, completion| PromptArgument { name: name.into(), description: "d".into(), required: true, completion };
        let spec = PromptSpec {
            name: "triage".into(),
            title: "t".into(),
            description: "d".into(),
            arguments: vec![argument("service", Some(CompletionKind::Service)), argument("symptom", None)],
            shown: None,
        };
        let cleaned = |given: Value| {
            let Value::Object(given) = given else { panic!("arguments are an object") };
            clean_prompt_arguments(&catalogue, &spec, Arguments(given)).ok().map(|arguments| Value::Object(arguments.0)).unwrap()
        };
        let given = json!({"service": "ca\u{200b}rt\n", "symptom": "slow\nsince\u{7} noon"});
        assert_eq!(cleaned(given), json!({"service": "cart", "symptom": "slow\nsince noon"}));
        assert_eq!(cleaned(json!({"service": "\u{200b}", "symptom": ""})), json!({"symptom": ""}));
    }

    #[test]
    fn one_variable_of_a_template_is_given() {
        for (template, value, uri) in [
            ("shop://services/{name}", "cart", "shop://services/cart"),
            ("shop://services/{name}", "a b/ü{", "shop://services/a%20b%2F%C3%BC%7B"),
            ("shop://{shop}/services/{name}", "cart", "shop://{shop}/services/cart"),
            ("file:///{+name}", "a/b", "file:///a/b"),
            ("shop://{broken", "cart", "shop://{broken}"),
        ] {
            assert_eq!(expanded(template, "name", value), uri);
        }
    }
}
