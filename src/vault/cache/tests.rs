//! The cache: bounds, time, one load at a time, and removals against fills that were begun before
//! them.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Notify;

type Cache = SecretCache<u32, u32>;
type Error = &'static str;

fn cache(entries_max: usize) -> Cache {
    SecretCache::new("credentials", entries_max, Duration::from_mins(5))
}

fn make(cache: &Cache, key: u32, value: u32) -> u32 {
    *cache.get_or_make::<Error>(&key, || Ok(value)).unwrap()
}

/// A load that reports its begin and waits for a permit.
#[derive(Default)]
struct Gate {
    begun: Notify,
    go: Notify,
}

impl Gate {
    async fn load(&self, value: u32) -> Result<u32, Error> {
        self.begun.notify_one();
        self.go.notified().await;
        Ok(value)
    }
}

#[test]
fn keeps_at_most_its_limit_and_pushes_out_what_was_used_longest_ago() {
    let cache = cache(2);
    make(&cache, 1, 10);
    make(&cache, 2, 20);
    assert_eq!(cache.get(&1).as_deref(), Some(&10));
    make(&cache, 3, 30);
    assert_eq!(
        (
            cache.len(),
            cache.get(&1).as_deref(),
            cache.get(&2),
            cache.get(&3).as_deref()
        ),
        (2, Some(&10), None, Some(&30))
    );
}

#[test]
fn a_sharded_cache_stays_within_its_limit() {
    let cache = cache(4096);
    assert!(cache.shards.len() > 1);
    for key in 0..20_000 {
        make(&cache, key, key);
    }
    assert!(cache.len() <= 4096 && cache.len() > 3000, "{}", cache.len());
    cache.remove_where(|key| key % 2 == 0);
    assert!((0..20_000).step_by(2).all(|key| cache.get(&key).is_none()) && !cache.is_empty());
}

#[tokio::test(start_paused = true)]
async fn entries_end_with_their_time_and_use_does_not_prolong_it() {
    let cache = cache(10);
    make(&cache, 1, 10);
    for _ in 0..2 {
        tokio::time::advance(Duration::from_secs(149)).await;
        assert!(cache.get(&1).is_some());
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(cache.get(&1).is_none());
    assert_eq!(cache.len(), 0, "the plaintext is still there");
    assert_eq!(make(&cache, 1, 11), 11);
}

#[test]
fn what_failed_is_not_kept() {
    let cache = cache(10);
    assert_eq!(cache.get_or_make::<Error>(&1, || Err("no")), Err("no"));
    assert!(cache.is_empty());
    assert_eq!(make(&cache, 1, 10), 10);
    assert_eq!(make(&cache, 1, 11), 10, "made twice");
}

#[tokio::test]
async fn one_load_serves_everybody_who_waits() {
    let cache = Arc::new(cache(10));
    let (gate, loads) = (Gate::default(), AtomicU32::new(0));
    let one = || {
        cache.get_or_load(&1, async {
            loads.fetch_add(1, Ordering::SeqCst);
            gate.load(10).await
        })
    };
    let release = async {
        gate.begun.notified().await;
        gate.go.notify_one();
    };
    let (values, ()) = tokio::join!(futures_util::future::join_all((0..50).map(|_| one())), release);
    assert!(values.into_iter().all(|value| *value.unwrap() == 10));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    // Other keys do not wait for it.
    let (slow, ()) = tokio::join!(cache.get_or_load(&2, gate.load(20)), async {
        gate.begun.notified().await;
        assert_eq!(*cache.get_or_load(&3, async { Ok::<_, Error>(30) }).await.unwrap(), 30);
        gate.go.notify_one();
    });
    assert_eq!(*slow.unwrap(), 20);
}

#[tokio::test]
async fn a_failure_is_shared_by_those_who_waited_and_forgotten_after() {
    let cache = cache(10);
    let loads = AtomicU32::new(0);
    let fail = || {
        cache.get_or_load(&1, async {
            loads.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Err::<u32, Error>("away")
        })
    };
    let results = futures_util::future::join_all((0..20).map(|_| fail())).await;
    assert!(results.into_iter().all(|result| result == Err("away")));
    assert_eq!(
        loads.load(Ordering::SeqCst),
        1,
        "a database that is away was asked once for each"
    );
    assert_eq!(*cache.get_or_load(&1, async { Ok::<_, Error>(10) }).await.unwrap(), 10);
}

#[tokio::test]
async fn when_who_loads_goes_away_one_who_waits_loads() {
    let cache = cache(10);
    let gate = Gate::default();
    let mut first = Box::pin(cache.get_or_load(&1, gate.load(10)));
    assert!(futures_util::poll!(&mut first).is_pending());
    let mut second = Box::pin(cache.get_or_load(&1, async { Ok::<_, Error>(20) }));
    assert!(futures_util::poll!(&mut second).is_pending(), "two loads at once");
    drop(first);
    assert_eq!(*second.await.unwrap(), 20);
    assert_eq!(cache.get(&1).as_deref(), Some(&20));
    // No other caller waits, so nothing is left behind.
    let mut alone = Box::pin(cache.get_or_load(&2, gate.load(10)));
    assert!(futures_util::poll!(&mut alone).is_pending());
    drop(alone);
    assert!(cache.shards.iter().all(|shard| lock(shard).flights.is_empty()));
}

#[tokio::test]
async fn a_load_begun_before_a_removal_is_not_put_back_after_it() {
    type Removal = fn(&Cache);
    let removals: [Removal; 3] = [
        |cache| cache.remove(&1),
        |cache| cache.remove_where(|key| *key == 1),
        |cache| assert!(cache.put_if(&1, 99, |_| true)),
    ];
    for (index, remove) in removals.into_iter().enumerate() {
        let (cache, gate) = (cache(10), Gate::default());
        let mut slow = Box::pin(cache.get_or_load(&1, gate.load(10)));
        assert!(futures_util::poll!(&mut slow).is_pending());
        remove(&cache);
        // A caller that comes after the removal neither gets the value from before it nor waits for
        // it.
        let fresh = *cache.get_or_load(&1, async { Ok::<_, Error>(20) }).await.unwrap();
        assert_eq!(fresh, if index == 2 { 99 } else { 20 });
        gate.go.notify_one();
        assert_eq!(*slow.await.unwrap(), 10);
        assert_eq!(cache.get(&1).as_deref(), Some(&fresh), "the old value was put back");
    }
    // The removal comes after the begin of the load, without a caller in between: the value is not
    // kept.
    let (cache, gate) = (cache(10), Gate::default());
    let mut slow = Box::pin(cache.get_or_load(&1, gate.load(10)));
    assert!(futures_util::poll!(&mut slow).is_pending());
    cache.remove(&1);
    gate.go.notify_one();
    slow.await.unwrap();
    assert!(cache.get(&1).is_none());
}

#[test]
fn a_value_made_before_a_removal_is_not_put_back_after_it() {
    let cache = cache(10);
    let made = cache.get_or_make::<Error>(&1, || {
        cache.remove(&1);
        Ok(10)
    });
    assert_eq!((made.as_deref(), cache.get(&1)), (Ok(&10), None));
}

#[test]
fn a_put_never_replaces_a_newer_version() {
    let cache = cache(10);
    let put = |version| cache.put_if(&1, version, |old| *old < version);
    assert!(put(2) && !put(1) && !put(2) && put(3));
    assert_eq!(cache.get(&1).as_deref(), Some(&3));
    // Only the very same value is removed by `remove_same`.
    let used_up = cache.get(&1).unwrap();
    assert!(put(4));
    cache.remove_same(&1, &used_up);
    assert_eq!(cache.get(&1).as_deref(), Some(&4));
    cache.remove_same(&1, &cache.get(&1).unwrap());
    assert!(cache.is_empty());
}

#[test]
fn removed_values_are_dropped_at_once() {
    let cache = SecretCache::<u32, Arc<()>>::new("credentials", 1, Duration::from_mins(5));
    let value = Arc::new(());
    let keep = |key: u32| drop(cache.get_or_make::<Error>(&key, || Ok(Arc::clone(&value))));
    keep(1);
    assert_eq!(Arc::strong_count(&value), 2);
    keep(2);
    assert_eq!(Arc::strong_count(&value), 2, "what was pushed out is still in memory");
    cache.remove(&2);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn hits_and_misses_are_counted_under_the_name() {
    use metrics_exporter_prometheus::PrometheusBuilder;
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let cache = cache(10);
        make(&cache, 1, 10);
        make(&cache, 1, 10);
        cache.get(&1);
        cache.get(&2);
    });
    let shown = handle.render();
    for line in [
        "hookswitch_cache_hits_total{cache=\"credentials\"} 2",
        "hookswitch_cache_misses_total{cache=\"credentials\"} 2",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[test]
fn hits_misses_entries_and_the_limit_are_counted() {
    let cache: SecretCache<u8, u8> = SecretCache::new("credentials", 2, Duration::from_mins(5));
    for key in [1, 1, 2, 3, 1] {
        cache.get_or_make(&key, || Ok::<_, ()>(key)).expect("made");
    }
    let stats = cache.stats();
    assert_eq!(
        (stats.hits, stats.misses, stats.entries, stats.entries_max),
        (1, 4, 2, 2),
        "the first key was pushed out by the third"
    );
}
