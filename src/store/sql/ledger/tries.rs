//! Tries to plan an event that may end its worker: rows beside the dedupe keys, which live as long
//! as the event can come again.

#[cfg(test)]
use crate::store::sql::Sql;
use crate::{
    domain::{EventId, OrgId},
    store::{
        StoreError,
        ledger::TRIES_MAX,
        sql::{Dialect, Statement, Transaction},
    },
};
use sha2::{Digest, Sha256};

const BEGIN: &str = "
    INSERT INTO dedupe_keys (org_id, hash, created_at)
    VALUES ($1, $2, $3)
    ON CONFLICT (org_id, hash) DO NOTHING";

const END: &str = "
    DELETE FROM dedupe_keys
    WHERE org_id = $1 AND hash = $2";

/// For the tests: every statement of this file.
#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[Sql::both(BEGIN), Sql::both(END)];

/// No event has such a key: those begin with the name of a source.
fn hash(event: EventId, number: u32) -> [u8; 16] {
    let text = format!("a try to plan {event}, {number}");
    let hash = Sha256::digest(text.as_bytes());
    hash[..16].try_into().expect("a hash has 32 bytes")
}

/// Records a try, and returns how many were begun before and did not end.
pub async fn begin<D: Dialect>(tx: &mut Transaction<'_, D>, org: OrgId, event: EventId) -> Result<u32, StoreError> {
    for number in 0..TRIES_MAX {
        let begun = Statement::new("record a try", BEGIN)
            .id(org)
            .bytes(&hash(event, number))
            .time(tx.now)
            .execute(tx)
            .await?;
        if begun > 0 {
            return Ok(number);
        }
    }
    Ok(TRIES_MAX)
}

pub async fn end<D: Dialect>(tx: &mut Transaction<'_, D>, org: OrgId, event: EventId) -> Result<(), StoreError> {
    for number in 0..TRIES_MAX {
        Statement::new("forget a try", END)
            .id(org)
            .bytes(&hash(event, number))
            .execute(tx)
            .await?;
    }
    Ok(())
}
