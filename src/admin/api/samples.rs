//! `GET /operator/statistics`: the depth of the queue and the hit rates of caches, over the last
//! hour or day of the process that answers.

use super::statistics::over_of;
use crate::{
    admin::{
        Admin, AdminState,
        samples::{Part, Use},
        state::Answer,
        web::{auth::Operator, view::Time},
    },
    telemetry,
};
use axum::{Json, Router, extract::State, routing::get};
use http::Uri;
use serde::Serialize;
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new().route("/operator/statistics", get(show))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct SamplesView {
    /// The process that answered. Each has samples of its own, which end with it.
    instance: String,
    /// Its first sample. Buckets before it are empty.
    since: Time,
    /// `hour` or `day`.
    over: &'static str,
    until: Time,
    bucket_seconds: u64,
    /// `false`: no role of the process uses the queue, so it knows no depth.
    has_queue: bool,
    /// The oldest first: 60 minutes, or 24 hours.
    buckets: Vec<SampleBucketView>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct SampleBucketView {
    from: Time,
    /// The most events in the queue that were not acked, of samples every ten seconds. `null`
    /// without a sample.
    queue_events: Option<u64>,
    caches: Vec<CacheUseView>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct CacheUseView {
    /// As in `/operator/cache`.
    name: &'static str,
    hits: u64,
    misses: u64,
    /// Hits of all looks, from 0 to 1; `null` without a look.
    hit_rate: Option<f64>,
}

impl From<&Use> for CacheUseView {
    fn from(used: &Use) -> Self {
        Self {
            name: used.cache,
            hits: used.hits,
            misses: used.misses,
            hit_rate: super::cache::hit_rate(used.hits, used.misses),
        }
    }
}

impl From<Part> for SampleBucketView {
    fn from(part: Part) -> Self {
        Self {
            from: Time(part.from),
            queue_events: part.queue_events,
            caches: part.caches.iter().map(CacheUseView::from).collect(),
        }
    }
}

pub async fn show(State(state): Admin, _: Operator, uri: Uri) -> Answer<Json<SamplesView>> {
    let over = over_of(&uri)?;
    let (until, has_queue) = state.take_sample();
    let (since, parts) = state.samples.of(over, until);
    Ok(Json(SamplesView {
        instance: telemetry::instance_name(),
        since: Time(since),
        over: over.as_str(),
        until: Time(until),
        bucket_seconds: over.parts().1.as_secs(),
        has_queue,
        buckets: parts.into_iter().map(SampleBucketView::from).collect(),
    }))
}
