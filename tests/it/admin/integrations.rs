//! Integrations while a provider is away, and what never comes out again.

use super::TestApp;
use hookswitch::domain::{IntegrationState, Source};
use reqwest::Method;
use serde_json::{Value, json};

const SID: &str = "AC0123456789abcdef0123456789abcdef";
const OTHER_SID: &str = "ACfedcba9876543210fedcba9876543210";
const TOKEN: &str = "canarytoken0123456789abcdef01234";
const KEY: &str = "canary-vapi-key-0123456789abcdef";
const WEBHOOK: &str = "canary-webhook-secret-0123456789";

fn twilio(sid: &str) -> Value {
    json!({ "account_sid": sid, "auth_token": TOKEN, "phone_number": "+15551234567" })
}

fn of<'a>(status: &'a Value, provider: &str) -> &'a Value {
    status["integrations"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["provider"] == provider)
        .unwrap()
}

#[tokio::test]
async fn the_status_lists_all_five_from_the_start() {
    let app = TestApp::start().await;
    let status = app.get(app.a, "/api/integrations/status").await.expect(200).json();
    let providers: Vec<_> = status["integrations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["provider"].as_str().unwrap())
        .collect();
    assert_eq!(providers, ["vapi", "twilio", "google_calendar", "resend", "elevenlabs"]);
    for one in status["integrations"].as_array().unwrap() {
        assert_eq!(
            (&one["connected"], &one["state"]),
            (&json!(false), &json!("not_connected"))
        );
        for name in [
            "cause",
            "checked_at",
            "last_used_at",
            "last_verified_at",
            "error",
            "account",
        ] {
            assert_eq!(one.get(name), Some(&Value::Null), "{name}");
        }
    }
}

#[tokio::test]
async fn an_unreachable_provider_stores_nothing_unless_asked_to() {
    let app = TestApp::start().await;
    for (path, body) in [
        ("/api/integrations/twilio", twilio(SID)),
        ("/api/integrations/vapi", json!({ "api_key": KEY })),
    ] {
        let answer = app.post(app.a, path, &body).await.expect(503);
        assert_eq!(answer.code(), "provider_unreachable");
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(
            app.post(app.a, &format!("{path}/test"), &body).await.expect(503).code(),
            "provider_unreachable"
        );
        let status = app.get(app.a, "/api/integrations/status").await.json();
        assert!(
            status["integrations"]
                .as_array()
                .unwrap()
                .iter()
                .all(|one| one["state"] == "not_connected")
        );
        assert_eq!(
            app.post(app.a, &format!("{path}/verify"), &json!({}))
                .await
                .expect(409)
                .code(),
            "not_connected"
        );
    }
    let secrets = app.store.list_secrets(app.a, Source::Twilio, None).await.unwrap();
    assert!(secrets.is_empty());
    let saved = app
        .post(app.a, "/api/integrations/twilio?unverified=true", &twilio(SID))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&saved["state"], &saved["connected"], &saved["last_verified_at"]),
        (&json!("unverified"), &json!(true), &Value::Null)
    );
    // Nor does an outage make a stored one worse.
    let asked = app.post(app.a, "/api/integrations/twilio/verify", &json!({})).await;
    assert_eq!(asked.expect(200).json()["state"], "failing", "said, and not stored");
    let status = app.get(app.a, "/api/integrations/status").await.json();
    let mut shown = of(&status, "twilio").clone();
    shown["warnings"] = json!([]);
    assert_eq!(shown, saved);
}

#[tokio::test]
async fn another_account_needs_a_word_and_the_id_stays() {
    let app = TestApp::start().await;
    let first = app
        .post(app.a, "/api/integrations/twilio?unverified=true", &twilio(SID))
        .await
        .expect(200)
        .json();
    let differs = app
        .post(app.a, "/api/integrations/twilio?unverified=true", &twilio(OTHER_SID))
        .await
        .expect(409);
    assert_eq!(differs.code(), "account_differs");
    assert_eq!(differs.json()["accounts"], json!({ "before": SID, "now": OTHER_SID }));
    app.delete(app.a, "/api/integrations/twilio").await.expect(204);
    assert_eq!(
        app.post(app.a, "/api/integrations/twilio?unverified=true", &twilio(OTHER_SID))
            .await
            .expect(409)
            .code(),
        "account_differs",
        "also after DELETE"
    );
    let replaced = app
        .post(
            app.a,
            "/api/integrations/twilio?unverified=true&replace_account=true",
            &twilio(OTHER_SID),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&replaced["id"], &replaced["account"]["id"]),
        (&first["id"], &json!(OTHER_SID))
    );
    app.post(app.b, "/api/integrations/twilio?unverified=true", &twilio(SID))
        .await
        .expect(200);
}

#[tokio::test]
async fn erasing_erases_and_is_repeatable() {
    let app = TestApp::start().await;
    app.delete(app.a, "/api/integrations/twilio").await.expect(204);
    let made = app
        .post(app.a, "/api/integrations/twilio?unverified=true", &twilio(SID))
        .await
        .expect(200)
        .json();
    assert_eq!(
        app.store.list_secrets(app.a, Source::Twilio, None).await.unwrap().len(),
        1
    );
    for _ in 0..2 {
        app.delete(app.a, "/api/integrations/twilio").await.expect(204);
    }
    let status = app.get(app.a, "/api/integrations/status").await.json();
    assert_eq!(
        (&of(&status, "twilio")["state"], &of(&status, "twilio")["id"]),
        (&json!("not_connected"), &made["id"])
    );
    assert!(
        app.store
            .list_secrets(app.a, Source::Twilio, None)
            .await
            .unwrap()
            .is_empty()
    );
    let row = app
        .store
        .find_credential(app.a, hookswitch::domain::Provider::Twilio, "")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((row.sealed, row.last_four), (None, None));
    assert_eq!(
        app.post(app.a, "/api/integrations/twilio/verify", &json!({}))
            .await
            .code(),
        "not_connected"
    );
}

#[tokio::test]
async fn what_is_typed_is_checked_by_field() {
    let app = TestApp::start().await;
    let table = [
        ("twilio", json!({ "auth_token": TOKEN }), 400, "account_sid"),
        (
            "twilio",
            json!({ "account_sid": "AC/../x", "auth_token": TOKEN }),
            400,
            "account_sid",
        ),
        ("twilio", json!({ "account_sid": SID }), 400, "auth_token"),
        (
            "twilio",
            json!({ "account_sid": SID, "auth_token": TOKEN, "api_key_sid": "SK0123456789abcdef0123456789abcdef" }),
            400,
            "auth_token",
        ),
        (
            "twilio",
            json!({ "account_sid": SID, "api_key_sid": "SKx", "api_key_secret": TOKEN }),
            400,
            "api_key_sid",
        ),
        (
            "twilio",
            json!({ "account_sid": SID, "auth_token": TOKEN, "phone_number": "555" }),
            400,
            "phone_number",
        ),
        ("vapi", json!({}), 400, "api_key"),
        ("vapi", json!({ "api_key": 7 }), 400, "api_key"),
        ("vapi", json!({ "api_key": "a\r\nX-Evil: 1" }), 400, "api_key"),
        (
            "vapi?unverified=true",
            json!({ "api_key": KEY, "webhook_secret": "short" }),
            400,
            "webhook_secret",
        ),
    ];
    for (path, body, status, field) in table {
        let answer = app.post(app.a, &format!("/api/integrations/{path}"), &body).await;
        assert_eq!(
            (answer.status, answer.field().as_str()),
            (status, field),
            "{body} {answer:?}"
        );
        assert!(!answer.text.contains("canary"));
    }
}

#[tokio::test]
async fn secrets_go_in_and_never_come_out() {
    let app = TestApp::start().await;
    let endpoint = json!({ "source": "vapi", "name": "one", "secret": WEBHOOK });
    let mut answers = vec![
        app.post(app.a, "/api/integrations/twilio?unverified=true", &twilio(SID))
            .await
            .expect(200),
        app.post(
            app.a,
            "/api/integrations/vapi?unverified=true",
            &json!({ "api_key": KEY, "webhook_secret": WEBHOOK }),
        )
        .await
        .expect(200),
        app.post(app.a, "/api/endpoints", &endpoint).await.expect(201),
        // Refusals, too.
        app.post(
            app.a,
            "/api/integrations/vapi",
            &json!({ "api_key": KEY, "nonsense": KEY }),
        )
        .await
        .expect(400),
        app.post(app.a, "/api/integrations/vapi", &json!({ "api_key": [KEY] }))
            .await
            .expect(400),
        app.post(
            app.a,
            "/api/integrations/twilio",
            &json!({ "account_sid": KEY, "auth_token": KEY }),
        )
        .await
        .expect(400),
        app.post(app.a, "/api/endpoints", &json!({ "source": WEBHOOK, "name": "x" }))
            .await
            .expect(400),
    ];
    let id = answers[2].json()["id"].as_str().unwrap().to_owned();
    for path in [
        "/api/integrations/status".to_owned(),
        "/api/integrations/vapi".to_owned(),
        "/api/integrations/twilio/verify".to_owned(),
        "/api/endpoints".to_owned(),
        format!("/api/endpoints/{id}"),
        "/api/audit".to_owned(),
        "/api/destinations".to_owned(),
        "/api/rejections".to_owned(),
        "/api/events".to_owned(),
        "/api/actions".to_owned(),
        "/api/rules".to_owned(),
        "/api/assistants".to_owned(),
        "/api/phone-numbers".to_owned(),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let request = app
                .request(method, &path)
                .bearer_auth(app.token(app.a, hookswitch::admin::Role::Owner));
            answers.push(TestApp::send(request.header("range", "bytes=0-").header("accept", "text/plain")).await);
        }
    }
    answers.push(app.operator(Method::GET, "/operator/organizations", &Value::Null).await);
    answers.push(app.operator(Method::GET, "/operator/rejections", &Value::Null).await);
    for answer in answers {
        let whole = format!("{:?}{}", answer.headers, answer.text);
        for secret in [TOKEN, KEY, WEBHOOK] {
            assert!(!whole.contains(secret), "{whole}");
        }
    }
    // At rest they are sealed.
    let row = app
        .store
        .find_credential(app.a, hookswitch::domain::Provider::Vapi, "")
        .await
        .unwrap()
        .unwrap();
    let sealed = row.sealed.unwrap().0;
    assert!(!sealed.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
}

#[tokio::test]
async fn a_row_that_does_not_open_says_so() {
    let app = TestApp::start().await;
    app.post(
        app.a,
        "/api/integrations/vapi?unverified=true",
        &json!({ "api_key": KEY }),
    )
    .await
    .expect(200);
    // B's row gets A's ciphertext: it must not open there.
    let row = app
        .store
        .find_credential(app.a, hookswitch::domain::Provider::Vapi, "")
        .await
        .unwrap()
        .unwrap();
    app.post(
        app.b,
        "/api/integrations/vapi?unverified=true",
        &json!({ "api_key": KEY }),
    )
    .await
    .expect(200);
    let moved = hookswitch::store::credentials::NewCredential {
        org: app.b,
        provider: row.provider,
        name: row.name,
        sealed: row.sealed.unwrap(),
        state: IntegrationState::Connected,
        missing: None,
        account_id: None,
        account_name: None,
        account_fingerprint: None,
        last_four: None,
        verified_at: None,
        expects: hookswitch::store::credentials::Expects::Anything,
    };
    let audit = hookswitch::store::audit::AuditEntry {
        org: app.b,
        at: super::START,
        actor: "test".into(),
        verb: "connect",
        target_kind: "credential",
        target_id: "vapi".into(),
        changes: hookswitch::store::audit::Changes::default(),
        address: None,
    };
    app.store.save_credential(moved, audit).await.unwrap();
    let status = app.get(app.b, "/api/integrations/status").await.expect(200).json();
    let vapi = of(&status, "vapi");
    assert_eq!(
        (&vapi["state"], &vapi["connected"]),
        (&json!("undecryptable"), &json!(false))
    );
    assert!(
        vapi["error"]["message"].as_str().unwrap().contains("cannot decrypt"),
        "{vapi}"
    );
    let verified = app
        .post(app.b, "/api/integrations/vapi/verify", &json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(verified["state"], "undecryptable");
    let claim = app
        .post(app.b, "/api/assistants", &json!({ "assistant_id": "x" }))
        .await
        .expect(500);
    assert_eq!(
        (
            claim.code().as_str(),
            claim.json()["detail"].as_str().unwrap().contains("add the missing key")
        ),
        ("undecryptable", true)
    );
}
