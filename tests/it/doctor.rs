//! `hookswitch doctor` as a process: what it prints, in both forms, and its exit code.

use std::process::{Command, Output};

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
