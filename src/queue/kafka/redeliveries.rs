//! How often events were delivered in vain. Kafka does not count, so the group's metadata beside a
//! committed offset does.
//!
//! The consumer that gets the first event from the committed offset on commits that offset again,
//! with a count that is one higher. A commit of a later offset has no count: it begins anew.

use super::lock;
use crate::queue::DELIVERED_AHEAD_MAX;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::KafkaResult,
    topic_partition_list::TopicPartitionListElem,
};
use std::{collections::HashMap, sync::Mutex};

#[derive(Default)]
pub(super) struct Redeliveries(Mutex<HashMap<i32, Begun>>);

/// How the assignment of a partition began.
struct Begun {
    /// Consumers that had events from this committed offset on and moved it no further.
    in_vain: u32,
    first: Option<i64>,
}

impl Redeliveries {
    pub fn assign(&self, partition: i32, committed: Option<&TopicPartitionListElem<'_>>) {
        let in_vain = committed.and_then(|element| element.metadata().parse().ok());
        let in_vain = in_vain.unwrap_or(0);
        lock(&self.0).insert(partition, Begun { in_vain, first: None });
    }

    /// How often earlier consumers may have had the event. Waits for the broker at the first event
    /// of an assignment, so that a worker that ends at once was counted. `is_noted` hears of the
    /// commit: the same offset must not be committed again without its count.
    pub fn of<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        topic: &str,
        (partition, offset): (i32, i64),
        is_noted: impl FnOnce(),
    ) -> u32 {
        let mut all = lock(&self.0);
        let Some(begun) = all.get_mut(&partition) else {
            return 0;
        };
        let in_vain = begun.in_vain;
        if begun.first.is_none() {
            match note(consumer, topic, (partition, offset), in_vain.saturating_add(1)) {
                Ok(()) => is_noted(),
                Err(error) => tracing::debug!(%error, "A delivery cannot be counted"),
            }
        }
        let first = *begun.first.get_or_insert(offset);
        if offset < first + i64::from(DELIVERED_AHEAD_MAX) {
            in_vain
        } else {
            0
        }
    }
}

fn note<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    (partition, offset): (i32, i64),
    in_vain: u32,
) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(topic, partition);
    element.set_offset(Offset::Offset(offset))?;
    element.set_metadata(in_vain.to_string());
    consumer.commit(&list, CommitMode::Sync)
}
