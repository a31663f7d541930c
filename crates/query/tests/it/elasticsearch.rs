//! Searches of Elasticsearch: what is known to stay within the documents found is taken and filtered by the scope,
//! everything else is refused, and what is built from types is made of values only.

use std::time::Duration;

use portcullis_model::{NameSet, Scope, TenantId, Timestamp};
use portcullis_query::elasticsearch::{FieldName, Filter, Search};
use portcullis_query::{QueryError, SearchConfinement, SearchScope, TimeLimits, confine_elasticsearch};
use proptest::prelude::*;
use serde_json::{Value, json};

fn field(name: &str) -> FieldName {
    FieldName::new(name).unwrap()
}

fn fields() -> SearchScope {
    SearchScope { tenant: None, service: Some(field("service.name")), namespace: Some(field("kubernetes.namespace")) }
}

fn confinement() -> SearchConfinement {
    let mut scope = Scope::tenant_wide(TenantId::default_tenant());
    scope.services = NameSet::only(["cart", "pay*ment"]);
    scope.namespaces = NameSet::only(["shop"]);
    SearchConfinement::of_scope(&scope, &fields()).unwrap()
}

fn added() -> Vec<Value> {
    vec![json!({"terms": {"service.name": ["cart", "pay*ment"]}}), json!({"terms": {"kubernetes.namespace": ["shop"]}})]
}

fn confined(body: &Value) -> Result<Value, QueryError> {
    confine_elasticsearch(&body.to_string(), &confinement()).map(|text| serde_json::from_str(&text).unwrap())
}

fn taken() -> Vec<Value> {
    vec![
        json!({}),
        json!({"query": {"match_all": {}}, "size": 10, "from": 5, "track_total_hits": true, "timeout": "2s"}),
        json!({"query": {"match": {"message": "timeout"}}, "sort": [{"@timestamp": "desc"}, "_doc", {"n": {"order": "asc", "missing": "_last"}}]}),
        json!({"query": {"bool": {
            "must": [{"match_phrase": {"message": {"query": "payment failed", "slop": 2}}}],
            "should": {"term": {"level": {"value": "error", "boost": 2}}},
            "filter": [{"range": {"@timestamp": {"gte": "now-1h", "lt": "now"}}}, {"terms": {"host": ["a", "b"]}}, {"exists": {"field": "trace.id"}}],
            "must_not": [{"prefix": {"path": "/health"}}, {"wildcard": {"host": {"value": "a*", "case_insensitive": true}}}],
            "minimum_should_match": 1
        }}}),
        json!({"query": {"query_string": {"query": "level:error AND NOT service.name:cart", "fields": ["message", "level^2"]}}}),
        json!({"query": {"simple_query_string": {"query": "a | b", "default_operator": "and"}}}),
        json!({"query": {"multi_match": {"query": "x", "fields": ["a", "b.*"], "type": "best_fields"}}}),
        json!({"query": {"constant_score": {"filter": {"regexp": {"a": "b.*"}}, "boost": 1.5}}}),
        json!({"query": {"dis_max": {"queries": [{"fuzzy": {"a": "b"}}, {"ids": {"values": ["1", 2]}}], "tie_breaker": 0.5}}}),
        json!({"query": {"boosting": {"positive": {"match_all": {}}, "negative": {"match_none": {}}, "negative_boost": 0.5}}}),
        json!({"query": {"nested": {"path": "spans", "query": {"match": {"spans.name": "x"}}, "score_mode": "none"}}}),
        json!({"post_filter": {"term": {"a": 1}}, "_source": ["a", "b.*"], "fields": ["a", {"field": "@timestamp", "format": "epoch_millis"}]}),
        json!({"_source": {"includes": ["a"], "excludes": "b"}, "search_after": [1, "x", null], "stored_fields": ["a"], "version": true}),
        json!({"size": 0, "aggs": {
            "by": {"terms": {"field": "level", "size": 5, "min_doc_count": 1, "order": {"_count": "desc"}}, "aggs": {
                "over": {"date_histogram": {"field": "@timestamp", "fixed_interval": "1m", "min_doc_count": 0, "extended_bounds": {"min": 1, "max": 2}}},
                "p": {"percentiles": {"field": "ms", "percents": [50, 99]}},
                "top": {"top_hits": {"size": 1, "sort": [{"@timestamp": {"order": "desc"}}], "_source": ["message"]}}
            }},
            "errors": {"filter": {"term": {"level": "error"}}, "aggregations": {"n": {"value_count": {"field": "level"}}}},
            "both": {"filters": {"filters": {"a": {"match": {"m": "x"}}, "b": {"match_all": {}}}, "other_bucket": true}},
            "pairs": {"composite": {"size": 10, "sources": [{"s": {"terms": {"field": "host", "order": "asc"}}}, {"t": {"date_histogram": {"field": "@timestamp", "calendar_interval": "1d"}}}], "after": {"s": "x"}}},
            "most": {"max_bucket": {"buckets_path": "by>_count"}},
            "slow": {"range": {"field": "ms", "ranges": [{"to": 100}, {"from": 100, "key": "slow"}]}}
        }}),
    ]
}

#[test]
fn what_stays_within_the_documents_found_is_taken_and_filtered() {
    for body in taken() {
        let plain =
            confine_elasticsearch(&body.to_string(), &SearchConfinement::none()).unwrap_or_else(|e| panic!("{body}: {e}"));
        assert_eq!(serde_json::from_str::<Value>(&plain).unwrap(), body, "unrestricted, it stays as it is");
        let mut found = confined(&body).unwrap_or_else(|e| panic!("{body}: {e}"));
        let filters: Vec<Value> = body.get("query").cloned().into_iter().chain(added()).collect();
        assert_eq!(found["query"], json!({"bool": {"filter": filters}}), "{found}");
        let mut rest = body.clone();
        for whole in [&mut found, &mut rest] {
            whole.as_object_mut().unwrap().remove("query");
        }
        assert_eq!(found, rest, "nothing but the query changed");
    }
}

#[test]
fn whatever_is_not_known_is_refused_wherever_it_stands() {
    let query = |inside: Value| json!({"query": {"bool": {"should": [{"match_all": {}}, inside]}}});
    let aggregation = |inside: Value| json!({"aggs": {"a": {"terms": {"field": "x"}, "aggs": {"b": inside}}}});
    for (body, words) in [
        (json!({"runtime_mappings": {"service.name": {"type": "keyword", "script": "emit('cart')"}}}), "'runtime_mappings'"),
        (json!({"script_fields": {"a": {"script": "x"}}}), "'script_fields'"),
        (json!({"suggest": {"a": {"text": "x", "term": {"field": "message"}}}}), "'suggest'"),
        (json!({"knn": {"field": "v", "query_vector": [1], "k": 5, "num_candidates": 10}}), "'knn'"),
        (json!({"retriever": {"standard": {"query": {"match_all": {}}}}}), "'retriever'"),
        (json!({"rescore": {"query": {"rescore_query": {"match_all": {}}}}}), "'rescore'"),
        (json!({"collapse": {"field": "a", "inner_hits": {"name": "x"}}}), "'collapse'"),
        (json!({"pit": {"id": "x"}}), "'pit'"),
        (json!({"slice": {"id": 0, "max": 2}}), "'slice'"),
        (json!({"indices_boost": [{"other": 2}]}), "'indices_boost'"),
        (json!({"explain": true}), "'explain'"),
        (json!({"profile": true}), "'profile'"),
        (json!({"highlight": {"fields": {"a": {"highlight_query": {"match_all": {}}}}}}), "'highlight'"),
        (json!({"derived": {"a": {}}}), "'derived'"),
        (json!({"ext": {}}), "'ext'"),
        (json!({"Query": {"match_all": {}}}), "'Query'"),
        (json!({"sort": {"_script": {"type": "number", "script": "1"}}}), "'_script'"),
        (json!({"sort": [{"_geo_distance": {"a": [0, 0]}}]}), "'_geo_distance'"),
        (json!({"sort": [{"a": {"order": "asc", "nested": {"path": "b", "filter": {"match_all": {}}}}}]}), "'nested'"),
        (json!({"fields": [{"field": "a", "script": "x"}]}), "'script'"),
        (query(json!({"script": {"script": "doc['a'].value > 1"}})), "'script'"),
        (query(json!({"script_score": {"query": {"match_all": {}}, "script": {"source": "1"}}})), "'script_score'"),
        (query(json!({"function_score": {"query": {"match_all": {}}}})), "'function_score'"),
        (query(json!({"wrapper": {"query": "eyJtYXRjaF9hbGwiOnt9fQ=="}})), "'wrapper'"),
        (query(json!({"terms": {"a": {"index": "other", "id": "1", "path": "b"}}})), "must list its values"),
        (query(json!({"percolate": {"field": "q", "document": {}}})), "'percolate'"),
        (query(json!({"has_child": {"type": "x", "query": {"match_all": {}}}})), "'has_child'"),
        (query(json!({"has_parent": {"parent_type": "x", "query": {"match_all": {}}}})), "'has_parent'"),
        (query(json!({"parent_id": {"type": "x", "id": "1"}})), "'parent_id'"),
        (query(json!({"more_like_this": {"like": [{"_index": "other", "_id": "1"}]}})), "'more_like_this'"),
        (query(json!({"geo_shape": {"a": {"indexed_shape": {"index": "other", "id": "1", "path": "b"}}}})), "'geo_shape'"),
        (query(json!({"pinned": {"ids": ["1"], "organic": {"match_all": {}}}})), "'pinned'"),
        (query(json!({"nested": {"path": "a", "query": {"match_all": {}}, "inner_hits": {}}})), "'inner_hits'"),
        (query(json!({"match": {"a": {"query": "x", "script": "y"}}})), "'script'"),
        (query(json!({"match": {"a": {"query": {"x": 1}}}})), "must be a text"),
        (query(json!({"match_phrase_prefix": {"a": {"query": "x", "max_expansions": 1}}})), "'max_expansions'"),
        (query(json!({"bool": {"filter": {"match_all": {}}, "boost_mode": "x"}})), "'boost_mode'"),
        (query(json!({"term": {"a": 1, "b": 2}})), "exactly one member"),
        (query(json!({"match_all": {}, "match": {"a": "b"}})), "exactly one member"),
        (query(json!([])), "must be an object"),
        (json!({"query": null}), "must be an object"),
        (json!({"post_filter": {"script": {}}}), "'script'"),
        (aggregation(json!({"global": {}, "aggs": {"c": {"terms": {"field": "x"}}}})), "'global'"),
        (aggregation(json!({"terms": {"field": "x", "min_doc_count": 0}})), "at least 1"),
        (aggregation(json!({"terms": {"field": "x", "min_doc_count": "0"}})), "at least 1"),
        (aggregation(json!({"terms": {"field": "x", "min_doc_count": 0.0}})), "at least 1"),
        (aggregation(json!({"composite": {"sources": [{"a": {"terms": {"script": "x"}}}]}})), "'script'"),
        (aggregation(json!({"terms": {"script": "x"}})), "'script'"),
        (aggregation(json!({"significant_terms": {"field": "x"}})), "'significant_terms'"),
        (aggregation(json!({"significant_text": {"field": "x"}})), "'significant_text'"),
        (aggregation(json!({"scripted_metric": {"map_script": "x"}})), "'scripted_metric'"),
        (aggregation(json!({"bucket_script": {"script": "x"}})), "'bucket_script'"),
        (aggregation(json!({"children": {"type": "x"}})), "'children'"),
        (aggregation(json!({"parent": {"type": "x"}})), "'parent'"),
        (aggregation(json!({"top_hits": {"script_fields": {}}})), "'script_fields'"),
        (aggregation(json!({"filter": {"percolate": {}}})), "'percolate'"),
        (aggregation(json!({"filters": {"filters": [{"script": {}}]}})), "'script'"),
        (aggregation(json!({"terms": {"field": "x"}, "avg": {"field": "y"}})), "exactly one kind"),
        (aggregation(json!({"aggs": {}})), "exactly one kind"),
    ] {
        for scope in [confinement(), SearchConfinement::none()] {
            let error = confine_elasticsearch(&body.to_string(), &scope).expect_err(&body.to_string()).to_string();
            assert!(error.contains(words), "{body}: {error}");
        }
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for (raw, words) in [
        ("", "not valid Elasticsearch query"),
        ("[]", "a search is an object"),
        (r#"{"query":{"match_all":{}},"query":{"match_none":{}}}"#, "given twice"),
        (r#"{"query":{"match":{"a":"b","\u0061":"c"}}}"#, "given twice"),
        (r#"{"size":1} x"#, "trailing"),
        (r#"{"size":1e999}"#, "not valid"),
        (r#"{"size":1,}"#, "not valid"),
        ("{/* x */}", "not valid"),
    ] {
        let error = confine_elasticsearch(raw, &confinement()).expect_err(raw).to_string();
        assert!(error.contains(words), "{raw}: {error}");
    }
    let worker = std::thread::Builder::new().stack_size(1024 * 1024).spawn(|| {
        let nested =
            |levels: usize| format!("{}{{\"match_all\":{{}}}}{}", "{\"bool\":{\"must\":".repeat(levels), "}}".repeat(levels));
        assert!(confine_elasticsearch(&format!("{{\"query\":{}}}", nested(20)), &confinement()).is_ok());
        for raw in [
            format!("{{\"query\":{}}}", nested(30)),
            format!("{{\"query\":{}}}", nested(1_500)),
            "[".repeat(30_000),
            "{\"a\":".repeat(6_000),
            format!("{{\"query\":{{\"bool\":{{\"should\":[{}{{\"match_all\":{{}}}}]}}}}}}", "{\"match_all\":{}},".repeat(300)),
            format!("{{\"timeout\":\"{}\"}}", "x".repeat(40_000)),
        ] {
            assert!(confine_elasticsearch(&raw, &confinement()).is_err(), "{}", &raw[..20]);
        }
    });
    worker.unwrap().join().unwrap();
}

#[test]
fn the_look_back_is_a_filter_too() {
    let now = Timestamp::from_seconds(1_772_359_200);
    let mut scope = Scope::tenant_wide(TenantId::default_tenant());
    scope.look_back = Some(Duration::from_hours(1));
    let limits = TimeLimits::of_scope(&scope, now.minus(Duration::from_hours(5)), now, now);
    let confinement = SearchConfinement::of_scope(&scope, &fields()).unwrap().within(&field("@timestamp"), limits);
    let text = confine_elasticsearch(r#"{"query":{"range":{"@timestamp":{"gte":"now-10y"}}}}"#, &confinement).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    let bounds = &found["query"]["bool"]["filter"][1]["range"]["@timestamp"];
    assert_eq!((&bounds["gte"], &bounds["lte"]), (&json!("2026-03-01T09:00:00Z"), &json!("2026-03-01T10:00:00Z")), "{text}");
    scope.namespaces = NameSet::only(["a"]);
    assert_eq!(SearchConfinement::of_scope(&scope, &SearchScope::default()), Err(QueryError::NoLabel { kind: "namespace" }));
    let tenant = SearchScope { tenant: Some(field("org")), ..fields() };
    let confinement = SearchConfinement::of_scope(&scope, &tenant).unwrap();
    assert_eq!(confinement.filters()[0].to_json(), json!({"terms": {"org": ["default"]}}));
}

#[test]
fn searches_from_types_are_taken_as_raw_ones() {
    let filters = vec![
        Filter::equal(&field("level"), "error"),
        Filter::phrase(&field("message"), "a \"b\" *"),
        Filter::any(vec![Filter::present(&field("a")), Filter::containing(&field("path"), "50%*?\\", true).negated()]).unwrap(),
    ];
    let search = Search::new(filters, &confinement(), 20)
        .ordered_by(&field("@timestamp"), true)
        .ordered_by(&field("log.offset"), false)
        .showing(&[field("message")])
        .counting_all()
        .values_of(&field("host.name"), 5)
        .to_json();
    assert!(search["query"]["bool"]["filter"].as_array().unwrap().ends_with(&added()), "{search}");
    assert_eq!(
        search["query"]["bool"]["filter"][2]["bool"]["should"][1]["bool"]["must_not"][0]["wildcard"]["path"]["value"],
        json!("*50%\\*\\?\\\\*")
    );
    let read = confine_elasticsearch(&search.to_string(), &SearchConfinement::none()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&read).unwrap(), search);
    assert!(Filter::any(Vec::new()).is_err() && Filter::any_of(&field("a"), Vec::new()).is_err());
    for name in ["", "a*", "_script", ".a", "a b", "a\"", "a."] {
        assert!(FieldName::new(name).is_err(), "{name}");
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![any::<String>().prop_map(Value::from), any::<i64>().prop_map(Value::from), Just(json!(true)), Just(json!("*"))]
}

fn leaf() -> impl Strategy<Value = Value> {
    let name = prop_oneof![Just("service.name"), Just("message"), Just("a")];
    (prop_oneof![Just("match"), Just("term"), Just("prefix"), Just("wildcard")], name, scalar())
        .prop_map(|(kind, name, value)| json!({kind: {name: value}}))
}

fn query() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 16, 3, |inner| {
        let occurrence = prop_oneof![Just("must"), Just("should"), Just("filter"), Just("must_not")];
        prop_oneof![
            (occurrence, prop::collection::vec(inner.clone(), 0..3))
                .prop_map(|(occurs, queries)| json!({"bool": {occurs: queries}})),
            inner.clone().prop_map(|query| json!({"constant_score": {"filter": query}})),
            inner.prop_map(|query| json!({"nested": {"path": "a", "query": query}})),
        ]
    })
}

/// Any JSON, with names that mean something.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("query"),
        Just("bool"),
        Just("filter"),
        Just("must"),
        Just("aggs"),
        Just("terms"),
        Just("field"),
        Just("script"),
        Just("global"),
        Just("match_all"),
        Just("nested"),
        Just("path"),
        Just("index"),
        Just("runtime_mappings"),
        Just("sort"),
    ];
    scalar().prop_recursive(6, 24, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().map(|(n, v)| (n.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_random_query_is_one_filter_beside_those_of_the_scope(query in query()) {
        let found = confined(&json!({"query": query})).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let filters: Vec<Value> = std::iter::once(query).chain(added()).collect();
        prop_assert_eq!(found, json!({"query": {"bool": {"filter": filters}}}));
    }

    #[test]
    fn arbitrary_json_is_refused_or_filtered(body in any_json(), raw in any::<String>()) {
        let _any_answer = confine_elasticsearch(&raw, &confinement());
        if let Ok(found) = confined(&body) {
            let text = found.to_string();
            prop_assert!(found["query"]["bool"]["filter"].as_array().unwrap().ends_with(&added()), "{}", text);
            let known = ["query", "aggs", "sort"];
            prop_assert!(found.as_object().unwrap().keys().all(|name| known.contains(&name.as_str())), "{}", text);
            for (_, aggregation) in found["aggs"].as_object().into_iter().flatten() {
                let kinds = ["terms", "filter", "nested", "aggs"];
                prop_assert!(aggregation.as_object().unwrap().keys().all(|kind| kinds.contains(&kind.as_str())), "{}", text);
            }
        }
    }
}
