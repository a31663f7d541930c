//! What the policies promise, tried from the outside of the engine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_model::{
    ManualClock, NameSet, Principal, RiskClass, Scope, TenantId, Timestamp, ToolSpec, TraceContext, WriteCategory,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::testing::{principal, tool, tool_with};
use crate::{
    Asked, Budget, CharterGrant, Lookup, Permit, Policies, PolicyError, PolicyText, ProductSettings, Products, Refusal,
    RuleOutcome, Vocabulary, Wanted,
};

const CALL: &str = r#"action == Portcullis::Action::"call""#;

fn logs() -> ToolSpec {
    tool_with(
        "query_logs",
        &json!({
            "service": {"type": "string"}, "level": {"type": "string", "enum": ["debug", "info", "error"]},
            "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
            "window": {"type": "string", "default": "15m"}, "start": {"type": "string"}, "end": {"type": "string"},
            "source": {"type": "string"}, "labels": {"type": "object"}, "raw": {"type": "boolean", "default": false},
            "fields": {"type": "array", "items": {"type": "string"}},
        }),
        &[],
    )
}

fn tools() -> Vec<Arc<ToolSpec>> {
    let sql = tool_with("sql", &json!({"query": {"type": "string"}, "limit": {"type": "integer", "maximum": 50}}), &["query"]);
    let sources = tool_with("list_sources", &json!({}), &[]);
    let build = tool_with("builds", &json!({"project": {"type": "string"}}), &[]);
    [logs(), sql, sources, build, tool("restart", RiskClass::Write, Some("workloads"))].map(Arc::new).to_vec()
}

fn vocabulary() -> Vocabulary {
    Vocabulary {
        roles: ["intern".to_owned()].into(),
        sources: Some(["prod-eu", "prod-us", "lab"].map(str::to_owned).into()),
        enabled_writes: [WriteCategory("workloads".into())].into(),
        products: [("oncall".to_owned(), BTreeSet::from(["query_logs".to_owned()]))].into(),
        ..Vocabulary::of_tools(&tools())
    }
}

fn load_with(text: &str, vocabulary: &Vocabulary) -> Result<Policies, PolicyError> {
    Policies::load(&[PolicyText { origin: "own.cedar".into(), text: text.into() }], vocabulary, 1)
}

fn load(text: &str) -> Result<Policies, PolicyError> {
    load_with(text, &vocabulary())
}

fn refused(text: &str) -> String {
    load(text).map(|_| ()).expect_err(text).to_string()
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// The rule that decides, with `+` when it allows.
fn rule(policies: &Policies, who: &Principal, tool: &ToolSpec, arguments: &Value) -> String {
    let decision = policies.decide_arguments(who, tool, &map(arguments));
    format!("{}{}", if decision.allowed { "+" } else { "" }, decision.rule)
}

fn permit(policies: &Policies, who: &Principal, tool: &ToolSpec, arguments: &Value) -> Result<Permit, Refusal> {
    let arguments = map(arguments);
    let asked = Asked { principal: who, tool, arguments: &arguments, product: None, reach: None };
    policies.authorize_call(asked, Instant::now() + Duration::from_secs(1), Budget::default(), TraceContext::default())
}

#[test]
fn roles_and_the_write_gate() {
    let mut vocabulary = vocabulary();
    vocabulary.enabled_writes.clear();
    let read = logs();
    let write = tool("restart", RiskClass::Write, Some("workloads"));
    let destroy = tool("restart", RiskClass::Destructive, Some("workloads"));
    let closed = Policies::load(&[], &vocabulary, 1).unwrap();
    for role in ["reader", "operator", "plugin-admin", "admin"] {
        assert!(closed.decide_call(&principal(role), &read).allowed);
        assert_eq!(&*closed.decide_call(&principal(role), &write).rule, "write-gate");
    }
    for role in ["nobody", "anonymous"] {
        assert_eq!(&*closed.decide_call(&principal(role), &read).rule, "no-rule-allows");
    }
    vocabulary.enabled_writes.insert(WriteCategory("workloads".into()));
    vocabulary.enabled_writes.insert(WriteCategory("plugins".into()));
    let open = Policies::load(&[], &vocabulary, 2).unwrap();
    assert!(!open.decide_call(&principal("reader"), &write).allowed);
    assert!(open.decide_call(&principal("operator"), &write).allowed);
    assert!(!open.decide_call(&principal("plugin-admin"), &write).allowed);
    let fresh = Policies::load(&[], &vocabulary, 3).unwrap();
    assert!(!fresh.decide_call(&principal("operator"), &destroy).allowed);
    let plugins = tool("restart", RiskClass::Destructive, Some("plugins"));
    assert!(fresh.decide_call(&principal("plugin-admin"), &plugins).allowed);
    let fresh = Policies::load(&[], &vocabulary, 4).unwrap();
    assert!(fresh.decide_call(&principal("admin"), &destroy).allowed);
}

#[test]
fn a_writing_tool_without_a_category_cannot_be_enabled() {
    let policies = Policies::load(&[], &vocabulary(), 1).unwrap();
    assert!(!policies.decide_call(&principal("admin"), &tool("restart", RiskClass::Write, None)).allowed);
}

#[test]
fn a_tool_the_rules_were_not_checked_against_is_refused() {
    let policies = Policies::load(&[], &vocabulary(), 1).unwrap();
    let unknown = policies.decide_call(&principal("admin"), &tool("new", RiskClass::Read, None));
    assert_eq!((unknown.allowed, &*unknown.rule), (false, "unchecked-tool"));
}

#[test]
fn forbid_beats_permit_and_is_named() {
    let policies =
        load(&format!(r#"@id("no-logs") forbid(principal, {CALL}, resource == Portcullis::Tool::"query_logs");"#)).unwrap();
    let decision = policies.decide_call(&principal("admin"), &logs());
    assert_eq!((decision.allowed, &*decision.rule), (false, "no-logs"));
}

#[test]
fn rules_about_what_does_not_exist_are_errors() {
    for (text, expected) in [
        (r#"@id("x") permit(principal, action, resource == Portcullis::Tool::"query_log");"#, "did you mean 'query_logs'"),
        (r#"@id("x") permit(principal in Portcullis::Role::"boss", action, resource);"#, "role 'boss'"),
        (r#"@id("x") permit(principal, action, resource in Portcullis::Product::"oncal");"#, "did you mean 'oncall'"),
        (r#"@id("x") permit(principal, action == Portcullis::Action::"cal", resource);"#, "did you mean 'call'"),
        (r#"@id("x") permit(principal, action, resource) when { resource.colour == "red" };"#, "colour"),
        (r#"@id("x") permit(principal, action, resource) when { false };"#, "never match"),
        ("permit(principal, action, resource);", "@id"),
        ("not cedar", "not a valid policy"),
        (r#"@id("reader-may-look") permit(principal, action, resource);"#, "used twice"),
        (r#"@id("write-gate") permit(principal, action, resource);"#, "choose another"),
        (
            r#"@id("x") permit(principal, action == Portcullis::Action::"read", resource == Portcullis::Tool::"sql");"#,
            "never match",
        ),
        (r#"@id("x") @max_row("5") permit(principal, action, resource);"#, "did you mean 'max_rows'"),
        (r#"@id("x") @max_rows("5") forbid(principal, action, resource);"#, "put it on a permit"),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn whom_a_rule_names_must_be_somebodys_id() {
    let names = |id: &str| format!(r#"@id("x") forbid(principal == Portcullis::Principal::"{id}", action, resource);"#);
    for id in ["key", "apikey:abc", "Key:abc", "key:", "anybody", "key:a b", ""] {
        let error = refused(&names(id));
        assert!(error.contains("never match") && error.contains("key:ID"), "{id}: {error}");
    }
    for id in ["key:abcdefghij", "user:ana", "cert:agent", "token:corp/ana@example.org", "local:root", "anonymous"] {
        load(&names(id)).unwrap();
    }
    let condition = r#"@id("x") forbid(principal, action, resource) when { principal == Portcullis::Principal::"kye:abc" };"#;
    assert!(refused(condition).contains("nobody's id"));
}

#[test]
fn a_rule_about_arguments_is_checked_against_the_tool() {
    let on = |tool: &str, condition: &str| {
        refused(&format!(r#"@id("x") forbid(principal, {CALL}, resource == Portcullis::Tool::"{tool}") when {{ {condition} }};"#))
    };
    for (tool, condition, expected) in [
        ("query_logs", r#"context.arguments.servce == "payment""#, "did you mean 'service'"),
        ("sql", r#"context.arguments.service == "payment""#, "tool 'sql' does not have an argument 'service'"),
        ("query_logs", r#"context.arguments.limit == "many""#, "query_logs"),
        ("query_logs", "context.arguments.service > 5", "query_logs"),
        ("query_logs", r#"context.arguments.level == "debg""#, "did you mean 'debug'"),
        ("query_logs", r#"["info", "wran"].contains(context.arguments.level)"#, "never \"wran\""),
        ("query_logs", r#"context.arguments.level like "w*""#, "never like that"),
        ("query_logs", "context.arguments.limit > 500", "at least 501 and at most 500"),
        ("query_logs", "5000 < context.arguments.limit", "never match"),
        ("query_logs", r#"context.arguments.service == "a" && context.arguments.service == "b""#, "two different"),
        ("query_logs", "context.hour < 6 && context.hour > 20", "never match"),
        ("query_logs", "context.hour >= 24", "never match"),
        ("query_logs", r#"context.weekday == "sunnday""#, "did you mean 'sunday'"),
        ("query_logs", r#"context.arguments.source == "prod-ue""#, "did you mean 'prod-eu'"),
        ("query_logs", r#"context.sources.contains("prod-xx")"#, "never \"prod-xx\""),
        ("query_logs", r#"context.argument.service == "a""#, "did you mean 'arguments'"),
        ("query_logs", r#"context.arguments.labels == "a""#, "only ask whether it is there"),
        ("query_logs", r#"context.arguments == {"service": "a"}"#, "as a whole"),
        ("query_logs", "context.arguments.raw && !context.arguments.raw", "true and false"),
        ("list_sources", "context.look_back_seconds > 60", "takes a window of time"),
        ("list_sources", r#"context.sources.contains("lab")"#, "takes a source"),
        ("query_logs", r#"principal.kind == "api_key""#, "did you mean 'api-key'"),
        ("query_logs", r#"resource.risk == "reed""#, "did you mean 'read'"),
        ("query_logs", r#"resource.category == "workload""#, "did you mean 'workloads'"),
    ] {
        let error = on(tool, condition);
        assert!(error.contains(expected), "{condition}\n{error}");
        assert!(error.starts_with("own.cedar:1: policy 'x'"), "{error}");
    }
}

#[test]
fn every_mistake_is_reported_with_its_line() {
    let text = "\n@id(\"a\")\npermit(principal, action, resource) when { false };\n\n@id(\"b\")\npermit(principal in Portcullis::Role::\"boss\", action, resource);";
    let error = refused(text);
    assert!(error.contains("boss"), "{error}");
    let text = "\n@id(\"a\")\npermit(principal, action, resource) when { false };\n\n@id(\"b\")\npermit(principal, action, resource) when { context.hour > 30 };";
    let error = refused(text);
    assert!(error.contains("own.cedar:2") && error.contains("own.cedar:5"), "{error}");
}

#[test]
fn a_grant_that_is_always_forbidden_is_an_error() {
    let error = refused(&format!(
        r#"@id("no-sql") forbid(principal, {CALL}, resource == Portcullis::Tool::"sql");
           @id("sql") permit(principal in Portcullis::Role::"intern", {CALL}, resource == Portcullis::Tool::"sql");"#
    ));
    assert!(error.contains("'no-sql' forbids the same"), "{error}");
    // Only some of what it grants is forbidden, or only for others: a living rule.
    load(&format!(
        r#"@id("no-sql") forbid(principal, {CALL}, resource == Portcullis::Tool::"sql");
           @id("look") permit(principal in Portcullis::Role::"intern", {CALL}, resource);"#
    ))
    .unwrap();
    load(&format!(
        r#"@id("no-sql") forbid(principal in Portcullis::Role::"reader", {CALL}, resource == Portcullis::Tool::"sql");
           @id("sql") permit(principal in Portcullis::Role::"intern", {CALL}, resource == Portcullis::Tool::"sql");"#
    ))
    .unwrap();
}

#[test]
fn an_argument_that_is_left_out_is_never_to_the_callers_advantage() {
    let policies = load(&format!(
        r#"@id("no-payment") forbid(principal, {CALL}, resource) when {{ context.arguments.service == "payment" }};
           @id("cart-only") forbid(principal in Portcullis::Role::"intern", {CALL}, resource == Portcullis::Tool::"query_logs")
               unless {{ context.arguments.service == "cart" }};
           @id("intern-looks") permit(principal in Portcullis::Role::"intern", {CALL}, resource == Portcullis::Tool::"query_logs")
               when {{ context.arguments.source == "lab" }};"#
    ))
    .unwrap();
    let (logs, reader, intern) = (logs(), principal("reader"), principal("intern"));
    assert_eq!(rule(&policies, &reader, &logs, &json!({"service": "payment"})), "no-payment");
    assert_eq!(rule(&policies, &reader, &logs, &json!({"service": "cart"})), "+reader-may-look");
    // Naming no service asks for all of them, the forbidden one too.
    assert_eq!(rule(&policies, &reader, &logs, &json!({})), "no-payment");
    assert_eq!(rule(&policies, &reader, &logs, &json!({"service": null})), "no-payment");
    // A tool without the argument is not what the rule is about.
    let sources = tools()[2].clone();
    assert_eq!(rule(&policies, &reader, &sources, &json!({})), "+reader-may-look");
    assert_eq!(rule(&policies, &intern, &logs, &json!({"service": "cart", "source": "lab"})), "+intern-looks");
    assert_eq!(rule(&policies, &intern, &logs, &json!({"service": "cart"})), "no-rule-allows");
    assert_eq!(rule(&policies, &intern, &logs, &json!({"service": "other", "source": "lab"})), "cart-only");
}

#[test]
fn has_means_what_it_says() {
    let policies = load(&format!(
        r#"@id("no-payment") forbid(principal, {CALL}, resource)
               when {{ context.arguments has service && context.arguments.service == "payment" }};
           @id("no-labels") forbid(principal, {CALL}, resource == Portcullis::Tool::"query_logs") when {{ context.arguments has labels }};"#
    ))
    .unwrap();
    let (logs, reader) = (logs(), principal("reader"));
    assert_eq!(rule(&policies, &reader, &logs, &json!({})), "+reader-may-look");
    assert_eq!(rule(&policies, &reader, &logs, &json!({"service": "payment"})), "no-payment");
    assert_eq!(rule(&policies, &reader, &logs, &json!({"labels": {"a": "b"}})), "no-labels");
}

#[test]
fn numbers_lists_flags_and_defaults() {
    let policies = load(&format!(
        r#"@id("few") forbid(principal, {CALL}, resource == Portcullis::Tool::"query_logs") when {{ context.arguments.limit > 200 }};
           @id("no-raw") forbid(principal, {CALL}, resource == Portcullis::Tool::"query_logs") when {{ context.arguments.raw }};
           @id("no-secret") forbid(principal, {CALL}, resource == Portcullis::Tool::"query_logs")
               when {{ context.arguments has fields && context.arguments.fields.contains("secret") }};
           @id("no-drop") forbid(principal, {CALL}, resource == Portcullis::Tool::"sql") when {{ context.arguments.query like "*drop*" }};"#
    ))
    .unwrap();
    let (logs, reader) = (logs(), principal("reader"));
    assert_eq!(rule(&policies, &reader, &logs, &json!({})), "+reader-may-look");
    assert_eq!(rule(&policies, &reader, &logs, &json!({"limit": 201})), "few");
    assert_eq!(rule(&policies, &reader, &logs, &json!({"raw": true})), "no-raw");
    assert_eq!(rule(&policies, &reader, &logs, &json!({"fields": ["a", "secret"]})), "no-secret");
    assert_eq!(rule(&policies, &reader, &logs, &json!({"limit": "201"})), "argument-type");
    assert_eq!(rule(&policies, &reader, &tools()[1], &json!({"query": "drop table x"})), "no-drop");
}

#[test]
fn time_of_day_and_how_far_back() {
    // 2026-03-01T10:00:00Z was a Sunday.
    let clock = ManualClock::new(Timestamp::from_seconds(1_772_359_200));
    let text = format!(
        r#"@id("office") permit(principal in Portcullis::Role::"intern", {CALL}, resource)
               when {{ context.hour >= 9 && context.hour < 18 && context.weekday != "saturday" }};
           @id("recent") forbid(principal, {CALL}, resource) when {{ context.look_back_seconds > 3600 }};
           @id("until") forbid(principal, action, resource) when {{ context.now > datetime("2026-03-02T00:00:00Z") }};"#
    );
    let policies = load(&text).unwrap().with_clock(Arc::new(clock.clone()), 3_600);
    let (logs, intern) = (logs(), principal("intern"));
    assert_eq!(rule(&policies, &intern, &logs, &json!({})), "+office");
    assert_eq!(rule(&policies, &intern, &logs, &json!({"window": "2h"})), "recent");
    assert_eq!(rule(&policies, &intern, &logs, &json!({"start": "2026-03-01T08:00:00Z"})), "recent");
    assert_eq!(rule(&policies, &intern, &logs, &json!({"window": "soon"})), "recent");
    assert!(policies.decide_lookup(None, &principal("reader"), &Lookup::resource("portcullis://sources")).allowed);
    clock.advance(Duration::from_hours(7));
    // 18:00 at the offset.
    assert_eq!(rule(&policies, &intern, &logs, &json!({})), "no-rule-allows");
    assert!(!policies.decide_call(&intern, &logs).allowed);
    clock.advance(Duration::from_hours(8));
    assert_eq!(&*policies.decide_lookup(None, &principal("reader"), &Lookup::resource("portcullis://sources")).rule, "until");
}

#[test]
fn a_comparison_does_not_reach_behind_a_rule() {
    let compared = tool_with(
        "query_metrics",
        &json!({"window": {"type": "string", "default": "1h"},
                "compare": {"type": "string", "enum": ["previous", "day", "week", "none"], "default": "previous"}}),
        &[],
    );
    let text = format!(r#"@id("a-day") forbid(principal, {CALL}, resource) when {{ context.look_back_seconds > 86400 }};"#);
    let vocabulary = Vocabulary::of_tools(&[Arc::new(compared.clone())]);
    let policies = load_with(&text, &vocabulary).unwrap();
    let reader = principal("reader");
    assert_eq!(rule(&policies, &reader, &compared, &json!({"window": "1h"})), "+reader-may-look");
    assert_eq!(rule(&policies, &reader, &compared, &json!({"window": "1h", "compare": "week"})), "a-day");
    assert_eq!(rule(&policies, &reader, &compared, &json!({"window": "20h"})), "a-day", "the default reads twice as far");
    assert_eq!(rule(&policies, &reader, &compared, &json!({"window": "20h", "compare": "none"})), "+reader-may-look");
    assert!(policies.decide_call(&reader, &compared).allowed, "and stays in the list");
}

#[test]
fn sources_a_call_asks() {
    let policies =
        load(&format!(r#"@id("no-us") forbid(principal, {CALL}, resource) when {{ context.sources.contains("prod-us") }};"#))
            .unwrap();
    let (logs, mut reader) = (logs(), principal("reader"));
    assert_eq!(rule(&policies, &reader, &logs, &json!({"source": "lab"})), "+reader-may-look");
    assert_eq!(rule(&policies, &reader, &logs, &json!({})), "no-us");
    reader.scope.sources = NameSet::only(["lab", "prod-eu"]);
    assert_eq!(rule(&policies, &reader, &logs, &json!({})), "+reader-may-look");
}

#[test]
fn limits_narrow_the_permit_and_never_lift_each_other() {
    let policies = load(&format!(
        r#"@id("wide") permit(principal in Portcullis::Role::"intern", {CALL}, resource);
           @id("narrow") @max_look_back("24h") @max_rows("10000") @max_bytes("4KiB") @sources("prod-*")
               permit(principal in Portcullis::Role::"intern", {CALL}, resource == Portcullis::Tool::"query_logs");
           @id("interns") @only_limits("true") @max_look_back("1h") @services("cart")
               permit(principal in Portcullis::Role::"intern", {CALL}, resource);
           @id("ask") @only_limits("true") @approval("required")
               permit(principal, {CALL}, resource) when {{ resource.risk == "write" }};"#
    ))
    .unwrap();
    let permit = permit(&policies, &principal("intern"), &logs(), &json!({})).unwrap();
    assert_eq!(permit.scope().look_back, Some(Duration::from_hours(1)));
    assert_eq!((permit.budget().rows, permit.budget().answer_bytes), (10_000, 4_096));
    assert_eq!(permit.scope().sources, NameSet::only(["prod-eu", "prod-us"]));
    assert_eq!(permit.scope().services, NameSet::only(["cart"]));
    assert!(!permit.needs_approval() && !permit.may_see_unredacted());
    let write = tool("restart", RiskClass::Write, Some("workloads"));
    let asked = super::tests::permit(&policies, &principal("operator"), &write, &json!({})).unwrap();
    assert!(asked.needs_approval());
    assert_eq!(asked.scope().look_back, None);
    // A rule that only limits grants nothing.
    let nobody = super::tests::permit(&policies, &principal("nobody"), &write, &json!({})).unwrap_err();
    assert_eq!(&*nobody.rule, "no-rule-allows");
}

#[test]
fn a_limit_with_a_condition_holds_also_when_the_argument_is_left_out() {
    let policies = load(&format!(
        r#"@id("payment-short") @only_limits("true") @max_look_back("1h")
               permit(principal, {CALL}, resource == Portcullis::Tool::"query_logs") when {{ context.arguments.service == "payment" }};"#
    ))
    .unwrap();
    let look_back = |arguments: &Value| permit(&policies, &principal("reader"), &logs(), arguments).unwrap().scope().look_back;
    assert_eq!(look_back(&json!({"service": "payment"})), Some(Duration::from_hours(1)));
    assert_eq!(look_back(&json!({})), Some(Duration::from_hours(1)));
    assert_eq!(look_back(&json!({"service": "cart"})), None);
}

#[test]
fn unredacted_is_granted_and_taken() {
    let policies = load(&format!(
        r#"@id("plain") @unredacted("true") permit(principal in Portcullis::Role::"admin", {CALL}, resource);
           @id("not-here") @only_limits("true") @unredacted("false") permit(principal, {CALL}, resource == Portcullis::Tool::"sql");"#
    ))
    .unwrap();
    let granted = permit(&policies, &principal("admin"), &logs(), &json!({})).unwrap();
    assert!(granted.may_see_unredacted());
    assert_eq!(granted.unredacted_rule().map(|rule| &**rule), Some("plain"), "not the rule that allowed the call");
    assert_eq!(&**granted.rule(), "admin-may-everything-enabled");
    let ordinary = permit(&policies, &principal("reader"), &logs(), &json!({})).unwrap();
    assert!(granted.within(&granted).may_see_unredacted() && !granted.within(&ordinary).may_see_unredacted());
    assert!(!permit(&policies, &principal("reader"), &logs(), &json!({})).unwrap().may_see_unredacted());
    assert!(!permit(&policies, &principal("admin"), &tools()[1], &json!({"query": "x"})).unwrap().may_see_unredacted());
}

#[test]
fn projects_are_named_inside_the_limit_or_refused() {
    let policies =
        load(&format!(r#"@id("shop") @only_limits("true") @projects("shop") permit(principal, {CALL}, resource);"#)).unwrap();
    let build = tools()[3].clone();
    let reader = principal("reader");
    assert!(permit(&policies, &reader, &build, &json!({"project": "shop"})).is_ok());
    for arguments in [json!({"project": "bank"}), json!({})] {
        assert_eq!(&*permit(&policies, &reader, &build, &arguments).unwrap_err().rule, "project-limit");
    }
    assert!(permit(&policies, &reader, &logs(), &json!({})).is_ok());
}

#[test]
fn products_narrow_and_foreign_ones_are_not_there() {
    let settings: ProductSettings = serde_json::from_value(
        json!({"name": "oncall", "tools": ["query_*"], "sources": ["prod-eu"], "roles": ["reader"], "limits": {"max_rows": 7}}),
    )
    .unwrap();
    let products = Products::load(&[settings], &vocabulary()).unwrap();
    let policies = load(&format!(
        r#"@id("oncall") permit(principal in Portcullis::Role::"intern", {CALL}, resource in Portcullis::Product::"oncall");"#
    ))
    .unwrap();
    let reader = principal("reader");
    let product = products.open("oncall", &reader).unwrap();
    let (logs, sql, none) = (logs(), tools()[1].clone(), Map::new());
    let asked = Asked { principal: &reader, tool: &logs, arguments: &none, product: Some(&product), reach: None };
    let authorize = |asked| policies.authorize_call(asked, Instant::now(), Budget::default(), TraceContext::default());
    let permit = authorize(asked).unwrap();
    assert_eq!((permit.budget().rows, permit.product().map(|p| &**p)), (7, Some("oncall")));
    assert_eq!(permit.scope().sources, NameSet::only(["prod-eu"]));
    assert_eq!(&*authorize(Asked { tool: &sql, ..asked }).unwrap_err().rule, "product");
    let intern = principal("intern");
    assert_eq!(&*authorize(Asked { principal: &intern, ..asked }).unwrap_err().rule, "unknown-product");
    // Rules may speak of the bundle.
    assert!(policies.decide_call(&intern, &logs).allowed && !policies.decide_call(&intern, &sql).allowed);
}

#[test]
fn families_of_resources_are_shown_when_a_member_may_be_read() {
    let policies = load(
        r#"@id("one") permit(principal in Portcullis::Role::"intern", action == Portcullis::Action::"read",
               resource == Portcullis::Resource::"portcullis://services/cart");
           @id("not-payment") forbid(principal, action == Portcullis::Action::"read", resource)
               when { resource.name == "portcullis://services/payment" };"#,
    )
    .unwrap();
    let (intern, reader) = (principal("intern"), principal("reader"));
    let family = "portcullis://services/{name}";
    assert!(policies.decide_lookup(None, &intern, &Lookup::family(family)).allowed);
    assert!(!policies.decide_lookup(None, &intern, &Lookup::family("portcullis://traces/{id}")).allowed);
    assert!(policies.decide_lookup(None, &intern, &Lookup::resource("portcullis://services/cart")).allowed);
    assert!(!policies.decide_lookup(None, &intern, &Lookup::resource("portcullis://services/payment")).allowed);
    assert!(policies.decide_lookup(None, &reader, &Lookup::family(family)).allowed);
    assert_eq!(&*policies.decide_lookup(None, &reader, &Lookup::resource("portcullis://services/payment")).rule, "not-payment");
}

#[test]
fn a_rule_about_an_address_holds_for_all_its_spellings() {
    let policies = load(
        r#"@id("not-payment") forbid(principal, action == Portcullis::Action::"read", resource)
               when { resource.name like "portcullis://service/pay*" };
           @id("not-secret") forbid(principal, action == Portcullis::Action::"read",
               resource == Portcullis::Resource::"file:///secret/one");
           @id("short") @only_limits("true") @max_look_back("1h") permit(principal, action == Portcullis::Action::"read",
               resource == Portcullis::Resource::"file:///a/b");"#,
    )
    .unwrap();
    let reader = principal("reader");
    for (uri, rule) in [
        ("portcullis://service/payment", "not-payment"),
        ("portcullis://service/p%61yment", "not-payment"),
        ("portcullis://service/%50ayment", "reader-may-look"),
        ("portcullis://service/%70%61%79%6D%65%6e%74", "not-payment"),
        ("portcullis://service/p%2561yment", "not-payment"),
        ("file:///secret%2Fone", "not-secret"),
        ("file:///secret%2fone", "not-secret"),
        ("file:///secret%252fone", "not-secret"),
        ("file:///x/../secret/one", "address-form"),
        ("file:///x/%2e%2e/secret/one", "address-form"),
        ("file:///secret/one%00", "address-form"),
        ("file:///secret/two", "reader-may-look"),
    ] {
        let decision = policies.decide_lookup(None, &reader, &Lookup::resource(uri));
        assert_eq!((&*decision.rule, decision.allowed), (rule, rule == "reader-may-look"), "{uri}");
    }
    let until = Instant::now() + Duration::from_secs(5);
    for (uri, hours) in [("file:///a/b", Some(1)), ("file:///a%2Fb", Some(1)), ("file:///a/c", None)] {
        let asked = (&reader, &Lookup::resource(uri));
        let permit = policies.authorize_lookup(None, asked, until, Budget::default(), TraceContext::default()).unwrap();
        assert_eq!(permit.scope().look_back, hours.map(Duration::from_hours), "{uri}");
    }
    // A grant of an address that has to be encoded is one, and a rule about it decoded still refuses it.
    let grant = r#"@id("spaced") permit(principal in Portcullis::Role::"intern", action == Portcullis::Action::"read",
        resource == Portcullis::Resource::"portcullis://service/a%20b");"#;
    let forbid = r#"@id("decoded") forbid(principal, action == Portcullis::Action::"read", resource)
        when { resource.name like "*a b" };"#;
    let (intern, spaced) = (principal("intern"), "portcullis://service/a%20b");
    for (rules, rule) in [(grant.to_owned(), "spaced"), (format!("{grant}{forbid}"), "decoded")] {
        let policies = load(&rules).unwrap();
        assert_eq!(&*policies.decide_lookup(None, &intern, &Lookup::resource(spaced)).rule, rule);
        assert!(!policies.decide_lookup(None, &intern, &Lookup::resource("portcullis://service/a%2520b")).allowed);
    }
    let never = r#"forbid(principal, action, resource == Portcullis::Resource::"portcullis://service/p%61yment");"#;
    let refused = load(&format!("@id(\"odd\") {never}")).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("write it as 'portcullis://service/payment'"), "{refused}");
}

#[test]
fn a_product_is_asked_about_lookups_and_confines_them() {
    let settings = serde_json::from_value(json!({"name": "oncall", "tools": ["query_logs"], "resources": ["note://*"],
        "sources": ["prod-eu"], "roles": ["reader"], "limits": {"max_rows": 7}}));
    let products = Products::load(&[settings.unwrap()], &vocabulary()).unwrap();
    let (reader, policies) = (principal("reader"), load("").unwrap());
    let product = products.open("oncall", &reader).unwrap();
    let decide = |who, lookup: Lookup<'_>| policies.decide_lookup(Some(&product), who, &lookup).rule;
    assert_eq!(&*decide(&reader, Lookup::resource("note://one")), "reader-may-look");
    assert_eq!(&*decide(&reader, Lookup::resource("other://one")), "product");
    assert_eq!(&*decide(&principal("intern"), Lookup::resource("note://one")), "unknown-product");
    let asked = (&reader, &Lookup::resource("note://one"));
    let authorize = |product| {
        let (deadline, trace) = (Instant::now() + Duration::from_secs(5), TraceContext::default());
        policies.authorize_lookup(product, asked, deadline, Budget::default(), trace).unwrap()
    };
    let permit = authorize(Some(&*product));
    assert_eq!((permit.budget().rows, permit.product().map(|p| &**p)), (7, Some("oncall")));
    assert_eq!(permit.scope().sources, NameSet::only(["prod-eu"]));
    assert!(authorize(None).scope().sources.is_all());
}

#[test]
fn reach_is_what_some_call_would_be_confined_to() {
    let policies = load(&format!(
        r#"@id("all-limited") @services("cart") permit(principal in Portcullis::Role::"intern", {CALL},
               resource == Portcullis::Tool::"sql");
           @id("cart") @sources("lab") permit(principal in Portcullis::Role::"intern", {CALL},
               resource == Portcullis::Tool::"query_logs") when {{ context.arguments.service == "cart" }};
           @id("open") @sources("prod-eu") permit(principal in Portcullis::Role::"intern", {CALL},
               resource == Portcullis::Tool::"query_logs") when {{ context.arguments.service == "checkout" }};"#
    ))
    .unwrap();
    let (intern, tools) = (principal("intern"), tools());
    let sources = |who: &Principal, tool: &ToolSpec| {
        let reach = policies.reach(None, who, Wanted::Tool(tool));
        let named = |scope: &Scope| scope.sources.names().map(|names| names.iter().cloned().collect::<Vec<_>>().join(","));
        (reach.decision.allowed, reach.scopes.iter().map(named).collect::<Vec<_>>())
    };
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(sources(&intern, &tools[1]), (true, vec![None]));
    assert_eq!(policies.reach(None, &intern, Wanted::Tool(&tools[1])).scopes[0].services, NameSet::only(["cart"]));
    let (allowed, mut ways) = sources(&intern, &logs());
    ways.sort();
    assert_eq!((allowed, ways), (true, vec![some("lab"), some("prod-eu")]), "each by the arguments that open it");
    let (allowed, ways) = sources(&principal("reader"), &logs());
    assert!(allowed && ways.contains(&None), "{ways:?}");
    assert!(!sources(&principal("nobody"), &logs()).0);
}

#[test]
fn a_family_shown_for_one_member_has_the_limits_of_that_member() {
    let policies = load(
        r#"@id("one") @sources("lab") @max_rows("7") @approval("required")
           permit(principal in Portcullis::Role::"intern", action == Portcullis::Action::"read",
               resource == Portcullis::Resource::"portcullis://services/cart");
           @id("short") @only_limits("true") @max_look_back("1h")
           permit(principal in Portcullis::Role::"intern", action == Portcullis::Action::"read", resource);"#,
    )
    .unwrap();
    let (intern, until) = (principal("intern"), Instant::now() + Duration::from_secs(5));
    let family = "portcullis://services/{name}";
    let permit = policies
        .authorize_lookup(None, (&intern, &Lookup::family(family)), until, Budget::default(), TraceContext::default())
        .unwrap();
    assert_eq!(&**permit.rule(), "one");
    assert!(permit.scope().sources.contains("lab") && !permit.scope().sources.contains("prod-us"));
    assert_eq!(permit.scope().look_back, Some(Duration::from_hours(1)));
    assert!(permit.needs_approval() && permit.budget().rows == 7);
}

#[test]
fn explanations_name_every_rule() {
    let policies = load(&format!(
        "\n@id(\"no-payment\")\nforbid(principal, {CALL}, resource) when {{ context.arguments.service == \"payment\" }};"
    ))
    .unwrap();
    let (reader, logs) = (principal("reader"), logs());
    let explained = policies.explain(&reader, &logs, Some(&map(&json!({"service": "payment"}))), None);
    assert_eq!((explained.allowed, explained.rule.as_str()), (false, "no-payment"));
    let applies: Vec<(&str, usize)> =
        explained.rules.iter().filter(|r| r.outcome == RuleOutcome::Applies).map(|r| (r.rule.id.as_str(), r.rule.line)).collect();
    assert_eq!(applies.len(), 2, "{applies:?}");
    assert!(applies.contains(&("no-payment", 2)) && applies.iter().any(|(id, _)| *id == "reader-may-look"));
    let open = policies.explain(&reader, &logs, None, None);
    assert!(open.allowed && open.rules.iter().any(|r| r.outcome == RuleOutcome::DependsOnArguments));
}

#[test]
fn a_charter_reaches_only_what_it_names() {
    let policies = Policies::load(&[], &vocabulary(), 1).unwrap();
    let charter = policies
        .charter(CharterGrant {
            name: "source-health".into(),
            destinations: ["http://127.0.0.1:9090", "https://*.example.com:443", "http://*.0.0.1:9090"].map(str::to_owned).into(),
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            time_limit: Duration::from_secs(5),
            budget: Budget::default(),
        })
        .unwrap();
    let permit = charter.permit();
    for origin in ["http://127.0.0.1:9090", "https://eu.example.com:443"] {
        assert!(permit.may_reach(origin), "{origin}");
    }
    for origin in [
        "http://127.0.0.1:9091",
        "http://10.0.0.1:9090",
        "https://example.com:443",
        "https://a.eu.example.com:443",
        "https://.example.com:443",
        "https://eu.example.com:8443",
        "http://eu.example.com:443",
        "https://eu.example.com.evil.org:443",
        "https://[::1].example.com:443",
        "",
    ] {
        assert!(!permit.may_reach(origin), "{origin}");
    }
    assert_eq!(permit.principal_id().as_str(), "charter:source-health");
}

/// Conditions about `query_logs` with values that the generated arguments meet and miss.
const CONDITIONS: [&str; 12] = [
    r#"context.arguments.service == "cart""#,
    r#"context.arguments.service != "cart""#,
    r#"!(context.arguments.service == "payment") && context.arguments.limit < 50"#,
    r#"["cart", "payment"].contains(context.arguments.service)"#,
    r#"context.arguments.service like "ca*" || context.arguments.level == "error""#,
    "context.arguments.limit >= 100",
    r#"context.arguments.level == "debug""#,
    "context.look_back_seconds > 3600",
    r#"context.sources.contains("lab")"#,
    r#"context.arguments has service && context.arguments.service == "payment""#,
    "if context.arguments.raw then context.arguments.limit > 10 else true",
    r#"principal.tenant == "default" && context.arguments.raw"#,
];

/// Those of them that the generated arguments tell apart as finely as any arguments could.
const EXHAUSTIBLE: [&str; 6] = [
    r#"context.arguments.service == "cart""#,
    r#"["cart", "payment"].contains(context.arguments.service)"#,
    r#"context.arguments.level == "debug""#,
    "context.look_back_seconds > 3600",
    r#"context.arguments has service && context.arguments.service == "payment""#,
    "if context.arguments.raw then context.arguments.service == \"cart\" else true",
];

fn arguments() -> impl Strategy<Value = Map<String, Value>> {
    let pick = |values: Vec<Value>| proptest::option::of(proptest::sample::select(values));
    (
        pick(vec![json!("cart"), json!("payment"), json!("other")]),
        pick(vec![json!("debug"), json!("error")]),
        pick(vec![json!(1), json!(60), json!(500)]),
        pick(vec![json!("5m"), json!("7d")]),
        pick(vec![json!("lab"), json!("prod-eu")]),
        pick(vec![json!(true), json!(false)]),
    )
        .prop_map(|(service, level, limit, window, source, raw)| {
            [("service", service), ("level", level), ("limit", limit), ("window", window), ("source", source), ("raw", raw)]
                .into_iter()
                .filter_map(|(name, value)| value.map(|v| (name.to_owned(), v)))
                .collect()
        })
}

fn rules() -> impl Strategy<Value = String> {
    let one = (
        proptest::bool::ANY,
        proptest::sample::select(vec![
            "principal",
            r#"principal in Portcullis::Role::"intern""#,
            r#"principal in Portcullis::Role::"reader""#,
        ]),
        proptest::sample::select(vec!["resource", r#"resource == Portcullis::Tool::"query_logs""#]),
        proptest::bool::ANY,
        proptest::sample::select(CONDITIONS.to_vec()),
    );
    proptest::collection::vec(one, 0..5).prop_map(|all| {
        let write = |(index, (permit, who, what, when, condition)): (usize, (bool, &str, &str, bool, &str))| {
            let (effect, clause) = (if permit { "permit" } else { "forbid" }, if when { "when" } else { "unless" });
            format!("@id(\"r{index}\") {effect}({who}, {CALL}, {what}) {clause} {{ {condition} }};\n")
        };
        all.into_iter().enumerate().map(write).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Listing equals what could be called: nothing that is not listed is ever allowed, whatever the rules and arguments.
    #[test]
    fn what_is_not_listed_is_never_callable(text in rules(), tries in proptest::collection::vec(arguments(), 1..8)) {
        let policies = load(&text).map_err(|e| TestCaseError::fail(format!("{text}\n{e}")))?;
        for role in ["reader", "intern", "admin", "nobody"] {
            let who = principal(role);
            for spec in tools() {
                let listed = policies.decide_call(&who, &spec).allowed;
                for given in &tries {
                    let fitting: Map<String, Value> = match spec.name.as_str() {
                        "query_logs" => given.clone(),
                        "sql" => map(&json!({"query": "select 1"})),
                        _ => Map::new(),
                    };
                    let allowed = policies.decide_arguments(&who, &spec, &fitting).allowed;
                    prop_assert!(listed || !allowed, "{text}\n{role} {} {fitting:?}", spec.name);
                    let permit = permit(&policies, &who, &spec, &Value::Object(fitting.clone()));
                    prop_assert_eq!(permit.is_ok(), allowed);
                    let explained = policies.explain(&who, &spec, Some(&fitting), None);
                    prop_assert_eq!(explained.allowed, allowed);
                }
            }
        }
    }

    /// A single rule with a condition: listed exactly when some arguments are allowed.
    #[test]
    fn with_one_condition_listing_is_exact(
        condition in proptest::sample::select(CONDITIONS.to_vec()), is_permit in proptest::bool::ANY,
        tries in proptest::collection::vec(arguments(), 400),
    ) {
        let effect = if is_permit { "permit" } else { "forbid" };
        let policies = load(&format!(
            r#"@id("r") {effect}(principal, {CALL}, resource == Portcullis::Tool::"query_logs") when {{ {condition} }};"#
        )).unwrap();
        let who = principal(if is_permit { "nobody" } else { "reader" });
        let some = tries.iter().any(|given| policies.decide_arguments(&who, &logs(), given).allowed);
        prop_assert_eq!(policies.decide_call(&who, &logs()).allowed, some);
    }

    /// Several rules whose conditions can be exhausted: listed exactly when some arguments are allowed.
    #[test]
    fn with_conditions_that_can_be_exhausted_listing_is_exact(
        chosen in proptest::collection::vec((proptest::bool::ANY, proptest::bool::ANY, proptest::sample::select(EXHAUSTIBLE.to_vec())), 1..4),
        tries in proptest::collection::vec(arguments(), 600),
    ) {
        let write = |(n, (permit, when, condition)): (usize, &(bool, bool, &str))| {
            let (effect, clause) = (if *permit { "permit" } else { "forbid" }, if *when { "when" } else { "unless" });
            format!("@id(\"r{n}\") {effect}(principal, {CALL}, resource == Portcullis::Tool::\"query_logs\") {clause} {{ {condition} }};\n")
        };
        let text: String = chosen.iter().enumerate().map(write).collect();
        let policies = load(&text).map_err(|e| TestCaseError::fail(format!("{text}\n{e}")))?;
        for role in ["reader", "nobody"] {
            let who = principal(role);
            let some = tries.iter().any(|given| policies.decide_arguments(&who, &logs(), given).allowed);
            let listed = policies.decide_call(&who, &logs()).allowed;
            prop_assert_eq!(listed, some, "{}\n{}", text, role);
        }
    }

    /// Text from a file never panics the loader.
    #[test]
    fn any_text_is_a_policy_or_an_error(text in "[a-z@(){}\"=&|!;:., ]{0,120}") {
        let _ = load(&text);
    }
}

#[test]
fn a_rule_about_a_tool_that_may_come_waits_and_is_checked_when_it_is_there() {
    let text = |body: &str| PolicyText { origin: "p.cedar".into(), text: format!("@id(\"r\") {body};") };
    let rule = text(
        r#"forbid (principal, action, resource == Portcullis::Tool::"grafana_search") when { context.arguments.folder == "x" }"#,
    );
    let mut vocabulary = vocabulary();
    assert!(Policies::load(std::slice::from_ref(&rule), &vocabulary, 1).is_err());
    vocabulary.expected = ["grafana_*".to_owned()].into();
    Policies::load(std::slice::from_ref(&rule), &vocabulary, 1).unwrap();
    let schema = json!({"type": "object", "properties": {"dir": {"type": "string"}}});
    let spec = ToolSpec { input_schema: Arc::new(schema), ..crate::testing::tool("grafana_search", RiskClass::Read, None) };
    vocabulary.specs.push(Arc::new(spec));
    let refused = Policies::load(std::slice::from_ref(&rule), &vocabulary, 1).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("folder"), "{refused}");
}
