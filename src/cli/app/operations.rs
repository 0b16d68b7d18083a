//! The operations listener of a process: each room's check for `/readyz`, and each room's gauges.

use super::{Roles, Rooms};
use crate::{
    attempt::Engine,
    lifecycle::Lifecycle,
    queue::EventQueue,
    receiver::Receiver,
    routing::KeyCheck,
    store,
    telemetry::{self, Checks, Finding, Operations, Recorder},
    worker,
};
use std::{future::ready, sync::Arc};

/// The parts that checks and gauges read besides the shared rooms.
pub(super) struct OperationsParts {
    pub receiver: Option<Receiver>,
    pub engine: Option<Arc<Engine>>,
    pub keys: Arc<KeyCheck>,
    pub lifecycle: Lifecycle,
    pub worker: worker::Failure,
    pub roles: Roles,
}

pub(super) fn operations(recorder: Recorder, rooms: &Rooms, parts: OperationsParts) -> Operations {
    let database = Arc::new(store::Gauges::new(rooms.store.clone(), rooms.clock.clone()));
    let (routes, vault) = (rooms.routes.clone(), rooms.vault.clone());
    let checks = checks(rooms, &parts);
    let OperationsParts {
        receiver, engine, keys, ..
    } = parts;
    let mut operations = Operations::new(recorder, checks)
        .gather(telemetry::gather_gauges)
        .gather(move || routes.gather_gauges())
        .gather(move || keys.gather_gauges())
        .gather(move || vault.gather_gauges())
        .gather_async(move || {
            let database = database.clone();
            async move { database.gather().await }
        });
    if let Some(queue) = rooms.queue.clone() {
        let clock = rooms.clock.clone();
        operations = operations.gather(move || {
            queue.state().gather_gauges(clock.now());
            if let Some(spool) = queue.spool() {
                spool.gather_gauges(clock.now());
            }
        });
    }
    if let Some(receiver) = receiver {
        operations = operations.gather(move || receiver.gather_gauges());
    }
    if let Some(engine) = engine {
        operations = operations.gather(move || engine.gather_gauges());
    }
    operations
}

/// With a receiver the question is: may webhooks be sent to this process? Without one it is: can
/// the process do the work of its roles? `docs/operations.md` has the table of states.
fn checks(rooms: &Rooms, parts: &OperationsParts) -> Checks {
    let OperationsParts { keys, roles, .. } = parts;
    let (store, keys, clock_routes) = (rooms.store.clone(), keys.clone(), rooms.routes.clone());
    let (lifecycle, has_receiver) = (parts.lifecycle.clone(), roles.receiver);
    let mut checks = Checks::default()
        .with("process", move || ready(lifecycle.check()))
        .with("keys", move || ready(keys.check()))
        .with("clock", move || ready(clock_routes.check_clock()))
        .with("database", move || {
            let store = store.clone();
            async move {
                let found = store::check(store).await;
                // Ingress goes on without it. Nothing else does.
                if has_receiver {
                    found
                } else {
                    found.failed_if_degraded()
                }
            }
        });
    if let Some(queue) = &rooms.queue {
        checks = queue_checks(checks, queue, *roles);
    }
    if let Some(receiver) = parts.receiver.clone() {
        let ingress = receiver.clone();
        checks = checks
            .with("routes", move || ready(receiver.check_routes()))
            .with("ingress", move || ready(ingress.check()));
    }
    if roles.worker {
        let worker = parts.worker.clone();
        checks = checks.with("worker", move || ready(worker.check()));
    }
    checks
}

fn queue_checks(mut checks: Checks, queue: &Arc<dyn EventQueue>, roles: Roles) -> Checks {
    if queue.spool().is_some() {
        let spool = queue.clone();
        checks = checks.with("spool", move || {
            ready(spool.spool().map_or_else(Finding::ok, |spool| spool.check()))
        });
    }
    let queue = queue.clone();
    checks.with("queue", move || {
        let state = queue.state();
        ready(match queue.spool() {
            _ if !roles.receiver => state.check_consumer(),
            None => state.check(),
            Some(_) => state.check_behind_spool(),
        })
    })
}
