//! `/_…`: requests of tests and people to the sandbox itself.

use super::{Accounts, Fault, Reply, SandboxState, form, lock};
use http::{Method, request::Parts};
use serde_json::{Value, json};

pub(super) fn answer(state: &SandboxState, parts: &Parts, body: &[u8], is_local: bool) -> Reply {
    let wrong = |status, problem: &str| Reply::json(status, &json!({"error": problem}));
    match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/_requests") => {
            let query = parts
                .uri
                .query()
                .map(|query| form::parse(query.as_bytes()))
                .unwrap_or_default();
            let provider = match form::get(&query, "provider").map(str::parse).transpose() {
                Ok(provider) => provider,
                Err(problem) => return wrong(400, &format!("provider: {problem}")),
            };
            let requests = lock(&state.0.records).list(provider);
            Reply::json(200, &requests.iter().map(super::Request::to_json).collect())
        }
        (&Method::GET, "/_violations") => Reply::json(200, &json!(state.violations())),
        (&Method::GET, "/_faults") => Reply::json(200, &json!(lock(&state.0.faults).0)),
        (&Method::POST, "/_faults") => match serde_json::from_slice::<Fault>(body) {
            Err(error) => wrong(400, &format!("not a fault: {error}")),
            Ok(fault) => {
                if let Some(problem) = problem_of(&fault) {
                    return wrong(400, problem);
                }
                let shown = json!(fault);
                state.add_fault(fault);
                Reply::json(201, &shown)
            }
        },
        (&Method::DELETE, "/_faults") => {
            state.clear_faults();
            Reply::json(200, &json!([]))
        }
        // Accounts carry secrets, and decide which requests the stand-ins accept.
        (&Method::POST, "/_accounts") if !is_local => wrong(403, "accounts are registered from this machine only"),
        (&Method::POST, "/_accounts") => match read_accounts(body) {
            Err(problem) => wrong(400, &problem),
            Ok(accounts) => {
                let counts = json!({
                    "accounts": accounts.accounts.len(),
                    "vapi": accounts.vapi.len(),
                    "resend": accounts.resend.len(),
                    "elevenlabs": accounts.elevenlabs.len(),
                    "google_clients": accounts.google_clients.len(),
                    "google_accounts": accounts.google_accounts.len(),
                });
                state.register(accounts);
                Reply::json(201, &counts)
            }
        },
        (&Method::POST, "/_reset") => {
            state.reset();
            Reply::json(200, &Value::Object(serde_json::Map::new()))
        }
        _ => wrong(
            404,
            "known are GET /_requests, GET /_violations, GET, POST and DELETE /_faults, POST /_accounts, POST /_reset",
        ),
    }
}

fn problem_of(fault: &Fault) -> Option<&'static str> {
    if fault.times == Some(0) {
        return Some("times: at least 1");
    }
    if fault.status.is_some_and(|status| !(200..=599).contains(&status)) {
        return Some("status: 200 to 599");
    }
    if fault.status.is_none() && fault.drop.is_none() && fault.delay_ms.is_none() {
        return Some("a fault needs one of status, drop and delay_ms");
    }
    if fault.status.is_some() && fault.drop.is_some() {
        return Some("status and drop exclude each other: use accept beside status");
    }
    None
}

fn read_accounts(body: &[u8]) -> Result<Accounts, String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| format!("not accounts: {}: {}", error.path(), without_value(error.inner())))
}

/// The position of an error in JSON, without the text there.
fn without_value(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}
