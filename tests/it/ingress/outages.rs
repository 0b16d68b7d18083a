//! Requests while the database, the queue, the clock or the sender fails.

use crate::support::{
    app::{
        TestApp,
        ingress::{Mood, settings, sign, vapi_body},
    },
    db::NOW,
    wire::{WAIT, request},
};
use hookswitch::{config::ReceiverSettings, domain::SecretBytes, queue::PublishError};
use std::time::Duration;

/// Invariant 9.
#[tokio::test]
async fn a_refusal_looks_for_new_routes_first_and_is_503_while_routes_are_stale() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    // Made after the snapshot was loaded; nothing else refreshes it here.
    app.prove(&a, "asst-later").await;
    assert_eq!(
        app.exchange(&a.request("/webhooks/vapi", &vapi_body("asst-later")))
            .await
            .status,
        200
    );
    let rotated = SecretBytes::from("rotated-".repeat(4));
    app.add_secret(&a, &rotated, Some(NOW + Duration::from_mins(1))).await;
    let body = a.body();
    let with = |secret: &SecretBytes, at| {
        request(
            "/webhooks/vapi",
            "application/json",
            &sign(secret, "/webhooks/vapi", body.as_bytes(), at),
            body.as_bytes(),
        )
    };
    assert_eq!(
        app.exchange(&with(&rotated, NOW)).await.status,
        200,
        "the new one at once"
    );
    assert_eq!(
        app.exchange(&with(&a.secret, NOW)).await.status,
        200,
        "the old one while it overlaps"
    );
    app.clock.advance(Duration::from_secs(61));
    let later = NOW + Duration::from_secs(61);
    assert_eq!(
        app.exchange(&with(&a.secret, later)).await.status,
        401,
        "and not after its end"
    );
    assert_eq!(app.exchange(&with(&rotated, later)).await.status, 200);

    let stale = ReceiverSettings {
        snapshot_stale_seconds: Duration::ZERO,
        ..settings()
    };
    let (app, [a, b]) = TestApp::receiving(stale).await;
    let answer = app
        .exchange(&request(
            "/webhooks/vapi",
            "application/json",
            &b.sign("/webhooks/vapi", a.body().as_bytes(), NOW),
            a.body().as_bytes(),
        ))
        .await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert_eq!(
        app.exchange(&a.request("/webhooks/vapi", &a.body())).await.status,
        200,
        "what verifies goes on"
    );
}

/// Invariant 9.
#[tokio::test]
async fn known_routes_go_on_while_the_database_is_away() {
    let (app, [a, b]) = TestApp::receiving(settings()).await;
    app.store.close().await;
    assert_eq!(app.exchange(&a.request("/webhooks/vapi", &a.body())).await.status, 200);
    assert_eq!(
        app.exchange(&b.request("/webhooks/vapi", &b.body())).await.status,
        200,
        "also one whose key was never made ready"
    );
    assert_eq!(app.queue().events().len(), 2);
}

/// Invariant 16.
#[tokio::test]
async fn too_old_is_503_while_our_clock_is_off() {
    let (app, [a, b]) = TestApp::builder()
        .receiver(settings())
        .clock_ahead(Duration::from_mins(6))
        .start_with_senders()
        .await;
    let answer = app.exchange(&a.request("/webhooks/vapi", &a.body())).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("5")),
        "signed now, six minutes ago by our clock"
    );
    let forged = request(
        "/webhooks/vapi",
        "application/json",
        &b.sign("/webhooks/vapi", a.body().as_bytes(), NOW),
        a.body().as_bytes(),
    );
    assert_eq!(
        app.exchange(&forged).await.status,
        401,
        "a wrong signature is wrong at any time"
    );
}

#[tokio::test]
async fn an_event_that_cannot_be_made_durable_now_is_503_and_never_200_or_4xx() {
    let (app, [a, _]) = TestApp::receiving(ReceiverSettings {
        publish_seconds_max: Duration::from_millis(200),
        ..settings()
    })
    .await;
    let bytes = a.request("/webhooks/vapi", &a.body());
    for (mood, status) in [
        (Mood::Refuse(PublishError::Full { bytes: 1, bytes_max: 1 }), 503),
        (Mood::Refuse(PublishError::OverShare { org: a.org, bytes: 1 }), 503),
        (
            Mood::Refuse(PublishError::DiskNearlyFull {
                free_bytes: 1,
                free_bytes_min: 2,
            }),
            503,
        ),
        (Mood::Refuse(PublishError::Failed { reason: "disk".into() }), 503),
        (Mood::Refuse(PublishError::Unavailable { reason: "away".into() }), 503),
        (
            Mood::Refuse(PublishError::Unknown {
                reason: "no confirm".into(),
            }),
            503,
        ),
        (Mood::Refuse(PublishError::Closed), 503),
        (Mood::Wait, 503),
        (Mood::Refuse(PublishError::TooLarge { bytes: 2, bytes_max: 1 }), 413),
    ] {
        app.queue().set(mood.clone());
        let answer = app.exchange(&bytes).await;
        assert_eq!(answer.status, status, "{mood:?}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{mood:?}");
    }
}

/// Fault 34 of `tests/it/faults`: the sender vanishes.
#[tokio::test]
async fn a_sender_that_vanishes_cancels_nothing_and_half_a_body_is_nothing() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let bytes = a.request("/webhooks/vapi", &a.body());
    app.queue().set(Mood::Wait);
    let mut gone = app.connect().await;
    gone.send(&bytes).await;
    app.queue().begun(1).await;
    gone.reset();
    let mut half = app.connect().await;
    half.send(&bytes[..bytes.len() - 5]).await;
    half.reset();
    let mut ended = app.connect().await;
    ended.send(&bytes[..bytes.len() - 5]).await;
    ended.shut().await;
    assert!(
        ended.answer().await.is_none_or(|answer| answer.status == 400),
        "a body that ended early is no webhook"
    );
    app.queue().set(Mood::Take);
    let deadline = std::time::Instant::now() + WAIT;
    while app.queue().events().is_empty() {
        assert!(std::time::Instant::now() < deadline, "the whole one is durable");
        tokio::task::yield_now().await;
    }
    assert_eq!(app.exchange(&bytes).await.status, 200);
    assert_eq!(
        app.queue().events().len(),
        2,
        "the whole one, and the one after it; nothing of the halves"
    );
}

#[tokio::test]
async fn a_soft_stop_finishes_publishes_and_takes_nothing_more() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    app.queue().set(Mood::Wait);
    let mut wire = app.connect().await;
    wire.send(&a.request("/webhooks/vapi", &a.body())).await;
    app.queue().begun(1).await;
    app.stop_listening();
    app.queue().set(Mood::Take);
    assert_eq!(wire.answer().await.unwrap().status, 200);
    app.listening_ends().await;
    assert_eq!(app.queue().events().len(), 1);
}
