//! A bounded cache for what was made from plaintext.

use crate::telemetry::catalogue::{CACHE_ENTRIES, CACHE_HITS, CACHE_MISSES};
use lru::LruCache;
use std::{
    any::Any,
    collections::HashMap,
    fmt,
    future::Future,
    hash::{BuildHasher, Hash, RandomState},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Most shards, and the fewest entries for which one more shard pays. A small cache has one shard,
/// so it keeps the order of use exactly.
const SHARDS_MAX: usize = 16;
const SHARD_ENTRIES_MIN: usize = 64;

/// A sharded LRU with a time to live and one load at a time per key. It counts hits and misses
/// (`hookswitch_cache_hits_total{cache}`, `…_misses_total`), and offers no way to print a value.
///
/// **A fill never undoes a removal.** Otherwise a slow reader could put the old value back after an
/// invalidation. A load that began before a [`SecretCache::remove`], [`SecretCache::remove_where`]
/// or [`SecretCache::put_if`] of its key goes to the callers that waited for it, and is not kept.
/// Values zero themselves when the last `Arc` goes. An entry that is evicted, times out or is
/// removed drops its `Arc` at once.
pub struct SecretCache<K, V> {
    name: &'static str,
    time_to_live: Duration,
    entries_max: usize,
    hits: AtomicU64,
    misses: AtomicU64,
    hasher: RandomState,
    shards: Box<[Mutex<Shard<K, V>>]>,
}

/// The use of a cache since its process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStats {
    pub name: &'static str,
    pub hits: u64,
    pub misses: u64,
    pub entries: usize,
    pub entries_max: usize,
}

struct Shard<K, V> {
    entries: LruCache<K, Entry<V>>,
    /// Loads that are under way. A removal takes the flight out too. Its value is then not kept,
    /// and a later caller begins another load.
    flights: HashMap<K, Arc<Flight<V>>>,
    /// Counts removals, for fills that are too short to be flights.
    removals: u64,
}

struct Entry<V> {
    value: Arc<V>,
    made: Instant,
}

type Failure = Box<dyn Any + Send + Sync>;

struct Flight<V> {
    /// The caller that holds this lock loads. After a cancelled load the next caller gets the lock
    /// and loads in its place.
    turn: tokio::sync::Mutex<()>,
    outcome: OnceLock<Result<Arc<V>, Failure>>,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V: Send + Sync + 'static> SecretCache<K, V> {
    /// `name` is the metric's label, from a closed list.
    #[must_use]
    pub fn new(name: &'static str, entries_max: usize, time_to_live: Duration) -> Self {
        let shards = (entries_max / SHARD_ENTRIES_MIN).clamp(1, SHARDS_MAX);
        let capacity = NonZeroUsize::new(entries_max / shards).unwrap_or(NonZeroUsize::MIN);
        // `LruCache::new` would allocate its whole capacity at once; `unbounded` and a cap of our
        // own grow with use.
        let shard = || Shard {
            entries: LruCache::unbounded(),
            flights: HashMap::new(),
            removals: 0,
        };
        let shards = (0..shards)
            .map(|_| {
                let mut shard = shard();
                shard.entries.resize(capacity);
                Mutex::new(shard)
            })
            .collect::<Box<[_]>>();
        Self {
            name,
            time_to_live,
            entries_max: capacity.get() * shards.len(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            hasher: RandomState::new(),
            shards,
        }
    }

    /// Memory only.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        let found = self.find(&mut self.shard(key), key);
        self.count(found.is_some());
        found
    }

    /// Returns the cached value, or makes it without I/O: an HMAC state from a sealed secret in the
    /// snapshot. A failure is not kept.
    pub fn get_or_make<E>(&self, key: &K, make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        let removals = {
            let mut shard = self.shard(key);
            if let Some(found) = self.find(&mut shard, key) {
                drop(shard);
                self.count(true);
                return Ok(found);
            }
            shard.removals
        };
        self.count(false);
        // Outside of the lock. Two callers may make the same value at once, which costs
        // microseconds. A lock held over a decryption would delay every caller.
        let value = Arc::new(make()?);
        let mut shard = self.shard(key);
        if shard.removals == removals {
            shard.entries.put(
                key.clone(),
                Entry {
                    value: Arc::clone(&value),
                    made: Instant::now(),
                },
            );
        }
        Ok(value)
    }

    /// One load at a time per key. The other callers wait for it and share its outcome, a failure
    /// too. A failure is not kept, so that a later caller tries again. Cancel-safe: when the caller
    /// that loads goes away, a caller that waits loads in its place.
    pub async fn get_or_load<E, F>(&self, key: &K, load: F) -> Result<Arc<V>, E>
    where
        F: Future<Output = Result<V, E>> + Send,
        E: Clone + Send + Sync + 'static,
    {
        loop {
            let flight = {
                let mut shard = self.shard(key);
                if let Some(found) = self.find(&mut shard, key) {
                    drop(shard);
                    self.count(true);
                    return Ok(found);
                }
                let begin = || {
                    Arc::new(Flight {
                        turn: tokio::sync::Mutex::new(()),
                        outcome: OnceLock::new(),
                    })
                };
                Arc::clone(shard.flights.entry(key.clone()).or_insert_with(begin))
            };
            let boarding = Boarding {
                cache: self,
                key,
                flight: &flight,
            };
            let turn = flight.turn.lock().await;
            match flight.outcome.get() {
                Some(Ok(value)) => {
                    self.count(true);
                    return Ok(Arc::clone(value));
                }
                Some(Err(failure)) => {
                    if let Some(error) = failure.downcast_ref::<E>() {
                        self.count(false);
                        return Err(error.clone());
                    }
                    // The load of this flight has another type of error. It has ended, so the next
                    // round begins our own.
                    drop(turn);
                    drop(boarding);
                    continue;
                }
                None => {}
            }
            self.count(false);
            let result = load.await.map(Arc::new);
            self.land(key, &flight, &result);
            drop(turn);
            return result;
        }
    }

    /// Puts a value, unless the cache holds one for which `replaces` says `false`: `|old|
    /// old.version < new_version` keeps the newer (invariant 6). A load that is under way is not
    /// kept after it. Returns `false` when the value was not taken.
    pub fn put_if(&self, key: &K, value: V, replaces: impl FnOnce(&V) -> bool) -> bool {
        let mut shard = self.shard(key);
        if self.find(&mut shard, key).is_some_and(|old| !replaces(&old)) {
            return false;
        }
        shard.removals += 1;
        shard.flights.remove(key);
        shard.entries.put(
            key.clone(),
            Entry {
                value: Arc::new(value),
                made: Instant::now(),
            },
        );
        true
    }

    pub fn remove(&self, key: &K) {
        let mut shard = self.shard(key);
        shard.removals += 1;
        shard.flights.remove(key);
        shard.entries.pop(key);
    }

    /// Removes `value` if the cache still holds this very value, so that a late caller with a
    /// used-up value does not remove a fresh one.
    pub fn remove_same(&self, key: &K, value: &Arc<V>) {
        let mut shard = self.shard(key);
        if shard
            .entries
            .peek(key)
            .is_some_and(|entry| Arc::ptr_eq(&entry.value, value))
        {
            shard.entries.pop(key);
        }
    }

    /// Removes each entry whose key is unwanted. Visits all entries.
    pub fn remove_where(&self, unwanted: impl Fn(&K) -> bool) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.removals += 1;
            shard.flights.retain(|key, _| !unwanted(key));
            let keys: Vec<K> = shard
                .entries
                .iter()
                .map(|(key, _)| key)
                .filter(|key| unwanted(key))
                .cloned()
                .collect();
            for key in keys {
                shard.entries.pop(&key);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            name: self.name,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: self.len(),
            entries_max: self.entries_max,
        }
    }

    /// Sets `hookswitch_cache_entries{cache}`; called at each scrape.
    pub fn gather_gauges(&self) {
        CACHE_ENTRIES.set(self.len() as f64, &[self.name]);
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K, V>> {
        let index = if self.shards.len() == 1 {
            0
        } else {
            usize::try_from(self.hasher.hash_one(key) >> 40).unwrap_or(0) % self.shards.len()
        };
        lock(&self.shards[index])
    }

    fn find(&self, shard: &mut Shard<K, V>, key: &K) -> Option<Arc<V>> {
        let entry = shard.entries.get(key)?;
        if entry.made.elapsed() < self.time_to_live {
            return Some(Arc::clone(&entry.value));
        }
        shard.entries.pop(key);
        None
    }

    /// Ends a flight: keeps its value only if no removal has taken it out since it was begun.
    fn land<E: Clone + Send + Sync + 'static>(&self, key: &K, flight: &Arc<Flight<V>>, result: &Result<Arc<V>, E>) {
        let mut shard = self.shard(key);
        if shard.flights.get(key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            shard.flights.remove(key);
            if let Ok(value) = result {
                shard.entries.put(
                    key.clone(),
                    Entry {
                        value: Arc::clone(value),
                        made: Instant::now(),
                    },
                );
            }
        }
        // Set once: only the caller that holds the lock and found no outcome comes here.
        let _ = flight.outcome.set(match result {
            Ok(value) => Ok(Arc::clone(value)),
            Err(error) => Err(Box::new(error.clone())),
        });
    }

    fn count(&self, hit: bool) {
        let (counter, metric) = if hit {
            (&self.hits, CACHE_HITS)
        } else {
            (&self.misses, CACHE_MISSES)
        };
        counter.fetch_add(1, Ordering::Relaxed);
        metric.count(1, &[self.name]);
    }
}

/// A caller's share of a flight. The last caller to leave a flight without outcome removes it, so
/// that cancelled loads leave nothing behind.
struct Boarding<'a, K: Hash + Eq + Clone + Send + Sync + 'static, V: Send + Sync + 'static> {
    cache: &'a SecretCache<K, V>,
    key: &'a K,
    flight: &'a Arc<Flight<V>>,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V: Send + Sync + 'static> Drop for Boarding<'_, K, V> {
    fn drop(&mut self) {
        let mut shard = self.cache.shard(self.key);
        let is_listed = shard
            .flights
            .get(self.key)
            .is_some_and(|known| Arc::ptr_eq(known, self.flight));
        // Two references are left: the map's and ours. Others are made under this lock only.
        if is_listed && Arc::strong_count(self.flight) == 2 {
            shard.flights.remove(self.key);
        }
    }
}

impl<K, V> fmt::Debug for SecretCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretCache")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Each operation leaves the shard whole, even where it panics. So a poisoned lock can be used
/// further.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
