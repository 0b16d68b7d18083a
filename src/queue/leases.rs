//! Shares the queues of a broker out among several workers.

use async_trait::async_trait;

/// Shares a fixed number of queues out among workers. The store's rows implement it, in `cli`: this
/// room knows no store.
///
/// A lease only spares workers idle consumers. The broker itself keeps two workers from consuming
/// one queue at once (single active consumer), even while the leases cannot be read.
#[async_trait]
pub trait QueueLeases: Send + Sync + 'static {
    /// Renews this worker's leases, gives back those above its even share, and takes free ones up
    /// to that share. Returns the queues that it holds from now on, of `0..queues`.
    ///
    /// # Errors
    /// The leases cannot be read. The queues that were held stay held until the lease's end.
    async fn share(&self, queues: u16) -> Result<Vec<u16>, LeaseError>;

    /// Gives all leases back, because the worker stops.
    async fn release(&self);
}

#[derive(Debug, thiserror::Error)]
#[error("the leases of the queues cannot be renewed: {reason}")]
pub struct LeaseError {
    pub reason: String,
}
