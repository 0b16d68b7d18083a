//! Changes of integrations, refreshes and consents. A lease is a row, so that no transaction is
//! open during a request to a provider.

#[cfg(test)]
use super::Sql;
use super::{
    Access, Dialect, Row, SqlStore, Statement, Transaction,
    credentials::{credential, credential_columns, erase, park, resume, save},
    endpoints::replace,
};
use crate::{
    domain::{OrgId, Provider, SealedBytes, Timestamp},
    store::{
        StoreError,
        audit::AuditEntry,
        credentials::{CredentialError, Expects, StoredCredential},
        grants::*,
    },
};
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(TAKE_LEASE),
    Sql::both(RELEASE_LEASE),
    Sql::both(HOLDS_LEASE),
    Sql::both(REFRESHES_DUE),
    Sql::both(READ),
    Sql::both(RECORD),
    Sql::both(MARK_CHANGED),
    Sql::both(INSERT_CONSENT),
    Sql::both(DROP_ENDED),
    Sql::both(DROP_OLDEST),
    Sql::both(TAKE_CONSENT),
];

/// Takes a lease that is free or has ended. Its fence counts up in both cases.
const TAKE_LEASE: &str = "
    INSERT INTO leases (org_id, name, fence, lease_until)
    VALUES ($1, $2, 1, $3)
    ON CONFLICT (org_id, name) DO UPDATE
    SET fence = leases.fence + 1, lease_until = excluded.lease_until
    WHERE leases.lease_until <= $4
    RETURNING fence";
const RELEASE_LEASE: &str = "
    UPDATE leases
    SET lease_until = 0
    WHERE org_id = $1 AND name = $2 AND fence = $3";
/// A lease that has ended still holds while no other process took it, because its fence is the
/// newest.
const HOLDS_LEASE: &str = "
    SELECT count(*) AS count FROM leases
    WHERE org_id = $1 AND name = $2 AND fence = $3";

/// Over all organisations: the refresher works for each.
const REFRESHES_DUE: &str = "
    SELECT org_id, provider, id FROM org_credentials
    WHERE refresh_at IS NOT NULL AND refresh_at <= $1 AND is_active = true
    ORDER BY refresh_at
    LIMIT $2";
const READ: &str = concat!(
    "SELECT ",
    credential_columns!(),
    "
    FROM org_credentials
    WHERE org_id = $1 AND id = $2 AND version = $3 AND is_active = true"
);
const RECORD: &str = concat!(
    "
    UPDATE org_credentials
    SET sealed = coalesce($4, sealed), version = version + CASE WHEN $4 IS NULL THEN 0 ELSE 1 END,
        state = $5, cause = $6, error = $7, missing = $8, checked_at = $9, first_failed_at = $10,
        last_verified_at = CASE WHEN $4 IS NULL THEN last_verified_at ELSE $9 END, refresh_at = $11,
        failing_version = CASE WHEN $5 IN ('failing', 'needs_reconnecting') THEN version END, updated_at = $9
    WHERE org_id = $1 AND id = $2 AND version = $3 AND is_active = true
    RETURNING ",
    credential_columns!()
);
const MARK_CHANGED: &str = "
    UPDATE org_credentials
    SET changed_version = $3
    WHERE org_id = $1 AND id = $2";

const INSERT_CONSENT: &str = "
    INSERT INTO oauth_consents (id, org_id, provider, subject, verifier, return_to, may_replace, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const DROP_ENDED: &str = "
    DELETE FROM oauth_consents
    WHERE org_id = $1 AND expires_at <= $2";
const DROP_OLDEST: &str = "
    DELETE FROM oauth_consents
    WHERE org_id = $1 AND id NOT IN (
        SELECT id FROM oauth_consents
        WHERE org_id = $1
        ORDER BY expires_at DESC
        LIMIT $2)";
/// The id is random and signed, and names the organisation. The first use deletes it, so it works
/// once.
const TAKE_CONSENT: &str = "
    DELETE FROM oauth_consents
    WHERE id = $1
    RETURNING id, org_id, provider, subject, verifier, return_to, may_replace, expires_at";

fn due<D: Dialect>(row: Row<'_, D>) -> Result<RefreshDue, StoreError> {
    let row = row.table("org_credentials");
    Ok(RefreshDue {
        org: row.id("org_id")?,
        provider: row.parse("provider")?,
        id: row.id("id")?,
    })
}

fn consent<D: Dialect>(row: Row<'_, D>) -> Result<Consent, StoreError> {
    let row = row.table("oauth_consents");
    Ok(Consent {
        id: row.id("id")?,
        org: row.id("org_id")?,
        provider: row.parse("provider")?,
        subject: row.string("subject")?,
        verifier: SealedBytes(row.bytes("verifier")?.into()),
        return_to: row.string_opt("return_to")?,
        may_replace: row.flag("may_replace")?,
        expires_at: row.time("expires_at")?,
    })
}

/// Whether a lease is still its holder's, within the transaction that writes under it.
pub async fn holds<D: Dialect>(tx: &mut Transaction<'_, D>, lease: &Lease) -> Result<bool, StoreError> {
    let held: i64 = Statement::new("look at the lease", HOLDS_LEASE)
        .id(lease.org)
        .text(&lease.name)
        .number(lease.fence)
        .one(tx, |row| row.table("leases").number("count"))
        .await?;
    Ok(held == 1)
}

async fn release<D: Dialect>(tx: &mut Transaction<'_, D>, lease: &Lease) -> Result<(), StoreError> {
    Statement::new("release the lease", RELEASE_LEASE)
        .id(lease.org)
        .text(&lease.name)
        .number(lease.fence)
        .execute(tx)
        .await
        .map(drop)
}

/// Writes a refresh whose lease is held. Returns the version that stands now, or `None` where
/// another version stands, and whether the configuration changed.
async fn record<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    changed_version: i64,
    refresh: &Refresh,
) -> Result<(Option<i64>, bool), StoreError> {
    const DOING: &str = "record the refresh";
    let (org, health) = (refresh.lease.org, &refresh.health);
    let before = Statement::new(DOING, READ)
        .id(org)
        .id(refresh.id)
        .number(refresh.version)
        .optional(tx, credential)
        .await?;
    let Some(before) = before else {
        return Ok((None, false));
    };
    let after = Statement::new(DOING, RECORD)
        .id(org)
        .id(refresh.id)
        .number(refresh.version)
        .bytes_opt(refresh.sealed.as_ref().map(|sealed| &*sealed.0))
        .text(health.state.as_str())
        .text_opt(health.cause.as_deref())
        .text_opt(health.error.as_ref().map(CredentialError::to_text).as_deref())
        .text_opt(health.missing.as_deref())
        .time(tx.now)
        .time_opt(health.first_failed_at)
        .time_opt(refresh.refresh_at)
        .one(tx, credential)
        .await?;
    if refresh.sealed.is_some() {
        resume(tx, &after).await?;
    } else if refresh.refresh_at.is_none() {
        park(tx, (org, after.provider, &after.name), "credential_refused").await?;
    }
    let is_change = before.health.state != after.health.state;
    if is_change {
        Statement::new(DOING, MARK_CHANGED)
            .id(org)
            .id(refresh.id)
            .number(changed_version)
            .execute(tx)
            .await?;
    }
    Ok((Some(after.version), is_change))
}

#[async_trait]
impl<S: SqlStore> Grants for S {
    async fn save_integration(&self, new: IntegrationChange) -> Result<StoredCredential, StoreError> {
        let org = new.credential.org;
        self.configure(org, "save the integration", move |mut tx, version| {
            Box::pin(async move {
                if let Some(change) = &new.secrets {
                    replace(&mut tx, version, org, change).await?;
                }
                let extra = (new.refresh_at, new.is_new_secret);
                save(&mut tx, version, &new.credential, extra, &new.audit).await
            })
        })
        .await
    }

    async fn erase_integration(
        &self,
        org: OrgId,
        provider: Provider,
        name: &str,
        expects: Expects,
        secrets: Option<SecretsChange>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.configure_if(org, "erase the integration", move |mut tx, version| {
            Box::pin(async move {
                if let Some(change) = &secrets {
                    replace(&mut tx, version, org, change).await?;
                }
                let is_erased = erase(&mut tx, version, (org, provider, &name), expects, &audit).await?;
                Ok((is_erased, is_erased || secrets.is_some()))
            })
        })
        .await
    }

    async fn take_lease(&self, org: OrgId, name: &str, length: Duration) -> Result<Option<Lease>, StoreError> {
        const DOING: &str = "take the lease";
        let name = name.to_owned();
        self.write(org, DOING, move |mut tx| {
            Box::pin(async move {
                let fence = Statement::new(DOING, TAKE_LEASE)
                    .id(org)
                    .text(&name)
                    .time(tx.now + length)
                    .time(tx.now)
                    .optional(&mut tx, |row| row.table("leases").number("fence"))
                    .await?;
                Ok(fence.map(|fence| Lease { org, name, fence }))
            })
        })
        .await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.write(lease.org, "release the lease", move |mut tx| {
            Box::pin(async move { release(&mut tx, &lease).await })
        })
        .await
    }

    async fn list_refreshes_due(&self, until: Timestamp, count_max: u32) -> Result<Vec<RefreshDue>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("list refreshes that are due", REFRESHES_DUE)
            .time(until)
            .number(count_max)
            .readable(&mut reader, due)
            .await
    }

    async fn record_refresh(&self, refresh: Refresh) -> Result<Option<i64>, StoreError> {
        self.configure_if(refresh.lease.org, "record the refresh", move |mut tx, version| {
            Box::pin(async move {
                if !holds(&mut tx, &refresh.lease).await? {
                    return Ok((None, false));
                }
                release(&mut tx, &refresh.lease).await?;
                record(&mut tx, version, &refresh).await
            })
        })
        .await
    }

    async fn begin_consent(&self, new: Consent) -> Result<(), StoreError> {
        const DOING: &str = "keep the consent";
        self.write(new.org, DOING, move |mut tx| {
            Box::pin(async move {
                Statement::new(DOING, DROP_ENDED)
                    .id(new.org)
                    .time(tx.now)
                    .execute(&mut tx)
                    .await?;
                Statement::new(DOING, INSERT_CONSENT)
                    .id(new.id)
                    .id(new.org)
                    .text(new.provider.as_str())
                    .text(&new.subject)
                    .bytes(&new.verifier.0)
                    .text_opt(new.return_to.as_deref())
                    .flag(new.may_replace)
                    .time(new.expires_at)
                    .execute(&mut tx)
                    .await?;
                Statement::new(DOING, DROP_OLDEST)
                    .id(new.org)
                    .number(CONSENTS_PER_ORG_MAX)
                    .execute(&mut tx)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    async fn take_consent(&self, id: Uuid) -> Result<Option<Consent>, StoreError> {
        const DOING: &str = "take the consent";
        self.write(Access::ALL_ORGS, DOING, move |mut tx| {
            Box::pin(async move {
                let taken = Statement::new(DOING, TAKE_CONSENT)
                    .id(id)
                    .optional(&mut tx, consent)
                    .await?;
                Ok(taken.filter(|consent| consent.expires_at > tx.now))
            })
        })
        .await
    }
}
