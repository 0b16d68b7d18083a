//! RabbitMQ as the queue, by lapin: durable when a quorum queue has confirmed it.
//!
//! `queue::connect` enters. A fixed number of quorum queues holds the events. A hash of the subject
//! picks one, so that a call's events stay in order while calls run in parallel. Each queue has one
//! active consumer. **Invariant:** an event is confirmed only after the broker's own confirm of it,
//! and no wait is longer than the deadline of a publish. Why so: `docs/decisions/0009-rabbitmq.md`.

mod backoff;
mod connection;
mod consumer;
mod depths;
mod diagnose;
mod lane;
mod limits;
mod message;
mod publisher;
mod shares;
mod silence;
mod topology;
mod unacked;
mod url;

use super::{
    ConnectError, ConsumeError, Deliveries, EventQueue, PublishError, QueueHealth, QueueLeases, QueueState,
    encoded_bytes_max, outcome_label,
};
use crate::{config::QueueSettings, domain::VerifiedEvent, telemetry::catalogue};
use async_trait::async_trait;
use connection::{Fault, Link, LinkError};
use consumer::{Consumer, Consumption};
use depths::Depths;
pub(super) use diagnose::diagnose;
use publisher::Publisher;
use std::{
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topology::Topology;
use tracing::warn;
use url::Address;

/// Time for the first connection. A broker that is away does not keep a process from starting.
const FIRST_SECONDS: Duration = Duration::from_secs(10);
/// Time for the tasks to end at a close.
const CLOSE_SECONDS: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct AmqpSettings {
    /// The names of all queues begin with it.
    pub prefix: String,
    pub queues: u16,
    /// Unacked deliveries of each queue at most.
    pub prefetch: u16,
    /// The deadline of a publish.
    pub confirm_seconds_max: Duration,
    pub event_bytes_max: usize,
    /// Certificates in PEM that sign the broker's; without them those of the public authorities.
    pub ca_certificates: Option<Arc<str>>,
    /// Redeliveries after which the broker sets an event aside. So high that only a person's error
    /// reaches it: the worker counts for itself which event is poison.
    pub delivery_limit: u32,
    /// Deliveries go back to the broker after this time without an ack or a request for more, so
    /// that another process gets them.
    pub idle_seconds_max: Duration,
    /// Without it no connection for publishing is opened.
    pub publishes: bool,
    /// How long a queue that was just made gets no event: longer than the broker keeps its record
    /// in memory only.
    pub settle_seconds: Duration,
    /// A queue that has ready events and delivers none for this long gets a consumer on another
    /// connection.
    pub silent_seconds_max: Duration,
    /// How often the leases of the queues are renewed and shared out again.
    pub share_period: Duration,
    /// How often the events in the queues are counted.
    pub count_period: Duration,
}

impl Default for AmqpSettings {
    fn default() -> Self {
        Self::of(&QueueSettings::default(), 2 << 20, None)
    }
}

impl AmqpSettings {
    fn of(settings: &QueueSettings, event_bytes_max: usize, ca_certificates: Option<Arc<str>>) -> Self {
        Self {
            prefix: settings.amqp_prefix.clone(),
            queues: settings.amqp_queues,
            prefetch: settings.amqp_prefetch.max(1),
            confirm_seconds_max: settings.confirm_seconds_max,
            event_bytes_max,
            ca_certificates,
            delivery_limit: 1_000_000,
            idle_seconds_max: Duration::from_secs(30),
            publishes: true,
            settle_seconds: Duration::from_secs(5),
            silent_seconds_max: Duration::from_secs(30),
            share_period: Duration::from_secs(5),
            count_period: Duration::from_secs(2),
        }
    }

    /// The settings of the section, with the file of certificates read.
    ///
    /// # Errors
    /// That file cannot be read.
    pub async fn load(settings: &QueueSettings, event_bytes_max: usize) -> Result<Self, ConnectError> {
        let certificates = match &settings.amqp_ca_file {
            None => None,
            Some(path) => {
                let text = tokio::fs::read_to_string(path).await;
                Some(text.map_err(|source| ConnectError::Io {
                    doing: "read the certificates of HOOKSWITCH_AMQP_CA_FILE,",
                    path: path.clone(),
                    source,
                })?)
            }
        };
        Ok(Self::of(settings, event_bytes_max, certificates.map(Into::into)))
    }
}

/// The queues of one broker, open for publishing. Dropping it ends its connections at once;
/// [`EventQueue::close`] says goodbye first.
pub struct AmqpQueue {
    settings: Arc<AmqpSettings>,
    addresses: Vec<Address>,
    topology: Arc<Topology>,
    publisher: Arc<Publisher>,
    depths: Arc<Depths>,
    consumption: Arc<Consumption>,
    leases: RwLock<Option<Arc<dyn QueueLeases>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl AmqpQueue {
    /// Connects and declares the queues. A broker that is away is no error: publishes say so, and
    /// the connection is tried again for as long as the queue is open.
    ///
    /// # Errors
    /// The URL cannot be read, or the broker refuses: the user, the virtual host, or a queue of the
    /// same name with other arguments.
    pub async fn open(url: &str, settings: AmqpSettings) -> Result<Self, ConnectError> {
        let addresses = url::addresses(url)?;
        let settings = Arc::new(settings);
        let topology = Arc::new(Topology::new(&settings));
        let publisher = Arc::new(Publisher::new(topology.clone(), settings.clone()));
        let this = Self {
            addresses,
            topology,
            publisher,
            depths: Arc::new(Depths::new(settings.count_period)),
            consumption: Arc::default(),
            leases: RwLock::new(None),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            settings,
        };
        if this.settings.publishes {
            let (publisher, addresses) = (this.publisher.clone(), this.addresses.clone());
            let (depths, stop) = (this.depths.clone(), this.stop.clone());
            this.tasks
                .spawn(async move { publisher.run(addresses, depths, stop).await });
        }
        match tokio::time::timeout(FIRST_SECONDS, this.first_outcome()).await {
            Ok(Err(error)) if error.fault == Fault::Final => Err(ConnectError::Broker {
                doing: "use RabbitMQ",
                reason: error.to_string(),
            }),
            Ok(Ok(())) => Ok(this),
            Ok(Err(_)) | Err(_) => {
                warn!("RabbitMQ does not answer yet: it is tried again until it does");
                Ok(this)
            }
        }
    }

    /// The outcome of the first tries to connect. A consumer without publishing connects once for
    /// it, so that a broker that refuses is known before anything is consumed.
    async fn first_outcome(&self) -> Result<(), LinkError> {
        if self.settings.publishes {
            return self.publisher.first_outcome().await;
        }
        let mut outcome = Ok(());
        for address in &self.addresses {
            outcome = match Link::open(address, &self.settings, "hookswitch looks").await {
                Ok((link, _)) => self.topology.declare(&link).await,
                Err(error) => Err(error),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn offer(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        if self.stop.is_cancelled() {
            return Err(PublishError::Closed);
        }
        self.check_size(event)?;
        self.publisher.publish(event.envelope()).await
    }

    fn check_size(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let bytes = encoded_bytes_max(event.envelope());
        let bytes_max = self.settings.event_bytes_max;
        if bytes > bytes_max {
            return Err(PublishError::TooLarge { bytes, bytes_max });
        }
        Ok(())
    }
}

impl Drop for AmqpQueue {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl EventQueue for AmqpQueue {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let began = Instant::now();
        let outcome = self.offer(event).await;
        catalogue::PUBLISH_SECONDS.observe(began.elapsed().as_secs_f64(), &[outcome_label(&outcome)]);
        outcome
    }

    fn check(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        self.check_size(event)?;
        self.publisher.check(event.envelope())
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        if self.consumption.is_held.swap(true, Ordering::AcqRel) {
            return Err(ConsumeError::AlreadyConsumed);
        }
        let leases = self.leases.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (consumer, deliveries) = Consumer::new(
            leases,
            self.consumption.clone(),
            self.topology.clone(),
            self.settings.clone(),
            self.depths.clone(),
            self.stop.clone(),
        );
        self.tasks.spawn(consumer.run(self.addresses.clone()));
        Ok(Box::new(deliveries))
    }

    fn share_by(&self, leases: Arc<dyn QueueLeases>) {
        *self.leases.write().unwrap_or_else(PoisonError::into_inner) = Some(leases);
    }

    fn state(&self) -> QueueState {
        let has_consumer = self.depths.has_consumer.load(Ordering::Relaxed);
        QueueState {
            events: self.depths.ready() + self.consumption.unacked.len(),
            oldest_received_at: self.consumption.unacked.oldest_received_at(),
            health: if self.publisher.is_open() || (!self.settings.publishes && has_consumer) {
                QueueHealth::Ready
            } else {
                QueueHealth::Away
            },
            silent_parts: self
                .publisher
                .silent()
                .max(self.consumption.silent.load(Ordering::Relaxed)),
            is_consumer_away: !has_consumer,
            ..QueueState::default()
        }
    }

    async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(CLOSE_SECONDS, self.tasks.wait()).await;
    }
}
