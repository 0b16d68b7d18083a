//! E-mails and calendar events by stored credentials, through the actions, against the stand-ins.
//! Each has its effect once.

use crate::outside::*;
use hookswitch::{
    action::{self, Attempt, Detail, FrozenRequest, LookUp},
    domain::{ActionId, ActionKind, Cause, Clock, EventId, OrgId, Outcome, Provider, SystemClock},
    provider::{Credential, Providers},
    sandbox::{Accounts, Drop as Dropped, Fault, GoogleAccount, GoogleOauthClient, ResendKey},
};
use serde_json::{Value, json};

struct Try {
    kind: ActionKind,
    request: FrozenRequest,
    credential: Credential,
    id: ActionId,
    key: String,
}

impl Try {
    fn new(kind: ActionKind, credential: Credential, parameters: Value) -> Self {
        let Value::Object(parameters) = parameters else {
            panic!("an object")
        };
        let request = action::get(kind).freeze(parameters).expect("a request");
        let id = ActionId::generate();
        Self {
            kind,
            request,
            credential,
            id,
            key: format!("org:{id}"),
        }
    }

    fn attempt(&self) -> Attempt<'_> {
        Attempt {
            action: self.id,
            org: OrgId::from_uuid(uuid::Uuid::nil()),
            event: EventId::from_uuid(uuid::Uuid::nil()),
            request: &self.request,
            idempotency_key: &self.key,
            credential: &self.credential,
            planned_at: SystemClock.now(),
            first_sent_at: None,
            deadline: LONG,
            public_url: None,
            hops: 0,
            hops_header: None,
        }
    }

    async fn send(&self, providers: &Providers) -> (Outcome, Detail) {
        action::get(self.kind).send(providers, &self.attempt()).await
    }

    async fn look_up(&self, providers: &Providers) -> LookUp {
        action::get(self.kind).look_up(providers, &self.attempt()).await.0
    }
}

async fn with_resend() -> Running {
    let sandbox = sandbox().await;
    let key = |api_key: &str, domain: &str| ResendKey {
        api_key: api_key.to_owned(),
        domains: vec![domain.to_owned()],
        is_sending_only: true,
    };
    sandbox.state.register(Accounts {
        resend: vec![key("re_a", "a.example"), key("re_b", "b.example")],
        ..Accounts::default()
    });
    sandbox
}

fn email(key: &str, from: &str) -> Try {
    let credential = credential(Provider::Resend, &json!({"api_key": key, "from": from}));
    Try::new(
        ActionKind::ResendSendEmail,
        credential,
        json!({"to": ["ann@c.example"], "subject": "Grüße", "text": "Hello", "html": "<p>Hello</p>"}),
    )
}

#[tokio::test]
async fn an_email_goes_out_once_however_often_it_is_sent_under_its_key() {
    let sandbox = with_resend().await;
    let providers = sandbox.providers();
    let email = email("re_a", "Us <us@a.example>");
    let (first, _) = email.send(&providers).await;
    let (second, _) = email.send(&providers).await;
    assert_eq!(first, second, "the first answer again");
    let sent = sandbox.state.emails();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].body["from"].as_str(), sent[0].idempotency_key.as_deref()),
        (Some("Us <us@a.example>"), Some(email.key.as_str()))
    );
    assert_eq!(sandbox.state.violations(), []);
}

#[tokio::test]
async fn an_email_whose_answer_was_lost_is_unknown_and_absorbed_by_the_same_key() {
    let sandbox = with_resend().await;
    let providers = sandbox.providers();
    let email = email("re_a", "us@a.example");
    sandbox
        .state
        .add_fault(Fault::of(Provider::Resend).times(1).dropping(Dropped::AfterAccept));
    assert_eq!(
        email.send(&providers).await.0,
        Outcome::Unknown { cause: Cause::NoAnswer }
    );
    assert!(matches!(email.send(&providers).await.0, Outcome::Succeeded { .. }));
    assert_eq!(sandbox.state.emails().len(), 1);
    // A sender that changed meanwhile makes other bytes: Resend says so, and nothing goes out
    // twice.
    let mut other = self::email("re_a", "other@a.example");
    (other.id, other.key) = (email.id, email.key.clone());
    assert_eq!(
        other.send(&providers).await.0,
        Outcome::Unknown {
            cause: Cause::Ambiguous
        }
    );
    assert_eq!(sandbox.state.emails().len(), 1);
    assert!(matches!(
        email.look_up(&providers).await,
        LookUp::Failed(Outcome::Unknown {
            cause: Cause::LookUpForbidden
        })
    ));
}

#[tokio::test]
async fn each_refusal_of_resend_has_its_outcome_and_masks_addresses() {
    let sandbox = with_resend().await;
    let providers = sandbox.providers();
    for (try_it, outcome) in [
        (
            email("re_a", "us@b.example"),
            Outcome::Park {
                cause: Cause::Misconfigured,
            },
        ),
        (
            email("re_nobodys", "us@a.example"),
            Outcome::Park {
                cause: Cause::CredentialRefused,
            },
        ),
    ] {
        let (got, detail) = try_it.send(&providers).await;
        assert_eq!(got, outcome, "{detail:?}");
        assert!(!detail.text.contains('@'));
    }
    let nobody = Try::new(
        ActionKind::ResendSendEmail,
        credential(Provider::Resend, &json!({"api_key": "re_a"})),
        json!({"to": "ann@c.example", "subject": "s", "text": "t"}),
    );
    assert_eq!(
        nobody.send(&providers).await.0,
        Outcome::Park {
            cause: Cause::Misconfigured
        },
        "no sender anywhere"
    );
    let wrong = Try {
        credential: Credential::Twilio(twilio()),
        ..email("re_a", "us@a.example")
    };
    assert_eq!(
        wrong.send(&providers).await.0,
        Outcome::Park {
            cause: Cause::NotConnected
        }
    );
    assert!(sandbox.state.emails().is_empty());
}

const CALLBACK: &str = "https://hooks.example.com/callback";

/// A grant of one account, as Google gives it.
async fn grant(sandbox: &Running, account: &str) -> Credential {
    let client = GoogleOauthClient {
        client_id: "c".to_owned(),
        client_secret: "s".to_owned(),
        redirect_urls: vec![CALLBACK.to_owned()],
    };
    let person = GoogleAccount {
        id: account.to_owned(),
        email: format!("{account}@example.com"),
        calendars: vec!["team@example.com".to_owned()],
        unticked: vec![],
    };
    sandbox.state.register(Accounts {
        google_clients: vec![client],
        google_accounts: vec![person],
        ..Accounts::default()
    });
    let (status, tokens) = exchange(
        sandbox,
        account,
        "verifier-of-43-characters-0123456789abcdefgh",
        CALLBACK,
    )
    .await;
    assert_eq!(status, 200, "{tokens}");
    let expires_at = (SystemClock.now().as_seconds() + 3599).to_string();
    let json = json!({
        "access_token": tokens["access_token"],
        "refresh_token": tokens["refresh_token"],
        "expires_at": expires_at,
        "scope": tokens["scope"],
    });
    credential(Provider::GoogleCalendar, &json)
}

/// The challenge of `verifier-of-43-characters-0123456789abcdefgh`.
fn challenge() -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use sha2::{Digest, Sha256};
    URL_SAFE_NO_PAD.encode(Sha256::digest("verifier-of-43-characters-0123456789abcdefgh"))
}

async fn code(sandbox: &Running, account: &str) -> String {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let scope = "openid https://www.googleapis.com/auth/calendar.events.owned \
        https://www.googleapis.com/auth/calendar.freebusy";
    let challenge = challenge();
    let query = [
        ("client_id", "c"),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("scope", scope),
        ("access_type", "offline"),
        ("prompt", "consent"),
        ("state", "x"),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
        ("login_hint", account),
    ];
    let mut url = reqwest::Url::parse(&format!("{}/o/oauth2/v2/auth", sandbox.base)).expect("a URL");
    url.query_pairs_mut().extend_pairs(query);
    let answer = client.get(url).send().await.expect("an answer");
    let location = reqwest::Url::parse(answer.headers()["location"].to_str().expect("text")).expect("a URL");
    location
        .query_pairs()
        .find(|(name, _)| name == "code")
        .expect("a code")
        .1
        .into_owned()
}

async fn exchange(sandbox: &Running, account: &str, verifier: &str, redirect: &str) -> (u16, Value) {
    token(
        sandbox,
        &[
            ("grant_type", "authorization_code"),
            ("code", &code(sandbox, account).await),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ],
    )
    .await
}

async fn token(sandbox: &Running, form: &[(&str, &str)]) -> (u16, Value) {
    let mut form = form.to_vec();
    form.extend([("client_id", "c"), ("client_secret", "s")]);
    let answer = sandbox
        .client
        .post(format!("{}/token", sandbox.base))
        .form(&form)
        .send()
        .await
        .expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn the_sandboxs_google_is_as_strict_as_the_real_one() {
    let sandbox = sandbox().await;
    grant(&sandbox, "google-1").await;
    let verifier = "verifier-of-43-characters-0123456789abcdefgh";
    let wrong = "verifier-of-43-characters-0123456789abcdefgX";
    assert_eq!(
        exchange(&sandbox, "google-1", wrong, CALLBACK).await.1["error"],
        "invalid_grant"
    );
    assert_eq!(
        exchange(&sandbox, "google-1", verifier, "https://hooks.example.com/callback/")
            .await
            .1["error"],
        "redirect_uri_mismatch"
    );
    let used = code(&sandbox, "google-1").await;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", used.as_str()),
        ("redirect_uri", CALLBACK),
        ("code_verifier", verifier),
    ];
    let (status, first) = token(&sandbox, &form).await;
    assert_eq!(status, 200);
    assert_eq!(
        token(&sandbox, &form).await.1["error"],
        "invalid_grant",
        "a code is used once"
    );
    let refresh = |token: &Value| {
        [
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", token.as_str().expect("a token").to_owned()),
        ]
    };
    let refreshed = async |of: &Value| {
        let form = refresh(of);
        token(
            &sandbox,
            &form
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect::<Vec<_>>(),
        )
        .await
    };
    assert_eq!(
        refreshed(&first["refresh_token"]).await.1["error"],
        "invalid_grant",
        "and a second use ends what it gave"
    );
    sandbox.state.rotate_refresh_tokens(true);
    let (_, second) = exchange(&sandbox, "google-1", verifier, CALLBACK).await;
    let (_, third) = refreshed(&second["refresh_token"]).await;
    assert_eq!(
        refreshed(&second["refresh_token"]).await.1["error"],
        "invalid_grant",
        "a rotated token is over"
    );
    let at = async |token: &Value| {
        let url = format!("{}/calendar/v3/calendars/primary/events/none0", sandbox.base);
        sandbox
            .client
            .get(url)
            .bearer_auth(token.as_str().expect("a token"))
            .send()
            .await
            .expect("an answer")
            .status()
            .as_u16()
    };
    assert_eq!(
        (at(&third["access_token"]).await, at(&second["access_token"]).await),
        (404, 401),
        "and so is its access token"
    );
    assert_eq!(
        token(&sandbox, &[("grant_type", "password")]).await.1["error"],
        "unsupported_grant_type"
    );
    let answer = sandbox
        .client
        .post(format!("{}/token", sandbox.base))
        .form(&[("client_id", "c"), ("client_secret", "wrong")])
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 401);
}

fn event(credential: Credential, extra: Value) -> Try {
    let mut parameters = json!({
        "summary": "Cleaning",
        "start": "2026-03-01T14:00:00+01:00",
        "end": "2026-03-01T14:30:00+01:00",
        "attendees": ["ann@c.example"],
    });
    let Value::Object(extra) = extra else {
        panic!("an object")
    };
    parameters.as_object_mut().expect("an object").extend(extra);
    Try::new(ActionKind::GoogleCalendarCreateEvent, credential, parameters)
}

#[tokio::test]
async fn an_event_is_booked_once_under_the_actions_id() {
    let sandbox = sandbox().await;
    let providers = sandbox.providers();
    let booking = event(grant(&sandbox, "google-1").await, json!({}));
    let (first, _) = booking.send(&providers).await;
    let id = booking.id.to_string().replace('-', "");
    assert_eq!(
        first,
        Outcome::Succeeded {
            cause: Cause::Accepted,
            provider_ref: Some(id.as_str().into())
        }
    );
    let (second, detail) = booking.send(&providers).await;
    assert_eq!(
        (second, detail.http_status),
        (first, Some(409)),
        "a second insert finds the first"
    );
    let events = sandbox.state.calendar_events();
    assert_eq!(
        (events.len(), events[0]["attendees"][0]["email"].as_str()),
        (1, Some("ann@c.example"))
    );
    assert_eq!(sandbox.state.violations(), []);
    let inserts = sandbox.state.requests(Provider::GoogleCalendar);
    assert!(inserts.iter().any(|request| request.path.contains("sendUpdates=all")));
}

#[tokio::test]
async fn an_event_whose_answer_was_lost_is_found_by_its_id() {
    let sandbox = sandbox().await;
    let providers = sandbox.providers();
    for (drop, found) in [(Dropped::AfterAccept, 1), (Dropped::Before, 0)] {
        let booking = event(
            grant(&sandbox, "google-1").await,
            json!({"calendar_id": "team@example.com"}),
        );
        sandbox
            .state
            .add_fault(Fault::of(Provider::GoogleCalendar).times(1).dropping(drop));
        assert_eq!(
            booking.send(&providers).await.0,
            Outcome::Unknown { cause: Cause::NoAnswer }
        );
        let LookUp::Matches(ids) = booking.look_up(&providers).await else {
            panic!("a look")
        };
        assert_eq!(ids.len(), found);
    }
    assert_eq!(sandbox.state.calendar_events().len(), 1);
}

#[tokio::test]
async fn each_refusal_of_google_has_its_outcome() {
    let sandbox = sandbox().await;
    let providers = sandbox.providers();
    let booking = event(grant(&sandbox, "google-1").await, json!({}));
    let elsewhere = event(
        grant(&sandbox, "google-1").await,
        json!({"calendar_id": "someone.else@example.com"}),
    );
    assert_eq!(
        elsewhere.send(&providers).await.0,
        Outcome::Park {
            cause: Cause::Misconfigured
        }
    );
    for (status, outcome) in [
        (
            403,
            Outcome::Retry {
                cause: Cause::RateLimited,
                not_before: None,
            },
        ),
        (
            429,
            Outcome::Retry {
                cause: Cause::RateLimited,
                not_before: None,
            },
        ),
        (
            401,
            Outcome::Park {
                cause: Cause::CredentialRefused,
            },
        ),
        (
            503,
            Outcome::Unknown {
                cause: Cause::ProviderUnavailable,
            },
        ),
    ] {
        sandbox
            .state
            .add_fault(Fault::of(Provider::GoogleCalendar).times(1).status(status));
        assert_eq!(booking.send(&providers).await.0, outcome, "{status}");
    }
    sandbox.state.revoke_google_account("google-1");
    assert_eq!(
        booking.send(&providers).await.0,
        Outcome::Park {
            cause: Cause::CredentialRefused
        }
    );
    assert!(matches!(
        booking.look_up(&providers).await,
        LookUp::Failed(Outcome::Unknown {
            cause: Cause::CredentialRefused
        })
    ));
    let wrong = Try {
        credential: Credential::Twilio(twilio()),
        ..booking
    };
    assert_eq!(
        wrong.send(&providers).await.0,
        Outcome::Park {
            cause: Cause::NotConnected
        }
    );
    assert!(sandbox.state.calendar_events().is_empty());
}
