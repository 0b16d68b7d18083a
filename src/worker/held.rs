//! Events that cannot be planned yet, however long they wait, do not delay the others.
//!
//! They wait in memory for a moment and then in the store, so that the queue forgets them. They are
//! planned when the configuration has changed in their favour, before their organisation's newer
//! events.

use super::{
    batch::{Batch, HeldBack, Origin},
    plan::{Planner, is_away},
    rules::RuleBook,
};
use crate::{
    domain::{EventId, HeldCause, OrgId},
    queue::{self, DeliveryTag},
    store::{StoreError, held::HeldEvent},
    vault::Purpose,
};
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;
use tracing::{error, info, warn};

/// Events that wait in memory at most, and the bytes of their bodies. More than that goes to the
/// store at once.
const IN_MEMORY_MAX: usize = 1_000;
const IN_MEMORY_BYTES_MAX: usize = 16 << 20;
/// Held events that are read or written together.
const PAGE: u32 = 64;

/// Deliveries that wait in memory, in the order in which they came.
#[derive(Default)]
pub(super) struct InMemory {
    events: VecDeque<(Instant, DeliveryTag, HeldBack)>,
    bytes: usize,
}

impl InMemory {
    pub fn push(&mut self, tag: DeliveryTag, mut held: HeldBack) {
        // By itself: the body is a part of a much larger block that was read.
        held.envelope.body = Bytes::copy_from_slice(&held.envelope.body);
        self.bytes += held.envelope.body.len();
        self.events.push_back((Instant::now(), tag, held));
    }

    pub fn take_all(&mut self) -> impl Iterator<Item = (DeliveryTag, HeldBack)> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
            .into_iter()
            .map(|(_, tag, held)| (tag, held))
    }

    /// When the oldest goes to the store.
    pub fn due_at(&self, wait: Duration) -> Option<Instant> {
        self.events.front().map(|(since, ..)| *since + wait)
    }

    /// Takes some that have waited long enough, or that are too many.
    pub fn take_due(&mut self, wait: Duration) -> Vec<(DeliveryTag, HeldBack)> {
        let mut due = Vec::new();
        while due.len() < PAGE as usize
            && (self.events.len() > IN_MEMORY_MAX
                || self.bytes > IN_MEMORY_BYTES_MAX
                || self.due_at(wait).is_some_and(|at| at <= Instant::now()))
            && let Some((_, tag, held)) = self.events.pop_front()
        {
            self.bytes -= held.envelope.body.len();
            due.push((tag, held));
        }
        due
    }
}

/// Organisations whose held events are being planned: a page of one organisation a turn.
#[derive(Default)]
pub(super) struct Draining {
    turns: VecDeque<(OrgId, Option<EventId>)>,
    /// Whether more of its events were held since its last page was read.
    organisations: HashMap<OrgId, bool>,
}

impl Draining {
    pub fn contains(&self, org: OrgId) -> bool {
        self.organisations.contains_key(&org)
    }

    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    fn begin(&mut self, org: OrgId) {
        if self.organisations.insert(org, false).is_none() {
            self.turns.push_back((org, None));
        }
    }

    fn end(&mut self, org: OrgId) {
        self.organisations.remove(&org);
        self.turns.retain(|(turn, _)| *turn != org);
    }
}

impl Planner {
    /// Finds the organisations whose held events can be planned by this book.
    pub async fn look_for_held(&mut self, book: &RuleBook) -> Result<(), StoreError> {
        let mut after = None;
        while let Some(org) = self.store.next_held_org(after).await? {
            if book.get(org).is_some() && self.has_open_key(org).await? {
                self.draining.begin(org);
            }
            after = Some(org);
        }
        Ok(())
    }

    async fn has_open_key(&self, org: OrgId) -> Result<bool, StoreError> {
        match self.vault.seal(org, Purpose::Payload, b"").await {
            Ok(_) => Ok(true),
            Err(error) if is_away(&error) => Err(StoreError::Unavailable {
                doing: "look at a data key",
            }),
            Err(_) => Ok(false),
        }
    }

    /// Puts a page of one organisation's held events into the batch.
    pub async fn prepare_held(&mut self, book: &RuleBook, batch: &mut Batch) -> Result<(), StoreError> {
        let Some((org, after)) = self.draining.turns.pop_front() else {
            return Ok(());
        };
        let page = match self.store.list_held_events(org, after, PAGE).await {
            Ok(page) => page,
            Err(error @ StoreError::Unavailable { .. }) => {
                self.draining.turns.push_front((org, after));
                return Err(error);
            }
            Err(error) => {
                error!(org.id = %org, %error, "The held events of an organisation cannot be read: they wait on");
                self.draining.end(org);
                return Ok(());
            }
        };
        let last = page.last().map(|held| held.event);
        let is_last = page.len() < PAGE as usize;
        let mut unreadable = 0;
        for held in page {
            let origin = Origin::HeldEvent {
                org,
                event: held.event,
                cause: held.cause,
                replay: held.replay,
            };
            match self.open_envelope(org, &held.envelope).await {
                Ok(Some(mut envelope)) => {
                    // The row names the organisation, whatever the envelope says.
                    envelope.org = Some(org);
                    self.prepare_event(book, batch, origin, envelope).await;
                }
                Err(error) if is_away(&error) => {
                    // The prepared events are planned. The rest of the page is read again.
                    self.draining.turns.push_front((org, after));
                    return Ok(());
                }
                Ok(None) | Err(_) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            error!(org.id = %org, "{unreadable} held events of an organisation do not open: they wait for the key \
                that they are sealed under");
        }
        let came_meanwhile = self
            .draining
            .organisations
            .get_mut(&org)
            .is_some_and(|more| is_last && std::mem::take(more));
        match last {
            _ if came_meanwhile => self.draining.turns.push_back((org, None)),
            Some(last) if !is_last => self.draining.turns.push_back((org, Some(last))),
            _ => {
                self.draining.end(org);
                info!(org.id = %org, "The held events of an organisation are planned");
            }
        }
        Ok(())
    }

    /// Some events of the batch could not be planned after all: what is in the store waits there.
    pub fn hold_back(&mut self, batch: &mut Batch, memory: &mut InMemory) {
        for held in std::mem::take(&mut batch.held) {
            match held.origin {
                Origin::Delivery(tag) => memory.push(tag, held),
                Origin::HeldEvent { org, .. } => self.draining.end(org),
                Origin::Part(_) => {}
            }
        }
    }

    /// Keeps deliveries in the store until they can be planned.
    pub async fn keep(&mut self, held: &[(DeliveryTag, HeldBack)]) -> Result<(), StoreError> {
        let mut rows = Vec::with_capacity(held.len());
        for (_, HeldBack { envelope, cause, .. }) in held {
            let Some(org) = envelope.org else { continue };
            let mut encoded = Vec::new();
            queue::encode(envelope, &mut encoded);
            rows.push(HeldEvent {
                org,
                event: envelope.id,
                cause: *cause,
                received_at: envelope.received_at,
                envelope: self.seal_under_ring(org, &encoded, "seal a held event")?,
                replay: None,
            });
            if let Some(more) = self.draining.organisations.get_mut(&org) {
                *more = true;
            }
        }
        warn!("{} events cannot be planned yet: they wait in the database", rows.len());
        self.store.hold_events(rows).await?;
        // An event that waited only for older ones may have missed their last page.
        for (_, held) in held.iter().filter(|(_, held)| held.cause == HeldCause::Order) {
            if let Some(org) = held.envelope.org {
                self.draining.begin(org);
            }
        }
        Ok(())
    }
}
