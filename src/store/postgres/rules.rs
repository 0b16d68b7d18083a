//! Rules in Postgres. A deleted rule keeps its row, so that a refresh by version takes it out of
//! memory.

use super::{PostgresStore, Scope, StoreError, audit, failed, rows::Fields};
use crate::{
    domain::{OrgId, Rule, RuleId, RuleSpec},
    store::{audit::AuditEntry, rules::*},
};
use async_trait::async_trait;
use sqlx::postgres::PgRow;
use uuid::Uuid;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    INSERT,
    FIND,
    LIST,
    UPDATE,
    DELETE,
    COUNT,
    VERSION,
    CHANGED,
    CHANGED_ORGANISATIONS,
];

macro_rules! columns {
    () => {
        "id, org_id, spec, is_deleted, version, created_at, updated_at"
    };
}

const INSERT: &str = "INSERT INTO rules (id, org_id, spec, version, created_at, updated_at, changed_version) VALUES \
    ($1, $2, $3, 1, $4, $5, $6)";
const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM rules WHERE org_id = $1 AND id = $2 AND is_deleted = false"
);
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM rules WHERE org_id = $1 AND is_deleted = false AND id > $2 ORDER BY id LIMIT $3"
);
const UPDATE: &str = "UPDATE rules SET spec = $4, version = version + 1, updated_at = $5, changed_version = $6 \
    WHERE org_id = $1 AND id = $2 AND version = $3 AND is_deleted = false";
const DELETE: &str = "UPDATE rules SET is_deleted = true, version = version + 1, updated_at = $3, changed_version = $4 \
    WHERE org_id = $1 AND id = $2 AND is_deleted = false";
const COUNT: &str = "SELECT count(*) FROM rules WHERE org_id = $1 AND is_deleted = false";
const VERSION: &str = "SELECT version FROM config_version WHERE id = 1";
/// Over all organisations: a worker serves them all. Who asks for everything (`$1` is 0) has
/// nothing to take out.
const CHANGED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM rules WHERE changed_version > $1 AND ($1 > 0 OR is_deleted = false)"
);
const CHANGED_ORGANISATIONS: &str = "SELECT id, is_active FROM organizations WHERE changed_version > $1";

fn rule(row: &PgRow) -> Result<Rule, StoreError> {
    let row = Fields::of(row, "rules");
    Ok(Rule {
        id: row.id("id", RuleId::from_uuid)?,
        org: row.id("org_id", OrgId::from_uuid)?,
        spec: row.json("spec")?,
        version: row.get("version")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn text(spec: &RuleSpec) -> Result<String, StoreError> {
    serde_json::to_string(spec).map_err(|_| StoreError::Data {
        doing: "write the rule",
        reason: "the rule is not JSON".into(),
    })
}

/// A rule that cannot be read is its organisation's matter alone; a row that does not even say
/// whose it is is everybody's.
fn sort(rows: &[PgRow], changes: &mut RuleChanges) -> Result<(), StoreError> {
    for row in rows {
        let fields = Fields::of(row, "rules");
        match rule(row).and_then(|rule| Ok((rule, fields.get("is_deleted")?))) {
            Ok(read) => changes.rules.push(read),
            Err(StoreError::Corrupt { column, .. }) => changes.unreadable.push(UnreadableRule {
                org: fields.id("org_id", OrgId::from_uuid)?,
                key: fields.id("id", |id| Box::from(*id.as_bytes()))?,
                column,
                is_deleted: fields.get("is_deleted").unwrap_or(false),
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[async_trait]
impl Rules for PostgresStore {
    async fn create_rule(&self, rule: Rule, audit: AuditEntry) -> Result<(), StoreError> {
        let spec = text(&rule.spec)?;
        self.configure(rule.org, "create the rule", move |connection, version| {
            Box::pin(async move {
                sqlx::query(INSERT)
                    .bind(*rule.id.as_uuid())
                    .bind(*rule.org.as_uuid())
                    .bind(spec)
                    .bind(rule.created_at.as_micros())
                    .bind(rule.updated_at.as_micros())
                    .bind(version)
                    .execute(&mut *connection)
                    .await
                    .map_err(failed("create the rule"))?;
                audit::insert(connection, rule.org, &audit).await
            })
        })
        .await
    }

    async fn find_rule(&self, org: OrgId, id: RuleId) -> Result<Option<Rule>, StoreError> {
        let mut reader = self.reader(org).await?;
        let found = sqlx::query(FIND)
            .bind(*org.as_uuid())
            .bind(*id.as_uuid())
            .fetch_optional(&mut *reader);
        found
            .await
            .map_err(failed("find the rule"))?
            .as_ref()
            .map(rule)
            .transpose()
    }

    async fn list_rules(&self, org: OrgId, after: Option<RuleId>, count_max: u32) -> Result<Vec<Rule>, StoreError> {
        let mut reader = self.reader(org).await?;
        sqlx::query(LIST)
            .bind(*org.as_uuid())
            .bind(after.map_or(Uuid::nil(), |id| *id.as_uuid()))
            .bind(i64::from(count_max))
            .fetch_all(&mut *reader)
            .await
            .map_err(failed("list rules"))?
            .iter()
            .map(rule)
            .collect()
    }

    async fn update_rule(
        &self,
        org: OrgId,
        id: RuleId,
        version: i64,
        spec: RuleSpec,
        audit: AuditEntry,
    ) -> Result<Option<i64>, StoreError> {
        let (spec, now) = (text(&spec)?, self.now());
        self.configure_if(org, "update the rule", move |connection, changed_version| {
            Box::pin(async move {
                let updated = sqlx::query(UPDATE)
                    .bind(*org.as_uuid())
                    .bind(*id.as_uuid())
                    .bind(version)
                    .bind(spec)
                    .bind(now.as_micros())
                    .bind(changed_version)
                    .execute(&mut *connection)
                    .await
                    .map_err(failed("update the rule"))?;
                if updated.rows_affected() == 1 {
                    audit::insert(connection, org, &audit).await?;
                    return Ok((Some(version + 1), true));
                }
                let there = sqlx::query(FIND)
                    .bind(*org.as_uuid())
                    .bind(*id.as_uuid())
                    .fetch_optional(connection);
                match there.await.map_err(failed("find the rule"))? {
                    Some(_) => Err(StoreError::Conflict { what: "the rule" }),
                    None => Ok((None, false)),
                }
            })
        })
        .await
    }

    async fn delete_rule(&self, org: OrgId, id: RuleId, audit: AuditEntry) -> Result<bool, StoreError> {
        let now = self.now();
        self.configure_if(org, "delete the rule", move |connection, version| {
            Box::pin(async move {
                let deleted = sqlx::query(DELETE)
                    .bind(*org.as_uuid())
                    .bind(*id.as_uuid())
                    .bind(now.as_micros())
                    .bind(version)
                    .execute(&mut *connection)
                    .await
                    .map_err(failed("delete the rule"))?;
                if deleted.rows_affected() == 0 {
                    return Ok((false, false));
                }
                audit::insert(connection, org, &audit).await?;
                Ok((true, true))
            })
        })
        .await
    }

    async fn count_rules(&self, org: OrgId) -> Result<u32, StoreError> {
        let mut reader = self.reader(org).await?;
        let count: i64 = sqlx::query_scalar(COUNT)
            .bind(*org.as_uuid())
            .fetch_one(&mut *reader)
            .await
            .map_err(failed("count rules"))?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    async fn load_rule_changes(&self, version: i64) -> Result<RuleChanges, StoreError> {
        const DOING: &str = "load changed rules";
        // One read transaction: an organisation that it shows comes with all of its rules of that
        // moment (invariant 7).
        let mut transaction = self.reader(Scope::Worker).await?;
        let current: i64 = sqlx::query_scalar(VERSION)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed(DOING))?;
        let rules = sqlx::query(CHANGED)
            .bind(version)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed(DOING))?;
        let organisations = sqlx::query(CHANGED_ORGANISATIONS)
            .bind(version)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed(DOING))?;
        transaction.rollback().await.map_err(failed(DOING))?;
        let mut changes = RuleChanges {
            version: current,
            rules: Vec::with_capacity(rules.len()),
            unreadable: Vec::new(),
            organisations: organisations
                .iter()
                .map(|row| {
                    let row = Fields::of(row, "organizations");
                    Ok((row.id("id", OrgId::from_uuid)?, row.get("is_active")?))
                })
                .collect::<Result<_, StoreError>>()?,
        };
        sort(&rules, &mut changes)?;
        Ok(changes)
    }
}
