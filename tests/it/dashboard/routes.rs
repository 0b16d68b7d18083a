//! Webhook URLs, destinations, assistants and numbers in the browser.

use super::Desk;
use crate::support::{
    browser::{DESK, PHONE},
    client,
};
use serde_json::json;

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
