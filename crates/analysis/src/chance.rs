//! Whether more events are more than chance, and since when.
//!
//! Guards against calling one or two random failures a trend: a rise counts when equal rates would give it once in ten
//! thousand looks, and its beginning is where the counts themselves say it lies. Must not know what is counted.
//!
//! Sources: J. Przyborowski and H. Wilenski, "Homogeneity of results in testing samples from Poisson series", Biometrika 31
//! (1940) for the comparison; J. M. Lucas, "Counted data CUSUM's", Technometrics 27 (1985) for the beginning.

use portcullis_model::Timestamp;
use serde::{Deserialize, Serialize};

/// Probability below which equal rates no longer explain a difference. Many services and bins are looked at, so it is small.
pub const CHANCE: f64 = 1e-4;

/// Events, and how much was looked at: requests, or seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Failures, error records.
    pub events: u64,
    /// Requests or seconds in which they could have happened; not negative.
    pub exposure: f64,
}

impl Tally {
    /// Events per unit of exposure; absent when nothing was looked at.
    pub fn rate(self) -> Option<f64> {
        (self.exposure > 0.0).then(|| self.events as f64 / self.exposure)
    }

    fn and(self, other: Self) -> Self {
        Self { events: self.events.saturating_add(other.events), exposure: self.exposure + other.exposure }
    }
}

/// The sum of tallies.
pub fn sum(tallies: impl IntoIterator<Item = Tally>) -> Tally {
    tallies.into_iter().fold(Tally::default(), Tally::and)
}

/// Probability of at least `now.events`, were the rate the same as before.
///
/// Given both counts together, how many of them fall into "now" is binomial with the share of the exposure that "now" has.
/// Where nothing was looked at before, it counts as if as much had been, without an event.
pub fn probability(now: Tally, before: Tally) -> f64 {
    let exposure_before = if before.exposure > 0.0 { before.exposure } else { now.exposure };
    let whole = now.exposure + exposure_before;
    if now.events == 0 || now.exposure <= 0.0 || !whole.is_finite() {
        return 1.0;
    }
    binomial_tail(now.events, now.events.saturating_add(before.events), now.exposure / whole)
}

/// Whether `now` has more events than chance explains.
pub fn is_more(now: Tally, before: Tally) -> bool {
    probability(now, before) < CHANCE
}

/// P(X ≥ least) for X binomial with `trials` and `share`, 0 < share < 1.
fn binomial_tail(least: u64, trials: u64, share: f64) -> f64 {
    let (k, n) = (least as f64, trials as f64);
    // Below the mean the tail is about a half or more; nothing here needs it more exactly.
    if k <= n * share {
        return 1.0;
    }
    let choose = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    let mut term = (choose + k * share.ln() + (n - k) * (1.0 - share).ln()).exp();
    let odds = share / (1.0 - share);
    let mut total = 0.0;
    let mut at = k;
    while at <= n && term > total * 1e-12 {
        total += term;
        term *= (n - at) / (at + 1.0) * odds;
        at += 1.0;
    }
    total.min(1.0)
}

/// Stirling's series for ln n!, exact to ten digits from 10 on; below it the product.
fn ln_factorial(n: f64) -> f64 {
    if n < 10.0 {
        return (2..=n as u64).map(|i| i as f64).product::<f64>().ln();
    }
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
        + 1.0 / (1_260.0 * n.powi(5))
}

/// Where in `bins` a rise to `after` events per exposure began that lasts up to the last bin, or `None` when the counts do
/// not carry one beyond chance.
///
/// `usual` is the rate before as far as known. Every bin speaks for the new rate or for the old one by its log likelihood
/// ratio, as in the CUSUM for counts; the beginning is where the sum to the end is largest, so single events long before
/// it do not pull it forward.
pub fn beginning(bins: &[(Timestamp, Tally)], usual: f64, after: f64) -> Option<Timestamp> {
    let whole = sum(bins.iter().map(|(_, tally)| *tally));
    if whole.events == 0 || whole.exposure <= 0.0 || !after.is_finite() || after <= 0.0 {
        return None;
    }
    // Half an event in all is the least rate that can be told from none.
    let old = usual.max(0.5 / whole.exposure).min(after / 2.0);
    let (mut total, mut best) = (0.0, (0.0, None));
    for (index, (_, tally)) in bins.iter().enumerate().rev() {
        total += tally.events as f64 * (after / old).ln() - tally.exposure * (after - old);
        if total > best.0 {
            best = (total, Some(index));
        }
    }
    let start = best.1?;
    let (before, now) = bins.split_at(start);
    let tallied = |part: &[(Timestamp, Tally)]| sum(part.iter().map(|(_, tally)| *tally));
    is_more(tallied(now), tallied(before)).then(|| bins[start].0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(events: u64, exposure: f64) -> Tally {
        Tally { events, exposure }
    }

    fn bins(counts: impl IntoIterator<Item = u64>) -> Vec<(Timestamp, Tally)> {
        counts.into_iter().enumerate().map(|(i, n)| (Timestamp::from_seconds(i as i64 * 60), tally(n, 100.0))).collect()
    }

    #[test]
    fn tails_are_those_of_the_tables() {
        // P(X ≥ 8 | 10, 1/2) = 56/1024; P(X ≥ 3 | 3, 0.2) = 0.008.
        assert!((binomial_tail(8, 10, 0.5) - 56.0 / 1024.0).abs() < 1e-9);
        assert!((binomial_tail(3, 3, 0.2) - 0.008).abs() < 1e-9);
        // Normal approximation with continuity correction, far from the edges: 5 100 of 10 000 gives P = 0.0233.
        assert!((binomial_tail(5_100, 10_000, 0.5) - 0.0233).abs() < 2e-4);
        assert!(binomial_tail(900_000, 1_000_000, 0.5) < 1e-12);
        assert!((ln_factorial(20.0) - 42.335_616_460_753_485).abs() < 1e-9);
    }

    #[test]
    fn one_or_two_failures_are_chance_and_a_run_is_not() {
        assert!(!is_more(tally(1, 1_000.0), tally(0, 4_000.0)));
        assert!(!is_more(tally(3, 1_000.0), tally(4, 4_000.0)));
        assert!(is_more(tally(20, 1_000.0), tally(4, 4_000.0)));
        // Without anything before, a handful is not enough and a hundred are.
        assert!(!is_more(tally(5, 1_000.0), Tally::default()));
        assert!(is_more(tally(100, 1_000.0), Tally::default()));
        assert!((probability(tally(0, 10.0), tally(0, 10.0)) - 1.0).abs() < 1e-12);
        assert!((probability(tally(9, 0.0), tally(0, 10.0)) - 1.0).abs() < 1e-12, "nothing was looked at");
        assert!((probability(tally(9, f64::NAN), tally(0, 10.0)) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn chance_errors_before_the_rise_do_not_pull_its_beginning_forward() {
        let mut counts = vec![0u64; 40];
        for chance in [8, 19, 24, 27] {
            counts[chance] = 1;
        }
        for (step, count) in counts[30..].iter_mut().enumerate() {
            *count = 18 + step as u64 % 4;
        }
        let bins = bins(counts);
        assert_eq!(beginning(&bins, 0.0, 0.2), Some(bins[30].0));
        // The rate before is known: the same.
        assert_eq!(beginning(&bins, 4.0 / 3_000.0, 0.2), Some(bins[30].0));
    }

    #[test]
    fn chance_alone_has_no_beginning() {
        let mut counts = vec![0u64; 40];
        assert_eq!(beginning(&bins(counts.clone()), 0.0, 0.2), None);
        (counts[20], counts[37]) = (1, 2);
        assert_eq!(beginning(&bins(counts), 0.0, 0.01), None);
        assert_eq!(beginning(&[], 0.0, 0.2), None);
        assert_eq!(beginning(&bins([5; 40]), 0.05, f64::NAN), None);
    }

    proptest::proptest! {
        #[test]
        fn a_probability_is_one_and_falls_with_more_events(
            events in 0u64..5_000, more in 0u64..500, now in 0.001f64..1e6, before_events in 0u64..5_000, before in 0.0f64..1e6,
        ) {
            let old = tally(before_events, before);
            let (few, many) = (probability(tally(events, now), old), probability(tally(events + more, now), old));
            proptest::prop_assert!((0.0..=1.0).contains(&few) && (0.0..=1.0).contains(&many));
            proptest::prop_assert!(many <= few + 1e-9, "{few} {many}");
        }
    }
}
