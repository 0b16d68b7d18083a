//! Lists: pages that join without a gap, and cursors that open only the list they were made for.

use super::{START, TestApp, rule};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hookswitch::{
    domain::{ActionState, EndpointId, Source},
    store::{
        audit::{AuditEntry, Changes},
        rejections::Rejection,
    },
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn pages_join_without_gap_or_repeat() {
    let app = TestApp::start().await;
    let mut made = Vec::new();
    for n in 0..7 {
        made.push(
            app.post(app.a, "/api/rules", &rule(&format!("rule {n}")))
                .await
                .expect(201)
                .json()["id"]
                .clone(),
        );
    }
    for limit in [1, 2, 3, 6, 7, 200] {
        let mut seen = Vec::new();
        let mut path = format!("/api/rules?limit={limit}");
        loop {
            let page = app.get(app.a, &path).await.expect(200).json();
            let rows = page["data"].as_array().unwrap();
            assert!(rows.len() <= limit);
            seen.extend(rows.iter().map(|row| row["id"].clone()));
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/api/rules?limit={limit}&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(seen, made, "limit {limit}");
    }
}

#[tokio::test]
async fn a_cursor_opens_its_own_list_only() {
    let app = TestApp::start().await;
    for org in [app.a, app.b] {
        for n in 0..3 {
            app.post(org, "/api/rules", &rule(&format!("rule {n}")))
                .await
                .expect(201);
            app.post(
                org,
                "/api/endpoints",
                &json!({ "source": "vapi", "name": format!("endpoint {n}") }),
            )
            .await
            .expect(201);
        }
    }
    let cursor = app.get(app.a, "/api/rules?limit=1").await.json()["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    app.get(app.a, &format!("/api/rules?cursor={cursor}")).await.expect(200);
    let mut flipped = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let position = String::from_utf8(URL_SAFE_NO_PAD.decode(&cursor).unwrap())
        .unwrap()
        .split_once('.')
        .unwrap()
        .1
        .to_owned();
    let bad = [
        (app.b, format!("/api/rules?cursor={cursor}")),
        (app.a, format!("/api/endpoints?cursor={cursor}")),
        (app.a, format!("/api/events?cursor={cursor}")),
        (app.a, format!("/api/rules?cursor={}", URL_SAFE_NO_PAD.encode(flipped))),
        (app.a, format!("/api/rules?cursor={position}")),
        (
            app.a,
            format!("/api/rules?cursor={}", URL_SAFE_NO_PAD.encode(format!(".{position}"))),
        ),
        (
            app.a,
            format!("/api/rules?cursor={}", URL_SAFE_NO_PAD.encode(r#"{"id":1}"#)),
        ),
        (app.a, format!("/api/rules?cursor={}", "A".repeat(10_000))),
        (app.a, "/api/rules?cursor=-1".to_owned()),
        (app.a, "/api/rules?cursor=".to_owned()),
        (app.a, format!("/api/rules?cursor={cursor}=")),
    ];
    for (org, path) in bad {
        let answer = app.get(org, &path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "cursor_invalid"),
            "{path}"
        );
    }
    let of_operator = app
        .operator(Method::GET, "/operator/organizations?limit=1", &Value::Null)
        .await
        .json()["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        app.get(app.a, &format!("/api/rules?cursor={of_operator}")).await.code(),
        "cursor_invalid"
    );
    // A filter is part of the list.
    let filtered = app
        .get(app.a, &format!("/api/actions?state=dead&cursor={cursor}"))
        .await;
    assert_eq!(filtered.code(), "cursor_invalid");
}

#[tokio::test]
async fn a_page_has_1_to_200_rows() {
    let app = TestApp::start().await;
    for path in [
        "/api/rules",
        "/api/endpoints",
        "/api/events",
        "/api/actions",
        "/api/rejections",
        "/api/audit",
        "/api/assistants",
        "/api/phone-numbers",
        "/api/destinations",
    ] {
        for limit in ["1", "200"] {
            app.get(app.a, &format!("{path}?limit={limit}")).await.expect(200);
        }
        for limit in ["0", "-1", "201", "1e3", "1000000000", "", "%2B1", "0x10", "１"] {
            let answer = app.get(app.a, &format!("{path}?limit={limit}")).await;
            assert_eq!(
                (answer.status, answer.field().as_str()),
                (400, "limit"),
                "{path} {limit}"
            );
        }
    }
}

/// Each list takes a time, and what people look for in it.
#[tokio::test]
async fn lists_filter_by_time_cause_and_actor() {
    let app = TestApp::start().await;
    let (early, late) = (START, START + Duration::from_mins(10));
    let rejection = |cause: &str, at| Rejection {
        id: uuid::Uuid::now_v7(),
        at,
        source: Source::Vapi,
        endpoint: Some(EndpointId::generate()),
        org: Some(app.a),
        is_claimed: false,
        cause: cause.into(),
        status: 401,
        bytes: 1,
        ids: vec![],
        head: String::new(),
        signed_url: None,
    };
    let batch = vec![rejection("too_old", early), rejection("bad_signature", late)];
    app.store.record_rejections(batch, 100).await.unwrap();
    for (at, actor) in [(early, "ann"), (late, "bob")] {
        let entry = AuditEntry {
            org: app.a,
            at,
            actor: actor.into(),
            verb: "retry",
            target_kind: "action",
            target_id: "x".into(),
            changes: Changes::default(),
            address: None,
        };
        app.store.record_audit(entry).await.unwrap();
    }
    let found = async |path: &str, field: &str| {
        let rows = app.get(app.a, path).await.expect(200).json()["data"].clone();
        let all = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row[field].as_str().unwrap().to_owned());
        all.filter(|value| value != "operator:a person").collect::<Vec<_>>()
    };
    // One second and one zone later than `early`; a plus that nobody encoded.
    let middle = "2025-11-24T17:00:01+01:00";
    let encoded = middle.replace('+', "%2B");
    for (list, field, first, second) in [
        ("rejections", "cause", "too_old", "bad_signature"),
        ("audit", "actor", "ann", "bob"),
    ] {
        for since in [middle, &encoded] {
            assert_eq!(found(&format!("/api/{list}?since={since}"), field).await, [second]);
            assert_eq!(found(&format!("/api/{list}?until={since}"), field).await, [first]);
        }
        assert_eq!(found(&format!("/api/{list}?{field}={first}"), field).await, [first]);
        assert_eq!(found(&format!("/api/{list}?{field}=nobody"), field).await, [""; 0]);
        let page = app.get(app.a, &format!("/api/{list}?limit=1")).await.json();
        let cursor = page["next_cursor"].as_str().unwrap();
        let other = app
            .get(app.a, &format!("/api/{list}?limit=1&since={encoded}&cursor={cursor}"))
            .await;
        assert_eq!(other.expect(400).code(), "cursor_invalid");
    }
    for (path, field) in [
        ("/api/events?since=yesterday", "since"),
        ("/api/actions?until=2025-11-24", "until"),
        ("/api/actions?cause=bad%20luck", "cause"),
        ("/api/audit?actor=", "actor"),
    ] {
        assert_eq!(app.get(app.a, path).await.expect(400).field(), field, "{path}");
    }
}

#[tokio::test]
async fn events_and_actions_filter_by_time_and_cause() {
    let app = TestApp::start().await;
    let (event, action) = super::isolation::plan(&app, app.a, ActionState::Dead).await;
    let count = async |path: &str| {
        app.get(app.a, path).await.expect(200).json()["data"]
            .as_array()
            .unwrap()
            .len()
    };
    let shown = app.get(app.a, &format!("/api/events/{event}")).await.json();
    let received = shown["received_at"].as_str().unwrap();
    let planned = app.get(app.a, &format!("/api/actions/{action}")).await.json();
    let planned_at = planned["created_at"].as_str().unwrap();
    assert_eq!(count(&format!("/api/events?since={received}")).await, 1);
    assert_eq!(count(&format!("/api/events?until={received}")).await, 0);
    assert_eq!(count(&format!("/api/actions?since={planned_at}")).await, 1);
    assert_eq!(count(&format!("/api/actions?until={planned_at}")).await, 0);
    assert_eq!(count("/api/actions?cause=expired").await, 0);
    let cause = planned["cause"].as_str();
    if let Some(cause) = cause {
        assert_eq!(count(&format!("/api/actions?cause={cause}&state=dead")).await, 1);
    }
}
