//! The core: the catalogue of what exists, and the gate every call passes.
//!
//! Knows tools, resources and prompts only through `ports`, backends not at all. Read [`gate`] first.

mod administration;
mod admission;
mod approvals;
mod caller;
mod catalogue;
mod cursors;
mod definition;
mod entrance;
mod exchange;
mod foresight;
pub mod gate;
mod given_up;
mod guide;
mod inquiry;
mod lists;
mod lookups;
mod profiles;
mod reach;
mod record;
mod second_door;
mod steps;

pub use administration::OperationRequest;
pub use admission::{
    Admission, BYTES_PER_TOKEN, GateLoad, Holder, LedgerError, LimitSettings, Rate, RateState, SharedCounts, SharedRates,
    SharedState, Sharing, TokenLedger,
};
pub use approvals::{ApprovalError, ApprovalRecord, ApprovalSettings, ApprovalState, Approvals};
pub use caller::{CallRequest, Caller, GetPrompt, LookupRequest};
pub use catalogue::{Catalogue, CatalogueBuilder, CatalogueError};
pub use entrance::RefusedSender;
pub use exchange::{ClientHeaders, Voice};
pub use gate::{Gateway, GatewayParts};
pub use guide::{CALL_TOOL, Exposure, FIND_TOOLS};
pub use inquiry::{Inquiry, Prospect, Wish};
pub use lists::Sought;
pub use lookups::CompletionReference;
pub use profiles::{Behaviour, Deviation, ProfileError, ProfileMode, Profiles, ToolUse};
pub use record::{INTENT, Recorder, RoadEnd};
