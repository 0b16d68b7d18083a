//! Opening what a process left behind: reads from the ack mark to the end, tells a torn tail from
//! damage, and changes nothing before all of it is read.
//!
//! A group is written only after the one before it was fsynced, so at most the last group can be
//! incomplete. What does not check out is a *torn tail* when no record of a later group follows it,
//! no later segment exists, and the mark does not call it durable. Everything else is damage, and a
//! person decides.

use super::{
    disk::Disk,
    format::{LogId, MARK_BYTES, Mark, RECORD_HEADER, RECORD_MARKER, RecordHeader, SEGMENT_HEADER, SegmentHeader},
    ledger::Ledger,
    segment::{Segment, base_of, path_of, remove_spares, sync_directory},
};
use crate::{domain::EventId, queue::ConnectError, telemetry::catalogue};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tracing::warn;

pub(super) const MARKS: &str = "marks";
/// Slots stand in pages of their own, so that a torn write of one leaves the other.
pub(super) const MARK_SLOT: u64 = 4096;
const READ_BYTES: usize = 1 << 20;

/// What the next process starts from.
#[derive(Debug)]
pub(super) struct Recovered {
    pub log: LogId,
    pub segments: BTreeMap<u64, Arc<Segment>>,
    pub ledger: Ledger,
    /// The position from which to go on, in a segment of its own.
    pub end: u64,
    pub previous_base: u64,
    pub turn: u64,
    pub torn_bytes: u64,
}

pub(super) fn io_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ConnectError {
    move |source| ConnectError::Io {
        doing,
        path: path.display().to_string(),
        source,
    }
}

fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> ConnectError {
    ConnectError::Damaged {
        segment: path.display().to_string(),
        offset,
        reason: reason.into(),
    }
}

/// A segment's file, opened and its header read.
struct Found {
    header: SegmentHeader,
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// Reads the directory. On an error nothing was changed.
pub(super) fn recover(disk: &dyn Disk, directory: &Path) -> Result<Recovered, ConnectError> {
    let mark = read_mark(directory)?;
    let found = find_segments(directory)?;
    let log = found
        .first()
        .map(|first| first.header.log)
        .or(mark.map(|mark| mark.log))
        .unwrap_or_else(|| LogId(*EventId::generate().as_bytes()));
    if let Some(other) = found.iter().find(|found| found.header.log != log) {
        return Err(damaged(
            &other.path,
            0,
            "it belongs to another queue than the segments before it",
        ));
    }
    let mark = mark.filter(|mark| mark.log == log);
    if mark.is_none() && !found.is_empty() {
        warn!(directory = %directory.display(), "The queue's ack mark is missing: every event that its segments hold \
            is delivered again");
    }

    let first_base = found.first().map_or(0, |first| first.header.base);
    let acked = mark.map_or(first_base, |mark| mark.acked.max(first_base));
    let durable = mark.map_or(0, |mark| mark.durable);
    // Without the segment that the mark calls active, that one was moved away, and what the mark
    // says of it says nothing of the others.
    let active_is_here = mark.is_some_and(|mark| found.iter().any(|found| found.header.base >= mark.active_base));

    let mut recovered = Recovered {
        log,
        segments: BTreeMap::new(),
        ledger: Ledger::starting_at(acked),
        end: acked,
        previous_base: 0,
        turn: mark.map_or(0, |mark| mark.turn),
        torn_bytes: 0,
    };
    let mut unneeded = Vec::new();
    let mut cut = None;
    for (index, segment) in found.iter().enumerate() {
        let next = found.get(index + 1);
        if next.is_some_and(|next| next.header.base <= acked) {
            unneeded.push(&segment.path);
            continue;
        }
        if segment.header.base > recovered.end {
            warn!(missing_bytes = segment.header.base - recovered.end, segment = %segment.path.display(), "Segments \
                before this one were moved away: their events are skipped");
            recovered.ledger.skip_to(segment.header.base);
        }
        let from = acked.max(segment.header.base);
        let scanned = scan(segment, from, &mut recovered.ledger)?;
        let contiguous = next.is_some_and(|next| next.header.previous_base == segment.header.base);
        let offset = SEGMENT_HEADER as u64 + (scanned.end - segment.header.base);
        if next.is_some() {
            let reason = scanned.problem.unwrap_or("records are missing");
            if contiguous && next.is_some_and(|next| next.header.base != scanned.end)
                || !contiguous && last_byte(segment, offset)?.is_some()
            {
                return Err(damaged(&segment.path, offset, reason));
            }
        } else {
            let last_byte = last_byte(segment, offset)?;
            if active_is_here && scanned.end < durable {
                return Err(damaged(
                    &segment.path,
                    offset,
                    scanned.problem.unwrap_or("records that were durable are missing"),
                ));
            }
            if let Some(last_byte) = last_byte {
                if later_group_follows(segment, scanned.end, last_byte)? {
                    return Err(damaged(
                        &segment.path,
                        offset,
                        scanned.problem.unwrap_or("zeros stand where a record was"),
                    ));
                }
                recovered.torn_bytes = last_byte + 1 - offset;
            }
            cut = Some((segment, offset));
        }
        recovered.end = scanned.end;
        recovered.previous_base = segment.header.base;
        recovered.segments.insert(
            segment.header.base,
            Segment::new(directory, segment.header.base, scanned.end),
        );
    }
    // From here on the directory is changed.
    let io = io_error("clean up", directory);
    for path in unneeded {
        fs::remove_file(path).map_err(&io)?;
    }
    if let Some((segment, offset)) = cut {
        // A cut tail must not come back: it leaves the disk before anything is appended behind it.
        let file = File::options()
            .write(true)
            .open(&segment.path)
            .map_err(io_error("open", &segment.path))?;
        file.set_len(offset)
            .and_then(|()| file.sync_all())
            .map_err(io_error("cut the torn tail of", &segment.path))?;
        if recovered.torn_bytes > 0 {
            warn!(segment = %segment.path.display(), torn_bytes = recovered.torn_bytes, "Cut a torn tail: its group \
                was never confirmed to a sender");
            catalogue::QUEUE_TORN_BYTES.count(recovered.torn_bytes, &[]);
        }
        if offset == SEGMENT_HEADER as u64 {
            // Nothing in it: the segment that begins here takes its name and its place.
            recovered.segments.remove(&segment.header.base);
            recovered.previous_base = segment.header.previous_base;
        }
    }
    if let Some(mark) = mark.filter(|_| !active_is_here) {
        let end = recovered.end.max(mark.durable).max(mark.acked);
        if !found.is_empty() || end > 0 {
            recovered.previous_base = mark.active_base;
        }
        recovered.ledger.skip_to(end);
        recovered.end = end;
    }
    remove_spares(directory).map_err(&io)?;
    sync_directory(disk, directory).map_err(&io)?;
    Ok(recovered)
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
        .max_by_key(|mark| mark.turn))
}

fn find_segments(directory: &Path) -> Result<Vec<Found>, ConnectError> {
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

fn open_segment(path: PathBuf, base: u64) -> Result<Found, ConnectError> {
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let bytes = file.metadata().map_err(io_error("read", &path))?.len();
    let mut head = Vec::new();
    read_up_to(&file, &mut head, SEGMENT_HEADER, 0).map_err(io_error("read", &path))?;
    let header = SegmentHeader::from_bytes(&head).map_err(|reason| damaged(&path, 0, reason))?;
    if header.base != base {
        return Err(damaged(&path, 28, "its name is that of another segment"));
    }
    Ok(Found {
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

struct Scanned {
    /// Position behind the last record that checks out.
    end: u64,
    /// Why the bytes there are no record; `None` where the file ends or zeros begin.
    problem: Option<&'static str>,
}

/// Reads records from `from` on, as long as they check out.
fn scan(segment: &Found, from: u64, ledger: &mut Ledger) -> Result<Scanned, ConnectError> {
    let base = segment.header.base;
    let mut position = from;
    let mut window = Vec::new();
    let mut at = 0;
    let refill = |window: &mut Vec<u8>, position: u64, bytes: usize| {
        read_up_to(&segment.file, window, bytes, SEGMENT_HEADER as u64 + (position - base))
            .map_err(io_error("read", &segment.path))
    };
    loop {
        if window.len() - at < RECORD_HEADER {
            refill(&mut window, position, READ_BYTES)?;
            at = 0;
        }
        let rest = &window[at..];
        let head = &rest[..rest.len().min(RECORD_HEADER)];
        if head.iter().all(|byte| *byte == 0) {
            return Ok(Scanned {
                end: position,
                problem: None,
            });
        }
        let header = match RecordHeader::from_bytes(head, segment.header.log, position) {
            Ok(header) => header,
            Err(problem) => {
                return Ok(Scanned {
                    end: position,
                    problem: Some(problem),
                });
            }
        };
        let left = segment.bytes.saturating_sub(SEGMENT_HEADER as u64 + (position - base));
        if header.record_bytes() > left {
            return Ok(Scanned {
                end: position,
                problem: Some("the file ends inside a record"),
            });
        }
        let whole = RECORD_HEADER + header.length as usize;
        if rest.len() < whole {
            refill(&mut window, position, whole.max(READ_BYTES))?;
            at = 0;
        }
        let Some(payload) = window.get(at + RECORD_HEADER..at + whole) else {
            return Ok(Scanned {
                end: position,
                problem: Some("the file ends inside a record"),
            });
        };
        if crc32c::crc32c(payload) != header.payload_checksum {
            return Ok(Scanned {
                end: position,
                problem: Some("the checksum of a record is wrong"),
            });
        }
        ledger.add(&header);
        position += header.record_bytes();
        at += whole;
    }
}

/// Offset of the last byte from `offset` on that is not zero.
fn last_byte(segment: &Found, offset: u64) -> Result<Option<u64>, ConnectError> {
    let zeros = vec![0; READ_BYTES];
    let mut window = Vec::new();
    let mut at = offset;
    let mut last = None;
    while at < segment.bytes {
        read_up_to(&segment.file, &mut window, READ_BYTES, at).map_err(io_error("read", &segment.path))?;
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

/// Whether, behind bytes at `end` that do not check out, a record stands whose group began later:
/// then the group at `end` had been fsynced.
fn later_group_follows(segment: &Found, end: u64, last_byte: u64) -> Result<bool, ConnectError> {
    let base = segment.header.base;
    let first = SEGMENT_HEADER as u64 + (end - base);
    let mut window = Vec::new();
    let mut at = first;
    while at <= last_byte {
        // Windows overlap by a header, so that none is missed at a border.
        read_up_to(&segment.file, &mut window, READ_BYTES + RECORD_HEADER, at)
            .map_err(io_error("read", &segment.path))?;
        for index in 0..window.len().min(READ_BYTES) {
            if window[index] != RECORD_MARKER[0] || !window[index..].starts_with(&RECORD_MARKER) {
                continue;
            }
            let position = base + (at + index as u64 - SEGMENT_HEADER as u64);
            if RecordHeader::from_bytes(&window[index..], segment.header.log, position)
                .is_ok_and(|header| header.group > end)
            {
                return Ok(true);
            }
        }
        at += READ_BYTES as u64;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{OrgId, Timestamp},
        queue::log::RealDisk,
    };
    use std::io::Write;

    #[test]
    fn the_torn_tail_is_counted() {
        let directory = std::env::temp_dir().join(format!("hookswitch-recover-{}", EventId::generate()));
        fs::create_dir_all(&directory).unwrap();
        let log = LogId([3; 16]);
        let header = RecordHeader {
            length: 5,
            group: 0,
            id: EventId::generate(),
            org: OrgId::generate(),
            received_at: Timestamp::default(),
            payload_checksum: crc32c::crc32c(b"whole"),
        };
        let mut file = File::create(path_of(&directory, 0)).unwrap();
        file.write_all(
            &SegmentHeader {
                log,
                base: 0,
                previous_base: 0,
            }
            .to_bytes(),
        )
        .unwrap();
        file.write_all(&header.to_bytes(log, 0)).unwrap();
        file.write_all(b"whole").unwrap();
        file.write_all(&RecordHeader { group: 69, ..header }.to_bytes(log, 69))
            .unwrap();
        file.write_all(b"who\0\0\0\0\0").unwrap();
        let recovered = recover(&RealDisk, &directory).unwrap();
        assert_eq!(
            (recovered.torn_bytes, recovered.end, recovered.ledger.events()),
            (64 + 3, 69, 1)
        );
        assert_eq!(fs::metadata(path_of(&directory, 0)).unwrap().len(), 64 + 69);
        assert_eq!(recover(&RealDisk, &directory).unwrap().torn_bytes, 0);
        fs::remove_dir_all(directory).unwrap();
    }
}
