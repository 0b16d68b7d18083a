//! Parts of events that waited for a rule which could not be read: planned once it can be, dropped
//! where it is gone.

use super::{
    batch::{Batch, Commit, Origin, Unsealed},
    draft::draft_one,
    plan::{Planner, is_away, plan_span},
    rules::RuleBook,
};
use crate::{
    domain::{Envelope, OrgId, SealedBytes, SecretBytes},
    queue,
    store::StoreError,
    vault::VaultError,
};
use bytes::Bytes;
use tracing::{Instrument, error, info, warn};

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
            if book.get(org).is_some_and(|rules| rules.is_unreadable(&key)) {
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
        let rule = book.get(org).and_then(|rules| rules.find(key)).cloned();
        let mut count = 0;
        loop {
            let parts = self.store.list_held_parts(org, key, PARTS_MAX).await?;
            if parts.is_empty() {
                return Ok(count);
            }
            let mut batch = Batch::default();
            count += parts.len();
            for part in parts {
                let envelope = match &rule {
                    Some(_) => self.open_envelope(org, &part.envelope).await,
                    None => Ok(None),
                };
                let drafted = match (&rule, envelope) {
                    (Some(rule), Ok(Some(envelope))) => {
                        let span = plan_span(&envelope);
                        let fuel = self.settings.template_fuel_max;
                        let drafted = span.in_scope(|| draft_one(rule, &envelope, fuel));
                        drafted.map(|drafted| (envelope, drafted, span))
                    }
                    (_, Ok(_)) => None,
                    (_, Err(error)) if is_away(&error) => {
                        let doing = "open a part of an event";
                        return Err(StoreError::Unavailable { doing });
                    }
                    (_, Err(error)) => {
                        error!(event.id = %part.event, org.id = %part.org, %error, "The part of event {} that waited \
                            for a rule does not open, and is dropped", part.event);
                        None
                    }
                };
                let origin = Origin::Part(Box::new(part));
                match drafted {
                    Some((envelope, drafted, span)) => {
                        let unsealed = Unsealed {
                            org,
                            envelope,
                            actions: vec![drafted],
                        };
                        self.seal(&mut batch, origin, unsealed).instrument(span).await;
                    }
                    // The rule is gone or does not want it, or no key opens it.
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
