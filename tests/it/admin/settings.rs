//! The settings of an organisation: read by all of its people, changed by its admins.

use super::{Answer, TestApp};
use hookswitch::{admin::Role, config::Settings, domain::OrgId};
use reqwest::Method;
use serde_json::{Value, json};

const PATH: &str = "/api/settings";

async fn patch(app: &TestApp, org: OrgId, body: &Value) -> Answer {
    app.call(org, Method::PATCH, PATH, Some(body)).await
}

fn all() -> Value {
    json!({
        "time_zone": "Europe/Berlin",
        "opening_hours": { "monday": [{ "from": "09:00", "until": "17:30" }] },
        "quiet_hours": { "from": "21:00", "until": "08:00" },
        "retention_days": 30,
    })
}

#[tokio::test]
async fn settings_are_the_installations_until_the_organisation_chooses() {
    let app = TestApp::start().await;
    let shown = app.get(app.a, PATH).await.expect(200);
    let expected = json!({
        "time_zone": null, "opening_hours": null, "quiet_hours": null, "retention_days": null,
        "retention_days_max": 90, "damaged": [], "version": 0, "updated_at": null, "etag": shown.etag(),
    });
    assert_eq!(shown.json(), expected);
    let changed = patch(&app, app.a, &all()).await.expect(200);
    assert_ne!(changed.etag(), shown.etag());
    let read = app
        .call_as(app.a, Role::Viewer, Method::GET, PATH, None)
        .await
        .expect(200);
    assert_eq!((read.json(), read.etag()), (changed.json(), changed.etag()));
    let body = read.json();
    assert_eq!(body["opening_hours"]["monday"][0]["until"], "17:30");
    assert_eq!(
        body["opening_hours"]["sunday"],
        json!([]),
        "a day that was not named is closed"
    );
    let one = patch(&app, app.a, &json!({ "quiet_hours": null }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (
            &one["quiet_hours"],
            &one["time_zone"],
            &one["retention_days"],
            &one["version"]
        ),
        (&Value::Null, &json!("Europe/Berlin"), &json!(30), &json!(2)),
        "null clears one, and the others stay"
    );
    let same = patch(&app, app.a, &json!({ "retention_days": 30 }))
        .await
        .expect(200)
        .json();
    assert_eq!(same["version"], 2, "no change is no version");
    let entries = app.get(app.a, "/api/audit").await.expect(200).json()["data"].clone();
    assert_eq!(
        (
            &entries[0]["verb"],
            &entries[0]["target_kind"],
            &entries[0]["target_id"]
        ),
        (&json!("update"), &json!("organisation"), &json!(app.a))
    );
    assert_eq!(
        (&entries[0]["fields"], &entries[0]["before"]["quiet_hours"]["from"]),
        (&json!(["quiet_hours"]), &json!("21:00"))
    );
    assert_eq!(entries[0]["after"]["quiet_hours"], Value::Null);
    assert_eq!(
        entries[1]["fields"],
        json!(["time_zone", "opening_hours", "quiet_hours", "retention_days"])
    );
}

#[tokio::test]
async fn all_wrong_settings_are_named_at_once_and_nothing_is_stored() {
    let app = TestApp::start().await;
    let wrong = json!({
        "time_zone": "Europe/Nowhere",
        "opening_hours": { "monday": [{ "from": "17:00", "until": "09:00" }], "someday": [] },
        "quiet_hours": { "from": "21:00" },
        "retention_days": 91,
        "colour": "blue",
        "<script>": 1,
    });
    let refused = patch(&app, app.a, &wrong).await.expect(400);
    assert_eq!(refused.code(), "invalid_field");
    let errors = refused.json()["errors"].clone();
    let mut fields: Vec<&str> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["field"].as_str().unwrap())
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "?script?",
            "colour",
            "opening_hours.monday[0].until",
            "opening_hours.someday",
            "quiet_hours.until",
            "retention_days",
            "time_zone",
        ]
    );
    assert!(!refused.text.contains("Nowhere"), "{}", refused.text);
    for value in [
        json!(0),
        json!(-1),
        json!(1.5),
        json!("30"),
        json!(4_294_967_326_u64),
        json!([]),
    ] {
        let refused = patch(&app, app.a, &json!({ "retention_days": value }))
            .await
            .expect(400);
        assert_eq!(refused.field(), "retention_days", "{value}");
        assert!(refused.text.contains("expected 1 to 90 days"), "{}", refused.text);
    }
    assert_eq!(app.get(app.a, PATH).await.json()["version"], 0);
}

#[tokio::test]
async fn an_installation_that_keeps_events_for_ever_sets_no_bound() {
    let mut settings = Settings::default();
    settings.worker.events_kept_days = 0;
    let app = TestApp::builder().settings(settings).admin().start().await;
    let days = |days: u32| json!({ "retention_days": days });
    patch(&app, app.a, &days(36_501)).await.expect(400);
    let set = patch(&app, app.a, &days(36_500)).await.expect(200).json();
    assert_eq!(
        (&set["retention_days"], &set["retention_days_max"]),
        (&json!(36_500), &Value::Null)
    );
}

#[tokio::test]
async fn a_change_of_settings_names_the_version_that_it_has_read() {
    let app = TestApp::start().await;
    let tag = app.get(app.a, PATH).await.etag();
    let of_b = app.get(app.b, PATH).await.etag();
    assert_ne!(tag, of_b, "a tag is its organisation's own");
    let with = |tag: &str| {
        let request = app
            .request(Method::PATCH, PATH)
            .bearer_auth(app.token(app.a, Role::Admin));
        TestApp::send(request.header("if-match", tag).json(&all()))
    };
    with(&of_b).await.expect(412);
    let changed = with(&tag).await.expect(200);
    assert_eq!(with(&tag).await.expect(412).code(), "precondition_failed");
    with(&changed.etag()).await.expect(200);
    let tag = app.get(app.a, PATH).await.etag();
    let all = futures_util::future::join_all((1..=5).map(|days| {
        let request = app
            .request(Method::PATCH, PATH)
            .bearer_auth(app.token(app.a, Role::Admin));
        TestApp::send(
            request
                .header("if-match", &tag)
                .json(&json!({ "retention_days": days })),
        )
    }));
    let statuses: Vec<u16> = all.await.iter().map(|answer| answer.status).collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 412).count(),
        4,
        "{statuses:?}"
    );
}

#[tokio::test]
async fn settings_of_one_organisation_are_not_anothers() {
    let app = TestApp::start().await;
    patch(&app, app.a, &all()).await.expect(200);
    let of_b = app.get(app.b, PATH).await.expect(200).json();
    assert_eq!((&of_b["time_zone"], &of_b["version"]), (&Value::Null, &json!(0)));
    patch(&app, app.b, &json!({ "time_zone": "Asia/Tokyo" }))
        .await
        .expect(200);
    assert_eq!(app.get(app.a, PATH).await.json()["time_zone"], "Europe/Berlin");
    let audit = app.get(app.b, "/api/audit").await.json();
    assert!(!audit.to_string().contains("Berlin"), "{audit}");
}

/// A row that a later release wrote, or that somebody broke.
#[tokio::test]
async fn a_damaged_setting_is_named_and_can_be_set_anew() {
    let app = TestApp::start().await;
    patch(&app, app.a, &all()).await.expect(200);
    let mut connection = app.open_database().await;
    sqlx::query("UPDATE organization_settings SET time_zone = 'Mars/Olympus', retention_days = 0 WHERE org_id = ?1")
        .bind(app.a.as_bytes().as_slice())
        .execute(&mut connection)
        .await
        .unwrap();
    let shown = app.get(app.a, PATH).await.expect(200).json();
    assert_eq!(shown["damaged"], json!(["time_zone", "retention_days"]));
    assert_eq!(
        (&shown["time_zone"], &shown["quiet_hours"]["from"]),
        (&Value::Null, &json!("21:00"))
    );
    let refused = patch(&app, app.a, &json!({ "time_zone": "Asia/Tokyo" }))
        .await
        .expect(400);
    assert_eq!(refused.field(), "retention_days", "it would be lost without a word");
    let mended = json!({ "time_zone": "Asia/Tokyo", "retention_days": null });
    let mended = patch(&app, app.a, &mended).await.expect(200).json();
    assert_eq!(
        (&mended["damaged"], &mended["time_zone"]),
        (&json!([]), &json!("Asia/Tokyo"))
    );
    app.get(app.b, PATH).await.expect(200);
}

/// A dry run sees what the worker would see.
#[tokio::test]
async fn a_dry_run_sees_the_settings_of_its_organisation() {
    let app = TestApp::start().await;
    let spec = json!({
        "name": "after hours", "source": "vapi", "event_type": "*", "when": "organisation.is_open == false",
        "action": "twilio.send_sms",
        "parameters": { "to": "+12025550199", "body": "Closed in {{ organisation.time_zone }}." },
    });
    let body = json!({ "spec": spec, "sample": { "event_type": "end-of-call-report", "body": {} } });
    let dry_run = async |org| app.post(org, "/api/rules/dry-run", &body).await.expect(200).json();
    let unset = dry_run(app.a).await;
    assert_eq!(
        (&unset["outcome"], &unset["field"]),
        (&json!("not_matched"), &json!("when"))
    );
    let closed = json!({ "time_zone": "Asia/Tokyo", "opening_hours": {} });
    patch(&app, app.a, &closed).await.expect(200);
    assert_eq!(dry_run(app.a).await["parameters"]["body"], "Closed in Asia/Tokyo.");
    assert_eq!(
        dry_run(app.b).await["outcome"],
        "not_matched",
        "of another organisation"
    );
    let (event, _) = super::isolation::plan(&app, app.a, hookswitch::domain::ActionState::Pending).await;
    let stored = json!({ "spec": spec, "event_id": event });
    let stored = app.post(app.a, "/api/rules/dry-run", &stored).await.expect(200).json();
    assert_eq!(stored["outcome"], "planned");
    let always = json!([{ "from": "00:00", "until": "24:00" }]);
    let days = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let week: serde_json::Map<_, _> = days.iter().map(|day| ((*day).to_owned(), always.clone())).collect();
    patch(&app, app.a, &json!({ "opening_hours": week })).await.expect(200);
    assert_eq!(dry_run(app.a).await["outcome"], "not_matched");
}

/// The clock begins at 16:00 UTC, which is 17:00 in Berlin.
#[tokio::test]
async fn a_dry_run_says_until_when_quiet_hours_would_hold_a_text() {
    let app = TestApp::start().await;
    let quiet = json!({ "time_zone": "Europe/Berlin", "quiet_hours": { "from": "16:30", "until": "18:15" } });
    patch(&app, app.a, &quiet).await.expect(200);
    let text = json!({
        "name": "text", "source": "vapi", "event_type": "*", "action": "twilio.send_sms",
        "parameters": { "to": "+12025550199", "body": "Hello" },
    });
    let with = |more: Value| {
        let mut spec = text.clone();
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let held = async |org, spec: &Value| {
        let body = json!({ "spec": spec, "sample": { "event_type": "end-of-call-report", "body": {} } });
        let ran = app.post(org, "/api/rules/dry-run", &body).await.expect(200).json();
        assert_eq!(ran["outcome"], "planned", "{ran}");
        ran["held_until"].clone()
    };
    let end = json!("2025-11-24T17:15:00.000000Z");
    assert_eq!(held(app.a, &text).await, end);
    assert_eq!(held(app.b, &text).await, Value::Null, "another organisation's hours");
    let urgent = with(json!({ "ignores_quiet_hours": true }));
    assert_eq!(held(app.a, &urgent).await, Value::Null, "the rule does not wait");
    let post = with(json!({ "action": "resend.send_email", "parameters": {
        "from": "a@example.com", "to": "b@example.com", "subject": "s", "text": "t" } }));
    assert_eq!(held(app.a, &post).await, Value::Null, "an e-mail wakes nobody");
    let stored = app.post(app.a, "/api/rules", &text).await.expect(201).json();
    let path = format!("/api/rules/{}/dry-run", stored["id"].as_str().unwrap());
    let sample = json!({ "sample": { "event_type": "end-of-call-report", "body": {} } });
    assert_eq!(
        app.post(app.a, &path, &sample).await.expect(200).json()["held_until"],
        end
    );
    app.clock.advance(std::time::Duration::from_mins(75));
    assert_eq!(held(app.a, &text).await, Value::Null, "they are over at their end");
}
