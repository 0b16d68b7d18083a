//! The embedded queue beside the simplest durable sink, and beside SQLite. The figures are events a
//! second, all confirmed after an fsync, in one run on one disk.
//!
//! `cargo bench --bench queue [-- SECONDS]` prints the machine, each side's median of nine rounds,
//! and the ratios that `docs/decisions/0001-embedded-queue.md` quotes. Sides: `bare` appends bodies
//! to one file with one write and one fdatasync for all that wait (no ids, no checksums, no reading
//! back); `bare, in place` writes them over and over into the same zero-filled 64 MiB, which is as
//! fast as a disk gets and keeps nothing; `log` is the embedded queue; `log, consumed` is the same
//! with a consumer that reads and acks everything meanwhile; `sqlite` inserts by batches into one
//! table (WAL, synchronous=FULL).

use bytes::Bytes;
use hookswitch::{
    domain::{DedupeKey, Envelope, EventId, EventType, OrgId, Source, Subject, SystemClock, Timestamp, VerifiedEvent},
    queue::{EventQueue, LogQueue, LogSettings, encode},
};
use sqlx::{Connection, QueryBuilder, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    fs::File,
    future::Future,
    io::{Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc, oneshot};

const BODY_BYTES: usize = 2048;
const ROUNDS: usize = 9;
const IN_PLACE_BYTES: usize = 64 << 20;

fn main() {
    let seconds = std::env::args()
        .skip(1)
        .find_map(|word| word.parse().ok())
        .unwrap_or(1.0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Beside the build, which is on a disk where /tmp often is not.
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("queue-bench");
    println!("{cores} cores; bodies of {BODY_BYTES} bytes; {ROUNDS} rounds of {seconds} s a side, by turns");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .enable_all()
        .build()
        .expect("a runtime");
    for senders in [64, 256] {
        let sides = ["bare", "bare, in place", "log", "log, consumed", "sqlite"];
        let mut rates = sides.map(|_| Vec::new());
        for round in 0..ROUNDS {
            // Each round begins with another side, so that none always follows the one that fills
            // the disk's cache.
            for index in (0..sides.len()).map(|index| (index + round) % sides.len()) {
                let _ = std::fs::remove_dir_all(&place);
                std::fs::create_dir_all(&place).expect("a writable directory");
                rates[index].push(runtime.block_on(measure(
                    sides[index],
                    &place,
                    senders,
                    Duration::from_secs_f64(seconds),
                )));
            }
        }
        println!("\n{senders} publishers      events/s: median (least to most)      of bare in the same round: median");
        for (side, own) in sides.iter().zip(&rates) {
            let sorted = sorted(own.clone());
            let ratio = median_ratio(own, &rates[0]);
            println!(
                "  {side:14} {:>8.0} ({:.0} to {:.0})   {ratio:.2}",
                sorted[ROUNDS / 2],
                sorted[0],
                sorted[ROUNDS - 1]
            );
        }
    }
    let _ = std::fs::remove_dir_all(place);
}

fn sorted(mut rates: Vec<f64>) -> Vec<f64> {
    rates.sort_by(f64::total_cmp);
    rates
}

/// The median of the rounds' ratios: what drifts on the machine drifts for both.
fn median_ratio(own: &[f64], bare: &[f64]) -> f64 {
    sorted(own.iter().zip(bare).map(|(own, bare)| own / bare).collect())[ROUNDS / 2]
}

async fn measure(side: &str, place: &Path, senders: usize, span: Duration) -> f64 {
    match side {
        "bare" | "bare, in place" => {
            let bare = Arc::new(Bare::create(&place.join("bare"), side != "bare"));
            run(
                senders,
                span,
                || bare.clone(),
                |bare, event| async move { bare.publish(event).await },
            )
            .await
        }
        "sqlite" => {
            let sqlite = Sqlite::create(&place.join("queue.db")).await;
            run(
                senders,
                span,
                || sqlite.clone(),
                |sqlite, event| async move { sqlite.publish(event).await },
            )
            .await
        }
        log => {
            let queue = Arc::new(
                LogQueue::open(
                    place,
                    LogSettings {
                        bytes_max: 64 << 30,
                        ..LogSettings::default()
                    },
                    Arc::new(SystemClock),
                )
                .await
                .expect("a log"),
            );
            let consumed = (log == "log, consumed").then(|| start(consume(queue.clone())));
            let rate = run(
                senders,
                span,
                || queue.clone(),
                |queue, event| async move { queue.publish(&event).await.expect("room") },
            )
            .await;
            queue.close().await;
            if let Some(consumed) = consumed {
                consumed.await.expect("the consumer ends with the queue");
            }
            rate
        }
    }
}

fn start<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "each handle is awaited")]
    tokio::spawn(task)
}

/// Senders that each publish one event after the other until the time is over.
async fn run<S, F>(
    senders: usize,
    span: Duration,
    sink: impl Fn() -> S,
    publish: impl Fn(S, VerifiedEvent) -> F + Copy + Send + 'static,
) -> f64
where
    S: Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let tasks: Vec<_> = (0..senders)
        .map(|_| {
            let (sink, stop, published) = (sink(), stop.clone(), published.clone());
            start(async move {
                let (org, body) = (OrgId::generate(), Bytes::from(vec![b'x'; BODY_BYTES]));
                while !stop.load(Ordering::Relaxed) {
                    publish(sink.clone(), event(org, body.clone())).await;
                    published.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(span).await;
    let rate = published.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no sender panics");
    }
    rate
}

fn event(org: OrgId, body: Bytes) -> VerifiedEvent {
    VerifiedEvent::from_verified(Envelope {
        id: EventId::generate(),
        source: Source::Vapi,
        event_type: EventType::new(Source::Vapi, "end-of-call-report"),
        time: Timestamp::from_seconds(1_780_000_000),
        received_at: Timestamp::from_seconds(1_780_000_000),
        subject: Subject("7420f27a-30fd-4f49-a995-5549ae7cc00d".into()),
        org: Some(org),
        endpoint: None,
        secret: None,
        dedupe_key: DedupeKey([7; 16]),
        traceparent: None,
        content_type: "application/json".into(),
        path: "/webhooks/vapi".into(),
        query: "".into(),
        headers: vec![("user-agent".into(), "axios/1.7.2".into())],
        hops: 0,
        body,
    })
}

async fn consume(queue: Arc<LogQueue>) {
    let mut deliveries = queue.consume().await.expect("the only consumer");
    loop {
        let batch = deliveries.next_batch(512).await.expect("a sound log");
        if batch.is_empty() {
            return;
        }
        let tags: Vec<_> = batch.iter().map(|delivery| delivery.tag).collect();
        deliveries.ack(&tags).await.expect("acks");
    }
}

#[derive(Default)]
struct Group {
    durable: OnceLock<()>,
    done: Notify,
}

#[derive(Default)]
struct Filling {
    bytes: Vec<u8>,
    group: Arc<Group>,
    idle: bool,
    stop: bool,
}

struct Bare {
    shared: Arc<(Mutex<Filling>, Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bare {
    fn create(path: &Path, in_place: bool) -> Self {
        let mut file = File::create(path).expect("a file");
        if in_place {
            file.write_all(&vec![0; IN_PLACE_BYTES])
                .and_then(|()| file.sync_data())
                .and_then(|()| file.rewind())
                .expect("a sound disk");
        }
        let shared = Arc::new((Mutex::new(Filling::default()), Condvar::new()));
        let ours = shared.clone();
        let thread = std::thread::spawn(move || {
            let mut writing = Vec::new();
            loop {
                writing.clear();
                let group = {
                    let mut filling = ours.0.lock().expect("no panic");
                    while filling.bytes.is_empty() {
                        if filling.stop {
                            return;
                        }
                        filling.idle = true;
                        filling = ours.1.wait(filling).expect("no panic");
                    }
                    std::mem::swap(&mut writing, &mut filling.bytes);
                    std::mem::take(&mut filling.group)
                };
                if in_place
                    && file.stream_position().expect("a position") + writing.len() as u64 > IN_PLACE_BYTES as u64
                {
                    file.rewind().expect("a seek");
                }
                file.write_all(&writing)
                    .and_then(|()| file.sync_data())
                    .expect("a sound disk");
                let _ = group.durable.set(());
                group.done.notify_waiters();
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    async fn publish(&self, event: VerifiedEvent) {
        let (group, wake) = {
            let mut filling = self.shared.0.lock().expect("no panic");
            filling.bytes.extend_from_slice(&event.envelope().body);
            (filling.group.clone(), std::mem::take(&mut filling.idle))
        };
        if wake {
            self.shared.1.notify_one();
        }
        let done = group.done.notified();
        if group.durable.get().is_none() {
            done.await;
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.shared.0.lock().expect("no panic").stop = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Rows that one statement inserts: below SQLite's limit of parameters, and more than ever wait
/// here.
const ROWS_MAX: usize = 256;

#[derive(Clone)]
struct Sqlite(mpsc::Sender<(VerifiedEvent, oneshot::Sender<()>)>);

impl Sqlite {
    async fn create(path: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Full);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("a database");
        sqlx::query("CREATE TABLE queue (position INTEGER PRIMARY KEY, id BLOB NOT NULL, envelope BLOB NOT NULL)")
            .execute(&mut connection)
            .await
            .expect("a table");
        let (sender, mut events) = mpsc::channel::<(VerifiedEvent, oneshot::Sender<()>)>(1024);
        drop(start(async move {
            let mut group = Vec::new();
            while events.recv_many(&mut group, ROWS_MAX).await > 0 {
                let mut insert = QueryBuilder::new("INSERT INTO queue (id, envelope) ");
                insert.push_values(&group, |mut row, (event, _)| {
                    let mut envelope = Vec::with_capacity(BODY_BYTES + 512);
                    encode(event.envelope(), &mut envelope);
                    row.push_bind(event.envelope().id.as_bytes().to_vec())
                        .push_bind(envelope);
                });
                // One statement is one transaction.
                insert.build().execute(&mut connection).await.expect("an insert");
                for (_, confirm) in group.drain(..) {
                    let _ = confirm.send(());
                }
            }
        }));
        Self(sender)
    }

    async fn publish(&self, event: VerifiedEvent) {
        let (confirm, confirmed) = oneshot::channel();
        self.0.send((event, confirm)).await.expect("the writer runs");
        confirmed.await.expect("the writer runs");
    }
}
