//! The one appender: a thread that writes a group with one write and one fsync while the next group
//! fills.

use super::{
    disk::{is_no_descriptor, write_all_at},
    format::SegmentHeader,
    segment::{Active, AppendError, Spare},
    shared::{Group, LowSpace, Shared, lock},
};
use crate::{
    killpoint::{Step, reach},
    queue::PublishError,
    telemetry::catalogue,
};
use rustix::io::{DupFlags, dup3};
use std::{
    fs::File,
    os::fd::OwnedFd,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tracing::warn;

/// A buffer that grew over this size in a burst is shrunk, so that idle memory stays small.
const BUFFER_IDLE_BYTES_MAX: usize = 8 << 20;

/// Room of a segment that is begun while no spare is ready. It is small, so that a prepared segment
/// follows soon.
pub(super) const GROWING_ROOM: u64 = 8 << 20;

/// Between two warnings that no descriptor is left.
const WARN_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Appender {
    shared: Arc<Shared>,
    active: Active,
    /// A descriptor that is given away where there is no other one to begin a segment with.
    reserve: Option<File>,
    warned_at: Option<Instant>,
}

/// Fails the log when the appender's thread panics, and answers the publishers of the group that
/// was being written: they would wait for ever.
struct PanicGuard {
    shared: Arc<Shared>,
    group: Option<Arc<Group>>,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = self.shared.fail("the appender panicked");
            if let Some(group) = &self.group {
                group.finish(Err(PublishError::Failed { reason }));
            }
        }
    }
}

/// A group that takes no more events, with its records.
struct SealedGroup {
    bytes: Vec<u8>,
    base: u64,
    events: u32,
    group: Arc<Group>,
}

impl Appender {
    pub const fn new(shared: Arc<Shared>, active: Active, reserve: File) -> Self {
        Self {
            shared,
            active,
            reserve: Some(reserve),
            warned_at: None,
        }
    }

    /// Runs until the queue is closed and everything taken is written, or until the log failed.
    pub fn run(mut self) {
        let mut watch = PanicGuard {
            shared: self.shared.clone(),
            group: None,
        };
        let mut empty = Vec::new();
        while let Some(sealed) = self.next(empty) {
            let group = sealed.group.clone();
            watch.group = Some(group.clone());
            match self.append(&sealed.bytes, sealed.base) {
                Ok(()) => {
                    self.shared
                        .durable
                        .store(sealed.base + sealed.bytes.len() as u64, Ordering::Release);
                    group.finish(Ok(()));
                    self.shared.more.notify_one();
                    catalogue::GROUP_EVENTS.observe(f64::from(sealed.events), &[]);
                }
                Err(AppendError::NoSpace(source)) => self.refuse(&sealed, &source),
                Err(AppendError::NoDescriptor(source)) => self.put_off(&sealed, &source),
                Err(AppendError::Final { doing, source }) => {
                    let reason = self.shared.fail(&format!(
                        "cannot {doing} {}: {source}",
                        self.active.segment.path.display()
                    ));
                    group.finish(Err(PublishError::Failed { reason }));
                }
            }
            empty = sealed.bytes;
            empty.clear();
            empty.shrink_to(BUFFER_IDLE_BYTES_MAX);
        }
    }

    /// Waits for a group that has events, and puts an empty one in its place.
    fn next(&self, empty: Vec<u8>) -> Option<SealedGroup> {
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
                .wake_appender
                .wait(intake)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let bytes = std::mem::replace(&mut intake.buffer, empty);
        let base = intake.group_base;
        intake.group_base += bytes.len() as u64;
        let events = std::mem::take(&mut intake.buffer_events);
        let group = std::mem::take(&mut intake.group);
        Some(SealedGroup {
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
        // Early, because a spare is made in steps.
        if (end - active.segment.base) * 10 > active.room {
            self.request_spare();
        }
        Ok(())
    }

    fn request_spare(&self) {
        let mut requests = lock(&self.shared.requests);
        if requests.spare.is_none() && !requests.spare_wanted {
            requests.spare_wanted = true;
            self.shared.wake_maintenance.notify_one();
        }
    }

    /// Begins a fresh segment, whose first position is `base`.
    fn roll(&mut self, base: u64) -> Result<(), AppendError> {
        let shared = &self.shared;
        let header = SegmentHeader {
            log: shared.log,
            base,
            previous_base: self.active.segment.base,
        };
        let ready = lock(&shared.requests).spare.take();
        let spare = if let Some(spare) = ready {
            spare
        } else {
            let room = GROWING_ROOM.min(shared.settings.segment_bytes);
            let _creating = lock(&shared.creating);
            let created = match Spare::create_growing(&shared.directory, room) {
                Err(error) if is_no_descriptor(&error) && self.reserve.take().is_some() => {
                    Spare::create_growing(&shared.directory, room)
                }
                created => created,
            };
            created.map_err(AppendError::of_write("create a segment in"))?
        };
        let active = spare.begin(&*shared.disk, &shared.directory, &shared.handle, header)?;
        self.active.segment.seal(base);
        lock(&shared.segments).insert(base, active.segment.clone());
        let before = std::mem::replace(&mut self.active, active);
        if self.reserve.is_none() {
            // The descriptor of the segment before this one, with no moment in which it is free for
            // a connection.
            let mut descriptor = OwnedFd::from(before.file);
            let kept = dup3(&shared.handle, &mut descriptor, DupFlags::CLOEXEC);
            self.reserve = kept.is_ok().then(|| File::from(descriptor));
        }
        Ok(())
    }

    /// Refuses this group and the one that fills behind it, because no segment can be begun for
    /// now. Nothing of it was written, and the next group tries again.
    fn put_off(&mut self, sealed: &SealedGroup, source: &std::io::Error) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned_at = Some(Instant::now());
            warn!(error = %source, events = sealed.events, "No descriptor is left for a segment of the log: events are \
                refused until one is free");
        }
        let outcome = PublishError::NotNow {
            reason: source.to_string().into(),
        };
        let waiting = {
            let mut intake = lock(&self.shared.intake);
            intake.roll_back(self.shared.log, &sealed.bytes, sealed.base);
            std::mem::take(&mut intake.group)
        };
        sealed.group.finish(Err(outcome.clone()));
        waiting.finish(Err(outcome));
    }

    /// Refuses this group and the one that fills behind it, because the disk has no room. Intake
    /// stops until maintenance finds room.
    fn refuse(&mut self, sealed: &SealedGroup, source: &std::io::Error) {
        let shared = self.shared.clone();
        let segment = &self.active.segment;
        warn!(segment = %segment.path.display(), error = %source, events = sealed.events, "The disk is full: intake \
            stops until there is room");
        // A part of the group may be written: cut it off, so that nothing stands behind the log's
        // end.
        let cut = segment.offset(sealed.base.max(segment.base));
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
            return sealed.group.finish(Err(PublishError::Failed { reason }));
        }
        let space = shared.disk.space(&shared.directory).ok();
        let free_bytes = space.map_or(0, |space| space.free_bytes);
        let (outcome, waiting) = {
            let mut intake = lock(&shared.intake);
            let free_bytes_min = shared.settings.free_bytes_min(space).max(free_bytes.saturating_add(1));
            intake.low_space = Some(LowSpace {
                free_bytes,
                free_bytes_min,
            });
            intake.roll_back(shared.log, &sealed.bytes, sealed.base);
            (
                PublishError::DiskNearlyFull {
                    free_bytes,
                    free_bytes_min,
                },
                std::mem::take(&mut intake.group),
            )
        };
        sealed.group.finish(Err(outcome.clone()));
        waiting.finish(Err(outcome));
    }
}
