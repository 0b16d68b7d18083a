//! The state that the queue's handle, its two threads and its consumer share.

use super::{
    LogSettings,
    consumed::Consumed,
    disk::{Disk, DiskSpace},
    format::{LogId, RECORD_HEADER, RecordHeader},
    segment::{Segment, Spare},
    usage::Usage,
};
use crate::{
    domain::{EventId, OrgId, Timestamp},
    queue::PublishError,
};
use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, oneshot, watch};
use tracing::error;

/// A filling group takes this many bytes and one record at most; a later publisher waits for the
/// next group. The limit bounds memory while an fsync hangs.
const GROUP_BYTES_MAX: usize = 16 << 20;

pub(super) struct Shared {
    pub directory: PathBuf,
    /// The directory, open: its fsync needs no descriptor.
    pub handle: File,
    pub settings: LogSettings,
    pub disk: Arc<dyn Disk>,
    pub log: LogId,
    pub intake: Mutex<Intake>,
    /// Wakes the appender.
    pub wake_appender: Condvar,
    pub requests: Mutex<MaintenanceRequests>,
    /// Held while a segment's file is created: maintenance must not take the descriptor that the
    /// appender gives back for its own.
    pub creating: Mutex<()>,
    /// Wakes the maintenance thread.
    pub wake_maintenance: Condvar,
    pub segments: Mutex<BTreeMap<u64, Arc<Segment>>>,
    pub consumed: Mutex<Consumed>,
    /// Everything before is on the disk. Consumers see nothing behind it.
    pub durable: AtomicU64,
    /// Wakes the one consumer: more is durable, or the queue was closed.
    pub more: Notify,
    pub failed: watch::Sender<Option<Arc<str>>>,
    /// A reader found damage. Publishing goes on: what is confirmed from here on is sound.
    pub damaged: AtomicBool,
}

/// Requests to the maintenance thread, and the spare segment that it has ready.
#[derive(Default)]
pub(super) struct MaintenanceRequests {
    pub closing: bool,
    pub spare_wanted: bool,
    pub spare: Option<Spare>,
    /// The mark is to be saved now; dropped when that was tried.
    pub mark_wanted: Option<oneshot::Sender<()>>,
}

/// The place where publishers and the appender meet. A publisher holds the lock while it copies one
/// event.
pub(super) struct Intake {
    /// Records of the group that is filling.
    pub buffer: Vec<u8>,
    pub buffer_events: u32,
    pub group: Arc<Group>,
    /// Position at which the filling group begins.
    pub group_base: u64,
    pub usage: Usage,
    pub space: Option<DiskSpace>,
    /// Set while the disk has no room.
    pub low_space: Option<LowSpace>,
    pub closing: bool,
    pub failed: Option<Arc<str>>,
    pub appender_waits: bool,
}

/// Free space of the disk below which intake stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LowSpace {
    pub free_bytes: u64,
    pub free_bytes_min: u64,
}

impl LowSpace {
    pub fn warn(self) {
        tracing::warn!(
            free_bytes = self.free_bytes,
            free_bytes_min = self.free_bytes_min,
            "The queue's disk is nearly full: intake stops until there is room"
        );
    }
}

/// The events that one fsync makes durable, and the publishers that wait for it.
#[derive(Default)]
pub(super) struct Group {
    outcome: OnceLock<Result<(), PublishError>>,
    done: Notify,
}

impl Group {
    pub async fn wait(&self) -> Result<(), PublishError> {
        let done = self.done.notified();
        if let Some(outcome) = self.outcome.get() {
            return outcome.clone();
        }
        done.await;
        self.outcome
            .get()
            .cloned()
            .expect("a group is finished before its waiters are woken")
    }

    pub fn finish(&self, outcome: Result<(), PublishError>) {
        let _ = self.outcome.set(outcome);
        self.done.notify_waiters();
    }
}

/// The outcome of offering a record to the filling group.
pub(super) enum Offer {
    /// The record is in the group: its outcome is the record's.
    Joined(Arc<Group>),
    /// The group took nothing: offer the record again when the group is done.
    GroupFull(Arc<Group>),
}

/// The fields of an event that its record's header carries.
pub(super) struct Heading {
    pub id: EventId,
    pub org: OrgId,
    pub received_at: Timestamp,
    /// Bytes that the payload will have, exactly.
    pub bytes: usize,
}

/// Locks even after a panic has poisoned the lock. The panic ends in `failed`, and a later caller
/// has to see that instead of a second panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Puts a record into the filling group.
    pub fn offer(
        &self,
        heading: &Heading,
        encode: &mut (dyn FnMut(&mut Vec<u8>) + Send),
    ) -> Result<Offer, PublishError> {
        if heading.bytes > self.settings.event_bytes_max {
            return Err(PublishError::TooLarge {
                bytes: heading.bytes,
                bytes_max: self.settings.event_bytes_max,
            });
        }
        let record_bytes = (RECORD_HEADER + heading.bytes) as u64;
        let mut guard = lock(&self.intake);
        let intake = &mut *guard;
        intake.check_takes_events()?;
        intake.usage.admit(heading.org, record_bytes, self.settings.bytes_max)?;
        if intake.buffer.len() >= GROUP_BYTES_MAX {
            return Ok(Offer::GroupFull(intake.group.clone()));
        }

        let start = intake.buffer.len();
        intake.buffer.resize(start + RECORD_HEADER, 0);
        encode(&mut intake.buffer);
        let payload = &intake.buffer[start + RECORD_HEADER..];
        let header = RecordHeader {
            length: u32::try_from(payload.len()).expect("the limit of an event is below 4 GiB"),
            group: intake.group_base,
            id: heading.id,
            org: heading.org,
            received_at: heading.received_at,
            payload_checksum: crc32c::crc32c(payload),
        };
        let position = intake.group_base + start as u64;
        intake.buffer[start..start + RECORD_HEADER].copy_from_slice(&header.to_bytes(self.log, position));
        intake.usage.add(&header);
        intake.buffer_events += 1;
        let group = intake.group.clone();
        let wake = std::mem::take(&mut intake.appender_waits);
        drop(guard);
        if wake {
            self.wake_appender.notify_one();
        }
        Ok(Offer::Joined(group))
    }

    /// Has the ack mark saved at once. The receiver ends when that was tried, whatever came of it.
    pub fn request_mark(&self) -> oneshot::Receiver<()> {
        let (tried, is_tried) = oneshot::channel();
        let mut requests = lock(&self.requests);
        // A queue that closes saves it anyway.
        if !requests.closing {
            requests.mark_wanted = Some(tried);
        }
        drop(requests);
        self.wake_maintenance.notify_all();
        is_tried
    }

    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Ends intake for good and tells every waiting publisher. Returns the first reason, which
    /// stands.
    pub fn fail(&self, reason: &str) -> Arc<str> {
        let (reason, waiting) = {
            let mut intake = lock(&self.intake);
            let reason = intake.failed.get_or_insert_with(|| reason.into()).clone();
            intake.buffer.clear();
            (reason, std::mem::take(&mut intake.group))
        };
        waiting.finish(Err(PublishError::Failed { reason: reason.clone() }));
        let first = self
            .failed
            .send_if_modified(|failed| failed.is_none() && failed.replace(reason.clone()).is_none());
        if first {
            error!(directory = %self.directory.display(), %reason, "The log failed and takes nothing until the process \
                is started again");
        }
        self.wake_appender.notify_all();
        reason
    }
}

impl Intake {
    fn check_takes_events(&self) -> Result<(), PublishError> {
        if let Some(reason) = &self.failed {
            return Err(PublishError::Failed { reason: reason.clone() });
        }
        if self.closing {
            return Err(PublishError::Closed);
        }
        if let Some(LowSpace {
            free_bytes,
            free_bytes_min,
        }) = self.low_space
        {
            return Err(PublishError::DiskNearlyFull {
                free_bytes,
                free_bytes_min,
            });
        }
        Ok(())
    }

    /// Takes all records of the filling group and of `written` out of the count: the disk refused
    /// them.
    pub fn roll_back(&mut self, log: LogId, written: &[u8], written_base: u64) {
        let filling = std::mem::take(&mut self.buffer);
        self.usage.remove_last(records(&filling, log, self.group_base));
        self.usage.remove_last(records(written, log, written_base));
        self.buffer = filling;
        self.buffer.clear();
        self.buffer_events = 0;
        self.group_base = written_base;
    }
}

fn records(buffer: &[u8], log: LogId, base: u64) -> impl Iterator<Item = (OrgId, u64)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = RecordHeader::from_bytes(buffer.get(at..)?, log, base + at as u64).ok()?;
        at += RECORD_HEADER + header.length as usize;
        Some((header.org, header.record_bytes()))
    })
}
