//! `/operator/quarantine` and `/operator/routes`: what operators see and do, and nobody else.

use super::TestApp;
use crate::admin::audit::{change, with_changes};
use hookswitch::{
    admin::Role,
    domain::{EventId, OrgId, RouteKey, RouteKind, SealedBytes},
    queue,
    store::quarantine::QuarantinedEvent,
};
use reqwest::Method;
use serde_json::{Value, json};

/// Keeps an event as a worker does.
pub(crate) async fn keep(app: &TestApp, assistant: &str) -> EventId {
    let mut envelope = crate::ledger::suite::envelope(app.a, 7);
    envelope.org = None;
    let mut encoded = Vec::new();
    queue::encode(&envelope, &mut encoded);
    let nobody = OrgId::from_uuid(uuid::Uuid::nil());
    let sealed: SealedBytes = app.vault.seal_under_ring(nobody, &encoded).unwrap();
    let event = QuarantinedEvent {
        id: envelope.id,
        source: "vapi".into(),
        event_type: envelope.event_type.as_str().into(),
        received_at: envelope.received_at,
        ids: vec![RouteKey::new(RouteKind::VapiAssistant, assistant)],
    };
    app.store.quarantine(event, sealed).await.unwrap();
    envelope.id
}

#[tokio::test]
async fn operators_give_an_event_to_an_organisation_that_its_ids_do_not_deny() {
    let app = TestApp::start().await;
    let (first, second) = (keep(&app, "asst-1").await, keep(&app, "asst-2").await);
    let listed = app
        .operator(Method::GET, "/operator/quarantine?limit=1", &Value::Null)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&listed["data"][0]["id"], &listed["data"][0]["ids"]),
        (
            &json!(second),
            &json!([{ "kind": "vapi_assistant", "value": "asst-2" }])
        )
    );
    assert!(listed["next_cursor"].is_string());
    let replay = async |id: EventId, org: &str| {
        let path = format!("/operator/quarantine/{id}/replay");
        app.operator(Method::POST, &path, &json!({ "org_id": org })).await
    };
    let (a, b) = (app.a.to_string(), app.b.to_string());
    assert_eq!(replay(first, "nobody").await.expect(400).field(), "org_id");
    let unknown = OrgId::generate().to_string();
    assert_eq!(replay(first, &unknown).await.expect(400).field(), "org_id");
    replay(EventId::generate(), &a).await.expect(404);

    // The route of its assistant leads to `b`.
    let route = json!({ "org_id": b, "assistant_id": "asst-1", "managed_by": "platform" });
    app.operator(Method::PUT, "/operator/routes", &route).await.expect(200);
    assert_eq!(replay(first, &a).await.expect(409).code(), "conflict");
    assert_eq!(app.store.list_held_events(app.a, None, 9).await.unwrap(), []);
    replay(first, &b).await.expect(202);
    let held = app.store.list_held_events(app.b, None, 9).await.unwrap();
    assert_eq!(held.iter().map(|held| held.event).collect::<Vec<_>>(), [first]);
    let opened = app.vault.open_payload(app.b, &held[0].envelope, |plain| {
        queue::decode(&bytes::Bytes::copy_from_slice(plain.expose_secret()))
    });
    assert_eq!(
        opened.await.unwrap().unwrap().org,
        Some(app.b),
        "sealed for its organisation"
    );
    let entry = app.get(app.b, "/api/audit?limit=1").await.expect(200).json()["data"][0].clone();
    assert_eq!(
        (&entry["verb"], &entry["actor"]),
        (&json!("replay"), &json!("operator:a person"))
    );
    assert_eq!(app.store.list_quarantine(None, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn only_operators_see_the_quarantine_and_approve_routes() {
    let app = TestApp::start().await;
    let event = keep(&app, "asst-1").await;
    let route = json!({ "org_id": app.a, "assistant_id": "asst-1", "managed_by": "platform" });
    let replay = json!({ "org_id": app.a });
    for (method, path, body) in [
        (Method::GET, "/operator/quarantine".to_owned(), None),
        (
            Method::POST,
            format!("/operator/quarantine/{event}/replay"),
            Some(&replay),
        ),
        (Method::PUT, "/operator/routes".to_owned(), Some(&route)),
    ] {
        app.call_as(app.a, Role::Owner, method, &path, body).await.expect(404);
    }
    assert_eq!(app.store.find_assistant(app.a, "asst-1").await.unwrap(), None);
    assert_eq!(app.store.list_quarantine(None, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_approved_route_is_live_and_takes_nothing_from_another_organisation() {
    let app = TestApp::start().await;
    let put = async |route: Value| app.operator(Method::PUT, "/operator/routes", &route).await;
    let (a, b) = (app.a, app.b);
    let shown = put(json!({ "org_id": a, "assistant_id": "asst-1", "managed_by": "platform" }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&shown["managed_by"], &shown["proof"]),
        (&json!("platform"), &json!("approved_by_operator"))
    );
    let view = app.get(a, "/api/assistants/asst-1").await.expect(200).json();
    assert_eq!(
        (&view["managed_by"], &view["state"], &view["usable"]),
        (&json!("platform"), &json!("live"), &json!(true)),
        "it needs no credential of the organisation's own"
    );
    let entry = with_changes(&app.get(a, "/api/audit?limit=1").await.expect(200).json()["data"][0]);
    let managed = change("managed_by", Value::Null, "platform");
    assert!(entry["changes"].as_array().unwrap().contains(&managed), "{entry}");
    put(json!({ "org_id": b, "assistant_id": "asst-1", "managed_by": "platform" }))
        .await
        .expect(409);
    assert_eq!(app.store.find_assistant_holder("asst-1").await.unwrap(), Some(a));
    put(json!({ "org_id": a, "assistant_id": "asst-1" })).await.expect(200);
    let view = app.get(a, "/api/assistants/asst-1").await.expect(200).json();
    assert_eq!((&view["managed_by"], &view["state"]), (&Value::Null, &json!("live")));

    let number = json!({ "org_id": b, "number": "+12025550199", "provider": "twilio", "account_id": "AC1",
        "managed_by": "platform" });
    put(number.clone()).await.expect(200);
    let view = app.get(b, "/api/phone-numbers/+12025550199").await.expect(200).json();
    assert_eq!(view["managed_by"], "platform");
    for (field, wrong) in [
        (
            "account_id",
            json!({ "org_id": b, "number": "+12025550199", "provider": "twilio" }),
        ),
        ("provider", json!({ "org_id": b, "number": "+12025550199" })),
        (
            "number",
            json!({ "org_id": b, "number": "12025550199", "provider": "vapi" }),
        ),
        ("assistant_id", json!({ "org_id": b, "assistant_id": "a b" })),
        ("assistant_id", json!({ "org_id": b })),
        (
            "org_id",
            json!({ "org_id": OrgId::generate(), "assistant_id": "asst-9" }),
        ),
    ] {
        assert_eq!(put(wrong.clone()).await.expect(400).field(), field, "{wrong}");
    }
}
