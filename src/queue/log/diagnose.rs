//! The checks of `doctor` for the directory of a log. They create nothing.

use super::{
    LogSettings,
    disk::{Disk as _, RealDisk},
};
use crate::telemetry::Diagnosis;
use std::path::Path;

/// `tmpfs` and `ramfs`, as `statfs` numbers them.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

pub(in crate::queue) fn diagnose(directory: &Path, settings: &LogSettings, is_dev: bool) -> Vec<Diagnosis> {
    const CHECK: &str = "queue directory";
    let shown = directory.display();
    // The nearest directory that exists is on the same disk as the one that a start makes.
    let nearest = directory.ancestors().find(|it| it.is_dir()).unwrap_or(Path::new("."));
    let looked = rustix::fs::statfs(nearest).map_err(std::io::Error::from);
    let (kind, space) = match looked.and_then(|stat| Ok((stat.f_type, RealDisk.space(nearest)?))) {
        Ok(looked) => looked,
        Err(error) => {
            return vec![Diagnosis::fail(
                CHECK,
                format!("{shown} cannot be looked at: {error}"),
                "name a directory that this user may use in HOOKSWITCH_QUEUE_URL",
            )];
        }
    };
    let place = if matches!(kind, TMPFS | RAMFS) {
        Diagnosis::fail(
            CHECK,
            format!("{shown} is in memory: a restart of the machine loses what was accepted"),
            "name a directory of a disk in HOOKSWITCH_QUEUE_URL",
        )
        .unless_dev(is_dev)
    } else {
        Diagnosis::ok(CHECK, format!("{shown}, on a disk"))
    };
    vec![place, room(space.free_bytes, settings.free_bytes_min(Some(space)))]
}

fn room(free_bytes: u64, free_bytes_min: u64) -> Diagnosis {
    const CHECK: &str = "queue disk";
    if free_bytes < free_bytes_min {
        return Diagnosis::fail(
            CHECK,
            format!("{free_bytes} bytes are free, and intake stops below {free_bytes_min}"),
            "free space on the disk, or lower HOOKSWITCH_DISK_FREE_BYTES_MIN",
        );
    }
    if free_bytes / 2 < free_bytes_min {
        return Diagnosis::warn(
            CHECK,
            format!("{free_bytes} bytes are free, and intake stops below {free_bytes_min}"),
            "free space on the disk soon",
        );
    }
    Diagnosis::ok(CHECK, format!("{} MiB are free", free_bytes >> 20))
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
            assert_eq!(room(free, 100).status, verdict, "{free}");
        }
    }

    #[test]
    fn a_directory_in_memory_is_refused_outside_of_development() {
        let shm = Path::new("/dev/shm");
        if !shm.is_dir() {
            return;
        }
        let status = |is_dev| diagnose(&shm.join("none/queue"), &LogSettings::default(), is_dev)[0].status;
        assert_eq!((status(false), status(true)), (Verdict::Fail, Verdict::Warn));
        assert!(!shm.join("none").exists());
    }
}
