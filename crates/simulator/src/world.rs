//! The shop's state while it runs: pods, pools, faults, and the source of chance.
//!
//! Guards that a fault exists only in pods that run the faulty version. It holds no telemetry.

use crate::config::{Scenario, SimulationConfig};
use crate::fleet::{Fleet, MEMORY_LEAK_LIFETIME};
use crate::pool::Pool;
use crate::random::Dice;
use crate::services::{ORDER_SHARE, Service};

/// Seconds in which a leaking pool runs dry at the configured rate.
const SATURATION_SECONDS: f64 = 150.0;

/// What the running shop consists of.
#[derive(Debug)]
pub(crate) struct World {
    /// Chance.
    pub(crate) dice: Dice,
    /// Everybody.
    pub(crate) fleet: Fleet,
    /// The pool of each pod, by index into the fleet.
    pub(crate) pools: Vec<Option<Pool>>,
    scenario: Scenario,
    leak_probability: f64,
}

impl World {
    /// The shop of a configuration, before its first request.
    pub(crate) fn new(config: &SimulationConfig) -> Self {
        let fleet = Fleet::new(config);
        let pool = |pod: &crate::fleet::Pod| pod.service.profile().pool.map(|(name, size)| Pool::new(name, size));
        let pools = fleet.pods.iter().map(pool).collect();
        let inventory = Service::Inventory.profile();
        let size = inventory.pool.map_or(0, |(_, size)| size) as f64;
        let reservations = config.requests_per_second * ORDER_SHARE / inventory.replicas as f64;
        Self {
            dice: Dice::new(config.seed, 0),
            fleet,
            pools,
            scenario: config.scenario,
            leak_probability: (size / (reservations * SATURATION_SECONDS)).min(1.0),
        }
    }

    fn faulty(&self, pod: usize, scenario: Scenario) -> bool {
        self.scenario == scenario && self.fleet.pods[pod].faulty
    }

    /// Whether this pod forgets, this time, to return its connection.
    pub(crate) fn leaks_connection(&mut self, pod: usize) -> bool {
        self.faulty(pod, Scenario::ConnectionPoolLeak) && self.dice.chance(self.leak_probability)
    }

    /// Whether this pod asks once per row.
    pub(crate) fn queries_per_row(&self, pod: usize) -> bool {
        self.faulty(pod, Scenario::QueryPerRow)
    }

    /// How full of leaked memory this pod is at `at`: 0 for a healthy one, 1 just before it is killed.
    pub(crate) fn leaked_memory(&self, pod: usize, at: i64) -> f64 {
        if !self.faulty(pod, Scenario::MemoryLeak) {
            return 0.0;
        }
        let age = at.saturating_sub(self.fleet.pods[pod].from).max(0);
        (age as f64 / MEMORY_LEAK_LIFETIME as f64).min(1.0)
    }
}
