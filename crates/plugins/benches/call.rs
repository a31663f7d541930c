//! What a call into a plugin costs over a call of a tool that is compiled in: the same permit, the same arguments, the same
//! result. Run after `cargo xtask plugins`: `cargo bench -p portcullis-plugins`.

#![allow(clippy::panic, reason = "a bench that cannot be set up has no figures")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use divan::Bencher;
use portcullis_egress::LiteralSecrets;
use portcullis_model::{
    Clock as _, CredentialKind, Fault, Principal, PrincipalId, RiskClass, Scope, SystemClock, TenantId, ToolName, ToolSpec,
    TraceContext,
};
use portcullis_plugins::{InstallOptions, Manifest, Package, PluginSettings, PluginStore, Plugins, TrustRoot};
use portcullis_policy::{Asked, Budget, Permit, Policies, Vocabulary};
use portcullis_ports::{Arguments, Exchange, Extension as _, NoExchange, Outcome, Output, Taken, Tool};
use serde_json::{Map, json};

fn main() {
    divan::main();
}

/// Gives its text back.
struct Native(Arc<ToolSpec>);

#[async_trait]
impl Tool for Native {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.0
    }
    async fn run(&self, _: &Permit, arguments: Arguments, _: &dyn Exchange) -> Result<Outcome, Fault> {
        let result = json!({"text": arguments.0.get("text")});
        let text = result.to_string();
        Ok(Output::structured(result, text).into())
    }
}

fn spec() -> ToolSpec {
    ToolSpec {
        name: ToolName::new("probe_do").unwrap_or_else(|error| panic!("{error}")),
        title: "t".into(),
        description: "d".into(),
        risk: RiskClass::Read,
        idempotent: true,
        open_world: false,
        category: None,
        input_schema: Arc::new(json!({"type": "object", "additionalProperties": false})),
        output_schema: None,
        completions: vec![],
        shown: None,
    }
}

fn permit() -> Permit {
    let tool = Arc::new(spec());
    let policies = Policies::load(&[], &Vocabulary::of_tools([&tool]), 1).unwrap_or_else(|error| panic!("{error}"));
    let tenant = TenantId::default_tenant();
    let principal = Principal {
        id: PrincipalId::new("key:bench").unwrap_or_else(|error| panic!("{error}")),
        credential: CredentialKind::Anonymous,
        tenant: tenant.clone(),
        roles: [Arc::from("reader")].into(),
        doors: ["mcp".into()].into(),
        scope: Scope::tenant_wide(tenant),
    };
    let arguments = Map::new();
    let asked = Asked { principal: &principal, tool: &tool, arguments: &arguments, product: None, reach: None };
    let deadline = Instant::now() + Duration::from_hours(1);
    policies
        .authorize_call(asked, deadline, Budget::default(), TraceContext::default())
        .unwrap_or_else(|error| panic!("{error:?}"))
}

fn plugin(directory: &Path) -> Arc<dyn Tool> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins/probe.wasm");
    let component =
        std::fs::read(&built).unwrap_or_else(|error| panic!("{}: {error}; run: cargo xtask plugins", built.display()));
    let manifest = Manifest::from_yaml(include_str!("../tests/probe/plugin.yaml")).unwrap_or_else(|error| panic!("{error}"));
    let bytes = Package::write(&manifest, &component, "", b"{}").unwrap_or_else(|error| panic!("{error}"));
    let options = InstallOptions { insecure: true, enable: true, ..InstallOptions::default() };
    let store = PluginStore::at(directory.join("plugins"));
    let trust = Ok(TrustRoot::default());
    store.install(&bytes, None, trust, options, SystemClock.now()).unwrap_or_else(|error| panic!("{error}"));
    TrustRoot::default().save(&store.default_trust_root()).unwrap_or_else(|error| panic!("{error}"));
    let settings = PluginSettings { allow_unsigned: true, ..PluginSettings::default() };
    let plugins = Plugins::open(directory, &settings, Arc::new(LiteralSecrets), Arc::new(SystemClock));
    let offer = plugins.unwrap_or_else(|error| panic!("{error}")).offer(&Taken::default());
    offer.tools.into_iter().next().unwrap_or_else(|| panic!("the probe was not loaded"))
}

fn calls(bencher: Bencher<'_, '_>, tool: &dyn Tool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap_or_else(|error| panic!("{error}"));
    let permit = permit();
    let arguments = json!({"what": "echo", "text": "hello"});
    let arguments = Arguments(arguments.as_object().cloned().unwrap_or_default());
    bencher.bench_local(|| {
        runtime.block_on(tool.run(&permit, arguments.clone(), &NoExchange)).unwrap_or_else(|error| panic!("{error:?}"))
    });
}

#[divan::bench]
fn native(bencher: Bencher<'_, '_>) {
    calls(bencher, &Native(Arc::new(spec())));
}

#[divan::bench]
fn in_a_plugin(bencher: Bencher<'_, '_>) {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    calls(bencher, &*plugin(directory.path()));
}
