//! Claims the actions that can start now, runs them through the engine, and records their outcomes
//! in batches.

use super::{
    RetryWait,
    breaker::{Breakers, ProviderHealth, Turned},
    clock::DatabaseClock,
    fairness::Running,
};
use crate::{
    attempt::{Engine, Leased},
    config::WorkerSettings,
    domain::{CLOCK_OFFSET_CLAIM_MAX, Clock, OrgId, Provider},
    killpoint::{Step, reach},
    store::{
        Store, StoreError,
        ledger::{Claim, ClaimLimits, Record, Recorded},
    },
    telemetry::catalogue,
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Longest sleep between two looks at the turns. A signal wakes the loop earlier, but a signal can
/// be missed.
const POLL: Duration = Duration::from_secs(1);
/// Time between two looks for leases that ended, and the most leases that one look ends (invariant
/// 15).
const LEASES_EVERY: Duration = Duration::from_secs(1);
const LEASES_MAX: u32 = 1_000;
/// Most records in one command.
const RECORDS_MAX: usize = 256;

pub(super) struct Executor {
    engine: Arc<Engine>,
    store: Arc<dyn Store>,
    clock: DatabaseClock,
    settings: WorkerSettings,
    /// Something was planned or recorded.
    wake: Arc<Notify>,
}

/// The state of this executor's loop.
struct State {
    running: Running,
    breakers: Breakers,
    attempts: JoinSet<(Claim, Record)>,
    /// The claim of each running attempt, for those that panic.
    claims: HashMap<Id, Claim>,
    records: mpsc::UnboundedSender<Record>,
    /// When to look again for actions that are due.
    next_claim: Instant,
    /// The version of the configuration that the cached credentials are current for.
    credentials_version: i64,
    /// Whether the last look could tell which credentials changed: nothing is claimed before.
    are_credentials_known: bool,
    /// When to ask the database which credentials changed.
    next_credentials_look: Instant,
}

impl State {
    /// Nothing runs and nothing is cached yet.
    fn new(settings: &WorkerSettings, records: mpsc::UnboundedSender<Record>, credentials_version: i64) -> Self {
        Self {
            running: Running::new(
                settings.attempts_concurrent_max,
                settings.attempts_concurrent_per_org_max,
            ),
            breakers: Breakers::new(settings.breaker_failures, settings.breaker_seconds),
            attempts: JoinSet::new(),
            claims: HashMap::new(),
            records,
            next_claim: Instant::now(),
            credentials_version,
            are_credentials_known: true,
            next_credentials_look: Instant::now() + POLL,
        }
    }

    fn gather_open(&self, provider: Provider) {
        let open = f64::from(self.breakers.open_at(provider));
        catalogue::BREAKERS_OPEN.set(open, &[provider.as_str()]);
    }

    /// `records_waiting`: how many the database has not taken yet.
    fn may_claim(&self, records_waiting: usize) -> bool {
        self.are_credentials_known && self.running.free() > 0 && records_waiting <= RECORDS_MAX * 4
    }
}

impl Executor {
    pub fn new(
        engine: Arc<Engine>,
        store: Arc<dyn Store>,
        clock: DatabaseClock,
        settings: WorkerSettings,
        wake: Arc<Notify>,
    ) -> Self {
        Self {
            engine,
            store,
            clock,
            settings,
            wake,
        }
    }

    pub async fn run(self, soft: CancellationToken, hard: CancellationToken) {
        // Unbounded in type only. It holds at most one record for each attempt that may run, and
        // records that the database has not taken yet stop further claims.
        let (records, received) = mpsc::unbounded_channel();
        let (lag, lagging) = watch::channel(0_usize);
        let helpers = self.start_helpers(received, lag, &soft, &hard);
        let mut changes = self.store.config_changes();
        let mut state = State::new(&self.settings, records, *changes.borrow_and_update());
        while !soft.is_cancelled() {
            // Registered before the look at the turns, so that an action planned meanwhile causes
            // the next look.
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if changes.has_changed().unwrap_or(false) {
                changes.mark_unchanged();
                state.next_credentials_look = Instant::now();
            }
            if state.next_credentials_look <= Instant::now() {
                self.forget_changed_credentials(&mut state).await;
            }
            if state.next_claim <= Instant::now() && state.may_claim(*lagging.borrow()) {
                state.next_claim = self.claim(&mut state, &soft).await;
            }
            // While nothing may be claimed, only the end of an attempt changes that. It causes the
            // next look.
            let sleep_until = if state.may_claim(*lagging.borrow()) {
                state.next_claim
            } else {
                Instant::now() + POLL
            };
            tokio::select! {
                biased;
                Some(ended) = state.attempts.join_next_with_id() => {
                    self.ended(&mut state, ended);
                    while let Some(ended) = state.attempts.try_join_next_with_id() {
                        self.ended(&mut state, ended);
                    }
                }
                () = soft.cancelled() => continue,
                () = &mut woken => {}
                _ = changes.changed() => state.next_credentials_look = Instant::now(),
                () = tokio::time::sleep_until(sleep_until.into()) => {}
            }
            state.next_claim = Instant::now();
        }
        self.drain(state, helpers, &hard).await;
    }

    /// The tasks beside the loop: records are written together, and leases that ended are found.
    fn start_helpers(
        &self,
        received: mpsc::UnboundedReceiver<Record>,
        lag: watch::Sender<usize>,
        soft: &CancellationToken,
        hard: &CancellationToken,
    ) -> JoinSet<()> {
        let mut helpers = JoinSet::new();
        helpers.spawn(collect(
            self.store.clone(),
            received,
            lag,
            self.wake.clone(),
            hard.clone(),
        ));
        helpers.spawn(end_leases(
            self.store.clone(),
            self.clock.clone(),
            self.settings.settle_seconds,
            self.wake.clone(),
            soft.clone(),
        ));
        helpers
    }

    /// Drops the cached credentials of the organisations whose credentials have changed, and keeps
    /// all others. Also on a period, because a signal is a hint: another process, or a person by
    /// hand, may have changed the database.
    async fn forget_changed_credentials(&self, state: &mut State) {
        match self.store.load_changed_orgs(state.credentials_version).await {
            Ok(changed) => {
                self.engine.forget_credentials_of(&changed.orgs);
                state.credentials_version = changed.version;
                state.are_credentials_known = true;
            }
            Err(error) => {
                warn!(%error, "Which credentials changed is not known: nothing is claimed until it is");
                state.are_credentials_known = false;
            }
        }
        state.next_credentials_look = Instant::now() + POLL;
    }

    /// Claims and starts. Returns when to look again.
    async fn claim(&self, state: &mut State, soft: &CancellationToken) -> Instant {
        if self.clock.offset() > CLOCK_OFFSET_CLAIM_MAX {
            return Instant::now() + POLL;
        }
        let now = self.clock.now();
        let lease_ends = Instant::now() + self.settings.lease_seconds;
        let turn_max = self.settings.claim_turn_max.min(state.running.each_max()).max(1);
        if state.breakers.forget_old(now) {
            for provider in Provider::ALL {
                state.gather_open(*provider);
            }
        }
        let limits = ClaimLimits {
            count_max: state.running.free(),
            turn_max,
            allowances: state.running.allowances(&state.breakers, turn_max, now),
            deferred: state.breakers.open_until(),
            lease: self.settings.lease_seconds,
        };
        let claims = match self.store.claim(limits, now).await {
            Ok(claims) => claims,
            Err(error) => {
                warn!(%error, "Nothing can be claimed for now");
                return Instant::now() + POLL;
            }
        };
        catalogue::CLAIMS.count(1, &[if claims.is_empty() { "false" } else { "true" }]);
        if claims.is_empty() {
            return self.next_look(now).await;
        }
        reach(Step::Claimed);
        for claim in claims {
            state.running.begin((claim.org, claim.provider));
            let (engine, leased) = (
                self.engine.clone(),
                Leased {
                    claim: claim.clone(),
                    lease_ends,
                    stop: soft.clone(),
                },
            );
            let task = state.attempts.spawn(async move {
                let record = engine.run(&leased).await;
                (leased.claim, record)
            });
            state.claims.insert(task.id(), claim);
        }
        catalogue::ATTEMPTS_RUNNING.set(f64::from(state.running.total()), &[]);
        // A turn takes few actions, so more may be due now.
        Instant::now()
    }

    async fn next_look(&self, now: crate::domain::Timestamp) -> Instant {
        let wait = match self.store.next_due_at().await {
            Ok(Some(due_at)) if due_at > now => due_at.since(now).min(POLL),
            // An action is due and was not claimed: its organisation is at its limit, or it became
            // due since. The end of an attempt or a wake causes an earlier look.
            Ok(Some(_)) => POLL / 10,
            Ok(None) | Err(_) => POLL,
        };
        Instant::now() + wait
    }

    fn ended(&self, state: &mut State, ended: Result<(Id, (Claim, Record)), tokio::task::JoinError>) {
        let (claim, record) = match ended {
            Ok((id, done)) => {
                state.claims.remove(&id);
                done
            }
            Err(broken) => {
                let Some(claim) = state.claims.remove(&broken.id()) else {
                    return;
                };
                error!(action.id = %claim.action, org.id = %claim.org, "The attempt at action {} broke inside \
                    Hookswitch; its outcome is looked up", claim.action);
                let record = self.engine.broken(&claim);
                (claim, record)
            }
        };
        let key: (OrgId, Provider) = (claim.org, claim.provider);
        state.running.end(key);
        let health = ProviderHealth::of(record.outcome, record.cause);
        if let Some(turned) = state.breakers.record(key, health, record.ended_at) {
            self.tell(turned, &claim, state);
        }
        catalogue::ATTEMPTS_RUNNING.set(f64::from(state.running.total()), &[]);
        // The collector lives until the sender is dropped.
        let _ = state.records.send(record);
    }

    /// An outage of a provider makes one line for each organisation, not one for each attempt.
    fn tell(&self, turned: Turned, claim: &Claim, state: &State) {
        let (org, provider) = (claim.org, claim.provider);
        match turned {
            Turned::Opened => {
                let seconds = self.settings.breaker_seconds.as_secs_f64();
                warn!(org.id = %org, provider = provider.as_str(), "Calls of organisation {org} to {provider} fail one \
                    after the other: its actions there wait, and one is tried every {seconds} s");
            }
            Turned::Closed => {
                info!(org.id = %org, provider = provider.as_str(), "Calls of organisation {org} to {provider} go \
                    through again");
            }
        }
        state.gather_open(provider);
    }

    /// Waits for the attempts that run, then for their records. The hard stop cuts both off.
    async fn drain(&self, mut state: State, mut helpers: JoinSet<()>, hard: &CancellationToken) {
        if !state.attempts.is_empty() {
            info!("Waiting for {} attempts that are under way", state.attempts.len());
        }
        let finish = async {
            while let Some(ended) = state.attempts.join_next_with_id().await {
                self.ended(&mut state, ended);
            }
            drop(state);
            while helpers.join_next().await.is_some() {}
        };
        tokio::select! {
            () = finish => {}
            () = hard.cancelled() => warn!("Attempts were cut off: their outcome is looked up at the next start"),
        }
    }
}

/// Collects the records of attempts that end during a write, and writes them together.
async fn collect(
    store: Arc<dyn Store>,
    mut received: mpsc::UnboundedReceiver<Record>,
    lag: watch::Sender<usize>,
    wake: Arc<Notify>,
    hard: CancellationToken,
) {
    let mut batch = Vec::with_capacity(RECORDS_MAX);
    while received.recv_many(&mut batch, RECORDS_MAX).await > 0 {
        lag.send_replace(batch.len() + received.len());
        if !write(&*store, std::mem::take(&mut batch), &hard).await {
            return;
        }
        lag.send_replace(received.len());
        wake.notify_one();
    }
}

/// `false` when the hard stop came first.
async fn write(store: &dyn Store, records: Vec<Record>, hard: &CancellationToken) -> bool {
    let mut retry = RetryWait::default();
    let mut waiting = vec![records];
    while let Some(records) = waiting.pop() {
        reach(Step::RecordBegun);
        match store.record(records.clone()).await {
            Ok(results) => {
                reach(Step::Recorded);
                for (record, result) in records.iter().zip(results) {
                    if result == Recorded::RefTaken {
                        warn!(action.id = %record.action, org.id = %record.org, "Action {} got an id of its provider \
                            that another action holds: its outcome is open", record.action);
                    }
                }
            }
            Err(StoreError::Unavailable { .. }) => {
                waiting.push(records);
                if retry.wait_or(hard).await {
                    return false;
                }
            }
            // This one record cannot be written. Alone it fails no other record, and the end of its
            // lease makes the action unknown.
            Err(error) if records.len() == 1 => {
                error!(action.id = %records[0].action, org.id = %records[0].org, %error, "The attempt at action {} \
                    cannot be recorded", records[0].action);
            }
            Err(_) => waiting.extend(records.into_iter().map(|record| vec![record])),
        }
    }
    true
}

async fn end_leases(
    store: Arc<dyn Store>,
    clock: DatabaseClock,
    look_up_delay: Duration,
    wake: Arc<Notify>,
    soft: CancellationToken,
) {
    loop {
        match store.expire_leases(clock.now(), look_up_delay, LEASES_MAX).await {
            Ok(0) | Err(_) => {}
            Ok(count) => {
                catalogue::LEASES_EXPIRED.count(count, &[]);
                warn!("{count} leases ended without a record: their outcomes are looked up");
                wake.notify_one();
                if count == u64::from(LEASES_MAX) {
                    continue;
                }
            }
        }
        tokio::select! {
            () = soft.cancelled() => return,
            () = tokio::time::sleep(LEASES_EVERY) => {}
        }
    }
}
