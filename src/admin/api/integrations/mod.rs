//! `/api/integrations`: credentials of providers. Each is checked at its provider before it is
//! stored, and is never shown again.
//!
//! **Invariant:** a credential that the provider refuses is never stored. An outage of a provider
//! never makes the state of a stored credential worse.

mod account;
mod changes;
mod check;
mod connect;
mod consent;
mod erase;
mod fields;
mod forms;
mod request;
mod rotation;
mod signing;
mod status;
mod test;
mod verify;
mod view;

pub use self::{
    connect::ConnectedView, consent::Authorize, forms::Forms, rotation::IntegrationChanges, status::Status,
    test::TestedView, view::IntegrationView,
};

use crate::{
    admin::{
        AdminState,
        state::Answer,
        web::problem::{Code, Problem},
    },
    domain::Provider,
};
use axum::{
    Router,
    routing::{get, post},
};
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/providers", get(forms::list))
        .route("/api/integrations/status", get(status::status))
        .route("/api/integrations/google_calendar/authorize", get(consent::authorize))
        .route("/api/integrations/google_calendar/callback", get(consent::callback))
        .route(
            "/api/integrations/{provider}",
            post(connect::connect).patch(rotation::patch).delete(erase::erase),
        )
        .route("/api/integrations/{provider}/test", post(test::test))
        .route("/api/integrations/{provider}/verify", post(verify::verify))
}

/// The provider that a path names. Destinations of `http.post` are credentials as well; their
/// routes stand elsewhere.
fn parse_provider(text: &str) -> Answer<Provider> {
    match text.parse::<Provider>() {
        Ok(Provider::Http) => {
            Err(Problem::new(Code::NotFound).detail("Destinations of http.post stand under /api/destinations."))
        }
        Ok(provider) => Ok(provider),
        Err(_) => Err(Problem::not_found()),
    }
}
