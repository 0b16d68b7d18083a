//! Instances are replaced one after the other under load, behind a balancer: no request fails.
//! `scripts/faults --brokers` does it for a minute, at half the rate that the installation keeps up
//! with.

use super::{
    fleet::{Fleet, Shared},
    world::Wishes,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Events a second in the usual suite.
const RATE: u32 = 40;
/// Events by which the rate is found that the installation keeps up with.
const COUNTED: usize = 1_000;

async fn no_request_fails_while_all_instances_are_replaced(shared: Option<Arc<Shared>>) {
    let Some(shared) = shared else { return };
    let leaves = [("HOOKSWITCH_LEAVE_SECONDS", "1".to_owned())];
    let mut fleet = Fleet::start("rolling restart", &shared, Wishes::default()).await;
    let (mut receivers, mut workers) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        receivers.push(fleet.add("receiver", &leaves).await);
        workers.push(fleet.add("worker", &leaves).await);
    }
    let is_whole = std::env::var("FAULTS_BROKERS").is_ok();
    let (rate, length) = if is_whole {
        (half_of_the_reached_rate(&fleet).await, Duration::from_mins(1))
    } else {
        (RATE, Duration::ZERO)
    };
    let load = fleet.world.load.run(rate);
    let (begun, mut replaced) = (Instant::now(), 0);
    while replaced < 4 || begun.elapsed() < length {
        let receiver = fleet.replace(receivers.remove(0), "receiver", &leaves).await;
        receivers.push(receiver);
        let worker = fleet.replace(workers.remove(0), "worker", &leaves).await;
        workers.push(worker);
        replaced += 2;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    load.stop().await;
    let summary = fleet.world.load.summary();
    let answers = fleet.world.load.answers();
    assert_eq!(fleet.world.load.unanswered(), 0, "{summary}");
    assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [200], "{summary}");
    let counts = fleet.world.final_counts().await;
    assert!(counts.taken > 100, "{summary}");
    println!("{replaced} instances were replaced at {rate} events a second: {summary}, {counts:?}");
}

/// From the first request to the last effect, with nothing else to do.
async fn half_of_the_reached_rate(fleet: &Fleet) -> u32 {
    let begun = Instant::now();
    fleet.world.load.send_all(COUNTED).await;
    fleet.world.quiet().await;
    let rate = COUNTED as u128 * 1_000 / begun.elapsed().as_millis().max(1) / 2;
    u32::try_from(rate).expect("a small number").max(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_all_instances_are_replaced_over_rabbitmq() {
    no_request_fails_while_all_instances_are_replaced(Shared::over_rabbit().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_all_instances_are_replaced_over_kafka() {
    no_request_fails_while_all_instances_are_replaced(Shared::over_kafka().await).await;
}
