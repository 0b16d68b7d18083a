//! Events that cannot be planned yet, and dead events that were put back.

use crate::ledger::suite::audit;
use crate::support::{
    app::{
        TestApp,
        worker::{ACCOUNT, report},
    },
    until,
};
use hookswitch::{domain::*, store::dead::Replayed};
use std::time::Duration;

impl TestApp {
    /// A statement behind the store's back.
    async fn execute(&self, statement: &'static str, org: OrgId) -> u64 {
        let mut connection = self.open_database().await;
        let done = sqlx::query(statement)
            .bind(org.as_bytes().as_slice())
            .execute(&mut connection)
            .await;
        done.expect("a statement").rows_affected()
    }

    async fn held(&self) -> u64 {
        let state = self.store.ledger_state().await.expect("read");
        state.held.iter().map(|(_, count)| count).sum()
    }
}

/// Events that wait for their organisation move to the store after a while, so that the queue can
/// forget them. It is planned once the organisation is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_wait_leave_the_queue_and_are_planned_later() {
    let mut app = TestApp::working().await;
    app.settings.worker.held_seconds_max = Duration::from_millis(50);
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    let late = OrgId::generate();
    app.start_worker();
    let tags: Vec<u64> = (0..200)
        .map(|key| app.deliver_numbered(late, key, &report("+15550001111")))
        .collect();
    for tag in tags {
        app.acked(tag).await;
    }
    assert_eq!(app.held().await, 200);
    let innocent = app.deliver(app.a, 1, &report("+15550002222"));
    app.acked(innocent).await;
    app.store
        .create_organisation(late, "late", audit(late))
        .await
        .expect("created");
    // Everything that was held is done: no rule wants it.
    until("nothing is held", || async { (app.held().await == 0).then_some(()) }).await;
    app.stop_worker().await;
}

/// A data key that does not open holds its own organisation's events only. They are sealed while
/// they wait, and their actions are planned once the key is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_data_key_does_not_open_is_planned_when_the_key_is_mended() {
    // More than one page.
    const COUNT: u16 = 90;
    let mut app = TestApp::working().await;
    app.settings.worker.held_seconds_max = Duration::from_millis(50);
    // Sealing makes the data key.
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    let org = app.a;
    let damage = "UPDATE data_keys SET wrapped = CAST(wrapped || x'00' AS BLOB) WHERE org_id = ?1";
    let mend = "UPDATE data_keys SET wrapped = substr(wrapped, 1, length(wrapped) - 1) WHERE org_id = ?1";
    assert_eq!(app.execute(damage, org).await, 1);
    // A vault that has not seen the key while it was good.
    app.forget_keys();
    app.start_worker();
    let tags: Vec<u64> = (0..COUNT)
        .map(|key| app.deliver_numbered(org, key, &report("+15550001111")))
        .collect();
    for tag in tags {
        app.acked(tag).await;
    }
    assert_eq!(app.held().await, u64::from(COUNT));
    let stored = std::fs::read(app.folder().join("store.db-wal")).expect("the log of the database");
    let is_there = |text: &[u8]| stored.windows(text.len()).any(|window| window == text);
    assert!(
        is_there(b"data_key") && !is_there(b"+15550001111"),
        "a body stands in the clear"
    );
    assert_eq!(app.execute(mend, org).await, 1);
    // The next event makes the worker look; those that wait go first.
    app.deliver_numbered(org, COUNT, &report("+15550001111"));
    let all = usize::from(COUNT) + 1;
    until("all are planned", || async {
        (app.actions().await.len() == all).then_some(())
    })
    .await;
    until("nothing is held", || async { (app.held().await == 0).then_some(()) }).await;
    // Ids of actions are in the order of planning, ids of events in the order of receipt.
    let mut planned: Vec<(ActionId, EventId)> = app.actions().await.iter().map(|a| (a.id, a.event)).collect();
    planned.sort();
    assert!(planned.is_sorted_by_key(|(_, event)| *event), "older events first");
    app.stop_worker().await;
}

/// A replay takes the whole way: rules, dedupe, actions. An action that the event has had already
/// is not planned again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_event_that_is_put_back_is_planned_once() {
    let mut app = TestApp::texting().await;
    let org = app.a;
    let set_active = "UPDATE organizations SET is_active = 1 WHERE id = ?1";
    let set_inactive = "UPDATE organizations SET is_active = 0 WHERE id = ?1";
    assert_eq!(app.execute(set_inactive, org).await, 1);
    app.start_worker();
    let tag = app.deliver(org, 1, &report("+15550001111"));
    app.acked(tag).await;
    let dead = app.store.list_dead_events(Some(org), None, 10).await.expect("read");
    assert_eq!(dead.len(), 1);
    assert_eq!(app.execute(set_active, org).await, 1);
    let replayed = app.store.replay_dead_event(org, dead[0].id, audit(org)).await;
    assert_eq!(replayed.expect("answered"), Replayed::PutBack);
    app.action_in(ActionState::Succeeded).await;
    until("nothing is held", || async { (app.held().await == 0).then_some(()) }).await;
    // The sender comes back with the same event.
    let again = app.deliver(org, 1, &report("+15550001111"));
    app.acked(again).await;
    assert_eq!(app.twilio().count(), (1, 1));
    app.stop_worker().await;
}
