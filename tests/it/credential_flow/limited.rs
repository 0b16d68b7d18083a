//! Keys that the provider accepts and that lack a permission.

use super::{
    keys::{ELEVENLABS, SID, TOKEN},
    *,
};
use hookswitch::{
    domain::Provider,
    sandbox::{Accounts, ApiKey, ElevenLabsKey, Fault, KeyKind, ResendKey, TwilioAccount},
};
use serde_json::json;

#[tokio::test]
async fn a_resend_key_that_may_only_send_is_good_but_limited() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    app.providers().register(Accounts {
        resend: vec![ResendKey {
            api_key: "re_sending_only".to_owned(),
            domains: vec![],
            is_sending_only: true,
        }],
        ..Accounts::default()
    });
    let body = json!({ "api_key": "re_sending_only" });
    let tested = app
        .post(app.a, "/api/integrations/resend/test", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(tested["state"], "limited");
    let saved = app
        .post(app.a, "/api/integrations/resend", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&saved["state"], &saved["connected"]),
        (&json!("limited"), &json!(true))
    );
    assert!(
        saved["missing"].as_str().unwrap().contains("may only send") && saved["error"].is_null(),
        "{saved}"
    );
    assert_eq!(
        app.post(app.a, "/api/integrations/resend/verify", &json!({}))
            .await
            .expect(200)
            .json()["state"],
        "limited"
    );
}

#[tokio::test]
async fn an_elevenlabs_key_without_permissions_is_good_but_limited_and_says_which_feature_is_gone() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let key = |n: usize, missing: &[&str]| ElevenLabsKey {
        api_key: format!("restricted-key-{n}"),
        user_id: format!("user-{n}"),
        missing_permissions: missing.iter().map(|name| (*name).to_owned()).collect(),
    };
    let keys = vec![
        key(1, &["user_read"]),
        key(2, &["voices_read"]),
        key(3, &["user_read", "voices_read"]),
    ];
    app.providers().register(Accounts {
        elevenlabs: keys,
        ..Accounts::default()
    });
    for (n, words, has_account) in [
        (1, vec!["user_read"], false),
        (2, vec!["voices_read"], true),
        (3, vec!["user_read", "voices_read"], false),
    ] {
        let tested = app
            .post(
                app.a,
                "/api/integrations/elevenlabs/test",
                &json!({ "api_key": format!("restricted-key-{n}") }),
            )
            .await
            .expect(200)
            .json();
        assert_eq!(tested["state"], "limited", "{n}");
        assert!(
            words
                .iter()
                .all(|word| tested["missing"].as_str().unwrap().contains(word)),
            "{tested}"
        );
        assert_eq!(tested["account"].is_object(), has_account, "{tested}");
    }
    // An account without credits is one all the same.
    let mut fault = Fault::of(Provider::ElevenLabs).status(401);
    fault.body = Some(json!({ "detail": { "status": "quota_exceeded", "message": "None left." } }));
    app.providers().add_fault(fault);
    let tested = app
        .post(
            app.a,
            "/api/integrations/elevenlabs/test",
            &json!({ "api_key": ELEVENLABS }),
        )
        .await
        .expect(200)
        .json();
    assert!(
        tested["state"] == "limited" && tested["missing"].as_str().unwrap().contains("credits"),
        "{tested}"
    );
}

#[tokio::test]
async fn elevenlabs_own_key_in_its_answer_goes_nowhere() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let answer = app
        .post(app.a, "/api/integrations/elevenlabs", &json!({ "api_key": ELEVENLABS }))
        .await
        .expect(200);
    assert!(
        !answer.text.contains(ELEVENLABS) && answer.json()["account"]["id"] == "user-1",
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_standard_api_key_of_twilio_verifies_and_a_restricted_one_says_what_it_lacks() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let mut account = TwilioAccount::new(SID, TOKEN);
    let key = |n: u8, kind| ApiKey {
        sid: format!("SK{n:032}"),
        secret: format!("key-secret-{n}"),
        kind,
    };
    account.api_keys = vec![
        key(1, KeyKind::Main),
        key(2, KeyKind::Standard),
        key(3, KeyKind::Restricted),
    ];
    app.providers().register(Accounts {
        accounts: vec![account],
        ..Accounts::default()
    });
    let body = |n: u8| {
        json!({
            "account_sid": SID,
            "api_key_sid": format!("SK{n:032}"),
            "api_key_secret": format!("key-secret-{n}"),
        })
    };
    for n in 1..=3 {
        let saved = app
            .post(app.a, "/api/integrations/twilio", &body(n))
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&saved["state"], &saved["account"]["id"]),
            (&json!("limited"), &json!(SID)),
            "{n}"
        );
        assert!(saved["missing"].as_str().unwrap().contains("webhooks"), "{saved}");
        assert_eq!(
            saved["missing"].as_str().unwrap().contains("looking up"),
            n == 3,
            "{saved}"
        );
    }
    let wrong = json!({ "account_sid": SID, "api_key_sid": format!("SK{:032}", 1), "api_key_secret": "wrong" });
    app.post(app.a, "/api/integrations/twilio", &wrong).await.expect(422);
}
