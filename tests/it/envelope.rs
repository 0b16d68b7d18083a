//! `schemas/envelope.json` describes what travels: real envelopes are held against it.

use crate::conformance::queue::event;
use hookswitch::{
    domain::{EndpointId, Envelope, EventType, OrgId, SecretId, Source, Timestamp},
    queue::attributes,
};
use serde_json::Value;
use std::collections::BTreeMap;

fn schema() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/envelope.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The part of JSON Schema that `envelope.json` uses. An unknown word is an error, so that the
/// schema cannot say what is not checked.
fn violations(schema: &Value, attributes: &BTreeMap<&str, String>) -> Vec<String> {
    let mut violations = Vec::new();
    for required in schema["required"].as_array().unwrap() {
        if !attributes.contains_key(required.as_str().unwrap()) {
            violations.push(format!("{required} is missing"));
        }
    }
    assert_eq!(schema["additionalProperties"], false);
    for (name, text) in attributes {
        let Some(property) = schema["properties"].get(name) else {
            violations.push(format!("{name} is not described"));
            continue;
        };
        for (word, value) in property.as_object().unwrap() {
            let holds = match word.as_str() {
                "type" => value == "string",
                "description" => true,
                "enum" => value.as_array().unwrap().iter().any(|one| one == text),
                "minLength" => text.chars().count() as u64 >= value.as_u64().unwrap(),
                "maxLength" => text.chars().count() as u64 <= value.as_u64().unwrap(),
                "format" if value == "uuid" => text.len() == 36 && uuid::Uuid::try_parse(text).is_ok(),
                "format" if value == "date-time" => text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok(),
                "contentMediaType" => serde_json::from_str::<Vec<(String, String)>>(text).is_ok(),
                other => panic!("{name} uses {other}, which this test does not check"),
            };
            if !holds {
                violations.push(format!("{name}: {text:?} against {word} {value}"));
            }
        }
    }
    violations
}

fn named(envelope: &Envelope) -> BTreeMap<&'static str, String> {
    let attributes = attributes(envelope);
    let count = attributes.len();
    let named: BTreeMap<_, _> = attributes.into_iter().collect();
    assert_eq!(named.len(), count, "a name stands twice");
    named
}

#[test]
fn attributes_of_every_source_are_as_the_schema_says() {
    let schema = schema();
    for source in Source::ALL {
        let mut envelope = event(OrgId::generate(), "call", "{}").into_envelope();
        (envelope.source, envelope.event_type) = (source, EventType::new(source, &"ä".repeat(500)));
        assert_eq!(violations(&schema, &named(&envelope)), [""; 0]);
        envelope.endpoint = Some(EndpointId::generate());
        envelope.secret = Some(SecretId::generate());
        envelope.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        envelope.headers.push(("x-\"quoted\"".into(), "ü\\".into()));
        envelope.hops = 255;
        (envelope.time, envelope.received_at) = (Timestamp::from_micros(i64::MAX), Timestamp::from_micros(i64::MIN));
        let named = named(&envelope);
        assert_eq!(violations(&schema, &named), [""; 0]);
        assert_eq!(
            named.len(),
            schema["properties"].as_object().unwrap().len(),
            "the schema describes what never travels"
        );
    }
}

#[test]
fn the_schema_refuses_what_is_no_envelope() {
    let (schema, good) = (schema(), named(event(OrgId::generate(), "call", "{}").envelope()));
    for (name, text) in [
        ("id", "7"),
        ("source", "/webhooks/other"),
        ("time", "yesterday"),
        ("dedupekey", "00"),
        ("specversion", "0.3"),
        ("headers", "{}"),
        ("authorization", "x"),
    ] {
        let mut bad = good.clone();
        bad.insert(name, text.into());
        assert_eq!(violations(&schema, &bad).len(), 1, "{name}");
    }
    let mut bad = good;
    bad.remove("receivedat");
    assert_eq!(violations(&schema, &bad), ["\"receivedat\" is missing"]);
}
