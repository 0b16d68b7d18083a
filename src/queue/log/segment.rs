//! The log's files: their names, their creation, and the spare that waits for the next roll.

use super::{
    disk::{Disk, is_no_descriptor, is_no_space, write_all_at},
    format::{SEGMENT_HEADER, SegmentHeader},
};
use crate::domain::private_file;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Names of unfinished files: maintenance prepares the first, the appender creates the second when
/// it cannot wait. A complete file is renamed, so that every file with a segment's name has a
/// header.
pub(super) const SPARE: &str = "spare.tmp";
pub(super) const GROWING: &str = "growing.tmp";
/// Room that is given up last, so that acks and plans can still be written when the disk is full.
pub(super) const RESERVE: &str = "reserve.tmp";
pub(super) const RESERVE_BYTES: u64 = 32 << 20;
const FILL: usize = 1 << 20;

/// The meaning of a failed append for the publishers that wait.
#[derive(Debug)]
pub(super) enum AppendError {
    /// The disk has no room: this group is refused, the next may fit.
    NoSpace(io::Error),
    /// The process has no descriptor left: this group is refused, the next may find one.
    NoDescriptor(io::Error),
    /// The state of the disk is unknown: the log takes nothing until the process starts again.
    Final { doing: &'static str, source: io::Error },
}

impl AppendError {
    pub fn of_write(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| {
            if is_no_space(&source) {
                Self::NoSpace(source)
            } else if is_no_descriptor(&source) {
                Self::NoDescriptor(source)
            } else {
                Self::Final { doing, source }
            }
        }
    }

    /// An fsync that failed is never tried again: the kernel forgets the pages, and the next one
    /// would say that all is well.
    pub fn of_sync(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Final { doing, source }
    }
}

/// One file of the log, as readers see it.
#[derive(Debug)]
pub(super) struct Segment {
    pub base: u64,
    pub path: PathBuf,
    /// Position behind its last record; `u64::MAX` while it is written to.
    end: AtomicU64,
}

impl Segment {
    pub fn new(directory: &Path, base: u64, end: u64) -> Arc<Self> {
        Arc::new(Self {
            base,
            path: path_of(directory, base),
            end: AtomicU64::new(end),
        })
    }

    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub fn seal(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Where in the file a position stands.
    pub fn offset(&self, position: u64) -> u64 {
        SEGMENT_HEADER as u64 + (position - self.base)
    }
}

pub(super) fn path_of(directory: &Path, base: u64) -> PathBuf {
    directory.join(format!("{base:020}.seg"))
}

/// The base that a file's name says, for files that are named as segments are.
pub(super) fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active {
    pub segment: Arc<Segment>,
    pub file: File,
    /// Bytes of records that go into it before the next one is begun.
    pub room: u64,
}

/// A segment's file on the disk that has no header and no name yet.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    file: File,
    room: u64,
}

/// A spare that is being filled with zeros. Overwriting zeros changes no metadata, which halves the
/// time of a small group's fsync.
#[derive(Debug)]
pub(super) struct Filling {
    spare: Spare,
    at: u64,
}

pub(super) enum Filled {
    Part(Filling),
    Whole(Spare),
}

impl Filling {
    pub fn begin(directory: &Path, room: u64) -> io::Result<Self> {
        let path = directory.join(SPARE);
        let file = create(&path)?;
        Ok(Self {
            spare: Spare { path, file, room },
            at: 0,
        })
    }

    /// Writes one step, and returns when it is on the disk: the appender's fsyncs share the disk,
    /// and would wait behind all of it.
    pub fn step(mut self, disk: &dyn Disk) -> io::Result<Filled> {
        let Spare { path, file, room } = &self.spare;
        let length = SEGMENT_HEADER as u64 + room;
        let step = usize::try_from(length - self.at).unwrap_or(FILL).min(FILL);
        let written = write_all_at(disk, file, path, &vec![0; step], self.at).and_then(|()| disk.sync(file, path));
        if let Err(error) = written {
            // A half-made segment would only take room.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        self.at += step as u64;
        Ok(if self.at < length {
            Filled::Part(self)
        } else {
            Filled::Whole(self.spare)
        })
    }
}

impl Spare {
    /// Creates a file of zeros for `room` bytes of records.
    pub fn create_filled(disk: &dyn Disk, directory: &Path, room: u64) -> io::Result<Self> {
        let mut filling = Filling::begin(directory, room)?;
        loop {
            match filling.step(disk)? {
                Filled::Whole(spare) => return Ok(spare),
                Filled::Part(rest) => filling = rest,
            }
        }
    }

    /// Creates an empty file that grows with each write: slower, but ready at once.
    pub fn create_growing(directory: &Path, room: u64) -> io::Result<Self> {
        let path = directory.join(GROWING);
        Ok(Self {
            file: create(&path)?,
            path,
            room,
        })
    }

    /// Gives the file its header and its name. On return both stand on the disk. `handle` is the
    /// open directory: to open it here would need a descriptor after the file has its name.
    pub fn begin(
        self,
        disk: &dyn Disk,
        directory: &Path,
        handle: &File,
        header: SegmentHeader,
    ) -> Result<Active, AppendError> {
        write_all_at(disk, &self.file, &self.path, &header.to_bytes(), 0)
            .map_err(AppendError::of_write("write the header of a segment in"))?;
        disk.sync(&self.file, &self.path)
            .map_err(AppendError::of_sync("fsync a segment in"))?;
        let segment = Segment::new(directory, header.base, u64::MAX);
        fs::rename(&self.path, &segment.path).map_err(AppendError::of_write("name a segment in"))?;
        disk.sync(handle, directory)
            .map_err(AppendError::of_sync("fsync the directory of"))?;
        Ok(Active {
            segment,
            file: self.file,
            room: self.room,
        })
    }
}

fn create(path: &Path) -> io::Result<File> {
    private_file()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
}

/// Removes the unfinished files of a process that died.
pub(super) fn remove_spares(directory: &Path) -> io::Result<()> {
    for name in [SPARE, GROWING, RESERVE] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn sync_directory(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    disk.sync(&File::open(directory)?, directory)
}

/// Keeps room on the disk. The blocks are taken and nothing is written into them.
pub(super) fn create_reserve(directory: &Path) -> io::Result<()> {
    let path = directory.join(RESERVE);
    let taken = create(&path).and_then(|file| {
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES).map_err(io::Error::from)
    });
    taken.inspect_err(|_| drop(fs::remove_file(&path)))
}
