//! The providers whose APIs are called: one file a provider, one HTTP client for all (time-outs,
//! limits, SSRF guard).
//!
//! `action` (to act) and `admin` (to verify) enter. **Invariant:** no other room opens an outgoing
//! connection.
//!
//! Credentials are stored as JSON, sealed by the vault: [`Credential::parse`] reads it,
//! [`Credential::to_stored`] writes it.
//!
//! | provider | JSON |
//! |---|---|
//! | `twilio` | `{"account_sid":"AC…","auth_token":"…","phone_number":"+1…"?}`, or `api_key_sid` and `api_key_secret` instead of `auth_token` |
//! | `vapi` | `{"api_key":"…"}` |
//! | `google_calendar` | `{"access_token":"…","refresh_token":"…","expires_at":"1700000000","scope":"…"}` |
//! | `resend` | `{"api_key":"re_…","from":"Name <mail@example.com>"?}` |
//! | `elevenlabs` | `{"api_key":"…"}` |
//! | `http` | `{"name":"…","url":"https://…","secrets":["whsec_…", …]}`, newest secret first |

mod api;
mod credential;
pub mod elevenlabs;
pub mod google;
pub mod http;
pub mod resend;
pub mod table;
pub mod twilio;
pub mod vapi;

pub use credential::{
    Credential, CredentialError, ElevenLabsCredential, GoogleCredential, HttpCredential, ResendCredential, TwilioAuth,
    TwilioCredential, VapiCredential, is_e164, is_mailbox, is_sid,
};

use crate::{
    config::{ConfigError, Fault, ProviderSettings},
    domain::{Cause, Outcome, Timestamp},
};
use serde::Deserialize;
use std::time::Duration;

/// Time for a call that checks something while a person waits.
pub const VERIFY_MAX: Duration = Duration::from_secs(10);

/// A provider's refusal of a call. The caller (an action, or a check in `admin`) decides the next
/// step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderRefusal {
    pub http_status: u16,
    /// The provider's own code, such as `20003`.
    pub code: Option<Box<str>>,
    /// The provider's words, cut to 500 characters, numbers and addresses of people masked; never
    /// the request.
    pub message: Box<str>,
    pub retry_after: Option<Timestamp>,
}

/// Why a call gave no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent: certainly not done.
    #[error("could not connect to {host}: {reason}")]
    NotSent { host: String, reason: String },
    /// Bytes may have gone out and no whole answer came back: unknown.
    #[error("{host} gave no usable answer: {reason}")]
    NoAnswer { host: String, reason: String },
    /// The address is private, loopback, link-local or otherwise not allowed: nothing was sent.
    #[error("the address of {host} is not allowed as a destination")]
    AddressNotAllowed { host: String },
    /// A 3xx: never followed.
    #[error("{host} answered {status} with a redirect, which is not followed")]
    Redirect { host: String, status: u16 },
    /// A whole answer that is not 2xx.
    #[error("refused with {}: {}", .0.http_status, .0.message)]
    Refused(ProviderRefusal),
}

impl CallError {
    /// The provider's refusal. Every other failure has the same outcome for each action that a
    /// provider does once.
    ///
    /// # Errors
    /// That outcome.
    pub const fn refusal(&self) -> Result<&ProviderRefusal, Outcome> {
        match self {
            Self::Refused(refusal) => Ok(refusal),
            Self::NotSent { .. } => Err(Outcome::Retry {
                cause: Cause::ConnectFailed,
                not_before: None,
            }),
            Self::NoAnswer { .. } => Err(Outcome::Unknown { cause: Cause::NoAnswer }),
            Self::AddressNotAllowed { .. } => Err(Outcome::Dead {
                cause: Cause::AddressNotAllowed,
            }),
            Self::Redirect { .. } => Err(Outcome::Dead {
                cause: Cause::RedirectNotFollowed,
            }),
        }
    }
}

/// The three results of checking a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    Accepted {
        account: Option<Account>,
    },
    /// Works; something that a named feature needs is missing.
    Limited {
        account: Option<Account>,
        missing: String,
    },
    Refused(ProviderRefusal),
}

/// The account that a credential opens, for people to recognise and for reconnects to compare.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    pub id: String,
    pub name: Option<String>,
}

/// The clients, with the base URL of each provider (a setting; `dev` points them at the sandbox).
#[derive(Clone, Debug)]
pub struct Providers {
    pub twilio: twilio::TwilioClient,
    pub vapi: vapi::VapiClient,
    pub google: google::GoogleClient,
    pub resend: resend::ResendClient,
    pub elevenlabs: elevenlabs::ElevenLabsClient,
    pub http: http::HttpClient,
}

impl Providers {
    /// `public_host` is this installation's own `host` or `host:port`, which `http.post` refuses
    /// (invariant 5).
    ///
    /// # Errors
    /// All settings that cannot be used.
    pub fn new(settings: &ProviderSettings, public_host: Option<&str>) -> Result<Self, ConfigError> {
        Self::with_client(settings, http::HttpClient::new(settings, public_host))
    }

    /// The same over a client that the caller made, for tests with a resolver or a clock of their
    /// own.
    ///
    /// # Errors
    /// All settings that cannot be used.
    pub fn with_client(
        settings: &ProviderSettings,
        http: Result<http::HttpClient, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let twilio = base_url("HOOKSWITCH_TWILIO_BASE_URL", &settings.twilio_base_url, &mut faults);
        let vapi = base_url("HOOKSWITCH_VAPI_BASE_URL", &settings.vapi_base_url, &mut faults);
        let resend = base_url("HOOKSWITCH_RESEND_BASE_URL", &settings.resend_base_url, &mut faults);
        let elevenlabs = base_url(
            "HOOKSWITCH_ELEVENLABS_BASE_URL",
            &settings.elevenlabs_base_url,
            &mut faults,
        );
        let google = google::GoogleUrls {
            consent: base_url(
                "HOOKSWITCH_GOOGLE_CONSENT_URL",
                &settings.google_consent_url,
                &mut faults,
            ),
            tokens: base_url(
                "HOOKSWITCH_GOOGLE_TOKEN_BASE_URL",
                &settings.google_token_base_url,
                &mut faults,
            ),
            calendar: base_url("HOOKSWITCH_GOOGLE_BASE_URL", &settings.google_base_url, &mut faults),
            refresh_before: settings.refresh_before_seconds,
        };
        let app = google_app(settings, &mut faults);
        match http {
            Ok(http) if faults.is_empty() => Ok(Self {
                twilio: twilio::TwilioClient::new(twilio, http.clone()),
                vapi: vapi::VapiClient::new(vapi, http.clone()),
                google: google::GoogleClient::new(app, google, &http),
                resend: resend::ResendClient::new(resend, http.clone()),
                elevenlabs: elevenlabs::ElevenLabsClient::new(elevenlabs, http.clone()),
                http,
            }),
            Ok(_) => Err(ConfigError { faults }),
            Err(error) => Err(ConfigError {
                faults: faults.into_iter().chain(error.faults).collect(),
            }),
        }
    }
}

/// This installation's registration at Google: all three settings, or none.
fn google_app(settings: &ProviderSettings, faults: &mut Vec<Fault>) -> Option<google::GoogleApp> {
    match (
        &settings.google_client_id,
        &settings.google_client_secret,
        &settings.google_redirect_url,
    ) {
        (None, None, None) => None,
        (Some(id), Some(secret), Some(redirect)) => {
            base_url("HOOKSWITCH_GOOGLE_REDIRECT_URL", redirect, faults);
            Some(google::GoogleApp {
                client_id: id.clone(),
                client_secret: secret.clone(),
                redirect_url: redirect.clone(),
            })
        }
        (id, secret, redirect) => {
            let all = [
                ("HOOKSWITCH_GOOGLE_CLIENT_ID", id.is_none()),
                ("HOOKSWITCH_GOOGLE_CLIENT_SECRET", secret.is_none()),
                ("HOOKSWITCH_GOOGLE_REDIRECT_URL", redirect.is_none()),
            ];
            for (name, _) in all.into_iter().filter(|(_, is_missing)| *is_missing) {
                faults.push(Fault {
                    name: name.to_owned(),
                    problem: "is not set beside the other settings of Google: set all three, or none".to_owned(),
                });
            }
            None
        }
    }
}

/// A base URL without its trailing slash, so that paths are appended to it as text.
fn base_url(name: &str, text: &str, faults: &mut Vec<Fault>) -> String {
    let usable = reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
    });
    if !usable {
        faults.push(Fault {
            name: name.to_owned(),
            problem: "expected a base URL such as https://api.example.com, without query or user".to_owned(),
        });
    }
    text.trim_end_matches('/').to_owned()
}

/// A provider's words for people: one line, at most 500 characters, with numbers and addresses of
/// people masked. Providers repeat the recipient in their errors ("The 'To' number +15551234567 is
/// not valid"), and what is recorded must hold none.
#[must_use]
pub fn masked(text: &str) -> Box<str> {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut out = String::with_capacity(text.len().min(500));
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            out.push(' ');
        }
        if word.contains('@') {
            out.push_str("[masked]");
        } else {
            out.push_str(word);
        }
    }
    let mut masked = String::with_capacity(out.len());
    let mut rest = out.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let run = rest[start..]
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, ' ' | '-' | '(' | ')' | '.')))
            .map_or(rest.len(), |length| start + length);
        let end = start + rest[start..run].trim_end_matches(|c: char| !c.is_ascii_digit()).len();
        let is_number = rest[start..end].bytes().filter(u8::is_ascii_digit).count() >= 7;
        // A run that touches letters is part of an id (`SM0f12…`), not a telephone number.
        let touches = rest[..start].chars().next_back().is_some_and(char::is_alphabetic)
            || rest[end..].chars().next().is_some_and(char::is_alphabetic);
        masked.push_str(&rest[..start]);
        masked.push_str(if is_number && !touches {
            "[masked]"
        } else {
            &rest[start..end]
        });
        rest = &rest[end..];
    }
    masked.push_str(rest);
    masked.chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses_of_people_are_masked() {
        for (text, expected) in [
            (
                "The 'To' number +15551234567 is not valid",
                "The 'To' number +[masked] is not valid",
            ),
            ("call +1 (555) 123-4567.", "call +[masked]."),
            ("error 21211, 400", "error 21211, 400"),
            ("mail jane@example.com now", "mail [masked] now"),
            (
                "no SM0123456789abcdef0123456789abcdef here",
                "no SM0123456789abcdef0123456789abcdef here",
            ),
            ("a\r\nb\u{1b}[31m", "a  b [31m"),
            ("", ""),
        ] {
            assert_eq!(&*masked(text), expected, "{text:?}");
        }
        assert_eq!(masked(&"é".repeat(900)).chars().count(), 500);
    }

    #[test]
    fn base_urls_that_cannot_be_used_are_named_all_at_once() {
        let settings = ProviderSettings {
            twilio_base_url: "api.twilio.com".into(),
            vapi_base_url: "https://api.vapi.ai/?x=1".into(),
            google_client_id: Some("id".into()),
            google_redirect_url: Some("https://a.example/callback".into()),
            http_allowed_networks: vec!["ten".into()],
            ..ProviderSettings::default()
        };
        let names: Vec<String> = Providers::new(&settings, None)
            .expect_err("four faults")
            .faults
            .into_iter()
            .map(|fault| fault.name)
            .collect();
        let wanted = [
            "HOOKSWITCH_TWILIO_BASE_URL",
            "HOOKSWITCH_VAPI_BASE_URL",
            "HOOKSWITCH_GOOGLE_CLIENT_SECRET",
            "HOOKSWITCH_HTTP_ALLOWED_NETWORKS",
        ];
        assert_eq!(names, wanted);
    }
}
