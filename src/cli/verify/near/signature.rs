//! Changes of the signature's header: its spelling, its encoding, and several of it.

use super::{Change, Signed, change};
use crate::source::{Plan, VapiPlan};
use base64::{Engine, engine::general_purpose as base64s};
use http::{HeaderName, HeaderValue};

pub(super) fn changes(request: &Signed, changes: &mut Vec<Change>) {
    let Some((name, prefix)) = header_of(&request.plan) else {
        return;
    };
    let Ok(name) = HeaderName::try_from(name) else { return };
    let values: Vec<&str> = request
        .headers
        .get_all(&name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(|value| value.strip_prefix(prefix).unwrap_or(value))
        .collect();
    let mut with = |hint: &str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(&format!("{prefix}{text}")) {
            change(request, changes, hint, |request| {
                drop(request.headers.insert(&name, value));
            });
        }
    };
    if values.len() > 1 {
        for value in &values {
            with("with one signature: the header occurs more than once", value);
        }
    }
    let Some(text) = values.first().map(|value| value.trim()) else {
        return;
    };
    with("with the signature in lower case", &text.to_lowercase());
    with("with the signature without surrounding white space", text);
    for before in ["sha256=", "sha1=", "v1,", "0x"] {
        if let Some(bare) = text.strip_prefix(before) {
            with(&format!("with the signature without {before:?} before it"), bare);
        }
    }
    encodings(text, &mut with);
}

/// The header that holds the signature, and the text before it; a bearer plan has no signature.
fn header_of(plan: &Plan) -> Option<(String, &str)> {
    match plan {
        Plan::Twilio(_) => Some(("x-twilio-signature".to_owned(), "")),
        Plan::Vapi(VapiPlan::Hmac(plan)) => {
            let text = plan.text();
            let header = text.signature_header.as_deref().unwrap_or("x-signature").to_lowercase();
            Some((header, text.signature_prefix.as_deref().unwrap_or_default()))
        }
        Plan::Vapi(VapiPlan::Bearer(_)) => None,
    }
}

fn encodings(text: &str, with: &mut impl FnMut(&str, &str)) {
    if let Ok(bytes) = hex::decode(text) {
        with(
            "with the signature in base64, not in hex",
            &base64s::STANDARD.encode(bytes),
        );
    }
    if let Ok(bytes) = base64s::STANDARD.decode(text) {
        with("with the signature in hex, not in base64", &hex::encode(bytes));
    }
    if let Ok(bytes) = base64s::STANDARD_NO_PAD.decode(text) {
        with(
            "with the padding (=) of the signature's base64",
            &base64s::STANDARD.encode(bytes),
        );
    }
    if let Ok(bytes) = base64s::URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')) {
        with(
            "with the standard alphabet of base64 in the signature, not the one for URLs",
            &base64s::STANDARD.encode(bytes),
        );
    }
}
