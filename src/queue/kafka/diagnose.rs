//! The checks of `doctor` for the broker and its topic. They create nothing.

use super::{
    KafkaSettings, MARGIN_BYTES, RETENTION_MIN,
    topic::{self, TopicFacts},
    url,
};
use crate::telemetry::Diagnosis;
use rdkafka::{
    TopicPartitionList,
    config::FromClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// The shape of a topic, beside its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    partitions: usize,
    /// Of the partition that has the fewest.
    replicas: usize,
    /// Partitions without a leader now.
    leaderless: usize,
}

/// Asks the broker. It blocks, so do not call it on a thread of the runtime.
pub(super) fn diagnose(link: &str, settings: &KafkaSettings, is_dev: bool) -> Vec<Diagnosis> {
    let mut config = match url::client_config(link, settings) {
        Ok(config) => config,
        Err(error) => {
            return vec![Diagnosis::fail(
                "kafka settings",
                error.to_string(),
                "correct the setting",
            )];
        }
    };
    config.set("group.id", &settings.group);
    let asked = BaseConsumer::from_config(&config).and_then(|consumer| {
        let metadata = consumer.fetch_metadata(Some(&settings.topic), PATIENCE)?;
        Ok((consumer, metadata))
    });
    let (consumer, metadata) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            return vec![Diagnosis::fail(
                "kafka brokers",
                format!("no broker answers: {error}"),
                "start the broker, or correct HOOKSWITCH_QUEUE_URL and HOOKSWITCH_KAFKA_TLS and _SASL_…",
            )];
        }
    };
    let brokers = metadata.brokers().len();
    let mut found = vec![Diagnosis::ok("kafka brokers", format!("{brokers} answer or are known"))];
    let Some(shape) = shape(&metadata, &settings.topic) else {
        found.push(missing(settings, brokers).unless_dev(is_dev));
        return found;
    };
    let facts = topic::describe(&config, &settings.topic);
    found.extend(judge(
        shape,
        facts.as_ref().map_err(ToString::to_string),
        settings,
        is_dev,
    ));
    found.push(group(&consumer, settings, shape));
    found
}

fn shape(metadata: &Metadata, topic: &str) -> Option<Shape> {
    let found = metadata.topics().iter().find(|found| found.name() == topic)?;
    if found.error().is_some() || found.partitions().is_empty() {
        return None;
    }
    let partitions = found.partitions();
    Some(Shape {
        partitions: partitions.len(),
        replicas: partitions.iter().map(|it| it.replicas().len()).min().unwrap_or(0),
        leaderless: partitions.iter().filter(|it| it.leader() < 0).count(),
    })
}

fn missing(settings: &KafkaSettings, brokers: usize) -> Diagnosis {
    let topic = &settings.topic;
    let replicas = settings.replicas.map_or(brokers.min(topic::REPLICAS), usize::from);
    if replicas < 2 {
        return Diagnosis::fail(
            "kafka topic",
            format!("{topic} does not exist and would be created with {replicas} replica"),
            "run at least three brokers, and set HOOKSWITCH_KAFKA_REPLICAS=3",
        );
    }
    Diagnosis::warn(
        "kafka topic",
        format!("{topic} does not exist yet"),
        "nothing: a start creates it, where its user may create topics",
    )
}

fn judge(shape: Shape, facts: Result<&TopicFacts, String>, settings: &KafkaSettings, is_dev: bool) -> Vec<Diagnosis> {
    let mut found = vec![partitions(shape, settings)];
    match facts {
        Ok(facts) => found.extend([
            replicas(shape, facts, &settings.topic).unless_dev(is_dev),
            elections(facts, &settings.topic).unless_dev(is_dev),
            retention(facts, &settings.topic).unless_dev(is_dev),
            size(facts, settings),
        ]),
        Err(error) => found.push(Diagnosis::warn(
            "kafka topic settings",
            format!("the settings of {} cannot be read: {error}", settings.topic),
            "let the user describe the topic's configuration (the ACL DescribeConfigs)",
        )),
    }
    found
}

fn partitions(shape: Shape, settings: &KafkaSettings) -> Diagnosis {
    let (topic, count) = (&settings.topic, shape.partitions);
    if shape.leaderless > 0 {
        return Diagnosis::fail(
            "kafka topic",
            format!(
                "{} of the {count} partitions of {topic} have no leader: nothing can be written there",
                shape.leaderless
            ),
            "bring back the brokers that hold them",
        );
    }
    Diagnosis::ok(
        "kafka topic",
        format!("{topic} has {count} partitions: as many workers can share it"),
    )
}

fn alter(topic: &str, setting: &str) -> String {
    format!("kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {setting}")
}

fn replicas(shape: Shape, facts: &TopicFacts, topic: &str) -> Diagnosis {
    const CHECK: &str = "kafka in-sync replicas";
    let (replicas, in_sync) = (shape.replicas, facts.min_insync_replicas.unwrap_or(1));
    if replicas < 2 {
        return Diagnosis::fail(
            CHECK,
            format!("{topic} has {replicas} replica: an event that was confirmed dies with one disk"),
            "move the topic to three replicas (kafka-reassign-partitions.sh)",
        );
    }
    if in_sync < 2 {
        return Diagnosis::fail(
            CHECK,
            format!("min.insync.replicas of {topic} is {in_sync}: a confirm may stand on one broker only"),
            alter(topic, "min.insync.replicas=2"),
        );
    }
    if usize::try_from(in_sync).is_ok_and(|in_sync| replicas <= in_sync) {
        return Diagnosis::warn(
            CHECK,
            format!("{topic} has {replicas} replicas and needs {in_sync} in sync: one broker away stops publishing"),
            "give the topic one more replica (kafka-reassign-partitions.sh)",
        );
    }
    Diagnosis::ok(CHECK, format!("{replicas} replicas, a confirm stands on {in_sync}"))
}

fn elections(facts: &TopicFacts, topic: &str) -> Diagnosis {
    const CHECK: &str = "kafka leader election";
    if facts.elects_unclean_leaders {
        return Diagnosis::fail(
            CHECK,
            format!("{topic} elects leaders that lack confirmed events"),
            alter(topic, "unclean.leader.election.enable=false"),
        );
    }
    Diagnosis::ok(CHECK, "only replicas in sync become leaders")
}

fn retention(facts: &TopicFacts, topic: &str) -> Diagnosis {
    const CHECK: &str = "kafka retention";
    if facts.is_compacted {
        return Diagnosis::fail(
            CHECK,
            format!("{topic} is compacted: of each subject only the last event stays"),
            alter(topic, "cleanup.policy=delete"),
        );
    }
    if let Some(bytes) = facts.retention_bytes {
        return Diagnosis::fail(
            CHECK,
            format!("{topic} deletes events above {bytes} bytes a partition, read or not"),
            alter(topic, "retention.bytes=-1"),
        );
    }
    match facts.retention {
        Some(retention) if retention < RETENTION_MIN => Diagnosis::fail(
            CHECK,
            format!(
                "{topic} deletes events after {} hours, read or not",
                retention.as_secs() / 3600
            ),
            alter(topic, "retention.ms=604800000"),
        ),
        Some(retention) => Diagnosis::ok(CHECK, format!("{} days", retention.as_secs() / 86_400)),
        None => Diagnosis::ok(CHECK, "events are kept for ever"),
    }
}

fn size(facts: &TopicFacts, settings: &KafkaSettings) -> Diagnosis {
    const CHECK: &str = "kafka message size";
    let wanted = settings.event_bytes_max + MARGIN_BYTES;
    match facts.message_bytes_max {
        Some(bytes_max) if bytes_max < wanted => Diagnosis::warn(
            CHECK,
            format!(
                "{} takes messages of {bytes_max} bytes, events may have {}: larger ones get 413",
                settings.topic, settings.event_bytes_max
            ),
            alter(&settings.topic, &format!("max.message.bytes={wanted}")),
        ),
        Some(bytes_max) => Diagnosis::ok(CHECK, format!("{bytes_max} bytes, more than an event may have")),
        None => Diagnosis::ok(CHECK, "the broker does not say"),
    }
}

fn group(consumer: &BaseConsumer, settings: &KafkaSettings, shape: Shape) -> Diagnosis {
    const CHECK: &str = "kafka group";
    match lag(consumer, settings, shape) {
        Ok(lag) => Diagnosis::ok(CHECK, format!("{} has {lag} events left to plan", settings.group)),
        Err(error) => Diagnosis::warn(
            CHECK,
            format!("the offsets of {} cannot be read: {error}", settings.group),
            "let the user read the group (the ACLs Read and Describe)",
        ),
    }
}

fn lag(consumer: &BaseConsumer, settings: &KafkaSettings, shape: Shape) -> Result<i64, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(shape.partitions);
    let last = i32::try_from(shape.partitions).map_err(|_| KafkaError::OffsetFetch(RDKafkaErrorCode::Fail))? - 1;
    list.add_partition_range(&settings.topic, 0, last);
    let committed = consumer.committed_offsets(list, PATIENCE)?;
    let mut lag = 0;
    for element in committed.elements() {
        let (start, end) = consumer.fetch_watermarks(&settings.topic, element.partition(), PATIENCE)?;
        lag += end
            - element
                .offset()
                .to_raw()
                .filter(|raw| *raw >= 0)
                .unwrap_or(start)
                .max(start);
    }
    Ok(lag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Verdict;

    const SOUND: Shape = Shape {
        partitions: 12,
        replicas: 3,
        leaderless: 0,
    };

    fn sound() -> TopicFacts {
        TopicFacts {
            min_insync_replicas: Some(2),
            retention: Some(RETENTION_MIN),
            retention_bytes: None,
            message_bytes_max: Some(64 << 20),
            elects_unclean_leaders: false,
            is_compacted: false,
        }
    }

    /// Checks that do not say ok.
    fn objections(shape: Shape, facts: &TopicFacts, is_dev: bool) -> Vec<(&'static str, Verdict)> {
        judge(shape, Ok(facts), &KafkaSettings::default(), is_dev)
            .into_iter()
            .filter(|diagnosis| diagnosis.status != Verdict::Ok)
            .map(|diagnosis| {
                assert!(!diagnosis.cure.is_empty(), "{diagnosis:?}");
                (diagnosis.check, diagnosis.status)
            })
            .collect()
    }

    #[test]
    fn a_sound_topic_has_no_objection() {
        assert_eq!(objections(SOUND, &sound(), false), []);
    }

    #[test]
    fn each_wrong_setting_is_an_objection() {
        let shape = |replicas, leaderless| Shape {
            replicas,
            leaderless,
            ..SOUND
        };
        let facts = |change: fn(&mut TopicFacts)| {
            let mut facts = sound();
            change(&mut facts);
            facts
        };
        let table = [
            (shape(1, 0), sound(), "kafka in-sync replicas", Verdict::Fail),
            (shape(2, 0), sound(), "kafka in-sync replicas", Verdict::Warn),
            (shape(3, 1), sound(), "kafka topic", Verdict::Fail),
            (
                SOUND,
                facts(|it| it.min_insync_replicas = Some(1)),
                "kafka in-sync replicas",
                Verdict::Fail,
            ),
            (
                SOUND,
                facts(|it| it.elects_unclean_leaders = true),
                "kafka leader election",
                Verdict::Fail,
            ),
            (
                SOUND,
                facts(|it| it.retention = Some(Duration::from_hours(24))),
                "kafka retention",
                Verdict::Fail,
            ),
            (
                SOUND,
                facts(|it| it.retention_bytes = Some(1 << 30)),
                "kafka retention",
                Verdict::Fail,
            ),
            (
                SOUND,
                facts(|it| it.is_compacted = true),
                "kafka retention",
                Verdict::Fail,
            ),
            (
                SOUND,
                facts(|it| it.message_bytes_max = Some(1 << 20)),
                "kafka message size",
                Verdict::Warn,
            ),
        ];
        for (shape, facts, check, verdict) in table {
            assert_eq!(
                objections(shape, &facts, false),
                [(check, verdict)],
                "{shape:?} {facts:?}"
            );
        }
    }

    #[test]
    fn one_broker_is_enough_for_development() {
        let one = Shape { replicas: 1, ..SOUND };
        assert_eq!(
            objections(one, &sound(), true),
            [("kafka in-sync replicas", Verdict::Warn)]
        );
    }

    #[test]
    fn settings_that_cannot_be_read_are_said() {
        let found = judge(SOUND, Err("refused".to_owned()), &KafkaSettings::default(), false);
        assert_eq!(
            found.last().map(|it| (it.check, it.status)),
            Some(("kafka topic settings", Verdict::Warn))
        );
    }

    #[test]
    fn a_missing_topic_is_judged_by_the_replicas_that_it_would_get() {
        let settings = KafkaSettings::default();
        assert_eq!(missing(&settings, 1).status, Verdict::Fail);
        assert_eq!(missing(&settings, 3).status, Verdict::Warn);
    }
}
