//! The checks of `doctor` for the directory of a log. They create nothing.

use super::{
    LogSettings,
    disk::{Disk as _, RealDisk},
};
use crate::telemetry::Diagnosis;
use rustix::fs::Access;
use std::path::Path;

/// `tmpfs` and `ramfs`, as `statfs` numbers them.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// The checks of one log, as people know it, and the setting that names its directory.
pub(in crate::queue) struct Names {
    pub directory: &'static str,
    pub disk: &'static str,
    pub setting: &'static str,
}

pub(in crate::queue) const QUEUE: Names = Names {
    directory: "queue directory",
    disk: "queue disk",
    setting: "HOOKSWITCH_QUEUE_URL",
};
pub(in crate::queue) const SPOOL: Names = Names {
    directory: "spool directory",
    disk: "spool disk",
    setting: "HOOKSWITCH_SPOOL_DIRECTORY",
};

pub(in crate::queue) fn diagnose(
    directory: &Path,
    settings: &LogSettings,
    names: &Names,
    is_dev: bool,
) -> Vec<Diagnosis> {
    let shown = directory.display();
    // The part of the path that exists is on the same disk as the directory that a start makes.
    let nearest = directory.ancestors().find(|it| it.exists()).unwrap_or(Path::new("."));
    let looked = rustix::fs::statfs(nearest).map_err(std::io::Error::from);
    let looked = looked.and_then(|stat| {
        if !nearest.is_dir() {
            return Err(std::io::ErrorKind::NotADirectory.into());
        }
        // Searched and written to, by the user of this process.
        rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK)?;
        Ok((stat.f_type, RealDisk.space(nearest)?))
    });
    let (kind, space) = match looked {
        Ok(looked) => looked,
        Err(error) => {
            return vec![Diagnosis::fail(
                names.directory,
                format!("{shown} cannot be written to: {}: {error}", nearest.display()),
                format!("name a directory that this user may write to in {}", names.setting),
            )];
        }
    };
    let place = if matches!(kind, TMPFS | RAMFS) {
        Diagnosis::fail(
            names.directory,
            format!("{shown} is in memory: a restart of the machine loses what was accepted"),
            format!("name a directory of a disk in {}", names.setting),
        )
        .unless_dev(is_dev)
    } else {
        Diagnosis::ok(names.directory, format!("{shown}, on a disk"))
    };
    let free_bytes_min = settings.free_bytes_min(Some(space));
    vec![place, room(names.disk, space.free_bytes, free_bytes_min)]
}

fn room(check: &'static str, free_bytes: u64, free_bytes_min: u64) -> Diagnosis {
    if free_bytes < free_bytes_min {
        return Diagnosis::fail(
            check,
            format!("{free_bytes} bytes are free, and intake stops below {free_bytes_min}"),
            "free space on the disk, or lower HOOKSWITCH_DISK_FREE_BYTES_MIN",
        );
    }
    if free_bytes / 2 < free_bytes_min {
        return Diagnosis::warn(
            check,
            format!("{free_bytes} bytes are free, and intake stops below {free_bytes_min}"),
            "free space on the disk soon",
        );
    }
    Diagnosis::ok(
        check,
        format!(
            "{} MiB are free; intake stops below {} MiB",
            free_bytes >> 20,
            free_bytes_min >> 20
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Verdict;

    #[test]
    fn room_is_judged_by_the_limit_of_intake() {
        for (free, verdict) in [
            (99, Verdict::Fail),
            (100, Verdict::Warn),
            (199, Verdict::Warn),
            (200, Verdict::Ok),
        ] {
            assert_eq!(room("a disk", free, 100).status, verdict, "{free}");
        }
    }

    #[test]
    fn a_directory_in_memory_is_refused_outside_of_development() {
        let shm = Path::new("/dev/shm");
        if !shm.is_dir() {
            return;
        }
        let status = |is_dev| diagnose(&shm.join("none/queue"), &LogSettings::default(), &QUEUE, is_dev)[0].status;
        assert_eq!((status(false), status(true)), (Verdict::Fail, Verdict::Warn));
        assert!(!shm.join("none").exists());
    }

    #[test]
    fn a_path_below_a_file_cannot_be_written_to() {
        let found = diagnose(Path::new("/proc/version/spool"), &LogSettings::default(), &SPOOL, false);
        assert_eq!((found.len(), found[0].status), (1, Verdict::Fail), "{found:?}");
        assert!(found[0].cure.contains("HOOKSWITCH_SPOOL_DIRECTORY"), "{found:?}");
    }
}
