//! `http.post` towards addresses that are not public: a listener on loopback sees
//! no connection.

use crate::outside::*;
use hookswitch::{
    action::{self, Attempt, http_post},
    config::ProviderSettings,
    domain::{
        ActionId, ActionKind, Cause, Clock, EventId, ManualClock, OrgId, Outcome, Provider, SystemClock, Timestamp,
    },
    provider::{
        Credential, HttpCredential, Providers,
        http::{DestinationError, HttpClient, Lookup},
    },
    sandbox::{Fault, SandboxConfig},
};
use serde_json::{Value, json};
use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet};

/// A resolver that gives the answers of a list, one a question, and the last one for ever.
#[derive(Clone, Default)]
struct Names {
    answers: Arc<Vec<Vec<&'static str>>>,
    asked: Arc<AtomicUsize>,
}

impl Names {
    fn of(answers: &[&[&'static str]]) -> Self {
        Self {
            answers: Arc::new(answers.iter().map(|answer| answer.to_vec()).collect()),
            asked: Arc::default(),
        }
    }
}

impl Lookup for Names {
    fn lookup(&self, _: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> {
        let n = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.get(n).or(self.answers.last()).cloned().unwrap_or_default();
        Box::pin(async move {
            Ok(answer
                .into_iter()
                .map(|ip| SocketAddr::new(ip.parse().expect("an address"), 0))
                .collect())
        })
    }
}

/// A listener on loopback that counts who comes.
struct Sentinel {
    port: u16,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Sentinel {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            port,
            connections,
            _tasks: tasks,
        }
    }

    /// Proves that the sentinel sees who comes, and that nobody came before.
    async fn assert_untouched(&self) {
        assert_eq!(self.connections.load(Ordering::SeqCst), 0);
        let _own = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("the sentinel listens");
        eventually("the sentinel sees us", || self.connections.load(Ordering::SeqCst) == 1).await;
    }
}

fn with(settings: &ProviderSettings, own: Option<&str>, names: Names, now: Option<Timestamp>) -> Providers {
    let clock: Arc<dyn Clock> = match now {
        Some(now) => Arc::new(ManualClock::at(now)),
        None => Arc::new(SystemClock),
    };
    Providers::with_client(settings, HttpClient::with(settings, own, Box::new(names), clock)).expect("good settings")
}

fn plain() -> ProviderSettings {
    ProviderSettings {
        http_plain_allowed: true,
        ..ProviderSettings::default()
    }
}

/// The settings that a post to loopback needs: plain HTTP and the network are allowed.
fn local() -> ProviderSettings {
    ProviderSettings {
        http_allowed_networks: vec!["127.0.0.0/8".into()],
        ..plain()
    }
}

fn destination(url: &str, secrets: usize) -> Credential {
    let secrets = (0..secrets).map(|_| http_post::generate_secret()).collect();
    Credential::Http(HttpCredential {
        name: "crm".to_owned(),
        url: url.to_owned(),
        secrets,
    })
}

async fn post(providers: &Providers, credential: &Credential, id: ActionId) -> (Outcome, action::Detail) {
    let event = json!({"type": "vapi.end-of-call-report", "timestamp": "2026-01-01T00:00:00Z", "data": {"a": 1}});
    let Value::Object(rendered) = json!({"destination": "crm", "event": event}) else {
        panic!("an object")
    };
    let action = action::get(ActionKind::HttpPost);
    let request = action.freeze(rendered).expect("a request");
    let attempt = Attempt {
        action: id,
        org: OrgId::from_uuid(uuid::Uuid::nil()),
        event: EventId::from_uuid(uuid::Uuid::nil()),
        request: &request,
        idempotency_key: "org:key",
        credential,
        planned_at: SystemClock.now(),
        first_sent_at: None,
        deadline: LONG,
        public_url: None,
        hops: 0,
        hops_header: Some("1.abcdef".to_owned()),
    };
    action.send(providers, &attempt).await
}

async fn outcome(providers: &Providers, url: &str) -> Outcome {
    post(providers, &destination(url, 1), ActionId::generate()).await.0
}

const NOT_ALLOWED: Outcome = Outcome::Dead {
    cause: Cause::AddressNotAllowed,
};

#[tokio::test]
async fn no_spelling_of_loopback_reaches_a_listener_there() {
    let sentinel = Sentinel::start().await;
    let providers = with(&plain(), None, Names::of(&[&["127.0.0.1"]]), None);
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::ffff:7f00:1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "localhost",
        "localhost.",
        "LocalHost",
        "127.0.0.1.",
        "１２７.0.0.1",
        "a.name.that.resolves.to.loopback.example",
        "a@127.0.0.1",
    ] {
        let url = format!("http://{host}:{}/x", sentinel.port);
        assert_eq!(outcome(&providers, &url).await, NOT_ALLOWED, "{url}");
    }
    for url in [
        "http:\\\\127.0.0.1",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "http://example.com:6379/",
        "http://example.com/\r\nx: y",
    ] {
        assert_eq!(outcome(&providers, url).await, NOT_ALLOWED, "{url}");
    }
    sentinel.assert_untouched().await;
}

#[tokio::test]
async fn one_private_address_in_the_set_refuses_all() {
    let sentinel = Sentinel::start().await;
    for answer in [
        &["8.8.8.8", "127.0.0.1"][..],
        &["127.0.0.1", "8.8.8.8"],
        &["2606:4700:4700::1111", "::1"],
        &["8.8.8.8", "::ffff:127.0.0.1"],
        &["169.254.169.254"],
    ] {
        let providers = with(&plain(), None, Names::of(&[answer]), None);
        assert_eq!(
            outcome(&providers, &format!("http://mixed.example:{}/", sentinel.port)).await,
            NOT_ALLOWED,
            "{answer:?}"
        );
    }
    sentinel.assert_untouched().await;
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_refused_at_connect() {
    let sentinel = Sentinel::start().await;
    // Public when it is saved, loopback when it is connected to: what counts is the address
    // connected to.
    let names = Names::of(&[&["8.8.8.8"], &["127.0.0.1"]]);
    let providers = with(&plain(), None, names.clone(), None);
    let url = format!("http://rebinding.example:{}/", sentinel.port);
    assert_eq!(providers.http.check_destination_resolved(&url).await, Ok(()));
    assert_eq!(outcome(&providers, &url).await, NOT_ALLOWED);
    assert_eq!(
        names.asked.load(Ordering::SeqCst),
        2,
        "one question a connection: what was checked is what is connected to"
    );
    assert_eq!(
        providers.http.check_destination_resolved(&url).await,
        Err(DestinationError::Address)
    );
    sentinel.assert_untouched().await;
}

#[tokio::test]
async fn a_name_without_an_address_can_be_saved_and_is_tried_again() {
    let providers = with(&plain(), None, Names::default(), None);
    assert_eq!(
        providers
            .http
            .check_destination_resolved("https://not-yet.example/")
            .await,
        Ok(())
    );
    assert_eq!(
        outcome(&providers, "https://not-yet.example/").await,
        Outcome::Retry {
            cause: Cause::ConnectFailed,
            not_before: None
        }
    );
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let sentinel = Sentinel::start().await;
    let providers = with(&local(), None, Names::default(), None);
    for status in [301, 302, 303, 307, 308] {
        for target in [
            format!("http://127.0.0.1:{}/", sentinel.port),
            "http://169.254.169.254/latest/meta-data".to_owned(),
            "http://[::1]/".to_owned(),
        ] {
            let rogue = Rogue::answering(format!(
                "HTTP/1.1 {status} Moved\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n"
            ))
            .await;
            assert_eq!(
                outcome(&providers, &rogue.base()).await,
                Outcome::Dead {
                    cause: Cause::RedirectNotFollowed
                },
                "{status} {target}"
            );
        }
    }
    sentinel.assert_untouched().await;
}

#[tokio::test]
async fn the_exemption_of_a_providers_base_url_is_not_http_posts() {
    let sandbox = sandbox().await;
    // The sandbox is the base URL of both providers, on loopback; http.post to the same place is
    // refused all the same.
    let settings = ProviderSettings {
        twilio_base_url: sandbox.base.clone(),
        vapi_base_url: sandbox.base.clone(),
        ..plain()
    };
    let providers = with(&settings, None, Names::default(), None);
    assert!(providers.twilio.fetch_account(&twilio(), LONG).await.is_ok());
    assert_eq!(
        outcome(&providers, &format!("{}/sink/x", sandbox.base)).await,
        NOT_ALLOWED
    );
    assert_eq!(sandbox.state.request_count(Provider::Http), 0);
}

#[tokio::test]
async fn our_own_public_host_is_refused_and_its_neighbour_port_is_not() {
    let sandbox = sandbox().await;
    let own = sandbox_with(SandboxConfig::default()).await;
    let providers = with(
        &local(),
        Some(own.base.trim_start_matches("http://")),
        Names::default(),
        None,
    );
    assert_eq!(outcome(&providers, &format!("{}/sink/x", own.base)).await, NOT_ALLOWED);
    assert_eq!(
        outcome(&providers, &format!("{}/sink/x", sandbox.base)).await,
        Outcome::Succeeded {
            cause: Cause::Accepted,
            provider_ref: None
        }
    );
    assert_eq!(
        (
            own.state.request_count(Provider::Http),
            sandbox.state.request_count(Provider::Http)
        ),
        (0, 1)
    );
}

#[tokio::test]
async fn a_post_is_signed_as_standard_webhooks_and_keeps_its_id() {
    let sandbox = sandbox().await;
    let credential = destination(&format!("{}/sink/crm", sandbox.base), 2);
    let id = ActionId::generate();
    for at in [1_900_000_000, 1_900_000_600] {
        let providers = with(&local(), None, Names::default(), Some(Timestamp::from_seconds(at)));
        assert_eq!(
            post(&providers, &credential, id).await.0,
            Outcome::Succeeded {
                cause: Cause::Accepted,
                provider_ref: None
            }
        );
    }
    let requests = sandbox.state.requests(Provider::Http);
    let header = |n: usize, name: &str| requests[n].header(name).unwrap_or_default().to_owned();
    assert_eq!(header(0, "webhook-id"), id.to_string());
    assert_eq!(header(1, "webhook-id"), id.to_string());
    assert_eq!(
        (header(0, "webhook-timestamp"), header(1, "webhook-timestamp")),
        ("1900000000".to_owned(), "1900000600".to_owned())
    );
    assert_ne!(header(0, "webhook-signature"), header(1, "webhook-signature"));
    assert_eq!(
        (header(0, "hookswitch-hops"), header(0, "content-type")),
        ("1.abcdef".to_owned(), "application/json".to_owned())
    );
    assert_eq!(requests[0].content, requests[1].content, "the same bytes for every try");
    let expected = json!({"type": "vapi.end-of-call-report", "timestamp": "2026-01-01T00:00:00Z", "data": {"a": 1}});
    assert_eq!(requests[0].to_json()["json"], expected);

    // Verified from the outside: one signature a secret, newest first, over id, timestamp and body.
    let Credential::Http(http) = &credential else {
        unreachable!("made above")
    };
    let body = serde_json::to_string(&expected).expect("JSON");
    let signatures: Vec<String> = http
        .secrets
        .iter()
        .map(|secret| sign(secret.expose_secret(), &format!("{id}.1900000000.{body}")))
        .collect();
    assert_eq!(header(0, "webhook-signature"), signatures.join(" "));
}

fn sign(secret: &[u8], content: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use hmac::{Hmac, KeyInit, Mac};
    let key = STANDARD
        .decode(secret.strip_prefix(b"whsec_").expect("a prefix"))
        .expect("base64");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).expect("any length");
    mac.update(content.as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test]
async fn answers_of_a_destination_have_their_outcomes() {
    let sandbox = sandbox().await;
    let now = Timestamp::from_seconds(1_900_000_000);
    let providers = with(&local(), None, Names::default(), Some(now));
    let url = format!("{}/sink/x", sandbox.base);
    for (status, retry_after, expected) in [
        (
            204,
            None,
            Outcome::Succeeded {
                cause: Cause::Accepted,
                provider_ref: None,
            },
        ),
        (
            410,
            None,
            Outcome::Park {
                cause: Cause::EndpointGone,
            },
        ),
        (
            404,
            None,
            Outcome::Dead {
                cause: Cause::InvalidRequest,
            },
        ),
        (
            429,
            Some(30),
            Outcome::Retry {
                cause: Cause::RateLimited,
                not_before: Some(now + Duration::from_secs(30)),
            },
        ),
        (
            503,
            None,
            Outcome::Retry {
                cause: Cause::ProviderUnavailable,
                not_before: None,
            },
        ),
    ] {
        let mut fault = Fault::of(Provider::Http).times(1).status(status);
        fault.retry_after = retry_after.map(Value::from);
        sandbox.state.add_fault(fault);
        assert_eq!(outcome(&providers, &url).await, expected, "{status}");
    }
    sandbox.state.add_fault(
        Fault::of(Provider::Http)
            .times(1)
            .dropping(hookswitch::sandbox::Drop::AfterAccept),
    );
    assert_eq!(
        outcome(&providers, &url).await,
        Outcome::Unknown { cause: Cause::NoAnswer }
    );
    // A 2xx is one whatever follows it: the receiver has the event.
    let endless = Rogue::answering("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\nhalf").await;
    assert_eq!(
        outcome(&providers, &endless.base()).await,
        Outcome::Succeeded {
            cause: Cause::Accepted,
            provider_ref: None
        }
    );
    assert_eq!(
        outcome(&providers, "http://127.0.0.1:1/").await,
        NOT_ALLOWED,
        "a port of another protocol"
    );
}

#[tokio::test]
async fn the_words_of_a_destination_are_masked_and_cut() {
    let body = format!("call +12025550111 or mail jane@example.com {}", "é".repeat(3000));
    let rogue = Rogue::answering(format!(
        "HTTP/1.1 400 Bad\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let providers = with(&local(), None, Names::default(), None);
    let (_, detail) = post(&providers, &destination(&rogue.base(), 1), ActionId::generate()).await;
    assert!(
        detail.text.starts_with("call +[masked] or mail [masked]"),
        "{}",
        detail.text
    );
    assert!(detail.text.chars().count() <= 500);
}
