//! The topic: creates it where it is missing, and reads its settings.

use super::{HEADROOM_BYTES, KafkaSettings};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ConfigEntry, NewTopic, ResourceSpecifier, TopicReplication},
    config::FromClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
};
use std::{collections::HashMap, future::Future, time::Duration};

const PATIENCE: Duration = Duration::from_secs(2);

/// Replicas of a topic that is created here, where the cluster has as many brokers.
pub(super) const REPLICAS: usize = 3;

/// The settings of a topic that durability depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicFacts {
    pub min_insync_replicas: Option<u32>,
    /// `None`: for ever.
    pub retention: Option<Duration>,
    /// `None`: no limit.
    pub retention_bytes: Option<u64>,
    pub message_bytes_max: Option<usize>,
    pub elects_unclean_leaders: bool,
    pub is_compacted: bool,
}

/// Why there is no topic yet.
pub(super) enum CreateError {
    /// The broker refuses, and would refuse again.
    Refused(String),
    /// It may be tried again.
    Later(String),
}

impl From<KafkaError> for CreateError {
    fn from(error: KafkaError) -> Self {
        Self::Later(error.to_string())
    }
}

/// Creates the topic. One that is there already is left as it is.
pub(super) fn create(config: &ClientConfig, settings: &KafkaSettings, brokers: usize) -> Result<(), CreateError> {
    let fitting = REPLICAS.min(brokers.max(1));
    let replicas = settings.replicas.map_or(fitting, usize::from);
    let retention_ms = settings.retention.as_millis().to_string();
    let message_bytes_max = (settings.event_bytes_max + HEADROOM_BYTES).to_string();
    let replication = i32::try_from(replicas).unwrap_or(i32::MAX);
    let topic = NewTopic::new(
        &settings.topic,
        i32::from(settings.partitions),
        TopicReplication::Fixed(replication),
    )
    .set("cleanup.policy", "delete")
    .set("retention.ms", &retention_ms)
    // A limit by bytes would delete events that a long pause left unread.
    .set("retention.bytes", "-1")
    .set("max.message.bytes", &message_bytes_max)
    .set("unclean.leader.election.enable", "false")
    .set("min.insync.replicas", if replicas > 1 { "2" } else { "1" });
    let admin = AdminClient::from_config(config)?;
    let results = wait_for(admin.create_topics(&[topic], &options()))?;
    if let Some(Err((name, code))) = results.into_iter().next() {
        return refusal(&name, code);
    }
    tracing::info!(
        "Created the Kafka topic {} with {} partitions and {replicas} replicas",
        settings.topic,
        settings.partitions
    );
    Ok(())
}

fn refusal(topic: &str, code: RDKafkaErrorCode) -> Result<(), CreateError> {
    let reason = format!("{topic}: {code}");
    match code {
        RDKafkaErrorCode::TopicAlreadyExists => Ok(()),
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::InvalidReplicationFactor
        | RDKafkaErrorCode::InvalidPartitions
        | RDKafkaErrorCode::InvalidTopic
        | RDKafkaErrorCode::InvalidConfig
        | RDKafkaErrorCode::PolicyViolation => Err(CreateError::Refused(reason)),
        _ => Err(CreateError::Later(reason)),
    }
}

/// Reads the topic's settings.
pub(super) fn describe(config: &ClientConfig, topic: &str) -> Result<TopicFacts, KafkaError> {
    let admin = AdminClient::from_config(config)?;
    let described = wait_for(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options()))?;
    let resource = described
        .into_iter()
        .next()
        .ok_or(KafkaError::AdminOp(RDKafkaErrorCode::UnknownTopic))?
        .map_err(KafkaError::AdminOp)?;
    Ok(facts(&resource.entry_map()))
}

fn facts(entries: &HashMap<&str, &ConfigEntry>) -> TopicFacts {
    let text = |name: &str| entries.get(name).and_then(|entry| entry.value.as_deref());
    let number = |name: &str| text(name).and_then(|value| value.parse::<i64>().ok());
    // A negative limit is none.
    let limit = |name: &str| number(name).and_then(|value| u64::try_from(value).ok());
    TopicFacts {
        min_insync_replicas: number("min.insync.replicas").and_then(|value| u32::try_from(value).ok()),
        retention: limit("retention.ms").map(Duration::from_millis),
        retention_bytes: limit("retention.bytes"),
        message_bytes_max: limit("max.message.bytes").and_then(|value| usize::try_from(value).ok()),
        elects_unclean_leaders: text("unclean.leader.election.enable") == Some("true"),
        is_compacted: text("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE))
}

/// The admin client offers futures only, and this thread has no runtime.
fn wait_for<T>(answer: impl Future<Output = Result<T, KafkaError>>) -> Result<T, KafkaError> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| KafkaError::AdminOpCreation(error.to_string()))?
        .block_on(answer)
}
