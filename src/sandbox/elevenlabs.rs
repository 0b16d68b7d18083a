//! ElevenLabs' stand-in: the account and its voices, as far as a key may see them. The licence of
//! its description does not let us keep it. Shapes and errors are those that elevenlabs-python
//! 2.78.0 reads and that ElevenLabs' documents list.

use super::{Call, ElevenLabsKey, Reply, SandboxState, lock};
use http::{Method, header::HeaderName};
use serde_json::{Value, json};

pub(super) fn answer(state: &SandboxState, call: &Call<'_>) -> Reply {
    let key = call.header(HeaderName::from_static("xi-api-key"));
    let known = lock(&state.0.elevenlabs)
        .iter()
        .find(|known| known.api_key == key && !key.is_empty())
        .cloned();
    let Some(known) = known else {
        return error(401, "invalid_api_key", "Invalid API key");
    };
    if call.parts.method != Method::GET {
        return Reply::json(405, &json!({"detail": "Method Not Allowed"}));
    }
    match call.parts.uri.path() {
        "/v1/user" => permitted(&known, "user_read").unwrap_or_else(|| {
            Reply::json(
                200,
                &json!({
                    "user_id": known.user_id, "first_name": "Sandbox", "is_new_user": false,
                    "xi_api_key": known.api_key, "is_api_key_hashed": false,
                    "subscription": {"tier": "creator", "character_count": 10, "character_limit": 100_000, "status": "active"},
                }),
            )
        }),
        "/v1/voices" | "/v2/voices" => permitted(&known, "voices_read")
            .unwrap_or_else(|| Reply::json(200, &json!({
                "voices": [],
                "has_more": false,
                "total_count": 0,
                "next_page_token": null,
            }))),
        _ => Reply::json(404, &json!({"detail": "Not Found"})),
    }
}

/// The 401 for a valid key without this permission.
fn permitted(known: &ElevenLabsKey, permission: &str) -> Option<Reply> {
    let is_missing = known.missing_permissions.iter().any(|missing| missing == permission);
    is_missing.then(|| {
        error(
            401,
            "missing_permissions",
            &format!("The API key you used is missing the permission {permission} to execute this operation."),
        )
    })
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(status, &json!({"detail": {"status": code, "message": message}}))
}

/// The body of an error that a fault asked for.
pub(super) fn error_body(status: u16) -> Value {
    let (code, message) = match status {
        401 | 403 => ("invalid_api_key", "Invalid API key"),
        429 => ("too_many_concurrent_requests", "Too many concurrent requests"),
        500.. => ("internal_server_error", "Internal server error"),
        _ => ("bad_request", "Bad request"),
    };
    json!({"detail": {"status": code, "message": message}})
}
