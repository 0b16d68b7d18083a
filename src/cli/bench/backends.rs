//! Where a run of the worker stands: the embedded store and queue, or a Postgres and a broker.

use super::{organisation_in, sides::Sides};
use crate::{
    config::Settings,
    domain::{Clock, OrgId, SystemClock, VerifiedEvent},
    queue::{
        ConsumeError, Deliveries, Delivery, DeliveryTag, EventQueue, PublishError, QueueLeases, QueueState, SpoolState,
    },
    store::{self, Store},
    vault::Vault,
};
use async_trait::async_trait;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Makes a backend for each part of a run: an organisation and a queue of its own.
pub(super) struct Backends {
    /// `None`: a SQLite file of each.
    database_url: Option<String>,
    queue_url: Option<String>,
    scratch: PathBuf,
}

pub(super) struct Backend {
    pub(super) store: Arc<dyn Store>,
    pub(super) vault: Arc<Vault>,
    pub(super) org: OrgId,
    pub(super) queue: Arc<Counted>,
}

impl Backends {
    /// Refuses a database that anyone uses: a worker works off all that it finds there.
    pub(super) async fn open(
        database_url: Option<&str>,
        queue_url: Option<&str>,
        scratch: &Path,
    ) -> anyhow::Result<Self> {
        if let Some(url) = database_url {
            anyhow::ensure!(url.starts_with("postgres"), "--database-url: expected postgres://…");
            let store = store::create(url, Arc::new(SystemClock)).await?;
            let found = store.list_organisations(None, 1).await?;
            store.close().await;
            anyhow::ensure!(
                found.is_empty(),
                "the database has organisations: name an empty one, which this run may fill"
            );
        }
        Ok(Self {
            database_url: database_url.map(str::to_owned),
            queue_url: queue_url.map(str::to_owned),
            scratch: scratch.to_owned(),
        })
    }

    pub(super) fn name(&self) -> String {
        let database = if self.database_url.is_some() {
            "Postgres"
        } else {
            "SQLite"
        };
        let queue = match self.queue_url.as_deref() {
            None => "the embedded queue",
            Some(url) if url.starts_with("kafka:") => "Kafka",
            Some(_) => "RabbitMQ",
        };
        format!("{database} and {queue}")
    }

    pub(super) async fn make(&self, name: &str) -> anyhow::Result<Backend> {
        let directory = self.scratch.join(name);
        std::fs::create_dir_all(&directory)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let url = self
            .database_url
            .clone()
            .unwrap_or_else(|| format!("sqlite:{}", directory.join("store.db").display()));
        // One key for all backends of a database.
        let (store, vault, org) = organisation_in(&url, &self.scratch.join("dev.key"), &clock).await?;
        let mut settings = Settings::default();
        settings.queue.disk_free_bytes_min = Some(64 << 20);
        let limit = crate::cli::app::event_bytes_max(&settings);
        // The third side of an ingest run is Hookswitch's own queue.
        let sides = Sides::of(self.queue_url.as_deref())?;
        let queue = sides.open(2, &directory, &settings.queue, limit, &clock).await?;
        Ok(Backend {
            store,
            vault,
            org,
            queue: Arc::new(Counted {
                queue,
                acked: Arc::default(),
            }),
        })
    }
}

/// A queue with a count of what was acked. A broker tells its own count only now and then.
pub(super) struct Counted {
    queue: Arc<dyn EventQueue>,
    acked: Arc<AtomicU64>,
}

impl Counted {
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }
}

struct CountedDeliveries {
    deliveries: Box<dyn Deliveries>,
    acked: Arc<AtomicU64>,
}

#[async_trait]
impl EventQueue for Counted {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        self.queue.publish(event).await
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        Ok(Box::new(CountedDeliveries {
            deliveries: self.queue.consume().await?,
            acked: self.acked.clone(),
        }))
    }

    fn share_by(&self, leases: Arc<dyn QueueLeases>) {
        self.queue.share_by(leases);
    }

    fn state(&self) -> QueueState {
        self.queue.state()
    }

    fn spool(&self) -> Option<SpoolState> {
        self.queue.spool()
    }

    async fn failed(&self) -> Arc<str> {
        self.queue.failed().await
    }

    async fn close(&self) {
        self.queue.close().await;
    }
}

#[async_trait]
impl Deliveries for CountedDeliveries {
    async fn next_batch(&mut self, count_max: usize) -> Result<Vec<Delivery>, ConsumeError> {
        self.deliveries.next_batch(count_max).await
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), ConsumeError> {
        self.deliveries.ack(tags).await?;
        self.acked.fetch_add(tags.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
