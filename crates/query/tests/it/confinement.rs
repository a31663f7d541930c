//! A confined query is confined at every selector, keeps what the caller wrote, and everything doubtful is refused.

use std::time::Duration;

use portcullis_model::{NameSet, Scope, TenantId, Timestamp};
use portcullis_query::promql::LabelName;
use portcullis_query::{Confinement, QueryError, ScopeLabels, TimeLimits, confine_promql, promql_reach};
use promql_parser::label::Matcher as ParsedMatcher;
use promql_parser::parser::{Expr, VectorSelector, parse};
use proptest::prelude::*;

use crate::generate::expression;

/// What the confinement below adds to every selector.
pub(crate) const ADDED: &str = r#"service_name=~"cart|pay\\.ment",namespace="shop""#;

pub(crate) fn confinement() -> Confinement {
    let mut scope = Scope::tenant_wide(TenantId::default_tenant());
    scope.services = NameSet::only(["cart", "pay.ment"]);
    scope.namespaces = NameSet::only(["shop"]);
    Confinement::of_scope(&scope, &labels()).unwrap()
}

fn labels() -> ScopeLabels {
    ScopeLabels {
        tenant: None,
        service: Some(LabelName::new("service_name").unwrap()),
        namespace: Some(LabelName::new("namespace").unwrap()),
    }
}

fn confined(raw: &str) -> String {
    confine_promql(raw, &confinement()).unwrap_or_else(|error| panic!("{raw}: {error}"))
}

fn refused(raw: &str) -> String {
    confine_promql(raw, &confinement()).expect_err(raw).to_string()
}

/// All selectors, found by a walk of the test's own.
fn selectors(expr: &Expr) -> Vec<VectorSelector> {
    match expr {
        Expr::VectorSelector(s) => vec![s.clone()],
        Expr::MatrixSelector(m) => vec![m.vs.clone()],
        Expr::Aggregate(a) => a.param.iter().flat_map(|p| selectors(p)).chain(selectors(&a.expr)).collect(),
        Expr::Unary(u) => selectors(&u.expr),
        Expr::Binary(b) => selectors(&b.lhs).into_iter().chain(selectors(&b.rhs)).collect(),
        Expr::Paren(p) => selectors(&p.expr),
        Expr::Subquery(s) => selectors(&s.expr),
        Expr::Call(c) => c.args.args.iter().flat_map(|a| selectors(a)).collect(),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Vec::new(),
        Expr::Extension(_) => panic!("the parser makes no extensions"),
    }
}

/// The text without the insides of its strings, for checks that trust no parser.
pub(crate) fn without_strings(text: &str) -> String {
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
    assert!(!quoted, "{text}");
    out
}

#[test]
fn every_selector_is_confined() {
    assert_eq!(confined("up"), format!("up{{{ADDED}}}"));
    assert_eq!(confined(r#"rate(x{a="b"}[5m] offset 1h)"#), format!(r#"rate(x{{a="b",{ADDED}}}[5m] offset 1h)"#));
    assert_eq!(
        confined("topk(scalar(a), max_over_time((b or c @ start())[1h:1m])) / on (x) group_left () -d"),
        format!(
            "topk(scalar(a{{{ADDED}}}), max_over_time((b{{{ADDED}}} or c{{{ADDED}}} @ start())[1h:1m])) / on (x) group_left () -d{{{ADDED}}}"
        )
    );
    assert_eq!(confined("vector(time())"), "vector(time())");
    assert_eq!(confined(r#"absent(up{job="x"})"#), format!(r#"absent(up{{job="x",{ADDED}}})"#));
}

#[test]
fn the_callers_own_matcher_on_the_same_label_stays() {
    assert_eq!(confined(r#"up{service_name="other"}"#), format!(r#"up{{service_name="other",{ADDED}}}"#));
    assert_eq!(confined(r#"up{service_name=~".*"}"#), format!(r#"up{{service_name=~".*",{ADDED}}}"#));
    assert_eq!(confined(r#"{service_name!=""}"#), format!(r#"{{service_name!="",{ADDED}}}"#));
}

#[test]
fn what_cannot_be_confined_is_refused() {
    assert!(refused(r#"{a="b" or c="d"}"#).contains("at character 8: 'or' between matchers"));
    assert!(refused(r#"sum(x{a="b" OR c="d", e="f"})"#).contains("'or' between matchers"));
    assert!(refused("info(up)").contains("at character 1: info()"));
    assert!(refused("no_such_function(up)").contains("unknown function"));
    assert!(refused("up keep_metric_names").contains("at character 4"));
    assert!(refused("WITH (x = up) x").contains("not valid PromQL"));
    assert!(refused("up}").contains("closes nothing"));
    assert!(refused("{}").contains("non-empty matcher"));
    assert!(refused("up[99999999999m1s]").contains("not"));
    assert!(refused(&format!("{}up{}", "(".repeat(2_000), ")".repeat(2_000))).contains("levels of brackets"));
    assert!(confine_promql("info(up)", &Confinement::none()).is_ok());
}

#[test]
fn an_empty_scope_sees_nothing_and_a_missing_label_is_the_operators_to_fix() {
    let mut scope = Scope::tenant_wide(TenantId::default_tenant());
    assert!(Confinement::of_scope(&scope, &ScopeLabels::default()).unwrap().is_none());
    scope.services = NameSet::only([""]);
    assert_eq!(Confinement::of_scope(&scope, &labels()), Err(QueryError::NothingInScope { kind: "service" }));
    scope.services = NameSet::only(["cart"]);
    assert_eq!(Confinement::of_scope(&scope, &ScopeLabels::default()), Err(QueryError::NoLabel { kind: "service" }));
}

#[test]
fn the_look_back_holds_through_ranges_offsets_and_at() {
    let now = Timestamp::from_seconds(1_772_359_200);
    let mut scope = Scope::tenant_wide(TenantId::default_tenant());
    scope.look_back = Some(Duration::from_hours(1));
    let start = now.minus(Duration::from_mins(10));
    let limits = TimeLimits::of_scope(&scope, start, now, now);
    let check = |raw: &str| confine_promql(raw, &confinement().within(limits));
    for raw in [
        "up",
        "rate(up[50m])",
        "up offset 50m",
        "rate(up[20m] offset 30m)",
        "up @ 1772355600",
        "up @ start() offset 50m",
        "time()",
    ] {
        assert!(check(raw).is_ok(), "{raw}: {:?}", check(raw));
    }
    for raw in [
        "rate(up[51m])",
        "up offset 51m",
        "rate(up[21m] offset 30m)",
        "up @ 1772355599",
        "up @ 0",
        "max_over_time(up[30m:1m] offset 21m)",
    ] {
        assert!(matches!(check(raw), Err(QueryError::LooksTooFarBack { .. })), "{raw}: {:?}", check(raw));
    }
    for raw in ["up offset -1m", "up @ 1772359201", "rate(up[5m] @ end() offset -1s)"] {
        assert!(matches!(check(raw), Err(QueryError::LooksAhead { .. })), "{raw}: {:?}", check(raw));
    }
}

#[test]
fn the_deepest_accepted_query_fits_a_small_stack() {
    let deep = format!("{}up{}{}", "(".repeat(48), " + up".repeat(100), ")".repeat(48));
    let signs = format!("{}up", "-".repeat(200));
    let powers = format!("up{}", " ^ up".repeat(200));
    let worker = std::thread::Builder::new().stack_size(1024 * 1024).spawn(move || {
        for raw in [deep, signs, powers] {
            let error = confine_promql(&raw, &confinement()).err();
            assert!(error.is_none(), "{error:?}");
        }
        for raw in ["(".repeat(8_000), "-".repeat(8_000), "a+".repeat(4_000), "sum(".repeat(2_000), "{".repeat(8_000)] {
            assert!(confine_promql(&raw, &confinement()).is_err());
        }
    });
    worker.unwrap().join().unwrap();
}

#[test]
fn a_long_scope_cannot_blow_the_query_up() {
    let mut scope = Scope::tenant_wide(TenantId::default_tenant());
    scope.services = NameSet::only((0..500).map(|n| format!("service-{n:04}")));
    let confinement = Confinement::of_scope(&scope, &labels()).unwrap();
    assert!(confine_promql("up + up", &confinement).is_ok());
    let error = confine_promql(&vec!["up"; 100].join(" + "), &confinement).unwrap_err();
    assert!(matches!(error, QueryError::TooLong { .. }), "{error}");
}

fn carries(selector: &VectorSelector, added: &[ParsedMatcher]) -> bool {
    selector.matchers.or_matchers.is_empty() && added.iter().all(|m| selector.matchers.matchers.contains(m))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn a_random_query_is_confined_everywhere_and_otherwise_the_same(raw in expression()) {
        prop_assume!(raw.len() <= 8_192);
        let text = match confine_promql(&raw, &confinement()) {
            Ok(text) => text,
            // Typing rules of the language are the only excuse of this generator.
            Err(QueryError::Syntax { .. }) => return Err(TestCaseError::reject("not typed")),
            Err(error) => return Err(TestCaseError::fail(format!("{raw}: {error}"))),
        };
        let Ok(Expr::VectorSelector(carrier)) = parse(&format!("{{{ADDED}}}")) else { panic!() };
        let added = carrier.matchers.matchers;
        let after = selectors(&parse(&text).unwrap());
        prop_assert!(after.iter().all(|s| carries(s, &added)), "{}", text);

        // Without the added text it is what an unconfined rewrite gives: nothing else changed.
        let plain = confine_promql(&raw, &Confinement::none()).unwrap();
        let stripped = text.replace(&format!(",{ADDED}}}"), "}").replace(&format!("{{{ADDED}}}"), "");
        prop_assert_eq!(&stripped, &plain);
        prop_assert_eq!(selectors(&parse(&plain).unwrap()).len(), after.len());

        // Trusting no parser: every metric name is followed by braces, every brace block ends with the added matchers.
        let bare = without_strings(&text);
        for (at, _) in bare.match_indices("zz_") {
            let rest = bare[at..].trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':');
            prop_assert!(rest.starts_with('{'), "{}", bare);
        }
        let ending = without_strings(&format!("{ADDED}}}"));
        prop_assert_eq!(bare.matches('{').count(), bare.matches(&ending).count(), "{}", bare);

        // Confining twice adds the same again and is still accepted.
        prop_assert!(confine_promql(&text, &confinement()).is_ok());
    }

    #[test]
    fn arbitrary_text_never_panics_and_never_escapes(raw in prop_oneof![
        any::<String>(),
        r#"[a-c{}()\[\]"'`\\=~!,:@#\n 0-9.or+-]{0,40}"#,
    ]) {
        if let Ok(text) = confine_promql(&raw, &confinement()) {
            let Ok(Expr::VectorSelector(carrier)) = parse(&format!("{{{ADDED}}}")) else { panic!() };
            prop_assert!(selectors(&parse(&text).unwrap()).iter().all(|s| carries(s, &carrier.matchers.matchers)), "{}", text);
        }
    }

    #[test]
    fn any_scope_name_is_only_ever_a_name(service in "\\PC{1,20}", other in "\\PC{0,20}") {
        let mut scope = Scope::tenant_wide(TenantId::default_tenant());
        scope.services = NameSet::only([service.clone(), format!("{service}-2")]);
        let confinement = Confinement::of_scope(&scope, &labels()).unwrap();
        let text = confine_promql("up", &confinement).unwrap();
        let Ok(Expr::VectorSelector(read)) = parse(&text) else { panic!("{text}") };
        prop_assert_eq!(read.matchers.matchers.len(), 1);
        prop_assert!(read.matchers.matchers[0].is_match(&service));
        prop_assert!(!read.matchers.matchers[0].is_match(""));
        prop_assert_eq!(read.matchers.matchers[0].is_match(&other), scope.services.contains(&other));
    }

    #[test]
    fn the_rewrite_reaches_as_far_as_the_original(raw in expression()) {
        let (start, end) = (Timestamp::from_seconds(1_700_000_000), Timestamp::from_seconds(1_700_003_600));
        if let Ok(text) = confine_promql(&raw, &confinement()) {
            prop_assert_eq!(promql_reach(&raw, start, end).unwrap(), promql_reach(&text, start, end).unwrap());
        }
    }
}
