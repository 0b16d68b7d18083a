//! `/operator/dead-events`: what is shown of them, and their way back.

use super::TestApp;
use hookswitch::{
    domain::{Clock, EventId, EventType, OrgId, Source},
    store::ledger::DeadEvent,
};
use reqwest::Method;
use serde_json::{Value, json};

/// Stores a dead event, as a worker does.
pub(crate) async fn store(app: &TestApp, org: Option<OrgId>, reason: &str) -> EventId {
    let dead = DeadEvent {
        id: EventId::generate(),
        org,
        source: org.map(|_| Source::Vapi),
        event_type: org.map(|_| EventType::new(Source::Vapi, "end-of-call-report")),
        received_at: app.clock.now(),
        reason: reason.into(),
        envelope: if org.is_some() {
            b"the sealed words of a caller".to_vec()
        } else {
            Vec::new()
        },
    };
    let id = dead.id;
    app.store.store_dead_event(dead).await.unwrap();
    id
}

#[tokio::test]
async fn operators_list_dead_events_without_their_contents_and_put_them_back_once() {
    let app = TestApp::start().await;
    let operator = async |method: Method, path: String| {
        app.operator(method, &format!("/operator/dead-events{path}"), &json!({}))
            .await
    };
    let unknown = store(&app, None, "not the format of an envelope").await;
    let of_b = store(&app, Some(app.b), "its organisation is not active").await;
    let of_a = store(&app, Some(app.a), "planning it broke").await;

    let first = operator(Method::GET, "?limit=2".into()).await.expect(200);
    assert!(!first.text.contains("words of a caller"), "{}", first.text);
    let first = first.json();
    assert_eq!(first["data"][0]["id"], json!(of_a));
    let shown = json!({
        "id": of_a, "org_id": app.a, "source": "vapi", "type": "vapi.end-of-call-report",
        "received_at": first["data"][0]["received_at"], "dead_at": first["data"][0]["dead_at"],
        "reason": "planning it broke",
    });
    assert_eq!(first["data"][0], shown);
    assert_eq!(
        operator(Method::GET, format!("/{of_a}")).await.expect(200).json(),
        shown
    );
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = operator(Method::GET, format!("?limit=2&cursor={cursor}"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&second["data"][0]["id"], &second["next_cursor"]),
        (&json!(unknown), &Value::Null)
    );
    assert_eq!(second["data"][0]["org_id"], Value::Null);
    let own = operator(Method::GET, format!("?org_id={}", app.b))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (own["data"].as_array().unwrap().len(), &own["data"][0]["id"]),
        (1, &json!(of_b))
    );
    // A cursor of one organisation's list is no position in the list of all.
    operator(Method::GET, format!("?org_id={}&cursor={cursor}", app.b))
        .await
        .expect(400);

    let replayed = operator(Method::POST, format!("/{of_a}/replay")).await.expect(202);
    assert_eq!(
        replayed.json(),
        json!({ "id": of_a, "state": "held", "cause": "replay", "series": 0 })
    );
    operator(Method::POST, format!("/{of_a}/replay")).await.expect(404);
    operator(Method::GET, format!("/{of_a}")).await.expect(404);
    let refused = operator(Method::POST, format!("/{unknown}/replay")).await.expect(409);
    assert_eq!(refused.code(), "not_replayable");
    let audit = app.get(app.a, "/api/audit").await.expect(200).json();
    let entry = &audit["data"][0];
    assert_eq!(
        (&entry["verb"], &entry["target"]["id"], &entry["target_id"]),
        (&json!("replay"), &entry["target"]["id"], &entry["target_id"])
    );
    assert!(entry["actor"].as_str().unwrap().starts_with("operator:"), "{entry}");
    assert!(entry.to_string().contains(&of_a.to_string()), "{entry}");
}
