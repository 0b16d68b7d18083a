//! The consumer: a thread that polls, and the handle that a worker holds.
//!
//! The thread waits for the broker only. While the worker takes nothing, the thread pauses the
//! partitions and goes on polling, so that the group never takes it for dead. **Invariant:** a
//! partition that the group takes away is committed up to its lowest unfinished event, so that the
//! next owner begins there.

use super::{CLOSE_PATIENCE, Shared, lock, message, partitions::tag, produce::on_a_thread, redeliveries::Redeliveries};
use crate::queue::{ConsumeError, Deliveries, Delivery, DeliveryTag};
use async_trait::async_trait;
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{BorrowedMessage, Message},
    topic_partition_list::TopicPartitionListElem,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Time of one poll. A pause or a stop takes effect at most this much later.
const POLL: Duration = Duration::from_millis(50);

/// Time between two commits of watermarks that moved.
const COMMIT_PERIOD: Duration = Duration::from_millis(200);

/// Most fetched events that wait for the worker. Above it the partitions are paused.
const INBOX_EVENTS_MAX: usize = 4096;
const INBOX_BYTES_MAX: usize = 32 << 20;

/// How long a revocation waits for acks of the worker. The wait only saves duplicates.
const REVOKE_PATIENCE: Duration = Duration::from_millis(500);

/// How long the start of a partition waits for the group's committed offset.
const COMMITTED_PATIENCE: Duration = Duration::from_secs(5);

/// A consumer that fetches no event for this long, although the broker has some, is made anew.
const STALL_MAX: Duration = Duration::from_secs(30);

/// Pause before a new consumer, after one failed.
const RENEW_PAUSE: Duration = Duration::from_secs(1);

/// Fetched, not yet taken by the worker.
#[derive(Default)]
pub(super) struct Inbox {
    fetched: VecDeque<Fetched>,
    bytes: usize,
    /// The consumer whose events these are; another one's are refused.
    epoch: u64,
}

struct Fetched {
    partition: i32,
    bytes: usize,
    delivery: Delivery,
}

impl Inbox {
    fn push(&mut self, fetched: Fetched) {
        self.bytes += fetched.bytes;
        self.fetched.push_back(fetched);
    }

    fn take(&mut self, count_max: usize) -> Vec<Delivery> {
        let count = count_max.min(self.fetched.len());
        let taken = self.fetched.drain(..count);
        let mut bytes = 0;
        let batch = taken
            .map(|fetched| {
                bytes += fetched.bytes;
                fetched.delivery
            })
            .collect();
        self.bytes -= bytes;
        batch
    }

    fn clear(&mut self) {
        self.fetched.clear();
        self.bytes = 0;
    }

    /// How many it removed.
    fn remove(&mut self, partitions: &[i32]) -> usize {
        let before = self.fetched.len();
        self.fetched.retain(|fetched| !partitions.contains(&fetched.partition));
        self.bytes = self.fetched.iter().map(|fetched| fetched.bytes).sum();
        before - self.fetched.len()
    }

    fn is_full(&self) -> bool {
        self.fetched.len() >= INBOX_EVENTS_MAX || self.bytes >= INBOX_BYTES_MAX
    }

    fn has_room(&self) -> bool {
        self.fetched.len() <= INBOX_EVENTS_MAX / 2 && self.bytes <= INBOX_BYTES_MAX / 2
    }
}

/// Starts and stops consumers, one at a time.
pub(super) struct Consumers {
    shared: Arc<Shared>,
    running: Arc<Mutex<Running>>,
}

#[derive(Default)]
struct Running {
    is_held: bool,
    epoch: u64,
    stop: Arc<AtomicBool>,
    /// Turns true when the thread of the last consumer has left the group.
    ended: Option<watch::Receiver<bool>>,
}

impl Consumers {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            running: Arc::default(),
        }
    }

    pub async fn begin(&self) -> Result<KafkaDeliveries, ConsumeError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (epoch, previous) = {
            let mut running = lock(&self.running);
            if running.is_held {
                return Err(ConsumeError::AlreadyConsumed);
            }
            running.is_held = true;
            running.epoch += 1;
            running.stop = stop.clone();
            (running.epoch, running.ended.clone())
        };
        // From here on dropping `deliveries` ends this consumer's hold.
        let deliveries = KafkaDeliveries {
            shared: self.shared.clone(),
            running: self.running.clone(),
            stop: stop.clone(),
        };
        wait_for_end(previous).await;
        let (has_ended, ended) = watch::channel(false);
        lock(&self.running).ended = Some(ended);
        {
            let mut state = self.shared.state();
            state.inbox.clear();
            state.inbox.epoch = epoch;
        }
        let reader = Reader {
            shared: self.shared.clone(),
            epoch,
            stop,
            ended: has_ended,
        };
        on_a_thread("kafka-consumer", move || reader.run());
        Ok(deliveries)
    }

    /// Without waiting for the thread.
    pub fn stop(&self) {
        lock(&self.running).stop.store(true, Ordering::Relaxed);
        self.shared.arrived.notify_one();
    }

    pub async fn end(&self) {
        self.stop();
        let ended = lock(&self.running).ended.clone();
        wait_for_end(ended).await;
    }
}

/// A consumer whose broker is away may take long to leave its group; the group forgets it by
/// itself.
async fn wait_for_end(ended: Option<watch::Receiver<bool>>) {
    if let Some(mut ended) = ended {
        let _ = tokio::time::timeout(CLOSE_PATIENCE, ended.wait_for(|ended| *ended)).await;
    }
}

/// The worker's handle. Dropping it makes the thread leave the group.
pub(super) struct KafkaDeliveries {
    shared: Arc<Shared>,
    running: Arc<Mutex<Running>>,
    stop: Arc<AtomicBool>,
}

#[async_trait]
impl Deliveries for KafkaDeliveries {
    async fn next_batch(&mut self, count_max: usize) -> Result<Vec<Delivery>, ConsumeError> {
        loop {
            if self.shared.is_closed() {
                return Ok(Vec::new());
            }
            let batch = self.shared.state().inbox.take(count_max);
            if !batch.is_empty() {
                return Ok(batch);
            }
            // `Notify` keeps a permit, so no notification between the look and the wait is lost.
            self.shared.arrived.notified().await;
        }
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), ConsumeError> {
        {
            let mut state = self.shared.state();
            for tag in tags {
                state.partitions.ack(*tag);
            }
        }
        self.shared.acked.notify_all();
        Ok(())
    }
}

impl Drop for KafkaDeliveries {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.shared.state().inbox.clear();
        lock(&self.running).is_held = false;
    }
}

/// Callbacks of a consumer; all of them run in its thread's polls.
struct Context {
    shared: Arc<Shared>,
    epoch: u64,
    /// The consumer leaves the group by itself, so acks are kept for this process's next consumer.
    is_leaving: AtomicBool,
    is_paused: AtomicBool,
    redeliveries: Redeliveries,
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!("librdkafka: {facility} {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "librdkafka: {reason}");
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // A new assignment begins without pauses.
        self.is_paused.store(false, Ordering::Relaxed);
        match rebalance {
            Rebalance::Assign(partitions) => self.assign(consumer, partitions),
            Rebalance::Revoke(partitions) => self.revoke(consumer, partitions),
            Rebalance::Error(error) => tracing::warn!(%error, "The Kafka group cannot share out its partitions"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let mut state = self.shared.state();
        if state.inbox.epoch != self.epoch {
            return;
        }
        for element in offsets.elements() {
            let offset = offset_of(element.offset()).filter(|_| result.is_ok() && element.error().is_ok());
            state.partitions.committed(element.partition(), offset);
        }
        if let Err(error) = result {
            // It is committed again in the next period, or fetched again by the next owner.
            tracing::debug!(%error, "Offsets were not committed");
        }
    }
}

impl Context {
    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let committed = consumer.committed_offsets(partitions.clone(), COMMITTED_PATIENCE);
        let committed = committed.unwrap_or_else(|error| {
            tracing::debug!(%error, "The committed offsets cannot be read yet");
            TopicPartitionList::new()
        });
        let mut state = self.shared.state();
        if state.inbox.epoch != self.epoch {
            return;
        }
        for element in partitions.elements() {
            let partition = element.partition();
            let committed = committed.find_partition(element.topic(), partition);
            self.redeliveries.assign(partition, committed.as_ref());
            let offset = committed.and_then(|element| offset_of(element.offset()));
            state.partitions.assign(partition, offset);
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let ids: Vec<i32> = partitions
            .elements()
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        let is_leaving = self.is_leaving.load(Ordering::Relaxed);
        {
            let mut state = self.shared.state();
            if state.inbox.epoch != self.epoch {
                return;
            }
            if !is_leaving {
                let untaken = state.inbox.remove(&ids);
                // The worker may ack its events in a moment. An event that it does not ack in time
                // is planned twice, and dedupe absorbs the second.
                let waited = self.shared.acked.wait_timeout_while(state, REVOKE_PATIENCE, |state| {
                    state.partitions.unfinished(&ids) > untaken
                });
                drop(waited);
            }
        }
        // A group that has given the partitions to others already takes no commit from us.
        if !consumer.assignment_lost() {
            commit(consumer, true, CommitMode::Sync);
        }
        let mut state = self.shared.state();
        if is_leaving {
            state.partitions.leave();
        } else {
            for partition in ids {
                state.partitions.revoke(partition);
            }
        }
    }
}

fn offset_of(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

fn commit(consumer: &BaseConsumer<Context>, all: bool, mode: CommitMode) {
    let context = consumer.context();
    let shared = &context.shared;
    let offsets = {
        let mut state = shared.state();
        if state.inbox.epoch != context.epoch {
            return;
        }
        state.partitions.take_offsets(all)
    };
    if offsets.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    let topic = &shared.settings.topic;
    let listed = offsets
        .iter()
        .try_for_each(|(partition, offset)| list.add_partition_offset(topic, *partition, Offset::Offset(*offset)));
    let outcome = listed.and_then(|()| consumer.commit(&list, mode));
    let is_done = outcome.is_ok();
    if let Err(error) = outcome {
        tracing::debug!(%error, "Offsets were not committed");
    } else if matches!(mode, CommitMode::Async) {
        return;
    }
    let mut state = shared.state();
    for (partition, offset) in offsets {
        state.partitions.committed(partition, is_done.then_some(offset));
    }
}

/// Why a consumer's polls ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Stopped,
    /// This consumer cannot go on; a new one can.
    Renew,
    /// The topic is gone, or was made anew: offsets of the old one mean nothing there.
    TopicGone,
}

/// The thread of one consumer.
struct Reader {
    shared: Arc<Shared>,
    epoch: u64,
    stop: Arc<AtomicBool>,
    ended: watch::Sender<bool>,
}

impl Reader {
    fn run(self) {
        while !self.is_stopped() {
            let seen = self.shared.wake.seen();
            match self.read() {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Renew | Ended::TopicGone) => {}
                Err(error) => tracing::warn!(%error, "Events cannot be read from Kafka"),
            }
            self.shared.wake.wait(seen, RENEW_PAUSE);
        }
        self.ended.send_replace(true);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.shared.is_closed()
    }

    /// One consumer from its start until it has left the group.
    fn read(&self) -> Result<Ended, KafkaError> {
        let context = Context {
            shared: self.shared.clone(),
            epoch: self.epoch,
            is_leaving: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            redeliveries: Redeliveries::default(),
        };
        let topic = self.shared.topics_made.load(Ordering::Relaxed);
        let consumer = BaseConsumer::from_config_and_context(&self.config(), context)?;
        consumer.subscribe(&[&self.shared.settings.topic])?;
        let ended = self.poll(&consumer, topic);
        consumer.context().is_leaving.store(true, Ordering::Relaxed);
        if ended == Ended::TopicGone {
            self.shared.state().partitions.reset();
        }
        commit(&consumer, true, CommitMode::Sync);
        drop(consumer);
        Ok(ended)
    }

    fn config(&self) -> ClientConfig {
        let settings = &self.shared.settings;
        let mut config = self.shared.config.clone();
        config
            .set("group.id", &settings.group)
            .set("partition.assignment.strategy", "range,roundrobin")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "3000")
            .set("socket.timeout.ms", "10000")
            // So soon a topic that was made anew, or got more partitions, is noticed.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "32768");
        config
    }

    fn poll(&self, consumer: &BaseConsumer<Context>, topic: u64) -> Ended {
        let mut committed_at = Instant::now();
        let mut stall = Stall::new();
        loop {
            if self.is_stopped() {
                return Ended::Stopped;
            }
            if self.shared.topics_made.load(Ordering::Relaxed) != topic {
                return Ended::TopicGone;
            }
            match consumer.poll(POLL) {
                Some(Ok(message)) => self.take(consumer, &message),
                Some(Err(error)) => {
                    if let Some(ended) = self.ends(&error) {
                        return ended;
                    }
                }
                None => {}
            }
            self.keep_pace(consumer);
            if committed_at.elapsed() >= COMMIT_PERIOD {
                committed_at = Instant::now();
                commit(consumer, false, CommitMode::Async);
                if stall.is_one(self, consumer) {
                    return Ended::Renew;
                }
            }
        }
    }

    fn take(&self, consumer: &BaseConsumer<Context>, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        let redeliveries = &consumer.context().redeliveries;
        let is_noted = || {
            let mut state = self.shared.state();
            if state.inbox.epoch == self.epoch {
                state.partitions.committed(partition, Some(offset));
            }
        };
        let topic = &self.shared.settings.topic;
        let redeliveries = redeliveries.of(consumer, topic, (partition, offset), is_noted);
        let event = message::envelope(message);
        let received_at = event.as_ref().ok().map(|event| event.received_at);
        let fetched = Fetched {
            partition,
            bytes: message.payload_len(),
            delivery: Delivery {
                tag: tag(partition, offset),
                event,
                redeliveries,
            },
        };
        let mut state = self.shared.state();
        if state.inbox.epoch == self.epoch && state.partitions.fetch(partition, offset, received_at) {
            state.inbox.push(fetched);
            drop(state);
            self.shared.arrived.notify_one();
        }
    }

    /// Whether the consumer has to be made anew after this error. librdkafka recovers from all
    /// others by itself.
    fn ends(&self, error: &KafkaError) -> Option<Ended> {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicId,
            ) => {
                self.shared.wake.call();
                return Some(Ended::TopicGone);
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => self.shared.wake.call(),
            _ => {}
        }
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            tracing::warn!(%error, "The Kafka consumer failed for good and is replaced");
            return Some(Ended::Renew);
        }
        None
    }

    /// Pauses all partitions while the worker does not take what was fetched.
    fn keep_pace(&self, consumer: &BaseConsumer<Context>) {
        let is_paused = &consumer.context().is_paused;
        let (is_full, has_room) = {
            let state = self.shared.state();
            (state.inbox.is_full(), state.inbox.has_room())
        };
        let outcome = match is_paused.load(Ordering::Relaxed) {
            false if is_full => consumer
                .assignment()
                .and_then(|all| consumer.pause(&all))
                .map(|()| true),
            true if has_room => consumer
                .assignment()
                .and_then(|all| consumer.resume(&all))
                .map(|()| false),
            _ => return,
        };
        match outcome {
            Ok(paused) => is_paused.store(paused, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "The Kafka partitions cannot be paused or resumed"),
        }
    }
}

/// Notices a consumer that fetches nothing although the broker has events for it.
struct Stall {
    /// How far each partition was fetched, and since when.
    standing: HashMap<i32, (i64, Instant)>,
}

impl Stall {
    fn new() -> Self {
        Self {
            standing: HashMap::new(),
        }
    }

    fn is_one(&mut self, reader: &Reader, consumer: &BaseConsumer<Context>) -> bool {
        let is_paused = consumer.context().is_paused.load(Ordering::Relaxed);
        let is_away = !reader.shared.is_reachable.load(Ordering::Relaxed);
        if is_paused || is_away {
            self.standing.clear();
            return false;
        }
        let behind = reader.shared.state().partitions.behind();
        let now = Instant::now();
        let before = std::mem::take(&mut self.standing);
        for (partition, fetched) in behind {
            let since = before
                .get(&partition)
                .filter(|(at, _)| *at == fetched)
                .map_or(now, |(_, since)| *since);
            self.standing.insert(partition, (fetched, since));
        }
        let stalled = self
            .standing
            .iter()
            .find(|(_, (_, since))| now.duration_since(*since) >= STALL_MAX);
        if let Some((partition, (offset, _))) = stalled {
            tracing::warn!("The Kafka consumer stands at offset {offset} of partition {partition} and is replaced");
        }
        stalled.is_some()
    }
}
