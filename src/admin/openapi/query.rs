//! The query parameters of a request, held against the operation's in the document.

use super::operations::{OPERATIONS, Operation, Who};
use crate::admin::web::{
    auth::Identity,
    body::shown_name,
    problem::{Code, Problem},
};
use axum::{
    extract::{MatchedPath, Query, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Method, request::Parts};

/// Google adds parameters of its own to the address that people come back to.
const TAKES_OTHERS: &str = "callback";

/// Refuses a parameter that the document does not name for the operation. Callers who may not call
/// it learn nothing here: the handler answers them.
pub async fn only_documented(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match check(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(parts: &Parts) -> Result<(), Problem> {
    let identity = parts.extensions.get::<Result<Identity, Problem>>();
    let (Some(operation), Some(Ok(identity))) = (operation(parts), identity) else {
        return Ok(());
    };
    let is_operator = matches!(identity, Identity::Operator(_));
    let may_call = operation.who == Who::SignedIn || is_operator == (operation.who == Who::Operator);
    if operation.id == TAKES_OTHERS || !may_call {
        return Ok(());
    }
    // A text that is no query is answered by the handler itself.
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) else {
        return Ok(());
    };
    let is_known = |name: &String| operation.query.iter().any(|query| query.name == name.as_str());
    match pairs.iter().find(|(name, _)| !is_known(name)) {
        None => Ok(()),
        Some((name, _)) => Err(Problem::field(
            Code::InvalidQuery,
            shown_name(name),
            "is not a known parameter here",
        )),
    }
}

fn operation(parts: &Parts) -> Option<&'static Operation> {
    let path = parts.extensions.get::<MatchedPath>()?.as_str();
    let method = if parts.method == Method::HEAD {
        &Method::GET
    } else {
        &parts.method
    };
    OPERATIONS
        .iter()
        .find(|one| one.path == path && method.as_str().eq_ignore_ascii_case(one.method))
}
