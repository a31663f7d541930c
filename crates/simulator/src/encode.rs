//! The two wire forms of OTLP: binary protobuf and JSON (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! Guards nothing of its own: the forms are those of the `opentelemetry-proto` types. It must not compress or send.

use prost::Message;
use serde::Serialize;

/// The body of an OTLP/HTTP request with `Content-Type: application/x-protobuf`.
pub fn encode_protobuf(request: &impl Message) -> Vec<u8> {
    request.encode_to_vec()
}

/// The body of an OTLP/HTTP request with `Content-Type: application/json`.
///
/// Fails only if a value has no JSON form, which no request of this crate contains.
pub fn encode_json(request: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(request)
}
