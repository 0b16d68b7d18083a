//! Parts of events that wait for a rule.

#[cfg(test)]
use crate::store::sql::Sql;
use crate::{
    domain::{OrgId, SealedBytes},
    store::{
        StoreError,
        ledger::{HELD_PARTS_MAX, HeldPart},
        sql::{Connected, Dialect, Statement, Transaction},
    },
};

const COUNT: &str = "
    SELECT count(*) AS count
    FROM held_parts
    WHERE org_id = $1 AND rule_key = $2";

const HOLD: &str = "
    INSERT INTO held_parts (org_id, rule_key, event_id, held_at, envelope)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (org_id, rule_key, event_id) DO NOTHING";

const RULES: &str = "
    SELECT DISTINCT org_id, rule_key
    FROM held_parts
    LIMIT $1";

/// Ids of events are in the order of their receipt.
const LIST: &str = "
    SELECT org_id, rule_key, event_id, envelope
    FROM held_parts
    WHERE org_id = $1 AND rule_key = $2
    ORDER BY event_id
    LIMIT $3";

const FORGET: &str = "
    DELETE FROM held_parts
    WHERE org_id = $1 AND rule_key = $2 AND event_id = $3";

/// For the tests: every statement of this file.
#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(COUNT),
    Sql::both(HOLD),
    Sql::both(RULES),
    Sql::both(LIST),
    Sql::both(FORGET),
];

pub async fn hold<D: Dialect>(tx: &mut Transaction<'_, D>, part: HeldPart) -> Result<bool, StoreError> {
    let held: i64 = Statement::new("count parts of events", COUNT)
        .id(part.org)
        .bytes(&part.rule_key)
        .one(tx, |row| row.table("held_parts").number("count"))
        .await?;
    if held >= i64::from(HELD_PARTS_MAX) {
        return Ok(false);
    }
    Statement::new("hold a part of an event", HOLD)
        .id(part.org)
        .bytes(&part.rule_key)
        .id(part.event)
        .time(tx.now)
        .bytes(&part.envelope.0)
        .execute(tx)
        .await?;
    Ok(true)
}

pub async fn rules<C: Connected>(on: &mut C, count_max: u32) -> Result<Vec<(OrgId, Box<[u8]>)>, StoreError> {
    Statement::new("read the rules that events wait for", RULES)
        .number(count_max)
        .all(on, |row| {
            let row = row.table("held_parts");
            Ok((row.id("org_id")?, row.bytes("rule_key")?.into()))
        })
        .await
}

pub async fn list<C: Connected>(
    on: &mut C,
    org: OrgId,
    rule_key: &[u8],
    count_max: u32,
) -> Result<Vec<HeldPart>, StoreError> {
    Statement::new("read parts of events", LIST)
        .id(org)
        .bytes(rule_key)
        .number(count_max)
        .all(on, |row| {
            let row = row.table("held_parts");
            Ok(HeldPart {
                org: row.id("org_id")?,
                rule_key: row.bytes("rule_key")?.into(),
                event: row.id("event_id")?,
                envelope: SealedBytes(row.bytes("envelope")?.into()),
            })
        })
        .await
}

pub async fn forget<D: Dialect>(tx: &mut Transaction<'_, D>, parts: Vec<HeldPart>) -> Result<(), StoreError> {
    for part in parts {
        Statement::new("forget parts of events", FORGET)
            .id(part.org)
            .bytes(&part.rule_key)
            .id(part.event)
            .execute(tx)
            .await?;
    }
    Ok(())
}
