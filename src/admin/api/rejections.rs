//! `GET /api/rejections`: the requests that ingress refused before they became events.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::Reader,
            page::{Listed, Page, Params},
            view::Time,
        },
    },
    store::rejections::{Rejection, RejectionFilter},
};
use axum::{Json, Router, extract::State, routing::get};
use http::Uri;
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new().route("/api/rejections", get(list))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct IdView {
    kind: &'static str,
    value: Box<str>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct RejectionView {
    id: Uuid,
    at: Time,
    source: &'static str,
    endpoint_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<String>,
    /// The request came to the shared URL and only named ids of this organisation: anybody can have
    /// sent it.
    claimed: bool,
    cause: String,
    status: u16,
    bytes: u64,
    ids: Vec<IdView>,
    /// The URL that the signature was compared over, where the source signs over it. One that
    /// differs from the URL at the sender means a wrong public URL. `null` where it is withheld.
    signed_url: Option<String>,
    /// The head of the request; `null` where it is withheld.
    head: Option<String>,
}

impl RejectionView {
    /// As the organisation sees it: without the head of a request that only named its ids.
    fn for_organisation(row: Rejection) -> Self {
        let head = (!row.is_claimed).then(|| row.head.clone());
        let signed_url = row.signed_url.clone().filter(|_| !row.is_claimed);
        Self {
            head,
            signed_url,
            org_id: None,
            ..Self::for_operator(row)
        }
    }

    /// As an operator sees it: without the head, which may be the text of a message.
    pub fn for_operator(row: Rejection) -> Self {
        Self {
            id: row.id,
            at: Time(row.at),
            source: row.source.as_str(),
            endpoint_id: row.endpoint.map(|id| id.to_string()),
            org_id: row.org.map(|id| id.to_string()),
            claimed: row.is_claimed,
            cause: row.cause,
            status: row.status,
            bytes: row.bytes,
            ids: row
                .ids
                .into_iter()
                .map(|key| IdView {
                    kind: key.kind.as_str(),
                    value: key.value,
                })
                .collect(),
            signed_url: row.signed_url,
            head: None,
        }
    }
}

pub async fn list(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<Listed<RejectionView>>> {
    let mut params = Params::of(&uri)?;
    let (filter, bound) = take_filter(&mut params)?;
    let page = Page::<Uuid>::take(&mut params, &state.vault, Some(member.org), "rejections", bound)?;
    params.finish()?;
    let rows = state
        .store
        .list_rejections(Some(member.org), filter, page.after, page.count())
        .await?;
    Ok(Json(page.answer(
        &state.vault,
        rows,
        |row| row.id,
        RejectionView::for_organisation,
    )))
}

/// The filter of a list of rejections, and the text that its cursors are bound to.
pub fn take_filter(params: &mut Params) -> Answer<(RejectionFilter, String)> {
    let filter = RejectionFilter {
        cause: params.take_text("cause", 64)?,
        period: params.take_period()?,
    };
    let bound = format!("{:?}", (&filter.cause, filter.period));
    Ok((filter, bound))
}
