//! Whether the process can do its work: the answer of `/readyz`.

use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use std::{borrow::Cow, future::Future, sync::Arc, time::Duration};

/// The state of one check, from which `/readyz` makes its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Ok,
    /// It works, but a person should know that something is missing.
    Degraded,
    /// The role can do nothing: 503.
    Failed,
}

/// The result of a check. The detail is for operators: no secret, no sender's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub standing: Standing,
    pub detail: Cow<'static, str>,
}

impl Finding {
    #[must_use]
    pub const fn ok() -> Self {
        Self {
            standing: Standing::Ok,
            detail: Cow::Borrowed(""),
        }
    }

    pub fn degraded(detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            standing: Standing::Degraded,
            detail: detail.into(),
        }
    }

    /// For a role that can do nothing while this is missing.
    #[must_use]
    pub fn failed_if_degraded(mut self) -> Self {
        if self.standing == Standing::Degraded {
            self.standing = Standing::Failed;
        }
        self
    }

    pub fn failed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            standing: Standing::Failed,
            detail: detail.into(),
        }
    }
}

/// Time for one check. A probe ignores an answer that comes too late.
const CHECK_SECONDS_MAX: Duration = Duration::from_secs(1);

type Check = Arc<dyn Fn() -> BoxFuture<'static, Finding> + Send + Sync>;

/// The checks of a process. `cli` hands them in when it starts the roles.
#[derive(Clone, Default)]
pub struct Checks(Vec<(&'static str, Check)>);

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Report {
    status: &'static str,
    checks: Vec<Line>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Line {
    name: &'static str,
    status: Standing,
    detail: Cow<'static, str>,
}

impl Checks {
    /// Adds a check. One that hangs is `failed` after a second.
    #[must_use]
    pub fn with<F, R>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Finding> + Send + 'static,
    {
        self.0.push((name, Arc::new(move || Box::pin(check()))));
        self
    }

    /// Runs all checks at the same time. The process is in the worst state of them.
    pub(super) async fn report(&self) -> (Standing, Report) {
        let lines = join_all(self.0.iter().map(|(name, check)| async move {
            let finding = tokio::time::timeout(CHECK_SECONDS_MAX, check())
                .await
                .unwrap_or_else(|_| Finding::failed("no answer within a second"));
            Line {
                name,
                status: finding.standing,
                detail: finding.detail,
            }
        }))
        .await;
        let worst = lines.iter().map(|line| line.status).max().unwrap_or(Standing::Ok);
        let status = match worst {
            Standing::Ok => "ready",
            Standing::Degraded => "degraded",
            Standing::Failed => "unavailable",
        };
        (worst, Report { status, checks: lines })
    }
}
