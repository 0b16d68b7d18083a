//! Figures of an organisation; part of the store's suite.

use super::{
    store::{entry, org},
    store_ledger::planned,
};
use hookswitch::{
    domain::{ActionId, ActionState, DedupeKey, EventId, ManualClock, OrgId, Timestamp},
    store::{
        Store,
        ledger::PlannedEvent,
        statistics::{Backlog, Counted},
    },
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// When the suite's clock begins.
const START: Timestamp = Timestamp::from_seconds(1_000_000);
const PART: Duration = Duration::from_mins(1);

/// An id that was made at a moment.
fn made_at(at: Timestamp, place: u128) -> Uuid {
    let millis = u128::try_from(at.as_micros() / 1_000).expect("after 1970");
    Uuid::from_u128(millis << 80 | 7 << 76 | 2 << 62 | place)
}

/// An event that was received at a moment, by its id.
fn received(org: OrgId, at: Timestamp, place: u128, actions: usize) -> PlannedEvent {
    let id = EventId::from_uuid(made_at(at, place));
    let mut event = planned(org, "call", "end-of-call-report", actions);
    event.envelope.id = id;
    event.envelope.dedupe_key = DedupeKey(*id.as_bytes());
    event
}

async fn count(store: &Arc<dyn Store>, org: OrgId, edges: &[Timestamp]) -> Counted {
    store.count_history(org, edges).await.expect("counted")
}

pub async fn history_is_counted_in_parts_of_its_time(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let edges: Vec<Timestamp> = (0..4).map(|part| START + PART * part).collect();
    let before = received(a, START - Duration::from_millis(1), 0, 1);
    clock.set(START - Duration::from_secs(1));
    store.plan(vec![before].into()).await.expect("planned");
    clock.set(START + PART);
    let newest = received(a, START + PART * 2, 3, 2);
    let event = newest.envelope.id;
    let all = vec![
        received(a, START, 1, 0),
        received(a, START + PART - Duration::from_millis(1), 2, 0),
        newest,
        received(a, START + PART * 3, 4, 0),
        received(b, START, 5, 1),
    ];
    store.plan(all.into()).await.expect("planned");
    let counted = count(store, a, &edges).await;
    assert_eq!(
        counted.events,
        [2, 0, 1],
        "a part begins with its edge, and ends before the next"
    );
    let actions = &counted.actions;
    assert_eq!(actions.len(), 2, "what was planned before is not read: {actions:?}");
    for action in actions {
        assert_eq!(
            (action.event, action.state, action.series),
            (event, ActionState::Pending, 0)
        );
        assert_eq!(
            (action.created_at, action.claims, action.look_ups),
            (START + PART, 0, 0)
        );
    }
    let pending = Backlog {
        state: ActionState::Pending,
        count: 3,
        oldest_at: START - Duration::from_secs(1),
    };
    assert_eq!(counted.backlog, [pending], "whenever it was planned");
    let of_b = count(store, b, &edges).await;
    assert_eq!(
        (of_b.events, of_b.actions.len(), of_b.backlog[0].count),
        (vec![1, 0, 0], 1, 1)
    );
    assert_eq!(count(store, OrgId::generate(), &edges).await.events, [0; 3]);
}

/// They were backlog of that time until they ended.
pub async fn history_has_what_was_planned_before_and_ended_in_its_time(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let edges = [START, START + PART];
    let mut ids = Vec::new();
    // One too old to be walked to, one that ends before, two of a and one of b that end within.
    for (org, hours, place) in [(a, 25, 1), (a, 8, 2), (a, 8, 3), (a, 0, 4), (b, 8, 5)] {
        let at = START - Duration::from_hours(hours) - Duration::from_secs(1);
        clock.set(at);
        let mut event = received(org, at, place, 1);
        event.actions[0].id = ActionId::from_uuid(made_at(at, place));
        ids.push(event.actions[0].id);
        store.plan(vec![event].into()).await.expect("planned");
    }
    let cancel = async |at: Timestamp, org, id| {
        store
            .cancel(org, id, at, entry(org, "cancel"))
            .await
            .expect("cancelled");
    };
    cancel(START - Duration::from_secs(1), a, ids[1]).await;
    for (org, at) in [(a, 0), (a, 2), (a, 3), (b, 4)] {
        cancel(START + Duration::from_secs(1), org, ids[at]).await;
    }
    let counted = count(store, a, &edges).await;
    let mut found: Vec<Timestamp> = counted.earlier.iter().map(|action| action.created_at).collect();
    found.sort_unstable();
    let second = Duration::from_secs(1);
    assert_eq!(found, [START - Duration::from_hours(8) - second, START - second]);
    assert!(
        counted
            .earlier
            .iter()
            .all(|action| action.state == ActionState::Cancelled)
    );
    assert_eq!((counted.actions.len(), counted.backlog.len()), (0, 0));
    assert_eq!(count(store, b, &edges).await.earlier.len(), 1);
}
