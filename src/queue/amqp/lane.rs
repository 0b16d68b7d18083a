//! One channel in confirm mode, and the task that owns it.
//!
//! **Invariant:** one task alone publishes on a channel. lapin counts a publish and queues its
//! frames in two steps, so that two tasks on one channel could get each other's confirm.

use super::message;
use crate::{domain::EventId, queue::PublishError};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{BasicProperties, Channel, Confirmation, options::BasicPublishOptions, types::ShortString};
use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Most publishes on one channel that wait for their confirm. Further ones wait in line.
const WINDOW: usize = 2048;

/// One event on its way to the broker.
pub(super) struct Job {
    pub id: EventId,
    pub queue: ShortString,
    pub properties: BasicProperties,
    pub body: Bytes,
    pub ticket: Arc<Ticket>,
    pub answer: oneshot::Sender<Result<(), PublishError>>,
}

/// Whether an event was handed to the connection. The lane and a publisher whose time is over both
/// decide it, and the first of them wins.
#[derive(Default)]
pub(super) struct Ticket(AtomicU8);

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const ABANDONED: u8 = 2;

impl Ticket {
    fn decide(&self, outcome: u8) -> bool {
        self.0
            .compare_exchange(QUEUED, outcome, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// `true`: nothing of the event has left and nothing will.
    pub fn abandon(&self) -> bool {
        self.decide(ABANDONED)
    }
}

/// The signals of the lanes to their supervisor.
#[derive(Default)]
pub(super) struct Signals {
    /// An event was returned: its queue is missing.
    pub is_unroutable: Notify,
    /// A publisher's time was over before its confirm came.
    pub is_late: Notify,
    confirms: AtomicU64,
}

impl Signals {
    /// Grows with each confirm.
    pub fn confirms(&self) -> u64 {
        self.confirms.load(Ordering::Relaxed)
    }
}

type Outcome = lapin::Result<Confirmation>;

pub(super) struct Lane {
    channel: Arc<Channel>,
    signals: Arc<Signals>,
    /// In flight, with their sequence numbers.
    window: FuturesUnordered<BoxFuture<'static, (u64, Outcome)>>,
    /// By sequence number. A queue that is silent for hours keeps its own, and no more.
    waiting: HashMap<u64, Waiting>,
    sequence: u64,
    /// Events that were returned and not confirmed yet, with the count of returns.
    returned: HashMap<EventId, u32>,
}

struct Waiting {
    id: EventId,
    /// Gone once the publisher was answered.
    answer: Option<oneshot::Sender<Result<(), PublishError>>>,
}

impl Lane {
    pub fn new(channel: Channel, signals: Arc<Signals>) -> Self {
        Self {
            channel: Arc::new(channel),
            signals,
            window: FuturesUnordered::new(),
            waiting: HashMap::new(),
            sequence: 0,
            returned: HashMap::new(),
        }
    }

    /// Publishes until the channel fails or the stop comes, and says why it ended. `give_up`
    /// answers everything that is in flight as unknown, and the lane goes on.
    pub async fn run(
        mut self,
        mut jobs: mpsc::UnboundedReceiver<Box<Job>>,
        give_up: Arc<Notify>,
        stop: CancellationToken,
    ) -> Arc<str> {
        let mut fresh = Vec::new();
        let mut stopped = pin!(stop.cancelled());
        let reason = loop {
            let room = WINDOW.saturating_sub(self.waiting.len());
            let ended = tokio::select! {
                biased;
                () = &mut stopped => break "the connection was given up".into(),
                () = give_up.notified() => {
                    self.answer_all(&"the broker blocks publishing".into());
                    Ok(())
                }
                Some(done) = self.window.next() => self.take_confirms(done),
                count = jobs.recv_many(&mut fresh, room.min(64)), if room > 0 => {
                    if count == 0 {
                        break "the queue was closed".into();
                    }
                    self.begin_all(&mut fresh)
                }
            };
            if let Err(reason) = ended {
                break reason;
            }
        };
        self.answer_all(&reason);
        jobs.close();
        while let Ok(job) = jobs.try_recv() {
            let _ = job
                .answer
                .send(Err(PublishError::Unavailable { reason: reason.clone() }));
        }
        reason
    }

    #[expect(clippy::vec_box, reason = "a job is moved several times, and is large")]
    fn begin_all(&mut self, fresh: &mut Vec<Box<Job>>) -> Result<(), Arc<str>> {
        for job in fresh.drain(..) {
            if job.ticket.decide(SENT)
                && let Some(done) = self.begin(job)
            {
                self.take_confirms(done)?;
            }
        }
        Ok(())
    }

    /// Hands an event to lapin. The first poll queues its frames, so that events leave in the order
    /// in which they came.
    fn begin(&mut self, job: Box<Job>) -> Option<(u64, Outcome)> {
        self.sequence += 1;
        let sequence = self.sequence;
        let channel = self.channel.clone();
        let Job {
            id,
            queue,
            properties,
            body,
            answer,
            ..
        } = *job;
        let mut publish = async move {
            let options = BasicPublishOptions {
                mandatory: true,
                immediate: false,
            };
            let sent = channel.basic_publish("".into(), queue, options, &body, properties);
            let outcome = match sent.await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (sequence, outcome)
        }
        .boxed();
        self.waiting.insert(
            sequence,
            Waiting {
                id,
                answer: Some(answer),
            },
        );
        let done = (&mut publish).now_or_never();
        if done.is_none() {
            self.window.push(publish);
        }
        done
    }

    /// Answers what is confirmed by now.
    ///
    /// lapin attaches a returned message to any confirm that comes with it or after it, not to the
    /// confirm of its own publish. It does so before that confirm resolves. So this function takes
    /// all resolved confirms together, matches returns by our own message id, and only then
    /// answers.
    fn take_confirms(&mut self, first: (u64, Outcome)) -> Result<(), Arc<str>> {
        let mut batch = vec![first];
        while let Some(Some(done)) = self.window.next().now_or_never() {
            batch.push(done);
        }
        let mut failed = None;
        let mut confirmed = Vec::with_capacity(batch.len());
        for (sequence, outcome) in batch {
            match outcome {
                Ok(confirmation) => {
                    let is_ack = confirmation.is_ack();
                    if let Some(message) = confirmation.take_message() {
                        match message::id(&message.properties) {
                            Some(id) => *self.returned.entry(id).or_default() += 1,
                            None => failed = Some("the broker returned a message without its id".into()),
                        }
                    }
                    confirmed.push((sequence, is_ack));
                }
                Err(error) => failed = Some(error.to_string().into()),
            }
        }
        if let Some(reason) = failed {
            // None of them is sure. When the lane ends, their publishers get "unknown".
            return Err(reason);
        }
        self.signals
            .confirms
            .fetch_add(confirmed.len() as u64, Ordering::Relaxed);
        for (sequence, is_ack) in confirmed {
            self.answer(sequence, is_ack);
        }
        self.check_returned();
        Ok(())
    }

    fn answer(&mut self, sequence: u64, is_ack: bool) {
        let Some(Waiting { id, answer }) = self.waiting.remove(&sequence) else {
            return;
        };
        let outcome = if self.take_returned(id) {
            self.signals.is_unroutable.notify_one();
            Err(PublishError::Unavailable {
                reason: "the broker returned the event: its queue is missing".into(),
            })
        } else if is_ack {
            Ok(())
        } else {
            Err(PublishError::Unknown {
                reason: "the broker refused to confirm (nack)".into(),
            })
        };
        if let Some(answer) = answer {
            let _ = answer.send(outcome);
        }
    }

    fn take_returned(&mut self, id: EventId) -> bool {
        let Some(count) = self.returned.get_mut(&id) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.returned.remove(&id);
        }
        true
    }

    /// Reports returns whose publisher was answered already. They would show a mistake in the
    /// matching; none was ever seen.
    fn check_returned(&mut self) {
        if self.returned.is_empty() {
            return;
        }
        let waiting: HashSet<EventId> = self.waiting.values().map(|waiting| waiting.id).collect();
        self.returned.retain(|id, _| {
            let is_waited_for = waiting.contains(id);
            if !is_waited_for {
                error!(event.id = %id, "The broker returned event {id} after its confirm: it is not in the queue");
            }
            is_waited_for
        });
    }

    fn answer_all(&mut self, reason: &Arc<str>) {
        for waiting in self.waiting.values_mut() {
            if let Some(answer) = waiting.answer.take() {
                let _ = answer.send(Err(PublishError::Unknown { reason: reason.clone() }));
            }
        }
    }
}
