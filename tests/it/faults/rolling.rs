//! Instances are replaced one after the other under load, behind a balancer: no request fails.

use super::{
    fleet::{Fleet, Shared},
    world::Wishes,
};
use std::{sync::Arc, time::Duration};

async fn no_request_fails_while_all_instances_are_replaced(shared: Option<Arc<Shared>>) {
    let Some(shared) = shared else { return };
    let leaves = [("HOOKSWITCH_LEAVE_SECONDS", "1".to_owned())];
    let mut fleet = Fleet::start("rolling restart", &shared, Wishes::default()).await;
    let (mut receivers, mut workers) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        receivers.push(fleet.add("receiver", &leaves).await);
        workers.push(fleet.add("worker", &leaves).await);
    }
    let load = fleet.world.load.run(40);
    for _ in 0..2 {
        let receiver = fleet.replace(receivers.remove(0), "receiver", &leaves).await;
        receivers.push(receiver);
        let worker = fleet.replace(workers.remove(0), "worker", &leaves).await;
        workers.push(worker);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    load.stop().await;
    let summary = fleet.world.load.summary();
    let answers = fleet.world.load.answers();
    assert_eq!(fleet.world.load.unanswered(), 0, "{summary}");
    assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [200], "{summary}");
    let counts = fleet.world.final_counts().await;
    assert!(counts.taken > 100, "{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_all_instances_are_replaced_over_rabbitmq() {
    no_request_fails_while_all_instances_are_replaced(Shared::over_rabbit().await).await;
}
