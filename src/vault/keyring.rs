//! The ring of key-encryption keys, newest first (stub).
use crate::domain::SecretBytes;

pub struct Keyring;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("key {number} of the ring is not 64 hex characters (32 bytes); make one with `hookswitch keys generate`")]
    NotHex { number: usize },
    #[error("the ring is empty")]
    Empty,
}

impl Keyring {
    /// Keys in hex, newest first.
    ///
    /// # Errors
    /// Which key is not one; never the key.
    pub fn from_hex(keys: &[SecretBytes]) -> Result<Self, KeyringError> {
        let _ = keys;
        unimplemented!()
    }
}
