//! Webhook URLs, destinations, assistants and numbers in the browser.

use super::Desk;
use crate::{
    admin::TestApp,
    support::{
        browser::{DESK, Driver, PHONE},
        client,
    },
};
use hookswitch::{
    admin::Role,
    assistants::{AssistantManager, Looked},
    domain::{AssistantRole, Clock},
    provider::Providers,
};
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn a_secret_is_shown_once_and_rotated_with_an_overlap() {
    let desk = Desk::start().await;
    let page = desk.owner("/dashboard/endpoints", PHONE).await;
    page.click("[data-key=endpoint-add]").await;
    page.write("dialog [name=name]", "Night line").await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog", "never again").await;
    let secret = page.text("dialog .copyable code").await;
    assert!(secret.len() >= 32, "{secret}");
    page.click("dialog footer button").await;
    page.until("document.querySelector('dialog') === null").await;
    page.shows("endpoints-view", "Night line").await;
    let html = page.run("return document.documentElement.outerHTML", json!([])).await;
    assert!(
        !html.as_str().expect("a text").contains(&secret),
        "the secret is gone from the page"
    );
    let endpoints = desk.dev.admin("/api/endpoints").await;
    let made = endpoints["data"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|row| row["name"] == "Night line");
    let id = made.expect("made")["id"].as_str().expect("an id").to_owned();
    let sheet = format!("[data-endpoint='{id}']");
    page.click(&format!("{sheet} [data-do=rotate]")).await;
    page.rewrite("dialog [name=hours]", "2").await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog", "never again").await;
    assert_ne!(page.text("dialog .copyable code").await, secret);
    page.click("dialog footer button").await;
    page.shows(&sheet, "is valid until").await;
    page.click(&format!("{sheet} [data-do=delete]")).await;
    page.click("dialog .danger").await;
    page.until(&format!("document.querySelector(\"{sheet}\") === null"))
        .await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_destination_is_tried_out_and_its_answer_is_shown_as_text() {
    let desk = Desk::start().await;
    let page = desk.owner("/dashboard/endpoints", PHONE).await;
    let demo = "[data-destination=demo]";
    page.click(&format!("{demo} [data-do=test]")).await;
    page.shows(&format!("{demo} .note.good"), "It answered 200").await;
    let script = "<script>document.title='taken'</script>";
    let fault = json!({"provider": "http", "status": 500, "body": {"error": script}, "times": 1});
    desk.sandbox("/_faults", &fault).await;
    page.click(&format!("{demo} [data-do=test]")).await;
    page.shows(
        &format!("{demo} .note.bad"),
        "answers with errors of its own. It answered 500",
    )
    .await;
    page.shows(&format!("{demo} .note.bad"), script).await;
    let scripts = page.run("return document.querySelectorAll('main script').length", json!([]));
    assert_eq!(scripts.await, 0);
    let posts = crate::support::dev::requests(&desk.dev.get("sandbox"), "http").await;
    assert_eq!(posts.len(), 2);
    // Nobody else may: a viewer has no button.
    let viewer = desk.token(&desk.dev.get("org_id"), Role::Viewer);
    let page_of_viewer = desk.open(&viewer, "/dashboard/endpoints", PHONE).await;
    page_of_viewer.shows(demo, "demo").await;
    let buttons = format!("return document.querySelectorAll('{demo} button').length");
    assert_eq!(page_of_viewer.run(&buttons, json!([])).await, 0);
    page.is_faultless().await;
    page_of_viewer.is_faultless().await;
}

#[tokio::test]
async fn what_was_refused_at_the_door_is_shown_with_its_cause() {
    let desk = Desk::start().await;
    let request = client()
        .post(format!("{}/webhooks/vapi", desk.dev.get("ingress")))
        .header("x-vapi-secret", "not the secret of anybody")
        .json(&json!({"message": {
            "type": "status-update",
            "call": {"id": "c", "assistantId": desk.dev.get("assistant_id")},
        }}));
    assert_eq!(request.send().await.expect("an answer").status(), 401);
    let page = desk.owner("/dashboard/endpoints", DESK).await;
    page.shows("endpoints-view paged-list tbody", "The signature does not fit")
        .await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_number_that_the_account_does_not_have_is_refused_beside_its_field() {
    let desk = Desk::start().await;
    let page = desk.owner("/dashboard/assistants", DESK).await;
    page.shows("assistants-view", "+1 555 201 0100").await;
    page.click("[data-key=number-add]").await;
    page.write("dialog [name=number]", "+44 20 7946 0958").await;
    page.click("dialog button[type=submit]").await;
    page.until(
        "[...document.querySelectorAll('dialog .field-error, dialog .form-said')].some(e => e.textContent !== '')",
    )
    .await;
    page.click("dialog footer button").await;
    page.until("document.querySelector('dialog') === null").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn an_answer_that_is_lost_on_the_way_makes_nothing_twice() {
    let desk = Desk::start().await;
    let page = desk.owner("/dashboard/endpoints", DESK).await;
    let lose = "const real = window.fetch; let isLost = false; window.fetch = async (...a) => { \
        const answer = await real(...a); \
        if (!isLost && a[1].method === 'POST' && a[0] === '/api/endpoints') { isLost = true; throw new TypeError(); } \
        return answer; }";
    page.run(lose, json!([])).await;
    page.click("[data-key=endpoint-add]").await;
    page.write("dialog [name=name]", "Night line").await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog .note.bad", "No answer came").await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog", "never again").await;
    let endpoints = desk.dev.admin("/api/endpoints").await;
    let rows = endpoints["data"].as_array().expect("a list");
    assert_eq!(rows.iter().filter(|row| row["name"] == "Night line").count(), 1);
    page.is_faultless().await;
}

/// The look at Vapi that a worker takes every ten minutes.
fn manager(app: &TestApp) -> AssistantManager {
    let vapi = Providers::new(&app.settings.provider, None).expect("settings").vapi;
    let clock: Arc<dyn Clock> = app.clock.clone();
    let url = Some("https://hooks.example.com".to_owned());
    AssistantManager::new(app.store.clone(), app.vault.clone(), vapi, clock, url)
}

#[tokio::test]
async fn an_assistant_is_kept_at_vapi_shows_what_differs_there_and_is_deleted_after_a_question() {
    let driver = Driver::start().await;
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let key = json!({"api_key": "vapi-key-of-the-first-organisation"});
    app.post(app.a, "/api/integrations/vapi", &key).await.expect(200);
    let page = driver.open(app.base(), DESK).await;
    page.sign_in(&app.token(app.a, Role::Owner), "/dashboard/assistants")
        .await;
    let name = "<script>x</script> desk";
    let sheet = |state: &str| format!("[data-kept=inbound][data-state={state}]");
    page.click("[data-key=kept-inbound-make]").await;
    page.write("dialog [name=name]", name).await;
    page.write("dialog [name=first]", "Hello").await;
    page.write("dialog [name=more]", "{\"firstMessage\": \"Hi\"}").await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog [data-field=more] .field-error", "stands above as well")
        .await;
    assert!(app.providers().assistants().is_empty(), "nothing was sent");
    page.rewrite("dialog [name=more]", "{\"server\": {}}").await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog [data-field=more] .field-error", "The field server: is set by")
        .await;
    page.rewrite("dialog [name=more]", "{\"voice\": {\"provider\": \"11labs\"}}")
        .await;
    page.click("dialog button[type=submit]").await;
    page.shows(&sheet("in_step"), name).await;
    page.shows(&sheet("in_step"), "/webhooks/vapi/").await;
    let made = app.providers().assistants();
    assert_eq!((made.len(), &made[0]["firstMessage"]), (1, &json!("Hello")));
    let id = made[0]["id"].as_str().expect("an id").to_owned();

    let changed = json!({"firstMessage": "Hi"});
    app.providers()
        .change_assistant(&id, changed.as_object().expect("fields"));
    let looked = manager(&app).look(app.a, AssistantRole::Inbound).await.expect("looked");
    assert_eq!(looked, Some(Looked::Drifted));
    page.shows(&sheet("drifted"), "firstMessage").await;
    // Saved again as it is wanted: what somebody changed at Vapi is gone.
    page.click("[data-key=kept-inbound-edit]").await;
    page.until("document.querySelector('dialog [name=more]').value.includes('11labs')")
        .await;
    page.click("dialog button[type=submit]").await;
    page.find(&sheet("in_step")).await;
    assert_eq!(app.providers().assistants()[0]["firstMessage"], "Hello");
    page.click("[data-key=kept-inbound-delete]").await;
    page.shows("dialog", "calls to its number are no longer answered").await;
    page.click("dialog .danger").await;
    page.find(&sheet("none")).await;
    assert!(app.providers().assistants().is_empty());
    assert_eq!(
        page.run("return document.querySelectorAll('main script').length", json!([]))
            .await,
        0
    );
    page.is_faultless().await;
}
