//! `GET /api/integrations/status`: the state of every provider's credential.

use super::view::{IntegrationView, open_actions, view_beside};
use crate::{
    admin::{
        Admin,
        state::Answer,
        web::{auth::Reader, page::Params},
    },
    domain::Provider,
};
use axum::{Json, extract::State};
use http::Uri;
use serde::Serialize;

#[derive(Serialize, utoipa::ToSchema)]
pub struct Status {
    integrations: Vec<IntegrationView>,
}

/// Lists all five providers, always in the same order.
pub async fn status(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<Status>> {
    Params::of(&uri)?.finish()?;
    let mut rows = state.store.list_credentials(member.org).await?;
    let open = open_actions(&state, member.org).await?;
    let mut integrations = Vec::with_capacity(Provider::INTEGRATIONS.len());
    for provider in Provider::INTEGRATIONS {
        let row = rows
            .iter()
            .position(|row| row.provider == provider && row.name.is_empty())
            .map(|at| rows.swap_remove(at));
        integrations.push(view_beside(&state, provider, row, &open).await?);
    }
    Ok(Json(Status { integrations }))
}
