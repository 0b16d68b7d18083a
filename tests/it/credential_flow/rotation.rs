//! The age of a secret, and when another one is due.

use super::{
    keys::{RESEND, SID, TOKEN},
    *,
};
use crate::admin::audit::{change, last};
use serde_json::json;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

async fn patch(app: &TestApp, provider: &str, days: u32) -> Answer {
    let body = json!({ "rotate_after_days": days });
    let path = format!("/api/integrations/{provider}");
    app.call(app.a, Method::PATCH, &path, Some(&body)).await
}

#[tokio::test]
async fn a_secret_is_due_after_its_days_and_only_another_secret_ends_that() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let connect = async |body: Value| {
        app.post(app.a, "/api/integrations/resend", &body).await.expect(200);
    };
    let state = async || {
        let status = app.status(app.a, "resend").await;
        (
            status["age_days"].as_u64(),
            status["rotate_after_days"].as_u64(),
            status["rotation_due"].as_bool().unwrap(),
        )
    };
    assert_eq!(state().await, (None, None, false), "nothing is stored");
    connect(json!({ "api_key": RESEND })).await;
    assert_eq!(state().await, (Some(0), Some(90), false));
    app.clock.advance(DAY * 89 + Duration::from_hours(23));
    assert_eq!(state().await, (Some(89), Some(90), false));
    assert_eq!(app.store.count_rotations_due().await.unwrap(), []);
    app.clock.advance(Duration::from_hours(1));
    assert_eq!(state().await, (Some(90), Some(90), true));
    let due = [(hookswitch::domain::Provider::Resend, 1)];
    assert_eq!(app.store.count_rotations_due().await.unwrap(), due);
    connect(json!({ "from": "us@example.com" })).await;
    app.call(app.a, Method::POST, "/api/integrations/resend/verify", None)
        .await
        .expect(200);
    assert_eq!(state().await, (Some(90), Some(90), true), "the secret is the same");
    let shown = patch(&app, "resend", 0).await.expect(200).json();
    assert_eq!(
        (&shown["rotation_due"], &shown["age_days"]),
        (&json!(false), &json!(90))
    );
    assert_eq!(app.store.count_rotations_due().await.unwrap(), []);
    assert_eq!(last(&app).await["changes"], json!([change("rotate_after_days", 90, 0)]));
    patch(&app, "resend", 30).await.expect(200);
    assert_eq!(state().await, (Some(90), Some(30), true));
    app.delete(app.a, "/api/integrations/resend").await.expect(204);
    assert_eq!(app.store.count_rotations_due().await.unwrap(), [], "nothing is stored");
    connect(json!({ "api_key": RESEND })).await;
    assert_eq!(state().await, (Some(0), Some(30), false), "the setting stays");
}

#[tokio::test]
async fn only_a_connected_integration_of_ones_own_is_set() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    assert_eq!(patch(&app, "twilio", 30).await.expect(409).code(), "not_connected");
    let twilio = json!({ "account_sid": SID, "auth_token": TOKEN });
    let other = app.post(app.b, "/api/integrations/twilio", &twilio).await;
    other.expect(200);
    assert_eq!(patch(&app, "twilio", 30).await.expect(409).code(), "not_connected");
    assert_eq!(app.status(app.b, "twilio").await["rotate_after_days"], 90);
    assert_eq!(
        patch(&app, "twilio", 3_651).await.expect(400).field(),
        "rotate_after_days"
    );
    patch(&app, "http", 30).await.expect(404);
    let body = json!({ "rotate_after_days": 30 });
    app.call_as(
        app.b,
        Role::Member,
        Method::PATCH,
        "/api/integrations/twilio",
        Some(&body),
    )
    .await
    .expect(403);
}
