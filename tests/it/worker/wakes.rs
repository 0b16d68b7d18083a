//! The executor looks for actions where there may be some: each look is a transaction.

use crate::support::{
    dev::{Dev, Directory, port_base},
    hooks, until,
};
use serde_json::json;
use std::time::Instant;

const EVENTS: u32 = 200;

/// Looks for actions so far.
async fn looks(dev: &Dev) -> f64 {
    dev.metric("hookswitch_claims_total{found=\"false\"}").await
}

/// Events that no rule wants, kept or not.
async fn without_a_rule(dev: &Dev) -> f64 {
    let kept = dev.metric("hookswitch_plan_events_total{outcome=\"recorded\"}").await;
    kept + dev.metric("hookswitch_plan_events_total{outcome=\"unwanted\"}").await
}

async fn planned_batches(dev: &Dev) -> f64 {
    dev.metric("hookswitch_plan_seconds_count").await
}

#[tokio::test]
async fn events_that_no_rule_wants_cause_no_look_for_actions() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let assistant = dev.get("assistant_id");
    let update = || {
        hooks::vapi(
            "speech-update",
            &hooks::call_id(),
            &assistant,
            &json!({ "status": "started" }),
        )
    };
    assert_eq!(hooks::post(&dev, update()).await, 200);
    until("the first batch", || async {
        (planned_batches(&dev).await > 0.0).then_some(())
    })
    .await;

    let (begun, looks_before, batches_before) = (Instant::now(), looks(&dev).await, planned_batches(&dev).await);
    for _ in 0..EVENTS {
        assert_eq!(hooks::post(&dev, update()).await, 200);
    }
    until("the last event", || async {
        (without_a_rule(&dev).await > f64::from(EVENTS)).then_some(())
    })
    .await;
    let batches = planned_batches(&dev).await - batches_before;
    let looks = looks(&dev).await - looks_before;
    // One look a second is the period. Every batch was one more where batches woke the executor.
    let by_period = begun.elapsed().as_secs_f64().ceil() + 1.0;
    assert!(
        batches > 2.0 * by_period,
        "{batches} batches in {by_period} seconds are too few to tell"
    );
    assert!(
        looks <= by_period,
        "{looks} looks in {by_period} seconds, for {batches} batches"
    );

    // An action does wake it.
    assert_eq!(
        hooks::post(&dev, hooks::end_of_call(&hooks::call_id(), &assistant)).await,
        200
    );
    dev.wait_for_sms(1).await;
    assert!(dev.metric("hookswitch_claims_total{found=\"true\"}").await > 0.0);
}
