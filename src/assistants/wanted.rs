//! Builds the configuration that is wanted of an assistant, and compares it with Vapi's. Makes no
//! request.

use crate::provider::vapi::assistants::{Fields, MARKER};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Fields that only Vapi or Hookswitch sets.
pub const RESERVED: [&str; 9] = [
    "id",
    "orgId",
    "createdAt",
    "updatedAt",
    "name",
    "server",
    "serverUrl",
    "serverUrlSecret",
    "credentials",
];
/// Vapi waits so long for an answer to a webhook: its own default.
const TIMEOUT_SECONDS: u32 = 20;
/// Tools stand inside of the model, and people add them at Vapi too.
const TOOLS: [&str; 2] = ["tools", "toolIds"];

/// The configuration that a person wants.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Wanted {
    pub name: String,
    /// Fields of Vapi's assistant, none of them [`RESERVED`].
    pub config: Fields,
}

impl Wanted {
    /// The whole assistant: the configuration with its webhook URL, the secret that its webhooks
    /// verify with, and the marker.
    ///
    /// Vapi sends the secret as a header (`server.headers`). Its API makes no credentials that
    /// sign, and retries nothing without a `backoffPlan`.
    pub fn body(&self, marker: &str, url: &str, secret: &str) -> Fields {
        let mut body = self.config.clone();
        body.insert("name".to_owned(), json!(self.name));
        body.insert(
            "server".to_owned(),
            json!({
                "url": url,
                "timeoutSeconds": TIMEOUT_SECONDS,
                "headers": { "X-Vapi-Secret": secret },
                "backoffPlan": { "type": "exponential", "maxRetries": 5, "baseDelaySeconds": 1 },
            }),
        );
        let metadata = body.entry("metadata").or_insert_with(|| json!({}));
        if let Value::Object(metadata) = metadata {
            metadata.insert(MARKER.to_owned(), json!(marker));
        }
        body
    }
}

/// The fields that differ at Vapi, each as a whole. `former` is what was wanted before: fields that
/// are not wanted any more are cleared.
pub fn changes(former: &Wanted, wanted: &Wanted, body: &Fields, actual: &Fields) -> Fields {
    let mut changes = Fields::new();
    for (name, value) in with_tools(body, actual) {
        let is_rewritten = former.config.get(&name) != wanted.config.get(&name);
        if is_rewritten || !agrees(&value, actual.get(&name)) {
            changes.insert(name, value);
        }
    }
    for name in former.config.keys() {
        if !body.contains_key(name) && !agrees(&Value::Null, actual.get(name)) {
            changes.insert(name.clone(), Value::Null);
        }
    }
    changes
}

/// The names of the fields that differ at Vapi.
pub fn drift(body: &Fields, actual: &Fields) -> Vec<String> {
    with_tools(body, actual)
        .into_iter()
        .filter(|(name, value)| !agrees(value, actual.get(name)))
        .map(|(name, _)| name)
        .collect()
}

/// The tools that the assistant has stay, where the configuration does not say which it is to have.
fn with_tools(body: &Fields, actual: &Fields) -> Fields {
    let mut body = body.clone();
    if let (Some(Value::Object(wanted)), Some(Value::Object(actual))) = (body.get_mut("model"), actual.get("model")) {
        for name in TOOLS {
            if let (false, Some(tools)) = (wanted.contains_key(name), actual.get(name)) {
                wanted.insert(name.to_owned(), tools.clone());
            }
        }
    }
    body
}

/// Whether everything that is wanted is there. Vapi adds defaults to what it was given.
fn agrees(wanted: &Value, actual: Option<&Value>) -> bool {
    let actual = actual.unwrap_or(&Value::Null);
    match (wanted, actual) {
        (Value::Object(wanted), Value::Object(actual)) => {
            wanted.iter().all(|(name, value)| agrees(value, actual.get(name)))
        }
        (Value::Array(wanted), Value::Array(actual)) => {
            wanted.len() == actual.len()
                && wanted
                    .iter()
                    .zip(actual)
                    .all(|(wanted, actual)| agrees(wanted, Some(actual)))
        }
        // 1 and 1.0 are one number in JSON.
        (Value::Number(wanted), Value::Number(actual)) => wanted.as_f64() == actual.as_f64(),
        _ => wanted == actual,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: &Value) -> Fields {
        value.as_object().expect("an object").clone()
    }

    fn wanted(config: &Value) -> Wanted {
        Wanted {
            name: "Front desk".into(),
            config: fields(config),
        }
    }

    #[test]
    fn a_body_has_the_webhook_its_secret_retries_and_the_marker() {
        let body = wanted(&json!({ "metadata": { "team": "north" } })).body("m-1", "https://hooks.example/x", "s3cret");
        assert_eq!(body["metadata"], json!({ "team": "north", "hookswitch": "m-1" }));
        assert_eq!(body["server"]["headers"]["X-Vapi-Secret"], "s3cret");
        assert!(body["server"]["backoffPlan"]["maxRetries"].as_u64() > Some(0));
    }

    #[test]
    fn only_what_differs_is_sent() {
        let table = [
            // former, wanted, at Vapi → sent
            (json!({}), json!({}), json!({}), json!({})),
            (
                json!({ "a": 1 }),
                json!({ "a": 1 }),
                json!({ "a": 1.0, "b": 2 }),
                json!({}),
            ),
            (
                json!({ "a": 1 }),
                json!({ "a": 2 }),
                json!({ "a": 1 }),
                json!({ "a": 2 }),
            ),
            (
                json!({ "a": 1 }),
                json!({ "a": 1 }),
                json!({ "a": 7 }),
                json!({ "a": 1 }),
            ),
            // Not wanted any more, or null: cleared.
            (json!({ "a": 1 }), json!({}), json!({ "a": 1 }), json!({ "a": null })),
            (json!({ "a": 1 }), json!({}), json!({}), json!({})),
            (json!({}), json!({ "a": null }), json!({ "a": 1 }), json!({ "a": null })),
            // Vapi's defaults inside of an object are no difference.
            (
                json!({ "voice": { "id": "x" } }),
                json!({ "voice": { "id": "x" } }),
                json!({ "voice": { "id": "x", "speed": 1 } }),
                json!({}),
            ),
            // A field inside of an object is not wanted any more: the object is sent as a whole.
            (
                json!({ "voice": { "id": "x", "speed": 2 } }),
                json!({ "voice": { "id": "x" } }),
                json!({ "voice": { "id": "x", "speed": 2 } }),
                json!({ "voice": { "id": "x" } }),
            ),
            // Tools stay, wherever they came from, until the configuration names some.
            (
                json!({ "model": { "model": "a" } }),
                json!({ "model": { "model": "b" } }),
                json!({ "model": { "model": "a", "toolIds": ["t1"], "tools": [{ "type": "dtmf" }] } }),
                json!({ "model": { "model": "b", "toolIds": ["t1"], "tools": [{ "type": "dtmf" }] } }),
            ),
            (
                json!({ "model": { "model": "a", "toolIds": ["t1"] } }),
                json!({ "model": { "model": "a", "toolIds": [] } }),
                json!({ "model": { "model": "a", "toolIds": ["t1"] } }),
                json!({ "model": { "model": "a", "toolIds": [] } }),
            ),
            (
                json!({}),
                json!({ "list": [1, 2] }),
                json!({ "list": [1] }),
                json!({ "list": [1, 2] }),
            ),
        ];
        for (former, now, actual, sent) in table {
            let changes = changes(&wanted(&former), &wanted(&now), &fields(&now), &fields(&actual));
            assert_eq!(Value::Object(changes), sent, "{former} → {now} over {actual}");
        }
    }

    #[test]
    fn drift_names_fields_that_a_person_changed_at_vapi() {
        let body = wanted(&json!({ "firstMessage": "Hello", "model": { "model": "a" } })).body("m", "u", "s");
        let mut actual = body.clone();
        actual["model"]["toolIds"] = json!(["added"]);
        assert_eq!(drift(&body, &actual), Vec::<String>::new());
        actual["firstMessage"] = json!("Hi");
        actual.remove("server");
        assert_eq!(drift(&body, &actual), ["firstMessage", "server"]);
    }
}
