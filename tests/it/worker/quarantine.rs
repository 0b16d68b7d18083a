//! Events without an organisation: kept sealed, and planned once an operator named one.

use crate::support::{
    app::{
        TestApp,
        worker::{ACCOUNT, report},
    },
    until,
};
use hookswitch::domain::{ActionState, RouteKind};
use reqwest::Method;
use serde_json::{Value, json};

const ASSISTANT: &str = "asst-of-nobody";

/// A report that names an assistant.
fn reported(number: &str) -> Value {
    let mut body = report(number);
    body["message"]["call"]["assistantId"] = ASSISTANT.into();
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_an_organisation_waits_sealed_for_an_operator_who_names_one() {
    let mut app = TestApp::builder().admin().worker().start().await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    app.start_worker();
    let (event, tag) = app.deliver_of_platform(1, &reported("+15550001111"));
    app.acked(tag).await;
    let rows = app.store.list_quarantine(None, 9).await.expect("a list");
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].id, rows[0].event_type.as_str()),
        (event, "vapi.end-of-call-report")
    );
    let named = rows[0].ids.iter().find(|key| key.kind == RouteKind::VapiAssistant);
    assert_eq!(named.map(|key| &*key.value), Some(ASSISTANT));
    for file in ["store.db", "store.db-wal"] {
        let stored = std::fs::read(app.folder().join(file)).expect("the database");
        let is_there = stored.windows(12).any(|window| window == b"+15550001111");
        assert!(!is_there, "a body stands in the clear in {file}");
    }
    assert_eq!(app.actions().await, [], "nobody's rules have run");

    let path = format!("/operator/quarantine/{event}/replay");
    let body = json!({ "org_id": app.a });
    app.operator(Method::POST, &path, &body).await.expect(202);
    let action = until("its action is planned", || async { app.actions().await.pop() }).await;
    assert_eq!(action.event, event);
    assert_ne!(action.state, ActionState::Dead);
    app.operator(Method::POST, &path, &body).await.expect(404);
    assert_eq!(app.store.list_quarantine(None, 9).await.expect("a list"), []);
    app.stop_worker().await;
}
