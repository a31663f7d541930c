//! Queries built from types read back, through a parser that is not ours, with the same values in the same places.

use std::time::Duration;

use portcullis_query::promql::{
    Aggregation, BinaryOperator, Expr, Grouping, LabelName, Matcher, MetricName, RangeFunction, Selector, VectorFunction,
    VectorMatching,
};
use portcullis_query::{promql_info, promql_string};
use promql_parser::label::{MatchOp, Matcher as ParsedMatcher};
use promql_parser::parser::{Expr as Parsed, parse};
use proptest::prelude::*;

fn label(name: &str) -> LabelName {
    LabelName::new(name).unwrap()
}

fn metric(name: &str) -> Selector {
    Selector::metric(MetricName::new(name).unwrap())
}

#[test]
fn rendering_is_plain_where_it_can_be() {
    let rate = metric("http_requests_total")
        .matching(Matcher::equal(label("service_name"), "cart"))
        .matching(Matcher::regex(label("code"), "5..").unwrap())
        .range(Duration::from_mins(5))
        .rate();
    let all = metric("http_requests_total").range(Duration::from_mins(5)).rate().sum_by(&[]);
    assert_eq!(
        rate.clone().sum_by(&[label("service_name")]).ratio(all).times(100.0).to_string(),
        "(sum by (service_name) (rate(http_requests_total{service_name=\"cart\",code=~\"5..\"}[5m])) \
         / (sum(rate(http_requests_total[5m])) > 0)) * 100"
    );
    let quantile = metric("latency_bucket").range(Duration::from_mins(1)).rate().sum_by(&[label("le")]);
    assert_eq!(
        quantile.histogram_quantile(0.99).unwrap().to_string(),
        "histogram_quantile(0.99, sum by (le) (rate(latency_bucket[1m])))"
    );
    assert_eq!(
        Expr::from(metric("native").offset(Duration::from_hours(24))).apply(VectorFunction::HistogramAvg).to_string(),
        "histogram_avg(native offset 1d)"
    );
    assert_eq!(
        rate.over(Duration::from_hours(1), Some(Duration::from_mins(1))).apply(RangeFunction::MaxOverTime).to_string(),
        "max_over_time((rate(http_requests_total{service_name=\"cart\",code=~\"5..\"}[5m]))[1h:1m])"
    );
    let joined = Expr::from(metric("a")).binary(
        BinaryOperator::Multiply,
        VectorMatching::OnGroupLeft { on: vec![label("pod")], include: vec![] },
        Expr::from(metric("b")).aggregate(Aggregation::Topk(3), Grouping::Without(vec![label("k8s.node")])).unwrap(),
    );
    assert_eq!(joined.to_string(), "a * on (pod) group_left () topk without (\"k8s.node\") (3, b)");
    assert_eq!(Expr::Number(-2.0).binary(BinaryOperator::Power, VectorMatching::Default, 2.0).to_string(), "(-2) ^ 2");
}

#[test]
fn names_are_quoted_only_when_they_need_it() {
    let dotted = metric("http.server.duration").matching(Matcher::equal(label("service.name"), "x"));
    assert_eq!(dotted.to_string(), r#"{"http.server.duration","service.name"="x"}"#);
    assert_eq!(metric("sum").to_string(), r#"{__name__="sum"}"#);
    assert_eq!(metric("job:errors:rate5m").to_string(), "job:errors:rate5m");
    for bad in ["", "a\nb", &"x".repeat(1_025)] {
        assert!(MetricName::new(bad).is_err());
    }
}

#[test]
fn impossible_numbers_and_patterns_are_refused() {
    let rate = || metric("x").range(Duration::from_mins(1)).rate();
    assert!(rate().histogram_quantile(1.5).unwrap_err().to_string().contains("between 0 and 1"));
    assert!(rate().aggregate(Aggregation::Topk(0), Grouping::All).is_err());
    assert!(rate().aggregate(Aggregation::Quantile(f64::NAN), Grouping::All).is_err());
    assert!(Matcher::regex(label("a"), "(").is_err());
    assert!(Matcher::any_of(label("a"), Vec::<String>::new()).is_err());
}

/// Any text, with a preference for what could end a string or a selector.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r#"["'`\\\n\r\t{}\[\](),|=~! a-c#]{0,12}"#,
        Just("\"} or vector(1) or x{a=\"".to_owned()),
        Just("\u{fffd}\u{0}\u{7f}\u{85}\u{2028}\u{feff}".to_owned()),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        text().prop_map(|t| t.chars().filter(|c| !c.is_control()).collect::<String>()),
        Just("or".to_owned()),
        Just("by".to_owned()),
        Just("nan".to_owned()),
        Just("service.name".to_owned()),
        "[a-z_][a-z0-9_]{0,8}"
    ]
    .prop_filter("a name", |n| !n.is_empty() && n.len() <= 1_024)
}

fn wanted(matcher: &Matcher) -> (String, &'static str, String) {
    (matcher.label().as_str().to_owned(), matcher.operator().as_str(), matcher.value().to_owned())
}

fn found(matcher: &ParsedMatcher) -> (String, &'static str, String) {
    let operator = match matcher.op {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Re(_) => "=~",
        MatchOp::NotRe(_) => "!~",
    };
    (matcher.name.clone(), operator, matcher.value.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_text_stays_a_value(metric_name in name(), label_names in prop::collection::vec(name(), 1..4), values in prop::collection::vec(text(), 4)) {
        prop_assume!(!label_names.iter().any(|n| n == "__name__"));
        let mut selector = Selector::metric(MetricName::new(metric_name.clone()).unwrap());
        for (index, label_name) in label_names.iter().enumerate() {
            let one = LabelName::new(label_name.clone()).unwrap();
            selector = selector.matching(match index % 4 {
                0 => Matcher::equal(one, values[index].clone()),
                1 => Matcher::not_equal(one, values[index].clone()),
                2 => Matcher::any_of(one, [&values[0], &values[1]]).unwrap(),
                _ => Matcher::none_of(one, [&values[2], &values[3]]).unwrap(),
            });
        }
        let rendered = selector.to_string();
        let Ok(Parsed::VectorSelector(read)) = parse(&rendered) else { panic!("{rendered}") };
        let mut matchers: Vec<_> = read.matchers.matchers.iter().map(found).collect();
        let read_name = read.name.clone().unwrap_or_else(|| matchers.remove(0).2);
        prop_assert_eq!(read_name, metric_name.clone());
        prop_assert_eq!(matchers, selector.matchers().iter().map(wanted).collect::<Vec<_>>());
        prop_assert!(read.matchers.or_matchers.is_empty());

        // The same selector deep inside a query, read by our own scanner as well.
        let query = selector.range(Duration::from_millis(1_500)).rate().sum_by(&[LabelName::new(label_names[0].clone()).unwrap()]).above(0.0);
        let info = promql_info(&query.to_string()).unwrap();
        prop_assert_eq!(info.selectors, 1);
        prop_assert_eq!(info.metrics.into_iter().collect::<Vec<_>>(), vec![metric_name]);
    }

    #[test]
    fn any_text_stays_a_string(value in text()) {
        let Ok(Parsed::StringLiteral(read)) = parse(&promql_string(&value)) else { panic!("{value:?}") };
        prop_assert_eq!(read.val, value);
    }

    #[test]
    fn a_literal_alternation_matches_only_its_members(values in prop::collection::vec(text(), 2..4), other in text()) {
        let matcher = Matcher::any_of(label("a"), &values).unwrap();
        let Ok(Parsed::VectorSelector(read)) = parse(&metric("x").matching(matcher).to_string()) else { panic!() };
        let read = &read.matchers.matchers[0];
        prop_assert!(values.iter().all(|value| read.is_match(value)));
        prop_assert_eq!(read.is_match(&other), values.contains(&other));
    }

    #[test]
    fn durations_keep_their_milliseconds(milliseconds in 1_u64..400 * 86_400_000) {
        let query = metric("x").offset(Duration::from_millis(milliseconds)).range(Duration::from_millis(milliseconds)).rate();
        let Ok(Parsed::Call(call)) = parse(&query.to_string()) else { panic!("{query}") };
        let Parsed::MatrixSelector(read) = &*call.args.args[0] else { panic!("{query}") };
        prop_assert_eq!(read.range, Duration::from_millis(milliseconds));
        prop_assert_eq!(&read.vs.offset, &Some(promql_parser::parser::Offset::Pos(Duration::from_millis(milliseconds))));
    }
}
