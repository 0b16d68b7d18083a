//! Stand-ins for the providers, on one local port: Twilio, Vapi, Google, Resend, ElevenLabs as far
//! as we use them, and a sink for `http.post`.
//!
//! `dev`, `hookswitch sandbox`, tests and benches enter. Requests are checked as the real provider
//! would (authentication, required fields, encoding) and held against its own description
//! ([`description`]); answers have its shapes, errors its codes.
//!
//! | path | what |
//! |---|---|
//! | `/2010-04-01/Accounts/{Sid}…` | Twilio: `.json`, `/Messages.json` (POST, GET), `/Messages/{Sid}.json`, `/IncomingPhoneNumbers.json` |
//! | `/assistant[/{id}]`, `/phone-number[/{id}]` | Vapi |
//! | `/emails[/{id}]`, `/domains` | Resend |
//! | `/v1/user`, `/v1/voices`, `/v2/voices` | ElevenLabs |
//! | `/o/oauth2/v2/auth`, `/token`, `/revoke`, `/calendar/v3/…` | Google |
//! | `/sink/{anything}` | 200 and `{}` for any method |
//! | `GET /_requests[?provider=twilio]` | what came in, oldest first: `[{id, at, provider, method, path, headers, form \| json \| body, status}]`. `provider` is a provider's name, or `http` for the sink; `path` has its query; `form` maps names to texts (lists where repeated); a request without a body has none of the three; `status` is null where no answer was given |
//! | `GET /_violations` | what did not agree with a description: `[{request, provider, operation, faults: [text]}]` |
//! | `POST /_faults` | [`Fault`] as JSON: `{provider, method?, path?, times?, delay_ms?, status?, accept?, body?, retry_after?, drop?: "after_accept" \| "before"}` → 201 |
//! | `GET`, `DELETE /_faults` | those in force; none from here on |
//! | `POST /_accounts` | [`Accounts`] as JSON, added to those that are known; from this machine only |
//! | `POST /_reset` | forgets requests, messages, violations and faults; accounts stay |
//!
//! **Invariant:** a stand-in shares no code with the clients that it checks, and its memory is
//! bounded: rings by count and bytes.

mod callbacks;
mod config;
mod control;
pub mod description;
mod elevenlabs;
mod faults;
mod form;
mod google;
mod record;
mod resend;
mod twilio;
mod vapi;

pub use config::{
    AccountKind, AccountStatus, Accounts, ApiKey, DEMO_ACCOUNT_SID, DEMO_ASSISTANT_ID, DEMO_PHONE_NUMBER,
    DEMO_PHONE_NUMBER_ID, ElevenLabsKey, GoogleAccount, GoogleOauthClient, KeyKind, ResendKey, SandboxConfig,
    TwilioAccount, VapiAssistant, VapiOrganisation, VapiPhoneNumber,
};
pub use faults::{Drop, Fault};
pub use record::{Content, Request};
pub use resend::SandboxEmail;
pub use twilio::SandboxMessage;

use crate::{
    domain::{Clock, Provider, SystemClock, Timestamp},
    listener::{self, Limits, Peer},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    response::Response,
};
use bytes::Bytes;
use faults::Faults;
use http::{HeaderValue, StatusCode, header, request::Parts};
use record::Records;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Largest body that is taken.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Violations kept.
const VIOLATIONS_MAX: usize = 1_000;

/// A sandbox on its port, not yet serving.
#[derive(Debug)]
pub struct Sandbox {
    listener: TcpListener,
    state: SandboxState,
}

impl Sandbox {
    /// # Errors
    /// The address cannot be bound: in use, or not this machine's.
    pub async fn bind(address: SocketAddr, config: SandboxConfig) -> std::io::Result<Self> {
        Ok(Self {
            listener: listener::bind(&address.to_string()).await?,
            state: SandboxState::new(config),
        })
    }

    /// # Errors
    /// The socket has gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    #[must_use]
    pub fn state(&self) -> SandboxState {
        self.state.clone()
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        serve(self.listener, self.state, stop).await;
    }
}

/// The state of all stand-ins. Clones share it; tests read it directly.
#[derive(Clone)]
pub struct SandboxState(Arc<Inner>);

struct Inner {
    config: SandboxConfig,
    clock: Arc<dyn Clock>,
    records: Mutex<Records>,
    faults: Mutex<Faults>,
    /// Spares the common request the lock.
    has_faults: AtomicBool,
    violations: Mutex<VecDeque<Violation>>,
    twilio: Mutex<twilio::Accounts>,
    vapi: Mutex<Vec<VapiOrganisation>>,
    assistants: Mutex<vapi::MadeAssistants>,
    resend: Mutex<Vec<ResendKey>>,
    emails: Mutex<resend::Emails>,
    elevenlabs: Mutex<Vec<ElevenLabsKey>>,
    google: Mutex<google::Google>,
    callbacks: callbacks::Queue,
}

impl std::fmt::Debug for SandboxState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SandboxState(…)")
    }
}

/// A request that does not agree with its provider's description.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Violation {
    /// The id of the request.
    pub request: u64,
    pub provider: Provider,
    pub operation: &'static str,
    pub faults: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SandboxState {
    #[must_use]
    pub fn new(config: SandboxConfig) -> Self {
        Self::with_clock(config, Arc::new(SystemClock))
    }

    #[must_use]
    pub fn with_clock(config: SandboxConfig, clock: Arc<dyn Clock>) -> Self {
        let mut twilio = twilio::Accounts::new(config.requests_max);
        twilio.register(config.accounts.accounts.clone());
        let mut google = google::Google::default();
        google.register(
            config.accounts.google_clients.clone(),
            config.accounts.google_accounts.clone(),
        );
        Self(Arc::new(Inner {
            clock,
            records: Mutex::new(Records::new(config.requests_max)),
            faults: Mutex::default(),
            has_faults: AtomicBool::new(false),
            violations: Mutex::default(),
            twilio: Mutex::new(twilio),
            vapi: Mutex::new(config.accounts.vapi.clone()),
            assistants: Mutex::default(),
            resend: Mutex::new(config.accounts.resend.clone()),
            emails: Mutex::default(),
            elevenlabs: Mutex::new(config.accounts.elevenlabs.clone()),
            google: Mutex::new(google),
            callbacks: callbacks::Queue::new(),
            config,
        }))
    }

    /// Requests to a provider's stand-in, oldest first.
    #[must_use]
    pub fn requests(&self, provider: Provider) -> Vec<Request> {
        lock(&self.0.records).list(Some(provider))
    }

    /// How many there are, without reading them.
    #[must_use]
    pub fn request_count(&self, provider: Provider) -> usize {
        lock(&self.0.records).count(provider)
    }

    /// Messages that Twilio's stand-in accepted, over all accounts, oldest first. Each is one
    /// effect.
    #[must_use]
    pub fn messages(&self) -> Vec<SandboxMessage> {
        lock(&self.0.twilio).messages()
    }

    /// How many were accepted since the start or the last reset, those that left the ring included.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        lock(&self.0.twilio).message_count()
    }

    /// E-mails that Resend's stand-in accepted, oldest first.
    #[must_use]
    pub fn emails(&self) -> Vec<SandboxEmail> {
        lock(&self.0.emails).list()
    }

    /// Assistants that were made at Vapi's stand-in and not deleted, oldest first.
    #[must_use]
    pub fn assistants(&self) -> Vec<Value> {
        lock(&self.0.assistants).list()
    }

    /// A person changes an assistant at Vapi: the fields given, `null` removes one.
    pub fn change_assistant(&self, id: &str, fields: &serde_json::Map<String, Value>) {
        lock(&self.0.assistants).change(id, fields);
    }

    /// A person deletes an assistant at Vapi.
    pub fn delete_assistant(&self, id: &str) {
        lock(&self.0.assistants).delete(id);
    }

    /// Events on all calendars, deleted ones (`cancelled`) included.
    #[must_use]
    pub fn calendar_events(&self) -> Vec<Value> {
        lock(&self.0.google).events()
    }

    /// How often a refresh gave a new token.
    #[must_use]
    pub fn token_refreshes(&self) -> u64 {
        lock(&self.0.google).refreshes()
    }

    /// Grants that stand.
    #[must_use]
    pub fn google_grants(&self) -> usize {
        lock(&self.0.google).grants()
    }

    /// Whether each refresh replaces the refresh token, as other providers do.
    pub fn rotate_refresh_tokens(&self, rotates: bool) {
        lock(&self.0.google).set_rotating(rotates);
    }

    /// A person revokes a grant at Google.
    pub fn revoke_google_account(&self, account: &str) {
        lock(&self.0.google).revoke_account(account);
    }

    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        lock(&self.0.violations).iter().cloned().collect()
    }

    pub fn add_fault(&self, fault: Fault) {
        lock(&self.0.faults).0.push(fault);
        self.0.has_faults.store(true, Ordering::SeqCst);
    }

    pub fn clear_faults(&self) {
        lock(&self.0.faults).0.clear();
        self.0.has_faults.store(false, Ordering::SeqCst);
    }

    /// Adds accounts; those that are known are replaced, and keep their messages.
    pub fn register(&self, accounts: Accounts) {
        lock(&self.0.google).register(accounts.google_clients.clone(), accounts.google_accounts.clone());
        let mut all = Accounts {
            vapi: lock(&self.0.vapi).clone(),
            resend: lock(&self.0.resend).clone(),
            elevenlabs: lock(&self.0.elevenlabs).clone(),
            ..Accounts::default()
        };
        all.merge(accounts);
        *lock(&self.0.resend) = all.resend;
        *lock(&self.0.elevenlabs) = all.elevenlabs;
        lock(&self.0.twilio).register(all.accounts);
        *lock(&self.0.vapi) = all.vapi;
    }

    /// Forgets requests, messages, violations and faults.
    pub fn reset(&self) {
        self.clear_faults();
        lock(&self.0.records).clear();
        lock(&self.0.violations).clear();
        lock(&self.0.twilio).clear();
        lock(&self.0.emails).clear();
        lock(&self.0.assistants).clear();
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn take_fault(&self, provider: Provider, parts: &Parts) -> Option<Fault> {
        if !self.0.has_faults.load(Ordering::SeqCst) {
            return None;
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        lock(&self.0.faults).take(provider, parts.method.as_str(), path)
    }

    /// Notes the faults of a call against its description; none where `faults` is empty.
    fn note(&self, call: &Call<'_>, operation: &'static str, faults: &[String]) {
        if faults.is_empty() {
            return;
        }
        let mut violations = lock(&self.0.violations);
        if violations.len() == VIOLATIONS_MAX {
            violations.pop_front();
        }
        violations.push_back(Violation {
            request: call.id,
            provider: call.provider,
            operation,
            faults: faults.to_vec(),
        });
    }
}

/// One request on its way through a stand-in.
struct Call<'a> {
    id: u64,
    provider: Provider,
    parts: &'a Parts,
    body: &'a [u8],
}

impl Call<'_> {
    fn query(&self) -> Vec<(String, String)> {
        self.parts
            .uri
            .query()
            .map(|query| form::parse(query.as_bytes()))
            .unwrap_or_default()
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// The answer of a stand-in.
struct Reply {
    status: u16,
    body: Vec<u8>,
    retry_after: Option<String>,
    location: Option<String>,
}

impl Reply {
    fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            body: serde_json::to_vec(body).expect("a JSON value always has a text"),
            retry_after: None,
            location: None,
        }
    }

    fn redirect(to: &str) -> Self {
        Self {
            status: 302,
            body: Vec::new(),
            retry_after: None,
            location: Some(to.to_owned()),
        }
    }

    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(value) = self.retry_after.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        if let Some(value) = self.location.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(header::LOCATION, value);
        }
        response
    }
}

/// Serves until `stop`, and posts status callbacks beside it. Nothing outlives it.
pub async fn serve(listener: TcpListener, state: SandboxState, stop: CancellationToken) {
    let router = Router::new().fallback(handle).with_state(state.clone());
    let limits = Limits {
        name: "sandbox",
        connections_max: 4096,
        connections_per_address_max: 4096,
        ..Limits::default()
    };
    tokio::join!(
        listener::serve(listener, router, limits, stop.clone(), stop.clone()),
        callbacks::run(state, stop.clone()),
    );
}

async fn handle(State(state): State<SandboxState>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return Reply::json(
            413,
            &serde_json::json!({"error": "the body is over 1 MiB or was cut off"}),
        )
        .into_response();
    };
    let path = parts.uri.path();
    if path.starts_with("/_") {
        let is_local = parts
            .extensions
            .get::<Peer>()
            .is_none_or(|peer| peer.address.ip().to_canonical().is_loopback());
        return control::answer(&state, &parts, &body, is_local).into_response();
    }
    let is_below = |roots: &[&str]| {
        roots.iter().any(|root| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let provider = if path.starts_with("/2010-04-01/") {
        Provider::Twilio
    } else if is_below(&["/assistant", "/phone-number"]) {
        Provider::Vapi
    } else if is_below(&["/emails", "/domains"]) {
        Provider::Resend
    } else if is_below(&["/v1/user", "/v1/voices", "/v2/voices"]) {
        Provider::ElevenLabs
    } else if is_below(&["/o/oauth2/v2/auth", "/token", "/revoke", "/calendar/v3"]) {
        Provider::GoogleCalendar
    } else if path == "/sink" || path.starts_with("/sink/") {
        Provider::Http
    } else {
        return Reply::json(404, &serde_json::json!({"error": "no stand-in has this path"})).into_response();
    };
    stand_in(&state, provider, &parts, &body).await
}

async fn stand_in(state: &SandboxState, provider: Provider, parts: &Parts, body: &Bytes) -> Response {
    let id = lock(&state.0.records).add(state.now(), provider, parts, body);
    let call = Call {
        id,
        provider,
        parts,
        body,
    };
    let act = || match provider {
        Provider::Twilio => twilio::answer(state, &call),
        Provider::Vapi => vapi::answer(state, &call),
        Provider::Resend => resend::answer(state, &call),
        Provider::ElevenLabs => elevenlabs::answer(state, &call),
        Provider::GoogleCalendar => google::answer(state, &call),
        Provider::Http => Reply::json(200, &serde_json::json!({})),
    };
    let reply = match state.take_fault(provider, parts) {
        None => act(),
        Some(fault) => {
            tokio::time::sleep(Duration::from_millis(fault.delay_ms.unwrap_or(0))).await;
            match fault.drop {
                Some(Drop::Before) => return cut_off(),
                Some(Drop::AfterAccept) => {
                    let _ = act();
                    return cut_off();
                }
                None => match fault.status {
                    None => act(),
                    Some(status) => {
                        if fault.accept {
                            let _ = act();
                        }
                        failed(provider, status, &fault)
                    }
                },
            }
        }
    };
    lock(&state.0.records).set_status(id, reply.status);
    reply.into_response()
}

/// The answer that a fault asks for, with the provider's own body where it names none.
fn failed(provider: Provider, status: u16, fault: &Fault) -> Reply {
    let body = fault.body.clone().unwrap_or_else(|| match provider {
        Provider::Twilio => twilio::error_body(status),
        Provider::Vapi => vapi::error_body(status),
        Provider::Resend => resend::error_body(status),
        Provider::ElevenLabs => elevenlabs::error_body(status),
        Provider::GoogleCalendar => google::error_body(status),
        Provider::Http => serde_json::json!({}),
    });
    let mut reply = match body {
        // A text stands for bytes that are no JSON.
        Value::String(text) => Reply {
            status,
            body: text.into_bytes(),
            retry_after: None,
            location: None,
        },
        body => Reply::json(status, &body),
    };
    reply.retry_after = fault
        .retry_after
        .as_ref()
        .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    reply
}

/// Closes the connection without a byte: hyper gives up on a body that fails before the head was
/// flushed.
fn cut_off() -> Response {
    let failing = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut off on request")) });
    Response::new(Body::from_stream(failing))
}
