//! The admin API: an organisation's people and the installation's operators, through HTTP with
//! bearer tokens.
//!
//! `cli` builds the state and serves the router; people enter by HTTP. **Invariant:** every store
//! call is bound to the organisation of the token, what belongs to someone else is answered like
//! what is not there, and a secret comes out once at most: when we made it.
//!
//! | who | may |
//! |---|---|
//! | viewer | read |
//! | member | read; change rules; retry, cancel and resolve actions |
//! | admin, owner | everything of the organisation |
//! | operator | `/operator/…` and `/api/debug/…`; nothing of an organisation |

mod actions;
mod assistants;
mod audit;
mod auth;
mod body;
mod credentials;
mod destinations;
mod endpoints;
mod etag;
mod events;
mod integrations;
mod jwks;
mod numbers;
mod operator;
mod page;
mod plans;
mod problem;
mod proof;
mod respond;
mod rules;
mod state;
mod token;
mod view;

pub use auth::{SECRET_BYTES_MIN, check_settings};
pub use jwks::{FetchKeys, HttpKeys};
pub use problem::Code;
pub use state::{AdminNeeds, AdminState};
pub use token::Role;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use std::sync::Arc;

type Admin = axum::extract::State<Arc<AdminState>>;

/// All routes. The listener brings limits of connections and heads; bodies, deadlines and tokens
/// are this room's.
pub fn router(state: Arc<AdminState>) -> Router {
    Router::new()
        .route("/api/integrations/status", get(integrations::status))
        .route("/api/providers", get(integrations::list_forms))
        .route(
            "/api/integrations/google_calendar/authorize",
            get(integrations::authorize),
        )
        .route(
            "/api/integrations/google_calendar/callback",
            get(integrations::callback),
        )
        .route(
            "/api/integrations/{provider}",
            post(integrations::connect).delete(integrations::erase),
        )
        .route("/api/integrations/{provider}/test", post(integrations::test))
        .route("/api/integrations/{provider}/verify", post(integrations::verify))
        .route("/api/destinations", get(destinations::list).post(destinations::create))
        .route(
            "/api/destinations/{name}",
            get(destinations::show).delete(destinations::delete),
        )
        .route("/api/destinations/{name}/secrets", post(destinations::rotate))
        .route("/api/assistants", get(assistants::list).post(assistants::create))
        .route("/api/assistants/{id}", get(assistants::show).delete(assistants::delete))
        .route("/api/phone-numbers", get(numbers::list).post(numbers::create))
        .route(
            "/api/phone-numbers/{number}",
            get(numbers::show).delete(numbers::delete),
        )
        .route("/api/endpoints", get(endpoints::list).post(endpoints::create))
        .route("/api/endpoints/{id}", get(endpoints::show).delete(endpoints::delete))
        .route("/api/endpoints/{id}/secrets", post(endpoints::rotate))
        .route("/api/rules", get(rules::list).post(rules::create))
        .route("/api/rules/dry-run", post(rules::dry_run))
        .route(
            "/api/rules/{id}",
            get(rules::show).put(rules::update).delete(rules::delete),
        )
        .route("/api/rules/{id}/dry-run", post(rules::dry_run_stored))
        .route("/api/events", get(events::list))
        .route("/api/events/{id}", get(events::show))
        .route("/api/actions", get(actions::list))
        .route("/api/actions/{id}", get(actions::show))
        .route("/api/actions/{id}/retry", post(actions::retry))
        .route("/api/actions/{id}/cancel", post(actions::cancel))
        .route("/api/actions/{id}/resolve", post(actions::resolve))
        .route("/api/rejections", get(audit::rejections))
        .route("/api/audit", get(audit::list))
        .route("/api/debug/invalidate-cache", post(operator::invalidate_cache))
        .route(
            "/operator/organizations",
            get(operator::list_organisations).post(operator::create_organisation),
        )
        .route("/operator/rejections", get(operator::rejections))
        .route("/operator/cache/invalidate", post(operator::invalidate_cache))
        .fallback(respond::nothing_here)
        .method_not_allowed_fallback(respond::other_methods)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), respond::respond))
        .with_state(state)
}
