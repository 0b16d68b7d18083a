//! The common form of all answers: an id, headers against caching, a deadline, one form of refusal,
//! and a count.

use super::{
    auth::{self, Identity},
    idempotency,
    problem::{Code, Problem},
    represent::represent,
};
use crate::{
    admin::{Admin, AdminState},
    telemetry::catalogue,
};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use std::{panic, sync::Arc, time::Duration};
use tracing::Instrument;
use uuid::Uuid;

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(10);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, for the few handlers that show it themselves.
#[derive(Clone)]
pub struct RequestId(pub String);

/// Wraps every request. The id is always made here, because an id of the caller would stand in our
/// logs.
pub async fn respond(State(state): Admin, request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(RequestId(id.clone()));
    let asked = parts.headers.clone();
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    let span = tracing::info_span!("admin.request", request.id = %id, method = %parts.method);
    let answered = if let Some(preflight) = state.origins.preflight(&parts) {
        Ok(preflight)
    } else {
        let work = answer(Arc::clone(&state), parts, body, next).instrument(span);
        if is_read {
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
    if is_read {
        response = represent(&asked, response).await;
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REQUEST_ID, HeaderValue::from_str(&id).expect("a UUID is visible ASCII"));
    state.origins.allow(asked.get(header::ORIGIN), headers);
    catalogue::ADMIN_REQUESTS.count(1, &[label(response.status())]);
    response
}

/// Finds out whom the request comes from, counts it, and sends it on.
async fn answer(state: Arc<AdminState>, mut parts: Parts, body: Body, next: Next) -> Response {
    let identity = auth::identify(&parts, &state).await;
    let is_write = !matches!(parts.method, Method::GET | Method::HEAD);
    let member = match &identity {
        Ok(Identity::Caller(caller)) => Some(caller.member.clone()),
        _ => None,
    };
    parts.extensions.insert(identity);
    let quota = member
        .as_ref()
        .and_then(|member| state.rates.take(member.org, state.now()));
    let mut response = match (&member, quota) {
        (_, Some(quota)) if quota.is_over => quota.refusal().into_response(),
        (Some(member), _) if idempotency::is_keyed(&parts) => idempotency::run(&state, member, parts, body, next).await,
        _ => next.run(Request::from_parts(parts, body)).await,
    };
    if let Some(member) = member.filter(|_| is_write && response.status().is_success()) {
        state.streams.wrote(member.org);
    }
    if let Some(quota) = quota {
        quota.show(response.headers_mut());
    }
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
        303 => "303",
        304 => "304",
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
        429 => "429",
        500 => "500",
        503 => "503",
        _ => "other",
    }
}
