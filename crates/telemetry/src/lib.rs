//! The embedded store: OTLP in, Parquet on disk, typed questions and read-only SQL out.
//!
//! Guards three promises: what was acknowledged survives a crash; a record belongs to the tenant of the credential
//! that sent it; a question sees only its permit's scope. Must not know MCP, tools or other backends.

mod catalog;
mod convert;
mod error;
mod files;
mod ingest;
mod memory;
mod read;
mod scan;
mod schema;
mod scrub;
mod segment;
mod settings;
mod shown;
mod source;
mod sql;
mod store;
mod text;
mod wal;
mod words;

pub use convert::OtlpSignal;
pub use error::StoreError;
pub use ingest::{IngestAuthorizer, IngestLimits, IngestRefusal, LoopbackOnly, OtlpDoor, Sender, Way};
pub use scrub::Scrubber;
pub use settings::{RecordLimits, SqlLimits, StoreSettings};
pub use source::EmbeddedSource;
pub use sql::{MakeScrubber, StatementHost, StatementProgram, answer_on, answer_statement, serve_statement};
pub use store::{Encoding, IngestCounts, IngestError, Receipt, Store, StoreCounts, StoreStats, TableStats};
