//! What one call has and what it may still spend. Guards that every limit, once exceeded, ends the call and is named. Lives as
//! long as the call: nothing of it is seen by the next one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_policy::Permit;
use tokio::sync::mpsc::UnboundedSender;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, StoreContextMut, UpdateDeadline, format_err};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::Limits;
use crate::cache::{CacheScope, PluginCache};
use crate::engine::TICK;
use crate::outside::Outside;
use crate::stdio::Speech;

/// Most elements of all tables of a call together.
const MOST_TABLE_ELEMENTS: usize = 200_000;
/// Most secrets a call may read, the same one again included.
const MOST_SECRETS: u32 = 64;
/// Most resources (streams, pollables) a call may hold.
pub(crate) const MOST_RESOURCES: usize = 1_000;

/// A limit a call ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// Bytes of memory.
    #[error("memory ({} MiB)", .0 >> 20)]
    Memory(u64),
    /// Milliseconds of processor time.
    #[error("cpu_ms ({0} ms of processor time)")]
    Cpu(u32),
    /// Instructions.
    #[error("fuel_millions ({} million instructions)", .0 / 1_000_000)]
    Fuel(u64),
    /// Milliseconds, waiting included.
    #[error("wall_ms ({0} ms)")]
    Wall(u32),
    /// Bytes of the result.
    #[error("result ({0} bytes)")]
    Result(u64),
    /// HTTP requests.
    #[error("http_calls ({0} requests)")]
    HttpCalls(u32),
    /// Log lines and progress messages.
    #[error("log_lines ({0} lines)")]
    LogLines(u32),
    /// Calls at once.
    #[error("concurrent ({0} calls at once)")]
    Concurrent(u32),
}

/// What all calls of one plugin share. Nothing in it belongs to a caller; the cache keeps callers apart itself.
pub(crate) struct Home {
    pub(crate) name: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) outside: Outside,
    pub(crate) cache: PluginCache,
    pub(crate) settings: String,
}

/// A message of progress.
pub(crate) struct Progress {
    pub(crate) done: f64,
    pub(crate) total: Option<f64>,
    pub(crate) message: String,
}

/// What of HTTP is open to a call.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// Whatever the operator granted.
    Open,
    /// What only reads, under this permit: a call tells what it would do.
    Reading(Box<Permit>),
    /// Nothing, and why.
    Closed(Arc<str>),
}

/// On whose behalf a call runs.
pub(crate) struct Underway {
    pub(crate) permit: Permit,
    pub(crate) way: Way,
    pub(crate) scope: CacheScope,
    pub(crate) progress: UnboundedSender<Progress>,
}

/// The state of one call.
pub(crate) struct CallState {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(crate) home: Arc<Home>,
    /// Nobody's while a plugin describes itself.
    pub(crate) call: Option<Underway>,
    pub(crate) deadline: Instant,
    pub(crate) exceeded: Option<Exceeded>,
    pub(crate) speech: Arc<Mutex<Speech>>,
    memory: u64,
    elements: usize,
    http_calls: u32,
    ticks: u32,
    /// Since when the call waits for something outside, and how long it did before.
    waiting_since: Option<Instant>,
    waited_for: Duration,
    /// It waited for at least a tick, so the one that ended meanwhile is not its own.
    waited: bool,
    secrets_read: u32,
    /// Requests that a preview did not get through.
    pub(crate) held_back: u32,
}

impl CallState {
    pub(crate) fn new(home: Arc<Home>, call: Option<Underway>, deadline: Instant) -> Self {
        let speech = Speech::new(home.name.clone(), home.limits.log_lines);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MOST_RESOURCES);
        Self {
            wasi: crate::engine::nothing(&speech),
            table,
            home,
            call,
            deadline,
            exceeded: None,
            speech,
            memory: 0,
            elements: 0,
            http_calls: 0,
            ticks: 0,
            waiting_since: None,
            waited_for: Duration::ZERO,
            waited: false,
            secrets_read: 0,
            held_back: 0,
        }
    }

    /// Ends the call.
    pub(crate) fn exceed(&mut self, limit: Exceeded) -> wasmtime::Error {
        self.exceeded = Some(limit);
        format_err!("the call used up its limit {limit}")
    }

    /// Counts an HTTP request.
    pub(crate) fn count_request(&mut self) -> wasmtime::Result<()> {
        let most = self.home.limits.http_calls;
        if self.http_calls >= most {
            return Err(self.exceed(Exceeded::HttpCalls(most)));
        }
        self.http_calls += 1;
        Ok(())
    }

    /// Waits for something outside. What that takes is not the call's own processor time, and only that.
    pub(crate) async fn wait<T>(&mut self, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        self.waiting_since = Some(began);
        let done = work.await;
        self.waiting_since = None;
        let took = began.elapsed();
        self.waited_for += took;
        self.waited |= took >= TICK;
        done
    }

    /// How long the call waited for others.
    pub(crate) fn waited_for(&self) -> Duration {
        self.waited_for + self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Counts a secret that is read. `false`: it were too many.
    pub(crate) fn count_secret(&mut self) -> bool {
        self.secrets_read += 1;
        self.secrets_read <= MOST_SECRETS
    }

    /// Counts a line or message.
    pub(crate) fn count_line(&mut self) -> wasmtime::Result<()> {
        let taken = self.speech.lock().unwrap_or_else(PoisonError::into_inner).take();
        if taken { Ok(()) } else { Err(self.exceed(Exceeded::LogLines(self.home.limits.log_lines))) }
    }

    /// Called on every tick the call computes through.
    pub(crate) fn tick(mut store: StoreContextMut<'_, Self>) -> wasmtime::Result<UpdateDeadline> {
        let state = store.data_mut();
        if !std::mem::take(&mut state.waited) {
            state.ticks += 1;
        }
        let spent = u64::from(state.ticks) * TICK.as_millis() as u64;
        let most = state.home.limits.cpu_ms;
        if spent > u64::from(most) {
            return Err(state.exceed(Exceeded::Cpu(most)));
        }
        Ok(UpdateDeadline::Yield(1))
    }
}

impl ResourceLimiter for CallState {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.memory.saturating_sub(current as u64).saturating_add(desired as u64);
        if wanted > self.home.limits.memory {
            return Err(self.exceed(Exceeded::Memory(self.home.limits.memory)));
        }
        self.memory = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.elements.saturating_sub(current).saturating_add(desired);
        if wanted > MOST_TABLE_ELEMENTS {
            return Err(self.exceed(Exceeded::Memory(self.home.limits.memory)));
        }
        self.elements = wanted;
        Ok(true)
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
