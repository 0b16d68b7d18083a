//! Keeps two things for callers of the admin API: sessions of people in browsers, and answers to
//! requests that may be sent again.
//!
//! **Invariant:** a session and a link are found by the hash of their secret part, within their
//! organisation, and nothing that is stored opens one.

use super::{StoreError, audit::AuditEntry};
use crate::domain::{OrgId, SealedBytes, Timestamp};
use async_trait::async_trait;

/// SHA-256 of a secret or of a request.
pub type Hash = [u8; 32];

/// Sessions and links that an organisation has at most; those that would end first give way.
pub const SESSIONS_PER_ORG_MAX: u32 = 500;
/// Keys of requests that an organisation has at most; the oldest give way.
pub const REQUEST_KEYS_PER_ORG_MAX: u32 = 10_000;

/// A person's session, or a link that becomes one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    pub org: OrgId,
    pub token_hash: Hash,
    pub is_link: bool,
    pub subject: String,
    pub role: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// The state of an idempotency key when its request comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyedRequest {
    /// Nobody used it: it is this request's now.
    First,
    /// The same request is being worked on.
    InProgress,
    /// The same request was answered.
    Answered(SealedBytes),
    /// Another request used it.
    Other,
}

#[async_trait]
pub trait Callers: Send + Sync + 'static {
    /// Keeps a session or a link. Those that have ended, and the oldest above
    /// [`SESSIONS_PER_ORG_MAX`], go.
    async fn begin_session(&self, session: Session, audit: AuditEntry) -> Result<(), StoreError>;

    /// A session that has not ended, and never a link.
    async fn find_session(&self, org: OrgId, token_hash: Hash) -> Result<Option<Session>, StoreError>;

    /// Makes a session of a link: only the first use of a link that has not ended finds it.
    async fn redeem_link(
        &self,
        org: OrgId,
        link_hash: Hash,
        token_hash: Hash,
        expires_at: Timestamp,
    ) -> Result<Option<Session>, StoreError>;

    /// `false` where there was none.
    async fn end_session(&self, org: OrgId, token_hash: Hash) -> Result<bool, StoreError>;

    /// Takes a key for a request, unless it is taken. Keys from before `forget_before` count as
    /// never used; a request that was begun before `stuck_before` and has no answer was cut off,
    /// and the key is free for the same request.
    async fn take_request_key(
        &self,
        org: OrgId,
        key_hash: Hash,
        request_hash: Hash,
        forget_before: Timestamp,
        stuck_before: Timestamp,
    ) -> Result<KeyedRequest, StoreError>;

    /// Keeps the answer to a request that took its key. `None` gives the key back: the request
    /// changed nothing and may be sent again.
    async fn answer_request_key(
        &self,
        org: OrgId,
        key_hash: Hash,
        answer: Option<SealedBytes>,
    ) -> Result<(), StoreError>;
}
