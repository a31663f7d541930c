//! The whole way of a request to `/mcp`, from its head to its end: dispatch of messages in both eras, headers against the
//! body, batches, sessions, and states that travel through the client. Guards that a tool runs only when the one body that
//! was sent says so, for the caller who sent it. The house behind the door is made of fakes, in this process, without a
//! connection.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt as _;
use portcullis_gateway::{
    Admission, ApprovalSettings, Approvals, CatalogueBuilder, Gateway, GatewayParts, LimitSettings, Profiles, Rate, Recorder,
    RoadEnd, TokenLedger,
};
use portcullis_guard::{Redactor, Releaser};
use portcullis_identity::{Identity, KeyRequest, KeyRing, Pepper, local_principal};
use portcullis_mcp::{HttpSettings, router};
use portcullis_model::{Fault, RiskClass, SystemClock, TenantId, ToolName, ToolSpec, WriteCategory};
use portcullis_policy::{Budget, Permit, Policies, Products, Vocabulary};
use portcullis_ports::{Arguments, Exchange, InputRequest, Outcome, Output, Tool};
use portcullis_state::MemoryStore;
use portcullis_wire::{Refusals, RequestRefusal};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use crate::{Target, Verdict};

pub(crate) const MCP_DOOR: Target = Target {
    name: "mcp_door",
    promise: "a tool runs only as the one body says, for its caller, and never what needs a yes; every refusal is recorded",
    seeds: &[
        "one POST /mcp\nMCP-Protocol-Version: 2026-07-28\nMcp-Method: tools/call\nMcp-Name: look\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"look\",\"arguments\":{\"text\":\"a\"},\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}}}",
        "one POST /mcp\nMCP-Protocol-Version: 2026-07-28\nMcp-Method: tools/call\nMcp-Name: drop\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"drop\",\"arguments\":{\"text\":\"a\"},\"inputResponses\":{\"approval\":{\"action\":\"accept\",\"content\":{\"approve\":true}}},\"requestState\":\"@STATE@\",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{\"elicitation\":{}}}}}",
        "one POST /mcp\nMCP-Protocol-Version: 2026-07-28\nMcp-Method: tools/call\nMcp-Name: ask\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"ask\",\"arguments\":{\"text\":\"a\"},\"inputResponses\":{\"q\":{\"action\":\"accept\",\"content\":{\"name\":\"x\"}}},\"requestState\":\"@STATE@\",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{\"elicitation\":{}}}}}",
        "two POST /mcp\nMCP-Protocol-Version: 2026-07-28\nMcp-Method: tools/call\nMcp-Name: ask\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"ask\",\"arguments\":{\"text\":\"a\"},\"inputResponses\":{\"q\":{\"action\":\"accept\"}},\"requestState\":\"@STATE@\",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{\"elicitation\":{}}}}}",
        "one POST /mcp\n\n{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"roots\":{}},\"clientInfo\":{\"name\":\"f\",\"version\":\"1\"}}}",
        "one POST /mcp\nMCP-Protocol-Version: 2025-11-25\nMcp-Session-Id: @SESSION@\n\n{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"name\":\"look\",\"arguments\":{\"text\":\"a\"}}}",
        "two POST /mcp\nMCP-Protocol-Version: 2025-11-25\nMcp-Session-Id: @SESSION@\n\n{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"name\":\"look\",\"arguments\":{\"text\":\"a\"}}}",
        "one POST /mcp\nMCP-Protocol-Version: 2025-06-18\n\n{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/list\",\"params\":{}}",
        "one POST /mcp\n\n[{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"name\":\"look\"}},{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"ping\"}]",
        "one POST /mcp\nMCP-Protocol-Version: 2026-07-28\nMcp-Method: tools/call\nMcp-Name: =?base64?bG9vaw==?=\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"look\",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}}}",
        "one DELETE /mcp\nMcp-Session-Id: @SESSION@\n\n",
        "one POST /mcp/closed\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        "nobody POST /mcp\nMcp-Session-Id: @SESSION@\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
    ],
    words: &[
        "one",
        "two",
        "nobody",
        "POST",
        "DELETE",
        "\n\n",
        "Mcp-Name: drop\n",
        "Mcp-Name: look\n",
        "Mcp-Method: tools/list\n",
        "MCP-Protocol-Version: 2025-03-26\n",
        "Mcp-Session-Id: @SESSION@\n",
        "@STATE@",
        "\"name\":\"drop\",",
        "\"name\":\"look\",",
        "\"method\":\"tools/call\",",
        "\"arguments\":{}",
        "\"id\":null,",
        "\"id\":1,",
        "[",
        "]",
        "{}",
        ",",
    ],
    run: door,
};

/// Longest the rest of an answer is waited for: streams that stand open have no end.
const PATIENCE: Duration = Duration::from_millis(200);
/// Longest an answer is waited for that has to come, on a machine that does much else.
const LONGEST: Duration = Duration::from_mins(1);
/// Arguments the state that travels was made for.
const ASKED_WITH: &str = "a";

/// One run of a tool.
#[derive(Debug, Clone)]
struct Ran {
    tool: String,
    arguments: Map<String, Value>,
    principal: String,
    /// Whether it went on with a state that had travelled.
    went_on: bool,
}

/// What was seen of the request under way.
#[derive(Debug, Default)]
struct Book {
    runs: Vec<Ran>,
    rules: Vec<String>,
}

type Shared = Arc<Mutex<Book>>;

fn open(book: &Shared) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Clerk(Shared);

impl Recorder for Clerk {
    fn record(&self, end: &RoadEnd) -> Result<(), String> {
        open(&self.0).rules.push(end.rule.to_string());
        Ok(())
    }
}

impl Refusals for Clerk {
    fn refused(&self, refusal: RequestRefusal<'_>) {
        open(&self.0).rules.push(refusal.rule.to_owned());
    }
}

struct Fake {
    spec: Arc<ToolSpec>,
    book: Shared,
}

#[async_trait]
impl Tool for Fake {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let asks = self.spec.name.as_str() == "ask";
        let went_on = exchange.answers().is_some_and(|answers| answers.state.is_some());
        open(&self.book).runs.push(Ran {
            tool: self.spec.name.to_string(),
            arguments: arguments.0,
            principal: permit.principal_id().to_string(),
            went_on,
        });
        if asks && !went_on {
            let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
            let form = InputRequest {
                method: "elicitation/create".into(),
                params: json!({"message": "who?", "requestedSchema": schema}),
            };
            return Ok(Outcome::NeedsInput { requests: vec![("q".into(), form)], state: Some(json!({"asked": true})) });
        }
        Ok(Output::text("done").into())
    }
}

fn fake(name: &str, risk: RiskClass, book: &Shared) -> Arc<Fake> {
    let name_of = ToolName::new(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let spec = ToolSpec {
        name: name_of,
        title: name.into(),
        description: "a fake".into(),
        risk,
        idempotent: true,
        open_world: false,
        category: (risk != RiskClass::Read).then(|| WriteCategory("workloads".into())),
        input_schema: Arc::new(json!({"type": "object", "properties": {"text": {"type": "string"}}})),
        output_schema: None,
        completions: vec![],
        shown: None,
    };
    Arc::new(Fake { spec: Arc::new(spec), book: book.clone() })
}

/// The house behind the door, and two people with keys.
struct World {
    runtime: Runtime,
    router: Router,
    book: Shared,
    keys: [String; 2],
    ring: KeyRing,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(World::new().unwrap_or_else(|e| panic!("the house: {e}"))));

impl World {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let book = Shared::default();
        let clock = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let made = runtime.block_on(async {
            let keys = KeyRing::open(store.clone(), clock.clone(), Pepper::in_memory()?).await?;
            let mut made = Vec::new();
            for name in ["one", "two"] {
                let key = keys.create(KeyRequest::new(name, "operator", TenantId::default_tenant())).await?;
                made.push(key.secret.expose().to_owned());
            }
            keys.refresh().await?;
            Ok::<_, Box<dyn std::error::Error>>((keys, made))
        });
        let (keys, made) = made?;
        let [one, two] = <[String; 2]>::try_from(made).map_err(|_| "two keys were made")?;
        let mut builder = CatalogueBuilder::new();
        for (name, risk) in [("look", RiskClass::Read), ("ask", RiskClass::Read), ("drop", RiskClass::Destructive)] {
            builder = builder.tool(fake(name, risk, &book))?;
        }
        let catalogue = builder.build();
        let vocabulary = Vocabulary {
            enabled_writes: [WriteCategory("workloads".into())].into(),
            ..Vocabulary::of_tools(catalogue.tool_specs())
        };
        let limits = LimitSettings {
            tokens_per_day: None,
            tenant_tokens_per_day: None,
            ..LimitSettings::all_at(Rate::new(1_000_000, 1_000_000))
        };
        let clerk = Arc::new(Clerk(book.clone()));
        let gateway = Gateway::new(GatewayParts {
            policies: Policies::load(&[], &vocabulary, 1)?,
            catalogue,
            products: Products::default(),
            identity: Arc::new(Identity::new(Some(keys.clone()), local_principal("fuzz", "reader")?, clock.clone())),
            admission: Admission::new(limits, Arc::new(TokenLedger::unshared())),
            approvals: Approvals::new(store, clock, ApprovalSettings::default()),
            profiles: Arc::new(Profiles::off()),
            external: None,
            releaser: Releaser::new(Redactor::new()?),
            recorder: clerk.clone(),
            budget: Budget::default(),
        });
        let settings = HttpSettings { refusals: clerk, ..HttpSettings::default() };
        let router = {
            let _inside = runtime.enter();
            router(Arc::new(gateway), settings)
        };
        Ok(Self { runtime, router, book, keys: [one, two], ring: keys })
    }

    /// Sends a request and waits for its answer, as far as it has an end. Everything that was seen meanwhile is new.
    fn ask(&self, request: Request<Body>) -> (StatusCode, Option<String>, String) {
        self.ask_patiently(request, PATIENCE)
    }

    /// The same, with another patience for what comes after the head.
    fn ask_patiently(&self, request: Request<Body>, patience: Duration) -> (StatusCode, Option<String>, String) {
        *open(&self.book) = Book::default();
        self.runtime.block_on(async {
            let asked = tokio::time::timeout(LONGEST, self.router.clone().oneshot(request)).await;
            let response = asked.unwrap_or_else(|_| panic!("no answer has begun")).unwrap_or_else(|never| match never {});
            let status = response.status();
            let session = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
            let collected = tokio::time::timeout(patience, response.into_body().collect()).await;
            let bytes = collected.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
            (status, session, String::from_utf8_lossy(&bytes).into_owned())
        })
    }

    /// A fresh session of the first person.
    fn session(&self) -> String {
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
            "capabilities": {"roots": {}, "elicitation": {}}, "clientInfo": {"name": "f", "version": "1"}}});
        let (status, session, said) = self.ask(prepared(&self.keys[0], &[], &body));
        session.unwrap_or_else(|| panic!("no session: {status} {said}"))
    }

    fn close(&self, session: &str) {
        let mut request = prepared(&self.keys[0], &[], &Value::Null);
        *request.method_mut() = Method::DELETE;
        if let Ok(value) = HeaderValue::from_str(session) {
            request.headers_mut().insert("mcp-session-id", value);
        }
        self.ask(request);
    }

    /// A fresh state of the first person, made for the tool that asks with [`ASKED_WITH`].
    fn state(&self) -> String {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "ask", "arguments": {"text": ASKED_WITH}, "_meta": meta}});
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "ask")];
        // This one ends by itself.
        let (status, _, said) = self.ask_patiently(prepared(&self.keys[0], &headers, &body), LONGEST);
        let answer: Value = serde_json::from_str(&said).unwrap_or_default();
        answer["result"]["requestState"].as_str().unwrap_or_else(|| panic!("no state: {status} {said}")).to_owned()
    }
}

fn prepared(key: &str, headers: &[(&'static str, &str)], body: &Value) -> Request<Body> {
    let mut request = Request::new(Body::from(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "/mcp".parse().unwrap_or_else(|e| panic!("/mcp: {e}"));
    let authorization = format!("Bearer {key}");
    let usual = [
        ("host", "127.0.0.1"),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        ("authorization", authorization.as_str()),
    ];
    for (name, value) in usual.iter().chain(headers) {
        let value = HeaderValue::from_str(value).unwrap_or_else(|e| panic!("{name}: {e}"));
        request.headers_mut().insert(HeaderName::from_static(name), value);
    }
    request
}

/// What an input asks: by whom, how, with which headers and which body.
struct Asked<'a> {
    who: &'a str,
    method: Method,
    path: &'a str,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: &'a str,
}

fn read(text: &str) -> Option<Asked<'_>> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let mut first = lines.next()?.splitn(3, ' ');
    let (who, method, path) = (first.next()?, first.next()?, first.next()?);
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        // Whose request it is, the first word says; the rest is up to the input.
        if name != "authorization" {
            headers.push((name, HeaderValue::from_str(value.trim()).ok()?));
        }
    }
    Some(Asked { who, method: Method::from_bytes(method.as_bytes()).ok()?, path, headers, body })
}

fn door(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else { return Verdict::refused("no text") };
    let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    // As a server does twice a second: keys that were not looked at for long let nobody in.
    world.runtime.block_on(world.ring.refresh()).unwrap_or_else(|e| panic!("the keys: {e}"));
    let (session, state) = (text.contains("@SESSION@").then(|| world.session()), text.contains("@STATE@").then(|| world.state()));
    let mut text = text.to_owned();
    for (place, value) in [("@SESSION@", &session), ("@STATE@", &state)] {
        if let Some(value) = value {
            text = text.replace(place, value);
        }
    }
    let verdict = read(&text).map_or_else(|| Verdict::refused("no request"), |asked| judged(&world, asked, session.as_deref()));
    if let Some(session) = session {
        world.close(&session);
    }
    verdict
}

fn judged(world: &World, asked: Asked<'_>, session: Option<&str>) -> Verdict {
    let Asked { who, method, path, headers, body } = asked;
    let caller = match who {
        "one" => Some(0),
        "two" => Some(1),
        _ => None,
    };
    let Ok(uri) = path.parse() else { return Verdict::refused("no address") };
    let mut request = Request::new(Body::from(body.to_owned()));
    let posted = method == Method::POST;
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    for (name, value) in
        [("host", "127.0.0.1"), ("accept", "application/json, text/event-stream"), ("content-type", "application/json")]
    {
        if !headers.iter().any(|(given, _)| given == name) {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    for (name, value) in &headers {
        request.headers_mut().append(name, value.clone());
    }
    if let Some(key) = caller.and_then(|at| world.keys.get(at))
        && let Ok(value) = HeaderValue::from_str(&format!("Bearer {key}"))
    {
        request.headers_mut().insert("authorization", value);
    }
    let (status, _, said) = world.ask(request);
    let book = std::mem::take(&mut *open(&world.book));
    assert!(!status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE, "{status}: {said}");
    assert!(!world.keys.iter().any(|key| said.contains(key.as_str())), "a key came back");
    for run in &book.runs {
        justified(run, caller, world, &headers, body);
    }
    let stolen = session.is_some_and(|session| headers.iter().any(|(name, value)| name == "mcp-session-id" && value == session));
    assert!(!(stolen && caller != Some(0) && status.is_success()), "a session of somebody else was served: {status} {said}");
    let here = path.split('?').next() == Some("/mcp");
    if posted && here && status.is_client_error() {
        assert!(!book.rules.is_empty(), "refused and not recorded: {status} {said}");
    }
    let mut words = format!("{status}");
    for rule in &book.rules {
        let _ = write!(words, " {rule}");
    }
    Verdict { accepted: status.is_success(), said: words }
}

/// A run has its reason in the body and in nothing else, and no header says otherwise.
fn justified(run: &Ran, caller: Option<usize>, world: &World, headers: &[(HeaderName, HeaderValue)], body: &str) {
    assert!(run.tool != "drop", "what needs a yes ran without: {run:?}");
    let own = caller.and_then(|at| world.keys.get(at)).and_then(|key| key.split('_').nth(1));
    assert!(own.is_some_and(|id| run.principal.ends_with(id)), "{run:?} for somebody else than who asked: {own:?}");
    let message: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{run:?}, and the body is no JSON: {e}"));
    let messages = message.as_array().cloned().unwrap_or_else(|| vec![message]);
    let says = |message: &Value| {
        let given = message["params"]["arguments"].as_object().cloned().unwrap_or_default();
        message["method"] == "tools/call" && message["params"]["name"] == run.tool.as_str() && given == run.arguments
    };
    let reason = messages.iter().find(|message| says(message));
    let Some(reason) = reason else { panic!("{run:?} is not what the body says: {body}") };
    if reason["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28" {
        for (name, wanted) in [("mcp-name", run.tool.as_str()), ("mcp-method", "tools/call")] {
            for (_, value) in headers.iter().filter(|(given, _)| given == name) {
                let encoded = format!("=?base64?{}?=", STANDARD.encode(wanted));
                assert!(value == wanted || value == encoded.as_str(), "{run:?} although {name} says {value:?}");
            }
        }
    }
    if run.went_on {
        assert!(caller == Some(0), "a state of somebody else was taken: {run:?}");
        assert!(
            run.tool == "ask" && run.arguments.get("text").is_some_and(|text| text == ASKED_WITH),
            "a state made for other arguments was taken: {run:?}"
        );
    }
}
