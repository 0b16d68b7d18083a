//! The one HTTP client: deadlines, bounded answers, no redirects, no proxies, no retries.
//!
//! There are two clients. The *trusted* client calls the base URLs of providers: they are settings
//! of the operator, loopback included (`dev` points them at the sandbox). The *guarded* client
//! calls URLs of organisations: [`guard`] decides which URLs and which resolved addresses it may
//! call. The exemption of loopback never reaches it (invariant 23).
//!
//! **Invariant:** an error says whether anything was sent. [`CallError::NotSent`] means that the
//! request failed before it had a connection. Every later failure is [`CallError::NoAnswer`],
//! because a peer that closes an idle connection as we write may have read the request.

mod guard;
mod retry_after;

pub use guard::{DestinationError, Lookup};

use super::CallError;
use crate::{
    config::{ConfigError, ProviderSettings},
    domain::{Clock, SystemClock, Timestamp},
};
use guard::{Guard, ResolveError, SystemLookup};
use reqwest::{Client, RequestBuilder, Url, header::RETRY_AFTER, redirect};
use std::{error::Error as _, sync::Arc, time::Duration};
use zeroize::Zeroizing;

/// Most bytes of an answer that are read.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Time for name, TCP and TLS together.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest silence between two reads of an answer.
const READ_MAX: Duration = Duration::from_secs(15);
/// How long an idle connection is kept: below the 5 s that is the shortest common keep-alive of
/// servers, so that we close first.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Idle connections kept to one host.
const IDLE_PER_HOST_MAX: usize = 256;

/// Sends requests with connect, read and total deadlines, no redirects, no proxies, bounded
/// answers, and an address guard. Clones share their connections.
#[derive(Clone)]
pub struct HttpClient {
    trusted: Client,
    guarded: Client,
    guard: Guard,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

/// An answer: its head, and its body or why the body could not be read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Timestamp>,
    /// Zeroed on drop: Twilio's account answer carries a token in the clear. `Err` says in our
    /// words why there is no whole body.
    pub body: Result<Zeroizing<Vec<u8>>, &'static str>,
}

impl HttpClient {
    /// # Errors
    /// A setting of the guard that cannot be used.
    pub fn new(settings: &ProviderSettings, public_host: Option<&str>) -> Result<Self, ConfigError> {
        Self::with(settings, public_host, Box::new(SystemLookup), Arc::new(SystemClock))
    }

    /// The same with a resolver and a clock of the caller's, for tests.
    ///
    /// # Errors
    /// A setting of the guard that cannot be used.
    pub fn with(
        settings: &ProviderSettings,
        public_host: Option<&str>,
        lookup: Box<dyn Lookup>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        // reqwest has no TLS provider of its own here; the first caller of the process installs it,
        // and a second finds it installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut faults = Vec::new();
        let guard = Guard::new(
            &settings.http_allowed_networks,
            settings.http_plain_allowed,
            public_host,
            lookup,
            &mut faults,
        );
        if !faults.is_empty() {
            return Err(ConfigError { faults });
        }
        let builder = || {
            Client::builder()
                .redirect(redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .referer(false)
                .connect_timeout(CONNECT_MAX)
                .read_timeout(READ_MAX)
                .pool_idle_timeout(IDLE_MAX)
                .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
                .http1_only()
                .http1_max_headers(100)
                .tcp_nodelay(true)
                .user_agent(concat!("hookswitch/", env!("CARGO_PKG_VERSION")))
        };
        let unusable = |error: reqwest::Error| ConfigError {
            faults: vec![crate::config::Fault {
                name: "the machine's TLS roots".to_owned(),
                problem: format!("{}; install ca-certificates", chain(&error.without_url())),
            }],
        };
        Ok(Self {
            trusted: builder().build().map_err(unusable)?,
            guarded: builder().dns_resolver(guard.clone()).build().map_err(unusable)?,
            guard,
            clock,
        })
    }

    /// The time that `Retry-After` and signatures are counted from.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether a URL may be a destination of `http.post`, without resolving its name: for what a
    /// person types.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_destination(&self, url: &str) -> Result<(), DestinationError> {
        self.guard.check_url(url).map(|_| ())
    }

    /// The same, with its name resolved: for saving. A name that does not resolve today is no
    /// error; sending checks again, on the address that it connects to.
    ///
    /// # Errors
    /// Why it may not.
    pub async fn check_destination_resolved(&self, url: &str) -> Result<(), DestinationError> {
        let url = self.guard.check_url(url)?;
        let Some(name) = url.domain() else { return Ok(()) };
        match tokio::time::timeout(CONNECT_MAX, self.guard.resolve(name)).await {
            Ok(Err(ResolveError::NotAllowed)) => Err(DestinationError::Address),
            Ok(Ok(_) | Err(ResolveError::NotFound(_))) | Err(_) => Ok(()),
        }
    }

    pub(super) fn trusted(&self) -> &Client {
        &self.trusted
    }

    /// One exchange with a provider's base URL. `deadline` covers everything from the name to the
    /// body's last byte.
    pub(super) async fn exchange(&self, request: RequestBuilder, deadline: Duration) -> Result<Answer, CallError> {
        self.execute(request, deadline).await
    }

    /// One GET of a URL from the settings of the installation: the public keys of tokens.
    ///
    /// # Errors
    /// What [`CallError`] says; never `Refused`: the status is in the answer.
    pub async fn get_document(&self, url: &str, deadline: Duration) -> Result<Answer, CallError> {
        self.execute(self.trusted.get(url), deadline).await
    }

    /// One POST to a URL that an organisation typed.
    ///
    /// # Errors
    /// What [`CallError`] says; never `Refused`: the status is in the answer.
    pub async fn post_guarded(
        &self,
        url: &str,
        headers: http::HeaderMap,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Answer, CallError> {
        let url = self
            .guard
            .check_url(url)
            .map_err(|_| CallError::AddressNotAllowed { host: host_of(url) })?;
        self.execute(self.guarded.post(url).headers(headers).body(body), deadline)
            .await
    }

    async fn execute(&self, request: RequestBuilder, deadline: Duration) -> Result<Answer, CallError> {
        let until = tokio::time::Instant::now() + deadline;
        let (client, request) = request.build_split();
        let request = request.map_err(|error| CallError::NotSent {
            host: String::new(),
            reason: chain(&error.without_url()),
        })?;
        let host = host_label(request.url());
        let response = match tokio::time::timeout_at(until, client.execute(request)).await {
            Err(_) => {
                return Err(CallError::NoAnswer {
                    host,
                    reason: format!("no answer within {deadline:?}"),
                });
            }
            Ok(Err(error)) => return Err(classify(host, error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after::parse(value.as_bytes(), self.clock.now()));
        let body = tokio::time::timeout_at(until, read_body(response))
            .await
            .unwrap_or(Err("the answer did not end in time"));
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }
}

/// Reads a body up to the limit. The connection of one that is larger is closed, not drained.
async fn read_body(mut response: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let hint = response.content_length().unwrap_or(4096).min(ANSWER_BYTES_MAX as u64);
    let mut body = Zeroizing::new(Vec::with_capacity(usize::try_from(hint).unwrap_or(ANSWER_BYTES_MAX)));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > ANSWER_BYTES_MAX => return Err("the answer is over 1 MiB"),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(_) => return Err("the answer was cut off"),
        }
    }
}

/// The cause below reqwest's error. The URL is left out, because it may carry ids.
fn classify(host: String, error: reqwest::Error) -> CallError {
    let error = error.without_url();
    let mut source = error.source();
    while let Some(cause) = source {
        if matches!(cause.downcast_ref(), Some(ResolveError::NotAllowed)) {
            return CallError::AddressNotAllowed { host };
        }
        source = cause.source();
    }
    // `is_connect` is hyper-util's own word for "the connector failed": no connection, so no byte
    // of the request. Everything else is unknown.
    if error.is_connect() {
        CallError::NotSent {
            host,
            reason: chain(&error),
        }
    } else if error.is_timeout() {
        CallError::NoAnswer {
            host,
            reason: "the answer stalled".to_owned(),
        }
    } else {
        CallError::NoAnswer {
            host,
            reason: chain(&error),
        }
    }
}

/// The last cause of an error, which is the one that says something: "Connection refused (os error
/// 111)".
fn chain(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string().chars().take(200).collect()
}

fn host_label(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

fn host_of(url: &str) -> String {
    Url::parse(url).map(|url| host_label(&url)).unwrap_or_default()
}
