//! Secrets at rest. The only room that turns ciphertext into plaintext, and only inside a closure.
//!
//! `receiver` (to verify signatures), `worker` (to seal payloads), `attempt` and `admin` (to seal,
//! and to verify at the provider) enter. **Invariant:** no function here returns plaintext, and a
//! row that was moved to another organisation or purpose does not open.

mod cache;
mod envelope;
mod finish;
mod keyring;
mod legacy;
mod rotate;
mod under_ring;

pub use cache::{CacheStats, SecretCache};
pub use finish::RotationFinisher;
pub use keyring::{Keyring, KeyringError};
pub use legacy::{LegacyError, LegacyKey};
pub use rotate::{Reporter, RotationStep, SetAside, promote};

use crate::{
    domain::{Fingerprint, INSTALLATION, KeyId, OrgId, Provider, SealedBytes, SecretBytes, Source},
    store::{StoreError, keys::DataKeyRow, keys::DataKeys},
};
use envelope::{DataKey, Sealed};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use subtle::ConstantTimeEq;

/// Seals with one data key; then a new version begins. Random 96-bit nonces are good for 2^32 seals
/// under one key. This limit is a sixteenth of that: the chance that two nonces are equal stays
/// below 2^-40.
const SEALS_MAX: u64 = 1 << 28;
/// Seals that one write to the store reserves. A restart loses the rest of a reserved block.
const SEALS_BLOCK: u64 = 1 << 14;
const _: () = assert!(SEALS_BLOCK < SEALS_MAX && SEALS_MAX < 1 << 32);
/// Unwrapped data keys in memory at most (about half a kilobyte each), and for how long.
const DATA_KEYS_CACHED_MAX: usize = 32_768;
const DATA_KEY_TIME_TO_LIVE: Duration = Duration::from_hours(1);
/// Rounds of a seal: in each it may find its data key used up, or made by another instance.
const ROUNDS_MAX: u32 = 16;

/// The purpose of a sealed value. Part of the additional authenticated data, so that a value opens
/// only where it was put.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// An organisation's credential for a provider.
    Credential(Provider),
    /// A signing secret of a source.
    SigningSecret(Source),
    /// A stored payload or frozen request.
    Payload,
    /// The answer to a request of the admin API that may be sent again.
    Answer,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum VaultError {
    /// Never report this as "not connected": the row is there, and this installation cannot open
    /// it.
    #[error(
        "cannot decrypt a value of organisation {org}: it is sealed with data key version {version}, which needs key \
        {kek}; add that key to HOOKSWITCH_KEYRING"
    )]
    KeyMissing { org: OrgId, version: u32, kek: KeyId },
    #[error(
        "cannot decrypt a value of organisation {org}, data key version {version}: it was changed, or moved from \
        another place"
    )]
    Tampered { org: OrgId, version: u32 },
    #[error("a sealed value of organisation {org} is not in a known format")]
    Malformed { org: OrgId },
    #[error("organisation {org} has no data key version {version}")]
    NoDataKey { org: OrgId, version: u32 },
    #[error("a value of organisation {org} is sealed under key {kek}; add that key to HOOKSWITCH_KEYRING")]
    NotInRing { org: OrgId, kek: KeyId },
    #[error("no randomness from the system")]
    NoRandomness,
    /// The data key could not be loaded or made. This says nothing about the value.
    #[error("the data key of organisation {org} could not be read")]
    Store {
        org: OrgId,
        #[source]
        source: StoreError,
    },
}

pub struct Vault {
    keyring: Keyring,
    /// The place in the ring of the key that seals. The first, until the installation has named
    /// its primary key.
    primary: AtomicUsize,
    store: Arc<dyn DataKeys>,
    /// Data keys by version. A version never changes its key (a rewrap changes its wrapping), so
    /// nothing here goes stale.
    data_keys: SecretCache<(OrgId, u32), DataKey>,
    /// The data key that each organisation seals with at present.
    sealing: SecretCache<OrgId, Sealing>,
    limits: SealLimits,
}

#[derive(Clone, Copy)]
struct SealLimits {
    /// Seals with one data key at most.
    count_max: u64,
    /// Seals that are reserved at once.
    block: u64,
}

/// A data key with the rest of a block of seals that the store has counted.
struct Sealing {
    key: Arc<DataKey>,
    left: AtomicU64,
}

impl Sealing {
    /// Takes one seal out of the block.
    fn take(&self) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }
}

impl Vault {
    #[must_use]
    pub fn new(keyring: Keyring, store: Arc<dyn DataKeys>) -> Self {
        Self::with_limits(
            keyring,
            store,
            SealLimits {
                count_max: SEALS_MAX,
                block: SEALS_BLOCK,
            },
        )
    }

    fn with_limits(keyring: Keyring, store: Arc<dyn DataKeys>, limits: SealLimits) -> Self {
        Self {
            keyring,
            primary: AtomicUsize::new(0),
            store,
            data_keys: SecretCache::new("data_keys", DATA_KEYS_CACHED_MAX, DATA_KEY_TIME_TO_LIVE),
            sealing: SecretCache::new("sealing_keys", DATA_KEYS_CACHED_MAX, DATA_KEY_TIME_TO_LIVE),
            limits,
        }
    }

    /// Seals with this key of the ring from now on. `false`: the ring lacks it, nothing changed.
    pub fn seal_with(&self, key: &KeyId) -> bool {
        let place = self.keyring.iter().position(|one| one.id == *key);
        if let Some(place) = place {
            self.primary.store(place, Ordering::Release);
        }
        place.is_some()
    }

    /// The name of the key that seals.
    #[must_use]
    pub fn primary_key(&self) -> KeyId {
        self.primary().id.clone()
    }

    fn primary(&self) -> &keyring::KeyEncryptionKey {
        self.keyring.at(self.primary.load(Ordering::Acquire))
    }

    /// Sets the gauges of what is held in memory; called at each scrape.
    pub fn gather_gauges(&self) {
        self.data_keys.gather_gauges();
        self.sealing.gather_gauges();
    }

    /// The use of what is held in memory.
    #[must_use]
    pub fn cache_stats(&self) -> [CacheStats; 2] {
        [self.data_keys.stats(), self.sealing.stats()]
    }

    /// Seals with the organisation's newest data key, making the first one where there is none and
    /// a new version long before 2^32 seals. Memory only while the organisation's key is cached and
    /// its block of counted seals lasts (one store round-trip in 16,384 seals).
    ///
    /// # Errors
    /// The data key cannot be read or made.
    pub async fn seal(&self, org: OrgId, purpose: Purpose, plaintext: &[u8]) -> Result<SealedBytes, VaultError> {
        for _ in 0..ROUNDS_MAX {
            let sealing = self.sealing.get_or_load(&org, self.load_sealing(org)).await?;
            if sealing.take() {
                return sealing.key.seal(org, purpose, plaintext);
            }
            self.sealing.remove_same(&org, &sealing);
        }
        // Happens only when more callers seal at once than a block has seals, several times in a
        // row. A later try works.
        Err(VaultError::Store {
            org,
            source: StoreError::Conflict {
                what: "a data key's block of seals",
            },
        })
    }

    /// Opens with data keys from the store (kept unwrapped, bounded, in memory) and hands the
    /// plaintext to `read`.
    ///
    /// # Errors
    /// Says which key is missing, or that the value was changed or moved.
    pub async fn open<T>(
        &self,
        org: OrgId,
        purpose: Purpose,
        sealed: &SealedBytes,
        read: impl FnOnce(&SecretBytes) -> T,
    ) -> Result<T, VaultError> {
        let sealed = Sealed::parse(org, sealed)?;
        let key = self
            .data_keys
            .get_or_load(&(org, sealed.version), async {
                self.unwrap(&self.load_rows(org).await?, org, sealed.version)
            })
            .await?;
        key.open(org, purpose, &sealed).map(|plaintext| read(&plaintext))
    }

    /// Like [`Vault::open`] with wrapped data keys that the caller holds: no I/O, so that ingress
    /// goes on while the database is away (invariant 9).
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open_with<T>(
        &self,
        keys: &[DataKeyRow],
        org: OrgId,
        purpose: Purpose,
        sealed: &SealedBytes,
        read: impl FnOnce(&SecretBytes) -> T,
    ) -> Result<T, VaultError> {
        let sealed = Sealed::parse(org, sealed)?;
        let key = self
            .data_keys
            .get_or_make(&(org, sealed.version), || self.unwrap(keys, org, sealed.version))?;
        key.open(org, purpose, &sealed).map(|plaintext| read(&plaintext))
    }

    /// Seals under the ring's primary key: for what has to be kept while the organisation has no
    /// data key that opens, or is not there yet. Memory only.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn seal_under_ring(&self, org: OrgId, plaintext: &[u8]) -> Result<SealedBytes, VaultError> {
        under_ring::seal(self.primary(), org, plaintext)
    }

    /// Opens a payload, whether it is sealed for the organisation or under the ring.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub async fn open_payload<T>(
        &self,
        org: OrgId,
        sealed: &SealedBytes,
        read: impl FnOnce(&SecretBytes) -> T,
    ) -> Result<T, VaultError> {
        if under_ring::is_one(sealed) {
            under_ring::open(&self.keyring, org, sealed).map(|plaintext| read(&plaintext))
        } else {
            self.open(org, Purpose::Payload, sealed, read).await
        }
    }

    /// A keyed hash that shows whether two secrets or accounts are the same, without keeping them.
    /// It is HMAC-SHA256 under a key derived from the ring's primary key, 16 bytes in hex.
    /// [`Vault::is_fingerprint_of`] compares a stored fingerprint, also after the ring got a new
    /// key.
    #[must_use]
    pub fn fingerprint(&self, org: OrgId, bytes: &[u8]) -> Fingerprint {
        Fingerprint(hex::encode(self.primary().fingerprint(org.as_bytes(), bytes)).into())
    }

    /// The keyed hash of the hop header, which belongs to no organisation.
    #[must_use]
    pub fn tag_hops(&self, text: &[u8]) -> Box<str> {
        self.fingerprint(INSTALLATION, text).0
    }

    /// Whether any key of the ring makes this fingerprint of these bytes. In constant time for each
    /// key.
    #[must_use]
    pub fn is_fingerprint_of(&self, fingerprint: &Fingerprint, org: OrgId, bytes: &[u8]) -> bool {
        self.keyring.iter().any(|key| {
            bool::from(
                hex::encode(key.fingerprint(org.as_bytes(), bytes))
                    .as_bytes()
                    .ct_eq(fingerprint.0.as_bytes()),
            )
        })
    }

    /// Fingerprints of the key-encryption keys in the ring, newest first.
    #[must_use]
    pub fn key_ids(&self) -> Vec<KeyId> {
        self.keyring.ids()
    }

    /// The same data key under the ring's primary key-encryption key; `None` where it already is.
    /// Values sealed with it stay as they are.
    ///
    /// # Errors
    /// The ring lacks the key that it is wrapped with, or the row was changed or moved.
    pub fn rewrap(&self, row: &DataKeyRow) -> Result<Option<DataKeyRow>, VaultError> {
        let primary = self.primary();
        if row.kek == primary.id {
            return Ok(None);
        }
        envelope::rewrap(self.key_for(row)?, primary, row).map(Some)
    }

    /// Whether a data key opens with the ring.
    ///
    /// # Errors
    /// As [`Vault::rewrap`].
    pub fn check(&self, row: &DataKeyRow) -> Result<(), VaultError> {
        DataKey::unwrap(self.key_for(row)?, row).map(drop)
    }

    async fn load_rows(&self, org: OrgId) -> Result<Vec<DataKeyRow>, VaultError> {
        self.store
            .load_data_keys(org)
            .await
            .map_err(|source| VaultError::Store { org, source })
    }

    fn key_for(&self, row: &DataKeyRow) -> Result<&keyring::KeyEncryptionKey, VaultError> {
        self.keyring.find(&row.kek).ok_or_else(|| VaultError::KeyMissing {
            org: row.org,
            version: row.version,
            kek: row.kek.clone(),
        })
    }

    fn unwrap(&self, rows: &[DataKeyRow], org: OrgId, version: u32) -> Result<DataKey, VaultError> {
        let row = rows
            .iter()
            .find(|row| row.org == org && row.version == version)
            .ok_or(VaultError::NoDataKey { org, version })?;
        DataKey::unwrap(self.key_for(row)?, row)
    }

    /// Finds or makes the data key to seal with, and has a block of seals counted.
    ///
    /// The key is the highest version that the ring opens, whichever key of it wraps the version. A
    /// rotation wraps it again and makes no new version. A version that the ring does not open is
    /// passed over, so that this instance goes on.
    async fn load_sealing(&self, org: OrgId) -> Result<Sealing, VaultError> {
        let store_failed = |source| VaultError::Store { org, source };
        for _ in 0..ROUNDS_MAX {
            let rows = self.load_rows(org).await?;
            let usable = rows
                .iter()
                .filter_map(|row| Some((row, self.keyring.find(&row.kek)?)))
                .max_by_key(|(row, _)| row.version);
            if let Some((row, kek)) = usable
                && row.seals.saturating_add(self.limits.block) <= self.limits.count_max
            {
                let total = self
                    .store
                    .reserve_seals(org, row.version, self.limits.block)
                    .await
                    .map_err(store_failed)?;
                // Other instances count too. The store's total decides, and a block past the limit
                // is not used.
                if total <= self.limits.count_max {
                    let key = self
                        .data_keys
                        .get_or_make(&(org, row.version), || DataKey::unwrap(kek, row))?;
                    return Ok(Sealing {
                        key,
                        left: AtomicU64::new(self.limits.block),
                    });
                }
            }
            let version = rows
                .iter()
                .map(|row| row.version)
                .max()
                .unwrap_or(0)
                .checked_add(1)
                .ok_or(VaultError::Malformed { org })?;
            match self
                .store
                .insert_data_key(DataKey::generate(self.primary(), org, version)?)
                .await
            {
                // `Conflict`: another instance made this version first, so use that one.
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(source) => return Err(store_failed(source)),
            }
        }
        Err(store_failed(StoreError::Conflict {
            what: "the organisation's data key",
        }))
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("keyring", &self.keyring)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
