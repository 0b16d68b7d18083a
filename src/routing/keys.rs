//! External ids in memory: 21 bytes a slot of the table, whatever the id's length.
//!
//! An id is kept as 128 bits of a hash under keys that are random for each process, so no sender
//! can make two ids collide. A collision would still let nothing in. A route only chooses the
//! secrets to try, and the organisation of an event is the owner of the secret that verified it
//! (invariant 17).

use crate::{
    domain::{RouteKey, RouteKind},
    store::snapshot::RouteRow,
};
use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

const SHARDS: usize = 16;

/// The place of an organisation in the table of organisations.
pub(super) type OrgIndex = u32;

/// A keyed hash of an id. In bytes: with its index it fills 20, where an aligned `u128` would
/// take 32.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hashed([u8; 16]);

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (head, _) = self.0.split_first_chunk::<8>().expect("16 bytes have 8");
        state.write_u64(u64::from_le_bytes(*head));
    }
}

/// Hands on what is a keyed hash already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only keyed hashes of 64 bits are written")
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<AsIs>>;

pub(super) struct Keys {
    hashers: [RandomState; 2],
    shards: [RwLock<Map<Hashed, OrgIndex>>; SHARDS],
    claims: Mutex<KeyClaims>,
}

/// State that only refreshes use.
#[derive(Default)]
struct KeyClaims {
    /// By the hash of kind and row: the key that a row claims at present.
    slots: Map<u64, Hashed>,
    /// The organisations that claim a Twilio account. It routes while that is one organisation.
    accounts: Map<Hashed, Vec<OrgIndex>>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            shards: std::array::from_fn(|_| RwLock::default()),
            claims: Mutex::default(),
        }
    }
}

impl Keys {
    pub(super) fn get(&self, key: &RouteKey) -> Option<OrgIndex> {
        if key.value.len() > RouteKey::BYTES_MAX {
            return None;
        }
        let hashed = self.hash(key);
        read(self.shard(hashed)).get(&hashed).copied()
    }

    /// Brings the table up to date with rows of one snapshot, in any order. Keys that end are
    /// removed before any key is added, and only where they lead to the row's own organisation.
    /// (One row may begin to claim what another row, of the same organisation or not, has just
    /// left.)
    pub(super) fn apply(&self, rows: &[RouteRow], places: &[OrgIndex]) {
        let mut claims = lock(&self.claims);
        for (row, org) in rows.iter().zip(places) {
            self.release(&mut claims, row, *org);
        }
        for (row, org) in rows.iter().zip(places) {
            self.claim(&mut claims, row, *org);
        }
    }

    /// A row with a slot gives up the key of its slot, and nothing else. Another row of the same
    /// organisation may claim the row's present key.
    fn release(&self, claims: &mut KeyClaims, row: &RouteRow, org: OrgIndex) {
        let key = self.hash(&row.key);
        let given_up = match self.slot(row) {
            Some(slot) => {
                let before = claims
                    .slots
                    .get(&slot)
                    .copied()
                    .filter(|before| *before != key || !row.is_live);
                if before.is_some() {
                    claims.slots.remove(&slot);
                }
                before
            }
            None => (!row.is_live).then_some(key),
        };
        let Some(given_up) = given_up else { return };
        if row.key.kind != RouteKind::TwilioAccount {
            self.remove(given_up, org);
        } else if let Some(claimants) = claims.accounts.get_mut(&given_up) {
            claimants.retain(|claimant| *claimant != org);
            self.route_account(claims, given_up);
        }
    }

    fn claim(&self, claims: &mut KeyClaims, row: &RouteRow, org: OrgIndex) {
        if !row.is_live || row.key.value.len() > RouteKey::BYTES_MAX {
            return;
        }
        let key = self.hash(&row.key);
        if let Some(slot) = self.slot(row) {
            claims.slots.insert(slot, key);
        }
        if row.key.kind == RouteKind::TwilioAccount {
            let claimants = claims.accounts.entry(key).or_default();
            if !claimants.contains(&org) {
                claimants.push(org);
            }
            self.route_account(claims, key);
        } else {
            write(self.shard(key)).insert(key, org);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).len()).sum()
    }

    /// Room for so many more, made at once.
    pub(super) fn reserve(&self, additional: usize) {
        for shard in &self.shards {
            // Shards do not fill alike: an eighth more, so that none grows by doubling at the end.
            write(shard).reserve(additional / SHARDS + additional / SHARDS / 8);
        }
    }

    /// Bytes that the tables take, from their capacity: an entry and a byte of control for each
    /// place, 8 places for 7 entries.
    pub(super) fn bytes(&self) -> usize {
        fn table<K, V>(map: &Map<K, V>) -> usize {
            map.capacity() / 7 * 8 * (size_of::<(K, V)>() + 1)
        }
        let claims = lock(&self.claims);
        self.shards.iter().map(|shard| table(&read(shard))).sum::<usize>()
            + table(&claims.slots)
            + table(&claims.accounts)
    }

    /// An account alone routes only while one organisation claims it (invariant 18).
    fn route_account(&self, claims: &mut KeyClaims, key: Hashed) {
        let mut shard = write(self.shard(key));
        match claims.accounts.get(&key).map(Vec::as_slice) {
            Some([only]) => drop(shard.insert(key, *only)),
            several => {
                if several.is_none_or(<[_]>::is_empty) {
                    claims.accounts.remove(&key);
                }
                shard.remove(&key);
            }
        }
    }

    /// Takes a key out if it leads to this organisation: another may have proved it since.
    fn remove(&self, key: Hashed, org: OrgIndex) {
        let mut shard = write(self.shard(key));
        if shard.get(&key) == Some(&org) {
            shard.remove(&key);
        }
    }

    /// One row may claim a key of each kind.
    fn slot(&self, row: &RouteRow) -> Option<u64> {
        row.slot.map(|slot| self.hashers[0].hash_one((row.key.kind, slot)))
    }

    fn hash(&self, key: &RouteKey) -> Hashed {
        let mut bytes = [0; 16];
        let (head, tail) = bytes.split_at_mut(8);
        head.copy_from_slice(&self.hashers[0].hash_one(key).to_le_bytes());
        tail.copy_from_slice(&self.hashers[1].hash_one(key).to_le_bytes());
        Hashed(bytes)
    }

    /// By the last byte: the table inside a shard goes by the first eight.
    fn shard(&self, key: Hashed) -> &RwLock<Map<Hashed, OrgIndex>> {
        &self.shards[usize::from(key.0[15]) % SHARDS]
    }
}

/// Tables are changed by single insertions and removals: after a panic in between they are whole.
pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
