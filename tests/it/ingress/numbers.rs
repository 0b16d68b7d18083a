//! Plain telephone numbers as routes: they choose a secret where nothing else does, and never
//! overrule a secret that verified (invariant 18).

use crate::support::db::NOW;
use crate::support::{
    app::{
        TestApp,
        ingress::{Tenant, settings, sign, vapi_body},
    },
    wire::request,
};

use std::fmt::Write as _;

const NUMBER: &str = "+15552010100";

/// A status update that names ids of these kinds, signed by `by`.
fn event(by: &Tenant, path: &str, assistant: Option<&str>, number_id: Option<&str>) -> Vec<u8> {
    let mut number = format!(r#""phoneNumber":{{"number":"{NUMBER}""#);
    if let Some(id) = number_id {
        write!(number, r#","id":"{id}""#).unwrap();
    }
    let body = vapi_body(assistant.unwrap_or_default()).replace(r#""call":"#, &format!(r#"{number}}},"call":"#));
    request(
        path,
        "application/json",
        &sign(&by.secret, path, body.as_bytes(), NOW),
        body.as_bytes(),
    )
}

/// Makes the receiver load routes that were proved since: a request that would be refused asks for
/// them.
async fn load_routes(app: &TestApp, tenant: &Tenant) {
    let unknown = event(tenant, "/webhooks/vapi", Some("asst-nobody"), Some("pn-nobody"));
    app.exchange(&unknown).await;
}

#[tokio::test]
async fn a_number_that_another_organisation_proved_does_not_silence_the_owner_of_the_secret() {
    let (app, [a, b]) = TestApp::receiving(settings()).await;
    let own = app.add_endpoint(&a, &[], None).await;
    app.prove_vapi_number(&b, NUMBER, "pn-b").await;
    load_routes(&app, &a).await;
    let on_shared = event(&a, "/webhooks/vapi", Some("asst-a"), Some("pn-of-nobody"));
    let on_own = event(&a, &format!("/webhooks/vapi/{own}"), Some("asst-a"), None);
    for (bytes, name) in [(on_shared, "the shared path"), (on_own, "its own endpoint")] {
        assert_eq!(app.exchange(&bytes).await.status, 200, "{name}");
        assert_eq!(app.queue().events().last().unwrap().org, Some(a.org), "{name}");
    }
    // A unique id still contradicts the secret.
    let conflicting = event(&a, "/webhooks/vapi", Some("asst-a"), Some("pn-b"));
    assert_eq!(app.exchange(&conflicting).await.status, 401);
    assert_eq!(app.rejections(1).await[0].cause, "conflicting_route");
}

#[tokio::test]
async fn a_number_that_moved_leads_to_its_present_owner_and_not_to_the_former_one() {
    let (app, [a, b]) = TestApp::receiving(settings()).await;
    app.prove_vapi_number(&b, NUMBER, "pn-b").await;
    load_routes(&app, &b).await;
    let by_number = |by: &Tenant| event(by, "/webhooks/vapi", None, None);
    assert_eq!(app.exchange(&by_number(&b)).await.status, 200);
    assert_eq!(app.queue().events().last().unwrap().org, Some(b.org));

    app.prove_vapi_number(&a, NUMBER, "pn-a").await;
    load_routes(&app, &a).await;
    assert_eq!(app.exchange(&by_number(&a)).await.status, 200);
    assert_eq!(app.queue().events().last().unwrap().org, Some(a.org));
    assert_eq!(app.exchange(&by_number(&b)).await.status, 401, "the former owner");
    // Where a unique id names the former owner, its events stay its own.
    let with_assistant = event(&b, "/webhooks/vapi", Some("asst-b"), None);
    assert_eq!(app.exchange(&with_assistant).await.status, 200);
    assert_eq!(app.queue().events().last().unwrap().org, Some(b.org));
}
