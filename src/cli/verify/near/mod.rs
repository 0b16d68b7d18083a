//! Near misses: finds a single change with which a request would verify.

mod body;
mod plan;
mod signature;
mod url;

use super::case::Signed;
use crate::{
    domain::{SecretBytes, Timestamp},
    source::{HmacPlanText, Plan, Refusal, VapiPlan},
};
use base64::{Engine, engine::general_purpose as base64s};
use http::{HeaderName, HeaderValue};

/// A change in words, and the changed request.
type Change = (String, Signed);

/// The first single change with which the request verifies. Frequent mistakes are tried first.
pub(super) fn hint(request: &Signed, refusal: Refusal) -> Option<String> {
    if let Some(hint) = about_time(request, refusal) {
        return Some(hint);
    }
    let groups: [fn(&Signed, &mut Vec<Change>); 6] = [
        url::changes,
        secrets,
        timestamps,
        plan::changes,
        signature::changes,
        body::changes,
    ];
    groups.iter().find_map(|group| {
        let mut changes = Vec::new();
        group(request, &mut changes);
        changes
            .into_iter()
            .find(|(_, changed)| changed.verdict().is_ok())
            .map(|(hint, _)| format!("it would verify {hint}"))
    })
}

fn change(request: &Signed, changes: &mut Vec<Change>, hint: impl Into<String>, with: impl FnOnce(&mut Signed)) {
    let mut changed = request.clone();
    with(&mut changed);
    changes.push((hint.into(), changed));
}

/// The timestamp is judged after the signature has matched, so these requests are authentic.
fn about_time(request: &Signed, refusal: Refusal) -> Option<String> {
    if !matches!(refusal, Refusal::TooOld | Refusal::TooFarAhead) {
        return None;
    }
    let plan = hmac_plan(request)?;
    let header: i64 = request
        .header(plan.timestamp_header.as_deref().unwrap_or("x-timestamp"))?
        .parse()
        .ok()?;
    let signed = if header < 100_000_000_000 {
        header
    } else {
        header / 1000
    };
    let (window, off) = (
        plan.replay_window_seconds.unwrap_or(300),
        request.now.as_seconds() - signed,
    );
    let mut at = request.clone();
    at.now = Timestamp::from_seconds(signed);
    at.verdict().ok()?;
    let side = if off > 0 { "before" } else { "after" };
    Some(format!(
        "the signature is right; it was made {} s {side} `now`, and the plan's window is {window} s: look at both \
        clocks, or raise replayWindowSeconds",
        off.abs()
    ))
}

fn hmac_plan(request: &Signed) -> Option<&HmacPlanText> {
    match &request.plan {
        Plan::Vapi(VapiPlan::Hmac(plan)) => Some(plan.text()),
        _ => None,
    }
}

fn secrets(request: &Signed, changes: &mut Vec<Change>) {
    let secret = request.secret.expose_secret();
    let mut with = |hint: &str, bytes: Vec<u8>| {
        if bytes != secret && !bytes.is_empty() {
            change(request, changes, hint, |request| {
                request.secret = SecretBytes::new(bytes);
            });
        }
    };
    with(
        "with the secret trimmed of its surrounding white space",
        secret.trim_ascii().to_vec(),
    );
    with(
        "with the secret untrimmed: signed with a line feed at its end",
        [secret, b"\n"].concat(),
    );
    with(
        "with the secret untrimmed: signed with a carriage return and line feed at its end",
        [secret, b"\r\n"].concat(),
    );
    with(
        "with the secret untrimmed: signed with a space at its end",
        [secret, b" "].concat(),
    );
    with(
        "with the secret untrimmed: signed with a space at its front",
        [b" ", secret].concat(),
    );
    if let Some(inner) = secret.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
        with("with the secret without its quotation marks", inner.to_vec());
    }
    if let Ok(decoded) = base64s::STANDARD.decode(secret) {
        with("with the secret decoded from base64 (secretIsBase64)", decoded);
    }
    if let Ok(decoded) = hex::decode(secret) {
        with("with the secret decoded from hex", decoded);
    }
    if let Some(decoded) = secret
        .strip_prefix(b"whsec_")
        .and_then(|rest| base64s::STANDARD.decode(rest).ok())
    {
        with(
            "with the part of the secret behind whsec_, decoded from base64",
            decoded,
        );
    }
    with("with the secret in lower case", secret.to_ascii_lowercase());
    with("with the secret in upper case", secret.to_ascii_uppercase());
}

fn timestamps(request: &Signed, changes: &mut Vec<Change>) {
    let Some(plan) = hmac_plan(request) else { return };
    let name = plan.timestamp_header.as_deref().unwrap_or("x-timestamp").to_lowercase();
    let Some(text) = request.header(&name) else { return };
    let mut with = |hint: &str, text: String| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(&name), HeaderValue::from_str(&text)) {
            change(request, changes, hint, |request| {
                drop(request.headers.insert(name, value));
            });
        }
    };
    with("with the timestamp as milliseconds", format!("{text}000"));
    if text.len() > 3 && text.is_ascii() {
        with("with the timestamp as seconds", text[..text.len() - 3].to_owned());
    }
    if let Some((whole, _)) = text.split_once('.') {
        with("with the timestamp as whole seconds", whole.to_owned());
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        with(
            "with the timestamp as seconds, not as a date",
            time.as_second().to_string(),
        );
        with(
            "with the timestamp as milliseconds, not as a date",
            time.as_millisecond().to_string(),
        );
    }
}
