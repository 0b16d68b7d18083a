//! The rows that the routing table holds in memory: all at the start, changes afterwards.

use super::{StoreError, keys::DataKeyRow};
use crate::domain::{EndpointId, OrgId, RouteKey, SealedBytes, SecretId, Source, Timestamp};
use async_trait::async_trait;

/// Rows whose `changed_version` lies above the one asked for. A deleted thing comes as an inactive
/// row, so that a refresh can take it out.
#[derive(Clone, Debug, Default)]
pub struct SnapshotChanges {
    /// The version that these rows are current for.
    pub version: i64,
    /// The database's clock when it was read, in its own time (invariant 16).
    pub database_now: Timestamp,
    pub organisations: Vec<OrganisationRow>,
    pub data_keys: Vec<DataKeyRow>,
    pub endpoints: Vec<EndpointRow>,
    pub secrets: Vec<SecretRow>,
    pub routes: Vec<RouteRow>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganisationRow {
    pub org: OrgId,
    pub is_active: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRow {
    pub id: EndpointId,
    pub org: OrgId,
    pub source: Source,
    pub is_active: bool,
    pub ignored_types: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRow {
    pub id: SecretId,
    pub org: OrgId,
    pub endpoint: Option<EndpointId>,
    pub source: Source,
    pub plan: String,
    /// `None`: erased, take it out.
    pub sealed: Option<SealedBytes>,
    pub not_after: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRow {
    pub key: RouteKey,
    pub org: OrgId,
    /// Live rows route. Others take the key out where it led to this organisation.
    pub is_live: bool,
    /// The platform's own account signs for it (invariant 19).
    pub is_platform_managed: bool,
    /// The stored row that claims the key, where one row may claim another key later: a number or a
    /// credential can move to another account. The former key is then taken out. `None` where the
    /// key is the row's own name.
    pub slot: Option<[u8; 16]>,
}

#[async_trait]
pub trait Snapshots: Send + Sync + 'static {
    /// Everything that changed after `version`; `0` asks for all live rows. One read transaction,
    /// so that the answer is consistent. A `TwilioAccount` row is the claim of a connected Twilio
    /// credential whose account the provider verified (invariant 18). The reader routes by it only
    /// while one organisation claims the account, and counts the claims by their slots. The store
    /// cannot count them from changed rows alone.
    async fn load_changes(&self, version: i64) -> Result<SnapshotChanges, StoreError>;
}
