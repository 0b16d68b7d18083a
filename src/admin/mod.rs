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

mod api;
mod credentials;
mod plans;
mod proof;
mod state;
mod web;

pub use state::{AdminNeeds, AdminState};
pub use web::{
    auth::{SECRET_BYTES_MIN, check_settings},
    jwks::{FetchKeys, HttpKeys},
    problem::Code,
    token::Role,
};

use axum::{Router, middleware};
use std::sync::Arc;
use web::respond;

type Admin = axum::extract::State<Arc<AdminState>>;

/// All routes. The listener brings limits of connections and heads; bodies, deadlines and tokens
/// are this room's.
pub fn router(state: Arc<AdminState>) -> Router {
    api::routes()
        .fallback(respond::nothing_here)
        .method_not_allowed_fallback(respond::other_methods)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), respond::respond))
        .with_state(state)
}
