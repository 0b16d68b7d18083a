//! A bounded cache for what was made from plaintext (stub).
use std::{future::Future, hash::Hash, marker::PhantomData, sync::Arc, time::Duration};

/// Sharded LRU with a time to live, one load at a time per key, hit and miss counters (`hookswitch_cache_hits_total{cache}`, `…_misses_total`), and no way to print a value.
/// A fill never replaces a newer version (rule 6): the version is part of what the caller compares.
pub struct SecretCache<K, V> {
    _p: PhantomData<(K, V)>,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V: Send + Sync + 'static> SecretCache<K, V> {
    /// `name` is the metric's label, from a closed list.
    #[must_use]
    pub fn new(_name: &'static str, _entries_max: usize, _time_to_live: Duration) -> Self {
        unimplemented!()
    }
    /// Memory only.
    pub fn get(&self, _key: &K) -> Option<Arc<V>> {
        unimplemented!()
    }
    /// Fills from memory where that is possible (an HMAC state from a sealed secret in the snapshot).
    pub fn get_or_make<E>(&self, _key: &K, _make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        unimplemented!()
    }
    /// One load at a time per key; the others wait for it. A failed load is not kept.
    pub async fn get_or_load<E, F>(&self, _key: &K, _load: F) -> Result<Arc<V>, E>
    where
        F: Future<Output = Result<V, E>> + Send,
        E: Send,
    {
        unimplemented!()
    }
    pub fn remove(&self, _key: &K) {
        unimplemented!()
    }
    pub fn remove_where(&self, _unwanted: impl Fn(&K) -> bool) {
        unimplemented!()
    }
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
