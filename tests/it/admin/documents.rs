//! `schemas/problem.json` says what refusals look like: made from the codes, held against real answers.

use hookswitch::admin::Code;
use serde_json::{Value, json};
use std::path::Path;

fn schema() -> Value {
    let codes: Vec<Value> = Code::ALL
        .iter()
        .map(|code| json!({ "properties": { "code": { "const": code.as_str() }, "status": { "const": code.status() }, "title": { "const": code.title() } } }))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A refusal of the admin API (RFC 9457, application/problem+json)",
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "additionalProperties": false,
        "properties": {
            "type": { "const": "about:blank" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "For people. 5xx say no more than the title." },
            "code": { "type": "string", "description": "Stable; for programs." },
            "request_id": { "type": "string", "description": "The same as the header x-request-id; finds the request in the log." },
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "problem"],
                    "additionalProperties": false,
                    "properties": { "field": { "type": "string" }, "problem": { "type": "string" } }
                }
            }
        },
        "oneOf": codes,
    })
}

#[test]
fn problems_are_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/problem.json");
    let wanted = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::fs::read_to_string(&path).is_ok_and(|known| known == wanted) {
        return;
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, wanted).unwrap();
    panic!("schemas/problem.json was out of date and has been written again: look at it and commit it");
}

/// Holds a real answer against the schema, by the parts of JSON Schema that it uses.
#[track_caller]
pub(crate) fn check_problem(body: &Value) {
    let schema = schema();
    let body = body.as_object().expect("an object");
    for name in schema["required"].as_array().unwrap() {
        assert!(body.contains_key(name.as_str().unwrap()), "{name} is missing: {body:?}");
    }
    for name in body.keys() {
        assert!(schema["properties"].get(name).is_some(), "{name} is not in the schema: {body:?}");
    }
    let matching = schema["oneOf"].as_array().unwrap().iter().filter(|one| {
        let properties = one["properties"].as_object().unwrap();
        properties.iter().all(|(name, rule)| rule["const"] == body[name])
    });
    assert_eq!(matching.count(), 1, "{body:?}");
    for error in body.get("errors").and_then(Value::as_array).into_iter().flatten() {
        assert!(error["field"].is_string() && error["problem"].is_string() && error.as_object().unwrap().len() == 2, "{error}");
    }
}
