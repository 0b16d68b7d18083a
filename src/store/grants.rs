//! Connecting and disconnecting as one change, refreshes under a lease, and consents that are under
//! way.
//!
//! **Invariant:** a credential and the signing secrets that came with it are written in one
//! transaction. A write under a lease happens only while its fence is the newest. No transaction is
//! open during a request to a provider.

use super::{
    StoreError,
    audit::AuditEntry,
    credentials::{CredentialHealth, Expects, NewCredential, StoredCredential},
    endpoints::NewSecret,
};
use crate::domain::{CredentialId, OrgId, Provider, SealedBytes, Source, Timestamp};
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// The change of the signing secrets that the organisation itself (no endpoint) has for a source.
#[derive(Clone, Debug)]
pub struct SecretsChange {
    pub source: Source,
    /// They replace the present secrets. Empty: all are erased at once.
    pub secrets: Vec<NewSecret>,
    /// Until when the former ones stay valid beside new ones; `None`: they are erased at once.
    pub others_not_after: Option<Timestamp>,
    pub audit: AuditEntry,
}

/// A credential with everything that is written in its transaction.
#[derive(Clone, Debug)]
pub struct IntegrationChange {
    pub credential: NewCredential,
    /// When it is to be refreshed, where it expires.
    pub refresh_at: Option<Timestamp>,
    /// `false` where the secret that signs in is the one that is stored.
    pub is_new_secret: bool,
    pub secrets: Option<SecretsChange>,
    pub audit: AuditEntry,
}

/// A lease that was taken. No other holding of the same name has its fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub org: OrgId,
    pub name: String,
    pub fence: i64,
}

/// A credential whose refresh is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshDue {
    pub org: OrgId,
    pub provider: Provider,
    pub id: CredentialId,
}

/// The result of a refresh. It is written if `version` still stands and the lease is held.
#[derive(Clone, Debug)]
pub struct Refresh {
    pub lease: Lease,
    pub id: CredentialId,
    /// The version that was refreshed.
    pub version: i64,
    pub health: CredentialHealth,
    /// The next refresh, or the next try. `None`: no further try by itself, and actions that wait
    /// for the credential are parked.
    pub refresh_at: Option<Timestamp>,
    /// The new tokens. `None`: the former tokens stay.
    pub sealed: Option<SealedBytes>,
}

/// A consent that was begun. [`Grants::take_consent`] gives it out once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    pub id: Uuid,
    pub org: OrgId,
    pub provider: Provider,
    pub subject: String,
    pub verifier: SealedBytes,
    pub return_to: Option<String>,
    pub may_replace: bool,
    pub expires_at: Timestamp,
}

/// Most consents of one organisation that are under way. A further one removes the oldest.
pub const CONSENTS_PER_ORG_MAX: u32 = 20;

#[async_trait]
pub trait Grants: Send + Sync + 'static {
    /// [`save_credential`](super::credentials::Credentials::save_credential) and the change of
    /// secrets, both or neither.
    async fn save_integration(&self, change: IntegrationChange) -> Result<StoredCredential, StoreError>;

    /// [`erase_credential`](super::credentials::Credentials::erase_credential) and the change of
    /// secrets, both or neither. `false` when there was no active credential; the secrets are
    /// erased all the same.
    async fn erase_integration(
        &self,
        org: OrgId,
        provider: Provider,
        name: &str,
        expects: Expects,
        secrets: Option<SecretsChange>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError>;

    /// Takes the lease of a name within an organisation from now on for `length`; `None` while
    /// someone else holds it.
    async fn take_lease(&self, org: OrgId, name: &str, length: Duration) -> Result<Option<Lease>, StoreError>;

    /// Releases the lease, if it is still held under this fence.
    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Active credentials whose refresh is due, over all organisations, the longest overdue first.
    async fn list_refreshes_due(&self, until: Timestamp, count_max: u32) -> Result<Vec<RefreshDue>, StoreError>;

    /// Writes a refresh by compare-and-swap on version and fence, and releases the lease. New
    /// tokens count the version up and clear the failures. Actions that were parked under an older
    /// version become due. Without a next try, actions that are `pending` or `waiting` for the
    /// credential are parked. Returns the version that stands now. `None`: nothing was written,
    /// because a newer version stands, the credential was erased, or another process holds the
    /// lease.
    ///
    /// The configuration's version counts up only when the state changes. No other instance needs
    /// to learn of a fresh access token.
    async fn record_refresh(&self, refresh: Refresh) -> Result<Option<i64>, StoreError>;

    /// Keeps a consent until the person comes back. Removes expired consents, and the oldest above
    /// [`CONSENTS_PER_ORG_MAX`].
    async fn begin_consent(&self, consent: Consent) -> Result<(), StoreError>;

    /// Takes a consent out. Only the first caller gets it. `None` also when it has expired.
    async fn take_consent(&self, id: Uuid) -> Result<Option<Consent>, StoreError>;
}
