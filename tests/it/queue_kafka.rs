//! The queue over Kafka: the contract, and what a broker, a group and a producer can do to it.

use crate::{
    conformance::queue::{Backend, Limits, delivered, event, id_of, run, take, within},
    support::{
        kafka::{KafkaTopic, server},
        until,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use hookswitch::{
    config::QueueSettings,
    domain::{Clock, EventId, OrgId, SystemClock},
    queue::{Delivery, EventQueue, KafkaQueue, KafkaSettings, PublishError},
};
use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Kafka {
    topic: Arc<KafkaTopic>,
}

#[async_trait]
impl Backend for Kafka {
    async fn open(&self, limits: Limits) -> Arc<dyn EventQueue> {
        let settings = KafkaSettings {
            event_bytes_max: limits.event_bytes_max,
            ..self.topic.settings.clone()
        };
        let opened = KafkaQueue::open(&self.topic.url, settings).await;
        Arc::new(opened.expect("the queue opens"))
    }

    async fn crashed_now(&self) -> Box<dyn Backend> {
        // Nothing of a process is left but the broker's state.
        Box::new(Self {
            topic: self.topic.clone(),
        })
    }

    async fn put_undecodable(&self) {
        let topic = self.topic.clone();
        tokio::task::spawn_blocking(move || topic.put_foreign("call"))
            .await
            .expect("it is written");
    }

    fn limits_bytes(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_the_contract() {
    if server().is_none() {
        return;
    }
    run(|| Kafka {
        // The suite compares the order of all events; only a partition has one.
        topic: Arc::new(KafkaTopic::new(1).expect("there is a server")),
    })
    .await;
}

fn body(n: usize) -> Bytes {
    Bytes::from(n.to_string())
}

/// Publishes `count` events of each of `subjects` subjects, those of one subject in order.
async fn publish_in_order(queue: &KafkaQueue, subjects: usize, count: usize) -> HashSet<EventId> {
    let org = OrgId::generate();
    let published = join_all((0..subjects).map(|subject| async move {
        let mut ids = Vec::with_capacity(count);
        for n in 0..count {
            let event = event(org, &format!("call-{subject}"), body(n));
            queue.publish(&event).await.expect("it is confirmed");
            ids.push(id_of(&event));
        }
        ids
    }))
    .await;
    published.into_iter().flatten().collect()
}

/// The lag of the group, as a process sees it that holds no partition.
async fn lag(topic: &KafkaTopic) -> u64 {
    let queue = topic.open().await;
    let events = queue.state().events;
    queue.close().await;
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_keeps_its_order_over_many_partitions() {
    let Some(topic) = KafkaTopic::new(6) else { return };
    let queue = topic.open().await;
    let mut deliveries = queue.consume().await.unwrap();
    let (published, got) = tokio::join!(publish_in_order(&queue, 24, 20), take(&mut deliveries, 480));
    assert_eq!(published.len(), 480);
    let mut next: HashMap<String, usize> = HashMap::new();
    for event in got.iter().map(delivered) {
        let expected = next.entry(event.subject.0.to_string()).or_default();
        assert_eq!(event.body, body(*expected), "{}", event.subject.0);
        *expected += 1;
    }
    let partitions: HashSet<_> = got.iter().map(|delivery| delivery.tag.0 >> 48).collect();
    assert_eq!(partitions.len(), 6, "24 subjects fall into all partitions");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_out_of_order_commit_up_to_the_first_gap() {
    let Some(topic) = KafkaTopic::new(1) else { return };
    let queue = topic.open().await;
    publish_in_order(&queue, 1, 10).await;
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 10).await;
    let tags: Vec<_> = got.iter().map(|delivery| delivery.tag).collect();
    deliveries.ack(&[&tags[5..], &tags[..4]].concat()).await.unwrap();
    let topic = &topic;
    until("the first four to be committed", || async {
        (lag(topic).await == 6).then_some(())
    })
    .await;
    deliveries.ack(&tags[4..5]).await.unwrap();
    until("all to be committed", || async {
        (lag(topic).await == 0).then_some(())
    })
    .await;
    queue.close().await;
}

/// One worker of the group: acks each event, every third one late and in another order.
struct Worker {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Worker {
    #[expect(clippy::disallowed_methods, reason = "the handle is kept and joined")]
    fn start(topic: &KafkaTopic, acked: &Arc<Mutex<HashSet<EventId>>>) -> Self {
        let (stop, acked) = (CancellationToken::new(), acked.clone());
        let (url, settings) = (topic.url.clone(), topic.settings.clone());
        let stopped = stop.clone();
        let running = tokio::spawn(async move {
            let queue = KafkaQueue::open(&url, settings).await.expect("the queue opens");
            let mut deliveries = queue.consume().await.expect("it consumes");
            let mut late = Vec::new();
            loop {
                let batch = tokio::select! {
                    () = stopped.cancelled() => break,
                    batch = deliveries.next_batch(40) => batch.expect("a batch"),
                };
                let (held, prompt): (Vec<_>, Vec<_>) = batch.into_iter().partition(|delivery| delivery.tag.0 % 3 == 0);
                for acks in [prompt, std::mem::replace(&mut late, held)] {
                    let tags: Vec<_> = acks.iter().rev().map(|delivery| delivery.tag).collect();
                    acked
                        .lock()
                        .unwrap()
                        .extend(acks.iter().map(|delivery| delivered(delivery).id));
                    deliveries.ack(&tags).await.expect("acks never fail");
                }
                if late.len() > 20 {
                    tokio::task::yield_now().await;
                }
            }
            // A late event stays unfinished: the next owner gets it.
            drop(deliveries);
            queue.close().await;
        });
        Self { stop, running }
    }

    async fn stop(self) {
        self.stop.cancel();
        within(self.running).await.expect("the worker ends well");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebalances_under_load_lose_and_skip_nothing() {
    let Some(topic) = KafkaTopic::new(6) else { return };
    let queue = topic.open().await;
    let acked: Arc<Mutex<HashSet<EventId>>> = Arc::default();
    let count = |at_least: usize| {
        let acked = acked.clone();
        async move {
            until("events to be acked", || async {
                (acked.lock().unwrap().len() >= at_least).then_some(())
            })
            .await;
        }
    };
    let publishing = publish_in_order(&queue, 40, 100);
    let changing = async {
        let mut workers = vec![Worker::start(&topic, &acked)];
        for step in 1..=3 {
            count(step * 300).await;
            // One more, then the oldest leaves: each is a rebalance of all partitions.
            workers.push(Worker::start(&topic, &acked));
            count(step * 300 + 150).await;
            workers.remove(0).stop().await;
        }
        workers
    };
    let (published, mut workers) = tokio::join!(publishing, changing);
    workers.remove(0).stop().await;
    // The last one acks the late ones too.
    let mut deliveries = queue.consume().await.unwrap();
    let unfinished = async {
        while lag(&topic).await > 0 {
            if let Ok(batch) = tokio::time::timeout(Duration::from_millis(300), deliveries.next_batch(500)).await {
                let batch = batch.unwrap();
                let tags: Vec<_> = batch.iter().map(|delivery| delivery.tag).collect();
                acked
                    .lock()
                    .unwrap()
                    .extend(batch.iter().map(|delivery| delivered(delivery).id));
                deliveries.ack(&tags).await.unwrap();
            }
        }
    };
    within(unfinished).await;
    let acked = acked.lock().unwrap().clone();
    let skipped = published.iter().filter(|id| !acked.contains(id)).count();
    assert_eq!(skipped, 0, "of {}", published.len());
    drop(deliveries);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_delivery_may_be_acked_and_is_planned_by_the_next_owner() {
    let Some(topic) = KafkaTopic::new(1) else { return };
    let first = topic.open().await;
    publish_in_order(&first, 1, 3).await;
    let mut deliveries = first.consume().await.unwrap();
    let got = take(&mut deliveries, 3).await;
    deliveries.ack(&[got[0].tag]).await.unwrap();
    // Two consumers, one partition: whoever comes second may get it, or wait until the first
    // leaves.
    let second = topic.open().await;
    let mut others = second.consume().await.unwrap();
    first.close().await;
    let redelivered = take(&mut others, 2).await;
    let ids = |deliveries: &[Delivery]| deliveries.iter().map(|it| delivered(it).id).collect::<Vec<_>>();
    assert_eq!(ids(&redelivered), ids(&got[1..]));
    deliveries
        .ack(&[got[1].tag, got[2].tag])
        .await
        .expect("a late ack is no error");
    let tags: Vec<_> = redelivered.iter().map(|delivery| delivery.tag).collect();
    others.ack(&tags).await.unwrap();
    second.close().await;
    assert_eq!(lag(&topic).await, 0);
}

const CHILD: &str = "HOOKSWITCH_TEST_KAFKA_CHILD";

/// Not a test of its own: the process that the next one starts and kills. Acks all but the fourth
/// event, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_acks_until_it_is_killed() {
    let Ok(name) = std::env::var(CHILD) else { return };
    let settings = KafkaSettings {
        topic: name.clone(),
        group: name,
        ..KafkaSettings::default()
    };
    let url = server().expect("the parent has a server");
    let queue = KafkaQueue::open(&url, settings).await.expect("the queue opens");
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 7).await;
    for (index, delivery) in got.iter().enumerate().filter(|(index, _)| *index != 3) {
        deliveries.ack(&[delivery.tag]).await.unwrap();
        println!("acked {index}");
    }
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_and_not_acked_before_kill_nine_comes_again() {
    let Some(topic) = KafkaTopic::new(1) else { return };
    let queue = topic.open().await;
    let org = OrgId::generate();
    let mut ids = Vec::new();
    for n in 0..7 {
        let event = event(org, "call", body(n));
        queue.publish(&event).await.unwrap();
        ids.push(id_of(&event));
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "queue_kafka::child_that_acks_until_it_is_killed",
            "--nocapture",
        ])
        .env(CHILD, &topic.settings.topic)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = child.stdout.take().unwrap();
    let has_acked = tokio::task::spawn_blocking(move || {
        BufReader::new(said)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("acked 6"))
    });
    assert!(within(has_acked).await.unwrap(), "the child ended by itself");
    let topic = &topic;
    until("the first three to be committed", || async {
        (lag(topic).await == 4).then_some(())
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    // The group gives the dead one's partition away when its session ends.
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 4).await;
    let again: Vec<_> = got.iter().map(|delivery| delivered(delivery).id).collect();
    assert_eq!(again, ids[3..], "the fourth, and those behind it a second time");
    let counts = |got: &[Delivery]| got.iter().map(|delivery| delivery.redeliveries).collect::<Vec<_>>();
    assert_eq!(counts(&got), [0; 4], "the first consumer moved on");
    queue.close().await;
    for in_vain in [1, 2] {
        let queue = topic.open().await;
        let mut deliveries = queue.consume().await.unwrap();
        let got = take(&mut deliveries, 4).await;
        assert_eq!(counts(&got), [in_vain; 4]);
        queue.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_consumes_has_no_producer() {
    let Some(topic) = KafkaTopic::new(1) else { return };
    let publishing = topic.open().await;
    let settings = KafkaSettings {
        publishes: false,
        ..topic.settings.clone()
    };
    let consuming = KafkaQueue::open(&topic.url, settings).await.expect("it opens");
    let event = event(OrgId::generate(), "call", "{}");
    publishing.publish(&event).await.unwrap();
    let mut deliveries = consuming.consume().await.unwrap();
    assert_eq!(delivered(&take(&mut deliveries, 1).await[0]).id, id_of(&event));
    let outcome = consuming.publish(&event).await;
    assert!(matches!(outcome, Err(PublishError::Unavailable { .. })), "{outcome:?}");
    consuming.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_another_program_costs_only_itself() {
    let Some(topic) = KafkaTopic::new(3) else { return };
    let queue = topic.open().await;
    let topic = Arc::new(topic);
    let putting = topic.clone();
    tokio::task::spawn_blocking(move || (0..9).for_each(|n| putting.put_foreign(&format!("key-{n}"))))
        .await
        .unwrap();
    let published = publish_in_order(&queue, 9, 2).await;
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 27).await;
    let (sound, poison): (Vec<_>, Vec<_>) = got.iter().partition(|delivery| delivery.event.is_ok());
    assert_eq!((sound.len(), poison.len()), (18, 9));
    assert!(sound.iter().all(|delivery| published.contains(&delivered(delivery).id)));
    let tags: Vec<_> = got.iter().map(|delivery| delivery.tag).collect();
    deliveries.ack(&tags).await.unwrap();
    queue.close().await;
    assert_eq!(lag(&topic).await, 0);
}

/// `recover`: what was acked since a moment is delivered again, and nothing is moved forward.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_back_to_a_moment_once_no_worker_is_in_it() {
    let Some(topic) = KafkaTopic::new(3) else { return };
    let section = QueueSettings {
        kafka_topic: topic.settings.topic.clone(),
        kafka_group: topic.settings.group.clone(),
        ..QueueSettings::default()
    };
    let rewind = |to, is_done| hookswitch::queue::rewind(&topic.url, &section, 1 << 20, to, is_done);
    let begun = SystemClock.now();
    let queue = topic.open().await;
    let mut deliveries = queue.consume().await.expect("a consumer");
    let published = publish_in_order(&queue, 6, 5).await;
    let taken = take(&mut deliveries, 30).await;
    let tags: Vec<_> = taken.iter().map(|delivery| delivery.tag).collect();
    deliveries.ack(&tags).await.expect("acked");
    // Before its next commit the group stands at the beginning, where nothing is to be moved.
    until("the commit, and a refusal while a worker consumes", || async {
        match rewind(begun, true).await {
            Err(error) => error.to_string().contains("stop every worker").then_some(()),
            Ok(_) => None,
        }
    })
    .await;
    drop(deliveries);
    queue.close().await;
    assert_eq!(lag(&topic).await, 0);

    assert_eq!(rewind(begun, false).await.expect("counted"), Some(30));
    assert_eq!(lag(&topic).await, 0, "a count moves nothing");
    let later = SystemClock.now() + Duration::from_mins(1);
    assert_eq!(rewind(later, true).await.expect("nothing since"), Some(0));
    assert_eq!(rewind(begun, true).await.expect("gone back"), Some(30));
    let queue = topic.open().await;
    let mut deliveries = queue.consume().await.expect("a consumer");
    let again: HashSet<_> = take(&mut deliveries, 30)
        .await
        .iter()
        .map(|delivery| delivered(delivery).id)
        .collect();
    assert_eq!(again, published);
    queue.close().await;
}
