//! The contract of `EventQueue`, sentence by sentence. A backend implements [`Backend`] and calls
//! [`run`].

use async_trait::async_trait;
use bytes::Bytes;
use hookswitch::{
    domain::{DedupeKey, Envelope, EventId, EventType, OrgId, Source, Subject, Timestamp, VerifiedEvent},
    queue::{self, ConsumeError, Deliveries, Delivery, DeliveryTag, EventQueue, PublishError, QueueHealth},
};
use std::{
    collections::HashSet,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Far longer than anything takes; only a hang reaches it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Limits that a check asks for.
#[derive(Clone, Copy)]
pub struct Limits {
    pub bytes_max: u64,
    pub event_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 256 << 20,
            event_bytes_max: 1 << 20,
        }
    }
}

/// One place where a queue keeps its events.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Opens the queue, also a second time after the first was closed.
    async fn open(&self, limits: Limits) -> Arc<dyn EventQueue>;
    /// The place as it would stand if everything died now.
    async fn crashed_now(&self) -> Box<dyn Backend>;
    /// Puts something into the open queue that is no envelope.
    async fn put_undecodable(&self);
    /// Whether the queue counts the bytes that it holds and refuses above a limit, in all and by
    /// organisation. The disk of a broker is the broker's: there the suite leaves those checks out.
    fn limits_bytes(&self) -> bool {
        true
    }
    /// Whether a delivery has the same tag after a restart. A broker counts anew on each
    /// connection.
    fn keeps_tags(&self) -> bool {
        true
    }
    /// Whether the state is right at once. A broker is asked now and then, and tells an age only of
    /// events that it has delivered.
    fn counts_at_once(&self) -> bool {
        true
    }
    /// Whether events of all subjects come in one order. Several queues or partitions keep the
    /// order within a subject alone.
    fn is_in_one_order(&self) -> bool {
        true
    }
}

/// Runs every check, each on a place of its own.
pub async fn run<F, B>(make: F)
where
    F: Fn() -> B,
    B: Backend + 'static,
{
    macro_rules! checks {
        ($($check:ident)+) => {$(
            println!("conformance: {}", stringify!($check));
            let ended = tokio::time::timeout(DEADLINE, $check(&make())).await;
            assert!(ended.is_ok(), "{} hangs", stringify!($check));
        )+};
    }
    checks! {
        a_confirmed_event_survives_a_crash_at_once
        concurrent_publishes_are_all_delivered_once
        a_subject_keeps_its_order
        an_envelope_comes_out_as_it_went_in
        unacked_events_come_back_to_the_next_consumer
        unacked_events_come_back_after_a_reopening
        a_delivery_tells_how_often_it_was_given_out_in_vain
        acks_come_in_any_order_and_twice
        acked_events_stay_acked_after_closing
        a_dropped_publish_is_still_written
        a_dropped_wait_for_a_batch_loses_nothing
        a_second_consumer_is_an_error_while_the_first_is_held
        a_batch_is_no_larger_than_asked_for
        the_largest_event_fits_and_one_byte_more_does_not
        a_closed_queue_refuses_and_ends_its_consumer
        what_cannot_be_decoded_costs_only_itself
        the_state_counts_what_is_not_acked
        ten_thousand_events_go_through
    }
    if make().limits_bytes() {
        checks! {
            a_full_queue_refuses_and_goes_on_when_acked
            one_organisation_cannot_take_more_than_its_share
        }
    } else {
        println!("conformance: left out: the limits of bytes, which this backend does not have");
    }
}

/// The ids are those, in the order that the backend promises.
fn assert_ids(backend: &dyn Backend, mut got: Vec<EventId>, mut expected: Vec<EventId>) {
    if !backend.is_in_one_order() {
        got.sort();
        expected.sort();
    }
    assert_eq!(got, expected);
}

/// So many events are in the queue: at once, or after a while where the backend has to ask.
async fn assert_events(backend: &dyn Backend, queue: &Arc<dyn EventQueue>, expected: u64) {
    if !backend.counts_at_once() {
        let counted = async {
            while queue.state().events != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(DEADLINE / 2, counted).await;
    }
    assert_eq!(queue.state().events, expected);
}

pub fn event(org: OrgId, subject: &str, body: impl Into<Bytes>) -> VerifiedEvent {
    let received_at = Timestamp::from_seconds(1_780_000_000);
    VerifiedEvent::from_verified(Envelope {
        id: EventId::generate(),
        source: Source::Vapi,
        event_type: EventType::new(Source::Vapi, "status-update"),
        time: received_at,
        received_at,
        subject: Subject(subject.into()),
        org: Some(org),
        endpoint: None,
        secret: None,
        dedupe_key: DedupeKey([7; 16]),
        traceparent: None,
        content_type: "application/json".into(),
        path: "/webhooks/vapi".into(),
        query: "".into(),
        headers: vec![("user-agent".into(), "axios/1.7".into())],
        hops: 0,
        body: body.into(),
    })
}

pub fn id_of(event: &VerifiedEvent) -> EventId {
    event.envelope().id
}

pub fn delivered(delivery: &Delivery) -> &Envelope {
    delivery.event.as_ref().expect("it is an envelope")
}

/// The events that a spool has set aside.
pub fn dead_ids(spool: &Path) -> Vec<EventId> {
    let id_in = |file: &PathBuf| {
        let bytes = std::fs::read(file).expect("a file");
        queue::decode(&bytes.into()).expect("an envelope").id
    };
    let files = queue::dead_entries(spool).expect("a directory");
    files.iter().map(id_in).collect()
}

/// Takes `count` deliveries, however they are batched.
pub async fn take(deliveries: &mut Box<dyn Deliveries>, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let batch = within(deliveries.next_batch(count - taken.len()))
            .await
            .expect("a batch");
        assert!(!batch.is_empty(), "the queue ended after {} of {count}", taken.len());
        taken.extend(batch);
    }
    taken
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it takes too long")
}

async fn publish_some(queue: &Arc<dyn EventQueue>, count: usize) -> Vec<EventId> {
    let org = OrgId::generate();
    let mut ids = Vec::new();
    for index in 0..count {
        let event = event(org, &format!("call-{index}"), format!("{{\"n\":{index}}}"));
        ids.push(id_of(&event));
        queue.publish(&event).await.expect("it fits");
    }
    ids
}

fn ids(deliveries: &[Delivery]) -> Vec<EventId> {
    deliveries.iter().map(|delivery| delivered(delivery).id).collect()
}

fn tags(deliveries: &[Delivery]) -> Vec<DeliveryTag> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

async fn a_confirmed_event_survives_a_crash_at_once(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let published = publish_some(&queue, 5).await;
    let crashed = backend.crashed_now().await;
    let reopened = crashed.open(Limits::default()).await;
    let mut deliveries = reopened.consume().await.unwrap();
    assert_ids(backend, ids(&take(&mut deliveries, 5).await), published);
}

async fn concurrent_publishes_are_all_delivered_once(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let org = OrgId::generate();
    let events: Vec<_> = (0..500)
        .map(|index| event(org, &format!("call-{index}"), vec![b'x'; 1 + index * 7]))
        .collect();
    let results = futures_util::future::join_all(events.iter().map(|event| queue.publish(event))).await;
    assert!(results.iter().all(Result::is_ok));
    let mut deliveries = queue.consume().await.unwrap();
    let got: Vec<_> = ids(&take(&mut deliveries, 500).await);
    assert_eq!(got.iter().collect::<HashSet<_>>().len(), 500);
    assert_eq!(
        got.into_iter().collect::<HashSet<_>>(),
        events.iter().map(id_of).collect()
    );
}

async fn a_subject_keeps_its_order(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let org = OrgId::generate();
    let calls = futures_util::future::join_all((0..8).map(|call| {
        let queue = queue.clone();
        async move {
            for n in 0..40 {
                queue
                    .publish(&event(org, &format!("call-{call}"), format!("{n}")))
                    .await
                    .unwrap();
            }
        }
    }));
    let mut deliveries = queue.consume().await.unwrap();
    let ((), got) = tokio::join!(async { drop(calls.await) }, take(&mut deliveries, 320));
    for call in 0..8 {
        let subject = format!("call-{call}");
        let order: Vec<_> = got
            .iter()
            .map(delivered)
            .filter(|event| *event.subject.0 == *subject)
            .map(|event| event.body.clone())
            .collect();
        assert_eq!(
            order,
            (0..40).map(|n| Bytes::from(n.to_string())).collect::<Vec<_>>(),
            "{subject}"
        );
    }
}

async fn an_envelope_comes_out_as_it_went_in(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let mut full = event(OrgId::generate(), "call", vec![0, 255, b'\n', 0]).into_envelope();
    full.endpoint = Some(hookswitch::domain::EndpointId::generate());
    full.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    full.query = "a=1&b=%20".into();
    full.hops = 3;
    let mut bare = event(OrgId::generate(), "", Bytes::new()).into_envelope();
    (bare.org, bare.headers) = (None, Vec::new());
    for envelope in [full, bare] {
        queue
            .publish(&VerifiedEvent::from_verified(envelope.clone()))
            .await
            .unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        let got = take(&mut deliveries, 1).await;
        assert_eq!(got[0].event, Ok(envelope));
        deliveries.ack(&tags(&got)).await.unwrap();
    }
}

async fn unacked_events_come_back_to_the_next_consumer(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let published = publish_some(&queue, 6).await;
    let mut first = queue.consume().await.unwrap();
    let got = take(&mut first, 5).await;
    first.ack(&[got[1].tag, got[3].tag]).await.unwrap();
    drop(first);
    let mut second = queue.consume().await.unwrap();
    let acked = [delivered(&got[1]).id, delivered(&got[3]).id];
    let expected = published.into_iter().filter(|id| !acked.contains(id)).collect();
    assert_ids(backend, ids(&take(&mut second, 4).await), expected);
}

async fn unacked_events_come_back_after_a_reopening(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let published = publish_some(&queue, 6).await;
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 6).await;
    deliveries.ack(&tags(&got[..2])).await.unwrap();
    queue.close().await;
    let queue = backend.open(Limits::default()).await;
    let mut deliveries = queue.consume().await.unwrap();
    let again = take(&mut deliveries, 4).await;
    let acked = ids(&got[..2]);
    let expected = published.into_iter().filter(|id| !acked.contains(id)).collect();
    assert_ids(backend, ids(&again), expected);
    if backend.keeps_tags() {
        assert_eq!(tags(&again), tags(&got[2..]));
    } else {
        println!("conformance: left out: tags that stay the same after a restart");
    }
}

/// A consumer that ends, by whatever, without an ack of what it had first.
async fn a_delivery_tells_how_often_it_was_given_out_in_vain(backend: &dyn Backend) {
    let counts = |got: &[Delivery]| got.iter().map(|delivery| delivery.redeliveries).collect::<Vec<_>>();
    let mut place = backend.crashed_now().await;
    let queue = place.open(Limits::default()).await;
    let published = publish_some(&queue, 3).await;
    queue.close().await;
    for in_vain in 0..3 {
        let queue = place.open(Limits::default()).await;
        let mut deliveries = queue.consume().await.unwrap();
        let got = take(&mut deliveries, 3).await;
        assert_ids(backend, ids(&got), published.clone());
        assert_eq!(counts(&got), [in_vain; 3]);
        place = place.crashed_now().await;
        drop(deliveries);
        queue.close().await;
    }
    // The next consumer of the same process, and one that moved on.
    let queue = place.open(Limits::default()).await;
    let mut deliveries = queue.consume().await.unwrap();
    assert_eq!(counts(&take(&mut deliveries, 3).await), [3; 3]);
    drop(deliveries);
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 3).await;
    assert_eq!(counts(&got), [4; 3]);
    deliveries.ack(&tags(&got)).await.unwrap();
    queue.close().await;
    let queue = place.open(Limits::default()).await;
    publish_some(&queue, 1).await;
    let mut deliveries = queue.consume().await.unwrap();
    assert_eq!(counts(&take(&mut deliveries, 1).await), [0]);
}

async fn acks_come_in_any_order_and_twice(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    publish_some(&queue, 8).await;
    let mut deliveries = queue.consume().await.unwrap();
    let tags = tags(&take(&mut deliveries, 8).await);
    deliveries.ack(&[tags[7], tags[0], tags[7]]).await.unwrap();
    deliveries.ack(&[]).await.unwrap();
    assert_events(backend, &queue, 6).await;
    deliveries.ack(&tags).await.unwrap();
    deliveries.ack(&tags).await.unwrap();
    assert_events(backend, &queue, 0).await;
    assert_eq!(queue.state().bytes, 0);
}

async fn acked_events_stay_acked_after_closing(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    publish_some(&queue, 20).await;
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 20).await;
    deliveries.ack(&tags(&got)).await.unwrap();
    queue.close().await;
    let queue = backend.open(Limits::default()).await;
    assert_events(backend, &queue, 0).await;
    let next = publish_some(&queue, 1).await;
    let mut deliveries = queue.consume().await.unwrap();
    assert_eq!(ids(&take(&mut deliveries, 1).await), next);
}

async fn a_dropped_publish_is_still_written(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let event = event(OrgId::generate(), "call", "abandoned");
    {
        // Polled once: it is taken, and nobody waits for its confirm.
        let mut publish = queue.publish(&event);
        let _ = futures_util::poll!(&mut publish);
    }
    let mut deliveries = queue.consume().await.unwrap();
    assert_eq!(ids(&take(&mut deliveries, 1).await), [id_of(&event)]);
}

async fn a_dropped_wait_for_a_batch_loses_nothing(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let mut deliveries = queue.consume().await.unwrap();
    let mut got = Vec::new();
    let mut published = Vec::new();
    for _ in 0..50 {
        published.extend(publish_some(&queue, 3).await);
        // Polled a few times and dropped wherever it stands.
        for _ in 0..3 {
            let mut batch = deliveries.next_batch(2);
            if let std::task::Poll::Ready(batch) = futures_util::poll!(&mut batch) {
                got.extend(ids(&batch.unwrap()));
            }
            drop(batch);
            tokio::task::yield_now().await;
        }
    }
    let rest = take(&mut deliveries, published.len() - got.len()).await;
    got.extend(ids(&rest));
    assert_ids(backend, got, published);
}

async fn a_second_consumer_is_an_error_while_the_first_is_held(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let first = queue.consume().await.unwrap();
    assert!(matches!(queue.consume().await, Err(ConsumeError::AlreadyConsumed)));
    drop(first);
    assert!(queue.consume().await.is_ok());
}

async fn a_batch_is_no_larger_than_asked_for(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let published = publish_some(&queue, 10).await;
    let mut deliveries = queue.consume().await.unwrap();
    let first = within(deliveries.next_batch(3)).await.unwrap();
    assert!((1..=3).contains(&first.len()));
    let mut got = ids(&first);
    got.extend(ids(&take(&mut deliveries, 10 - first.len()).await));
    assert_ids(backend, got, published);
}

async fn a_full_queue_refuses_and_goes_on_when_acked(backend: &dyn Backend) {
    let queue = backend
        .open(Limits {
            bytes_max: 100_000,
            ..Limits::default()
        })
        .await;
    let mut taken = 0;
    let refusal = loop {
        // Each from an organisation of its own, so that it is the queue that is full.
        match queue.publish(&event(OrgId::generate(), "call", vec![b'x'; 4000])).await {
            Ok(()) => taken += 1,
            Err(refusal) => break refusal,
        }
        assert!(taken < 26, "it took more than its limit");
    };
    assert!(
        matches!(refusal, PublishError::Full { bytes_max: 100_000, bytes } if bytes <= 100_000),
        "{refusal}"
    );
    assert!(taken >= 20, "it took only {taken}");
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, taken).await;
    deliveries.ack(&tags(&got)).await.unwrap();
    publish_some(&queue, 1).await;
    assert_eq!(queue.state().health, QueueHealth::Ready);
}

async fn one_organisation_cannot_take_more_than_its_share(backend: &dyn Backend) {
    let limits = Limits {
        bytes_max: 200_000,
        ..Limits::default()
    };
    let queue = backend.open(limits).await;
    let (flood, other) = (OrgId::generate(), OrgId::generate());
    let mut taken = 0;
    let refusal = loop {
        match queue.publish(&event(flood, "call", vec![b'x'; 2000])).await {
            Ok(()) => taken += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(
        matches!(refusal, PublishError::OverShare { org, .. } if org == flood),
        "{refusal}"
    );
    assert!(
        queue.state().bytes > 100_000 && queue.state().bytes < 106_000,
        "it may take half: {}",
        queue.state().bytes
    );
    queue
        .publish(&event(other, "call", vec![b'x'; 2000]))
        .await
        .expect("others go on");
    // The share is known again after a restart.
    queue.close().await;
    let queue = backend.open(limits).await;
    assert!(matches!(
        queue.publish(&event(flood, "call", "x")).await,
        Err(PublishError::OverShare { .. })
    ));
    queue.publish(&event(other, "call", "x")).await.expect("others go on");
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, taken).await;
    deliveries.ack(&tags(&got)).await.unwrap();
    queue
        .publish(&event(flood, "call", "x"))
        .await
        .expect("what was acked is no longer held");
}

async fn the_largest_event_fits_and_one_byte_more_does_not(backend: &dyn Backend) {
    let event_bytes_max = 64 << 10;
    let queue = backend
        .open(Limits {
            event_bytes_max,
            ..Limits::default()
        })
        .await;
    let org = OrgId::generate();
    let around = hookswitch::queue::encoded_bytes_max(event(org, "call", Bytes::new()).envelope());
    let largest = event(org, "call", vec![b'x'; event_bytes_max - around]);
    queue.publish(&largest).await.expect("at the limit");
    let refusal = queue
        .publish(&event(org, "call", vec![b'x'; event_bytes_max - around + 1]))
        .await
        .unwrap_err();
    assert!(
        matches!(
            refusal,
            PublishError::TooLarge { bytes, bytes_max }
                if bytes == event_bytes_max + 1 && bytes_max == event_bytes_max
        ),
        "{refusal}"
    );
    let mut deliveries = queue.consume().await.unwrap();
    assert_eq!(take(&mut deliveries, 1).await[0].event.as_ref(), Ok(largest.envelope()));
    assert_events(backend, &queue, 1).await;
}

async fn a_closed_queue_refuses_and_ends_its_consumer(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let mut deliveries = queue.consume().await.unwrap();
    let (batch, ()) = tokio::join!(within(deliveries.next_batch(10)), queue.close());
    assert!(batch.unwrap().is_empty());
    assert!(matches!(
        queue.publish(&event(OrgId::generate(), "call", "x")).await,
        Err(PublishError::Closed)
    ));
    assert!(deliveries.next_batch(1).await.unwrap().is_empty());
    queue.close().await;
}

async fn what_cannot_be_decoded_costs_only_itself(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    let mut published = publish_some(&queue, 2).await;
    backend.put_undecodable().await;
    published.extend(publish_some(&queue, 2).await);
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 5).await;
    assert!(!backend.is_in_one_order() || got[2].event.is_err());
    assert_eq!(got.iter().filter(|delivery| delivery.event.is_err()).count(), 1);
    let sound: Vec<_> = got
        .iter()
        .filter_map(|delivery| delivery.event.as_ref().ok())
        .map(|event| event.id)
        .collect();
    assert_ids(backend, sound, published);
    deliveries.ack(&tags(&got)).await.unwrap();
    assert_events(backend, &queue, 0).await;
}

async fn the_state_counts_what_is_not_acked(backend: &dyn Backend) {
    let queue = backend.open(Limits::default()).await;
    assert_eq!(
        (
            queue.state().events,
            queue.state().bytes,
            queue.state().oldest_received_at
        ),
        (0, 0, None)
    );
    for second in [100, 50, 200] {
        let mut envelope = event(OrgId::generate(), "call", "x").into_envelope();
        envelope.received_at = Timestamp::from_seconds(second);
        queue.publish(&VerifiedEvent::from_verified(envelope)).await.unwrap();
    }
    let oldest = |queue: &Arc<dyn EventQueue>| queue.state().oldest_received_at.map(Timestamp::as_seconds);
    assert_events(backend, &queue, 3).await;
    if backend.counts_at_once() {
        assert_eq!(oldest(&queue), Some(100));
    }
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 3).await;
    deliveries.ack(&[got[0].tag]).await.unwrap();
    assert_events(backend, &queue, 2).await;
    assert_eq!(oldest(&queue), Some(50));
    let bytes = queue.state().bytes;
    drop(deliveries);
    queue.close().await;
    let queue = backend.open(Limits::default()).await;
    assert_events(backend, &queue, 2).await;
    if backend.counts_at_once() {
        assert_eq!((queue.state().bytes, oldest(&queue)), (bytes, Some(50)));
    }
}

async fn ten_thousand_events_go_through(backend: &dyn Backend) {
    const EVENTS: usize = 10_000;
    let queue = backend.open(Limits::default()).await;
    let org = OrgId::generate();
    let publishing = futures_util::future::join_all((0..100).map(|sender| {
        let queue = queue.clone();
        async move {
            for n in 0..EVENTS / 100 {
                queue
                    .publish(&event(org, &format!("call-{sender}"), vec![b'x'; 100 + n]))
                    .await
                    .unwrap();
            }
        }
    }));
    let consuming = async {
        let mut deliveries = queue.consume().await.unwrap();
        let mut seen = HashSet::new();
        while seen.len() < EVENTS {
            let batch = within(deliveries.next_batch(256)).await.unwrap();
            deliveries.ack(&tags(&batch)).await.unwrap();
            seen.extend(ids(&batch));
        }
    };
    tokio::join!(async { drop(publishing.await) }, consuming);
    assert_events(backend, &queue, 0).await;
    assert_eq!(queue.state().bytes, 0);
}
