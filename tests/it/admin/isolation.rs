//! Events and actions as their own organisation sees them. `every_route` holds that no other one
//! does.

use super::{START, TestApp};
use hookswitch::{
    domain::{
        ActionId, ActionKind, ActionState, Cause, DedupeKey, EndpointId, Envelope, EventId, EventType, OrgId, RouteKey,
        RouteKind, RuleId, Source, Subject,
    },
    store::{
        ledger::{Occasion, PlannedAction, PlannedEvent, Replay},
        rejections::Rejection,
    },
    vault::Purpose,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// The secret that verified the event.
const SECRET_ID: &str = "01890000-0000-7000-8000-000000000007";

pub(crate) async fn plan(app: &TestApp, org: OrgId, state: ActionState) -> (EventId, ActionId) {
    let planned = planned(app, org, state).await;
    let ids = (planned.envelope.id, planned.actions[0].id);
    app.store.plan(vec![planned].into()).await.unwrap();
    ids
}

async fn planned(app: &TestApp, org: OrgId, state: ActionState) -> PlannedEvent {
    let (event, action) = (EventId::generate(), ActionId::generate());
    let body = json!({ "message": {
        "type": "end-of-call-report", "endedReason": "hangup", "customer": { "number": "+15551234567" },
        "assistant": { "server": { "url": "https://x", "secret": "canary-in-payload" } },
    } })
    .to_string();
    let sealed = app.vault.seal(org, Purpose::Payload, body.as_bytes()).await.unwrap();
    let request = app
        .vault
        .seal(org, Purpose::Payload, br#"{"to":"+15551234567","body":"Thank you."}"#)
        .await
        .unwrap();
    let envelope = Envelope {
        id: event,
        source: Source::Vapi,
        event_type: EventType::new(Source::Vapi, "end-of-call-report"),
        time: START,
        received_at: START,
        subject: Subject("call-1".into()),
        org: Some(org),
        endpoint: None,
        secret: Some(SECRET_ID.parse().unwrap()),
        dedupe_key: DedupeKey(*event.as_bytes()),
        traceparent: None,
        content_type: "application/json".into(),
        path: "/webhooks/vapi".into(),
        query: "".into(),
        headers: vec![],
        hops: 0,
        body: body.into(),
    };
    let planned = PlannedAction {
        id: action,
        rule: RuleId::generate(),
        rule_name: "text the caller".into(),
        kind: ActionKind::TwilioSendSms,
        credential_name: String::new(),
        request: Some(request),
        state,
        cause: (state == ActionState::Dead).then_some(Cause::TemplateFailed),
        detail: None,
        due_at: None,
        expires_at: START + Duration::from_hours(24),
    };
    PlannedEvent {
        org,
        envelope,
        body: sealed,
        actions: vec![planned],
        occasion: Occasion::Receipt,
    }
}

#[tokio::test]
async fn a_replay_takes_no_body_and_names_what_is_wrong_in_one() {
    let app = TestApp::start().await;
    let (event, _) = plan(&app, app.a, ActionState::Succeeded).await;
    let path = format!("/api/events/{event}/replay");
    let replayed = app.call(app.a, Method::POST, &path, None).await.expect(202).json();
    assert_eq!(replayed["series"], 1);
    app.post(app.a, &path, &json!({ "forced": true })).await.expect(400);
    let unknown = format!("/api/events/{}/replay", EventId::generate());
    app.post(app.a, &unknown, &json!({})).await.expect(404);
}

#[tokio::test]
async fn an_event_is_shown_to_its_own_with_secrets_masked() {
    let app = TestApp::start().await;
    let (event, action) = plan(&app, app.a, ActionState::Pending).await;
    let shown = app.get(app.a, &format!("/api/events/{event}")).await.expect(200);
    assert!(!shown.text.contains("canary-in-payload"), "{}", shown.text);
    let body = shown.json();
    assert_eq!(
        (&body["type"], &body["body"]["message"]["endedReason"]),
        (&json!("vapi.end-of-call-report"), &json!("hangup"))
    );
    assert_eq!(body["actions"][0]["id"], action.to_string());
    assert_eq!(body["secret_id"], SECRET_ID);
    let detail = app
        .get(app.a, &format!("/api/actions/{action}"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&detail["request"]["to"], &detail["attempts_made"]),
        (&json!("+15551234567"), &json!([]))
    );
    for (query, count) in [
        ("", 1),
        ("?source=vapi", 1),
        ("?source=twilio", 0),
        ("?type=vapi.end-of-call-report", 1),
        ("?type=vapi.%25", 0),
        ("?subject=call-1", 1),
        ("?subject=call-_", 0),
    ] {
        assert_eq!(
            app.get(app.a, &format!("/api/events{query}")).await.expect(200).json()["data"]
                .as_array()
                .unwrap()
                .len(),
            count,
            "{query}"
        );
    }
    for (query, count) in [
        ("?state=pending", 1),
        ("?state=dead", 0),
        ("?provider=twilio", 1),
        ("?provider=http", 0),
    ] {
        assert_eq!(
            app.get(app.a, &format!("/api/actions{query}")).await.expect(200).json()["data"]
                .as_array()
                .unwrap()
                .len(),
            count,
            "{query}"
        );
    }
}

#[tokio::test]
async fn manual_transitions_move_what_they_may() {
    let app = TestApp::start().await;
    let (_, action) = plan(&app, app.a, ActionState::Pending).await;
    let path = |verb: &str| format!("/api/actions/{action}/{verb}");
    assert_eq!(
        app.post(app.a, &path("resolve"), &json!({ "outcome": "sent" }))
            .await
            .expect(409)
            .code(),
        "not_from_state"
    );
    assert_eq!(
        app.post(app.a, &path("resolve"), &json!({ "outcome": "maybe" }))
            .await
            .expect(400)
            .field(),
        "outcome"
    );
    assert_eq!(
        app.post(app.a, &path("cancel"), &json!({ "state": "succeeded" }))
            .await
            .expect(400)
            .field(),
        "state"
    );
    assert_eq!(
        app.call(app.a, Method::POST, &path("cancel"), None)
            .await
            .expect(200)
            .json()["state"],
        "cancelled"
    );
    assert_eq!(
        app.post(app.a, &path("cancel"), &json!({})).await.expect(409).code(),
        "not_from_state"
    );
    let again = app.post(app.a, &path("retry"), &json!({})).await.expect(200).json();
    assert_eq!(again["state"], "pending");
    let verbs: Vec<_> = app.get(app.a, "/api/audit").await.json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["verb"].clone())
        .collect();
    assert_eq!(verbs[..2], [json!("retry"), json!("cancel")]);
}

/// Of two runs of a rule for one event one is sent again (invariant 4).
#[tokio::test]
async fn what_a_person_can_do_is_listed_without_a_retry_that_another_run_forbids() {
    let app = TestApp::start().await;
    let first = planned(&app, app.a, ActionState::Dead).await;
    let replay = Replay {
        series: 1,
        is_forced: false,
    };
    let mut second = PlannedEvent {
        occasion: Occasion::Replay(replay),
        ..first.clone()
    };
    second.actions[0].id = ActionId::generate();
    second.actions[0].state = ActionState::Pending;
    let (old, new) = (first.actions[0].id, second.actions[0].id);
    let can = async |id: ActionId| {
        let shown = app.get(app.a, &format!("/api/actions/{id}")).await.expect(200).json();
        let listed = app.get(app.a, "/api/actions").await.expect(200).json();
        let listed = listed["data"].as_array().unwrap();
        let own = listed.iter().find(|one| one["id"] == shown["id"]).unwrap();
        assert_eq!(own["can"], shown["can"], "the list says the same");
        shown["can"].clone()
    };
    let post = async |id: ActionId, verb: &str| app.post(app.a, &format!("/api/actions/{id}/{verb}"), &json!({})).await;
    app.store.plan(vec![first].into()).await.unwrap();
    assert_eq!(can(old).await, json!(["retry"]));
    app.clock.advance(Duration::from_secs(1));
    app.store.plan(vec![second].into()).await.unwrap();
    assert_eq!(can(new).await, json!(["cancel"]));
    assert_eq!(can(old).await, json!([]));
    assert_eq!(post(old, "retry").await.expect(409).code(), "ran_again");

    app.clock.advance(Duration::from_secs(1));
    post(new, "cancel").await.expect(200);
    for id in [old, new] {
        assert_eq!(can(id).await, json!(["retry"]));
    }
    post(old, "retry").await.expect(200);
    assert_eq!(can(new).await, json!([]));
    assert_eq!(post(new, "retry").await.expect(409).code(), "ran_again");
}

#[tokio::test]
async fn the_head_of_what_was_only_claimed_is_withheld() {
    let app = TestApp::start().await;
    let rejection = |org: Option<OrgId>, is_claimed: bool, head: &str| Rejection {
        id: uuid::Uuid::now_v7(),
        at: START,
        source: Source::Vapi,
        endpoint: (!is_claimed).then(EndpointId::generate),
        org,
        is_claimed,
        cause: "bad_signature".into(),
        status: 401,
        bytes: 12,
        ids: vec![RouteKey::new(RouteKind::VapiAssistant, "assistant-1")],
        head: head.into(),
        signed_url: Some("https://hooks.example.com/webhooks/twilio/x?…".into()),
    };
    let batch = vec![
        rejection(Some(app.a), true, "claimed head"),
        rejection(Some(app.a), false, "own head"),
        rejection(None, false, "nobody's head"),
    ];
    app.store.record_rejections(batch, 100).await.unwrap();
    let own = app.get(app.a, "/api/rejections").await.expect(200);
    assert!(
        !own.text.contains("claimed head") && !own.text.contains("nobody's"),
        "{}",
        own.text
    );
    let rows = own.json()["data"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    for row in rows.as_array().unwrap() {
        assert_eq!(row["head"].is_null(), row["claimed"].as_bool().unwrap());
        assert_eq!(row["signed_url"].is_null(), row["claimed"].as_bool().unwrap());
    }
    let all = app
        .operator(Method::GET, "/operator/rejections", &Value::Null)
        .await
        .expect(200)
        .json();
    let all = all["data"].as_array().unwrap();
    assert_eq!(all.len(), 3);
    // A head may be the text of a message, which is nothing of an operator's.
    assert!(all.iter().all(|row| row["head"].is_null()), "{all:?}");
    // A wrong public URL is the operator's to mend.
    assert!(all.iter().all(|row| row["signed_url"].is_string()), "{all:?}");
    assert_eq!(app.get(app.b, "/api/rejections").await.json()["data"], json!([]));
}
