//! A gate with keys and no tools, a recorder that remembers, and a steward who answers at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Extensions, Request, Response};
use portcullis_config::TrustedProxies;
use portcullis_console::{
    AuditQuestion, Check, ConsoleParts, ConsoleSettings, MeasuredRecorder, Metrics, Sample, Steward, router,
};
use portcullis_gateway::{
    Admission, ApprovalSettings, Approvals, CatalogueBuilder, Gateway, GatewayParts, LimitSettings, ProfileMode, Profiles,
    Recorder, RoadEnd, TokenLedger,
};
use portcullis_guard::{Redactor, Releaser};
use portcullis_identity::{Door, Identity, KeyRequest, KeyRing, Pepper, local_principal};
use portcullis_model::{Fault, FaultCode, Principal, SystemClock, TenantId};
use portcullis_policy::{Budget, Policies, Products, Vocabulary};
use portcullis_state::MemoryStore;
use portcullis_wire::{Refusals, RequestRefusal, Visitor};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Remembers records; can be told to fail.
#[derive(Default)]
pub(crate) struct Memory {
    pub records: Mutex<Vec<RoadEnd>>,
    pub broken: AtomicBool,
}

impl Recorder for Memory {
    fn record(&self, end: &RoadEnd) -> Result<(), String> {
        if self.broken.load(Ordering::SeqCst) {
            return Err("disk full".into());
        }
        self.records.lock().unwrap().push(end.clone());
        Ok(())
    }

    fn may_begin(&self, _: portcullis_model::RiskClass) -> Result<(), String> {
        if self.broken.load(Ordering::SeqCst) { Err("disk full".into()) } else { Ok(()) }
    }
}

/// Remembers the rules by which requests were refused before anybody was known.
#[derive(Default)]
pub(crate) struct TurnedAway(pub Mutex<Vec<&'static str>>);

impl Refusals for TurnedAway {
    fn refused(&self, refusal: RequestRefusal<'_>) {
        self.0.lock().unwrap().push(refusal.rule);
    }
}

/// Answers at once; remembers what was changed and in whose name.
#[derive(Default)]
pub(crate) struct Fake {
    pub changed: Mutex<Vec<(String, String)>>,
    pub unwell: AtomicBool,
}

#[async_trait]
impl Steward for Fake {
    fn readiness(&self) -> Vec<Check> {
        let audit = if self.unwell.load(Ordering::SeqCst) { Err("the disk is full".to_owned()) } else { Ok(()) };
        vec![Check::new("audit", audit)]
    }
    async fn sample(&self) -> Sample {
        Sample::default()
    }
    async fn status(&self) -> Result<Value, Fault> {
        Ok(json!({"lines": []}))
    }
    async fn sources(&self) -> Result<Value, Fault> {
        Err(Fault::new(FaultCode::Unavailable, "not now").with_internal("postgres://user:password@10.0.0.1"))
    }
    async fn approvals(&self) -> Result<Value, Fault> {
        Ok(json!({"approvals": []}))
    }
    async fn decide(&self, who: &Principal, id: &str, granted: bool) -> Result<Value, Fault> {
        self.changed.lock().unwrap().push((who.id.to_string(), format!("{id}:{granted}")));
        Ok(json!({"id": id}))
    }
    async fn audit(&self, question: AuditQuestion) -> Result<Value, Fault> {
        Ok(json!({"records": [{"client": "203.0.113.9:1", "key": "abcdefghij", "note": "a\u{202e}10.0.0.7b by anna@example.org"},
                {"note": "password=hunter2hunter2"}], "asked": question.principal}))
    }
    async fn keys(&self) -> Result<Value, Fault> {
        Ok(json!({"keys": "x".repeat(5 << 20)}))
    }
    async fn revoke_key(&self, who: &Principal, id: &str) -> Result<Value, Fault> {
        self.changed.lock().unwrap().push((who.id.to_string(), id.to_owned()));
        Ok(json!({"id": id}))
    }
}

pub(crate) struct House {
    pub router: Router,
    pub memory: Arc<Memory>,
    pub steward: Arc<Fake>,
    pub turned_away: Arc<TurnedAway>,
    pub admin: String,
    pub reader: String,
    pub scraper: String,
}

/// Where requests come from.
pub(crate) const NEAR: &str = "127.0.0.1:50000";
pub(crate) const FAR: &str = "203.0.113.7:50000";

pub(crate) async fn house(settings: ConsoleSettings, limits: LimitSettings) -> House {
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let keys = KeyRing::open(store.clone(), clock.clone(), Pepper::in_memory().unwrap()).await.unwrap();
    let make = async |role: &str, door: Door| {
        let request = KeyRequest { doors: [door].into(), ..KeyRequest::new("k", role, TenantId::default_tenant()) };
        keys.create(request).await.unwrap().secret.expose().to_owned()
    };
    let (admin, reader) = (make("admin", Door::Admin).await, make("reader", Door::Admin).await);
    let scraper = make("reader", Door::Metrics).await;
    keys.refresh().await.unwrap();
    let catalogue = CatalogueBuilder::new().build();
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    let memory = Arc::new(Memory::default());
    let metrics = Arc::new(Metrics::new());
    let identity = Identity::new(Some(keys), local_principal("tester", "admin").unwrap(), clock.clone());
    let gateway = Gateway::new(GatewayParts {
        catalogue,
        policies,
        products: Products::default(),
        identity: Arc::new(identity),
        admission: Admission::new(limits, Arc::new(TokenLedger::unshared())),
        approvals: Approvals::new(store.clone(), clock.clone(), ApprovalSettings::default()),
        profiles: Arc::new(Profiles::open(store, clock, ProfileMode::Off).await.unwrap()),
        external: None,
        releaser: Releaser::new(Redactor::new().unwrap()),
        recorder: Arc::new(MeasuredRecorder::new(memory.clone(), metrics.clone())),
        budget: Budget::default(),
    });
    let (steward, turned_away) = (Arc::new(Fake::default()), Arc::new(TurnedAway::default()));
    let router = router(ConsoleParts {
        gateway: Arc::new(gateway),
        steward: steward.clone(),
        metrics,
        refusals: turned_away.clone(),
        settings,
    });
    House { router, memory, steward, turned_away, admin, reader, scraper }
}

impl House {
    pub(crate) async fn send(
        &self,
        request: axum::http::request::Builder,
        peer: &str,
        body: impl Into<Body>,
    ) -> (u16, String, Response<()>) {
        let mut request: Request<Body> = request.header("Host", "localhost").body(body.into()).unwrap();
        let (known, proxies) = (Extensions::default(), TrustedProxies::default());
        request.extensions_mut().insert(Visitor { peer: peer.parse().unwrap(), secured: false, known, proxies });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 16 << 20).await.unwrap();
        (parts.status.as_u16(), String::from_utf8(bytes.to_vec()).unwrap(), Response::from_parts(parts, ()))
    }

    pub(crate) async fn get(&self, path: &str, key: Option<&str>) -> (u16, String) {
        let mut request = Request::get(path);
        if let Some(key) = key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let (status, body, _) = self.send(request, NEAR, Body::empty()).await;
        (status, body)
    }

    /// The rules of the refusals that were recorded.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.memory.records.lock().unwrap().iter().filter(|end| !end.allowed).map(|end| end.rule.to_string()).collect()
    }
}
