//! Claims to external ids in SQLite. Proof releases whoever held the id live, in the same
//! transaction, so the unique live indexes are a net that is never hit.

use super::{SqliteStore, StoreError, audit, failed, rows::Fields};
use crate::{
    domain::{AssistantRole, OrgId, Provider, RouteState, Timestamp},
    store::{
        audit::{ACTOR_SYSTEM, AuditEntry},
        routes::*,
    },
};
use async_trait::async_trait;
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    DISPLACE_ASSISTANT,
    SAVE_ASSISTANT,
    LIST_ASSISTANTS,
    FIND_ASSISTANT,
    FIND_ASSISTANT_HOLDER,
    RELEASE_ASSISTANT,
    DISPLACE_NUMBER,
    SAVE_NUMBER,
    LIST_NUMBERS,
    FIND_NUMBER,
    FIND_NUMBER_HOLDER,
    RELEASE_NUMBER,
];

/// Touches other organisations' rows on purpose: a live claim of the same id, which the proof has
/// shown to be stale (invariant 18).
const DISPLACE_ASSISTANT: &str = "UPDATE assistant_org_mapping SET state = 'released', version = version + 1, \
    updated_at = ?3, changed_version = ?4 \
    WHERE assistant_id = ?2 AND state = 'live' AND org_id <> ?1 RETURNING org_id";
const SAVE_ASSISTANT: &str = "INSERT INTO assistant_org_mapping \
    (id, org_id, assistant_id, role, name, state, proof, proven_at, version, created_at, updated_at, changed_version) \
    VALUES (?1, ?2, ?3, ?4, ?5, 'live', ?6, ?7, 1, ?8, ?9, ?10) \
    ON CONFLICT (org_id, assistant_id) DO UPDATE SET role = excluded.role, name = excluded.name, state = 'live', proof \
    = excluded.proof, \
    proven_at = excluded.proven_at, version = assistant_org_mapping.version + 1, updated_at = excluded.updated_at, \
    changed_version = excluded.changed_version";
macro_rules! assistant_columns {
    () => {
        "org_id, assistant_id, role, name, state, proof, proven_at, version, created_at"
    };
}
const LIST_ASSISTANTS: &str = concat!(
    "SELECT ",
    assistant_columns!(),
    " FROM assistant_org_mapping WHERE org_id = ?1 AND assistant_id > ?2 AND state IN ('live', 'pending') ORDER BY \
    assistant_id LIMIT ?3"
);
const FIND_ASSISTANT: &str = concat!(
    "SELECT ",
    assistant_columns!(),
    " FROM assistant_org_mapping WHERE org_id = ?1 AND assistant_id = ?2 AND state IN ('live', 'pending')"
);
/// Over all organisations: who holds it.
const FIND_ASSISTANT_HOLDER: &str =
    "SELECT org_id FROM assistant_org_mapping WHERE assistant_id = ?1 AND state = 'live'";
const RELEASE_ASSISTANT: &str = "UPDATE assistant_org_mapping SET state = 'released', version = version + 1, \
    updated_at = ?3, changed_version = ?4 \
    WHERE org_id = ?1 AND assistant_id = ?2 AND state IN ('live', 'pending')";

/// Live rows whose route the proven claim takes: of the same number and provider, for Twilio only
/// of the same account; for Vapi also those of the same id there. Other rows of the organisation's
/// own for that number (an account it has left) go as well. The row that is about to be saved
/// stays.
const DISPLACE_NUMBER: &str = "UPDATE phone_numbers SET state = 'released', version = version + 1, updated_at = ?6, \
    changed_version = ?7 \
    WHERE provider = ?3 AND state = 'live' \
    AND NOT (org_id = ?1 AND number = ?2 AND (provider <> 'twilio' OR ifnull(account_id, '') = ifnull(?4, ''))) \
    AND ((number = ?2 AND (provider <> 'twilio' OR org_id = ?1 OR ifnull(account_id, '') = ifnull(?4, ''))) \
        OR (provider <> 'twilio' AND provider_number_id = ?5)) \
    RETURNING org_id, number";
const SAVE_NUMBER: &str = "INSERT INTO phone_numbers \
    (id, org_id, number, provider, account_id, provider_number_id, state, proof, proven_at, version, created_at, \
    updated_at, changed_version) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'live', ?7, ?8, 1, ?9, ?10, ?11) \
    ON CONFLICT (org_id, number, provider, (CASE provider WHEN 'twilio' THEN ifnull(account_id, '') ELSE '' END)) DO \
    UPDATE SET \
    account_id = excluded.account_id, provider_number_id = excluded.provider_number_id, state = 'live', proof = \
    excluded.proof, \
    proven_at = excluded.proven_at, version = phone_numbers.version + 1, updated_at = excluded.updated_at, \
    changed_version = excluded.changed_version";
macro_rules! number_columns {
    () => {
        "org_id, number, provider, account_id, provider_number_id, state, proof, proven_at, version, created_at"
    };
}
const LIST_NUMBERS: &str = concat!(
    "SELECT ",
    number_columns!(),
    " FROM phone_numbers WHERE org_id = ?1 AND number > ?2 AND state IN ('live', 'pending') ORDER BY number, provider \
    LIMIT ?3"
);
const FIND_NUMBER: &str = concat!(
    "SELECT ",
    number_columns!(),
    " FROM phone_numbers WHERE org_id = ?1 AND number = ?2 AND state IN ('live', 'pending') ORDER BY state = 'live' \
    DESC, provider LIMIT 1"
);
/// Over all organisations: who holds it. The account tells Twilio's apart, the id at Vapi is one by
/// itself.
const FIND_NUMBER_HOLDER: &str = "SELECT org_id FROM phone_numbers WHERE provider = ?1 AND state = 'live' AND ( \
    (number = ?2 AND (provider <> 'twilio' OR ifnull(account_id, '') = ifnull(?3, ''))) OR (provider <> 'twilio' AND \
    provider_number_id = ?4)) LIMIT 1";
const RELEASE_NUMBER: &str = "UPDATE phone_numbers SET state = 'released', version = version + 1, updated_at = ?3, \
    changed_version = ?4 \
    WHERE org_id = ?1 AND number = ?2 AND state IN ('live', 'pending')";

fn proof(text: &str) -> Option<Proof> {
    Proof::ALL.into_iter().find(|proof| proof.as_str() == text)
}

fn assistant(row: &SqliteRow) -> Result<AssistantClaim, StoreError> {
    let row = Fields::of(row, "assistant_org_mapping");
    Ok(AssistantClaim {
        org: row.id("org_id", OrgId::from_uuid)?,
        assistant_id: row.get("assistant_id")?,
        role: row.parse_opt("role", |text| text.parse().ok())?,
        name: row.get("name")?,
        state: row.parse("state", |text| text.parse::<RouteState>().ok())?,
        proof: row.parse_opt("proof", proof)?,
        proven_at: row.time_opt("proven_at")?,
        version: row.get("version")?,
        created_at: row.time("created_at")?,
    })
}

fn number(row: &SqliteRow) -> Result<NumberClaim, StoreError> {
    let row = Fields::of(row, "phone_numbers");
    Ok(NumberClaim {
        org: row.id("org_id", OrgId::from_uuid)?,
        number: row.get("number")?,
        provider: row.parse("provider", |text| text.parse().ok())?,
        account_id: row.get("account_id")?,
        provider_number_id: row.get("provider_number_id")?,
        state: row.parse("state", |text| text.parse::<RouteState>().ok())?,
        proof: row.parse_opt("proof", proof)?,
        proven_at: row.time_opt("proven_at")?,
        version: row.get("version")?,
        created_at: row.time("created_at")?,
    })
}

/// Tells the organisation that held it that it is gone, without who has it now.
async fn audit_displaced(
    connection: &mut SqliteConnection,
    from: OrgId,
    target_id: String,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let released = AuditEntry {
        org: from,
        actor: ACTOR_SYSTEM.to_owned(),
        verb: "release",
        target_id,
        fields: vec!["state"],
        ..entry.clone()
    };
    audit::insert(connection, from, &released).await
}

/// Writes a proven claim as live within a transaction, and tells whoever held the id.
pub(super) async fn prove(
    connection: &mut SqliteConnection,
    version: i64,
    now: Timestamp,
    claim: AssistantClaim,
    audit: &AuditEntry,
) -> Result<Option<OrgId>, StoreError> {
    const DOING: &str = "prove the assistant";
    let displaced = sqlx::query(DISPLACE_ASSISTANT)
        .bind(claim.org.as_bytes().as_slice())
        .bind(claim.assistant_id.as_str())
        .bind(now.as_micros())
        .bind(version)
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed(DOING))?;
    let holder = displaced
        .as_ref()
        .map(|row| Fields::of(row, "assistant_org_mapping").id("org_id", OrgId::from_uuid))
        .transpose()?;
    sqlx::query(SAVE_ASSISTANT)
        .bind(Uuid::now_v7().as_bytes().as_slice())
        .bind(claim.org.as_bytes().as_slice())
        .bind(claim.assistant_id.as_str())
        .bind(claim.role.map(AssistantRole::as_str))
        .bind(claim.name.as_deref())
        .bind(claim.proof.map(Proof::as_str))
        .bind(claim.proven_at.unwrap_or(now).as_micros())
        .bind(claim.created_at.as_micros())
        .bind(now.as_micros())
        .bind(version)
        .execute(&mut *connection)
        .await
        .map_err(failed(DOING))?;
    if let Some(holder) = holder {
        audit_displaced(connection, holder, claim.assistant_id, audit).await?;
    }
    audit::insert(connection, claim.org, audit).await?;
    Ok(holder)
}

#[async_trait]
impl Routes for SqliteStore {
    async fn prove_assistant(&self, claim: AssistantClaim, audit: AuditEntry) -> Result<Option<OrgId>, StoreError> {
        let now = self.now();
        self.configure("prove the assistant", move |connection, version| {
            Box::pin(async move { prove(connection, version, now, claim, &audit).await })
        })
        .await
    }

    async fn list_assistants(
        &self,
        org: OrgId,
        after: Option<&str>,
        count_max: u32,
    ) -> Result<Vec<AssistantClaim>, StoreError> {
        let rows = sqlx::query(LIST_ASSISTANTS)
            .bind(org.as_bytes().as_slice())
            .bind(after.unwrap_or_default())
            .bind(count_max)
            .fetch_all(self.readers());
        rows.await
            .map_err(failed("list assistants"))?
            .iter()
            .map(assistant)
            .collect()
    }

    async fn find_assistant(&self, org: OrgId, assistant_id: &str) -> Result<Option<AssistantClaim>, StoreError> {
        let found = sqlx::query(FIND_ASSISTANT)
            .bind(org.as_bytes().as_slice())
            .bind(assistant_id)
            .fetch_optional(self.readers());
        found
            .await
            .map_err(failed("find the assistant"))?
            .as_ref()
            .map(assistant)
            .transpose()
    }

    async fn find_assistant_holder(&self, assistant_id: &str) -> Result<Option<OrgId>, StoreError> {
        let found = sqlx::query(FIND_ASSISTANT_HOLDER)
            .bind(assistant_id)
            .fetch_optional(self.readers())
            .await
            .map_err(failed("find the assistant's holder"))?;
        found
            .as_ref()
            .map(|row| Fields::of(row, "assistant_org_mapping").id("org_id", OrgId::from_uuid))
            .transpose()
    }

    async fn release_assistant(&self, org: OrgId, assistant_id: &str, audit: AuditEntry) -> Result<bool, StoreError> {
        release(self, RELEASE_ASSISTANT, org, assistant_id.to_owned(), audit).await
    }

    async fn prove_number(&self, claim: NumberClaim, audit: AuditEntry) -> Result<Option<OrgId>, StoreError> {
        const DOING: &str = "prove the number";
        let now = self.now();
        self.configure(DOING, move |connection, version| {
            Box::pin(async move {
                let displaced = sqlx::query(DISPLACE_NUMBER)
                    .bind(claim.org.as_bytes().as_slice())
                    .bind(claim.number.as_str())
                    .bind(claim.provider.as_str())
                    .bind(claim.account_id.as_deref())
                    .bind(claim.provider_number_id.as_deref())
                    .bind(now.as_micros())
                    .bind(version)
                    .fetch_all(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                sqlx::query(SAVE_NUMBER)
                    .bind(Uuid::now_v7().as_bytes().as_slice())
                    .bind(claim.org.as_bytes().as_slice())
                    .bind(claim.number.as_str())
                    .bind(claim.provider.as_str())
                    .bind(claim.account_id.as_deref())
                    .bind(claim.provider_number_id.as_deref())
                    .bind(claim.proof.map(Proof::as_str))
                    .bind(claim.proven_at.unwrap_or(now).as_micros())
                    .bind(claim.created_at.as_micros())
                    .bind(now.as_micros())
                    .bind(version)
                    .execute(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                let mut holder = None;
                for row in &displaced {
                    let row = Fields::of(row, "phone_numbers");
                    let from = row.id("org_id", OrgId::from_uuid)?;
                    if from != claim.org {
                        audit_displaced(connection, from, row.get("number")?, &audit).await?;
                        holder.get_or_insert(from);
                    }
                }
                audit::insert(connection, claim.org, &audit).await?;
                Ok(holder)
            })
        })
        .await
    }

    async fn list_numbers(
        &self,
        org: OrgId,
        after: Option<&str>,
        count_max: u32,
    ) -> Result<Vec<NumberClaim>, StoreError> {
        let rows = sqlx::query(LIST_NUMBERS)
            .bind(org.as_bytes().as_slice())
            .bind(after.unwrap_or_default())
            .bind(count_max)
            .fetch_all(self.readers());
        rows.await.map_err(failed("list numbers"))?.iter().map(number).collect()
    }

    async fn find_number(&self, org: OrgId, wanted: &str) -> Result<Option<NumberClaim>, StoreError> {
        let found = sqlx::query(FIND_NUMBER)
            .bind(org.as_bytes().as_slice())
            .bind(wanted)
            .fetch_optional(self.readers());
        found
            .await
            .map_err(failed("find the number"))?
            .as_ref()
            .map(number)
            .transpose()
    }

    async fn find_number_holder(
        &self,
        provider: Provider,
        number: &str,
        account_id: Option<&str>,
        provider_number_id: Option<&str>,
    ) -> Result<Option<OrgId>, StoreError> {
        let holder = sqlx::query(FIND_NUMBER_HOLDER)
            .bind(provider.as_str())
            .bind(number)
            .bind(account_id)
            .bind(provider_number_id);
        let found = holder
            .fetch_optional(self.readers())
            .await
            .map_err(failed("find the number's holder"))?;
        found
            .as_ref()
            .map(|row| Fields::of(row, "phone_numbers").id("org_id", OrgId::from_uuid))
            .transpose()
    }

    async fn release_number(&self, org: OrgId, number: &str, audit: AuditEntry) -> Result<bool, StoreError> {
        release(self, RELEASE_NUMBER, org, number.to_owned(), audit).await
    }
}

async fn release(
    store: &SqliteStore,
    statement: &'static str,
    org: OrgId,
    external_id: String,
    audit: AuditEntry,
) -> Result<bool, StoreError> {
    let now: Timestamp = store.now();
    store
        .configure_if("release the claim", move |connection, version| {
            Box::pin(async move {
                let update = sqlx::query(statement)
                    .bind(org.as_bytes().as_slice())
                    .bind(external_id)
                    .bind(now.as_micros())
                    .bind(version);
                if update
                    .execute(&mut *connection)
                    .await
                    .map_err(failed("release the claim"))?
                    .rows_affected()
                    == 0
                {
                    return Ok((false, false));
                }
                audit::insert(connection, org, &audit).await?;
                Ok((true, true))
            })
        })
        .await
}
