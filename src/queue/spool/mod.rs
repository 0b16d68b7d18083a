//! The spool: a log on local disk that takes events while the broker is away or slow.
//!
//! `queue::connect_with_spool` builds it for a receiver. The receiver is either *direct* or
//! *spooling*. The first publish that the broker refuses or leaves unknown switches it to spooling.
//! From then on every event goes through the spool, until the spool is empty and confirmed. So no
//! event of a subject overtakes an earlier one. **Invariant:** an event that was confirmed stands
//! in the broker or on the spool's disk (invariants 10 to 12).

mod dead;
mod diagnose;
mod drain;
mod volatile;

use super::{
    ConnectError, ConsumeError, Deliveries, EventQueue, LogQueue, LogSettings, PublishError, QueueLeases, QueueState,
    SpoolState,
};
use crate::{
    config::QueueSettings,
    domain::{Clock, VerifiedEvent},
    telemetry::catalogue,
};
use async_trait::async_trait;
use dead::DeadEntries;
pub use dead::dead_entries;
pub(super) use diagnose::diagnose;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

/// Limits and places of a spool.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    pub directory: PathBuf,
    pub log: LogSettings,
    /// An event whose confirm takes longer goes to the spool.
    pub publish_seconds_max: Duration,
    /// Closing waits this long for the spool to drain.
    pub drain_seconds_max: Duration,
    /// Accept a directory that does not survive a restart; for development.
    pub may_be_volatile: bool,
}

impl SpoolSettings {
    /// `event_bytes_max` limits one event with its attributes.
    #[must_use]
    pub fn new(settings: &QueueSettings, event_bytes_max: usize) -> Self {
        Self {
            directory: settings.spool_directory.clone().into(),
            log: LogSettings {
                bytes_max: settings.spool_bytes_max,
                ..LogSettings::new(settings, event_bytes_max)
            },
            publish_seconds_max: settings.broker_seconds_max(),
            drain_seconds_max: settings.spool_drain_seconds_max,
            may_be_volatile: settings.spool_may_be_volatile,
        }
    }
}

/// A broker with a spool in front of it. Consumers read the broker only.
pub struct SpoolQueue {
    shared: Arc<Shared>,
    /// Ends the drain.
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The state that publishers and the drain share.
struct Shared {
    broker: Arc<dyn EventQueue>,
    log: LogQueue,
    dead: DeadEntries,
    settings: SpoolSettings,
    gate: Mutex<Gate>,
    /// Wakes the drain: no append is under way any more.
    appends_ended: Notify,
    /// Whether the receiver is spooling, for those who wait for the end of it.
    spooling: watch::Sender<bool>,
    closing: CancellationToken,
}

/// Decides where the next event goes. Held for an instant, never over a wait.
struct Gate {
    is_spooling: bool,
    /// Events on their way into the spool. While there is one, the receiver stays spooling: an
    /// event that went direct would overtake it.
    appending: usize,
}

/// One event's way into the spool.
struct Appending<'s>(&'s Shared);

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        let mut gate = self.0.gate();
        gate.appending -= 1;
        if gate.appending == 0 {
            self.0.appends_ended.notify_one();
        }
    }
}

impl SpoolQueue {
    /// Opens the spool in its directory, which is created if it is missing. Entries that an earlier
    /// process left are drained first: the receiver begins as spooling then.
    ///
    /// # Errors
    /// The directory is volatile or in use, a segment is damaged, or the disk cannot be written to.
    pub async fn open(
        broker: Arc<dyn EventQueue>,
        settings: SpoolSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConnectError> {
        let log = LogQueue::open(&settings.directory, settings.log.clone(), clock).await?;
        if !settings.may_be_volatile {
            volatile::refuse_volatile(&settings.directory)?;
        }
        let left = log.state().events;
        if left > 0 {
            info!(events = left, directory = %settings.directory.display(), "An earlier process left events in the \
                spool: they are drained first");
        }
        let records = log
            .consume_records()
            .expect("a log that was just opened has no consumer");
        let shared = Arc::new(Shared {
            broker,
            log,
            dead: DeadEntries::new(&settings.directory),
            settings,
            gate: Mutex::new(Gate {
                is_spooling: left > 0,
                appending: 0,
            }),
            appends_ended: Notify::new(),
            spooling: watch::Sender::new(left > 0),
            closing: CancellationToken::new(),
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(drain::run(shared.clone(), records, stop.clone()));
        Ok(Self { shared, stop, tasks })
    }

    /// Returns when the spool is empty and the receiver direct.
    pub async fn drained(&self) {
        let _ = self.shared.spooling.subscribe().wait_for(|spooling| !*spooling).await;
    }
}

impl Shared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A way into the spool, where the receiver is spooling.
    fn append_if_spooling(&self) -> Option<Appending<'_>> {
        let mut gate = self.gate();
        gate.is_spooling.then(|| {
            gate.appending += 1;
            Appending(self)
        })
    }

    /// Switches to spooling, where that has not happened yet, and opens a way into the spool.
    fn append_after(&self, error: &PublishError) -> Appending<'_> {
        let mut gate = self.gate();
        gate.appending += 1;
        if !std::mem::replace(&mut gate.is_spooling, true) {
            self.spooling.send_replace(true);
            drop(gate);
            catalogue::SPOOL_SWITCHES.count(1, &[]);
            warn!(%error, "The broker did not take an event: events go to the spool until it is drained");
        }
        Appending(self)
    }

    /// Switches back to direct, where the spool is empty and no event is on its way into it.
    fn go_direct_if_drained(&self) {
        let mut gate = self.gate();
        if gate.is_spooling && gate.appending == 0 && self.log.state().events == 0 {
            gate.is_spooling = false;
            self.spooling.send_replace(false);
            drop(gate);
            info!("The spool is drained: events go to the broker again");
        }
    }

    /// One publish with its deadline. An event without a confirm by then is unknown.
    async fn publish_to_broker(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let seconds_max = self.settings.publish_seconds_max;
        timeout(seconds_max, self.broker.publish(event))
            .await
            .unwrap_or_else(|_| {
                Err(PublishError::Unknown {
                    reason: format!("no confirm within {seconds_max:?}").into(),
                })
            })
    }
}

#[async_trait]
impl EventQueue for SpoolQueue {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let shared = &*self.shared;
        if shared.closing.is_cancelled() {
            return Err(PublishError::Closed);
        }
        let appending = match shared.append_if_spooling() {
            // It would only be set aside later.
            Some(appending) => shared.broker.check(event).map(|()| appending)?,
            None => match shared.publish_to_broker(event).await {
                Ok(()) => return Ok(()),
                // The broker will never take it: neither would it from the spool.
                Err(error @ PublishError::TooLarge { .. }) => return Err(error),
                Err(error) => shared.append_after(&error),
            },
        };
        let outcome = shared.log.publish(event).await;
        drop(appending);
        if outcome.is_ok() {
            catalogue::SPOOL_EVENTS.count(1, &["spooled"]);
        }
        outcome
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        self.shared.broker.consume().await
    }

    fn share_by(&self, leases: Arc<dyn QueueLeases>) {
        self.shared.broker.share_by(leases);
    }

    fn state(&self) -> QueueState {
        self.shared.broker.state()
    }

    fn spool(&self) -> Option<SpoolState> {
        let QueueState {
            events,
            bytes,
            bytes_max,
            oldest_received_at,
            disk_free_bytes,
            disk_free_bytes_min,
            health,
            ..
        } = self.shared.log.state();
        Some(SpoolState {
            is_spooling: self.shared.gate().is_spooling,
            events,
            bytes,
            bytes_max,
            oldest_received_at,
            disk_free_bytes,
            disk_free_bytes_min,
            health,
            directory: Arc::from(&*self.shared.settings.directory),
        })
    }

    async fn failed(&self) -> Arc<str> {
        tokio::select! {
            reason = self.shared.log.failed() => reason,
            reason = self.shared.broker.failed() => reason,
        }
    }

    /// Refuses further publishes, drains for a while, and then leaves the rest to the next process
    /// that opens the directory (invariant 12).
    async fn close(&self) {
        self.shared.closing.cancel();
        let _ = timeout(self.shared.settings.drain_seconds_max, self.drained()).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.shared.log.close().await;
        self.shared.broker.close().await;
        let left = self.shared.log.state().events;
        if left > 0 {
            error!(events = left, directory = %self.shared.settings.directory.display(), "The spool could not be \
                drained: keep its directory, and start the receiver on it again");
        }
    }
}

impl Drop for SpoolQueue {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
