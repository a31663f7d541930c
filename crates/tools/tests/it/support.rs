//! Permits, clocks and a way to run a tool and read what came back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use portcullis_guard::{RedactionSettings, Redactor, Releaser};
use portcullis_model::{
    Clock, CredentialKind, Fault, LogRecord, ManualClock, Principal, PrincipalId, Scope, Severity, TenantId, Timestamp, ToolSpec,
    TraceContext, cut,
};
use portcullis_policy::{Asked, Budget, Permit, Policies, Vocabulary};
use portcullis_ports::{Arguments, Content, NoExchange, Outcome, Output, Source, Tool};
use portcullis_tools::{Sources, default_tools};
use serde_json::Value;

/// 2026-03-01T10:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_772_359_200);

pub(crate) fn ago(seconds: u64) -> Timestamp {
    NOW.minus(Duration::from_secs(seconds))
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(NOW))
}

pub(crate) fn everything() -> Scope {
    Scope::tenant_wide(TenantId::default_tenant())
}

/// A permit of a reader with this scope, as the gate would make it.
pub(crate) fn permit_for(spec: &ToolSpec, scope: Scope, time: Duration) -> Permit {
    let tools = BTreeSet::from([spec.name.to_string()]);
    let policies = Policies::load(&[], &Vocabulary { tools, ..Vocabulary::default() }, 1).unwrap();
    let principal = Principal {
        id: PrincipalId::new("local:tester").unwrap(),
        credential: CredentialKind::Local,
        tenant: scope.tenant.clone(),
        roles: BTreeSet::from([Arc::from("reader")]),
        doors: BTreeSet::from([Arc::from("mcp")]),
        scope,
    };
    let asked = Asked { principal: &principal, tool: spec, arguments: &serde_json::Map::new(), product: None, reach: None };
    policies.authorize_call(asked, Instant::now() + time, Budget::default(), TraceContext::default()).unwrap()
}

/// What the gate releases answers with.
pub(crate) fn releaser() -> Releaser {
    static RELEASER: LazyLock<Releaser> =
        LazyLock::new(|| Releaser::new(Redactor::with_settings(&RedactionSettings::default(), b"pepper").unwrap()));
    RELEASER.clone()
}

/// A set of sources and everything over it.
pub(crate) struct House {
    pub(crate) sources: Arc<Sources>,
    pub(crate) tools: Vec<Arc<dyn Tool>>,
    pub(crate) scope: Scope,
    pub(crate) time: Duration,
}

pub(crate) fn house(sources: Vec<Arc<dyn Source>>) -> House {
    let sources = Arc::new(Sources::new(sources).unwrap());
    let tools = default_tools(&sources, &clock());
    House { sources, tools, scope: everything(), time: Duration::from_secs(30) }
}

/// What a tool answered.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) data: Value,
    pub(crate) failed: bool,
}

impl House {
    pub(crate) fn tool(&self, name: &str) -> &Arc<dyn Tool> {
        self.tools.iter().find(|tool| tool.spec().name.as_str() == name).unwrap_or_else(|| panic!("no tool {name}"))
    }

    pub(crate) fn permit(&self, name: &str) -> Permit {
        permit_for(self.tool(name).spec(), self.scope.clone(), self.time)
    }

    pub(crate) async fn output(&self, name: &str, arguments: Value) -> Result<Output, Fault> {
        let Value::Object(map) = arguments else { panic!("arguments are an object") };
        let tool = self.tool(name);
        let spec = tool.spec();
        let permit = self.permit(name);
        // As the gate runs it: what is cut is redacted first.
        let work = tool.run(&permit, Arguments(map), &NoExchange);
        let outcome = cut::guarding(releaser().cut_rule(&permit, true), work).await?;
        let Outcome::Complete(output) = outcome else { panic!("{name} asked back") };
        let schema = spec.output_schema.as_ref().unwrap();
        let data = output.structured.as_ref().unwrap();
        let validator = jsonschema::validator_for(schema).unwrap();
        let errors: Vec<String> = validator.iter_errors(data).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{name} breaks its output schema: {errors:?}\n{data:#}");
        Ok(output)
    }

    pub(crate) async fn ask(&self, name: &str, arguments: Value) -> Said {
        let output = self.output(name, arguments).await.unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
        let Some(Content::Text(text)) = output.content.first().cloned() else { panic!("no text") };
        Said { text, data: output.structured.unwrap(), failed: output.failed }
    }

    pub(crate) async fn refused(&self, name: &str, arguments: Value) -> Fault {
        let shown = arguments.to_string();
        self.output(name, arguments).await.expect_err(&format!("{name} {shown}"))
    }
}

pub(crate) fn record(at: Timestamp, service: &str, severity: Severity, body: &str) -> LogRecord {
    LogRecord {
        at,
        severity: Some(severity),
        service: Arc::from(service),
        body: body.to_owned(),
        attributes: BTreeMap::new(),
        trace_id: String::new(),
        span_id: String::new(),
    }
}

pub(crate) fn tokens(text: &str) -> usize {
    tiktoken_rs::o200k_base().unwrap().encode_ordinary(text).len()
}
