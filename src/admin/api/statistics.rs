//! `GET /api/statistics`: events, actions, success, retries and times of the last hour or day, and
//! what waits now.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        statistics::{Figures, History, Over},
        web::{
            auth::Reader,
            page::Params,
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::ActionState,
    store::statistics::BACKLOG_COUNTED_MAX,
};
use axum::{Json, Router, extract::State, routing::get};
use http::Uri;
use serde::Serialize;
use std::{sync::Arc, time::Duration};

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new().route("/api/statistics", get(show))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct StatisticsView {
    /// `hour` or `day`.
    over: &'static str,
    /// When it was counted, a few seconds ago at most. The last bucket goes to here.
    until: Time,
    bucket_seconds: u64,
    /// The oldest first: 60 minutes, or 24 hours.
    buckets: Vec<FiguresView>,
    total: FiguresView,
    /// Where there were more actions than are counted: those that were planned before it are
    /// missing. `null`: all are counted.
    counted_since: Option<Time>,
    backlog: BacklogView,
}

/// Actions count in the bucket in which they were planned, with what has come of them until now.
#[derive(Serialize, utoipa::ToSchema)]
pub struct FiguresView {
    from: Time,
    /// Received; without those that no rule wants, unless they are recorded.
    events: u64,
    actions: u64,
    succeeded: u64,
    dead: u64,
    /// Tries beyond the first of each action.
    retries: u64,
    /// From the receipt of the event to the success of the action. `null` without a success.
    latency_ms: Option<LatencyView>,
    /// Actions that had not gone out at its end, whenever they were planned. `null`: before
    /// `counted_since`.
    backlog: Option<u64>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct LatencyView {
    p50: u64,
    p95: u64,
}

/// Actions that have not gone out, whenever they were planned.
#[derive(Serialize, utoipa::ToSchema)]
pub struct BacklogView {
    pending: u64,
    waiting: u64,
    unknown: u64,
    /// When the oldest of them was planned.
    oldest_at: Option<Time>,
    /// `false`: there are more than were counted.
    is_whole: bool,
}

impl From<&Figures> for FiguresView {
    fn from(figures: &Figures) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            from: Time(figures.from),
            events: figures.events,
            actions: figures.actions,
            succeeded: figures.succeeded,
            dead: figures.dead,
            retries: figures.retries,
            latency_ms: figures.latency.map(|(half, most)| LatencyView {
                p50: millis(half),
                p95: millis(most),
            }),
            backlog: figures.backlog,
        }
    }
}

fn backlog(history: &History) -> BacklogView {
    let count = |state| {
        let found = history.backlog.iter().find(|one| one.state == state);
        found.map_or(0, |one| one.count)
    };
    let all: u64 = history.backlog.iter().map(|one| one.count).sum();
    BacklogView {
        pending: count(ActionState::Pending),
        waiting: count(ActionState::Waiting),
        unknown: count(ActionState::Unknown),
        oldest_at: history.backlog.iter().map(|one| one.oldest_at).min().map(Time),
        is_whole: all < u64::from(BACKLOG_COUNTED_MAX),
    }
}

/// The time that a query asks for.
pub fn over_of(uri: &Uri) -> Answer<Over> {
    let mut params = Params::of(uri)?;
    let over = match params.take("over").as_deref() {
        None | Some("hour") => Over::Hour,
        Some("day") => Over::Day,
        Some(_) => return Err(Problem::field(Code::InvalidQuery, "over", "expected hour or day")),
    };
    params.finish()?;
    Ok(over)
}

pub async fn show(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<StatisticsView>> {
    let over = over_of(&uri)?;
    let history = state
        .history
        .get(&*state.store, &*state.clock, member.org, over)
        .await?;
    Ok(Json(StatisticsView {
        over: over.as_str(),
        until: Time(history.until),
        bucket_seconds: over.parts().1.as_secs(),
        buckets: history.parts.iter().map(FiguresView::from).collect(),
        total: FiguresView::from(&history.total),
        counted_since: history.counted_since.map(Time),
        backlog: backlog(&history),
    }))
}
