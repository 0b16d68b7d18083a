//! Work on many actions in the browser: a real job that is seen while it runs.
//!
//! A job of some hundred actions is done before anybody looks. Here the database refuses its second
//! step, as a full disk would, so that the job stands in its middle for as long as the test looks.

use super::{Desk, history::send};
use crate::{
    admin::{TestApp, isolation::plan},
    support::{
        browser::{Browser, DESK, Driver, PHONE},
        until,
    },
};
use hookswitch::domain::ActionState;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

/// More than a step of a job looks at, and less than two.
const MANY: u64 = 601;

/// Copies of the one action that is in a state, so that there are [`MANY`]. Each is of an event of
/// its own: no two are runs of one rule for one event.
async fn multiply(database: &mut SqliteConnection, state: ActionState) {
    let mut work = database.begin().await.expect("begun");
    let one = "CREATE TEMPORARY TABLE one AS SELECT * FROM actions WHERE state = ?1";
    sqlx::query(one)
        .bind(state.as_str())
        .execute(&mut *work)
        .await
        .expect("copied");
    for _ in 1..MANY {
        sqlx::query("UPDATE one SET id = ?1, event_id = ?2")
            .bind(Uuid::now_v7().as_bytes().as_slice())
            .bind(Uuid::now_v7().as_bytes().as_slice())
            .execute(&mut *work)
            .await
            .expect("changed");
        let row = "INSERT INTO actions SELECT * FROM one";
        sqlx::query(row).execute(&mut *work).await.expect("one more");
    }
    work.commit().await.expect("committed");
}

/// From now on the second step of a job fails.
async fn hold(database: &mut SqliteConnection) {
    let trigger = "CREATE TRIGGER hold BEFORE UPDATE OF done ON bulk_jobs WHEN NEW.done > 500 \
        BEGIN SELECT RAISE(ABORT, 'held by the test'); END";
    sqlx::query(trigger).execute(database).await.expect("made");
}

async fn release(database: &mut SqliteConnection) {
    sqlx::query("DROP TRIGGER hold")
        .execute(database)
        .await
        .expect("dropped");
}

/// The job on the page stands in its middle and is stopped there. Returns how many it left.
async fn is_seen_and_stopped(page: &Browser<'_>) -> u64 {
    page.until("document.querySelector('job-progress[data-state=running] progress')?.value > 400")
        .await;
    let figures = "const all = document.querySelector('job-progress progress'); return [all.value, all.max]";
    let figures = page.run(figures, json!([])).await;
    let done = figures[0].as_u64().expect("a count");
    assert_eq!(figures[1], MANY, "{figures}");
    page.shows("job-progress[data-state=running]", &format!("{done} of {MANY} done."))
        .await;
    page.click("job-progress [data-do=stop]").await;
    page.shows(
        "job-progress[data-state=stopped]",
        &format!("{} were left as they were", MANY - done),
    )
    .await;
    page.until("document.querySelector('job-progress [data-do=stop]') === null")
        .await;
    MANY - done
}

/// How many actions of the demo are in a state.
async fn count(desk: &Desk, state: &str) -> u64 {
    let body = json!({ "state": state });
    let (status, plan) = desk.dev.admin_post("/api/actions/retry?plan=true", &body).await;
    assert_eq!(status, 200, "{plan}");
    plan["count"].as_u64().expect("a count")
}

#[tokio::test]
async fn a_retry_of_many_is_planned_seen_while_it_runs_stopped_and_begun_again() {
    let desk = Desk::start().await;
    desk.refuse_texts(1).await;
    send(&desk, "vapi/end-of-call-report").await;
    until("a dead action", || async {
        (count(&desk, "dead").await == 1).then_some(())
    })
    .await;
    let options = SqliteConnectOptions::new().filename(desk.directory.path().join("store.db"));
    let mut database = SqliteConnection::connect_with(&options).await.expect("opens");
    multiply(&mut database, ActionState::Dead).await;
    hold(&mut database).await;

    let page = desk.owner("/dashboard/actions?state=dead", DESK).await;
    page.click("[data-key=bulk-retry]").await;
    page.shows("dialog", "Try 601 actions again?").await;
    assert_eq!(count(&desk, "dead").await, MANY, "a plan changes nothing");
    page.click("dialog .danger").await;
    page.find("job-progress[data-state=running] [data-do=stop]").await;
    // The address carries the job: it is there after a reload, and goes on without the page.
    page.run("location.reload()", json!([])).await;
    let left = is_seen_and_stopped(&page).await;
    assert_eq!(count(&desk, "dead").await, left);
    desk.dev.wait_for_sms(1).await;

    release(&mut database).await;
    page.go("/dashboard/actions?state=dead").await;
    page.click("[data-key=bulk-retry]").await;
    page.shows("dialog", &format!("Try {left} actions again?")).await;
    page.click("dialog .danger").await;
    page.shows("job-progress[data-state=done]", &format!("{left} of {left} done"))
        .await;
    assert_eq!(count(&desk, "dead").await, 0);
    page.is_faultless().await;
}

#[tokio::test]
async fn an_operator_stops_a_job_that_runs_and_sees_what_it_left() {
    let driver = Driver::start().await;
    let app = TestApp::start().await;
    plan(&app, app.a, ActionState::Pending).await;
    let mut database = app.open_database().await;
    multiply(&mut database, ActionState::Pending).await;
    hold(&mut database).await;
    let page = driver.open(app.base(), PHONE).await;
    page.sign_in(&app.operator_token(), "/dashboard/jobs").await;
    page.click("[data-key=cancel-open]").await;
    page.write("dialog [name=org_id]", &app.a.to_string()).await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog", "Cancel 601 actions?").await;
    page.click("dialog .danger").await;
    let left = is_seen_and_stopped(&page).await;
    let body = json!({ "state": "pending" });
    let plan = app
        .post(app.a, "/api/actions/cancel?plan=true", &body)
        .await
        .expect(200);
    assert_eq!(plan.json()["count"], left);
    let audit: Value = app.get(app.a, "/api/audit").await.json();
    let verbs = [0, 1].map(|at| audit["data"][at]["verb"].clone());
    assert_eq!(verbs, [json!("stop"), json!("cancel")]);
    page.is_faultless().await;
}
