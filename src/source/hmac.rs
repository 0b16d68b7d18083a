//! HMAC states: made once from a key, cloned for each use, zeroed when they are dropped.
//!
//! The schemes of this room enter, and `sign`. **Invariant:** signatures are compared in constant
//! time, by bytes and never by text.

use ::hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HmacAlgorithm {
    Sha1,
    #[default]
    Sha256,
    Sha512,
}

impl HmacAlgorithm {
    #[must_use]
    pub const fn signature_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A key that has been worked into the inner and outer state, so that a use costs no key schedule.
/// The states zero themselves on drop (feature `zeroize` of the hash crates).
#[derive(Clone)]
pub struct HmacKey(State);

#[derive(Clone)]
enum State {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    /// Boxed: it is several times the size of the others.
    Sha512(Box<Hmac<Sha512>>),
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey(…)")
    }
}

impl HmacKey {
    const ANY_LENGTH: &'static str = "HMAC takes a key of any length";

    #[must_use]
    pub fn new(algorithm: HmacAlgorithm, key: &[u8]) -> Self {
        Self(match algorithm {
            HmacAlgorithm::Sha1 => State::Sha1(Hmac::new_from_slice(key).expect(Self::ANY_LENGTH)),
            HmacAlgorithm::Sha256 => State::Sha256(Hmac::new_from_slice(key).expect(Self::ANY_LENGTH)),
            HmacAlgorithm::Sha512 => State::Sha512(Box::new(Hmac::new_from_slice(key).expect(Self::ANY_LENGTH))),
        })
    }

    #[must_use]
    pub const fn algorithm(&self) -> HmacAlgorithm {
        match self.0 {
            State::Sha1(_) => HmacAlgorithm::Sha1,
            State::Sha256(_) => HmacAlgorithm::Sha256,
            State::Sha512(_) => HmacAlgorithm::Sha512,
        }
    }

    /// Signs the parts as if they were one text.
    #[must_use]
    pub fn sign<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) -> Signature {
        let mut signature = Signature {
            bytes: [0; 64],
            len: self.algorithm().signature_bytes(),
        };
        match &self.0 {
            State::Sha1(state) => signature.fill(&fed(state, parts).finalize().into_bytes()),
            State::Sha256(state) => signature.fill(&fed(state, parts).finalize().into_bytes()),
            State::Sha512(state) => signature.fill(&fed(state.as_ref(), parts).finalize().into_bytes()),
        }
        signature
    }

    /// Whether `signature` is this key's over the parts. Constant time in the signature; another
    /// length never matches.
    #[must_use]
    pub fn verify<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>, signature: &[u8]) -> bool {
        match &self.0 {
            State::Sha1(state) => fed(state, parts).verify_slice(signature).is_ok(),
            State::Sha256(state) => fed(state, parts).verify_slice(signature).is_ok(),
            State::Sha512(state) => fed(state.as_ref(), parts).verify_slice(signature).is_ok(),
        }
    }
}

fn fed<'p, M: Mac + Clone>(state: &M, parts: impl IntoIterator<Item = &'p [u8]>) -> M {
    let mut state = state.clone();
    parts.into_iter().for_each(|part| state.update(part));
    state
}

/// The bytes of a signature, before they are written as hex or base64.
#[derive(Clone, Copy)]
pub struct Signature {
    bytes: [u8; 64],
    len: usize,
}

impl Signature {
    fn fill(&mut self, from: &[u8]) {
        self.bytes[..self.len].copy_from_slice(from);
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2202 case 2 and RFC 4231 case 2.
    #[test]
    fn the_standards_own_examples_come_out() {
        let cases = [
            (HmacAlgorithm::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (
                HmacAlgorithm::Sha256,
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                HmacAlgorithm::Sha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (algorithm, expected) in cases {
            let key = HmacKey::new(algorithm, b"Jefe");
            let parts: [&[u8]; 3] = [b"what do ya want", b"", b" for nothing?"];
            let signature = key.sign(parts);
            assert_eq!(hex::encode(signature.as_bytes()), expected);
            assert!(key.verify(parts, signature.as_bytes()));
            assert!(
                !key.verify(parts, &signature.as_bytes()[..signature.len - 1]),
                "a truncated signature matched"
            );
            assert!(!key.verify(parts, b""));
            let mut longer = signature.as_bytes().to_vec();
            longer.push(0);
            assert!(!key.verify(parts, &longer));
        }
    }
}
