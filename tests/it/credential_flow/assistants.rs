//! Assistants that are kept at Vapi: exactly one for a role, whatever fails in between.

use super::{Answer, TestApp};
use crate::admin::audit::{change, last, secret, with_changes};
use hookswitch::{
    admin::Role,
    assistants::{AssistantError, AssistantManager, Audits, Looked, Wanted},
    domain::{AssistantRole, Clock, OrgId, Provider, RouteState},
    provider::Providers,
    sandbox::{Drop, Fault},
    store::audit::AuditEntry,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

pub(super) const KEY: &str = "vapi-key-of-the-first-organisation";
const OTHER_KEY: &str = "vapi-key-of-the-other-organisation";
const INBOUND: &str = "/api/assistants/inbound";
const KEPT: &str = "/api/managed-assistants/inbound";

pub(super) async fn connected() -> TestApp {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for (org, key) in [(app.a, KEY), (app.b, OTHER_KEY)] {
        let body = json!({ "api_key": key });
        app.post(org, "/api/integrations/vapi", &body).await.expect(200);
    }
    app
}

pub(super) fn front_desk() -> Value {
    json!({
        "name": "Front desk",
        "assistant": {
            "firstMessage": "Birchwood Dental, how can I help?",
            "model": { "provider": "openai", "model": "gpt-4o" },
            "metadata": { "team": "north" },
        },
    })
}

async fn put(app: &TestApp, org: OrgId, body: &Value) -> Answer {
    app.call(org, Method::PUT, INBOUND, Some(body)).await
}

/// Another instance: it shares the store, and nothing else.
pub(super) fn another_instance(app: &TestApp) -> Arc<AssistantManager> {
    let app = &app;
    let vapi = Providers::new(&app.settings.provider, None).expect("settings").vapi;
    let url = Some("https://hooks.example.com".to_owned());
    let clock: Arc<dyn Clock> = app.clock.clone();
    Arc::new(AssistantManager::new(
        app.store.clone(),
        app.vault.clone(),
        vapi,
        clock,
        url,
    ))
}

fn wanted(body: &Value) -> Wanted {
    Wanted {
        name: body["name"].as_str().expect("a name").to_owned(),
        config: body["assistant"].as_object().expect("fields").clone(),
    }
}

fn audits(org: OrgId) -> Audits {
    let entry = |target_kind| AuditEntry {
        target_kind,
        ..crate::ledger::suite::audit(org)
    };
    Audits {
        assistant: entry("assistant"),
        endpoint: entry("endpoint"),
    }
}

fn fault(method: &str, status: Option<u16>, drop: Option<Drop>) -> Fault {
    Fault {
        method: Some(method.to_owned()),
        path: Some("/assistant".to_owned()),
        times: Some(1),
        status,
        drop,
        ..Fault::of(Provider::Vapi)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_once_from_two_instances_make_one_assistant() {
    let app = Arc::new(connected().await);
    let org = app.a;
    let other = another_instance(&app);
    let asked = (0..100).map(|number| {
        let (app, other) = (app.clone(), other.clone());
        async move {
            if number % 2 == 0 {
                let answer = put(&app, org, &front_desk()).await;
                assert!(matches!(answer.status, 200 | 409), "{answer:?}");
                return answer.status == 200;
            }
            match other
                .ensure(org, AssistantRole::Inbound, wanted(&front_desk()), None, audits(org))
                .await
            {
                Ok(_) => true,
                Err(AssistantError::Busy) => false,
                Err(error) => panic!("{error:?}"),
            }
        }
    });
    let done = futures_util::future::join_all(asked).await;
    assert!(done.iter().any(|is_done| *is_done));
    let made = app.providers().assistants();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(app.providers().violations(), []);
    // Its webhooks come with a secret, to an endpoint of its own, and are sent again.
    let server = &made[0]["server"];
    let endpoints = app.get(org, "/api/endpoints").await.expect(200).json();
    assert_eq!(endpoints["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(server["url"], endpoints["data"][0]["url"]);
    assert_eq!(server["headers"]["X-Vapi-Secret"].as_str().map(str::len), Some(64));
    assert_eq!(server["backoffPlan"]["maxRetries"], 5);
    assert_eq!(made[0]["metadata"]["team"], "north");
    let id = made[0]["id"].as_str().expect("an id");
    let claim = app.store.find_assistant(org, id).await.expect("read").expect("a claim");
    assert_eq!(
        (claim.state, claim.role),
        (RouteState::Live, Some(AssistantRole::Inbound))
    );
}

#[tokio::test]
async fn the_same_again_changes_nothing_and_what_differs_is_sent_alone() {
    let app = connected().await;
    let org = app.a;
    let first = put(&app, org, &front_desk()).await.expect(200).json();
    let count = || {
        app.providers()
            .requests(Provider::Vapi)
            .iter()
            .filter(|one| one.method != "GET")
            .count()
    };
    let writes = count();
    let again = put(&app, org, &front_desk()).await.expect(200).json();
    assert_eq!((&again, count()), (&first, writes), "nothing was written");
    // Tools that a person added at Vapi stay, and a field that is not wanted any more is cleared.
    let id = first["assistant_id"].as_str().expect("an id").to_owned();
    let with_tools =
        json!({ "provider": "openai", "model": "gpt-4o", "toolIds": ["5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be0cc"] });
    app.providers()
        .change_assistant(&id, json!({ "model": with_tools }).as_object().expect("fields"));
    let mut body = front_desk();
    body["assistant"]
        .as_object_mut()
        .expect("fields")
        .remove("firstMessage");
    body["assistant"]["model"]["model"] = json!("gpt-4.1");
    put(&app, org, &body).await.expect(200);
    let made = app.providers().assistants();
    assert_eq!((made.len(), made[0].get("firstMessage")), (1, None));
    assert_eq!(made[0]["model"]["model"], "gpt-4.1");
    assert_eq!(made[0]["model"]["toolIds"], with_tools["toolIds"]);
    let sent = app.providers().requests(Provider::Vapi).pop().expect("a request");
    assert_eq!(sent.method, "PATCH");
    assert_eq!(app.providers().violations(), []);
    // The other role and the other organisation have their own.
    app.call(org, Method::PUT, "/api/assistants/outbound", Some(&front_desk()))
        .await
        .expect(200);
    put(&app, app.b, &front_desk()).await.expect(200);
    assert_eq!(app.providers().assistants().len(), 3);
    let listed = app.get(org, "/api/managed-assistants").await.expect(200).json();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_change_that_vapi_refuses_changes_nothing_and_makes_no_second_assistant() {
    let app = connected().await;
    let org = app.a;
    put(&app, org, &front_desk()).await.expect(200);
    let before = app.providers().assistants();
    let mut body = front_desk();
    body["assistant"]["firstMessage"] = json!("Hello");
    for (status, answer, code) in [
        (400, 422, "refused_by_provider"),
        (429, 503, "provider_unreachable"),
        (500, 503, "provider_unreachable"),
    ] {
        app.providers().add_fault(fault("PATCH", Some(status), None));
        let refused = put(&app, org, &body).await.expect(answer);
        assert_eq!(refused.code(), code);
        assert_eq!(app.providers().assistants(), before);
    }
    let kept = app.get(org, KEPT).await.expect(200).json();
    assert_eq!(
        kept["assistant"]["firstMessage"],
        front_desk()["assistant"]["firstMessage"]
    );
    put(&app, org, &body).await.expect(200);
    assert_eq!(app.providers().assistants()[0]["firstMessage"], "Hello");
}

#[tokio::test]
async fn an_assistant_whose_answer_was_lost_is_found_by_its_marker_and_adopted() {
    let app = connected().await;
    let org = app.a;
    app.providers().add_fault(fault("POST", None, Some(Drop::AfterAccept)));
    let lost = put(&app, org, &front_desk()).await.expect(503);
    assert_eq!(lost.code(), "provider_unreachable");
    let made = app.providers().assistants();
    assert_eq!(made.len(), 1);
    let kept = app.get(org, KEPT).await.expect(200).json();
    assert_eq!(
        (&kept["state"], &kept["assistant_id"]),
        (&json!("making"), &Value::Null)
    );
    assert!(kept["error"].is_string(), "{kept}");
    // Either side finds it: the person's next request, or the look at all of them.
    let looked = another_instance(&app).look(org, AssistantRole::Inbound).await;
    assert_eq!(looked.expect("looked"), Some(Looked::Adopted));
    let kept = put(&app, org, &front_desk()).await.expect(200).json();
    assert_eq!(
        (&kept["state"], &kept["assistant_id"]),
        (&json!("in_step"), &made[0]["id"])
    );
    app.providers().add_fault(fault("POST", None, Some(Drop::AfterAccept)));
    put(&app, app.b, &front_desk()).await.expect(503);
    put(&app, app.b, &front_desk()).await.expect(200);
    assert_eq!(app.providers().assistants().len(), 2);
}

#[tokio::test]
async fn what_was_changed_at_vapi_is_told_and_what_was_deleted_there_is_made_again() {
    let app = connected().await;
    let org = app.a;
    let first = put(&app, org, &front_desk()).await.expect(200).json();
    let id = first["assistant_id"].as_str().expect("an id").to_owned();
    let manager = another_instance(&app);
    let look = || manager.look(org, AssistantRole::Inbound);
    assert_eq!(look().await.expect("looked"), Some(Looked::InStep));
    let changed = json!({ "firstMessage": "Hi" });
    app.providers()
        .change_assistant(&id, changed.as_object().expect("fields"));
    assert_eq!(look().await.expect("looked"), Some(Looked::Drifted));
    let kept = app.get(org, KEPT).await.expect(200).json();
    assert_eq!(
        (&kept["state"], &kept["drift"]),
        (&json!("drifted"), &json!(["firstMessage"]))
    );
    assert_eq!(
        app.providers().assistants()[0]["firstMessage"],
        "Hi",
        "a person's change stays"
    );

    app.providers().delete_assistant(&id);
    assert_eq!(look().await.expect("looked"), Some(Looked::MadeAgain));
    let made = app.providers().assistants();
    assert_eq!(made.len(), 1);
    let new = made[0]["id"].as_str().expect("an id");
    let state = async |id: &str| {
        app.store
            .find_assistant(org, id)
            .await
            .expect("read")
            .map(|claim| claim.state)
    };
    assert_eq!(state(new).await, Some(RouteState::Live));
    assert_ne!(state(&id).await, Some(RouteState::Live), "the former one leads nowhere");
    let audit = app.get(org, "/api/audit").await.expect(200).json();
    assert_eq!(
        (&audit["data"][0]["actor"], &audit["data"][0]["verb"]),
        (&json!("hookswitch"), &json!("mend"))
    );
    // Every ten minutes, and no sooner.
    let due = app
        .store
        .list_assistants_to_check(app.clock.now() - Duration::from_mins(10), 10);
    assert_eq!(due.await.expect("read"), []);
}

#[tokio::test]
async fn what_is_deleted_is_gone_at_vapi_too() {
    let app = connected().await;
    let org = app.a;
    let first = put(&app, org, &front_desk()).await.expect(200);
    app.call(app.b, Method::DELETE, KEPT, None).await.expect(404);
    app.providers().add_fault(fault("DELETE", Some(409), None));
    app.delete(org, KEPT).await.expect(422);
    assert_eq!(app.providers().assistants().len(), 1, "it is pinned there");
    app.delete(org, KEPT).await.expect(204);
    assert_eq!(app.providers().assistants(), Vec::<Value>::new());
    app.get(org, KEPT).await.expect(404);
    let endpoint = first.json()["endpoint_id"].as_str().expect("an id").to_owned();
    app.get(org, &format!("/api/endpoints/{endpoint}")).await.expect(404);
    app.delete(org, KEPT).await.expect(404);
}

#[tokio::test]
async fn fields_that_are_not_a_persons_are_refused_all_at_once() {
    let app = connected().await;
    let org = app.a;
    let body = json!({
        "name": "Front desk",
        "assistant": { "server": {}, "credentials": [], "metadata": { "hookswitch": "mine" } },
    });
    let refused = put(&app, org, &body).await.expect(400).json();
    let fields: Vec<&Value> = refused["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["field"])
        .collect();
    assert_eq!(
        fields,
        [
            "assistant.server",
            "assistant.credentials",
            "assistant.metadata.hookswitch"
        ]
    );
    app.call(org, Method::PUT, "/api/assistants/both", Some(&front_desk()))
        .await
        .expect(404);
    let too_long = json!({ "name": "x".repeat(41), "assistant": {} });
    put(&app, org, &too_long).await.expect(400);
    app.delete(org, "/api/integrations/vapi").await.expect(204);
    assert_eq!(put(&app, org, &front_desk()).await.expect(409).code(), "not_connected");
    assert_eq!(app.providers().assistants(), Vec::<Value>::new());
}

/// Invariant: of a secret an entry tells its fate, and never a value.
#[tokio::test]
async fn the_audit_tells_the_configuration_before_and_after_and_no_secret() {
    const CANARY: &str = "canary-of-a-tool";
    let app = connected().await;
    let org = app.a;
    let changes = async || last(&app).await["changes"].as_array().expect("a list").clone();
    let mut body = front_desk();
    let tool = json!({ "type": "function", "server": { "url": "https://tools.example", "secret": CANARY } });
    body["assistant"]["model"]["tools"] = json!([tool]);
    let made = put(&app, org, &body).await.expect(200).json();
    let greeting = front_desk()["assistant"]["firstMessage"].clone();
    let all = changes().await;
    for wanted in [
        change("assistant.firstMessage", Value::Null, greeting.clone()),
        change("assistant_id", Value::Null, made["assistant_id"].clone()),
        change("name", Value::Null, "Front desk"),
        change("role", Value::Null, "inbound"),
    ] {
        assert!(all.contains(&wanted), "{wanted} in {all:?}");
    }

    body["assistant"]["firstMessage"] = json!("Hello");
    put(&app, org, &body).await.expect(200);
    assert_eq!(changes().await, [change("assistant.firstMessage", greeting, "Hello")]);
    body["assistant"]["model"]["tools"][0]["server"]["secret"] = json!("another-canary-of-a-tool");
    put(&app, org, &body).await.expect(200);
    assert_eq!(changes().await, [secret("assistant.model", "changed")]);
    body["name"] = json!("Reception");
    put(&app, org, &body).await.expect(200);
    assert_eq!(changes().await, [change("name", "Front desk", "Reception")]);

    app.delete(org, KEPT).await.expect(204);
    let entries = app.get(org, "/api/audit").await.expect(200).json();
    let [endpoint, assistant] = [0, 1].map(|at| with_changes(&entries["data"][at]));
    let has = |entry: &Value, wanted: Value| {
        assert!(
            entry["changes"].as_array().expect("a list").contains(&wanted),
            "{entry}"
        );
    };
    has(&endpoint, change("name", "Vapi assistant, inbound", Value::Null));
    has(&endpoint, secret("secret", "cleared"));
    has(&assistant, change("assistant.firstMessage", "Hello", Value::Null));
    has(&assistant, change("name", "Reception", Value::Null));
    has(
        &assistant,
        change("assistant_id", made["assistant_id"].clone(), Value::Null),
    );
    let text = entries.to_string();
    assert!(!text.contains("canary"), "{text}");
    assert!(text.contains("[masked]"), "the place is shown: {text}");
}

/// The tag is compared under the lease, so that of two people who have read the same one is late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_writers_with_one_tag_one_wins() {
    let app = connected().await;
    let first = put(&app, app.a, &front_desk()).await.expect(200);
    let tag = first.etag();
    let writers = (0..5).map(|number| {
        let mut body = front_desk();
        body["assistant"]["firstMessage"] = json!(format!("Hello from {number}"));
        let request = app
            .request(Method::PUT, INBOUND)
            .bearer_auth(app.token(app.a, Role::Owner))
            .header("if-match", &tag)
            .json(&body);
        TestApp::send(request)
    });
    let mut statuses: Vec<u16> = futures_util::future::join_all(writers)
        .await
        .iter()
        .map(|answer| answer.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412]);
    let late = app
        .request(Method::DELETE, KEPT)
        .bearer_auth(app.token(app.a, Role::Owner));
    let late = TestApp::send(late.header("if-match", &tag)).await;
    assert_eq!(late.status, 412);
    assert_eq!(app.providers().assistants().len(), 1);
}

/// Such a process may have slept. Another one may be at the same assistant, and has perhaps made it
/// (invariant 1).
#[tokio::test]
async fn a_process_whose_lease_may_end_before_vapis_answer_writes_nothing_there() {
    let app = connected().await;
    let org = app.a;
    let late = Arc::into_inner(another_instance(&app)).expect("one owner");
    // Vapi may take four seconds for an answer.
    let late = late.with_leases(Duration::from_millis(3_900));
    let is_busy = async |assistant: &Value| {
        let ensured = late.ensure(org, AssistantRole::Inbound, wanted(assistant), None, audits(org));
        assert!(matches!(ensured.await, Err(AssistantError::Busy)));
    };
    is_busy(&front_desk()).await;
    assert_eq!(app.providers().assistants(), Vec::<Value>::new());
    put(&app, org, &front_desk()).await.expect(200);
    let made = app.providers().assistants();
    let mut body = front_desk();
    body["assistant"]["firstMessage"] = json!("Hello");
    is_busy(&body).await;
    let deleted = late.delete(org, AssistantRole::Inbound, None, audits(org)).await;
    assert!(matches!(deleted, Err(AssistantError::Busy)), "{deleted:?}");
    assert_eq!(app.providers().assistants(), made);
    let id = made[0]["id"].as_str().expect("an id");
    app.providers().delete_assistant(id);
    let looked = late.look(org, AssistantRole::Inbound).await;
    assert!(matches!(looked, Err(AssistantError::Busy)), "{looked:?}");
    assert_eq!(
        app.providers().assistants(),
        Vec::<Value>::new(),
        "the next look makes it"
    );
    put(&app, org, &body).await.expect(200);
    assert_eq!(app.providers().assistants().len(), 1);
}
