//! The database's check for `/readyz`, and the gauges of what waits in the ledger.

use super::{Store, pauses::Paused};
use crate::{
    domain::{Clock, HeldCause, Provider},
    telemetry::{Finding, catalogue},
};
use std::{sync::Arc, time::Duration};

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

/// Sets the gauges of the ledger. A database that is away leaves them as they were: its check says
/// so.
pub async fn gather_gauges(store: Arc<dyn Store>, clock: Arc<dyn Clock>) {
    let Ok(state) = store.ledger_state().await else { return };
    let now = clock.now();
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
    if let Ok(pauses) = store.list_pauses(None).await {
        for scope in Paused::SCOPES {
            let count = pauses.iter().filter(|pause| pause.paused.scope() == *scope).count();
            catalogue::PAUSED.set(count as f64, &[scope]);
        }
    }
    catalogue::DEAD_EVENTS.set(state.dead_events as f64, &[]);
}
