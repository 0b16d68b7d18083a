//! Wrong forms, hostile values, bounds of pages, versions and keys, on every route that takes them.

use super::{Things, all_of, app, body_of, of_organisations, request, send, with_body};
use crate::admin::{openapi::documented, rule};
use hookswitch::admin::Role;
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn no_body_of_a_wrong_form_is_taken_and_no_field_that_is_not_the_routes() {
    let app = app().await;
    let things = Things::of(&app, app.a).await;
    let before = all_of(&app, app.a, &things).await;
    let token = app.token(app.a, Role::Owner);
    for one in of_organisations() {
        let Some(good) = body_of(&one, &things) else { continue };
        let path = things.own(&one);
        let ask = async |kind: &str, body: Vec<u8>| {
            let request = request(&app, &one, &path, &token).header("content-type", kind);
            send(&one, request.body(body)).await
        };
        let json = "application/json";
        for field in [
            "org_id",
            "orgId",
            "id",
            "created_at",
            "version",
            "__proto__",
            "constructor",
            "is_admin",
        ] {
            // A PUT of a rule takes what a GET gave, and ignores what nobody can set (docs/api.md).
            if one.id() == "rule_replace" && ["id", "created_at", "version"].contains(&field) {
                continue;
            }
            let mut body = good.clone();
            body[field] = json!(app.b);
            let answer = ask(json, body.to_string().into_bytes()).await;
            assert_eq!(
                (answer.status, answer.code_if_any().as_str(), answer.field().as_str()),
                (400, "invalid_field", field),
                "{} {path}: {answer:?}",
                one.method
            );
        }
        let twice = good.to_string().replacen('{', r#"{"org_id":1,"org_id":2,"#, 1);
        let mut not_utf8 = good.to_string().into_bytes();
        not_utf8.extend([b' ', 0xff]);
        for (kind, body, status) in [
            (json, b"[]".to_vec(), 400),
            (json, b"7".to_vec(), 400),
            (json, b"\"text\"".to_vec(), 400),
            (json, b"{".to_vec(), 400),
            (json, twice.into_bytes(), 400),
            (json, not_utf8, 400),
            (
                json,
                format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes(),
                400,
            ),
            (json, vec![b' '; 256 * 1024 + 1], 413),
            ("text/plain", good.to_string().into_bytes(), 415),
            ("application/x-www-form-urlencoded", b"org_id=1".to_vec(), 415),
        ] {
            let start = String::from_utf8_lossy(&body).chars().take(30).collect::<String>();
            let answer = ask(kind, body).await;
            assert_eq!(
                answer.status, status,
                "{} {path} {kind} {start}: {answer:?}",
                one.method
            );
        }
    }
    assert_eq!(all_of(&app, app.a, &things).await, before, "nothing was changed");
}

/// Texts that mean something to SQL, to a path or to a terminal are texts.
#[tokio::test]
async fn a_hostile_value_in_a_path_or_a_query_is_a_text_or_refused() {
    const HOSTILE: [&str; 9] = [
        "'%20or%20'1'='1",
        "1;%20drop%20table%20rules--",
        "%00",
        "%25",
        "_",
        "%5C",
        "a%0d%0aset-cookie:%20x",
        "%1b%5b31m",
        "..%2f..%2foperator%2fkeys",
    ];
    let app = app().await;
    let things = Things::of(&app, app.a).await;
    let before = all_of(&app, app.a, &things).await;
    let token = app.token(app.a, Role::Owner);
    let long = "%25a".repeat(3_000);
    let values: Vec<&str> = HOSTILE.into_iter().chain([long.as_str()]).collect();
    for one in of_organisations() {
        for value in &values {
            if one.path.contains('{') {
                let path: String = one
                    .path
                    .split('/')
                    .map(|part| if part.starts_with('{') { *value } else { part })
                    .collect::<Vec<_>>()
                    .join("/");
                let body = body_of(&one, &things);
                let answer = send(&one, with_body(request(&app, &one, &path, &token), body.as_ref())).await;
                assert!((400..500).contains(&answer.status), "{} {path}: {answer:?}", one.method);
            }
            for name in one.query() {
                let path = format!("{}?{name}={value}", things.own(&one));
                let body = body_of(&one, &things);
                let answer = send(&one, with_body(request(&app, &one, &path, &token), body.as_ref())).await;
                if answer.status == 200 {
                    assert_eq!(answer.json()["data"], json!([]), "{} {path}", one.method);
                } else {
                    assert_eq!(answer.status, 400, "{} {path}: {answer:?}", one.method);
                }
            }
        }
    }
    assert_eq!(all_of(&app, app.a, &things).await, before, "nothing was changed");
}

#[tokio::test]
async fn every_list_has_pages_of_its_own_within_bounds() {
    let app = app().await;
    for n in 0..2 {
        app.post(app.a, "/api/rules", &rule(&format!("rule {n}")))
            .await
            .expect(201);
        app.post(
            app.b,
            "/api/endpoints",
            &json!({ "source": "vapi", "name": format!("{n}") }),
        )
        .await
        .expect(201);
    }
    let cursor = async |org, path: &str| {
        let page = app.get(org, &format!("{path}?limit=1")).await.expect(200).json();
        page["next_cursor"].as_str().expect("a second page").to_owned()
    };
    let foreign = [
        ("/api/rules", cursor(app.a, "/api/rules").await),
        ("", cursor(app.b, "/api/endpoints").await),
    ];
    let mut tried = 0;
    for one in documented() {
        let names: Vec<_> = one.query().collect();
        if !names.contains(&"cursor") {
            continue;
        }
        let get = async |query: &str| {
            let path = format!("{}?{query}", one.path);
            if one.operation.get("x-role").is_some() {
                app.get(app.a, &path).await
            } else {
                app.operator(Method::GET, &path, &Value::Null).await
            }
        };
        for limit in ["0", "-1", "201", "1e3", "1000000000", "", "0x10"] {
            assert_eq!(get(&format!("limit={limit}")).await.status, 400, "{} {limit}", one.path);
        }
        get("limit=200").await.expect(200);
        let made_up = ["", "-1", "e30", "AAAA", "bm8.bm8"].map(|text| ("", text.to_owned()));
        for (own, cursor) in made_up.into_iter().chain(foreign.clone()) {
            let answer = get(&format!("cursor={cursor}")).await;
            if own == one.path {
                answer.expect(200);
                continue;
            }
            assert_eq!(
                (answer.status, answer.code_if_any().as_str()),
                (400, "cursor_invalid"),
                "{} {cursor}",
                one.path
            );
        }
        tried += 1;
    }
    assert!(tried > 12, "{tried}");
}

#[tokio::test]
async fn a_version_that_is_not_the_things_changes_nothing_on_any_route() {
    let app = app().await;
    let things = Things::of(&app, app.a).await;
    let before = all_of(&app, app.a, &things).await;
    let token = app.token(app.a, Role::Owner);
    let mut tried = 0;
    for one in of_organisations() {
        if !one.has_header("If-Match") {
            continue;
        }
        let path = things.own(&one);
        let body = body_of(&one, &things);
        for (tags, status) in [
            ("\"1-0000000000000000\"", 412),
            ("W/\"1-0000000000000000\"", 412),
            ("\"a\", \"b\"", 412),
            ("1-0000000000000000", 400),
        ] {
            let request = app.request(one.method.clone(), &path).bearer_auth(&token);
            let answer = send(&one, with_body(request.header("if-match", tags), body.as_ref())).await;
            assert_eq!(answer.status, status, "{} {path} {tags}: {answer:?}", one.method);
        }
        if one.needs_header("If-Match") {
            let request = app.request(one.method.clone(), &path).bearer_auth(&token);
            let answer = send(&one, with_body(request, body.as_ref())).await;
            assert_eq!(answer.status, 428, "{} {path}: {answer:?}", one.method);
        }
        tried += 1;
    }
    assert!(tried > 12, "{tried}");
    assert_eq!(all_of(&app, app.a, &things).await, before, "nothing was changed");
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_on_every_route_that_takes_one() {
    let app = app().await;
    let things = Things::of(&app, app.a).await;
    let before = all_of(&app, app.a, &things).await;
    let token = app.token(app.a, Role::Owner);
    let long = "k".repeat(256);
    let mut tried = 0;
    for one in of_organisations() {
        if !one.has_header("Idempotency-Key") {
            continue;
        }
        let path = things.own(&one);
        let body = body_of(&one, &things);
        for key in ["", "a b", "\"a\"b\"", long.as_str()] {
            let request = app.request(one.method.clone(), &path).bearer_auth(&token);
            let answer = send(&one, with_body(request.header("idempotency-key", key), body.as_ref())).await;
            assert_eq!(
                (answer.status, answer.code_if_any().as_str()),
                (400, "idempotency_key_invalid"),
                "{path} {key}"
            );
        }
        tried += 1;
    }
    assert!(tried > 12, "{tried}");
    assert_eq!(all_of(&app, app.a, &things).await, before, "nothing was changed");
}
