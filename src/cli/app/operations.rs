//! The operations listener of a process: each room's check for `/readyz`, and each room's gauges.

use super::Rooms;
use crate::{
    attempt::Engine,
    lifecycle::Lifecycle,
    receiver::Receiver,
    routing::KeyCheck,
    store,
    telemetry::{self, Checks, Finding, Operations, Recorder},
    worker,
};
use std::{future::ready, sync::Arc};

/// The parts that checks and gauges read besides the shared rooms.
pub(super) struct OperationsParts {
    pub receiver: Receiver,
    pub engine: Arc<Engine>,
    pub keys: Arc<KeyCheck>,
    pub lifecycle: Lifecycle,
    pub worker: worker::Failure,
}

pub(super) fn operations(recorder: Recorder, rooms: &Rooms, parts: OperationsParts) -> Operations {
    let (queue, queue_clock) = (rooms.queue.clone(), rooms.clock.clone());
    let (store, store_clock) = (rooms.store.clone(), rooms.clock.clone());
    let (routes, vault) = (rooms.routes.clone(), rooms.vault.clone());
    let checks = checks(rooms, &parts);
    let OperationsParts {
        receiver, engine, keys, ..
    } = parts;
    Operations::new(recorder, checks)
        .gather(telemetry::gather_gauges)
        .gather(move || {
            queue.state().gather_gauges(queue_clock.now());
            if let Some(spool) = queue.spool() {
                spool.gather_gauges(queue_clock.now());
            }
        })
        .gather(move || routes.gather_gauges())
        .gather(move || keys.gather_gauges())
        .gather(move || vault.gather_gauges())
        .gather(move || receiver.gather_gauges())
        .gather(move || engine.gather_gauges())
        .gather_async(move || store::gather_gauges(store.clone(), store_clock.clone()))
}

/// The checks answer one question: may webhooks be sent to this process? `docs/operations.md` has
/// the table of states.
fn checks(rooms: &Rooms, parts: &OperationsParts) -> Checks {
    let (queue, store) = (rooms.queue.clone(), rooms.store.clone());
    let (routes, receiver, ingress) = (rooms.routes.clone(), parts.receiver.clone(), parts.receiver.clone());
    let (keys, lifecycle, worker) = (parts.keys.clone(), parts.lifecycle.clone(), parts.worker.clone());
    let mut checks = Checks::default().with("process", move || ready(lifecycle.check()));
    if rooms.queue.spool().is_some() {
        let spool = rooms.queue.clone();
        checks = checks.with("spool", move || {
            ready(spool.spool().map_or_else(Finding::ok, |spool| spool.check()))
        });
    }
    checks
        .with("queue", move || {
            let state = queue.state();
            ready(match queue.spool() {
                None => state.check(),
                Some(_) => state.check_behind_spool(),
            })
        })
        .with("keys", move || ready(keys.check()))
        .with("database", move || store::check(store.clone()))
        .with("routes", move || ready(receiver.check_routes()))
        .with("clock", move || ready(routes.check_clock()))
        .with("worker", move || ready(worker.check()))
        .with("ingress", move || ready(ingress.check()))
}
