//! RabbitMQ that goes away, answers nothing, or blocks: behind the breakable proxy, and a broker of
//! the test's own that is killed.

use crate::{
    conformance::queue::{delivered, event, id_of, take},
    faults::proxy::{Mode, Proxy},
    support::{
        amqp::{AmqpPlace, Load},
        until,
    },
};
use hookswitch::{
    domain::{EventId, OrgId, VerifiedEvent},
    queue::{AmqpQueue, AmqpSettings, EventQueue, PublishError, QueueHealth},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A queue of which everything goes through a proxy.
struct Breakable {
    place: AmqpPlace,
    proxy: Proxy,
    queue: Arc<AmqpQueue>,
    _stop: DropGuard,
}

impl Breakable {
    async fn start(queues: u16) -> Option<Self> {
        let place = AmqpPlace::new(queues)?;
        let stop = CancellationToken::new();
        let proxy = Proxy::start(place.server_address(), stop.clone()).await;
        let settings = AmqpSettings {
            confirm_seconds_max: Duration::from_secs(1),
            ..place.settings()
        };
        let queue = place.open_at(&place.url_through(proxy.address()), settings).await;
        Some(Self {
            place,
            proxy,
            queue,
            _stop: stop.drop_guard(),
        })
    }

    async fn publish(&self) -> (EventId, Result<(), PublishError>) {
        let event = event(OrgId::generate(), "call", "x");
        (id_of(&event), self.queue.publish(&event).await)
    }

    async fn recovers(&self) -> EventId {
        until("a publish to be confirmed again", || async {
            let (id, outcome) = self.publish().await;
            outcome.ok().map(|()| id)
        })
        .await
    }
}

#[tokio::test]
async fn a_confirm_that_never_comes_is_unknown_within_the_deadline() {
    let Some(broken) = Breakable::start(1).await else {
        return;
    };
    broken.proxy.set(Mode::DropReplies);
    let begun = Instant::now();
    let (_, outcome) = broken.publish().await;
    assert!(matches!(outcome, Err(PublishError::Unknown { .. })), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // It is there all the same: that is what "unknown" means.
    assert_eq!(broken.place.bare().await.count(&broken.place.queue_name(0)).await, 1);
    broken.proxy.set(Mode::Pass);
    broken.recovers().await;
}

#[tokio::test]
async fn a_broker_that_falls_silent_costs_no_more_than_the_deadline() {
    let Some(broken) = Breakable::start(2).await else {
        return;
    };
    broken.proxy.set(Mode::Blackhole);
    let begun = Instant::now();
    let outcomes = futures_util::future::join_all((0..50).map(|_| broken.publish())).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_err()));
    // Soon publishes do not even wait.
    until("the broker to be known as away", || async {
        let begun = Instant::now();
        let (_, outcome) = broken.publish().await;
        let is_away = matches!(outcome, Err(PublishError::Unavailable { .. }))
            && broken.queue.state().health == QueueHealth::Away;
        (is_away && begun.elapsed() < Duration::from_millis(100)).then_some(())
    })
    .await;
    broken.proxy.set(Mode::Pass);
    broken.recovers().await;
    assert_eq!(broken.queue.state().health, QueueHealth::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_reset_under_load_lose_nothing() {
    let Some(broken) = Breakable::start(4).await else {
        return;
    };
    let mut load = Load::start(&broken.queue).await;
    for _ in 0..10 {
        broken.proxy.set(Mode::Reset);
        until("the loss to be noticed", || async {
            (broken.queue.state().health == QueueHealth::Away).then_some(())
        })
        .await;
        broken.proxy.set(Mode::Pass);
        let begun = Instant::now();
        broken.recovers().await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    until("more than 100 events to be confirmed", || async {
        (load.confirmed().len() > 100).then_some(())
    })
    .await;
    load.finish().await;
}

/// Fault 12. The deleted queue takes its events with it. Made again at once, it would take over the
/// consumer that the broker has not ended yet, and deliver to nobody.
#[tokio::test]
async fn a_queue_that_is_deleted_under_its_consumer_is_made_again_and_consumed() {
    let Some(place) = AmqpPlace::new(1) else { return };
    let settings = AmqpSettings {
        settle_seconds: Duration::from_secs(1),
        ..place.settings()
    };
    let queue = place.open_at(place.url(), settings).await;
    let mut deliveries = queue.consume().await.unwrap();
    let org = OrgId::generate();
    queue.publish(&event(org, "call", "before")).await.unwrap();
    let first = take(&mut deliveries, 1).await;
    deliveries.ack(&[first[0].tag]).await.unwrap();

    place.bare().await.delete(&place.queue_name(0)).await;
    let mut missing = Vec::new();
    for n in 0..50 {
        let event = event(org, &format!("call-{n}"), "after");
        until("a publish to be confirmed", || async {
            queue.publish(&event).await.ok()
        })
        .await;
        missing.push(id_of(&event));
    }
    while !missing.is_empty() {
        for delivery in take(&mut deliveries, 1).await {
            missing.retain(|id| *id != delivered(&delivery).id);
        }
    }
}

#[tokio::test]
async fn a_consumer_that_is_cut_off_gets_again_what_it_had_not_acked() {
    let Some(broken) = Breakable::start(1).await else {
        return;
    };
    let mut published = Vec::new();
    for _ in 0..5 {
        published.push(broken.recovers().await);
    }
    let mut deliveries = broken.queue.consume().await.unwrap();
    let first = take(&mut deliveries, 5).await;
    assert!(first.iter().all(|one| one.redeliveries == 0), "{first:?}");
    deliveries.ack(&[first[0].tag]).await.unwrap();
    until("the ack to arrive", || async {
        (broken.queue.state().events == 4).then_some(())
    })
    .await;
    broken.proxy.set(Mode::Reset);
    until("the loss to be noticed", || async {
        (broken.queue.state().health == QueueHealth::Away).then_some(())
    })
    .await;
    broken.proxy.set(Mode::Pass);
    let again = take(&mut deliveries, 4).await;
    assert!(again.iter().all(|one| one.redeliveries == 1), "{again:?}");
    let again: Vec<_> = again.iter().map(|one| delivered(one).id).collect();
    assert_eq!(again, published[1..]);
    // Acks of the lost connection's deliveries are no error and ack nothing.
    deliveries
        .ack(&first.iter().map(|one| one.tag).collect::<Vec<_>>())
        .await
        .unwrap();
    until("the count to be new", || async {
        (broken.queue.state().events == 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_is_away_at_the_start_is_waited_for() {
    let Some(place) = AmqpPlace::new(1) else { return };
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let proxy = Proxy::start(place.server_address(), stop).await;
    proxy.set(Mode::Reset);
    let queue = place
        .open_at(&place.url_through(proxy.address()), place.settings())
        .await;
    let event = event(OrgId::generate(), "call", "x");
    let begun = Instant::now();
    let outcome = queue.publish(&event).await;
    assert!(matches!(outcome, Err(PublishError::Unavailable { .. })), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_millis(100));
    proxy.set(Mode::Pass);
    until("the broker to be found", || async { queue.publish(&event).await.ok() }).await;
}

/// The headers of an event have to fit into one frame. The broker ends the connection for a larger
/// one.
#[tokio::test]
async fn an_event_whose_headers_fit_into_no_frame_is_refused_and_the_others_go_on() {
    let Some(place) = AmqpPlace::new(1) else { return };
    let url = format!("{}?frame_max=8192", place.url());
    let queue = place.open_at(&url, place.settings()).await;
    let with_headers = |bytes: usize| {
        let mut envelope = event(OrgId::generate(), "call", vec![b'x'; 100_000]).envelope().clone();
        envelope.headers = vec![("x-long".into(), "y".repeat(bytes).into())];
        VerifiedEvent::from_verified(envelope)
    };
    queue.publish(&with_headers(6_000)).await.expect("it fits");
    let outcomes = futures_util::future::join_all(
        [9_000, 6_000, 9_000, 6_000]
            .map(with_headers)
            .iter()
            .map(|event| queue.publish(event)),
    )
    .await;
    let refused = |outcome: &Result<(), PublishError>| matches!(outcome, Err(PublishError::TooLarge { .. }));
    assert!(refused(&outcomes[0]) && refused(&outcomes[2]), "{outcomes:?}");
    assert!(outcomes[1].is_ok() && outcomes[3].is_ok(), "{outcomes:?}");
}

#[tokio::test]
async fn a_queue_that_another_process_made_a_moment_ago_gets_no_event_before_it_is_written() {
    const WRITTEN_AFTER: Duration = Duration::from_secs(3);
    let Some(place) = AmqpPlace::new(2) else { return };
    let settings = AmqpSettings {
        settle_seconds: WRITTEN_AFTER,
        ..place.settings()
    };
    let making = AmqpSettings {
        publishes: false,
        ..settings.clone()
    };
    let begun = Instant::now();
    let _maker = place.open_at(place.url(), making).await;
    let finder = place.open_at(place.url(), settings).await;
    let event = event(OrgId::generate(), "call", "x");
    until("an event to be confirmed", || async {
        finder.publish(&event).await.ok()
    })
    .await;
    assert!(begun.elapsed() >= WRITTEN_AFTER, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_only_consumes_opens_no_connection_for_publishing_and_who_only_publishes_none_for_consuming() {
    let Some(place) = AmqpPlace::new(2) else { return };
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let proxies = [
        Proxy::start(place.server_address(), stop.clone()).await,
        Proxy::start(place.server_address(), stop).await,
    ];
    let publishing = place
        .open_at(&place.url_through(proxies[0].address()), place.settings())
        .await;
    let consuming = AmqpSettings {
        publishes: false,
        ..place.settings()
    };
    let consuming = place.open_at(&place.url_through(proxies[1].address()), consuming).await;
    let looks = proxies[1].connections();
    let mut deliveries = consuming.consume().await.unwrap();
    let event = event(OrgId::generate(), "call", "x");
    publishing.publish(&event).await.unwrap();
    assert_eq!(delivered(&take(&mut deliveries, 1).await[0]).id, id_of(&event));
    assert_eq!(proxies[0].connections(), 1);
    assert_eq!(proxies[1].connections(), looks + 1);
    assert_eq!(consuming.state().health, QueueHealth::Ready);
    let outcome = consuming.publish(&event).await;
    assert!(matches!(outcome, Err(PublishError::Unavailable { .. })), "{outcome:?}");
}

#[tokio::test]
async fn any_of_several_addresses_will_do() {
    let Some(place) = AmqpPlace::new(1) else { return };
    // Port 1 refuses.
    let nobody: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
    let url = format!("{},{}", place.url_through(nobody), place.url());
    for _ in 0..4 {
        let queue = place.open_at(&url, place.settings()).await;
        queue.publish(&event(OrgId::generate(), "call", "x")).await.unwrap();
        queue.close().await;
    }
}
