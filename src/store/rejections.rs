//! Requests that never became events: a bounded ring.

use super::StoreError;
use crate::domain::{EndpointId, OrgId, Period, RouteKey, Source, Timestamp};
use async_trait::async_trait;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub id: Uuid,
    pub at: Timestamp,
    pub source: Source,
    pub endpoint: Option<EndpointId>,
    /// The organisation of the endpoint that got it, or of the ids that it carried.
    pub org: Option<OrgId>,
    /// Whether only ids on the shared URL name the organisation. Anyone could have sent it, so the
    /// organisation does not see its head.
    pub is_claimed: bool,
    /// `bad_signature`, `too_old`, `unknown_route`, `conflicting_route`, `not_the_format`,
    /// `too_large`, …
    pub cause: String,
    pub status: u16,
    pub bytes: u64,
    pub ids: Vec<RouteKey>,
    /// The URL that the signature was compared over, without its query, where the source signs over
    /// it: a wrong public URL shows here.
    pub signed_url: Option<String>,
    /// The first bytes with secrets, numbers and addresses masked.
    pub head: String,
}

#[derive(Clone, Debug, Default)]
pub struct RejectionFilter {
    pub cause: Option<String>,
    pub period: Period,
}

#[async_trait]
pub trait Rejections: Send + Sync + 'static {
    /// Appends a batch and drops the oldest above `kept_max`, at most 1,000 more than it appends (a
    /// lowered limit is reached over some batches). An id that is there already is skipped, so that
    /// a flush may be tried again.
    async fn record_rejections(&self, batch: Vec<Rejection>, kept_max: u32) -> Result<(), StoreError>;
    /// Newest first, before `before`. `org: None` is the operator's view of all. An organisation
    /// sees no head of a request that only claimed to be for it.
    async fn list_rejections(
        &self,
        org: Option<OrgId>,
        filter: RejectionFilter,
        before: Option<Uuid>,
        count_max: u32,
    ) -> Result<Vec<Rejection>, StoreError>;
}
