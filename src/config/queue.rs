//! Settings of the queue.

use secrecy::SecretString;
use std::time::Duration;

section! {
    /// The queue between receivers and workers.
    QueueSettings {
        /// The queue. Embedded: embedded:DIRECTORY. Kafka: kafka://HOST:PORT,HOST:PORT. RabbitMQ:
        /// amqp://USER:PASSWORD@HOST:PORT,HOST:PORT/VHOST, or amqps:// with TLS.
        queue_url: String = "embedded:.hookswitch/queue".into(), "HOOKSWITCH_QUEUE_URL";
        /// Bytes of events held at most until they are planned. Above it senders get 503.
        queue_bytes_max: u64 = 4 << 30, "HOOKSWITCH_QUEUE_BYTES_MAX";
        /// Size of a segment file of the embedded queue, in bytes.
        segment_bytes: u64 = 64 << 20, "HOOKSWITCH_QUEUE_SEGMENT_BYTES";
        /// Free bytes of the queue's disk below which intake stops with 503. Not set: 512 MiB or 5%
        /// of the disk, whichever is more.
        disk_free_bytes_min: Option<u64> = None, "HOOKSWITCH_DISK_FREE_BYTES_MIN";
        /// Time for a broker to confirm an event. After it the outcome counts as unknown, and the
        /// spool takes the event. HOOKSWITCH_TURN_SECONDS_MAX and HOOKSWITCH_PUBLISH_SECONDS_MAX
        /// must be longer.
        confirm_seconds_max: Duration = Duration::from_millis(1500), "HOOKSWITCH_QUEUE_CONFIRM_SECONDS_MAX";
        /// Kafka: the topic. It is created where it is missing.
        kafka_topic: String = "hookswitch-events".into(), "HOOKSWITCH_KAFKA_TOPIC";
        /// Kafka: the consumer group, one for all workers.
        kafka_group: String = "hookswitch".into(), "HOOKSWITCH_KAFKA_GROUP";
        /// Kafka: partitions of a topic that is created here. As many workers can share it at most.
        kafka_partitions: u16 = 12, "HOOKSWITCH_KAFKA_PARTITIONS";
        /// Kafka: replicas of a topic that is created here. Not set: 3, or as many as there are
        /// brokers.
        kafka_replicas: Option<u16> = None, "HOOKSWITCH_KAFKA_REPLICAS";
        /// Kafka: how long a topic that is created here keeps events, read or not.
        kafka_retention: Duration = Duration::from_hours(7 * 24), "HOOKSWITCH_KAFKA_RETENTION_SECONDS";
        /// Kafka: whether connections use TLS. Needs a build with the feature kafka-tls.
        kafka_tls: bool = false, "HOOKSWITCH_KAFKA_TLS";
        /// Kafka: certificates of the authorities to trust, as PEM. Not set: those of the system.
        kafka_tls_ca_file: Option<String> = None, "HOOKSWITCH_KAFKA_TLS_CA_FILE";
        /// Kafka: the way to log in, PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Not set: no login.
        kafka_sasl_mechanism: Option<String> = None, "HOOKSWITCH_KAFKA_SASL_MECHANISM";
        /// Kafka: the name to log in with.
        kafka_sasl_username: Option<String> = None, "HOOKSWITCH_KAFKA_SASL_USERNAME";
        /// Kafka: the password to log in with.
        kafka_sasl_password: Option<SecretString> = None, "HOOKSWITCH_KAFKA_SASL_PASSWORD";
        /// RabbitMQ: the prefix of the names of all queues.
        amqp_prefix: String = "hookswitch".into(), "HOOKSWITCH_AMQP_PREFIX";
        /// RabbitMQ: queues over which subjects are spread, from 1 to 256. As many workers can
        /// consume at once. Every process needs the same number. After a change, events of one
        /// subject may overtake each other until the older events are done.
        amqp_queues: u16 = 8, "HOOKSWITCH_AMQP_QUEUES";
        /// RabbitMQ: unacked events that a worker holds at most of each queue.
        amqp_prefetch: u16 = 512, "HOOKSWITCH_AMQP_PREFETCH";
        /// RabbitMQ: certificates of the authorities to trust beside the public ones, as PEM.
        amqp_ca_file: Option<String> = None, "HOOKSWITCH_AMQP_CA_FILE";
        /// Directory of the spool, which takes events while the broker is away. It belongs to one
        /// receiver and has to survive a restart.
        spool_directory: String = ".hookswitch/spool".into(), "HOOKSWITCH_SPOOL_DIRECTORY";
        /// Bytes of events in the spool at most. Above it senders get 503.
        spool_bytes_max: u64 = 4 << 30, "HOOKSWITCH_SPOOL_BYTES_MAX";
        /// Time that a stop waits for the spool to drain.
        spool_drain_seconds_max: Duration = Duration::from_secs(5), "HOOKSWITCH_SPOOL_DRAIN_SECONDS_MAX";
        /// Accept a spool on a file system that does not survive a restart. For development.
        spool_may_be_volatile: bool = false, "HOOKSWITCH_SPOOL_MAY_BE_VOLATILE";
    }
}

/// The broker's own deadline comes first. This much later nobody counts on it any more.
const CONFIRM_MARGIN: Duration = Duration::from_millis(250);

/// Time that a spool has at least to write an event that the broker did not confirm.
const SPOOL_SECONDS_MIN: Duration = Duration::from_secs(1);

impl QueueSettings {
    /// After this time an event that the broker did not confirm goes to the spool.
    #[must_use]
    pub fn broker_seconds_max(&self) -> Duration {
        self.confirm_seconds_max + CONFIRM_MARGIN
    }

    /// No sender is answered 503 earlier: the broker has its time first, and then the spool.
    #[must_use]
    pub fn durable_seconds_min(&self) -> Duration {
        self.broker_seconds_max() + SPOOL_SECONDS_MIN
    }
}
