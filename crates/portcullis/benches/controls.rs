//! What each control of the gate costs, in microseconds per call, on one core: `cargo bench -p portcullis --bench controls`.
//! A call of a tool that does nothing but return a typical answer, whole and in its parts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind};
use portcullis_gateway::{
    Admission, ApprovalSettings, Approvals, CallRequest, CatalogueBuilder, Gateway, GatewayParts, LimitSettings, Profiles, Rate,
    Recorder, RoadEnd, TokenLedger,
};
use portcullis_guard::{
    ArgumentSchema, RedactionSettings, Redactor, ReleaseSettings, Releaser, Sanitizer, StrictLimits, check_strict,
};
use portcullis_identity::{Identity, KeyRequest, KeyRing, Pepper, Presented, local_principal};
use portcullis_model::{Fault, RiskClass, SystemClock, TenantId, ToolName, ToolSpec, TraceContext};
use portcullis_policy::{Asked, Budget, Permit, Policies, PolicyText, Products, Vocabulary};
use portcullis_ports::{Arguments, Exchange, Outcome, Output, Tool};
use portcullis_state::MemoryStore;
use serde_json::{Value, json};

/// Calls per figure.
const CALLS: u32 = 20_000;
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

/// Twenty log lines as text and as rows: about 3 KB.
fn answer() -> Outcome {
    let lines: Vec<String> = (0..20)
        .map(|n| format!("12:00:{n:02}.250 error checkout payment of order 8812{n} failed after 3 attempts: upstream timed out"))
        .collect();
    Output::structured(json!({"rows": lines}), lines.join("\n")).into()
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

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let long = Duration::from_hours(1);
    let keys = runtime.block_on(KeyRing::open_with(store.clone(), clock.clone(), Pepper::in_memory().unwrap(), long)).unwrap();
    let made = runtime.block_on(keys.create(KeyRequest::new("bench", "reader", TenantId::default_tenant()))).unwrap();
    let header = format!("Bearer {}", made.secret.expose());
    let peer = Some("127.0.0.1:5000".parse().unwrap());
    let arguments = json!({"service": "checkout", "text": "timed out", "window": "1h", "limit": 20});
    let Value::Object(map) = arguments.clone() else { panic!("an object") };
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "query_logs", "arguments": arguments}});
    let body = body.to_string();
    let tool = spec();
    let schema = ArgumentSchema::compile_with("query_logs", &tool.input_schema, Sanitizer::default()).unwrap();
    let vocabulary = Vocabulary::of_tools([&tool]);
    let texts = [PolicyText { origin: "bench".into(), text: RULE.into() }];
    let policies = |texts: &[PolicyText]| Policies::load(texts, &vocabulary, 1).unwrap();
    let (plain, arguing) = (policies(&[]), policies(&texts));
    let releaser = Releaser::with_settings(
        Redactor::with_settings(&RedactionSettings::default(), b"bench").unwrap(),
        ReleaseSettings::default(),
    )
    .unwrap();
    let home = tempfile::tempdir().unwrap();
    let log = AuditLog::open(&home.path().join("alone"), clock.clone()).unwrap();
    let local = local_principal("bench", "reader").unwrap();
    let budget = Budget::default();
    let permit_of = |policies: &Policies| {
        let asked = Asked { principal: &local, tool: &tool, arguments: &map, product: None };
        policies.authorize_call(asked, Instant::now() + long, budget, TraceContext::default()).unwrap()
    };
    let permit = permit_of(&plain);
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
    let gateway = Gateway::new(GatewayParts {
        catalogue: CatalogueBuilder::new().tool(Arc::new(Answering(tool.clone()))).unwrap().build(),
        policies: policies(&texts),
        products: Products::default(),
        identity: Arc::new(Identity::new(Some(keys), local.clone(), clock.clone())),
        admission: Admission::new(limits, Arc::new(TokenLedger::unshared())),
        approvals: Approvals::new(store, clock.clone(), ApprovalSettings::default()),
        profiles: Arc::new(Profiles::off()),
        external: None,
        releaser: releaser.clone(),
        recorder: Arc::new(Audit(AuditLog::open(&home.path().join("gate"), clock).unwrap())),
        budget,
    });
    let presented = Presented::http(Some(&header), peer);
    let caller = runtime.block_on(gateway.identify(&presented)).unwrap();
    let request = || CallRequest { tool: "query_logs".into(), arguments: Arguments(map.clone()), ..CallRequest::default() };

    let rows: [(&str, f64); 8] = [
        (
            "strict JSON (duplicate keys, depth, surrogates)",
            cost(|| drop(black_box(check_strict(body.as_bytes(), StrictLimits::default())))),
        ),
        ("identify: address rate and API key", cost(|| drop(black_box(runtime.block_on(gateway.identify(&presented)))))),
        ("arguments: schema and text rules", cost(|| drop(black_box(schema.accept(&arguments))))),
        ("policies, roles only", cost(|| drop(black_box(permit_of(&plain))))),
        ("policies, with a rule about an argument", cost(|| drop(black_box(permit_of(&arguing))))),
        ("release: redact, clean, frame 3 KB twice", cost(|| drop(black_box(releaser.outcome(&permit, answer()))))),
        ("audit: fingerprint, seal, chain, write", cost(|| drop(black_box(log.append(event(&log, Some(&arguments))))))),
        (
            "the whole call, identification apart",
            cost(|| drop(black_box(runtime.block_on(gateway.call(&caller, request(), Arc::new(())))))),
        ),
    ];
    let making = cost(|| drop(black_box(answer())));
    println!("{:<52} {:>9}", "control", "us a call");
    for (name, micros) in rows {
        println!("{name:<52} {micros:>9.2}");
    }
    println!("{:<52} {making:>9.2}", "(making the answer itself, in the last two releases)");
}
