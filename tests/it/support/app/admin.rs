//! The admin API of a [`TestApp`] over real HTTP, called by people with tokens.

use super::{TestApp, TestClock};
use crate::admin::openapi;
use hookswitch::{
    admin::{self, AdminNeeds, AdminState, FetchKeys, Role},
    cli::token::{Grant, mint_operator_token, mint_org_token},
    config::Settings,
    domain::{Clock, OrgId},
    jobs::Jobs,
    listener,
    provider::Providers,
    queue::EventQueue,
    store::Store,
    vault::Vault,
};
use reqwest::Method;
use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub const SECRET: &str = "an organisations' test secret, 32+ bytes";
pub const OPERATOR_SECRET: &str = "an operators' test secret of 32+ bytes";

/// The API as it listens.
pub(super) struct AdminApi {
    base: String,
    dropped: Arc<AtomicUsize>,
    client: reqwest::Client,
}

impl AdminApi {
    pub async fn start(
        settings: &Settings,
        store: &Arc<dyn Store>,
        vault: &Arc<Vault>,
        clock: &Arc<TestClock>,
        jwks: Option<Arc<dyn FetchKeys>>,
        queue: Option<Arc<dyn EventQueue>>,
        stop: CancellationToken,
    ) -> Self {
        let dropped = Arc::new(AtomicUsize::new(0));
        let jobs = Jobs::new(store.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the token")]
        tokio::spawn(jobs.clone().run(stop.clone()));
        let counter = dropped.clone();
        let needs = AdminNeeds {
            store: store.clone(),
            vault: vault.clone(),
            providers: Providers::new(&settings.provider, None).unwrap(),
            clock: clock.clone(),
            public_url: Some("https://hooks.example.com/".to_owned()),
            drop_credentials: Arc::new(move |_| {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
            cache_stats: {
                let vault = vault.clone();
                Arc::new(move || vault.cache_stats().to_vec())
            },
            queue_events: Arc::new(move || queue.as_ref().map(|queue| queue.state().events)),
            tasks: TaskTracker::new(),
            jobs,
            jwks,
            refresher: None,
        };
        let router = admin::router(AdminState::new(settings, needs).unwrap());
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", socket.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with the token")]
        tokio::spawn(listener::serve(
            socket,
            router,
            admin::limits(&settings.admin),
            stop.clone(),
            stop,
        ));
        #[expect(clippy::disallowed_methods, reason = "a test's client")]
        let client = reqwest::Client::new();
        Self { base, dropped, client }
    }
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Empty where the answer is no problem.
    pub fn code_if_any(&self) -> String {
        let body: Value = serde_json::from_str(&self.text).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn field(&self) -> String {
        self.json()["errors"][0]["field"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// A port on which nobody listens.
pub async fn nobody() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", socket.local_addr().unwrap())
}

impl TestApp {
    fn admin(&self) -> &AdminApi {
        self.admin.as_ref().expect("built with `admin`")
    }

    /// Scheme, host and port of the API.
    pub fn base(&self) -> &str {
        &self.admin().base
    }

    /// How often the caches of an organisation were dropped.
    pub fn dropped(&self) -> usize {
        self.admin().dropped.load(Ordering::SeqCst)
    }

    pub fn token(&self, org: OrgId, role: Role) -> String {
        mint_org_token(&self.settings.admin, org, role, self.grant()).unwrap()
    }

    pub fn operator_token(&self) -> String {
        mint_operator_token(&self.settings.admin, self.grant()).unwrap()
    }

    fn grant(&self) -> Grant<'static> {
        Grant {
            subject: "a person",
            now: self.clock.now(),
            valid_for: Duration::from_hours(24),
        }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.admin().client.request(method, format!("{}{path}", self.base()))
    }

    /// Each answer is held against the document of the API.
    pub async fn send(request: reqwest::RequestBuilder) -> Answer {
        Self::sent(request, true).await
    }

    /// The head of an answer that goes on.
    pub async fn send_for_head(request: reqwest::RequestBuilder) -> Answer {
        Self::sent(request, false).await
    }

    async fn sent(request: reqwest::RequestBuilder, is_whole: bool) -> Answer {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let answer = client.execute(request).await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = if is_whole {
            answer.text().await.unwrap()
        } else {
            String::new()
        };
        openapi::check(&method, &path, status, &headers, &text);
        Answer { status, headers, text }
    }

    /// As an owner of an organisation.
    pub async fn call(&self, org: OrgId, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.call_as(org, Role::Owner, method, path, body).await
    }

    pub async fn call_as(&self, org: OrgId, role: Role, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let request = self.request(method, path).bearer_auth(self.token(org, role));
        Self::send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    pub async fn get(&self, org: OrgId, path: &str) -> Answer {
        self.call(org, Method::GET, path, None).await
    }

    pub async fn post(&self, org: OrgId, path: &str, body: &Value) -> Answer {
        self.call(org, Method::POST, path, Some(body)).await
    }

    pub async fn delete(&self, org: OrgId, path: &str) -> Answer {
        self.call(org, Method::DELETE, path, None).await
    }

    pub async fn operator(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = self.request(method, path).bearer_auth(self.operator_token());
        Self::send(if body.is_null() { request } else { request.json(body) }).await
    }
}
