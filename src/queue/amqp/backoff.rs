//! Chooses the next address to try, and the wait before it.

use std::time::Duration;
use tokio_util::sync::CancellationToken;

const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Waits between 0.1 and 10 s with full jitter, one after each round over the addresses.
pub(super) struct Backoff {
    addresses: usize,
    first: usize,
    tries: usize,
}

impl Backoff {
    /// Begins at an address of its own, so that processes spread over the nodes of a cluster.
    pub fn new(addresses: usize) -> Self {
        Self {
            addresses,
            first: random() as usize % addresses,
            tries: 0,
        }
    }

    pub fn address(&self) -> usize {
        (self.first + self.tries) % self.addresses
    }

    pub const fn has_tried_all(&self) -> bool {
        self.tries + 1 >= self.addresses
    }

    /// A connection was made: the next try comes at once, at the same address.
    pub fn reset(&mut self) {
        self.first = self.address();
        self.tries = 0;
    }

    /// `true` when the stop came first.
    pub async fn wait_or(&mut self, stop: &CancellationToken) -> bool {
        let rounds = self.tries / self.addresses;
        self.tries += 1;
        let longest = WAIT_MIN.saturating_mul(1 << rounds.min(10)).min(WAIT_MAX);
        let wait = WAIT_MIN + longest.mul_f64(f64::from(random()) / f64::from(u32::MAX));
        tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(wait) => false,
        }
    }
}

/// For jitter, so it need not be hard to guess. Without randomness from the system all processes
/// wait for the same time, which is harmless.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}
