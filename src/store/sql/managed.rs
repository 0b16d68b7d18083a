//! Managed assistants: each write names the version that it read and the fence of its lease.

#[cfg(test)]
use super::Sql;
use super::{Access, Dialect, Row, SqlStore, Statement, Transaction, audit, grants::holds, routes::prove};
use crate::{
    domain::{AssistantRole, OrgId, SealedBytes, Timestamp},
    store::{
        StoreError,
        audit::AuditEntry,
        grants::Lease,
        managed::*,
        routes::{AssistantClaim, Displaces},
    },
};
use async_trait::async_trait;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(FIND),
    Sql::both(LIST),
    Sql::both(TO_CHECK),
    Sql::both(SAVE),
    Sql::both(RELEASE_OTHERS),
    Sql::both(DELETE),
];

macro_rules! columns {
    () => {
        "org_id, role, marker, assistant_id, endpoint_id, sealed, state, drift, error, checked_at, version,
        created_at, updated_at"
    };
}
const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    "
    FROM managed_assistants
    WHERE org_id = $1 AND role = $2"
);
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    "
    FROM managed_assistants
    WHERE org_id = $1
    ORDER BY role"
);
/// Over all organisations: the reconciler works for each.
const TO_CHECK: &str = "
    SELECT org_id, role FROM managed_assistants
    WHERE checked_at <= $1
    ORDER BY checked_at
    LIMIT $2";
/// The condition names the version that was read: 0 where there was no row.
const SAVE: &str = concat!(
    "
    INSERT INTO managed_assistants
        (org_id, role, marker, assistant_id, endpoint_id, sealed, state, drift, error, checked_at, version, created_at,
         updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $11)
    ON CONFLICT (org_id, role) DO UPDATE
    SET marker = excluded.marker, assistant_id = excluded.assistant_id, endpoint_id = excluded.endpoint_id,
        sealed = excluded.sealed, state = excluded.state, drift = excluded.drift, error = excluded.error,
        checked_at = excluded.checked_at, version = managed_assistants.version + 1, updated_at = excluded.updated_at
    WHERE managed_assistants.version = $12
    RETURNING ",
    columns!()
);
const RELEASE_OTHERS: &str = "
    UPDATE assistant_org_mapping
    SET state = 'released', version = version + 1, updated_at = $4, changed_version = $5
    WHERE org_id = $1 AND role = $2 AND assistant_id <> $3 AND proof = 'made_by_us' AND state = 'live'";
const DELETE: &str = "
    DELETE FROM managed_assistants
    WHERE org_id = $1 AND role = $2";

fn managed<D: Dialect>(row: Row<'_, D>) -> Result<ManagedAssistant, StoreError> {
    let row = row.table("managed_assistants");
    Ok(ManagedAssistant {
        org: row.id("org_id")?,
        role: row.parse("role")?,
        marker: row.string("marker")?,
        assistant_id: row.string_opt("assistant_id")?,
        endpoint: row.id("endpoint_id")?,
        sealed: SealedBytes(row.bytes("sealed")?.into()),
        state: row.parse("state")?,
        drift: row.json("drift")?,
        error: row.string_opt("error")?,
        checked_at: row.time_opt("checked_at")?,
        version: row.number("version")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

/// Releases former claims of this role, except on `assistant_id`.
async fn release_others<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    version: i64,
    (org, role): (OrgId, AssistantRole),
    assistant_id: &str,
) -> Result<(), StoreError> {
    Statement::new("release former assistants of a role", RELEASE_OTHERS)
        .id(org)
        .text(role.as_str())
        .text(assistant_id)
        .time(tx.now)
        .number(version)
        .execute(tx)
        .await
        .map(drop)
}

/// Writes the row and its claim. Whether the claim is a change of configuration comes second.
async fn save<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    version: i64,
    row: ManagedAssistant,
    claim: Option<AssistantClaim>,
    audit: Option<AuditEntry>,
) -> Result<(Option<ManagedAssistant>, bool), StoreError> {
    const DOING: &str = "save the managed assistant";
    let saved = Statement::new(DOING, SAVE)
        .id(row.org)
        .text(row.role.as_str())
        .text(&row.marker)
        .text_opt(row.assistant_id.as_deref())
        .id(row.endpoint)
        .bytes(&row.sealed.0)
        .text(row.state.as_str())
        .json(&row.drift)?
        .text_opt(row.error.as_deref())
        .time_opt(row.checked_at)
        .time(tx.now)
        .number(row.version)
        .optional(tx, managed)
        .await?;
    if saved.is_none() {
        return Ok((None, false));
    }
    let is_claimed = claim.is_some();
    match (claim, audit) {
        (Some(claim), Some(audit)) => {
            release_others(tx, version, (row.org, row.role), &claim.assistant_id).await?;
            prove(tx, version, claim, Displaces::Anyone, &audit).await?;
        }
        (Some(_), None) => {
            return Err(StoreError::Data {
                doing: DOING,
                reason: "a claim without an audit entry".into(),
            });
        }
        (None, Some(audit)) => audit::insert(tx, row.org, &audit).await?,
        (None, None) => {}
    }
    Ok((saved, is_claimed))
}

#[async_trait]
impl<S: SqlStore> ManagedAssistants for S {
    async fn find_managed_assistant(
        &self,
        org: OrgId,
        role: AssistantRole,
    ) -> Result<Option<ManagedAssistant>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("find the managed assistant", FIND)
            .id(org)
            .text(role.as_str())
            .optional(&mut reader, managed)
            .await
    }

    async fn list_managed_assistants(&self, org: OrgId) -> Result<Vec<ManagedAssistant>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("list managed assistants", LIST)
            .id(org)
            .all(&mut reader, managed)
            .await
    }

    async fn list_assistants_to_check(
        &self,
        before: Timestamp,
        count_max: u32,
    ) -> Result<Vec<(OrgId, AssistantRole)>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("list assistants to check", TO_CHECK)
            .time(before)
            .number(count_max)
            .readable(&mut reader, |row| {
                let row = row.table("managed_assistants");
                Ok((row.id("org_id")?, row.parse("role")?))
            })
            .await
    }

    async fn save_managed_assistant(
        &self,
        row: ManagedAssistant,
        claim: Option<AssistantClaim>,
        lease: &Lease,
        audit: Option<AuditEntry>,
    ) -> Result<Option<ManagedAssistant>, StoreError> {
        let lease = lease.clone();
        self.configure_if(
            Access::ALL_ORGS,
            "save the managed assistant",
            move |mut tx, version| {
                Box::pin(async move {
                    if !holds(&mut tx, &lease).await? {
                        return Ok((None, false));
                    }
                    save(&mut tx, version, row, claim, audit).await
                })
            },
        )
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
        let lease = lease.clone();
        self.configure_if(org, DOING, move |mut tx, version| {
            Box::pin(async move {
                if !holds(&mut tx, &lease).await? {
                    return Ok((false, false));
                }
                let deleted = Statement::new(DOING, DELETE)
                    .id(org)
                    .text(role.as_str())
                    .execute(&mut tx)
                    .await?;
                if deleted == 0 {
                    return Ok((false, false));
                }
                release_others(&mut tx, version, (org, role), "").await?;
                audit::insert(&mut tx, org, &audit).await?;
                Ok((true, true))
            })
        })
        .await
    }
}
