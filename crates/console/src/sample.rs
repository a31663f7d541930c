//! What is measured by looking: the values of one scrape, and how they are written.
//!
//! Names of sources, sinks, secrets and listeners are those of the configuration, so there are few.

use portcullis_audit::{AuditCounts, SinkState};
use portcullis_egress::EgressCounts;
use portcullis_gateway::{GateLoad, SharedCounts, SharedState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::process::ProcessSample;
use crate::steward::Check;

/// The values of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// How full the house is.
    pub load: GateLoad,
    /// What was exchanged with other replicas, where rates can be shared.
    pub shared_rates: Option<SharedCounts>,
    /// Sessions of the older protocol eras.
    pub sessions: usize,
    /// Tools in the catalogue.
    pub tools: usize,
    /// What was written to the audit log.
    pub audit: AuditCounts,
    /// How the audit sinks stand.
    pub sinks: Vec<SinkState>,
    /// The embedded store, when it is on and ours.
    pub store: Option<StoreSample>,
    /// What went out.
    pub egress: Vec<EgressCounts>,
    /// The secrets the configuration names.
    pub secrets: Vec<SecretSample>,
    /// The certificates of the listeners.
    pub certificates: Vec<CertificateSample>,
    /// Conditions of being ready.
    pub checks: Vec<Check>,
    /// Whether the last changed configuration file was taken over.
    pub configuration_in_force: bool,
}

/// The embedded store.
#[derive(Debug, Clone, Default)]
pub struct StoreSample {
    /// What came in, by signal.
    pub ingest: Vec<IngestSample>,
    /// Requests the OTLP listeners refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Questions that were let in to read.
    pub queries: u64,
    /// Rows it holds.
    pub rows: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes in memory that are not yet on disk as segments.
    pub buffered_bytes: u64,
}

/// What came in of one signal.
#[derive(Debug, Clone, Copy)]
pub struct IngestSample {
    /// `logs`, `traces` or `metrics`.
    pub signal: &'static str,
    /// Records that were stored.
    pub accepted: u64,
    /// Records that were not.
    pub rejected: u64,
    /// Bytes of the requests.
    pub bytes: u64,
}

/// One secret; never its value.
#[derive(Debug, Clone)]
pub struct SecretSample {
    /// As the configuration names it.
    pub name: String,
    /// Whether a request that needs it goes out.
    pub usable: bool,
    /// When it ends, seconds since 1970; absent when it does not.
    pub expires: Option<f64>,
}

/// One certificate.
#[derive(Debug, Clone)]
pub struct CertificateSample {
    /// The setting it comes from.
    pub listener: &'static str,
    /// When it ends, seconds since 1970.
    pub expires: f64,
}

/// The labels of one series.
type Series<'a> = Vec<(&'static str, &'a str)>;

/// Writes metrics one after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counters<'s>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Series<'s>, u64)>) -> std::fmt::Result {
        let values: Vec<_> = values.into_iter().collect();
        if values.is_empty() {
            return Ok(());
        }
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            if labels.is_empty() {
                metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges<'s>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Series<'s>, f64)>) -> std::fmt::Result {
        let values: Vec<_> = values.into_iter().collect();
        if values.is_empty() {
            return Ok(());
        }
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            if labels.is_empty() {
                metric.encode_gauge(&value)?;
            } else {
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        self.counters(name, help, [(Vec::new(), value)])
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) -> std::fmt::Result {
        self.gauges(name, help, value.into().map(|value| (Vec::new(), value)))
    }
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

/// Writes a [`Sample`].
#[derive(Debug)]
pub(crate) struct SampleCollector(pub(crate) Sample);

impl Collector for SampleCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut writer = Writer(encoder);
        let sample = &self.0;
        writer
            .0
            .encode_descriptor("build", "The version that runs.", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        gate(&mut writer, sample)?;
        if let Some(counts) = &sample.shared_rates {
            replicas(&mut writer, counts)?;
        }
        audit(&mut writer, sample)?;
        if let Some(store) = &sample.store {
            self::store(&mut writer, store)?;
        }
        outside(&mut writer, sample)
    }
}

fn gate(writer: &mut Writer<'_>, sample: &Sample) -> std::fmt::Result {
    let load = sample.load;
    writer.gauge("calls_in_flight", "Calls running now.", load.running as f64)?;
    writer.gauge("calls_in_flight_limit", "Calls that may run at once.", load.running_limit as f64)?;
    writer.gauge("calls_queued", "Calls waiting for a place now.", load.waiting as f64)?;
    writer.gauge("calls_queued_limit", "Calls that may wait.", load.waiting_limit as f64)?;
    writer.gauge("sessions", "Sessions of the older protocol eras that are open.", sample.sessions as f64)?;
    writer.gauge("tools", "Tools in the catalogue.", sample.tools as f64)?;
    writer.gauge(
        "config_last_reload_successful",
        "Whether the configuration file as it is now is in force.",
        flag(sample.configuration_in_force),
    )?;
    let checks = sample.checks.iter().map(|check| (vec![("check", check.name)], flag(check.holds())));
    writer.gauges("ready", "Whether each condition of being ready holds.", checks)
}

fn replicas(writer: &mut Writer<'_>, counts: &SharedCounts) -> std::fmt::Result {
    let (others, divided) = match counts.state {
        SharedState::Alone => (0, false),
        SharedState::Shared(others) => (others, false),
        SharedState::Divided(others) => (others, true),
    };
    writer.gauge("shared_rate_replicas", "Other replicas that share the rates, as last seen.", others as f64)?;
    writer.gauge(
        "shared_rate_divided",
        "Whether the store cannot be reached, so that this replica lets in its share of each rate.",
        flag(divided),
    )?;
    writer.counter("shared_rate_boards_written", "Times this replica wrote what it let in.", counts.written)?;
    writer.counter("shared_rate_boards_read", "Boards of other replicas that were read.", counts.read)?;
    writer.counter("shared_rate_exchange_failures", "Exchanges with the store that failed or took too long.", counts.failed)?;
    writer.gauge(
        "shared_rate_age_seconds",
        "How old what is known of the other replicas is.",
        counts.age.map(|age| age.as_secs_f64()),
    )
}

fn audit(writer: &mut Writer<'_>, sample: &Sample) -> std::fmt::Result {
    writer.counter("audit_records", "Audit records written by this process.", sample.audit.appended)?;
    writer.counter("audit_write_failures", "Audit records that could not be written.", sample.audit.failed)?;
    writer.gauge(
        "audit_unrecorded_calls",
        "Calls that went ahead without a record and are not yet accounted for by one.",
        sample.audit.unrecorded as f64,
    )?;
    let counters =
        |value: fn(&SinkState) -> u64| sample.sinks.iter().map(move |sink| (vec![("sink", sink.name.as_str())], value(sink)));
    let gauges = |value: fn(&SinkState) -> u64| {
        sample.sinks.iter().map(move |sink| (vec![("sink", sink.name.as_str())], value(sink) as f64))
    };
    writer.gauges("audit_sink_backlog_records", "Audit records a sink has not got.", gauges(|sink| sink.lag_records))?;
    writer.gauges("audit_sink_backlog_age_seconds", "Age of the oldest of them.", gauges(|sink| sink.lag_seconds))?;
    writer.gauges(
        "audit_sink_blocking",
        "Whether calls stop because of a sink.",
        gauges(|sink| sink.blocking.is_some().into()),
    )?;
    writer.counters(
        "audit_sink_records",
        "Audit records a sink took, since it was first fed.",
        counters(|sink| sink.delivered),
    )?;
    writer.counters("audit_sink_set_aside_records", "Audit records a sink refused for good.", counters(|sink| sink.set_aside))?;
    writer.counters("audit_sink_lost_records", "Audit records that were gone before a sink got them.", counters(|sink| sink.lost))
}

fn store(writer: &mut Writer<'_>, store: &StoreSample) -> std::fmt::Result {
    let records = store.ingest.iter().flat_map(|one| {
        [("accepted", one.accepted), ("rejected", one.rejected)]
            .map(|(result, count)| (vec![("signal", one.signal), ("result", result)], count))
    });
    writer.counters("ingest_records", "Records that came in over OTLP, by signal and whether they were stored.", records)?;
    let bytes = store.ingest.iter().map(|one| (vec![("signal", one.signal)], one.bytes));
    writer.counters("ingest_bytes", "Bytes of stored OTLP requests, unpacked.", bytes)?;
    let refused = store.refused.iter().map(|(reason, count)| (vec![("reason", *reason)], *count));
    writer.counters("ingest_refused_requests", "OTLP requests that were refused, by the reason.", refused)?;
    writer.counter("store_queries", "Questions the embedded store was asked.", store.queries)?;
    writer.gauge("store_rows", "Rows in the embedded store.", store.rows as f64)?;
    writer.gauge("store_disk_bytes", "Bytes of the embedded store on disk.", store.disk_bytes as f64)?;
    writer.gauge(
        "store_buffered_bytes",
        "Bytes of rows that are only in memory and in the write-ahead log.",
        store.buffered_bytes as f64,
    )
}

fn outside(writer: &mut Writer<'_>, sample: &Sample) -> std::fmt::Result {
    let requests = sample.egress.iter().flat_map(|one| {
        let of = move |(outcome, count): &(&'static str, u64)| (vec![("source", &*one.name), ("outcome", *outcome)], *count);
        one.requests.iter().map(of)
    });
    writer.counters("egress_requests", "Requests to backends and other services, by name and how they ended.", requests)?;
    let circuits = sample.egress.iter().filter_map(|one| Some((vec![("source", &*one.name)], flag(one.circuit_open?))));
    writer.gauges(
        "egress_circuit_open",
        "Whether requests are turned away because the other side failed too often.",
        circuits,
    )?;
    let usable = sample.secrets.iter().map(|secret| (vec![("secret", secret.name.as_str())], flag(secret.usable)));
    writer.gauges("secret_usable", "Whether a secret can be used.", usable)?;
    let ends = sample.secrets.iter().filter_map(|secret| Some((vec![("secret", secret.name.as_str())], secret.expires?)));
    writer.gauges("secret_expiry_timestamp_seconds", "When a secret ends, seconds since 1970.", ends)?;
    let ends = sample.certificates.iter().map(|one| (vec![("listener", one.listener)], one.expires));
    writer.gauges("certificate_expiry_timestamp_seconds", "When the certificate of a listener ends, seconds since 1970.", ends)
}

/// Writes a [`ProcessSample`].
#[derive(Debug)]
pub(crate) struct ProcessCollector(pub(crate) ProcessSample);

impl Collector for ProcessCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut writer = Writer(encoder);
        let process = self.0;
        let whole = |value: Option<u64>| value.map(|value| value as f64);
        if let Some(seconds) = process.cpu_seconds {
            let mut metric =
                writer.0.encode_descriptor("process_cpu_seconds", "Time of processors used.", None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
        }
        writer.gauge("process_resident_memory_bytes", "Memory that is resident.", whole(process.resident_bytes))?;
        writer.gauge("process_virtual_memory_bytes", "Address space.", whole(process.virtual_bytes))?;
        writer.gauge("process_threads", "Threads.", whole(process.threads))?;
        writer.gauge("process_open_fds", "Open file descriptors.", whole(process.open_files))?;
        writer.gauge("process_max_fds", "File descriptors that may be open.", whole(process.open_files_limit))?;
        writer.gauge("process_start_time_seconds", "When the process started, seconds since 1970.", process.started_seconds)
    }
}
