//! When the authority is asked next. Guards that it is never asked in a loop: every pause has a least length, chance draws
//! it out and never shortens it, and a certificate that is renewed too early or lives too short does not change that.

use std::time::Duration;

use portcullis_config::{AcmeRetrySettings, RenewBefore};
use portcullis_model::Timestamp;

/// The largest share of a certificate's time that is left when it is renewed, whatever the setting says.
const MOST_LEFT: f64 = 0.9;

/// When a certificate is renewed. `spread` in 0..1 tells one installation from another, so that they do not all come at
/// once: up to a twentieth of the certificate's time earlier.
pub(crate) fn renewal(begins: Timestamp, ends: Timestamp, before: RenewBefore, spread: f64) -> Timestamp {
    let whole = ends.since(begins);
    let left = match before {
        RenewBefore::Share(share) => whole.mul_f64(share.clamp(0.0, MOST_LEFT)),
        RenewBefore::Time(time) => time,
    };
    let early = (whole / 20).mul_f64(spread.clamp(0.0, 1.0));
    ends.minus((left + early).min(whole.mul_f64(MOST_LEFT)))
}

/// The pause after failure number `failures` (from 1): doubled each time, up to half as long again by chance, and never
/// shorter than what the authority asks for. `random` in 0..1.
pub(crate) fn pause(settings: AcmeRetrySettings, failures: u32, asked: Option<Duration>, random: f64) -> Duration {
    let doubled = settings.first.0.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let base = doubled.min(settings.longest.0);
    base.mul_f64(1.0 + random.clamp(0.0, 1.0) / 2.0).max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_config::Span;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn a_certificate_is_renewed_in_good_time_and_never_at_its_beginning() {
        let begins = Timestamp::from_seconds(0);
        let ends = begins.plus(90 * DAY);
        assert_eq!(renewal(begins, ends, RenewBefore::Time(30 * DAY), 0.0), begins.plus(60 * DAY));
        let third = renewal(begins, ends, RenewBefore::Share(1.0 / 3.0), 0.0).since(begins).as_secs_f64();
        assert!((third - 60.0 * 86_400.0).abs() < 1.0, "{third}");
        let spread = renewal(begins, ends, RenewBefore::Time(30 * DAY), 1.0);
        assert_eq!(spread, begins.plus(60 * DAY).minus(DAY * 9 / 2));
        // Longer than it lives.
        assert_eq!(renewal(begins, ends, RenewBefore::Time(365 * DAY), 1.0), begins.plus(9 * DAY));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_never_shorter_than_asked() {
        let settings = AcmeRetrySettings { first: Span(Duration::from_mins(2)), longest: Span(Duration::from_hours(6)) };
        let minutes = |failures, random| pause(settings, failures, None, random).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 5].map(|failures| minutes(failures, 0.0)), [2, 4, 8, 16, 32]);
        assert_eq!(minutes(1, 1.0), 3);
        assert_eq!(minutes(4_000_000_000, 0.0), 360);
        assert_eq!(pause(settings, 1, Some(DAY), 1.0), DAY);
        // Five in an hour is what public authorities take, even without luck.
        let mut at = Duration::ZERO;
        let hour: Vec<u32> = (1..=20)
            .take_while(|failures| {
                at += pause(settings, *failures, None, 0.0);
                at < Duration::from_hours(1)
            })
            .collect();
        assert!(hour.len() < 5, "{hour:?}");
    }
}
