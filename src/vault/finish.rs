//! Finishes a rotation whose operator or process is gone: each process that lives looks from time
//! to time for one that is under way and that nobody holds.
//!
//! **Invariant:** a rotation is over only when every live instance seals with the primary key and a
//! whole pass found nothing more to wrap.

use super::{
    Vault,
    rotate::{ROTATION_LEASE, SetAside},
};
use crate::{
    domain::KeyId,
    store::{
        StoreError,
        rotation::{KeyRotation, RotationLease},
    },
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Between two looks. With the lease, it bounds the time that the rotation of a killed process
/// rests.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Before the next try at data keys that need a key which this ring lacks.
const ELSEWHERE_AFTER: Duration = Duration::from_mins(10);

/// Goes on with a rotation that was left in the middle.
pub struct RotationFinisher {
    vault: Arc<Vault>,
    store: Arc<dyn KeyRotation>,
}

/// What a pass over the data keys has come to.
enum Passed {
    Finished,
    /// It wrapped some, or an instance may still make a data key under a former key.
    Again,
    /// These keys are in no ring of this process.
    Lacks(BTreeSet<KeyId>),
    TakenOver,
}

impl RotationFinisher {
    #[must_use]
    pub fn new(vault: Arc<Vault>, store: Arc<dyn KeyRotation>) -> Self {
        Self { vault, store }
    }

    pub async fn run(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.look(&stop).await {
                // The lease ends, and the next look goes on.
                debug!(%error, "A rotation of keys cannot be looked at for now");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn look(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let Some(lease) = self.store.take_rotation(ROTATION_LEASE).await? else {
            return Ok(());
        };
        let key = &lease.key;
        let again_after = match self.pass(&lease, stop).await? {
            Passed::TakenOver => return Ok(()),
            Passed::Finished => {
                info!(key = %key, "The rotation to the key {key} is finished");
                None
            }
            Passed::Again => Some(Duration::ZERO),
            Passed::Lacks(keys) => {
                let names: Vec<_> = keys.iter().map(ToString::to_string).collect();
                warn!(
                    key = %key,
                    "The rotation to the key {key} waits: this process needs the keys {} in its HOOKSWITCH_KEYRING",
                    names.join(", ")
                );
                Some(ELSEWHERE_AFTER)
            }
        };
        self.store.leave_rotation(&lease, again_after).await
    }

    async fn pass(&self, lease: &RotationLease, stop: &CancellationToken) -> Result<Passed, StoreError> {
        if !self.vault.seal_with(&lease.key) {
            return Ok(Passed::Lacks([lease.key.clone()].into()));
        }
        let (mut after, mut rewrapped, mut set_aside) = (None, 0, Vec::new());
        loop {
            let step = self.vault.rotate_step(&*self.store, lease, after).await?;
            if step.is_taken_over {
                return Ok(Passed::TakenOver);
            }
            rewrapped += step.rewrapped;
            set_aside.extend(step.set_aside);
            after = step.next;
            if after.is_none() {
                break;
            }
            if stop.is_cancelled() {
                return Ok(Passed::Again);
            }
        }
        if rewrapped > 0 {
            info!(key = %lease.key, "Went on with the rotation to the key {}: {rewrapped} data keys", lease.key);
            return Ok(Passed::Again);
        }
        let instances = self.store.load_instances().await?;
        if instances.iter().any(|seen| seen.instance.sealing != lease.key) {
            return Ok(Passed::Again);
        }
        let lacks = self.lacks(&set_aside);
        Ok(if lacks.is_empty() {
            Passed::Finished
        } else {
            Passed::Lacks(lacks)
        })
    }

    /// Keys that only another ring has. A data key that is damaged opens nowhere.
    fn lacks(&self, set_aside: &[SetAside]) -> BTreeSet<KeyId> {
        let ring = self.vault.key_ids();
        let keys = set_aside.iter().map(|one| &one.key);
        keys.filter(|key| !ring.contains(key)).cloned().collect()
    }
}
