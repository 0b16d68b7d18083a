//! What the platform's own account signed reaches organisations by routes of the platform alone,
//! and otherwise nobody (invariant 19).

use crate::support::{
    app::{
        TestApp,
        ingress::{Tenant, public_url, settings, sign, vapi_body},
    },
    db::NOW,
    wire::request,
};
use hookswitch::{
    config::ReceiverSettings,
    domain::{Envelope, SecretBytes, Source},
    source::sign::{form_body, sign_twilio},
};
use reqwest::Method;
use serde_json::{Value, json};

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

/// A text message to a number of an account, signed by `token`.
fn text(token: &SecretBytes, path: &str, account: &str, number: &str) -> Vec<u8> {
    let params = [
        ("AccountSid", account),
        ("Body", "hello"),
        ("From", "+15557654321"),
        ("MessageSid", "SM00000000000000000000000000000001"),
        ("To", number),
    ];
    let params = params.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let signature = sign_twilio(token, &public_url(path), &params);
    let header = ("x-twilio-signature".parse().unwrap(), signature);
    let body = form_body(&params);
    request(path, "application/x-www-form-urlencoded", &[header], body.as_bytes())
}

/// The whole way: an operator gives numbers of the platform's own Twilio account to organisations,
/// and the account's auth token verifies what comes to them, and nothing else.
#[tokio::test]
async fn the_platforms_twilio_token_verifies_the_numbers_that_an_operator_gave_to_it_alone() {
    const ACCOUNT: &str = "ACcccccccccccccccccccccccccccccccc";
    const GIVEN: &str = "+15552010301";
    const GIVEN_TO_A: &str = "+15552010302";
    const NOT_GIVEN: &str = "+15552010303";
    const OF_NOBODY: &str = "+15552010304";
    const TWILIO: &str = "/webhooks/twilio";
    let token = SecretBytes::from("the-auth-token-of-the-platform".to_owned());
    let settings = ReceiverSettings {
        platform_twilio_secrets: Some("the-auth-token-of-the-platform".into()),
        ..settings()
    };
    let (app, [a, b]) = TestApp::builder().admin().receiver(settings).start_with_senders().await;
    app.erase_secrets(&b, Source::Twilio).await;
    let approve = async |tenant: &Tenant, number: &str, managed_by: Value| {
        let route = json!({
            "org_id": tenant.org, "number": number, "provider": "twilio", "account_id": ACCOUNT,
            "managed_by": managed_by,
        });
        app.operator(Method::PUT, "/operator/routes", &route).await.expect(200);
    };
    approve(&b, GIVEN, json!("platform")).await;
    approve(&a, GIVEN_TO_A, json!("platform")).await;
    approve(&b, NOT_GIVEN, Value::Null).await;
    let post = async |by: &SecretBytes, path: &str, account: &str, number: &str| {
        let before = app.queue().events().len();
        let status = app.exchange(&text(by, path, account, number)).await.status;
        let event = app.queue().events().get(before).cloned();
        (status, event.map(|event| (event.org, event.endpoint, event.secret)))
    };
    assert_eq!(
        post(&token, TWILIO, ACCOUNT, GIVEN).await,
        (200, Some((Some(b.org), None, None)))
    );
    // It waits in quarantine for the operator's route.
    assert_eq!(
        post(&token, TWILIO, ACCOUNT, OF_NOBODY).await,
        (200, Some((None, None, None)))
    );

    let own = b.account();
    for (account, number, why) in [
        (ACCOUNT, NOT_GIVEN, "its organisation's own secrets sign for it"),
        (ACCOUNT, GIVEN_TO_A, "its organisation has a secret of its own"),
        (own.as_str(), b.number(), "a number of another account"),
    ] {
        assert_eq!(post(&token, TWILIO, account, number).await, (401, None), "{why}");
    }
    let (status, event) = post(&a.secret, TWILIO, ACCOUNT, GIVEN_TO_A).await;
    assert_eq!((status, event.expect("published").0), (200, Some(a.org)));
    for secret in [&a.secret, &b.secret] {
        assert_eq!(
            post(secret, TWILIO, ACCOUNT, GIVEN).await,
            (401, None),
            "a tenant's secret"
        );
    }
    let endpoint = app.add_twilio_endpoint(&a, &a.secret).await;
    for path in [format!("{TWILIO}/{endpoint}"), format!("{TWILIO}/{}", b.org)] {
        assert_eq!(post(&token, &path, ACCOUNT, GIVEN).await, (401, None), "{path}");
    }
    approve(&b, GIVEN, Value::Null).await;
    assert_eq!(
        post(&token, TWILIO, ACCOUNT, GIVEN).await,
        (401, None),
        "it was taken back"
    );
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
