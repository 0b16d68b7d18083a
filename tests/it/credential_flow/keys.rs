//! Providers that are connected by fields: the table of forms, connecting, testing and verifying.

use super::*;
use hookswitch::{
    domain::{Clock, Provider, SystemClock, Timestamp},
    sandbox::Fault,
};
use serde_json::json;
use std::time::Duration;

pub(super) const SID: &str = "AC0123456789abcdef0123456789abcdef";
pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub(super) const SECOND: &str = "fedcba9876543210fedcba9876543210";
pub(super) const RESEND: &str = "re_key_of_the_first_organisation";
pub(super) const ELEVENLABS: &str = "elevenlabs-key-of-the-first-one";
pub(super) const VAPI: &str = "vapi-key-of-the-first-organisation";

/// One good body for each provider that is connected by fields.
pub(super) fn good() -> [(&'static str, Value); 4] {
    [
        ("vapi", json!({ "api_key": VAPI })),
        (
            "twilio",
            json!({ "account_sid": SID, "auth_token": TOKEN, "phone_number": "+12025550199" }),
        ),
        ("resend", json!({ "api_key": RESEND, "from": "Us <us@example.com>" })),
        ("elevenlabs", json!({ "api_key": ELEVENLABS })),
    ]
}

#[tokio::test]
async fn the_table_is_served_to_every_role_and_says_how_each_is_connected() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let forms = app
        .call_as(app.a, Role::Viewer, Method::GET, "/api/providers", None)
        .await
        .expect(200)
        .json();
    let names: Vec<_> = forms["providers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|form| form["provider"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["vapi", "twilio", "google_calendar", "resend", "elevenlabs"]);
    let twilio = &forms["providers"][1];
    assert_eq!(
        twilio["one_of"],
        json!([["auth_token"], ["api_key_sid", "api_key_secret"]])
    );
    assert_eq!(twilio["fields"][0]["pattern"], "AC[0-9a-fA-F]{32}");
    assert_eq!(
        (&forms["providers"][2]["connect"], &forms["providers"][2]["available"]),
        (&json!("oauth"), &json!(true))
    );
    let request = app.request(Method::GET, "/api/providers");
    TestApp::send(request).await.expect(401);
    app.get(app.a, "/api/providers?x=1").await.expect(400);
}

#[tokio::test]
async fn what_the_table_shows_as_an_example_is_taken_as_typed() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let forms = app.get(app.a, "/api/providers").await.json();
    for form in forms["providers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|form| form["connect"] == "fields")
    {
        let way = form["one_of"].as_array().unwrap().first();
        let is_given = |name: &Value| {
            way.is_none_or(|way| {
                way.as_array().unwrap().contains(name) || !form["one_of"].to_string().contains(name.as_str().unwrap())
            })
        };
        let fields = form["fields"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|field| is_given(&field["name"]) && field["name"] != "webhook_secret");
        let body: serde_json::Map<_, _> = fields
            .map(|field| (field["name"].as_str().unwrap().to_owned(), field["example"].clone()))
            .collect();
        let answer = app
            .post(
                app.a,
                &format!("/api/integrations/{}/test", form["provider"].as_str().unwrap()),
                &body.into(),
            )
            .await;
        assert!(
            matches!(answer.status, 200 | 422),
            "an example is in the right form, whatever the provider says of it: {answer:?}"
        );
    }
}

#[tokio::test]
async fn testing_stores_nothing_at_any_provider() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for (provider, body) in good() {
        let tested = app
            .post(app.a, &format!("/api/integrations/{provider}/test"), &body)
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&tested["state"], &tested["missing"]),
            (&json!("connected"), &Value::Null),
            "{provider}"
        );
        assert_eq!(
            app.status(app.a, provider).await["state"],
            "not_connected",
            "{provider}"
        );
    }
}

#[tokio::test]
async fn connecting_verifying_disconnecting_and_connecting_again_keep_the_id_at_any_provider() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for (provider, body) in good() {
        let path = format!("/api/integrations/{provider}");
        let first = app.post(app.a, &path, &body).await.expect(200).json();
        assert_eq!(
            (&first["state"], &first["version"]),
            (&json!("connected"), &json!(1)),
            "{provider}"
        );
        let verified = app
            .post(app.a, &format!("{path}/verify"), &json!({}))
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&verified["state"], &verified["id"]),
            (&json!("connected"), &first["id"]),
            "{provider}"
        );
        for _ in 0..2 {
            app.delete(app.a, &path).await.expect(204);
        }
        let gone = app.status(app.a, provider).await;
        assert_eq!(
            (&gone["state"], &gone["id"], &gone["account"], &gone["last_four"]),
            (&json!("not_connected"), &first["id"], &Value::Null, &Value::Null),
            "{provider}"
        );
        let again = app.post(app.a, &path, &body).await.expect(200).json();
        assert_eq!(
            (&again["state"], &again["id"]),
            (&json!("connected"), &first["id"]),
            "{provider}"
        );
    }
}

#[tokio::test]
async fn what_the_provider_refuses_is_refused_in_its_own_words_and_not_stored() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for (provider, body, words) in [
        ("vapi", json!({ "api_key": "unowned" }), "Invalid Key"),
        (
            "twilio",
            json!({ "account_sid": SID, "auth_token": SECOND }),
            "Authenticate",
        ),
        ("resend", json!({ "api_key": "re_nobodys" }), "API key is invalid"),
        ("elevenlabs", json!({ "api_key": "unowned" }), "Invalid API key"),
    ] {
        for path in [
            format!("/api/integrations/{provider}/test"),
            format!("/api/integrations/{provider}?unverified=true"),
        ] {
            let refused = app.post(app.a, &path, &body).await.expect(422);
            assert_eq!(refused.code(), "refused_by_provider", "{path}");
            assert!(
                refused.json()["detail"].as_str().unwrap().contains(words),
                "{refused:?}"
            );
        }
        assert_eq!(app.status(app.a, provider).await["state"], "not_connected");
    }
}

#[tokio::test]
async fn an_outage_stores_nothing_and_makes_nothing_worse_at_any_provider() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for (name, body) in good() {
        let provider: Provider = name.parse().unwrap();
        let path = format!("/api/integrations/{name}");
        for status in [500, 503, 429] {
            app.providers().add_fault(Fault::of(provider).status(status));
            assert_eq!(
                app.post(app.a, &path, &body).await.expect(503).code(),
                "provider_unreachable",
                "{name} {status}"
            );
            app.providers().clear_faults();
            assert_eq!(app.status(app.a, name).await["state"], "not_connected", "{name}");
        }
        let connected = without_warnings(app.post(app.a, &path, &body).await.expect(200).json());
        app.providers().add_fault(Fault::of(provider).status(503));
        let verify = format!("{path}/verify");
        let shown = app.post(app.a, &verify, &json!({})).await.expect(200).json();
        assert_eq!(
            (&shown["state"], &shown["cause"], &shown["error"]["http_status"]),
            (&json!("failing"), &json!("provider_unreachable"), &json!(503)),
            "{name}"
        );
        assert_eq!(shown["not_checked"]["cause"], "provider_unavailable", "{name}");
        app.providers().clear_faults();
        assert_eq!(app.status(app.a, name).await, connected, "{name}");
    }
}

#[tokio::test]
async fn a_provider_that_asks_to_wait_leaves_the_state_and_says_when_to_check_again() {
    const DAY: u64 = 24 * 3600;
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for (name, body) in good() {
        let provider: Provider = name.parse().unwrap();
        let path = format!("/api/integrations/{name}");
        app.post(app.a, &path, &body).await.expect(200);
        let before = app.status(app.a, name).await;
        assert_eq!(
            (&before["state"], &before["not_checked"]),
            (&json!("connected"), &Value::Null)
        );
        for (retry_after, wait) in [
            (Some(json!(40)), 40),
            (None, 10),
            (Some(json!("soon")), 10),
            (Some(json!("Sun, 06 Nov 1994 08:49:37 GMT")), 0),
            (Some(json!(u64::MAX)), DAY),
        ] {
            let mut fault = Fault::of(provider).status(429);
            fault.retry_after.clone_from(&retry_after);
            app.providers().add_fault(fault);
            let begun = SystemClock.now();
            let verify = format!("{path}/verify");
            let mut shown = app.post(app.a, &verify, &json!({})).await.expect(200).json();
            let why = shown["not_checked"].take();
            assert_eq!(shown, before, "{name}: nothing of the state is lost");
            assert_eq!(
                (&why["cause"], &why["http_status"]),
                (&json!("rate_limited"), &json!(429)),
                "{name}"
            );
            assert!(why["detail"].as_str().unwrap().contains("answered 429"), "{why}");
            let again = why["try_again_at"]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .unwrap();
            let again = Timestamp::from_micros(again.as_microsecond());
            let wait = Duration::from_secs(wait);
            assert!(
                again >= begun + wait && again <= SystemClock.now() + wait,
                "{name} {retry_after:?}: {again:?}"
            );
            app.providers().clear_faults();
            assert_eq!(app.status(app.a, name).await, before, "{name}");
        }
        let checked = app.post(app.a, &format!("{path}/verify"), &json!({})).await.expect(200);
        assert_eq!(checked.json()["not_checked"], Value::Null, "{name}");
    }
}

#[tokio::test]
async fn keys_are_trimmed_and_fields_checked_one_by_one() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let pasted = json!({ "account_sid": format!(" {SID}\n"), "auth_token": format!("\t{TOKEN} "), "phone_number": " +442079460958 " });
    app.post(app.a, "/api/integrations/twilio", &pasted).await.expect(200);
    for (provider, body, field) in [
        ("resend", json!({}), "api_key"),
        ("resend", json!({ "api_key": "sk_canary" }), "api_key"),
        ("resend", json!({ "api_key": RESEND, "from": "canary" }), "from"),
        (
            "resend",
            json!({ "api_key": RESEND, "from": "canary@example.com\r\nBcc: x@example.com" }),
            "from",
        ),
        (
            "resend",
            json!({ "api_key": RESEND, "canary_field": "x" }),
            "canary_field",
        ),
        ("elevenlabs", json!({ "api_key": "canary canary" }), "api_key"),
        ("elevenlabs", json!({ "api_key": ["canary"] }), "api_key"),
        ("elevenlabs", json!({ "api_key": null }), "api_key"),
        ("elevenlabs", json!({ "api_key": "c".repeat(513) }), "api_key"),
        (
            "vapi",
            json!({ "api_key": VAPI, "webhook_secret": "short" }),
            "webhook_secret",
        ),
        (
            "twilio",
            json!({ "account_sid": SID, "auth_token": TOKEN, "phone_number": "020 7946 0958" }),
            "phone_number",
        ),
        (
            "twilio",
            json!({ "account_sid": SID, "auth_token": TOKEN, "phone_number": "+1 202 555 0199" }),
            "phone_number",
        ),
        (
            "twilio",
            json!({ "account_sid": SID, "auth_token": TOKEN, "auth_token_secondary": "short" }),
            "auth_token_secondary",
        ),
        (
            "twilio",
            json!({ "account_sid": SID, "api_key_sid": "SK0123456789abcdef0123456789abcdef" }),
            "api_key_secret",
        ),
        (
            "twilio",
            json!({ "account_sid": SID, "api_key_secret": "canary" }),
            "api_key_sid",
        ),
        (
            "twilio",
            json!({ "account_sid": SID.replace("AC", "SK"), "auth_token": TOKEN }),
            "account_sid",
        ),
    ] {
        for path in ["", "/test"] {
            let answer = app
                .post(app.a, &format!("/api/integrations/{provider}{path}"), &body)
                .await
                .expect(400);
            assert_eq!(
                (answer.code().as_str(), answer.field().as_str()),
                ("invalid_field", field),
                "{provider} {body}"
            );
            assert!(
                !answer.text.replace("canary_field", "").contains("canary"),
                "{answer:?}"
            );
        }
    }
    let twice = app
        .request(Method::POST, "/api/integrations/resend")
        .bearer_auth(app.token(app.a, Role::Owner));
    let twice = twice
        .header("content-type", "application/json")
        .body(r#"{"api_key":"re_a","api_key":"re_b"}"#);
    assert_eq!(TestApp::send(twice).await.expect(400).field(), "api_key");
}

#[tokio::test]
async fn an_owner_connects_an_admin_checks_and_everyone_reads() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let days = json!({ "rotate_after_days": 30 });
    for (provider, body) in good() {
        let path = format!("/api/integrations/{provider}");
        let ask = async |role, method: Method, end: &str, body: Option<&Value>| {
            app.call_as(app.a, role, method, &format!("{path}{end}"), body).await
        };
        let connected = ask(Role::Owner, Method::POST, "", Some(&body)).await.expect(200).json();
        for role in [Role::Viewer, Role::Member, Role::Admin] {
            ask(role, Method::POST, "", Some(&body)).await.expect(403);
            ask(role, Method::POST, "?unverified=true", Some(&body))
                .await
                .expect(403);
            ask(role, Method::DELETE, "", None).await.expect(403);
            let status = if role == Role::Admin { 200 } else { 403 };
            ask(role, Method::POST, "/test", Some(&body)).await.expect(status);
            ask(role, Method::POST, "/verify", None).await.expect(status);
            ask(role, Method::PATCH, "", Some(&days)).await.expect(status);
            app.call_as(app.a, role, Method::GET, "/api/integrations/status", None)
                .await
                .expect(200);
        }
        let now = app.status(app.a, provider).await;
        assert_eq!((&now["id"], &now["version"]), (&connected["id"], &connected["version"]));
        ask(Role::Owner, Method::DELETE, "", None).await.expect(204);
    }
}

#[tokio::test]
async fn what_one_organisation_connects_is_nothing_to_the_other_at_any_provider() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for (provider, body) in good() {
        app.post(app.a, &format!("/api/integrations/{provider}"), &body)
            .await
            .expect(200);
        let theirs = app.status(app.a, provider).await;
        assert_eq!(
            app.status(app.b, provider).await["state"],
            "not_connected",
            "{provider}"
        );
        app.post(app.b, &format!("/api/integrations/{provider}/verify"), &json!({}))
            .await
            .expect(409);
        app.delete(app.b, &format!("/api/integrations/{provider}"))
            .await
            .expect(204);
        assert_eq!(app.status(app.a, provider).await, theirs, "{provider}");
    }
}

#[tokio::test]
async fn a_changed_credential_clears_the_errors_of_the_former_one() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for (name, body) in good() {
        let path = format!("/api/integrations/{name}");
        app.post(app.a, &path, &body).await.expect(200);
        app.providers().add_fault(Fault::of(name.parse().unwrap()).status(401));
        let refused = app
            .post(app.a, &format!("{path}/verify"), &json!({}))
            .await
            .expect(200)
            .json();
        app.providers().clear_faults();
        assert_eq!(
            (&refused["state"], &refused["connected"]),
            (&json!("needs_reconnecting"), &json!(false)),
            "{name} {refused}"
        );
        let dropped = app.dropped();
        let well = app.post(app.a, &path, &body).await.expect(200).json();
        assert_eq!(
            (&well["state"], &well["error"], &well["cause"], &well["first_failed_at"]),
            (&json!("connected"), &Value::Null, &Value::Null, &Value::Null),
            "{name}"
        );
        assert!(app.dropped() > dropped, "this process's cache is dropped");
    }
}
