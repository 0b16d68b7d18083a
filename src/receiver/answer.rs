//! The status table: the answers that a sender gets.

use crate::{
    domain::{ProblemCode, Source},
    reply::{self, Reply},
    source::AnswerKind,
    telemetry::catalogue,
};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use uuid::Uuid;

/// Why a request was refused. The sender learns the status only; people read the cause in
/// rejections and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Cause {
    BadSignature,
    TooOld,
    UnknownRoute,
    ConflictingRoute,
    NotTheFormat,
    TooLarge,
    UnsupportedMediaType,
    HeadersTooLarge,
    PathTooLong,
    Timeout,
    NotFound,
    MethodNotAllowed,
    RateLimited,
    HopLimit,
    Unavailable,
}

impl Cause {
    #[cfg(test)]
    pub(super) const ALL: [Self; 15] = [
        Self::BadSignature,
        Self::TooOld,
        Self::UnknownRoute,
        Self::ConflictingRoute,
        Self::NotTheFormat,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::HeadersTooLarge,
        Self::PathTooLong,
        Self::Timeout,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RateLimited,
        Self::HopLimit,
        Self::Unavailable,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::BadSignature => "bad_signature",
            Self::TooOld => "too_old",
            Self::UnknownRoute => "unknown_route",
            Self::ConflictingRoute => "conflicting_route",
            Self::NotTheFormat => "not_the_format",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::HeadersTooLarge => "headers_too_large",
            Self::PathTooLong => "path_too_long",
            Self::Timeout => "timeout",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::HopLimit => "hop_limit",
            Self::Unavailable => "unavailable",
        }
    }

    /// Every request that no secret verifies gets one status, and so one answer.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::BadSignature | Self::TooOld | Self::UnknownRoute | Self::ConflictingRoute | Self::HopLimit => {
                StatusCode::UNAUTHORIZED
            }
            Self::NotTheFormat => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::PathTooLong => StatusCode::URI_TOO_LONG,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Statuses of answers, as labels of the histogram in the order of [`Meters`].
pub(super) const STATUSES: [&str; 12] = [
    "200", "400", "401", "404", "405", "408", "413", "414", "415", "429", "431", "503",
];

/// The code of a refusal, and the words for its sender.
const fn problem_of(cause: Cause) -> (ProblemCode, &'static str) {
    use ProblemCode as Code;
    match cause {
        Cause::NotTheFormat => (Code::NotTheFormat, "This is not a webhook of this source."),
        Cause::BadSignature | Cause::TooOld | Cause::UnknownRoute | Cause::ConflictingRoute | Cause::HopLimit => {
            (Code::NotVerified, "No valid secret verifies this request.")
        }
        Cause::NotFound => (
            Code::NotFound,
            "Webhooks go to /webhooks/{source} or /webhooks/{source}/{endpoint_id}.",
        ),
        Cause::MethodNotAllowed => (Code::MethodNotAllowed, "Webhooks are sent with POST."),
        Cause::Timeout => (Code::RequestTimeout, "The body did not arrive in time."),
        Cause::TooLarge => (Code::PayloadTooLarge, "The body is over the limit."),
        // The listener answers heads that are too large itself; its rejection has no body of ours.
        Cause::PathTooLong | Cause::HeadersTooLarge => {
            (Code::PathTooLong, "The path with its query is over the limit.")
        }
        Cause::UnsupportedMediaType => (
            Code::UnsupportedMediaType,
            "The source does not send this content type or encoding.",
        ),
        Cause::RateLimited => (Code::RateLimited, "Too many requests with ids that lead nowhere."),
        Cause::Unavailable => (
            Code::Unavailable,
            "The event cannot be taken now. Send it again after the time in Retry-After.",
        ),
    }
}

/// A refusal without its end, the request's id: the same bytes each time, and nothing of the
/// request.
fn problem(cause: Cause) -> String {
    let (code, detail) = problem_of(cause);
    format!(
        r#"{{"type":"about:blank","title":"{}","status":{},"detail":"{detail}","code":"{}""#,
        code.title(),
        code.status(),
        code.as_str()
    )
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The problem with the rejection's id, in the body and in the header, as in the admin API. People
/// find the request by it. Every id has the same length, so that answers of one status differ in
/// nothing else.
pub(super) fn refused(cause: Cause, request_id: Uuid) -> Response {
    let status = cause.status();
    let mut text = Uuid::encode_buffer();
    let id: &str = request_id.hyphenated().encode_lower(&mut text);
    let problem = [&*problem(cause), r#","request_id":""#, id, r#""}"#].concat();
    let mut response = Response::new(Body::from(problem));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(REQUEST_ID, HeaderValue::from_str(id).expect("a UUID is visible ASCII"));
    if status == StatusCode::UNAUTHORIZED {
        // Every 401 names a scheme (RFC 9110, section 15.5.2); webhooks are signed.
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Signature"));
    }
    match cause {
        Cause::MethodNotAllowed => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        Cause::RateLimited => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // Long enough for a restart or a failover to get somewhere.
        Cause::Unavailable => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        // The rest of the body would be read as the next request.
        Cause::Timeout | Cause::TooLarge => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}

/// A 200 as the source expects it.
pub(super) fn accepted(kind: AnswerKind, body: &[u8]) -> Response {
    let (content_type, answer) = match kind {
        AnswerKind::VapiAck => ("application/json", Bytes::from_static(b"{}")),
        AnswerKind::VapiQuestion(question) => {
            let Reply { content_type, body } = reply::minimal_answer(question, body);
            (content_type, body)
        }
        AnswerKind::Twiml => ("text/xml", Bytes::from_static(b"<Response/>")),
        AnswerKind::Empty => return Response::new(Body::empty()),
    };
    let mut response = Response::new(Body::from(answer));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer with the id of the event that it is about, so that a proxy's log leads to the event.
pub(super) fn with_id(mut response: Response, event: &Uuid) -> Response {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = event.as_hyphenated().encode_lower(&mut text);
    let value = HeaderValue::from_str(text).expect("a UUID is visible ASCII");
    response.headers_mut().insert(REQUEST_ID, value);
    response
}

/// Handles of the metrics that each request touches: a look-up for each would cost more than
/// recording.
pub(super) struct Meters {
    receive: [[metrics::Histogram; STATUSES.len()]; 3],
}

impl Meters {
    pub(super) fn new() -> Self {
        let of = |source| STATUSES.map(|status| catalogue::RECEIVE_SECONDS.histogram(&[source, status]));
        Self {
            receive: [
                of(label(Some(Source::Vapi))),
                of(label(Some(Source::Twilio))),
                of(label(None)),
            ],
        }
    }

    pub(super) fn received(&self, source: Option<Source>, status: StatusCode, seconds: f64) {
        let place = STATUSES
            .iter()
            .position(|known| *known == status.as_str())
            .expect("every answer's status is listed");
        let row = match source {
            Some(Source::Vapi) => 0,
            Some(Source::Twilio) => 1,
            _ => 2,
        };
        self.receive[row][place].record(seconds);
    }
}

/// A source as metrics say it.
pub(super) const fn label(source: Option<Source>) -> &'static str {
    match source {
        Some(source) => source.as_str(),
        None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_in_the_catalogue_and_has_a_listed_status_and_a_problem_of_its_own() {
        assert_eq!(Cause::ALL.map(Cause::as_str), catalogue::REJECTION_CAUSES);
        for cause in Cause::ALL {
            let status = cause.status();
            assert!(STATUSES.contains(&status.as_str()), "{cause:?}");
            if cause == Cause::HeadersTooLarge {
                continue; // the listener answers it
            }
            let problem: serde_json::Value = serde_json::from_str(&format!("{}}}", problem(cause))).unwrap();
            assert_eq!(problem["status"], status.as_u16(), "{cause:?}");
            let response = refused(cause, Uuid::nil());
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(response.headers()[REQUEST_ID], "00000000-0000-0000-0000-000000000000");
        }
    }

    #[test]
    fn a_request_that_no_secret_verifies_gets_one_answer() {
        let answers: Vec<_> = [
            Cause::BadSignature,
            Cause::TooOld,
            Cause::UnknownRoute,
            Cause::ConflictingRoute,
            Cause::HopLimit,
        ]
        .map(|cause| format!("{:?}", refused(cause, Uuid::nil())))
        .into();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
}
