//! Deletion by age, and the count of a day's actions.

use super::*;
use hookswitch::store::audit::AuditFilter;
use hookswitch::store::bulk::{BulkFilter, BulkVerb};
use hookswitch::store::retention::{KeyTable, Step};

const DAY: Duration = Duration::from_hours(24);

fn received(event: PlannedEvent, at: Timestamp) -> PlannedEvent {
    let mut event = event;
    event.envelope.received_at = at;
    event
}

/// Takes all steps, and says how many events went.
async fn delete_events(b: &Bench, before: Timestamp) -> u64 {
    let (mut after, mut deleted) = (None, 0);
    loop {
        let Step { deleted: more, next } = b.store.delete_events(None, before, after, 2).await.expect("deleted");
        deleted += more;
        after = next;
        if after.is_none() {
            return deleted;
        }
    }
}

async fn actions(b: &Bench, org: OrgId) -> Vec<StoredAction> {
    let listed = b.store.list_actions(org, ActionFilter::default(), None, 100).await;
    listed.expect("read")
}

async fn is_there(b: &Bench, org: OrgId, event: EventId) -> bool {
    b.store.find_event(org, event).await.expect("read").is_some()
}

async fn store_dead_event(b: &Bench, org: OrgId) {
    let dead = DeadEvent {
        id: EventId::generate(),
        org: Some(org),
        source: None,
        event_type: None,
        received_at: b.now(),
        reason: "it broke".into(),
        envelope: Vec::new(),
    };
    b.store.store_dead_event(dead).await.expect("stored");
}

pub async fn what_has_ended_is_deleted_by_age_and_nothing_else(b: &Bench) {
    let org = b.organisation().await;
    let old = b.now();
    let mut planned = Vec::new();
    for key in 0..5 {
        planned.push(received(event(org, key, vec![action()]), old));
    }
    let dead = PlannedAction {
        state: ActionState::Dead,
        cause: Some(Cause::TemplateFailed),
        request: None,
        ..action()
    };
    planned.push(received(event(org, 5, vec![dead]), old));
    planned.push(received(event(org, 6, Vec::new()), old));
    let ids: Vec<EventId> = planned.iter().map(|event| event.envelope.id).collect();
    b.plan(planned).await;
    // One of each: done, parked, unknown, running, pending.
    let claims = b.claim(4).await;
    assert_eq!(claims.len(), 4);
    for (claim, to) in claims
        .iter()
        .zip([ActionState::Succeeded, ActionState::Parked, ActionState::Unknown])
    {
        let record = Record {
            due_at: Some(b.now()),
            ..record(claim, to, b.now())
        };
        b.store.record(vec![record]).await.expect("recorded");
    }
    let succeeded = claims[0].event;
    let cutoff = b.now() + DAY;
    b.clock.advance(DAY * 2);
    let young = received(event(org, 7, Vec::new()), b.now());
    let young_id = young.envelope.id;
    b.plan(vec![young]).await;

    // A day ago nothing had ended yet.
    assert_eq!(delete_events(b, old).await, 0);
    assert_eq!(delete_events(b, cutoff).await, 3, "done, dead, without an action");
    for id in ids {
        let is_open = actions(b, org).await.iter().any(|action| action.event == id);
        assert_eq!(is_there(b, org, id).await, is_open, "what has not ended stays");
    }
    assert!(!is_there(b, org, succeeded).await);
    assert!(is_there(b, org, young_id).await);
    let states: std::collections::BTreeSet<ActionState> =
        actions(b, org).await.iter().map(|action| action.state).collect();
    assert_eq!(states.len(), 4, "pending, running, unknown, parked: {states:?}");
    for claim in &claims {
        let attempts = b.store.list_attempts(org, claim.action).await.expect("read");
        assert_eq!(attempts.is_empty(), claim.event == succeeded);
    }
    // An action that ended after the day stays with its event.
    b.store
        .record(vec![record(&claims[3], ActionState::Succeeded, b.now())])
        .await
        .expect("recorded");
    assert_eq!(delete_events(b, cutoff).await, 0);
    assert_eq!(delete_events(b, b.now() + DAY).await, 2, "it, and the young one");
}

pub async fn a_retention_of_its_own_deletes_what_is_its_own(b: &Bench) {
    let orgs = [b.organisation().await, b.organisation().await];
    assert_eq!(b.store.list_own_retention(None, 10).await.expect("read"), []);
    let settings = OrgSettings {
        retention_days: Some(1),
        ..OrgSettings::default()
    };
    for org in orgs {
        let saved = b.store.save_settings(org, 0, settings.clone(), audit(org)).await;
        saved.expect("saved");
    }
    let [a, other] = orgs;
    // One that takes its own time back is none of them.
    let none = OrgSettings::default();
    b.store
        .save_settings(other, 1, none, audit(other))
        .await
        .expect("saved");
    let listed = b.store.list_own_retention(None, 10).await.expect("read");
    assert_eq!(listed, [(a, Some(1))]);
    assert_eq!(b.store.list_own_retention(Some(a), 10).await.expect("read"), []);

    let mut events = Vec::new();
    for org in orgs {
        let (done, open) = (event(org, 1, vec![action()]), event(org, 2, vec![action()]));
        let plain = (3..6).map(|key| event(org, key, Vec::new()));
        let all: Vec<PlannedEvent> = [done, open]
            .into_iter()
            .chain(plain)
            .map(|one| received(one, b.now()))
            .collect();
        events.push(all.iter().map(|event| event.envelope.id).collect::<Vec<_>>());
        b.plan(all).await;
        for _ in 0..3 {
            store_dead_event(b, org).await;
        }
    }
    let done: Vec<EventId> = events.iter().map(|of_org| of_org[0]).collect();
    for claim in b
        .claim(10)
        .await
        .into_iter()
        .filter(|claim| done.contains(&claim.event))
    {
        let record = record(&claim, ActionState::Succeeded, b.now());
        b.store.record(vec![record]).await.expect("recorded");
    }
    b.clock.advance(DAY * 2);
    let before = b.now() - DAY;
    let (mut after, mut deleted, mut steps) = (None, 0, 0);
    loop {
        let step = b.store.delete_events(Some(a), before, after, 2).await.expect("deleted");
        (after, deleted, steps) = (step.next, deleted + step.deleted, steps + 1);
        if after.is_none() {
            break;
        }
    }
    assert_eq!((deleted, steps), (4, 4), "in steps, and without the one that is open");
    for (org, of_org) in orgs.into_iter().zip(&events) {
        for (n, id) in of_org.iter().enumerate() {
            assert_eq!(is_there(b, org, *id).await, org == other || n == 1, "{org} {n}");
        }
        let count = actions(b, org).await.len();
        assert_eq!(count, if org == a { 1 } else { 2 });
    }
    let dead_of = async |org| b.store.list_dead_events(Some(org), None, 10).await.expect("read").len();
    assert_eq!(
        b.store.delete_dead_events(Some(a), before, 2).await.expect("deleted"),
        2
    );
    assert_eq!(
        b.store.delete_dead_events(Some(a), before, 2).await.expect("deleted"),
        1
    );
    assert_eq!(
        b.store.delete_dead_events(Some(a), before, 2).await.expect("deleted"),
        0
    );
    assert_eq!((dead_of(a).await, dead_of(other).await), (0, 3));
    let young = received(event(a, 9, Vec::new()), b.now());
    b.plan(vec![young.clone()]).await;
    let step = b.store.delete_events(Some(a), before, None, 10).await.expect("deleted");
    assert_eq!(step, Step { deleted: 0, next: None });
    assert!(is_there(b, a, young.envelope.id).await);
    b.store.abandon_leases(b.now(), Duration::ZERO).await.expect("ended");
    for org in orgs {
        for action in actions(b, org).await {
            b.finish(org, action.id).await;
        }
    }
    let none = OrgSettings::default();
    b.store.save_settings(a, 1, none, audit(a)).await.expect("saved");
}

pub async fn old_keys_dead_events_and_audit_entries_are_deleted_in_steps(b: &Bench) {
    let org = b.organisation().await;
    let of_key = |key| received(event(org, key, vec![action()]), b.now());
    b.plan((0..5).map(of_key).collect()).await;
    for _ in 0..3 {
        store_dead_event(b, org).await;
    }
    let cutoff = b.now() + DAY;
    b.clock.advance(DAY * 2);
    b.plan(vec![of_key(5)]).await;
    let at = b.now();
    b.store
        .record_audit(AuditEntry { at, ..audit(org) })
        .await
        .expect("written");

    for table in [KeyTable::Dedupe, KeyTable::Idempotency] {
        let (mut after, mut deleted, mut steps) = (None, 0, 0);
        loop {
            let step = b.store.delete_keys(table, cutoff, after, 2).await.expect("deleted");
            (after, deleted, steps) = (step.next, deleted + step.deleted, steps + 1);
            if after.is_none() {
                break;
            }
        }
        assert_eq!((deleted, steps), (5, 4), "{table:?}");
    }
    // A key that is gone makes a redelivery new; one that stands does not.
    assert_eq!(
        b.plan(vec![of_key(0), of_key(5)]).await,
        [Planned::New, Planned::Duplicate]
    );

    assert_eq!(b.store.delete_dead_events(None, cutoff, 2).await.expect("deleted"), 2);
    assert_eq!(b.store.delete_dead_events(None, cutoff, 2).await.expect("deleted"), 1);
    assert_eq!(b.store.delete_dead_events(None, cutoff, 2).await.expect("deleted"), 0);
    let before = b
        .store
        .list_audit(org, AuditFilter::default(), None, 100)
        .await
        .expect("read")
        .len();
    let mut deleted = 0;
    while let 1.. = b.store.delete_audit(cutoff, 1).await.expect("deleted") {
        deleted += 1;
    }
    assert_eq!(deleted, before - 1);
    assert_eq!(
        b.store
            .list_audit(org, AuditFilter::default(), None, 100)
            .await
            .expect("read")
            .len(),
        1
    );
    for claim in b.claim(10).await {
        let done = record(&claim, ActionState::Succeeded, b.now());
        b.store.record(vec![done]).await.expect("recorded");
    }
}

/// A cancel of everything, that ends now where it is stopped.
async fn job(b: &Bench, org: OrgId, is_stopped: bool) -> uuid::Uuid {
    let job = running_job(org, BulkVerb::Cancel, BulkFilter::default(), 0, b.now());
    let id = job.id;
    b.store.begin_bulk(job, audit(org)).await.expect("begun");
    if is_stopped {
        assert!(b.store.stop_bulk(org, id, audit(org)).await.expect("stopped"));
    }
    id
}

pub async fn jobs_that_have_ended_are_deleted_by_age(b: &Bench) {
    let orgs = [b.organisation().await, b.organisation().await];
    let mut old = Vec::new();
    for org in orgs {
        for is_stopped in [true, true, true, false] {
            old.push((org, job(b, org, is_stopped).await, is_stopped));
        }
    }
    b.clock.advance(DAY * 2);
    let young = job(b, orgs[0], true).await;
    let before = b.now() - DAY;
    let delete = async |org, count_max| b.store.delete_jobs(org, before, count_max).await.expect("deleted");
    assert_eq!(delete(Some(orgs[0]), 2).await, 2, "a step");
    assert_eq!(delete(Some(orgs[0]), 100).await, 1, "the rest of its own");
    assert_eq!(delete(Some(orgs[0]), 100).await, 0);
    assert_eq!(delete(None, 100).await, 3, "the other organisation's");
    for (org, id, is_stopped) in old {
        let found = b.store.find_bulk(org, id).await.expect("a look");
        assert_eq!(found.is_none(), is_stopped, "one that runs stays, however old it is");
    }
    assert!(b.store.find_bulk(orgs[0], young).await.expect("a look").is_some());
}

pub async fn the_actions_of_a_day_are_counted_with_their_plan(b: &Bench) {
    let (org, other) = (b.organisation().await, b.organisation().await);
    let today = b.now().utc_day();
    let used = async |day| {
        let mut used = b.store.list_day(day).await.expect("read");
        used.sort_unstable();
        used
    };
    let dead = PlannedAction {
        rule: RuleId::generate(),
        state: ActionState::Dead,
        cause: Some(Cause::TemplateFailed),
        request: None,
        ..action()
    };
    let first = event(org, 1, vec![action(), dead]);
    b.plan(vec![
        first.clone(),
        event(other, 1, vec![action()]),
        event(other, 2, Vec::new()),
    ])
    .await;
    let mut counted = vec![(org, 2), (other, 1)];
    counted.sort_unstable();
    assert_eq!(used(today).await, counted, "a rule that failed counts");
    // A redelivery counts nothing.
    b.plan(vec![first]).await;
    assert_eq!(used(today).await, counted);
    b.plan(vec![event(org, 3, vec![action()])]).await;
    assert!(used(today).await.contains(&(org, 3)));
    b.clock.advance(DAY);
    b.plan(vec![event(org, 4, vec![action()])]).await;
    assert_eq!(used(today + 1).await, [(org, 1)]);
    b.store.delete_days(today + 1).await.expect("deleted");
    assert_eq!(used(today).await, []);
    assert_eq!(used(today + 1).await, [(org, 1)]);
    for claim in b.claim(10).await {
        let done = record(&claim, ActionState::Succeeded, b.now());
        b.store.record(vec![done]).await.expect("recorded");
    }
}
