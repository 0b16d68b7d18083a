//! The body of a request, JSON with known fields only, and ids in its path.
//!
//! **Invariant:** a refusal names the field and the expected form, and never repeats a value.

use super::problem::{Code, Problem};
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, RawPathParams},
};
use http::{HeaderMap, Request, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use std::str::FromStr;

/// Largest body accepted, in bytes.
pub const BODY_BYTES_MAX: usize = 256 << 10;
const NAME_CHARS_MAX: usize = 64;

/// A JSON body. Every type that is read from one denies unknown fields.
pub struct Json<T>(pub T);

/// A JSON body, or none where every field has a default.
pub struct OptionalJson<T>(pub T);

/// A POST that takes no fields: no body, or `{}`.
pub struct NoFields;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let bytes = read(&head.headers, body).await?;
        check_media_type(&head.headers)?;
        parse(&bytes).map(Self)
    }
}

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let bytes = read(&head.headers, body).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_media_type(&head.headers)?;
        parse(&bytes).map(Self)
    }
}

impl<S: Sync> FromRequest<S> for NoFields {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        OptionalJson::<Nothing>::from_request(request, state)
            .await
            .map(|_| Self)
    }
}

pub async fn read(headers: &HeaderMap, body: Body) -> Result<bytes::Bytes, Problem> {
    let too_large =
        || Problem::new(Code::PayloadTooLarge).detail(format!("Bodies may have {BODY_BYTES_MAX} bytes at most."));
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Problem::new(Code::InvalidJson).detail("The body ended before it was whole.")),
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(not_json());
    };
    let text = value.to_str().unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    let is_json = parts
        .next()
        .is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    let is_utf8 =
        parts.all(|parameter| parameter.is_empty() || parameter.replace('"', "").eq_ignore_ascii_case("charset=utf-8"));
    if is_json && is_utf8 { Ok(()) } else { Err(not_json()) }
}

fn not_json() -> Problem {
    Problem::new(Code::UnsupportedMediaType).detail("Send the body as JSON, with Content-Type: application/json.")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would take the fields of an object from a list, by position.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(match serde_json::from_slice::<IgnoredAny>(bytes) {
            Ok(_) => Problem::field(Code::InvalidField, "body", "expected an object"),
            Err(error) => refusal(".", &error),
        });
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        refusal(&path, error.inner())
    })?;
    reader
        .end()
        .map_err(|_| Problem::new(Code::InvalidJson).detail("Something follows after the JSON value."))?;
    Ok(value)
}

/// Reads a part of a body that was kept as a JSON value.
///
/// # Errors
/// As for a body; fields begin with `field`.
pub fn parse_value<T: DeserializeOwned>(field: &str, value: serde_json::Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inside = error.path().to_string();
        let path = if inside == "." {
            field.to_owned()
        } else {
            format!("{field}.{inside}")
        };
        refusal(&path, error.inner())
    })
}

/// Reads a whole body that was taken as an object.
///
/// # Errors
/// As for a body.
pub fn parse_object<T: DeserializeOwned>(fields: serde_json::Map<String, serde_json::Value>) -> Result<T, Problem> {
    serde_path_to_error::deserialize(serde_json::Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        refusal(&path, error.inner())
    })
}

/// serde's message in words that repeat no value. Field names are the caller's own text, so they
/// are cut and cleaned.
fn refusal(path: &str, error: &serde_json::Error) -> Problem {
    use serde_json::error::Category;
    if error.classify() != Category::Data {
        return Problem::new(Code::InvalidJson).detail(format!(
            "The body is not JSON at line {}, column {}.",
            error.line(),
            error.column()
        ));
    }
    let message = error.to_string();
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(message, _)| message);
    let place = if path == "." { "" } else { path };
    let inner = |name: &str| {
        // The path to an unknown or repeated field holds the field already.
        if place == name || place.ends_with(&format!(".{name}")) {
            shown_name(place)
        } else if place.is_empty() {
            shown_name(name)
        } else {
            format!("{}.{}", shown_name(place), shown_name(name))
        }
    };
    let quoted = |prefix: &str| message.strip_prefix(prefix).and_then(|rest| rest.split('`').nth(1));
    if let Some(name) = quoted("unknown field ") {
        return Problem::field(Code::InvalidField, inner(name), "is not a known field here");
    }
    if let Some(name) = quoted("missing field ") {
        return Problem::field(Code::InvalidField, inner(name), "is required");
    }
    if let Some(name) = quoted("duplicate field ") {
        return Problem::field(Code::InvalidField, inner(name), "occurs more than once");
    }
    let problem = message.rsplit_once("expected ").map_or_else(
        || "is not valid".to_owned(),
        |(_, expected)| {
            // serde names structs of this program, which mean nothing to a caller.
            let expected = if expected.starts_with("struct ") {
                "an object"
            } else {
                expected
            };
            format!("expected {expected}")
        },
    );
    Problem::field(
        Code::InvalidField,
        if place.is_empty() {
            "body".to_owned()
        } else {
            shown_name(place)
        },
        problem,
    )
}

/// A name that the caller wrote, made safe to show: cut, and without anything but visible
/// characters.
#[must_use]
pub fn shown_name(name: &str) -> String {
    name.chars()
        .take(NAME_CHARS_MAX)
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '[' | ']' | '$' | '@') {
                c
            } else {
                '?'
            }
        })
        .collect()
}

/// The only parameter of the path. A text that does not parse is answered like an unknown id.
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found())?;
        let mut values = params.iter();
        match (values.next(), values.next()) {
            (Some((_, text)), None) => text.parse().map(Self).map_err(|_| Problem::not_found()),
            _ => Err(Problem::not_found()),
        }
    }
}

/// A text of 1 to `chars_max` characters without control characters, trimmed of nothing.
///
/// # Errors
/// Names the field and the limit.
pub fn check_text(field: &'static str, text: &str, chars_max: usize) -> Result<(), Problem> {
    let count = text.chars().count();
    if count == 0 || count > chars_max || text.chars().any(char::is_control) || text.trim() != text {
        return Err(Problem::field(
            Code::InvalidField,
            field,
            format!("expected 1 to {chars_max} characters, no control characters, and no blanks at the ends"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only what refuses is looked at")]
    struct Outer {
        name: String,
        count: Option<u32>,
        inner: Option<Inner>,
        many: Option<BTreeMap<String, Inner>>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only what refuses is looked at")]
    struct Inner {
        action: crate::domain::ActionKind,
    }

    #[test]
    fn a_refusal_names_the_field_and_repeats_no_value() {
        let table = [
            (
                r#"{"name":"SECRET","secret_canary":1}"#,
                "secret_canary",
                "is not a known field here",
            ),
            (
                r#"{"name":"SECRET","__proto__":{}}"#,
                "__proto__",
                "is not a known field here",
            ),
            (r"{}", "name", "is required"),
            (r#"{"name":7}"#, "name", "expected a string"),
            (r#"{"name":"SECRET","count":"SECRET"}"#, "count", "expected u32"),
            (r#"{"name":"SECRET","count":-1}"#, "count", "expected u32"),
            (r#"{"name":"a","name":"SECRET"}"#, "name", "occurs more than once"),
            (
                r#"{"name":"a","inner":{"action":"SECRET"}}"#,
                "inner.action",
                "expected one of `twilio.send_sms`, `http.post`, `resend.send_email`, `google_calendar.create_event`",
            ),
            (
                r#"{"name":"a","inner":{"action":"http.post","role":"SECRET"}}"#,
                "inner.role",
                "is not a known field here",
            ),
            (r#"{"name":"a","inner":{}}"#, "inner.action", "is required"),
            (
                r#"{"name":"a","many":{"x":{"id":"SECRET"}}}"#,
                "many.x.id",
                "is not a known field here",
            ),
            (r#"["SECRET"]"#, "body", "expected an object"),
            (r#""SECRET""#, "body", "expected an object"),
        ];
        for (body, field, said) in table {
            let problem = parse::<Outer>(body.as_bytes()).expect_err(body);
            let text = String::from_utf8(problem.body("r")).expect("JSON is UTF-8");
            assert!(!text.contains("SECRET"), "{body} → {text}");
            assert_eq!(problem.code, Code::InvalidField, "{body}");
            assert_eq!(
                (problem.errors[0].field.as_str(), problem.errors[0].problem.as_str()),
                (field, said),
                "{body}"
            );
        }
        for body in [
            "",
            "{",
            "[1",
            "nul",
            r#"{"name":"a"} {}"#,
            "\u{feff}{}",
            r#"{"name":"\ud800"}"#,
        ] {
            assert_eq!(
                parse::<Outer>(body.as_bytes()).expect_err("not JSON").code,
                Code::InvalidJson,
                "{}",
                &body[..body.len().min(20)]
            );
        }
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert_eq!(
            parse::<BTreeMap<String, serde_json::Value>>(deep.as_bytes())
                .expect_err("too deep")
                .code,
            Code::InvalidJson
        );
        assert_eq!(
            parse::<Outer>(b"{\"name\":\"\xff\"}").expect_err("not UTF-8").code,
            Code::InvalidJson
        );
    }
}
