//! From verified to durable.

use super::answer::Cause;
use crate::{
    domain::VerifiedEvent,
    queue::{EventQueue, PublishError},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

/// Permits to publish, one for each event that is being made durable. An event that gets no permit
/// in time is refused while its sender still listens, so that a slow disk does not fill memory.
pub(super) struct PublishPermits {
    permits: Arc<Semaphore>,
    seconds_max: Duration,
}

impl PublishPermits {
    pub(super) fn new(count: usize, seconds_max: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(count.max(1))),
            seconds_max,
        }
    }

    async fn acquire(&self) -> Result<OwnedSemaphorePermit, Cause> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        match tokio::time::timeout(self.seconds_max, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(Cause::Unavailable),
        }
    }
}

/// Publishes in a task of its own, so that a sender that hangs up cancels nothing. The outcome of
/// an event that is not confirmed within `seconds_max` is unknown, and its sender gets 503: the
/// dedupe key absorbs the second copy. Only verified events take permits, so that unverified
/// requests never delay them.
pub(super) async fn publish(
    queue: &Arc<dyn EventQueue>,
    permits: &PublishPermits,
    tasks: &TaskTracker,
    event: VerifiedEvent,
    seconds_max: Duration,
) -> Result<(), Cause> {
    let queue = Arc::clone(queue);
    let permit = permits.acquire().await?;
    let publishing = tasks.spawn(async move {
        // The permit is held until the outcome is known, even after the sender was answered: no
        // more events than permits hang in the queue.
        let _permit = permit;
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
