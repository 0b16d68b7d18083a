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
    domain::{INSTALLATION, OrgId},
    store::audit::{AuditFilter, FieldChange, SecretChange, StoredAuditEntry},
};
use axum::{Json, Router, extract::State, routing::get};
use http::Uri;
use serde::Serialize;
use serde_json::{Map, Value};
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
    /// The address that the request came from; `null` where no request did it.
    address: Option<String>,
    verb: String,
    target_kind: String,
    target_id: String,
    /// The names of the fields that were touched.
    fields: Vec<String>,
    /// Those fields before, where the entry has values; `null` in entries of earlier releases.
    before: Option<Map<String, Value>>,
    /// And after. Of a secret field only its fate: `set`, `changed` or `cleared`.
    after: Option<Map<String, Value>>,
    /// Which of the fields are secret.
    secrets: Vec<String>,
}

/// The fields before and after, and the names of those that are secret.
#[derive(Default)]
struct Values {
    before: Map<String, Value>,
    after: Map<String, Value>,
    secrets: Vec<String>,
}

impl Values {
    fn of(changes: Vec<FieldChange>) -> Self {
        let mut values = Self::default();
        for change in changes {
            let after = match change.secret {
                Some(what) => {
                    values.secrets.push(change.field.clone());
                    word(what).into()
                }
                None => change.after,
            };
            values.before.insert(change.field.clone(), change.before);
            values.after.insert(change.field, after);
        }
        values
    }
}

const fn word(what: SecretChange) -> &'static str {
    match what {
        SecretChange::Set => "set",
        SecretChange::Changed => "changed",
        SecretChange::Cleared => "cleared",
    }
}

impl From<StoredAuditEntry> for AuditView {
    fn from(entry: StoredAuditEntry) -> Self {
        let StoredAuditEntry {
            id,
            at,
            actor,
            address,
            verb,
            target_kind,
            target_id,
            fields,
            changes,
        } = entry;
        let has_values = !changes.is_empty();
        let Values { before, after, secrets } = Values::of(changes);
        Self {
            id,
            at: Time(at),
            actor,
            address,
            verb,
            target_kind,
            target_id,
            fields,
            before: Some(before).filter(|_| has_values),
            after: Some(after).filter(|_| has_values),
            secrets,
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
        integration: params.take_text("integration", 256)?,
        verb: params.take_text("verb", 64)?,
        period: params.take_period()?,
    };
    let bound = format!(
        "{:?}",
        (&filter.actor, &filter.integration, &filter.verb, filter.period)
    );
    let page = Page::<Uuid>::take(&mut params, &state.vault, Some(org), "audit", bound)?;
    params.finish()?;
    let rows = state.store.list_audit(org, filter, page.after, page.count()).await?;
    Ok(Json(page.answer(&state.vault, rows, |row| row.id, AuditView::from)))
}
