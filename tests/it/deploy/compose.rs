//! `compose.yaml`, the image and the secrets.

use super::{read, root, yaml};
use crate::support::{dev, serve::Serve};
use hookswitch::config::Settings;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::Path, process::Command};

fn services() -> Map<String, Value> {
    yaml("compose.yaml")["services"].as_object().expect("services").clone()
}

fn ours() -> impl Iterator<Item = (String, Value)> {
    services()
        .into_iter()
        .filter(|(_, service)| service["build"].is_object())
}

fn words(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.map(|word| word.as_str().or(word["source"].as_str()).expect("a word").to_owned())
        .collect()
}

#[test]
fn compose_yaml_keeps_the_schema_of_the_compose_specification() {
    let schema: Value = serde_json::from_str(&read("tests/data/compose/compose-spec.json")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let document = yaml("compose.yaml");
    let faults: Vec<String> = validator
        .iter_errors(&document)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));

    // The schema can fail: a key that is no key, and a value of another type.
    for (key, value) in [("helthcheck", json!({})), ("read_only", json!(["yes"]))] {
        let mut wrong = document.clone();
        wrong["services"]["receiver"][key] = value;
        assert!(!validator.is_valid(&wrong), "{key}");
    }
}

#[test]
fn it_has_every_service_and_each_broker_has_its_profile() {
    let services = services();
    for name in [
        "receiver",
        "worker",
        "admin",
        "migrate",
        "postgres",
        "prometheus",
        "grafana",
    ] {
        assert!(services.contains_key(name), "{name}");
        assert!(services[name]["profiles"].is_null(), "{name} runs whatever the broker");
    }
    for broker in ["rabbitmq", "kafka"] {
        assert_eq!(services[broker]["profiles"], json!([broker]));
        let link = read("deploy/secrets/make");
        assert!(
            link.contains(&format!("queue_url_{broker}")),
            "{broker} has a queue URL"
        );
    }
    for role in ["receiver", "worker", "admin"] {
        assert_eq!(services[role]["command"], json!(["serve", "--role", role]));
    }
    for (name, service) in &services {
        let check = &service["healthcheck"];
        assert!(
            check["test"].is_array() || name == "migrate" && check["disable"] == true,
            "{name} has no health check"
        );
    }
}

#[test]
fn every_image_is_pinned_and_is_the_one_that_the_tests_run_on() {
    let tested = read("scripts/services");
    let kafka = tested
        .lines()
        .find_map(|line| line.strip_prefix("kafka_version="))
        .expect("the version of Kafka");
    for (name, service) in services() {
        let image = service["image"]
            .as_str()
            .unwrap_or_else(|| panic!("{name} has no image"));
        let (repository, tag) = image.split_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        let numbers = tag
            .trim_start_matches('v')
            .split(['.', '-'])
            .filter(|part| part.parse::<u32>().is_ok());
        assert!(numbers.count() >= 2, "{image} moves: name a version");
        match repository {
            "hookswitch" => assert_eq!(tag, env!("CARGO_PKG_VERSION"), "the image is this version's"),
            "postgres" | "rabbitmq" => assert!(tested.contains(image), "scripts/services runs another {repository}"),
            "apache/kafka" => assert_eq!(tag, kafka),
            _ => {}
        }
    }
}

#[test]
fn every_variable_is_a_setting_and_every_secret_is_a_file() {
    let document = yaml("compose.yaml");
    let settings = Settings::all();
    let is_secret = |name: &str| {
        let parts = [
            "PASSWORD",
            "SECRET",
            "TOKEN",
            "KEYRING",
            "DATABASE_URL",
            "QUEUE_URL",
            "_PASS",
        ];
        parts.iter().any(|part| name.contains(part))
    };
    for (name, service) in services() {
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            if let Some(setting) = variable.strip_prefix("HOOKSWITCH_") {
                let setting = format!("HOOKSWITCH_{}", setting.trim_end_matches("_FILE"));
                assert!(settings.iter().any(|known| known.name == setting), "{name}: {variable}");
            }
            if is_secret(variable) {
                let path = value.as_str().unwrap_or_default();
                let secret = path
                    .strip_prefix("/run/secrets/")
                    .unwrap_or_else(|| panic!("{name}: {variable} is a secret: name a file below /run/secrets"));
                assert!(
                    words(&service["secrets"]).contains(&secret.to_owned()),
                    "{name} is not given {secret}"
                );
            }
        }
        for secret in words(&service["secrets"]) {
            assert!(document["secrets"][&secret].is_object(), "{name}: {secret} is nowhere");
        }
    }
    for (name, secret) in document["secrets"].as_object().expect("secrets") {
        let file = secret["file"].as_str().unwrap_or_else(|| panic!("{name} is no file"));
        assert!(file.starts_with("./deploy/secrets/"), "{name}: {file}");
        assert!(!file.contains(":-"), "{name} has a default");
    }
}

#[test]
fn our_services_have_a_read_only_root_no_capabilities_and_time_to_drain() {
    assert_eq!(ours().count(), 4);
    let drain = Settings::default().worker.drain_seconds.as_secs();
    for (name, service) in ours() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        let grace = service["stop_grace_period"].as_str().expect("a grace period");
        let grace: u64 = grace.trim_end_matches('s').parse().expect("seconds");
        assert!(
            grace > drain,
            "{name} is killed after {grace} s and may drain for {drain}"
        );
    }
}

#[test]
fn only_ingress_is_published_beyond_this_machine() {
    for (name, service) in services() {
        for port in words(&service["ports"]) {
            assert!(
                name == "receiver" || port.starts_with("127.0.0.1:"),
                "{name} publishes {port}"
            );
        }
    }
}

fn make_secrets(directory: &Path) {
    let made = Command::new(root().join("deploy/secrets/make"))
        .arg(directory)
        .output()
        .expect("the script runs");
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn secrets_are_made_once_at_random_and_only_their_owner_can_enter() {
    let (here, there) = (dev::Directory::new(), dev::Directory::new());
    make_secrets(here.path());
    make_secrets(there.path());
    let mode = here.path().metadata().expect("a directory").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let document = yaml("compose.yaml");
    let mut first = BTreeMap::new();
    for secret in document["secrets"].as_object().expect("secrets").values() {
        let name = secret["file"]
            .as_str()
            .and_then(|file| file.rsplit('/').next())
            .expect("a name");
        for broker in ["rabbitmq", "kafka"] {
            let name = match name.split_once("${") {
                Some((stem, _)) => format!("{stem}{broker}"),
                None => name.to_owned(),
            };
            let text = std::fs::read_to_string(here.path().join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!text.trim().is_empty(), "{name}");
            let other = std::fs::read_to_string(there.path().join(&name)).expect("made there too");
            assert!(
                text != other || name == "queue_url_kafka",
                "{name} is the same everywhere"
            );
            first.insert(name, text);
        }
    }
    make_secrets(here.path());
    for (name, text) in first {
        assert_eq!(
            std::fs::read_to_string(here.path().join(&name)).expect("there"),
            text,
            "{name} was changed"
        );
    }
}

/// With the files that the script makes, and the variables as `compose.yaml` has them.
#[test]
fn serve_takes_the_settings_of_every_service() {
    let secrets = dev::Directory::new();
    make_secrets(secrets.path());
    for broker in ["rabbitmq", "kafka"] {
        let link = secrets.path().join("queue_url");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(secrets.path().join(format!("queue_url_{broker}")), link).expect("a link");
        for (name, service) in ours().filter(|(name, _)| name != "migrate") {
            let mut check = Command::new(dev::BINARY);
            for (variable, value) in service["environment"].as_object().expect("variables") {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let value = value.replace("/run/secrets", &secrets.path().display().to_string());
                let value = if value.starts_with("${") {
                    "https://hooks.example.com".to_owned()
                } else {
                    value
                };
                check.env(variable, value);
            }
            let checked = check
                .args(["serve", "--check"])
                .output()
                .expect("the binary of this package starts");
            assert!(checked.status.success(), "{name}: {checked:?}");
        }
    }
}

#[test]
fn the_image_is_built_in_stages_and_runs_as_nobody() {
    let dockerfile = read("Dockerfile");
    let from: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "))
        .collect();
    assert!(from.len() >= 2, "the compiler stays out of the image");
    for image in &from {
        let image = image.split(' ').next().expect("an image");
        let (_, tag) = image.split_once(':').expect("a tag");
        assert!(
            tag.starts_with(|c: char| c.is_ascii_digit()) && tag.contains('.'),
            "{image} moves"
        );
    }
    let last = dockerfile.rsplit("\nFROM ").next().expect("a stage");
    let user = last
        .lines()
        .find_map(|line| line.strip_prefix("USER "))
        .expect("a user");
    let (uid, gid) = user.split_once(':').expect("user and group");
    // By number, so that an orchestrator can tell that it is not root.
    assert!(uid.parse::<u32>().expect("a number") >= 1000 && gid.parse::<u32>().expect("a number") >= 1000);
    assert!(
        last.contains("ENTRYPOINT [\"hookswitch\"]"),
        "signals reach the process, not a shell"
    );
    assert!(!dockerfile.contains("\nADD ") && !dockerfile.contains("ENV HOOKSWITCH"));
    assert!(read("Cargo.toml").contains("[profile.dist]") && dockerfile.contains("--profile dist"));
    for hidden in [".git", "target", "deploy/secrets"] {
        assert!(
            read(".dockerignore").lines().any(|line| line == hidden),
            "{hidden} goes into the build"
        );
    }
}

#[tokio::test]
async fn the_health_command_answers_as_readiness_does() {
    let serve = Serve::spawn(&[]);
    serve.is_ready(200).await;
    let address = serve.url(2, "").replace("http://127.0.0.1", "0.0.0.0");
    let health = || dev::run(&["health"], &[("HOOKSWITCH_OPERATIONS_ADDRESS", &address)]);
    let answered = health();
    assert!(answered.status.success(), "{answered:?}");
    assert!(
        String::from_utf8_lossy(&answered.stdout).contains("\"status\""),
        "{answered:?}"
    );
    drop(serve);
    let answered = health();
    assert_eq!(answered.status.code(), Some(1), "{answered:?}");
    assert!(
        String::from_utf8_lossy(&answered.stderr).contains("does not answer"),
        "{answered:?}"
    );
}
