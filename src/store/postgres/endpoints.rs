//! Endpoints and signing secrets in Postgres. What is deleted or has ended keeps its row without
//! ciphertext, so that a refresh by version takes it out of memory.

use super::{PostgresStore, StoreError, audit, failed, rows::Fields};
use crate::{
    domain::{Endpoint, EndpointId, OrgId, SecretId, Source, Timestamp},
    store::{audit::AuditEntry, endpoints::*, grants::SecretsChange},
};
use async_trait::async_trait;
use sqlx::{PgConnection, postgres::PgRow};
use uuid::Uuid;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    INSERT,
    FIND,
    LIST,
    DELETE,
    ERASE_OF_ENDPOINT,
    IS_THERE,
    INSERT_SECRET,
    LIST_SECRETS,
    COUNT_SECRETS,
    END_SECRETS,
    ERASE_ENDED,
    ERASE_SECRETS,
];

const INSERT: &str = "INSERT INTO endpoints (id, org_id, source, name, ignored_types, is_active, version, created_at, \
    updated_at, changed_version) \
    VALUES ($1, $2, $3, $4, $5, true, 1, $6, $6, $7)";
const FIND: &str = "SELECT id, org_id, source, name, ignored_types, is_active, version, created_at FROM endpoints \
    WHERE org_id = $1 AND id = $2 AND is_active = true";
const LIST: &str = "SELECT id, org_id, source, name, ignored_types, is_active, version, created_at FROM endpoints \
    WHERE org_id = $1 AND id > $2 AND is_active = true ORDER BY id LIMIT $3";
const DELETE: &str = "UPDATE endpoints SET is_active = false, version = version + 1, updated_at = $3, changed_version \
    = $4 \
    WHERE org_id = $1 AND id = $2 AND is_active = true RETURNING source";
const ERASE_OF_ENDPOINT: &str = "UPDATE endpoint_secrets SET is_active = false, sealed = NULL, last_four = NULL, \
    changed_version = $4 \
    WHERE org_id = $1 AND source = $2 AND endpoint_id = $3 AND is_active = true";
const IS_THERE: &str =
    "SELECT count(*) FROM endpoints WHERE org_id = $1 AND id = $2 AND source = $3 AND is_active = true";

const INSERT_SECRET: &str = "INSERT INTO endpoint_secrets (id, org_id, endpoint_id, source, plan, sealed, last_four, \
    is_active, created_at, changed_version) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, true, $8, $9)";
const LIST_SECRETS: &str = "SELECT id, org_id, endpoint_id, source, plan, last_four, not_after, created_at FROM \
    endpoint_secrets \
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true AND (not_after IS \
    NULL OR not_after > $4) ORDER BY created_at DESC, id DESC";
const COUNT_SECRETS: &str = "SELECT count(*) FROM endpoint_secrets \
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true AND (not_after IS \
    NULL OR not_after > $4)";
/// Never lengthens: one that ends earlier already keeps its end.
const END_SECRETS: &str = "UPDATE endpoint_secrets SET not_after = $4, changed_version = $5 \
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true AND (not_after IS \
    NULL OR not_after > $4)";
const ERASE_ENDED: &str = "UPDATE endpoint_secrets SET is_active = false, sealed = NULL, last_four = NULL, \
    changed_version = $5 \
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true AND not_after <= $4";
const ERASE_SECRETS: &str = "UPDATE endpoint_secrets SET is_active = false, sealed = NULL, last_four = NULL, \
    changed_version = $4 \
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true";

fn endpoint(row: &PgRow) -> Result<Endpoint, StoreError> {
    let row = Fields::of(row, "endpoints");
    Ok(Endpoint {
        id: row.id("id", EndpointId::from_uuid)?,
        org: row.id("org_id", OrgId::from_uuid)?,
        source: row.parse("source", |text| text.parse().ok())?,
        name: row.get("name")?,
        is_active: row.get("is_active")?,
        ignored_types: row.json("ignored_types")?,
        version: row.get("version")?,
        created_at: row.time("created_at")?,
    })
}

fn secret(row: &PgRow) -> Result<StoredSecret, StoreError> {
    let row = Fields::of(row, "endpoint_secrets");
    Ok(StoredSecret {
        id: row.id("id", SecretId::from_uuid)?,
        org: row.id("org_id", OrgId::from_uuid)?,
        endpoint: row.id_opt("endpoint_id", EndpointId::from_uuid)?,
        source: row.parse("source", |text| text.parse().ok())?,
        plan: row.get("plan")?,
        last_four: row.get("last_four")?,
        not_after: row.time_opt("not_after")?,
        created_at: row.time("created_at")?,
    })
}

/// Whose secrets: an endpoint's, or the organisation's own for a source.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner {
    org: OrgId,
    source: Source,
    endpoint: Option<EndpointId>,
}

impl Owner {
    const fn of(secret: &NewSecret) -> Self {
        Self {
            org: secret.org,
            source: secret.source,
            endpoint: secret.endpoint,
        }
    }

    /// Runs one of the statements that begin with the owner's three columns.
    async fn execute(
        &self,
        connection: &mut PgConnection,
        statement: &'static str,
        values: &[i64],
    ) -> Result<(), StoreError> {
        let mut query = sqlx::query(statement)
            .bind(*self.org.as_uuid())
            .bind(self.source.as_str());
        query = query.bind(self.endpoint.map(|id| *id.as_uuid()));
        for value in values {
            query = query.bind(*value);
        }
        query.execute(connection).await.map(drop).map_err(failed("end secrets"))
    }
}

/// Adds one, within the limit of valid ones.
async fn insert_secret(
    connection: &mut PgConnection,
    owner: Owner,
    new: &NewSecret,
    now: Timestamp,
    version: i64,
) -> Result<(), StoreError> {
    const DOING: &str = "write the secret";
    if Owner::of(new) != owner {
        return Err(StoreError::Data {
            doing: DOING,
            reason: "the secret names another owner".into(),
        });
    }
    let endpoint = owner.endpoint.map(|id| *id.as_uuid());
    sqlx::query(INSERT_SECRET)
        .bind(*new.id.as_uuid())
        .bind(*owner.org.as_uuid())
        .bind(endpoint)
        .bind(owner.source.as_str())
        .bind(new.plan.as_str())
        .bind(&*new.sealed.0)
        .bind(new.last_four.as_deref())
        .bind(now.as_micros())
        .bind(version)
        .execute(&mut *connection)
        .await
        .map_err(failed(DOING))?;
    let count = sqlx::query_scalar(COUNT_SECRETS)
        .bind(*owner.org.as_uuid())
        .bind(owner.source.as_str())
        .bind(endpoint)
        .bind(now.as_micros());
    let valid: i64 = count.fetch_one(connection).await.map_err(failed(DOING))?;
    if valid > i64::from(SECRETS_PER_OWNER_MAX) {
        return Err(StoreError::Conflict {
            what: "the limit of valid secrets of one owner",
        });
    }
    Ok(())
}

/// Replaces the organisation's own secrets of a source within a transaction.
pub(super) async fn replace(
    connection: &mut PgConnection,
    version: i64,
    now: Timestamp,
    org: OrgId,
    change: &SecretsChange,
) -> Result<(), StoreError> {
    let owner = Owner {
        org,
        source: change.source,
        endpoint: None,
    };
    match change.others_not_after.filter(|_| !change.secrets.is_empty()) {
        Some(end) => {
            owner
                .execute(connection, END_SECRETS, &[end.as_micros(), version])
                .await?;
            owner
                .execute(connection, ERASE_ENDED, &[now.as_micros(), version])
                .await?;
        }
        None => owner.execute(connection, ERASE_SECRETS, &[version]).await?,
    }
    for new in &change.secrets {
        insert_secret(connection, owner, new, now, version).await?;
    }
    audit::insert(connection, org, &change.audit).await
}

#[async_trait]
impl Endpoints for PostgresStore {
    async fn create_endpoint(
        &self,
        endpoint: Endpoint,
        secrets: Vec<NewSecret>,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        const DOING: &str = "create the endpoint";
        let ignored = serde_json::to_string(&endpoint.ignored_types).map_err(|_| StoreError::Data {
            doing: DOING,
            reason: "the types are not JSON".into(),
        })?;
        let now = self.now();
        self.configure(endpoint.org, DOING, move |connection, version| {
            Box::pin(async move {
                sqlx::query(INSERT)
                    .bind(*endpoint.id.as_uuid())
                    .bind(*endpoint.org.as_uuid())
                    .bind(endpoint.source.as_str())
                    .bind(endpoint.name.as_str())
                    .bind(ignored)
                    .bind(endpoint.created_at.as_micros())
                    .bind(version)
                    .execute(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                let owner = Owner {
                    org: endpoint.org,
                    source: endpoint.source,
                    endpoint: Some(endpoint.id),
                };
                for new in &secrets {
                    insert_secret(connection, owner, new, now, version).await?;
                }
                audit::insert(connection, endpoint.org, &audit).await
            })
        })
        .await
    }

    async fn find_endpoint(&self, org: OrgId, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        let mut reader = self.reader(org).await?;
        let found = sqlx::query(FIND)
            .bind(*org.as_uuid())
            .bind(*id.as_uuid())
            .fetch_optional(&mut *reader);
        found
            .await
            .map_err(failed("find the endpoint"))?
            .as_ref()
            .map(endpoint)
            .transpose()
    }

    async fn list_endpoints(
        &self,
        org: OrgId,
        after: Option<EndpointId>,
        count_max: u32,
    ) -> Result<Vec<Endpoint>, StoreError> {
        let mut reader = self.reader(org).await?;
        sqlx::query(LIST)
            .bind(*org.as_uuid())
            .bind(after.map_or(Uuid::nil(), |id| *id.as_uuid()))
            .bind(i64::from(count_max))
            .fetch_all(&mut *reader)
            .await
            .map_err(failed("list endpoints"))?
            .iter()
            .map(endpoint)
            .collect()
    }

    async fn delete_endpoint(&self, org: OrgId, id: EndpointId, audit: AuditEntry) -> Result<bool, StoreError> {
        const DOING: &str = "delete the endpoint";
        let now = self.now();
        self.configure_if(org, DOING, move |connection, version| {
            Box::pin(async move {
                let deleted: Option<String> = sqlx::query_scalar(DELETE)
                    .bind(*org.as_uuid())
                    .bind(*id.as_uuid())
                    .bind(now.as_micros())
                    .bind(version)
                    .fetch_optional(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                let Some(source) = deleted else {
                    return Ok((false, false));
                };
                let erase = sqlx::query(ERASE_OF_ENDPOINT)
                    .bind(*org.as_uuid())
                    .bind(source)
                    .bind(*id.as_uuid())
                    .bind(version);
                erase
                    .execute(&mut *connection)
                    .await
                    .map_err(failed("erase the endpoint's secrets"))?;
                audit::insert(connection, org, &audit).await?;
                Ok((true, true))
            })
        })
        .await
    }

    async fn add_secret(
        &self,
        new: NewSecret,
        others_not_after: Option<Timestamp>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let now = self.now();
        self.configure_if(new.org, "add the secret", move |connection, version| {
            Box::pin(async move {
                let owner = Owner::of(&new);
                if let Some(endpoint) = &owner.endpoint {
                    let count = sqlx::query_scalar(IS_THERE)
                        .bind(*owner.org.as_uuid())
                        .bind(*endpoint.as_uuid())
                        .bind(owner.source.as_str());
                    let count: i64 = count
                        .fetch_one(&mut *connection)
                        .await
                        .map_err(failed("find the endpoint"))?;
                    if count == 0 {
                        return Ok((false, false));
                    }
                }
                if let Some(end) = others_not_after {
                    owner
                        .execute(connection, END_SECRETS, &[end.as_micros(), version])
                        .await?;
                }
                owner
                    .execute(connection, ERASE_ENDED, &[now.as_micros(), version])
                    .await?;
                insert_secret(connection, owner, &new, now, version).await?;
                audit::insert(connection, owner.org, &audit).await?;
                Ok((true, true))
            })
        })
        .await
    }

    async fn replace_org_secrets(
        &self,
        org: OrgId,
        source: Source,
        secrets: Vec<NewSecret>,
        others_not_after: Option<Timestamp>,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        let now = self.now();
        self.configure(org, "replace the organisation's secrets", move |connection, version| {
            Box::pin(async move {
                let change = SecretsChange {
                    source,
                    secrets,
                    others_not_after,
                    audit,
                };
                replace(connection, version, now, org, &change).await
            })
        })
        .await
    }

    async fn list_secrets(
        &self,
        org: OrgId,
        source: Source,
        endpoint: Option<EndpointId>,
    ) -> Result<Vec<StoredSecret>, StoreError> {
        let mut reader = self.reader(org).await?;
        sqlx::query(LIST_SECRETS)
            .bind(*org.as_uuid())
            .bind(source.as_str())
            .bind(endpoint.map(|id| *id.as_uuid()))
            .bind(self.now().as_micros())
            .fetch_all(&mut *reader)
            .await
            .map_err(failed("list secrets"))?
            .iter()
            .map(secret)
            .collect()
    }
}
