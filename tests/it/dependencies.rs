//! Compares `deny.toml` with the tree of crates as cargo resolves it. `cargo deny` is not a crate
//! that a checkout can bring along; decision 0004 says what is left to it.

use serde_json::Value;
use std::{collections::HashSet, path::Path, process::Command};

/// Text between two marks.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    let (_, rest) = text
        .split_once(begin)
        .unwrap_or_else(|| panic!("deny.toml has no {begin}"));
    rest.split_once(end)
        .unwrap_or_else(|| panic!("deny.toml: no {end} after {begin}"))
        .0
}

/// The quoted words of a text.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

struct Rules {
    licences: Vec<String>,
    banned: Vec<String>,
    targets: Vec<String>,
}

impl Rules {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
        let text = std::fs::read_to_string(path).expect("deny.toml");
        let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let banned = between(&text, "deny = [", "\n]");
        Self {
            licences: owned(quoted(between(&text, "allow = [", "]"))),
            banned: owned(
                banned
                    .match_indices("crate = \"")
                    .map(|(at, mark)| between(&banned[at..], mark, "\""))
                    .collect(),
            ),
            targets: owned(quoted(between(&text, "targets = [", "]"))),
        }
    }

    /// Whether an SPDX expression lets us choose allowed licences only. `/` is the old way to write
    /// `OR`; an exception after `WITH` only adds permissions.
    fn allow(&self, expression: &str) -> bool {
        let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let mut words = expression.split_whitespace().peekable();
        let is_allowed = self.any_of(&mut words);
        is_allowed && words.next().is_none()
    }

    fn any_of<'w>(&self, words: &mut std::iter::Peekable<impl Iterator<Item = &'w str>>) -> bool {
        let mut is_allowed = self.all_of(words);
        while words.next_if_eq(&"OR").is_some() {
            is_allowed |= self.all_of(words);
        }
        is_allowed
    }

    fn all_of<'w>(&self, words: &mut std::iter::Peekable<impl Iterator<Item = &'w str>>) -> bool {
        let mut is_allowed = self.one(words);
        while words.next_if_eq(&"AND").is_some() {
            is_allowed &= self.one(words);
        }
        is_allowed
    }

    fn one<'w>(&self, words: &mut std::iter::Peekable<impl Iterator<Item = &'w str>>) -> bool {
        let Some(word) = words.next() else { return false };
        if word == "(" {
            let is_allowed = self.any_of(words);
            return words.next() == Some(")") && is_allowed;
        }
        if words.next_if_eq(&"WITH").is_some() {
            words.next();
        }
        self.licences.iter().any(|licence| licence == word)
    }
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The crates that this one is built and tested with, as `cargo tree` prints them. `cargo metadata`
/// knows their licences; it also lists crates that no feature in use turns on.
fn packages(target: &str) -> Vec<Value> {
    let tree = cargo(&["tree", "--prefix", "none", "--edges", "all", "--target", target]);
    let name_and_version = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let used: HashSet<String> = tree.lines().map(name_and_version).collect();
    let all: Value = serde_json::from_str(&cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--filter-platform",
        target,
    ]))
    .expect("JSON");
    let mut packages = all["packages"].as_array().expect("packages").clone();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    packages.retain(|package| used.contains(&format!("{} v{}", text(&package["name"]), text(&package["version"]))));
    packages
}

#[test]
fn licences_sources_and_crates_are_those_that_deny_toml_allows() {
    let rules = Rules::read();
    assert!(rules.licences.len() > 5 && rules.banned.len() == 2 && rules.targets.len() == 2);
    let mut wrong = Vec::new();
    for target in &rules.targets {
        let packages = packages(target);
        assert!(packages.len() > 100, "{target}: {}", packages.len());
        for package in &packages {
            let (name, licence, source) = (&package["name"], &package["license"], &package["source"]);
            let name = name.as_str().expect("a name");
            if name == "hookswitch" {
                continue;
            }
            if !rules.allow(licence.as_str().unwrap_or_default()) {
                wrong.push(format!("{name}: the licence {licence} is not allowed"));
            }
            if source != "registry+https://github.com/rust-lang/crates.io-index" {
                wrong.push(format!("{name}: comes from {source}"));
            }
            if rules.banned.iter().any(|banned| banned == name) {
                wrong.push(format!("{name}: is banned"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_expression_of_licences_is_allowed_where_one_choice_is() {
    let rules = Rules {
        licences: vec!["MIT".into(), "Apache-2.0".into(), "Unicode-3.0".into()],
        banned: vec![],
        targets: vec![],
    };
    for (expression, is_allowed) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(MIT OR GPL-2.0) AND Unicode-3.0", true),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
        ("GPL-2.0/MIT", true),
        ("", false),
        ("MIT OR", true),
        ("MIT GPL-3.0", false),
    ] {
        assert_eq!(rules.allow(expression), is_allowed, "{expression}");
    }
}
