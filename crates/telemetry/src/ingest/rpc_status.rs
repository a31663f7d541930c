//! `google.rpc.Status` with `RetryInfo`, as the OTLP specification asks for in failures.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#failures>, google/rpc/status.proto, google/rpc/error_details.proto.

use prost::Message;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Delay {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

/// The status, with a retry hint when there is one.
pub(super) fn status(code: tonic::Code, message: &str, retry_after: Option<u64>) -> RpcStatus {
    let details = retry_after.map(|seconds| {
        let delay = Delay { seconds: seconds as i64, nanos: 0 };
        Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: RetryInfo { retry_delay: Some(delay) }.encode_to_vec(),
        }
    });
    RpcStatus { code: code as i32, message: message.to_owned(), details: details.into_iter().collect() }
}
