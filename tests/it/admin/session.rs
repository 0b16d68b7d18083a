//! A person's session: a token becomes a cookie, and the cookie opens what the token opened, to the
//! pages that may use it.

use super::{Answer, TestApp, rule};
use crate::support::dev::{Dev, Directory, port_base};
use hookswitch::{
    admin::Role,
    cli::token::{Grant, mint_operator_token},
    config::Settings,
    domain::{Clock, OrgId},
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::time::Duration;

const PAGE: &str = "https://app.example.com";

struct SignedIn {
    cookie: String,
    csrf: String,
    set: String,
    me: Value,
}

async fn sign_in(app: &TestApp, org: OrgId, role: Role) -> SignedIn {
    let request = app
        .request(Method::POST, "/api/session")
        .bearer_auth(app.token(org, role));
    signed_in(&TestApp::send(request).await.expect(201))
}

fn signed_in(answer: &Answer) -> SignedIn {
    let set = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    let me = answer.json();
    SignedIn {
        cookie: set.split(';').next().unwrap().to_owned(),
        csrf: me["csrf_token"].as_str().unwrap().to_owned(),
        set,
        me,
    }
}

fn with_cookie(app: &TestApp, session: &SignedIn, method: Method, path: &str) -> RequestBuilder {
    app.request(method, path).header("cookie", &session.cookie)
}

async fn write(app: &TestApp, session: &SignedIn, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Answer {
    let request = with_cookie(app, session, Method::POST, "/api/rules").json(&rule("by cookie"));
    TestApp::send(change(request)).await
}

#[tokio::test]
async fn a_token_becomes_a_cookie_that_pages_cannot_read() {
    let app = TestApp::start().await;
    let session = sign_in(&app, app.a, Role::Admin).await;
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=43200"] {
        assert!(session.set.contains(part), "{}", session.set);
    }
    assert_eq!(
        (&session.me["organisation"], &session.me["role"], &session.me["can"]),
        (
            &json!({ "id": app.a, "name": "Organisation A" }),
            &json!("admin"),
            &json!(["read", "retry", "manage"])
        )
    );
    let me = TestApp::send(with_cookie(&app, &session, Method::GET, "/api/me"))
        .await
        .expect(200);
    assert_eq!(me.json(), session.me, "a page that was loaded again learns the same");
    TestApp::send(with_cookie(&app, &session, Method::GET, "/api/rules"))
        .await
        .expect(200);
    let made = write(&app, &session, |request| request.header("x-csrf-token", &session.csrf)).await;
    assert_eq!(made.expect(201).json()["name"], "by cookie");
}

#[tokio::test]
async fn a_cookie_without_its_csrf_header_changes_nothing() {
    let app = TestApp::start().await;
    let (own, other) = (
        sign_in(&app, app.a, Role::Owner).await,
        sign_in(&app, app.a, Role::Owner).await,
    );
    let foreign = sign_in(&app, app.b, Role::Owner).await;
    let wrong: [Option<&str>; 5] = [None, Some(""), Some("0"), Some(&other.csrf), Some(&foreign.csrf)];
    for csrf in wrong {
        let refused = write(&app, &own, |request| match csrf {
            Some(csrf) => request.header("x-csrf-token", csrf),
            None => request,
        })
        .await
        .expect(403);
        assert_eq!(refused.code(), "csrf_invalid", "{csrf:?}");
    }
    let twice = write(&app, &own, |request| {
        request
            .header("x-csrf-token", &own.csrf)
            .header("x-csrf-token", &own.csrf)
    });
    twice.await.expect(403);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let request = with_cookie(&app, &own, method, "/api/rules/4");
        let answer = TestApp::send(request.json(&json!({}))).await;
        assert!(matches!(answer.status, 403 | 404), "{answer:?}");
    }
    // Nobody signs another person out either.
    TestApp::send(with_cookie(&app, &own, Method::DELETE, "/api/session"))
        .await
        .expect(403);
    assert_eq!(app.get(app.a, "/api/rules").await.json()["data"], json!([]));
    TestApp::send(with_cookie(&app, &own, Method::GET, "/api/me"))
        .await
        .expect(200);
}

#[tokio::test]
async fn a_session_is_of_one_organisation_and_of_one_role() {
    let app = TestApp::start().await;
    let rule_of_b = app.post(app.b, "/api/rules", &rule("of b")).await.json()["id"].clone();
    let session = sign_in(&app, app.a, Role::Viewer).await;
    let path = format!("/api/rules/{}", rule_of_b.as_str().unwrap());
    TestApp::send(with_cookie(&app, &session, Method::GET, &path))
        .await
        .expect(404);
    let refused = write(&app, &session, |request| request.header("x-csrf-token", &session.csrf)).await;
    assert_eq!(refused.expect(403).code(), "forbidden");
    TestApp::send(with_cookie(&app, &session, Method::GET, "/operator/organizations"))
        .await
        .expect(404);
    // The organisation in a cookie is where the session is looked up, so that another one finds
    // nothing.
    let theirs = sign_in(&app, app.b, Role::Owner).await;
    let (a, b) = (
        session.cookie.split_once('=').unwrap().1,
        theirs.cookie.split_once('=').unwrap().1,
    );
    let mixed = format!("hookswitch_session={}{}", &b[..21], &a[21..]);
    TestApp::send(app.request(Method::GET, "/api/me").header("cookie", mixed))
        .await
        .expect(401);
    // A token counts alone, whatever cookie stands beside it.
    let request = with_cookie(&app, &session, Method::GET, "/api/me").bearer_auth(app.token(app.b, Role::Owner));
    assert_eq!(
        TestApp::send(request).await.expect(200).json()["organisation"]["id"],
        json!(app.b)
    );
    let request = with_cookie(&app, &session, Method::GET, "/api/me").bearer_auth("not a token");
    TestApp::send(request).await.expect(401);
}

#[tokio::test]
async fn a_session_ends_with_its_token_by_signing_out_and_with_its_time() {
    let app = TestApp::start().await;
    let me = |session: &SignedIn| TestApp::send(with_cookie(&app, session, Method::GET, "/api/me"));
    let (first, second) = (
        sign_in(&app, app.a, Role::Owner).await,
        sign_in(&app, app.a, Role::Owner).await,
    );
    let out = with_cookie(&app, &first, Method::DELETE, "/api/session").header("x-csrf-token", &first.csrf);
    let out = TestApp::send(out).await.expect(204);
    assert!(
        out.headers["set-cookie"]
            .to_str()
            .unwrap()
            .contains("=; Path=/; Max-Age=0")
    );
    assert_eq!(me(&first).await.expect(401).code(), "unauthenticated");
    me(&second).await.expect(200);
    TestApp::send(app.request(Method::DELETE, "/api/session"))
        .await
        .expect(204);
    // A session is begun with a token, not by another session: it would never end.
    let again = with_cookie(&app, &second, Method::POST, "/api/session").header("x-csrf-token", &second.csrf);
    TestApp::send(again).await.expect(401);
    app.clock.advance(Duration::from_hours(12));
    me(&second).await.expect(401);
}

#[tokio::test]
async fn pages_of_other_origins_write_by_cookie_only_where_they_are_listed() {
    let mut settings = Settings::default();
    settings.admin.admin_origins = vec![PAGE.to_owned(), "loopback".to_owned()];
    let app = TestApp::builder().admin().settings(settings).start().await;
    let session = sign_in(&app, app.a, Role::Owner).await;
    let own = app.base();
    for (origin, status) in [
        (PAGE, 201),
        (own, 201),
        ("null", 403),
        ("https://app.example.com.evil", 403),
        ("https://evil.example", 403),
        ("http://localhost:3000", 403),
    ] {
        let answer = write(&app, &session, |request| {
            request.header("x-csrf-token", &session.csrf).header("origin", origin)
        })
        .await;
        assert_eq!(answer.status, status, "{origin}: {answer:?}");
    }
    // The cookie of one host name is not taken at another: a browser would not send it either.
    let other = with_cookie(&app, &session, Method::GET, "/api/me").header("host", "admin.example.com");
    TestApp::send(other).await.expect(401);
}

#[tokio::test]
async fn the_link_of_dev_signs_in_once() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let client = || {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap()
    };
    let link = dev.get("sign_in");
    assert_eq!(
        client().head(&link).send().await.unwrap().status(),
        204,
        "a look is no use"
    );
    let elsewhere = client()
        .get(format!("{link}&return_to=//evil.example"))
        .send()
        .await
        .unwrap();
    assert_eq!(elsewhere.status(), 400);
    let answer = client().get(&link).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (303, &"/dashboard".parse().unwrap())
    );
    let cookie = answer.headers()["set-cookie"]
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let me = crate::support::client()
        .get(format!("{}/api/me", dev.get("admin")))
        .header("cookie", cookie);
    let me: Value = me.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&me["role"], &me["organisation"]["id"]),
        (&json!("owner"), &json!(dev.get("org_id")))
    );
    assert_eq!(client().get(&link).send().await.unwrap().status(), 401, "used");
    let forged = format!("{}/api/session/open?code=AAAA", dev.get("admin"));
    assert_eq!(client().get(forged).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn me_tells_a_token_its_role_organisation_and_end() {
    let app = TestApp::start().await;
    let me = app.get(app.a, "/api/me").await.expect(200).json();
    assert_eq!(me["organisation"]["name"], "Organisation A");
    assert_eq!((&me["role"], &me["csrf_token"]), (&json!("owner"), &Value::Null));
    assert_eq!(me["expires_at"], "2025-11-25T16:00:00.000000Z");
    for (role, can) in [
        (Role::Viewer, json!(["read"])),
        (Role::Member, json!(["read", "retry"])),
        (Role::Admin, json!(["read", "retry", "manage"])),
        (Role::Owner, json!(["read", "retry", "manage", "connect"])),
    ] {
        let me = app.call_as(app.a, role, Method::GET, "/api/me", None).await.expect(200);
        assert_eq!(me.json()["can"], can, "{role:?}");
    }
    let operator = app.operator(Method::GET, "/api/me", &Value::Null).await.expect(200);
    assert_eq!(
        operator.json(),
        json!({ "organisation": null, "role": "operator", "subject": "a person", "csrf_token": null,
            "expires_at": "2025-11-25T16:00:00.000000Z", "can": ["operate"] })
    );
}

const PAUSE: &str = "/operator/pause";

async fn sign_in_operator(app: &TestApp) -> SignedIn {
    let answer = app.operator(Method::POST, "/api/session", &Value::Null).await;
    signed_in(&answer.expect(201))
}

async fn pause(app: &TestApp, session: &SignedIn, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Answer {
    let body = json!({ "provider": "resend", "reason": "Resend is being moved" });
    let request = with_cookie(app, session, Method::POST, PAUSE).json(&body);
    TestApp::send(change(request)).await
}

#[tokio::test]
async fn an_operators_token_becomes_a_cookie_that_opens_what_the_token_opens() {
    let app = TestApp::start().await;
    let session = sign_in_operator(&app).await;
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=3600"] {
        assert!(session.set.contains(part), "{}", session.set);
    }
    assert_eq!(
        (&session.me["role"], &session.me["can"]),
        (&json!("operator"), &json!(["operate"]))
    );
    let me = TestApp::send(with_cookie(&app, &session, Method::GET, "/api/me")).await;
    assert_eq!(
        me.expect(200).json(),
        session.me,
        "a page that was loaded again learns the same"
    );
    let made = pause(&app, &session, |request| request.header("x-csrf-token", &session.csrf)).await;
    assert_eq!(made.expect(200).json()["is_new"], true);
    let pauses = TestApp::send(with_cookie(&app, &session, Method::GET, "/operator/pauses")).await;
    assert_eq!(pauses.expect(200).json()["pauses"][0]["actor"], "operator:a person");
    let audit = app
        .operator(Method::GET, "/operator/audit", &Value::Null)
        .await
        .expect(200)
        .json();
    let begun = audit["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["target_kind"] == "session");
    assert_eq!(begun.unwrap()["actor"], "operator:a person");
}

#[tokio::test]
async fn an_operators_cookie_without_its_csrf_header_changes_nothing() {
    let app = TestApp::start().await;
    let (own, other) = (sign_in_operator(&app).await, sign_in_operator(&app).await);
    let member = sign_in(&app, app.a, Role::Owner).await;
    assert_ne!(own.cookie, other.cookie);
    for csrf in [None, Some(""), Some("0"), Some(&*other.csrf), Some(&*member.csrf)] {
        let refused = pause(&app, &own, |request| match csrf {
            Some(csrf) => request.header("x-csrf-token", csrf),
            None => request,
        });
        assert_eq!(refused.await.expect(403).code(), "csrf_invalid", "{csrf:?}");
    }
    for origin in ["null", "https://evil.example"] {
        let request = |one: RequestBuilder| one.header("x-csrf-token", &own.csrf).header("origin", origin);
        assert_eq!(pause(&app, &own, request).await.expect(403).code(), "csrf_invalid");
    }
    let out = with_cookie(&app, &own, Method::DELETE, "/api/session");
    TestApp::send(out).await.expect(403);
    let pauses = app.operator(Method::GET, "/operator/pauses", &Value::Null).await;
    assert_eq!(pauses.expect(200).json()["pauses"], json!([]));
}

#[tokio::test]
async fn an_operators_session_opens_nothing_of_an_organisation_and_is_no_token() {
    let app = TestApp::start().await;
    let (operator, member) = (sign_in_operator(&app).await, sign_in(&app, app.a, Role::Owner).await);
    for path in ["/api/rules", "/api/events", "/api/audit", "/api/pauses"] {
        TestApp::send(with_cookie(&app, &operator, Method::GET, path))
            .await
            .expect(401);
    }
    for path in ["/operator/pauses", "/operator/dead-events", "/operator/keys"] {
        TestApp::send(with_cookie(&app, &member, Method::GET, path))
            .await
            .expect(404);
    }
    // The two forms of one operator's proof do not stand in for each other.
    let ticket = operator.cookie.split_once('=').unwrap().1;
    let as_token = app.request(Method::GET, "/operator/pauses").bearer_auth(ticket);
    TestApp::send(as_token).await.expect(401);
    let last = if ticket.ends_with('A') { 'B' } else { 'A' };
    let of_a_member = app.token(app.a, Role::Owner);
    let forged = format!("{}{last}", &ticket[..ticket.len() - 1]);
    for cookie in [app.operator_token(), of_a_member, forged, "a.b.c".to_owned()] {
        let request = app.request(Method::GET, "/operator/pauses");
        let request = request.header("cookie", format!("hookswitch_session={cookie}"));
        TestApp::send(request).await.expect(401);
    }
}

#[tokio::test]
async fn an_operators_session_ends_with_its_hour_and_with_its_token() {
    let app = TestApp::start().await;
    let is_open = async |session: &SignedIn| {
        let request = with_cookie(&app, session, Method::GET, "/operator/pauses");
        TestApp::send(request).await.status == 200
    };
    let session = sign_in_operator(&app).await;
    let again = with_cookie(&app, &session, Method::POST, "/api/session").header("x-csrf-token", &session.csrf);
    TestApp::send(again).await.expect(401);
    let out = with_cookie(&app, &session, Method::DELETE, "/api/session").header("x-csrf-token", &session.csrf);
    let out = TestApp::send(out).await.expect(204);
    assert!(
        out.headers["set-cookie"]
            .to_str()
            .unwrap()
            .contains("=; Path=/; Max-Age=0")
    );
    app.clock.advance(Duration::from_mins(59));
    assert!(is_open(&session).await);
    app.clock.advance(Duration::from_mins(1));
    assert!(!is_open(&session).await, "an hour is over");

    let grant = Grant {
        subject: "a person",
        now: app.clock.now(),
        valid_for: Duration::from_mins(10),
    };
    let short = mint_operator_token(&app.settings.admin, grant).unwrap();
    let begun = TestApp::send(app.request(Method::POST, "/api/session").bearer_auth(short))
        .await
        .expect(201);
    assert!(begun.headers["set-cookie"].to_str().unwrap().contains("Max-Age=600"));
}
