//! The rows of the store by which workers share a broker's queues out.

use crate::{
    queue::{LeaseError, QueueLeases},
    store::{Store, queue_shares::ShareRequest},
};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// How long a worker that says nothing keeps its queues. Three of the periods in which it renews.
const LEASE_SECONDS: Duration = Duration::from_secs(15);

/// The leases of one worker.
pub struct StoredLeases {
    store: Arc<dyn Store>,
    group: Box<str>,
    worker: Uuid,
}

impl StoredLeases {
    /// `group` is what the names of the queues begin with: workers of one group share.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, group: &str) -> Self {
        Self {
            store,
            group: group.into(),
            worker: Uuid::now_v7(),
        }
    }
}

#[async_trait]
impl QueueLeases for StoredLeases {
    async fn share(&self, queues: u16) -> Result<Vec<u16>, LeaseError> {
        let request = ShareRequest {
            group: self.group.clone(),
            worker: self.worker,
            queues,
            lease: LEASE_SECONDS,
        };
        let shared = self.store.share_queues(request).await;
        shared.map_err(|error| LeaseError {
            reason: error.to_string(),
        })
    }

    async fn release(&self) {
        if let Err(error) = self.store.release_queues(&self.group, self.worker).await {
            tracing::warn!(%error, "The queues are not given back: another worker takes them when the lease ends");
        }
    }
}
