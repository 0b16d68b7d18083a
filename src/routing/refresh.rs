//! Keeps the snapshot current: on the store's signal, every second, and before a request is
//! refused.
//!
//! All looks go through one lock: one at a time. A look is one read transaction; where the version
//! has not moved it reads one row. `docs/decisions/0016-looks-at-the-routes.md` says who waits for
//! one, and why.

use super::{RouteTable, keys::lock};
use crate::telemetry::catalogue::{CLOCK_OFFSET_SECONDS, ROUTE_LOOKS, ROUTE_SNAPSHOT_AGE_SECONDS, ROUTES};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the version is polled; the signal is a hint only.
const PERIOD: Duration = Duration::from_secs(1);
/// Between two looks that refused requests asked for (invariant 9: at most 10 a second).
const UNPROVEN_SPACING: Duration = Duration::from_millis(100);
/// Between two looks that requests with a proven signature asked for.
const PROVEN_SPACING: Duration = Duration::from_millis(10);
/// Between two looks that signals asked for, so that a thousand changes in a row are not a thousand
/// loads.
const SIGNAL_SPACING: Duration = Duration::from_millis(10);
/// How long a request waits for a look. It then counts as not current.
const ASKED_MAX: Duration = Duration::from_secs(2);
/// How long a look may take: a bulk import of routes is loaded in one.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// Who asks for a look, which says how soon after the last one it may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// Anyone can send such a request: however many ask, the database sees 10 looks a second.
    Unproven,
    /// The platform's own account has signed, and a route decides whose the event is. No unknown
    /// sender can ask so, and the sender of a genuine event waits.
    Proven,
}

impl Asker {
    const fn spacing(self) -> Duration {
        match self {
            Self::Unproven => UNPROVEN_SPACING,
            Self::Proven => PROVEN_SPACING,
        }
    }
}

/// The state of the looks, behind their lock.
#[derive(Default)]
pub(super) struct Looks {
    last_begun: Option<Instant>,
    /// Whether the last look found or made the snapshot current; `None` while it is under way, and
    /// for good where its caller went away.
    is_current: Option<bool>,
    is_failing: bool,
}

impl RouteTable {
    /// One look at the version for all callers of the same moment, as often as `asker` allows. It
    /// loads changes where there are any (invariant 9). `true` when the snapshot is current
    /// afterwards: the look began after the question. Takes 2 s at most. Cancel-safe.
    pub async fn refresh_now(&self, asker: Asker) -> bool {
        let asked = self.looks_begun.load(Ordering::SeqCst);
        let look = async {
            loop {
                let may_begin = {
                    let mut looks = self.looks.lock().await;
                    if self.looks_begun.load(Ordering::SeqCst) > asked
                        && let Some(is_current) = looks.is_current
                    {
                        return is_current;
                    }
                    let may_begin = looks.last_begun.map(|last| last + asker.spacing());
                    match may_begin.filter(|at| *at > Instant::now()) {
                        Some(at) => at,
                        None => return self.look(&mut looks).await,
                    }
                };
                // Without the lock: whoever may begin sooner goes first, and its look serves all.
                sleep_until(may_begin).await;
            }
        };
        timeout(ASKED_MAX, look).await.unwrap_or(false)
    }

    /// Keeps the snapshot current: on the store's signal and every second. Ends with `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.refresh_for_ever()).await;
    }

    async fn refresh_for_ever(&self) {
        let mut changes = self.store.config_changes();
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_signalled = true;
        let mut last = Instant::now();
        loop {
            tokio::select! {
                changed = changes.changed(), if is_signalled => {
                    // A store that has closed signals nothing more; the poll says what that means.
                    is_signalled = changed.is_ok();
                    sleep_until(last + SIGNAL_SPACING).await;
                }
                _ = period.tick() => {}
            }
            // Before the look: what changes during it signals again.
            changes.borrow_and_update();
            last = Instant::now();
            self.look(&mut *self.looks.lock().await).await;
            ROUTES.set(self.routes_len() as f64, &[]);
            ROUTE_SNAPSHOT_AGE_SECONDS.set(self.age().as_secs_f64(), &[]);
            CLOCK_OFFSET_SECONDS.set(self.clock_offset_micros() as f64 / 1e6, &[]);
        }
    }

    /// Reads what changed and applies it. Where that fails the last good snapshot stays, and grows
    /// old.
    async fn look(&self, looks: &mut Looks) -> bool {
        let begun = Instant::now();
        looks.last_begun = Some(begun);
        looks.is_current = None;
        self.looks_begun.fetch_add(1, Ordering::SeqCst);
        ROUTE_LOOKS.count(1, &[]);
        let known = lock(&self.current).version;
        let problem = match timeout(LOOK_MAX, self.store.load_changes(known)).await {
            Ok(Ok(changes)) if changes.version >= known => {
                self.note_clock(changes.database_now, begun.elapsed());
                if changes.version > known {
                    self.apply(changes, begun);
                } else {
                    lock(&self.current).at = begun;
                }
                if std::mem::take(&mut looks.is_failing) {
                    info!("Routes are current again");
                }
                looks.is_current = Some(true);
                return true;
            }
            // An older database lacks rows. They would look like rows that never changed.
            Ok(Ok(changes)) => format!(
                "the database went back from version {known} to {}; start again after a restore",
                changes.version
            ),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {LOOK_MAX:?}"),
        };
        if !std::mem::replace(&mut looks.is_failing, true) {
            warn!(
                "Routes cannot be refreshed, going on with those of {:?} ago: {problem}",
                self.age()
            );
        }
        looks.is_current = Some(false);
        false
    }
}
