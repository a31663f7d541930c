//! Queries of callers to Loki, Tempo and Elasticsearch, confined to a scope: what comes out must carry the scope wherever
//! something is selected. Looks at the text with no parser of those that wrote it.

use std::sync::LazyLock;

use portcullis_model::{NameSet, Scope, TenantId};
use portcullis_query::elasticsearch::FieldName;
use portcullis_query::promql::LabelName;
use portcullis_query::traceql::AttributeName;
use portcullis_query::{
    Confinement, QueryError, ScopeLabels, SearchConfinement, SearchScope, TraceConfinement, TraceScope, confine_elasticsearch,
    confine_logql, confine_traceql,
};
use serde_json::{Value, json};

use crate::{Target, Verdict};

fn scope() -> Scope {
    Scope { services: NameSet::only(["cart"]), ..Scope::tenant_wide(TenantId::default_tenant()) }
}

/// A text without the insides of its strings in double quotes. Panics when one does not end: then nothing can be said of it.
fn without_strings(text: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quoted, c) {
            (true, '\\') => {
                characters.next();
            }
            (_, '"') => quoted = !quoted,
            (true, _) => {}
            (false, c) => out.push(c),
        }
    }
    assert!(!quoted, "a string does not end: {text}");
    assert!(!out.contains('`'), "a raw string: {text}");
    out
}

/// Taken, in words that are the same for queries of the same build: signs without names, values and white space. So the
/// driver goes on from every new construction that is taken, and not from every new name.
fn taken(text: &str) -> Verdict {
    let mut said = String::new();
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        let sign = if c.is_alphanumeric() || c == '_' { 'a' } else { c };
        if sign != 'a' || !said.ends_with('a') {
            said.push(sign);
        }
    }
    Verdict { accepted: true, said }
}

/// Refused, without the words of the input that a message repeats.
fn refused(error: &QueryError) -> Verdict {
    let message = error.to_string();
    Verdict::refused(message.split('\'').step_by(2).collect::<String>())
}

/// Every brace outside of strings must close right behind what the scope added.
fn carries_scope(text: &str, ending: &str) {
    let (bare, ending) = (without_strings(text), without_strings(ending));
    let (open, closed) = (bare.matches('{').count(), bare.matches(&ending).count());
    assert_eq!(open, closed, "{open} selections and {closed} of the scope: {text}");
    assert_eq!(open, bare.matches('}').count(), "braces: {text}");
}

pub(crate) const LOGQL: Target = Target {
    name: "logql",
    promise: "every stream selector of a confined query carries the scope's matcher, and its text reads back the same",
    seeds: &[
        "{app=\"shop\"} |= \"error\" != `timeout` | json | status>=500 and (a=\"b\" or c=~`d`) | line_format \"{{.x}}\"",
        "sum by (pod) (rate({app=\"a\"} | logfmt --strict x, y=\"z\" [5m] offset 1h)) / on(pod) group_left() vector(2)",
        "quantile_over_time(0.9, {app=\"a\"} | unwrap duration(ms) | __error__=\"\" [1m]) by (app) > bool 5",
        "label_replace(topk(3, bytes_rate(({a=\"b\"} |~ \"x\" or \"y\" or ip(\"::1\"))[1m])), \"a\", \"$1\", \"b\", \"(.*)\")",
        "variants(count_over_time({a=\"b\"}[1m]), rate({a=\"b\"}[1m])) of ({a=\"b\"}[1m])",
        "{service_name=\"payment\"} | drop a, b=\"c\" | label_format x=y, z=\"w\" | keep x # {comment}\n | size > 5KB, d < 1h",
        "({a=\"\\\"} | `\"}) // {x=\"y\"}",
        "absent_over_time({a=~\".+\"}[1d]) unless -1 ^ .5e3",
    ],
    words: &[
        "{",
        "}",
        "{a=\"b\"}",
        "[5m]",
        "(",
        ")",
        "\"",
        "`",
        "\\",
        "=~",
        "!~",
        "!=",
        "|=",
        "|>",
        "!>",
        "| ",
        " or ",
        " and ",
        ",",
        "#",
        "\n",
        "\r",
        "//",
        "/*",
        "rate(",
        "sum",
        " by (",
        " offset ",
        "| unwrap ",
        "| json ",
        "ip(",
        "variants(",
        ") of (",
        "label_replace(",
        "--strict",
        "5KB",
        "1e",
        "-5m",
        "service_name=",
        "'",
    ],
    run: logql,
};

static LABELS: LazyLock<Confinement> = LazyLock::new(|| {
    let label = LabelName::new("service_name").unwrap_or_else(|e| panic!("a label: {e}"));
    let labels = ScopeLabels { service: Some(label), ..ScopeLabels::default() };
    Confinement::of_scope(&scope(), &labels).unwrap_or_else(|e| panic!("the scope of the target: {e}"))
});

fn logql(bytes: &[u8]) -> Verdict {
    const ENDING: &str = ", service_name=\"cart\"}";
    let raw = String::from_utf8_lossy(bytes);
    match confine_logql(&raw, &LABELS) {
        Ok(text) => {
            carries_scope(&text, ENDING);
            let plain = confine_logql(&raw, &Confinement::none()).unwrap_or_else(|e| panic!("{raw} is refused unconfined: {e}"));
            assert_eq!(text.replace(ENDING, "}"), plain.replace(ENDING, "}"), "more than the scope was added to {raw}");
            if plain.len() <= 8_192 {
                let again =
                    confine_logql(&plain, &Confinement::none()).unwrap_or_else(|e| panic!("{plain} is refused again: {e}"));
                assert_eq!(again, plain, "written twice");
            }
            taken(&without_strings(&plain))
        }
        Err(error) => refused(&error),
    }
}

pub(crate) const TRACEQL: Target = Target {
    name: "traceql",
    promise: "every filter of a confined query carries the scope's condition, and none begins with all spans",
    seeds: &[
        "{ status = error && (span.http.route =~ `a.*` || !.b) } >> { duration > 300ms } | count() > 2 | select(.a, name)",
        "({ .a } | count()) + ({ .b } | avg(duration)) >= 2.5",
        "count() > 2 | { true } | by(1 + .a) | coalesce()",
        "{ } | quantile_over_time(duration, .5, 0.99) by (resource.service.name) | topk(3) with (most_recent=true, sample=0.1)",
        "{ name = \"}\\\" || { true }\" } | compare({ status = error }, 3, 1, 2)",
        "({ true } | max((1 + .a) * 2) = 1 | { .b }) !<< (by(.x) | { .y }) &~ ({ span.\"z.z\" = nil })",
        "{ parent.resource.service.name = \"payment\" || rootServiceName = \"x\" }",
        "{ .a//b /* } */ ^ -1 = 5 }",
    ],
    words: &[
        "{",
        "}",
        "{ }",
        "{ .a }",
        "(",
        ")",
        "\"",
        "`",
        "\\",
        "=~",
        "!~",
        "!=",
        "&&",
        "||",
        ">>",
        "!>",
        "&<<",
        "~",
        "|",
        ",",
        "//",
        "/*",
        "*/",
        ".",
        "span.",
        "resource.",
        "parent.",
        "trace:",
        "event:name",
        "count()",
        "by(",
        "select(",
        "coalesce()",
        "rate()",
        "compare(",
        "topk(1)",
        " with (",
        "nil",
        "5m",
        ".5",
        "!",
        "-",
        "^",
        "resource.service.name = \"cart\"",
        "'",
        "\n",
    ],
    run: traceql,
};

static ATTRIBUTES: LazyLock<TraceConfinement> = LazyLock::new(|| {
    let name = AttributeName::new("service.name").unwrap_or_else(|e| panic!("an attribute: {e}"));
    let attributes = TraceScope { service: Some(name), ..TraceScope::default() };
    TraceConfinement::of_scope(&scope(), &attributes).unwrap_or_else(|e| panic!("the scope of the target: {e}"))
});

fn traceql(bytes: &[u8]) -> Verdict {
    let raw = String::from_utf8_lossy(bytes);
    match confine_traceql(&raw, &ATTRIBUTES) {
        Ok(text) => {
            carries_scope(&text, "(resource.service.name = \"cart\") }");
            let bare = without_strings(&text);
            assert!(bare.trim_start_matches(['(', ' ']).starts_with('{'), "it begins with all spans: {text}");
            for (at, _) in bare.match_indices("(resource.service.name = ) }") {
                let before = bare[..at].trim_end();
                assert!(before.ends_with(") &&") || before.ends_with('{'), "the scope is not joined by '&&': {text}");
            }
            let foreign = [" parent.", "(parent.", "!parent.", " -parent.", " rootServiceName", "(rootServiceName", "//", "/*"];
            assert!(foreign.iter().all(|sign| !bare.contains(sign)), "{text}");
            let plain =
                confine_traceql(&raw, &TraceConfinement::none()).unwrap_or_else(|e| panic!("{raw} is refused unconfined: {e}"));
            if plain.len() <= 8_192 {
                let again = confine_traceql(&plain, &TraceConfinement::none());
                assert_eq!(again.as_deref().unwrap_or_default(), plain, "written twice");
            }
            taken(&without_strings(&plain))
        }
        Err(error) => refused(&error),
    }
}

pub(crate) const ELASTICSEARCH: Target = Target {
    name: "elasticsearch",
    promise: "a confined search is one filter beside the scope's, with known members only; everything else is refused",
    seeds: &[
        r#"{"query":{"bool":{"must":[{"match":{"message":"timeout"}}],"must_not":{"term":{"level":{"value":"debug"}}}}},"size":5}"#,
        r#"{"query":{"query_string":{"query":"a AND b:c","fields":["message"]}},"sort":[{"@timestamp":"desc"},"_doc"]}"#,
        r#"{"aggs":{"a":{"terms":{"field":"x","size":3},"aggs":{"b":{"date_histogram":{"field":"t","fixed_interval":"1m"}}}}}}"#,
        r#"{"aggs":{"a":{"filters":{"filters":{"x":{"match_all":{}}}}},"c":{"composite":{"sources":[{"s":{"terms":{"field":"h"}}}]}}}}"#,
        r#"{"query":{"terms":{"a":{"index":"other","id":"1","path":"b"}}},"runtime_mappings":{"service.name":{"type":"keyword"}}}"#,
        r#"{"query":{"nested":{"path":"p","query":{"wildcard":{"a":"*"}}}},"_source":{"includes":["a"]},"post_filter":{"exists":{"field":"a"}}}"#,
        r#"{"aggs":{"a":{"global":{},"aggs":{"b":{"top_hits":{}}}}},"query":{"wrapper":{"query":"e30="}}}"#,
        r#"{"query":{"match":{"a":"b","\u0061":"c"}}}"#,
    ],
    words: &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\u0022",
        "{\"match_all\":{}}",
        "\"query\":",
        "\"bool\":{\"should\":[",
        "\"filter\":",
        "\"aggs\":{",
        "\"terms\":{\"field\":\"x\"}",
        "\"global\":{}",
        "\"script\":",
        "\"min_doc_count\":0",
        "\"nested\":",
        "\"path\":\"a\"",
        "\"inner_hits\":{}",
        "\"knn\":",
        "\"index\":",
        "\"sort\":",
        "\"_source\":",
        "\"post_filter\":",
        "1e999",
        "null",
        "true",
        "-1",
        "\"service.name\"",
    ],
    run: elasticsearch,
};

static FIELDS: LazyLock<SearchConfinement> = LazyLock::new(|| {
    let name = FieldName::new("service.name").unwrap_or_else(|e| panic!("a field: {e}"));
    let fields = SearchScope { service: Some(name), ..SearchScope::default() };
    SearchConfinement::of_scope(&scope(), &fields).unwrap_or_else(|e| panic!("the scope of the target: {e}"))
});

fn elasticsearch(bytes: &[u8]) -> Verdict {
    let raw = String::from_utf8_lossy(bytes);
    match confine_elasticsearch(&raw, &FIELDS) {
        Ok(text) => {
            let body: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text} is no JSON: {e}"));
            let asked: Value = serde_json::from_str(&raw).unwrap_or_else(|e| panic!("{raw} is no JSON: {e}"));
            let scope = json!({"terms": {"service.name": ["cart"]}});
            let filters: Vec<&Value> = asked.get("query").into_iter().chain([&scope]).collect();
            assert_eq!(body["query"], json!({"bool": {"filter": filters}}), "{text}");
            let mut others = asked.clone();
            others["query"] = body["query"].clone();
            assert_eq!(others, body, "more than the query changed");
            known_kinds(&body);
            taken(&without_strings(&asked.to_string()))
        }
        Err(error) => refused(&error),
    }
}

/// Nothing that reads other documents is an aggregation, anywhere.
fn known_kinds(value: &Value) {
    let Some(aggregations) = value.get("aggs").or_else(|| value.get("aggregations")).and_then(Value::as_object) else { return };
    for aggregation in aggregations.values() {
        for kind in ["global", "significant_terms", "significant_text", "scripted_metric", "children", "parent"] {
            assert!(aggregation.get(kind).is_none(), "{kind}: {aggregation}");
        }
        assert_ne!(aggregation["terms"]["min_doc_count"], json!(0), "{aggregation}");
        known_kinds(aggregation);
    }
}
