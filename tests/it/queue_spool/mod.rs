//! The spool in front of a broker that refuses, hangs and loses confirms: nothing that was
//! confirmed is lost, and the events of a subject keep their order (invariants 10 to 12).

mod broker;
mod kill;

use crate::{
    conformance::queue::{Backend, DEADLINE, Limits, event, id_of, run, within},
    queue_embedded::Scratch,
    support::{
        app::{TestApp, ingress::settings as ingress_settings},
        until,
    },
};
use async_trait::async_trait;
use broker::{Broker, House, Treatment, by_subject, firsts_by_subject, house, house_with, open, settings};
use hookswitch::{
    config::{QueueSettings, ReceiverSettings},
    domain::{Envelope, EventId, OrgId, SystemClock},
    queue::{self, ConnectError, EventQueue, PublishError, SpoolQueue, SpoolSettings},
    telemetry::Standing,
};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

struct Spooled {
    broker_place: Scratch,
    spool_place: Scratch,
    broker: Mutex<Option<Arc<Broker>>>,
}

#[async_trait]
impl Backend for Spooled {
    async fn open(&self, limits: Limits) -> Arc<dyn EventQueue> {
        let broker = Broker::open(&self.broker_place.0, limits).await;
        *self.broker.lock().unwrap() = Some(broker.clone());
        // A late confirm would bring an event twice.
        let patient = SpoolSettings {
            publish_seconds_max: DEADLINE,
            ..settings(&self.spool_place.0)
        };
        open(&broker, patient).await
    }

    async fn crashed_now(&self) -> Box<dyn Backend> {
        Box::new(Self {
            broker_place: self.broker_place.copy(),
            spool_place: self.spool_place.copy(),
            broker: Mutex::default(),
        })
    }

    async fn put_undecodable(&self) {
        let broker = self.broker.lock().unwrap().clone().unwrap();
        broker.log.publish_bytes(b"no envelope").await.unwrap();
    }

    /// An event over the limits of the broker goes to the spool.
    fn limits_bytes(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_queue_with_a_spool_keeps_the_contract() {
    run(|| Spooled {
        broker_place: Scratch::new(),
        spool_place: Scratch::new(),
        broker: Mutex::default(),
    })
    .await;
}

/// A broker of several queues, of which one has no leader. Its entries are more than the drain
/// keeps in memory.
#[tokio::test]
async fn a_part_of_the_broker_that_takes_nothing_holds_up_no_other() {
    const PART: usize = 5000;
    let house = house().await;
    house.broker.follow(|envelope| match &*envelope.subject.0 {
        subject if subject.starts_with("silent") => Treatment::Refuse,
        _ => Treatment::Take,
    });
    let org = OrgId::generate();
    // Two events of each silent subject, so that their order shows.
    let silent: Vec<_> = (0..PART)
        .map(|n| event(org, &format!("silent-{}", n / 2), format!("{n}")))
        .collect();
    for half in [0, 1] {
        let half = silent.iter().skip(half).step_by(2);
        let published = futures_util::future::join_all(half.map(|event| house.queue.publish(event))).await;
        assert!(published.iter().all(Result::is_ok));
    }
    let others: Vec<_> = (0..200)
        .map(|n| event(org, &format!("call-{}", n % 4), format!("{n}")))
        .collect();
    for event in &others {
        within(house.queue.publish(event)).await.expect("the spool takes it");
    }
    until("the others to be drained", || async {
        let are_stored = house.broker.log.state().events >= 200;
        (are_stored && house.spool().events == PART as u64).then_some(())
    })
    .await;

    house.broker.treat_all(Treatment::Take);
    tokio::time::timeout(DEADLINE, house.queue.drained())
        .await
        .expect("the spool drains");
    let firsts = firsts_by_subject(&house.broker.stored().await);
    for pair in silent.chunks(2) {
        let Envelope { subject, .. } = pair[0].envelope();
        assert_eq!(firsts[&*subject.0], [id_of(&pair[0]), id_of(&pair[1])]);
    }
    assert_eq!(firsts["call-1"].len(), 50);
}

#[tokio::test]
async fn the_spool_takes_over_whatever_the_broker_does_and_drains_in_order_afterwards() {
    for treatment in [Treatment::Refuse, Treatment::Hang, Treatment::LoseConfirm] {
        let house = house().await;
        house.broker.treat_all(treatment);
        let begun = Instant::now();
        let mut published = house.publish(20).await;
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{treatment:?}: only the first publish waits for the broker: {:?}",
            begun.elapsed()
        );
        let spool = house.spool();
        assert!(spool.is_spooling && spool.events == 20, "{treatment:?}: {spool:?}");
        assert_eq!(spool.check().standing, Standing::Degraded, "{treatment:?}");

        house.broker.treat_all(Treatment::Take);
        within(house.queue.drained()).await;
        let spool = house.spool();
        assert!(!spool.is_spooling && spool.events == 0, "{treatment:?}: {spool:?}");
        assert_eq!(spool.check().standing, Standing::Ok, "{treatment:?}");

        let after = house.publish(1).await;
        published.extend(after);
        let stored = house.broker.stored().await;
        assert_eq!(firsts_by_subject(&stored), by_subject(&published), "{treatment:?}");
        if treatment != Treatment::LoseConfirm {
            assert_eq!(stored.len(), 21, "{treatment:?}: nothing twice");
        }
    }
}

/// Each subject's sender waits for one confirm before it sends the next event, while the broker
/// fails at random places. An event that went direct while an earlier one lies in the spool would
/// overtake it.
#[tokio::test]
async fn no_event_overtakes_another_of_its_subject_while_the_broker_flaps() {
    const SUBJECTS: usize = 16;
    const EVENTS: usize = 120;
    let house = house_with(|settings| settings.publish_seconds_max = Duration::from_millis(20)).await;
    let publishes = Arc::new(AtomicUsize::new(0));
    house
        .broker
        .follow(move |_| match publishes.fetch_add(1, Ordering::Relaxed) % 37 {
            7 => Treatment::Refuse,
            19 => Treatment::LoseConfirm,
            31 => Treatment::Hang,
            _ => Treatment::Take,
        });
    let senders = (0..SUBJECTS).map(|sender| {
        let queue = &house.queue;
        async move {
            let org = OrgId::generate();
            let mut ids = Vec::new();
            for n in 0..EVENTS {
                let event = event(org, &format!("call-{sender}"), format!("{n}"));
                ids.push(id_of(&event));
                within(queue.publish(&event)).await.expect("it is confirmed");
                if n % 10 == 9 {
                    // Lets the drain come to its end now and then, so that the switch back is
                    // tried.
                    within(queue.drained()).await;
                }
            }
            (format!("call-{sender}"), ids)
        }
    });
    let published: HashMap<_, _> = futures_util::future::join_all(senders).await.into_iter().collect();
    within(house.queue.drained()).await;
    assert_eq!(firsts_by_subject(&house.broker.stored().await), published);
}

#[tokio::test]
async fn a_full_spool_refuses_and_goes_on_when_it_is_drained() {
    let house = house_with(|settings| settings.log.bytes_max = 100_000).await;
    house.broker.treat_all(Treatment::Refuse);
    let mut taken = 0;
    let refusal = loop {
        // Each from an organisation of its own, so that it is the spool that is full.
        let event = event(OrgId::generate(), "call", vec![b'x'; 4000]);
        match within(house.queue.publish(&event)).await {
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
    house.broker.treat_all(Treatment::Take);
    within(house.queue.drained()).await;
    house.publish(1).await;
    assert_eq!(house.broker.stored().await.len(), taken + 1);
}

#[tokio::test]
async fn a_receiver_that_crashed_while_spooling_drains_first_when_it_is_back() {
    let house = house().await;
    house.broker.treat_all(Treatment::Refuse);
    let mut published = house.publish(12).await;
    let crashed = house.spool_place.copy();
    drop(house.queue);

    house.broker.treat_all(Treatment::Refuse);
    let queue = open(&house.broker, settings(&crashed.0)).await;
    let house = House { queue, ..house };
    assert!(house.spool().is_spooling, "what is left goes first");
    // Taken behind what is left, although the broker is back in between.
    house.broker.treat_all(Treatment::Take);
    published.extend(house.publish(8).await);
    within(house.queue.drained()).await;
    assert_eq!(firsts_by_subject(&house.broker.stored().await), by_subject(&published));
}

#[tokio::test]
async fn an_entry_that_the_broker_will_never_take_is_set_aside_and_the_rest_goes_on() {
    let house = house().await;
    house.broker.treat_all(Treatment::Refuse);
    let published = house.publish(8).await;
    let poison = published[5];
    house.broker.follow(move |envelope| {
        if envelope.id == poison {
            Treatment::RefuseForGood
        } else {
            Treatment::Take
        }
    });
    within(house.queue.drained()).await;
    let stored: HashSet<_> = house.broker.stored().await.iter().map(|envelope| envelope.id).collect();
    let others: HashSet<_> = published.iter().copied().filter(|id| *id != poison).collect();
    assert_eq!(stored, others);
    let dead: Vec<_> = fs::read_dir(house.spool_place.0.join("dead"))
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        queue::decode(&dead.into_iter().next().unwrap().into()).unwrap().id,
        poison
    );
    // An event that comes while the receiver is direct is refused to its sender.
    let house = house_with(|_| {}).await;
    house.broker.treat_all(Treatment::RefuseForGood);
    assert!(matches!(
        house.queue.publish(&event(OrgId::generate(), "call", "x")).await,
        Err(PublishError::TooLarge { .. })
    ));
    assert!(!house.spool().is_spooling);
}

#[tokio::test]
async fn a_stop_drains_the_spool_and_leaves_to_the_next_process_what_the_broker_does_not_take() {
    let house = house_with(|settings| settings.drain_seconds_max = Duration::from_millis(300)).await;
    house.broker.treat_all(Treatment::Refuse);
    let published = house.publish(9).await;
    within(house.queue.close()).await;
    assert_eq!(house.spool().events, 9);
    assert!(matches!(
        house.queue.publish(&event(OrgId::generate(), "call", "x")).await,
        Err(PublishError::Closed)
    ));

    let broker = Broker::open(&house.broker_place.0, Limits::default()).await;
    broker.treat_all(Treatment::Refuse);
    let queue = open(&broker, settings(&house.spool_place.0)).await;
    broker.treat_all(Treatment::Take);
    within(queue.close()).await;
    assert_eq!(queue.spool().unwrap().events, 0);
    let broker = Broker::open(&house.broker_place.0, Limits::default()).await;
    assert_eq!(firsts_by_subject(&broker.stored().await), by_subject(&published));
}

#[tokio::test]
async fn a_spool_that_would_not_survive_a_restart_is_refused() {
    let place = Path::new("/dev/shm").join(format!("hookswitch-spool-{}", EventId::generate()));
    let broker_place = Scratch::new();
    let broker = Broker::open(&broker_place.0, Limits::default()).await;
    let settings = SpoolSettings {
        may_be_volatile: false,
        ..settings(&place)
    };
    let opened = SpoolQueue::open(broker.clone(), settings.clone(), Arc::new(SystemClock)).await;
    let error = opened.err().expect("a spool in memory is refused");
    assert!(
        matches!(
            error,
            ConnectError::Volatile {
                file_system: "tmpfs",
                ..
            }
        ),
        "{error}"
    );
    let settings = SpoolSettings {
        may_be_volatile: true,
        ..settings
    };
    assert!(SpoolQueue::open(broker, settings, Arc::new(SystemClock)).await.is_ok());
    fs::remove_dir_all(place).unwrap();
}

#[tokio::test]
async fn senders_go_on_getting_200_while_the_broker_hangs() {
    let house = house().await;
    house.broker.treat_all(Treatment::Hang);
    let (app, [a, _]) = TestApp::builder()
        .receiver(ingress_settings())
        .through(house.queue.clone())
        .start_with_senders()
        .await;
    let bytes = a.request("/webhooks/vapi", &a.body());
    for n in 0..10 {
        let begun = Instant::now();
        assert_eq!(app.exchange(&bytes).await.status, 200, "request {n}");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "request {n}: {:?}",
            begun.elapsed()
        );
    }
    house.broker.treat_all(Treatment::Take);
    within(house.queue.drained()).await;
    assert_eq!(house.broker.stored().await.len(), 10);
}

/// The first sender holds the only permit while the broker is waited for.
#[tokio::test]
async fn who_waits_for_a_turn_behind_a_silent_broker_gets_200_from_the_spool() {
    let queue_settings = QueueSettings::default();
    let house = house_with(|settings| settings.publish_seconds_max = queue_settings.broker_seconds_max()).await;
    house.broker.treat_all(Treatment::Hang);
    let one_at_a_time = ReceiverSettings {
        requests_max: 1,
        ..ingress_settings()
    };
    let (app, [a, _]) = TestApp::builder()
        .receiver(one_at_a_time)
        .through(house.queue.clone())
        .start_with_senders()
        .await;
    let requests = [
        a.request("/webhooks/vapi", &a.body()),
        a.request("/webhooks/vapi", &a.body()),
    ];
    let answers = futures_util::future::join_all(requests.iter().map(|request| app.exchange(request))).await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200]);
    assert_eq!(house.spool().events, 2);
}
