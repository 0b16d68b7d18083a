//! `GET /operator/cache`: how the caches of this process are used.

use crate::{
    admin::{Admin, AdminState, web::auth::Operator},
    telemetry,
    vault::CacheStats,
};
use axum::{Json, Router, extract::State, routing::get};
use serde::Serialize;
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new().route("/operator/cache", get(show))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct CachesView {
    /// The process that answered. Each has caches of its own.
    instance: String,
    caches: Vec<CacheView>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct CacheView {
    /// `credentials`, `signing_keys`, `data_keys` or `sealing_keys`.
    name: &'static str,
    /// Since the process began.
    hits: u64,
    misses: u64,
    /// Hits of all looks, from 0 to 1; `null` before the first look.
    hit_rate: Option<f64>,
    entries: usize,
    /// The size limit. Beyond it the entry that was not used for longest goes.
    entries_max: usize,
}

impl From<CacheStats> for CacheView {
    fn from(stats: CacheStats) -> Self {
        Self {
            name: stats.name,
            hits: stats.hits,
            misses: stats.misses,
            hit_rate: hit_rate(stats.hits, stats.misses),
            entries: stats.entries,
            entries_max: stats.entries_max,
        }
    }
}

/// `None` before the first look.
pub fn hit_rate(hits: u64, misses: u64) -> Option<f64> {
    let looks = hits + misses;
    (looks > 0).then(|| hits as f64 / looks as f64)
}

/// Which caches there are depends on the roles of the process: signing keys with a receiver,
/// credentials with a worker.
pub async fn show(State(state): Admin, _: Operator) -> Json<CachesView> {
    Json(CachesView {
        instance: telemetry::instance_name(),
        caches: (state.cache_stats)().into_iter().map(CacheView::from).collect(),
    })
}
