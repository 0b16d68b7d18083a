//! Records: transitions out of `running` under the fence, and the end of leases.

use super::{LedgerSql, bring_turn_forward, clean, cut, make_ambiguous, mark_written, plan::add_turns};
use crate::{
    domain::{ActionId, ActionState, AttemptOutcome, Cause, OrgId, Timestamp},
    killpoint::{Step, reach},
    store::{
        StoreError,
        ledger::{Record, Recorded},
        sql::{Dialect, Row, Sql, Statement, Transaction},
    },
};
use futures_util::future::BoxFuture;
use std::{slice, time::Duration};

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[SAVEPOINT, RELEASE, ROLLBACK_TO];

const DOING: &str = "record attempts";

// On Postgres a failed statement ends its whole transaction; on SQLite it undoes only itself.
const SAVEPOINT: Sql = Sql::postgres_only("SAVEPOINT records");
const RELEASE: Sql = Sql::postgres_only("RELEASE SAVEPOINT records");
const ROLLBACK_TO: Sql = Sql::postgres_only("ROLLBACK TO SAVEPOINT records");

/// Writes the records of many attempts. The databases differ in how the list of them gets in.
///
/// The WHERE names the fence and the state, so that a record that was overtaken changes nothing. A
/// success still counts after its lease ended, as long as no other claim came since.
macro_rules! record_sql {
    ($records:literal, $returned:literal) => {
        concat!(
            "
    UPDATE actions
    SET state = r.state,
        cause = r.cause,
        detail = r.detail,
        http_status = r.http_status,
        provider_code = r.provider_code,
        provider_ref = coalesce(r.provider_ref, actions.provider_ref),
        due_at = coalesce(r.due_at, actions.due_at),
        lease_until = NULL,
        updated_at = r.ended_at,
        attempts = actions.attempts + r.counts,
        look_ups = actions.look_ups + r.looked_up,
        absences = CASE WHEN r.is_absence THEN actions.absences + 1 ELSE 0 END,
        credential_version = coalesce(r.credential_version, actions.credential_version),
        first_sent_at = CASE WHEN r.is_unsent THEN NULL ELSE actions.first_sent_at END
    FROM ",
            $records,
            "
    WHERE actions.id = r.id AND actions.org_id = r.org_id AND actions.fence = r.fence
        AND (actions.state = 'running'
            OR (actions.state = 'unknown' AND actions.cause = 'lease_ended' AND r.state = 'succeeded'))
    RETURNING ",
            $returned
        )
    };
}

/// Ends the rows of those attempts.
macro_rules! end_attempts_sql {
    ($ended:literal) => {
        concat!(
            "
    UPDATE attempts
    SET ended_at = r.ended_at,
        outcome = r.outcome,
        cause = r.cause,
        http_status = r.http_status,
        provider_code = r.provider_code,
        detail = r.detail,
        credential_version = r.credential_version
    FROM ",
            $ended,
            "
    WHERE attempts.action_id = r.id AND attempts.number = r.number"
        )
    };
}

pub(in crate::store) use {end_attempts_sql, record_sql};

/// The end of one attempt, as its row keeps it.
pub struct EndedAttempt {
    pub action: ActionId,
    pub fence: i64,
    pub ended_at: Timestamp,
    pub outcome: AttemptOutcome,
    pub cause: Cause,
    pub http_status: Option<u16>,
    pub provider_code: Option<String>,
    pub detail: Option<String>,
    pub credential_version: Option<i64>,
}

/// How each database writes the records of many attempts at once.
pub trait RecordSql: Dialect {
    /// Waits for saves of the credentials for which these actions park.
    fn lock_credentials<'c>(
        on: &'c mut Self::Connection,
        parks: &'c [(ActionId, OrgId)],
    ) -> BoxFuture<'c, Result<(), StoreError>>;

    /// Moves rows out of `running` whose fence still stands, and returns them.
    fn write_records<'c>(
        on: &'c mut Self::Connection,
        records: &'c [Record],
    ) -> BoxFuture<'c, Result<Vec<Self::Row>, StoreError>>;

    /// Makes parked actions `pending` whose credential has a newer version, and returns them.
    fn unpark<'c>(
        on: &'c mut Self::Connection,
        actions: &'c [ActionId],
        now: Timestamp,
    ) -> BoxFuture<'c, Result<Vec<Self::Row>, StoreError>>;

    fn end_attempts<'c>(
        on: &'c mut Self::Connection,
        ended: &'c [EndedAttempt],
    ) -> BoxFuture<'c, Result<(), StoreError>>;

    /// Makes `running` rows `unknown` whose lease ends until `until`, due `look_up_delay`
    /// microseconds after its end, and returns them.
    fn end_leases(
        on: &mut Self::Connection,
        until: i64,
        now: Timestamp,
        look_up_delay: i64,
        count_max: u32,
    ) -> BoxFuture<'_, Result<Vec<Self::Row>, StoreError>>;
}

pub async fn record<D: LedgerSql>(
    tx: &mut Transaction<'_, D>,
    mut records: Vec<Record>,
) -> Result<Vec<Recorded>, StoreError> {
    let mut results = vec![Recorded::Superseded; records.len()];
    let parks: Vec<(ActionId, OrgId)> = records
        .iter()
        .filter(|record| record.to == ActionState::Parked)
        .map(|record| (record.action, record.org))
        .collect();
    if !parks.is_empty() {
        D::lock_credentials(tx.connection, &parks).await?;
    }
    match write(tx, &records).await {
        Ok(written) => mark_written(&records, &written, &mut results),
        // A record brings a provider's id that another action holds. Write the records one by one
        // to find it.
        Err(StoreError::Conflict { .. }) => {
            for (record, result) in records.iter_mut().zip(&mut results) {
                *result = write_one(tx, record).await?;
            }
        }
        Err(error) => return Err(error),
    }
    unpark(tx, &records).await?;
    let ended: Vec<EndedAttempt> = records
        .iter()
        .zip(&results)
        .filter(|(_, result)| **result != Recorded::Superseded)
        .map(|(record, _)| EndedAttempt::of(record))
        .collect();
    if !ended.is_empty() {
        D::end_attempts(tx.connection, &ended).await?;
    }
    reach(Step::RecordWritten);
    Ok(results)
}

impl EndedAttempt {
    fn of(record: &Record) -> Self {
        Self {
            action: record.action,
            fence: record.fence,
            ended_at: record.ended_at,
            outcome: record.outcome,
            cause: record.cause,
            http_status: record.http_status,
            provider_code: record.provider_code.as_deref().map(|code| clean(code).into_owned()),
            detail: (!record.detail.is_empty()).then(|| cut(&record.detail)),
            credential_version: record.credential_version,
        }
    }
}

/// Writes one record whose id of the provider's may be another action's.
async fn write_one<D: LedgerSql>(tx: &mut Transaction<'_, D>, record: &mut Record) -> Result<Recorded, StoreError> {
    let (written, as_what) = match write(tx, slice::from_ref(record)).await {
        Err(StoreError::Conflict { .. }) => {
            make_ambiguous(record);
            (write(tx, slice::from_ref(record)).await?, Recorded::RefTaken)
        }
        written => (written?, Recorded::Done),
    };
    Ok(if written.is_empty() {
        Recorded::Superseded
    } else {
        as_what
    })
}

/// Writes records and returns those whose fence still stood. Where a provider's id may be taken, a
/// savepoint undoes the failure.
async fn write<D: LedgerSql>(
    tx: &mut Transaction<'_, D>,
    records: &[Record],
) -> Result<Vec<(ActionId, OrgId)>, StoreError> {
    let may_conflict = records.iter().any(|record| record.provider_ref.is_some());
    if may_conflict {
        Statement::new(DOING, SAVEPOINT).execute(tx).await?;
    }
    let changed = D::write_records(tx.connection, records).await;
    if may_conflict {
        let end = if changed.is_ok() { RELEASE } else { ROLLBACK_TO };
        Statement::new(DOING, end).execute(tx).await?;
    }
    let changed = changed?;
    bring_turns_forward(tx, &changed).await?;
    changed
        .iter()
        .map(|row| {
            let row = Row::<D>::of(row).table("actions");
            Ok((row.id("id")?, row.id("org_id")?))
        })
        .collect()
}

/// Makes actions claimable whose credential was saved again during their attempt.
async fn unpark<D: LedgerSql>(tx: &mut Transaction<'_, D>, records: &[Record]) -> Result<(), StoreError> {
    let parked = records.iter().filter(|record| record.to == ActionState::Parked);
    let Some(now) = parked.clone().map(|record| record.ended_at).max() else {
        return Ok(());
    };
    let ids: Vec<ActionId> = parked.map(|record| record.action).collect();
    let changed = D::unpark(tx.connection, &ids, now).await?;
    bring_turns_forward(tx, &changed).await
}

/// Gives each row that can be claimed again a turn at its time.
async fn bring_turns_forward<D: LedgerSql>(tx: &mut Transaction<'_, D>, changed: &[D::Row]) -> Result<(), StoreError> {
    let mut due = Vec::new();
    for row in changed {
        let row = Row::<D>::of(row).table("actions");
        if !matches!(
            row.parse("state")?,
            ActionState::Pending | ActionState::Waiting | ActionState::Unknown
        ) {
            continue;
        }
        let (org, provider, due_at) = (row.id("org_id")?, row.text("provider")?, row.time("due_at")?);
        match provider.parse() {
            Ok(provider) => due.push((org, provider, due_at)),
            // Of a newer release, whose process ended. Its turn waits for another one like it.
            Err(_) => bring_turn_forward(tx, org, provider, due_at).await?,
        }
    }
    add_turns(tx, due).await
}

/// Makes `running` rows `unknown` whose lease ends until `until`, due `look_up_delay` after its
/// end. `None` where no other process can hold a lease: then all have ended.
pub async fn end_leases<D: LedgerSql>(
    tx: &mut Transaction<'_, D>,
    until: Option<Timestamp>,
    now: Timestamp,
    look_up_delay: Duration,
    count_max: u32,
) -> Result<u64, StoreError> {
    let look_up_delay = i64::try_from(look_up_delay.as_micros()).unwrap_or(i64::MAX / 2);
    let until = until.map_or(i64::MAX, Timestamp::as_micros);
    let changed = D::end_leases(tx.connection, until, now, look_up_delay, count_max).await?;
    bring_turns_forward(tx, &changed).await?;
    let mut ended = Vec::with_capacity(changed.len());
    for row in &changed {
        let row = Row::<D>::of(row).table("actions");
        ended.push(EndedAttempt {
            action: row.id("id")?,
            fence: row.number("fence")?,
            ended_at: now,
            outcome: AttemptOutcome::Unknown,
            cause: Cause::LeaseEnded,
            http_status: None,
            provider_code: None,
            detail: None,
            credential_version: None,
        });
    }
    if !ended.is_empty() {
        D::end_attempts(tx.connection, &ended).await?;
    }
    Ok(changed.len() as u64)
}
