//! The periodic look at the broker. It finds whether the topic exists, the end of each partition,
//! the group's committed offsets, and the age of the oldest event.
//!
//! A thread and a client of its own. **Invariant:** nothing else asks the broker for state, so that
//! [`super::KafkaQueue::state`] reads memory only.

use super::{
    MARGIN_BYTES, RETENTION_MIN, Shared, message,
    partitions::Looked,
    produce::{Publisher, on_a_thread},
    topic::{self, CreateError, TopicFacts},
};
use crate::queue::ConnectError;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::Message,
    metadata::{Metadata, MetadataPartition},
};
use std::{
    sync::{Arc, Mutex, Weak, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

const PERIOD: Duration = Duration::from_secs(5);
const PERIOD_AWAY: Duration = Duration::from_secs(1);

/// Time between the creation of a topic and the look that finds it.
const PERIOD_CREATED: Duration = Duration::from_millis(50);

/// One request.
const PATIENCE: Duration = Duration::from_secs(2);

type FirstLook = oneshot::Sender<Result<(), ConnectError>>;

struct Context {
    /// What librdkafka said of its last error.
    trouble: Mutex<Option<Trouble>>,
}

struct Trouble {
    /// The broker does not let this client in: a wrong password, a certificate.
    is_refusal: bool,
    reason: String,
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!("librdkafka: {facility} {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let is_refusal = matches!(code, Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL));
        let mut trouble = super::lock(&self.trouble);
        // Of a refusal follows that no broker is left: the refusal says more.
        if is_refusal || trouble.as_ref().is_none_or(|former| !former.is_refusal) {
            // The times that follow differ at each try, and would make each one news.
            let reason = reason.split(" (after ").next().unwrap_or(reason).to_owned();
            *trouble = Some(Trouble { is_refusal, reason });
        }
    }
}

impl ConsumerContext for Context {}

enum Look {
    Done,
    /// The topic was created a moment ago.
    Created,
    Away(String),
    /// Another try fails too, until a person changes something.
    Refused(String),
}

pub(super) struct Watch {
    shared: Arc<Shared>,
    publisher: Option<Weak<Publisher>>,
    consumer: BaseConsumer<Context>,
    facts: Option<TopicFacts>,
    /// The last trouble that was logged. The same trouble is logged once.
    trouble: Option<String>,
}

impl Watch {
    /// The receiver resolves with the first look that found the topic, or a refusal.
    pub fn start(
        shared: Arc<Shared>,
        publisher: Option<Weak<Publisher>>,
    ) -> Result<oneshot::Receiver<Result<(), ConnectError>>, ConnectError> {
        let mut config = shared.config.clone();
        config
            // It only asks for the group's offsets, and never joins.
            .set("group.id", &shared.settings.group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "64")
            .set("fetch.message.max.bytes", "65536");
        let context = Context {
            trouble: Mutex::default(),
        };
        let consumer =
            BaseConsumer::from_config_and_context(&config, context).map_err(|error| ConnectError::Broker {
                doing: "make a Kafka client",
                reason: error.to_string(),
            })?;
        let (sender, first_look) = oneshot::channel();
        let watch = Self {
            shared,
            publisher,
            consumer,
            facts: None,
            trouble: None,
        };
        on_a_thread("kafka-watch", move || watch.run(sender));
        Ok(first_look)
    }

    fn run(mut self, first_look: FirstLook) {
        let mut first_look = Some(first_look);
        while !self.shared.is_closed() {
            let seen = self.shared.wake.seen();
            let look = self.look().unwrap_or_else(|error| self.failure(&error));
            let is_reachable = matches!(look, Look::Done);
            self.shared.is_reachable.store(is_reachable, Ordering::Relaxed);
            let (trouble, period) = match look {
                Look::Done => (None, PERIOD),
                Look::Created => (None, PERIOD_CREATED),
                Look::Away(reason) => (Some(reason), PERIOD_AWAY),
                Look::Refused(reason) => {
                    if let Some(first_look) = first_look.take() {
                        let _ = first_look.send(Err(ConnectError::Broker {
                            doing: "use the Kafka topic",
                            reason: reason.clone(),
                        }));
                    }
                    (Some(reason), PERIOD_AWAY)
                }
            };
            if is_reachable && let Some(first_look) = first_look.take() {
                let _ = first_look.send(Ok(()));
            }
            self.say(trouble);
            self.shared.wake.wait(seen, period);
        }
    }

    fn say(&mut self, trouble: Option<String>) {
        if trouble != self.trouble {
            if let Some(reason) = &trouble {
                tracing::warn!("Kafka takes no events: {reason}");
            } else {
                tracing::info!("Kafka takes events again");
            }
            self.trouble = trouble;
        }
    }

    fn failure(&self, error: &KafkaError) -> Look {
        // The errors that explain the failure are events of the client, and only a poll reads them.
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until && self.consumer.poll(Duration::from_millis(10)).is_some() {}
        match super::lock(&self.consumer.context().trouble).take() {
            Some(trouble) if trouble.is_refusal => Look::Refused(trouble.reason),
            Some(trouble) => Look::Away(format!("{error}: {}", trouble.reason)),
            None => Look::Away(error.to_string()),
        }
    }

    fn look(&mut self) -> Result<Look, KafkaError> {
        let shared = self.shared.clone();
        let topic = &shared.settings.topic;
        let metadata = self.consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let Some(partitions) = partitions_of(&metadata, topic)? else {
            return Ok(
                match topic::create(&shared.config, &shared.settings, metadata.brokers().len()) {
                    Ok(()) => {
                        shared.topics_made.fetch_add(1, Ordering::Relaxed);
                        Look::Created
                    }
                    Err(CreateError::Refused(reason)) => Look::Refused(reason),
                    Err(CreateError::Later(reason)) => Look::Away(reason),
                },
            );
        };
        if shared.is_limit_old.swap(false, Ordering::Relaxed) || self.facts.is_none() {
            self.read_facts();
        }
        self.look_at(topic, &partitions)?;
        self.look_at_heads(topic);
        Ok(Look::Done)
    }

    fn look_at(&self, topic: &str, partitions: &[i32]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(topic, *partition);
        }
        let committed = self.consumer.committed_offsets(list, PATIENCE)?;
        for partition in partitions {
            let (start, end) = self.consumer.fetch_watermarks(topic, *partition, PATIENCE)?;
            let committed = committed
                .find_partition(topic, *partition)
                .map(|element| element.offset());
            let committed = match committed {
                Some(Offset::Offset(offset)) => Some(offset),
                _ => None,
            };
            let looked = Looked { start, end, committed };
            if self.shared.state().partitions.looked(*partition, looked) {
                tracing::warn!("The Kafka topic {topic} was deleted and made anew: it is read from its start");
                self.shared.topics_made.fetch_add(1, Ordering::Relaxed);
                // The state of its partitions is filled again when the new consumer begins.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads the first event that is not acked of each partition, for its age.
    fn look_at_heads(&self, topic: &str) {
        let wanted = self.shared.state().partitions.heads_wanted();
        if wanted.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(wanted.len());
        let listed = wanted
            .iter()
            .try_for_each(|(partition, offset)| list.add_partition_offset(topic, *partition, Offset::Offset(*offset)));
        if let Err(error) = listed.and_then(|()| self.consumer.assign(&list)) {
            tracing::debug!(%error, "The age of the oldest event cannot be read");
            return;
        }
        let mut missing = wanted;
        let until = Instant::now() + PATIENCE;
        while !missing.is_empty() && Instant::now() < until && !self.shared.is_closed() {
            let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let Some(index) = missing
                .iter()
                .position(|(partition, _)| *partition == message.partition())
            else {
                continue;
            };
            let (partition, position) = missing.swap_remove(index);
            let received_at = message::received_at(&message);
            self.shared
                .state()
                .partitions
                .set_head(partition, position, received_at);
        }
        let _ = self.consumer.unassign();
    }

    /// Compares the topic with the settings that the design needs. An error is ignored, because
    /// only the permission may be missing.
    fn read_facts(&mut self) {
        let settings = &self.shared.settings;
        let facts = match topic::describe(&self.shared.config, &settings.topic) {
            Ok(facts) => facts,
            Err(error) => {
                tracing::debug!(%error, "The settings of the Kafka topic cannot be read");
                TopicFacts::default()
            }
        };
        if facts.retention.is_some_and(|retention| retention < RETENTION_MIN) || facts.retention_bytes.is_some() {
            tracing::warn!(
                "The Kafka topic {} deletes events after less than 7 days, or by size: unread events may be lost",
                settings.topic
            );
        }
        if let Some(message_bytes_max) = facts.message_bytes_max {
            let fitting = message_bytes_max.saturating_sub(MARGIN_BYTES);
            if fitting < settings.event_bytes_max {
                tracing::error!(
                    "The Kafka topic {} takes messages of {message_bytes_max} bytes, and an event may have {}: events \
                     over {fitting} bytes get 413. Raise its max.message.bytes, or lower HOOKSWITCH_BODY_BYTES_MAX",
                    settings.topic,
                    settings.event_bytes_max
                );
                self.shared.event_bytes_max.store(fitting, Ordering::Relaxed);
            }
            self.shared.batch_bytes_max.fetch_min(fitting.max(1), Ordering::Relaxed);
            if let Some(publisher) = self.publisher.as_ref().and_then(Weak::upgrade) {
                publisher.fit();
            }
        }
        self.facts = Some(facts);
    }
}

/// `None`: there is no such topic.
fn partitions_of(metadata: &Metadata, topic: &str) -> Result<Option<Vec<i32>>, KafkaError> {
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Ok(None);
    };
    match found.error().map(RDKafkaErrorCode::from) {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Some(code) => return Err(KafkaError::MetadataFetch(code)),
        None => {}
    }
    let partitions: Vec<i32> = found.partitions().iter().map(MetadataPartition::id).collect();
    Ok((!partitions.is_empty()).then_some(partitions))
}
