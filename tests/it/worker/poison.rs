//! Events that the database refuses: they cost themselves, and nobody beside them waits.

use crate::support::app::{
    TestApp,
    worker::{ACCOUNT, report},
};
use crate::{
    ledger::suite::audit,
    support::{postgres::PostgresDatabase, until},
};
use hookswitch::{
    domain::*,
    store::{PostgresStore, dead::Replayed, history::ActionFilter, ledger::TRIES_MAX},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The number of events that may be stored as dead before an innocent one of the next batch is
/// planned. They are those of one commit, and of the search for the first of them. Counted, because
/// time says little on a machine that is busy with other tests.
const DEAD_BEFORE_MAX: i64 = 100;
/// For all of them to be stored as dead.
const ALL_DEAD_MAX: Duration = Duration::from_mins(2);

/// A broker has delivered both again and again. The tries of the first ended with their workers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_ended_its_worker_at_each_try_is_dead_and_its_neighbour_is_planned() {
    let mut app = TestApp::working().await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    let (poison, first) = app.deliver_again(app.a, 1, &report("+15550001111"), 5);
    let (innocent, second) = app.deliver_again(app.a, 2, &report("+15550002222"), 5);
    for before in 0..TRIES_MAX {
        assert_eq!(app.store.begin_try(app.a, poison).await.expect("recorded"), before);
    }
    app.start_worker();
    app.acked(first).await;
    app.acked(second).await;
    let dead = app.store.list_dead_events(None, None, 10).await.expect("read");
    assert_eq!(dead.iter().map(|dead| dead.id).collect::<Vec<_>>(), [poison]);
    assert_eq!(dead[0].reason, "its worker ended each time while it was planned");
    let planned: Vec<_> = app.actions().await.iter().map(|action| action.event).collect();
    assert_eq!(planned, [innocent]);
    for event in [poison, innocent] {
        let before = app.store.begin_try(app.a, event).await.expect("recorded");
        assert_eq!(before, 0, "a try that ended counts no more");
    }
}

/// A worker was killed after it had stored the event as dead, and before its ack was saved. So the
/// event comes once more, and an operator puts it back, the one before the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_event_that_comes_once_more_and_is_put_back_acts_once() {
    for is_put_back_first in [false, true] {
        let mut app = TestApp::texting().await;
        let org = app.a;
        let event = app.event(org, 1, &report("+15550001111"));
        for _ in 0..TRIES_MAX {
            app.store.begin_try(org, event.id).await.expect("recorded");
        }
        let first = app.redeliver(event.clone(), 5);
        app.start_worker();
        app.acked(first).await;
        assert!(app.actions().await.is_empty(), "it is dead");
        for puts_back in [is_put_back_first, !is_put_back_first] {
            if puts_back {
                let replayed = app.store.replay_dead_event(org, event.id, audit(org)).await;
                assert_eq!(replayed.expect("written"), Replayed::PutBack);
                until("it to be planned", || async {
                    let held = app.store.list_held_events(org, None, 1).await.expect("read");
                    held.is_empty().then_some(())
                })
                .await;
            } else {
                let again = app.redeliver(event.clone(), 6);
                app.acked(again).await;
            }
            app.action_in(ActionState::Succeeded).await;
        }
        assert_eq!(app.actions().await.len(), 1, "put back first: {is_put_back_first}");
        assert_eq!(app.twilio().count().0, 1, "put back first: {is_put_back_first}");
        app.stop_worker().await;
    }
}

/// Postgres refuses a NUL in a text. No rule with one can be saved any more; this one is written
/// behind the check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_events_that_cannot_be_stored_hold_up_nobody() {
    const POISONED: u16 = 600;
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let store = PostgresStore::open(&database.url(), Arc::new(SystemClock))
        .await
        .expect("the store opens");
    let mut app = TestApp::working_over(Arc::new(store)).await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("text\0the caller", None, "{{ message.customer.number }}")
        .await;
    let poisoned = app.a;
    let innocent = OrgId::generate();
    app.store
        .create_organisation(innocent, "an innocent organisation", audit(innocent))
        .await
        .expect("created");
    app.a = innocent;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    for key in 0..POISONED / 2 {
        app.deliver_numbered(poisoned, key, &report("+15550001111"));
    }
    app.deliver_numbered(innocent, 0, &report("+15550002222"));
    for key in POISONED / 2..POISONED {
        app.deliver_numbered(poisoned, key, &report("+15550001111"));
    }
    app.start_worker();
    let end = Instant::now() + ALL_DEAD_MAX;
    let planned = loop {
        if let Some(action) = app.actions().await.pop() {
            break action.created_at;
        }
        assert!(Instant::now() < end, "the innocent event is not planned");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut connection = database.connect_as("hookswitch_tenant").await;
    sqlx::query("SELECT set_config('hookswitch.org_id', $1, false)")
        .bind(poisoned.to_string())
        .execute(&mut connection)
        .await
        .expect("the organisation");
    let before: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_events WHERE dead_at <= $1")
        .bind(planned.as_micros())
        .fetch_one(&mut connection)
        .await
        .expect("a count");
    assert!(before <= DEAD_BEFORE_MAX, "{before} of {POISONED} came first");
    loop {
        let dead: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_events")
            .fetch_one(&mut connection)
            .await
            .expect("a count");
        if dead == i64::from(POISONED) {
            break;
        }
        assert!(Instant::now() < end, "{dead} of {POISONED} are dead");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let none = app
        .store
        .list_actions(poisoned, ActionFilter::default(), None, 10)
        .await;
    assert!(none.expect("read").is_empty());
    app.stop_worker().await;
}

/// A NUL in an event costs the action whose text has it, and the event's other actions happen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nul_in_an_event_costs_the_action_that_renders_it() {
    let mut app = TestApp::working().await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("names the caller", None, "{{ message.customer.name }}").await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    app.start_worker();
    let mut body = report("+15550001111");
    body["message"]["customer"]["name"] = "Ann\0".into();
    let org = app.a;
    let tag = app.deliver_numbered(org, 1, &body);
    app.acked(tag).await;
    let sent = app.action_in(ActionState::Succeeded).await;
    assert_eq!(sent.rule_name, "text the caller");
    let dead = app.action_in(ActionState::Dead).await;
    assert_eq!(
        (dead.rule_name.as_str(), dead.cause),
        ("names the caller", Some(Cause::TemplateFailed))
    );
    assert!(dead.detail.is_some_and(|detail| detail.contains("NUL")));
    app.stop_worker().await;
}
