//! May this caller use this here? The one question listings and calls ask, about tools, resources, families of them, prompts
//! and completions alike: by the rules, through the product it came through, as its tenant, within what it is confined to.
//!
//! Guards that nothing is shown that is always refused, that what is refused for who somebody is looks as if it did not
//! exist, and that what a tool shows is not seen by another way than the tool's own rules. Must not run anything.

use std::sync::Arc;
use std::time::Instant;

use portcullis_model::{Fault, FaultCode, Principal, Scope, TraceContext};
use portcullis_policy::{ADDRESS_FORM, Asked, Budget, Lookup, LookupKind, Permit, Reach, Refusal, Wanted, usual_address};
use portcullis_ports::{Arguments, Behind, HOUSE, Prompt, Reading, ResourceReader};
use serde_json::Value;

use crate::Caller;
use crate::catalogue::ToolEntry;
use crate::gate::{Gateway, House, Stop, not_like_this};
use crate::steps::Deed;

/// The rule name when whoever offers something does not serve the tenant, the sources or the confinement of a caller.
pub(crate) const NOT_SERVED: &str = "not-served";
/// The rule name when the tool behind something is not there.
const NO_TOOL: &str = "tool-behind";

/// What somebody may want to use.
#[derive(Clone, Copy)]
pub(crate) enum Function<'a> {
    /// A tool, with some arguments.
    Tool(&'a ToolEntry),
    /// A resource.
    Resource(&'a dyn ResourceReader, &'a str),
    /// Some member of a family of resources.
    Family(&'a dyn ResourceReader, &'a str),
    /// A prompt.
    Prompt(&'a dyn Prompt),
}

/// Why something is not there for a caller. Only the record says so.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) rule: Arc<str>,
    why: Option<String>,
}

impl Closed {
    fn by(rule: &str) -> Self {
        Self { rule: Arc::from(rule), why: None }
    }

    fn because(rule: &str, why: impl Into<String>) -> Self {
        Self { rule: Arc::from(rule), why: Some(why.into()) }
    }

    /// The refusal with what the caller is told.
    pub(crate) fn stop(self, told: Fault) -> Stop {
        let told = match self.why {
            Some(why) => told.with_internal(why),
            None => told,
        };
        Stop::Refused(self.rule, told)
    }
}

/// What rules and products see of something that is looked up.
pub(crate) struct Looked<'a> {
    kind: LookupKind,
    name: &'a str,
    own: bool,
    tools: Vec<String>,
}

impl<'a> Looked<'a> {
    pub(crate) fn new(function: Function<'a>) -> Option<Self> {
        let of_reader = |kind, reader: &dyn ResourceReader, name: &'a str| {
            let tools = reader.behind(name).iter().map(|behind| behind.tool().to_owned()).collect();
            Self { kind, name, own: reader.origin() == HOUSE, tools }
        };
        match function {
            Function::Tool(_) => None,
            Function::Resource(reader, uri) => Some(of_reader(LookupKind::Resource, reader, uri)),
            Function::Family(reader, template) => Some(of_reader(LookupKind::Family, reader, template)),
            Function::Prompt(prompt) => Some(Self {
                kind: LookupKind::Prompt,
                name: &prompt.spec().name,
                own: prompt.origin() == HOUSE,
                tools: prompt.tools(),
            }),
        }
    }

    fn lookup(&self) -> Lookup<'_> {
        Lookup { kind: self.kind, name: self.name, own: self.own, tools: &self.tools }
    }
}

/// A call that something else stands for, as far as it could be made.
pub(crate) struct Stood<'h> {
    pub(crate) entry: &'h ToolEntry,
    pub(crate) arguments: Arguments,
}

impl House {
    /// Whether the caller may use this here.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_use(&self, caller: &Caller, function: Function<'_>) -> Result<(), Closed> {
        match function {
            Function::Tool(entry) => {
                self.permitted(caller, entry)?;
                // The tools that find and call others are there where others are hidden.
                let needless = self.is_guide(entry.tool.spec()) && !self.hides(caller);
                if needless { Err(Closed::by("all-tools-are-listed")) } else { Ok(()) }
            }
            Function::Resource(reader, uri) => {
                self.may_look_up(caller, function, |scope| reader.serves(scope))?;
                self.may_show(caller, reader.behind(uri).as_ref())
            }
            Function::Family(reader, template) => {
                self.may_look_up(caller, function, |scope| reader.serves(scope))?;
                self.may_show(caller, reader.behind(template).as_ref())
            }
            Function::Prompt(prompt) => self.may_look_up(caller, function, |scope| prompt.serves(scope)),
        }
    }

    /// As [`House::may_use`] of a tool, whether or not others are hidden.
    pub(crate) fn permitted(&self, caller: &Caller, entry: &ToolEntry) -> Result<(), Closed> {
        self.permitted_to(&caller.principal, caller, entry)
    }

    /// The same of another principal in the place of the caller.
    pub(crate) fn permitted_to(&self, principal: &Principal, caller: &Caller, entry: &ToolEntry) -> Result<(), Closed> {
        let reach = self.policies.reach(caller.product.as_deref(), principal, Wanted::Tool(entry.tool.spec()));
        served(reach, |scope| entry.tool.serves(scope))
    }

    /// Whether the caller may look this up by the rules and its maker, whatever tool stands behind it.
    pub(crate) fn may_look_up(
        &self,
        caller: &Caller,
        function: Function<'_>,
        serves: impl Fn(&Scope) -> Result<(), Fault>,
    ) -> Result<(), Closed> {
        let Some(looked) = Looked::new(function) else { return Err(Closed::by(NO_TOOL)) };
        let wanted = Wanted::Lookup(looked.lookup());
        served(self.policies.reach(caller.product.as_deref(), &caller.principal, wanted), serves)
    }

    /// Whether the caller may see what a tool shows: whether it could call the tool, and where the call is known, make it.
    pub(crate) fn may_show(&self, caller: &Caller, behind: Option<&Behind>) -> Result<(), Closed> {
        match behind {
            None => Ok(()),
            Some(Behind::Tool(name)) => self.standing(caller, name).map(|_| ()),
            Some(Behind::Call(reading)) => {
                let Stood { entry, arguments } = self.stands_for(caller, reading)?;
                let decision = self.policies.decide_asked(&asked(caller, entry, &arguments));
                if decision.allowed { Ok(()) } else { Err(Closed { rule: decision.rule, why: None }) }
            }
        }
    }

    /// The permit for one call of a tool this caller has, with arguments the tool takes.
    ///
    /// # Errors
    /// The rule that refuses it as it is made.
    pub(crate) fn authorized(
        &self,
        caller: &Caller,
        entry: &ToolEntry,
        arguments: &Arguments,
        (deadline, budget): (Instant, Budget),
        trace: TraceContext,
    ) -> Result<Permit, Stop> {
        let issued = self.policies.authorize_call(asked(caller, entry, arguments), deadline, budget, trace);
        issued.map_err(|Refusal { rule }| {
            let fault = not_like_this(&rule);
            Stop::Refused(rule, fault)
        })
    }

    fn standing(&self, caller: &Caller, tool: &str) -> Result<&ToolEntry, Closed> {
        let entry = self.catalogue.tool(tool);
        let entry = entry.ok_or_else(|| Closed::because(NO_TOOL, format!("the tool '{tool}' behind it is not there")))?;
        self.permitted(caller, entry)?;
        Ok(entry)
    }

    /// The call that something else stands for: of a tool this caller has, with arguments that tool takes as they are.
    pub(crate) fn stands_for(&self, caller: &Caller, reading: &Reading) -> Result<Stood<'_>, Closed> {
        let entry = self.standing(caller, &reading.tool)?;
        let given = Value::Object(reading.arguments.0.clone());
        let refused = |fault: Fault| Closed::because("argument-schema", fault.message().to_owned());
        match entry.schema.accept(&given).map_err(refused)?.into_owned() {
            // What was cleaned is the call of another name.
            Value::Object(arguments) if arguments == reading.arguments.0 => Ok(Stood { entry, arguments: Arguments(arguments) }),
            _ => Err(Closed::by(ADDRESS_FORM)),
        }
    }

    /// Whoever reads an address, in the spelling in which it is read.
    ///
    /// # Errors
    /// An address nobody has, or another spelling of one.
    pub(crate) fn reader_of(&self, uri: &str) -> Result<&Arc<dyn ResourceReader>, Stop> {
        let refused = |why: String, right: Option<String>| {
            let fault = Fault::invalid(format!("uri: {why}"));
            Stop::refused(ADDRESS_FORM, right.into_iter().fold(fault, |fault, uri| fault.with_hint(format!("write it as {uri}"))))
        };
        let spelling = || "it is another spelling of an address".to_owned();
        let unknown = || Stop::refused("catalogue", crate::gate::unknown("resource", uri));
        // What is listed in a spelling of its own is read in that.
        if !self.catalogue.keeps(uri) {
            let usual = usual_address(uri).map_err(|fault| refused(fault.to_string(), None))?;
            if usual != uri {
                return Err(refused(spelling(), Some(usual.into_owned())));
            }
        }
        let reader = self.catalogue.reader(uri).ok_or_else(unknown)?;
        match reader.proper(uri) {
            Some(proper) if proper != uri => Err(refused(spelling(), Some(proper))),
            _ => Ok(reader),
        }
    }
}

/// The call as the policies are asked about it.
fn asked<'a>(caller: &'a Caller, entry: &'a ToolEntry, arguments: &'a Arguments) -> Asked<'a> {
    let product = caller.product.as_deref();
    let reach = entry.tool.reach_back(arguments);
    Asked { principal: &caller.principal, tool: entry.tool.spec(), arguments: &arguments.0, product, reach }
}

/// What the rules say, and whether whoever offers it would serve some use of it.
fn served(reach: Reach, serves: impl Fn(&Scope) -> Result<(), Fault>) -> Result<(), Closed> {
    let Reach { decision, scopes } = reach;
    if !decision.allowed {
        return Err(Closed { rule: decision.rule, why: None });
    }
    let mut refusal = None;
    for scope in &scopes {
        match serves(scope) {
            Ok(()) => return Ok(()),
            Err(fault) => refusal = refusal.or(Some(fault)),
        }
    }
    Err(refusal.map_or_else(|| Closed::by(NOT_SERVED), |fault| Closed::because(NOT_SERVED, fault.message().to_owned())))
}

impl Gateway {
    /// The permit for a lookup, within that of the call behind it, where there is one.
    pub(crate) fn permit_lookup(
        &self,
        house: &House,
        caller: &Caller,
        (function, behind): (Function<'_>, Option<&Behind>),
        trace: TraceContext,
    ) -> Result<Permit, Arc<str>> {
        let Some(looked) = Looked::new(function) else { return Err(Arc::from(NO_TOOL)) };
        let (product, asked) = (caller.product.as_deref(), (&*caller.principal, &looked.lookup()));
        let permit = house.policies.authorize_lookup(product, asked, self.deadline(), self.budget, trace);
        let permit = permit.map_err(|Refusal { rule }| rule)?;
        let permit = match behind {
            Some(Behind::Call(reading)) => {
                let call = self.permit_behind(house, caller, reading, &permit).map_err(|closed| closed.rule)?;
                permit.within(&call)
            }
            _ => permit,
        };
        Ok(permit.carrying(caller.token.as_ref()))
    }

    /// The permit for the call that something else stands for. Nothing of it runs.
    pub(crate) fn permit_behind(
        &self,
        house: &House,
        caller: &Caller,
        reading: &Reading,
        permit: &Permit,
    ) -> Result<Permit, Closed> {
        let Stood { entry, arguments } = house.stands_for(caller, reading)?;
        let call = asked(caller, entry, &arguments);
        let issued = house.policies.authorize_call(call, permit.deadline(), self.budget, permit.trace().clone());
        issued.map_err(|Refusal { rule }| Closed { rule, why: None })
    }

    /// Asks the external policy about the call that something else stands for, as if it was made.
    pub(crate) async fn ask_outside_behind(
        &self,
        house: &House,
        caller: &Caller,
        behind: Option<&Behind>,
        permit: &Permit,
    ) -> Result<(), Stop> {
        let Some(Behind::Call(reading)) = behind.filter(|_| self.external.is_some()) else { return Ok(()) };
        let unavailable = || Fault::new(FaultCode::Forbidden, "the tool behind it may not be called");
        let Stood { entry, arguments } = house.stands_for(caller, reading).map_err(|closed| closed.stop(unavailable()))?;
        self.ask_outside(permit, &Deed::call(&*entry.tool, &arguments)).await
    }
}
