//! Settings of keys and of what is kept decrypted.

use secrecy::SecretString;
use std::time::Duration;

section! {
    /// Key-encryption keys and the cache of what was decrypted.
    VaultSettings {
        /// Key-encryption keys, each 64 hex characters, separated by commas, newest first. The
        /// newest seals, all open.
        keyring: Option<SecretString> = None, "HOOKSWITCH_KEYRING";
        /// The ring's single key, 64 hex characters, where no ring is set.
        encryption_key: Option<SecretString> = None, "HOOKSWITCH_ENCRYPTION_KEY" or "ENCRYPTION_KEY";
        /// Decrypted credentials kept in memory at most.
        credentials_cached_max: usize = 8_000, "HOOKSWITCH_CREDENTIALS_CACHED_MAX";
        /// How long a decrypted credential is kept. A change drops it at once.
        credential_cache_seconds: Duration = Duration::from_mins(5), "HOOKSWITCH_CREDENTIAL_CACHE_SECONDS";
    }
}
