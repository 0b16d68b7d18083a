//! `hookswitch import legacy` as a process: rows of the earlier system into a running installation.

use crate::support::{
    client,
    dev::{Directory, SandboxProcess, port_base, run},
    postgres::PostgresDatabase,
    serve::{JWT, OPERATOR_JWT, Serve, token},
};
use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use hookswitch::domain::OrgId;
use serde_json::{Value, json};
use std::path::PathBuf;

const SID: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const ASSISTANT: &str = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be0aa";
const FOREIGN: &str = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be0ff";
const VAPI_KEY: &str = "vapi-key-of-the-earlier-system";

/// As the earlier system sealed: `ivhex:taghex:cipherhex`.
fn sealed(key: u8, value: &Value) -> String {
    let iv: [u8; 12] = *uuid::Uuid::now_v7().as_bytes().last_chunk().expect("16 bytes");
    let mut bytes = value.to_string().into_bytes();
    let tag = Aes256Gcm::new(&[key; 32].into())
        .encrypt_inout_detached(&iv.into(), &[], bytes.as_mut_slice().into())
        .expect("short");
    format!("{}:{}:{}", hex::encode(iv), hex::encode(tag), hex::encode(bytes))
}

struct House {
    serve: Serve,
    _sandbox: SandboxProcess,
    files: Directory,
}

impl House {
    async fn start() -> Self {
        let sandbox = SandboxProcess::start(port_base() + 3).await;
        let known = json!({
            "accounts": [{ "sid": SID, "auth_token": TOKEN, "friendly_name": "One", "numbers": ["+12025550199"] }],
            "vapi": [{ "api_key": VAPI_KEY, "assistants": [{ "id": ASSISTANT, "name": "Front desk" }] }],
        });
        let answer = client()
            .post(format!("{}/_accounts", sandbox.url))
            .json(&known)
            .send()
            .await
            .expect("sandbox");
        assert!(answer.status().is_success(), "{answer:?}");
        let url = |path: &str| format!("{}{path}", sandbox.url);
        let serve = Serve::spawn(&[
            ("HOOKSWITCH_TWILIO_BASE_URL", url("")),
            ("HOOKSWITCH_VAPI_BASE_URL", url("")),
        ]);
        serve.is_ready(200).await;
        let files = Directory::new();
        std::fs::write(files.path().join("key"), hex::encode([0x0b; 32])).expect("written");
        Self {
            serve,
            _sandbox: sandbox,
            files,
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// Runs it, and returns its exit code and its words.
    fn import(&self, source: &str, more: &[&str]) -> (i32, String) {
        let (key, url) = (self.files.path().join("key"), self.serve.url(1, ""));
        let mut all = vec![
            "import",
            "legacy",
            source,
            "--key-file",
            key.to_str().expect("UTF-8"),
            "--url",
            &url,
        ];
        all.extend_from_slice(more);
        let output = run(
            &all,
            &[
                ("HOOKSWITCH_JWT_SECRET", JWT),
                ("HOOKSWITCH_OPERATOR_JWT_SECRET", OPERATOR_JWT),
            ],
        );
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let words = text(&output.stdout) + &text(&output.stderr);
        for secret in [TOKEN, VAPI_KEY, JWT] {
            assert!(!words.contains(secret), "a secret is in the report: {words}");
        }
        (output.status.code().expect("a code"), words)
    }

    async fn get(&self, org: OrgId, path: &str) -> (u16, Value) {
        let answer = client()
            .get(self.serve.url(1, path))
            .bearer_auth(token(Some(org)))
            .send()
            .await
            .expect("an answer");
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    async fn state(&self, org: OrgId, provider: &str) -> Value {
        let (_, status) = self.get(org, "/api/integrations/status").await;
        let all = status["integrations"].as_array().expect("a list").clone();
        all.into_iter()
            .find(|one| one["provider"] == provider)
            .expect("every provider")["state"]
            .take()
    }
}

#[tokio::test]
async fn rows_of_a_file_are_shown_first_taken_over_then_and_left_alone_afterwards() {
    let house = House::start().await;
    let (a, b, c) = (OrgId::generate(), OrgId::generate(), OrgId::generate());
    let twilio = json!({ "accountSid": SID, "authToken": TOKEN, "phoneNumber": "+12025550199", "friendlyName": "x" });
    let rows = [
        json!({ "id": a, "name": "A clinic" }),
        json!({ "org_id": a, "provider": "twilio", "encrypted_config": sealed(0x0b, &twilio), "is_active": true }),
        json!({ "orgId": a, "provider": "Vapi", "encryptedConfig": sealed(0x0b, &json!({ "api_key": VAPI_KEY })) }),
        json!({ "org_id": a, "vapi_assistant_id": ASSISTANT, "assistant_role": "inbound" }),
        // Another one's assistant: B's own key does not read it.
        json!({ "org_id": b, "provider": "vapi", "encrypted_config": { "apiKey": "a-key-that-vapi-refuses" } }),
        json!({ "org_id": b, "assistant_id": FOREIGN }),
        json!({ "org_id": c, "provider": "twilio", "encrypted_config": sealed(0x77, &twilio) }),
        json!({ "org_id": c, "provider": "resend", "encrypted_config": "x", "is_active": false }),
        json!({ "org_id": c, "provider": "google_calendar", "encrypted_config": sealed(0x0b, &json!({})) }),
        json!({ "org_id": c, "provider": "twilio", "encrypted_config": sealed(0x0b, &json!({
            "account_sid": SID, "auth_token": TOKEN, "phone_number": "0170 1234567",
        })) }),
    ];
    let text = rows.map(|row| row.to_string()).join("\n");
    let path = house.file("rows.jsonl", &text);
    let source = path.to_str().expect("UTF-8");

    let (code, shown) = house.import(source, &[]);
    assert_eq!(code, 1, "some rows would fail: {shown}");
    for line in [
        "(row 2): would be connected with account_sid, auth_token, phone_number; not taken: friendlyName",
        "(row 3): would be connected with api_key",
        "(row 4): would be claimed",
        "(row 5): would be connected with api_key; it was not sealed there",
        "(row 7): it does not open",
        "(row 8): it is not active there",
        "(row 9): it is connected by consent",
        "(row 10): phone_number: expected E.164",
        "Nothing was written",
    ] {
        assert!(shown.contains(line), "{line}:\n{shown}");
    }
    assert_eq!(house.get(a, "/api/me").await.0, 401, "a dry run makes no organisation");

    let (code, done) = house.import(source, &["--apply"]);
    assert_eq!(code, 1, "{done}");
    for line in [
        &*format!("ok       organisation {a}: made"),
        "(row 2): connected; not taken",
        "(row 3): connected",
        "(row 4): claimed",
        "(row 5): refused_by_provider",
        "(row 6): not_",
        "4 ok",
    ] {
        assert!(done.contains(line) || line == "4 ok", "{line}:\n{done}");
    }
    assert_eq!(house.state(a, "twilio").await, "connected");
    assert_eq!(house.state(a, "vapi").await, "connected");
    assert_eq!(house.state(b, "vapi").await, "not_connected");
    let (_, claimed) = house.get(a, &format!("/api/assistants/{ASSISTANT}")).await;
    assert_eq!(
        (&claimed["state"], &claimed["role"]),
        (&json!("live"), &json!("inbound"))
    );
    assert_eq!(house.get(b, &format!("/api/assistants/{FOREIGN}")).await.0, 404);

    let (_, again) = house.import(source, &["--apply"]);
    for line in [
        "it is there already",
        "(row 2): it is connected here already",
        "(row 3): it is connected here already",
        "(row 4): it is claimed here already",
    ] {
        assert!(again.contains(line), "{line}:\n{again}");
    }
    let (_, overwritten) = house.import(source, &["--apply", "--overwrite"]);
    assert!(overwritten.contains("(row 2): connected"), "{overwritten}");
    assert_eq!(
        std::fs::read_to_string(&path).expect("there"),
        text,
        "the source is only read"
    );
}

#[tokio::test]
async fn a_table_in_csv_and_a_database_say_the_same() {
    let house = House::start().await;
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let org = OrgId::generate();
    let value = sealed(0x0b, &json!({ "accountSid": SID, "authToken": TOKEN }));
    let csv = format!("org_id,provider,encrypted_config,is_active\n{org},twilio,{value},true\n");
    let path = house.file("rows.csv", &csv);
    let (code, shown) = house.import(path.to_str().expect("UTF-8"), &[]);
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains("would be connected with account_sid, auth_token"),
        "{shown}"
    );

    // A schema beside ours, as the earlier system named its tables; read by a login that may only
    // read.
    let mut owner = database.connect().await;
    let schema = format!(
        "CREATE SCHEMA earlier; SET search_path TO earlier; \
         CREATE TABLE org_credentials (id serial, org_id uuid, provider text, encrypted_config text, \
         is_active boolean); \
         CREATE TABLE assistant_org_mapping (vapi_assistant_id text, org_id uuid); \
         INSERT INTO org_credentials (org_id, provider, encrypted_config, is_active) \
         VALUES ('{org}', 'twilio', '{value}', true); \
         INSERT INTO assistant_org_mapping VALUES ('{ASSISTANT}', '{org}')"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(schema))
        .execute(&mut owner)
        .await
        .expect("made");
    let url = format!("{}?options=-c%20search_path=earlier", database.url());
    let (code, shown) = house.import(&url, &[]);
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains("(row 1): would be connected with account_sid, auth_token"),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("assistant {ASSISTANT} of {org} (row 2): would be claimed")),
        "{shown}"
    );
    let (code, _) = house.import(&url, &["--apply"]);
    assert_eq!(code, 1, "the assistant has no key that reads it");
    assert_eq!(house.state(org, "twilio").await, "connected");
    let left: (i64, i64) = sqlx::query_as(
        "SELECT count(*), (SELECT count(*) FROM earlier.assistant_org_mapping) \
        FROM earlier.org_credentials",
    )
    .fetch_one(&mut owner)
    .await
    .expect("there");
    assert_eq!(left, (1, 1));
}

#[tokio::test]
async fn a_wrong_key_or_file_is_shown_before_anything_is_done() {
    let house = House::start().await;
    house.file("key", "short");
    let path = house.file("rows.jsonl", "{}");
    let (code, words) = house.import(path.to_str().expect("UTF-8"), &["--apply"]);
    assert_eq!(code, 1);
    assert!(
        words.contains("holds no key") && words.contains("64 hex characters"),
        "{words}"
    );
    house.file("key", &"0b".repeat(32));
    let absent = house.files.path().join("absent");
    let (code, words) = house.import(absent.to_str().expect("UTF-8"), &["--apply"]);
    assert_eq!(code, 1);
    assert!(words.contains("cannot read"), "{words}");
}
