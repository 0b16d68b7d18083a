//! The use of caches, for operators.

use super::TestApp;
use hookswitch::admin::Role;
use reqwest::Method;
use serde_json::{Value, json};

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
