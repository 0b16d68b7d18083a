//! Checking credentials, and proving numbers and assistants by reading them.

use crate::outside::*;
use hookswitch::{
    domain::Provider,
    provider::{CallError, Credential, TwilioAuth, VERIFY_MAX, VapiCredential, Verified},
    sandbox::{AccountStatus, Accounts, Fault, SandboxConfig, VapiAssistant, VapiOrganisation, VapiPhoneNumber},
};
use serde_json::json;

#[tokio::test]
async fn twilio_credentials_verify_in_three_results() {
    let sandbox = sandbox().await;
    let providers = sandbox.providers();
    let Verified::Accepted { account: Some(account) } =
        providers.twilio.verify(&twilio(), VERIFY_MAX).await.expect("an answer")
    else {
        panic!("good")
    };
    assert_eq!(
        (account.id.as_str(), account.name.as_deref()),
        (SID, Some("Test account"))
    );
    let key = |n: u8, secret: &str| match credential(
        Provider::Twilio,
        &json!({"account_sid": SID, "api_key_sid": format!("SK{n:032}"), "api_key_secret": secret}),
    ) {
        Credential::Twilio(credential) => credential,
        _ => unreachable!("a Twilio credential"),
    };
    for (n, missing) in [(1, "webhooks"), (2, "webhooks"), (3, "looking up")] {
        let verified = providers
            .twilio
            .verify(&key(n, &format!("key-secret-{n}")), VERIFY_MAX)
            .await
            .expect("an answer");
        let Verified::Limited {
            account: Some(account),
            missing: words,
        } = verified
        else {
            panic!("limited, not {verified:?}")
        };
        assert!(account.id == SID && words.contains(missing), "{words}");
    }
    let mut wrong = twilio();
    wrong.auth = TwilioAuth::AuthToken("wrong".to_owned().into());
    for credential in [wrong, key(1, "wrong")] {
        let Verified::Refused(refused) = providers
            .twilio
            .verify(&credential, VERIFY_MAX)
            .await
            .expect("an answer")
        else {
            panic!("refused")
        };
        assert_eq!((refused.http_status, refused.code.as_deref()), (401, Some("20003")));
    }
    let mut suspended = account_with(AccountStatus::Suspended);
    sandbox.state.register(Accounts {
        accounts: vec![suspended.clone()],
        ..Accounts::default()
    });
    assert!(matches!(
        providers.twilio.verify(&twilio(), VERIFY_MAX).await,
        Ok(Verified::Refused(_))
    ));
    suspended.status = AccountStatus::Active;
    sandbox.state.register(Accounts {
        accounts: vec![suspended],
        ..Accounts::default()
    });
    // An answer that says nothing about the credential is an error, not a refusal.
    for status in [429, 500, 503] {
        sandbox
            .state
            .add_fault(Fault::of(Provider::Twilio).times(1).status(status));
        assert!(matches!(
            providers.twilio.verify(&twilio(), VERIFY_MAX).await,
            Err(CallError::Refused(refused)) if refused.http_status == status
        ));
    }
    assert!(matches!(
        crate::outside::providers("http://127.0.0.1:1")
            .twilio
            .verify(&twilio(), VERIFY_MAX)
            .await,
        Err(CallError::NotSent { .. })
    ));
    assert_eq!(sandbox.state.violations(), []);
}

fn account_with(status: AccountStatus) -> hookswitch::sandbox::TwilioAccount {
    let mut account = account();
    account.status = status;
    account
}

#[tokio::test]
async fn numbers_and_assistants_are_proven_by_reading_them() {
    let assistant = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be001";
    let sandbox = sandbox_with(SandboxConfig {
        accounts: Accounts {
            accounts: vec![account()],
            vapi: vec![VapiOrganisation {
                api_key: "vapi-key".to_owned(),
                assistants: vec![VapiAssistant {
                    id: assistant.to_owned(),
                    name: Some("A".to_owned()),
                }],
                phone_numbers: vec![VapiPhoneNumber {
                    id: "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be002".to_owned(),
                    number: FROM.to_owned(),
                    twilio_account_sid: None,
                    sms_enabled: None,
                }],
            }],
            ..Accounts::default()
        },
        ..SandboxConfig::default()
    })
    .await;
    let providers = sandbox.providers();
    assert!(
        providers
            .twilio
            .find_number(&twilio(), FROM, VERIFY_MAX)
            .await
            .expect("an answer")
            .is_some_and(|number| number.sid.starts_with("PN"))
    );
    // A part of a number that is there, one that is not, and what is no number.
    for number in ["+1202555010", "+12025550199", "", "2025550100", "+1202555010*"] {
        assert_eq!(
            providers
                .twilio
                .find_number(&twilio(), number, VERIFY_MAX)
                .await
                .expect("an answer"),
            None,
            "{number}"
        );
    }
    let vapi = VapiCredential {
        api_key: "vapi-key".to_owned().into(),
    };
    assert_eq!(
        providers.vapi.verify(&vapi, VERIFY_MAX).await.expect("an answer"),
        Verified::Accepted { account: None }
    );
    let found = providers
        .vapi
        .get_assistant(&vapi, assistant, VERIFY_MAX)
        .await
        .expect("an answer")
        .expect("readable");
    assert_eq!((found.id.as_str(), found.name.as_deref()), (assistant, Some("A")));
    for id in [
        "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be009",
        "nonsense",
        "",
        "../phone-number",
        "a/b",
        "a?b",
    ] {
        assert_eq!(
            providers
                .vapi
                .get_assistant(&vapi, id, VERIFY_MAX)
                .await
                .expect("an answer"),
            None,
            "{id}"
        );
    }
    assert!(
        providers
            .vapi
            .find_phone_number(&vapi, FROM, VERIFY_MAX)
            .await
            .expect("an answer")
            .is_some()
    );
    assert_eq!(
        providers
            .vapi
            .find_phone_number(&vapi, TO, VERIFY_MAX)
            .await
            .expect("an answer"),
        None
    );
    let wrong = VapiCredential {
        api_key: "wrong".to_owned().into(),
    };
    let Verified::Refused(refused) = providers.vapi.verify(&wrong, VERIFY_MAX).await.expect("an answer") else {
        panic!("refused")
    };
    assert!(
        refused.http_status == 401 && refused.message.starts_with("Invalid Key."),
        "{refused:?}"
    );
    assert!(matches!(
        providers.vapi.get_assistant(&wrong, assistant, VERIFY_MAX).await,
        Err(CallError::Refused(refused)) if refused.http_status == 401
    ));
    assert_eq!(sandbox.state.violations(), []);
}
