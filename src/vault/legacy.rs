//! Values of the earlier system: `ivhex:taghex:cipherhex`, AES-256-GCM under one key, without
//! additional data. They are opened for the import, and nothing is ever sealed so.

use crate::domain::SecretBytes;
use aes_gcm::{
    Aes256Gcm, AesGcm, KeyInit,
    aead::{AeadInOut, consts::U16},
    aes::Aes256,
};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

const TAG_BYTES: usize = 16;
/// The longest value that is opened.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// The key of the earlier system.
pub struct LegacyKey(Zeroizing<[u8; 32]>);

/// Why a value of the earlier system does not open. Never shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LegacyError {
    #[error("the key of the earlier system is neither 64 hex characters nor a text of 32 bytes")]
    Key,
    #[error("it has not the form ivhex:taghex:cipherhex")]
    Format,
    #[error("it does not open: another key sealed it, or it was changed")]
    DoesNotOpen,
}

impl LegacyKey {
    /// 64 hex characters, or the 32 bytes of a text, which the earlier system took as well.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &SecretString) -> Result<Self, LegacyError> {
        let text = text.expose_secret().trim();
        let mut key = Zeroizing::new([0; 32]);
        if text.len() == 64 {
            hex::decode_to_slice(text, &mut *key).map_err(|_| LegacyError::Key)?;
        } else {
            key.copy_from_slice(text.as_bytes().first_chunk::<32>().ok_or(LegacyError::Key)?);
            if text.len() != 32 {
                return Err(LegacyError::Key);
            }
        }
        Ok(Self(key))
    }

    /// # Errors
    /// See [`LegacyError`].
    pub fn open(&self, sealed: &str) -> Result<SecretBytes, LegacyError> {
        let mut parts = sealed.trim().split(':');
        let (Some(iv), Some(tag), Some(value), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(LegacyError::Format);
        };
        if value.len() > 2 * VALUE_BYTES_MAX {
            return Err(LegacyError::Format);
        }
        let decoded = |text: &str| hex::decode(text).map_err(|_| LegacyError::Format);
        let (iv, tag, mut value) = (decoded(iv)?, decoded(tag)?, Zeroizing::new(decoded(value)?));
        let tag: [u8; TAG_BYTES] = tag.try_into().map_err(|_| LegacyError::Format)?;
        let key = (&*self.0).into();
        // 12 bytes are usual; Node's examples make 16.
        let opened = if let Ok(iv) = <[u8; 12]>::try_from(&*iv) {
            Aes256Gcm::new(key).decrypt_inout_detached(&iv.into(), &[], value.as_mut_slice().into(), &tag.into())
        } else if let Ok(iv) = <[u8; 16]>::try_from(&*iv) {
            AesGcm::<Aes256, U16>::new(key).decrypt_inout_detached(
                &iv.into(),
                &[],
                value.as_mut_slice().into(),
                &tag.into(),
            )
        } else {
            return Err(LegacyError::Format);
        };
        opened.map_err(|_| LegacyError::DoesNotOpen)?;
        Ok(SecretBytes::new(std::mem::take(&mut *value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by Node's `crypto.createCipheriv('aes-256-gcm', key, iv)`.
    const OF_NODE: [&str; 2] = [
        "0102030405060708090a0b0c:e2595fb6418bb7c026b57b2ce4306e73:563808625407ac0aa2d1ccf73b455c5a3f78",
        "0102030405060708090a0b0c0d0e0f10:d2149719bcb56679e2b01d4a2dd95a6b:89dd4c080621c935da2f3262fbf72f0204bc",
    ];

    #[test]
    fn what_node_sealed_opens_with_its_key_alone() {
        let key = |text: &str| LegacyKey::parse(&text.to_owned().into());
        let good = key(&"0b".repeat(32)).expect("a key");
        for sealed in OF_NODE {
            let opened = good.open(sealed).expect("opens");
            assert_eq!(opened.expose_secret(), br#"{"apiKey":"a key"}"#);
            let other = key(&"x".repeat(32)).expect("a text of 32 bytes");
            assert_eq!(other.open(sealed).expect_err("another key"), LegacyError::DoesNotOpen);
            let mut changed = sealed.to_owned();
            changed.pop();
            for wrong in [
                &*changed,
                "",
                "a:b:c",
                "::",
                &format!("{sealed}:00"),
                "{\"apiKey\":\"a key\"}",
            ] {
                assert!(good.open(wrong).is_err(), "{wrong}");
            }
        }
        for wrong in ["", "short", &"0b".repeat(31), &"zz".repeat(32), &"x".repeat(33)] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }
}
