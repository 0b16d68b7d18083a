//! Organisations in SQLite.

use super::{SqliteStore, StoreError, audit, failed, rows::Fields};
use crate::{
    domain::{OrgId, Organisation},
    store::{audit::AuditEntry, organisations::*},
};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[INSERT, FIND, LIST];

const INSERT: &str = "INSERT INTO organizations (id, name, is_active, created_at, updated_at, changed_version) VALUES \
    (?1, ?2, 1, ?3, ?3, ?4)";
const FIND: &str = "SELECT id, name, is_active, created_at FROM organizations WHERE id = ?1";
const LIST: &str = "SELECT id, name, is_active, created_at FROM organizations WHERE id > ?1 ORDER BY id LIMIT ?2";

fn organisation(row: &SqliteRow) -> Result<Organisation, StoreError> {
    let row = Fields::of(row, "organizations");
    Ok(Organisation {
        id: row.id("id", OrgId::from_uuid)?,
        name: row.get("name")?,
        is_active: row.get("is_active")?,
        created_at: row.time("created_at")?,
    })
}

#[async_trait]
impl Organisations for SqliteStore {
    async fn create_organisation(&self, id: OrgId, name: &str, audit: AuditEntry) -> Result<Organisation, StoreError> {
        let made = Organisation {
            id,
            name: name.to_owned(),
            is_active: true,
            created_at: self.now(),
        };
        self.configure("create the organisation", move |connection, version| {
            Box::pin(async move {
                sqlx::query(INSERT)
                    .bind(id.as_bytes().as_slice())
                    .bind(made.name.as_str())
                    .bind(made.created_at.as_micros())
                    .bind(version)
                    .execute(&mut *connection)
                    .await
                    .map_err(failed("create the organisation"))?;
                audit::insert(connection, id, &audit).await?;
                Ok(made)
            })
        })
        .await
    }

    async fn find_organisation(&self, id: OrgId) -> Result<Option<Organisation>, StoreError> {
        let row = sqlx::query(FIND)
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed("find the organisation"))?;
        row.as_ref().map(organisation).transpose()
    }

    async fn list_organisations(&self, after: Option<OrgId>, count_max: u32) -> Result<Vec<Organisation>, StoreError> {
        sqlx::query(LIST)
            .bind(after.as_ref().map_or(&[][..], |id| id.as_bytes().as_slice()))
            .bind(count_max)
            .fetch_all(self.readers())
            .await
            .map_err(failed("list organisations"))?
            .iter()
            .map(organisation)
            .collect()
    }
}
