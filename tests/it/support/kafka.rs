//! A Kafka topic and a group of a test's own, on the server that `scripts/services up kafka`
//! starts.

use hookswitch::queue::KafkaSettings;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::{io::Write, sync::Once, time::Duration};

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
    /// Where the test's own clients connect.
    server: String,
    /// Where the queue connects: the server, or a proxy before it.
    pub url: String,
    pub settings: KafkaSettings,
}

impl KafkaTopic {
    /// `None` where there is no server. The topic is created by the queue.
    pub fn new(partitions: u16) -> Option<Self> {
        let server = server()?;
        let name = format!("it-{}", uuid::Uuid::now_v7().simple());
        Some(Self {
            url: server.clone(),
            server,
            settings: KafkaSettings {
                topic: name.clone(),
                group: name,
                partitions,
                ..KafkaSettings::default()
            },
        })
    }

    /// Settings of a client of the test's own.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.server.trim_start_matches("kafka://"));
        config
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
            let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
            let _ = runtime.block_on(admin.delete_topics(&[&topic], &options));
        })
        .join();
    }
}
