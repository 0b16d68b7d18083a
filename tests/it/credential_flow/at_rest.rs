//! Secrets of every provider, and those that we make, at rest: they stand in no file of SQLite and
//! in no table of Postgres in clear.

use super::{
    keys::{ELEVENLABS, RESEND, SECOND, VAPI, good},
    *,
};
use crate::{
    admin::{START, isolation::plan},
    support::postgres::PostgresDatabase,
};
use hookswitch::{
    domain::{ActionState, ManualClock},
    store,
};
use serde_json::json;
use sqlx::AssertSqlSafe;
use std::sync::Arc;

/// Connects everything, has secrets made, and returns all that has to be hidden.
async fn filled(app: &TestApp) -> Vec<String> {
    let post = async |path: &str, body: Value| {
        // The answer to a key is kept, with the secret that it shows once.
        let request = app
            .request(Method::POST, path)
            .bearer_auth(app.token(app.a, Role::Owner));
        let answer = TestApp::send(
            request
                .header("idempotency-key", "k".to_owned() + &path.replace('/', "-"))
                .json(&body),
        )
        .await;
        assert!(answer.status < 300, "{path}: {answer:?}");
        answer
    };
    let mut secrets: Vec<String> = [VAPI, RESEND, ELEVENLABS, SECOND].map(str::to_owned).into();
    for (provider, body) in good() {
        post(&format!("/api/integrations/{provider}"), body).await;
    }
    // The auth token is a part of the account's public SID: the second one is looked for.
    let second = json!({ "auth_token_secondary": SECOND });
    app.post(app.a, "/api/integrations/twilio", &second).await.expect(200);
    let webhook = "a-webhook-secret-of-many-bytes";
    app.post(app.a, "/api/integrations/vapi", &json!({ "webhook_secret": webhook }))
        .await
        .expect(200);
    secrets.push(webhook.to_owned());
    connect_google(app, app.a, "google-1").await;
    begin(app, app.a, "").await;
    secrets.extend(["ya29.", "1//", "canary-client-secret"].map(str::to_owned));

    let destination = json!({ "name": "crm", "url": "https://93.184.215.14/hooks/a-token-in-a-path" });
    let made = post("/api/destinations", destination).await.json();
    secrets.push(made["secret"].as_str().expect("a secret").to_owned());
    secrets.push("a-token-in-a-path".to_owned());
    let made = post("/api/endpoints", json!({ "source": "vapi", "name": "calls" }))
        .await
        .json();
    secrets.push(made["secret"].as_str().expect("a secret").to_owned());
    let session = post("/api/session", json!({})).await;
    let cookie = session.headers["set-cookie"].to_str().expect("a text").to_owned();
    let value = cookie
        .split_once('=')
        .and_then(|(_, rest)| rest.split_once(';'))
        .expect("a cookie")
        .0;
    secrets.push(value.to_owned());
    plan(app, app.a, ActionState::Pending).await;
    secrets.push("canary-in-payload".to_owned());
    secrets
}

#[tokio::test]
async fn no_secret_stands_in_a_file_of_sqlite_in_clear() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let secrets = filled(&app).await;
    let files = std::fs::read_dir(app.folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut read = 0;
    for file in files.filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        read += bytes.len();
        for secret in &secrets {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{} holds {secret}", file.display());
        }
    }
    assert!(read > 100_000, "{read}");
}

#[tokio::test]
async fn no_secret_stands_in_a_table_of_postgres_in_clear() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let clock = Arc::new(ManualClock::at(START));
    let store = store::connect(&database.url(), clock).await.expect("opens");
    let app = TestApp::builder().admin().provider_sandbox().over(store).start().await;
    let secrets = filled(&app).await;
    let mut owner = database.connect().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut owner)
    .await
    .expect("tables");
    let mut rows = 0;
    for table in tables {
        // Bytes come in hex.
        let all: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("SELECT t::text FROM {table} t")))
            .fetch_all(&mut owner)
            .await
            .expect("rows");
        rows += all.len();
        for (row, secret) in all
            .iter()
            .flat_map(|row| secrets.iter().map(move |secret| (row, secret)))
        {
            assert!(!row.contains(secret), "{table} holds {secret}: {row}");
            assert!(
                !row.contains(&hex::encode(secret)),
                "{table} holds the bytes of {secret}: {row}"
            );
        }
    }
    assert!(rows > 30, "{rows}");
}
