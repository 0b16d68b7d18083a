//! The admin API through real HTTP, on the real store and the real vault.

mod catalog;
mod cors;
mod dead_events;
mod documents;
mod endpoints;
mod exchange;
mod integrations;
mod isolation;
mod lists;
mod openapi;
mod pages;
mod problems;
pub(crate) mod proof;
mod public_keys;
mod rules;
mod session;
mod tokens;

use hookswitch::{
    admin::{self, AdminNeeds, AdminState, FetchKeys, Role},
    cli::token::{Grant, mint_operator_token, mint_org_token},
    config::Settings,
    domain::{Clock, ManualClock, OrgId, SecretBytes, Timestamp},
    listener::{self, Limits},
    provider::Providers,
    store::{self, Store},
    vault::{Keyring, Vault},
};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub(crate) const START: Timestamp = Timestamp::from_seconds(1_764_000_000);
pub(crate) const SECRET: &str = "an organisations' test secret, 32+ bytes";
pub(crate) const OPERATOR_SECRET: &str = "an operators' test secret of 32+ bytes";

/// One server with two organisations, `a` and `b`. Everything is gone when it is dropped.
pub(crate) struct Api {
    pub(crate) base: String,
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) a: OrgId,
    pub(crate) b: OrgId,
    /// How often the caches of an organisation were dropped.
    pub(crate) dropped: Arc<AtomicUsize>,
    client: reqwest::Client,
    folder: PathBuf,
    _stop: DropGuard,
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn field(&self) -> String {
        self.json()["errors"][0]["field"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// A port on which nobody listens.
pub(crate) async fn nobody() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", socket.local_addr().unwrap())
}

impl Api {
    /// The provider's APIs are away.
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default(), None).await
    }

    pub(crate) async fn start_with(mut settings: Settings, jwks: Option<Arc<dyn FetchKeys>>) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        if settings.provider.vapi_base_url.starts_with("https://") {
            settings.provider.vapi_base_url = nobody().await;
            settings.provider.twilio_base_url = nobody().await;
            settings.provider.resend_base_url = nobody().await;
            settings.provider.elevenlabs_base_url = nobody().await;
        }
        if jwks.is_none() {
            settings.admin.jwt_secret = Some(SecretString::from(SECRET));
        }
        settings.admin.operator_jwt_secret = Some(SecretString::from(OPERATOR_SECRET));
        let clock = Arc::new(ManualClock::at(START));
        let folder = std::env::temp_dir().join(format!(
            "hookswitch-admin-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let shared: Arc<dyn Clock> = clock.clone();
        let store = store::create(&format!("sqlite:{}", folder.join("store.db").display()), shared.clone())
            .await
            .unwrap();
        let keyring = Keyring::from_hex(&[SecretBytes::from("11".repeat(32))]).unwrap();
        let vault = Arc::new(Vault::new(keyring, data_keys(&store)));
        let dropped = Arc::new(AtomicUsize::new(0));
        let counter = dropped.clone();
        let stop = CancellationToken::new();
        let needs = AdminNeeds {
            store: store.clone(),
            vault: vault.clone(),
            providers: Providers::new(&settings.provider, None).unwrap(),
            clock: shared,
            public_url: Some("https://hooks.example.com/".to_owned()),
            drop_credentials: Arc::new(move |_| {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
            tasks: TaskTracker::new(),
            jwks,
            refresher: None,
        };
        let router = admin::router(AdminState::new(&settings, needs).unwrap());
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", socket.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with the guard")]
        tokio::spawn(listener::serve(
            socket,
            router,
            Limits::default(),
            stop.clone(),
            stop.clone(),
        ));
        #[expect(clippy::disallowed_methods, reason = "a test's client")]
        let client = reqwest::Client::new();
        let (a, b) = (OrgId::generate(), OrgId::generate());
        let api = Self {
            base,
            settings,
            store,
            vault,
            clock,
            a,
            b,
            dropped,
            client,
            folder,
            _stop: stop.drop_guard(),
        };
        for (org, name) in [(a, "Organisation A"), (b, "Organisation B")] {
            api.operator(
                Method::POST,
                "/operator/organizations",
                &json!({ "id": org, "name": name }),
            )
            .await
            .expect(201);
        }
        api
    }

    /// Where its database is.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    pub(crate) fn token(&self, org: OrgId, role: Role) -> String {
        mint_org_token(&self.settings.admin, org, role, self.grant()).unwrap()
    }

    pub(crate) fn operator_token(&self) -> String {
        mint_operator_token(&self.settings.admin, self.grant()).unwrap()
    }

    fn grant(&self) -> Grant<'static> {
        Grant {
            subject: "a person",
            now: self.clock.now(),
            valid_for: Duration::from_hours(24),
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Each answer is held against the document of the API.
    pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let answer = client.execute(request).await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        openapi::check(&method, &path, status, &headers, &text);
        Answer { status, headers, text }
    }

    /// As an owner of an organisation.
    pub(crate) async fn call(&self, org: OrgId, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.call_as(org, Role::Owner, method, path, body).await
    }

    pub(crate) async fn call_as(
        &self,
        org: OrgId,
        role: Role,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let request = self.request(method, path).bearer_auth(self.token(org, role));
        Self::send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    pub(crate) async fn get(&self, org: OrgId, path: &str) -> Answer {
        self.call(org, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, org: OrgId, path: &str, body: &Value) -> Answer {
        self.call(org, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, org: OrgId, path: &str) -> Answer {
        self.call(org, Method::DELETE, path, None).await
    }

    pub(crate) async fn operator(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = self.request(method, path).bearer_auth(self.operator_token());
        Self::send(if body.is_null() { request } else { request.json(body) }).await
    }
}

fn data_keys(store: &Arc<dyn Store>) -> Arc<dyn hookswitch::store::keys::DataKeys> {
    store.clone()
}

/// A rule that can be saved.
pub(crate) fn rule(name: &str) -> Value {
    json!({
        "name": name, "source": "vapi", "event_type": "end-of-call-report", "when": "message.endedReason != \
        'customer-busy'",
        "action": "twilio.send_sms", "parameters": { "to": "{{ message.customer.number }}", "body": "Thank you for \
        calling." },
    })
}
