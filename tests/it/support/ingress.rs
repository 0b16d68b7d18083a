//! A receiver with everything that it stands on, a queue that a test can hold up, and senders on
//! raw sockets.

use super::{
    db::{Database, NOW},
    schema,
};
use async_trait::async_trait;
use hookswitch::store::rejections::RejectionFilter;
use hookswitch::{
    config::ReceiverSettings,
    domain::{
        Clock, Endpoint, EndpointId, Envelope, ManualClock, OrgId, Provider, RouteState, SecretBytes, SecretId, Source,
        Timestamp, VerifiedEvent,
    },
    listener,
    queue::{ConsumeError, Deliveries, EventQueue, PublishError, QueueState},
    receiver::{Receiver, ReceiverParts},
    routing::RouteTable,
    source::{
        Plan, VapiPlan,
        sign::{SignedHeader, VapiSigner, form_body, sign_twilio},
    },
    store::{SqliteStore, Store, audit::AuditEntry, endpoints::*, rejections::Rejection, routes::*},
    vault::{Keyring, Purpose, Vault},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub const PUBLIC_URL: &str = "https://hooks.example";
pub const WAIT: Duration = Duration::from_secs(10);

/// What the queue does with the next events.
#[derive(Clone, Debug)]
pub enum Mood {
    Take,
    Refuse(PublishError),
    /// Waits until the mood changes: a broker that does not confirm.
    Wait,
}

/// A queue in memory. The real one has its own suite; here it has to refuse and to hang on demand.
pub struct Outbox {
    events: Mutex<Vec<Envelope>>,
    mood: watch::Sender<Mood>,
    begun: watch::Sender<usize>,
    /// Where events go instead of memory.
    through: Option<Arc<dyn EventQueue>>,
}

impl Outbox {
    fn new(through: Option<Arc<dyn EventQueue>>) -> Arc<Self> {
        Arc::new(Self {
            events: Mutex::default(),
            mood: watch::Sender::new(Mood::Take),
            begun: watch::Sender::new(0),
            through,
        })
    }

    pub fn events(&self) -> Vec<Envelope> {
        self.events.lock().unwrap().clone()
    }

    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Waits until so many publishes were begun.
    pub async fn begun(&self, count: usize) {
        let mut begun = self.begun.subscribe();
        tokio::time::timeout(WAIT, begun.wait_for(|begun| *begun >= count))
            .await
            .expect("publishes begin")
            .unwrap();
    }
}

#[async_trait]
impl EventQueue for Outbox {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        self.begun.send_modify(|begun| *begun += 1);
        let mut mood = self.mood.subscribe();
        let mood = mood
            .wait_for(|mood| !matches!(mood, Mood::Wait))
            .await
            .expect("the outbox lives")
            .clone();
        if let Mood::Refuse(error) = mood {
            return Err(error);
        }
        if let Some(queue) = &self.through {
            return queue.publish(event).await;
        }
        self.events.lock().unwrap().push(event.envelope().clone());
        Ok(())
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        Err(ConsumeError::AlreadyConsumed)
    }

    fn state(&self) -> QueueState {
        QueueState::default()
    }

    async fn close(&self) {}
}

pub struct Ingress {
    pub address: SocketAddr,
    pub receiver: Receiver,
    pub queue: Arc<Outbox>,
    pub store: Arc<SqliteStore>,
    pub vault: Arc<Vault>,
    pub clock: Arc<ManualClock>,
    pub stop: CancellationToken,
    pub listening: tokio::task::JoinHandle<()>,
    _stop: DropGuard,
    _background: tokio::task::JoinHandle<()>,
    _database: Database,
}

/// One organisation with a Vapi secret of its own and an assistant, and the Twilio auth token of an
/// account.
#[derive(Clone)]
pub struct Tenant {
    pub org: OrgId,
    pub assistant: String,
    pub secret: SecretBytes,
}

pub fn settings() -> ReceiverSettings {
    ReceiverSettings {
        public_url: Some(PUBLIC_URL.into()),
        ..ReceiverSettings::default()
    }
}

impl Ingress {
    /// With organisations `a` and `b`, loaded before the receiver starts. Nothing refreshes the
    /// snapshot but a look again.
    pub async fn start(settings: ReceiverSettings) -> (Self, [Tenant; 2]) {
        let database = Database::new();
        let clock = Arc::clone(&database.clock);
        Self::start_with(settings, database, clock, None).await
    }

    /// In front of a real queue.
    pub async fn start_on(settings: ReceiverSettings, queue: Arc<dyn EventQueue>) -> (Self, [Tenant; 2]) {
        let database = Database::new();
        let clock = Arc::clone(&database.clock);
        Self::start_with(settings, database, clock, Some(queue)).await
    }

    /// With a clock of the receiver's own beside the database's.
    pub async fn start_with(
        settings: ReceiverSettings,
        database: Database,
        clock: Arc<ManualClock>,
        through: Option<Arc<dyn EventQueue>>,
    ) -> (Self, [Tenant; 2]) {
        let store = database.open().await;
        let ring = Keyring::from_hex(&[SecretBytes::from("5a".repeat(32))]).unwrap();
        let vault = Arc::new(Vault::new(ring, Arc::clone(&store) as _));
        let tenants = [tenant(&store, &vault, "a").await, tenant(&store, &vault, "b").await];
        let routes = RouteTable::load(
            Arc::clone(&store) as Arc<dyn Store>,
            Arc::clone(&clock) as Arc<dyn Clock>,
        )
        .await
        .unwrap();
        let queue = Outbox::new(through);
        let receiver = Receiver::new(ReceiverParts {
            routes,
            vault: Arc::clone(&vault),
            queue: Arc::clone(&queue) as Arc<dyn EventQueue>,
            store: Arc::clone(&store) as Arc<dyn Store>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            settings,
        })
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let hard = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the handles are kept")]
        let (listening, background) = (
            tokio::spawn(listener::serve(
                listener,
                receiver.router(),
                receiver.limits(),
                stop.clone(),
                hard.clone(),
            )),
            tokio::spawn(receiver.clone().run_background(hard.clone())),
        );
        let ingress = Self {
            address,
            receiver,
            queue,
            store,
            vault,
            clock,
            stop,
            listening,
            _stop: hard.drop_guard(),
            _background: background,
            _database: database,
        };
        (ingress, tenants)
    }

    pub async fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends bytes on a connection of their own and reads one answer.
    pub async fn exchange(&self, bytes: &[u8]) -> Answer {
        let mut wire = self.connect().await;
        wire.send(bytes).await;
        wire.answer().await.expect("an answer")
    }

    /// Rejections once there are `count`, newest first, as an operator sees them.
    pub async fn rejections(&self, count: usize) -> Vec<Rejection> {
        self.rejections_of(None, count).await
    }

    pub async fn rejections_of(&self, org: Option<OrgId>, count: usize) -> Vec<Rejection> {
        use hookswitch::store::rejections::Rejections;
        let deadline = Instant::now() + WAIT;
        loop {
            self.receiver.flush_rejections();
            let found = self
                .store
                .list_rejections(org, RejectionFilter::default(), None, 100)
                .await
                .unwrap();
            if found.len() >= count {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} rejections were flushed",
                found.len()
            );
            tokio::task::yield_now().await;
        }
    }

    pub async fn add_endpoint(
        &self,
        tenant: &Tenant,
        ignored_types: &[&str],
        secret: Option<&SecretBytes>,
    ) -> EndpointId {
        self.add_endpoint_of(Source::Vapi, tenant, ignored_types, secret).await
    }

    pub async fn add_twilio_endpoint(&self, tenant: &Tenant, secret: &SecretBytes) -> EndpointId {
        self.add_endpoint_of(Source::Twilio, tenant, &[], Some(secret)).await
    }

    async fn add_endpoint_of(
        &self,
        source: Source,
        tenant: &Tenant,
        ignored_types: &[&str],
        secret: Option<&SecretBytes>,
    ) -> EndpointId {
        let endpoint = Endpoint {
            id: EndpointId::generate(),
            org: tenant.org,
            source,
            name: "own".into(),
            is_active: true,
            ignored_types: ignored_types.iter().map(|&kind| kind.to_owned()).collect(),
            version: 1,
            created_at: NOW,
        };
        let id = endpoint.id;
        let mut secrets = Vec::new();
        if let Some(secret) = secret {
            secrets.push(sealed(&self.vault, tenant.org, Some(id), source, secret).await);
        }
        self.store
            .create_endpoint(endpoint, secrets, audit(tenant.org))
            .await
            .unwrap();
        id
    }

    pub async fn add_secret(&self, tenant: &Tenant, secret: &SecretBytes, others_not_after: Option<Timestamp>) {
        let secret = sealed(&self.vault, tenant.org, None, Source::Vapi, secret).await;
        assert!(
            self.store
                .add_secrets(vec![secret], None, others_not_after, audit(tenant.org))
                .await
                .unwrap()
        );
    }

    /// Proves a number at Vapi for a tenant, as its own credential would.
    pub async fn prove_vapi_number(&self, tenant: &Tenant, number: &str, id: &str) {
        let claim = NumberClaim {
            org: tenant.org,
            number: number.to_owned(),
            provider: Provider::Vapi,
            account_id: None,
            provider_number_id: Some(id.to_owned()),
            state: RouteState::Live,
            proof: Some(Proof::ReadAtProvider),
            proven_at: Some(NOW),
            version: 1,
            created_at: NOW,
        };
        let audit = audit(tenant.org);
        self.store.prove_number(claim, Displaces::Anyone, audit).await.unwrap();
    }

    pub async fn prove(&self, tenant: &Tenant, assistant: &str) {
        prove(&self.store, tenant.org, assistant).await;
    }
}

async fn sealed(
    vault: &Vault,
    org: OrgId,
    endpoint: Option<EndpointId>,
    source: Source,
    secret: &SecretBytes,
) -> NewSecret {
    let plan = hookswitch::source::plan_default(source).unwrap();
    NewSecret {
        id: SecretId::generate(),
        org,
        endpoint,
        source,
        plan: serde_json::to_string(&plan).unwrap(),
        sealed: vault
            .seal(org, Purpose::SigningSecret(source), secret.expose_secret())
            .await
            .unwrap(),
        last_four: None,
    }
}

async fn tenant(store: &Arc<SqliteStore>, vault: &Vault, name: &str) -> Tenant {
    use hookswitch::store::organisations::Organisations;
    let tenant = Tenant {
        org: OrgId::generate(),
        assistant: format!("asst-{name}"),
        secret: SecretBytes::from(format!("{name}-").repeat(16)),
    };
    store
        .create_organisation(tenant.org, name, audit(tenant.org))
        .await
        .unwrap();
    for source in [Source::Vapi, Source::Twilio] {
        let secret = sealed(vault, tenant.org, None, source, &tenant.secret).await;
        store
            .replace_org_secrets(tenant.org, source, vec![secret], None, audit(tenant.org))
            .await
            .unwrap();
    }
    prove(store, tenant.org, &tenant.assistant).await;
    let number = NumberClaim {
        org: tenant.org,
        number: tenant.number().into(),
        provider: Provider::Twilio,
        account_id: Some(tenant.account()),
        provider_number_id: None,
        state: RouteState::Live,
        proof: Some(Proof::ReadAtProvider),
        proven_at: Some(NOW),
        version: 1,
        created_at: NOW,
    };
    let audit = audit(tenant.org);
    store.prove_number(number, Displaces::Anyone, audit).await.unwrap();
    tenant
}

async fn prove(store: &SqliteStore, org: OrgId, assistant: &str) {
    let claim = AssistantClaim {
        org,
        assistant_id: assistant.into(),
        role: None,
        name: None,
        state: RouteState::Live,
        proof: Some(Proof::ReadAtProvider),
        proven_at: Some(NOW),
        version: 1,
        created_at: NOW,
    };
    let audit = audit(org);
    store.prove_assistant(claim, Displaces::Anyone, audit).await.unwrap();
}

fn audit(org: OrgId) -> AuditEntry {
    AuditEntry {
        org,
        at: NOW,
        actor: "test".into(),
        verb: "create",
        target_kind: "endpoint",
        target_id: "x".into(),
        fields: Vec::new(),
    }
}

impl Tenant {
    pub fn number(&self) -> &'static str {
        if self.assistant == "asst-a" {
            "+15552010100"
        } else {
            "+15552010200"
        }
    }

    pub fn account(&self) -> String {
        format!("AC{}", if self.assistant == "asst-a" { "a" } else { "b" }.repeat(32))
    }

    /// A status update of one of its calls.
    pub fn body(&self) -> String {
        vapi_body(&self.assistant)
    }

    /// Headers of Vapi's default plan.
    pub fn sign(&self, path: &str, body: &[u8], at: Timestamp) -> Vec<SignedHeader> {
        sign(&self.secret, path, body, at)
    }

    /// A whole request, signed.
    pub fn request(&self, path: &str, body: &str) -> Vec<u8> {
        request(
            path,
            "application/json",
            &self.sign(path, body.as_bytes(), NOW),
            body.as_bytes(),
        )
    }

    /// A Twilio form to its number, signed with its token.
    pub fn twilio(&self, path: &str, params: &[(&str, &str)]) -> Vec<u8> {
        let (account, number) = (self.account(), self.number());
        let params: Vec<(String, String)> = [("AccountSid", &*account), ("To", number)]
            .iter()
            .chain(params)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let signature = sign_twilio(&self.secret, &format!("{PUBLIC_URL}{path}"), &params);
        let header = ("x-twilio-signature".parse().unwrap(), signature);
        request(
            path,
            "application/x-www-form-urlencoded; charset=UTF-8",
            &[header],
            form_body(&params).as_bytes(),
        )
    }
}

/// A path of ours as senders see it.
pub fn public_url(path: &str) -> String {
    format!("{PUBLIC_URL}{path}")
}

pub fn vapi_body(assistant: &str) -> String {
    format!(
        r#"{{"message":{{"type":"status-update","timestamp":{},"status":"ringing","call":{{"id":"call-1","assistantId":"{assistant}"}}}}}}"#,
        NOW.as_micros() / 1000
    )
}

pub fn sign(secret: &SecretBytes, path: &str, body: &[u8], at: Timestamp) -> Vec<SignedHeader> {
    let Plan::Vapi(plan) = Plan::Vapi(VapiPlan::default()) else {
        unreachable!()
    };
    VapiSigner::new(&plan, secret)
        .unwrap()
        .sign(at, "POST", &format!("{PUBLIC_URL}{path}"), body)
}

/// A POST with a length and these headers, ready for the wire.
pub fn request(path: &str, content_type: &str, headers: &[SignedHeader], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// One connection, read answer by answer.
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The problem's request id, which is also in the header.
    pub fn request_id(&self) -> &str {
        let id = self.header("x-request-id").expect("a refusal has an id");
        assert!(
            self.text().ends_with(&format!(r#","request_id":"{id}"}}"#)),
            "{}",
            self.text()
        );
        id
    }

    /// Without what differs from second to second and from request to request.
    pub fn without_date_and_id(&self) -> (u16, String, String) {
        let head = self
            .head
            .lines()
            .filter(|line| !line.starts_with("date:"))
            .collect::<Vec<_>>()
            .join("\n");
        (
            self.status,
            head.replace(self.request_id(), "ID"),
            self.text().replace(self.request_id(), "ID"),
        )
    }
}

impl Wire {
    pub const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends what the peer takes: it may have answered and closed before it read all.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next answer; `None` when the connection ended instead.
    pub async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, length)) = parse(&self.read) {
                self.read.drain(..length);
                if answer.header("content-type") == Some("application/problem+json") {
                    schema::check_problem(&serde_json::from_slice(&answer.body).expect("JSON"));
                }
                return Some(answer);
            }
            let mut buffer = [0; 4096];
            match tokio::time::timeout(WAIT, self.stream.read(&mut buffer))
                .await
                .expect("an answer, or an end")
            {
                Ok(read @ 1..) => self.read.extend_from_slice(&buffer[..read]),
                _ => return None,
            }
        }
    }

    pub async fn is_closed(&mut self) -> bool {
        self.answer().await.is_none()
    }

    /// Ends with a reset rather than a farewell.
    pub fn reset(self) {
        #[expect(deprecated, reason = "zero seconds never block: this is how a reset is made")]
        self.stream.set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub async fn shut(&mut self) {
        self.stream.shutdown().await.unwrap();
    }
}

fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).unwrap().to_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer {
        status,
        head,
        body: Vec::new(),
    };
    let length = answer
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    answer.body = bytes.get(end..end + length)?.to_vec();
    Some((answer, end + length))
}
