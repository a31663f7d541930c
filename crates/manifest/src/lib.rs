//! Connectors that are described and not written. So far: OpenAPI in, tools out, through egress.
//!
//! Guards that a description is data: it names no address but that of the configuration, sets no credential, and what of it
//! is not understood is left out with a reason. Must not decide about callers and must not open connections of its own.

mod answer;
mod api;
mod document;
mod extension;
mod parameter;
mod plan;
mod preview;
mod schema;
mod select;
mod settings;
mod survey;
mod text;

pub use document::DocumentError;
pub use extension::{ApiError, ApiExtension};
pub use settings::{ApiSettings, OperationSettings, Selector, SpecSettings};
