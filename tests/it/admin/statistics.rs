//! Figures of the last hour and day.

use super::{Answer, TestApp, isolation::plan};
use hookswitch::{
    admin::Role,
    domain::{ActionState, Clock, SystemClock},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

async fn figures(app: &TestApp, query: &str) -> Answer {
    let path = format!("/api/statistics{query}");
    app.call_as(app.a, Role::Viewer, Method::GET, &path, None).await
}

/// Ids of events are of the system's time.
async fn now_started() -> TestApp {
    let app = TestApp::start().await;
    app.clock.set(SystemClock.now());
    app
}

fn counts(figures: &Value) -> [u64; 4] {
    ["events", "actions", "succeeded", "dead"].map(|name| figures[name].as_u64().unwrap())
}

#[tokio::test]
async fn figures_tell_what_came_of_the_last_hour_or_day_and_what_waits() {
    let app = now_started().await;
    for state in [
        ActionState::Succeeded,
        ActionState::Dead,
        ActionState::Pending,
        ActionState::Pending,
    ] {
        plan(&app, app.a, state).await;
    }
    for (query, over, seconds, buckets) in [
        ("", "hour", 60, 60),
        ("?over=hour", "hour", 60, 60),
        ("?over=day", "day", 3_600, 24),
    ] {
        let shown = figures(&app, query).await.expect(200).json();
        assert_eq!(
            (&shown["over"], &shown["bucket_seconds"]),
            (&json!(over), &json!(seconds))
        );
        assert_eq!(counts(&shown["total"]), [4, 4, 1, 1], "{shown}");
        let parts = shown["buckets"].as_array().unwrap();
        assert_eq!(parts.len(), buckets);
        let sums = parts
            .iter()
            .map(counts)
            .fold([0; 4], |sum, part| std::array::from_fn(|at| sum[at] + part[at]));
        assert_eq!(sums, [4, 4, 1, 1]);
        assert!(shown["total"]["latency_ms"]["p95"].as_u64().is_some(), "{shown}");
        assert!(shown["counted_since"].is_null());
        let backlog = &shown["backlog"];
        assert_eq!(
            (&backlog["pending"], &backlog["waiting"], &backlog["is_whole"]),
            (&json!(2), &json!(0), &json!(true))
        );
        assert!(backlog["oldest_at"].is_string(), "{shown}");
    }
}

#[tokio::test]
async fn figures_of_a_are_nothing_of_bs() {
    let app = now_started().await;
    plan(&app, app.a, ActionState::Pending).await;
    assert_eq!(
        counts(&figures(&app, "").await.expect(200).json()["total"]),
        [1, 1, 0, 0]
    );
    let of_b = app.get(app.b, "/api/statistics?over=hour").await.expect(200).json();
    assert_eq!(counts(&of_b["total"]), [0; 4], "{of_b}");
    assert_eq!(
        (&of_b["backlog"]["pending"], &of_b["backlog"]["oldest_at"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(of_b["total"]["latency_ms"], Value::Null);
}

#[tokio::test]
async fn figures_are_counted_again_after_a_few_seconds() {
    let app = now_started().await;
    let actions = async || figures(&app, "").await.expect(200).json()["total"]["actions"].clone();
    assert_eq!(actions().await, 0);
    let tag = figures(&app, "").await.etag();
    plan(&app, app.a, ActionState::Pending).await;
    assert_eq!(actions().await, 0, "counted once for all that ask");
    assert_eq!(figures(&app, "").await.etag(), tag);
    app.clock.advance(Duration::from_secs(10));
    assert_eq!(actions().await, 1);
}

#[tokio::test]
async fn another_time_is_refused_and_an_operator_has_none() {
    let app = TestApp::start().await;
    let refused = figures(&app, "?over=week").await.expect(400);
    assert_eq!(
        (refused.code().as_str(), refused.field().as_str()),
        ("invalid_query", "over")
    );
    app.operator(Method::GET, "/api/statistics", &Value::Null)
        .await
        .expect(401);
}
