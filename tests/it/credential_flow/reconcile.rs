//! The look at every kept assistant, by however many instances.

use super::{
    TestApp,
    assistants::{another_instance, connected, front_desk},
};
use crate::{ledger::suite::audit, support::until};
use hookswitch::{
    assistants::AssistantManager,
    domain::{AssistantRole, Clock, EndpointId, ManagedAssistantState, OrgId, Provider, SealedBytes},
    store::managed::ManagedAssistant,
};
use reqwest::Method;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const ELEVEN_MINUTES: Duration = Duration::from_mins(11);

/// An organisation that keeps an assistant and has no key for Vapi any more.
async fn with_assistant(app: &TestApp) -> OrgId {
    let (org, now) = (OrgId::generate(), app.clock.now());
    let made = app.store.create_organisation(org, "one", audit(org));
    made.await.expect("created");
    let row = ManagedAssistant {
        org,
        role: AssistantRole::Inbound,
        marker: "marker".to_owned(),
        assistant_id: Some("assistant".to_owned()),
        endpoint: EndpointId::generate(),
        sealed: SealedBytes([0].into()),
        state: ManagedAssistantState::InStep,
        drift: Vec::new(),
        error: None,
        checked_at: Some(now),
        version: 0,
        created_at: now,
        updated_at: now,
    };
    let lease = app.store.take_lease(org, "assistant:inbound", Duration::from_secs(1));
    let lease = lease.await.expect("a look").expect("free");
    let saved = app.store.save_managed_assistant(row, None, &lease, None).await;
    assert!(saved.expect("saved").is_some());
    app.store.release_lease(&lease).await.expect("given back");
    org
}

/// Runs these instances until no assistant is due.
async fn until_none_is_due(app: &TestApp, instances: Vec<Arc<AssistantManager>>) {
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    for instance in instances {
        running.spawn(instance.run(stop.clone()));
    }
    let before = app.clock.now() - Duration::from_mins(10);
    until("no assistant to be due", || async {
        let due = app.store.list_assistants_to_check(before, 1).await.expect("a list");
        due.is_empty().then_some(())
    })
    .await;
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended.expect("it does not panic");
    }
}

/// Ten thousand organisations have more in ten minutes than turns with a pause between them hold.
#[tokio::test]
async fn more_assistants_than_a_turn_holds_are_looked_at_without_a_pause() {
    let app = TestApp::start().await;
    let mut orgs = Vec::new();
    for _ in 0..330 {
        orgs.push(with_assistant(&app).await);
    }
    app.clock.advance(ELEVEN_MINUTES);
    until_none_is_due(&app, vec![another_instance(&app)]).await;
    for org in orgs {
        let row = app.store.find_managed_assistant(org, AssistantRole::Inbound).await;
        let row = row.expect("a look").expect("a row");
        assert_eq!(row.error.as_deref(), Some("Vapi is not connected"));
        assert_eq!(row.checked_at, Some(app.clock.now()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_four_instances_one_looks_at_an_assistant() {
    let app = connected().await;
    for org in [app.a, app.b] {
        for role in ["inbound", "outbound"] {
            let path = format!("/api/assistants/{role}");
            app.call(org, Method::PUT, &path, Some(&front_desk())).await.expect(200);
        }
    }
    app.clock.advance(ELEVEN_MINUTES);
    let asked = || app.providers().requests(Provider::Vapi).len();
    let before = asked();
    until_none_is_due(&app, (0..4).map(|_| another_instance(&app)).collect()).await;
    assert_eq!(asked() - before, 4, "each was read once");
}
