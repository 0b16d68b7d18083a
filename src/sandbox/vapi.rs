//! Vapi's stand-in: assistants, and phone numbers to read. Errors have the NestJS shape that public
//! logs show; Vapi documents none.

use super::{
    Call, Reply, SandboxState, VapiAssistant, VapiOrganisation, VapiPhoneNumber, description, form, lock,
    record::rfc3339,
};
use crate::domain::{Provider, Timestamp};
use http::{Method, header::AUTHORIZATION};
use serde_json::{Map, Value, json};

/// Objects of the configuration have no history.
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
    let path = call.parts.uri.path();
    let (root, id) = path[1..]
        .split_once('/')
        .map_or((&path[1..], None), |(root, id)| (root, Some(id)));
    let operation = match (&call.parts.method, root, id) {
        (&Method::GET, "assistant", None) => "AssistantController_findAll",
        (&Method::GET, "assistant", Some(_)) => "AssistantController_findOne",
        (&Method::POST, "assistant", None) => return create(state, &organisation, call),
        (&Method::PATCH, "assistant", Some(id)) => return update(state, &organisation, call, id),
        (&Method::DELETE, "assistant", Some(id)) => return delete(state, &organisation, id),
        (&Method::GET, _, None) => "PhoneNumberController_findAll",
        (&Method::GET, _, Some(_)) => "PhoneNumberController_findOne",
        (method, ..) => return error(404, &json!(format!("Cannot {method} {path}"))),
    };
    let query = call.query();
    let described = description::of(Provider::Vapi).expect("Vapi is described");
    let faults = described.check_query(operation, &query);
    if !faults.is_empty() {
        state.note(call, operation, &faults);
        return error(400, &json!(faults));
    }
    match id {
        None => list(state, &organisation, root, &query),
        Some(id) => find(state, &organisation, root, id),
    }
}

/// The newest first.
fn list(state: &SandboxState, organisation: &VapiOrganisation, root: &str, query: &[(String, String)]) -> Reply {
    let mut rows: Vec<Value> = if root == "assistant" {
        let made = lock(&state.0.assistants).of(&organisation.api_key);
        made.chain(organisation.assistants.iter().map(assistant_json)).collect()
    } else {
        organisation.phone_numbers.iter().map(number_json).collect()
    };
    rows.sort_by(|a, b| b["createdAt"].as_str().cmp(&a["createdAt"].as_str()));
    let time = |name| form::get(query, name).and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let (before, from) = (time("createdAtLt"), time("createdAtGe"));
    rows.retain(|row| {
        let at = row["createdAt"]
            .as_str()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok());
        before.is_none_or(|before| at < Some(before)) && from.is_none_or(|from| at >= Some(from))
    });
    let limit = form::get(query, "limit")
        .and_then(|text| text.parse().ok())
        .unwrap_or(100);
    rows.truncate(limit);
    Reply::json(200, &Value::Array(rows))
}

fn create(state: &SandboxState, organisation: &VapiOrganisation, call: &Call<'_>) -> Reply {
    match read_fields(state, call, "AssistantController_create") {
        Ok(fields) => {
            let made = lock(&state.0.assistants).make(&organisation.api_key, fields, state.now());
            Reply::json(201, &made)
        }
        Err(refused) => refused,
    }
}

fn update(state: &SandboxState, organisation: &VapiOrganisation, call: &Call<'_>, id: &str) -> Reply {
    let fields = match read_fields(state, call, "AssistantController_update") {
        Ok(fields) => fields,
        Err(refused) => return refused,
    };
    let mut assistants = lock(&state.0.assistants);
    if !assistants.is_of(&organisation.api_key, id) {
        return not_there("Assistant");
    }
    let changed = assistants.change(id, &fields);
    changed.map_or_else(|| not_there("Assistant"), |changed| Reply::json(200, &changed))
}

fn delete(state: &SandboxState, organisation: &VapiOrganisation, id: &str) -> Reply {
    let mut assistants = lock(&state.0.assistants);
    if !assistants.is_of(&organisation.api_key, id) {
        return not_there("Assistant");
    }
    let deleted = assistants.delete(id);
    deleted.map_or_else(|| not_there("Assistant"), |deleted| Reply::json(200, &deleted))
}

fn not_there(kind: &str) -> Reply {
    error(404, &json!(format!("Couldn't Get {kind}. Does Not Exist.")))
}

/// The fields of a body that agrees with the description. That `null` clears a field is not
/// confirmed by it; the description names no other way.
fn read_fields(state: &SandboxState, call: &Call<'_>, operation: &'static str) -> Result<Map<String, Value>, Reply> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(call.body) else {
        return Err(error(400, &json!("Unexpected token in JSON")));
    };
    let is_update = operation == "AssistantController_update";
    let given = fields.iter().filter(|(_, value)| !(is_update && value.is_null()));
    let given = Value::Object(given.map(|(name, value)| (name.clone(), value.clone())).collect());
    let described = description::of(Provider::Vapi).expect("Vapi is described");
    let faults = described.check_body(operation, &given);
    if faults.is_empty() {
        return Ok(fields);
    }
    state.note(call, operation, &faults);
    Err(error(400, &json!(faults)))
}

/// Assistants that came over the API, each with the key of its organisation, oldest first.
#[derive(Default)]
pub(super) struct MadeAssistants(Vec<(String, Value)>);

/// Assistants kept: the oldest is forgotten.
const MADE_MAX: usize = 1_000;

impl MadeAssistants {
    pub(super) fn list(&self) -> Vec<Value> {
        self.0.iter().map(|(_, assistant)| assistant.clone()).collect()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn of(&self, api_key: &str) -> std::vec::IntoIter<Value> {
        let own = self.0.iter().filter(|(key, _)| key == api_key);
        own.map(|(_, assistant)| assistant.clone())
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn is_of(&self, api_key: &str, id: &str) -> bool {
        self.0
            .iter()
            .any(|(key, assistant)| key == api_key && assistant["id"] == id)
    }

    fn make(&mut self, api_key: &str, fields: Map<String, Value>, now: Timestamp) -> Value {
        let mut made = Value::Object(fields);
        made["id"] = uuid::Uuid::now_v7().to_string().into();
        made["orgId"] = ORGANISATION_ID.into();
        made["createdAt"] = rfc3339(now).into();
        made["updatedAt"] = rfc3339(now).into();
        if self.0.len() >= MADE_MAX {
            self.0.remove(0);
        }
        self.0.push((api_key.to_owned(), made.clone()));
        made
    }

    pub(super) fn change(&mut self, id: &str, fields: &Map<String, Value>) -> Option<Value> {
        let (_, assistant) = self.0.iter_mut().find(|(_, assistant)| assistant["id"] == id)?;
        let all = assistant.as_object_mut()?;
        for (name, value) in fields {
            if value.is_null() {
                all.remove(name);
            } else {
                all.insert(name.clone(), value.clone());
            }
        }
        Some(assistant.clone())
    }

    pub(super) fn delete(&mut self, id: &str) -> Option<Value> {
        let at = self.0.iter().position(|(_, assistant)| assistant["id"] == id)?;
        Some(self.0.remove(at).1)
    }
}

fn find(state: &SandboxState, organisation: &VapiOrganisation, root: &str, id: &str) -> Reply {
    if id.parse::<uuid::Uuid>().is_err() {
        return error(400, &json!("id must be a UUID"));
    }
    let (found, kind) = if root == "assistant" {
        let made = lock(&state.0.assistants).of(&organisation.api_key);
        let mut assistants = made.chain(organisation.assistants.iter().map(assistant_json));
        (assistants.find(|assistant| assistant["id"] == id), "Assistant")
    } else {
        let mut numbers = organisation.phone_numbers.iter();
        (numbers.find(|number| number.id == id).map(number_json), "Phone Number")
    };
    match found {
        Some(body) => Reply::json(200, &body),
        None => not_there(kind),
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
    let mut body = json!({
        "id": number.id, "orgId": ORGANISATION_ID, "createdAt": CREATED_AT, "updatedAt": CREATED_AT,
        "provider": "vapi", "status": "active", "number": number.number,
    });
    if let Some(account) = &number.twilio_account_sid {
        body["provider"] = "twilio".into();
        body["twilioAccountSid"] = account.as_str().into();
        // By the description Vapi shows it to whoever reads the number.
        body["twilioAuthToken"] = "canary-twilio-auth-token".into();
        if let Some(is_enabled) = number.sms_enabled {
            body["smsEnabled"] = is_enabled.into();
        }
    }
    body
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
