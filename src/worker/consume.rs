//! Takes batches from the queue, has them planned, acks what is done.

use super::{RetryWait, Worker, batch::Commit, plan::Planner, rules::RuleBook};
use crate::{
    killpoint::{Step, reach},
    queue::{Deliveries, Delivery, DeliveryTag},
    telemetry::catalogue,
};
use std::{sync::Arc, time::Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Events of organisations that are not known (yet) that are held at most. Beyond it nothing more
/// is taken: they are not lost in the queue.
const HELD_MAX: usize = 10_000;

pub(super) struct Consumer {
    worker: Worker,
    planner: Planner,
    wake: Arc<Notify>,
    book: RuleBook,
    /// Deliveries of organisations that the book does not know: they wait for a newer one
    /// (invariant 7).
    held: Vec<Delivery>,
    held_at_version: i64,
}

impl Consumer {
    pub fn new(worker: Worker, wake: Arc<Notify>) -> Self {
        let planner = Planner::new(
            worker.store.clone(),
            worker.vault.clone(),
            worker.clock.clone(),
            worker.settings.clone(),
        );
        Self {
            worker,
            planner,
            wake,
            book: RuleBook::default(),
            held: Vec::new(),
            held_at_version: 0,
        }
    }

    pub async fn run(mut self, soft: CancellationToken) {
        let mut retry = RetryWait::default();
        let mut deliveries = loop {
            match self.worker.queue.consume().await {
                Ok(deliveries) => break deliveries,
                Err(error) => {
                    error!(%error, "The worker cannot take events from the queue");
                    if retry.wait_or(&soft).await {
                        return;
                    }
                }
            }
        };
        let mut changes = self.worker.store.config_changes();
        let batch_max = self.worker.settings.plan_batch_max.max(1);
        // What waited for a rule may have waited for this release.
        if self.plan(Vec::new(), &soft).await.is_none() {
            return;
        }
        while !soft.is_cancelled() {
            let batch = tokio::select! {
                biased;
                () = soft.cancelled() => return,
                // What is held waits for a change of configuration, and for nothing else.
                changed = changes.changed(), if changes.has_changed().is_ok() => {
                    let _ = changed;
                    Vec::new()
                }
                batch = deliveries.next_batch(batch_max), if self.waiting() < HELD_MAX => match batch {
                    // The queue was closed.
                    Ok(batch) if batch.is_empty() => return,
                    Ok(batch) => {
                        reach(Step::Delivered);
                        batch
                    }
                    Err(error) => {
                        error!(%error, "The worker cannot take events from the queue");
                        if retry.wait_or(&soft).await {
                            return;
                        }
                        continue;
                    }
                },
                // Nothing new: the events that wait behind all others go on.
                () = std::future::ready(()), if self.planner.suspects.len() > 0 => Vec::new(),
            };
            let Some(done) = self.plan(batch, &soft).await else {
                return;
            };
            if !ack(&mut *deliveries, &done, &soft).await {
                return;
            }
            reach(Step::Acked);
        }
    }

    /// Deliveries in memory that are not acked.
    fn waiting(&self) -> usize {
        self.held.len() + self.planner.suspects.len()
    }

    /// Plans a batch, waiting as long as it takes. `None` when the stop came first: what is not
    /// acked comes back.
    async fn plan(&mut self, mut deliveries: Vec<Delivery>, soft: &CancellationToken) -> Option<Vec<DeliveryTag>> {
        let begun = Instant::now();
        let mut retry = RetryWait::default();
        // The version is read after the batch was fetched: only then can "no rule wants it" be
        // believed (invariant 7).
        while let Err(error) = self.book.refresh(&*self.worker.store).await {
            warn!(%error, "The rules cannot be read: {} events wait", deliveries.len());
            catalogue::CONSUMER_IDLE_WITH_BACKLOG_SECONDS.set(begun.elapsed().as_secs_f64(), &[]);
            if retry.wait_or(soft).await {
                return None;
            }
        }
        if self.held_at_version != self.book.version() {
            self.held_at_version = self.book.version();
            self.planner.plan_held_parts(&self.book).await;
            self.wake.notify_one();
            // Older ones first.
            let newer = std::mem::replace(&mut deliveries, std::mem::take(&mut self.held));
            deliveries.extend(newer);
        }
        if deliveries.is_empty() && self.planner.suspects.len() == 0 {
            return Some(Vec::new());
        }
        let mut batch = self.planner.prepare(&self.book, deliveries).await;
        let mut retry = RetryWait::default();
        while self.planner.commit(&mut batch).await == Commit::DatabaseAway {
            warn!("The database is away: {} planned events wait", batch.waiting());
            catalogue::CONSUMER_IDLE_WITH_BACKLOG_SECONDS.set(begun.elapsed().as_secs_f64(), &[]);
            if retry.wait_or(soft).await {
                return None;
            }
        }
        catalogue::CONSUMER_IDLE_WITH_BACKLOG_SECONDS.set(0.0, &[]);
        catalogue::PLAN_SECONDS.observe(begun.elapsed().as_secs_f64(), &[]);
        self.wake.notify_one();
        self.held.append(&mut batch.held);
        Some(batch.done)
    }
}

async fn ack(deliveries: &mut dyn Deliveries, done: &[DeliveryTag], soft: &CancellationToken) -> bool {
    let mut retry = RetryWait::default();
    while let Err(error) = deliveries.ack(done).await {
        // Planned and not acked: they come back after a restart, and dedupe absorbs them.
        error!(%error, "Planned events cannot be acked");
        if retry.wait_or(soft).await {
            return false;
        }
    }
    true
}
