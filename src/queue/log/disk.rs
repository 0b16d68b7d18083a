//! The few calls that can fail on a disk, behind a trait. Tests fail the n-th fsync, write short,
//! or fill the disk.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// Free and whole size of the file system, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSpace {
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// The calls that the log makes to a disk. The provided methods are the real ones; a test overrides
/// the one that it breaks.
pub trait Disk: Send + Sync + 'static {
    /// May write less than all of `bytes`, as the system call may.
    fn write_at(&self, file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let _ = path;
        file.write_at(bytes, offset)
    }

    /// Returns when the file's written bytes and its length are on the disk.
    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        let _ = path;
        file.sync_data()
    }

    /// Free space as an ordinary process has it: without the blocks that the file system keeps for
    /// root.
    fn space(&self, directory: &Path) -> io::Result<DiskSpace> {
        let stat = rustix::fs::statvfs(directory)?;
        Ok(DiskSpace {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

/// The machine's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}

/// Writes all of it. On an error nothing is known about the bytes from `offset` on.
pub(super) fn write_all_at(
    disk: &dyn Disk,
    file: &File,
    path: &Path,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk.write_at(file, path, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written.min(bytes.len())..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the process has no descriptor left to open a file with.
pub(super) fn is_no_descriptor(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

/// Whether more room on the disk would help.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
