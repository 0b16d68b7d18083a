//! `/operator/…` and `/api/debug/…`: the installation, never the secrets or events of an
//! organisation. A token of an organisation gets 404 here.

use crate::{
    admin::{
        Admin, AdminState,
        api::rejections::{RejectionView, take_filter},
        state::Answer,
        web::{
            auth::Operator,
            body::{self, check_text},
            page::{Listed, Page, Params},
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{OrgId, Organisation},
    store::audit::{AuditEntry, Changes},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/debug/invalidate-cache", post(invalidate_cache))
        .route(
            "/operator/organizations",
            get(list_organisations).post(create_organisation),
        )
        .route("/operator/rejections", get(rejections))
        .route("/operator/cache/invalidate", post(invalidate_cache))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct OrganisationView {
    id: String,
    name: String,
    is_active: bool,
    created_at: Time,
}

impl From<Organisation> for OrganisationView {
    fn from(row: Organisation) -> Self {
        Self {
            id: row.id.to_string(),
            name: row.name,
            is_active: row.is_active,
            created_at: Time(row.created_at),
        }
    }
}

pub async fn list_organisations(State(state): Admin, _: Operator, uri: Uri) -> Answer<Json<Listed<OrganisationView>>> {
    let mut params = Params::of(&uri)?;
    let page = Page::<OrgId>::take(&mut params, &state.vault, None, "organisations", String::new())?;
    params.finish()?;
    let rows = state.store.list_organisations(page.after, page.count()).await?;
    Ok(Json(page.answer(
        &state.vault,
        rows,
        |row| row.id,
        OrganisationView::from,
    )))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrganisation {
    name: String,
    /// For an organisation that has an id in another system already.
    id: Option<String>,
}

pub async fn create_organisation(
    State(state): Admin,
    Operator(subject): Operator,
    body::Json(new): body::Json<NewOrganisation>,
) -> Answer<(StatusCode, Json<OrganisationView>)> {
    check_text("name", &new.name, 200)?;
    let id = match new.id {
        Some(text) => parse_org("id", &text)?,
        None => OrgId::generate(),
    };
    let audit = AuditEntry {
        changes: Changes::default().value("name", (), &new.name),
        ..state.audit_of_operator(&subject, Some(id), "create", "organisation", id)
    };
    let made = state.store.create_organisation(id, &new.name, audit).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

pub async fn rejections(State(state): Admin, _: Operator, uri: Uri) -> Answer<Json<Listed<RejectionView>>> {
    let mut params = Params::of(&uri)?;
    let (filter, bound) = take_filter(&mut params)?;
    let page = Page::<Uuid>::take(&mut params, &state.vault, None, "rejections", bound)?;
    params.finish()?;
    let rows = state
        .store
        .list_rejections(None, filter, page.after, page.count())
        .await?;
    Ok(Json(page.answer(
        &state.vault,
        rows,
        |row| row.id,
        RejectionView::for_operator,
    )))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Invalidate {
    /// The API before this one wrote `orgId`.
    #[serde(alias = "orgId")]
    org_id: String,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct Invalidated {
    org_id: String,
}

/// Drops everything cached of one organisation. This instance drops it before the answer, each
/// other one as soon as it sees the new version of the configuration. The next use loads it again.
pub async fn invalidate_cache(
    State(state): Admin,
    Operator(subject): Operator,
    body::Json(request): body::Json<Invalidate>,
) -> Answer<Json<Invalidated>> {
    let org = parse_org("org_id", &request.org_id)?;
    state.forget(org);
    state.store.stamp_credentials(org).await?;
    tracing::info!(org.id = %org, operator = %subject, "Dropped what was cached of an organisation");
    Ok(Json(Invalidated {
        org_id: org.to_string(),
    }))
}

fn parse_org(field: &'static str, text: &str) -> Answer<OrgId> {
    text.parse()
        .map_err(|error: crate::domain::InvalidId| Problem::field(Code::InvalidField, field, error.to_string()))
}
