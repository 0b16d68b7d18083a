//! The checks of `doctor` for a receiver's spool. They create nothing, and do not open it: a
//! receiver may have it open.

use super::{SpoolSettings, dead_entries, volatile};
use crate::{
    queue::log::{self, Disk as _, RealDisk},
    telemetry::Diagnosis,
};
use std::{fs, path::Path};

pub(in crate::queue) fn diagnose(settings: &SpoolSettings, is_dev: bool) -> Vec<Diagnosis> {
    let directory = &settings.directory;
    let may_be_volatile = is_dev || settings.may_be_volatile;
    let mut found = log::diagnose(directory, &settings.log, &log::SPOOL, may_be_volatile);
    if directory.is_dir()
        && let Err(error) = volatile::refuse_volatile(directory)
        && !may_be_volatile
    {
        found.push(Diagnosis::fail(
            "spool volume",
            error.to_string(),
            "mount a volume that outlives the process there",
        ));
    }
    found.push(size(directory, settings));
    found.extend(set_aside(directory));
    found
}

/// A full spool has to fit on its disk: else the limit that is met first is the disk's.
fn size(directory: &Path, settings: &SpoolSettings) -> Diagnosis {
    const CHECK: &str = "spool size";
    let held = bytes_in(directory);
    let nearest = directory.ancestors().find(|it| it.is_dir()).unwrap_or(Path::new("."));
    let space = RealDisk.space(nearest).ok();
    judge(
        CHECK,
        held,
        settings.log.bytes_max,
        space.map(|space| {
            space
                .free_bytes
                .saturating_sub(settings.log.free_bytes_min(Some(space)))
        }),
    )
}

/// `room` is what the disk has left above the limit of intake.
fn judge(check: &'static str, held: u64, bytes_max: u64, room: Option<u64>) -> Diagnosis {
    let found = format!("its files have {held} bytes, of {bytes_max} that events may have");
    match room {
        Some(room) if held.saturating_add(room) < bytes_max => Diagnosis::warn(
            check,
            format!("{found}; the disk has room for {room} more"),
            "grow the disk, or lower HOOKSWITCH_SPOOL_BYTES_MAX to what it can hold",
        ),
        _ => Diagnosis::ok(check, found),
    }
}

/// A file that goes while it is counted counts as nothing.
fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    sizes.filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}

fn set_aside(directory: &Path) -> Option<Diagnosis> {
    const CHECK: &str = "spool dead events";
    match dead_entries(directory) {
        Ok(files) if files.is_empty() => None,
        Ok(files) => Some(Diagnosis::warn(
            CHECK,
            format!("{} events were set aside: the broker will never take them", files.len()),
            "see `hookswitch spool list`, and docs/operations.md, HookswitchSpoolDead",
        )),
        Err(error) => Some(Diagnosis::warn(
            CHECK,
            format!("they cannot be looked at: {error}"),
            "run this as the user that runs the receiver",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Verdict;

    #[test]
    fn a_spool_that_its_disk_cannot_hold_is_a_warning() {
        for (held, room, verdict) in [
            (0, Some(100), Verdict::Ok),
            (0, Some(99), Verdict::Warn),
            (60, Some(40), Verdict::Ok),
            (60, Some(39), Verdict::Warn),
            (0, None, Verdict::Ok),
        ] {
            assert_eq!(judge("a spool", held, 100, room).status, verdict, "{held} {room:?}");
        }
    }
}
