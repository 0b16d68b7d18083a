//! Rules. A deleted rule keeps its row, so that a refresh by version takes it out of memory.

use super::{Access, Dialect, READ_VERSION, Row, Sql, SqlStore, Statement, audit, settings};
use crate::{
    domain::{OrgId, Rule, RuleId, RuleSpec},
    store::{StoreError, audit::AuditEntry, rules::*},
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(INSERT),
    Sql::both(FIND),
    LIST,
    Sql::both(UPDATE),
    Sql::both(DELETE),
    COUNT,
    Sql::both(CHANGED),
    Sql::both(CHANGED_ORGANISATIONS),
];

const INSERT: &str = "
    INSERT INTO rules (id, org_id, spec, version, created_at, updated_at, changed_version)
    VALUES ($1, $2, $3, 1, $4, $5, $6)";
const FIND: &str = "
    SELECT id, org_id, spec, is_deleted, version, created_at, updated_at
    FROM rules
    WHERE org_id = $1 AND id = $2 AND is_deleted = false";
macro_rules! list {
    ($false:literal) => {
        concat!(
            "
    SELECT id, org_id, spec, is_deleted, version, created_at, updated_at
    FROM rules
    WHERE org_id = $1 AND is_deleted = ",
            $false,
            " AND id > $2
    ORDER BY id
    LIMIT $3"
        )
    };
}
/// The partial index of SQLite is made with `0`. SQLite uses it only for a statement with the same
/// text.
const LIST: Sql = Sql {
    sqlite: list!("0"),
    postgres: list!("false"),
};
const UPDATE: &str = "
    UPDATE rules
    SET spec = $4, version = version + 1, updated_at = $5, changed_version = $6
    WHERE org_id = $1 AND id = $2 AND version = $3 AND is_deleted = false";
const DELETE: &str = "
    UPDATE rules
    SET is_deleted = true, version = version + 1, updated_at = $3, changed_version = $4
    WHERE org_id = $1 AND id = $2 AND is_deleted = false AND version = coalesce($5, version)";
/// As [`LIST`].
const COUNT: Sql = Sql {
    sqlite: "SELECT count(*) AS count FROM rules WHERE org_id = $1 AND is_deleted = 0",
    postgres: "SELECT count(*) AS count FROM rules WHERE org_id = $1 AND is_deleted = false",
};
/// Over all organisations, because a worker serves them all. Where `$1` is 0 the caller has no
/// rules yet, so deleted rules are left out.
const CHANGED: &str = "
    SELECT id, org_id, spec, is_deleted, version, created_at, updated_at
    FROM rules
    WHERE changed_version > $1 AND ($1 > 0 OR is_deleted = false)";
const CHANGED_ORGANISATIONS: &str = "
    SELECT id, is_active FROM organizations
    WHERE changed_version > $1";

fn rule<D: Dialect>(row: Row<'_, D>) -> Result<Rule, StoreError> {
    let row = row.table("rules");
    Ok(Rule {
        id: row.id("id")?,
        org: row.id("org_id")?,
        spec: row.json("spec")?,
        version: row.number("version")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

/// A rule that cannot be read affects its organisation only. A row that names no organisation fails
/// the whole load.
fn sort<D: Dialect>(row: Row<'_, D>, changes: &mut RuleChanges) -> Result<(), StoreError> {
    let row = row.table("rules");
    match rule(row).and_then(|rule| Ok((rule, row.flag("is_deleted")?))) {
        Ok(read) => changes.rules.push(read),
        Err(StoreError::Corrupt { column, .. }) => changes.unreadable.push(UnreadableRule {
            org: row.id("org_id")?,
            key: match row.id::<Uuid>("id") {
                Ok(id) => Box::from(*id.as_bytes()),
                Err(_) => row.bytes("id")?.into(),
            },
            column,
            is_deleted: row.flag("is_deleted").unwrap_or(false),
            scope: RuleScope::of(row.text("spec").unwrap_or_default()),
        }),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The rules of an organisation after `after`, and those that cannot be read. `admin` limits their
/// number, so they are loaded at once.
async fn load_all<S: SqlStore>(store: &S, org: OrgId, after: Option<RuleId>) -> Result<RuleChanges, StoreError> {
    let mut reader = store.read(org).await?;
    let mut all = RuleChanges::default();
    Statement::new("list rules", LIST)
        .id(org)
        .id(after.map_or(Uuid::nil(), Uuid::from))
        .number(u32::MAX)
        .each(&mut reader, |row| sort(row, &mut all))
        .await?;
    Ok(all)
}

#[async_trait]
impl<S: SqlStore> Rules for S {
    async fn create_rule(&self, rule: Rule, audit: AuditEntry) -> Result<(), StoreError> {
        const DOING: &str = "create the rule";
        self.configure(rule.org, DOING, move |mut tx, version| {
            Box::pin(async move {
                Statement::new(DOING, INSERT)
                    .id(rule.id)
                    .id(rule.org)
                    .json(&rule.spec)?
                    .time(rule.created_at)
                    .time(rule.updated_at)
                    .number(version)
                    .execute(&mut tx)
                    .await?;
                audit::insert(&mut tx, rule.org, &audit).await
            })
        })
        .await
    }

    async fn find_rule(&self, org: OrgId, id: RuleId) -> Result<Option<Rule>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("find the rule", FIND)
            .id(org)
            .id(id)
            .optional(&mut reader, rule)
            .await
    }

    async fn list_rules(&self, org: OrgId, after: Option<RuleId>, count_max: u32) -> Result<Vec<Rule>, StoreError> {
        let all = load_all(self, org, after).await?;
        let rules = all.rules.into_iter().map(|(rule, _)| rule);
        Ok(rules.take(count_max as usize).collect())
    }

    async fn list_unreadable_rules(&self, org: OrgId) -> Result<Vec<UnreadableRule>, StoreError> {
        Ok(load_all(self, org, None).await?.unreadable)
    }

    async fn update_rule(
        &self,
        org: OrgId,
        id: RuleId,
        version: i64,
        spec: RuleSpec,
        audit: AuditEntry,
    ) -> Result<Option<i64>, StoreError> {
        const DOING: &str = "update the rule";
        self.configure_if(org, DOING, move |mut tx, changed_version| {
            Box::pin(async move {
                let updated = Statement::new(DOING, UPDATE)
                    .id(org)
                    .id(id)
                    .number(version)
                    .json(&spec)?
                    .time(tx.now)
                    .number(changed_version)
                    .execute(&mut tx)
                    .await?;
                if updated == 1 {
                    audit::insert(&mut tx, org, &audit).await?;
                    return Ok((Some(version + 1), true));
                }
                let there = Statement::new("find the rule", FIND)
                    .id(org)
                    .id(id)
                    .optional(&mut tx, |_| Ok(()))
                    .await?;
                match there {
                    Some(()) => Err(StoreError::Conflict { what: "the rule" }),
                    None => Ok((None, false)),
                }
            })
        })
        .await
    }

    async fn delete_rule(
        &self,
        org: OrgId,
        id: RuleId,
        expected: Option<i64>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "delete the rule";
        self.configure_if(org, DOING, move |mut tx, version| {
            Box::pin(async move {
                let deleted = Statement::new(DOING, DELETE)
                    .id(org)
                    .id(id)
                    .time(tx.now)
                    .number(version)
                    .number_opt(expected)
                    .execute(&mut tx)
                    .await?;
                if deleted == 0 {
                    let there = Statement::new("find the rule", FIND)
                        .id(org)
                        .id(id)
                        .optional(&mut tx, |_| Ok(()))
                        .await?;
                    return match there {
                        Some(()) => Err(StoreError::Stale { what: "the rule" }),
                        None => Ok((false, false)),
                    };
                }
                audit::insert(&mut tx, org, &audit).await?;
                Ok((true, true))
            })
        })
        .await
    }

    async fn count_rules(&self, org: OrgId) -> Result<u32, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("count rules", COUNT)
            .id(org)
            .one(&mut reader, |row| row.table("rules").number("count"))
            .await
    }

    async fn load_rule_changes(&self, version: i64) -> Result<RuleChanges, StoreError> {
        const DOING: &str = "load changed rules";
        // One moment, so that each organisation comes with all of its rules of that moment
        // (invariant 7).
        let mut reader = self.read_moment(Access::ALL_ORGS).await?;
        let mut changes = RuleChanges {
            version: Statement::new(DOING, READ_VERSION)
                .one(&mut reader, |row| row.table("config_version").number("version"))
                .await?,
            ..RuleChanges::default()
        };
        Statement::new(DOING, CHANGED)
            .number(version)
            .each(&mut reader, |row| sort(row, &mut changes))
            .await?;
        changes.organisations = Statement::new(DOING, CHANGED_ORGANISATIONS)
            .number(version)
            .all(&mut reader, |row| {
                let row = row.table("organizations");
                Ok((row.id("id")?, row.flag("is_active")?))
            })
            .await?;
        settings::load_changed(&mut reader, version, &mut changes.settings).await?;
        reader.end(DOING).await?;
        Ok(changes)
    }
}
