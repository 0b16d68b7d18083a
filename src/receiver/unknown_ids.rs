//! Limits requests whose ids lead nowhere: a bucket of tokens for each address, bounded in number.
//! A request whose ids match a route never takes a token (invariant 21).

use crate::listener::{Networks, Peer, caller_of, network_of};
use http::HeaderMap;
use lru::LruCache;
use std::{
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Addresses in memory. A forgotten address begins again with a full bucket, which costs some
/// look-ups in memory.
const ADDRESSES_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

pub(super) struct UnknownIdLimiter {
    per_second: f64,
    buckets: Mutex<LruCache<IpAddr, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl UnknownIdLimiter {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: f64::from(per_second.max(1)),
            buckets: Mutex::new(LruCache::new(ADDRESSES_MAX)),
        }
    }

    /// Takes a token of the address; `false` when it has none left.
    pub(super) fn try_take(&self, ip: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.get_or_insert_mut(ip, || Bucket {
            tokens: self.per_second,
            at: now,
        });
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = since.mul_add(self.per_second, bucket.tokens).min(self.per_second);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

pub(super) fn peer_ip(peer: &Peer) -> IpAddr {
    peer.address.ip().to_canonical()
}

/// The network whose bucket a request takes from.
pub(super) fn caller(peer: &Peer, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    network_of(caller_of(peer, headers, trusted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, time::Duration};

    #[test]
    fn an_address_spends_a_second_of_tokens_and_gets_them_back_with_time() {
        let limiter = UnknownIdLimiter::new(3);
        let (one, other) = (
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
        );
        let now = Instant::now();
        assert_eq!(
            [true, true, true, false],
            std::array::from_fn(|_| limiter.try_take(one, now))
        );
        assert!(limiter.try_take(other, now), "another address has a bucket of its own");
        let later = now + Duration::from_millis(400);
        assert_eq!([true, false], std::array::from_fn(|_| limiter.try_take(one, later)));
        assert_eq!(
            [true, true, true, false],
            std::array::from_fn(|_| limiter.try_take(one, later + Duration::from_mins(1)))
        );
    }

    #[test]
    fn behind_a_trusted_proxy_the_caller_is_the_last_untrusted_address() {
        let trusted = Networks::parse(&["10.0.0.0/8".to_owned()]).unwrap();
        let caller = |from: &str, forwarded: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            let peer = Peer {
                address: format!("{from}:9").parse().unwrap(),
                stopping: tokio_util::sync::CancellationToken::new(),
            };
            super::caller(&peer, &headers, &trusted).to_string()
        };
        assert_eq!(caller("10.0.0.1", "198.51.100.7, 203.0.113.9, 10.0.0.2"), "203.0.113.9");
        assert_eq!(caller("10.0.0.1", "nonsense"), "10.0.0.1");
        assert_eq!(
            caller("192.0.2.1", "203.0.113.9"),
            "192.0.2.1",
            "an untrusted peer can write any header"
        );
    }

    #[test]
    fn addresses_are_remembered_up_to_a_limit() {
        let limiter = UnknownIdLimiter::new(1);
        let now = Instant::now();
        for n in 0..20_000 {
            limiter.try_take(IpAddr::V4(Ipv4Addr::from_bits(n)), now);
        }
        assert_eq!(limiter.buckets.lock().unwrap().len(), ADDRESSES_MAX.get());
    }
}
