//! Stored columns in the form SQL sees them: ids as hex text, attribute sets as maps, nested lists as lists.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Float64Builder, ListBuilder, MapBuilder, MapFieldNames, RecordBatch,
    RecordBatchOptions, StringBuilder, StringViewArray, StringViewBuilder, StructArray, TimestampNanosecondBuilder,
    UInt64Builder,
};
use arrow::datatypes::Field;

use crate::error::Result;
use crate::schema::{Column, Shown, Stored, Table, map_type};
use crate::scrub::Scrub;
use crate::text::pairs;

type Attributes = std::collections::BTreeMap<String, String>;
type MapsBuilder = MapBuilder<StringBuilder, StringBuilder>;

/// A batch of stored columns `columns` (ascending) as SQL sees them: scrubbed before any function or condition is applied.
pub(crate) fn show(table: Table, columns: &[usize], rows: &RecordBatch, scrub: Option<&Scrub>) -> Result<RecordBatch> {
    let schema = Arc::new(table.shown_schema().project(columns)?);
    let one = |(at, array): (&usize, &ArrayRef)| match scrub.and_then(|s| scrubbed(s, table.columns()[*at], array)) {
        Some(clean) => show_column(table, *at, &clean),
        None => show_column(table, *at, array),
    };
    let arrays = columns.iter().zip(rows.columns()).map(one).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
}

/// A text column without secrets; `None` when it has none, or is no text.
fn scrubbed(scrub: &Scrub, column: Column, array: &ArrayRef) -> Option<ArrayRef> {
    let texts = array.as_string_view_opt()?;
    let clean = |text: &str| match column.shown {
        Shown::Plain => scrub.text(text),
        Shown::Map | Shown::Events | Shown::Links | Shown::Exemplars => scrub.json(text),
        Shown::ListU64 | Shown::ListF64 | Shown::Quantiles => None,
    };
    let mut known: HashMap<u128, Option<String>> = HashMap::new();
    let mut changed: Option<StringViewBuilder> = None;
    for row in 0..texts.len() {
        let text = texts.value(row);
        let fresh;
        let found = if matches!(column.stored, Stored::Text) {
            fresh = clean(text);
            &fresh
        } else {
            known.entry(texts.views()[row]).or_insert_with(|| clean(text))
        };
        if found.is_some() && changed.is_none() {
            let mut builder = StringViewBuilder::with_capacity(texts.len());
            (0..row).for_each(|before| builder.append_option(texts.is_valid(before).then(|| texts.value(before))));
            changed = Some(builder);
        }
        if let Some(builder) = &mut changed {
            builder.append_option(texts.is_valid(row).then(|| found.as_deref().unwrap_or(text)));
        }
    }
    changed.map(|mut builder| Arc::new(builder.finish()) as ArrayRef)
}

fn show_column(table: Table, at: usize, array: &ArrayRef) -> Result<ArrayRef> {
    let column = table.columns()[at];
    let text = || array.as_string_view();
    Ok(match column.shown {
        Shown::Plain => match column.stored {
            Stored::TraceId | Stored::SpanId => hex(array.as_fixed_size_binary()),
            _ => Arc::clone(array),
        },
        Shown::Map => maps(text()),
        Shown::ListU64 => {
            let mut builder = ListBuilder::new(UInt64Builder::new());
            for value in text() {
                let numbers: Vec<u64> = parse(value);
                builder.values().append_slice(&numbers);
                builder.append(true);
            }
            Arc::new(builder.finish())
        }
        Shown::ListF64 => {
            let mut builder = ListBuilder::new(Float64Builder::new());
            for value in text() {
                let numbers: Vec<f64> = parse(value);
                builder.values().append_slice(&numbers);
                builder.append(true);
            }
            Arc::new(builder.finish())
        }
        Shown::Events => events(text())?,
        Shown::Links => links(text())?,
        Shown::Exemplars => exemplars(text())?,
        Shown::Quantiles => quantiles(text())?,
    })
}

/// Reads a stored JSON array; nothing for none.
fn parse<T: serde::de::DeserializeOwned>(text: Option<&str>) -> Vec<T> {
    text.filter(|t| !t.is_empty()).and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
}

fn hex(ids: &FixedSizeBinaryArray) -> ArrayRef {
    let mut builder = StringViewBuilder::with_capacity(ids.len());
    let mut text = String::new();
    for row in 0..ids.len() {
        text.clear();
        if ids.is_valid(row) {
            crate::text::push_hex(&mut text, ids.value(row));
        }
        builder.append_value(&text);
    }
    Arc::new(builder.finish())
}

fn map_builder() -> MapsBuilder {
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

/// Maps of a text column. Equal sets are parsed once and taken as often as they occur.
fn maps(texts: &StringViewArray) -> ArrayRef {
    let mut builder = map_builder();
    let mut known: HashMap<u128, u32> = HashMap::new();
    let mut picks: Vec<u32> = Vec::with_capacity(texts.len());
    let mut distinct = 0;
    for row in 0..texts.len() {
        let number = *known.entry(texts.views()[row]).or_insert_with(|| {
            for (key, value) in pairs(texts.value(row)) {
                builder.keys().append_value(key);
                builder.values().append_value(value);
            }
            // Appending fails only when keys and values differ in number, which they cannot here.
            let _ = builder.append(true);
            distinct += 1;
            distinct - 1
        });
        picks.push(number);
    }
    let sets = builder.finish();
    if distinct as usize == texts.len() {
        return Arc::new(sets);
    }
    let picks = arrow::array::UInt32Array::from(picks);
    arrow::compute::take(&sets, &picks, None).unwrap_or_else(|_| arrow::array::new_null_array(&map_type(), texts.len()))
}

fn append_map(builder: &mut MapsBuilder, attributes: &Attributes) {
    for (key, value) in attributes {
        builder.keys().append_value(key);
        builder.values().append_value(value);
    }
    let _ = builder.append(true);
}

fn map_list() -> ListBuilder<MapsBuilder> {
    ListBuilder::new(map_builder()).with_field(Field::new("item", map_type(), true))
}

fn text_list() -> ListBuilder<StringBuilder> {
    ListBuilder::new(StringBuilder::new())
}

fn time_list() -> ListBuilder<TimestampNanosecondBuilder> {
    ListBuilder::new(TimestampNanosecondBuilder::new())
}

fn number_list() -> ListBuilder<Float64Builder> {
    ListBuilder::new(Float64Builder::new())
}

fn nested(columns: Vec<(&str, ArrayRef)>) -> Result<ArrayRef> {
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    Ok(Arc::new(StructArray::try_new(fields.into(), arrays, None)?))
}

fn events(texts: &StringViewArray) -> Result<ArrayRef> {
    let (mut times, mut names, mut attributes) = (time_list(), text_list(), map_list());
    for text in texts {
        for (at, name, set) in parse::<(i64, String, Attributes)>(text) {
            times.values().append_value(at);
            names.values().append_value(name);
            append_map(attributes.values(), &set);
        }
        times.append(true);
        names.append(true);
        attributes.append(true);
    }
    nested(vec![
        ("Timestamp", Arc::new(times.finish())),
        ("Name", Arc::new(names.finish())),
        ("Attributes", Arc::new(attributes.finish())),
    ])
}

fn links(texts: &StringViewArray) -> Result<ArrayRef> {
    let (mut traces, mut spans, mut states, mut attributes) = (text_list(), text_list(), text_list(), map_list());
    for text in texts {
        for (trace, span, state, set) in parse::<(String, String, String, Attributes)>(text) {
            traces.values().append_value(trace);
            spans.values().append_value(span);
            states.values().append_value(state);
            append_map(attributes.values(), &set);
        }
        traces.append(true);
        spans.append(true);
        states.append(true);
        attributes.append(true);
    }
    nested(vec![
        ("TraceId", Arc::new(traces.finish())),
        ("SpanId", Arc::new(spans.finish())),
        ("TraceState", Arc::new(states.finish())),
        ("Attributes", Arc::new(attributes.finish())),
    ])
}

fn exemplars(texts: &StringViewArray) -> Result<ArrayRef> {
    let (mut sets, mut times, mut values, mut spans, mut traces) =
        (map_list(), time_list(), number_list(), text_list(), text_list());
    for text in texts {
        for (set, at, value, span, trace) in parse::<(Attributes, i64, Option<f64>, String, String)>(text) {
            append_map(sets.values(), &set);
            times.values().append_value(at);
            values.values().append_option(value);
            spans.values().append_value(span);
            traces.values().append_value(trace);
        }
        sets.append(true);
        times.append(true);
        values.append(true);
        spans.append(true);
        traces.append(true);
    }
    nested(vec![
        ("FilteredAttributes", Arc::new(sets.finish())),
        ("TimeUnix", Arc::new(times.finish())),
        ("Value", Arc::new(values.finish())),
        ("SpanId", Arc::new(spans.finish())),
        ("TraceId", Arc::new(traces.finish())),
    ])
}

fn quantiles(texts: &StringViewArray) -> Result<ArrayRef> {
    let (mut quantiles, mut values) = (number_list(), number_list());
    for text in texts {
        for (quantile, value) in parse::<(Option<f64>, Option<f64>)>(text) {
            quantiles.values().append_option(quantile);
            values.values().append_option(value);
        }
        quantiles.append(true);
        values.append(true);
    }
    nested(vec![("Quantile", Arc::new(quantiles.finish())), ("Value", Arc::new(values.finish()))])
}
