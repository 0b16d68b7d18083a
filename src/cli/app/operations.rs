//! The operations listener of a process: each room's check for `/readyz`, and each room's gauges.

use super::Rooms;
use crate::{
    attempt::Engine,
    receiver::Receiver,
    store,
    telemetry::{self, Checks, Operations, Recorder},
    worker,
};
use std::sync::Arc;

pub(super) fn operations(
    recorder: Recorder,
    rooms: &Rooms,
    receiver: &Receiver,
    engine: Arc<Engine>,
    worker: worker::Failure,
) -> Operations {
    let (queue, queue_clock) = (rooms.queue.clone(), rooms.clock.clone());
    let (store, store_clock) = (rooms.store.clone(), rooms.clock.clone());
    let (routes, vault, receiver_gauges) = (rooms.routes.clone(), rooms.vault.clone(), receiver.clone());
    Operations::new(recorder, checks(rooms, receiver, worker))
        .gather(telemetry::gather_gauges)
        .gather(move || queue.state().gather_gauges(queue_clock.now()))
        .gather(move || routes.gather_gauges())
        .gather(move || vault.gather_gauges())
        .gather(move || receiver_gauges.gather_gauges())
        .gather(move || engine.gather_gauges())
        .gather_async(move || store::gather_gauges(store.clone(), store_clock.clone()))
}

fn checks(rooms: &Rooms, receiver: &Receiver, worker: worker::Failure) -> Checks {
    let (queue, store) = (rooms.queue.clone(), rooms.store.clone());
    let (routes, clock_routes, receiver) = (rooms.routes.clone(), rooms.routes.clone(), receiver.clone());
    Checks::default()
        .with("queue", move || std::future::ready(queue.state().check()))
        .with("database", move || store::check(store.clone()))
        .with("routes", move || std::future::ready(routes.check_age()))
        .with("clock", move || std::future::ready(clock_routes.check_clock()))
        .with("worker", move || std::future::ready(worker.check()))
        .with("ingress", move || std::future::ready(receiver.check()))
}
