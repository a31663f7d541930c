//! What one decision costs: remembered, and with rules about arguments.
//!
//! `cargo bench -p portcullis-policy --bench decide`

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up shall stop")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use portcullis_model::{CredentialKind, Principal, PrincipalId, RiskClass, Scope, TenantId, ToolName, ToolSpec, TraceContext};
use portcullis_policy::{Asked, Budget, Policies, PolicyText, Vocabulary};
use serde_json::{Map, Value, json};

fn main() {
    divan::main();
}

fn tool() -> ToolSpec {
    let properties = json!({
        "service": {"type": "string"}, "text": {"type": "string"}, "level": {"type": "string", "enum": ["info", "error"]},
        "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}, "source": {"type": "string"},
        "window": {"type": "string", "default": "15m"}, "start": {"type": "string"}, "end": {"type": "string"},
    });
    ToolSpec {
        name: ToolName::new("query_logs").unwrap(),
        title: "Logs".into(),
        description: "Log records".into(),
        risk: RiskClass::Read,
        idempotent: true,
        open_world: false,
        category: None,
        input_schema: Arc::new(json!({"type": "object", "properties": properties, "additionalProperties": false})),
        output_schema: None,
        completions: vec![],
        shown: None,
    }
}

fn reader() -> Principal {
    let tenant = TenantId::default_tenant();
    Principal {
        id: PrincipalId::new("key:abcdefghij").unwrap(),
        credential: CredentialKind::Local,
        tenant: tenant.clone(),
        roles: [Arc::from("reader")].into(),
        doors: BTreeSet::new(),
        scope: Scope::tenant_wide(tenant),
    }
}

fn policies(rules: usize, condition: &str) -> Policies {
    let rules: Vec<String> = (0..rules)
        .map(|n| {
            let condition = condition.replace("NUMBER", &n.to_string());
            format!(
                "@id(\"r{n}\") forbid(principal, action == Portcullis::Action::\"call\", resource == Portcullis::Tool::\"query_logs\") when {{ {condition} }};\n"
            )
        })
        .collect();
    let text = rules.concat();
    let vocabulary = Vocabulary::of_tools(&[Arc::new(tool())]);
    Policies::load(&[PolicyText { origin: "bench".into(), text }], &vocabulary, 1).unwrap()
}

fn arguments() -> Map<String, Value> {
    let given = json!({"service": "cart", "limit": 50, "window": "1h", "text": "timeout", "level": "error"});
    given.as_object().unwrap().clone()
}

fn authorize(bencher: divan::Bencher<'_, '_>, policies: &Policies) {
    let (tool, reader, arguments) = (tool(), reader(), arguments());
    bencher.bench_local(|| {
        let asked = Asked { principal: &reader, tool: &tool, arguments: &arguments, product: None, reach: None };
        policies.authorize_call(asked, Instant::now(), Budget::default(), TraceContext::default())
    });
}

/// Rules that do not ask for arguments: the decision is remembered.
#[divan::bench(args = [0, 10, 100])]
fn remembered(bencher: divan::Bencher<'_, '_>, rules: usize) {
    authorize(bencher, &policies(rules, r#"principal.tenant == "tenant-NUMBER""#));
}

/// Rules about arguments: every call is decided anew.
#[divan::bench(args = [1, 10, 100])]
fn by_argument(bencher: divan::Bencher<'_, '_>, rules: usize) {
    authorize(bencher, &policies(rules, r#"context.arguments.service == "payment-NUMBER""#));
}

/// Rules about the time of day: every decision, listings too, is made anew.
#[divan::bench(args = [1, 10])]
fn by_time(bencher: divan::Bencher<'_, '_>, rules: usize) {
    authorize(bencher, &policies(rules, r#"context.hour < 0 || principal.tenant == "tenant-NUMBER""#));
}

/// Loading and checking.
#[divan::bench(args = [1, 10, 100], sample_count = 10)]
fn load(rules: usize) -> Policies {
    policies(rules, r#"context.arguments.service == "payment-NUMBER""#)
}
