//! The queues that this worker consumes: those of its leases, or all of them.

use super::AmqpSettings;
use crate::queue::QueueLeases;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Time for the first answer. Without one this worker consumes all queues; the broker lets only one
/// consumer of a queue be active.
const FIRST_SECONDS: Duration = Duration::from_secs(2);

pub(super) struct Shares {
    leases: Option<Arc<dyn QueueLeases>>,
    queues: u16,
    period: Duration,
    held: watch::Sender<Vec<u16>>,
}

impl Shares {
    pub fn new(leases: Option<Arc<dyn QueueLeases>>, settings: &AmqpSettings, queues: usize) -> Self {
        let queues = u16::try_from(queues).unwrap_or(u16::MAX);
        Self {
            leases,
            queues,
            period: settings.share_period,
            held: watch::Sender::new((0..queues).collect()),
        }
    }

    pub fn held(&self) -> watch::Receiver<Vec<u16>> {
        self.held.subscribe()
    }

    /// Asks once, before the first consumer is made.
    pub async fn begin(&self) {
        let _ = tokio::time::timeout(FIRST_SECONDS, self.ask()).await;
    }

    /// Renews until the stop, then gives back.
    pub async fn keep(&self, stop: &CancellationToken) {
        let Some(leases) = &self.leases else { return };
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.period) => {}
            }
            let _ = tokio::time::timeout(self.period * 2, self.ask()).await;
        }
        let _ = tokio::time::timeout(self.period, leases.release()).await;
    }

    async fn ask(&self) {
        let Some(leases) = &self.leases else { return };
        match leases.share(self.queues).await {
            Ok(mut numbers) => {
                numbers.sort_unstable();
                self.held.send_if_modified(|held| {
                    let is_other = *held != numbers;
                    *held = numbers;
                    is_other
                });
            }
            // This worker goes on with its queues. The broker keeps other consumers inactive.
            Err(error) => warn!(%error, "The queues are not shared out anew"),
        }
    }
}
