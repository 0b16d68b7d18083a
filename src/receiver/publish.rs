//! From verified to durable.

use super::answer::Cause;
use crate::{
    domain::VerifiedEvent,
    queue::{EventQueue, PublishError},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Publishes in a task of its own: a sender that hangs up cancels nothing. What is not confirmed within `seconds_max` is unknown, which a sender
/// is told as 503: what it sends again is absorbed by the dedupe key. Only verified events take turns, so that strangers never stand before them.
pub(super) async fn publish(
    queue: &Arc<dyn EventQueue>,
    turns: &Arc<Semaphore>,
    tasks: &TaskTracker,
    event: VerifiedEvent,
    seconds_max: Duration,
) -> Result<(), Cause> {
    let (queue, turns) = (Arc::clone(queue), Arc::clone(turns));
    let publishing = tasks.spawn(async move {
        let _turn = turns.acquire().await.expect("the semaphore is never closed");
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
