//! Keys to connect at the sandbox by hand: for each provider a good one and a limited one.
//! They are the same in every installation, and open nothing anywhere else.

use crate::{
    cli::dev_state::DevState,
    sandbox::{
        Accounts, ApiKey, ElevenLabsKey, GoogleAccount, GoogleOauthClient, KeyKind, ResendKey, TwilioAccount,
        VapiAssistant, VapiOrganisation,
    },
};
use serde_json::{Value, json};

pub(super) const GOOGLE_CLIENT: &str = "hookswitch-dev.apps.sandbox";
const SECOND_VAPI_KEY: &str = "vapi-sandbox-second-organisation";
const SECOND_ASSISTANT: &str = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be0aa";
const TWILIO_KEY_SID: &str = "SK5eed000000000000000000000000d3a7";
const TWILIO_KEY_SECRET: &str = "twilio-sandbox-standard-key";
const SECOND_TWILIO_SID: &str = "AC5eed000000000000000000000000d3a8";
const SECOND_TWILIO_TOKEN: &str = "5eed000000000000000000000000d3a9";
const SECOND_NUMBER: &str = "+12025550199";
const RESEND_KEY: &str = "re_sandbox_demo_key";
const RESEND_LIMITED_KEY: &str = "re_sandbox_sending_only";
const ELEVENLABS_KEY: &str = "sk_sandbox_demo_key";
const ELEVENLABS_LIMITED_KEY: &str = "sk_sandbox_without_voices";
const GOOGLE_ACCOUNT: &str = "front.desk@birchwood.example";
const GOOGLE_LIMITED_ACCOUNT: &str = "no.times@birchwood.example";

/// The accounts of the demo, and the keys that `dev` prints, as the sandbox needs them.
pub(super) fn accounts(state: &DevState, google_redirect: String) -> Accounts {
    Accounts {
        accounts: twilio_accounts(state),
        vapi: vapi_organisations(state),
        google_clients: vec![GoogleOauthClient {
            client_id: GOOGLE_CLIENT.to_owned(),
            client_secret: state.vapi_api_key.clone(),
            redirect_urls: vec![google_redirect],
        }],
        google_accounts: vec![
            google_account("108204268033311374519", GOOGLE_ACCOUNT, &[]),
            google_account("108204268033311374520", GOOGLE_LIMITED_ACCOUNT, &["calendar.freebusy"]),
        ],
        resend: vec![resend_key(RESEND_KEY, false), resend_key(RESEND_LIMITED_KEY, true)],
        elevenlabs: vec![
            elevenlabs_key(ELEVENLABS_KEY, &[]),
            elevenlabs_key(ELEVENLABS_LIMITED_KEY, &["voices_read"]),
        ],
    }
}

/// The demo's account with a second number to claim, and an account of somebody else.
fn twilio_accounts(state: &DevState) -> Vec<TwilioAccount> {
    let mut own =
        TwilioAccount::new(&state.twilio_account_sid, &state.twilio_auth_token).with_number(&state.phone_number);
    own.api_keys.push(ApiKey {
        sid: TWILIO_KEY_SID.to_owned(),
        secret: TWILIO_KEY_SECRET.to_owned(),
        kind: KeyKind::Standard,
    });
    own.numbers.push(SECOND_NUMBER.to_owned());
    let second = TwilioAccount::new(SECOND_TWILIO_SID, SECOND_TWILIO_TOKEN).with_number(SECOND_NUMBER);
    vec![own, second]
}

fn vapi_organisations(state: &DevState) -> Vec<VapiOrganisation> {
    let organisation = |api_key: &str, assistants: &[(&str, &str)]| VapiOrganisation {
        api_key: api_key.to_owned(),
        assistants: assistants
            .iter()
            .map(|(id, name)| VapiAssistant {
                id: (*id).to_owned(),
                name: Some((*name).to_owned()),
            })
            .collect(),
        phone_numbers: Vec::new(),
    };
    let second = (SECOND_ASSISTANT, "Front desk");
    vec![
        organisation(
            &state.vapi_api_key,
            &[(&state.assistant_id, "Birchwood Inbound"), second],
        ),
        organisation(SECOND_VAPI_KEY, &[second]),
    ]
}

fn google_account(id: &str, email: &str, unticked: &[&str]) -> GoogleAccount {
    GoogleAccount {
        id: id.to_owned(),
        email: email.to_owned(),
        calendars: Vec::new(),
        unticked: unticked.iter().map(|&end| end.to_owned()).collect(),
    }
}

fn resend_key(api_key: &str, is_sending_only: bool) -> ResendKey {
    ResendKey {
        api_key: api_key.to_owned(),
        domains: vec!["birchwood.example".to_owned()],
        is_sending_only,
    }
}

fn elevenlabs_key(api_key: &str, missing: &[&str]) -> ElevenLabsKey {
    ElevenLabsKey {
        api_key: api_key.to_owned(),
        user_id: "sandbox-user".to_owned(),
        missing_permissions: missing.iter().map(|&name| name.to_owned()).collect(),
    }
}

/// The keys as bodies of `POST /api/integrations/{provider}`, by provider. Vapi has no limited
/// keys: there its second one is of another organisation.
pub(super) fn shown(state: &DevState) -> Value {
    json!({
        "vapi": { "good": { "api_key": state.vapi_api_key }, "other": { "api_key": SECOND_VAPI_KEY } },
        "twilio": {
            "good": { "account_sid": state.twilio_account_sid, "auth_token": state.twilio_auth_token },
            "limited": {
                "account_sid": state.twilio_account_sid,
                "api_key_sid": TWILIO_KEY_SID,
                "api_key_secret": TWILIO_KEY_SECRET,
            },
            "other": { "account_sid": SECOND_TWILIO_SID, "auth_token": SECOND_TWILIO_TOKEN },
        },
        "resend": {
            "good": { "api_key": RESEND_KEY, "from": "Birchwood Dental <hello@birchwood.example>" },
            "limited": { "api_key": RESEND_LIMITED_KEY },
        },
        "elevenlabs": { "good": { "api_key": ELEVENLABS_KEY }, "limited": { "api_key": ELEVENLABS_LIMITED_KEY } },
        "google_calendar": {
            "good": { "login_hint": GOOGLE_ACCOUNT },
            "limited": { "login_hint": GOOGLE_LIMITED_ACCOUNT },
        },
        // Readable with the good keys, and not claimed yet.
        "to_claim": { "assistant": SECOND_ASSISTANT, "number": SECOND_NUMBER },
    })
}
