//! An installation inside of the test's own process: a store, a vault, a clock and two
//! organisations, and beside them the parts that the test asks for. A part has a module here.
//!
//! The real binary is another thing, because a test shares nothing with it but its files and
//! sockets: `support::dev` starts `hookswitch dev`, `support::serve` starts `hookswitch serve`, and
//! `faults` has worlds of processes under load.

pub mod admin;
pub mod sandbox;

use super::db::Database;
use admin::{AdminApi, OPERATOR_SECRET, SECRET, nobody};
use hookswitch::{
    admin::FetchKeys,
    config::Settings,
    domain::{ManualClock, OrgId, SecretBytes, Timestamp},
    sandbox::SandboxState,
    store::Store,
    vault::{Keyring, Vault},
};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;
use std::{path::Path, sync::Arc};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The time at which its clock begins.
pub const START: Timestamp = Timestamp::from_seconds(1_764_000_000);

/// Everything is gone when it is dropped.
pub struct TestApp {
    pub settings: Settings,
    pub store: Arc<dyn Store>,
    pub vault: Arc<Vault>,
    pub clock: Arc<ManualClock>,
    pub a: OrgId,
    pub b: OrgId,
    admin: AdminApi,
    providers: Option<SandboxState>,
    database: Database,
    _stop: DropGuard,
}

/// The needs of a test.
#[derive(Default)]
pub struct TestAppBuilder {
    settings: Settings,
    public_keys: Option<Arc<dyn FetchKeys>>,
    has_provider_sandbox: bool,
}

impl TestApp {
    /// With the admin API alone. No provider answers.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    pub fn builder() -> TestAppBuilder {
        TestAppBuilder::default()
    }

    /// Where its database is.
    pub fn folder(&self) -> &Path {
        self.database.folder()
    }
}

impl TestAppBuilder {
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
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

    pub async fn start(self) -> TestApp {
        let Self {
            mut settings,
            public_keys,
            has_provider_sandbox,
        } = self;
        let stop = CancellationToken::new();
        let mut providers = None;
        if has_provider_sandbox {
            providers = Some(sandbox::start(&mut settings.provider, stop.clone()).await);
        } else if settings.provider.vapi_base_url.starts_with("https://") {
            let provider = &mut settings.provider;
            for url in [
                &mut provider.vapi_base_url,
                &mut provider.twilio_base_url,
                &mut provider.resend_base_url,
                &mut provider.elevenlabs_base_url,
            ] {
                *url = nobody().await;
            }
        }
        if public_keys.is_none() {
            settings.admin.jwt_secret = Some(SecretString::from(SECRET));
        }
        settings.admin.operator_jwt_secret = Some(SecretString::from(OPERATOR_SECRET));
        let database = Database::at(START);
        let clock = Arc::clone(&database.clock);
        let store: Arc<dyn Store> = database.open().await;
        let keyring = Keyring::from_hex(&[SecretBytes::from("11".repeat(32))]).expect("a key");
        let vault = Arc::new(Vault::new(keyring, Arc::clone(&store) as _));
        let admin = AdminApi::start(&settings, &store, &vault, &clock, public_keys, stop.clone()).await;
        let app = TestApp {
            settings,
            store,
            vault,
            clock,
            a: OrgId::generate(),
            b: OrgId::generate(),
            admin,
            providers,
            database,
            _stop: stop.drop_guard(),
        };
        for (org, name) in [(app.a, "Organisation A"), (app.b, "Organisation B")] {
            let new = json!({ "id": org, "name": name });
            app.operator(Method::POST, "/operator/organizations", &new)
                .await
                .expect(201);
        }
        app
    }
}
