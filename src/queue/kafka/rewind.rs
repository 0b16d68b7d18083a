//! `recover`: the group goes back to a moment, so that what was planned since is delivered again.

use super::{KafkaSettings, url};
use crate::{domain::Timestamp, queue::ConnectError};
use rdkafka::{
    Offset, TopicPartitionList,
    config::FromClientConfig,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// Sets the group's offsets to the first events from `to` on, and never forward. Returns how many
/// events are delivered again. Without `is_done` it only counts. It blocks, so do not call it on a
/// thread of the runtime.
///
/// # Errors
/// The broker does not answer, or a worker is still in the group.
pub(super) fn rewind(link: &str, settings: &KafkaSettings, to: Timestamp, is_done: bool) -> Result<u64, ConnectError> {
    let mut config = url::client_config(link, settings)?;
    config
        .set("group.id", &settings.group)
        .set("enable.auto.commit", "false");
    rewound(&config, settings, to, is_done).map_err(|error| ConnectError::Broker {
        doing: "rewind the Kafka group",
        reason: match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::RebalanceInProgress) => {
                format!(
                    "a worker is still in the group {}; stop every worker, and run this again",
                    settings.group
                )
            }
            _ => format!("{error}; the database is recovered, so run this again when the broker answers"),
        },
    })
}

fn rewound(
    config: &rdkafka::ClientConfig,
    settings: &KafkaSettings,
    to: Timestamp,
    is_done: bool,
) -> Result<u64, KafkaError> {
    let consumer = BaseConsumer::from_config(config)?;
    let metadata = consumer.fetch_metadata(Some(&settings.topic), PATIENCE)?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == settings.topic) else {
        return Ok(0);
    };
    let (mut wanted, mut asked) = (TopicPartitionList::new(), TopicPartitionList::new());
    for partition in topic.partitions() {
        asked.add_partition(&settings.topic, partition.id());
        let millis = Offset::Offset(to.as_micros() / 1_000);
        wanted.add_partition_offset(&settings.topic, partition.id(), millis)?;
    }
    if wanted.count() == 0 {
        return Ok(0);
    }
    let committed = consumer.committed_offsets(asked, PATIENCE)?;
    let first_since = consumer.offsets_for_times(wanted, PATIENCE)?;
    let (mut back, mut events) = (TopicPartitionList::new(), 0);
    for element in first_since.elements() {
        let stands = committed
            .find_partition(&settings.topic, element.partition())
            .and_then(|found| number(found.offset()));
        // Without a committed offset the group begins at the start anyway; without an event since
        // there is nothing to deliver again.
        let (Some(stands), Some(first)) = (stands, number(element.offset())) else {
            continue;
        };
        if first < stands {
            events += stands.abs_diff(first);
            back.add_partition_offset(&settings.topic, element.partition(), Offset::Offset(first))?;
        }
    }
    if is_done && back.count() > 0 {
        consumer.commit(&back, CommitMode::Sync)?;
    }
    Ok(events)
}

fn number(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) if offset >= 0 => Some(offset),
        _ => None,
    }
}
