//! Events without an organisation; part of the store's suite.

use super::store::{entry, org};
use hookswitch::{
    domain::{Clock, EventId, HeldCause, ManualClock, OrgId, RouteKey, RouteKind, SealedBytes, Timestamp},
    store::{
        Store,
        audit::AuditFilter,
        held::HeldEvent,
        quarantine::{QuarantineState, QuarantinedEvent},
    },
};
use std::{sync::Arc, time::Duration};

fn event(seconds: i64) -> QuarantinedEvent {
    QuarantinedEvent {
        id: EventId::generate(),
        source: "vapi".into(),
        event_type: "vapi.end-of-call-report".into(),
        received_at: Timestamp::from_seconds(seconds),
        ids: vec![
            RouteKey::new(RouteKind::VapiAssistant, "asst-\"1\""),
            RouteKey::new(RouteKind::VapiNumber, "+12025550199"),
        ],
    }
}

fn sealed() -> SealedBytes {
    SealedBytes(b"\x02sealed under the ring".as_slice().into())
}

fn held(org: OrgId, of: &QuarantinedEvent) -> HeldEvent {
    HeldEvent {
        org,
        event: of.id,
        cause: HeldCause::Replay,
        received_at: of.received_at,
        envelope: SealedBytes(b"sealed for the organisation".as_slice().into()),
        replay: None,
    }
}

pub async fn a_quarantined_event_is_given_to_one_organisation_once(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let all = [event(10), event(20), event(30)];
    for one in all.iter().chain(&all[..1]) {
        store.quarantine(one.clone(), sealed()).await.expect("kept");
    }
    let first = store.list_quarantine(None, 2).await.expect("a page");
    let rest = store.list_quarantine(Some(first[1].id), 9).await.expect("a page");
    let newest_first: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!([first, rest].concat(), newest_first, "each once");
    let state = QuarantineState {
        events: 3,
        oldest_at: Some(Timestamp::from_seconds(10)),
    };
    assert_eq!(store.quarantine_state().await.expect("a state"), state);
    let found = store.find_quarantined(all[1].id).await.expect("a look").expect("there");
    assert_eq!(found, (all[1].clone(), sealed()));

    let wrong = store.release_quarantined(held(a, &all[1]), entry(b, "replay")).await;
    assert!(wrong.is_err(), "the entry names another organisation");
    assert!(
        store.find_quarantined(all[1].id).await.expect("a look").is_some(),
        "undone"
    );
    let version = store.config_version().await.expect("a version");
    for is_there in [true, false] {
        let released = store.release_quarantined(held(a, &all[1]), entry(a, "replay")).await;
        assert_eq!(released.expect("answered"), is_there);
    }
    assert_eq!(
        store.config_version().await.expect("a version"),
        version + 1,
        "workers look"
    );
    assert_eq!(
        store.list_held_events(a, None, 9).await.expect("a list"),
        [held(a, &all[1])]
    );
    assert_eq!(store.list_held_events(b, None, 9).await.expect("a list"), []);
    assert_eq!(store.find_quarantined(all[1].id).await.expect("a look"), None);
    let entries = store
        .list_audit(a, AuditFilter::default(), None, 9)
        .await
        .expect("audit");
    assert_eq!(entries.iter().filter(|entry| entry.verb == "replay").count(), 1);
}

pub async fn old_quarantined_events_are_deleted_by_age(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (old, new) = (event(10), event(20));
    store.quarantine(old.clone(), sealed()).await.expect("kept");
    clock.advance(Duration::from_mins(1));
    store.quarantine(new.clone(), sealed()).await.expect("kept");
    let before = clock.now() - Duration::from_secs(30);
    assert_eq!(store.delete_quarantined(before, 9).await.expect("deleted"), 1);
    assert_eq!(store.list_quarantine(None, 9).await.expect("a list"), [new]);
}
