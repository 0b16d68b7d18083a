//! The rooms of a process, built on each other: what is opened first, and what each room is given.

use super::{Roles, StoredLeases};
use crate::{
    admin::{self, AdminNeeds, AdminState, FetchKeys, HttpKeys},
    attempt::Engine,
    config::Settings,
    domain::{Clock, KeyId, Timestamp},
    jobs::Jobs,
    lifecycle::{Lifecycle, Stage},
    provider::Providers,
    queue::{self, EventQueue},
    receiver::{Receiver, ReceiverParts},
    routing::{KeyCheck, RouteTable},
    store::{self, ConnectError, Store, rotation::Instance},
    telemetry,
    vault::{Keyring, Reporter, Vault},
    worker::{self, Worker},
};
use anyhow::{Context, bail};
use std::{
    error::Error as _,
    sync::Arc,
    time::{Duration, Instant},
};

/// The shared lower rooms: store, vault, queue, routes and providers.
pub(super) struct Rooms {
    pub store: Arc<dyn Store>,
    pub vault: Arc<Vault>,
    /// `None` where no role of this process uses it.
    pub queue: Option<Arc<dyn EventQueue>>,
    pub routes: Arc<RouteTable>,
    pub clock: Arc<dyn Clock>,
    pub reporter: Reporter,
    pub jobs: Arc<Jobs>,
    /// The primary key, where the ring lacks it.
    lacks_primary: Option<KeyId>,
    providers: Providers,
}

impl Rooms {
    /// Connects to the database and the queue, and loads the routes.
    pub async fn open(
        settings: &Settings,
        keyring: Keyring,
        clock: Arc<dyn Clock>,
        roles: Roles,
    ) -> anyhow::Result<Self> {
        let store = connect_store(&settings.store.database_url, &clock).await?;
        let vault = Arc::new(Vault::new(keyring, store.clone()));
        let reporter = Reporter::new(vault.clone(), store.clone(), instance(&vault, roles, clock.now()));
        // Before anything is sealed.
        let lacks_primary = reporter.begin().await.context("the primary key could not be read")?;
        let queue = connect_queue(settings, &clock, roles).await?;
        if let Some(queue) = queue.as_ref().filter(|_| roles.worker && store.is_shared()) {
            let leases = StoredLeases::new(store.clone(), &settings.queue.amqp_prefix);
            queue.share_by(Arc::new(leases));
        }
        let routes = RouteTable::load(store.clone(), clock.clone())
            .await
            .context("the routes could not be read")?;
        let own_host = settings.receiver.public_url.as_deref().and_then(public_host);
        let providers = Providers::new(&settings.provider, own_host)?;
        Ok(Self {
            jobs: Jobs::new(store.clone()),
            store,
            vault,
            queue,
            routes,
            clock,
            reporter,
            lacks_primary,
            providers,
        })
    }

    /// Closes the files and connections again.
    pub async fn close(&self) {
        self.reporter.forget().await;
        if let Some(queue) = &self.queue {
            queue.close().await;
        }
        self.store.close().await;
    }

    /// Compares the key ring with the data keys of the database. A ring that opens none of them
    /// belongs to another database: every webhook would be refused.
    pub fn check_key_ring(&self) -> anyhow::Result<KeyCheck> {
        let check = KeyCheck::new(self.routes.clone(), self.vault.key_ids());
        let coverage = check.coverage();
        let missing = coverage.missing_keys();
        if !coverage.missing.is_empty() && coverage.openable == 0 {
            let ring: Vec<_> = self.vault.key_ids().into_iter().map(|key| key.0).collect();
            bail!(
                "the key ring belongs to another database: it has the keys {}, and this database needs {missing}; put \
                the missing key into HOOKSWITCH_KEYRING, or name the directory that `dev` made this database in",
                ring.join(", ")
            );
        }
        if let Some(key) = &self.lacks_primary {
            bail!(
                "the key ring lacks the key {key}, which this installation seals with: put it into \
                HOOKSWITCH_KEYRING; `hookswitch keys ids` names the keys of a ring"
            );
        }
        if coverage.missing.is_empty() {
            return Ok(check);
        }
        tracing::error!(
            data_keys = coverage.unopenable(),
            "The key ring lacks {missing}: what is sealed under them does not open; add them to HOOKSWITCH_KEYRING"
        );
        Ok(check)
    }

    /// `None` without a queue.
    pub fn receiver(&self, settings: &Settings) -> Option<anyhow::Result<Receiver>> {
        let receiver = Receiver::new(ReceiverParts {
            routes: self.routes.clone(),
            vault: self.vault.clone(),
            queue: self.queue.clone()?,
            store: self.store.clone(),
            clock: self.clock.clone(),
            settings: settings.receiver.clone(),
        });
        Some(receiver.map_err(Into::into))
    }

    /// `None` without a queue.
    pub fn worker(&self, settings: &Settings) -> Option<Worker> {
        let routes = self.routes.clone();
        Some(Worker {
            store: self.store.clone(),
            queue: self.queue.clone()?,
            vault: self.vault.clone(),
            providers: self.providers.clone(),
            clock: self.clock.clone(),
            settings: settings.worker.clone(),
            credentials: settings.vault.clone(),
            public_url: settings.receiver.public_url.clone(),
            clock_offset: Arc::new(move || routes.clock_offset_micros()),
            failure: worker::Failure::default(),
        })
    }

    /// The admin API's router. Without a worker in this process no credential is cached here.
    pub fn admin(
        &self,
        settings: &Settings,
        engine: Option<&Arc<Engine>>,
        receiver: Option<Receiver>,
        lifecycle: &Lifecycle,
    ) -> anyhow::Result<axum::Router> {
        let jwks = settings.admin.jwt_jwks_url.clone().map(|url| {
            let http = self.providers.http.clone();
            Arc::new(HttpKeys { http, url }) as Arc<dyn FetchKeys>
        });
        let forgetting = engine.cloned();
        let (vault, counting) = (self.vault.clone(), engine.cloned());
        let state = AdminState::new(
            settings,
            AdminNeeds {
                store: self.store.clone(),
                vault: self.vault.clone(),
                jwks,
                providers: self.providers.clone(),
                clock: self.clock.clone(),
                public_url: settings.receiver.public_url.clone(),
                drop_credentials: Arc::new(move |org| {
                    if let Some(engine) = &forgetting {
                        engine.forget_credentials_of(&[org]);
                    }
                }),
                cache_stats: Arc::new(move || {
                    let mut all = vault.cache_stats().to_vec();
                    all.extend(counting.as_ref().map(|engine| engine.cache_stats()));
                    all.extend(receiver.as_ref().map(Receiver::cache_stats));
                    all
                }),
                queue_events: {
                    let queue = self.queue.clone();
                    Arc::new(move || queue.as_ref().map(|queue| queue.state().events))
                },
                tasks: lifecycle.tracker(Stage::Intake),
                jobs: self.jobs.clone(),
                refresher: engine.map(|engine| engine.refresher()),
            },
        )?;
        lifecycle.start(Stage::Upkeep, state.clone().sample(lifecycle.soft(Stage::Upkeep)));
        Ok(admin::router(state))
    }
}

fn instance(vault: &Vault, roles: Roles, started_at: Timestamp) -> Instance {
    Instance {
        id: uuid::Uuid::now_v7(),
        name: telemetry::instance_name(),
        roles: roles.to_string(),
        ring: vault.key_ids(),
        sealing: vault.primary_key(),
        started_at,
    }
}

/// A receiver has a spool in front of the broker. A worker publishes nothing, and opens none.
async fn connect_queue(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    roles: Roles,
) -> anyhow::Result<Option<Arc<dyn EventQueue>>> {
    if !roles.use_the_queue() {
        return Ok(None);
    }
    let (url, queue, bytes_max) = (&settings.queue.queue_url, &settings.queue, event_bytes_max(settings));
    let queue = if roles.receiver {
        queue::connect_with_spool(url, queue, bytes_max, clock.clone()).await?
    } else {
        queue::connect_consumer(url, queue, bytes_max, clock.clone()).await?
    };
    Ok(Some(queue))
}

/// Time between two tries at a database that is away, and between two log lines about it.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_secs(30);

/// Connects to the database, and waits for one that is away. A process that ended instead would be
/// restarted with growing pauses, so the outage would last longer.
async fn connect_store(url: &str, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Store>, ConnectError> {
    let mut warned_at: Option<Instant> = None;
    loop {
        let error = match store::connect(url, clock.clone()).await {
            Err(error @ ConnectError::Away { .. }) => error,
            decided => return decided,
        };
        if warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            warned_at = Some(Instant::now());
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(
                cause,
                "{error}; without it no webhook can be verified, so this process is not ready; it tries again every \
                second"
            );
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// The body, and room for the attributes beside it.
pub(in crate::cli) const fn event_bytes_max(settings: &Settings) -> usize {
    settings.receiver.body_bytes_max + settings.receiver.head_bytes_max + (16 << 10)
}

/// The host of our own public URL, which `http.post` may never reach. A text without a scheme has
/// none.
fn public_host(public_url: &str) -> Option<&str> {
    let rest = public_url.split_once("://")?.1;
    Some(rest.split(['/', '?', '#']).next().unwrap_or(rest))
}
