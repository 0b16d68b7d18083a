//! The settings of organisations. An organisation without a row has chosen nothing.

use super::{StoreError, audit::AuditEntry};
use crate::domain::{OrgId, OrgSettings, Timestamp};
use async_trait::async_trait;

/// A row, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredSettings {
    /// A column that cannot be read has no value here.
    pub settings: OrgSettings,
    /// The columns that cannot be read. They affect their own organisation only.
    pub damaged: Vec<&'static str>,
    /// Counts up with each change; 0 where there is no row.
    pub version: i64,
    /// `None` where there is no row.
    pub updated_at: Option<Timestamp>,
}

#[async_trait]
pub trait Settings: Send + Sync + 'static {
    /// The settings of an organisation. Without a row they are the default.
    async fn find_settings(&self, org: OrgId) -> Result<StoredSettings, StoreError>;
    /// Replaces the settings if `version` still stands, and returns what stands then. `Stale`
    /// otherwise.
    async fn save_settings(
        &self,
        org: OrgId,
        version: i64,
        settings: OrgSettings,
        audit: AuditEntry,
    ) -> Result<StoredSettings, StoreError>;
}
