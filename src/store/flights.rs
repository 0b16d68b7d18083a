//! One at a time in a process, by key. It stands in front of a lease of the store, so that the
//! callers of one process do not ask the database for it over and over.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Held while one caller is at it.
pub type Flight = tokio::sync::Mutex<()>;

/// The flights of a process. Bounded by the waiting callers: an entry without one is removed.
pub struct Flights<K>(Mutex<HashMap<K, Weak<Flight>>>);

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Flights<K> {
    /// The flight of a key, the same for all who hold it.
    #[must_use]
    pub fn of(&self, key: K) -> Arc<Flight> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(Flight::new(()));
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}
