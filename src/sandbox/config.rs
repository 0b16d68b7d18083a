//! The accounts that the stand-ins know.

use serde::{Deserialize, Serialize};

/// Accounts at the stand-ins. `POST /_accounts` takes the same JSON:
/// `{"accounts": […], "vapi": […]}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accounts {
    pub accounts: Vec<TwilioAccount>,
    pub vapi: Vec<VapiOrganisation>,
    pub resend: Vec<ResendKey>,
    pub elevenlabs: Vec<ElevenLabsKey>,
    pub google_clients: Vec<GoogleOauthClient>,
    pub google_accounts: Vec<GoogleAccount>,
}

macro_rules! without_secret {
    ($name:ident, $($shown:ident),+) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))$(.field(stringify!($shown), &self.$shown))+.finish_non_exhaustive()
            }
        }
    };
}

/// A key at Resend.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResendKey {
    pub api_key: String,
    /// Verified domains of its account.
    #[serde(default)]
    pub domains: Vec<String>,
    #[serde(default)]
    pub is_sending_only: bool,
}
without_secret!(ResendKey, domains, is_sending_only);

/// A key at ElevenLabs.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElevenLabsKey {
    pub api_key: String,
    pub user_id: String,
    /// `user_read`, `voices_read`.
    #[serde(default)]
    pub missing_permissions: Vec<String>,
}
without_secret!(ElevenLabsKey, user_id, missing_permissions);

/// An OAuth client that is registered at Google.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoogleOauthClient {
    pub client_id: String,
    pub client_secret: String,
    pub redirect_urls: Vec<String>,
}
without_secret!(GoogleOauthClient, client_id, redirect_urls);

/// A person at Google.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoogleAccount {
    /// Google's number of the account.
    pub id: String,
    pub email: String,
    /// Calendars that they own beside `primary`.
    #[serde(default)]
    pub calendars: Vec<String>,
    /// Ends of the scopes whose boxes they leave unticked.
    #[serde(default)]
    pub unticked: Vec<String>,
}

/// An account at Twilio: `{"sid","auth_token","numbers":["+1…"]}`, the rest as its fields say.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwilioAccount {
    /// `AC` and 32 hexadecimal digits.
    pub sid: String,
    pub auth_token: String,
    #[serde(default)]
    pub friendly_name: Option<String>,
    /// Numbers that it may send from, in E.164.
    #[serde(default)]
    pub numbers: Vec<String>,
    #[serde(default)]
    pub messaging_services: Vec<String>,
    #[serde(default)]
    pub api_keys: Vec<ApiKey>,
    #[serde(default, rename = "type")]
    pub kind: AccountKind,
    #[serde(default)]
    pub status: AccountStatus,
    /// Numbers that a trial account may send to.
    #[serde(default)]
    pub verified: Vec<String>,
    /// Numbers that answered STOP.
    #[serde(default)]
    pub opted_out: Vec<String>,
}

impl std::fmt::Debug for TwilioAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TwilioAccount")
            .field("sid", &self.sid)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl TwilioAccount {
    /// A full, active account without numbers.
    #[must_use]
    pub fn new(sid: impl Into<String>, auth_token: impl Into<String>) -> Self {
        Self {
            sid: sid.into(),
            auth_token: auth_token.into(),
            friendly_name: None,
            numbers: Vec::new(),
            messaging_services: Vec::new(),
            api_keys: Vec::new(),
            kind: AccountKind::Full,
            status: AccountStatus::Active,
            verified: Vec::new(),
            opted_out: Vec::new(),
        }
    }

    #[must_use]
    pub fn with_number(mut self, number: impl Into<String>) -> Self {
        self.numbers.push(number.into());
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum AccountKind {
    Trial,
    #[default]
    Full,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountStatus {
    #[default]
    Active,
    Suspended,
    Closed,
}

/// A key of an account.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// `SK` and 32 hexadecimal digits.
    pub sid: String,
    pub secret: String,
    #[serde(default)]
    pub kind: KeyKind,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKey")
            .field("sid", &self.sid)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The permissions of a key. A main key may do everything, a standard key everything except the
/// account itself, a restricted key only send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    Main,
    #[default]
    Standard,
    Restricted,
}

/// An organisation at Vapi, by its private key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VapiOrganisation {
    pub api_key: String,
    #[serde(default)]
    pub assistants: Vec<VapiAssistant>,
    #[serde(default)]
    pub phone_numbers: Vec<VapiPhoneNumber>,
}

impl std::fmt::Debug for VapiOrganisation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VapiOrganisation")
            .field("assistants", &self.assistants)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VapiAssistant {
    pub id: String,
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VapiPhoneNumber {
    pub id: String,
    pub number: String,
    /// A number that was brought from this account of Twilio. Without one it is Vapi's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twilio_account_sid: Option<String>,
    /// Left out of the answer where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sms_enabled: Option<bool>,
}

/// The account of `dev`'s demo organisation. Its secrets are made with the installation and handed
/// in.
pub const DEMO_ACCOUNT_SID: &str = "AC00000000000000000000000000d3a700";
/// A number from the range that is kept for fiction.
pub const DEMO_PHONE_NUMBER: &str = "+12025550123";
pub const DEMO_ASSISTANT_ID: &str = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be001";
pub const DEMO_PHONE_NUMBER_ID: &str = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be002";

impl Accounts {
    /// The accounts of `dev`: one at Twilio with one number, and one organisation at Vapi with one
    /// assistant and the same number.
    #[must_use]
    pub fn demo(twilio_auth_token: &str, vapi_api_key: &str) -> Self {
        let mut account = TwilioAccount::new(DEMO_ACCOUNT_SID, twilio_auth_token).with_number(DEMO_PHONE_NUMBER);
        account.friendly_name = Some("Hookswitch demo".to_owned());
        let organisation = VapiOrganisation {
            api_key: vapi_api_key.to_owned(),
            assistants: vec![VapiAssistant {
                id: DEMO_ASSISTANT_ID.to_owned(),
                name: Some("Demo receptionist".to_owned()),
            }],
            phone_numbers: vec![VapiPhoneNumber {
                id: DEMO_PHONE_NUMBER_ID.to_owned(),
                number: DEMO_PHONE_NUMBER.to_owned(),
                twilio_account_sid: None,
                sms_enabled: None,
            }],
        };
        Self {
            accounts: vec![account],
            vapi: vec![organisation],
            ..Self::default()
        }
    }

    /// Adds accounts. A known account is replaced.
    pub(super) fn merge(&mut self, more: Self) {
        for account in more.accounts {
            self.accounts.retain(|known| known.sid != account.sid);
            self.accounts.push(account);
        }
        for organisation in more.vapi {
            self.vapi.retain(|known| known.api_key != organisation.api_key);
            self.vapi.push(organisation);
        }
        for key in more.resend {
            self.resend.retain(|known| known.api_key != key.api_key);
            self.resend.push(key);
        }
        for key in more.elevenlabs {
            self.elevenlabs.retain(|known| known.api_key != key.api_key);
            self.elevenlabs.push(key);
        }
    }
}

/// How a sandbox behaves.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    pub accounts: Accounts,
    /// Requests and messages that are kept; older ones go.
    pub requests_max: usize,
    /// Whether status callbacks are posted.
    pub is_calling_back: bool,
    /// Status callbacks that are posted at once.
    pub callbacks_concurrent_max: usize,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            accounts: Accounts::default(),
            requests_max: 100_000,
            is_calling_back: true,
            callbacks_concurrent_max: 8,
        }
    }
}
