//! Endpoints and signing secrets. A deleted or ended one keeps its row without ciphertext, so that
//! a refresh by version takes it out of memory.

#[cfg(test)]
use super::Sql;
use super::{Access, Dialect, Row, SqlStore, Statement, Transaction, audit};
use crate::{
    domain::{Endpoint, EndpointId, OrgId, Source, Timestamp},
    store::{StoreError, audit::AuditEntry, endpoints::*, grants::SecretsChange},
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(INSERT),
    Sql::both(FIND),
    Sql::both(LIST),
    Sql::both(UPDATE),
    Sql::both(DELETE),
    Sql::both(ERASE_OF_ENDPOINT),
    Sql::both(ROTATED),
    Sql::both(INSERT_SECRET),
    Sql::both(LIST_SECRETS),
    Sql::both(LIST_ENDPOINT_SECRETS),
    Sql::both(RECORD_USE),
    Sql::both(COUNT_SECRETS),
    Sql::both(END_SECRETS),
    Sql::both(ERASE_ENDED),
    Sql::both(ERASE_OLDEST_FORMER),
    Sql::both(ERASE_SECRETS),
];

const INSERT: &str = "
    INSERT INTO endpoints
        (id, org_id, source, name, ignored_types, is_active, version, created_at, updated_at, changed_version)
    VALUES ($1, $2, $3, $4, $5, true, 1, $6, $6, $7)";
const FIND: &str = "
    SELECT id, org_id, source, name, ignored_types, is_active, version, created_at
    FROM endpoints
    WHERE org_id = $1 AND id = $2 AND is_active = true";
const LIST: &str = "
    SELECT id, org_id, source, name, ignored_types, is_active, version, created_at
    FROM endpoints
    WHERE org_id = $1 AND id > $2 AND is_active = true
    ORDER BY id
    LIMIT $3";
const UPDATE: &str = "
    UPDATE endpoints
    SET name = $4, ignored_types = $5, version = version + 1, updated_at = $6, changed_version = $7
    WHERE org_id = $1 AND id = $2 AND version = $3 AND is_active = true";
const DELETE: &str = "
    UPDATE endpoints
    SET is_active = false, version = version + 1, updated_at = $3, changed_version = $4
    WHERE org_id = $1 AND id = $2 AND is_active = true AND version = coalesce($5, version)
    RETURNING source";
const ERASE_OF_ENDPOINT: &str = "
    UPDATE endpoint_secrets
    SET is_active = false, sealed = NULL, last_four = NULL, changed_version = $4
    WHERE org_id = $1 AND source = $2 AND endpoint_id = $3 AND is_active = true";
/// A rotation is a change of the endpoint: who has read it before does not know its secrets.
const ROTATED: &str = "
    UPDATE endpoints
    SET version = version + 1, updated_at = $4, changed_version = $5
    WHERE org_id = $1 AND id = $2 AND source = $3 AND is_active = true AND version = coalesce($6, version)";

const INSERT_SECRET: &str = "
    INSERT INTO endpoint_secrets
        (id, org_id, endpoint_id, source, plan, sealed, last_four, is_active, created_at, changed_version)
    VALUES ($1, $2, $3, $4, $5, $6, $7, true, $8, $9)";
const LIST_SECRETS: &str = "
    SELECT id, org_id, endpoint_id, source, plan, last_four, not_after, last_used_at, created_at
    FROM endpoint_secrets
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true
    AND (not_after IS NULL OR not_after > $4)
    ORDER BY created_at DESC, id DESC";
const LIST_ENDPOINT_SECRETS: &str = "
    SELECT id, org_id, endpoint_id, source, plan, last_four, not_after, last_used_at, created_at
    FROM endpoint_secrets
    WHERE org_id = $1 AND endpoint_id IS NOT NULL AND is_active = true AND (not_after IS NULL OR not_after > $2)
    ORDER BY created_at DESC, id DESC";
/// Leaves `changed_version` alone: nothing that is in memory has changed.
const RECORD_USE: &str = "
    UPDATE endpoint_secrets
    SET last_used_at = $3
    WHERE org_id = $1 AND id = $2 AND (last_used_at IS NULL OR last_used_at < $3)";
const COUNT_SECRETS: &str = "
    SELECT count(*) AS count FROM endpoint_secrets
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true
    AND (not_after IS NULL OR not_after > $4)";
/// Never moves an end to a later time.
const END_SECRETS: &str = "
    UPDATE endpoint_secrets
    SET not_after = $4, changed_version = $5
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true
    AND (not_after IS NULL OR not_after > $4)";
const ERASE_ENDED: &str = "
    UPDATE endpoint_secrets
    SET is_active = false, sealed = NULL, last_four = NULL, changed_version = $5
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true
    AND not_after <= $4";
/// Erases the former secret that was made first. One secret may be several rows, one a plan, made
/// at one time.
const ERASE_OLDEST_FORMER: &str = "
    UPDATE endpoint_secrets
    SET is_active = false, sealed = NULL, last_four = NULL, changed_version = $4
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true
    AND not_after IS NOT NULL
    AND created_at = (
        SELECT min(former.created_at) FROM endpoint_secrets AS former
        WHERE former.org_id = $1 AND former.source = $2 AND former.endpoint_id IS NOT DISTINCT FROM $3
        AND former.is_active = true AND former.not_after IS NOT NULL)";
const ERASE_SECRETS: &str = "
    UPDATE endpoint_secrets
    SET is_active = false, sealed = NULL, last_four = NULL, changed_version = $4
    WHERE org_id = $1 AND source = $2 AND endpoint_id IS NOT DISTINCT FROM $3 AND is_active = true";

fn endpoint<D: Dialect>(row: Row<'_, D>) -> Result<Endpoint, StoreError> {
    let row = row.table("endpoints");
    Ok(Endpoint {
        id: row.id("id")?,
        org: row.id("org_id")?,
        source: row.parse("source")?,
        name: row.string("name")?,
        is_active: row.flag("is_active")?,
        ignored_types: row.json("ignored_types")?,
        version: row.number("version")?,
        created_at: row.time("created_at")?,
    })
}

fn secret<D: Dialect>(row: Row<'_, D>) -> Result<StoredSecret, StoreError> {
    let row = row.table("endpoint_secrets");
    Ok(StoredSecret {
        id: row.id("id")?,
        org: row.id("org_id")?,
        endpoint: row.id_opt("endpoint_id")?,
        source: row.parse("source")?,
        plan: row.string("plan")?,
        last_four: row.string_opt("last_four")?,
        not_after: row.time_opt("not_after")?,
        last_used_at: row.time_opt("last_used_at")?,
        created_at: row.time("created_at")?,
    })
}

/// The owner of secrets: an endpoint, or the organisation itself for a source.
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

    /// A statement that begins with the owner's three columns.
    fn statement<D: Dialect>(self, doing: &'static str, sql: &'static str) -> Statement<D> {
        Statement::new(doing, sql)
            .id(self.org)
            .text(self.source.as_str())
            .id_opt(self.endpoint)
    }

    /// Ends the valid secrets at `end`, where they do not end earlier.
    async fn end<D: Dialect>(
        self,
        tx: &mut Transaction<'_, D>,
        version: i64,
        end: Timestamp,
    ) -> Result<(), StoreError> {
        self.statement("end secrets", END_SECRETS)
            .time(end)
            .number(version)
            .execute(tx)
            .await
            .map(drop)
    }

    /// Erases those that have ended.
    async fn erase_ended<D: Dialect>(self, tx: &mut Transaction<'_, D>, version: i64) -> Result<(), StoreError> {
        self.statement("erase secrets that have ended", ERASE_ENDED)
            .time(tx.now)
            .number(version)
            .execute(tx)
            .await
            .map(drop)
    }

    /// Adds one, within the limit of valid ones.
    async fn insert<D: Dialect>(
        self,
        tx: &mut Transaction<'_, D>,
        version: i64,
        new: &NewSecret,
    ) -> Result<(), StoreError> {
        const DOING: &str = "write the secret";
        if Self::of(new) != self {
            return Err(StoreError::Data {
                doing: DOING,
                reason: "the secret names another owner".into(),
            });
        }
        Statement::new(DOING, INSERT_SECRET)
            .id(new.id)
            .id(self.org)
            .id_opt(self.endpoint)
            .text(self.source.as_str())
            .text(&new.plan)
            .bytes(&new.sealed.0)
            .text_opt(new.last_four.as_deref())
            .time(tx.now)
            .number(version)
            .execute(tx)
            .await?;
        loop {
            let valid: u32 = self
                .statement(DOING, COUNT_SECRETS)
                .time(tx.now)
                .one(tx, |row| row.table("endpoint_secrets").number("count"))
                .await?;
            if valid <= SECRETS_PER_OWNER_MAX {
                return Ok(());
            }
            // Over the limit the oldest former secret ends early.
            let erased = self
                .statement("erase the oldest former secret", ERASE_OLDEST_FORMER)
                .number(version)
                .execute(tx)
                .await?;
            if erased == 0 {
                return Err(StoreError::Conflict {
                    what: "limit of valid secrets of one owner",
                });
            }
        }
    }
}

/// Replaces the organisation's own secrets of a source within a transaction.
pub async fn replace<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    version: i64,
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
            owner.end(tx, version, end).await?;
            owner.erase_ended(tx, version).await?;
        }
        None => {
            owner
                .statement("erase secrets", ERASE_SECRETS)
                .number(version)
                .execute(tx)
                .await?;
        }
    }
    for new in &change.secrets {
        owner.insert(tx, version, new).await?;
    }
    audit::insert(tx, org, &change.audit).await
}

/// What [`Endpoints::add_secrets`] writes.
struct Addition {
    secrets: Vec<NewSecret>,
    /// The version of the endpoint that the caller knows.
    version: Option<i64>,
    others_not_after: Option<Timestamp>,
    audit: AuditEntry,
}

/// Adds secrets beside the others. `false` where the endpoint is not there as the caller knows it.
async fn add<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    changed_version: i64,
    addition: &Addition,
) -> Result<bool, StoreError> {
    let Some(owner) = addition.secrets.first().map(Owner::of) else {
        return Ok(false);
    };
    if let Some(endpoint) = owner.endpoint {
        let rotated = Statement::new("count the endpoint's version up", ROTATED)
            .id(owner.org)
            .id(endpoint)
            .text(owner.source.as_str())
            .time(tx.now)
            .number(changed_version)
            .number_opt(addition.version)
            .execute(tx)
            .await?;
        if rotated == 0 {
            return Ok(false);
        }
    }
    if let Some(end) = addition.others_not_after {
        owner.end(tx, changed_version, end).await?;
    }
    owner.erase_ended(tx, changed_version).await?;
    for new in &addition.secrets {
        owner.insert(tx, changed_version, new).await?;
    }
    audit::insert(tx, owner.org, &addition.audit).await?;
    Ok(true)
}

#[async_trait]
impl<S: SqlStore> Endpoints for S {
    async fn create_endpoint(
        &self,
        endpoint: Endpoint,
        secrets: Vec<NewSecret>,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        const DOING: &str = "create the endpoint";
        self.configure(endpoint.org, DOING, move |mut tx, version| {
            Box::pin(async move {
                Statement::new(DOING, INSERT)
                    .id(endpoint.id)
                    .id(endpoint.org)
                    .text(endpoint.source.as_str())
                    .text(&endpoint.name)
                    .json(&endpoint.ignored_types)?
                    .time(endpoint.created_at)
                    .number(version)
                    .execute(&mut tx)
                    .await?;
                let owner = Owner {
                    org: endpoint.org,
                    source: endpoint.source,
                    endpoint: Some(endpoint.id),
                };
                for new in &secrets {
                    owner.insert(&mut tx, version, new).await?;
                }
                audit::insert(&mut tx, endpoint.org, &audit).await
            })
        })
        .await
    }

    async fn find_endpoint(&self, org: OrgId, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("find the endpoint", FIND)
            .id(org)
            .id(id)
            .optional(&mut reader, endpoint)
            .await
    }

    async fn list_endpoints(
        &self,
        org: OrgId,
        after: Option<EndpointId>,
        count_max: u32,
    ) -> Result<Vec<Endpoint>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("list endpoints", LIST)
            .id(org)
            .id(after.map_or(Uuid::nil(), Uuid::from))
            .number(count_max)
            .all(&mut reader, endpoint)
            .await
    }

    async fn update_endpoint(&self, endpoint: Endpoint, audit: AuditEntry) -> Result<bool, StoreError> {
        const DOING: &str = "change the endpoint";
        self.configure_if(endpoint.org, DOING, move |mut tx, version| {
            Box::pin(async move {
                let changed = Statement::new(DOING, UPDATE)
                    .id(endpoint.org)
                    .id(endpoint.id)
                    .number(endpoint.version)
                    .text(&endpoint.name)
                    .json(&endpoint.ignored_types)?
                    .time(tx.now)
                    .number(version)
                    .execute(&mut tx)
                    .await?;
                if changed == 1 {
                    audit::insert(&mut tx, endpoint.org, &audit).await?;
                }
                Ok((changed == 1, changed == 1))
            })
        })
        .await
    }

    async fn delete_endpoint(
        &self,
        org: OrgId,
        id: EndpointId,
        version: Option<i64>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "delete the endpoint";
        self.configure_if(org, DOING, move |mut tx, changed_version| {
            Box::pin(async move {
                let source = Statement::new(DOING, DELETE)
                    .id(org)
                    .id(id)
                    .time(tx.now)
                    .number(changed_version)
                    .number_opt(version)
                    .optional(&mut tx, |row| row.table("endpoints").string("source"))
                    .await?;
                let Some(source) = source else {
                    return Ok((false, false));
                };
                Statement::new("erase the endpoint's secrets", ERASE_OF_ENDPOINT)
                    .id(org)
                    .text(&source)
                    .id(id)
                    .number(changed_version)
                    .execute(&mut tx)
                    .await?;
                audit::insert(&mut tx, org, &audit).await?;
                Ok((true, true))
            })
        })
        .await
    }

    async fn add_secrets(
        &self,
        secrets: Vec<NewSecret>,
        version: Option<i64>,
        others_not_after: Option<Timestamp>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let Some(org) = secrets.first().map(|secret| secret.org) else {
            return Ok(false);
        };
        let addition = Addition {
            secrets,
            version,
            others_not_after,
            audit,
        };
        self.configure_if(org, "add secrets", move |mut tx, changed_version| {
            Box::pin(async move {
                let is_added = add(&mut tx, changed_version, &addition).await?;
                Ok((is_added, is_added))
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
        let change = SecretsChange {
            source,
            secrets,
            others_not_after,
            audit,
        };
        self.configure(org, "replace the organisation's secrets", move |mut tx, version| {
            Box::pin(async move { replace(&mut tx, version, org, &change).await })
        })
        .await
    }

    async fn list_secrets(
        &self,
        org: OrgId,
        source: Source,
        endpoint: Option<EndpointId>,
    ) -> Result<Vec<StoredSecret>, StoreError> {
        let mut reader = self.read(org).await?;
        let owner = Owner { org, source, endpoint };
        owner
            .statement("list secrets", LIST_SECRETS)
            .time(self.clock().now())
            .all(&mut reader, secret)
            .await
    }

    async fn list_endpoint_secrets(&self, org: OrgId) -> Result<Vec<StoredSecret>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("list secrets of endpoints", LIST_ENDPOINT_SECRETS)
            .id(org)
            .time(self.clock().now())
            .all(&mut reader, secret)
            .await
    }

    async fn record_secret_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        const DOING: &str = "note the last uses of secrets";
        self.write(Access::ALL_ORGS.in_bulk(), DOING, move |mut tx| {
            Box::pin(async move {
                for one in uses {
                    Statement::new(DOING, RECORD_USE)
                        .id(one.org)
                        .id(one.secret)
                        .time(one.at)
                        .execute(&mut tx)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }
}
