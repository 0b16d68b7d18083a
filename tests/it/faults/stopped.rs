//! A whole broker is killed under load and comes back later. Senders get 200 all the time, and what
//! the spool took comes out afterwards: once, and in order within its subject.
//!
//! Kafka is away for some seconds; with `scripts/faults --brokers` each of them for a minute.

use super::{
    fleet::{Broker, Fleet, Member, PARTS, Shared},
    not_run,
    world::{Wishes, until},
};
use crate::{
    conformance::queue::{delivered, event, id_of},
    queue_embedded::Scratch,
    support::{amqp, kafka},
};
use hookswitch::{
    config::QueueSettings,
    domain::{EventId, OrgId, SystemClock},
    queue::{EventQueue, SpoolQueue, SpoolSettings},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Events a second through the receiver.
const RATE: u32 = 20;
/// Subjects beside them, whose events go to the broker through a spool of this process.
const SUBJECTS: usize = 8;

/// Between two events of a subject. The spool drains a subject one confirm after the other, so that
/// events which come faster than confirms would keep it from its end.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the broker is away.
fn outage() -> Duration {
    Duration::from_secs(if std::env::var("FAULTS_BROKERS").is_ok() { 60 } else { 6 })
}

enum Server {
    Rabbit(amqp::Server),
    Kafka(kafka::Server),
}

impl Server {
    fn kill(&self) {
        match self {
            Self::Rabbit(server) => server.kill(),
            Self::Kafka(server) => server.kill(),
        }
    }

    async fn restart(&self) {
        match self {
            Self::Rabbit(server) => server.restart(),
            Self::Kafka(server) => server.restart().await,
        }
    }

    /// A queue of its own at this broker.
    async fn queue(&self) -> Arc<dyn EventQueue> {
        match self {
            Self::Rabbit(server) => {
                let place = amqp::AmqpPlace::at(&server.url, PARTS);
                let settings = hookswitch::queue::AmqpSettings {
                    settle_seconds: hookswitch::queue::AmqpSettings::default().settle_seconds,
                    ..place.settings()
                };
                // The broker ends with the test: nobody has to delete its queues.
                std::mem::forget(place.clone());
                place.open_at(place.url(), settings).await
            }
            Self::Kafka(server) => {
                let topic = server.topic(PARTS);
                let queue = topic.open().await;
                std::mem::forget(topic);
                Arc::new(queue)
            }
        }
    }

    fn names(&self) -> Broker {
        match self {
            Self::Rabbit(server) => Broker::Rabbit(amqp::AmqpPlace::at(&server.url, PARTS)),
            Self::Kafka(server) => Broker::Kafka(server.topic(PARTS)),
        }
    }
}

/// Senders that each wait for a confirm before they send the next event of their subject.
struct Subjects {
    queue: Arc<SpoolQueue>,
    stop: CancellationToken,
    senders: JoinSet<(String, Vec<EventId>)>,
    _place: Scratch,
}

impl Subjects {
    async fn start(broker: Arc<dyn EventQueue>) -> Self {
        let place = Scratch::new();
        let settings = SpoolSettings {
            directory: place.0.clone(),
            may_be_volatile: true,
            ..SpoolSettings::new(&QueueSettings::default(), 2 << 20)
        };
        let opened = SpoolQueue::open(broker, settings, Arc::new(SystemClock)).await;
        let queue = Arc::new(opened.expect("the spool opens"));
        let (stop, mut senders) = (CancellationToken::new(), JoinSet::new());
        for number in 0..SUBJECTS {
            let (queue, stop) = (queue.clone(), stop.clone());
            senders.spawn(async move {
                let (subject, org, mut sent) = (format!("call-{number}"), OrgId::generate(), Vec::new());
                while !stop.is_cancelled() {
                    let event = event(org, &subject, "x");
                    queue.publish(&event).await.expect("the broker or the spool takes it");
                    sent.push(id_of(&event));
                    tokio::time::sleep(PAUSE).await;
                }
                (subject, sent)
            });
        }
        Self {
            queue,
            stop,
            senders,
            _place: place,
        }
    }

    fn is_spooling(&self) -> bool {
        self.queue.spool().is_some_and(|spool| spool.is_spooling)
    }

    /// Ends the senders, and waits until every event has come out. Each subject has its order.
    async fn came_out_in_order(mut self) -> usize {
        self.stop.cancel();
        let mut sent = HashMap::new();
        while let Some(sender) = self.senders.join_next().await {
            let (subject, ids) = sender.expect("a sender does not panic");
            sent.insert(subject, ids);
        }
        let mut missing: HashSet<EventId> = sent.values().flatten().copied().collect();
        let count = missing.len();
        let mut came: HashMap<String, Vec<EventId>> = HashMap::new();
        let mut deliveries = self.queue.consume().await.expect("a consumer");
        let all = async {
            while !missing.is_empty() {
                let batch = deliveries.next_batch(500).await.expect("a batch");
                let tags: Vec<_> = batch.iter().map(|delivery| delivery.tag).collect();
                deliveries.ack(&tags).await.expect("acks are no error");
                for delivery in &batch {
                    let event = delivered(delivery);
                    if missing.remove(&event.id) {
                        came.entry(event.subject.0.to_string()).or_default().push(event.id);
                    }
                }
            }
        };
        let ended = tokio::time::timeout(super::world::PATIENCE, all).await;
        assert!(ended.is_ok(), "{} of {count} events are missing", missing.len());
        assert_eq!(came, sent);
        count
    }
}

/// A gauge of the spool.
async fn spool(receiver: &Member, name: &str) -> f64 {
    receiver
        .metric(&format!("hookswitch_spool_{name}"))
        .await
        .unwrap_or(-1.0)
}

async fn is_direct(receiver: &Member) -> bool {
    spool(receiver, "active").await == 0.0 && spool(receiver, "held_events").await == 0.0
}

async fn waits(fleet: &Fleet, receiver: &Member, what: &str, look: impl AsyncFn() -> bool) {
    let label = || format!("{}; the log: {}", fleet.world.label(), receiver.log_text());
    until(label, what, || async { look().await.then_some(()) }).await;
}

/// So many events more have been taken.
async fn taken(fleet: &Fleet, receiver: &Member, more: u64) {
    let before = fleet.world.load.taken().1;
    waits(fleet, receiver, "more events to be taken", async || {
        fleet.world.load.taken().1 >= before + more
    })
    .await;
}

async fn senders_get_200_while_the_broker_is_away(case: &'static str, server: Option<Server>) {
    let Some(server) = server else { return };
    let Some(shared) = Shared::over(server.names()).await else {
        return;
    };
    let mut fleet = Fleet::start(case, &shared, Wishes::default()).await;
    let receiver = fleet.add("receiver", &[]).await;
    let _worker = fleet.add("worker", &[]).await;
    let subjects = Subjects::start(server.queue().await).await;
    let load = fleet.world.load.run(RATE);
    taken(&fleet, &receiver, 20).await;
    waits(&fleet, &receiver, "the broker to take them", async || {
        is_direct(&receiver).await && !subjects.is_spooling()
    })
    .await;

    server.kill();
    waits(&fleet, &receiver, "the spools to take over", async || {
        spool(&receiver, "held_events").await > 5.0 && subjects.is_spooling()
    })
    .await;
    tokio::time::sleep(outage() / 2).await;
    let summary = fleet.world.load.summary();
    assert_eq!(fleet.world.load.unanswered(), 0, "{summary}");
    assert_eq!(
        fleet.world.load.answers().into_keys().collect::<Vec<_>>(),
        [200],
        "{summary}"
    );

    // Requests that wait for an answer now get none. All others get 200.
    let receiver = fleet.kill_and_restart(receiver, "receiver").await;
    taken(&fleet, &receiver, 20).await;
    assert!(spool(&receiver, "held_events").await > 5.0, "the broker is still away");
    tokio::time::sleep(outage() / 2).await;

    server.restart().await;
    waits(&fleet, &receiver, "the spools to be drained", async || {
        is_direct(&receiver).await && !subjects.is_spooling()
    })
    .await;
    taken(&fleet, &receiver, 20).await;
    load.stop().await;
    let summary = fleet.world.load.summary();
    assert_eq!(
        fleet.world.load.answers().into_keys().collect::<Vec<_>>(),
        [200],
        "{summary}"
    );
    let counts = fleet.world.final_counts().await;
    let in_order = subjects.came_out_in_order().await;
    println!("{case}: {summary}, {counts:?}; {in_order} events of {SUBJECTS} subjects in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_get_200_while_rabbitmq_is_away() {
    if std::env::var("FAULTS_BROKERS").is_err() {
        return not_run("RabbitMQ away under load", "scripts/faults --brokers");
    }
    let server = tokio::task::block_in_place(amqp::Server::start).map(Server::Rabbit);
    senders_get_200_while_the_broker_is_away("RabbitMQ is away", server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_get_200_while_kafka_is_away() {
    let server = tokio::task::block_in_place(kafka::Server::start).map(Server::Kafka);
    senders_get_200_while_the_broker_is_away("Kafka is away", server).await;
}
