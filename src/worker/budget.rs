//! Two limits of planning: actions of an organisation a day, recorded unwanted events a second.

use super::day;
use crate::domain::{OrgId, Timestamp};
use std::collections::HashMap;

/// Actions that each organisation may plan on a UTC day. The count lives in this process: a restart
/// gives each organisation a full day again. That still stops a runaway.
pub(super) struct DayBudget {
    max: u64,
    today: i64,
    used: HashMap<OrgId, u64>,
}

impl DayBudget {
    pub fn new(max: u64) -> Self {
        Self {
            max,
            today: 0,
            used: HashMap::new(),
        }
    }

    pub fn left(&mut self, org: OrgId, now: Timestamp) -> u64 {
        let today = day(now);
        if today != self.today {
            self.today = today;
            self.used.clear();
        }
        self.max.saturating_sub(self.used.get(&org).copied().unwrap_or(0))
    }

    /// Counts planned actions.
    pub fn count(&mut self, org: OrgId, actions: u64) {
        if actions > 0 {
            *self.used.entry(org).or_default() += actions;
        }
    }

    /// Takes back actions that were counted and are not stored, because the event is a redelivery
    /// or dead.
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
