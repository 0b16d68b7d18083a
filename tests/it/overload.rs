//! More events than the disk takes. They are refused soon, with `Retry-After`. Memory stays
//! bounded, and the refusals end once the disk keeps up.

use crate::{
    queue_embedded::{Scratch, held, settings as log_settings},
    support::app::{TestApp, ingress::settings},
    support::wire::Answer,
};
use hookswitch::{
    config::ReceiverSettings,
    domain::SystemClock,
    queue::{Disk, EventQueue, LogQueue},
};
use std::{
    fs::File,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

/// A disk whose fsync of a segment hangs while a test wants it.
#[derive(Default)]
struct Hanging {
    hangs: Mutex<bool>,
    changed: Condvar,
}

impl Hanging {
    fn set(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
        self.changed.notify_all();
    }
}

impl Disk for Hanging {
    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        if path.extension().is_some_and(|extension| extension == "seg") {
            drop(
                self.changed
                    .wait_while(self.hangs.lock().unwrap(), |hangs| *hangs)
                    .unwrap(),
            );
        }
        file.sync_data()
    }
}

const TURNS: usize = 8;
const SENDERS: usize = 200;

/// Fault 40 of `tests/it/faults`: overload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_a_slow_disk_cannot_take_are_503_soon_and_the_others_are_answered_when_it_is_back() {
    let (disk, place) = (Arc::new(Hanging::default()), Scratch::new());
    let log = Arc::new(
        LogQueue::open_on(Arc::clone(&disk) as _, &place.0, log_settings(), Arc::new(SystemClock))
            .await
            .unwrap(),
    );
    let limits = ReceiverSettings {
        requests_max: TURNS,
        turn_seconds_max: Duration::from_millis(100),
        // Far longer than the test: what has its turn waits for the disk.
        publish_seconds_max: Duration::from_mins(1),
        ..settings()
    };
    let (app, [a, _]) = TestApp::builder()
        .receiver(limits)
        .through(Arc::clone(&log) as Arc<dyn EventQueue>)
        .start_with_senders()
        .await;
    let bytes = a.request("/webhooks/vapi", &a.body());
    assert_eq!(app.exchange(&bytes).await.status, 200);
    let begun_before = 1;

    disk.set(true);
    let exchange = async || {
        let begun = Instant::now();
        (app.exchange(&bytes).await, begun.elapsed())
    };
    let recovery = async {
        // All places are taken; whoever comes now is refused. Then the disk comes back.
        app.queue().begun(begun_before + TURNS).await;
        let (answer, waited) = exchange().await;
        disk.set(false);
        refused_soon(&answer, waited);
        waited
    };
    let (answers, _) = tokio::join!(
        futures_util::future::join_all((0..SENDERS).map(|_| exchange())),
        recovery
    );
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(answer, _)| answer.status == 200);
    assert!(taken.len() >= TURNS, "{} were taken", taken.len());
    for (answer, waited) in &refused {
        refused_soon(answer, *waited);
    }
    // Nothing was begun for those that were refused: memory is bounded by places, not by senders.
    app.queue().begun(begun_before + taken.len()).await;
    assert_eq!(
        log.state().events,
        (begun_before + taken.len()) as u64,
        "each 200 stands in the queue, and nothing else does"
    );

    // At once and for everyone, as before.
    let after = futures_util::future::join_all((0..TURNS).map(|_| exchange())).await;
    assert!(after.iter().all(|(answer, _)| answer.status == 200), "recovered");
    let wanted = begun_before + taken.len() + TURNS;
    assert_eq!(held(&log).await.len(), wanted);
    log.close().await;
}

fn refused_soon(answer: &Answer, waited: Duration) {
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("5")),
        "{}",
        answer.head
    );
    assert!(waited < Duration::from_secs(8), "refused after {waited:?}");
}
