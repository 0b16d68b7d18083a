//! Queues of a test's own at the real RabbitMQ, gone with the test.

use super::port_offset;
use crate::conformance::queue::{delivered, event, id_of};
use futures_util::{StreamExt, TryStreamExt};
use hookswitch::{
    domain::{EventId, OrgId},
    queue::{AmqpQueue, AmqpSettings, EventQueue},
};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::FieldTable,
};
use std::{
    collections::HashSet,
    io::Write,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, Once},
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The broker's URL. `None` where there is none: then it is said on the terminal, and in CI it is a
/// failure.
pub fn server() -> Option<String> {
    static SAID: Once = Once::new();
    let url = std::env::var("HOOKSWITCH_TEST_AMQP_URL")
        .ok()
        .filter(|url| !url.is_empty());
    if url.is_none() {
        let how = "run scripts/test, or: export $(scripts/services up amqp)";
        assert!(
            std::env::var("CI").is_err(),
            "HOOKSWITCH_TEST_AMQP_URL is not set, so RabbitMQ would not be tested; {how}"
        );
        SAID.call_once(|| {
            // Past the test runner, which keeps what a passing test prints.
            let _ = writeln!(
                std::io::stderr(),
                "\nNOT RUN: the tests over RabbitMQ, because HOOKSWITCH_TEST_AMQP_URL is not set; {how}\n"
            );
        });
    }
    url
}

/// Names of queues that no other test has. Clones share them; the last one deletes the queues.
#[derive(Clone)]
pub struct AmqpPlace(Arc<Names>);

struct Names {
    url: String,
    settings: AmqpSettings,
}

impl AmqpPlace {
    /// `None` where there is no broker.
    pub fn new(queues: u16) -> Option<Self> {
        Some(Self::at(&server()?, queues))
    }

    /// At a broker of the test's own.
    pub fn at(url: &str, queues: u16) -> Self {
        let settings = AmqpSettings {
            prefix: format!("it-{}", EventId::generate()),
            queues,
            count_period: Duration::from_millis(50),
            // Nobody kills the broker that tests share.
            settle_seconds: Duration::ZERO,
            ..AmqpSettings::default()
        };
        Self(Arc::new(Names {
            url: url.to_owned(),
            settings,
        }))
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }

    pub fn settings(&self) -> AmqpSettings {
        self.0.settings.clone()
    }

    pub fn queue_name(&self, number: u16) -> String {
        format!("{}.events.{number}", self.0.settings.prefix)
    }

    pub fn dead_queue_name(&self) -> String {
        format!("{}.dead", self.0.settings.prefix)
    }

    pub async fn open(&self) -> Arc<AmqpQueue> {
        self.open_at(self.url(), self.settings()).await
    }

    pub async fn open_at(&self, url: &str, settings: AmqpSettings) -> Arc<AmqpQueue> {
        Arc::new(AmqpQueue::open(url, settings).await.expect("the queue opens"))
    }

    /// The URL with another host and port: a proxy's.
    pub fn url_through(&self, address: std::net::SocketAddr) -> String {
        let (head, tail) = self.url().rsplit_once('@').expect("a URL with a user");
        let path = tail.find('/').map_or("", |at| &tail[at..]);
        format!("{head}@{address}{path}")
    }

    pub fn server_address(&self) -> std::net::SocketAddr {
        super::address_in(self.url())
    }

    /// A bare connection beside the queue's own.
    pub async fn bare(&self) -> Bare {
        Bare::connect(self.url()).await
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let (url, prefix, queues) = (self.url.clone(), self.settings.prefix.clone(), self.settings.queues);
        // A test that failed may be unwinding inside its runtime: this one has its own.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let deleting = async {
                    let bare = Bare::connect(&url).await;
                    for number in 0..queues {
                        bare.delete(&format!("{prefix}.events.{number}")).await;
                    }
                    bare.delete(&format!("{prefix}.dead")).await;
                };
                let _ = tokio::time::timeout(Duration::from_secs(20), deleting).await;
            });
        })
        .join();
    }
}

/// A server in a directory of its own, ended with the test.
pub struct Server {
    directory: PathBuf,
    pub url: String,
}

impl Server {
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
            .env("HOOKSWITCH_SERVICES_PORT_OFFSET", port_offset(&self.directory))
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
    pub fn state(&self) -> String {
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

    pub fn kill(&self) {
        let id = std::fs::read_to_string(self.directory.join("amqp.pid")).expect("its process id");
        let killed = Command::new("kill")
            .args(["-KILL", id.trim()])
            .status()
            .expect("kill runs");
        assert!(killed.success());
    }

    pub fn restart(&self) {
        tokio::task::block_in_place(|| self.services(&["up", "amqp"]));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("scripts/services")
            .args(["down", "amqp"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("HOOKSWITCH_SERVICES_DIR", &self.directory)
            .env_remove("HOOKSWITCH_TEST_AMQP_URL")
            .status();
    }
}

/// lapin without anything of ours.
pub struct Bare {
    pub channel: Channel,
    _connection: Connection,
}

impl Bare {
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("RabbitMQ answers");
        let channel = connection.create_channel().await.expect("a channel");
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("confirms");
        Self {
            channel,
            _connection: connection,
        }
    }

    pub async fn publish(&self, queue: &str, body: &[u8]) {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default().with_delivery_mode(2);
        let confirm = self
            .channel
            .basic_publish("".into(), queue.into(), options, body, properties)
            .await
            .expect("sent");
        assert!(confirm.await.expect("an answer").is_ack());
    }

    pub async fn delete(&self, queue: &str) {
        self.channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await
            .expect("deleted");
    }

    /// Events that are ready in a queue.
    pub async fn count(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::durable()
        };
        self.channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .expect("the queue exists")
            .message_count()
    }

    /// The first messages of a queue, by a plain consumer: RabbitMQ has no `basic.get` for a quorum
    /// queue with a single active consumer.
    pub async fn first(&self, queue: &str, count: usize) -> Vec<lapin::message::Delivery> {
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = self
            .channel
            .basic_consume(queue.into(), "first".into(), options, FieldTable::default());
        let messages = consumer.await.expect("a consumer").take(count).try_collect::<Vec<_>>();
        let messages = tokio::time::timeout(super::PATIENCE, messages).await;
        messages.expect("as many messages").expect("messages")
    }

    /// Takes one message out of a queue.
    pub async fn take(&self, queue: &str) -> Option<lapin::message::Delivery> {
        let options = BasicGetOptions { no_ack: true };
        let got = self.channel.basic_get(queue.into(), options).await.expect("an answer");
        got.map(|message| message.delivery)
    }
}

/// Publishes and consumes through one queue, and remembers what was confirmed and what was seen.
pub struct Load {
    confirmed: Arc<Mutex<Vec<EventId>>>,
    seen: Arc<Mutex<HashSet<EventId>>>,
    stop: CancellationToken,
    senders: JoinSet<()>,
    consumer: JoinSet<()>,
}

impl Load {
    pub async fn start<Q: EventQueue>(queue: &Arc<Q>) -> Self {
        let mut load = Self {
            confirmed: Arc::default(),
            seen: Arc::default(),
            stop: CancellationToken::new(),
            senders: JoinSet::new(),
            consumer: JoinSet::new(),
        };
        for sender in 0..8 {
            let (queue, stop, confirmed) = (queue.clone(), load.stop.clone(), load.confirmed.clone());
            load.senders.spawn(async move {
                while !stop.is_cancelled() {
                    let event = event(OrgId::generate(), &format!("call-{sender}"), "x");
                    if queue.publish(&event).await.is_ok() {
                        confirmed.lock().unwrap().push(id_of(&event));
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
        let (mut deliveries, seen) = (queue.consume().await.expect("a consumer"), load.seen.clone());
        load.consumer.spawn(async move {
            loop {
                let batch = deliveries.next_batch(64).await.expect("a batch");
                let tags: Vec<_> = batch.iter().map(|one| one.tag).collect();
                // An ack may be lost with its connection, and then the event comes again.
                deliveries.ack(&tags).await.expect("acks are no error");
                seen.lock().unwrap().extend(batch.iter().map(|one| delivered(one).id));
            }
        });
        load
    }

    /// How many events came out.
    pub fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub fn confirmed(&self) -> Vec<EventId> {
        self.confirmed.lock().unwrap().clone()
    }

    /// Ends the senders, and waits until everything that was confirmed has been delivered. What
    /// `look` finds at the broker stands beside a failure.
    pub async fn finish_or(&mut self, look: impl FnOnce() -> String) {
        self.stop.cancel();
        while let Some(ended) = self.senders.join_next().await {
            ended.expect("a sender does not panic");
        }
        let confirmed = self.confirmed();
        let delivered = async {
            while !confirmed.iter().all(|id| self.seen.lock().unwrap().contains(id)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // A queue whose broker has just come back may want several tries, 10 s apart at most.
        let patience = Duration::from_mins(2);
        if tokio::time::timeout(patience, delivered).await.is_err() {
            let seen = self.seen.lock().unwrap().clone();
            let missing: Vec<_> = confirmed.iter().filter(|id| !seen.contains(*id)).collect();
            panic!(
                "{} of {} confirmed events were not delivered: {missing:?}\n{}",
                missing.len(),
                confirmed.len(),
                look()
            );
        }
        self.consumer.shutdown().await;
    }

    pub async fn finish(&mut self) {
        self.finish_or(String::new).await;
    }
}
