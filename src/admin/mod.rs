//! The admin API: an organisation's people and the installation's operators, through HTTP with
//! bearer tokens, or with sessions that tokens begin.
//!
//! `cli` builds the state and serves the router; people enter by HTTP. **Invariant:** every store
//! call is bound to the organisation of the token. A thing of another organisation is answered like
//! a thing that does not exist. A secret is shown once at most: when Hookswitch made it.
//!
//! `web` knows HTTP and no resource; `api` holds a page a resource; `dashboard` serves the files of
//! the page that people use in a browser, and knows neither.
//!
//! | who | may |
//! |---|---|
//! | viewer | read |
//! | member | the same; retry, cancel and resolve actions; replay events |
//! | admin | the same; configure; check credentials |
//! | owner | the same; connect and disconnect accounts at providers |
//! | operator | `/operator/…` and `/api/debug/…`; nothing of an organisation |

mod api;
mod credentials;
mod dashboard;
mod openapi;
mod plans;
mod proof;
mod samples;
mod state;
mod statistics;
mod streams;
mod usable;
mod web;

pub use dashboard::pages as dashboard_pages;
pub use openapi::{document, path_methods};
pub use state::{AdminNeeds, AdminState};
pub use web::{
    auth::{SECRET_BYTES_MIN, check_settings},
    jwks::{FetchKeys, HttpKeys},
    problem::Code,
    session::make_link,
    token::Role,
    view::Time,
};

use crate::{config::AdminSettings, listener::Limits};
use axum::{Router, middleware};
use std::sync::Arc;
use web::respond;

type Admin = axum::extract::State<Arc<AdminState>>;

/// The limits of a listener for [`router`]. Streams come on top of other connections, so that they
/// take none away. A browser that closes one is gone: nothing is written to it any more.
#[must_use]
pub fn limits(settings: &AdminSettings) -> Limits {
    let limits = Limits::default();
    Limits {
        name: "admin",
        connections_max: limits.connections_max + settings.admin_streams_max,
        connections_per_address_max: limits.connections_per_address_max + settings.admin_streams_max,
        answers_half_closed: false,
        ..limits
    }
}

/// All routes. The listener limits connections and heads; this room limits bodies and time, and
/// checks tokens.
pub fn router(state: Arc<AdminState>) -> Router {
    api::routes()
        .merge(openapi::routes())
        .fallback(respond::nothing_here)
        .method_not_allowed_fallback(respond::other_methods)
        .layer(middleware::from_fn(openapi::only_documented))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), respond::respond))
        .with_state(state)
        .merge(dashboard::routes())
}
