//! Finding and calling hidden tools: always what listing and calling without it would say.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_gateway::{
    Admission, ApprovalSettings, Approvals, CALL_TOOL, CallRequest, Caller, CatalogueBuilder, Exposure, FIND_TOOLS, Gateway,
    GatewayParts, LimitSettings, ProfileMode, Profiles, Rate, TokenLedger,
};
use portcullis_guard::{Redactor, Releaser};
use portcullis_identity::{Identity, KeyRequest, KeyRing, Pepper, Presented, local_principal};
use portcullis_model::{FaultCode, RiskClass, SystemClock, TenantId, WriteCategory};
use portcullis_policy::{Budget, Policies, PolicyText, Products, Vocabulary};
use portcullis_ports::{Arguments, Outcome};
use portcullis_state::MemoryStore;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::house::{Fake, Memory, spec};

/// A house with these tools, some of them enabled, forbidden by name, and shown.
struct Bench {
    gateway: Arc<Gateway>,
    memory: Arc<Memory>,
    keys: [String; 3],
    tools: Vec<String>,
}

/// What of a drawn tool matters: its risk, whether it is forbidden by name, whether it is the house's own.
type Drawn = (u8, bool, bool);

async fn bench(drawn: &[Drawn], exposure: Exposure, enabled: bool, forbid: &[&str]) -> Bench {
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let ring = KeyRing::open(store.clone(), clock.clone(), Pepper::in_memory().unwrap()).await.unwrap();
    let mut keys = Vec::new();
    for role in ["reader", "operator", "admin"] {
        let made = ring.create(KeyRequest::new("k", role, TenantId::default_tenant())).await.unwrap();
        keys.push(made.secret.expose().to_owned());
    }
    ring.refresh().await.unwrap();
    let mut builder = CatalogueBuilder::new().exposure(exposure).unwrap();
    let mut tools = Vec::new();
    let mut rules = String::new();
    for (number, (risk, forbidden, own)) in drawn.iter().enumerate() {
        let (risk, category) = match risk % 3 {
            0 => (RiskClass::Read, None),
            1 => (RiskClass::Write, Some("workloads")),
            _ => (RiskClass::Destructive, Some("workloads")),
        };
        let name = format!("warehouse_{number}");
        let tool = Arc::new(Fake(spec(&name, risk, category)));
        if *own {
            builder = builder.tool(tool).unwrap();
        } else {
            builder.add_tool(tool).unwrap();
        }
        if *forbidden {
            rules.push_str(&forbidding(&name));
        }
        tools.push(name);
    }
    for name in forbid {
        rules.push_str(&forbidding(name));
    }
    let catalogue = builder.build();
    let vocabulary = Vocabulary {
        enabled_writes: enabled.then(|| WriteCategory("workloads".into())).into_iter().collect(),
        ..Vocabulary::of_tools(catalogue.tool_specs())
    };
    let texts = [PolicyText { origin: "test".into(), text: rules }];
    let memory = Arc::new(Memory::default());
    let gateway = Gateway::new(GatewayParts {
        catalogue,
        policies: Policies::load(&texts, &vocabulary, 1).unwrap(),
        products: Products::default(),
        identity: Arc::new(Identity::new(Some(ring), local_principal("tester", "admin").unwrap(), clock.clone())),
        admission: Admission::new(plenty(), Arc::new(TokenLedger::shared(store.clone(), clock.clone()))),
        approvals: Approvals::new(store.clone(), clock.clone(), ApprovalSettings::default()),
        profiles: Arc::new(Profiles::open(store, clock, ProfileMode::Off).await.unwrap()),
        external: None,
        releaser: Releaser::new(Redactor::new().unwrap()),
        recorder: memory.clone(),
        budget: Budget::default(),
    });
    Bench { gateway: Arc::new(gateway), memory, keys: keys.try_into().unwrap(), tools }
}

/// Enough for every call of a case.
fn plenty() -> LimitSettings {
    LimitSettings::all_at(Rate::new(10_000, 10_000))
}

fn forbidding(name: &str) -> String {
    format!(
        "@id(\"no-{name}\")\nforbid (principal, action == Portcullis::Action::\"call\", resource == Portcullis::Tool::\"{name}\");\n"
    )
}

impl Bench {
    async fn caller(&self, key: usize) -> Caller {
        let authorization = format!("Bearer {}", self.keys[key]);
        self.gateway.identify(&Presented::http(Some(&authorization), Some("127.0.0.1:5000".parse().unwrap()))).await.unwrap()
    }

    async fn listed(&self, caller: &Caller) -> BTreeSet<String> {
        self.gateway.tools(caller).await.unwrap().get().iter().map(|t| t.name.to_string()).collect()
    }

    async fn call(&self, caller: &Caller, tool: &str, arguments: Value) -> Result<Value, FaultCode> {
        let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
        let request = CallRequest { tool: tool.into(), arguments: Arguments(arguments), ..CallRequest::default() };
        match self.gateway.call(caller, request, Arc::new(())).await {
            Ok(released) => match released.into_inner() {
                Outcome::Complete(output) => Ok(output.structured.unwrap_or_default()),
                Outcome::NeedsInput { .. } => Ok(Value::Null),
            },
            Err(fault) => Err(fault.get().code),
        }
    }

    async fn found(&self, caller: &Caller) -> Result<BTreeSet<String>, FaultCode> {
        let answer = self.call(caller, FIND_TOOLS, json!({"query": "warehouse", "limit": 20})).await?;
        Ok(answer["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect())
    }
}

fn exposures() -> impl Strategy<Value = Exposure> {
    prop_oneof![
        Just(Exposure::All),
        (0_usize..900).prop_map(Exposure::Within),
        proptest::collection::vec("warehouse_[0-3]\\*?", 0..3).prop_map(Exposure::Only),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn listing_finding_and_calling_say_the_same(
        drawn in proptest::collection::vec((any::<u8>(), any::<bool>(), any::<bool>()), 1..8), exposure in exposures(), enabled in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = bench(&drawn, exposure.clone(), enabled, &[]).await;
            for key in 0..3 {
                let caller = bench.caller(key).await;
                let listed = bench.listed(&caller).await;
                let hides = listed.contains(FIND_TOOLS);
                prop_assert_eq!(hides, listed.contains(CALL_TOOL));
                prop_assert_eq!(hides, bench.gateway.may_call(&caller, CALL_TOOL), "it exists where something is hidden");
                let found = bench.found(&caller).await;
                prop_assert_eq!(found.is_ok(), hides);
                let found = found.unwrap_or_default();
                for tool in &bench.tools {
                    let direct = bench.call(&caller, tool, json!({"text": "x"})).await;
                    let callable = direct != Err(FaultCode::NotFound);
                    prop_assert_eq!(callable, bench.gateway.may_call(&caller, tool));
                    prop_assert!(callable || !listed.contains(tool), "{} is listed and cannot be called", tool);
                    if hides {
                        prop_assert_eq!(callable, found.contains(tool), "{}", tool);
                        let via = bench.call(&caller, CALL_TOOL, json!({"name": tool, "arguments": {"text": "x"}})).await;
                        prop_assert_eq!(&via, &direct, "{}", tool);
                        let end = bench.memory.records.lock().unwrap().last().cloned().unwrap();
                        prop_assert_eq!((end.target.as_str(), end.via), (tool.as_str(), Some(CALL_TOOL)));
                        prop_assert_eq!(end.allowed, direct.is_ok());
                        let detail = bench.call(&caller, FIND_TOOLS, json!({"detail": tool})).await;
                        prop_assert_eq!(detail.is_ok(), callable);
                    } else {
                        prop_assert_eq!(callable, listed.contains(tool), "{} is neither listed nor found", tool);
                    }
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_call_of_a_call_and_texts_of_others_are_judged_where_they_belong() {
    let bench = bench(&[(0, false, true)], Exposure::Only(Vec::new()), false, &[]).await;
    let caller = bench.caller(0).await;
    for (arguments, code) in [
        (json!({"name": CALL_TOOL, "arguments": {"name": "warehouse_0"}}), FaultCode::InvalidArgument),
        (json!({"name": "nothing"}), FaultCode::NotFound),
        (json!({"name": "warehouse_0", "arguments": {"text": 5}}), FaultCode::InvalidArgument),
        (json!({"name": "warehouse_0", "arguments": {"text": "a\u{0}"}}), FaultCode::InvalidArgument),
        (json!({"name": "warehouse_0", "text": "x"}), FaultCode::InvalidArgument),
        (json!({}), FaultCode::InvalidArgument),
    ] {
        assert_eq!(bench.call(&caller, CALL_TOOL, arguments.clone()).await, Err(code), "{arguments}");
        assert!(!bench.memory.records.lock().unwrap().last().unwrap().allowed, "{arguments}");
    }
    assert_eq!(bench.call(&caller, FIND_TOOLS, json!({})).await, Err(FaultCode::InvalidArgument));
    let answer = bench.call(&caller, CALL_TOOL, json!({"name": FIND_TOOLS, "arguments": {"query": "warehouse"}})).await.unwrap();
    assert_eq!(answer["shown"], 1, "{answer}");
}

#[tokio::test]
async fn where_the_two_tools_are_forbidden_nothing_is_hidden() {
    for name in [FIND_TOOLS, CALL_TOOL] {
        let bench = bench(&[(0, false, false); 3], Exposure::Within(0), false, &[name]).await;
        let caller = bench.caller(0).await;
        let listed = bench.listed(&caller).await;
        assert_eq!(listed, bench.tools.iter().cloned().collect::<BTreeSet<_>>());
        assert_eq!(bench.call(&caller, CALL_TOOL, json!({"name": "warehouse_0"})).await, Err(FaultCode::NotFound));
    }
}

#[tokio::test]
async fn the_way_to_others_is_as_dangerous_as_the_worst_of_them() {
    for (drawn, enabled, expected) in [
        (vec![(0, false, false)], true, RiskClass::Read),
        (vec![(1, false, false)], true, RiskClass::Write),
        (vec![(2, false, false)], true, RiskClass::Destructive),
        (vec![(2, false, false), (0, false, false)], false, RiskClass::Read),
    ] {
        let bench = bench(&drawn, Exposure::Within(0), enabled, &[]).await;
        let caller = bench.caller(2).await;
        let listed = bench.gateway.tools(&caller).await.unwrap();
        let call = listed.get().iter().find(|t| t.name.as_str() == CALL_TOOL).unwrap();
        assert_eq!(call.risk, expected, "{drawn:?}");
    }
}
