//! Jobs over many actions, each worked on by one process that lives. A process looks from time to
//! time for jobs that nobody holds; those of a process that was killed are among them.
//!
//! `admin` wakes it for a job that a person began. `cli` runs it in every process with the admin
//! API or a worker. **Invariant:** a step is taken only under the job's lease, and moves its
//! actions and the job's place in one transaction. So each action is changed once, whichever
//! process dies.

use crate::store::{Store, bulk::JobLease};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Actions that one step looks at.
const STEP_MAX: u32 = 500;
/// A job whose process has taken no step for so long is taken up by another.
const LEASE: Duration = Duration::from_secs(10);
/// Between two looks. With the lease, it bounds the time that the job of a killed process rests.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Jobs that one process works on at the same time.
const AT_ONCE: usize = 4;
/// Steps in a row. Then the job goes behind those that wait, so that long jobs of one organisation
/// hold up no other's.
const STEPS_IN_A_ROW: u32 = 20;

pub struct Jobs {
    store: Arc<dyn Store>,
    begun: Notify,
}

impl Jobs {
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            begun: Notify::new(),
        })
    }

    /// A job was begun: it does not wait for the next look.
    pub fn wake(&self) {
        self.begun.notify_one();
    }

    /// Works on jobs until `stop`. Steps under way are finished, and their jobs are given back.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut working = JoinSet::new();
        while !stop.is_cancelled() {
            self.begin(&mut working, &stop).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.begun.notified() => {}
                Some(_) = working.join_next() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        while working.join_next().await.is_some() {}
    }

    async fn begin(&self, working: &mut JoinSet<()>, stop: &CancellationToken) {
        let places = u32::try_from(AT_ONCE.saturating_sub(working.len())).unwrap_or(0);
        if places == 0 {
            return;
        }
        let free = match self.store.list_free_bulk(places).await {
            Ok(free) => free,
            Err(error) => {
                debug!(%error, "Jobs cannot be looked for, for now");
                return;
            }
        };
        for (org, id) in free {
            match self.store.take_bulk(org, id, LEASE).await {
                Ok(Some(lease)) => {
                    working.spawn(work_on(Arc::clone(&self.store), lease, stop.clone()));
                }
                // Another process was first, or somebody stopped it.
                Ok(None) => {}
                Err(error) => debug!(%error, job.id = %id, org.id = %org, "A job cannot be taken for now"),
            }
        }
    }
}

async fn work_on(store: Arc<dyn Store>, lease: JobLease, stop: CancellationToken) {
    for _ in 0..STEPS_IN_A_ROW {
        if stop.is_cancelled() {
            break;
        }
        match store.step_bulk(lease, LEASE, STEP_MAX).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // It keeps its lease, so that a step that always fails is not tried without end.
                warn!(%error, job.id = %lease.id, org.id = %lease.org, "A job waits: it is taken up again in seconds");
                return;
            }
        }
    }
    if let Err(error) = store.release_bulk(lease).await {
        debug!(%error, job.id = %lease.id, "A job could not be given back; its lease ends by itself");
    }
}
