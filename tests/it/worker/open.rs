//! Rules that ask whether their organisation is open.

use crate::ledger::suite::audit;
use crate::support::{
    app::{
        TestApp,
        worker::{ACCOUNT, report},
    },
    until,
};
use hookswitch::domain::*;
use serde_json::json;

fn open_on(days: &[&str]) -> OrgSettings {
    let always = json!([{ "from": "00:00", "until": "24:00" }]);
    let week: serde_json::Map<_, _> = days.iter().map(|day| ((*day).to_owned(), always.clone())).collect();
    OrgSettings {
        time_zone: Zone::find("Pacific/Auckland"),
        opening_hours: OpeningHours::read("", &week.into()).ok(),
        ..OrgSettings::default()
    }
}

async fn sent(app: &TestApp) -> Vec<String> {
    let actions = app.actions().await;
    let done = actions
        .into_iter()
        .filter(|action| action.state == ActionState::Succeeded);
    let mut names: Vec<String> = done.map(|action| action.rule_name).collect();
    names.sort();
    names
}

async fn has_sent(app: &TestApp, wanted: &[&str]) {
    until("the texts", || async { (sent(app).await == wanted).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_asks_whether_its_organisation_is_open_by_its_newest_hours() {
    let mut app = TestApp::working().await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("closed", Some("organisation.is_open == false"), "+15550009999")
        .await;
    app.rule("open", Some("organisation.is_open"), "+15550009999").await;
    let unset = Some("organisation.is_open is none");
    app.rule("unset", unset, "+15550009999").await;
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    has_sent(&app, &["unset"]).await;
    let saved = app.store.save_settings(app.a, 0, open_on(&[]), audit(app.a)).await;
    saved.expect("saved");
    app.deliver(app.a, 2, &report("+15550001111"));
    has_sent(&app, &["closed", "unset"]).await;
    let week = open_on(&OpeningHours::WEEKDAYS);
    app.store
        .save_settings(app.a, 1, week, audit(app.a))
        .await
        .expect("saved");
    app.deliver(app.a, 3, &report("+15550001111"));
    has_sent(&app, &["closed", "open", "unset"]).await;
    app.stop_worker().await;
}

/// It would be wrong to say "closed" or "none" of hours that cannot be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_asks_for_hours_that_cannot_be_read_waits_for_them() {
    let mut app = TestApp::working().await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    let asks = app.rule("asks", None, "+15550009999").await;
    let other = app.rule("other", None, "+15550009999").await;
    let at_any_time = RuleSpec {
        ignores_quiet_hours: true,
        ..app.spec_of(other).await
    };
    let text = |spec: &RuleSpec| serde_json::to_string(spec).expect("JSON");
    app.save_rule(other, &text(&at_any_time)).await;
    let asking = RuleSpec {
        name: "asks".into(),
        when: Some("organisation.is_open is not none".into()),
        ..at_any_time
    };
    app.save_rule(asks, &text(&asking)).await;
    let saved = app.store.save_settings(app.a, 0, open_on(&[]), audit(app.a)).await;
    saved.expect("saved");
    let mut connection = app.open_database().await;
    sqlx::raw_sql("UPDATE organization_settings SET opening_hours = '[]'")
        .execute(&mut connection)
        .await
        .expect("damaged");
    app.start_worker();
    let tag = app.deliver(app.a, 1, &report("+15550001111"));
    app.acked(tag).await;
    has_sent(&app, &["other"]).await;
    assert_eq!(app.actions().await.len(), 1);
    app.store
        .save_settings(app.a, 1, open_on(&[]), audit(app.a))
        .await
        .expect("saved");
    has_sent(&app, &["asks", "other"]).await;
    app.stop_worker().await;
}
