//! Events from before a database was put back from a backup.

use super::*;
use crate::ledger::suite::audit;
use hookswitch::{
    domain::INSTALLATION,
    store::{
        pauses::{Pause, Paused},
        recovery::Recovery,
    },
};

/// The rows that a backup from before all of this has not.
async fn forget_what_was_planned(app: &TestApp) {
    let mut connection = app.open_database().await;
    let all = "DELETE FROM attempts; DELETE FROM actions; DELETE FROM events; DELETE FROM dedupe_keys; \
        DELETE FROM idempotency_keys; DELETE FROM turns";
    sqlx::raw_sql(all).execute(&mut connection).await.expect("forgotten");
}

async fn recover(app: &TestApp, recovered_at: Timestamp) {
    let recovery = Recovery {
        restored_to: recovered_at,
        recovered_at,
        actor: "operator:a person".into(),
    };
    let pause = Pause {
        paused: Paused::All,
        reason: "restored".into(),
        actor: recovery.actor.clone(),
        since: recovered_at,
    };
    let begun = app.store.begin_recovery(recovery, pause, audit(INSTALLATION)).await;
    begun.expect("begun");
    let resumed = app.store.resume(Paused::All, audit(INSTALLATION)).await;
    assert!(resumed.expect("resumed"), "it was paused");
}

/// The queue gives an event again that was planned and sent since the backup, and one that was not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_from_before_a_recovery_is_looked_up_and_never_sent_twice() {
    let mut app = TestApp::texting().await;
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    app.action_in(ActionState::Succeeded).await;
    forget_what_was_planned(&app).await;
    recover(&app, app.clock.now() + Duration::from_hours(1)).await;

    app.deliver(app.a, 1, &report("+15550001111"));
    let found = app.action_in(ActionState::Succeeded).await;
    assert_eq!(found.cause, Some(Cause::LookedUp));
    assert_eq!(
        app.twilio().count(),
        (1, 1),
        "it was there, and went out no second time"
    );

    app.deliver(app.a, 2, &report("+15550002222"));
    until("the one that had not gone out", || async {
        (app.twilio().count() == (2, 2)).then_some(())
    })
    .await;
    until("both have ended", || async {
        let actions = app.actions().await;
        let ended = actions.iter().filter(|one| one.state == ActionState::Succeeded).count();
        (ended == 2).then_some(())
    })
    .await;
    app.stop_worker().await;
}

/// An event that is received after the recovery goes out at once, as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_from_after_a_recovery_is_sent_without_a_look() {
    let mut app = TestApp::texting().await;
    recover(&app, app.clock.now()).await;
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    let sent = app.action_in(ActionState::Succeeded).await;
    assert_eq!((sent.cause, sent.attempts), (Some(Cause::Accepted), 1));
    app.stop_worker().await;
}

/// A calendar is asked for the id that we made from the action's. A row that was planned anew has
/// another id, and its look-up would prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_by_the_id_of_a_lost_row_is_left_to_a_person() {
    let app = TestApp::working().await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    let engine = app.engine(Duration::from_secs(10), Duration::from_secs(2));
    let claim = app.claimed(Duration::from_mins(1)).await;
    let before_its_plan = claim.planned_at - Duration::from_secs(1);
    for (kind, is_asked) in [
        (ActionKind::GoogleCalendarCreateEvent, false),
        (ActionKind::TwilioSendSms, true),
    ] {
        let leased = Leased {
            claim: Claim {
                kind,
                is_look_up: true,
                first_sent_at: Some(before_its_plan),
                ..claim.clone()
            },
            lease_ends: std::time::Instant::now() + Duration::from_mins(1),
            stop: CancellationToken::new(),
        };
        let record = engine.run(&leased).await;
        assert_eq!(record.to, ActionState::Unknown, "{kind}");
        assert_eq!(record.cause == Cause::Ambiguous, !is_asked, "{kind}: {record:?}");
        let looks = app.twilio().0.lock().expect("lock").lists;
        assert_eq!(looks > 0, is_asked, "{kind}");
    }
    app.store.close().await;
}
