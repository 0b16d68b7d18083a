//! The worker over SQLite, a queue in memory and a stand-in for Twilio's messages: from a delivery
//! to what the provider saw.

use crate::ledger::{
    Directory,
    suite::{audit, envelope},
};
use async_trait::async_trait;
use bytes::Bytes;
use hookswitch::{
    config::{ProviderSettings, VaultSettings, WorkerSettings},
    domain::*,
    provider::Providers,
    queue::{ConsumeError, Deliveries, Delivery, DeliveryTag, EventQueue, PublishError, QueueState},
    store::{self, Store, credentials::NewCredential, history::StoredAction},
    vault::{Keyring, Purpose, Vault},
    worker::Worker,
};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

/// A queue that keeps what was acked.
struct Queue {
    waiting: Mutex<Option<mpsc::UnboundedReceiver<Delivery>>>,
    acked: Arc<Mutex<BTreeSet<u64>>>,
}

struct Consumed {
    waiting: mpsc::UnboundedReceiver<Delivery>,
    acked: Arc<Mutex<BTreeSet<u64>>>,
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
        let mut batch = Vec::new();
        self.waiting.recv_many(&mut batch, count_max).await;
        Ok(batch)
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), ConsumeError> {
        self.acked.lock().expect("lock").extend(tags.iter().map(|tag| tag.0));
        Ok(())
    }
}

/// How the stand-in answers a send.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Accept,
    /// Takes the message and never answers.
    AcceptAndHang,
    /// Never takes it and never answers.
    Hang,
    /// Down.
    Unavailable,
}

#[derive(Default)]
struct Seen {
    mode: Option<Mode>,
    /// Basic auth that is right.
    token: String,
    messages: Vec<Value>,
    posts: usize,
    lists: usize,
}

#[derive(Clone, Default)]
struct Twilio(Arc<Mutex<Seen>>);

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
                base64::engine::general_purpose::STANDARD.encode(format!("{ACCOUNT}:{}", seen.token))
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
            return Ok(answer(
                200,
                json!({"messages": self.0.lock().expect("lock").messages, "next_page_uri": null}),
            ));
        }
        let message = json!({"sid": format!("SM{}", uuid::Uuid::now_v7().simple()), 
            "to": field("To"), "from": field("From"), "body": field("Body"),
            "direction": "outbound-api", "status": "queued", "date_created": null});
        if matches!(mode, Mode::Accept | Mode::AcceptAndHang) {
            self.0.lock().expect("lock").messages.push(message.clone());
        }
        match mode {
            Mode::Accept => Ok(answer(201, message)),
            Mode::Unavailable => Ok(answer(503, json!({"code": 20503, "message": "down", "status": 503}))),
            Mode::AcceptAndHang | Mode::Hang => std::future::pending().await,
        }
    }

    fn set(&self, mode: Mode) {
        self.0.lock().expect("lock").mode = Some(mode);
    }

    fn count(&self) -> (usize, usize) {
        let seen = self.0.lock().expect("lock");
        (seen.posts, seen.messages.len())
    }
}

struct Rig {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    twilio: Twilio,
    base_url: String,
    send: mpsc::UnboundedSender<Delivery>,
    queue: Arc<Queue>,
    org: OrgId,
    clock: Arc<SystemClock>,
    settings: WorkerSettings,
    tasks: JoinSet<()>,
    /// The stand-in outlives a worker that dies.
    _server: JoinSet<()>,
    next_tag: u64,
    soft: CancellationToken,
    directory: Directory,
}

/// Looks until it is so, or ten seconds are over.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
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
    async fn new() -> Self {
        let directory = Directory::new();
        let clock = Arc::new(SystemClock);
        let store = store::connect(
            &format!("sqlite:{}", directory.0.join("store.db").display()),
            clock.clone(),
        )
        .await
        .expect("opens");
        let org = OrgId::generate();
        store
            .create_organisation(org, "an organisation", audit(org))
            .await
            .expect("created");
        let keyring = Keyring::from_hex(&[SecretBytes::new("a1".repeat(32).into_bytes())]).expect("a key");
        let vault = Arc::new(Vault::new(keyring, store.clone()));
        let twilio = Twilio::default();
        twilio.0.lock().expect("lock").token = "t1".repeat(16);
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
        }
    }

    fn start(&mut self) {
        let provider = ProviderSettings {
            twilio_base_url: self.base_url.clone(),
            ..ProviderSettings::default()
        };
        let worker = Worker {
            store: self.store.clone(),
            queue: self.queue.clone(),
            vault: self.vault.clone(),
            providers: Providers::new(&provider, None).expect("providers"),
            clock: self.clock.clone(),
            settings: self.settings.clone(),
            credentials: VaultSettings::default(),
            public_url: None,
        };
        self.tasks
            .spawn(worker.run(self.soft.clone(), CancellationToken::new()));
    }

    async fn connect_twilio(&self, token: &str) {
        let plaintext =
            json!({"account_sid": ACCOUNT, "auth_token": token, "phone_number": "+15550000001"}).to_string();
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
            account_fingerprint: None,
            last_four: None,
            verified_at: None,
        };
        self.store.save_credential(new, audit(self.org)).await.expect("saved");
    }

    async fn rule(&self, name: &str, when: Option<&str>, to: &str) {
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
        self.store.create_rule(rule, audit(self.org)).await.expect("created");
    }

    fn deliver(&mut self, org: OrgId, key: u8, body: &Value) -> u64 {
        let now = self.clock.now();
        let event = Envelope {
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

    async fn acked(&self, tag: u64) {
        until("acked", || async {
            self.queue.acked.lock().expect("lock").contains(&tag).then_some(())
        })
        .await;
    }

    async fn actions(&self) -> Vec<StoredAction> {
        self.store
            .list_actions(self.org, store::history::ActionFilter::default(), None, 100)
            .await
            .expect("read")
    }

    async fn action_in(&self, state: ActionState) -> StoredAction {
        until(state.as_str(), || async {
            self.actions().await.into_iter().find(|action| action.state == state)
        })
        .await
    }

    async fn stop(mut self) {
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

fn report(number: &str) -> Value {
    json!({"message": {"type": "end-of-call-report", "endedReason": "customer-ended-call", "customer": {"number": number}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_delivered_again_and_again_sends_one_sms_and_a_failing_rule_costs_itself_only() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule(
        "text the caller",
        Some("message.endedReason != 'customer-busy'"),
        "{{ message.customer.number }}",
    )
    .await;
    rig.rule("fails", None, "{{ message.absent.number }}").await;
    rig.rule(
        "not this one",
        Some("message.endedReason == 'customer-busy'"),
        "{{ message.customer.number }}",
    )
    .await;
    rig.start();
    let tags: Vec<u64> = (0..50)
        .map(|_| rig.deliver(rig.org, 1, &report("+15550001111")))
        .collect();
    let unknown = rig.deliver(
        rig.org,
        2,
        &json!({"message": {"type": "x", "endedReason": "customer-busy", "customer": {"number": "+15550002222"}}}),
    );
    for tag in tags {
        rig.acked(tag).await;
    }
    rig.acked(unknown).await;
    let sent = until("the first event's own rule", || async {
        rig.actions()
            .await
            .into_iter()
            .find(|action| action.rule_name == "text the caller" && action.state == ActionState::Succeeded)
    })
    .await;
    assert_eq!((sent.attempts, sent.cause), (1, Some(Cause::Accepted)));
    let dead: Vec<StoredAction> = rig
        .actions()
        .await
        .into_iter()
        .filter(|action| action.state == ActionState::Dead)
        .collect();
    assert_eq!(dead.len(), 2, "the failing rule, for each of the two events");
    assert!(dead.iter().all(|action| {
        action.cause == Some(Cause::TemplateFailed)
            && action
                .detail
                .as_deref()
                .is_some_and(|detail| detail.contains("message.absent"))
    }));
    until("the second event's own rule", || async {
        (rig.twilio.count() == (2, 2)).then_some(())
    })
    .await;
    let mut recipients: Vec<String> = rig
        .twilio
        .0
        .lock()
        .expect("lock")
        .messages
        .iter()
        .map(|message| message["to"].to_string())
        .collect();
    recipients.sort();
    assert_eq!(recipients, ["\"+15550001111\"", "\"+15550002222\""]);
    rig.stop().await;
}

/// Invariant 7: what a rule that cannot be read would have wanted is unknown, so nothing of its
/// organisation is unwanted, and nothing of another's waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_cannot_be_read_costs_its_own_organisation_until_it_is_saved_again() {
    use sqlx::Connection;
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    let other = OrgId::generate();
    rig.store
        .create_organisation(other, "another organisation", audit(other))
        .await
        .expect("created");
    let now = rig.clock.now();
    let spec = rig
        .store
        .list_rules(rig.org, None, 1)
        .await
        .expect("read")
        .remove(0)
        .spec;
    let broken = Rule {
        id: RuleId::generate(),
        org: other,
        spec: spec.clone(),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    rig.store
        .create_rule(broken.clone(), audit(other))
        .await
        .expect("created");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(rig.directory.0.join("store.db"));
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.expect("opens");
    let broke = sqlx::query("UPDATE rules SET spec = '{\"name\":' WHERE org_id = ?1")
        .bind(other.as_bytes().as_slice())
        .execute(&mut connection)
        .await;
    assert_eq!(broke.expect("a statement").rows_affected(), 1);

    rig.start();
    let theirs = rig.deliver(other, 1, &report("+15550003333"));
    rig.deliver(rig.org, 2, &report("+15550001111"));
    assert_eq!(
        rig.action_in(ActionState::Succeeded).await.rule_name,
        "text the caller",
        "another organisation's work goes on"
    );
    rig.acked(theirs).await;
    let kept: Vec<String> = sqlx::query_scalar("SELECT reason FROM dead_events WHERE org_id = ?1")
        .bind(other.as_bytes().as_slice())
        .fetch_all(&mut connection)
        .await
        .expect("a statement");
    assert_eq!(
        kept,
        ["a rule of its organisation cannot be read"],
        "set aside, not unwanted"
    );

    let saved = rig
        .store
        .update_rule(other, broken.id, 1, RuleSpec { enabled: false, ..spec }, audit(other))
        .await;
    assert_eq!(saved.expect("saved"), Some(2));
    let theirs = rig.deliver(other, 3, &report("+15550003333"));
    rig.acked(theirs).await;
    let dead: u32 = sqlx::query_scalar("SELECT count(*) FROM dead_events")
        .fetch_one(&mut connection)
        .await
        .expect("a statement");
    assert_eq!(dead, 1, "saved again, it reads again");
    rig.stop().await;
}

/// Invariant 2, B23: taken and not answered: found by a look-up, never sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_without_an_answer_is_looked_up_and_not_sent_again() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.twilio.set(Mode::AcceptAndHang);
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    let found = rig.action_in(ActionState::Succeeded).await;
    assert_eq!(
        (found.cause, found.attempts, found.look_ups),
        (Some(Cause::LookedUp), 1, 1)
    );
    assert_eq!(rig.twilio.count(), (1, 1));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_arrived_is_proved_absent_by_two_look_ups_and_sent_again() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.twilio.set(Mode::Hang);
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    rig.action_in(ActionState::Unknown).await;
    rig.twilio.set(Mode::Accept);
    let sent = rig.action_in(ActionState::Succeeded).await;
    assert_eq!(
        (sent.cause, sent.attempts, sent.look_ups),
        (Some(Cause::Accepted), 2, 2)
    );
    assert_eq!(rig.twilio.count(), (2, 1));
    rig.stop().await;
}

/// Invariant 6, B25: parked after one call, and a newer version resumes it without a used-up try.
/// Without a credential: parked, whatever the environment holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_refused_credential_parks_and_a_newer_one_resumes() {
    let mut rig = Rig::new().await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    assert_eq!(
        rig.action_in(ActionState::Parked).await.cause,
        Some(Cause::NotConnected)
    );
    assert_eq!(rig.twilio.count(), (0, 0));
    rig.connect_twilio(&"bad0".repeat(8)).await;
    let refused = until("refused", || async {
        rig.actions()
            .await
            .into_iter()
            .find(|action| action.cause == Some(Cause::CredentialRefused))
    })
    .await;
    assert_eq!((refused.state, refused.attempts), (ActionState::Parked, 0));
    let health = rig
        .store
        .find_credential(rig.org, Provider::Twilio, "")
        .await
        .expect("read")
        .expect("there")
        .health;
    assert_eq!(health.state, IntegrationState::NeedsReconnecting);
    assert_eq!(rig.twilio.count(), (1, 0));
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.action_in(ActionState::Succeeded).await;
    assert_eq!(rig.twilio.count(), (2, 1));
    rig.stop().await;
}

/// Invariant 7: an organisation that is not known is waited for, and nobody waits behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_an_unknown_organisation_waits_and_stands_in_nobodys_way() {
    let mut rig = Rig::new().await;
    let late = OrgId::generate();
    rig.start();
    let first = rig.deliver(late, 1, &report("+15550001111"));
    let second = rig.deliver(rig.org, 2, &report("+15550001111"));
    rig.acked(second).await;
    assert!(!rig.queue.acked.lock().expect("lock").contains(&first));
    rig.store
        .create_organisation(late, "late", audit(late))
        .await
        .expect("created");
    rig.acked(first).await;
    rig.stop().await;
}

/// B26: an outage opens the breaker, and what waited goes out when it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_waited_for_behind_a_breaker() {
    let mut rig = Rig::new().await;
    rig.settings.breaker_failures = 3;
    rig.settings.breaker_seconds = Duration::from_millis(300);
    rig.settings.attempts_max = 50;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.twilio.set(Mode::Unavailable);
    rig.start();
    let count = 12;
    for key in 0..count {
        rig.deliver(rig.org, key, &report(&format!("+155500011{key:02}")));
    }
    until("a few failures", || async { (rig.twilio.count().0 >= 3).then_some(()) }).await;
    rig.twilio.set(Mode::Accept);
    until("all went out", || async {
        rig.actions()
            .await
            .iter()
            .all(|action| action.state == ActionState::Succeeded)
            .then_some(())
    })
    .await;
    assert_eq!(rig.twilio.count().1, usize::from(count), "each once");
    rig.stop().await;
}

/// kill -9 between the claim and the record: found again at the next start, looked up, and not sent
/// twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_died_after_the_send_leaves_no_second_sms() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.settings.attempt_seconds_max = Duration::from_secs(10);
    rig.twilio.set(Mode::AcceptAndHang);
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    until("taken", || async { (rig.twilio.count() == (1, 1)).then_some(()) }).await;
    assert_eq!(rig.actions().await[0].state, ActionState::Running);
    // All at once, without a word: the worker's tasks are dropped where they stand.
    rig.tasks.abort_all();
    while rig.tasks.join_next().await.is_some() {}
    assert_eq!(
        rig.actions().await[0].state,
        ActionState::Running,
        "nobody could say what became of it"
    );
    rig.start();
    let found = rig.action_in(ActionState::Succeeded).await;
    assert_eq!(
        (found.cause, found.attempts, found.look_ups),
        (Some(Cause::LookedUp), 0, 1)
    );
    assert_eq!(rig.twilio.count(), (1, 1));
    rig.stop().await;
}
