//! Plans the events of a batch: applies the rules, renders the requests and seals them.

use super::{
    batch::{Batch, HeldBack, Origin, Part, Unsealed},
    budget::{DayBudget, SecondBudget},
    draft::{Drafted, draft},
    held::Draining,
    rules::RuleBook,
    suspects::Suspects,
};
use crate::{
    action,
    config::WorkerSettings,
    domain::{ActionId, ActionState, Cause, Clock, Envelope, EventId, HeldCause, OrgId, Timestamp},
    queue::{self, Delivery},
    store::{
        Store, StoreError,
        ledger::{DeadEvent, Occasion, PlannedAction, PlannedEvent},
    },
    telemetry::catalogue,
    vault::{Purpose, Vault, VaultError},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};
use tracing::{Instrument, Span, debug, debug_span, error};

const MAY_HAVE_ACTED: &str =
    "the database was restored from a backup after the event was received, and the action may have gone out before";

pub(super) struct Planner {
    pub(super) store: Arc<dyn Store>,
    pub(super) vault: Arc<Vault>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: WorkerSettings,
    /// Actions that each organisation may still plan today.
    pub(super) day: DayBudget,
    /// Whether a commit has made actions that can be claimed, since somebody asked.
    pub(super) has_new_actions: bool,
    /// Events that wait behind those of all other organisations.
    pub(super) suspects: Suspects,
    /// Organisations whose held events are planned now.
    pub(super) draining: Draining,
    /// Its worker ended at each of its tries: it is not planned again.
    pub(super) condemned: Option<EventId>,
    /// Events that no rule wants and that may still be recorded in this second.
    unwanted: SecondBudget,
    /// Events that were received before may have been acted on, in a database that was replaced by
    /// a backup (invariant 29).
    recovered_at: Option<Timestamp>,
    /// The version of the configuration that this was read at.
    recovery_version: Option<i64>,
}

impl Planner {
    pub fn new(store: Arc<dyn Store>, vault: Arc<Vault>, clock: Arc<dyn Clock>, settings: WorkerSettings) -> Self {
        Self {
            store,
            vault,
            clock,
            day: DayBudget::new(settings.actions_per_day_max),
            unwanted: SecondBudget::new(settings.record_unwanted_per_second_max),
            has_new_actions: false,
            suspects: Suspects::default(),
            draining: Draining::default(),
            condemned: None,
            recovered_at: None,
            recovery_version: None,
            settings,
        }
    }

    /// Learns how many actions each organisation has planned today.
    pub async fn refresh_day(&mut self) -> Result<(), StoreError> {
        self.day.refresh(&*self.store, self.clock.now()).await
    }

    /// Learns of a recovery, which counts as a change of configuration.
    pub async fn refresh_recovery(&mut self, version: i64) -> Result<(), StoreError> {
        if self.recovery_version != Some(version) {
            self.recovered_at = self.store.find_recovery().await?.map(|last| last.recovered_at);
            self.recovery_version = Some(version);
        }
        Ok(())
    }

    /// Whether the actions of an event may have gone out already. What a person replays is wanted
    /// anew.
    fn may_have_acted(&self, envelope: &Envelope, occasion: Occasion) -> bool {
        !matches!(occasion, Occasion::Replay(_)) && self.recovered_at.is_some_and(|at| envelope.received_at < at)
    }

    /// Whether events in memory or in the store wait for their turn.
    pub fn has_waiting(&self) -> bool {
        self.suspects.len() > 0 || !self.draining.is_empty()
    }

    /// Applies the rules to each delivery and puts it into its list of `batch`.
    pub async fn prepare(&mut self, book: &RuleBook, batch: &mut Batch, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            let origin = Origin::Delivery(delivery.tag);
            match delivery.event {
                // The older events of this organisation are planned first.
                Ok(envelope) if envelope.org.is_some_and(|org| self.draining.contains(org)) => {
                    let cause = HeldCause::Order;
                    batch.held.push(HeldBack {
                        origin,
                        envelope,
                        cause,
                    });
                }
                Ok(envelope) => self.prepare_event(book, batch, origin, envelope).await,
                Err(error) => batch.dead.push((origin, self.undecodable(&error))),
            }
            // Long batches let other tasks have the thread between two events.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Applies the rules to an event from the queue or from the store, in a span of its trace.
    pub(super) async fn prepare_event(
        &mut self,
        book: &RuleBook,
        batch: &mut Batch,
        origin: Origin,
        envelope: Envelope,
    ) {
        let span = plan_span(&envelope);
        let prepared = self.prepare_in_span(book, batch, origin, envelope);
        prepared.instrument(span).await;
    }

    async fn prepare_in_span(&mut self, book: &RuleBook, batch: &mut Batch, origin: Origin, envelope: Envelope) {
        let Some(org) = envelope.org else {
            let dead = dead_event(&envelope, None, "it leads to no organisation");
            return batch.dead.push((origin, dead));
        };
        if self.condemned == Some(envelope.id) {
            error!(event.id = %envelope.id, org.id = %org, "Event {} ended its worker again and again; it is stored as \
                dead", envelope.id);
            let dead = dead_event(&envelope, Some(org), "its worker ended each time while it was planned");
            return batch.dead.push((origin, dead));
        }
        let Some(rules) = book.get(org) else {
            return batch.held.push(HeldBack {
                origin,
                envelope,
                cause: HeldCause::OrganisationUnknown,
            });
        };
        let callback = action::read_callback(&envelope);
        let is_callback = callback.is_some();
        batch.callbacks.extend(callback.map(|callback| (org, callback)));
        if !rules.is_active {
            let dead = dead_event(&envelope, Some(org), "its organisation is not active");
            return batch.dead.push((origin, dead));
        }
        for rule_key in rules.waiting_for(&envelope) {
            batch.parts.push(Part {
                org,
                rule_key: rule_key.into(),
                envelope: envelope.clone(),
            });
        }
        let fuel = self.settings.template_fuel_max;
        // A panic costs this event only.
        match catch_unwind(AssertUnwindSafe(|| {
            draft(rules.ready(), &envelope, rules.settings.as_ref(), fuel)
        })) {
            // A callback is shown with its action. As an event of its own it would hide the events
            // that people look for.
            Ok(actions) if actions.is_empty() && (is_callback || !self.unwanted.take(self.clock.now())) => {
                catalogue::EVENTS_PLANNED.count(1, &["unwanted"]);
                batch.done.push(origin);
            }
            Ok(actions) => {
                let unsealed = Unsealed {
                    org,
                    envelope,
                    actions,
                    settings: rules.settings.clone(),
                };
                self.seal(batch, origin, unsealed).await;
            }
            Err(_) => {
                error!(event.id = %envelope.id, org.id = %org, "Planning event {} broke inside Hookswitch; it is \
                    stored as dead", envelope.id);
                let dead = dead_event(&envelope, Some(org), "planning it broke inside Hookswitch");
                batch.dead.push((origin, dead));
            }
        }
    }

    /// Seals the body and the requests of an event. While data keys cannot be read the event stays
    /// unsealed. An event whose data key does not open is held, so that it blocks no other
    /// organisation.
    pub(super) async fn seal(&mut self, batch: &mut Batch, origin: Origin, unsealed: Unsealed) {
        match self.sealed(&unsealed, origin.occasion()).await {
            Ok(event) => batch.events.push((origin, event)),
            Err(error) if is_away(&error) => batch.unsealed.push((origin, unsealed)),
            Err(error) => {
                let id = unsealed.envelope.id;
                debug!(event.id = %id, org.id = %unsealed.org, %error, "Event {id} waits: its organisation's data key \
                    does not open");
                batch.held.push(HeldBack {
                    origin,
                    envelope: unsealed.envelope,
                    cause: HeldCause::DataKey,
                });
            }
        }
    }

    async fn sealed(&mut self, unsealed: &Unsealed, occasion: Occasion) -> Result<PlannedEvent, VaultError> {
        let Unsealed {
            org,
            envelope,
            actions,
            settings,
        } = unsealed;
        let body = self.vault.seal(*org, Purpose::Payload, &envelope.body).await?;
        let mut left = self.day.left(*org);
        let mut planned = Vec::with_capacity(actions.len());
        // From the receipt, not from the time that the sender writes: a sender's clock must not
        // expire an action of ours (decision 0007). An event that a person replays is wanted from
        // now on.
        let wanted_at = match occasion {
            Occasion::Replay(_) => self.clock.now(),
            Occasion::Receipt | Occasion::Rest => envelope.received_at,
        };
        let rows = usize::try_from(self.day.rows_left(*org)).unwrap_or(usize::MAX);
        if actions.len() > rows {
            catalogue::ACTIONS_OVER_BUDGET.count((actions.len() - rows) as u64, &[]);
        }
        // A person who replays an event wants its actions now.
        let quiet_until = match (settings, occasion) {
            (Some(settings), Occasion::Receipt | Occasion::Rest) => settings.quiet_until(self.clock.now()),
            _ => None,
        };
        let may_have_acted = self.may_have_acted(envelope, occasion);
        for drafted in actions.iter().take(rows) {
            let mut action = self.planned_action(*org, wanted_at, drafted, &mut left).await?;
            if let Some(end) = quiet_until.filter(|_| drafted.rule.spec.keeps_quiet_hours()) {
                self.put_off(&mut action, wanted_at, end);
            }
            if may_have_acted && matches!(action.state, ActionState::Pending | ActionState::Waiting) {
                action.state = ActionState::Unknown;
                action.cause = Some(Cause::Ambiguous);
                action.detail = Some(MAY_HAVE_ACTED.to_owned());
            }
            planned.push(action);
        }
        // Before the commit, so that the budget holds within a batch as well.
        self.day.count(*org, planned.len() as u64);
        Ok(PlannedEvent {
            org: *org,
            envelope: envelope.clone(),
            body,
            actions: planned,
            occasion,
        })
    }

    /// One action of an event. It is dead where its rule failed or the day's budget is used up
    /// (`left` are left), else pending.
    async fn planned_action(
        &self,
        org: OrgId,
        wanted_at: Timestamp,
        drafted: &Drafted,
        left: &mut u64,
    ) -> Result<PlannedAction, VaultError> {
        let rule = &drafted.rule;
        let expires_after = rule
            .spec
            .expires_after_seconds
            .map_or(rule.spec.action.expires_after_default(), |seconds| {
                Duration::from_secs(seconds.into())
            });
        let mut action = PlannedAction {
            id: ActionId::generate(),
            rule: rule.id,
            rule_name: rule.spec.name.clone(),
            kind: rule.spec.action,
            credential_name: String::new(),
            request: None,
            state: ActionState::Dead,
            cause: None,
            detail: None,
            due_at: None,
            expires_at: wanted_at + expires_after,
        };
        match &drafted.result {
            Ok(rendered) => {
                let request = serde_json::to_vec(&rendered.request).unwrap_or_default();
                action.request = Some(self.vault.seal(org, Purpose::Payload, &request).await?);
                action.credential_name.clone_from(&rendered.credential_name);
                if *left > 0 {
                    action.state = ActionState::Pending;
                } else {
                    action.cause = Some(Cause::DayBudget);
                    action.detail = Some(format!(
                        "the organisation's {} actions of the day are used up",
                        self.settings.actions_per_day_max
                    ));
                }
            }
            Err(error) => {
                action.cause = Some(error.cause);
                action.detail = Some(error.detail.clone());
            }
        }
        // A row is a row: rules that fail on every event use the budget up too.
        *left = left.saturating_sub(1);
        Ok(action)
    }

    /// Puts a text message off to the end of the quiet hours. Its lifetime begins there, so that a
    /// night expires nothing (invariant 5). What has expired already is not woken up by it.
    fn put_off(&self, action: &mut PlannedAction, wanted_at: Timestamp, end: Timestamp) {
        if action.state == ActionState::Pending && self.clock.now() < action.expires_at {
            action.state = ActionState::Waiting;
            action.cause = Some(Cause::QuietHours);
            action.expires_at = end + action.expires_at.since(wanted_at);
            action.due_at = Some(end);
        }
    }

    fn undecodable(&self, error: &queue::EnvelopeError) -> DeadEvent {
        DeadEvent {
            id: EventId::generate(),
            org: None,
            source: None,
            event_type: None,
            received_at: self.clock.now(),
            reason: error.to_string(),
            envelope: Vec::new(),
        }
    }
}

/// One try to plan an event or a part of it.
pub(super) fn plan_span(envelope: &Envelope) -> Span {
    debug_span!(
        "event.plan",
        event.id = %envelope.id,
        event.type = envelope.event_type.as_str(),
        org.id = envelope.org.map(tracing::field::display),
        subject = %envelope.subject.shown()
    )
}

/// Whether the data keys could not be read: not a statement about them.
pub(super) fn is_away(error: &VaultError) -> bool {
    matches!(
        error,
        VaultError::Store {
            source: StoreError::Unavailable { .. } | StoreError::Conflict { .. },
            ..
        }
    )
}

pub(super) fn dead_event(envelope: &Envelope, org: Option<OrgId>, reason: &str) -> DeadEvent {
    let mut encoded = Vec::new();
    queue::encode(envelope, &mut encoded);
    DeadEvent {
        id: envelope.id,
        org,
        source: Some(envelope.source),
        event_type: Some(envelope.event_type.clone()),
        received_at: envelope.received_at,
        reason: reason.to_owned(),
        envelope: encoded,
    }
}
