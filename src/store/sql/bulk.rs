//! Bulk work on actions: counts, jobs and their steps.

use super::{
    Access, Dialect, Row, Sql, SqlStore, Statement, Transaction, audit,
    history::{end, start},
    ledger::manual,
};
use crate::{
    domain::{ActionId, ActionKind, ActionState, Cause, OrgId, Period, Provider, RuleId, RuleSpec, Timestamp},
    store::{StoreError, audit::AuditEntry, bulk::*, ledger::ManualTransition},
};
use async_trait::async_trait;
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(COUNT),
    Sql::both(ORGS_WITH_OPEN),
    Sql::both(BEGIN),
    Sql::both(FIND),
    LOCK,
    Sql::both(WINDOW),
    Sql::both(EXPIRY),
    Sql::both(PROGRESS),
    Sql::both(STOP),
    Sql::both(RUNNING),
    Sql::both(FREE),
    Sql::both(TAKE),
    Sql::both(RELEASE),
    Sql::both(ORG_OF_ACTION),
];

const COUNT: &str = "
    SELECT org_id, state, provider, count(*) AS count
    FROM actions
    WHERE org_id = $1
    AND (CAST($2 AS text) IS NULL OR state = $2) AND (CAST($3 AS text) IS NULL OR provider = $3)
    AND (CAST($4 AS text) IS NULL OR cause = $4) AND (CAST($5 AS text) IS NULL OR rule_id = $6)
    AND created_at >= $7 AND created_at < $8
    AND state IN ('pending', 'waiting', 'unknown', 'parked', 'suppressed', 'cancelled', 'dead')
    GROUP BY org_id, state, provider
    ORDER BY org_id, state, provider";
/// A turn stands for what is pending or waiting.
const ORGS_WITH_OPEN: &str = "
    SELECT org_id FROM turns
    UNION
    SELECT org_id FROM actions
    WHERE state = 'parked'
    ORDER BY org_id";
const BEGIN: &str = "
    INSERT INTO bulk_jobs (id, org_id, verb, filter, state, planned, done, skipped, position, last_action, actor,
        started_at, updated_at)
    VALUES ($1, $2, $3, $4, 'running', $5, 0, 0, $6, $7, $8, $9, $9)";
const FIND: &str = "
    SELECT id, org_id, verb, filter, state, planned, done, skipped, position, last_action, actor, started_at,
        updated_at, ended_at, fence
    FROM bulk_jobs
    WHERE org_id = $1 AND id = $2";
const LOCK: Sql = Sql {
    sqlite: FIND,
    postgres: "
    SELECT id, org_id, verb, filter, state, planned, done, skipped, position, last_action, actor, started_at,
        updated_at, ended_at, fence
    FROM bulk_jobs
    WHERE org_id = $1 AND id = $2
    FOR UPDATE",
};
/// A window over all of the organisation's actions, so that a step is bounded whatever the filter
/// meets.
const WINDOW: &str = "
    SELECT id, state, provider, cause, rule_id, kind, created_at
    FROM actions
    WHERE org_id = $1 AND id > $2 AND id <= $3
    ORDER BY id
    LIMIT $4";
const EXPIRY: &str = "SELECT spec FROM rules WHERE org_id = $1 AND id = $2";
const PROGRESS: &str = "
    UPDATE bulk_jobs
    SET position = $3, done = done + $4, skipped = skipped + $5, state = $6, updated_at = $7, ended_at = $8,
        lease_until = $9
    WHERE org_id = $1 AND id = $2 AND state = 'running' AND fence = $10";
const STOP: &str = "
    UPDATE bulk_jobs
    SET state = 'stopped', updated_at = $3, ended_at = $3
    WHERE org_id = $1 AND id = $2 AND state = 'running'";
const RUNNING: &str = "
    SELECT org_id, id
    FROM bulk_jobs
    WHERE state = 'running'
    ORDER BY id
    LIMIT $1";
const FREE: &str = "
    SELECT org_id, id
    FROM bulk_jobs
    WHERE state = 'running' AND lease_until <= $1
    ORDER BY lease_until
    LIMIT $2";
const TAKE: &str = "
    UPDATE bulk_jobs
    SET fence = fence + 1, lease_until = $3
    WHERE org_id = $1 AND id = $2 AND state = 'running' AND lease_until <= $4
    RETURNING fence";
const RELEASE: &str = "
    UPDATE bulk_jobs
    SET lease_until = $3
    WHERE org_id = $1 AND id = $2 AND state = 'running' AND fence = $4";
const ORG_OF_ACTION: &str = "SELECT org_id FROM actions WHERE id = $1";

/// A filter as a job keeps it.
#[derive(serde::Serialize, serde::Deserialize)]
struct StoredFilter {
    state: Option<ActionState>,
    provider: Option<Provider>,
    cause: Option<Cause>,
    rule: Option<Uuid>,
    since: Option<i64>,
    until: Option<i64>,
}

impl From<BulkFilter> for StoredFilter {
    fn from(filter: BulkFilter) -> Self {
        Self {
            state: filter.state,
            provider: filter.provider,
            cause: filter.cause,
            rule: filter.rule.map(Uuid::from),
            since: filter.period.since.map(Timestamp::as_micros),
            until: filter.period.until.map(Timestamp::as_micros),
        }
    }
}

impl From<StoredFilter> for BulkFilter {
    fn from(stored: StoredFilter) -> Self {
        Self {
            state: stored.state,
            provider: stored.provider,
            cause: stored.cause,
            rule: stored.rule.map(RuleId::from),
            period: Period {
                since: stored.since.map(Timestamp::from_micros),
                until: stored.until.map(Timestamp::from_micros),
            },
        }
    }
}

/// A job with the place that it has come to.
struct Standing {
    job: BulkJob,
    position: Uuid,
    last_action: Uuid,
    fence: i64,
}

fn standing<D: Dialect>(row: Row<'_, D>) -> Result<Standing, StoreError> {
    let row = row.table("bulk_jobs");
    let job = BulkJob {
        id: row.id("id")?,
        org: row.id("org_id")?,
        verb: match row.text("verb")? {
            "retry" => BulkVerb::Retry,
            "cancel" => BulkVerb::Cancel,
            _ => return Err(row.corrupt("verb")),
        },
        filter: row.json::<StoredFilter>("filter")?.into(),
        state: match row.text("state")? {
            "running" => JobState::Running,
            "stopped" => JobState::Stopped,
            "done" => JobState::Done,
            _ => return Err(row.corrupt("state")),
        },
        planned: row.number("planned")?,
        done: row.number("done")?,
        skipped: row.number("skipped")?,
        actor: row.string("actor")?,
        started_at: row.time("started_at")?,
        updated_at: row.time("updated_at")?,
        ended_at: row.time_opt("ended_at")?,
    };
    Ok(Standing {
        job,
        position: row.id("position")?,
        last_action: row.id("last_action")?,
        fence: row.number("fence")?,
    })
}

/// The organisation of a job, and its id.
fn place<D: Dialect>(row: Row<'_, D>) -> Result<(OrgId, Uuid), StoreError> {
    let row = row.table("bulk_jobs");
    Ok((row.id("org_id")?, row.id("id")?))
}

/// One action of a window.
struct Seen {
    id: ActionId,
    rule: RuleId,
    /// `None` where only a newer release knows it.
    kind: Option<ActionKind>,
    is_met: bool,
}

fn seen<D: Dialect>(row: Row<'_, D>, job: &BulkJob) -> Result<Seen, StoreError> {
    let row = row.table("actions");
    let (filter, state) = (&job.filter, row.parse::<ActionState>("state")?);
    let rule: RuleId = row.id("rule_id")?;
    let provider: &str = row.text("provider")?;
    let is_met = job.verb.states().contains(&state)
        && filter.state.is_none_or(|wanted| wanted == state)
        && filter.provider.is_none_or(|wanted| wanted.as_str() == provider)
        && match filter.cause {
            Some(wanted) => row.known_opt::<Cause>("cause")? == Some(wanted),
            None => true,
        }
        && filter.rule.is_none_or(|wanted| wanted == rule)
        && {
            let created_at = row.time("created_at")?;
            created_at >= start(filter.period) && created_at < end(filter.period)
        };
    Ok(Seen {
        id: row.id("id")?,
        rule,
        kind: row.known_opt("kind")?,
        is_met,
    })
}

/// How long an action of this rule may still start, as a single retry has it.
async fn life<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    org: OrgId,
    rule: RuleId,
    kind: ActionKind,
) -> Result<Duration, StoreError> {
    let spec = Statement::new("read the rule of an action", EXPIRY)
        .id(org)
        .id(rule)
        .optional(tx, |row| Ok(row.table("rules").json::<RuleSpec>("spec").ok()))
        .await?;
    let own = spec.flatten().and_then(|spec| spec.expires_after_seconds);
    Ok(own.map_or_else(
        || kind.expires_after_default(),
        |seconds| Duration::from_secs(seconds.into()),
    ))
}

/// Moves the met actions of a window. Returns how many moved, and how many did not.
async fn move_all<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    job: &BulkJob,
    window: &[Seen],
) -> Result<(u64, u64), StoreError> {
    let (mut done, mut skipped, now) = (0, 0, tx.now);
    let mut lives: HashMap<RuleId, Duration> = HashMap::new();
    for seen in window.iter().filter(|seen| seen.is_met) {
        let moved = match (job.verb, seen.kind) {
            (BulkVerb::Cancel, _) => manual::cancel(tx, job.org, seen.id, now).await?.0,
            (BulkVerb::Retry, None) => {
                skipped += 1;
                continue;
            }
            (BulkVerb::Retry, Some(kind)) => {
                let life = if let Some(life) = lives.get(&seen.rule) {
                    *life
                } else {
                    let life = life(tx, job.org, seen.rule, kind).await?;
                    lives.insert(seen.rule, life);
                    life
                };
                manual::retry(tx, job.org, seen.id, now + life, now).await?.0
            }
        };
        match moved {
            ManualTransition::Done(_) => done += 1,
            ManualTransition::NotFrom(_) | ManualTransition::RanAgain { .. } | ManualTransition::Absent => skipped += 1,
        }
    }
    Ok((done, skipped))
}

async fn step<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    lease: JobLease,
    length: Duration,
    count_max: u32,
) -> Result<bool, StoreError> {
    const DOING: &str = "step a job";
    let JobLease { org, id, fence } = lease;
    let found = Statement::new(DOING, LOCK)
        .id(org)
        .id(id)
        .optional(tx, standing)
        .await?;
    let Some(Standing {
        job,
        position,
        last_action,
        ..
    }) = found.filter(|one| one.job.state == JobState::Running && one.fence == fence)
    else {
        return Ok(false);
    };
    let window = Statement::new(DOING, WINDOW)
        .id(org)
        .id(position)
        .id(last_action)
        .number(count_max)
        .all(tx, |row| seen(row, &job))
        .await?;
    let (done, skipped) = move_all(tx, &job, &window).await?;
    let goes_on = window.len() >= count_max as usize;
    let state = if goes_on { JobState::Running } else { JobState::Done };
    let now = tx.now;
    Statement::new(DOING, PROGRESS)
        .id(org)
        .id(id)
        .id(window.last().map_or(position, |seen| *seen.id.as_uuid()))
        .count(done)
        .count(skipped)
        .text(state.as_str())
        .time(now)
        .time_opt((!goes_on).then_some(now))
        .time(now + length)
        .number(fence)
        .execute(tx)
        .await?;
    Ok(goes_on)
}

#[async_trait]
impl<S: SqlStore> BulkJobs for S {
    async fn count_bulk(&self, org: OrgId, verb: BulkVerb, filter: BulkFilter) -> Result<Vec<BulkCount>, StoreError> {
        let mut reader = self.read(org).await?;
        let counted = Statement::new("count actions", COUNT)
            .id(org)
            .text_opt(filter.state.map(ActionState::as_str))
            .text_opt(filter.provider.map(Provider::as_str))
            .text_opt(filter.cause.map(Cause::as_str))
            .text_opt(filter.rule.map(|_| "of one rule"))
            .id_opt(filter.rule)
            .time(start(filter.period))
            .time(end(filter.period))
            .all(&mut reader, |row| {
                let row = row.table("actions");
                Ok(BulkCount {
                    org: row.id("org_id")?,
                    state: row.parse("state")?,
                    provider: row.word("provider")?,
                    count: row.number("count")?,
                })
            })
            .await?;
        let may = |one: &BulkCount| verb.states().contains(&one.state);
        Ok(counted.into_iter().filter(may).collect())
    }

    async fn list_orgs_with_open_actions(&self) -> Result<Vec<OrgId>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("list organisations with open actions", ORGS_WITH_OPEN)
            .all(&mut reader, |row| row.table("actions").id("org_id"))
            .await
    }

    async fn begin_bulk(&self, job: BulkJob, entry: AuditEntry) -> Result<(), StoreError> {
        const DOING: &str = "begin a job";
        self.write(job.org, DOING, move |mut tx| {
            Box::pin(async move {
                Statement::new(DOING, BEGIN)
                    .id(job.id)
                    .id(job.org)
                    .text(job.verb.as_str())
                    .json(&StoredFilter::from(job.filter))?
                    .count(job.planned)
                    .id(Uuid::nil())
                    // Ids of actions are in the order of time.
                    .id(Uuid::now_v7())
                    .text(&job.actor)
                    .time(job.started_at)
                    .execute(&mut tx)
                    .await?;
                audit::insert(&mut tx, job.org, &entry).await
            })
        })
        .await
    }

    async fn find_bulk(&self, org: OrgId, id: Uuid) -> Result<Option<BulkJob>, StoreError> {
        let mut reader = self.read(org).await?;
        let found = Statement::new("find a job", FIND)
            .id(org)
            .id(id)
            .optional(&mut reader, standing)
            .await?;
        Ok(found.map(|one| one.job))
    }

    async fn list_free_bulk(&self, count_max: u32) -> Result<Vec<(OrgId, Uuid)>, StoreError> {
        let now = self.clock().now();
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("list jobs that nobody holds", FREE)
            .time(now)
            .number(count_max)
            .all(&mut reader, place)
            .await
    }

    async fn take_bulk(&self, org: OrgId, id: Uuid, length: Duration) -> Result<Option<JobLease>, StoreError> {
        const DOING: &str = "take a job";
        self.write(org, DOING, move |mut tx| {
            Box::pin(async move {
                let fence = Statement::new(DOING, TAKE)
                    .id(org)
                    .id(id)
                    .time(tx.now + length)
                    .time(tx.now)
                    .optional(&mut tx, |row| row.table("bulk_jobs").number("fence"))
                    .await?;
                Ok(fence.map(|fence| JobLease { org, id, fence }))
            })
        })
        .await
    }

    async fn step_bulk(&self, lease: JobLease, length: Duration, count_max: u32) -> Result<bool, StoreError> {
        self.write(Access::org(lease.org).in_bulk(), "step a job", move |mut tx| {
            Box::pin(async move { step(&mut tx, lease, length, count_max).await })
        })
        .await
    }

    async fn release_bulk(&self, lease: JobLease) -> Result<(), StoreError> {
        const DOING: &str = "give a job back";
        self.write(lease.org, DOING, move |mut tx| {
            Box::pin(async move {
                Statement::new(DOING, RELEASE)
                    .id(lease.org)
                    .id(lease.id)
                    .time(tx.now)
                    .number(lease.fence)
                    .execute(&mut tx)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    async fn stop_bulk(&self, org: OrgId, id: Uuid, entry: AuditEntry) -> Result<bool, StoreError> {
        const DOING: &str = "stop a job";
        self.write(org, DOING, move |mut tx| {
            Box::pin(async move {
                let now = tx.now;
                let stopped = Statement::new(DOING, STOP)
                    .id(org)
                    .id(id)
                    .time(now)
                    .execute(&mut tx)
                    .await?;
                if stopped == 1 {
                    audit::insert(&mut tx, org, &entry).await?;
                }
                Ok(stopped == 1)
            })
        })
        .await
    }

    async fn list_running_bulk(&self, count_max: u32) -> Result<Vec<(OrgId, Uuid)>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("list running jobs", RUNNING)
            .number(count_max)
            .all(&mut reader, place)
            .await
    }

    async fn find_org_of_action(&self, action: ActionId) -> Result<Option<OrgId>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("find the organisation of an action", ORG_OF_ACTION)
            .id(action)
            .optional(&mut reader, |row| row.table("actions").id("org_id"))
            .await
    }
}
