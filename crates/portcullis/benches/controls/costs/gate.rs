//! The controls on the road of a call through the gate, by calls of a tool that does nothing but return a typical answer.
//! What has no door of its own is the difference between two whole calls, one of them without it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind};
use portcullis_gateway::{
    Admission, ApprovalSettings, Approvals, CallRequest, Caller, CatalogueBuilder, Gateway, GatewayParts, LimitSettings,
    ProfileMode, Profiles, Rate, Recorder, RoadEnd, SharedRates, Sharing, TokenLedger,
};
use portcullis_guard::{
    ArgumentSchema, RedactionSettings, Redactions, Redactor, ReleaseSettings, Releaser, SanitizeMode, SanitizeSettings,
    Sanitizer, StrictLimits, Switch, check_strict,
};
use portcullis_identity::{Identity, KeyRequest, KeyRing, Pepper, Presented, local_principal};
use portcullis_model::{
    Fault, FaultCode, Principal, RiskClass, SystemClock, TenantId, ToolName, ToolSpec, TraceContext, Whence, WriteCategory,
};
use portcullis_policy::{
    Asked, Budget, ExternalDecision, ExternalInput, ExternalPolicy, Permit, Policies, PolicyText, Products, Vocabulary,
};
use portcullis_ports::{Arguments, Exchange, Outcome, Output, Tool};
use portcullis_state::MemoryStore;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::{Figure, Rounds};

/// Longer than any figure takes.
const LONG: Duration = Duration::from_hours(1);
/// A rule about an argument, so that decisions cannot be remembered.
const RULE: &str = r#"@id("no-payment") forbid(principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"query_logs") when { context.arguments.service == "payment" };"#;
/// Calls a profile is learned from.
const LEARNED: u32 = 100;
/// The category of the tool that needs a yes.
const CATEGORY: &str = "bench";

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

fn spec(name: &str, risk: RiskClass, category: Option<&str>) -> Arc<ToolSpec> {
    Arc::new(ToolSpec {
        name: ToolName::new(name).unwrap(),
        title: "Query logs".into(),
        description: "a typical tool".into(),
        risk,
        idempotent: true,
        open_world: false,
        category: category.map(|category| WriteCategory(category.into())),
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
    let event = event
        .whence(Some(&Whence::direct("192.0.2.7:50000".parse().unwrap())))
        .decided(Decision::Allow, "reader-may-look")
        .latency_us(900);
    match arguments {
        Some(arguments) => event.parameters(log.fingerprint(arguments)),
        None => event,
    }
}

/// Everything the figures are taken from.
struct Bench {
    rounds: Rounds,
    runtime: Runtime,
    clock: Arc<SystemClock>,
    store: Arc<MemoryStore>,
    keys: KeyRing,
    header: String,
    /// Of somebody who may ask for what needs a yes.
    bold: String,
    tool: Arc<ToolSpec>,
    /// A tool that needs a yes.
    marked: Arc<ToolSpec>,
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
    tokens_per_day: Option<u64>,
    shared: Option<Arc<SharedRates>>,
}

impl Bench {
    fn new(rounds: Rounds) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let pepper = Pepper::in_memory().unwrap();
        let keys = runtime.block_on(KeyRing::open_with(store.clone(), clock.clone(), pepper, LONG)).unwrap();
        let made = |role| {
            let made = runtime.block_on(keys.create(KeyRequest::new("bench", role, TenantId::default_tenant()))).unwrap();
            format!("Bearer {}", made.secret.expose())
        };
        let (header, bold) = (made("reader"), made("admin"));
        let arguments = json!({"service": "checkout", "text": "timed out", "window": "1h", "limit": 20});
        let Value::Object(map) = arguments.clone() else { panic!("an object") };
        let redactor = Redactor::with_settings(&RedactionSettings::default(), b"bench").unwrap();
        Self {
            rounds,
            header,
            bold,
            releaser: Releaser::with_settings(redactor, ReleaseSettings::default()).unwrap(),
            local: local_principal("bench", "reader").unwrap(),
            tool: spec("query_logs", RiskClass::Read, None),
            marked: spec("wipe", RiskClass::Destructive, Some(CATEGORY)),
            runtime,
            clock,
            store,
            keys,
            arguments,
            map,
        }
    }

    fn policies(&self, texts: &[PolicyText]) -> Policies {
        let enabled_writes = [WriteCategory(CATEGORY.into())].into();
        let vocabulary = Vocabulary { enabled_writes, ..Vocabulary::of_tools([&self.tool, &self.marked]) };
        Policies::load(texts, &vocabulary, 1).unwrap()
    }

    fn arguing(&self) -> Policies {
        self.policies(&[PolicyText { origin: "bench".into(), text: RULE.into() }])
    }

    fn presented(&self) -> Presented<'_> {
        Self::presenting(&self.header)
    }

    fn presenting(header: &str) -> Presented<'_> {
        Presented::http(Some(header), Some("127.0.0.1:5000".parse().unwrap()))
    }

    fn permit(&self, policies: &Policies) -> Permit {
        let asked = Asked { principal: &self.local, tool: &self.tool, arguments: &self.map, product: None, reach: None };
        policies.authorize_call(asked, Instant::now() + LONG, Budget::default(), TraceContext::default()).unwrap()
    }

    fn request(&self, tool: &str) -> CallRequest {
        CallRequest { tool: tool.into(), arguments: Arguments(self.map.clone()), ..CallRequest::default() }
    }

    fn gateway(&self, parts: Parts) -> Gateway {
        let limits = LimitSettings {
            tokens_per_day: parts.tokens_per_day,
            tenant_tokens_per_day: None,
            ..LimitSettings::all_at(Rate::new(100_000_000, 100_000_000))
        };
        let mut catalogue = CatalogueBuilder::new();
        for tool in [&self.tool, &self.marked] {
            catalogue = catalogue.tool(Arc::new(Answering(tool.clone()))).unwrap();
        }
        let admission = Admission::new(limits, Arc::new(TokenLedger::unshared()));
        Gateway::new(GatewayParts {
            catalogue: catalogue.build(),
            policies: self.arguing(),
            products: Products::default(),
            identity: Arc::new(Identity::new(Some(self.keys.clone()), self.local.clone(), self.clock.clone())),
            admission: match parts.shared {
                Some(shared) => admission.sharing(shared),
                None => admission,
            },
            approvals: Approvals::new(self.store.clone(), self.clock.clone(), ApprovalSettings::default()),
            profiles: parts.profiles.unwrap_or_else(|| Arc::new(Profiles::off())),
            external: parts.external,
            releaser: self.releaser.clone(),
            recorder: parts.recorder.unwrap_or_else(|| Arc::new(Forgetful)),
            budget: Budget::default(),
        })
    }

    fn caller(&self, gateway: &Gateway, header: &str) -> Caller {
        self.runtime.block_on(gateway.identify(&Self::presenting(header))).unwrap()
    }

    /// Microseconds of a whole call, identification apart, that ends with `code`.
    fn call_as(&self, gateway: &Gateway, header: &str, tool: &str, code: Option<FaultCode>) -> f64 {
        let caller = self.caller(gateway, header);
        let call = || self.runtime.block_on(gateway.call(&caller, self.request(tool), Arc::new(())));
        let micros = self.rounds.cost(|| drop(black_box(call())));
        // A call that ends somewhere else on the way costs something else and says nothing.
        assert_eq!(call().err().map(|fault| fault.get().code), code, "{tool} went another way than meant");
        micros
    }

    fn call(&self, gateway: &Gateway) -> f64 {
        self.call_as(gateway, &self.header, self.tool.name.as_str(), None)
    }

    /// Profiles that know the caller and its tool, and refuse everything else.
    fn enforcing(&self) -> Arc<Profiles> {
        let open = |mode| self.runtime.block_on(Profiles::open(self.store.clone(), self.clock.clone(), mode)).unwrap();
        let observing = Arc::new(open(ProfileMode::Observe));
        let gateway = self.gateway(Parts { profiles: Some(observing.clone()), ..Parts::default() });
        let caller = self.caller(&gateway, &self.header);
        // As many a minute as are measured then, also when the minute ends in between.
        for _ in 0..LEARNED.max(3 * self.rounds.calls) {
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

/// The releaser, and the same without the frame around foreign text.
fn release(bench: &Bench, permit: &Permit) -> Vec<Figure> {
    let redactor = Redactor::with_settings(&RedactionSettings::default(), b"bench").unwrap();
    let unframed = Releaser::with_settings(redactor.clone(), ReleaseSettings { frame: Switch::Off }).unwrap();
    // Made beside the release of it, and taken off.
    let of = |releaser: &Releaser, lines: usize| {
        let made = bench.rounds.cost(|| drop(black_box(answer_of(lines))));
        let both = bench.rounds.cost(|| drop(black_box(releaser.outcome(permit, answer_of(lines)))));
        both - made
    };
    let kilobytes = |lines| bench.releaser.outcome(permit, answer_of(lines)).unwrap().bytes() as f64 / 1_000.0;
    let (few, many) = (kilobytes(LINES), kilobytes(10 * LINES));
    let (small, large, bare) = (of(&bench.releaser, LINES), of(&bench.releaser, 10 * LINES), of(&unframed, LINES));
    let text =
        (0..LINES).map(|n| format!("12:00:{n:02}.250 error payment of order 8812{n} failed: timed out")).collect::<Vec<_>>();
    let text = text.join("\n");
    let kept = text.len() as f64 / 1_000.0;
    let redacted = bench.rounds.cost(|| drop(black_box(redactor.text(&text, &mut Redactions::default()))));
    vec![
        Figure::new("release", format!("the whole: redact, clean, frame, budget, {few:.1} KB"), small),
        Figure::new("release", "each further KB", (large - small) / (many - few)),
        Figure::new("release", format!("of it the redaction, of each KB of text ({kept:.1} KB)"), redacted / kept),
        Figure::new("release", "of it the frame around foreign text", small - bare),
    ]
}

/// The record: in the kernel's hands, as every answer waits for, and on the disk, which none waits for.
fn audit(bench: &Bench, home: &std::path::Path) -> Vec<Figure> {
    let log = AuditLog::open(&home.join("alone"), bench.clock.clone()).unwrap();
    let fingerprint = bench.rounds.cost(|| drop(black_box(log.fingerprint(&bench.arguments))));
    let append = || log.append(event(&log, Some(&bench.arguments))).unwrap();
    let appended = bench.rounds.cost(|| {
        black_box(append());
    });
    let slow = bench.rounds.fewer(100);
    let synced = slow.cost(|| {
        append();
        log.sync().unwrap();
    });
    vec![
        Figure::new("audit", "of it the keyed fingerprint of the arguments", fingerprint),
        Figure::new("audit", "fingerprint, seal, chain, append", appended),
        Figure::new("audit", "the same and on the disk, which no call waits for", synced),
    ]
}

fn arguments(bench: &Bench) -> Vec<Figure> {
    let off = |mut settings: SanitizeSettings| {
        let SanitizeSettings { free_text, query, filter_value, label_selector, name, url, .. } = &mut settings;
        for rule in [free_text, query, filter_value, label_selector, name, url] {
            rule.mode = SanitizeMode::Off;
        }
        Sanitizer::new(settings).unwrap()
    };
    let compiled = |sanitizer| ArgumentSchema::compile_with("query_logs", &bench.tool.input_schema, sanitizer).unwrap();
    let cost = |schema: &ArgumentSchema| bench.rounds.cost(|| drop(black_box(schema.accept(&bench.arguments))));
    let both = cost(&compiled(Sanitizer::default()));
    let bare = cost(&compiled(off(SanitizeSettings::default())));
    vec![
        Figure::new("arguments", "schema and text rules", both),
        Figure::new("arguments", "of it the rules for text (sanitize)", both - bare),
    ]
}

pub(super) fn figures(rounds: Rounds) -> Vec<Figure> {
    let bench = Bench::new(rounds);
    let home = tempfile::tempdir().unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "query_logs", "arguments": bench.arguments}});
    let body = body.to_string();
    let (plain, arguing) = (bench.policies(&[]), bench.arguing());
    let permit = bench.permit(&plain);
    let bare = bench.gateway(Parts::default());
    let presented = bench.presented();
    let unknown = bench.call_as(&bare, &bench.header, "no_such_tool", Some(FaultCode::NotFound));
    let whole = bench.call(&bare);
    let beside = |parts: Parts| bench.call(&bench.gateway(parts)) - whole;
    let shared = || Arc::new(SharedRates::new(bench.store.clone(), bench.clock.clone(), Sharing::WithOthers, b"bench"));
    let marked = bench.marked.name.as_str();

    let mut figures = vec![
        Figure::new(
            "json",
            "strict JSON: duplicate keys, depth, surrogates",
            rounds.cost(|| drop(black_box(check_strict(body.as_bytes(), StrictLimits::default())))),
        ),
        Figure::new(
            "key",
            "an API key verified, with the rate of its address",
            rounds.cost(|| drop(black_box(bench.runtime.block_on(bare.identify(&presented))))),
        ),
        Figure::new("admission", "rates and places, finding and refusing a tool that is not there", unknown),
        Figure::new(
            "admission",
            "rates shared with replicas, beside own ones",
            beside(Parts { shared: Some(shared()), ..Parts::default() }),
        ),
        Figure::new(
            "budget",
            "tokens of the day, beside none",
            beside(Parts { tokens_per_day: Some(u64::MAX), ..Parts::default() }),
        ),
        Figure::new("policy", "roles only", rounds.cost(|| drop(black_box(bench.permit(&plain))))),
        Figure::new("policy", "with a rule about an argument", rounds.cost(|| drop(black_box(bench.permit(&arguing))))),
        Figure::new(
            "approval",
            "a call without its yes: bound by hash, looked up, refused",
            bench.call_as(&bare, &bench.bold, marked, Some(FaultCode::Forbidden)),
        ),
        Figure::new("profile", "in force, beside none", beside(Parts { profiles: Some(bench.enforcing()), ..Parts::default() })),
        Figure::new(
            "external",
            "an external policy, beside none, without its network",
            beside(Parts { external: Some(Arc::new(Agreeing)), ..Parts::default() }),
        ),
    ];
    figures.extend(arguments(&bench));
    figures.extend(release(&bench, &permit));
    figures.extend(audit(&bench, home.path()));
    let log = AuditLog::open(&home.path().join("gate"), bench.clock.clone()).unwrap();
    let recorded = beside(Parts { recorder: Some(Arc::new(Audit(log))), ..Parts::default() });
    figures.push(Figure::new("call", "the whole call without its record", whole));
    figures.push(Figure::new("call", "the whole call with it, identification apart", whole + recorded));
    figures
}
