//! The pods: who runs which version from when to when, and what their telemetry says about them.
//!
//! Guards that every pod has one identity and that there is always somebody to answer. Rollouts are decided here,
//! before the first request; what a version does wrong is not.

use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::config::{Scenario, SimulationConfig};
use crate::otlp::text;
use crate::random::{Dice, SECOND};
use crate::services::Service;

/// One process with one identity.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    /// Whose it is.
    pub(crate) service: Service,
    /// `service.version`.
    pub(crate) version: &'static str,
    /// `k8s.pod.name`.
    pub(crate) name: String,
    /// `k8s.node.name` and `host.name`.
    pub(crate) host: String,
    /// `service.instance.id`: a new one after every restart.
    pub(crate) instance: String,
    /// First instant it takes requests, nanoseconds.
    pub(crate) from: i64,
    /// First instant it takes no more, nanoseconds.
    pub(crate) until: i64,
    /// How often its container was restarted.
    pub(crate) restarts: u32,
    /// Whether it runs the version at fault.
    pub(crate) faulty: bool,
}

impl Pod {
    /// Whether it takes requests at `at`.
    pub(crate) fn serves(&self, at: i64) -> bool {
        self.from <= at && at < self.until
    }

    /// The OTLP resource.
    pub(crate) fn resource(&self) -> Resource {
        let profile = self.service.profile();
        let attributes = vec![
            text("service.name", profile.name),
            text("service.namespace", "shop"),
            text("service.version", self.version),
            text("service.instance.id", self.instance.clone()),
            text("deployment.environment.name", "production"),
            text("k8s.cluster.name", "shop-eu-1"),
            text("k8s.namespace.name", "shop"),
            text("k8s.deployment.name", profile.name),
            text("k8s.pod.name", self.name.clone()),
            text("k8s.node.name", self.host.clone()),
            text("host.name", self.host.clone()),
            text("telemetry.sdk.language", profile.language),
        ];
        Resource { attributes, ..Resource::default() }
    }
}

/// A new version reaching some pods of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// Who gets it.
    pub(crate) service: Service,
    /// Which version.
    pub(crate) version: &'static str,
    /// When the first pod is replaced, nanoseconds.
    pub(crate) at: i64,
    /// How many pods are replaced.
    pub(crate) pods: usize,
    /// Whether it brings the fault.
    pub(crate) faulty: bool,
}

/// Time between two pods of a rollout.
const ROLLOUT_STEP: i64 = 12 * SECOND;

/// How long a leaking recommendation container lives until it is killed.
pub(crate) const MEMORY_LEAK_LIFETIME: i64 = 420 * SECOND;

/// Every pod that ever exists in the simulation.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    /// In order of service, then of start.
    pub(crate) pods: Vec<Pod>,
    /// In order of time.
    pub(crate) rollouts: Vec<Rollout>,
    members: Vec<Vec<usize>>,
}

/// The rollouts of a scenario: the one with the fault, and an innocent one before it.
fn rollouts(config: &SimulationConfig) -> Vec<Rollout> {
    let start = config.start.as_nanos();
    let onset = config.incident_at.as_nanos();
    let innocent_at = start + config.incident_at.since(config.start).mul_f64(0.55).as_nanos() as i64;
    let innocent = Rollout { service: Service::Shipping, version: "1.4.0", at: innocent_at, pods: 2, faulty: false };
    let faulty = |service, version, pods| Rollout { service, version, at: onset, pods, faulty: true };
    match config.scenario {
        Scenario::ConnectionPoolLeak => vec![innocent, faulty(Service::Inventory, "1.8.0", 3)],
        Scenario::QueryPerRow => vec![innocent, faulty(Service::Catalog, "3.5.0", 3)],
        Scenario::MemoryLeak => vec![innocent, faulty(Service::Recommendation, "2.4.0", 2)],
        Scenario::Quiet => {
            let at = start + config.end.since(config.start).mul_f64(0.4).as_nanos() as i64;
            vec![Rollout { at, ..innocent }]
        }
    }
}

const POD_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

impl Fleet {
    /// All pods of a configuration.
    pub(crate) fn new(config: &SimulationConfig) -> Self {
        let mut dice = Dice::new(config.seed, 1);
        let rollouts = rollouts(config);
        let mut fleet = Self { pods: Vec::new(), rollouts: rollouts.clone(), members: Vec::new() };
        let hosts: Vec<String> = (0..5).map(|_| format!("node-{}", dice.text(b"0123456789abcdef", 6))).collect();
        for service in Service::ALL {
            let profile = service.profile();
            let old_set = dice.text(POD_LETTERS, 9);
            let rollout = rollouts.iter().find(|rollout| rollout.service == service);
            let new_set = dice.text(POD_LETTERS, 9);
            fleet.members.push(Vec::new());
            for replica in 0..profile.replicas {
                let replaced_at = rollout
                    .filter(|rollout| replica < rollout.pods)
                    .map(|rollout| rollout.at + ROLLOUT_STEP * (replica as i64 + 1));
                let mut pod = |version, set: &str, from, until, faulty| Pod {
                    service,
                    version,
                    name: format!("{}-{set}-{}", profile.name, dice.text(POD_LETTERS, 5)),
                    host: dice.pick(&hosts).cloned().unwrap_or_default(),
                    instance: instance_id(&mut dice),
                    from,
                    until,
                    restarts: 0,
                    faulty,
                };
                let old = pod(profile.version, &old_set, config.start.as_nanos(), replaced_at.unwrap_or(i64::MAX), false);
                let new =
                    replaced_at.zip(rollout).map(|(at, rollout)| pod(rollout.version, &new_set, at, i64::MAX, rollout.faulty));
                fleet.add(old);
                if let Some(new) = new {
                    fleet.add_with_restarts(new, config, &mut dice);
                }
            }
        }
        fleet
    }

    fn add(&mut self, pod: Pod) {
        if let Some(members) = self.members.last_mut() {
            members.push(self.pods.len());
            self.pods.push(pod);
        }
    }

    /// A leaking container is killed and starts over until the end; everything else lives on.
    fn add_with_restarts(&mut self, pod: Pod, config: &SimulationConfig, dice: &mut Dice) {
        if !(pod.faulty && config.scenario == Scenario::MemoryLeak) {
            self.add(pod);
            return;
        }
        let end = config.end.plus(Duration::from_secs(1)).as_nanos();
        let mut from = pod.from;
        let mut restarts = 0;
        while from < end {
            let until = from + MEMORY_LEAK_LIFETIME + dice.below(20) as i64 * SECOND;
            let instance = if restarts == 0 { pod.instance.clone() } else { instance_id(dice) };
            self.add(Pod { instance, from, until, restarts, ..pod.clone() });
            restarts += 1;
            from = until;
        }
    }

    /// A pod of `service` that serves at `at`, chosen at random as a service mesh does.
    pub(crate) fn route(&self, dice: &mut Dice, service: Service, at: i64) -> usize {
        let members = self.members.get(service as usize).map_or(&[][..], Vec::as_slice);
        let serving = members.iter().copied().filter(|&pod| self.pods[pod].serves(at));
        let chosen = dice.below(serving.clone().count() as u64) as usize;
        serving.clone().nth(chosen).or_else(|| members.first().copied()).unwrap_or(0)
    }
}

/// A random UUID (version 4), as SDKs generate for `service.instance.id`.
fn instance_id(dice: &mut Dice) -> String {
    let (high, low) = (dice.bits(), dice.bits());
    let (high, low) = (high & !0xF000 | 0x4000, low & !(0b11 << 62) | 0b10 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xFFFF,
        high & 0xFFFF,
        low >> 48,
        low & 0xFFFF_FFFF_FFFF
    )
}

#[cfg(test)]
mod tests {
    use portcullis_model::Timestamp;

    use super::*;

    fn config(scenario: Scenario) -> SimulationConfig {
        let start = Timestamp::from_seconds(1_772_359_200);
        SimulationConfig { scenario, ..SimulationConfig::new(3, start, start.plus(Duration::from_hours(1))) }
    }

    #[test]
    fn every_service_is_always_served() {
        for scenario in [Scenario::ConnectionPoolLeak, Scenario::QueryPerRow, Scenario::MemoryLeak, Scenario::Quiet] {
            let config = config(scenario);
            let (fleet, mut dice) = (Fleet::new(&config), Dice::new(1, 2));
            for second in 0..3_600 {
                let at = config.start.as_nanos() + second * SECOND;
                for service in Service::ALL {
                    let pod = &fleet.pods[fleet.route(&mut dice, service, at)];
                    assert!(pod.serves(at) && pod.service == service, "{scenario:?} {service:?} {second}");
                }
            }
        }
    }

    #[test]
    fn the_faulty_version_reaches_three_of_four_inventory_pods_after_the_onset() {
        let config = config(Scenario::ConnectionPoolLeak);
        let fleet = Fleet::new(&config);
        let faulty: Vec<_> = fleet.pods.iter().filter(|pod| pod.faulty).collect();
        assert_eq!(faulty.len(), 3);
        let onset = config.incident_at.as_nanos();
        assert!(faulty.iter().all(|pod| pod.version == "1.8.0" && pod.from > onset && pod.from < onset + 60 * SECOND));
        let untouched = fleet.pods.iter().filter(|p| p.service == Service::Inventory && p.until == i64::MAX && !p.faulty);
        assert_eq!(untouched.count(), 1);
    }

    #[test]
    fn instances_are_unique_uuids() {
        let mut instances: Vec<_> = Fleet::new(&config(Scenario::MemoryLeak)).pods.into_iter().map(|p| p.instance).collect();
        let count = instances.len();
        instances.sort();
        instances.dedup();
        assert_eq!(instances.len(), count);
        assert!(instances.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19])));
    }
}
