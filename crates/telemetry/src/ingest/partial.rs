//! The answer to a request that was taken, with what was left out of it.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#partial-success>.

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message as _;

use crate::convert::OtlpSignal;
use crate::store::Receipt;

/// The protobuf form; empty when everything was stored.
pub(super) fn protobuf(signal: OtlpSignal, receipt: &Receipt) -> Vec<u8> {
    if receipt.rejected == 0 {
        return Vec::new();
    }
    let rejected = receipt.rejected as i64;
    let error_message = receipt.reason.clone().unwrap_or_default();
    match signal {
        OtlpSignal::Logs => {
            let partial_success = Some(ExportLogsPartialSuccess { rejected_log_records: rejected, error_message });
            ExportLogsServiceResponse { partial_success }.encode_to_vec()
        }
        OtlpSignal::Traces => {
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans: rejected, error_message });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        }
        OtlpSignal::Metrics => {
            let partial_success = Some(ExportMetricsPartialSuccess { rejected_data_points: rejected, error_message });
            ExportMetricsServiceResponse { partial_success }.encode_to_vec()
        }
    }
}

/// The JSON form; 64-bit numbers are text in it.
pub(super) fn json(signal: OtlpSignal, receipt: &Receipt) -> Vec<u8> {
    if receipt.rejected == 0 {
        return b"{}".to_vec();
    }
    let field = match signal {
        OtlpSignal::Logs => "rejectedLogRecords",
        OtlpSignal::Traces => "rejectedSpans",
        OtlpSignal::Metrics => "rejectedDataPoints",
    };
    let error_message = receipt.reason.as_deref().unwrap_or_default();
    let partial = serde_json::json!({ field: receipt.rejected.to_string(), "errorMessage": error_message });
    serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
}
