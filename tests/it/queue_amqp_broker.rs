//! A RabbitMQ of the test's own, which is killed, stopped and given an alarm under load. What
//! concerns a whole broker would hit every other test at a shared one.

use crate::{
    conformance::queue::{delivered, event, id_of, take},
    queue_embedded::Scratch,
    support::{
        amqp::{AmqpPlace, Load, server},
        until,
    },
};
use hookswitch::{
    domain::{EventId, OrgId, SystemClock},
    queue::{AmqpSettings, EventQueue, PublishError, QueueHealth, SpoolQueue, SpoolSettings},
};
use std::{
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

/// A server in a directory of its own, ended with the test.
pub struct Broker {
    directory: PathBuf,
    pub url: String,
}

impl Broker {
    /// `None` where `scripts/services` cannot give one that may be killed.
    pub fn start() -> Option<Self> {
        server()?;
        let directory = std::env::temp_dir().join(format!("hookswitch-broker-{}", EventId::generate()));
        let mut broker = Self {
            directory,
            url: String::new(),
        };
        let printed = broker.services(&["up", "amqp"]);
        if broker.directory.join("amqp.in-compose").exists() {
            println!("left out: a broker in a container is not killed by this test");
            return None;
        }
        let url = printed
            .lines()
            .find_map(|line| line.strip_prefix("HOOKSWITCH_TEST_AMQP_URL="));
        url.expect("the URL").clone_into(&mut broker.url);
        Some(broker)
    }

    fn services(&self, words: &[&str]) -> String {
        let output = Command::new("scripts/services")
            .args(words)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("HOOKSWITCH_SERVICES_DIR", &self.directory)
            .env_remove("HOOKSWITCH_TEST_AMQP_URL")
            .output()
            .expect("scripts/services runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/services {words:?}: {said}");
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn ctl(&self, words: &[&str]) {
        tokio::task::block_in_place(|| {
            self.services(&[&["rabbitmqctl"], words].concat());
        });
    }

    /// Its queues, consumers and connections, and the end of its log, for the message of a failure.
    fn state(&self) -> String {
        tokio::task::block_in_place(|| {
            let columns = "name messages_ready messages_unacknowledged consumers state leader online";
            let queues = [["list_queues"].as_slice(), &columns.split(' ').collect::<Vec<_>>()].concat();
            let asked = [queues, vec!["list_consumers"], vec!["eval", "ra:overview()."]]
                .map(|words| self.services(&[&["rabbitmqctl"], &*words].concat()));
            let log = std::fs::read_to_string(self.directory.join("amqp.log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            format!(
                "{}\n{}",
                asked.join("\n"),
                lines[lines.len().saturating_sub(200)..].join("\n")
            )
        })
    }

    fn kill(&self) {
        let id = std::fs::read_to_string(self.directory.join("amqp.pid")).expect("its process id");
        let killed = Command::new("kill")
            .args(["-KILL", id.trim()])
            .status()
            .expect("kill runs");
        assert!(killed.success());
    }

    fn restart(&self) {
        tokio::task::block_in_place(|| self.services(&["up", "amqp"]));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = Command::new("scripts/services")
            .args(["down", "amqp"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("HOOKSWITCH_SERVICES_DIR", &self.directory)
            .env_remove("HOOKSWITCH_TEST_AMQP_URL")
            .status();
    }
}

/// One broker for all of it, because its start takes long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_broker_fails() {
    let rounds: Option<u32> = std::env::var("FAULTS_BROKERS").ok().and_then(|text| text.parse().ok());
    if rounds.is_some() {
        let _ = hookswitch::telemetry::start_logs(&hookswitch::config::TelemetrySettings::default());
    }
    let Some(broker) = Broker::start() else { return };
    encrypted_connections_check_the_certificate(&broker).await;
    an_alarm_blocks_publishing_alone(&broker).await;
    a_queue_without_a_leader_delays_no_other(&broker).await;
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
async fn what_was_confirmed_right_after_its_queue_was_made_survives_a_kill(broker: &Broker) {
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
async fn a_queue_without_a_leader_delays_no_other(broker: &Broker) {
    let place = AmqpPlace::at(&broker.url, 4);
    let settings = AmqpSettings {
        confirm_seconds_max: Duration::from_secs(1),
        silent_seconds_max: Duration::from_secs(3),
        ..place.settings()
    };
    let queue = place.open_at(place.url(), settings.clone()).await;
    broker.ctl(&["eval", &of_queue(&place.queue_name(3), FORGET_AND_RECOVER)]);

    let scratch = Scratch::new();
    let spool = SpoolSettings {
        directory: scratch.0.clone(),
        may_be_volatile: true,
        drain_seconds_max: Duration::from_secs(10),
        ..SpoolSettings::new(&hookswitch::config::QueueSettings::default(), 2 << 20)
    };
    let spool = Arc::new(
        SpoolQueue::open(queue.clone(), spool, Arc::new(SystemClock))
            .await
            .expect("the spool opens"),
    );
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

async fn kills_and_stops_under_load_lose_nothing(broker: &Broker, losses: u32) {
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

async fn an_alarm_blocks_publishing_alone(broker: &Broker) {
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

async fn encrypted_connections_check_the_certificate(broker: &Broker) {
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
