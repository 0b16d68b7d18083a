//! Requests in every form that HTTP and a provider's console allow: taken, or seen by their owner.

use crate::support::{
    app::{
        TestApp,
        ingress::{public_url, settings},
    },
    db::NOW,
    wire::request,
};
use hookswitch::{domain::SecretBytes, source::sign::TwilioSigner};
use serde_json::json;

/// RFC 9112, section 3.2.2: a server must accept the absolute form of the target.
#[tokio::test]
async fn the_absolute_form_of_the_target_is_taken() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let body = a.body();
    for (n, base) in ["http://test", "https://test", "http://another.example:8080"]
        .into_iter()
        .enumerate()
    {
        let body = body.replace("call-1", &format!("call-{n}"));
        let signed = a.sign("/webhooks/vapi?x=1", body.as_bytes(), NOW);
        let target = format!("{base}/webhooks/vapi?x=1");
        let answer = app
            .exchange(&request(&target, "application/json", &signed, body.as_bytes()))
            .await;
        assert_eq!(answer.status, 200, "{target}");
        let event = &app.queue().events()[n];
        assert_eq!((&*event.path, &*event.query), ("/webhooks/vapi", "x=1"));
    }
    for target in ["http://test", "ftp://test/webhooks/vapi", "http://test/webhooks/vapi/"] {
        let signed = a.sign("/webhooks/vapi", body.as_bytes(), NOW);
        let answer = app
            .exchange(&request(target, "application/json", &signed, body.as_bytes()))
            .await;
        assert_eq!(answer.status, 404, "{target}");
    }
}

/// Studio's "Make HTTP Request" sends only the parameters that a person typed in.
#[tokio::test]
async fn a_twilio_form_that_names_no_account_is_taken_where_the_endpoints_secret_verifies() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let token = SecretBytes::from("0123456789abcdef0123456789abcdef".to_owned());
    let endpoint = app.add_twilio_endpoint(&a, &token).await;
    let path = format!("/webhooks/twilio/{endpoint}");
    let signer = TwilioSigner::auth_token(&token);
    let url = public_url(&path);
    let form = |path: &str, signed: &[_]| {
        request(
            path,
            "application/x-www-form-urlencoded",
            signed,
            b"name=Jane&answer=yes",
        )
    };
    let signed = signer.sign_form(&url, &[("name", "Jane"), ("answer", "yes")]);
    assert_eq!(app.exchange(&form(&path, &signed)).await.status, 200);
    let event = &app.queue().events()[0];
    assert_eq!((event.org, event.event_type.as_str()), (Some(a.org), "twilio.other"));
    // The same as JSON, whose body is signed in the URL.
    let body = json!({"name": "Jane", "answer": "yes"}).to_string();
    let (signed_url, signed) = signer.sign_json(&url, body.as_bytes());
    let target = signed_url.strip_prefix(&public_url("")).expect("our own URL");
    let json = request(target, "application/json", &signed, body.as_bytes());
    assert_eq!(app.exchange(&json).await.status, 200);
    // Another secret, or the shared URL, where nothing in the form leads anywhere.
    let other = TwilioSigner::auth_token(&SecretBytes::from("f".repeat(32)));
    let signed = other.sign_form(&url, &[("name", "Jane"), ("answer", "yes")]);
    assert_eq!(app.exchange(&form(&path, &signed)).await.status, 401);
    let shared = "/webhooks/twilio";
    let signed = signer.sign_form(&public_url(shared), &[("name", "Jane"), ("answer", "yes")]);
    assert_eq!(app.exchange(&form(shared, &signed)).await.status, 401);
    assert_eq!(app.queue().events().len(), 2);
}

/// A console lets people choose method, path and content type: what we do not take, they see.
#[tokio::test]
async fn the_owner_of_an_endpoint_sees_what_its_url_refused_by_the_head() {
    let (app, [a, b]) = TestApp::receiving(settings()).await;
    let endpoint = app.add_endpoint(&a, &[], None).await;
    let own = format!("/webhooks/vapi/{endpoint}");
    let unknown = format!("/webhooks/vapi/{}/", uuid::Uuid::now_v7());
    let post = |path: &str, content_type: &str| request(path, content_type, &[], b"{}");
    // The first request finds the new endpoint's route.
    let unsigned = request(&own, "application/json", &[], a.body().as_bytes());
    assert_eq!(app.exchange(&unsigned).await.status, 401);
    let get = String::from_utf8(post(&own, "application/json"))
        .expect("ASCII")
        .replacen("POST", "GET", 1);
    for (bytes, status) in [
        (get.into_bytes(), 405),
        (post(&own, "text/plain"), 415),
        (post(&format!("{own}/"), "application/json"), 404),
        (
            post(&format!("/webhooks//vapi/{endpoint}/call"), "application/json"),
            404,
        ),
        (post(&unknown, "application/json"), 404),
    ] {
        assert_eq!(app.exchange(&bytes).await.status, status);
    }
    let seen = app.rejections_of(Some(a.org), 5).await;
    let mut causes: Vec<&str> = seen.iter().map(|rejection| &*rejection.cause).collect();
    causes.sort_unstable();
    assert_eq!(
        causes,
        [
            "bad_signature",
            "method_not_allowed",
            "not_found",
            "not_found",
            "unsupported_media_type"
        ]
    );
    assert!(
        seen.iter()
            .all(|rejection| rejection.endpoint == Some(endpoint) && !rejection.is_claimed)
    );
    assert!(app.rejections_of(Some(b.org), 0).await.is_empty());
    assert_eq!(app.rejections(5).await.len(), 5, "a path of nobody is counted only");
}

/// RFC 9112, section 3.2, and RFC 9110, section 15.5.2.
#[tokio::test]
async fn a_host_that_is_none_is_400_and_a_401_names_its_scheme() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let good = String::from_utf8(a.request("/webhooks/vapi", &a.body())).expect("UTF-8");
    for (host, status) in [
        ("test:8080", 200),
        ("[2001:db8::1]:80", 200),
        ("", 200),
        ("a b", 400),
        ("user@test", 400),
        ("test/path", 400),
        ("test:port:1", 400),
    ] {
        let bytes = good.replacen("host: test\r\n", &format!("host: {host}\r\n"), 1);
        assert_eq!(app.exchange(bytes.as_bytes()).await.status, status, "{host:?}");
    }
    let refused = app
        .exchange(&request("/webhooks/vapi", "application/json", &[], a.body().as_bytes()))
        .await;
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, Some("Signature"))
    );
}
