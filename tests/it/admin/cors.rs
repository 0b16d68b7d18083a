//! Pages of other origins, as browsers ask for them: preflights, and the headers on answers.

use super::TestApp;
use crate::support::{
    client,
    dev::{Dev, Directory, port_base},
};
use hookswitch::{admin::Role, config::Settings, source::sign::form_body};
use reqwest::{Method, header::HeaderMap};
use serde_json::json;

const PAGE: &str = "https://app.example.com";

async fn api_for_page() -> TestApp {
    let mut settings = Settings::default();
    settings.admin.admin_origins = vec![PAGE.to_owned()];
    TestApp::builder().admin().settings(settings).start().await
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

fn preflight(app: &TestApp, path: &str, origin: &str) -> reqwest::RequestBuilder {
    app.request(Method::OPTIONS, path)
        .header("origin", origin)
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "authorization,content-type,if-match")
}

#[tokio::test]
async fn a_listed_origin_reads_answers_and_their_headers() {
    let app = api_for_page().await;
    let asked = TestApp::send(preflight(&app, "/api/rules/4", PAGE)).await.expect(204);
    for (name, words) in [
        ("access-control-allow-origin", PAGE),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "authorization"),
        ("access-control-allow-headers", "if-match"),
        ("access-control-allow-headers", "idempotency-key"),
        ("access-control-max-age", "7200"),
        ("vary", "origin"),
    ] {
        assert!(text(&asked.headers, name).unwrap().contains(words), "{name}: {asked:?}");
    }
    let get = |token: Option<String>| {
        let request = app
            .request(Method::GET, "/api/integrations/status")
            .header("origin", PAGE);
        TestApp::send(match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    };
    // A refusal is read as well: a page has to know that its token has ended.
    for answer in [
        get(Some(app.token(app.a, Role::Viewer))).await.expect(200),
        get(None).await.expect(401),
    ] {
        assert_eq!(text(&answer.headers, "access-control-allow-origin").unwrap(), PAGE);
        assert!(text(&answer.headers, "vary").unwrap().contains("origin"));
        let exposed = text(&answer.headers, "access-control-expose-headers").unwrap();
        for name in [
            "etag",
            "location",
            "retry-after",
            "x-request-id",
            "ratelimit",
            "ratelimit-policy",
        ] {
            assert!(exposed.split(", ").any(|one| one == name), "{name}: {exposed}");
        }
    }
}

#[tokio::test]
async fn any_other_origin_is_told_nothing_of_cors() {
    let app = api_for_page().await;
    for origin in [
        "null",
        "https://evil.example",
        "https://app.example.com.evil",
        "http://app.example.com",
        "https://app.example.com:8443",
        "http://localhost:3000",
    ] {
        let refused = TestApp::send(preflight(&app, "/api/rules", origin)).await.expect(403);
        assert_eq!(refused.code(), "origin_not_allowed");
        let token = app.token(app.a, Role::Owner);
        let read = app
            .request(Method::GET, "/api/rules")
            .header("origin", origin)
            .bearer_auth(token);
        for answer in [refused, TestApp::send(read).await.expect(200)] {
            assert!(
                answer
                    .headers
                    .keys()
                    .all(|name| !name.as_str().starts_with("access-control-")),
                "{answer:?}"
            );
            assert!(text(&answer.headers, "vary").unwrap().contains("origin"), "{answer:?}");
        }
        // A request that a page may send without a preflight writes nothing.
        let simple = app
            .request(Method::POST, "/api/rules")
            .header("origin", origin)
            .header("content-type", "text/plain")
            .bearer_auth(app.token(app.a, Role::Owner))
            .body("{}");
        TestApp::send(simple).await.expect(415);
    }
    assert_eq!(app.get(app.a, "/api/rules").await.json()["data"], json!([]));
}

#[tokio::test]
async fn without_the_setting_no_page_of_another_origin_is_allowed() {
    let app = TestApp::start().await;
    TestApp::send(preflight(&app, "/api/rules", PAGE)).await.expect(403);
    // OPTIONS without the header of a preflight is a method like another.
    TestApp::send(app.request(Method::OPTIONS, "/api/rules").header("origin", PAGE))
        .await
        .expect(405);
}

#[tokio::test]
async fn dev_takes_every_page_of_this_machine_with_its_token_and_without_cookies() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let url = format!("{}/api/integrations/status", dev.get("admin"));
    for origin in ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:3000"] {
        let request = client()
            .get(&url)
            .bearer_auth(dev.get("admin_token"))
            .header("origin", origin);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(text(answer.headers(), "access-control-allow-origin").unwrap(), origin);
        assert_eq!(text(answer.headers(), "access-control-allow-credentials"), None);
    }
    let request = client().get(&url).bearer_auth(dev.get("admin_token"));
    let answer = request
        .header("origin", "http://localhost.evil:5173")
        .send()
        .await
        .unwrap();
    assert_eq!(text(answer.headers(), "access-control-allow-origin"), None);
}

/// A page of a listed origin gets its people back; no other page does.
#[tokio::test]
async fn a_consent_returns_to_pages_of_listed_origins_alone() {
    let mut settings = Settings::default();
    settings.admin.admin_origins = vec![PAGE.to_owned()];
    settings.provider.google_client_id = Some("client".to_owned());
    settings.provider.google_client_secret = Some("secret".to_owned().into());
    settings.provider.google_redirect_url = Some("https://api.example.com/callback".to_owned());
    let app = TestApp::builder().admin().settings(settings).start().await;
    let begin = |page: &str| {
        let query = form_body(&[("return_to", page)]);
        let path = format!("/api/integrations/google_calendar/authorize?{query}");
        let token = app.token(app.a, Role::Owner);
        TestApp::send(app.request(Method::GET, &path).bearer_auth(token))
    };
    for good in [
        "/integrations",
        "https://app.example.com/",
        "https://app.example.com/a?b=1#c",
    ] {
        begin(good).await.expect(200);
    }
    for bad in [
        "https://app.example.com",
        "https://app.example.com.evil/",
        "https://app.example.com@evil.example/",
        "https://app.example.com:8443/",
        "http://app.example.com/",
        "https://evil.example/https://app.example.com/",
        "https://app.example.com//evil.example",
        "https://app.example.com/\\evil.example",
        "//app.example.com/",
        "javascript:alert(1)//https://app.example.com/",
    ] {
        assert_eq!(begin(bad).await.expect(400).field(), "return_to", "{bad}");
    }
}
