//! Requests that may be sent twice, limits of requests, and answers that the caller has already.

use super::{Answer, TestApp, rule};
use hookswitch::{admin::Role, config::Settings, domain::OrgId};
use reqwest::{Method, header};
use serde_json::{Value, json};
use std::time::Duration;

const ENDPOINTS: &str = "/api/endpoints";

fn endpoint(name: &str) -> Value {
    json!({ "source": "vapi", "name": name })
}

async fn keyed(app: &TestApp, org: OrgId, path: &str, body: &Value, key: &str) -> Answer {
    let request = app.request(Method::POST, path).bearer_auth(app.token(org, Role::Owner));
    TestApp::send(request.header("idempotency-key", key).json(body)).await
}

async fn names(app: &TestApp, org: OrgId) -> Vec<String> {
    let list = app.get(org, ENDPOINTS).await.expect(200).json();
    let rows = list["data"].as_array().unwrap().iter();
    rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_same_request_with_the_same_key_is_answered_once_more_and_does_nothing() {
    let app = TestApp::start().await;
    let first = keyed(&app, app.a, ENDPOINTS, &endpoint("calls"), "\"8e03978e\"")
        .await
        .expect(201);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    // With quotes or without, and with the secret that is shown once.
    for key in ["\"8e03978e\"", "8e03978e"] {
        let again = keyed(&app, app.a, ENDPOINTS, &endpoint("calls"), key).await.expect(201);
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!(again.json(), first.json());
        for name in ["etag", "location", "content-type"] {
            assert_eq!(again.headers.get(name), first.headers.get(name), "{name}");
        }
    }
    assert_eq!(names(&app, app.a).await, ["calls"]);
    let secret = first.json()["secrets"][0]["secret"].as_str().map(str::to_owned);
    if let Some(secret) = secret {
        let stored = std::fs::read(app.folder().join("store.db")).unwrap();
        assert!(
            !stored.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "kept in clear"
        );
    }
}

#[tokio::test]
async fn a_key_counts_for_one_request_of_one_organisation_for_a_day() {
    let app = TestApp::start().await;
    keyed(&app, app.a, ENDPOINTS, &endpoint("calls"), "k").await.expect(201);
    for (path, body) in [
        (ENDPOINTS, endpoint("others")),
        ("/api/rules", rule("calls")),
        ("/api/endpoints?x=1", endpoint("calls")),
    ] {
        let other = keyed(&app, app.a, path, &body, "k").await.expect(422);
        assert_eq!(other.code(), "idempotency_key_reused", "{path}");
    }
    keyed(&app, app.b, ENDPOINTS, &endpoint("theirs"), "k")
        .await
        .expect(201);
    assert_eq!(
        (names(&app, app.a).await, names(&app, app.b).await),
        (vec!["calls".into()], vec!["theirs".into()])
    );
    app.clock.advance(Duration::from_hours(23));
    keyed(&app, app.a, ENDPOINTS, &endpoint("calls"), "k").await.expect(201);
    assert_eq!(names(&app, app.a).await.len(), 1);
    app.clock.advance(Duration::from_hours(2));
    keyed(&app, app.a, ENDPOINTS, &endpoint("calls"), "k").await.expect(201);
    assert_eq!(names(&app, app.a).await.len(), 2, "a day later the key is another one");
}

#[tokio::test]
async fn fifty_requests_at_once_with_one_key_make_one_thing() {
    let app = TestApp::start().await;
    let body = endpoint("calls");
    let all = (0..50).map(|_| keyed(&app, app.a, ENDPOINTS, &body, "one"));
    for answer in futures_util::future::join_all(all).await {
        match answer.status {
            201 => {}
            409 => {
                assert_eq!(answer.code(), "idempotency_key_in_use");
                assert!(answer.headers.contains_key("retry-after"));
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert_eq!(names(&app, app.a).await, ["calls"]);
}

#[tokio::test]
async fn a_refusal_frees_its_key_and_a_key_that_is_none_is_refused() {
    let app = TestApp::start().await;
    keyed(&app, app.a, ENDPOINTS, &json!({ "source": "vapi" }), "k")
        .await
        .expect(400);
    keyed(&app, app.a, ENDPOINTS, &endpoint("calls"), "k").await.expect(201);
    let long = "k".repeat(256);
    for key in [
        "",
        "\"\"",
        "a b",
        "a,b",
        "\"a\"b\"",
        &long,
        &"k".repeat(1_024),
        "caf\u{e9}",
    ] {
        let refused = keyed(&app, app.a, ENDPOINTS, &endpoint("more"), key).await.expect(400);
        assert_eq!(refused.code(), "idempotency_key_invalid", "{key}");
    }
    let twice = app
        .request(Method::POST, ENDPOINTS)
        .bearer_auth(app.token(app.a, Role::Owner));
    let twice = twice
        .header("idempotency-key", "x")
        .header("idempotency-key", "y")
        .json(&endpoint("more"));
    TestApp::send(twice).await.expect(400);
    keyed(&app, app.a, ENDPOINTS, &endpoint("at the limit"), &"k".repeat(255))
        .await
        .expect(201);
    // Another person does not read this one's answer, nor the same one in a lower role.
    let request = app
        .request(Method::POST, ENDPOINTS)
        .bearer_auth(app.token(app.a, Role::Viewer));
    TestApp::send(request.header("idempotency-key", "k").json(&endpoint("calls")))
        .await
        .expect(403);
    assert_eq!(names(&app, app.a).await.len(), 2);
}

#[tokio::test]
async fn an_organisation_over_its_limit_waits_and_another_does_not() {
    let mut settings = Settings::default();
    settings.admin.admin_requests_per_minute_max = 5;
    let app = TestApp::builder().admin().settings(settings).start().await;
    let text = |answer: &Answer, name: &str| answer.headers[name].to_str().unwrap().to_owned();
    for left in (0..5).rev() {
        let answer = app.get(app.a, "/api/rules").await.expect(200);
        assert_eq!(text(&answer, "ratelimit-policy"), "\"organisation\";q=5;w=60");
        assert_eq!(text(&answer, "ratelimit"), format!("\"organisation\";r={left};t=60"));
    }
    let over = app.post(app.a, "/api/rules", &rule("over")).await.expect(429);
    assert_eq!(
        (over.code().as_str(), text(&over, "retry-after").as_str()),
        ("too_many_requests", "60")
    );
    assert_eq!(text(&over, "ratelimit"), "\"organisation\";r=0;t=60");
    app.get(app.b, "/api/rules").await.expect(200);
    app.operator(Method::GET, "/operator/organizations", &Value::Null)
        .await
        .expect(200);
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(app.get(app.a, "/api/rules").await.expect(200).json()["data"], json!([]));
}

#[tokio::test]
async fn a_get_that_the_caller_has_already_is_304() {
    let app = TestApp::start().await;
    app.post(app.a, "/api/rules", &rule("one")).await.expect(201);
    for path in [
        "/api/integrations/status",
        "/api/providers",
        "/api/rules",
        "/api/events",
        "/api/me",
    ] {
        let first = app.get(app.a, path).await.expect(200);
        let again = |tag: String| {
            let request = app
                .request(Method::GET, path)
                .bearer_auth(app.token(app.a, Role::Owner));
            TestApp::send(request.header("if-none-match", tag))
        };
        let same = again(first.etag()).await.expect(304);
        assert_eq!((same.text.as_str(), same.etag()), ("", first.etag()), "{path}");
        assert_eq!(
            again("W/\"other\"".to_owned()).await.expect(200).json(),
            first.json(),
            "{path}"
        );
    }
    let before = app.get(app.a, "/api/rules").await.etag();
    app.post(app.a, "/api/rules", &rule("two")).await.expect(201);
    assert_ne!(app.get(app.a, "/api/rules").await.etag(), before);
}

#[tokio::test]
async fn a_long_answer_is_compressed_for_those_who_take_it() {
    use std::io::Read;
    let app = TestApp::start().await;
    let get = |path: &'static str, encoding: Option<&'static str>| {
        let request = app
            .request(Method::GET, path)
            .bearer_auth(app.token(app.a, Role::Owner));
        match encoding {
            Some(encoding) => request.header(header::ACCEPT_ENCODING, encoding),
            None => request,
        }
        .send()
    };
    let plain = get("/api/providers", None).await.unwrap();
    assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
    let tag = plain.headers()[header::ETAG].clone();
    let plain = plain.bytes().await.unwrap();
    let small = get("/api/providers", Some("br, gzip")).await.unwrap();
    assert_eq!(
        (
            &small.headers()[header::CONTENT_ENCODING],
            &small.headers()[header::ETAG]
        ),
        (&"gzip".parse().unwrap(), &tag)
    );
    assert!(
        small.headers()[header::VARY]
            .to_str()
            .unwrap()
            .contains("accept-encoding")
    );
    let small = small.bytes().await.unwrap();
    assert!(small.len() * 2 < plain.len(), "{} of {}", small.len(), plain.len());
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&small[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain);
    let short = get("/api/me", Some("gzip")).await.unwrap();
    assert!(!short.headers().contains_key(header::CONTENT_ENCODING));
}
