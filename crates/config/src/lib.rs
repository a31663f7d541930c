//! One typed file. Reading it, substituting the environment, and errors that say what would be right.
//!
//! What kinds of sources exist is not known here: [`Settings`] takes their type from the binary.

mod load;
mod settings;
mod substitute;
mod units;

pub use load::{ConfigError, FileStamp, Loaded, explain, load, parse, schema};
pub use settings::{
    AuditSettings, IngestSettings, LimitSettings, ListenSettings, LogSettings, Retention, Settings, StdioSettings, StoreSettings,
    WriteSettings,
};
pub use units::{ByteSize, Span};
