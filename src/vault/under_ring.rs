//! Values sealed under a key of the ring itself, without a data key.
//!
//! ```text
//! 2 │ name of the key 8 │ nonce 12 │ value, encrypted │ tag 16
//!     AAD: domain │ 2 │ org 16 │ name of the key
//! ```
//! The cipher's key is derived from the ring's key, so that one key never serves two purposes.

use super::{
    VaultError,
    keyring::{KeyEncryptionKey, Keyring},
};
use crate::domain::{KeyId, OrgId, SealedBytes, SecretBytes};
use aes_gcm::aead::AeadInOut;
use zeroize::Zeroizing;

const FORMAT: u8 = 2;
const NAME_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

pub(super) fn is_one(sealed: &SealedBytes) -> bool {
    sealed.0.first() == Some(&FORMAT)
}

pub(super) fn seal(key: &KeyEncryptionKey, org: OrgId, plaintext: &[u8]) -> Result<SealedBytes, VaultError> {
    let mut name = [0; NAME_BYTES];
    hex::decode_to_slice(&*key.id.0, &mut name).map_err(|_| VaultError::Malformed { org })?;
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| VaultError::NoRandomness)?;
    let head = 1 + NAME_BYTES + NONCE_BYTES;
    let mut bytes = Vec::with_capacity(head + plaintext.len() + TAG_BYTES);
    bytes.push(FORMAT);
    bytes.extend_from_slice(&name);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(plaintext);
    let tag = key
        .values
        .encrypt_inout_detached(&nonce.into(), &aad(org, name), (&mut bytes[head..]).into())
        .expect("a value in memory is far below AES-GCM's 64 GiB");
    bytes.extend_from_slice(&tag);
    Ok(SealedBytes(bytes.into_boxed_slice()))
}

pub(super) fn open(ring: &Keyring, org: OrgId, sealed: &SealedBytes) -> Result<SecretBytes, VaultError> {
    let cut = |bytes: &'_ [u8]| {
        let (&format, rest) = bytes.split_first()?;
        let (name, rest) = rest.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (value, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        (format == FORMAT).then(|| (*name, *nonce, value.to_vec(), *tag))
    };
    let (name, nonce, value, tag) = cut(&sealed.0).ok_or(VaultError::Malformed { org })?;
    let kek = KeyId(hex::encode(name).into());
    let Some(key) = ring.find(&kek) else {
        return Err(VaultError::NotInRing { org, kek });
    };
    let mut value = Zeroizing::new(value);
    key.values
        .decrypt_inout_detached(&nonce.into(), &aad(org, name), value.as_mut_slice().into(), &tag.into())
        .map_err(|_| VaultError::Tampered { org, version: 0 })?;
    Ok(SecretBytes::new(std::mem::take(&mut *value)))
}

fn aad(org: OrgId, name: [u8; NAME_BYTES]) -> Vec<u8> {
    [
        b"hookswitch value under a ring\0".as_slice(),
        &[FORMAT],
        org.as_bytes(),
        &name,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[&str]) -> Keyring {
        let keys: Vec<SecretBytes> = keys.iter().map(|key| key.repeat(32).into()).collect();
        Keyring::from_hex(&keys).expect("keys")
    }

    #[test]
    fn what_is_sealed_under_a_ring_opens_for_its_organisation_and_under_its_key_only() {
        let (org, old) = (OrgId::generate(), ring(&["a1"]));
        let sealed = seal(old.at(0), org, b"an event").expect("sealed");
        let open_with = |ring: &Keyring, org| open(ring, org, &sealed).map(|plain| plain.expose_secret().to_vec());
        assert_eq!(open_with(&ring(&["b2", "a1"]), org).expect("opens"), b"an event");
        assert!(matches!(
            open_with(&old, OrgId::generate()),
            Err(VaultError::Tampered { .. })
        ));
        assert!(matches!(
            open_with(&ring(&["b2"]), org),
            Err(VaultError::NotInRing { .. })
        ));
        for length in 0..sealed.0.len() {
            let cut = SealedBytes(sealed.0[..length].into());
            assert!(open(&old, org, &cut).is_err(), "cut at {length}");
        }
    }
}
