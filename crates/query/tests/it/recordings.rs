//! Queries to Loki and Tempo with their answers: what they take is taken here and comes back confined, what they call no
//! query is refused here too. A few exchanges written by hand in the form of the backends' API pages are always there
//! (`tests/exchanges`); recordings of real servers are an extra, skipped with a message where they are not.

use std::path::{Path, PathBuf};

use portcullis_model::{NameSet, Scope, TenantId};
use portcullis_query::traceql::AttributeName;
use portcullis_query::{Confinement, QueryError, TraceConfinement, TraceScope, confine_logql, confine_traceql};

use crate::confinement::confinement;

/// Query and whether the backend takes it for one, of every query of an exchange.
fn queries(exchange: &serde_json::Value, names: &[&str]) -> Vec<(String, bool)> {
    let status = exchange["response"]["status"].as_u64().unwrap();
    let said = exchange["response"]["body"].to_string();
    let wrong = status == 400 && (said.contains("parse error") || said.contains("invalid-query"));
    let found = names.iter().filter_map(|name| exchange["request"]["query"][name].as_array()).flatten();
    found.map(|query| (query.as_str().unwrap().to_owned(), !wrong)).collect()
}

/// Those of the exchanges written by hand.
fn written(backend: &str, names: &[&str]) -> Vec<(String, bool)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exchanges").join(format!("{backend}.json"));
    let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let found: Vec<_> = all["exchanges"].as_array().unwrap().iter().flat_map(|exchange| queries(exchange, names)).collect();
    assert!(found.len() > 20 && found.iter().filter(|(_, taken)| !taken).count() >= 5, "{backend}: {}", found.len());
    found
}

/// Those of every recorded exchange.
fn asked(backend: &str, names: &[&str]) -> Vec<(String, bool)> {
    let data = std::env::var_os("PORTCULLIS_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let Ok(entries) = std::fs::read_dir(data.join("recordings").join(backend)) else {
        println!("skipped: no recorded exchanges of {backend}; set PORTCULLIS_DATA to the folder that holds 'recordings'");
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.map(Result::unwrap).filter(|entry| entry.path().extension().is_some_and(|e| e == "json")) {
        let exchange: serde_json::Value = serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap();
        found.extend(queries(&exchange, names));
    }
    assert!(found.len() > 40, "{backend}: {}", found.len());
    found
}

#[test]
fn what_loki_takes_by_its_api_page_is_taken_and_confined() {
    loki(written("loki", &["query", "match[]"]));
}

#[test]
fn what_a_real_loki_took_is_taken_and_confined() {
    loki(asked("loki-3.7.6-dev", &["query", "match[]"]));
}

fn loki(queries: Vec<(String, bool)>) {
    for (query, taken) in queries.into_iter().filter(|(query, _)| !query.is_empty()) {
        let confined = confine_logql(&query, &confinement());
        assert_eq!(confined.is_ok(), taken, "{query}: {confined:?}");
        if let Ok(confined) = confined {
            let plain = confine_logql(&query, &Confinement::none()).unwrap();
            assert_eq!(
                confined.matches("service_name=~\"cart|pay").count(),
                plain.matches('{').count() - plain.matches("{{").count() * 2
            );
        }
    }
}

#[test]
fn what_tempo_takes_by_its_api_page_is_taken_and_confined() {
    tempo(written("tempo", &["q", "query"]));
}

#[test]
fn what_a_real_tempo_took_is_taken_and_confined() {
    tempo(asked("tempo-3.0.2-dev", &["q", "query"]));
}

fn tempo(queries: Vec<(String, bool)>) {
    let scope = Scope { services: NameSet::only(["cart"]), ..Scope::tenant_wide(TenantId::default_tenant()) };
    let attributes = TraceScope { service: Some(AttributeName::new("service.name").unwrap()), ..TraceScope::default() };
    let confinement = TraceConfinement::of_scope(&scope, &attributes).unwrap();
    for (query, taken) in queries {
        let plain = confine_traceql(&query, &TraceConfinement::none());
        // A comparison of values of two kinds reads well and is Tempo's to refuse.
        assert_eq!(plain.is_ok(), taken || query.contains("\"abc\""), "{query}: {plain:?}");
        match confine_traceql(&query, &confinement) {
            Ok(text) => {
                let of_scope = |text: &str| text.matches("resource.service.name = \"cart\"").count();
                let asked = plain.as_deref().map_or(0, of_scope);
                assert_eq!(of_scope(&text), asked + text.matches('{').count(), "{text}");
            }
            Err(QueryError::NotConfinable { reason, .. }) => assert!(query.contains("rootServiceName"), "{query}: {reason}"),
            Err(error) => assert!(plain.is_err(), "{query}: {error}"),
        }
    }
}
