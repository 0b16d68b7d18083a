//! Takes batches from the queue, has them planned, acks what is done.

use super::{
    RetryWait, Worker,
    batch::{Batch, Commit, Origin},
    held::InMemory,
    plan::Planner,
    rules::RuleBook,
};
use crate::{
    domain::{EventId, OrgId},
    killpoint::{Step, reach},
    queue::{Deliveries, Delivery, DeliveryTag},
    store::{StoreError, ledger::TRIES_MAX},
    telemetry::catalogue,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Events that wait behind those of all others in memory at most. Beyond it nothing more is taken
/// until some are stored.
const SUSPECTS_MAX: usize = 10_000;
/// An event that was delivered so often in vain is planned alone, and each try is recorded first
/// (invariant 26). A worker that is killed for another reason gives back many events at once.
const REDELIVERIES_MAX: u32 = 3;
/// Between two looks at what is held in the store, where no change of configuration asks for one.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// The next step of the loop after a wait.
enum Next {
    /// Plan these deliveries, and what else is due.
    Plan(Vec<Delivery>),
    TryAgain,
    Stop,
}

/// A queue that cannot be read.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    retry: RetryWait,
}

pub(super) struct Consumer {
    worker: Worker,
    planner: Planner,
    wake: Arc<Notify>,
    book: RuleBook,
    /// Deliveries that cannot be planned by this book (invariant 7).
    held: InMemory,
    held_at_version: i64,
    /// Whether what is held in memory is to be planned again.
    is_held_ready: bool,
    looked_at: tokio::time::Instant,
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
            held: InMemory::default(),
            held_at_version: 0,
            is_held_ready: false,
            looked_at: tokio::time::Instant::now(),
        }
    }

    pub async fn run(mut self, soft: CancellationToken) {
        let Some(mut deliveries) = self.open(&soft).await else {
            return;
        };
        let mut trouble = Trouble::default();
        let mut changes = self.worker.store.config_changes();
        // Held events may have waited for this release, or for a key of the ring.
        if self.plan(Vec::new(), &soft).await.is_none() {
            return;
        }
        while !soft.is_cancelled() {
            let batch = match self.next(&mut *deliveries, &mut changes, &mut trouble, &soft).await {
                Next::Plan(batch) => batch,
                Next::TryAgain => continue,
                Next::Stop => return,
            };
            for part in apart(batch) {
                if !self.work_off(&mut *deliveries, part, &soft).await {
                    return;
                }
            }
        }
    }

    /// Plans deliveries, and acks what is done. `false` when the stop came first.
    async fn work_off(
        &mut self,
        deliveries: &mut dyn Deliveries,
        part: Vec<Delivery>,
        soft: &CancellationToken,
    ) -> bool {
        let suspect = part.first().filter(|first| is_suspect(first)).and_then(place_of);
        if let Some((org, event)) = suspect
            && !self.begin_try(org, event, soft).await
        {
            return false;
        }
        let Some(done) = self.plan(part, soft).await else {
            return false;
        };
        self.planner.condemned = None;
        if let Some((org, event)) = suspect
            && !self.end_try(org, event, soft).await
        {
            return false;
        }
        if !self.forget(deliveries, &done, soft).await {
            return false;
        }
        reach(Step::Acked);
        self.keep_held(deliveries, soft).await
    }

    /// Records the try. An event that has used up its tries is planned no more. `false` when the
    /// stop came first.
    async fn begin_try(&mut self, org: OrgId, event: EventId, soft: &CancellationToken) -> bool {
        let mut retry = RetryWait::default();
        loop {
            match self.worker.store.begin_try(org, event).await {
                Ok(tries) => {
                    self.planner.condemned = (tries >= TRIES_MAX).then_some(event);
                    return true;
                }
                Err(error) => warn!(event.id = %event, %error, "Event {event} waits: its try cannot be recorded"),
            }
            if retry.wait_or(soft).await {
                return false;
            }
        }
    }

    /// `false` when the stop came first.
    async fn end_try(&self, org: OrgId, event: EventId, soft: &CancellationToken) -> bool {
        let mut retry = RetryWait::default();
        while let Err(error) = self.worker.store.end_try(org, event).await {
            warn!(event.id = %event, %error, "Event {event} is planned, and its tries cannot be forgotten");
            if retry.wait_or(soft).await {
                return false;
            }
        }
        true
    }

    /// Opens the queue, waiting as long as it takes. `None` when the stop came first.
    async fn open(&self, soft: &CancellationToken) -> Option<Box<dyn Deliveries>> {
        let mut retry = RetryWait::default();
        loop {
            match self.worker.queue.consume().await {
                Ok(deliveries) => return Some(deliveries),
                Err(error) => {
                    error!(%error, "The worker cannot take events from the queue");
                    if retry.wait_or(soft).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Waits for the next deliveries, or for another reason to plan.
    async fn next(
        &self,
        deliveries: &mut dyn Deliveries,
        changes: &mut watch::Receiver<i64>,
        trouble: &mut Trouble,
        soft: &CancellationToken,
    ) -> Next {
        let batch_max = self.worker.settings.plan_batch_max.max(1);
        tokio::select! {
            biased;
            () = soft.cancelled() => Next::Stop,
            // Held events wait for a change of configuration.
            changed = changes.changed(), if changes.has_changed().is_ok() => {
                let _ = changed;
                Next::Plan(Vec::new())
            }
            batch = deliveries.next_batch(batch_max), if self.planner.suspects.len() < SUSPECTS_MAX => match batch {
                // The queue was closed.
                Ok(batch) if batch.is_empty() => Next::Stop,
                Ok(batch) => {
                    *trouble = Trouble::default();
                    reach(Step::Delivered);
                    Next::Plan(batch)
                }
                Err(error) => {
                    error!(%error, "The worker cannot take events from the queue");
                    idle_since(*trouble.since.get_or_insert_with(Instant::now));
                    if trouble.retry.wait_or(soft).await {
                        return Next::Stop;
                    }
                    Next::TryAgain
                }
            },
            // Nothing new: the events that wait behind all others go on.
            () = std::future::ready(()), if self.planner.has_waiting() || self.is_held_ready => Next::Plan(Vec::new()),
            () = tokio::time::sleep_until(self.next_look()) => Next::Plan(Vec::new()),
        }
    }

    /// When something is due without a delivery or a change.
    fn next_look(&self) -> tokio::time::Instant {
        let look_at = self.looked_at + LOOK_EVERY;
        let wait = self.worker.settings.held_seconds_max;
        self.held.due_at(wait).map_or(look_at, |due_at| due_at.min(look_at))
    }

    /// Moves what has been held in memory long enough to the store, and acks it. `false` when the
    /// stop came first.
    async fn keep_held(&mut self, deliveries: &mut dyn Deliveries, soft: &CancellationToken) -> bool {
        let wait = self.worker.settings.held_seconds_max;
        loop {
            let due = self.held.take_due(wait);
            if due.is_empty() {
                return true;
            }
            let mut retry = RetryWait::default();
            while let Err(error) = self.planner.keep(&due).await {
                warn!(%error, "{} events that cannot be planned yet wait in the queue", due.len());
                if retry.wait_or(soft).await {
                    return false;
                }
            }
            let done: Vec<Origin> = due.iter().map(|(tag, _)| Origin::Delivery(*tag)).collect();
            if !self.forget(deliveries, &done, soft).await {
                return false;
            }
        }
    }

    /// Forgets events that are done, where they come from. `false` when the stop came first.
    async fn forget(&self, deliveries: &mut dyn Deliveries, done: &[Origin], soft: &CancellationToken) -> bool {
        let mut retry = RetryWait::default();
        while let Err(error) = self.planner.forget_stored(done).await {
            // They would be planned again, and dedupe absorbs them.
            warn!(%error, "Planned events cannot be taken out of those that wait");
            if !matches!(error, StoreError::Unavailable { .. }) {
                break;
            }
            if retry.wait_or(soft).await {
                return false;
            }
        }
        let tags: Vec<DeliveryTag> = done
            .iter()
            .filter_map(|origin| match origin {
                Origin::Delivery(tag) => Some(*tag),
                _ => None,
            })
            .collect();
        ack(deliveries, &tags, soft).await
    }

    /// Plans a batch, waiting as long as it takes. `None` when the stop came first: what is not
    /// acked comes back.
    async fn plan(&mut self, deliveries: Vec<Delivery>, soft: &CancellationToken) -> Option<Vec<Origin>> {
        let begun = Instant::now();
        self.refresh(deliveries.len(), begun, soft).await?;
        let is_changed = self.held_at_version != self.book.version();
        if (is_changed || self.looked_at.elapsed() >= LOOK_EVERY) && !self.look(soft).await {
            return None;
        }
        let deliveries = self.behind_held(deliveries, is_changed);
        if deliveries.is_empty() && !self.planner.has_waiting() {
            return Some(Vec::new());
        }
        let was_draining = !self.planner.draining.is_empty();
        let mut batch = self.prepare(deliveries, soft).await?;
        self.commit(&mut batch, begun, soft).await?;
        catalogue::CONSUMER_IDLE_WITH_BACKLOG_SECONDS.set(0.0, &[]);
        catalogue::PLAN_SECONDS.observe(begun.elapsed().as_secs_f64(), &[]);
        // Events that nobody wants give the executor nothing to claim, and each look is a
        // transaction.
        if std::mem::take(&mut self.planner.has_new_actions) {
            self.wake.notify_one();
        }
        self.planner.hold_back(&mut batch, &mut self.held);
        self.is_held_ready |= was_draining && self.planner.draining.is_empty();
        Some(batch.done)
    }

    /// Reads the rules and the actions of the day. `None` when the stop came first.
    async fn refresh(&mut self, waiting: usize, begun: Instant, soft: &CancellationToken) -> Option<()> {
        let mut retry = RetryWait::default();
        // The version is read after the batch was fetched: only then can "no rule wants it" be
        // believed (invariant 7).
        while let Err(error) = self.book.refresh(&*self.worker.store).await {
            warn!(%error, "The rules cannot be read: {waiting} events wait");
            idle_since(begun);
            if retry.wait_or(soft).await {
                return None;
            }
        }
        let mut retry = RetryWait::default();
        while let Err(error) = self.planner.refresh_recovery(self.book.version()).await {
            warn!(%error, "The last recovery cannot be read: {waiting} events wait");
            idle_since(begun);
            if retry.wait_or(soft).await {
                return None;
            }
        }
        let mut retry = RetryWait::default();
        while let Err(error) = self.planner.refresh_day().await {
            warn!(%error, "The actions of the day cannot be read: {waiting} events wait");
            idle_since(begun);
            if retry.wait_or(soft).await {
                return None;
            }
        }
        Some(())
    }

    /// The deliveries, behind those held in memory that can be planned again: these are older.
    fn behind_held(&mut self, deliveries: Vec<Delivery>, is_changed: bool) -> Vec<Delivery> {
        // Events that came while older events of their organisation were planned go on after those.
        let is_ready = is_changed || (self.is_held_ready && self.planner.draining.is_empty());
        if !is_ready {
            return deliveries;
        }
        self.is_held_ready = false;
        let held = self.held.take_all().map(|(tag, held)| {
            let event = Ok(held.envelope);
            Delivery {
                tag,
                event,
                redeliveries: 0,
            }
        });
        held.chain(deliveries).collect()
    }

    /// Drafts what the rules want of each event. `None` when the stop came first.
    async fn prepare(&mut self, deliveries: Vec<Delivery>, soft: &CancellationToken) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut retry = RetryWait::default();
        while let Err(error) = self.planner.prepare_held(&self.book, &mut batch).await {
            warn!(%error, "The held events cannot be read: {} events wait", deliveries.len());
            if retry.wait_or(soft).await {
                return None;
            }
        }
        self.planner.prepare(&self.book, &mut batch, deliveries).await;
        Some(batch)
    }

    /// Stores the batch. `None` when the stop came first.
    async fn commit(&mut self, batch: &mut Batch, begun: Instant, soft: &CancellationToken) -> Option<()> {
        let mut retry = RetryWait::default();
        while self.planner.commit(batch).await == Commit::DatabaseAway {
            warn!("The database is away: {} planned events wait", batch.waiting());
            idle_since(begun);
            if retry.wait_or(soft).await {
                return None;
            }
        }
        Some(())
    }

    /// Looks at what is held in the store. `false` when the stop came first.
    async fn look(&mut self, soft: &CancellationToken) -> bool {
        self.planner.plan_held_parts(&self.book).await;
        let mut retry = RetryWait::default();
        while let Err(error) = self.planner.look_for_held(&self.book).await {
            warn!(%error, "Events that wait in the database cannot be looked at for now");
            if !matches!(error, StoreError::Unavailable { .. }) {
                break;
            }
            if retry.wait_or(soft).await {
                return false;
            }
        }
        self.held_at_version = self.book.version();
        self.looked_at = tokio::time::Instant::now();
        self.wake.notify_one();
        true
    }
}

/// The batch in parts that are planned one after the other: a suspect is a part of its own.
fn apart(batch: Vec<Delivery>) -> Vec<Vec<Delivery>> {
    let mut parts = vec![Vec::new()];
    for delivery in batch {
        let last: &mut Vec<Delivery> = parts.last_mut().expect("there is one from the start");
        if last.is_empty() || !(is_suspect(&delivery) || is_suspect(&last[0])) {
            last.push(delivery);
        } else {
            parts.push(vec![delivery]);
        }
    }
    parts
}

const fn is_suspect(delivery: &Delivery) -> bool {
    delivery.redeliveries >= REDELIVERIES_MAX
}

/// `None`: no rule runs on it.
fn place_of(delivery: &Delivery) -> Option<(OrgId, EventId)> {
    let envelope = delivery.event.as_ref().ok()?;
    Some((envelope.org?, envelope.id))
}

/// Tells in the metric how long events have waited for the worker.
fn idle_since(begun: Instant) {
    catalogue::CONSUMER_IDLE_WITH_BACKLOG_SECONDS.set(begun.elapsed().as_secs_f64(), &[]);
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
