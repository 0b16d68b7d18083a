//! The way from receivers to workers: durable before it is confirmed, at least once, in order
//! within a subject.
//!
//! Receivers publish, workers consume. **Invariant:** what was confirmed comes out until it is
//! acked, whatever dies in between.

#[cfg(feature = "rabbitmq")]
mod amqp;
mod envelope;
mod health;
#[cfg(feature = "kafka")]
mod kafka;
mod leases;
mod log;
mod spool;

#[cfg(feature = "rabbitmq")]
pub use amqp::{AmqpQueue, AmqpSettings};
pub use envelope::{EnvelopeError, attributes, decode, encode, encoded_bytes_max, for_each_attribute, from_attributes};
#[cfg(feature = "kafka")]
pub use kafka::{KafkaQueue, KafkaSettings};
pub use leases::{LeaseError, QueueLeases};
#[doc(hidden)]
pub use log::{Disk, DiskSpace, RealDisk};
pub use log::{LogQueue, LogSettings};
pub use spool::{SpoolQueue, SpoolSettings, dead_entries};

use crate::{
    config::QueueSettings,
    domain::{Clock, Envelope, OrgId, Timestamp, VerifiedEvent},
    telemetry::Diagnosis,
};
use async_trait::async_trait;
use std::{path::Path, sync::Arc};

/// Events behind the first that is not acked which an earlier consumer may have had, where the
/// backend counts consumers and not deliveries: its inbox and its worker hold no more.
const DELIVERED_AHEAD_MAX: u32 = 16_384;

/// The contract. Every sentence of it has a test in `tests/it/conformance/queue.rs`, run over every
/// backend.
#[async_trait]
pub trait EventQueue: Send + Sync + 'static {
    /// Returns once the event is durable (embedded: fsynced; a broker: confirmed), or why it is
    /// not. Concurrent publishes share one fsync. Dropping the future cancels the wait, not the
    /// write.
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError>;

    /// An error where the event is over a limit that is known, so that it would never be taken.
    /// Memory only.
    fn check(&self, _event: &VerifiedEvent) -> Result<(), PublishError> {
        Ok(())
    }

    /// At least once; events of a subject in the order in which they were confirmed; what was not
    /// acked comes back after a restart. The embedded queue has one consumer at a time: a second
    /// call is an error while the first is held.
    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError>;

    /// Consumers are to share the queue's parts out by these leases from now on. A backend that has
    /// no parts, or shares them out by itself, leaves it at that.
    fn share_by(&self, leases: Arc<dyn QueueLeases>) {
        drop(leases);
    }

    /// The state of the queue now. Memory only, because each scrape reads it.
    fn state(&self) -> QueueState;

    /// The spool in front of the broker, where there is one. Memory only.
    fn spool(&self) -> Option<SpoolState> {
        None
    }

    /// Returns when the queue has failed for good, with the reason: the process then says so and
    /// ends. Waits for ever while all is well.
    async fn failed(&self) -> Arc<str> {
        std::future::pending().await
    }

    /// Flushes lazily kept acks and refuses further publishes. Idempotent.
    async fn close(&self);
}

#[async_trait]
pub trait Deliveries: Send {
    /// Waits for at least one delivery, then returns at most `count_max` that are there. Empty only
    /// when the queue was closed. Cancel safe: dropping the future loses nothing.
    async fn next_batch(&mut self, count_max: usize) -> Result<Vec<Delivery>, ConsumeError>;

    /// Acks deliveries, in any order and any grouping; acking twice is no error. The durable mark
    /// follows lazily, so that a crash may bring acked events back: dedupe absorbs them.
    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), ConsumeError>;
}

/// The backend's name for one delivery; ordered as the log is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeliveryTag(pub u64);

#[derive(Debug)]
pub struct Delivery {
    pub tag: DeliveryTag,
    /// A message that cannot be decoded affects only itself. It comes as an error, and the worker
    /// stores it as a dead letter.
    pub event: Result<Envelope, EnvelopeError>,
    /// How often a worker may have had it before and did not ack it. The worker plans an event by
    /// itself that comes again and again, because it may be the event that ends its process.
    pub redeliveries: u32,
}

/// For gauges, `/readyz` and the operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueState {
    pub events: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    /// When the oldest event that is not acked was received.
    pub oldest_received_at: Option<Timestamp>,
    pub disk_free_bytes: Option<u64>,
    /// Below this much free space intake stops.
    pub disk_free_bytes_min: Option<u64>,
    pub health: QueueHealth,
    /// The broker gives this process no events now.
    pub is_consumer_away: bool,
    /// Queues of the broker that do not answer while others do. Their events wait.
    pub silent_parts: usize,
}

/// The state of a spool, for gauges, `/readyz` and the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpoolState {
    /// Events go through the spool, because the broker did not take one.
    pub is_spooling: bool,
    pub events: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    /// When the oldest event of the spool was received.
    pub oldest_received_at: Option<Timestamp>,
    pub disk_free_bytes: Option<u64>,
    pub disk_free_bytes_min: Option<u64>,
    pub health: QueueHealth,
    pub directory: Arc<Path>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum QueueHealth {
    #[default]
    Ready,
    /// Takes no events for now: full, or the disk is.
    Refusing,
    /// The broker is away or blocks publishing. It is tried again for as long as the process lives.
    Away,
    /// A segment of the log cannot be read: events are taken, and none of them is delivered.
    Damaged,
    /// A write or an fsync failed: final for this process.
    Failed,
}

/// Why an event is not durable. Each variant says what the caller does next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// Will never fit; nothing was stored. Receiver: 413.
    #[error("an event of {bytes} bytes is over the queue's limit of {bytes_max} bytes")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// No room now; nothing was stored. Receiver: 503 with Retry-After.
    #[error("the queue holds {bytes} of {bytes_max} bytes and takes no more")]
    Full { bytes: u64, bytes_max: u64 },
    /// This organisation holds more than its share of a queue that is over half full (invariant
    /// 22). Receiver: 503 with Retry-After.
    #[error("organisation {org} holds {bytes} bytes of a queue that is over half full")]
    OverShare { org: OrgId, bytes: u64 },
    /// The disk is nearly full (invariant 13). Receiver: 503 with Retry-After.
    #[error("the queue's disk has {free_bytes} bytes free and intake stops below {free_bytes_min}")]
    DiskNearlyFull { free_bytes: u64, free_bytes_min: u64 },
    /// The queue can take nothing for the moment; nothing was stored. Receiver: 503 with
    /// Retry-After.
    #[error("the queue takes no event for the moment: {reason}")]
    NotNow { reason: Arc<str> },
    /// A write or an fsync failed. Final: this process publishes nothing any more, and ends.
    /// Receiver: 503.
    #[error("the log failed and takes nothing until the process is started again: {reason}")]
    Failed { reason: Arc<str> },
    /// The broker is away or refused the event for now: nothing was stored. The spool takes the
    /// event; without a spool the receiver answers 503 with Retry-After.
    #[error("the broker takes no events now, and stored nothing: {reason}")]
    Unavailable { reason: Arc<str> },
    /// No confirm came in time, so the broker may have stored the event. The spool takes the event
    /// too, because dedupe absorbs the second copy. Without a spool the receiver answers 503 with
    /// Retry-After.
    #[error("the broker did not confirm the event in time and may have stored it: {reason}")]
    Unknown { reason: Arc<str> },
    #[error("the queue is closed")]
    Closed,
}

/// The label of a publish in `hookswitch_queue_publish_seconds`, the same for every backend.
const fn outcome_label(outcome: &Result<(), PublishError>) -> &'static str {
    match outcome {
        Ok(()) => "confirmed",
        Err(PublishError::TooLarge { .. }) => "too_large",
        Err(PublishError::Full { .. }) => "full",
        Err(PublishError::OverShare { .. }) => "over_share",
        Err(PublishError::DiskNearlyFull { .. }) => "disk_nearly_full",
        Err(PublishError::NotNow { .. }) => "not_now",
        Err(PublishError::Failed { .. }) => "failed",
        Err(PublishError::Unavailable { .. }) => "unavailable",
        Err(PublishError::Unknown { .. }) => "unknown",
        Err(PublishError::Closed) => "closed",
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum ConsumeError {
    #[error("the queue already has a consumer; an embedded queue belongs to one worker")]
    AlreadyConsumed,
    #[error("the log at {place} cannot be read: {reason}")]
    Unreadable { place: Arc<str>, reason: Arc<str> },
    #[error("the broker's events cannot be consumed: {reason}")]
    Broker { reason: Arc<str> },
}

/// Opens the queue that a URL names: `embedded:DIRECTORY`, `amqp://…`, `amqps://…` or
/// `kafka://host:port,…`. Each backend reads the settings that concern it; `event_bytes_max` limits
/// one event with its attributes.
///
/// # Errors
/// Says which setting is wrong, or what stands in the way (another process holds the directory, a
/// damaged segment).
pub async fn connect(
    url: &str,
    settings: &QueueSettings,
    event_bytes_max: usize,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn EventQueue>, ConnectError> {
    match url.split_once(':') {
        Some(("embedded", directory)) if !directory.is_empty() => {
            let settings = LogSettings::new(settings, event_bytes_max);
            Ok(Arc::new(LogQueue::open(directory.as_ref(), settings, clock).await?))
        }
        #[cfg(feature = "kafka")]
        Some(("kafka", _)) => {
            let settings = KafkaSettings::new(settings, event_bytes_max);
            Ok(Arc::new(KafkaQueue::open(url, settings).await?))
        }
        #[cfg(feature = "rabbitmq")]
        Some(("amqp" | "amqps", _)) => {
            let settings = AmqpSettings::load(settings, event_bytes_max).await?;
            Ok(Arc::new(AmqpQueue::open(url, settings).await?))
        }
        _ => Err(ConnectError::UnknownUrl),
    }
}

/// The checks of `doctor` for the queue that a URL names. They create nothing. With `is_dev` risks
/// for durability are warnings.
pub async fn diagnose(url: &str, settings: &QueueSettings, event_bytes_max: usize, is_dev: bool) -> Vec<Diagnosis> {
    match url.split_once(':') {
        Some(("embedded", directory)) if !directory.is_empty() => {
            let settings = LogSettings::new(settings, event_bytes_max);
            log::diagnose(directory.as_ref(), &settings, &log::QUEUE, is_dev)
        }
        #[cfg(feature = "kafka")]
        Some(("kafka", _)) => {
            let mut found = kafka::diagnose(url, KafkaSettings::new(settings, event_bytes_max), is_dev).await;
            found.extend(spool::diagnose(&SpoolSettings::new(settings, event_bytes_max), is_dev));
            found
        }
        #[cfg(feature = "rabbitmq")]
        Some(("amqp" | "amqps", _)) => {
            let mut found = match AmqpSettings::load(settings, event_bytes_max).await {
                Ok(settings) => amqp::diagnose(url, &settings).await,
                Err(error) => vec![Diagnosis::fail(
                    "rabbitmq settings",
                    error.to_string(),
                    "correct the setting",
                )],
            };
            found.extend(spool::diagnose(&SpoolSettings::new(settings, event_bytes_max), is_dev));
            found
        }
        _ => vec![Diagnosis::fail(
            "queue",
            ConnectError::UnknownUrl.to_string(),
            "correct HOOKSWITCH_QUEUE_URL",
        )],
    }
}

/// Has events delivered again that a worker had acked since `to`, where the queue still has them,
/// and returns how many. `None`: the queue keeps only what was not acked. Without `is_done` it only
/// counts. No worker may run.
///
/// # Errors
/// The broker does not answer, or a worker runs.
pub async fn rewind(
    url: &str,
    settings: &QueueSettings,
    event_bytes_max: usize,
    to: Timestamp,
    is_done: bool,
) -> Result<Option<u64>, ConnectError> {
    #[cfg(feature = "kafka")]
    if url.starts_with("kafka:") {
        let settings = KafkaSettings::new(settings, event_bytes_max);
        return kafka::rewind(url, settings, to, is_done).await.map(Some);
    }
    let _ = (url, settings, event_bytes_max, to, is_done);
    Ok(None)
}

/// Opens the queue of a process that consumes and publishes nothing. RabbitMQ spares the connection
/// for publishing, and Kafka the producer.
///
/// # Errors
/// As [`connect`].
pub async fn connect_consumer(
    url: &str,
    settings: &QueueSettings,
    event_bytes_max: usize,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn EventQueue>, ConnectError> {
    #[cfg(feature = "rabbitmq")]
    if url.starts_with("amqp:") || url.starts_with("amqps:") {
        let settings = AmqpSettings {
            publishes: false,
            ..AmqpSettings::load(settings, event_bytes_max).await?
        };
        return Ok(Arc::new(AmqpQueue::open(url, settings).await?));
    }
    #[cfg(feature = "kafka")]
    if url.starts_with("kafka:") {
        let settings = KafkaSettings {
            publishes: false,
            ..KafkaSettings::new(settings, event_bytes_max)
        };
        return Ok(Arc::new(KafkaQueue::open(url, settings).await?));
    }
    connect(url, settings, event_bytes_max, clock).await
}

/// Opens the queue of a receiver: a broker gets a spool in front of it, the embedded queue is on
/// local disk already.
///
/// # Errors
/// As [`connect`]; or the spool's directory is volatile, in use or damaged.
pub async fn connect_with_spool(
    url: &str,
    settings: &QueueSettings,
    event_bytes_max: usize,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn EventQueue>, ConnectError> {
    if url.starts_with("embedded:") {
        return connect(url, settings, event_bytes_max, clock).await;
    }
    let broker = connect(url, settings, event_bytes_max, clock.clone()).await?;
    let settings = SpoolSettings::new(settings, event_bytes_max);
    Ok(Arc::new(SpoolQueue::open(broker, settings, clock).await?))
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "HOOKSWITCH_SPOOL_DIRECTORY: {directory} is on {file_system}, and would take accepted events with it; name a \
        directory of a volume that stays, or set HOOKSWITCH_SPOOL_MAY_BE_VOLATILE=true for development"
    )]
    Volatile {
        directory: String,
        file_system: &'static str,
    },
    #[error("HOOKSWITCH_QUEUE_URL is not understood: expected embedded:DIRECTORY, amqp(s)://… or kafka://…")]
    UnknownUrl,
    #[error("{setting}: {problem}")]
    Setting { setting: &'static str, problem: String },
    #[error("cannot {doing}: {reason}")]
    Broker { doing: &'static str, reason: String },
    #[error("{directory} is in use by another hookswitch process; stop it, or give this one its own directory")]
    InUse { directory: String },
    #[error(
        "the queue's segment {segment} is damaged at byte {offset}: {reason}. Nothing was changed. Move the file away \
        to start without its events, or restore it"
    )]
    Damaged {
        segment: String,
        offset: u64,
        reason: String,
    },
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
}
