//! The embedded queue on a disk that fails: fsync, full, slow, short.

use crate::{
    conformance::queue::{event, id_of, take, within},
    queue_embedded::{Scratch, held, open, publish, segments, settings},
    support::until,
};
use hookswitch::{
    domain::{OrgId, SystemClock},
    queue::{Disk, DiskSpace, EventQueue, LogQueue, LogSettings, PublishError, QueueHealth},
};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

const GIB: u64 = 1 << 30;

/// A disk that fails as a test wants it. Counts and faults are those of segments only; the mark and
/// the directory are sound.
struct Faulty {
    syncs: AtomicUsize,
    /// Those of the segment that is prepared.
    spare_syncs: AtomicUsize,
    fail_syncs: AtomicBool,
    full: AtomicBool,
    panics: AtomicBool,
    write_at_most: AtomicUsize,
    free_bytes: AtomicU64,
    sync_takes: Duration,
    held: Mutex<bool>,
    released: Condvar,
}

impl Faulty {
    fn sound() -> Self {
        Self {
            syncs: AtomicUsize::new(0),
            spare_syncs: AtomicUsize::new(0),
            fail_syncs: AtomicBool::new(false),
            full: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            write_at_most: AtomicUsize::new(usize::MAX),
            free_bytes: AtomicU64::new(GIB),
            sync_takes: Duration::ZERO,
            held: Mutex::new(false),
            released: Condvar::new(),
        }
    }

    fn hold_syncs(&self, hold: bool) {
        *self.held.lock().unwrap() = hold;
        self.released.notify_all();
    }

    fn syncs(&self) -> usize {
        self.syncs.load(Ordering::SeqCst)
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}

impl Disk for Faulty {
    fn write_at(&self, file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<usize> {
        assert!(
            !(self.panics.load(Ordering::SeqCst) && is_segment(path)),
            "the disk of the test breaks"
        );
        let part = bytes.len().min(self.write_at_most.load(Ordering::SeqCst));
        if self.full.load(Ordering::SeqCst) && is_segment(path) {
            // As a disk fills up: some of it still fits.
            if bytes.len() > 100 {
                return file.write_at(&bytes[..bytes.len() / 2], offset);
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_at(&bytes[..part], offset)
    }

    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        if !is_segment(path) {
            let is_spare = path.extension().is_some_and(|extension| extension == "tmp");
            self.spare_syncs.fetch_add(usize::from(is_spare), Ordering::SeqCst);
            return file.sync_data();
        }
        self.syncs.fetch_add(1, Ordering::SeqCst);
        drop(
            self.released
                .wait_while(self.held.lock().unwrap(), |held| *held)
                .unwrap(),
        );
        std::thread::sleep(self.sync_takes);
        if self.fail_syncs.swap(false, Ordering::SeqCst) {
            // Once, as the kernel does: the next fsync would say that all is well.
            return Err(io::Error::from_raw_os_error(5));
        }
        file.sync_data()
    }

    fn space(&self, _directory: &Path) -> io::Result<DiskSpace> {
        Ok(DiskSpace {
            free_bytes: self.free_bytes.load(Ordering::SeqCst),
            total_bytes: 100 * GIB,
        })
    }
}

async fn open_on(disk: &Arc<Faulty>, place: &Scratch, settings: LogSettings) -> Arc<LogQueue> {
    Arc::new(
        LogQueue::open_on(disk.clone(), &place.0, settings, Arc::new(SystemClock))
            .await
            .unwrap(),
    )
}

#[tokio::test]
async fn an_fsync_that_fails_is_final_and_never_tried_again() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let queue = open_on(&disk, &place, settings()).await;
    let org = OrgId::generate();
    let before = publish(&queue, org, b"before").await;
    assert!(futures_util::poll!(queue.failed()).is_pending(), "all is well");
    let syncs = disk.syncs();
    disk.fail_syncs.store(true, Ordering::SeqCst);

    let events: Vec<_> = (0..10).map(|_| event(org, "call", "lost")).collect();
    for outcome in futures_util::future::join_all(events.iter().map(|event| queue.publish(event))).await {
        assert!(matches!(outcome, Err(PublishError::Failed { .. })), "{outcome:?}");
    }
    let reason = within(queue.failed()).await;
    assert!(reason.contains("fsync") && reason.contains(".seg"), "{reason}");
    assert_eq!(queue.state().health, QueueHealth::Failed);
    assert!(matches!(
        queue.publish(&event(org, "call", "after")).await,
        Err(PublishError::Failed { .. })
    ));
    queue.close().await;
    assert_eq!(disk.syncs(), syncs + 1, "an fsync was tried again");

    let reopened = open(&place.0).await;
    assert_eq!(held(&reopened).await.first(), Some(&before));
}

#[tokio::test]
async fn nobody_is_told_of_an_event_before_its_fsync_returned() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let queue = open_on(&disk, &place, settings()).await;
    let mut deliveries = queue.consume().await.unwrap();
    let syncs = disk.syncs();
    disk.hold_syncs(true);
    let event = event(OrgId::generate(), "call", "x");
    let mut publish = queue.publish(&event);
    assert!(futures_util::poll!(&mut publish).is_pending());
    until("the fsync to begin", || async { (disk.syncs() > syncs).then_some(()) }).await;
    // Written, in the page cache, readable by anyone who looks: and not yet there.
    // The consumer is given the time that a read of its own takes, many times over.
    let early = tokio::time::timeout(Duration::from_millis(100), deliveries.next_batch(1)).await;
    assert!(early.is_err(), "the consumer saw it before it was durable");
    assert!(futures_util::poll!(&mut publish).is_pending());
    disk.hold_syncs(false);
    within(publish).await.unwrap();
    assert_eq!(take(&mut deliveries, 1).await.len(), 1);
}

#[tokio::test]
async fn a_full_disk_refuses_and_heals_by_itself() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let queue = open_on(
        &disk,
        &place,
        LogSettings {
            disk_free_bytes_min: Some(GIB / 2),
            ..settings()
        },
    )
    .await;
    let org = OrgId::generate();
    let mut kept = vec![publish(&queue, org, b"before").await];
    let (events, bytes) = (queue.state().events, queue.state().bytes);
    disk.full.store(true, Ordering::SeqCst);
    disk.free_bytes.store(0, Ordering::SeqCst);
    let lost: Vec<_> = (0..20).map(|_| event(org, "call", vec![b'x'; 3000])).collect();
    for outcome in futures_util::future::join_all(lost.iter().map(|event| queue.publish(event))).await {
        assert!(
            matches!(outcome, Err(PublishError::DiskNearlyFull { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(queue.state().health, QueueHealth::Refusing);
    assert_eq!(
        (queue.state().events, queue.state().bytes),
        (events, bytes),
        "what was refused is not held"
    );
    disk.full.store(false, Ordering::SeqCst);
    disk.free_bytes.store(GIB, Ordering::SeqCst);
    until("intake to go on", || async {
        (queue.state().health == QueueHealth::Ready).then_some(())
    })
    .await;
    kept.push(publish(&queue, org, b"after").await);
    assert_eq!(held(&queue).await, kept, "what was refused does not come out");
    assert_eq!(held(&open(&place.copy().0).await).await, kept, "nor after a crash");
}

#[tokio::test]
async fn intake_stops_before_the_disk_is_full() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let queue = open_on(
        &disk,
        &place,
        LogSettings {
            disk_free_bytes_min: Some(1000),
            ..settings()
        },
    )
    .await;
    let org = OrgId::generate();
    disk.free_bytes.store(1000, Ordering::SeqCst);
    until("maintenance to check the space", || async {
        (queue.state().disk_free_bytes == Some(1000)).then_some(())
    })
    .await;
    publish(&queue, org, b"at the limit").await;
    disk.free_bytes.store(999, Ordering::SeqCst);
    until("intake to stop", || async {
        (queue.state().health == QueueHealth::Refusing).then_some(())
    })
    .await;
    let refused = queue.publish(&event(org, "call", "x")).await;
    assert!(
        matches!(
            refused,
            Err(PublishError::DiskNearlyFull {
                free_bytes: 999,
                free_bytes_min: 1000
            })
        ),
        "{refused:?}"
    );
    // Acks use the reserve: what is there can be worked off.
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 1).await;
    deliveries.ack(&[got[0].tag]).await.unwrap();
    assert_eq!(queue.state().events, 0);
}

#[tokio::test]
async fn without_a_setting_a_twentieth_of_the_disk_stays_free() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    disk.free_bytes.store(5 * GIB - 1, Ordering::SeqCst);
    let queue = open_on(
        &disk,
        &place,
        LogSettings {
            disk_free_bytes_min: None,
            ..settings()
        },
    )
    .await;
    let refused = queue.publish(&event(OrgId::generate(), "call", "x")).await;
    assert!(
        matches!(refused, Err(PublishError::DiskNearlyFull { free_bytes_min, .. }) if free_bytes_min == 5 * GIB),
        "{refused:?}"
    );
}

#[tokio::test]
async fn short_writes_are_finished() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let queue = open_on(&disk, &place, settings()).await;
    disk.write_at_most.store(100, Ordering::SeqCst);
    let org = OrgId::generate();
    let mut ids = Vec::new();
    for bytes in [0, 99, 5000, 100] {
        ids.push(publish(&queue, org, &vec![b'x'; bytes]).await);
    }
    assert_eq!(held(&queue).await, ids);
    assert_eq!(held(&open(&place.copy().0).await).await, ids);
}

#[tokio::test]
async fn a_slow_fsync_is_shared_by_all_who_wait() {
    let (disk, place) = (
        Arc::new(Faulty {
            sync_takes: Duration::from_millis(30),
            ..Faulty::sound()
        }),
        Scratch::new(),
    );
    let queue = open_on(
        &disk,
        &place,
        LogSettings {
            segment_bytes: 64 << 20,
            ..settings()
        },
    )
    .await;
    let org = OrgId::generate();
    let syncs = disk.syncs();
    let senders = (0..64).map(|_| async {
        for _ in 0..5 {
            publish(&queue, org, b"x").await;
        }
    });
    futures_util::future::join_all(senders).await;
    let syncs = disk.syncs() - syncs;
    assert!(syncs * 20 <= 320, "{syncs} fsyncs for 320 events");
}

#[tokio::test]
async fn memory_is_bounded_while_an_fsync_hangs() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let queue = open_on(&disk, &place, settings()).await;
    disk.hold_syncs(true);
    let events: Vec<_> = (0..40)
        .map(|n| event(OrgId::generate(), &format!("call-{n}"), vec![b'x'; 1 << 20]))
        .collect();
    let mut publishing = Box::pin(futures_util::future::join_all(
        events.iter().map(|event| queue.publish(event)),
    ));
    assert!(futures_util::poll!(&mut publishing).is_pending());
    // One group is being written, the next is full at 16 MiB, and the others wait outside.
    assert!(
        queue.state().bytes <= (2 * 17) << 20,
        "it took {} bytes",
        queue.state().bytes
    );
    disk.hold_syncs(false);
    for outcome in within(publishing).await {
        outcome.unwrap();
    }
    let mut ids = held(&queue).await;
    ids.sort_unstable();
    assert_eq!(ids, events.iter().map(id_of).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_disk_at_a_new_segment_is_a_refusal_too() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let queue = open_on(
        &disk,
        &place,
        LogSettings {
            segment_bytes: 10_000,
            ..settings()
        },
    )
    .await;
    let org = OrgId::generate();
    let mut kept = vec![publish(&queue, org, &[b'x'; 9000]).await];
    disk.full.store(true, Ordering::SeqCst);
    let refused = queue.publish(&event(org, "call", vec![b'x'; 9000])).await;
    assert!(
        matches!(refused, Err(PublishError::DiskNearlyFull { .. })),
        "{refused:?}"
    );
    disk.full.store(false, Ordering::SeqCst);
    until("intake to go on", || async {
        (queue.state().health == QueueHealth::Ready).then_some(())
    })
    .await;
    for _ in 0..3 {
        kept.push(publish(&queue, org, &[b'x'; 9000]).await);
    }
    assert!(segments(&place.0).len() >= 4);
    assert_eq!(held(&queue).await, kept);
    assert_eq!(held(&open(&place.copy().0).await).await, kept);
}

/// Long before it is needed, and never as one write that every fsync would wait behind.
#[tokio::test]
async fn the_next_segment_is_prepared_in_small_steps() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let settings = LogSettings {
        segment_bytes: 4 << 20,
        ..settings()
    };
    let queue = open_on(&disk, &place, settings.clone()).await;
    let first = disk.spare_syncs.load(Ordering::SeqCst);
    assert_eq!(
        first, 6,
        "four MiB in steps, what is over, and the header: the first segment"
    );
    let org = OrgId::generate();
    let mut kept = vec![publish(&queue, org, &vec![b'x'; 500_000]).await];
    let spare = place.0.join("spare.tmp");
    let length = || std::fs::metadata(&spare).map_or(0, |file| file.len());
    until("the next segment", || async { (length() > 4 << 20).then_some(()) }).await;
    assert_eq!(disk.spare_syncs.load(Ordering::SeqCst), first + 5);
    // Eight of them are more than a segment.
    for _ in 0..8 {
        kept.push(publish(&queue, org, &vec![b'x'; 500_000]).await);
    }
    let second = segments(&place.0).pop().expect("two segments");
    assert!(
        std::fs::metadata(second).expect("it").len() > 4 << 20,
        "the prepared one"
    );
    assert_eq!(held(&queue).await, kept);
    queue.close().await;

    // A disk that has hardly more than its limit: segments grow as they are written.
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let free_bytes_min = Some(GIB - (1 << 20));
    let settings = LogSettings {
        disk_free_bytes_min: free_bytes_min,
        ..settings
    };
    let queue = open_on(&disk, &place, settings).await;
    for _ in 0..9 {
        publish(&queue, org, &vec![b'x'; 500_000]).await;
    }
    assert_eq!(segments(&place.0).len(), 2);
    let syncs = disk.spare_syncs.load(Ordering::SeqCst);
    assert_eq!(syncs, first + 1, "the second has its header only: it was not prepared");
    queue.close().await;
}

/// Those of the group that is being written, and those of the group that fills behind it.
#[tokio::test]
async fn publishers_of_a_group_whose_writing_breaks_are_answered() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let queue = open_on(&disk, &place, settings()).await;
    disk.panics.store(true, Ordering::SeqCst);
    let events: Vec<_> = (0..10).map(|_| event(OrgId::generate(), "call", "lost")).collect();
    let publishing = futures_util::future::join_all(events.iter().map(|event| queue.publish(event)));
    for outcome in within(publishing).await {
        assert!(matches!(outcome, Err(PublishError::Failed { .. })), "{outcome:?}");
    }
    assert!(within(queue.failed()).await.contains("panicked"));
}

/// Invariant 13: intake has stopped long before, and what is left of the disk is for acks and
/// plans.
#[tokio::test]
async fn room_is_kept_on_the_disk_and_given_up_last() {
    let (disk, place) = (Arc::new(Faulty::sound()), Scratch::new());
    let settings = LogSettings {
        disk_free_bytes_min: Some(GIB / 2),
        ..settings()
    };
    let queue = open_on(&disk, &place, settings).await;
    let reserve = place.0.join("reserve.tmp");
    let bytes = || std::fs::metadata(&reserve).map_or(0, |file| file.blocks() * 512);
    let is_kept = |wanted: bool| async move { (wanted == (bytes() > 0)).then_some(()) };
    until("room to be kept", || is_kept(true)).await;
    let kept = bytes();
    assert!(kept >= 16 << 20, "{kept} bytes");
    disk.free_bytes.store(GIB / 4, Ordering::SeqCst);
    until("intake to stop", || async {
        (queue.state().health == QueueHealth::Refusing).then_some(())
    })
    .await;
    assert_eq!(bytes(), kept, "given up last, not first");
    disk.free_bytes.store(0, Ordering::SeqCst);
    until("the room to be given up", || is_kept(false)).await;
    disk.free_bytes.store(GIB, Ordering::SeqCst);
    until("room to be kept again", || is_kept(true)).await;
    queue.close().await;
}
