//! Looks at every kept assistant from time to time: what differs at Vapi is reported, and an
//! assistant that was deleted there is made again.

use super::{AssistantError, AssistantManager, TakenLease, make, wanted};
use crate::{
    domain::{AssistantRole, ManagedAssistantState, OrgId, Timestamp},
    store::{
        audit::{AuditEntry, Changes},
        managed::ManagedAssistant,
    },
    telemetry::catalogue,
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two looks at one assistant.
const CHECK_EVERY: Duration = Duration::from_mins(10);
/// Between two looks for assistants that are due.
const PERIOD: Duration = Duration::from_secs(30);
/// Looked at in one turn. Where more are due the next turn follows at once.
const DUE_MAX: u32 = 100;
/// Looks at once in one process: an organisation whose Vapi is slow holds up few others.
const CONCURRENT_MAX: usize = 8;

/// The result of one look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Looked {
    InStep,
    Drifted,
    /// It was deleted at Vapi, and is made again.
    MadeAgain,
    /// It was made and its answer was lost: it is found by its marker.
    Adopted,
    /// Nobody asked for it to be made again: it never stood.
    StillMissing,
}

impl Looked {
    const fn label(self) -> &'static str {
        match self {
            Self::InStep => "in_step",
            Self::Drifted => "drifted",
            Self::MadeAgain => "made_again",
            Self::Adopted => "adopted",
            Self::StillMissing => "missing",
        }
    }
}

impl AssistantManager {
    /// Looks at what is due until `stop`; a look that was begun is finished.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let before = self.clock.now() - CHECK_EVERY;
            let has_more = match self.store.list_assistants_to_check(before, DUE_MAX).await {
                Ok(due) => {
                    let is_full = due.len() == DUE_MAX as usize;
                    self.look_at(due, before, &stop).await && is_full
                }
                Err(error) => {
                    info!(%error, "Assistants cannot be looked at for now");
                    false
                }
            };
            if has_more && !stop.is_cancelled() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Whether any was looked at: those that other instances are at come to nothing here.
    async fn look_at(
        self: &Arc<Self>,
        due: Vec<(OrgId, AssistantRole)>,
        before: Timestamp,
        stop: &CancellationToken,
    ) -> bool {
        let (mut tasks, mut is_any) = (JoinSet::new(), false);
        for (org, role) in due {
            if tasks.len() >= CONCURRENT_MAX {
                is_any |= matches!(tasks.join_next().await, Some(Ok(true)));
            }
            if stop.is_cancelled() {
                break;
            }
            let manager = Arc::clone(self);
            tasks.spawn(async move { manager.look_and_tell(org, role, before).await });
        }
        while let Some(looked) = tasks.join_next().await {
            is_any |= matches!(looked, Ok(true));
        }
        is_any
    }

    /// Whether the row has its time of this look, so that it is due no more.
    async fn look_and_tell(&self, org: OrgId, role: AssistantRole, before: Timestamp) -> bool {
        let looked = self
            .look_if(org, role, |row| row.checked_at.is_none_or(|at| at <= before))
            .await;
        let is_noted = match &looked {
            Ok(looked) => looked.is_some(),
            Err(error) => !matches!(error, AssistantError::Busy | AssistantError::Store(_)),
        };
        let label = match looked {
            Ok(None) => return false,
            Ok(Some(looked)) => {
                if looked != Looked::InStep {
                    warn!(org.id = %org, %role, outcome = looked.label(), "The {role} assistant of an organisation \
                        was not as it is wanted");
                }
                looked.label()
            }
            Err(error) => {
                info!(org.id = %org, %role, ?error, "An assistant cannot be looked at for now");
                "failed"
            }
        };
        catalogue::ASSISTANT_CHECKS.count(1, &[label]);
        is_noted
    }

    /// One look. `None`: another instance is at it, or there is nothing to look at.
    ///
    /// # Errors
    /// Why nothing is known; the row keeps it.
    pub async fn look(&self, org: OrgId, role: AssistantRole) -> Result<Option<Looked>, AssistantError> {
        self.look_if(org, role, |_| true).await
    }

    /// The row is read under the lease: another instance may have looked since it was listed.
    async fn look_if(
        &self,
        org: OrgId,
        role: AssistantRole,
        is_due: impl FnOnce(&ManagedAssistant) -> bool + Send,
    ) -> Result<Option<Looked>, AssistantError> {
        let flight = self.flights.of((org, role));
        let _alone = flight.lock().await;
        let Some(lease) = self.take_lease(org, role).await? else {
            return Ok(None);
        };
        let looked = match self.store.find_managed_assistant(org, role).await {
            Ok(Some(row)) if is_due(&row) => self.compare(&lease, row).await.map(Some),
            Ok(_) => Ok(None),
            Err(error) => Err(error.into()),
        };
        let _ = self.store.release_lease(&lease).await;
        looked
    }

    async fn compare(&self, lease: &TakenLease, row: ManagedAssistant) -> Result<Looked, AssistantError> {
        let now = self.clock.now();
        match self.compare_at_vapi(lease, row.clone(), now).await {
            Ok(looked) => Ok(looked),
            Err(AssistantError::Busy) => Err(AssistantError::Busy),
            Err(error) => {
                // The next look comes in its turn, and people see why this one came to nothing.
                let failed = ManagedAssistant {
                    error: Some(words(&error)),
                    checked_at: Some(now),
                    ..row
                };
                // After a creation that failed a newer row stands already.
                let _ = self.save(failed, None, lease, None).await;
                Err(error)
            }
        }
    }

    async fn compare_at_vapi(
        &self,
        lease: &TakenLease,
        row: ManagedAssistant,
        now: Timestamp,
    ) -> Result<Looked, AssistantError> {
        let credential = self.credential(row.org).await?;
        let kept = self.open(&row).await?;
        let body = self.body(&row, &kept.wanted, &kept.secret)?;
        let (id, looked) = match (self.find(&credential, &row).await?, &row.assistant_id) {
            (Some(actual), known) => {
                let drift = wanted::drift(&body, &actual);
                let id = make::id_of(&actual)?;
                if known.as_ref() == Some(&id) {
                    return self.keep_drift(lease, row, drift, now).await;
                }
                (id, Looked::Adopted)
            }
            (None, Some(_)) => (self.create(&credential, lease, &row, &body).await?, Looked::MadeAgain),
            (None, None) => {
                let missing = ManagedAssistant {
                    state: ManagedAssistantState::Missing,
                    checked_at: Some(now),
                    ..row
                };
                self.save(missing, None, lease, None).await?;
                return Ok(Looked::StillMissing);
            }
        };
        let made = make::in_step(row, &id, now);
        let claim = make::claim(&made, kept.wanted.name.clone(), now);
        let audit = AuditEntry {
            org: made.org,
            at: now,
            actor: "hookswitch".to_owned(),
            verb: "mend",
            target_kind: "assistant",
            target_id: id,
            changes: Changes::from(&["assistant_id"]),
            address: None,
        };
        self.save(made, Some(claim), lease, Some(audit)).await?;
        Ok(looked)
    }

    /// A person may have changed it at Vapi on purpose: it is reported, and stays.
    async fn keep_drift(
        &self,
        lease: &TakenLease,
        row: ManagedAssistant,
        drift: Vec<String>,
        now: Timestamp,
    ) -> Result<Looked, AssistantError> {
        let (state, looked) = if drift.is_empty() {
            (ManagedAssistantState::InStep, Looked::InStep)
        } else {
            (ManagedAssistantState::Drifted, Looked::Drifted)
        };
        let looked_at = ManagedAssistant {
            state,
            drift,
            error: None,
            checked_at: Some(now),
            ..row
        };
        self.save(looked_at, None, lease, None).await?;
        Ok(looked)
    }
}

/// For people: what they can do about it.
fn words(error: &AssistantError) -> String {
    match error {
        AssistantError::NotConnected => "Vapi is not connected".to_owned(),
        AssistantError::Undecryptable { words } => words.clone(),
        AssistantError::NoPublicUrl => "HOOKSWITCH_PUBLIC_URL is not set".to_owned(),
        AssistantError::Busy | AssistantError::Stale => "another instance changes it".to_owned(),
        AssistantError::Refused(refused) => format!("Vapi refuses: {}", refused.message),
        AssistantError::Unreachable(error) => error.to_string(),
        AssistantError::Store(error) => error.to_string(),
    }
}
