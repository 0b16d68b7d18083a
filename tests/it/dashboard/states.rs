//! What each page shows while it loads, where it could not be loaded, while there is nothing yet,
//! to somebody who may only look, and once nobody is signed in any more.

use super::{
    Desk,
    access::{axe, is_accessible},
    history::send,
    operator::of_operators,
};
use crate::support::{
    browser::{Browser, DESK, Look, PHONE},
    until,
};
use hookswitch::admin::{Role, dashboard_pages};
use serde_json::json;

/// The pages of an organisation's people.
pub(super) fn of_organisation() -> Vec<&'static str> {
    let [pages, _] = dashboard_pages();
    assert!(pages.len() > 8, "{pages:?}");
    pages
}

/// Pages that read nothing before a person asks for something.
const READ_NOTHING: [&str; 1] = ["jobs"];

/// Lets reads of the API pass, holds them, or refuses them as the API does without its database.
/// Who is signed in, and the stream, are let through.
const GATE: &str = "window.gate = 'pass'; const real = window.fetch; const held = []; \
    const refusal = JSON.stringify({code: 'database_unavailable', request_id: 'the-request', \
        detail: 'The database does not answer. Try again in a moment.'}); \
    window.openGate = () => { window.gate = 'pass'; held.splice(0).forEach(go => go()); }; \
    window.fetch = (...a) => { \
        const [path, method] = [String(a[0]), a[1]?.method ?? 'GET']; \
        const isFree = method !== 'GET' || !/^\\/(api|operator)\\//.test(path) || /^\\/api\\/(me|stream)/.test(path); \
        if (window.gate === 'pass' || isFree) return real(...a); \
        if (window.gate === 'hold') return new Promise(go => held.push(() => go(real(...a)))); \
        return Promise.resolve(new Response(refusal, {status: 503})); }";

/// Goes to a page by its link, as a person does, and from another page even where it is the same.
async fn follow(page: &Browser<'_>, name: &str, gate: &str) {
    let script = "window.gate = arguments[1]; history.pushState(null, '', '/dashboard/nowhere'); \
        window.dispatchEvent(new Event('hookswitch:place'))";
    page.run(script, json!([name, "pass"])).await;
    page.until("document.querySelector('#content').dataset.state === 'missing'")
        .await;
    page.run("window.gate = arguments[0]", json!([gate])).await;
    page.click(&format!("#pages a[href='/dashboard/{name}']")).await;
    page.until("document.querySelector('#content').dataset.state === 'ready'")
        .await;
}

/// Whether something of the page is as the selector says.
async fn count(page: &Browser<'_>, selector: &str) -> u64 {
    let script = "return document.querySelectorAll(arguments[0]).length";
    page.run(script, json!([selector])).await.as_u64().expect("a count")
}

/// Parts that are read again without a stream, and the pages that they stand on.
const READ_AGAIN: [(&str, &str); 3] = [
    ("assistants", "kept-assistants"),
    ("pauses", "pauses-view > [data-state]"),
    ("keys", "keys-view"),
];

async fn is_ready_once_it_is_read_again(page: &Browser<'_>, names: &[&str]) {
    page.run(GATE, json!([])).await;
    for (name, part) in READ_AGAIN.iter().filter(|(name, _)| names.contains(name)) {
        follow(page, name, "refuse").await;
        page.find(&format!("{part}[data-state=error] .failure")).await;
        page.run(
            "window.openGate(); window.dispatchEvent(new Event('online'))",
            json!([]),
        )
        .await;
        page.until(&format!("document.querySelector('{part} .failure') === null"))
            .await;
        assert_eq!(count(page, &format!("{part}[data-state=ready]")).await, 1, "{name}");
    }
    page.is_faultless().await;
}

#[tokio::test]
async fn a_part_that_came_by_its_next_read_is_not_called_failed() {
    let desk = Desk::start().await;
    let page = desk.owner("/dashboard/settings", PHONE).await;
    is_ready_once_it_is_read_again(&page, &of_organisation()).await;
    let operator = desk.dev.get("operator_token");
    let page = desk.open(&operator, "/dashboard/settings", DESK).await;
    is_ready_once_it_is_read_again(&page, &of_operators()).await;
}

async fn loads_fails_and_comes_back(page: &Browser<'_>, axe: &str, names: &[&str]) {
    page.run(GATE, json!([])).await;
    for name in names.iter().filter(|name| !READ_NOTHING.contains(name)) {
        follow(page, name, "hold").await;
        page.find("main .loading[role=status]").await;
        is_accessible(page, axe, &format!("{name} while it loads")).await;
        page.run("window.openGate()", json!([])).await;
        page.until("document.querySelector('main .loading') === null").await;
        assert_eq!(count(page, "main .failure").await, 0, "{name}");

        follow(page, name, "refuse").await;
        page.shows("main .failure[role=alert]", "The database does not answer")
            .await;
        page.shows("main .failure", "the-request").await;
        page.until("document.querySelector('main .loading') === null").await;
        is_accessible(page, axe, &format!("{name} after a failure")).await;
        page.run("window.openGate()", json!([])).await;
        let again = "document.querySelector('main .failure [data-key=retry]')?.click(); \
            return document.querySelectorAll('main :is(.failure, .loading)').length === 0";
        until("the page after a second try", || async {
            (page.run(again, json!([])).await == true).then_some(())
        })
        .await;
    }
    page.is_faultless().await;
}

#[tokio::test]
async fn every_page_says_that_it_loads_what_failed_and_comes_back_by_a_second_try() {
    let desk = Desk::start().await;
    let axe = axe();
    let page = desk.owner("/dashboard/settings", PHONE).await;
    loads_fails_and_comes_back(&page, &axe, &of_organisation()).await;
    let page = desk
        .open(&desk.dev.get("operator_token"), "/dashboard/settings", DESK)
        .await;
    loads_fails_and_comes_back(&page, &axe, &of_operators()).await;
}

#[tokio::test]
async fn every_page_of_a_new_organisation_says_that_there_is_nothing_yet() {
    let desk = Desk::start().await;
    let axe = axe();
    let org = desk.another("New here").await;
    let page = desk
        .open(&desk.token(&org, Role::Owner), "/dashboard/settings", PHONE)
        .await;
    for (name, said) in [
        ("overview", vec!["Nothing needs you now."]),
        ("integrations", vec!["Not connected"]),
        ("assistants", vec!["No assistant yet.", "No number yet."]),
        (
            "endpoints",
            vec!["No webhook URL yet.", "No destination yet.", "Nothing was refused."],
        ),
        ("rules", vec!["No rule yet."]),
        ("events", vec!["No event yet."]),
        ("actions", vec!["No action yet."]),
    ] {
        page.click(&format!("#pages a[href='/dashboard/{name}']")).await;
        for text in said {
            page.shows("main", text).await;
        }
        is_accessible(&page, &axe, name).await;
    }
    page.is_faultless().await;
}

/// Another tab signs out.
async fn end_session(page: &Browser<'_>) {
    let sign_out = "return (async () => { const me = await (await fetch('/api/me')).json(); \
        const headers = {'x-csrf-token': me.csrf_token}; \
        return (await fetch('/api/session', {method: 'DELETE', headers})).status; })()";
    assert_eq!(page.run(sign_out, json!([])).await, 204);
}

#[tokio::test]
async fn every_page_asks_for_a_token_once_the_session_has_ended_and_goes_on_where_it_was() {
    let desk = Desk::start().await;
    for (token, names) in [("admin_token", of_organisation()), ("operator_token", of_operators())] {
        let token = desk.dev.get(token);
        let page = desk.open(&token, "/dashboard/settings", PHONE).await;
        for name in names.iter().filter(|name| !READ_NOTHING.contains(name)) {
            page.click(&format!("#pages a[href='/dashboard/{name}']")).await;
            page.until("document.querySelector('#content').dataset.state === 'ready'")
                .await;
            end_session(&page).await;
            // By itself where the page is live, else with the next thing that a person does.
            let here = "document.querySelector('#pages a[aria-current]')?.click()";
            page.run(here, json!([])).await;
            page.shows("main", "Your session has ended").await;
            page.until(&format!("location.pathname === '/dashboard/{name}'")).await;
            page.write("#token", &token).await;
            page.click("form.sign-in button").await;
            page.until("document.querySelector('#content').dataset.state === 'ready'")
                .await;
            page.until("document.querySelector('form.sign-in') === null").await;
            page.until(&format!("location.pathname === '/dashboard/{name}'")).await;
        }
        page.is_faultless().await;
    }
}

/// Presses each button of the page, one after the other, and lists the requests that were refused
/// and the dialogs that opened.
const PRESS_ALL: &str = "return (async () => { \
    const refused = [], pressed = []; const real = window.fetch; let waiting = 0; \
    window.fetch = async (...a) => { waiting += 1; \
        try { const answer = await real(...a); if (answer.status === 403) refused.push(String(a[0])); return answer; } \
        finally { waiting -= 1; } }; \
    const ended = async () => { do await new Promise(go => setTimeout(go, 0)); while (waiting > 0); }; \
    const rest = () => [...document.querySelectorAll('main button:not([disabled]):not([data-pressed])')]; \
    for (let button = rest()[0]; button && pressed.length < 200; button = rest()[0]) { \
        button.setAttribute('data-pressed', ''); \
        pressed.push(button.dataset.key ?? button.dataset.do ?? button.textContent); \
        button.click(); await ended(); } \
    window.fetch = real; \
    return {refused, pressed, dialogs: document.querySelectorAll('dialog').length}; })()";

#[tokio::test]
async fn a_viewer_can_press_every_button_there_is_and_none_is_refused() {
    let desk = Desk::start().await;
    desk.refuse_texts(1).await;
    send(&desk, "vapi/end-of-call-report").await;
    until("a dead action", || async {
        let dead = desk.dev.admin("/api/actions?state=dead").await;
        dead["data"].as_array().is_some_and(|all| !all.is_empty()).then_some(())
    })
    .await;
    let id = |list: serde_json::Value| list["data"][0]["id"].as_str().expect("an id").to_owned();
    let (event, rule) = (
        id(desk.dev.admin("/api/events").await),
        id(desk.dev.admin("/api/rules").await),
    );
    let dead = id(desk.dev.admin("/api/actions?state=dead").await);
    let more = [
        format!("events/{event}"),
        format!("actions/{dead}"),
        format!("rules/{rule}"),
        "actions?state=dead".to_owned(),
    ];
    let viewer = desk.token(&desk.dev.get("org_id"), Role::Viewer);
    let look = Look { is_dark: true, ..DESK };
    let page = desk.open(&viewer, "/dashboard/settings", look).await;
    let pages = of_organisation().into_iter().map(str::to_owned);
    for path in pages.chain(more) {
        page.go(&format!("/dashboard/{path}")).await;
        page.until("document.querySelector('#content').dataset.state === 'ready'")
            .await;
        page.until("document.querySelector('main :is(.loading, [data-state=loading])') === null")
            .await;
        let found = page.run(PRESS_ALL, json!([])).await;
        assert_eq!(
            (&found["refused"], &found["dialogs"]),
            (&json!([]), &json!(0)),
            "{path}: {found}"
        );
    }
    page.is_faultless().await;
}
