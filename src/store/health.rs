//! The database's check for `/readyz`, and the gauges of what waits in the ledger.

use super::{Store, history::LedgerState, pauses::Paused};
use crate::{
    domain::{Clock, HeldCause, Provider, Timestamp},
    telemetry::{Finding, catalogue},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Less than the time of a whole check, so that this check itself reports a database that hangs.
const PING_MAX: Duration = Duration::from_millis(900);

/// Whether the database takes writes. Without it the process is degraded and not failed: routes and
/// secrets are in memory, so ingress goes on.
pub async fn check(store: Arc<dyn Store>) -> Finding {
    match tokio::time::timeout(PING_MAX, store.ping()).await {
        Ok(Ok(())) => Finding::ok(),
        Ok(Err(error)) => Finding::degraded(format!("{error}; ingress goes on, work waits")),
        Err(_) => Finding::degraded("the database does not answer; ingress goes on, work waits"),
    }
}

/// Less than the time of a scrape's gathering, so that its gauge shows a database that hangs.
const LOOK_MAX: Duration = Duration::from_millis(1_500);
/// The size of the tables is read from their files: not at every scrape.
const SIZE_EVERY: Duration = Duration::from_mins(1);

/// The gauges of the database and the ledger, set at each scrape.
pub struct Gauges {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    sized_at: Mutex<Option<Instant>>,
}

impl Gauges {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            sized_at: Mutex::new(None),
        }
    }

    /// A database that is away leaves the gauges of the ledger as they were.
    pub async fn gather(&self) {
        let state = tokio::time::timeout(LOOK_MAX, self.store.ledger_state()).await;
        let state = state.ok().and_then(Result::ok);
        catalogue::STORE_UP.set(f64::from(u8::from(state.is_some())), &[]);
        let Some(state) = state else { return };
        gather_ledger(&state, self.clock.now());
        if let Ok(pauses) = self.store.list_pauses(None).await {
            for scope in Paused::SCOPES {
                let count = pauses.iter().filter(|pause| pause.paused.scope() == *scope).count();
                catalogue::PAUSED.set(count as f64, &[scope]);
            }
        }
        if let Ok(due) = self.store.count_rotations_due().await {
            for &provider in Provider::ALL {
                let own = due.iter().find(|(due, _)| *due == provider);
                catalogue::ROTATIONS_DUE.set(own.map_or(0, |(_, count)| *count) as f64, &[provider.as_str()]);
            }
        }
        if let Ok(state) = self.store.quarantine_state().await {
            catalogue::QUARANTINE_EVENTS.set(state.events as f64, &[]);
            let oldest = state
                .oldest_at
                .map_or(0.0, |at| self.clock.now().since(at).as_secs_f64());
            catalogue::QUARANTINE_OLDEST_SECONDS.set(oldest, &[]);
        }
        if self.is_size_due()
            && let Ok(bytes) = self.store.size_bytes().await
        {
            catalogue::STORE_BYTES.set(bytes as f64, &[]);
        }
    }

    fn is_size_due(&self) -> bool {
        let mut sized_at = self.sized_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = sized_at.is_none_or(|at| at.elapsed() >= SIZE_EVERY);
        if is_due {
            *sized_at = Some(Instant::now());
        }
        is_due
    }
}

fn gather_ledger(state: &LedgerState, now: Timestamp) {
    for &provider in Provider::ALL {
        let due = state.oldest_due_at.iter().find(|(due, _)| *due == provider);
        let oldest = due.map_or(0.0, |(_, at)| now.since(*at).as_secs_f64());
        catalogue::ACTIONS_OLDEST_DUE_SECONDS.set(oldest, &[provider.as_str()]);
    }
    let oldest_unknown = state.oldest_unknown_at.map_or(0.0, |at| now.since(at).as_secs_f64());
    catalogue::ACTIONS_UNKNOWN_OLDEST_SECONDS.set(oldest_unknown, &[]);
    for (label, count) in [
        ("parked", state.parked),
        ("unknown", state.unknown),
        ("dead", state.dead),
    ] {
        catalogue::ACTIONS_STUCK.set(count as f64, &[label]);
    }
    for cause in HeldCause::ALL {
        let held = state.held.iter().find(|(held, _)| held == cause);
        catalogue::HELD_EVENTS.set(held.map_or(0, |(_, count)| *count) as f64, &[cause.as_str()]);
    }
    let oldest_held = state.oldest_held_at.map_or(0.0, |at| now.since(at).as_secs_f64());
    catalogue::HELD_OLDEST_SECONDS.set(oldest_held, &[]);
    catalogue::DEAD_EVENTS.set(state.dead_events as f64, &[]);
}
