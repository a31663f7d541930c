//! A small shop that does not exist, observed: a seeded simulator that writes real OTLP export requests.
//!
//! It guards one promise: the same seed and configuration give byte-identical telemetry in which spans, logs and
//! metrics agree with one another, and in which an incident has exactly one cause that the telemetry reveals. It is
//! the data behind `portcullis demo`, the tests and the benchmarks. It must not read a clock, a file or the network,
//! and must not know anything about the product that reads its output.
//!
//! ```
//! use portcullis_model::Timestamp;
//! use portcullis_simulator::{Simulation, SimulationConfig};
//!
//! let start = Timestamp::from_seconds(1_772_359_200);
//! let config = SimulationConfig::new(7, start, start.plus(std::time::Duration::from_mins(1)));
//! let spans: usize = Simulation::new(config)?.map(|batch| batch.span_count()).sum();
//! assert!(spans > 0);
//! # Ok::<(), portcullis_simulator::ConfigError>(())
//! ```

mod bulk;
mod config;
mod encode;
mod fleet;
mod hazards;
mod histogram;
mod journey;
mod otlp;
mod pool;
mod random;
mod recorder;
mod services;
mod shape;
mod simulation;
mod text;
mod world;

pub use bulk::{BulkLogs, BulkSpans, bulk_logs, bulk_spans};
pub use config::{ConfigError, Incident, IncidentKind, Scenario, SimulationConfig};
pub use encode::{encode_json, encode_protobuf};
pub use hazards::{HazardKind, PlantedText};
pub use simulation::{Batch, Simulation};
