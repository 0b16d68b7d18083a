//! Faults that are asked for, and status callbacks.

use crate::outside::*;
use hookswitch::{
    domain::{Provider, SecretBytes, Timestamp},
    sandbox::{Accounts, Content, Drop as Dropped, Fault, SandboxConfig, TwilioAccount},
};
use serde_json::{Value, json};

#[tokio::test]
async fn faults_are_taken_in_order_and_end() {
    let sandbox = sandbox().await;
    let form = [("To", TO), ("From", FROM), ("Body", "x")];
    let (status, _) = sandbox
        .control(
            "/_faults",
            json!({"provider": "twilio", "times": 2, "status": 429, "retry_after": 7}),
        )
        .await;
    assert_eq!(status, 201);
    for _ in 0..2 {
        let url = format!("{}/2010-04-01/Accounts/{SID}/Messages.json", sandbox.base);
        let answer = sandbox
            .client
            .post(url)
            .basic_auth(SID, Some(TOKEN))
            .form(&form)
            .send()
            .await
            .expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["retry-after"].to_str().ok()),
            (429, Some("7"))
        );
        assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], 20429);
    }
    assert_eq!(sandbox.post_message(&form).await.0, 201);
    assert_eq!(sandbox.state.message_count(), 1, "a refused request has no effect");

    sandbox
        .control(
            "/_faults",
            json!({"provider": "twilio", "method": "POST", "status": 500, "accept": true, "times": 1}),
        )
        .await;
    assert_eq!(
        sandbox.get(&format!("/2010-04-01/Accounts/{SID}.json")).await.0,
        200,
        "another method is spared"
    );
    assert_eq!(sandbox.post_message(&form).await.0, 500);
    assert_eq!(sandbox.state.message_count(), 2, "accepted, and then answered 500");

    sandbox
        .control(
            "/_faults",
            json!({"provider": "http", "path": "/sink/b", "status": 503, "body": {"why": "tired"}}),
        )
        .await;
    let post = |path: &str| sandbox.client.post(format!("{}{path}", sandbox.base)).send();
    assert_eq!(post("/sink/a").await.expect("an answer").status(), 200);
    assert_eq!(
        post("/sink/b")
            .await
            .expect("an answer")
            .json::<Value>()
            .await
            .expect("JSON"),
        json!({"why": "tired"})
    );
    assert_eq!(sandbox.get("/_faults").await.1.as_array().map(Vec::len), Some(1));
    sandbox
        .client
        .delete(format!("{}/_faults", sandbox.base))
        .send()
        .await
        .expect("an answer");
    assert_eq!(post("/sink/b").await.expect("an answer").status(), 200);

    for wrong in [
        json!({}),
        json!({"provider": "twilio"}),
        json!({"provider": "twilio", "status": 99}),
        json!({"provider": "twilio", "times": 0, "status": 500}),
        json!({"provider": "twilio", "status": 500, "drop": "before"}),
        json!({"provider": "twilio", "colour": "red"}),
    ] {
        assert_eq!(sandbox.control("/_faults", wrong.clone()).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_dropped_request_gets_no_byte_and_its_effect_as_it_was_told() {
    let sandbox = sandbox().await;
    for (drop, effects) in [(Dropped::Before, 0), (Dropped::AfterAccept, 1)] {
        sandbox.state.reset();
        sandbox
            .state
            .add_fault(Fault::of(Provider::Twilio).times(1).dropping(drop));
        let url = format!("{}/2010-04-01/Accounts/{SID}/Messages.json", sandbox.base);
        let form = [("To", TO), ("From", FROM), ("Body", "x")];
        let error = sandbox
            .client
            .post(url)
            .basic_auth(SID, Some(TOKEN))
            .form(&form)
            .send()
            .await
            .expect_err("no answer");
        assert!(
            !error.is_connect() && !error.is_timeout() && !error.is_body(),
            "{error:?}"
        );
        assert_eq!(sandbox.state.message_count(), effects);
        let requests = sandbox.state.requests(Provider::Twilio);
        assert_eq!(
            requests.iter().map(|request| request.status).collect::<Vec<_>>(),
            [None]
        );
    }
}

#[tokio::test]
async fn status_callbacks_are_signed_and_in_order() {
    let sandbox = sandbox().await;
    let receiver = sandbox_with(SandboxConfig::default()).await;
    let url = format!("{}/sink/callback?action=1", receiver.base);
    let (_, created) = sandbox
        .post_message(&[
            ("To", TO),
            ("From", FROM),
            ("Body", "x"),
            ("StatusCallback", &format!("{url}#rc=5&rp=5xx,ct,rt")),
        ])
        .await;
    assert_eq!(created["date_sent"], Value::Null, "what is queued was not sent yet");
    eventually("three callbacks", || receiver.state.request_count(Provider::Http) == 3).await;
    let requests = receiver.state.requests(Provider::Http);
    let statuses: Vec<_> = requests
        .iter()
        .filter_map(|request| request.form_field("MessageStatus"))
        .collect();
    assert_eq!(statuses, ["queued", "sent", "delivered"]);
    for request in &requests {
        assert_eq!(request.path, "/sink/callback?action=1", "the fragment is not sent");
        assert_eq!(request.form_field("MessageSid"), created["sid"].as_str());
        assert_eq!(request.form_field("AccountSid"), Some(SID));
        let Content::Form(form) = &request.content else {
            panic!("a form")
        };
        let pairs: Vec<(String, String)> = form
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned()))
            .collect();
        let expected = hookswitch::source::sign::sign_twilio(&SecretBytes::from(TOKEN.to_owned()), &url, &pairs);
        assert_eq!(request.header("x-twilio-signature"), expected.to_str().ok());
    }
    eventually("delivered", || sandbox.state.messages()[0].status == "delivered").await;
    assert!(sandbox.state.messages()[0].sent_at > Some(Timestamp::default()));
}

#[tokio::test]
async fn callbacks_to_nowhere_cost_no_message_and_can_be_switched_off() {
    let sandbox = sandbox().await;
    for url in [
        "http://127.0.0.1:1/x",
        "https://example.com/x",
        "http://127.0.0.1:99999/",
    ] {
        assert_eq!(
            sandbox
                .post_message(&[("To", TO), ("From", FROM), ("Body", "x"), ("StatusCallback", url)])
                .await
                .0,
            201
        );
    }
    let silent = sandbox_with(SandboxConfig {
        accounts: Accounts {
            accounts: vec![TwilioAccount::new(SID, TOKEN).with_number(FROM)],
            ..Accounts::default()
        },
        is_calling_back: false,
        ..SandboxConfig::default()
    })
    .await;
    silent
        .post_message(&[
            ("To", TO),
            ("From", FROM),
            ("Body", "x"),
            ("StatusCallback", &format!("{}/sink/never", silent.base)),
        ])
        .await;
    assert_eq!(silent.state.messages()[0].status, "delivered");
    assert_eq!(silent.state.request_count(Provider::Http), 0);
}
