//! Maintenance: a thread for work that must not hold up the appender. It saves the ack mark,
//! deletes acked segments, watches the disk's space and prepares the next segment. It runs on
//! signal and on period, takes no input, and each of its rounds may be skipped or repeated.

use super::{
    disk::write_all_at,
    format::Mark,
    recover::{MARK_SLOT, MARKS},
    segment::{AppendError, Filled, Filling, RESERVE, RESERVE_BYTES, create_reserve},
    shared::{LowSpace, Shared, lock},
};
use std::{
    fs::{self, File},
    io,
    sync::{Arc, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tracing::{info, warn};

const ROUND: Duration = Duration::from_millis(200);
const MARK_EVERY: Duration = Duration::from_secs(1);
/// The first spare is made so long after the start, or when the first segment fills. A process that
/// lives for a moment needs none.
pub(super) const FIRST_SPARE_AFTER: Duration = Duration::from_secs(5);
/// Longest pause between two steps of a spare.
const PAUSE_MAX: Duration = Duration::from_millis(20);

pub(super) struct Maintenance {
    pub shared: Arc<Shared>,
    pub appender: JoinHandle<()>,
    pub marks: File,
    pub sequence: u64,
    /// The mark on the disk.
    pub saved_mark: Option<Mark>,
    pub saved_at: Instant,
    /// Whether room is kept that is given up last; `None`: not looked at yet.
    pub reserve: Option<bool>,
    /// When the first spare is made, whether or not the first segment fills.
    pub first_spare_at: Option<Instant>,
    /// The spare that is being made, and the pause before its next step.
    pub filling: Option<(Filling, Duration)>,
    /// Held until everything is on the disk.
    pub lock: File,
    pub ended: watch::Sender<bool>,
}

impl Maintenance {
    pub fn run(mut self) {
        loop {
            let (closing, spare_wanted) = self.wait();
            if closing {
                break;
            }
            // Dropped at the end of the round, which tells the one who asked.
            let mark_wanted = lock(&self.shared.requests).mark_wanted.take();
            if lock(&self.shared.intake).failed.is_some() {
                // The failed disk cannot be trusted with a mark either. Acked events come back
                // after the restart, and dedupe absorbs them.
                lock(&self.shared.requests).spare_wanted = false;
                continue;
            }
            self.check_space();
            if spare_wanted || self.is_first_spare_due() {
                self.make_spare();
            }
            let is_due = mark_wanted.is_some() || self.saved_at.elapsed() >= MARK_EVERY;
            let saved = if is_due || self.has_unneeded_segments() {
                self.save_mark()
            } else {
                Ok(())
            };
            match saved.and_then(|()| self.free_segments()) {
                Ok(()) => {}
                // The acks stand in memory: the next round tries again.
                Err(AppendError::NoDescriptor(error)) => {
                    warn!(%error, "No descriptor is left: the ack mark stays where it was");
                }
                Err(AppendError::NoSpace(error)) => warn!(%error, "The disk is full: the ack mark stays where it was"),
                Err(AppendError::Final { doing, source }) => drop(
                    self.shared
                        .fail(&format!("cannot {doing} {}: {source}", self.shared.directory.display())),
                ),
            }
        }
        let _ = self.appender.join();
        if lock(&self.shared.intake).failed.is_none()
            && let Err(error) = save_mark(&self.shared, &self.marks, &mut self.sequence, &mut self.saved_mark)
        {
            warn!(?error, "Could not save the ack mark: acked events are delivered again");
        }
        let _ = self.lock.unlock();
        self.ended.send_replace(true);
    }

    fn wait(&self) -> (bool, bool) {
        let mut requests = lock(&self.shared.requests);
        let pause = self.filling.as_ref().map(|(_, pause)| *pause);
        let has_to_wait = pause.is_some() || !requests.spare_wanted;
        if !requests.closing && requests.mark_wanted.is_none() && has_to_wait {
            requests = self
                .shared
                .wake_maintenance
                .wait_timeout(requests, pause.unwrap_or(ROUND))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        (requests.closing, requests.spare_wanted)
    }

    fn check_space(&mut self) {
        let space = match self.shared.disk.space(&self.shared.directory) {
            Ok(space) => space,
            Err(error) => return warn!(%error, "Cannot read how much space the queue's disk has"),
        };
        let free_bytes_min = self.shared.settings.free_bytes_min(Some(space));
        let low_space = (space.free_bytes < free_bytes_min).then_some(LowSpace {
            free_bytes: space.free_bytes,
            free_bytes_min,
        });
        let before = {
            let mut intake = lock(&self.shared.intake);
            intake.space = Some(space);
            std::mem::replace(&mut intake.low_space, low_space)
        };
        self.keep_reserve(space.free_bytes, free_bytes_min);
        match (before, low_space) {
            (None, Some(low)) => low.warn(),
            (Some(_), None) => info!(
                free_bytes = space.free_bytes,
                "The queue's disk has room: intake goes on"
            ),
            _ => {}
        }
    }

    /// Gives the reserve up where the disk is full, and takes it again where there is room. Between
    /// the two intake has stopped already.
    fn keep_reserve(&mut self, free_bytes: u64, free_bytes_min: u64) {
        let path = self.shared.directory.join(RESERVE);
        if free_bytes < RESERVE_BYTES {
            if self.reserve != Some(false) && fs::remove_file(&path).is_ok() {
                warn!(
                    free_bytes,
                    "The queue's disk is full: {RESERVE_BYTES} bytes that were kept are given up for acks and \
                    plans"
                );
            }
            self.reserve = Some(false);
        } else if self.reserve != Some(true) && free_bytes >= free_bytes_min.saturating_add(RESERVE_BYTES) {
            // Not every file system can take blocks ahead: then there is no reserve.
            let made = create_reserve(&self.shared.directory);
            if let Err(error) = made {
                info!(%error, "No room can be kept on the queue's disk");
            }
            self.reserve = Some(true);
        }
    }

    /// Prepares the next segment. An error is worth a warning only: without a spare the appender
    /// uses a file that grows, which is slower and never wrong.
    fn is_first_spare_due(&mut self) -> bool {
        if self.first_spare_at.is_none_or(|at| at > Instant::now()) {
            return false;
        }
        // Once: from then on the segment that fills asks for the next one.
        self.first_spare_at = None;
        let mut requests = lock(&self.shared.requests);
        requests.spare_wanted |= requests.spare.is_none();
        requests.spare_wanted
    }

    /// One step of the next segment, so that acks, the mark and the look at the disk go on between
    /// two steps. A pause as long as the step leaves half of the disk's time to the appender.
    fn make_spare(&mut self) {
        let begun = Instant::now();
        let step = match self.filling.take() {
            Some((filling, _)) => filling.step(&*self.shared.disk),
            None => match self.begin_spare() {
                Some(begun) => begun.and_then(|filling| filling.step(&*self.shared.disk)),
                None => return lock(&self.shared.requests).spare_wanted = false,
            },
        };
        match step {
            Ok(Filled::Part(rest)) => self.filling = Some((rest, begun.elapsed().min(PAUSE_MAX))),
            Ok(Filled::Whole(spare)) => {
                let mut requests = lock(&self.shared.requests);
                requests.spare_wanted = false;
                requests.spare = Some(spare);
            }
            Err(error) => {
                lock(&self.shared.requests).spare_wanted = false;
                warn!(%error, "Could not prepare the next segment");
            }
        }
    }

    /// `None` where the disk has no room for a whole one: segments grow then as they are written.
    fn begin_spare(&self) -> Option<io::Result<Filling>> {
        let settings = &self.shared.settings;
        let space = lock(&self.shared.intake).space;
        let room = settings.segment_bytes + settings.free_bytes_min(space);
        if space.is_some_and(|space| space.free_bytes < room) {
            return None;
        }
        let _creating = lock(&self.shared.creating);
        Some(Filling::begin(&self.shared.directory, settings.segment_bytes))
    }

    fn has_unneeded_segments(&self) -> bool {
        let acked = lock(&self.shared.consumed).acked();
        lock(&self.shared.segments)
            .first_key_value()
            .is_some_and(|(_, first)| first.end() <= acked)
    }

    fn save_mark(&mut self) -> Result<(), AppendError> {
        self.saved_at = Instant::now();
        save_mark(&self.shared, &self.marks, &mut self.sequence, &mut self.saved_mark)
    }

    /// Deletes the segments that lie before the mark on the disk.
    fn free_segments(&self) -> Result<(), AppendError> {
        // Before the first mark is on the disk, every segment may be needed.
        let Some(Mark { acked, .. }) = self.saved_mark else {
            return Ok(());
        };
        let mut freed = false;
        while let Some(first) = {
            let segments = lock(&self.shared.segments);
            segments
                .first_key_value()
                .map(|(_, first)| first.clone())
                .filter(|first| first.end() <= acked)
        } {
            match fs::remove_file(&first.path) {
                // A person may have deleted the file, which nothing needed any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(AppendError::of_write("delete an acked segment in"))?,
            }
            lock(&self.shared.segments).remove(&first.base);
            freed = true;
        }
        if !freed {
            return Ok(());
        }
        self.shared
            .disk
            .sync(&self.shared.handle, &self.shared.directory)
            .map_err(AppendError::of_sync("fsync"))
    }
}

/// Writes a changed mark into the older of the two slots, and fsyncs it.
fn save_mark(shared: &Shared, marks: &File, sequence: &mut u64, saved: &mut Option<Mark>) -> Result<(), AppendError> {
    // Read in this order: acks are never ahead of what is durable.
    let (acked, in_vain) = {
        let consumed = lock(&shared.consumed);
        (consumed.acked(), consumed.in_vain())
    };
    let durable = shared.durable();
    if saved.is_some_and(|saved| (saved.acked, saved.durable, saved.in_vain) == (acked, durable, in_vain)) {
        return Ok(());
    }
    let active_base = lock(&shared.segments).last_key_value().map_or(0, |(base, _)| *base);
    *sequence += 1;
    let mark = Mark {
        log: shared.log,
        sequence: *sequence,
        acked,
        durable,
        active_base,
        in_vain,
    };
    let path = shared.directory.join(MARKS);
    write_all_at(
        &*shared.disk,
        marks,
        &path,
        &mark.to_bytes(),
        (*sequence % 2) * MARK_SLOT,
    )
    .map_err(AppendError::of_write("write the ack mark in"))?;
    shared
        .disk
        .sync(marks, &path)
        .map_err(AppendError::of_sync("fsync the ack mark in"))?;
    *saved = Some(mark);
    Ok(())
}
