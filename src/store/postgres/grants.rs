//! Connections, refreshes and consents in Postgres. A lease is a row: nothing is held while a
//! provider is asked.

use super::{
    PostgresStore, Scope, StoreError,
    credentials::{credential, credential_columns, erase, park, resume, save},
    endpoints::replace,
    failed,
    rows::Fields,
};
use crate::{
    domain::{CredentialId, OrgId, Provider, SealedBytes, Timestamp},
    store::{audit::AuditEntry, credentials::StoredCredential, grants::*},
};
use async_trait::async_trait;
use sqlx::{PgConnection, postgres::PgRow};
use std::time::Duration;
use uuid::Uuid;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    TAKE_LEASE,
    RELEASE_LEASE,
    HOLDS_LEASE,
    REFRESHES_DUE,
    READ,
    RECORD,
    MARK_CHANGED,
    INSERT_CONSENT,
    DROP_ENDED,
    DROP_OLDEST,
    TAKE_CONSENT,
];

/// Taken where nobody has it or where it has ended; its fence counts up in both cases.
const TAKE_LEASE: &str = "INSERT INTO leases (org_id, name, fence, lease_until) VALUES ($1, $2, 1, $3) \
    ON CONFLICT (org_id, name) DO UPDATE SET fence = leases.fence + 1, lease_until = excluded.lease_until WHERE \
    leases.lease_until <= $4 RETURNING fence";
const RELEASE_LEASE: &str = "UPDATE leases SET lease_until = 0 WHERE org_id = $1 AND name = $2 AND fence = $3";
/// One that has ended and that nobody took since still holds: its fence is the newest.
const HOLDS_LEASE: &str = "SELECT count(*) FROM leases WHERE org_id = $1 AND name = $2 AND fence = $3";

/// Over all organisations: the refresher works for each.
const REFRESHES_DUE: &str = "SELECT org_id, provider, id FROM org_credentials WHERE refresh_at IS NOT NULL AND \
    refresh_at <= $1 AND is_active = true \
    ORDER BY refresh_at LIMIT $2";
const READ: &str = concat!(
    "SELECT ",
    credential_columns!(),
    " FROM org_credentials WHERE org_id = $1 AND id = $2 AND version = $3 AND is_active = true"
);
const RECORD: &str = concat!(
    "UPDATE org_credentials SET sealed = coalesce($4, sealed), version = version + CASE WHEN $4 IS NULL THEN 0 ELSE 1 \
    END, state = $5, cause = $6, error = $7, missing = $8, \
     checked_at = $9, first_failed_at = $10, last_verified_at = CASE WHEN $4 IS NULL THEN last_verified_at ELSE $9 \
     END, refresh_at = $11, \
     failing_version = CASE WHEN $5 IN ('failing', 'needs_reconnecting') THEN version END, updated_at = $9 \
     WHERE org_id = $1 AND id = $2 AND version = $3 AND is_active = true RETURNING ",
    credential_columns!()
);
const MARK_CHANGED: &str = "UPDATE org_credentials SET changed_version = $3 WHERE org_id = $1 AND id = $2";

const INSERT_CONSENT: &str = "INSERT INTO oauth_consents (id, org_id, provider, subject, verifier, return_to, \
    may_replace, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const DROP_ENDED: &str = "DELETE FROM oauth_consents WHERE org_id = $1 AND expires_at <= $2";
const DROP_OLDEST: &str = "DELETE FROM oauth_consents WHERE org_id = $1 AND id IN (SELECT id FROM oauth_consents WHERE \
    org_id = $1 ORDER BY expires_at DESC LIMIT ALL OFFSET $2)";
/// The id is random and signed: whoever shows it learns whose it is, and nobody can show it twice.
const TAKE_CONSENT: &str = "DELETE FROM oauth_consents WHERE id = $1 RETURNING id, org_id, provider, subject, \
    verifier, return_to, may_replace, expires_at";

fn due(row: &PgRow) -> Result<RefreshDue, StoreError> {
    let row = Fields::of(row, "org_credentials");
    Ok(RefreshDue {
        org: row.id("org_id", OrgId::from_uuid)?,
        provider: row.parse("provider", |text| text.parse().ok())?,
        id: row.id("id", CredentialId::from_uuid)?,
    })
}

fn consent(row: &PgRow) -> Result<Consent, StoreError> {
    let row = Fields::of(row, "oauth_consents");
    Ok(Consent {
        id: row.id("id", |id| id)?,
        org: row.id("org_id", OrgId::from_uuid)?,
        provider: row.parse("provider", |text| text.parse().ok())?,
        subject: row.get("subject")?,
        verifier: SealedBytes(row.get("verifier")?),
        return_to: row.get("return_to")?,
        may_replace: row.get("may_replace")?,
        expires_at: row.time("expires_at")?,
    })
}

/// Whether a lease is still its holder's, within the transaction that writes under it.
pub(super) async fn holds(connection: &mut PgConnection, lease: &Lease) -> Result<bool, StoreError> {
    let held = sqlx::query_scalar(HOLDS_LEASE)
        .bind(*lease.org.as_uuid())
        .bind(lease.name.as_str())
        .bind(lease.fence);
    let held: i64 = held.fetch_one(connection).await.map_err(failed("look at the lease"))?;
    Ok(held == 1)
}

async fn release(connection: &mut PgConnection, lease: &Lease) -> Result<(), StoreError> {
    let release = sqlx::query(RELEASE_LEASE)
        .bind(*lease.org.as_uuid())
        .bind(lease.name.as_str())
        .bind(lease.fence);
    release
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed("release the lease"))
}

#[async_trait]
impl Grants for PostgresStore {
    async fn save_integration(&self, new: IntegrationChange) -> Result<StoredCredential, StoreError> {
        let now = self.now();
        self.configure(
            new.credential.org,
            "connect the integration",
            move |connection, version| {
                Box::pin(async move {
                    if let Some(change) = &new.secrets {
                        replace(connection, version, now, new.credential.org, change).await?;
                    }
                    save(connection, version, now, &new.credential, new.refresh_at, &new.audit).await
                })
            },
        )
        .await
    }

    async fn erase_integration(
        &self,
        org: OrgId,
        provider: Provider,
        name: &str,
        secrets: Option<SecretsChange>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let (name, now) = (name.to_owned(), self.now());
        self.configure_if(org, "disconnect the integration", move |connection, version| {
            Box::pin(async move {
                if let Some(change) = &secrets {
                    replace(connection, version, now, org, change).await?;
                }
                let is_erased = erase(connection, version, now, (org, provider, &name), &audit).await?;
                Ok((is_erased, is_erased || secrets.is_some()))
            })
        })
        .await
    }

    async fn take_lease(&self, org: OrgId, name: &str, length: Duration) -> Result<Option<Lease>, StoreError> {
        let (name, now) = (name.to_owned(), self.now());
        self.write(org, "take the lease", move |connection| {
            Box::pin(async move {
                let taken = sqlx::query_scalar(TAKE_LEASE)
                    .bind(*org.as_uuid())
                    .bind(name.as_str())
                    .bind((now + length).as_micros())
                    .bind(now.as_micros())
                    .fetch_optional(connection)
                    .await
                    .map_err(failed("take the lease"))?;
                Ok(taken.map(|fence| Lease { org, name, fence }))
            })
        })
        .await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.write(lease.org, "release the lease", move |connection| {
            Box::pin(async move { release(connection, &lease).await })
        })
        .await
    }

    async fn list_refreshes_due(&self, until: Timestamp, count_max: u32) -> Result<Vec<RefreshDue>, StoreError> {
        let mut reader = self.reader(Scope::Worker).await?;
        let rows = sqlx::query(REFRESHES_DUE)
            .bind(until.as_micros())
            .bind(i64::from(count_max))
            .fetch_all(&mut *reader)
            .await;
        rows.map_err(failed("list refreshes that are due"))?
            .iter()
            .map(due)
            .collect()
    }

    async fn record_refresh(&self, refresh: Refresh) -> Result<Option<i64>, StoreError> {
        const DOING: &str = "record the refresh";
        let now = self.now();
        self.configure_if(refresh.lease.org, DOING, move |connection, changed_version| {
            Box::pin(async move {
                let org = refresh.lease.org;
                if !holds(connection, &refresh.lease).await? {
                    return Ok((None, false));
                }
                release(connection, &refresh.lease).await?;
                let (org_id, id) = (*org.as_uuid(), *refresh.id.as_uuid());
                let before = sqlx::query(READ)
                    .bind(org_id)
                    .bind(id)
                    .bind(refresh.version)
                    .fetch_optional(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                let Some(before) = before.as_ref().map(credential).transpose()? else {
                    return Ok((None, false));
                };
                let health = &refresh.health;
                let row = sqlx::query(RECORD)
                    .bind(org_id)
                    .bind(id)
                    .bind(refresh.version)
                    .bind(refresh.sealed.as_ref().map(|sealed| &*sealed.0))
                    .bind(health.state.as_str())
                    .bind(health.cause.as_deref())
                    .bind(health.error.as_deref())
                    .bind(health.missing.as_deref())
                    .bind(now.as_micros())
                    .bind(health.first_failed_at.map(Timestamp::as_micros))
                    .bind(refresh.refresh_at.map(Timestamp::as_micros))
                    .fetch_one(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                let after = credential(&row)?;
                if refresh.sealed.is_some() {
                    resume(connection, &after, now).await?;
                } else if refresh.refresh_at.is_none() {
                    park(
                        connection,
                        (org, after.provider, &after.name),
                        "credential_refused",
                        now,
                    )
                    .await?;
                }
                let is_change = before.health.state != after.health.state;
                if is_change {
                    let mark = sqlx::query(MARK_CHANGED).bind(org_id).bind(id).bind(changed_version);
                    mark.execute(&mut *connection).await.map_err(failed(DOING))?;
                }
                Ok((Some(after.version), is_change))
            })
        })
        .await
    }

    async fn begin_consent(&self, new: Consent) -> Result<(), StoreError> {
        const DOING: &str = "keep the consent";
        let now = self.now();
        self.write(new.org, DOING, move |connection| {
            Box::pin(async move {
                let org = *new.org.as_uuid();
                sqlx::query(DROP_ENDED)
                    .bind(org)
                    .bind(now.as_micros())
                    .execute(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                sqlx::query(INSERT_CONSENT)
                    .bind(new.id)
                    .bind(org)
                    .bind(new.provider.as_str())
                    .bind(new.subject.as_str())
                    .bind(&*new.verifier.0)
                    .bind(new.return_to.as_deref())
                    .bind(new.may_replace)
                    .bind(new.expires_at.as_micros())
                    .execute(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                sqlx::query(DROP_OLDEST)
                    .bind(org)
                    .bind(i64::from(CONSENTS_PER_ORG_MAX))
                    .execute(connection)
                    .await
                    .map(drop)
                    .map_err(failed(DOING))
            })
        })
        .await
    }

    async fn take_consent(&self, id: Uuid) -> Result<Option<Consent>, StoreError> {
        let now = self.now();
        self.write(Scope::Worker, "take the consent", move |connection| {
            Box::pin(async move {
                let taken = sqlx::query(TAKE_CONSENT)
                    .bind(id)
                    .fetch_optional(connection)
                    .await
                    .map_err(failed("take the consent"))?;
                Ok(taken
                    .as_ref()
                    .map(consent)
                    .transpose()?
                    .filter(|consent| consent.expires_at > now))
            })
        })
        .await
    }
}
