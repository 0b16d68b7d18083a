//! Which queues of a broker each worker consumes. The worker's process reads and writes its row.

use super::StoreError;
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// A worker asks for its share of the queues of a group.
#[derive(Clone, Debug)]
pub struct ShareRequest {
    /// The prefix of the queues' names.
    pub group: Box<str>,
    pub worker: Uuid,
    /// The queues are numbered from 0 to here.
    pub queues: u16,
    /// How long the share holds without a renewal, by the database's clock.
    pub lease: Duration,
}

#[async_trait]
pub trait QueueShares: Send + Sync + 'static {
    /// Renews a worker's lease and returns the queues that it holds from now on: an even share,
    /// and none that another living worker holds. A store that is not shared has one worker, which
    /// holds all queues.
    async fn share_queues(&self, request: ShareRequest) -> Result<Vec<u16>, StoreError>;
    /// Gives a worker's queues back.
    async fn release_queues(&self, group: &str, worker: Uuid) -> Result<(), StoreError>;
}
