//! The endpoints that monitoring reads: `/metrics`, `/healthz`, `/readyz`.

use super::{Checks, Recorder, Standing};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use futures_util::future::{BoxFuture, join_all};
use std::{future::Future, sync::Arc, time::Duration};

/// Time that a scrape waits for the source of one gauge, so that a database that hangs costs its
/// own gauges only.
const GATHER_SECONDS_MAX: Duration = Duration::from_secs(2);

type Gather = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The router of the operations listener. `cli` puts it together when it starts the roles.
#[derive(Clone)]
pub struct Operations {
    recorder: Recorder,
    gathers: Vec<Gather>,
    checks: Checks,
}

impl Operations {
    #[must_use]
    pub const fn new(recorder: Recorder, checks: Checks) -> Self {
        Self {
            recorder,
            gathers: Vec::new(),
            checks,
        }
    }

    /// Adds a function that sets gauges from state in memory. It runs at each scrape, and nowhere
    /// else.
    #[must_use]
    pub fn gather(self, set: impl Fn() + Send + Sync + 'static) -> Self {
        self.gather_async(move || {
            set();
            std::future::ready(())
        })
    }

    /// Adds a function that sets gauges from state that has to be loaded. A scrape waits 2 seconds
    /// for it; after that its gauges keep their last values.
    #[must_use]
    pub fn gather_async<F, R>(mut self, set: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.gathers.push(Arc::new(move || Box::pin(set())));
        self
    }

    pub fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .with_state(Arc::new(self))
    }
}

async fn metrics(State(operations): State<Arc<Operations>>) -> impl IntoResponse {
    join_all(
        operations
            .gathers
            .iter()
            .map(|gather| tokio::time::timeout(GATHER_SECONDS_MAX, gather())),
    )
    .await;
    (
        [
            (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"),
            NO_STORE,
        ],
        operations.recorder.render(),
    )
}

/// Says that the process lives and its runtime schedules tasks, and nothing else.
async fn healthz() -> impl IntoResponse {
    ([NO_STORE], Json(serde_json::json!({ "status": "alive" })))
}

async fn readyz(State(operations): State<Arc<Operations>>) -> impl IntoResponse {
    let (standing, report) = operations.checks.report().await;
    let status = if standing == Standing::Failed {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (status, [NO_STORE], Json(report))
}

const NO_STORE: (header::HeaderName, &str) = (header::CACHE_CONTROL, "no-store");
