//! The change of the key-encryption key while everything runs: each instance reports the keys that
//! it holds, a key that all of them hold becomes primary, and the data keys are wrapped with it.
//!
//! **Invariant:** no instance seals with a key that another live one lacks.

use super::{Vault, VaultError};
use crate::{
    domain::KeyId,
    store::{
        StoreError,
        audit::AuditEntry,
        keys::DataKeyRow,
        rotation::{
            DataKeyPlace, INSTANCE_LIVES_FOR, Instance, KeyRotation, Promotion, Rewrapped, RotationLease, Stored,
        },
    },
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often an instance reports: three times within its life.
const REPORT_EVERY: Duration = Duration::from_secs(10);
const _: () = assert!(REPORT_EVERY.as_secs() * 3 < INSTANCE_LIVES_FOR.as_secs());

/// Reports this process and its keys, and has its vault seal with the primary key.
#[derive(Clone)]
pub struct Reporter {
    vault: Arc<Vault>,
    store: Arc<dyn KeyRotation>,
    instance: Instance,
}

impl Reporter {
    /// The ring and the key that seals are filled in at each report.
    #[must_use]
    pub fn new(vault: Arc<Vault>, store: Arc<dyn KeyRotation>, instance: Instance) -> Self {
        Self { vault, store, instance }
    }

    /// One report. Returns the primary key where the ring lacks it: nothing may be sealed then.
    ///
    /// # Errors
    /// The database is away.
    pub async fn report(&self) -> Result<Option<KeyId>, StoreError> {
        let instance = || Instance {
            ring: self.vault.key_ids(),
            sealing: self.vault.primary_key(),
            ..self.instance.clone()
        };
        let before = self.vault.primary_key();
        let primary = self.store.report_instance(instance()).await?;
        if !self.vault.seal_with(&primary) {
            return Ok(Some(primary));
        }
        if before != primary {
            tracing::info!(key = %primary, "This process seals with the key {primary} from now on");
            self.store.report_instance(instance()).await?;
        }
        Ok(None)
    }

    /// The first report, before anything is sealed. A database that is read only for now takes
    /// none. It takes no promotion either, so the primary key is read and the report comes later.
    ///
    /// # Errors
    /// The database is away.
    pub async fn begin(&self) -> Result<Option<KeyId>, StoreError> {
        match self.report().await {
            Err(error) => {
                tracing::warn!(%error, "This process could not report its keys; it tries again by itself");
                let primary = self.store.load_primary_key().await?.map(|primary| primary.key);
                Ok(primary.filter(|key| !self.vault.seal_with(key)))
            }
            reported => reported,
        }
    }

    /// The process ends: nobody waits for its reports.
    pub async fn forget(&self) {
        // Without a database it counts as live for some seconds more.
        let _ = self.store.forget_instance(self.instance.id).await;
    }

    /// Reports each period, and when the configuration changed: a promotion is such a change.
    pub async fn run(self, mut changes: watch::Receiver<i64>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(REPORT_EVERY) => {}
                Ok(()) = changes.changed() => {}
            }
            match self.report().await {
                Ok(None) => {}
                Ok(Some(key)) => tracing::error!(
                    key = %key,
                    "The ring lacks the primary key {key}: add it to HOOKSWITCH_KEYRING and restart this process"
                ),
                // Logged by whoever needs the database for more than this.
                Err(error) => tracing::debug!(%error, "This process could not report its keys"),
            }
        }
        self.forget().await;
    }
}

/// Data keys that one step wraps again.
const STEP_MAX: u32 = 200;
/// A rotation without a step for so long is taken up by another process.
pub(super) const ROTATION_LEASE: Duration = Duration::from_secs(10);

/// A data key that could not be wrapped again. It stays as it is.
#[derive(Debug)]
pub struct SetAside {
    pub place: DataKeyPlace,
    /// The key that it is wrapped with.
    pub key: KeyId,
    pub error: VaultError,
}

/// Makes a key primary where every live instance holds it, and takes its rotation.
///
/// # Errors
/// The database is away.
pub async fn promote(store: &dyn KeyRotation, key: KeyId, audit: AuditEntry) -> Result<Promotion, StoreError> {
    store.promote_key(key, ROTATION_LEASE, audit).await
}

/// One step of a rotation.
#[derive(Debug, Default)]
pub struct RotationStep {
    pub rewrapped: u64,
    pub set_aside: Vec<SetAside>,
    /// Where the next step goes on; `None` at the end.
    pub next: Option<DataKeyPlace>,
    /// Another process has the rotation: this step stored nothing.
    pub is_taken_over: bool,
}

impl Vault {
    /// Wraps some data keys behind `after` with the primary key, which this vault seals with. A row
    /// that does not open is set aside, and the rest goes on. It can be cut off and begun again at
    /// any time.
    ///
    /// # Errors
    /// The database is away.
    pub async fn rotate_step(
        &self,
        store: &dyn KeyRotation,
        lease: &RotationLease,
        after: Option<DataKeyPlace>,
    ) -> Result<RotationStep, StoreError> {
        let rows = store.list_data_keys_under_others(&lease.key, after, STEP_MAX).await?;
        let is_last = rows.len() < STEP_MAX as usize;
        let mut step = RotationStep {
            next: rows.last().filter(|_| !is_last).map(place),
            ..RotationStep::default()
        };
        let mut rewrapped = Vec::with_capacity(rows.len());
        for row in rows {
            match self.rewrap(&row) {
                Ok(None) => {}
                Ok(Some(to)) => rewrapped.push(Rewrapped { from: row.kek, row: to }),
                Err(error) => step.set_aside.push(SetAside {
                    place: place(&row),
                    key: row.kek,
                    error,
                }),
            }
        }
        // Also without a row: a step shows that its process lives.
        match store.rewrap_data_keys(lease, ROTATION_LEASE, rewrapped).await? {
            Stored::Rewrapped(rewrapped) => step.rewrapped = rewrapped,
            Stored::TakenOver => step.is_taken_over = true,
        }
        Ok(step)
    }
}

fn place(row: &DataKeyRow) -> DataKeyPlace {
    (row.org, row.version)
}
