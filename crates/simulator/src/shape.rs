//! What one measured operation looks like from outside: the attributes a span and its metric series share.
//!
//! Guards that spans and metrics agree by construction: both take their attributes from the same [`Shape`]. Names
//! follow the OpenTelemetry semantic conventions 1.40 (<https://opentelemetry.io/docs/specs/semconv/>).

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::otlp::{integer, text};
use crate::services::{Endpoint, ORDER_QUEUE, Protocol};

/// One kind of operation with one kind of outcome. Small and ordered: it is the key of a metric series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// An HTTP request seen by its server.
    HttpServer { method: &'static str, route: &'static str, status: u16 },
    /// An HTTP request seen by its client.
    HttpClient { method: &'static str, template: &'static str, server: &'static str, status: u16 },
    /// A gRPC call seen by its server.
    RpcServer { method: &'static str, status: u16 },
    /// A gRPC call seen by its client.
    RpcClient { method: &'static str, server: &'static str, status: u16 },
    /// A database operation seen by its client.
    Database { system: &'static str, operation: &'static str, collection: &'static str, server: &'static str, failed: bool },
    /// Waiting for a pooled connection.
    PoolWait { pool: &'static str, timed_out: bool },
    /// A message put on a queue.
    Publish,
    /// A message taken from a queue and worked on.
    Process,
}

/// A histogram every shape is recorded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instrument {
    /// Metric name.
    pub(crate) name: &'static str,
    /// Metric description.
    pub(crate) description: &'static str,
    /// Whether it is an exponential histogram.
    pub(crate) exponential: bool,
}

const fn instrument(name: &'static str, description: &'static str, exponential: bool) -> Instrument {
    Instrument { name, description, exponential }
}

/// The gRPC status code that stands for an HTTP status.
fn rpc_status(status: u16) -> &'static str {
    match status {
        0..=399 => "OK",
        402 => "FAILED_PRECONDITION",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    }
}

impl Shape {
    /// A request to this endpoint as its server sees it.
    pub(crate) fn server(endpoint: &Endpoint, status: u16) -> Self {
        match endpoint.protocol {
            Protocol::Http(method, route) => Self::HttpServer { method, route, status },
            Protocol::Grpc(method) => Self::RpcServer { method, status },
        }
    }

    /// A request to this endpoint as its client sees it; status 0 means that no response came.
    pub(crate) fn client(endpoint: &Endpoint, status: u16) -> Self {
        let server = endpoint.service.name();
        match endpoint.protocol {
            Protocol::Http(method, template) => Self::HttpClient { method, template, server, status },
            Protocol::Grpc(method) => Self::RpcClient { method, server, status },
        }
    }

    /// The histogram it is recorded in.
    pub(crate) fn instrument(self) -> Instrument {
        match self {
            Self::HttpServer { .. } => instrument("http.server.request.duration", "Duration of HTTP server requests.", false),
            Self::HttpClient { .. } => instrument("http.client.request.duration", "Duration of HTTP client requests.", false),
            Self::RpcServer { .. } => instrument("rpc.server.call.duration", "Duration of incoming calls.", true),
            Self::RpcClient { .. } => instrument("rpc.client.call.duration", "Duration of outgoing calls.", true),
            Self::Database { .. } => instrument("db.client.operation.duration", "Duration of database client operations.", false),
            Self::PoolWait { .. } => {
                instrument("db.client.connection.wait_time", "Time to obtain an open connection from the pool.", false)
            }
            Self::Publish => instrument("messaging.client.operation.duration", "Duration of messaging operations.", false),
            Self::Process => instrument("messaging.process.duration", "Duration of processing a message.", false),
        }
    }

    /// The kind of its span.
    pub(crate) fn span_kind(self) -> SpanKind {
        match self {
            Self::HttpServer { .. } | Self::RpcServer { .. } => SpanKind::Server,
            Self::HttpClient { .. } | Self::RpcClient { .. } | Self::Database { .. } => SpanKind::Client,
            Self::PoolWait { .. } => SpanKind::Internal,
            Self::Publish => SpanKind::Producer,
            Self::Process => SpanKind::Consumer,
        }
    }

    /// Whether it is a request served here, of either protocol.
    pub(crate) fn is_server(self) -> bool {
        matches!(self, Self::HttpServer { .. } | Self::RpcServer { .. })
    }

    /// `error.type`, if it failed. A server blames itself for 5xx only, a client for 4xx too.
    pub(crate) fn error_type(self) -> Option<String> {
        match self {
            Self::HttpServer { status, .. } if status >= 500 => Some(status.to_string()),
            Self::HttpClient { status: 0, .. } => Some("timeout".to_owned()),
            Self::HttpClient { status, .. } if status >= 400 => Some(status.to_string()),
            Self::RpcServer { status, .. } if status >= 500 => Some(rpc_status(status).to_owned()),
            Self::RpcClient { status, .. } if status >= 400 => Some(rpc_status(status).to_owned()),
            Self::Database { failed: true, .. } => Some("query_canceled".to_owned()),
            Self::PoolWait { timed_out: true, .. } => Some("acquire_timeout".to_owned()),
            _ => None,
        }
    }

    /// The attributes of its metric series, which its span carries too.
    pub(crate) fn attributes(self) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(8);
        match self {
            Self::HttpServer { method, route, status } => {
                attributes.push(text("http.request.method", method));
                attributes.push(text("http.route", route));
                attributes.push(integer("http.response.status_code", i64::from(status)));
                attributes.push(text("url.scheme", "http"));
            }
            Self::HttpClient { method, template, server, status } => {
                attributes.push(text("http.request.method", method));
                attributes.push(text("url.template", template));
                attributes.push(text("server.address", server));
                if status != 0 {
                    attributes.push(integer("http.response.status_code", i64::from(status)));
                }
            }
            Self::RpcServer { method, status } => {
                attributes.push(text("rpc.system.name", "grpc"));
                attributes.push(text("rpc.method", method));
                attributes.push(text("rpc.response.status_code", rpc_status(status)));
            }
            Self::RpcClient { method, server, status } => {
                attributes.push(text("rpc.system.name", "grpc"));
                attributes.push(text("rpc.method", method));
                attributes.push(text("server.address", server));
                attributes.push(text("rpc.response.status_code", rpc_status(status)));
            }
            Self::Database { system, operation, collection, server, .. } => {
                attributes.push(text("db.system.name", system));
                attributes.push(text("db.operation.name", operation));
                attributes.push(text("db.collection.name", collection));
                attributes.push(text("server.address", server));
            }
            Self::PoolWait { pool, .. } => attributes.push(text("db.client.connection.pool.name", pool)),
            Self::Publish | Self::Process => {
                let operation = if self == Self::Publish { "publish" } else { "process" };
                attributes.push(text("messaging.system", "rabbitmq"));
                attributes.push(text("messaging.destination.name", ORDER_QUEUE));
                attributes.push(text("messaging.operation.name", operation));
            }
        }
        if let Some(error) = self.error_type() {
            attributes.push(text("error.type", error));
        }
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_blames_itself_for_5xx_only() {
        let server = |status| Shape::HttpServer { method: "GET", route: "/", status }.error_type();
        let client = |status| Shape::HttpClient { method: "GET", template: "/", server: "cart", status }.error_type();
        assert_eq!((server(200), server(404), server(504)), (None, None, Some("504".to_owned())));
        assert_eq!((client(200), client(404), client(0)), (None, Some("404".to_owned()), Some("timeout".to_owned())));
    }
}
