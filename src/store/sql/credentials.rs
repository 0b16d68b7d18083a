//! Credentials. Saving and erasing also move the ledger's parked actions, in the same transaction
//! (invariant 6).

use super::{
    Access, Dialect, READ_VERSION, Row, Sql, SqlStore, Statement, Transaction, audit, can_be_stored,
    ledger::bring_turn_forward,
};
use crate::{
    domain::{CredentialId, OrgId, Provider, SealedBytes, Timestamp},
    store::{
        StoreError,
        audit::{AuditEntry, Changes},
        credentials::*,
    },
};
use async_trait::async_trait;
use std::time::Duration;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(FIND),
    Sql::both(LIST),
    LOCK,
    Sql::both(SAVE),
    Sql::both(COUNT),
    Sql::both(RESUME),
    Sql::both(ERASE),
    Sql::both(PARK),
    Sql::both(RECORD_HEALTH),
    Sql::both(TOUCH),
    Sql::both(FIND_ROTATION),
    Sql::both(SET_ROTATION),
    COUNT_ROTATIONS_DUE,
    Sql::both(CHANGED_ORGS),
    Sql::both(STAMP),
];

macro_rules! credential_columns {
    () => {
        "id, org_id, provider, name, is_active, sealed, version, state, cause, error, missing, checked_at,
        first_failed_at, account_id, account_name, account_fingerprint, last_four, last_verified_at, last_used_at,
        refresh_at, rotate_after_days, coalesce(secret_since, created_at) AS secret_since, created_at, updated_at"
    };
}
pub(super) use credential_columns;

const FIND: &str = concat!(
    "SELECT ",
    credential_columns!(),
    "
    FROM org_credentials
    WHERE org_id = $1 AND provider = $2 AND name = $3"
);
const LIST: &str = concat!(
    "SELECT ",
    credential_columns!(),
    "
    FROM org_credentials
    WHERE org_id = $1
    ORDER BY provider, name"
);

/// A save and an attempt that parks its action for this credential go one after the other, even
/// where there is no row yet. Otherwise neither sees the other's uncommitted rows, and the action
/// stays parked under a version that is no longer the newest (invariant 6).
const LOCK: Sql = Sql::postgres_only(
    "SELECT pg_advisory_xact_lock(hashtextextended(concat($1::uuid, '/', $2::text, '/', $3::text), 0))",
);

/// On a conflict `id`, `created_at` and `last_used_at` stay: it is the same integration with
/// another key. `secret_since` stays where the key is the same.
const SAVE: &str = concat!(
    "
    INSERT INTO org_credentials
        (id, org_id, provider, name, is_active, sealed, version, state, missing, account_id, account_name,
         account_fingerprint, last_four, checked_at, last_verified_at, created_at, updated_at, changed_version,
         refresh_at, secret_since)
    VALUES ($1, $2, $3, $4, true, $5, 1, $6, $7, $8, $9, $10, $11, $12, $12, $13, $13, $14, $15, $13)
    ON CONFLICT (org_id, provider, name) DO UPDATE
    SET is_active = true, sealed = excluded.sealed, version = org_credentials.version + 1, state = excluded.state,
        cause = NULL, error = NULL, missing = excluded.missing, account_id = excluded.account_id,
        account_name = excluded.account_name, account_fingerprint = excluded.account_fingerprint,
        last_four = excluded.last_four, checked_at = excluded.checked_at,
        last_verified_at = excluded.last_verified_at, first_failed_at = NULL, failing_version = NULL,
        updated_at = excluded.updated_at, changed_version = excluded.changed_version,
        refresh_at = excluded.refresh_at,
        secret_since = CASE
            WHEN $16 THEN excluded.secret_since
            ELSE coalesce(org_credentials.secret_since, org_credentials.created_at)
        END
    RETURNING ",
    credential_columns!()
);
const COUNT: &str = "
    SELECT count(*) AS count FROM org_credentials
    WHERE org_id = $1";

/// Actions that were parked under this version or a newer one have a cause that this save does not
/// remove.
const RESUME: &str = "
    UPDATE actions
    SET state = 'pending', cause = NULL, detail = NULL, due_at = $5, updated_at = $5
    WHERE org_id = $1 AND provider = $2 AND credential_name = $3 AND state = 'parked'
    AND (credential_version IS NULL OR credential_version < $4)";
const ERASE: &str = "
    UPDATE org_credentials
    SET is_active = false, sealed = NULL, last_four = NULL, state = 'not_connected', cause = NULL, error = NULL,
        missing = NULL, first_failed_at = NULL, failing_version = NULL, account_id = NULL, account_name = NULL,
        refresh_at = NULL, updated_at = $4, changed_version = $5
    WHERE org_id = $1 AND provider = $2 AND name = $3 AND is_active = true";
/// The first list of states repeats the condition of the partial index, so that the database uses
/// it. `unknown` actions are still looked up.
const PARK: &str = "
    UPDATE actions
    SET state = 'parked', cause = $5, detail = NULL, updated_at = $4
    WHERE org_id = $1 AND provider = $2 AND credential_name = $3
    AND state IN ('pending', 'waiting', 'unknown') AND state <> 'unknown'";

const RECORD_HEALTH: &str = "
    UPDATE org_credentials
    SET state = $4, cause = $5, error = $6, missing = $7, checked_at = $8, first_failed_at = $9,
        last_verified_at = coalesce($10, last_verified_at),
        failing_version = CASE WHEN $4 IN ('failing', 'needs_reconnecting') THEN version END,
        updated_at = $11, changed_version = $12
    WHERE org_id = $1 AND id = $2 AND version = $3 AND is_active = true";

const TOUCH: &str = "
    UPDATE org_credentials
    SET last_used_at = $3
    WHERE org_id = $1 AND id = $2 AND is_active = true AND (last_used_at IS NULL OR last_used_at <= $4)";
const TOUCH_PERIOD: Duration = Duration::from_mins(1);

const FIND_ROTATION: &str = "
    SELECT rotate_after_days FROM org_credentials
    WHERE org_id = $1 AND provider = $2 AND name = '' AND is_active = true";
const SET_ROTATION: &str = "
    UPDATE org_credentials
    SET rotate_after_days = $3
    WHERE org_id = $1 AND provider = $2 AND name = '' AND is_active = true";
macro_rules! count_rotations_due {
    ($index:literal) => {
        concat!(
            "
    SELECT provider, count(*) AS count
    FROM (
        SELECT provider FROM org_credentials",
            $index,
            "
        WHERE coalesce(secret_since, created_at) + rotate_after_days * 86400000000 <= $1
        AND is_active = true AND name = '' AND rotate_after_days > 0
        LIMIT $2
    ) AS due
    GROUP BY provider"
        )
    };
}
const COUNT_ROTATIONS_DUE: Sql = Sql {
    sqlite: count_rotations_due!(" INDEXED BY org_credentials_rotation"),
    postgres: count_rotations_due!(""),
};

const CHANGED_ORGS: &str = "
    SELECT org_id FROM org_credentials
    WHERE changed_version > $1
    UNION
    SELECT org_id FROM data_keys
    WHERE changed_version > $1
    UNION
    SELECT id AS org_id FROM organizations
    WHERE changed_version > $1";
const STAMP: &str = "
    UPDATE org_credentials
    SET changed_version = $2
    WHERE org_id = $1";

pub fn credential<D: Dialect>(row: Row<'_, D>) -> Result<StoredCredential, StoreError> {
    let row = row.table("org_credentials");
    Ok(StoredCredential {
        id: row.id("id")?,
        org: row.id("org_id")?,
        provider: row.parse("provider")?,
        name: row.string("name")?,
        is_active: row.flag("is_active")?,
        sealed: row.bytes_opt("sealed")?.map(|sealed| SealedBytes(sealed.into())),
        version: row.number("version")?,
        health: CredentialHealth {
            state: row.parse("state")?,
            cause: row.string_opt("cause")?,
            error: row.text_opt("error")?.map(CredentialError::of_text),
            missing: row.string_opt("missing")?,
            checked_at: row.time_opt("checked_at")?,
            first_failed_at: row.time_opt("first_failed_at")?,
        },
        account_id: row.string_opt("account_id")?,
        account_name: row.string_opt("account_name")?,
        account_fingerprint: row.string_opt("account_fingerprint")?,
        last_four: row.string_opt("last_four")?,
        last_verified_at: row.time_opt("last_verified_at")?,
        last_used_at: row.time_opt("last_used_at")?,
        refresh_at: row.time_opt("refresh_at")?,
        rotate_after_days: row.number("rotate_after_days")?,
        secret_since: row.time("secret_since")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

/// Makes actions that were parked under an older version claimable now.
pub async fn resume<D: Dialect>(tx: &mut Transaction<'_, D>, saved: &StoredCredential) -> Result<(), StoreError> {
    const DOING: &str = "make parked actions due";
    let resumed = Statement::new(DOING, RESUME)
        .id(saved.org)
        .text(saved.provider.as_str())
        .text(&saved.name)
        .number(saved.version)
        .time(tx.now)
        .execute(tx)
        .await?;
    if resumed > 0 {
        bring_turn_forward(tx, saved.org, saved.provider.as_str(), tx.now).await?;
    }
    Ok(())
}

/// Saves within a transaction, resumes actions that were parked under an older version, and writes
/// the audit entry.
pub async fn save<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    version: i64,
    new: &NewCredential,
    (refresh_at, is_new_secret): (Option<Timestamp>, bool),
    audit: &AuditEntry,
) -> Result<StoredCredential, StoreError> {
    const DOING: &str = "save the credential";
    Statement::new(DOING, LOCK)
        .id(new.org)
        .text(new.provider.as_str())
        .text(&new.name)
        .execute(tx)
        .await?;
    expect(tx, (new.org, new.provider, &new.name), new.expects).await?;
    let saved = Statement::new(DOING, SAVE)
        .id(CredentialId::generate())
        .id(new.org)
        .text(new.provider.as_str())
        .text(&new.name)
        .bytes(&new.sealed.0)
        .text(new.state.as_str())
        .text_opt(new.missing.as_deref())
        .text_opt(new.account_id.as_deref())
        .text_opt(new.account_name.as_deref())
        .text_opt(new.account_fingerprint.as_deref())
        .text_opt(new.last_four.as_deref())
        .time_opt(new.verified_at)
        .time(tx.now)
        .number(version)
        .time_opt(refresh_at)
        .flag(is_new_secret)
        .one(tx, credential)
        .await?;
    if saved.version == 1 {
        let count: u32 = Statement::new(DOING, COUNT)
            .id(new.org)
            .one(tx, |row| row.table("org_credentials").number("count"))
            .await?;
        if count > CREDENTIALS_PER_ORG_MAX {
            return Err(StoreError::Conflict {
                what: "the limit of credentials of an organisation",
            });
        }
    }
    resume(tx, &saved).await?;
    audit::insert(tx, new.org, audit).await?;
    Ok(saved)
}

/// Whether what the author of a change read still stands. Changes of configuration go one after the
/// other, so that it does until this one is written.
async fn expect<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    (org, provider, name): (OrgId, Provider, &str),
    expects: Expects,
) -> Result<(), StoreError> {
    if expects == Expects::Anything {
        return Ok(());
    }
    let found = Statement::new("find the credential", FIND)
        .id(org)
        .text(provider.as_str())
        .text(name)
        .optional(tx, credential)
        .await?;
    expects.met_by(found.filter(|row| row.is_active).map(|row| row.version))
}

/// Erases within a transaction and parks the actions that wait for the credential. Returns `false`
/// when no credential was active, and writes nothing then.
pub async fn erase<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    version: i64,
    (org, provider, name): (OrgId, Provider, &str),
    expects: Expects,
    audit: &AuditEntry,
) -> Result<bool, StoreError> {
    expect(tx, (org, provider, name), expects).await?;
    let erased = Statement::new("erase the credential", ERASE)
        .id(org)
        .text(provider.as_str())
        .text(name)
        .time(tx.now)
        .number(version)
        .execute(tx)
        .await?;
    if erased == 0 {
        return Ok(false);
    }
    park(tx, (org, provider, name), "not_connected").await?;
    audit::insert(tx, org, audit).await?;
    Ok(true)
}

/// Parks the actions that have not gone out and wait for a credential.
pub async fn park<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    (org, provider, name): (OrgId, Provider, &str),
    cause: &'static str,
) -> Result<(), StoreError> {
    Statement::new("park actions of a credential", PARK)
        .id(org)
        .text(provider.as_str())
        .text(name)
        .time(tx.now)
        .text(cause)
        .execute(tx)
        .await
        .map(drop)
}

#[async_trait]
impl<S: SqlStore> Credentials for S {
    async fn find_credential(
        &self,
        org: OrgId,
        provider: Provider,
        name: &str,
    ) -> Result<Option<StoredCredential>, StoreError> {
        if !can_be_stored(name) {
            return Ok(None);
        }
        let mut reader = self.read(org).await?;
        Statement::new("find the credential", FIND)
            .id(org)
            .text(provider.as_str())
            .text(name)
            .optional(&mut reader, credential)
            .await
    }

    async fn list_credentials(&self, org: OrgId) -> Result<Vec<StoredCredential>, StoreError> {
        let mut reader = self.read(org).await?;
        let all = Statement::new("list credentials", LIST)
            .id(org)
            .all(&mut reader, |row| {
                // This release has no use for one of a provider that only a newer one knows.
                let known: Option<Provider> = row.table("org_credentials").known_opt("provider")?;
                known.map(|_| credential(row)).transpose()
            })
            .await?;
        Ok(all.into_iter().flatten().collect())
    }

    async fn save_credential(&self, new: NewCredential, audit: AuditEntry) -> Result<StoredCredential, StoreError> {
        self.configure(new.org, "save the credential", move |mut tx, version| {
            Box::pin(async move { save(&mut tx, version, &new, (None, true), &audit).await })
        })
        .await
    }

    async fn erase_credential(
        &self,
        org: OrgId,
        provider: Provider,
        name: &str,
        expects: Expects,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.configure_if(org, "erase the credential", move |mut tx, version| {
            Box::pin(async move {
                let is_erased = erase(&mut tx, version, (org, provider, &name), expects, &audit).await?;
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
        audit: Option<AuditEntry>,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "record a credential's health";
        self.configure_if(org, DOING, move |mut tx, changed_version| {
            Box::pin(async move {
                let recorded = Statement::new(DOING, RECORD_HEALTH)
                    .id(org)
                    .id(id)
                    .number(version)
                    .text(health.state.as_str())
                    .text_opt(health.cause.as_deref())
                    .text_opt(health.error.as_ref().map(CredentialError::to_text).as_deref())
                    .text_opt(health.missing.as_deref())
                    .time_opt(health.checked_at)
                    .time_opt(health.first_failed_at)
                    .time_opt(verified_at)
                    .time(tx.now)
                    .number(changed_version)
                    .execute(&mut tx)
                    .await?;
                if let Some(audit) = audit.filter(|_| recorded == 1) {
                    audit::insert(&mut tx, org, &audit).await?;
                }
                Ok((recorded == 1, recorded == 1))
            })
        })
        .await
    }

    async fn set_rotation(
        &self,
        org: OrgId,
        provider: Provider,
        rotate_after_days: u32,
        audit: AuditEntry,
    ) -> Result<Option<u32>, StoreError> {
        const DOING: &str = "set when a secret is due to be rotated";
        self.write(org, DOING, move |mut tx| {
            Box::pin(async move {
                let before = Statement::new(DOING, FIND_ROTATION)
                    .id(org)
                    .text(provider.as_str())
                    .optional(&mut tx, |row| row.table("org_credentials").number("rotate_after_days"))
                    .await?;
                let Some(before) = before else { return Ok(None) };
                Statement::new(DOING, SET_ROTATION)
                    .id(org)
                    .text(provider.as_str())
                    .number(rotate_after_days)
                    .execute(&mut tx)
                    .await?;
                let audit = AuditEntry {
                    changes: Changes::default().value("rotate_after_days", before, rotate_after_days),
                    ..audit
                };
                audit::insert(&mut tx, org, &audit).await?;
                Ok(Some(before))
            })
        })
        .await
    }

    async fn count_rotations_due(&self) -> Result<Vec<(Provider, u64)>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("count secrets that are due to be rotated", COUNT_ROTATIONS_DUE)
            .time(self.clock().now())
            .number(ROTATION_COUNT_MAX)
            .readable(&mut reader, |row| {
                let row = row.table("org_credentials");
                Ok((row.parse("provider")?, row.number("count")?))
            })
            .await
    }

    async fn load_changed_orgs(&self, version: i64) -> Result<ChangedOrgs, StoreError> {
        const DOING: &str = "load the organisations whose credentials changed";
        let mut reader = self.read_moment(Access::ALL_ORGS).await?;
        // The first read fixes what the whole transaction sees.
        let current = Statement::new(DOING, READ_VERSION)
            .one(&mut reader, |row| row.table("config_version").number("version"))
            .await?;
        let orgs = Statement::new(DOING, CHANGED_ORGS)
            .number(version)
            .all(&mut reader, |row| row.table("org_credentials").id("org_id"))
            .await?;
        reader.end(DOING).await?;
        Ok(ChangedOrgs { version: current, orgs })
    }

    async fn stamp_credentials(&self, org: OrgId) -> Result<(), StoreError> {
        const DOING: &str = "stamp the credentials";
        self.configure(org, DOING, move |mut tx, version| {
            Box::pin(async move {
                Statement::new(DOING, STAMP)
                    .id(org)
                    .number(version)
                    .execute(&mut tx)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    async fn touch_credential(&self, org: OrgId, id: CredentialId, used_at: Timestamp) -> Result<(), StoreError> {
        const DOING: &str = "note a credential's use";
        self.write(Access::org(org).in_bulk(), DOING, move |mut tx| {
            Box::pin(async move {
                Statement::new(DOING, TOUCH)
                    .id(org)
                    .id(id)
                    .time(used_at)
                    .time(used_at - TOUCH_PERIOD)
                    .execute(&mut tx)
                    .await
                    .map(drop)
            })
        })
        .await
    }
}
