//! A worker over SQLite, with a queue in memory and a stand-in for Twilio's messages.

use crate::ledger::{
    Directory,
    suite::{action as planned_action, audit, envelope, event as planned_event},
};
use async_trait::async_trait;
use bytes::Bytes;
use hookswitch::{
    attempt::Engine,
    config::{ProviderSettings, VaultSettings, WorkerSettings},
    domain::*,
    provider::Providers,
    queue::{ConsumeError, Deliveries, Delivery, DeliveryTag, EventQueue, PublishError, QueueState},
    store::{
        self, Store,
        credentials::NewCredential,
        history::StoredAction,
        ledger::{Claim, ClaimLimits, PlannedAction},
    },
    vault::{Keyring, Purpose, Vault},
    worker::{Failure, Worker},
};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
pub const OTHER_ACCOUNT: &str = "AC1111111111abcdef0123456789abcdef";

/// A queue that keeps what was acked.
pub struct Queue {
    pub waiting: Mutex<Option<mpsc::UnboundedReceiver<Delivery>>>,
    pub acked: Arc<Mutex<BTreeSet<u64>>>,
    is_broken: Arc<AtomicBool>,
}

pub struct Consumed {
    waiting: mpsc::UnboundedReceiver<Delivery>,
    acked: Arc<Mutex<BTreeSet<u64>>>,
    is_broken: Arc<AtomicBool>,
}

impl Queue {
    /// The worker's next look at the queue panics.
    pub fn break_on_next(&self, send: &mpsc::UnboundedSender<Delivery>) {
        self.is_broken.store(true, Ordering::SeqCst);
        let event = Ok(envelope(OrgId::generate(), 99));
        drop(send.send(Delivery {
            tag: DeliveryTag(u64::MAX),
            event,
        }));
    }
}

#[async_trait]
impl EventQueue for Queue {
    async fn publish(&self, _event: &VerifiedEvent) -> Result<(), PublishError> {
        Err(PublishError::Closed)
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        let waiting = self
            .waiting
            .lock()
            .expect("lock")
            .take()
            .ok_or(ConsumeError::AlreadyConsumed)?;
        Ok(Box::new(Consumed {
            waiting,
            acked: self.acked.clone(),
            is_broken: self.is_broken.clone(),
        }))
    }

    fn state(&self) -> QueueState {
        QueueState::default()
    }

    async fn close(&self) {}
}

#[async_trait]
impl Deliveries for Consumed {
    async fn next_batch(&mut self, count_max: usize) -> Result<Vec<Delivery>, ConsumeError> {
        assert!(!self.is_broken.load(Ordering::SeqCst), "the queue of the test breaks");
        let mut batch = Vec::new();
        self.waiting.recv_many(&mut batch, count_max).await;
        assert!(!self.is_broken.load(Ordering::SeqCst), "the queue of the test breaks");
        Ok(batch)
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), ConsumeError> {
        self.acked.lock().expect("lock").extend(tags.iter().map(|tag| tag.0));
        Ok(())
    }
}

/// How the stand-in answers a send.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    Accept,
    /// Takes the message and never answers.
    AcceptAndHang,
    /// Never takes it and never answers.
    Hang,
    /// Takes the message and answers when it is released.
    AcceptWhenReleased,
    /// Down.
    Unavailable,
}

#[derive(Default)]
pub struct Seen {
    pub mode: Option<Mode>,
    /// Account SIDs and their auth tokens.
    pub tokens: BTreeMap<String, String>,
    pub messages: Vec<Value>,
    pub posts: usize,
    pub lists: usize,
}

#[derive(Clone, Default)]
pub struct Twilio(pub Arc<Mutex<Seen>>, CancellationToken);

impl Twilio {
    async fn answer(
        self,
        request: http::Request<hyper::body::Incoming>,
    ) -> Result<http::Response<Full<Bytes>>, Infallible> {
        let answer = |status: u16, body: Value| {
            http::Response::builder()
                .status(status)
                .body(Full::new(Bytes::from(body.to_string())))
                .expect("an answer")
        };
        let authorization = request
            .headers()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let is_post = request.method() == "POST";
        let account = request.uri().path().split('/').nth(3).unwrap_or_default().to_owned();
        let body = request
            .into_body()
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let field = |name: &str| {
            let text = String::from_utf8_lossy(&body).into_owned();
            text.split('&')
                .find_map(|pair| pair.strip_prefix(&format!("{name}=")))
                .unwrap_or_default()
                .replace("%2B", "+")
                .replace('+', if name == "Body" { " " } else { "+" })
        };
        let (mode, good) = {
            let mut seen = self.0.lock().expect("lock");
            use base64::Engine;
            let expected = format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(format!(
                    "{account}:{}",
                    seen.tokens.get(&account).map_or("none", String::as_str)
                ))
            );
            if is_post {
                seen.posts += 1;
            } else {
                seen.lists += 1;
            }
            (seen.mode.unwrap_or(Mode::Accept), authorization == expected)
        };
        if !good {
            return Ok(answer(
                401,
                json!({"code": 20003, "message": "Authenticate", "status": 401}),
            ));
        }
        if !is_post {
            let messages: Vec<Value> = self.0.lock().expect("lock").messages.clone();
            let messages: Vec<Value> = messages
                .into_iter()
                .filter(|message| message["account_sid"] == account.as_str())
                .collect();
            return Ok(answer(200, json!({"messages": messages, "next_page_uri": null})));
        }
        let message = json!({"sid": format!("SM{}", uuid::Uuid::now_v7().simple()), 
            "to": field("To"), "from": field("From"), "body": field("Body"),
            "account_sid": account, "direction": "outbound-api", "status": "queued", "date_created": null});
        if matches!(mode, Mode::Accept | Mode::AcceptAndHang | Mode::AcceptWhenReleased) {
            self.0.lock().expect("lock").messages.push(message.clone());
        }
        match mode {
            Mode::Accept => Ok(answer(201, message)),
            Mode::Unavailable => Ok(answer(503, json!({"code": 20503, "message": "down", "status": 503}))),
            Mode::AcceptWhenReleased => {
                self.1.cancelled().await;
                Ok(answer(201, message))
            }
            Mode::AcceptAndHang | Mode::Hang => std::future::pending().await,
        }
    }

    /// Answers what waits for it.
    pub fn release(&self) {
        self.1.cancel();
    }

    pub fn set(&self, mode: Mode) {
        self.0.lock().expect("lock").mode = Some(mode);
    }

    pub fn count(&self) -> (usize, usize) {
        let seen = self.0.lock().expect("lock");
        (seen.posts, seen.messages.len())
    }
}

pub struct Rig {
    pub store: Arc<dyn Store>,
    pub vault: Arc<Vault>,
    pub twilio: Twilio,
    pub base_url: String,
    pub send: mpsc::UnboundedSender<Delivery>,
    pub queue: Arc<Queue>,
    pub org: OrgId,
    pub clock: Arc<SystemClock>,
    pub settings: WorkerSettings,
    pub tasks: JoinSet<()>,
    /// The stand-in outlives a worker that dies.
    _server: JoinSet<()>,
    pub next_tag: u64,
    pub soft: CancellationToken,
    pub directory: Directory,
    /// The database's clock less the worker's, in microseconds.
    pub clock_offset: Arc<AtomicI64>,
    pub failure: Failure,
}

/// Looks until it is so, or ten seconds are over.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(std::time::Instant::now() < end, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Rig {
    pub async fn new() -> Self {
        let directory = Directory::new();
        let url = format!("sqlite:{}", directory.0.join("store.db").display());
        let store = store::create(&url, Arc::new(SystemClock)).await.expect("opens");
        Self::over(store, directory).await
    }

    /// The same over a store of the caller's.
    pub async fn over(store: Arc<dyn Store>, directory: Directory) -> Self {
        let clock = Arc::new(SystemClock);
        let org = OrgId::generate();
        store
            .create_organisation(org, "an organisation", audit(org))
            .await
            .expect("created");
        let keyring = Keyring::from_hex(&[SecretBytes::new("a1".repeat(32).into_bytes())]).expect("a key");
        let vault = Arc::new(Vault::new(keyring, store.clone()));
        let twilio = Twilio::default();
        twilio.0.lock().expect("lock").tokens = BTreeMap::from([
            (ACCOUNT.to_owned(), "t1".repeat(16)),
            (OTHER_ACCOUNT.to_owned(), "t2".repeat(16)),
        ]);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let base_url = format!("http://{}", listener.local_addr().expect("bound"));
        let mut server = JoinSet::new();
        let served = twilio.clone();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let twilio = served.clone();
                let service = hyper::service::service_fn(move |request| twilio.clone().answer(request));
                connections.spawn(async move {
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        let (send, waiting) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue {
            waiting: Mutex::new(Some(waiting)),
            acked: Arc::default(),
            is_broken: Arc::default(),
        });
        let settings = WorkerSettings {
            attempt_seconds_max: Duration::from_millis(400),
            lease_seconds: Duration::from_secs(20),
            settle_seconds: Duration::from_millis(100),
            backoff_seconds_min: Duration::from_millis(20),
            backoff_seconds_max: Duration::from_millis(200),
            ..WorkerSettings::default()
        };
        Self {
            store,
            vault,
            twilio,
            base_url,
            send,
            queue,
            org,
            clock,
            settings,
            tasks: JoinSet::new(),
            _server: server,
            next_tag: 0,
            soft: CancellationToken::new(),
            directory,
            clock_offset: Arc::default(),
            failure: Failure::default(),
        }
    }

    /// A vault with nothing in its memory.
    pub fn forget_keys(&mut self) {
        let keyring = Keyring::from_hex(&[SecretBytes::new("a1".repeat(32).into_bytes())]).expect("a key");
        self.vault = Arc::new(Vault::new(keyring, self.store.clone()));
    }

    fn worker(&self) -> Worker {
        let provider = ProviderSettings {
            twilio_base_url: self.base_url.clone(),
            ..ProviderSettings::default()
        };
        Worker {
            store: self.store.clone(),
            queue: self.queue.clone(),
            vault: self.vault.clone(),
            providers: Providers::new(&provider, None).expect("providers"),
            clock: self.clock.clone(),
            settings: self.settings.clone(),
            credentials: VaultSettings::default(),
            public_url: None,
            clock_offset: {
                let offset = self.clock_offset.clone();
                Arc::new(move || offset.load(Ordering::Relaxed))
            },
            failure: self.failure.clone(),
        }
    }

    pub fn start(&mut self) {
        let worker = self.worker();
        self.tasks
            .spawn(worker.run(self.soft.clone(), CancellationToken::new()));
    }

    /// An engine by itself, with a deadline for an exchange and a margin of the lease beyond it.
    pub fn engine(&self, deadline: Duration, margin: Duration) -> Engine {
        let mut worker = self.worker();
        worker.settings.attempt_seconds_max = deadline;
        worker.settings.lease_seconds = deadline + margin * 2;
        worker.engine()
    }

    /// Plans an SMS and claims it.
    pub async fn claimed(&self, lease: Duration) -> Claim {
        let request = json!({"to": "+15550001111", "body": "hi"}).to_string();
        let sealed = self
            .vault
            .seal(self.org, Purpose::Payload, request.as_bytes())
            .await
            .expect("sealed");
        let now = self.clock.now();
        let action = PlannedAction {
            request: Some(sealed),
            expires_at: now + Duration::from_hours(1),
            ..planned_action()
        };
        let id = action.id;
        let key = u8::try_from(self.actions().await.len()).expect("few");
        let event = planned_event(self.org, key, vec![action]);
        self.store.plan(vec![event].into()).await.expect("planned");
        let limits = ClaimLimits {
            count_max: 10,
            turn_max: 10,
            allowances: Vec::new(),
            deferred: Arc::default(),
            lease,
        };
        let claims = self.store.claim(limits, self.clock.now()).await.expect("claimed");
        claims.into_iter().find(|claim| claim.action == id).expect("due")
    }

    pub async fn connect_twilio(&self, token: &str) {
        self.connect_account(ACCOUNT, token).await;
    }

    pub async fn connect_account(&self, account: &str, token: &str) {
        let plaintext =
            json!({"account_sid": account, "auth_token": token, "phone_number": "+15550000001"}).to_string();
        let sealed = self
            .vault
            .seal(self.org, Purpose::Credential(Provider::Twilio), plaintext.as_bytes())
            .await
            .expect("sealed");
        let new = NewCredential {
            org: self.org,
            provider: Provider::Twilio,
            name: String::new(),
            sealed,
            state: IntegrationState::Connected,
            missing: None,
            account_id: None,
            account_name: None,
            account_fingerprint: Some(format!("fingerprint of {account}")),
            last_four: None,
            verified_at: None,
            expects: hookswitch::store::credentials::Expects::Anything,
        };
        self.store.save_credential(new, audit(self.org)).await.expect("saved");
    }

    pub async fn rule(&self, name: &str, when: Option<&str>, to: &str) -> RuleId {
        let Value::Object(parameters) = json!({"to": to, "body": "Thanks for calling"}) else {
            unreachable!("an object")
        };
        let spec = RuleSpec {
            name: name.into(),
            source: Source::Vapi,
            event_type: TypePattern("end-of-call-report".into()),
            when: when.map(str::to_owned),
            action: ActionKind::TwilioSendSms,
            parameters,
            expires_after_seconds: None,
            enabled: true,
        };
        let now = self.clock.now();
        let rule = Rule {
            id: RuleId::generate(),
            org: self.org,
            spec,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let id = rule.id;
        self.store.create_rule(rule, audit(self.org)).await.expect("created");
        id
    }

    pub async fn spec_of(&self, rule: RuleId) -> RuleSpec {
        let rules = self.store.list_rules(self.org, None, 10).await.expect("read");
        rules.into_iter().find(|stored| stored.id == rule).expect("there").spec
    }

    /// Writes the text of a rule's spec behind the store's back.
    pub async fn overwrite_rule(&self, rule: RuleId, spec: &str) {
        use sqlx::Connection;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.directory.0.join("store.db"));
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.expect("opens");
        let written = sqlx::query("UPDATE rules SET spec = ?1 WHERE id = ?2")
            .bind(spec)
            .bind(rule.as_bytes().as_slice())
            .execute(&mut connection)
            .await;
        assert_eq!(written.expect("a statement").rows_affected(), 1);
    }

    /// Damages the stored credential behind the store's back: what is cached of it works on, and a
    /// load fails.
    pub async fn damage_credential(&self) {
        use sqlx::Connection;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.directory.0.join("store.db"));
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.expect("opens");
        let written = sqlx::query("UPDATE org_credentials SET sealed = x'00' WHERE org_id = ?1")
            .bind(self.org.as_bytes().as_slice())
            .execute(&mut connection)
            .await;
        assert_eq!(written.expect("a statement").rows_affected(), 1);
    }

    /// Saves a rule as the admin API does.
    pub async fn save_rule(&self, rule: RuleId, spec: &str) {
        let spec = serde_json::from_str(spec).expect("a spec");
        let saved = self.store.update_rule(self.org, rule, 1, spec, audit(self.org)).await;
        assert_eq!(saved.expect("saved"), Some(2));
    }

    pub fn deliver(&mut self, org: OrgId, key: u8, body: &Value) -> u64 {
        self.deliver_as(org, key, "end-of-call-report", body)
    }

    pub fn deliver_as(&mut self, org: OrgId, key: u8, kind: &str, body: &Value) -> u64 {
        let now = self.clock.now();
        let event = Envelope {
            event_type: EventType::new(Source::Vapi, kind),
            time: now,
            received_at: now,
            body: Bytes::from(body.to_string()),
            ..envelope(org, key)
        };
        self.next_tag += 1;
        self.send
            .send(Delivery {
                tag: DeliveryTag(self.next_tag),
                event: Ok(event),
            })
            .expect("the queue takes it");
        self.next_tag
    }

    /// Delivers an end-of-call report under a key of its own: more than a byte has values.
    pub fn deliver_numbered(&mut self, org: OrgId, key: u16, body: &Value) -> u64 {
        let now = self.clock.now();
        let mut dedupe_key = [0; 16];
        dedupe_key[..2].copy_from_slice(&key.to_le_bytes());
        let event = Envelope {
            time: now,
            received_at: now,
            dedupe_key: DedupeKey(dedupe_key),
            body: Bytes::from(body.to_string()),
            ..envelope(org, 0)
        };
        self.next_tag += 1;
        let tag = DeliveryTag(self.next_tag);
        let event = Ok(event);
        self.send.send(Delivery { tag, event }).expect("the queue takes it");
        self.next_tag
    }

    pub async fn acked(&self, tag: u64) {
        until("acked", || async {
            self.queue.acked.lock().expect("lock").contains(&tag).then_some(())
        })
        .await;
    }

    pub async fn actions(&self) -> Vec<StoredAction> {
        self.store
            .list_actions(self.org, store::history::ActionFilter::default(), None, 100)
            .await
            .expect("read")
    }

    pub async fn action_in(&self, state: ActionState) -> StoredAction {
        until(state.as_str(), || async {
            self.actions().await.into_iter().find(|action| action.state == state)
        })
        .await
    }

    pub async fn stop(mut self) {
        self.soft.cancel();
        drop(self.send);
        until("the worker's end", || {
            let ended = self.tasks.try_join_next().is_some();
            async move { ended.then_some(()) }
        })
        .await;
        self.store.close().await;
    }
}

pub fn report(number: &str) -> Value {
    json!({"message": {"type": "end-of-call-report", "endedReason": "customer-ended-call", "customer": {"number": number}}})
}
