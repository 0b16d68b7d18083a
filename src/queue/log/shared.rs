//! What the queue's handle, its two threads and its consumer share.

use super::{
    LogSettings,
    deliver::Consumed,
    disk::{Disk, DiskSpace},
    format::{LogId, RECORD_HEADER, RecordHeader},
    ledger::Ledger,
    segment::{Segment, Spare},
};
use crate::{
    domain::{EventId, OrgId, Timestamp},
    queue::PublishError,
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, watch};
use tracing::error;

/// A group that is filling takes no more than this (and one record); who comes then waits for the
/// next. Bounds memory while an fsync hangs.
const GROUP_BYTES_MAX: usize = 16 << 20;

pub(super) struct Shared {
    pub directory: PathBuf,
    pub settings: LogSettings,
    pub disk: Arc<dyn Disk>,
    pub log: LogId,
    pub intake: Mutex<Intake>,
    /// Wakes the appender.
    pub appender: Condvar,
    pub keeper: Mutex<Keeper>,
    /// Wakes the keeper.
    pub keep: Condvar,
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

/// What the keeper is asked to do, and what it has ready.
#[derive(Default)]
pub(super) struct Keeper {
    pub closing: bool,
    pub spare_wanted: bool,
    pub spare: Option<Spare>,
}

/// Where publishers and the appender meet. Held for as long as it takes to copy one event.
pub(super) struct Intake {
    /// Records of the group that is filling.
    pub buffer: Vec<u8>,
    pub buffer_events: u32,
    pub group: Arc<Group>,
    /// Position at which the filling group begins.
    pub group_base: u64,
    pub ledger: Ledger,
    pub space: Option<DiskSpace>,
    /// Set while the disk has no room: free bytes, and how many there have to be.
    pub refusal: Option<(u64, u64)>,
    pub closing: bool,
    pub failed: Option<Arc<str>>,
    pub appender_waits: bool,
}

/// The events that one fsync makes durable, and those who wait for it.
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

/// What the record's header says of an event.
pub(super) struct Heading {
    pub id: EventId,
    pub org: OrgId,
    pub received_at: Timestamp,
    /// Bytes that the payload will have, exactly.
    pub bytes: usize,
}

/// A panic while a lock is held ends in `failed`; whoever comes later still has to see that, not a
/// second panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Puts a record into the filling group. `Err(group)`: that group is full, try again when it is
    /// done.
    pub fn offer(
        &self,
        heading: &Heading,
        encode: &mut (dyn FnMut(&mut Vec<u8>) + Send),
    ) -> Result<Result<Arc<Group>, Arc<Group>>, PublishError> {
        if heading.bytes > self.settings.event_bytes_max {
            return Err(PublishError::TooLarge {
                bytes: heading.bytes,
                bytes_max: self.settings.event_bytes_max,
            });
        }
        let record_bytes = (RECORD_HEADER + heading.bytes) as u64;
        let mut guard = lock(&self.intake);
        let intake = &mut *guard;
        intake.refuse()?;
        intake
            .ledger
            .admit(heading.org, record_bytes, self.settings.bytes_max)?;
        if intake.buffer.len() >= GROUP_BYTES_MAX {
            return Ok(Err(intake.group.clone()));
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
        intake.ledger.add(&header);
        intake.buffer_events += 1;
        let group = intake.group.clone();
        let wake = std::mem::take(&mut intake.appender_waits);
        drop(guard);
        if wake {
            self.appender.notify_one();
        }
        Ok(Ok(group))
    }

    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The log takes nothing any more, and everyone who waits is told. The first reason stands, and
    /// is returned.
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
        self.appender.notify_all();
        reason
    }
}

impl Intake {
    fn refuse(&self) -> Result<(), PublishError> {
        if let Some(reason) = &self.failed {
            return Err(PublishError::Failed { reason: reason.clone() });
        }
        if self.closing {
            return Err(PublishError::Closed);
        }
        if let Some((free_bytes, free_bytes_min)) = self.refusal {
            return Err(PublishError::DiskNearlyFull {
                free_bytes,
                free_bytes_min,
            });
        }
        Ok(())
    }

    /// Takes back all records of `buffers`, which were not written, the last ones first.
    pub fn take_back(&mut self, log: LogId, written: &[u8], written_base: u64) {
        let filling = std::mem::take(&mut self.buffer);
        self.ledger.cut(records(&filling, log, self.group_base));
        self.ledger.cut(records(written, log, written_base));
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
