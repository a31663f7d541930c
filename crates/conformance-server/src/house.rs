//! The gate as the product puts it together: policies, identity, limits, release and a real audit log. Only the
//! catalogue differs.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use anyhow::anyhow;
use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind};
use portcullis_gateway::{
    Admission, ApprovalSettings, Approvals, Catalogue, CatalogueBuilder, Gateway, GatewayParts, LimitSettings, Profiles, Rate,
    Recorder, RoadEnd, TokenLedger,
};
use portcullis_guard::{Redactor, Releaser};
use portcullis_identity::{Identity, local_principal};
use portcullis_model::SystemClock;
use portcullis_policy::{Budget, Policies, Products, Vocabulary};
use portcullis_state::MemoryStore;

use crate::{lists, questions, tools};

/// Role of everybody: the suite cannot present a credential.
const ROLE: &str = "reader";

/// Lets two fixtures change the lists while the server runs.
#[derive(Default)]
pub(crate) struct Changer {
    gateway: OnceLock<Weak<Gateway>>,
    version: AtomicU64,
}

impl Changer {
    /// Installs a catalogue with one more or one fewer tool and prompt.
    pub(crate) fn change(self: &Arc<Self>) -> Result<(), String> {
        let gateway = self.gateway.get().and_then(Weak::upgrade).ok_or("there is no gate any more")?;
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 2;
        let (catalogue, policies) = furnish(self, version).map_err(|e| e.to_string())?;
        gateway.install(catalogue, policies, Products::default());
        Ok(())
    }
}

fn furnish(changer: &Arc<Changer>, version: u64) -> anyhow::Result<(Catalogue, Policies)> {
    let extra = version.is_multiple_of(2);
    let mut builder = CatalogueBuilder::new().instructions("Fixtures of the MCP conformance suite.");
    for tool in tools::all(changer, extra)?.into_iter().chain(questions::all()?) {
        builder = builder.tool(tool)?;
    }
    for prompt in lists::prompts(extra) {
        builder = builder.prompt(prompt)?;
    }
    let catalogue = builder.resources(Arc::new(lists::Resources::new(version))).completer(Arc::new(lists::Completions)).build();
    let vocabulary = Vocabulary { tools: catalogue.tool_names(), ..Vocabulary::default() };
    let policies = Policies::load(&[], &vocabulary, version)?;
    Ok((catalogue, policies))
}

/// Builds the gate.
pub(crate) fn build(audit: &Path) -> anyhow::Result<Arc<Gateway>> {
    let clock = Arc::new(SystemClock);
    let changer = Arc::new(Changer::default());
    let (catalogue, policies) = furnish(&changer, 1)?;
    let local = local_principal("conformance", ROLE)?;
    let identity = Identity::new(None, local, clock.clone()).with_anonymous_loopback(ROLE)?;
    // The suite and the load test are one principal each; the limits themselves are tested elsewhere.
    let limits = LimitSettings {
        concurrent_per_principal: 256,
        concurrent_per_tenant: 256,
        concurrent: 256,
        deadline: Duration::from_secs(20),
        tokens_per_day: None,
        tenant_tokens_per_day: None,
        ..LimitSettings::all_at(Rate::new(1_000_000, 1_000_000))
    };
    let state = Arc::new(MemoryStore::new(clock.clone()));
    let gateway = Arc::new(Gateway::new(GatewayParts {
        catalogue,
        policies,
        products: Products::default(),
        identity: Arc::new(identity),
        admission: Admission::new(limits, Arc::new(TokenLedger::unshared())),
        approvals: Approvals::new(state, clock.clone(), ApprovalSettings::default()),
        profiles: Arc::new(Profiles::off()),
        external: None,
        releaser: Releaser::new(Redactor::new().map_err(|e| anyhow!(e))?),
        recorder: Arc::new(Audit(AuditLog::open(audit, clock)?)),
        budget: Budget::default(),
    }));
    changer.gateway.set(Arc::downgrade(&gateway)).map_err(|_| anyhow!("the gate was set twice"))?;
    Ok(gateway)
}

/// Records every end of the road in the audit log.
struct Audit(AuditLog);

impl Recorder for Audit {
    fn record(&self, end: &RoadEnd) -> Result<(), String> {
        let decision = if end.allowed { Decision::Allow } else { Decision::Deny };
        let mut event = AuditEvent::new(EventKind::Call)
            .transport(end.transport.as_str())
            .whence(end.whence.as_ref())
            .method(end.method)
            .tool(end.target.clone())
            .decided(decision, end.rule.to_string())
            .code(end.code)
            .latency_us(end.latency_micros)
            .bytes_out(end.bytes_out)
            .redactions(end.redactions.iter().copied())
            .signs(end.signs.iter().copied());
        if let Some(principal) = &end.principal {
            event = event.principal(principal);
        }
        if let Some(arguments) = &end.arguments {
            event = event.parameters(self.0.fingerprint(arguments));
        }
        self.0.append(event).map(|_| ()).map_err(|e| e.to_string())
    }
}
