//! The worker of a [`TestApp`], with a queue in memory that the test fills, and a stand-in for
//! Twilio's messages that can hang. It runs by the system's clock, because its waits are real.

use super::{TestApp, TestAppBuilder, twilio::Twilio};
use crate::{
    ledger::suite::{action as planned_action, audit, envelope, event as planned_event},
    support::until,
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
    vault::Purpose,
    worker::{Failure, Worker},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
pub const OTHER_ACCOUNT: &str = "AC1111111111abcdef0123456789abcdef";

/// A queue that keeps what was acked.
struct Queue {
    waiting: Mutex<Option<mpsc::UnboundedReceiver<Delivery>>>,
    acked: Arc<Mutex<BTreeSet<u64>>>,
    is_broken: Arc<AtomicBool>,
}

struct Consumed {
    waiting: mpsc::UnboundedReceiver<Delivery>,
    acked: Arc<Mutex<BTreeSet<u64>>>,
    is_broken: Arc<AtomicBool>,
}

impl Queue {
    fn break_on_next(&self, send: &mpsc::UnboundedSender<Delivery>) {
        self.is_broken.store(true, Ordering::SeqCst);
        let event = Ok(envelope(OrgId::generate(), 99));
        drop(send.send(Delivery {
            tag: DeliveryTag(u64::MAX),
            event,
            redeliveries: 0,
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

/// The worker, before and while it runs.
pub(super) struct Work {
    twilio: Twilio,
    base_url: String,
    send: mpsc::UnboundedSender<Delivery>,
    queue: Arc<Queue>,
    tasks: JoinSet<()>,
    /// The stand-in outlives a worker that dies.
    _server: JoinSet<()>,
    next_tag: u64,
    soft: CancellationToken,
    /// The database's clock less the worker's, in microseconds.
    clock_offset: Arc<AtomicI64>,
    failure: Failure,
}

/// Short waits, so that a test of a retry is short.
pub(super) fn settings() -> WorkerSettings {
    WorkerSettings {
        attempt_seconds_max: Duration::from_millis(400),
        lease_seconds: Duration::from_secs(20),
        settle_seconds: Duration::from_millis(100),
        backoff_seconds_min: Duration::from_millis(20),
        backoff_seconds_max: Duration::from_millis(200),
        ..WorkerSettings::default()
    }
}

impl Work {
    pub async fn new() -> Self {
        let twilio = Twilio::default();
        twilio.0.lock().expect("lock").tokens = BTreeMap::from([
            (ACCOUNT.to_owned(), "t1".repeat(16)),
            (OTHER_ACCOUNT.to_owned(), "t2".repeat(16)),
        ]);
        let (base_url, server) = twilio.serve().await;
        let (send, waiting) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue {
            waiting: Mutex::new(Some(waiting)),
            acked: Arc::default(),
            is_broken: Arc::default(),
        });
        Self {
            twilio,
            base_url,
            send,
            queue,
            tasks: JoinSet::new(),
            _server: server,
            next_tag: 0,
            soft: CancellationToken::new(),
            clock_offset: Arc::default(),
            failure: Failure::default(),
        }
    }
}

impl TestAppBuilder {
    /// A worker, which [`TestApp::start_worker`] starts. Until then its settings can be changed.
    pub fn worker(mut self) -> Self {
        self.settings.worker = settings();
        self.has_worker = true;
        self
    }
}

impl TestApp {
    /// With a worker alone.
    pub async fn working() -> Self {
        Self::builder().worker().start().await
    }

    /// The same over a store of the caller's.
    pub async fn working_over(store: Arc<dyn Store>) -> Self {
        Self::builder().worker().over(store).start().await
    }

    fn work(&self) -> &Work {
        self.work.as_ref().expect("built with `worker`")
    }

    fn work_mut(&mut self) -> &mut Work {
        self.work.as_mut().expect("built with `worker`")
    }

    pub fn twilio(&self) -> &Twilio {
        &self.work().twilio
    }

    /// Where a part of the worker that breaks is reported.
    pub fn failure(&self) -> &Failure {
        &self.work().failure
    }

    /// Sets how far the database's clock is from the worker's, in microseconds.
    pub fn set_clock_offset(&self, micros: i64) {
        self.work().clock_offset.store(micros, Ordering::Relaxed);
    }

    /// The worker's next look at its queue panics.
    pub fn break_queue(&self) {
        self.work().queue.break_on_next(&self.work().send);
    }

    /// A vault with nothing in its memory.
    pub fn forget_keys(&mut self) {
        self.vault = super::vault(&self.store);
    }

    fn worker(&self) -> Worker {
        let work = self.work();
        let provider = ProviderSettings {
            twilio_base_url: work.base_url.clone(),
            ..ProviderSettings::default()
        };
        Worker {
            store: self.store.clone(),
            queue: work.queue.clone(),
            vault: self.vault.clone(),
            providers: Providers::new(&provider, None).expect("providers"),
            clock: self.clock.clone(),
            settings: self.settings.worker.clone(),
            credentials: VaultSettings::default(),
            public_url: None,
            clock_offset: {
                let offset = work.clock_offset.clone();
                Arc::new(move || offset.load(Ordering::Relaxed))
            },
            failure: work.failure.clone(),
        }
    }

    pub fn start_worker(&mut self) {
        let worker = self.worker();
        let work = self.work_mut();
        work.tasks
            .spawn(worker.run(work.soft.clone(), CancellationToken::new()));
    }

    /// Begins a soft stop.
    pub fn ask_worker_to_stop(&self) {
        self.work().soft.cancel();
    }

    pub async fn worker_ends(&mut self) {
        until("the worker's end", || {
            let ended = self.work_mut().tasks.try_join_next().is_some();
            async move { ended.then_some(()) }
        })
        .await;
    }

    /// The worker's tasks are dropped where they stand, as by `kill -9`.
    pub async fn kill_worker(&mut self) {
        let tasks = &mut self.work_mut().tasks;
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
    }

    pub async fn stop_worker(mut self) {
        self.ask_worker_to_stop();
        self.worker_ends().await;
        self.store.close().await;
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
            .seal(self.a, Purpose::Payload, request.as_bytes())
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
        let event = planned_event(self.a, key, vec![action]);
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

    /// A worker whose first organisation texts the caller of each call from its own account.
    pub async fn texting() -> Self {
        let app = Self::working().await;
        app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
        app.rule("text the caller", None, "{{ message.customer.number }}").await;
        app
    }

    pub async fn connect_account(&self, account: &str, token: &str) {
        let plaintext =
            json!({"account_sid": account, "auth_token": token, "phone_number": "+15550000001"}).to_string();
        let sealed = self
            .vault
            .seal(self.a, Purpose::Credential(Provider::Twilio), plaintext.as_bytes())
            .await
            .expect("sealed");
        let new = NewCredential {
            org: self.a,
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
        self.store.save_credential(new, audit(self.a)).await.expect("saved");
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
            ignores_quiet_hours: false,
            enabled: true,
        };
        let now = self.clock.now();
        let rule = Rule {
            id: RuleId::generate(),
            org: self.a,
            spec,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let id = rule.id;
        self.store.create_rule(rule, audit(self.a)).await.expect("created");
        id
    }

    pub async fn spec_of(&self, rule: RuleId) -> RuleSpec {
        let rules = self.store.list_rules(self.a, None, 10).await.expect("read");
        rules.into_iter().find(|stored| stored.id == rule).expect("there").spec
    }

    /// Writes the text of a rule's spec behind the store's back.
    pub async fn overwrite_rule(&self, rule: RuleId, spec: &str) {
        let mut connection = self.open_database().await;
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
        let mut connection = self.open_database().await;
        let written = sqlx::query("UPDATE org_credentials SET sealed = x'00' WHERE org_id = ?1")
            .bind(self.a.as_bytes().as_slice())
            .execute(&mut connection)
            .await;
        assert_eq!(written.expect("a statement").rows_affected(), 1);
    }

    /// Saves a rule as the admin API does.
    pub async fn save_rule(&self, rule: RuleId, spec: &str) {
        let spec = serde_json::from_str(spec).expect("a spec");
        let saved = self.store.update_rule(self.a, rule, 1, spec, audit(self.a)).await;
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
        self.put_in_queue(event)
    }

    /// Delivers an end-of-call report that was received then.
    pub fn deliver_late(&mut self, org: OrgId, key: u8, body: &Value, received_at: Timestamp) -> u64 {
        let event = Envelope {
            time: received_at,
            received_at,
            body: Bytes::from(body.to_string()),
            ..envelope(org, key)
        };
        self.put_in_queue(event)
    }

    /// An end-of-call report of now.
    pub fn event(&self, org: OrgId, key: u8, body: &Value) -> Envelope {
        let now = self.clock.now();
        Envelope {
            event_type: EventType::new(Source::Vapi, "end-of-call-report"),
            time: now,
            received_at: now,
            body: Bytes::from(body.to_string()),
            ..envelope(org, key)
        }
    }

    /// Delivers an end-of-call report that workers have had so often before.
    pub fn deliver_again(&mut self, org: OrgId, key: u8, body: &Value, redeliveries: u32) -> (EventId, u64) {
        let event = self.event(org, key, body);
        (event.id, self.redeliver(event, redeliveries))
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
        self.put_in_queue(event)
    }

    /// Delivers what the platform signed and what led to no organisation.
    pub fn deliver_of_platform(&mut self, key: u8, body: &Value) -> (EventId, u64) {
        let now = self.clock.now();
        let event = Envelope {
            org: None,
            time: now,
            received_at: now,
            body: Bytes::from(body.to_string()),
            ..envelope(self.a, key)
        };
        (event.id, self.put_in_queue(event))
    }

    fn put_in_queue(&mut self, event: Envelope) -> u64 {
        self.redeliver(event, 0)
    }

    pub fn redeliver(&mut self, event: Envelope, redeliveries: u32) -> u64 {
        let work = self.work_mut();
        work.next_tag += 1;
        let delivery = Delivery {
            tag: DeliveryTag(work.next_tag),
            event: Ok(event),
            redeliveries,
        };
        work.send.send(delivery).expect("the queue takes it");
        work.next_tag
    }

    pub fn is_acked(&self, tag: u64) -> bool {
        self.work().queue.acked.lock().expect("lock").contains(&tag)
    }

    pub async fn acked(&self, tag: u64) {
        until("acked", || async { self.is_acked(tag).then_some(()) }).await;
    }

    pub async fn actions(&self) -> Vec<StoredAction> {
        self.store
            .list_actions(self.a, store::history::ActionFilter::default(), None, 100)
            .await
            .expect("read")
    }

    pub async fn action_in(&self, state: ActionState) -> StoredAction {
        until(state.as_str(), || async {
            self.actions().await.into_iter().find(|action| action.state == state)
        })
        .await
    }
}

pub fn report(number: &str) -> Value {
    json!({"message": {"type": "end-of-call-report", "endedReason": "customer-ended-call", "customer": {"number": number}}})
}
