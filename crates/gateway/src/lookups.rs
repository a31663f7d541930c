//! The road of what is no tool call: reading a resource, getting a prompt, completing an argument. The same steps in the
//! same order as in [`gate`](crate::gate), taken by the same code from the permit on.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use portcullis_guard::{ClientFault, Released, TextKind};
use portcullis_model::{CompletionKind, Fault, FaultCode, Principal, PromptSpec, RiskClass, TraceContext};
use portcullis_policy::{Action, Permit, Policies, Refusal};
use portcullis_ports::{Arguments, ClientAbilities, Exchange, PromptOutput, ResourceOutput, Watch};
use serde_json::{Map, Value};

use crate::definition::Definition;
use crate::gate::{Answer, Gateway, Stop, unknown};
use crate::profiles;
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
        let uri = clean(&house.catalogue, "uri", TextKind::Name, &uri)?.into_owned();
        let none = || unknown("resource", &uri);
        let reader = house.catalogue.reader(&uri).ok_or_else(|| Stop::refused("catalogue", none()))?;
        let decided = house.policies.decide_read(principal, &uri);
        if !decided.allowed {
            return Err(Stop::Refused(decided.rule, none()));
        }
        let habit = format!("resources/read:{}", house.catalogue.family(&uri));
        self.admission.admit_tool(&principal.id, &habit, RiskClass::Read).await?;
        let issued = house.policies.authorize_read(principal, &uri, self.deadline(), self.budget, trace);
        let permit = caller.confine(&issued.map_err(|Refusal { rule }| Stop::Refused(rule, none()))?);
        let nothing = Arguments::default();
        let deed = Deed {
            answers: answers.as_ref(),
            abilities,
            ..Deed::lookup(Action::Read, &uri, &habit, &nothing, Definition::Reader(&**reader))
        };
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
        let _place = Self::note_rate(caller, self.admission.admit(&principal.id, &principal.tenant).await)?;
        let uri = &*clean(&house.catalogue, "uri", TextKind::Name, uri)?;
        let none = || unknown("resource", uri);
        let reader = house.catalogue.reader(uri).ok_or_else(|| Stop::refused("catalogue", none()))?;
        let decided = house.policies.decide_read(principal, uri);
        if !decided.allowed {
            return Err(Stop::Refused(decided.rule, none()));
        }
        let habit = format!("resources/read:{}", house.catalogue.family(uri));
        self.admission.admit_tool(&principal.id, &habit, RiskClass::Read).await?;
        let issued = house.policies.authorize_read(principal, uri, self.deadline(), self.budget, TraceContext::default());
        let permit = caller.confine(&issued.map_err(|Refusal { rule }| Stop::Refused(rule, none()))?);
        let nothing = Arguments::default();
        let deed = Deed::lookup(Action::Read, uri, &habit, &nothing, Definition::Reader(&**reader));
        let Cleared { permit, approval, .. } = self.clear(permit, &deed, journey).await?;
        if !matches!(approval, Approval::Go { .. }) {
            let fault = Fault::new(FaultCode::Forbidden, "each reading of this resource needs approval, so it cannot be watched");
            return Err(Stop::refused("approval", fault));
        }
        self.within(&permit, journey, reader.watch(&permit, uri)).await.map_err(Stop::Failed)
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
        self.admission.admit_tool(&principal.id, &habit, RiskClass::Read).await?;
        check_prompt_arguments(prompt.spec(), &arguments.0).map_err(|fault| Stop::refused(ARGUMENTS, fault))?;
        let arguments = clean_prompt_arguments(&house.catalogue, prompt.spec(), arguments)?;
        check_prompt_arguments(prompt.spec(), &arguments.0).map_err(|fault| Stop::refused(ARGUMENTS, fault))?;
        let issued = house.policies.authorize_prompt(principal, &name, self.deadline(), self.budget, trace);
        let permit = caller.confine(&issued.map_err(|Refusal { rule }| Stop::Refused(rule, none()))?);
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
        self.admission.admit_tool(&principal.id, &habit, RiskClass::Read).await?;
        let issued = match reference {
            CompletionReference::Prompt(name) => policies.authorize_prompt(principal, name, self.deadline(), self.budget, trace),
            CompletionReference::Template(uri) => policies.authorize_family(principal, uri, self.deadline(), self.budget, trace),
        };
        let permit = caller.confine(&issued.map_err(|Refusal { rule }| Stop::Refused(rule, none()))?);
        let argument = &*clean(&house.catalogue, "argument", TextKind::Name, argument)?;
        let prefix = &*clean(&house.catalogue, "value", TextKind::FreeText, prefix)?;
        let mut asked = Map::new();
        asked.insert("argument".to_owned(), argument.into());
        asked.insert("value".to_owned(), prefix.into());
        let asked = Arguments(asked);
        let deed = Deed::lookup(Action::Complete, name, &habit, &asked, Definition::House);
        let Cleared { permit, approval, .. } = self.clear(permit, &deed, journey).await?;
        // Nobody is asked in the middle of typing: without abilities an approval is refused as pending.
        let Approval::Go { .. } = approval else {
            return Err(Stop::refused("approval", none()));
        };
        let ran = match (&kind, house.catalogue.completer()) {
            (Some(CompletionKind::Own), _) => {
                let silent: Arc<dyn Voice> = Arc::new(());
                let exchange = self.exchange(caller, &permit, &silent, None, ClientAbilities::default());
                let work = own_values(&house.catalogue, reference, &permit, (argument, prefix), &exchange);
                self.within(&permit, journey, work).await
            }
            (Some(CompletionKind::Fixed(values)), _) => {
                let fits = |v: &&Arc<str>| v.starts_with(prefix);
                let fitting = values.iter().filter(fits).map(ToString::to_string).collect();
                self.within(&permit, journey, async { Ok(fitting) }).await
            }
            (None, _) | (_, None) => self.within(&permit, journey, async { Ok(Vec::new()) }).await,
            (Some(kind), Some(completer)) => self.within(&permit, journey, completer.complete(&permit, kind, prefix)).await,
        };
        // What may not be read is not offered either.
        let ran = ran.map(|mut values| {
            if let CompletionReference::Template(template) = reference {
                values.retain(|value| may_read(policies, principal, template, argument, value));
            }
            values
        });
        if ran.is_ok() {
            self.learn(&permit, &deed);
        }
        ran.and_then(|values| self.releaser.values(&permit, values)).map_err(Stop::Failed)
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
    (argument, prefix): (&str, &str),
    exchange: &dyn Exchange,
) -> Result<Vec<String>, Fault> {
    match reference {
        CompletionReference::Prompt(name) => match catalogue.prompt(name) {
            Some(prompt) => prompt.complete(permit, argument, prefix, exchange).await,
            None => Ok(Vec::new()),
        },
        CompletionReference::Template(uri) => match catalogue.reader_of_template(uri) {
            Some(reader) => reader.complete(permit, uri, argument, prefix, exchange).await,
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

/// Whether the caller may read the member of a family that `value` makes of it, or where other variables stay open, one of
/// its members.
fn may_read(policies: &Policies, principal: &Principal, template: &str, argument: &str, value: &str) -> bool {
    let uri = expanded(template, argument, value);
    if uri.contains('{') {
        policies.decide_family(principal, &uri).allowed
    } else {
        policies.decide_read(principal, &uri).allowed
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
