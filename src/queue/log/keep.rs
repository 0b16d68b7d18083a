//! The keeper: a thread for what must not hold up the appender. It keeps the ack mark, frees what
//! is acked, watches the disk's space, and has the next segment ready. It runs on signal and on
//! period, takes no input, and each of its rounds may be skipped or repeated.

use super::{
    disk::write_all_at,
    format::Mark,
    recover::{MARK_SLOT, MARKS},
    segment::{AppendError, Spare, sync_directory},
    shared::{Shared, lock},
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

pub(super) struct Keep {
    pub shared: Arc<Shared>,
    pub appender: JoinHandle<()>,
    pub marks: File,
    pub turn: u64,
    /// What the mark says now: acked, durable.
    pub kept: Option<(u64, u64)>,
    pub kept_at: Instant,
    /// Held until everything is on the disk.
    pub lock: File,
    pub ended: watch::Sender<bool>,
}

impl Keep {
    pub fn run(mut self) {
        loop {
            let (closing, spare_wanted) = self.wait();
            if closing {
                break;
            }
            if lock(&self.shared.intake).failed.is_some() {
                // The disk cannot be trusted with a mark either: what is acked comes back after the
                // restart, and dedupe absorbs it.
                lock(&self.shared.keeper).spare_wanted = false;
                continue;
            }
            self.look_at_space();
            if spare_wanted {
                self.make_spare();
            }
            let kept = if self.has_unneeded_segments() || self.kept_at.elapsed() >= MARK_EVERY {
                self.keep_mark()
            } else {
                Ok(())
            };
            match kept.and_then(|()| self.free_segments()) {
                Ok(()) => {}
                // What is acked is in memory: the next round tries again.
                Err(AppendError::NoSpace(error)) => warn!(%error, "The disk is full: the ack mark stays where it was"),
                Err(AppendError::Final { doing, source }) => drop(
                    self.shared
                        .fail(&format!("cannot {doing} {}: {source}", self.shared.directory.display())),
                ),
            }
        }
        let _ = self.appender.join();
        if lock(&self.shared.intake).failed.is_none()
            && let Err(error) = keep_mark(&self.shared, &self.marks, &mut self.turn, &mut self.kept)
        {
            warn!(?error, "Could not keep the ack mark: acked events are delivered again");
        }
        let _ = self.lock.unlock();
        self.ended.send_replace(true);
    }

    fn wait(&self) -> (bool, bool) {
        let mut keeper = lock(&self.shared.keeper);
        if !keeper.closing && !keeper.spare_wanted {
            keeper = self
                .shared
                .keep
                .wait_timeout(keeper, ROUND)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        (keeper.closing, keeper.spare_wanted)
    }

    fn look_at_space(&self) {
        let space = match self.shared.disk.space(&self.shared.directory) {
            Ok(space) => space,
            Err(error) => return warn!(%error, "Cannot read how much space the queue's disk has"),
        };
        let free_bytes_min = self.shared.settings.free_bytes_min(Some(space));
        let refusal = (space.free_bytes < free_bytes_min).then_some((space.free_bytes, free_bytes_min));
        let before = {
            let mut intake = lock(&self.shared.intake);
            intake.space = Some(space);
            std::mem::replace(&mut intake.refusal, refusal)
        };
        match (before, refusal) {
            (None, Some((free_bytes, free_bytes_min))) => {
                warn!(
                    free_bytes,
                    free_bytes_min, "The queue's disk is nearly full: intake stops until there is room"
                );
            }
            (Some(_), None) => info!(
                free_bytes = space.free_bytes,
                "The queue's disk has room: intake goes on"
            ),
            _ => {}
        }
    }

    /// Without one the appender makes do with a file that grows: slower, never wrong. So an error
    /// here is only worth a warning.
    fn make_spare(&self) {
        let made = Spare::make(
            &*self.shared.disk,
            &self.shared.directory,
            self.shared.settings.segment_bytes,
        );
        let mut keeper = lock(&self.shared.keeper);
        keeper.spare_wanted = false;
        match made {
            Ok(spare) => keeper.spare = Some(spare),
            Err(error) => warn!(%error, "Could not make the next segment ready"),
        }
    }

    fn has_unneeded_segments(&self) -> bool {
        let acked = lock(&self.shared.consumed).acked();
        lock(&self.shared.segments)
            .first_key_value()
            .is_some_and(|(_, first)| first.end() <= acked)
    }

    fn keep_mark(&mut self) -> Result<(), AppendError> {
        self.kept_at = Instant::now();
        keep_mark(&self.shared, &self.marks, &mut self.turn, &mut self.kept)
    }

    /// Deletes the segments that lie before the mark on the disk.
    fn free_segments(&self) -> Result<(), AppendError> {
        // Before a mark stands on the disk nothing is known to be unneeded.
        let Some((acked, _)) = self.kept else { return Ok(()) };
        let mut freed = false;
        while let Some(first) = {
            let segments = lock(&self.shared.segments);
            segments
                .first_key_value()
                .map(|(_, first)| first.clone())
                .filter(|first| first.end() <= acked)
        } {
            match fs::remove_file(&first.path) {
                // Someone tidied up; it was not needed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(AppendError::of_write("delete an acked segment in"))?,
            }
            lock(&self.shared.segments).remove(&first.base);
            freed = true;
        }
        if !freed {
            return Ok(());
        }
        sync_directory(&*self.shared.disk, &self.shared.directory).map_err(AppendError::of_sync("fsync"))
    }
}

/// Writes the mark where it changed, into the slot whose turn it is, and fsyncs it.
fn keep_mark(shared: &Shared, marks: &File, turn: &mut u64, kept: &mut Option<(u64, u64)>) -> Result<(), AppendError> {
    // Read in this order: acks are never ahead of what is durable.
    let acked = lock(&shared.consumed).acked();
    let durable = shared.durable();
    if *kept == Some((acked, durable)) {
        return Ok(());
    }
    let active_base = lock(&shared.segments).last_key_value().map_or(0, |(base, _)| *base);
    *turn += 1;
    let mark = Mark {
        log: shared.log,
        turn: *turn,
        acked,
        durable,
        active_base,
    };
    let path = shared.directory.join(MARKS);
    write_all_at(&*shared.disk, marks, &path, &mark.to_bytes(), (*turn % 2) * MARK_SLOT)
        .map_err(AppendError::of_write("write the ack mark in"))?;
    shared
        .disk
        .sync(marks, &path)
        .map_err(AppendError::of_sync("fsync the ack mark in"))?;
    *kept = Some((acked, durable));
    Ok(())
}
