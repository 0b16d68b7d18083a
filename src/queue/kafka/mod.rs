//! The queue over Kafka: one topic, keyed by subject, read by one consumer group.
//!
//! `queue::connect` enters. **Invariant:** an offset is committed only up to the lowest unfinished
//! event of its partition. A publish without a confirm is an error that says whether the event may
//! be stored. No thread of the runtime makes a call of librdkafka that can wait. Why:
//! `docs/decisions/0010-kafka.md`.

mod consume;
mod diagnose;
mod message;
mod offsets;
mod partitions;
mod produce;
mod redeliveries;
mod rewind;
mod topic;
mod url;
mod watch;

use super::{
    ConnectError, ConsumeError, Deliveries, EventQueue, PublishError, QueueHealth, QueueState, encoded_bytes_max,
    outcome_label,
};
use crate::{
    config::QueueSettings,
    domain::{Timestamp, VerifiedEvent},
    telemetry::{Diagnosis, catalogue},
};
use async_trait::async_trait;
use consume::{Consumers, Inbox};
use partitions::Partitions;
use produce::Publisher;
use rdkafka::ClientConfig;
use secrecy::SecretString;
use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use watch::Watch;

/// How long a start waits for the broker. A broker that is away is no error: the spool takes over.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a close waits for publishes under way and for the last commit.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// The topic's limit lies above ours by so much: headers are longer than their encoding.
const HEADROOM_BYTES: usize = 64 << 10;

/// Shorter than that, events of a long weekend would be deleted unread.
const RETENTION_MIN: Duration = Duration::from_hours(7 * 24);

/// Room between our limit and the topic's, where the topic's was set by somebody else.
const MARGIN_BYTES: usize = 16 << 10;

/// The settings of the queue beside its URL.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    pub topic: String,
    pub group: String,
    /// Of a topic that is created here.
    pub partitions: u16,
    /// Of a topic that is created here. `None`: three, or as many as there are brokers.
    pub replicas: Option<u16>,
    /// Of a topic that is created here.
    pub retention: Duration,
    /// Bytes of one event with its attributes, at most.
    pub event_bytes_max: usize,
    /// From here on a publish that is not confirmed is unknown.
    pub confirm_max: Duration,
    /// Without it no producer is made.
    pub publishes: bool,
    pub tls: bool,
    pub tls_ca_file: Option<String>,
    pub sasl_mechanism: Option<String>,
    pub sasl_username: Option<String>,
    pub sasl_password: Option<SecretString>,
}

impl KafkaSettings {
    #[must_use]
    pub fn new(settings: &QueueSettings, event_bytes_max: usize) -> Self {
        Self {
            topic: settings.kafka_topic.clone(),
            group: settings.kafka_group.clone(),
            partitions: settings.kafka_partitions,
            replicas: settings.kafka_replicas,
            retention: settings.kafka_retention,
            event_bytes_max,
            confirm_max: settings.confirm_seconds_max,
            publishes: true,
            tls: settings.kafka_tls,
            tls_ca_file: settings.kafka_tls_ca_file.clone(),
            sasl_mechanism: settings.kafka_sasl_mechanism.clone(),
            sasl_username: settings.kafka_sasl_username.clone(),
            sasl_password: settings.kafka_sasl_password.clone(),
        }
    }
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self::new(&QueueSettings::default(), 2 << 20)
    }
}

/// The checks of `doctor` for the brokers and the topic.
pub(super) async fn diagnose(url: &str, settings: KafkaSettings, is_dev: bool) -> Vec<Diagnosis> {
    let url = url.to_owned();
    tokio::task::spawn_blocking(move || diagnose::diagnose(&url, &settings, is_dev))
        .await
        .expect("a look does not panic and is not aborted")
}

/// See [`super::rewind`].
pub(super) async fn rewind(
    url: &str,
    settings: KafkaSettings,
    to: Timestamp,
    is_done: bool,
) -> Result<u64, ConnectError> {
    let url = url.to_owned();
    tokio::task::spawn_blocking(move || rewind::rewind(&url, &settings, to, is_done))
        .await
        .expect("a rewind does not panic and is not aborted")
}

#[derive(Default)]
struct State {
    partitions: Partitions,
    inbox: Inbox,
}

/// The state that producer, consumer and the periodic look share.
struct Shared {
    settings: KafkaSettings,
    /// Of every client; each adds its own.
    config: ClientConfig,
    state: Mutex<State>,
    /// Something arrived in the inbox, or the queue was closed.
    arrived: Notify,
    /// Something was acked; a revocation waits for it.
    acked: Condvar,
    /// Whether the last look reached the topic.
    is_reachable: AtomicBool,
    /// The setting, or less where the topic takes less.
    event_bytes_max: AtomicUsize,
    /// Largest batch that a producer fills.
    batch_bytes_max: AtomicUsize,
    /// The broker refused a size: the topic's settings are read again.
    is_limit_old: AtomicBool,
    closed: AtomicBool,
    /// Counts how often the topic was made anew; a consumer of an older one begins again.
    topics_made: AtomicU64,
    wake: Wake,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked has changed whole entries only.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Wakes threads that wait for the next look, or for a pause to end.
#[derive(Default)]
struct Wake {
    called: Mutex<u64>,
    changed: Condvar,
}

impl Wake {
    fn call(&self) {
        *lock(&self.called) += 1;
        self.changed.notify_all();
    }

    /// How often it was called; [`Wake::wait`] returns at once when it was called since.
    fn seen(&self) -> u64 {
        *lock(&self.called)
    }

    fn wait(&self, seen: u64, patience: Duration) {
        let called = lock(&self.called);
        let waited = self
            .changed
            .wait_timeout_while(called, patience, |called| *called == seen);
        drop(waited);
    }
}

/// A queue over one topic. Dropping it leaves the rest to threads of its own;
/// [`EventQueue::close`] waits for them.
pub struct KafkaQueue {
    shared: Arc<Shared>,
    publisher: Option<Arc<Publisher>>,
    consumers: Consumers,
}

impl std::fmt::Debug for KafkaQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaQueue")
            .field("topic", &self.shared.settings.topic)
            .finish_non_exhaustive()
    }
}

impl KafkaQueue {
    /// Opens the queue on the brokers of `url`, and creates the topic where it is missing. A broker
    /// that is away is no error: publishes are then refused until it is back.
    ///
    /// # Errors
    /// A setting is wrong, or the broker refuses: a password, a permission, the topic's shape.
    pub async fn open(url: &str, settings: KafkaSettings) -> Result<Self, ConnectError> {
        let config = url::client_config(url, &settings)?;
        let shared = Arc::new(Shared {
            config,
            state: Mutex::default(),
            arrived: Notify::new(),
            acked: Condvar::new(),
            is_reachable: AtomicBool::new(false),
            event_bytes_max: AtomicUsize::new(settings.event_bytes_max),
            batch_bytes_max: AtomicUsize::new(produce::BATCH_BYTES_MAX),
            is_limit_old: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            topics_made: AtomicU64::new(0),
            wake: Wake::default(),
            settings,
        });
        let publisher = if shared.settings.publishes {
            Some(make_publisher(shared.clone()).await?)
        } else {
            None
        };
        let first_look = Watch::start(shared.clone(), publisher.as_ref().map(Arc::downgrade))?;
        let queue = Self {
            consumers: Consumers::new(shared.clone()),
            shared,
            publisher,
        };
        match tokio::time::timeout(CONNECT_PATIENCE, first_look).await {
            Ok(Ok(Err(refusal))) => return Err(refusal),
            Ok(Ok(Ok(()))) => {}
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("Kafka does not answer yet; events are refused until it does");
            }
        }
        Ok(queue)
    }

    async fn offer(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        if self.shared.is_closed() {
            return Err(PublishError::Closed);
        }
        self.check(event)?;
        if !self.shared.is_reachable.load(Ordering::Relaxed) {
            return Err(PublishError::Unavailable {
                reason: "no broker answers".into(),
            });
        }
        let Some(publisher) = &self.publisher else {
            return Err(PublishError::Unavailable {
                reason: "this process only consumes".into(),
            });
        };
        let confirm = publisher.send(event.envelope())?;
        let confirm_max = self.shared.settings.confirm_max;
        match tokio::time::timeout(confirm_max, confirm).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(PublishError::Unknown {
                reason: "the producer was replaced".into(),
            }),
            Err(_) => {
                // The next publish should not wait as long for a broker that is gone.
                self.shared.wake.call();
                Err(PublishError::Unknown {
                    reason: format!("no confirm within {confirm_max:?}").into(),
                })
            }
        }
    }
}

async fn make_publisher(shared: Arc<Shared>) -> Result<Arc<Publisher>, ConnectError> {
    tokio::task::spawn_blocking(move || Publisher::start(shared))
        .await
        .expect("making a producer does not panic and is not aborted")
}

#[async_trait]
impl EventQueue for KafkaQueue {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let began = Instant::now();
        let outcome = self.offer(event).await;
        catalogue::PUBLISH_SECONDS.observe(began.elapsed().as_secs_f64(), &[outcome_label(&outcome)]);
        outcome
    }

    fn check(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let bytes = encoded_bytes_max(event.envelope());
        let bytes_max = self.shared.event_bytes_max.load(Ordering::Relaxed);
        if bytes > bytes_max {
            return Err(PublishError::TooLarge { bytes, bytes_max });
        }
        Ok(())
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        Ok(Box::new(self.consumers.begin().await?))
    }

    fn state(&self) -> QueueState {
        let state = self.shared.state();
        let is_reachable = self.shared.is_reachable.load(Ordering::Relaxed);
        QueueState {
            events: state.partitions.events(),
            oldest_received_at: state.partitions.oldest_received_at(),
            health: if is_reachable {
                QueueHealth::Ready
            } else {
                QueueHealth::Away
            },
            is_consumer_away: !is_reachable,
            // Bytes and disk are the broker's.
            ..QueueState::default()
        }
    }

    async fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.wake.call();
        self.consumers.end().await;
        if let Some(publisher) = &self.publisher {
            publisher.close().await;
        }
    }
}

impl Drop for KafkaQueue {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.wake.call();
        self.consumers.stop();
        if let Some(publisher) = &self.publisher {
            publisher.discard();
        }
    }
}
