//! Stand-ins for the providers of a [`TestApp`], with accounts that its organisations connect.

use super::TestApp;
use hookswitch::{
    config::ProviderSettings,
    domain::OrgId,
    sandbox::{
        Accounts, ElevenLabsKey, GoogleAccount, GoogleOauthClient, ResendKey, Sandbox, SandboxConfig, SandboxState,
        TwilioAccount, VapiAssistant, VapiOrganisation, VapiPhoneNumber,
    },
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub const SID: &str = "AC0123456789abcdef0123456789abcdef";
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub const NUMBER: &str = "+12025550199";
pub const KEY: &str = "vapi-key-of-the-first-organisation";
pub const OTHER_KEY: &str = "vapi-key-of-the-other-organisation";
pub const ASSISTANT: &str = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be0aa";

/// The address to which Google sends people back. Nobody listens there: tests carry the code to the
/// API themselves.
pub const CALLBACK: &str = "https://hooks.example.com/api/integrations/google_calendar/callback";

pub fn reader(key: &str, assistants: &[&str]) -> VapiOrganisation {
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
            twilio_account_sid: None,
            sms_enabled: None,
        }],
    }
}

/// The accounts that the stand-ins know.
pub fn accounts() -> Accounts {
    Accounts {
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
    }
}

/// Starts the stand-ins, and points the settings at them.
pub(super) async fn start(provider: &mut ProviderSettings, stop: CancellationToken) -> SandboxState {
    let sandbox = Sandbox::bind("127.0.0.1:0".parse().unwrap(), SandboxConfig::default())
        .await
        .unwrap();
    let base = format!("http://{}", sandbox.address().unwrap());
    let state = sandbox.state();
    #[expect(clippy::disallowed_methods, reason = "ends with the token")]
    tokio::spawn(sandbox.run(stop));
    state.register(accounts());
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
    state
}

impl TestApp {
    /// The stand-ins of a test that asked for them.
    pub fn providers(&self) -> &SandboxState {
        self.providers.as_ref().expect("built with `provider_sandbox`")
    }

    pub async fn connect_vapi(&self, org: OrgId, key: &str) {
        self.post(org, "/api/integrations/vapi", &json!({ "api_key": key }))
            .await
            .expect(200);
    }

    pub async fn connect_twilio(&self, org: OrgId) {
        self.post(
            org,
            "/api/integrations/twilio",
            &json!({ "account_sid": SID, "auth_token": TOKEN }),
        )
        .await
        .expect(200);
    }

    pub async fn status(&self, org: OrgId, provider: &str) -> Value {
        let status = self.get(org, "/api/integrations/status").await.expect(200).json();
        status["integrations"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["provider"] == provider)
            .unwrap()
            .clone()
    }
}
