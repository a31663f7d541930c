//! The timed questions of the benchmark.

use portcullis_telemetry::Store;

use crate::data::Input;

/// Asks and prints.
pub async fn run(_store: &Store, _input: &Input) {}
