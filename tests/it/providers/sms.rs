//! Sending an SMS: each refusal of Twilio has its outcome, and an unknown outcome is looked up.

use super::{NoNames, Try};
use crate::outside::*;
use hookswitch::{
    action::LookUp,
    config::ProviderSettings,
    domain::{ActionKind, Cause, Clock, ManualClock, Outcome, Provider, SystemClock, Timestamp},
    provider::{Credential, Providers, http::HttpClient},
    sandbox::{Drop as Dropped, Fault},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

#[tokio::test]
async fn an_sms_goes_out_as_twilio_wants_it() {
    let sandbox = sandbox().await;
    let mut sms = Try::sms("Grüße, 50% & mehr\n👍");
    sms.public_url = Some("http://127.0.0.1:1/");
    let outcome = sms.send(&sandbox.providers()).await;
    let messages = sandbox.state.messages();
    assert_eq!(
        outcome,
        Outcome::Succeeded {
            cause: Cause::Accepted,
            provider_ref: Some(messages[0].sid.as_str().into())
        }
    );
    assert_eq!(
        (
            messages[0].to.as_str(),
            messages[0].from.as_deref(),
            messages[0].body.as_str()
        ),
        (TO, Some(FROM), "Grüße, 50% & mehr\n👍")
    );
    assert_eq!(
        messages[0].status_callback.as_deref(),
        Some(&*format!(
            "http://127.0.0.1:1/webhooks/twilio?action={}#rc=5&rp=5xx,ct,rt",
            sms.id
        ))
    );
    assert_eq!(sandbox.state.violations(), []);
}

#[tokio::test]
async fn every_refusal_of_twilio_has_its_outcome() {
    let sandbox = sandbox().await;
    let providers = sandbox.providers();
    let dead = |cause| Outcome::Dead { cause };
    for (to, outcome) in [
        ("+15005550001", dead(Cause::InvalidRecipient)),
        ("+15005550003", dead(Cause::Misconfigured)),
        ("+15005550004", Outcome::Suppressed { cause: Cause::OptedOut }),
        ("+15005550007", dead(Cause::InvalidRecipient)),
        ("+15005550009", dead(Cause::InvalidRecipient)),
    ] {
        let sms = Try::new(
            ActionKind::TwilioSendSms,
            Credential::Twilio(twilio()),
            json!({"to": to, "body": "x"}),
        );
        let (got, detail) = sms.action().send(&providers, &sms.attempt()).await;
        assert_eq!(got, outcome, "{to}");
        assert_eq!(detail.http_status, Some(400));
        assert!(
            detail.provider_code.is_some() && !detail.text.contains("500555"),
            "the number stays out of the detail: {detail:?}"
        );
    }
    let other = Try::new(
        ActionKind::TwilioSendSms,
        Credential::Twilio(twilio()),
        json!({"to": TO, "body": "x", "from": "+12025550155"}),
    );
    assert_eq!(
        other.send(&providers).await,
        Outcome::Park {
            cause: Cause::Misconfigured
        }
    );
    let wrong = credential(
        Provider::Twilio,
        &json!({"account_sid": SID, "auth_token": "wrong", "phone_number": FROM}),
    );
    let wrong = Try::new(ActionKind::TwilioSendSms, wrong, json!({"to": TO, "body": "x"}));
    assert_eq!(
        wrong.send(&providers).await,
        Outcome::Park {
            cause: Cause::CredentialRefused
        }
    );
    let senderless = credential(Provider::Twilio, &json!({"account_sid": SID, "auth_token": TOKEN}));
    let before = sandbox.state.request_count(Provider::Twilio);
    let senderless = Try::new(ActionKind::TwilioSendSms, senderless, json!({"to": TO, "body": "x"}));
    assert_eq!(
        senderless.send(&providers).await,
        Outcome::Park {
            cause: Cause::Misconfigured
        }
    );
    assert_eq!(
        sandbox.state.request_count(Provider::Twilio),
        before,
        "nothing was sent"
    );
    let vapi = Try::new(
        ActionKind::TwilioSendSms,
        credential(Provider::Vapi, &json!({"api_key": "k"})),
        json!({"to": TO, "body": "x"}),
    );
    assert_eq!(
        vapi.send(&providers).await,
        Outcome::Park {
            cause: Cause::NotConnected
        }
    );
    assert_eq!(sandbox.state.messages(), []);
}

#[tokio::test]
async fn a_429_is_never_processed_and_says_when_to_come_back() {
    let sandbox = sandbox().await;
    let now = Timestamp::from_seconds(1_900_000_000);
    let settings = ProviderSettings {
        twilio_base_url: sandbox.base.clone(),
        ..ProviderSettings::default()
    };
    let http = HttpClient::with(&settings, None, Box::new(NoNames), Arc::new(ManualClock::at(now)));
    let providers = Providers::with_client(&settings, http).expect("good settings");
    for (value, not_before) in [
        (json!(7), Some(now + Duration::from_secs(7))),
        (json!(1_000_000_000), Some(now + Duration::from_secs(1_000_000_000))),
        (
            json!("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Timestamp::from_seconds(784_111_777)),
        ),
        (json!("-1"), None),
        (json!("garbage"), None),
        (Value::Null, None),
    ] {
        let mut fault = Fault::of(Provider::Twilio).times(1).status(429);
        fault.retry_after = (!value.is_null()).then(|| value.clone());
        sandbox.state.add_fault(fault);
        assert_eq!(
            Try::sms("x").send(&providers).await,
            Outcome::Retry {
                cause: Cause::RateLimited,
                not_before
            },
            "{value}"
        );
    }
    assert_eq!(sandbox.state.message_count(), 0);
}

#[tokio::test]
async fn what_may_have_gone_out_is_unknown_and_found_by_the_look_up() {
    let sandbox = sandbox().await;
    let providers = sandbox.providers();
    let unknown = |cause| Outcome::Unknown { cause };
    let accepting = |status| {
        let mut fault = Fault::of(Provider::Twilio).times(1).status(status);
        fault.accept = true;
        fault
    };
    for (n, (fault, outcome, effects)) in [
        (
            Fault::of(Provider::Twilio).times(1).dropping(Dropped::AfterAccept),
            unknown(Cause::NoAnswer),
            1,
        ),
        (
            Fault::of(Provider::Twilio).times(1).dropping(Dropped::Before),
            unknown(Cause::NoAnswer),
            0,
        ),
        (accepting(500), unknown(Cause::ProviderUnavailable), 1),
        (
            Fault::of(Provider::Twilio).times(1).status(503),
            unknown(Cause::ProviderUnavailable),
            0,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut sms = Try::sms(&format!("text {n}"));
        sms.first_sent_at = Some(SystemClock.now());
        // Another message to the same number, and an equal one of long ago, are not it.
        sandbox.state.add_fault(fault);
        assert_eq!(sms.send(&providers).await, outcome);
        let LookUp::Matches(ids) = sms.look_up(&providers).await else {
            panic!("a list")
        };
        assert_eq!(ids.len(), effects, "case {n}");
        let expected: Vec<Box<str>> = sandbox
            .state
            .messages()
            .iter()
            .filter(|message| message.body == format!("text {n}"))
            .map(|message| message.sid.as_str().into())
            .collect();
        assert_eq!(ids, expected);
    }
    assert_eq!(sandbox.state.violations(), [], "look-ups ask as the description says");
}

#[tokio::test]
async fn a_look_up_matches_what_was_made_since_and_says_all_of_it() {
    let sandbox = sandbox().await;
    let providers = sandbox.providers();
    let mut sms = Try::sms("same text");
    for body in ["same text", "other text", "same text"] {
        assert_eq!(
            sandbox
                .post_message(&[("To", TO), ("From", FROM), ("Body", body)])
                .await
                .0,
            201
        );
    }
    sandbox
        .post_message(&[("To", "+12025550177"), ("From", FROM), ("Body", "same text")])
        .await;
    sms.first_sent_at = Some(SystemClock.now());
    assert!(
        matches!(sms.look_up(&providers).await, LookUp::Matches(ids) if ids.len() == 2),
        "ambiguity is for the caller to see"
    );
    sms.first_sent_at = Some(SystemClock.now() + Duration::from_mins(5));
    assert_eq!(
        sms.look_up(&providers).await,
        LookUp::Matches(Vec::new()),
        "older than the attempt"
    );
    // More than a page: everything is read.
    for n in 0..120 {
        sandbox
            .post_message(&[("To", TO), ("From", FROM), ("Body", &format!("filler {n}"))])
            .await;
    }
    sms.first_sent_at = Some(SystemClock.now());
    assert!(matches!(sms.look_up(&providers).await, LookUp::Matches(ids) if ids.len() == 2));
}

#[tokio::test]
async fn a_look_up_that_cannot_see_is_unknown_never_absent_and_never_parked() {
    let sandbox = sandbox().await;
    let providers = sandbox.providers();
    let key = |n: u8, secret: &str| {
        let json = json!({"account_sid": SID, "api_key_sid": format!("SK{n:032}"), "api_key_secret": secret, "phone_number": FROM});
        Try::new(
            ActionKind::TwilioSendSms,
            credential(Provider::Twilio, &json),
            json!({"to": TO, "body": "x"}),
        )
    };
    let unknown = |cause| LookUp::Failed(Outcome::Unknown { cause });
    assert_eq!(
        key(3, "key-secret-3").look_up(&providers).await,
        unknown(Cause::LookUpForbidden)
    );
    assert_eq!(
        key(2, "key-secret-2").look_up(&providers).await,
        LookUp::Matches(Vec::new())
    );
    let wrong = credential(
        Provider::Twilio,
        &json!({"account_sid": SID, "auth_token": "wrong", "phone_number": FROM}),
    );
    let wrong = Try::new(ActionKind::TwilioSendSms, wrong, json!({"to": TO, "body": "x"}));
    assert_eq!(wrong.look_up(&providers).await, unknown(Cause::CredentialRefused));
    for (fault, cause) in [
        (
            Fault::of(Provider::Twilio).times(1).status(503),
            Cause::ProviderUnavailable,
        ),
        (Fault::of(Provider::Twilio).times(1).status(429), Cause::RateLimited),
        (
            Fault::of(Provider::Twilio).times(1).dropping(Dropped::Before),
            Cause::NoAnswer,
        ),
    ] {
        sandbox.state.add_fault(fault);
        assert_eq!(Try::sms("x").look_up(&providers).await, unknown(cause));
    }
    let nobody = crate::outside::providers("http://127.0.0.1:1");
    assert_eq!(Try::sms("x").look_up(&nobody).await, unknown(Cause::ConnectFailed));
}
