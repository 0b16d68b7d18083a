//! A circuit breaker for each organisation and provider. Failures in a row hold its actions back;
//! after a while one action is tried.

use crate::domain::{AttemptOutcome, Cause, OrgId, Provider, Timestamp};
use std::{collections::HashMap, time::Duration};

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// Open until this time. Afterwards half open: one attempt at a time.
    open_until: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Breakers {
    failures_max: u32,
    open_for: Duration,
    /// Breakers with a failure only: a success removes its breaker.
    breakers: HashMap<(OrgId, Provider), Breaker>,
}

/// The health of its provider that an attempt shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProviderHealth {
    Up,
    Failing,
    /// The provider was not asked, or its answer is about this one request.
    NotShown,
}

impl ProviderHealth {
    pub const fn of(outcome: AttemptOutcome, cause: Cause) -> Self {
        use AttemptOutcome as A;
        match outcome {
            A::Succeeded | A::Absent | A::ProvedAbsent | A::Suppressed | A::Dead | A::Ambiguous => Self::Up,
            // An authentication error is not an outage (invariant 6); a rate limit says when to
            // come back.
            A::Retry | A::Unknown | A::Failed => match cause {
                Cause::ProviderUnavailable | Cause::ConnectFailed | Cause::NoAnswer | Cause::AttemptsUsedUp => {
                    Self::Failing
                }
                _ => Self::NotShown,
            },
            A::Parked | A::Interrupted => Self::NotShown,
        }
    }
}

impl Breakers {
    pub fn new(failures_max: u32, open_for: Duration) -> Self {
        Self {
            failures_max,
            open_for,
            breakers: HashMap::new(),
        }
    }

    pub fn record(&mut self, key: (OrgId, Provider), health: ProviderHealth, now: Timestamp) {
        match health {
            ProviderHealth::Up => drop(self.breakers.remove(&key)),
            ProviderHealth::Failing => {
                let breaker = self.breakers.entry(key).or_default();
                breaker.failures += 1;
                if breaker.failures >= self.failures_max {
                    breaker.open_until = Some(now + self.open_for);
                }
            }
            ProviderHealth::NotShown => {}
        }
    }

    /// Organisations and providers with an open breaker: their turns move to its end.
    pub fn open(&self, now: Timestamp) -> impl Iterator<Item = (OrgId, Provider, Timestamp)> + '_ {
        self.breakers.iter().filter_map(move |((org, provider), breaker)| {
            breaker
                .open_until
                .filter(|until| *until > now)
                .map(|until| (*org, *provider, until))
        })
    }

    /// Organisations and providers that may have one attempt at a time.
    pub fn half_open(&self, now: Timestamp) -> impl Iterator<Item = (OrgId, Provider)> + '_ {
        self.breakers
            .iter()
            .filter(move |(_, breaker)| breaker.open_until.is_some_and(|until| until <= now))
            .map(|(key, _)| *key)
    }

    /// Removes breakers that were not used for long, so that the map holds current failures only.
    pub fn forget_old(&mut self, now: Timestamp) {
        let keep = self.open_for * 20;
        self.breakers
            .retain(|_, breaker| breaker.open_until.is_none_or(|until| now.since(until) < keep));
        if self.breakers.len() > BREAKERS_MAX {
            self.breakers.retain(|_, breaker| breaker.open_until.is_some());
        }
    }
}

/// Above this count the breakers that are not open are removed.
const BREAKERS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_half_opens_with_one() {
        let (org, now) = (OrgId::generate(), Timestamp::from_seconds(1_000));
        let key = (org, Provider::Twilio);
        let mut breakers = Breakers::new(3, Duration::from_secs(30));
        for _ in 0..2 {
            breakers.record(key, ProviderHealth::Failing, now);
        }
        breakers.record(key, ProviderHealth::Up, now);
        for _ in 0..2 {
            breakers.record(key, ProviderHealth::Failing, now);
        }
        assert_eq!(breakers.open(now).count(), 0, "not in a row");
        breakers.record(key, ProviderHealth::Failing, now);
        assert_eq!(
            breakers.open(now).collect::<Vec<_>>(),
            [(org, Provider::Twilio, now + Duration::from_secs(30))]
        );
        let later = now + Duration::from_secs(30);
        assert_eq!(
            (
                breakers.open(later).count(),
                breakers.half_open(later).collect::<Vec<_>>()
            ),
            (0, vec![key])
        );
        breakers.record(key, ProviderHealth::Failing, later);
        assert_eq!(breakers.open(later).count(), 1, "one failure opens it again");
        breakers.record(key, ProviderHealth::Up, later);
        assert_eq!(breakers.open(later).count() + breakers.half_open(later).count(), 0);
    }

    #[test]
    fn a_refused_credential_or_a_rate_limit_is_no_outage() {
        assert_eq!(
            ProviderHealth::of(AttemptOutcome::Parked, Cause::CredentialRefused),
            ProviderHealth::NotShown
        );
        assert_eq!(
            ProviderHealth::of(AttemptOutcome::Retry, Cause::RateLimited),
            ProviderHealth::NotShown
        );
        assert_eq!(
            ProviderHealth::of(AttemptOutcome::Retry, Cause::ProviderUnavailable),
            ProviderHealth::Failing
        );
        assert_eq!(
            ProviderHealth::of(AttemptOutcome::Interrupted, Cause::Interrupted),
            ProviderHealth::NotShown
        );
        assert_eq!(
            ProviderHealth::of(AttemptOutcome::Dead, Cause::InvalidRecipient),
            ProviderHealth::Up
        );
    }
}
