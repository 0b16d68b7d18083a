//! Shared by the tests of providers and sandbox: a running sandbox, clients that reach it, and a
//! server that misbehaves byte by byte.

use hookswitch::{
    config::ProviderSettings,
    domain::{Provider, SecretBytes},
    provider::{Credential, Providers, TwilioCredential},
    sandbox::{Accounts, ApiKey, KeyKind, Sandbox, SandboxConfig, SandboxState, TwilioAccount},
};
use std::{future::Future, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub const SID: &str = "AC0123456789abcdef0123456789abcdef";
pub const OTHER_SID: &str = "ACfedcba9876543210fedcba9876543210";
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub const FROM: &str = "+12025550100";
pub const TO: &str = "+12025550111";
pub const LONG: Duration = Duration::from_secs(10);

/// A sandbox on a free port; gone when it is dropped.
pub struct Running {
    pub state: SandboxState,
    pub base: String,
    pub client: reqwest::Client,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn account() -> TwilioAccount {
    let mut account = TwilioAccount::new(SID, TOKEN).with_number(FROM);
    account.friendly_name = Some("Test account".to_owned());
    account.api_keys = [(1, KeyKind::Main), (2, KeyKind::Standard), (3, KeyKind::Restricted)]
        .map(|(n, kind)| ApiKey {
            sid: format!("SK{n:032}"),
            secret: format!("key-secret-{n}"),
            kind,
        })
        .to_vec();
    account.messaging_services = vec![format!("MG{:032}", 1)];
    account
}

pub async fn sandbox() -> Running {
    sandbox_with(SandboxConfig {
        accounts: Accounts {
            accounts: vec![
                account(),
                TwilioAccount::new(OTHER_SID, "other-token").with_number("+12025550199"),
            ],
            ..Accounts::default()
        },
        ..SandboxConfig::default()
    })
    .await
}

pub async fn sandbox_with(config: SandboxConfig) -> Running {
    let sandbox = Sandbox::bind(SocketAddr::from(([127, 0, 0, 1], 0)), config)
        .await
        .expect("a free port");
    let (base, state, stop) = (
        format!("http://{}", sandbox.address().expect("bound")),
        sandbox.state(),
        CancellationToken::new(),
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(sandbox.run(stop.clone()));
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(LONG)
        .build()
        .expect("a client");
    Running {
        state,
        base,
        client,
        stop,
        _tasks: tasks,
    }
}

impl Running {
    pub fn providers(&self) -> Providers {
        providers(&self.base)
    }

    pub async fn control(&self, path: &str, body: serde_json::Value) -> (u16, serde_json::Value) {
        let answer = self
            .client
            .post(format!("{}{path}", self.base))
            .json(&body)
            .send()
            .await
            .expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Posts a form to `Messages.json` with the account's token.
    pub async fn post_message(&self, form: &[(&str, &str)]) -> (u16, serde_json::Value) {
        self.post_message_as(SID, TOKEN, form).await
    }

    pub async fn post_message_as(&self, user: &str, password: &str, form: &[(&str, &str)]) -> (u16, serde_json::Value) {
        let url = format!("{}/2010-04-01/Accounts/{SID}/Messages.json", self.base);
        let answer = self
            .client
            .post(url)
            .basic_auth(user, Some(password))
            .form(form)
            .send()
            .await
            .expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    pub async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let answer = self
            .client
            .get(format!("{}{path}", self.base))
            .basic_auth(SID, Some(TOKEN))
            .send()
            .await
            .expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }
}

/// Clients of a base URL, with loopback allowed for no one else.
pub fn providers(base: &str) -> Providers {
    let settings = ProviderSettings {
        twilio_base_url: base.to_owned(),
        vapi_base_url: base.to_owned(),
        resend_base_url: base.to_owned(),
        elevenlabs_base_url: base.to_owned(),
        google_base_url: base.to_owned(),
        google_token_base_url: base.to_owned(),
        ..ProviderSettings::default()
    };
    Providers::new(&settings, None).expect("good settings")
}

pub fn credential(provider: Provider, json: &serde_json::Value) -> Credential {
    Credential::parse(provider, &SecretBytes::from(json.to_string())).expect("a credential")
}

pub fn twilio() -> TwilioCredential {
    match credential(
        Provider::Twilio,
        &serde_json::json!({"account_sid": SID, "auth_token": TOKEN, "phone_number": FROM}),
    ) {
        Credential::Twilio(credential) => credential,
        _ => unreachable!("a Twilio credential"),
    }
}

/// A server that answers each connection as `answer` says, once the whole request arrived. Counts
/// connections and requests by the caller's own means.
pub struct Rogue {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Rogue {
    pub async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(TcpStream, String) -> A + Send + Sync + Clone + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                connections.spawn(async move {
                    let request = read_request(&mut stream).await;
                    if !request.is_empty() {
                        answer(stream, request).await;
                    }
                });
            }
        });
        Self { address, _tasks: tasks }
    }

    /// Answers each request with the same bytes and closes.
    pub async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Vec<u8> = bytes.into();
        Self::start(move |mut stream, _| {
            let bytes = bytes.clone();
            async move {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// One request, by its `Content-Length`. Empty where the peer closed first.
pub async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .and_then(|length| length.parse().ok())
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return String::new(),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Waits until something holds, with a deadline.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + LONG;
    while !holds() {
        assert!(tokio::time::Instant::now() < until, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
