//! Organisations.

#[cfg(test)]
use super::Sql;
use super::{Access, Dialect, Row, SqlStore, Statement, audit};
use crate::{
    domain::{OrgId, Organisation},
    store::{StoreError, audit::AuditEntry, organisations::*},
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[Sql::both(INSERT), Sql::both(FIND), Sql::both(LIST)];

const INSERT: &str = "
    INSERT INTO organizations (id, name, is_active, created_at, updated_at, changed_version)
    VALUES ($1, $2, true, $3, $3, $4)";
const FIND: &str = "
    SELECT id, name, is_active, created_at
    FROM organizations
    WHERE id = $1";
const LIST: &str = "
    SELECT id, name, is_active, created_at
    FROM organizations
    WHERE id > $1
    ORDER BY id
    LIMIT $2";

fn organisation<D: Dialect>(row: Row<'_, D>) -> Result<Organisation, StoreError> {
    let row = row.table("organizations");
    Ok(Organisation {
        id: row.id("id")?,
        name: row.string("name")?,
        is_active: row.flag("is_active")?,
        created_at: row.time("created_at")?,
    })
}

#[async_trait]
impl<S: SqlStore> Organisations for S {
    async fn create_organisation(&self, id: OrgId, name: &str, audit: AuditEntry) -> Result<Organisation, StoreError> {
        const DOING: &str = "create the organisation";
        let name = name.to_owned();
        self.configure(id, DOING, move |mut tx, version| {
            Box::pin(async move {
                Statement::new(DOING, INSERT)
                    .id(id)
                    .text(&name)
                    .time(tx.now)
                    .number(version)
                    .execute(&mut tx)
                    .await?;
                audit::insert(&mut tx, id, &audit).await?;
                Ok(Organisation {
                    id,
                    name,
                    is_active: true,
                    created_at: tx.now,
                })
            })
        })
        .await
    }

    async fn find_organisation(&self, id: OrgId) -> Result<Option<Organisation>, StoreError> {
        let mut reader = self.read(id).await?;
        Statement::new("find the organisation", FIND)
            .id(id)
            .optional(&mut reader, organisation)
            .await
    }

    async fn list_organisations(&self, after: Option<OrgId>, count_max: u32) -> Result<Vec<Organisation>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("list organisations", LIST)
            .id(after.map_or(Uuid::nil(), Uuid::from))
            .number(count_max)
            .all(&mut reader, organisation)
            .await
    }
}
