//! Which processes live and which keys they hold, the key that all of them seal with, and what
//! stands under each key. Names of keys only: no key comes here.

use super::{StoreError, audit::AuditEntry, keys::DataKeyRow};
use crate::domain::{KeyId, OrgId, Timestamp};
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// An instance that was not seen for this long has ended. It reports several times within it.
pub const INSTANCE_LIVES_FOR: Duration = Duration::from_secs(35);

/// A process as it reports itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: Uuid,
    /// Host and process, for people.
    pub name: String,
    pub roles: String,
    /// The keys of its ring, newest first.
    pub ring: Vec<KeyId>,
    /// The key that it seals with.
    pub sealing: KeyId,
    pub started_at: Timestamp,
}

/// An instance with the time of its last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenInstance {
    pub instance: Instance,
    pub seen_at: Timestamp,
}

/// The key that all instances seal with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryKey {
    pub key: KeyId,
    pub since: Timestamp,
}

/// The hold of a process on a rotation: on the wrapping of the data keys with the primary key. Each
/// step renews it. Once it has ended another process may go on, and the fence refuses the former
/// one from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationLease {
    /// The primary key.
    pub key: KeyId,
    pub fence: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promotion {
    Promoted(RotationLease),
    AlreadyPrimary(RotationLease),
    /// These live instances have not reported the key. Nothing was changed.
    NotEverywhere(Vec<Instance>),
}

/// The seals under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUse {
    pub data_keys: u64,
    /// The most seals that were made with one of its data keys.
    pub seals_max: u64,
    /// Events that wait or are dead, sealed under the key itself.
    pub events: u64,
}

/// Where a pass over the data keys stands.
pub type DataKeyPlace = (OrgId, u32);

/// A data key in its next wrapping.
#[derive(Clone, Debug)]
pub struct Rewrapped {
    /// The key that it was wrapped with. A row that was wrapped again meanwhile stays.
    pub from: KeyId,
    pub row: DataKeyRow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// So many data keys.
    Rewrapped(u64),
    /// Another process has the rotation, or another key is primary. Nothing was changed.
    TakenOver,
}

#[async_trait]
pub trait KeyRotation: Send + Sync + 'static {
    /// Keeps an instance alive, and returns the primary key. Where none was named, it is the key of
    /// the ring that most data keys are wrapped with, else the ring's newest. In one transaction,
    /// so that no key is promoted between the look and the report.
    async fn report_instance(&self, instance: Instance) -> Result<KeyId, StoreError>;
    async fn forget_instance(&self, id: Uuid) -> Result<(), StoreError>;
    /// Those that live, by name.
    async fn load_instances(&self) -> Result<Vec<SeenInstance>, StoreError>;
    async fn load_primary_key(&self) -> Result<Option<PrimaryKey>, StoreError>;
    /// Makes a key primary if every live instance holds it. Counts as a change of configuration,
    /// so that every instance looks. Its rotation is under way from then on, and the caller's for
    /// `length`, whoever had it: a person asks.
    async fn promote_key(&self, key: KeyId, length: Duration, audit: AuditEntry) -> Result<Promotion, StoreError>;
    /// Takes a rotation that is under way and that nobody holds, for `length`.
    async fn take_rotation(&self, length: Duration) -> Result<Option<RotationLease>, StoreError>;
    /// Gives a rotation back. Nobody takes it before `again_after`; `None`: it is finished.
    async fn leave_rotation(&self, lease: &RotationLease, again_after: Option<Duration>) -> Result<(), StoreError>;
    /// The seals under each key, by its name.
    async fn load_key_uses(&self) -> Result<Vec<(KeyId, KeyUse)>, StoreError>;
    /// Data keys that are not wrapped with `key`, in the order of their place.
    async fn list_data_keys_under_others(
        &self,
        key: &KeyId,
        after: Option<DataKeyPlace>,
        count_max: u32,
    ) -> Result<Vec<DataKeyRow>, StoreError>;
    /// Stores the wrappings and renews the lease for `length`, in one transaction.
    async fn rewrap_data_keys(
        &self,
        lease: &RotationLease,
        length: Duration,
        rows: Vec<Rewrapped>,
    ) -> Result<Stored, StoreError>;
}
