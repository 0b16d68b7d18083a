//! How many requests of one organisation are answered in a minute, by one instance
//! (draft-ietf-httpapi-ratelimit-headers).
//!
//! **Invariant:** a request that is refused here costs neither the database nor a provider. The
//! count is of this process: `n` instances answer `n` times as much.

use super::problem::{Code, Problem};
use crate::domain::{OrgId, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue};
use lru::LruCache;
use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    time::Duration,
};

const WINDOW: Duration = Duration::from_mins(1);
const ORGS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("is not zero");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The counts of all organisations that were here lately.
pub struct Rates {
    per_minute_max: u32,
    windows: Mutex<LruCache<OrgId, Window>>,
}

#[derive(Clone, Copy)]
struct Window {
    since: Timestamp,
    used: u32,
}

/// The requests that an organisation has left in this minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    pub max: u32,
    pub left: u32,
    /// Until the next minute begins.
    pub resets_after: Duration,
    pub is_over: bool,
}

impl Rates {
    /// 0: no limit.
    #[must_use]
    pub fn new(per_minute_max: u32) -> Self {
        Self {
            per_minute_max,
            windows: Mutex::new(LruCache::new(ORGS_MAX)),
        }
    }

    /// Counts a request. `None` where there is no limit.
    pub fn take(&self, org: OrgId, now: Timestamp) -> Option<Quota> {
        if self.per_minute_max == 0 {
            return None;
        }
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.get_or_insert_mut(org, || Window { since: now, used: 0 });
        if now.since(window.since) >= WINDOW || now < window.since {
            *window = Window { since: now, used: 0 };
        }
        let is_over = window.used >= self.per_minute_max;
        if !is_over {
            window.used += 1;
        }
        Some(Quota {
            max: self.per_minute_max,
            left: self.per_minute_max - window.used,
            resets_after: WINDOW.saturating_sub(now.since(window.since)),
            is_over,
        })
    }
}

impl Quota {
    #[must_use]
    pub fn refusal(&self) -> Problem {
        Problem::new(Code::TooManyRequests)
            .detail(format!("Your organisation may send {} requests a minute.", self.max))
            .retry_after(self.resets_after)
    }

    pub fn show(&self, headers: &mut HeaderMap) {
        let seconds = self.resets_after.as_secs() + u64::from(self.resets_after.subsec_nanos() > 0);
        let value = |text: String| HeaderValue::from_str(&text).expect("names and numbers are visible ASCII");
        headers.insert(
            POLICY,
            value(format!("\"organisation\";q={};w={}", self.max, WINDOW.as_secs())),
        );
        headers.insert(LIMIT, value(format!("\"organisation\";r={};t={seconds}", self.left)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_its_requests_and_the_next_one_has_them_again() {
        let rates = Rates::new(3);
        let (a, b, start) = (OrgId::generate(), OrgId::generate(), Timestamp::from_seconds(1_000));
        let at = |seconds| start + Duration::from_secs(seconds);
        for left in [2, 1, 0] {
            let quota = rates.take(a, at(1)).expect("a limit");
            assert_eq!((quota.left, quota.is_over), (left, false));
        }
        let over = rates.take(a, at(31)).expect("a limit");
        assert_eq!((over.is_over, over.resets_after), (true, Duration::from_secs(30)));
        assert!(
            !rates.take(b, at(31)).expect("a limit").is_over,
            "another organisation has its own"
        );
        assert!(!rates.take(a, at(61)).expect("a limit").is_over);
        assert_eq!(Rates::new(0).take(a, start), None);
    }
}
