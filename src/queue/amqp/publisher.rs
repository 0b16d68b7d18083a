//! Publishes events, and keeps the connection for it alive.
//!
//! The supervisor rebuilds everything after any error: connection, topology, channels. Nothing of
//! a connection that failed is used again.

use super::{
    AmqpSettings,
    backoff::Backoff,
    connection::{Events, Fault, Link, LinkError, answered},
    depths::Depths,
    lane::{Job, Lane, Signals, Ticket},
    limits::BrokerLimits,
    message,
    topology::Topology,
    url::Address,
};
use crate::{domain::Envelope, queue::PublishError};
use futures_util::StreamExt;
use lapin::{Event, options::ConfirmSelectOptions};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Most channels that publish side by side. All events of one queue go over the same channel. A
/// queue that takes nothing blocks its channel after some events, and with it the queues beside it.
const LANES_MAX: usize = 32;
/// A queue that missed a confirm gets one event for a trial this often, and refuses the others at
/// once.
const TRIAL_PERIOD: Duration = Duration::from_secs(5);
/// A connection that answers and confirms nothing for this long is given up all the same.
const UNCONFIRMED_SECONDS_MAX: Duration = Duration::from_secs(30);
/// Time between two looks at the connection's state, in case that an event of it was missed.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Where publishers find the channels, or why there are none.
enum Channels {
    Open(Lanes),
    Away(Arc<str>),
}

type Lanes = Arc<[mpsc::UnboundedSender<Box<Job>>]>;

pub(super) struct Publisher {
    channels: RwLock<Channels>,
    topology: Arc<Topology>,
    signals: Arc<Signals>,
    settings: Arc<AmqpSettings>,
    limits: BrokerLimits,
    /// By queue, when it last missed a confirm and none has come since.
    silent: Box<[Mutex<Option<Instant>>]>,
    /// The outcome of the first tries to connect, for the caller that opens the queue.
    first: watch::Sender<Option<Result<(), LinkError>>>,
}

impl Publisher {
    pub fn new(topology: Arc<Topology>, settings: Arc<AmqpSettings>) -> Self {
        Self {
            channels: RwLock::new(Channels::Away("the first connection is not made yet".into())),
            silent: topology.queues.iter().map(|_| Mutex::default()).collect(),
            topology,
            signals: Arc::default(),
            settings,
            limits: BrokerLimits::default(),
            first: watch::Sender::new(None),
        }
    }

    /// Whether the broker would take the event, by its limits.
    pub fn check(&self, envelope: &Envelope) -> Result<(), PublishError> {
        self.limits.check(envelope, &message::properties(envelope))
    }

    /// Waits for the confirm, at most for the time that the settings allow.
    pub async fn publish(&self, envelope: &Envelope) -> Result<(), PublishError> {
        let properties = message::properties(envelope);
        self.limits.check(envelope, &properties)?;
        let number = self.topology.queue_of(&envelope.subject);
        let away = |reason: &Arc<str>| Err(PublishError::Unavailable { reason: reason.clone() });
        if !self.may_try(number) {
            return away(&format!("the queue {} confirms nothing", self.topology.queues[number]).into());
        }
        let (answer, wait) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let job = Box::new(Job {
            id: envelope.id,
            queue: self.topology.queues[number].clone(),
            properties,
            body: envelope.body.clone(),
            ticket: ticket.clone(),
            answer,
        });
        match &*self.channels.read().unwrap_or_else(PoisonError::into_inner) {
            Channels::Away(reason) => return away(reason),
            Channels::Open(lanes) => {
                if lanes[number % lanes.len()].send(job).is_err() {
                    return away(&"the connection is being rebuilt".into());
                }
            }
        }
        let time = self.settings.confirm_seconds_max;
        match tokio::time::timeout(time, wait).await {
            Ok(Ok(outcome)) => {
                if outcome.is_ok() {
                    *self.silence_of(number) = None;
                }
                outcome
            }
            Ok(Err(_)) => Err(PublishError::Unknown {
                reason: "the connection ended before the confirm".into(),
            }),
            Err(_) => {
                self.signals.is_late.notify_one();
                self.silence_of(number).get_or_insert_with(Instant::now);
                let reason: Arc<str> = format!("no confirm within {time:?}").into();
                if ticket.abandon() {
                    away(&reason)
                } else {
                    Err(PublishError::Unknown { reason })
                }
            }
        }
    }

    fn silence_of(&self, number: usize) -> MutexGuard<'_, Option<Instant>> {
        self.silent[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues that missed a confirm, and none has come since.
    pub fn silent(&self) -> usize {
        (0..self.silent.len())
            .filter(|number| self.silence_of(*number).is_some())
            .count()
    }

    /// Whether an event may go to the queue. One that missed a confirm gets a trial now and then:
    /// the others would only wait for the deadline, and pile up at the broker.
    fn may_try(&self, number: usize) -> bool {
        match &mut *self.silence_of(number) {
            Some(tried_at) if tried_at.elapsed() < TRIAL_PERIOD => false,
            Some(tried_at) => {
                *tried_at = Instant::now();
                true
            }
            None => true,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(
            &*self.channels.read().unwrap_or_else(PoisonError::into_inner),
            Channels::Open(_)
        )
    }

    /// Waits for the outcome of the first tries to connect.
    pub async fn first_outcome(&self) -> Result<(), LinkError> {
        let mut first = self.first.subscribe();
        let outcome = first.wait_for(Option::is_some).await;
        outcome.map_or_else(
            |_| Err(LinkError::new("the queue was closed")),
            |outcome| outcome.clone().unwrap_or(Ok(())),
        )
    }

    fn set(&self, channels: Channels) {
        *self.channels.write().unwrap_or_else(PoisonError::into_inner) = channels;
    }

    /// Keeps a connection until the stop, and makes a new one after each failure.
    pub async fn run(&self, addresses: Vec<Address>, depths: Arc<Depths>, stop: CancellationToken) {
        let mut backoff = Backoff::new(addresses.len());
        loop {
            let address = &addresses[backoff.address()];
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                opened = self.open(address) => opened,
            };
            let error = match opened {
                Ok(session) => {
                    info!("Publishing through RabbitMQ at {address}");
                    backoff.reset();
                    let error = self.serve(session, &depths, &stop).await;
                    if stop.is_cancelled() {
                        break;
                    }
                    error
                }
                Err(error) => error,
            };
            warn!(%error, "No event can be published through RabbitMQ at {address}; it is tried again");
            self.set(Channels::Away(error.reason.clone()));
            if backoff.has_tried_all() || error.fault == Fault::Final {
                self.first.send_if_modified(|first| {
                    let is_first = first.is_none();
                    first.get_or_insert(Err(error.clone()));
                    is_first
                });
            }
            if backoff.wait_or(&stop).await {
                break;
            }
        }
        self.set(Channels::Away("the queue was closed".into()));
    }

    async fn open(&self, address: &Address) -> Result<Session, LinkError> {
        let (link, events) = Link::open(address, &self.settings, "hookswitch publishes").await?;
        self.topology.declare(&link).await?;
        self.limits.learn(&link, &self.settings).await?;
        self.topology.written(&link).await?;
        let lanes = self.topology.queues.len().min(LANES_MAX);
        let give_up: Vec<Arc<Notify>> = (0..lanes).map(|_| Arc::default()).collect();
        let mut session = Session {
            link,
            events,
            senders: Vec::new(),
            give_up,
            lanes: JoinSet::new(),
            stop_lanes: CancellationToken::new(),
        };
        for give_up in &session.give_up {
            let channel = session.link.channel().await?;
            answered(
                "confirm publishes",
                channel.confirm_select(ConfirmSelectOptions::default()),
            )
            .await?;
            let (jobs, fresh) = mpsc::unbounded_channel();
            let lane = Lane::new(channel, self.signals.clone());
            session
                .lanes
                .spawn(lane.run(fresh, give_up.clone(), session.stop_lanes.clone()));
            session.senders.push(jobs);
        }
        Ok(session)
    }

    /// Opens the channels and watches over it. Returns why it had to be closed again.
    async fn serve(&self, session: Session, depths: &Depths, stop: &CancellationToken) -> LinkError {
        let Session {
            link,
            mut events,
            senders,
            give_up,
            mut lanes,
            stop_lanes,
        } = session;
        let channels: Arc<[_]> = senders.into();
        for number in 0..self.silent.len() {
            *self.silence_of(number) = None;
        }
        self.set(Channels::Open(channels.clone()));
        self.first.send_replace(Some(Ok(())));
        let error = tokio::select! {
            () = stop.cancelled() => LinkError::new("the queue was closed"),
            error = self.watch(&link, &mut events, &mut lanes, (&channels, &give_up)) => error,
            error = depths.keep_for_publisher(&link, &self.topology) => error,
        };
        self.set(Channels::Away(error.reason.clone()));
        drop(channels);
        if stop.is_cancelled() {
            // Events that were accepted still go out, within the deadline of a publish.
            let ending = async { while lanes.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(self.settings.confirm_seconds_max, ending).await;
            link.close().await;
            return error;
        }
        stop_lanes.cancel();
        while lanes.join_next().await.is_some() {}
        error
    }

    async fn watch(
        &self,
        link: &Link,
        events: &mut Events,
        lanes: &mut JoinSet<Arc<str>>,
        (channels, give_up): (&Lanes, &[Arc<Notify>]),
    ) -> LinkError {
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_blocked = false;
        let mut late = Late::default();
        loop {
            let mut blocked_now = is_blocked;
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        warn!(%reason, "RabbitMQ takes no events for now: an alarm stands");
                        blocked_now = true;
                    }
                    Some(Event::ConnectionUnblocked) => blocked_now = false,
                    Some(Event::Error(error)) => return error.into(),
                    Some(_) => {}
                    None => return LinkError::new("the connection ended"),
                },
                Some(ended) = lanes.join_next() => {
                    return LinkError::new(ended.unwrap_or_else(|error| error.to_string().into()));
                }
                () = self.signals.is_unroutable.notified() => {
                    warn!("A queue is missing at RabbitMQ: the queues are declared again");
                    self.set(Channels::Away("a queue is missing and is made again".into()));
                    if let Err(error) = self.declare(link).await {
                        return error;
                    }
                    if !is_blocked {
                        self.set(Channels::Open(channels.clone()));
                    }
                }
                () = self.signals.is_late.notified(), if !is_blocked => {
                    let before = self.signals.confirms();
                    let is_dead = late.note(before).elapsed() >= UNCONFIRMED_SECONDS_MAX
                        || !answers(link, self.settings.confirm_seconds_max).await
                            && self.signals.confirms() == before;
                    if is_dead {
                        return LinkError::new("it confirms nothing any more");
                    }
                }
                _ = look.tick() => {
                    if !link.is_connected() {
                        return LinkError::new("the connection ended");
                    }
                    blocked_now = link.is_blocked();
                }
            }
            if blocked_now != is_blocked {
                is_blocked = blocked_now;
                self.set_blocked(is_blocked, channels, give_up);
            }
        }
    }

    async fn declare(&self, link: &Link) -> Result<(), LinkError> {
        self.topology.declare(link).await?;
        self.topology.written(link).await
    }

    /// Refuses publishes while an alarm of the broker blocks the connection.
    fn set_blocked(&self, is_blocked: bool, channels: &Lanes, give_up: &[Arc<Notify>]) {
        if is_blocked {
            self.set(Channels::Away("RabbitMQ blocks publishing: an alarm stands".into()));
            for lane in give_up {
                lane.notify_one();
            }
        } else {
            info!("RabbitMQ takes events again");
            self.set(Channels::Open(channels.clone()));
        }
    }
}

/// Whether the broker answers on the connection. Where it does, only a queue is silent.
async fn answers(link: &Link, deadline: Duration) -> bool {
    matches!(tokio::time::timeout(deadline, link.channel()).await, Ok(Ok(_)))
}

/// Since when nothing was confirmed, and how many confirms had come by then.
#[derive(Default)]
struct Late(Option<(Instant, u64)>);

impl Late {
    /// Notes another missed confirm. Returns the first one since the last confirm of any event.
    fn note(&mut self, confirms: u64) -> Instant {
        match self.0 {
            Some((since, before)) if before == confirms => since,
            _ => self.0.insert((Instant::now(), confirms)).0,
        }
    }
}

/// One connection with its events and topology.
struct Session {
    link: Link,
    events: Events,
    senders: Vec<mpsc::UnboundedSender<Box<Job>>>,
    give_up: Vec<Arc<Notify>>,
    lanes: JoinSet<Arc<str>>,
    stop_lanes: CancellationToken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_without_a_confirm_begins_anew_with_each_confirm() {
        let second = Duration::from_secs(1);
        let mut late = Late::default();
        let begun = late.note(7);
        tokio::time::advance(second).await;
        assert_eq!(late.note(7).duration_since(begun), Duration::ZERO);
        tokio::time::advance(second).await;
        assert_eq!(
            late.note(8).duration_since(begun),
            second * 2,
            "another queue confirmed meanwhile"
        );
    }
}
