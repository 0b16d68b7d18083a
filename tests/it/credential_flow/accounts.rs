//! Which account a credential opens, and the signing secrets that come and go with it.

use super::{
    keys::{ELEVENLABS, SECOND, SID, TOKEN},
    *,
};
use hookswitch::{
    domain::{Provider, Source},
    sandbox::{Accounts, ElevenLabsKey, TwilioAccount},
};
use serde_json::json;

#[tokio::test]
async fn while_a_token_is_rotated_webhooks_verify_with_both() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let secrets = async || app.store.list_secrets(app.a, Source::Twilio, None).await.unwrap();
    let body = json!({ "account_sid": SID, "auth_token": TOKEN, "auth_token_secondary": SECOND });
    app.post(app.a, "/api/integrations/twilio", &body).await.expect(200);
    let both = secrets().await;
    assert_eq!(both.len(), 2);
    assert!(both.iter().all(|secret| secret.not_after.is_none()), "neither ends");
    let mut ends: Vec<_> = both.iter().filter_map(|secret| secret.last_four.clone()).collect();
    ends.sort();
    assert_eq!(ends, ["3210", "cdef"]);
    // Promoted: the second is the first now, and the former stays for the overlap only.
    app.providers().register(Accounts {
        accounts: vec![TwilioAccount::new(SID, SECOND)],
        ..Accounts::default()
    });
    app.post(
        app.a,
        "/api/integrations/twilio",
        &json!({ "account_sid": SID, "auth_token": SECOND }),
    )
    .await
    .expect(200);
    assert_eq!(
        secrets()
            .await
            .iter()
            .filter(|secret| secret.not_after.is_none())
            .count(),
        1
    );
}

#[tokio::test]
async fn another_accounts_secrets_end_at_once() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let other = "ACfedcba9876543210fedcba9876543210";
    app.providers().register(Accounts {
        accounts: vec![TwilioAccount::new(other, SECOND)],
        ..Accounts::default()
    });
    app.post(
        app.a,
        "/api/integrations/twilio",
        &json!({ "account_sid": SID, "auth_token": TOKEN }),
    )
    .await
    .expect(200);
    let body = json!({ "account_sid": other, "auth_token": SECOND });
    assert_eq!(
        app.post(app.a, "/api/integrations/twilio", &body)
            .await
            .expect(409)
            .code(),
        "account_differs"
    );
    app.post(app.a, "/api/integrations/twilio?replace_account=true", &body)
        .await
        .expect(200);
    let left = app.store.list_secrets(app.a, Source::Twilio, None).await.unwrap();
    assert_eq!(
        left.iter()
            .filter_map(|secret| secret.last_four.as_deref())
            .collect::<Vec<_>>(),
        ["3210"]
    );
}

#[tokio::test]
async fn the_same_account_is_known_after_a_disconnect_by_its_fingerprint_alone() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let other = ElevenLabsKey {
        api_key: "key-of-another-account".to_owned(),
        user_id: "user-2".to_owned(),
        missing_permissions: vec![],
    };
    app.providers().register(Accounts {
        elevenlabs: vec![other],
        ..Accounts::default()
    });
    app.post(app.a, "/api/integrations/elevenlabs", &json!({ "api_key": ELEVENLABS }))
        .await
        .expect(200);
    app.delete(app.a, "/api/integrations/elevenlabs").await.expect(204);
    let row = app
        .store
        .find_credential(app.a, Provider::ElevenLabs, "")
        .await
        .unwrap()
        .unwrap();
    assert!(
        row.account_id.is_none()
            && row
                .account_fingerprint
                .is_some_and(|fingerprint| !fingerprint.contains("user-1"))
    );
    let body = json!({ "api_key": "key-of-another-account" });
    assert_eq!(
        app.post(app.a, "/api/integrations/elevenlabs", &body)
            .await
            .expect(409)
            .code(),
        "account_differs"
    );
    app.post(app.a, "/api/integrations/elevenlabs", &json!({ "api_key": ELEVENLABS }))
        .await
        .expect(200);
}
