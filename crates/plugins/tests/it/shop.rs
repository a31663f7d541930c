//! A house with the probe in it: signed, installed, granted what a test says, and called by whom a test says.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use portcullis_egress::{Credential, SecretFault, SecretResolver};
use portcullis_model::{
    CredentialKind, Fault, NameSet, Principal, PrincipalId, RiskClass, Scope, SecretReference, SystemClock, TenantId, ToolName,
    ToolSpec, TraceContext,
};
use portcullis_plugins::{
    Digest, InstallOptions, Installed, KeyRole, Manifest, Package, PackageSignature, PluginSettings, PluginStore, Plugins,
    PrivateKey, TrustRoot, TrustedKey,
};
use portcullis_policy::{Asked, Budget, Permit, Policies, Vocabulary};
use portcullis_ports::{Arguments, Exchange, Extension, Happening, NoExchange, Outcome, Report, Source, Taken, Tool, Witness};
use serde_json::{Map, Value, json};

pub(crate) const MANIFEST: &str = include_str!("../probe/plugin.yaml");

/// The component, built by `cargo xtask plugins`. `None` on a machine that has no compiler for it.
pub(crate) fn component() -> Option<&'static [u8]> {
    static COMPONENT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let read = || {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let path = target.join("plugins/probe.wasm");
        match std::fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(_) if !PathBuf::from("/usr/bin/wasm-ld-19").exists() => {
                assert!(std::env::var_os("PORTCULLIS_TESTS_MUST_RUN").is_none(), "{} is missing", path.display());
                eprintln!("skipped: no {}, and no compiler to build it with (see .ci/install)", path.display());
                None
            }
            Err(error) => panic!("{}: {error}; build it with: cargo xtask plugins", path.display()),
        }
    };
    COMPONENT.get_or_init(read).as_deref()
}

/// Keeps what it is told, or refuses to.
#[derive(Default)]
pub(crate) struct Book {
    pub happened: Mutex<Vec<Happening>>,
    pub closed: std::sync::atomic::AtomicBool,
}

impl Witness for Book {
    fn record(&self, happening: &Happening) -> Result<(), String> {
        if self.closed.load(std::sync::atomic::Ordering::SeqCst) {
            return Err("the book is closed".into());
        }
        self.happened.lock().unwrap().push(happening.clone());
        Ok(())
    }
}

/// Literal secrets only.
struct Literal;

impl SecretResolver for Literal {
    fn credential(&self, reference: &SecretReference) -> Result<Credential, SecretFault> {
        portcullis_egress::LiteralSecrets.credential(reference)
    }
}

pub(crate) struct Shop {
    pub directory: tempfile::TempDir,
    pub key: PrivateKey,
    pub store: PluginStore,
    pub book: Arc<Book>,
    policies: Policies,
    plugins: Option<Plugins>,
}

impl Shop {
    /// The probe with its own manifest and these grants (YAML of one grant without the name); `None` without a component.
    pub(crate) fn open(grant: &str) -> Option<Self> {
        Self::open_with(MANIFEST, grant)
    }

    pub(crate) fn open_with(manifest: &str, grant: &str) -> Option<Self> {
        let mut shop = Self::closed()?;
        shop.install(manifest, "1.0.0");
        shop.start(grant);
        Some(shop)
    }

    /// Nothing installed yet.
    pub(crate) fn closed() -> Option<Self> {
        component()?;
        let directory = tempfile::tempdir().unwrap();
        let store = PluginStore::at(directory.path().join("plugins"));
        let key = PrivateKey::generate().unwrap();
        let trusted = TrustedKey {
            id: key.public().id(),
            public: key.public(),
            owner: "Tests".into(),
            roles: vec![KeyRole::Package],
            plugins: Vec::new(),
            hubs: Vec::new(),
            not_before: "2020-01-01T00:00:00Z".into(),
            not_after: "2099-01-01T00:00:00Z".into(),
            revoked: None,
        };
        let mut root = TrustRoot::default();
        root.keys.push(trusted);
        root.save(&store.default_trust_root()).unwrap();
        let policies = Policies::load(&[], &Vocabulary::of_tools([&Arc::new(any_tool())]), 1).unwrap();
        Some(Self { directory, key, store, book: Arc::default(), policies, plugins: None })
    }

    pub(crate) fn root(&self) -> TrustRoot {
        TrustRoot::load(&self.store.default_trust_root()).unwrap()
    }

    /// A package of the probe's component and its signature.
    pub(crate) fn package(&self, manifest: &str, version: &str) -> (Vec<u8>, PackageSignature) {
        let manifest = Manifest::from_yaml(&manifest.replace("version: 1.0.0", &format!("version: {version}"))).unwrap();
        let bytes = Package::write(&manifest, component().unwrap(), "# Probe\n", b"{}").unwrap();
        let signature = self.key.sign(&manifest, Digest::of(&bytes), portcullis_model::Clock::now(&SystemClock));
        (bytes, signature)
    }

    pub(crate) fn install(&self, manifest: &str, version: &str) -> Installed {
        let (bytes, signature) = self.package(manifest, version);
        let options = InstallOptions { enable: true, ..InstallOptions::default() };
        let now = portcullis_model::Clock::now(&SystemClock);
        self.store.install(&bytes, Some(signature.to_json().as_bytes()), Ok(self.root()), options, now).unwrap()
    }

    pub(crate) fn start(&mut self, grant: &str) {
        let settings = settings(grant);
        let plugins = Plugins::open(self.directory.path(), &settings, Arc::new(Literal), Arc::new(SystemClock)).unwrap();
        let charter = self.policies.charter(plugins.charter()).unwrap();
        plugins.start(charter, self.book.clone());
        self.plugins = Some(plugins);
    }

    pub(crate) fn plugins(&self) -> &Plugins {
        self.plugins.as_ref().unwrap()
    }

    pub(crate) fn tool(&self, name: &str) -> Arc<dyn Tool> {
        let offer = self.plugins().offer(&Taken::default());
        offer
            .tools
            .into_iter()
            .find(|tool| tool.spec().name.as_str() == name)
            .unwrap_or_else(|| panic!("no {name}: {:?}", self.report()))
    }

    pub(crate) fn source(&self) -> Arc<dyn Source> {
        self.plugins().offer(&Taken::default()).sources.remove(0)
    }

    pub(crate) fn report(&self) -> Vec<Report> {
        self.plugins().report()
    }

    pub(crate) fn line(&self) -> Report {
        self.report().into_iter().find(|line| line.name == "plugin probe").unwrap()
    }

    pub(crate) fn happened(&self, what: &str) -> Vec<Happening> {
        self.book.happened.lock().unwrap().iter().filter(|happening| happening.what == what).cloned().collect()
    }

    /// A permit for somebody who may see everything.
    pub(crate) fn permit(&self) -> Permit {
        self.permit_of("key:alice", |_| {})
    }

    pub(crate) fn permit_of(&self, name: &str, confine: impl FnOnce(&mut Scope)) -> Permit {
        self.permit_until(name, confine, Duration::from_secs(20))
    }

    pub(crate) fn permit_until(&self, name: &str, confine: impl FnOnce(&mut Scope), time: Duration) -> Permit {
        let tenant = TenantId::default_tenant();
        let mut scope = Scope::tenant_wide(tenant.clone());
        confine(&mut scope);
        let principal = Principal {
            id: PrincipalId::new(name).unwrap(),
            credential: CredentialKind::Anonymous,
            tenant,
            roles: [Arc::from("reader")].into(),
            doors: ["mcp".into()].into(),
            scope,
        };
        let (tool, arguments) = (any_tool(), Map::new());
        let asked = Asked { principal: &principal, tool: &tool, arguments: &arguments, product: None, reach: None };
        let deadline = Instant::now() + time;
        self.policies.authorize_call(asked, deadline, Budget::default(), TraceContext::default()).unwrap()
    }

    /// Has the probe do something.
    pub(crate) async fn probe(&self, arguments: Value) -> Result<Value, Fault> {
        self.probe_with(&self.permit(), &NoExchange, arguments).await
    }

    pub(crate) async fn probe_with(&self, permit: &Permit, exchange: &dyn Exchange, arguments: Value) -> Result<Value, Fault> {
        let Value::Object(arguments) = arguments else { panic!("{arguments}") };
        match self.tool("probe_do").run(permit, Arguments(arguments), exchange).await? {
            Outcome::Complete(output) => Ok(output.structured.unwrap_or(Value::Null)),
            other @ Outcome::NeedsInput { .. } => panic!("{other:?}"),
        }
    }

    pub(crate) async fn probed(&self, what: &str) -> Result<Value, Fault> {
        self.probe(json!({"what": what})).await
    }
}

pub(crate) fn settings(grant: &str) -> PluginSettings {
    let grant: Value = serde_saphyr::from_str(&format!("{{name: probe, {grant}}}")).unwrap();
    serde_json::from_value(json!({"grants": [grant]})).unwrap()
}

fn any_tool() -> ToolSpec {
    ToolSpec {
        name: ToolName::new("probe_do").unwrap(),
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

/// A scope of one service.
pub(crate) fn only(service: &str) -> impl FnOnce(&mut Scope) {
    let set = NameSet::only([service]);
    move |scope| scope.services = set
}
