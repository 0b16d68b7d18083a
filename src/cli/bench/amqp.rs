//! The baseline of ingest over RabbitMQ: a bare publisher with the same confirms, queues and sizes.

use crate::{
    config::QueueSettings,
    domain::VerifiedEvent,
    queue::{self, ConsumeError, Deliveries, EventQueue, PublishError, QueueState},
};
use anyhow::Context;
use async_trait::async_trait;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};
use uuid::Uuid;

const CHANNELS: usize = 4;

/// A sink with queues of its own, which it deletes when it is closed.
pub(super) struct Disposable {
    sink: Arc<dyn EventQueue>,
    url: String,
    queues: Vec<String>,
}

/// Opens Hookswitch's own queue, or the bare publisher, over as many quorum queues.
pub(super) async fn open(
    url: &str,
    is_bare: bool,
    settings: &QueueSettings,
    event_bytes_max: usize,
    clock: Arc<dyn crate::domain::Clock>,
) -> anyhow::Result<Arc<dyn EventQueue>> {
    let settings = QueueSettings {
        amqp_prefix: format!("hookswitch-bench-{}", Uuid::now_v7().simple()),
        ..settings.clone()
    };
    let prefix = &settings.amqp_prefix;
    let mut queues: Vec<_> = (0..settings.amqp_queues)
        .map(|number| format!("{prefix}.events.{number}"))
        .collect();
    let sink: Arc<dyn EventQueue> = if is_bare {
        Arc::new(BarePublisher::connect(url, queues.clone()).await?)
    } else {
        queue::connect(url, &settings, event_bytes_max, clock).await?
    };
    queues.push(format!("{prefix}.dead"));
    Ok(Arc::new(Disposable {
        sink,
        url: url.to_owned(),
        queues,
    }))
}

impl Disposable {
    async fn delete(&self) -> anyhow::Result<()> {
        let connection = connect(&self.url).await?;
        let channel = connection.create_channel().await?;
        for queue in &self.queues {
            channel
                .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
                .await?;
        }
        Ok(())
    }
}

#[async_trait]
impl EventQueue for Disposable {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        self.sink.publish(event).await
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        self.sink.consume().await
    }

    fn state(&self) -> QueueState {
        self.sink.state()
    }

    async fn close(&self) {
        self.sink.close().await;
        if let Err(error) = self.delete().await {
            eprintln!("the queues of this run could not be deleted: {error:#}");
        }
    }
}

async fn connect(url: &str) -> anyhow::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default())
        .await
        .context("the broker does not answer")
}

/// Publishes the same messages as Hookswitch and awaits confirms. The headers of all are those of
/// the first event, made once.
struct BarePublisher {
    _connection: Connection,
    channels: Vec<Channel>,
    queues: Vec<String>,
    next: AtomicUsize,
    properties: OnceLock<BasicProperties>,
}

impl BarePublisher {
    async fn connect(url: &str, queues: Vec<String>) -> anyhow::Result<Self> {
        let connection = connect(url).await?;
        let mut channels = Vec::new();
        for _ in 0..CHANNELS {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            channels.push(channel);
        }
        for queue in &queues {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            channels[0]
                .queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), arguments)
                .await?;
        }
        Ok(Self {
            _connection: connection,
            channels,
            queues,
            next: AtomicUsize::new(0),
            properties: OnceLock::new(),
        })
    }

    fn properties(&self, event: &VerifiedEvent) -> BasicProperties {
        let properties = self.properties.get_or_init(|| {
            let mut headers = FieldTable::default();
            queue::for_each_attribute(event.envelope(), |name, text| {
                headers.insert(format!("cloudEvents:{name}").into(), AMQPValue::LongString(text.into()));
            });
            BasicProperties::default().with_delivery_mode(2).with_headers(headers)
        });
        properties.clone()
    }
}

#[async_trait]
impl EventQueue for BarePublisher {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let failed = |reason: String| PublishError::Unavailable { reason: reason.into() };
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let queue = self.queues[next % self.queues.len()].as_str();
        let confirm = self.channels[next % CHANNELS]
            .basic_publish(
                "".into(),
                queue.into(),
                options,
                &event.envelope().body,
                self.properties(event),
            )
            .await
            .map_err(|error| failed(error.to_string()))?
            .await
            .map_err(|error| failed(error.to_string()))?;
        if confirm.is_ack() {
            Ok(())
        } else {
            Err(failed("not confirmed".to_owned()))
        }
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        Err(ConsumeError::AlreadyConsumed)
    }

    fn state(&self) -> QueueState {
        QueueState::default()
    }

    async fn close(&self) {}
}
