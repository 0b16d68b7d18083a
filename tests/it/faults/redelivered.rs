//! An event whose worker dies each time when it is planned. It is set aside after a bounded number
//! of workers, and the events behind it go out.

use super::{
    Given, todays_seed,
    world::{Embedded, PATIENCE, Wishes, World, operator},
};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const REASON: &str = "its worker ended each time while it was planned";

/// The dead events, once there is one. `None`: the process ended before.
async fn dead_or_ended(world: &mut World) -> Option<Vec<Value>> {
    let end = Instant::now() + PATIENCE;
    while world.process.as_mut().expect("spawned").ended().is_none() {
        let list = world.get_as(&operator(), "/operator/dead-events").await;
        let dead = list.and_then(|list| list["data"].as_array().cloned());
        if let Some(dead) = dead.filter(|dead| !dead.is_empty()) {
            return Some(dead);
        }
        assert!(
            Instant::now() < end,
            "{}: neither planned nor dead; the log ends: {}",
            world.label(),
            world.log_end()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.process = None;
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_kills_its_process_is_set_aside_over_the_embedded_queue() {
    let given = Given {
        backend: Arc::new(Embedded),
        seed: todays_seed(),
        is_quick: true,
    };
    let mut world = World::start("an event that kills its process", &given, Wishes::default()).await;
    world.kill().await;
    let kill_at = [("TEST_KILL_AT", "plan_written:1".to_owned())];
    world.launch_with(&kill_at).await;
    let poison = world.load.wanted_of(1);
    // The kill may come before the answer. The event is durable then.
    drop(world.load.post(&poison).await);
    let mut killed = 0;
    let dead = loop {
        if let Some(dead) = dead_or_ended(&mut world).await {
            break dead;
        }
        killed += 1;
        assert!(killed < 10, "{killed} processes died of one event");
        world.spawn(&kill_at);
    };
    assert_eq!(killed, 6, "three deliveries in vain, and three tries");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["reason"], REASON);
    // A stop saves the ack of the dead event.
    world.terminate().await;
    world.launch().await;
    world.load.send_all(20).await;
    let counts = world.final_counts().await;
    let sent = world.sandbox.messages();
    assert!(sent.iter().all(|sms| !sms.body.contains(&poison.call)));
    assert!(counts.taken >= 20, "{counts:?}");
}

/// Until a dead worker's queues are given to the next one it takes 10 to 15 seconds, so that only
/// `scripts/faults --brokers` runs this.
#[cfg(all(feature = "rabbitmq", feature = "kafka"))]
mod over_brokers {
    use super::{
        super::{
            fleet::{Fleet, Shared},
            not_run,
            world::{Wishes, operator, until},
        },
        REASON,
    };
    use serde_json::Value;
    use std::sync::Arc;

    /// Three deliveries to all that a worker holds, and three tries alone. Each try of Kafka's may
    /// come after three more deliveries, because its count begins anew when others are done.
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
        assert_eq!(dead[0]["reason"], REASON);
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
}
