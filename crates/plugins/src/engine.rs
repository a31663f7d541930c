//! The engine all plugins share. Guards what WASI gives (nothing), how computing is interrupted, and that compiled code
//! never comes from a place where somebody could have changed it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Semaphore;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Store};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx};

use crate::Digest;
use crate::bindings::foresight::ForesightPre;
use crate::bindings::{Plugin as World, PluginPre};
use crate::compiled::CompiledStore;
use crate::limits::MOST_MEMORY;
use crate::outside::MOST_BODY;
use crate::state::{CallState, Home};
use crate::stdio::{LogStream, Speech};

/// How often computing is interrupted, and what processor time is counted in.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Clocks are no finer than this.
const GRAIN: Duration = Duration::from_millis(1);
/// Largest random text of one request.
const MOST_RANDOM: u64 = 64 << 10;
/// What an answer or a request may take of the host's memory while it is read, besides its limit.
const READING: u64 = 1 << 20;

/// What one component may be made of.
const MOST_MODULES: u32 = 100;
const MOST_MEMORIES: u32 = 4;
const MOST_TABLES: u32 = 20;

/// Interfaces a component may import, by the part before the `/`.
const IMPORTS: [&str; 7] =
    ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets", "portcullis:plugin"];

/// What a component exports that can tell what its writing tools would do.
const PREVIEW: &str = "portcullis:plugin/preview@1.1.0";

/// A component ready to be called.
pub(crate) struct Made {
    pub(crate) world: PluginPre<CallState>,
    /// How it is asked what a writing tool would do, where it can tell.
    pub(crate) foresight: Option<ForesightPre<CallState>>,
}

/// The engine or a component that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// This machine gives not what the engine needs.
    #[error("WebAssembly cannot be run here: {0}")]
    Engine(String),
    /// The component is not valid, or not of this world.
    #[error("the component cannot be loaded: {0}")]
    Component(String),
}

/// The engine, its clock and its pool.
pub(crate) struct PluginEngine {
    pub(crate) engine: Engine,
    linker: Linker<CallState>,
    /// Calls of all plugins at once.
    pub(crate) places: Semaphore,
    ticker: Arc<Ticker>,
    compiled: Option<Arc<CompiledStore>>,
    compiling: Mutex<()>,
}

impl PluginEngine {
    /// With room for `concurrent` calls. Compiled code is kept in `compiled`, where there is one.
    pub(crate) fn new(concurrent: u32, compiled: Option<CompiledStore>) -> Result<Self, EngineError> {
        let failed = |error: wasmtime::Error| EngineError::Engine(format!("{error:#}"));
        let compiled = compiled.map(Arc::new);
        let pooled = configuration(Some(pool(concurrent)), compiled.clone()).and_then(|config| Engine::new(&config));
        let engine = pooled.or_else(|error| {
            // A pool reserves much address space, which not every machine gives; without one calls are slower.
            tracing::warn!(target: "portcullis::plugin", "instances are not pooled: {error:#}");
            Engine::new(&configuration(None, compiled.clone())?)
        });
        let engine = engine.map_err(failed)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(failed)?;
        World::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut CallState| state).map_err(failed)?;
        let ticker = Ticker::start(engine.clone()).map_err(|error| EngineError::Engine(error.to_string()))?;
        let places = Semaphore::new(concurrent as usize);
        Ok(Self { engine, linker, places, ticker, compiled, compiling: Mutex::default() })
    }

    /// Compiles a component. Takes seconds for large ones.
    pub(crate) fn compile(&self, bytes: &[u8]) -> Result<Made, EngineError> {
        let failed = |error: wasmtime::Error| EngineError::Component(format!("{error:#}").chars().take(1_000).collect());
        let component = {
            let _one_at_a_time = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
            let digest = Digest::of(bytes);
            self.compiled.iter().for_each(|compiled| compiled.begin(digest));
            let component = Component::from_binary(&self.engine, bytes);
            self.compiled.iter().for_each(|compiled| compiled.finish(digest));
            component.map_err(failed)?
        };
        for (name, _) in component.component_type().imports(&self.engine) {
            let part = name.split_once('/').map_or(name, |(part, _)| part);
            if !IMPORTS.contains(&part) {
                let shown: String = name.chars().filter(|c| portcullis_guard::is_seen(*c)).take(100).collect();
                return Err(EngineError::Component(format!("it imports {shown}, which no plugin gets")));
            }
        }
        let linked = self.linker.instantiate_pre(&component).map_err(failed)?;
        let previews = component.get_export_index(None, PREVIEW).is_some();
        let foresight = previews.then(|| ForesightPre::new(linked.clone())).transpose().map_err(failed)?;
        Ok(Made { world: PluginPre::new(linked).map_err(failed)?, foresight })
    }

    /// Forgets compiled code of components that are not among `keep`.
    pub(crate) fn sweep(&self, keep: &[Digest]) {
        let _one_at_a_time = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        self.compiled.iter().for_each(|compiled| compiled.sweep(keep));
    }

    /// A fresh place for one call.
    pub(crate) fn store(&self, state: CallState) -> wasmtime::Result<Store<CallState>> {
        let limits = state.home.limits;
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| state);
        store.set_fuel(limits.fuel)?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(CallState::tick);
        let reading = limits.result.saturating_mul(4).max(MOST_BODY as u64).saturating_add(READING);
        store.set_hostcall_fuel(usize::try_from(reading).unwrap_or(usize::MAX));
        Ok(store)
    }

    /// The clock runs as long as this is held.
    pub(crate) fn running(&self) -> Running {
        self.ticker.change(|state| state.active += 1);
        Running(self.ticker.clone())
    }
}

impl Drop for PluginEngine {
    fn drop(&mut self) {
        self.ticker.change(|state| state.stopped = true);
    }
}

fn pool(concurrent: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    // A component that a compiler made of many modules (an interpreter with its libraries) has many of each. There is room for
    // as much as all calls at once may take, so that none takes another's.
    pool.total_component_instances(concurrent)
        .total_core_instances(concurrent.saturating_mul(MOST_MODULES))
        .max_core_instances_per_component(MOST_MODULES)
        .total_memories(concurrent.saturating_mul(MOST_MEMORIES))
        .max_memories_per_component(MOST_MEMORIES)
        .total_tables(concurrent.saturating_mul(MOST_TABLES))
        .max_tables_per_component(MOST_TABLES)
        .total_stacks(concurrent)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(4 << 20)
        .table_elements(100_000)
        .max_memory_size(MOST_MEMORY as usize);
    pool
}

fn configuration(pool: Option<PoolingAllocationConfig>, compiled: Option<Arc<CompiledStore>>) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .consume_fuel(true)
        .max_wasm_stack(1 << 20)
        .async_stack_size(2 << 20)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_component_model(true)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(8));
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    if let Some(compiled) = compiled {
        config.enable_incremental_compilation(compiled)?;
    }
    Ok(config)
}

/// What WASI gives: random numbers, coarse clocks, and standard output that goes to the log. No file, no environment, no
/// argument, no socket, no name lookup.
pub(crate) fn nothing(speech: &Arc<Mutex<Speech>>) -> WasiCtx {
    let mut wasi = WasiCtx::builder();
    wasi.allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(MOST_RANDOM)
        .wall_clock(CoarseClock)
        .monotonic_clock(CoarseMonotonic(Instant::now()))
        .stdout(LogStream(speech.clone()))
        .stderr(LogStream(speech.clone()));
    wasi.build()
}

fn coarse(time: Duration) -> Duration {
    let grain = GRAIN.as_nanos() as u64;
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(nanos / grain * grain)
}

struct CoarseClock;

impl HostWallClock for CoarseClock {
    fn resolution(&self) -> Duration {
        GRAIN
    }
    fn now(&self) -> Duration {
        coarse(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

struct CoarseMonotonic(Instant);

impl HostMonotonicClock for CoarseMonotonic {
    fn resolution(&self) -> u64 {
        GRAIN.as_nanos() as u64
    }
    fn now(&self) -> u64 {
        coarse(self.0.elapsed()).as_nanos() as u64
    }
}

/// Interrupts computing. Its thread sleeps while nothing is computed.
struct Ticker {
    state: Mutex<TickerState>,
    wake: Condvar,
}

#[derive(Default)]
struct TickerState {
    active: usize,
    stopped: bool,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self { state: Mutex::default(), wake: Condvar::new() });
        let own = ticker.clone();
        std::thread::Builder::new().name("plugin-clock".to_owned()).spawn(move || own.run(&engine))?;
        Ok(ticker)
    }

    fn run(&self, engine: &Engine) {
        loop {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            while state.active == 0 && !state.stopped {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopped {
                return;
            }
            drop(state);
            std::thread::sleep(TICK);
            engine.increment_epoch();
        }
    }

    fn change(&self, change: impl FnOnce(&mut TickerState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }
}

/// Keeps the clock running.
pub(crate) struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.change(|state| state.active = state.active.saturating_sub(1));
    }
}

/// The state of a plugin that describes itself.
pub(crate) fn describing(home: Arc<Home>) -> CallState {
    let deadline = Instant::now() + Duration::from_millis(u64::from(home.limits.wall_ms));
    CallState::new(home, None, deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component with nothing in it but an import of this instance, if any (Component Model, Binary.md).
    fn component(import: Option<&str>) -> Vec<u8> {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        if let Some(name) = import {
            let length = u8::try_from(name.len()).unwrap();
            bytes.extend([7, 3, 1, 0x42, 0]);
            bytes.extend([10, length + 5, 1, 0, length]);
            bytes.extend(name.as_bytes());
            bytes.extend([5, 0]);
        }
        bytes
    }

    #[test]
    fn a_component_that_asks_for_more_or_is_none_is_not_loaded() {
        let engine = PluginEngine::new(1, None).unwrap();
        let refused = |bytes: &[u8]| engine.compile(bytes).map(|_| ()).unwrap_err().to_string();
        for more in
            ["wasi:http/outgoing-handler@0.2.0", "wasi:keyvalue/store@0.2.0", "portcullis:pluginx/http@1.0.0", "evil:cli/x"]
        {
            let said = refused(&component(Some(more)));
            assert!(said.contains(&format!("it imports {more}, which no plugin gets")), "{said}");
        }
        // Of the right package, and not of this world.
        assert!(refused(&component(Some("portcullis:plugin/shell@1.0.0"))).contains("no exported instance"));
        assert!(refused(&component(None)).contains("no exported instance"));
        assert!(refused(b"\0asm\x0d\0\x01\0\x07\xff").contains("cannot be loaded"));
    }

    #[test]
    fn clocks_are_no_finer_than_a_millisecond() {
        assert_eq!(coarse(Duration::from_nanos(1_999_999)), Duration::from_millis(1));
        assert!(CoarseClock.now().as_nanos().is_multiple_of(1_000_000));
        assert!(CoarseMonotonic(Instant::now()).now().is_multiple_of(1_000_000));
    }
}
