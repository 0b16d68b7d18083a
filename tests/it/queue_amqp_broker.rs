//! A RabbitMQ of the test's own, which is killed, stopped and given an alarm under load. What
//! concerns a whole broker would hit every other test at a shared one.

use crate::{
    conformance::queue::{dead_ids, delivered, event, id_of, take},
    faults::proxy::{Mode, Proxy},
    queue_embedded::Scratch,
    support::{
        amqp::{AmqpPlace, Load, Server},
        until,
    },
};
use hookswitch::{
    domain::{OrgId, SystemClock},
    queue::{AmqpQueue, AmqpSettings, EventQueue, PublishError, QueueHealth, SpoolQueue, SpoolSettings},
};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// One broker for all of it, because its start takes long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_broker_fails() {
    let rounds: Option<u32> = std::env::var("FAULTS_BROKERS").ok().and_then(|text| text.parse().ok());
    if rounds.is_some() {
        let _ = hookswitch::telemetry::start_logs(&hookswitch::config::TelemetrySettings::default());
    }
    let Some(broker) = Server::start() else { return };
    encrypted_connections_check_the_certificate(&broker).await;
    an_alarm_blocks_publishing_alone(&broker).await;
    a_queue_without_a_leader_delays_no_other(&broker).await;
    an_event_over_the_brokers_limit_holds_up_nobody(&broker).await;
    match rounds {
        None => kills_and_stops_under_load_lose_nothing(&broker, 2).await,
        Some(rounds) => {
            for round in 1..=rounds {
                println!("round {round} of {rounds}");
                what_was_confirmed_right_after_its_queue_was_made_survives_a_kill(&broker).await;
                kills_and_stops_under_load_lose_nothing(&broker, 4).await;
            }
        }
    }
}

/// The broker writes the record of a new queue up to two seconds late. Killed before that, it comes
/// back without the queue, or with an empty one that never gets a leader.
async fn what_was_confirmed_right_after_its_queue_was_made_survives_a_kill(broker: &Server) {
    let place = AmqpPlace::at(&broker.url, 4);
    let settings = AmqpSettings {
        settle_seconds: AmqpSettings::default().settle_seconds,
        ..place.settings()
    };
    let queue = place.open_at(place.url(), settings).await;
    let org = OrgId::generate();
    let mut published = Vec::new();
    for n in 0..20 {
        let event = event(org, &format!("call-{n}"), "x");
        until("an event to be confirmed", || async {
            queue.publish(&event).await.ok()
        })
        .await;
        published.push(id_of(&event));
    }
    broker.kill();
    broker.restart();
    let mut deliveries = queue.consume().await.expect("a consumer");
    let mut got = Vec::new();
    while !published.iter().all(|id| got.contains(id)) {
        let next = tokio::time::timeout(Duration::from_mins(1), take(&mut deliveries, 1)).await;
        let next = next.unwrap_or_else(|_| panic!("{} of 20 came: {}", got.len(), broker.state()));
        got.extend(next.iter().map(|one| delivered(one).id));
    }
}

/// What RabbitMQ 3.10 makes at its start of a queue that it finds in one of its registers and not
/// in the other: a server that nobody asks to stand for election.
async fn a_queue_without_a_leader_delays_no_other(broker: &Server) {
    let place = AmqpPlace::at(&broker.url, 4);
    let settings = AmqpSettings {
        confirm_seconds_max: Duration::from_secs(1),
        silent_seconds_max: Duration::from_secs(3),
        ..place.settings()
    };
    let queue = place.open_at(place.url(), settings.clone()).await;
    broker.ctl(&["eval", &of_queue(&place.queue_name(3), FORGET_AND_RECOVER)]);

    let scratch = Scratch::new();
    let spool = spool(&queue, &scratch).await;
    let mut load = Load::start(&spool).await;
    until("the silent queue to be noticed", || async {
        (queue.state().silent_parts == 1 && spool.spool().is_some_and(|spool| spool.is_spooling)).then_some(())
    })
    .await;
    assert_eq!(queue.state().health, QueueHealth::Ready, "the others take events");
    let before = load.seen();
    until("a thousand events of the other queues", || async {
        (load.seen() > before + 1000).then_some(())
    })
    .await;
    let waits = spool.spool().map_or(0, |spool| spool.events);
    assert!(waits > 50, "those of the silent queue wait in the spool: {waits}");

    // The cure of the runbook for such a queue.
    broker.ctl(&[
        "eval",
        &of_queue(&place.queue_name(3), "ra:trigger_election({N, node()})"),
    ]);
    load.finish_or(|| broker.state()).await;
    tokio::time::timeout(Duration::from_mins(1), spool.drained())
        .await
        .expect("the spool drains");
    until("no silent queue", || async {
        (queue.state().silent_parts == 0).then_some(())
    })
    .await;
    spool.close().await;
}

async fn spool(queue: &Arc<AmqpQueue>, place: &Scratch) -> Arc<SpoolQueue> {
    let settings = SpoolSettings {
        directory: place.0.clone(),
        may_be_volatile: true,
        drain_seconds_max: Duration::from_secs(10),
        ..SpoolSettings::new(&hookswitch::config::QueueSettings::default(), 2 << 20)
    };
    let opened = SpoolQueue::open(queue.clone(), settings, Arc::new(SystemClock)).await;
    Arc::new(opened.expect("the spool opens"))
}

/// The event was confirmed while the broker was away, so its limit was not known.
async fn an_event_over_the_brokers_limit_holds_up_nobody(broker: &Server) {
    const LIMIT: usize = 60_000;
    let limit = |bytes: usize| {
        let set = format!("application:set_env(rabbit, max_message_size, {bytes}).");
        broker.ctl(&["eval", &set]);
    };
    limit(LIMIT);
    let place = AmqpPlace::at(&broker.url, 2);
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let proxy = Proxy::start(place.server_address(), stop).await;
    proxy.set(Mode::Reset);
    let queue = place
        .open_at(&place.url_through(proxy.address()), place.settings())
        .await;
    let scratch = Scratch::new();
    let spool = spool(&queue, &scratch).await;
    let org = OrgId::generate();
    let mut sent = Vec::new();
    for n in 0..20 {
        let body = vec![b'x'; if n == 7 { LIMIT + 1 } else { 1_000 }];
        let event = event(org, "call", body);
        spool.publish(&event).await.expect("the spool takes it");
        sent.push(id_of(&event));
    }
    proxy.set(Mode::Pass);
    tokio::time::timeout(Duration::from_mins(1), spool.drained())
        .await
        .expect("the spool drains");
    let poison = sent.remove(7);
    assert_eq!(dead_ids(&scratch.0), [poison]);
    let mut deliveries = queue.consume().await.expect("a consumer");
    let got = take(&mut deliveries, sent.len()).await;
    assert_eq!(got.iter().map(|one| delivered(one).id).collect::<Vec<_>>(), sent);

    // A sender gets a refusal, and the connection stays.
    let refused = spool.publish(&event(org, "call", vec![b'x'; LIMIT + 1])).await;
    assert!(
        matches!(refused, Err(PublishError::TooLarge { bytes_max: LIMIT, .. })),
        "{refused:?}"
    );
    queue
        .publish(&event(org, "call", vec![b'x'; LIMIT]))
        .await
        .expect("it fits");

    // The limit is known while the broker is away, too.
    proxy.set(Mode::Reset);
    until("the spool to take over", || async {
        spool
            .publish(&event(org, "call", "x"))
            .await
            .expect("the spool takes it");
        spool.spool().is_some_and(|spool| spool.is_spooling).then_some(())
    })
    .await;
    let refused = spool.publish(&event(org, "call", vec![b'x'; LIMIT + 1])).await;
    assert!(matches!(refused, Err(PublishError::TooLarge { .. })), "{refused:?}");
    limit(128 << 20);
    proxy.set(Mode::Pass);
    spool.close().await;
}

/// Lets the register of Ra forget the server of a queue, and recovers the queue as a start does.
const FORGET_AND_RECOVER: &str = "\
    U = ra_directory:uid_of(quorum_queues, N), \
    ra:stop_server(quorum_queues, {N, node()}), \
    ra_directory:unregister_name(quorum_queues, U), \
    {ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, Name)), \
    {[_], []} = rabbit_quorum_queue:recover(<<\"/\">>, [Q])";

fn of_queue(name: &str, expression: &str) -> String {
    format!("Name = <<\"{name}\">>, N = binary_to_atom(<<\"%2F_\", Name/binary>>), {expression}.")
}

async fn kills_and_stops_under_load_lose_nothing(broker: &Server, losses: u32) {
    let place = AmqpPlace::at(&broker.url, 4);
    let settings = AmqpSettings {
        confirm_seconds_max: Duration::from_secs(1),
        settle_seconds: AmqpSettings::default().settle_seconds,
        ..place.settings()
    };
    let queue = place.open_at(place.url(), settings).await;
    let mut load = Load::start(&queue).await;
    let away = || async { (queue.state().health == QueueHealth::Away).then_some(()) };
    let back = || async { queue.publish(&event(OrgId::generate(), "call", "x")).await.ok() };

    for loss in 0..losses {
        let begun = Instant::now();
        if loss % 2 == 0 {
            broker.kill();
        } else {
            broker.ctl(&["stop_app"]);
        }
        until("the loss to be noticed", away).await;
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        if loss % 2 == 0 {
            broker.restart();
        } else {
            broker.ctl(&["start_app"]);
        }
        let begun = Instant::now();
        let again = tokio::time::timeout(Duration::from_secs(30), until("a publish to be confirmed again", back));
        assert!(again.await.is_ok(), "{:?}: {}", begun.elapsed(), broker.state());
    }
    until("more than 100 events to be confirmed", || async {
        (load.confirmed().len() > 100).then_some(())
    })
    .await;
    load.finish_or(|| broker.state()).await;
}

async fn an_alarm_blocks_publishing_alone(broker: &Server) {
    let place = AmqpPlace::at(&broker.url, 2);
    let queue = place.open().await;
    let back = || async { queue.publish(&event(OrgId::generate(), "call", "x")).await.ok() };
    let org = OrgId::generate();
    let mut before = Vec::new();
    for n in 0..50 {
        let event = event(org, &format!("call-{n}"), "x");
        queue.publish(&event).await.expect("it is confirmed");
        before.push(id_of(&event));
    }
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]);
    until("publishes to be refused at once", || async {
        let begun = Instant::now();
        let outcome = queue.publish(&event(org, "call", "x")).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        matches!(outcome, Err(PublishError::Unavailable { reason }) if reason.contains("alarm")).then_some(())
    })
    .await;
    assert_eq!(queue.state().health, QueueHealth::Away);
    let mut deliveries = queue.consume().await.expect("a consumer");
    let mut got = Vec::new();
    while !before.iter().all(|id| got.contains(id)) {
        got.extend(take(&mut deliveries, 1).await.iter().map(|one| delivered(one).id));
    }
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    until("publishes to be confirmed again", back).await;
    assert_eq!(queue.state().health, QueueHealth::Ready);
}

async fn encrypted_connections_check_the_certificate(broker: &Server) {
    // The broker listens with a certificate of the test's own authority.
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .expect("a free port")
        .port();
    let file = |name: &str| data.join(name).display().to_string();
    let listen = format!(
        "rabbit_networking:ensure_ssl(), rabbit_networking:start_ssl_listener({port}, [{{certfile, \"{}\"}}, \
        {{keyfile, \"{}\"}}], 2).",
        file("server.pem"),
        file("server.key")
    );
    broker.ctl(&["eval", &listen]);
    let (_, user) = broker.url.split_once("://").expect("a URL");
    let (user, _) = user.split_once('@').expect("a URL with a user");
    let place = AmqpPlace::at(&broker.url, 1);
    let url = format!("amqps://{user}@127.0.0.1:{port}/%2f");
    let trusting = AmqpSettings {
        ca_certificates: Some(
            std::fs::read_to_string(data.join("ca.pem"))
                .expect("it is there")
                .into(),
        ),
        ..place.settings()
    };
    let queue = place.open_at(&url, trusting).await;
    let event = event(OrgId::generate(), "call", "encrypted");
    until("it to be confirmed", || async { queue.publish(&event).await.ok() }).await;
    let mut deliveries = queue.consume().await.expect("a consumer");
    assert_eq!(delivered(&take(&mut deliveries, 1).await[0]).id, id_of(&event));

    // Nobody whom this process trusts has signed it.
    let queue = place.open_at(&url, place.settings()).await;
    let outcome = queue.publish(&event).await;
    assert!(
        matches!(&outcome, Err(PublishError::Unavailable { reason }) if reason.contains("certificate")),
        "{outcome:?}"
    );
}
