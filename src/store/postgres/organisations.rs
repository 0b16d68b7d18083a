//! Organisations in Postgres.

use super::{PostgresStore, Scope, StoreError, audit, failed, rows::Fields};
use crate::{
    domain::{OrgId, Organisation},
    store::{audit::AuditEntry, organisations::*},
};
use async_trait::async_trait;
use sqlx::postgres::PgRow;
use uuid::Uuid;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[INSERT, FIND, LIST];

const INSERT: &str = "INSERT INTO organizations (id, name, is_active, created_at, updated_at, changed_version) VALUES \
    ($1, $2, true, $3, $3, $4)";
const FIND: &str = "SELECT id, name, is_active, created_at FROM organizations WHERE id = $1";
const LIST: &str = "SELECT id, name, is_active, created_at FROM organizations WHERE id > $1 ORDER BY id LIMIT $2";

fn organisation(row: &PgRow) -> Result<Organisation, StoreError> {
    let row = Fields::of(row, "organizations");
    Ok(Organisation {
        id: row.id("id", OrgId::from_uuid)?,
        name: row.get("name")?,
        is_active: row.get("is_active")?,
        created_at: row.time("created_at")?,
    })
}

#[async_trait]
impl Organisations for PostgresStore {
    async fn create_organisation(&self, id: OrgId, name: &str, audit: AuditEntry) -> Result<Organisation, StoreError> {
        let made = Organisation {
            id,
            name: name.to_owned(),
            is_active: true,
            created_at: self.now(),
        };
        self.configure(id, "create the organisation", move |connection, version| {
            Box::pin(async move {
                sqlx::query(INSERT)
                    .bind(*id.as_uuid())
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
        let mut reader = self.reader(id).await?;
        let row = sqlx::query(FIND)
            .bind(*id.as_uuid())
            .fetch_optional(&mut *reader)
            .await
            .map_err(failed("find the organisation"))?;
        row.as_ref().map(organisation).transpose()
    }

    async fn list_organisations(&self, after: Option<OrgId>, count_max: u32) -> Result<Vec<Organisation>, StoreError> {
        let mut reader = self.reader(Scope::Worker).await?;
        sqlx::query(LIST)
            .bind(after.map_or(Uuid::nil(), |id| *id.as_uuid()))
            .bind(i64::from(count_max))
            .fetch_all(&mut *reader)
            .await
            .map_err(failed("list organisations"))?
            .iter()
            .map(organisation)
            .collect()
    }
}
