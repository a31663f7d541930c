//! A small house behind the face: fakes of every kind, two readers and an operator, and a recorder that remembers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use portcullis_gateway::{
    Admission, ApprovalSettings, Approvals, Catalogue, CatalogueBuilder, Gateway, GatewayParts, LimitSettings, Profiles, Rate,
    Recorder, RoadEnd, TokenLedger,
};
use portcullis_guard::{Redactor, ReleaseSettings, Releaser};
use portcullis_identity::{Identity, KeyRequest, KeyRing, Pepper, local_principal};
use portcullis_mcp::{ConnectionSettings, HttpSettings, router, serve_with};
use portcullis_model::{
    Fault, FaultCode, ResourceSpec, ResourceTemplateSpec, RiskClass, SystemClock, TenantId, ToolName, ToolSpec, WriteCategory,
};
use portcullis_policy::{Budget, Permit, Policies, Products, Vocabulary};
use portcullis_ports::{
    Arguments, EmbeddedResource, Exchange, InputRequest, NoticeLevel, Outcome, Output, ResourceOutput, ResourceReader, Tool,
};
use portcullis_state::MemoryStore;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::{Connection, Reply};

#[derive(Default)]
pub(crate) struct Memory(Mutex<Vec<RoadEnd>>);

impl Recorder for Memory {
    fn record(&self, end: &RoadEnd) -> Result<(), String> {
        self.0.lock().unwrap().push(end.clone());
        Ok(())
    }
}

impl Memory {
    pub(crate) fn last(&self) -> RoadEnd {
        self.0.lock().unwrap().last().cloned().expect("a record")
    }

    pub(crate) fn all(&self) -> Vec<RoadEnd> {
        self.0.lock().unwrap().clone()
    }
}

/// Runs of the sleeping tool under way, and dropped before their end.
#[derive(Default)]
pub(crate) struct Sleepers {
    pub running: AtomicUsize,
    pub dropped: AtomicUsize,
    /// Ends the run that waits the longest.
    pub awake: tokio::sync::Notify,
}

struct Awake(Arc<Sleepers>);

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Sleepers {
    pub(crate) async fn until(count: &AtomicUsize, wanted: usize) {
        for _ in 0..500 {
            if count.load(Ordering::SeqCst) >= wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain for {wanted}");
    }
}

struct Fake {
    spec: Arc<ToolSpec>,
    sleepers: Arc<Sleepers>,
}

fn spec(name: &str, risk: RiskClass, schema: Value) -> Arc<ToolSpec> {
    Arc::new(ToolSpec {
        name: ToolName::new(name).unwrap(),
        title: name.into(),
        description: "a fake".into(),
        risk,
        idempotent: true,
        open_world: false,
        category: (risk != RiskClass::Read).then(|| WriteCategory("workloads".into())),
        input_schema: Arc::new(schema),
        output_schema: None,
        completions: vec![],
        shown: None,
    })
}

fn form() -> InputRequest {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    InputRequest { method: "elicitation/create".into(), params: json!({"message": "who?", "requestedSchema": schema}) }
}

#[async_trait]
impl Tool for Fake {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let text = |name: &str| arguments.0.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        match self.spec.name.as_str() {
            "sleep" => {
                let awake = Awake(self.sleepers.clone());
                self.sleepers.running.fetch_add(1, Ordering::SeqCst);
                let _ = tokio::time::timeout(Duration::from_secs(20), self.sleepers.awake.notified()).await;
                std::mem::forget(awake);
                Ok(Output::text("slept").into())
            }
            "fail" => {
                let code = FaultCode::ALL.into_iter().find(|c| c.as_str() == text("code")).unwrap();
                Err(Fault::new(code, "said so").with_hint("try otherwise").with_retry_after(3).with_internal("secret place"))
            }
            "report" => {
                for done in [1.0, 1.0, 2.0] {
                    exchange.progress(done, Some(2.0), "token=abcdef123456789");
                }
                exchange.notice(NoticeLevel::Debug, "fake", json!("detail"));
                exchange.notice(NoticeLevel::Warning, "fake", json!({"password": "hunter2"}));
                Ok(Output::text("reported").into())
            }
            "ask" => match exchange.answers() {
                Some(answers) if answers.state == Some(json!({"asked": true})) => {
                    let name = answers.responses.get("q").and_then(|a| a.pointer("/content/name")).cloned();
                    Ok(Output::text(format!("hello {}", name.unwrap_or_default())).into())
                }
                _ => Ok(Outcome::NeedsInput { requests: vec![("q".into(), form())], state: Some(json!({"asked": true})) }),
            },
            _ => Ok(Output::structured(
                json!({"text": text("text"), "who": permit.principal_id().as_str()}),
                format!("password={}", text("text")),
            )
            .into()),
        }
    }
}

/// Resources, and whether changes of the book are announced.
struct Shelf(Vec<Arc<ResourceSpec>>, bool);

#[async_trait]
impl ResourceReader for Shelf {
    fn resources(&self) -> Vec<Arc<ResourceSpec>> {
        self.0.clone()
    }
    fn templates(&self) -> Vec<Arc<ResourceTemplateSpec>> {
        Vec::new()
    }
    fn owns(&self, uri: &str) -> bool {
        uri.starts_with("house://")
    }
    fn announces(&self, uri: &str) -> bool {
        self.1 && uri == "house://book"
    }
    async fn read(&self, _permit: &Permit, uri: &str, _exchange: &dyn Exchange) -> Result<ResourceOutput, Fault> {
        if !self.0.iter().any(|r| &*r.uri == uri) {
            return Err(Fault::new(FaultCode::NotFound, "no such book"));
        }
        let book = EmbeddedResource {
            uri: uri.into(),
            mime_type: None,
            data: "api_key=abcdef123456789".into(),
            binary: false,
            meta: None,
        };
        Ok(ResourceOutput::Contents(vec![book]))
    }
}

/// What the house offers. `many` adds tools beyond one page.
pub(crate) fn furnish(sleepers: &Arc<Sleepers>, many: usize, version: u64) -> (Catalogue, Policies) {
    furnish_with(sleepers, many, version, true)
}

/// The same, with or without a resource that can be watched.
pub(crate) fn furnish_with(sleepers: &Arc<Sleepers>, many: usize, version: u64, announced: bool) -> (Catalogue, Policies) {
    let text = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    let mirrored = json!({"type": "object", "properties": {"text": {"type": "string", "x-mcp-header": "Text"}}});
    let code = json!({"type": "object", "properties": {"code": {"type": "string"}}});
    let none = json!({"type": "object"});
    let mut specs = vec![
        spec("echo", RiskClass::Read, text.clone()),
        spec("mirrored", RiskClass::Read, mirrored.clone()),
        spec("fail", RiskClass::Read, code),
        spec("sleep", RiskClass::Read, none.clone()),
        spec("report", RiskClass::Read, none.clone()),
        spec("ask", RiskClass::Read, none),
        spec("wipe", RiskClass::Write, text),
        spec("wipe_mirrored", RiskClass::Write, mirrored),
    ];
    specs.extend((0..many).map(|i| spec(&format!("many_{i:04}"), RiskClass::Read, json!({"type": "object"}))));
    let mut builder = CatalogueBuilder::new().instructions("Look, do not touch.");
    for spec in specs {
        builder = builder.tool(Arc::new(Fake { spec, sleepers: sleepers.clone() })).unwrap();
    }
    let book = ResourceSpec {
        uri: "house://book".into(),
        name: "book".into(),
        title: None,
        description: None,
        mime_type: None,
        shown: None,
    };
    let catalogue = builder.resources(Arc::new(Shelf(vec![Arc::new(book)], announced))).build();
    let vocabulary = Vocabulary {
        tools: catalogue.tool_names(),
        enabled_writes: [WriteCategory("workloads".into())].into(),
        ..Vocabulary::default()
    };
    let policies = Policies::load(&[], &vocabulary, version).unwrap();
    (catalogue, policies)
}

pub(crate) struct House {
    pub gateway: Arc<Gateway>,
    pub memory: Arc<Memory>,
    pub sleepers: Arc<Sleepers>,
    pub keys: KeyRing,
    pub one: String,
    pub two: String,
}

pub(crate) async fn house(many: usize) -> House {
    house_releasing(many, Releaser::new(Redactor::new().unwrap())).await
}

/// The same with frames around text, as servers release it.
pub(crate) async fn framed_house() -> House {
    house_releasing(0, Releaser::with_settings(Redactor::new().unwrap(), ReleaseSettings::default()).unwrap()).await
}

async fn house_releasing(many: usize, releaser: Releaser) -> House {
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let keys = KeyRing::open(store.clone(), clock.clone(), Pepper::in_memory().unwrap()).await.unwrap();
    let mut made = Vec::new();
    for name in ["one", "two"] {
        let key = keys.create(KeyRequest::new(name, "reader", TenantId::default_tenant())).await.unwrap();
        made.push(key.secret.expose().to_owned());
    }
    keys.refresh().await.unwrap();
    let sleepers = Arc::new(Sleepers::default());
    let (catalogue, policies) = furnish(&sleepers, many, 1);
    let memory = Arc::new(Memory::default());
    let limits = LimitSettings::all_at(Rate::new(10_000, 10_000));
    let gateway = Arc::new(Gateway::new(GatewayParts {
        catalogue,
        policies,
        products: Products::default(),
        identity: Arc::new(Identity::new(Some(keys.clone()), local_principal("tester", "reader").unwrap(), clock)),
        admission: Admission::new(limits, Arc::new(TokenLedger::unshared())),
        approvals: Approvals::new(store, Arc::new(SystemClock), ApprovalSettings::default()),
        profiles: Arc::new(Profiles::off()),
        external: None,
        releaser,
        recorder: memory.clone(),
        budget: Budget::default(),
    }));
    let two = made.pop().unwrap();
    let one = made.pop().unwrap();
    House { gateway, memory, sleepers, keys, one, two }
}

pub(crate) struct Served {
    pub house: House,
    pub address: SocketAddr,
    pub closing: CancellationToken,
    pub serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

pub(crate) async fn served(settings: HttpSettings) -> Served {
    served_with(house(0).await, settings).await
}

pub(crate) async fn served_with(house: House, settings: HttpSettings) -> Served {
    served_over(house, settings, ConnectionSettings::default()).await
}

pub(crate) async fn served_over(house: House, settings: HttpSettings, connections: ConnectionSettings) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closing = settings.closing.clone();
    let router = router(house.gateway.clone(), settings);
    let serving = tokio::spawn(serve_with(listener, router, closing.clone(), connections));
    Served { house, address, closing, serving }
}

pub(crate) const ACCEPT: (&str, &str) = ("Accept", "application/json, text/event-stream");
pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// `_meta` of the stateless revision with these client capabilities.
pub(crate) fn meta(capabilities: &Value) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
        "io.modelcontextprotocol/clientInfo": {"name": "it", "version": "1"}
    })
}

impl Served {
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.address).await
    }

    /// Sends a request of the stateless revision.
    pub(crate) async fn send_modern(&self, connection: &mut Connection, key: &str, method: &str, mut params: Value) {
        if params.get("_meta").is_none() {
            params["_meta"] = meta(&json!({}));
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let name = params
            .get("name")
            .or(params.get("uri"))
            .or(params.get("taskId"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let authorization = format!("Bearer {key}");
        let mut headers = vec![
            ACCEPT,
            JSON,
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", method),
            ("Authorization", authorization.as_str()),
        ];
        if !name.is_empty() {
            headers.push(("Mcp-Name", name.as_str()));
        }
        connection.send("POST", "/mcp", &headers, &body).await;
    }

    pub(crate) async fn modern(&self, key: &str, method: &str, params: Value) -> Reply {
        let mut connection = self.connect().await;
        self.send_modern(&mut connection, key, method, params).await;
        connection.reply().await
    }

    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Reply {
        self.modern(&self.house.one, "tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// Sends a message of a session, or the request that opens one.
    pub(crate) async fn send_legacy(&self, connection: &mut Connection, key: &str, session: Option<&str>, body: &Value) {
        let authorization = format!("Bearer {key}");
        let mut headers = vec![ACCEPT, JSON, ("Authorization", authorization.as_str())];
        if let Some(session) = session {
            headers.push(("Mcp-Session-Id", session));
            headers.push(("MCP-Protocol-Version", "2025-11-25"));
        }
        connection.send("POST", "/mcp", &headers, &body.to_string()).await;
    }

    pub(crate) async fn legacy(&self, key: &str, session: Option<&str>, body: &Value) -> Reply {
        let mut connection = self.connect().await;
        self.send_legacy(&mut connection, key, session, body).await;
        connection.reply().await
    }

    /// Opens a session and says it is ready.
    pub(crate) async fn session(&self, key: &str, capabilities: Value) -> String {
        let reply = self.legacy(key, None, &initialize(capabilities)).await;
        assert_eq!(reply.status(), 200, "{}", reply.body);
        let session = reply.head.header("mcp-session-id").expect("a session").to_owned();
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(self.legacy(key, Some(&session), &ready).await.status(), 202);
        session
    }
}

pub(crate) fn initialize(capabilities: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "it", "version": "1"}}})
}

pub(crate) fn request(id: u64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}
