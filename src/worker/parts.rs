//! Parts of events that waited for a rule which could not be read: planned once it can be, dropped
//! where it is gone.

use super::{
    batch::{Batch, Commit, Unsealed},
    draft::draft_one,
    plan::Planner,
    rules::RuleBook,
};
use crate::{
    domain::{OrgId, SecretBytes},
    queue::{self, DeliveryTag},
    store::{StoreError, ledger::HeldPart},
    vault::{Purpose, VaultError},
};
use bytes::Bytes;
use tracing::{error, info, warn};

/// Rules that are looked at in one turn, and parts of a rule that are planned together.
const RULES_MAX: u32 = 1_000;
const PARTS_MAX: u32 = 256;

impl Planner {
    /// Plans the parts of every rule that can be read by this book. What the database does not take
    /// now waits for the next look.
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
        // Its events wait behind all others; the parts come after them.
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
            if let Some(rule) = &rule {
                for part in &parts {
                    let Some(envelope) = self.open_part(part).await? else {
                        continue;
                    };
                    if let Some(drafted) = draft_one(rule, &envelope, self.settings.template_fuel_max) {
                        let unsealed = Unsealed {
                            org,
                            envelope,
                            actions: vec![drafted],
                            is_part: true,
                        };
                        // Parts have no delivery to ack.
                        self.seal(&mut batch, DeliveryTag(0), unsealed).await;
                    }
                }
            }
            if self.commit(&mut batch).await == Commit::DatabaseAway || !batch.held.is_empty() {
                return Err(StoreError::Unavailable {
                    doing: "plan parts of events",
                });
            }
            count += parts.len();
            self.store.drop_held_parts(parts).await?;
        }
    }

    /// `None` for a part that no key opens or that is none: it cannot be planned any more.
    async fn open_part(&self, part: &HeldPart) -> Result<Option<crate::domain::Envelope>, StoreError> {
        let read = |plain: &SecretBytes| queue::decode(&Bytes::copy_from_slice(plain.expose_secret()));
        match self.vault.open(part.org, Purpose::Payload, &part.envelope, read).await {
            Ok(Ok(envelope)) => Ok(Some(envelope)),
            Err(VaultError::Store { .. }) => Err(StoreError::Unavailable {
                doing: "open a part of an event",
            }),
            Ok(Err(_)) | Err(_) => {
                error!(event.id = %part.event, org.id = %part.org, "The part of event {} that waited for a rule \
                    does not open, and is dropped", part.event);
                Ok(None)
            }
        }
    }
}
