//! Vapi's stand-in: assistants and phone numbers, read only. Errors have the NestJS shape that
//! public logs show; Vapi documents none.

use super::{Call, Reply, SandboxState, VapiAssistant, VapiOrganisation, VapiPhoneNumber, description, form, lock};
use crate::domain::Provider;
use http::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};

/// Objects of the sandbox have no history.
const CREATED_AT: &str = "2026-01-01T00:00:00.000Z";
/// The account at Vapi, the same for every key. Keys differ by what they can read.
const ORGANISATION_ID: &str = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be000";

pub(super) fn answer(state: &SandboxState, call: &Call<'_>) -> Reply {
    let Some(organisation) = authenticated(state, call) else {
        // This text stands in several public logs. Vapi also sends it to the other kind of key.
        let message =
            "Invalid Key. Hot tip, you may be using the private key instead of the public key, or vice versa.";
        return error(401, &json!(message));
    };
    if call.parts.method != Method::GET {
        return error(
            404,
            &json!(format!("Cannot {} {}", call.parts.method, call.parts.uri.path())),
        );
    }
    let path = call.parts.uri.path();
    let (root, id) = path[1..]
        .split_once('/')
        .map_or((&path[1..], None), |(root, id)| (root, Some(id)));
    let operation = match (root, id) {
        ("assistant", None) => "AssistantController_findAll",
        ("assistant", Some(_)) => "AssistantController_findOne",
        (_, None) => "PhoneNumberController_findAll",
        (_, Some(_)) => "PhoneNumberController_findOne",
    };
    let query = call.query();
    let described = description::of(Provider::Vapi).expect("Vapi is described");
    let faults = described.check_query(operation, &query);
    if !faults.is_empty() {
        state.note(call, operation, &faults);
        return error(400, &json!(faults));
    }
    match id {
        None => list(&organisation, root, &query),
        Some(id) => find(&organisation, root, id),
    }
}

fn list(organisation: &VapiOrganisation, root: &str, query: &[(String, String)]) -> Reply {
    // All objects were created at one moment, so a page of earlier objects is empty.
    let limit = if form::get(query, "createdAtLt").is_some_and(|before| before <= CREATED_AT) {
        0
    } else {
        form::get(query, "limit")
            .and_then(|text| text.parse().ok())
            .unwrap_or(100)
    };
    let rows: Vec<Value> = if root == "assistant" {
        organisation.assistants.iter().map(assistant_json).take(limit).collect()
    } else {
        organisation.phone_numbers.iter().map(number_json).take(limit).collect()
    };
    Reply::json(200, &Value::Array(rows))
}

fn find(organisation: &VapiOrganisation, root: &str, id: &str) -> Reply {
    if id.parse::<uuid::Uuid>().is_err() {
        return error(400, &json!("id must be a UUID"));
    }
    let (found, kind) = if root == "assistant" {
        let mut assistants = organisation.assistants.iter();
        let found = assistants.find(|assistant| assistant.id == id).map(assistant_json);
        (found, "Assistant")
    } else {
        let mut numbers = organisation.phone_numbers.iter();
        (numbers.find(|number| number.id == id).map(number_json), "Phone Number")
    };
    match found {
        Some(body) => Reply::json(200, &body),
        None => error(404, &json!(format!("Couldn't Get {kind}. Does Not Exist."))),
    }
}

fn authenticated(state: &SandboxState, call: &Call<'_>) -> Option<VapiOrganisation> {
    let key = call.header(AUTHORIZATION).strip_prefix("Bearer ")?;
    lock(&state.0.vapi)
        .iter()
        .find(|organisation| organisation.api_key == key)
        .cloned()
}

fn assistant_json(assistant: &VapiAssistant) -> Value {
    let mut body =
        json!({"id": assistant.id, "orgId": ORGANISATION_ID, "createdAt": CREATED_AT, "updatedAt": CREATED_AT});
    if let Some(name) = &assistant.name {
        body["name"] = name.as_str().into();
    }
    body
}

fn number_json(number: &VapiPhoneNumber) -> Value {
    json!({
        "id": number.id, "orgId": ORGANISATION_ID, "createdAt": CREATED_AT, "updatedAt": CREATED_AT,
        "provider": "vapi", "status": "active", "number": number.number,
    })
}

fn error(status: u16, message: &Value) -> Reply {
    let mut body = error_body(status);
    body["message"] = message.clone();
    Reply::json(status, &body)
}

/// `{"message", "error", "statusCode"}`.
pub(super) fn error_body(status: u16) -> Value {
    let words = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error");
    json!({"message": words, "error": words, "statusCode": status})
}
