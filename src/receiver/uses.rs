//! When each signing secret verified last: kept in memory, and written in batches, so that a
//! webhook costs no write.

use crate::{
    domain::{OrgId, SecretId, Timestamp},
    store::{Store, endpoints::SecretUse},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const FLUSH_EVERY: Duration = Duration::from_mins(1);
/// Rows of one write, so that it holds a single writer up for a moment only.
const ROWS_MAX: usize = 500;

type Uses = HashMap<(OrgId, SecretId), Timestamp>;

/// One entry a secret, so the secrets of all organisations bound it.
#[derive(Default)]
pub(super) struct SecretUses {
    uses: Mutex<Uses>,
    wanted: Notify,
}

impl SecretUses {
    pub(super) fn note(&self, org: OrgId, secret: SecretId, at: Timestamp) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let known = uses.entry((org, secret)).or_insert(at);
        *known = at.max(*known);
    }

    pub(super) fn flush_soon(&self) {
        self.wanted.notify_one();
    }

    /// Writes every minute, and once more at the end.
    pub(super) async fn run(&self, store: Arc<dyn Store>, stop: CancellationToken) {
        let mut every = tokio::time::interval(FLUSH_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = self.wanted.notified() => false,
                _ = every.tick() => false,
            };
            self.flush(&*store).await;
            if stopping {
                return;
            }
        }
    }

    /// While the database is away the uses stay in memory; a newer use of the same secret wins.
    async fn flush(&self, store: &dyn Store) {
        let taken: Uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        let mut rows: Vec<SecretUse> = taken
            .into_iter()
            .map(|((org, secret), at)| SecretUse { org, secret, at })
            .collect();
        // In one order, so that two receivers never wait for each other.
        rows.sort_unstable_by_key(|row| (row.org, row.secret));
        for (at, chunk) in rows.chunks(ROWS_MAX).enumerate() {
            if let Err(error) = store.record_secret_uses(chunk.to_vec()).await {
                let left = &rows[at * ROWS_MAX..];
                tracing::warn!(%error, "The last uses of {} signing secrets wait for the database", left.len());
                for row in left {
                    self.note(row.org, row.secret, row.at);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_use_of_each_secret_is_kept() {
        let uses = SecretUses::default();
        let (org, one, other) = (OrgId::generate(), SecretId::generate(), SecretId::generate());
        for (secret, seconds) in [(one, 5), (other, 7), (one, 9), (one, 8)] {
            uses.note(org, secret, Timestamp::from_seconds(seconds));
        }
        let kept = uses.uses.lock().expect("whole");
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[&(org, one)], Timestamp::from_seconds(9));
    }
}
