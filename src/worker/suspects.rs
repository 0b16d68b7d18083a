//! Events of organisations that have just had an event which cannot be stored: they wait behind the
//! events of all others.

use super::{batch::Origin, bisect::Bisection};
use crate::{domain::OrgId, store::ledger::PlannedEvent};
use std::collections::HashSet;

pub(super) type Tagged = (Origin, PlannedEvent);

/// Empty nearly always. One organisation with hundreds of events that cannot be stored costs as
/// many transactions; the others wait for none of them.
#[derive(Default)]
pub(super) struct Suspects {
    organisations: HashSet<OrgId>,
    pub parts: Bisection<Tagged>,
}

impl Suspects {
    pub fn contains(&self, org: OrgId) -> bool {
        self.organisations.contains(&org)
    }

    /// An event of this organisation is to blame for an error: its other events wait.
    pub fn add(&mut self, org: OrgId, events: Vec<Tagged>) {
        self.organisations.insert(org);
        self.parts.push_behind(events);
    }

    pub fn organisations(&self) -> Vec<OrgId> {
        self.organisations.iter().copied().collect()
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// No event waits any more, so no organisation is suspect.
    pub fn clear(&mut self) {
        self.organisations.clear();
    }
}
