//! TraceQL: what the language has is confined at every filter and otherwise unchanged, what it has not is refused, and
//! what is built from types reads back as it was built.

use std::time::Duration;

use portcullis_model::{NameSet, Scope, SpanKind, SpanStatus, TenantId};
use portcullis_query::traceql::{AttributeName, AttributeScope, Comparison, SpanCondition, SpanQuery, SpanValue};
use portcullis_query::{QueryError, TraceConfinement, TraceScope, TraceqlKind, confine_traceql, traceql_kind};
use proptest::prelude::*;

use crate::confinement::without_strings;

/// What the confinement of these tests adds to a filter.
const ADDED: &str =
    r#"(resource.service.name = "cart" || resource.service.name = "pay.ment") && (resource.k8s.namespace.name = "shop")"#;

fn attribute(name: &str) -> AttributeName {
    AttributeName::new(name).unwrap()
}

fn attributes() -> TraceScope {
    TraceScope { tenant: None, service: Some(attribute("service.name")), namespace: Some(attribute("k8s.namespace.name")) }
}

fn confinement() -> TraceConfinement {
    let mut scope = Scope::tenant_wide(TenantId::default_tenant());
    scope.services = NameSet::only(["cart", "pay.ment"]);
    scope.namespaces = NameSet::only(["shop"]);
    TraceConfinement::of_scope(&scope, &attributes()).unwrap()
}

fn confined(raw: &str) -> Result<String, QueryError> {
    confine_traceql(raw, &confinement())
}

fn plain(raw: &str) -> Result<String, QueryError> {
    confine_traceql(raw, &TraceConfinement::none())
}

/// A confined text without what was added.
fn stripped(text: &str) -> String {
    let whole = format!("{{ {ADDED} }}");
    let behind = format!(" && {ADDED} }}");
    let mut rest = text.replace(&whole, "{ }");
    while let Some(end) = rest.find(&behind) {
        // The caller's own part stands in parentheses in front.
        let start = rest[..end].rfind("{ (").unwrap();
        let inner = rest[start + 3..end - 1].to_owned();
        rest.replace_range(start..end + behind.len(), &format!("{{ {inner} }}"));
    }
    rest
}

/// Queries of Tempo's documentation and its own list of valid examples; they come back as they are.
const TAKEN: &[&str] = &[
    "{ }",
    "{ true }",
    "{ !true }",
    "{ 1 = 2 }",
    "{ -1 = 2 }",
    r#"{ "test" =~ "test" }"#,
    "{ .a }",
    "{ .a && false || true }",
    "{ -.a = 2 }",
    r#"{ .a !~ "test" }"#,
    "{ resource.a != 3 }",
    r#"{ !("test" != .c || ((true && .b) || 3 < .a)) }"#,
    "{ status = unset }",
    r#"{ statusMessage =~ ".*" }"#,
    "{ kind = consumer }",
    "{ 1 < 1h }",
    "{ duration > 1s * 2s }",
    r#"{ event.foo = "bar" && link.foo = "bar" && instrumentation.foo = "bar" }"#,
    r#"{ trace:id = "aasdf4ergf" && span:id = "61" && span:parentID = "62" }"#,
    "{ event:timeSinceStart > 1s }",
    r#"{ link:traceID = "f1" || link:spanID = "f1" }"#,
    r#"{ instrumentation:name = "grpc" && instrumentation:version = "v3.34" }"#,
    r#"{ .http.status >= "200" }"#,
    "{ .foo != nil }",
    "{ .a ^ 1 = 2 % 3 }",
    "{ true } && { true }",
    "{ true } !>> { true } &<< { .a } ~ { .b }",
    "({ true } | count() > 1 | { false }) >> ({ true } | count() > 1 | { false })",
    "({ .a } || { .b }) && { .c }",
    "{ true } | max(duration) = 1h",
    "{ true } | max((1 + .a) * 2) = 1",
    "{ } | select(.a, span.b, resource.k8s.pod.name)",
    "{ true } | { .a } | count() = 1 | { .b }",
    "{ true } | by(1 + .a) | coalesce()",
    "{ true } | by(name) | avg(.b) = 2",
    "({ .a } | count()) > ({ .b } | count())",
    "({ true } | count()) + ({ true } | avg(duration)) >= 2.5",
    "{ } | rate() by (resource.service.name)",
    "{ } | count_over_time() by (name) with (sample = 0.1)",
    "{ kind = server } | quantile_over_time(duration, .5, 0.99) by (span.http.route)",
    r#"{ name = "x" } | histogram_over_time(duration) | topk(2)"#,
    "{ } | compare({ status = error }, 3, 1000, 2000)",
    "{ } with (most_recent = true, exemplars = 5)",
];

#[test]
fn the_language_of_the_documentation_is_taken_and_comes_back_the_same() {
    for raw in TAKEN {
        assert_eq!(plain(raw).unwrap_or_else(|error| panic!("{raw}: {error}")), *raw);
        let text = confined(raw).unwrap_or_else(|error| panic!("{raw}: {error}"));
        assert_eq!(text.matches(ADDED).count(), without_strings(raw).matches('{').count(), "{text}");
        assert_eq!(stripped(&text), *raw, "{text}");
    }
    for (raw, expected) in [
        ("{.a=`b\\`&&duration>1.5s}", r#"{ .a = "b\\" && duration > 1.5s }"#),
        (r#"{ span."http.url" = "x" }"#, r#"{ span.http.url = "x" }"#),
        ("{}|rate()by(name)", "{ } | rate() by (name)"),
        ("( {.a} )", "({ .a })"),
    ] {
        assert_eq!(plain(raw).unwrap(), expected);
    }
}

#[test]
fn what_begins_with_every_span_begins_with_those_of_the_scope() {
    for (raw, expected) in [
        ("count() > 2", "{ S } | count() > 2"),
        ("count() = 1 | { true }", "{ S } | count() = 1 | { (true) && S }"),
        ("by(.a) | { true }", "{ S } | by(.a) | { (true) && S }"),
        ("select(.a)", "{ S } | select(.a)"),
        ("3 = 3", "{ S } | 3 = 3"),
        ("max(duration) > 3s | rate()", "{ S } | max(duration) > 3s | rate()"),
        ("(count() + 1) * 2 > 3", "{ S } | (count() + 1) * 2 > 3"),
        ("(count() > 2)", "({ S } | count() > 2)"),
        ("(by(.a) | count()) > 2", "({ S } | by(.a) | count()) > 2"),
        ("(count() > 2 | { .b }) && ({ .a })", "({ S } | count() > 2 | { (.b) && S }) && ({ (.a) && S })"),
        ("((count() > 2))", "(({ S } | count() > 2))"),
        ("{ } | (count() + 1) > 2", "{ S } | (count() + 1) > 2"),
        ("{ .a || .b } | compare({ })", "{ (.a || .b) && S } | compare({ S })"),
    ] {
        assert_eq!(confined(raw).unwrap(), expected.replace('S', ADDED), "{raw}");
    }
}

#[test]
fn what_other_spans_answer_is_refused_under_a_restriction() {
    for raw in [
        r#"{ rootServiceName = "payment" }"#,
        r#"{ !(1 = 1 && rootName =~ "a.*") }"#,
        r#"{ trace:rootService = "x" } || { true }"#,
        "{ traceDuration > 1s }",
        "{ trace:duration > 1s }",
        r#"{ parent.resource.service.name = "payment" }"#,
        r#"{ parent.span.token =~ "a.*" }"#,
        "{ parent.a = 1 }",
        "{ parent = nil }",
        "{ nestedSetLeft > 3 }",
        "{ } | by(rootName)",
        "{ } | select(.a, nestedSetParent)",
        "{ } | max(childCount) > 2",
        "{ } | rate() by (rootServiceName)",
        "{ } | quantile_over_time(traceDuration, .9)",
        "{ } | compare({ rootName = \"a\" })",
        "({ } | count() > 1 | { span:childCount > 1 }) && ({ })",
    ] {
        assert!(plain(raw).is_ok(), "{raw}: {:?}", plain(raw));
        let error = confined(raw).expect_err(raw).to_string();
        assert!(error.contains("comes from other spans of the trace"), "{raw}: {error}");
    }
}

#[test]
fn what_is_not_the_language_is_refused_with_its_place() {
    for (raw, words) in [
        ("", "the query is empty"),
        ("true", "expected a filter"),
        ("[ true ]", "unexpected '['"),
        ("( true )", "expected a filter"),
        ("{ status = }", "at character 12"),
        ("{ .a < 3", "the query ends where '}' is expected"),
        ("{ (.a < 3 }", "expected ')'"),
        ("{ . }", "is not an attribute"),
        ("{ attribute = 4 }", "expected a value, an attribute"),
        ("{ .attribute == 4 }", "expected a value"),
        ("{ span. }", "is not an attribute"),
        ("{ true } + { true }", "do not go together"),
        ("{ true } = { true }", "do not go together"),
        ("count() > 3 && { true }", "do not go together"),
        ("1 < 2 < 3", "do not go together"),
        ("({ true } | count()) > count()", "do not go together"),
        ("avg(.field) + 1", "a comparison behind the number"),
        ("{ true } | count()", "a comparison behind the number"),
        ("coalesce() | { true }", "needs something in front"),
        ("{ true } | frob()", "expected a filter such as"),
        ("{ true } | by()", "expected a value"),
        ("{ true } | by(.a) && { true }", "expected '|' or the end"),
        ("{ true } | ({ .a } | count() > 2)", "only stand at the beginning"),
        ("{ true } | rate() | { .a }", "expected topk or bottomk"),
        ("{ true } | rate() + 1", "the end of the query"),
        ("{ true } rate()", "the end of the query"),
        ("{ true } with (concurrent_blocks = 100)", "a hint must be one of"),
        ("{ true } with (debug_return_in = 10s)", "a hint must be one of"),
        ("{ trace:status = error }", "no intrinsic"),
        ("{ .a = 1 } // }", "comments between slashes"),
        ("{ .a /* } */ = 1 }", "comments between slashes"),
        ("{ .a = 'x' }", "unexpected"),
        ("{ .a# = 1 }", "is not an attribute"),
        (r#"{ ."x} || {true" = 1 }"#, "is not an attribute"),
        (r#"{ ."x y" = 1 }"#, "is not an attribute"),
        ("{ ./*x = \"*/\" }", "is not an attribute"),
        ("{ .a*2 = 4 }", "is not an attribute"),
        ("{ .a[0] = 4 }", "is not an attribute"),
        ("{ .5a = 1 }", "is not a number"),
        ("{ .a = 0x1F }", "is not a number"),
        (r#"{ .a = "\q" }"#, "backslash"),
        ("{ compare({ }) }", "expected a value"),
        ("{ } | quantile_over_time(duration)", "a quantile"),
    ] {
        let error = confined(raw).expect_err(raw).to_string();
        assert!(error.contains(words), "{raw}: {error}");
    }
}

#[test]
fn depth_and_size_are_bounded_on_a_small_stack() {
    let worker = std::thread::Builder::new().stack_size(1024 * 1024).spawn(|| {
        for deep in [
            format!("{{ {}true{} }}", "(".repeat(40), ")".repeat(40)),
            format!("{}{{ }}{}", "(".repeat(40), ")".repeat(40)),
            format!("{{ {}true }}", "!".repeat(300)),
        ] {
            assert!(confined(&deep).is_ok(), "{:?}", confined(&deep));
        }
        for raw in [
            "(".repeat(8_000),
            "{".repeat(8_000),
            format!("{{ {}", "(".repeat(8_000)),
            format!("{{ {}", "!".repeat(8_000)),
            format!("{{ {}true }}", "-".repeat(8_000)),
            format!("{{ }}{}", " || { }".repeat(1_000)),
            format!("{{ true{} }}", " && true".repeat(800)),
            "max(".repeat(2_000),
            "x".repeat(9_000),
        ] {
            assert!(confined(&raw).is_err(), "{}", &raw[..20]);
        }
    });
    worker.unwrap().join().unwrap();
}

#[test]
fn a_scope_without_names_or_attributes_sees_nothing() {
    let mut scope = Scope::tenant_wide(TenantId::default_tenant());
    assert!(TraceConfinement::of_scope(&scope, &TraceScope::default()).unwrap().is_none());
    scope.services = NameSet::only([""]);
    assert_eq!(TraceConfinement::of_scope(&scope, &attributes()), Err(QueryError::NothingInScope { kind: "service" }));
    assert_eq!(TraceConfinement::of_scope(&scope, &TraceScope::default()), Err(QueryError::NoLabel { kind: "service" }));
    let tenant = TraceScope { tenant: Some(attribute("org.id")), ..TraceScope::default() };
    scope.services = NameSet::All;
    let confinement = TraceConfinement::of_scope(&scope, &tenant).unwrap();
    assert_eq!(confine_traceql("{ }", &confinement).unwrap(), r#"{ (resource.org.id = "default") }"#);
}

#[test]
fn queries_from_types_are_read_back_as_they_were_built() {
    let condition = SpanCondition::any()
        .named("x\\`\" } || {")
        .with_status(SpanStatus::Error)
        .of_kind(SpanKind::Server)
        .at_least(Duration::from_millis(300))
        .named_like("GET.*|POST")
        .unwrap()
        .attribute(AttributeScope::Span, &attribute("http.route"), Comparison::NotEqual, SpanValue::Text("/a".into()))
        .unwrap()
        .attribute(AttributeScope::Any, &attribute("n"), Comparison::Less, SpanValue::Number(-1.5))
        .unwrap();
    let query = SpanQuery::new(&condition, &confinement())
        .showing(&[(AttributeScope::Resource, attribute("k8s.pod.name"))])
        .most_recent();
    let text = query.to_string();
    assert!(
        text.starts_with(r#"{ (name = "x\\`\" } || {") && (status = error) && (kind = server) && (duration >= 300000000ns)"#),
        "{text}"
    );
    assert!(
        text.ends_with(&format!(" && (.n < -1.5) && {ADDED} }} | select(resource.k8s.pod.name) with (most_recent = true)")),
        "{text}"
    );
    assert_eq!(plain(&text).unwrap(), text);
    let rate =
        SpanQuery::new(&SpanCondition::any(), &confinement()).rate_by(&[(AttributeScope::Resource, attribute("service.name"))]);
    assert_eq!(rate.to_string(), format!("{{ {ADDED} }} | rate() by (resource.service.name)"));
    assert_eq!(traceql_kind(&rate.to_string()), Ok(TraceqlKind::Metrics));
    let quantiles =
        SpanQuery::new(&SpanCondition::any(), &TraceConfinement::none()).duration_quantiles(&[0.5, 0.99], &[]).unwrap();
    assert_eq!(quantiles.to_string(), "{ } | quantile_over_time(duration, 0.5, 0.99)");
    for name in ["", "a b", "a}", "5a", "a//b", "a\"b", "x*"] {
        assert!(AttributeName::new(name).is_err(), "{name}");
    }
}

fn value() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("\"cart\""),
        Just("`raw } || { true`"),
        Just("\"\\\" } | select(.x)\""),
        Just("1.5"),
        Just("300ms"),
        Just("error"),
        Just("nil"),
        Just("true"),
        Just(".a"),
        Just("resource.service.name"),
        Just("span.http.status_code"),
        Just("duration"),
        Just("span:name"),
    ]
}

fn field() -> impl Strategy<Value = String> {
    value().prop_map(str::to_owned).prop_recursive(4, 12, 2, |inner| {
        let operator =
            prop_oneof![Just("&&"), Just("||"), Just("="), Just("!="), Just("=~"), Just(">="), Just("+"), Just("^"), Just("-")];
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, o, b)| format!("{a} {o} {b}")),
            inner.clone().prop_map(|e| format!("({e})")),
            inner.prop_map(|e| format!("!{e}")),
        ]
    })
}

fn filter() -> impl Strategy<Value = String> {
    prop_oneof![1 => Just("{}".to_owned()), 5 => field().prop_map(|f| format!("{{{f} }}"))]
}

fn spansets() -> impl Strategy<Value = String> {
    filter().prop_recursive(3, 8, 2, |inner| {
        let operator = prop_oneof![Just("&&"), Just("||"), Just(">>"), Just("<"), Just("~"), Just("!<<"), Just("&>"), Just("!~")];
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, o, b)| format!("{a}{o}{b}")),
            inner.prop_map(|e| format!("( {e} )")),
        ]
    })
}

fn pipeline() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("count()>2".to_owned()),
        field().prop_map(|f| format!("avg({f}) < 1s + 2s")),
        Just("(count() + 1) * 2 != 3".to_owned()),
    ];
    let stage = prop_oneof![
        3 => spansets(),
        1 => scalar,
        1 => field().prop_map(|f| format!("by({f})")),
        1 => Just("select(.a,span.b)".to_owned()),
    ];
    prop::collection::vec(stage, 1..4).prop_map(|stages| stages.join("|"))
}

fn query() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => pipeline(),
        1 => (pipeline(), pipeline()).prop_map(|(a, b)| format!("({a}) >> ({b} | coalesce())")),
        1 => (pipeline(), pipeline()).prop_map(|(a, b)| format!("({a} | count()) > ({b} | max(duration)) * 2")),
        1 => pipeline().prop_map(|p| format!("{p} | rate() by(name, .a) | topk(3) with(most_recent=true)")),
        1 => (pipeline(), filter()).prop_map(|(p, f)| format!("{p} | compare({f}, 10)")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn a_random_query_is_confined_at_every_filter_and_otherwise_the_same(raw in query()) {
        prop_assume!(raw.len() <= 8_192);
        let written = match plain(&raw) {
            Ok(written) => written,
            Err(QueryError::TooComplex { .. }) => return Err(TestCaseError::reject("too complex")),
            Err(error) => return Err(TestCaseError::fail(format!("{raw}: {error}"))),
        };
        prop_assert_eq!(&plain(&written).unwrap(), &written);
        let text = confined(&raw).map_err(|error| TestCaseError::fail(format!("{raw}: {error}")))?;

        // Trusting no parser: outside of strings every filter ends with the added conditions, and is one group before them.
        let (bare, ending) = (without_strings(&text), without_strings(&format!("{ADDED} }}")));
        prop_assert_eq!(bare.matches('{').count(), bare.matches(&ending).count(), "{}", bare);
        for filter in bare.split('{').skip(1) {
            let inside = filter.split_once(&ending).unwrap().0;
            let mut depth = 0_i32;
            let outside = inside.chars().filter(|c| {
                depth += i32::from(*c == '(');
                let out = depth == 0;
                depth -= i32::from(*c == ')');
                out
            });
            prop_assert_eq!(outside.collect::<String>().replace(' ', ""), if inside.trim().is_empty() { "" } else { "&&" });
        }
        // Nothing but filters and what follows them reads spans.
        let begins = bare.trim_start_matches(['(', ' ']);
        prop_assert!(begins.starts_with('{'), "{}", bare);
        if text.matches(&format!("{{ {ADDED} }} | ")).count() == written.matches("{ } | ").count() {
            prop_assert_eq!(bare.matches('{').count(), without_strings(&written).matches('{').count());
        }
    }

    #[test]
    fn arbitrary_text_never_panics_and_never_escapes(raw in prop_oneof![
        any::<String>(),
        r#"[{}()a-c"`\\|=~!<>&,#\n 0-9.+*/-]{0,40}"#,
        (query(), 0_usize..200, r#"[{}()"`\\|&/*.]{0,3}"#).prop_map(|(q, at, more)| {
            let at = (0..=at.min(q.len())).rev().find(|at| q.is_char_boundary(*at)).unwrap_or(0);
            format!("{}{more}{}", &q[..at], &q[at..])
        }),
    ]) {
        if let Ok(text) = confined(&raw) {
            let (bare, ending) = (without_strings(&text), without_strings(&format!("{ADDED} }}")));
            prop_assert_eq!(bare.matches('{').count(), bare.matches(&ending).count(), "{}", text);
            prop_assert!(bare.trim_start_matches(['(', ' ']).starts_with('{'), "{}", text);
        }
    }

    #[test]
    fn any_text_stays_a_text(value in any::<String>()) {
        let built = SpanQuery::new(&SpanCondition::any().named(value), &TraceConfinement::none()).to_string();
        prop_assert_eq!(without_strings(&built), "{ (name = ) }", "{}", built);
        if built.len() <= 8_192 {
            prop_assert_eq!(plain(&built).unwrap(), built);
        }
    }
}
