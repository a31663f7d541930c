//! What each control of the gate costs, in microseconds per call, on one core: `cargo bench -p portcullis --bench controls`.
//! A call of a tool that does nothing but return a typical answer, whole and in its parts. What has no door of its own
//! (admission, profiles, the external policy) is the difference between two whole calls, one of them without it. Controls
//! that wait for a person, and the network of an external policy, cost what those take and are not here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind};
use portcullis_gateway::{
    Admission, ApprovalSettings, Approvals, CallRequest, CatalogueBuilder, Gateway, GatewayParts, LimitSettings, ProfileMode,
    Profiles, Rate, Recorder, RoadEnd, TokenLedger,
};
use portcullis_guard::{
    ArgumentSchema, RedactionSettings, Redactor, ReleaseSettings, Releaser, Sanitizer, StrictLimits, check_strict,
};
use portcullis_identity::{Identity, KeyRequest, KeyRing, Pepper, Presented, local_principal};
use portcullis_model::{Fault, Principal, RiskClass, SystemClock, TenantId, ToolName, ToolSpec, TraceContext};
use portcullis_policy::{
    Asked, Budget, ExternalDecision, ExternalInput, ExternalPolicy, Permit, Policies, PolicyText, Products, Vocabulary,
};
use portcullis_ports::{Arguments, Exchange, Outcome, Output, Tool};
use portcullis_state::MemoryStore;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

/// Calls per figure; a build without optimisations only shows that it runs.
const CALLS: u32 = if cfg!(debug_assertions) { 500 } else { 20_000 };
/// Longer than any figure takes.
const LONG: Duration = Duration::from_hours(1);
/// A rule about an argument, so that decisions cannot be remembered.
const RULE: &str = r#"@id("no-payment") forbid(principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"query_logs") when { context.arguments.service == "payment" };"#;

struct Answering(Arc<ToolSpec>);

#[async_trait]
impl Tool for Answering {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.0
    }

    async fn run(&self, _: &Permit, _: Arguments, _: &dyn Exchange) -> Result<Outcome, Fault> {
        Ok(answer())
    }
}

/// Log lines of a typical answer, about 3 KB as text and as rows.
const LINES: usize = 20;

fn answer_of(lines: usize) -> Outcome {
    let lines: Vec<String> = (0..lines)
        .map(|n| {
            format!("12:00:{:02}.250 error checkout payment of order 8812{n} failed after 3 attempts: upstream timed out", n % 60)
        })
        .collect();
    Output::structured(json!({"rows": lines}), lines.join("\n")).into()
}

fn answer() -> Outcome {
    answer_of(LINES)
}

fn spec() -> Arc<ToolSpec> {
    Arc::new(ToolSpec {
        name: ToolName::new("query_logs").unwrap(),
        title: "Query logs".into(),
        description: "a typical tool".into(),
        risk: RiskClass::Read,
        idempotent: true,
        open_world: false,
        category: None,
        input_schema: Arc::new(json!({"type": "object", "properties": {
            "service": {"type": "string", "maxLength": 200}, "text": {"type": "string", "maxLength": 500},
            "window": {"type": "string", "maxLength": 40}, "limit": {"type": "integer", "minimum": 1, "maximum": 500}}})),
        output_schema: None,
        completions: vec![],
        shown: None,
    })
}

struct Audit(AuditLog);

impl Recorder for Audit {
    fn record(&self, end: &RoadEnd) -> Result<(), String> {
        self.0.append(event(&self.0, end.arguments.as_ref())).map(|_| ()).map_err(|e| e.to_string())
    }
}

/// Keeps nothing: what a call costs without its record.
struct Forgetful;

impl Recorder for Forgetful {
    fn record(&self, _: &RoadEnd) -> Result<(), String> {
        Ok(())
    }
}

/// An external policy beside the house: asked in full, answers at once.
struct Agreeing;

#[async_trait]
impl ExternalPolicy for Agreeing {
    fn name(&self) -> &'static str {
        "bench"
    }

    async fn decide(&self, _: &Permit, input: &ExternalInput) -> ExternalDecision {
        black_box(input);
        ExternalDecision::Allow
    }
}

fn event(log: &AuditLog, arguments: Option<&Value>) -> AuditEvent {
    let event = AuditEvent::new(EventKind::Call).transport("http").method("tools/call").tool("query_logs");
    let event = event.client("192.0.2.7:50000".parse().ok()).decided(Decision::Allow, "reader-may-look").latency_us(900);
    match arguments {
        Some(arguments) => event.parameters(log.fingerprint(arguments)),
        None => event,
    }
}

/// Microseconds of one call, the best of five rounds: what the machine does beside is not the control's cost.
fn cost(mut work: impl FnMut()) -> f64 {
    let round = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        for _ in 0..CALLS / 5 {
            work();
        }
        began.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS / 5)
    };
    (0..5).map(|_| round(&mut work)).fold(f64::INFINITY, f64::min)
}

/// Everything the figures are taken from.
struct Bench {
    runtime: Runtime,
    clock: Arc<SystemClock>,
    store: Arc<MemoryStore>,
    keys: KeyRing,
    header: String,
    tool: Arc<ToolSpec>,
    arguments: Value,
    map: Map<String, Value>,
    releaser: Releaser,
    local: Principal,
}

/// What a whole call is measured with and without.
#[derive(Default)]
struct Parts {
    profiles: Option<Arc<Profiles>>,
    external: Option<Arc<dyn ExternalPolicy>>,
    recorder: Option<Arc<dyn Recorder>>,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let pepper = Pepper::in_memory().unwrap();
        let keys = runtime.block_on(KeyRing::open_with(store.clone(), clock.clone(), pepper, LONG)).unwrap();
        let made = runtime.block_on(keys.create(KeyRequest::new("bench", "reader", TenantId::default_tenant()))).unwrap();
        let arguments = json!({"service": "checkout", "text": "timed out", "window": "1h", "limit": 20});
        let Value::Object(map) = arguments.clone() else { panic!("an object") };
        let redactor = Redactor::with_settings(&RedactionSettings::default(), b"bench").unwrap();
        Self {
            header: format!("Bearer {}", made.secret.expose()),
            releaser: Releaser::with_settings(redactor, ReleaseSettings::default()).unwrap(),
            local: local_principal("bench", "reader").unwrap(),
            tool: spec(),
            runtime,
            clock,
            store,
            keys,
            arguments,
            map,
        }
    }

    fn policies(&self, texts: &[PolicyText]) -> Policies {
        Policies::load(texts, &Vocabulary::of_tools([&self.tool]), 1).unwrap()
    }

    fn arguing(&self) -> Policies {
        self.policies(&[PolicyText { origin: "bench".into(), text: RULE.into() }])
    }

    fn presented(&self) -> Presented<'_> {
        Presented::http(Some(&self.header), Some("127.0.0.1:5000".parse().unwrap()))
    }

    fn permit(&self, policies: &Policies) -> Permit {
        let asked = Asked { principal: &self.local, tool: &self.tool, arguments: &self.map, product: None };
        policies.authorize_call(asked, Instant::now() + LONG, Budget::default(), TraceContext::default()).unwrap()
    }

    fn request(&self, tool: &str) -> CallRequest {
        CallRequest { tool: tool.into(), arguments: Arguments(self.map.clone()), ..CallRequest::default() }
    }

    fn gateway(&self, parts: Parts) -> Gateway {
        let plenty = Rate::new(100_000_000, 100_000_000);
        let limits = LimitSettings {
            address: plenty,
            principal: plenty,
            tool: plenty,
            tenant: plenty,
            global: plenty,
            tokens_per_day: None,
            tenant_tokens_per_day: None,
            ..LimitSettings::default()
        };
        Gateway::new(GatewayParts {
            catalogue: CatalogueBuilder::new().tool(Arc::new(Answering(self.tool.clone()))).unwrap().build(),
            policies: self.arguing(),
            products: Products::default(),
            identity: Arc::new(Identity::new(Some(self.keys.clone()), self.local.clone(), self.clock.clone())),
            admission: Admission::new(limits, Arc::new(TokenLedger::unshared())),
            approvals: Approvals::new(self.store.clone(), self.clock.clone(), ApprovalSettings::default()),
            profiles: parts.profiles.unwrap_or_else(|| Arc::new(Profiles::off())),
            external: parts.external,
            releaser: self.releaser.clone(),
            recorder: parts.recorder.unwrap_or_else(|| Arc::new(Forgetful)),
            budget: Budget::default(),
        })
    }

    /// Microseconds of a whole call, identification apart.
    fn call(&self, gateway: &Gateway, tool: &str) -> f64 {
        let caller = self.runtime.block_on(gateway.identify(&self.presented())).unwrap();
        let call = || self.runtime.block_on(gateway.call(&caller, self.request(tool), Arc::new(())));
        let micros = cost(|| drop(black_box(call())));
        // A call that is refused on the way costs less and says nothing.
        assert_eq!(call().is_ok(), tool == self.tool.name.as_str(), "{tool} went another way than meant");
        micros
    }

    /// Profiles that know the caller and its tool, and refuse everything else.
    fn enforcing(&self) -> Arc<Profiles> {
        let open = |mode| self.runtime.block_on(Profiles::open(self.store.clone(), self.clock.clone(), mode)).unwrap();
        let observing = Arc::new(open(ProfileMode::Observe));
        let gateway = self.gateway(Parts { profiles: Some(observing.clone()), ..Parts::default() });
        let caller = self.runtime.block_on(gateway.identify(&self.presented())).unwrap();
        for _ in 0..CALLS {
            self.runtime.block_on(gateway.call(&caller, self.request("query_logs"), Arc::new(()))).unwrap();
        }
        self.runtime.block_on(observing.settle()).unwrap();
        for behaviour in self.runtime.block_on(observing.learned()).unwrap() {
            self.runtime.block_on(observing.accept(&behaviour.principal)).unwrap();
        }
        let enforcing = open(ProfileMode::Enforce);
        assert_eq!(enforcing.accepted_count(), 1, "the caller's profile is in force");
        Arc::new(enforcing)
    }
}

fn main() {
    let bench = Bench::new();
    let home = tempfile::tempdir().unwrap();
    let log = |name: &str| AuditLog::open(&home.path().join(name), bench.clock.clone()).unwrap();
    let alone = log("alone");
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "query_logs", "arguments": bench.arguments}});
    let body = body.to_string();
    let schema = ArgumentSchema::compile_with("query_logs", &bench.tool.input_schema, Sanitizer::default()).unwrap();
    let (plain, arguing) = (bench.policies(&[]), bench.arguing());
    let permit = bench.permit(&plain);
    let bare = bench.gateway(Parts::default());
    let presented = bench.presented();

    // Made beside the release of it, and taken off.
    let release = |lines: usize| {
        let made = cost(|| drop(black_box(answer_of(lines))));
        let both = cost(|| drop(black_box(bench.releaser.outcome(&permit, answer_of(lines)))));
        (both - made, bench.releaser.outcome(&permit, answer_of(lines)).unwrap().bytes() as f64 / 1_000.0)
    };
    let ((small, few), (large, many)) = (release(LINES), release(10 * LINES));
    let whole = bench.call(&bare, "query_logs");
    let unlike = |parts: Parts| bench.call(&bench.gateway(parts), "query_logs") - whole;

    let rows = [
        (
            "strict JSON (duplicate keys, depth, surrogates)".to_owned(),
            cost(|| drop(black_box(check_strict(body.as_bytes(), StrictLimits::default())))),
        ),
        (
            "identify: address rate and API key".into(),
            cost(|| drop(black_box(bench.runtime.block_on(bare.identify(&presented))))),
        ),
        ("find, admit, refuse: a tool that is not there".into(), bench.call(&bare, "no_such_tool")),
        ("arguments: schema and text rules".into(), cost(|| drop(black_box(schema.accept(&bench.arguments))))),
        ("policies, roles only".into(), cost(|| drop(black_box(bench.permit(&plain))))),
        ("policies, with a rule about an argument".into(), cost(|| drop(black_box(bench.permit(&arguing))))),
        ("profile in force, beside none".into(), unlike(Parts { profiles: Some(bench.enforcing()), ..Parts::default() })),
        (
            "external policy, beside none (without its network)".into(),
            unlike(Parts { external: Some(Arc::new(Agreeing)), ..Parts::default() }),
        ),
        (format!("release: redact, clean, frame {few:.1} KB"), small),
        ("release: each further KB".into(), (large - small) / (many - few)),
        (
            "audit: fingerprint, seal, chain, append".into(),
            cost(|| drop(black_box(alone.append(event(&alone, Some(&bench.arguments)))))),
        ),
        ("the whole call without its record".into(), whole),
        (
            "the whole call with it (identification apart)".into(),
            whole + unlike(Parts { recorder: Some(Arc::new(Audit(log("gate")))), ..Parts::default() }),
        ),
    ];
    println!("{:<52} {:>9}", "control", "us a call");
    for (name, micros) in rows {
        println!("{name:<52} {micros:>9.2}");
    }
}
