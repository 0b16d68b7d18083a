//! How a process starts: on which database, with which settings, and its words when it does not.

use crate::{
    faults::proxy::{Mode, Proxy},
    support::{
        dev::{Directory, run},
        postgres::PostgresDatabase,
        serve::{KEY, Serve},
        until,
    },
};
use rustix::process::Signal;
use serde_json::Value;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{process::Output, time::Duration};
use tokio_util::sync::CancellationToken;

const NEWER: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES \
    (9999, 'of a newer release', true, 'x', 0)";

fn text(output: &Output) -> (String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn serve_makes_no_database_out_of_a_mistyped_path() {
    let directory = Directory::new();
    let mut serve = Serve::start_in(directory, &[]);
    let (status, _) = serve.ended().await;
    let log = serve.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let path = serve.directory().join("store.db");
    assert!(
        log.contains(&format!("there is no database at {}", path.display())) && log.contains("hookswitch migrate"),
        "{log}"
    );
    assert!(!path.exists(), "a refused start leaves no database behind");
}

#[tokio::test]
async fn the_ready_line_says_which_database_and_queue_and_how_much_is_in_them() {
    let mut serve = Serve::spawn(&[]);
    serve.is_ready(200).await;
    let log = serve.log();
    let line = log.lines().find(|line| line.contains("is ready")).expect("a line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    let place = serve.directory();
    assert_eq!(line["database"], place.join("store.db").to_str().expect("UTF-8"));
    assert_eq!(line["queue"], format!("embedded:{}", place.join("queue").display()));
    assert_eq!(
        (&line["organisations"], &line["routes"]),
        (&0.into(), &0.into()),
        "{line}"
    );
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(line["connections_max"], 10_000, "{line}");
    assert!(line["files_max"].as_u64().is_some_and(|files| files > 0), "{line}");
    serve.signal(Signal::TERM);
    assert_eq!(serve.ended().await.0.code(), Some(0), "{}", serve.log());
}

#[tokio::test]
async fn a_start_below_the_limit_of_the_disk_says_so() {
    let serve = Serve::spawn(&[("HOOKSWITCH_DISK_FREE_BYTES_MIN", (1_u64 << 60).to_string())]);
    let line = until("the line", || async {
        let log = serve.log();
        log.lines().find(|line| line.contains("nearly full")).map(str::to_owned)
    })
    .await;
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (&line["level"], &line["free_bytes_min"]),
        (&"WARN".into(), &(1_u64 << 60).into())
    );
}

#[tokio::test]
async fn a_newer_migration_stops_no_older_release_on_sqlite_and_the_status_shows_it() {
    let directory = Directory::new();
    let path = directory.path().join("store.db");
    let url = format!("sqlite:{}", path.display());
    let settings = [("HOOKSWITCH_DATABASE_URL", url.as_str())];
    assert!(run(&["migrate"], &settings).status.success());
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path))
        .await
        .expect("opens");
    sqlx::raw_sql(NEWER)
        .execute(&mut connection)
        .await
        .expect("a newer row");
    connection.close().await.expect("closed");
    let status = run(&["migrate", "--status"], &settings);
    assert!(status.status.success());
    assert!(text(&status).0.contains("newer    9999"), "{status:?}");
    assert!(run(&["migrate"], &settings).status.success(), "nothing is pending");
    let serve = Serve::start_in(directory, &[]);
    serve.is_ready(200).await;
}

#[tokio::test]
async fn a_newer_migration_stops_no_older_release_on_postgres_and_the_status_shows_it() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let mut owner = database.connect().await;
    sqlx::raw_sql(NEWER).execute(&mut owner).await.expect("a newer row");
    let url = database.url();
    let settings = [("HOOKSWITCH_DATABASE_URL", url.as_str())];
    let status = run(&["migrate", "--status"], &settings);
    assert!(
        status.status.success() && text(&status).0.contains("newer    9999"),
        "{status:?}"
    );
    assert!(run(&["migrate"], &settings).status.success(), "nothing is pending");
    let serve = Serve::spawn(&[("HOOKSWITCH_DATABASE_URL", url.clone())]);
    serve.is_ready(200).await;
}

#[test]
fn roles_that_would_share_an_embedded_backend_are_refused_with_the_cure() {
    let postgres = "postgres://user:password@127.0.0.1:1/none";
    let key = ("HOOKSWITCH_KEYRING", KEY);
    let jwt = ("HOOKSWITCH_JWT_SECRET", "a secret of thirty-two characters");
    for (roles, database, named) in [
        (
            "worker",
            "sqlite:nowhere.db",
            ["HOOKSWITCH_DATABASE_URL", "HOOKSWITCH_QUEUE_URL"].as_slice(),
        ),
        ("receiver,admin", postgres, &["HOOKSWITCH_QUEUE_URL"]),
        ("admin", "sqlite:nowhere.db", &["HOOKSWITCH_DATABASE_URL"]),
    ] {
        let settings = [key, jwt, ("HOOKSWITCH_DATABASE_URL", database)];
        let refused = run(&["serve", "--role", roles], &settings);
        let (_, log) = text(&refused);
        assert_eq!(refused.status.code(), Some(1), "{log}");
        assert!(log.contains("leave --role out"), "{log}");
        for setting in ["HOOKSWITCH_DATABASE_URL", "HOOKSWITCH_QUEUE_URL"] {
            assert_eq!(log.contains(setting), named.contains(&setting), "{roles}: {log}");
        }
    }
}

#[tokio::test]
async fn serve_waits_for_a_database_that_is_away_and_says_so() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let guard = CancellationToken::new();
    let proxy = Proxy::start(database.address(), guard.clone()).await;
    proxy.set(Mode::Reset);
    let url = database.url_at(proxy.address());
    let settings = [("HOOKSWITCH_DATABASE_URL", url)];
    let serve = Serve::spawn(&settings);
    let body = serve.is_ready(503).await;
    assert!(body.to_string().contains("starting"), "{body}");
    until("a line about the database", || async {
        let log = serve.log();
        (log.contains("does not answer") && log.contains("tries again")).then_some(())
    })
    .await;
    assert!(!serve.log().contains("hookswitch_owner:"), "no password in the log");
    // A process that waits is stopped as any other.
    let mut stopped = Serve::spawn(&settings);
    stopped.is_ready(503).await;
    stopped.signal(Signal::TERM);
    let (status, took) = stopped.ended().await;
    assert_eq!(status.code(), Some(0), "{}", stopped.log());
    assert!(took < Duration::from_secs(3), "{took:?}");
    proxy.set(Mode::Pass);
    serve.is_ready(200).await;
    guard.cancel();
}

#[tokio::test]
async fn the_cause_of_a_database_that_refuses_reaches_the_log() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let serve = Serve::spawn(&[("HOOKSWITCH_DATABASE_URL", database.url())]);
    serve.is_ready(200).await;
    database.set_read_only().await;
    let why = "in a read-only transaction";
    until(why, || async { serve.log().contains(why).then_some(()) }).await;
}

/// Faults that one room finds by itself are reported together with all others.
#[test]
fn all_faults_of_the_settings_are_told_at_once() {
    let wrong = [
        ("HOOKSWITCH_LOG_FORMAT", "xml"),
        ("HOOKSWITCH_LOG_LEVEL", "loud"),
        ("HOOKSWITCH_NO_SUCH_SETTING", "1"),
        ("HOOKSWITCH_JWT_SECRET", "short"),
        ("HOOKSWITCH_PUBLIC_URL", "hooks.example.com/path"),
        ("HOOKSWITCH_TRUSTED_PROXIES", "everyone"),
        ("HOOKSWITCH_DATABASE_URL", "oracle:x"),
        ("HOOKSWITCH_KEYRING", "no key"),
        ("HOOKSWITCH_ADMIN_ADDRESS", "foo"),
        ("HOOKSWITCH_REQUESTS_MAX", "0"),
        ("HOOKSWITCH_BACKOFF_SECONDS_MIN", "7200"),
        ("HOOKSWITCH_LEASE_SECONDS", "10"),
        ("HOOKSWITCH_TWILIO_BASE_URL", "nowhere"),
    ];
    for arguments in [&["serve", "--check"][..], &["serve"]] {
        let output = run(arguments, &wrong);
        let (_, message) = text(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        for (name, _) in wrong {
            assert!(
                message.contains(name),
                "{name} is not message by {arguments:?}: {message}"
            );
        }
        assert!(!message.contains("no key,"), "{message}");
    }
}

#[test]
fn settings_that_can_be_used_are_said_to_be() {
    let output = run(
        &["serve", "--check"],
        &[
            ("HOOKSWITCH_KEYRING", KEY),
            ("HOOKSWITCH_JWT_SECRET", "a secret of thirty-two characters"),
        ],
    );
    assert!(output.status.success(), "{output:?}");
}

/// An attempt begins only where its lease outlasts it: with a shorter one nothing would be sent.
#[test]
fn a_lease_that_no_exchange_fits_in_is_a_fault() {
    let at = |lease: &str| {
        run(
            &["serve", "--check"],
            &[
                ("HOOKSWITCH_KEYRING", KEY),
                ("HOOKSWITCH_JWT_SECRET", "a secret of thirty-two characters"),
                ("HOOKSWITCH_ATTEMPT_SECONDS_MAX", "20"),
                ("HOOKSWITCH_LEASE_SECONDS", lease),
            ],
        )
    };
    assert!(at("21").status.success());
    let refused = at("20.9");
    assert!(!refused.status.success());
    assert!(text(&refused).1.contains("at least 21 seconds"), "{refused:?}");
}

/// A sender that is answered before the broker and the spool had their times gets 503 for an event
/// that the spool would have taken.
#[test]
fn no_answer_may_come_before_the_spool_had_its_time() {
    let at = |queue: &str, turn: &str, publish: &str| {
        run(
            &["serve", "--check"],
            &[
                ("HOOKSWITCH_KEYRING", KEY),
                ("HOOKSWITCH_JWT_SECRET", "a secret of thirty-two characters"),
                ("HOOKSWITCH_QUEUE_URL", queue),
                ("HOOKSWITCH_QUEUE_CONFIRM_SECONDS_MAX", "2"),
                ("HOOKSWITCH_TURN_SECONDS_MAX", turn),
                ("HOOKSWITCH_PUBLISH_SECONDS_MAX", publish),
            ],
        )
    };
    let (broker, embedded) = ("kafka://127.0.0.1:1", "embedded:queue");
    assert!(at(broker, "3.25", "3.25").status.success());
    assert!(at(embedded, "1", "1").status.success(), "it has no spool");
    for (turn, publish, name) in [
        ("3.2", "5", "HOOKSWITCH_TURN_SECONDS_MAX"),
        ("4", "3.2", "HOOKSWITCH_PUBLISH_SECONDS_MAX"),
    ] {
        let refused = at(broker, turn, publish);
        assert!(!refused.status.success());
        let (_, message) = text(&refused);
        assert!(message.contains(name) && message.contains("3.25"), "{message}");
    }
}

#[test]
fn fatal_errors_are_lines_of_the_log_format() {
    let output = run(&["serve"], &[("HOOKSWITCH_KEYRING", "no key")]);
    let (_, message) = text(&output);
    assert!(!message.is_empty());
    for line in message.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        assert_eq!(line["level"], "ERROR");
    }
}
