//! The deliveries of one batch, each in the list of the step that is still to be done for it.

use super::draft::Drafted;
use crate::{
    action::Callback,
    domain::{Envelope, OrgId},
    queue::{Delivery, DeliveryTag},
    store::ledger::{DeadEvent, PlannedEvent},
};

/// A delivery leaves one list when it enters another, so that a commit that was cut short goes on
/// where it stopped.
#[derive(Default)]
pub(super) struct Batch {
    /// Callbacks of providers about our actions. The event of a callback stands in another list
    /// besides, because rules may want it too.
    pub callbacks: Vec<(OrgId, Callback)>,
    /// Payloads are to be sealed: the data keys could not be read.
    pub unsealed: Vec<(DeliveryTag, Unsealed)>,
    /// To be stored in one transaction.
    pub events: Vec<(DeliveryTag, PlannedEvent)>,
    /// Parts of events whose rule cannot be read, to be kept until it can. The event of a part
    /// stands in another list besides.
    pub parts: Vec<Part>,
    /// Cannot be planned, to be stored as dead.
    pub dead: Vec<(DeliveryTag, DeadEvent)>,
    /// Stored, or wanted by no rule: to be acked.
    pub done: Vec<DeliveryTag>,
    /// To be planned again when the configuration has changed.
    pub held: Vec<Delivery>,
}

/// What a rule that cannot be read may want of an event.
pub(super) struct Part {
    pub org: OrgId,
    pub rule_key: Box<[u8]>,
    pub envelope: Envelope,
}

/// An event whose payloads are not sealed.
pub(super) struct Unsealed {
    pub org: OrgId,
    pub envelope: Envelope,
    pub actions: Vec<Drafted>,
    /// As `PlannedEvent::is_part`.
    pub is_part: bool,
}

/// How a commit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Commit {
    /// Every delivery of the batch is done or held.
    Complete,
    /// The rest of the batch is as it was: commit it again later.
    DatabaseAway,
}

impl Batch {
    /// Deliveries that are neither done nor held.
    pub fn waiting(&self) -> usize {
        self.unsealed.len() + self.events.len() + self.dead.len()
    }
}
