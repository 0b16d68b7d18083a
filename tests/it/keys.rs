//! A change of the key-encryption key on processes that run: over SQLite and over Postgres.

use crate::support::{
    app::ingress::{sign, vapi_body},
    client,
    dev::{Directory, run},
    postgres::PostgresDatabase,
    serve::{JWT, KEY, OPERATOR_JWT, Serve, token},
};
use hookswitch::domain::{Clock, OrgId, SystemClock};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    process::Output,
    time::{Duration, Instant},
};

const FRESH: &str = "a7b1c2d3e4f5061728394a5b6c7d8e9fa7b1c2d3e4f5061728394a5b6c7d8e9f";

async fn post(serve: &Serve, token: &str, path: &str, body: Value) -> Value {
    let answer = client()
        .post(serve.url(1, path))
        .bearer_auth(token)
        .json(&body)
        .send()
        .await
        .expect("an answer");
    assert!(answer.status().is_success(), "{path}: {answer:?}");
    answer.json().await.expect("JSON")
}

/// An organisation with a secret that only its data key opens.
async fn organisation(serve: &Serve) -> OrgId {
    let operator = token(None);
    let made = post(serve, &operator, "/operator/organizations", json!({ "name": "one" })).await;
    let org: OrgId = made["id"].as_str().expect("an id").parse().expect("an id");
    let owner = token(Some(org));
    post(
        serve,
        &owner,
        "/api/endpoints",
        json!({ "source": "vapi", "name": "calls" }),
    )
    .await;
    org
}

fn keys(serve: &Serve, arguments: &[&str]) -> Output {
    let url = serve.url(1, "");
    let mut all = vec!["keys"];
    all.extend_from_slice(arguments);
    all.extend_from_slice(&["--url", &url]);
    run(
        &all,
        &[
            ("HOOKSWITCH_OPERATOR_JWT_SECRET", OPERATOR_JWT),
            ("HOOKSWITCH_JWT_SECRET", JWT),
        ],
    )
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// The names of the keys of a ring, as the command prints them.
fn names(ring: &str) -> Vec<String> {
    let output = run(&["keys", "ids"], &[("HOOKSWITCH_KEYRING", ring)]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(!text.contains(&ring[..16]), "a name is no part of a key: {text}");
    text.lines().map(str::to_owned).collect()
}

fn ring(keys: &[&str]) -> (&'static str, String) {
    ("HOOKSWITCH_KEYRING", keys.join(","))
}

async fn stop(serve: &mut Serve) {
    serve.signal(Signal::TERM);
    assert_eq!(serve.ended().await.0.code(), Some(0), "{}", serve.log());
}

/// The next process on the same files.
async fn again(serve: Serve, keys: &[&str]) -> Serve {
    again_on(None, serve, keys).await
}

/// The next process on the same files, or on the same database.
async fn again_on(database: Option<&PostgresDatabase>, mut serve: Serve, keys: &[&str]) -> Serve {
    stop(&mut serve).await;
    start_on(database, serve.into_directory(), keys).await
}

async fn start_on(database: Option<&PostgresDatabase>, directory: Directory, keys: &[&str]) -> Serve {
    let mut settings = vec![ring(keys)];
    settings.extend(database.map(|database| ("HOOKSWITCH_DATABASE_URL", database.url())));
    let serve = Serve::start_in(directory, &settings);
    serve.is_ready(200).await;
    serve
}

#[tokio::test]
async fn a_rotation_is_finished_and_the_old_key_leaves_the_ring() {
    let serve = Serve::spawn(&[ring(&[KEY])]);
    serve.is_ready(200).await;
    organisation(&serve).await;
    organisation(&serve).await;
    let [fresh, old] = &names(&format!("{FRESH},{KEY}"))[..] else {
        panic!("two names")
    };

    // The fresh key stands first, and seals nothing yet.
    let serve = again(serve, &[FRESH, KEY]).await;
    let before = said(&keys(&serve, &["status"]));
    assert!(before.contains(&format!("{old}  primary")), "{before}");
    assert!(before.contains(&format!("{fresh}  may leave")), "{before}");

    let rotated = keys(&serve, &["rotate"]);
    let words = said(&rotated);
    assert!(rotated.status.success(), "{words}");
    assert!(words.contains(&format!("{fresh} is primary")), "{words}");
    assert!(words.contains("2 data keys wrapped again"), "{words}");
    assert!(words.contains(&format!("{old}  may leave the ring")), "{words}");
    let again_rotated = said(&keys(&serve, &["rotate"]));
    assert!(again_rotated.contains("0 data keys wrapped again"), "{again_rotated}");

    // Without the old key everything opens; without the primary key nothing starts.
    let serve = again(serve, &[FRESH]).await;
    let after = keys(&serve, &["status"]);
    assert!(after.status.success(), "{}", said(&after));
    assert!(!said(&after).contains(&**old), "{}", said(&after));
    let mut serve = serve;
    stop(&mut serve).await;
    let mut wrong = Serve::start_in(serve.into_directory(), &[ring(&[KEY])]);
    assert_eq!(wrong.ended().await.0.code(), Some(1));
    assert!(wrong.log().contains(&**fresh), "{}", wrong.log());
}

#[tokio::test]
async fn a_data_key_that_does_not_open_is_set_aside_and_the_rest_goes_on() {
    let serve = Serve::spawn(&[ring(&[KEY])]);
    serve.is_ready(200).await;
    let damaged = organisation(&serve).await;
    for _ in 0..3 {
        organisation(&serve).await;
    }
    let mut serve = serve;
    stop(&mut serve).await;
    let path = serve.directory().join("store.db");
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path))
        .await
        .expect("opens");
    sqlx::query("UPDATE data_keys SET wrapped = zeroblob(61) WHERE org_id = $1")
        .bind(damaged.as_uuid().as_bytes().to_vec())
        .execute(&mut connection)
        .await
        .expect("damaged");
    connection.close().await.expect("closed");
    let serve = Serve::start_in(serve.into_directory(), &[ring(&[FRESH, KEY])]);
    serve.is_ready(200).await;
    let old = &names(KEY)[0];

    let rotated = keys(&serve, &["rotate"]);
    let words = said(&rotated);
    assert_eq!(rotated.status.code(), Some(1), "{words}");
    assert!(words.contains("3 data keys wrapped again"), "{words}");
    for place in [words, said(&keys(&serve, &["status"]))] {
        assert!(
            place.contains(&format!(
                "does not open: data key 1 of organisation {damaged}, under the key {old}"
            )),
            "{place}"
        );
        assert!(place.contains(&format!("{old}  has to stay")), "{place}");
    }
}

#[tokio::test]
async fn no_key_becomes_primary_before_every_instance_of_postgres_holds_it() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let url = ("HOOKSWITCH_DATABASE_URL", database.url());
    let start = |keys: &[&str]| Serve::start_in(Directory::new(), &[url.clone(), ring(keys)]);
    let mut two = start(&[KEY]);
    two.is_ready(200).await;
    let one = start(&[FRESH, KEY]);
    one.is_ready(200).await;
    for _ in 0..4 {
        organisation(&two).await;
    }
    let [fresh, old] = &names(&format!("{FRESH},{KEY}"))[..] else {
        panic!("two names")
    };
    let refused = keys(&one, &["rotate", "--key", fresh]);
    let words = said(&refused);
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains("1 live instances do not hold the key"), "{words}");
    assert!(said(&keys(&one, &["status"])).contains(&format!("{old}  primary")));

    stop(&mut two).await;
    let two = start(&[KEY, FRESH]);
    two.is_ready(200).await;
    let rotated = keys(&two, &["rotate", "--key", fresh]);
    assert!(rotated.status.success(), "{}", said(&rotated));
    for serve in [&one, &two] {
        let status = said(&keys(serve, &["status"]));
        assert_eq!(status.matches(&format!("seals with {fresh}")).count(), 2, "{status}");
        assert!(status.contains(&format!("{old}  may leave the ring")), "{status}");
    }
    // Both go on, each with the data keys that the other made.
    organisation(&one).await;
    organisation(&two).await;
    let mut owner = database.connect().await;
    let under: Vec<String> = sqlx::query_scalar("SELECT DISTINCT kek_id FROM data_keys")
        .fetch_all(&mut owner)
        .await
        .expect("keys");
    assert_eq!(under, std::slice::from_ref(fresh));
}

/// An endpoint, and its secret, which only the data key of its organisation opens.
struct Sealed {
    endpoint: String,
    secret: String,
}

impl Sealed {
    /// `None` where no process answers.
    async fn make(client: &reqwest::Client, url: String, org: OrgId) -> Option<Self> {
        let owner = token(Some(org));
        let new = json!({ "source": "vapi", "name": "calls" });
        let answer = client.post(url).bearer_auth(owner).json(&new).send().await.ok()?;
        assert_eq!(answer.status(), 201);
        let made: Value = answer.json().await.ok()?;
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        Some(Self {
            endpoint: text("id"),
            secret: text("secret"),
        })
    }

    /// A webhook that only the opened secret verifies.
    async fn receive(&self, client: &reqwest::Client, serve: &Serve) -> u16 {
        let path = format!("/webhooks/vapi/{}", self.endpoint);
        let (body, secret) = (vapi_body("asst"), self.secret.clone().into());
        let headers = sign(&secret, &path, body.as_bytes(), SystemClock.now());
        let post = client
            .post(serve.url(0, &path))
            .header("content-type", "application/json");
        let signed = headers
            .into_iter()
            .fold(post, |post, (name, value)| post.header(name, value));
        signed.body(body).send().await.expect("an answer").status().as_u16()
    }
}

/// Data keys that are not wrapped with this key, as the database has them.
async fn under_others(database: Option<&PostgresDatabase>, serve: &Serve, key: &str) -> i64 {
    const COUNT: &str = "SELECT count(*) FROM data_keys WHERE kek_id <> $1";
    if let Some(database) = database {
        let mut owner = database.connect().await;
        return sqlx::query_scalar(COUNT)
            .bind(key)
            .fetch_one(&mut owner)
            .await
            .expect("a count");
    }
    let path = serve.directory().join("store.db");
    let mut files = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path))
        .await
        .expect("opens");
    let count = sqlx::query_scalar(COUNT).bind(key).fetch_one(&mut files).await;
    files.close().await.expect("closed");
    count.expect("a count")
}

/// Killed in the middle, with secrets being sealed all the while: the next process goes on, and
/// everything that was sealed before, between and after opens under the fresh key alone.
async fn a_killed_rotation_is_finished_by_the_next_process(database: Option<&PostgresDatabase>, serve: Serve) {
    // More than two steps of the rotation.
    const ORGANISATIONS: usize = 420;
    let (client, fresh) = (client(), names(FRESH).remove(0));
    let operator = token(None);
    let (mut orgs, mut all) = (Vec::new(), Vec::new());
    for _ in 0..ORGANISATIONS {
        let made = post(&serve, &operator, "/operator/organizations", json!({ "name": "one" })).await;
        let org: OrgId = made["id"].as_str().expect("an id").parse().expect("an id");
        all.push(
            Sealed::make(&client, serve.url(1, "/api/endpoints"), org)
                .await
                .expect("made"),
        );
        orgs.push(org);
    }
    let mut serve = again_on(database, serve, &[FRESH, KEY]).await;
    let load = async {
        let mut made = Vec::new();
        for org in orgs.iter().cycle() {
            match Sealed::make(&client, serve.url(1, "/api/endpoints"), *org).await {
                Some(sealed) => made.push(sealed),
                None => break,
            }
        }
        made
    };
    let rotation = async {
        let first = post(&serve, &operator, "/operator/keys/rotate", json!({})).await;
        assert!(first["left"].as_u64().is_some_and(|left| left > 0), "{first}");
        let next = client
            .post(serve.url(1, "/operator/keys/rotate"))
            .bearer_auth(&operator)
            .json(&json!({ "after": first["next"] }))
            .send();
        // The second step is under way, or was just done: it must not matter.
        let kill = async { serve.signal(Signal::KILL) };
        let _ = tokio::join!(next, kill);
    };
    let (during, ()) = tokio::join!(load, rotation);
    all.extend(during);
    serve.ended().await;
    assert!(
        under_others(database, &serve, &fresh).await > 0,
        "nothing was left of the killed rotation"
    );

    let serve = start_on(database, serve.into_directory(), &[FRESH, KEY]).await;
    let mut rotated = keys(&serve, &["rotate"]);
    // The command gives up while the killed instance still counts as one that runs.
    let end = Instant::now() + Duration::from_mins(3);
    while !rotated.status.success() && Instant::now() < end {
        rotated = keys(&serve, &["rotate"]);
    }
    let words = said(&rotated);
    assert!(rotated.status.success(), "{words}");
    let old = &names(KEY)[0];
    assert!(words.contains(&format!("{old}  may leave the ring")), "{words}");
    let serve = again_on(database, serve, &[FRESH]).await;
    for sealed in &all {
        let status = sealed.receive(&client, &serve).await;
        assert_eq!(
            status,
            200,
            "endpoint {} does not open; {}",
            sealed.endpoint,
            serve.log()
        );
    }
}

#[tokio::test]
async fn a_rotation_that_is_killed_under_load_is_finished_by_the_next_process() {
    let serve = Serve::spawn(&[ring(&[KEY])]);
    serve.is_ready(200).await;
    a_killed_rotation_is_finished_by_the_next_process(None, serve).await;
}

#[tokio::test]
async fn a_rotation_that_is_killed_under_load_is_finished_by_the_next_process_over_postgres() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let serve = start_on(Some(&database), Directory::new(), &[KEY]).await;
    a_killed_rotation_is_finished_by_the_next_process(Some(&database), serve).await;
}

/// The operator's command is gone with the process that it asked. The other one runs all the while,
/// and nobody asks it for anything.
#[tokio::test]
async fn a_rotation_whose_process_was_killed_is_finished_by_a_process_beside_it_over_postgres() {
    // More than two steps of the rotation.
    const ORGANISATIONS: usize = 450;
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let start = || start_on(Some(&database), Directory::new(), &[KEY, FRESH]);
    let (mut one, other) = (start().await, start().await);
    for _ in 0..ORGANISATIONS {
        organisation(&one).await;
    }
    let operator = token(None);
    let [old, fresh] = &names(&format!("{KEY},{FRESH}"))[..] else {
        panic!("two names")
    };
    let step = post(&one, &operator, "/operator/keys/rotate", json!({ "key": fresh })).await;
    one.signal(Signal::KILL);
    one.ended().await;
    assert!(step["left"].as_u64().is_some_and(|left| left > 0), "{step}");
    let end = Instant::now() + Duration::from_mins(3);
    while under_others(Some(&database), &other, fresh).await > 0 {
        assert!(Instant::now() < end, "nobody goes on with it; {}", other.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The killed instance no longer counts as live: the rotation is over, and every secret opens.
    while !other.log().contains("is finished") {
        assert!(Instant::now() < end, "it never ends; {}", other.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status = keys(&other, &["status"]);
    let words = said(&status);
    assert!(status.status.success(), "a data key does not open: {words}");
    assert!(words.contains(&format!("{fresh}  primary")), "{words}");
    assert!(words.contains(&format!("{old}  may leave the ring")), "{words}");
}
