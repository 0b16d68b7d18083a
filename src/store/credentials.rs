//! Credentials: one row for each organisation, provider and name; ciphertext only.

use super::{StoreError, audit::AuditEntry};
use crate::domain::{CredentialId, IntegrationState, OrgId, Provider, SealedBytes, Timestamp};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCredential {
    pub id: CredentialId,
    pub org: OrgId,
    pub provider: Provider,
    /// `''`, or the name of a destination of `http.post`.
    pub name: String,
    pub is_active: bool,
    /// `None` once erased.
    pub sealed: Option<SealedBytes>,
    /// Counts up with each save. Attempts record it; "failing" is compare-and-swap on it (invariant
    /// 6).
    pub version: i64,
    pub health: CredentialHealth,
    pub account_id: Option<String>,
    pub account_name: Option<String>,
    pub account_fingerprint: Option<String>,
    pub last_four: Option<String>,
    pub last_verified_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    /// The next refresh; while it fails, the next try.
    pub refresh_at: Option<Timestamp>,
    /// Another secret is due this many days after `secret_since`; 0 is never.
    pub rotate_after_days: u32,
    /// When the secret was stored. Another setting or a refreshed token is no other secret.
    pub secret_since: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl StoredCredential {
    /// When another secret is due.
    #[must_use]
    pub fn rotation_at(&self) -> Option<Timestamp> {
        (self.rotate_after_days > 0).then(|| self.secret_since + DAY * self.rotate_after_days)
    }
}

const DAY: Duration = Duration::from_hours(24);

/// Whether the credential works, as far as known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialHealth {
    pub state: IntegrationState,
    pub cause: Option<String>,
    pub error: Option<CredentialError>,
    /// Features that a limited credential lacks.
    pub missing: Option<String>,
    pub checked_at: Option<Timestamp>,
    pub first_failed_at: Option<Timestamp>,
}

/// Why a credential does not work: the words for people, and what the provider answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialError {
    /// The provider's, cut, or ours.
    pub message: String,
    pub http_status: Option<u16>,
    /// The provider's own code.
    pub code: Option<String>,
}

impl CredentialError {
    /// In our own words alone.
    #[must_use]
    pub fn in_words(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            http_status: None,
            code: None,
        }
    }

    /// As its row keeps it.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A text of a release that kept the words alone is the message.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|_| Self::in_words(text))
    }
}

impl CredentialHealth {
    /// A state without error, account or time.
    #[must_use]
    pub const fn of(state: IntegrationState) -> Self {
        Self {
            state,
            cause: None,
            error: None,
            missing: None,
            checked_at: None,
            first_failed_at: None,
        }
    }
}

/// The state that the author of a change has read. The change is made only where it still stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expects {
    /// Whatever stands is replaced.
    #[default]
    Anything,
    /// No active credential.
    Nothing,
    /// An active credential of this version.
    Version(i64),
}

impl Expects {
    /// # Errors
    /// `Stale` where something else stands than what was read.
    pub fn met_by(self, active: Option<i64>) -> Result<(), StoreError> {
        let is_met = match self {
            Self::Anything => true,
            Self::Nothing => active.is_none(),
            Self::Version(version) => active == Some(version),
        };
        if is_met {
            Ok(())
        } else {
            Err(StoreError::Stale { what: "the credential" })
        }
    }
}

/// The values that a save writes. The caller sealed them.
#[derive(Clone, Debug)]
pub struct NewCredential {
    pub org: OrgId,
    pub provider: Provider,
    pub name: String,
    pub sealed: SealedBytes,
    pub state: IntegrationState,
    pub missing: Option<String>,
    pub account_id: Option<String>,
    pub account_name: Option<String>,
    pub account_fingerprint: Option<String>,
    pub last_four: Option<String>,
    /// When the provider accepted it; `None` where it was saved unverified.
    pub verified_at: Option<Timestamp>,
    pub expects: Expects,
}

/// Names the account that a credential opens. An unknown outcome is looked up and repeated only at
/// the account that got the request (invariant 2).
///
/// A provider that names no account gets a mark for each saved version: another key may belong to
/// another account. `None` for destinations of `http.post`, which have no account.
#[must_use]
pub fn account_mark(provider: Provider, fingerprint: Option<&str>, version: i64) -> Option<String> {
    match (provider, fingerprint) {
        (Provider::Http, _) => None,
        (_, Some(fingerprint)) => Some(fingerprint.to_owned()),
        // Each refresh of a token makes a version, but the account stays.
        (Provider::GoogleCalendar, None) => Some("unnamed".to_owned()),
        (_, None) => Some(format!("version-{version}")),
    }
}

/// Counts of credentials whose rotation is due stop here.
pub const ROTATION_COUNT_MAX: u32 = 1_000_000;

/// Organisations whose cached credentials may be old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedOrgs {
    /// The version of the configuration that the list is complete for.
    pub version: i64,
    pub orgs: Vec<OrgId>,
}

/// Rows of one organisation at most, erased ones included, so that lists of them are bounded.
pub const CREDENTIALS_PER_ORG_MAX: u32 = 200;

#[async_trait]
pub trait Credentials: Send + Sync + 'static {
    async fn find_credential(
        &self,
        org: OrgId,
        provider: Provider,
        name: &str,
    ) -> Result<Option<StoredCredential>, StoreError>;

    /// All of an organisation, erased ones included, by provider and name.
    async fn list_credentials(&self, org: OrgId) -> Result<Vec<StoredCredential>, StoreError>;

    /// Inserts or replaces, in one transaction. The id and the times of creation and of the last
    /// good use stay; the version counts up and failures are cleared. Actions of this credential
    /// that were parked under an older version or none become due (invariant 6). `Conflict` above
    /// [`CREDENTIALS_PER_ORG_MAX`] rows, `Stale` where something else stands than `new` expects.
    async fn save_credential(&self, new: NewCredential, audit: AuditEntry) -> Result<StoredCredential, StoreError>;

    /// Erases the ciphertext, the last four and the account, in one transaction. The row stays with
    /// its id and the account's fingerprint. Actions that are `pending` or `waiting` for the
    /// credential are parked. Returns `false` when no credential was active, and writes nothing
    /// then. `Stale` where something else stands than `expects` says.
    async fn erase_credential(
        &self,
        org: OrgId,
        provider: Provider,
        name: &str,
        expects: Expects,
        audit: AuditEntry,
    ) -> Result<bool, StoreError>;

    /// Records the result of a check, if `version` still stands (compare-and-swap). Returns `false`
    /// when a newer version stands, or the credential was erased. A `verified_at` of `None` keeps
    /// the last time. `audit` is written where a person asked for the check.
    async fn record_credential_health(
        &self,
        org: OrgId,
        id: CredentialId,
        version: i64,
        health: CredentialHealth,
        verified_at: Option<Timestamp>,
        audit: Option<AuditEntry>,
    ) -> Result<bool, StoreError>;

    /// Sets after how many days another secret is due. `None` where no such credential is active,
    /// else the number that stood before.
    async fn set_rotation(
        &self,
        org: OrgId,
        provider: Provider,
        rotate_after_days: u32,
        audit: AuditEntry,
    ) -> Result<Option<u32>, StoreError>;

    /// Over all organisations: integrations whose secret is due to be rotated, by provider.
    async fn count_rotations_due(&self) -> Result<Vec<(Provider, u64)>, StoreError>;

    /// The organisations of which a credential, a data key or the state has changed after
    /// `version`, each once: what is cached of all others is still good.
    async fn load_changed_orgs(&self, version: i64) -> Result<ChangedOrgs, StoreError>;

    /// Stamps the credentials of an organisation as changed, so that every instance drops what it
    /// has cached of them. The configuration's version counts up, also where there are none.
    async fn stamp_credentials(&self, org: OrgId) -> Result<(), StoreError>;

    /// Notes a good use, at most once a minute for each credential.
    async fn touch_credential(&self, org: OrgId, id: CredentialId, used_at: Timestamp) -> Result<(), StoreError>;
}
