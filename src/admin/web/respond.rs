//! The common form of all answers: an id, headers against caching, a deadline, one form of refusal,
//! and a count.

use super::problem::{Code, Problem};
use crate::{admin::Admin, telemetry::catalogue};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use std::{panic, time::Duration};
use tracing::Instrument;
use uuid::Uuid;

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(10);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps every request. The id is always made here, because an id of the caller would stand in our
/// logs.
pub async fn respond(State(state): Admin, request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let span = tracing::info_span!("admin.request", request.id = %id, method = %request.method());
    let work = next.run(request).instrument(span);
    let answered = if is_read {
        tokio::time::timeout(DEADLINE, work).await.map_err(|_| Code::Timeout)
    } else {
        // A write goes on when its caller disconnects.
        let handle = state.tasks.spawn(work);
        match tokio::time::timeout(DEADLINE, handle).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_panic() => panic::resume_unwind(error.into_panic()),
            Ok(Err(_)) => Err(Code::Internal),
            Err(_) => Err(Code::Timeout),
        }
    };
    let mut response = answered.unwrap_or_else(|code| Problem::new(code).into_response());
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if problem.code.status() >= 500 {
            tracing::warn!(request.id = %id, code = problem.code.as_str(), "A request to the admin API failed");
        }
        *response.body_mut() = Body::from(problem.body(&id));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REQUEST_ID, HeaderValue::from_str(&id).expect("a UUID is visible ASCII"));
    catalogue::ADMIN_REQUESTS.count(1, &[label(response.status())]);
    response
}

pub async fn nothing_here() -> Problem {
    Problem::not_found()
}

/// The router adds `Allow`.
pub async fn other_methods() -> Problem {
    Problem::new(Code::MethodNotAllowed)
}

/// Statuses from a closed list, so that the number of labels is bounded.
fn label(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        201 => "201",
        204 => "204",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        409 => "409",
        412 => "412",
        413 => "413",
        415 => "415",
        422 => "422",
        428 => "428",
        500 => "500",
        503 => "503",
        _ => "other",
    }
}
