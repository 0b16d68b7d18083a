//! Events become actions, and actions happen: consume, plan by rules, ack; claim, attempt, record.
//!
//! `lifecycle` runs it. **Invariant:** a delivery is acked only after its plan is committed, or
//! after rules that were current at its fetch did not want it (invariant 7). An action begins only
//! under a claim.

mod batch;
mod bisect;
mod breaker;
mod budget;
mod clock;
mod commit;
mod consume;
mod draft;
mod execute;
mod failure;
mod fairness;
mod held;
mod parts;
mod plan;
mod retention;
mod rules;
mod suspects;

pub use clock::ClockOffset;
pub use failure::Failure;

use crate::{
    attempt::{Backoff, Engine, EngineSettings, Policy},
    config::{VaultSettings, WorkerSettings},
    domain::Clock,
    provider::Providers,
    queue::EventQueue,
    store::Store,
    vault::Vault,
};
use clock::DatabaseClock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Time of a lease that must be left after the longest exchange.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// Waits between two tries at a service that is away: they double from the shortest to the longest.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);

/// The rooms and settings that a worker needs. `run` consumes it.
pub struct Worker {
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn EventQueue>,
    pub vault: Arc<Vault>,
    pub providers: Providers,
    pub clock: Arc<dyn Clock>,
    pub settings: WorkerSettings,
    /// How many credentials stay decrypted in memory, and for how long.
    pub credentials: VaultSettings,
    /// Scheme and host under which providers can call back.
    pub public_url: Option<String>,
    /// How far the database's clock is from `clock`.
    pub clock_offset: ClockOffset,
    /// Where a part of the worker that breaks is reported.
    pub failure: Failure,
}

impl Worker {
    /// The engine with this worker's settings, for `run` and for `reply`.
    #[must_use]
    pub fn engine(&self) -> Engine {
        let settings = &self.settings;
        Engine::new(
            EngineSettings {
                policy: Policy {
                    backoff: Backoff {
                        min: settings.backoff_seconds_min,
                        max: settings.backoff_seconds_max,
                    },
                    attempts_max: settings.attempts_max,
                    look_up_delay: settings.settle_seconds,
                },
                deadline: settings.attempt_seconds_max,
                margin: LEASE_MARGIN.min(settings.lease_seconds.saturating_sub(settings.attempt_seconds_max) / 2),
                public_url: self.public_url.clone(),
                credentials_max: self.credentials.credentials_cached_max,
                credentials_time_to_live: self.credentials.credential_cache_seconds,
            },
            self.store.clone(),
            self.vault.clone(),
            self.providers.clone(),
            Arc::new(self.database_clock()),
            random(),
        )
    }

    fn database_clock(&self) -> DatabaseClock {
        DatabaseClock::new(self.clock.clone(), self.clock_offset.clone())
    }

    /// Ends the leases of a former process. Only a store that no other process shares allows it:
    /// the holder is gone then. Over a shared store another worker may be sending under a lease, so
    /// leases end by time. Returns `false` when the stop came first.
    async fn end_leases_of_the_dead(&self, soft: &CancellationToken) -> bool {
        if self.store.is_shared() {
            return true;
        }
        let look_up_delay = self.settings.settle_seconds;
        let mut retry = RetryWait::default();
        loop {
            let now = self.database_clock().now();
            match self.store.abandon_leases(now, look_up_delay).await {
                Ok(0) => return true,
                Ok(count) => {
                    info!(
                        "Found {count} actions of a process that died: their outcome is looked up before anything is \
                        sent again"
                    );
                    return true;
                }
                Err(error) => {
                    warn!(%error, "The worker waits for the database");
                    if retry.wait_or(soft).await {
                        return false;
                    }
                }
            }
        }
    }

    /// Works until `soft` is cancelled. It then finishes the running attempts and writes their
    /// records. `hard` cuts that off; an action that is cut off is `unknown` at the next start.
    pub async fn run(self, soft: CancellationToken, hard: CancellationToken) {
        let engine = Arc::new(self.engine());
        self.run_with(engine, soft, hard).await;
    }

    /// The same, with the caller's engine.
    pub async fn run_with(self, engine: Arc<Engine>, soft: CancellationToken, hard: CancellationToken) {
        if !self.end_leases_of_the_dead(&soft).await {
            return;
        }
        let wake = Arc::new(Notify::new());
        let executor = execute::Executor::new(
            engine,
            self.store.clone(),
            self.database_clock(),
            self.settings.clone(),
            wake.clone(),
        );
        let failure = self.failure.clone();
        let retention = retention::Cleaner::new(self.store.clone(), self.clock.clone(), self.settings.clone());
        let consumer = consume::Consumer::new(self, wake);
        let mut tasks = tokio::task::JoinSet::new();
        // Planning is work for the processor, so it runs beside the execution and not between its
        // steps.
        tasks.spawn(consumer.run(soft.clone()));
        tasks.spawn(retention.run(soft.clone()));
        tasks.spawn(executor.run(soft, hard.clone()));
        loop {
            tokio::select! {
                ended = tasks.join_next() => match ended {
                    None => break,
                    // The other part goes on until the process has drained.
                    Some(Err(error)) if error.is_panic() => {
                        tracing::error!("A part of the worker broke: the process ends, and what the part held comes \
                            back at the next start");
                        failure.report("a part of the worker broke inside Hookswitch");
                    }
                    Some(_) => {}
                },
                () = hard.cancelled() => {
                    tasks.shutdown().await;
                    break;
                }
            }
        }
    }
}

/// The waits between tries at a service that is away.
#[derive(Default)]
struct RetryWait {
    tries: u32,
}

impl RetryWait {
    /// `true` when the stop came first.
    async fn wait_or(&mut self, stop: &CancellationToken) -> bool {
        let wait = RETRY_WAIT_MIN
            .saturating_mul(2_u32.saturating_pow(self.tries))
            .min(RETRY_WAIT_MAX);
        self.tries += 1;
        tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(wait) => false,
        }
    }
}

/// Uniform in `[0, 1)`, for jitter: it need not be hard to guess. SplitMix64 over a counter.
fn random() -> Box<dyn Fn() -> f64 + Send + Sync> {
    let mut seed = [0; 8];
    // Without randomness from the system the waits are equal in each process. That is harmless.
    let _ = getrandom::fill(&mut seed);
    let state = AtomicU64::new(u64::from_le_bytes(seed));
    Box::new(move || {
        let mut x = state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    })
}
