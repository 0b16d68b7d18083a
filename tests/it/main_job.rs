//! The whole way, from a signed webhook to the SMS, through the binary that a newcomer starts.

use crate::support::{
    dev::{Dev, Directory, port_base, run},
    hooks, until,
};
use hookswitch::cli::{
    dev_state::DevState,
    samples::{SAMPLES, Sample},
    send::Sender,
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_newcomers_two_commands_send_an_sms() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    for name in [
        "ingress",
        "admin",
        "operations",
        "sandbox",
        "admin_token",
        "operator_token",
        "org_id",
        "assistant_id",
        "phone_number",
        "vapi_secret",
        "twilio_account_sid",
        "twilio_auth_token",
    ] {
        assert!(!dev.get(name).is_empty(), "{name}");
    }
    let sent = run(
        &[
            "send",
            "vapi/end-of-call-report",
            "--data-dir",
            directory.path().to_str().expect("UTF-8"),
        ],
        &[],
    );
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert!(String::from_utf8_lossy(&sent.stdout).contains("200"));

    let sms = dev.wait_for_sms(1).await;
    assert_eq!(sms[0]["form"]["From"], dev.get("phone_number"));
    assert!(sms[0]["form"]["To"].as_str().is_some_and(|to| to.starts_with("+1555")));
    let posts = until("the post to my URL", || async {
        Some(dev.requests("http").await).filter(|posts| !posts.is_empty())
    })
    .await;
    for header in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert!(posts[0]["headers"][header].is_string(), "{header}");
    }
    let actions = until("both actions to succeed", || async {
        let actions = dev.admin("/api/actions").await;
        let all = actions["data"].as_array().expect("a list").clone();
        Some(all).filter(|all| all.len() == 2 && all.iter().all(|action| action["state"] == "succeeded"))
    })
    .await;
    assert!(actions.iter().any(|action| action["action"] == "twilio.send_sms"));
}

#[tokio::test]
async fn same_event_fifty_times_at_once_sends_one_sms() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let body = hooks::end_of_call(&hooks::call_id(), &dev.get("assistant_id"));
    let answers = futures_util::future::join_all((0..50).map(|_| hooks::post(&dev, body.clone()))).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    // A second call's SMS comes behind the first's in log order: when it is there, the first's
    // duplicates have been planned.
    assert_eq!(
        hooks::post(&dev, hooks::end_of_call(&hooks::call_id(), &dev.get("assistant_id"))).await,
        200
    );
    assert_eq!(dev.wait_for_sms(2).await.len(), 2);
    let events = dev.admin("/api/events").await;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn status_update_tool_calls_and_report_of_one_call_are_three_events() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let (call, assistant) = (hooks::call_id(), dev.get("assistant_id"));
    let tool_calls = json!({
        "toolCallList": [{ "id": "call_1", "type": "function", "function": {
            "name": "book",
            "arguments": "{\"day\":\"Monday\"}",
        } }],
    });
    for body in [
        hooks::vapi("status-update", &call, &assistant, &json!({ "status": "in-progress" })),
        hooks::vapi("tool-calls", &call, &assistant, &tool_calls),
        hooks::end_of_call(&call, &assistant),
    ] {
        assert_eq!(hooks::post(&dev, body).await, 200);
    }
    let events = until("three events", || async {
        let events = dev.admin("/api/events").await;
        Some(events["data"].as_array().expect("a list").clone()).filter(|events| events.len() >= 3)
    })
    .await;
    let mut types: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    types.sort_unstable();
    assert_eq!(
        types,
        ["vapi.end-of-call-report", "vapi.status-update", "vapi.tool-calls"]
    );
}

#[tokio::test]
async fn a_rule_whose_template_fails_is_dead_with_a_reason_and_the_others_go_on() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let rule = json!({
        "name": "Names a field that is not \
        there", "source": "vapi", "event_type": "end-of-call-report", "action": "twilio.send_sms",
        "parameters": { "to": "{{ message.nobody.number }}", "body": "hello" },
    });
    let (status, answer) = dev.admin_post("/api/rules", &rule).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(
        hooks::post(&dev, hooks::end_of_call(&hooks::call_id(), &dev.get("assistant_id"))).await,
        200
    );
    dev.wait_for_sms(1).await;
    let dead = until("the dead action", || async {
        let actions = dev.admin("/api/actions?state=dead").await;
        actions["data"].as_array().and_then(|all| all.first().cloned())
    })
    .await;
    assert_eq!(dead["cause"], "template_failed");
    assert!(
        dead["detail"].as_str().is_some_and(|detail| detail.contains("to")),
        "{dead}"
    );
}

/// A number beyond all floats and half a surrogate pair, where no rule reads them: every rule runs,
/// and the secrets beside them stay masked.
#[tokio::test]
async fn an_odd_value_costs_itself_and_unmasks_nothing() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let rule = json!({
        "name": "The whole event", "source": "vapi", "event_type": "*", "action": "http.post",
        "parameters": { "destination": "demo" },
    });
    let (status, answer) = dev.admin_post("/api/rules", &rule).await;
    assert_eq!(status, 201, "{answer}");
    let more = json!({
        "endedReason": "customer-ended-call",
        "customer": { "number": "+15552010188" },
        "assistant": { "server": { "url": "https://a.example", "secret": "CANARY-ONE" } },
        "phoneNumber": { "twilioAuthToken": "CANARY-TWO" },
        "transcript": "bye CUT",
        "costBreakdown": { "total": "HUGE" },
    });
    let call = hooks::call_id();
    let body = hooks::vapi("end-of-call-report", &call, &dev.get("assistant_id"), &more);
    let body = String::from_utf8(body)
        .expect("UTF-8")
        .replace("bye CUT", "bye \\ud83d")
        .replace("\"HUGE\"", "1e400");
    assert!(body.contains("1e400") && body.contains("\\ud83d\""), "{body}");
    assert_eq!(hooks::post(&dev, body.into_bytes()).await, 200);
    dev.wait_for_sms(1).await;
    let post = until("the post of the whole event", || async {
        let posts = dev.requests("http").await;
        posts
            .into_iter()
            .find(|post| post["json"]["data"].get("call_id").is_none())
    })
    .await;
    let event = dev.admin("/api/events").await["data"][0]["id"].clone();
    let event = dev
        .admin(&format!("/api/events/{}", event.as_str().expect("an id")))
        .await;
    for shown in [&post["json"]["data"], &event["body"]] {
        assert!(!shown.to_string().contains("CANARY"), "{shown}");
        assert_eq!(shown["message"]["call"]["id"], call, "{shown}");
        assert_eq!(shown["message"]["transcript"], "bye \u{fffd}");
        assert_eq!(shown["message"]["costBreakdown"]["total"].as_f64(), Some(f64::MAX));
        assert_eq!(shown["message"]["phoneNumber"]["twilioAuthToken"], "[masked]");
    }
}

#[tokio::test]
async fn what_dev_prints_is_the_same_after_a_restart_and_sigterm_drains() {
    let directory = Directory::new();
    let base = port_base();
    let mut dev = Dev::start(directory.path(), base, &[]).await;
    let mut before = dev.state.clone();
    let (status, took) = dev.process.terminate();
    assert!(status.success(), "{status}: {}", dev.process.stderr());
    assert!(took.as_secs() < 10, "{took:?}");
    let dev = Dev::start(directory.path(), base, &[]).await;
    assert_ne!(dev.get("sign_in"), before["sign_in"], "a link is of one start");
    before["sign_in"] = dev.state["sign_in"].clone();
    assert_eq!(dev.state, before);
    assert_eq!(
        hooks::post(&dev, hooks::end_of_call(&hooks::call_id(), &dev.get("assistant_id"))).await,
        200
    );
    dev.wait_for_sms(1).await;
}

#[tokio::test]
async fn a_port_in_use_and_a_bad_setting_are_told_without_a_stack_trace() {
    let directory = Directory::new();
    let base = port_base();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", base)).expect("it was free");
    let arguments = [
        "dev",
        "--data-dir",
        directory.path().to_str().expect("UTF-8"),
        "--port-base",
        &base.to_string(),
    ];
    let backtrace = ("RUST_BACKTRACE", "1");
    let check = |environment: &[(&str, &str)], expected: &[&str]| {
        let output = run(&arguments, environment);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        for text in expected {
            assert!(message.contains(text), "expected {text:?} in: {message}");
        }
        assert!(
            !message.contains("stack backtrace") && !message.contains("panicked"),
            "{message}"
        );
    };
    check(&[backtrace], &[&base.to_string(), "in use", "--port-base"]);
    check(
        &[
            backtrace,
            ("HOOKSWITCH_BODY_BYTES_MAX", "plenty"),
            ("HOOKSWITCH_BODY_BYTE_MAX", "1"),
        ],
        &[
            "HOOKSWITCH_BODY_BYTES_MAX",
            "whole number",
            "HOOKSWITCH_BODY_BYTE_MAX",
            "nearest",
        ],
    );
}

#[tokio::test]
async fn serve_refuses_to_start_without_a_key_and_says_how_to_make_one() {
    for (key, expected) in [(None, "HOOKSWITCH_KEYRING"), (Some("too short"), "64 hex")] {
        let environment: Vec<(&str, &str)> = key.map(|key| ("ENCRYPTION_KEY", key)).into_iter().collect();
        let output = run(&["serve"], &environment);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(message.contains(expected), "{message}");
        assert!(
            key.is_none_or(|key| !message.contains(key)),
            "the key itself is message: {message}"
        );
    }
}

#[tokio::test]
async fn actions_never_use_a_credential_from_the_environment() {
    let directory = Directory::new();
    let planted = [
        ("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000000"),
        ("TWILIO_AUTH_TOKEN", "planted-in-the-environment"),
        ("VAPI_API_KEY", "planted-too"),
    ];
    let dev = Dev::start_with(directory.path(), port_base(), &[], &planted).await;
    let erased = crate::support::client()
        .delete(format!("{}/api/integrations/twilio", dev.get("admin")))
        .bearer_auth(dev.get("admin_token"))
        .send()
        .await;
    assert_eq!(erased.expect("the admin API answers").status(), 204);
    assert_eq!(
        hooks::post(&dev, hooks::end_of_call(&hooks::call_id(), &dev.get("assistant_id"))).await,
        200
    );
    let parked: Value = until("a parked action", || async {
        let actions = dev.admin("/api/actions?state=parked").await;
        actions["data"].as_array().and_then(|all| all.first().cloned())
    })
    .await;
    assert_eq!(parked["cause"], "not_connected");
    assert!(dev.sms().await.is_empty());
}

#[tokio::test]
async fn every_sample_gets_through_on_a_fresh_dev() {
    let directory = Directory::new();
    let _dev = Dev::start(directory.path(), port_base(), &[]).await;
    let state = DevState::load_started(directory.path()).expect("dev.json");
    let sender = Sender::new(&state, None).expect("good settings");
    for sample in SAMPLES {
        let answer = sender.send(sample).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}: {}", sample.name, answer.body);
    }
}

#[tokio::test]
async fn a_second_dev_on_a_directory_in_use_is_refused_and_changes_nothing() {
    let directory = Directory::new();
    let _first = Dev::start(directory.path(), port_base(), &[]).await;
    let file = directory.path().join("dev.json");
    let before = std::fs::read_to_string(&file).expect("dev.json");
    let base = port_base().to_string();
    let path = directory.path().to_str().expect("UTF-8");
    let second = run(&["dev", "--data-dir", path, "--port-base", &base], &[]);
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && message.contains("in use"), "{message}");
    assert_eq!(std::fs::read_to_string(&file).expect("dev.json"), before);
}

/// The dev key belongs to the database: one of another directory opens nothing in it.
#[tokio::test]
async fn a_dev_with_the_key_of_another_directory_is_refused_before_it_starts() {
    let (ours, other) = (Directory::new(), Directory::new());
    let mut first = Dev::start(ours.path(), port_base(), &[]).await;
    assert!(first.process.terminate().0.success());
    let base = port_base().to_string();
    let database = format!("sqlite:{}", ours.path().join("store.db").display());
    let foreign = run(
        &[
            "dev",
            "--data-dir",
            other.path().to_str().expect("UTF-8"),
            "--port-base",
            &base,
        ],
        &[("HOOKSWITCH_DATABASE_URL", &database)],
    );
    let message = String::from_utf8_lossy(&foreign.stderr).into_owned();
    assert!(!foreign.status.success(), "{message}");
    assert!(
        message.contains("belongs to another database") && message.contains("directory"),
        "{message}"
    );
    assert!(
        !other.path().join("dev.json").exists(),
        "a refused start writes no dev.json"
    );
}

/// From the answer to the attempt, each line of the log carries the event's id.
#[tokio::test]
async fn one_event_can_be_followed_from_its_answer_to_its_attempt() {
    let directory = Directory::new();
    let environment = [
        ("HOOKSWITCH_LOG_LEVEL", "warn,hookswitch=debug"),
        ("HOOKSWITCH_LOG_FORMAT", "json"),
    ];
    let mut dev = Dev::start_with(directory.path(), port_base(), &[], &environment).await;
    let state = DevState::load_started(directory.path()).expect("dev.json");
    let answer = Sender::new(&state, None)
        .expect("good settings")
        .send(Sample::find("vapi/end-of-call-report").expect("a sample"))
        .await
        .expect("an answer");
    let id = answer.request_id.expect("an id");
    dev.wait_for_sms(1).await;
    until("both actions to succeed", || async {
        let actions = dev.admin("/api/actions?state=succeeded").await;
        (actions["data"].as_array().map(Vec::len) == Some(2)).then_some(())
    })
    .await;
    let event = dev.admin(&format!("/api/events/{id}")).await;
    assert_eq!(event["id"], id.as_str());
    assert!(dev.process.terminate().0.success());
    let log = dev.process.stderr();
    for word in ["is received", "is planned", "was attempted"] {
        let line = log.lines().find(|line| line.contains(word) && line.contains(&id));
        assert!(line.is_some(), "no line {word:?} names {id}: {log}");
    }
    // Every line inside of a span says what it is about, whatever its own words are.
    let spans: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .flat_map(|line| line["spans"].as_array().cloned().unwrap_or_default())
        .collect();
    let attempt = spans
        .iter()
        .find(|span| span["name"] == "action.attempt" && span["event.id"] == id.as_str());
    let attempt = attempt.unwrap_or_else(|| panic!("no line in a span of an attempt at {id}: {log}"));
    for field in ["org.id", "action.id", "subject"] {
        assert!(attempt[field].is_string(), "{attempt}");
    }
}

/// A replay goes the whole way again. An action that has succeeded does not happen again, unless a
/// person asks for exactly that.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_replayed_acts_again_only_where_it_has_not_succeeded() {
    let directory = Directory::new();
    let mut dev = Dev::start(directory.path(), port_base(), &[]).await;
    let state = DevState::load_started(directory.path()).expect("dev.json");
    let sender = Sender::new(&state, None).expect("good settings");
    let sample = Sample::find("vapi/end-of-call-report").expect("a sample");
    let id = sender.send(sample).await.expect("an answer").request_id.expect("an id");
    dev.wait_for_sms(1).await;
    let actions = format!("/api/actions?event_id={id}");
    let count_of = async |series: u64| {
        let rows = dev.admin(&actions).await["data"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let is_of = |row: &&Value| row["series"] == series && row["state"] == "succeeded";
        rows.iter().filter(is_of).count()
    };
    until("both actions to succeed", || async {
        (count_of(0).await == 2).then_some(())
    })
    .await;
    assert_eq!(dev.admin(&format!("/api/events/{id}")).await["can"], json!(["replay"]));
    // A rule that came later runs; the two that have succeeded do not.
    let rules = dev.admin("/api/rules").await;
    let mut rule = rules["data"][0].clone();
    let fields = rule.as_object_mut().expect("a rule");
    for given in ["id", "version", "created_at", "updated_at", "etag"] {
        fields.remove(given);
    }
    fields.insert("name".into(), json!("written afterwards"));
    assert_eq!(dev.admin_post("/api/rules", &rule).await.0, 201);
    let replay = format!("/api/events/{id}/replay");
    let answer = dev.admin_post(&replay, &json!({})).await;
    let expected = json!({ "id": id, "state": "held", "cause": "replay", "series": 1 });
    assert_eq!(answer, (202, expected));
    until("the later rule's action", || async {
        (count_of(1).await == 1).then_some(())
    })
    .await;
    let answer = dev.admin_post(&replay, &json!({ "force": true })).await;
    assert_eq!(answer.1["series"], 2);
    until("all three actions", || async { (count_of(2).await == 3).then_some(()) }).await;
    assert_eq!((count_of(0).await, count_of(1).await), (2, 1));
    let audit = dev.admin("/api/audit").await;
    let replays = audit["data"].as_array().expect("rows").iter();
    let fields: Vec<&Value> = replays
        .filter(|row| row["verb"] == "replay")
        .map(|row| &row["fields"])
        .collect();
    assert_eq!(fields, [&json!(["force"]), &json!([])]);
    assert!(dev.process.terminate().0.success());
}
