//! Known places of secrets in payloads (invariant 19): one list for templates, API and screens.

use crate::domain::Source;
use serde_json::Value;

/// The text in the place of a secret.
pub(super) const MASKED: &str = "[masked]";

/// Keys whose value is masked wherever Vapi's own objects (assistant, call, phone number, tools,
/// squad) hold them. The names are those of Vapi's published API description.
const KEYS: [&str; 25] = [
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
    "webhookUrl",
    "slackWebhookUrl",
    "apiSecret",
    "authPassword",
    "accessToken",
    "refreshToken",
    "sessionToken",
    "callToken",
    "clientSecret",
    "secretKey",
    "secretAccessKey",
    "hmacSecret",
    "privateKey",
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
pub(super) fn mask(source: Source, body: &mut Value) {
    if source == Source::Vapi {
        mask_vapi(body);
    }
}

fn mask_vapi(value: &mut Value) {
    match value {
        Value::Object(object) => {
            // A model or a tool that calls a URL of the organisation's sends these with it.
            let has_url = object.contains_key("url");
            for (key, value) in object {
                let is_secret = KEYS.contains(&key.as_str()) || key.starts_with("twilio");
                if is_secret || (has_url && key == "headers") {
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
