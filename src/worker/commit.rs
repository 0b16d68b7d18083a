//! A prepared batch to rows: callbacks, events with their actions in one transaction, dead events.

use super::{
    batch::{Batch, Commit, Origin, Part},
    bisect::Bisection,
    plan::{Planner, dead_event, is_away},
    suspects::Tagged,
};
use crate::{
    action::Callback,
    domain::{ActionState, Envelope, INSTALLATION, OrgId, RouteKey, SealedBytes},
    killpoint::{Step, reach},
    queue, source,
    store::{
        StoreError,
        ledger::{DeadEvent, HeldPart, Planned, PlannedAction, PlannedEvent},
        quarantine::QuarantinedEvent,
    },
    telemetry::catalogue,
    vault::Purpose,
};
use bytes::Bytes;
use std::sync::Arc;
use tracing::{debug, error};

/// Transactions for events that wait behind all others, in one commit.
const SUSPECT_TRANSACTIONS_MAX: usize = 64;

/// The result of storing the next part.
enum Stored {
    /// The part is stored, or split.
    Part,
    /// One event of this organisation is to blame.
    Blamed(OrgId),
    /// There is no part left.
    Nothing,
    DatabaseAway,
}

impl Planner {
    /// Stores a prepared batch. After [`Commit::DatabaseAway`] the same batch can be given again:
    /// the lists hold what is still to be done.
    pub async fn commit(&mut self, batch: &mut Batch) -> Commit {
        for (origin, unsealed) in std::mem::take(&mut batch.unsealed) {
            self.seal(batch, origin, unsealed).await;
        }
        let mut commit = self.record_callbacks(batch).await;
        if commit == Commit::Complete {
            commit = self.hold_parts(batch).await;
        }
        if commit == Commit::Complete {
            commit = self.store_events(batch).await;
        }
        if commit == Commit::Complete {
            commit = self.store_dead_events(batch).await;
        }
        if batch.unsealed.is_empty() {
            commit
        } else {
            Commit::DatabaseAway
        }
    }

    async fn record_callbacks(&self, batch: &mut Batch) -> Commit {
        while let Some((org, callback)) = batch.callbacks.last() {
            match self.record_callback(*org, callback).await {
                Ok(()) => catalogue::EVENTS_PLANNED.count(1, &["callback"]),
                Err(StoreError::Unavailable { .. }) => return Commit::DatabaseAway,
                Err(error) => {
                    let action = callback.action;
                    error!(org.id = %org, action.id = %action, %error, "The callback about action {action} cannot be \
                        recorded and is dropped");
                }
            }
            batch.callbacks.pop();
        }
        Commit::Complete
    }

    /// The action's state first: then it holds the provider's id, by which its delivery is known.
    async fn record_callback(&self, org: OrgId, callback: &Callback) -> Result<(), StoreError> {
        let (action, now) = (callback.action, self.clock.now());
        let change = self
            .store
            .record_callback(org, action, &callback.provider_ref, now)
            .await?;
        debug!(org.id = %org, action.id = %action, ?change, "A provider called back about action {action}");
        let Some(delivery) = callback.delivery.clone() else {
            return Ok(());
        };
        let status = delivery.status;
        let provider_ref = &callback.provider_ref;
        if self
            .store
            .record_delivery(org, action, provider_ref, delivery, now)
            .await?
        {
            catalogue::DELIVERIES.count(1, &["twilio", status.as_str()]);
        }
        Ok(())
    }

    /// Before the events, so that an event that is done has its parts kept.
    async fn hold_parts(&self, batch: &mut Batch) -> Commit {
        while let Some(part) = batch.parts.last() {
            match self.hold_part(part).await {
                Ok(true) => catalogue::EVENTS_PLANNED.count(1, &["held_for_a_rule"]),
                Ok(false) => {
                    let reason = "a rule of its organisation cannot be read, and too many events wait for it already";
                    let dead = dead_event(&part.envelope, Some(part.org), reason);
                    if let Err(StoreError::Unavailable { .. }) = self.store_dead_event(dead).await {
                        return Commit::DatabaseAway;
                    }
                }
                Err(StoreError::Unavailable { .. }) => return Commit::DatabaseAway,
                Err(error) => {
                    let id = part.envelope.id;
                    error!(event.id = %id, org.id = %part.org, %error, "The part of event {id} for a rule that cannot \
                        be read is dropped");
                }
            }
            batch.parts.pop();
        }
        Commit::Complete
    }

    async fn hold_part(&self, part: &Part) -> Result<bool, StoreError> {
        let mut encoded = Vec::new();
        queue::encode(&part.envelope, &mut encoded);
        let envelope = self.seal_to_keep(part.org, &encoded, "seal a part of an event").await?;
        let held = HeldPart {
            org: part.org,
            rule_key: part.rule_key.clone(),
            event: part.envelope.id,
            envelope,
        };
        self.store.hold_part(held).await
    }

    /// Stores all events in one transaction. An error in the data of one event fails the whole
    /// transaction. Then each half is stored by itself, until the event to blame is alone and is
    /// stored as dead (invariant 15). From then on the other events of its organisation wait behind
    /// those of all other organisations.
    async fn store_events(&mut self, batch: &mut Batch) -> Commit {
        let mut parts = Bisection::of(std::mem::take(&mut batch.events));
        for org in self.suspects.organisations() {
            let theirs = parts.take(|(_, event)| event.org == org);
            self.suspects.add(org, theirs);
        }
        loop {
            match self.store_next(&mut parts, batch).await {
                Stored::Part => {}
                Stored::Blamed(org) => {
                    let theirs = parts.take(|(_, event)| event.org == org);
                    self.suspects.add(org, theirs);
                }
                Stored::Nothing => break,
                Stored::DatabaseAway => {
                    batch.events = parts.into_rest();
                    return Commit::DatabaseAway;
                }
            }
        }
        self.store_suspects(batch).await
    }

    /// Some of the events that wait behind all others, so that new events wait for few of them.
    async fn store_suspects(&mut self, batch: &mut Batch) -> Commit {
        let mut parts = std::mem::take(&mut self.suspects.parts);
        let mut commit = Commit::Complete;
        for _ in 0..SUSPECT_TRANSACTIONS_MAX {
            match self.store_next(&mut parts, batch).await {
                Stored::Part | Stored::Blamed(_) => {}
                Stored::Nothing => {
                    self.suspects.clear();
                    break;
                }
                Stored::DatabaseAway => {
                    commit = Commit::DatabaseAway;
                    break;
                }
            }
        }
        self.suspects.parts = parts;
        commit
    }

    async fn store_next(&mut self, parts: &mut Bisection<Tagged>, batch: &mut Batch) -> Stored {
        let Some(mut part) = parts.next() else {
            return Stored::Nothing;
        };
        match self.store_part(&mut part).await {
            Ok(origins) => {
                batch.done.extend(origins);
                Stored::Part
            }
            Err(StoreError::Unavailable { .. }) => {
                parts.push(part);
                Stored::DatabaseAway
            }
            Err(error) => {
                debug!(%error, "A part of {} events cannot be stored together", part.len());
                let Some((origin, event)) = parts.split(part) else {
                    return Stored::Part;
                };
                let (id, org) = (event.envelope.id, event.org);
                error!(event.id = %id, org.id = %org, %error, "Event {id} cannot be stored; it is stored as dead");
                self.day.give_back(org, event.actions.len() as u64);
                let dead = dead_event(&event.envelope, Some(org), &error.to_string());
                batch.dead.push((origin, dead));
                Stored::Blamed(org)
            }
        }
    }

    /// One transaction. Takes the events out of `part`, and puts them back after an error.
    async fn store_part(&mut self, part: &mut Vec<Tagged>) -> Result<Vec<Origin>, StoreError> {
        let (origins, events): (Vec<Origin>, Vec<PlannedEvent>) = part.drain(..).unzip();
        let events: Arc<[PlannedEvent]> = events.into();
        match self.store.plan(events.clone()).await {
            Ok(results) => {
                reach(Step::Planned);
                self.count(&events, &results);
                Ok(origins)
            }
            Err(error) => {
                part.extend(origins.into_iter().zip(events.iter().cloned()));
                Err(error)
            }
        }
    }

    fn count(&mut self, events: &[PlannedEvent], results: &[Planned]) {
        for (event, result) in events.iter().zip(results) {
            let outcome = match result {
                Planned::Duplicate => "duplicate",
                Planned::New if event.actions.is_empty() => "recorded",
                Planned::New => "planned",
                Planned::Again { .. } => "again",
            };
            catalogue::EVENTS_PLANNED.count(1, &[outcome]);
            let is_written = |action: &&PlannedAction| match result {
                Planned::New => true,
                Planned::Duplicate => false,
                Planned::Again { actions } => actions.contains(&action.id),
            };
            let mut count = 0;
            for action in event.actions.iter().filter(is_written) {
                self.has_new_actions |= action.state == ActionState::Pending;
                catalogue::ACTIONS_PLANNED.count(1, &[action.kind.as_str()]);
                count += 1;
            }
            self.day.give_back(event.org, (event.actions.len() - count) as u64);
            let id = event.envelope.id;
            debug!(event.id = %id, org.id = %event.org, outcome, "Event {id} is planned: {count} actions");
        }
    }

    async fn store_dead_events(&self, batch: &mut Batch) -> Commit {
        while let Some((origin, dead)) = batch.dead.last() {
            match self.store_dead_event(dead.clone()).await {
                Ok(()) => {}
                Err(StoreError::Unavailable { .. }) => return Commit::DatabaseAway,
                Err(error) => {
                    // The dead event itself cannot be stored: drop it, so that it blocks nothing.
                    error!(event.id = %dead.id, %error, "A dead event cannot be stored and is dropped");
                }
            }
            batch.done.push(origin.clone());
            batch.dead.pop();
        }
        Commit::Complete
    }

    async fn store_dead_event(&self, mut dead: DeadEvent) -> Result<(), StoreError> {
        if dead.org.is_none()
            && let Ok(envelope) = queue::decode(&Bytes::copy_from_slice(&dead.envelope))
        {
            return self.quarantine(&envelope, &dead.envelope).await;
        }
        if !dead.envelope.is_empty() {
            let doing = "seal a dead event";
            dead.envelope = match dead.org {
                Some(org) => self.seal_to_keep(org, &dead.envelope, doing).await?,
                None => self.seal_under_ring(INSTALLATION, &dead.envelope, doing)?,
            }
            .0
            .into_vec();
        }
        self.store.store_dead_event(dead).await?;
        catalogue::EVENTS_PLANNED.count(1, &["dead"]);
        Ok(())
    }

    /// Keeps an event that leads to no organisation, with the external ids that it names: an
    /// operator finds its organisation by them.
    async fn quarantine(&self, envelope: &Envelope, encoded: &[u8]) -> Result<(), StoreError> {
        let sealed = self.seal_under_ring(INSTALLATION, encoded, "seal a quarantined event")?;
        let event = QuarantinedEvent {
            id: envelope.id,
            source: envelope.source.as_str().to_owned(),
            event_type: envelope.event_type.as_str().to_owned(),
            received_at: envelope.received_at,
            ids: ids(envelope),
        };
        self.store.quarantine(event, sealed).await?;
        catalogue::EVENTS_PLANNED.count(1, &["quarantined"]);
        Ok(())
    }

    /// Seals what has to be kept whether or not the organisation's data key opens.
    async fn seal_to_keep(&self, org: OrgId, plain: &[u8], doing: &'static str) -> Result<SealedBytes, StoreError> {
        match self.vault.seal(org, Purpose::Payload, plain).await {
            Ok(sealed) => Ok(sealed),
            Err(error) if is_away(&error) => Err(StoreError::Unavailable { doing }),
            Err(_) => self.seal_under_ring(org, plain, doing),
        }
    }

    pub(super) fn seal_under_ring(
        &self,
        org: OrgId,
        plain: &[u8],
        doing: &'static str,
    ) -> Result<SealedBytes, StoreError> {
        // Without randomness now: later works.
        let failed = |_| StoreError::Unavailable { doing };
        self.vault.seal_under_ring(org, plain).map_err(failed)
    }
}

/// The external ids in an event's body. None where it cannot be read any more.
fn ids(envelope: &Envelope) -> Vec<RouteKey> {
    let mut headers = http::HeaderMap::new();
    headers.extend(
        envelope
            .content_type
            .parse::<http::HeaderValue>()
            .map(|value| (http::header::CONTENT_TYPE, value)),
    );
    let request = source::Request {
        method: "POST",
        url: &format!("https://localhost{}?{}", envelope.path, envelope.query),
        headers: &headers,
        body: &envelope.body,
    };
    source::read(envelope.source, &request).map_or_else(|_| Vec::new(), |reading| reading.routes)
}
