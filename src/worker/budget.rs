//! Two limits of planning: actions of an organisation a day, recorded unwanted events a second.

use crate::{
    domain::{OrgId, Timestamp},
    store::{Store, StoreError},
};
use std::{collections::HashMap, time::Duration};

/// Where other workers plan for the same organisations: between two looks at what they planned.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Rows of actions that each organisation may plan on a UTC day, also those whose rule failed. The
/// store counts them with each plan, so that the budget holds over restarts and workers. This map
/// holds the count of the last look and the plans since.
pub(super) struct DayBudget {
    max: u64,
    today: Option<i64>,
    looked_at: Timestamp,
    used: HashMap<OrgId, u64>,
}

impl DayBudget {
    pub fn new(max: u64) -> Self {
        Self {
            max,
            today: None,
            looked_at: Timestamp::default(),
            used: HashMap::new(),
        }
    }

    /// Reads what was planned today, where a day has begun or other workers plan too.
    pub async fn refresh(&mut self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        let today = Some(now.utc_day());
        if self.today == today && !(store.is_shared() && now.since(self.looked_at) >= LOOK_EVERY) {
            return Ok(());
        }
        self.used = store.list_day(now.utc_day()).await?.into_iter().collect();
        (self.today, self.looked_at) = (today, now);
        Ok(())
    }

    /// Actions that may still go out.
    pub fn left(&self, org: OrgId) -> u64 {
        self.max.saturating_sub(self.used(org))
    }

    /// Rows that may still be written. Those beyond the budget say why they are dead; a runaway
    /// writes no more of them than of the others.
    pub fn rows_left(&self, org: OrgId) -> u64 {
        self.max.saturating_mul(2).saturating_sub(self.used(org))
    }

    fn used(&self, org: OrgId) -> u64 {
        self.used.get(&org).copied().unwrap_or(0)
    }

    /// These rows are planned.
    pub fn count(&mut self, org: OrgId, actions: u64) {
        if actions > 0 {
            *self.used.entry(org).or_default() += actions;
        }
    }

    /// These rows were counted and are not stored: a redelivery, or an event that is dead.
    pub fn give_back(&mut self, org: OrgId, actions: u64) {
        if let Some(used) = self.used.get_mut(&org) {
            *used = used.saturating_sub(actions);
        }
    }
}

/// A budget a second, for all organisations together.
pub(super) struct SecondBudget {
    max: u32,
    second: i64,
    used: u32,
}

impl SecondBudget {
    pub const fn new(max: u32) -> Self {
        Self {
            max,
            second: 0,
            used: 0,
        }
    }

    pub fn take(&mut self, now: Timestamp) -> bool {
        let second = now.as_seconds();
        if second != self.second {
            self.second = second;
            self.used = 0;
        }
        let may = self.used < self.max;
        self.used += u32::from(may);
        may
    }
}
