//! Forms: a field that is left out keeps its value, and `null` removes it. The table of providers
//! decides both the list of fields and the bodies that are accepted.

use super::{
    keys::{RESEND, SID, TOKEN, VAPI},
    *,
};
use hookswitch::{domain::Provider, sandbox::Fault};
use serde_json::json;

const NUMBER: &str = "+12025550199";

#[tokio::test]
async fn a_field_that_is_left_out_keeps_its_value_and_null_removes_it() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let connect = async |provider: &str, body: Value| {
        let path = format!("/api/integrations/{provider}");
        app.post(app.a, &path, &body).await.expect(200).json()
    };
    let all = json!({ "account_sid": SID, "auth_token": TOKEN, "phone_number": NUMBER });
    let kept = json!({ "account_sid": SID, "phone_number": NUMBER });
    for body in [
        all,
        // A new token, the number left empty.
        json!({ "account_sid": SID, "auth_token": TOKEN, "phone_number": "" }),
        json!({ "auth_token": TOKEN }),
        // The token left out.
        json!({ "account_sid": SID }),
        json!({}),
    ] {
        let shown = connect("twilio", body.clone()).await;
        assert_eq!(shown["settings"], kept, "{body}");
        assert_eq!(shown["secrets_set"], json!(["auth_token"]), "{body}");
        assert_eq!(shown["last_four"], TOKEN[28..], "{body}");
        let status = app.status(app.a, "twilio").await;
        assert_eq!(
            (&status["settings"], &status["secrets_set"]),
            (&shown["settings"], &shown["secrets_set"])
        );
    }
    let cleared = connect("twilio", json!({ "phone_number": null })).await;
    assert_eq!(cleared["settings"], json!({ "account_sid": SID }));
    let second = connect(
        "twilio",
        json!({ "auth_token_secondary": "fedcba9876543210fedcba9876543210" }),
    )
    .await;
    assert_eq!(second["secrets_set"], json!(["auth_token", "auth_token_secondary"]));
    let first = connect("twilio", json!({ "auth_token_secondary": null })).await;
    assert_eq!(first["secrets_set"], json!(["auth_token"]));

    let with_secret = json!(["api_key", "webhook_secret"]);
    let vapi = json!({ "api_key": VAPI, "webhook_secret": "a-secret-of-16-bytes-or-more" });
    assert_eq!(connect("vapi", vapi).await["secrets_set"], with_secret);
    for body in [json!({ "api_key": VAPI }), json!({}), json!({ "webhook_secret": "" })] {
        assert_eq!(
            connect("vapi", body.clone()).await["secrets_set"],
            with_secret,
            "{body}"
        );
    }
    let without = connect("vapi", json!({ "webhook_secret": null })).await;
    assert_eq!(without["secrets_set"], json!(["api_key"]));

    let sender = json!({ "from": "Us <us@example.com>" });
    let resend = json!({ "api_key": RESEND, "from": "Us <us@example.com>" });
    assert_eq!(connect("resend", resend).await["settings"], sender);
    assert_eq!(
        connect("resend", json!({ "api_key": RESEND })).await["settings"],
        sender
    );
    assert_eq!(connect("resend", json!({ "from": null })).await["settings"], json!({}));
}

#[tokio::test]
async fn what_is_required_cannot_be_removed_and_nothing_is_kept_for_another_account() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let twilio = json!({ "account_sid": SID, "auth_token": TOKEN });
    app.post(app.a, "/api/integrations/twilio", &twilio).await.expect(200);
    let vapi = json!({ "api_key": VAPI });
    app.post(app.a, "/api/integrations/vapi", &vapi).await.expect(200);
    for (provider, body, field) in [
        ("twilio", json!({ "account_sid": null }), "account_sid"),
        ("twilio", json!({ "auth_token": null }), "auth_token"),
        (
            "twilio",
            json!({ "account_sid": "ACfedcba9876543210fedcba9876543210" }),
            "auth_token",
        ),
        (
            "twilio",
            json!({ "api_key_sid": "SK0123456789abcdef0123456789abcdef" }),
            "api_key_secret",
        ),
        ("vapi", json!({ "api_key": null }), "api_key"),
    ] {
        for path in ["", "/test"] {
            let path = format!("/api/integrations/{provider}{path}");
            let refused = app.post(app.a, &path, &body).await.expect(400);
            assert_eq!(refused.field(), field, "{body}");
        }
    }
    // Nothing is stored after a DELETE either: everything has to be typed again.
    app.delete(app.a, "/api/integrations/vapi").await.expect(204);
    let refused = app.post(app.a, "/api/integrations/vapi", &json!({})).await.expect(400);
    assert_eq!(refused.field(), "api_key");
}

#[tokio::test]
async fn every_field_of_the_table_is_read_and_every_other_one_is_refused() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let forms = app.get(app.a, "/api/providers").await.json();
    let mut fields_read = 0;
    for form in forms["providers"].as_array().unwrap() {
        let provider = form["provider"].as_str().unwrap();
        let path = format!("/api/integrations/{provider}/test");
        if form["connect"] != "fields" {
            app.post(app.a, &path, &json!({})).await.expect(404);
            continue;
        }
        let fields = form["fields"].as_array().unwrap();
        let ways = form["one_of"].as_array().unwrap();
        let way_of = |name: &Value| ways.iter().find(|way| way.as_array().unwrap().contains(name));
        for field in fields {
            // The field itself, what is required, and one way to authenticate.
            let way = way_of(&field["name"]).or(ways.first());
            let body: serde_json::Map<_, _> = fields
                .iter()
                .filter(|other| {
                    other["name"] == field["name"]
                        || other["required"] == true
                        || way.is_some_and(|way| way.as_array().unwrap().contains(&other["name"]))
                })
                .map(|other| (other["name"].as_str().unwrap().to_owned(), other["example"].clone()))
                .collect();
            let answer = app.post(app.a, &path, &body.into()).await;
            assert!(matches!(answer.status, 200 | 422), "{provider} {field}: {answer:?}");
            fields_read += 1;
        }
        let unknown = app.post(app.a, &path, &json!({ "url": "x" })).await.expect(400);
        assert_eq!(unknown.field(), "url", "{provider}");
    }
    assert!(fields_read >= 10, "only {fields_read} fields were tried");
}

#[tokio::test]
async fn all_wrong_fields_come_in_one_answer() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for (provider, body, expected) in [
        (
            "vapi",
            json!({ "api_key": "has blank", "webhook_secret": "short" }),
            vec!["api_key", "webhook_secret"],
        ),
        (
            "twilio",
            json!({ "phone_number": "555", "x": 1.to_string(), "y": "2" }),
            vec!["x", "y", "phone_number"],
        ),
        (
            "twilio",
            json!({ "phone_number": "555" }),
            vec!["phone_number", "account_sid"],
        ),
        ("resend", json!({ "from": "canary" }), vec!["from", "api_key"]),
    ] {
        let path = format!("/api/integrations/{provider}");
        let refused = app.post(app.a, &path, &body).await.expect(400).json();
        let fields: Vec<_> = refused["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| &error["field"])
            .collect();
        assert_eq!(fields, expected, "{body}");
    }
}

#[tokio::test]
async fn field_names_of_the_former_api_are_taken_and_said_to_be_deprecated() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let former = json!({ "accountSid": SID, "authToken": TOKEN, "phoneNumber": NUMBER });
    let answer = app.post(app.a, "/api/integrations/twilio", &former).await.expect(200);
    assert!(answer.headers["deprecation"].to_str().unwrap().starts_with('@'));
    assert_eq!(answer.json()["settings"]["phone_number"], NUMBER);
    let former = json!({ "apiKey": VAPI, "webhookSecret": "a-secret-of-16-bytes-or-more" });
    let answer = app.post(app.a, "/api/integrations/vapi", &former).await.expect(200);
    assert!(answer.headers.contains_key("deprecation"));
    let today = json!({ "api_key": VAPI });
    let answer = app.post(app.a, "/api/integrations/vapi", &today).await.expect(200);
    assert!(!answer.headers.contains_key("deprecation"));
    let both = json!({ "apiKey": VAPI, "api_key": VAPI });
    let refused = app.post(app.a, "/api/integrations/vapi", &both).await.expect(400);
    assert_eq!(refused.field(), "api_key");
}

#[tokio::test]
async fn a_sender_that_is_not_the_accounts_own_is_told_before_anything_is_sent() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for (provider, own, foreign, field) in [
        (
            "twilio",
            json!({ "account_sid": SID, "auth_token": TOKEN, "phone_number": NUMBER }),
            json!({ "account_sid": SID, "auth_token": TOKEN, "phone_number": "+12025550100" }),
            "phone_number",
        ),
        (
            "resend",
            json!({ "api_key": RESEND, "from": "Us <us@example.com>" }),
            json!({ "api_key": RESEND, "from": "us@example.org" }),
            "from",
        ),
    ] {
        for path in ["/test", ""] {
            let path = format!("/api/integrations/{provider}{path}");
            let answer = app.post(app.a, &path, &foreign).await.expect(200).json();
            assert_eq!(answer["warnings"][0]["field"], field, "{path}");
            let quiet = app.post(app.a, &path, &own).await.expect(200).json();
            assert_eq!(quiet["warnings"], json!([]), "{path}");
        }
    }
}

#[tokio::test]
async fn a_refusal_has_the_providers_words_apart_and_an_outage_says_what_to_do() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let wrong = json!({ "account_sid": SID, "auth_token": "not-the-token-of-this-account" });
    for path in ["/api/integrations/twilio/test", "/api/integrations/twilio"] {
        let refused = app.post(app.a, path, &wrong).await.expect(422).json();
        assert_eq!(refused["errors"][0]["field"], "auth_token");
        assert_eq!(
            (&refused["provider"]["name"], &refused["provider"]["http_status"]),
            (&json!("Twilio"), &json!(401))
        );
        assert!(refused["provider"]["message"].is_string());
        let detail = refused["detail"].as_str().unwrap();
        assert!(!detail.contains(".."), "{detail}");
        assert_eq!(
            detail.ends_with("Nothing was stored."),
            !path.ends_with("test"),
            "{detail}"
        );
    }
    let right = json!({ "account_sid": SID, "auth_token": TOKEN });
    for (status, retry_after, word) in [(429, Some("20"), "too many requests"), (500, None, "500")] {
        app.providers().add_fault(Fault {
            status: Some(status),
            retry_after: retry_after.map(Value::from),
            ..Fault::of(Provider::Twilio)
        });
        let away = app.post(app.a, "/api/integrations/twilio", &right).await.expect(503);
        let detail = away.json()["detail"].as_str().unwrap().to_owned();
        for part in ["Twilio", word, "?unverified=true"] {
            assert!(detail.contains(part), "{detail}");
        }
        if let Some(seconds) = retry_after {
            assert_eq!(away.headers["retry-after"], seconds);
        }
        app.providers().clear_faults();
    }
    app.post(app.a, "/api/integrations/twilio", &right).await.expect(200);
    let differs = app.post(app.b, "/api/integrations/twilio", &right).await.expect(200);
    assert_eq!(differs.json()["state"], "connected");
}

#[tokio::test]
async fn a_change_or_a_delete_that_names_another_version_changes_nothing() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let body = json!({ "account_sid": SID, "auth_token": TOKEN });
    let send = async |method: Method, etag: &str| {
        let request = app.request(method, "/api/integrations/twilio");
        let request = request
            .bearer_auth(app.token(app.a, Role::Owner))
            .header("if-match", etag);
        TestApp::send(request.json(&body)).await
    };
    // Nothing is stored yet.
    send(Method::POST, "\"1-abc\"").await.expect(412);
    let connected = app
        .post(app.a, "/api/integrations/twilio", &body)
        .await
        .expect(200)
        .json();
    let first = connected["etag"].as_str().unwrap().to_owned();
    let second = send(Method::POST, &first).await.expect(200).json()["etag"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(first, second);
    for method in [Method::POST, Method::DELETE] {
        assert_eq!(send(method, &first).await.expect(412).code(), "precondition_failed");
    }
    assert_eq!(app.status(app.a, "twilio").await["etag"], second);
    send(Method::DELETE, &second).await.expect(204);
}

/// Somebody who pastes a wrong secret twice is not locked out for a day.
#[tokio::test]
async fn a_third_secret_within_a_day_ends_the_oldest_former_one() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for number in 0..5 {
        app.clock.advance(std::time::Duration::from_mins(1));
        let body = json!({ "api_key": VAPI, "webhook_secret": format!("the secret number {number} of the day") });
        let path = "/api/integrations/vapi";
        app.post(app.a, path, &body).await.expect(400);
        let body = json!({ "api_key": VAPI, "webhook_secret": format!("the-secret-number-{number}-of-the-day") });
        app.post(app.a, path, &body).await.expect(200);
    }
    let secrets = app
        .store
        .list_secrets(app.a, hookswitch::domain::Source::Vapi, None)
        .await
        .unwrap();
    // Four plans each: the newest, and the one before it for its overlap.
    assert_eq!(secrets.len(), 8);
    assert_eq!(secrets.iter().filter(|secret| secret.not_after.is_none()).count(), 4);
}
