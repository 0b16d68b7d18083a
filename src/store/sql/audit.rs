//! The audit log. Every other mutation writes its entry by [`insert`], in its own transaction.

#[cfg(test)]
use super::Sql;
use super::{
    Dialect, Row, SqlStore, Statement, Transaction,
    history::{end, first_id, start},
};
use crate::{
    domain::OrgId,
    store::{StoreError, audit::*},
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[Sql::both(INSERT), Sql::both(LIST)];

const INSERT: &str = "
    INSERT INTO audit_log (id, org_id, at, actor, verb, target_kind, target_id, fields, address, changes)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Writes the entry of a change of `org`. An entry that names another organisation undoes the
/// change, because one would learn about the other.
pub async fn insert<D: Dialect>(tx: &mut Transaction<'_, D>, org: OrgId, entry: &AuditEntry) -> Result<(), StoreError> {
    const DOING: &str = "write the audit entry";
    if entry.org != org {
        return Err(StoreError::Data {
            doing: DOING,
            reason: "the entry names another organisation than the change".into(),
        });
    }
    let values = entry.changes.values();
    let values = (!values.is_empty())
        .then(|| serde_json::to_string(values))
        .transpose()
        .map_err(|error| StoreError::Data {
            doing: DOING,
            reason: error.to_string().into(),
        })?;
    Statement::new(DOING, INSERT)
        // Made in the transaction, so that the order of ids is the order of commits.
        .id(Uuid::now_v7())
        .id(org)
        .time(entry.at)
        .text(&entry.actor)
        .text(entry.verb)
        .text(entry.target_kind)
        .text(&entry.target_id)
        .json(&entry.changes.fields())?
        .text_opt(entry.address.map(|address| address.to_string()).as_deref())
        .text_opt(values.as_deref())
        .execute(tx)
        .await
        .map(drop)
}

const LIST: &str = "
    SELECT id, at, actor, verb, target_kind, target_id, fields, address, changes
    FROM audit_log
    WHERE org_id = $1 AND id < $2 AND id >= $4 AND at >= $5 AND at < $6
    AND (CAST($7 AS text) IS NULL OR actor = $7)
    AND (CAST($8 AS text) IS NULL OR (target_id = $8 AND target_kind IN ('credential', 'secret')))
    AND (CAST($9 AS text) IS NULL OR verb = $9)
    ORDER BY id DESC
    LIMIT $3";

fn entry<D: Dialect>(row: Row<'_, D>) -> Result<StoredAuditEntry, StoreError> {
    let row = row.table("audit_log");
    Ok(StoredAuditEntry {
        id: row.id("id")?,
        at: row.time("at")?,
        actor: row.string("actor")?,
        address: row.string_opt("address")?,
        verb: row.string("verb")?,
        target_kind: row.string("target_kind")?,
        target_id: row.string("target_id")?,
        fields: row.json("fields")?,
        changes: match row.text_opt("changes")? {
            Some(_) => row.json("changes")?,
            None => Vec::new(),
        },
    })
}

#[async_trait]
impl<S: SqlStore> AuditLog for S {
    async fn record_audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.write(entry.org, "write the audit entry", move |mut tx| {
            Box::pin(async move { insert(&mut tx, entry.org, &entry).await })
        })
        .await
    }

    async fn list_audit(
        &self,
        org: OrgId,
        filter: AuditFilter,
        before: Option<Uuid>,
        count_max: u32,
    ) -> Result<Vec<StoredAuditEntry>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("list the audit log", LIST)
            .id(org)
            .id(before.unwrap_or(Uuid::max()))
            .number(count_max)
            .id(first_id(filter.period))
            .time(start(filter.period))
            .time(end(filter.period))
            .text_opt(filter.actor.as_deref())
            .text_opt(filter.integration.as_deref())
            .text_opt(filter.verb.as_deref())
            .all(&mut reader, entry)
            .await
    }
}
