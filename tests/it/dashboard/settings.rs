//! The settings of the organisation: its hours, and how long its events are kept.

use super::{
    Desk,
    access::{axe, is_accessible},
    history::send,
};
use crate::support::browser::{Browser, DESK, ENTER, PHONE};
use hookswitch::{
    admin::Role,
    domain::{Clock, SystemClock},
};
use serde_json::json;

const PATH: &str = "/dashboard/settings";
const READY: &str = "organisation-settings[data-state=ready]";

/// Sets a field of the type `time`, which a person fills in by the habits of the country.
async fn set_time(page: &Browser<'_>, name: &str, time: &str) {
    let script = "document.getElementsByName(arguments[0])[0].value = arguments[1]";
    page.run(script, json!([name, time])).await;
}

#[tokio::test]
async fn settings_are_filled_in_by_keyboard_with_each_error_at_its_field() {
    let desk = Desk::start().await;
    let page = desk.owner(PATH, DESK).await;
    page.find(READY).await;
    page.tab_to("document.activeElement.name === 'time_zone'").await;
    page.press("Europe/Nowhere").await;
    page.tab_to("document.activeElement.type === 'checkbox'").await;
    page.press(" ").await;
    page.tab_to("document.activeElement.name === 'opening_hours.monday'")
        .await;
    page.rewrite("[name='opening_hours.monday']", "9-12:30, 12-18").await;
    page.tab_to("document.activeElement.name === 'retention_days'").await;
    page.press("500").await;
    page.press(ENTER).await;
    for (field, said) in [
        ("time_zone", "Europe/Berlin"),
        ("opening_hours.monday", "Overlaps with another pair"),
        ("retention_days", "1 to 90 days"),
    ] {
        page.shows(&format!("[data-field='{field}'] .field-error"), said).await;
    }
    page.until("document.activeElement.name === 'time_zone'").await;
    is_accessible(&page, &axe(), "settings with errors").await;
    assert_eq!(desk.dev.admin("/api/settings").await["version"], 0, "nothing was saved");
    page.rewrite("[name=time_zone]", "Europe/Berlin").await;
    page.rewrite("[name='opening_hours.monday']", "9-12:30, 13.30 to 18")
        .await;
    page.rewrite("[name='opening_hours.friday']", "").await;
    page.rewrite("[name=retention_days]", "30").await;
    set_time(&page, "quiet_hours.from", "21:00").await;
    set_time(&page, "quiet_hours.until", "08:00").await;
    page.tab_to("document.activeElement.dataset.key === 'settings-save'")
        .await;
    page.press(ENTER).await;
    page.shows("#notices", "saved").await;
    let stored = desk.dev.admin("/api/settings").await;
    assert_eq!(
        (&stored["time_zone"], &stored["quiet_hours"], &stored["retention_days"]),
        (
            &json!("Europe/Berlin"),
            &json!({ "from": "21:00", "until": "08:00" }),
            &json!(30)
        )
    );
    let monday = json!([{ "from": "09:00", "until": "12:30" }, { "from": "13:30", "until": "18:00" }]);
    assert_eq!(stored["opening_hours"]["monday"], monday);
    assert_eq!(stored["opening_hours"]["friday"], json!([]));
    let shown = "document.getElementsByName('opening_hours.monday')[0]?.value === '09:00–12:30, 13:30–18:00'";
    page.until(shown).await;
    // What is emptied is taken back.
    page.rewrite("[name=retention_days]", "").await;
    page.click("organisation-settings input[type=checkbox]").await;
    set_time(&page, "quiet_hours.from", "").await;
    set_time(&page, "quiet_hours.until", "").await;
    page.click("[data-key=settings-save]").await;
    page.until("document.getElementsByName('quiet_hours.from')[0]?.value === ''")
        .await;
    let stored = crate::support::until("the second change", || async {
        let stored = desk.dev.admin("/api/settings").await;
        (stored["version"] == 2).then_some(stored)
    })
    .await;
    assert_eq!(
        (
            &stored["opening_hours"],
            &stored["quiet_hours"],
            &stored["retention_days"]
        ),
        (&json!(null), &json!(null), &json!(null))
    );
    page.is_faultless().await;
}

#[tokio::test]
async fn a_change_by_somebody_else_is_not_overwritten() {
    let desk = Desk::start().await;
    let page = desk.owner(PATH, PHONE).await;
    page.find(READY).await;
    let changed = json!({ "time_zone": "Asia/Tokyo" });
    desk.dev.admin_patch("/api/settings", &changed).await;
    page.rewrite("[name=retention_days]", "30").await;
    page.click("[data-key=settings-save]").await;
    page.shows("organisation-settings .note.bad", "Somebody else").await;
    let stored = desk.dev.admin("/api/settings").await;
    assert_eq!(
        (&stored["time_zone"], &stored["version"]),
        (&json!("Asia/Tokyo"), &json!(1))
    );
    page.is_faultless().await;
}

#[tokio::test]
async fn who_may_only_look_reads_the_settings_as_words() {
    let desk = Desk::start().await;
    let settings = json!({
        "time_zone": "Europe/Berlin", "quiet_hours": { "from": "21:00", "until": "08:00" },
        "opening_hours": { "monday": [{ "from": "09:00", "until": "17:00" }] },
    });
    desk.dev.admin_patch("/api/settings", &settings).await;
    for role in [Role::Viewer, Role::Member] {
        let token = desk.token(&desk.dev.get("org_id"), role);
        let page = desk.open(&token, PATH, DESK).await;
        page.find(READY).await;
        for said in [
            "Europe/Berlin",
            "Monday: 09:00–17:00",
            "Tuesday: closed",
            "21:00–08:00",
            "for 90 days",
        ] {
            page.shows("organisation-settings", said).await;
        }
        let inputs = "return document.querySelectorAll('organisation-settings :is(input, button)').length";
        assert_eq!(page.run(inputs, json!([])).await, 0, "{role:?}");
        page.is_faultless().await;
    }
}

/// Quiet hours that began an hour ago, and end in two and a half.
async fn be_quiet(desk: &Desk) {
    let minutes = SystemClock.now().as_seconds() / 60;
    let text = |minutes: i64| format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
    let quiet = json!({ "quiet_hours": { "from": text(minutes - 60), "until": text(minutes + 150) } });
    desk.dev.admin_patch("/api/settings", &quiet).await;
}

#[tokio::test]
async fn a_text_that_waits_for_quiet_hours_says_so_and_until_when() {
    let desk = Desk::start().await;
    be_quiet(&desk).await;
    send(&desk, "vapi/end-of-call-report").await;
    let page = desk.owner("/dashboard/actions", DESK).await;
    page.shows("tbody", "Waits for the end of quiet hours").await;
    page.shows("tbody", "in 2 hours").await;
    // A person may send it all the same.
    page.shows("tbody", "Try again").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn the_editor_says_until_when_quiet_hours_would_hold_a_text() {
    let desk = Desk::start().await;
    be_quiet(&desk).await;
    let page = desk.owner("/dashboard/rules/new?ready=thanks", PHONE).await;
    let planned = "rule-editor [data-outcome=planned]";
    page.shows(planned, "would wait for their end").await;
    page.shows(planned, "in 2 hours").await;
    let choose = "const s = document.querySelector('rule-editor [name=ignores_quiet_hours]'); \
        s.selectedIndex = 1 - s.selectedIndex; s.dispatchEvent(new Event('input', {bubbles: true}))";
    page.run(choose, json!([])).await;
    page.until("!document.querySelector('rule-editor [data-outcome=planned]').innerText.includes('would wait')")
        .await;
    page.run(choose, json!([])).await;
    page.shows(planned, "would wait for their end").await;
    page.is_faultless().await;
}
