//! Each page while there is no network: it says so, keeps what it shows, and comes back by itself.

use super::{Desk, history::send, operator::of_operators, states::of_organisation};
use crate::support::browser::{Browser, DESK, PHONE};
use serde_json::{Value, json};

/// Pages that ask for nothing while they are looked at.
const ASK_NOTHING: [&str; 2] = ["settings", "jobs"];
/// Pages that read nothing when they are opened.
const READ_NOTHING: [&str; 1] = ["jobs"];

/// Counts the reads of the API that got an answer, and those that got none.
const COUNT: &str = "window.reads = {good: 0, failed: 0}; const real = window.fetch; window.fetch = async (...a) => { \
    try { const answer = await real(...a); window.reads.good += 1; return answer; } \
    catch (error) { window.reads.failed += 1; throw error; } }";

/// What stands on the page, without times and counters, which go on.
const SHOWN: &str = "const all = selector => [...document.querySelectorAll(`main ${selector}`)] \
        .filter(e => !e.closest('live-state, details')); \
    return JSON.stringify([ \
        all(':is(h1, h2, h3, th, dt, figcaption strong, .badge, .empty-title)').map(e => e.textContent), \
        all('td').length, all('dd').length, all('.tile').length])";

async fn network(page: &Browser<'_>, is_offline: bool) {
    let limits = json!({"offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
    page.devtools("Network.emulateNetworkConditions", &limits).await;
    let strip = if is_offline { "!==" } else { "===" };
    page.until(&format!("document.querySelector('#offline') {strip} null"))
        .await;
}

/// Opens a page by its link.
async fn open(page: &Browser<'_>, name: &str) {
    let elsewhere =
        "history.pushState(null, '', '/dashboard/nowhere'); window.dispatchEvent(new Event('hookswitch:place'))";
    page.run(elsewhere, json!([])).await;
    page.until("document.querySelector('#content').dataset.state === 'missing'")
        .await;
    page.click(&format!("#pages a[href='/dashboard/{name}']")).await;
    page.until("document.querySelector('#content').dataset.state === 'ready'")
        .await;
}

async fn is_whole(page: &Browser<'_>) {
    page.until("document.querySelector('main :is(.loading, .failure, [aria-busy], [data-state=loading])') === null")
        .await;
}

async fn shown(page: &Browser<'_>) -> Value {
    page.run(SHOWN, json!([])).await
}

async fn goes_offline_and_comes_back(page: &Browser<'_>, names: &[&str]) {
    page.run(COUNT, json!([])).await;
    page.devtools("Network.enable", &json!({})).await;
    for name in names {
        open(page, name).await;
        is_whole(page).await;
        let before = shown(page).await;
        network(page, true).await;
        page.shows("#offline", "You are offline").await;
        // The page asks at once, not with its next turn, and gets no answer.
        page.run(
            "window.reads = {good: 0, failed: 0}; window.dispatchEvent(new Event('online'))",
            json!([]),
        )
        .await;
        let asks = !ASK_NOTHING.contains(name);
        if asks {
            page.until("window.reads.failed > 0").await;
        }
        assert_eq!(shown(page).await, before, "{name} keeps what it shows");
        network(page, false).await;
        if asks {
            page.until("window.reads.good > 0").await;
        }
        page.until("!document.querySelector('main').innerText.includes('could not be read')")
            .await;
        is_whole(page).await;
        assert_eq!(shown(page).await, before, "{name} is whole again");

        network(page, true).await;
        open(page, name).await;
        if !READ_NOTHING.contains(name) {
            page.shows("main .failure", "Are you online").await;
        }
        network(page, false).await;
        is_whole(page).await;
        assert_eq!(shown(page).await, before, "{name} came without a click");
    }
    page.is_faultless().await;
}

#[tokio::test]
async fn a_page_that_goes_offline_keeps_what_it_shows_and_comes_back_by_itself() {
    let desk = Desk::start().await;
    send(&desk, "vapi/end-of-call-report").await;
    desk.dev.wait_for_sms(1).await;
    let page = desk.owner("/dashboard/settings", PHONE).await;
    goes_offline_and_comes_back(&page, &of_organisation()).await;
    let operator = desk.dev.get("operator_token");
    let page = desk.open(&operator, "/dashboard/settings", DESK).await;
    goes_offline_and_comes_back(&page, &of_operators()).await;
}

#[tokio::test]
async fn a_button_that_is_pressed_offline_says_so_and_works_once_the_network_is_back() {
    let desk = Desk::start().await;
    let page = desk.owner("/dashboard/integrations", PHONE).await;
    let card = super::card("twilio", "connected");
    page.find(&card).await;
    page.devtools("Network.enable", &json!({})).await;
    network(&page, true).await;
    page.click("[data-key=twilio-verify]").await;
    page.shows(&card, "Are you online").await;
    network(&page, false).await;
    page.click("[data-key=twilio-verify]").await;
    page.shows(&card, "Checked: it works").await;
}
