//! Other MCP servers behind the gate. What they offer waits for a person, is offered to the last byte as it was accepted,
//! and walks the one road: every call needs a permit, every answer is released. A program is started, and an address asked,
//! only when the operator's file names it. Must not decide who may call what.

mod addresses;
mod claims;
mod content;
mod conversation;
mod credentials;
mod definition;
mod drive;
mod ear;
mod events;
mod examiner;
mod forms;
mod health;
mod line;
mod namer;
mod neighbours;
mod notes;
mod offer;
mod parking;
mod passwords;
mod pins;
mod protocol;
mod questions;
pub mod review;
mod risk;
mod run;
mod scanner;
mod schema;
mod server;
mod settings;
mod tasks;
mod templates;
mod told;
mod unit;
mod watch;
mod whose;
mod wire;

use portcullis_egress::EgressConfigError;

pub use definition::Kind;
pub use line::{Keeping, keep_program};
pub use neighbours::Neighbourhood;
pub use pins::{Accepted, Pin, PinBook, PinError, PinState, Seen, Shown};
pub use scanner::{Finding, Neighbours, Scanner};
pub use settings::{
    AddressSettings, ConfinedCallers, DryRunRule, PassedOn, Prefixing, ProgramSettings, ProtocolChoice, QuestionSettings,
    RiskRule, Root, Trust, UpstreamLimits, UpstreamSettings, UpstreamSettingsError,
};
pub use unit::{Upstream, open};

/// An upstream that cannot be set up. For the operator to mend.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Its settings.
    #[error(transparent)]
    Settings(#[from] UpstreamSettingsError),
    /// Its address, TLS or credential.
    #[error(transparent)]
    Egress(#[from] EgressConfigError),
    /// A built-in pattern: a defect of this build.
    #[error("the scanner of definitions cannot be built: {0}")]
    Scanner(String),
}
