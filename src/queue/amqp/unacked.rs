//! Deliveries that are not acked, and the acks in the form that the broker takes.

use crate::{domain::Timestamp, queue::DeliveryTag};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// One ack as the broker takes it. `multiple`: everything before on the channel too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ack {
    pub epoch: u64,
    pub queue: usize,
    pub tag: u64,
    pub multiple: bool,
}

#[derive(Default)]
pub(super) struct Unacked(Mutex<Inner>);

struct Inner {
    /// Counts connections, because a tag of an earlier one means nothing to the broker.
    epoch: u64,
    next: u64,
    /// By our own tag: the queue and the broker's tag.
    held: BTreeMap<u64, HeldDelivery>,
    /// The broker's tags by queue.
    by_queue: Vec<BTreeSet<u64>>,
    touched_at: Instant,
    is_waited_for: bool,
}

struct HeldDelivery {
    queue: usize,
    tag: u64,
    received_at: Option<Timestamp>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            epoch: 0,
            next: 0,
            held: BTreeMap::new(),
            by_queue: Vec::new(),
            touched_at: Instant::now(),
            is_waited_for: false,
        }
    }
}

impl Unacked {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins or has ended. The broker delivers all unacked events again.
    pub fn begin_epoch(&self, queues: usize) -> u64 {
        let mut inner = self.inner();
        inner.epoch += 1;
        inner.held.clear();
        inner.by_queue = vec![BTreeSet::new(); queues];
        inner.touched_at = Instant::now();
        inner.epoch
    }

    pub fn is_current(&self, epoch: u64) -> bool {
        self.inner().epoch == epoch
    }

    pub fn insert(&self, queue: usize, tag: u64, received_at: Option<Timestamp>) -> DeliveryTag {
        let mut inner = self.inner();
        if inner.held.is_empty() {
            inner.touched_at = Instant::now();
        }
        inner.next += 1;
        let ours = inner.next;
        inner.by_queue[queue].insert(tag);
        inner.held.insert(
            ours,
            HeldDelivery {
                queue,
                tag,
                received_at,
            },
        );
        DeliveryTag(ours)
    }

    /// Takes acks in any order. Those before the first delivery that stays open become one ack a
    /// queue.
    pub fn ack(&self, tags: &[DeliveryTag]) -> Vec<Ack> {
        let mut inner = self.inner();
        inner.touched_at = Instant::now();
        let mut done: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        for tag in tags {
            if let Some(HeldDelivery { queue, tag, .. }) = inner.held.remove(&tag.0) {
                inner.by_queue[queue].remove(&tag);
                done.entry(queue).or_default().insert(tag);
            }
        }
        let epoch = inner.epoch;
        let mut acks = Vec::new();
        for (queue, mut tags) in done {
            let ack = |tag, multiple| Ack {
                epoch,
                queue,
                tag,
                multiple,
            };
            let later = match inner.by_queue[queue].first() {
                Some(open) => tags.split_off(open),
                None => BTreeSet::new(),
            };
            acks.extend(tags.last().map(|last| ack(*last, true)));
            acks.extend(later.into_iter().map(|tag| ack(tag, false)));
        }
        acks
    }

    pub fn len(&self) -> u64 {
        self.inner().held.len() as u64
    }

    pub fn count_of(&self, queue: usize) -> usize {
        self.inner().by_queue.get(queue).map_or(0, BTreeSet::len)
    }

    pub fn oldest_received_at(&self) -> Option<Timestamp> {
        self.inner().held.values().filter_map(|held| held.received_at).min()
    }

    /// While the guard lives, the worker waits for deliveries.
    pub fn wait(&self) -> Waits<'_> {
        self.inner().is_waited_for = true;
        Waits(self)
    }

    /// How long the worker has held deliveries without an ack and without asking for more.
    pub fn idle(&self) -> Option<Duration> {
        let inner = self.inner();
        (!inner.is_waited_for && !inner.held.is_empty()).then(|| inner.touched_at.elapsed())
    }
}

pub(super) struct Waits<'a>(&'a Unacked);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.is_waited_for = false;
        inner.touched_at = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_from_the_front_is_one_ack() {
        let unacked = Unacked::default();
        let epoch = unacked.begin_epoch(2);
        let tags: Vec<_> = (1..=6).map(|tag| unacked.insert(0, tag, None)).collect();
        let other = unacked.insert(1, 1, None);
        let ack = |queue, tag, multiple| Ack {
            epoch,
            queue,
            tag,
            multiple,
        };
        assert_eq!(unacked.ack(&[tags[4], tags[1]]), [ack(0, 2, false), ack(0, 5, false)]);
        assert_eq!(
            unacked.ack(&[tags[2], tags[0], other]),
            [ack(0, 3, true), ack(1, 1, true)]
        );
        assert_eq!(unacked.ack(&[tags[2], other]), []);
        assert_eq!(unacked.len(), 2);
        assert_eq!(unacked.ack(&[tags[3], tags[5]]), [ack(0, 6, true)]);
    }

    #[test]
    fn what_an_earlier_connection_delivered_is_acked_by_nobody() {
        let unacked = Unacked::default();
        unacked.begin_epoch(1);
        let tag = unacked.insert(0, 1, None);
        unacked.begin_epoch(1);
        let again = unacked.insert(0, 1, None);
        assert_eq!(unacked.ack(&[tag]), []);
        assert_ne!(tag, again);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_not_idle() {
        let unacked = Unacked::default();
        unacked.begin_epoch(1);
        assert_eq!(unacked.idle(), None);
        unacked.insert(0, 1, None);
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(unacked.idle(), Some(Duration::from_secs(40)));
        let waits = unacked.wait();
        assert_eq!(unacked.idle(), None);
        drop(waits);
        assert_eq!(unacked.idle(), Some(Duration::ZERO));
    }
}
