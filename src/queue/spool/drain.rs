//! The drain: publishes the spool's entries to the broker, in order within a subject, until the
//! spool is empty.

use super::Shared;
use crate::{
    domain::{Envelope, OrgId, VerifiedEvent},
    queue::{
        DeliveryTag, PublishError, envelope,
        log::{LogDeliveries, Record},
    },
    telemetry::catalogue,
};
use bytes::Bytes;
use futures_util::future::join_all;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Entries that are published at the same time, as far as their subjects differ.
const BATCH: usize = 256;
/// Waits between two tries while the broker takes nothing.
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

/// The outcome of publishing one entry.
enum Drained {
    Confirmed,
    /// The broker will never take it.
    RefusedForGood(PublishError),
    /// The broker takes it later, or may have taken it.
    NotYet(PublishError),
}

pub(super) async fn run(shared: Arc<Shared>, records: LogDeliveries, stop: CancellationToken) {
    stop.run_until_cancelled(drain(&shared, records)).await;
}

async fn drain(shared: &Shared, mut records: LogDeliveries) {
    loop {
        shared.go_direct_if_drained();
        let batch = tokio::select! {
            biased;
            batch = records.next_records(BATCH) => batch,
            // An append can end without an entry, when the disk refuses it.
            () = shared.appends_ended.notified() => continue,
        };
        match batch {
            Ok(batch) if batch.is_empty() => return,
            Ok(batch) => drain_batch(shared, &mut records, batch).await,
            Err(error) => {
                error!(%error, "The spool cannot be read: its events wait on the disk");
                sleep(DISK_WAIT).await;
            }
        }
    }
}

/// Publishes a batch until the broker has taken or refused each entry.
async fn drain_batch(shared: &Shared, records: &mut LogDeliveries, batch: Vec<Record>) {
    let mut left = Vec::with_capacity(batch.len());
    for record in batch {
        match envelope::decode(&record.payload) {
            Ok(event) => left.push(Entry {
                tag: record.tag,
                payload: record.payload,
                // It was verified before it was spooled.
                event: VerifiedEvent::from_verified(event),
            }),
            Err(error) => {
                set_aside(shared, record.tag, &record.payload, &error.to_string()).await;
                records.acknowledge(&[record.tag]);
            }
        }
    }
    let mut wait = None;
    while !left.is_empty() {
        // After a failure a single entry tests whether the broker is back.
        let count = if wait.is_some() { 1 } else { left.len() };
        let outcomes = publish_in_order(shared, &left[..count]).await;
        let mut problem = None;
        let mut done = Vec::with_capacity(count);
        for (entry, outcome) in left.iter().zip(outcomes) {
            match outcome {
                Drained::Confirmed => {
                    catalogue::SPOOL_EVENTS.count(1, &["drained"]);
                    done.push(entry.tag);
                }
                Drained::RefusedForGood(error) => {
                    set_aside(shared, entry.tag, &entry.payload, &error.to_string()).await;
                    done.push(entry.tag);
                }
                Drained::NotYet(error) => problem = Some(error),
            }
        }
        records.acknowledge(&done);
        left.retain(|entry| !done.contains(&entry.tag));
        wait = match (problem, wait) {
            (None, _) => None,
            (Some(error), None) => {
                warn!(%error, "The spool waits for the broker");
                Some(WAIT_MIN)
            }
            (Some(_), Some(before)) => Some((before * 2).min(WAIT_MAX)),
        };
        if let Some(wait) = wait {
            sleep(wait).await;
        }
    }
}

/// Publishes entries at the same time, those of one subject one after the other. Behind an entry
/// that was not confirmed its subject waits, so that the order holds.
async fn publish_in_order(shared: &Shared, entries: &[Entry]) -> Vec<Drained> {
    let mut subjects: HashMap<(Option<OrgId>, &str), Vec<usize>> = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let Envelope { org, subject, .. } = entry.event.envelope();
        subjects.entry((*org, &subject.0)).or_default().push(index);
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
