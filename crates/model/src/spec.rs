//! What a tool, resource or prompt says of itself. Annotations are derived from the risk class, never typed by hand.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ToolName;

/// How much a tool can hurt. The MCP annotations follow from it exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RiskClass {
    /// Looks, changes nothing.
    Read,
    /// Adds or changes something that can be undone.
    Write,
    /// Removes or overwrites something that cannot be brought back by the same tool.
    Destructive,
}

impl RiskClass {
    /// The name used in policies and audit records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
        }
    }
}

/// The category under which an operator enables writing tools.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriteCategory(pub Arc<str>);

/// Where the values of an argument come from when a client asks for completions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompletionKind {
    /// Names of services in the caller's scope.
    Service,
    /// Names of sources in the caller's scope.
    Source,
    /// Metric names.
    Metric,
    /// Values of the label named by another argument, or a fixed label.
    LabelValue {
        /// The label whose values are offered.
        label: Arc<str>,
    },
    /// A fixed list.
    Fixed(Vec<Arc<str>>),
    /// Whoever offers the prompt or the resources answers by itself.
    Own,
}

/// A tool as the catalogue knows it.
#[derive(Debug, Clone)]
pub struct ToolSpec {
    /// Unique name.
    pub name: ToolName,
    /// Short human title.
    pub title: Arc<str>,
    /// One or two sentences for a model: what it answers, when to prefer it.
    pub description: Arc<str>,
    /// What it can do at worst.
    pub risk: RiskClass,
    /// Calling it twice with the same arguments has no further effect.
    pub idempotent: bool,
    /// Talks to things outside the operator's own systems.
    pub open_world: bool,
    /// For tools that write: the category that must be enabled. `None` for reading tools.
    pub category: Option<WriteCategory>,
    /// JSON Schema (draft 2020-12) of the arguments; always an object schema.
    pub input_schema: Arc<Value>,
    /// JSON Schema of the structured result, when there is one.
    pub output_schema: Option<Arc<Value>>,
    /// Completable arguments.
    pub completions: Vec<(Arc<str>, CompletionKind)>,
    /// The definition as another server gave it, to be listed as it is but for its name; `None` for what this house
    /// describes itself. A person accepted every byte of it.
    pub shown: Option<Arc<Value>>,
}

/// A resource with a fixed address.
#[derive(Debug, Clone)]
pub struct ResourceSpec {
    /// Its URI.
    pub uri: Arc<str>,
    /// Unique name.
    pub name: Arc<str>,
    /// Short human title.
    pub title: Option<Arc<str>>,
    /// What it holds.
    pub description: Option<Arc<str>>,
    /// MIME type of the content.
    pub mime_type: Option<Arc<str>>,
    /// As [`ToolSpec::shown`].
    pub shown: Option<Arc<Value>>,
}

/// A family of resources.
#[derive(Debug, Clone)]
pub struct ResourceTemplateSpec {
    /// RFC 6570 template, level 1.
    pub uri_template: Arc<str>,
    /// Unique name.
    pub name: Arc<str>,
    /// Short human title.
    pub title: Option<Arc<str>>,
    /// What the members hold.
    pub description: Option<Arc<str>>,
    /// MIME type of the members.
    pub mime_type: Option<Arc<str>>,
    /// Completable variables.
    pub completions: Vec<(Arc<str>, CompletionKind)>,
    /// As [`ToolSpec::shown`].
    pub shown: Option<Arc<Value>>,
}

/// A prompt offered to the user of a client.
#[derive(Debug, Clone)]
pub struct PromptSpec {
    /// Unique name.
    pub name: Arc<str>,
    /// Short human title.
    pub title: Arc<str>,
    /// What it starts.
    pub description: Arc<str>,
    /// Its arguments, all text.
    pub arguments: Vec<PromptArgument>,
    /// As [`ToolSpec::shown`].
    pub shown: Option<Arc<Value>>,
}

/// One argument of a prompt.
#[derive(Debug, Clone)]
pub struct PromptArgument {
    /// Name.
    pub name: Arc<str>,
    /// What to put there.
    pub description: Arc<str>,
    /// Whether the prompt is refused without it.
    pub required: bool,
    /// Where completions come from.
    pub completion: Option<CompletionKind>,
}
