//! What is listed is what is not refused for who somebody is: tools, resources, families, prompts and completions, whatever the
//! role, the tenant, the confinement, the product and the rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use portcullis_gateway::{
    Admission, ApprovalSettings, Approvals, CallRequest, Caller, CatalogueBuilder, CompletionReference, Gateway, GatewayParts,
    GetPrompt, LimitSettings, LookupRequest, ProfileMode, Profiles, Rate, TokenLedger,
};
use portcullis_guard::{Redactor, Releaser};
use portcullis_identity::{Identity, KeyRequest, KeyRing, Pepper, Presented, local_principal};
use portcullis_model::{
    CompletionKind, Fault, FaultCode, NameSet, PromptArgument, PromptSpec, ResourceSpec, ResourceTemplateSpec, RiskClass, Scope,
    SystemClock, TenantId, ToolSpec, WriteCategory,
};
use portcullis_policy::{Budget, Permit, Policies, PolicyText, ProductSettings, Products, Vocabulary};
use portcullis_ports::{
    Arguments, Behind, Completer, Content, EmbeddedResource, Exchange, HOUSE, Outcome, Output, Prompt, PromptMessage,
    PromptOutput, Reading, ResourceOutput, ResourceReader, Role, Tool,
};
use portcullis_state::MemoryStore;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::house::{Memory, spec};

/// Whoever offers something: the house, or an extension that serves one tenant and cannot confine.
#[derive(Debug, Clone)]
struct Maker {
    name: &'static str,
    /// Its tenant, and whether it is open to who is confined; nothing where it is the house.
    extension: Option<(&'static str, bool)>,
}

const MAKERS: [Maker; 4] = [
    Maker { name: "own", extension: None },
    Maker { name: "acme", extension: Some(("acme", false)) },
    Maker { name: "open", extension: Some(("acme", true)) },
    Maker { name: "beta", extension: Some(("beta", false)) },
];

impl Maker {
    fn origin(&self) -> String {
        self.extension.map_or_else(|| HOUSE.to_owned(), |_| format!("upstream:{}", self.name))
    }

    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        let Some((tenant, open)) = self.extension else { return Ok(()) };
        let foreign = scope.tenant.as_str() != tenant || !scope.sources.contains(self.name);
        let confined = scope.restricts_records() || scope.look_back.is_some();
        if foreign || (confined && !open) { Err(Fault::new(FaultCode::Forbidden, "not served")) } else { Ok(()) }
    }

    /// Refuses as extensions do, in case the gate let it come this far.
    fn run(&self, permit: &Permit) -> Result<(), Fault> {
        self.serves(permit.scope())
    }

    fn tool(&self) -> String {
        format!("{}_look", self.name)
    }
}

struct Tooled(Maker, Arc<ToolSpec>);

#[async_trait]
impl Tool for Tooled {
    fn origin(&self) -> String {
        self.0.origin()
    }

    fn spec(&self) -> &Arc<ToolSpec> {
        &self.1
    }

    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        self.0.serves(scope)
    }

    async fn run(&self, permit: &Permit, _: Arguments, _: &dyn Exchange) -> Result<Outcome, Fault> {
        self.0.run(permit)?;
        Ok(Output::text("looked").into())
    }
}

/// A fixed address, a family, and behind the house's own the house's own tool.
struct Shelf(Maker);

impl Shelf {
    fn about(&self) -> String {
        format!("{}://about", self.0.name)
    }

    fn family(&self) -> String {
        format!("{}://by-id/{{id}}", self.0.name)
    }
}

#[async_trait]
impl ResourceReader for Shelf {
    fn origin(&self) -> String {
        self.0.origin()
    }

    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        self.0.serves(scope)
    }

    fn behind(&self, address: &str) -> Option<Behind> {
        let id = address.strip_prefix("own://by-id/")?;
        let arguments = Map::from_iter([("text".to_owned(), json!(id))]);
        let exact = Behind::Call(Reading { tool: self.0.tool(), arguments: Arguments(arguments) });
        Some(if id.contains('{') { Behind::Tool(self.0.tool()) } else { exact })
    }

    fn resources(&self) -> Vec<Arc<ResourceSpec>> {
        let spec = ResourceSpec {
            uri: self.about().into(),
            name: "about".into(),
            title: None,
            description: None,
            mime_type: None,
            shown: None,
        };
        vec![Arc::new(spec)]
    }

    fn templates(&self) -> Vec<Arc<ResourceTemplateSpec>> {
        let spec = ResourceTemplateSpec {
            uri_template: self.family().into(),
            name: "by id".into(),
            title: None,
            description: None,
            mime_type: None,
            completions: vec![("id".into(), CompletionKind::Fixed(vec!["one".into(), "two".into()]))],
            shown: None,
        };
        vec![Arc::new(spec)]
    }

    fn owns(&self, uri: &str) -> bool {
        uri.starts_with(&format!("{}://", self.0.name))
    }

    async fn read(&self, permit: &Permit, uri: &str, _: &dyn Exchange) -> Result<ResourceOutput, Fault> {
        self.0.run(permit)?;
        let contents = EmbeddedResource { uri: uri.into(), mime_type: None, data: "text".into(), binary: false, meta: None };
        Ok(ResourceOutput::Contents(vec![contents]))
    }
}

struct Asked(Maker, Arc<PromptSpec>);

#[async_trait]
impl Prompt for Asked {
    fn origin(&self) -> String {
        self.0.origin()
    }

    fn spec(&self) -> &Arc<PromptSpec> {
        &self.1
    }

    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        self.0.serves(scope)
    }

    fn tools(&self) -> Vec<String> {
        vec![self.0.tool()]
    }

    async fn render(&self, permit: &Permit, _: Arguments, _: &dyn Exchange) -> Result<PromptOutput, Fault> {
        self.0.run(permit)?;
        let messages = vec![PromptMessage { role: Role::User, content: Content::Text("look".into()) }];
        Ok(PromptOutput::Messages { description: None, messages })
    }
}

/// Values that the house's own tool lists.
struct Values;

#[async_trait]
impl Completer for Values {
    fn behind(&self, kind: &CompletionKind) -> Option<Behind> {
        let reading = Reading { tool: "own_look".into(), arguments: Arguments(Map::from_iter([("text".into(), json!("all"))])) };
        (*kind == CompletionKind::Service).then_some(Behind::Call(reading))
    }

    async fn complete(&self, _: &Permit, _: &CompletionKind, _: &str) -> Result<Vec<String>, Fault> {
        Ok(vec!["cart".into()])
    }
}

fn prompt(maker: &Maker) -> Arc<PromptSpec> {
    Arc::new(PromptSpec {
        name: format!("{}_ask", maker.name).into(),
        title: "Ask".into(),
        description: "asks".into(),
        arguments: vec![PromptArgument {
            name: "service".into(),
            description: "which".into(),
            required: false,
            completion: Some(CompletionKind::Service),
        }],
        shown: None,
    })
}

/// Rules that hit some of it.
const RULES: [&str; 10] = [
    r#"@id("r0") forbid(principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"own_look");"#,
    r#"@id("r1") forbid(principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"open_look")
       when { context.arguments.text == "x" };"#,
    r#"@id("r2") forbid(principal, action == Portcullis::Action::"read", resource) when { resource.name like "open://*" };"#,
    r#"@id("r3") forbid(principal, action == Portcullis::Action::"prompt", resource == Portcullis::Prompt::"own_ask");"#,
    r#"@id("r4") permit(principal in Portcullis::Role::"intern", action == Portcullis::Action::"read",
       resource == Portcullis::Resource::"own://by-id/one");"#,
    r#"@id("r5") @only_limits("true") @services("cart") permit(principal, action == Portcullis::Action::"call", resource);"#,
    r#"@id("r6") @only_limits("true") @sources("open") permit(principal, action == Portcullis::Action::"read", resource);"#,
    r#"@id("r7") @only_limits("true") @max_look_back("1h")
       permit(principal in Portcullis::Role::"reader", action == Portcullis::Action::"prompt", resource);"#,
    r#"@id("r8") permit(principal in Portcullis::Role::"intern", action == Portcullis::Action::"call", resource);"#,
    r#"@id("r9") forbid(principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"own_look")
       when { context.arguments.text == "one" };"#,
];

/// Products that bundle some of it.
const PRODUCTS: [&str; 5] = [
    r#"{"name": "all", "tools": ["*"], "resources": ["*"], "prompts": ["*"]}"#,
    r#"{"name": "quiet", "tools": ["*_look"]}"#,
    r#"{"name": "narrow", "tools": ["open_look", "own_look"], "resources": ["o*://by-id/one"], "prompts": ["open_*"]}"#,
    r#"{"name": "sourced", "tools": ["acme_look", "open_look"], "resources": ["*"], "prompts": ["*"], "sources": ["acme"]}"#,
    r#"{"name": "confined", "tools": ["*"], "resources": ["*"], "prompts": [], "services": ["cart"]}"#,
];

/// Who asks: role, tenant, sources, services, look-back.
type Who = (&'static str, &'static str, Option<&'static str>, bool, bool);

struct Bench {
    gateway: Gateway,
    memory: Arc<Memory>,
    key: String,
}

async fn bench(rules: &[usize], who: Who, writes: bool) -> Bench {
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let ring = KeyRing::open(store.clone(), clock.clone(), Pepper::in_memory().unwrap()).await.unwrap();
    let (role, tenant, source, confined, recent) = who;
    let mut request = KeyRequest::new("k", role, TenantId::new(tenant).unwrap());
    request.sources = source.map_or(NameSet::All, |source| NameSet::only([source]));
    request.services = if confined { NameSet::only(["cart"]) } else { NameSet::All };
    request.look_back = recent.then(|| std::time::Duration::from_hours(1));
    let key = ring.create(request).await.unwrap().secret.expose().to_owned();
    ring.refresh().await.unwrap();
    let mut builder = CatalogueBuilder::new().completer(Arc::new(Values));
    for maker in MAKERS {
        let looking = spec(&maker.tool(), RiskClass::Read, None);
        let writing = spec(&format!("{}_write", maker.name), RiskClass::Write, Some("workloads"));
        for spec in [looking, writing] {
            builder = builder.tool(Arc::new(Tooled(maker.clone(), spec))).unwrap();
        }
        let asked = Arc::new(Asked(maker.clone(), prompt(&maker)));
        builder = builder.resources(Arc::new(Shelf(maker))).prompt(asked).unwrap();
    }
    let catalogue = builder.build();
    let mut vocabulary = Vocabulary {
        enabled_writes: writes.then(|| WriteCategory("workloads".into())).into_iter().collect(),
        roles: ["intern".to_owned()].into(),
        sources: Some(["acme", "open", "beta"].map(str::to_owned).into()),
        ..Vocabulary::of_tools(catalogue.tool_specs())
    };
    let settings = PRODUCTS.map(|text| serde_json::from_str::<ProductSettings>(text).unwrap());
    let products = Products::load(&settings, &vocabulary).unwrap();
    vocabulary.products = products.tools();
    let text = rules.iter().map(|rule| RULES[*rule]).collect::<String>();
    let memory = Arc::new(Memory::default());
    let limits = LimitSettings::all_at(Rate::new(100_000, 100_000));
    let gateway = Gateway::new(GatewayParts {
        catalogue,
        policies: Policies::load(&[PolicyText { origin: "test".into(), text }], &vocabulary, 1).unwrap(),
        products,
        identity: Arc::new(Identity::new(Some(ring), local_principal("tester", "admin").unwrap(), clock.clone())),
        admission: Admission::new(limits, Arc::new(TokenLedger::shared(store.clone(), clock.clone()))),
        approvals: Approvals::new(store.clone(), clock.clone(), ApprovalSettings::default()),
        profiles: Arc::new(Profiles::open(store, clock, ProfileMode::Off).await.unwrap()),
        external: None,
        releaser: Releaser::new(Redactor::new().unwrap()),
        recorder: memory.clone(),
        budget: Budget::default(),
    });
    Bench { gateway, memory, key }
}

fn object(value: Value) -> Arguments {
    let Value::Object(members) = value else { panic!("arguments are an object") };
    Arguments(members)
}

/// How one use of something ended.
#[derive(Debug, PartialEq)]
enum End {
    /// It was done, or would be with another argument.
    There,
    /// As if it did not exist.
    Missing,
    /// Refused by whoever offers it: what must not come to pass, for then a list shows it to somebody it never serves.
    Refused(String),
}

impl Bench {
    async fn caller(&self, product: Option<&str>) -> Caller {
        let authorization = format!("Bearer {}", self.key);
        let presented = Presented::http(Some(&authorization), Some("127.0.0.1:5000".parse().unwrap()));
        let caller = self.gateway.identify(&presented).await.unwrap();
        match product {
            Some(product) => self.gateway.within_product(caller, product).unwrap(),
            None => caller,
        }
    }

    fn ended(&self, code: Option<FaultCode>) -> End {
        let end = self.memory.records.lock().unwrap().last().cloned().unwrap();
        match code {
            None => End::There,
            Some(FaultCode::NotFound) => {
                assert!(!end.allowed, "what is missing is a refusal in the record");
                End::Missing
            }
            // A rule about the arguments of this call.
            Some(_) if matches!(&*end.rule, "r1" | "r9") => End::There,
            Some(code) => End::Refused(format!("{} by {}", code.as_str(), end.rule)),
        }
    }

    async fn call(&self, caller: &Caller, tool: &str) -> End {
        let request = CallRequest { tool: tool.into(), arguments: object(json!({"text": "x"})), ..CallRequest::default() };
        self.ended(self.gateway.call(caller, request, Arc::new(())).await.err().map(|fault| fault.get().code))
    }

    async fn read(&self, caller: &Caller, uri: &str) -> End {
        let request = LookupRequest { uri: uri.into(), ..LookupRequest::default() };
        self.ended(self.gateway.read(caller, request, Arc::new(())).await.err().map(|fault| fault.get().code))
    }

    async fn get(&self, caller: &Caller, name: &str) -> End {
        let request = GetPrompt { name: name.into(), ..GetPrompt::default() };
        self.ended(self.gateway.prompt(caller, request, Arc::new(())).await.err().map(|fault| fault.get().code))
    }

    async fn complete(&self, caller: &Caller, reference: CompletionReference<'_>, argument: &str) -> (End, Vec<String>) {
        let completed = self.gateway.complete(caller, reference, (argument, ""), Arguments::default()).await;
        let values = completed.as_ref().map(|suggestions| suggestions.get().values.clone()).unwrap_or_default();
        (self.ended(completed.err().map(|fault| fault.get().code)), values)
    }
}

fn who() -> impl Strategy<Value = Who> {
    let pick = proptest::sample::select::<&'static str>;
    (
        pick(vec!["reader", "operator", "admin", "intern"]),
        pick(vec!["acme", "beta"]),
        proptest::option::of(pick(vec!["acme", "open", "beta"])),
        any::<bool>(),
        any::<bool>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn listed_is_not_refused_for_who_somebody_is(
        rules in proptest::sample::subsequence((0..RULES.len()).collect::<Vec<_>>(), 0..4), who in who(), writes in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = bench(&rules, who, writes).await;
            let there = |listed: bool| if listed { End::There } else { End::Missing };
            for product in [None, Some("all"), Some("quiet"), Some("narrow"), Some("sourced"), Some("confined")] {
                let caller = bench.caller(product).await;
                let gateway = &bench.gateway;
                let tools: BTreeSet<String> = gateway.tools(&caller).await.unwrap().get().iter().map(|t| t.name.to_string()).collect();
                let fixed: BTreeSet<String> = gateway.resources(&caller).await.unwrap().get().iter().map(|r| r.uri.to_string()).collect();
                let families: BTreeSet<String> =
                    gateway.templates(&caller).await.unwrap().get().iter().map(|t| t.uri_template.to_string()).collect();
                let prompts: BTreeSet<String> = gateway.prompts(&caller).await.unwrap().get().iter().map(|p| p.name.to_string()).collect();
                for maker in MAKERS {
                    for tool in [maker.tool(), format!("{}_write", maker.name)] {
                        prop_assert_eq!(bench.call(&caller, &tool).await, there(tools.contains(&tool)), "{} at {:?}", tool, product);
                    }
                    let shelf = Shelf(maker.clone());
                    let about = shelf.about();
                    prop_assert_eq!(bench.read(&caller, &about).await, there(fixed.contains(&about)), "{} at {:?}", about, product);
                    prop_assert_eq!(gateway.may_read(&caller, &about), fixed.contains(&about));
                    // A family is listed where one of its members can be read, and it completes what can be read.
                    let mut readable = Vec::new();
                    for id in ["one", "two"] {
                        let end = bench.read(&caller, &format!("{}://by-id/{id}", maker.name)).await;
                        prop_assert!(!matches!(end, End::Refused(_)), "{} {} at {:?}: {:?}", maker.name, id, product, end);
                        if end == End::There {
                            readable.push(id.to_owned());
                        }
                    }
                    let family = shelf.family();
                    let (end, values) = bench.complete(&caller, CompletionReference::Template(&family), "id").await;
                    prop_assert_eq!(end, there(families.contains(&family)), "{} at {:?}", family, product);
                    prop_assert_eq!(&values, &readable, "{} at {:?}", family, product);
                    prop_assert!(readable.is_empty() || families.contains(&family), "{} at {:?}", family, product);
                    let name = format!("{}_ask", maker.name);
                    prop_assert_eq!(bench.get(&caller, &name).await, there(prompts.contains(&name)), "{} at {:?}", name, product);
                    // Its values are what the house's own tool lists.
                    let (end, _) = bench.complete(&caller, CompletionReference::Prompt(&name), "service").await;
                    let both = prompts.contains(&name) && tools.contains("own_look");
                    prop_assert_eq!(end, there(both), "values of {} at {:?}", name, product);
                }
            }
            Ok(())
        })?;
    }
}
