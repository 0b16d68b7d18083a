//! The count of deliveries that were handed out and are not acked.
//!
//! No set of intervals is needed: everything before `delivered` that does not stand in
//! `outstanding` is acked, so the watermark is the first position there.

use crate::domain::OrgId;
use std::collections::BTreeMap;

/// Consumers that had events from a position on and acked none there. It says nothing of an acked
/// position behind it: a consumer that moved on ended by another event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InVain {
    pub position: u64,
    pub consumers: u32,
}

#[derive(Debug, Default)]
pub(super) struct Consumed {
    pub held: bool,
    /// Everything from here on was never handed out by this process.
    pub delivered: u64,
    /// Handed out, not acked: by position, with organisation and bytes.
    pub outstanding: BTreeMap<u64, (OrgId, u64)>,
    pub in_vain: InVain,
}

impl Consumed {
    pub fn starting_at(position: u64, in_vain: InVain) -> Self {
        Self {
            delivered: position,
            in_vain,
            ..Self::default()
        }
    }

    /// Everything before is acked.
    pub fn acked(&self) -> u64 {
        self.outstanding
            .first_key_value()
            .map_or(self.delivered, |(position, _)| *position)
    }

    /// Consumers that had events from here on and acked none.
    pub fn in_vain(&self) -> u32 {
        let InVain { position, consumers } = self.in_vain;
        if position == self.acked() { consumers } else { 0 }
    }

    /// Whether the record at `position` was acked already.
    pub fn is_acked(&self, position: u64) -> bool {
        position < self.delivered && !self.outstanding.contains_key(&position)
    }
}
