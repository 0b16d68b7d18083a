//! Events, actions and rules in the browser.

use super::Desk;
use crate::support::browser::{DESK, PHONE};
use hookswitch::cli::{dev_state::DevState, samples::Sample, send::Sender};
use serde_json::json;

pub(super) async fn send(desk: &Desk, sample: &str) {
    send_this(desk, Sample::find(sample).expect("a sample")).await;
}

async fn send_this(desk: &Desk, sample: &Sample) {
    let state = DevState::load(desk.directory.path()).expect("readable").expect("made");
    let answer = Sender::new(&state, None)
        .expect("a sender")
        .send(sample)
        .await
        .expect("sent");
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn an_event_shows_up_by_itself_and_tells_its_whole_story_on_one_page() {
    let desk = Desk::start().await;
    let page = desk.owner("/dashboard/events", DESK).await;
    page.find("paged-list[data-state=empty]").await;
    send(&desk, "vapi/end-of-call-report").await;
    page.shows("tbody", "vapi.end-of-call-report").await;
    page.shows("tbody", "2 × Done").await;
    page.click("tbody td[data-label=Type] a").await;
    page.find("event-view[data-state=ready]").await;
    let story = "event-view";
    for part in [
        "Received and verified",
        "Send a text",
        "After a call, text the caller",
        "Post to a URL",
        "Attempts",
    ] {
        page.shows(story, part).await;
    }
    page.shows(story, "HTTP 20").await;
    // The address of a story is a link: back leads to the list.
    assert!(page.path().await.starts_with("/dashboard/events/"));
    page.run("history.back()", json!([])).await;
    page.find("paged-list[data-state=ready]").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn an_event_is_processed_again_by_rules_that_did_nothing_or_by_all() {
    let desk = Desk::start().await;
    send(&desk, "vapi/end-of-call-report").await;
    let page = desk.owner("/dashboard/events", DESK).await;
    page.shows("tbody", "2 × Done").await;
    page.click("tbody td[data-label=Type] a").await;
    let count = "document.querySelectorAll('event-view section[data-action]').length";
    page.until(&format!("{count} === 2")).await;
    page.click("[data-do=replay]").await;
    page.click("dialog button[type=submit]").await;
    page.shows("#notices", "The event is processed again.").await;
    page.click("[data-do=replay]").await;
    page.run("document.querySelector('dialog select').value = 'yes'", json!([]))
        .await;
    page.click("dialog button[type=submit]").await;
    page.until(&format!("{count} === 4")).await;
    page.shows("event-view", ", replay 1").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn filters_stand_in_the_address() {
    let desk = Desk::start().await;
    send(&desk, "vapi/status-update").await;
    let page = desk.owner("/dashboard/events?source=twilio", PHONE).await;
    page.find("paged-list[data-state=empty]").await;
    page.shows("paged-list", "Nothing matches").await;
    let choose = "const s = document.querySelector('select[name=source]'); s.value = 'vapi'; \
        s.dispatchEvent(new Event('change', {bubbles: true}))";
    page.run(choose, json!([])).await;
    page.find("paged-list[data-state=ready]").await;
    assert_eq!(page.path().await, "/dashboard/events?source=vapi");
    page.is_faultless().await;
}

#[tokio::test]
async fn a_name_with_markup_in_it_is_a_name() {
    let desk = Desk::start().await;
    let name = "<script>document.title='taken'</script><img src=x onerror=alert(1)>";
    let rule = json!({"name": name, "source": "vapi", "event_type": "status-update", "action": "http.post",
        "parameters": {"destination": "demo", "body": "<b>{{ message.status }}</b>"}});
    let (status, _) = desk.dev.admin_post("/api/rules", &rule).await;
    assert_eq!(status, 201);
    send(&desk, "vapi/status-update").await;
    let page = desk.owner("/dashboard/rules", DESK).await;
    page.shows("tbody", name).await;
    page.go("/dashboard/actions").await;
    page.shows("tbody", name).await;
    page.click("tbody td[data-label=Action] a").await;
    page.until("document.querySelector('action-view')?.textContent.includes('<b>')")
        .await;
    assert_eq!(
        page.run(
            "return document.querySelectorAll('main script, main img, main b').length",
            json!([])
        )
        .await,
        0
    );
    page.until("!document.title.includes('taken')").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn markup_in_a_transcript_and_in_a_providers_words_is_text_and_a_planted_secret_is_masked() {
    let desk = Desk::start().await;
    let markup = "<script>document.title='taken'</script><img src=x onerror=alert(1)>";
    let refused = json!({"provider": "twilio", "method": "POST", "status": 400, "times": 1,
        "body": {"code": 21211, "message": markup, "status": 400}});
    desk.sandbox("/_faults", &refused).await;
    let sample = Sample::find("vapi/end-of-call-report").expect("a sample");
    let planted = format!("{{\"message\":{{\"serverUrlSecret\":\"canary-secret\",\"note\":\"{markup}\",");
    let text = sample.text.replacen("{\"message\":{", &planted, 1);
    let text = text.replacen("\"transcript\":\"", &format!("\"transcript\":\"{markup}"), 1);
    let sample = Sample {
        text: String::leak(text),
        ..*sample
    };
    send_this(&desk, &sample).await;
    let page = desk.owner("/dashboard/events", DESK).await;
    page.shows("tbody", "Given up").await;
    page.click("tbody td[data-label=Type] a").await;
    page.find("event-view[data-state=ready]").await;
    let whole = "document.querySelector('event-view').textContent";
    page.until(&format!("{whole}.split(\"<script>document.title='taken'\").length > 3"))
        .await;
    page.until(&format!("{whole}.includes('[masked]')")).await;
    let html = page.run("return document.documentElement.outerHTML", json!([])).await;
    assert!(!html.to_string().contains("canary-secret"));
    let made = page.run(
        "return document.querySelectorAll('main script, main img').length",
        json!([]),
    );
    assert_eq!(made.await, 0);
    page.until("!document.title.includes('taken')").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_rule_is_switched_off_and_on_again() {
    let desk = Desk::start().await;
    let page = desk.owner("/dashboard/rules", DESK).await;
    page.click("tbody tr:first-child .switch[aria-checked=true]").await;
    page.find("tbody tr:first-child .switch[aria-checked=false]").await;
    let rules = desk.dev.admin("/api/rules").await;
    let off = rules["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|rule| rule["enabled"] == false)
        .count();
    assert_eq!(off, 1);
    page.click("tbody tr:first-child .switch[aria-checked=false]").await;
    page.find("tbody tr:first-child .switch[aria-checked=true]").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_rule_is_made_from_a_ready_one_and_tried_while_it_is_typed() {
    let desk = Desk::start().await;
    send(&desk, "vapi/end-of-call-report").await;
    let page = desk.owner("/dashboard/rules", DESK).await;
    page.click("a.ready[href*='ready=thanks']").await;
    let result = "rule-editor [data-outcome]";
    page.shows("rule-editor [data-outcome=planned]", "It would act").await;
    // A field that is not there: the exact place, at the field, while it is typed.
    let body = "rule-editor [name='parameters.body']";
    page.rewrite(body, "Hello {{ message.nobody }}").await;
    page.find("rule-editor [data-outcome=failed]").await;
    page.shows(
        "rule-editor [data-field='parameters.body'] .field-error",
        "message.nobody",
    )
    .await;
    // A condition that is no expression, and one that is not true for this event.
    page.rewrite(body, "Hello").await;
    page.rewrite("rule-editor [name=when]", "message.endedReason ==").await;
    page.shows("rule-editor [data-field=when] .field-error", "syntax").await;
    page.rewrite("rule-editor [name=when]", "message.endedReason == 'never'")
        .await;
    page.shows("rule-editor [data-outcome=not_matched]", "condition is not true")
        .await;
    // A field of the event is put where the caret stood.
    page.rewrite("rule-editor [name=when]", "message.endedReason is defined")
        .await;
    page.rewrite(body, "Ended: ").await;
    let insert = "rule-editor input[list^=paths]";
    page.write(insert, "message.endedReason").await;
    page.press("\u{E007}").await;
    page.until(&format!(
        "document.querySelector(\"{body}\").value === 'Ended: {{{{ message.endedReason }}}}'"
    ))
    .await;
    page.shows("rule-editor [data-outcome=planned]", "Ended: customer-ended-call")
        .await;
    page.rewrite("rule-editor [name=name]", "Tell how it ended").await;
    page.click("rule-editor button[type=submit]").await;
    page.shows("tbody", "Tell how it ended").await;
    assert_eq!(
        desk.dev.admin("/api/rules").await["data"].as_array().map(Vec::len),
        Some(3)
    );
    // And away again, after a question.
    page.run(
        "[...document.querySelectorAll('tbody a')].find(a => a.textContent === 'Tell how it ended').click()",
        json!([]),
    )
    .await;
    page.find(result).await;
    page.click("rule-editor [data-key=delete]").await;
    page.click("dialog .danger").await;
    page.find("rules-view paged-list[data-state=ready]").await;
    assert_eq!(
        desk.dev.admin("/api/rules").await["data"].as_array().map(Vec::len),
        Some(2)
    );
    page.is_faultless().await;
}

#[tokio::test]
async fn the_overview_counts_the_last_hour_with_the_numbers_behind_its_charts() {
    let desk = Desk::start().await;
    let fault = json!({"provider": "twilio", "method": "POST", "path": "Messages", "status": 429, "times": 1,
        "retry_after": 3000, "body": {"code": 20429, "message": "no", "status": 429}});
    desk.sandbox("/_faults", &fault).await;
    send(&desk, "vapi/end-of-call-report").await;
    crate::support::until("one action done, and one that waits", || async {
        let all = desk.dev.admin("/api/actions").await;
        let is = |state: &str| {
            all["data"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["state"] == state))
        };
        (is("succeeded") && is("waiting")).then_some(())
    })
    .await;
    let page = desk.owner("/dashboard/overview?span=hour", PHONE).await;
    for (tile, value) in [
        ("events", "1"),
        ("actions", "2"),
        ("success", "100%"),
        ("retries", "0"),
        ("waiting", "1"),
    ] {
        page.until(&format!(
            "document.querySelector('[data-tile={tile}] strong').innerText === '{value}'"
        ))
        .await;
    }
    page.shows("[data-tile=waiting]", "the oldest planned").await;
    page.shows("overview-view", "belong to the whole installation").await;
    // Behind each chart there are its numbers: a row a minute, and their sum is the tile's.
    let sums = "return [...document.querySelectorAll('.chart')].map(chart => { \
        const rows = [...chart.querySelectorAll('tbody tr')]; \
        return [rows.length, rows.reduce((sum, row) => sum + Number(row.cells[1].textContent), 0)]; })";
    let sums = page.run(sums, json!([])).await;
    assert_eq!(
        (&sums[0], &sums[1], &sums[4]),
        (&json!([60, 1]), &json!([60, 1]), &json!([60, 0])),
        "{sums}"
    );
    // One waits now, and nothing did an hour ago.
    let backlog = "const rows = [...document.querySelectorAll('.chart')[3].querySelectorAll('tbody tr')]; \
        return [rows[0], rows.at(-1)].map(row => row.cells[1].textContent)";
    assert_eq!(page.run(backlog, json!([])).await, json!(["0", "1"]));
    page.shows(".chart:nth-of-type(4) figcaption", "1 now").await;
    page.click("a[href='/dashboard/overview?span=day']").await;
    page.until("document.querySelector('.chart').querySelectorAll('tbody tr').length === 24")
        .await;
    page.is_faultless().await;
}

#[tokio::test]
async fn a_dead_action_is_tried_again_from_the_overview() {
    let desk = Desk::start().await;
    desk.refuse_texts(1).await;
    send(&desk, "vapi/end-of-call-report").await;
    crate::support::until("a dead action", || async {
        let dead = desk.dev.admin("/api/actions?state=dead").await;
        dead["data"].as_array().is_some_and(|all| !all.is_empty()).then_some(())
    })
    .await;
    let page = desk.owner("/dashboard/overview", DESK).await;
    page.shows("overview-view", "1 given up").await;
    page.click("a[href='/dashboard/actions?state=dead']").await;
    page.shows("tbody", "The recipient is not valid").await;
    page.click("tbody [data-do=retry]").await;
    page.find("paged-list[data-state=empty]").await;
    desk.dev.wait_for_sms(1).await;
    page.is_faultless().await;
}

#[tokio::test]
async fn all_that_was_given_up_is_tried_again_after_a_look_at_the_plan() {
    let desk = Desk::start().await;
    desk.refuse_texts(2).await;
    let page = desk.owner("/dashboard/actions?state=dead", DESK).await;
    for _ in 0..2 {
        send(&desk, "vapi/end-of-call-report").await;
    }
    // The list fills by itself.
    page.click("[data-key=bulk-retry]").await;
    page.shows("dialog", "Try 2 actions again?").await;
    page.shows("dialog tbody", "Given up").await;
    page.shows("dialog tbody", "Twilio").await;
    assert!(desk.dev.sms().await.is_empty(), "a plan sends nothing");
    page.click("dialog .danger").await;
    page.shows("job-progress[data-state=done]", "2 of 2 done").await;
    assert!(page.path().await.starts_with("/dashboard/jobs/"));
    desk.dev.wait_for_sms(2).await;
    page.click("main a[href='/dashboard/actions']").await;
    page.find("actions-view paged-list[data-state=ready]").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn filters_of_several_states_a_rule_a_cause_and_a_time_stand_in_the_address() {
    let desk = Desk::start().await;
    desk.refuse_texts(1).await;
    send(&desk, "vapi/end-of-call-report").await;
    let page = desk.owner("/dashboard/actions", DESK).await;
    page.shows("tbody", "Given up").await;
    page.shows("tbody", "Done").await;
    page.click("details.many > summary").await;
    page.click("[data-key=filter-state-dead]").await;
    page.click("[data-key=filter-state-parked]").await;
    page.until("document.querySelectorAll('tbody tr').length === 1").await;
    assert_eq!(page.path().await, "/dashboard/actions?state=parked%2Cdead");
    // Several states are no plan of one: nothing is offered for all of them.
    assert_eq!(
        page.run("return document.querySelector('[data-key^=bulk]')", json!([]))
            .await,
        json!(null)
    );
    let choose = "const [name, text] = arguments; const s = document.querySelector(`select[name=${name}]`); \
        s.value = [...s.options].find(o => o.textContent.includes(text)).value; \
        s.dispatchEvent(new Event('change', {bubbles: true}))";
    page.run(choose, json!(["rule_id", "text the caller"])).await;
    page.run(choose, json!(["cause", "The recipient is not valid"])).await;
    page.until("document.querySelectorAll('tbody tr').length === 1").await;
    let path = page.path().await;
    for part in ["rule_id=", "cause=invalid_recipient", "state=parked%2Cdead"] {
        assert!(path.contains(part), "{path}");
    }
    // Nothing was planned before that day; the address alone says it.
    page.go(&format!("{path}&until=2020-01-02T03:04:00Z")).await;
    page.shows("paged-list[data-state=empty]", "Nothing matches").await;
    page.until("document.querySelector('[name=until]').value !== ''").await;
    page.click(".filters a").await;
    page.until("document.querySelectorAll('tbody tr').length === 2").await;
    page.go("/dashboard/audit").await;
    page.click("tbody td[data-label=Who] a").await;
    page.until("location.search.startsWith('?actor=')").await;
    page.find("paged-list[data-state=ready]").await;
    page.is_faultless().await;
}

#[tokio::test]
async fn an_event_says_which_rules_said_yes_or_no_and_why() {
    let desk = Desk::start().await;
    let rule = |name: &str, event_type: &str, when: &str, body: &str| {
        json!({"name": name, "source": "vapi", "event_type": event_type, "when": when, "action": "http.post",
            "parameters": {"destination": "demo", "body": body}})
    };
    for one in [
        rule("never", "end-of-call-report", "message.endedReason == 'never'", "x"),
        rule("others", "status-update", "true", "x"),
    ] {
        assert_eq!(desk.dev.admin_post("/api/rules", &one).await.0, 201);
    }
    send(&desk, "vapi/end-of-call-report").await;
    for one in [
        rule("late", "*", "true", "x"),
        rule(
            "broken <script>alert(1)</script>",
            "*",
            "true",
            "{{ message.nobody.name }}",
        ),
    ] {
        assert_eq!(desk.dev.admin_post("/api/rules", &one).await.0, 201);
    }
    let page = desk.owner("/dashboard/events", DESK).await;
    page.click("tbody td[data-label=Type] a").await;
    let said = |said: &str| format!("event-rules li[data-said={said}]");
    page.find("event-rules[data-state=ready]").await;
    page.shows(&said("yes"), "its actions stand above").await;
    page.shows(&said("open"), "late").await;
    page.shows(&said("broken"), "could not be rendered").await;
    let whole = page.text("event-rules").await;
    for part in [
        "After a call, text the caller",
        "never: its condition is not true for this event",
        "others: it is for another type of event",
        "late: as it stands today it would act",
        "broken <script>alert(1)</script>",
    ] {
        assert!(whole.contains(part), "{part}: {whole}");
    }
    assert_eq!(
        page.run("return document.querySelectorAll('main script').length", json!([]))
            .await,
        0
    );
    page.is_faultless().await;
}
