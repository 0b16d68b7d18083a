//! The producer: idempotent, acks=all, replaced when librdkafka calls it fatally failed.
//!
//! **Invariant:** each publish ends in a confirm or in an error. Only an event that never came into
//! the producer's queue counts as not stored. Each other failure is unknown, because librdkafka may
//! have sent the event before it gave up.

use super::{HEADROOM_BYTES, Shared, message};
use crate::{
    domain::{Envelope, Timestamp},
    queue::{ConnectError, PublishError, encoded_bytes_max},
};
use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Message},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use std::{
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::oneshot;

/// Most events that wait in the producer. A further event is refused.
const QUEUED_EVENTS_MAX: &str = "100000";
const QUEUED_KBYTES_MAX: &str = "262144";

/// A batch waits this long for further events. Measured: `docs/benchmarks.md`.
const LINGER_MS: &str = "1";

/// Largest batch that a producer fills at first. Topics take about 1 MB by default, and the broker
/// refuses a larger batch with all its events.
pub(super) const BATCH_BYTES_MAX: usize = 900_000;

/// Between two tries to make a producer.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

type Producer = ThreadedProducer<Context>;

/// A publisher that waits for its confirm.
pub(super) struct Waiter {
    received_at: Timestamp,
    answer: oneshot::Sender<Result<(), PublishError>>,
}

pub(super) struct Context {
    shared: Arc<Shared>,
    publisher: Weak<Publisher>,
    /// Largest batch that this producer fills. An event above it goes alone.
    batch_bytes_max: usize,
    is_replaced: AtomicBool,
}

impl Context {
    /// Asks the client whether it failed for good, because the callbacks name only the cause. This
    /// runs on the producer's own thread, which cannot end itself.
    fn look_for_failure(&self) {
        let Some(publisher) = self.publisher.upgrade() else {
            return;
        };
        if let Some(reason) = publisher.failure()
            && !self.is_replaced.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("The Kafka producer failed for good and is replaced: {reason}");
            on_a_thread("kafka-replace", move || publisher.replace());
        }
    }

    /// The broker refused a batch for its size. Each of its events may fit into a smaller one.
    fn fill_smaller_batches(&self) {
        let Some(publisher) = self.publisher.upgrade() else {
            return;
        };
        if self.is_replaced.swap(true, Ordering::Relaxed) {
            return;
        }
        let half = (self.batch_bytes_max / 2).max(1);
        self.shared.batch_bytes_max.fetch_min(half, Ordering::Relaxed);
        self.shared.is_limit_old.store(true, Ordering::Relaxed);
        self.shared.wake.call();
        tracing::warn!("The Kafka topic refuses a batch for its size: the next batches have {half} bytes at most");
        on_a_thread("kafka-replace", move || publisher.replace());
    }
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!("librdkafka: {facility} {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "librdkafka: {reason}");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.shared.wake.call();
        } else {
            self.look_for_failure();
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Waiter>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiter: Box<Waiter>) {
        let outcome = match result {
            Ok(message) => {
                let mut state = self.shared.state();
                state
                    .partitions
                    .published(message.partition(), message.offset(), waiter.received_at);
                Ok(())
            }
            Err((error, message)) => {
                self.look_for_failure();
                Err(self.refusal(error, message.payload_len()))
            }
        };
        // The publisher may be gone: its deadline has passed, or the publish was dropped.
        let _ = waiter.answer.send(outcome);
    }
}

impl Context {
    fn refusal(&self, error: &KafkaError, bytes: usize) -> PublishError {
        let bytes_max = self.shared.event_bytes_max.load(Ordering::Relaxed);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) if bytes > self.batch_bytes_max => PublishError::TooLarge {
                bytes,
                bytes_max: bytes_max.min(bytes - 1),
            },
            // The broker refuses a large batch as a whole, with this error for each event in it. A
            // small event alone would fit.
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                self.fill_smaller_batches();
                PublishError::Unknown {
                    reason: "the topic refused its batch for its size".into(),
                }
            }
            _ => PublishError::Unknown {
                reason: error.to_string().into(),
            },
        }
    }
}

pub(super) struct Publisher {
    shared: Arc<Shared>,
    /// `None` once the queue is closed.
    producer: RwLock<Option<Producer>>,
}

impl Publisher {
    /// Does not wait for a broker, but starts threads and reads certificates. Do not call it on a
    /// thread of the runtime.
    pub fn start(shared: Arc<Shared>) -> Result<Arc<Self>, ConnectError> {
        let publisher = Arc::new(Self {
            shared,
            producer: RwLock::new(None),
        });
        let producer = publisher.make().map_err(|error| ConnectError::Broker {
            doing: "make a Kafka producer",
            reason: error.to_string(),
        })?;
        *publisher.producer.write().unwrap_or_else(PoisonError::into_inner) = Some(producer);
        Ok(publisher)
    }

    fn make(self: &Arc<Self>) -> Result<Producer, KafkaError> {
        let batch_bytes_max = self.shared.batch_bytes_max.load(Ordering::Relaxed);
        let context = Context {
            shared: self.shared.clone(),
            publisher: Arc::downgrade(self),
            batch_bytes_max,
            is_replaced: AtomicBool::new(false),
        };
        Producer::from_config_and_context(&self.config(batch_bytes_max), context)
    }

    fn config(&self, batch_bytes_max: usize) -> ClientConfig {
        let settings = &self.shared.settings;
        let confirm_ms = settings.confirm_max.as_millis().clamp(10, 900_000).to_string();
        let message_bytes_max = settings.event_bytes_max + HEADROOM_BYTES;
        let mut config = self.shared.config.clone();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // The partitioner of the Java client, so that producers of both kinds put a subject
            // into one partition. An empty subject is a key like any other.
            .set("partitioner", "murmur2")
            .set("compression.type", "lz4")
            .set("linger.ms", LINGER_MS)
            .set("batch.size", batch_bytes_max.min(message_bytes_max).to_string())
            .set("message.max.bytes", message_bytes_max.to_string())
            .set("message.timeout.ms", &confirm_ms)
            .set("request.timeout.ms", &confirm_ms)
            .set("queue.buffering.max.messages", QUEUED_EVENTS_MAX)
            .set("queue.buffering.max.kbytes", QUEUED_KBYTES_MAX);
        config
    }

    /// Hands the event to the producer, without waiting. The receiver resolves with its confirm.
    pub fn send(&self, envelope: &Envelope) -> Result<oneshot::Receiver<Result<(), PublishError>>, PublishError> {
        let (answer, confirm) = oneshot::channel();
        let waiter = Box::new(Waiter {
            received_at: envelope.received_at,
            answer,
        });
        let record = BaseRecord::with_opaque_to(&self.shared.settings.topic, waiter)
            .key(&*envelope.subject.0)
            .payload(&*envelope.body)
            .headers(message::headers(envelope));
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        let producer = producer.as_ref().ok_or(PublishError::Closed)?;
        match producer.send(record) {
            Ok(()) => Ok(confirm),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                Err(PublishError::TooLarge {
                    bytes: encoded_bytes_max(envelope),
                    bytes_max: self.shared.settings.event_bytes_max,
                })
            }
            Err((error, _)) => Err(PublishError::Unavailable {
                reason: error.to_string().into(),
            }),
        }
    }

    /// Why the producer failed for good; `None` while it works.
    fn failure(&self) -> Option<String> {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        let (_, reason) = producer.as_ref()?.client().fatal_error()?;
        Some(reason)
    }

    /// Replaces a producer whose batches are larger than the topic takes.
    pub fn fit(self: Arc<Self>) {
        let batch_bytes_max = self.shared.batch_bytes_max.load(Ordering::Relaxed);
        let fits = {
            let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
            let context = producer.as_ref().map(|producer| producer.client().context());
            context.is_none_or(|context| {
                context.batch_bytes_max <= batch_bytes_max || context.is_replaced.swap(true, Ordering::Relaxed)
            })
        };
        if !fits {
            self.replace();
        }
    }

    /// Replaces a producer that failed for good, or that fills too large batches. Events in flight
    /// end with the old one, as unknown.
    fn replace(self: Arc<Self>) {
        let made = loop {
            let seen = self.shared.wake.seen();
            match self.make() {
                Ok(made) => break made,
                Err(error) => tracing::error!(%error, "The failed Kafka producer cannot be replaced yet"),
            }
            if self.shared.is_closed() {
                return;
            }
            self.shared.wake.wait(seen, REPLACE_PAUSE);
        };
        let old = {
            let mut producer = self.producer.write().unwrap_or_else(PoisonError::into_inner);
            if self.shared.is_closed() {
                Some(made)
            } else {
                producer.replace(made)
            }
        };
        drop(old);
    }

    /// Waits for confirms under way, then ends the producer.
    pub async fn close(self: &Arc<Self>) {
        let publisher = self.clone();
        let closing = tokio::task::spawn_blocking(move || {
            let producer = publisher.take();
            if let Some(producer) = &producer {
                // An event that is not confirmed by then is reported to its publisher as unknown.
                let _ = producer.flush(super::CLOSE_PATIENCE);
            }
        });
        // A runtime that shuts down does not run this task.
        let _ = closing.await;
    }

    /// As [`Publisher::close`], for a drop, which may not wait.
    pub fn discard(&self) {
        if let Some(producer) = self.take() {
            on_a_thread("kafka-discard", move || drop(producer));
        }
    }

    fn take(&self) -> Option<Producer> {
        self.producer.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Dropping a client of librdkafka can wait for its threads and for a broker, so it needs a thread
/// of its own.
pub(super) fn on_a_thread(name: &str, work: impl FnOnce() + Send + 'static) {
    // Without a thread the work is dropped here. A machine without threads has greater trouble.
    if let Err(error) = thread::Builder::new().name(name.into()).spawn(work) {
        tracing::error!(%error, "Cannot start the thread {name}");
    }
}
