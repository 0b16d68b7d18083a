//! The state of each partition: its end, the group's committed offset, and this process's progress.
//!
//! Memory only. Producer, consumer and the periodic look write into it. **Invariant:** an ack
//! counts only for an event of a partition that this process holds, or held last in this process.

use super::offsets::Progress;
use crate::{domain::Timestamp, queue::DeliveryTag};
use std::collections::BTreeMap;

const OFFSET_BITS: u32 = 48;

/// Makes a tag of partition and offset, so that it means the same event after a restart.
pub(super) fn tag(partition: i32, offset: i64) -> DeliveryTag {
    DeliveryTag((u64::from(partition.unsigned_abs()) << OFFSET_BITS) | offset.unsigned_abs())
}

fn place(tag: DeliveryTag) -> (i32, i64) {
    let partition = i32::try_from(tag.0 >> OFFSET_BITS).unwrap_or(i32::MAX);
    let offset = i64::try_from(tag.0 & ((1 << OFFSET_BITS) - 1)).unwrap_or(i64::MAX);
    (partition, offset)
}

/// The result of a look at the broker, for one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked {
    pub start: i64,
    pub end: i64,
    /// `None`: the group has committed nothing.
    pub committed: Option<i64>,
}

#[derive(Debug, Default)]
struct Partition {
    start: i64,
    end: i64,
    /// The end at the last look. A look that finds a lower end is not an older look.
    end_at_look: i64,
    /// How far this process had fetched when the broker was asked last.
    fetched_at_look: Option<i64>,
    committed: Option<i64>,
    /// The commit that is on its way.
    requested: Option<i64>,
    /// When the event at this offset was received.
    head: Option<(i64, Timestamp)>,
    progress: Option<Progress>,
    is_assigned: bool,
}

impl Partition {
    /// The lowest event that is not acked, as far as this process knows.
    fn position(&self) -> i64 {
        let known = self.progress.as_ref().map(Progress::watermark).or(self.committed);
        known.map_or(self.start, |position| position.max(self.start))
    }

    fn unread(&self, from: i64) -> u64 {
        u64::try_from(self.end - from.max(self.start)).unwrap_or(0)
    }

    fn events(&self) -> u64 {
        match &self.progress {
            Some(progress) => progress.unfinished() as u64 + self.unread(progress.fetched()),
            None => self.unread(self.position()),
        }
    }

    fn oldest_received_at(&self) -> Option<Timestamp> {
        let unfinished = self.progress.as_ref().and_then(Progress::oldest_received_at);
        unfinished.or_else(|| {
            let (offset, at) = self.head?;
            (self.events() > 0 && offset == self.position()).then_some(at)
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Partitions {
    partitions: BTreeMap<i32, Partition>,
}

impl Partitions {
    /// A publish of this process was confirmed.
    pub fn published(&mut self, partition: i32, offset: i64, received_at: Timestamp) {
        let partition = self.partitions.entry(partition).or_default();
        if offset == partition.position() {
            partition.head = Some((offset, received_at));
        }
        partition.end = partition.end.max(offset + 1);
    }

    /// `true`: the log is shorter than this process has read, so the topic was made anew.
    pub fn looked(&mut self, partition: i32, looked: Looked) -> bool {
        let partition = self.partitions.entry(partition).or_default();
        partition.start = looked.start;
        // A look that began before a publish was confirmed knows less than this process. A lower
        // end without any publish since the look before means that the topic was made anew.
        partition.end = if looked.end < partition.end && partition.end == partition.end_at_look {
            looked.end
        } else {
            partition.end.max(looked.end)
        };
        partition.end_at_look = partition.end;
        let fetched = partition.progress.as_ref().map(Progress::fetched);
        if partition.is_assigned {
            // Events that were fetched after the look began prove nothing.
            let before = std::mem::replace(&mut partition.fetched_at_look, fetched);
            return fetched.is_some_and(|fetched| fetched > looked.end && before == Some(fetched));
        }
        partition.committed = looked.committed;
        let watermark = partition.progress.as_ref().map(Progress::watermark);
        if watermark.is_some_and(|watermark| looked.committed.is_some_and(|committed| committed > watermark)) {
            // Another process has moved on from this offset.
            partition.progress = None;
        }
        false
    }

    /// The group gave this partition to this process. Earlier acks of this process count only where
    /// the committed offset has not moved since, because an operator may have rewound the group.
    pub fn assign(&mut self, partition: i32, committed: Option<i64>) {
        let partition = self.partitions.entry(partition).or_default();
        partition.committed = committed;
        partition.requested = None;
        partition.is_assigned = true;
        let kept = partition
            .progress
            .take()
            .filter(|kept| committed == Some(kept.watermark()));
        let start = committed.unwrap_or(partition.start);
        partition.progress = Some(kept.unwrap_or_else(|| Progress::starting_at(start)));
    }

    /// The group took this partition away: its tags are forgotten, and acks of them do nothing.
    pub fn revoke(&mut self, partition: i32) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.is_assigned = false;
            partition.progress = None;
        }
    }

    /// This process left the group. Acks are kept for a consumer that it may begin next.
    pub fn leave(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.is_assigned = false;
        }
    }

    /// The topic is gone: its offsets mean nothing in a topic that is made anew.
    pub fn reset(&mut self) {
        self.partitions.clear();
    }

    /// `false`: not to be handed out, since it is acked already or its partition is not ours.
    pub fn fetch(&mut self, partition: i32, offset: i64, received_at: Option<Timestamp>) -> bool {
        let Some(partition) = self.partitions.get_mut(&partition).filter(|it| it.is_assigned) else {
            return false;
        };
        partition.end = partition.end.max(offset + 1);
        let progress = partition.progress.as_mut();
        progress.is_some_and(|progress| progress.fetch(offset, received_at))
    }

    /// An unknown tag is no error: its partition may have been taken away since.
    pub fn ack(&mut self, tag: DeliveryTag) {
        let (partition, offset) = place(tag);
        if let Some(progress) = self.partitions.get_mut(&partition).and_then(|it| it.progress.as_mut()) {
            progress.ack(offset);
        }
    }

    /// Offsets to commit, which are marked as under way: those that moved, or with `all` each that
    /// the broker lacks.
    pub fn take_offsets(&mut self, all: bool) -> Vec<(i32, i64)> {
        let mut offsets = Vec::new();
        for (id, partition) in self.partitions.iter_mut().filter(|(_, it)| it.is_assigned) {
            let Some(watermark) = partition.progress.as_ref().map(Progress::watermark) else {
                continue;
            };
            let known = if all {
                partition.committed
            } else {
                partition.requested.or(partition.committed)
            };
            let is_news = known.map_or(all || watermark > partition.start, |known| watermark > known);
            if is_news {
                partition.requested = Some(watermark);
                offsets.push((*id, watermark));
            }
        }
        offsets
    }

    /// The broker answered a commit. After a failure the offset is committed again.
    pub fn committed(&mut self, partition: i32, offset: Option<i64>) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.committed = offset.or(partition.committed);
            if offset.is_none() {
                partition.requested = None;
            }
        }
    }

    /// Events of these partitions that were handed out or fetched, and are not acked.
    pub fn unfinished(&self, partitions: &[i32]) -> usize {
        let progress = partitions
            .iter()
            .filter_map(|id| self.partitions.get(id)?.progress.as_ref());
        progress.map(Progress::unfinished).sum()
    }

    /// Partitions of this process with events that it has not fetched, and how far it has.
    pub fn behind(&self) -> Vec<(i32, i64)> {
        let assigned = self.partitions.iter().filter(|(_, it)| it.is_assigned);
        assigned
            .filter_map(|(id, partition)| {
                let fetched = partition.progress.as_ref()?.fetched();
                (partition.unread(fetched) > 0).then_some((*id, fetched))
            })
            .collect()
    }

    /// Positions whose event's time of receipt is not known yet.
    pub fn heads_wanted(&self) -> Vec<(i32, i64)> {
        self.partitions
            .iter()
            .filter(|(_, it)| it.events() > 0 && it.oldest_received_at().is_none())
            .map(|(id, partition)| (*id, partition.position()))
            .collect()
    }

    pub fn set_head(&mut self, partition: i32, offset: i64, received_at: Timestamp) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.head = Some((offset, received_at));
        }
    }

    pub fn events(&self) -> u64 {
        self.partitions.values().map(Partition::events).sum()
    }

    pub fn oldest_received_at(&self) -> Option<Timestamp> {
        self.partitions.values().filter_map(Partition::oldest_received_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn looked(start: i64, end: i64, committed: Option<i64>) -> Looked {
        Looked { start, end, committed }
    }

    /// One partition with offsets 0 to 5, of which 0 to 3 were fetched.
    fn fetched_four_of_six() -> Partitions {
        let mut partitions = Partitions::default();
        partitions.looked(0, looked(0, 6, None));
        partitions.assign(0, None);
        for offset in 0..4 {
            assert!(partitions.fetch(0, offset, Some(at(100 + offset))));
        }
        partitions
    }

    #[test]
    fn a_tag_names_partition_and_offset() {
        for (partition, offset) in [(0, 0), (3, 7), (65_535, (1 << OFFSET_BITS) - 1)] {
            assert_eq!(place(tag(partition, offset)), (partition, offset));
        }
        assert!(tag(1, 4) < tag(1, 5));
    }

    #[test]
    fn events_are_counted_whoever_holds_the_partition() {
        let mut partitions = Partitions::default();
        partitions.looked(0, looked(0, 10, Some(4)));
        partitions.looked(1, looked(5, 8, None));
        assert_eq!(partitions.events(), 6 + 3);
        partitions.published(1, 8, at(50));
        assert_eq!(partitions.events(), 10);
        let mut partitions = fetched_four_of_six();
        assert_eq!(partitions.events(), 6);
        partitions.ack(tag(0, 2));
        partitions.ack(tag(0, 2));
        partitions.ack(tag(0, 9));
        partitions.ack(tag(7, 0));
        assert_eq!(
            (partitions.events(), partitions.oldest_received_at()),
            (5, Some(at(100)))
        );
    }

    #[test]
    fn only_the_contiguous_prefix_is_committed() {
        let mut partitions = fetched_four_of_six();
        assert_eq!(partitions.take_offsets(false), []);
        for offset in [0, 1, 3] {
            partitions.ack(tag(0, offset));
        }
        assert_eq!(partitions.take_offsets(false), [(0, 2)]);
        assert_eq!(partitions.take_offsets(false), [], "it is on its way");
        partitions.committed(0, None);
        assert_eq!(partitions.take_offsets(false), [(0, 2)], "the commit failed");
        partitions.committed(0, Some(2));
        assert_eq!(partitions.take_offsets(true), []);
        partitions.ack(tag(0, 2));
        assert_eq!(partitions.take_offsets(true), [(0, 4)]);
    }

    #[test]
    fn a_revoked_partition_is_forgotten_and_its_acks_do_nothing() {
        let mut partitions = fetched_four_of_six();
        partitions.ack(tag(0, 0));
        partitions.revoke(0);
        partitions.ack(tag(0, 1));
        assert_eq!(partitions.take_offsets(true), []);
        assert!(
            !partitions.fetch(0, 4, None),
            "a late message of a partition that is not ours"
        );
        // Another process went on to 3 meanwhile.
        partitions.assign(0, Some(3));
        partitions.ack(tag(0, 1));
        assert!(partitions.fetch(0, 3, None));
        assert_eq!(partitions.take_offsets(true), []);
        assert_eq!(partitions.events(), 3);
    }

    #[test]
    fn acks_are_kept_for_the_next_consumer_of_this_process_only_where_nothing_moved() {
        let left = || {
            let mut partitions = fetched_four_of_six();
            partitions.ack(tag(0, 1));
            assert_eq!(
                partitions.take_offsets(true),
                [(0, 0)],
                "the place is marked although it is the start"
            );
            partitions.committed(0, Some(0));
            partitions.leave();
            partitions
        };
        let mut same = left();
        same.assign(0, Some(0));
        assert!(same.fetch(0, 0, None) && !same.fetch(0, 1, None) && same.fetch(0, 2, None));
        for (case, committed) in [("made anew or expired", None), ("moved by another", Some(2))] {
            let mut moved = left();
            moved.assign(0, committed);
            assert!(moved.fetch(0, 2, None), "{case}");
            assert!(moved.fetch(0, 3, None), "{case}");
        }
        let mut taken_over = left();
        taken_over.looked(0, looked(0, 6, Some(4)));
        assert_eq!(taken_over.events(), 2);
    }

    #[test]
    fn a_log_that_is_shorter_than_what_was_read_was_made_anew() {
        let mut partitions = fetched_four_of_six();
        assert!(!partitions.looked(0, looked(0, 6, None)));
        assert!(!partitions.looked(0, looked(0, 4, None)), "all of it was read");
        assert!(partitions.looked(0, looked(0, 2, None)));
        let mut partitions = fetched_four_of_six();
        assert!(
            !partitions.looked(0, looked(0, 2, None)),
            "the look may be older than the reading"
        );
        partitions.fetch(0, 4, None);
        assert!(!partitions.looked(0, looked(0, 4, None)));
        assert!(partitions.looked(0, looked(0, 4, None)));
    }

    #[test]
    fn offsets_of_a_topic_that_is_gone_are_never_committed() {
        let mut partitions = fetched_four_of_six();
        partitions.ack(tag(0, 0));
        partitions.reset();
        partitions.ack(tag(0, 1));
        assert_eq!((partitions.take_offsets(true), partitions.events()), (vec![], 0));
    }

    #[test]
    fn a_look_that_is_older_than_a_publish_changes_no_end() {
        let mut partitions = Partitions::default();
        partitions.looked(0, looked(0, 2, None));
        partitions.published(0, 2, at(1));
        partitions.looked(0, looked(0, 2, None));
        assert_eq!(partitions.events(), 3);
        // The second look without a publish in between is believed: the topic was made anew.
        partitions.looked(0, looked(0, 1, None));
        assert_eq!(partitions.events(), 1);
    }

    #[test]
    fn the_age_of_what_nobody_has_fetched_comes_from_a_look_at_the_head() {
        let mut partitions = Partitions::default();
        partitions.looked(0, looked(0, 3, Some(1)));
        partitions.looked(1, looked(0, 3, Some(3)));
        assert_eq!(
            (partitions.oldest_received_at(), partitions.heads_wanted()),
            (None, vec![(0, 1)])
        );
        partitions.set_head(0, 1, at(70));
        assert_eq!(
            (partitions.oldest_received_at(), partitions.heads_wanted()),
            (Some(at(70)), vec![])
        );
        partitions.looked(0, looked(0, 3, Some(2)));
        assert_eq!(partitions.heads_wanted(), [(0, 2)]);
        partitions.published(1, 3, at(90));
        partitions.published(1, 4, at(95));
        assert_eq!(partitions.oldest_received_at(), Some(at(90)));
    }

    #[test]
    fn partitions_that_stand_still_are_known() {
        let mut partitions = fetched_four_of_six();
        partitions.looked(1, looked(0, 9, None));
        assert_eq!(partitions.behind(), [(0, 4)], "the other partition is not ours");
        partitions.fetch(0, 4, None);
        partitions.fetch(0, 5, None);
        assert_eq!(partitions.behind(), []);
    }
}
