//! Which metrics mean CPU, memory, requests, failures, latency and saturation, by convention. Data, not code: the rules
//! that turn it into queries are in `resolve`. Must only name metrics that their makers document.
//!
//! Sources: OpenTelemetry semantic conventions 1.23 to 1.37 as Prometheus writes them (with unit suffixes, and dotted
//! UTF-8 names), the Prometheus client libraries, Micrometer, go-grpc-prometheus, cAdvisor, kube-state-metrics, node
//! exporter, Istio's standard metrics, the span metrics connector and Tempo's metrics generator.

use portcullis_query::QueryError;
use portcullis_query::promql::{LabelName, Matcher};

/// A condition on a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Has the value.
    Is(&'static str, &'static str),
    /// Matches the expression.
    Like(&'static str, &'static str),
    /// Does not match the expression.
    Unlike(&'static str, &'static str),
}

impl Condition {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Is(label, _) | Self::Like(label, _) | Self::Unlike(label, _) => label,
        }
    }

    pub(crate) fn matcher(self) -> Result<Matcher, QueryError> {
        let label = LabelName::new(self.label())?;
        match self {
            Self::Is(_, value) => Ok(Matcher::equal(label, value)),
            Self::Like(_, pattern) => Matcher::regex(label, pattern),
            Self::Unlike(_, pattern) => Matcher::not_regex(label, pattern),
        }
    }
}

/// Through which labels a metric belongs to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The configured service labels.
    Service,
    /// Namespace, pod and container, as the kubelet writes them.
    Container,
    /// Istio's destination labels.
    Mesh,
}

/// Who measured. Earlier ones are closer to the service; a later one only answers when no earlier one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// The process itself.
    Application,
    /// The container runtime.
    Container,
    /// A sidecar of the service mesh.
    Mesh,
    /// Metrics computed from spans.
    Spans,
    /// The machine.
    Host,
}

impl Tier {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Container => "container",
            Self::Mesh => "mesh",
            Self::Spans => "spans",
            Self::Host => "host",
        }
    }
}

/// How a number is read from a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The value itself.
    Level,
    /// Its increase per second.
    Rate,
}

/// A metric that is a level or a rate in a known unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LevelMetric {
    pub(crate) name: &'static str,
    pub(crate) reading: Reading,
    pub(crate) only: &'static [Condition],
    pub(crate) place: Place,
    pub(crate) tier: Tier,
}

const fn process(name: &'static str, reading: Reading) -> LevelMetric {
    LevelMetric { name, reading, only: &[], place: Place::Service, tier: Tier::Application }
}

/// Series of real containers: neither the pod's own cgroup nor its pause container.
const REAL_CONTAINERS: &[Condition] = &[Condition::Unlike("container", "|POD")];

const fn container(name: &'static str, reading: Reading) -> LevelMetric {
    LevelMetric { name, reading, only: REAL_CONTAINERS, place: Place::Container, tier: Tier::Container }
}

const fn host(name: &'static str, reading: Reading, only: &'static [Condition]) -> LevelMetric {
    LevelMetric { name, reading, only, place: Place::Service, tier: Tier::Host }
}

/// CPU in cores.
pub(crate) const CPU: &[LevelMetric] = &[
    process("process_cpu_time_seconds_total", Reading::Rate),
    process("process.cpu.time", Reading::Rate),
    process("process_cpu_seconds_total", Reading::Rate),
    process("jvm_cpu_time_seconds_total", Reading::Rate),
    process("dotnet_process_cpu_time_seconds_total", Reading::Rate),
    process("k8s_pod_cpu_usage", Reading::Level),
    process("container_cpu_usage", Reading::Level),
    container("container_cpu_usage_seconds_total", Reading::Rate),
    host("node_cpu_seconds_total", Reading::Rate, &[Condition::Unlike("mode", "idle|iowait")]),
    host(
        "system_cpu_time_seconds_total",
        Reading::Rate,
        &[Condition::Unlike("cpu_mode", "idle|iowait"), Condition::Unlike("state", "idle|wait")],
    ),
];

/// Memory in bytes.
pub(crate) const MEMORY: &[LevelMetric] = &[
    process("process_memory_usage_bytes", Reading::Level),
    process("process.memory.usage", Reading::Level),
    process("process_resident_memory_bytes", Reading::Level),
    process("dotnet_process_memory_working_set_bytes", Reading::Level),
    process("jvm_memory_used_bytes", Reading::Level),
    process("go_memory_used_bytes", Reading::Level),
    process("k8s_pod_memory_working_set_bytes", Reading::Level),
    container("container_memory_working_set_bytes", Reading::Level),
    host("node_memory_Active_bytes", Reading::Level, &[]),
    host("system_memory_usage_bytes", Reading::Level, &[Condition::Is("state", "used")]),
];

/// What kind of requests a metric counts; two kinds are different requests and add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Traffic {
    Http,
    Rpc,
}

impl Traffic {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Rpc => "rpc",
        }
    }
}

/// A metric of served requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestMetric {
    /// Name of the counter, or base name of the histogram.
    pub(crate) name: &'static str,
    /// Factor from the histogram's unit to seconds; `None` for a plain counter.
    pub(crate) seconds: Option<f64>,
    pub(crate) traffic: Traffic,
    pub(crate) tier: Tier,
    pub(crate) place: Place,
    pub(crate) only: &'static [Condition],
    /// Failed requests: any of these, of the labels the metric has.
    pub(crate) failed: &'static [Condition],
}

const HTTP_FAILED: &[Condition] = &[
    Condition::Like("http_response_status_code", "5.."),
    Condition::Like("http_status_code", "5.."),
    Condition::Like("status_code", "5.."),
    Condition::Like("status", "5..|5xx"),
    Condition::Like("code", "5..|5xx"),
    Condition::Like("response_code", "5.."),
    Condition::Like("http_status", "5.."),
];
const HTTP_DOTTED_FAILED: &[Condition] = &[Condition::Like("http.response.status_code", "5..")];
/// The codes for which the server is at fault (OpenTelemetry RPC conventions): unknown, deadline exceeded,
/// unimplemented, internal, unavailable, data loss.
const RPC_FAILED: &[Condition] = &[
    Condition::Like("rpc_grpc_status_code", "2|4|12|13|14|15"),
    Condition::Like("rpc_response_status_code", "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"),
];
const GRPC_FAILED: &[Condition] =
    &[Condition::Like("grpc_code", "Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss")];
const SPAN_FAILED: &[Condition] = &[Condition::Is("status_code", "STATUS_CODE_ERROR")];
const SERVER_SPANS: &[Condition] = &[Condition::Like("span_kind", "SPAN_KIND_SERVER|SPAN_KIND_CONSUMER")];
const AT_DESTINATION: &[Condition] = &[Condition::Is("reporter", "destination")];
const ISTIO_FAILED: &[Condition] = &[Condition::Like("response_code", "5..|0")];

const SECONDS: Option<f64> = Some(1.0);
const MILLISECONDS: Option<f64> = Some(0.001);

const fn served(name: &'static str, seconds: Option<f64>, traffic: Traffic, failed: &'static [Condition]) -> RequestMetric {
    RequestMetric { name, seconds, traffic, tier: Tier::Application, place: Place::Service, only: &[], failed }
}

const fn spans(name: &'static str, seconds: Option<f64>) -> RequestMetric {
    RequestMetric {
        name,
        seconds,
        traffic: Traffic::Http,
        tier: Tier::Spans,
        place: Place::Service,
        only: SERVER_SPANS,
        failed: SPAN_FAILED,
    }
}

const fn mesh(name: &'static str, seconds: Option<f64>) -> RequestMetric {
    RequestMetric {
        name,
        seconds,
        traffic: Traffic::Http,
        tier: Tier::Mesh,
        place: Place::Mesh,
        only: AT_DESTINATION,
        failed: ISTIO_FAILED,
    }
}

/// Served requests, best first. Where one instance has several, the first one counts.
pub(crate) const REQUESTS: &[RequestMetric] = &[
    served("http_server_request_duration_seconds", SECONDS, Traffic::Http, HTTP_FAILED),
    served("http.server.request.duration", SECONDS, Traffic::Http, HTTP_DOTTED_FAILED),
    served("http.server.request.duration_seconds", SECONDS, Traffic::Http, HTTP_DOTTED_FAILED),
    served("http_server_duration_milliseconds", MILLISECONDS, Traffic::Http, HTTP_FAILED),
    served("http_server_duration_seconds", SECONDS, Traffic::Http, HTTP_FAILED),
    served("http_server_requests_seconds", SECONDS, Traffic::Http, HTTP_FAILED),
    served("http_requests_total", None, Traffic::Http, HTTP_FAILED),
    served("http_request_duration_seconds", SECONDS, Traffic::Http, HTTP_FAILED),
    served("http_server_requests_total", None, Traffic::Http, HTTP_FAILED),
    served("flask_http_request_duration_seconds", SECONDS, Traffic::Http, HTTP_FAILED),
    served("traefik_service_request_duration_seconds", SECONDS, Traffic::Http, HTTP_FAILED),
    served("prometheus_http_requests_total", None, Traffic::Http, HTTP_FAILED),
    served("prometheus_http_request_duration_seconds", SECONDS, Traffic::Http, HTTP_FAILED),
    served("promhttp_metric_handler_requests_total", None, Traffic::Http, HTTP_FAILED),
    served("rpc_server_call_duration_seconds", SECONDS, Traffic::Rpc, RPC_FAILED),
    served("rpc_server_duration_milliseconds", MILLISECONDS, Traffic::Rpc, RPC_FAILED),
    served("rpc_server_duration_seconds", SECONDS, Traffic::Rpc, RPC_FAILED),
    served("grpc_server_handled_total", None, Traffic::Rpc, GRPC_FAILED),
    served("grpc_server_handling_seconds", SECONDS, Traffic::Rpc, GRPC_FAILED),
    mesh("istio_requests_total", None),
    mesh("istio_request_duration_milliseconds", MILLISECONDS),
    spans("traces_spanmetrics_calls_total", None),
    spans("traces_spanmetrics_latency", SECONDS),
    spans("traces_span_metrics_calls_total", None),
    spans("traces_span_metrics_duration_milliseconds", MILLISECONDS),
    spans("traces_span_metrics_duration_seconds", SECONDS),
];

/// One side of a saturation ratio.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term {
    pub(crate) name: &'static str,
    pub(crate) reading: Reading,
    pub(crate) only: &'static [Condition],
}

const fn level(name: &'static str) -> Term {
    Term { name, reading: Reading::Level, only: &[] }
}

const fn of_containers(name: &'static str, reading: Reading) -> Term {
    Term { name, reading, only: REAL_CONTAINERS }
}

/// How full something is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SaturationMetric {
    /// What is full, for the label `resource`.
    pub(crate) resource: &'static str,
    pub(crate) used: Term,
    /// What it is measured against; `None` when `used` is a ratio already.
    pub(crate) limit: Option<Term>,
    /// The ratio says how much is free.
    pub(crate) free: bool,
    pub(crate) place: Place,
}

const fn pool(resource: &'static str, used: Term, limit: Term) -> SaturationMetric {
    SaturationMetric { resource, used, limit: Some(limit), free: false, place: Place::Service }
}

const fn free(resource: &'static str, available: &'static str, all: &'static str) -> SaturationMetric {
    SaturationMetric { resource, used: level(available), limit: Some(level(all)), free: true, place: Place::Service }
}

const fn share(resource: &'static str, name: &'static str) -> SaturationMetric {
    SaturationMetric { resource, used: level(name), limit: None, free: false, place: Place::Service }
}

const fn of_pod(resource: &'static str, used: Term, limit: Term) -> SaturationMetric {
    SaturationMetric { resource, used, limit: Some(limit), free: false, place: Place::Container }
}

const USED: &[Condition] = &[Condition::Is("state", "used")];
const USED_NEW: &[Condition] = &[Condition::Is("db_client_connection_state", "used")];
const CPU_LIMIT: &[Condition] = &[Condition::Is("resource", "cpu")];
const MEMORY_LIMIT: &[Condition] = &[Condition::Is("resource", "memory")];
const HEAP: &[Condition] = &[Condition::Like("area", "|heap"), Condition::Like("jvm_memory_type", "|heap")];
const REAL_DISKS: &[Condition] = &[Condition::Unlike("fstype", "tmpfs|ramfs|overlay|squashfs|iso9660|fuse.*")];

/// Pools, queues and limits.
pub(crate) const SATURATION: &[SaturationMetric] = &[
    pool(
        "db_connections",
        Term { name: "db_client_connection_count", reading: Reading::Level, only: USED_NEW },
        level("db_client_connection_max"),
    ),
    pool(
        "db_connections",
        Term { name: "db_client_connections_usage", reading: Reading::Level, only: USED },
        level("db_client_connections_max"),
    ),
    pool("db_connections", level("hikaricp_connections_active"), level("hikaricp_connections_max")),
    pool("db_connections", level("jdbc_connections_active"), level("jdbc_connections_max")),
    pool("db_connections", level("go_sql_in_use_connections"), level("go_sql_max_open_connections")),
    pool("threads", level("tomcat_threads_busy_threads"), level("tomcat_threads_config_max_threads")),
    pool("executor", level("executor_active_threads"), level("executor_pool_max_threads")),
    pool(
        "heap",
        Term { name: "jvm_memory_used_bytes", reading: Reading::Level, only: HEAP },
        Term { name: "jvm_memory_max_bytes", reading: Reading::Level, only: HEAP },
    ),
    pool("file_descriptors", level("process_open_fds"), level("process_max_fds")),
    share("event_loop", "nodejs_eventloop_utilization_ratio"),
    of_pod(
        "cpu_throttling",
        of_containers("container_cpu_cfs_throttled_periods_total", Reading::Rate),
        of_containers("container_cpu_cfs_periods_total", Reading::Rate),
    ),
    of_pod(
        "cpu_limit",
        of_containers("container_cpu_usage_seconds_total", Reading::Rate),
        Term { name: "kube_pod_container_resource_limits", reading: Reading::Level, only: CPU_LIMIT },
    ),
    of_pod(
        "memory_limit",
        of_containers("container_memory_working_set_bytes", Reading::Level),
        Term { name: "kube_pod_container_resource_limits", reading: Reading::Level, only: MEMORY_LIMIT },
    ),
    of_pod(
        "memory_limit",
        of_containers("container_memory_working_set_bytes", Reading::Level),
        of_containers("container_spec_memory_limit_bytes", Reading::Level),
    ),
    free("memory", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"),
    SaturationMetric {
        resource: "disk",
        used: Term { name: "node_filesystem_avail_bytes", reading: Reading::Level, only: REAL_DISKS },
        limit: Some(Term { name: "node_filesystem_size_bytes", reading: Reading::Level, only: REAL_DISKS }),
        free: true,
        place: Place::Service,
    },
];

/// Labels that tell pools, disks and the like of one instance apart.
pub(crate) const PARTS: &[&str] = &[
    "pool",
    "pool_name",
    "db_client_connection_pool_name",
    "db_client_connections_pool_name",
    "name",
    "db_name",
    "id",
    "jvm_memory_pool_name",
    "mountpoint",
    "device",
];

/// Labels of a container, as the kubelet and kube-state-metrics both write them.
pub(crate) const CONTAINER_LABELS: &[&str] = &["namespace", "pod", "container"];

/// Labels of a workload behind a mesh's sidecar.
pub(crate) const MESH_SERVICE_LABELS: [&str; 2] = ["destination_service_name", "destination_workload"];

/// What follows a workload's name in the names of its pods: the hashes of a Deployment, a number of a StatefulSet, or
/// the hash of a DaemonSet (the alphabet is that of Kubernetes' `rand.SafeEncodeString`).
pub(crate) const POD_SUFFIX: &str =
    "-([bcdfghjklmnpqrstvwxz2456789]{5,10}-[bcdfghjklmnpqrstvwxz2456789]{5}|[0-9]+|[bcdfghjklmnpqrstvwxz2456789]{5})";

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_query::promql::MetricName;

    #[test]
    fn every_entry_can_be_written_and_read() {
        let conditions = CPU
            .iter()
            .chain(MEMORY)
            .map(|m| (m.name, m.only))
            .chain(REQUESTS.iter().flat_map(|m| [(m.name, m.only), (m.name, m.failed)]))
            .chain(SATURATION.iter().flat_map(|s| [Some(s.used), s.limit]).flatten().map(|t| (t.name, t.only)));
        for (name, conditions) in conditions {
            assert!(MetricName::new(name).is_ok());
            for condition in conditions {
                let selector = portcullis_query::promql::Selector::metric(MetricName::new(name).unwrap())
                    .matching(condition.matcher().unwrap());
                assert!(portcullis_query::promql_info(&selector.to_string()).is_ok(), "{selector}");
            }
        }
    }
}
