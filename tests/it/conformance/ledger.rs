//! The ledger's contract, over any store: each sentence of `store::ledger` and each row of the
//! table in `attempt`.

use hookswitch::{
    domain::*,
    store::{
        Store, StoreError,
        audit::{AuditEntry, Changes},
        credentials::NewCredential,
        history::{ActionFilter, StoredAction},
        ledger::*,
    },
};
use std::{collections::HashMap, sync::Arc, time::Duration};

pub const SECOND: Duration = Duration::from_secs(1);
pub const LEASE: Duration = Duration::from_mins(1);
pub const LOOK_UP_DELAY: Duration = Duration::from_secs(30);

/// A store and the clock that it was opened with.
#[derive(Clone)]
pub struct Bench {
    pub store: Arc<dyn Store>,
    pub clock: Arc<ManualClock>,
}

pub fn audit(org: OrgId) -> AuditEntry {
    AuditEntry {
        org,
        at: Timestamp::from_seconds(1),
        actor: "test".into(),
        verb: "create",
        target_kind: "organisation",
        target_id: org.to_string(),
        changes: Changes::default(),
        address: None,
    }
}

pub fn envelope(org: OrgId, key: u8) -> Envelope {
    Envelope {
        id: EventId::generate(),
        source: Source::Vapi,
        event_type: EventType::new(Source::Vapi, "end-of-call-report"),
        time: Timestamp::from_seconds(900),
        received_at: Timestamp::from_seconds(901),
        subject: Subject("call".into()),
        org: Some(org),
        endpoint: None,
        secret: None,
        dedupe_key: DedupeKey([key; 16]),
        traceparent: None,
        content_type: "application/json".into(),
        path: "/webhooks/vapi".into(),
        query: "".into(),
        headers: vec![("x".into(), "y".into())],
        hops: 0,
        body: bytes::Bytes::from_static(b"{}"),
    }
}

pub fn action() -> PlannedAction {
    PlannedAction {
        id: ActionId::generate(),
        rule: RuleId::generate(),
        rule_name: "a rule".into(),
        kind: ActionKind::TwilioSendSms,
        credential_name: String::new(),
        request: Some(SealedBytes(Box::from(*b"sealed request"))),
        state: ActionState::Pending,
        cause: None,
        detail: None,
        due_at: None,
        expires_at: Timestamp::from_seconds(1_000_000),
    }
}

pub fn event(org: OrgId, key: u8, actions: Vec<PlannedAction>) -> PlannedEvent {
    PlannedEvent {
        org,
        envelope: envelope(org, key),
        body: SealedBytes(Box::from(*b"sealed body")),
        actions,
        occasion: Occasion::Receipt,
    }
}

fn limits(count_max: u32, turn_max: u32) -> ClaimLimits {
    ClaimLimits {
        count_max,
        turn_max,
        allowances: Vec::new(),
        deferred: Arc::default(),
        lease: LEASE,
    }
}

pub fn record(claim: &Claim, to: ActionState, now: Timestamp) -> Record {
    Record {
        action: claim.action,
        org: claim.org,
        fence: claim.fence,
        to,
        cause: Cause::Other,
        detail: "words".into(),
        http_status: Some(201),
        provider_code: None,
        provider_ref: None,
        due_at: None,
        counts: true,
        is_absence: false,
        is_unsent: false,
        is_look_up: claim.is_look_up,
        outcome: AttemptOutcome::Retry,
        ended_at: now,
        credential_version: Some(1),
    }
}

impl Bench {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn organisation(&self) -> OrgId {
        let org = OrgId::generate();
        self.store
            .create_organisation(org, "an organisation", audit(org))
            .await
            .expect("created");
        org
    }

    async fn plan(&self, events: Vec<PlannedEvent>) -> Vec<Planned> {
        self.store.plan(events.into()).await.expect("planned")
    }

    /// `count` events with one action each.
    async fn due(&self, org: OrgId, count: u8) -> Vec<ActionId> {
        let actions: Vec<PlannedAction> = (0..count).map(|_| action()).collect();
        let ids = actions.iter().map(|action| action.id).collect();
        self.plan(
            actions
                .into_iter()
                .zip(0..)
                .map(|(action, key)| event(org, key, vec![action]))
                .collect(),
        )
        .await;
        ids
    }

    async fn claim(&self, count_max: u32) -> Vec<Claim> {
        self.store
            .claim(limits(count_max, count_max), self.now())
            .await
            .expect("claimed")
    }

    async fn claim_one(&self) -> Claim {
        let mut claims = self.claim(1).await;
        assert_eq!(claims.len(), 1);
        claims.remove(0)
    }

    async fn action(&self, org: OrgId, id: ActionId) -> StoredAction {
        self.store.find_action(org, id).await.expect("read").expect("there")
    }

    async fn state(&self, org: OrgId, id: ActionId) -> ActionState {
        self.action(org, id).await.state
    }

    /// An action in a state, and the fence of its last claim.
    async fn in_state(&self, state: ActionState) -> (OrgId, ActionId, i64) {
        let org = self.organisation().await;
        let id = self.due(org, 1).await[0];
        match state {
            ActionState::Pending => return (org, id, 0),
            ActionState::Cancelled => {
                let cancelled = self.store.cancel(org, id, self.now(), audit(org)).await;
                assert_eq!(cancelled.expect("cancelled"), ManualTransition::Done(state));
                return (org, id, 0);
            }
            _ => {}
        }
        let claim = self.claim_one().await;
        assert_eq!(claim.action, id, "earlier cases left nothing that is due");
        if state != ActionState::Running {
            let record = Record {
                due_at: Some(self.now()),
                ..record(&claim, state, self.now())
            };
            assert_eq!(
                self.store.record(vec![record]).await.expect("recorded"),
                [Recorded::Done]
            );
        }
        assert_eq!(self.state(org, id).await, state);
        (org, id, claim.fence)
    }

    /// Takes an action out of the way of later cases.
    async fn finish(&self, org: OrgId, id: ActionId) {
        match self.state(org, id).await {
            ActionState::Running => drop(
                self.store
                    .abandon_leases(self.now(), Duration::ZERO)
                    .await
                    .expect("ended"),
            ),
            ActionState::Unknown => {}
            _ => drop(self.store.cancel(org, id, self.now(), audit(org)).await),
        }
        let to = ActionState::Succeeded;
        drop(self.store.resolve(org, id, to, self.now(), audit(org)).await);
    }
}

pub async fn the_same_event_fifty_times_is_planned_once(b: &Bench) {
    let org = b.organisation().await;
    let rule = RuleId::generate();
    let same = |key| event(org, key, vec![PlannedAction { rule, ..action() }]);
    // In one batch, and in many at once in different orders (invariant 15).
    let batch = b.plan((0..50).map(|_| same(1)).collect()).await;
    assert_eq!(batch.iter().filter(|planned| **planned == Planned::New).count(), 1);
    let mut plans = tokio::task::JoinSet::new();
    for i in 0..50_u8 {
        let (b, events): (Bench, Vec<PlannedEvent>) = (
            b.clone(),
            if i % 2 == 0 {
                vec![same(2), same(3)]
            } else {
                vec![same(3), same(2)]
            },
        );
        plans.spawn(async move { b.plan(events).await });
    }
    let new: usize = plans
        .join_all()
        .await
        .iter()
        .flatten()
        .filter(|planned| **planned == Planned::New)
        .count();
    assert_eq!(new, 2);
    assert_eq!(b.claim(1_000).await.len(), 3);
    b.store.abandon_leases(b.now(), LEASE * 1_000).await.expect("ended");
}

/// Invariant 20, and invariant 4's series.
pub async fn a_dedupe_key_is_its_owners(b: &Bench) {
    let (a, other) = (b.organisation().await, b.organisation().await);
    let base = event(a, 9, vec![]);
    assert_eq!(b.plan(vec![base.clone()]).await, [Planned::New]);
    let with = |change: &dyn Fn(&mut PlannedEvent)| {
        let mut event = event(a, 9, vec![]);
        change(&mut event);
        event
    };
    let siblings = vec![
        with(&|event| event.org = other),
        with(&|event| event.envelope.endpoint = Some(EndpointId::generate())),
        with(&|event| event.envelope.source = Source::Twilio),
        with(&|event| event.envelope.dedupe_key = DedupeKey([8; 16])),
    ];
    assert!(b.plan(siblings).await.iter().all(|planned| *planned == Planned::New));
    assert_eq!(
        b.plan(vec![with(&|event| event.envelope.subject = Subject("another".into()))])
            .await,
        [Planned::Duplicate]
    );
}

/// Invariant 8: the key is marked in the transaction that plans. A plan that fails leaves no key
/// behind that would make its event a duplicate.
pub async fn a_plan_that_fails_marks_nothing(b: &Bench) {
    let org = b.organisation().await;
    let twice = action();
    let events: Arc<[PlannedEvent]> = vec![event(org, 1, vec![twice.clone()]), event(org, 2, vec![twice])].into();
    let error = b.store.plan(events.clone()).await.expect_err("one id for two actions");
    assert!(
        matches!(error, StoreError::Conflict { .. } | StoreError::Data { .. }),
        "{error}"
    );
    assert_eq!(b.plan(vec![events[0].clone()]).await, [Planned::New]);
    let claim = b.claim_one().await;
    assert_eq!(
        claim.idempotency_key.split(':').next(),
        Some(org.to_string().as_str()),
        "it begins with the organisation"
    );
    b.finish(org, claim.action).await;
}

pub async fn what_is_planned_is_what_is_claimed(b: &Bench) {
    let org = b.organisation().await;
    let (good, dead) = (
        action(),
        PlannedAction {
            request: None,
            state: ActionState::Dead,
            cause: Some(Cause::TemplateFailed),
            detail: Some("to: undefined".into()),
            ..action()
        },
    );
    let planned = PlannedEvent {
        envelope: Envelope {
            hops: 2,
            ..envelope(org, 1)
        },
        ..event(org, 1, vec![good.clone(), dead.clone()])
    };
    b.plan(vec![planned.clone()]).await;
    let stored = b
        .store
        .find_event(org, planned.envelope.id)
        .await
        .expect("read")
        .expect("there");
    assert_eq!(
        (stored.body, stored.body_bytes, stored.headers.len()),
        (Some(planned.body), 2, 1)
    );
    let claims = b.claim(10).await;
    assert_eq!(claims.len(), 1, "a dead action is not claimed");
    let claim = &claims[0];
    assert_eq!(
        (claim.action, claim.org, claim.event, claim.kind, claim.hops),
        (good.id, org, planned.envelope.id, good.kind, 2)
    );
    assert_eq!(
        (
            claim.request.clone(),
            claim.is_look_up,
            claim.fence,
            claim.first_sent_at
        ),
        (good.request.expect("there"), false, 1, Some(b.now()))
    );
    assert_eq!(claim.lease_until, b.now() + LEASE);
    let attempts = b.store.list_attempts(org, good.id).await.expect("read");
    assert_eq!(
        (attempts.len(), attempts[0].started_at, attempts[0].ended_at),
        (1, b.now(), None)
    );
    let stored = b.action(org, dead.id).await;
    assert_eq!(
        (stored.state, stored.cause, stored.detail.as_deref()),
        (ActionState::Dead, Some(Cause::TemplateFailed), Some("to: undefined"))
    );
    assert_eq!(
        b.store
            .find_action(b.organisation().await, dead.id)
            .await
            .expect("read"),
        None,
        "another organisation sees nothing"
    );
    b.finish(org, good.id).await;
}

/// Invariant 22: one organisation's hundred stand before nobody's one.
pub async fn claims_rotate_over_organisations(b: &Bench) {
    let (flood, small) = (b.organisation().await, b.organisation().await);
    b.due(flood, 100).await;
    b.clock.advance(SECOND);
    let one = b.due(small, 1).await[0];
    b.clock.advance(SECOND);
    let first = b.store.claim(limits(3, 2), b.now()).await.expect("claimed");
    assert_eq!(first.iter().filter(|claim| claim.org == flood).count(), 2);
    assert!(first.iter().any(|claim| claim.action == one));
    // After its turn the flood stands behind whoever comes due.
    let late = b.organisation().await;
    let mut two = b.due(late, 2).await;
    b.clock.advance(SECOND);
    let second = b.store.claim(limits(2, 1), b.now()).await.expect("claimed");
    assert_eq!(second.iter().filter(|claim| claim.org == late).count(), 1);
    two.retain(|id| second.iter().all(|claim| claim.action != *id));
    // One that may take nothing keeps its place; one that is deferred loses it until then.
    let held = ClaimLimits {
        allowances: vec![(late, Provider::Twilio, 0)],
        ..limits(100, 10)
    };
    assert!(
        b.store
            .claim(held, b.now())
            .await
            .expect("claimed")
            .iter()
            .all(|claim| claim.org != late)
    );
    let until = b.now() + SECOND * 10;
    let failing = Arc::new(HashMap::from([late, flood].map(|org| ((org, Provider::Twilio), until))));
    let deferred = ClaimLimits {
        deferred: failing.clone(),
        ..limits(100, 10)
    };
    assert_eq!(b.store.claim(deferred, b.now()).await.expect("claimed").len(), 0);
    assert_eq!(b.claim(100).await.len(), 0);
    assert_eq!(b.store.next_due_at().await.expect("read"), Some(until));
    // From that time on it may take one action.
    b.clock.set(until);
    let limited = ClaimLimits {
        deferred: failing,
        ..limits(100, 10)
    };
    let third = b.store.claim(limited, b.now()).await.expect("claimed");
    assert_eq!(
        (third.len(), third.iter().filter(|claim| claim.action == two[0]).count()),
        (2, 1)
    );
    while !b.claim(100).await.is_empty() {}
    assert_eq!(b.store.next_due_at().await.expect("read"), None);
    b.store.abandon_leases(b.now(), LEASE * 1_000).await.expect("ended");
}

/// Invariant 5: older ones end dead without an attempt, however many there are, and cost nobody a
/// turn.
pub async fn what_has_expired_is_dead_without_an_attempt(b: &Bench) {
    let org = b.organisation().await;
    let expired: Vec<PlannedAction> = (0..60)
        .map(|_| PlannedAction {
            expires_at: b.now() + SECOND,
            ..action()
        })
        .collect();
    let (alive, expired_id) = (action(), expired[0].id);
    b.plan(vec![event(org, 1, expired), event(org, 2, vec![alive.clone()])])
        .await;
    b.clock.advance(SECOND);
    let claims = b.store.claim(limits(2, 2), b.now()).await.expect("claimed");
    assert_eq!(claims.iter().map(|claim| claim.action).collect::<Vec<_>>(), [alive.id]);
    let stored = b.action(org, expired_id).await;
    assert_eq!(
        (stored.state, stored.cause, stored.attempts),
        (ActionState::Dead, Some(Cause::Expired), 0)
    );
    assert_eq!(b.store.list_attempts(org, expired_id).await.expect("read"), []);
    b.finish(org, alive.id).await;
    // A person revives it.
    assert_eq!(
        b.store
            .retry(org, expired_id, b.now() + LEASE, b.now(), audit(org))
            .await
            .expect("retried"),
        ManualTransition::Done(ActionState::Pending)
    );
    b.finish(org, expired_id).await;
}

/// Invariant 1: an ended lease is unknown, never pending. A worker that was overtaken changes
/// nothing.
pub async fn an_ended_lease_is_unknown_and_its_worker_is_overtaken(b: &Bench) {
    let (org, id, fence) = b.in_state(ActionState::Running).await;
    let late = Claim {
        fence,
        ..claim_like(org, id)
    };
    b.clock.advance(LEASE.checked_sub(SECOND).unwrap());
    assert_eq!(
        b.store.expire_leases(b.now(), LOOK_UP_DELAY, 10).await.expect("looked"),
        0
    );
    b.clock.advance(SECOND * 3);
    assert_eq!(
        b.store.expire_leases(b.now(), LOOK_UP_DELAY, 10).await.expect("ended"),
        1
    );
    let stored = b.action(org, id).await;
    assert_eq!(
        (stored.state, stored.cause, stored.attempts),
        (ActionState::Unknown, Some(Cause::LeaseEnded), 0)
    );
    assert_eq!(
        stored.due_at,
        b.now() - SECOND * 2 + LOOK_UP_DELAY,
        "the lease's end and the delay of the look-up"
    );
    assert_eq!(
        b.store
            .record(vec![record(&late, ActionState::Waiting, b.now())])
            .await
            .expect("answered"),
        [Recorded::Superseded]
    );
    assert_eq!(b.claim(10).await.len(), 0, "not before its look-up is due");
    b.clock.set(stored.due_at);
    let look_up = b.claim_one().await;
    assert_eq!((look_up.is_look_up, look_up.fence), (true, fence + 1));
    assert_eq!(
        b.store
            .record(vec![record(&late, ActionState::Waiting, b.now())])
            .await
            .expect("answered"),
        [Recorded::Superseded]
    );
    assert_eq!(b.state(org, id).await, ActionState::Running);
    assert_eq!(
        b.store
            .record(vec![record(&look_up, ActionState::Succeeded, b.now())])
            .await
            .expect("answered"),
        [Recorded::Done]
    );
    let attempts = b.store.list_attempts(org, id).await.expect("read");
    assert_eq!(
        attempts
            .iter()
            .map(|attempt| (attempt.is_look_up, attempt.outcome.as_deref()))
            .collect::<Vec<_>>(),
        [(false, Some("unknown")), (true, Some("retry"))]
    );
    assert!(attempts.iter().all(|attempt| attempt.ended_at.is_some()));
    // At a start every lease is one of a process that died.
    let (org, id, _) = b.in_state(ActionState::Running).await;
    assert_eq!(b.store.abandon_leases(b.now(), LOOK_UP_DELAY).await.expect("ended"), 1);
    assert_eq!(b.action(org, id).await.due_at, b.now() + LOOK_UP_DELAY);
    b.finish(org, id).await;
}

fn claim_like(org: OrgId, action: ActionId) -> Claim {
    Claim {
        action,
        org,
        event: EventId::generate(),
        subject: None,
        kind: ActionKind::TwilioSendSms,
        provider: Provider::Twilio,
        credential_name: String::new(),
        request: SealedBytes(Box::default()),
        idempotency_key: String::new(),
        is_look_up: false,
        fence: 0,
        lease_until: Timestamp::default(),
        attempts: 0,
        look_ups: 0,
        absences: 0,
        first_sent_at: None,
        account: None,
        expires_at: Timestamp::default(),
        planned_at: Timestamp::default(),
        claimed_at: Timestamp::default(),
        hops: 0,
    }
}

/// Invariant 2: an id of the provider's is one action's, in one organisation.
pub async fn an_id_that_another_action_holds_is_ambiguous(b: &Bench) {
    let org = b.organisation().await;
    b.due(org, 3).await;
    let claims = b.claim(3).await;
    let with = |claim: &Claim, provider_ref: &str| Record {
        provider_ref: Some(provider_ref.into()),
        ..record(claim, ActionState::Succeeded, b.now())
    };
    let results = b
        .store
        .record(vec![
            with(&claims[0], "SM1"),
            with(&claims[1], "SM1"),
            with(&claims[2], "SM2"),
        ])
        .await
        .expect("recorded");
    assert_eq!(results, [Recorded::Done, Recorded::RefTaken, Recorded::Done]);
    let stored = b.action(org, claims[1].action).await;
    assert_eq!(
        (stored.state, stored.cause, stored.provider_ref),
        (ActionState::Unknown, Some(Cause::Ambiguous), None)
    );
    let taken = |org, by| b.store.is_ref_taken(org, Provider::Twilio, "SM1", by);
    assert!(taken(org, claims[1].action).await.expect("read"));
    assert!(
        !taken(org, claims[0].action).await.expect("read"),
        "its holder may have it"
    );
    assert!(
        !taken(b.organisation().await, claims[1].action).await.expect("read"),
        "an id of another organisation's account says nothing"
    );
    assert_eq!(
        b.store
            .record_callback(org, claims[1].action, "SM1", b.now())
            .await
            .expect("answered"),
        ManualTransition::NotFrom(ActionState::Unknown)
    );
    assert_eq!(
        b.store
            .record_callback(org, claims[1].action, "SM3", b.now())
            .await
            .expect("answered"),
        ManualTransition::Done(ActionState::Succeeded)
    );
}

/// Invariant 6: a version that was saved while the attempt was under way lets the parked row go on.
pub async fn parked_actions_go_on_with_a_newer_credential_whichever_comes_first(b: &Bench) {
    let save = |org| {
        let new = NewCredential {
            org,
            provider: Provider::Twilio,
            name: String::new(),
            sealed: SealedBytes(Box::from(*b"sealed")),
            state: IntegrationState::Connected,
            missing: None,
            account_id: None,
            account_name: None,
            account_fingerprint: None,
            last_four: None,
            verified_at: None,
            expects: hookswitch::store::credentials::Expects::Anything,
        };
        b.store.save_credential(new, audit(org))
    };
    for (version, saved_first, expected) in [
        (Some(1), true, ActionState::Pending),
        (Some(2), true, ActionState::Parked),
        (None, true, ActionState::Pending),
        (Some(2), false, ActionState::Pending),
    ] {
        let (org, id, fence) = b.in_state(ActionState::Running).await;
        save(org).await.expect("saved");
        save(org).await.expect("saved");
        let parked = Record {
            credential_version: version,
            ..record(
                &Claim {
                    fence,
                    ..claim_like(org, id)
                },
                ActionState::Parked,
                b.now(),
            )
        };
        assert_eq!(b.store.record(vec![parked]).await.expect("recorded"), [Recorded::Done]);
        if !saved_first {
            assert_eq!(b.state(org, id).await, ActionState::Parked);
            save(org).await.expect("saved");
        }
        assert_eq!(
            b.state(org, id).await,
            expected,
            "version {version:?}, saved first: {saved_first}"
        );
        if expected == ActionState::Pending {
            assert_eq!(b.claim_one().await.action, id, "and it is due");
        }
        b.finish(org, id).await;
    }
}

pub async fn records_count_what_they_say(b: &Bench) {
    let (org, id, fence) = b.in_state(ActionState::Running).await;
    let at = |fence, is_look_up| Claim {
        fence,
        is_look_up,
        first_sent_at: None,
        ..claim_like(org, id)
    };
    let due = b.now() + SECOND;
    let unknown = Record {
        due_at: Some(due),
        ..record(&at(fence, false), ActionState::Unknown, b.now())
    };
    b.store.record(vec![unknown]).await.expect("recorded");
    assert_eq!(b.store.next_due_at().await.expect("read"), Some(due));
    b.clock.set(due);
    let sent_at = due - SECOND;
    for absences in 0..2 {
        let look_up = b.claim_one().await;
        assert_eq!(
            (
                look_up.attempts,
                look_up.look_ups,
                look_up.absences,
                look_up.first_sent_at
            ),
            (1, absences, absences, Some(sent_at))
        );
        let absent = Record {
            is_absence: true,
            counts: false,
            due_at: Some(b.now()),
            ..record(&look_up, ActionState::Unknown, b.now())
        };
        b.store.record(vec![absent]).await.expect("recorded");
    }
    let look_up = b.claim_one().await;
    let proved = Record {
        is_unsent: true,
        counts: false,
        due_at: Some(b.now()),
        ..record(&look_up, ActionState::Pending, b.now())
    };
    b.store.record(vec![proved]).await.expect("recorded");
    b.clock.advance(SECOND);
    let again = b.claim_one().await;
    assert_eq!(
        (again.is_look_up, again.attempts, again.look_ups, again.absences),
        (false, 1, 3, 0)
    );
    assert_eq!(
        again.first_sent_at,
        Some(b.now()),
        "a later look-up looks no further back than this send"
    );
    b.finish(org, id).await;
}

/// Every state against every operation: what is not in `attempt`'s table does not happen.
pub async fn every_state_meets_every_operation(b: &Bench) {
    use ActionState::*;
    const OPERATIONS: [&str; 7] = [
        "claim",
        "record",
        "record_callback",
        "retry",
        "cancel",
        "it went out",
        "send again",
    ];
    for state in ActionState::ALL {
        for operation in OPERATIONS {
            let (org, id, fence) = b.in_state(*state).await;
            let now = b.now();
            let transition = match operation {
                "claim" => {
                    b.claim(10).await;
                    None
                }
                "record" => {
                    let record = record(
                        &Claim {
                            fence,
                            ..claim_like(org, id)
                        },
                        Suppressed,
                        now,
                    );
                    let result = b.store.record(vec![record]).await.expect("answered");
                    assert_eq!(result == [Recorded::Done], *state == Running, "{state} record");
                    None
                }
                "record_callback" => Some(b.store.record_callback(org, id, &format!("SM{id}"), now).await),
                "retry" => Some(b.store.retry(org, id, now + LEASE, now, audit(org)).await),
                "cancel" => Some(b.store.cancel(org, id, now, audit(org)).await),
                "it went out" => Some(b.store.resolve(org, id, Succeeded, now, audit(org)).await),
                _ => Some(b.store.resolve(org, id, Pending, now, audit(org)).await),
            };
            let expected = match (operation, *state) {
                ("claim", Pending | Waiting | Unknown) => Running,
                ("record", Running) => Suppressed,
                ("record_callback", Pending | Running | Waiting | Unknown | Parked) | ("it went out", Unknown) => {
                    Succeeded
                }
                ("retry", Dead | Parked | Suppressed | Cancelled | Waiting) | ("send again", Unknown) => Pending,
                ("cancel", Pending | Waiting | Parked) => Cancelled,
                (_, state) => state,
            };
            assert_eq!(b.state(org, id).await, expected, "{state}, {operation}");
            let moved = expected != *state || (operation, *state) == ("retry", Unknown);
            if let Some(transition) = transition {
                assert_eq!(
                    transition.expect("answered"),
                    if moved {
                        ManualTransition::Done(expected)
                    } else {
                        ManualTransition::NotFrom(*state)
                    },
                    "{state}, {operation}"
                );
            }
            let unknown = b.organisation().await;
            let cancelled = b.store.cancel(unknown, id, now, audit(unknown)).await;
            assert_eq!(
                cancelled.expect("answered"),
                ManualTransition::Absent,
                "another organisation's"
            );
            b.finish(org, id).await;
        }
    }
}

pub async fn an_action_without_a_request_cannot_be_retried(b: &Bench) {
    let org = b.organisation().await;
    let dead = PlannedAction {
        request: None,
        state: ActionState::Dead,
        cause: Some(Cause::TemplateFailed),
        ..action()
    };
    b.plan(vec![event(org, 1, vec![dead.clone()])]).await;
    assert_eq!(
        b.store
            .retry(org, dead.id, b.now() + LEASE, b.now(), audit(org))
            .await
            .expect("answered"),
        ManualTransition::NotFrom(ActionState::Dead)
    );
}

/// Writers and readers at once: no caller gets "busy". Callers that go away break nothing.
pub async fn many_at_once_are_never_busy(b: &Bench) {
    let org = b.organisation().await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..50_u8 {
        let b = b.clone();
        tasks.spawn(async move {
            for j in 0..4_u8 {
                let mut event = event(org, i, vec![action()]);
                event.envelope.dedupe_key.0[1] = j;
                b.store.plan(vec![event].into()).await.expect("planned");
                let now = b.now();
                let records = b
                    .store
                    .claim(limits(2, 2), now)
                    .await
                    .expect("claimed")
                    .iter()
                    .map(|claim| record(claim, ActionState::Succeeded, now))
                    .collect();
                b.store.record(records).await.expect("recorded");
                b.store.ledger_state().await.expect("read");
                // Begun and left.
                drop(tokio::time::timeout(Duration::from_micros(u64::from(i)), b.store.claim(limits(0, 0), now)).await);
            }
        });
    }
    tasks.join_all().await;
    let left = b.claim(1_000).await;
    let records = left
        .iter()
        .map(|claim| record(claim, ActionState::Succeeded, b.now()))
        .collect();
    b.store.record(records).await.expect("recorded");
    let state = b.store.ledger_state().await.expect("read");
    assert_eq!(state.oldest_due_at, [], "all two hundred are done");
}

#[path = "ledger_accounts.rs"]
mod accounts;
#[path = "ledger_bulk.rs"]
mod bulk;
#[path = "ledger_delivery.rs"]
mod delivery;
#[path = "ledger_held.rs"]
mod held;
#[path = "ledger_late.rs"]
mod late;
#[path = "ledger_pauses.rs"]
mod pauses;
#[path = "ledger_recovery.rs"]
mod recovery;
#[path = "ledger_retention.rs"]
mod retention;
pub use self::{accounts::*, bulk::*, delivery::*, held::*, late::*, pauses::*, recovery::*, retention::*};
