//! Resend's stand-in: e-mails with idempotency keys, and domains. Errors are those of
//! resend.com/docs/api-reference/errors.

use super::{Call, Reply, ResendKey, SandboxState, description, lock};
use crate::domain::Provider;
use http::{
    Method,
    header::{AUTHORIZATION, HeaderName},
};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// E-mails that are kept.
const EMAILS_MAX: usize = 10_000;

/// An e-mail that the stand-in accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxEmail {
    pub id: String,
    pub api_key: String,
    pub idempotency_key: Option<String>,
    /// As it was sent.
    pub body: Value,
    at: String,
}

#[derive(Default)]
pub(super) struct Emails {
    sent: VecDeque<SandboxEmail>,
}

impl Emails {
    pub(super) fn list(&self) -> Vec<SandboxEmail> {
        self.sent.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.sent.clear();
    }

    /// The e-mail that was sent before with this idempotency key; an empty key is none.
    fn with_key(&self, known: &ResendKey, key: &str) -> Option<&SandboxEmail> {
        self.sent.iter().find(|email| {
            !key.is_empty() && email.api_key == known.api_key && email.idempotency_key.as_deref() == Some(key)
        })
    }
}

pub(super) fn answer(state: &SandboxState, call: &Call<'_>) -> Reply {
    let key = match call.header(AUTHORIZATION).strip_prefix("Bearer ") {
        None | Some("") => return error(401, "missing_api_key", "Missing API key in the authorization header"),
        Some(key) => key,
    };
    let Some(known) = lock(&state.0.resend).iter().find(|known| known.api_key == key).cloned() else {
        return error(403, "invalid_api_key", "API key is invalid");
    };
    let path = call.parts.uri.path();
    match (&call.parts.method, path) {
        (&Method::POST, "/emails") => send(state, call, &known),
        // A key that may only send gets 401 for everything else.
        _ if known.is_sending_only => error(
            401,
            "restricted_api_key",
            "This API key is restricted to only send emails",
        ),
        (&Method::GET, "/domains") => {
            let rows: Vec<Value> = known
                .domains
                .iter()
                .map(|name| {
                    json!({
                        "id": "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be010",
                        "name": name,
                        "status": "verified",
                        "created_at": "2026-01-01T00:00:00.000Z",
                        "region": "us-east-1",
                    })
                })
                .collect();
            Reply::json(200, &json!({"object": "list", "has_more": false, "data": rows}))
        }
        (&Method::GET, path) => {
            let id = path.strip_prefix("/emails/").unwrap_or_default();
            let found = lock(&state.0.emails)
                .sent
                .iter()
                .find(|email| email.id == id && email.api_key == known.api_key)
                .cloned();
            found.map_or_else(
                || error(404, "not_found", "Email not found"),
                |email| Reply::json(200, &email_json(&email)),
            )
        }
        _ => error(
            405,
            "method_not_allowed",
            "Method is not allowed for the requested path",
        ),
    }
}

fn send(state: &SandboxState, call: &Call<'_>, known: &ResendKey) -> Reply {
    const OPERATION: &str = "emails/send";
    let key = call.header(HeaderName::from_static("idempotency-key")).to_owned();
    if key.len() > 256 {
        return error(400, "invalid_idempotency_key", "The key must be between 1-256 chars");
    }
    let Ok(body) = serde_json::from_slice::<Value>(call.body) else {
        return error(422, "validation_error", "The body is not JSON");
    };
    let faults = description::of(Provider::Resend)
        .expect("Resend is described")
        .check_body(OPERATION, &body);
    state.note(call, OPERATION, &faults);
    if !faults.is_empty() {
        return error(422, "validation_error", &faults.join("; "));
    }
    if let Some(refused) = refused(&body, known) {
        return refused;
    }
    let mut emails = lock(&state.0.emails);
    if let Some(earlier) = emails.with_key(known, &key) {
        return if earlier.body == body {
            Reply::json(200, &json!({"id": earlier.id}))
        } else {
            error(
                409,
                "invalid_idempotent_request",
                "Same idempotency key used with a different request payload",
            )
        };
    }
    if emails.sent.len() == EMAILS_MAX {
        emails.sent.pop_front();
    }
    let id = uuid::Uuid::now_v7().to_string();
    let idempotency_key = (!key.is_empty()).then_some(key);
    emails.sent.push_back(SandboxEmail {
        id: id.clone(),
        api_key: known.api_key.clone(),
        idempotency_key,
        body,
        at: super::record::rfc3339(state.now()),
    });
    Reply::json(200, &json!({"id": id}))
}

/// Why an e-mail is refused although it agrees with the description.
fn refused(body: &Value, known: &ResendKey) -> Option<Reply> {
    let from = body["from"].as_str().unwrap_or_default();
    let domain = from.rsplit('@').next().unwrap_or_default().trim_end_matches('>');
    if !from.contains('@') {
        return Some(error(
            422,
            "invalid_from_address",
            "Invalid `from` field. The email address needs to follow the `email@example.com` or `Name \
            <email@example.com>` format",
        ));
    }
    if !known.domains.iter().any(|verified| verified == domain) {
        let message = format!("The {domain} domain is not verified. Please, add and verify your domain");
        return Some(error(403, "validation_error", &message));
    }
    (body["text"].is_null() && body["html"].is_null())
        .then(|| error(422, "validation_error", "Missing `html` or `text` field."))
}

fn email_json(email: &SandboxEmail) -> Value {
    let list = |value: &Value| {
        if value.is_string() {
            json!([value])
        } else {
            value.clone()
        }
    };
    json!({
        "object": "email", "id": email.id, "to": list(&email.body["to"]), "from": email.body["from"],
        "created_at": email.at,
        "subject": email.body["subject"], "last_event": "delivered",
    })
}

fn error(status: u16, name: &str, message: &str) -> Reply {
    Reply::json(status, &json!({"statusCode": status, "name": name, "message": message}))
}

/// The body of an error that a fault asked for.
pub(super) fn error_body(status: u16) -> Value {
    let (name, message) = match status {
        401 => ("missing_api_key", "Missing API key in the authorization header"),
        403 => ("invalid_api_key", "API key is invalid"),
        404 => ("not_found", "The requested endpoint does not exist"),
        429 => (
            "rate_limit_exceeded",
            "Too many requests. Please limit the number of requests per second",
        ),
        500.. => ("internal_server_error", "An unexpected error occurred"),
        _ => (
            "validation_error",
            "We found an error with one or more fields in the request",
        ),
    };
    json!({"statusCode": status, "name": name, "message": message})
}
