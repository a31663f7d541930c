//! Operations become requests, and those that cannot be called rightly are left out with a reason.

#![allow(clippy::needless_pass_by_value, reason = "JSON is built where it is passed")]

use proptest::prelude::*;

use super::*;

const BASE: &str = "https://api.example/v2";

fn document(version: &str, extra: Value) -> Document {
    let mut whole = json!({"openapi": version, "paths": {}, "components": {"schemas": {
        "Pet": {"type": "object", "required": ["id", "name"], "properties": {
            "id": {"type": "integer", "readOnly": true}, "name": {"type": "string"}, "kind": {"$ref": "#/components/schemas/Kind"},
            "parent": {"$ref": "#/components/schemas/Pet"}}},
        "Kind": {"type": "string", "enum": ["cat", "dog"]}}}});
    whole.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Document::read(whole.to_string().as_bytes(), 1 << 20, None).unwrap()
}

fn operation(method: &str, path: &str, members: Value) -> Result<Operation, String> {
    let document = document("3.0.3", json!({}));
    let known = Known { settings: None, credentials: &[], max_schema: 16_384 };
    let members = members.as_object().unwrap().clone();
    Operation::of(&document, Described { method, path, members: &members, shared: None }, known, &mut Schemas::new(&document))
}

fn arguments(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn address(operation: &Operation, given: Value) -> Result<String, String> {
    let request = operation.plan.request(&arguments(given)).map_err(|fault| fault.message().to_owned())?;
    request.address(BASE).map_err(|e| e.to_string())
}

#[test]
fn parameters_go_to_their_places() {
    let pets = operation(
        "GET",
        "/owners/{owner}/pets/{pet-id}.json",
        json!({"operationId": "getPet", "summary": "Gets a pet", "description": "Gets a pet. With its owner.", "parameters": [
            {"name": "owner", "in": "path", "required": true, "schema": {"type": "string"}},
            {"name": "pet-id", "in": "path", "required": true, "schema": {"type": "integer"}},
            {"name": "kind", "in": "query", "description": "which", "schema": {"$ref": "#/components/schemas/Kind"}},
            {"name": "fields[]", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
            {"name": "X-Trace", "in": "header", "schema": {"type": "string", "default": "none"}},
            {"name": "session", "in": "cookie", "schema": {"type": "string"}}]}),
    )
    .unwrap();
    assert_eq!(pets.description, "Gets a pet. (GET /owners/{owner}/pets/{pet-id}.json)");
    assert_eq!((pets.title.as_str(), pets.risk, pets.idempotent), ("Gets a pet", RiskClass::Read, true));
    assert_eq!(pets.schema["required"], json!(["owner", "pet-id"]));
    assert_eq!(pets.schema["properties"]["kind"], json!({"type": "string", "enum": ["cat", "dog"], "description": "which"}));
    assert_eq!(pets.schema["properties"]["owner"]["x-portcullis-kind"], "path_segment");
    assert!(pets.schema["properties"].get("fields").is_some() && pets.schema["properties"].get(CURSOR).is_some());
    assert_eq!(pets.schema["properties"]["X-Trace"], json!({"type": "string", "description": "(default \"none\")"}));
    assert_eq!(pets.notes, ["'session' is a cookie, and none are sent"]);
    assert_eq!(
        address(&pets, json!({"owner": "ann b", "pet-id": 7, "kind": "cat", "fields": ["a&b", "c"], "X-Trace": "1"})).unwrap(),
        "https://api.example/v2/owners/ann%20b/pets/7.json?kind=cat&fields%5B%5D=a%26b&fields%5B%5D=c"
    );
    for (bad, word) in [
        (json!({"owner": "..", "pet-id": 7}), "climbs"),
        (json!({"owner": "a/b", "pet-id": 7}), "separator"),
        (json!({"owner": "a%2fb", "pet-id": 7}), "encoded"),
        (json!({"owner": "a", "pet-id": 7, "X-Trace": "a\r\nb: c"}), "visible ASCII"),
        (json!({"owner": "a"}), "must be given"),
    ] {
        assert!(address(&pets, bad.clone()).unwrap_err().contains(word), "{bad}");
    }
}

#[test]
fn bodies_are_members_where_they_can_be_and_one_argument_else() {
    let json_body = |schema: Value, required: bool| json!({"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}});
    let create = operation("POST", "/pets", json_body(json!({"$ref": "#/components/schemas/Pet"}), true)).unwrap();
    assert_eq!((create.risk, create.idempotent), (RiskClass::Write, false));
    // A pet has a parent that is a pet: it stays one argument with a definition.
    assert_eq!(create.schema["required"], json!(["body"]));
    assert_eq!(create.schema["$defs"]["Pet"]["required"], json!(["name"]), "what the server writes is not asked for");
    let flat = operation("PUT", "/pets", json_body(json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "kind": {"$ref": "#/components/schemas/Kind"}}}), true)).unwrap();
    assert_eq!(flat.schema["required"], json!(["name"]));
    assert_eq!(flat.schema["properties"]["kind"]["enum"], json!(["cat", "dog"]));
    assert!(flat.schema["properties"].get(CURSOR).is_none(), "what writes is not asked twice");
    let request = flat.plan.request(&arguments(json!({"name": "Tom", "kind": null}))).unwrap();
    assert_eq!(request, EgressRequest::new(Method::PUT, ["pets"]).json(json!({"name": "Tom", "kind": null})));
    let optional =
        operation("PATCH", "/pets", json_body(json!({"type": "object", "properties": {"name": {"type": "string"}}}), false))
            .unwrap();
    assert!(optional.schema["properties"].get("body").is_some() && optional.schema.get("required").is_none());
    assert_eq!(optional.plan.request(&Map::new()).unwrap(), EgressRequest::new(Method::PATCH, ["pets"]));
    let form = operation(
        "POST",
        "/pets",
        json!({"requestBody": {"required": true, "content": {"application/x-www-form-urlencoded": {
            "schema": {"type": "object", "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}, "meta": {"type": "object"}, "raw": {"type": "object"}}},
            "encoding": {"meta": {"style": "deepObject", "explode": true}}}}}}),
    )
    .unwrap();
    let request = form
        .plan
        .request(&arguments(json!({"name": "a&b", "tags": ["x", "y"], "meta": {"k": {"v": 1}}, "raw": {"z": 1}})))
        .unwrap();
    let pairs = [("name", "a&b"), ("tags", "x"), ("tags", "y"), ("meta[k][v]", "1"), ("raw", "{\"z\":1}")];
    let pairs = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    assert_eq!(request, EgressRequest::new(Method::POST, ["pets"]).form(pairs));
}

#[test]
fn names_that_clash_are_told_apart() {
    let clash = operation(
        "POST",
        "/x/{id}",
        json!({"parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}, {"name": "id", "in": "query", "schema": {"type": "string"}},
            {"name": "answer_cursor", "in": "query", "schema": {"type": "string"}}, {"name": "日本", "in": "query", "schema": {"type": "string"}},
            {"name": "dry_run", "in": "query", "schema": {"type": "string"}}],
          "requestBody": {"required": true, "content": {"application/json": {"schema": {"type": "object", "properties": {"id": {"type": "string"}}}}}}}),
    )
    .unwrap();
    let names: Vec<&String> = clash.schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["id", "id_query", "answer_cursor_query", "query", "dry_run_query", "id_body", "dry_run"]);
    let request = clash
        .plan
        .request(&arguments(json!({"id": "1", "id_query": "2", "id_body": "3", "query": "4", "dry_run": false})))
        .unwrap();
    assert_eq!(
        request.address(BASE).unwrap(),
        "https://api.example/v2/x/1?id=2&%E6%97%A5%E6%9C%AC=4",
        "our own argument is not sent"
    );
}

#[test]
fn what_cannot_be_called_rightly_is_left_out_with_a_reason() {
    let with = |parameter: Value| json!({"parameters": [parameter]});
    for (path, members, word) in [
        ("/x", json!({"requestBody": {"required": true, "content": {"multipart/form-data": {}}}}), "multipart/form-data"),
        ("/x/{id}", json!({}), "not the same"),
        ("/x", with(json!({"name": "id", "in": "path", "schema": {}})), "not the same"),
        ("/x/{id}", with(json!({"name": "id", "in": "path", "style": "matrix", "schema": {"type": "string"}})), "style 'matrix'"),
        ("/x?y=1", json!({}), "the path is not usable"),
        ("/../x", json!({}), "the path is not usable"),
        ("/x", with(json!({"name": "q", "in": "query", "schema": {"$ref": "https://evil.example/s.json"}})), "nothing outside"),
        ("/x", with(json!({"$ref": "#/components/parameters/none"})), "not in the description"),
        ("/x", with(json!({"name": "Host", "in": "header", "required": true, "schema": {"type": "string"}})), "may not be set"),
        ("/x", with(json!({"name": "s", "in": "cookie", "required": true, "schema": {"type": "string"}})), "cookie"),
        ("/x", with(json!({"name": "q", "in": "query", "schema": {"type": 7}})), "not usable"),
    ] {
        let error = operation("GET", path, members).unwrap_err();
        assert!(error.contains(word), "{path}: {error}");
    }
    let odd = operation("GET", "/x", with(json!({"name": "q", "in": "query", "schema": {"type": "string", "pattern": "(?<a"}})))
        .unwrap();
    assert_eq!(odd.notes, ["its patterns are not checked here"]);
    let optional = operation("POST", "/x", json!({"requestBody": {"content": {"image/png": {}}}})).unwrap();
    assert_eq!(optional.notes, ["its body is image/png, which is not written"]);
}

#[test]
fn an_operator_knows_better() {
    let settings = OperationSettings {
        operation: "POST /search".into(),
        name: None,
        title: Some("Search".into()),
        description: Some("Finds.".into()),
        risk: Some(RiskClass::Read),
        idempotent: Some(true),
    };
    let document = document("3.1.0", json!({}));
    let known = Known { settings: Some(&settings), credentials: &[], max_schema: 16_384 };
    let members = Map::new();
    let search = Operation::of(
        &document,
        Described { method: "POST", path: "/search", members: &members, shared: None },
        known,
        &mut Schemas::new(&document),
    )
    .unwrap();
    assert_eq!(
        (search.title.as_str(), search.description.as_str(), search.risk, search.idempotent),
        ("Search", "Finds.", RiskClass::Read, true)
    );
}

proptest! {
    #[test]
    fn arguments_never_change_the_shape_of_an_address(owner in ".{0,20}", kind in ".{0,20}", extra in ".{0,10}") {
        let get = operation("GET", "/a/{owner}/b", json!({"parameters": [
            {"name": "owner", "in": "path", "required": true, "schema": {"type": "string"}},
            {"name": "kind", "in": "query", "schema": {"type": "string"}}]})).unwrap();
        if let Ok(address) = address(&get, json!({"owner": owner, "kind": kind, extra: "x"})) {
            let rest = address.strip_prefix("https://api.example/v2/a/").unwrap();
            let (segment, rest) = rest.split_once('/').unwrap();
            prop_assert!(!segment.is_empty() && segment != "." && segment != "..");
            prop_assert!(rest == "b" || rest.starts_with("b?kind="), "{}", address);
            prop_assert!(rest.matches(['&', '#']).count() == 0 && rest.matches('=').count() <= 1);
        }
    }
}
