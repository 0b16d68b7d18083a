//! The dashboard without a mouse, for people with poor sight, on a small screen, and for a viewer.

use super::{Desk, card};
use crate::support::browser::{Browser, DESK, Look, PHONE};
use serde_json::json;
use std::path::Path;

/// Both sizes, each in light and dark.
const LOOKS: [Look; 4] = {
    let (light, dark) = (
        Look {
            is_dark: false,
            ..PHONE
        },
        Look { is_dark: true, ..DESK },
    );
    [DESK, dark, light, PHONE]
};

/// axe-core, as `npm ci` puts it below `dashboard/`.
pub(super) fn axe() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboard/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "{} ({error}): run `npm ci` in dashboard/, as scripts/test does",
            path.display()
        )
    })
}

/// axe-core finds nothing, and the page is not wider than its window.
pub(super) async fn is_accessible(page: &Browser<'_>, axe: &str, place: &str) {
    page.run(axe, json!([])).await;
    let script = "return axe.run(document, {resultTypes: ['violations']}).then(r => [r.passes.length, \
        r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).join('; '))])";
    let found = page.run(script, json!([])).await;
    assert!(
        found[0].as_u64().is_some_and(|passes| passes > 5),
        "axe looked at the page: {found}"
    );
    assert_eq!(found[1], json!([]), "{place}");
    let wide = page.run(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth",
        json!([]),
    );
    assert_eq!(wide.await, 0, "{place} is wider than its window");
}

#[tokio::test]
async fn axe_finds_nothing_on_any_page_at_360_and_1440_pixels_in_light_and_dark() {
    let desk = Desk::start().await;
    let axe = axe();
    for look in LOOKS {
        let page = desk.driver.open(&desk.dev.get("admin"), look).await;
        page.go("/dashboard").await;
        page.find("#token").await;
        is_accessible(&page, &axe, "sign-in").await;
        page.sign_in(&desk.dev.get("admin_token"), "/dashboard/integrations")
            .await;
        page.find(&card("twilio", "connected")).await;
        is_accessible(&page, &axe, "integrations").await;
        for (button, form) in [
            ("twilio-open", "twilio-credential-form"),
            ("google_calendar-open", "google-calendar-oauth-form"),
        ] {
            page.click(&format!("[data-key={button}]")).await;
            page.find(form).await;
            is_accessible(&page, &axe, form).await;
            page.click("dialog > header button").await;
            page.until("document.querySelector('dialog') === null").await;
        }
        page.click("[data-key=twilio-ask]").await;
        page.find("dialog .danger").await;
        is_accessible(&page, &axe, "the question before a disconnect").await;
        page.click("dialog > header button").await;
        linked_pages_are_accessible(&page, &axe).await;
        page.is_faultless().await;
    }
}

/// Opens a dialog by its button, looks at it, and closes it.
async fn dialog_is_accessible(page: &Browser<'_>, axe: &str, button: &str) {
    page.click(&format!("[data-key={button}]")).await;
    page.find("dialog form").await;
    is_accessible(page, axe, button).await;
    page.click("dialog > header button").await;
    page.until("document.querySelector('dialog') === null").await;
}

/// Every page that the navigation leads to.
async fn linked_pages_are_accessible(page: &Browser<'_>, axe: &str) {
    let script = "return [...document.querySelectorAll('#pages a')].map(a => a.getAttribute('href'))";
    let paths = page.run(script, json!([])).await;
    for path in paths.as_array().expect("links").iter().filter_map(|path| path.as_str()) {
        page.click(&format!("#pages a[href='{path}']")).await;
        page.until("document.querySelector('#content [data-state=loading]') === null")
            .await;
        is_accessible(page, axe, path).await;
    }
}

#[tokio::test]
async fn axe_finds_nothing_on_what_a_person_or_an_operator_reads_and_fills_in() {
    let desk = Desk::start().await;
    let axe = axe();
    super::history::send(&desk, "vapi/end-of-call-report").await;
    for look in LOOKS {
        let page = desk
            .open(&desk.dev.get("admin_token"), "/dashboard/actions", look)
            .await;
        page.click("details.many > summary").await;
        is_accessible(&page, &axe, "filters").await;
        page.click("#pages a[href='/dashboard/events']").await;
        page.click("tbody td[data-label=Type] a").await;
        page.find("event-rules[data-state=ready]").await;
        is_accessible(&page, &axe, "the story of an event").await;
        page.click("#pages a[href='/dashboard/assistants']").await;
        dialog_is_accessible(&page, &axe, "kept-inbound-make").await;
        page.is_faultless().await;

        let page = desk
            .open(&desk.dev.get("operator_token"), "/dashboard/pauses", look)
            .await;
        dialog_is_accessible(&page, &axe, "pause-add").await;
        page.click("#pages a[href='/dashboard/jobs']").await;
        dialog_is_accessible(&page, &axe, "cancel-open").await;
        linked_pages_are_accessible(&page, &axe).await;
        page.is_faultless().await;
    }
}

#[tokio::test]
async fn who_may_only_look_sees_no_button_that_is_refused() {
    let desk = Desk::start().await;
    let viewer = desk.token(&desk.dev.get("org_id"), hookswitch::admin::Role::Viewer);
    let page = desk.open(&viewer, "/dashboard/integrations", DESK).await;
    page.find(&card("twilio", "connected")).await;
    assert_eq!(
        page.run(
            "return document.querySelectorAll('integration-card button').length",
            json!([])
        )
        .await,
        0
    );
    page.click("#pages a[href='/dashboard/rules']").await;
    page.find("paged-list[data-state=ready]").await;
    assert_eq!(
        page.run(
            "return document.querySelectorAll('main button, main a.primary').length",
            json!([])
        )
        .await,
        0
    );
    page.is_faultless().await;

    // An admin checks what an owner connects, and configures the rest.
    let admin = desk.token(&desk.dev.get("org_id"), hookswitch::admin::Role::Admin);
    let page = desk.open(&admin, "/dashboard/integrations", DESK).await;
    page.find(&card("twilio", "connected")).await;
    page.find(&card("resend", "not_connected")).await;
    let buttons = "return [...document.querySelectorAll('integration-card')].map(c => [c.dataset.state, \
        ...[...c.querySelectorAll('button')].map(b => b.dataset.do)].join(' '))";
    let shown = page.run(buttons, json!([])).await;
    for card in shown.as_array().expect("cards") {
        let (state, verbs) = card
            .as_str()
            .expect("words")
            .split_once(' ')
            .unwrap_or(("not_connected", ""));
        assert_eq!(verbs, if state == "not_connected" { "" } else { "verify" }, "{shown}");
    }
    page.shows("integrations-dashboard", "An owner can connect and change them")
        .await;
    page.click("[data-key=twilio-verify]").await;
    page.shows(&card("twilio", "connected"), "Checked: it works").await;
    for (path, button) in [
        ("rules", "main a.primary"),
        ("endpoints", "[data-key=endpoint-add]"),
        ("assistants", "[data-key=number-add]"),
        ("settings", "organisation-settings button"),
    ] {
        page.click(&format!("#pages a[href='/dashboard/{path}']")).await;
        page.find(button).await;
    }
    page.is_faultless().await;
}

#[tokio::test]
async fn a_member_tries_again_what_was_given_up_and_sees_no_button_that_configures() {
    let desk = Desk::start().await;
    desk.refuse_texts(1).await;
    super::history::send(&desk, "vapi/end-of-call-report").await;
    let member = desk.token(&desk.dev.get("org_id"), hookswitch::admin::Role::Member);
    let page = desk.open(&member, "/dashboard/integrations", DESK).await;
    page.find(&card("twilio", "connected")).await;
    for (path, ready) in [
        ("integrations", "integration-card[data-state=connected]"),
        ("rules", "paged-list[data-state=ready]"),
        ("assistants", "kept-assistants [data-kept=inbound]"),
        ("settings", "organisation-settings[data-state=ready]"),
    ] {
        page.click(&format!("#pages a[href='/dashboard/{path}']")).await;
        page.find(ready).await;
        let buttons = "return [...document.querySelectorAll('main :is(button:not(.copyable *), a.primary)')] \
            .map(b => b.textContent)";
        assert_eq!(page.run(buttons, json!([])).await, json!([]), "{path}");
    }
    page.click("#pages a[href='/dashboard/actions']").await;
    page.shows("tbody", "The recipient is not valid").await;
    page.click("tbody [data-do=retry]").await;
    desk.dev.wait_for_sms(1).await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_session_that_has_ended_asks_for_a_token_and_goes_on_where_it_was() {
    let desk = Desk::start().await;
    let page = desk.owner("/dashboard/events?source=vapi", DESK).await;
    page.find("paged-list").await;
    // The API's answer when a session or a token has ended.
    page.run(
        "const real = window.fetch; window.fetch = (...a) => String(a[0]).startsWith('/api/events') && !window.mended \
        ? Promise.resolve(new Response('{\"code\":\"unauthenticated\"}', {status: 401})) : real(...a)",
        json!([]),
    )
    .await;
    page.shows("main", "Your session has ended").await;
    page.run("window.mended = true", json!([])).await;
    page.write("#token", &desk.dev.get("admin_token")).await;
    page.click("form.sign-in button").await;
    page.find("events-view").await;
    assert_eq!(page.path().await, "/dashboard/events?source=vapi");
    page.is_faultless().await;
}
