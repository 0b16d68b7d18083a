//! Deletes what has ended, by age, in small steps while the service runs.

use crate::{
    config::WorkerSettings,
    domain::{Clock, Timestamp},
    store::{
        Store, StoreError,
        retention::{KeyTable, Step},
    },
    telemetry::catalogue,
};
use futures_util::TryFutureExt;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Rows that one transaction looks at. Events are heavier than keys: each has actions and attempts.
const EVENTS_A_STEP: u32 = 200;
const ROWS_A_STEP: u32 = 1_000;
/// From the end of a round to the beginning of the next.
const ROUND_EVERY: Duration = Duration::from_mins(10);
/// After each step comes a pause of this many times its length, and of the least pause below. So
/// deletion takes a fifth of the writer's time at most.
const PAUSE_TIMES: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(20);

pub(super) struct Cleaner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: WorkerSettings,
}

/// The stop came, or the database is away: the next round goes on.
struct Interrupted;

impl Cleaner {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, settings: WorkerSettings) -> Self {
        Self { store, clock, settings }
    }

    pub async fn run(self, soft: CancellationToken) {
        loop {
            if self.round(&soft).await.is_err() {
                debug!("Deletion by age was interrupted");
            }
            tokio::select! {
                () = soft.cancelled() => return,
                () = tokio::time::sleep(ROUND_EVERY) => {}
            }
        }
    }

    /// The moment before which something may go; `None` where it is kept for ever.
    fn before(&self, days: u32) -> Option<Timestamp> {
        (days > 0).then(|| self.clock.now() - Duration::from_hours(24) * days)
    }

    async fn round(&self, soft: &CancellationToken) -> Result<(), Interrupted> {
        let (store, settings) = (&self.store, &self.settings);
        if let Some(before) = self.before(settings.events_kept_days) {
            self.steps("events", soft, |after| {
                store.delete_events(None, before, after, EVENTS_A_STEP)
            })
            .await?;
            self.steps("jobs", soft, |_| {
                store.delete_jobs(None, before, ROWS_A_STEP).map_ok(whole)
            })
            .await?;
        }
        if let Some(before) = self.before(settings.dead_events_kept_days) {
            self.steps("dead_events", soft, |_| {
                store.delete_dead_events(None, before, ROWS_A_STEP).map_ok(whole)
            })
            .await?;
            self.steps("quarantine", soft, |_| {
                store.delete_quarantined(before, ROWS_A_STEP).map_ok(whole)
            })
            .await?;
        }
        self.own_times(soft).await?;
        if let Some(before) = self.before(settings.audit_kept_days) {
            self.steps("audit", soft, |_| store.delete_audit(before, ROWS_A_STEP).map_ok(whole))
                .await?;
        }
        if let Some(before) = self.before(settings.keys_kept_days) {
            for table in [KeyTable::Dedupe, KeyTable::Idempotency] {
                self.steps("keys", soft, |after| {
                    store.delete_keys(table, before, after, ROWS_A_STEP)
                })
                .await?;
            }
        }
        let today = self.clock.now().utc_day();
        let last = |deleted| Step::<()> { deleted, next: None };
        self.steps("days", soft, |_| store.delete_days(today).map_ok(last))
            .await
    }

    /// The organisations that keep what is theirs for less time than the installation. Without any
    /// this is one look at an empty index.
    async fn own_times(&self, soft: &CancellationToken) -> Result<(), Interrupted> {
        let store = &self.store;
        let is_less = |own: u32, kept: u32| kept == 0 || own < kept;
        let mut after = None;
        loop {
            let page = store.list_own_retention(after, ROWS_A_STEP).await.map_err(|error| {
                warn!(%error, "Organisations with a retention of their own cannot be read for now");
                Interrupted
            })?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            for (org, days) in page {
                // A time that cannot be read deletes nothing before the installation's.
                let Some((days, before)) = days.and_then(|days| Some((days, self.before(days)?))) else {
                    continue;
                };
                if is_less(days, self.settings.events_kept_days) {
                    self.steps("events", soft, |after| {
                        store.delete_events(Some(org), before, after, EVENTS_A_STEP)
                    })
                    .await?;
                    self.steps("jobs", soft, |_| {
                        store.delete_jobs(Some(org), before, ROWS_A_STEP).map_ok(whole)
                    })
                    .await?;
                }
                if is_less(days, self.settings.dead_events_kept_days) {
                    self.steps("dead_events", soft, |_| {
                        store.delete_dead_events(Some(org), before, ROWS_A_STEP).map_ok(whole)
                    })
                    .await?;
                }
            }
        }
    }

    /// Takes steps until the end of a table.
    async fn steps<P, F>(
        &self,
        what: &'static str,
        soft: &CancellationToken,
        mut step: impl FnMut(Option<P>) -> F,
    ) -> Result<(), Interrupted>
    where
        F: Future<Output = Result<Step<P>, StoreError>>,
    {
        let (mut after, mut deleted) = (None, 0);
        loop {
            let begun = Instant::now();
            let done = step(after).await.map_err(|error| {
                warn!(%error, "Old {what} cannot be deleted for now");
                Interrupted
            })?;
            deleted += done.deleted;
            catalogue::RETENTION_DELETED.count(done.deleted, &[what]);
            if done.next.is_none() {
                if deleted > 0 {
                    info!("Deleted {deleted} rows of old {what} with what belongs to them");
                }
                return Ok(());
            }
            after = done.next;
            let pause = (begun.elapsed() * PAUSE_TIMES).max(PAUSE_MIN);
            tokio::select! {
                () = soft.cancelled() => return Err(Interrupted),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// A table of which the oldest rows are deleted until there are none.
fn whole(deleted: u64) -> Step<()> {
    Step {
        deleted,
        next: (deleted > 0).then_some(()),
    }
}
