//! A circuit breaker for each organisation and provider: failures in a row keep its actions back,
//! then one is tried.

use crate::domain::{Cause, OrgId, Provider, Timestamp};
use std::{collections::HashMap, time::Duration};

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// Open until then, half open afterwards: one at a time.
    open_until: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Breakers {
    failures_max: u32,
    open_for: Duration,
    /// Only those with a failure: a success takes its breaker out.
    breakers: HashMap<(OrgId, Provider), Breaker>,
}

/// What a record says about the provider's health.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Well,
    Failing,
    /// Nothing: it was not asked, or the answer is about this one request.
    Nothing,
}

impl Said {
    pub fn by(outcome: &str, cause: Cause) -> Self {
        match outcome {
            "succeeded" | "absent" | "proved_absent" | "suppressed" | "dead" | "ambiguous" => Self::Well,
            // An authentication error is not an outage (invariant 6); a rate limit says when to
            // come back.
            "retry" | "unknown" | "failed"
                if matches!(
                    cause,
                    Cause::ProviderUnavailable | Cause::ConnectFailed | Cause::NoAnswer | Cause::AttemptsUsedUp
                ) =>
            {
                Self::Failing
            }
            _ => Self::Nothing,
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

    pub fn record(&mut self, key: (OrgId, Provider), said: Said, now: Timestamp) {
        match said {
            Said::Well => drop(self.breakers.remove(&key)),
            Said::Failing => {
                let breaker = self.breakers.entry(key).or_default();
                breaker.failures += 1;
                if breaker.failures >= self.failures_max {
                    breaker.open_until = Some(now + self.open_for);
                }
            }
            Said::Nothing => {}
        }
    }

    /// Whose turns are moved.
    pub fn open(&self, now: Timestamp) -> impl Iterator<Item = (OrgId, Provider, Timestamp)> + '_ {
        self.breakers.iter().filter_map(move |((org, provider), breaker)| {
            breaker
                .open_until
                .filter(|until| *until > now)
                .map(|until| (*org, *provider, until))
        })
    }

    /// Who may have one at a time.
    pub fn half_open(&self, now: Timestamp) -> impl Iterator<Item = (OrgId, Provider)> + '_ {
        self.breakers
            .iter()
            .filter(move |(_, breaker)| breaker.open_until.is_some_and(|until| until <= now))
            .map(|(key, _)| *key)
    }

    /// Breakers whose organisation has had nothing to do for long: the map stays as large as what
    /// fails now.
    pub fn forget_old(&mut self, now: Timestamp) {
        let keep = self.open_for * 20;
        self.breakers
            .retain(|_, breaker| breaker.open_until.is_none_or(|until| now.since(until) < keep));
        if self.breakers.len() > BREAKERS_MAX {
            self.breakers.retain(|_, breaker| breaker.open_until.is_some());
        }
    }
}

/// More than this, and those that are not open are forgotten.
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
            breakers.record(key, Said::Failing, now);
        }
        breakers.record(key, Said::Well, now);
        for _ in 0..2 {
            breakers.record(key, Said::Failing, now);
        }
        assert_eq!(breakers.open(now).count(), 0, "not in a row");
        breakers.record(key, Said::Failing, now);
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
        breakers.record(key, Said::Failing, later);
        assert_eq!(breakers.open(later).count(), 1, "one failure opens it again");
        breakers.record(key, Said::Well, later);
        assert_eq!(breakers.open(later).count() + breakers.half_open(later).count(), 0);
    }

    #[test]
    fn a_refused_credential_or_a_rate_limit_is_no_outage() {
        assert_eq!(Said::by("parked", Cause::CredentialRefused), Said::Nothing);
        assert_eq!(Said::by("retry", Cause::RateLimited), Said::Nothing);
        assert_eq!(Said::by("retry", Cause::ProviderUnavailable), Said::Failing);
        assert_eq!(Said::by("interrupted", Cause::Interrupted), Said::Nothing);
        assert_eq!(Said::by("dead", Cause::InvalidRecipient), Said::Well);
    }
}
