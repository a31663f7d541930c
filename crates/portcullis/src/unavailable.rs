//! A source that is configured but cannot be asked from this process. It says so in every answer's coverage,
//! so that its silence is never taken for "nothing there".

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Fault, FaultCode, Signal, SourceName, TimeWindow, Trace};
use portcullis_policy::Permit;
use portcullis_ports::{
    LabelValuesRequest, LogAnswer, LogCountAnswer, LogCountRequest, LogFilter, LogLine, LogRequest, MetricAnswer,
    MetricCatalogueAnswer, MetricCatalogueRequest, MetricRequest, ScanEnd, ServiceAnswer, Source, SourceHealth, SpanFilter,
    SqlAnswer, SqlRequest, TraceAnswer, TraceRequest,
};

/// See the module.
pub struct Unavailable {
    name: SourceName,
    reason: &'static str,
}

impl Unavailable {
    /// A source called `name` that cannot be asked because of `reason` (client-safe).
    pub fn new(name: SourceName, reason: &'static str) -> Self {
        Self { name, reason }
    }

    fn fault<T>(&self) -> Result<T, Fault> {
        Err(Fault::new(FaultCode::BackendFailed, self.reason))
    }
}

#[async_trait]
impl Source for Unavailable {
    fn name(&self) -> &SourceName {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "embedded"
    }
    fn capabilities(&self) -> BTreeSet<Signal> {
        [Signal::Logs, Signal::Metrics, Signal::Traces, Signal::Sql].into()
    }
    async fn health(&self, _: &Permit) -> SourceHealth {
        SourceHealth { up: false, version: None, latency: Duration::ZERO, message: Some(self.reason.to_owned()) }
    }
    async fn services(&self, _: &Permit, _: TimeWindow) -> Result<ServiceAnswer, Fault> {
        self.fault()
    }
    async fn metric_catalogue(&self, _: &Permit, _: &MetricCatalogueRequest) -> Result<MetricCatalogueAnswer, Fault> {
        self.fault()
    }
    async fn label_values(&self, _: &Permit, _: &LabelValuesRequest) -> Result<Vec<String>, Fault> {
        self.fault()
    }
    async fn metrics(&self, _: &Permit, _: &MetricRequest) -> Result<MetricAnswer, Fault> {
        self.fault()
    }
    async fn logs(&self, _: &Permit, _: &LogRequest) -> Result<LogAnswer, Fault> {
        self.fault()
    }
    async fn log_counts(&self, _: &Permit, _: &LogCountRequest) -> Result<LogCountAnswer, Fault> {
        self.fault()
    }
    async fn scan_logs(
        &self,
        _: &Permit,
        _: &LogFilter,
        _: &mut (dyn for<'a> FnMut(LogLine<'a>) + Send),
    ) -> Result<ScanEnd, Fault> {
        self.fault()
    }
    async fn traces(&self, _: &Permit, _: &TraceRequest) -> Result<TraceAnswer, Fault> {
        self.fault()
    }
    async fn trace(&self, _: &Permit, _: &str) -> Result<Option<Trace>, Fault> {
        self.fault()
    }
    async fn scan_spans(
        &self,
        _: &Permit,
        _: TimeWindow,
        _: &SpanFilter,
        _: u64,
        _: &mut (dyn FnMut(portcullis_model::Span) + Send),
    ) -> Result<ScanEnd, Fault> {
        self.fault()
    }
    async fn sql(&self, _: &Permit, _: &SqlRequest) -> Result<SqlAnswer, Fault> {
        self.fault()
    }
}
