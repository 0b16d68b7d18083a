//! Alerts and the board: each names metrics that are there, and each alert leads to what to do.

use super::{read, root, yaml};
use hookswitch::telemetry::catalogue::{self, Kind, Metric};
use serde_json::Value;
use std::{collections::BTreeSet, io::Write, process::Command};

const ALERTS: &str = "deploy/prometheus/alerts.yml";
const BOARD: &str = "deploy/grafana/dashboards/hookswitch.json";
const RUNBOOK: &str = "docs/operations.md";

/// A metric as an expression names it, with the labels that it selects by.
struct Named<'e> {
    name: &'e str,
    labels: Vec<&'e str>,
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn named(expression: &str) -> Vec<Named<'_>> {
    let mut all = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("hookswitch_") {
        let from = &rest[at..];
        let name = &from[..from.find(|c| !is_name(c)).unwrap_or(from.len())];
        rest = &from[name.len()..];
        let selector = rest.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let labels = selector.map_or_else(Vec::new, |(inside, _)| {
            inside
                .split(',')
                .filter_map(|part| part.split(['=', '!']).next())
                .map(str::trim)
                .collect()
        });
        all.push(Named { name, labels });
    }
    all
}

/// The metric that a series belongs to: a histogram has several.
fn metric_of(name: &str) -> Option<&'static Metric> {
    catalogue::ALL.iter().find(|metric| {
        if metric.kind == Kind::Histogram {
            ["_bucket", "_count", "_sum"]
                .iter()
                .any(|ending| name.strip_suffix(ending) == Some(metric.name))
        } else {
            name == metric.name
        }
    })
}

/// Labels that Prometheus adds itself.
const ADDED: [&str; 4] = ["le", "job", "instance", "role"];

/// The faults of an expression, by the catalogue.
fn faults(expression: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let named = named(expression);
    for Named { name, labels } in &named {
        let Some(metric) = metric_of(name) else {
            faults.push(format!("{name} is no series of the catalogue"));
            continue;
        };
        for label in labels {
            if !metric.labels.contains(label) && !ADDED.contains(label) {
                faults.push(format!("{name} has no label {label}"));
            }
        }
    }
    let known: BTreeSet<&str> = named
        .iter()
        .filter_map(|named| metric_of(named.name))
        .flat_map(|metric| metric.labels.iter().copied())
        .chain(ADDED)
        .collect();
    for group in expression.split(" by (").skip(1) {
        let inside = group.split(')').next().unwrap_or_default();
        for label in inside.split(',').map(str::trim).filter(|label| !known.contains(label)) {
            faults.push(format!("nothing in it has the label {label}"));
        }
    }
    faults
}

fn alerts() -> Vec<Value> {
    let groups = yaml(ALERTS)["groups"].as_array().expect("groups").clone();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .collect()
}

fn board_expressions() -> Vec<(String, String)> {
    let board: Value = serde_json::from_str(&read(BOARD)).expect("JSON");
    let mut all = Vec::new();
    for panel in board["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title").to_owned();
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push((
                title.clone(),
                target["expr"].as_str().expect("an expression").to_owned(),
            ));
        }
    }
    all
}

#[test]
fn a_wrong_expression_is_found() {
    for wrong in [
        "hookswitch_queue_age",
        "hookswitch_plan_seconds",
        "rate(hookswitch_plan_seconds_bucket{source=\"vapi\"}[5m])",
        "sum by (org) (rate(hookswitch_attempts_total[5m]))",
    ] {
        assert_eq!(faults(wrong).len(), 1, "{wrong}");
    }
}

#[test]
fn every_expression_names_series_and_labels_of_the_catalogue() {
    let alerts = alerts().into_iter().map(|alert| {
        (
            alert["alert"].as_str().expect("a name").to_owned(),
            alert["expr"].as_str().expect("an expression").to_owned(),
        )
    });
    for (place, expression) in board_expressions().into_iter().chain(alerts) {
        let faults = faults(&expression);
        assert!(faults.is_empty(), "{place}: {expression}: {faults:?}");
    }
}

#[test]
fn every_metric_is_on_the_board() {
    let expressions = board_expressions();
    for metric in catalogue::ALL {
        let is_shown = expressions
            .iter()
            .flat_map(|(_, expression)| named(expression))
            .any(|named| metric_of(named.name).is_some_and(|shown| shown.name == metric.name));
        assert!(is_shown, "{} is on no panel of {BOARD}", metric.name);
    }
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit_from_the_source_that_is_provisioned() {
    let board: Value = serde_json::from_str(&read(BOARD)).expect("JSON");
    let source = &yaml("deploy/grafana/provisioning/datasources/prometheus.yaml")["datasources"][0];
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in board["panels"].as_array().expect("panels") {
        let title = &panel["title"];
        assert!(
            ids.insert(panel["id"].as_u64().expect("an id")),
            "{title}: its id is taken"
        );
        let place = &panel["gridPos"];
        assert!(places.insert(place.to_string()), "{title}: its place is taken");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], source["uid"], "{title}");
        assert!(
            panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{title}"
        );
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
    }
}

/// As GitHub and most others make it from a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_alert_leads_to_a_section_that_says_what_it_means_what_to_check_and_what_to_do() {
    let runbook = read(RUNBOOK);
    let mut sections = std::collections::BTreeMap::new();
    for section in runbook.split("\n### ").skip(1) {
        let (heading, text) = section.split_once('\n').expect("a heading");
        let text = text.split("\n## ").next().unwrap_or_default();
        sections.insert(anchor(heading), (heading, text));
    }
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("a name");
        let link = alert["annotations"]["runbook_url"].as_str().unwrap_or_default();
        let (page, place) = link
            .split_once('#')
            .unwrap_or_else(|| panic!("{name}: its runbook link is {link:?}"));
        assert_eq!(page, RUNBOOK, "{name}");
        let (heading, text) = sections
            .get(place)
            .unwrap_or_else(|| panic!("{RUNBOOK} has no section {place}"));
        assert_eq!(*heading, name, "the section is called as its alert");
        for part in ["**Means.**", "**Check.**", "**Do.**"] {
            assert!(text.contains(part), "{name}: its section has no {part}");
        }
        assert!(
            ["page", "ticket"].contains(&alert["labels"]["severity"].as_str().unwrap_or_default()),
            "{name}"
        );
        assert!(alert["annotations"]["summary"].is_string(), "{name}");
        assert!(names.insert(name.to_owned()), "{name} stands twice");
    }
    let sections = sections
        .values()
        .filter(|(heading, _)| heading.starts_with("Hookswitch"));
    for (heading, _) in sections {
        assert!(names.contains(*heading), "{heading} has a section and no alert");
    }
}

/// `None` where the tool is not there: then it is said on the terminal, and in CI it is a failure.
fn promtool(arguments: &[&str]) -> Option<()> {
    let ran = Command::new("promtool")
        .args(arguments)
        .current_dir(root().join("deploy/prometheus"))
        .output();
    match ran {
        Ok(ran) => {
            let said = [ran.stdout, ran.stderr].concat();
            assert!(
                ran.status.success(),
                "promtool {arguments:?}: {}",
                String::from_utf8_lossy(&said)
            );
            Some(())
        }
        Err(error) => {
            let how = "run scripts/test, or install Prometheus (Debian: apt-get install prometheus)";
            assert!(std::env::var("CI").is_err(), "promtool cannot be run ({error}): {how}");
            let _ = writeln!(
                std::io::stderr(),
                "\nNOT RUN: the alerts by promtool ({error}); {how}\n"
            );
            None
        }
    }
}

#[test]
fn every_alert_fires_and_stays_quiet_by_its_own_test() {
    let tests = yaml("deploy/prometheus/alerts.test.yml");
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("a name");
        let expected: BTreeSet<bool> = tests["tests"]
            .as_array()
            .expect("tests")
            .iter()
            .flat_map(|test| test["alert_rule_test"].as_array().expect("expectations"))
            .filter(|test| test["alertname"] == name)
            .map(|test| test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()))
            .collect();
        assert_eq!(
            expected,
            BTreeSet::from([false, true]),
            "{name} needs a case that fires and one that does not"
        );
    }
    promtool(&["check", "config", "prometheus.yml"]).and_then(|()| promtool(&["test", "rules", "alerts.test.yml"]));
}
