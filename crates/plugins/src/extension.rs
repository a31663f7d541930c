//! All plugins of a house. Guards that each is verified anew before it is loaded, that what is revoked, removed or put into
//! quarantine while the server runs stops being offered, and that every such change is witnessed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use portcullis_egress::SecretResolver;
use portcullis_model::{Clock, Scope, SourceName, TenantId};
use portcullis_policy::{Budget, Charter, CharterGrant};
use portcullis_ports::{Denied, Extension, Happening, NameKind, Offer, Report, Source, Standing, Taken, Tool, Witness};
use tokio::sync::watch;

use crate::compiled::CompiledStore;
use crate::engine::{EngineError, PluginEngine};
use crate::plugin::{LoadError, OnQuarantine, Plugin};
use crate::source::PluginSource;
use crate::store::Verified;
use crate::tool::PluginTool;
use crate::{Installed, Package, PluginSettings, PluginStore, StoreError, TrustError, TrustRoot};

/// How often the list of plugins and the trust root are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The plugins of a house cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PluginsError {
    /// The section of the configuration.
    #[error("{0}")]
    Settings(String),
    /// The list of plugins.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A thread or runtime for loading.
    #[error("plugins cannot be loaded: {0}")]
    System(String),
}

/// How an installed plugin stands.
enum Place {
    Loaded(Arc<Plugin>),
    Off(&'static str),
    Held(String),
    Refused { reason: String, revoked: bool },
}

struct Slot {
    installed: Installed,
    place: Place,
}

/// When a file was last changed in any way, its rights included, and which file it is.
type Stamp = Option<(i64, i64, u64, u64)>;

/// Why list and trust root cannot be read, where they cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Trouble {
    list: Option<String>,
    trust: Option<String>,
}

impl Trouble {
    /// All of it, in words; `None` when everything can be read.
    fn words(&self) -> Option<String> {
        let all: Vec<&str> = [&self.list, &self.trust].into_iter().flatten().map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// What was read last.
#[derive(Debug, Default)]
struct Seen {
    stamps: [Stamp; 2],
    /// As long as there is some, it is tried again also when no file changed.
    trouble: Trouble,
}

/// What is installed and whom is trusted, as it stands in the files now.
struct Files {
    list: Result<Vec<Installed>, StoreError>,
    trust: Result<TrustRoot, TrustError>,
}

impl Files {
    fn trouble(&self) -> Trouble {
        // That there is no trust root is the word of an operator, and not for the server to wait out.
        let unusable = self.trust.as_ref().err().filter(|error| !matches!(error, TrustError::Absent { .. }));
        Trouble { list: self.list.as_ref().err().map(ToString::to_string), trust: unusable.map(ToString::to_string) }
    }
}

/// Shared with the work that goes on beside calls.
struct Inner {
    settings: PluginSettings,
    store: PluginStore,
    trust_root: PathBuf,
    secrets: Arc<dyn SecretResolver>,
    clock: Arc<dyn Clock>,
    engine: OnceLock<Arc<PluginEngine>>,
    slots: RwLock<Vec<Slot>>,
    /// What happened before anybody could be told.
    pending: Mutex<Vec<Happening>>,
    witness: OnceLock<Arc<dyn Witness>>,
    charter: Arc<OnceLock<Charter>>,
    /// The files as they were when they were last read.
    seen: Mutex<Seen>,
    revision: watch::Sender<u64>,
    stopped: watch::Sender<bool>,
}

/// The extension that brings plugins into the house.
pub struct Plugins(Arc<Inner>);

impl Plugins {
    /// Verifies and loads what is installed in `data`. Nothing is reached; what cannot be loaded is left out and reported.
    ///
    /// # Errors
    /// When the settings contradict themselves, or the list of plugins or the engine cannot be had.
    pub fn open(
        data: &Path,
        settings: &PluginSettings,
        secrets: Arc<dyn SecretResolver>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PluginsError> {
        settings.check().map_err(PluginsError::Settings)?;
        let store = PluginStore::at(data.join("plugins"));
        let inner = Arc::new(Inner {
            trust_root: settings.trust_root.clone().unwrap_or_else(|| store.default_trust_root()),
            settings: settings.clone(),
            store,
            secrets,
            clock,
            engine: OnceLock::new(),
            slots: RwLock::default(),
            pending: Mutex::default(),
            witness: OnceLock::new(),
            charter: Arc::default(),
            seen: Mutex::default(),
            revision: watch::channel(0).0,
            stopped: watch::channel(false).0,
        });
        inner.seen().stamps = inner.stamps();
        if inner.settings.enabled && !inner.store.list()?.is_empty() {
            let own = inner.clone();
            // Of its own, because whoever opens a house may or may not be within a runtime.
            let loading = std::thread::Builder::new().name("plugin-loading".to_owned()).spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let runtime = runtime.map_err(|error| PluginsError::System(error.to_string()))?;
                runtime.block_on(own.reload());
                Ok::<(), PluginsError>(())
            });
            let loading = loading.map_err(|error| PluginsError::System(error.to_string()))?;
            loading.join().map_err(|_| PluginsError::System("the loading thread ended early".to_owned()))??;
        }
        Ok(Self(inner))
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        self.0.stopped.send_replace(true);
    }
}

impl Inner {
    fn engine(&self) -> Result<Arc<PluginEngine>, EngineError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine.clone());
        }
        let compiled = CompiledStore::at(&self.store.directory().join("compiled"));
        let compiled =
            compiled.inspect_err(|error| tracing::warn!(target: "portcullis::plugin", "compiled code is not kept: {error}")).ok();
        let engine = Arc::new(PluginEngine::new(self.settings.concurrent, compiled)?);
        Ok(self.engine.get_or_init(|| engine).clone())
    }

    fn slots(&self) -> std::sync::RwLockReadGuard<'_, Vec<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the witness, or keeps it until there is one. `false`: it could not be written.
    fn tell(&self, happening: Happening) -> bool {
        let Some(witness) = self.witness.get() else {
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(happening);
            return true;
        };
        match witness.record(&happening) {
            Ok(()) => true,
            Err(reason) => {
                tracing::error!(target: "portcullis::plugin", %reason, "what happened to a plugin could not be recorded");
                false
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> Files {
        Files { list: self.store.list(), trust: TrustRoot::load(&self.trust_root) }
    }

    /// Brings what is loaded in line with what is installed, enabled and trusted now. Where the list cannot be read, the one
    /// that was read last is judged anew: whom nobody trusts any more does not go on because something else is broken.
    async fn reload(self: &Arc<Self>) {
        let stamps = self.stamps();
        let files = self.files();
        let trouble = files.trouble();
        self.complain(&trouble);
        let list = files.list.unwrap_or_else(|_| self.slots().iter().map(|slot| slot.installed.clone()).collect());
        let vouched = self.withdraw_lost(&list, &files.trust);
        let mut fresh = Vec::new();
        for installed in list {
            let place = self.place(&installed, files.trust.clone(), &vouched).await;
            fresh.push(Slot { installed, place });
        }
        // Only now: what was broken off on the way is done again.
        *self.seen() = Seen { stamps, trouble };
        let before = std::mem::replace(&mut *self.slots.write().unwrap_or_else(PoisonError::into_inner), fresh);
        for slot in before {
            let Place::Loaded(plugin) = slot.place else { continue };
            let still = self.slots().iter().any(|now| matches!(&now.place, Place::Loaded(kept) if Arc::ptr_eq(kept, &plugin)));
            if !still {
                plugin.withdraw();
                let note = format!("{} {}", plugin.version, plugin.digest);
                self.tell(Happening { what: "plugin.unloaded", subject: plugin.name.to_string(), admitted: false, note });
            }
        }
        if let Some(engine) = self.engine.get() {
            let component = |slot: &Slot| match &slot.place {
                Place::Loaded(plugin) => Some(plugin.component),
                _ => None,
            };
            let kept: Vec<_> = self.slots().iter().filter_map(component).collect();
            engine.sweep(&kept);
        }
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// Says what cannot be read, once.
    fn complain(&self, trouble: &Trouble) {
        let Some(reason) = trouble.words().filter(|_| self.seen().trouble != *trouble) else { return };
        tracing::error!(target: "portcullis::plugin", "changes of plugins cannot be followed, and this is tried again: {reason}");
        self.tell(Happening { what: "plugin.unreadable", subject: "plugins".to_owned(), admitted: false, note: reason });
    }

    /// Ends at once what is not to go on, before anything new is loaded, which takes a processor for seconds. Gives what was
    /// verified anew and goes on.
    fn withdraw_lost(&self, list: &[Installed], trust: &Result<TrustRoot, TrustError>) -> Vec<Installed> {
        let mut vouched = Vec::new();
        for slot in self.slots().iter() {
            let Place::Loaded(plugin) = &slot.place else { continue };
            let now = list.iter().find(|installed| installed.digest == plugin.digest && installed.enabled);
            let load =
                |installed: &Installed| self.store.load(installed, trust.clone(), self.settings.allow_unsigned, self.clock.now());
            match now {
                Some(installed) if load(installed).is_ok() => vouched.push(installed.clone()),
                _ => plugin.withdraw(),
            }
        }
        vouched
    }

    /// Where an installed plugin stands from now on. What is loaded and among `vouched` goes on as it is: it was verified for
    /// this very reload. Whatever is loaded is verified here, and those bytes are what is loaded.
    async fn place(
        self: &Arc<Self>,
        installed: &Installed,
        trust: Result<TrustRoot, TrustError>,
        vouched: &[Installed],
    ) -> Place {
        if !installed.enabled {
            return Place::Off("installed and not enabled; enable it with: portcullis plugin enable");
        }
        if let Some(quarantine) = &installed.quarantine {
            return Place::Held(format!("since {}: {}", quarantine.at, quarantine.reason));
        }
        let known =
            self.slots().iter().find(|slot| slot.installed.digest == installed.digest).and_then(|slot| match &slot.place {
                Place::Loaded(plugin) => Some(plugin.clone()),
                _ => None,
            });
        if let Some(plugin) = known
            && vouched.contains(installed)
            && plugin.quarantined().is_none()
            && !plugin.is_withdrawn()
        {
            return Place::Loaded(plugin);
        }
        let verified = self.store.load(installed, trust, self.settings.allow_unsigned, self.clock.now());
        let (reason, revoked) = match verified {
            Ok(verified) => match self.load(verified).await {
                Ok(plugin) => {
                    if self.tell(loaded(&plugin)) {
                        return Place::Loaded(plugin);
                    }
                    ("that it was loaded could not be recorded".to_owned(), false)
                }
                Err(error) => (error.to_string(), false),
            },
            Err(StoreError::Trust(error)) => (error.to_string(), error.is_revocation()),
            Err(error) => (error.to_string(), false),
        };
        tracing::error!(target: "portcullis::plugin", plugin = installed.name.as_str(), "it is not loaded: {reason}");
        let what = if revoked { "plugin.revoked" } else { "plugin.refused" };
        let note = format!("{} {}: {reason}", installed.version, installed.digest);
        let told = Happening { what, subject: installed.name.to_string(), admitted: false, note };
        if !self.already_refused(installed, &reason) {
            self.tell(told);
        }
        Place::Refused { reason, revoked }
    }

    fn already_refused(&self, installed: &Installed, now: &str) -> bool {
        self.slots()
            .iter()
            .any(|slot| slot.installed == *installed && matches!(&slot.place, Place::Refused { reason, .. } if reason == now))
    }

    async fn load(self: &Arc<Self>, verified: Verified) -> Result<Arc<Plugin>, LoadError> {
        let engine = self.engine()?;
        let own = Arc::downgrade(self);
        let on_quarantine: OnQuarantine = Box::new(move |plugin, reason| {
            if let Some(inner) = own.upgrade() {
                inner.quarantine(plugin, reason);
            }
        });
        Plugin::load(&engine, verified, &self.settings, &*self.secrets, on_quarantine).await.map(Arc::new)
    }

    /// Keeps it out, on disk too, so that a restart does not let it in again.
    fn quarantine(&self, plugin: &Plugin, reason: &str) {
        tracing::error!(target: "portcullis::plugin", plugin = plugin.name.as_str(), "it is in quarantine: {reason}");
        if let Err(error) = self.store.quarantine(plugin.name.as_str(), plugin.digest, reason, self.clock.now()) {
            tracing::error!(target: "portcullis::plugin", %error, "the quarantine is not kept over a restart");
        }
        let note = format!("{} {}: {reason}", plugin.version, plugin.digest);
        self.tell(Happening { what: "plugin.quarantined", subject: plugin.name.to_string(), admitted: false, note });
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn stamps(&self) -> [Stamp; 2] {
        [self.store.list_path(), self.trust_root.clone()].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.ctime(), metadata.ctime_nsec(), metadata.len(), metadata.ino()))
        })
    }

    /// Looks for changes of the list and the trust root until it is stopped.
    async fn follow(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            if !self.has_news() {
                continue;
            }
            let own = self.clone();
            let runtime = tokio::runtime::Handle::current();
            // Compiling takes a processor for seconds.
            let reloaded = tokio::task::spawn_blocking(move || runtime.block_on(own.reload())).await;
            if let Err(error) = reloaded {
                tracing::error!(target: "portcullis::plugin", %error, "plugins stay as they were, and this is tried again");
            }
        }
    }

    /// Whether a file changed, or what could not be read can be now or for another reason.
    fn has_news(&self) -> bool {
        let trouble = {
            let seen = self.seen();
            if self.stamps() != seen.stamps {
                return true;
            }
            seen.trouble.clone()
        };
        trouble != Trouble::default() && self.files().trouble() != trouble
    }
}

/// How the book of names calls a plugin.
fn owner_of(name: &str) -> String {
    format!("plugin {name}")
}

fn loaded(plugin: &Plugin) -> Happening {
    let by = plugin.by.as_ref().map_or("NOT SIGNED".to_owned(), |(key, owner)| format!("signed by key {key} of {owner}"));
    let what = if plugin.by.is_some() { "plugin.loaded" } else { "plugin.unsigned" };
    let note = format!("{} {}, {by}", plugin.version, plugin.digest);
    Happening { what, subject: plugin.name.to_string(), admitted: true, note }
}

#[async_trait]
impl Extension for Plugins {
    fn name(&self) -> &'static str {
        "plugins"
    }

    /// Also what is switched off: its names stay its own.
    fn bearers(&self) -> Vec<String> {
        self.0.slots().iter().map(|slot| owner_of(slot.installed.name.as_str())).collect()
    }

    fn charter(&self) -> CharterGrant {
        let grants = self.0.settings.grants.iter().flat_map(|grant| &grant.http);
        CharterGrant {
            name: Arc::from("plugins"),
            destinations: grants.map(ToString::to_string).collect::<BTreeSet<_>>(),
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            time_limit: Duration::from_secs(5),
            budget: Budget::default(),
        }
    }

    fn start(&self, charter: Charter, witness: Arc<dyn Witness>) {
        let inner = &self.0;
        // Called once; a second call changes nothing.
        let _ = inner.charter.set(charter);
        let _ = inner.witness.set(witness);
        let pending = std::mem::take(&mut *inner.pending.lock().unwrap_or_else(PoisonError::into_inner));
        for happening in pending {
            let admitted = happening.admitted;
            let subject = happening.subject.clone();
            if !inner.tell(happening) && admitted {
                let mut slots = inner.slots.write().unwrap_or_else(PoisonError::into_inner);
                for slot in slots.iter_mut().filter(|slot| slot.installed.name.as_str() == subject) {
                    let reason = "that it was loaded could not be recorded".to_owned();
                    let before = std::mem::replace(&mut slot.place, Place::Refused { reason, revoked: false });
                    if let Place::Loaded(plugin) = before {
                        plugin.withdraw();
                    }
                }
                drop(slots);
                inner.revision.send_modify(|revision| *revision += 1);
            }
        }
        if inner.settings.enabled {
            tokio::spawn(inner.clone().follow());
        }
    }

    fn offer(&self, taken: &Taken) -> Offer {
        let mut offer = Offer::default();
        // Given to plugins before it in this offer.
        let mut given = BTreeSet::new();
        for slot in self.0.slots().iter() {
            let Place::Loaded(plugin) = &slot.place else { continue };
            if plugin.quarantined().is_some() {
                continue;
            }
            let owner = owner_of(plugin.name.as_str());
            let mut named = BTreeMap::new();
            for tool in &plugin.tools {
                let prefixed = format!("{}_{}", plugin.name, tool.name);
                let names = (Some(tool.name.as_str()), prefixed.as_str());
                let name = taken.choose(NameKind::Tool, names, &[owner.as_str()], |name, _| !given.contains(name));
                if name.as_ref() != Some(&tool.name) {
                    let (wanted, given) = (tool.name.clone(), name.clone());
                    offer.denied.push(Denied { kind: NameKind::Tool, owner: owner.clone(), wanted, given, why: None });
                }
                if let Some(name) = name {
                    given.insert(name.clone());
                    named.insert(tool.name.as_str(), name);
                }
            }
            for tool in &plugin.tools {
                let Some(name) = named.get(tool.name.as_str()) else { continue };
                match PluginTool::new(plugin, tool, name, |other| named.get(other).cloned()) {
                    Ok(tool) => {
                        offer.owners.insert(name.clone(), Arc::from(owner.as_str()));
                        offer.tools.push(Arc::new(tool) as Arc<dyn Tool>);
                    }
                    Err(error) => tracing::error!(target: "portcullis::plugin", %error, "a tool is left out"),
                }
            }
            if !plugin.signals.is_empty() {
                let name = plugin.grant.source.clone().map_or_else(|| SourceName::new(plugin.name.as_str()), Ok);
                match name {
                    Ok(name) => {
                        let source = PluginSource::new(plugin.clone(), name, self.0.charter.clone());
                        offer.sources.push(Arc::new(source) as Arc<dyn Source>);
                    }
                    Err(error) => tracing::error!(target: "portcullis::plugin", %error, "a source is left out"),
                }
            }
        }
        offer
    }

    fn revision(&self) -> u64 {
        *self.0.revision.borrow()
    }

    async fn changed(&self, seen: u64) -> u64 {
        let mut revisions = self.0.revision.subscribe();
        match revisions.wait_for(|now| *now != seen).await {
            Ok(now) => *now,
            Err(_closed) => seen,
        }
    }

    fn report(&self) -> Vec<Report> {
        let inner = &self.0;
        if !inner.settings.enabled {
            return vec![line("plugins", Standing::Off, "switched off with plugins.enabled".to_owned())];
        }
        let slots = inner.slots();
        if slots.is_empty() {
            return vec![line("plugins", Standing::Off, "none is installed".to_owned())];
        }
        let trust = match TrustRoot::load(&inner.trust_root) {
            Ok(root) => {
                let keys = root.keys.iter().filter(|key| key.revoked.is_none()).count();
                line("plugin signatures", Standing::On, format!("{keys} keys are trusted by {}", inner.trust_root.display()))
            }
            Err(error) => line("plugin signatures", Standing::Broken, error.to_string()),
        };
        let list = inner.seen().trouble.list.as_ref().map(|reason| {
            line("plugins", Standing::Broken, format!("changes cannot be followed, plugins are as they were: {reason}"))
        });
        std::iter::once(trust).chain(list).chain(slots.iter().map(slot_line)).collect()
    }

    async fn stop(&self) {
        self.0.stopped.send_replace(true);
    }
}

fn line(name: &str, standing: Standing, detail: String) -> Report {
    Report { name: name.to_owned(), standing, detail }
}

fn slot_line(slot: &Slot) -> Report {
    let name = format!("plugin {}", slot.installed.name);
    let version = format!("{} {}", slot.installed.version, slot.installed.digest.short());
    let again = format!("look into it, then: portcullis plugin enable {}", slot.installed.name);
    match &slot.place {
        Place::Off(why) => line(&name, Standing::Off, format!("{version}: {why}")),
        Place::Held(why) => line(&name, Standing::Attention, format!("{version} is in quarantine {why}; {again}")),
        Place::Refused { reason, revoked } => {
            let word = if *revoked { "revoked, not loaded" } else { "not loaded" };
            line(&name, Standing::Broken, format!("{version}: {word}: {reason}"))
        }
        Place::Loaded(plugin) => {
            if let Some(reason) = plugin.quarantined() {
                return line(&name, Standing::Attention, format!("{version} is in quarantine: {reason}; {again}"));
            }
            let (calls, failures) = plugin.counts();
            let mut detail = format!("{version}, {} tools, {} signals", plugin.tools.len(), plugin.signals.len());
            match &plugin.by {
                Some((key, owner)) => {
                    let _ = write!(detail, ", signed by key {key} of {owner}");
                }
                None => detail.push_str(", NOT SIGNED: nobody vouches for it"),
            }
            let _ = write!(detail, ", {calls} calls, {failures} failed");
            let dropped = plugin.dropped.load(Ordering::Relaxed);
            if dropped > 0 {
                let _ = write!(detail, ", {dropped} records outside of scope or window dropped");
            }
            let missing = plugin.home.outside.not_granted();
            if !missing.is_empty() {
                let _ = write!(detail, "; not granted: {}", missing.join(", "));
            }
            let well = plugin.by.is_some() && dropped == 0 && missing.is_empty();
            line(&name, if well { Standing::On } else { Standing::Attention }, detail)
        }
    }
}

/// What a component says of itself when it is tried out, without being installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedOut {
    /// Names of its tools.
    pub tools: Vec<String>,
    /// Signals it answers.
    pub signals: Vec<&'static str>,
}

/// Loads a package as a house would and lets it describe itself; for authors. It gets nothing.
///
/// # Errors
/// When it could not be loaded.
pub async fn try_out(package: Package) -> Result<TriedOut, LoadError> {
    let engine = Arc::new(PluginEngine::new(1, None)?);
    let verified = Verified { package, by: None };
    let settings = PluginSettings::default();
    let plugin = Plugin::load(&engine, verified, &settings, &portcullis_egress::LiteralSecrets, Box::new(|_, _| {})).await?;
    Ok(TriedOut {
        tools: plugin.tools.iter().map(|tool| tool.name.clone()).collect(),
        signals: plugin.signals.iter().map(|signal| signal.as_str()).collect(),
    })
}
