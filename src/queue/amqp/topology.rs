//! The queues: their names, their arguments, and which of them an event goes to.
//!
//! Events go through the default exchange, whose routing key is a queue's name. So no binding can
//! be lost: an event gets into its queue, or it is returned.

use super::{
    AmqpSettings,
    connection::{Fault, Link, LinkError, answered},
};
use crate::domain::Subject;
use futures_util::{TryStreamExt, stream};
use lapin::{
    Channel,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable, ShortString},
};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tracing::{info, warn};

/// Highest number at which queues of an earlier, larger setting are looked for.
const QUEUES_MAX: u16 = 256;
/// How long the mark of new queues stands, unless somebody looks at it. Longer than a new queue
/// gets no event.
const MARK_MILLISECONDS: i64 = 10_000;
/// How long a deleted queue stays away. Where one of its name is made at once, the broker may keep
/// the consumers of the old one, and its deliveries reach nobody
/// (`docs/decisions/0009-rabbitmq.md`).
const CONSUMERS_END_MAX: Duration = Duration::from_secs(1);

/// Queues that are declared at the same time, each on a channel of its own.
const DECLARED_AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) struct Topology {
    /// By number. An event's subject chooses one.
    pub queues: Vec<ShortString>,
    prefix: String,
    dead: ShortString,
    /// Stands at the broker while queues are new.
    mark: ShortString,
    delivery_limit: u32,
    settle_seconds: Duration,
    /// When this process last made a queue.
    made_at: Mutex<Option<Instant>>,
}

impl Topology {
    pub fn new(settings: &AmqpSettings) -> Self {
        let mut this = Self {
            queues: Vec::new(),
            prefix: settings.prefix.clone(),
            dead: format!("{}.dead", settings.prefix).into(),
            mark: format!("{}.new", settings.prefix).into(),
            delivery_limit: settings.delivery_limit,
            settle_seconds: settings.settle_seconds,
            made_at: Mutex::default(),
        };
        this.queues = (0..settings.queues.clamp(1, QUEUES_MAX))
            .map(|n| this.name(n))
            .collect();
        this
    }

    fn name(&self, number: u16) -> ShortString {
        format!("{}.events.{number}", self.prefix).into()
    }

    /// The queue of a subject: the same in every process and every version.
    pub fn queue_of(&self, subject: &Subject) -> usize {
        crc32c::crc32c(subject.0.as_bytes()) as usize % self.queues.len()
    }

    /// Declares missing queues. A queue that exists with other arguments is a lasting error. A
    /// queue that does not answer delays no other; its own publishes and consumers fail.
    pub async fn declare(&self, link: &Link) -> Result<(), LinkError> {
        let made_from = Instant::now() + CONSUMERS_END_MAX.min(self.settle_seconds);
        let dead = (&self.dead, Self::dead_arguments());
        let queues = self.queues.iter().map(|queue| (queue, self.arguments()));
        stream::iter(std::iter::once(dead).chain(queues).map(Ok))
            .try_for_each_concurrent(DECLARED_AT_ONCE, |(queue, arguments)| async move {
                match self.declare_one(link, queue, arguments, made_from).await {
                    Err(error) if error.fault == Fault::Passing && link.is_connected() => {
                        warn!(%error, "The queue {queue} does not answer");
                        Ok(())
                    }
                    declared => declared,
                }
            })
            .await
    }

    /// A missing queue is made at `made_from`, or now.
    async fn declare_one(
        &self,
        link: &Link,
        queue: &ShortString,
        arguments: FieldTable,
        made_from: Instant,
    ) -> Result<(), LinkError> {
        let mut channel = link.channel().await?;
        match count(&channel, queue).await {
            Err(error) if error.fault == Fault::Missing => {
                tokio::time::sleep_until(made_from).await;
                info!("Making the queue {queue}");
                self.note_made();
                self.make_mark(link).await?;
                // The broker closed the channel with its answer.
                channel = link.channel().await?;
                let made = self.declare_on(&channel, queue, arguments).await;
                self.note_made();
                made
            }
            Err(error) => Err(error),
            Ok(_) => self.declare_on(&channel, queue, arguments).await,
        }
    }

    /// How the queues stand, for people. Makes none: a queue that exists is declared again with our
    /// arguments, which changes nothing.
    pub async fn look(&self, link: &Link) -> Seen {
        let mut seen = Seen::default();
        let dead = (&self.dead, Self::dead_arguments());
        let queues = self.queues.iter().map(|queue| (queue, self.arguments()));
        for (queue, arguments) in std::iter::once(dead).chain(queues) {
            let asked = async {
                count(&link.channel().await?, queue).await?;
                self.declare_on(&link.channel().await?, queue, arguments).await
            };
            match asked.await {
                Ok(()) => seen.right += 1,
                Err(error) if error.fault == Fault::Missing => seen.missing += usize::from(*queue != self.dead),
                Err(error) if error.fault == Fault::Final => seen.wrong.push(error.to_string()),
                Err(_) => seen.silent.push(queue.to_string()),
            }
            // One that is silent costs the time of an answer.
            if !seen.silent.is_empty() {
                break;
            }
        }
        seen
    }

    /// The mark comes before the queue, so that a process that finds the queue finds the mark too.
    /// Without it the queue is made all the same.
    async fn make_mark(&self, link: &Link) -> Result<(), LinkError> {
        if self.settle_seconds.is_zero() {
            return Ok(());
        }
        let channel = link.channel().await?;
        match self.declare_on(&channel, &self.mark, Self::mark_arguments()).await {
            Err(error) if link.is_connected() => {
                warn!(%error, "New queues cannot be marked: another process may publish to them at once");
                Ok(())
            }
            made => made,
        }
    }

    fn note_made(&self) {
        *self.made_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns when the broker has written queues that are new, whoever made them. RabbitMQ keeps
    /// the record of a new queue in memory for up to two seconds. A broker that is killed in them
    /// loses the queue, with every event in it that was confirmed
    /// (`docs/decisions/0009-rabbitmq.md`).
    pub async fn written(&self, link: &Link) -> Result<(), LinkError> {
        if self.is_marked(link).await? {
            self.note_made();
        }
        let made_at = *self.made_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(written_at) = made_at.map(|made_at| made_at + self.settle_seconds) else {
            return Ok(());
        };
        if written_at > Instant::now() {
            info!("Queues are new at RabbitMQ: events go there once it has written them");
            tokio::time::sleep_until(written_at).await;
        }
        Ok(())
    }

    /// Whether some process made a queue a moment ago. It made the mark before.
    async fn is_marked(&self, link: &Link) -> Result<bool, LinkError> {
        if self.settle_seconds.is_zero() {
            return Ok(false);
        }
        match count(&link.channel().await?, &self.mark).await {
            Ok(_) => Ok(true),
            Err(error) if error.fault == Fault::Missing => Ok(false),
            Err(error) if link.is_connected() => {
                warn!(%error, "It is not known whether queues are new: they get no event for a moment");
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    async fn declare_on(&self, channel: &Channel, queue: &ShortString, arguments: FieldTable) -> Result<(), LinkError> {
        let declared = channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments);
        answered("declare a queue", declared)
            .await
            .map(drop)
            .map_err(|error| LinkError {
                reason: format!("the queue {queue} cannot be declared: {error}").into(),
                ..error
            })
    }

    /// Dead letters of the broker go to the default exchange under the name of their queue. They
    /// stay where they are while that queue is missing. No argument is left to the broker's
    /// default, because defaults differ between its versions.
    fn arguments(&self) -> FieldTable {
        table(&[
            ("x-queue-type", text("quorum")),
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
            ("x-delivery-limit", AMQPValue::LongLongInt(self.delivery_limit.into())),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(self.dead.as_str())),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ])
    }

    fn dead_arguments() -> FieldTable {
        table(&[
            ("x-queue-type", text("quorum")),
            ("x-delivery-limit", AMQPValue::LongLongInt(i32::MAX.into())),
        ])
    }

    /// The broker deletes the mark by itself.
    fn mark_arguments() -> FieldTable {
        table(&[
            ("x-queue-type", text("classic")),
            ("x-expires", AMQPValue::LongLongInt(MARK_MILLISECONDS)),
        ])
    }

    /// Queues of an earlier, larger setting, whose events still have to be consumed.
    pub async fn surplus(&self, link: &Link) -> Result<Vec<ShortString>, LinkError> {
        let mut surplus = Vec::new();
        let mut channel = link.channel().await?;
        for number in u16::try_from(self.queues.len()).unwrap_or(QUEUES_MAX)..QUEUES_MAX {
            let name = self.name(number);
            match count(&channel, &name).await {
                Ok(_) => surplus.push(name),
                Err(error) if error.fault == Fault::Missing => break,
                // It exists, and its consumer is tried again until it answers.
                Err(error) if error.fault == Fault::Passing && link.is_connected() => {
                    warn!(%error, "The queue {name} does not answer");
                    surplus.push(name);
                    channel = link.channel().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(surplus)
    }
}

/// How the queues stand.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// They exist with our arguments.
    pub right: usize,
    pub missing: usize,
    /// The broker's words about each that has other arguments.
    pub wrong: Vec<String>,
    pub silent: Vec<String>,
}

/// Events that are ready in a queue. Where it does not exist the broker closes the channel.
pub(super) async fn count(channel: &Channel, queue: &ShortString) -> Result<u64, LinkError> {
    let options = QueueDeclareOptions {
        passive: true,
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.clone(), options, FieldTable::default());
    let queue = answered("count a queue", declared).await?;
    Ok(queue.message_count().into())
}

fn table(arguments: &[(&'static str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
