//! One process, put together: store, vault, queue, routes, receiver, worker, admin API, operations.
//! The only place that builds concrete backends.
//!
//! `serve`, `dev`, `bench` and tests enter. **Invariant:** two of these fit in one process: nothing
//! here is global but the metrics recorder.

mod listeners;
mod operations;
mod roles;
mod rooms;
mod shares;

pub use listeners::{Addresses, Listeners};
pub use roles::Roles;
pub(in crate::cli) use rooms::event_bytes_max;
pub use shares::StoredLeases;

use crate::{
    admin,
    assistants::AssistantManager,
    attempt::Engine,
    config::Settings,
    domain::{Clock, SystemClock},
    lifecycle::{Drained, Lifecycle, Stage},
    listener,
    queue::EventQueue,
    receiver::Receiver,
    routing::{KeyCheck, RouteTable},
    store::Store,
    telemetry::{Checks, Finding, Operations, Recorder},
    vault::{Keyring, RotationFinisher, Vault},
    worker::{self, Worker},
};
use axum::Router;
use rooms::Rooms;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

/// The parts that tests replace.
pub struct Options {
    pub clock: Arc<dyn Clock>,
    /// The roles of this process. The listeners were bound for the same roles.
    pub roles: Roles,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            roles: Roles::ALL,
        }
    }
}

/// A running process.
pub struct App {
    lifecycle: Lifecycle,
    addresses: Addresses,
    store: Arc<dyn Store>,
    queue: Option<Arc<dyn EventQueue>>,
    vault: Arc<Vault>,
    routes: Arc<RouteTable>,
    worker_failure: worker::Failure,
    leave_seconds: Duration,
}

impl App {
    /// Builds everything and starts it, lowest floor first.
    ///
    /// # Errors
    /// Names the part that could not be built, and the remedy.
    pub async fn start(
        settings: Settings,
        keyring: Keyring,
        listeners: Listeners,
        options: Options,
    ) -> anyhow::Result<Self> {
        listener::raise_file_limit();
        let recorder = Recorder::install();
        let lifecycle = Lifecycle::default();
        let starting = Starting::begin(&listeners, &recorder, &lifecycle)?;
        let Options { clock, roles } = options;
        let (rooms, keys) = open_rooms(&settings, keyring, clock, roles).await?;
        drop(starting);
        let addresses = listeners.addresses()?;
        let parts = RoleParts::build(&rooms, &settings, roles, &lifecycle)?;
        let worker_failure = parts.worker_failure();
        let operations = operations::operations(
            recorder.clone(),
            &rooms,
            operations::OperationsParts {
                receiver: parts.receiver.clone(),
                engine: parts.engine.clone(),
                keys,
                lifecycle: lifecycle.clone(),
                worker: worker_failure.clone(),
                roles,
            },
        );
        start_background(&lifecycle, &recorder, &rooms, roles);
        parts.start(&lifecycle, listeners, operations);
        let Rooms {
            store,
            vault,
            queue,
            routes,
            ..
        } = rooms;
        Ok(Self {
            lifecycle,
            addresses,
            store,
            queue,
            vault,
            routes,
            worker_failure,
            leave_seconds: settings.worker.leave_seconds,
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
    pub const fn queue(&self) -> Option<&Arc<dyn EventQueue>> {
        self.queue.as_ref()
    }

    #[must_use]
    pub const fn routes(&self) -> &Arc<RouteTable> {
        &self.routes
    }

    /// Returns only when this process can take nothing any more, with the reason for people.
    pub async fn failed(&self) -> Arc<str> {
        let queue = async {
            match &self.queue {
                Some(queue) => queue.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = queue => reason,
            reason = self.worker_failure.wait() => reason,
        }
    }

    /// Leaves for as long as the settings say. Then drains stage by stage and closes queue and
    /// store, all within `budget`: a database or a disk that hangs is left behind.
    pub async fn stop(&self, budget: Duration) -> Drained {
        self.lifecycle.leave(self.leave_seconds).await;
        let end = Instant::now() + budget;
        let drained = self.lifecycle.drain(budget.saturating_sub(CLOSE_MAX)).await;
        let closing = async {
            if let Some(queue) = &self.queue {
                queue.close().await;
            }
        };
        tokio::join!(
            close_until(end, "queue", closing),
            close_until(end, "database", self.store.close()),
        );
        drained
    }
}

/// The parts of the roles that this process has.
struct RoleParts {
    receiver: Option<Receiver>,
    worker: Option<Worker>,
    engine: Option<Arc<Engine>>,
    admin: Option<(Router, listener::Limits)>,
}

impl RoleParts {
    fn build(rooms: &Rooms, settings: &Settings, roles: Roles, lifecycle: &Lifecycle) -> anyhow::Result<Self> {
        let receiver = if roles.receiver {
            rooms.receiver(settings).transpose()?
        } else {
            None
        };
        let worker = rooms.worker(settings).filter(|_| roles.worker);
        let engine = worker.as_ref().map(|worker| Arc::new(worker.engine()));
        let admin = if roles.admin {
            let router = rooms.admin(settings, engine.as_ref(), receiver.clone(), lifecycle)?;
            Some((router, admin::limits(&settings.admin)))
        } else {
            None
        };
        Ok(Self {
            receiver,
            worker,
            engine,
            admin,
        })
    }

    fn worker_failure(&self) -> worker::Failure {
        self.worker
            .as_ref()
            .map(|worker| worker.failure.clone())
            .unwrap_or_default()
    }

    fn start(self, lifecycle: &Lifecycle, listeners: Listeners, operations: Operations) {
        if let Some((worker, engine)) = self.worker.zip(self.engine) {
            start_worker(lifecycle, worker, engine);
        }
        let servers = Servers {
            admin: self.admin,
            receiver: self.receiver,
            operations,
        };
        servers.start(lifecycle, listeners);
    }
}

/// Opens the rooms, and checks the key ring against the data keys of the store.
async fn open_rooms(
    settings: &Settings,
    keyring: Keyring,
    clock: Arc<dyn Clock>,
    roles: Roles,
) -> anyhow::Result<(Rooms, Arc<KeyCheck>)> {
    let rooms = Rooms::open(settings, keyring, clock, roles).await?;
    match rooms.check_key_ring() {
        Ok(check) => Ok((rooms, Arc::new(check))),
        Err(error) => {
            // The files are free again when the caller reads the error.
            rooms.close().await;
            Err(error)
        }
    }
}

/// What no request waits for. Jobs and rotations are gone on with in every process that could have
/// begun one, or that works.
fn start_background(lifecycle: &Lifecycle, recorder: &Recorder, rooms: &Rooms, roles: Roles) {
    let upkeep = || lifecycle.soft(Stage::Upkeep);
    lifecycle.start(Stage::Upkeep, recorder.clone().run_upkeep(upkeep()));
    lifecycle.start(Stage::Upkeep, rooms.routes.clone().run(upkeep()));
    let changes = rooms.store.config_changes();
    lifecycle.start(Stage::Upkeep, rooms.reporter.clone().run(changes, upkeep()));
    if roles.admin || roles.worker {
        let work = || lifecycle.soft(Stage::Work);
        let finisher = RotationFinisher::new(rooms.vault.clone(), rooms.store.clone());
        lifecycle.start(Stage::Work, finisher.run(work()));
        lifecycle.start(Stage::Work, rooms.jobs.clone().run(work()));
    }
}

/// Attempts, and beside them the refreshes and the looks at kept assistants: all share the time of
/// a drain.
fn start_worker(lifecycle: &Lifecycle, worker: Worker, engine: Arc<Engine>) {
    let soft = || lifecycle.soft(Stage::Work);
    lifecycle.start(Stage::Work, engine.refresher().run(soft()));
    let assistants = Arc::new(AssistantManager::new(
        worker.store.clone(),
        worker.vault.clone(),
        worker.providers.vapi.clone(),
        worker.clock.clone(),
        worker.public_url.clone(),
    ));
    lifecycle.start(Stage::Work, assistants.run(soft()));
    lifecycle.start(Stage::Work, worker.run_with(engine, soft(), lifecycle.hard()));
}

/// The routers of the listeners of this process.
struct Servers {
    admin: Option<(Router, listener::Limits)>,
    receiver: Option<Receiver>,
    operations: Operations,
}

impl Servers {
    fn start(self, lifecycle: &Lifecycle, listeners: Listeners) {
        let serve = |stage, socket, router, limits| {
            let server = listener::serve(socket, router, limits, lifecycle.soft(stage), lifecycle.hard());
            lifecycle.start(stage, server);
        };
        if let Some((socket, (router, limits))) = listeners.admin.zip(self.admin) {
            serve(Stage::Intake, socket, router, limits);
        }
        // Operations end last, so that a drain can be watched.
        let operations = self.operations.router();
        serve(Stage::Upkeep, listeners.operations, operations, internal("operations"));
        if let Some((socket, receiver)) = listeners.ingress.zip(self.receiver) {
            let background = receiver.clone().run_background(lifecycle.soft(Stage::Upkeep));
            lifecycle.start(Stage::Upkeep, background);
            let limits = listener::Limits {
                leaving: lifecycle.leaving(),
                ..receiver.limits()
            };
            serve(Stage::Intake, socket, receiver.router(), limits);
        }
    }
}

/// The part of a stop's time that is kept for closing queue and store, and for what a hard stop cut
/// off to notice it.
const CLOSE_MAX: Duration = Duration::from_secs(1);

async fn close_until(end: Instant, name: &str, close: impl Future<Output = ()>) {
    if tokio::time::timeout_at(end, close).await.is_err() {
        tracing::warn!("The {name} did not close before the stop's deadline; its state is read at the next start");
    }
}

/// Answers on the operations socket until everything is loaded: the process lives, and is not
/// ready. Ends when it is dropped.
struct Starting {
    _stop: DropGuard,
}

impl Starting {
    fn begin(listeners: &Listeners, recorder: &Recorder, lifecycle: &Lifecycle) -> anyhow::Result<Self> {
        let socket = listeners.operations_while_starting()?;
        let checks = Checks::default().with("process", || {
            std::future::ready(Finding::failed(
                "the process is starting: it waits for the database, or loads the routes",
            ))
        });
        let router = Operations::new(recorder.clone(), checks).router();
        let stop = lifecycle.hard().child_token();
        let limits = listener::Limits {
            hands_over: true,
            ..internal("operations")
        };
        // What it has accepted is answered, also when everything is loaded meanwhile.
        let server = listener::serve(socket, router, limits, stop.clone(), lifecycle.hard());
        lifecycle.start(Stage::Upkeep, server);
        Ok(Self {
            _stop: stop.drop_guard(),
        })
    }
}

/// Limits of the listeners that people and machines of the installation use.
fn internal(name: &'static str) -> listener::Limits {
    listener::Limits {
        name,
        ..listener::Limits::default()
    }
}
