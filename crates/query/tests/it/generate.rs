//! Random PromQL as callers might write it: every construct of the language, any spelling. All metric names begin with
//! `zz_`, so that a test can find them without a parser.

use proptest::prelude::*;

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\"cart\"".to_owned()),
        Just("'pay\"ment'".to_owned()),
        Just("`back\\slash{}`".to_owned()),
        Just("\"\\u20ac \\\"} or zz_x{a=\\\"\"".to_owned()),
        Just("\"\"".to_owned()),
    ]
}

fn matcher() -> impl Strategy<Value = String> {
    prop_oneof![
        (
            prop_oneof![Just("service_name"), Just("namespace"), Just("code"), Just("or")],
            prop_oneof![Just("="), Just("!=")],
            value()
        )
            .prop_map(|(label, operator, value)| format!("{label}{operator}{value}")),
        (
            prop_oneof![Just("service_name"), Just("path")],
            prop_oneof![Just("=~"), Just("!~")],
            prop_oneof![Just("\".*\""), Just("`a\\d+|.+`"), Just("''"), Just("\"x{y}\"")]
        )
            .prop_map(|(label, operator, value)| format!("{label} {operator} {value}")),
    ]
}

fn selector() -> impl Strategy<Value = String> {
    (prop_oneof![Just("zz_a"), Just("zz_b:rate5m"), Just("zz_up")], prop::collection::vec(matcher(), 0..3), any::<bool>())
        .prop_map(|(name, matchers, comma)| {
            let inside = matchers.join(", ");
            match (matchers.is_empty(), comma) {
                (true, true) => name.to_owned(),
                (true, false) => format!("{name}{{}}"),
                (false, true) => format!("{name} {{{inside},}}"),
                (false, false) => format!("{{__name__=\"{name}\", {inside}}}"),
            }
        })
}

fn time() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => Just(""),
        1 => Just(" offset 5m"),
        1 => Just(" offset -1h30m"),
        1 => Just(" @ 1609746000.123"),
        1 => Just(" @ start()"),
        1 => Just(" @ end() offset 300"),
        1 => Just(" offset 1d @ 5"),
    ]
}

fn instant() -> impl Strategy<Value = String> {
    (selector(), time()).prop_map(|(selector, time)| format!("{selector}{time}"))
}

fn range_of(expression: &str, is_selector: bool, time: &str) -> String {
    if is_selector { format!("{expression}[5m]{time}") } else { format!("({expression})[1h:30s]{time}") }
}

/// An expression whose value is an instant vector.
pub(crate) fn expression() -> impl Strategy<Value = String> {
    instant().prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), time()).prop_map(|(e, time)| format!("max_over_time({})", range_of(&e, false, time))),
            (selector(), time(), prop_oneof![Just("rate"), Just("increase"), Just("absent_over_time"), Just("deriv")])
                .prop_map(|(s, time, function)| format!("{function}({})", range_of(&s, true, time))),
            (inner.clone(), prop_oneof![Just("sum"), Just("count"), Just("max"), Just("group")], grouping())
                .prop_map(|(e, op, grouping)| format!("{op}{grouping}({e})")),
            (inner.clone(), grouping()).prop_map(|(e, grouping)| format!("SUM({e}){grouping}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("topk(scalar({a}), {b})")),
            inner.clone().prop_map(|e| format!("count_values(\"v\", {e})")),
            (inner.clone(), binary(), inner.clone()).prop_map(|(a, operator, b)| format!("({a}) {operator} {b}")),
            (inner.clone(), prop_oneof![Just("+ 1"), Just("> bool 0x1F"), Just("* -2.5e3"), Just("^ 5m"), Just("== NaN")])
                .prop_map(|(e, rest)| format!("{e} {rest}")),
            inner.clone().prop_map(|e| format!("-({e})")),
            inner.clone().prop_map(|e| format!("+{e} # a comment with zz_comment{{\n")),
            inner.clone().prop_map(|e| format!("label_replace({e}, \"service_name\", '$1', `job`, \"(.*)\")")),
            inner.clone().prop_map(|e| format!("absent({e})")),
            inner.clone().prop_map(|e| format!("histogram_quantile(0.9, {e})")),
            inner.clone().prop_map(|e| format!("vector(scalar({e})) or vector(time())")),
            inner.clone().prop_map(|e| format!("clamp_max(sort_desc({e}), 1e300)")),
        ]
    })
}

fn grouping() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(""), Just(" by (job, or) "), Just(" without () "), Just(" by () "), Just(" BY(instance,) ")]
}

fn binary() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("+"),
        Just("/ on(job) group_left(version)"),
        Just("* ignoring (code) group_right"),
        Just("and"),
        Just("or"),
        Just("unless on ()"),
        Just(">= bool on (job)"),
        Just("atan2"),
        Just("^"),
    ]
}
