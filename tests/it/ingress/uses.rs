//! The secret that verified stands in the event, and its last use in the store.

use crate::support::{
    app::{
        TestApp,
        ingress::{settings, sign},
    },
    db::NOW,
    wire::{WAIT, request},
};
use hookswitch::domain::{SecretBytes, Source};
use std::time::Instant;

#[tokio::test]
async fn the_secret_that_verified_is_named_and_its_last_use_is_noted() {
    let (app, [a, b]) = TestApp::receiving(settings()).await;
    let own = SecretBytes::from("own-".repeat(8));
    let endpoint = app.add_endpoint(&a, &[], Some(&own)).await;
    let body = a.body();
    let path = format!("/webhooks/vapi/{endpoint}");
    let post = |secret: &SecretBytes| {
        let headers = sign(secret, &path, body.as_bytes(), NOW);
        request(&path, "application/json", &headers, body.as_bytes())
    };
    assert_eq!(app.exchange(&post(&own)).await.status, 200);
    assert_eq!(app.exchange(&post(&a.secret)).await.status, 401, "not this endpoint's");
    assert_eq!(app.exchange(&b.request("/webhooks/vapi", &b.body())).await.status, 200);
    let events = app.queue().events();
    let deadline = Instant::now() + WAIT;
    let used = loop {
        app.receiver().flush_secret_uses();
        let listed = app.store.list_endpoint_secrets(a.org).await.unwrap();
        if listed[0].last_used_at.is_some() {
            break listed;
        }
        assert!(Instant::now() < deadline, "the use was not written: {listed:?}");
        tokio::task::yield_now().await;
    };
    assert_eq!((used[0].last_used_at, events[0].secret), (Some(NOW), Some(used[0].id)));
    // The organisation's own secret was tried on no other URL.
    let shared = app.store.list_secrets(a.org, Source::Vapi, None).await.unwrap();
    assert_eq!(shared[0].last_used_at, None);
    let theirs = app.store.list_secrets(b.org, Source::Vapi, None).await.unwrap();
    assert_eq!(events[1].secret, Some(theirs[0].id));
}
