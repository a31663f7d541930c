//! What a rule can ask about the arguments of a tool: their types, taken from the tool's JSON Schema, and their values,
//! taken from a call.
//!
//! Guards that a value reaches a rule only with the type the rule was checked against; anything else refuses the call.
//! Must not judge whether arguments are valid for the tool: that is the schema's work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cedar_policy::RestrictedExpression;
use portcullis_model::{Timestamp, ToolSpec, parse_duration, parse_instant};
use serde_json::{Map, Value};

/// Seconds that stand for a time nobody can read: longer than every bound, so that bounds hold.
pub(crate) const UNREADABLE: i64 = i64::MAX;

/// The argument with which a tool compares its window with an earlier one: `none`, `previous`, `day` or `week`.
pub(crate) const COMPARE: &str = "compare";

/// Keyword of its schema: how many windows long the time is that `previous` reads.
const BASELINE: &str = "x-portcullis-baseline";

/// Keyword of an argument that says by itself how far back is read, whatever the times beside it: a raw query, a cursor, the id
/// of something that is kept.
const REACHES: &str = "x-portcullis-reaches";

/// What a call brings: its arguments, and how far back whoever runs it says they read, where they say more than times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) arguments: &'a Map<String, Value>,
    pub(crate) reach: Option<Duration>,
}

/// The type a rule sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArgumentKind {
    Text,
    Integer,
    Flag,
    Texts,
    Integers,
    /// Objects, mixed lists, fractions: a rule can ask whether it is there and nothing else.
    Opaque,
}

impl ArgumentKind {
    /// The type in words, for messages.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "a whole number",
            Self::Flag => "true or false",
            Self::Texts => "a list of text",
            Self::Integers => "a list of whole numbers",
            Self::Opaque => "an object or of mixed type",
        }
    }
}

/// One argument.
#[derive(Debug, Clone)]
pub(crate) struct ArgumentShape {
    pub(crate) kind: ArgumentKind,
    /// Whether every call has it: it is required, or has a default that stands in.
    pub(crate) always: bool,
    pub(crate) default: Option<Value>,
    /// The words it can be, when it is one of a few.
    pub(crate) words: Option<BTreeSet<String>>,
    pub(crate) minimum: Option<i64>,
    pub(crate) maximum: Option<i64>,
    /// How many windows before its own a comparison with the time before reaches (`x-portcullis-baseline`); 1 unless the
    /// tool says more.
    pub(crate) baseline: u32,
    /// Whether its value says how far back is read (`x-portcullis-reaches`).
    pub(crate) reaches: bool,
}

/// All arguments of one tool.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToolShape {
    pub(crate) arguments: BTreeMap<String, ArgumentShape>,
    /// Whether there is a look-back: it takes a window of time, or an argument that says how far back is read.
    pub(crate) looks_back: bool,
    /// Whether it takes a window of time.
    pub(crate) takes_time: bool,
    /// Whether it takes a source, so that the sources it asks are known.
    pub(crate) asks_sources: bool,
}

/// A call whose arguments are not of the types the tool declares.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("argument '{name}' is not {expected}")]
pub(crate) struct WrongType {
    pub(crate) name: String,
    pub(crate) expected: &'static str,
}

impl ToolShape {
    /// Reads the properties of the tool's input schema. `sources` says whether the list of sources is known.
    pub(crate) fn of(spec: &ToolSpec, sources_known: bool) -> Self {
        let required: BTreeSet<&str> = spec
            .input_schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let properties = spec.input_schema.get("properties").and_then(Value::as_object);
        let arguments: BTreeMap<String, ArgumentShape> = properties
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.clone(), ArgumentShape::of(schema, required.contains(name.as_str()))))
            .collect();
        let is_text = |name: &str| arguments.get(name).is_some_and(|a| a.kind == ArgumentKind::Text);
        let is_texts = |name: &str| arguments.get(name).is_some_and(|a| a.kind == ArgumentKind::Texts);
        let takes_time = is_text("window") || is_text("start");
        let looks_back = takes_time || arguments.values().any(|a| a.reaches);
        let asks_sources = sources_known && (is_text("source") || is_texts("sources"));
        Self { arguments, looks_back, takes_time, asks_sources }
    }

    /// The `arguments` record of the context.
    pub(crate) fn record(&self, arguments: &Map<String, Value>) -> Result<RestrictedExpression, WrongType> {
        let mut fields = Vec::with_capacity(self.arguments.len());
        for (name, shape) in &self.arguments {
            let value = arguments.get(name).filter(|v| !v.is_null()).or(shape.default.as_ref());
            if let Some(value) = value {
                let expression =
                    shape.expression(value).ok_or(WrongType { name: name.clone(), expected: shape.kind.describe() })?;
                fields.push((name.clone(), expression));
            }
        }
        RestrictedExpression::new_record(fields).map_err(|_| WrongType { name: "arguments".into(), expected: "an object" })
    }

    /// How far back from `now` the call reaches, in whole seconds, rounded up. What cannot be read reaches back for ever: times
    /// that are none, and arguments that say how far back is read where nobody said what they say.
    pub(crate) fn look_back(&self, given: Given<'_>, now: Timestamp) -> i64 {
        let Given { arguments, reach } = given;
        let reach = reach.map(whole_seconds);
        if !self.takes_time {
            return reach.unwrap_or(UNREADABLE);
        }
        let by_its_times = self.look_back_of_times(arguments, now);
        let says_more = || self.arguments.iter().any(|(name, shape)| shape.reaches && is_given(arguments, name));
        match reach {
            Some(reach) => by_its_times.max(reach),
            None if says_more() => UNREADABLE,
            None => by_its_times,
        }
    }

    /// How far back the times among the arguments reach.
    fn look_back_of_times(&self, arguments: &Map<String, Value>, now: Timestamp) -> i64 {
        let text = |name: &str| -> Option<&str> {
            let given = arguments.get(name).filter(|v| !v.is_null());
            given.or_else(|| self.arguments.get(name)?.default.as_ref()).map(|v| v.as_str().unwrap_or("?"))
        };
        let instant = |name: &str| text(name).map(|t| parse_instant(t, now).ok());
        let length = match text("window") {
            Some(window) => parse_duration(window).ok(),
            // No default is known: only a start can say how far back it goes.
            None => None,
        };
        let start = match (instant("around"), instant("start"), instant("end")) {
            (Some(Some(middle)), ..) => length.map(|l| middle.minus(l / 2)),
            (None, Some(start), _) => start,
            (None, None, end) => length.and_then(|l| end.unwrap_or(Some(now)).map(|e| e.minus(l))),
            _ => None,
        };
        let Some(start) = start else { return UNREADABLE };
        let given = |name: &str| arguments.get(name).filter(|v| !v.is_null()).and_then(|_| instant(name).flatten());
        let length = match (given("around"), given("end"), arguments.get("window").filter(|v| !v.is_null())) {
            (Some(_), ..) | (None, None, Some(_)) => length.unwrap_or_default(),
            (None, end, _) => end.unwrap_or(now).since(start),
        };
        let Some(start) = self.compared_from(text(COMPARE), start, length) else { return UNREADABLE };
        whole_seconds(now.since(start))
    }

    /// From where a call reads that compares its window, which begins at `start`, with an earlier one. Nothing when that
    /// cannot be told.
    fn compared_from(&self, compare: Option<&str>, start: Timestamp, length: Duration) -> Option<Timestamp> {
        let Some(shape) = self.arguments.get(COMPARE).filter(|a| a.kind == ArgumentKind::Text) else { return Some(start) };
        match compare {
            None | Some("none") => Some(start),
            Some("previous") => Some(start.minus(length.saturating_mul(shape.baseline))),
            Some("day") => Some(start.minus(Duration::from_hours(24))),
            Some("week") => Some(start.minus(Duration::from_hours(7 * 24))),
            Some(_) => None,
        }
    }
}

impl ArgumentShape {
    fn of(schema: &Value, required: bool) -> Self {
        let words = schema.get("enum").and_then(Value::as_array).and_then(|values| {
            let words: BTreeSet<String> = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            (words.len() == values.iter().filter(|v| !v.is_null()).count()).then_some(words)
        });
        let words = words.or_else(|| schema.get("const").and_then(Value::as_str).map(|w| BTreeSet::from([w.to_owned()])));
        let kind = Self::kind(schema, words.is_some());
        let default = schema.get("default").filter(|v| !v.is_null()).cloned();
        let bound = |name: &str| schema.get(name).and_then(whole);
        let mut shape = Self {
            kind,
            always: required,
            default: None,
            words,
            minimum: bound("minimum").or_else(|| bound("exclusiveMinimum").and_then(|n| n.checked_add(1))),
            maximum: bound("maximum").or_else(|| bound("exclusiveMaximum").and_then(|n| n.checked_sub(1))),
            baseline: bound(BASELINE).and_then(|times| u32::try_from(times).ok()).unwrap_or(1).max(1),
            reaches: schema.get(REACHES).is_some_and(|said| *said != Value::Bool(false)),
        };
        // A default of another type is the tool's mistake; it must not refuse every call that leaves the argument out.
        if let Some(default) = default.filter(|d| shape.expression(d).is_some()) {
            shape.always = true;
            shape.default = Some(default);
        }
        shape
    }

    fn kind(schema: &Value, has_words: bool) -> ArgumentKind {
        let names: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
            _ if has_words => vec!["string"],
            _ => Vec::new(),
        };
        match names.as_slice() {
            ["string"] => ArgumentKind::Text,
            ["integer"] => ArgumentKind::Integer,
            ["boolean"] => ArgumentKind::Flag,
            ["array"] => match schema.get("items").and_then(|i| i.get("type")).and_then(Value::as_str) {
                Some("string") => ArgumentKind::Texts,
                Some("integer") => ArgumentKind::Integers,
                _ => ArgumentKind::Opaque,
            },
            _ => ArgumentKind::Opaque,
        }
    }

    /// The value as Cedar knows it, or nothing when it is of another type.
    fn expression(&self, value: &Value) -> Option<RestrictedExpression> {
        Some(match self.kind {
            ArgumentKind::Text => RestrictedExpression::new_string(value.as_str()?.to_owned()),
            ArgumentKind::Integer => RestrictedExpression::new_long(whole(value)?),
            ArgumentKind::Flag => RestrictedExpression::new_bool(value.as_bool()?),
            ArgumentKind::Texts => {
                let items: Option<Vec<_>> = value
                    .as_array()?
                    .iter()
                    .map(|v| v.as_str().map(|t| RestrictedExpression::new_string(t.to_owned())))
                    .collect();
                RestrictedExpression::new_set(items?)
            }
            ArgumentKind::Integers => {
                let items: Option<Vec<_>> =
                    value.as_array()?.iter().map(|v| whole(v).map(RestrictedExpression::new_long)).collect();
                RestrictedExpression::new_set(items?)
            }
            ArgumentKind::Opaque => RestrictedExpression::new_record([]).ok()?,
        })
    }
}

/// The sources the call asks: those it names, or all of `reachable` when it names none.
pub(crate) fn sources_asked(arguments: &Map<String, Value>, reachable: &BTreeSet<String>) -> BTreeSet<String> {
    let named: BTreeSet<String> = match (arguments.get("source"), arguments.get("sources")) {
        (Some(Value::String(one)), _) => [one.clone()].into(),
        (_, Some(Value::Array(several))) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => BTreeSet::new(),
    };
    if named.is_empty() { reachable.clone() } else { named }
}

/// Whether an argument is there and not null.
fn is_given(arguments: &Map<String, Value>, name: &str) -> bool {
    arguments.get(name).is_some_and(|value| !value.is_null())
}

/// In whole seconds, rounded up.
fn whole_seconds(length: Duration) -> i64 {
    i64::try_from(length.as_nanos().div_ceil(1_000_000_000)).unwrap_or(UNREADABLE)
}

/// A whole number; `5.0` is one, as in JSON Schema.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::{principal, tool_with};
    use crate::{Asked, Policies, PolicyText, Vocabulary};
    use serde_json::json;

    fn shape() -> ToolShape {
        let spec = tool_with(
            "query_logs",
            &json!({
                "service": {"type": "string"}, "level": {"type": "string", "enum": ["info", "error"]},
                "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
                "window": {"type": "string", "default": "15m"}, "start": {"type": "string"}, "end": {"type": "string"},
                "source": {"type": ["string", "null"]}, "labels": {"type": "object"}, "fields": {"type": "array", "items": {"type": "string"}},
                "broken": {"type": "integer", "default": "many"},
            }),
            &["service"],
        );
        ToolShape::of(&spec, true)
    }

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn look_back(shape: &ToolShape, arguments: &Value, now: Timestamp) -> i64 {
        shape.look_back(Given { arguments: &map(arguments), reach: None }, now)
    }

    #[test]
    fn types_come_from_the_schema() {
        let shape = shape();
        let kind = |name: &str| shape.arguments[name].kind;
        assert_eq!(kind("source"), ArgumentKind::Text);
        assert_eq!(kind("labels"), ArgumentKind::Opaque);
        assert_eq!(kind("fields"), ArgumentKind::Texts);
        assert!(shape.arguments["service"].always && shape.arguments["limit"].always && !shape.arguments["source"].always);
        assert!(!shape.arguments["broken"].always);
        assert_eq!((shape.arguments["limit"].minimum, shape.arguments["limit"].maximum), (Some(1), Some(500)));
        assert!(shape.looks_back && shape.asks_sources);
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        let shape = shape();
        assert!(shape.record(&map(&json!({"service": "a", "limit": 5.0, "labels": {"x": 1}}))).is_ok());
        for bad in [json!({"limit": "5"}), json!({"limit": 5.5}), json!({"service": 1}), json!({"fields": ["a", 1]})] {
            assert!(shape.record(&map(&bad)).is_err(), "{bad}");
        }
        assert!(shape.record(&map(&json!({"limit": 18_446_744_073_709_551_615u64}))).is_err());
    }

    #[test]
    fn the_look_back_of_a_call() {
        let shape = shape();
        let now = Timestamp::from_seconds(1_772_359_200);
        for (arguments, seconds) in [
            (json!({}), 900),
            (json!({"window": "2h"}), 7_200),
            (json!({"start": "now-1d", "end": "now-23h"}), 86_400),
            (json!({"end": "now-1h", "window": "1h"}), 7_200),
            (json!({"start": "2026-03-01T09:00:00Z"}), 3_600),
            (json!({"window": "banana"}), UNREADABLE),
            (json!({"start": 7}), UNREADABLE),
        ] {
            assert_eq!(look_back(&shape, &arguments, now), seconds, "{arguments}");
        }
    }

    #[test]
    fn what_says_how_far_back_it_reads_reaches_back_for_ever_until_somebody_reads_it() {
        let (text, said) = (json!({"type": "string"}), json!({"type": "string", "x-portcullis-reaches": true}));
        let window = json!({"type": "string", "default": "15m"});
        let now = Timestamp::from_seconds(1_772_359_200);
        let shape = |properties: &Value| ToolShape::of(&tool_with("query_metrics", properties, &[]), true);
        let raw = shape(&json!({"window": window, "start": text, "query": said}));
        let with = |arguments: &Value, reach: Option<u64>| {
            raw.look_back(Given { arguments: &map(arguments), reach: reach.map(Duration::from_secs) }, now)
        };
        for (arguments, reach, seconds) in [
            (json!({}), None, 900),
            (json!({"query": null}), None, 900),
            (json!({"query": "up"}), None, UNREADABLE),
            (json!({"query": "up"}), Some(0), 900),
            (json!({"query": "up", "window": "2h"}), Some(60), 7_200),
            (json!({"query": "up offset 10d"}), Some(864_900), 864_900),
            (json!({"query": "up", "window": "soon"}), Some(60), UNREADABLE),
        ] {
            assert_eq!(with(&arguments, reach), seconds, "{arguments} {reach:?}");
        }
        // What takes no times looks back all the same.
        let kept = shape(&json!({"trace_id": said, "limit": {"type": "integer"}}));
        assert!(kept.looks_back && !kept.takes_time);
        let id = map(&json!({"trace_id": "a"}));
        assert_eq!(kept.look_back(Given { arguments: &id, reach: None }, now), UNREADABLE);
        assert_eq!(kept.look_back(Given { arguments: &Map::new(), reach: None }, now), UNREADABLE);
        assert_eq!(kept.look_back(Given { arguments: &id, reach: Some(Duration::from_millis(1_500)) }, now), 2);
        assert!(!shape(&json!({"name": text})).looks_back);
    }

    #[test]
    fn a_listing_shows_what_some_reach_allows_and_hides_what_reaches_back_for_ever() {
        let said = json!({"type": "string", "x-portcullis-reaches": true});
        let window = json!({"type": "string", "default": "15m"});
        let metrics = tool_with("query_metrics", &json!({"window": window, "query": said}), &[]);
        let trace = tool_with("get_trace", &json!({"trace_id": said}), &["trace_id"]);
        let vocabulary = Vocabulary::of_tools(&[metrics.clone(), trace.clone()].map(Arc::new));
        let reader = principal("reader");
        for (condition, traces) in [
            ("context.look_back_seconds > 3700", false),
            ("!(context.arguments has query && context.look_back_seconds < 3700)", false),
            ("context.look_back_seconds > 3700 && principal.tenant == \"globex\"", true),
        ] {
            let text = format!(
                "@id(\"an-hour\") forbid(principal, action == Portcullis::Action::\"call\", resource) when {{ {condition} }};"
            );
            let texts = [PolicyText { origin: "own.cedar".into(), text }];
            let policies = Policies::load(&texts, &vocabulary, 1).unwrap();
            assert!(policies.decide_call(&reader, &metrics).allowed, "{condition}");
            let decided = |tool: &ToolSpec, arguments: &Value, reach: Option<u64>| {
                let (arguments, reach) = (map(arguments), reach.map(Duration::from_secs));
                policies.decide_asked(&Asked { principal: &reader, tool, arguments: &arguments, product: None, reach }).allowed
            };
            let query = json!({"query": "up"});
            assert!(decided(&metrics, &query, Some(900)), "{condition}");
            assert_eq!(decided(&metrics, &query, Some(864_900)), traces, "{condition}");
            assert_eq!(decided(&metrics, &query, None), traces, "{condition}");
            assert_eq!(policies.decide_call(&reader, &trace).allowed, traces, "{condition}");
            assert_eq!(decided(&trace, &json!({"trace_id": "a"}), None), traces, "{condition}");
        }
    }

    #[test]
    fn a_comparison_looks_back_further() {
        let of = |compare: Value| {
            let window = json!({"type": "string", "default": "1h"});
            let text = json!({"type": "string"});
            let properties = json!({"window": window, "start": text, "end": text, "compare": compare});
            ToolShape::of(&tool_with("query_metrics", &properties, &[]), true)
        };
        let words = ["previous", "day", "week", "none"];
        let shape = of(json!({"type": "string", "enum": words, "default": "previous"}));
        let now = Timestamp::from_seconds(1_772_359_200);
        let (hour, week) = (3_600, 7 * 86_400);
        for (arguments, seconds) in [
            (json!({}), 2 * hour),
            (json!({"compare": null}), 2 * hour),
            (json!({"compare": "none"}), hour),
            (json!({"window": "1h", "compare": "week"}), week + hour),
            (json!({"window": "2h", "compare": "day"}), 26 * hour),
            (json!({"start": "now-3h", "end": "now-2h"}), 4 * hour),
            (json!({"start": "now-3h", "window": "30m"}), 3 * hour + 1_800),
            (json!({"start": "now-3h"}), 6 * hour),
            (json!({"end": "now-1h"}), 3 * hour),
            (json!({"compare": "year"}), UNREADABLE),
            (json!({"window": "soon", "compare": "none"}), UNREADABLE),
        ] {
            assert_eq!(look_back(&shape, &arguments, now), seconds, "{arguments}");
        }
        let longer = of(json!({"type": "string", "enum": words, "default": "previous", "x-portcullis-baseline": 4}));
        assert_eq!(look_back(&longer, &json!({}), now), 5 * hour);
        assert_eq!(look_back(&longer, &json!({"compare": "day"}), now), 25 * hour);
        let less = of(json!({"type": "string", "enum": words, "default": "previous", "x-portcullis-baseline": 0}));
        assert_eq!(look_back(&less, &json!({}), now), 2 * hour, "a tool cannot talk its look-back away");
    }

    #[test]
    fn a_call_that_names_no_source_asks_all() {
        let all: BTreeSet<String> = ["a".to_owned(), "b".to_owned()].into();
        assert_eq!(sources_asked(&map(&json!({})), &all), all);
        assert_eq!(sources_asked(&map(&json!({"source": "b"})), &all), BTreeSet::from(["b".to_owned()]));
    }
}
