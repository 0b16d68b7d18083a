//! Clients and actions against the sandbox, and against servers that misbehave byte by byte (faults
//! B23 to B29, A33, A34).

use crate::outside::*;
use hookswitch::{
    action::{self, Action, Attempt, FrozenRequest, LookUp},
    config::ProviderSettings,
    domain::{
        ActionId, ActionKind, Cause, Clock, EventId, ManualClock, OrgId, Outcome, Provider, SystemClock, Timestamp,
    },
    provider::{
        CallError, Credential, Providers, TwilioAuth, VERIFY_MAX, VapiCredential, Verified, http::HttpClient,
        twilio::NewMessage,
    },
    sandbox::{
        AccountStatus, Accounts, Drop as Dropped, Fault, SandboxConfig, VapiAssistant, VapiOrganisation,
        VapiPhoneNumber,
    },
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::io::AsyncWriteExt;

/// An action with its frozen request and everything around it.
struct Try {
    kind: ActionKind,
    request: FrozenRequest,
    credential: Credential,
    id: ActionId,
    deadline: Duration,
    first_sent_at: Option<Timestamp>,
    status_callback: Option<String>,
}

impl Try {
    fn new(kind: ActionKind, credential: Credential, parameters: Value) -> Self {
        let Value::Object(parameters) = parameters else {
            panic!("an object")
        };
        let request = action::get(kind).freeze(parameters).expect("a request");
        Self {
            kind,
            request,
            credential,
            id: ActionId::generate(),
            deadline: LONG,
            first_sent_at: None,
            status_callback: None,
        }
    }

    fn sms(body: &str) -> Self {
        Self::new(
            ActionKind::TwilioSendSms,
            Credential::Twilio(twilio()),
            json!({"to": TO, "body": body}),
        )
    }

    fn action(&self) -> &'static dyn Action {
        action::get(self.kind)
    }

    fn attempt(&self) -> Attempt<'_> {
        Attempt {
            action: self.id,
            org: OrgId::from_uuid(uuid::Uuid::nil()),
            event: EventId::from_uuid(uuid::Uuid::nil()),
            request: &self.request,
            idempotency_key: "org:key",
            credential: &self.credential,
            planned_at: SystemClock.now(),
            first_sent_at: self.first_sent_at,
            deadline: self.deadline,
            status_callback: self.status_callback.clone(),
            hops: 0,
            hops_header: Some("1.abcdef".to_owned()),
        }
    }

    async fn send(&self, providers: &Providers) -> Outcome {
        self.action().send(providers, &self.attempt()).await.0
    }

    async fn look_up(&self, providers: &Providers) -> LookUp {
        self.action().look_up(providers, &self.attempt()).await.0
    }
}

#[tokio::test]
async fn an_sms_goes_out_as_twilio_wants_it() {
    let sandbox = sandbox().await;
    let mut sms = Try::sms("Grüße, 50% & mehr\n👍");
    sms.status_callback = Some("http://127.0.0.1:1/webhooks/twilio?action=1".to_owned());
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
        Some("http://127.0.0.1:1/webhooks/twilio?action=1#rc=5&rp=5xx,ct,rt")
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

#[tokio::test]
async fn nothing_was_sent_only_where_no_connection_was() {
    let refused = providers("http://127.0.0.1:1");
    assert_eq!(
        Try::sms("x").send(&refused).await,
        Outcome::Retry {
            cause: Cause::ConnectFailed,
            not_before: None
        }
    );
    let unnamed = providers("http://no-such-host.invalid");
    assert_eq!(
        Try::sms("x").send(&unnamed).await,
        Outcome::Retry {
            cause: Cause::ConnectFailed,
            not_before: None
        }
    );
    // TLS towards a port that speaks none: the request stays here.
    let plain = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("a free port");
    let tls = providers(&format!("https://{}", plain.local_addr().expect("bound")));
    let sms = Try::sms("x");
    let (outcome, ()) = tokio::join!(sms.send(&tls), async {
        let (mut stream, _) = plain.accept().await.expect("a connection");
        let _ = stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            .await;
    });
    assert_eq!(
        outcome,
        Outcome::Retry {
            cause: Cause::ConnectFailed,
            not_before: None
        }
    );
}

#[tokio::test]
async fn broken_answers_to_a_post_leave_it_unknown() {
    let huge = format!(
        "HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{}",
        2 << 20,
        " ".repeat(2 << 20)
    );
    let gzip: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-encoding: \
        gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00";
    let cases: [(&str, Vec<u8>); 12] = [
        ("no bytes", Vec::new()),
        ("half a head", b"HTTP/1.1 201 Cre".to_vec()),
        ("no HTTP", b"hello\r\n\r\n".to_vec()),
        (
            "not JSON",
            b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello".to_vec(),
        ),
        (
            "JSON without a sid",
            b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
        ),
        (
            "JSON null",
            b"HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\nnull".to_vec(),
        ),
        (
            "a body cut off",
            b"HTTP/1.1 201 Created\r\ncontent-length: 50\r\n\r\n{\"sid\":".to_vec(),
        ),
        (
            "a chunk cut off",
            b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{}".to_vec(),
        ),
        ("1 MiB and more", huge.into_bytes()),
        (
            "a claim of 1 GB",
            b"HTTP/1.1 201 Created\r\ncontent-length: 1000000000\r\n\r\n{}".to_vec(),
        ),
        ("gzip that nobody asked for", gzip.to_vec()),
        (
            "another protocol",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec(),
        ),
    ];
    for (name, bytes) in cases {
        let rogue = Rogue::answering(bytes).await;
        assert_eq!(
            Try::sms("x").send(&providers(&rogue.base())).await,
            Outcome::Unknown { cause: Cause::NoAnswer },
            "{name}"
        );
    }
    // A status that says "not done" says so whatever its body is; HTTP/1.0 with a good body is an
    // answer.
    let refused = Rogue::answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 50\r\n\r\n{\"code\":").await;
    assert_eq!(
        Try::sms("x").send(&providers(&refused.base())).await,
        Outcome::Dead {
            cause: Cause::InvalidRequest
        }
    );
    let old = Rogue::answering("HTTP/1.0 201 Created\r\n\r\n{\"sid\":\"SM1\",\"status\":\"queued\"}").await;
    let outcome = Try::sms("x").send(&providers(&old.base())).await;
    assert_eq!(
        outcome,
        Outcome::Succeeded {
            cause: Cause::Accepted,
            provider_ref: Some("SM1".into())
        }
    );
}

#[tokio::test]
async fn a_deadline_holds_against_silence_and_against_a_byte_now_and_then() {
    let silent = Rogue::start(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let trickling = Rogue::start(|mut stream, _| async move {
        let _ = stream
            .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 100000\r\n\r\n")
            .await;
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for rogue in [&silent, &trickling] {
        let mut sms = Try::sms("x");
        sms.deadline = Duration::from_millis(300);
        let began = Instant::now();
        assert_eq!(
            sms.send(&providers(&rogue.base())).await,
            Outcome::Unknown { cause: Cause::NoAnswer }
        );
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn redirects_of_a_provider_are_not_followed() {
    let sentinel = Arc::new(AtomicUsize::new(0));
    let count = sentinel.clone();
    let target = Rogue::start(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    for status in [301, 302, 303, 307, 308] {
        let head = format!(
            "HTTP/1.1 {status} Moved\r\nlocation: {}/x\r\ncontent-length: 0\r\n\r\n",
            target.base()
        );
        let rogue = Rogue::answering(head).await;
        let outcome = Try::sms("x").send(&providers(&rogue.base())).await;
        assert_eq!(
            outcome,
            Outcome::Dead {
                cause: Cause::RedirectNotFollowed
            },
            "{status}"
        );
    }
    assert_eq!(sentinel.load(Ordering::SeqCst), 0);
}

/// Fault A33: a peer that closes each connection as soon as it answered. Every send is either done
/// or unknown, and none is sent twice by the client.
#[tokio::test]
async fn a_connection_that_dies_between_two_sends_repeats_nothing() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let rogue = Rogue::start(move |mut stream, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            // Promises to stay and goes.
            let _ = stream
                .write_all(
                    b"HTTP/1.1 201 Created\r\ncontent-length: 13\r\nconnection: keep-alive\r\n\r\n{\"sid\":\"SM1\"}",
                )
                .await;
        }
    })
    .await;
    let providers = providers(&rogue.base());
    let (mut done, mut unknown) = (0, 0);
    for _ in 0..200 {
        match Try::sms("x").send(&providers).await {
            Outcome::Succeeded { .. } => done += 1,
            Outcome::Unknown { .. } => unknown += 1,
            other => panic!("{other:?}"),
        }
    }
    let seen = seen.load(Ordering::SeqCst);
    assert!(
        done <= seen && seen <= done + unknown,
        "{done} done, {unknown} unknown, {seen} seen by the server"
    );
    assert_eq!(done + unknown, 200);
}

#[tokio::test]
async fn one_connection_serves_many_calls() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let rogue = Rogue::start(move |mut stream, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            loop {
                if stream
                    .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 13\r\n\r\n{\"sid\":\"SM1\"}")
                    .await
                    .is_err()
                {
                    return;
                }
                if read_request(&mut stream).await.is_empty() {
                    return;
                }
            }
        }
    })
    .await;
    let providers = providers(&rogue.base());
    for _ in 0..20 {
        assert!(matches!(
            Try::sms("x").send(&providers).await,
            Outcome::Succeeded { .. }
        ));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn twilio_credentials_verify_in_three_results() {
    let sandbox = sandbox().await;
    let providers = sandbox.providers();
    let Verified::Good { account: Some(account) } =
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
    // What says nothing about the credential is an error, not a refusal.
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
        Verified::Good { account: None }
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

#[tokio::test]
async fn no_error_carries_a_secret_a_body_or_a_number() {
    let rogue = Rogue::answering(
        "HTTP/1.1 400 Bad\r\ncontent-length: \
            66\r\n\r\n{\"code\":21211,\"message\":\"The number +12025550111 is not a number\"}  ",
    )
    .await;
    let message = NewMessage {
        to: TO,
        from: Some(FROM),
        messaging_service_sid: None,
        body: "canary-body",
        status_callback: None,
    };
    for base in [
        rogue.base(),
        "http://127.0.0.1:1".to_owned(),
        "http://no-such-host.invalid".to_owned(),
    ] {
        let error = providers(&base)
            .twilio
            .send_message(&twilio(), message, LONG)
            .await
            .expect_err("refused");
        let text = format!("{error} {error:?}");
        assert!(
            !text.contains(TOKEN) && !text.contains("canary") && !text.contains("2025550111") && !text.contains(SID),
            "{text}"
        );
    }
}

/// A resolver that knows no name.
struct NoNames;

impl hookswitch::provider::http::Lookup for NoNames {
    fn lookup(
        &self,
        _: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<std::net::SocketAddr>>> + Send>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
