//! The sides of an ingest run: a server that drops, the simplest durable one, and Hookswitch.

use super::sinks;
use crate::{
    config::QueueSettings,
    domain::Clock,
    queue::{self, EventQueue},
};
use anyhow::Context;
use std::{path::Path, sync::Arc};

/// The three sides of one run, by the queue that is measured.
pub(super) enum Sides {
    Embedded,
    /// A broker, with a topic of this run.
    #[cfg(feature = "kafka")]
    Kafka {
        url: String,
        topic: String,
    },
    /// A broker, with queues of each round.
    #[cfg(feature = "rabbitmq")]
    RabbitMq {
        url: String,
    },
}

impl Sides {
    pub(super) fn of(queue_url: Option<&str>) -> anyhow::Result<Self> {
        match queue_url {
            None => Ok(Self::Embedded),
            #[cfg(feature = "kafka")]
            Some(url) if url.starts_with("kafka://") => Ok(Self::Kafka {
                url: url.to_owned(),
                topic: format!("hookswitch-bench-{}", uuid::Uuid::now_v7().simple()),
            }),
            #[cfg(feature = "rabbitmq")]
            Some(url) if url.starts_with("amqp") => Ok(Self::RabbitMq { url: url.to_owned() }),
            Some(_) => anyhow::bail!("--queue-url: expected amqp://… or kafka://host:port"),
        }
    }

    pub(super) const fn names(&self) -> [&'static str; 3] {
        match self {
            Self::Embedded => [
                "verify and drop",
                "append-only file, group fsync",
                "hookswitch, embedded queue",
            ],
            #[cfg(feature = "kafka")]
            Self::Kafka { .. } => ["verify and drop", "bare rdkafka, acks=all", "hookswitch, Kafka"],
            #[cfg(feature = "rabbitmq")]
            Self::RabbitMq { .. } => ["verify and drop", "bare lapin, quorum queues", "hookswitch, RabbitMQ"],
        }
    }

    /// The sink of a side, 0 to 2.
    pub(super) async fn open(
        &self,
        side: usize,
        directory: &Path,
        settings: &QueueSettings,
        event_bytes_max: usize,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Arc<dyn EventQueue>> {
        if side == 0 {
            return Ok(Arc::new(sinks::Drop));
        }
        match self {
            Self::Embedded if side == 1 => Ok(Arc::new(
                sinks::AppendOnly::create(&directory.join("append")).context("cannot make the append-only file")?,
            )),
            Self::Embedded => {
                let url = format!("embedded:{}", directory.join("queue").display());
                Ok(queue::connect(&url, settings, event_bytes_max, clock.clone()).await?)
            }
            #[cfg(feature = "kafka")]
            Self::Kafka { url, topic } => {
                let settings = QueueSettings {
                    kafka_topic: topic.clone(),
                    // A worker of a run is in no group of others.
                    kafka_group: topic.clone(),
                    ..settings.clone()
                };
                let queue = queue::connect(url, &settings, event_bytes_max, clock.clone()).await?;
                if side == 2 {
                    return Ok(queue);
                }
                // Opening and closing it has made the topic.
                queue.close().await;
                Ok(Arc::new(super::kafka::BareProducer::connect(url, topic)?))
            }
            #[cfg(feature = "rabbitmq")]
            Self::RabbitMq { url } => super::amqp::open(url, side == 1, settings, event_bytes_max, clock.clone()).await,
        }
    }
}
