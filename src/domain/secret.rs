//! Secrets and sealed bytes. Nothing here can be printed, and plaintext is zeroed when it is
//! dropped.

use std::fmt;
use zeroize::Zeroizing;

/// Plaintext of a secret. Zeroed on drop, no `Display`, no `Serialize`, and a `Debug` that shows
/// its length only.
#[derive(Clone)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The plaintext. Called in `vault`, by the line that sends, and by the closure that makes an
    /// HMAC state; `tests/tidy.rs` keeps the list.
    #[must_use]
    pub fn expose_secret(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for SecretBytes {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// Ciphertext as the vault made it: format version, data-key version, nonce, ciphertext and tag.
/// Safe to store and to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SealedBytes(pub Box<[u8]>);

impl fmt::Debug for SealedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedBytes({} bytes)", self.0.len())
    }
}

/// The name of a key-encryption key: the first 8 bytes of a hash of it, in hex. Says which key,
/// never what it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct KeyId(pub Box<str>);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells whether two secrets or accounts are the same without keeping them: a keyed hash, in hex.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint(pub Box<str>);
