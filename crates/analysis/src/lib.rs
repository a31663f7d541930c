//! What a person on call would conclude from the signals: log templates, anomalies, health, likely causes.
//!
//! Guards the difference between "looked and found nothing" and "could not look": every verdict has a form for
//! insufficient data. Everything here is deterministic and bounded in memory. Must not fetch, print or redact.

pub mod anomaly;
pub mod calls;
pub mod chance;
mod evidence;
pub mod health;
mod network;
pub mod statistics;
pub mod suspects;
pub mod templates;

pub use anomaly::{
    Anomaly, AnomalyShape, ChangePoint, DetectOptions, Direction, MetricClass, Verdict, change_point, detect, level_shift,
};
pub use calls::{CallEdge, CallProfile, OwnWork};
pub use chance::Tally;
pub use health::{Health, HealthPart, HealthSignal, HealthSignals, HealthStatus, Measured, Reading, Thresholds, assess};
pub use suspects::{Finding, FindingKind, Ranking, Suspect, SuspectOptions, Traced, rank_suspects};
pub use templates::{LogLine, Miner, MinerOptions, Period, Template, TemplateReport, Windows};
