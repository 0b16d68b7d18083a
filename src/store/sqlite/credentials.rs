//! Credentials in SQLite. Saving and erasing also move the ledger's parked actions, in the same
//! transaction (invariant 6).

use super::{Lane, SqliteStore, StoreError, audit, failed, rows::Fields};
use crate::{
    domain::{CredentialId, OrgId, Provider, SealedBytes, Timestamp},
    store::{audit::AuditEntry, credentials::*},
};
use async_trait::async_trait;
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use std::time::Duration;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    FIND,
    LIST,
    SAVE,
    COUNT,
    RESUME,
    DUE_NOW,
    ERASE,
    PARK,
    RECORD_HEALTH,
    TOUCH,
];

macro_rules! credential_columns {
    () => {
        "id, org_id, provider, name, is_active, sealed, version, state, cause, error, missing, checked_at, \
        first_failed_at, \
         account_id, account_name, account_fingerprint, last_four, last_verified_at, last_used_at, refresh_at, \
         created_at, updated_at"
    };
}
pub(super) use credential_columns;

const FIND: &str = concat!(
    "SELECT ",
    credential_columns!(),
    " FROM org_credentials WHERE org_id = ?1 AND provider = ?2 AND name = ?3"
);
const LIST: &str = concat!(
    "SELECT ",
    credential_columns!(),
    " FROM org_credentials WHERE org_id = ?1 ORDER BY provider, name"
);

/// On a conflict `id`, `created_at` and `last_used_at` stay: it is the same integration with
/// another key.
const SAVE: &str = concat!(
    "INSERT INTO org_credentials (id, org_id, provider, name, is_active, sealed, version, state, missing, account_id, \
    account_name, account_fingerprint, \
     last_four, checked_at, last_verified_at, created_at, updated_at, changed_version, refresh_at) \
     VALUES (?1, ?2, ?3, ?4, 1, ?5, 1, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13, ?13, ?14, ?15) \
     ON CONFLICT (org_id, provider, name) DO UPDATE SET is_active = 1, sealed = excluded.sealed, version = \
     org_credentials.version + 1, \
     state = excluded.state, cause = NULL, error = NULL, missing = excluded.missing, account_id = excluded.account_id, \
     account_name = excluded.account_name, \
     account_fingerprint = excluded.account_fingerprint, last_four = excluded.last_four, checked_at = \
     excluded.checked_at, \
     last_verified_at = excluded.last_verified_at, first_failed_at = NULL, failing_version = NULL, updated_at = \
     excluded.updated_at, \
     changed_version = excluded.changed_version, refresh_at = excluded.refresh_at RETURNING ",
    credential_columns!()
);
const COUNT: &str = "SELECT count(*) FROM org_credentials WHERE org_id = ?1";

/// What was parked under this version or a newer one is parked for a reason that this save does not
/// mend.
const RESUME: &str = "UPDATE actions SET state = 'pending', cause = NULL, detail = NULL, due_at = ?5, updated_at = ?5 \
    WHERE org_id = ?1 AND provider = ?2 AND credential_name = ?3 AND state = 'parked' AND (credential_version IS NULL \
    OR credential_version < ?4)";
const DUE_NOW: &str = "INSERT INTO turns (org_id, provider, due_at) VALUES (?1, ?2, ?3) \
    ON CONFLICT (org_id, provider) DO UPDATE SET due_at = min(turns.due_at, excluded.due_at)";

const ERASE: &str = "UPDATE org_credentials SET is_active = 0, sealed = NULL, last_four = NULL, state = \
    'not_connected', cause = NULL, error = NULL, \
    missing = NULL, first_failed_at = NULL, failing_version = NULL, account_id = NULL, account_name = NULL, refresh_at \
    = NULL, \
    updated_at = ?4, changed_version = ?5 \
    WHERE org_id = ?1 AND provider = ?2 AND name = ?3 AND is_active = 1";
/// The first list of states is the partial index's own, in its words, so that the index serves;
/// `unknown` ones are still looked up.
const PARK: &str = "UPDATE actions SET state = 'parked', cause = ?5, detail = NULL, updated_at = ?4 \
    WHERE org_id = ?1 AND provider = ?2 AND credential_name = ?3 AND state IN ('pending', 'waiting', 'unknown') AND \
    state <> 'unknown'";

const RECORD_HEALTH: &str = "UPDATE org_credentials SET state = ?4, cause = ?5, error = ?6, missing = ?7, checked_at = \
    ?8, first_failed_at = ?9, \
    last_verified_at = ifnull(?10, last_verified_at), failing_version = CASE WHEN ?4 IN ('failing', \
    'needs_reconnecting') THEN version END, \
    updated_at = ?11, changed_version = ?12 WHERE org_id = ?1 AND id = ?2 AND version = ?3 AND is_active = 1";

const TOUCH: &str = "UPDATE org_credentials SET last_used_at = ?3 WHERE org_id = ?1 AND id = ?2 AND is_active = 1 AND \
    (last_used_at IS NULL OR last_used_at <= ?4)";
const TOUCH_PERIOD: Duration = Duration::from_mins(1);

pub(super) fn credential(row: &SqliteRow) -> Result<StoredCredential, StoreError> {
    let row = Fields::of(row, "org_credentials");
    Ok(StoredCredential {
        id: row.id("id", CredentialId::from_uuid)?,
        org: row.id("org_id", OrgId::from_uuid)?,
        provider: row.parse("provider", |text| text.parse().ok())?,
        name: row.get("name")?,
        is_active: row.get("is_active")?,
        sealed: row.get::<Option<Box<[u8]>>>("sealed")?.map(SealedBytes),
        version: row.get("version")?,
        health: CredentialHealth {
            state: row.parse("state", |text| text.parse().ok())?,
            cause: row.get("cause")?,
            error: row.get("error")?,
            missing: row.get("missing")?,
            checked_at: row.time_opt("checked_at")?,
            first_failed_at: row.time_opt("first_failed_at")?,
        },
        account_id: row.get("account_id")?,
        account_name: row.get("account_name")?,
        account_fingerprint: row.get("account_fingerprint")?,
        last_four: row.get("last_four")?,
        last_verified_at: row.time_opt("last_verified_at")?,
        last_used_at: row.time_opt("last_used_at")?,
        refresh_at: row.time_opt("refresh_at")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

/// Makes what was parked under an older version claimable now.
pub(super) async fn resume(
    connection: &mut SqliteConnection,
    saved: &StoredCredential,
    now: Timestamp,
) -> Result<(), StoreError> {
    const DOING: &str = "make parked actions due";
    let resumed = sqlx::query(RESUME)
        .bind(saved.org.as_bytes().as_slice())
        .bind(saved.provider.as_str())
        .bind(saved.name.as_str())
        .bind(saved.version)
        .bind(now.as_micros())
        .execute(&mut *connection)
        .await
        .map_err(failed(DOING))?;
    if resumed.rows_affected() > 0 {
        let turn = sqlx::query(DUE_NOW)
            .bind(saved.org.as_bytes().as_slice())
            .bind(saved.provider.as_str())
            .bind(now.as_micros());
        turn.execute(connection).await.map_err(failed(DOING))?;
    }
    Ok(())
}

/// Saves within a transaction, resumes what was parked under an older version, and writes the audit
/// entry.
pub(super) async fn save(
    connection: &mut SqliteConnection,
    version: i64,
    now: Timestamp,
    new: &NewCredential,
    refresh_at: Option<Timestamp>,
    audit: &AuditEntry,
) -> Result<StoredCredential, StoreError> {
    let row = sqlx::query(SAVE)
        .bind(CredentialId::generate().as_bytes().as_slice())
        .bind(new.org.as_bytes().as_slice())
        .bind(new.provider.as_str())
        .bind(new.name.as_str())
        .bind(&*new.sealed.0)
        .bind(new.state.as_str())
        .bind(new.missing.as_deref())
        .bind(new.account_id.as_deref())
        .bind(new.account_name.as_deref())
        .bind(new.account_fingerprint.as_deref())
        .bind(new.last_four.as_deref())
        .bind(new.verified_at.map(Timestamp::as_micros))
        .bind(now.as_micros())
        .bind(version)
        .bind(refresh_at.map(Timestamp::as_micros))
        .fetch_one(&mut *connection)
        .await
        .map_err(failed("save the credential"))?;
    let saved = credential(&row)?;
    if saved.version == 1 {
        let count: u32 = sqlx::query_scalar(COUNT)
            .bind(new.org.as_bytes().as_slice())
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("save the credential"))?;
        if count > CREDENTIALS_PER_ORG_MAX {
            return Err(StoreError::Conflict {
                what: "the limit of credentials of an organisation",
            });
        }
    }
    resume(connection, &saved, now).await?;
    audit::insert(connection, new.org, audit).await?;
    Ok(saved)
}

/// Erases within a transaction and parks what waits for it. `false` when there was nothing active:
/// then nothing is written.
pub(super) async fn erase(
    connection: &mut SqliteConnection,
    version: i64,
    now: Timestamp,
    (org, provider, name): (OrgId, Provider, &str),
    audit: &AuditEntry,
) -> Result<bool, StoreError> {
    let erased = sqlx::query(ERASE)
        .bind(org.as_bytes().as_slice())
        .bind(provider.as_str())
        .bind(name)
        .bind(now.as_micros())
        .bind(version)
        .execute(&mut *connection)
        .await
        .map_err(failed("erase the credential"))?;
    if erased.rows_affected() == 0 {
        return Ok(false);
    }
    park(connection, (org, provider, name), "not_connected", now).await?;
    audit::insert(connection, org, audit).await?;
    Ok(true)
}

/// Parks what has not gone out and waits for a credential.
pub(super) async fn park(
    connection: &mut SqliteConnection,
    (org, provider, name): (OrgId, Provider, &str),
    cause: &'static str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let park = sqlx::query(PARK)
        .bind(org.as_bytes().as_slice())
        .bind(provider.as_str())
        .bind(name)
        .bind(now.as_micros())
        .bind(cause);
    park.execute(connection)
        .await
        .map(drop)
        .map_err(failed("park actions of a credential"))
}

#[async_trait]
impl Credentials for SqliteStore {
    async fn find_credential(
        &self,
        org: OrgId,
        provider: Provider,
        name: &str,
    ) -> Result<Option<StoredCredential>, StoreError> {
        let found = sqlx::query(FIND)
            .bind(org.as_bytes().as_slice())
            .bind(provider.as_str())
            .bind(name)
            .fetch_optional(self.readers());
        found
            .await
            .map_err(failed("find the credential"))?
            .as_ref()
            .map(credential)
            .transpose()
    }

    async fn list_credentials(&self, org: OrgId) -> Result<Vec<StoredCredential>, StoreError> {
        let rows = sqlx::query(LIST)
            .bind(org.as_bytes().as_slice())
            .fetch_all(self.readers())
            .await
            .map_err(failed("list credentials"))?;
        rows.iter().map(credential).collect()
    }

    async fn save_credential(&self, new: NewCredential, audit: AuditEntry) -> Result<StoredCredential, StoreError> {
        let now = self.now();
        self.configure("save the credential", move |connection, version| {
            Box::pin(async move { save(connection, version, now, &new, None, &audit).await })
        })
        .await
    }

    async fn erase_credential(
        &self,
        org: OrgId,
        provider: Provider,
        name: &str,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let (name, now) = (name.to_owned(), self.now());
        self.configure_if("erase the credential", move |connection, version| {
            Box::pin(async move {
                let is_erased = erase(connection, version, now, (org, provider, &name), &audit).await?;
                Ok((is_erased, is_erased))
            })
        })
        .await
    }

    async fn record_credential_health(
        &self,
        org: OrgId,
        id: CredentialId,
        version: i64,
        health: CredentialHealth,
        verified_at: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let now = self.now();
        self.configure_if("record a credential's health", move |connection, changed_version| {
            Box::pin(async move {
                let recorded = sqlx::query(RECORD_HEALTH)
                    .bind(org.as_bytes().as_slice())
                    .bind(id.as_bytes().as_slice())
                    .bind(version)
                    .bind(health.state.as_str())
                    .bind(health.cause.as_deref())
                    .bind(health.error.as_deref())
                    .bind(health.missing.as_deref())
                    .bind(health.checked_at.map(Timestamp::as_micros))
                    .bind(health.first_failed_at.map(Timestamp::as_micros))
                    .bind(verified_at.map(Timestamp::as_micros))
                    .bind(now.as_micros())
                    .bind(changed_version)
                    .execute(connection)
                    .await
                    .map_err(failed("record a credential's health"))?
                    .rows_affected()
                    == 1;
                Ok((recorded, recorded))
            })
        })
        .await
    }

    async fn touch_credential(&self, org: OrgId, id: CredentialId, used_at: Timestamp) -> Result<(), StoreError> {
        self.write(Lane::Bulk, "note a credential's use", move |connection| {
            Box::pin(async move {
                sqlx::query(TOUCH)
                    .bind(org.as_bytes().as_slice())
                    .bind(id.as_bytes().as_slice())
                    .bind(used_at.as_micros())
                    .bind((used_at - TOUCH_PERIOD).as_micros())
                    .execute(connection)
                    .await
                    .map(drop)
                    .map_err(failed("note a credential's use"))
            })
        })
        .await
    }
}
