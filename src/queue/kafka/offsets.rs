//! The progress of a consumer in one partition, and the offset that it may commit.
//!
//! Pure: no clock, no client. **Invariant:** the watermark is the lowest unfinished event, so a
//! committed offset never passes an event that is not acked.

use crate::domain::Timestamp;
use std::collections::BTreeMap;

/// One partition while this process reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Every offset from here on was never fetched by this process.
    fetched: i64,
    /// Events that are fetched and not acked, by offset, with the time of receipt where the event
    /// could be read. Any other offset below `fetched` is acked, or was never in the log.
    unfinished: BTreeMap<i64, Option<Timestamp>>,
}

impl Progress {
    pub fn starting_at(offset: i64) -> Self {
        Self {
            fetched: offset,
            unfinished: BTreeMap::new(),
        }
    }

    /// Records a fetched event. `false`: it is acked already and is not handed out again.
    pub fn fetch(&mut self, offset: i64, received_at: Option<Timestamp>) -> bool {
        if offset < self.fetched {
            return self.unfinished.contains_key(&offset);
        }
        self.unfinished.insert(offset, received_at);
        self.fetched = offset + 1;
        true
    }

    /// `false`: the event was acked before, or was never handed out.
    pub fn ack(&mut self, offset: i64) -> bool {
        self.unfinished.remove(&offset).is_some()
    }

    /// The lowest unfinished event; the first event that was never fetched where all are finished.
    /// The only offset that may be committed.
    pub fn watermark(&self) -> i64 {
        self.unfinished
            .first_key_value()
            .map_or(self.fetched, |(offset, _)| *offset)
    }

    pub const fn fetched(&self) -> i64 {
        self.fetched
    }

    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// When the lowest unfinished event was received.
    pub fn oldest_received_at(&self) -> Option<Timestamp> {
        self.unfinished.first_key_value().and_then(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(fetched: &[i64], acked: &[i64]) -> Progress {
        let mut progress = Progress::starting_at(10);
        for offset in fetched {
            progress.fetch(*offset, Some(Timestamp::from_seconds(*offset)));
        }
        for offset in acked {
            progress.ack(*offset);
        }
        progress
    }

    #[test]
    fn the_watermark_is_the_lowest_unfinished_event() {
        let table: &[(&str, &[i64], &[i64], i64)] = &[
            ("nothing fetched", &[], &[], 10),
            ("nothing acked", &[10, 11, 12], &[], 10),
            ("the first acked", &[10, 11, 12], &[10], 11),
            ("a gap in the acks", &[10, 11, 12, 13], &[10, 12, 13], 11),
            ("the last acked first", &[10, 11, 12], &[12], 10),
            ("the gap closes", &[10, 11, 12], &[12, 10, 11], 13),
            ("all acked", &[10, 11], &[10, 11], 12),
            ("acked twice", &[10, 11], &[10, 10], 11),
            ("an ack of an event that was never fetched", &[10, 11], &[12], 10),
            ("an ack below the start", &[10, 11], &[9], 10),
            ("offsets missing in the log", &[15, 20], &[15], 20),
            ("the log begins later than the start", &[15], &[], 15),
        ];
        for (case, fetched, acked, watermark) in table {
            assert_eq!(after(fetched, acked).watermark(), *watermark, "{case}");
        }
    }

    #[test]
    fn an_acked_event_that_is_fetched_again_is_passed_over() {
        let mut progress = after(&[10, 11, 12], &[11]);
        assert!(progress.fetch(10, None));
        assert!(!progress.fetch(11, None));
        assert!(progress.fetch(12, None));
        assert!(progress.fetch(13, None));
        assert_eq!(
            (progress.watermark(), progress.unfinished(), progress.fetched()),
            (10, 3, 14)
        );
    }

    #[test]
    fn the_oldest_is_the_lowest_unfinished_one() {
        assert_eq!(after(&[], &[]).oldest_received_at(), None);
        assert_eq!(
            after(&[10, 11, 12], &[10]).oldest_received_at(),
            Some(Timestamp::from_seconds(11))
        );
    }

    proptest! {
        #[test]
        fn no_order_of_acks_passes_an_unfinished_event(
            count in 1..60_i64,
            acks in proptest::collection::vec(0..60_i64, 0..90),
        ) {
            let mut progress = Progress::starting_at(0);
            for offset in 0..count {
                progress.fetch(offset, None);
            }
            for ack in &acks {
                progress.ack(*ack);
            }
            let expected = (0..count).find(|offset| !acks.contains(offset)).unwrap_or(count);
            prop_assert_eq!(progress.watermark(), expected);
        }
    }
}
