//! The audit log in SQLite. [`insert`] is how every other mutation writes its entry, in its own
//! transaction.

use super::{Lane, SqliteStore, StoreError, failed, rows::Fields};
use crate::{domain::OrgId, store::audit::*};
use async_trait::async_trait;
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[INSERT, LIST];

const INSERT: &str = "INSERT INTO audit_log (id, org_id, at, actor, verb, target_kind, target_id, fields) VALUES (?1, \
    ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

/// Writes the entry of a change of `org`. An entry of another organisation undoes the change: it
/// would tell one about the other.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    org: OrgId,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    const DOING: &str = "write the audit entry";
    if entry.org != org {
        return Err(StoreError::Data {
            doing: DOING,
            reason: "the entry names another organisation than the change".into(),
        });
    }
    let fields = serde_json::to_string(&entry.fields).map_err(|_| StoreError::Data {
        doing: DOING,
        reason: "the fields are not JSON".into(),
    })?;
    sqlx::query(INSERT)
        // Made in the writer, so that the order of ids is the order of commits.
        .bind(Uuid::now_v7().as_bytes().as_slice())
        .bind(org.as_bytes().as_slice())
        .bind(entry.at.as_micros())
        .bind(entry.actor.as_str())
        .bind(entry.verb)
        .bind(entry.target_kind)
        .bind(entry.target_id.as_str())
        .bind(fields)
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed(DOING))
}

const LIST: &str = "SELECT id, at, actor, verb, target_kind, target_id, fields FROM audit_log WHERE org_id = ?1 AND id \
    < ?2 ORDER BY id DESC LIMIT ?3";

fn entry(row: &SqliteRow) -> Result<StoredAuditEntry, StoreError> {
    let row = Fields::of(row, "audit_log");
    Ok(StoredAuditEntry {
        id: row.id("id", |id| id)?,
        at: row.time("at")?,
        actor: row.get("actor")?,
        verb: row.get("verb")?,
        target_kind: row.get("target_kind")?,
        target_id: row.get("target_id")?,
        fields: row.json("fields")?,
    })
}

#[async_trait]
impl AuditLog for SqliteStore {
    async fn record_audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.write(Lane::Urgent, "write the audit entry", move |connection| {
            Box::pin(async move { insert(connection, entry.org, &entry).await })
        })
        .await
    }

    async fn list_audit(
        &self,
        org: OrgId,
        before: Option<Uuid>,
        count_max: u32,
    ) -> Result<Vec<StoredAuditEntry>, StoreError> {
        sqlx::query(LIST)
            .bind(org.as_bytes().as_slice())
            .bind(before.unwrap_or(Uuid::max()).as_bytes().as_slice())
            .bind(count_max)
            .fetch_all(self.readers())
            .await
            .map_err(failed("list the audit log"))?
            .iter()
            .map(entry)
            .collect()
    }
}
