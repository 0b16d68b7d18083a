//! Secrets at rest. The only room that turns ciphertext into plaintext, and only inside a closure.
//!
//! `receiver` (to verify signatures), `worker` (to seal payloads), `attempt` and `admin` (to seal, and to verify at the provider) enter.
//! **Invariant:** no function here returns plaintext, and a row that was moved to another organisation or purpose does not open.

mod cache;
mod keyring;

pub use cache::SecretCache;
pub use keyring::{Keyring, KeyringError};

use crate::{
    domain::{Fingerprint, KeyId, OrgId, Provider, SealedBytes, SecretBytes, Source},
    store::{StoreError, keys::DataKeyRow, keys::DataKeys},
};
use std::sync::Arc;

/// What a sealed value is for. Part of the additional authenticated data, so that a value opens only where it was put.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// An organisation's credential for a provider.
    Credential(Provider),
    /// A signing secret of a source.
    SigningSecret(Source),
    /// A stored payload or frozen request.
    Payload,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum VaultError {
    /// Never "not connected": the row is there and this installation cannot open it.
    #[error(
        "cannot decrypt a value of organisation {org}: it is sealed with data key version {version}, which needs key {kek}; add that key to HOOKSWITCH_KEYRING"
    )]
    KeyMissing { org: OrgId, version: u32, kek: KeyId },
    #[error("cannot decrypt a value of organisation {org}, data key version {version}: it was changed, or moved from another place")]
    Tampered { org: OrgId, version: u32 },
    #[error("a sealed value of organisation {org} is not in a known format")]
    Malformed { org: OrgId },
    #[error("organisation {org} has no data key version {version}")]
    NoDataKey { org: OrgId, version: u32 },
    #[error("no randomness from the system")]
    NoRandomness,
    /// The data key could not be loaded or made: not a statement about the value.
    #[error("the data key of organisation {org} could not be read")]
    Store {
        org: OrgId,
        #[source]
        source: StoreError,
    },
}

pub struct Vault {
    _keyring: Keyring,
    _store: Arc<dyn DataKeys>,
}

impl Vault {
    #[must_use]
    pub fn new(keyring: Keyring, store: Arc<dyn DataKeys>) -> Self {
        Self { _keyring: keyring, _store: store }
    }

    /// Seals with the organisation's newest data key, making the first one where there is none and a new version long before 2^32 seals.
    ///
    /// # Errors
    /// The data key cannot be read or made.
    pub async fn seal(&self, org: OrgId, purpose: Purpose, plaintext: &[u8]) -> Result<SealedBytes, VaultError> {
        let _ = (org, purpose, plaintext);
        unimplemented!()
    }

    /// Opens with data keys from the store (kept unwrapped, bounded, in memory) and hands the plaintext to `read`.
    ///
    /// # Errors
    /// Says which key is missing, or that the value was changed or moved.
    pub async fn open<T>(&self, org: OrgId, purpose: Purpose, sealed: &SealedBytes, read: impl FnOnce(&SecretBytes) -> T) -> Result<T, VaultError> {
        let _ = (org, purpose, sealed, read);
        unimplemented!()
    }

    /// Like [`Vault::open`] with wrapped data keys that the caller holds: no I/O, so that ingress goes on while the database is away (rule 9).
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
        let _ = (keys, org, purpose, sealed, read);
        unimplemented!()
    }

    /// Tells whether two secrets or accounts are the same without keeping them: HMAC-SHA256 under a key derived from the ring, 16 bytes in hex.
    #[must_use]
    pub fn fingerprint(&self, org: OrgId, bytes: &[u8]) -> Fingerprint {
        let _ = (org, bytes);
        unimplemented!()
    }

    /// Fingerprints of the key-encryption keys in the ring, newest first.
    #[must_use]
    pub fn key_ids(&self) -> Vec<KeyId> {
        unimplemented!()
    }
}
