//! From verified to durable.

use super::answer::Cause;
use crate::{
    domain::VerifiedEvent,
    queue::{EventQueue, PublishError},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

/// How many events are being made durable at once, and how long the next one waits for a place:
/// what a disk cannot take in time is refused while its sender still listens, rather than kept in
/// ever more memory.
pub(super) struct Turns {
    places: Arc<Semaphore>,
    seconds_max: Duration,
}

impl Turns {
    pub(super) fn new(count: usize, seconds_max: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(count.max(1))),
            seconds_max,
        }
    }

    async fn take(&self) -> Result<OwnedSemaphorePermit, Cause> {
        if let Ok(turn) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(turn);
        }
        match tokio::time::timeout(self.seconds_max, Arc::clone(&self.places).acquire_owned()).await {
            Ok(turn) => Ok(turn.expect("the semaphore is never closed")),
            Err(_) => Err(Cause::Unavailable),
        }
    }
}

/// Publishes in a task of its own: a sender that hangs up cancels nothing. What is not confirmed
/// within `seconds_max` is unknown, which a sender is told as 503: what it sends again is absorbed
/// by the dedupe key. Only verified events take turns, so that strangers never stand before them.
pub(super) async fn publish(
    queue: &Arc<dyn EventQueue>,
    turns: &Turns,
    tasks: &TaskTracker,
    event: VerifiedEvent,
    seconds_max: Duration,
) -> Result<(), Cause> {
    let queue = Arc::clone(queue);
    let turn = turns.take().await?;
    let publishing = tasks.spawn(async move {
        // Held until the outcome is known, also past the sender's patience: what hangs in the queue
        // is never more than there are turns.
        let _turn = turn;
        let outcome = queue.publish(&event).await;
        if let Err(error @ PublishError::Failed { .. }) = &outcome {
            // The queue says once what failed; this line says which event was not taken.
            tracing::debug!(event.id = %event.envelope().id, error = %error, "The event was not made durable");
        }
        outcome
    });
    match tokio::time::timeout(seconds_max, publishing).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(PublishError::TooLarge { .. }))) => Err(Cause::TooLarge),
        Ok(Ok(Err(_)) | Err(_)) | Err(_) => Err(Cause::Unavailable),
    }
}
