//! What a person on call would conclude from the signals: log templates, anomalies, health, likely causes.
//!
//! Guards the difference between "looked and found nothing" and "could not look": every verdict has a form for
//! insufficient data. Everything here is deterministic and bounded in memory. Must not fetch, print or redact.

pub mod anomaly;
pub mod calls;
pub mod health;
pub mod statistics;
pub mod suspects;
pub mod templates;

pub use anomaly::{Anomaly, AnomalyShape, ChangePoint, DetectOptions, Direction, MetricClass, Verdict, change_point, detect};
pub use calls::{CallEdge, OwnWork, edges_from_spans, own_work_from_spans};
pub use health::{Health, HealthPart, HealthSignal, HealthSignals, HealthStatus, Measured, Reading, Thresholds, assess};
pub use suspects::{Finding, FindingKind, Ranking, Suspect, SuspectOptions, rank_suspects};
pub use templates::{LogLine, Miner, MinerOptions, Period, Template, TemplateReport, Windows};
