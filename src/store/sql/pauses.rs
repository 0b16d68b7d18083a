//! Pauses, and the actions that a paused rule held back.

#[cfg(test)]
use super::Sql;
use super::{Access, Dialect, Row, SqlStore, Statement, Transaction, audit, ledger};
use crate::{
    domain::{INSTALLATION, OrgId, Provider, RuleId},
    store::{StoreError, audit::AuditEntry, pauses::*},
};
use async_trait::async_trait;
use std::collections::BTreeSet;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(PAUSE),
    Sql::both(RESUME),
    Sql::both(RELEASE_HELD),
    Sql::both(LIST),
    Sql::both(LIST_OF),
    Sql::both(ORG_OF_RULE),
];

const PAUSE: &str = "
    INSERT INTO pauses (target, scope, org_id, provider, rule_id, reason, actor, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (target) DO NOTHING";
const RESUME: &str = "DELETE FROM pauses WHERE target = $1 AND org_id = $2";
/// The list of states repeats the condition of the partial index, so that the database uses it.
const RELEASE_HELD: &str = "
    UPDATE actions
    SET state = 'pending', cause = NULL, due_at = $3, updated_at = $3
    WHERE org_id = $1 AND id IN (
        SELECT id FROM actions
        WHERE org_id = $1 AND rule_id = $2 AND cause = 'paused'
        AND state IN ('unknown', 'parked', 'suppressed', 'cancelled', 'dead') AND state = 'parked'
        ORDER BY id
        LIMIT $4
    )
    RETURNING provider";
const LIST: &str = "
    SELECT scope, org_id, provider, rule_id, reason, actor, created_at
    FROM pauses
    ORDER BY created_at, target";
/// `$2` is the installation's: what concerns no single organisation concerns each.
const LIST_OF: &str = "
    SELECT scope, org_id, provider, rule_id, reason, actor, created_at
    FROM pauses
    WHERE org_id = $1 OR org_id = $2
    ORDER BY created_at, target";
const ORG_OF_RULE: &str = "SELECT org_id FROM rules WHERE id = $1";

/// The key of a row: nothing is paused twice.
fn target(paused: Paused) -> String {
    match paused {
        Paused::All => "all".to_owned(),
        Paused::Org(org) => format!("org:{org}"),
        Paused::Provider(provider) => format!("provider:{provider}"),
        Paused::Rule(_, rule) => format!("rule:{rule}"),
    }
}

fn pause<D: Dialect>(row: Row<'_, D>) -> Result<Pause, StoreError> {
    let row = row.table("pauses");
    let paused = match row.text("scope")? {
        "all" => Paused::All,
        "org" => Paused::Org(row.id("org_id")?),
        "provider" => Paused::Provider(row.parse("provider")?),
        "rule" => Paused::Rule(row.id("org_id")?, row.id("rule_id")?),
        _ => return Err(row.corrupt("scope")),
    };
    Ok(Pause {
        paused,
        reason: row.string("reason")?,
        actor: row.string("actor")?,
        since: row.time("created_at")?,
    })
}

/// Writes a pause, where it is none yet. Its entry is the caller's.
pub(super) async fn insert<D: Dialect>(tx: &mut Transaction<'_, D>, new: &Pause) -> Result<bool, StoreError> {
    let inserted = Statement::new("pause", PAUSE)
        .text(&target(new.paused))
        .text(new.paused.scope())
        .id(new.paused.org().unwrap_or(INSTALLATION))
        .text_opt(new.paused.provider().map(Provider::as_str))
        .id_opt(new.paused.rule())
        .text(&new.reason)
        .text(&new.actor)
        .time(new.since)
        .execute(tx)
        .await?;
    Ok(inserted == 1)
}

async fn delete<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    paused: Paused,
    entry: &AuditEntry,
) -> Result<bool, StoreError> {
    let deleted = Statement::new("resume", RESUME)
        .text(&target(paused))
        .id(paused.org().unwrap_or(INSTALLATION))
        .execute(tx)
        .await?;
    if deleted == 1 {
        audit::insert(tx, entry.org, entry).await?;
    }
    Ok(deleted == 1)
}

#[async_trait]
impl<S: SqlStore> Pauses for S {
    async fn pause(&self, pause: Pause, entry: AuditEntry) -> Result<bool, StoreError> {
        self.configure_if(Access::ALL_ORGS, "pause", move |mut tx, _| {
            Box::pin(async move {
                let is_new = insert(&mut tx, &pause).await?;
                if is_new {
                    audit::insert(&mut tx, entry.org, &entry).await?;
                }
                Ok((is_new, is_new))
            })
        })
        .await
    }

    async fn resume(&self, paused: Paused, audit: AuditEntry) -> Result<bool, StoreError> {
        self.configure_if(Access::ALL_ORGS, "resume", move |mut tx, _| {
            Box::pin(async move {
                let was_there = delete(&mut tx, paused, &audit).await?;
                Ok((was_there, was_there))
            })
        })
        .await
    }

    async fn release_held_by_rule(&self, org: OrgId, rule: RuleId, count_max: u32) -> Result<u64, StoreError> {
        const DOING: &str = "release the actions of a rule";
        self.write(Access::org(org).in_bulk(), DOING, move |mut tx| {
            Box::pin(async move {
                let now = tx.now;
                let providers: Vec<String> = Statement::new(DOING, RELEASE_HELD)
                    .id(org)
                    .id(rule)
                    .time(now)
                    .number(count_max)
                    .all(&mut tx, |row| row.table("actions").string("provider"))
                    .await?;
                for provider in providers.iter().collect::<BTreeSet<_>>() {
                    ledger::bring_turn_forward(&mut tx, org, provider, now).await?;
                }
                Ok(providers.len() as u64)
            })
        })
        .await
    }

    async fn list_pauses(&self, org: Option<OrgId>) -> Result<Vec<Pause>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        let statement = match org {
            None => Statement::new("list pauses", LIST),
            Some(org) => Statement::new("list pauses", LIST_OF).id(org).id(INSTALLATION),
        };
        statement.all(&mut reader, pause).await
    }

    async fn find_org_of_rule(&self, rule: RuleId) -> Result<Option<OrgId>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("find the organisation of a rule", ORG_OF_RULE)
            .id(rule)
            .optional(&mut reader, |row| row.table("rules").id("org_id"))
            .await
    }
}
