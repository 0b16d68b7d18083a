//! The one appender: a thread that writes a group with one write and one fsync while the next group
//! fills.

use super::{
    disk::write_all_at,
    format::SegmentHeader,
    segment::{Active, AppendError, Spare},
    shared::{Group, Shared, lock},
};
use crate::{
    killpoint::{Step, reach},
    queue::PublishError,
    telemetry::catalogue,
};
use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Instant,
};
use tracing::warn;

/// A buffer that grew over this in a burst is given back.
const BUFFER_KEPT_BYTES: usize = 8 << 20;

/// Room of a segment that is begun while no spare is ready: small, so that the next one is soon a
/// prepared one.
pub(super) const HURRIED_ROOM: u64 = 8 << 20;

pub(super) struct Appender {
    pub shared: Arc<Shared>,
    pub active: Active,
}

/// Tells those who wait when the thread ends by a panic: without it they would wait for ever.
struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the appender panicked");
        }
    }
}

struct Filled {
    bytes: Vec<u8>,
    base: u64,
    events: u32,
    group: Arc<Group>,
}

impl Appender {
    /// Runs until the queue is closed and everything taken is written, or until the log failed.
    pub fn run(mut self) {
        let _watch = Watch(self.shared.clone());
        let mut empty = Vec::new();
        while let Some(filled) = self.next(empty) {
            let group = filled.group.clone();
            match self.append(&filled.bytes, filled.base) {
                Ok(()) => {
                    self.shared
                        .durable
                        .store(filled.base + filled.bytes.len() as u64, Ordering::Release);
                    group.finish(Ok(()));
                    self.shared.more.notify_one();
                    catalogue::GROUP_EVENTS.observe(f64::from(filled.events), &[]);
                }
                Err(AppendError::NoSpace(source)) => self.refuse(&filled, &source),
                Err(AppendError::Final { doing, source }) => {
                    let reason = self.shared.fail(&format!(
                        "cannot {doing} {}: {source}",
                        self.active.segment.path.display()
                    ));
                    group.finish(Err(PublishError::Failed { reason }));
                }
            }
            empty = filled.bytes;
            empty.clear();
            empty.shrink_to(BUFFER_KEPT_BYTES);
        }
    }

    /// Waits for a group that has events, and puts an empty one in its place.
    fn next(&self, empty: Vec<u8>) -> Option<Filled> {
        let mut intake = lock(&self.shared.intake);
        loop {
            if intake.failed.is_some() {
                return None;
            }
            if !intake.buffer.is_empty() {
                break;
            }
            if intake.closing {
                return None;
            }
            intake.appender_waits = true;
            intake = self
                .shared
                .appender
                .wait(intake)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let bytes = std::mem::replace(&mut intake.buffer, empty);
        let base = intake.group_base;
        intake.group_base += bytes.len() as u64;
        let events = std::mem::take(&mut intake.buffer_events);
        let group = std::mem::take(&mut intake.group);
        Some(Filled {
            bytes,
            base,
            events,
            group,
        })
    }

    fn append(&mut self, bytes: &[u8], base: u64) -> Result<(), AppendError> {
        let end = base + bytes.len() as u64;
        let used = base - self.active.segment.base;
        if used > 0 && used + bytes.len() as u64 > self.active.room {
            self.roll(base)?;
        }
        let active = &self.active;
        let disk = &*self.shared.disk;
        let path = &active.segment.path;
        write_all_at(disk, &active.file, path, bytes, active.segment.offset(base))
            .map_err(AppendError::of_write("write to"))?;
        reach(Step::Appended);
        let began = Instant::now();
        disk.sync(&active.file, path).map_err(AppendError::of_sync("fsync"))?;
        reach(Step::Fsynced);
        catalogue::FSYNC_SECONDS.observe(began.elapsed().as_secs_f64(), &[]);
        if (end - active.segment.base) * 2 > active.room {
            self.want_spare();
        }
        Ok(())
    }

    fn want_spare(&self) {
        let mut keeper = lock(&self.shared.keeper);
        if keeper.spare.is_none() && !keeper.spare_wanted {
            keeper.spare_wanted = true;
            self.shared.keep.notify_one();
        }
    }

    /// Goes on in a fresh segment, whose first position is `base`.
    fn roll(&mut self, base: u64) -> Result<(), AppendError> {
        let shared = &self.shared;
        let header = SegmentHeader {
            log: shared.log,
            base,
            previous_base: self.active.segment.base,
        };
        let ready = lock(&shared.keeper).spare.take();
        let spare = match ready {
            Some(spare) => spare,
            None => Spare::hurry(&shared.directory, HURRIED_ROOM.min(shared.settings.segment_bytes))
                .map_err(AppendError::of_write("create a segment in"))?,
        };
        let active = spare.begin(&*shared.disk, &shared.directory, header)?;
        self.active.segment.seal(base);
        lock(&shared.segments).insert(base, active.segment.clone());
        self.active = active;
        Ok(())
    }

    /// The disk has no room: this group and the one that fills behind it are refused, and intake
    /// stops until the keeper sees room.
    fn refuse(&mut self, filled: &Filled, source: &std::io::Error) {
        let shared = self.shared.clone();
        let segment = &self.active.segment;
        warn!(segment = %segment.path.display(), error = %source, events = filled.events, "The disk is full: intake \
            stops until there is room");
        // What was written of the group must not stand behind the end of the log.
        let cut = segment.offset(filled.base.max(segment.base));
        if let Err(source) = self
            .active
            .file
            .set_len(cut)
            .and_then(|()| shared.disk.sync(&self.active.file, &segment.path))
        {
            let reason = shared.fail(&format!(
                "cannot cut off a group that did not fit in {}: {source}",
                segment.path.display()
            ));
            return filled.group.finish(Err(PublishError::Failed { reason }));
        }
        let space = shared.disk.space(&shared.directory).ok();
        let free_bytes = space.map_or(0, |space| space.free_bytes);
        let (outcome, waiting) = {
            let mut intake = lock(&shared.intake);
            let free_bytes_min = shared.settings.free_bytes_min(space).max(free_bytes.saturating_add(1));
            intake.refusal = Some((free_bytes, free_bytes_min));
            intake.take_back(shared.log, &filled.bytes, filled.base);
            (
                PublishError::DiskNearlyFull {
                    free_bytes,
                    free_bytes_min,
                },
                std::mem::take(&mut intake.group),
            )
        };
        filled.group.finish(Err(outcome.clone()));
        waiting.finish(Err(outcome));
    }
}
