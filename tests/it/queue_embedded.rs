//! The embedded queue: the contract, the process that is killed, what its files hold. Disks that
//! fail stand in `queue_faults`, damaged files in `queue_damage`.

use crate::{
    conformance::queue::{Backend, Limits, delivered, event, id_of, run, take, within},
    support::until,
};
use async_trait::async_trait;
use hookswitch::{
    domain::{EventId, OrgId, SystemClock},
    queue::{ConnectError, Deliveries, Delivery, DeliveryTag, EventQueue, LogQueue, LogSettings},
};
use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

/// A directory of its own, removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let directory =
            std::env::temp_dir().join(format!("hookswitch-queue-{}", hookswitch::domain::EventId::generate()));
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    /// The files as they stand now, in a directory of their own: what a crash would leave.
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        for entry in fs::read_dir(&self.0).unwrap() {
            let entry = entry.unwrap();
            // Maintenance may delete a file in between.
            match fs::copy(entry.path(), copy.0.join(entry.file_name())) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => drop(other.unwrap()),
            }
        }
        copy
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn settings() -> LogSettings {
    LogSettings {
        segment_bytes: 256 << 10,
        disk_free_bytes_min: Some(0),
        ..LogSettings::default()
    }
}

pub async fn open(directory: &Path) -> LogQueue {
    LogQueue::open(directory, settings(), Arc::new(SystemClock))
        .await
        .unwrap()
}

struct Embedded {
    place: Scratch,
    open: Mutex<Option<Arc<LogQueue>>>,
}

impl Embedded {
    fn at(place: Scratch) -> Self {
        Self {
            place,
            open: Mutex::new(None),
        }
    }
}

#[async_trait]
impl Backend for Embedded {
    async fn open(&self, limits: Limits) -> Arc<dyn EventQueue> {
        let settings = LogSettings {
            bytes_max: limits.bytes_max,
            event_bytes_max: limits.event_bytes_max,
            ..settings()
        };
        let queue = Arc::new(
            LogQueue::open(&self.place.0, settings, Arc::new(SystemClock))
                .await
                .unwrap(),
        );
        *self.open.lock().unwrap() = Some(queue.clone());
        queue
    }

    async fn crashed_now(&self) -> Box<dyn Backend> {
        Box::new(Self::at(self.place.copy()))
    }

    async fn put_undecodable(&self) {
        let queue = self.open.lock().unwrap().clone().unwrap();
        queue.publish_bytes(b"no envelope").await.unwrap();
    }
}

#[tokio::test]
async fn the_embedded_queue_keeps_the_contract() {
    run(|| Embedded::at(Scratch::new())).await;
}

pub async fn publish(queue: &LogQueue, org: OrgId, body: &[u8]) -> EventId {
    let event = event(org, "call", body.to_vec());
    queue.publish(&event).await.expect("it fits");
    id_of(&event)
}

/// The ids of all that the queue holds, in its order; acks nothing.
pub async fn held(queue: &LogQueue) -> Vec<EventId> {
    let count = usize::try_from(queue.state().events).unwrap();
    let mut deliveries = queue.consume().await.unwrap();
    take(&mut deliveries, count)
        .await
        .iter()
        .map(|delivery| delivered(delivery).id)
        .collect()
}

async fn ack_all(queue: &LogQueue, deliveries: &mut Box<dyn Deliveries>) {
    let got = take(deliveries, usize::try_from(queue.state().events).unwrap()).await;
    let tags: Vec<DeliveryTag> = got.iter().map(|delivery: &Delivery| delivery.tag).collect();
    deliveries.ack(&tags).await.unwrap();
}

pub fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "seg"))
        .collect();
    segments.sort();
    segments
}

#[tokio::test]
async fn a_directory_belongs_to_one_process() {
    let place = Scratch::new();
    let queue = open(&place.0).await;
    let refused = LogQueue::open(&place.0, settings(), Arc::new(SystemClock))
        .await
        .unwrap_err();
    assert!(matches!(refused, ConnectError::InUse { .. }), "{refused}");
    let id = publish(&queue, OrgId::generate(), b"still works").await;
    queue.close().await;
    // Closing lets go of it even while the handle lives.
    assert_eq!(held(&open(&place.0).await).await, [id]);
}

#[tokio::test]
async fn acked_segments_leave_the_disk_and_the_rest_is_served() {
    let place = Scratch::new();
    let queue = open(&place.0).await;
    let org = OrgId::generate();
    for _ in 0..64 {
        publish(&queue, org, &vec![b'x'; 20_000]).await;
    }
    assert!(
        segments(&place.0).len() >= 4,
        "it did not roll: {:?}",
        segments(&place.0)
    );
    let mut deliveries = queue.consume().await.unwrap();
    ack_all(&queue, &mut deliveries).await;
    until("all but the active segment to be deleted", || async {
        (segments(&place.0).len() == 1).then_some(())
    })
    .await;
    let id = publish(&queue, org, b"last").await;
    let copy = place.copy();
    assert_eq!(held(&open(&copy.0).await).await, [id]);
}

#[tokio::test]
async fn the_ack_mark_follows_by_itself_and_survives_a_crash() {
    let place = Scratch::new();
    let queue = open(&place.0).await;
    let org = OrgId::generate();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(publish(&queue, org, &[n]).await);
    }
    let mut deliveries = queue.consume().await.unwrap();
    let got = take(&mut deliveries, 20).await;
    let mut tags: Vec<_> = got.iter().map(|delivery| delivery.tag).collect();
    // The first twelve, and two behind a gap: the watermark stands before the gap.
    tags.truncate(12);
    deliveries.ack(&tags).await.unwrap();
    deliveries.ack(&[got[14].tag, got[15].tag]).await.unwrap();
    until("the mark to be kept", || async {
        let copy = place.copy();
        (held(&open(&copy.0).await).await == ids[12..]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_larger_than_a_segment_and_than_a_read_go_through() {
    let place = Scratch::new();
    let queue = open(&place.0).await;
    let org = OrgId::generate();
    let mut ids = Vec::new();
    for bytes in [10, 1_000_000, 300_000, 600_000, 10, 524_288] {
        ids.push(publish(&queue, org, &vec![b'x'; bytes]).await);
    }
    assert_eq!(held(&queue).await, ids);
    drop(queue);
    assert_eq!(held(&open(&place.0).await).await, ids);
}

#[tokio::test]
async fn restarts_without_events_leave_no_files_behind() {
    let place = Scratch::new();
    let id = publish(&open(&place.0).await, OrgId::generate(), b"kept").await;
    for _ in 0..5 {
        let queue = open(&place.0).await;
        assert_eq!(held(&queue).await, [id]);
    }
    assert_eq!(segments(&place.0).len(), 2, "{:?}", segments(&place.0));
}

const ROUNDS: usize = 10;

/// Confirms that a child has said when it is killed.
const fn kill_after(round: usize) -> usize {
    30 + (round * 97) % 400
}

const CHILD: &str = "HOOKSWITCH_TEST_QUEUE_CHILD";

/// Not a test of its own: the process that the next one starts and kills. Says `confirmed ID` after
/// each confirm, and `seen ID` before each ack.
#[test]
fn child_that_publishes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let say = |word: &str, id: EventId| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{word} {id}")
            .and_then(|()| out.flush())
            .expect("the parent reads");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let queue = open(Path::new(&directory)).await;
        let publishers = futures_util::future::join_all((0..16).map(|sender| {
            let queue = &queue;
            async move {
                for n in 0_usize.. {
                    say(
                        "confirmed",
                        publish(queue, OrgId::generate(), &vec![b'x'; (sender * 997 + n * 131) % 5000]).await,
                    );
                }
            }
        }));
        let consumer = async {
            let mut deliveries = queue.consume().await.unwrap();
            loop {
                let batch = deliveries.next_batch(7).await.unwrap();
                for delivery in batch.iter().step_by(2) {
                    say("seen", delivered(delivery).id);
                    deliveries.ack(&[delivery.tag]).await.unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = publishers => {}
            () = consumer => {}
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_confirmed_before_kill_nine_is_delivered() {
    let place = Scratch::new();
    let directory = place.0.clone();
    let (confirmed, seen) = tokio::task::spawn_blocking(move || {
        let (mut confirmed, mut seen) = (HashSet::new(), HashSet::new());
        for round in 0..ROUNDS {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "queue_embedded::child_that_publishes_until_it_is_killed",
                    "--nocapture",
                ])
                .env(CHILD, &directory)
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()
                .unwrap();
            let mut lines = 0;
            for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
                let line = line.unwrap();
                let Some((word, id)) = std::str::from_utf8(&line).ok().and_then(|line| line.split_once(' ')) else {
                    continue;
                };
                let Ok(id) = id.parse::<EventId>() else { continue };
                match word {
                    "confirmed" => drop(confirmed.insert(id)),
                    "seen" => {
                        seen.insert(id);
                        continue;
                    }
                    _ => continue,
                }
                lines += 1;
                // Killed at another moment each round; what it said before is still read to the
                // end.
                if lines == kill_after(round) {
                    child.kill().unwrap();
                }
            }
            child.wait().unwrap();
        }
        (confirmed, seen)
    })
    .await
    .unwrap();
    assert!(
        confirmed.len() >= (0..ROUNDS).map(kill_after).sum(),
        "a child ended by itself after {} confirms",
        confirmed.len()
    );
    let queue = open(&place.0).await;
    let held: HashSet<_> = within(held(&queue)).await.into_iter().collect();
    let lost: Vec<_> = confirmed
        .iter()
        .filter(|id| !held.contains(id) && !seen.contains(id))
        .collect();
    assert!(lost.is_empty(), "lost {} of {}: {lost:?}", lost.len(), confirmed.len());
}
