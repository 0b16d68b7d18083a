//! Known places of secrets in payloads (invariant 19): one list for templates, API and screens.

use crate::domain::Source;
use serde_json::Value;

/// What stands where a secret was.
pub const MASKED: &str = "[masked]";

/// Keys whose value is masked wherever Vapi's own objects (assistant, call, phone number, tools,
/// squad) hold them.
const KEYS: [&str; 12] = [
    "server",
    "serverUrl",
    "serverUrlSecret",
    "secret",
    "credential",
    "credentials",
    "apiKey",
    "authToken",
    "authorization",
    "authenticationPlan",
    "password",
    "webhookSecret",
];

/// Places whose keys are the caller's or the organisation's own words: a tool's argument may well
/// be called `server`.
const OWN_WORDS: [&str; 9] = [
    "arguments",
    "parameters",
    "structuredData",
    "structuredOutputs",
    "variableValues",
    "variables",
    "metadata",
    "properties",
    "analysis",
];

/// Takes the secrets that a source is known to put into its payloads out of `body`.
pub fn mask(source: Source, body: &mut Value) {
    if source == Source::Vapi {
        mask_vapi(body);
    }
}

fn mask_vapi(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                if KEYS.contains(&key.as_str()) || key.starts_with("twilio") {
                    if !value.is_null() {
                        *value = Value::String(MASKED.into());
                    }
                } else if !OWN_WORDS.contains(&key.as_str()) {
                    mask_vapi(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask_vapi),
        _ => {}
    }
}
