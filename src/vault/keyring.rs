//! The ring of key-encryption keys (KEK), newest first: the primary one wraps, all unwrap.

use crate::{
    config::VaultSettings,
    domain::{KeyId, SecretBytes},
};
use aes_gcm::{Aes256Gcm, KeyInit};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::{io::Write, os::unix::fs::OpenOptionsExt, os::unix::fs::PermissionsExt, path::Path, sync::Arc};
use zeroize::Zeroizing;

/// Every key that [`Keyring::dev`] makes begins with these bytes. The other 24 bytes are random:
/// 192 bits. The mark is inside the key, so `serve` recognises it wherever it was copied to.
const DEV_MARK: [u8; 8] = *b"hks-dev\0";

/// Most keys in one ring. A rotation needs two; a longer ring keeps keys that nothing needs.
const KEYS_MAX: usize = 16;

pub struct Keyring {
    /// Newest first, never empty.
    keys: Vec<KeyEncryptionKey>,
}

pub(super) struct KeyEncryptionKey {
    pub(super) id: KeyId,
    pub(super) cipher: Aes256Gcm,
    /// A key of its own for fingerprints, so that the same bytes never serve two algorithms.
    fingerprint_key: Zeroizing<[u8; 32]>,
    /// A key of its own for values that are sealed under the ring.
    pub(super) values: Aes256Gcm,
    is_dev: bool,
}

/// Why there is no ring. The text names the key's place and the remedy, never the key.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyringError {
    #[error("key {number} of the ring is not 64 hex characters (32 bytes); make one with `hookswitch keys generate`")]
    NotHex { number: usize },
    #[error(
        "the ring is empty: set HOOKSWITCH_KEYRING or ENCRYPTION_KEY to 64 hex characters; make a key with `hookswitch \
        keys generate`"
    )]
    Empty,
    #[error(
        "keys {number} and {same_as} of the ring are the same; a rotation puts a fresh key first and keeps the one \
        before it"
    )]
    Twice { number: usize, same_as: usize },
    #[error("the ring has {count} keys, at most {KEYS_MAX} are taken")]
    TooMany { count: usize },
    #[error(
        "key {number} of the ring was made by `hookswitch dev`, which keeps it in a file of its data directory; make \
        one with `hookswitch keys generate`"
    )]
    DevKey { number: usize },
    #[error(
        "the key file {path} can be read by others (mode {mode:o}); `chmod 600` it, or delete it to have a fresh one \
        made"
    )]
    Exposed { path: String, mode: u32 },
    #[error(
        "the key file {path} does not hold a key made by `hookswitch dev`; delete it to have a fresh one made (what \
        was sealed with it cannot be opened then)"
    )]
    NotADevKey { path: String },
    #[error("cannot read or make the key file {path}")]
    File {
        path: String,
        #[source]
        source: Arc<std::io::Error>,
    },
    #[error("no randomness from the system")]
    NoRandomness,
}

impl Keyring {
    /// The ring that the settings name: `HOOKSWITCH_KEYRING`, or `ENCRYPTION_KEY` as its single
    /// key. For `serve`: a key that `dev` made is refused.
    ///
    /// # Errors
    /// No key is set, or a named key is not a key of production.
    pub fn load(settings: &VaultSettings) -> Result<Self, KeyringError> {
        let Some(text) = settings.keyring.as_ref().or(settings.encryption_key.as_ref()) else {
            return Err(KeyringError::Empty);
        };
        let ring = Self::parse(text)?;
        match ring.keys.iter().position(|key| key.is_dev) {
            Some(index) => Err(KeyringError::DevKey { number: index + 1 }),
            None => Ok(ring),
        }
    }

    /// Keys in hex, newest first. Keys made by `dev` are taken.
    ///
    /// # Errors
    /// Names the place of a text that is no key; never shows the text.
    pub fn from_hex(keys: &[SecretBytes]) -> Result<Self, KeyringError> {
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        if keys.len() > KEYS_MAX {
            return Err(KeyringError::TooMany { count: keys.len() });
        }
        let mut ring: Vec<KeyEncryptionKey> = Vec::with_capacity(keys.len());
        for (index, text) in keys.iter().enumerate() {
            let mut bytes = Zeroizing::new([0; 32]);
            hex::decode_to_slice(text.expose_secret(), &mut *bytes)
                .map_err(|_| KeyringError::NotHex { number: index + 1 })?;
            let key = KeyEncryptionKey::new(&bytes);
            if let Some(same) = ring.iter().position(|other| other.id == key.id) {
                return Err(KeyringError::Twice {
                    number: index + 1,
                    same_as: same + 1,
                });
            }
            ring.push(key);
        }
        Ok(Self { keys: ring })
    }

    /// The ring of `dev`: one key in a file of mode 0600, made where there is none.
    ///
    /// # Errors
    /// The file cannot be read or made, others can read it, or it holds something else.
    pub fn dev(path: &Path) -> Result<Self, KeyringError> {
        let shown = || path.display().to_string();
        let failed = |source| KeyringError::File {
            path: shown(),
            source: Arc::new(source),
        };
        match std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
        {
            Ok(mut file) => {
                let mut key = Zeroizing::new([0; 32]);
                getrandom::fill(&mut key[DEV_MARK.len()..]).map_err(|_| KeyringError::NoRandomness)?;
                key[..DEV_MARK.len()].copy_from_slice(&DEV_MARK);
                let text = Zeroizing::new(hex::encode(*key));
                file.write_all(text.as_bytes())
                    .and_then(|()| file.write_all(b"\n"))
                    .and_then(|()| file.sync_all())
                    .map_err(failed)?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(e)),
        }
        // Check the permissions of the opened file. The path may name another file a moment later.
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyringError::Exposed { path: shown(), mode });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(128));
        // A key file has 65 bytes. A larger file is no key file.
        std::io::Read::read_to_end(&mut std::io::Read::take(&mut file, 128), &mut text).map_err(failed)?;
        let ring = Self::from_hex(&[SecretBytes::new(text.trim_ascii().to_vec())])
            .map_err(|_| KeyringError::NotADevKey { path: shown() })?;
        if ring.is_dev() {
            Ok(ring)
        } else {
            Err(KeyringError::NotADevKey { path: shown() })
        }
    }

    /// A fresh key in 64 hex characters, for `hookswitch keys generate`.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<SecretString, KeyringError> {
        let mut key = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *key).map_err(|_| KeyringError::NoRandomness)?;
        Ok(hex::encode(*key).into())
    }

    /// Whether any key of it was made by [`Keyring::dev`].
    #[must_use]
    pub fn is_dev(&self) -> bool {
        self.keys.iter().any(|key| key.is_dev)
    }

    /// Names of the keys, newest first.
    #[must_use]
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(|key| key.id.clone()).collect()
    }

    fn parse(text: &SecretString) -> Result<Self, KeyringError> {
        let text = text.expose_secret();
        if text.trim().is_empty() {
            return Err(KeyringError::Empty);
        }
        // An empty item between commas is a missing key. The error names its number.
        let keys: Vec<SecretBytes> = text.split(',').map(|key| key.trim().to_owned().into()).collect();
        Self::from_hex(&keys)
    }

    /// A place that [`Keyring::iter`] has, or the newest key.
    pub(super) fn at(&self, place: usize) -> &KeyEncryptionKey {
        self.keys.get(place).unwrap_or(&self.keys[0])
    }

    pub(super) fn find(&self, id: &KeyId) -> Option<&KeyEncryptionKey> {
        self.keys.iter().find(|key| key.id == *id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &KeyEncryptionKey> {
        self.keys.iter()
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl KeyEncryptionKey {
    fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        let name = Sha256::new()
            .chain_update(b"hookswitch key id v1\0")
            .chain_update(**key)
            .finalize();
        let fingerprint_key = mac(&**key, &[b"hookswitch fingerprint key v1"]);
        let values = Zeroizing::new(mac(&**key, &[b"hookswitch values key v1"]));
        Self {
            id: KeyId(hex::encode(&name[..8]).into()),
            cipher: Aes256Gcm::new((&**key).into()),
            fingerprint_key: Zeroizing::new(fingerprint_key),
            values: Aes256Gcm::new((&*values).into()),
            is_dev: key.starts_with(&DEV_MARK),
        }
    }

    pub(super) fn fingerprint(&self, org: &[u8; 16], bytes: &[u8]) -> [u8; 16] {
        let mac = mac(&*self.fingerprint_key, &[org, bytes]);
        *mac.first_chunk().expect("a hash of SHA-256 has 32 bytes")
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(keyring: Option<&str>, encryption_key: Option<&str>) -> VaultSettings {
        VaultSettings {
            keyring: keyring.map(Into::into),
            encryption_key: encryption_key.map(Into::into),
            ..VaultSettings::default()
        }
    }

    fn load(keyring: Option<&str>, encryption_key: Option<&str>) -> Result<Vec<KeyId>, String> {
        Keyring::load(&settings(keyring, encryption_key))
            .map(|ring| ring.ids())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn ring_comes_first_and_the_single_key_serves_where_no_ring_is_set() {
        let (a, b) = ("a1".repeat(32), "B2".repeat(32));
        let both = load(Some(&format!(" {a} , {b}")), Some(&"c3".repeat(32))).expect("two good keys");
        assert_eq!(both.len(), 2);
        assert_eq!(load(None, Some(&a)).expect("a good key"), both[..1]);
        assert_eq!(
            load(None, Some(&b.to_lowercase())).expect("hex of either case"),
            both[1..]
        );
        assert!(both.iter().all(|id| id.0.len() == 16 && !a.contains(&*id.0)));
    }

    #[test]
    fn errors_say_which_key_and_how_to_mend_it_but_not_the_key() {
        let good = "a1".repeat(32);
        let cases = [
            (Some(format!("{good},{}", "z9".repeat(32))), "key 2 of the ring"),
            (Some("a1".repeat(31)), "key 1 of the ring"),
            (Some("a1".repeat(33)), "key 1 of the ring"),
            (Some(format!("{good},")), "key 2 of the ring"),
            (Some(format!("{good},,{good}")), "key 2 of the ring"),
            (Some("é".repeat(32)), "key 1 of the ring"),
            (
                Some(format!("{good},{}", good.to_uppercase())),
                "keys 2 and 1 of the ring are the same",
            ),
            (Some(" ".into()), "keys generate"),
            (None, "ENCRYPTION_KEY"),
            (Some(vec![good.as_str(); 17].join(",")), "17 keys"),
        ];
        for (ring, expected) in cases {
            let problem = load(ring.as_deref(), None).expect_err("not a ring");
            assert!(problem.contains(expected), "{problem}");
            assert!(!problem.contains("a1a1"), "the key is in: {problem}");
        }
    }

    #[test]
    fn dev_key_is_made_once_kept_private_and_refused_by_production() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = std::env::temp_dir().join(format!("hookswitch-keyring-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("dev.key");
        let first = Keyring::dev(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Keyring::dev(&path).unwrap().ids(), first.ids());
        assert!(first.is_dev());

        let text = std::fs::read_to_string(&path).unwrap();
        assert!(load(None, Some(text.trim())).unwrap_err().contains("`hookswitch dev`"));
        let second = format!("{},{}", "a1".repeat(32), text.trim());
        assert!(load(Some(&second), None).unwrap_err().contains("key 2"));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Keyring::dev(&path),
            Err(KeyringError::Exposed { mode: 0o640, .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for wrong in ["a1".repeat(32), String::new(), "x".repeat(1000)] {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(Keyring::dev(&path), Err(KeyringError::NotADevKey { .. })));
        }
        assert!(matches!(
            Keyring::dev(&directory.join("absent/dev.key")),
            Err(KeyringError::File { .. })
        ));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn generated_keys_load_and_differ() {
        let (a, b) = (Keyring::generate().unwrap(), Keyring::generate().unwrap());
        assert_ne!(
            load(None, Some(a.expose_secret())).unwrap(),
            load(None, Some(b.expose_secret())).unwrap()
        );
    }

    #[test]
    fn debug_shows_names_only() {
        let ring = Keyring::load(&settings(None, Some(&"a1".repeat(32)))).unwrap();
        let shown = format!("{ring:?}");
        assert!(shown.contains(&*ring.ids()[0].0) && !shown.contains("a1a1"), "{shown}");
    }
}
