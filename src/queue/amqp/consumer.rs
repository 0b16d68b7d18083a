//! Takes events from the queues, and keeps the connection for it alive.
//!
//! **Invariant:** nothing of a connection that failed is used again. What it had delivered and was
//! not acked comes again from the broker, and an ack of it is no error and does nothing.

use super::{
    AmqpSettings,
    backoff::Backoff,
    connection::{Events, Link, LinkError, answered},
    depths::Depths,
    message,
    shares::Shares,
    topology::{self, Topology},
    unacked::{Ack, Unacked},
    url::Address,
};
use crate::queue::{ConsumeError, Deliveries, Delivery, DeliveryTag, QueueLeases};
use async_trait::async_trait;
use futures_util::{
    FutureExt, StreamExt,
    stream::{BoxStream, SelectAll},
};
use lapin::{
    Channel, Event,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A queue that has ready events and delivers none for this long gets another consumer.
const SILENT_SECONDS: Duration = Duration::from_secs(30);

/// What the task and its [`AmqpDeliveries`] share.
pub(super) struct Consumption {
    pub unacked: Unacked,
    /// The worker asks for more.
    asked: Notify,
    /// One consumer at a time; the next one begins when the one before has said goodbye.
    turn: tokio::sync::Mutex<()>,
    pub is_held: AtomicBool,
}

impl Default for Consumption {
    fn default() -> Self {
        Self {
            unacked: Unacked::default(),
            asked: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            is_held: AtomicBool::new(false),
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
            // What an earlier connection delivered comes again.
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
            // Without a consumer there is no connection that could take them: they come again.
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
    stop: CancellationToken,
}

/// One connection with a consumer on each queue.
struct Session {
    link: Link,
    events: Events,
    epoch: u64,
    queues: Vec<ShortString>,
    channels: Vec<Channel>,
    streams: SelectAll<BoxStream<'static, (usize, Option<lapin::Result<lapin::message::Delivery>>)>>,
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
        // Given back only after the consumers are gone.
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
            channels: Vec::with_capacity(queues.len()),
            streams: SelectAll::new(),
            queues,
        };
        for number in 0..session.queues.len() {
            session.consume(number, self.settings.prefetch).await?;
        }
        Ok(session)
    }

    async fn serve(&mut self, mut session: Session) -> Ended {
        let mut looks = tokio::time::interval(self.depths.period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Watch::new(session.queues.len());
        let counter = match session.link.channel().await {
            Ok(channel) => channel,
            Err(error) => return Ended::Failed(error),
        };
        loop {
            let done = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    while let Ok(acks) = self.acks.try_recv() {
                        session.send(&acks);
                    }
                    session.link.close().await;
                    return Ended::Stopped;
                }
                Some(acks) = self.acks.recv() => {
                    session.send(&acks);
                    Ok(())
                }
                Ok(()) = self.held.changed() => {
                    // Deliveries that are not acked come again, to the worker that consumes them
                    // then.
                    while let Ok(acks) = self.acks.try_recv() {
                        session.send(&acks);
                    }
                    session.link.close().await;
                    return Ended::Shared;
                }
                event = session.events.next() => match event {
                    Some(Event::Error(error)) => Err(error.into()),
                    Some(_) => Ok(()),
                    None => Err(LinkError::new("the connection ended")),
                },
                Some((queue, delivery)) = session.streams.next() => match delivery {
                    Some(Ok(delivery)) => {
                        watch.delivered(queue);
                        self.take(session.epoch, queue, delivery);
                        Ok(())
                    }
                    Some(Err(error)) => Err(error.into()),
                    None => Err(LinkError::new(format!(
                        "the broker ended the consumer of {}",
                        session.queues[queue]
                    ))),
                },
                _ = looks.tick() => {
                    if self.shared.unacked.idle().is_some_and(|idle| idle > self.settings.idle_seconds_max) {
                        session.link.close().await;
                        return Ended::GaveBack;
                    }
                    self.look(&session.link, &session.queues, &counter, &mut watch).await
                }
            };
            if let Err(error) = done {
                return Ended::Failed(error);
            }
        }
    }

    fn take(&self, epoch: u64, queue: usize, delivery: lapin::message::Delivery) {
        let tag = delivery.delivery_tag;
        let event = message::envelope(&delivery.properties, delivery.data);
        let received_at = event.as_ref().ok().map(|envelope| envelope.received_at);
        let tag = self.shared.unacked.insert(queue, tag, received_at);
        // Whoever reads them may have gone: then the stop is near.
        let _ = self.arrivals.send(Arrival {
            epoch,
            delivery: Delivery { tag, event },
        });
    }

    /// Counts the queues, and notices a consumer that has fallen silent.
    async fn look(
        &self,
        link: &Link,
        queues: &[ShortString],
        counter: &Channel,
        watch: &mut Watch,
    ) -> Result<(), LinkError> {
        if !link.is_connected() {
            return Err(LinkError::new("the connection ended"));
        }
        let mut all = 0;
        // Queues of other workers count too: every process tells the same number.
        for queue in self.topology.queues.iter().filter(|queue| !queues.contains(queue)) {
            all += topology::count(counter, queue).await?;
        }
        for (number, queue) in queues.iter().enumerate() {
            let ready = topology::count(counter, queue).await?;
            all += ready;
            let is_busy = self.shared.unacked.has_any_of(number);
            if watch.is_silent(number, ready, is_busy) {
                return Err(LinkError::new(format!(
                    "{queue} holds {ready} events and delivers none"
                )));
            }
        }
        self.depths.set(all);
        Ok(())
    }
}

enum Ended {
    Stopped,
    /// Nobody worked on what was delivered.
    GaveBack,
    /// Other queues are this worker's from now on.
    Shared,
    Failed(LinkError),
}

impl Session {
    async fn consume(&mut self, number: usize, prefetch: u16) -> Result<(), LinkError> {
        let queue = self.queues[number].clone();
        let channel = self.link.channel().await?;
        let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
        answered("limit unacked deliveries", qos).await?;
        let consume = channel.basic_consume(
            queue,
            "hookswitch".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = answered("consume a queue", consume).await?;
        let ended = futures_util::stream::once(async move { (number, None) });
        let deliveries = consumer.map(move |delivery| (number, Some(delivery)));
        self.streams.push(deliveries.chain(ended).boxed());
        self.channels.push(channel);
        Ok(())
    }

    /// Hands acks to the connection, which sends them in this order. An ack has no answer: one that
    /// is lost with its connection comes again as a delivery.
    fn send(&self, acks: &[Ack]) {
        for ack in acks.iter().filter(|ack| ack.epoch == self.epoch) {
            let options = BasicAckOptions { multiple: ack.multiple };
            let _ = self.channels[ack.queue].basic_ack(ack.tag, options).now_or_never();
        }
    }
}

/// Since when each queue has had ready events and delivered nothing.
struct Watch(Vec<Silence>);

struct Silence {
    since: Instant,
    ready: u64,
}

impl Watch {
    fn new(queues: usize) -> Self {
        let silence = |_| Silence {
            since: Instant::now(),
            ready: 0,
        };
        Self((0..queues).map(silence).collect())
    }

    fn delivered(&mut self, queue: usize) {
        self.0[queue].since = Instant::now();
    }

    /// Where another process is the active consumer, the count goes down from time to time.
    fn is_silent(&mut self, queue: usize, ready: u64, is_busy: bool) -> bool {
        let silence = &mut self.0[queue];
        if ready == 0 || is_busy || ready < silence.ready {
            silence.since = Instant::now();
        }
        silence.ready = ready;
        silence.since.elapsed() > SILENT_SECONDS
    }
}
