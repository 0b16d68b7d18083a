//! The bytes and events that the log holds, counted in memory: limits and gauges read them.

use super::format::RecordHeader;
use crate::domain::{OrgId, Timestamp};
use crate::queue::PublishError;
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// The timeline gets an entry after this many bytes, or after this much time, whichever comes
/// first.
const TIMELINE_BYTES: u64 = 64 << 10;
const TIMELINE_SPAN: Duration = Duration::from_secs(1);

/// Counts from the oldest event that is not acked to the end of what was taken, written or not.
#[derive(Debug, Default)]
pub(super) struct Usage {
    start: u64,
    end: u64,
    events: u64,
    by_org: HashMap<OrgId, u64>,
    /// When events at some positions were received, so that the oldest one's time is known without
    /// reading the file.
    timeline: VecDeque<(u64, Timestamp)>,
}

impl Usage {
    pub fn starting_at(start: u64) -> Self {
        Self {
            start,
            end: start,
            ..Self::default()
        }
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// Bytes of the log from the oldest unacked event on. An event that stays unacked holds
    /// everything behind it, as it does on the disk.
    pub fn held(&self) -> u64 {
        self.end - self.start
    }

    /// When the oldest event that is not acked was received, to the second.
    pub fn oldest_received_at(&self) -> Option<Timestamp> {
        if self.events == 0 {
            return None;
        }
        self.timeline.front().map(|(_, received_at)| *received_at)
    }

    /// Whether there is room for a record of this organisation (invariant 22).
    pub fn admit(&self, org: OrgId, record_bytes: u64, bytes_max: u64) -> Result<(), PublishError> {
        if self.held() + record_bytes > bytes_max {
            return Err(PublishError::Full {
                bytes: self.held(),
                bytes_max,
            });
        }
        if self.held() > bytes_max / 2 {
            let bytes = self.by_org.get(&org).copied().unwrap_or(0);
            if bytes > bytes_max / 10 {
                return Err(PublishError::OverShare { org, bytes });
            }
        }
        Ok(())
    }

    /// Counts a record at the end.
    pub fn add(&mut self, record: &RecordHeader) {
        let bytes = record.record_bytes();
        let entry = (self.end, record.received_at);
        let wanted = self.timeline.back().is_none_or(|(position, received_at)| {
            self.end - position >= TIMELINE_BYTES
                || record
                    .received_at
                    .since(*received_at)
                    .max(received_at.since(record.received_at))
                    >= TIMELINE_SPAN
        });
        if wanted {
            self.timeline.push_back(entry);
        }
        self.end += bytes;
        self.events += 1;
        *self.by_org.entry(record.org).or_default() += bytes;
    }

    /// Takes the last records out of the count: they were not written.
    pub fn remove_last(&mut self, records: impl Iterator<Item = (OrgId, u64)>) {
        for (org, bytes) in records {
            self.end -= bytes;
            self.release(org, bytes);
        }
        while self.timeline.back().is_some_and(|(position, _)| *position >= self.end) {
            self.timeline.pop_back();
        }
    }

    /// One event was acked.
    pub fn release(&mut self, org: OrgId, bytes: u64) {
        self.events = self.events.saturating_sub(1);
        if let Some(held) = self.by_org.get_mut(&org) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.by_org.remove(&org);
            }
        }
    }

    /// Everything before `start` is acked.
    pub fn advance(&mut self, start: u64) {
        self.start = start.clamp(self.start, self.end);
        while self
            .timeline
            .get(1)
            .is_some_and(|(position, _)| *position <= self.start)
        {
            self.timeline.pop_front();
        }
        if self.start == self.end {
            self.timeline.clear();
        }
    }

    /// Passes over a hole that a segment left when it was moved away.
    pub fn skip_to(&mut self, end: u64) {
        if self.events == 0 {
            self.start = end;
        }
        self.end = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EventId;
    use uuid::Uuid;

    const BYTES_MAX: u64 = 100_000;

    fn org(n: u128) -> OrgId {
        OrgId::from_uuid(Uuid::from_u128(n))
    }

    fn record(n: u128, bytes: u64, second: i64) -> RecordHeader {
        RecordHeader {
            length: u32::try_from(bytes - super::super::format::RECORD_HEADER as u64).unwrap(),
            group: 0,
            id: EventId::generate(),
            org: org(n),
            received_at: Timestamp::from_seconds(second),
            payload_checksum: 0,
        }
    }

    fn filled(records: &[(u128, u64)]) -> Usage {
        let mut usage = Usage::starting_at(1_000);
        for (n, bytes) in records {
            usage.add(&record(*n, *bytes, 0));
        }
        usage
    }

    #[test]
    fn the_limit_is_exact() {
        let usage = filled(&[(1, 9_000), (2, 40_000)]);
        assert!(usage.admit(org(3), 51_000, BYTES_MAX).is_ok());
        assert!(matches!(
            usage.admit(org(3), 51_001, BYTES_MAX),
            Err(PublishError::Full { bytes: 49_000, .. })
        ));
    }

    #[test]
    fn a_share_counts_only_above_half_and_over_a_tenth() {
        // (what the first and the others hold, whether the first may have more)
        for (first, others, taken) in [
            (50_000, 0, true),
            (50_001, 0, false),
            (10_000, 50_000, true),
            (10_001, 50_000, false),
            (10_001, 39_999, true),
            (10_001, 40_000, false),
        ] {
            let usage = filled(&if others == 0 {
                vec![(1, first)]
            } else {
                vec![(1, first), (2, others)]
            });
            assert_eq!(
                usage.admit(org(1), 100, BYTES_MAX).is_ok(),
                taken,
                "{first} and {others}"
            );
            assert!(usage.admit(org(3), 100, BYTES_MAX).is_ok(), "others go on");
        }
    }

    #[test]
    fn what_is_taken_back_leaves_no_trace() {
        let mut usage = filled(&[(1, 9_000)]);
        for n in 0..5 {
            usage.add(&record(2, 1_000, n * 10));
        }
        usage.remove_last(std::iter::repeat_n((org(2), 1_000), 5));
        assert_eq!(
            (usage.held(), usage.events(), usage.by_org.len(), usage.timeline.len()),
            (9_000, 1, 1, 1)
        );
    }

    #[test]
    fn the_timeline_is_sparse_and_ends_with_the_events() {
        let mut usage = Usage::starting_at(0);
        for _ in 0..1_000 {
            usage.add(&record(1, 1_000, 5));
        }
        assert!(
            usage.timeline.len() <= 16,
            "{} places for a megabyte",
            usage.timeline.len()
        );
        for _ in 0..1_000 {
            usage.release(org(1), 1_000);
        }
        usage.advance(1_000_000);
        assert_eq!(
            (
                usage.oldest_received_at(),
                usage.timeline.len(),
                usage.by_org.len(),
                usage.held()
            ),
            (None, 0, 0, 0)
        );
    }
}
