//! Which queues of a broker each worker consumes. Postgres only: a SQLite file has one worker.

use super::{Access, Sql, SqlStore, Statement};
use crate::store::{
    Base, StoreError,
    queue_shares::{QueueShares, ShareRequest},
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[LOCK, END, LOAD, SAVE, RELEASE];

/// Workers of a group share out one after the other: no queue is given to two of them.
const LOCK: Sql = Sql::postgres_only("SELECT pg_advisory_xact_lock(hashtextextended($1, 26))");
const END: Sql = Sql::postgres_only(
    "
    DELETE FROM queue_workers
    WHERE queue_group = $1 AND expires_at <= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
);
const LOAD: Sql = Sql::postgres_only(
    "
    SELECT worker_id, queues
    FROM queue_workers
    WHERE queue_group = $1
    ORDER BY worker_id",
);
const SAVE: Sql = Sql::postgres_only(
    "
    INSERT INTO queue_workers (queue_group, worker_id, queues, expires_at)
    VALUES ($1, $2, $3, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $4)
    ON CONFLICT (queue_group, worker_id) DO UPDATE
    SET queues = excluded.queues, expires_at = excluded.expires_at",
);
const RELEASE: Sql = Sql::postgres_only(
    "
    DELETE FROM queue_workers
    WHERE queue_group = $1 AND worker_id = $2",
);

/// The share of one worker beside others. Its rank among all workers says who gets one more where
/// the number of queues does not divide. An instance keeps the queues that it holds, up to its
/// share.
fn share(own: Uuid, workers: &[(Uuid, Vec<u16>)], queues: u16) -> Vec<u16> {
    let others = || workers.iter().filter(|(worker, _)| *worker != own);
    let rank = others().filter(|(worker, _)| *worker < own).count();
    let (queues_len, workers_len) = (usize::from(queues), others().count() + 1);
    let len = queues_len / workers_len + usize::from(rank < queues_len % workers_len);
    let is_free = |queue: &u16| *queue < queues && others().all(|(_, held)| !held.contains(queue));
    let held = workers.iter().find(|(worker, _)| *worker == own);
    let mut share: Vec<u16> = held
        .into_iter()
        .flat_map(|(_, held)| held.iter().copied())
        .filter(is_free)
        .take(len)
        .collect();
    for queue in (0..queues).filter(is_free) {
        if share.len() == len {
            break;
        }
        if !share.contains(&queue) {
            share.push(queue);
        }
    }
    share
}

#[async_trait]
impl<S: SqlStore + Base> QueueShares for S {
    async fn share_queues(&self, request: ShareRequest) -> Result<Vec<u16>, StoreError> {
        const DOING: &str = "share out the queues";
        if !self.is_shared() {
            return Ok((0..request.queues).collect());
        }
        self.write(Access::ALL_ORGS, DOING, move |mut tx| {
            Box::pin(async move {
                let ShareRequest {
                    group,
                    worker,
                    queues,
                    lease,
                } = request;
                Statement::new(DOING, LOCK).text(&group).execute(&mut tx).await?;
                Statement::new(DOING, END).text(&group).execute(&mut tx).await?;
                let workers: Vec<(Uuid, Vec<u16>)> = Statement::new(DOING, LOAD)
                    .text(&group)
                    .all(&mut tx, |row| {
                        let row = row.table("queue_workers");
                        let held = row.text("queues")?.split(',');
                        Ok((
                            row.id("worker_id")?,
                            held.filter_map(|text| text.parse().ok()).collect(),
                        ))
                    })
                    .await?;
                let share = share(worker, &workers, queues);
                let numbers: Vec<_> = share.iter().map(u16::to_string).collect();
                Statement::new(DOING, SAVE)
                    .text(&group)
                    .id(worker)
                    .text(&numbers.join(","))
                    .number(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX))
                    .execute(&mut tx)
                    .await?;
                Ok(share)
            })
        })
        .await
    }

    async fn release_queues(&self, group: &str, worker: Uuid) -> Result<(), StoreError> {
        const DOING: &str = "give queues back";
        let group = group.to_owned();
        if !self.is_shared() {
            return Ok(());
        }
        self.write(Access::ALL_ORGS, DOING, move |mut tx| {
            Box::pin(async move {
                let release = Statement::new(DOING, RELEASE).text(&group).id(worker);
                release.execute(&mut tx).await.map(drop)
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each worker asks in turn, as their periods come.
    #[test]
    fn workers_that_come_and_go_end_with_even_shares_and_no_queue_twice() {
        let id = |n: u128| Uuid::from_u128(n);
        let mut workers: Vec<(Uuid, Vec<u16>)> = Vec::new();
        for (living, wanted) in [
            (vec![2], vec![8]),
            (vec![2, 1], vec![4, 4]),
            (vec![2, 1, 3], vec![3, 3, 2]),
            (vec![3, 1], vec![4, 4]),
            ((1..=10).collect::<Vec<_>>(), vec![1, 1, 1, 1, 1, 1, 1, 1, 0, 0]),
        ] {
            workers.retain(|(worker, _)| living.iter().any(|n| id(*n) == *worker));
            for _round in 0..2 {
                for n in &living {
                    let share = share(id(*n), &workers, 8);
                    workers.retain(|(worker, _)| *worker != id(*n));
                    workers.push((id(*n), share));
                    let mut all: Vec<u16> = workers.iter().flat_map(|(_, held)| held.clone()).collect();
                    let held = all.len();
                    all.sort_unstable();
                    all.dedup();
                    assert_eq!(held, all.len(), "a queue has two workers: {workers:?}");
                }
            }
            let mut counts: Vec<_> = workers.iter().map(|(_, held)| held.len()).collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            assert_eq!(counts, wanted);
        }
    }
}
