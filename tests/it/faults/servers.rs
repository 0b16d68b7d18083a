//! Faults 9, 10, 14, 15 and 16: the database or the broker stands behind an address, and what goes
//! through it breaks.

use super::{
    Given,
    count::Counts,
    proxy::{Mode, Proxied},
    world::{Wishes, World},
};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const DATABASE: &str = "HOOKSWITCH_DATABASE_URL";
pub const QUEUE: &str = "HOOKSWITCH_QUEUE_URL";
/// A sender gives up later than this.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A world of which one server stands behind a proxy.
struct Behind {
    /// Before its server: a process that ends says so to its broker.
    world: World,
    proxied: Proxied,
    _stop: DropGuard,
}

impl Behind {
    async fn start(case: &'static str, given: &Given, setting: &'static str) -> Self {
        let stop = CancellationToken::new();
        let proxied = given.backend.behind(setting, stop.clone()).await;
        let wishes = Wishes {
            settings: vec![(setting, proxied.url.clone())],
            ..Wishes::default()
        };
        let world = World::start(case, given, wishes).await;
        Self {
            world,
            proxied,
            _stop: stop.drop_guard(),
        }
    }

    /// Every request was answered with 200, in the time that senders have.
    fn nobody_was_refused(&self) {
        let (answers, unanswered) = (self.world.load.answers(), self.world.load.unanswered());
        let statuses: Vec<_> = answers.keys().copied().collect();
        assert_eq!((statuses, unanswered), (vec![200], 0), "{}", self.world.label());
        let slowest = self.world.load.percentile(1.0);
        assert!(slowest < ANSWER_MAX, "{}: {slowest:?}", self.world.label());
    }
}

/// A load with the fault in its middle.
async fn under_load(behind: &Behind, fault: Mode, time: Duration) {
    let running = behind.world.load.run(100);
    tokio::time::sleep(Duration::from_secs(1)).await;
    behind.proxied.proxy.set(fault);
    tokio::time::sleep(time).await;
    behind.proxied.proxy.set(Mode::Pass);
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.stop().await;
}

/// Nothing passes either way, and no error tells it.
pub async fn silent_broker(given: Given) -> Counts {
    let behind = Behind::start("broker blackhole", &given, QUEUE).await;
    under_load(&behind, Mode::Blackhole, Duration::from_secs(given.many(90, 8) as u64)).await;
    behind.nobody_was_refused();
    behind.world.final_counts().await
}

/// The broker takes the events, and no confirm comes back.
pub async fn lost_confirms(given: Given) -> Counts {
    let behind = Behind::start("confirm lost", &given, QUEUE).await;
    under_load(&behind, Mode::DropReplies, Duration::from_secs(10)).await;
    behind.nobody_was_refused();
    behind.world.final_counts().await
}

/// Each drain of the spool is cut off.
pub async fn flapping_broker(given: Given) -> Counts {
    let behind = Behind::start("broker flaps", &given, QUEUE).await;
    let running = behind.world.load.run(100);
    for _ in 0..given.many(10, 3) {
        behind.proxied.proxy.set(Mode::Reset);
        tokio::time::sleep(Duration::from_secs(2)).await;
        behind.proxied.proxy.set(Mode::Pass);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    running.stop().await;
    behind.nobody_was_refused();
    behind.world.final_counts().await
}

/// Known routes are served from memory, and the workers wait.
pub async fn database_away(given: Given) -> Counts {
    let behind = Behind::start("database away", &given, DATABASE).await;
    under_load(&behind, Mode::Reset, Duration::from_secs(given.many(15, 4) as u64)).await;
    behind.nobody_was_refused();
    behind.world.final_counts().await
}

/// The database has committed, and nobody learns of it. The connection is cut a moment later.
pub async fn lost_commits(given: Given) -> Counts {
    let behind = Behind::start("COMMIT's reply lost", &given, DATABASE).await;
    let running = behind.world.load.run(100);
    let cuts = given.many(20, 4);
    for _ in 0..cuts {
        let before = behind.proxied.proxy.replies_held();
        behind.proxied.proxy.set(Mode::CutReplyTo(b"COMMIT"));
        super::world::until(
            || behind.world.label(),
            "a COMMIT to be cut off",
            || async { (behind.proxied.proxy.replies_held() > before).then_some(()) },
        )
        .await;
        behind.proxied.proxy.set(Mode::Pass);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    running.stop().await;
    behind.nobody_was_refused();
    let counts = behind.world.final_counts().await;
    counts.note(format!("{cuts} times or more"))
}
