//! The page of the integrations, used as people use it.

use super::{Desk, card};
use crate::support::browser::{DESK, ENTER, PHONE, TAB};
use serde_json::json;

const PATH: &str = "/dashboard/integrations";
/// The key of WebDriver.
const ESCAPE: &str = "\u{E00C}";

#[tokio::test]
async fn a_provider_is_tested_connected_checked_and_disconnected_in_the_browser() {
    let desk = Desk::start().await;
    let page = desk.owner(PATH, DESK).await;
    page.click("[data-key=resend-open]").await;
    let form = "resend-credential-form";
    // An empty form names each field that is needed, and nobody is asked.
    page.click(&format!("{form} button[type=submit]")).await;
    page.shows(&format!("{form} [data-field=api_key] .field-error"), "needed")
        .await;
    // A wrong key: the words of the provider, beside ours.
    page.write(&format!("{form} [name=api_key]"), "re_wrong_key").await;
    page.write(&format!("{form} [name=from]"), "Birchwood <hello@birchwood.example>")
        .await;
    page.click(&format!("{form} footer button:nth-child(2)")).await;
    page.shows(&format!("{form} .form-said"), "Resend says").await;
    assert!(
        !page.text(&card("resend", "not_connected")).await.is_empty(),
        "a test stores nothing"
    );
    // The right one is tested, shown for a moment, and saved.
    page.rewrite(&format!("{form} [name=api_key]"), "re_sandbox_demo_key")
        .await;
    page.click(&format!("{form} .eye")).await;
    page.until("document.querySelector('resend-credential-form [name=api_key]').type === 'text'")
        .await;
    page.click(&format!("{form} footer button:nth-child(2)")).await;
    page.shows(&format!("{form} .form-said"), "Nothing is saved yet").await;
    page.click(&format!("{form} button[type=submit]")).await;
    page.find(&card("resend", "connected")).await;
    page.until("document.querySelector('dialog') === null").await;
    page.shows(&card("resend", "connected"), "hello@birchwood.example")
        .await;
    // The key went in and does not come out, neither in the page nor in the form.
    page.click("[data-key=resend-open]").await;
    page.shows(form, "Leave it empty to keep it").await;
    let shown = page.run(
        "return document.body.outerHTML + [...document.querySelectorAll('input')].map(i => i.value)",
        json!([]),
    );
    assert!(!shown.await.as_str().expect("a text").contains("re_sandbox_demo_key"));
    page.press(ESCAPE).await;
    page.until("document.querySelector('dialog') === null").await;

    page.click("[data-key=resend-verify]").await;
    page.shows(&card("resend", "connected"), "Checked: it works").await;
    page.click("[data-key=resend-ask]").await;
    page.shows("dialog", "e-mails").await;
    page.click("dialog .danger").await;
    page.find(&card("resend", "not_connected")).await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_check_that_the_provider_puts_off_keeps_the_state_and_says_until_when() {
    let desk = Desk::start().await;
    let page = desk.owner(PATH, PHONE).await;
    let asks_to_wait = json!({"provider": "twilio", "method": "GET", "status": 429, "retry_after": 600, "times": 1});
    desk.sandbox("/_faults", &asks_to_wait).await;
    page.click("[data-key=twilio-verify]").await;
    let connected = card("twilio", "connected");
    page.shows(&connected, "Not checked: Twilio asks to wait").await;
    page.shows(&connected, "Next try possible: in 10 minutes").await;
    page.click("[data-key=twilio-verify]").await;
    page.shows(&connected, "Checked: it works").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn saved_settings_are_filled_in_and_a_number_keeps_its_country() {
    let desk = Desk::start().await;
    let page = desk.owner(PATH, PHONE).await;
    page.click("[data-key=twilio-open]").await;
    let number = "twilio-credential-form [name=phone_number]";
    page.until(&format!(
        "document.querySelector('{number}').value === '+1 555 201 0100'"
    ))
    .await;
    for (typed, shown, is_refused) in [
        ("+442079460958", "+44 207 946 0958", false),
        ("020 7946 0958", "020 7946 0958", true),
        ("(202) 555-0123", "(202) 555-0123", true),
    ] {
        page.rewrite(number, typed).await;
        page.until(&format!("document.querySelector('{number}').value === '{shown}'"))
            .await;
        page.press(TAB).await;
        let error = page
            .text("twilio-credential-form [data-field=phone_number] .field-error")
            .await;
        assert_eq!(error.contains("country"), is_refused, "{typed}: {error}");
    }
    // A digit in the middle: the caret stays behind it.
    page.rewrite(number, "+4479460958").await;
    page.run(
        "const i = document.querySelector(arguments[0]); i.focus(); i.setSelectionRange(4, 4)",
        json!([number]),
    )
    .await;
    page.press("20").await;
    page.until(&format!(
        "document.querySelector('{number}').value === '+44 207 946 0958'"
    ))
    .await;
    let caret = page
        .run(
            "return document.querySelector(arguments[0]).selectionStart",
            json!([number]),
        )
        .await;
    assert_eq!(caret, 6, "behind `+44 20`");
    // Saving without the token keeps the token, and takes the number.
    page.rewrite(number, "+1 555 201 0100").await;
    page.click("twilio-credential-form button[type=submit]").await;
    page.shows(&card("twilio", "connected"), "+1 555 201 0100").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn the_answer_to_a_test_is_dropped_once_the_form_has_changed() {
    let desk = Desk::start().await;
    let page = desk.owner(PATH, DESK).await;
    page.click("[data-key=twilio-open]").await;
    let form = "twilio-credential-form";
    let slow = json!({"provider": "twilio", "method": "GET", "delay_ms": 1500, "times": 4});
    desk.sandbox("/_faults", &slow).await;
    page.click(&format!("{form} footer button:nth-child(2)")).await;
    page.until(&format!("document.querySelector('{form}').dataset.phase === 'testing'"))
        .await;
    page.write(&format!("{form} [name=auth_token]"), "another").await;
    page.until(&format!("document.querySelector('{form}').dataset.phase === 'editing'"))
        .await;
    // The answer comes, and says nothing: what the sandbox saw shows that it was asked.
    crate::support::until("the slow answer", || async {
        let asked = desk.dev.requests("twilio").await;
        asked
            .iter()
            .any(|request| request["method"] == "GET" && request["status"] == 200)
            .then_some(())
    })
    .await;
    page.run("return new Promise(done => setTimeout(done, 500))", json!([]))
        .await;
    assert_eq!(page.text(&format!("{form} .form-said")).await, "");
    assert_eq!(
        page.run(
            "return document.querySelectorAll('integration-card[aria-busy]').length",
            json!([])
        )
        .await,
        0
    );
    page.is_faultless().await;
}

#[tokio::test]
async fn a_credential_that_the_provider_refuses_shows_on_its_own_card_alone() {
    let desk = Desk::start().await;
    let page = desk.owner(PATH, DESK).await;
    page.find(&card("twilio", "connected")).await;
    let refused = json!({"provider": "twilio", "method": "GET", "status": 401, "times": 1});
    desk.sandbox("/_faults", &refused).await;
    page.click("[data-key=twilio-verify]").await;
    let bad = card("twilio", "needs_reconnecting");
    page.shows(&bad, "Twilio says").await;
    page.shows(&bad, "Reconnect").await;
    page.find(&card("vapi", "connected")).await;
    page.find(&card("google_calendar", "not_connected")).await;
    // Mended at the provider: one press, and it is good again.
    page.click("[data-key=twilio-verify]").await;
    page.find(&card("twilio", "connected")).await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_limited_key_is_connected_and_says_what_it_cannot_do() {
    let desk = Desk::start().await;
    let limited =
        json!({"resend": [{"api_key": "re_sending_only", "domains": ["birchwood.example"], "is_sending_only": true}]});
    desk.sandbox("/_accounts", &limited).await;
    let page = desk.owner(PATH, DESK).await;
    page.click("[data-key=resend-open]").await;
    page.write("resend-credential-form [name=api_key]", "re_sending_only")
        .await;
    page.write("resend-credential-form [name=from]", "hello@birchwood.example")
        .await;
    page.click("resend-credential-form button[type=submit]").await;
    page.shows(&card("resend", "limited"), "What it cannot do").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn two_organisations_side_by_side_see_nothing_of_each_other() {
    let desk = Desk::start().await;
    let other = desk.another("Aspen <b>& Co</b>").await;
    let one = desk.owner(PATH, DESK).await;
    let two = desk
        .open(&desk.token(&other, hookswitch::admin::Role::Owner), PATH, DESK)
        .await;
    for provider in ["vapi", "twilio", "google_calendar", "resend", "elevenlabs"] {
        two.find(&card(provider, "not_connected")).await;
    }
    two.click("[data-key=elevenlabs-open]").await;
    two.write("elevenlabs-credential-form [name=api_key]", "sk_sandbox_demo_key")
        .await;
    two.click("elevenlabs-credential-form button[type=submit]").await;
    two.find(&card("elevenlabs", "connected")).await;
    one.go(PATH).await;
    one.find(&card("elevenlabs", "not_connected")).await;
    one.find(&card("twilio", "connected")).await;
    for page in [one, two] {
        page.is_faultless().await;
    }
}

#[tokio::test]
async fn a_provider_is_connected_by_keyboard_alone() {
    let desk = Desk::start().await;
    let page = desk.driver.open(&desk.dev.get("admin"), DESK).await;
    page.go(PATH).await;
    page.find("#token").await;
    page.tab_to("document.activeElement.id === 'token'").await;
    page.press(&desk.dev.get("admin_token")).await;
    page.press(&format!("{TAB}{ENTER}")).await;
    page.find(&card("resend", "not_connected")).await;
    page.tab_to("document.activeElement.dataset.key === 'resend-open'")
        .await;
    page.press(ENTER).await;
    page.until("document.activeElement.name === 'api_key'").await;
    page.press("re_sandbox_demo_key").await;
    page.tab_to("document.activeElement.name === 'from'").await;
    page.press("hello@birchwood.example").await;
    // Enter in a field saves, as in every form.
    page.press(ENTER).await;
    page.find(&card("resend", "connected")).await;
    // The focus is back where it came from: on this card.
    page.until("document.activeElement.closest('integration-card')?.dataset.provider === 'resend'")
        .await;
    page.is_faultless().await;
}

#[tokio::test]
async fn the_round_trip_to_google_lands_back_on_the_page_with_a_clear_word() {
    let desk = Desk::start().await;
    let page = desk.owner(PATH, DESK).await;
    let form = "google-calendar-oauth-form";
    page.click("[data-key=google_calendar-open]").await;
    page.click(&format!("{form} button.primary")).await;
    let good = card("google_calendar", "connected");
    page.shows(&good, "Google Calendar is connected").await;
    page.shows(&good, "front.desk@birchwood.example").await;
    assert_eq!(page.path().await, PATH, "what Google added is gone from the address");
    // A reload says it no more, and the session is still there.
    page.go(PATH).await;
    page.find(&good).await;
    assert!(!page.text(&good).await.contains("is connected"));
    page.is_faultless().await;
    for (query, words) in [
        ("error=consent_refused&reason=denied", "Nothing was changed"),
        ("error=consent_refused&reason=scopes_missing", "left unticked"),
        ("error=consent_invalid", "took too long"),
        ("error=something_else", "could not be connected"),
    ] {
        page.go(&format!("{PATH}?{query}")).await;
        page.shows(&good, words).await;
    }
    page.is_faultless().await;
}

#[tokio::test]
async fn the_link_of_dev_opens_the_dashboard_signed_in() {
    let desk = Desk::start().await;
    let page = desk.driver.open("", DESK).await;
    page.go(&desk.dev.get("sign_in")).await;
    page.shows("#top", "Owner").await;
    page.find("overview-view").await;
    assert!(!page.path().await.contains("code"), "the code is gone from the address");
    page.run("location.reload()", json!([])).await;
    page.shows("#top", "Owner").await;
    let stored = "return [document.cookie, localStorage.length, sessionStorage.length]";
    assert_eq!(
        page.run(stored, json!([])).await,
        json!(["", 0, 0]),
        "no script can read the session"
    );
    page.click("[data-key=sign-out]").await;
    page.shows("main", "You are signed out").await;
    page.run("location.reload()", json!([])).await;
    page.find("#token").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn another_account_takes_the_place_only_after_a_person_says_so() {
    let desk = Desk::start().await;
    let (sid, token) = ("AC0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
    let other = json!({"accounts": [{"sid": sid, "auth_token": token, "numbers": ["+12025550199"]}]});
    desk.sandbox("/_accounts", &other).await;
    let page = desk.owner(PATH, DESK).await;
    page.click("[data-key=twilio-open]").await;
    let form = "twilio-credential-form";
    page.rewrite(&format!("{form} [name=account_sid]"), sid).await;
    // Nothing is kept for another account: its token is needed.
    page.click(&format!("{form} button[type=submit]")).await;
    page.shows(&format!("{form} [data-field=auth_token] .field-error"), "needed")
        .await;
    page.write(&format!("{form} [name=auth_token]"), token).await;
    page.click(&format!("{form} footer button:nth-child(2)")).await;
    page.shows(&format!("{form} .form-said"), "It takes the place of the account")
        .await;
    page.shows(&format!("{form} .form-said"), "Phone number").await;
    page.click(&format!("{form} button[type=submit]")).await;
    page.shows(&format!("{form} .form-said"), "another account").await;
    page.click(&format!("{form} .form-said button")).await;
    page.shows(&card("twilio", "connected"), sid).await;
    page.is_faultless().await;
}
