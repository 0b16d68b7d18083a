//! The deliveries of one batch, each in the list of the step that is still to be done for it.

use super::draft::Drafted;
use crate::{
    action::Callback,
    domain::{Envelope, EventId, HeldCause, OrgId, OrgSettings},
    queue::DeliveryTag,
    store::ledger::{DeadEvent, HeldPart, Occasion, PlannedEvent, Replay},
};
use std::sync::Arc;

/// Where an event comes from: that is where it is forgotten once it is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The queue, which gets an ack.
    Delivery(DeliveryTag),
    /// The held events of the store.
    HeldEvent {
        org: OrgId,
        event: EventId,
        cause: HeldCause,
        replay: Option<Replay>,
    },
    /// The parts that waited for a rule.
    Part(Box<HeldPart>),
}

impl Origin {
    pub const fn occasion(&self) -> Occasion {
        match self {
            Self::HeldEvent {
                replay: Some(replay), ..
            } => Occasion::Replay(*replay),
            Self::HeldEvent {
                cause: HeldCause::Replay,
                ..
            }
            | Self::Part(_) => Occasion::Rest,
            Self::Delivery(_) | Self::HeldEvent { .. } => Occasion::Receipt,
        }
    }
}

/// A delivery leaves one list when it enters another, so that a commit that was cut short goes on
/// where it stopped.
#[derive(Default)]
pub(super) struct Batch {
    /// Callbacks of providers about our actions. The event of a callback is in another list too,
    /// because rules may want it.
    pub callbacks: Vec<(OrgId, Callback)>,
    /// Payloads are to be sealed: the data keys could not be read.
    pub unsealed: Vec<(Origin, Unsealed)>,
    /// To be stored in one transaction.
    pub events: Vec<(Origin, PlannedEvent)>,
    /// Parts of events whose rule cannot be read; they are kept until it can. The event of a part
    /// is in another list too.
    pub parts: Vec<Part>,
    /// Cannot be planned, to be stored as dead.
    pub dead: Vec<(Origin, DeadEvent)>,
    /// Stored, or wanted by no rule: to be forgotten where they come from.
    pub done: Vec<Origin>,
    /// Cannot be planned yet.
    pub held: Vec<HeldBack>,
}

/// An event that cannot be planned yet.
pub(super) struct HeldBack {
    pub origin: Origin,
    pub envelope: Envelope,
    pub cause: HeldCause,
}

/// The part of an event that a rule may want which cannot be read.
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
    /// `None`: its organisation has chosen nothing.
    pub settings: Option<Arc<OrgSettings>>,
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
