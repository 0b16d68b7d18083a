//! Quiet hours: a text message that is planned in them is due at their end.

use crate::ledger::suite::audit;
use crate::support::{
    app::{
        TestApp,
        worker::{ACCOUNT, report},
    },
    postgres::PostgresDatabase,
    until,
};
use hookswitch::{
    domain::*,
    store::{self, history::StoredAction, settings::StoredSettings},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;
use std::{sync::Arc, time::Duration};

const HOUR: Duration = Duration::from_hours(1);

/// Quiet hours in UTC around this moment: an hour back, and two hours ahead. And their end.
fn around(now: Timestamp) -> (Value, Timestamp) {
    let minutes = now.as_seconds() / 60;
    let text = |minutes: i64| format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
    let hours = json!({ "from": text(minutes - 60), "until": text(minutes + 120) });
    (hours, Timestamp::from_seconds((minutes + 120) * 60))
}

fn quiet(hours: &Value) -> OrgSettings {
    OrgSettings {
        quiet_hours: Some(QuietHours::read("", hours).expect("quiet hours")),
        ..OrgSettings::default()
    }
}

/// With a connected account, and two rules that text each caller: one keeps quiet hours.
async fn texting(app: &TestApp) {
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    let keeps = app
        .rule("keeps quiet hours", None, "{{ message.customer.number }}")
        .await;
    let at_once = app
        .rule("texts at any time", None, "{{ message.customer.number }}")
        .await;
    let spec = RuleSpec {
        ignores_quiet_hours: true,
        ..app.spec_of(keeps).await
    };
    let spec = RuleSpec {
        name: "texts at any time".into(),
        ..spec
    };
    app.save_rule(at_once, &serde_json::to_string(&spec).expect("JSON"))
        .await;
}

async fn action_of(app: &TestApp, rule: &str, state: ActionState) -> StoredAction {
    until(state.as_str(), || async {
        let actions = app.actions().await;
        actions
            .into_iter()
            .find(|action| action.rule_name == rule && action.state == state)
    })
    .await
}

async fn waits_for_their_end(mut app: TestApp) {
    texting(&app).await;
    let (hours, end) = around(app.clock.now());
    app.store
        .save_settings(app.a, 0, quiet(&hours), audit(app.a))
        .await
        .expect("saved");
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    action_of(&app, "texts at any time", ActionState::Succeeded).await;
    let waits = action_of(&app, "keeps quiet hours", ActionState::Waiting).await;
    assert_eq!(
        (waits.cause, waits.due_at, waits.expires_at, waits.attempts),
        (Some(Cause::QuietHours), end, end + HOUR * 24, 0),
        "a night expires nothing"
    );
    assert_eq!(app.twilio().count(), (1, 1));
    // A person's retry is not put off.
    let now = app.clock.now();
    app.store
        .retry(app.a, waits.id, now + HOUR, now, audit(app.a))
        .await
        .expect("answered");
    let sent = action_of(&app, "keeps quiet hours", ActionState::Succeeded).await;
    assert_eq!((sent.id, app.twilio().count()), (waits.id, (2, 2)));
    app.stop_worker().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_planned_in_quiet_hours_waits_for_their_end() {
    waits_for_their_end(TestApp::working().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_planned_in_quiet_hours_waits_for_their_end_on_postgres() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let store = store::connect(&database.url(), Arc::new(SystemClock))
        .await
        .expect("opens");
    waits_for_their_end(TestApp::working_over(store).await).await;
}

/// The settings are in memory, and current for each event: by a change through the store, and by
/// one that a person makes by hand.
async fn are_in_force_for_the_next_event(mut app: TestApp, by_hand: impl AsyncFnOnce(&TestApp, &Value)) {
    texting(&app).await;
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    until("both texts", || async {
        (app.twilio().count() == (2, 2)).then_some(())
    })
    .await;
    let (hours, _) = around(app.clock.now());
    app.store
        .save_settings(app.a, 0, quiet(&hours), audit(app.a))
        .await
        .expect("saved");
    let tag = app.deliver(app.a, 2, &report("+15550002222"));
    app.acked(tag).await;
    action_of(&app, "keeps quiet hours", ActionState::Waiting).await;
    app.store
        .save_settings(app.a, 1, OrgSettings::default(), audit(app.a))
        .await
        .expect("saved");
    app.deliver(app.a, 3, &report("+15550003333"));
    until("five texts", || async {
        (app.twilio().count() == (5, 5)).then_some(())
    })
    .await;
    by_hand(&app, &hours).await;
    let waiting = async |app: &TestApp| {
        let actions = app.actions().await;
        actions
            .iter()
            .filter(|action| action.state == ActionState::Waiting)
            .count()
    };
    // Until it is known events go by what stood before.
    let end = tokio::time::Instant::now() + Duration::from_mins(1);
    for key in 1000.. {
        let tag = app.deliver_numbered(app.a, key, &report("+15550004444"));
        app.acked(tag).await;
        if waiting(&app).await == 2 {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "the change by hand is not seen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.stop_worker().await;
}

const BY_HAND: &str = "UPDATE organization_settings SET quiet_hours = $1 WHERE org_id = $2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_settings_are_in_force_for_the_next_event() {
    let app = TestApp::working().await;
    are_in_force_for_the_next_event(app, async |app: &TestApp, hours: &Value| {
        let mut connection = app.open_database().await;
        let done = sqlx::query(BY_HAND)
            .bind(hours.to_string())
            .bind(app.a.as_bytes().as_slice())
            .execute(&mut connection)
            .await;
        assert_eq!(done.expect("a statement").rows_affected(), 1);
        // The poll that each instance makes every second.
        app.store.load_changes(0).await.expect("loaded");
    })
    .await;
}

/// Another instance's change, and one by hand, both come as a notification.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_settings_are_in_force_for_the_next_event_on_postgres() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let store = store::connect(&database.url(), Arc::new(SystemClock))
        .await
        .expect("opens");
    let app = TestApp::working_over(store).await;
    are_in_force_for_the_next_event(app, async |app: &TestApp, hours: &Value| {
        let mut by_hand = database.connect_as("hookswitch_tenant").await;
        let mut changes = app.store.config_changes();
        let before = *changes.borrow_and_update();
        let mut transaction = by_hand.begin().await.expect("begins");
        sqlx::query("SELECT set_config('hookswitch.org_id', $1, true)")
            .bind(app.a.to_string())
            .execute(&mut *transaction)
            .await
            .expect("set");
        let done = sqlx::query(BY_HAND)
            .bind(hours.to_string())
            .bind(app.a.as_uuid())
            .execute(&mut *transaction)
            .await;
        assert_eq!(done.expect("a statement").rows_affected(), 1);
        transaction.commit().await.expect("committed");
        until("the notification", || {
            let known = *changes.borrow_and_update();
            async move { (known == before + 1).then_some(()) }
        })
        .await;
    })
    .await;
}

/// Invariant 15: what one organisation stores stops nobody. Its rules that ask for the settings
/// wait until they are set anew, and the others run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cannot_be_read_hold_what_asks_for_them_until_they_are_set_anew() {
    let mut app = TestApp::working().await;
    texting(&app).await;
    let (hours, _) = around(app.clock.now() + HOUR * 6);
    app.store
        .save_settings(app.a, 0, quiet(&hours), audit(app.a))
        .await
        .expect("saved");
    let mut connection = app.open_database().await;
    sqlx::raw_sql("UPDATE organization_settings SET quiet_hours = '{\"from\":\"soon\"}'")
        .execute(&mut connection)
        .await
        .expect("damaged");
    app.start_worker();
    let tag = app.deliver(app.a, 1, &report("+15550001111"));
    app.acked(tag).await;
    action_of(&app, "texts at any time", ActionState::Succeeded).await;
    // Of another organisation, which has no such settings: it is planned, and no rule wants it.
    let other = app.deliver(app.b, 2, &report("+15550002222"));
    app.acked(other).await;
    assert_eq!(app.actions().await.len(), 1, "the other rule's part waits");
    assert_eq!(app.store.list_held_rules(10).await.expect("read").len(), 1);
    let StoredSettings { version, damaged, .. } = app.store.find_settings(app.a).await.expect("a look");
    assert_eq!(damaged, ["quiet_hours"]);
    app.store
        .save_settings(app.a, version, OrgSettings::default(), audit(app.a))
        .await
        .expect("saved");
    action_of(&app, "keeps quiet hours", ActionState::Succeeded).await;
    until("nothing waits", || async {
        let rules = app.store.list_held_rules(10).await.expect("read");
        rules.is_empty().then_some(())
    })
    .await;
    assert_eq!(app.twilio().count(), (2, 2));
    app.stop_worker().await;
}

/// Invariant 5: quiet hours wake nothing up whose time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_has_expired_before_its_plan_is_not_put_off() {
    let mut app = TestApp::working().await;
    texting(&app).await;
    let (hours, _) = around(app.clock.now());
    app.store
        .save_settings(app.a, 0, quiet(&hours), audit(app.a))
        .await
        .expect("saved");
    app.start_worker();
    let received = app.clock.now() - HOUR * 25;
    app.deliver_late(app.a, 1, &report("+15550001111"), received);
    for rule in ["keeps quiet hours", "texts at any time"] {
        let dead = action_of(&app, rule, ActionState::Dead).await;
        assert_eq!(dead.cause, Some(Cause::Expired), "{rule}");
    }
    assert_eq!(app.twilio().count(), (0, 0));
    app.stop_worker().await;
}

/// A person who replays an event at night wants its texts now. The page of an action says why it
/// waits, and until when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_not_put_off_and_an_action_says_why_it_waits() {
    let mut app = TestApp::builder().worker().admin().start().await;
    texting(&app).await;
    let (hours, end) = around(app.clock.now());
    let body = json!({ "quiet_hours": hours });
    app.call(app.a, Method::PATCH, "/api/settings", Some(&body))
        .await
        .expect(200);
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    let waits = action_of(&app, "keeps quiet hours", ActionState::Waiting).await;
    let shown = app
        .get(app.a, &format!("/api/actions/{}", waits.id))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&shown["state"], &shown["cause"], &shown["due_at"], &shown["can"]),
        (
            &json!("waiting"),
            &json!("quiet_hours"),
            &json!(hookswitch::admin::Time(end)),
            &json!(["retry", "cancel"])
        )
    );
    let path = format!("/api/actions/{}/cancel", waits.id);
    app.call(app.a, Method::POST, &path, None).await.expect(200);
    action_of(&app, "texts at any time", ActionState::Succeeded).await;
    let path = format!("/api/events/{}/replay", waits.event);
    app.call(app.a, Method::POST, &path, None).await.expect(202);
    action_of(&app, "keeps quiet hours", ActionState::Succeeded).await;
    app.stop_worker().await;
}
