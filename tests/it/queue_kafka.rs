//! The queue over Kafka: the contract.

use crate::{
    conformance::queue::{Backend, Limits, run},
    support::kafka::{KafkaTopic, server},
};
use async_trait::async_trait;
use hookswitch::queue::{EventQueue, KafkaQueue, KafkaSettings};
use std::sync::Arc;

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
        // What a process leaves behind is the broker's alone.
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
