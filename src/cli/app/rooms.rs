//! The rooms of a process, built on each other: what is opened first, and what each room is given.

use crate::{
    admin::{self, AdminNeeds, AdminState, FetchKeys, HttpKeys},
    attempt::Engine,
    config::Settings,
    domain::Clock,
    lifecycle::{Lifecycle, Stage},
    provider::Providers,
    queue::{self, EventQueue},
    receiver::{Receiver, ReceiverParts},
    routing::RouteTable,
    store::{self, Store},
    vault::{Keyring, Vault},
    worker::{self, Worker},
};
use anyhow::Context;
use std::sync::Arc;

/// The shared lower rooms: store, vault, queue, routes and providers.
pub(super) struct Rooms {
    pub store: Arc<dyn Store>,
    pub vault: Arc<Vault>,
    pub queue: Arc<dyn EventQueue>,
    pub routes: Arc<RouteTable>,
    pub clock: Arc<dyn Clock>,
    providers: Providers,
}

impl Rooms {
    /// Connects to the database and the queue, and loads the routes.
    pub async fn open(settings: &Settings, keyring: Keyring, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let store = store::connect(&settings.store.database_url, clock.clone()).await?;
        let vault = Arc::new(Vault::new(keyring, store.clone()));
        let queue = queue::connect(
            &settings.queue.queue_url,
            &settings.queue,
            event_bytes_max(settings),
            clock.clone(),
        )
        .await?;
        let routes = RouteTable::load(store.clone(), clock.clone())
            .await
            .context("the routes could not be read")?;
        let own_host = settings.receiver.public_url.as_deref().and_then(public_host);
        let providers = Providers::new(&settings.provider, own_host)?;
        Ok(Self {
            store,
            vault,
            queue,
            routes,
            clock,
            providers,
        })
    }

    pub fn receiver(&self, settings: &Settings) -> anyhow::Result<Receiver> {
        Ok(Receiver::new(ReceiverParts {
            routes: self.routes.clone(),
            vault: self.vault.clone(),
            queue: self.queue.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            settings: settings.receiver.clone(),
        })?)
    }

    pub fn worker(&self, settings: &Settings) -> Worker {
        let routes = self.routes.clone();
        Worker {
            store: self.store.clone(),
            queue: self.queue.clone(),
            vault: self.vault.clone(),
            providers: self.providers.clone(),
            clock: self.clock.clone(),
            settings: settings.worker.clone(),
            credentials: settings.vault.clone(),
            public_url: settings.receiver.public_url.clone(),
            clock_offset: Arc::new(move || routes.clock_offset_micros()),
            failure: worker::Failure::default(),
        }
    }

    /// The admin API's router.
    pub fn admin(
        &self,
        settings: &Settings,
        engine: &Arc<Engine>,
        lifecycle: &Lifecycle,
    ) -> anyhow::Result<axum::Router> {
        let jwks = settings.admin.jwt_jwks_url.clone().map(|url| {
            let http = self.providers.http.clone();
            Arc::new(HttpKeys { http, url }) as Arc<dyn FetchKeys>
        });
        let forgetting = engine.clone();
        let state = AdminState::new(
            settings,
            AdminNeeds {
                store: self.store.clone(),
                vault: self.vault.clone(),
                jwks,
                providers: self.providers.clone(),
                clock: self.clock.clone(),
                public_url: settings.receiver.public_url.clone(),
                drop_credentials: Arc::new(move |org| forgetting.forget_credentials_of(org)),
                tasks: lifecycle.tracker(Stage::Intake),
                refresher: Some(engine.refresher()),
            },
        )?;
        Ok(admin::router(state))
    }
}

/// The embedded queue's limits.
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
