//! What the gate runs: tools, resources, prompts. Each needs a [`Permit`].

use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{CompletionKind, Fault, PromptSpec, ResourceSpec, ResourceTemplateSpec, ToolSpec};
use portcullis_policy::Permit;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Exchange, Outcome, PromptOutput, ResourceOutput};

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
    /// What it says of itself. The same for every caller.
    fn spec(&self) -> &Arc<ToolSpec>;

    /// Does the work. The future is dropped when the caller cancels or the deadline passes.
    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault>;
}

/// Resources, fixed and templated.
#[async_trait]
pub trait ResourceReader: Send + Sync {
    /// Resources with fixed addresses.
    fn resources(&self) -> Vec<Arc<ResourceSpec>>;

    /// Families of resources.
    fn templates(&self) -> Vec<Arc<ResourceTemplateSpec>>;

    /// Whether `uri` belongs to this reader (fixed or by template).
    fn owns(&self, uri: &str) -> bool;

    /// Whether those who watch `uri` are told of every change of it. True only of what changes with the catalogue and at
    /// no other time; never of what shows live data.
    fn announces(&self, uri: &str) -> bool {
        let _ = uri;
        false
    }

    /// Values of a template's variable, where its completions are [`CompletionKind::Own`]; at most 100, in order.
    async fn complete(&self, permit: &Permit, template: &str, argument: &str, prefix: &str) -> Result<Vec<String>, Fault> {
        let _ = (permit, template, argument, prefix);
        Ok(Vec::new())
    }

    /// Reads one. `NotFound` when there is none.
    async fn read(&self, permit: &Permit, uri: &str, exchange: &dyn Exchange) -> Result<ResourceOutput, Fault>;
}

/// One prompt.
#[async_trait]
pub trait Prompt: Send + Sync {
    /// What it says of itself.
    fn spec(&self) -> &Arc<PromptSpec>;

    /// Values of an argument, where its completions are [`CompletionKind::Own`]; at most 100, in order.
    async fn complete(&self, permit: &Permit, argument: &str, prefix: &str) -> Result<Vec<String>, Fault> {
        let _ = (permit, argument, prefix);
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
