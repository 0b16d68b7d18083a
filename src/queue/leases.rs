//! Who of several workers consumes which queue of a broker.

use async_trait::async_trait;

/// Shares a fixed number of queues out among workers. The store's rows implement it, in `cli`: this
/// room knows no store.
///
/// A lease only spares workers idle consumers. That two workers never consume one queue at once is
/// held by the broker (single active consumer), also while nobody answers here.
#[async_trait]
pub trait QueueLeases: Send + Sync + 'static {
    /// Renews the leases that this worker holds, gives back what is over its even share and takes
    /// what is free, up to that share. The numbers that it holds from now on, of `0..queues`.
    ///
    /// # Errors
    /// Why nobody can say. The queues that were held stay held until the lease's end.
    async fn share(&self, queues: u16) -> Result<Vec<u16>, LeaseError>;

    /// Gives everything back: the worker stops.
    async fn release(&self);
}

#[derive(Debug, thiserror::Error)]
#[error("the leases of the queues cannot be renewed: {reason}")]
pub struct LeaseError {
    pub reason: String,
}
