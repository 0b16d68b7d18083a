//! Requests while the database, the queue, the clock or the sender fails.

use crate::support::{
    db::{Database, NOW},
    ingress::{Ingress, Mood, WAIT, request, settings, sign, vapi_body},
};
use hookswitch::{
    config::ReceiverSettings,
    domain::{ManualClock, SecretBytes},
    queue::PublishError,
};
use std::{sync::Arc, time::Duration};

/// Invariant 9.
#[tokio::test]
async fn a_refusal_looks_for_new_routes_first_and_is_503_while_routes_are_stale() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    // Made after the snapshot was loaded; nothing else refreshes it here.
    ingress.prove(&a, "asst-later").await;
    assert_eq!(
        ingress
            .exchange(&a.request("/webhooks/vapi", &vapi_body("asst-later")))
            .await
            .status,
        200
    );
    let rotated = SecretBytes::from("rotated-".repeat(4));
    ingress
        .add_secret(&a, &rotated, Some(NOW + Duration::from_mins(1)))
        .await;
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
        ingress.exchange(&with(&rotated, NOW)).await.status,
        200,
        "the new one at once"
    );
    assert_eq!(
        ingress.exchange(&with(&a.secret, NOW)).await.status,
        200,
        "the old one while it overlaps"
    );
    ingress.clock.advance(Duration::from_secs(61));
    let later = NOW + Duration::from_secs(61);
    assert_eq!(
        ingress.exchange(&with(&a.secret, later)).await.status,
        401,
        "and not after its end"
    );
    assert_eq!(ingress.exchange(&with(&rotated, later)).await.status, 200);

    let stale = ReceiverSettings {
        snapshot_stale_seconds: Duration::ZERO,
        ..settings()
    };
    let (ingress, [a, b]) = Ingress::start(stale).await;
    let answer = ingress
        .exchange(&request(
            "/webhooks/vapi",
            "application/json",
            &b.sign("/webhooks/vapi", a.body().as_bytes(), NOW),
            a.body().as_bytes(),
        ))
        .await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert_eq!(
        ingress.exchange(&a.request("/webhooks/vapi", &a.body())).await.status,
        200,
        "what verifies goes on"
    );
}

/// Invariant 9.
#[tokio::test]
async fn known_routes_go_on_while_the_database_is_away() {
    use hookswitch::store::Base;
    let (ingress, [a, b]) = Ingress::start(settings()).await;
    ingress.store.close().await;
    assert_eq!(
        ingress.exchange(&a.request("/webhooks/vapi", &a.body())).await.status,
        200
    );
    assert_eq!(
        ingress.exchange(&b.request("/webhooks/vapi", &b.body())).await.status,
        200,
        "also one whose key was never made ready"
    );
    assert_eq!(ingress.queue.events().len(), 2);
}

/// Invariant 16.
#[tokio::test]
async fn too_old_is_503_while_our_clock_is_off() {
    let database = Database::new();
    let clock = Arc::new(ManualClock::at(NOW + Duration::from_mins(6)));
    let (ingress, [a, b]) = Ingress::start_with(settings(), database, clock, None).await;
    let answer = ingress.exchange(&a.request("/webhooks/vapi", &a.body())).await;
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
        ingress.exchange(&forged).await.status,
        401,
        "a wrong signature is wrong at any time"
    );
}

#[tokio::test]
async fn an_event_that_cannot_be_made_durable_now_is_503_and_never_200_or_4xx() {
    let (ingress, [a, _]) = Ingress::start(ReceiverSettings {
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
        ingress.queue.set(mood.clone());
        let answer = ingress.exchange(&bytes).await;
        assert_eq!(answer.status, status, "{mood:?}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{mood:?}");
    }
}

/// Fault 34 of `tests/it/faults`: the sender vanishes.
#[tokio::test]
async fn a_sender_that_vanishes_cancels_nothing_and_half_a_body_is_nothing() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    let bytes = a.request("/webhooks/vapi", &a.body());
    ingress.queue.set(Mood::Wait);
    let mut gone = ingress.connect().await;
    gone.send(&bytes).await;
    ingress.queue.begun(1).await;
    gone.reset();
    let mut half = ingress.connect().await;
    half.send(&bytes[..bytes.len() - 5]).await;
    half.reset();
    let mut ended = ingress.connect().await;
    ended.send(&bytes[..bytes.len() - 5]).await;
    ended.shut().await;
    assert!(
        ended.answer().await.is_none_or(|answer| answer.status == 400),
        "a body that ended early is no webhook"
    );
    ingress.queue.set(Mood::Take);
    let deadline = std::time::Instant::now() + WAIT;
    while ingress.queue.events().is_empty() {
        assert!(std::time::Instant::now() < deadline, "the whole one is durable");
        tokio::task::yield_now().await;
    }
    assert_eq!(ingress.exchange(&bytes).await.status, 200);
    assert_eq!(
        ingress.queue.events().len(),
        2,
        "the whole one, and the one after it; nothing of the halves"
    );
}

#[tokio::test]
async fn a_soft_stop_finishes_publishes_and_takes_nothing_more() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    ingress.queue.set(Mood::Wait);
    let mut wire = ingress.connect().await;
    wire.send(&a.request("/webhooks/vapi", &a.body())).await;
    ingress.queue.begun(1).await;
    ingress.stop.cancel();
    ingress.queue.set(Mood::Take);
    assert_eq!(wire.answer().await.unwrap().status, 200);
    tokio::time::timeout(WAIT, ingress.listening)
        .await
        .expect("the listener ends")
        .unwrap();
    assert_eq!(ingress.queue.events().len(), 1);
}
