//! Traces for a model: the span tree, its critical path and a bounded text of both.
//!
//! Guards against what real traces are made of: missing parents, several roots, cycles, repeated span ids and
//! clocks that disagree. Every repair is counted and said. Must not drop a span without counting it.

mod path;
mod render;
mod tree;

pub use path::{CriticalPath, PathSegment};
pub use render::{RenderedTrace, TraceOptions, render_trace};
pub use tree::{Node, Repairs, TraceTree};

#[cfg(test)]
pub(crate) mod fixtures {
    //! Spans for the tests of this folder.

    use portcullis_model::{Span, SpanKind, SpanStatus, Timestamp};

    /// A span with times in milliseconds.
    pub(crate) fn span(id: &str, parent: &str, service: &str, name: &str, start_ms: i64, duration_ms: u64) -> Span {
        Span {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            span_id: id.into(),
            parent_span_id: parent.into(),
            service: service.into(),
            name: name.into(),
            kind: SpanKind::Server,
            start: Timestamp::from_nanos(1_772_359_200_000_000_000 + start_ms * 1_000_000),
            duration_nanos: duration_ms * 1_000_000,
            status: SpanStatus::Unset,
            status_message: String::new(),
            attributes: std::collections::BTreeMap::default(),
            events: Vec::new(),
        }
    }
}
