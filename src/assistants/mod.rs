//! Assistants at Vapi that Hookswitch keeps for an organisation: one for each role, however often
//! and from however many instances it is asked for.
//!
//! `admin` (a person asks) and `lifecycle` (the look at all of them) enter. **Invariant:** one
//! change of an assistant at a time over all instances: a single flight in the process, then a
//! lease with a fence in the store. The row with the marker is written before Vapi is asked to make
//! anything. So an assistant whose answer was lost is found again by its marker and adopted. A
//! change that fails makes no second assistant, and neither does a process that wakes after its
//! lease. No transaction is open during a request to Vapi.

mod changes;
mod make;
mod reconcile;
mod wanted;

pub use reconcile::Looked;
pub use wanted::{RESERVED, Wanted};

use crate::{
    domain::{AssistantRole, Clock, OrgId, Provider},
    provider::{CallError, Credential, ProviderRefusal, VapiCredential, vapi::VapiClient},
    store::{
        Store, StoreError,
        audit::{AuditEntry, Changes},
        flights::Flights,
        grants::Lease,
        managed::ManagedAssistant,
    },
    vault::{Purpose, Vault, VaultError},
};
use serde::{Deserialize, Serialize};
use std::{ops::Deref, sync::Arc, time::Duration};
use tokio::time::Instant;
use zeroize::Zeroize;

/// For one answer of Vapi.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// Covers all requests of one change, several times over.
const LEASE: Duration = Duration::from_mins(2);
/// How long a caller waits for a change that another instance makes.
const WAIT_MAX: Duration = Duration::from_secs(4);
const POLL_PERIOD: Duration = Duration::from_millis(50);

/// Why an assistant is not as it is wanted.
#[derive(Debug)]
pub enum AssistantError {
    /// The organisation has no credential for Vapi.
    NotConnected,
    /// The credential or the stored assistant does not open here.
    Undecryptable {
        words: String,
    },
    /// No URL is known that Vapi could send webhooks to.
    NoPublicUrl,
    /// Another instance is changing it.
    Busy,
    /// It was changed since its version was read.
    Stale,
    /// Vapi refuses: the assistant at Vapi is as it was.
    Refused(ProviderRefusal),
    /// Nobody knows whether Vapi has done it. The next call looks first.
    Unreachable(CallError),
    Store(StoreError),
}

impl From<StoreError> for AssistantError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<VaultError> for AssistantError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store { source, .. } => Self::Store(source),
            error => Self::Undecryptable {
                words: error.to_string(),
            },
        }
    }
}

impl From<CallError> for AssistantError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refused) if refused.http_status < 500 && refused.http_status != 429 => {
                Self::Refused(refused)
            }
            error => Self::Unreachable(error),
        }
    }
}

/// Keeps assistants. One for a process; clones of its `Arc` share the flights.
pub struct AssistantManager {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    vapi: VapiClient,
    clock: Arc<dyn Clock>,
    /// Scheme and host of ingress.
    public_url: Option<String>,
    flights: Flights<(OrgId, AssistantRole)>,
    lease: Duration,
}

/// A lease, and its end by a clock that no one sets.
struct TakenLease {
    lease: Lease,
    ends: Instant,
}

impl TakenLease {
    /// # Errors
    /// The lease may end before Vapi answers. Another process may then be at the same assistant, so
    /// nothing is written at Vapi any more (invariant 1).
    fn covers_a_write(&self) -> Result<(), AssistantError> {
        if Instant::now() + ANSWER_MAX <= self.ends {
            Ok(())
        } else {
            Err(AssistantError::Busy)
        }
    }
}

impl Deref for TakenLease {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}

/// The sealed part of a row. The secret goes into the configuration at Vapi.
#[derive(Serialize, Deserialize)]
struct SealedAssistant {
    wanted: Wanted,
    secret: String,
}

impl Drop for SealedAssistant {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Audit entries of one change, made by whoever asks for it. The changed fields are added here.
pub struct Audits {
    pub assistant: AuditEntry,
    /// Where an endpoint has to be made for its webhooks, or deleted with it.
    pub endpoint: AuditEntry,
}

impl AssistantManager {
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        vapi: VapiClient,
        clock: Arc<dyn Clock>,
        public_url: Option<String>,
    ) -> Self {
        Self {
            store,
            vault,
            vapi,
            clock,
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
            flights: Flights::default(),
            lease: LEASE,
        }
    }

    /// With leases of another length.
    #[must_use]
    pub fn with_leases(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// Makes the assistant of a role, or brings the one that there is to what is wanted. Where it
    /// is that already, nothing is changed. `expects` names the version that the caller has read, 0
    /// where there was none.
    ///
    /// # Errors
    /// Why it is not; see [`AssistantError`].
    pub async fn ensure(
        &self,
        org: OrgId,
        role: AssistantRole,
        wanted: Wanted,
        expects: Option<i64>,
        audits: Audits,
    ) -> Result<ManagedAssistant, AssistantError> {
        let flight = self.flights.of((org, role));
        let _alone = flight.lock().await;
        let credential = self.credential(org).await?;
        let lease = self.wait_for_lease(org, role).await?;
        let ensured = self.make(&credential, &lease, (role, expects), wanted, audits).await;
        // A lease that is not given back ends by itself.
        let _ = self.store.release_lease(&lease).await;
        ensured
    }

    /// Deletes the assistant of a role here and at Vapi, with the endpoint of its webhooks.
    /// `false`: there was none.
    ///
    /// # Errors
    /// Why it still stands; see [`AssistantError`].
    pub async fn delete(
        &self,
        org: OrgId,
        role: AssistantRole,
        expects: Option<i64>,
        audits: Audits,
    ) -> Result<bool, AssistantError> {
        let flight = self.flights.of((org, role));
        let _alone = flight.lock().await;
        let lease = self.wait_for_lease(org, role).await?;
        let deleted = self.remove(&lease, role, expects, audits).await;
        let _ = self.store.release_lease(&lease).await;
        deleted
    }

    async fn remove(
        &self,
        lease: &TakenLease,
        role: AssistantRole,
        expects: Option<i64>,
        audits: Audits,
    ) -> Result<bool, AssistantError> {
        let org = lease.org;
        let Some(row) = self.store.find_managed_assistant(org, role).await? else {
            return Ok(false);
        };
        check_version(expects, row.version)?;
        let credential = self.credential(org).await?;
        let id = match row.assistant_id.clone() {
            Some(id) => Some(id),
            None => self
                .find_marked(&credential, &row)
                .await?
                .map(|fields| make::id_of(&fields))
                .transpose()?,
        };
        if let Some(id) = id {
            lease.covers_a_write()?;
            self.vapi.delete_assistant(&credential, &id, ANSWER_MAX).await?;
        }
        let assistant = AuditEntry {
            changes: self.last_of(&row).await,
            ..audits.assistant
        };
        let deleted = self.store.delete_managed_assistant(org, role, lease, assistant).await?;
        if deleted {
            let before = self.store.find_endpoint(org, row.endpoint).await?;
            let endpoint = AuditEntry {
                changes: changes::of_endpoint(before.as_ref(), None),
                ..audits.endpoint
            };
            self.store.delete_endpoint(org, row.endpoint, None, endpoint).await?;
        }
        Ok(deleted)
    }

    /// What stood before a deletion. One that does not open can be deleted too.
    async fn last_of(&self, row: &ManagedAssistant) -> Changes {
        let kept = self.open(row).await.ok();
        let wanted = kept.as_ref().map(|kept| &kept.wanted);
        changes::of_config(wanted, None)
            .value("assistant_id", &row.assistant_id, ())
            .value("role", row.role, ())
            .value("name", wanted.map(|wanted| &wanted.name), ())
    }

    /// The configuration that a person asked for.
    ///
    /// # Errors
    /// It does not open here.
    pub async fn wanted(&self, row: &ManagedAssistant) -> Result<Wanted, AssistantError> {
        Ok(self.open(row).await?.wanted.clone())
    }

    async fn open(&self, row: &ManagedAssistant) -> Result<SealedAssistant, AssistantError> {
        let opened = self
            .vault
            .open(row.org, Purpose::Payload, &row.sealed, |plain| {
                serde_json::from_slice::<SealedAssistant>(plain.expose_secret())
            })
            .await?;
        opened.map_err(|_| AssistantError::Undecryptable {
            words: "the stored assistant is not in the form that this version reads".to_owned(),
        })
    }

    async fn take_lease(&self, org: OrgId, role: AssistantRole) -> Result<Option<TakenLease>, StoreError> {
        // It begins later in the store, so it ends later there.
        let ends = Instant::now() + self.lease;
        let name = format!("assistant:{role}");
        let taken = self.store.take_lease(org, &name, self.lease).await?;
        Ok(taken.map(|lease| TakenLease { lease, ends }))
    }

    async fn wait_for_lease(&self, org: OrgId, role: AssistantRole) -> Result<TakenLease, AssistantError> {
        let until = Instant::now() + WAIT_MAX;
        loop {
            if let Some(lease) = self.take_lease(org, role).await? {
                return Ok(lease);
            }
            if Instant::now() > until {
                return Err(AssistantError::Busy);
            }
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }

    async fn credential(&self, org: OrgId) -> Result<VapiCredential, AssistantError> {
        let row = self.store.find_credential(org, Provider::Vapi, "").await?;
        let Some(sealed) = row.filter(|row| row.is_active).and_then(|row| row.sealed) else {
            return Err(AssistantError::NotConnected);
        };
        let purpose = Purpose::Credential(Provider::Vapi);
        let parsed = self
            .vault
            .open(org, purpose, &sealed, |plain| Credential::parse(Provider::Vapi, plain))
            .await?;
        match parsed {
            Ok(Credential::Vapi(vapi)) => Ok(vapi),
            _ => Err(AssistantError::Undecryptable {
                words: "the stored credential is not in the form that this version reads".to_owned(),
            }),
        }
    }
}

/// Every write of a row is made under its lease, so under the lease the version stays.
///
/// # Errors
/// [`AssistantError::Stale`] where another version stands than the caller has read.
fn check_version(expects: Option<i64>, current: i64) -> Result<(), AssistantError> {
    if expects.is_none_or(|expected| expected == current) {
        Ok(())
    } else {
        Err(AssistantError::Stale)
    }
}
