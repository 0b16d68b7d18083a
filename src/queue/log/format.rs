//! The bytes of the log's files.
//!
//! A *position* counts the bytes of records since the log began; headers of segments do not count.
//! A segment `{base:020}.seg` holds the records from position `base` on. Each record carries its
//! length, the event's id and organisation, the time of receipt, and checksums of its header and
//! its payload. It also carries the position at which its *group* begins: the records that one
//! fsync made durable. The header's checksum covers the log's id and the record's position too. So
//! neither a stale record nor bytes inside a payload can pass for a record.

use crate::domain::{EventId, OrgId, Timestamp};
use uuid::Uuid;

pub(super) const SEGMENT_MAGIC: [u8; 8] = *b"HSWSEG\r\n";
const MARK_MAGIC: [u8; 8] = *b"HSWMARK\n";
pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const SEGMENT_HEADER: usize = 64;
pub(super) const RECORD_HEADER: usize = 64;
pub(super) const RECORD_MARKER: [u8; 4] = *b"HSR1";
pub(super) const MARK_BYTES: usize = 64;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn sixteen_at(bytes: &[u8], at: usize) -> [u8; 16] {
    bytes[at..at + 16].try_into().expect("sixteen bytes")
}

/// Marks the files of this log, so that another log's files are recognised. Seeds the checksums of
/// its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogId(pub [u8; 16]);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub log: LogId,
    pub base: u64,
    /// Base of the segment before; its own base in the first segment. It shows whether a segment
    /// was moved away or is damaged.
    pub previous_base: u64,
}

impl SegmentHeader {
    pub fn to_bytes(self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.log.0);
        bytes[28..36].copy_from_slice(&self.base.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.previous_base.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.is_empty() {
            return Err("the file is empty");
        }
        if bytes.len() < SEGMENT_HEADER || bytes[..8] != SEGMENT_MAGIC {
            return Err("it is not a segment of a Hookswitch queue");
        }
        if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err("the checksum of the segment's header is wrong");
        }
        if u32_at(bytes, 8) != FORMAT_VERSION {
            return Err("its format is one that this version does not know");
        }
        Ok(Self {
            log: LogId(sixteen_at(bytes, 12)),
            base: u64_at(bytes, 28),
            previous_base: u64_at(bytes, 36),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RecordHeader {
    pub length: u32,
    pub group: u64,
    pub id: EventId,
    /// Nil for an event that belongs to no organisation yet.
    pub org: OrgId,
    pub received_at: Timestamp,
    pub payload_checksum: u32,
}

impl RecordHeader {
    pub fn to_bytes(self, log: LogId, position: u64) -> [u8; RECORD_HEADER] {
        let mut bytes = [0; RECORD_HEADER];
        bytes[..4].copy_from_slice(&RECORD_MARKER);
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.group.to_le_bytes());
        bytes[16..32].copy_from_slice(self.id.as_bytes());
        bytes[32..48].copy_from_slice(self.org.as_bytes());
        bytes[48..56].copy_from_slice(&self.received_at.as_micros().to_le_bytes());
        bytes[56..60].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = header_checksum(log, position, &bytes);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8], log: LogId, position: u64) -> Result<Self, &'static str> {
        if bytes.len() < RECORD_HEADER {
            return Err("the file ends inside a record");
        }
        if bytes[..4] != RECORD_MARKER {
            return Err("no record begins there");
        }
        if u32_at(bytes, 60) != header_checksum(log, position, bytes) {
            return Err("the checksum of a record's header is wrong");
        }
        Ok(Self {
            length: u32_at(bytes, 4),
            group: u64_at(bytes, 8),
            id: EventId::from_uuid(Uuid::from_bytes(sixteen_at(bytes, 16))),
            org: OrgId::from_uuid(Uuid::from_bytes(sixteen_at(bytes, 32))),
            received_at: Timestamp::from_micros(i64::from_le_bytes(bytes[48..56].try_into().expect("eight bytes"))),
            payload_checksum: u32_at(bytes, 56),
        })
    }

    /// Bytes of the whole record, in the file and in positions.
    pub fn record_bytes(&self) -> u64 {
        RECORD_HEADER as u64 + u64::from(self.length)
    }
}

fn header_checksum(log: LogId, position: u64, bytes: &[u8]) -> u32 {
    let mut place = [0; 24];
    place[..16].copy_from_slice(&log.0);
    place[16..].copy_from_slice(&position.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), &bytes[..60])
}

/// How far the log is acked and known to be durable. Saved lazily, in two slots that alternate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    pub log: LogId,
    /// Grows by one with each mark: of two slots the higher one counts.
    pub sequence: u64,
    /// Everything before is acked.
    pub acked: u64,
    /// Everything before was fsynced: damage before it is no torn tail.
    pub durable: u64,
    /// The segment that was written to then.
    pub active_base: u64,
    /// Consumers that had events from `acked` on and acked none there. Files of before this count
    /// have zeros here.
    pub in_vain: u32,
}

impl Mark {
    pub fn to_bytes(self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..8].copy_from_slice(&MARK_MAGIC);
        bytes[8..24].copy_from_slice(&self.log.0);
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.acked.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.durable.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.active_base.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.in_vain.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` for a slot that was never written, or was torn: the other one stands.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < MARK_BYTES || bytes[..8] != MARK_MAGIC || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return None;
        }
        Some(Self {
            log: LogId(sixteen_at(bytes, 8)),
            sequence: u64_at(bytes, 24),
            acked: u64_at(bytes, 32),
            durable: u64_at(bytes, 40),
            active_base: u64_at(bytes, 48),
            in_vain: u32_at(bytes, 56),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_a_header_panic_or_pass(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(SegmentHeader::from_bytes(&bytes).is_err());
            prop_assert!(RecordHeader::from_bytes(&bytes, LogId([1; 16]), 5).is_err());
            prop_assert!(Mark::from_bytes(&bytes).is_none());
        }

        #[test]
        fn a_record_is_one_only_in_its_log_at_its_position(
            id in any::<[u8; 16]>(),
            position in any::<u64>(),
            length in any::<u32>(),
            bit in 0..RECORD_HEADER * 8,
        ) {
            let log = LogId(id);
            let header = RecordHeader {
                length,
                group: position / 2,
                id: EventId::from_uuid(Uuid::from_bytes(id)),
                org: OrgId::from_uuid(Uuid::from_u128(7)),
                received_at: Timestamp::from_micros(-3),
                payload_checksum: 9,
            };
            let bytes = header.to_bytes(log, position);
            prop_assert_eq!(RecordHeader::from_bytes(&bytes, log, position), Ok(header));
            prop_assert!(RecordHeader::from_bytes(&bytes, log, position ^ 8).is_err(), "a stale record");
            prop_assert!(RecordHeader::from_bytes(&bytes, LogId([0xEE; 16]), position).is_err(), "another log's");
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(RecordHeader::from_bytes(&flipped, log, position).is_err());
        }
    }
}
