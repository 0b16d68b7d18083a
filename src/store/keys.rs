//! Wrapped data keys. Written and read by the vault only.

use super::StoreError;
use crate::domain::{KeyId, OrgId};
use async_trait::async_trait;

/// One version of an organisation's data key, wrapped by a key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyRow {
    pub org: OrgId,
    pub version: u32,
    pub kek: KeyId,
    pub wrapped: Box<[u8]>,
    /// An upper bound of the seals made with this key. It counts up in blocks, before their use.
    pub seals: u64,
}

#[async_trait]
pub trait DataKeys: Send + Sync + 'static {
    /// All versions of an organisation, newest first.
    async fn load_data_keys(&self, org: OrgId) -> Result<Vec<DataKeyRow>, StoreError>;
    /// Inserts a version; `Conflict` when someone else made it first.
    async fn insert_data_key(&self, key: DataKeyRow) -> Result<(), StoreError>;
    /// Counts a block of seals up before it is used, and returns the new total.
    async fn reserve_seals(&self, org: OrgId, version: u32, block: u64) -> Result<u64, StoreError>;
}
