//! Figures of an organisation; part of the store's suite.

use super::{store::org, store_ledger::planned};
use hookswitch::{
    domain::{ActionState, DedupeKey, EventId, ManualClock, OrgId, Timestamp},
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

/// An event that was received at a moment, by its id.
fn received(org: OrgId, at: Timestamp, place: u128, actions: usize) -> PlannedEvent {
    let millis = u128::try_from(at.as_micros() / 1_000).expect("after 1970");
    let id = EventId::from_uuid(Uuid::from_u128(millis << 80 | 7 << 76 | 2 << 62 | place));
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
