//! What one call of a plugin may spend. Guards that a manifest can only ask: the operator's caps decide.

use portcullis_config::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits as a manifest asks for them, or as an operator caps them; what is absent is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// Memory of one call; 64MiB when a manifest asks for none, at most 256MiB when the operator says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Milliseconds of processor time of one call; 1000, at most 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u32>,
    /// Millions of instructions of one call; 2000, at most 20000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel_millions: Option<u32>,
    /// Milliseconds of one call, waiting included; 10000, at most 30000. The deadline of the caller comes on top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u32>,
    /// Calls at once; 4, at most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// Bytes of one result, all texts together; 1MiB, at most 8MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ByteSize>,
    /// HTTP requests of one call; 8, at most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_calls: Option<u32>,
    /// Log lines and progress messages of one call; 50, at most 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_lines: Option<u32>,
    /// Bytes of the cache of one scope; 256KiB, at most 8MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<ByteSize>,
}

impl LimitSettings {
    /// These, and what they say nothing of as in `general`.
    #[must_use]
    pub fn over(&self, general: &Self) -> Self {
        Self {
            memory: self.memory.or(general.memory),
            cpu_ms: self.cpu_ms.or(general.cpu_ms),
            fuel_millions: self.fuel_millions.or(general.fuel_millions),
            wall_ms: self.wall_ms.or(general.wall_ms),
            concurrent: self.concurrent.or(general.concurrent),
            result: self.result.or(general.result),
            http_calls: self.http_calls.or(general.http_calls),
            log_lines: self.log_lines.or(general.log_lines),
            cache: self.cache.or(general.cache),
        }
    }
}

/// Limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes of memory of one call.
    pub memory: u64,
    /// Milliseconds of processor time.
    pub cpu_ms: u32,
    /// Instructions, roughly.
    pub fuel: u64,
    /// Milliseconds, waiting included.
    pub wall_ms: u32,
    /// Calls at once.
    pub concurrent: u32,
    /// Bytes of one result.
    pub result: u64,
    /// HTTP requests of one call.
    pub http_calls: u32,
    /// Log lines and progress messages of one call.
    pub log_lines: u32,
    /// Bytes of the cache of one scope.
    pub cache: u64,
}

/// Largest memory an operator may allow: what an instance of the pool holds.
pub(crate) const MOST_MEMORY: u64 = 512 << 20;

impl Limits {
    /// What a manifest asks for, capped by the operator.
    pub fn of(asked: &LimitSettings, caps: &LimitSettings) -> Self {
        let bytes = |asked: Option<ByteSize>, default: u64, cap: Option<ByteSize>, most: u64| {
            asked.map_or(default, |size| size.0).min(cap.map_or(most, |size| size.0))
        };
        let number =
            |asked: Option<u32>, default: u32, cap: Option<u32>, most: u32| asked.unwrap_or(default).min(cap.unwrap_or(most));
        Self {
            memory: bytes(asked.memory, 64 << 20, caps.memory, 256 << 20).min(MOST_MEMORY),
            cpu_ms: number(asked.cpu_ms, 1_000, caps.cpu_ms, 5_000).max(1),
            fuel: u64::from(number(asked.fuel_millions, 2_000, caps.fuel_millions, 20_000)) * 1_000_000,
            wall_ms: number(asked.wall_ms, 10_000, caps.wall_ms, 30_000).max(1),
            concurrent: number(asked.concurrent, 4, caps.concurrent, 16).max(1),
            result: bytes(asked.result, 1 << 20, caps.result, 8 << 20),
            http_calls: number(asked.http_calls, 8, caps.http_calls, 64),
            log_lines: number(asked.log_lines, 50, caps.log_lines, 500),
            cache: bytes(asked.cache, 256 << 10, caps.cache, 8 << 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_asks_and_the_operator_decides() {
        let none = LimitSettings::default();
        let asked = LimitSettings { memory: Some(ByteSize(1 << 40)), cpu_ms: Some(u32::MAX), ..none };
        let limits = Limits::of(&asked, &none);
        assert_eq!((limits.memory, limits.cpu_ms, limits.wall_ms), (256 << 20, 5_000, 10_000));
        let caps = LimitSettings { memory: Some(ByteSize(8 << 20)), http_calls: Some(0), ..none };
        let limits = Limits::of(&asked, &caps);
        assert_eq!((limits.memory, limits.http_calls), (8 << 20, 0));
        let wide = LimitSettings { memory: Some(ByteSize(1 << 50)), ..none };
        assert_eq!(Limits::of(&asked, &wide).memory, MOST_MEMORY);
        assert_eq!(Limits::of(&none, &wide).memory, 64 << 20);
    }

    #[test]
    fn what_one_word_says_nothing_of_is_left_to_the_other() {
        let none = LimitSettings::default();
        // Every limit, so that none is forgotten: serialised, the two differ in each member.
        let all = |number: u32| LimitSettings {
            memory: Some(ByteSize(number.into())),
            cpu_ms: Some(number),
            fuel_millions: Some(number),
            wall_ms: Some(number),
            concurrent: Some(number),
            result: Some(ByteSize(number.into())),
            http_calls: Some(number),
            log_lines: Some(number),
            cache: Some(ByteSize(number.into())),
        };
        assert_eq!(none.over(&all(7)), all(7));
        assert_eq!(all(9).over(&all(7)), all(9));
        let one = LimitSettings { cpu_ms: Some(2_000), ..none };
        assert_eq!(one.over(&all(7)), LimitSettings { cpu_ms: Some(2_000), ..all(7) });
    }
}
