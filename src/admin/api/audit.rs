//! `GET /api/audit`: who changed what in the organisation, and when.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::{Operator, Reader},
            page::{Listed, Page, Params},
            view::Time,
        },
    },
    domain::OrgId,
    store::audit::{AuditFilter, INSTALLATION, StoredAuditEntry},
};
use axum::{Json, Router, extract::State, routing::get};
use http::Uri;
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/audit", get(list))
        .route("/operator/audit", get(list_of_installation))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct AuditView {
    id: Uuid,
    at: Time,
    actor: String,
    verb: String,
    target_kind: String,
    target_id: String,
    fields: Vec<String>,
}

impl From<StoredAuditEntry> for AuditView {
    fn from(entry: StoredAuditEntry) -> Self {
        let StoredAuditEntry {
            id,
            at,
            actor,
            verb,
            target_kind,
            target_id,
            fields,
        } = entry;
        Self {
            id,
            at: Time(at),
            actor,
            verb,
            target_kind,
            target_id,
            fields,
        }
    }
}

pub async fn list(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<Listed<AuditView>>> {
    list_of(&state, member.org, &uri).await
}

/// Changes by operators that concern no organisation.
pub async fn list_of_installation(State(state): Admin, _: Operator, uri: Uri) -> Answer<Json<Listed<AuditView>>> {
    list_of(&state, INSTALLATION, &uri).await
}

async fn list_of(state: &AdminState, org: OrgId, uri: &Uri) -> Answer<Json<Listed<AuditView>>> {
    let mut params = Params::of(uri)?;
    let filter = AuditFilter {
        actor: params.take_text("actor", 256)?,
        period: params.take_period()?,
    };
    let bound = format!("{:?}", (&filter.actor, filter.period));
    let page = Page::<Uuid>::take(&mut params, &state.vault, Some(org), "audit", bound)?;
    params.finish()?;
    let rows = state.store.list_audit(org, filter, page.after, page.count()).await?;
    Ok(Json(page.answer(&state.vault, rows, |row| row.id, AuditView::from)))
}
