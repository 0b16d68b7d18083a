//! RabbitMQ as the queue: the contract, over one queue and over several. Its faults stand in
//! `queue_amqp_faults`.

use crate::{
    conformance::queue::{Backend, Limits, delivered, event, id_of, run, take, within},
    support::{amqp::AmqpPlace, until},
};
use async_trait::async_trait;
use hookswitch::{
    domain::{EventId, OrgId},
    queue::{AmqpQueue, AmqpSettings, ConnectError, EventQueue, LeaseError, QueueLeases},
};
use std::{collections::HashMap, sync::Arc};

struct Rabbit(AmqpPlace);

#[async_trait]
impl Backend for Rabbit {
    async fn open(&self, limits: Limits) -> Arc<dyn EventQueue> {
        let settings = AmqpSettings {
            event_bytes_max: limits.event_bytes_max,
            ..self.0.settings()
        };
        self.0.open_at(self.0.url(), settings).await
    }

    async fn crashed_now(&self) -> Box<dyn Backend> {
        // The broker lives on: whatever it confirmed, another process finds.
        Box::new(Self(self.0.clone()))
    }

    async fn put_undecodable(&self) {
        self.0.bare().await.publish(&self.0.queue_name(0), b"no envelope").await;
    }

    fn limits_bytes(&self) -> bool {
        false
    }

    fn keeps_tags(&self) -> bool {
        false
    }

    fn counts_at_once(&self) -> bool {
        false
    }

    fn is_in_one_order(&self) -> bool {
        self.0.settings().queues == 1
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_queue_keeps_the_contract() {
    if AmqpPlace::new(1).is_some() {
        run(|| Rabbit(AmqpPlace::new(1).expect("it was there"))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_queues_keep_the_contract() {
    if AmqpPlace::new(4).is_some() {
        run(|| Rabbit(AmqpPlace::new(4).expect("it was there"))).await;
    }
}

/// A subject for each queue. The hash never changes: else events of one subject would change their
/// queue with a release.
fn subjects_of_queues(queues: u16) -> Vec<String> {
    (0..queues)
        .map(|number| {
            (0..1000)
                .map(|n| format!("call-{n}"))
                .find(|subject| crc32c::crc32c(subject.as_bytes()) % u32::from(queues) == u32::from(number))
                .expect("there is one")
        })
        .collect()
}

#[tokio::test]
async fn a_returned_event_is_an_error_and_its_neighbours_are_not() {
    let Some(place) = AmqpPlace::new(2) else { return };
    let subjects = subjects_of_queues(2);
    let queue = place.open().await;
    let org = OrgId::generate();
    let mut confirmed = Vec::new();
    let mut is_refused = false;
    // On a busy machine the queue may be missed and declared again before the events get there.
    for _ in 0..10 {
        place.bare().await.delete(&place.queue_name(1)).await;
        let events: Vec<_> = (0..200).map(|n| event(org, &subjects[n % 2], format!("{n}"))).collect();
        let outcomes = futures_util::future::join_all(events.iter().map(|event| queue.publish(event))).await;
        is_refused = outcomes[1].is_err();
        for (n, (event, outcome)) in events.iter().zip(&outcomes).enumerate() {
            match outcome {
                // The next round deletes the queue with the events in it.
                Ok(()) if is_refused || n % 2 == 0 => confirmed.push(id_of(event)),
                Ok(()) => {}
                Err(hookswitch::queue::PublishError::Unavailable { .. }) => assert_eq!(n % 2, 1, "its queue is there"),
                Err(error) => panic!("{error}"),
            }
        }
        if is_refused {
            break;
        }
    }
    assert!(is_refused, "its queue is missing");
    until("the queue to be declared again", || async {
        queue.publish(&event(org, &subjects[1], "later")).await.ok()
    })
    .await;
    let mut deliveries = queue.consume().await.unwrap();
    let mut got = take(&mut deliveries, confirmed.len() + 1).await;
    got.retain(|delivery| delivered(delivery).body != "later");
    let mut got: Vec<EventId> = got.iter().map(|delivery| delivered(delivery).id).collect();
    got.sort();
    confirmed.sort();
    assert_eq!(got, confirmed, "what is confirmed is what is there");
}

#[tokio::test]
async fn what_is_redelivered_too_often_goes_to_the_dead_letters() {
    let Some(place) = AmqpPlace::new(1) else { return };
    let settings = AmqpSettings {
        delivery_limit: 2,
        ..place.settings()
    };
    let queue = place.open_at(place.url(), settings).await;
    let event = event(OrgId::generate(), "call", "poison");
    queue.publish(&event).await.unwrap();
    for _ in 0..3 {
        let mut deliveries = queue.consume().await.unwrap();
        assert_eq!(delivered(&take(&mut deliveries, 1).await[0]).id, id_of(&event));
    }
    let mut deliveries = queue.consume().await.unwrap();
    let bare = place.bare().await;
    let dead = until("the dead letter", || async {
        bare.take(&place.dead_queue_name()).await
    })
    .await;
    assert_eq!(dead.data, b"poison");
    assert_eq!(
        dead.properties.message_id().as_ref().unwrap().as_str(),
        id_of(&event).to_string()
    );
    assert!(futures_util::FutureExt::now_or_never(deliveries.next_batch(1)).is_none());
}

#[tokio::test]
async fn queues_of_a_larger_number_are_worked_off() {
    let Some(place) = AmqpPlace::new(4) else { return };
    let queue = place.open().await;
    let mut published = Vec::new();
    for n in 0..40 {
        let event = event(OrgId::generate(), &format!("call-{n}"), "x");
        queue.publish(&event).await.unwrap();
        published.push(id_of(&event));
    }
    queue.close().await;
    let fewer = AmqpSettings {
        queues: 2,
        ..place.settings()
    };
    let queue = place.open_at(place.url(), fewer).await;
    let mut deliveries = queue.consume().await.unwrap();
    let mut got: Vec<_> = take(&mut deliveries, 40)
        .await
        .iter()
        .map(|one| delivered(one).id)
        .collect();
    got.sort();
    published.sort();
    assert_eq!(got, published);
}

#[tokio::test]
async fn a_second_process_takes_over_in_order() {
    let Some(place) = AmqpPlace::new(4) else { return };
    let (first, second) = (place.open().await, place.open().await);
    let mut one = first.consume().await.unwrap();
    let org = OrgId::generate();
    for n in 0..30 {
        for call in 0..6 {
            first
                .publish(&event(org, &format!("call-{call}"), format!("{n}")))
                .await
                .unwrap();
        }
    }
    let mut seen: HashMap<Box<str>, Vec<usize>> = HashMap::new();
    let mut note = |deliveries: &[hookswitch::queue::Delivery]| {
        for envelope in deliveries.iter().map(delivered) {
            let n: usize = std::str::from_utf8(&envelope.body).unwrap().parse().unwrap();
            let seen = seen.entry(envelope.subject.0.clone()).or_default();
            // At least once: an event that is seen again is one that was seen before.
            if !seen.contains(&n) {
                assert_eq!(n, seen.len(), "{} out of order", envelope.subject.0);
                seen.push(n);
            }
        }
        seen.values().map(Vec::len).sum::<usize>()
    };
    let got = take(&mut one, 60).await;
    one.ack(&got[..40].iter().map(|one| one.tag).collect::<Vec<_>>())
        .await
        .unwrap();
    note(&got);
    let mut two = second.consume().await.unwrap();
    // The first vanishes with twenty deliveries in its hands.
    first.close().await;
    loop {
        let batch = within(two.next_batch(50)).await.unwrap();
        let count = note(&batch);
        two.ack(&batch.iter().map(|one| one.tag).collect::<Vec<_>>())
            .await
            .unwrap();
        if count == 180 {
            break;
        }
    }
    until("nothing to be left", || async {
        (second.state().events == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn deliveries_that_nobody_works_on_go_to_another_process() {
    let Some(place) = AmqpPlace::new(1) else { return };
    let settings = AmqpSettings {
        idle_seconds_max: std::time::Duration::from_secs(1),
        ..place.settings()
    };
    let first = place.open_at(place.url(), settings.clone()).await;
    let second = place.open_at(place.url(), settings).await;
    let event = event(OrgId::generate(), "call", "x");
    first.publish(&event).await.unwrap();
    let mut stuck = first.consume().await.unwrap();
    let held = take(&mut stuck, 1).await;
    let mut other = second.consume().await.unwrap();
    let got = take(&mut other, 1).await;
    assert_eq!(delivered(&got[0]).id, id_of(&event));
    other.ack(&[got[0].tag]).await.unwrap();
    // Its ack comes too late and hurts nobody; it goes on as soon as it asks again.
    stuck.ack(&[held[0].tag]).await.unwrap();
    drop(other);
    let next = crate::conformance::queue::event(OrgId::generate(), "call", "next");
    first.publish(&next).await.unwrap();
    assert_eq!(delivered(&take(&mut stuck, 1).await[0]).id, id_of(&next));
}

#[tokio::test]
async fn a_broker_that_refuses_is_an_error_at_the_start() {
    let Some(place) = AmqpPlace::new(1) else { return };
    place.open().await.close().await;
    let other = AmqpSettings {
        delivery_limit: 7,
        ..place.settings()
    };
    let refused = AmqpQueue::open(place.url(), other).await.err().unwrap();
    assert!(matches!(refused, ConnectError::Broker { .. }), "{refused}");
    assert!(refused.to_string().contains(&place.queue_name(0)), "{refused}");

    let (head, tail) = place.url().rsplit_once('@').unwrap();
    let (head, _) = head.rsplit_once(':').unwrap();
    let wrong = format!("{head}:wrong-secret@{tail}");
    let refused = AmqpQueue::open(&wrong, place.settings()).await.err().unwrap();
    assert!(matches!(refused, ConnectError::Broker { .. }), "{refused}");
    assert!(!format!("{refused:?}").contains("wrong-secret"));
}

/// Leases in memory, as rows of a store would be: each worker holds an even share.
#[derive(Default)]
struct Leases {
    workers: std::sync::Mutex<Vec<usize>>,
}

struct Worker {
    number: usize,
    leases: Arc<Leases>,
}

#[async_trait]
impl QueueLeases for Worker {
    async fn share(&self, queues: u16) -> Result<Vec<u16>, LeaseError> {
        let mut workers = self.leases.workers.lock().unwrap();
        if !workers.contains(&self.number) {
            workers.push(self.number);
        }
        let own = workers.iter().position(|number| *number == self.number).unwrap();
        Ok((0..queues)
            .filter(|queue| usize::from(*queue) % workers.len() == own)
            .collect())
    }

    async fn release(&self) {
        self.leases
            .workers
            .lock()
            .unwrap()
            .retain(|number| *number != self.number);
    }
}

#[tokio::test]
async fn workers_share_the_queues_out_by_leases() {
    let Some(place) = AmqpPlace::new(4) else { return };
    let settings = AmqpSettings {
        share_period: std::time::Duration::from_millis(200),
        ..place.settings()
    };
    let leases = Arc::new(Leases::default());
    let mut workers = Vec::new();
    for number in 0..2 {
        let queue = place.open_at(place.url(), settings.clone()).await;
        queue.share_by(Arc::new(Worker {
            number,
            leases: leases.clone(),
        }));
        workers.push(queue);
    }
    let subjects = subjects_of_queues(4);
    let org = OrgId::generate();
    // Alone, the first one gets everything.
    let mut first = workers[0].consume().await.unwrap();
    for subject in &subjects {
        workers[0].publish(&event(org, subject, "alone")).await.unwrap();
    }
    let got = take(&mut first, 4).await;
    first
        .ack(&got.iter().map(|one| one.tag).collect::<Vec<_>>())
        .await
        .unwrap();

    // Two of four queues each, so that neither is idle.
    let mut second = workers[1].consume().await.unwrap();
    let consumers = |deliveries: &[hookswitch::queue::Delivery]| -> Vec<String> {
        let mut subjects: Vec<_> = deliveries
            .iter()
            .map(|one| delivered(one).subject.0.to_string())
            .collect();
        subjects.sort();
        subjects.dedup();
        subjects
    };
    let end = tokio::time::Instant::now() + crate::support::PATIENCE;
    loop {
        for subject in &subjects {
            workers[0].publish(&event(org, subject, "shared")).await.unwrap();
        }
        let (one, two) = tokio::join!(some(&mut first), some(&mut second));
        if consumers(&one).len() == 2 && consumers(&two).len() == 2 {
            break;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "they do not come to have two queues each"
        );
    }

    // One that stops gives its queues back.
    drop(second);
    workers[1].close().await;
    loop {
        for subject in &subjects {
            workers[0].publish(&event(org, subject, "alone again")).await.unwrap();
        }
        if consumers(&some(&mut first).await).len() == 4 {
            break;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "the first does not have all four again"
        );
    }
}

/// Acks the events that come within half a second.
async fn some(deliveries: &mut Box<dyn hookswitch::queue::Deliveries>) -> Vec<hookswitch::queue::Delivery> {
    let mut got = Vec::new();
    let end = tokio::time::Instant::now() + std::time::Duration::from_millis(500);
    while let Ok(batch) = tokio::time::timeout_at(end, deliveries.next_batch(100)).await {
        let batch = batch.unwrap();
        deliveries
            .ack(&batch.iter().map(|one| one.tag).collect::<Vec<_>>())
            .await
            .unwrap();
        got.extend(batch);
    }
    got
}
