//! A circuit breaker for each organisation and provider. Failures in a row hold its actions back;
//! after a while one action is tried.

use crate::domain::{AttemptOutcome, Cause, OrgId, Provider, Timestamp};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// An organisation's calls to one provider.
type Key = (OrgId, Provider);

#[derive(Debug)]
pub(super) struct Breakers {
    failures_max: u32,
    open_for: Duration,
    /// Failures in a row. A success removes its entry.
    failures: HashMap<Key, u32>,
    /// Open until this time. Afterwards half open: one attempt at a time. A claim shares the map
    /// while it runs.
    open_until: Arc<HashMap<Key, Timestamp>>,
    /// Entries of `open_until` by provider.
    counts: HashMap<Provider, u32>,
    swept_at: Timestamp,
}

/// The change of a breaker by an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turned {
    Opened,
    Closed,
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
            failures: HashMap::new(),
            open_until: Arc::default(),
            counts: HashMap::new(),
            swept_at: Timestamp::default(),
        }
    }

    pub fn record(&mut self, key: Key, health: ProviderHealth, now: Timestamp) -> Option<Turned> {
        match health {
            ProviderHealth::Up => {
                self.failures.remove(&key);
                if !self.open_until.contains_key(&key) {
                    return None;
                }
                Arc::make_mut(&mut self.open_until).remove(&key);
                *self.counts.entry(key.1).or_default() -= 1;
                Some(Turned::Closed)
            }
            ProviderHealth::Failing => {
                let failures = self.failures.entry(key).or_default();
                *failures += 1;
                if *failures < self.failures_max {
                    return None;
                }
                let until = now + self.open_for;
                if Arc::make_mut(&mut self.open_until).insert(key, until).is_some() {
                    return None;
                }
                *self.counts.entry(key.1).or_default() += 1;
                Some(Turned::Opened)
            }
            ProviderHealth::NotShown => None,
        }
    }

    /// Organisations whose calls to a provider are held back, or tried one at a time.
    pub fn open_at(&self, provider: Provider) -> u32 {
        self.counts.get(&provider).copied().unwrap_or(0)
    }

    /// Each breaker that is open or half open, with the time at which it opens half.
    pub fn open_until(&self) -> Arc<HashMap<Key, Timestamp>> {
        Arc::clone(&self.open_until)
    }

    /// Whether one attempt at a time may be made.
    pub fn is_half_open(&self, key: &Key, now: Timestamp) -> bool {
        self.open_until.get(key).is_some_and(|until| *until <= now)
    }

    /// Removes breakers that were not used for long, so that the maps hold current failures only.
    /// Looks at all of them, so once in a while. Returns whether an open one went.
    pub fn forget_old(&mut self, now: Timestamp) -> bool {
        if now.since(self.swept_at) < self.open_for {
            return false;
        }
        self.swept_at = now;
        let keep = self.open_for * 20;
        let is_current = |until: &Timestamp| now.since(*until) < keep;
        let has_old = !self.open_until.values().all(is_current);
        if has_old {
            Arc::make_mut(&mut self.open_until).retain(|_, until| is_current(until));
            self.counts.clear();
            for (_, provider) in self.open_until.keys() {
                *self.counts.entry(*provider).or_default() += 1;
            }
        }
        let open = &self.open_until;
        let is_one_too_many = self.failures.len() > BREAKERS_MAX;
        self.failures
            .retain(|key, failures| open.contains_key(key) || (*failures < self.failures_max && !is_one_too_many));
        has_old
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
        assert!(breakers.open_until().is_empty(), "not in a row");
        let turned = breakers.record(key, ProviderHealth::Failing, now);
        assert_eq!((turned, breakers.open_at(key.1)), (Some(Turned::Opened), 1));
        let later = now + Duration::from_secs(30);
        assert_eq!(*breakers.open_until(), HashMap::from([(key, later)]));
        assert_eq!(
            (breakers.is_half_open(&key, now), breakers.is_half_open(&key, later)),
            (false, true)
        );
        let turned = breakers.record(key, ProviderHealth::Failing, later);
        assert!(!breakers.is_half_open(&key, later), "one failure opens it again");
        assert_eq!(turned, None, "it was open");
        let turned = breakers.record(key, ProviderHealth::Up, later);
        assert_eq!((turned, breakers.open_at(key.1)), (Some(Turned::Closed), 0));
        assert!(breakers.open_until().is_empty());
    }

    /// In an outage there is one for each organisation: a claim copies none of them, and looks at
    /// none of them.
    #[test]
    fn a_claim_shares_the_open_breakers() {
        let now = Timestamp::from_seconds(1_000);
        let mut breakers = Breakers::new(1, Duration::from_secs(30));
        for _ in 0..1_000 {
            breakers.record((OrgId::generate(), Provider::Twilio), ProviderHealth::Failing, now);
        }
        let (one, other) = (breakers.open_until(), breakers.open_until());
        assert!(Arc::ptr_eq(&one, &other) && one.len() == 1_000);
        assert!(!breakers.forget_old(now + Duration::from_mins(1)));
        assert!(breakers.forget_old(now + Duration::from_mins(11)));
        assert_eq!(
            (
                breakers.open_until().len(),
                breakers.failures.len(),
                breakers.open_at(Provider::Twilio)
            ),
            (0, 0, 0),
            "old ones go"
        );
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
