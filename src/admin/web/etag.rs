//! Versions of a resource as entity tags. A PUT without a tag is 428, a PUT with an old tag is 412.
//!
//! **Invariant:** a tag is made over the organisation, the resource and the version, so that the
//! tag of one resource never matches another.

use super::problem::{Code, Problem};
use crate::{domain::OrgId, vault::Vault};
use axum::Json;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use std::fmt::Display;

/// The tag of a version, quoted.
#[must_use]
pub fn tag(vault: &Vault, org: OrgId, kind: &str, id: impl Display, version: i64) -> String {
    let print = vault
        .fingerprint(org, format!("etag:{kind}:{id}:{version}").as_bytes())
        .0;
    format!("\"{version}-{}\"", &print[..print.len().min(16)])
}

#[must_use]
pub fn header_value(tag: &str) -> HeaderValue {
    HeaderValue::from_str(tag).expect("a tag is digits and hex in quotes")
}

/// An answer that shows one resource, with its tag as a header too.
pub fn tagged<T: Serialize>(view: T, tag: impl FnOnce(&T) -> &str) -> ([(HeaderName, HeaderValue); 1], Json<T>) {
    ([(header::ETAG, header_value(tag(&view)))], Json(view))
}

/// Compares `If-Match` with the current tag. An absent header passes here; see [`require`].
///
/// # Errors
/// 400 where a tag has no quotes. 412 where none of them is the current tag: `*` is any current
/// one, and a weak tag never matches (RFC 9110, section 13.1.1).
pub fn check(headers: &HeaderMap, current: &str) -> Result<(), Problem> {
    let invalid =
        || Problem::new(Code::IfMatchInvalid).detail("If-Match takes the ETag of the last answer, with its quotes.");
    let mut tags = Vec::new();
    // Several lines of the header are one list.
    for value in headers.get_all(header::IF_MATCH) {
        let text = value.to_str().map_err(|_| invalid())?;
        tags.extend(text.split(',').map(str::trim));
    }
    if tags.is_empty() || tags == ["*"] {
        return Ok(());
    }
    let is_quoted = |text: &str| text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    if !tags.iter().all(|tag| is_quoted(tag.strip_prefix("W/").unwrap_or(tag))) {
        return Err(invalid());
    }
    if tags.contains(&current) { Ok(()) } else { Err(stale()) }
}

/// As [`check`]. Returns the version that the write has to find, where the client named one: it may
/// change between this check and the write.
///
/// # Errors
/// As [`check`].
pub fn checked(headers: &HeaderMap, current: &str, version: i64) -> Result<Option<i64>, Problem> {
    check(headers, current)?;
    Ok(headers.contains_key(header::IF_MATCH).then_some(version))
}

/// As [`check`], for methods that must carry it.
///
/// # Errors
/// 428 where the header is missing; else as [`check`].
pub fn require(headers: &HeaderMap, current: &str) -> Result<(), Problem> {
    if headers.contains_key(header::IF_MATCH) {
        check(headers, current)
    } else {
        Err(Problem::new(Code::PreconditionRequired).detail("Send the ETag of the version that you read as If-Match."))
    }
}

/// The status of a POST that makes a resource, or proves one again that was there.
#[must_use]
pub const fn status_of(was_there: bool) -> StatusCode {
    if was_there { StatusCode::OK } else { StatusCode::CREATED }
}

/// The answer to a change of a version that is no longer the current one.
#[must_use]
pub fn stale() -> Problem {
    Problem::new(Code::PreconditionFailed)
        .detail("Read it again, apply your change to what you find, and send the ETag that came with it.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(values: &[&str]) -> u16 {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_str(value).expect("visible ASCII"));
        }
        require(&headers, "\"3-abc\"").map_or_else(|problem| problem.code.status(), |()| 200)
    }

    #[test]
    fn the_current_strong_tag_passes_alone_or_in_a_list() {
        let table: [(&[&str], u16); 13] = [
            (&["\"3-abc\""], 200),
            (&[" \"3-abc\" "], 200),
            (&[], 428),
            (&["*"], 200),
            (&["*", "\"3-abc\""], 400),
            (&["W/\"3-abc\""], 412),
            (&["\"2-abc\", \"3-abc\""], 200),
            (&["\"2-abc\"", "\"3-abc\""], 200),
            (&["\"1-abc\", W/\"3-abc\""], 412),
            (&["\"2-abc\""], 412),
            (&["3-abc"], 400),
            (&["\"3-abc"], 400),
            (&[""], 400),
        ];
        for (values, expected) in table {
            assert_eq!(said(values), expected, "{values:?}");
        }
    }
}
