//! What `deny.toml` allows, held against the tree of crates as cargo resolves it. `cargo deny` is
//! not a crate that a checkout can bring along; decision 0004 says what is left to it.

use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    process::Command,
};

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

/// The crates that this one is built and tested with, its own among them: what is reached from it
/// in the resolved tree. A crate that only an unused feature of another one names is none of them.
fn packages(target: &str) -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--locked",
            "--offline",
            "--format-version",
            "1",
            "--filter-platform",
            target,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let id = |value: &Value| value.as_str().expect("an id").to_owned();
    let needs: HashMap<String, Vec<String>> = list(&all["resolve"]["nodes"])
        .iter()
        .map(|node| {
            (
                id(&node["id"]),
                list(&node["deps"]).iter().map(|dep| id(&dep["pkg"])).collect(),
            )
        })
        .collect();
    let (mut reached, mut next) = (HashSet::new(), vec![id(&all["resolve"]["root"])]);
    while let Some(one) = next.pop() {
        if reached.insert(one.clone()) {
            next.extend(needs[&one].iter().cloned());
        }
    }
    let mut packages = list(&all["packages"]);
    packages.retain(|package| reached.contains(&id(&package["id"])));
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
