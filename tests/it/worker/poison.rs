//! Events that the database refuses: they cost themselves, and nobody beside them waits.

use super::rig::{Rig, report, until};
use crate::{
    ledger::{Directory, suite::audit},
    support::postgres::PostgresDatabase,
};
use hookswitch::{
    domain::*,
    store::{PostgresStore, history::ActionFilter},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Longer than an innocent event waits beside hundreds that cannot be stored: it waits well under a
/// second on an idle machine, and 23 seconds where the cost grows with the square.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Postgres refuses a NUL in a text. No rule with one can be saved any more; this one is written
/// behind the check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_events_that_cannot_be_stored_hold_up_nobody() {
    const POISONED: u16 = 600;
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let store = PostgresStore::open(&database.url(), Arc::new(SystemClock))
        .await
        .expect("the store opens");
    let mut rig = Rig::over(Arc::new(store), Directory::new()).await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text\0the caller", None, "{{ message.customer.number }}")
        .await;
    let poisoned = rig.org;
    let innocent = OrgId::generate();
    rig.store
        .create_organisation(innocent, "an innocent organisation", audit(innocent))
        .await
        .expect("created");
    rig.org = innocent;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    for key in 0..POISONED / 2 {
        rig.deliver_numbered(poisoned, key, &report("+15550001111"));
    }
    let tag = rig.deliver_numbered(innocent, 0, &report("+15550002222"));
    for key in POISONED / 2..POISONED {
        rig.deliver_numbered(poisoned, key, &report("+15550001111"));
    }
    let begun = Instant::now();
    rig.start();
    until("the innocent event's action", || async {
        (rig.actions().await.len() == 1).then_some(())
    })
    .await;
    let waited = begun.elapsed();
    println!("an event beside {POISONED} that cannot be stored waited {waited:?}");
    assert!(waited < WAIT_MAX, "it waited {waited:?}");
    rig.acked(tag).await;
    rig.acked(u64::from(POISONED) + 1).await;
    let none = rig
        .store
        .list_actions(poisoned, ActionFilter::default(), None, 10)
        .await;
    assert!(none.expect("read").is_empty());
    rig.stop().await;
}

/// A NUL in an event costs the action whose text has it, and the event's other actions happen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nul_in_an_event_costs_the_action_that_renders_it() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("names the caller", None, "{{ message.customer.name }}").await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.start();
    let mut body = report("+15550001111");
    body["message"]["customer"]["name"] = "Ann\0".into();
    let org = rig.org;
    let tag = rig.deliver_numbered(org, 1, &body);
    rig.acked(tag).await;
    let sent = rig.action_in(ActionState::Succeeded).await;
    assert_eq!(sent.rule_name, "text the caller");
    let dead = rig.action_in(ActionState::Dead).await;
    assert_eq!(
        (dead.rule_name.as_str(), dead.cause),
        ("names the caller", Some(Cause::TemplateFailed))
    );
    assert!(dead.detail.is_some_and(|detail| detail.contains("NUL")));
    rig.stop().await;
}
