//! Rules: checked on save, changed by one writer at a time, tried without doing anything.

use super::{Api, rule};
use reqwest::Method;
use serde_json::{Value, json};

async fn put(api: &Api, id: &str, etag: Option<&str>, body: &Value) -> super::Answer {
    let mut request = api
        .request(Method::PUT, &format!("/api/rules/{id}"))
        .bearer_auth(api.token(api.a, hookswitch::admin::Role::Member))
        .json(body);
    if let Some(etag) = etag {
        request = request.header("if-match", etag);
    }
    Api::send(request).await
}

#[tokio::test]
async fn a_rule_is_made_read_changed_and_deleted() {
    let api = Api::start().await;
    let made = api.post(api.a, "/api/rules", &rule("first")).await.expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.headers["location"], format!("/api/rules/{id}"));
    let read = api.get(api.a, &format!("/api/rules/{id}")).await.expect(200);
    assert_eq!(read.etag(), made.etag());
    assert_eq!(read.json(), made.json());
    let mut changed = rule("second");
    changed["enabled"] = json!(false);
    let put_once = put(&api, &id, Some(&read.etag()), &changed).await.expect(200);
    assert_eq!(
        (put_once.json()["version"].as_i64(), put_once.json()["name"].as_str()),
        (Some(2), Some("second"))
    );
    assert_ne!(put_once.etag(), read.etag());
    assert_eq!(
        api.get(api.a, &format!("/api/rules/{id}")).await.etag(),
        put_once.etag()
    );
    let stale = Api::send(
        api.request(Method::DELETE, &format!("/api/rules/{id}"))
            .bearer_auth(api.token(api.a, hookswitch::admin::Role::Owner))
            .header("if-match", read.etag()),
    )
    .await;
    assert_eq!(stale.status, 412);
    api.delete(api.a, &format!("/api/rules/{id}")).await.expect(204);
    api.delete(api.a, &format!("/api/rules/{id}")).await.expect(404);
    let audit = api.get(api.a, "/api/audit").await.json();
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
    assert_eq!(audit["data"][1]["fields"], json!(["name", "enabled"]));
    assert_eq!(audit["data"][1]["actor"], "a person");
}

#[tokio::test]
async fn a_put_names_the_version_that_it_changes() {
    let api = Api::start().await;
    let one = api.post(api.a, "/api/rules", &rule("one")).await.expect(201);
    let other = api.post(api.a, "/api/rules", &rule("other")).await.expect(201);
    let (id, etag) = (one.json()["id"].as_str().unwrap().to_owned(), one.etag());
    let body = rule("changed");
    let table = [
        (None, 428, "precondition_required"),
        (Some("*".to_owned()), 412, "precondition_failed"),
        (Some(format!("W/{etag}")), 412, "precondition_failed"),
        (Some(format!("{etag}, \"x\"")), 412, "precondition_failed"),
        (Some("\"0-0\"".to_owned()), 412, "precondition_failed"),
        (Some(other.etag()), 412, "precondition_failed"),
        (Some(etag.trim_matches('"').to_owned()), 400, "if_match_invalid"),
        (Some(String::new()), 400, "if_match_invalid"),
    ];
    for (given, status, code) in table {
        let answer = put(&api, &id, given.as_deref(), &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{given:?}");
    }
    assert_eq!(api.get(api.a, &format!("/api/rules/{id}")).await.json()["name"], "one");
    for round in 0..3 {
        let etag = api.get(api.a, &format!("/api/rules/{id}")).await.etag();
        let bodies: Vec<_> = (0..20).map(|n| rule(&format!("round {round}, writer {n}"))).collect();
        let answers = futures_util::future::join_all(bodies.iter().map(|body| put(&api, &id, Some(&etag), body))).await;
        let won = answers.iter().filter(|answer| answer.status == 200).count();
        let lost = answers.iter().filter(|answer| answer.status == 412).count();
        assert_eq!((won, lost), (1, 19));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_rule_is_named() {
    let api = Api::start().await;
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
        let answer = api.post(api.a, "/api/rules", &body).await;
        assert_eq!(
            (answer.status, answer.field().as_str()),
            (status, field),
            "{body} {answer:?}"
        );
    }
    assert_eq!(api.get(api.a, "/api/rules").await.json()["data"], json!([]));
}

#[tokio::test]
async fn fifty_rules_at_most_can_apply_to_one_type() {
    let api = Api::start().await;
    let with = |event_type: &str, enabled: bool| {
        let mut rule = rule("one");
        (rule["event_type"], rule["enabled"]) = (json!(event_type), json!(enabled));
        rule
    };
    for n in 0..50 {
        let glob = ["end-of-call-report", "end-*", "*"][n % 3];
        api.post(api.a, "/api/rules", &with(glob, true)).await.expect(201);
    }
    let full = api
        .post(api.a, "/api/rules", &with("end-of-call-report", true))
        .await
        .expect(409);
    assert_eq!(
        (full.code().as_str(), full.field().as_str()),
        ("limit_reached", "event_type")
    );
    api.post(api.a, "/api/rules", &with("*-report", true)).await.expect(409);
    let disabled = api
        .post(api.a, "/api/rules", &with("end-of-call-report", false))
        .await
        .expect(201);
    api.post(api.a, "/api/rules", &with("status-update", true))
        .await
        .expect(201);
    api.post(api.b, "/api/rules", &with("end-of-call-report", true))
        .await
        .expect(201);
    // Enabling one is as much as making one.
    let id = disabled.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        put(&api, &id, Some(&disabled.etag()), &with("end-of-call-report", true))
            .await
            .code(),
        "limit_reached"
    );
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_planned() {
    let api = Api::start().await;
    let sample = |reason: &str| json!({ "event_type": "end-of-call-report", "body": { "message": { "endedReason": reason, "customer": { "number": "+15551234567" } } } });
    let run = async |spec: Value, sample: Value| {
        api.post(api.a, "/api/rules/dry-run", &json!({ "spec": spec, "sample": sample }))
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
    let id = api.post(api.a, "/api/rules", &rule("one")).await.expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let stored = api
        .post(
            api.a,
            &format!("/api/rules/{id}/dry-run"),
            &json!({ "sample": sample("hangup") }),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(stored, planned);
    for body in [
        json!({ "spec": rule("x") }),
        json!({ "spec": rule("x"), "event_id": api.a, "sample": sample("x") }),
        json!({ "spec": rule("x"), "event_id": api.a }),
    ] {
        assert_eq!(
            api.post(api.a, "/api/rules/dry-run", &body).await.expect(400).field(),
            "event_id"
        );
    }
    assert_eq!(
        api.get(api.a, "/api/actions").await.json()["data"],
        json!([]),
        "nothing was planned"
    );
}
