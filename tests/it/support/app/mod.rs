//! An installation inside of the test's own process: a store, a vault, a clock and two
//! organisations, and beside them the parts that the test asks for. A part has a module here.
//!
//! The real binary is another thing, because a test shares nothing with it but its files and
//! sockets: `support::dev` starts `hookswitch dev`, `support::serve` starts `hookswitch serve`, and
//! `faults` has worlds of processes under load.

pub mod admin;
pub mod ingress;
pub mod sandbox;
pub mod twilio;
pub mod worker;

use super::db::{Database, NOW};
use admin::{AdminApi, OPERATOR_SECRET, SECRET, nobody};
use hookswitch::{
    admin::FetchKeys,
    config::{ProviderSettings, ReceiverSettings, Settings},
    domain::{Clock, ManualClock, OrgId, SecretBytes, SystemClock, Timestamp},
    queue::EventQueue,
    sandbox::SandboxState,
    store::{
        Store,
        audit::{AuditEntry, Changes},
    },
    vault::{Keyring, Vault},
};
use ingress::{Ingress, IngressNeeds, Tenant};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{path::Path, sync::Arc, time::Duration};
use tokio_util::sync::{CancellationToken, DropGuard};
use worker::Work;

/// The time at which its clock begins, where nothing is received.
pub const START: Timestamp = Timestamp::from_seconds(1_764_000_000);

/// Everything is gone when it is dropped.
pub struct TestApp {
    pub settings: Settings,
    pub store: Arc<dyn Store>,
    pub vault: Arc<Vault>,
    pub clock: Arc<TestClock>,
    pub a: OrgId,
    pub b: OrgId,
    admin: Option<AdminApi>,
    ingress: Option<Ingress>,
    work: Option<Work>,
    providers: Option<SandboxState>,
    database: Database,
    _stop: DropGuard,
}

/// The clock of store, admin API and receiver: the test sets it, unless there is a worker.
pub enum TestClock {
    Manual(Arc<ManualClock>),
    System(SystemClock),
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        match self {
            Self::Manual(clock) => clock.now(),
            Self::System(clock) => clock.now(),
        }
    }
}

impl TestClock {
    fn manual(&self) -> &ManualClock {
        match self {
            Self::Manual(clock) => clock,
            Self::System(_) => panic!("with a worker the system's clock runs"),
        }
    }

    pub fn advance(&self, by: Duration) {
        self.manual().advance(by);
    }

    pub fn set(&self, now: Timestamp) {
        self.manual().set(now);
    }
}

fn vault(store: &Arc<dyn Store>) -> Arc<Vault> {
    let keyring = Keyring::from_hex(&[SecretBytes::from("11".repeat(32))]).expect("a key");
    Arc::new(Vault::new(keyring, Arc::clone(store) as _))
}

/// The needs of a test.
#[derive(Default)]
pub struct TestAppBuilder {
    settings: Settings,
    has_admin: bool,
    public_keys: Option<Arc<dyn FetchKeys>>,
    has_provider_sandbox: bool,
    receiver: Option<ReceiverSettings>,
    through: Option<Arc<dyn EventQueue>>,
    clock_ahead: Duration,
    has_worker: bool,
    store: Option<Arc<dyn Store>>,
}

impl TestApp {
    /// With the admin API alone. No provider answers.
    pub async fn start() -> Self {
        Self::builder().admin().start().await
    }

    pub fn builder() -> TestAppBuilder {
        TestAppBuilder::default()
    }

    /// Through the admin API where there is one.
    async fn create_organisation(&self, org: OrgId, name: &str) {
        if self.admin.is_some() {
            let new = json!({ "id": org, "name": name });
            self.operator(Method::POST, "/operator/organizations", &new)
                .await
                .expect(201);
            return;
        }
        let audit = AuditEntry {
            org,
            at: self.clock.now(),
            actor: "test".to_owned(),
            verb: "create",
            target_kind: "organization",
            target_id: org.to_string(),
            changes: Changes::default(),
            address: None,
        };
        self.store.create_organisation(org, name, audit).await.expect("created");
    }

    /// Where its database is.
    pub fn folder(&self) -> &Path {
        self.database.folder()
    }

    /// A connection to its database behind the store's back.
    pub async fn open_database(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.folder().join("store.db"));
        SqliteConnection::connect_with(&options).await.expect("opens")
    }
}

impl TestAppBuilder {
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The admin API, also beside a receiver or a worker; alone it is there anyway. No provider
    /// answers, unless there is a sandbox.
    pub fn admin(mut self) -> Self {
        self.has_admin = true;
        self
    }

    /// The tokens of organisations are signed with keys of this source, in the place of a secret.
    pub fn public_keys(mut self, source: Arc<dyn FetchKeys>) -> Self {
        self.public_keys = Some(source);
        self
    }

    /// Stand-ins for all providers, with the accounts of [`sandbox::accounts`].
    pub fn provider_sandbox(mut self) -> Self {
        self.has_provider_sandbox = true;
        self
    }

    /// A receiver. Its clock begins at [`NOW`], when the senders sign.
    pub fn receiver(mut self, settings: ReceiverSettings) -> Self {
        self.receiver = Some(settings);
        self
    }

    /// The receiver publishes to this queue, and the admin API knows its depth.
    pub fn through(mut self, queue: Arc<dyn EventQueue>) -> Self {
        self.through = Some(queue);
        self
    }

    /// The receiver's clock is ahead of the database's.
    pub fn clock_ahead(mut self, by: Duration) -> Self {
        self.clock_ahead = by;
        self
    }

    /// A store of the caller's, in the place of a SQLite file.
    pub fn over(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    pub async fn start_with_senders(self) -> (TestApp, [Tenant; 2]) {
        let app = self.start().await;
        let senders = app.senders();
        (app, senders)
    }

    pub async fn start(self) -> TestApp {
        let Self {
            mut settings,
            has_admin,
            public_keys,
            has_provider_sandbox,
            receiver,
            through,
            clock_ahead,
            has_worker,
            store,
        } = self;
        let has_admin = has_admin || (receiver.is_none() && !has_worker);
        let stop = CancellationToken::new();
        let providers = provider_sandbox(&mut settings.provider, has_provider_sandbox, stop.clone()).await;
        if public_keys.is_none() {
            settings.admin.jwt_secret = Some(SecretString::from(SECRET));
        }
        settings.admin.operator_jwt_secret = Some(SecretString::from(OPERATOR_SECRET));
        let database = Database::at(if receiver.is_some() { NOW } else { START });
        let clock = Arc::new(if has_worker {
            TestClock::System(SystemClock)
        } else {
            TestClock::Manual(Arc::clone(&database.clock))
        });
        let store = match store {
            Some(store) => store,
            None => database.open_by(Arc::clone(&clock) as Arc<dyn Clock>).await,
        };
        let vault = vault(&store);
        let (a, b) = (OrgId::generate(), OrgId::generate());
        let mut admin = None;
        if has_admin {
            let queue = through.clone();
            admin = Some(AdminApi::start(&settings, &store, &vault, &clock, public_keys, queue, stop.clone()).await);
        }
        let mut work = None;
        if has_worker {
            work = Some(Work::new().await);
        }
        let mut app = TestApp {
            settings,
            store,
            vault,
            clock,
            a,
            b,
            admin,
            ingress: None,
            work,
            providers,
            database,
            _stop: stop.clone().drop_guard(),
        };
        for (org, name) in [(a, "Organisation A"), (b, "Organisation B")] {
            app.create_organisation(org, name).await;
        }
        if let Some(settings) = receiver {
            let clock: Arc<dyn Clock> = if clock_ahead.is_zero() {
                Arc::clone(&app.clock) as Arc<dyn Clock>
            } else {
                Arc::new(ManualClock::at(NOW + clock_ahead))
            };
            let needs = IngressNeeds {
                settings,
                through,
                clock,
            };
            app.ingress = Some(Ingress::start(needs, &app.store, &app.vault, [a, b], stop).await);
        }
        app
    }
}

/// Points the settings at stand-ins for the providers, or at addresses where nobody listens.
async fn provider_sandbox(
    provider: &mut ProviderSettings,
    is_wanted: bool,
    stop: CancellationToken,
) -> Option<SandboxState> {
    if is_wanted {
        return Some(sandbox::start(provider, stop).await);
    }
    if provider.vapi_base_url.starts_with("https://") {
        for url in [
            &mut provider.vapi_base_url,
            &mut provider.twilio_base_url,
            &mut provider.resend_base_url,
            &mut provider.elevenlabs_base_url,
        ] {
            *url = nobody().await;
        }
    }
    None
}
