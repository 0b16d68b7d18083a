//! Managed assistants in SQLite: each write names the version that it read and the fence of its
//! lease.

use super::{SqliteStore, StoreError, audit, failed, grants::holds, routes::prove, rows::Fields};
use crate::{
    domain::{AssistantRole, EndpointId, OrgId, SealedBytes, Timestamp},
    store::{audit::AuditEntry, grants::Lease, managed::*, routes::AssistantClaim},
};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[FIND, LIST, TO_CHECK, SAVE, RELEASE_OTHERS, DELETE];

macro_rules! columns {
    () => {
        "org_id, role, marker, assistant_id, endpoint_id, sealed, state, drift, error, checked_at, version, \
        created_at, updated_at"
    };
}
const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM managed_assistants WHERE org_id = ?1 AND role = ?2"
);
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM managed_assistants WHERE org_id = ?1 ORDER BY role"
);
/// Over all organisations: the reconciler works for each.
const TO_CHECK: &str =
    "SELECT org_id, role FROM managed_assistants WHERE checked_at <= ?1 ORDER BY checked_at LIMIT ?2";
/// The version that was read is part of the condition: 0 where there was no row.
const SAVE: &str = concat!(
    "INSERT INTO managed_assistants (org_id, role, marker, assistant_id, endpoint_id, sealed, state, drift, error, \
    checked_at, version, created_at, updated_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?11, ?11) \
     ON CONFLICT (org_id, role) DO UPDATE SET marker = excluded.marker, assistant_id = excluded.assistant_id, \
     endpoint_id = excluded.endpoint_id, \
     sealed = excluded.sealed, state = excluded.state, drift = excluded.drift, error = excluded.error, checked_at = \
     excluded.checked_at, \
     version = managed_assistants.version + 1, updated_at = excluded.updated_at WHERE managed_assistants.version = ?12 \
     RETURNING ",
    columns!()
);
const RELEASE_OTHERS: &str = "UPDATE assistant_org_mapping SET state = 'released', version = version + 1, updated_at = \
    ?4, changed_version = ?5 \
    WHERE org_id = ?1 AND role = ?2 AND assistant_id <> ?3 AND proof = 'made_by_us' AND state = 'live'";
const DELETE: &str = "DELETE FROM managed_assistants WHERE org_id = ?1 AND role = ?2";

fn managed(row: &SqliteRow) -> Result<ManagedAssistant, StoreError> {
    let row = Fields::of(row, "managed_assistants");
    Ok(ManagedAssistant {
        org: row.id("org_id", OrgId::from_uuid)?,
        role: row.parse("role", |text| text.parse().ok())?,
        marker: row.get("marker")?,
        assistant_id: row.get("assistant_id")?,
        endpoint: row.id("endpoint_id", EndpointId::from_uuid)?,
        sealed: SealedBytes(row.get("sealed")?),
        state: row.parse("state", |text| text.parse().ok())?,
        drift: row.json("drift")?,
        error: row.get("error")?,
        checked_at: row.time_opt("checked_at")?,
        version: row.get("version")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

#[async_trait]
impl ManagedAssistants for SqliteStore {
    async fn find_managed_assistant(
        &self,
        org: OrgId,
        role: AssistantRole,
    ) -> Result<Option<ManagedAssistant>, StoreError> {
        let found = sqlx::query(FIND)
            .bind(org.as_bytes().as_slice())
            .bind(role.as_str())
            .fetch_optional(self.readers())
            .await;
        found
            .map_err(failed("find the managed assistant"))?
            .as_ref()
            .map(managed)
            .transpose()
    }

    async fn list_managed_assistants(&self, org: OrgId) -> Result<Vec<ManagedAssistant>, StoreError> {
        let rows = sqlx::query(LIST)
            .bind(org.as_bytes().as_slice())
            .fetch_all(self.readers())
            .await;
        rows.map_err(failed("list managed assistants"))?
            .iter()
            .map(managed)
            .collect()
    }

    async fn list_assistants_to_check(
        &self,
        before: Timestamp,
        count_max: u32,
    ) -> Result<Vec<(OrgId, AssistantRole)>, StoreError> {
        let rows = sqlx::query(TO_CHECK)
            .bind(before.as_micros())
            .bind(count_max)
            .fetch_all(self.readers())
            .await;
        let due = |row: &SqliteRow| {
            let row = Fields::of(row, "managed_assistants");
            Ok((
                row.id("org_id", OrgId::from_uuid)?,
                row.parse("role", |text| text.parse().ok())?,
            ))
        };
        rows.map_err(failed("list assistants to check"))?
            .iter()
            .map(due)
            .collect()
    }

    async fn save_managed_assistant(
        &self,
        row: ManagedAssistant,
        claim: Option<AssistantClaim>,
        lease: &Lease,
        audit: Option<AuditEntry>,
    ) -> Result<Option<ManagedAssistant>, StoreError> {
        const DOING: &str = "save the managed assistant";
        let drift = serde_json::to_string(&row.drift).map_err(|_| StoreError::Data {
            doing: DOING,
            reason: "the drift is not JSON".into(),
        })?;
        let (now, lease) = (self.now(), lease.clone());
        self.configure_if(DOING, move |connection, version| {
            Box::pin(async move {
                if !holds(connection, &lease).await? {
                    return Ok((None, false));
                }
                let org = row.org;
                let saved = sqlx::query(SAVE)
                    .bind(org.as_bytes().as_slice())
                    .bind(row.role.as_str())
                    .bind(row.marker.as_str())
                    .bind(row.assistant_id.as_deref())
                    .bind(row.endpoint.as_bytes().as_slice())
                    .bind(&*row.sealed.0)
                    .bind(row.state.as_str())
                    .bind(drift)
                    .bind(row.error.as_deref())
                    .bind(row.checked_at.map(Timestamp::as_micros))
                    .bind(now.as_micros())
                    .bind(row.version)
                    .fetch_optional(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                let Some(saved) = saved.as_ref().map(managed).transpose()? else {
                    return Ok((None, false));
                };
                let is_claimed = claim.is_some();
                match (claim, audit) {
                    (Some(claim), Some(audit)) => {
                        let others = sqlx::query(RELEASE_OTHERS)
                            .bind(org.as_bytes().as_slice())
                            .bind(row.role.as_str())
                            .bind(claim.assistant_id.as_str())
                            .bind(now.as_micros())
                            .bind(version);
                        others.execute(&mut *connection).await.map_err(failed(DOING))?;
                        prove(connection, version, now, claim, &audit).await?;
                    }
                    (Some(_), None) => {
                        return Err(StoreError::Data {
                            doing: DOING,
                            reason: "a claim without an audit entry".into(),
                        });
                    }
                    (None, Some(audit)) => audit::insert(connection, org, &audit).await?,
                    (None, None) => {}
                }
                Ok((Some(saved), is_claimed))
            })
        })
        .await
    }

    async fn delete_managed_assistant(
        &self,
        org: OrgId,
        role: AssistantRole,
        lease: &Lease,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "delete the managed assistant";
        let (now, lease) = (self.now(), lease.clone());
        self.configure_if(DOING, move |connection, version| {
            Box::pin(async move {
                if !holds(connection, &lease).await? {
                    return Ok((false, false));
                }
                let deleted = sqlx::query(DELETE)
                    .bind(org.as_bytes().as_slice())
                    .bind(role.as_str())
                    .execute(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                if deleted.rows_affected() == 0 {
                    return Ok((false, false));
                }
                let others = sqlx::query(RELEASE_OTHERS)
                    .bind(org.as_bytes().as_slice())
                    .bind(role.as_str())
                    .bind("")
                    .bind(now.as_micros())
                    .bind(version);
                others.execute(&mut *connection).await.map_err(failed(DOING))?;
                audit::insert(connection, org, &audit).await?;
                Ok((true, true))
            })
        })
        .await
    }
}
