//! Where extensions are introduced to the house: plugins, other MCP servers, described APIs. The only place that knows
//! which rooms bring them; everything else sees [`Extension`]s.
//!
//! Guards that nothing an extension offers can push out what the house has itself: names that are taken stay taken, and
//! what cannot be registered is left out and reported.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use futures::future::{join_all, select_all};
use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind};
use portcullis_gateway::{CALL_TOOL, CatalogueBuilder, FIND_TOOLS};
use portcullis_guard::{Redactions, Redactor};
use portcullis_manifest::ApiExtension;
use portcullis_model::{Clock, SystemClock};
use portcullis_plugins::Plugins;
use portcullis_policy::Policies;
use portcullis_ports::{
    Denied, Extension, Happening, NameKind, Offer, Prefixes, Report, Right, Source, Standing, Taken, Witness,
};
use portcullis_secrets::SecretManager;
use portcullis_state::Store;
use portcullis_upstream::{Keeping, Upstream};

use crate::names::{News, Round, explained};
use crate::settings::Config;

/// The extensions of this house.
#[derive(Default)]
pub struct Extensions {
    parts: Vec<Arc<dyn Extension>>,
    upstreams: Vec<Arc<Upstream>>,
    left_out: Mutex<Vec<Report>>,
}

impl Extensions {
    /// What the configuration names. Nothing is started and no connection is opened.
    pub fn open(config: &Config, secrets: &SecretManager) -> anyhow::Result<Self> {
        let mut this =
            Self { upstreams: portcullis_upstream::open(&config.upstreams, secrets, Keeping::ByThisBinary)?, ..Self::default() };
        this.parts.extend(this.upstreams.iter().cloned().map(|upstream| -> Arc<dyn Extension> { upstream }));
        this.parts.extend(apis(config, secrets)?);
        let plugins = Plugins::open(&config.data, &config.plugins, Arc::new(secrets.clone()), Arc::new(SystemClock));
        this.parts.push(Arc::new(plugins.context("plugins")?));
        let mut names = BTreeSet::new();
        if let Some(twice) = this.parts.iter().find(|part| !names.insert(part.name())) {
            bail!("there are two of {}; each needs a name of its own", twice.name());
        }
        drop(names);
        Ok(this)
    }

    /// Reads what persons decided about definitions of other servers. Until then those servers offer nothing.
    pub async fn recall(&self, store: Arc<dyn Store>, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
        for upstream in &self.upstreams {
            upstream.recall(store.clone(), clock.clone()).await.context("reading the pins of upstreams")?;
        }
        Ok(())
    }

    /// Other MCP servers.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// Begins their standing work, each under a charter of its own.
    pub fn start(&self, policies: &Policies, audit: &Arc<AuditLog>, redactor: &Redactor) -> anyhow::Result<()> {
        for part in &self.parts {
            let charter = policies.charter(part.charter()).with_context(|| part.name().to_owned())?;
            part.start(charter, Arc::new(AuditWitness(audit.clone(), redactor.clone())));
        }
        Ok(())
    }

    /// Registers what they offer now, under names that are theirs.
    pub fn furnish(&self, builder: &mut CatalogueBuilder, round: &mut Round) {
        let (mut left_out, mut without_a_name) = (Vec::new(), Vec::new());
        // Who left keeps the word before names as long as one name is that one's.
        let prefixes = Prefixes::of(self.parts.iter().flat_map(|part| part.bearers()).chain(round.owners()));
        round.reserve(prefixes.clone());
        let mut house = builder.taken();
        // Also while it shows every tool and has no use for them.
        house.tools.extend([FIND_TOOLS, CALL_TOOL].map(str::to_owned));
        round.house(&house);
        for part in &self.parts {
            let taken = round.taken(builder.taken());
            let Offer { tools, prompts, resources, kept, owners, denied, .. } = part.offer(&taken);
            let own = part.owners();
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            for tool in tools {
                let name = tool.spec().name.to_string();
                let owner = owners.get(&name).map(|owner| &**owner);
                let rights = owner.map_or_else(|| own.clone(), |owner| vec![owner]);
                let owner = owner.unwrap_or_else(|| part.name());
                if taken.right(NameKind::Tool, &name, &rights) == Right::Anothers {
                    round.deny(without(NameKind::Tool, owner, &name));
                } else if let Err(error) = builder.add_tool(tool) {
                    left_out.push(left(part.name(), &name, &error.to_string()));
                } else {
                    round.give(NameKind::Tool, &name, owner, true);
                }
            }
            for prompt in prompts {
                let name = prompt.spec().name.to_string();
                if taken.right(NameKind::Prompt, &name, &own) == Right::Anothers {
                    round.deny(without(NameKind::Prompt, part.name(), &name));
                } else if let Err(error) = builder.add_prompt(prompt) {
                    left_out.push(left(part.name(), &name, &error.to_string()));
                } else {
                    round.give(NameKind::Prompt, &name, part.name(), true);
                }
            }
            let mut offered = BTreeSet::new();
            for reader in resources {
                offered.extend(reader.resources().iter().map(|resource| resource.uri.to_string()));
                offered.extend(reader.templates().iter().map(|family| family.uri_template.to_string()));
                builder.add_resources(reader);
            }
            round.keep_addresses(&kept.addresses, &offered);
            round.keep(NameKind::Tool, &kept.tools, &taken, &own);
            round.keep(NameKind::Prompt, &kept.prompts, &taken, &own);
            without_a_name.extend(denied);
        }
        // Only now it is known whose every name is.
        for one in without_a_name {
            round.deny(one);
        }
        left_out.extend(round.denied().map(|(denied, holder)| Report {
            name: denied.owner.clone(),
            standing: Standing::Attention,
            detail: format!("{}; see: portcullis names list", explained(denied, holder)),
        }));
        let names = round.tools();
        self.parts.iter().for_each(|part| part.learn(&names, &prefixes));
        let mut before = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        for report in left_out.iter().filter(|report| !before.contains(report)) {
            tracing::warn!(target: "portcullis", name = report.name, "{}", report.detail);
        }
        *before = left_out;
    }

    /// The sources they bring.
    pub fn sources(&self) -> impl Iterator<Item = Arc<dyn Source>> {
        self.parts.iter().flat_map(|part| part.offer(&Taken::default()).sources)
    }

    /// Their revisions, to wait for others with [`Extensions::changed`].
    pub fn revisions(&self) -> Vec<u64> {
        self.parts.iter().map(|part| part.revision()).collect()
    }

    /// Waits until one of them offers something else than at `seen`.
    pub async fn changed(&self, seen: &[u64]) {
        if self.parts.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.parts.iter().zip(seen).map(|(part, seen)| Box::pin(part.changed(*seen)));
        select_all(waits).await;
    }

    /// Waits for resources of them that changed while somebody watched them.
    pub async fn updated(&self) -> BTreeSet<String> {
        if self.parts.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.parts.iter().map(|part| part.updated())).await.0
    }

    /// How they stand.
    pub fn report(&self) -> Vec<Report> {
        let left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.parts.iter().flat_map(|part| part.report()).chain(left_out).collect()
    }

    /// Ends everything they started.
    pub async fn stop(&self) {
        join_all(self.parts.iter().map(|part| part.stop())).await;
    }
}

/// The described APIs.
fn apis(config: &Config, secrets: &SecretManager) -> anyhow::Result<Vec<Arc<dyn Extension>>> {
    let open = |(index, api)| -> anyhow::Result<Arc<dyn Extension>> {
        let opened = ApiExtension::open(api, secrets, &config.data).with_context(|| format!("apis.{index}"))?;
        Ok(Arc::new(opened))
    };
    config.apis.iter().enumerate().map(open).collect()
}

fn without(kind: NameKind, owner: &str, wanted: &str) -> Denied {
    Denied { kind, owner: owner.to_owned(), wanted: wanted.to_owned(), given: None, why: None }
}

fn left(extension: &str, name: &str, reason: &str) -> Report {
    Report { name: extension.to_owned(), standing: Standing::Attention, detail: format!("'{name}' is left out: {reason}") }
}

/// Writes who went without a name, or lost one, into the audit log.
pub fn record_names(audit: &AuditLog, redactor: &Redactor, news: &News) -> anyhow::Result<()> {
    let (what, kind, name, owner, note) = match news {
        News::Denied(denied, holder) => (
            "names.denied",
            denied.kind,
            &denied.wanted,
            &denied.owner,
            format!("{}: {}", denied.owner, explained(denied, holder)),
        ),
        News::TakenOver(kind, name, from) => (
            "names.taken_over",
            *kind,
            name,
            from,
            format!("{} '{name}' was that of {from}, and this house has its own now", kind.as_str()),
        ),
    };
    let clean = |text: &str| redactor.text(text, &mut Redactions::default()).into_owned();
    let of = if owner.starts_with("upstream ") { EventKind::Upstream } else { EventKind::Plugin };
    let event = AuditEvent::new(of).method(what).tool(clean(&format!("{}/{name}", kind.as_str())));
    audit.append(event.decided(Decision::Deny, what).note(clean(&note)))?;
    Ok(())
}

/// Writes what happens to extensions into the audit log, without the secrets that may be in their words.
struct AuditWitness(Arc<AuditLog>, Redactor);

impl AuditWitness {
    fn clean(&self, text: &str) -> String {
        self.1.text(text, &mut Redactions::default()).into_owned()
    }
}

impl Witness for AuditWitness {
    fn record(&self, happening: &Happening) -> Result<(), String> {
        let decision = if happening.admitted { Decision::Allow } else { Decision::Deny };
        let kind = if happening.what.starts_with("upstream.") { EventKind::Upstream } else { EventKind::Plugin };
        let event = AuditEvent::new(kind)
            .method(happening.what)
            .tool(self.clean(&happening.subject))
            .decided(decision, happening.what)
            .note(self.clean(&happening.note));
        self.0.append(event).map(|_| ()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use portcullis_model::Timestamp;
    use portcullis_model::{Fault, RiskClass, Scope, TenantId, ToolName, ToolSpec};
    use portcullis_policy::{Budget, Charter, CharterGrant, Permit};
    use portcullis_ports::{Arguments, Exchange, Outcome, Output, Tool};
    use serde_json::json;
    use tokio::sync::watch;

    use super::*;

    struct Foreign(Arc<ToolSpec>);

    impl Foreign {
        fn named(name: &str, input_schema: serde_json::Value) -> Arc<dyn Tool> {
            Arc::new(Self(Arc::new(ToolSpec {
                name: ToolName::new(name).unwrap(),
                title: "Foreign".into(),
                description: "From outside.".into(),
                risk: RiskClass::Read,
                idempotent: true,
                open_world: true,
                category: None,
                input_schema: Arc::new(input_schema),
                output_schema: None,
                completions: Vec::new(),
                shown: None,
            })))
        }
    }

    #[async_trait]
    impl Tool for Foreign {
        fn spec(&self) -> &Arc<ToolSpec> {
            &self.0
        }
        async fn run(&self, _: &Permit, _: Arguments, _: &dyn Exchange) -> Result<Outcome, Fault> {
            Ok(Output::text("foreign").into())
        }
    }

    struct Part {
        revision: watch::Sender<u64>,
        stopped: AtomicU64,
    }

    impl Part {
        fn new() -> Arc<Self> {
            Arc::new(Self { revision: watch::channel(0).0, stopped: AtomicU64::new(0) })
        }
    }

    #[async_trait]
    impl Extension for Part {
        fn name(&self) -> &'static str {
            "part"
        }
        fn charter(&self) -> CharterGrant {
            CharterGrant {
                name: Arc::from("part"),
                destinations: BTreeSet::new(),
                scope: Scope::tenant_wide(TenantId::default_tenant()),
                time_limit: Duration::from_secs(1),
                budget: Budget::default(),
            }
        }
        fn start(&self, _: Charter, _: Arc<dyn Witness>) {}
        fn offer(&self, taken: &Taken) -> Offer {
            assert!(taken.tools.contains("query_logs") || taken.tools.is_empty());
            let closed = json!({"type": "object", "additionalProperties": false});
            let tools = vec![
                Foreign::named("query_logs", closed.clone()),
                Foreign::named("broken", json!({"type": 7})),
                Foreign::named("welcome", closed),
            ];
            Offer { tools, ..Offer::default() }
        }
        fn revision(&self) -> u64 {
            *self.revision.borrow()
        }
        async fn changed(&self, seen: u64) -> u64 {
            let mut revisions = self.revision.subscribe();
            match revisions.wait_for(|now| *now != seen).await {
                Ok(now) => *now,
                Err(_) => seen,
            }
        }
        fn report(&self) -> Vec<Report> {
            Vec::new()
        }
        async fn stop(&self) {
            self.stopped.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn house_of(part: &Arc<Part>) -> Extensions {
        Extensions { parts: vec![part.clone()], ..Extensions::default() }
    }

    #[test]
    fn what_the_house_has_is_never_pushed_out_and_what_does_not_fit_is_reported() {
        let own = Foreign::named("query_logs", json!({"type": "object", "additionalProperties": false, "title": "own"}));
        let mut builder = CatalogueBuilder::new().tool(own.clone()).unwrap();
        let extensions = house_of(&Part::new());
        extensions.furnish(&mut builder, &mut Round::unwritten(Timestamp::from_nanos(1)));
        let catalogue = builder.build();
        assert_eq!(catalogue.tool_names().into_iter().collect::<Vec<_>>(), ["query_logs", "welcome"]);
        let kept = catalogue.tool_specs().find(|spec| spec.name.as_str() == "query_logs").unwrap();
        assert!(Arc::ptr_eq(kept, own.spec()));
        let report = extensions.report();
        assert_eq!(report.len(), 2, "{report:?}");
        assert!(report.iter().all(|line| line.standing == Standing::Attention && line.name == "part"));
        assert!(report[0].detail.starts_with("'broken' is left out: "), "{report:?}");
        assert!(report[1].detail.starts_with("tool 'query_logs' is left out: the name is that of this house"), "{report:?}");
    }

    #[tokio::test]
    async fn a_change_is_noticed_also_when_it_came_before_anybody_waited() {
        let part = Part::new();
        let extensions = house_of(&part);
        let seen = extensions.revisions();
        assert!(tokio::time::timeout(Duration::from_millis(20), extensions.changed(&seen)).await.is_err());
        part.revision.send_replace(1);
        tokio::time::timeout(Duration::from_secs(5), extensions.changed(&seen)).await.unwrap();
        assert_eq!(extensions.revisions(), [1]);
        extensions.stop().await;
        assert_eq!(part.stopped.load(Ordering::SeqCst), 1);
    }
}
