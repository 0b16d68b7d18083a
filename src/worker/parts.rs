//! Parts of events that waited for a rule which could not be read: planned once it can be, dropped
//! where it is gone.

use super::{
    batch::{Batch, Commit, Origin, Unsealed},
    draft::{Drafted, draft_one},
    plan::{Planner, is_away, plan_span},
    rules::{ActiveRule, RuleBook},
};
use crate::{
    domain::{Envelope, OrgId, OrgSettings, SealedBytes, SecretBytes},
    queue,
    store::{StoreError, ledger::HeldPart},
    vault::VaultError,
};
use bytes::Bytes;
use std::sync::Arc;
use tracing::{Instrument, Span, error, info, warn};

/// Rules that are looked at in one turn, and parts of a rule that are planned together.
const RULES_MAX: u32 = 1_000;
const PARTS_MAX: u32 = 256;

impl Planner {
    /// Plans the parts of every rule that can be read by this book. Parts that the database does
    /// not take now wait for the next look.
    pub async fn plan_held_parts(&mut self, book: &RuleBook) {
        let rules = match self.store.list_held_rules(RULES_MAX).await {
            Ok(rules) => rules,
            Err(error) => return warn!(%error, "Parts of events that wait for a rule cannot be looked at for now"),
        };
        for (org, key) in rules {
            if book.get(org).is_some_and(|rules| rules.is_waiting(&key)) {
                continue;
            }
            match self.plan_parts_of(book, org, &key).await {
                Ok(count) => {
                    info!(org.id = %org, "A rule can be read again: {count} events that waited for it are planned");
                }
                Err(error) => {
                    warn!(org.id = %org, %error, "Events that waited for a rule wait on");
                }
            }
        }
    }

    async fn plan_parts_of(&mut self, book: &RuleBook, org: OrgId, key: &[u8]) -> Result<usize, StoreError> {
        // The events of this organisation wait behind all others, and its parts come after them.
        if self.suspects.contains(org) {
            let doing = "plan parts of events";
            return Err(StoreError::Unavailable { doing });
        }
        let rules = book.get(org);
        let rule = rules.and_then(|rules| rules.find(key)).cloned();
        let settings = rules.and_then(|rules| rules.settings.clone());
        let mut count = 0;
        loop {
            let parts = self.store.list_held_parts(org, key, PARTS_MAX).await?;
            if parts.is_empty() {
                return Ok(count);
            }
            let mut batch = Batch::default();
            count += parts.len();
            for part in parts {
                let drafted = self.draft_part(rule.as_ref(), settings.as_ref(), &part).await?;
                let origin = Origin::Part(Box::new(part));
                match drafted {
                    Some((envelope, drafted, span)) => {
                        let unsealed = Unsealed {
                            org,
                            envelope,
                            actions: vec![drafted],
                            settings: settings.clone(),
                        };
                        self.seal(&mut batch, origin, unsealed).instrument(span).await;
                    }
                    None => batch.done.push(origin),
                }
            }
            let commit = self.commit(&mut batch).await;
            self.forget_stored(&batch.done).await?;
            if commit == Commit::DatabaseAway || !batch.held.is_empty() || self.suspects.contains(org) {
                return Err(StoreError::Unavailable {
                    doing: "plan parts of events",
                });
            }
        }
    }

    /// The event of a part, with the action that the rule makes of it. `None` where the rule is
    /// gone or does not want the event, or no key opens it.
    async fn draft_part(
        &self,
        rule: Option<&Arc<ActiveRule>>,
        settings: Option<&Arc<OrgSettings>>,
        part: &HeldPart,
    ) -> Result<Option<(Envelope, Drafted, Span)>, StoreError> {
        let Some(rule) = rule else { return Ok(None) };
        let envelope = match self.open_envelope(part.org, &part.envelope).await {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return Ok(None),
            Err(error) if is_away(&error) => {
                let doing = "open a part of an event";
                return Err(StoreError::Unavailable { doing });
            }
            Err(error) => {
                error!(event.id = %part.event, org.id = %part.org, %error, "The part of event {} that waited for a \
                    rule does not open, and is dropped", part.event);
                return Ok(None);
            }
        };
        let span = plan_span(&envelope);
        let drafted = span.in_scope(|| draft_one(rule, &envelope, settings, self.settings.template_fuel_max));
        Ok(drafted.map(|drafted| (envelope, drafted, span)))
    }

    /// An event as it was kept; `None` where what was kept is none.
    pub(super) async fn open_envelope(&self, org: OrgId, sealed: &SealedBytes) -> Result<Option<Envelope>, VaultError> {
        let read = |plain: &SecretBytes| queue::decode(&Bytes::copy_from_slice(plain.expose_secret())).ok();
        self.vault.open_payload(org, sealed, read).await
    }

    /// Forgets the rows of events that are done. Events that the queue delivered are acked instead.
    pub async fn forget_stored(&self, done: &[Origin]) -> Result<(), StoreError> {
        let (mut held, mut parts) = (Vec::new(), Vec::new());
        for origin in done {
            match origin {
                Origin::Delivery(_) => {}
                Origin::HeldEvent { org, event, .. } => held.push((*org, *event)),
                Origin::Part(part) => parts.push(part.as_ref().clone()),
            }
        }
        if !parts.is_empty() {
            self.store.drop_held_parts(parts).await?;
        }
        self.store.drop_held_events(held).await
    }
}
