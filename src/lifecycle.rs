//! How a process starts, drains and stops: soft and hard tokens, one task tracker.
//!
//! `cli` and tests enter. **Invariant:** nothing outlives [`Lifecycle::drain`] but what the hard stop cut off.

use std::{future::Future, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Soft stop: take nothing more, finish what was begun. Hard stop: leave everything, now; it is the soft token's parent, so that it implies the soft one.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    hard: CancellationToken,
    soft: CancellationToken,
    tasks: TaskTracker,
}

impl Default for Lifecycle {
    fn default() -> Self {
        let hard = CancellationToken::new();
        Self { soft: hard.child_token(), hard, tasks: TaskTracker::new() }
    }
}

/// Whether everything ended by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    Clean,
    /// The hard stop cut something off.
    CutOff,
}

impl Lifecycle {
    #[must_use]
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    #[must_use]
    pub fn hard(&self) -> CancellationToken {
        self.hard.clone()
    }

    #[must_use]
    pub const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Starts a long-running task. It is expected to end soon after the soft token.
    pub fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        #[expect(clippy::disallowed_methods, reason = "the tracker is where tasks belong")]
        self.tasks.spawn(task);
    }

    /// Asks everything to stop, waits `budget`, then stops hard and waits a second more.
    pub async fn drain(&self, budget: Duration) -> Drained {
        self.soft.cancel();
        self.tasks.close();
        let clean = tokio::select! {
            biased;
            () = self.tasks.wait() => true,
            () = tokio::time::sleep(budget) => false,
            () = self.hard.cancelled() => false,
        };
        self.hard.cancel();
        if !clean {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        }
        if clean { Drained::Clean } else { Drained::CutOff }
    }
}
