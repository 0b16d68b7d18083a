//! One process, put together: store, vault, queue, routes, receiver, worker, admin API, operations.
//! The only place that builds concrete backends.
//!
//! `serve`, `dev`, `bench` and tests enter. **Invariant:** two of these fit in one process: nothing
//! here is global but the metrics recorder.

use crate::{
    admin::{self, AdminNeeds, AdminState, FetchKeys, HttpKeys},
    config::Settings,
    domain::{Clock, SystemClock},
    lifecycle::{Drained, Lifecycle, Stage},
    listener,
    provider::Providers,
    queue::{self, EventQueue, LogSettings, QueueHealth},
    receiver::{Parts, Receiver},
    routing::RouteTable,
    store::{self, Store},
    telemetry::{self, Checks, Finding, Operations, Recorder, catalogue},
    vault::{Keyring, Vault},
    worker::Worker,
};
use anyhow::Context;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// The three listeners of a process, bound before anything else is begun: a port in use is told at
/// once.
pub struct Listeners {
    ingress: TcpListener,
    admin: TcpListener,
    operations: TcpListener,
}

#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
    pub operations: SocketAddr,
}

impl Listeners {
    /// Binds what the settings name; port 0 takes any.
    ///
    /// # Errors
    /// Which setting's address cannot be listened on, and why.
    pub async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            ingress: listen(&settings.receiver.ingress_address, "HOOKSWITCH_INGRESS_ADDRESS").await?,
            admin: listen(&settings.admin.admin_address, "HOOKSWITCH_ADMIN_ADDRESS").await?,
            operations: listen(&settings.admin.operations_address, "HOOKSWITCH_OPERATIONS_ADDRESS").await?,
        })
    }
}

pub(super) async fn listen(address: &str, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| {
            format!(
                "cannot listen on {address} \
        ({setting})"
            )
        })
        .map_err(|error| match error.downcast_ref::<std::io::Error>() {
            Some(io) if io.kind() == std::io::ErrorKind::AddrInUse => {
                anyhow::anyhow!(
                    "cannot listen on {address} ({setting}): the port is in use; stop what holds it, or \
                    choose another (`dev` has --port-base)"
                )
            }
            _ => error,
        })
}

/// What tests put in the place of the real thing.
pub struct Options {
    pub clock: Arc<dyn Clock>,
    /// Without a worker events stay in the queue.
    pub has_worker: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            has_worker: true,
        }
    }
}

/// A running process.
pub struct App {
    lifecycle: Lifecycle,
    addresses: Addresses,
    store: Arc<dyn Store>,
    queue: Arc<dyn EventQueue>,
    vault: Arc<Vault>,
    routes: Arc<RouteTable>,
}

impl App {
    /// Builds everything and starts it, lowest floor first.
    ///
    /// # Errors
    /// What could not be built, with what to do.
    pub async fn start(
        settings: Settings,
        keyring: Keyring,
        listeners: Listeners,
        options: Options,
    ) -> anyhow::Result<Self> {
        let Options { clock, has_worker } = options;
        listener::raise_file_limit();
        let recorder = Recorder::install();
        let lifecycle = Lifecycle::default();
        let store = store::connect(&settings.store.database_url, clock.clone()).await?;
        let vault = Arc::new(Vault::new(keyring, store.clone()));
        let queue = queue::connect(&settings.queue.queue_url, log_settings(&settings), clock.clone()).await?;
        let routes = RouteTable::load(store.clone(), clock.clone())
            .await
            .context("the routes could not be read")?;
        let public_url = settings.receiver.public_url.clone();
        let providers = Providers::new(&settings.provider, public_host(public_url.as_deref()).as_deref())?;
        let addresses = Addresses {
            ingress: listeners.ingress.local_addr()?,
            admin: listeners.admin.local_addr()?,
            operations: listeners.operations.local_addr()?,
        };

        let receiver = Receiver::new(Parts {
            routes: routes.clone(),
            vault: vault.clone(),
            queue: queue.clone(),
            store: store.clone(),
            clock: clock.clone(),
            settings: settings.receiver.clone(),
        })?;
        let worker = Worker {
            store: store.clone(),
            queue: queue.clone(),
            vault: vault.clone(),
            providers: providers.clone(),
            clock: clock.clone(),
            settings: settings.worker.clone(),
            credentials: settings.vault.clone(),
            public_url: public_url.clone(),
        };
        let engine = Arc::new(worker.engine());
        let admin = AdminState::new(
            &settings,
            AdminNeeds {
                store: store.clone(),
                vault: vault.clone(),
                jwks: settings.admin.jwt_jwks_url.clone().map(|url| {
                    Arc::new(HttpKeys {
                        http: providers.http.clone(),
                        url,
                    }) as Arc<dyn FetchKeys>
                }),
                providers,
                clock: clock.clone(),
                public_url,
                drop_credentials: {
                    let engine = engine.clone();
                    Arc::new(move |org| engine.forget_credentials_of(org))
                },
                tasks: lifecycle.tracker(Stage::Intake),
                refresher: Some(engine.refresher()),
            },
        )?;
        let operations = operations(recorder.clone(), &store, &queue, &routes, &receiver, clock).gather({
            let (receiver, vault, engine) = (receiver.clone(), vault.clone(), engine.clone());
            move || {
                receiver.gather_gauges();
                if let Some(bytes) = telemetry::resident_bytes() {
                    catalogue::PROCESS_RESIDENT_BYTES.set(bytes as f64, &[]);
                }
                vault.gather_gauges();
                engine.gather_gauges();
            }
        });

        let (soft, hard) = (|stage| lifecycle.soft(stage), lifecycle.hard());
        lifecycle.start(Stage::Upkeep, engine.refresher().run(soft(Stage::Upkeep)));
        lifecycle.start(Stage::Upkeep, recorder.run_upkeep(soft(Stage::Upkeep)));
        lifecycle.start(Stage::Upkeep, routes.clone().run(soft(Stage::Upkeep)));
        lifecycle.start(Stage::Upkeep, receiver.clone().run_background(soft(Stage::Upkeep)));
        if has_worker {
            lifecycle.start(Stage::Work, worker.run_with(engine, soft(Stage::Work), hard.clone()));
        }
        let internal = |name| listener::Limits {
            name,
            ..listener::Limits::default()
        };
        lifecycle.start(
            Stage::Intake,
            listener::serve(
                listeners.admin,
                admin::router(admin),
                internal("admin"),
                soft(Stage::Intake),
                hard.clone(),
            ),
        );
        // Until the end, so that a drain can be watched.
        lifecycle.start(
            Stage::Upkeep,
            listener::serve(
                listeners.operations,
                operations.router(),
                internal("operations"),
                soft(Stage::Upkeep),
                hard.clone(),
            ),
        );
        lifecycle.start(
            Stage::Intake,
            listener::serve(
                listeners.ingress,
                receiver.router(),
                receiver.limits(),
                soft(Stage::Intake),
                hard,
            ),
        );
        Ok(Self {
            lifecycle,
            addresses,
            store,
            queue,
            vault,
            routes,
        })
    }

    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    #[must_use]
    pub const fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    #[must_use]
    pub const fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    #[must_use]
    pub const fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    #[must_use]
    pub const fn queue(&self) -> &Arc<dyn EventQueue> {
        &self.queue
    }

    #[must_use]
    pub const fn routes(&self) -> &Arc<RouteTable> {
        &self.routes
    }

    /// Returns only when this process can take nothing any more, with the reason for people.
    pub async fn failed(&self) -> Arc<str> {
        self.queue.failed().await
    }

    /// Drains stage by stage, then closes queue and store.
    pub async fn stop(&self, budget: Duration) -> Drained {
        let drained = self.lifecycle.drain(budget).await;
        self.queue.close().await;
        self.store.close().await;
        drained
    }
}

pub(super) fn log_settings(settings: &Settings) -> LogSettings {
    LogSettings {
        bytes_max: settings.queue.queue_bytes_max,
        segment_bytes: settings.queue.segment_bytes,
        // The body, and room for the attributes beside it.
        event_bytes_max: settings.receiver.body_bytes_max + settings.receiver.head_bytes_max + (16 << 10),
        disk_free_bytes_min: settings.queue.disk_free_bytes_min,
    }
}

/// The host that `http.post` may never reach: our own.
fn public_host(public_url: Option<&str>) -> Option<String> {
    let rest = public_url?.split_once("://")?.1;
    Some(rest.split(['/', '?', '#']).next().unwrap_or(rest).to_owned())
}

/// Checks for `/readyz`, and gauges that are gathered at each scrape.
fn operations(
    recorder: Recorder,
    store: &Arc<dyn Store>,
    queue: &Arc<dyn EventQueue>,
    routes: &Arc<RouteTable>,
    receiver: &Receiver,
    clock: Arc<dyn Clock>,
) -> Operations {
    let checks = Checks::default()
        .with("queue", {
            let queue = queue.clone();
            move || {
                let state = queue.state();
                async move {
                    match state.health {
                        QueueHealth::Ready => Finding::ok(),
                        QueueHealth::Refusing => Finding::degraded("the queue or its disk is full: senders get 503"),
                        QueueHealth::Failed => Finding::failed("the log failed; the process has to be started again"),
                    }
                }
            }
        })
        .with("database", {
            let store = store.clone();
            move || {
                let store = store.clone();
                async move {
                    store.ping().await.map_or_else(
                        |_| Finding::degraded("the database does not answer: ingress goes on, work waits"),
                        |()| Finding::ok(),
                    )
                }
            }
        })
        .with("routes", {
            let routes = routes.clone();
            move || {
                let age = routes.age();
                async move {
                    if age < Duration::from_secs(10) {
                        Finding::ok()
                    } else {
                        Finding::degraded("the route snapshot is older than 10 seconds")
                    }
                }
            }
        })
        .with("clock", {
            let routes = routes.clone();
            move || {
                let offset = Duration::from_micros(routes.clock_offset_micros().unsigned_abs());
                async move {
                    // Invariant 16: beyond a minute "too old" might be our own mistake.
                    if offset > Duration::from_mins(1) {
                        Finding::failed("our clock and the database's differ by more than a minute")
                    } else if offset > Duration::from_secs(5) {
                        Finding::degraded("our clock and the database's differ by more than 5 seconds")
                    } else {
                        Finding::ok()
                    }
                }
            }
        })
        .with("ingress", {
            let listener = receiver.listener_state();
            move || {
                let is_full = listener.is_full();
                async move {
                    if is_full {
                        Finding::degraded("no further connection is taken for now")
                    } else {
                        Finding::ok()
                    }
                }
            }
        });
    let (queue, routes, ledger) = (queue.clone(), routes.clone(), store.clone());
    let ledger_clock = clock.clone();
    for metric in [
        catalogue::QUARANTINE_OLDEST_SECONDS,
        catalogue::SPOOL_OLDEST_SECONDS,
        catalogue::SPOOL_FILL_RATIO,
        catalogue::PAUSED,
    ] {
        metric.set(0.0, &[]);
    }
    catalogue::BUILD_INFO.set(1.0, &[env!("CARGO_PKG_VERSION")]);
    Operations::new(recorder, checks)
        .gather(move || {
            let state = queue.state();
            catalogue::QUEUE_EVENTS.set(state.events as f64, &[]);
            catalogue::QUEUE_BYTES.set(state.bytes as f64, &[]);
            catalogue::QUEUE_OLDEST_SECONDS.set(
                state
                    .oldest_received_at
                    .map_or(0.0, |at| clock.now().since(at).as_secs_f64()),
                &[],
            );
            if let Some(free) = state.disk_free_bytes {
                catalogue::DISK_FREE_BYTES.set(free as f64, &[]);
            }
            catalogue::ROUTES.set(routes.routes_len() as f64, &[]);
            catalogue::ROUTE_SNAPSHOT_AGE_SECONDS.set(routes.age().as_secs_f64(), &[]);
            catalogue::CLOCK_OFFSET_SECONDS.set(routes.clock_offset_micros() as f64 / 1e6, &[]);
        })
        .gather_async(move || {
            let (store, clock) = (ledger.clone(), ledger_clock.clone());
            async move {
                // A database that is away leaves these gauges as they were; the check says so.
                let Ok(state) = store.ledger_state().await else { return };
                let now = clock.now();
                for provider in crate::domain::Provider::ALL {
                    let oldest = state
                        .oldest_due_at
                        .iter()
                        .find(|(p, _)| p == provider)
                        .map_or(0.0, |(_, at)| now.since(*at).as_secs_f64());
                    catalogue::ACTIONS_OLDEST_DUE_SECONDS.set(oldest, &[provider.as_str()]);
                }
                catalogue::ACTIONS_UNKNOWN_OLDEST_SECONDS.set(
                    state.oldest_unknown_at.map_or(0.0, |at| now.since(at).as_secs_f64()),
                    &[],
                );
                for (label, count) in [
                    ("parked", state.parked),
                    ("unknown", state.unknown),
                    ("dead", state.dead),
                ] {
                    catalogue::ACTIONS_STUCK.set(count as f64, &[label]);
                }
            }
        })
}
