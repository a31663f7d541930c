//! A loaded plugin and its calls. Guards that every call runs in a fresh instance that ends with it, that whatever ends a call
//! early is a typed fault and never the server, and that a plugin which keeps crashing is kept out until somebody looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use portcullis_egress::SecretResolver;
use portcullis_guard::is_hidden;
use portcullis_model::{Fault, FaultCode, RiskClass, Signal};
use portcullis_policy::Permit;
use portcullis_ports::{DRY_RUN, Exchange, offer_dry_run};
use semver::Version;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;
use wasmtime::{Store, Trap};

use crate::bindings::foresight::exports::portcullis::plugin::preview::ToolPreview;
use crate::bindings::portcullis::plugin::telemetry::{Answer, Question};
use crate::bindings::portcullis::plugin::types::{self as wit, ToolResult};
use crate::cache::{CacheScope, PluginCache};
use crate::convert;
use crate::engine::{self, EngineError, Made, PluginEngine};
use crate::outside::Outside;
use crate::preview;
use crate::state::{CallState, Exceeded, Home, Underway, Way};
use crate::stdio::clean;
use crate::store::Verified;
use crate::{Digest, Manifest, ManifestPreview, ManifestTool, PluginGrant, PluginName, PluginSettings};

/// Crashes in a row after which a plugin is kept out.
pub(crate) const CRASHES_IN_A_ROW: u32 = 5;
/// Crashes within [`CRASH_WINDOW`] after which it is, whatever came between.
const CRASHES_IN_ALL: usize = 20;
const CRASH_WINDOW: Duration = Duration::from_mins(10);
/// How long a call waits for a place.
const WAIT_FOR_PLACE: Duration = Duration::from_secs(2);
const MOST_TITLE: usize = 200;
const MOST_DESCRIPTION: usize = 4_000;
const MOST_SCHEMA: usize = 64 << 10;

/// A package that was verified and still is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Engine or component.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The component says something else than its manifest.
    #[error("the component is not what its manifest says: {0}")]
    Forged(String),
    /// It does not come as far as describing itself.
    #[error("the plugin failed to describe itself: {0}")]
    Describe(String),
    /// A secret of its grant.
    #[error("its secrets: {0}")]
    Secret(#[from] portcullis_egress::SecretFault),
}

/// A tool as the component describes it and the manifest allows it.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) risk: RiskClass,
    pub(crate) idempotent: bool,
    pub(crate) open_world: bool,
    pub(crate) input_schema: Value,
    pub(crate) output_schema: Option<Value>,
    /// How it tells what a call would do; `None` when it cannot.
    pub(crate) preview: Option<ManifestPreview>,
}

/// Told when a plugin is to be kept out.
pub(crate) type OnQuarantine = Box<dyn Fn(&Plugin, &str) + Send + Sync>;

#[derive(Debug, Default)]
struct Crashes {
    in_a_row: u32,
    recent: VecDeque<Instant>,
}

/// A loaded plugin.
pub(crate) struct Plugin {
    pub(crate) name: PluginName,
    pub(crate) version: Version,
    pub(crate) digest: Digest,
    /// Digest of its component, by which compiled code is kept.
    pub(crate) component: Digest,
    /// Whoever vouched for it; `None` for what runs without a signature.
    pub(crate) by: Option<(String, String)>,
    pub(crate) tools: Vec<Described>,
    pub(crate) signals: std::collections::BTreeSet<Signal>,
    pub(crate) grant: PluginGrant,
    pub(crate) home: Arc<Home>,
    /// Records that were dropped because they lay outside of the scope or the window.
    pub(crate) dropped: AtomicU64,
    calls: AtomicU64,
    failures: AtomicU64,
    mark: String,
    engine: Arc<PluginEngine>,
    made: Made,
    slots: Semaphore,
    crashes: Mutex<Crashes>,
    quarantine: OnceLock<String>,
    withdrawn: AtomicBool,
    on_quarantine: OnQuarantine,
}

impl Plugin {
    /// How records name it: `plugin:<name>@<digest>`.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    /// Compiles and describes a verified package. Nothing is reached while doing so.
    pub(crate) async fn load(
        engine: &Arc<PluginEngine>,
        verified: Verified,
        settings: &PluginSettings,
        secrets: &dyn SecretResolver,
        on_quarantine: OnQuarantine,
    ) -> Result<Self, LoadError> {
        let Verified { package, by } = verified;
        let manifest = package.manifest;
        let grant = settings.grant(&manifest.name);
        let limits = settings.limits_of(&manifest);
        let home = Arc::new(Home {
            name: Arc::from(manifest.name.as_str()),
            limits,
            outside: Outside::new(&manifest, &grant, &limits, secrets)?,
            cache: PluginCache::new(limits.cache),
            settings: Value::Object(grant.settings.clone()).to_string(),
        });
        let made = engine.compile(&package.component)?;
        let described = describe(engine, &made, &home).await?;
        let tools = checked(&manifest, described)?;
        if manifest.previews() != made.foresight.is_some() {
            return Err(LoadError::Forged(match made.foresight {
                None => "a tool of the manifest has a preview, and it exports none (world previewing-plugin)".to_owned(),
                Some(_) => "it exports previews, and no tool of the manifest has one".to_owned(),
            }));
        }
        Ok(Self {
            mark: format!("plugin:{}@{}", manifest.name, package.digest),
            name: manifest.name,
            version: manifest.version,
            digest: package.digest,
            component: Digest::of(&package.component),
            by,
            tools,
            signals: manifest.signals,
            grant,
            dropped: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            engine: engine.clone(),
            made,
            slots: Semaphore::new(limits.concurrent as usize),
            crashes: Mutex::default(),
            quarantine: OnceLock::new(),
            withdrawn: AtomicBool::new(false),
            on_quarantine,
            home,
        })
    }

    /// Why it is kept out, if it is.
    pub(crate) fn quarantined(&self) -> Option<&str> {
        self.quarantine.get().map(String::as_str)
    }

    /// It is not in use any more; whoever still holds one of its tools is refused.
    pub(crate) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::SeqCst);
    }

    /// Whether it was [`Plugin::withdraw`]n.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::SeqCst)
    }

    /// Calls made and calls that did not end well, since it was loaded.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// Runs a tool.
    pub(crate) async fn call_tool(
        &self,
        permit: &Permit,
        exchange: &dyn Exchange,
        tool: &str,
        arguments: &str,
    ) -> Result<ToolResult, Fault> {
        match self.run(permit, Some(exchange), &format!("tool {tool}"), Work::Tool { tool, arguments }).await? {
            Done::Tool(result) => Ok(result),
            Done::Answer(_) | Done::Preview(_) => Err(not_asked()),
        }
    }

    /// Asks what a tool would do. Through HTTP it gets as far as `way` lets it.
    pub(crate) async fn preview_tool(
        &self,
        permit: &Permit,
        way: Way,
        tool: &str,
        arguments: &str,
    ) -> Result<ToolPreview, Fault> {
        let what = format!("preview of {tool}");
        match self.run(permit, None, &what, Work::Preview { tool, arguments, way }).await? {
            Done::Preview(preview) => Ok(preview),
            Done::Tool(_) | Done::Answer(_) => Err(not_asked()),
        }
    }

    /// Asks it as a source.
    pub(crate) async fn ask(&self, permit: &Permit, question: &Question) -> Result<Answer, Fault> {
        let what = format!("question {}", convert::name_of(question));
        match self.run(permit, None, &what, Work::Question(question)).await? {
            Done::Answer(answer) => Ok(answer),
            Done::Tool(_) | Done::Preview(_) => Err(not_asked()),
        }
    }

    /// One call from its place in the queue to its note in the record.
    async fn run(&self, permit: &Permit, exchange: Option<&dyn Exchange>, what: &str, work: Work<'_>) -> Result<Done, Fault> {
        if let Some(reason) = self.quarantined() {
            return Err(self.kept_out(reason));
        }
        if self.is_withdrawn() {
            return Err(Fault::new(FaultCode::Unavailable, format!("plugin '{}' is not in use any more", self.name)));
        }
        let mut note = Note::begin(self, permit, what);
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (outcome, result) = match self.run_in_place(permit, exchange, work).await {
            Ok(Ok(value)) => {
                self.went_well();
                ("ok".to_owned(), Ok(value))
            }
            Ok(Err(fault)) => {
                self.went_well();
                (format!("fault {}", convert::code_of(fault.code).as_str()), Err(convert::fault(&self.name, &fault)))
            }
            Err(Broken::Busy(limit)) => (format!("refused, limit {limit}"), Err(self.busy(limit))),
            Err(Broken::Limit { limit, own }) => {
                if own {
                    self.crashed(&format!("limit {limit}"));
                }
                (format!("stopped, limit {limit}"), Err(self.over(limit)))
            }
            Err(Broken::Late) => {
                let fault = Fault::new(FaultCode::DeadlineExceeded, format!("plugin '{}' did not answer in time", self.name));
                ("stopped at the deadline of the call".to_owned(), Err(fault.with_hint("narrow the question")))
            }
            Err(Broken::Crash(reason)) => {
                self.crashed(&reason);
                let fault = Fault::backend(format!("plugin '{}' crashed", self.name), format!("plugin {}: {reason}", self.name));
                ("crashed".to_owned(), Err(fault))
            }
        };
        if result.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        note.end(&outcome);
        result
    }

    fn went_well(&self) {
        self.crashes.lock().unwrap_or_else(PoisonError::into_inner).in_a_row = 0;
    }

    async fn run_in_place(
        &self,
        permit: &Permit,
        exchange: Option<&dyn Exchange>,
        work: Work<'_>,
    ) -> Result<Result<Done, wit::Fault>, Broken> {
        let limits = self.home.limits;
        let busy = |_elapsed| Broken::Busy(Exceeded::Concurrent(limits.concurrent));
        let waited = WAIT_FOR_PLACE.min(permit.time_left());
        let _slot = tokio::time::timeout(waited, self.slots.acquire()).await.map_err(busy)?;
        let _place = tokio::time::timeout(waited, self.engine.places.acquire()).await.map_err(busy)?;
        let wall = Instant::now() + Duration::from_millis(u64::from(limits.wall_ms));
        let deadline = permit.deadline().min(wall);
        let permit = permit.with_deadline_at_most(deadline);
        let (progress, mut said) = unbounded_channel();
        let way = work.way(deadline);
        // What is read for a preview is read as its reader may.
        let seen_as = if let Way::Reading(reading) = &way { (**reading).clone() } else { permit.clone() };
        let trail = permit.trail().clone();
        let call = Underway { permit, way, scope: CacheScope::of(&seen_as), progress };
        let context = convert::context(&seen_as, limits.result);
        let _clock = self.engine.running();
        let state = CallState::new(self.home.clone(), Some(call), deadline);
        let mut store = self.engine.store(state).map_err(|error| Broken::Crash(reason_of(&error)))?;
        let ended = {
            let call = work.done(&self.made, &mut store, &context);
            tokio::pin!(call);
            let timed = async {
                loop {
                    tokio::select! {
                        biased;
                        ended = &mut call => break ended,
                        Some(message) = said.recv() => {
                            if let Some(exchange) = exchange {
                                exchange.progress(message.done, message.total, &message.message);
                            }
                        }
                    }
                }
            };
            tokio::time::timeout_at(deadline.into(), timed).await
        };
        if store.data().held_back > 0 {
            trail.note(format!("{} requests of a preview were held back", store.data().held_back));
        }
        // What was said on the way to an answer belongs before it.
        while let (Some(exchange), Ok(message)) = (exchange, said.try_recv()) {
            exchange.progress(message.done, message.total, &message.message);
        }
        match ended {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(error)) => Err(self.broken(&store, &error)),
            Err(_elapsed) if deadline < wall => Err(Broken::Late),
            // Somebody else's slowness is not the plugin's fault.
            Err(_elapsed) => {
                let own = store.data().waited_for().as_millis() < u128::from(limits.wall_ms / 2);
                Err(Broken::Limit { limit: Exceeded::Wall(limits.wall_ms), own })
            }
        }
    }

    fn broken(&self, store: &Store<CallState>, error: &wasmtime::Error) -> Broken {
        let limits = self.home.limits;
        if let Some(limit) = store.data().exceeded {
            return Broken::of(limit);
        }
        if error.downcast_ref::<Trap>() == Some(&Trap::OutOfFuel) {
            return Broken::of(Exceeded::Fuel(limits.fuel));
        }
        if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
            return Broken::Busy(Exceeded::Concurrent(limits.concurrent));
        }
        let reason = reason_of(error);
        // The engine has no type for this end.
        if reason.contains("fuel allocated for hostcalls") {
            return Broken::of(Exceeded::Result(limits.result));
        }
        Broken::Crash(reason)
    }

    fn kept_out(&self, reason: &str) -> Fault {
        Fault::new(FaultCode::Unavailable, format!("plugin '{}' is in quarantine until an operator enables it anew", self.name))
            .with_internal(format!("plugin {} is in quarantine: {reason}", self.name))
    }

    fn busy(&self, limit: Exceeded) -> Fault {
        Fault::new(FaultCode::RateLimited, format!("plugin '{}' is busy: limit {limit}", self.name)).with_retry_after(1)
    }

    fn over(&self, limit: Exceeded) -> Fault {
        let code = match limit {
            Exceeded::Result(_) => FaultCode::TooLarge,
            Exceeded::Wall(_) | Exceeded::Cpu(_) | Exceeded::Fuel(_) => FaultCode::DeadlineExceeded,
            Exceeded::Concurrent(_) => FaultCode::RateLimited,
            Exceeded::Memory(_) | Exceeded::HttpCalls(_) | Exceeded::LogLines(_) => FaultCode::BackendFailed,
        };
        let message = format!("plugin '{}' was stopped: it used up its limit {limit}", self.name);
        Fault::new(code, message.clone())
            .with_hint("narrow the question; the operator can raise limits of plugins")
            .with_internal(message)
    }

    fn crashed(&self, reason: &str) {
        tracing::warn!(target: "portcullis::plugin", plugin = self.name.as_str(), "a call was ended: {reason}");
        let now = Instant::now();
        let too_often = {
            let mut crashes = self.crashes.lock().unwrap_or_else(PoisonError::into_inner);
            crashes.in_a_row += 1;
            crashes.recent.push_back(now);
            while crashes.recent.front().is_some_and(|at| now.duration_since(*at) > CRASH_WINDOW) {
                crashes.recent.pop_front();
            }
            crashes.in_a_row >= CRASHES_IN_A_ROW || crashes.recent.len() >= CRASHES_IN_ALL
        };
        if too_often {
            let words = format!(
                "it crashed {CRASHES_IN_A_ROW} times in a row, or {CRASHES_IN_ALL} times within 10 minutes; last: {reason}"
            );
            if self.quarantine.set(words.clone()).is_ok() {
                (self.on_quarantine)(self, &words);
            }
        }
    }
}

/// What a call is to do.
enum Work<'a> {
    Tool { tool: &'a str, arguments: &'a str },
    Question(&'a Question),
    Preview { tool: &'a str, arguments: &'a str, way: Way },
}

/// What came of it.
enum Done {
    Tool(ToolResult),
    Answer(Answer),
    Preview(ToolPreview),
}

fn not_asked() -> Fault {
    Fault::new(FaultCode::Internal, "a plugin answered what it was not asked")
}

impl Work<'_> {
    /// What of HTTP is open to it, until `deadline`.
    fn way(&self, deadline: Instant) -> Way {
        match self {
            Self::Preview { way: Way::Reading(reading), .. } => Way::Reading(Box::new(reading.with_deadline_at_most(deadline))),
            Self::Preview { way, .. } => way.clone(),
            Self::Tool { .. } | Self::Question(_) => Way::Open,
        }
    }

    async fn done(
        self,
        made: &Made,
        store: &mut Store<CallState>,
        context: &wit::Context,
    ) -> wasmtime::Result<Result<Done, wit::Fault>> {
        let answered = match self {
            Self::Tool { tool, arguments } => {
                let world = made.world.instantiate_async(&mut *store).await?;
                let result = world.portcullis_plugin_guest().call_call_tool(&mut *store, tool, arguments, context).await?;
                result.map(|result| (convert::size_of_result(&result), Done::Tool(result)))
            }
            Self::Question(question) => {
                let world = made.world.instantiate_async(&mut *store).await?;
                let answer = world.portcullis_plugin_guest().call_answer_question(&mut *store, question, context).await?;
                answer.map(|answer| (convert::size_of_answer(&answer), Done::Answer(answer)))
            }
            Self::Preview { tool, arguments, .. } => {
                let foresight = made.foresight.as_ref().ok_or_else(|| wasmtime::format_err!("it exports no previews"))?;
                let world = foresight.instantiate_async(&mut *store).await?;
                let preview = world.portcullis_plugin_preview().call_preview_tool(&mut *store, tool, arguments, context).await?;
                preview.map(|preview| (preview::size_of(&preview), Done::Preview(preview)))
            }
        };
        let (size, done) = match answered {
            Ok(answered) => answered,
            Err(fault) => return Ok(Err(fault)),
        };
        let limit = store.data().home.limits.result;
        if size > limit {
            return Err(store.data_mut().exceed(Exceeded::Result(limit)));
        }
        Ok(Ok(done))
    }
}

/// How a call ended without an answer.
enum Broken {
    /// It never began.
    Busy(Exceeded),
    /// `own`: by computing, which counts as a crash. What a large question or a slow backend brings about does not.
    Limit {
        limit: Exceeded,
        own: bool,
    },
    /// The caller's own time was over.
    Late,
    Crash(String),
}

impl Broken {
    fn of(limit: Exceeded) -> Self {
        Self::Limit { limit, own: matches!(limit, Exceeded::Memory(_) | Exceeded::Cpu(_) | Exceeded::Fuel(_)) }
    }
}

/// Why a call ended, in one line. The frames it ended in are for the author of the plugin, in the log.
fn reason_of(error: &wasmtime::Error) -> String {
    tracing::debug!(target: "portcullis::plugin", "{}", clean(&format!("{error:#}")));
    portcullis_model::cut::beginning(&clean(&error.root_cause().to_string()), 300).text.into_owned()
}

/// The note about one call, also when the call is given up half-way.
struct Note<'a> {
    plugin: &'a Plugin,
    permit: &'a Permit,
    what: &'a str,
    began: Instant,
    ended: bool,
}

impl<'a> Note<'a> {
    fn begin(plugin: &'a Plugin, permit: &'a Permit, what: &'a str) -> Self {
        permit.trail().reached(plugin.mark());
        Self { plugin, permit, what, began: Instant::now(), ended: false }
    }

    fn end(&mut self, outcome: &str) {
        self.ended = true;
        let Plugin { name, version, .. } = self.plugin;
        let millis = self.began.elapsed().as_millis();
        self.permit.trail().note(format!("plugin {name} {version} {}: {outcome}, {millis} ms", self.what));
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end("given up");
        }
    }
}

async fn describe(engine: &PluginEngine, made: &Made, home: &Arc<Home>) -> Result<wit::Description, LoadError> {
    let failed = |error: &wasmtime::Error| LoadError::Describe(reason_of(error));
    let _clock = engine.running();
    let mut store = engine.store(engine::describing(home.clone())).map_err(|error| failed(&error))?;
    let wall = Duration::from_millis(u64::from(home.limits.wall_ms));
    let work = async {
        let world = made.world.instantiate_async(&mut store).await?;
        world.portcullis_plugin_guest().call_describe(&mut store).await
    };
    let described = tokio::time::timeout(wall, work).await;
    match described {
        Ok(Ok(description)) => Ok(description),
        Ok(Err(error)) => match store.data().exceeded {
            Some(limit) => Err(LoadError::Describe(format!("it used up its limit {limit}"))),
            None => Err(failed(&error)),
        },
        Err(_elapsed) => Err(LoadError::Describe("it took too long".to_owned())),
    }
}

/// Compares what a component says with its manifest. Whatever differs is no plugin.
fn checked(manifest: &Manifest, said: wit::Description) -> Result<Vec<Described>, LoadError> {
    let forged = |reason: String| LoadError::Forged(reason);
    let mut wanted: BTreeMap<&str, &ManifestTool> = manifest.tools.iter().map(|tool| (tool.name.as_str(), tool)).collect();
    let signals = said.signals.iter().map(|signal| convert::signal(*signal)).collect();
    if manifest.signals != signals {
        return Err(forged("it answers other signals".to_owned()));
    }
    let mut tools = Vec::new();
    for tool in said.tools {
        let shown = clean(&tool.name).chars().take(64).collect::<String>();
        let Some(&ManifestTool { risk, ref preview, .. }) = wanted.remove(tool.name.as_str()) else {
            return Err(forged(format!("it describes a tool '{shown}', which the manifest does not name, or names once")));
        };
        if convert::risk(tool.risk) != risk {
            return Err(forged(format!("tool '{shown}' has another risk class")));
        }
        for (what, text, most) in [
            ("title", &tool.title, MOST_TITLE),
            ("description", &tool.description, MOST_DESCRIPTION),
            ("input schema", &tool.input_schema, MOST_SCHEMA),
            ("output schema", tool.output_schema.as_ref().unwrap_or(&String::new()), MOST_SCHEMA),
        ] {
            if text.len() > most {
                return Err(forged(format!("the {what} of tool '{shown}' is longer than {most} bytes")));
            }
        }
        let seen = |what: &str, hidden: Option<char>| match hidden {
            Some(c) => Err(forged(format!("the {what} of tool '{shown}' holds the hidden character U+{:04X}", u32::from(c)))),
            None => Ok(()),
        };
        seen("title", hidden(&tool.title))?;
        seen("description", hidden(&tool.description))?;
        let schema = |what: &str, text: &str| -> Result<Value, LoadError> {
            let value: Value = serde_json::from_str(text)
                .map_err(|error| forged(format!("the {what} schema of tool '{shown}' is no JSON: {error}")))?;
            // As it will be read: what is written as an escape is a character by now.
            seen(&format!("{what} schema"), hidden_within(&value))?;
            if value.get("type").and_then(Value::as_str) != Some("object") {
                return Err(forged(format!("the {what} schema of tool '{shown}' is not that of an object")));
            }
            Ok(value)
        };
        let input_schema = schema("input", &tool.input_schema)?;
        if preview.is_some() && !offer_dry_run(&mut input_schema.clone()) {
            return Err(forged(format!("tool '{shown}' has a preview, and an argument '{DRY_RUN}' of its own")));
        }
        tools.push(Described {
            preview: preview.clone(),
            input_schema,
            output_schema: tool.output_schema.as_deref().map(|text| schema("output", text)).transpose()?,
            name: tool.name,
            title: tool.title,
            description: tool.description,
            risk,
            idempotent: tool.idempotent,
            open_world: tool.open_world,
        });
    }
    match wanted.keys().next() {
        Some(missing) => Err(forged(format!("it does not describe the tool '{missing}' of the manifest"))),
        None => Ok(tools),
    }
}

/// The first character that a person does not see and a model reads.
fn hidden(text: &str) -> Option<char> {
    text.chars().find(|c| is_hidden(*c) || ('\u{fe00}'..='\u{fe0f}').contains(c))
}

/// The same of everything in a value, names of members included.
fn hidden_within(value: &Value) -> Option<char> {
    match value {
        Value::String(text) => hidden(text),
        Value::Array(items) => items.iter().find_map(hidden_within),
        Value::Object(members) => members.iter().find_map(|(name, value)| hidden(name).or_else(|| hidden_within(value))),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(input_schema: &str, description: &str) -> wit::Description {
        let tool = wit::Tool {
            name: "probe_do".into(),
            title: "Probe".into(),
            description: description.into(),
            risk: wit::Risk::Read,
            idempotent: true,
            open_world: false,
            input_schema: input_schema.into(),
            output_schema: Some(r#"{"type": "object"}"#.into()),
        };
        wit::Description { tools: vec![tool], signals: Vec::new() }
    }

    #[test]
    fn hidden_characters_are_found_however_they_are_written() {
        let manifest = "{schema: 1, name: probe, version: 1.0.0, host: ^1.0, summary: s, licence: MIT, homepage: 'https://e.org', \
                        tools: [{name: probe_do, risk: read}]}";
        let manifest = Manifest::from_yaml(manifest).unwrap();
        let plain = "{\r\n\t\"type\": \"object\", \"description\": \"Größe 日本 \\n\\t \\u00e9\"}";
        assert!(checked(&manifest, described(plain, "Two\nlines.")).is_ok(), "{:?}", checked(&manifest, described(plain, "")));
        for (schema, description, says) in [
            (
                r#"{"type": "object", "description": "a\u200bb"}"#,
                "",
                "input schema of tool 'probe_do' holds the hidden character U+200B",
            ),
            (r#"{"type": "object", "properties": {"a\u202e": {}}}"#, "", "U+202E"),
            (r#"{"type": "object", "examples": [{"x": ["\udb40\udc41"]}]}"#, "", "U+E0041"),
            (r#"{"type": "object", "description": "\u001b[8m"}"#, "", "U+001B"),
            (r#"{"type": "object", "description": "\u3164"}"#, "", "U+3164"),
            (r#"{"type": "object", "description": "\ufe0f"}"#, "", "U+FE0F"),
            ("{\"type\": \"object\", \"description\": \"a\u{200b}b\"}", "", "U+200B"),
            (r#"{"type": "object"}"#, "a\u{2060}b", "description of tool 'probe_do' holds the hidden character U+2060"),
        ] {
            let refused = checked(&manifest, described(schema, description)).unwrap_err().to_string();
            assert!(refused.contains(says), "{schema}: {refused}");
        }
    }
}
