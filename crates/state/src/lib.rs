//! Small durable state behind one trait: keys, counters, pins. Not for telemetry, not for audit records.
//!
//! Values are bytes with a version. Every successful change of a namespace raises its change counter, so
//! other processes that share the store notice cheaply. Nothing here may know what the values mean.

mod error;
mod keyfile;
mod memory;
mod rules;
mod schema;
mod sqlite;
mod store;

pub use error::StoreError;
pub use keyfile::{KeyFile, KeyFileError};
pub use memory::MemoryStore;
pub use rules::{MAX_KEY_BYTES, MAX_LIST, MAX_VALUE_BYTES};
pub use sqlite::SqliteStore;
pub use store::{Entry, Listing, Namespace, Store};
