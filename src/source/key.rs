//! Dedupe keys and subjects from their parts.

use crate::domain::{DedupeKey, Source, Subject};
use sha2::{Digest, Sha256};

/// Collects the parts of a key. Each is written with its length, so that no two lists of parts read
/// alike.
pub(super) struct KeyParts(Sha256);

impl KeyParts {
    /// `of` names the row of the source's table, so that keys of different rows never meet.
    pub(super) fn new(source: Source, of: &str) -> Self {
        Self(Sha256::new()).with(source.as_str()).with(of)
    }

    pub(super) fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    /// `None` stays `None`: a key with an absent part is no key.
    pub(super) fn with_some(self, part: Option<impl AsRef<[u8]>>) -> Option<Self> {
        part.map(|part| self.with(part))
    }

    pub(super) fn done(self) -> DedupeKey {
        let digest = self.0.finalize();
        DedupeKey(digest[..16].try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// The key of what has no natural one: all of its bytes.
pub(super) fn of_body(source: Source, body: &[u8]) -> DedupeKey {
    KeyParts::new(source, "body").with(body).done()
}

/// Longer texts are no id of anything.
const SUBJECT_BYTES_MAX: usize = 256;

/// A subject from the sender's text; its key where there is none, or none that can be an id.
/// Control characters would break a row or a header.
pub(super) fn subject(text: Option<&str>, key: DedupeKey) -> Subject {
    match text {
        Some(text) if text.len() <= SUBJECT_BYTES_MAX && !text.chars().any(char::is_control) => Subject(text.into()),
        _ => Subject(key.to_string().into()),
    }
}
