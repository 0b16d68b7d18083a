//! The budget of a day: what goes out, what is written, and what a restart forgets.

use crate::ledger::suite::{action as planned_action, event as planned_event};
use crate::support::{
    app::{
        TestApp,
        worker::{ACCOUNT, report},
    },
    until,
};
use hookswitch::{
    domain::*,
    store::{
        history::{EventFilter, StoredAction},
        ledger::PlannedAction,
    },
};

/// Invariant 5: an organisation's actions of a day are limited, and another organisation's are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_of_a_day_ends_an_organisations_actions_and_no_other_ones() {
    let mut app = TestApp::working().await;
    app.settings.worker.actions_per_day_max = 3;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    for key in 0..5 {
        app.deliver(app.a, key, &report(&format!("+155500011{key:02}")));
    }
    app.start_worker();
    until("three texts", || async { (app.twilio().count().1 == 3).then_some(()) }).await;
    until("five actions", || async {
        (app.actions().await.len() == 5).then_some(())
    })
    .await;
    let actions = app.actions().await;
    let dead: Vec<_> = actions
        .iter()
        .filter(|action| action.state == ActionState::Dead)
        .collect();
    assert_eq!(dead.len(), 2, "in one batch as well");
    assert!(dead.iter().all(|action| action.cause == Some(Cause::DayBudget)));
    app.stop_worker().await;
}

/// Actions that an earlier process planned today count, and so does a rule that fails. Beyond twice
/// the budget not even a dead action is written; the events themselves are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_of_a_day_holds_over_restarts_and_bounds_the_rows_of_actions() {
    let mut app = TestApp::working().await;
    app.settings.worker.actions_per_day_max = 3;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    let failed = || PlannedAction {
        state: ActionState::Dead,
        cause: Some(Cause::TemplateFailed),
        request: None,
        ..planned_action()
    };
    let earlier = planned_event(app.a, 99, vec![failed(), failed()]);
    app.store.plan(vec![earlier].into()).await.expect("planned");
    let tags: Vec<u64> = (0..6)
        .map(|key| app.deliver(app.a, key, &report(&format!("+155500011{key:02}"))))
        .collect();
    app.start_worker();
    for tag in tags {
        app.acked(tag).await;
    }
    until("the one text", || async { (app.twilio().count().1 == 1).then_some(()) }).await;
    let of = |actions: &[StoredAction], cause| actions.iter().filter(|action| action.cause == Some(cause)).count();
    let actions = app.actions().await;
    assert_eq!((actions.len(), of(&actions, Cause::DayBudget)), (6, 3));
    let events = app.store.list_events(app.a, EventFilter::default(), None, 10).await;
    assert_eq!(events.expect("read").len(), 7);
    app.stop_worker().await;
}
