//! Lists: pages that join without a gap, and cursors that open only the list they were made for.

use super::{Api, rule};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn pages_join_without_gap_or_repeat() {
    let api = Api::start().await;
    let mut made = Vec::new();
    for n in 0..7 {
        made.push(
            api.post(api.a, "/api/rules", &rule(&format!("rule {n}")))
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
            let page = api.get(api.a, &path).await.expect(200).json();
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
    let api = Api::start().await;
    for org in [api.a, api.b] {
        for n in 0..3 {
            api.post(org, "/api/rules", &rule(&format!("rule {n}")))
                .await
                .expect(201);
            api.post(
                org,
                "/api/endpoints",
                &json!({ "source": "vapi", "name": format!("endpoint {n}") }),
            )
            .await
            .expect(201);
        }
    }
    let cursor = api.get(api.a, "/api/rules?limit=1").await.json()["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    api.get(api.a, &format!("/api/rules?cursor={cursor}")).await.expect(200);
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
        (api.b, format!("/api/rules?cursor={cursor}")),
        (api.a, format!("/api/endpoints?cursor={cursor}")),
        (api.a, format!("/api/events?cursor={cursor}")),
        (api.a, format!("/api/rules?cursor={}", URL_SAFE_NO_PAD.encode(flipped))),
        (api.a, format!("/api/rules?cursor={position}")),
        (
            api.a,
            format!("/api/rules?cursor={}", URL_SAFE_NO_PAD.encode(format!(".{position}"))),
        ),
        (
            api.a,
            format!("/api/rules?cursor={}", URL_SAFE_NO_PAD.encode(r#"{"id":1}"#)),
        ),
        (api.a, format!("/api/rules?cursor={}", "A".repeat(10_000))),
        (api.a, "/api/rules?cursor=-1".to_owned()),
        (api.a, "/api/rules?cursor=".to_owned()),
        (api.a, format!("/api/rules?cursor={cursor}=")),
    ];
    for (org, path) in bad {
        let answer = api.get(org, &path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "cursor_invalid"),
            "{path}"
        );
    }
    let of_operator = api
        .operator(Method::GET, "/operator/organizations?limit=1", &Value::Null)
        .await
        .json()["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        api.get(api.a, &format!("/api/rules?cursor={of_operator}")).await.code(),
        "cursor_invalid"
    );
    // A filter is part of the list.
    let filtered = api
        .get(api.a, &format!("/api/actions?state=dead&cursor={cursor}"))
        .await;
    assert_eq!(filtered.code(), "cursor_invalid");
}

#[tokio::test]
async fn a_page_has_1_to_200_rows() {
    let api = Api::start().await;
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
            api.get(api.a, &format!("{path}?limit={limit}")).await.expect(200);
        }
        for limit in ["0", "-1", "201", "1e3", "1000000000", "", "%2B1", "0x10", "１"] {
            let answer = api.get(api.a, &format!("{path}?limit={limit}")).await;
            assert_eq!(
                (answer.status, answer.field().as_str()),
                (400, "limit"),
                "{path} {limit}"
            );
        }
    }
}
