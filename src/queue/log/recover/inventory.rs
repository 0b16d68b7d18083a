//! Reads a log's directory and judges nothing: the mark, the segments, and the end of each one's
//! sound records.

use super::{MARK_SLOT, MARKS, damaged, io_error};
use crate::{
    domain::EventId,
    queue::{
        ConnectError,
        log::{
            format::{
                LogId, MARK_BYTES, Mark, RECORD_HEADER, RECORD_MARKER, RecordHeader, SEGMENT_HEADER, SegmentHeader,
            },
            segment::{base_of, path_of},
            usage::Usage,
        },
    },
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use tracing::warn;

const READ_BYTES: usize = 1 << 20;

/// Everything that the directory holds, read and not judged.
#[derive(Debug)]
pub(super) struct Inventory {
    pub log: LogId,
    pub mark: Option<Mark>,
    /// Everything before is acked.
    pub acked: u64,
    /// Segments whose records are all acked.
    pub unneeded: Vec<PathBuf>,
    /// The other segments, in the order of their bases.
    pub segments: Vec<ScannedSegment>,
    /// Counts of the sound records.
    pub usage: Usage,
}

/// A segment whose records were read as far as they are sound.
#[derive(Clone, Debug)]
pub(super) struct ScannedSegment {
    pub header: SegmentHeader,
    pub path: PathBuf,
    /// Position behind the last sound record.
    pub end: u64,
    /// Why the bytes at `end` are no record; `None` where the file ends or zeros begin.
    pub problem: Option<&'static str>,
    /// Offset of the last byte behind the sound records that is not zero.
    pub last_byte: Option<u64>,
    /// A record of a later group stands behind `end`: the group at `end` had been fsynced. Known of
    /// the last segment only.
    pub later_group_follows: bool,
}

impl ScannedSegment {
    /// Offset in the file behind the last sound record.
    pub fn end_offset(&self) -> u64 {
        SEGMENT_HEADER as u64 + (self.end - self.header.base)
    }
}

/// A segment's file, opened and its header read.
struct SegmentFile {
    header: SegmentHeader,
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// Reads the directory and changes nothing.
pub(super) fn read_inventory(directory: &Path) -> Result<Inventory, ConnectError> {
    let mark = read_mark(directory)?;
    let mut files = open_segments(directory)?;
    let log = files
        .first()
        .map(|first| first.header.log)
        .or(mark.map(|mark| mark.log))
        .unwrap_or_else(|| LogId(*EventId::generate().as_bytes()));
    if let Some(other) = files.iter().find(|file| file.header.log != log) {
        return Err(damaged(
            &other.path,
            0,
            "it belongs to another queue than the segments before it",
        ));
    }
    let mark = mark.filter(|mark| mark.log == log);
    if mark.is_none() && !files.is_empty() {
        warn!(directory = %directory.display(), "The queue's ack mark is missing: every event that its segments hold \
            is delivered again");
    }

    let first_base = files.first().map_or(0, |first| first.header.base);
    let acked = mark.map_or(first_base, |mark| mark.acked.max(first_base));
    let needed = files
        .partition_point(|file| file.header.base <= acked)
        .saturating_sub(1);
    let unneeded = files.drain(..needed).map(|file| file.path).collect();

    let mut usage = Usage::starting_at(acked);
    let mut segments = Vec::with_capacity(files.len());
    let mut end = acked;
    for (index, file) in files.iter().enumerate() {
        let base = file.header.base;
        if base > end {
            warn!(missing_bytes = base - end, segment = %file.path.display(), "Segments before this one were moved \
                away: their events are skipped");
            usage.skip_to(base);
        }
        let is_last = index + 1 == files.len();
        let scanned = scan_segment(file, acked.max(base), is_last, &mut usage)?;
        end = scanned.end;
        segments.push(scanned);
    }
    Ok(Inventory {
        log,
        mark,
        acked,
        unneeded,
        segments,
        usage,
    })
}

fn scan_segment(
    file: &SegmentFile,
    from: u64,
    is_last: bool,
    usage: &mut Usage,
) -> Result<ScannedSegment, ConnectError> {
    let (end, problem) = scan(file, from, usage)?;
    let mut scanned = ScannedSegment {
        header: file.header,
        path: file.path.clone(),
        end,
        problem,
        last_byte: None,
        later_group_follows: false,
    };
    scanned.last_byte = last_byte(file, scanned.end_offset())?;
    if let Some(last_byte) = scanned.last_byte.filter(|_| is_last) {
        scanned.later_group_follows = later_group_follows(file, end, last_byte)?;
    }
    Ok(scanned)
}

fn read_mark(directory: &Path) -> Result<Option<Mark>, ConnectError> {
    let path = directory.join(MARKS);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let slot = usize::try_from(MARK_SLOT).unwrap_or(usize::MAX);
    Ok([0, slot]
        .into_iter()
        .filter_map(|at| Mark::from_bytes(bytes.get(at..(at + MARK_BYTES).min(bytes.len()))?))
        .max_by_key(|mark| mark.sequence))
}

fn open_segments(directory: &Path) -> Result<Vec<SegmentFile>, ConnectError> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
        let entry = entry.map_err(io_error("list", directory))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if let Some(base) = base_of(&name) {
            bases.push(base);
        } else if name.ends_with(".seg") {
            return Err(damaged(&entry.path(), 0, "its name is not one of a segment"));
        }
    }
    bases.sort_unstable();
    bases
        .into_iter()
        .map(|base| open_segment(path_of(directory, base), base))
        .collect()
}

fn open_segment(path: PathBuf, base: u64) -> Result<SegmentFile, ConnectError> {
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let bytes = file.metadata().map_err(io_error("read", &path))?.len();
    let mut head = Vec::new();
    read_up_to(&file, &mut head, SEGMENT_HEADER, 0).map_err(io_error("read", &path))?;
    let header = SegmentHeader::from_bytes(&head).map_err(|reason| damaged(&path, 0, reason))?;
    if header.base != base {
        return Err(damaged(&path, 28, "its name is that of another segment"));
    }
    Ok(SegmentFile {
        header,
        path,
        file,
        bytes,
    })
}

/// Fills `into` with up to `bytes` bytes from `offset` on; fewer only at the end of the file.
fn read_up_to(file: &File, into: &mut Vec<u8>, bytes: usize, offset: u64) -> io::Result<()> {
    into.resize(bytes, 0);
    let mut read = 0;
    while read < bytes {
        match file.read_at(&mut into[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    into.truncate(read);
    Ok(())
}

/// Reads records from `from` on, as long as they are sound. Returns the position behind the last
/// one, and why the bytes there are no record; `None` where the file ends or zeros begin.
fn scan(file: &SegmentFile, from: u64, usage: &mut Usage) -> Result<(u64, Option<&'static str>), ConnectError> {
    let base = file.header.base;
    let mut position = from;
    let mut window = Vec::new();
    let mut at = 0;
    let refill = |window: &mut Vec<u8>, position: u64, bytes: usize| {
        read_up_to(&file.file, window, bytes, SEGMENT_HEADER as u64 + (position - base))
            .map_err(io_error("read", &file.path))
    };
    loop {
        if window.len() - at < RECORD_HEADER {
            refill(&mut window, position, READ_BYTES)?;
            at = 0;
        }
        let rest = &window[at..];
        let head = &rest[..rest.len().min(RECORD_HEADER)];
        if head.iter().all(|byte| *byte == 0) {
            return Ok((position, None));
        }
        let header = match RecordHeader::from_bytes(head, file.header.log, position) {
            Ok(header) => header,
            Err(problem) => {
                return Ok((position, Some(problem)));
            }
        };
        let left = file.bytes.saturating_sub(SEGMENT_HEADER as u64 + (position - base));
        if header.record_bytes() > left {
            return Ok((position, Some("the file ends inside a record")));
        }
        let whole = RECORD_HEADER + header.length as usize;
        if rest.len() < whole {
            refill(&mut window, position, whole.max(READ_BYTES))?;
            at = 0;
        }
        let Some(payload) = window.get(at + RECORD_HEADER..at + whole) else {
            return Ok((position, Some("the file ends inside a record")));
        };
        if crc32c::crc32c(payload) != header.payload_checksum {
            return Ok((position, Some("the checksum of a record is wrong")));
        }
        usage.add(&header);
        position += header.record_bytes();
        at += whole;
    }
}

/// Offset of the last byte from `offset` on that is not zero.
fn last_byte(file: &SegmentFile, offset: u64) -> Result<Option<u64>, ConnectError> {
    let zeros = vec![0; READ_BYTES];
    let mut window = Vec::new();
    let mut at = offset;
    let mut last = None;
    while at < file.bytes {
        read_up_to(&file.file, &mut window, READ_BYTES, at).map_err(io_error("read", &file.path))?;
        if window.is_empty() {
            break;
        }
        if window[..] != zeros[..window.len()] {
            last = window
                .iter()
                .rposition(|byte| *byte != 0)
                .map(|index| at + index as u64);
        }
        at += window.len() as u64;
    }
    Ok(last)
}

/// Whether a record whose group began later stands behind the unsound bytes at `end`: the group at
/// `end` had been fsynced then.
fn later_group_follows(file: &SegmentFile, end: u64, last_byte: u64) -> Result<bool, ConnectError> {
    let base = file.header.base;
    let first = SEGMENT_HEADER as u64 + (end - base);
    let mut window = Vec::new();
    let mut at = first;
    while at <= last_byte {
        // Windows overlap by a header, so that none is missed at a border.
        read_up_to(&file.file, &mut window, READ_BYTES + RECORD_HEADER, at).map_err(io_error("read", &file.path))?;
        for index in 0..window.len().min(READ_BYTES) {
            if window[index] != RECORD_MARKER[0] || !window[index..].starts_with(&RECORD_MARKER) {
                continue;
            }
            let position = base + (at + index as u64 - SEGMENT_HEADER as u64);
            if RecordHeader::from_bytes(&window[index..], file.header.log, position)
                .is_ok_and(|header| header.group > end)
            {
                return Ok(true);
            }
        }
        at += READ_BYTES as u64;
    }
    Ok(false)
}
