//! `Idempotency-Key` on POST (draft-ietf-httpapi-idempotency-key-header): the same request with the
//! same key is answered once more with the same answer, and does nothing.
//!
//! **Invariant:** a key belongs to one person in one role, and is kept for a day. Only what
//! succeeded is kept, sealed, because it may show a secret once; a refusal changed nothing, and
//! frees its key.

use super::{
    body,
    problem::{Code, Problem},
    token::Member,
};
use crate::{
    admin::AdminState,
    domain::SecretBytes,
    store::callers::{Hash, KeyedRequest},
    vault::Purpose,
};
use axum::{
    body::Body,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Stands on an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const KEY_BYTES_MAX: usize = 255;
const KEPT: Duration = Duration::from_hours(24);
/// A request without an answer after this long was cut off: none may take so long.
const STUCK: Duration = Duration::from_mins(1);
/// The headers of an answer that are given again.
const HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, header::ETAG];

#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Whether the request carries a key that counts.
#[must_use]
pub fn is_keyed(parts: &Parts) -> bool {
    parts.method == Method::POST && parts.headers.contains_key(KEY)
}

/// Sends a keyed request on, or answers it as before.
pub async fn run(state: &AdminState, member: &Member, parts: Parts, body: Body, next: Next) -> Response {
    match answer(state, member, parts, body, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn answer(
    state: &AdminState,
    member: &Member,
    parts: Parts,
    body: Body,
    next: Next,
) -> Result<Response, Problem> {
    let key = read_key(&parts)?;
    let bytes = body::read(&parts.headers, body).await?;
    let key_hash = hash(&[
        member.subject.as_bytes(),
        member.role.as_str().as_bytes(),
        key.as_bytes(),
    ]);
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let request_hash = hash(&[parts.method.as_str().as_bytes(), target.as_bytes(), &bytes]);
    let now = state.now();
    let taken = state
        .store
        .take_request_key(member.org, key_hash, request_hash, now - KEPT, now - STUCK)
        .await?;
    if let Some(response) = answer_without_work(state, member, taken).await? {
        return Ok(response);
    }
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    let is_kept = response.status().is_success() && !response.headers().contains_key(header::SET_COOKIE);
    if is_kept {
        keep(state, member, key_hash, response).await
    } else {
        state.store.answer_request_key(member.org, key_hash, None).await?;
        Ok(response)
    }
}

/// The answer to a request whose key was seen before. `None`: the request is the first one.
async fn answer_without_work(
    state: &AdminState,
    member: &Member,
    taken: KeyedRequest,
) -> Result<Option<Response>, Problem> {
    match taken {
        KeyedRequest::First => Ok(None),
        KeyedRequest::Answered(sealed) => {
            let read = |plain: &SecretBytes| serde_json::from_slice(plain.expose_secret()).ok();
            let kept: Option<KeptAnswer> = state.vault.open(member.org, Purpose::Answer, &sealed, read).await?;
            kept.ok_or(Problem::new(Code::Internal)).map(again).map(Some)
        }
        KeyedRequest::InProgress => Err(Problem::new(Code::IdempotencyKeyInUse)
            .detail("The first request with this Idempotency-Key has not been answered yet.")
            .retry_after(Duration::from_secs(1))),
        KeyedRequest::Other => Err(Problem::new(Code::IdempotencyKeyReused)
            .detail("This Idempotency-Key came with another request. Take another key for another request.")),
    }
}

/// Seals an answer, so that the same request gets it again.
async fn keep(state: &AdminState, member: &Member, key_hash: Hash, response: Response) -> Result<Response, Problem> {
    let (head, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => return Err(Problem::new(Code::Internal)),
    };
    let text = |name: &HeaderName| {
        let value = head.headers.get(name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    };
    let kept = KeptAnswer {
        status: head.status.as_u16(),
        headers: HEADERS.iter().filter_map(text).collect(),
        body: String::from_utf8_lossy(&bytes).into_owned(),
    };
    let plain = SecretBytes::new(serde_json::to_vec(&kept).map_err(|_| Problem::new(Code::Internal))?);
    let sealed = state
        .vault
        .seal(member.org, Purpose::Answer, plain.expose_secret())
        .await?;
    // The request is done: an answer that cannot be kept must not make a failure of it.
    if let Err(error) = state.store.answer_request_key(member.org, key_hash, Some(sealed)).await {
        tracing::warn!(error = %error, "The answer to a request with an Idempotency-Key could not be kept");
    }
    Ok(Response::from_parts(head, Body::from(bytes)))
}

fn again(kept: KeptAnswer) -> Response {
    let mut response = Response::new(Body::from(kept.body));
    *response.status_mut() = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    for (name, value) in kept.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// The key: a text in quotes as the draft has it, or the same without quotes.
fn read_key(parts: &Parts) -> Result<&str, Problem> {
    let mut values = parts.headers.get_all(KEY).iter();
    let text = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    };
    let bare = text.map(|text| {
        text.strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
            .unwrap_or(text)
    });
    let is_key = |text: &&str| {
        (1..=KEY_BYTES_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b','))
    };
    bare.filter(is_key).ok_or_else(|| {
        Problem::new(Code::IdempotencyKeyInvalid).detail(format!(
            "Send one Idempotency-Key of 1 to {KEY_BYTES_MAX} visible ASCII characters, such as a UUID in quotes."
        ))
    })
}

/// Over the parts with their lengths in front: no two lists of parts make one text.
fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}
