//! How long to wait before the next try: exponential with full jitter, Retry-After obeyed and
//! capped.

use crate::domain::Timestamp;
use std::time::Duration;

/// The wait before try `n + 1` is uniform in `[0, min(max, min · 2ⁿ)]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    pub min: Duration,
    pub max: Duration,
}

impl Backoff {
    /// `random` is uniform in `[0, 1)`.
    pub fn wait(&self, tries: u32, random: f64) -> Duration {
        let ceiling = 2_u32
            .checked_pow(tries)
            .and_then(|factor| self.min.checked_mul(factor))
            .map_or(self.max, |wait| wait.min(self.max));
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// When the next try is due. The provider's `Retry-After` is obeyed, up to the longest wait.
    pub fn due_at(&self, now: Timestamp, tries: u32, not_before: Option<Timestamp>, random: f64) -> Timestamp {
        let own = now + self.wait(tries, random);
        not_before.map_or(own, |asked| own.max(asked.min(now + self.max)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_secs(5),
        max: Duration::from_hours(1),
    };

    #[test]
    fn waits_double_up_to_the_longest_and_never_overflow() {
        let ceilings: Vec<u64> = [0, 1, 2, 9, 10, 31, 32, u32::MAX]
            .into_iter()
            .map(|tries| BACKOFF.wait(tries, 1.0).as_secs())
            .collect();
        assert_eq!(ceilings, [5, 10, 20, 2560, 3600, 3600, 3600, 3600]);
        assert_eq!(BACKOFF.wait(3, 0.0), Duration::ZERO);
    }

    /// Waits that cluster would bring all clients back at once: no bin of the waits holds more than
    /// three times the mean.
    #[test]
    fn jitter_is_full() {
        let mut bins = [0_u32; 50];
        for i in 0..10_000_u32 {
            let random = f64::from(i) / 10_000.0;
            let wait = BACKOFF.wait(0, random).as_millis();
            bins[usize::try_from(wait / 100).expect("small")] += 1;
        }
        assert!(bins.iter().all(|&count| (100..=600).contains(&count)), "{bins:?}");
    }

    /// A `Retry-After` of seconds, a date or nonsense comes as a moment: a past one changes
    /// nothing, a far one is capped.
    #[test]
    fn retry_after_is_obeyed_and_capped() {
        let now = Timestamp::from_seconds(1_000_000);
        let at = |seconds| Some(Timestamp::from_seconds(seconds));
        assert_eq!(
            BACKOFF.due_at(now, 0, at(1_000_030), 0.5),
            Timestamp::from_seconds(1_000_030)
        );
        assert_eq!(
            BACKOFF.due_at(now, 0, at(1_000_001), 0.5),
            now + Duration::from_millis(2500)
        );
        assert_eq!(BACKOFF.due_at(now, 0, at(5), 0.0), now);
        assert_eq!(
            BACKOFF.due_at(now, 0, at(i64::MAX / 2_000_000), 0.5),
            now + Duration::from_hours(1)
        );
    }
}
