//! The schemas of this repository, held against what they describe.

use serde_json::Value;
use std::{path::Path, sync::LazyLock};

/// A schema of this repository.
pub fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
    serde_json::from_slice(&std::fs::read(&path).expect("a schema")).expect("JSON")
}

/// Holds a real refusal against the schema that is published.
#[track_caller]
pub fn check_problem(body: &Value) {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| read("problem.json"));
    if let Err(broken) = check(&SCHEMA, body) {
        panic!("{broken}: {body}");
    }
}

/// # Errors
/// The place where a value breaks the schema, and what is wanted there.
pub fn check(schema: &Value, value: &Value) -> Result<(), String> {
    let validator = jsonschema::validator_for(schema).expect("a schema");
    let broken = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()));
    let broken: Vec<String> = broken.collect();
    if broken.is_empty() {
        Ok(())
    } else {
        Err(broken.join("; "))
    }
}
