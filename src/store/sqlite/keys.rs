//! Wrapped data keys in SQLite.

use super::{Lane, SqliteStore, StoreError, failed, rows::Fields};
use crate::{
    domain::{KeyId, OrgId},
    store::keys::{DataKeyRow, DataKeys},
};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[LOAD, INSERT, RESERVE];

const LOAD: &str =
    "SELECT org_id, version, kek_id, wrapped, seals FROM data_keys WHERE org_id = ?1 ORDER BY version DESC";

/// Stamped with a configuration version: snapshots of routes carry wrapped data keys.
const INSERT: &str = "INSERT INTO data_keys (org_id, version, kek_id, wrapped, seals, created_at, changed_version) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// Not stamped: how many seals were counted changes nothing for those who open.
const RESERVE: &str = "UPDATE data_keys SET seals = seals + ?3 WHERE org_id = ?1 AND version = ?2 RETURNING seals";

pub(super) fn data_key(row: &SqliteRow) -> Result<DataKeyRow, StoreError> {
    let row = Fields::of(row, "data_keys");
    Ok(DataKeyRow {
        org: row.id("org_id", OrgId::from_uuid)?,
        version: row.number("version")?,
        kek: KeyId(row.get::<&str>("kek_id")?.into()),
        wrapped: row.get::<&[u8]>("wrapped")?.into(),
        seals: row.number("seals")?,
    })
}

#[async_trait]
impl DataKeys for SqliteStore {
    async fn load_data_keys(&self, org: OrgId) -> Result<Vec<DataKeyRow>, StoreError> {
        let rows = sqlx::query(LOAD)
            .bind(org.as_bytes().as_slice())
            .fetch_all(self.readers())
            .await
            .map_err(failed("load data keys"))?;
        rows.iter().map(data_key).collect()
    }

    async fn insert_data_key(&self, key: DataKeyRow) -> Result<(), StoreError> {
        let now = self.now();
        self.configure("insert a data key", move |connection, changed_version| {
            Box::pin(async move {
                sqlx::query(INSERT)
                    .bind(key.org.as_bytes().as_slice())
                    .bind(i64::from(key.version))
                    .bind(&*key.kek.0)
                    .bind(&*key.wrapped)
                    .bind(i64::try_from(key.seals).unwrap_or(i64::MAX))
                    .bind(now.as_micros())
                    .bind(changed_version)
                    .execute(connection)
                    .await
                    .map_err(failed("insert a data key"))?;
                Ok(())
            })
        })
        .await
    }

    async fn reserve_seals(&self, org: OrgId, version: u32, block: u64) -> Result<u64, StoreError> {
        let block = i64::try_from(block).unwrap_or(i64::MAX);
        self.write(Lane::Urgent, "reserve seals", move |connection| {
            Box::pin(async move {
                let row = sqlx::query(RESERVE)
                    .bind(org.as_bytes().as_slice())
                    .bind(i64::from(version))
                    .bind(block)
                    .fetch_optional(connection)
                    .await
                    .map_err(failed("reserve seals"))?
                    .ok_or(StoreError::Conflict { what: "data key" })?;
                Fields::of(&row, "data_keys").number("seals")
            })
        })
        .await
    }
}
