//! Lists as a page shows them: what came of each event, and what a person may do with an action.

use super::{TestApp, isolation::plan};
use hookswitch::domain::{ActionId, ActionState};
use reqwest::Method;
use serde_json::{Value, json};

async fn show_action(app: &TestApp, action: ActionId) -> Value {
    let path = format!("/api/actions/{action}");
    app.get(app.a, &path).await.expect(200).json()
}

#[tokio::test]
async fn each_event_of_a_list_says_what_came_of_it() {
    let app = TestApp::start().await;
    let (dead, _) = plan(&app, app.a, ActionState::Dead).await;
    let (pending, _) = plan(&app, app.a, ActionState::Pending).await;
    plan(&app, app.b, ActionState::Parked).await;
    let list = app.get(app.a, "/api/events").await.expect(200).json();
    let rows: Vec<(Value, Value)> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["id"].clone(), row["actions"].clone()))
        .collect();
    assert_eq!(
        rows,
        [
            (json!(pending), json!({ "pending": 1 })),
            (json!(dead), json!({ "dead": 1 }))
        ]
    );
}

#[tokio::test]
async fn an_event_is_shown_without_its_body_where_that_is_asked_for() {
    let app = TestApp::start().await;
    let (event, action) = plan(&app, app.a, ActionState::Dead).await;
    let whole = app.get(app.a, &format!("/api/events/{event}")).await.expect(200).json();
    let mut short = app
        .get(app.a, &format!("/api/events/{event}?body=false"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&short["body"], &short["actions"][0]["id"]),
        (&Value::Null, &json!(action))
    );
    assert!(whole["body"].is_object());
    short["body"] = whole["body"].clone();
    assert_eq!(short, whole);
    let refused = app
        .get(app.a, &format!("/api/events/{event}?body=no"))
        .await
        .expect(400);
    assert_eq!(refused.field(), "body");
}

#[tokio::test]
async fn actions_of_one_rule_are_a_list_whose_cursor_fits_no_other() {
    let app = TestApp::start().await;
    let mut rules = Vec::new();
    for state in [ActionState::Dead, ActionState::Pending, ActionState::Dead] {
        let (_, action) = plan(&app, app.a, state).await;
        let shown = show_action(&app, action).await;
        rules.push((shown["rule_id"].as_str().unwrap().to_owned(), json!(action)));
    }
    let (rule, action) = &rules[0];
    let list = app
        .get(app.a, &format!("/api/actions?rule_id={rule}"))
        .await
        .expect(200)
        .json();
    let ids: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
    assert_eq!(ids, [action]);
    let dead = app
        .get(app.a, &format!("/api/actions?rule_id={rule}&state=pending"))
        .await
        .expect(200)
        .json();
    assert_eq!(dead["data"], json!([]));
    let theirs = app
        .get(app.b, &format!("/api/actions?rule_id={rule}"))
        .await
        .expect(200)
        .json();
    assert_eq!(theirs["data"], json!([]));
    let first = app.get(app.a, "/api/actions?limit=1").await.expect(200).json();
    let cursor = first["next_cursor"].as_str().unwrap();
    app.get(app.a, &format!("/api/actions?rule_id={rule}&cursor={cursor}"))
        .await
        .expect(400);
    assert_eq!(
        app.get(app.a, "/api/actions?rule_id=x").await.expect(400).field(),
        "rule_id"
    );
}

#[tokio::test]
async fn actions_in_several_states_are_one_list_with_one_cursor() {
    let app = TestApp::start().await;
    let mut wanted = Vec::new();
    for state in [
        ActionState::Dead,
        ActionState::Pending,
        ActionState::Parked,
        ActionState::Dead,
        ActionState::Parked,
    ] {
        let (_, action) = plan(&app, app.a, state).await;
        if state != ActionState::Pending {
            wanted.insert(0, action.to_string());
        }
    }
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        // The order of the states makes no other list.
        let states = if found.len() % 2 == 0 {
            "parked,dead"
        } else {
            "dead,parked,dead"
        };
        let page = app
            .get(app.a, &format!("/api/actions?state={states}&limit=1{cursor}"))
            .await
            .expect(200)
            .json();
        let rows = page["data"].as_array().unwrap();
        found.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, wanted);
    for bad in ["dead,", "dead,lost", ",", "DEAD"] {
        assert_eq!(
            app.get(app.a, &format!("/api/actions?state={bad}"))
                .await
                .expect(400)
                .field(),
            "state",
            "{bad}"
        );
    }
}

/// A transition that `can` names is done, and any other one is 409.
#[tokio::test]
async fn an_action_says_what_can_be_done_with_it() {
    let app = TestApp::start().await;
    let verbs = ["retry", "cancel", "resolve"];
    for state in [
        ActionState::Pending,
        ActionState::Parked,
        ActionState::Suppressed,
        ActionState::Dead,
        ActionState::Cancelled,
        ActionState::Unknown,
        ActionState::Waiting,
        ActionState::Succeeded,
    ] {
        for verb in verbs {
            let (_, action) = plan(&app, app.a, state).await;
            let shown = show_action(&app, action).await;
            assert_eq!(shown["state"], state.as_str());
            let can = shown["can"].as_array().unwrap().contains(&json!(verb));
            let body = if verb == "resolve" {
                json!({ "outcome": "sent" })
            } else {
                json!({})
            };
            let path = format!("/api/actions/{action}/{verb}");
            let done = app.call(app.a, Method::POST, &path, Some(&body)).await;
            assert_eq!(done.status, if can { 200 } else { 409 }, "{state} {verb}: {done:?}");
        }
    }
}
