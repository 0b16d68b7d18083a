//! Planted secrets: they go in by every door, and come out by none.

mod messages;

use crate::support::{
    client,
    dev::{Dev, Directory, port_base},
    hooks,
};
use serde_json::json;
use std::{fs, path::Path};

/// Every file below a directory that holds one of the secrets.
fn files_with(at: &Path, secrets: &[String], found: &mut Vec<String>) {
    for entry in fs::read_dir(at).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files_with(&path, secrets, found);
            continue;
        }
        let bytes = fs::read(&path).unwrap_or_default();
        for secret in secrets {
            if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                found.push(format!("{} holds {}…", path.display(), &secret[..6]));
            }
        }
    }
}

/// The answer of every route of the document that only reads and names no one thing, to the
/// organisation and to an operator. Routes that come later are among them.
async fn every_read(dev: &Dev) -> Vec<String> {
    // A stream goes on, and the others belong to a browser.
    const NOT_READ: [&str; 4] = [
        "/api/stream",
        "/api/session/open",
        "/api/integrations/google_calendar/authorize",
        "/api/integrations/google_calendar/callback",
    ];
    let reads = hookswitch::admin::path_methods()
        .into_iter()
        .filter(|(path, method)| *method == "get" && !path.contains('{') && !NOT_READ.contains(path));
    let mut texts = Vec::new();
    for (path, _) in reads {
        for token in ["admin_token", "operator_token"] {
            let url = format!("{}{path}", dev.get("admin"));
            let answer = client().get(url).bearer_auth(dev.get(token)).send().await;
            let answer = answer.expect("the admin API answers");
            let is_theirs = path.starts_with("/operator/") == (token == "operator_token");
            assert!(
                !is_theirs || answer.status().is_success(),
                "GET {path}: {}",
                answer.status()
            );
            texts.push(answer.text().await.expect("text"));
        }
    }
    assert!(texts.len() > 40, "{}", texts.len());
    texts
}

#[tokio::test]
async fn planted_secrets_come_out_nowhere() {
    let directory = Directory::new();
    let mut dev = Dev::start_with(
        directory.path(),
        port_base(),
        &[],
        &[("HOOKSWITCH_LOG_LEVEL", "debug"), ("HOOKSWITCH_LOG_FORMAT", "json")],
    )
    .await;
    // Ours, and those that a clumsy or hostile client sends to the wrong place.
    let planted: Vec<String> = (0..4)
        .map(|n| format!("canary{n}{}", uuid::Uuid::now_v7().simple()))
        .collect();
    let mut secrets = vec![dev.get("vapi_secret"), dev.get("twilio_auth_token")];
    secrets.extend(planted.iter().cloned());

    let rotated = json!({ "source": "vapi", "name": "planted", "secret": planted[0], "plan": { "type": "bearer", "headerName": "X-Vapi-Secret", "bearerPrefixEnabled": false } });
    let (status, answer) = dev.admin_post("/api/endpoints", &rotated).await;
    assert_eq!(status, 201, "{answer}");
    let endpoint = answer["id"].as_str().expect("an id").to_owned();
    // Refused by the provider, and malformed: neither may be repeated in the answer.
    let (status, refused) = dev
        .admin_post(
            "/api/integrations/twilio",
            &json!({ "account_sid": dev.get("twilio_account_sid"), "auth_token": planted[1] }),
        )
        .await;
    assert_eq!(status, 422);
    let (status, malformed) = dev
        .admin_post(
            "/api/integrations/vapi",
            &json!({ "api_key": { "nested": planted[2] } }),
        )
        .await;
    assert_eq!(status, 400);

    let mut texts = vec![
        answer.to_string().replace(&planted[0], ""),
        refused.to_string(),
        malformed.to_string(),
    ];
    // The secret came back neither then nor now: only a generated one is shown, once.
    assert!(!answer.to_string().contains(&planted[0]), "{answer}");

    // Verified by a static secret in a header, and refused with another in `Authorization`.
    let call = hooks::call_id();
    let body = hooks::end_of_call(&call, &dev.get("assistant_id"));
    let url = format!("{}/webhooks/vapi/{endpoint}", dev.get("ingress"));
    let post = |name: &'static str, value: String| {
        client()
            .post(&url)
            .header("content-type", "application/json")
            .header(name, value)
            .body(body.clone())
            .send()
    };
    assert_eq!(
        post("x-vapi-secret", planted[0].clone())
            .await
            .expect("an answer")
            .status(),
        200
    );
    let unauthorised = post("authorization", format!("Bearer {}", planted[3]))
        .await
        .expect("an answer");
    assert_eq!(unauthorised.status(), 401);
    texts.push(unauthorised.text().await.expect("text"));
    dev.wait_for_sms(1).await;

    texts.extend(every_read(&dev).await);
    for list in ["events", "actions"] {
        for item in dev.admin(&format!("/api/{list}")).await["data"]
            .as_array()
            .expect("a list")
        {
            texts.push(
                dev.admin(&format!("/api/{list}/{}", item["id"].as_str().expect("an id")))
                    .await
                    .to_string(),
            );
        }
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        let answer = client()
            .get(format!("{}{path}", dev.get("operations")))
            .send()
            .await
            .expect("operations answers");
        texts.push(answer.text().await.expect("text"));
    }
    let (ended, _) = dev.process.terminate();
    assert!(ended.success());
    let logs = dev.process.stderr();
    assert!(logs.lines().count() > 0, "debug logs were asked for");
    texts.push(logs);
    for secret in &secrets {
        for text in &texts {
            assert!(
                !text.contains(secret.as_str()),
                "a secret beginning with {} stands in: {}",
                &secret[..6],
                &text[..text.len().min(2000)]
            );
        }
    }
    // On disk: sealed, but for the file that exists to hold the demo's secrets.
    fs::remove_file(directory.path().join("dev.json")).expect("dev wrote its file");
    let mut found = Vec::new();
    files_with(directory.path(), &secrets, &mut found);
    assert!(found.is_empty(), "{found:?}");
}
