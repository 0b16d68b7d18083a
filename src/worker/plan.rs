//! One batch of deliveries to rows: rules are applied, requests rendered and sealed, everything is
//! committed together.

use super::{
    day,
    rules::{ActiveRule, OrgRules, RULES_PER_TYPE_MAX, RuleBook},
};
use crate::{
    config::WorkerSettings,
    domain::{ActionId, ActionState, Cause, Clock, Envelope, EventId, OrgId, Source},
    killpoint::{Step, reach},
    queue::{self, Delivery, DeliveryTag},
    rule::{Budget, Context, Rendered, RuleError, Sample},
    store::{
        Store, StoreError,
        ledger::{DeadEvent, Planned, PlannedAction, PlannedEvent},
    },
    telemetry::catalogue,
    vault::{Purpose, Vault, VaultError},
};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};
use tracing::{debug, error, warn};

/// What is to be committed of one delivery.
pub(super) enum Prepared {
    Event(DeliveryTag, PlannedEvent),
    Dead(DeliveryTag, DeadEvent),
    /// A callback of a provider about one of our actions. Its event goes on beside it: rules may
    /// want it as well.
    Callback {
        org: OrgId,
        action: ActionId,
        provider_ref: String,
    },
    /// Prepared when the vault answers again.
    Unsealed(DeliveryTag, Box<Unsealed>),
}

/// An event to plan whose payloads are not sealed yet.
pub(super) struct Unsealed {
    org: OrgId,
    envelope: Envelope,
    actions: Vec<Drafted>,
}

struct Drafted {
    rule: Arc<ActiveRule>,
    result: Result<Rendered, RuleError>,
}

pub(super) struct Planner {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    settings: WorkerSettings,
    /// Actions planned by organisation on the day. Of this process, since it started: a restart
    /// gives each organisation its day again, which the limit's purpose (no runaway) bears.
    today: i64,
    planned_today: HashMap<OrgId, u64>,
    /// Unwanted events that may still be recorded in this second.
    second: i64,
    recorded: u32,
}

impl Planner {
    pub fn new(store: Arc<dyn Store>, vault: Arc<Vault>, clock: Arc<dyn Clock>, settings: WorkerSettings) -> Self {
        Self {
            store,
            vault,
            clock,
            settings,
            today: 0,
            planned_today: HashMap::new(),
            second: 0,
            recorded: 0,
        }
    }

    /// Applies rules. What no rule wants goes to `done`, what belongs to an unknown organisation to
    /// `held`; the rest waits to be committed.
    pub async fn prepare(
        &mut self,
        book: &RuleBook,
        batch: Vec<Delivery>,
        done: &mut Vec<DeliveryTag>,
        held: &mut Vec<Delivery>,
    ) -> Vec<Prepared> {
        let mut prepared = Vec::with_capacity(batch.len());
        for delivery in batch {
            let tag = delivery.tag;
            let envelope = match delivery.event {
                Ok(envelope) => envelope,
                Err(error) => {
                    prepared.push(Prepared::Dead(tag, self.undecodable(&error)));
                    continue;
                }
            };
            let Some(org) = envelope.org else {
                prepared.push(Prepared::Dead(
                    tag,
                    dead(&envelope, None, "it leads to no organisation"),
                ));
                continue;
            };
            let Some(rules) = book.get(org) else {
                held.push(Delivery {
                    tag,
                    event: Ok(envelope),
                });
                continue;
            };
            let callback = callback(&envelope);
            // What it says stands with its action: recorded as an event besides, it would hide
            // those that people look for.
            let is_told = callback.is_some();
            if let Some((action, provider_ref)) = callback {
                prepared.push(Prepared::Callback {
                    org,
                    action,
                    provider_ref,
                });
            }
            if !rules.is_active {
                prepared.push(Prepared::Dead(
                    tag,
                    dead(&envelope, Some(org), "its organisation is not active"),
                ));
                continue;
            }
            if !rules.are_readable() {
                prepared.push(Prepared::Dead(
                    tag,
                    dead(&envelope, Some(org), "a rule of its organisation cannot be read"),
                ));
                continue;
            }
            // A panic costs this event only.
            let fuel = self.settings.template_fuel_max;
            match catch_unwind(AssertUnwindSafe(|| draft(rules, &envelope, fuel))) {
                Ok(actions) if actions.is_empty() && (is_told || !self.records_unwanted()) => {
                    catalogue::EVENTS_PLANNED.count(1, &["unwanted"]);
                    done.push(tag);
                }
                Ok(actions) => match self.seal(tag, Unsealed { org, envelope, actions }).await {
                    Ok(item) => prepared.push(item),
                    Err(delivery) => held.push(delivery),
                },
                Err(_) => {
                    error!(event.id = %envelope.id, org.id = %org, "Planning event {} broke inside Hookswitch; it is \
                        set aside", envelope.id);
                    prepared.push(Prepared::Dead(
                        tag,
                        dead(&envelope, Some(org), "planning it broke inside Hookswitch"),
                    ));
                }
            }
            // Long batches let others have the thread between two events.
            tokio::task::coop::consume_budget().await;
        }
        prepared
    }

    /// Commits what is prepared; `false` when the database was away, with what is left still in
    /// `prepared`.
    pub async fn commit(
        &mut self,
        prepared: &mut Vec<Prepared>,
        done: &mut Vec<DeliveryTag>,
        held: &mut Vec<Delivery>,
    ) -> bool {
        let mut events = Vec::new();
        let mut rest = Vec::new();
        for item in prepared.drain(..) {
            match item {
                Prepared::Event(tag, event) => events.push((tag, event)),
                Prepared::Unsealed(tag, unsealed) => match self.seal(tag, *unsealed).await {
                    Ok(Prepared::Event(tag, event)) => events.push((tag, event)),
                    Ok(other) => rest.push(other),
                    Err(delivery) => held.push(delivery),
                },
                other => rest.push(other),
            }
        }
        let mut is_away = false;
        for item in rest {
            let result = match &item {
                Prepared::Dead(_, dead) => self.bury(dead.clone()).await,
                Prepared::Callback {
                    org,
                    action,
                    provider_ref,
                    ..
                } => self.settle(*org, *action, provider_ref).await,
                Prepared::Event(..) | Prepared::Unsealed(..) => Err(StoreError::Unavailable {
                    doing: "seal a payload",
                }),
            };
            let tag = match &item {
                Prepared::Dead(tag, _) | Prepared::Event(tag, _) | Prepared::Unsealed(tag, _) => Some(*tag),
                Prepared::Callback { .. } => None,
            };
            match result {
                Ok(()) => done.extend(tag),
                Err(StoreError::Unavailable { .. }) => {
                    is_away = true;
                    prepared.push(item);
                }
                Err(error) => {
                    // Not even that can be written. It stands in nobody's way.
                    error!(%error, "An event cannot be set aside and is given up");
                    done.extend(tag);
                }
            }
        }
        let mut batches = vec![events];
        while let Some(batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            if is_away {
                prepared.extend(batch.into_iter().map(|(tag, event)| Prepared::Event(tag, event)));
                continue;
            }
            let (tags, events): (Vec<DeliveryTag>, Vec<PlannedEvent>) = batch.into_iter().unzip();
            let events: Arc<[PlannedEvent]> = events.into();
            match self.store.plan(events.clone()).await {
                Ok(results) => {
                    reach(Step::Planned);
                    self.count(&events, &results);
                    done.extend(tags);
                }
                Err(StoreError::Unavailable { .. }) => {
                    is_away = true;
                    prepared.extend(
                        tags.into_iter()
                            .zip(events.iter().cloned())
                            .map(|(tag, event)| Prepared::Event(tag, event)),
                    );
                }
                Err(error) if events.len() == 1 => {
                    error!(event.id = %events[0].envelope.id, org.id = %events[0].org, %error, "Event {} cannot be \
                        stored; it is set aside", events[0].envelope.id);
                    prepared.push(Prepared::Dead(
                        tags[0],
                        dead(&events[0].envelope, Some(events[0].org), &error.to_string()),
                    ));
                    // Not away: the caller comes again at once to bury it.
                    return Box::pin(self.commit_after(prepared, done, held, batches)).await;
                }
                // One of them is to blame: the halves find it (invariant 15).
                Err(error) => {
                    debug!(%error, "A batch of {} events is bisected", events.len());
                    let mut halves: Vec<(DeliveryTag, PlannedEvent)> =
                        tags.into_iter().zip(events.iter().cloned()).collect();
                    let second = halves.split_off(halves.len() / 2);
                    batches.push(second);
                    batches.push(halves);
                }
            }
        }
        !is_away
    }

    async fn commit_after(
        &mut self,
        prepared: &mut Vec<Prepared>,
        done: &mut Vec<DeliveryTag>,
        held: &mut Vec<Delivery>,
        batches: Vec<Vec<(DeliveryTag, PlannedEvent)>>,
    ) -> bool {
        prepared.extend(
            batches
                .into_iter()
                .rev()
                .flatten()
                .map(|(tag, event)| Prepared::Event(tag, event)),
        );
        self.commit(prepared, done, held).await
    }

    /// Seals the body and the requests. While data keys cannot be read it stays as it is; what does
    /// not open is handed back, to be held: it stands in no other organisation's way.
    async fn seal(&mut self, tag: DeliveryTag, unsealed: Unsealed) -> Result<Prepared, Delivery> {
        match self.sealed(&unsealed).await {
            Ok(event) => Ok(Prepared::Event(tag, event)),
            Err(VaultError::Store { .. }) => Ok(Prepared::Unsealed(tag, Box::new(unsealed))),
            Err(error) => {
                warn!(event.id = %unsealed.envelope.id, org.id = %unsealed.org, %error, "Event {} waits: its \
                    organisation's data key does not open", unsealed.envelope.id);
                Err(Delivery {
                    tag,
                    event: Ok(unsealed.envelope),
                })
            }
        }
    }

    async fn sealed(&mut self, unsealed: &Unsealed) -> Result<PlannedEvent, VaultError> {
        let Unsealed {
            org,
            envelope,
            actions: drafted,
        } = unsealed;
        let body = self.vault.seal(*org, Purpose::Payload, &envelope.body).await?;
        let mut actions = Vec::with_capacity(drafted.len());
        let mut left = self.budget_left(*org);
        for Drafted { rule, result } in drafted {
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
                // A sender's clock may run ahead; ours bounds it. From the receipt, not from the
                // time that the sender writes: a clock of theirs must not expire an action of ours
                // (decision 0007).
                expires_at: envelope.received_at + expires_after,
            };
            match result {
                Ok(rendered) => {
                    let request = serde_json::to_vec(&rendered.request).unwrap_or_default();
                    action.request = Some(self.vault.seal(*org, Purpose::Payload, &request).await?);
                    action.credential_name.clone_from(&rendered.credential_name);
                    if left > 0 {
                        left -= 1;
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
            actions.push(action);
        }
        Ok(PlannedEvent {
            org: *org,
            envelope: envelope.clone(),
            body,
            actions,
            series: 0,
        })
    }

    fn budget_left(&mut self, org: OrgId) -> u64 {
        let today = day(self.clock.now());
        if today != self.today {
            self.today = today;
            self.planned_today.clear();
        }
        self.settings
            .actions_per_day_max
            .saturating_sub(self.planned_today.get(&org).copied().unwrap_or(0))
    }

    fn count(&mut self, events: &[PlannedEvent], results: &[Planned]) {
        for (event, result) in events.iter().zip(results) {
            let outcome = match result {
                Planned::Duplicate => "duplicate",
                Planned::New if event.actions.is_empty() => "recorded",
                Planned::New => "planned",
            };
            catalogue::EVENTS_PLANNED.count(1, &[outcome]);
            if *result == Planned::New {
                for action in &event.actions {
                    catalogue::ACTIONS_PLANNED.count(1, &[action.kind.as_str()]);
                    if action.state == ActionState::Pending {
                        *self.planned_today.entry(event.org).or_default() += 1;
                    }
                }
            }
        }
    }

    /// Whether an event that no rule wants is kept for people to look at; up to so many a second.
    fn records_unwanted(&mut self) -> bool {
        let second = self.clock.now().as_seconds();
        if second != self.second {
            self.second = second;
            self.recorded = 0;
        }
        let may = self.recorded < self.settings.record_unwanted_per_second_max;
        self.recorded += u32::from(may);
        may
    }

    async fn settle(&self, org: OrgId, action: ActionId, provider_ref: &str) -> Result<(), StoreError> {
        let settled = self
            .store
            .record_callback(org, action, provider_ref, self.clock.now())
            .await?;
        debug!(org.id = %org, action.id = %action, ?settled, "A provider called back about action {action}");
        catalogue::EVENTS_PLANNED.count(1, &["callback"]);
        Ok(())
    }

    async fn bury(&self, mut dead: DeadEvent) -> Result<(), StoreError> {
        if let Some(org) = dead.org {
            // What cannot be sealed is not kept in the clear.
            dead.envelope = match self.vault.seal(org, Purpose::Payload, &dead.envelope).await {
                Ok(sealed) => sealed.0.into_vec(),
                Err(VaultError::Store { .. }) => {
                    return Err(StoreError::Unavailable {
                        doing: "seal an event that is set aside",
                    });
                }
                Err(_) => Vec::new(),
            };
        }
        self.store.store_dead_event(dead).await?;
        catalogue::EVENTS_PLANNED.count(1, &["dead"]);
        Ok(())
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

fn dead(envelope: &Envelope, org: Option<OrgId>, reason: &str) -> DeadEvent {
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

/// A Twilio status callback of a send of ours: our id is in the URL that we gave with it, under
/// Twilio's signature (invariant 2).
fn callback(envelope: &Envelope) -> Option<(ActionId, String)> {
    if envelope.source != Source::Twilio || envelope.event_type.kind() != "message-status" {
        return None;
    }
    let action = pairs(envelope.query.as_bytes())
        .find(|(name, _)| *name == b"action")
        .and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok())?;
    // SIDs are plain letters and digits: nothing to decode.
    let sid = pairs(&envelope.body)
        .find(|(name, _)| *name == b"MessageSid")
        .map(|(_, value)| value)?;
    let is_sid = sid.len() == 34 && sid.iter().all(u8::is_ascii_alphanumeric);
    is_sid.then(|| (action, String::from_utf8_lossy(sid).into_owned()))
}

fn pairs(form: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    form.split(|&byte| byte == b'&').filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        Some((&pair[..at], &pair[at + 1..]))
    })
}

/// Applies all rules of an organisation to one event, under one budget. A rule that fails costs its
/// own action only.
fn draft(rules: &OrgRules, envelope: &Envelope, fuel: u64) -> Vec<Drafted> {
    let mut drafted = Vec::new();
    let mut context = None;
    let mut budget = Budget::new(fuel);
    let meant = rules
        .rules
        .iter()
        .filter(|rule| rule.spec.source == envelope.source && rule.spec.event_type.matches(&envelope.event_type));
    for rule in meant.take(RULES_PER_TYPE_MAX) {
        let compiled = match rule.compiled() {
            Ok(compiled) => compiled,
            Err(problems) => {
                let detail = problems.first().map_or_else(String::new, |first| {
                    format!("the rule does not compile: {}: {}", first.field, first.problem)
                });
                drafted.push(Drafted {
                    rule: rule.clone(),
                    result: Err(RuleError {
                        cause: Cause::TemplateFailed,
                        detail,
                    }),
                });
                continue;
            }
        };
        // Made when a rule first needs it.
        let context = context.get_or_insert_with(|| Context::new(&Sample::from(envelope)));
        let result = match compiled.matches(context, &mut budget) {
            Ok(false) => continue,
            Ok(true) => compiled.render(context, &mut budget),
            Err(error) => Err(error),
        };
        drafted.push(Drafted {
            rule: rule.clone(),
            result,
        });
    }
    drafted
}
