//! Signed webhooks, made the way the providers' documentation says and without the code under test.

use super::{client, dev::Dev};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// A Vapi message of one call of the demo's assistant.
pub fn vapi(kind: &str, call: &str, assistant: &str, more: &Value) -> Vec<u8> {
    let mut message = json!({
        "type": kind,
        "timestamp": 1_773_068_003_417_u64,
        "call": {
            "id": call,
            "orgId": "adf7ff8a-041c-4921-b9af-addb4795b8e6",
            "assistantId": assistant,
            "type": "inboundPhoneCall",
        },
        "customer": { "number": "+15552010188" },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        message[name] = value.clone();
    }
    serde_json::to_vec(&json!({ "message": message })).expect("JSON")
}

pub fn end_of_call(call: &str, assistant: &str) -> Vec<u8> {
    vapi(
        "end-of-call-report",
        call,
        assistant,
        &json!({ "endedReason": "customer-ended-call", "artifact": { "transcript": "" }, "analysis": {} }),
    )
}

/// Hex HMAC-SHA256 over the body.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// Posts a body to the shared URL, signed with the demo's secret.
pub async fn post(dev: &Dev, body: Vec<u8>) -> u16 {
    post_with(dev, &sign(&dev.get("vapi_secret"), &body), body).await
}

pub async fn post_with(dev: &Dev, signature: &str, body: Vec<u8>) -> u16 {
    let request = client()
        .post(format!("{}/webhooks/vapi", dev.get("ingress")))
        .header("content-type", "application/json")
        .header("x-vapi-signature", signature);
    request
        .body(body)
        .send()
        .await
        .expect("ingress answers")
        .status()
        .as_u16()
}

pub fn call_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
