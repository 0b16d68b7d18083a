//! Refusals have one form, name the wrong field and repeat no value. Every answer has the same
//! headers.

use super::{TestApp, rule};
use reqwest::Method;
use serde_json::{Value, json};

fn check_common(answer: &super::Answer) {
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["x-request-id"].len(), 36);
    assert!(
        answer
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("access-control-")),
        "no CORS at all"
    );
    if answer.status >= 400 && !answer.text.is_empty() {
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let body = answer.json();
        assert_eq!(body["request_id"], answer.headers["x-request-id"].to_str().unwrap());
        assert_eq!(body["status"], answer.status);
        assert_eq!(body["type"], "about:blank");
        crate::support::schema::check_problem(&body);
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem_and_repeats_nothing() {
    const CANARY: &str = "canary-7f3a";
    let app = TestApp::start().await;
    let with = |request: reqwest::RequestBuilder| request.bearer_auth(app.token(app.a, hookswitch::admin::Role::Owner));
    let json_type = "application/json";
    let table: Vec<(reqwest::RequestBuilder, u16, &str)> = vec![
        (app.request(Method::GET, &format!("/{CANARY}")), 404, "not_found"),
        (app.request(Method::GET, "/api/rules/"), 404, "not_found"),
        (app.request(Method::GET, "//api/rules"), 404, "not_found"),
        (app.request(Method::GET, "/api/rules"), 401, "unauthenticated"),
        (
            with(app.request(Method::PATCH, "/api/rules")),
            405,
            "method_not_allowed",
        ),
        (
            app.request(Method::OPTIONS, "/api/rules")
                .header("origin", "https://evil.example")
                .header("access-control-request-method", "POST"),
            403,
            "origin_not_allowed",
        ),
        (
            with(app.request(Method::GET, &format!("/api/rules/{CANARY}"))),
            404,
            "not_found",
        ),
        (with(app.request(Method::GET, "/api/rules/%ff%fe")), 404, "not_found"),
        (
            with(app.request(Method::GET, "/api/events/00000000-0000-0000-0000-000000000000")),
            404,
            "not_found",
        ),
        (
            with(app.request(Method::GET, &format!("/api/rules?{CANARY}=1"))),
            400,
            "invalid_query",
        ),
        (
            with(app.request(Method::GET, "/api/rules?limit=1&limit=2")),
            400,
            "invalid_query",
        ),
        (
            with(app.request(Method::GET, &format!("/api/actions?state={CANARY}"))),
            400,
            "invalid_query",
        ),
        (
            with(app.request(Method::GET, "/api/actions?event_id='or%201=1")),
            400,
            "invalid_query",
        ),
        (
            with(app.request(Method::GET, "/api/events?subject=%00")),
            400,
            "invalid_query",
        ),
        (
            with(app.request(Method::GET, &format!("/api/events?type={}", "%25a".repeat(5_000)))),
            400,
            "invalid_query",
        ),
        (
            with(app.request(Method::GET, "/api/rules?fields=secret")),
            400,
            "invalid_query",
        ),
        (
            with(app.request(Method::POST, "/api/rules")),
            415,
            "unsupported_media_type",
        ),
        (
            with(
                app.request(Method::POST, "/api/rules")
                    .header("content-type", "text/plain")
                    .body("{}"),
            ),
            415,
            "unsupported_media_type",
        ),
        (
            with(
                app.request(Method::POST, "/api/rules")
                    .header("content-type", "application/json; charset=utf-16")
                    .body("{}"),
            ),
            415,
            "unsupported_media_type",
        ),
        (
            with(
                app.request(Method::POST, "/api/rules")
                    .header("content-type", json_type)
                    .body(format!("{{\"{CANARY}")),
            ),
            400,
            "invalid_json",
        ),
        (
            with(
                app.request(Method::POST, "/api/rules")
                    .header("content-type", json_type)
                    .body(Vec::new()),
            ),
            400,
            "invalid_json",
        ),
        (
            with(
                app.request(Method::POST, "/api/rules")
                    .header("content-type", json_type)
                    .body(vec![b'x'; 256 * 1024 + 1]),
            ),
            413,
            "payload_too_large",
        ),
        (
            with(
                app.request(Method::POST, "/api/rules")
                    .header("content-type", json_type)
                    .body(vec![b'x'; 256 * 1024]),
            ),
            400,
            "invalid_json",
        ),
        (
            with(app.request(Method::POST, "/api/rules").json(&json!({ "name": CANARY }))),
            400,
            "invalid_field",
        ),
        (
            with(app.request(Method::POST, "/api/rules").json(&json!([CANARY]))),
            400,
            "invalid_field",
        ),
        (
            with(
                app.request(Method::POST, "/api/integrations/google_calendar")
                    .json(&json!({})),
            ),
            404,
            "not_served",
        ),
        (
            with(app.request(Method::POST, "/api/integrations/http").json(&json!({}))),
            404,
            "not_found",
        ),
        (
            with(
                app.request(Method::POST, &format!("/api/integrations/{CANARY}"))
                    .json(&json!({})),
            ),
            404,
            "not_found",
        ),
        (
            with(
                app.request(Method::POST, "/api/integrations/vapi?unverified=maybe")
                    .json(&json!({ "api_key": CANARY })),
            ),
            400,
            "invalid_query",
        ),
        (
            with(app.request(Method::POST, "/api/integrations/vapi/verify")),
            409,
            "not_connected",
        ),
    ];
    for (request, status, code) in table {
        let answer = TestApp::send(request).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
        assert!(
            !answer.text.contains(CANARY) || code == "invalid_query",
            "{}",
            answer.text
        );
        check_common(&answer);
    }
    let wrong_method = app.call(app.a, Method::PATCH, "/api/rules", None).await;
    let mut allowed: Vec<_> = wrong_method.headers["allow"]
        .to_str()
        .unwrap()
        .split(',')
        .map(str::trim)
        .collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    check_common(&app.get(app.a, "/api/rules").await.expect(200));
    let head = app.call(app.a, Method::HEAD, "/api/rules", None).await.expect(200);
    assert_eq!(head.text, "");
}

#[tokio::test]
async fn nothing_can_be_assigned_that_is_not_a_persons_to_assign() {
    let app = TestApp::start().await;
    for field in [
        "org_id",
        "id",
        "created_at",
        "role",
        "state",
        "version",
        "__proto__",
        "constructor",
        "is_active",
        "rule\r\nx",
    ] {
        let shown = field.replace(['\r', '\n'], "?");
        for (path, mut body) in [
            ("/api/rules", rule("one")),
            ("/api/endpoints", json!({ "source": "vapi", "name": "one" })),
            ("/api/phone-numbers", json!({ "number": "+15551234567" })),
            (
                "/api/destinations",
                json!({ "name": "one", "url": "https://example.com/" }),
            ),
            ("/api/integrations/vapi", json!({ "api_key": "0123456789abcdef" })),
            ("/api/integrations/twilio/test", json!({ "account_sid": "AC" })),
        ] {
            body[field] = json!("x");
            let answer = app.post(app.a, path, &body).await.expect(400);
            assert_eq!(
                (answer.code().as_str(), answer.field().as_str()),
                ("invalid_field", shown.as_str()),
                "{path}"
            );
        }
        if field != "role" {
            let mut body = json!({ "assistant_id": "x" });
            body[field] = json!("x");
            assert_eq!(
                app.post(app.a, "/api/assistants", &body).await.expect(400).field(),
                shown
            );
        }
    }
    assert_eq!(app.get(app.a, "/api/rules").await.json()["data"], json!([]));
    assert_eq!(app.get(app.a, "/api/endpoints").await.json()["data"], json!([]));
}

#[tokio::test]
async fn while_the_database_is_away_nobody_is_told_that_their_token_is_bad() {
    let app = TestApp::start().await;
    app.get(app.a, "/api/rules").await.expect(200);
    app.store.close().await;
    app.clock.advance(std::time::Duration::from_mins(1));
    for org in [app.a, app.b] {
        let answer = app.get(org, "/api/rules").await.expect(503);
        assert_eq!(answer.code(), "database_unavailable");
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(answer.json()["errors"], Value::Null);
        check_common(&answer);
    }
}
