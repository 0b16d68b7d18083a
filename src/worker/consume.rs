//! Takes batches from the queue, has them planned, acks what is done.

use super::{Pause, Worker, plan::Planner, rules::RuleBook};
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
        let mut pause = Pause::default();
        let mut deliveries = loop {
            match self.worker.queue.consume().await {
                Ok(deliveries) => break deliveries,
                Err(error) => {
                    error!(%error, "The worker cannot take events from the queue");
                    if pause.wait_or(&soft).await {
                        return;
                    }
                }
            }
        };
        let mut changes = self.worker.store.config_changes();
        let batch_max = self.worker.settings.plan_batch_max.max(1);
        while !soft.is_cancelled() {
            let batch = tokio::select! {
                () = soft.cancelled() => return,
                // What is held waits for a change of configuration, and for nothing else.
                changed = changes.changed(), if !self.held.is_empty() && changes.has_changed().is_ok() => {
                    let _ = changed;
                    Vec::new()
                }
                batch = deliveries.next_batch(batch_max), if self.held.len() < HELD_MAX => match batch {
                    // The queue was closed.
                    Ok(batch) if batch.is_empty() => return,
                    Ok(batch) => {
                        reach(Step::Delivered);
                        batch
                    }
                    Err(error) => {
                        error!(%error, "The worker cannot take events from the queue");
                        if pause.wait_or(&soft).await {
                            return;
                        }
                        continue;
                    }
                },
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

    /// Plans a batch, waiting as long as it takes. `None` when the stop came first: what is not
    /// acked comes back.
    async fn plan(&mut self, mut batch: Vec<Delivery>, soft: &CancellationToken) -> Option<Vec<DeliveryTag>> {
        let begun = Instant::now();
        let mut pause = Pause::default();
        // The version is read after the batch was fetched: only then can "no rule wants it" be
        // believed (invariant 7).
        while let Err(error) = self.book.refresh(&*self.worker.store).await {
            warn!(%error, "The rules cannot be read: {} events wait", batch.len());
            catalogue::CONSUMER_IDLE_WITH_BACKLOG_SECONDS.set(begun.elapsed().as_secs_f64(), &[]);
            if pause.wait_or(soft).await {
                return None;
            }
        }
        if self.held_at_version != self.book.version() {
            self.held_at_version = self.book.version();
            // Older ones first.
            let newer = std::mem::replace(&mut batch, std::mem::take(&mut self.held));
            batch.extend(newer);
        }
        if batch.is_empty() {
            return Some(Vec::new());
        }
        let mut done = Vec::with_capacity(batch.len());
        let mut prepared = self.planner.prepare(&self.book, batch, &mut done, &mut self.held).await;
        let mut pause = Pause::default();
        while !self.planner.commit(&mut prepared, &mut done, &mut self.held).await {
            warn!("The database is away: {} planned events wait", prepared.len());
            catalogue::CONSUMER_IDLE_WITH_BACKLOG_SECONDS.set(begun.elapsed().as_secs_f64(), &[]);
            if pause.wait_or(soft).await {
                return None;
            }
        }
        catalogue::CONSUMER_IDLE_WITH_BACKLOG_SECONDS.set(0.0, &[]);
        catalogue::PLAN_SECONDS.observe(begun.elapsed().as_secs_f64(), &[]);
        self.wake.notify_one();
        Some(done)
    }
}

async fn ack(deliveries: &mut dyn Deliveries, done: &[DeliveryTag], soft: &CancellationToken) -> bool {
    let mut pause = Pause::default();
    while let Err(error) = deliveries.ack(done).await {
        // Planned and not acked: they come back after a restart, and dedupe absorbs them.
        error!(%error, "Planned events cannot be acked");
        if pause.wait_or(soft).await {
            return false;
        }
    }
    true
}
