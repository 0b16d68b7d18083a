//! The drain: publishes the spool's entries to the broker, in order within a subject, until the
//! spool is empty.
//!
//! A broker can take some events and not others: one of its queues may be without a leader. So each
//! subject waits by itself, and the entries of others go on.

use super::Shared;
use crate::{
    domain::{Envelope, VerifiedEvent},
    queue::{
        DeliveryTag, PublishError, envelope,
        log::{LogDeliveries, Record},
    },
    telemetry::catalogue,
};
use bytes::Bytes;
use futures_util::future::join_all;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Entries that are published at the same time, as far as their subjects differ.
const BATCH: usize = 256;
/// Entries and bytes in memory of subjects that the broker does not take now. More than that is
/// read again later.
const WAITING_ENTRIES_MAX: usize = 4096;
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Waits between two tries while the broker takes nothing of a subject.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Wait after the spool's own disk failed.
const DISK_WAIT: Duration = Duration::from_secs(5);

/// An entry of the spool, with its event.
struct Entry {
    tag: DeliveryTag,
    payload: Bytes,
    event: VerifiedEvent,
}

/// The hash of an organisation and a subject. Two subjects with one hash only wait for each other.
type SubjectHash = u64;

/// The outcome of publishing one entry.
enum Drained {
    Confirmed,
    /// The broker will never take it.
    RefusedForGood(PublishError),
    /// The broker takes it later, or may have taken it.
    NotYet(PublishError),
}

pub(super) async fn run(shared: Arc<Shared>, records: LogDeliveries, stop: CancellationToken) {
    let drain = Drain {
        shared: &shared,
        records,
        waiting: Waiting::default(),
        is_told: false,
    };
    stop.run_until_cancelled(drain.run()).await;
}

struct Drain<'s> {
    shared: &'s Shared,
    records: LogDeliveries,
    waiting: Waiting,
    /// The log says already that the broker takes nothing.
    is_told: bool,
}

impl Drain<'_> {
    async fn run(mut self) {
        loop {
            self.shared.go_direct_if_drained();
            if self.waiting.is_read_anew() {
                self.records.rewind();
            }
            let due = self.waiting.take_due(Instant::now(), BATCH);
            if !due.is_empty() {
                self.publish(due).await;
                continue;
            }
            let next = self.waiting.next_due();
            let batch = tokio::select! {
                biased;
                batch = self.records.next_records(BATCH) => batch,
                // An append can end without an entry, when the disk refuses it.
                () = self.shared.appends_ended.notified() => continue,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => continue,
            };
            match batch {
                Ok(batch) if batch.is_empty() => return,
                Ok(batch) => {
                    let entries = self.decode(batch).await;
                    let fresh = self.waiting.keep_behind(entries);
                    self.publish(fresh).await;
                }
                Err(error) => {
                    error!(%error, "The spool cannot be read: its events wait on the disk");
                    sleep(DISK_WAIT).await;
                }
            }
        }
    }

    async fn decode(&mut self, batch: Vec<Record>) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(batch.len());
        for record in batch {
            match envelope::decode(&record.payload) {
                Ok(event) => entries.push(Entry {
                    tag: record.tag,
                    payload: record.payload,
                    // It was verified before it was spooled.
                    event: VerifiedEvent::from_verified(event),
                }),
                Err(error) => {
                    set_aside(self.shared, record.tag, &record.payload, &error.to_string()).await;
                    self.records.acknowledge(&[record.tag]);
                }
            }
        }
        entries
    }

    /// Publishes entries once. Those that the broker does not take now wait, each with its subject.
    async fn publish(&mut self, entries: Vec<Entry>) {
        let outcomes = publish_in_order(self.shared, &entries).await;
        let mut done = Vec::with_capacity(entries.len());
        let mut left = Vec::new();
        let mut problem = None;
        for (entry, outcome) in entries.into_iter().zip(outcomes) {
            match outcome {
                Drained::Confirmed => {
                    catalogue::SPOOL_EVENTS.count(1, &["drained"]);
                    self.waiting.go_on(entry.subject());
                    done.push(entry.tag);
                }
                Drained::RefusedForGood(error) => {
                    set_aside(self.shared, entry.tag, &entry.payload, &error.to_string()).await;
                    self.waiting.go_on(entry.subject());
                    done.push(entry.tag);
                }
                Drained::NotYet(error) => {
                    problem = Some(error);
                    left.push(entry);
                }
            }
        }
        self.records.acknowledge(&done);
        match problem {
            None => self.is_told = false,
            Some(error) if !std::mem::replace(&mut self.is_told, true) => {
                warn!(%error, "The spool waits for the broker: {} events", left.len());
            }
            Some(_) => {}
        }
        self.waiting.put_back(left);
    }
}

impl Entry {
    fn subject(&self) -> SubjectHash {
        let Envelope { org, subject, .. } = self.event.envelope();
        let mut hasher = DefaultHasher::new();
        (org, &subject.0).hash(&mut hasher);
        hasher.finish()
    }
}

/// Entries that the broker did not take, by subject.
#[derive(Default)]
struct Waiting {
    subjects: HashMap<SubjectHash, Line>,
    entries: usize,
    bytes: usize,
    /// Subjects of which entries were left on the disk only: there was no room for them.
    on_disk: HashSet<SubjectHash>,
}

/// The entries of one subject in their order, and when the first of them is tried again.
struct Line {
    entries: VecDeque<Entry>,
    wait: Duration,
    due_at: Instant,
}

impl Waiting {
    /// Nothing waits in memory any more: what was left on the disk is read again.
    fn is_read_anew(&mut self) -> bool {
        let is_anew = self.subjects.is_empty() && !self.on_disk.is_empty();
        if is_anew {
            self.on_disk.clear();
        }
        is_anew
    }

    fn next_due(&self) -> Option<Instant> {
        self.subjects.values().map(|line| line.due_at).min()
    }

    /// Of `count_max` subjects that are due, the first entry. Once it was confirmed the others
    /// follow.
    fn take_due(&mut self, now: Instant, count_max: usize) -> Vec<Entry> {
        let mut due = Vec::new();
        for line in self
            .subjects
            .values_mut()
            .filter(|line| line.due_at <= now)
            .take(count_max)
        {
            // Until the outcome is known, nothing of the subject is due.
            line.due_at = now + WAIT_MAX;
            let count = if line.wait > Duration::ZERO {
                1
            } else {
                line.entries.len().min(BATCH)
            };
            due.extend(line.entries.drain(..count));
        }
        self.take(&due);
        due
    }

    fn take(&mut self, entries: &[Entry]) {
        self.entries -= entries.len();
        self.bytes -= entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
    }

    const fn is_full(&self) -> bool {
        self.entries >= WAITING_ENTRIES_MAX || self.bytes >= WAITING_BYTES_MAX
    }

    /// Keeps entries behind earlier ones of their subjects, and returns the others. Without room
    /// the rest of a subject is left on the disk.
    fn keep_behind(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut fresh = Vec::with_capacity(entries.len());
        for entry in entries {
            let subject = entry.subject();
            let is_full = self.is_full();
            if self.on_disk.contains(&subject) {
                continue;
            }
            match self.subjects.get_mut(&subject) {
                None => fresh.push(entry),
                Some(_) if is_full => drop(self.on_disk.insert(subject)),
                Some(line) => {
                    self.entries += 1;
                    self.bytes += entry.payload.len();
                    line.entries.push_back(entry);
                }
            }
        }
        fresh
    }

    /// Takes back what was not confirmed, in its order and before the others of its subject.
    /// Without room a subject that did not wait before is left on the disk as a whole.
    fn put_back(&mut self, entries: Vec<Entry>) {
        let mut again: HashMap<SubjectHash, Vec<Entry>> = HashMap::new();
        for entry in entries {
            again.entry(entry.subject()).or_default().push(entry);
        }
        for (subject, entries) in again {
            if self.is_full() && !self.subjects.contains_key(&subject) {
                self.on_disk.insert(subject);
                continue;
            }
            self.entries += entries.len();
            self.bytes += entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
            let line = self.subjects.entry(subject).or_default();
            line.wait = (line.wait * 2).clamp(WAIT_MIN, WAIT_MAX);
            line.due_at = Instant::now() + line.wait;
            for entry in entries.into_iter().rev() {
                line.entries.push_front(entry);
            }
        }
        self.subjects.retain(|_, line| !line.entries.is_empty());
    }

    /// The broker is done with the first entry of a subject.
    fn go_on(&mut self, subject: SubjectHash) {
        if let Some(line) = self.subjects.get_mut(&subject) {
            line.wait = Duration::ZERO;
            line.due_at = Instant::now();
        }
    }
}

impl Default for Line {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            wait: Duration::ZERO,
            due_at: Instant::now(),
        }
    }
}

/// Publishes entries at the same time, those of one subject one after the other. Behind an entry
/// that was not confirmed its subject waits, so that the order holds.
async fn publish_in_order(shared: &Shared, entries: &[Entry]) -> Vec<Drained> {
    let mut subjects: HashMap<SubjectHash, Vec<usize>> = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        subjects.entry(entry.subject()).or_default().push(index);
    }
    let publishes = subjects.into_values().map(|indexes| async move {
        let mut outcomes = Vec::with_capacity(indexes.len());
        let mut problem: Option<PublishError> = None;
        for index in indexes {
            let outcome = match &problem {
                Some(error) => Err(error.clone()),
                None => shared.publish_to_broker(&entries[index].event).await,
            };
            let outcome = match outcome {
                Ok(()) => Drained::Confirmed,
                Err(error @ PublishError::TooLarge { .. }) => Drained::RefusedForGood(error),
                Err(error) => {
                    problem = Some(error.clone());
                    Drained::NotYet(error)
                }
            };
            outcomes.push((index, outcome));
        }
        outcomes
    });
    let mut outcomes: Vec<_> = join_all(publishes).await.into_iter().flatten().collect();
    outcomes.sort_unstable_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Sets an entry aside as a dead letter, so that the rest goes on (invariant 11). Waits for the
/// disk.
async fn set_aside(shared: &Shared, tag: DeliveryTag, payload: &Bytes, reason: &str) {
    loop {
        match shared.dead.store(tag, payload.clone()).await {
            Ok(path) => {
                error!(%reason, file = %path.display(), "The broker will never take an event of the spool: it was set \
                    aside");
                catalogue::SPOOL_EVENTS.count(1, &["dead"]);
                return;
            }
            Err(error) => {
                error!(%error, "An event of the spool cannot be set aside: the spool waits for its disk");
                sleep(DISK_WAIT).await;
            }
        }
    }
}
