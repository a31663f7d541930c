//! A described API on loopback that remembers what it was asked and refuses what is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on shall stop")]
#![allow(clippy::disallowed_methods, reason = "the API under test listens on loopback")]
#![allow(clippy::needless_pass_by_value, reason = "JSON is built where it is passed")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use portcullis_egress::LiteralSecrets;
use portcullis_manifest::{ApiExtension, ApiSettings};
use portcullis_model::{Fault, FaultCode, NameSet, Scope, TenantId};
use portcullis_policy::{Budget, CharterGrant, Permit, Policies, Vocabulary};
use portcullis_ports::{Arguments, Content, Extension, Happening, NoExchange, Outcome, Output, Standing, Taken, Tool, Witness};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const TOKEN: &str = "hunter2-hunter2";

type Seen = Arc<Mutex<Vec<String>>>;

/// The shop: everything it was asked, and a description of itself.
struct Shop {
    url: String,
    seen: Seen,
}

async fn answer(State(seen): State<Seen>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let text = String::from_utf8_lossy(&body).into_owned();
    seen.lock().unwrap().push(format!("{method} {uri} {text}").trim_end().to_owned());
    let path = uri.path();
    if path == "/openapi.json" {
        assert!(!headers.contains_key("authorization"), "the description is fetched without a credential");
        return description("").to_string().into_response();
    }
    if headers.get("authorization").and_then(|h| h.to_str().ok()) != Some(&format!("Bearer {TOKEN}")) {
        return (StatusCode::UNAUTHORIZED, "who are you?").into_response();
    }
    let json = |value: Value| ([("content-type", "application/json")], value.to_string()).into_response();
    match (method.as_str(), path) {
        ("GET", "/v1/orders") => json(
            json!({"count": 300, "orders": (0..300).map(|i| json!({"id": i, "state": "open", "note": format!("order number {i} of the day")})).collect::<Vec<_>>()}),
        ),
        ("GET", "/v1/orders/7%208") => json(json!({"id": "7 8", "password": "x"})),
        ("POST", "/v1/orders") => (StatusCode::CREATED, [("content-type", "application/json")], text).into_response(),
        ("GET", "/v1/picture") => ([("content-type", "image/png")], vec![0_u8, 1, 2, 3]).into_response(),
        _ => (StatusCode::NOT_FOUND, [("content-type", "application/json")], json!({"detail": "nothing here"}).to_string())
            .into_response(),
    }
}

async fn shop() -> Shop {
    let seen = Seen::default();
    let router = Router::new().fallback(answer).with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Shop { url, seen }
}

fn description(server: &str) -> Value {
    json!({"openapi": "3.1.0", "info": {"title": "Shop", "version": "1"}, "servers": [{"url": server}], "paths": {
        "/orders": {
            "get": {"operationId": "listOrders", "summary": "Lists orders"},
            "post": {"operationId": "createOrder", "requestBody": {"required": true, "content": {"application/json": {"schema":
                {"type": "object", "required": ["item"], "properties": {"item": {"type": "string"}, "count": {"type": "integer"}}}}}}}},
        "/orders/{id}": {"get": {"operationId": "getOrder", "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]}},
        "/picture": {"get": {"operationId": "picture"}}}})
}

fn settings(more: Value) -> ApiSettings {
    let mut all = json!({"name": "shop", "auth": {"bearer": TOKEN}, "allow_addresses": ["loopback"], "allow": [{"methods": ["*"]}], "answer_tokens": 800});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn read(shop: &Shop, directory: &Path, more: Value) -> ApiExtension {
    let file = directory.join("shop.json");
    std::fs::write(&file, description("https://other.example").to_string()).unwrap();
    let mut all = json!({"spec": {"file": file}, "url": format!("{}/v1", shop.url)});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ApiExtension::open(&settings(all), &LiteralSecrets, directory).unwrap()
}

/// The same, in use.
fn open(shop: &Shop, directory: &Path, more: Value) -> ApiExtension {
    let extension = read(shop, directory, more);
    extension.start(policies().charter(extension.charter()).unwrap(), Arc::new(Book::default()));
    extension
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn policies() -> Policies {
    Policies::load(&[], &Vocabulary::default(), 1).unwrap()
}

fn permit_within(shop: &Shop, scope: Scope) -> Permit {
    let grant = CharterGrant {
        name: Arc::from("test"),
        destinations: BTreeSet::from([shop.url.clone()]),
        scope,
        time_limit: Duration::from_secs(20),
        budget: Budget::default(),
    };
    policies().charter(grant).unwrap().permit()
}

fn permit(shop: &Shop) -> Permit {
    permit_within(shop, Scope::tenant_wide(TenantId::default_tenant()))
}

fn tool(extension: &ApiExtension, name: &str) -> Arc<dyn Tool> {
    let tools = extension.offer(&Taken::default()).tools;
    tools.into_iter().find(|t| t.spec().name.as_str() == name).unwrap_or_else(|| panic!("no {name}"))
}

async fn call(extension: &ApiExtension, permit: &Permit, name: &str, arguments: Value) -> Result<(String, Output), Fault> {
    let arguments = Arguments(arguments.as_object().unwrap().clone());
    let Outcome::Complete(output) = tool(extension, name).run(permit, arguments, &NoExchange).await? else {
        panic!("not complete")
    };
    let Content::Text(text) = &output.content[0] else { panic!("no text") };
    Ok((text.clone(), output))
}

#[derive(Default)]
struct Book(Mutex<Vec<Happening>>);

impl Witness for Book {
    fn record(&self, happening: &Happening) -> Result<(), String> {
        self.0.lock().unwrap().push(happening.clone());
        Ok(())
    }
}

struct NoBook;

impl Witness for NoBook {
    fn record(&self, _: &Happening) -> Result<(), String> {
        Err("disk full".into())
    }
}

#[tokio::test]
async fn operations_are_called_as_they_are_described() {
    let (shop, directory) = (shop().await, tempfile::tempdir().unwrap());
    let api = open(&shop, directory.path(), json!({}));
    let permit = permit(&shop);
    let (text, output) = call(&api, &permit, "shop_get_order", json!({"id": "7 8"})).await.unwrap();
    assert!(text.contains("7 8") && !output.failed && output.sources == [Arc::from("shop")], "{text}");
    let (text, output) = call(&api, &permit, "shop_create_order", json!({"item": "tea", "count": 2})).await.unwrap();
    assert_eq!(text, "201 Created\n{\"item\":\"tea\",\"count\":2}");
    assert_eq!(output.structured.unwrap()["body"]["count"], 2);
    let (text, output) = call(&api, &permit, "shop_get_order", json!({"id": "none"})).await.unwrap();
    assert!(output.failed && text.starts_with("404 Not Found\n") && text.contains("nothing here"), "{text}");
    let (text, _) = call(&api, &permit, "shop_picture", json!({})).await.unwrap();
    assert_eq!(text, "(image/png, 4 bytes: no text, left out)");
    let fault = call(&api, &permit, "shop_get_order", json!({"id": "../../admin"})).await.unwrap_err();
    assert_eq!(fault.code(), FaultCode::InvalidArgument);
    let seen = shop.seen.lock().unwrap().clone();
    assert_eq!(
        seen,
        ["GET /v1/orders/7%208", "POST /v1/orders {\"item\":\"tea\",\"count\":2}", "GET /v1/orders/none", "GET /v1/picture"]
    );
    assert!(!format!("{:?}", api.report()).contains(TOKEN));
}

#[tokio::test]
async fn a_long_list_is_read_page_by_page_and_a_foreign_cursor_is_refused() {
    let (shop, directory) = (shop().await, tempfile::tempdir().unwrap());
    let api = open(&shop, directory.path(), json!({}));
    let permit = permit(&shop);
    let (mut arguments, mut seen) = (json!({}), 0);
    loop {
        let (text, output) = call(&api, &permit, "shop_list_orders", arguments.clone()).await.unwrap();
        let structured = output.structured.unwrap();
        assert_eq!(structured["body"]["orders"][0]["id"], seen, "{text}");
        seen += structured["shown"].as_u64().unwrap();
        let Some(next) = structured.get("next") else { break };
        arguments = json!({"answer_cursor": next});
    }
    assert_eq!(seen, 300);
    let foreign = json!({"answer_cursor": arguments["answer_cursor"], "id": "7 8"});
    assert_eq!(call(&api, &permit, "shop_get_order", foreign).await.unwrap_err().code(), FaultCode::InvalidArgument);
}

#[tokio::test]
async fn who_is_confined_does_not_get_what_cannot_be_confined() {
    let (shop, directory) = (shop().await, tempfile::tempdir().unwrap());
    let tenant = Scope::tenant_wide(TenantId::default_tenant());
    let confined = [
        Scope { services: NameSet::only(["cart"]), ..tenant.clone() },
        Scope { namespaces: NameSet::only(["shop"]), ..tenant.clone() },
        Scope { look_back: Some(Duration::from_mins(1)), ..tenant.clone() },
    ];
    let others = [Scope { sources: NameSet::only(["prometheus"]), ..tenant }, Scope::tenant_wide(TenantId::new("acme").unwrap())];
    for (open_to_confined, refused) in [(false, &confined[..]), (true, &others[..]), (false, &others[..])] {
        let api = open(&shop, directory.path(), json!({"open_to_confined": open_to_confined}));
        for scope in refused {
            let fault = call(&api, &permit_within(&shop, scope.clone()), "shop_list_orders", json!({})).await.unwrap_err();
            assert_eq!(fault.code(), FaultCode::Forbidden, "{scope:?}");
        }
    }
    assert!(shop.seen.lock().unwrap().is_empty());
    let api = open(&shop, directory.path(), json!({"open_to_confined": true}));
    call(&api, &permit_within(&shop, confined[0].clone()), "shop_list_orders", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_private_address_is_refused_unless_it_is_allowed() {
    let (shop, directory) = (shop().await, tempfile::tempdir().unwrap());
    let file = directory.path().join("shop.json");
    std::fs::write(&file, description(&format!("{}/v1", shop.url)).to_string()).unwrap();
    let from_description = |more: Value| {
        let mut all = json!({"spec": {"file": file}});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ApiExtension::open(&settings(all), &LiteralSecrets, directory.path()).map(|_| ()).map_err(|e| e.to_string())
    };
    // The address comes from the description here: it is as closed as one of the configuration.
    assert!(from_description(json!({"allow_addresses": []})).unwrap_err().contains("loopback"));
    from_description(json!({})).unwrap();
    std::fs::write(&file, description("https://{region}.example/v1").to_string()).unwrap();
    assert!(from_description(json!({})).unwrap_err().contains("'region'"));
    from_description(json!({"server_variables": {"region": "eu"}})).unwrap();
    assert!(from_description(json!({"server_variables": {"region": "user:secret@eu"}})).is_err());
    std::fs::write(&file, description("/api").to_string()).unwrap();
    assert!(from_description(json!({})).unwrap_err().contains("set url"));
}

#[tokio::test]
async fn a_description_is_fetched_once_by_its_digest_and_another_one_is_refused() {
    let (shop, directory) = (shop().await, tempfile::tempdir().unwrap());
    let right = sha256(description("").to_string().as_bytes());
    let of = |sha256: &str| {
        let all =
            json!({"spec": {"url": format!("{}/openapi.json", shop.url), "sha256": sha256}, "url": format!("{}/v1", shop.url)});
        ApiExtension::open(&settings(all), &LiteralSecrets, directory.path()).unwrap()
    };
    let begun = |api: &ApiExtension, witness: Arc<dyn Witness>| api.start(policies().charter(api.charter()).unwrap(), witness);
    let wrong = of(&"0".repeat(64));
    let book = Arc::new(Book::default());
    begun(&wrong, book.clone());
    tokio::time::timeout(Duration::from_secs(20), wrong.changed(0)).await.unwrap();
    assert!(wrong.offer(&Taken::default()).tools.is_empty());
    assert!(wrong.report().iter().any(|r| r.standing == Standing::Broken && r.detail.contains(&right)), "{:?}", wrong.report());
    assert!(matches!(&book.0.lock().unwrap()[..], [h] if h.what == "api.refused" && !h.admitted && h.note.contains(&right)));
    wrong.stop().await;

    let api = of(&right);
    assert!(api.offer(&Taken::default()).tools.is_empty());
    let book = Arc::new(Book::default());
    begun(&api, book.clone());
    tokio::time::timeout(Duration::from_secs(20), api.changed(0)).await.unwrap();
    assert_eq!(api.offer(&Taken::default()).tools.len(), 4);
    assert!(matches!(&book.0.lock().unwrap()[..], [h] if h.what == "api.loaded" && h.admitted && h.note.contains(&right)));
    let fetches = || shop.seen.lock().unwrap().iter().filter(|r| r.ends_with("/openapi.json")).count();
    assert_eq!(fetches(), 2);
    // The next start finds it on disk, and does not believe what was changed there.
    assert_eq!(of(&right).offer(&Taken::default()).tools.len(), 4);
    std::fs::write(directory.path().join("apis").join(&right), "openapi: 3.1.0\n").unwrap();
    assert!(of(&right).offer(&Taken::default()).tools.is_empty());
    assert_eq!(fetches(), 2);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_offered() {
    let (shop, directory) = (shop().await, tempfile::tempdir().unwrap());
    let api = read(&shop, directory.path(), json!({}));
    assert_eq!(api.offer(&Taken::default()).tools.len(), 4);
    let shown = tool(&api, "shop_list_orders");
    api.start(policies().charter(api.charter()).unwrap(), Arc::new(NoBook));
    assert_eq!(api.changed(0).await, 1);
    assert!(api.offer(&Taken::default()).tools.is_empty());
    // Who was shown a tool of it before cannot call it either.
    let fault = shown.run(&permit(&shop), Arguments::default(), &NoExchange).await.unwrap_err();
    assert_eq!(fault.code(), FaultCode::Unavailable, "{fault}");
    assert!(shop.seen.lock().unwrap().is_empty());
}

#[test]
fn settings_that_cannot_work_say_what_would() {
    for (more, word) in [
        (json!({"name": "My Shop", "spec": {"file": "x"}}), "lower-case"),
        (json!({"spec": {}}), "either file or url"),
        (json!({"spec": {"url": "https://a/x.json"}}), "needs spec.sha256"),
        (json!({"spec": {"url": "http://a/x.json", "sha256": "0".repeat(64)}}), "https://"),
        (json!({"spec": {"url": "http://localhost.evil/x.json", "sha256": "0".repeat(64)}}), "https://"),
        (json!({"spec": {"file": "x", "sha256": "abc"}}), "64 hexadecimal"),
        (json!({"spec": {"file": "/nonexistent/x.yaml"}}), "cannot read"),
        (json!({"spec": {"file": "x"}, "max_tools": 0}), "at least 1"),
    ] {
        let Err(error) = ApiExtension::open(&settings(more.clone()), &LiteralSecrets, Path::new("/nonexistent")) else {
            panic!("{more} was taken")
        };
        assert!(error.to_string().contains(word), "{more}: {error}");
    }
    assert!(serde_json::from_value::<ApiSettings>(json!({"name": "x", "spec": {"file": "x"}, "urll": "y"})).is_err());
}
