//! The log: append-only segments on local disk. The embedded queue is one, a spool is another.
//!
//! `queue::connect` and the spool enter. **Invariant:** one appender writes, one group at a time.
//! Neither the publisher nor the consumer learns of an event before the fsync of its group has
//! succeeded (invariant 24). Why: `docs/decisions/0001-embedded-queue.md`.

mod append;
mod consumed;
mod deliver;
mod diagnose;
mod disk;
mod format;
mod maintenance;
mod recover;
mod redeliveries;
mod segment;
mod shared;
mod usage;

pub(super) use deliver::{LogDeliveries, Record};
pub(super) use diagnose::{QUEUE, SPOOL, diagnose};
use disk::is_no_space;
pub use disk::{Disk, DiskSpace, RealDisk};

use super::{
    ConnectError, ConsumeError, Deliveries, EventQueue, PublishError, QueueHealth, QueueState, envelope, outcome_label,
};
use crate::{
    config::QueueSettings,
    domain::{
        Clock, EventId, OrgId, Timestamp, VerifiedEvent, create_private_directory, keep_directory_private, private_file,
    },
    telemetry::catalogue,
};
use append::{Appender, GROWING_ROOM};
use async_trait::async_trait;
use consumed::Consumed;
use format::SegmentHeader;
use maintenance::{FIRST_SPARE_AFTER, Maintenance};
use recover::{MARKS, Recovered, io_error, recover};
use segment::{Active, AppendError, Spare};
use shared::{Group, Heading, Intake, LowSpace, MaintenanceRequests, Offer, Shared, lock};
use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};
use tokio::sync::{Notify, watch};
use tracing::warn;
use uuid::Uuid;

const FREE_BYTES_MIN: u64 = 512 << 20;

#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Bytes of the log from the oldest event that is not acked on, at most. Above it publishers
    /// get [`PublishError::Full`].
    pub bytes_max: u64,
    /// Room of a segment. A group that is larger than a segment gets one of its own.
    pub segment_bytes: u64,
    /// Bytes of one event with its attributes, at most.
    pub event_bytes_max: usize,
    /// Intake stops below this much free disk (invariant 13). `None`: 512 MiB or 5% of the disk,
    /// whichever is more.
    pub disk_free_bytes_min: Option<u64>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            bytes_max: 4 << 30,
            segment_bytes: 64 << 20,
            event_bytes_max: 2 << 20,
            disk_free_bytes_min: None,
        }
    }
}

impl LogSettings {
    #[must_use]
    pub const fn new(settings: &QueueSettings, event_bytes_max: usize) -> Self {
        Self {
            bytes_max: settings.queue_bytes_max,
            segment_bytes: settings.segment_bytes,
            event_bytes_max,
            disk_free_bytes_min: settings.disk_free_bytes_min,
        }
    }

    pub(super) fn free_bytes_min(&self, space: Option<DiskSpace>) -> u64 {
        self.disk_free_bytes_min
            .unwrap_or_else(|| space.map_or(FREE_BYTES_MIN, |space| FREE_BYTES_MIN.max(space.total_bytes / 20)))
    }
}

/// An open log. Dropping it writes the events that were taken and waits for that;
/// [`EventQueue::close`] does the same without holding up the runtime.
pub struct LogQueue {
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
    maintenance: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for LogQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogQueue")
            .field("directory", &self.shared.directory)
            .finish_non_exhaustive()
    }
}

impl LogQueue {
    /// Opens the log in `directory`, which is created if it is missing, and recovers the events
    /// that an earlier process left. Every backend is given the clock; the log needs none, because
    /// its events bring their times.
    ///
    /// # Errors
    /// Another process holds the directory, a segment is damaged, or the disk cannot be written to.
    /// Nothing was changed then.
    pub async fn open(directory: &Path, settings: LogSettings, clock: Arc<dyn Clock>) -> Result<Self, ConnectError> {
        Self::open_on(Arc::new(RealDisk), directory, settings, clock).await
    }

    /// For tests of a disk that fails.
    ///
    /// # Errors
    /// As [`LogQueue::open`].
    #[doc(hidden)]
    pub async fn open_on(
        disk: Arc<dyn Disk>,
        directory: &Path,
        settings: LogSettings,
        _clock: Arc<dyn Clock>,
    ) -> Result<Self, ConnectError> {
        let directory = directory.to_owned();
        tokio::task::spawn_blocking(move || open(disk, &directory, settings))
            .await
            .expect("opening does not panic and is not aborted")
    }

    /// For tests: a record whose payload is no envelope.
    ///
    /// # Errors
    /// As [`EventQueue::publish`].
    #[doc(hidden)]
    pub async fn publish_bytes(&self, payload: &[u8]) -> Result<(), PublishError> {
        let heading = Heading {
            id: EventId::generate(),
            org: OrgId::from_uuid(Uuid::nil()),
            received_at: Timestamp::default(),
            bytes: payload.len(),
        };
        self.offer(&heading, &mut |into| into.extend_from_slice(payload)).await
    }

    async fn offer(
        &self,
        heading: &Heading,
        encode: &mut (dyn FnMut(&mut Vec<u8>) + Send),
    ) -> Result<(), PublishError> {
        loop {
            match self.shared.offer(heading, encode)? {
                Offer::Joined(group) => return group.wait().await,
                // The outcome of the full group says nothing of this event, which was never in it.
                Offer::GroupFull(full) => drop(full.wait().await),
            }
        }
    }

    /// The one consumer, which gets the records as they stand on the disk.
    pub(super) fn consume_records(&self) -> Result<LogDeliveries, ConsumeError> {
        LogDeliveries::take(self.shared.clone())
    }

    fn begin_close(&self) {
        lock(&self.shared.intake).closing = true;
        self.shared.wake_appender.notify_all();
        lock(&self.shared.requests).closing = true;
        self.shared.wake_maintenance.notify_all();
        self.shared.more.notify_one();
    }
}

fn open(disk: Arc<dyn Disk>, directory: &Path, mut settings: LogSettings) -> Result<LogQueue, ConnectError> {
    // Lengths are kept in 32 bits.
    settings.event_bytes_max = settings.event_bytes_max.min(1 << 30);
    create_private_directory(directory).map_err(io_error("create", directory))?;
    if let Err(error) = keep_directory_private(directory) {
        warn!(%error, "The rights of others to read {} cannot be taken away", directory.display());
    }
    let lock = take_lock(directory)?;
    let mut recovered = recover(&*disk, directory)?;
    if let Some(parent) = directory.canonicalize().ok().as_deref().and_then(Path::parent) {
        // The directory's own entry has to survive too. A parent that may not be read existed
        // before this process.
        let _ = segment::sync_directory(&*disk, parent);
    }
    let marks = open_marks(directory)?;
    let handle = File::open(directory).map_err(io_error("open", directory))?;
    let reserve = handle.try_clone().map_err(io_error("open", directory))?;
    let active = begin_first_segment(&*disk, directory, &handle, &settings, &recovered)?;
    recovered.segments.insert(active.segment.base, active.segment.clone());
    let sequence = recovered.sequence;
    let shared = Arc::new(share(disk, directory, handle, settings, recovered));
    let appender = Appender::new(shared.clone(), active, reserve);
    start_threads(shared, appender, marks, sequence, lock)
}

fn open_marks(directory: &Path) -> Result<File, ConnectError> {
    let path = directory.join(MARKS);
    private_file()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error("open", &path))
}

/// Begins a segment of this process's own: a segment that another process left is never appended
/// to.
fn begin_first_segment(
    disk: &dyn Disk,
    directory: &Path,
    handle: &File,
    settings: &LogSettings,
    recovered: &Recovered,
) -> Result<Active, ConnectError> {
    let header = SegmentHeader {
        log: recovered.log,
        base: recovered.end,
        previous_base: recovered.previous_base,
    };
    let room = GROWING_ROOM.min(settings.segment_bytes);
    let first = match Spare::create_filled(disk, directory, room) {
        // Even on a full disk the events that are there have to be worked off, and that needs an
        // open queue.
        Err(error) if is_no_space(&error) => Spare::create_growing(directory, room),
        created => created,
    };
    let begun = first
        .map_err(io_error("create a segment in", directory))?
        .begin(disk, directory, handle, header);
    begun.map_err(|error| match error {
        AppendError::NoSpace(source) | AppendError::NoDescriptor(source) => {
            io_error("create a segment in", directory)(source)
        }
        AppendError::Final { doing, source } => io_error(doing, directory)(source),
    })
}

fn share(disk: Arc<dyn Disk>, directory: &Path, handle: File, settings: LogSettings, recovered: Recovered) -> Shared {
    let space = disk.space(directory).ok();
    let free_bytes_min = settings.free_bytes_min(space);
    let low_space = space
        .filter(|space| space.free_bytes < free_bytes_min)
        .map(|space| LowSpace {
            free_bytes: space.free_bytes,
            free_bytes_min,
        });
    if let Some(low) = low_space {
        low.warn();
    }
    Shared {
        directory: directory.to_owned(),
        handle,
        disk,
        log: recovered.log,
        consumed: Mutex::new(Consumed::starting_at(recovered.usage.start(), recovered.in_vain)),
        intake: Mutex::new(Intake {
            buffer: Vec::new(),
            buffer_events: 0,
            group: Arc::new(Group::default()),
            group_base: recovered.end,
            usage: recovered.usage,
            space,
            low_space,
            closing: false,
            failed: None,
            appender_waits: false,
        }),
        wake_appender: Condvar::new(),
        requests: Mutex::new(MaintenanceRequests::default()),
        creating: Mutex::default(),
        wake_maintenance: Condvar::new(),
        segments: Mutex::new(recovered.segments),
        durable: AtomicU64::new(recovered.end),
        more: Notify::new(),
        failed: watch::Sender::new(None),
        damaged: AtomicBool::new(false),
        settings,
    }
}

fn start_threads(
    shared: Arc<Shared>,
    appender: Appender,
    marks: File,
    sequence: u64,
    lock: File,
) -> Result<LogQueue, ConnectError> {
    let directory = shared.directory.clone();
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        thread::Builder::new()
            .name(name.into())
            .spawn(run)
            .map_err(io_error("start the threads of", &directory))
    };
    let appender = spawn("queue-appender", Box::new(move || appender.run()))?;
    let (ended, has_ended) = watch::channel(false);
    let maintenance = Maintenance {
        shared: shared.clone(),
        appender,
        marks,
        sequence,
        saved_mark: None,
        saved_at: Instant::now(),
        reserve: None,
        first_spare_at: Some(Instant::now() + FIRST_SPARE_AFTER),
        filling: None,
        lock,
        ended,
    };
    let maintenance = spawn("queue-maintenance", Box::new(move || maintenance.run()))?;
    Ok(LogQueue {
        shared,
        ended: has_ended,
        maintenance: Some(maintenance),
    })
}

/// One process a directory (invariant 15). The system lets go of the lock when the process ends,
/// however it does.
fn take_lock(directory: &Path) -> Result<File, ConnectError> {
    let path = directory.join("lock");
    let file = private_file()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ConnectError::InUse {
            directory: directory.display().to_string(),
        }),
        Err(TryLockError::Error(source)) if source.kind() == io::ErrorKind::Unsupported => Err(ConnectError::Io {
            doing: "lock (its file system has no locks; use a local disk)",
            path: path.display().to_string(),
            source,
        }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

#[async_trait]
impl EventQueue for LogQueue {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let envelope = event.envelope();
        let heading = Heading {
            id: envelope.id,
            org: envelope.org.unwrap_or(OrgId::from_uuid(Uuid::nil())),
            received_at: envelope.received_at,
            bytes: envelope::encoded_bytes_max(envelope),
        };
        let began = Instant::now();
        let outcome = self.offer(&heading, &mut |into| envelope::encode(envelope, into)).await;
        catalogue::PUBLISH_SECONDS.observe(began.elapsed().as_secs_f64(), &[outcome_label(&outcome)]);
        outcome
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        Ok(Box::new(self.consume_records()?))
    }

    fn state(&self) -> QueueState {
        let intake = lock(&self.shared.intake);
        let bytes_max = self.shared.settings.bytes_max;
        let health = if intake.failed.is_some() {
            QueueHealth::Failed
        } else if intake.low_space.is_some() || intake.usage.held() >= bytes_max {
            QueueHealth::Refusing
        } else if self.shared.damaged.load(Ordering::Relaxed) {
            QueueHealth::Damaged
        } else {
            QueueHealth::Ready
        };
        QueueState {
            events: intake.usage.events(),
            bytes: intake.usage.held(),
            bytes_max,
            oldest_received_at: intake.usage.oldest_received_at(),
            disk_free_bytes: intake.space.map(|space| space.free_bytes),
            disk_free_bytes_min: Some(self.shared.settings.free_bytes_min(intake.space)),
            health,
            is_consumer_away: false,
            silent_parts: 0,
        }
    }

    async fn failed(&self) -> Arc<str> {
        let mut failed = self.shared.failed.subscribe();
        loop {
            if let Some(reason) = failed.borrow_and_update().clone() {
                return reason;
            }
            if failed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn close(&self) {
        self.begin_close();
        // An error means that the maintenance thread has ended already.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl Drop for LogQueue {
    fn drop(&mut self) {
        self.begin_close();
        if let Some(maintenance) = self.maintenance.take() {
            let _ = maintenance.join();
        }
    }
}
