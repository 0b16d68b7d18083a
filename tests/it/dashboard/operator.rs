//! The operators' pages in the browser: dead events, quarantine, pauses, cancelling in bulk,
//! keys, caches.

use super::{Desk, history::send};
use crate::{
    admin::{TestApp, dead_events, isolation::plan, quarantine},
    support::{
        browser::{Browser, DESK, Driver, ENTER, PHONE},
        until,
    },
};
use hookswitch::{admin::dashboard_pages, domain::ActionState};
use reqwest::Method;
use serde_json::{Value, json};

/// The pages that only operators see.
pub(super) fn of_operators() -> Vec<&'static str> {
    let [_, mut pages] = dashboard_pages();
    assert_eq!(pages.pop(), Some("settings"), "it is everybody's");
    pages
}

const SCRIPT: &str = "<script>document.title='taken'</script>";

impl Desk {
    async fn operator(&self, path: &str) -> Browser<'_> {
        self.open(&self.dev.get("operator_token"), path, DESK).await
    }
}

/// The addresses that the navigation leads to.
async fn links(page: &Browser<'_>) -> Value {
    let script = "return [...document.querySelectorAll('#pages a')].map(a => a.getAttribute('href'))";
    page.run(script, json!([])).await
}

#[tokio::test]
async fn an_operator_sees_the_operators_pages_and_a_person_of_an_organisation_no_link_to_them() {
    let desk = Desk::start().await;
    let page = desk.operator("/dashboard").await;
    page.find("dead-events-view paged-list[data-state=empty]").await;
    assert_eq!(page.path().await, "/dashboard/dead-events");
    let [_, own] = dashboard_pages();
    let own: Vec<String> = own.iter().map(|page| format!("/dashboard/{page}")).collect();
    assert_eq!(links(&page).await, json!(own));
    page.go("/dashboard/rules").await;
    page.shows("main", "There is no such page").await;
    page.click("#pages a[href='/dashboard/settings']").await;
    page.shows("settings-view", "Operator").await;
    page.is_faultless().await;
    // The cookie is out of the scripts' reach, and goes with the signing out.
    assert_eq!(page.run("return document.cookie", json!([])).await, "");
    page.click("[data-key=sign-out]").await;
    page.shows("main", "You are signed out").await;
    page.go("/dashboard/keys").await;
    page.find("#token").await;
    page.sign_in(&desk.dev.get("admin_token"), "/dashboard/overview").await;
    let seen = links(&page).await.to_string();
    for path in of_operators() {
        assert!(!seen.contains(path), "{seen}");
        page.go(&format!("/dashboard/{path}")).await;
        page.shows("main", "There is no such page").await;
    }
    page.is_faultless().await;
}

#[tokio::test]
async fn a_pause_is_set_with_a_reason_that_the_organisation_reads_and_is_lifted() {
    let desk = Desk::start().await;
    let page = desk.operator("/dashboard/pauses").await;
    page.find("pauses-view .empty").await;
    page.click("[data-key=pause-add]").await;
    page.run(
        "const s = document.querySelector('dialog [name=scope]'); s.value = 'provider'; \
        s.dispatchEvent(new Event('input', {bubbles: true}))",
        json!([]),
    )
    .await;
    let choose = "const s = document.querySelector('dialog [name=provider]'); s.value = 'twilio'";
    page.run(choose, json!([])).await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog [data-field=reason] .field-error", "is needed").await;
    page.write("dialog [name=reason]", SCRIPT).await;
    page.click("dialog button[type=submit]").await;
    page.shows("[data-pause='provider:twilio']", SCRIPT).await;
    send(&desk, "vapi/end-of-call-report").await;
    let owner = desk.owner("/dashboard/overview", DESK).await;
    owner.shows("overview-view", "The operator has paused Twilio").await;
    owner.shows("overview-view", SCRIPT).await;
    assert!(desk.dev.sms().await.is_empty(), "nothing goes out");
    page.click("[data-do=lift]").await;
    page.shows("dialog", SCRIPT).await;
    page.click("dialog .danger").await;
    page.find("pauses-view .empty").await;
    desk.dev.wait_for_sms(1).await;
    for page in [page, owner] {
        assert_eq!(
            page.run("return document.querySelectorAll('main script').length", json!([]))
                .await,
            0
        );
        page.until("!document.title.includes('taken')").await;
        page.is_faultless().await;
    }
}

#[tokio::test]
async fn an_organisation_is_paused_by_keyboard_alone() {
    let desk = Desk::start().await;
    let page = desk.operator("/dashboard/pauses").await;
    page.find("pauses-view .empty").await;
    page.tab_to("document.activeElement.dataset.key === 'pause-add'").await;
    page.press(ENTER).await;
    page.until("document.activeElement.name === 'scope'").await;
    page.tab_to("document.activeElement.name === 'org_id'").await;
    page.press("not an id").await;
    page.tab_to("document.activeElement.name === 'reason'").await;
    page.press("Asked for by phone").await;
    page.press(ENTER).await;
    // The refusal stands at its field, and the focus is there.
    page.shows("dialog [data-field=org_id] .field-error", "UUID").await;
    page.until("document.activeElement.name === 'org_id'").await;
    page.rewrite("dialog [name=org_id]", &desk.dev.get("org_id")).await;
    page.press(ENTER).await;
    page.find(&format!("[data-pause='org:{}']", desk.dev.get("org_id")))
        .await;
    page.until("document.activeElement.dataset.key === 'pause-add'").await;
    page.tab_to("document.activeElement.dataset.do === 'lift'").await;
    page.press(ENTER).await;
    page.tab_to("document.activeElement.classList.contains('danger')").await;
    page.press(ENTER).await;
    page.find("pauses-view .empty").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_dead_event_is_listed_shown_and_put_back() {
    let driver = Driver::start().await;
    let app = TestApp::start().await;
    let reason = format!("planning it broke: {SCRIPT}");
    let of_a = dead_events::store(&app, Some(app.a), &reason).await;
    let unowned = dead_events::store(&app, None, "not the format of an envelope").await;
    let page = driver.open(app.base(), PHONE).await;
    page.sign_in(&app.operator_token(), "/dashboard/dead-events").await;
    let row = |id| format!("tr[data-id='{id}']");
    page.shows(&row(of_a), SCRIPT).await;
    page.shows(&row(unowned), "Could not be read").await;
    let offered = format!(
        "return document.querySelectorAll(\"{} [data-do=replay]\").length",
        row(unowned)
    );
    assert_eq!(page.run(&offered, json!([])).await, 0, "there is nothing to plan");
    page.click(&format!("{} td[data-label=Type] a", row(of_a))).await;
    page.shows("dead-event-view", &app.a.to_string()).await;
    page.shows("dead-event-view", SCRIPT).await;
    let whole = page.run("return document.documentElement.outerHTML", json!([])).await;
    assert!(!whole.to_string().contains("words of a caller"), "no content is shown");
    page.click("dead-event-view [data-do=replay]").await;
    page.shows("dialog", "The audit of the organisation names you").await;
    page.click("dialog .danger").await;
    page.shows("#notices", "put back").await;
    page.find(&row(unowned)).await;
    page.until(&format!("document.querySelector(\"{}\") === null", row(of_a)))
        .await;
    let audit = app.get(app.a, "/api/audit").await.json();
    assert_eq!(audit["data"][0]["actor"], "operator:a person");
    page.is_faultless().await;
}

#[tokio::test]
async fn an_event_in_quarantine_is_given_to_an_organisation_that_its_ids_do_not_deny() {
    let driver = Driver::start().await;
    let app = TestApp::start().await;
    let unknown = quarantine::keep(&app, SCRIPT).await;
    let event = quarantine::keep(&app, "asst-1").await;
    let route = json!({ "org_id": app.b, "assistant_id": "asst-1", "managed_by": "platform" });
    app.operator(Method::PUT, "/operator/routes", &route).await.expect(200);
    let page = driver.open(app.base(), PHONE).await;
    page.sign_in(&app.operator_token(), "/dashboard/quarantine").await;
    let row = |id| format!("tr[data-id='{id}']");
    page.shows(&row(unknown), SCRIPT).await;
    page.shows(&row(event), "Assistant asst-1").await;
    page.click(&format!("{} [data-do=give]", row(event))).await;
    page.write("dialog [name=org_id]", "nobody").await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog [data-field=org_id] .field-error", "UUID").await;
    // The route of its assistant leads elsewhere.
    page.rewrite("dialog [name=org_id]", &app.a.to_string()).await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog .form-said", "another organisation").await;
    page.rewrite("dialog [name=org_id]", &app.b.to_string()).await;
    page.click("dialog button[type=submit]").await;
    page.shows("#notices", "given to the organisation").await;
    page.until(&format!("document.querySelector(\"{}\") === null", row(event)))
        .await;
    page.find(&row(unknown)).await;
    let audit = app.get(app.b, "/api/audit").await.json();
    assert_eq!(audit["data"][0]["actor"], "operator:a person");
    page.is_faultless().await;
}

#[tokio::test]
async fn actions_of_an_organisation_are_cancelled_after_a_look_at_the_plan() {
    let driver = Driver::start().await;
    let app = TestApp::start().await;
    let mut mine = Vec::new();
    for _ in 0..3 {
        mine.push(plan(&app, app.a, ActionState::Pending).await.1);
    }
    let (_, theirs) = plan(&app, app.b, ActionState::Pending).await;
    let state = async |org, id| {
        let shown = app.get(org, &format!("/api/actions/{id}")).await.expect(200).json();
        shown["state"].as_str().expect("a state").to_owned()
    };
    let page = driver.open(app.base(), DESK).await;
    page.sign_in(&app.operator_token(), "/dashboard/jobs").await;
    page.click("[data-key=cancel-open]").await;
    page.write("dialog [name=org_id]", &app.a.to_string()).await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog", "Cancel 3 actions?").await;
    page.shows("dialog tbody", "Due").await;
    assert_eq!(state(app.a, mine[0]).await, "pending", "a plan changes nothing");
    page.click("dialog .danger").await;
    page.shows("job-progress[data-state=done]", "3 of 3 done").await;
    // The address carries the job: a page that is loaded again shows it.
    assert!(page.path().await.contains("jobs="));
    page.run("location.reload()", json!([])).await;
    page.shows("job-progress[data-state=done]", "3 of 3 done").await;
    for id in mine {
        assert_eq!(state(app.a, id).await, "cancelled");
    }
    assert_eq!(state(app.b, theirs).await, "pending");
    page.click("[data-key=cancel-open]").await;
    page.write("dialog [name=org_id]", &app.a.to_string()).await;
    page.click("dialog button[type=submit]").await;
    page.shows("dialog", "Nothing to do").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn the_keys_say_what_stands_under_each_and_how_far_a_change_is() {
    let desk = Desk::start().await;
    until("a process that reported its keys", || async {
        let request = crate::support::client()
            .get(format!("{}/operator/keys", desk.dev.get("admin")))
            .bearer_auth(desk.dev.get("operator_token"));
        let keys: Value = request.send().await.ok()?.json().await.ok()?;
        keys["instances"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
            .then_some(())
    })
    .await;
    let page = desk.operator("/dashboard/keys").await;
    page.shows("[data-rotation=whole]", "Everything is sealed under one key")
        .await;
    page.shows("keys-view", "Seals with").await;
    let whole = page.text("keys-view").await;
    assert!(whole.contains("1 / 1"), "held by the one process: {whole}");
    page.is_faultless().await;
}

#[tokio::test]
async fn an_operator_sees_how_the_caches_are_used() {
    let desk = Desk::start().await;
    send(&desk, "vapi/end-of-call-report").await;
    desk.dev.wait_for_sms(1).await;
    let page = desk.operator("/dashboard/caches").await;
    page.shows("caches-view tr[data-id=credentials]", "Credentials of integrations")
        .await;
    page.until(
        "/%/.test(document.querySelector('caches-view tr[data-id=credentials] td[data-label=\"Hit rate\"]').innerText)",
    )
    .await;
    // Of the last minutes: the queue is empty now, and the caches were asked.
    page.shows(".chart:nth-of-type(1) figcaption", "0 now").await;
    let looks = "return [...document.querySelectorAll('.chart')] \
        .filter(chart => chart.innerText.startsWith('Hit rate')) \
        .map(chart => [...chart.querySelectorAll('tbody tr')]) \
        .map(rows => [rows.length, rows.reduce((sum, row) => sum + Number(row.cells[2].textContent) + \
            Number(row.cells[3].textContent), 0)])";
    let of_the_hour = page.run(looks, json!([])).await;
    let all = of_the_hour.as_array().expect("a list");
    assert!(
        all.len() == 4 && all.iter().all(|cache| cache[0] == 60),
        "{of_the_hour}"
    );
    assert!(all.iter().any(|cache| cache[1].as_u64() > Some(0)), "{of_the_hour}");
    page.click("[data-key=span-day]").await;
    page.until("document.querySelector('.chart').querySelectorAll('tbody tr').length === 24")
        .await;
    page.is_faultless().await;
}
