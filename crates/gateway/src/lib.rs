//! The core: the catalogue of what exists, and the gate every call passes.
//!
//! Knows tools, resources and prompts only through `ports`, backends not at all. Read [`gate`] first.

mod caller;
mod catalogue;
mod exchange;
pub mod gate;
mod limits;
mod record;

pub use caller::{CallRequest, Caller, GetPrompt, LookupRequest};
pub use catalogue::{Catalogue, CatalogueBuilder, CatalogueError};
pub use exchange::Voice;
pub use gate::{Gateway, GatewayParts};
pub use limits::{Admission, LimitSettings};
pub use record::{Recorder, RoadEnd};
