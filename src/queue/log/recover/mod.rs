//! Opening the log that another process left: `read_inventory` reads the directory, `judge` tells a
//! torn tail from damage, and `apply` changes the directory. An error of the first two changes
//! nothing.

mod inventory;
mod judge;

use super::{
    consumed::InVain,
    disk::Disk,
    format::LogId,
    segment::{Segment, remove_spares, sync_directory},
    usage::Usage,
};
use crate::{queue::ConnectError, telemetry::catalogue};
use inventory::{Inventory, read_inventory};
use judge::{Cut, Verdict, judge};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};
use tracing::warn;

pub(super) const MARKS: &str = "marks";
/// Each slot has a page of its own, so that a torn write of one leaves the other.
pub(super) const MARK_SLOT: u64 = 4096;

/// The state from which this process goes on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub log: LogId,
    pub segments: BTreeMap<u64, Arc<Segment>>,
    pub usage: Usage,
    /// The position from which to go on, in a segment of its own.
    pub end: u64,
    pub previous_base: u64,
    /// Sequence number of the last mark.
    pub sequence: u64,
    pub in_vain: InVain,
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

/// Reads the directory, and repairs it where a process was killed while it wrote.
pub(super) fn recover(disk: &dyn Disk, directory: &Path) -> Result<Recovered, ConnectError> {
    let inventory = read_inventory(directory)?;
    let verdict = judge(&inventory)?;
    apply(disk, directory, inventory, &verdict)
}

fn apply(
    disk: &dyn Disk,
    directory: &Path,
    inventory: Inventory,
    verdict: &Verdict,
) -> Result<Recovered, ConnectError> {
    let io = io_error("clean up", directory);
    for path in &inventory.unneeded {
        fs::remove_file(path).map_err(&io)?;
    }
    if let Some(cut) = &verdict.cut {
        cut_tail(cut)?;
    }
    remove_spares(directory).map_err(&io)?;
    sync_directory(disk, directory).map_err(&io)?;

    let mut usage = inventory.usage;
    usage.skip_to(verdict.end);
    let segments = verdict
        .segments
        .iter()
        .map(|(base, end)| (*base, Segment::new(directory, *base, *end)))
        .collect();
    Ok(Recovered {
        log: inventory.log,
        segments,
        usage,
        end: verdict.end,
        previous_base: verdict.previous_base,
        sequence: inventory.mark.map_or(0, |mark| mark.sequence),
        in_vain: inventory.mark.map_or_else(InVain::default, |mark| InVain {
            position: mark.acked,
            consumers: mark.in_vain,
        }),
    })
}

/// A cut tail must not come back: it leaves the disk before anything is appended behind it.
fn cut_tail(cut: &Cut) -> Result<(), ConnectError> {
    let file = File::options()
        .write(true)
        .open(&cut.path)
        .map_err(io_error("open", &cut.path))?;
    file.set_len(cut.offset)
        .and_then(|()| file.sync_all())
        .map_err(io_error("cut the torn tail of", &cut.path))?;
    if cut.torn_bytes > 0 {
        warn!(segment = %cut.path.display(), torn_bytes = cut.torn_bytes, "Cut a torn tail: its group was never \
            confirmed to a sender");
        catalogue::QUEUE_TORN_BYTES.count(cut.torn_bytes, &[]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{EventId, OrgId, Timestamp},
        queue::log::{
            RealDisk,
            format::{RecordHeader, SegmentHeader},
            segment::path_of,
        },
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
        let torn_bytes = || {
            let verdict = judge(&read_inventory(&directory).unwrap()).unwrap();
            verdict.cut.unwrap().torn_bytes
        };
        assert_eq!(torn_bytes(), 64 + 3);
        let recovered = recover(&RealDisk, &directory).unwrap();
        assert_eq!((recovered.end, recovered.usage.events()), (69, 1));
        assert_eq!(fs::metadata(path_of(&directory, 0)).unwrap().len(), 64 + 69);
        assert_eq!(torn_bytes(), 0);
        fs::remove_dir_all(directory).unwrap();
    }
}
