//! Wrapped data keys.

#[cfg(test)]
use super::Sql;
use super::{Dialect, Row, SqlStore, Statement};
use crate::{
    domain::{KeyId, OrgId},
    store::{
        StoreError,
        keys::{DataKeyRow, DataKeys},
    },
};
use async_trait::async_trait;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[Sql::both(LOAD), Sql::both(INSERT), Sql::both(RESERVE)];

const LOAD: &str = "
    SELECT org_id, version, kek_id, wrapped, seals
    FROM data_keys
    WHERE org_id = $1
    ORDER BY version DESC";

/// Stamped with a configuration version: snapshots of routes carry wrapped data keys.
const INSERT: &str = "
    INSERT INTO data_keys (org_id, version, kek_id, wrapped, seals, created_at, changed_version)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// Not stamped with a version: the count of seals matters to no reader.
const RESERVE: &str = "
    UPDATE data_keys
    SET seals = seals + $3
    WHERE org_id = $1 AND version = $2
    RETURNING seals";

pub fn data_key<D: Dialect>(row: Row<'_, D>) -> Result<DataKeyRow, StoreError> {
    let row = row.table("data_keys");
    Ok(DataKeyRow {
        org: row.id("org_id")?,
        version: row.number("version")?,
        kek: KeyId(row.text("kek_id")?.into()),
        wrapped: row.bytes("wrapped")?.into(),
        seals: row.number("seals")?,
    })
}

#[async_trait]
impl<S: SqlStore> DataKeys for S {
    async fn load_data_keys(&self, org: OrgId) -> Result<Vec<DataKeyRow>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("load data keys", LOAD)
            .id(org)
            .all(&mut reader, data_key)
            .await
    }

    async fn insert_data_key(&self, key: DataKeyRow) -> Result<(), StoreError> {
        const DOING: &str = "insert a data key";
        self.configure(key.org, DOING, move |mut tx, changed_version| {
            Box::pin(async move {
                Statement::new(DOING, INSERT)
                    .id(key.org)
                    .number(key.version)
                    .text(&key.kek.0)
                    .bytes(&key.wrapped)
                    .count(key.seals)
                    .time(tx.now)
                    .number(changed_version)
                    .execute(&mut tx)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    async fn reserve_seals(&self, org: OrgId, version: u32, block: u64) -> Result<u64, StoreError> {
        const DOING: &str = "reserve seals";
        self.write(org, DOING, move |mut tx| {
            Box::pin(async move {
                Statement::new(DOING, RESERVE)
                    .id(org)
                    .number(version)
                    .count(block)
                    .optional(&mut tx, |row| row.table("data_keys").number("seals"))
                    .await?
                    .ok_or(StoreError::Conflict { what: "data key" })
            })
        })
        .await
    }
}
