//! Endpoints and destinations: their secrets are shown once, and rotate with overlap.

use super::TestApp;
use crate::support::{app::admin::nobody, client, dev::requests};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use hookswitch::{admin::Role, config::Settings};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

#[tokio::test]
async fn a_secret_that_we_made_is_shown_once() {
    let app = TestApp::start().await;
    let made = app
        .post(
            app.a,
            "/api/endpoints",
            &json!({ "source": "vapi", "name": "calls", "ignored_types": ["speech-update"] }),
        )
        .await
        .expect(201);
    let body = made.json();
    let (id, secret) = (body["id"].as_str().unwrap(), body["secret"].as_str().unwrap());
    assert_eq!(secret.len(), 64);
    assert_eq!(body["url"], format!("https://hooks.example.com/webhooks/vapi/{id}"));
    assert_eq!(made.headers["location"], format!("/api/endpoints/{id}"));
    assert_eq!(body["secrets"][0]["last_four"], secret[60..]);
    for path in [
        "/api/endpoints".to_owned(),
        format!("/api/endpoints/{id}"),
        "/api/audit".to_owned(),
    ] {
        assert!(!app.get(app.a, &path).await.expect(200).text.contains(secret), "{path}");
    }
    let rotated = app
        .post(
            app.a,
            &format!("/api/endpoints/{id}/secrets"),
            &json!({ "overlap_seconds": 60 }),
        )
        .await
        .expect(201)
        .json();
    assert_ne!(rotated["secret"], secret);
    let ends: Vec<_> = rotated["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|secret| secret["not_after"].is_null())
        .collect();
    assert_eq!(ends, [true, true, false, false], "newest first; the former ones end");
    app.clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(
        app.get(app.a, &format!("/api/endpoints/{id}")).await.json()["secrets"]
            .as_array()
            .unwrap()
            .len(),
        2,
        "the former ones have ended"
    );
    app.delete(app.a, &format!("/api/endpoints/{id}")).await.expect(204);
    app.get(app.a, &format!("/api/endpoints/{id}")).await.expect(404);
}

impl TestApp {
    async fn call_at(&self, method: Method, path: &str, etag: &str, body: &Value) -> super::Answer {
        let request = self.request(method, path).bearer_auth(self.token(self.a, Role::Owner));
        Self::send(request.header("if-match", etag).json(body)).await
    }
}

/// A rotation is a change. An older tag of the endpoint or destination neither deletes nor rotates
/// it.
#[tokio::test]
async fn a_tag_from_before_a_rotation_neither_deletes_nor_rotates() {
    let app = TestApp::start().await;
    let endpoint = app
        .post(app.a, "/api/endpoints", &json!({ "source": "vapi", "name": "calls" }))
        .await
        .expect(201);
    let destination = json!({ "name": "crm", "url": "https://93.184.215.14/hooks" });
    let destination = app.post(app.a, "/api/destinations", &destination).await.expect(201);
    for (path, made) in [
        (
            format!("/api/endpoints/{}", endpoint.json()["id"].as_str().unwrap()),
            endpoint,
        ),
        ("/api/destinations/crm".to_owned(), destination),
    ] {
        let (secrets, former) = (format!("{path}/secrets"), made.etag());
        let empty = json!({});
        let rotated = app.call_at(Method::POST, &secrets, &former, &empty).await.expect(201);
        assert_eq!(rotated.json()["etag"], rotated.etag(), "{path}");
        for (method, path) in [(Method::POST, &secrets), (Method::DELETE, &path)] {
            let refused = app.call_at(method, path, &former, &empty).await.expect(412);
            assert_eq!(refused.code(), "precondition_failed", "{path}");
        }
        let current = rotated.etag();
        app.call_at(Method::DELETE, &path, &current, &empty).await.expect(204);
    }
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let app = TestApp::start().await;
    let new = json!({ "source": "vapi", "name": "calls", "ignored_types": ["speech-update"] });
    let made = app.post(app.a, "/api/endpoints", &new).await.expect(201);
    let path = format!("/api/endpoints/{}", made.json()["id"].as_str().unwrap());
    let patch = async |org, path: &str, body: Value| app.call(org, Method::PATCH, path, Some(&body)).await;
    let renamed = patch(app.a, &path, json!({ "name": "front desk" })).await.expect(200);
    let (renamed, before) = (renamed.json(), made.json());
    assert_eq!(
        (
            &renamed["name"],
            &renamed["ignored_types"],
            &renamed["secrets"],
            &renamed["version"]
        ),
        (
            &json!("front desk"),
            &before["ignored_types"],
            &before["secrets"],
            &json!(2)
        )
    );
    let types = json!({ "ignored_types": ["vapi.transcript"] });
    let typed = patch(app.a, &path, types).await.expect(200).json();
    assert_eq!(
        (&typed["name"], &typed["ignored_types"]),
        (&json!("front desk"), &json!(["transcript"]))
    );
    for (body, field) in [
        (json!({ "ignored_types": ["a b"] }), "ignored_types"),
        (json!({ "name": "" }), "name"),
        (json!({ "source": "twilio" }), "source"),
    ] {
        assert_eq!(patch(app.a, &path, body).await.expect(400).field(), field);
    }
    let stale = app
        .call_at(Method::PATCH, &path, &made.etag(), &json!({ "name": "late" }))
        .await;
    stale.expect(412);
    patch(app.b, &path, json!({ "name": "theirs" })).await.expect(404);

    let new = json!({ "name": "crm", "url": "https://93.184.215.14/hooks" });
    let made = app.post(app.a, "/api/destinations", &new).await.expect(201).json();
    let crm = "/api/destinations/crm";
    let moved = patch(app.a, crm, json!({ "url": "https://93.184.215.14/other" }))
        .await
        .expect(200);
    assert_eq!(moved.json()["etag"], moved.etag());
    let moved = moved.json();
    assert_eq!(
        (
            &moved["url"],
            &moved["last_four"],
            &moved["secrets"],
            &moved["version"],
            moved.get("secret")
        ),
        (
            &json!("https://93.184.215.14/other"),
            &made["last_four"],
            &json!(1),
            &json!(2),
            None
        )
    );
    let inside = patch(app.a, crm, json!({ "url": "https://127.0.0.1/" }))
        .await
        .expect(422);
    assert_eq!(
        (inside.code(), inside.field()),
        ("address_not_allowed".into(), "url".into())
    );
    patch(app.b, crm, json!({ "url": "https://93.184.215.14/" }))
        .await
        .expect(404);
    assert_eq!(
        app.get(app.a, crm).await.expect(200).json()["url"],
        "https://93.184.215.14/other"
    );
}

#[tokio::test]
async fn a_secret_above_the_limit_of_a_source_is_refused_on_the_write() {
    let app = TestApp::start().await;
    let new = json!({ "source": "vapi", "name": "calls" });
    let mut ids = Vec::new();
    // Two plans an endpoint, 128 secrets at most.
    for _ in 0..64 {
        let made = app.post(app.a, "/api/endpoints", &new).await.expect(201).json();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    let refused = app.post(app.a, "/api/endpoints", &new).await.expect(409);
    assert_eq!(refused.code(), "limit_reached");
    assert!(
        refused.json()["detail"].as_str().unwrap().contains("128 of 128"),
        "{refused:?}"
    );
    let rotation = format!("/api/endpoints/{}/secrets", ids[0]);
    app.post(app.a, &rotation, &json!({})).await.expect(409);
    // Another organisation and another source have their own.
    app.post(app.b, "/api/endpoints", &new).await.expect(201);
    let twilio = json!({ "source": "twilio", "name": "sms" });
    app.post(app.a, "/api/endpoints", &twilio).await.expect(201);
    app.delete(app.a, &format!("/api/endpoints/{}", ids[1]))
        .await
        .expect(204);
    app.post(app.a, &rotation, &json!({})).await.expect(201);
}

#[tokio::test]
async fn only_what_can_verify_is_kept() {
    let app = TestApp::start().await;
    let good = "0123456789abcdef0123456789abcdef";
    let plan = json!({ "type": "hmac", "algorithm": "sha256", "signatureHeader": "x-sig", "payloadFormat": "{body}" });
    let own = app
        .post(
            app.a,
            "/api/endpoints",
            &json!({ "source": "vapi", "name": "own", "secret": good, "plan": plan }),
        )
        .await
        .expect(201)
        .json();
    assert_eq!((own.get("secret"), own["secrets"].as_array().unwrap().len()), (None, 1));
    assert_eq!(own["secrets"][0]["plan"]["signatureHeader"], "x-sig");
    let twilio = app
        .post(app.a, "/api/endpoints", &json!({ "source": "twilio", "name": "sms" }))
        .await
        .expect(201)
        .json();
    assert_eq!(twilio["secrets"], json!([]), "the account's auth token verifies");
    let table = [
        (
            json!({ "source": "vapi", "name": "x", "secret": "short" }),
            422,
            "secret",
        ),
        (
            json!({ "source": "vapi", "name": "x", "secret": "s".repeat(513) }),
            422,
            "secret",
        ),
        (
            json!({ "source": "vapi", "name": "x", "plan": { "type": "rot13" } }),
            422,
            "plan.type",
        ),
        (
            json!({ "source": "vapi", "name": "x", "plan": { "type": "hmac", "signatureHeader": "not a header" } }),
            422,
            "plan.signatureHeader",
        ),
        (
            json!({ "source": "vapi", "name": "x", "plan": { "type": "hmac", "secret": good } }),
            400,
            "plan.secret",
        ),
        (json!({ "source": "resend", "name": "x" }), 400, "source"),
        (json!({ "source": "vapi", "name": "" }), 400, "name"),
        (
            json!({ "source": "vapi", "name": "x", "ignored_types": ["a b"] }),
            400,
            "ignored_types",
        ),
        (
            json!({ "source": "vapi", "name": "x", "ignored_types": vec!["a"; 51] }),
            400,
            "ignored_types",
        ),
    ];
    for (body, status, field) in table {
        let answer = app.post(app.a, "/api/endpoints", &body).await;
        assert_eq!(
            (answer.status, answer.field().as_str()),
            (status, field),
            "{body} {answer:?}"
        );
        assert!(!answer.text.contains(good));
    }
}

#[tokio::test]
async fn destinations_are_public_and_sign_with_two_secrets_while_one_rotates() {
    let app = TestApp::start().await;
    for url in [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://[::ffff:7f00:1]/",
        "https://169.254.169.254/latest",
        "https://localhost./",
        "https://user:pass@example.com/",
        "https://example.com:6379/",
        "https://100.64.0.1/",
    ] {
        let answer = app
            .post(app.a, "/api/destinations", &json!({ "name": "crm", "url": url }))
            .await;
        assert_eq!(
            (answer.status, answer.code().as_str(), answer.field().as_str()),
            (422, "address_not_allowed", "url"),
            "{url}"
        );
    }
    for (body, field) in [
        (json!({ "name": "a b", "url": "https://93.184.215.14/" }), "name"),
        (json!({ "name": "a", "url": "file:///etc/passwd" }), "url"),
    ] {
        assert_eq!(
            app.post(app.a, "/api/destinations", &body).await.expect(400).field(),
            field
        );
    }
    let made = app
        .post(
            app.a,
            "/api/destinations",
            &json!({ "name": "crm", "url": "https://93.184.215.14/hooks" }),
        )
        .await
        .expect(201)
        .json();
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"));
    assert_eq!(
        app.post(
            app.a,
            "/api/destinations",
            &json!({ "name": "crm", "url": "https://93.184.215.14/" })
        )
        .await
        .expect(409)
        .code(),
        "conflict"
    );
    let rotated = app
        .post(app.a, "/api/destinations/crm/secrets", &json!({}))
        .await
        .expect(201)
        .json();
    assert_ne!(rotated["secret"], secret);
    assert_eq!(rotated["secrets"], 2);
    for path in ["/api/destinations", "/api/destinations/crm", "/api/audit"] {
        assert!(
            !app.get(app.a, path).await.expect(200).text.contains("whsec_"),
            "{path}"
        );
    }
    app.get(app.b, "/api/destinations/crm").await.expect(404);
    app.delete(app.b, "/api/destinations/crm").await.expect(404);
    app.delete(app.a, "/api/destinations/crm").await.expect(204);
    app.delete(app.a, "/api/destinations/crm").await.expect(204);
    app.get(app.a, "/api/destinations/crm").await.expect(404);
    assert_eq!(app.get(app.a, "/api/destinations").await.json()["data"], json!([]));
}

/// A test posts for real: to the sink of the stand-ins, on this machine.
#[tokio::test]
async fn a_destination_is_tried_out_with_a_signed_post_that_changes_nothing() {
    let mut settings = Settings::default();
    settings.provider.http_plain_allowed = true;
    settings.provider.http_allowed_networks = vec!["127.0.0.0/8".to_owned()];
    let app = TestApp::builder()
        .admin()
        .provider_sandbox()
        .settings(settings)
        .start()
        .await;
    let sandbox = app.settings.provider.vapi_base_url.clone();
    let new = json!({ "name": "crm", "url": format!("{sandbox}/sink/crm") });
    let made = app.post(app.a, "/api/destinations", &new).await.expect(201).json();
    let test = async |org| app.call(org, Method::POST, "/api/destinations/crm/test", None).await;
    let found = test(app.a).await.expect(200).json();
    assert_eq!(
        (&found["is_accepted"], &found["cause"], &found["http_status"]),
        (&json!(true), &Value::Null, &json!(200)),
        "{found}"
    );
    let posts = requests(&sandbox, "http").await;
    assert_eq!(posts.len(), 1, "{posts:?}");
    assert_eq!(
        (&posts[0]["json"]["type"], &posts[0]["json"]["data"]),
        (&json!("hookswitch.test"), &json!({}))
    );
    let header = |name: &str| posts[0]["headers"][name].as_str().unwrap().to_owned();
    let key = STANDARD
        .decode(&made["secret"].as_str().unwrap()["whsec_".len()..])
        .unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let body = serde_json::to_string(&posts[0]["json"]).unwrap();
    mac.update(format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header("webhook-signature"), signature);

    let fault = json!({ "provider": "http", "status": 410, "body": { "gone": "<script>" }, "times": 1 });
    let faults = client().post(format!("{sandbox}/_faults")).json(&fault);
    faults.send().await.unwrap();
    let found = test(app.a).await.expect(200).json();
    assert_eq!(
        (&found["is_accepted"], &found["cause"], &found["http_status"]),
        (&json!(false), &json!("endpoint_gone"), &json!(410))
    );
    assert!(found["detail"].as_str().unwrap().contains("<script>"), "{found}");
    let shown = app.get(app.a, "/api/destinations/crm").await.expect(200).json();
    assert_eq!((&shown["state"], &shown["version"]), (&json!("unverified"), &json!(1)));
    let moved = json!({ "url": nobody().await });
    app.call(app.a, Method::PATCH, "/api/destinations/crm", Some(&moved))
        .await
        .expect(200);
    let found = test(app.a).await.expect(200).json();
    assert_eq!(
        (&found["cause"], &found["http_status"]),
        (&json!("connect_failed"), &Value::Null),
        "{found}"
    );
    let audit = app.get(app.a, "/api/audit?integration=http:crm").await.json();
    assert_eq!(
        (&audit["data"][0]["verb"], &audit["data"][0]["after"]["cause"]),
        (&json!("test"), &json!("connect_failed"))
    );
    test(app.b).await.expect(404);
    assert_eq!(
        app.get(app.b, "/api/audit?integration=http:crm").await.json()["data"],
        json!([])
    );
}
