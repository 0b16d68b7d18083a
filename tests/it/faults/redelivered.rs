//! An event whose worker dies each time when it is planned. It is set aside after a bounded number
//! of workers, and the events behind it go out.
//!
//! Until a dead worker's queues are given to the next one it takes 10 to 15 seconds, so that only
//! `scripts/faults --brokers` runs this.

use super::{
    fleet::{Fleet, Shared},
    not_run,
    world::{Wishes, operator, until},
};
use serde_json::Value;
use std::sync::Arc;

/// Three deliveries to all that a worker holds, and three tries alone. Each try of Kafka's may come
/// after three more deliveries, because its count begins anew when others are done.
const WORKERS_MAX: usize = 14;

async fn dead(fleet: &Fleet) -> Vec<Value> {
    let list = fleet.world.get_as(&operator(), "/operator/dead-events").await;
    let list = list.expect("the admin API answers");
    list["data"].as_array().expect("a list").clone()
}

async fn an_event_that_kills_its_workers_is_set_aside(shared: Option<Arc<Shared>>) {
    if std::env::var("FAULTS_BROKERS").is_err() {
        return not_run("an event that kills its workers", "scripts/faults --brokers");
    }
    let Some(shared) = shared else { return };
    // One queue, so that the event is the first of each worker.
    let wishes = Wishes::default()
        .set("HOOKSWITCH_AMQP_QUEUES", 1)
        .set("HOOKSWITCH_KAFKA_PARTITIONS", 1);
    let mut fleet = Fleet::start("an event that kills its workers", &shared, wishes).await;
    let receiver = fleet.add("receiver", &[]).await;
    let load = fleet.world.load.clone();
    load.insist(&load.unwanted()).await;
    let label = || format!("{}; the log: {}", fleet.world.label(), receiver.log_text());
    until(label, "the broker to take events", || async {
        (receiver.metric("hookswitch_spool_active").await? == 0.0).then_some(())
    })
    .await;
    let poison = load.wanted_of(1);
    let answer = load.post(&poison).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    load.send_all(20).await;

    let mut workers = 0;
    while dead(&fleet).await.is_empty() {
        assert!(workers < WORKERS_MAX, "{workers} workers died of one event");
        let kill_at = [("TEST_KILL_AT", "plan_written:1".to_owned())];
        let mut worker = fleet.spawn(&format!("worker-{workers}"), "worker", &kill_at);
        worker.process.wait("at its kill point").await;
        workers += 1;
    }
    let _worker = fleet.add("worker", &[]).await;
    let counts = fleet.world.final_counts().await;
    let dead = dead(&fleet).await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["reason"], "its worker ended each time while it was planned");
    let sent = fleet.world.sandbox.messages();
    assert!(sent.iter().all(|sms| !sms.body.contains(&poison.call)));
    println!("{workers} workers died: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_kills_its_workers_is_set_aside_over_rabbitmq() {
    an_event_that_kills_its_workers_is_set_aside(Shared::over_rabbit().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_kills_its_workers_is_set_aside_over_kafka() {
    an_event_that_kills_its_workers_is_set_aside(Shared::over_kafka().await).await;
}
