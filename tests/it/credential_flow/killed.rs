//! A process that is killed after Vapi has made an assistant and before a row knows its id.

use super::assistants::{KEY, front_desk};
use crate::support::{
    app::TestApp,
    client,
    dev::Directory,
    postgres::PostgresDatabase,
    serve::{Serve, token},
};
use hookswitch::domain::{Clock, OrgId, Provider, SystemClock};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::os::unix::process::ExitStatusExt;

const INBOUND: &str = "/api/assistants/inbound";
const KEPT: &str = "/api/managed-assistants/inbound";

/// A stand-in for Vapi, and the settings of processes that use it.
struct Setup {
    vapi: TestApp,
    settings: Vec<(&'static str, String)>,
    database: Option<PostgresDatabase>,
}

impl Setup {
    async fn new(database: Option<PostgresDatabase>) -> Self {
        let vapi = TestApp::builder().admin().provider_sandbox().start().await;
        let mut settings = vec![
            ("HOOKSWITCH_VAPI_BASE_URL", vapi.settings.provider.vapi_base_url.clone()),
            ("HOOKSWITCH_PUBLIC_URL", "https://hooks.example.com".to_owned()),
        ];
        settings.extend(
            database
                .as_ref()
                .map(|database| ("HOOKSWITCH_DATABASE_URL", database.url())),
        );
        Self {
            vapi,
            settings,
            database,
        }
    }

    /// A process that is killed when Vapi has answered the first time that an assistant is made.
    async fn start_to_be_killed(&self) -> Serve {
        let kill = ("TEST_KILL_AT", "assistant_made:1".to_owned());
        let settings = [self.settings.clone(), vec![kill]].concat();
        let serve = if self.database.is_some() {
            Serve::start_in(Directory::new(), &settings)
        } else {
            Serve::spawn(&settings)
        };
        serve.is_ready(200).await;
        serve
    }

    async fn start(&self, directory: Directory) -> Serve {
        let serve = Serve::start_in(directory, &self.settings);
        serve.is_ready(200).await;
        serve
    }

    /// Two minutes go by for the lease of the process that is gone.
    async fn lease_ends(&self, serve: &Serve) {
        const END: &str = "UPDATE leases SET lease_until = 0 WHERE name = 'assistant:inbound'";
        let ended = if let Some(database) = &self.database {
            let mut owner = database.connect().await;
            let done = sqlx::query(END).execute(&mut owner).await;
            done.expect("ended").rows_affected()
        } else {
            let path = serve.directory().join("store.db");
            let options = SqliteConnectOptions::new().filename(&path);
            let mut files = SqliteConnection::connect_with(&options).await.expect("opens");
            let done = sqlx::query(END).execute(&mut files).await;
            done.expect("ended").rows_affected()
        };
        assert_eq!(ended, 1, "the killed process held the lease");
    }

    fn made(&self) -> Vec<Value> {
        self.vapi.providers().assistants()
    }
}

/// Status and body; `None` where the process died over it.
async fn ask(serve: &Serve, org: Option<OrgId>, method: Method, path: &str, body: &Value) -> Option<(u16, Value)> {
    let request = client().request(method, serve.url(1, path)).bearer_auth(token(org));
    let request = if body.is_null() { request } else { request.json(body) };
    let answer = request.send().await.ok()?;
    Some((answer.status().as_u16(), answer.json().await.ok()?))
}

async fn expect(serve: &Serve, org: Option<OrgId>, asked: (Method, &str, Value), status: u16) -> Value {
    let (method, path, body) = asked;
    let answer = ask(serve, org, method, path, &body).await;
    let (found, answer) = answer.unwrap_or_else(|| panic!("{path} is not answered: {}", serve.log()));
    assert_eq!(found, status, "{path}: {answer}");
    answer
}

/// An organisation with a key for Vapi, whose first assistant costs the process its life.
async fn killed_while_making(place: &Setup, serve: &mut Serve) -> OrgId {
    let new = json!({ "name": "one" });
    let made = expect(serve, None, (Method::POST, "/operator/organizations", new), 201).await;
    let org: OrgId = made["id"].as_str().expect("an id").parse().expect("an id");
    let key = (Method::POST, "/api/integrations/vapi", json!({ "api_key": KEY }));
    expect(serve, Some(org), key, 200).await;
    let answer = ask(serve, Some(org), Method::PUT, INBOUND, &front_desk()).await;
    assert_eq!(answer, None, "it lived on: {}", serve.log());
    assert_eq!(serve.ended().await.0.signal(), Some(9), "{}", serve.log());
    assert_eq!(place.made().len(), 1, "Vapi has made it");
    org
}

/// Asked again, a living process adopts the assistant, and it is the one that leads here.
async fn is_adopted_by(place: &Setup, serve: &Serve, org: OrgId) {
    let made = place.made().remove(0);
    let kept = expect(serve, Some(org), (Method::GET, KEPT, Value::Null), 200).await;
    assert_eq!(
        (&kept["state"], &kept["assistant_id"]),
        (&json!("making"), &Value::Null)
    );
    // While the lease of the killed process lasts, nobody else makes anything.
    let put = || (Method::PUT, INBOUND, front_desk());
    expect(serve, Some(org), put(), 409).await;
    place.lease_ends(serve).await;
    for _ in 0..2 {
        let kept = expect(serve, Some(org), put(), 200).await;
        assert_eq!(
            (&kept["state"], &kept["assistant_id"]),
            (&json!("in_step"), &made["id"])
        );
    }
    assert_eq!(place.made(), std::slice::from_ref(&made), "exactly that one, unchanged");
    let sent = place.vapi.providers().requests(Provider::Vapi);
    let writes: Vec<_> = sent.iter().filter(|one| one.method != "GET").collect();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(place.vapi.providers().violations(), []);

    let path = format!("/api/assistants/{}", made["id"].as_str().expect("an id"));
    let claim = expect(serve, Some(org), (Method::GET, &path, Value::Null), 200).await;
    assert_eq!(
        (&claim["state"], &claim["role"], &claim["proof"]),
        (&json!("live"), &json!("inbound"), &json!("made_by_us"))
    );
    // Its webhooks come with the secret that the killed process gave to Vapi.
    let server = &made["server"];
    let url = server["url"].as_str().expect("a URL");
    let path = url.strip_prefix("https://hooks.example.com").expect("our URL");
    let event = json!({ "message": {
        "type": "status-update", "status": "ringing", "timestamp": SystemClock.now().as_micros() / 1000,
        "call": { "id": "call-1", "assistantId": made["id"] },
    } });
    let secret = server["headers"]["X-Vapi-Secret"].as_str().expect("a secret");
    let webhook = client()
        .post(serve.url(0, path))
        .header("x-vapi-secret", secret)
        .json(&event);
    assert_eq!(
        webhook.send().await.expect("an answer").status(),
        200,
        "{}",
        serve.log()
    );
}

#[tokio::test]
async fn an_assistant_whose_process_was_killed_before_its_record_is_adopted_after_the_restart() {
    let place = Setup::new(None).await;
    let mut killed = place.start_to_be_killed().await;
    let org = killed_while_making(&place, &mut killed).await;
    let serve = place.start(killed.into_directory()).await;
    is_adopted_by(&place, &serve, org).await;
}

#[tokio::test]
async fn an_assistant_whose_process_was_killed_before_its_record_is_adopted_by_the_other_instance() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let place = Setup::new(Some(database)).await;
    let (mut killed, other) = (place.start_to_be_killed().await, place.start(Directory::new()).await);
    let org = killed_while_making(&place, &mut killed).await;
    is_adopted_by(&place, &other, org).await;
}
