//! The live view in the browser: reported by the stream, asked for without one.

use super::{Desk, history::send};
use crate::{
    admin::stream::Reader,
    support::{
        browser::{Browser, DESK},
        client, until,
    },
};
use serde_json::json;
use std::time::Duration;

const LIVE: &str = "live-state[data-state=live]";
const POLLING: &str = "live-state[data-state=polling]";

/// Timers of five seconds and more never end: the page cannot poll.
const NO_POLLS: &str = "const real = window.setTimeout; \
    window.setTimeout = (done, ms, ...more) => ms >= 5000 ? 0 : real(done, ms, ...more)";

/// The page of events of the demo's owner, which cannot poll.
async fn without_polls(desk: &Desk) -> Browser<'_> {
    let page = desk.driver.open(&desk.dev.get("admin"), DESK).await;
    page.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({"source": NO_POLLS}))
        .await;
    page.sign_in(&desk.dev.get("admin_token"), "/dashboard/events").await;
    page.find(LIVE).await;
    page
}

async fn streams(desk: &Desk, count: f64) {
    let what = format!("{count} streams");
    until(&what, || async {
        ((desk.dev.metric("hookswitch_admin_streams").await - count).abs() < 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_event_shows_up_without_a_poll_and_with_what_came_of_it() {
    let desk = Desk::start().await;
    let page = without_polls(&desk).await;
    page.find("paged-list[data-state=empty]").await;
    send(&desk, "vapi/end-of-call-report").await;
    page.shows("tbody", "vapi.end-of-call-report").await;
    page.shows("tbody", "2 × Done").await;
    page.shows("live-state[role=status]", "Live").await;
    // On to the next page: the stream stays, and tells that one.
    page.click("nav a[href='/dashboard/actions']").await;
    page.until("document.querySelectorAll('actions-view tbody tr').length === 2")
        .await;
    send(&desk, "vapi/end-of-call-report").await;
    page.until("document.querySelectorAll('actions-view tbody tr').length === 4")
        .await;
    page.is_faultless().await;
}

#[tokio::test]
async fn without_a_stream_the_page_asks_and_with_a_place_it_is_live_again() {
    let desk = Desk::start_with(&[("HOOKSWITCH_ADMIN_STREAMS_PER_ORGANISATION_MAX", "1")]).await;
    let request = client().get(format!("{}/api/stream", desk.dev.get("admin")));
    let request = request.timeout(Duration::from_mins(10));
    let other = Reader::open(request.bearer_auth(desk.dev.get("admin_token"))).await;
    let page = desk.owner("/dashboard/events", DESK).await;
    page.shows(POLLING, "Every 5 seconds").await;
    send(&desk, "vapi/end-of-call-report").await;
    page.shows("tbody", "2 × Done").await;
    assert_eq!(page.text("live-state").await, "Every 5 seconds");
    drop(other);
    // The page tries again by itself, later and later. A network that is back hurries it.
    page.until(&format!(
        "(window.dispatchEvent(new Event('online')), document.querySelector('{LIVE}'))"
    ))
    .await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_session_that_is_ended_elsewhere_asks_for_a_token_at_once() {
    let desk = Desk::start().await;
    let page = without_polls(&desk).await;
    // As another tab signs out.
    let sign_out = "return (async () => { const me = await (await fetch('/api/me')).json(); \
        const headers = {'x-csrf-token': me.csrf_token}; \
        return (await fetch('/api/session', {method: 'DELETE', headers})).status; })()";
    assert_eq!(page.run(sign_out, json!([])).await, 204);
    page.shows("main", "Your session has ended").await;
    streams(&desk, 0.0).await;
    page.write("#token", &desk.dev.get("admin_token")).await;
    page.click("form.sign-in button").await;
    page.find(LIVE).await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_hidden_tab_holds_no_connection_and_looks_when_it_is_seen_again() {
    let desk = Desk::start().await;
    let page = without_polls(&desk).await;
    streams(&desk, 1.0).await;
    let tab = page.cover().await;
    streams(&desk, 0.0).await;
    send(&desk, "vapi/end-of-call-report").await;
    page.uncover(&tab).await;
    page.shows("tbody", "vapi.end-of-call-report").await;
    page.find(LIVE).await;
    streams(&desk, 1.0).await;
    page.is_faultless().await;
}
