//! The stand-ins: each of Twilio's codes, shapes held against the official descriptions, faults,
//! callbacks, limits.

mod faults;

use crate::outside::*;
use hookswitch::{
    domain::Provider,
    sandbox::{
        AccountKind, AccountStatus, Accounts, Content, SandboxConfig, VapiAssistant, VapiOrganisation, VapiPhoneNumber,
        description,
    },
};
use serde_json::{Value, json};

fn conforms(provider: Provider, operation: &str, body: &Value) {
    let faults = description::of(provider)
        .expect("described")
        .check_answer(operation, body);
    assert_eq!(faults, Vec::<String>::new(), "{operation} answered {body}");
}

#[tokio::test]
async fn every_refusal_has_twilios_status_and_code() {
    let sandbox = sandbox().await;
    let mut account = account();
    account.opted_out = vec!["+12025550122".to_owned()];
    sandbox.state.register(Accounts {
        accounts: vec![account],
        ..Accounts::default()
    });
    let long = "a".repeat(1601);
    for (form, status, code) in [
        (vec![("From", FROM), ("Body", "x")], 400, 21604),
        (vec![("To", ""), ("From", FROM), ("Body", "x")], 400, 21604),
        (vec![("To", "12025550111"), ("From", FROM), ("Body", "x")], 400, 21211),
        (vec![("To", "+1202"), ("From", FROM), ("Body", "x")], 400, 21211),
        (vec![("To", "+15005550001"), ("From", FROM), ("Body", "x")], 400, 21211),
        (vec![("To", FROM), ("From", FROM), ("Body", "x")], 400, 21211),
        (vec![("To", TO), ("Body", "x")], 400, 21603),
        (vec![("To", TO), ("From", "+12025550199"), ("Body", "x")], 400, 21606),
        (
            vec![
                ("To", TO),
                ("MessagingServiceSid", "MG00000000000000000000000000000009"),
                ("Body", "x"),
            ],
            400,
            21701,
        ),
        (vec![("To", TO), ("From", FROM)], 400, 21602),
        (vec![("To", TO), ("From", FROM), ("Body", &long)], 400, 21617),
        (vec![("To", "+12025550122"), ("From", FROM), ("Body", "x")], 400, 21610),
        (vec![("To", "+15005550003"), ("From", FROM), ("Body", "x")], 400, 21408),
        (vec![("To", "+15005550007"), ("From", FROM), ("Body", "x")], 400, 21612),
        (vec![("To", "+15005550009"), ("From", FROM), ("Body", "x")], 400, 21614),
        (
            vec![("To", TO), ("From", FROM), ("Body", "x"), ("Colour", "red")],
            400,
            20001,
        ),
        (
            vec![("To", TO), ("From", FROM), ("Body", "x"), ("ValidityPeriod", "soon")],
            400,
            20001,
        ),
    ] {
        let (got, body) = sandbox.post_message(&form).await;
        assert_eq!(
            (got, body["code"].as_u64(), body["status"].as_u64()),
            (status, Some(code), Some(status.into())),
            "{form:?}: {body}"
        );
        assert_eq!(body["more_info"], format!("https://www.twilio.com/docs/errors/{code}"));
        assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    assert_eq!(sandbox.state.messages(), [], "nothing was accepted");
    let operations: Vec<_> = sandbox
        .state
        .violations()
        .into_iter()
        .map(|violation| (violation.operation, violation.faults))
        .collect();
    assert_eq!(
        operations,
        [
            ("CreateMessage", vec!["Colour: not in the description".to_owned()]),
            (
                "CreateMessage",
                vec!["ValidityPeriod: not of type \"integer\"".to_owned()]
            )
        ]
    );
}

#[tokio::test]
async fn credentials_are_checked_as_twilio_checks_them() {
    let sandbox = sandbox().await;
    let form = [("To", TO), ("From", FROM), ("Body", "x")];
    for (user, password, status, code) in [
        (SID, "wrong", 401, 20003),
        (SID, "", 401, 20003),
        ("AC00000000000000000000000000000000", TOKEN, 401, 20003),
        (OTHER_SID, TOKEN, 401, 20003),
        // A good credential of another account: the resource is not there for it.
        (OTHER_SID, "other-token", 404, 20404),
    ] {
        let (got, body) = sandbox.post_message_as(user, password, &form).await;
        assert_eq!((got, body["code"].as_u64()), (status, Some(code)), "{user}");
    }
    let unauthenticated = sandbox
        .client
        .get(format!("{}/2010-04-01/Accounts/{SID}.json", sandbox.base))
        .send()
        .await
        .expect("an answer");
    assert_eq!(unauthenticated.status(), 401);
    for n in 1..=3 {
        assert_eq!(
            sandbox
                .post_message_as(&format!("SK{n:032}"), &format!("key-secret-{n}"), &form)
                .await
                .0,
            201,
            "key {n} may send"
        );
    }
    assert_eq!(
        sandbox
            .get(&format!(
                "/2010-04-01/Accounts/{SID}/Messages/SM00000000000000000000000000000000.json"
            ))
            .await
            .1["code"],
        20404
    );
    assert_eq!(
        sandbox.get(&format!("/2010-04-01/Accounts/{SID}/Nothing.json")).await.0,
        404
    );
}

#[tokio::test]
async fn a_trial_account_sends_to_verified_numbers_only_and_a_suspended_one_to_none() {
    let mut trial = account();
    trial.kind = AccountKind::Trial;
    trial.verified = vec![TO.to_owned()];
    let sandbox = sandbox_with(SandboxConfig {
        accounts: Accounts {
            accounts: vec![trial.clone()],
            ..Accounts::default()
        },
        ..SandboxConfig::default()
    })
    .await;
    assert_eq!(
        sandbox
            .post_message(&[("To", TO), ("From", FROM), ("Body", "x")])
            .await
            .0,
        201
    );
    let (status, body) = sandbox
        .post_message(&[("To", "+12025550177"), ("From", FROM), ("Body", "x")])
        .await;
    assert_eq!((status, body["code"].as_u64()), (400, Some(21608)));
    trial.status = AccountStatus::Suspended;
    sandbox.state.register(Accounts {
        accounts: vec![trial],
        ..Accounts::default()
    });
    let (status, body) = sandbox.post_message(&[("To", TO), ("From", FROM), ("Body", "x")]).await;
    assert_eq!((status, body["code"].as_u64()), (403, Some(20003)));
    let (status, body) = sandbox.get(&format!("/2010-04-01/Accounts/{SID}.json")).await;
    assert_eq!((status, body["status"].as_str()), (200, Some("suspended")));
}

#[tokio::test]
async fn answers_have_the_official_shapes() {
    let organisation = VapiOrganisation {
        api_key: "vapi-key".to_owned(),
        assistants: vec![VapiAssistant {
            id: "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be001".to_owned(),
            name: Some("A".to_owned()),
        }],
        phone_numbers: vec![
            VapiPhoneNumber {
                id: "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be002".to_owned(),
                number: FROM.to_owned(),
                twilio_account_sid: Some(account().sid),
                sms_enabled: Some(true),
            },
            VapiPhoneNumber {
                id: "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be003".to_owned(),
                number: TO.to_owned(),
                twilio_account_sid: None,
                sms_enabled: None,
            },
        ],
    };
    let sandbox = sandbox_with(SandboxConfig {
        accounts: Accounts {
            accounts: vec![account()],
            vapi: vec![organisation],
            ..Accounts::default()
        },
        ..SandboxConfig::default()
    })
    .await;
    let (status, created) = sandbox
        .post_message(&[("To", TO), ("From", FROM), ("Body", "Grüße 👍")])
        .await;
    assert_eq!(
        (status, created["status"].as_str(), created["num_segments"].as_str()),
        (201, Some("queued"), Some("1"))
    );
    conforms(Provider::Twilio, "CreateMessage", &created);
    let service = format!("MG{:032}", 1);
    let (_, accepted) = sandbox
        .post_message(&[
            ("To", TO),
            ("MessagingServiceSid", &service),
            ("Body", "x"),
            ("MediaUrl", "https://a.example/1"),
        ])
        .await;
    assert_eq!(
        (
            accepted["status"].as_str(),
            accepted["from"].is_null(),
            accepted["num_media"].as_str()
        ),
        (Some("accepted"), true, Some("1"))
    );
    conforms(Provider::Twilio, "CreateMessage", &accepted);
    let root = format!("/2010-04-01/Accounts/{SID}");
    for (path, operation) in [
        (format!("{root}.json"), "FetchAccount"),
        (format!("{root}/Messages.json"), "ListMessage"),
        (
            format!("{root}/Messages.json?To=%2B12025550111&PageSize=1"),
            "ListMessage",
        ),
        (
            format!("{root}/Messages/{}.json", created["sid"].as_str().expect("a sid")),
            "FetchMessage",
        ),
        (
            format!("{root}/IncomingPhoneNumbers.json?PhoneNumber=%2B12025550100"),
            "ListIncomingPhoneNumber",
        ),
    ] {
        let (status, body) = sandbox.get(&path).await;
        assert_eq!(status, 200, "{path}");
        conforms(Provider::Twilio, operation, &body);
    }
    for (path, operation) in [
        ("/assistant?limit=1", "AssistantController_findAll"),
        (
            "/assistant/5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be001",
            "AssistantController_findOne",
        ),
        ("/phone-number", "PhoneNumberController_findAll"),
        (
            "/phone-number/5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be002",
            "PhoneNumberController_findOne",
        ),
    ] {
        let answer = sandbox
            .client
            .get(format!("{}{path}", sandbox.base))
            .bearer_auth("vapi-key")
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        conforms(Provider::Vapi, operation, &answer.json().await.expect("JSON"));
    }
    for (path, key, status) in [
        ("/assistant", "other", 401),
        ("/assistant/none", "vapi-key", 400),
        ("/assistant?name=x", "vapi-key", 400),
    ] {
        let answer = sandbox
            .client
            .get(format!("{}{path}", sandbox.base))
            .bearer_auth(key)
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), status, "{path}");
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["statusCode"], status, "{body}");
    }
}

#[tokio::test]
async fn lists_page_newest_first_and_lose_nothing() {
    let sandbox = sandbox().await;
    for n in 0..7 {
        sandbox
            .post_message(&[
                ("To", if n == 3 { "+12025550122" } else { TO }),
                ("From", FROM),
                ("Body", &n.to_string()),
            ])
            .await;
    }
    let mut path = format!("/2010-04-01/Accounts/{SID}/Messages.json?To=%2B12025550111&PageSize=2");
    let mut bodies = Vec::new();
    loop {
        let (_, page) = sandbox.get(&path).await;
        conforms(Provider::Twilio, "ListMessage", &page);
        bodies.extend(
            page["messages"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|message| message["body"].as_str().expect("a text").to_owned()),
        );
        match page["next_page_uri"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(bodies, ["6", "5", "4", "2", "1", "0"]);
    let (_, none) = sandbox
        .get(&format!(
            "/2010-04-01/Accounts/{SID}/Messages.json?DateSent%3E=2999-01-01"
        ))
        .await;
    assert_eq!(none["messages"], json!([]));
}

#[tokio::test]
async fn what_came_in_is_kept_in_one_shape() {
    let sandbox = sandbox().await;
    sandbox
        .post_message(&[
            ("To", TO),
            ("From", FROM),
            ("Body", "a b&c"),
            ("MediaUrl", "https://a.example/1"),
            ("MediaUrl", "https://a.example/2"),
        ])
        .await;
    sandbox
        .client
        .post(format!("{}/sink/demo?x=1", sandbox.base))
        .header("X-Odd", "1")
        .json(&json!({"a": [1]}))
        .send()
        .await
        .expect("an answer");
    sandbox
        .client
        .post(format!("{}/sink/text", sandbox.base))
        .body("plain")
        .send()
        .await
        .expect("an answer");
    let all: Value = sandbox
        .client
        .get(format!("{}/_requests", sandbox.base))
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let all = all.as_array().expect("a list");
    let keys = |value: &Value| {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect::<std::collections::BTreeSet<_>>()
    };
    let common = ["id", "at", "provider", "method", "path", "headers", "status"];
    for (request, content) in all.iter().zip(["form", "json", "body"]) {
        assert_eq!(
            keys(request),
            common.iter().chain([&content]).map(ToString::to_string).collect()
        );
        assert!(
            request["at"]
                .as_str()
                .is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok())
        );
    }
    assert_eq!(
        all[0]["form"],
        json!({"To": TO, "From": FROM, "Body": "a b&c", "MediaUrl": ["https://a.example/1", "https://a.example/2"]})
    );
    assert_eq!(
        (&all[0]["provider"], &all[0]["method"], &all[0]["status"]),
        (&json!("twilio"), &json!("POST"), &json!(201))
    );
    assert_eq!(
        (&all[1]["path"], &all[1]["json"], &all[1]["headers"]["x-odd"]),
        (&json!("/sink/demo?x=1"), &json!({"a": [1]}), &json!("1"))
    );
    assert_eq!(all[2]["body"], "plain");
    let (status, twilio) = sandbox.get("/_requests?provider=twilio").await;
    assert_eq!((status, twilio.as_array().map(Vec::len)), (200, Some(1)));
    assert_eq!(sandbox.get("/_requests?provider=nobody").await.0, 400);
    assert_eq!(sandbox.state.requests(Provider::Http).len(), 2);
    assert!(matches!(&sandbox.state.requests(Provider::Http)[1].content, Content::Text(text) if text == "plain"));
}

#[tokio::test]
async fn rings_are_bounded() {
    let sandbox = sandbox_with(SandboxConfig {
        accounts: Accounts {
            accounts: vec![account()],
            ..Accounts::default()
        },
        requests_max: 3,
        ..SandboxConfig::default()
    })
    .await;
    for n in 0..5 {
        sandbox
            .post_message(&[("To", TO), ("From", FROM), ("Body", &n.to_string())])
            .await;
    }
    let requests = sandbox.state.requests(Provider::Twilio);
    assert_eq!(
        requests
            .iter()
            .map(|request| (request.id, request.status))
            .collect::<Vec<_>>(),
        [(3, Some(201)), (4, Some(201)), (5, Some(201))]
    );
    assert_eq!(
        sandbox
            .state
            .messages()
            .iter()
            .map(|message| message.body.as_str())
            .collect::<Vec<_>>(),
        ["2", "3", "4"]
    );
    assert_eq!(sandbox.state.message_count(), 5);
}

#[tokio::test]
async fn accounts_are_registered_and_a_reset_keeps_them() {
    let sandbox = sandbox_with(SandboxConfig::default()).await;
    let form = [("To", TO), ("From", FROM), ("Body", "x")];
    assert_eq!(sandbox.post_message(&form).await.0, 401);
    let (status, body) = sandbox
        .control(
            "/_accounts",
            json!({"accounts": [{"sid": SID, "auth_token": TOKEN, "numbers": [FROM], "type": "Full"}]}),
        )
        .await;
    assert_eq!(
        (status, body),
        (
            201,
            json!({
                "accounts": 1, "vapi": 0, "resend": 0, "elevenlabs": 0, "google_clients": 0, "google_accounts": 0,
            })
        )
    );
    assert_eq!(sandbox.post_message(&form).await.0, 201);
    let (status, body) = sandbox
        .control(
            "/_accounts",
            json!({"accounts": [{"sid": SID, "auth_token": ["canary"]}]}),
        )
        .await;
    assert_eq!(status, 400);
    assert!(!body.to_string().contains("canary"));
    assert!(body.to_string().contains("accounts[0].auth_token"), "{body}");
    sandbox.control("/_reset", json!({})).await;
    assert_eq!(
        (
            sandbox.state.message_count(),
            sandbox.state.requests(Provider::Twilio).len()
        ),
        (0, 0)
    );
    assert_eq!(sandbox.post_message(&form).await.0, 201);
}

#[tokio::test]
async fn paths_that_no_stand_in_has_are_not_found() {
    let sandbox = sandbox().await;
    for path in ["/", "/assistants", "/_nothing", "/sinker", "/2010-04-02/x"] {
        let answer = sandbox
            .client
            .get(format!("{}{path}", sandbox.base))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 404, "{path}");
    }
    let large = sandbox
        .client
        .post(format!("{}/sink/x", sandbox.base))
        .body(vec![b'a'; (1 << 20) + 1])
        .send()
        .await;
    assert!(large.is_err() || large.is_ok_and(|answer| answer.status() == 413));
}
