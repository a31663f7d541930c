//! What to simulate, and the truth about the incident in it.
//!
//! Guards that a nonsensical configuration is refused before any telemetry exists. Nothing here draws random numbers.

use std::time::Duration;

use portcullis_model::{TimeWindow, Timestamp};

/// What goes wrong in the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scenario {
    /// `inventory` v1.8.0 forgets to return database connections: its pool runs dry, `checkout` waits, retries and
    /// answers 504, `frontend` fails on `/checkout`. Needs about 5 requests per second or more to saturate the pools
    /// within three minutes.
    #[default]
    ConnectionPoolLeak,
    /// `catalog` v3.5.0 reads the price of every listed product with its own query: list pages get slow, and so does
    /// everything that lists. Nothing fails.
    QueryPerRow,
    /// `recommendation` v2.4.0 keeps every profile it loads: memory climbs, garbage collection pauses grow, the
    /// container is killed and starts over. Product pages wait for it and then go without.
    MemoryLeak,
    /// Nothing goes wrong. For measuring false alarms.
    Quiet,
}

/// What kind of fault an [`Incident`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IncidentKind {
    /// Connections are taken from a pool and not returned.
    ConnectionPoolLeak,
    /// One query per row of a result (the "N+1" fault).
    QueryPerRow,
    /// Memory is never released until the container is killed.
    MemoryLeak,
}

impl IncidentKind {
    /// A stable word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionPoolLeak => "connection_pool_leak",
            Self::QueryPerRow => "query_per_row",
            Self::MemoryLeak => "memory_leak",
        }
    }
}

/// The truth about what went wrong, for judging answers. Nothing of it is written into the telemetry as such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// What kind of fault.
    pub kind: IncidentKind,
    /// `service.name` of the service that holds the fault.
    pub cause_service: &'static str,
    /// `service.version` that brought it.
    pub cause_version: &'static str,
    /// When that version was rolled out. Symptoms follow within minutes.
    pub onset: Timestamp,
    /// Services that show latency or errors without being at fault.
    pub symptom_services: Vec<&'static str>,
    /// Services that get less to do because orders are lost further up: fewer requests, but no latency and no errors.
    pub starved_services: Vec<&'static str>,
    /// Services that stay as they were.
    pub unaffected_services: Vec<&'static str>,
}

/// What to simulate. Two equal values give the same telemetry, byte for byte.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulationConfig {
    /// Seed of every random draw.
    pub seed: u64,
    /// First instant at which a request may arrive.
    pub start: Timestamp,
    /// No record is later than this. Requests that would still be running are left out whole.
    pub end: Timestamp,
    /// When the faulty version is rolled out. Ignored by [`Scenario::Quiet`].
    pub incident_at: Timestamp,
    /// Mean arrivals at the frontend per second, before the daily rhythm (0.65 to 1.35 times).
    pub requests_per_second: f64,
    /// What goes wrong.
    pub scenario: Scenario,
    /// Simulated time per [`crate::Batch`]; also the export interval of the metrics.
    pub batch_interval: Duration,
}

/// A configuration that cannot be simulated. The caller can fix every one of them.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// No time to simulate, or more than 400 days.
    #[error("start and end do not make a window: {0}")]
    Window(#[from] portcullis_model::WindowError),
    /// Times before 1970 have no OTLP form, times near 2262 no room for durations.
    #[error("{0} is not a time that can be simulated; choose one between 1970-01-01T00:00:00Z and 2200-01-01T00:00:00Z")]
    Era(Timestamp),
    /// The incident would not be seen.
    #[error("the incident at {at} is not between start {start} and end {end}; choose a time inside, or Scenario::Quiet")]
    IncidentOutside {
        /// As configured.
        at: Timestamp,
        /// As configured.
        start: Timestamp,
        /// As configured.
        end: Timestamp,
    },
    /// Not a usable rate.
    #[error("{0} requests per second cannot be simulated; choose more than 0 and at most 100000")]
    Rate(f64),
    /// Not a usable batch length.
    #[error("a batch of {0:?} cannot be simulated; choose 100 ms to 10 min")]
    BatchInterval(Duration),
}

const MAX_RATE: f64 = 100_000.0;

impl SimulationConfig {
    /// Twenty requests per second, batches of ten seconds, the default scenario with its onset at 60 % of the window.
    pub fn new(seed: u64, start: Timestamp, end: Timestamp) -> Self {
        let incident_at = start.plus(end.since(start).mul_f64(0.6));
        Self {
            seed,
            start,
            end,
            incident_at,
            requests_per_second: 20.0,
            scenario: Scenario::default(),
            batch_interval: Duration::from_secs(10),
        }
    }

    /// The window `[start, end)` if everything is in order.
    pub(crate) fn check(&self) -> Result<TimeWindow, ConfigError> {
        let era = Timestamp::default()..=Timestamp::from_seconds(7_258_118_400);
        if let Some(outside) = [self.start, self.end].into_iter().find(|at| !era.contains(at)) {
            return Err(ConfigError::Era(outside));
        }
        let window = TimeWindow::new(self.start, self.end)?;
        if self.scenario != Scenario::Quiet && !window.contains(self.incident_at) {
            return Err(ConfigError::IncidentOutside { at: self.incident_at, start: self.start, end: self.end });
        }
        if !(self.requests_per_second > 0.0 && self.requests_per_second <= MAX_RATE) {
            return Err(ConfigError::Rate(self.requests_per_second));
        }
        if !(Duration::from_millis(100)..=Duration::from_mins(10)).contains(&self.batch_interval) {
            return Err(ConfigError::BatchInterval(self.batch_interval));
        }
        Ok(window)
    }

    /// The truth about the incident; `None` for [`Scenario::Quiet`].
    pub fn incident(&self) -> Option<Incident> {
        let onset = self.incident_at;
        match self.scenario {
            Scenario::ConnectionPoolLeak => Some(Incident {
                kind: IncidentKind::ConnectionPoolLeak,
                cause_service: "inventory",
                cause_version: "1.8.0",
                onset,
                symptom_services: vec!["checkout", "frontend"],
                starved_services: vec!["payment", "email"],
                unaffected_services: vec!["cart", "catalog", "recommendation", "shipping"],
            }),
            Scenario::QueryPerRow => Some(Incident {
                kind: IncidentKind::QueryPerRow,
                cause_service: "catalog",
                cause_version: "3.5.0",
                onset,
                symptom_services: vec!["frontend", "recommendation"],
                starved_services: Vec::new(),
                unaffected_services: vec!["cart", "checkout", "inventory", "payment", "shipping", "email"],
            }),
            Scenario::MemoryLeak => Some(Incident {
                kind: IncidentKind::MemoryLeak,
                cause_service: "recommendation",
                cause_version: "2.4.0",
                onset,
                symptom_services: vec!["frontend"],
                starved_services: Vec::new(),
                unaffected_services: vec!["cart", "checkout", "inventory", "payment", "shipping", "email"],
            }),
            Scenario::Quiet => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SimulationConfig {
        let start = Timestamp::from_seconds(1_772_359_200);
        SimulationConfig::new(1, start, start.plus(Duration::from_mins(10)))
    }

    #[test]
    fn the_default_is_in_order() {
        let config = config();
        config.check().unwrap();
        assert_eq!(config.incident_at.since(config.start).as_secs(), 360);
    }

    #[test]
    fn nonsense_is_refused() {
        let good = config();
        let bad = |change: fn(&mut SimulationConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config.check().expect_err("accepted")
        };
        assert!(matches!(bad(|c| c.end = c.start), ConfigError::Window(_)));
        assert!(matches!(bad(|c| c.incident_at = c.end), ConfigError::IncidentOutside { .. }));
        assert!(matches!(bad(|c| c.requests_per_second = 0.0), ConfigError::Rate(_)));
        assert!(matches!(bad(|c| c.requests_per_second = f64::NAN), ConfigError::Rate(_)));
        assert!(matches!(bad(|c| c.batch_interval = Duration::ZERO), ConfigError::BatchInterval(_)));
        assert!(matches!(bad(|c| c.start = Timestamp::from_seconds(-5)), ConfigError::Era(_)));
        assert!(matches!(bad(|c| c.end = Timestamp::from_nanos(i64::MAX)), ConfigError::Era(_)));
    }

    #[test]
    fn the_truth_is_consistent() {
        for scenario in [Scenario::ConnectionPoolLeak, Scenario::QueryPerRow, Scenario::MemoryLeak] {
            let incident = SimulationConfig { scenario, ..config() }.incident().unwrap();
            let listed = [&incident.symptom_services, &incident.starved_services, &incident.unaffected_services];
            let mut all: Vec<_> = listed.into_iter().flatten().copied().chain([incident.cause_service]).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "a service has two roles in {scenario:?}");
        }
        assert_eq!(SimulationConfig { scenario: Scenario::Quiet, ..config() }.incident(), None);
    }
}
