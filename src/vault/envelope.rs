//! The two formats at rest: a data key wrapped by a key-encryption key, and a value sealed with a
//! data key.
//!
//! ```text
//! wrapped: 1 │ nonce 12 │ data key 32, encrypted │ tag 16
//!     AAD: domain │ 1 │ org 16 │ version u32 │ name of the key-encryption key
//! sealed:  1 │ version u32 │ nonce 12 │ value, encrypted │ tag 16
//!     AAD: domain │ 1 │ org 16 │ version u32 │ purpose
//! ```
//! Numbers are big-endian. In both AADs everything before the last field has a fixed length, so
//! that no two meanings share one text.

use super::{Purpose, VaultError, keyring::KeyEncryptionKey};
use crate::{
    domain::{OrgId, SealedBytes, SecretBytes},
    store::keys::DataKeyRow,
};
use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const WRAPPED_BYTES: usize = 1 + NONCE_BYTES + KEY_BYTES + TAG_BYTES;
const HEAD_BYTES: usize = 1 + 4 + NONCE_BYTES;

/// An unwrapped data key, expanded. Zeroes itself (feature `zeroize` of the cipher) and cannot be
/// printed.
pub(super) struct DataKey {
    pub(super) version: u32,
    cipher: Aes256Gcm,
}

impl DataKey {
    /// A fresh data key, wrapped for the store.
    pub(super) fn generate(kek: &KeyEncryptionKey, org: OrgId, version: u32) -> Result<DataKeyRow, VaultError> {
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        getrandom::fill(&mut *key).map_err(|_| VaultError::NoRandomness)?;
        wrap(kek, org, version, &key, 0)
    }

    pub(super) fn unwrap(kek: &KeyEncryptionKey, row: &DataKeyRow) -> Result<Self, VaultError> {
        let key = unwrap(kek, row)?;
        Ok(Self {
            version: row.version,
            cipher: Aes256Gcm::new((&*key).into()),
        })
    }

    /// One allocation, no copy after the encryption.
    pub(super) fn seal(&self, org: OrgId, purpose: Purpose, plaintext: &[u8]) -> Result<SealedBytes, VaultError> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + plaintext.len() + TAG_BYTES);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.version.to_be_bytes());
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::NoRandomness)?;
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(plaintext);
        let tag = self
            .cipher
            .encrypt_inout_detached(
                &nonce.into(),
                Aad::value(org, self.version, purpose).as_slice(),
                (&mut bytes[HEAD_BYTES..]).into(),
            )
            .expect("a value in memory is far below AES-GCM's 64 GiB");
        bytes.extend_from_slice(&tag);
        Ok(SealedBytes(bytes.into_boxed_slice()))
    }

    pub(super) fn open(&self, org: OrgId, purpose: Purpose, sealed: &Sealed<'_>) -> Result<SecretBytes, VaultError> {
        let mut bytes = Zeroizing::new(sealed.ciphertext.to_vec());
        self.cipher
            .decrypt_inout_detached(
                &(*sealed.nonce).into(),
                Aad::value(org, self.version, purpose).as_slice(),
                bytes.as_mut_slice().into(),
                &(*sealed.tag).into(),
            )
            .map_err(|_| VaultError::Tampered {
                org,
                version: self.version,
            })?;
        Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
    }
}

/// The parts of a sealed value. Its length is checked at each cut.
pub(super) struct Sealed<'a> {
    pub(super) version: u32,
    nonce: &'a [u8; NONCE_BYTES],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_BYTES],
}

impl<'a> Sealed<'a> {
    pub(super) fn parse(org: OrgId, sealed: &'a SealedBytes) -> Result<Self, VaultError> {
        let cut = |bytes: &'a [u8]| {
            let (&format, rest) = bytes.split_first()?;
            let (version, rest) = rest.split_first_chunk::<4>()?;
            let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
            let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
            (format == FORMAT).then_some(Self {
                version: u32::from_be_bytes(*version),
                nonce,
                ciphertext,
                tag,
            })
        };
        cut(&sealed.0).ok_or(VaultError::Malformed { org })
    }
}

/// Wraps the same data key again, under another key-encryption key. Values sealed with it stay as
/// they are.
pub(super) fn rewrap(
    from: &KeyEncryptionKey,
    to: &KeyEncryptionKey,
    row: &DataKeyRow,
) -> Result<DataKeyRow, VaultError> {
    let key = unwrap(from, row)?;
    wrap(to, row.org, row.version, &key, row.seals)
}

fn wrap(
    kek: &KeyEncryptionKey,
    org: OrgId,
    version: u32,
    key: &[u8; KEY_BYTES],
    seals: u64,
) -> Result<DataKeyRow, VaultError> {
    let mut wrapped = Vec::with_capacity(WRAPPED_BYTES);
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| VaultError::NoRandomness)?;
    let mut buffer = Zeroizing::new(*key);
    let aad = wrap_aad(org, version, kek);
    let tag = kek
        .cipher
        .encrypt_inout_detached(&nonce.into(), &aad, buffer.as_mut_slice().into())
        .expect("32 bytes are below AES-GCM's limit");
    wrapped.push(FORMAT);
    wrapped.extend_from_slice(&nonce);
    wrapped.extend_from_slice(&*buffer);
    wrapped.extend_from_slice(&tag);
    Ok(DataKeyRow {
        org,
        version,
        kek: kek.id.clone(),
        wrapped: wrapped.into_boxed_slice(),
        seals,
    })
}

fn unwrap(kek: &KeyEncryptionKey, row: &DataKeyRow) -> Result<Zeroizing<[u8; KEY_BYTES]>, VaultError> {
    let malformed = || VaultError::Malformed { org: row.org };
    let (&format, rest) = row.wrapped.split_first().ok_or_else(malformed)?;
    let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(malformed)?;
    let (key, rest) = rest.split_first_chunk::<KEY_BYTES>().ok_or_else(malformed)?;
    let tag: &[u8; TAG_BYTES] = rest.try_into().map_err(|_| malformed())?;
    if format != FORMAT {
        return Err(malformed());
    }
    let mut key = Zeroizing::new(*key);
    let aad = wrap_aad(row.org, row.version, kek);
    kek.cipher
        .decrypt_inout_detached(&(*nonce).into(), &aad, key.as_mut_slice().into(), &(*tag).into())
        .map_err(|_| VaultError::Tampered {
            org: row.org,
            version: row.version,
        })?;
    Ok(key)
}

fn wrap_aad(org: OrgId, version: u32, kek: &KeyEncryptionKey) -> Vec<u8> {
    [
        b"hookswitch data key\0".as_slice(),
        &[FORMAT],
        org.as_bytes(),
        &version.to_be_bytes(),
        kek.id.0.as_bytes(),
    ]
    .concat()
}

/// On the stack: it is made for every seal and every opening.
struct Aad {
    bytes: [u8; Self::BYTES_MAX],
    length: usize,
}

impl Aad {
    const BYTES_MAX: usize = 96;

    fn value(org: OrgId, version: u32, purpose: Purpose) -> Self {
        let mut aad = Self {
            bytes: [0; Self::BYTES_MAX],
            length: 0,
        };
        let (kind, name) = match purpose {
            Purpose::Credential(provider) => (b"c", provider.as_str()),
            Purpose::SigningSecret(source) => (b"s", source.as_str()),
            Purpose::Payload => (b"p", ""),
            Purpose::Answer => (b"a", ""),
        };
        for part in [
            b"hookswitch value\0".as_slice(),
            &[FORMAT],
            org.as_bytes(),
            &version.to_be_bytes(),
            kind,
            name.as_bytes(),
        ] {
            aad.bytes[aad.length..][..part.len()].copy_from_slice(part);
            aad.length += part.len();
        }
        aad
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Provider, Source};

    #[test]
    fn additional_data_of_every_purpose_differs_and_fits() {
        let purposes = Provider::ALL
            .iter()
            .copied()
            .map(Purpose::Credential)
            .chain(Source::ALL.iter().copied().map(Purpose::SigningSecret))
            .chain([Purpose::Payload]);
        let mut all: Vec<Vec<u8>> = purposes
            .map(|p| Aad::value(OrgId::generate(), u32::MAX, p).as_slice().to_vec())
            .collect();
        let count = all.len();
        // Without the organisation, which differs in each.
        for aad in &mut all {
            aad.drain(18..34);
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
