//! The audit of a credential: its settings before and after, and of its secrets their fate alone.

use super::{
    keys::{RESEND, SID, TOKEN, VAPI},
    *,
};
use crate::admin::audit::{change, last, secret, with_changes};
use serde_json::json;

#[tokio::test]
async fn a_credential_is_told_by_its_settings_and_the_fate_of_its_secrets() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let connect = async |provider: &str, body: Value| {
        let path = format!("/api/integrations/{provider}");
        app.post(app.a, &path, &body).await.expect(200);
    };
    connect("resend", json!({ "api_key": RESEND, "from": "us@example.com" })).await;
    let connected = last(&app).await;
    for expected in [
        change("from", Value::Null, "us@example.com"),
        secret("api_key", "set"),
        change("state", "not_connected", "connected"),
    ] {
        assert!(
            connected["changes"].as_array().unwrap().contains(&expected),
            "{connected}"
        );
    }
    connect("resend", json!({ "from": "desk@example.com" })).await;
    assert_eq!(
        last(&app).await["changes"],
        json!([change("from", "us@example.com", "desk@example.com")]),
        "the key was kept"
    );
    app.call(app.a, Method::POST, "/api/integrations/resend/verify", None)
        .await
        .expect(200);
    let verified = last(&app).await;
    assert_eq!(
        (verified["verb"].as_str(), &verified["changes"]),
        (Some("verify"), &json!([]))
    );
    app.delete(app.a, "/api/integrations/resend").await.expect(204);
    let erased = app.get(app.a, "/api/audit?integration=resend").await.expect(200).json();
    let erase = erased["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["verb"] == "erase" && entry["target_kind"] == "credential")
        .map(with_changes)
        .unwrap();
    for expected in [
        change("from", "desk@example.com", Value::Null),
        secret("api_key", "cleared"),
        change("state", "connected", "not_connected"),
    ] {
        assert!(erase["changes"].as_array().unwrap().contains(&expected), "{erase}");
    }
}

#[tokio::test]
async fn no_secret_stands_in_an_entry() {
    const WEBHOOK: &str = "a-webhook-secret-of-many-bytes";
    const SECOND: &str = "fedcba9876543210fedcba9876543210";
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let connect = async |provider: &str, body: Value| {
        let path = format!("/api/integrations/{provider}");
        app.post(app.a, &path, &body).await.expect(200);
    };
    connect("vapi", json!({ "api_key": VAPI, "webhook_secret": WEBHOOK })).await;
    connect("vapi", json!({ "webhook_secret": null })).await;
    connect("twilio", json!({ "account_sid": SID, "auth_token": TOKEN })).await;
    connect("twilio", json!({ "auth_token_secondary": SECOND })).await;
    let url = "https://93.184.215.14/hooks/a-token-in-a-path";
    let made = app
        .post(app.a, "/api/destinations", &json!({ "name": "crm", "url": url }))
        .await
        .expect(201)
        .json();
    let host = change("host", Value::Null, "93.184.215.14");
    assert_eq!(last(&app).await["changes"][0], host);
    // The SID ends in the token's digits, and is no secret.
    let all = app
        .get(app.a, "/api/audit?limit=200")
        .await
        .expect(200)
        .text
        .replace(SID, "");
    for secret in [
        VAPI,
        WEBHOOK,
        TOKEN,
        SECOND,
        "a-token-in-a-path",
        made["secret"].as_str().unwrap(),
    ] {
        assert!(!all.contains(secret), "{secret}");
    }
    assert!(
        all.contains(r#""auth_token_secondary":"changed""#) && all.contains(r#""secret":"cleared""#),
        "{all}"
    );
    let of_twilio = app.get(app.a, "/api/audit?integration=twilio").await.expect(200).json();
    let ids: Vec<_> = of_twilio["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["target_id"].as_str().unwrap().to_owned())
        .collect();
    assert!(ids.len() >= 2 && ids.iter().all(|id| id == "twilio"), "{ids:?}");
}
