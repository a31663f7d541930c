//! Numbers as people read them: three to four significant digits and the unit's own prefixes.
//!
//! Guards that rounding never changes what a number says: zero stays zero, a value that is not zero never
//! prints as zero, and the infinities and NaN keep their names. Must not know where a number came from.

use serde::{Deserialize, Serialize};

/// What a number measures; decides scale and suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// No unit known: plain number, `k M G T` above ten thousand.
    #[default]
    None,
    /// Bytes, printed with binary prefixes.
    Bytes,
    /// Bytes per second, binary prefixes.
    BytesPerSecond,
    /// Seconds, printed as ns, µs, ms, s, m, h or d.
    Seconds,
    /// A share between 0 and 1, printed as percent.
    Ratio,
    /// Already in percent.
    Percent,
    /// Events per second.
    PerSecond,
    /// CPU cores, `m` for thousandths.
    Cores,
}

impl Unit {
    /// From a unit as sources write it (UCUM, Prometheus suffixes, Grafana words); anything unknown is [`Unit::None`].
    pub fn parse(text: &str) -> Self {
        match text.trim().to_ascii_lowercase().as_str() {
            "by" | "bytes" | "byte" | "b" => Self::Bytes,
            "by/s" | "bytes/s" | "byte/s" | "bps" => Self::BytesPerSecond,
            "s" | "sec" | "second" | "seconds" => Self::Seconds,
            "1" | "ratio" => Self::Ratio,
            "%" | "percent" => Self::Percent,
            "/s" | "1/s" | "{request}/s" | "{requests}/s" | "reqps" | "ops" => Self::PerSecond,
            "core" | "cores" | "{cpu}" => Self::Cores,
            _ => Self::None,
        }
    }
}

/// Prints `value` with at most `significant` digits (clamped to 1..=9) and its unit.
pub fn format(value: f64, unit: Unit, significant: usize) -> String {
    if !value.is_finite() {
        return plain(value, significant);
    }
    match unit {
        Unit::None => scaled(value, significant, &DECIMAL, 10_000.0, ""),
        Unit::Bytes => scaled(value, significant, &BINARY, 1024.0, "B"),
        Unit::BytesPerSecond => scaled(value, significant, &BINARY, 1024.0, "B/s"),
        Unit::Seconds => seconds(value, significant),
        Unit::Ratio => format!("{}%", plain(value * 100.0, significant)),
        Unit::Percent => format!("{}%", plain(value, significant)),
        Unit::PerSecond => scaled(value, significant, &DECIMAL, 10_000.0, "/s"),
        Unit::Cores if value != 0.0 && value.abs() < 0.1 => format!("{}m", plain(value * 1000.0, significant)),
        Unit::Cores => plain(value, significant),
    }
}

/// Nanoseconds as a duration with three significant digits: `1.25s`, `340ms`, `12µs`.
pub fn format_nanos(nanos: u64) -> String {
    seconds(nanos as f64 / 1e9, 3)
}

const DECIMAL: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
const BINARY: [(f64, &str); 5] =
    [(1_125_899_906_842_624.0, "Pi"), (1_099_511_627_776.0, "Ti"), (1_073_741_824.0, "Gi"), (1_048_576.0, "Mi"), (1024.0, "Ki")];

/// Applies the largest prefix that fits, once the value reaches `from`.
fn scaled(value: f64, significant: usize, prefixes: &[(f64, &str)], from: f64, suffix: &str) -> String {
    let size = value.abs();
    if size >= from
        && let Some((factor, prefix)) = prefixes.iter().find(|(factor, _)| size >= *factor)
    {
        return format!("{}{prefix}{suffix}", plain(value / factor, significant));
    }
    format!("{}{suffix}", plain(value, significant))
}

fn seconds(value: f64, significant: usize) -> String {
    let size = value.abs();
    let (factor, suffix) = match size {
        0.0 => (1.0, "s"),
        s if s < 1e-6 => (1e-9, "ns"),
        s if s < 1e-3 => (1e-6, "µs"),
        s if s < 1.0 => (1e-3, "ms"),
        s if s < 600.0 => (1.0, "s"),
        s if s < 36_000.0 => (60.0, "m"),
        s if s < 864_000.0 => (3_600.0, "h"),
        _ => (86_400.0, "d"),
    };
    format!("{}{suffix}", plain(value / factor, significant))
}

/// Prints `value` without a unit, at most `significant` digits, no trailing zeros; very large and very small values
/// in scientific form. Whole numbers keep all their digits up to six.
pub fn plain(value: f64, significant: usize) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let significant = significant.clamp(1, 9);
    let size = value.abs();
    if size.fract() == 0.0 && size < 1e6 {
        return format!("{value:.0}");
    }
    if !(1e-4..1e15).contains(&size) {
        let text = format!("{value:.*e}", significant - 1);
        return match text.split_once('e') {
            Some((mantissa, exponent)) => format!("{}e{exponent}", trim_zeros(mantissa)),
            None => text,
        };
    }
    let magnitude = size.log10().floor() as i32;
    let decimals = usize::try_from(significant as i32 - 1 - magnitude).unwrap_or(0);
    let text = if decimals == 0 {
        let step = 10f64.powi((magnitude + 1 - significant as i32).max(0));
        format!("{:.0}", (value / step).round() * step)
    } else {
        format!("{value:.decimals$}")
    };
    trim_zeros(&text).to_owned()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_people_read() {
        for (value, unit, expected) in [
            (0.0, Unit::None, "0"),
            (1234.0, Unit::None, "1234"),
            (123_456.0, Unit::None, "123.5k"),
            (0.000_012_34, Unit::None, "1.234e-5"),
            (0.012_345_6, Unit::None, "0.01235"),
            (1e18, Unit::None, "1000000T"),
            (1_610_612_736.0, Unit::Bytes, "1.5GiB"),
            (512.0, Unit::Bytes, "512B"),
            (0.034_5, Unit::Seconds, "34.5ms"),
            (2.5, Unit::Seconds, "2.5s"),
            (7_200.0, Unit::Seconds, "120m"),
            (0.062_5, Unit::Ratio, "6.25%"),
            (97.123_4, Unit::Percent, "97.12%"),
            (12.345, Unit::PerSecond, "12.35/s"),
            (0.025, Unit::Cores, "25m"),
            (f64::NAN, Unit::Bytes, "NaN"),
            (f64::NEG_INFINITY, Unit::Seconds, "-Inf"),
            (-0.034_5, Unit::Seconds, "-34.5ms"),
        ] {
            assert_eq!(format(value, unit, 4), expected, "{value} {unit:?}");
        }
        assert_eq!(format_nanos(1_250_000_000), "1.25s");
        assert_eq!(format_nanos(0), "0s");
        assert_eq!(plain(123.456, 3), "123");
        assert_eq!(plain(1_234_567.8, 3), "1230000");
    }

    proptest::proptest! {
        #[test]
        fn rounding_keeps_the_value_and_never_makes_zero(value in proptest::num::f64::NORMAL, significant in 3usize..=6) {
            let text = plain(value, significant);
            let back: f64 = text.parse().expect("a number");
            let tolerance = 0.6 * 10f64.powi(1 - significant as i32);
            proptest::prop_assert!(((back - value) / value).abs() <= tolerance, "{value} -> {text}");
        }
    }
}
