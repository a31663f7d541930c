//! The limits of admission. Values only; nothing here counts.

use std::num::NonZeroU32;
use std::time::Duration;

/// A steady rate and what may come at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Events per second in the long run.
    pub per_second: NonZeroU32,
    /// Events at once after a pause.
    pub burst: NonZeroU32,
}

impl Rate {
    /// `per_second` in the long run and `burst` at once; zero counts as one.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let positive = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self { per_second: positive(per_second), burst: positive(burst) }
    }
}

/// Bytes of answer text that make one token, roughly: what the daily budget counts with.
pub const BYTES_PER_TOKEN: u64 = 4;

/// Limits of the admission stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Requests of one address before it is known who asks. IPv6 addresses count by their /64.
    pub address: Rate,
    /// Calls of one principal.
    pub principal: Rate,
    /// Calls of one tool by one principal.
    pub tool: Rate,
    /// Calls of one writing tool by one principal; counts instead of `tool`.
    pub write: Rate,
    /// Calls of all principals of one tenant together.
    pub tenant: Rate,
    /// Calls of all principals together.
    pub global: Rate,
    /// Calls of one principal in flight.
    pub concurrent_per_principal: u32,
    /// Calls of all principals of one tenant in flight.
    pub concurrent_per_tenant: u32,
    /// Calls in flight in all.
    pub concurrent: u32,
    /// Calls that may wait for a place, in all; further ones are refused at once.
    pub queue: u32,
    /// How long a call waits for a place.
    pub queue_time: Duration,
    /// Longest a call may take once it runs.
    pub deadline: Duration,
    /// Tokens of answers one principal may take per UTC day, by estimate; `None` is unlimited.
    pub tokens_per_day: Option<u64>,
    /// Tokens of answers all principals of one tenant may take per UTC day, by estimate; `None` is unlimited.
    pub tenant_tokens_per_day: Option<u64>,
    /// The most tokens the text of one answer can have, by estimate: set aside for a call before it begins.
    pub answer_tokens: u64,
}

impl LimitSettings {
    /// The defaults, with the same rate for whatever is counted by a rate.
    #[must_use]
    pub fn all_at(rate: Rate) -> Self {
        Self { address: rate, principal: rate, tool: rate, write: rate, tenant: rate, global: rate, ..Self::default() }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            address: Rate::new(200, 1_000),
            principal: Rate::new(50, 200),
            tool: Rate::new(20, 100),
            write: Rate::new(1, 5),
            tenant: Rate::new(1_000, 2_000),
            global: Rate::new(2_000, 4_000),
            concurrent_per_principal: 16,
            concurrent_per_tenant: 96,
            concurrent: 128,
            queue: 64,
            queue_time: Duration::from_secs(2),
            deadline: Duration::from_secs(30),
            tokens_per_day: Some(5_000_000),
            tenant_tokens_per_day: Some(100_000_000),
            answer_tokens: (96 << 10) / BYTES_PER_TOKEN,
        }
    }
}
