//! A Kafka topic and a group of a test's own, on the server that `scripts/services up kafka`
//! starts.

use hookswitch::queue::{KafkaQueue, KafkaSettings};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, Message, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
    topic_partition_list::{Offset, TopicPartitionList},
};
use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

/// The server's URL. `None` where there is none: then it is said on the terminal, and in CI it is a
/// failure.
pub fn server() -> Option<String> {
    static SAID: Once = Once::new();
    let url = std::env::var("HOOKSWITCH_TEST_KAFKA_URL")
        .ok()
        .filter(|url| !url.is_empty());
    if url.is_none() {
        let how = "run scripts/test, or: export $(scripts/services up kafka)";
        assert!(
            std::env::var("CI").is_err(),
            "HOOKSWITCH_TEST_KAFKA_URL is not set, so Kafka would not be tested; {how}"
        );
        SAID.call_once(|| {
            // Past the test runner, which keeps what a passing test prints.
            let _ = writeln!(
                std::io::stderr(),
                "\nNOT RUN: the tests over Kafka, because HOOKSWITCH_TEST_KAFKA_URL is not set; {how}\n"
            );
        });
    }
    url
}

/// Gone with the test.
pub struct KafkaTopic {
    pub url: String,
    pub settings: KafkaSettings,
}

impl KafkaTopic {
    /// `None` where there is no server. The topic is created by the queue.
    pub fn new(partitions: u16) -> Option<Self> {
        Some(Self::on(server()?, partitions))
    }

    fn on(url: String, partitions: u16) -> Self {
        let name = format!("it-{}", uuid::Uuid::now_v7().simple());
        Self {
            url,
            settings: KafkaSettings {
                topic: name.clone(),
                group: name,
                partitions,
                ..KafkaSettings::default()
            },
        }
    }

    pub async fn open(&self) -> KafkaQueue {
        KafkaQueue::open(&self.url, self.settings.clone())
            .await
            .expect("the queue opens")
    }

    /// Settings of a client of the test's own.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.url.trim_start_matches("kafka://"));
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    /// Creates the topic with one partition, before the queue does.
    pub async fn create(&self, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(&self.settings.topic, 1, TopicReplication::Fixed(1));
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let created = self
            .admin()
            .create_topics(&[topic], &patient())
            .await
            .expect("an answer");
        assert!(created[0].is_ok(), "{created:?}");
    }

    /// Changes a setting of the topic.
    pub async fn alter(&self, name: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(&self.settings.topic)).set(name, value);
        let altered = self.admin().alter_configs([&change], &patient()).await;
        let altered = altered.expect("an answer");
        assert!(altered[0].is_ok(), "{altered:?}");
    }

    /// Deletes the topic with all that is in it.
    pub async fn delete(&self) {
        let deleted = self.admin().delete_topics(&[&self.settings.topic], &patient()).await;
        let deleted = deleted.expect("an answer");
        assert!(deleted[0].is_ok(), "{deleted:?}");
    }

    /// Events that were ever written to its partitions. `None` while there is no such topic.
    pub fn written(&self) -> Option<i64> {
        let consumer: BaseConsumer = self.client().create().expect("a client");
        let patience = Duration::from_secs(5);
        (0..i32::from(self.settings.partitions))
            .map(|partition| {
                let (_, end) = consumer
                    .fetch_watermarks(&self.settings.topic, partition, patience)
                    .ok()?;
                Some(end)
            })
            .sum()
    }

    /// The first messages of its only partition as the server has them, by a plain consumer: key,
    /// headers and body.
    pub async fn raw(&self, count: usize) -> Vec<Vec<u8>> {
        let (mut config, topic) = (self.client(), self.settings.topic.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.set("group.id", "raw").create().expect("a consumer");
            let mut partitions = TopicPartitionList::new();
            partitions
                .add_partition_offset(&topic, 0, Offset::Beginning)
                .expect("an offset");
            consumer.assign(&partitions).expect("a partition");
            let end = Instant::now() + super::PATIENCE;
            let mut messages = Vec::new();
            while messages.len() < count {
                assert!(Instant::now() < end, "{} of {count} messages came", messages.len());
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
                    continue;
                };
                let mut raw = [message.key(), message.payload()]
                    .map(Option::unwrap_or_default)
                    .join(&b' ');
                for header in message.headers().expect("headers").iter() {
                    raw.extend_from_slice(header.key.as_bytes());
                    raw.push(b'=');
                    raw.extend_from_slice(header.value.unwrap_or_default());
                }
                messages.push(raw);
            }
            messages
        });
        reading.await.expect("not aborted")
    }

    /// A message that no Hookswitch wrote.
    pub fn put_foreign(&self, key: &str) {
        let producer: BaseProducer = self.client().create().expect("a producer");
        let header = Header {
            key: "ce_id",
            value: Some("no UUID"),
        };
        let record = BaseRecord::to(&self.settings.topic)
            .key(key)
            .payload("no envelope")
            .headers(OwnedHeaders::new().insert(header));
        producer.send(record).expect("it is queued");
        producer.flush(Duration::from_secs(20)).expect("it is written");
    }
}

impl Drop for KafkaTopic {
    fn drop(&mut self) {
        let (config, topic) = (self.client(), self.settings.topic.clone());
        // A test that failed may be unwinding inside its runtime: this thread has its own.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime");
            let Ok(admin) = config.create::<AdminClient<DefaultClientContext>>() else {
                return;
            };
            let _ = runtime.block_on(admin.delete_topics(&[&topic], &patient()));
        })
        .join();
    }
}

fn patient() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(5)))
        .operation_timeout(Some(Duration::from_secs(5)))
}

/// A server of the test's own, which it may kill. Gone with the test, with its data.
pub struct Server {
    directory: PathBuf,
    url: String,
    /// Listeners of its own: see `scripts/services`.
    more: Vec<(&'static str, String)>,
}

impl Server {
    /// `None` where `scripts/services` has none that can be killed, which is said.
    pub fn start() -> Option<Self> {
        Self::start_with(Vec::new())
    }

    /// With one listener more, which tells clients the address of a proxy.
    pub fn start_behind(listener: SocketAddr, proxy: SocketAddr) -> Option<Self> {
        Self::start_with(vec![
            ("HOOKSWITCH_SERVICES_KAFKA_LISTENERS", format!("BEHIND://{listener}")),
            ("HOOKSWITCH_SERVICES_KAFKA_ADVERTISED", format!("BEHIND://{proxy}")),
        ])
    }

    /// A container has its listeners from an image.
    pub fn may_have_listeners() -> bool {
        let engine = Command::new("docker")
            .arg("info")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        !engine.is_ok_and(|status| status.success())
    }

    pub fn start_with(more: Vec<(&'static str, String)>) -> Option<Self> {
        server()?;
        let directory = std::env::temp_dir().join(format!("hookswitch-kafka-{}", uuid::Uuid::now_v7().simple()));
        let mut server = Self {
            directory,
            url: String::new(),
            more,
        };
        server.url = server.services("up").expect("scripts/services starts a Kafka");
        if server.process().is_none() {
            let _ = writeln!(
                std::io::stderr(),
                "\nNOT RUN: the kill of a Kafka server, because it runs in a container here\n"
            );
            return None;
        }
        Some(server)
    }

    pub fn topic(&self, partitions: u16) -> KafkaTopic {
        KafkaTopic::on(self.url.clone(), partitions)
    }

    /// As `kill -9` does it: nothing is written any more.
    pub fn kill(&self) {
        let process = self.process().expect("it runs");
        let killed = Command::new("kill").args(["-9", process.trim()]).status();
        assert!(killed.is_ok_and(|status| status.success()));
    }

    pub async fn restart(&self) {
        let again = Self {
            directory: self.directory.clone(),
            url: String::new(),
            more: self.more.clone(),
        };
        let url = tokio::task::spawn_blocking(move || {
            let url = again.services("up");
            std::mem::forget(again);
            url
        });
        let url = url.await.expect("not aborted").expect("it starts again");
        assert_eq!(url, self.url, "it came back elsewhere");
    }

    fn process(&self) -> Option<String> {
        fs::read_to_string(self.directory.join("kafka.pid")).ok()
    }

    /// The URL that the script prints, if it does.
    fn services(&self, command: &str) -> Option<String> {
        let ran = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services"))
            .args([command, "kafka"])
            .env("HOOKSWITCH_SERVICES_DIR", &self.directory)
            .env("HOOKSWITCH_SERVICES_PORT_OFFSET", super::port_offset(&self.directory))
            .envs(self.more.iter().map(|(name, value)| (*name, value)))
            .env_remove("HOOKSWITCH_TEST_KAFKA_URL")
            .stderr(Stdio::inherit())
            .output()
            .expect("bash");
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        said.lines()
            .find_map(|line| line.strip_prefix("HOOKSWITCH_TEST_KAFKA_URL=").map(str::to_owned))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = self.process() {
            let _ = Command::new("kill").args(["-9", process.trim()]).status();
        }
        self.services("down");
        let _ = fs::remove_dir_all(&self.directory);
    }
}
