//! What was refused, for people to see: a ring in memory, flushed in batches to a bounded table.

use super::answer::Cause;
use crate::{
    domain::{OrgId, RouteKey, Timestamp},
    receiver::limits::Place,
    store::{Store, rejections::Rejection},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Entries held in memory at most; the oldest go first, as in the table. Also the most that a
/// second writes to the database.
const HELD_MAX: usize = 1_024;
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a body that are kept, masked.
const HEAD_BYTES_MAX: usize = 256;

pub(super) struct Ring {
    held: Mutex<VecDeque<Rejection>>,
    wanted: Notify,
}

/// One refusal as the receiver knows it.
pub(super) struct Refused<'r> {
    /// Told to the sender as the request's id.
    pub id: Uuid,
    pub at: Timestamp,
    pub place: Place,
    pub cause: Cause,
    pub org: Option<OrgId>,
    pub bytes: u64,
    pub ids: &'r [RouteKey],
    pub body: &'r [u8],
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            held: Mutex::default(),
            wanted: Notify::new(),
        }
    }

    pub(super) fn keep(&self, refused: &Refused<'_>) {
        let rejection = Rejection {
            id: refused.id,
            at: refused.at,
            source: refused.place.source,
            endpoint: refused.place.endpoint,
            org: refused.org,
            is_claimed: refused.place.endpoint.is_none() && refused.org.is_some(),
            cause: refused.cause.as_str().to_owned(),
            status: refused.cause.status().as_u16(),
            bytes: refused.bytes,
            ids: refused.ids.to_vec(),
            head: super::mask::masked(&refused.body[..refused.body.len().min(HEAD_BYTES_MAX)]),
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        push(&mut held, rejection);
    }

    /// Flushes now rather than with the period; for tests and the end.
    pub(super) fn flush_soon(&self) {
        self.wanted.notify_one();
    }

    /// Writes what is held every second, and once more at the end. While the database is away the
    /// ring keeps the newest.
    pub(super) async fn run(&self, store: Arc<dyn Store>, kept_max: u32, stop: CancellationToken) {
        let mut every = tokio::time::interval(FLUSH_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = self.wanted.notified() => false,
                _ = every.tick() => false,
            };
            self.flush(&*store, kept_max).await;
            if stopping {
                return;
            }
        }
    }

    async fn flush(&self, store: &dyn Store, kept_max: u32) {
        let batch: Vec<_> = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner)).into();
        if batch.is_empty() {
            return;
        }
        if let Err(error) = store.record_rejections(batch.clone(), kept_max).await {
            tracing::warn!(error = %error, "{} rejections wait for the database", batch.len());
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let newer = std::mem::replace(&mut *held, batch.into());
            for rejection in newer {
                push(&mut held, rejection);
            }
        }
    }
}

fn push(held: &mut VecDeque<Rejection>, rejection: Rejection) {
    if held.len() >= HELD_MAX {
        held.pop_front();
    }
    held.push_back(rejection);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Source;

    #[test]
    fn the_ring_keeps_the_newest_up_to_its_limit_and_says_what_is_only_claimed() {
        let ring = Ring::new();
        let org = OrgId::generate();
        for n in 0..=HELD_MAX as u64 {
            ring.keep(&Refused {
                id: Uuid::now_v7(),
                at: Timestamp::from_seconds(1),
                place: Place {
                    source: Source::Vapi,
                    endpoint: None,
                },
                cause: Cause::BadSignature,
                org: Some(org),
                bytes: n,
                ids: &[],
                body: b"{\"secret\":\"hunter2\"}",
            });
        }
        let held = ring.held.lock().unwrap();
        assert_eq!((held.len(), held[0].bytes), (HELD_MAX, 1));
        let last = held.back().unwrap();
        assert!(
            last.is_claimed && last.status == 401 && last.cause == "bad_signature" && !last.head.contains("hunter2"),
            "{last:?}"
        );
    }
}
