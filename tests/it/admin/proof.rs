//! The provider's answer decides about connecting, verifying, and the holder of an assistant or a
//! number (invariant 18).

use super::Api;
use hookswitch::{
    config::Settings,
    domain::{OrgId, Provider, Source},
    sandbox::{
        Accounts, ElevenLabsKey, Fault, GoogleAccount, GoogleOauthClient, ResendKey, Sandbox, SandboxConfig,
        SandboxState, TwilioAccount, VapiAssistant, VapiOrganisation, VapiPhoneNumber,
    },
};
use serde_json::{Value, json};
use sqlx::Connection;
use tokio_util::sync::{CancellationToken, DropGuard};

const SID: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const NUMBER: &str = "+12025550199";
const KEY: &str = "vapi-key-of-the-first-organisation";
const OTHER_KEY: &str = "vapi-key-of-the-other-organisation";
const ASSISTANT: &str = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be0aa";

/// The address to which Google sends people back. Nobody listens there: tests carry the code to the
/// API themselves.
pub(crate) const CALLBACK: &str = "https://hooks.example.com/api/integrations/google_calendar/callback";

pub(crate) struct House {
    pub(crate) api: Api,
    pub(crate) providers: SandboxState,
    _stop: DropGuard,
}

fn reader(key: &str, assistants: &[&str]) -> VapiOrganisation {
    VapiOrganisation {
        api_key: key.to_owned(),
        assistants: assistants
            .iter()
            .map(|id| VapiAssistant {
                id: (*id).to_owned(),
                name: Some("Front desk".to_owned()),
            })
            .collect(),
        phone_numbers: vec![VapiPhoneNumber {
            id: "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be0bb".to_owned(),
            number: NUMBER.to_owned(),
        }],
    }
}

pub(crate) async fn start() -> House {
    let stop = CancellationToken::new();
    let sandbox = Sandbox::bind("127.0.0.1:0".parse().unwrap(), SandboxConfig::default())
        .await
        .unwrap();
    let base = format!("http://{}", sandbox.address().unwrap());
    let providers = sandbox.state();
    #[expect(clippy::disallowed_methods, reason = "ends with the guard")]
    tokio::spawn(sandbox.run(stop.clone()));
    providers.register(Accounts {
        accounts: vec![TwilioAccount::new(SID, TOKEN).with_number(NUMBER)],
        vapi: vec![reader(KEY, &[ASSISTANT]), reader(OTHER_KEY, &[ASSISTANT])],
        resend: vec![ResendKey {
            api_key: "re_key_of_the_first_organisation".to_owned(),
            domains: vec!["example.com".to_owned()],
            is_sending_only: false,
        }],
        elevenlabs: vec![ElevenLabsKey {
            api_key: "elevenlabs-key-of-the-first-one".to_owned(),
            user_id: "user-1".to_owned(),
            missing_permissions: vec![],
        }],
        google_clients: vec![GoogleOauthClient {
            client_id: "client".to_owned(),
            client_secret: "canary-client-secret".to_owned(),
            redirect_urls: vec![CALLBACK.to_owned()],
        }],
        google_accounts: ["google-1", "google-2"]
            .map(|id| GoogleAccount {
                id: id.to_owned(),
                email: format!("{id}@example.com"),
                calendars: vec![],
                unticked: vec![],
            })
            .to_vec(),
    });
    let mut settings = Settings::default();
    let provider = &mut settings.provider;
    for url in [
        &mut provider.vapi_base_url,
        &mut provider.twilio_base_url,
        &mut provider.resend_base_url,
        &mut provider.elevenlabs_base_url,
        &mut provider.google_base_url,
        &mut provider.google_token_base_url,
    ] {
        base.clone_into(url);
    }
    provider.google_consent_url = format!("{base}/o/oauth2/v2/auth");
    provider.google_client_id = Some("client".to_owned());
    provider.google_client_secret = Some("canary-client-secret".to_owned().into());
    provider.google_redirect_url = Some(CALLBACK.to_owned());
    House {
        api: Api::start_with(settings, None).await,
        providers,
        _stop: stop.drop_guard(),
    }
}

/// The view of an integration as the status has it.
pub(crate) fn without_warnings(mut connected: Value) -> Value {
    assert_eq!(connected.as_object_mut().unwrap().remove("warnings"), Some(json!([])));
    connected
}

impl House {
    async fn connect_vapi(&self, org: OrgId, key: &str) {
        self.api
            .post(org, "/api/integrations/vapi", &json!({ "api_key": key }))
            .await
            .expect(200);
    }

    async fn connect_twilio(&self, org: OrgId) {
        self.api
            .post(
                org,
                "/api/integrations/twilio",
                &json!({ "account_sid": SID, "auth_token": TOKEN }),
            )
            .await
            .expect(200);
    }

    pub(crate) async fn status(&self, org: OrgId, provider: &str) -> Value {
        let status = self.api.get(org, "/api/integrations/status").await.expect(200).json();
        status["integrations"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["provider"] == provider)
            .unwrap()
            .clone()
    }
}

#[tokio::test]
async fn a_credential_is_stored_once_the_provider_takes_it() {
    let house = start().await;
    let (api, org) = (&house.api, house.api.a);
    for (path, body) in [
        (
            "/api/integrations/twilio",
            json!({ "account_sid": SID, "auth_token": "f".repeat(32) }),
        ),
        (
            "/api/integrations/vapi",
            json!({ "api_key": "unowned-key-0123456789", "webhook_secret": "0123456789abcdef0123" }),
        ),
    ] {
        // Refused is refused, also where an unverified one would be taken.
        for query in ["", "?unverified=true"] {
            assert_eq!(
                api.post(org, &format!("{path}{query}"), &body).await.expect(422).code(),
                "refused_by_provider",
                "{path}"
            );
        }
        assert_eq!(
            api.post(org, &format!("{path}/test"), &body).await.expect(422).code(),
            "refused_by_provider"
        );
    }
    for provider in ["twilio", "vapi"] {
        assert_eq!(house.status(org, provider).await["state"], "not_connected");
    }
    assert!(
        api.store
            .list_secrets(org, Source::Vapi, None)
            .await
            .unwrap()
            .is_empty(),
        "nothing was stored"
    );

    let body = json!({ "account_sid": SID, "auth_token": TOKEN, "phone_number": NUMBER });
    let tested = api
        .post(org, "/api/integrations/twilio/test", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&tested["state"], &tested["account"]["id"]),
        (&json!("connected"), &json!(SID))
    );
    assert_eq!(
        house.status(org, "twilio").await["state"],
        "not_connected",
        "a test stores nothing"
    );
    let connected = api
        .post(org, "/api/integrations/twilio", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&connected["state"], &connected["connected"]),
        (&json!("connected"), &json!(true))
    );
    assert!(connected["last_verified_at"].is_string());
    assert_eq!(connected["last_four"], TOKEN[28..]);
    assert_eq!(house.status(org, "twilio").await, without_warnings(connected));
    assert_eq!(
        api.store.list_secrets(org, Source::Twilio, None).await.unwrap().len(),
        1,
        "the token verifies webhooks, too"
    );
    api.post(
        org,
        "/api/integrations/vapi",
        &json!({ "api_key": KEY, "webhook_secret": "0123456789abcdef0123" }),
    )
    .await
    .expect(200);
    assert_eq!(
        api.store.list_secrets(org, Source::Vapi, None).await.unwrap().len(),
        4,
        "one for each way in which Vapi uses it"
    );
}

#[tokio::test]
async fn verifying_keeps_what_the_provider_says_and_an_outage_nothing() {
    let house = start().await;
    let (api, org) = (&house.api, house.api.a);
    house.connect_vapi(org, KEY).await;
    let version = house.status(org, "vapi").await["version"].as_i64();
    house.providers.add_fault(Fault::of(Provider::Vapi).status(401));
    let refused = api
        .post(org, "/api/integrations/vapi/verify", &json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&refused["state"], &refused["cause"], &refused["connected"]),
        (
            &json!("needs_reconnecting"),
            &json!("credential_refused"),
            &json!(false)
        )
    );
    assert!(
        refused["error"]["message"].is_string()
            && refused["first_failed_at"].is_string()
            && refused["last_verified_at"].is_string()
    );
    house.providers.clear_faults();
    house.providers.add_fault(Fault::of(Provider::Vapi).status(503));
    let unasked = api.post(org, "/api/integrations/vapi/verify", &json!({})).await;
    assert_eq!(unasked.expect(200).json(), refused, "who is refused stays refused");
    assert_eq!(house.status(org, "vapi").await, refused);
    house.providers.clear_faults();
    let well = api
        .post(org, "/api/integrations/vapi/verify", &json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&well["state"], &well["error"], &well["first_failed_at"]),
        (&json!("connected"), &Value::Null, &Value::Null)
    );
    assert_eq!(
        well["version"].as_i64(),
        version.map(|version| version + 1),
        "a new version, so that what was parked goes on"
    );
}

#[tokio::test]
async fn an_assistant_is_whose_key_reads_it() {
    let house = start().await;
    let (api, a, b) = (&house.api, house.api.a, house.api.b);
    let claim = json!({ "assistant_id": ASSISTANT, "role": "inbound" });
    let nothing = api.post(a, "/api/assistants", &claim).await.expect(422).json();
    house.connect_vapi(a, KEY).await;
    let made = api.post(a, "/api/assistants", &claim).await.expect(201);
    assert_eq!(
        (&made.json()["state"], &made.json()["name"], &made.json()["proof"]),
        (&json!("live"), &json!("Front desk"), &json!("read_at_provider"))
    );
    assert_eq!(
        api.get(a, &format!("/api/assistants/{ASSISTANT}"))
            .await
            .expect(200)
            .etag(),
        made.etag()
    );
    // Proven again without its fields: it is the same claim, and what was left out stays.
    let again = api
        .post(a, "/api/assistants", &json!({ "assistant_id": ASSISTANT }))
        .await
        .expect(200)
        .json();
    assert_eq!((&again["role"], &again["version"]), (&json!("inbound"), &json!(2)));
    api.get(b, &format!("/api/assistants/{ASSISTANT}")).await.expect(404);
    api.delete(b, &format!("/api/assistants/{ASSISTANT}")).await.expect(404);

    // One answer to whoever cannot read it: without a key, with another's id, with an id that
    // nobody has.
    let mut held = api.post(b, "/api/assistants", &claim).await.expect(422).json();
    held["request_id"] = nothing["request_id"].clone();
    assert_eq!(held, nothing);
    house.connect_vapi(b, OTHER_KEY).await;
    let elsewhere = api.post(b, "/api/assistants", &claim).await.expect(409);
    assert_eq!(elsewhere.code(), "held_elsewhere");
    assert!(!elsewhere.text.contains(&a.to_string()) && !elsewhere.text.contains("Organisation A"));
    house.providers.add_fault(Fault::of(Provider::Vapi).status(503));
    assert_eq!(
        api.post(b, "/api/assistants", &claim).await.expect(503).code(),
        "provider_unreachable"
    );
    house.providers.clear_faults();
    assert_eq!(
        api.get(a, &format!("/api/assistants/{ASSISTANT}")).await.json()["state"],
        "live"
    );
}

#[tokio::test]
async fn proof_moves_a_stale_claim_and_both_sides_can_read_it() {
    let house = start().await;
    let (api, a, b) = (&house.api, house.api.a, house.api.b);
    house.connect_vapi(a, KEY).await;
    house.connect_vapi(b, OTHER_KEY).await;
    let claim = json!({ "assistant_id": ASSISTANT });
    api.post(a, "/api/assistants", &claim).await.expect(201);
    house.providers.register(Accounts {
        vapi: vec![reader(KEY, &[])],
        ..Accounts::default()
    });
    api.post(b, "/api/assistants", &claim).await.expect(201);
    assert_eq!(api.store.find_assistant_holder(ASSISTANT).await.unwrap(), Some(b));
    api.get(a, &format!("/api/assistants/{ASSISTANT}")).await.expect(404);
    let of = async |org: OrgId| api.get(org, "/api/audit?limit=1").await.json()["data"][0].clone();
    let (theirs, own) = (of(a).await, of(b).await);
    assert_eq!(
        (&theirs["verb"], &theirs["actor"]),
        (&json!("release"), &json!("hookswitch")),
        "without who took it"
    );
    assert_eq!((&own["verb"], &own["target_id"]), (&json!("prove"), &json!(ASSISTANT)));
    api.delete(b, &format!("/api/assistants/{ASSISTANT}")).await.expect(204);
    assert_eq!(api.store.find_assistant_holder(ASSISTANT).await.unwrap(), None);
}

/// A holder whose credential this installation cannot open shows no claim. The claimer's own proof
/// stands, and the former holder finds the move in its audit.
#[tokio::test]
async fn a_holders_credential_that_does_not_open_stops_no_other_organisations_claim() {
    let house = start().await;
    let (api, a, b) = (&house.api, house.api.a, house.api.b);
    house.connect_vapi(a, KEY).await;
    house.connect_twilio(a).await;
    let claims = [
        ("/api/assistants", json!({ "assistant_id": ASSISTANT })),
        ("/api/phone-numbers", json!({ "number": NUMBER })),
    ];
    for (path, claim) in &claims {
        api.post(a, path, claim).await.expect(201);
    }
    house.connect_vapi(b, OTHER_KEY).await;
    house.connect_twilio(b).await;
    for (path, claim) in &claims {
        api.post(b, path, claim).await.expect(409);
    }
    let file = format!("sqlite:{}", api.folder().join("store.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&file).await.unwrap();
    sqlx::query("UPDATE org_credentials SET sealed = x'00' WHERE org_id = ?1")
        .bind(a.as_bytes().as_slice())
        .execute(&mut connection)
        .await
        .unwrap();
    for (path, claim) in &claims {
        assert_eq!(api.post(a, path, claim).await.expect(500).code(), "undecryptable");
        api.post(b, path, claim).await.expect(201);
        let last = api.get(a, "/api/audit?limit=1").await.json()["data"][0].clone();
        assert_eq!(
            (&last["verb"], &last["actor"]),
            (&json!("release"), &json!("hookswitch"))
        );
    }
}

#[tokio::test]
async fn a_number_is_whose_account_holds_it() {
    let house = start().await;
    let (api, a, b) = (&house.api, house.api.a, house.api.b);
    let path = format!("/api/phone-numbers/{NUMBER}");
    for bad in [
        "12025550199",
        "+1 202 555 0199",
        "+１２０２５５５０１９９",
        "+0202555",
        "+12025550199\u{200e}",
        "whatsapp:+12025550199",
        "",
    ] {
        assert_eq!(
            api.post(a, "/api/phone-numbers", &json!({ "number": bad }))
                .await
                .expect(400)
                .field(),
            "number",
            "{bad}"
        );
    }
    assert_eq!(
        api.post(a, "/api/phone-numbers", &json!({ "number": NUMBER }))
            .await
            .expect(422)
            .code(),
        "not_readable"
    );
    house.connect_twilio(a).await;
    assert_eq!(
        api.post(a, "/api/phone-numbers", &json!({ "number": "+12025550100" }))
            .await
            .expect(422)
            .code(),
        "not_readable"
    );
    let made = api
        .post(a, "/api/phone-numbers", &json!({ "number": NUMBER }))
        .await
        .expect(201)
        .json();
    assert_eq!(
        (&made["provider"], &made["account_id"], &made["state"]),
        (&json!("twilio"), &json!(SID), &json!("live"))
    );
    api.get(a, &path).await.expect(200);
    api.get(b, &path).await.expect(404);
    api.delete(b, &path).await.expect(404);
    house.connect_twilio(b).await;
    assert_eq!(
        api.post(b, "/api/phone-numbers", &json!({ "number": NUMBER }))
            .await
            .expect(409)
            .code(),
        "held_elsewhere"
    );
    api.delete(a, "/api/integrations/twilio").await.expect(204);
    api.post(b, "/api/phone-numbers", &json!({ "number": NUMBER }))
        .await
        .expect(201);
    api.get(a, &path).await.expect(404);
    // The same digits at Vapi are another route.
    house.connect_vapi(a, KEY).await;
    let at_vapi = api
        .post(
            a,
            "/api/phone-numbers",
            &json!({ "number": NUMBER, "provider": "vapi" }),
        )
        .await
        .expect(201)
        .json();
    assert_eq!(
        (&at_vapi["provider"], &at_vapi["account_id"]),
        (&json!("vapi"), &Value::Null)
    );
    assert_eq!(api.get(b, &path).await.expect(200).json()["state"], "live");
}
