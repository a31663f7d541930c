//! Every random draw of the simulator, from one seed.
//!
//! Guards reproducibility: only raw 64-bit words are taken from the generator and shaped here, so that a new version
//! of the `rand` crate cannot change the telemetry of a seed. Nothing else in the crate may draw.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// Nanoseconds of one millisecond.
pub(crate) const MILLISECOND: i64 = 1_000_000;
/// Nanoseconds of one second.
pub(crate) const SECOND: i64 = 1_000_000_000;

/// A seeded source of draws.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// A source for `seed`; `stream` separates uses that must not disturb one another.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in `0..bound`; 0 when the bound is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// One of these; `None` only when there are none.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(self.below(choices.len() as u64) as usize)
    }

    /// One of these words; empty only when there are none.
    pub(crate) fn word(&mut self, choices: &[&'static str]) -> &'static str {
        self.pick(choices).copied().unwrap_or("")
    }

    /// Standard normal (Box and Muller, 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Log-normal duration in nanoseconds with this median and this sigma of the logarithm; at least 1 µs.
    pub(crate) fn duration(&mut self, median_milliseconds: f64, sigma: f64) -> i64 {
        let milliseconds = median_milliseconds * (sigma * self.normal()).exp();
        ((milliseconds * MILLISECOND as f64) as i64).max(1_000)
    }

    /// Exponential with this mean.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// A trace id that is not all zero.
    pub(crate) fn trace_id(&mut self) -> [u8; 16] {
        let (high, low) = (self.bits() | 1, self.bits());
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    }

    /// A span id that is not all zero.
    pub(crate) fn span_id(&mut self) -> [u8; 8] {
        (self.bits() | 1).to_be_bytes()
    }

    /// This many characters of this alphabet (ASCII).
    pub(crate) fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length).filter_map(|_| self.pick(alphabet).map(|&byte| char::from(byte))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_streams_differ() {
        let draw = |seed, stream| (0..8).map(|_| 0).scan(Dice::new(seed, stream), |d, _| Some(d.bits())).collect::<Vec<_>>();
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
    }

    #[test]
    fn shapes_are_what_they_say() {
        let mut dice = Dice::new(9, 0);
        let mut durations: Vec<i64> = (0..20_000).map(|_| dice.duration(10.0, 0.5)).collect();
        durations.sort_unstable();
        let median = durations[10_000] as f64 / MILLISECOND as f64;
        assert!((9.7..10.3).contains(&median), "median {median}");
        let mean = (0..20_000).map(|_| dice.exponential(3.0)).sum::<f64>() / 20_000.0;
        assert!((2.9..3.1).contains(&mean), "mean {mean}");
        assert!((0..1_000).all(|_| (5..=7).contains(&dice.between(5, 7))));
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.text(b"ab", 12).len(), 12);
    }
}
