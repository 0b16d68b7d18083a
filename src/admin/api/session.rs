//! `/api/session` and `/api/me`: a person signs in and out of a browser, and a page learns who is
//! signed in.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::{Caller, Credentials, Identity, OperatorCaller},
            body::NoFields,
            operator_session::OPERATOR_SESSION_LIFE,
            page::Params,
            problem::{Code, Problem},
            session::{self, SESSION_LIFE, Ticket},
            token::{Member, Role},
            view::Time,
        },
    },
    domain::Timestamp,
    store::{audit::Changes, callers::Session},
};
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::Serialize;
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/session", post(begin).delete(end))
        .route("/api/session/open", get(open))
        .route("/api/me", get(me))
}

/// Where a link leads to when it names no place.
const AFTER_SIGN_IN: &str = "/dashboard";

#[derive(Serialize, utoipa::ToSchema)]
pub struct Me {
    /// `null` for an operator.
    organisation: Option<OrganisationOfMe>,
    /// `owner`, `admin`, `member`, `viewer` or `operator`.
    role: &'static str,
    /// The name that the audit shows.
    subject: String,
    expires_at: Time,
    /// The `X-CSRF-Token` that writes need. `null` with a bearer token, which needs none.
    csrf_token: Option<String>,
    /// The permissions of the role: `read`, `retry` (actions and events), `manage` (configuration),
    /// `connect` (accounts at providers); of an operator `operate`.
    can: &'static [&'static str],
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct OrganisationOfMe {
    id: String,
    name: String,
}

async fn view(state: &AdminState, member: &Member, expires_at: Timestamp, ticket: Option<&Ticket>) -> Answer<Me> {
    let organisation = state.store.find_organisation(member.org).await?;
    Ok(Me {
        organisation: Some(OrganisationOfMe {
            id: member.org.to_string(),
            name: organisation.ok_or(Problem::not_found())?.name,
        }),
        role: member.role.as_str(),
        subject: member.subject.clone(),
        expires_at: Time(expires_at),
        csrf_token: ticket.map(|ticket| ticket.csrf(&state.vault)),
        can: match member.role {
            Role::Owner => &["read", "retry", "manage", "connect"],
            Role::Admin => &["read", "retry", "manage"],
            Role::Member => &["read", "retry"],
            Role::Viewer => &["read"],
        },
    })
}

fn view_of_operator(state: &AdminState, operator: OperatorCaller) -> Me {
    Me {
        organisation: None,
        role: "operator",
        subject: operator.name.subject,
        expires_at: Time(operator.expires_at),
        csrf_token: operator.ticket.map(|ticket| ticket.csrf(&state.vault)),
        can: &["operate"],
    }
}

pub async fn me(State(state): Admin, identity: Identity, uri: Uri) -> Answer<Json<Me>> {
    Params::of(&uri)?.finish()?;
    let caller = match identity {
        Identity::Caller(caller) => caller,
        Identity::Operator(operator) => return Ok(Json(view_of_operator(&state, operator))),
    };
    let ticket = match &caller.credentials {
        Credentials::Cookie(ticket) => Some(ticket),
        Credentials::Token => None,
    };
    view(&state, &caller.member, caller.expires_at, ticket).await.map(Json)
}

/// A bearer token becomes a cookie. The session ends with the token, after twelve hours (an
/// operator's after one), or by DELETE.
pub async fn begin(State(state): Admin, identity: Identity, headers: HeaderMap, _: NoFields) -> Answer<Response> {
    match identity {
        Identity::Operator(operator) if operator.ticket.is_none() => {
            begin_of_operator(&state, operator, &headers).await
        }
        Identity::Caller(caller) if matches!(caller.credentials, Credentials::Token) => {
            begin_of_member(&state, caller, &headers).await
        }
        _ => Err(Problem::new(Code::Unauthenticated)
            .detail("A session is begun with a bearer token in Authorization, not with the cookie of another one.")),
    }
}

async fn begin_of_operator(state: &AdminState, operator: OperatorCaller, headers: &HeaderMap) -> Answer<Response> {
    let now = state.now();
    let expires_at = operator.expires_at.min(now + OPERATOR_SESSION_LIFE);
    // The session holds whole seconds, as every token.
    let expires_at = Timestamp::from_seconds(expires_at.as_seconds());
    let keys = state.tokens.operator_keys().ok_or(Problem::new(Code::Internal))?;
    let ticket = keys
        .begin(&operator.name.subject, expires_at)
        .ok_or(Problem::new(Code::Internal))?;
    let audit = state.audit_of_operator(&operator.name, None, "create", "session", "browser");
    state.store.record_audit(audit).await?;
    let cookie = session::set_cookie(headers, Some((ticket.text(), expires_at.since(now))));
    let begun = OperatorCaller {
        expires_at,
        ticket: Some(ticket),
        ..operator
    };
    let body = Json(view_of_operator(state, begun));
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], body).into_response())
}

async fn begin_of_member(state: &AdminState, caller: Caller, headers: &HeaderMap) -> Answer<Response> {
    let now = state.now();
    let ticket = Ticket::generate(caller.member.org).map_err(|_| Problem::new(Code::Internal))?;
    let expires_at = caller.expires_at.min(now + SESSION_LIFE);
    let session = Session {
        org: caller.member.org,
        token_hash: ticket.hash(),
        is_link: false,
        subject: caller.member.subject.clone(),
        role: caller.member.role.as_str().to_owned(),
        created_at: now,
        expires_at,
    };
    let audit = state.audit(&caller.member, "create", "session", "browser", Changes::default());
    state.store.begin_session(session, audit).await?;
    let cookie = session::set_cookie(headers, Some((&ticket.text(), expires_at.since(now))));
    let body = Json(view(state, &caller.member, expires_at, Some(&ticket)).await?);
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], body).into_response())
}

/// Signs out. Without a session it is 204 as well: a second click does no harm.
pub async fn end(State(state): Admin, identity: Option<Identity>, headers: HeaderMap, _: NoFields) -> Answer<Response> {
    if let Some(Identity::Caller(Caller {
        credentials: Credentials::Cookie(ticket),
        ..
    })) = identity
    {
        state.store.end_session(ticket.org, ticket.hash()).await?;
        state.streams.session_ended(ticket.org);
    }
    let cookie = session::set_cookie(&headers, None);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// The link that `dev` prints: its first use signs in and goes on to a page of this host.
pub async fn open(State(state): Admin, method: Method, headers: HeaderMap, uri: Uri) -> Answer<Response> {
    let mut params = Params::of(&uri)?;
    let code = params.take("code");
    let return_to = params.take("return_to");
    params.finish()?;
    let to = match return_to {
        None => AFTER_SIGN_IN.to_owned(),
        Some(path) if is_own_path(&path) => path,
        Some(_) => {
            return Err(Problem::field(
                Code::InvalidQuery,
                "return_to",
                "expected a path of this host such as /dashboard, and nothing else",
            ));
        }
    };
    let used = || {
        Problem::new(Code::Unauthenticated)
            .detail("This link was used already, or is too old. Start `hookswitch dev` again for another one.")
    };
    let link = code.as_deref().and_then(Ticket::parse).ok_or_else(used)?;
    // A program that looks at links before a person opens them does so with HEAD.
    if method != Method::GET {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let now = state.now();
    let ticket = Ticket::generate(link.org).map_err(|_| Problem::new(Code::Internal))?;
    let session = state
        .store
        .redeem_link(link.org, link.hash(), ticket.hash(), now + SESSION_LIFE)
        .await?
        .ok_or_else(used)?;
    let cookie = session::set_cookie(&headers, Some((&ticket.text(), session.expires_at.since(now))));
    let to = HeaderValue::from_str(&to).map_err(|_| Problem::new(Code::Internal))?;
    let headers = [(header::SET_COOKIE, cookie), (header::LOCATION, to)];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

/// An absolute path on this host: no scheme, no second slash, and no backslash, which browsers read
/// as a slash.
pub fn is_own_path(path: &str) -> bool {
    const BYTES_MAX: usize = 512;
    let is_plain = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>'));
    path.len() <= BYTES_MAX && path.starts_with('/') && !path.starts_with("//") && is_plain
}
