//! The use of caches and the depth of the queue, for operators.

use super::TestApp;
use crate::{
    queue_embedded::{Scratch, open, publish},
    support::{
        client,
        dev::{Dev, Directory, port_base},
    },
};
use hookswitch::{
    admin::{Role, Time},
    domain::{Clock, OrgId, SystemClock},
    queue::EventQueue,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

#[tokio::test]
async fn operators_see_how_caches_are_used() {
    let app = TestApp::start().await;
    let sealing = async || {
        let shown = app
            .operator(Method::GET, "/operator/cache", &Value::Null)
            .await
            .expect(200)
            .json();
        assert!(shown["instance"].as_str().unwrap().contains(':'));
        let all = shown["caches"].as_array().unwrap().clone();
        all.into_iter().find(|cache| cache["name"] == "sealing_keys").unwrap()
    };
    let before = sealing().await;
    assert_eq!((&before["hits"], &before["hit_rate"]), (&json!(0), &Value::Null));
    for name in ["one", "two", "three"] {
        let new = json!({ "source": "vapi", "name": name, "secret": "a-secret-of-16-bytes-or-more" });
        app.post(app.a, "/api/endpoints", &new).await.expect(201);
    }
    let after = sealing().await;
    let number = |name: &str| after[name].as_u64().unwrap();
    assert_eq!((number("misses"), number("entries")), (1, 1));
    assert!(number("hits") >= 2, "{after}");
    let rate = number("hits") as f64 / (number("hits") + 1) as f64;
    assert!((after["hit_rate"].as_f64().unwrap() - rate).abs() < 1e-9, "{after}");
    assert!(number("entries_max") >= 1_000, "{after}");
    app.call_as(app.a, Role::Owner, Method::GET, "/operator/cache", None)
        .await
        .expect(404);
}

/// What the last minutes or hours were, the newest first: depth of the queue, and hits and misses
/// of the sealing keys.
async fn samples(app: &TestApp, query: &str) -> (Value, Vec<[Option<u64>; 3]>) {
    let path = format!("/operator/statistics{query}");
    let shown = app.operator(Method::GET, &path, &Value::Null).await.expect(200).json();
    let bucket = |bucket: &Value| {
        let caches = bucket["caches"].as_array().unwrap();
        let sealing = caches.iter().find(|cache| cache["name"] == "sealing_keys");
        let of = |name: &str| sealing.and_then(|cache| cache[name].as_u64());
        [bucket["queue_events"].as_u64(), of("hits"), of("misses")]
    };
    let buckets = shown["buckets"].as_array().unwrap().iter().rev().map(bucket).collect();
    (shown, buckets)
}

#[tokio::test]
async fn operators_see_the_depth_of_the_queue_and_the_use_of_caches_over_time() {
    let place = Scratch::new();
    let log = Arc::new(open(&place.0).await);
    let app = TestApp::builder()
        .admin()
        .through(Arc::clone(&log) as Arc<dyn EventQueue>)
        .start()
        .await;
    let seal = async |name: &str| {
        let new = json!({ "source": "vapi", "name": name, "secret": "a-secret-of-16-bytes-or-more" });
        app.post(app.a, "/api/endpoints", &new).await.expect(201);
    };
    publish(&log, OrgId::generate(), b"{}").await;
    seal("one").await;
    let (_, first) = samples(&app, "").await;
    assert_eq!(
        (first.len(), first[0][0], first[0][2]),
        (60, Some(1), Some(1)),
        "{first:?}"
    );
    app.clock.advance(Duration::from_mins(2));
    publish(&log, OrgId::generate(), b"{}").await;
    seal("two").await;
    let (shown, hour) = samples(&app, "?over=hour").await;
    assert_eq!(
        (&shown["has_queue"], &shown["bucket_seconds"]),
        (&json!(true), &json!(60))
    );
    assert_eq!(hour[0][0], Some(2));
    assert!(
        hour[0][1] >= Some(1) && hour[0][2] == Some(0),
        "of this minute alone: {hour:?}"
    );
    assert_eq!(
        (hour[1], hour[2]),
        ([None; 3], first[0]),
        "nobody looked in the minute between"
    );
    let newest = &shown["buckets"][59]["caches"];
    let newest = newest
        .as_array()
        .unwrap()
        .iter()
        .find(|cache| cache["name"] == "sealing_keys")
        .unwrap();
    assert_eq!(newest["hit_rate"], json!(1.0));
    let (shown, day) = samples(&app, "?over=day").await;
    assert_eq!((day.len(), &shown["bucket_seconds"]), (24, &json!(3_600)));
    let depths = day.iter().filter_map(|bucket| bucket[0]).max();
    assert_eq!(depths, Some(2), "the deepest of the hour: {day:?}");
    assert_eq!(day.iter().filter_map(|bucket| bucket[2]).sum::<u64>(), 1, "{day:?}");
    log.close().await;
}

#[tokio::test]
async fn a_process_without_a_queue_knows_no_depth() {
    let app = TestApp::start().await;
    let (shown, hour) = samples(&app, "").await;
    assert_eq!(shown["has_queue"], json!(false));
    assert!(hour.iter().all(|bucket| bucket[0].is_none()), "{hour:?}");
    assert!(hour[0][1].is_some(), "its caches it knows: {hour:?}");
    let refused = app
        .operator(Method::GET, "/operator/statistics?over=week", &Value::Null)
        .await;
    assert_eq!(refused.expect(400).field(), "over");
    app.call_as(app.a, Role::Owner, Method::GET, "/operator/statistics", None)
        .await
        .expect(404);
}

/// Nobody has to ask: a process takes samples from its start on.
#[tokio::test]
async fn a_process_samples_by_itself() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let asked_at = SystemClock.now();
    let request = client().get(format!("{}/operator/statistics", dev.get("admin")));
    let request = request.bearer_auth(dev.get("operator_token"));
    let shown: Value = request.send().await.unwrap().json().await.unwrap();
    let since = Time::parse(shown["since"].as_str().unwrap()).unwrap();
    assert!(since < asked_at, "the first sample is not the answer's own: {shown}");
    assert_eq!(shown["has_queue"], json!(true));
}
