//! The count of deliveries that were handed out and are not acked.
//!
//! No set of intervals is needed: everything before `delivered` that does not stand in
//! `outstanding` is acked, so the watermark is the first position there.

use crate::domain::OrgId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Consumed {
    pub held: bool,
    /// Everything from here on was never handed out by this process.
    pub delivered: u64,
    /// Handed out, not acked: by position, with organisation and bytes.
    pub outstanding: BTreeMap<u64, (OrgId, u64)>,
}

impl Consumed {
    pub fn starting_at(position: u64) -> Self {
        Self {
            delivered: position,
            ..Self::default()
        }
    }

    /// Everything before is acked.
    pub fn acked(&self) -> u64 {
        self.outstanding
            .first_key_value()
            .map_or(self.delivered, |(position, _)| *position)
    }

    /// Whether the record at `position` was acked already.
    pub fn is_acked(&self, position: u64) -> bool {
        position < self.delivered && !self.outstanding.contains_key(&position)
    }
}
