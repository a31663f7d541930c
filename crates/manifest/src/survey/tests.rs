//! Whole descriptions: selection, names, reports, and one that is huge.

#![allow(clippy::needless_pass_by_value, reason = "JSON is built where it is passed")]

use std::time::Instant;

use portcullis_guard::ArgumentSchema;
use serde_json::json;

use super::*;

fn settings(more: Value) -> ApiSettings {
    let mut all = json!({"name": "shop", "spec": {"file": "x"}});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn document(value: &Value) -> Document {
    Document::read(value.to_string().as_bytes(), 64 << 20, None).unwrap()
}

fn names_of(survey: &Survey) -> Vec<&str> {
    survey.tools.iter().map(|tool| tool.spec.name.as_str()).collect()
}

fn said(survey: &Survey) -> String {
    survey.reports.iter().map(|r| r.detail.as_str()).collect::<Vec<_>>().join("\n")
}

fn shop() -> Document {
    document(&json!({"openapi": "3.0.3", "security": [{"key": []}],
        "components": {"securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Shop-Key"}}},
        "paths": {
            "/orders": {"get": {"operationId": "listOrders", "tags": ["orders"], "parameters": [{"name": "X-Shop-Key", "in": "header", "required": true, "schema": {"type": "string"}}]},
                        "post": {"operationId": "createOrder", "tags": ["orders"]}},
            "/orders/{id}": {"parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}],
                        "get": {"tags": ["orders"]}, "delete": {"operationId": "dropOrder", "tags": ["orders"]}},
            "/old": {"get": {"operationId": "old", "deprecated": true}},
            "/twin/a": {"get": {"operationId": "twin"}}, "/twin/b": {"get": {"operationId": "twin"}},
            "/trace": {"trace": {"operationId": "echo"}},
            "/odd": {"get": {"operationId": "odd", "parameters": [{"name": "p", "in": "cookie", "required": true}]}}}}))
}

#[test]
fn by_default_what_reads_becomes_tools_and_the_rest_is_counted() {
    let survey = survey(&shop(), &settings(json!({})));
    assert_eq!(names_of(&survey), ["shop_list_orders", "shop_get_orders_id", "shop_get_twin_a", "shop_get_twin_b"]);
    let said = said(&survey);
    for word in [
        "4 tools of OpenAPI 3.0.3",
        "1 operations left out",
        "left out: odd: 'p' is a cookie",
        "1 operations are deprecated",
        "want a credential (header 'X-Shop-Key')",
        "listOrders: 'X-Shop-Key' is a credential",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    for Surveyed { spec, .. } in &survey.tools {
        assert!(spec.risk == RiskClass::Read && spec.category.is_none());
        ArgumentSchema::compile(spec.name.as_str(), &spec.input_schema).unwrap();
    }
    assert!(survey.tools[0].spec.input_schema["properties"].get("X-Shop-Key").is_none(), "a credential is no argument");
}

#[test]
fn writes_come_with_their_category_and_overrides_are_taken() {
    let chosen = settings(json!({"allow": [{"tags": ["orders"], "methods": ["*"]}], "deny": [{"operations": ["dropOrder"]}],
        "operations": [{"operation": "createOrder", "name": "placeOrder", "risk": "destructive"}, {"operation": "none"}], "auth": {"bearer": "x"}}));
    let survey = survey(&shop(), &chosen);
    assert_eq!(names_of(&survey), ["shop_list_orders", "shop_place_order", "shop_get_orders_id"]);
    let place = &survey.tools[1].spec;
    assert_eq!((place.risk, place.category.as_ref().map(|c| &*c.0)), (RiskClass::Destructive, Some("api:shop")));
    assert!(said(&survey).contains("operations: there is no operation 'none'") && !said(&survey).contains("want a credential"));
}

#[test]
fn a_selection_that_means_nothing_or_too_much_is_said() {
    let nothing = survey(&shop(), &settings(json!({"allow": [{"tags": ["none"]}]})));
    assert!(nothing.tools.is_empty() && said(&nothing).contains("allow.0 fits no operation"));
    let much = survey(&shop(), &settings(json!({"max_tools": 2})));
    assert!(much.tools.is_empty() && said(&much).contains("5 operations are selected and max_tools is 2"), "{}", said(&much));
}

#[test]
fn a_huge_and_recursive_description_is_read_in_bounds() {
    let mut schemas = Map::new();
    for number in 0..1_000 {
        let next = format!("#/components/schemas/S{}", (number + 1) % 1_000);
        let own = format!("#/components/schemas/S{number}");
        schemas.insert(
            format!("S{number}"),
            json!({"type": "object", "description": "long ".repeat(400), "properties": {
            "self": {"$ref": own}, "next": {"$ref": next}, "value": {"type": "string", "description": "text ".repeat(1_000)}}}),
        );
    }
    let mut paths = Map::new();
    for number in 0..2_000 {
        paths.insert(format!("/things/{{id}}/parts{number}"), json!({
            "get": {"operationId": format!("getPart{number}"), "summary": "Gets a part", "description": "words ".repeat(300), "parameters": [
                {"name": "id", "in": "path", "required": true, "schema": {"type": "string"}},
                {"name": "filter", "in": "query", "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/S{}", number % 1_000)}}}}]},
            "post": {"operationId": format!("makePart{number}"), "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}],
                "requestBody": {"required": true, "content": {"application/json": {"schema": {"type": "object", "description": "b".repeat(1_500), "properties": {"n": {"type": "integer"}}}}}}}}));
    }
    let text = json!({"openapi": "3.0.3", "paths": paths, "components": {"schemas": schemas}, "x-filler": "f".repeat(4 << 20)})
        .to_string();
    println!("{} bytes", text.len());
    assert!(text.len() > 15 << 20);
    let began = Instant::now();
    let document = Document::read(text.as_bytes(), 32 << 20, None).unwrap();
    // Every schema leads to every other: that is too much for one tool, so the inside is left open, and it is said.
    let reads = survey(&document, &settings(json!({"max_tools": 2_000})));
    assert!(reads.tools.len() == 2_000 && said(&reads).contains("nested objects are left open"), "{}", said(&reads));
    assert!(reads.tools.iter().all(|tool| tool.spec.input_schema.to_string().len() < 16 << 10));
    ArgumentSchema::compile("t", &reads.tools[7].spec.input_schema)
        .unwrap()
        .check(&json!({"id": "a", "filter": {"next": {"value": "x"}}}))
        .unwrap();
    let writes = survey(&document, &settings(json!({"max_tools": 2_000, "allow": [{"methods": ["POST"]}]})));
    assert_eq!(writes.tools.len(), 2_000);
    let bytes: usize = writes.tools.iter().map(|tool| tool.spec.input_schema.to_string().len()).sum();
    println!("{:?}, {bytes} bytes of schemas", began.elapsed());
    assert!(bytes < 2_000 * 1_024, "{bytes}");
    assert!(matches!(Document::read(text.as_bytes(), 1 << 20, None), Err(crate::DocumentError::TooLarge { .. })));
}

#[test]
fn names_are_short_and_never_twice() {
    let mut paths = Map::new();
    for number in 0..3 {
        let long = "veryLongOperationName".repeat(6);
        paths.insert(format!("/x{number}"), json!({"get": {"operationId": format!("{long}{number}")}}));
    }
    paths.insert("/a-b".into(), json!({"get": {}}));
    paths.insert("/a_b".into(), json!({"get": {}}));
    let survey = survey(&document(&json!({"openapi": "3.1.0", "paths": paths})), &settings(json!({})));
    let names = names_of(&survey);
    let distinct: BTreeSet<&&str> = names.iter().collect();
    assert!(names.len() == 5 && distinct.len() == 5 && names.iter().all(|name| name.len() <= 64), "{names:?}");
}
