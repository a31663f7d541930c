//! What tools, resources and prompts give back. All of it is untrusted until `guard` released it.

use std::sync::Arc;

use serde_json::Value;

use crate::InputRequest;

/// How a run ended without a fault.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Finished.
    Complete(Output),
    /// Needs answers from the client first; it will be run again with them (MCP SEP-2322).
    NeedsInput {
        /// Questions by key.
        requests: Vec<(String, InputRequest)>,
        /// What the tool wants back with the answers. Integrity-protected and bound to the caller by the face.
        state: Option<Value>,
    },
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self::Complete(output)
    }
}

/// Result of a tool.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output {
    /// Content for a reader, the same thing as `structured`.
    pub content: Vec<Content>,
    /// The result in the shape of the tool's output schema.
    pub structured: Option<Value>,
    /// A failure of the work itself that the model should see and act on (MCP `isError`).
    pub failed: bool,
    /// What to put in the audit record: which sources were touched.
    pub sources: Vec<Arc<str>>,
    /// Members of `_meta` of the result, without those the protocol or this house reserves.
    pub meta: Option<Value>,
}

impl Output {
    /// Structured result with its readable text.
    pub fn structured(value: Value, text: impl Into<String>) -> Self {
        Self { content: vec![Content::Text(text.into())], structured: Some(value), ..Self::default() }
    }

    /// Text only.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::Text(text.into())], ..Self::default() }
    }
}

/// One block of content.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Text.
    Text(String),
    /// An image.
    Image {
        /// Base64.
        data: String,
        /// MIME type.
        mime_type: String,
    },
    /// Sound.
    Audio {
        /// Base64.
        data: String,
        /// MIME type.
        mime_type: String,
    },
    /// A resource in full.
    Resource(EmbeddedResource),
    /// The address of a resource, as the protocol describes one: `uri`, `name`, `title`, `description`, `mimeType`, `size`,
    /// `icons`.
    Link(Value),
    /// A block with what its maker says about it.
    Annotated {
        /// The block; never another annotated one.
        block: Box<Content>,
        /// `audience`, `priority`, `lastModified`.
        annotations: Option<Value>,
        /// Members of `_meta`.
        meta: Option<Value>,
    },
}

/// A resource inside a result.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedResource {
    /// Its URI.
    pub uri: String,
    /// MIME type.
    pub mime_type: Option<String>,
    /// Text, or base64 when `binary`.
    pub data: String,
    /// Whether `data` is base64 of bytes.
    pub binary: bool,
    /// Members of `_meta`.
    pub meta: Option<Value>,
}

/// Result of reading a resource.
#[derive(Debug, Clone, PartialEq)]
pub enum ResourceOutput {
    /// Its contents.
    Contents(Vec<EmbeddedResource>),
    /// Needs answers first.
    NeedsInput {
        /// Questions by key.
        requests: Vec<(String, InputRequest)>,
        /// Opaque state.
        state: Option<Value>,
    },
}

/// Who speaks in a prompt message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The user.
    User,
    /// The assistant.
    Assistant,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptMessage {
    /// Who speaks.
    pub role: Role,
    /// What.
    pub content: Content,
}

/// Result of rendering a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptOutput {
    /// Its messages.
    Messages {
        /// One line about it.
        description: Option<String>,
        /// The messages.
        messages: Vec<PromptMessage>,
    },
    /// Needs answers first.
    NeedsInput {
        /// Questions by key.
        requests: Vec<(String, InputRequest)>,
        /// Opaque state.
        state: Option<Value>,
    },
}
