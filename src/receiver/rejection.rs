//! Refused requests for people to see: a ring in memory, flushed in batches to a bounded table.

use super::answer::Cause;
use crate::{
    domain::{OrgId, RouteKey, Timestamp},
    receiver::limits::WebhookPath,
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

/// Entries in memory at most, and so the most that a second writes to the database. The oldest go
/// first, as in the table.
const ENTRIES_MAX: usize = 1_024;
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a body that are kept, masked.
const HEAD_BYTES_MAX: usize = 256;

pub(super) struct RejectionRing {
    entries: Mutex<VecDeque<Rejection>>,
    wanted: Notify,
}

/// A refused request as the receiver knows it.
pub(super) struct Refusal<'r> {
    pub path: WebhookPath,
    pub cause: Cause,
    /// The organisation that its ids or its endpoint lead to.
    pub org: Option<OrgId>,
    pub ids: &'r [RouteKey],
    /// Empty where no one may see the body.
    pub body: &'r [u8],
    pub bytes: usize,
    /// The URL that its signature was compared over, where the source signs over it.
    pub signed_url: Option<&'r str>,
}

impl Refusal<'_> {
    /// A refusal before anything of the body was read.
    pub(super) const fn unread(path: WebhookPath, cause: Cause) -> Self {
        Self {
            path,
            cause,
            org: None,
            ids: &[],
            body: &[],
            bytes: 0,
            signed_url: None,
        }
    }
}

impl RejectionRing {
    pub(super) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            wanted: Notify::new(),
        }
    }

    /// Keeps a refusal. `id` stands in the answer to its sender.
    pub(super) fn keep(&self, id: Uuid, at: Timestamp, refused: &Refusal<'_>) {
        let rejection = Rejection {
            id,
            at,
            source: refused.path.source,
            endpoint: refused.path.endpoint,
            org: refused.org,
            is_claimed: refused.path.endpoint.is_none() && refused.org.is_some(),
            cause: refused.cause.as_str().to_owned(),
            status: refused.cause.status().as_u16(),
            bytes: refused.bytes as u64,
            ids: refused.ids.to_vec(),
            signed_url: refused.signed_url.map(without_query),
            head: super::mask::masked(&refused.body[..refused.body.len().min(HEAD_BYTES_MAX)]),
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        push(&mut entries, rejection);
    }

    /// Flushes now rather than with the period; for tests and the end.
    pub(super) fn flush_soon(&self) {
        self.wanted.notify_one();
    }

    /// Writes all entries every second, and once more at the end. While the database is away the
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
        let batch: Vec<_> = std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner)).into();
        if batch.is_empty() {
            return;
        }
        if let Err(error) = store.record_rejections(batch.clone(), kept_max).await {
            tracing::warn!(error = %error, "{} rejections wait for the database", batch.len());
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let newer = std::mem::replace(&mut *entries, batch.into());
            for rejection in newer {
                push(&mut entries, rejection);
            }
        }
    }
}

/// A URL for people: its query may hold anything that the sender's customer put there.
fn without_query(url: &str) -> String {
    match url.split_once('?') {
        Some((url, _)) => format!("{url}?…"),
        None => url.to_owned(),
    }
}

fn push(entries: &mut VecDeque<Rejection>, rejection: Rejection) {
    if entries.len() >= ENTRIES_MAX {
        entries.pop_front();
    }
    entries.push_back(rejection);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Source;

    #[test]
    fn the_ring_keeps_the_newest_up_to_its_limit_and_says_what_is_only_claimed() {
        let ring = RejectionRing::new();
        let org = OrgId::generate();
        for n in 0..=ENTRIES_MAX {
            let path = WebhookPath {
                source: Source::Vapi,
                endpoint: None,
            };
            let refusal = Refusal {
                org: Some(org),
                body: b"{\"secret\":\"hunter2\"}",
                bytes: n,
                ..Refusal::unread(path, Cause::BadSignature)
            };
            ring.keep(Uuid::now_v7(), Timestamp::from_seconds(1), &refusal);
        }
        let entries = ring.entries.lock().unwrap();
        assert_eq!((entries.len(), entries[0].bytes), (ENTRIES_MAX, 1));
        let last = entries.back().unwrap();
        assert!(
            last.is_claimed && last.status == 401 && last.cause == "bad_signature" && !last.head.contains("hunter2"),
            "{last:?}"
        );
    }
}
