//! Many actions at once, through the API: a plan first, then a job with its progress.

use super::{
    TestApp,
    audit::{change, last, with_changes},
    isolation::plan,
};
use crate::{ledger::suite::running_job, support::until};
use hookswitch::{
    admin::Role,
    domain::{ActionId, ActionState, OrgId},
    store::bulk::{BulkFilter, BulkJob, BulkVerb, JobState},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

async fn ended(app: &TestApp, org: OrgId, id: &Value) -> Value {
    let path = format!("/api/jobs/{}", id.as_str().unwrap());
    until("the job", || async {
        let job = app.get(org, &path).await.expect(200).json();
        (job["state"] != "running").then_some(job)
    })
    .await
}

async fn state(app: &TestApp, org: OrgId, id: ActionId) -> String {
    let shown = app.get(org, &format!("/api/actions/{id}")).await.expect(200).json();
    shown["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_plan_says_what_a_job_then_does_and_nobody_elses_is_touched() {
    let app = TestApp::start().await;
    let (_, waits) = plan(&app, app.a, ActionState::Pending).await;
    let (_, also) = plan(&app, app.a, ActionState::Pending).await;
    let (_, dead) = plan(&app, app.a, ActionState::Dead).await;
    let (_, theirs) = plan(&app, app.b, ActionState::Pending).await;

    let body = json!({ "provider": "twilio" });
    let planned = app
        .post(app.a, "/api/actions/cancel?plan=true", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(
        planned,
        json!({ "count": 2, "by": [{ "org_id": app.a, "state": "pending", "provider": "twilio", "count": 2 }] })
    );
    assert_eq!(state(&app, app.a, waits).await, "pending", "a plan changes nothing");

    let job = app.post(app.a, "/api/actions/cancel", &body).await.expect(202).json();
    assert_eq!((&job["state"], &job["planned"]), (&json!("running"), &json!(2)));
    let done = ended(&app, app.a, &job["id"]).await;
    assert_eq!(
        (&done["state"], &done["done"], &done["skipped"]),
        (&json!("done"), &json!(2), &json!(0))
    );
    for id in [waits, also] {
        assert_eq!(state(&app, app.a, id).await, "cancelled");
    }
    assert_eq!(state(&app, app.a, dead).await, "dead");
    assert_eq!(state(&app, app.b, theirs).await, "pending");
    let entries = app.get(app.a, "/api/audit").await.json();
    assert_eq!(
        (&entries["data"][0]["verb"], &entries["data"][0]["target_id"]),
        (&json!("cancel"), &job["id"])
    );
    assert_eq!(
        with_changes(&entries["data"][0])["changes"],
        json!([
            change("planned", Value::Null, 2),
            change("provider", Value::Null, "twilio"),
            change("state", vec!["pending"], vec!["cancelled"]),
        ])
    );

    let own = job["id"].as_str().unwrap();
    app.get(app.b, &format!("/api/jobs/{own}")).await.expect(404);
    app.post(app.b, &format!("/api/jobs/{own}/stop"), &json!({}))
        .await
        .expect(404);
    let viewer = app
        .call_as(app.a, Role::Viewer, Method::POST, "/api/actions/cancel", Some(&body))
        .await;
    viewer.expect(403);

    // Cancelled ones are tried again, and the dead one is not among them.
    let again = json!({ "state": "cancelled" });
    let job = app.post(app.a, "/api/actions/retry", &again).await.expect(202).json();
    assert_eq!(ended(&app, app.a, &job["id"]).await["done"], 2);
    assert_eq!(state(&app, app.a, also).await, "pending");
    for (path, body, field) in [
        ("/api/actions/retry", json!({}), "state"),
        ("/api/actions/retry", json!({ "state": "succeeded" }), "state"),
        ("/api/actions/cancel", json!({ "rule_id": "x" }), "rule_id"),
        ("/api/actions/cancel", json!({ "since": "yesterday" }), "since"),
    ] {
        assert_eq!(app.post(app.a, path, &body).await.expect(400).field(), field, "{body}");
    }
}

#[tokio::test]
async fn operators_cancel_by_organisation_and_decide_open_outcomes_with_an_entry_of_each() {
    let app = TestApp::start().await;
    let (_, mine) = plan(&app, app.a, ActionState::Pending).await;
    let (_, theirs) = plan(&app, app.b, ActionState::Pending).await;
    let operator = async |path: &str, body: Value| app.operator(Method::POST, path, &body).await;
    let path = "/operator/actions/cancel";
    let planned = operator(&format!("{path}?plan=true"), json!({ "all": true }))
        .await
        .expect(200)
        .json();
    assert_eq!(planned["count"], 2);
    assert_eq!(operator(path, json!({})).await.expect(400).field(), "all");
    let begun = operator(path, json!({ "org_id": app.a })).await.expect(202).json();
    assert_eq!(
        (&begun["count"], begun["jobs"].as_array().unwrap().len()),
        (&json!(1), 1)
    );
    let job = begun["jobs"][0]["id"].as_str().unwrap();
    let done = ended(&app, app.a, &begun["jobs"][0]["id"]).await;
    let of = |org: OrgId| format!("/operator/jobs/{job}?org_id={org}");
    let shown = app
        .operator(Method::GET, &of(app.a), &Value::Null)
        .await
        .expect(200)
        .json();
    assert_eq!((&shown, &shown["actor"]), (&done, &json!("operator:a person")));
    app.operator(Method::GET, &of(app.b), &Value::Null).await.expect(404);
    let unowned = app
        .operator(Method::GET, &format!("/operator/jobs/{job}"), &Value::Null)
        .await;
    assert_eq!(unowned.expect(400).field(), "org_id");
    app.get(app.a, &of(app.a)).await.expect(404);
    let stop = |org: OrgId| format!("/operator/jobs/{job}/stop?org_id={org}");
    app.operator(Method::POST, &stop(app.b), &Value::Null).await.expect(404);
    let stopped = app
        .operator(Method::POST, &stop(app.a), &Value::Null)
        .await
        .expect(200)
        .json();
    assert_eq!(stopped["state"], "done", "what has ended stays as it ended");
    app.call(app.a, Method::POST, &stop(app.a), None).await.expect(404);
    assert_eq!(state(&app, app.a, mine).await, "cancelled");
    assert_eq!(state(&app, app.b, theirs).await, "pending");
    let entries = app.get(app.a, "/api/audit").await.json();
    assert_eq!(entries["data"][0]["actor"], "operator:a person");
    assert_eq!(
        with_changes(&entries["data"][0])["changes"],
        json!([
            change("planned", Value::Null, 1),
            change("state", vec!["pending"], vec!["cancelled"]),
        ])
    );

    let resolve = async |id: ActionId, outcome: &str| {
        operator(
            &format!("/operator/actions/{id}/resolve"),
            json!({ "outcome": outcome }),
        )
        .await
    };
    assert_eq!(resolve(mine, "sent").await.expect(409).code(), "not_from_state");
    assert_eq!(resolve(mine, "maybe").await.expect(400).field(), "outcome");
    resolve(ActionId::generate(), "sent").await.expect(404);
}

#[tokio::test]
async fn an_operator_decides_an_open_outcome_once() {
    let app = TestApp::start().await;
    let (_, sent) = plan(&app, app.a, ActionState::Unknown).await;
    let (_, lost) = plan(&app, app.b, ActionState::Unknown).await;
    for (org, id, outcome, after) in [(app.a, sent, "sent", "succeeded"), (app.b, lost, "resend", "pending")] {
        let path = format!("/operator/actions/{id}/resolve");
        let body = json!({ "outcome": outcome });
        let resolved = app.operator(Method::POST, &path, &body).await.expect(200).json();
        assert_eq!(resolved, json!({ "id": id, "org_id": org, "state": after }));
        assert_eq!(state(&app, org, id).await, after);
        let again = app.operator(Method::POST, &path, &body).await.expect(409);
        assert_eq!(again.code(), "not_from_state");
        let entry = app.get(org, "/api/audit").await.json()["data"][0].clone();
        assert_eq!(entry["verb"], "resolve");
        assert!(entry["actor"].as_str().unwrap().starts_with("operator:"), "{entry}");
    }
}

/// A job as a handler begins it.
fn retry_of_dead(org: OrgId) -> BulkJob {
    let filter = BulkFilter {
        state: Some(ActionState::Dead),
        ..BulkFilter::default()
    };
    running_job(org, BulkVerb::Retry, filter, 3, super::START)
}

const LEASE: Duration = Duration::from_mins(1);

/// A job over three dead actions, of another process, which holds it.
async fn held_elsewhere(app: &TestApp) -> (BulkJob, Vec<ActionId>) {
    loop {
        let mut dead = Vec::new();
        for _ in 0..3 {
            dead.push(plan(app, app.a, ActionState::Dead).await.1);
        }
        let job = retry_of_dead(app.a);
        let begun = app.store.begin_bulk(job.clone(), crate::ledger::suite::audit(app.a));
        begun.await.unwrap();
        // This process may have been quicker.
        if app.store.take_bulk(app.a, job.id, LEASE).await.unwrap().is_some() {
            return (job, dead);
        }
    }
}

#[tokio::test]
async fn a_stop_is_told_with_the_state_of_the_job_before_and_after() {
    let app = TestApp::start().await;
    for is_operator in [false, true] {
        let (job, _) = held_elsewhere(&app).await;
        if is_operator {
            let path = format!("/operator/jobs/{}/stop?org_id={}", job.id, app.a);
            app.operator(Method::POST, &path, &Value::Null).await.expect(200);
        } else {
            app.post(app.a, &format!("/api/jobs/{}/stop", job.id), &json!({}))
                .await
                .expect(200);
        }
        let entry = last(&app).await;
        assert_eq!(entry["verb"], "stop");
        assert_eq!(entry["changes"], json!([change("state", "running", "stopped")]));
    }
}

/// A process that was killed left a job running. A process that lives goes on with it by itself:
/// nobody has to look at the job.
#[tokio::test]
async fn a_job_of_a_process_that_is_gone_is_taken_up_when_its_lease_has_ended() {
    let app = TestApp::start().await;
    let (org, store) = (app.a, app.store.clone());
    let (job, dead) = held_elsewhere(&app).await;
    app.clock.advance(LEASE);
    let done = until("the job is done", || async {
        let found = store.find_bulk(org, job.id).await.unwrap().unwrap();
        (found.state != JobState::Running).then_some(found)
    })
    .await;
    assert_eq!((done.state, done.done, done.skipped), (JobState::Done, 3, 0));
    for id in dead {
        let action = store.find_action(org, id).await.unwrap().unwrap();
        assert_eq!(action.state, ActionState::Pending);
    }
}
