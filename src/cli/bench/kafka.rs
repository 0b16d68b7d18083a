//! The baseline of ingest over Kafka: a bare producer with the same acks, batching and sizes. Its
//! topic is made by the queue that it is compared with.

use crate::{
    domain::VerifiedEvent,
    queue::{self, ConsumeError, Deliveries, EventQueue, PublishError, QueueState},
};
use async_trait::async_trait;
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer as _},
};
use std::{sync::OnceLock, time::Duration};

/// Sends the same records as Hookswitch, without a deadline of its own and without counts. The
/// headers of all are those of the first event, made once.
pub(super) struct BareProducer {
    producer: FutureProducer,
    topic: String,
    headers: OnceLock<OwnedHeaders>,
}

impl BareProducer {
    pub(super) fn connect(url: &str, topic: &str) -> anyhow::Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", url.trim_start_matches("kafka://"))
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "1")
            .create()?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
            headers: OnceLock::new(),
        })
    }

    fn headers(&self, event: &VerifiedEvent) -> OwnedHeaders {
        let headers = self.headers.get_or_init(|| {
            queue::attributes(event.envelope())
                .into_iter()
                .fold(OwnedHeaders::new(), |headers, (name, text)| {
                    headers.insert(Header {
                        key: &format!("ce_{name}"),
                        value: Some(&text),
                    })
                })
        });
        headers.clone()
    }
}

#[async_trait]
impl EventQueue for BareProducer {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let envelope = event.envelope();
        let record = FutureRecord::to(&self.topic)
            .key(&*envelope.subject.0)
            .payload(&*envelope.body)
            .headers(self.headers(event));
        let failed = |reason: String| PublishError::Unavailable { reason: reason.into() };
        let confirm = self
            .producer
            .send_result(record)
            .map_err(|(error, _)| failed(error.to_string()))?;
        match confirm.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(failed(error.to_string())),
            Err(_) => Err(failed("the producer ended".to_owned())),
        }
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        Err(ConsumeError::AlreadyConsumed)
    }

    fn state(&self) -> QueueState {
        QueueState::default()
    }

    async fn close(&self) {
        let producer = self.producer.clone();
        let flushing = tokio::task::spawn_blocking(move || producer.flush(Duration::from_secs(5)));
        let _ = flushing.await;
    }
}
