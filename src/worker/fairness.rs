//! How many actions each organisation may run at once, and how many the next claim may take.

use super::breaker::Breakers;
use crate::domain::{OrgId, Provider, Timestamp};
use std::collections::HashMap;

#[derive(Debug)]
pub(super) struct Running {
    total: u32,
    total_max: u32,
    each_max: u32,
    /// Only organisations with running actions.
    each: HashMap<(OrgId, Provider), u32>,
}

impl Running {
    pub fn new(total_max: usize, each_max: usize) -> Self {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).max(1);
        Self {
            total: 0,
            total_max: count(total_max),
            each_max: count(each_max),
            each: HashMap::new(),
        }
    }

    pub const fn total(&self) -> u32 {
        self.total
    }

    pub const fn free(&self) -> u32 {
        self.total_max.saturating_sub(self.total)
    }

    pub const fn each_max(&self) -> u32 {
        self.each_max
    }

    pub fn begin(&mut self, key: (OrgId, Provider)) {
        self.total += 1;
        *self.each.entry(key).or_default() += 1;
    }

    pub fn end(&mut self, key: (OrgId, Provider)) {
        self.total -= 1;
        if let Some(count) = self.each.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.each.remove(&key);
            }
        }
    }

    /// The actions that an organisation with running ones may still claim, where that is less than
    /// a whole turn.
    pub fn allowances(&self, breakers: &Breakers, turn_max: u32, now: Timestamp) -> Vec<(OrgId, Provider, u32)> {
        let left = |key, count: u32| {
            let at_once = if breakers.is_half_open(key, now) {
                1
            } else {
                self.each_max
            };
            at_once.saturating_sub(count)
        };
        self.each
            .iter()
            .map(|(key @ (org, provider), count)| (*org, *provider, left(key, *count)))
            .filter(|(.., left)| *left < turn_max)
            .collect()
    }
}
