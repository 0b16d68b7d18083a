//! `hookswitch doctor` as a process: what it prints, in both forms, and its exit code.

use hookswitch::{
    domain::{Clock, ManualClock, SystemClock},
    store,
};
use std::{
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

/// Without any setting of the environment that runs the tests.
fn doctor(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookswitch"));
    command.arg("doctor").args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HOOKSWITCH_")) {
        command.env_remove(name);
    }
    command.env_remove("DATABASE_URL").env_remove("ENCRYPTION_KEY");
    command.envs(settings.iter().copied()).output().expect("it runs")
}

/// The checks of the JSON form: name, status and cure.
fn checks(output: &Output) -> Vec<(String, String, String)> {
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |check: &serde_json::Value, field: &str| check[field].as_str().expect("a text").to_owned();
    let checks = report["checks"].as_array().expect("an array");
    checks
        .iter()
        .map(|check| (text(check, "check"), text(check, "status"), text(check, "cure")))
        .collect()
}

fn status_of(output: &Output, name: &str) -> String {
    let found = checks(output).into_iter().find(|(check, ..)| check == name);
    found.unwrap_or_else(|| panic!("{name} is missing in {output:?}")).1
}

#[test]
fn a_bare_environment_fails_with_a_cure_for_each_objection() {
    let output = doctor(&["--format", "json"], &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for (check, status, cure) in checks(&output) {
        assert_eq!(status == "ok", cure.is_empty(), "{check}");
    }
    for check in ["keys", "tokens", "database"] {
        assert_eq!(status_of(&output, check), "fail", "{check}");
    }
}

#[test]
fn wrong_settings_are_all_named() {
    let output = doctor(
        &[],
        &[("HOOKSWITCH_QUEUE_URI", "x"), ("HOOKSWITCH_BODY_BYTES_MAX", "many")],
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("HOOKSWITCH_QUEUE_URI") && text.contains("HOOKSWITCH_BODY_BYTES_MAX"),
        "{text}"
    );
}

#[test]
fn a_look_creates_nothing() {
    let place = std::env::temp_dir().join(format!("hookswitch-doctor-{}", uuid::Uuid::now_v7()));
    let queue = format!("embedded:{}", place.join("queue").display());
    let store = format!("sqlite:{}", place.join("store.db").display());
    let settings = [("HOOKSWITCH_QUEUE_URL", &*queue), ("HOOKSWITCH_DATABASE_URL", &*store)];
    let output = doctor(&["--format", "json"], &settings);
    assert_eq!(status_of(&output, "queue directory"), "ok");
    assert!(!place.exists(), "{output:?}");
}

/// Each line of the report, as `check status`.
fn shown(output: &Output) -> Vec<String> {
    let lines = checks(output)
        .into_iter()
        .map(|(check, status, _)| format!("{check} {status}"));
    lines.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_nobody_noticed_and_the_clock_are_read_from_each_database() {
    let directory = crate::ledger::Directory::new();
    let file = format!("sqlite:{}", directory.0.join("store.db").display());
    let server = crate::support::postgres::PostgresDatabase::new().await;
    let urls = [
        Some(file),
        server.as_ref().map(crate::support::postgres::PostgresDatabase::url),
    ];
    for url in urls.into_iter().flatten() {
        let long_ago = SystemClock.now() - Duration::from_mins(10);
        let clock = Arc::new(ManualClock::at(long_ago));
        let store = store::create(&url, clock.clone()).await.expect("opens");
        let bench = crate::ledger::suite::Bench { store, clock };
        let settings = [("HOOKSWITCH_DATABASE_URL", &*url)];
        let before = doctor(&["--format", "json"], &settings);
        for check in ["database", "clock", "lease", "leases"] {
            assert_eq!(status_of(&before, check), "ok", "{before:?}");
        }
        bench.leave_one_running().await;
        let after = doctor(&["--format", "json"], &settings);
        assert_eq!(status_of(&after, "leases"), "warn", "{after:?}");
        bench.store.close().await;
    }
}

#[cfg(feature = "rabbitmq")]
mod rabbitmq {
    use super::*;
    use crate::support::amqp::{AmqpPlace, Server, server};
    use hookswitch::queue::{AmqpSettings, EventQueue};

    const CHECKS: [&str; 6] = [
        "rabbitmq broker",
        "rabbitmq version",
        "rabbitmq queues",
        "rabbitmq delivery limit",
        "rabbitmq permissions",
        "rabbitmq message size",
    ];

    fn look(url: &str, prefix: &str, more: &[(&str, &str)]) -> Output {
        let settings = [("HOOKSWITCH_QUEUE_URL", url), ("HOOKSWITCH_AMQP_PREFIX", prefix)];
        doctor(&["--format", "json"], &[&settings[..], more].concat())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn queues_are_judged_before_and_after_a_start_makes_them_and_none_is_made() {
        let Some(place) = AmqpPlace::new(2) else { return };
        let prefix = place.settings().prefix;
        let more = [("HOOKSWITCH_AMQP_QUEUES", "2")];
        for is_made in [false, true] {
            if is_made {
                place.open().await.close().await;
            }
            let output = look(place.url(), &prefix, &more);
            for check in CHECKS {
                assert_eq!(status_of(&output, check), "ok", "{:?}", shown(&output));
            }
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let words = if is_made {
                "all 2 exist"
            } else {
                "2 of 2 do not exist yet"
            };
            assert!(text.contains(words), "{text}");
            for check in ["spool directory", "spool disk", "spool size"] {
                assert_ne!(status_of(&output, check), "", "{:?}", shown(&output));
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_queue_with_another_delivery_limit_fails() {
        let Some(place) = AmqpPlace::new(1) else { return };
        let settings = AmqpSettings {
            delivery_limit: 20,
            ..place.settings()
        };
        let prefix = settings.prefix.clone();
        place.open_at(place.url(), settings).await.close().await;
        let output = look(place.url(), &prefix, &[("HOOKSWITCH_AMQP_QUEUES", "1")]);
        assert_eq!(
            status_of(&output, "rabbitmq delivery limit"),
            "fail",
            "{:?}",
            shown(&output)
        );
        assert_eq!(output.status.code(), Some(1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_user_that_may_not_write_and_a_size_that_is_not_taken_are_told() {
        let Some(broker) = Server::start() else { return };
        broker.ctl(&["add_user", "reader", "secret"]);
        broker.ctl(&["set_permissions", "reader", "^none$", "^none$", ".*"]);
        let address = broker.url.rsplit_once('@').expect("a URL with a user").1;
        let url = format!("amqp://reader:secret@{address}");
        let output = look(&url, "doctor", &[]);
        assert_eq!(
            status_of(&output, "rabbitmq permissions"),
            "fail",
            "{:?}",
            shown(&output)
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("may not configure, write\""), "{text}");

        broker.ctl(&["eval", "application:set_env(rabbit, max_message_size, 1048576)."]);
        let output = look(&broker.url, "doctor", &[]);
        assert_eq!(
            status_of(&output, "rabbitmq message size"),
            "fail",
            "{:?}",
            shown(&output)
        );
        assert_eq!(status_of(&output, "rabbitmq permissions"), "ok", "{:?}", shown(&output));
    }

    #[test]
    fn a_broker_that_is_away_or_refuses_the_password_is_told_with_the_setting() {
        let output = look("amqp://user:secret@127.0.0.1:1", "doctor", &[]);
        assert_eq!(status_of(&output, "rabbitmq broker"), "fail");
        let Some(url) = server() else { return };
        let address = url.rsplit_once('@').expect("a URL with a user").1;
        let output = look(&format!("amqp://nobody:secret@{address}"), "doctor", &[]);
        assert_eq!(status_of(&output, "rabbitmq broker"), "fail");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains("HOOKSWITCH_QUEUE_URL") && !text.contains("secret"),
            "{text}"
        );
    }
}

#[cfg(feature = "kafka")]
mod kafka {
    use super::*;
    use crate::support::kafka::KafkaTopic;

    fn settings(topic: &KafkaTopic) -> Vec<(&'static str, &str)> {
        vec![
            ("HOOKSWITCH_QUEUE_URL", &topic.url),
            ("HOOKSWITCH_KAFKA_TOPIC", &topic.settings.topic),
            ("HOOKSWITCH_KAFKA_GROUP", &topic.settings.group),
        ]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_topic_with_one_replica_fails_outside_of_development() {
        let Some(topic) = KafkaTopic::new(1) else { return };
        topic.create(&[("retention.ms", "604800000")]).await;
        let output = doctor(&["--format", "json"], &settings(&topic));
        assert_eq!(status_of(&output, "kafka brokers"), "ok");
        assert_eq!(status_of(&output, "kafka in-sync replicas"), "fail");
        assert_eq!(status_of(&output, "kafka retention"), "ok");
        let output = doctor(&["--dev", "--format", "json"], &settings(&topic));
        assert_eq!(status_of(&output, "kafka in-sync replicas"), "warn");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_wrong_setting_of_a_topic_is_read_from_the_broker() {
        let Some(topic) = KafkaTopic::new(1) else { return };
        topic
            .create(&[
                ("retention.ms", "3600000"),
                ("unclean.leader.election.enable", "true"),
                ("max.message.bytes", "60000"),
            ])
            .await;
        let output = doctor(&["--format", "json"], &settings(&topic));
        for (check, status) in [
            ("kafka retention", "fail"),
            ("kafka leader election", "fail"),
            ("kafka message size", "warn"),
            ("kafka group", "ok"),
        ] {
            assert_eq!(status_of(&output, check), status, "{check}");
        }
    }

    #[test]
    fn a_broker_that_is_away_is_said_with_the_setting() {
        let output = doctor(
            &["--format", "json"],
            &[("HOOKSWITCH_QUEUE_URL", "kafka://127.0.0.1:1")],
        );
        assert_eq!(status_of(&output, "kafka brokers"), "fail");
    }
}
