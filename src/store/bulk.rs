//! Bulk work on actions: a person sees what it would touch, and a job does it in steps that can be
//! stopped. A job is a row, so that it goes on after a restart, on any instance. **Invariant:** one
//! process works on a job at a time, under a lease with a fence, and a step moves its actions and
//! its place in one transaction.

use super::{StoreError, audit::AuditEntry};
use crate::domain::{ActionId, ActionState, Cause, OrgId, Period, Provider, RuleId, Timestamp, Word};
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// The change of each action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BulkVerb {
    Retry,
    Cancel,
}

impl BulkVerb {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
        }
    }

    /// The states that it starts from.
    #[must_use]
    pub const fn states(self) -> &'static [ActionState] {
        use ActionState::{Cancelled, Dead, Parked, Pending, Suppressed, Unknown, Waiting};
        match self {
            Self::Retry => &[Dead, Parked, Suppressed, Cancelled, Waiting, Unknown],
            Self::Cancel => &[Pending, Waiting, Parked],
        }
    }
}

/// Which actions. A filter that is left out matches all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BulkFilter {
    pub state: Option<ActionState>,
    pub provider: Option<Provider>,
    pub cause: Option<Cause>,
    pub rule: Option<RuleId>,
    /// When the action was planned.
    pub period: Period,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BulkCount {
    pub org: OrgId,
    pub state: ActionState,
    pub provider: Word<Provider>,
    pub count: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobState {
    Running,
    /// By a person.
    Stopped,
    Done,
}

impl JobState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Done => "done",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BulkJob {
    pub id: Uuid,
    pub org: OrgId,
    pub verb: BulkVerb,
    pub filter: BulkFilter,
    pub state: JobState,
    /// How many actions the filter met when it began.
    pub planned: u64,
    pub done: u64,
    /// Actions whose state had changed meanwhile, that have no request, or that only a newer
    /// release can try again.
    pub skipped: u64,
    pub actor: String,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// The hold of a process on a running job. Each step renews it. Once it has ended another process
/// may take the job, and the fence refuses the former one from then on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobLease {
    pub org: OrgId,
    pub id: Uuid,
    pub fence: i64,
}

#[async_trait]
pub trait BulkJobs: Send + Sync + 'static {
    /// The actions that a job would change, by state and provider.
    async fn count_bulk(&self, org: OrgId, verb: BulkVerb, filter: BulkFilter) -> Result<Vec<BulkCount>, StoreError>;
    /// Organisations with actions that have not gone out, for an operator.
    async fn list_orgs_with_open_actions(&self) -> Result<Vec<OrgId>, StoreError>;
    /// Actions that are planned later are not the job's.
    async fn begin_bulk(&self, job: BulkJob, audit: AuditEntry) -> Result<(), StoreError>;
    async fn find_bulk(&self, org: OrgId, id: Uuid) -> Result<Option<BulkJob>, StoreError>;
    /// Running jobs that nobody holds, oldest end of a lease first: a job that was given back a
    /// moment ago comes after those that wait.
    async fn list_free_bulk(&self, count_max: u32) -> Result<Vec<(OrgId, Uuid)>, StoreError>;
    /// Takes a job for `length`. `None` where another process holds it, or where it has ended.
    async fn take_bulk(&self, org: OrgId, id: Uuid, length: Duration) -> Result<Option<JobLease>, StoreError>;
    /// One step: looks at `count_max` actions at most, in one transaction with the job's progress,
    /// and renews the lease for `length`. Returns whether it goes on: not where the job has ended,
    /// and not where another process has taken it.
    async fn step_bulk(&self, lease: JobLease, length: Duration, count_max: u32) -> Result<bool, StoreError>;
    /// Gives a job back before its lease ends.
    async fn release_bulk(&self, lease: JobLease) -> Result<(), StoreError>;
    /// `false` where it has ended.
    async fn stop_bulk(&self, org: OrgId, id: Uuid, audit: AuditEntry) -> Result<bool, StoreError>;
    async fn list_running_bulk(&self, count_max: u32) -> Result<Vec<(OrgId, Uuid)>, StoreError>;
    async fn find_org_of_action(&self, action: ActionId) -> Result<Option<OrgId>, StoreError>;
}
