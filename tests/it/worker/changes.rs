//! Changes of configuration while the worker runs.

use crate::support::{
    app::{
        TestApp,
        worker::{ACCOUNT, report},
    },
    until,
};
use crate::{ledger::suite::audit, support::postgres::PostgresDatabase};
use hookswitch::{
    domain::*,
    store::{self, credentials::NewCredential},
    vault::Purpose,
};
use std::sync::Arc;

fn credential(org: OrgId, sealed: SealedBytes) -> NewCredential {
    NewCredential {
        org,
        provider: Provider::Twilio,
        name: String::new(),
        sealed,
        state: IntegrationState::Connected,
        missing: None,
        account_id: None,
        account_name: None,
        account_fingerprint: None,
        last_four: None,
        verified_at: None,
        expects: hookswitch::store::credentials::Expects::Anything,
    }
}

/// A change of one organisation's configuration costs no other one its cached credentials. Its own
/// are loaded again before anything more is claimed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_empties_the_cache_of_its_own_organisation_and_no_other() {
    let mut app = TestApp::texting().await;
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    app.action_in(ActionState::Succeeded).await;
    app.damage_credential().await;
    // Another organisation connects, and this one changes something else than a credential.
    let other = OrgId::generate();
    let created = app.store.create_organisation(other, "another", audit(other)).await;
    created.expect("created");
    let sealed = app
        .vault
        .seal(other, Purpose::Credential(Provider::Twilio), b"{}")
        .await;
    let new = credential(other, sealed.expect("sealed"));
    app.store.save_credential(new, audit(other)).await.expect("saved");
    app.rule("a rule of another type", Some("false"), "+15550009999").await;
    app.deliver(app.a, 2, &report("+15550002222"));
    until("the second SMS", || async {
        (app.twilio().count() == (2, 2)).then_some(())
    })
    .await;
    app.store.stamp_credentials(app.a).await.expect("stamped");
    app.deliver(app.a, 3, &report("+15550003333"));
    let parked = app.action_in(ActionState::Parked).await;
    assert_eq!(parked.cause, Some(Cause::Undecryptable), "{parked:?}");
    assert_eq!(app.twilio().count(), (2, 2));
    app.stop_worker().await;
}

/// The same where another instance made the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_by_another_instance_empties_the_cache_of_its_organisation_here() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let url = database.url();
    let open = || store::connect(&url, Arc::new(SystemClock));
    let (here, there) = (open().await.expect("opens"), open().await.expect("opens"));
    let mut app = TestApp::working_over(here).await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    app.action_in(ActionState::Succeeded).await;
    let new = credential(app.a, SealedBytes(Box::from([0_u8].as_slice())));
    there.save_credential(new, audit(app.a)).await.expect("saved");
    // A notification says so, and the next poll at the latest: what is claimed until then
    // goes out by the former credential.
    for key in 2..=100 {
        let tag = app.deliver(app.a, key, &report("+15550002222"));
        app.acked(tag).await;
        let newest = until("an action that has stopped", || async {
            let actions = app.actions().await;
            let newest = actions.into_iter().max_by_key(|action| action.created_at)?;
            (newest.state != ActionState::Pending && newest.state != ActionState::Running).then_some(newest)
        })
        .await;
        if newest.state == ActionState::Parked {
            assert_eq!(newest.cause, Some(Cause::Undecryptable), "{newest:?}");
            app.stop_worker().await;
            there.close().await;
            return;
        }
    }
    panic!("the former credential is still used");
}
