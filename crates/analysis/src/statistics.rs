//! Order statistics that a few wild samples cannot move.
//!
//! Guards against NaN: values that are not finite are left out. Must not know what is measured.

/// Factor that makes the median absolute deviation estimate the standard deviation of normal noise.
pub const MAD_TO_SIGMA: f64 = 1.4826;

/// Finite values in ascending order.
pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Quantile of ascending values with linear interpolation; `None` when there are none. `q` is clamped to 0..=1.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position.floor();
    let (low, high) = (sorted[below as usize], sorted[(below as usize + 1).min(last)]);
    Some(low + (high - low) * (position - below))
}

/// Median; `None` when there are no finite values.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

/// Median absolute deviation from `center`; `None` when there are no finite values.
pub fn deviation(values: impl IntoIterator<Item = f64>, center: f64) -> Option<f64> {
    median(values.into_iter().map(|v| (v - center).abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics() {
        assert_eq!(median([3.0, 1.0, f64::NAN, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), Some(2.5));
        assert_eq!(quantile(&[5.0], 0.95), Some(5.0));
        assert_eq!(deviation([1.0, 2.0, 3.0, 100.0], 2.0), Some(1.0));
    }
}
