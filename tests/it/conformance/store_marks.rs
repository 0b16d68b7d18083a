//! Looks at the lists of an organisation; part of the store's suite.

use super::{
    store::{credential, entry, org, rule},
    store_ledger::{claim, planned},
};
use crate::ledger::suite::running_job;
use hookswitch::{
    domain::{ActionId, ManualClock, OrgId, Provider, Source, Timestamp},
    store::{
        Store,
        bulk::{BulkFilter, BulkVerb},
        ledger::ManualTransition,
        marks::{ACTIONS_LOOKED_AT, List, ListMarks},
        rejections::Rejection,
    },
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// Looks again, and says what changed since the look before.
struct Look<'s> {
    store: &'s Arc<dyn Store>,
    org: OrgId,
    known: ListMarks,
}

impl<'s> Look<'s> {
    async fn new(store: &'s Arc<dyn Store>, org: OrgId) -> Self {
        let known = store.look_at_lists(org).await.expect("a look");
        Self { store, org, known }
    }

    async fn again(&mut self) -> Vec<List> {
        let now = self.store.look_at_lists(self.org).await.expect("a look");
        let changed = now.changed_since(&self.known).collect();
        self.known = now;
        changed
    }
}

fn rejection(org: OrgId) -> Rejection {
    Rejection {
        id: Uuid::now_v7(),
        at: Timestamp::from_seconds(1_000_000),
        source: Source::Vapi,
        endpoint: None,
        org: Some(org),
        is_claimed: false,
        cause: "bad_signature".into(),
        status: 401,
        bytes: 12,
        ids: vec![],
        signed_url: None,
        head: String::new(),
    }
}

async fn cancel(store: &Arc<dyn Store>, org: OrgId, action: ActionId) {
    let now = Timestamp::from_seconds(1_000_001);
    let done = store.cancel(org, action, now, entry(org, "cancel")).await;
    assert!(matches!(done.expect("cancelled"), ManualTransition::Done(_)));
}

pub async fn a_change_marks_its_lists_and_those_of_its_organisation_only(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let (mut look, mut of_b) = (Look::new(store, a).await, Look::new(store, b).await);
    assert_eq!(look.again().await, []);
    let event = planned(a, "call", "end-of-call-report", 1);
    let action = event.actions[0].id;
    store.plan(vec![event].into()).await.expect("planned");
    assert_eq!(look.again().await, [List::Events, List::Actions]);
    clock.advance(Duration::from_secs(1));
    cancel(store, a, action).await;
    assert_eq!(look.again().await, [List::Actions, List::Audit]);
    let one = credential(a, Provider::Twilio, "", "one");
    store.save_credential(one, entry(a, "connect")).await.expect("saved");
    assert_eq!(look.again().await, [List::Integrations, List::Audit]);
    store
        .record_rejections(vec![rejection(a)], 100)
        .await
        .expect("recorded");
    assert_eq!(look.again().await, [List::Rejections]);
    store
        .create_rule(rule(a, "one"), entry(a, "create"))
        .await
        .expect("made");
    assert_eq!(look.again().await, [List::Audit]);
    let now = Timestamp::from_seconds(1_000_000);
    let job = running_job(a, BulkVerb::Retry, BulkFilter::default(), 1, now);
    let id = job.id;
    store.begin_bulk(job, entry(a, "retry")).await.expect("begun");
    assert_eq!(look.again().await, [List::Jobs, List::Audit]);
    let lease = store.take_bulk(a, id, Duration::from_mins(1)).await;
    let lease = lease.expect("a look").expect("free");
    let step = store.step_bulk(lease, Duration::from_mins(1), 10).await;
    assert!(!step.expect("a step"), "that was all");
    assert!(look.again().await.contains(&List::Jobs), "it has ended");
    assert_eq!(of_b.again().await, [], "nothing of it is B's");
    assert_eq!(look.again().await, []);
}

pub async fn work_on_an_old_action_marks_the_list(store: &Arc<dyn Store>, clock: &ManualClock) {
    let a = org(store).await;
    let one = credential(a, Provider::Twilio, "", "one");
    store.save_credential(one, entry(a, "connect")).await.expect("saved");
    let oldest = planned(a, "call", "end-of-call-report", 1);
    let action = oldest.actions[0].id;
    store.plan(vec![oldest].into()).await.expect("planned");
    clock.advance(Duration::from_secs(1));
    let newer = planned(a, "call", "status-update", ACTIONS_LOOKED_AT as usize);
    store.plan(vec![newer].into()).await.expect("planned");
    let mut look = Look::new(store, a).await;
    let claims = claim(store, 1_000_002, 1).await;
    assert_eq!(claims[0].action, action, "the oldest goes first");
    assert_eq!(look.again().await, [List::Actions]);
}
