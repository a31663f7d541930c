//! The tables: names and columns as the OpenTelemetry Collector's ClickHouse exporter makes them, and how each
//! column is kept in memory and on disk. The one place that knows both forms.
//!
//! Source: opentelemetry-collector-contrib, exporter/clickhouseexporter (`otel_logs`, `otel_traces`, `otel_metrics_*`).

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// A table of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Log records.
    Logs,
    /// Spans.
    Traces,
    /// Gauge points.
    Gauge,
    /// Sum points.
    Sum,
    /// Histogram points.
    Histogram,
    /// Exponential histogram points.
    ExponentialHistogram,
    /// Summary points.
    Summary,
}

/// How a column is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Nanoseconds since the epoch.
    Time,
    /// Repeating text: numbered in memory, dictionary pages on disk.
    Word,
    /// Text that rarely repeats.
    Text,
    /// 16 bytes, or absent.
    TraceId,
    /// 8 bytes, or absent.
    SpanId,
    /// Small unsigned number.
    U8,
    /// Unsigned number.
    U32,
    /// Signed number.
    I32,
    /// Unsigned number.
    U64,
    /// Floating point number, or absent.
    F64,
    /// Truth value.
    Bool,
}

/// How a column is shown in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// As it is kept; ids as lower-case hex text, empty when absent.
    Plain,
    /// JSON object text as a map of text.
    Map,
    /// JSON array text as a list of unsigned numbers.
    ListU64,
    /// JSON array text as a list of floating point numbers.
    ListF64,
    /// Span events.
    Events,
    /// Span links.
    Links,
    /// Exemplars.
    Exemplars,
    /// Quantiles of a summary.
    Quantiles,
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Name in SQL and on disk.
    pub(crate) name: &'static str,
    /// How it is kept.
    pub(crate) stored: Stored,
    /// How it is shown.
    pub(crate) shown: Shown,
}

const fn column(name: &'static str, stored: Stored) -> Column {
    Column { name, stored, shown: Shown::Plain }
}

const fn shown(name: &'static str, stored: Stored, shown: Shown) -> Column {
    Column { name, stored, shown }
}

const LOGS: [Column; 16] = [
    column("Timestamp", Stored::Time),
    column("TraceId", Stored::TraceId),
    column("SpanId", Stored::SpanId),
    column("TraceFlags", Stored::U8),
    column("SeverityText", Stored::Word),
    column("SeverityNumber", Stored::U8),
    column("ServiceName", Stored::Word),
    column("Body", Stored::Text),
    column("ResourceSchemaUrl", Stored::Word),
    shown("ResourceAttributes", Stored::Word, Shown::Map),
    column("ScopeSchemaUrl", Stored::Word),
    column("ScopeName", Stored::Word),
    column("ScopeVersion", Stored::Word),
    shown("ScopeAttributes", Stored::Word, Shown::Map),
    shown("LogAttributes", Stored::Text, Shown::Map),
    column("EventName", Stored::Word),
];

const TRACES: [Column; 17] = [
    column("Timestamp", Stored::Time),
    column("TraceId", Stored::TraceId),
    column("SpanId", Stored::SpanId),
    column("ParentSpanId", Stored::SpanId),
    column("TraceState", Stored::Word),
    column("SpanName", Stored::Word),
    column("SpanKind", Stored::Word),
    column("ServiceName", Stored::Word),
    shown("ResourceAttributes", Stored::Word, Shown::Map),
    column("ScopeName", Stored::Word),
    column("ScopeVersion", Stored::Word),
    shown("SpanAttributes", Stored::Text, Shown::Map),
    column("Duration", Stored::U64),
    column("StatusCode", Stored::Word),
    column("StatusMessage", Stored::Word),
    shown("Events", Stored::Text, Shown::Events),
    shown("Links", Stored::Text, Shown::Links),
];

macro_rules! metric_columns {
    ($($column:expr),* $(,)?) => {
        &[
            shown("ResourceAttributes", Stored::Word, Shown::Map),
            column("ResourceSchemaUrl", Stored::Word),
            column("ScopeName", Stored::Word),
            column("ScopeVersion", Stored::Word),
            shown("ScopeAttributes", Stored::Word, Shown::Map),
            column("ScopeDroppedAttrCount", Stored::U32),
            column("ScopeSchemaUrl", Stored::Word),
            column("ServiceName", Stored::Word),
            column("MetricName", Stored::Word),
            column("MetricDescription", Stored::Word),
            column("MetricUnit", Stored::Word),
            shown("Attributes", Stored::Word, Shown::Map),
            column("StartTimeUnix", Stored::Time),
            column("TimeUnix", Stored::Time),
            column("Flags", Stored::U32),
            $($column),*
        ]
    };
}

const GAUGE: &[Column] = metric_columns![column("Value", Stored::F64), shown("Exemplars", Stored::Text, Shown::Exemplars)];

const SUM: &[Column] = metric_columns![
    column("Value", Stored::F64),
    shown("Exemplars", Stored::Text, Shown::Exemplars),
    column("AggregationTemporality", Stored::I32),
    column("IsMonotonic", Stored::Bool),
];

const HISTOGRAM: &[Column] = metric_columns![
    column("Count", Stored::U64),
    column("Sum", Stored::F64),
    shown("BucketCounts", Stored::Text, Shown::ListU64),
    shown("ExplicitBounds", Stored::Word, Shown::ListF64),
    shown("Exemplars", Stored::Text, Shown::Exemplars),
    column("Min", Stored::F64),
    column("Max", Stored::F64),
    column("AggregationTemporality", Stored::I32),
];

const EXPONENTIAL_HISTOGRAM: &[Column] = metric_columns![
    column("Count", Stored::U64),
    column("Sum", Stored::F64),
    column("Scale", Stored::I32),
    column("ZeroCount", Stored::U64),
    column("PositiveOffset", Stored::I32),
    shown("PositiveBucketCounts", Stored::Text, Shown::ListU64),
    column("NegativeOffset", Stored::I32),
    shown("NegativeBucketCounts", Stored::Text, Shown::ListU64),
    shown("Exemplars", Stored::Text, Shown::Exemplars),
    column("Min", Stored::F64),
    column("Max", Stored::F64),
    column("AggregationTemporality", Stored::I32),
];

const SUMMARY: &[Column] = metric_columns![
    column("Count", Stored::U64),
    column("Sum", Stored::F64),
    shown("ValueAtQuantiles", Stored::Text, Shown::Quantiles),
];

/// Schemas of one table in its three forms.
struct Schemas {
    memory: SchemaRef,
    rows: SchemaRef,
    shown: SchemaRef,
}

static SCHEMAS: LazyLock<Vec<Schemas>> = LazyLock::new(|| {
    Table::ALL
        .iter()
        .map(|table| Schemas {
            memory: Arc::new(Schema::new(fields(*table, memory_type))),
            rows: Arc::new(Schema::new(fields(*table, row_type))),
            shown: Arc::new(Schema::new(fields(*table, shown_type))),
        })
        .collect()
});

fn fields(table: Table, of: fn(&Column) -> DataType) -> Fields {
    table.columns().iter().map(|c| Field::new(c.name, of(c), c.is_nullable())).collect()
}

fn memory_type(column: &Column) -> DataType {
    match column.stored {
        Stored::Word => DataType::UInt32,
        Stored::Text => DataType::Utf8,
        _ => row_type(column),
    }
}

fn row_type(column: &Column) -> DataType {
    match column.stored {
        Stored::Time => DataType::Timestamp(TimeUnit::Nanosecond, None),
        Stored::Word | Stored::Text => DataType::Utf8View,
        Stored::TraceId => DataType::FixedSizeBinary(16),
        Stored::SpanId => DataType::FixedSizeBinary(8),
        Stored::U8 => DataType::UInt8,
        Stored::U32 => DataType::UInt32,
        Stored::I32 => DataType::Int32,
        Stored::U64 => DataType::UInt64,
        Stored::F64 => DataType::Float64,
        Stored::Bool => DataType::Boolean,
    }
}

/// A list of non-null items.
pub(crate) fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// A map of text to text.
pub(crate) fn map_type() -> DataType {
    let entries = Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

fn nested(fields: &[(&str, DataType)]) -> DataType {
    DataType::Struct(fields.iter().map(|(name, item)| Field::new(*name, list_of(item.clone()), true)).collect())
}

fn shown_type(column: &Column) -> DataType {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    match column.shown {
        Shown::Plain => match column.stored {
            Stored::TraceId | Stored::SpanId => DataType::Utf8View,
            _ => row_type(column),
        },
        Shown::Map => map_type(),
        Shown::ListU64 => list_of(DataType::UInt64),
        Shown::ListF64 => list_of(DataType::Float64),
        Shown::Events => nested(&[("Timestamp", time), ("Name", DataType::Utf8), ("Attributes", map_type())]),
        Shown::Links => nested(&[
            ("TraceId", DataType::Utf8),
            ("SpanId", DataType::Utf8),
            ("TraceState", DataType::Utf8),
            ("Attributes", map_type()),
        ]),
        Shown::Exemplars => nested(&[
            ("FilteredAttributes", map_type()),
            ("TimeUnix", time),
            ("Value", DataType::Float64),
            ("SpanId", DataType::Utf8),
            ("TraceId", DataType::Utf8),
        ]),
        Shown::Quantiles => nested(&[("Quantile", DataType::Float64), ("Value", DataType::Float64)]),
    }
}

impl Column {
    /// Whether the stored value can be absent.
    pub(crate) fn is_nullable(&self) -> bool {
        matches!(self.stored, Stored::TraceId | Stored::SpanId | Stored::F64)
    }
}

impl Table {
    /// Every table.
    pub(crate) const ALL: [Self; 7] =
        [Self::Logs, Self::Traces, Self::Gauge, Self::Sum, Self::Histogram, Self::ExponentialHistogram, Self::Summary];

    /// The tables of metric points.
    pub(crate) const METRICS: [Self; 5] = [Self::Gauge, Self::Sum, Self::Histogram, Self::ExponentialHistogram, Self::Summary];

    /// Its name in SQL and as a directory.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Logs => "otel_logs",
            Self::Traces => "otel_traces",
            Self::Gauge => "otel_metrics_gauge",
            Self::Sum => "otel_metrics_sum",
            Self::Histogram => "otel_metrics_histogram",
            Self::ExponentialHistogram => "otel_metrics_exponential_histogram",
            Self::Summary => "otel_metrics_summary",
        }
    }

    /// From its name in SQL.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Its columns in order.
    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Self::Logs => &LOGS,
            Self::Traces => &TRACES,
            Self::Gauge => GAUGE,
            Self::Sum => SUM,
            Self::Histogram => HISTOGRAM,
            Self::ExponentialHistogram => EXPONENTIAL_HISTOGRAM,
            Self::Summary => SUMMARY,
        }
    }

    fn schemas(self) -> &'static Schemas {
        &SCHEMAS[self as usize]
    }

    /// Rows in the write buffer: repeating text as numbers of the generation's word list.
    pub(crate) fn memory_schema(self) -> SchemaRef {
        Arc::clone(&self.schemas().memory)
    }

    /// Rows as every scan yields them.
    pub(crate) fn row_schema(self) -> SchemaRef {
        Arc::clone(&self.schemas().rows)
    }

    /// Rows as SQL sees them.
    pub(crate) fn shown_schema(self) -> SchemaRef {
        Arc::clone(&self.schemas().shown)
    }

    /// Position of a column.
    pub(crate) fn position(self, name: &str) -> usize {
        self.columns().iter().position(|c| c.name == name).unwrap_or_default()
    }

    /// Position of the time column.
    pub(crate) fn time_column(self) -> usize {
        match self {
            Self::Logs | Self::Traces => 0,
            _ => 13,
        }
    }

    /// Position of `ServiceName`.
    pub(crate) fn service_column(self) -> usize {
        match self {
            Self::Logs => 6,
            _ => 7,
        }
    }

    /// Position of `ResourceAttributes`.
    pub(crate) fn resource_column(self) -> usize {
        match self {
            Self::Logs => 9,
            Self::Traces => 8,
            _ => 0,
        }
    }

    /// Position of `MetricName`, for tables of metric points.
    pub(crate) fn metric_column(self) -> Option<usize> {
        (!matches!(self, Self::Logs | Self::Traces)).then_some(8)
    }

    /// Position of `TraceId`, for tables that are searched by it.
    pub(crate) fn trace_column(self) -> Option<usize> {
        matches!(self, Self::Logs | Self::Traces).then_some(1)
    }

    /// Columns that rows are sorted by before time: service, then for metrics the metric and its attributes.
    pub(crate) fn sort_words(self) -> &'static [usize] {
        match self {
            Self::Logs => &[6],
            Self::Traces => &[7],
            _ => &[8, 7, 11, 0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_positions_name_the_right_columns() {
        for table in Table::ALL {
            let name = |i: usize| table.columns()[i].name;
            assert!(matches!(name(table.time_column()), "Timestamp" | "TimeUnix"));
            assert_eq!(name(table.service_column()), "ServiceName");
            assert_eq!(name(table.resource_column()), "ResourceAttributes");
            if let Some(metric) = table.metric_column() {
                assert_eq!(name(metric), "MetricName");
                assert_eq!(
                    table.sort_words().iter().map(|i| name(*i)).collect::<Vec<_>>(),
                    ["MetricName", "ServiceName", "Attributes", "ResourceAttributes"]
                );
            }
            if let Some(trace) = table.trace_column() {
                assert_eq!(name(trace), "TraceId");
            }
            assert_eq!(Table::from_name(table.name()), Some(table));
        }
    }
}
