//! The receiver of a [`TestApp`], its senders, and a queue that a test can hold up.

use super::TestApp;
use crate::support::{
    db::NOW,
    wire::{Answer, WAIT, Wire, request},
};
use async_trait::async_trait;
use hookswitch::{
    config::ReceiverSettings,
    domain::{
        Clock, Endpoint, EndpointId, Envelope, OrgId, Provider, RouteState, SecretBytes, SecretId, Source, Timestamp,
        VerifiedEvent,
    },
    listener,
    queue::{ConsumeError, Deliveries, EventQueue, PublishError, QueueState},
    receiver::{Receiver, ReceiverParts},
    routing::RouteTable,
    source::{
        Plan, VapiPlan,
        sign::{SignedHeader, VapiSigner, form_body, sign_twilio},
    },
    store::{
        Store,
        audit::{AuditEntry, Changes},
        endpoints::NewSecret,
        rejections::{Rejection, RejectionFilter},
        routes::{AssistantClaim, Displaces, NumberClaim, Proof},
    },
    vault::{Purpose, Vault},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub const PUBLIC_URL: &str = "https://hooks.example";

/// The queue's behaviour for the next events.
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

/// The receiver as it listens.
pub(super) struct Ingress {
    address: SocketAddr,
    receiver: Receiver,
    queue: Arc<Outbox>,
    tenants: [Tenant; 2],
    soft: CancellationToken,
    listening: Mutex<Option<JoinHandle<()>>>,
    _background: JoinHandle<()>,
}

/// The needs of a test that receives.
pub(super) struct IngressNeeds {
    pub settings: ReceiverSettings,
    /// Where events go instead of memory.
    pub through: Option<Arc<dyn EventQueue>>,
    /// The receiver's own clock.
    pub clock: Arc<dyn Clock>,
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
    /// Loads the routes of both organisations before the receiver starts. Nothing refreshes the
    /// snapshot but a look again.
    pub async fn start(
        needs: IngressNeeds,
        store: &Arc<dyn Store>,
        vault: &Arc<Vault>,
        orgs: [OrgId; 2],
        hard: CancellationToken,
    ) -> Self {
        let IngressNeeds {
            settings,
            through,
            clock,
        } = needs;
        let tenants = [
            tenant(store, vault, orgs[0], "a").await,
            tenant(store, vault, orgs[1], "b").await,
        ];
        let routes = RouteTable::load(Arc::clone(store), Arc::clone(&clock)).await.unwrap();
        let queue = Outbox::new(through);
        let receiver = Receiver::new(ReceiverParts {
            routes,
            vault: Arc::clone(vault),
            queue: Arc::clone(&queue) as Arc<dyn EventQueue>,
            store: Arc::clone(store),
            clock,
            settings,
        })
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let soft = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the handles are kept")]
        let (listening, background) = (
            tokio::spawn(listener::serve(
                listener,
                receiver.router(),
                receiver.limits(),
                soft.clone(),
                hard.clone(),
            )),
            tokio::spawn(receiver.clone().run_background(hard)),
        );
        Self {
            address,
            receiver,
            queue,
            tenants,
            soft,
            listening: Mutex::new(Some(listening)),
            _background: background,
        }
    }
}

impl TestApp {
    /// With a receiver alone, and its two organisations as senders.
    pub async fn receiving(settings: ReceiverSettings) -> (Self, [Tenant; 2]) {
        Self::builder().receiver(settings).start_with_senders().await
    }

    fn ingress(&self) -> &Ingress {
        self.ingress.as_ref().expect("built with `receiver`")
    }

    pub fn senders(&self) -> [Tenant; 2] {
        self.ingress().tenants.clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.ingress().address
    }

    pub fn receiver(&self) -> &Receiver {
        &self.ingress().receiver
    }

    pub fn queue(&self) -> &Arc<Outbox> {
        &self.ingress().queue
    }

    /// Begins a soft stop of the listener.
    pub fn stop_listening(&self) {
        self.ingress().soft.cancel();
    }

    pub async fn listening_ends(&self) {
        let listening = self
            .ingress()
            .listening
            .lock()
            .unwrap()
            .take()
            .expect("waited for once");
        let ended = tokio::time::timeout(WAIT, listening).await;
        ended.expect("the listener ends").unwrap();
    }

    pub async fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(self.address()).await.unwrap())
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
        let deadline = Instant::now() + WAIT;
        loop {
            self.receiver().flush_rejections();
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
            provider: Provider::Vapi,
            account_id: None,
            provider_number_id: Some(id.to_owned()),
            ..number_of_twilio(tenant, number)
        };
        let audit = audit(tenant.org);
        self.store.prove_number(claim, Displaces::Anyone, audit).await.unwrap();
    }

    pub async fn prove(&self, tenant: &Tenant, assistant: &str) {
        prove(&self.store, tenant.org, assistant, false).await;
    }

    /// Gives a route to the platform, as an operator does.
    pub async fn prove_for_platform(&self, tenant: &Tenant, assistant: &str) {
        prove(&self.store, tenant.org, assistant, true).await;
    }

    /// Erases the organisation's own secrets of a source.
    pub async fn erase_secrets(&self, tenant: &Tenant, source: Source) {
        let erased = self
            .store
            .replace_org_secrets(tenant.org, source, vec![], None, audit(tenant.org));
        erased.await.unwrap();
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

async fn tenant(store: &Arc<dyn Store>, vault: &Vault, org: OrgId, name: &str) -> Tenant {
    let tenant = Tenant {
        org,
        assistant: format!("asst-{name}"),
        secret: SecretBytes::from(format!("{name}-").repeat(16)),
    };
    for source in [Source::Vapi, Source::Twilio] {
        let secret = sealed(vault, tenant.org, None, source, &tenant.secret).await;
        store
            .replace_org_secrets(tenant.org, source, vec![secret], None, audit(tenant.org))
            .await
            .unwrap();
    }
    prove(store, tenant.org, &tenant.assistant, false).await;
    let number = number_of_twilio(&tenant, tenant.number());
    let audit = audit(tenant.org);
    store.prove_number(number, Displaces::Anyone, audit).await.unwrap();
    tenant
}

async fn prove(store: &Arc<dyn Store>, org: OrgId, assistant: &str, is_platform_managed: bool) {
    let claim = AssistantClaim {
        org,
        assistant_id: assistant.into(),
        role: None,
        name: None,
        state: RouteState::Live,
        proof: Some(Proof::ReadAtProvider),
        proven_at: Some(NOW),
        is_platform_managed,
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
        changes: Changes::default(),
        address: None,
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
        let (header, params) = self.sign_twilio(&self.secret, path, params);
        request(
            path,
            "application/x-www-form-urlencoded; charset=UTF-8",
            &[header],
            form_body(&params).as_bytes(),
        )
    }

    /// The signature of a form to its number, and the form.
    pub fn sign_twilio(
        &self,
        token: &SecretBytes,
        path: &str,
        params: &[(&str, &str)],
    ) -> (SignedHeader, Vec<(String, String)>) {
        let (account, number) = (self.account(), self.number());
        let params: Vec<(String, String)> = [("AccountSid", &*account), ("To", number)]
            .iter()
            .chain(params)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let signature = sign_twilio(token, &format!("{PUBLIC_URL}{path}"), &params);
        (("x-twilio-signature".parse().unwrap(), signature), params)
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

/// A live number of a tenant, as its Twilio account proved it.
fn number_of_twilio(tenant: &Tenant, number: &str) -> NumberClaim {
    NumberClaim {
        org: tenant.org,
        number: number.to_owned(),
        provider: Provider::Twilio,
        account_id: Some(tenant.account()),
        provider_number_id: None,
        state: RouteState::Live,
        proof: Some(Proof::ReadAtProvider),
        proven_at: Some(NOW),
        is_platform_managed: false,
        sms_at_vapi: None,
        version: 1,
        created_at: NOW,
    }
}
