//! Takes events from the queues, and keeps the connection for it alive.
//!
//! **Invariant:** nothing of a connection that failed is used again. The broker delivers its
//! unacked events again, and a late ack of one is no error and does nothing.

use super::{
    AmqpSettings,
    backoff::Backoff,
    connection::{Events, Fault, Link, LinkError, answered},
    depths::Depths,
    message,
    shares::Shares,
    silence::{Patience, Watch},
    topology::{self, Topology},
    unacked::{Ack, Unacked},
    url::Address,
};
use crate::queue::{ConsumeError, Deliveries, Delivery, DeliveryTag, QueueLeases};
use async_trait::async_trait;
use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered, SelectAll},
};
use lapin::{
    Channel, Event,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A queue that gave no answer for this long counts as silent in the state.
const UNANSWERED_SECONDS: Duration = Duration::from_secs(10);

/// Between two tries to consume a queue that does not answer.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// The state that the task and its [`AmqpDeliveries`] share.
pub(super) struct Consumption {
    pub unacked: Unacked,
    /// The worker asks for more.
    asked: Notify,
    /// One consumer at a time: the next one begins after the former one has closed.
    turn: tokio::sync::Mutex<()>,
    pub is_held: AtomicBool,
    /// Queues that do not answer, or hold ready events and deliver none.
    pub silent: AtomicUsize,
}

impl Default for Consumption {
    fn default() -> Self {
        Self {
            unacked: Unacked::default(),
            asked: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            is_held: AtomicBool::new(false),
            silent: AtomicUsize::new(0),
        }
    }
}

struct Arrival {
    epoch: u64,
    delivery: Delivery,
}

pub(super) struct AmqpDeliveries {
    shared: Arc<Consumption>,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    acks: mpsc::UnboundedSender<Vec<Ack>>,
    /// The queue is closed.
    closed: CancellationToken,
    stop: CancellationToken,
}

#[async_trait]
impl Deliveries for AmqpDeliveries {
    async fn next_batch(&mut self, count_max: usize) -> Result<Vec<Delivery>, ConsumeError> {
        let _waits = self.shared.unacked.wait();
        self.shared.asked.notify_one();
        let mut batch = Vec::new();
        loop {
            let count = tokio::select! {
                biased;
                () = self.closed.cancelled() => return Ok(Vec::new()),
                count = self.arrivals.recv_many(&mut batch, count_max.max(1)) => count,
            };
            if count == 0 {
                return Err(ConsumeError::Broker {
                    reason: "its consumer ended".into(),
                });
            }
            // Events of an earlier connection come again.
            let fresh: Vec<_> = batch
                .drain(..)
                .filter(|arrival| self.shared.unacked.is_current(arrival.epoch))
                .map(|arrival| arrival.delivery)
                .collect();
            if !fresh.is_empty() {
                return Ok(fresh);
            }
        }
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), ConsumeError> {
        let acks = self.shared.unacked.ack(tags);
        if !acks.is_empty() {
            // Without a consumer there is no connection for the acks, so the events come again.
            let _ = self.acks.send(acks);
        }
        Ok(())
    }
}

impl Drop for AmqpDeliveries {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shared.is_held.store(false, Ordering::Release);
    }
}

pub(super) struct Consumer {
    pub shared: Arc<Consumption>,
    pub topology: Arc<Topology>,
    pub settings: Arc<AmqpSettings>,
    pub depths: Arc<Depths>,
    shares: Arc<Shares>,
    held: watch::Receiver<Vec<u16>>,
    arrivals: mpsc::UnboundedSender<Arrival>,
    acks: mpsc::UnboundedReceiver<Vec<Ack>>,
    patience: Patience,
    stop: CancellationToken,
}

/// One connection with a consumer on each queue.
struct Session {
    link: Link,
    events: Events,
    epoch: u64,
    queues: Vec<ShortString>,
    /// By queue, once its consumer stands.
    channels: Vec<Option<Channel>>,
    streams: SelectAll<BoxStream<'static, (usize, Option<lapin::Result<lapin::message::Delivery>>)>>,
    /// Consumers that the broker has not confirmed yet.
    attempts: FuturesUnordered<BoxFuture<'static, (usize, Attempt)>>,
    /// Counts that are asked for.
    counts: FuturesUnordered<BoxFuture<'static, (Counted, Count)>>,
    /// By queue, the channel to count on. One that did not answer is not used again.
    counters: Vec<Option<Channel>>,
    /// Queues whose events are being counted. A queue that does not answer delays the count of no
    /// other.
    counting: HashSet<Counted>,
}

type Attempt = Result<(Channel, lapin::Consumer), LinkError>;
type Count = Result<(u64, Channel), LinkError>;

/// Ready events are counted by queue that is consumed here, and in the queues of other workers
/// together. So every process reports the same sum.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Own(usize),
    Others,
}

impl Consumer {
    /// The consumer's task, and the deliveries that it feeds.
    pub fn new(
        leases: Option<Arc<dyn QueueLeases>>,
        shared: Arc<Consumption>,
        topology: Arc<Topology>,
        settings: Arc<AmqpSettings>,
        depths: Arc<Depths>,
        closed: CancellationToken,
    ) -> (Self, AmqpDeliveries) {
        let (arrivals_in, arrivals) = mpsc::unbounded_channel();
        let (acks, acks_out) = mpsc::unbounded_channel();
        let stop = closed.child_token();
        let deliveries = AmqpDeliveries {
            shared: shared.clone(),
            arrivals,
            acks,
            closed,
            stop: stop.clone(),
        };
        let shares = Arc::new(Shares::new(leases, &settings, topology.queues.len()));
        let consumer = Self {
            patience: Patience::new(settings.silent_seconds_max),
            held: shares.held(),
            shares,
            shared,
            topology,
            settings,
            depths,
            arrivals: arrivals_in,
            acks: acks_out,
            stop,
        };
        (consumer, deliveries)
    }

    /// Consumes until the stop, whatever happens to the connection.
    pub async fn run(self, addresses: Vec<Address>) {
        let (shared, shares, stop) = (self.shared.clone(), self.shares.clone(), self.stop.clone());
        let _turn = shared.turn.lock().await;
        shares.begin().await;
        // The leases are given back only after the consumers are gone.
        let consumed = CancellationToken::new();
        let consuming = async {
            self.consume(addresses, &stop).await;
            consumed.cancel();
        };
        tokio::join!(consuming, shares.keep(&consumed));
    }

    async fn consume(mut self, addresses: Vec<Address>, stop: &CancellationToken) {
        let mut backoff = Backoff::new(addresses.len());
        loop {
            let address = &addresses[backoff.address()];
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                opened = self.open(address) => opened,
            };
            let error = match opened {
                Ok(session) => {
                    info!("Consuming {} queues of RabbitMQ at {address}", session.queues.len());
                    backoff.reset();
                    self.depths.has_consumer.store(true, Ordering::Relaxed);
                    let ended = self.serve(session).await;
                    self.depths.has_consumer.store(false, Ordering::Relaxed);
                    self.shared.silent.store(0, Ordering::Relaxed);
                    self.shared.unacked.begin_epoch(0);
                    match ended {
                        Ended::Stopped => break,
                        Ended::Shared => {
                            info!("The queues of RabbitMQ are shared out anew");
                            continue;
                        }
                        Ended::GaveBack => {
                            warn!("Deliveries were planned by nobody: they went back to RabbitMQ");
                            tokio::select! {
                                () = stop.cancelled() => break,
                                () = self.shared.asked.notified() => continue,
                            }
                        }
                        Ended::Failed(error) => error,
                    }
                }
                Err(error) => error,
            };
            warn!(%error, "No event can be consumed from RabbitMQ at {address}; it is tried again");
            if backoff.wait_or(stop).await {
                break;
            }
        }
    }

    async fn open(&mut self, address: &Address) -> Result<Session, LinkError> {
        let (link, events) = Link::open(address, &self.settings, "hookswitch consumes").await?;
        self.topology.declare(&link).await?;
        let held = self.held.borrow_and_update().clone();
        let mut queues: Vec<_> = held
            .into_iter()
            .filter_map(|number| self.topology.queues.get(usize::from(number)).cloned())
            .collect();
        queues.extend(self.topology.surplus(&link).await?);
        let mut session = Session {
            epoch: self.shared.unacked.begin_epoch(queues.len()),
            link,
            events,
            channels: vec![None; queues.len()],
            streams: SelectAll::new(),
            attempts: FuturesUnordered::new(),
            counts: FuturesUnordered::new(),
            counting: HashSet::new(),
            counters: vec![None; queues.len()],
            queues,
        };
        for number in 0..session.queues.len() {
            session.attempt(number, self.settings.prefetch, Duration::ZERO).await?;
        }
        Ok(session)
    }

    async fn serve(&mut self, mut session: Session) -> Ended {
        let mut looks = tokio::time::interval(self.depths.period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Watch::new(session.queues.len());
        loop {
            let done = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.close(session).await;
                    return Ended::Stopped;
                }
                Some(acks) = self.acks.recv() => {
                    session.send(&acks);
                    Ok(())
                }
                Ok(()) = self.held.changed() => {
                    // Deliveries that are not acked come again, to the worker that consumes them
                    // then.
                    self.close(session).await;
                    return Ended::Shared;
                }
                event = session.events.next() => check(event),
                Some((number, attempt)) = session.attempts.next() => {
                    session.end_attempt(number, attempt, self.settings.prefetch).await
                }
                Some((counted, count)) = session.counts.next() => {
                    self.end_count(&mut session, &mut watch, counted, count)
                }
                Some((queue, delivery)) = session.streams.next() => self.take(&session, &mut watch, queue, delivery),
                _ = looks.tick() => {
                    if self.is_idle() {
                        session.link.close().await;
                        return Ended::GaveBack;
                    }
                    self.look(&mut session, &watch).await
                }
            };
            if let Err(error) = done {
                return Ended::Failed(error);
            }
        }
    }

    /// Sends the acks that wait, and closes the connection.
    async fn close(&mut self, session: Session) {
        while let Ok(acks) = self.acks.try_recv() {
            session.send(&acks);
        }
        session.link.close().await;
    }

    fn is_idle(&self) -> bool {
        let idle = self.shared.unacked.idle();
        idle.is_some_and(|idle| idle > self.settings.idle_seconds_max)
    }

    /// Hands a delivery to the worker. `None`: the consumer of the queue has ended.
    fn take(
        &mut self,
        session: &Session,
        watch: &mut Watch,
        queue: usize,
        delivery: Option<lapin::Result<lapin::message::Delivery>>,
    ) -> Result<(), LinkError> {
        let Some(delivery) = delivery else {
            let queue = &session.queues[queue];
            return Err(LinkError::new(format!("the broker ended the consumer of {queue}")));
        };
        let delivery = delivery?;
        watch.delivered(queue);
        self.patience.delivered(&session.queues[queue]);
        let tag = delivery.delivery_tag;
        let redeliveries = message::redeliveries(&delivery.properties);
        let event = message::envelope(&delivery.properties, delivery.data);
        let received_at = event.as_ref().ok().map(|envelope| envelope.received_at);
        let tag = self.shared.unacked.insert(queue, tag, received_at);
        // The reader may be gone. Then the stop is near.
        let _ = self.arrivals.send(Arrival {
            epoch: session.epoch,
            delivery: Delivery {
                tag,
                event,
                redeliveries,
            },
        });
        Ok(())
    }

    /// Asks for counts, and notices a queue that delivers nothing any more.
    async fn look(&mut self, session: &mut Session, watch: &Watch) -> Result<(), LinkError> {
        check_connected(&session.link)?;
        session.count_own().await?;
        session.count_others(&self.topology.queues).await?;
        let silent = watch.silent_for(UNANSWERED_SECONDS).count();
        self.shared.silent.store(silent, Ordering::Relaxed);
        match watch.silent_for(self.patience.now()).next() {
            None => Ok(()),
            Some(number) => {
                let queue = &session.queues[number];
                self.patience.lost(queue);
                Err(LinkError::new(format!(
                    "{queue} does not answer, or it holds events and delivers none"
                )))
            }
        }
    }

    fn end_count(
        &self,
        session: &mut Session,
        watch: &mut Watch,
        counted: Counted,
        count: Count,
    ) -> Result<(), LinkError> {
        session.counting.remove(&counted);
        let (ready, channel) = match count {
            Ok(count) => count,
            // The other queues go on when one queue does not answer.
            Err(error) if error.fault == Fault::Passing && session.link.is_connected() => return Ok(()),
            Err(error) => return Err(error),
        };
        match counted {
            Counted::Others => watch.others = ready,
            Counted::Own(number) => {
                // The worker has as many of them as it may have.
                let is_full = self.shared.unacked.count_of(number) >= usize::from(self.settings.prefetch);
                watch.counted(number, ready, is_full);
                session.counters[number] = Some(channel);
            }
        }
        self.depths.set(watch.ready());
        Ok(())
    }
}

fn check_connected(link: &Link) -> Result<(), LinkError> {
    if link.is_connected() {
        Ok(())
    } else {
        Err(LinkError::new("the connection ended"))
    }
}

/// Whether an event of the connection ends it.
fn check(event: Option<Event>) -> Result<(), LinkError> {
    match event {
        Some(Event::Error(error)) => Err(error.into()),
        Some(_) => Ok(()),
        None => Err(LinkError::new("the connection ended")),
    }
}

enum Ended {
    Stopped,
    /// The worker neither acked nor asked for more for a long time.
    GaveBack,
    /// The leases changed: this worker consumes other queues from now on.
    Shared,
    Failed(LinkError),
}

impl Session {
    /// Begins to consume a queue on a channel of its own. A queue that does not answer is tried
    /// again while the others go on.
    async fn attempt(&mut self, number: usize, prefetch: u16, wait: Duration) -> Result<(), LinkError> {
        let queue = self.queues[number].clone();
        let channel = self.link.channel().await?;
        let attempt = async move {
            tokio::time::sleep(wait).await;
            let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
            answered("limit unacked deliveries", qos).await?;
            let options = BasicConsumeOptions::default();
            let consume = channel.basic_consume(queue, "hookswitch".into(), options, FieldTable::default());
            let consumer = answered("consume a queue", consume).await?;
            Ok((channel, consumer))
        };
        self.attempts
            .push(attempt.map(move |attempt| (number, attempt)).boxed());
        Ok(())
    }

    async fn end_attempt(&mut self, number: usize, attempt: Attempt, prefetch: u16) -> Result<(), LinkError> {
        match attempt {
            Ok((channel, consumer)) => {
                let ended = futures_util::stream::once(async move { (number, None) });
                let deliveries = consumer.map(move |delivery| (number, Some(delivery)));
                self.streams.push(deliveries.chain(ended).boxed());
                self.channels[number] = Some(channel);
                Ok(())
            }
            // The connection or the queue is gone, so everything is made anew.
            Err(error) if error.fault != Fault::Passing || !self.link.is_connected() => Err(error),
            Err(error) => {
                warn!(%error, "{} is not consumed; it is tried again", self.queues[number]);
                self.attempt(number, prefetch, ATTEMPT_PAUSE).await
            }
        }
    }

    /// Counts each queue, where no count of it is under way. The channel of its consumer would let
    /// acks wait behind the count.
    async fn count_own(&mut self) -> Result<(), LinkError> {
        for number in 0..self.queues.len() {
            if self.counting.insert(Counted::Own(number)) {
                let channel = match self.counters[number].take() {
                    Some(channel) => channel,
                    None => self.link.channel().await?,
                };
                let queue = self.queues[number].clone();
                let count = async move {
                    let count = topology::count(&channel, &queue).await;
                    (Counted::Own(number), count.map(|count| (count, channel)))
                };
                self.counts.push(count.boxed());
            }
        }
        Ok(())
    }

    async fn count_others(&mut self, all: &[ShortString]) -> Result<(), LinkError> {
        let others: Vec<_> = all
            .iter()
            .filter(|queue| !self.queues.contains(queue))
            .cloned()
            .collect();
        if others.is_empty() || !self.counting.insert(Counted::Others) {
            return Ok(());
        }
        let channel = self.link.channel().await?;
        let count = async move {
            let mut ready = 0;
            for queue in &others {
                match topology::count(&channel, queue).await {
                    Ok(count) => ready += count,
                    Err(error) => return (Counted::Others, Err(error)),
                }
            }
            (Counted::Others, Ok((ready, channel)))
        };
        self.counts.push(count.boxed());
        Ok(())
    }

    /// Hands acks to the connection, which sends them in this order. An ack has no answer: one that
    /// is lost with its connection comes again as a delivery.
    fn send(&self, acks: &[Ack]) {
        for ack in acks.iter().filter(|ack| ack.epoch == self.epoch) {
            let options = BasicAckOptions { multiple: ack.multiple };
            if let Some(channel) = &self.channels[ack.queue] {
                let _ = channel.basic_ack(ack.tag, options).now_or_never();
            }
        }
    }
}
