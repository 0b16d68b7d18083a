//! Rules: checked on save, changed by one writer at a time, tried without doing anything.

use super::{TestApp, rule};
use reqwest::Method;
use serde_json::{Value, json};

async fn put(app: &TestApp, id: &str, etag: Option<&str>, body: &Value) -> super::Answer {
    let mut request = app
        .request(Method::PUT, &format!("/api/rules/{id}"))
        .bearer_auth(app.token(app.a, hookswitch::admin::Role::Admin))
        .json(body);
    if let Some(etag) = etag {
        request = request.header("if-match", etag);
    }
    TestApp::send(request).await
}

#[tokio::test]
async fn a_rule_is_made_read_changed_and_deleted() {
    let app = TestApp::start().await;
    let made = app.post(app.a, "/api/rules", &rule("first")).await.expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.headers["location"], format!("/api/rules/{id}"));
    let read = app.get(app.a, &format!("/api/rules/{id}")).await.expect(200);
    assert_eq!(read.etag(), made.etag());
    let mut answered = made.json();
    // Of the write alone: nothing is connected here.
    assert!(answered.as_object_mut().unwrap().remove("warnings").is_some());
    assert_eq!(read.json(), answered);
    let mut changed = rule("second");
    changed["enabled"] = json!(false);
    let put_once = put(&app, &id, Some(&read.etag()), &changed).await.expect(200);
    assert_eq!(
        (put_once.json()["version"].as_i64(), put_once.json()["name"].as_str()),
        (Some(2), Some("second"))
    );
    assert_ne!(put_once.etag(), read.etag());
    assert_eq!(
        app.get(app.a, &format!("/api/rules/{id}")).await.etag(),
        put_once.etag()
    );
    let stale = TestApp::send(
        app.request(Method::DELETE, &format!("/api/rules/{id}"))
            .bearer_auth(app.token(app.a, hookswitch::admin::Role::Owner))
            .header("if-match", read.etag()),
    )
    .await;
    assert_eq!(stale.status, 412);
    app.delete(app.a, &format!("/api/rules/{id}")).await.expect(204);
    app.delete(app.a, &format!("/api/rules/{id}")).await.expect(404);
    let audit = app.get(app.a, "/api/audit").await.json();
    let verbs: Vec<_> = audit["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["verb"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        verbs,
        ["delete", "update", "create", "create"],
        "newest first, the organisation itself at the end"
    );
    assert_eq!(audit["data"][1]["fields"], json!(["enabled", "name"]));
    assert_eq!(audit["data"][1]["actor"], "a person");
}

#[tokio::test]
async fn a_put_names_the_version_that_it_changes() {
    let app = TestApp::start().await;
    let one = app.post(app.a, "/api/rules", &rule("one")).await.expect(201);
    let other = app.post(app.a, "/api/rules", &rule("other")).await.expect(201);
    let (id, etag) = (one.json()["id"].as_str().unwrap().to_owned(), one.etag());
    let body = rule("changed");
    let table = [
        (None, 428, "precondition_required"),
        (Some(format!("W/{etag}")), 412, "precondition_failed"),
        (Some(format!("W/{etag}, \"x\"")), 412, "precondition_failed"),
        (Some("\"0-0\"".to_owned()), 412, "precondition_failed"),
        (Some(other.etag()), 412, "precondition_failed"),
        (Some(etag.trim_matches('"').to_owned()), 400, "if_match_invalid"),
        (Some(String::new()), 400, "if_match_invalid"),
    ];
    for (given, status, code) in table {
        let answer = put(&app, &id, given.as_deref(), &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{given:?}");
    }
    assert_eq!(app.get(app.a, &format!("/api/rules/{id}")).await.json()["name"], "one");
    // A list with the current tag, and `*` for any current version (RFC 9110, section 13.1.1).
    for given in [format!("\"x\", {etag}"), "*".to_owned()] {
        assert_eq!(put(&app, &id, Some(&given), &body).await.status, 200, "{given}");
    }
    for round in 0..3 {
        let etag = app.get(app.a, &format!("/api/rules/{id}")).await.etag();
        let bodies: Vec<_> = (0..20).map(|n| rule(&format!("round {round}, writer {n}"))).collect();
        let answers = futures_util::future::join_all(bodies.iter().map(|body| put(&app, &id, Some(&etag), body))).await;
        let won = answers.iter().filter(|answer| answer.status == 200).count();
        let lost = answers.iter().filter(|answer| answer.status == 412).count();
        assert_eq!((won, lost), (1, 19));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_rule_is_named() {
    let app = TestApp::start().await;
    let with = |name: &str, value: Value| {
        let mut rule = rule("one");
        rule[name] = value;
        rule
    };
    let table = [
        (with("when", json!("message.endedReason ==")), 422, "when"),
        (with("when", json!("nothing.there")), 422, "when"),
        (
            with("parameters", json!({ "to": "{{ message.", "body": "x" })),
            422,
            "parameters.to",
        ),
        (
            with("parameters", json!({ "to": "+15551234567" })),
            422,
            "parameters.body",
        ),
        (with("event_type", json!("")), 422, "event_type"),
        (with("expires_after_seconds", json!(1)), 422, "expires_after_seconds"),
        (with("name", json!("a\u{0}b")), 400, "name"),
        (with("name", json!("")), 400, "name"),
        (with("action", json!("shell.run")), 400, "action"),
        (with("source", json!("VAPI")), 400, "source"),
        (with("enabled", json!("yes")), 400, "enabled"),
        (with("parameters", json!([])), 400, "parameters"),
    ];
    for (body, status, field) in table {
        let answer = app.post(app.a, "/api/rules", &body).await;
        assert_eq!(
            (answer.status, answer.field().as_str()),
            (status, field),
            "{body} {answer:?}"
        );
    }
    assert_eq!(app.get(app.a, "/api/rules").await.json()["data"], json!([]));
}

#[tokio::test]
async fn fifty_rules_at_most_can_apply_to_one_type() {
    let app = TestApp::start().await;
    let with = |event_type: &str, enabled: bool| {
        let mut rule = rule("one");
        (rule["event_type"], rule["enabled"]) = (json!(event_type), json!(enabled));
        rule
    };
    for n in 0..50 {
        let glob = ["end-of-call-report", "end-*", "*"][n % 3];
        app.post(app.a, "/api/rules", &with(glob, true)).await.expect(201);
    }
    let full = app
        .post(app.a, "/api/rules", &with("end-of-call-report", true))
        .await
        .expect(409);
    assert_eq!(
        (full.code().as_str(), full.field().as_str()),
        ("limit_reached", "event_type")
    );
    app.post(app.a, "/api/rules", &with("*-report", true)).await.expect(409);
    let disabled = app
        .post(app.a, "/api/rules", &with("end-of-call-report", false))
        .await
        .expect(201);
    app.post(app.a, "/api/rules", &with("status-update", true))
        .await
        .expect(201);
    app.post(app.b, "/api/rules", &with("end-of-call-report", true))
        .await
        .expect(201);
    // Enabling one is as much as making one.
    let id = disabled.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        put(&app, &id, Some(&disabled.etag()), &with("end-of-call-report", true))
            .await
            .code(),
        "limit_reached"
    );
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_planned() {
    let app = TestApp::start().await;
    let sample = |reason: &str| json!({ "event_type": "end-of-call-report", "body": { "message": { "endedReason": reason, "customer": { "number": "+15551234567" } } } });
    let run = async |spec: Value, sample: Value| {
        app.post(app.a, "/api/rules/dry-run", &json!({ "spec": spec, "sample": sample }))
            .await
            .expect(200)
            .json()
    };
    let planned = run(rule("one"), sample("hangup")).await;
    assert_eq!(
        (&planned["outcome"], &planned["parameters"]["to"]),
        (&json!("planned"), &json!("+15551234567"))
    );
    assert_eq!(
        run(rule("one"), sample("customer-busy")).await,
        json!({ "outcome": "not_matched", "field": "when" })
    );
    let mut missing = sample("hangup");
    missing["body"]["message"].as_object_mut().unwrap().remove("customer");
    let failed = run(rule("one"), missing).await;
    assert_eq!(
        (&failed["outcome"], &failed["cause"]),
        (&json!("failed"), &json!("template_failed"))
    );
    let id = app.post(app.a, "/api/rules", &rule("one")).await.expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let stored = app
        .post(
            app.a,
            &format!("/api/rules/{id}/dry-run"),
            &json!({ "sample": sample("hangup") }),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(stored, planned);
    for body in [
        json!({ "spec": rule("x") }),
        json!({ "spec": rule("x"), "event_id": app.a, "sample": sample("x") }),
        json!({ "spec": rule("x"), "event_id": app.a }),
    ] {
        assert_eq!(
            app.post(app.a, "/api/rules/dry-run", &body).await.expect(400).field(),
            "event_id"
        );
    }
    assert_eq!(
        app.get(app.a, "/api/actions").await.json()["data"],
        json!([]),
        "nothing was planned"
    );
}

#[tokio::test]
async fn what_can_never_work_is_refused_on_save() {
    let app = TestApp::start().await;
    let sms = |to: &str| json!({ "to": to, "body": "x" });
    let calendar = |name: &str, value: &str| {
        let mut parameters = json!({ "summary": "x", "start": "{{ message.s }}", "end": "{{ message.e }}" });
        parameters[name] = json!(value);
        parameters
    };
    let mail = |name: &str, value: Value| {
        let mut parameters = json!({ "to": "{{ message.to }}", "subject": "x", "text": "x" });
        parameters[name] = value;
        parameters
    };
    let table = [
        ("twilio.send_sms", sms("+44 20 7946 0958"), Some("parameters.to")),
        ("twilio.send_sms", sms("hello"), Some("parameters.to")),
        ("twilio.send_sms", sms(""), Some("parameters.to")),
        ("twilio.send_sms", sms("+442079460958"), None),
        ("twilio.send_sms", sms("{{ message.customer.number }}"), None),
        (
            "twilio.send_sms",
            json!({ "to": "{{ message.to }}", "body": "x", "from": "{{ message.from }}" }),
            None,
        ),
        (
            "twilio.send_sms",
            json!({ "to": "{{ message.to }}", "body": " " }),
            Some("parameters.body"),
        ),
        (
            "google_calendar.create_event",
            calendar("time_zone", "America/Chicgo"),
            Some("parameters.time_zone"),
        ),
        (
            "google_calendar.create_event",
            calendar("time_zone", "America/Chicago"),
            None,
        ),
        (
            "google_calendar.create_event",
            calendar("time_zone", "{{ message.zone }}"),
            None,
        ),
        (
            "google_calendar.create_event",
            calendar("start", "tomorrow"),
            Some("parameters.start"),
        ),
        (
            "google_calendar.create_event",
            calendar("start", "2026-03-01T14:00:00+01:00"),
            None,
        ),
        (
            "google_calendar.create_event",
            calendar("end", "2026-03-01T14:00:00Z"),
            None,
        ),
        (
            "google_calendar.create_event",
            calendar("send_updates", "some"),
            Some("parameters.send_updates"),
        ),
        (
            "google_calendar.create_event",
            calendar("attendees", "ann"),
            Some("parameters.attendees"),
        ),
        ("resend.send_email", mail("to", json!("hello")), Some("parameters.to")),
        (
            "resend.send_email",
            mail("cc", json!(["a@b.example", "b"])),
            Some("parameters.cc"),
        ),
        (
            "resend.send_email",
            mail("cc", json!(["a@b.example", "{{ message.cc }}"])),
            None,
        ),
        (
            "http.post",
            json!({ "destination": "nope" }),
            Some("parameters.destination"),
        ),
        ("http.post", json!({ "destination": "{{ message.destination }}" }), None),
    ];
    for (number, (action, parameters, field)) in table.into_iter().enumerate() {
        let mut rule = rule(&format!("rule {number}"));
        (rule["action"], rule["parameters"]) = (json!(action), parameters);
        let answer = app.post(app.a, "/api/rules", &rule).await;
        match field {
            Some(field) => assert_eq!(
                (answer.status, answer.field().as_str()),
                (422, field),
                "{rule} {answer:?}"
            ),
            None => assert_eq!(answer.status, 201, "{rule} {answer:?}"),
        }
    }
    // All of them at once.
    let mut both = rule("both");
    both["parameters"] = json!({ "to": "hello", "body": "x", "from": "not a sender at all" });
    let refused = app.post(app.a, "/api/rules", &both).await.expect(422).json();
    let fields: Vec<_> = refused["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["field"])
        .collect();
    assert_eq!(fields, ["parameters.to", "parameters.from"]);
    let all_missing: [(&str, &[&str]); 4] = [
        ("twilio.send_sms", &["to", "body"]),
        ("http.post", &["destination"]),
        ("resend.send_email", &["to", "subject", "text"]),
        ("google_calendar.create_event", &["summary", "start", "end"]),
    ];
    for (action, missing) in all_missing {
        let mut empty = rule(" blanks at its ends ");
        (empty["action"], empty["parameters"]) = (json!(action), json!({}));
        let refused = app.post(app.a, "/api/rules", &empty).await.expect(422).json();
        let fields: Vec<_> = refused["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect();
        let expected: Vec<String> = std::iter::once("name".to_owned())
            .chain(missing.iter().map(|name| format!("parameters.{name}")))
            .collect();
        assert_eq!(fields, expected, "{action}");
    }
}

#[tokio::test]
async fn a_rules_type_is_taken_in_either_form_and_has_to_exist() {
    let app = TestApp::start().await;
    for (source, written, stored) in [
        ("vapi", "end-of-call-report", "end-of-call-report"),
        ("vapi", "vapi.end-of-call-report", "end-of-call-report"),
        (
            "vapi",
            "transcript[transcriptType=\"final\"]",
            "transcript_transcriptType__final__",
        ),
        ("vapi", "vapi.*", "*"),
        ("vapi", "end*", "end*"),
        ("twilio", "twilio.message-received", "message-received"),
    ] {
        let mut rule = rule(written);
        (rule["source"], rule["event_type"]) = (json!(source), json!(written));
        let made = app.post(app.a, "/api/rules", &rule).await.expect(201).json();
        assert_eq!(made["event_type"], stored, "{written}");
    }
    for (source, written, field) in [
        ("vapi", "end-of-call-repor", "event_type"),
        ("vapi", "twilio.message-received", "event_type"),
        ("vapi", "message-received", "event_type"),
        ("twilio", "end-of-call-report", "event_type"),
        ("resend", "email.sent", "source"),
        ("elevenlabs", "*", "source"),
    ] {
        let mut rule = rule(written);
        (rule["source"], rule["event_type"]) = (json!(source), json!(written));
        let refused = app.post(app.a, "/api/rules", &rule).await.expect(422);
        assert_eq!(refused.field(), field, "{written}");
        if written == "end-of-call-repor" {
            assert!(refused.text.contains("end-of-call-report"), "{refused:?}");
        }
    }
    let types = |kinds: Value| json!({ "source": "vapi", "name": "calls", "ignored_types": kinds });
    let made = app
        .post(app.a, "/api/endpoints", &types(json!(["vapi.speech-update", "hang"])))
        .await
        .expect(201);
    assert_eq!(made.json()["ignored_types"], json!(["speech-update", "hang"]));
    let refused = app
        .post(app.a, "/api/endpoints", &types(json!(["speech-updat"])))
        .await
        .expect(400);
    assert_eq!(refused.field(), "ignored_types");
}

#[tokio::test]
async fn a_rule_that_was_read_can_be_sent_back_and_a_patch_changes_what_it_names() {
    let app = TestApp::start().await;
    let made = app.post(app.a, "/api/rules", &rule("one")).await.expect(201).json();
    let path = format!("/api/rules/{}", made["id"].as_str().unwrap());
    let list = app.get(app.a, "/api/rules").await.expect(200).json();
    let mut item = list["data"][0].clone();
    item["name"] = json!("two");
    let etag = item["etag"].as_str().unwrap().to_owned();
    let changed = put(&app, made["id"].as_str().unwrap(), Some(&etag), &item)
        .await
        .expect(200)
        .json();
    assert_eq!((&changed["name"], &changed["version"]), (&json!("two"), &json!(2)));
    let patch = async |body: Value, etag: Option<&str>| {
        let request = app
            .request(Method::PATCH, &path)
            .bearer_auth(app.token(app.a, hookswitch::admin::Role::Owner));
        let request = match etag {
            Some(etag) => request.header("if-match", etag),
            None => request,
        };
        TestApp::send(request.json(&body)).await
    };
    let off = patch(json!({ "enabled": false }), None).await.expect(200);
    assert_eq!(
        (&off.json()["enabled"], &off.json()["name"]),
        (&json!(false), &json!("two"))
    );
    assert_eq!(
        patch(json!({ "enabled": true }), Some(&etag)).await.expect(412).code(),
        "precondition_failed"
    );
    let on = patch(json!({ "enabled": true, "when": null }), Some(&off.etag()))
        .await
        .expect(200)
        .json();
    assert_eq!((&on["enabled"], &on["when"]), (&json!(true), &Value::Null));
    assert_eq!(patch(json!({ "id": "x" }), None).await.expect(400).field(), "id");
    assert_eq!(patch(json!({ "name": null }), None).await.expect(400).field(), "name");
    assert_eq!(
        patch(json!({ "event_type": "no-such" }), None)
            .await
            .expect(422)
            .field(),
        "event_type"
    );
}

/// A rule of a kind that this release does not know: a rollback from a later release leaves such
/// rows.
#[tokio::test]
async fn a_damaged_rule_is_named_shown_and_deleted_beside_the_readable_ones() {
    use sqlx::Connection;
    let app = TestApp::start().await;
    let mut ids = Vec::new();
    for name in ["one", "damaged", "three"] {
        let made = app.post(app.a, "/api/rules", &rule(name)).await.expect(201).json();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    let mut connection = app.open_database().await;
    let done = sqlx::query(
        "UPDATE rules SET spec = replace(spec, 'twilio.send_sms', 'slack.post') WHERE spec LIKE '%damaged%'",
    );
    assert_eq!(done.execute(&mut connection).await.unwrap().rows_affected(), 1);
    connection.close().await.unwrap();

    for path in ["/api/rules", "/api/rules?limit=2"] {
        let list = app.get(app.a, path).await.expect(200).json();
        let names: Vec<_> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| &rule["name"])
            .collect();
        assert_eq!(names, ["one", "three"]);
        assert_eq!(
            (&list["damaged"][0]["id"], &list["next_cursor"]),
            (&json!(ids[1]), &Value::Null)
        );
        assert!(list["damaged"][0]["problem"].as_str().unwrap().contains("`spec`"));
    }
    let path = format!("/api/rules/{}", ids[1]);
    assert_eq!(app.get(app.a, &path).await.expect(200).json()["damaged"], true);
    // To another organisation it does not exist, and a rule is added all the same.
    app.get(app.b, &path).await.expect(404);
    assert_eq!(
        app.get(app.b, "/api/rules").await.expect(200).json()["damaged"],
        json!([])
    );
    app.delete(app.b, &path).await.expect(404);
    app.post(app.a, "/api/rules", &rule("four")).await.expect(201);
    app.delete(app.a, &path).await.expect(204);
    app.get(app.a, &path).await.expect(404);
    assert_eq!(
        app.get(app.a, "/api/rules").await.expect(200).json()["damaged"],
        json!([])
    );
}

/// A viewer tries a rule out, and a failure stands at its field.
#[tokio::test]
async fn a_dry_run_is_for_viewers_too_and_names_the_field_that_fails() {
    let app = TestApp::start().await;
    let mut spec = rule("try");
    spec.as_object_mut().unwrap().remove("when");
    spec["parameters"]["body"] = "{{ message.customer.name.first }}".into();
    let body = json!({
        "spec": spec,
        "sample": {
            "event_type": "end-of-call-report",
            "body": { "message": { "customer": { "number": "+12025550199" } } },
        },
    });
    let viewer = hookswitch::admin::Role::Viewer;
    let ran = app
        .call_as(app.a, viewer, Method::POST, "/api/rules/dry-run", Some(&body))
        .await
        .expect(200)
        .json();
    assert_eq!(ran["outcome"], "failed", "{ran}");
    assert_eq!(ran["errors"][0]["field"], "parameters.body", "{ran}");
    app.call_as(app.a, viewer, Method::POST, "/api/rules", Some(&rule("try")))
        .await
        .expect(403);
}

#[tokio::test]
async fn a_rule_of_a_provider_that_is_not_connected_is_stored_with_a_warning() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let spec = rule("text");
    let body = json!({ "message": { "endedReason": "x", "customer": { "number": "+12025550199" } } });
    let sample = json!({ "event_type": "end-of-call-report", "body": body });
    let warned = json!([{
        "field": "action", "problem": "Twilio is not connected: actions of this rule wait until it is",
    }]);
    let made = app.post(app.a, "/api/rules", &spec).await.expect(201).json();
    assert_eq!(made["warnings"], warned);
    let path = format!("/api/rules/{}", made["id"].as_str().unwrap());
    let read = app.get(app.a, &path).await.expect(200);
    assert!(read.json().get("warnings").is_none(), "of the write alone");
    let changed = app
        .call(app.a, Method::PATCH, &path, Some(&json!({ "enabled": false })))
        .await;
    assert_eq!(changed.expect(200).json()["warnings"], warned);
    let try_out = async || {
        let body = json!({ "sample": sample });
        app.post(app.a, &format!("{path}/dry-run"), &body)
            .await
            .expect(200)
            .json()["warnings"]
            .clone()
    };
    assert_eq!(try_out().await, warned);
    app.connect_twilio(app.b).await;
    assert_eq!(try_out().await, warned, "another organisation's connection");
    app.connect_twilio(app.a).await;
    assert_eq!(try_out().await, json!([]));
    let mut back = made;
    back["name"] = json!("texts");
    let tag = app.get(app.a, &path).await.etag();
    let request = app
        .request(Method::PUT, &path)
        .bearer_auth(app.token(app.a, hookswitch::admin::Role::Admin));
    let stored = TestApp::send(request.header("if-match", tag).json(&back))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&stored["name"], stored.get("warnings")),
        (&json!("texts"), None),
        "an answer can be sent back"
    );
}
