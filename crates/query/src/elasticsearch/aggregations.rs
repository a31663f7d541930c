//! Which aggregations a search may have. Guards that they only count documents the search found: `global`,
//! `significant_terms` and terms that no document found has (`min_doc_count: 0`) would tell of others.
//!
//! Source: the aggregation references of Elasticsearch 9 and OpenSearch 3.

use serde_json::Value;

use super::members::{Walk, query, shown_of_hits};
use crate::QueryError;

/// What the value of a parameter must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Scalar,
    Scalars,
    /// At least 1: with 0 an aggregation lists what no document found has.
    AtLeastOne,
    /// Objects of scalars with these members; one or a list.
    Flat(&'static [&'static str]),
    /// Objects with any names and scalar values; one or a list.
    Named,
    /// Queries by name, or a list of them.
    Queries,
    /// As of the hits of a search.
    Hits,
    Sources,
}

type Parameters = &'static [(&'static str, Shape)];

const FIELD: (&str, Shape) = ("field", Shape::Scalar);
const MISSING: (&str, Shape) = ("missing", Shape::Scalar);
const FORMAT: (&str, Shape) = ("format", Shape::Scalar);
const KEYED: (&str, Shape) = ("keyed", Shape::Scalar);
const PATH: (&str, Shape) = ("buckets_path", Shape::Scalar);
const GAPS: (&str, Shape) = ("gap_policy", Shape::Scalar);
const RANGES: (&str, Shape) = ("ranges", Shape::Flat(&["from", "to", "key", "mask"]));
const BOUNDS: Shape = Shape::Flat(&["min", "max"]);

const MEASURE: Parameters = &[FIELD, MISSING, FORMAT];
const TERMS: Parameters = &[
    FIELD,
    MISSING,
    FORMAT,
    ("size", Shape::Scalar),
    ("shard_size", Shape::Scalar),
    ("min_doc_count", Shape::AtLeastOne),
    ("shard_min_doc_count", Shape::Scalar),
    ("order", Shape::Named),
    ("include", Shape::Scalars),
    ("exclude", Shape::Scalars),
    ("collect_mode", Shape::Scalar),
    ("execution_hint", Shape::Scalar),
    ("show_term_doc_count_error", Shape::Scalar),
    ("value_type", Shape::Scalar),
];
const BUCKETS: Parameters = &[PATH, GAPS, FORMAT];

/// Every aggregation and its parameters.
const KINDS: &[(&str, Parameters)] = &[
    ("avg", MEASURE),
    ("sum", MEASURE),
    ("min", MEASURE),
    ("max", MEASURE),
    ("stats", MEASURE),
    ("extended_stats", &[FIELD, MISSING, FORMAT, ("sigma", Shape::Scalar)]),
    ("value_count", MEASURE),
    ("cardinality", &[FIELD, MISSING, ("precision_threshold", Shape::Scalar)]),
    ("percentiles", &[FIELD, MISSING, FORMAT, KEYED, ("percents", Shape::Scalars)]),
    ("percentile_ranks", &[FIELD, MISSING, FORMAT, KEYED, ("values", Shape::Scalars)]),
    ("median_absolute_deviation", &[FIELD, MISSING, ("compression", Shape::Scalar)]),
    ("missing", &[FIELD]),
    ("terms", TERMS),
    ("rare_terms", &[FIELD, MISSING, ("max_doc_count", Shape::Scalar), ("include", Shape::Scalars), ("exclude", Shape::Scalars)]),
    (
        "multi_terms",
        &[
            ("terms", Shape::Flat(&["field", "missing", "format"])),
            ("size", Shape::Scalar),
            ("shard_size", Shape::Scalar),
            ("min_doc_count", Shape::AtLeastOne),
            ("order", Shape::Named),
        ],
    ),
    ("range", &[FIELD, MISSING, FORMAT, KEYED, RANGES]),
    ("date_range", &[FIELD, MISSING, FORMAT, KEYED, RANGES, ("time_zone", Shape::Scalar)]),
    ("ip_range", &[FIELD, KEYED, RANGES]),
    (
        "histogram",
        &[
            FIELD,
            MISSING,
            FORMAT,
            KEYED,
            ("interval", Shape::Scalar),
            ("offset", Shape::Scalar),
            ("min_doc_count", Shape::Scalar),
            ("order", Shape::Named),
            ("extended_bounds", BOUNDS),
            ("hard_bounds", BOUNDS),
        ],
    ),
    (
        "date_histogram",
        &[
            FIELD,
            MISSING,
            FORMAT,
            KEYED,
            ("interval", Shape::Scalar),
            ("fixed_interval", Shape::Scalar),
            ("calendar_interval", Shape::Scalar),
            ("time_zone", Shape::Scalar),
            ("offset", Shape::Scalar),
            ("min_doc_count", Shape::Scalar),
            ("order", Shape::Named),
            ("extended_bounds", BOUNDS),
            ("hard_bounds", BOUNDS),
        ],
    ),
    (
        "auto_date_histogram",
        &[FIELD, MISSING, FORMAT, ("buckets", Shape::Scalar), ("time_zone", Shape::Scalar), ("minimum_interval", Shape::Scalar)],
    ),
    ("composite", &[("sources", Shape::Sources), ("size", Shape::Scalar), ("after", Shape::Named)]),
    ("filter", &[]),
    ("filters", &[("filters", Shape::Queries), ("other_bucket", Shape::Scalar), ("other_bucket_key", Shape::Scalar), KEYED]),
    ("nested", &[("path", Shape::Scalar)]),
    ("reverse_nested", &[("path", Shape::Scalar)]),
    (
        "top_hits",
        &[
            ("size", Shape::Scalar),
            ("from", Shape::Scalar),
            ("sort", Shape::Hits),
            ("_source", Shape::Hits),
            ("fields", Shape::Hits),
            ("docvalue_fields", Shape::Hits),
        ],
    ),
    ("top_metrics", &[("metrics", Shape::Flat(&["field"])), ("size", Shape::Scalar), ("sort", Shape::Hits)]),
    ("avg_bucket", BUCKETS),
    ("sum_bucket", BUCKETS),
    ("min_bucket", BUCKETS),
    ("max_bucket", BUCKETS),
    ("stats_bucket", BUCKETS),
    ("extended_stats_bucket", BUCKETS),
    ("percentiles_bucket", &[PATH, GAPS, FORMAT, ("percents", Shape::Scalars)]),
    ("derivative", &[PATH, GAPS, FORMAT, ("unit", Shape::Scalar)]),
    ("cumulative_sum", BUCKETS),
    ("serial_diff", &[PATH, GAPS, FORMAT, ("lag", Shape::Scalar)]),
    ("bucket_sort", &[("sort", Shape::Hits), ("from", Shape::Scalar), ("size", Shape::Scalar), GAPS]),
];

/// What `composite` may combine.
const SOURCES: [&str; 3] = ["terms", "histogram", "date_histogram"];

/// Checks aggregations by name, and those inside them.
pub(crate) fn aggregations(walk: &mut Walk, value: &Value) -> Result<(), QueryError> {
    for (name, aggregation) in walk.object(value)? {
        walk.at(name.as_str(), |walk| {
            walk.count()?;
            let mut kinds = 0;
            for (kind, inside) in walk.object(aggregation)? {
                if matches!(kind.as_str(), "aggs" | "aggregations") {
                    walk.at(kind.as_str(), |walk| aggregations(walk, inside))?;
                } else {
                    kinds += 1;
                    one(walk, kind, inside)?;
                }
            }
            if kinds == 1 { Ok(()) } else { Err(walk.wrong("must have exactly one kind of aggregation, such as terms")) }
        })?;
    }
    Ok(())
}

fn one(walk: &mut Walk, kind: &str, inside: &Value) -> Result<(), QueryError> {
    let Some((_, parameters)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        let known: Vec<&str> = KINDS.iter().map(|(known, _)| *known).collect();
        return Err(walk.unknown("aggregation", kind, &known));
    };
    walk.at(kind, |walk| if kind == "filter" { query(walk, inside) } else { members(walk, inside, parameters) })
}

fn members(walk: &mut Walk, inside: &Value, parameters: Parameters) -> Result<(), QueryError> {
    for (name, member) in walk.object(inside)? {
        let Some((_, shape)) = parameters.iter().find(|(known, _)| known == name) else {
            let known: Vec<&str> = parameters.iter().map(|(known, _)| *known).collect();
            return Err(walk.unknown("parameter", name, &known));
        };
        walk.at(name.as_str(), |walk| fits(walk, name, member, *shape))?;
    }
    Ok(())
}

fn fits(walk: &mut Walk, name: &str, value: &Value, shape: Shape) -> Result<(), QueryError> {
    match shape {
        Shape::Scalar => walk.scalar(value),
        Shape::Scalars => walk.scalars(value),
        Shape::AtLeastOne if value.as_u64().is_some_and(|count| count > 0) => Ok(()),
        Shape::AtLeastOne => {
            let reason = "min_doc_count must be at least 1: with 0, values of documents that were not found are listed";
            Err(QueryError::NotConfinable { reason: reason.to_owned(), position: None })
        }
        Shape::Flat(known) => each(value).iter().try_for_each(|item| walk.flat(item, known)),
        Shape::Named => {
            each(value).iter().try_for_each(|item| walk.object(item)?.values().try_for_each(|member| walk.scalar(member)))
        }
        Shape::Queries => match value {
            Value::Object(named) => {
                named.iter().try_for_each(|(name, inside)| walk.at(name.as_str(), |walk| query(walk, inside)))
            }
            other => each(other).iter().try_for_each(|inside| query(walk, inside)),
        },
        Shape::Hits => shown_of_hits(walk, name, value),
        Shape::Sources => each(value).iter().try_for_each(|source| {
            let (_, source) = walk.only(source, "the name of the source")?;
            let (kind, inside) = walk.only(source, "the kind of the source")?;
            if !SOURCES.contains(&kind) {
                return Err(walk.unknown("source", kind, &SOURCES));
            }
            let parameters = KINDS.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, parameters)| *parameters);
            // Here the order is a word, not an object.
            let parameters_but_order: Vec<(&'static str, Shape)> =
                parameters.iter().copied().filter(|(name, _)| *name != "order").collect();
            walk.at(kind, |walk| of_source(walk, inside, &parameters_but_order))
        }),
    }
}

fn of_source(walk: &mut Walk, inside: &Value, parameters: &[(&'static str, Shape)]) -> Result<(), QueryError> {
    const MORE: [&str; 3] = ["order", "missing_bucket", "missing_order"];
    for (name, member) in walk.object(inside)? {
        let shape = parameters.iter().find(|(known, _)| known == name).map(|(_, shape)| *shape);
        match shape {
            Some(shape) => walk.at(name.as_str(), |walk| fits(walk, name, member, shape))?,
            None if MORE.contains(&name.as_str()) => walk.at(name.as_str(), |walk| walk.scalar(member))?,
            None => return Err(walk.unknown("parameter", name, &MORE)),
        }
    }
    Ok(())
}

fn each(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}
