//! Kafka brokers that fail: away, slow, refusing, full of conflicts. Most stand on librdkafka's
//! mock cluster, which speaks the protocol over sockets and fails on demand; the real server is
//! killed once.

use crate::{
    conformance::queue::{DEADLINE, dead_ids, delivered, event, id_of, take, within},
    queue_embedded::Scratch,
    support::{
        kafka::{KafkaTopic, Server},
        until,
    },
};
use futures_util::future::join_all;
use hookswitch::{
    config::QueueSettings,
    domain::{EventId, OrgId, SystemClock},
    queue::{
        ConnectError, EventQueue, KafkaQueue, KafkaSettings, PublishError, QueueHealth, SpoolQueue, SpoolSettings,
    },
};
use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const TOPIC: &str = "events";

/// A deadline that a test can wait for.
const CONFIRM_MAX: Duration = Duration::from_millis(800);

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// One broker, one topic: the mock knows no creation of topics.
fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, 1, 1).expect("a topic");
    cluster
}

async fn open(cluster: &Cluster) -> KafkaQueue {
    let settings = KafkaSettings {
        topic: TOPIC.to_owned(),
        confirm_max: CONFIRM_MAX,
        ..KafkaSettings::default()
    };
    KafkaQueue::open(&format!("kafka://{}", cluster.bootstrap_servers()), settings)
        .await
        .expect("the queue opens")
}

async fn publish(queue: &KafkaQueue) -> (EventId, Result<(), PublishError>) {
    let event = event(OrgId::generate(), "call", "{}");
    (id_of(&event), queue.publish(&event).await)
}

/// Publishes until one is confirmed, and returns it.
async fn until_confirmed(queue: &KafkaQueue) -> EventId {
    until("a publish to be confirmed", || async {
        let (id, outcome) = publish(queue).await;
        outcome.is_ok().then_some(id)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_failed_for_good_is_replaced() {
    let cluster = cluster();
    let queue = open(&cluster).await;
    let before = until_confirmed(&queue).await;
    let conflict = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[conflict]);
    let (_, outcome) = publish(&queue).await;
    assert!(matches!(outcome, Err(PublishError::Unknown { .. })), "{outcome:?}");
    let failed_at = Instant::now();
    let after = until_confirmed(&queue).await;
    assert!(
        failed_at.elapsed() < Duration::from_secs(5),
        "{:?}",
        failed_at.elapsed()
    );
    let mut deliveries = queue.consume().await.unwrap();
    let got: HashSet<_> = take(&mut deliveries, 2)
        .await
        .iter()
        .map(|it| delivered(it).id)
        .collect();
    assert_eq!(got, HashSet::from([before, after]));
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_may_not_begin_ends_no_publish_in_silence() {
    let cluster = cluster();
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[refused]);
    let queue = open(&cluster).await;
    let outcomes = join_all((0..50).map(|_| publish(&queue))).await;
    let is_said = |outcome: &Result<(), PublishError>| {
        matches!(
            outcome,
            Ok(()) | Err(PublishError::Unknown { .. } | PublishError::Unavailable { .. })
        )
    };
    assert!(outcomes.iter().all(|(_, outcome)| is_said(outcome)), "{outcomes:?}");
    until_confirmed(&queue).await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirm_that_does_not_come_in_time_is_unknown_and_the_event_may_be_there() {
    let cluster = cluster();
    let queue = open(&cluster).await;
    until_confirmed(&queue).await;
    cluster
        .broker_round_trip_time(1, CONFIRM_MAX * 2)
        .expect("a slow broker");
    let began = Instant::now();
    let (id, outcome) = publish(&queue).await;
    assert!(matches!(outcome, Err(PublishError::Unknown { .. })), "{outcome:?}");
    assert!(
        began.elapsed() < CONFIRM_MAX + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    cluster
        .broker_round_trip_time(1, Duration::ZERO)
        .expect("a fast broker");
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 2).await;
    assert_eq!(
        delivered(&got[1]).id,
        id,
        "it was stored, and only its confirm was late"
    );
    queue.close().await;
}

/// Fault 12. A deleted topic takes its events with it. The new one begins at 0, below the position
/// of each consumer, and soon reaches beyond it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_is_made_again_and_what_comes_later_is_read_from_its_start() {
    let Some(topic) = KafkaTopic::new(2) else { return };
    let queue = topic.open().await;
    let mut deliveries = queue.consume().await.unwrap();
    let publish_all = async |count: usize| {
        let mut confirmed = HashSet::new();
        for n in 0..count {
            let event = event(OrgId::generate(), &format!("call-{n}"), "{}");
            until("a publish to be confirmed", || async {
                queue.publish(&event).await.ok()
            })
            .await;
            confirmed.insert(id_of(&event));
        }
        confirmed
    };
    let before = publish_all(100).await;
    let got = take(&mut deliveries, before.len()).await;
    let tags: Vec<_> = got.iter().map(|delivery| delivery.tag).collect();
    deliveries.ack(&tags).await.expect("an ack");

    topic.delete().await;
    until("an empty topic", || async {
        topic.written().is_some_and(|written| written == 0).then_some(())
    })
    .await;
    let mut missing = publish_all(300).await;
    while !missing.is_empty() {
        for delivery in within(deliveries.next_batch(100)).await.expect("a batch") {
            let id = delivered(&delivery).id;
            assert!(!before.contains(&id), "it went with the deleted topic");
            missing.remove(&id);
        }
    }
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_refuses_at_once_and_is_used_again_when_it_is_back() {
    let cluster = cluster();
    let queue = open(&cluster).await;
    let before = until_confirmed(&queue).await;
    let mut deliveries = queue.consume().await.unwrap();
    take(&mut deliveries, 1).await;
    cluster.broker_down(1).expect("it is down");
    let queue = &queue;
    until("publishes to be refused, as nothing is stored", || async {
        matches!(publish(queue).await.1, Err(PublishError::Unavailable { .. })).then_some(())
    })
    .await;
    assert_eq!(queue.state().health, QueueHealth::Away);
    let began = Instant::now();
    assert!(publish(queue).await.1.is_err());
    assert!(
        began.elapsed() < CONFIRM_MAX / 2,
        "it waited for a broker that is known to be away"
    );
    cluster.broker_up(1).expect("it is up");
    let after = until_confirmed(queue).await;
    assert_eq!(queue.state().health, QueueHealth::Ready);
    // Events that were unknown may be among them; the confirmed one has to be.
    let arrives = async {
        loop {
            let batch = deliveries.next_batch(100).await.unwrap();
            if batch.iter().any(|delivery| delivered(delivery).id == after) {
                break;
            }
            assert!(batch.iter().all(|delivery| delivered(delivery).id != before));
        }
    };
    within(arrives).await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_opens_while_its_broker_is_away_and_finds_it_later() {
    let cluster = cluster();
    cluster.broker_down(1).expect("it is down");
    let queue = open(&cluster).await;
    let (_, outcome) = publish(&queue).await;
    assert!(matches!(outcome, Err(PublishError::Unavailable { .. })), "{outcome:?}");
    let mut deliveries = queue.consume().await.unwrap();
    cluster.broker_up(1).expect("it is up");
    let id = until_confirmed(&queue).await;
    let got = take(&mut deliveries, 1).await;
    assert_eq!(delivered(&got[0]).id, id);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_answers_each_publish_under_way() {
    let cluster = cluster();
    let queue = open(&cluster).await;
    until_confirmed(&queue).await;
    cluster.broker_down(1).expect("it is down");
    let began = Instant::now();
    let publishing = join_all((0..200).map(|_| publish(&queue)));
    let (outcomes, ()) = tokio::join!(publishing, queue.close());
    assert_eq!(outcomes.len(), 200);
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_err()));
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_the_broker_will_not_make_is_an_error_at_the_start() {
    let Some(topic) = KafkaTopic::new(1) else { return };
    let settings = KafkaSettings {
        replicas: Some(5),
        ..topic.settings.clone()
    };
    let refused = KafkaQueue::open(&topic.url, settings).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectError::Broker { reason, .. } if reason.contains("replication factor")),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_a_lower_limit_lowers_the_queues() {
    let Some(topic) = KafkaTopic::new(1) else { return };
    topic.create(&[("max.message.bytes", "60000")]).await;
    let queue = topic.open().await;
    let sized = |bytes: usize| event(OrgId::generate(), "call", vec![b'x'; bytes]);
    queue.publish(&sized(40_000)).await.expect("it fits");
    let refused = queue.publish(&sized(60_000)).await.unwrap_err();
    assert!(
        matches!(refused, PublishError::TooLarge { bytes_max: 43_616, .. }),
        "{refused}"
    );
    queue.close().await;
}

/// Bytes that no compression makes fewer.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    getrandom::fill(&mut noise).expect("the system gives randomness");
    noise
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_events_go_in_batches_that_the_topic_takes() {
    let Some(topic) = KafkaTopic::new(1) else { return };
    topic.create(&[("max.message.bytes", "60000")]).await;
    let queue = topic.open().await;
    let org = OrgId::generate();
    let events: Vec<_> = (0..60)
        .map(|n| event(org, &format!("call-{n}"), noise(10_000)))
        .collect();
    let outcomes = join_all(events.iter().map(|event| queue.publish(event))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    queue.close().await;
}

/// The topic's limit is lowered while events are published. An event above it was confirmed by the
/// spool, and holds up nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_over_the_topics_limit_is_set_aside_and_the_others_go_on() {
    let Some(topic) = KafkaTopic::new(1) else { return };
    let broker = Arc::new(topic.open().await);
    let place = Scratch::new();
    let settings = SpoolSettings {
        directory: place.0.clone(),
        may_be_volatile: true,
        ..SpoolSettings::new(&QueueSettings::default(), 2 << 20)
    };
    let opened = SpoolQueue::open(broker.clone(), settings, Arc::new(SystemClock)).await;
    let queue = opened.expect("the spool opens");
    let org = OrgId::generate();
    queue
        .publish(&event(org, "call", noise(70_000)))
        .await
        .expect("it fits");
    assert!(queue.spool().is_some_and(|spool| !spool.is_spooling));
    topic.alter("max.message.bytes", "60000").await;
    let mut sent = Vec::new();
    // The change reaches the broker's partitions a moment later.
    let poison = until("the topic to refuse a size", || async {
        let event = event(org, "call", noise(70_000));
        queue.publish(&event).await.expect("the broker or the spool takes it");
        let is_spooling = queue.spool().is_some_and(|spool| spool.is_spooling);
        is_spooling.then(|| id_of(&event))
    })
    .await;
    for _ in 0..20 {
        let event = event(org, "call", noise(10_000));
        queue.publish(&event).await.expect("the broker or the spool takes it");
        sent.push(id_of(&event));
    }
    tokio::time::timeout(DEADLINE * 3, queue.drained())
        .await
        .expect("the spool drains");
    assert_eq!(dead_ids(&place.0), [poison]);
    let mut deliveries = broker.consume().await.expect("a consumer");
    let mut came = Vec::new();
    while !sent.iter().all(|id| came.contains(id)) {
        came.extend(take(&mut deliveries, 1).await.iter().map(|one| delivered(one).id));
    }
    came.retain(|id| sent.contains(id));
    came.dedup();
    assert_eq!(came, sent);
    let refused = queue.publish(&event(org, "call", noise(70_000))).await;
    assert!(matches!(refused, Err(PublishError::TooLarge { .. })), "{refused:?}");
    queue.close().await;
}

/// The whole server dies under load and comes back: each confirmed event is there, in its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_keeps_each_confirmed_event() {
    let Some(server) = Server::start() else { return };
    let topic = server.topic(3);
    let queue = topic.open().await;
    let stopped = AtomicBool::new(false);
    let org = OrgId::generate();
    let publishing = join_all((0..12).map(|subject| {
        let (queue, stopped) = (&queue, &stopped);
        async move {
            let (mut confirmed, mut refused) = (Vec::new(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let event = event(org, &format!("call-{subject}"), "{}");
                if queue.publish(&event).await.is_ok() {
                    confirmed.push(id_of(&event));
                } else {
                    // A refusal comes at once; a sender comes back later.
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            (confirmed, refused)
        }
    }));
    let killing = async {
        until_confirmed(&queue).await;
        server.kill();
        until("publishes to be refused", || async {
            (queue.state().health == QueueHealth::Away).then_some(())
        })
        .await;
        server.restart().await;
        until_confirmed(&queue).await;
        stopped.store(true, Ordering::Relaxed);
    };
    let (senders, ()) = tokio::join!(publishing, killing);
    assert!(
        senders.iter().any(|(_, refused)| *refused > 0),
        "the kill was noticed by nobody"
    );
    let mut missing: HashSet<EventId> = senders.iter().flat_map(|(confirmed, _)| confirmed).copied().collect();
    let mut order: HashMap<String, Vec<EventId>> = HashMap::new();
    let mut deliveries = queue.consume().await.unwrap();
    let arriving = async {
        while !missing.is_empty() {
            for delivery in deliveries.next_batch(500).await.unwrap() {
                let event = delivered(&delivery);
                if missing.remove(&event.id) {
                    order.entry(event.subject.0.to_string()).or_default().push(event.id);
                }
            }
        }
    };
    within(arriving).await;
    for (subject, (confirmed, _)) in senders.iter().enumerate() {
        assert_eq!(order.get(&format!("call-{subject}")), Some(confirmed), "call-{subject}");
    }
    queue.close().await;
}
