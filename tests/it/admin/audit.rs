//! The audit tells the actor, the address, and the fields before and after. It tells no secret.

use super::{TestApp, rule};
use hookswitch::{admin::Role, config::Settings};
use reqwest::Method;
use serde_json::{Value, json};

/// The newest entry of an organisation.
pub(crate) async fn last(app: &TestApp) -> Value {
    with_changes(&app.get(app.a, "/api/audit?limit=1").await.expect(200).json()["data"][0])
}

/// The entry with its values as a list, by name.
pub(crate) fn with_changes(entry: &Value) -> Value {
    let mut entry = entry.clone();
    let after = entry["after"].as_object().cloned().unwrap_or_default();
    let is_secret = |field: &str| entry["secrets"].as_array().unwrap().iter().any(|name| name == field);
    let changes = after.iter().map(|(field, value)| {
        if is_secret(field) {
            assert_eq!(entry["before"][field], Value::Null);
            secret(field, value.as_str().unwrap())
        } else {
            change(field, entry["before"][field].clone(), value.clone())
        }
    });
    let changes: Vec<Value> = changes.collect();
    entry["changes"] = changes.into();
    entry
}

pub(crate) fn change(field: &str, before: impl Into<Value>, after: impl Into<Value>) -> Value {
    json!({ "field": field, "before": before.into(), "after": after.into(), "secret": null })
}

pub(crate) fn secret(field: &str, fate: &str) -> Value {
    json!({ "field": field, "before": null, "after": null, "secret": fate })
}

#[tokio::test]
async fn a_change_is_told_with_its_values_before_and_after() {
    let app = TestApp::start().await;
    let made = app.post(app.a, "/api/rules", &rule("one")).await.expect(201).json();
    let created = last(&app).await;
    assert!(
        created["changes"]
            .as_array()
            .unwrap()
            .contains(&change("name", Value::Null, "one")),
        "{created}"
    );
    let path = format!("/api/rules/{}", made["id"].as_str().unwrap());
    app.call(
        app.a,
        Method::PATCH,
        &path,
        Some(&json!({ "name": "two", "enabled": false })),
    )
    .await
    .expect(200);
    let updated = last(&app).await;
    assert_eq!(
        updated["changes"],
        json!([change("enabled", true, false), change("name", "one", "two")])
    );
    assert_eq!(updated["fields"], json!(["enabled", "name"]));
    app.delete(app.a, &path).await.expect(204);
    let deleted = last(&app).await;
    assert!(
        deleted["changes"]
            .as_array()
            .unwrap()
            .contains(&change("name", "two", Value::Null)),
        "{deleted}"
    );

    let endpoint = app
        .post(app.a, "/api/endpoints", &json!({ "source": "vapi", "name": "calls" }))
        .await
        .expect(201)
        .json();
    assert_eq!(last(&app).await["changes"][2], secret("secret", "set"));
    let path = format!("/api/endpoints/{}", endpoint["id"].as_str().unwrap());
    app.call(app.a, Method::PATCH, &path, Some(&json!({ "name": "front desk" })))
        .await
        .expect(200);
    assert_eq!(
        last(&app).await["changes"],
        json!([change("name", "calls", "front desk")])
    );
}

#[tokio::test]
async fn a_manual_transition_is_told_with_the_state_that_it_began_from() {
    let app = TestApp::start().await;
    let (_, action) = super::isolation::plan(&app, app.a, hookswitch::domain::ActionState::Dead).await;
    app.call(app.a, Method::POST, &format!("/api/actions/{action}/retry"), None)
        .await
        .expect(200);
    assert_eq!(last(&app).await["changes"], json!([change("state", "dead", "pending")]));
}

#[tokio::test]
async fn the_address_is_the_connections_unless_a_trusted_proxy_names_another() {
    for (trusted, expected) in [(vec![], "127.0.0.1"), (vec!["127.0.0.0/8".to_owned()], "203.0.113.9")] {
        let mut settings = Settings::default();
        settings.receiver.trusted_proxies = trusted;
        let app = TestApp::builder().admin().settings(settings).start().await;
        let request = app
            .request(Method::POST, "/api/rules")
            .bearer_auth(app.token(app.a, Role::Owner))
            .header("x-forwarded-for", "198.51.100.7, 203.0.113.9")
            .json(&rule("one"));
        TestApp::send(request).await.expect(201);
        assert_eq!(last(&app).await["address"], expected);
        let pause = json!({ "provider": "resend", "reason": "it is moved" });
        let request = app
            .request(Method::POST, "/operator/pause")
            .bearer_auth(app.operator_token())
            .header("x-forwarded-for", "198.51.100.7, 203.0.113.9")
            .json(&pause);
        TestApp::send(request).await.expect(200);
        let entries = app
            .operator(Method::GET, "/operator/audit", &Value::Null)
            .await
            .expect(200)
            .json();
        assert_eq!(entries["data"][0]["address"], expected);
        assert_eq!(
            with_changes(&entries["data"][0])["changes"],
            json!([change("reason", Value::Null, "it is moved")])
        );
    }
}

#[tokio::test]
async fn the_audit_is_filtered_by_what_was_done() {
    let app = TestApp::start().await;
    let made = app.post(app.a, "/api/rules", &rule("one")).await.expect(201).json();
    let path = format!("/api/rules/{}", made["id"].as_str().unwrap());
    app.delete(app.a, &path).await.expect(204);
    app.post(app.b, "/api/rules", &rule("theirs")).await.expect(201);
    let found = app.get(app.a, "/api/audit?verb=delete").await.expect(200).json();
    let all = found["data"].as_array().unwrap();
    assert_eq!(
        (all.len(), &all[0]["verb"], &all[0]["target_id"]),
        (1, &json!("delete"), &made["id"])
    );
    // A cursor is of its own filter.
    let page = app.get(app.a, "/api/audit?limit=1").await.expect(200).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let other = app
        .get(app.a, &format!("/api/audit?limit=1&verb=delete&cursor={cursor}"))
        .await;
    assert_eq!(other.expect(400).code(), "cursor_invalid");
}
