//! What the platform's own account signed reaches organisations by routes of the platform alone,
//! and otherwise nobody (invariant 19).

use crate::support::{
    app::{
        TestApp,
        ingress::{Tenant, settings, sign, vapi_body},
    },
    db::NOW,
    wire::request,
};
use hookswitch::{
    config::ReceiverSettings,
    domain::{Envelope, SecretBytes, Source},
};

const PLATFORM: &str = "the-secret-of-the-platform";
const SHARED: &str = "/webhooks/vapi";

fn with_platform() -> ReceiverSettings {
    ReceiverSettings {
        platform_vapi_secrets: Some(format!("a-former-secret-of-it, {PLATFORM}").into()),
        ..settings()
    }
}

fn signed(secret: &SecretBytes, path: &str, assistant: &str) -> Vec<u8> {
    let body = vapi_body(assistant);
    let headers = sign(secret, path, body.as_bytes(), NOW);
    request(path, "application/json", &headers, body.as_bytes())
}

async fn post_as(app: &TestApp, secret: &SecretBytes, path: &str, assistant: &str) -> (u16, Option<Envelope>) {
    let before = app.queue().events().len();
    let answer = app.exchange(&signed(secret, path, assistant)).await;
    let events = app.queue().events();
    (answer.status, events.get(before).cloned())
}

async fn post(app: &TestApp, path: &str, assistant: &str) -> (u16, Option<Envelope>) {
    post_as(app, &SecretBytes::from(PLATFORM.to_owned()), path, assistant).await
}

/// With a route of the platform to `b`, which has no secret of its own for Vapi any more.
async fn with_route() -> (TestApp, [Tenant; 2]) {
    let (app, [a, b]) = TestApp::receiving(with_platform()).await;
    app.erase_secrets(&b, Source::Vapi).await;
    app.prove_for_platform(&b, "asst-of-the-platform").await;
    (app, [a, b])
}

#[tokio::test]
async fn an_event_of_the_platform_reaches_the_organisation_of_a_platform_route() {
    let (app, [_, b]) = with_route().await;
    let (status, event) = post(&app, SHARED, "asst-of-the-platform").await;
    let event = event.expect("published");
    assert_eq!(
        (status, event.org, event.endpoint, event.secret),
        (200, Some(b.org), None, None)
    );
    let former = SecretBytes::from("a-former-secret-of-it".to_owned());
    assert_eq!(post_as(&app, &former, SHARED, "asst-of-the-platform").await.0, 200);
}

#[tokio::test]
async fn an_event_of_the_platform_reaches_nobody_by_a_route_that_is_not_the_platforms() {
    let (app, [a, b]) = with_route().await;
    // Not given to the platform: of an organisation with a secret of its own, and of one without.
    for assistant in [&a.assistant, &b.assistant] {
        let (status, event) = post(&app, SHARED, assistant).await;
        assert_eq!((status, event.is_none()), (401, true), "{assistant}");
    }
    // Given to the platform, but the organisation has a secret of its own.
    app.prove_for_platform(&a, "asst-of-a-at-the-platform").await;
    let (status, event) = post(&app, SHARED, "asst-of-a-at-the-platform").await;
    assert_eq!((status, event.is_none()), (401, true));
    assert_eq!(
        post_as(&app, &a.secret, SHARED, "asst-of-a-at-the-platform").await.0,
        200
    );
    // Let go, or proven by another organisation since: the route is the platform's no more.
    app.prove(&a, "asst-of-the-platform").await;
    let (status, event) = post(&app, SHARED, "asst-of-the-platform").await;
    assert_eq!((status, event.is_none()), (401, true));
    let causes: Vec<String> = app.rejections(4).await.into_iter().map(|one| one.cause).collect();
    assert!(causes.iter().all(|cause| cause == "bad_signature"), "{causes:?}");
}

#[tokio::test]
async fn a_secret_of_an_organisation_reaches_no_route_of_the_platform() {
    let (app, [a, b]) = with_route().await;
    for secret in [&a.secret, &b.secret] {
        let (status, event) = post_as(&app, secret, SHARED, "asst-of-the-platform").await;
        assert_eq!((status, event.is_none()), (401, true));
        let (status, event) = post_as(&app, secret, SHARED, "asst-of-nobody").await;
        assert_eq!(
            (status, event.is_none()),
            (401, true),
            "it is no secret of the platform"
        );
    }
}

#[tokio::test]
async fn an_event_of_the_platform_without_a_route_has_no_organisation() {
    let (app, _) = with_route().await;
    let (status, event) = post(&app, SHARED, "asst-of-nobody").await;
    assert_eq!((status, event.expect("published").org), (200, None));
}

#[tokio::test]
async fn the_platforms_secret_counts_on_the_shared_url_and_as_a_signature_alone() {
    let (app, [a, b]) = with_route().await;
    let endpoint = app.add_endpoint(&b, &[], None).await;
    let own = app.add_endpoint(&a, &[], Some(&a.secret)).await;
    for path in [
        format!("{SHARED}/{endpoint}"),
        format!("{SHARED}/{own}"),
        format!("{SHARED}/{}", a.org),
    ] {
        assert_eq!(post(&app, &path, "asst-of-the-platform").await.0, 401, "{path}");
    }
    let body = vapi_body("asst-of-the-platform");
    for (name, value) in [
        ("x-vapi-secret", PLATFORM),
        ("authorization", &format!("Bearer {PLATFORM}")),
    ] {
        let headers = [(name.parse().unwrap(), value.parse().unwrap())];
        let bearer = request(SHARED, "application/json", &headers, body.as_bytes());
        assert_eq!(app.exchange(&bearer).await.status, 401, "{name}");
    }
    assert_eq!(app.queue().events().len(), 0);
    let (without, _) = TestApp::receiving(settings()).await;
    assert_eq!(post(&without, SHARED, "asst-of-nobody").await.0, 401);
}

#[test]
fn a_short_secret_of_the_platform_is_named_by_its_setting() {
    let settings = ReceiverSettings {
        platform_twilio_secrets: Some("long-enough-to-be-one,short".into()),
        ..settings()
    };
    let faults: Vec<_> = hookswitch::receiver::check_settings(&settings)
        .iter()
        .map(hookswitch::receiver::ReceiverError::setting)
        .collect();
    assert_eq!(faults, ["HOOKSWITCH_PLATFORM_TWILIO_SECRETS"]);
}
