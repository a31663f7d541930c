//! Quantiles: over histogram buckets by linear interpolation, over plain values exactly.
//!
//! Source: the interpolation is that of Prometheus' `histogram_quantile`.

/// Counts per bucket; `bounds` are ascending upper bounds, the last may be infinite. Nothing without observations.
pub(crate) fn of_buckets(q: f64, bounds: &[f64], counts: &[f64]) -> Option<f64> {
    let total: f64 = counts.iter().sum();
    if total <= 0.0 || bounds.len() != counts.len() {
        return None;
    }
    let rank = q.clamp(0.0, 1.0) * total;
    let mut before = 0.0;
    for (at, (upper, count)) in bounds.iter().zip(counts).enumerate() {
        if before + count >= rank && *count > 0.0 {
            let lower = match at.checked_sub(1).and_then(|i| bounds.get(i)) {
                Some(previous) => *previous,
                None if *upper > 0.0 => 0.0,
                None => *upper,
            };
            if upper.is_infinite() {
                // Nothing is known above the last finite bound.
                return Some(lower);
            }
            return Some(lower + (upper - lower) * ((rank - before) / count).clamp(0.0, 1.0));
        }
        before += count;
    }
    bounds.iter().rev().find(|b| b.is_finite()).copied()
}

/// Over values, linear between neighbours. Nothing for none.
pub(crate) fn of_values(q: f64, values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let rank = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (values.get(rank.floor() as usize)?, values.get(rank.ceil() as usize)?);
    Some(low + (high - low) * rank.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-9)
    }

    #[test]
    fn buckets_interpolate_as_prometheus_does() {
        let bounds = [0.1, 0.5, 1.0, f64::INFINITY];
        assert!(close(of_buckets(0.5, &bounds, &[10.0, 10.0, 0.0, 0.0]), 0.1));
        assert!(close(of_buckets(0.75, &bounds, &[10.0, 10.0, 0.0, 0.0]), 0.3));
        assert!(close(of_buckets(0.99, &bounds, &[0.0, 0.0, 0.0, 5.0]), 1.0));
        assert_eq!(of_buckets(0.5, &bounds, &[0.0; 4]), None);
    }

    #[test]
    fn values_interpolate() {
        assert!(close(of_values(0.5, &mut [3.0, 1.0, 2.0]), 2.0));
        assert!(close(of_values(0.95, &mut [0.0, 100.0]), 95.0));
        assert_eq!(of_values(0.5, &mut []), None);
    }
}
