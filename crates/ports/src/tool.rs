//! What the gate runs: tools, resources, prompts. Each needs a [`Permit`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{CompletionKind, Fault, PrincipalId, PromptSpec, ResourceSpec, ResourceTemplateSpec, Scope, ToolSpec};
use portcullis_policy::Permit;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Exchange, Outcome, Preview, PromptOutput, Reading, ResourceOutput, Sight};

/// The origin of what is the house's own.
pub const HOUSE: &str = "portcullis";

/// The tool whose work is shown some other way than by calling it. Whoever may not call it does not get there that way
/// either: the gate asks the same about the tool as if it was called.
#[derive(Debug, Clone, PartialEq)]
pub enum Behind {
    /// Exactly this call.
    Call(Reading),
    /// Some call of the tool of this name.
    Tool(String),
}

impl Behind {
    /// The name of the tool.
    pub fn tool(&self) -> &str {
        match self {
            Self::Call(reading) => &reading.tool,
            Self::Tool(name) => name,
        }
    }
}

/// Arguments of a call. The gate has checked them against the tool's schema before a tool sees them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arguments(pub Map<String, Value>);

impl Arguments {
    /// Reads them into the tool's own type.
    ///
    /// # Errors
    /// [`FaultCode::InvalidArgument`](portcullis_model::FaultCode::InvalidArgument) naming what did not fit.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, Fault> {
        serde_json::from_value(Value::Object(self.0)).map_err(|e| Fault::invalid(format!("arguments do not fit: {e}")))
    }
}

/// One tool. Whatever a backend, plugin or upstream server offers ends as one of these.
#[async_trait]
pub trait Tool: Send + Sync {
    /// Whose tool this is: `portcullis`, or whom it came from (`upstream:<name>`, `plugin:<name>@<digest>`, `api:<name>`). A
    /// person's yes is bound to it, for a name may pass from one to another.
    fn origin(&self) -> String {
        HOUSE.to_owned()
    }

    /// What it says of itself. The same for every caller.
    fn spec(&self) -> &Arc<ToolSpec>;

    /// Whether it would serve anybody within this scope. The gate asks before it lists the tool and again before it runs it,
    /// so that nothing is shown to a caller that always refuses it. Asks nobody outside; cheap.
    ///
    /// # Errors
    /// Why not, for the record.
    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        let _ = scope;
        Ok(())
    }

    /// The argument that takes the cursors of this tool, which it gives sealed by [`Exchange::seal_cursor`]. The gate refuses one
    /// that was not given to this caller for this question, and hands the tool what was sealed. `None` where it gives none: an
    /// argument of another server that is called so is that server's.
    fn cursor_argument(&self) -> Option<&'static str> {
        None
    }

    /// How far back from now a call with these arguments reads, where more than times says so: a raw query, a cursor that was
    /// opened. For arguments its schema marks with `x-portcullis-reaches`; where it is `None`, rules about the look-back take
    /// it that such a call reaches back for ever. Never less than what is read; asks nobody; cheap.
    fn reach_back(&self, arguments: &Arguments) -> Option<Duration> {
        let _ = arguments;
        None
    }

    /// Does the work. The future is dropped when the caller cancels or the deadline passes.
    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault>;

    /// Nobody will answer what an earlier run of `principal` asked with this state: the gate or the client refused it. Whoever
    /// waits for the answer should be told at once. A state that is another's is nothing to it.
    fn given_up(&self, principal: &PrincipalId, state: &Value) {
        let _ = (principal, state);
    }

    /// Whether it can show what a call would do. Its schema then has the argument [`DRY_RUN`](crate::DRY_RUN), with which the
    /// gate calls [`Tool::preview`] and never [`Tool::run`].
    fn previews(&self) -> bool {
        false
    }

    /// Which tool reads what a call with these arguments would change; `None` when there is none.
    fn present_state(&self, arguments: &Arguments) -> Option<Reading> {
        let _ = arguments;
        None
    }

    /// What a call with these arguments would do; sends nothing that changes anything. `sight` says whether what
    /// [`Tool::present_state`] names may be read. `None` when it cannot tell.
    ///
    /// # Errors
    /// Arguments of which no request can be made, or a caller who may not use it.
    async fn preview(
        &self,
        permit: &Permit,
        sight: Sight<'_>,
        arguments: Arguments,
        exchange: &dyn Exchange,
    ) -> Result<Option<Preview>, Fault> {
        let _ = (permit, sight, arguments, exchange);
        Ok(None)
    }
}

/// Somebody watches a resource, for as long as this is held.
#[derive(Default)]
pub struct Watch(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Watch {
    /// A watch that ends with this.
    pub fn ending_with(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(end)))
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

/// Resources, fixed and templated.
#[async_trait]
pub trait ResourceReader: Send + Sync {
    /// Whose resources this is: `portcullis`, or whom it came from (`upstream:<name>`, `plugin:<name>@<digest>`, `api:<name>`). A
    /// person's yes is bound to it, for a name may pass from one to another.
    fn origin(&self) -> String {
        HOUSE.to_owned()
    }

    /// Resources with fixed addresses.
    fn resources(&self) -> Vec<Arc<ResourceSpec>>;

    /// Families of resources.
    fn templates(&self) -> Vec<Arc<ResourceTemplateSpec>>;

    /// Whether `uri` belongs to this reader (fixed or by template).
    fn owns(&self, uri: &str) -> bool;

    /// Whether it would serve anybody within this scope; see [`Tool::serves`].
    ///
    /// # Errors
    /// Why not, for the record.
    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        let _ = scope;
        Ok(())
    }

    /// The tool whose work is shown at `address`, a URI or a URI template of its own.
    fn behind(&self, address: &str) -> Option<Behind> {
        let _ = address;
        None
    }

    /// The one spelling of `uri` under which it is read, where this reader takes several for the same. Nothing where it takes
    /// one for one.
    fn proper(&self, uri: &str) -> Option<String> {
        let _ = uri;
        None
    }

    /// Whether `uri` is one of its fixed addresses, those it keeps for what is not listed at the moment included. Nobody
    /// else's template takes such an address.
    fn keeps(&self, uri: &str) -> bool {
        self.resources().iter().any(|resource| &*resource.uri == uri)
    }

    /// Whether those who watch `uri` are told of every change of it. True only of what changes with the catalogue, or of
    /// what its maker announces; never of what shows live data.
    fn announces(&self, uri: &str) -> bool {
        let _ = uri;
        false
    }

    /// Whether it announces changes of anything.
    fn announces_any(&self) -> bool {
        self.resources().iter().any(|resource| self.announces(&resource.uri))
    }

    /// Begins to watch what is announced, for somebody who may read it. Changes beside those of the catalogue are told by the
    /// extension that offers it, for as long as what is returned is held.
    ///
    /// # Errors
    /// When its maker could not be asked to announce them.
    async fn watch(&self, permit: &Permit, uri: &str) -> Result<Watch, Fault> {
        let _ = (permit, uri);
        Ok(Watch::default())
    }

    /// Values of a template's variable, where its completions are [`CompletionKind::Own`]; at most 100, in order.
    async fn complete(
        &self,
        permit: &Permit,
        template: &str,
        typing: &Typing<'_>,
        exchange: &dyn Exchange,
    ) -> Result<Suggestions, Fault> {
        let _ = (permit, template, typing, exchange);
        Ok(Suggestions::default())
    }

    /// Nobody will answer what an earlier run of `principal` asked with this state: the gate or the client refused it. Whoever
    /// waits for the answer should be told at once. A state that is another's is nothing to it.
    fn given_up(&self, principal: &PrincipalId, state: &Value) {
        let _ = (principal, state);
    }

    /// Reads one. `NotFound` when there is none.
    async fn read(&self, permit: &Permit, uri: &str, exchange: &dyn Exchange) -> Result<ResourceOutput, Fault>;
}

/// One prompt.
#[async_trait]
pub trait Prompt: Send + Sync {
    /// Whose prompt this is: `portcullis`, or whom it came from (`upstream:<name>`, `plugin:<name>@<digest>`, `api:<name>`). A
    /// person's yes is bound to it, for a name may pass from one to another.
    fn origin(&self) -> String {
        HOUSE.to_owned()
    }

    /// What it says of itself.
    fn spec(&self) -> &Arc<PromptSpec>;

    /// Whether it would serve anybody within this scope; see [`Tool::serves`].
    ///
    /// # Errors
    /// Why not, for the record.
    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        let _ = scope;
        Ok(())
    }

    /// Names of the tools it tells to call.
    fn tools(&self) -> Vec<String> {
        Vec::new()
    }

    /// Values of an argument, where its completions are [`CompletionKind::Own`]; at most 100, in order.
    async fn complete(&self, permit: &Permit, typing: &Typing<'_>, exchange: &dyn Exchange) -> Result<Suggestions, Fault> {
        let _ = (permit, typing, exchange);
        Ok(Suggestions::default())
    }

    /// Nobody will answer what an earlier run of `principal` asked with this state: the gate or the client refused it. Whoever
    /// waits for the answer should be told at once. A state that is another's is nothing to it.
    fn given_up(&self, principal: &PrincipalId, state: &Value) {
        let _ = (principal, state);
    }

    /// Renders it. May ask the client for input (see [`PromptOutput`]).
    async fn render(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<PromptOutput, Fault>;
}

/// What somebody is typing.
#[derive(Debug, Clone, Copy)]
pub struct Typing<'t> {
    /// The argument or variable.
    pub argument: &'t str,
    /// What of its value is there.
    pub prefix: &'t str,
    /// Values of other arguments that were chosen before, by name; texts.
    pub context: &'t Map<String, Value>,
}

/// Values that would fit (`completion/complete`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suggestions {
    /// The values, in order.
    pub values: Vec<String>,
    /// How many there are in all, where that is known.
    pub total: Option<u32>,
    /// Whether there are more than these, where that is known.
    pub more: Option<bool>,
}

impl From<Vec<String>> for Suggestions {
    /// All there are.
    fn from(values: Vec<String>) -> Self {
        Self { total: u32::try_from(values.len()).ok(), more: Some(false), values }
    }
}

/// Values for completions, from the sources in the caller's scope.
#[async_trait]
pub trait Completer: Send + Sync {
    /// The tool that lists what values of this kind are.
    fn behind(&self, kind: &CompletionKind) -> Option<Behind> {
        let _ = kind;
        None
    }

    /// Values starting with `prefix`, at most 100, in order.
    async fn complete(&self, permit: &Permit, kind: &CompletionKind, prefix: &str) -> Result<Vec<String>, Fault>;
}
