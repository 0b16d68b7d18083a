//! How a process starts, drains and stops: stages with a soft token and a task tracker each, one
//! hard token over all.
//!
//! `cli` and tests enter. **Invariant:** stages end in order, and nothing outlives
//! [`Lifecycle::drain`] but what the hard stop cut off.

use crate::telemetry::Finding;
use std::{fmt, future::Future, time::Duration};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Time for tasks to notice the hard stop.
const CUT_OFF_MAX: Duration = Duration::from_millis(500);

/// The order of the stop. Intake ends first, so that nothing more comes to work. Upkeep ends last,
/// because intake and work need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Listeners. Soft stop: accept nothing more, finish what is being answered.
    Intake,
    /// The worker. Soft stop: take nothing more, finish or release what runs.
    Work,
    /// Refreshes, flushes, gauges.
    Upkeep,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Intake, Self::Work, Self::Upkeep];
}

impl fmt::Display for Stage {
    /// As a person reads it in a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intake => "the requests under way",
            Self::Work => "the attempts under way",
            Self::Upkeep => "the background tasks",
        })
    }
}

/// Whether everything ended by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    Clean,
    /// The hard stop cut this stage off. The next start finds its unfinished work.
    CutOff(Stage),
}

#[derive(Clone, Debug)]
struct Tasks {
    soft: CancellationToken,
    tracker: TaskTracker,
}

#[derive(Clone, Debug)]
pub struct Lifecycle {
    hard: CancellationToken,
    leaving: CancellationToken,
    stages: [Tasks; 3],
}

impl Default for Lifecycle {
    fn default() -> Self {
        let hard = CancellationToken::new();
        // The hard token is the parent: a hard stop implies every soft one.
        let stages = Stage::ALL.map(|_| Tasks {
            soft: hard.child_token(),
            tracker: TaskTracker::new(),
        });
        let leaving = hard.child_token();
        Self { hard, leaving, stages }
    }
}

impl Lifecycle {
    const fn tasks(&self, stage: Stage) -> &Tasks {
        &self.stages[stage as usize]
    }

    /// The soft token of a stage: take nothing more, finish the work that was begun.
    #[must_use]
    pub fn soft(&self, stage: Stage) -> CancellationToken {
        self.tasks(stage).soft.clone()
    }

    /// The hard token: stop at once.
    #[must_use]
    pub fn hard(&self) -> CancellationToken {
        self.hard.clone()
    }

    /// For rooms that start tasks of their own within a stage.
    #[must_use]
    pub fn tracker(&self, stage: Stage) -> TaskTracker {
        self.tasks(stage).tracker.clone()
    }

    /// Starts a long-running task, expected to end soon after its stage's soft token.
    pub fn start(&self, stage: Stage, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks(stage).tracker.spawn(task);
    }

    /// Cancelled before any soft token: who sends new work should go elsewhere.
    #[must_use]
    pub fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Says that the process is leaving, and gives its senders the time to notice.
    pub async fn leave(&self, time: Duration) {
        self.leaving.cancel();
        let _ = tokio::time::timeout(time, self.hard.cancelled()).await;
    }

    /// Whether the process still takes webhooks: not once its stop has begun.
    #[must_use]
    pub fn check(&self) -> Finding {
        if self.leaving.is_cancelled() {
            Finding::failed("the process is stopping and takes no more connections")
        } else {
            Finding::ok()
        }
    }

    /// Stops stage by stage within `budget`, then hard, with half a second more for tasks to
    /// notice.
    pub async fn drain(&self, budget: Duration) -> Drained {
        let end = Instant::now() + budget;
        let mut outcome = Drained::Clean;
        self.leaving.cancel();
        for stage in Stage::ALL {
            let tasks = self.tasks(stage);
            tasks.soft.cancel();
            tasks.tracker.close();
            tokio::select! {
                biased;
                () = tasks.tracker.wait() => {}
                () = tokio::time::sleep_until(end) => { outcome = cut_off(outcome, stage); self.hard.cancel(); }
                () = self.hard.cancelled() => outcome = cut_off(outcome, stage),
            }
        }
        self.hard.cancel();
        let ended = async {
            for stage in Stage::ALL {
                self.tasks(stage).tracker.wait().await;
            }
        };
        let _ = tokio::time::timeout(CUT_OFF_MAX, ended).await;
        outcome
    }
}

/// Keeps the first stage that was cut off.
const fn cut_off(so_far: Drained, stage: Stage) -> Drained {
    match so_far {
        Drained::Clean => Drained::CutOff(stage),
        Drained::CutOff(_) => so_far,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test(start_paused = true)]
    async fn stages_end_in_order() {
        let lifecycle = Lifecycle::default();
        let ended = Arc::new(Mutex::new(Vec::new()));
        for stage in [Stage::Upkeep, Stage::Work, Stage::Intake] {
            let (soft, ended) = (lifecycle.soft(stage), ended.clone());
            lifecycle.start(stage, async move {
                soft.cancelled().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
                ended.lock().expect("no poison").push(stage);
            });
        }
        assert_eq!(lifecycle.drain(Duration::from_secs(10)).await, Drained::Clean);
        assert_eq!(
            *ended.lock().expect("no poison"),
            [Stage::Intake, Stage::Work, Stage::Upkeep]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_cut_off_within_the_budget() {
        let lifecycle = Lifecycle::default();
        lifecycle.start(Stage::Work, std::future::pending());
        let begun = Instant::now();
        assert_eq!(
            lifecycle.drain(Duration::from_secs(5)).await,
            Drained::CutOff(Stage::Work)
        );
        assert!(begun.elapsed() < Duration::from_secs(6));
        assert!(lifecycle.hard().is_cancelled());
    }
}
