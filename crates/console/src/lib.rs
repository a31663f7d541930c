//! The admin face: `/metrics`, health, and the HTTP API of administrators, on a listener of their own.
//!
//! Guards that nothing but a bare "alive" and "ready" is said to somebody without a credential, and that every operation
//! takes the road of the gate: identified, admitted, authorized, recorded. Must not know what an operation does (that is the
//! [`Steward`]'s) and must not put a principal, an argument or a name from outside into a metric.

mod answer;
mod door;
mod exposition;
mod metrics;
mod process;
mod sample;
mod steward;

pub use door::{ConsoleParts, ConsoleSettings, HealthFor, router};
pub use exposition::Format;
pub use metrics::{MeasuredRecorder, Metrics};
pub use sample::{CertificateSample, IngestSample, Sample, SecretSample, StoreSample};
pub use steward::{AuditQuestion, Check, Steward};
