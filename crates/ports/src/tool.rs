//! What the gate runs: tools, resources, prompts. Each needs a [`Permit`].

use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{CompletionKind, Fault, PromptSpec, ResourceSpec, ResourceTemplateSpec, ToolSpec};
use portcullis_policy::Permit;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Exchange, Outcome, Preview, PromptOutput, Reading, ResourceOutput, Sight};

/// The origin of what is the house's own.
const HOUSE: &str = "portcullis";

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

    /// Does the work. The future is dropped when the caller cancels or the deadline passes.
    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault>;

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
        argument: &str,
        prefix: &str,
        exchange: &dyn Exchange,
    ) -> Result<Vec<String>, Fault> {
        let _ = (permit, template, argument, prefix, exchange);
        Ok(Vec::new())
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

    /// Values of an argument, where its completions are [`CompletionKind::Own`]; at most 100, in order.
    async fn complete(
        &self,
        permit: &Permit,
        argument: &str,
        prefix: &str,
        exchange: &dyn Exchange,
    ) -> Result<Vec<String>, Fault> {
        let _ = (permit, argument, prefix, exchange);
        Ok(Vec::new())
    }

    /// Renders it. May ask the client for input (see [`PromptOutput`]).
    async fn render(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<PromptOutput, Fault>;
}

/// Values for completions, from the sources in the caller's scope.
#[async_trait]
pub trait Completer: Send + Sync {
    /// Values starting with `prefix`, at most 100, in order.
    async fn complete(&self, permit: &Permit, kind: &CompletionKind, prefix: &str) -> Result<Vec<String>, Fault>;
}
