//! A small house: one fake tool of each risk, a recorder that remembers, two keys.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use portcullis_gateway::{
    Admission, ApprovalSettings, Approvals, CatalogueBuilder, Gateway, GatewayParts, LimitSettings, ProfileMode, Profiles,
    Recorder, RoadEnd, TokenLedger,
};
use portcullis_guard::{Redactor, Releaser};
use portcullis_identity::{Identity, KeyRequest, KeyRing, Pepper, Presented, local_principal};
use portcullis_model::{
    CompletionKind, Fault, PromptArgument, PromptSpec, ResourceSpec, ResourceTemplateSpec, RiskClass, SystemClock, TenantId,
    ToolName, ToolSpec, WriteCategory,
};
use portcullis_policy::{Budget, ExternalPolicy, Permit, Policies, PolicyText, Products, Vocabulary};
use portcullis_ports::{
    Arguments, Content, EmbeddedResource, Exchange, Outcome, Output, Prompt, PromptMessage, PromptOutput, ResourceOutput,
    ResourceReader, Role, Tool,
};
use portcullis_state::MemoryStore;
use serde_json::json;

/// Remembers records; can be told to fail.
#[derive(Default)]
pub(crate) struct Memory {
    pub records: Mutex<Vec<RoadEnd>>,
    pub broken: std::sync::atomic::AtomicBool,
    /// Nothing may begin: what is recorded now would not be written later.
    pub held: std::sync::atomic::AtomicBool,
}

impl Recorder for Memory {
    fn record(&self, end: &RoadEnd) -> Result<(), String> {
        if self.broken.load(std::sync::atomic::Ordering::SeqCst) {
            return Err("disk full".into());
        }
        self.records.lock().unwrap().push(end.clone());
        Ok(())
    }

    fn intend(&self, call: &RoadEnd) -> Result<Option<Arc<str>>, String> {
        self.record(call)?;
        Ok(Some(Arc::from(format!("memory/{}", self.records.lock().unwrap().len()))))
    }

    fn may_begin(&self, _: RiskClass) -> Result<(), String> {
        if self.held.load(std::sync::atomic::Ordering::SeqCst) { Err("a required sink is behind".into()) } else { Ok(()) }
    }
}

pub(crate) struct Fake(pub Arc<ToolSpec>);

#[async_trait]
impl Tool for Fake {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.0
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let text = arguments.0.get("text").and_then(|t| t.as_str()).unwrap_or_default().to_owned();
        match text.as_str() {
            "sleep" => {
                tokio::time::sleep(Duration::from_mins(10)).await;
                Ok(Output::text("late").into())
            }
            "fail" => Err(Fault::backend("the backend failed", "http://10.0.0.1/?password=hunter2 said no")),
            "huge" => Ok(Output::text("x".repeat(300_000)).into()),
            "progress" => {
                exchange.progress(1.0, None, "using token=abcdef123456");
                Ok(Output::text("done").into())
            }
            _ => Ok(Output::structured(
                json!({"password": text, "who": permit.principal_id().as_str()}),
                format!("password={text}"),
            )
            .into()),
        }
    }
}

pub(crate) fn spec(name: &str, risk: RiskClass, category: Option<&str>) -> Arc<ToolSpec> {
    Arc::new(ToolSpec {
        name: ToolName::new(name).unwrap(),
        title: name.into(),
        description: "a fake".into(),
        risk,
        idempotent: true,
        open_world: false,
        category: category.map(|c| WriteCategory(c.into())),
        input_schema: Arc::new(
            json!({"type": "object", "properties": {"text": {"type": "string", "maxLength": 100}}, "required": ["text"]}),
        ),
        output_schema: None,
        completions: vec![],
        shown: None,
    })
}

pub(crate) struct House {
    pub gateway: Arc<Gateway>,
    pub memory: Arc<Memory>,
    pub reader: String,
    pub operator: String,
    pub admin: String,
    pub approvals: Approvals,
    pub profiles: Arc<Profiles>,
}

pub(crate) async fn house(limits: LimitSettings, enabled: &[&str]) -> House {
    watched_house(limits, enabled, ProfileMode::Off).await
}

pub(crate) async fn watched_house(limits: LimitSettings, enabled: &[&str], mode: ProfileMode) -> House {
    house_with(limits, enabled, mode, None, "").await
}

/// A shelf with one book, a family of shelves, a prompt, and completions for both.
struct Shelf;

#[async_trait]
impl ResourceReader for Shelf {
    fn resources(&self) -> Vec<Arc<ResourceSpec>> {
        vec![Arc::new(ResourceSpec {
            uri: "shop://about".into(),
            name: "about".into(),
            title: None,
            description: None,
            mime_type: None,
            shown: None,
        })]
    }

    fn templates(&self) -> Vec<Arc<ResourceTemplateSpec>> {
        vec![Arc::new(ResourceTemplateSpec {
            uri_template: "shop://services/{name}".into(),
            name: "service".into(),
            title: None,
            description: None,
            mime_type: None,
            completions: vec![("name".into(), CompletionKind::Fixed(vec!["cart".into(), "checkout".into()]))],
            shown: None,
        })]
    }

    fn owns(&self, uri: &str) -> bool {
        uri.starts_with("shop://")
    }

    async fn read(&self, permit: &Permit, uri: &str, _: &dyn Exchange) -> Result<ResourceOutput, Fault> {
        permit.trail().reached("shelf");
        permit.trail().reached("host:https://shelf.example:443");
        if uri == "shop://services/broken" {
            return Err(Fault::backend("the backend failed", "said no"));
        }
        let contents = EmbeddedResource { uri: uri.into(), mime_type: None, data: "a shelf".into(), binary: false, meta: None };
        Ok(ResourceOutput::Contents(vec![contents]))
    }
}

struct Triage(Arc<PromptSpec>);

#[async_trait]
impl Prompt for Triage {
    fn spec(&self) -> &Arc<PromptSpec> {
        &self.0
    }

    async fn render(&self, _: &Permit, _: Arguments, _: &dyn Exchange) -> Result<PromptOutput, Fault> {
        let messages = vec![PromptMessage { role: Role::User, content: Content::Text("look at it".into()) }];
        Ok(PromptOutput::Messages { description: None, messages })
    }
}

pub(crate) async fn house_with(
    limits: LimitSettings,
    enabled: &[&str],
    mode: ProfileMode,
    external: Option<Arc<dyn ExternalPolicy>>,
    rules: &str,
) -> House {
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let keys = KeyRing::open(store.clone(), clock.clone(), Pepper::in_memory().unwrap()).await.unwrap();
    let tenant = TenantId::default_tenant();
    let reader = keys.create(KeyRequest::new("r", "reader", tenant.clone())).await.unwrap().secret.expose().to_owned();
    let operator = keys.create(KeyRequest::new("o", "operator", tenant.clone())).await.unwrap().secret.expose().to_owned();
    let admin = keys.create(KeyRequest::new("a", "admin", tenant)).await.unwrap().secret.expose().to_owned();
    keys.refresh().await.unwrap();
    let approvals = Approvals::new(store.clone(), clock.clone(), ApprovalSettings::default());
    let profiles = Arc::new(Profiles::open(store.clone(), clock.clone(), mode).await.unwrap());
    let local = local_principal("tester", "admin").unwrap();
    let mut catalogue = CatalogueBuilder::new();
    for tool in [
        spec("look", RiskClass::Read, None),
        spec("restart", RiskClass::Write, Some("workloads")),
        spec("wipe", RiskClass::Destructive, Some("workloads")),
    ] {
        catalogue = catalogue.tool(Arc::new(Fake(tool))).unwrap();
    }
    let triage = PromptSpec {
        name: "triage".into(),
        title: "Triage".into(),
        description: "look at a service".into(),
        arguments: vec![PromptArgument {
            name: "service".into(),
            description: "which".into(),
            required: true,
            completion: Some(CompletionKind::Fixed(vec!["cart".into()])),
        }],
        shown: None,
    };
    let catalogue = catalogue.prompt(Arc::new(Triage(Arc::new(triage)))).unwrap().resources(Arc::new(Shelf)).build();
    let vocabulary = Vocabulary {
        tools: catalogue.tool_names(),
        enabled_writes: enabled.iter().map(|c| WriteCategory((*c).into())).collect(),
        ..Vocabulary::default()
    };
    let rules = (!rules.is_empty()).then(|| PolicyText { origin: "test".into(), text: rules.to_owned() });
    let texts: Vec<PolicyText> = rules.into_iter().collect();
    let memory = Arc::new(Memory::default());
    let gateway = Arc::new(Gateway::new(GatewayParts {
        catalogue,
        policies: Policies::load(&texts, &vocabulary, 1).unwrap(),
        products: Products::default(),
        identity: Arc::new(Identity::new(Some(keys), local, clock)),
        admission: Admission::new(limits, Arc::new(TokenLedger::shared(store, Arc::new(SystemClock)))),
        approvals: approvals.clone(),
        profiles: profiles.clone(),
        external,
        releaser: Releaser::new(Redactor::new().unwrap()),
        recorder: memory.clone(),
        budget: Budget::default(),
    }));
    House { gateway, memory, reader, operator, admin, approvals, profiles }
}

impl House {
    pub(crate) async fn caller(&self, key: &str) -> portcullis_gateway::Caller {
        let authorization = format!("Bearer {key}");
        let peer = Some("127.0.0.1:5000".parse().unwrap());
        let presented = Presented::http(Some(&authorization), peer);
        self.gateway.identify(&presented).await.unwrap()
    }

    pub(crate) fn last(&self) -> RoadEnd {
        self.memory.records.lock().unwrap().last().cloned().expect("a record")
    }
}
